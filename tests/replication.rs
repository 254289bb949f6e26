//! Databases and their copies: two pgbee processes, a link between them that can be slow or cut, and peers of the JavaScript stack on either side.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pgbee_tests::{Client, JavaScript, Link, Server, ask, binary, client, told};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Asks until the answer is as wanted.
fn until(what: &str, mut ask: impl FnMut() -> Result<String, String>, wanted: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let found = ask();
        if found.as_deref() == Ok(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {found:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn serving() -> Server {
    Server::start_with(&["--peer-listen", "127.0.0.1:0"])
}

/// The key of a server's first database, as its clients read it.
fn key_of(server: &Server) -> String {
    told(&mut server.client(), "SELECT bee_key()")
}

fn hex_key_of(server: &Server) -> String {
    told(&mut server.client(), "SELECT bee_key('hex')")
}

fn peer(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A table of `rows` rows under a primary key and an index, in a few commits; the version before the last commit, which changes row 7.
fn orders(writer: &mut Client, rows: u64) -> u64 {
    told(
        writer,
        "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, amount numeric(10,2), noted timestamptz)",
    );
    told(writer, "CREATE INDEX orders_customer ON orders (customer)");
    told(
        writer,
        &format!(
            "INSERT INTO orders SELECT i, 'customer ' || i % 97, i * 1.5, timestamptz '2026-01-01 00:00+00' + i * interval '1 minute' FROM generate_series(1, {rows}) i"
        ),
    );
    let before = told(writer, "SELECT bee_version()").parse().expect("a number");
    told(writer, "UPDATE orders SET amount = 0 WHERE id = 7");
    before
}

#[test]
fn a_follower_answers_as_the_writer_does() {
    let writer = serving();
    let mut w = writer.client();
    let before = orders(&mut w, 5000);
    let link = Link::to(writer.peer_port.expect("it listens for peers"), Duration::ZERO);
    let follower = Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(link.port)]);
    let mut f = client(&follower, "shop");

    until("a row", || ask(&mut f, "SELECT customer, amount FROM orders WHERE id = 7"), "customer 7|0.00");
    let past = format!("SELECT amount FROM orders AS OF VERSION {before} WHERE id = 7");
    assert_eq!(told(&mut f, &past), "10.50");
    assert_eq!(told(&mut f, "SELECT bee_key()"), key_of(&writer));
    for sql in [
        "SELECT 'orders'::regclass::oid, relname, relkind FROM pg_class WHERE relname LIKE 'orders%' ORDER BY 1",
        "SELECT attname, atttypid::regtype, attnotnull FROM pg_attribute WHERE attrelid = 'orders'::regclass ORDER BY attnum",
        "SELECT count(*), sum(amount) FROM orders WHERE customer = 'customer 12'",
        "SELECT * FROM orders WHERE id BETWEEN 100 AND 120 ORDER BY id DESC",
        &format!("SELECT _op, old_amount, new_amount FROM bee_diff('orders', {before}, bee_version())"),
        "SELECT version, user_name, rows_changed FROM bee_commits ORDER BY version",
    ] {
        assert_eq!(told(&mut f, sql), told(&mut w, sql), "{sql}");
    }
    let described = |server: &Server, database: &str| server.psql(&["-d", database, "-c", "\\d orders"]);
    assert_eq!(described(&follower, "shop"), described(&writer, "postgres"));

    for write in [
        "INSERT INTO orders VALUES (0, 'x', 1, now())",
        "UPDATE orders SET amount = 1",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "CREATE TABLE t (a int)",
        "DROP TABLE orders",
        "CREATE TAG now",
    ] {
        let refused = ask(&mut f, write).expect_err(write);
        assert!(refused.starts_with("25006 "), "{write}: {refused}");
    }

    told(&mut w, "UPDATE orders SET customer = 'someone else' WHERE id = 4000");
    let version = told(&mut w, "SELECT bee_version()");
    assert_eq!(told(&mut f, &format!("SELECT bee_wait_for({version}, '30 s')")), "t");
    assert_eq!(told(&mut f, "SELECT customer FROM orders WHERE id = 4000"), "someone else");

    // The writer goes; what was read is still here, the rest is refused.
    assert!(writer.stop().success());
    assert_eq!(told(&mut f, "SELECT customer, amount FROM orders WHERE id = 7"), "customer 7|0.00");
    assert_eq!(told(&mut f, &past), "10.50");
    told(&mut f, "SET bee.fetch_wait = '200ms'");
    let refused = ask(&mut f, "SELECT * FROM orders WHERE id = 2345").expect_err("no peer has it");
    assert!(refused.starts_with("58030 "), "{refused}");
    assert_eq!(told(&mut f, "SELECT customer FROM orders WHERE id = 4000"), "someone else");

    // And after a restart with no network at all.
    let again = follower.restart(&[]);
    let mut f = client(&again, "shop");
    told(&mut f, "SET bee.fetch_wait = '200ms'");
    assert_eq!(told(&mut f, "SELECT customer FROM orders WHERE id = 4000"), "someone else");
    let refused = ask(&mut f, "SELECT * FROM orders WHERE id = 2345").expect_err("no peer at all");
    assert!(refused.starts_with("58030 "), "{refused}");
}

#[test]
fn a_fetch_ends_with_its_statement() {
    let writer = serving();
    orders(&mut writer.client(), 20_000);
    let link = Link::to(writer.peer_port.expect("it listens for peers"), Duration::from_millis(5));
    let follower = Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(link.port)]);
    let mut f = client(&follower, "shop");
    until("a row", || ask(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    link.set_delay(Duration::from_secs(5));
    told(&mut f, "SET statement_timeout = '300ms'");
    let began = Instant::now();
    let refused = ask(&mut f, "SELECT count(*) FROM orders").expect_err("it takes longer");
    assert!(
        refused.starts_with("57014 ") && began.elapsed() < Duration::from_secs(3),
        "{refused}, {:?}",
        began.elapsed()
    );
    told(&mut f, "SET statement_timeout = 0");
    let cancel = f.cancel_key;
    let port = follower.port;
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        Client::cancel(port, cancel).expect("a cancel request");
    });
    let refused = ask(&mut f, "SELECT count(*) FROM orders").expect_err("it is cancelled");
    assert!(refused.starts_with("57014 "), "{refused}");
    canceller.join().expect("it ran");
    // Other sessions, and this one, go on.
    assert_eq!(told(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    link.set_delay(Duration::ZERO);
    until("all rows", || ask(&mut f, "SELECT count(*) FROM orders"), "20000");
}

#[test]
fn a_link_that_breaks_is_mended() {
    let writer = serving();
    let mut w = writer.client();
    orders(&mut w, 3000);
    let link = Link::to(writer.peer_port.expect("it listens for peers"), Duration::ZERO);
    let follower = Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(link.port)]);
    let mut f = client(&follower, "shop");
    until("a row", || ask(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    for round in 0..5 {
        link.cut();
        told(&mut w, &format!("UPDATE orders SET amount = {round} WHERE id = 100"));
        link.mend();
        until("the update", || ask(&mut f, "SELECT amount FROM orders WHERE id = 100"), &format!("{round}.00"));
    }
    let peers = told(&mut f, "SELECT count(*), min(transport), min(database) FROM bee_peers");
    assert_eq!(peers, "1|tcp|shop");
}

#[test]
fn a_follower_of_a_follower_needs_no_writer() {
    let writer = serving();
    let before = orders(&mut writer.client(), 2000);
    let key = key_of(&writer);
    let middle = Server::follow(
        &key,
        &[
            "--name",
            "shop",
            "--mirror",
            "--peer",
            &peer(writer.peer_port.expect("peers")),
            "--peer-listen",
            "127.0.0.1:0",
        ],
    );
    let mut m = client(&middle, "shop");
    until(
        "a whole copy",
        || ask(&mut m, "SELECT length = held_blocks AND length > 2000 FROM bee_cores WHERE database = 'shop'"),
        "t",
    );
    let sum = told(&mut m, "SELECT sum(amount) FROM orders");
    let history = "SELECT _op, _version, amount FROM bee_history('orders') WHERE id = 7";
    assert_eq!(told(&mut m, history), told(&mut writer.client(), history));
    assert!(writer.stop().success());
    let last = Server::follow(&key, &["--name", "shop", "--peer", &peer(middle.peer_port.expect("peers"))]);
    let mut l = client(&last, "shop");
    until("the same sum", || ask(&mut l, "SELECT sum(amount) FROM orders"), &sum);
    assert_eq!(told(&mut l, &format!("SELECT amount FROM orders AS OF VERSION {before} WHERE id = 7")), "10.50");
    assert_eq!(
        told(&mut l, "SELECT conflict IS NULL, verification_failures FROM bee_cores WHERE database = 'shop'"),
        "t|0"
    );
}

#[test]
fn explain_tells_what_was_fetched() {
    let writer = serving();
    orders(&mut writer.client(), 20_000);
    let link = Link::to(writer.peer_port.expect("it listens for peers"), Duration::from_millis(5));
    let follower = Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(link.port)]);
    let mut f = client(&follower, "shop");
    until("a row", || ask(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    let sql = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM orders WHERE id = 15000";
    let first = told(&mut f, sql);
    assert!(first.contains("Fetched: blocks="), "{first}");
    let again = told(&mut f, sql);
    assert!(!again.contains("Fetched:"), "nothing is fetched twice: {again}");
    assert_eq!(told(&mut f, "SELECT bee_download('orders') > 0"), "t");
    let all = told(&mut f, "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT sum(amount) FROM orders");
    assert!(!all.contains("Fetched:"), "it was downloaded: {all}");
    link.cut();
    assert_eq!(told(&mut f, "SELECT count(*) FROM orders"), "20000");
}

#[test]
fn listeners_hear_of_new_versions() {
    let writer = serving();
    let mut w = writer.client();
    orders(&mut w, 100);
    let follower =
        Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(writer.peer_port.expect("peers"))]);
    let mut f = client(&follower, "shop");
    until("a row", || ask(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    let heard = std::thread::spawn({
        let port = follower.port.to_string();
        move || {
            Command::new("psql")
                .args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "shop", "-p", &port])
                .args(["-c", "LISTEN bee_commit", "-c", "SELECT pg_sleep(3)"])
                .output()
                .expect("psql is installed")
        }
    });
    std::thread::sleep(Duration::from_millis(1000));
    told(&mut w, "UPDATE orders SET amount = 3 WHERE id = 3");
    let version = told(&mut w, "SELECT bee_version()");
    let printed = String::from_utf8_lossy(&heard.join().expect("it ran").stdout).into_owned();
    assert!(printed.contains("\"bee_commit\"") && printed.contains(&format!("\"{version}\"")), "{printed}");
}

