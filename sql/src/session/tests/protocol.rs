//! The extended protocol, conflicts between sessions, time travel, restarts.

use std::sync::Barrier;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::types::{Datum, Type};

fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

/// Executes a portal and collects what it gives.
fn execute(session: &mut Session, portal: &str, max: usize) -> crate::Result<(Vec<Vec<Datum>>, String)> {
    match session.execute(portal, max)? {
        Outcome::Rows { .. } => {
            let mut all = Vec::new();
            loop {
                match session.fetch()? {
                    Step::Rows(rows) => all.extend(rows),
                    Step::Done { tag } => return Ok((all, tag)),
                    Step::Suspended => return Ok((all, "suspended".into())),
                }
            }
        }
        Outcome::Command { tag } => Ok((Vec::new(), tag)),
        Outcome::Empty => Ok((Vec::new(), "empty".into())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prepared_statements_keep_their_plan_until_definitions_change() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v text)");
    s.parse("ins", "insert into t values ($1, $2)", &[]).unwrap();
    s.parse("get", "select v, id from t where id = $1", &[]).unwrap();
    let shape = s.describe_statement("ins").unwrap();
    assert_eq!((shape.params, shape.fields.is_none()), (vec![Type::INT4, Type::TEXT], true));
    for i in 0..3 {
        s.bind("", "ins", vec![bytes(&i.to_string()), bytes("x")], &[], &[]).unwrap();
        assert_eq!(execute(&mut s, "", 0).unwrap().1, "INSERT 0 1");
        s.sync().unwrap();
    }
    s.bind("", "get", vec![Some(Bytes::from_static(&[0, 0, 0, 2]))], &[1], &[0, 1]).unwrap();
    let (fields, binary) = s.describe_portal("").unwrap().unwrap();
    assert_eq!((fields.len(), binary.to_vec()), (2, vec![false, true]));
    assert_eq!(format!("{:?}", execute(&mut s, "", 0).unwrap().0), "[[Text(\"x\"), Int4(2)]]");
    s.sync().unwrap();
    show(&mut s, "alter table t add column w int default 5");
    s.bind("", "get", vec![bytes("1")], &[], &[]).unwrap();
    assert_eq!(execute(&mut s, "", 0).unwrap().0.len(), 1);
    s.sync().unwrap();
    show(&mut s, "alter table t alter column v type varchar(7)");
    s.bind("", "get", vec![bytes("1")], &[], &[]).unwrap();
    let changed = s.execute("", 0).unwrap_err();
    assert_eq!(changed.message(), "cached plan must not change result type");
    assert_eq!(changed.0.routine, Some("RevalidateCachedQuery"), "what drivers know it by");
    s.sync().unwrap();
    assert_eq!(s.bind("", "none", vec![], &[], &[]).unwrap_err().state(), "26000");
    s.sync().unwrap();
    assert_eq!(s.bind("", "get", vec![], &[], &[]).unwrap_err().state(), "08P01");
    s.sync().unwrap();
    assert_eq!(s.parse("get", "select 1", &[]).unwrap_err().state(), "42P05");
    s.sync().unwrap();
    assert_eq!(s.parse("", "select 1; select 2", &[]).unwrap_err().state(), "42601");
    s.sync().unwrap();
    s.parse("", "", &[]).unwrap();
    s.bind("", "", vec![], &[], &[]).unwrap();
    assert_eq!(execute(&mut s, "", 0).unwrap().1, "empty");
    assert_eq!(s.transaction_status(), b'I');
}

#[test]
fn portals_are_suspended_and_go_on() {
    let instance = instance();
    let mut s = connect(&instance);
    s.parse("", "select * from generate_series(1, 2500)", &[]).unwrap();
    s.bind("p", "", vec![], &[], &[]).unwrap();
    let mut seen = Vec::new();
    for expected in ["suspended", "suspended", "SELECT 500"] {
        let (rows, end) = execute(&mut s, "p", 1000).unwrap();
        seen.extend(rows);
        assert_eq!(end, expected);
    }
    assert_eq!(seen.len(), 2500);
    assert_eq!(execute(&mut s, "p", 10).unwrap().1, "SELECT 0");
    s.sync().unwrap();
    assert_eq!(s.execute("p", 0).unwrap_err().state(), "34000");
}

#[test]
fn a_pipeline_is_one_transaction() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key)");
    s.parse("ins", "insert into t values ($1)", &[]).unwrap();
    for v in ["1", "2", "2"] {
        s.bind("", "ins", vec![bytes(v)], &[], &[]).unwrap();
        let _ = execute(&mut s, "", 0);
    }
    s.sync().unwrap();
    assert_eq!(show(&mut s, "select count(*) from t"), "0");
    for v in ["1", "2"] {
        s.bind("", "ins", vec![bytes(v)], &[], &[]).unwrap();
        execute(&mut s, "", 0).unwrap();
    }
    s.sync().unwrap();
    assert_eq!(show(&mut s, "select count(*) from t"), "2");
}

