//! Definitions that change while others read, write and change them: who waits, who is refused, what is found in the end. The outcomes are PostgreSQL 15's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::*;
use crate::catalog::schema::Relation;
use crate::codec::{Decoder, IndexCodec, keyspace};
use pgbee_engine::bee::Direction;
use pgbee_engine::txn::ReadView;

/// A session in a thread of its own.
struct Client {
    ask: Sender<String>,
    answer: Receiver<String>,
}

impl Client {
    fn new(instance: &Arc<Instance>) -> Client {
        let (ask, asked) = channel::<String>();
        let (told, answer) = channel();
        let mut session = connect(instance);
        std::thread::spawn(move || {
            for sql in asked {
                if told.send(show(&mut session, &sql)).is_err() {
                    break;
                }
            }
        });
        Client { ask, answer }
    }
    fn begin(&self, sql: &str) {
        self.ask.send(sql.to_owned()).unwrap();
    }
    fn end(&self) -> String {
        self.answer.recv_timeout(Duration::from_secs(30)).expect("it goes on")
    }
    /// Runs something that waits for nobody.
    fn run(&self, sql: &str) -> String {
        self.begin(sql);
        self.end()
    }
    /// Begins something that waits.
    fn blocks(&self, sql: &str) {
        self.begin(sql);
        let early = self.answer.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "{sql} does not wait");
    }
}

fn clients<const N: usize>(instance: &Arc<Instance>) -> [Client; N] {
    std::array::from_fn(|_| Client::new(instance))
}

fn with_table() -> (Arc<Instance>, [Client; 3]) {
    let instance = instance();
    show(&mut connect(&instance), "create table t (id int primary key, v int); insert into t values (1, 10), (2, 20)");
    let clients = clients(&instance);
    (instance, clients)
}

#[test]
fn definitions_wait_for_readers_and_hold_up_others() {
    let (_instance, [a, b, c]) = with_table();
    assert_eq!(a.run("begin; select v from t where id = 1"), "BEGIN\n10");
    b.blocks("alter table t add column w int default 5");
    c.blocks("select * from t order by id");
    a.run("commit");
    assert_eq!(b.end(), "ALTER TABLE");
    assert_eq!(c.end(), "1|10|5\n2|20|5");
    a.run("begin; drop table t");
    b.blocks("select * from t");
    a.run("rollback");
    assert_eq!(b.end(), "1|10|5\n2|20|5");
    a.run("begin; drop table t");
    b.blocks("insert into t values (3, 30)");
    a.run("commit");
    assert!(b.end().contains("42P01"));
}

#[test]
fn an_index_waits_for_writers_only() {
    let (_instance, [a, b, c]) = with_table();
    a.run("begin; update t set v = 11 where id = 1");
    b.blocks("create index tv on t (v)");
    assert_eq!(c.run("select count(*) from t"), "2");
    c.blocks("update t set v = 21 where id = 2");
    a.run("commit");
    assert_eq!((b.end().as_str(), c.end().as_str()), ("CREATE INDEX", "UPDATE 1"));
    a.run("begin; comment on table t is 'x'");
    assert_eq!(c.run("update t set v = 22 where id = 2"), "UPDATE 1");
    b.blocks("comment on table t is 'y'");
    a.run("commit");
    assert_eq!(b.end(), "COMMENT");
    assert_eq!(c.run("select obj_description('t'::regclass)"), "y");
}