#[test]
fn databases_are_followed_by_sql() {
    let writer = serving();
    orders(&mut writer.client(), 500);
    let other = Server::start();
    let mut o = other.client();
    let at = peer(writer.peer_port.expect("peers"));
    let refused = ask(&mut o, "CREATE DATABASE shop WITH bee_key = 'nonsense'").expect_err("no key");
    assert!(refused.starts_with("22023 "), "{refused}");
    told(&mut o, &format!("CREATE DATABASE shop WITH bee_key = '{}' peer = '{at}'", hex_key_of(&writer)));
    let mut f = client(&other, "shop");
    until("a row", || ask(&mut f, "SELECT id FROM orders WHERE id = 7"), "7");
    let refused = ask(&mut o, "DROP DATABASE shop").expect_err("it is in use");
    assert!(refused.starts_with("55006 "), "{refused}");
    drop(f);
    until("gone", || ask(&mut o, "DROP DATABASE shop"), "");
    until("no peer is kept for it", || ask(&mut o, "SELECT count(*) FROM bee_peers"), "0");
}

#[test]
fn an_encrypted_database_is_read_with_its_read_key() {
    let writer = serving();
    let mut w = writer.client();
    told(&mut w, "CREATE DATABASE secret WITH encrypted = true");
    let mut s = client(&writer, "secret");
    orders(&mut s, 300);
    let (key, read_key) = (told(&mut s, "SELECT bee_key('hex')"), told(&mut s, "SELECT bee_read_key()"));
    assert_eq!(read_key.len(), 64);
    let mut js = JavaScript::start();
    js.ask("open", json!({"as": "db", "key": key, "encryptionKey": read_key}));
    js.ask("connect", json!({"port": writer.peer_port}));
    let length = told(&mut s, "SELECT bee_version()").parse::<u64>().expect("a number");
    js.ask("update", json!({"as": "db", "length": length}));
    let all = js.ask("entries", json!({"as": "db"}));
    let rows = count_rows(&all);
    assert!(rows >= 600, "rows and index entries: {rows}");
    // Without the read key there is nothing to be read.
    let mut blind = JavaScript::start();
    blind.ask("open", json!({"as": "db", "key": key}));
    blind.ask("connect", json!({"port": writer.peer_port}));
    blind.ask("update", json!({"as": "db", "length": length}));
    assert!(blind.try_ask("entries", json!({"as": "db"})).get("error").is_some());
}

