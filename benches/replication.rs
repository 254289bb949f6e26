//! What does a copy cost? A whole one against JavaScript's, a cold lookup over a slow link, a warm one against the writer's.
//!
//! ```text
//! writer -- loopback ------------ mirror        blocks a second, memory of both; JavaScript to JavaScript beside it
//! writer -- 50 ms there and back -- follower    round trips, blocks and bytes: from nothing, with the top of the tree warm, for a range
//! writer, mirror                                prepared point lookups by pgbench
//! ```
//!
//! usage: replication [ROWS] [JAVASCRIPT_ENTRIES]      (1,000,000 and 100,000). Needs psql's pgbench, node and npm.

use std::process::Command;
use std::time::{Duration, Instant};

use pgbee_tests::{Client, JavaScript, Link, Server};
use serde_json::json;

const ROUND_TRIP: Duration = Duration::from_millis(50);
const ROUNDS: usize = 5;

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let rows = words.next().unwrap_or(1_000_000);
    let entries = words.next().unwrap_or(100_000);

    let writer = Server::start_with(&["--peer-listen", "127.0.0.1:0"]);
    let mut w = writer.client();
    w.query("CREATE TABLE items (id bigint PRIMARY KEY, name text, price numeric(10,2))");
    w.query(&format!("INSERT INTO items SELECT i, 'item number ' || i, i * 0.25 FROM generate_series(1, {rows}) i"));
    let key = w.query("SELECT bee_key()").text();
    let port = writer.peer_port.expect("it listens for peers");
    println!("{rows} rows in {} blocks", w.query("SELECT bee_version()").text());

    let mirror = whole_copy(&writer, &key, port);
    javascript(entries);
    for round in 0..ROUNDS as u64 {
        cold(&key, port, rows, round);
    }
    warm(&writer, &mirror, rows);
}

/// A connection to a follower's database.
fn client(server: &Server) -> Client {
    Client::connect(server.port, &[("user", "postgres"), ("database", "copy")]).expect("a connection")
}

/// The most memory a process has used, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn whole_copy(writer: &Server, key: &str, port: u16) -> Server {
    let began = Instant::now();
    let mirror = Server::follow(key, &["--name", "copy", "--mirror", "--peer", &format!("127.0.0.1:{port}")]);
    let mut m = client(&mirror);
    loop {
        let answer = m.query("SELECT length, held_blocks, held_bytes FROM bee_cores WHERE database = 'copy'");
        if let [row] = &answer.rows[..]
            && row[0] == row[1]
            && row[0].as_deref() != Some("0")
        {
            let seconds = began.elapsed().as_secs_f64();
            let number = |i: usize| row[i].as_deref().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            println!(
                "whole copy: {:.2} s, {:.0} blocks/s, {:.1} MB/s; peak memory of the writer {} MiB, of the mirror {} MiB",
                seconds,
                number(0) / seconds,
                number(2) / seconds / 1e6,
                peak_mib(writer.pid()),
                peak_mib(mirror.pid())
            );
            return mirror;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same between two processes of the JavaScript stack.
fn javascript(entries: u64) {
    let (mut from, mut to) = (JavaScript::start(), JavaScript::start());
    let key = from.ask("open", json!({"as": "db", "name": "db"}))["key"].clone();
    let length = from.ask("fill", json!({"as": "db", "from": 0, "count": entries}))["length"].clone();
    let port = from.listen(None);
    to.ask("open", json!({"as": "db", "key": key}));
    let began = Instant::now();
    to.ask("connect", json!({"port": port}));
    to.ask("update", json!({"as": "db", "length": length}));
    to.ask("download", json!({"as": "db", "start": 0, "end": length}));
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "JavaScript to JavaScript: {length} blocks in {seconds:.2} s, {:.0} blocks/s",
        length.as_f64().unwrap_or(0.0) / seconds
    );
}

/// One follower that has nothing, over a slow link.
fn cold(key: &str, port: u16, rows: u64, round: u64) {
    let link = Link::to(port, ROUND_TRIP / 2);
    let follower = Server::follow(key, &["--name", "copy", "--peer", &format!("127.0.0.1:{}", link.port)]);
    let mut f = client(&follower);
    let lookup = |id: u64| format!("SELECT * FROM items WHERE id = {id}");
    let picked = |n: u64| (rows / 7 * n + round * 1237) % rows + 1;
    let mut measured = |what: &str, sql: &str| {
        let held = |f: &mut Client| {
            let row = f.query("SELECT held_blocks, held_bytes FROM bee_cores WHERE database = 'copy'").rows.remove(0);
            row.into_iter().map(|n| n.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)).collect::<Vec<_>>()
        };
        let before = held(&mut f);
        let began = Instant::now();
        let found = f.query(sql).rows.len();
        let elapsed = began.elapsed();
        let after = held(&mut f);
        println!(
            "{what}: {found} rows in {:.0} ms, {:.1} round trips; {} blocks, {} bytes",
            elapsed.as_secs_f64() * 1e3,
            elapsed.as_secs_f64() / ROUND_TRIP.as_secs_f64(),
            after[0] - before[0],
            after[1] - before[1]
        );
    };
    measured("cold lookup from nothing", &lookup(picked(1)));
    measured("cold lookup, top of the tree warm", &lookup(picked(3)));
    measured("cold lookup, top of the tree warm", &lookup(picked(5)));
    let first = picked(2);
    measured("cold range", &format!("SELECT * FROM items WHERE id >= {first} AND id < {}", first + 1000));
}

fn warm(writer: &Server, mirror: &Server, rows: u64) {
    let script = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!("\\set id random(1, {rows})\nSELECT name FROM items WHERE id = :id;\n");
    std::fs::write(script.path(), text).expect("written");
    let rate = |server: &Server, database: &str| {
        let output = Command::new("pgbench")
            .args([
                "-n",
                "-M",
                "prepared",
                "-T",
                "4",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-p",
                &server.port.to_string(),
                "-f",
            ])
            .arg(script.path())
            .arg(database)
            .output()
            .expect("pgbench is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
        tps.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let mut pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (rate(writer, "postgres"), rate(mirror, "copy"))).collect();
    pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (at_writer, at_mirror) = pairs[ROUNDS / 2];
    println!(
        "warm lookups: writer {at_writer:.0} /s, follower {at_mirror:.0} /s, writer {:.2} of follower",
        at_writer / at_mirror
    );
}
