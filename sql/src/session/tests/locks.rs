//! LOCK TABLE, advisory locks and the views of locks: texts as PostgreSQL 15 gives them.

use std::time::{Duration, Instant};

use super::*;

fn with_relations() -> (Arc<Instance>, Session) {
    let instance = instance();
    let mut s = connect_as(&instance, 1);
    show(
        &mut s,
        "create table t (a int primary key, b int); create view v as select * from t; create sequence sq;
         create view vv as select v.a from v; create index ti on t (b)",
    );
    (instance, s)
}

/// Comes back when so many wait.
fn until_waiting(s: &mut Session, count: usize) {
    let start = Instant::now();
    loop {
        let waiting = show(s, "select count(distinct pid) from pg_locks where not granted");
        if waiting == count.to_string() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{waiting} wait, {count} should");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lock_table_says_what_it_is_for() {
    let (_, mut s) = with_relations();
    let outside = "ERROR:  25P01: LOCK TABLE can only be used in transaction blocks";
    assert_eq!(show(&mut s, "lock table t"), outside);
    assert_eq!(show(&mut s, "lock t in access share mode"), outside);
    // Several statements of one string are a block.
    assert_eq!(show(&mut s, "select 1; lock table t; select 2"), "1\nLOCK TABLE\n2");
    for (sql, expected) in [
        ("lock table nope", "ERROR:  42P01: relation \"nope\" does not exist"),
        ("lock table nosuch.t", "ERROR:  3F000: schema \"nosuch\" does not exist"),
        (
            "lock table ti",
            "ERROR:  42809: cannot lock relation \"ti\"\nDETAIL:  This operation is not supported for indexes.",
        ),
        (
            "lock table sq",
            "ERROR:  42809: cannot lock relation \"sq\"\nDETAIL:  This operation is not supported for sequences.",
        ),
        ("lock table only t, vv in row exclusive mode nowait", "LOCK TABLE"),
        ("lock pg_class in access share mode", "LOCK TABLE"),
        ("lock only (t)", "LOCK TABLE"),
    ] {
        assert_eq!(show(&mut s, &format!("begin; {sql}")), format!("BEGIN\n{expected}"), "{sql}");
        show(&mut s, "rollback");
    }
    assert_eq!(
        show(&mut s, "begin read only; lock table t in exclusive mode; rollback"),
        "BEGIN\nLOCK TABLE\nROLLBACK"
    );
}

#[test]
fn a_view_is_locked_with_all_that_it_reads() {
    let (instance, mut s) = with_relations();
    show(&mut s, "begin; lock table vv in row exclusive mode");
    let held = show(
        &mut s,
        "select relation::regclass, mode, granted, fastpath from pg_locks
         where locktype = 'relation' and relation >= 16384 order by relation::regclass::text",
    );
    let line = |name: &str| format!("{name}|RowExclusiveLock|t|t");
    assert_eq!(held, ["t", "v", "vv"].map(line).join("\n"));
    let mut other = connect_as(&instance, 2);
    let refused = show(&mut other, "begin; lock table t in share mode nowait");
    assert_eq!(refused, "BEGIN\nERROR:  55P03: could not obtain lock on relation \"t\"");
    show(&mut s, "commit");
    assert_eq!(
        show(&mut other, "rollback; begin; lock table t in share mode nowait; commit"),
        "ROLLBACK\nBEGIN\nLOCK TABLE\nCOMMIT"
    );
}

#[test]
fn who_waits_for_a_table_reads_it_as_it_is_then() {
    let (instance, mut s) = with_relations();
    show(&mut s, "insert into t values (1, 1)");
    show(&mut s, "begin; lock table t; update t set b = 2");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut other = connect_as(&instance, 2);
            show(
                &mut other,
                "begin isolation level repeatable read; lock table t in share mode; select b from t; commit",
            )
        });
        let mut watcher = connect_as(&instance, 3);
        until_waiting(&mut watcher, 1);
        let waiting = show(
            &mut watcher,
            "select locktype, relation::regclass, mode, granted, fastpath, waitstart is not null from pg_locks where pid = 2 and not granted",
        );
        assert_eq!(waiting, "relation|t|ShareLock|f|f|t");
        assert_eq!(show(&mut watcher, "select pg_blocking_pids(2), pg_blocking_pids(1)"), "{1}|{}");
        assert_eq!(
            show(&mut watcher, "set lock_timeout = 20; select * from t"),
            "SET\nERROR:  55P03: canceling statement due to lock timeout"
        );
        show(&mut s, "commit");
        assert_eq!(waiter.join().unwrap(), "BEGIN\nLOCK TABLE\n2\nCOMMIT");
    });
}

