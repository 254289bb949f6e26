//! What statements hold: it is bounded by work_mem, or they fail with 53200.

use super::*;
use crate::types::Datum;

fn bytes(rows: &[crate::types::Row]) -> usize {
    rows.iter().flatten().map(Datum::heap_bytes).sum()
}

/// Bytes reserved for anything but plans.
fn used(session: &Session) -> usize {
    session.shared.db.plans.clear();
    session.instance.memory().used()
}

/// Runs one query and looks at each piece of its result; how many rows there were.
fn each_piece(session: &mut Session, sql: &str, mut look: impl FnMut(&[crate::types::Row])) -> usize {
    session.simple(sql).unwrap();
    session.next_result().unwrap();
    let mut count = 0;
    while let Step::Rows(rows) = session.fetch().unwrap() {
        look(&rows);
        count += rows.len();
    }
    assert!(session.next_result().unwrap().is_none());
    count
}

#[test]
fn batches_of_large_values_have_few_rows() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create table t (a int primary key, b text)");
    show(&mut session, "insert into t select g, repeat('x', 100000) from generate_series(1, 200) g");
    for query in [
        "select repeat('x', 100000) from generate_series(1, 200)",
        "select upper(b), b from t",
        "select b from t where b <> '' order by a desc",
        "select (select b from t where a = 1) || g from generate_series(1, 200) g",
    ] {
        let count = each_piece(&mut session, query, |rows| assert!(bytes(rows) < 3 << 19, "{query}: {}", bytes(rows)));
        assert_eq!(count, 200, "{query}");
    }
    session.simple("copy (select repeat('x', 100000) from generate_series(1, 200)) to stdout").unwrap();
    session.next_result().unwrap();
    let mut all = 0;
    while let CopyStep::Data(piece) = session.copy_out().unwrap() {
        assert!(piece.bytes.len() < 3 << 19, "{}", piece.bytes.len());
        all += piece.bytes.len();
    }
    assert_eq!(all, 200 * 100_001);
}

#[test]
fn a_cancel_is_noticed_between_rows() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create sequence s; set statement_timeout = '50ms'");
    for query in [
        "select nextval('s'), md5(repeat('x', 1000000 + g)) from generate_series(1, 1000) g",
        "select 1 from generate_series(1, 1000) g where nextval('s') > 0 and md5(repeat('x', 1000000 + g)) = ''",
    ] {
        assert!(show(&mut session, query).contains("57014"), "{query}");
    }
    // The rows of no batch were all computed.
    show(&mut session, "reset statement_timeout");
    let last: i64 = show(&mut session, "select nextval('s')").parse().unwrap();
    assert!(last < 256, "{last}");
}

#[test]
fn returned_rows_spill() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create table t (a int, b text); set work_mem = '64kB'");
    for change in [
        "insert into t select g, repeat('x', 3000) from generate_series(1, 500) g returning a, b",
        "update t set b = b || 'y' returning a, b",
        "with gone as (delete from t returning *) select * from gone",
    ] {
        session.simple(change).unwrap();
        session.next_result().unwrap();
        let super::super::Active::Rows(rows, _) = &mut session.active else { panic!("no rows") };
        assert!(rows.is_spilled(), "they are in a file: {change}");
        let mut sum = 0;
        while let Step::Rows(rows) = session.fetch().unwrap() {
            assert!(bytes(&rows) < 3 << 19);
            sum += rows.iter().filter_map(|r| crate::exec::value::integer(&r[0])).sum::<i64>();
        }
        assert_eq!(sum, 500 * 501 / 2, "{change}");
        assert!(session.next_result().unwrap().is_none());
    }
}

/// Runs a query that must fail for memory; what its DETAIL says wanted it.
fn out_of_memory(session: &mut Session, sql: &str) -> String {
    let shown = show(session, sql);
    let mut lines = shown.lines().skip_while(|l| !l.starts_with("ERROR"));
    assert_eq!(lines.next(), Some("ERROR:  53200: out of memory"), "{sql}: {shown:.300}");
    let detail =
        lines.next().and_then(|l| l.strip_prefix("DETAIL:  ")).unwrap_or_else(|| panic!("{sql}: {shown:.300}"));
    detail.split(" wants ").next().unwrap_or_default().to_owned()
}