#[test]
fn a_name_is_taken_once() {
    let (_instance, [a, b, _]) = with_table();
    let cases = [
        ("create table x (id serial)", "pg_type_typname_nsp_index", "typname, typnamespace)=(x, 2200)", "drop table x"),
        ("create view x as select 1", "pg_type_typname_nsp_index", "typname, typnamespace)=(x, 2200)", "drop view x"),
        ("create sequence x", "pg_class_relname_nsp_index", "relname, relnamespace)=(x, 2200)", "drop sequence x"),
        ("create schema x", "pg_namespace_nspname_index", "nspname)=(x)", "drop schema x"),
    ];
    for (create, index, key, drop) in cases {
        a.run(&format!("begin; {create}"));
        b.blocks(create);
        a.run("commit");
        let told = b.end();
        assert!(told.contains("23505") && told.contains(index) && told.contains(key), "{create}: {told}");
        a.run(drop);
        a.run(&format!("begin; {create}"));
        b.blocks(create);
        a.run("rollback");
        assert!(b.end().starts_with("CREATE"), "{create} once the first was rolled back");
        b.run(drop);
    }
    // Who only renames has the name, too.
    a.run("begin; alter table t rename to x");
    b.blocks("create table x ()");
    a.run("rollback");
    assert_eq!(b.end(), "CREATE TABLE");
}

#[test]
fn transactions_that_define_different_things_do_not_meet() {
    let (_instance, [a, b, c]) = with_table();
    a.run("begin; create table a (i int); alter table a add column j int");
    b.run("begin; create table b (i int); create index on b (i)");
    assert_eq!(a.run("select relname from pg_class where relname in ('a', 'b')"), "a");
    assert_eq!(b.run("commit"), "COMMIT");
    assert_eq!(a.run("select relname from pg_class where relname in ('a', 'b') order by 1"), "a\nb");
    assert_eq!(
        a.run("insert into b values (1); savepoint s; drop table b; rollback to s; commit").lines().last(),
        Some("COMMIT")
    );
    assert_eq!(c.run("select count(*) from a, b"), "0");
    assert_eq!(c.run("select i from b where i = 1"), "1");
    // No oid is given twice, whatever the order of commits.
    assert_eq!(c.run("select count(*) = count(distinct oid) from pg_class where oid >= 16384"), "t");
}

#[test]
fn two_alter_one_table_one_after_the_other() {
    let (_instance, [a, b, c]) = with_table();
    a.run("begin; alter table t add column z int");
    b.blocks("alter table t add column z int");
    c.blocks("alter table t add column y int");
    a.run("commit");
    assert!(b.end().contains("42701"));
    assert_eq!(c.end(), "ALTER TABLE");
    assert_eq!(c.run("select * from t where id = 1"), "1|10|NULL|NULL");
    // Of two indexes of one table the second one waits, and both are there.
    a.run("begin; create index i1 on t (v)");
    b.begin("create index i2 on t (v)");
    a.run("commit");
    assert_eq!(b.end(), "CREATE INDEX");
    assert_eq!(c.run("select count(*) from pg_index where indrelid = 't'::regclass"), "3");
}

#[test]
fn tables_that_refer_to_each_other_are_locked_together() {
    let (_instance, [a, b, c]) = with_table();
    a.run("create table child (id int primary key, t int); insert into child values (1, 1)");
    a.run("begin; update t set v = 11 where id = 1");
    b.blocks("alter table child add constraint fk foreign key (t) references t");
    assert_eq!(c.run("select count(*) from t"), "2");
    a.run("commit");
    assert_eq!(b.end(), "ALTER TABLE");
    a.run("begin; alter table child add column n int");
    b.blocks("delete from t where id = 2");
    a.run("commit");
    assert_eq!(b.end(), "DELETE 1");
    a.run("begin; drop table child");
    b.blocks("insert into t values (3, 30)");
    a.run("rollback");
    assert_eq!(b.end(), "INSERT 0 1");
    a.run("begin; truncate t cascade");
    b.blocks("select * from child");
    a.run("rollback");
    assert_eq!(b.end(), "1|1|NULL");
}

#[test]
fn schemas_and_what_goes_into_them() {
    let (_instance, [a, b, _]) = with_table();
    a.run("create schema s");
    a.run("begin; create table s.x (i int)");
    b.blocks("drop schema s");
    a.run("commit");
    assert!(b.end().contains("2BP01"));
    a.run("begin; drop schema s cascade");
    b.blocks("create table s.y (i int)");
    a.run("commit");
    assert!(b.end().contains("3F000"));
}

