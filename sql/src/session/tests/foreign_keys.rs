//! Foreign keys between sessions, in transactions of one snapshot, and in numbers. What is expected is what PostgreSQL 15 did with the same steps.

use super::*;

fn with_tables(action: &str) -> (Arc<Instance>, Session) {
    let instance = instance();
    let mut s = connect(&instance);
    let made = show(
        &mut s,
        &format!(
            "create table p (id int primary key, t text);
             create table c (id int primary key, pid int references p {action});
             insert into p values (1), (2), (3); insert into c values (3, 3)"
        ),
    );
    assert!(made.ends_with("INSERT 0 1"), "{made}");
    (instance, s)
}

/// Runs `sql` in a session of its own; whether it waits until `release` has run, and what it shows in the end.
fn beside(instance: &Arc<Instance>, sql: &str, release: impl FnOnce()) -> (bool, String) {
    let mut session = connect(instance);
    std::thread::scope(|scope| {
        let other = super::beside(scope, &mut session, sql);
        let waits = !other.is_finished();
        release();
        (waits, other.join().unwrap())
    })
}

#[test]
fn who_takes_a_row_away_waits_for_who_refers_to_it() {
    let (instance, mut s) = with_tables("");
    show(&mut s, "begin; insert into c values (1, 1)");
    let (waits, shown) = beside(&instance, "delete from p where id = 1", || drop(show(&mut s, "commit")));
    assert!(waits);
    assert!(shown.contains("23503") && shown.contains("Key (id)=(1) is still referenced from table \"c\"."), "{shown}");
    show(&mut s, "begin; insert into c values (2, 2)");
    let (waits, shown) = beside(&instance, "delete from p where id = 2", || drop(show(&mut s, "rollback")));
    assert!(waits);
    assert_eq!(shown, "DELETE 1");
}

#[test]
fn who_refers_waits_for_who_takes_the_row_away() {
    let (instance, mut s) = with_tables("");
    show(&mut s, "begin; delete from p where id = 1");
    let (waits, shown) = beside(&instance, "insert into c values (1, 1)", || drop(show(&mut s, "commit")));
    assert!(waits);
    assert!(shown.contains("Key (pid)=(1) is not present in table \"p\"."), "{shown}");
    show(&mut s, "begin; delete from p where id = 2");
    let (waits, shown) = beside(&instance, "insert into c values (2, 2)", || drop(show(&mut s, "rollback")));
    assert!(waits);
    assert_eq!(shown, "INSERT 0 1");
}

#[test]
fn those_who_refer_do_not_hinder_each_other_nor_changes_of_other_columns() {
    let (instance, mut s) = with_tables("");
    show(&mut s, "begin; insert into c values (1, 1)");
    for sql in ["insert into c values (2, 1)", "update p set t = 'x' where id = 1"] {
        let (waits, shown) = beside(&instance, sql, || ());
        assert!(!waits && !shown.contains("ERROR"), "{sql}: {shown}");
    }
    show(&mut s, "rollback; begin; update p set t = 'y' where id = 1");
    let (waits, _) = beside(&instance, "insert into c values (4, 1)", || ());
    assert!(!waits);
}

#[test]
fn a_cascade_follows_rows_whose_keys_changed_meanwhile() {
    let (instance, mut s) = with_tables("on delete cascade");
    show(&mut s, "begin; update c set id = 30 where id = 3");
    let (waits, shown) = beside(&instance, "delete from p where id = 3", || drop(show(&mut s, "commit")));
    assert!(waits);
    assert_eq!(shown, "DELETE 1");
    assert_eq!(show(&mut s, "select count(*) from c"), "0");
    show(&mut s, "insert into c values (1, 1); begin; delete from c where id = 1");
    let (waits, shown) = beside(&instance, "delete from p where id = 1", || drop(show(&mut s, "rollback")));
    assert!(waits);
    assert_eq!(shown, "DELETE 1");
    assert_eq!(show(&mut s, "select count(*) from c"), "0");
}

