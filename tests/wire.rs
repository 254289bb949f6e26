//! What clients send, well-formed and not, and what they must see: the protocols, cancellation, limits, passwords, psql's own commands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgbee_tests::{Client, Server, binary};

fn works(server: &Server) {
    assert_eq!(server.client().query("SELECT 1 + 1").text(), "2");
}

#[test]
fn a_simple_string_is_one_transaction() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY)");
    assert_eq!(c.fails("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").state(), "23505");
    assert_eq!(c.query("SELECT count(*) FROM t").text(), "0");
    assert_eq!(c.query("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); SELECT count(*) FROM t").text(), "2");
    assert_eq!(c.status, 'I');
    c.query("BEGIN");
    assert_eq!(c.status, 'T');
    let error = c.fails("SELECT 1/0");
    assert_eq!((error.state(), error.field('S')), ("22012", Some("ERROR")));
    assert_eq!(c.status, 'E');
    assert_eq!(c.fails("SELECT 1").state(), "25P02");
    c.query("ROLLBACK");
    assert_eq!((c.query("").tag.as_str(), c.status), ("", 'I'));
}

#[test]
fn errors_carry_position_detail_and_constraint() {
    let server = Server::start();
    let mut c = server.client();
    assert_eq!(c.fails("SELECT nosuch FROM pg_catalog.pg_class").field('P'), Some("8"));
    assert_eq!(c.fails("SELEC 1").state(), "42601");
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL CHECK (b > 0))");
    c.query("INSERT INTO t VALUES (1, 1)");
    let error = c.fails("INSERT INTO t VALUES (1, 1)");
    assert_eq!(
        (error.state(), error.field('n'), error.field('t'), error.field('D')),
        ("23505", Some("t_pkey"), Some("t"), Some("Key (a)=(1) already exists."))
    );
    let error = c.fails("INSERT INTO t VALUES (2, NULL)");
    assert_eq!(
        (error.state(), error.field('c'), error.field('D')),
        ("23502", Some("b"), Some("Failing row contains (2, null)."))
    );
    assert_eq!(c.fails("INSERT INTO t VALUES (2, 0)").field('n'), Some("t_b_check"));
}

#[test]
fn encryption_requests_are_declined_in_any_order() {
    let server = Server::start();
    for codes in [vec![80_877_103u32], vec![80_877_104], vec![80_877_104, 80_877_103], vec![80_877_103, 80_877_104]] {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a socket");
        for code in codes {
            socket.write_all(&[&8u32.to_be_bytes()[..], &code.to_be_bytes()[..]].concat()).expect("written");
            let mut answer = [0];
            socket.read_exact(&mut answer).expect("one byte");
            assert_eq!(answer, *b"N");
        }
    }
    works(&server);
}

#[test]
fn a_running_statement_can_be_cancelled_and_times_out() {
    let server = Server::start();
    let mut c = server.client();
    let (pid, secret) = c.cancel_key;
    let port = server.port;
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("a socket");
        let packet: Vec<u8> = [16i32, 80_877_102, pid, secret].iter().flat_map(|w| w.to_be_bytes()).collect();
        socket.write_all(&packet).expect("written");
    });
    let started = Instant::now();
    assert_eq!(
        c.fails("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b").state(),
        "57014"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    canceller.join().expect("it ran");
    c.query("SET statement_timeout = 200");
    let error = c.fails("SELECT pg_sleep(30)");
    assert_eq!((error.state(), error.message()), ("57014", "canceling statement due to statement timeout"));
    c.query("SET statement_timeout = 0");
    assert_eq!(c.query("SELECT 5").text(), "5");
}