#[test]
fn a_pipeline_holds_its_rows_until_sync() {
    let instance = instance();
    let mut a = connect(&instance);
    show(&mut a, "create table t (id int primary key, n int); insert into t values (1, 0)");
    let up = |s: &mut Session| {
        s.parse("up", "update t set n = n + 1 where id = 1 returning n", &[]).unwrap();
        s.bind("", "up", vec![], &[], &[]).unwrap();
        assert_eq!(execute(s, "", 0).unwrap().1, "UPDATE 1");
    };
    up(&mut a);
    let waiting = std::thread::spawn({
        let instance = instance.clone();
        move || {
            let mut b = connect(&instance);
            up(&mut b);
            b.sync().unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(60));
    assert!(!waiting.is_finished());
    a.sync().unwrap();
    waiting.join().unwrap();
    assert_eq!(show(&mut a, "select n from t"), "2");
    // A load waits for a key that is being taken, and is refused then.
    show(&mut a, "begin; insert into t values (2, 2)");
    let loading = std::thread::spawn({
        let instance = instance.clone();
        move || show_copying(&mut connect(&instance), "copy t from stdin", "2\t3\n")
    });
    std::thread::sleep(Duration::from_millis(60));
    assert!(!loading.is_finished());
    show(&mut a, "commit");
    assert!(loading.join().unwrap().contains("23505"));
}

#[test]
fn statements_of_their_own_wait_their_turn() {
    const SESSIONS: usize = 4;
    const EACH: usize = 25;
    let instance = instance();
    show(
        &mut connect(&instance),
        "create table t (id int primary key, n int); insert into t values (1, 0); create table u (id int primary key)",
    );
    let barrier = Barrier::new(SESSIONS);
    let inserted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SESSIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut s = connect(&instance);
                    barrier.wait();
                    let mut inserted = 0;
                    for i in 0..EACH {
                        assert_eq!(show(&mut s, "update t set n = n + 1"), "UPDATE 1");
                        match show(&mut s, &format!("insert into u values ({i})")) {
                            ok if ok == "INSERT 0 1" => inserted += 1,
                            error => assert!(error.starts_with("ERROR:  23505"), "{error}"),
                        }
                    }
                    inserted
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(inserted, EACH);
    assert_eq!(show(&mut connect(&instance), "select n from t"), (SESSIONS * EACH).to_string());
}

/// Runs a statement in another thread, where it waits for a lock.
fn waiting<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    session: &'s mut Session,
    sql: &'s str,
) -> std::thread::ScopedJoinHandle<'s, String> {
    let thread = beside(scope, session, sql);
    assert!(!thread.is_finished(), "{sql} did not wait");
    thread
}

