//! What the cache gives must be what is given without it: a comment behind a statement keeps it out of the cache and changes nothing else.

use super::super::tests::{connect, instance, tell};
use super::*;
use crate::session::{Outcome, Session, Step};
use crate::types::{Datum, io};

/// All a client can see of a statement: labels, types, rows, tag, or the error with its position.
fn seen(session: &mut Session, sql: &str) -> Vec<String> {
    let mut out = Vec::new();
    if let Err(error) = look(session, sql, &mut out) {
        out.push(format!("position {:?}", error.0.position));
        tell("ERROR", &error, &mut out);
    }
    session.take_notices();
    out
}

fn look(session: &mut Session, sql: &str, out: &mut Vec<String>) -> Result<()> {
    session.simple(sql)?;
    while let Some(outcome) = session.next_result()? {
        match outcome {
            Outcome::Rows { fields, .. } => {
                let column =
                    |f: &Field| format!("{} {} {} {} {}", f.name, f.ty.ty.0, f.ty.typmod, f.table_oid, f.attnum);
                out.extend(fields.iter().map(column));
                let cx = session.output_cx();
                loop {
                    match session.fetch()? {
                        Step::Rows(rows) => {
                            let value = |(v, f): (&Datum, &Field)| {
                                if v.is_null() { "NULL".into() } else { io::to_text(v, f.ty.ty, &cx) }
                            };
                            out.extend(
                                rows.iter()
                                    .map(|row| row.iter().zip(fields.iter()).map(value).collect::<Vec<_>>().join("|")),
                            );
                        }
                        Step::Done { tag } => {
                            out.push(tag);
                            break;
                        }
                        Step::Suspended => out.push("suspended".into()),
                    }
                }
            }
            Outcome::Command { tag } => out.push(tag),
            _ => out.push("something else".into()),
        }
    }
    Ok(())
}

/// The same statement in a transaction that is taken back.
fn undone(session: &mut Session, sql: &str) -> Vec<String> {
    seen(session, "BEGIN");
    let mut all = seen(session, sql);
    // What it left behind.
    all.extend(seen(session, "SELECT * FROM every /**/"));
    seen(session, "ROLLBACK");
    all
}

fn check(session: &mut Session, sql: &str) {
    let plain = undone(session, &format!("{sql} /**/"));
    // The comment moves the end, and nothing else.
    if plain.iter().any(|line| line.contains("at end of input")) {
        return;
    }
    for round in 0..3 {
        assert_eq!(undone(session, sql), plain, "{sql} in round {round}");
    }
}

fn hits(session: &Session) -> u64 {
    session.shared.db.plans.stats().2
}