#[test]
fn more_clients_than_places_are_refused() {
    let server = Server::start_with(&["--max-connections", "3"]);
    let held: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let refused = Client::connect(server.port, &[("user", "postgres")]).err().expect("there is no place");
    assert!(refused.to_string().contains("53300"), "{refused}");
    drop(held);
    for _ in 0..100 {
        if Client::connect(server.port, &[("user", "postgres")]).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("a place did not become free");
}

/// A server whose superuser has had this password from before its first start.
fn with_password(directory: &Path, secret: &str) -> Server {
    let data = directory.join("data");
    let mut set = Command::new(binary())
        .args(["password", "postgres", "--data"])
        .arg(&data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    set.stdin.take().expect("piped").write_all(format!("{secret}\n").as_bytes()).expect("written");
    assert!(set.wait().expect("it ends").success());
    Server::open(&data, &[]).expect("it starts")
}

#[test]
fn passwords_are_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let again = with_password(directory.path(), "right");
    let login = |password: &str| {
        let output = Command::new("psql")
            .args([
                "-X",
                "-At",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-p",
                &again.port.to_string(),
                "-c",
                "SELECT 7",
                "postgres",
            ])
            .env("PGPASSWORD", password)
            .output()
            .expect("psql is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned() + String::from_utf8_lossy(&output.stderr).trim()
    };
    assert_eq!(login("right"), "7");
    let wrong = login("wrong");
    assert!(wrong.contains("password authentication failed for user \"postgres\""), "{wrong}");
    assert!(Client::connect(again.port, &[("user", "postgres")]).is_err());
    let nobody = Client::connect(again.port, &[("user", "nobody")]).err().expect("no such role");
    assert!(nobody.to_string().contains("28000"), "{nobody}");
}

/// xorshift64: the same bytes every run.
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut s = seed | 1;
    (0..length)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 24) as u8
        })
        .collect()
}

#[test]
fn senseless_bytes_cost_only_their_connection() {
    let server = Server::start();
    for seed in 0..60u64 {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let _ = socket.write_all(&random_bytes(seed * 7919 + 1, 300));
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let _ = socket.read_to_end(&mut Vec::new());
    }
    // HTTP, and a session that turns to noise.
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a socket");
    let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let _ = socket.read_to_end(&mut Vec::new());
    for seed in 0..60u64 {
        let mut c = server.client();
        let noise = random_bytes(seed + 1000, 40);
        let kind = b"QPBDECHSXFdcfp"[seed as usize % 14];
        let _ = c.send(kind, &noise);
        let _ = c.send(b'S', &[]);
        let _ = c.send(b'X', &[]);
        while c.receive().is_ok() {}
    }
    works(&server);
}

#[test]
fn an_oversized_message_is_refused_without_being_read() {
    let server = Server::start_with(&["--max-message-mb", "1"]);
    let mut c = server.client();
    c.send_raw(&[b'Q', 0x3f, 0xff, 0xff, 0xff]).expect("written");
    let (kind, body) = c.receive().expect("an answer");
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("08P01"));
    assert!(c.receive().is_err(), "the connection is closed");
    works(&server);
}

#[test]
fn long_and_deep_statements_are_answered() {
    let server = Server::start();
    let mut c = server.client();
    let long = format!("SELECT length('{}')", "x".repeat(1 << 20));
    assert_eq!(c.query(&long).text(), "1048576");
    let list = (0..100_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(c.query(&format!("SELECT 99999 IN ({list})")).text(), "t");
    for depth in [100, 2_000, 50_000, 500_000] {
        let sql = format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
        match c.try_query(&sql).expect("the connection holds") {
            Ok(answer) => assert_eq!(answer.text(), "1"),
            Err(error) => assert_eq!(error.state(), "54001", "{}", error.message()),
        }
        let sql = format!("SELECT 1{}", "+1".repeat(depth));
        match c.try_query(&sql).expect("the connection holds") {
            Ok(answer) => assert_eq!(answer.text(), (depth + 1).to_string()),
            Err(error) => assert_eq!(error.state(), "54001", "{}", error.message()),
        }
        let sql = format!("SELECT {}1", "NOT ".repeat(depth));
        let _ = c.try_query(&sql).expect("the connection holds");
        let sql = format!("{}SELECT 1{}", "SELECT * FROM (".repeat(depth.min(50_000)), ") q".repeat(depth.min(50_000)));
        let _ = c.try_query(&sql).expect("the connection holds");
    }
    works(&server);
}

/// A message of the extended protocol: its kind, then its body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The kinds of the answers up to one of kind `last`.
fn kinds_up_to(c: &mut Client, last: u8) -> String {
    let mut kinds = String::new();
    loop {
        let (kind, _) = c.receive().expect("an answer");
        kinds.push(kind as char);
        if kind == last {
            return kinds;
        }
    }
}

#[test]
fn an_error_is_told_to_who_waits_by_flush() {
    let server = Server::start();
    let mut c = server.client();
    c.send_raw(&[message(b'P', b"\0SELECT nosuch\0\0\0"), message(b'D', b"S\0"), message(b'H', b"")].concat())
        .expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'E'), "E");
    c.send(b'S', b"").expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "Z");
}