#[test]
fn what_only_grows_fails_and_the_session_goes_on() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    for (query, what) in [
        ("select length(string_agg(repeat('x', 1000000), '')) from generate_series(1, 300)", "string_agg"),
        ("select array_length(array_agg(repeat('x', 1000000) || g), 1) from generate_series(1, 300) g", "array_agg"),
        ("select length(array_agg(array[repeat('x', 1000000)])::text) from generate_series(1, 300) g", "array_agg"),
        (
            "select percentile_disc(0.5) within group (order by repeat('x', 1000000) || g) from generate_series(1, 300) g",
            "percentile_disc",
        ),
        (
            "select length(string_agg(v, '' order by v)) from (select repeat('x', 1000000) || g from generate_series(1, 300) g) t(v)",
            "string_agg",
        ),
        (
            "select array_length(array(select repeat('x', 1000000) || g from generate_series(1, 300) g), 1)",
            "ARRAY(subquery)",
        ),
        (
            "select g % 3, length(string_agg(repeat('x', 1000000), '')) from generate_series(1, 300) g group by 1",
            "string_agg",
        ),
    ] {
        assert_eq!(out_of_memory(&mut session, query), what, "{query}");
    }
    assert_eq!(used(&session), 0, "all was given back");
    assert!(instance.memory().peak() <= 64 << 20);
    assert_eq!(
        show(&mut session, "select length(string_agg(repeat('x', 1000000), '')) from generate_series(1, 50)"),
        "50000000"
    );
}

#[test]
fn groups_that_grow_are_ended_one_by_one() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    let sums = "select count(*), sum(n), min(n), max(n), count(distinct k) from";
    assert_eq!(
        show(
            &mut session,
            &format!(
                "{sums} (select g / 2, length(max(repeat('x', 10000) || g)) from generate_series(10000, 19999) g group by 1) t(k, n)"
            ),
        ),
        "5000|50025000|10005|10005|5000"
    );
    assert!((10_000..8 << 20).contains(&instance.memory().peak()), "max() is watched: {}", instance.memory().peak());
    // Together 160 MB, a group 1.6 MB.
    assert_eq!(
        show(
            &mut session,
            &format!(
                "{sums} (select g % 100, length(string_agg(repeat('x', 20000), '')) from generate_series(1, 8000) g group by 1) t(k, n)"
            ),
        ),
        "100|160000000|1600000|1600000|100"
    );
    assert_eq!(
        show(
            &mut session,
            &format!(
                "{sums} (select g % 50, count(distinct repeat('x', 1000) || g % 1000) from generate_series(1, 20000) g group by 1) t(k, n)"
            ),
        ),
        "50|1000|20|20|50"
    );
    assert_eq!(
        show(
            &mut session,
            "select a, b, count(*), sum(length(c)) from (
               select g % 2, g % 3, string_agg(repeat('x', 1000), '') from generate_series(1, 600) g group by cube (1, 2)
             ) t(a, b, c) group by a, b order by a, b"
        ),
        "0|0|1|100000\n0|1|1|100000\n0|2|1|100000\n0|NULL|1|300000\n1|0|1|100000\n1|1|1|100000\n1|2|1|100000\n1|NULL|1|300000\n\
         NULL|0|1|200000\nNULL|1|1|200000\nNULL|2|1|200000\nNULL|NULL|1|600000"
    );
    assert!(instance.memory().peak() < 8 << 20, "{}", instance.memory().peak());
}

#[test]
fn candidates_of_not_in_go_to_a_file() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    // 40 MB of values; what stays in memory is their hashes.
    assert_eq!(
        show(
            &mut session,
            "select count(*), min(a) from generate_series(0, 20100) a
             where repeat('x', 2000) || a not in (select repeat('x', 2000) || g from generate_series(1, 20000) g)"
        ),
        "101|0"
    );
    let peak = instance.memory().peak();
    assert!((20_000 * 8..2 << 20).contains(&peak), "{peak}");
    assert_eq!(
        show(
            &mut session,
            "select count(*) from generate_series(0, 5000) a
             where (repeat('x', 2000), a) not in (select repeat('x', 2000), nullif(g, 7) from generate_series(1, 4000) g)"
        ),
        "0"
    );
}