#[test]
fn writers_of_a_row_wait_for_each_other() {
    let instance = instance();
    let (mut a, mut b) = (connect(&instance), connect(&instance));
    show(&mut a, "create table t (id int primary key, n int unique); insert into t values (1, 10), (2, 20)");
    // READ COMMITTED goes on with what was committed meanwhile.
    show(&mut a, "begin; update t set n = n + 1 where id = 1");
    show(&mut b, "begin");
    std::thread::scope(|scope| {
        let update = waiting(scope, &mut b, "update t set n = n + 100 where n < 20");
        assert_eq!(show(&mut a, "commit"), "COMMIT");
        assert_eq!(update.join().unwrap(), "UPDATE 1");
    });
    assert_eq!(show(&mut b, "commit; select n from t where id = 1"), "COMMIT\n111");
    // A row that no longer fits is left alone; one rolled back is as it was.
    show(&mut a, "begin; update t set n = 99 where id = 2");
    std::thread::scope(|scope| {
        let delete = waiting(scope, &mut b, "delete from t where n = 20");
        show(&mut a, "commit");
        assert_eq!(delete.join().unwrap(), "DELETE 0");
    });
    show(&mut a, "begin; delete from t where id = 2");
    std::thread::scope(|scope| {
        let update = waiting(scope, &mut b, "update t set n = 98 where id = 2");
        show(&mut a, "rollback");
        assert_eq!(update.join().unwrap(), "UPDATE 1");
    });
    // Inserts of one key wait too, and then know.
    show(&mut a, "begin; insert into t values (3, 30)");
    std::thread::scope(|scope| {
        let insert = waiting(scope, &mut b, "insert into t values (4, 30)");
        show(&mut a, "commit");
        assert!(insert.join().unwrap().starts_with("ERROR:  23505"));
    });
    show(&mut a, "begin; insert into t values (5, 50)");
    std::thread::scope(|scope| {
        let insert =
            waiting(scope, &mut b, "insert into t values (5, 51) on conflict (id) do update set n = excluded.n");
        show(&mut a, "rollback");
        assert_eq!(insert.join().unwrap(), "INSERT 0 1");
    });
    assert_eq!(show(&mut a, "select * from t order by id"), "1|111\n2|98\n3|30\n5|51");
    show(&mut a, "begin; update t set n = 0 where id = 1");
    assert!(show(&mut b, "set lock_timeout = 50; update t set n = 1 where id = 1").contains("ERROR:  55P03"));
}

#[test]
fn deadlocks_are_found() {
    let instance = instance();
    let (mut a, mut b) = (connect(&instance), connect(&instance));
    show(&mut a, "create table t (id int primary key, n int); insert into t values (1, 0), (2, 0)");
    show(&mut a, "begin; update t set n = 1 where id = 1");
    show(&mut b, "begin; update t set n = 2 where id = 2");
    let a_is_out = std::thread::scope(|scope| {
        let update = waiting(scope, &mut b, "update t set n = 2 where id = 1");
        // Whose deadlock_timeout is over first finds it.
        let told = show(&mut a, "update t set n = 1 where id = 2");
        let a_is_out = told.starts_with("ERROR:  40P01");
        show(&mut a, if a_is_out { "rollback" } else { "commit" });
        let other = update.join().unwrap();
        let winner = if a_is_out { &other } else { &told };
        assert_eq!(winner, "UPDATE 1");
        assert!(a_is_out || other.starts_with("ERROR:  40P01"), "{other}");
        a_is_out
    });
    show(&mut b, if a_is_out { "commit" } else { "rollback" });
    assert_eq!(show(&mut a, "select n from t"), if a_is_out { "2\n2" } else { "1\n1" });
}

#[test]
fn one_snapshot_or_one_a_statement() {
    let instance = instance();
    let (mut a, mut b) = (connect(&instance), connect(&instance));
    show(&mut a, "create table t (id int primary key, n int); insert into t values (1, 2), (2, 0)");
    show(&mut a, "begin");
    show(&mut b, "update t set n = 3 where id = 1");
    assert_eq!(show(&mut a, "select n from t where id = 1"), "3");
    show(&mut a, "commit; begin isolation level repeatable read");
    assert_eq!(show(&mut a, "select n from t where id = 1"), "3");
    show(&mut b, "update t set n = 4 where id = 1");
    assert_eq!(show(&mut a, "select n from t where id = 1"), "3");
    show(&mut a, "update t set n = 9 where id = 2");
    assert_eq!(show(&mut a, "commit"), "COMMIT");
    assert_eq!(show(&mut a, "select id, n from t order by id"), "1|4\n2|9");
    // The first to change a row wins.
    show(&mut a, "begin isolation level repeatable read; select 1 from t");
    show(&mut b, "update t set n = 5 where id = 1");
    assert!(show(&mut a, "update t set n = 6 where id = 1").starts_with("ERROR:  40001"));
    assert_eq!(show(&mut a, "commit"), "ROLLBACK");
}

