//! What statements hold: it is bounded by work_mem, or they fail with 53200.

use super::*;
use crate::types::Datum;

fn bytes(rows: &[crate::types::Row]) -> usize {
    rows.iter().flatten().map(Datum::heap_bytes).sum()
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
        assert!(piece.len() < 3 << 19, "{}", piece.len());
        all += piece.len();
    }
    assert_eq!(all, 200 * 100_001);
}

#[test]
fn a_cancel_is_noticed_between_rows() {
    let instance = instance();
    let mut session = connect(&instance);
    show(&mut session, "create sequence s; set statement_timeout = '50ms'");
    for query in [
        "select nextval('s'), md5(repeat('x', 300000 + g)) from generate_series(1, 1000) g",
        "select 1 from generate_series(1, 1000) g where nextval('s') > 0 and md5(repeat('x', 300000 + g)) = ''",
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
        assert!(rows.peek(usize::MAX).unwrap().is_none(), "they are in a file: {change}");
        let mut sum = 0;
        while let Step::Rows(rows) = session.fetch().unwrap() {
            assert!(bytes(&rows) < 3 << 19);
            sum += rows.iter().filter_map(|r| crate::exec::value::integer(&r[0])).sum::<i64>();
        }
        assert_eq!(sum, 500 * 501 / 2, "{change}");
        assert!(session.next_result().unwrap().is_none());
    }
}
