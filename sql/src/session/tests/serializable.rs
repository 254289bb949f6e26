//! SERIALIZABLE: what a transaction has read may not have changed when it commits, and nothing else makes it fail.

use super::*;

const FAILED: &str = "40001: could not serialize access due to read/write dependencies among transactions";

fn two() -> (Session, Session) {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v int, u int unique); create index on t (v)");
    show(&mut s, "insert into t values (1, 10, 100), (2, 20, 200), (3, 30, 300)");
    let mut other = connect(&instance);
    for session in [&mut s, &mut other] {
        show(session, "set default_transaction_isolation = serializable");
    }
    (s, other)
}

/// Runs one transaction's reads and writes around a whole other transaction; what its last statement and its commit say.
fn around(read: &str, theirs: &str, write: &str) -> String {
    let (mut a, mut b) = two();
    show(&mut a, &format!("begin; {read}"));
    let done = show(&mut b, theirs);
    assert!(!done.contains("40001"), "{theirs}: {done}");
    let wrote = show(&mut a, write);
    let committed = show(&mut a, "commit");
    format!("{wrote} | {committed}")
}

fn fails(read: &str, theirs: &str) {
    for write in ["insert into t values (9, 90, 900)", "update t set u = 301 where id = 3"] {
        let told = around(read, theirs, write);
        assert!(told.contains(FAILED) && told.ends_with("ROLLBACK"), "{read} / {theirs} / {write}: {told}");
    }
}

fn passes(read: &str, theirs: &str) {
    let told = around(read, theirs, "insert into t values (9, 90, 900)");
    assert_eq!(told, "INSERT 0 1 | COMMIT", "{read} / {theirs}");
}

#[test]
fn rows_read_may_not_change() {
    fails("select * from t where id = 1", "update t set v = 11 where id = 1");
    fails("select * from t where id = 1", "delete from t where id = 1");
    fails("select v from t where u = 100", "update t set v = 11 where id = 1");
    fails("select id from t where v = 10", "update t set v = 11 where id = 1");
    passes("select * from t where id = 1", "update t set v = 21 where id = 2");
    passes("select v from t where u = 100", "delete from t where id = 2");
    passes("select 1", "update t set v = 11");
}

#[test]
fn what_was_not_there_may_not_come() {
    fails("select * from t where id = 5", "insert into t values (5, 50, 500)");
    fails("select * from t where u = 500", "insert into t values (5, 50, 500)");
    fails("select * from t where id between 4 and 7", "insert into t values (5, 50, 500)");
    fails("select count(*) from t", "insert into t values (5, 50, 500)");
    fails("select count(*) from bee_history('t')", "insert into t values (5, 50, 500)");
    fails("select id from t where v > 25", "update t set v = 40 where id = 1");
    fails("select exists (select from t where v = 50)", "insert into t values (5, 50, 500)");
    fails(
        "select * from t a where not exists (select from t b where b.id = a.id + 1)",
        "insert into t values (4, 40, 400)",
    );
    passes("select * from t where id between 4 and 7", "insert into t values (8, 80, 800)");
    passes("select id from t where v > 25", "insert into t values (5, 5, 500)");
}

#[test]
fn a_scan_relies_on_what_it_came_to() {
    passes("select id from t order by id limit 1", "update t set v = 31 where id = 3");
    fails("select id from t order by id limit 1", "insert into t values (0, 0, 0)");
    fails("select id from t order by id desc limit 1", "insert into t values (5, 50, 500)");
    passes("select id from t order by id desc limit 1", "insert into t values (0, 0, 0)");
}