#[test]
fn a_garbled_statement_fails_and_nothing_runs_in_its_place() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE TABLE t (a int)");
    let run = [message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let parse = message(b'P', b"\0INSERT INTO t VALUES (1)\0\0\0");
    c.send_raw(&[parse.clone(), run.clone()].concat()).expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "12CZ");
    c.send_raw(&[message(b'P', b"\0SELECT '\xff'\0\0\0"), run.clone()].concat()).expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "EZ");
    assert_eq!(c.query("SELECT count(*) FROM t").text(), "1");
    // So is what we do not speak: the function call protocol, a description of neither statement nor portal.
    c.send(b'F', &[0; 12]).expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "EZ");
    c.send_raw(&[message(b'D', b"X\0"), message(b'S', b"")].concat()).expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "EZ");
    // A block is failed by it, whichever protocol it came by.
    c.query("BEGIN; INSERT INTO t VALUES (2)");
    c.send(b'Q', b"SELECT '\xff'\0").expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "EZ");
    c.query("COMMIT");
    assert_eq!(c.query("SELECT count(*) FROM t").text(), "1");
}

#[test]
fn answers_do_not_pile_up_for_who_never_reads() {
    let server = Server::start();
    let columns = (0..1600).map(|i| format!("column_{i} int")).collect::<Vec<_>>().join(", ");
    server.client().query(&format!("CREATE TABLE wide ({columns})"));
    let mut c = server.client();
    c.send_raw(&message(b'P', b"w\0SELECT * FROM wide\0\0\0")).expect("sent");
    // Each asks for some 60 KB, and no Sync asks for any to be sent.
    let describe = message(b'D', b"Sw\0").repeat(1000);
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
        let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("its peak").to_owned();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("kilobytes")
    };
    let before = resident(server.pid());
    let mut socket = c.into_socket();
    socket.set_write_timeout(Some(Duration::from_secs(2))).expect("set");
    for _ in 0..20 {
        if socket.write_all(&describe).is_err() {
            break;
        }
    }
    let grown = resident(server.pid()) - before;
    assert!(grown < 200 << 10, "{grown} KiB more");
    works(&server);
}