const EVERY: &str = "CREATE TABLE every (id int PRIMARY KEY, small int2, big int8 UNIQUE, num numeric(8,2), f float8, t text, v varchar(5), c char(4), \
     d date, ts timestamp, tz timestamptz, b bool, j jsonb, i interval, a int[]);
     INSERT INTO every VALUES (1, 1, 10, 1.5, 1.5, 'x', 'x', 'x', '2024-01-01', '2024-01-01', '2024-01-01', true, '1', '1 day', '{1}'),
     (2, -2, 3000000000, -2.25, 1e10, 'it''s', '5', 'ab', '2025-02-03', '2025-02-03 04:05', '2025-02-03 04:05+00', false, '{\"a\": 1}', '2 hours', '{}'),
     (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
     CREATE INDEX every_t ON every (t, id)";

#[test]
fn every_conforming_statement_gives_the_same_from_the_cache() {
    let instance = instance();
    let mut session = connect(&instance);
    for setup in [EVERY, include_str!("../../../../tests/conformance/queries.setup.sql")] {
        let out = seen(&mut session, setup);
        assert!(!out.iter().any(|line| line.starts_with("ERROR")), "{out:?}");
    }
    let varying = [
        "random",
        "clock_timestamp",
        "gen_random",
        "backend_pid",
        "txid",
        "timeofday",
        "xact",
        "pg_postmaster",
        "now()",
        "current_time",
    ];
    let files = [
        include_str!("../../../../tests/conformance/expressions.sql"),
        include_str!("../../../../tests/conformance/queries.sql"),
    ];
    let statements =
        files.iter().flat_map(|file| file.lines()).filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for sql in statements {
        let lower = sql.to_ascii_lowercase();
        if Candidate::of(sql).is_some() && !varying.iter().any(|word| lower.contains(word)) {
            check(&mut session, sql);
            count += 1;
        }
    }
    assert!(count > 300 && hits(&session) > count / 2, "{count} statements, {} hits", hits(&session));
}

#[test]
fn other_literals_give_the_same_from_the_cache() {
    let instance = instance();
    let mut session = connect(&instance);
    seen(&mut session, EVERY);
    let values = [
        "1",
        "-1",
        "0",
        "2",
        "- 2",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "1.5",
        "-2.25",
        "0.005",
        "1e3",
        "1e400",
        "99999999.99",
        "''",
        "'x'",
        "'5'",
        "' 7 '",
        "'it''s'",
        "'abcdefgh'",
        "'2025-02-03'",
        "'2024-13-01'",
        "'true'",
        "'{1}'",
        "'1 day'",
        "NULL",
        "'x'::text",
        "'5'::int8",
        "5::int2",
        "DATE '2024-01-01'",
        "'é'",
        "true",
        "-(-2)",
        "1 + 1",
        "id",
        "'\\n'",
    ];
    let templates = [
        "SELECT id, t FROM every WHERE id = ?",
        "SELECT id + ? AS sum FROM every WHERE id < 3",
        "SELECT ?, id FROM every WHERE ? = id ORDER BY id",
        "SELECT id FROM every WHERE small = ?",
        "SELECT id FROM every WHERE big > ? AND big < 4000000000",
        "SELECT id FROM every WHERE num BETWEEN ? AND 100",
        "SELECT id FROM every WHERE f <= ? OR id = 3 ORDER BY id",
        "SELECT id, t || 'y' FROM every WHERE t = ?",
        "SELECT id FROM every WHERE v = ? AND id = 2",
        "SELECT id FROM every WHERE c <> ? ORDER BY 1",
        "SELECT id FROM every WHERE d = ?",
        "SELECT id FROM every WHERE tz >= ?",
        "SELECT id FROM every WHERE ts + i > ?",
        "SELECT id FROM every WHERE b = ?",
        "SELECT id FROM every WHERE a = ?",
        "SELECT id FROM every WHERE j = ?",
        "SELECT id FROM every WHERE NOT (id + 1 = ? OR lower(t) = 'x')",
        "SELECT id FROM every ORDER BY id LIMIT ?",
        "SELECT id FROM every WHERE t LIKE ? ORDER BY id",
        "SELECT id FROM every WHERE id IN (?, 2) ORDER BY id",
        "SELECT count(*), ? FROM every WHERE id >= ? GROUP BY 2",
        "SELECT l.id FROM every l JOIN every r ON r.id = l.id AND r.small = ? ORDER BY 1",
        "SELECT id FROM every WHERE id = (SELECT max(id) FROM every WHERE small < ?)",
        "INSERT INTO every (id, small) VALUES (10, ?) RETURNING small",
        "INSERT INTO every (id, num, t) VALUES (?, 2.345, 'it''s') RETURNING *",
        "INSERT INTO every (id, v, c) VALUES (11, ?, 'a')",
        "INSERT INTO every (id, d, i) VALUES (12, ?, '1 day')",
        "INSERT INTO every (id, j, a) VALUES (13, ?, '{2}')",
        "INSERT INTO every (id, t) VALUES (?, 'a') ON CONFLICT (id) DO UPDATE SET t = 'b', small = 7 WHERE every.id > 0",
        "UPDATE every SET small = ? WHERE id = 1",
        "UPDATE every SET num = num + ?, f = f * 2 WHERE id = 2 RETURNING num, f",
        "UPDATE every SET i = ?, a = '{3}' WHERE id = 1",
        "UPDATE every SET v = ?, c = 'c' WHERE t = 'x'",
        "DELETE FROM every WHERE big = ? RETURNING id",
        "DELETE FROM every WHERE id >= ?",
        "SELECT id FROM every WHERE 10 / (id - 1) > ?",
    ];
    for template in templates {
        for value in values {
            check(&mut session, &template.replace('?', value));
        }
    }
    assert!(hits(&session) > 500, "{} hits", hits(&session));
}

#[test]
fn statements_of_pgbench_are_planned_once() {
    let instance = instance();
    let mut session = connect(&instance);
    seen(
        &mut session,
        "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
         CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
         INSERT INTO pgbench_accounts VALUES (1, 1, 0, ''), (2, 1, 0, '')",
    );
    let script = |aid: i32, delta: i32| {
        [
            format!("UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {aid};"),
            format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid};"),
            format!(
                "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, {aid}, {delta}, CURRENT_TIMESTAMP);"
            ),
        ]
    };
    for (aid, delta) in [(1, 5), (2, -7), (1, 9), (2, -100)] {
        script(aid, delta).iter().for_each(|sql| drop(seen(&mut session, sql)));
    }
    let before = hits(&session);
    for (aid, delta) in [(1, 1), (2, -3), (1, 0), (2, -4999)] {
        script(aid, delta)
            .iter()
            .for_each(|sql| assert!(!seen(&mut session, sql).iter().any(|l| l.starts_with("ERROR"))));
    }
    assert_eq!(hits(&session) - before, 12);
    assert_eq!(
        seen(&mut session, "SELECT sum(abalance), (SELECT sum(delta) FROM pgbench_history) FROM pgbench_accounts")
            .pop()
            .as_deref(),
        Some("SELECT 1")
    );
    let sums = seen(
        &mut session,
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)",
    );
    assert!(sums.contains(&"t".to_owned()), "{sums:?}");
}

