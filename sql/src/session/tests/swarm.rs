//! Databases found by their keys alone: what is announced, what connecting to a key does, what the views tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::follower::{Nearby, attach};
use super::{connect, connect_to, instance, show};
use crate::follow::CoreKey;
use crate::session::{ConnectOptions, Instance, InstanceOptions, Session};

/// A writer of one table, with its key; and a network of which it is the one peer, in a swarm.
fn writer() -> (Arc<Instance>, CoreKey, Arc<Nearby>) {
    let writer = instance();
    show(&mut connect(&writer), "create table t(id int primary key); insert into t values (1), (2)");
    let key = CoreKey(writer.key("postgres").unwrap());
    let network = Nearby::of(&writer);
    network.has_swarm.store(true, Ordering::SeqCst);
    (writer, key, network)
}

fn refused(instance: &Arc<Instance>, database: &str) -> crate::SqlError {
    match connect_to(instance, database) {
        Ok(_) => panic!("it is connected to {database}"),
        Err(error) => error,
    }
}

fn count(session: &mut Session) -> String {
    show(session, "set bee.fetch_wait = '5s'");
    show(session, "select count(*) from t")
}

#[test]
fn own_databases_are_announced_only_when_told_to_be() {
    let (writer, key, network) = writer();
    attach(&writer, &network);
    let is_announced = || network.announced.lock().contains(&key);
    assert!(!is_announced(), "the key is the right to read");
    let mut w = connect(&writer);
    assert_eq!(show(&mut w, "show bee.announce"), "off");
    assert_eq!(show(&mut w, "select * from pg_db_role_setting"), "");
    assert_eq!(show(&mut w, "alter database postgres set bee.announce = on"), "ALTER DATABASE");
    assert!(is_announced());
    assert_eq!(show(&mut w, "show bee.announce"), "on");
    assert_eq!(show(&mut w, "select current_setting('bee.announce')"), "on");
    let settings =
        "select datname, setrole, setconfig from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase";
    assert_eq!(show(&mut w, settings), "postgres|0|{bee.announce=on}");
    let topics = "select database, announced, looked_up, peers, connections, state from bee_swarm_topics";
    assert_eq!(show(&mut w, topics), "postgres|t|t|2|1|2 peers announce it");
    assert_eq!(show(&mut w, "alter database postgres set bee.announce to 'no'"), "ALTER DATABASE");
    assert!(!is_announced());
    assert_eq!(show(&mut w, "alter database postgres set bee.announce = true"), "ALTER DATABASE");
    assert_eq!(show(&mut w, "alter database postgres reset bee.announce"), "ALTER DATABASE");
    assert!(!is_announced());
    assert_eq!(show(&mut w, settings), "");
    // A database that is dropped is not told of any more; one that comes back under its name begins anew.
    show(&mut w, "create database shop");
    show(&mut w, "alter database shop set bee.announce = on");
    let shop = CoreKey(writer.key("shop").unwrap());
    assert!(network.announced.lock().contains(&shop));
    show(&mut w, "drop database shop");
    show(&mut w, "create database shop");
    assert!(network.announced.lock().is_empty());
    assert!(!writer.is_announced("shop"));
}

#[test]
fn what_is_set_is_checked_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Instance::open(dir.path(), InstanceOptions::default()).unwrap();
    let first = open();
    let mut w = connect(&first);
    let warned = show(&mut w, "alter database postgres set bee.announce = on");
    assert!(warned.starts_with("WARNING:  01000: this server takes part in no swarm"), "{warned}");
    for (sql, state) in [
        ("alter database nowhere set bee.announce = on", "3D000"),
        ("alter database postgres set bee.announce = maybe", "22023"),
        ("alter database postgres set bee.anounce = on", "42704"),
        ("alter database postgres set work_mem = '1MB'", "0A000"),
        ("begin; alter database postgres set bee.announce = off", "25001"),
        ("rollback; set bee.announce = on", "55P02"),
        ("set local bee.announce = on", "55P02"),
        ("set bee.follow_on_connect = on", "55P02"),
        ("alter database postgres set tablespace x", "0A000"),
        ("alter database if exists postgres set bee.announce = on", "42601"),
    ] {
        let told = show(&mut w, sql);
        assert!(told.contains(&format!("ERROR:  {state}: ")), "{sql}: {told}");
    }
    drop(w);
    first.shutdown().unwrap();
    drop(first);
    let again = open();
    assert!(again.is_announced("postgres"));
    let network = Nearby::of(&again);
    attach(&again, &network);
    let key = CoreKey(again.key("postgres").unwrap());
    assert!(network.announced.lock().contains(&key), "and told of again when there is a swarm");
    show(&mut connect(&again), "alter database postgres reset all");
    assert!(network.announced.lock().is_empty());
}