#[test]
fn who_has_not_authenticated_may_say_little() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = with_password(directory.path(), "secret");
    let body = b"\0\x03\0\0user\0postgres\0\0";
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    socket.write_all(&(body.len() as u32 + 4).to_be_bytes()).expect("sent");
    socket.write_all(body).expect("sent");
    // A password message of 16 MB is announced: refused before it comes.
    socket.write_all(&[b'p', 1, 0, 0, 0]).expect("sent");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("08P01"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_data_directory_has_one_server_and_one_format() {
    let server = Server::start();
    let second = Server::open(&server.data, &[]).err().expect("the directory is taken");
    assert!(second.contains("is in use by process"), "{second}");
    works(&server);
    let directory = tempfile::tempdir().expect("a directory");
    let moved = directory.path().join("data");
    let mut server = server;
    server.kill();
    std::fs::rename(&server.data, &moved).expect("moved");
    // Data of another version is left alone.
    let format = moved.join("store").join("FORMAT");
    let ours = std::fs::read(&format).expect("a format");
    std::fs::write(&format, "pgbee 99\n").expect("written");
    let refused = Server::open(&moved, &[]).err().expect("it is too new");
    assert!(refused.contains("99"), "{refused}");
    std::fs::write(&format, ours).expect("written");
    works(&Server::open(&moved, &[]).expect("it starts"));
    // So is a directory that holds something else, even a folder of that name.
    let strange = directory.path().join("strange");
    std::fs::create_dir_all(strange.join("store")).expect("made");
    std::fs::write(strange.join("store").join("letters.txt"), "dear").expect("written");
    let refused = Server::open(&strange, &[]).err().expect("it is not ours");
    assert!(refused.contains("holds no pgbee data"), "{refused}");
    let entries = std::fs::read_dir(strange.join("store")).expect("read").count();
    assert_eq!(entries, 1, "nothing was put there");
}

#[test]
fn each_row_of_a_copy_is_a_message() {
    let server = Server::start();
    let mut c = server.client();
    c.send(b'Q', b"COPY (SELECT g FROM generate_series(1, 3) g) TO STDOUT (FORMAT csv, HEADER)\0").expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "HddddcCZ");
    c.send(b'Q', b"COPY (SELECT g FROM generate_series(1, 3) g) TO STDOUT (FORMAT binary)\0").expect("sent");
    assert_eq!(kinds_up_to(&mut c, b'Z'), "HddddcCZ");
}

#[test]
fn a_store_that_lost_its_passwords_lets_nobody_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = with_password(directory.path(), "secret");
    server.kill();
    std::fs::remove_file(server.data.join("instance.json")).expect("removed");
    let refused = Server::open(&server.data, &[]).err().expect("who may come in?");
    assert!(refused.contains("instance.json"), "{refused}");
}

#[test]
fn who_sleeps_in_a_transaction_is_woken() {
    let server = Server::start();
    let mut c = server.client();
    c.query("SET idle_in_transaction_session_timeout = 200; SET idle_session_timeout = 100000");
    c.query("BEGIN");
    let (kind, body) = c.receive().expect("a farewell");
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("25P03"));
    works(&server);
}

/// Channel and payload of the next message, which must be a notification.
fn notification(c: &mut Client) -> (String, String) {
    let (kind, body) = c.receive().expect("a message");
    assert_eq!(char::from(kind), 'A');
    let words: Vec<String> = body[4..].split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    (words[0].clone(), words[1].clone())
}

#[test]
fn idle_clients_are_told_what_channels_say_and_busy_ones_later() {
    let server = Server::start();
    let (mut idle, mut other) = (server.client(), server.client());
    idle.query("LISTEN bee_commit");
    other.query("CREATE TABLE t (a int)");
    let version = other.query("SELECT bee_version()").text();
    assert_eq!(notification(&mut idle), ("bee_commit".into(), version));
    idle.query("UNLISTEN *");
    idle.query("LISTEN jobs");
    other.query("BEGIN");
    other.query("NOTIFY jobs, 'first'");
    other.query("SELECT pg_notify('jobs', 'second')");
    other.query("COMMIT");
    assert_eq!(notification(&mut idle), ("jobs".into(), "first".into()));
    assert_eq!(notification(&mut idle), ("jobs".into(), "second".into()));
    // Inside of a block it waits for the end of it.
    idle.query("BEGIN");
    other.query("NOTIFY jobs, 'third'");
    assert_eq!(idle.query("SELECT 1").text(), "1");
    idle.send(b'Q', b"COMMIT\0").expect("a socket");
    let mut kinds = Vec::new();
    loop {
        let (kind, _) = idle.receive().expect("a message");
        kinds.push(char::from(kind));
        if kind == b'Z' {
            break;
        }
    }
    assert_eq!(kinds, ['C', 'A', 'Z']);
}