#[test]
fn a_transaction_of_one_snapshot_refers_to_what_it_sees() {
    let (instance, mut s) = with_tables("on delete cascade");
    let mut old = connect(&instance);
    let mut in_old = |between: &str, sql: &str| {
        show(&mut old, "begin isolation level repeatable read; select * from p");
        let made = show(&mut s, between);
        assert!(!made.contains("ERROR"), "{made}");
        let shown = show(&mut old, sql);
        show(&mut old, "rollback");
        shown
    };
    let conflict = "40001: could not serialize access due to concurrent update";
    assert!(in_old("delete from p where id = 1", "insert into c values (1, 1)").contains(conflict));
    assert!(in_old("insert into p values (4)", "insert into c values (4, 4)").contains("23503"));
    assert!(in_old("insert into c values (5, 3)", "delete from p where id = 3").contains(conflict));
    assert_eq!(in_old("update p set t = 'x' where id = 2", "insert into c values (6, 2)"), "INSERT 0 1");
    assert!(in_old("update p set id = 20 where id = 2", "insert into c values (6, 2)").contains(conflict));
}

#[test]
fn many_references_are_looked_at_before_they_fill_memory() {
    let (_instance, mut s) = with_tables("deferrable initially deferred");
    let shown = show(&mut s, "begin; insert into c select g, 1 + g % 3 from generate_series(10, 30000) g");
    assert!(shown.ends_with("INSERT 0 29991"), "{shown}");
    assert_eq!(show(&mut s, "insert into c values (40000, 4)"), "INSERT 0 1");
    assert!(show(&mut s, "commit").contains("Key (pid)=(4) is not present"));
    let shown =
        show(&mut s, "insert into c select g, case g when 29000 then 9 else 1 end from generate_series(10, 30000) g");
    assert!(shown.contains("Key (pid)=(9) is not present"), "{shown}");
    assert_eq!(show(&mut s, "select count(*) from c"), "1");
}

#[test]
fn a_long_chain_is_deleted_row_by_row() {
    let instance = instance();
    let mut s = connect(&instance);
    show(
        &mut s,
        "create table chain (id int primary key, up int references chain on delete cascade); create index on chain (up)",
    );
    let shown = show(&mut s, "insert into chain select g, nullif(g - 1, 0) from generate_series(1, 5000) g");
    assert_eq!(shown, "INSERT 0 5000");
    assert_eq!(show(&mut s, "delete from chain where id = 1; select count(*) from chain"), "DELETE 1\n0");
}

#[test]
fn inserters_of_a_deferrable_key_wait_for_each_other_when_it_is_checked() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table u (a int, b int unique deferrable initially deferred)");
    show(&mut s, "begin; insert into u values (1, 1); set constraints all immediate");
    let (waits, shown) = beside(&instance, "insert into u values (2, 1)", || drop(show(&mut s, "commit")));
    assert!(waits);
    assert!(shown.contains("23505"), "{shown}");
    assert_eq!(show(&mut s, "select * from u"), "1|1");
}

#[test]
fn all_that_a_cascade_may_reach_is_locked_beforehand() {
    let instance = instance();
    let mut s = connect(&instance);
    let made = show(
        &mut s,
        "create table a (id int primary key);
         create table b (id int primary key references a on delete cascade on update cascade, n int, up int unique references b on update cascade);
         create table c (id int references b on delete cascade); create table d (up int references b (up) on update cascade)",
    );
    assert!(made.ends_with("CREATE TABLE"), "{made}");
    let locks = "select relation::regclass::text, mode from pg_locks where relation::regclass::text in ('a', 'b', 'c', 'd') order by 1";
    // That b is changed by the statement itself does not tell what its changes reach.
    let shown = show(&mut s, &format!("begin; with u as (update b set n = 1 returning id) delete from a; {locks}"));
    assert_eq!(
        shown.lines().filter(|l| l.contains('|')).collect::<Vec<_>>(),
        ["a|RowExclusiveLock", "b|RowExclusiveLock", "c|RowExclusiveLock", "d|RowShareLock"]
    );
    let shown = show(&mut s, &format!("rollback; begin; update b set id = 1; {locks}"));
    assert!(shown.contains("d|RowExclusiveLock"), "{shown}");
}