fn count_rows(answer: &Value) -> usize {
    let entries = answer["entries"].as_array().expect("entries");
    entries.iter().filter(|e| e[1].as_str().is_some_and(|key| key.starts_with("03") || key.starts_with("04"))).count()
}

#[test]
fn javascript_follows_our_server_live() {
    let writer = serving();
    let mut w = writer.client();
    let before = orders(&mut w, 1000);
    let key = hex_key_of(&writer);
    for plain in [false, true] {
        let mut js = JavaScript::start();
        js.ask("open", json!({"as": "db", "key": key, "plain": plain}));
        js.ask("connect", json!({"port": writer.peer_port, "core": plain.then_some("db")}));
        let length: u64 = told(&mut w, "SELECT bee_version()").parse().expect("a number");
        js.ask("update", json!({"as": "db", "length": length}));
        assert_eq!(count_rows(&js.ask("entries", json!({"as": "db"}))), 2000, "plain {plain}");
        let changed = js.ask("diff", json!({"as": "db", "left": length, "right": before}));
        let changed = changed["entries"].as_array().expect("entries").len();
        assert!((1..20).contains(&changed), "{changed} differences");
        let rows =
            js.ask("entries", json!({"as": "db", "range": {"gte": "03", "lt": "04", "limit": 10, "reverse": true}}));
        assert_eq!(rows["entries"].as_array().expect("entries").len(), 10);
        let history = js.ask("history", json!({"as": "db"}));
        assert_eq!(history["entries"].as_array().expect("entries").len() as u64, length - 1, "all but the header");
        told(&mut w, "INSERT INTO orders SELECT max(id) + 1, 'late', 1, now() FROM orders");
        let length: u64 = told(&mut w, "SELECT bee_version()").parse().expect("a number");
        js.ask("update", json!({"as": "db", "length": length}));
        let found = count_rows(&js.ask("entries", json!({"as": "db"})));
        assert!(found > 2000, "{found}");
        let downloaded = js.ask("download", json!({"as": "db", "start": 0, "end": length}));
        assert!(downloaded["seconds"].is_number());
        let info = js.ask("info", json!({"as": "db"}));
        assert_eq!(info["contiguous"], json!(length));
        told(&mut w, "DELETE FROM orders WHERE customer = 'late'");
    }
}