#[test]
fn stopping_is_graceful() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY)");
    for i in 0..20 {
        c.query(&format!("INSERT INTO t VALUES ({i})"));
    }
    let data = server.data.clone();
    // Kept by hand: dropping the server would remove the directory.
    let keep = tempfile::tempdir().expect("a directory");
    let moved = keep.path().join("data");
    let mut server = server;
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let (kind, body) = c.receive().expect("a farewell");
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("57P01"));
    assert!(server.wait(Duration::from_secs(10)).expect("it ends").success());
    std::fs::rename(&data, &moved).expect("moved");
    let again = Server::open(&moved, &[]).expect("it starts");
    assert_eq!(again.client().query("SELECT count(*), sum(a) FROM t").text(), "20|190");
}

#[test]
fn the_extended_protocol_speaks_binary_portals_and_pipelines() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", server.port);
        let (mut client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz, score float8, ok bool, big int8, raw bytea)").await.expect("made");
        let insert = client.prepare("INSERT INTO t VALUES ($1, $2, now(), $3, $4, $5, $6)").await.expect("prepared");
        for i in 0..50i32 {
            let name = format!("name {i}");
            let changed = client.execute(&insert, &[&i, &name, &(f64::from(i) / 3.0), &(i % 2 == 0), &(i64::from(i) << 40), &vec![i as u8; 3]]).await.expect("inserted");
            assert_eq!(changed, 1);
        }
        let select = client.prepare("SELECT name, score, ok, big, raw FROM t WHERE id = $1").await.expect("prepared");
        let row = client.query_one(&select, &[&7i32]).await.expect("a row");
        assert_eq!((row.get::<_, String>(0), row.get::<_, f64>(1), row.get::<_, bool>(2), row.get::<_, i64>(3), row.get::<_, Vec<u8>>(4)), ("name 7".to_owned(), 7.0 / 3.0, false, 7 << 40, vec![7; 3]));
        // A portal with a row limit inside a transaction.
        let transaction = client.transaction().await.expect("begun");
        let portal = transaction.bind("SELECT id FROM t ORDER BY id", &[]).await.expect("bound");
        let first = transaction.query_portal(&portal, 20).await.expect("rows");
        let second = transaction.query_portal(&portal, 20).await.expect("rows");
        let third = transaction.query_portal(&portal, 20).await.expect("rows");
        assert_eq!((first.len(), second.len(), third.len(), second[0].get::<_, i32>(0)), (20, 20, 10, 20));
        transaction.rollback().await.expect("rolled back");
        // Many statements in flight on one connection.
        let all = (0..50i32).map(|i| { let client = &client; let select = &select; async move { client.query_one(select, &[&i]).await.map(|r| r.get::<_, String>(0)) } });
        let mut names = Vec::new();
        for future in all.collect::<Vec<_>>() {
            names.push(future.await.expect("a row"));
        }
        assert_eq!(names[49], "name 49");
        let error = client.query_one("SELECT 1/($1::int)", &[&0i32]).await.expect_err("division by zero");
        assert_eq!(error.code().map(|c| c.code().to_owned()).as_deref(), Some("22012"));
        assert_eq!(client.query_one("SELECT 1", &[]).await.expect("it goes on").get::<_, i32>(0), 1);
        let types = client.prepare("SELECT $1 + 1, upper($2), $3::numeric").await.expect("typed");
        assert_eq!(types.params().iter().map(|t| t.name().to_owned()).collect::<Vec<_>>(), ["int4", "text", "numeric"]);
    });
}

#[test]
fn copy_reads_any_split_and_undoes_a_bad_row() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY, b text, c numeric(8,2))");
    let data: String = (0..1000).map(|i| format!("{i}\trow \\t {i}\t{}.50\n", i)).collect();
    for (piece, from) in [(1, 0), (7, 1000), (65536, 2000)] {
        let shifted: String = data
            .lines()
            .map(|l| {
                let (n, rest) = l.split_once('\t').expect("a tab");
                format!("{}\t{rest}\n", n.parse::<i32>().expect("a number") + from)
            })
            .collect();
        let answer =
            c.copy_in("COPY t FROM STDIN", shifted.as_bytes(), piece).expect("the connection holds").expect("copied");
        assert_eq!(answer.tag, "COPY 1000");
    }
    assert_eq!(c.query("SELECT count(*), sum(c), max(b) FROM t").text(), "3000|1500000.00|row \t 999");
    let error = c
        .copy_in("COPY t FROM STDIN (FORMAT csv)", b"5000,x,1\n5001,y,oops\n", 5)
        .expect("holds")
        .expect_err("a bad number");
    assert_eq!(error.state(), "22P02");
    assert_eq!(c.query("SELECT count(*) FROM t WHERE a >= 5000").text(), "0");
    assert_eq!(
        c.query("COPY (SELECT a, b FROM t WHERE a < 2 ORDER BY a) TO STDOUT (FORMAT csv, HEADER)").text(),
        "a,b\n0,row \t 0\n1,row \t 1"
    );
}