#[test]
fn write_skew_is_refused_and_both_orders_are_possible() {
    let (mut a, mut b) = two();
    show(&mut a, "begin; select sum(v) from t");
    show(&mut b, "begin; select sum(v) from t");
    assert_eq!(show(&mut a, "insert into t values (4, 60, 400)"), "INSERT 0 1");
    assert_eq!(show(&mut b, "insert into t values (5, 60, 500)"), "INSERT 0 1");
    assert_eq!(show(&mut a, "commit"), "COMMIT");
    assert!(show(&mut b, "commit").contains(FAILED));
    assert_eq!(show(&mut b, "select count(*) from t"), "4");
    // REPEATABLE READ allows it.
    show(&mut a, "begin isolation level repeatable read; select sum(v) from t");
    show(
        &mut b,
        "begin isolation level repeatable read; select sum(v) from t; insert into t values (6, 0, 600); commit",
    );
    assert_eq!(show(&mut a, "insert into t values (7, 0, 700); commit"), "INSERT 0 1\nCOMMIT");
}

#[test]
fn who_only_reads_never_fails() {
    let (mut a, mut b) = two();
    for begin in ["begin", "begin read only", "begin isolation level serializable, read only, deferrable"] {
        show(&mut a, &format!("{begin}; select sum(v) from t"));
        show(&mut b, "update t set v = v + 1");
        let sum = show(&mut a, "select sum(v) from t");
        assert_eq!(show(&mut a, "select sum(v) from t; commit"), format!("{sum}\nCOMMIT"), "{begin}");
    }
}

#[test]
fn what_was_read_before_a_way_back_still_counts() {
    let (mut a, mut b) = two();
    show(&mut a, "begin; savepoint s; select * from t where id = 1; update t set v = 0 where id = 2; rollback to s");
    show(&mut b, "update t set v = 11 where id = 1");
    assert!(show(&mut a, "insert into t values (9, 90, 900); commit").contains(FAILED));
    // What only an undone statement wrote is nobody's.
    show(&mut a, "rollback; begin; savepoint s; insert into t values (9, 90, 900); rollback to s");
    show(&mut b, "update t set v = 12 where id = 1; insert into t values (9, 90, 900)");
    assert_eq!(show(&mut a, "commit"), "COMMIT");
}

#[test]
fn the_past_is_relied_on_by_nobody() {
    let (mut a, mut b) = two();
    let version = show(&mut a, "select bee_version()");
    show(&mut a, "update t set v = 31 where id = 3");
    show(&mut a, "begin");
    assert_eq!(show(&mut a, &format!("select count(*) from bee_history('t', {version}, {version})")), "0");
    show(&mut a, &format!("select * from t as of version {version} where id = 1"));
    show(&mut b, "update t set v = 11 where id = 1");
    assert_eq!(show(&mut a, "insert into t values (9, 90, 900); commit"), "INSERT 0 1\nCOMMIT");
}

#[test]
fn a_key_found_free_and_then_taken_is_a_matter_of_order() {
    let (mut a, mut b) = two();
    show(&mut a, "begin; select * from t where id = 5");
    show(&mut b, "insert into t values (5, 50, 500)");
    assert!(show(&mut a, "insert into t values (5, 51, 501)").contains("40001"));
    show(&mut a, "rollback");
    // One who did not look is told that it is taken.
    show(&mut a, "begin; select 1");
    show(&mut b, "insert into t values (6, 60, 600)");
    let told = show(&mut a, "insert into t values (6, 61, 601)");
    assert!(told.contains("23505") || told.contains("could not serialize access due to concurrent update"), "{told}");
}

#[test]
fn modes_are_taken_and_told() {
    let (mut a, _) = two();
    assert_eq!(show(&mut a, "show transaction_isolation; show transaction_deferrable"), "serializable\noff");
    show(&mut a, "begin isolation level serializable read only deferrable");
    assert_eq!(show(&mut a, "show transaction_deferrable; select current_setting('transaction_deferrable')"), "on\non");
    assert!(show(&mut a, "set transaction not deferrable").contains("25001"));
    show(&mut a, "rollback; set session characteristics as transaction deferrable");
    assert_eq!(
        show(&mut a, "show default_transaction_deferrable; begin; show transaction_deferrable"),
        "on\nBEGIN\non"
    );
    assert_eq!(show(&mut a, "set transaction_deferrable = off; show transaction_deferrable"), "SET\noff");
    show(&mut a, "commit; begin; savepoint s");
    assert!(show(&mut a, "set transaction isolation level read committed").contains("25001"));
}