#[test]
fn a_name_that_means_another_table_after_the_wait_is_locked_again() {
    let (instance, mut s) = with_relations();
    show(&mut s, "create table u (a int)");
    show(&mut s, "begin; drop table u; create table u (z int)");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut other = connect_as(&instance, 2);
            let shown = show(&mut other, "begin; lock table u in exclusive mode");
            let held = show(
                &mut other,
                "select count(*) from pg_locks l join pg_class c on c.oid = l.relation where c.relname = 'u' and l.mode = 'ExclusiveLock' and l.pid = 2",
            );
            (shown, held)
        });
        until_waiting(&mut connect_as(&instance, 3), 1);
        show(&mut s, "commit");
        assert_eq!(waiter.join().unwrap(), ("BEGIN\nLOCK TABLE".to_owned(), "1".to_owned()));
    });
    show(&mut s, "begin; drop table u");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| show(&mut connect_as(&instance, 2), "begin; lock table u"));
        until_waiting(&mut connect_as(&instance, 3), 1);
        show(&mut s, "commit");
        assert_eq!(waiter.join().unwrap(), "BEGIN\nERROR:  42P01: relation \"u\" does not exist");
    });
}

#[test]
fn advisory_locks_of_sessions_and_transactions() {
    let (instance, mut s) = with_relations();
    let mut other = connect_as(&instance, 2);
    assert_eq!(
        show(&mut s, "select pg_advisory_unlock(1); select pg_advisory_unlock_shared(1, 2)"),
        "f\nWARNING:  01000: you don't own a lock of type ExclusiveLock\n\
         f\nWARNING:  01000: you don't own a lock of type ShareLock"
    );
    assert_eq!(
        show(
            &mut s,
            "select pg_advisory_lock(1), pg_try_advisory_lock_shared(1), pg_advisory_lock(-1, 2), pg_advisory_lock(-5)"
        ),
        "|t||"
    );
    assert_eq!(
        show(
            &mut s,
            "select database, classid, objid, objsubid, mode, granted, fastpath from pg_locks where locktype = 'advisory'
             order by 2, 3, 4, 5"
        ),
        "5|0|1|1|ExclusiveLock|t|f\n5|0|1|1|ShareLock|t|f\n\
         5|4294967295|2|2|ExclusiveLock|t|f\n5|4294967295|4294967291|1|ExclusiveLock|t|f"
    );
    assert_eq!(show(&mut other, "select pg_try_advisory_lock(1), pg_try_advisory_lock(0, 1)"), "f|t");
    // They outlive rollbacks and errors; those of a transaction do not.
    show(&mut s, "begin; select pg_advisory_lock(7); select pg_advisory_xact_lock(8); select 1/0");
    assert_eq!(show(&mut other, "select pg_try_advisory_lock(7), pg_try_advisory_lock(8)"), "f|t");
    show(&mut s, "rollback");
    assert_eq!(show(&mut other, "select pg_try_advisory_lock(7), pg_advisory_unlock(8)"), "f|t");
    assert_eq!(
        show(&mut s, "begin; select pg_advisory_xact_lock(9); select pg_advisory_unlock(9); commit"),
        "BEGIN\n\nf\nWARNING:  01000: you don't own a lock of type ExclusiveLock\nCOMMIT"
    );
    show(&mut s, "begin; savepoint a; select pg_advisory_xact_lock(10); rollback to a");
    assert_eq!(show(&mut other, "select pg_try_advisory_lock(9), pg_try_advisory_lock(10)"), "t|t");
    assert_eq!(
        show(&mut s, "commit; discard all"),
        "COMMIT\nERROR:  25001: DISCARD ALL cannot run inside a transaction block"
    );
    assert_eq!(show(&mut s, "discard all"), "DISCARD ALL");
    assert_eq!(show(&mut other, "select pg_try_advisory_lock(7), pg_try_advisory_lock_shared(1)"), "t|t");
    assert_eq!(show(&mut other, "select pg_advisory_unlock_all()"), "");
    assert_eq!(show(&mut s, "select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert_eq!(show(&mut s, "select pg_advisory_lock(null)"), "NULL");
}

#[test]
fn rows_waited_for_are_shown_and_deadlocks_told_as_postgresql_does() {
    let (instance, mut s) = with_relations();
    show(&mut s, "insert into t values (1, 1), (2, 2)");
    show(&mut s, "begin; update t set b = 10 where a = 1");
    std::thread::scope(|scope| {
        let (locked, go) = std::sync::mpsc::channel();
        let instance = &instance;
        let waiter = scope.spawn(move || {
            let mut other = connect_as(instance, 2);
            show(&mut other, "set deadlock_timeout = '100s'; begin; update t set b = 20 where a = 2");
            locked.send(()).unwrap();
            show(&mut other, "update t set b = 20 where a = 1; commit")
        });
        go.recv().unwrap();
        let mut watcher = connect_as(instance, 3);
        until_waiting(&mut watcher, 1);
        assert_eq!(
            show(
                &mut watcher,
                "select locktype, mode, granted from pg_locks where pid = 2 and locktype in ('transactionid', 'tuple') order by 1, 3"
            ),
            "transactionid|ShareLock|f\ntransactionid|ExclusiveLock|t\ntuple|ExclusiveLock|t"
        );
        assert_eq!(
            show(&mut watcher, "select wait_event_type, wait_event, state from pg_stat_activity where pid = 2"),
            "Lock|transactionid|active"
        );
        let numbers = show(
            &mut watcher,
            "select transactionid from pg_locks where locktype = 'transactionid' and granted order by pid",
        );
        let (one, two) = numbers.split_once('\n').unwrap();
        let place = show(&mut watcher, "select ctid from t where a = 2");
        let shown = show(&mut s, "update t set b = 11 where a = 2");
        assert_eq!(
            shown,
            format!(
                "ERROR:  40P01: deadlock detected\n\
                 DETAIL:  Process 1 waits for ShareLock on transaction {two}; blocked by process 2.\n\
                 Process 2 waits for ShareLock on transaction {one}; blocked by process 1.\n\
                 HINT:  See server log for query details.\n\
                 CONTEXT:  while updating tuple {place} in relation \"t\""
            )
        );
        assert_eq!(waiter.join().unwrap(), "UPDATE 1\nCOMMIT");
    });
    assert_eq!(show(&mut s, "rollback; select * from t order by 1"), "ROLLBACK\n1|20\n2|20");
}

#[test]
fn a_wait_ends_with_a_cancel_at_once() {
    let (instance, mut s) = with_relations();
    show(&mut s, "insert into t values (1, 1)");
    show(&mut s, "begin; update t set b = 10");
    let mut watcher = connect_as(&instance, 3);
    std::thread::scope(|scope| {
        for (sql, context) in [
            ("delete from t where a = 1", Some("while deleting tuple ")),
            ("select * from t for key share; select * from t for share", Some("while locking tuple ")),
            ("select pg_sleep(1000)", None),
        ] {
            let mut other = connect_as(&instance, 2);
            let flag = other.cancel_flag();
            let waiter = scope.spawn(move || show(&mut other, sql));
            // A cancel that comes before the statement is nobody's.
            let start = Instant::now();
            while show(
                &mut watcher,
                "select wait_event from pg_stat_activity where pid = 2 and wait_event_type in ('Lock', 'Timeout')",
            )
            .is_empty()
            {
                assert!(start.elapsed() < Duration::from_secs(60), "it does not wait");
                std::thread::sleep(Duration::from_millis(1));
            }
            let start = Instant::now();
            flag.raise(SqlError::new("57014", "canceling statement due to user request"));
            let shown = waiter.join().unwrap();
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            assert!(shown.contains("ERROR:  57014: canceling statement due to user request"), "{shown}");
            assert_eq!(shown.contains("CONTEXT"), context.is_some(), "{shown}");
            assert!(context.is_none_or(|c| shown.contains(c)), "{shown}");
        }
    });
}