#[test]
fn psql_describes_our_objects() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE SCHEMA shop; CREATE TABLE shop.item (id serial PRIMARY KEY, name varchar(20) NOT NULL DEFAULT 'x', price numeric(10,2) CHECK (price > 0), UNIQUE (name)); CREATE INDEX item_price ON shop.item (price DESC); CREATE VIEW cheap AS SELECT id, name FROM shop.item WHERE price < 10; COMMENT ON TABLE shop.item IS 'what we sell'");
    let described = server.psql(&["-c", "\\d shop.item"]);
    for part in [
        "Table \"shop.item\"",
        "nextval('shop.item_id_seq'::regclass)",
        "character varying(20)",
        "numeric(10,2)",
        "not null",
        "\"item_pkey\" PRIMARY KEY, btree (id)",
        "\"item_name_key\" UNIQUE CONSTRAINT, btree (name)",
        "\"item_price\" btree (price DESC)",
        "\"item_price_check\" CHECK (",
    ] {
        assert!(described.contains(part), "{part} is missing from:\n{described}");
    }
    let all = server.psql(&["-c", "\\d"]);
    assert!(all.contains("cheap") && all.contains("view"), "{all}");
    for (command, part) in [
        ("\\dt shop.*", "item"),
        ("\\di shop.*", "item_price"),
        ("\\dv", "cheap"),
        ("\\dn", "shop"),
        ("\\l", "postgres"),
        ("\\df bee_key", "bee_key"),
        ("\\ds shop.*", "item_id_seq"),
        ("\\d cheap", "View \"public.cheap\""),
        ("\\d shop.item_id_seq", "Sequence \"shop.item_id_seq\""),
        ("\\d shop.item_price", "Index \"shop.item_price\""),
    ] {
        let printed = server.psql(&["-c", command]);
        assert!(printed.contains(part) && !printed.contains("ERROR"), "{command} printed:\n{printed}");
    }
}

/// What psql's \password sends for the password "new"; made by a PostgreSQL 15.
const VERIFIER_OF_NEW: &str = "SCRAM-SHA-256$4096:rEMsa1HQncoK07c/15l7FQ==$QGFNU4UBaUw+RJcbVhSTNZAr8IOj5hadSuRh7Y4QERk=:+pFxOuaplY3Gka82WP6389LEWJzCkpnOvGOJjSzo2Ms=";

#[test]
fn a_password_can_be_set_from_psql() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = with_password(directory.path(), "old");
    let psql = |password: &str, words: &[&str]| {
        let output = Command::new("psql")
            .args(["-X", "-At", "-h", "127.0.0.1", "-U", "postgres", "-p", &server.port.to_string()])
            .args(words)
            .arg("postgres")
            .env("PGPASSWORD", password)
            .output()
            .expect("psql is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned() + String::from_utf8_lossy(&output.stderr).trim()
    };
    let plain = psql("old", &["-c", "ALTER ROLE postgres PASSWORD 'new'"]);
    assert!(plain.contains("hashed by the client"), "{plain}");
    assert_eq!(psql("old", &["-c", &format!("ALTER USER postgres PASSWORD '{VERIFIER_OF_NEW}'")]), "ALTER ROLE");
    assert!(psql("old", &["-c", "SELECT 1"]).contains("password authentication failed"));
    assert_eq!(psql("new", &["-c", "SELECT 1"]), "1");
}