#[test]
fn a_recursion_without_end_fails() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    let endless = "with recursive r(n, t) as (select 1, '' union select n + 1, repeat('x', 100000) || n from r) select count(t) from r";
    assert_eq!(out_of_memory(&mut session, endless), "WITH RECURSIVE");
    assert_eq!(used(&session), 0);
}

#[test]
fn window_calls_are_computed_when_their_rows_are_wanted() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create sequence s; set work_mem = '64kB'");
    assert_eq!(
        show(&mut session, "select sum(nextval('s')) over (order by g) from generate_series(1, 5000) g limit 1"),
        "1"
    );
    assert_eq!(show(&mut session, "select nextval('s')"), "2");
    // The values of all rows are 500 MB.
    let growing = "select length(string_agg(repeat('x', 1000), '') over (order by g)) from generate_series(1, 1000) g";
    assert_eq!(show(&mut session, &format!("select count(n), max(n) from ({growing}) t(n)")), "1000|1000000");
    assert!(instance.memory().peak() < 2 << 20, "{}", instance.memory().peak());
}

#[test]
fn partitions_of_windows_go_to_a_file() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    let query = "select g, length(lag(v, 1000) over w), length(first_value(v) over w), row_number() over w, length(max(v) over (order by g rows 2 preceding))
                 from (select g, repeat('x', 1000 + g) from generate_series(1, 2000) g) t(g, v) window w as (order by g)";
    let plan = show(&mut session, &format!("explain (analyze, timing off, costs off, summary off) {query}"));
    let windows: Vec<&str> = plan.lines().filter(|l| l.contains("Storage")).collect();
    assert!(!windows.is_empty() && windows.iter().all(|l| l.contains("Storage: Disk")), "{plan}");
    let sums = format!("select sum(g), sum(a), sum(b), sum(c), sum(d) from ({query}) t(g, a, b, c, d)");
    assert_eq!(show(&mut session, &sums), "2001000|1500500|2002000|2001000|4001000");
}

#[test]
fn a_record_of_copy_without_end_fails() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create table t (a text); set work_mem = '64kB'");
    for (copy, start) in [("copy t from stdin", "x"), ("copy t from stdin csv", "a\n\"b\n")] {
        session.simple(copy).unwrap();
        session.next_result().unwrap();
        session.copy_data(start.as_bytes()).unwrap();
        let piece = "x".repeat(1 << 20);
        let failed = (0..100).find_map(|_| session.copy_data(piece.as_bytes()).err()).expect("a limit");
        assert_eq!(failed.state(), "53200");
        assert!(failed.0.detail.as_ref().is_some_and(|d| d.starts_with("A record of COPY FROM wants")), "{failed:?}");
        assert!(failed.0.context.as_ref().is_some_and(|c| c.starts_with("COPY t, line ")), "{failed:?}");
    }
    assert_eq!((show(&mut session, "select count(*) from t").as_str(), used(&session)), ("0", 0));
}

#[test]
fn rows_a_change_has_met_are_reserved() {
    let instance = instance();
    let mut session = connect(&instance);
    show(
        &mut session,
        "create table t (a int primary key, b int); insert into t select g, 0 from generate_series(1, 3000) g",
    );
    let peak = instance.memory().peak();
    for change in [
        "update t set b = b + 1 from generate_series(1, 2) g where t.a > g - 3",
        "delete from t using generate_series(1, 2) g where t.a > g - 3",
    ] {
        assert!(show(&mut session, &format!("begin; {change}; rollback")).contains(" 3000\n"), "{change}");
    }
    let upsert =
        "insert into t select g, 1 from generate_series(2001, 5000) g on conflict (a) do update set b = t.b + 1";
    assert_eq!(show(&mut session, upsert), "INSERT 0 3000");
    let twice = "insert into t values (1, 1), (1, 2) on conflict (a) do update set b = 0";
    assert!(show(&mut session, twice).contains("21000"));
    // 17 bytes a key, in a table that may be half empty, and the locks of each row.
    let peak = instance.memory().peak() - peak;
    assert!((3000 * 17..3000 * 250).contains(&peak), "{peak}");
}