#[test]
fn connecting_to_a_key_follows_it() {
    let (_writer, key, network) = writer();
    let follower = instance();
    attach(&follower, &network);
    let mut f = connect_to(&follower, &key.to_z32()).unwrap();
    assert_eq!(count(&mut f), "2");
    assert_eq!(show(&mut f, "select current_database() = bee_key()"), "t");
    assert_eq!(show(&mut f, "show bee.announce"), "on");
    assert!(network.announced.lock().contains(&key));
    // Hex, a link and a version of it are the same database.
    let hex = show(&mut f, "select bee_key('hex')");
    let version = show(&mut f, "select bee_version()");
    for name in [hex.clone(), hex.to_uppercase(), format!("pear://{}", key.to_z32()), format!("{hex}@{version}")] {
        assert_eq!(count(&mut connect_to(&follower, &name).unwrap()), "2", "{name}");
    }
    let mut names = [key.to_z32(), "postgres".to_owned()];
    names.sort();
    assert_eq!(follower.databases(), names);
    let row = "select database, transport from bee_peers";
    assert_eq!(show(&mut f, row), format!("{}|udx", key.to_z32()));
    let swarm = "select nat, nodes, topics, connections, punches_tried, punches_won, last_note from bee_swarm";
    assert_eq!(show(&mut f, swarm), "unknown|3|1|1|5|4|a peer was not reached");
    // Not told of when that is not wanted; it is followed all the same.
    show(&mut f, &format!("alter database \"{}\" set bee.announce = off", key.to_z32()));
    assert!(network.announced.lock().is_empty() && network.follows(key));
    // What was read is here without anybody.
    network.set_online(false);
    assert_eq!(count(&mut connect_to(&follower, &key.to_z32()).unwrap()), "2");
}

#[test]
fn a_key_that_is_known_is_its_database() {
    let (writer, key, network) = writer();
    attach(&writer, &network);
    assert_eq!(show(&mut connect_to(&writer, &key.to_z32()).unwrap(), "select current_database()"), "postgres");
    let follower = instance();
    attach(&follower, &network);
    show(&mut connect(&follower), &format!("create database shop with bee_key = '{key}' peer = 'a:1'"));
    let mut f = connect_to(&follower, &key.to_z32()).unwrap();
    assert_eq!((show(&mut f, "select current_database()").as_str(), count(&mut f).as_str()), ("shop", "2"));
    assert_eq!(follower.databases(), ["postgres", "shop"]);
    // A database that is called so is what is meant.
    show(&mut connect(&writer), &format!("create database \"{}\"", CoreKey([9; 32]).to_z32()));
    let mut named = connect_to(&writer, &CoreKey([9; 32]).to_z32()).unwrap();
    assert_eq!(show(&mut named, "select bee_key() = current_database()"), "f");
}

#[test]
fn many_who_connect_at_once_follow_it_once() {
    let (_writer, key, network) = writer();
    let follower = instance();
    attach(&follower, &network);
    let names = [key.to_z32(), format!("pear://{}", key.to_z32())];
    let together = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let (follower, together, name) = (&follower, &together, &names[at % 2]);
            scope.spawn(move || {
                together.wait();
                assert_eq!(count(&mut connect_to(follower, name).unwrap()), "2");
            });
        }
    });
    assert_eq!((follower.databases().len(), network.times_followed(key)), (2, 1));
}

#[test]
fn who_may_not_or_cannot_follow_is_told_why() {
    let (_writer, key, network) = writer();
    let follower = instance();
    let error = refused(&follower, &key.to_z32());
    assert_eq!(error.state(), "3D000");
    assert!(error.0.hint.as_ref().is_some_and(|hint| hint.contains("--swarm")), "{error:?}");
    // No swarm, and no peer either.
    network.has_swarm.store(false, Ordering::SeqCst);
    network.set_online(false);
    attach(&follower, &network);
    assert_eq!(refused(&follower, &key.to_z32()).state(), "3D000");
    assert_eq!(refused(&follower, "shop").state(), "3D000");
    assert_eq!(follower.databases(), ["postgres"], "nothing is kept of it");
    // A peer without a swarm will do.
    network.set_online(true);
    let guest = |instance: &Arc<Instance>| {
        let (user, database) = ("guest".into(), key.to_z32());
        instance.connect(ConnectOptions { user, database, ..ConnectOptions::default() })
    };
    assert!(guest(&follower).is_err_and(|error| error.state() == "42501"));
    assert_eq!(count(&mut connect_to(&follower, &key.to_z32()).unwrap()), "2");
    assert!(guest(&follower).is_ok(), "one that is there is open to all");
    let mut guest_there = guest(&follower).unwrap();
    assert!(show(&mut guest_there, "alter database postgres set bee.announce = on").starts_with("ERROR:  42501"));

    let open = Instance::in_memory(InstanceOptions { follow_on_connect: true, ..InstanceOptions::default() }).unwrap();
    attach(&open, &network);
    let mut g = guest(&open).unwrap();
    assert_eq!((count(&mut g).as_str(), show(&mut g, "show bee.follow_on_connect").as_str()), ("2", "on"));
}