#[test]
fn one_snapshot_reads_old_rows_by_new_definitions() {
    let (_instance, [a, b, _]) = with_table();
    a.run("begin isolation level repeatable read; select 1");
    b.run("alter table t add column w int default 5; create index tv on t (v); update t set v = 99 where id = 2; create table n as select 1");
    assert_eq!(a.run("select * from t order by id"), "1|10|5\n2|20|5");
    assert_eq!(a.run("select id from t where v = 20"), "2", "an index made later does not find old rows");
    assert_eq!(a.run("select * from n"), "");
    assert_eq!(a.run("insert into t values (3, 30, 300); commit"), "INSERT 0 1\nCOMMIT");
    assert_eq!(b.run("select id from t where v = 30"), "3", "the new index has the row");
    // Rows that were written anew are seen as they were, and not changed.
    a.run("begin isolation level repeatable read; select 1");
    b.run("alter table t alter v type text");
    assert_eq!(a.run("select v from t where id = 1"), "10");
    assert!(a.run("update t set v = v where id = 1").contains("40001"));
    a.run("rollback");
    assert_eq!(a.run("update t set v = v || 'x' where id = 1"), "UPDATE 1");
}

#[test]
fn prepared_statements_follow_definitions() {
    let (_instance, [a, b, _]) = with_table();
    a.run("prepare p as select v from t where id = $1; prepare all_of as select * from t");
    b.run("begin; alter table t rename v to value; alter table t add column v int default 7");
    a.blocks("execute p(1)");
    b.run("commit");
    assert_eq!(a.end(), "7");
    assert!(a.run("execute all_of").contains("0A000"), "cached plan must not change result type");
}

#[test]
fn sequences_are_altered_by_one_and_used_by_nobody_meanwhile() {
    let (_instance, [a, b, _]) = with_table();
    a.run("create sequence s");
    a.run("begin; alter sequence s restart 100");
    b.blocks("select nextval('s')");
    a.run("commit");
    assert_eq!(b.end(), "100");
    assert_eq!(b.run("begin; select nextval('s')"), "BEGIN\n101");
    a.blocks("alter sequence s restart 5");
    b.run("commit");
    a.end();
    assert_eq!(b.run("select nextval('s')"), "5");
}

#[test]
fn a_lock_of_tables_can_be_a_deadlock() {
    let (_instance, [a, b, _]) = with_table();
    a.run("create table u (i int)");
    a.run("begin; truncate t");
    b.run("begin; truncate u");
    a.blocks("select * from u");
    b.begin("select * from t");
    // One of them gives up, and the other goes on.
    let told = b.answer.recv_timeout(Duration::from_secs(5)).or_else(|_| a.answer.recv_timeout(Duration::from_secs(5)));
    assert!(told.unwrap().contains("40P01"));
}

// CREATE INDEX CONCURRENTLY and its kin

/// Compares every index of a table with its rows.
fn check_indexes(instance: &Arc<Instance>, table: &str) -> usize {
    let session = connect(instance);
    let snapshot = session.shared.database.snapshot();
    let catalog = session.shared.db.catalog(&snapshot).unwrap();
    let Some(Relation::Table(table)) = catalog.relation(crate::catalog::PUBLIC, table) else {
        panic!("no table {table}")
    };
    let all = |range| {
        let mut scan = ReadView::from(snapshot.clone()).scan(range, Direction::Forward).unwrap();
        let mut found = Vec::new();
        while scan.next_batch(&mut found, 1000).unwrap() > 0 {}
        found
    };
    let rows = all(keyspace::table_range(table.oid));
    for index in &table.indexes {
        let (codec, decoder) = (IndexCodec::new(table, index), Decoder::all(table));
        let entry = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
            let (entry, value) = codec.entry(&decoder.decode(value).unwrap(), key);
            (bytes::Bytes::from(entry), value)
        };
        let mut wanted: Vec<_> = rows.iter().map(entry).collect();
        wanted.sort();
        let there = all(keyspace::index_range(index.oid));
        assert!(wanted == there, "index {} has {} entries, {} are wanted", index.name, there.len(), wanted.len());
    }
    rows.len()
}