#[test]
fn definitions_and_settings_are_part_of_the_key() {
    let instance = instance();
    let (mut one, mut two) = (connect(&instance), connect(&instance));
    seen(
        &mut one,
        "CREATE SCHEMA s; CREATE TABLE t (id int, at timestamptz); INSERT INTO t VALUES (1, '2024-01-01 00:00+00');
         CREATE TABLE s.t (id text); INSERT INTO s.t VALUES ('one')",
    );
    for _ in 0..3 {
        assert_eq!(seen(&mut one, "SELECT id FROM t WHERE id = 1").last().map(String::as_str), Some("SELECT 1"));
        assert_eq!(seen(&mut one, "SELECT count(*) FROM t WHERE at = '2024-01-01'")[1], "1");
    }
    // A session with another path, another zone; then with another table of the name.
    seen(&mut two, "SET search_path = s; SET TimeZone = 'Asia/Tokyo'");
    for _ in 0..3 {
        check_error(&mut two, "SELECT id FROM t WHERE id = 1", "42883");
        assert_eq!(seen(&mut two, "SELECT count(*) FROM public.t WHERE at = '2024-01-01'")[1], "0");
    }
    seen(&mut one, "BEGIN; ALTER TABLE t ADD COLUMN more int DEFAULT 5");
    assert_eq!(seen(&mut one, "SELECT * FROM t WHERE id = 1").len(), 5);
    seen(&mut one, "ROLLBACK");
    for _ in 0..3 {
        assert_eq!(seen(&mut one, "SELECT * FROM t WHERE id = 1").len(), 4);
    }
    seen(&mut two, "ALTER TABLE public.t ALTER COLUMN id TYPE text");
    for _ in 0..3 {
        check_error(&mut one, "SELECT id FROM t WHERE id = 1", "42883");
    }
}

fn check_error(session: &mut Session, sql: &str, state: &str) {
    let out = seen(session, sql);
    assert!(out.iter().any(|line| line.starts_with(&format!("ERROR:  {state}"))), "{out:?}");
}