#[test]
fn what_a_client_leaves_open_is_bounded() {
    let options = InstanceOptions { cache_bytes: 16 << 20, memory_bytes: 8 << 20, ..InstanceOptions::default() };
    let instance = Instance::in_memory(options).unwrap();
    let mut s = connect(&instance);
    show(&mut s, "create table t (a int, b text); set work_mem = '64kB'");
    s.parse("ins", "insert into t values ($1, $2)", &[]).unwrap();
    let value = || Some(bytes::Bytes::from("x".repeat(10_000)));
    for n in 0..20 {
        s.bind("", "ins", vec![Some(n.to_string().into()), value()], &[], &[]).unwrap();
        s.execute("", 0).unwrap();
    }
    s.sync().unwrap();
    assert_eq!(show(&mut s, "select count(*), sum(length(b)) from t"), "20|200000");
    // Portals and statements that are never closed.
    let before = used(&s);
    let portals = |s: &mut Session, n: usize| s.bind(&format!("p{n}"), "ins", vec![None, value()], &[], &[]);
    let refused = (0..2000).find_map(|n| portals(&mut s, n).err()).expect("a limit");
    assert!(refused.state() == "53200" && refused.0.detail.is_some_and(|d| d.starts_with("A portal")));
    s.sync().unwrap();
    assert_eq!(used(&s), before);
    let sql = "select 1 + 1, 'a' || 'b' from t where a in (1, 2, 3)".to_owned();
    let refused = (0..2000).find_map(|n| s.parse(&format!("s{n}"), &sql, &[]).err()).expect("a limit");
    assert!(refused.state() == "53200" && refused.0.detail.is_some_and(|d| d.starts_with("A prepared statement")));
    s.sync().unwrap();
    // One of them gives way to the text of what drops the others.
    s.close_statement("s0");
    assert_eq!(show(&mut s, "deallocate all"), "DEALLOCATE ALL");
    assert_eq!(used(&s), 0);
}

#[test]
fn a_join_by_one_value_takes_its_table_in_pieces() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "set work_mem = '64kB'");
    show(
        &mut session,
        "create table big (k int, v text); insert into big select 1, repeat('x', 1000) || g from generate_series(1, 2000) g",
    );
    show(
        &mut session,
        "create table more (k int, n int); insert into more select g % 2, g from generate_series(1, 5000) g",
    );
    for (join, expected) in [
        // 2500 rows of `more` have the one key of `big`.
        ("select count(*), count(v), sum(n) from more left join big using (k) where n < 40", "40019|40000|800380"),
        (
            "select count(*), count(v), count(n) from more full join big on more.k = big.k and n < 40 and v > 'xxx'",
            "44980|40000|44980",
        ),
        ("select count(*) from more where n < 100 and k in (select k from big where length(v) > n)", "50"),
        (
            "select count(*) from more where not exists (select from big where big.k = more.k and length(v) > n + 900)",
            "4948",
        ),
    ] {
        let plan = show(&mut session, &format!("explain (costs off) {join}"));
        assert!(plan.contains("Hash"), "{plan}");
        assert_eq!(show(&mut session, join), expected, "{join}");
    }
    assert!(
        (100..1 << 20).contains(&instance.memory().peak()),
        "partners are remembered over pieces: {}",
        instance.memory().peak()
    );
}

#[test]
fn text_is_reserved_before_it_is_parsed() {
    let options = InstanceOptions { cache_bytes: 16 << 20, memory_bytes: 8 << 20, ..InstanceOptions::default() };
    let instance = Instance::in_memory(options).unwrap();
    let mut s = connect(&instance);
    show(&mut s, "create table t (a int, b text)");
    let rows = |n: usize| (0..n).map(|i| format!("({i}, 'v{i}')")).collect::<Vec<_>>().join(", ");
    assert_eq!(show(&mut s, &format!("insert into t values {}", rows(4000))), "INSERT 0 4000");
    assert_eq!(out_of_memory(&mut s, &format!("insert into t values {}", rows(20_000))), "A statement's text");
    // One long value costs little more than its bytes.
    assert_eq!(show(&mut s, &format!("insert into t values (1, '{}')", "a b c ".repeat(200_000))), "INSERT 0 1");
    assert!(s.parse("", &format!("insert into t values {}", rows(20_000)), &[]).is_err_and(|e| e.state() == "53200"));
    s.sync().unwrap();
    assert_eq!(used(&s), 0);
}
