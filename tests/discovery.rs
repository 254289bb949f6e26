//! Databases found by their keys alone, in private networks of `pgbee dht` nodes on loopback: announced and not, followed, followed on connect, passed on by a
//! follower, offline; and that nothing reaches further than was chosen.

use std::time::{Duration, Instant};

use pgbee_tests::{Client, Server, ask, binary, client, swarm_of, told};

const LIMIT: Duration = Duration::from_secs(60);

/// A private network: three nodes, the first of which the others began with.
fn network() -> (Vec<Server>, String) {
    let first = Server::dht_node(&[]);
    let others = [Server::dht_node(&[&first]), Server::dht_node(&[&first])];
    let mut nodes = vec![first];
    nodes.extend(others);
    let swarm = swarm_of(&nodes.iter().collect::<Vec<_>>());
    (nodes, swarm)
}

fn serving(swarm: &str) -> Server {
    Server::start_with(&["--swarm", swarm])
}

fn until(client: &mut Client, sql: &str, wanted: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let found = ask(client, sql);
        if found.as_deref() == Ok(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{sql}: {found:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A writer of three rows; its key, in z-base-32 and in hex.
fn writer(swarm: &str, is_announced: bool) -> (Server, String, String) {
    let server = serving(swarm);
    let mut w = server.client();
    told(&mut w, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    told(&mut w, "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')");
    if is_announced {
        told(&mut w, "ALTER DATABASE postgres SET bee.announce = on");
        until(&mut w, "SELECT announced FROM bee_swarm_topics WHERE database = 'postgres'", "t");
    }
    let (key, hex) = (told(&mut w, "SELECT bee_key()"), told(&mut w, "SELECT bee_key('hex')"));
    (server, key, hex)
}

#[test]
fn a_database_is_found_by_its_key_alone() {
    let (nodes, swarm) = network();
    let (writer, key, hex) = writer(&swarm, true);
    let mut w = writer.client();

    let follower = Server::follow(&key, &["--name", "shop", "--bootstrap", &swarm]);
    let mut f = client(&follower, "shop");
    until(&mut f, "SELECT count(*), max(v) FROM t", "3|two");
    assert_eq!(told(&mut f, "SELECT DISTINCT database, transport FROM bee_peers"), "shop|udx");
    until(&mut f, "SELECT peers > 0, connections > 0, looked_up, announced FROM bee_swarm_topics", "t|t|t|t");
    assert_eq!(
        told(&mut f, "SELECT bootstrap, nodes > 0, topics, connections FROM bee_swarm"),
        format!("{swarm}|t|1|1")
    );
    assert_eq!(told(&mut w, "SELECT count(*) FROM pg_stat_replication"), "1");

    // Live.
    told(&mut w, "INSERT INTO t VALUES (4, 'four')");
    let version = told(&mut w, "SELECT bee_version()");
    assert_eq!(told(&mut f, &format!("SELECT bee_wait_for({version}, '30 s')")), "t");
    assert_eq!(told(&mut f, "SELECT v FROM t WHERE id = 4"), "four");

    // psql -d KEY on a server that has never heard of it: in hex and in z-base-32 it is one database.
    let fresh = serving(&swarm);
    let count = |name: &str| fresh.psql(&["-d", name, "-Atc", "SELECT count(*) FROM t"]);
    assert_eq!(count(&hex), "4\n");
    assert_eq!(count(&key), "4\n");
    assert_eq!(fresh.psql(&["-d", &key, "-Atc", "SELECT current_database()"]), format!("{key}\n"));
    assert_eq!(fresh.psql(&["-Atc", "SELECT count(*) FROM pg_database"]), "2\n");

    // And what was read is there without any network.
    let alone = fresh.restart(&[]);
    assert_eq!(alone.psql(&["-d", &hex, "-Atc", "SELECT count(*) FROM t"]), "4\n");
    assert!(alone.udp_sockets().is_empty());

    // The writer announces again after a restart, by itself.
    drop(f);
    let writer = writer.restart(&["--swarm", &swarm]);
    let mut w = writer.client();
    assert_eq!(told(&mut w, "SHOW bee.announce"), "on");
    told(&mut w, "INSERT INTO t VALUES (5, 'five')");
    let version = told(&mut w, "SELECT bee_version()");
    let later = Server::follow(&key, &["--name", "later", "--swarm", &swarm]);
    let mut l = client(&later, "later");
    until(&mut l, &format!("SELECT bee_wait_for({version}, '1 s')"), "t");
    for node in nodes {
        assert!(node.stop().success());
    }
}

#[test]
fn what_is_not_announced_is_not_found_and_that_is_told() {
    let (_nodes, swarm) = network();
    let (writer, key, _) = writer(&swarm, false);
    let mut w = writer.client();
    assert_eq!(told(&mut w, "SELECT count(*) FROM bee_swarm_topics"), "0");
    let seeker = serving(&swarm);
    let mut s = client(&seeker, &key);
    told(&mut s, "SET bee.fetch_wait = '2s'");
    let error = s.fails("SELECT count(*) FROM t");
    assert_eq!(error.state(), "58030");
    let detail = error.0.get(&'D').cloned().unwrap_or_default();
    assert!(detail.contains("announces it in this swarm"), "{detail}");

    // What nobody was found for goes again, and is announced no longer.
    drop(s);
    until(&mut seeker.client(), "SELECT count(*) FROM pg_database", "1");
    until(&mut seeker.client(), "SELECT count(*) FROM bee_swarm_topics", "0");

    told(&mut w, "ALTER DATABASE postgres SET bee.announce = on");
    until(&mut w, "SELECT announced FROM bee_swarm_topics", "t");
    let fresh = serving(&swarm);
    until(&mut client(&fresh, &key), "SELECT count(*) FROM t", "3");
    until(&mut w, "SELECT connections FROM bee_swarm_topics", "1");
    // Taken back: who asks from now on finds only the one who followed.
    told(&mut w, "ALTER DATABASE postgres RESET bee.announce");
    until(&mut w, "SELECT count(*) FROM bee_swarm_topics", "0");
}

#[test]
fn a_follower_passes_on_what_it_has() {
    let (_nodes, swarm) = network();
    let (writer, key, _) = writer(&swarm, true);
    let middle = Server::follow(&key, &["--name", "shop", "--mirror", "--swarm", &swarm]);
    let mut m = client(&middle, "shop");
    until(&mut m, "SELECT count(*) FROM t", "3");
    until(&mut m, "SELECT held_blocks = length FROM bee_cores WHERE database = 'shop'", "t");
    assert!(writer.stop().success());
    let last = serving(&swarm);
    let mut l = client(&last, &key);
    until(&mut l, "SELECT count(*) FROM t", "3");
    assert_eq!(told(&mut l, "SELECT DISTINCT transport FROM bee_peers"), "udx");
}

#[test]
fn a_key_without_a_network_is_told_what_it_takes() {
    let server = Server::start();
    let key = told(&mut server.client(), "SELECT bee_key()");
    let unknown = Server::start();
    let printed = unknown.psql(&["-d", &key, "-c", "SELECT 1"]);
    assert!(printed.contains(&format!("database \"{key}\" does not exist")), "{printed}");
    assert!(printed.contains("--swarm"), "{printed}");
    // Its own key is its own database.
    assert_eq!(server.psql(&["-d", &key, "-Atc", "SELECT current_database()"]), "postgres\n");
}

/// Nothing is bound unless it was asked for, and what has only loopback to ask is bound to loopback.
#[test]
fn nothing_reaches_further_than_was_chosen() {
    let writer = Server::start_with(&["--peer-listen", "127.0.0.1:0"]);
    let key = told(&mut writer.client(), "SELECT bee_key()");
    told(&mut writer.client(), "ALTER DATABASE postgres SET bee.announce = on");
    let at = format!("127.0.0.1:{}", writer.peer_port.expect("it listens for peers"));
    let follower = Server::follow(&key, &["--name", "shop", "--peer", &at]);
    until(&mut client(&follower, "shop"), "SELECT 1", "1");
    for silent in [&writer, &follower, &Server::follow(&key, &["--name", "shop", "--swarm", "off"])] {
        assert_eq!(silent.udp_sockets(), [], "nobody was to be asked");
        assert_eq!(told(&mut silent.client(), "SELECT count(*) FROM bee_swarm"), "0");
    }
    let (nodes, swarm) = network();
    let member = serving(&swarm);
    for local in nodes.iter().chain([&member]) {
        let sockets = local.udp_sockets();
        assert!(!sockets.is_empty() && sockets.iter().all(|address| address.ip().is_loopback()), "{sockets:?}");
    }
}

#[test]
fn wrong_words_are_refused() {
    for words in [
        &["dht", "--listen", "0.0.0.0:0"][..],
        &["dht", "--bootstrap", "public"],
        &["dht", "--swarm", "127.0.0.1:1"],
        &["serve", "--swarm", "somewhere"],
        &["serve", "--bootstrap", "off"],
        &["serve", "--relay", "x"],
    ] {
        let output = std::process::Command::new(binary()).args(words).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
