//! Sessions in each other's way: locks and who gives them up, row ids, definitions that change under a waiting writer.

use std::time::Duration;

use super::*;

/// Whether a row of t can be written by another session at once.
fn is_free(instance: &Arc<Instance>) -> bool {
    let mut s = connect(instance);
    let shown = show(&mut s, "set lock_timeout = 30; update t set v = v where id = 1");
    assert!(shown.contains("UPDATE 1") || shown.contains("55P03"), "{shown}");
    shown.contains("UPDATE 1")
}

fn with_table() -> (Arc<Instance>, Session) {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v int); insert into t values (1, 10), (2, 20)");
    (instance, s)
}

#[test]
fn who_leaves_gives_up_its_locks() {
    let (instance, _) = with_table();
    let mut gone = connect(&instance);
    show(&mut gone, "begin; update t set v = 11 where id = 1");
    assert!(!is_free(&instance));
    drop(gone);
    assert!(is_free(&instance));
}

#[test]
fn a_failed_block_holds_nothing_and_a_savepoint_gives_back_what_came_after_it() {
    let (instance, mut s) = with_table();
    show(&mut s, "begin; update t set v = 11 where id = 1; select 1/0");
    assert!(is_free(&instance));
    show(&mut s, "rollback; begin; savepoint a; update t set v = 12 where id = 1");
    assert!(!is_free(&instance));
    show(&mut s, "rollback to a");
    assert!(is_free(&instance));
    // What was locked before the savepoint stays.
    show(&mut s, "update t set v = 13 where id = 1; savepoint b; update t set v = 14 where id = 1; select 1/0");
    assert!(!is_free(&instance));
    assert_eq!(show(&mut s, "rollback to b; commit; select v from t where id = 1"), "ROLLBACK\nCOMMIT\n13");
}

#[test]
fn row_ids_start_from_the_newest_version() {
    let instance = instance();
    let mut old = connect(&instance);
    show(&mut old, "create table t (v text); insert into t values ('one')");
    // It takes its snapshot and locks nothing, so that definitions need not wait for it.
    show(&mut old, "begin isolation level repeatable read; select 1");
    let mut s = connect(&instance);
    show(&mut s, "insert into t values ('two'), ('three'), ('four')");
    show(&mut s, "alter table t add column id serial primary key; alter table t drop column id");
    assert_eq!(
        show(&mut old, "insert into t values ('late'); select v from t order by v; commit"),
        "INSERT 0 1\nlate\none\nCOMMIT"
    );
    show(&mut s, "insert into t values ('five')");
    assert_eq!(show(&mut s, "select v from t order by v"), "five\nfour\nlate\none\nthree\ntwo");
}

#[test]
fn a_rewrite_finds_keys_that_become_one() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id bigint, v text); insert into t values (1, 'a'), (1, 'b')");
    assert!(show(&mut s, "alter table t add primary key (id)").contains("23505"));
    assert_eq!(show(&mut s, "select count(*) from t"), "2");
    show(&mut s, "create table n (id numeric primary key); insert into n values (1), (1.4), (2)");
    assert!(show(&mut s, "alter table n alter column id type numeric(10,0)").contains("23505"));
    assert_eq!(
        show(
            &mut s,
            "delete from n where id = 1.4; alter table n alter column id type numeric(10,0); select id from n order by id"
        ),
        "DELETE 1\nALTER TABLE\n1\n2"
    );
}

#[test]
fn changes_of_one_statement_see_what_each_other_changed() {
    let (_, mut s) = with_table();
    show(&mut s, "create index on t (v)");
    let both = "with x as (insert into t values (1, 10) on conflict (id) do update set v = 10) update t set v = v + 1 where id = 1";
    let shown = show(&mut s, both);
    assert!(shown.contains("21000") || shown.contains("UPDATE"), "{shown}");
    for v in [10, 11, 20] {
        let by_index = show(&mut s, &format!("select count(*) from t where v = {v}"));
        let by_table = show(&mut s, &format!("select count(*) from t where v + 0 = {v}"));
        assert_eq!(by_index, by_table, "v = {v}: {shown}");
    }
    // A row reached twice counts once, also when FROM has no column that matters.
    show(&mut s, "create table u (a int); insert into u values (1), (2), (3)");
    assert_eq!(show(&mut s, "update t set v = v + 1 from (select from u) x where id = 1"), "UPDATE 1");
    assert_eq!(show(&mut s, "delete from t using (select from u) x where id = 1"), "DELETE 1");
}

#[test]
fn a_writer_that_waited_plans_again_when_definitions_changed() {
    let (instance, mut first) = with_table();
    show(&mut first, "begin; update t set v = 11 where id = 1");
    let waiting = std::thread::spawn({
        let instance = instance.clone();
        move || show(&mut connect(&instance), "update t set v = v + 100 where id = 1")
    });
    std::thread::sleep(Duration::from_millis(50));
    show(&mut first, "create table zzz (); commit");
    assert_eq!(waiting.join().unwrap(), "UPDATE 1");
    assert_eq!(show(&mut first, "select v from t where id = 1"), "111");
}

#[test]
fn the_past_cannot_be_made_writable() {
    let (instance, mut s) = with_table();
    let old = show(&mut s, "select bee_version()");
    show(&mut s, "insert into t values (3, 30)");
    show(&mut s, &format!("begin isolation level repeatable read; set transaction snapshot '{old}'"));
    assert!(show(&mut s, "set transaction read write").contains("25006"));
    show(&mut s, "rollback; begin read only; savepoint a");
    assert!(show(&mut s, "set transaction read write").contains("25001"));
    show(&mut s, "rollback");
    assert!(show(&mut s, "copy t to stdout where id = 1").contains("42601"));
    assert!(show(&mut s, "select 1; create database other; select 1/0").contains("25001"));
    assert_eq!(instance.databases(), ["postgres"]);
}