#[test]
fn definitions_and_rows_wait_for_each_other() {
    let instance = instance();
    let (mut a, mut b) = (connect(&instance), connect(&instance));
    show(&mut a, "create table t (id int primary key, n int); insert into t values (1, 1)");
    show(&mut b, "set lock_timeout = 50");
    // A row inserted while a unique index is being made.
    show(&mut a, "begin; create unique index t_n on t (n)");
    assert!(show(&mut b, "insert into t values (2, 1)").starts_with("ERROR:  55P03"));
    assert_eq!(show(&mut a, "commit"), "COMMIT");
    assert!(show(&mut b, "insert into t values (2, 1)").starts_with("ERROR:  23505"));
    // An index made while a row is being inserted.
    show(&mut a, "begin; insert into t values (3, 3)");
    assert!(show(&mut b, "create unique index t_m on t (n)").starts_with("ERROR:  55P03"));
    assert_eq!(show(&mut a, "commit"), "COMMIT");
    assert_eq!(show(&mut b, "create unique index t_m on t (n)"), "CREATE INDEX");
    // Definitions of different things do not meet.
    show(&mut a, "begin; alter table t add column c int default 7");
    assert_eq!(show(&mut b, "create table other (a int)"), "CREATE TABLE");
    assert_eq!(show(&mut a, "commit"), "COMMIT");
    assert_eq!(show(&mut b, "select * from t order by id"), "1|1|7\n3|3|7");
}

#[test]
fn the_past_can_be_read_and_not_changed() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v text); insert into t values (1, 'old')");
    let then = show(&mut s, "select bee_version()");
    show(&mut s, "create tag before");
    show(&mut s, "update t set v = 'new'; alter table t add column w int");
    assert_eq!(show(&mut s, "select * from t"), "1|new|NULL");
    assert_eq!(show(&mut s, &format!("select * from t as of version {then}")), "1|old");
    for as_of in [format!("version:{then}"), "tag:before".into(), then.clone()] {
        assert_eq!(show(&mut s, &format!("set bee.as_of = '{as_of}'")), "SET");
        assert_eq!(show(&mut s, "select * from t"), "1|old");
        assert_eq!(show(&mut s, "show transaction_read_only"), "on");
        assert!(show(&mut s, "insert into t values (2, 'x')").starts_with("ERROR:  25006"));
        assert!(show(&mut s, "create table x (a int)").starts_with("ERROR:  25006"));
    }
    show(&mut s, "reset bee.as_of");
    assert_eq!(show(&mut s, "select v from t"), "new");
    assert!(show(&mut s, "set bee.as_of = 'version:999999'").contains("Versions go from"));
    assert!(show(&mut s, "set bee.as_of = 'timestamp:2001-01-01'").starts_with("ERROR:  22023"));
    assert_eq!(show(&mut s, "set bee.as_of = 'timestamp:2100-01-01'; select v from t"), "SET\nnew");
    show(&mut s, "reset bee.as_of");
    show(&mut s, "begin isolation level repeatable read read only");
    assert_eq!(show(&mut s, &format!("set transaction snapshot '{then}'")), "SET");
    assert_eq!(show(&mut s, "select * from t"), "1|old");
    assert_eq!(show(&mut s, "select bee_version()"), then);
    show(&mut s, "commit");
    let mut past = connect_to(&instance, &format!("postgres@{then}")).unwrap();
    assert_eq!(show(&mut past, "select * from t"), "1|old");
    assert!(show(&mut past, "delete from t").starts_with("ERROR:  25006"));
    assert_eq!(connect_to(&instance, "postgres@12345678").err().unwrap().state(), "22023");
    assert_eq!(connect_to(&instance, "nope").err().unwrap().state(), "3D000");
}

#[test]
fn commits_say_who_made_them_and_why() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "set application_name = 'app'; create table t (a int)");
    show(
        &mut s,
        "begin; set local bee.commit_message = 'two rows'; insert into t values (1); insert into t values (2); commit",
    );
    let database = &s.shared.db.database;
    let record = database.commit_record(database.head()).unwrap();
    assert_eq!(
        (record.user.as_str(), record.application.as_str(), record.message.as_str()),
        ("postgres", "app", "two rows")
    );
    assert_eq!(record.changes, 2);
    show(&mut s, "insert into t values (3)");
    let database = &s.shared.db.database;
    assert_eq!(database.commit_record(database.head()).unwrap().message, "");
}