#[test]
fn a_key_that_nobody_announces_is_told_so() {
    let (_writer, key, network) = writer();
    network.set_online(false);
    let follower = instance();
    attach(&follower, &network);
    let mut f = connect_to(&follower, &key.to_z32()).unwrap();
    show(&mut f, "set bee.fetch_wait = '50ms'");
    let told = show(&mut f, "select count(*) from t");
    assert!(told.starts_with("ERROR:  58030: no version of database"), "{told}");
    assert!(told.contains("DETAIL:  Nobody announces it among the 3 nodes asked."), "{told}");
    assert!(told.contains("bee_swarm"), "{told}");
    // It stays, and once somebody has it, it is read.
    network.set_online(true);
    assert_eq!(count(&mut f), "2");
}

#[test]
fn a_slip_of_the_pen_leaves_nothing_behind() {
    let (_writer, key, network) = writer();
    network.set_online(false);
    network.is_forgotten.store(true, Ordering::SeqCst);
    let dir = tempfile::tempdir().unwrap();
    // The network's threads hold the store a moment longer than who dropped the instance.
    let open = || {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match Instance::open(dir.path(), InstanceOptions::default()) {
                Err(error) if error.message().contains("in use") && Instant::now() < end => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    };
    let (follower, name) = (open(), key.to_z32());
    attach(&follower, &network);
    let (first, second) = (connect_to(&follower, &name).unwrap(), connect_to(&follower, &name).unwrap());
    assert_eq!(follower.databases().len(), 2);
    drop(first);
    assert_eq!(follower.databases().len(), 2, "somebody still waits for it");
    drop(second);
    assert_eq!(follower.databases(), ["postgres"], "it goes with its last session");
    assert!(!network.follows(key) && network.announced.lock().is_empty());
    // Somebody announces it and is not reached: that is no slip.
    network.is_forgotten.store(false, Ordering::SeqCst);
    drop(connect_to(&follower, &name).unwrap());
    assert_eq!(follower.databases().len(), 2);
    drop(follower);
    // Whatever a crash left behind is looked at at the next start.
    network.is_forgotten.store(true, Ordering::SeqCst);
    let follower = open();
    assert_eq!(follower.databases(), ["postgres"]);
    attach(&follower, &network);
    // What is set on it is meant, and so is what was asked for by a statement.
    let f = connect_to(&follower, &name).unwrap();
    show(&mut connect(&follower), &format!("alter database \"{name}\" set bee.announce = off"));
    drop(f);
    assert_eq!(follower.databases().len(), 2);
    show(&mut connect(&follower), &format!("drop database \"{name}\""));
    show(&mut connect(&follower), &format!("create database shop with bee_key = '{key}'"));
    drop(connect_to(&follower, &name).unwrap());
    assert_eq!(follower.databases(), ["postgres", "shop"]);
    show(&mut connect(&follower), "drop database shop");
    // Once something of it is here it stays.
    network.set_online(true);
    assert_eq!(count(&mut connect_to(&follower, &name).unwrap()), "2");
    network.set_online(false);
    drop(connect_to(&follower, &name).unwrap());
    drop(follower);
    let again = open();
    assert!(again.databases().contains(&name));
    assert_eq!(count(&mut connect_to(&again, &name).unwrap()), "2");
}

#[test]
fn who_connects_while_it_goes_finds_it_anew() {
    let (_writer, key, network) = writer();
    network.set_online(false);
    network.is_forgotten.store(true, Ordering::SeqCst);
    let follower = instance();
    attach(&follower, &network);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut f = connect_to(&follower, &key.to_z32()).unwrap();
                    assert_eq!(show(&mut f, "select 1"), "1");
                    assert!(follower.databases().contains(&key.to_z32()), "it is there as long as somebody is in it");
                }
            });
        }
    });
    assert_eq!(follower.databases(), ["postgres"]);
}

/// psql's \d right after psql -d KEY shows what is there, not that nothing is there yet.
#[test]
fn who_asks_for_tables_waits_for_a_version() {
    let tables = "select relname from pg_catalog.pg_class where relname = 't'";
    let (_writer, key, network) = writer();
    let follower = instance();
    attach(&follower, &network);
    let first = |sql: &str| {
        let mut f = connect_to(&follower, &key.to_z32()).unwrap();
        show(&mut f, "set bee.fetch_wait = '10s'");
        show(&mut f, sql)
    };
    assert_eq!(first(tables), "t");
    show(&mut connect(&follower), &format!("drop database \"{key}\""));
    assert_eq!(first("select table_name from information_schema.tables where table_schema = 'public'"), "t");
    // With nobody there, that is told, and what tells how things stand does not wait.
    network.set_online(false);
    let alone = instance();
    attach(&alone, &network);
    let mut f = connect_to(&alone, &key.to_z32()).unwrap();
    show(&mut f, "set bee.fetch_wait = '1h'");
    assert_eq!(show(&mut f, "select count(*) from bee_swarm"), "1");
    assert_eq!(show(&mut f, "select count(*) from pg_database"), "2");
    show(&mut f, "set bee.fetch_wait = '50ms'");
    let told = show(&mut f, tables);
    assert!(told.starts_with("WARNING:  01000: no version of database"), "{told}");
    assert!(told.contains("Nobody announces it"), "{told}");
}