#[test]
fn prepared_statements_are_shared_by_sessions() {
    let instance = instance();
    let (mut one, mut two) = (connect(&instance), connect(&instance));
    seen(&mut one, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')");
    one.parse("p", "SELECT v FROM t WHERE id = $1", &[]).unwrap();
    one.sync().unwrap();
    let before = hits(&two);
    two.parse("q", "SELECT v FROM t WHERE id = $1", &[]).unwrap();
    assert_eq!(hits(&two), before + 1);
    let shape = two.describe_statement("q").unwrap();
    assert_eq!((shape.params, shape.fields.map(|f| f[0].name.to_string())), (vec![Type::INT4], Some("v".to_owned())));
    // A declared type is another key, and so is a path.
    two.parse("r", "SELECT v FROM t WHERE id = $1", &[Type::INT8]).unwrap();
    assert_eq!(two.describe_statement("r").unwrap().params, vec![Type::INT8]);
    two.sync().unwrap();
    // What means another time every day is read by each.
    assert!(
        literals::tells_time("SELECT 'today'::date")
            && literals::tells_time("SELECT $$ToDay$$::date")
            && !literals::tells_time("SELECT now()")
    );
}

#[test]
fn what_is_kept_is_bounded_and_accounted() {
    let instance = instance();
    let mut session = connect(&instance);
    let before = instance.memory().used();
    for i in 0..3 {
        for n in 0..2000 {
            // Column labels make other shapes of the same length.
            seen(&mut session, &format!("SELECT 1 AS c{n} WHERE {i} = 0"));
        }
    }
    let (entries, bytes, ..) = session.shared.db.plans.stats();
    assert!(entries > 1000 && bytes <= BYTES_MAX, "{entries} entries of {bytes} bytes");
    assert!(
        instance.memory().used() - before >= bytes,
        "{bytes} bytes kept, {} reserved",
        instance.memory().used() - before
    );
    // A short text may have a large plan.
    let columns = (0..200).map(|n| format!("c{n} int")).collect::<Vec<_>>().join(", ");
    seen(&mut session, &format!("CREATE TABLE wide ({columns})"));
    let before = session.shared.db.plans.stats().1;
    session.parse("", "SELECT * FROM wide", &[]).unwrap();
    let wide = session.shared.db.plans.stats().1 - before;
    assert!(wide > 200 * 160, "{wide} bytes for a plan of 200 columns");
    let cache = PlanCache::default();
    let account = Arc::new(Account::of_instance(1 << 40));
    for n in 0..40_000 {
        let text = format!("SELECT {n}");
        let asked = Asked { what: What::Shape, text: &text, types: &[], pinned: "", around: None };
        cache.put(&asked, Entry::Slots(Arc::from([])), &account);
    }
    assert!(cache.stats().1 <= BYTES_MAX && account.used() <= 2 * BYTES_MAX && account.used() >= cache.stats().1);
    let asked = Asked { what: What::Shape, text: "SELECT 39999", types: &[], pinned: "", around: None };
    assert!(cache.find(&asked).is_some());
}

#[test]
fn shapes_keep_apart_what_must_be_parsed() {
    let shape = |sql: &str| literals::read(sql).map(|s| s.text.replace('\u{1}', "?"));
    assert_eq!(shape("select  1, -2.5,'it''s'\n from \"a b\" ; ").as_deref(), Some("select ?i, -?n,?s from \"a b\" "));
    assert_eq!(shape("SELECT a1, b$2, 2147483648").as_deref(), Some("SELECT a1, b$2, ?l"));
    for sql in [
        "SELECT 1 -- 2",
        "SELECT /* 1 */ 2",
        "SELECT $1",
        "SELECT $$a$$",
        "SELECT E'a'",
        "SELECT b'1'",
        "SELECT U&'a'",
        "SELECT 'a'\n'b'",
        "SELECT 1; SELECT 2",
        "SELECT 'a",
        "SELECT \"a",
        "SELECT 0x1F",
        "SELECT 1_000",
        "SELECT 1e",
        "SELECT .5",
        "SELECT 1..2",
        "SELECT - 2147483648",
        "SELECT -9223372036854775808",
        "SELECT \u{1}i",
    ] {
        assert_eq!(shape(sql), None, "{sql}");
    }
}