#[test]
fn a_javascript_bee_is_followed_as_a_database_and_as_tables() {
    let mut js = JavaScript::start();
    let key = js.ask("open", json!({"as": "db", "name": "db"}))["key"].as_str().expect("a key").to_owned();
    js.ask("fill", json!({"as": "db", "from": 0, "count": 100_000}));
    js.ask(
        "put",
        json!({"as": "db", "sub": "users/eu", "valueEncoding": "json", "batch": true, "entries": [
        ["anna", {"name": "Anna", "age": 31, "tags": ["a", "b"]}], ["bert", {"name": "Bert"}]]}),
    );
    let at = peer(js.listen(None));
    let server = Server::start();
    let mut o = server.client();
    told(&mut o, &format!("CREATE DATABASE theirs WITH bee_key = '{key}' peer = '{at}'"));
    let mut f = client(&server, "theirs");
    until(
        "an entry",
        || ask(&mut f, "SELECT convert_from(value, 'UTF8')::jsonb ->> 'name' FROM bee WHERE key = 'k0054321'::bytea"),
        "name 54321",
    );
    assert_eq!(told(&mut f, "SELECT count(*) FROM bee"), "100002");
    assert!(server.psql(&["-d", "theirs", "-c", "\\d bee"]).contains("bytea"));

    told(&mut o, &format!("CREATE SERVER s FOREIGN DATA WRAPPER hyperbee OPTIONS (bee_key '{key}', peer '{at}')"));
    told(
        &mut o,
        "CREATE FOREIGN TABLE entries (key text, value jsonb, n int, even boolean) SERVER s OPTIONS (value_encoding 'json')",
    );
    told(
        &mut o,
        "CREATE FOREIGN TABLE eu (key text, name text, age int, tags jsonb) SERVER s OPTIONS (sub 'users/eu', value_encoding 'json')",
    );
    assert_eq!(
        told(&mut o, "SELECT key, name, age, tags FROM eu ORDER BY key"),
        "anna|Anna|31|[\"a\", \"b\"]\nbert|Bert||"
    );
    let range = "SELECT count(*), sum(n), count(*) FILTER (WHERE even) FROM entries WHERE key >= 'k0001000' AND key < 'k0002000'";
    assert_eq!(told(&mut o, range), format!("1000|{}|500", (1000..2000).sum::<u64>()));
    let plan = told(&mut o, &format!("EXPLAIN (COSTS OFF) {range}"));
    assert!(plan.contains("Foreign Scan on entries"), "{plan}");

    let length =
        js.ask("fill", json!({"as": "db", "from": 100_000, "count": 10}))["length"].as_u64().expect("a length");
    until(
        "what was put later",
        || ask(&mut f, "SELECT count(*) FROM bee WHERE key >= 'k0100000'::bytea AND key < 'l'::bytea"),
        "10",
    );
    assert_eq!(told(&mut f, "SELECT length FROM bee_cores WHERE database = 'theirs'"), length.to_string());
}