#[test]
fn databases_are_made_and_dropped() {
    let instance = instance();
    let mut s = connect(&instance);
    assert_eq!(show(&mut s, "create database shop encoding 'UTF8' template template0"), "CREATE DATABASE");
    assert!(show(&mut s, "create database shop").starts_with("ERROR:  42P04"));
    assert!(show(&mut s, "begin; create database x").contains("ERROR:  25001"));
    show(&mut s, "rollback");
    let mut shop = connect_to(&instance, "shop").unwrap();
    show(&mut shop, "create table only_here (a int)");
    assert!(show(&mut s, "select * from only_here").starts_with("ERROR:  42P01"));
    assert_ne!(instance.key("shop").unwrap(), instance.key("postgres").unwrap());
    assert!(show(&mut s, "drop database shop").starts_with("ERROR:  55006"));
    drop(shop);
    assert_eq!(show(&mut s, "drop database shop"), "DROP DATABASE");
    assert!(show(&mut s, "drop database shop").starts_with("ERROR:  3D000"));
    assert_eq!(
        show(&mut s, "drop database if exists shop"),
        "NOTICE:  00000: database \"shop\" does not exist, skipping\nDROP DATABASE"
    );
    assert_eq!(show(&mut s, "create database shop"), "CREATE DATABASE");
    assert!(show(&mut connect_to(&instance, "shop").unwrap(), "select * from only_here").starts_with("ERROR:  42P01"));
    let mut told = 0;
    let verified = instance.verify("postgres", &mut |done, _| told = done).unwrap();
    assert!(verified.blocks > 1 && told > 0);
}

#[test]
fn an_encrypted_database_is_read_with_its_read_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        || InstanceOptions { cache_bytes: 16 << 20, block_cache_bytes: 8 << 20, ..InstanceOptions::default() };
    let instance = Instance::open(dir.path(), options()).unwrap();
    let mut s = connect(&instance);
    assert!(show(&mut s, "create database x encrypted = perhaps").starts_with("ERROR:  22023"));
    assert!(show(&mut s, "create database x with encrypted = true colour = 'red'").starts_with("ERROR:  0A000"));
    assert_eq!(show(&mut s, "create database plain encrypted = false"), "CREATE DATABASE");
    assert_eq!(instance.read_key("plain").unwrap(), None);
    assert_eq!(show(&mut s, "create database secret with encrypted = true owner = postgres"), "CREATE DATABASE");
    let read_key = instance.read_key("secret").unwrap().unwrap();
    assert_eq!(read_key.len(), 64);
    assert!(show(&mut s, "select bee_read_key() is null").contains('t'));
    let mut secret = connect_to(&instance, "secret").unwrap();
    assert!(show(&mut secret, "select bee_read_key()").contains(&read_key));
    show(&mut secret, "create table t (v text); insert into t values ('what nobody should know')");
    assert!(instance.verify("secret", &mut |_, _| {}).unwrap().blocks > 3);
    let key = instance.key("secret").unwrap();
    drop((s, secret));
    instance.shutdown().unwrap();
    drop(instance);

    // Neither the text nor the name of the table is anywhere on the disk.
    let mut files = vec![dir.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(18).any(|part| part == b"nobody should know"), "{}", path.display());
    }
    let private = std::fs::read_to_string(dir.path().join("instance.json")).unwrap();
    assert!(private.contains(&read_key));

    let instance = Instance::open(dir.path(), options()).unwrap();
    assert_eq!((instance.key("secret").unwrap(), instance.read_key("secret").unwrap()), (key, Some(read_key.clone())));
    let mut secret = connect_to(&instance, "secret").unwrap();
    assert!(show(&mut secret, "select v from t").contains("what nobody should know"));
    drop(secret);
    drop(instance);

    // A key that was changed opens nothing.
    let broken = private.replace(&read_key, &"0".repeat(64));
    std::fs::write(dir.path().join("instance.json"), broken).unwrap();
    let instance = Instance::open(dir.path(), options()).unwrap();
    assert!(connect_to(&instance, "secret").is_err());
    assert!(connect_to(&instance, "plain").is_ok());
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        || InstanceOptions { cache_bytes: 16 << 20, block_cache_bytes: 8 << 20, ..InstanceOptions::default() };
    let instance = Instance::open(dir.path(), options()).unwrap();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id serial primary key, v text); insert into t (v) values ('a'), ('b')");
    show(&mut s, "create database shop");
    show(
        &mut s,
        "create table n (v int); insert into n values (1), (2); set synchronous_commit = off; insert into n values (3)",
    );
    instance.set_password_verifier("postgres", Some("SCRAM-SHA-256$x")).unwrap();
    let key = instance.key("postgres").unwrap();
    drop(s);
    assert_eq!(Instance::open(dir.path(), options()).err().unwrap().state(), "55000");
    instance.shutdown().unwrap();
    drop(instance);
    let instance = Instance::open(dir.path(), options()).unwrap();
    assert_eq!(instance.databases(), ["postgres", "shop"]);
    assert_eq!(instance.key("postgres").unwrap(), key);
    assert_eq!(instance.password_verifier("postgres").as_deref(), Some("SCRAM-SHA-256$x"));
    let mut s = connect(&instance);
    // The sequence goes on where it stood, for the shutdown was a clean one.
    assert_eq!(show(&mut s, "insert into t (v) values ('c') returning id"), "3\nINSERT 0 1");
    show(&mut s, "insert into n values (4)");
    assert_eq!(show(&mut s, "select count(*), count(distinct v) from n"), "4|4");
    drop(s);
    drop(instance); // without shutdown: like a crash of the process
    let instance = Instance::open(dir.path(), options()).unwrap();
    let next: i64 = show(&mut connect(&instance), "select nextval('t_id_seq')").parse().unwrap();
    assert!(next > 3, "{next}");
}