#[test]
fn an_index_is_built_beside_writers_that_stay() {
    let (instance, [a, b, c]) = with_table();
    a.run("begin; update t set v = 11 where id = 1");
    b.blocks("create index concurrently tv on t (v)");
    assert_eq!(c.run("update t set v = 21 where id = 2"), "UPDATE 1", "writers go on");
    assert_eq!(c.run("select indisvalid from pg_index where indexrelid = 'tv'::regclass"), "f");
    c.blocks("alter table t add column w int");
    a.run("insert into t values (3, 30); commit");
    assert_eq!(b.end(), "CREATE INDEX");
    c.end();
    assert_eq!(c.run("select indisvalid from pg_index where indexrelid = 'tv'::regclass"), "t");
    assert_eq!(c.run("select id from t where v = 21"), "2");
    check_indexes(&instance, "t");
    a.run("begin; select 1 from t");
    b.blocks("drop index concurrently tv");
    assert_eq!(c.run("update t set v = 22 where id = 2"), "UPDATE 1");
    a.run("commit");
    assert_eq!(b.end(), "DROP INDEX");
    for sql in [
        "begin; create index concurrently x on t (v)",
        "begin; drop index concurrently x",
        "begin; reindex table concurrently t",
    ] {
        assert!(a.run(sql).contains("25001"), "{sql}");
        a.run("rollback");
    }
    assert!(a.run("drop index concurrently t_pkey").contains("2BP01"));
    assert!(a.run("drop index concurrently t_pkey, x").contains("0A000"));
}

#[test]
fn an_index_that_finds_two_rows_stays_and_is_not_used() {
    let (instance, [a, _, _]) = with_table();
    a.run("update t set v = 5; insert into t values (3, null), (4, null)");
    let told = a.run("create unique index concurrently uv on t (v)");
    assert!(
        told.contains("23505: could not create unique index \"uv\"") && told.contains("Key (v)=(5) is duplicated."),
        "{told}"
    );
    assert_eq!(a.run("select indisvalid from pg_index where indexrelid = 'uv'::regclass"), "f");
    assert!(!a.run("explain select * from t where v = 5").contains("uv"));
    assert_eq!(a.run("select indisready from pg_index where indexrelid = 'uv'::regclass"), "f");
    let told = a.run("insert into t values (9, 6) on conflict (v) do nothing");
    assert!(told.contains("42P10"), "nor does ON CONFLICT: {told}");
    assert_eq!(a.run("insert into t values (5, 5)"), "INSERT 0 1", "nobody is refused a row for it");
    assert!(a.run("reindex index uv").contains("23505"));
    // Whichever of the two goes, the other one is in the index in the end.
    a.run("delete from t where id in (1, 5)");
    assert_eq!(a.run("reindex index concurrently uv"), "REINDEX");
    assert_eq!(a.run("select indisvalid from pg_index where indexrelid = 'uv'::regclass"), "t");
    assert!(a.run("insert into t values (9, 5)").contains("23505"));
    check_indexes(&instance, "t");
    assert_eq!(a.run("drop index uv"), "DROP INDEX");
}

