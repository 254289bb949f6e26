//! How long from a key to the first row? A fresh server is asked by `psql -d KEY`; beside it hyperswarm and hyperbee read the same entry over the same network.
//!
//! ```text
//! six JavaScript DHT nodes on loopback
//! writer: pgbee, its database announced
//! reader: pgbee that has joined the swarm and follows nothing:  psql -d KEY -c 'SELECT ... WHERE id = N'     whole program, from its start
//! reader: hyperswarm + corestore + hyperbee, empty:              new Hyperswarm, join, bee.get(the row's key)  from the first call, the packages loaded
//! ```
//!
//! usage: discovery [ROWS] [ROUNDS]      (100,000 and 11). Needs psql, node and npm.

use std::process::Command;
use std::time::Instant;

use pgbee_tests::{JavaScript, Server};
use serde_json::json;

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let rows = words.next().unwrap_or(100_000);
    let rounds = words.next().unwrap_or(11);

    let mut network = JavaScript::start();
    let made = network.ask("testnet", json!({"size": 6}));
    let bootstrap = made["bootstrap"][0].as_str().expect("an address").to_owned();
    let writer = Server::start_with(&["--swarm", &bootstrap]);
    let mut w = writer.client();
    w.query("CREATE TABLE items (id bigint PRIMARY KEY, name text, price numeric(10,2))");
    w.query(&format!("INSERT INTO items SELECT i, 'item number ' || i, i * 0.25 FROM generate_series(1, {rows}) i"));
    w.query("ALTER DATABASE postgres SET bee.announce = on");
    let key = w.query("SELECT bee_key('hex')").text();
    // The row's own entry: the same read for both.
    w.query("CREATE SERVER raw FOREIGN DATA WRAPPER hyperbee");
    w.query(&format!("CREATE FOREIGN TABLE entries (key bytea, value bytea) SERVER raw OPTIONS (bee_key '{key}')"));
    let middle = rows / 2;
    let entry = w
        .query(&format!(
            "SELECT encode(key, 'hex') FROM entries WHERE position('item number {middle}'::bytea IN value) > 0 LIMIT 1"
        ))
        .text();
    // Findable, before anybody is timed.
    JavaScript::start().ask("first-read", json!({"bootstrap": [bootstrap], "key": key, "entry": entry}));

    let (mut ours, mut theirs, mut connected) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let reader = Server::start_with(&["--swarm", &bootstrap]);
        // The server has found the network; that is not part of finding a database in it.
        reader.client().query("SELECT 1");
        std::thread::sleep(std::time::Duration::from_secs(1));
        let began = Instant::now();
        let output = Command::new("psql")
            .args(["-h", "127.0.0.1", "-p", &reader.port.to_string(), "-U", "postgres", "-d", &key, "-AtX", "-c"])
            .arg(format!("SELECT name FROM items WHERE id = {middle}"))
            .output()
            .expect("psql is installed");
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(told, format!("item number {middle}"), "{}", String::from_utf8_lossy(&output.stderr));

        let mut reader = JavaScript::start();
        let read = reader.ask("first-read", json!({"bootstrap": [bootstrap], "key": key, "entry": entry}));
        theirs.push(read["milliseconds"].as_f64().expect("a number"));
        connected.push(read["version"].as_f64().expect("a number"));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[0], times[times.len() - 1])
    };
    let show = |what: &str, (median, least, most): (f64, f64, f64)| {
        println!("{what:<44} {median:>7.0} ms   ({least:.0} to {most:.0})")
    };
    show("psql -d KEY to its row, pgbee", median(&mut ours));
    show("hyperswarm to a version", median(&mut connected));
    show("hyperswarm and hyperbee to the same entry", median(&mut theirs));
    println!("ratio {:.2}", median(&mut theirs).0 / median(&mut ours).0);
}