#[test]
fn cancels_and_shutdowns_stop_statements() {
    let instance = instance();
    let mut s = connect(&instance);
    let flag = s.cancel_flag();
    assert!(cancelling(&flag, || show(&mut s, "select pg_sleep(30)")).starts_with("ERROR:  57014"));
    assert_eq!(show(&mut s, "select 1"), "1");
    assert!(show(&mut s, "set statement_timeout = 30; select count(*) from generate_series(1, 100000000) a, generate_series(1, 1000) b").ends_with("statement timeout"));
    instance.shutdown().unwrap();
    assert!(show(&mut s, "select 1").starts_with("ERROR:  57P01"));
    assert_eq!(connect_to(&instance, "postgres").err().unwrap().state(), "57P01");
}

#[test]
fn sequences_never_repeat_between_sessions() {
    let instance = instance();
    show(&mut connect(&instance), "create table t (id bigserial primary key, s int)");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let instance = &instance;
            scope.spawn(move || {
                let mut s = connect(instance);
                for _ in 0..20 {
                    assert_eq!(
                        show(&mut s, &format!("insert into t (s) select {n} from generate_series(1, 10)")),
                        "INSERT 0 10"
                    );
                }
            });
        }
    });
    assert_eq!(
        show(&mut connect(&instance), "select count(*), count(distinct id), min(id), max(id) from t"),
        "800|800|1|800"
    );
}

#[test]
fn a_copy_that_is_left_is_undone() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (a int)");
    s.simple("copy t from stdin").unwrap();
    assert!(matches!(s.next_result().unwrap(), Some(Outcome::CopyIn(shape)) if shape.columns == 1 && !shape.binary));
    s.copy_data(b"1\n2\n").unwrap();
    let error = s.copy_fail("no more");
    assert_eq!((error.state(), error.message()), ("57014", "COPY from stdin failed: no more"));
    assert_eq!(show(&mut s, "select count(*) from t"), "0");
    show_copying(&mut s, "begin; copy t from stdin", "x\n");
    assert_eq!(s.transaction_status(), b'E');
    show(&mut s, "rollback");
    assert_eq!(show_copying(&mut s, "copy t from stdin", "1\n2\n3"), "COPY 3");
    // Binary out is binary in.
    s.simple("copy t to stdout (format binary)").unwrap();
    let Some(Outcome::CopyOut(shape)) = s.next_result().unwrap() else { panic!() };
    assert!(shape.binary);
    let mut data = Vec::new();
    while let CopyStep::Data(piece) = s.copy_out().unwrap() {
        data.extend(piece.bytes);
    }
    s.simple("copy t from stdin (format binary)").unwrap();
    s.next_result().unwrap();
    for byte in data.chunks(5) {
        s.copy_data(byte).unwrap();
    }
    assert_eq!(s.copy_done().unwrap(), "COPY 3");
    assert_eq!(show(&mut s, "select sum(a) from t"), "12");
}