#[test]
fn a_javascript_peer_relays() {
    let writer = serving();
    orders(&mut writer.client(), 1500);
    let key = hex_key_of(&writer);
    let sum = told(&mut writer.client(), "SELECT sum(amount) FROM orders");
    let length: u64 = told(&mut writer.client(), "SELECT bee_version()").parse().expect("a number");
    let mut js = JavaScript::start();
    js.ask("open", json!({"as": "db", "key": key}));
    js.ask("connect", json!({"port": writer.peer_port}));
    js.ask("update", json!({"as": "db", "length": length}));
    js.ask("download", json!({"as": "db", "start": 0, "end": length}));
    assert!(writer.stop().success());
    let follower = Server::follow(&key, &["--name", "shop", "--peer", &peer(js.listen(None))]);
    let mut f = client(&follower, "shop");
    until("the same sum", || ask(&mut f, "SELECT sum(amount) FROM orders"), &sum);
}

#[test]
fn a_wrong_key_is_refused_by_the_command_line() {
    let folder = tempfile::tempdir().expect("a directory");
    let run = |words: &[&str], data: &Path| {
        Command::new(binary()).args(words).args(["--data"]).arg(data).output().expect("the binary runs")
    };
    for words in [&["follow"][..], &["follow", "nonsense"], &["follow", &"0".repeat(63)], &["follow", "a", "b"]] {
        let output = run(words, &folder.path().join("data"));
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn a_compat_core_goes_through_our_server_to_javascript() {
    let mut js = JavaScript::start();
    let seed = "5b".repeat(32);
    let opened = js.ask("open", json!({"as": "db", "plain": true, "compat": true, "seed": seed}));
    let key = opened["key"].as_str().expect("a key").to_owned();
    let length = js.ask("fill", json!({"as": "db", "from": 0, "count": 3000}))["length"].as_u64().expect("a length");
    let at = peer(js.listen(Some("db")));
    let middle = serving();
    let mut m = middle.client();
    told(&mut m, &format!("CREATE DATABASE theirs WITH bee_key = '{key}' peer = '{at}'"));
    let mut f = client(&middle, "theirs");
    until("all entries", || ask(&mut f, "SELECT count(*) FROM bee"), "3000");
    told(&mut f, "SELECT bee_download()");
    drop(js);

    let mut last = JavaScript::start();
    last.ask("open", json!({"as": "db", "plain": true, "compat": true, "key": key}));
    last.ask("connect", json!({"port": middle.peer_port, "core": "db"}));
    last.ask("update", json!({"as": "db", "length": length}));
    let entries = last.ask("entries", json!({"as": "db"}));
    assert_eq!(entries["entries"].as_array().expect("entries").len(), 3000);
}

#[test]
fn an_encrypted_core_of_javascript_is_relayed_unread() {
    let mut js = JavaScript::start();
    let secret = "c3".repeat(32);
    let opened = js.ask("open", json!({"as": "db", "name": "db", "encryptionKey": secret}));
    let key = opened["key"].as_str().expect("a key").to_owned();
    let length = js.ask("fill", json!({"as": "db", "from": 0, "count": 500}))["length"].as_u64().expect("a length");
    let at = peer(js.listen(None));
    let middle = Server::follow(&key, &["--name", "theirs", "--mirror", "--peer", &at, "--peer-listen", "127.0.0.1:0"]);
    let mut m = middle.client();
    let held = "SELECT held_blocks FROM bee_cores WHERE database = 'theirs'";
    until("the whole log", || ask(&mut m, held), &length.to_string());
    let refused = Client::connect(middle.port, &[("user", "postgres"), ("database", "theirs")]).map(|mut f| {
        ask(&mut f, "SELECT count(*) FROM bee").expect_err("without the read key there is nothing to be read")
    });
    println!("refused: {refused:?}");
    drop(js);
    let mut last = JavaScript::start();
    last.ask("open", json!({"as": "db", "key": key, "encryptionKey": secret}));
    last.ask("connect", json!({"port": middle.peer_port}));
    last.ask("update", json!({"as": "db", "length": length}));
    assert_eq!(last.ask("entries", json!({"as": "db"}))["entries"].as_array().expect("entries").len(), 500);
}

#[test]
fn strangers_cost_no_more_than_their_connection() {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    let writer = serving();
    orders(&mut writer.client(), 1000);
    let port = writer.peer_port.expect("peers");
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let idle: Vec<TcpStream> = (0..50).map(|_| connect()).collect();
    let openings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0xff; 4096],
        &[0, 0, 0, 0, 0, 0],
        &[32, 0, 0],
        &[0xff, 0xff, 0xff, 1, 2, 3],
        &[
            0x20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
            27, 28, 29, 30, 31, 32,
        ],
    ];
    for opening in openings {
        let mut socket = connect();
        socket.write_all(opening).expect("sent");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        let _ = socket.read(&mut [0; 64]);
    }
    // One that speaks a byte at a time.
    let mut slow = connect();
    for byte in [32, 0, 0, 9, 9, 9] {
        slow.write_all(&[byte]).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    let follower = Server::follow(&key_of(&writer), &["--name", "shop", "--peer", &peer(port)]);
    let mut f = client(&follower, "shop");
    until("all rows", || ask(&mut f, "SELECT count(*) FROM orders"), "1000");
    drop((idle, slow));
}