#[test]
fn indexes_are_exact_whoever_writes_meanwhile() {
    let instance = instance();
    let rows = 3000;
    show(
        &mut connect(&instance),
        &format!(
            "create table w (id int primary key, v int, u int); insert into w select i, i % 50, i from generate_series(1, {rows}) i"
        ),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let (instance, stop) = (instance.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut s = connect(&instance);
                let (mut seed, mut count) = (n * 7919 + 1_u64, 0);
                while !stop.load(Ordering::Relaxed) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let id = (seed >> 33) % rows + 1;
                    let sql = match seed % 5 {
                        0 => format!("delete from w where id = {id}"),
                        1 => format!("insert into w values ({id}, {}, {id}) on conflict (id) do nothing", id % 50),
                        2 => format!("begin; update w set v = v + 1 where id = {id}; update w set v = v + 1 where id = {id}; commit"),
                        3 => format!("begin; update w set v = 0, u = -u where id = {id}; rollback"),
                        _ => format!("update w set v = v + 1, u = -u where id = {id}"),
                    };
                    let told = show(&mut s, &sql);
                    assert!(!told.contains("ERROR"), "{sql}: {told}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut s = connect(&instance);
    for round in 0..3 {
        assert_eq!(show(&mut s, &format!("create index concurrently wv{round} on w (v)")), "CREATE INDEX");
        assert_eq!(show(&mut s, &format!("create unique index concurrently wu{round} on w (u)")), "CREATE INDEX");
    }
    stop.store(true, Ordering::Relaxed);
    let written: u64 = writers.into_iter().map(|w| w.join().unwrap()).sum();
    assert!(written > 0);
    check_indexes(&instance, "w");
    assert_eq!(show(&mut s, "reindex table concurrently w"), "REINDEX");
    check_indexes(&instance, "w");
    assert_eq!(show(&mut s, "select count(*) from pg_index where indrelid = 'w'::regclass and indisvalid"), "7");
}

#[test]
fn a_unique_index_does_not_lose_rows_to_their_twins() {
    let instance = instance();
    let mut s = connect(&instance);
    show(
        &mut s,
        "create table w (id int primary key, u int); insert into w select i, i / 2 from generate_series(2, 801) i",
    );
    // One of every pair goes while the index is built: it is refused, or it is exact.
    let deleting = std::thread::spawn({
        let instance = instance.clone();
        move || {
            let mut s = connect(&instance);
            for id in 2..=801 {
                if id % 2 == (id / 2) % 2 {
                    show(&mut s, &format!("delete from w where id = {id}"));
                }
            }
        }
    });
    let mut told = show(&mut s, "create unique index concurrently wu on w (u)");
    while told.contains("23505") {
        told = show(&mut s, "reindex index concurrently wu");
    }
    assert!(told == "CREATE INDEX" || told == "REINDEX", "{told}");
    deleting.join().unwrap();
    assert_eq!(check_indexes(&instance, "w"), 400);
}

#[test]
fn reindex_mends_what_is_wrong() {
    let (instance, [a, _, _]) = with_table();
    a.run("create index tv on t (v)");
    let (prefix, row) = {
        let session = connect(&instance);
        let snapshot = session.shared.database.snapshot();
        let catalog = session.shared.db.catalog(&snapshot).unwrap();
        let table = catalog.tables().find(|t| t.name == "t").unwrap().clone();
        (keyspace::index_range(table.indexes[0].oid), keyspace::table_range(table.oid))
    };
    for mend in [
        "reindex index tv",
        "reindex table t",
        "reindex index concurrently tv",
        "reindex table concurrently t",
        "reindex schema public",
    ] {
        {
            // An entry is lost, another one leads nowhere.
            let session = connect(&instance);
            let database = &session.shared.database;
            let mut txn = database.begin();
            let mut scan = txn.scan(prefix.clone(), Direction::Forward).unwrap();
            let (first, _) = scan.next().unwrap().unwrap();
            txn.delete(first.clone()).unwrap();
            txn.put([&first[..], &[0]].concat(), Vec::new()).unwrap();
            assert!(txn.scan(row.clone(), Direction::Forward).unwrap().next().unwrap().is_some());
            database.commit(txn, pgbee_engine::txn::CommitInfo::at(0)).unwrap();
        }
        assert_eq!(a.run(mend), "REINDEX");
        check_indexes(&instance, "t");
    }
}