#[test]
fn a_load_larger_than_its_memory_is_one_transaction() {
    let options = InstanceOptions { cache_bytes: 4 << 20, write_set_bytes: 256 << 10, ..InstanceOptions::default() };
    let instance = Instance::in_memory(options).unwrap();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v text unique)");
    let data: String = (0..20_000).map(|i| format!("{i}\tvalue {i}\n")).collect();
    assert_eq!(show_copying(&mut s, "copy t from stdin", &data), "COPY 20000");
    let doubled = format!("{}{}", data.replace("value", "other"), "1\tx\n");
    assert!(show_copying(&mut s, "copy t from stdin", &doubled).starts_with("ERROR:  23505"));
    assert_eq!(show(&mut s, "select count(*), count(distinct v) from t"), "20000|20000");
    assert_eq!(show(&mut s, "select id from t where v = 'value 777'"), "777");
}

#[test]
fn settings_are_told() {
    let instance = instance();
    let mut s = connect(&instance);
    let names: Vec<_> = s.parameters_at_start().into_iter().map(|(n, _)| n).collect();
    for name in [
        "server_version",
        "client_encoding",
        "DateStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    show(&mut s, "set timezone = 'Asia/Tokyo'");
    assert_eq!(s.take_parameter_changes(), [("TimeZone", "Asia/Tokyo".to_owned())]);
    show(&mut s, "begin; set timezone = 'UTC'; rollback");
    let again = s.take_parameter_changes();
    assert!(again.iter().all(|(_, v)| v == "Asia/Tokyo"), "{again:?}");
}

#[test]
fn a_tag_counts_what_its_own_execute_gave() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (a int); insert into t values (1), (2), (3)");
    s.parse("", "select a from t", &[]).unwrap();
    s.bind("p", "", vec![], &[], &[]).unwrap();
    assert_eq!(execute(&mut s, "p", 2).unwrap().1, "suspended");
    assert_eq!(execute(&mut s, "p", 2).unwrap().1, "SELECT 1");
    s.parse("", "update t set a = a + 1 returning a", &[]).unwrap();
    s.bind("u", "", vec![], &[], &[]).unwrap();
    assert_eq!(execute(&mut s, "u", 1).unwrap().1, "suspended");
    assert_eq!(execute(&mut s, "u", 0).unwrap().1, "UPDATE 2");
    assert_eq!(execute(&mut s, "u", 0).unwrap().1, "UPDATE 0");
    s.parse("", "show work_mem", &[]).unwrap();
    s.bind("w", "", vec![], &[], &[]).unwrap();
    assert_eq!(execute(&mut s, "w", 0).unwrap().1, "SHOW");
    assert_eq!(execute(&mut s, "w", 0).unwrap().1, "SHOW");
}

#[test]
fn a_snapshot_that_was_named_stays_the_transactions() {
    let instance = instance();
    let (mut s, mut other) = (connect(&instance), connect(&instance));
    show(&mut s, "create table t (a int); insert into t values (1)");
    // Of the newest version: nothing tells it from one that was taken but that it was named.
    let newest = show(&mut other, "select pg_export_snapshot()");
    show(&mut s, &format!("begin isolation level repeatable read; set transaction snapshot '{newest}'"));
    show(&mut other, "insert into t values (2)");
    assert_eq!(
        show(&mut s, "set transaction isolation level serializable"),
        "ERROR:  25001: SET TRANSACTION ISOLATION LEVEL must be called before any query"
    );
    show(&mut s, &format!("rollback; begin isolation level repeatable read; set transaction snapshot '{newest}'"));
    assert_eq!(show(&mut s, "select count(*) from t"), "1");
}
