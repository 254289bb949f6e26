//! Found by the key alone, with the real packages of the JavaScript stack on loopback: their networks carry our databases, ours carry theirs.

use std::time::{Duration, Instant};

use pgbee_tests::{Client, JavaScript, Server, ask, client, swarm_of};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Nodes of a test network.
const NODES: usize = 6;

/// Asks until the answer is as wanted.
fn until(what: &str, client: &mut Client, sql: &str, wanted: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let found = ask(client, sql);
        if found.as_deref() == Ok(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {found:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A JavaScript network, and the addresses of its nodes.
fn javascript_network() -> (JavaScript, String) {
    let mut network = JavaScript::start();
    let made = network.ask("testnet", json!({"size": NODES}));
    let first = made["bootstrap"][0].as_str().expect("an address").to_owned();
    (network, first)
}

/// A private network of `pgbee dht` nodes, and the address of the first.
fn our_network() -> (Vec<Server>, String) {
    let mut nodes = vec![Server::dht_node(&[])];
    for _ in 0..3 {
        nodes.push(Server::dht_node(&[&nodes[0]]));
    }
    let bootstrap = swarm_of(&[&nodes[0]]);
    (nodes, bootstrap)
}

/// A server whose database is announced, with a table of 1,000 rows; its key, and the discovery key's topic is derived from it by everyone.
fn announced(bootstrap: &str) -> (Server, String) {
    let server = Server::start_with(&["--swarm", bootstrap]);
    let mut own = server.client();
    own.query("CREATE TABLE t (id int PRIMARY KEY, name text)");
    own.query("INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 1000) i");
    own.query("ALTER DATABASE postgres SET bee.announce = on");
    let key = own.query("SELECT bee_key('hex')").text();
    (server, key)
}

/// Whatever finds it, finds all of it: our writer, followed by a JavaScript peer.
fn javascript_follows(bootstrap: &str) {
    let (server, key) = announced(bootstrap);
    let mut js = JavaScript::start();
    js.ask("open", json!({"as": "db", "key": key}));
    js.ask("swarm", json!({"bootstrap": [bootstrap]}));
    js.ask("join", json!({"as": "db", "server": false}));
    let length =
        |server: &Server| server.client().query("SELECT bee_version()").text().parse::<u64>().expect("a number");
    js.ask("update", json!({"as": "db", "length": length(&server)}));
    let entries = js.ask("entries", json!({"as": "db", "range": {}}));
    assert!(entries["entries"].as_array().is_some_and(|entries| entries.len() > 1000), "{entries}");
    server.client().query("INSERT INTO t VALUES (1001, 'live')");
    js.ask("update", json!({"as": "db", "length": length(&server)}));
    let peers = server.client().query("SELECT transport FROM bee_peers").text();
    assert_eq!(peers, "udx");
}

/// A JavaScript bee, followed by ours.
fn we_follow(bootstrap: &str) {
    let mut js = JavaScript::start();
    let key = js.ask("open", json!({"as": "bee", "name": "bee"}))["key"].as_str().expect("a key").to_owned();
    js.ask("fill", json!({"as": "bee", "from": 0, "count": 2000}));
    js.ask("swarm", json!({"bootstrap": [bootstrap]}));
    js.ask("join", json!({"as": "bee"}));
    let server = Server::follow(&key, &["--name", "theirs", "--swarm", bootstrap]);
    let mut theirs = client(&server, "theirs");
    until("all entries", &mut theirs, "SELECT count(*) FROM bee", "2000");
    js.ask("put", json!({"as": "bee", "entries": [["zz", "live"]]}));
    until("the new entry", &mut theirs, "SELECT convert_from(value, 'UTF8') FROM bee WHERE key = 'zz'", "live");
    assert_eq!(theirs.query("SELECT DISTINCT transport FROM bee_peers").text(), "udx");
}

#[test]
fn a_javascript_network_finds_our_database() {
    let (_network, bootstrap) = javascript_network();
    javascript_follows(&bootstrap);
}

#[test]
fn we_find_a_javascript_bee_in_a_javascript_network() {
    let (_network, bootstrap) = javascript_network();
    we_follow(&bootstrap);
}

#[test]
fn our_nodes_carry_both() {
    let (_nodes, bootstrap) = our_network();
    javascript_follows(&bootstrap);
    we_follow(&bootstrap);
}

#[test]
fn our_nodes_bootstrap_a_javascript_pair() {
    let (_nodes, bootstrap) = our_network();
    let (mut writer, mut reader) = (JavaScript::start(), JavaScript::start());
    let key = writer.ask("open", json!({"as": "log", "name": "log"}))["key"].clone();
    writer.ask("append", json!({"as": "log", "blocks": ["aa", "bb", "cc"]}));
    for (peer, open) in
        [(&mut writer, json!({"as": "log", "name": "log"})), (&mut reader, json!({"as": "log", "key": key}))]
    {
        peer.ask("open", open);
        peer.ask("swarm", json!({"bootstrap": [bootstrap]}));
        peer.ask("join", json!({"as": "log"}));
    }
    reader.ask("update", json!({"as": "log", "length": 3}));
    assert_eq!(reader.ask("get", json!({"as": "log", "index": 2}))["block"], "cc");
    // And what is stored for anyone.
    for peer in [&mut writer, &mut reader] {
        peer.ask("dht", json!({"bootstrap": [bootstrap]}));
    }
    records(&mut writer, &mut reader);
    let echo = writer.ask("serve-echo", json!({"seed": "33".repeat(32)}))["key"].clone();
    assert_eq!(reader.ask("echo", json!({"key": echo, "text": "hello"}))["text"], "hello");
}

/// Announced, put and withdrawn by one, found by the other.
fn records(from: &mut JavaScript, to: &mut JavaScript) {
    let (topic, seed) = ("11".repeat(32), "22".repeat(32));
    from.ask("announce", json!({"topic": topic, "seed": seed}));
    let found = to.ask("lookup", json!({"topic": topic}));
    assert_eq!(found["keys"].as_array().map(Vec::len), Some(1), "{found}");
    from.ask("unannounce", json!({"topic": topic, "seed": seed}));
    assert_eq!(to.ask("lookup", json!({"topic": topic}))["keys"], json!([]));
    let put = from.ask("mutable-put", json!({"seed": seed, "value": "aabb", "seq": 3}));
    assert_eq!(to.ask("mutable-get", json!({"key": put["key"]})), json!({"value": "aabb", "seq": 3}));
    from.ask("mutable-put", json!({"seed": seed, "value": "ccdd", "seq": 4}));
    assert_eq!(to.ask("mutable-get", json!({"key": put["key"], "seq": 4})), json!({"value": "ccdd", "seq": 4}));
    let put = from.ask("immutable-put", json!({"value": "0102"}));
    assert_eq!(to.ask("immutable-get", json!({"hash": put["hash"]}))["value"], "0102");
    assert_eq!(to.ask("immutable-get", json!({"hash": "00".repeat(32)}))["value"], Value::Null);
}

#[test]
fn javascript_nodes_bootstrap_two_of_ours() {
    let (_network, bootstrap) = javascript_network();
    let (writer, key) = announced(&bootstrap);
    let follower = Server::follow(&key, &["--name", "copy", "--swarm", &bootstrap]);
    let mut copy = client(&follower, "copy");
    until("the rows", &mut copy, "SELECT name FROM t WHERE id = 7", "name 7");
    writer.client().query("UPDATE t SET name = 'changed' WHERE id = 7");
    until("the change", &mut copy, "SELECT name FROM t WHERE id = 7", "changed");
}
