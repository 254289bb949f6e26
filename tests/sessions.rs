//! Many sessions on one server: who sees what the others do, cancels and ends them, is told by them, and what becomes of those whose client is gone or does not read.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use pgbee_tests::{Client, Server};

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is this one.
fn until(c: &mut Client, sql: &str, wanted: &str) {
    let start = Instant::now();
    loop {
        let found = c.query(sql).text();
        if found == wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{sql}: {found:?} and not {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn sends(c: &mut Client, sql: &str) {
    c.send(b'Q', &[sql.as_bytes(), &[0]].concat()).expect("sent");
}

/// SQLSTATE and severity of the error that ends a connection, and that nothing comes behind it.
fn last_words(c: &mut Client) -> (String, String) {
    let mut told = (String::new(), String::new());
    loop {
        match c.receive() {
            Ok((b'E', body)) => {
                let field = |code: u8| {
                    let found = body.split(|b| *b == 0).find(|f| f.first() == Some(&code));
                    found.map_or(String::new(), |f| String::from_utf8_lossy(&f[1..]).into_owned())
                };
                told = (field(b'S'), field(b'C'));
            }
            Ok((kind, _)) => assert!(told.0.is_empty(), "message {} behind the last word", char::from(kind)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
                return told;
            }
        }
    }
}

fn fatal() -> (String, String) {
    ("FATAL".to_owned(), "57P01".to_owned())
}

#[test]
fn everybody_is_in_pg_stat_activity() {
    let server = Server::start();
    let mut c = server.client();
    let parameters = [("user", "postgres"), ("database", "postgres"), ("application_name", "the other")];
    let mut other = Client::connect(server.port, &parameters).expect("a connection");
    let pid = other.cancel_key.0;
    let state = format!("SELECT state, wait_event_type, wait_event, query FROM pg_stat_activity WHERE pid = {pid}");
    until(&mut c, &state, "idle|Client|ClientRead|");
    let fixed = format!(
        "SELECT datname, usename, application_name, client_addr, client_port > 0, backend_start <= now(), xact_start, backend_xid, backend_type
         FROM pg_stat_activity WHERE pid = {pid}"
    );
    assert_eq!(c.query(&fixed).text(), "postgres|postgres|the other|127.0.0.1|t|t|||client backend");
    other.query("SET application_name = 'changed'; SELECT 'a statement'");
    until(&mut c, &state, "idle|Client|ClientRead|SET application_name = 'changed'; SELECT 'a statement'");
    assert_eq!(c.query(&format!("SELECT application_name FROM pg_stat_activity WHERE pid = {pid}")).text(), "changed");
    sends(&mut other, "SELECT pg_sleep(600)");
    until(&mut c, &state, "active|Timeout|PgSleep|SELECT pg_sleep(600)");
    assert_eq!(c.query(&format!("SELECT pg_cancel_backend({pid})")).text(), "t");
    assert_eq!(other.collect().expect("answered").expect_err("woken").state(), "57014");
    other.query("BEGIN");
    until(&mut c, &state, "idle in transaction|Client|ClientRead|BEGIN");
    let times = format!(
        "SELECT xact_start = query_start, state_change >= query_start, now() >= xact_start FROM pg_stat_activity WHERE pid = {pid}"
    );
    assert_eq!(c.query(&times).text().split('|').nth(2), Some("t"));
    other.fails("SELECT 1/0");
    until(&mut c, &state, "idle in transaction (aborted)|Client|ClientRead|SELECT 1/0");
    other.query("ROLLBACK");
    until(&mut c, &format!("SELECT state, xact_start FROM pg_stat_activity WHERE pid = {pid}"), "idle|");
    // Its own row: the statement it runs, cut to what is shown.
    let own = c.query("SELECT state, wait_event, query FROM pg_stat_activity WHERE pid = pg_backend_pid()").text();
    assert_eq!(own, "active||SELECT state, wait_event, query FROM pg_stat_activity WHERE pid = pg_backend_pid()");
    let long = format!(
        "SELECT length(query), query_start = statement_timestamp() IS NOT NULL FROM pg_stat_activity WHERE pid = pg_backend_pid() --{}",
        "x".repeat(3000)
    );
    assert_eq!(c.query(&long).text(), "1023|t");
    drop(other);
    until(&mut c, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0");
}

#[test]
fn databases_are_counted() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE DATABASE second");
    let mut there =
        Client::connect(server.port, &[("user", "postgres"), ("database", "second")]).expect("a connection");
    let counted =
        "SELECT numbackends, sessions, xact_commit, xact_rollback FROM pg_stat_database WHERE datname = 'second'";
    assert_eq!(c.query(counted).text(), "1|1|0|0");
    there.query("CREATE TABLE t (a int)");
    there.query("BEGIN; INSERT INTO t VALUES (1); ROLLBACK");
    there.fails("SELECT 1/0");
    assert_eq!(c.query(counted).text(), "1|1|1|2");
    assert_eq!(c.query("SELECT datname FROM pg_stat_activity WHERE datname <> 'postgres'").text(), "second");
    let pid = there.cancel_key.0;
    assert_eq!(c.query(&format!("SELECT pg_terminate_backend({pid}, 20000)")).text(), "t");
    let after =
        "SELECT numbackends, sessions, sessions_killed, xact_commit FROM pg_stat_database WHERE datname = 'second'";
    assert_eq!(c.query(after).text(), "0|1|1|1");
    c.query("DROP DATABASE second");
    // A deadlock is counted once, and so is who was given up.
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0), (2, 0)");
    let (mut one, mut two) = (server.client(), server.client());
    one.query("BEGIN; UPDATE t SET b = 1 WHERE a = 1");
    two.query("BEGIN; UPDATE t SET b = 2 WHERE a = 2");
    sends(&mut one, "UPDATE t SET b = 1 WHERE a = 2");
    sends(&mut two, "UPDATE t SET b = 2 WHERE a = 1");
    let states = [&mut one, &mut two]
        .map(|c| c.collect().expect("the connection holds").map_or_else(|e| e.state().to_owned(), |a| a.tag));
    assert!(states.contains(&"40P01".to_owned()) && states.contains(&"UPDATE 1".to_owned()), "{states:?}");
    assert_eq!(c.query("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'").text(), "1");
}

#[test]
fn statements_are_cancelled_from_another_session() {
    let server = Server::start();
    let (mut c, mut victim) = (server.client(), server.client());
    let pid = victim.cancel_key.0;
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0)");
    let mut holder = server.client();
    holder.query("BEGIN; UPDATE t SET b = 1");
    for sql in [
        "SELECT pg_sleep(60)",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
        "UPDATE t SET b = 2",
        "SELECT bee_wait_for(1000000)",
    ] {
        sends(&mut victim, sql);
        until(&mut c, &format!("SELECT query FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'"), sql);
        let start = Instant::now();
        let wait =
            c.query(&format!("SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = {pid}")).text();
        match sql.split(' ').next() {
            Some("UPDATE") => until(
                &mut c,
                &format!("SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = {pid}"),
                "Lock|transactionid",
            ),
            _ => assert!(["Timeout|PgSleep", "|", "IPC|BeeVersion"].contains(&wait.as_str()), "{sql}: {wait}"),
        }
        assert_eq!(c.query(&format!("SELECT pg_cancel_backend({pid})")).text(), "t");
        let error = victim.collect().expect("the connection holds").expect_err(sql);
        assert_eq!((error.state(), error.message()), ("57014", "canceling statement due to user request"));
        assert!(start.elapsed() < PATIENCE, "{sql} took {:?}", start.elapsed());
        // The same from outside, as psql does it at Ctrl-C.
        sends(&mut victim, sql);
        until(&mut c, &format!("SELECT query FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'"), sql);
        Client::cancel(server.port, victim.cancel_key).expect("asked");
        assert_eq!(victim.collect().expect("the connection holds").expect_err(sql).state(), "57014");
    }
    // Who is idle has nothing to be cancelled, neither now nor later.
    assert_eq!(c.query(&format!("SELECT pg_cancel_backend({pid})")).text(), "t");
    assert_eq!(victim.query("SELECT count(*) FROM t").text(), "1");
    assert_eq!(c.fails("SELECT pg_cancel_backend(pg_backend_pid())").state(), "57014");
    assert_eq!(c.query("SELECT pg_cancel_backend(1000000), pg_terminate_backend(1000001)").text(), "f|f");
    assert_eq!(
        c.notices,
        ["PID 1000000 is not a PostgreSQL backend process", "PID 1000001 is not a PostgreSQL backend process"]
    );
    let error = c.fails("SELECT pg_terminate_backend(1, -1)");
    assert_eq!((error.state(), error.message()), ("22003", "\"timeout\" must not be negative"));
}

#[test]
fn sessions_are_ended_whatever_they_do() {
    let server = Server::start();
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0)");
    let mut holder = server.client();
    holder.query("BEGIN; UPDATE t SET b = 1");
    let mut end = |victim: &mut Client| {
        let start = Instant::now();
        assert_eq!(c.query(&format!("SELECT pg_terminate_backend({}, 20000)", victim.cancel_key.0)).text(), "t");
        assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
        let pid = victim.cancel_key.0;
        assert_eq!(c.query(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).text(), "0");
    };
    // Idle, also in a transaction, which is undone.
    let mut idle = server.client();
    idle.query("BEGIN; INSERT INTO t VALUES (2, 2)");
    end(&mut idle);
    assert_eq!(last_words(&mut idle), fatal());
    let mut free = server.client();
    assert_eq!(free.query("SELECT count(*) FROM t").text(), "1");
    free.query("INSERT INTO t VALUES (2, 2)");
    // Running, sleeping, waiting for a lock.
    for sql in [
        "SELECT pg_sleep(60)",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
        "UPDATE t SET b = 2 WHERE a = 1",
    ] {
        let mut busy = server.client();
        sends(&mut busy, sql);
        std::thread::sleep(Duration::from_millis(200));
        end(&mut busy);
        assert_eq!(last_words(&mut busy), fatal(), "{sql}");
    }
    // In the middle of COPY, from and to the server.
    let mut copying = server.client();
    sends(&mut copying, "COPY t FROM STDIN");
    while copying.receive().expect("a message").0 != b'G' {}
    copying.send(b'd', b"7\t7\n").expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    end(&mut copying);
    assert_eq!(last_words(&mut copying), fatal());
    assert_eq!(free.query("SELECT count(*) FROM t WHERE a = 7").text(), "0");
    // A client that reads nothing of what it asked for.
    for sql in [
        "SELECT repeat('x', 1000) FROM generate_series(1, 10000000)",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT",
    ] {
        let mut deaf = server.client();
        let pid = deaf.cancel_key.0;
        sends(&mut deaf, sql);
        until(&mut free, &format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"), "ClientWrite");
        end(&mut deaf);
    }
    // In a failed transaction, and inside of a pipeline.
    let mut failed = server.client();
    failed.query("BEGIN");
    failed.fails("SELECT 1/0");
    end(&mut failed);
    assert_eq!(last_words(&mut failed), fatal());
    let mut pipelining = server.client();
    pipelining.send(b'P', b"\0SELECT 1\0\0\0").expect("sent");
    pipelining.send(b'H', b"").expect("sent");
    assert_eq!(pipelining.receive().expect("ParseComplete").0, b'1');
    end(&mut pipelining);
    assert_eq!(last_words(&mut pipelining), fatal());
    // Oneself.
    let mut own = server.client();
    sends(&mut own, "SELECT pg_terminate_backend(pg_backend_pid())");
    assert_eq!(last_words(&mut own), fatal());
    // Nobody else was touched.
    holder.query("COMMIT");
    assert_eq!(holder.query("SELECT b FROM t WHERE a = 1").text(), "1");
    // All of a database, so that it can be dropped.
    free.query("CREATE DATABASE doomed");
    let mut there =
        Client::connect(server.port, &[("user", "postgres"), ("database", "doomed")]).expect("a connection");
    assert_eq!(free.fails("DROP DATABASE doomed").state(), "55006");
    free.query("DROP DATABASE doomed WITH (FORCE)");
    assert_eq!(last_words(&mut there), fatal());
}

#[test]
fn silence_is_limited() {
    let server = Server::start();
    let told = |settings: &str, block: &str| {
        let mut c = server.client();
        c.query(settings);
        if !block.is_empty() {
            c.query(block);
        }
        let start = Instant::now();
        let words = last_words(&mut c);
        assert!(start.elapsed() < PATIENCE);
        words.1
    };
    assert_eq!(told("SET idle_session_timeout = '200ms'", ""), "57P05");
    assert_eq!(told("SET idle_in_transaction_session_timeout = '200ms'", "BEGIN"), "25P03");
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0)");
    // The locks go with who was silent, and the wait of who wants them is over.
    let mut silent = server.client();
    silent.query("SET idle_in_transaction_session_timeout = '300ms'");
    silent.query("BEGIN; UPDATE t SET b = 1");
    let start = Instant::now();
    c.query("UPDATE t SET b = 2");
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(last_words(&mut silent).1, "25P03");
    // Neither limit is for the other's case, nor for a statement that runs.
    let mut c2 = server.client();
    c2.query("SET idle_session_timeout = '200ms'; SET idle_in_transaction_session_timeout = 0; BEGIN");
    std::thread::sleep(Duration::from_millis(500));
    c2.query("SELECT pg_sleep(0.4)");
    c2.query("SET LOCAL idle_session_timeout = 0; COMMIT; SET idle_session_timeout = 0");
    c2.query("SELECT 1");
}

#[test]
fn statements_and_lock_waits_are_limited_inside_of_transactions() {
    let server = Server::start();
    let (mut c, mut holder) = (server.client(), server.client());
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0)");
    holder.query("BEGIN; UPDATE t SET b = 1");
    c.query("BEGIN; SET LOCAL statement_timeout = '200ms'; SAVEPOINT s");
    let error = c.fails("SELECT pg_sleep(30)");
    assert_eq!((error.state(), error.message()), ("57014", "canceling statement due to statement timeout"));
    c.query("ROLLBACK TO s");
    assert_eq!(c.fails("UPDATE t SET b = 2").state(), "57014");
    c.query("ROLLBACK TO s");
    c.query("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '200ms'");
    let error = c.fails("UPDATE t SET b = 2");
    assert_eq!((error.state(), error.message()), ("55P03", "canceling statement due to lock timeout"));
    // The shorter of the two.
    c.query("ROLLBACK TO s; SET LOCAL statement_timeout = '200ms'; SET LOCAL lock_timeout = '20s'");
    assert_eq!(c.fails("UPDATE t SET b = 2").state(), "57014");
    c.query("ROLLBACK");
    // Each statement of a string has the whole time.
    c.query("SET statement_timeout = '1s'");
    c.query("SELECT pg_sleep(0.6); SELECT pg_sleep(0.6)");
    c.query("SET statement_timeout = 0");
    holder.query("ROLLBACK");
    c.query("UPDATE t SET b = 2");
}

#[test]
fn who_is_gone_waits_no_longer() {
    let server = Server::start();
    let (mut c, mut holder) = (server.client(), server.client());
    c.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0)");
    holder.query("BEGIN; UPDATE t SET b = 1");
    for sql in ["UPDATE t SET b = 2", "SELECT pg_sleep(600)"] {
        let mut gone = server.client();
        let pid = gone.cancel_key.0;
        sends(&mut gone, sql);
        until(&mut c, &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"), "active");
        drop(gone);
        until(&mut c, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0");
    }
    assert_eq!(c.query("SELECT sessions_abandoned FROM pg_stat_database WHERE datname = 'postgres'").text(), "2");
    holder.query("COMMIT");
    assert_eq!(c.query("SELECT b FROM t").text(), "1");
    // Who asked not to be looked for stays.
    let mut stays = server.client();
    let pid = stays.cancel_key.0;
    stays.query("SET client_connection_check_interval = 0");
    sends(&mut stays, "SELECT pg_sleep(600)");
    until(&mut c, &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"), "active");
    drop(stays);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(c.query(&format!("SELECT pg_terminate_backend({pid}, 20000)")).text(), "t");
}

/// The channel and payload of the next notification, before anything else but what ends a query.
fn notification(c: &mut Client) -> (String, String) {
    loop {
        let (kind, body) = c.receive().expect("the connection holds");
        if kind == b'A' {
            let mut texts = body[4..].split(|b| *b == 0).map(|t| String::from_utf8_lossy(t).into_owned());
            return (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        }
    }
}

#[test]
fn notifications_come_in_the_order_of_commits_and_at_once() {
    let server = Server::start();
    let mut listener = server.client();
    listener.query("CREATE TABLE told (n bigserial PRIMARY KEY, who int)");
    listener.query("LISTEN told");
    // Sixteen sessions that commit at the same time.
    let port = server.port;
    let writers: Vec<_> = (0..16)
        .map(|who| {
            std::thread::spawn(move || {
                let mut c =
                    Client::connect(port, &[("user", "postgres"), ("database", "postgres")]).expect("a connection");
                for i in 0..10 {
                    c.query(&format!("BEGIN; INSERT INTO told (who) VALUES ({who}); NOTIFY told, '{who}.{i}'; COMMIT"));
                }
            })
        })
        .collect();
    let told: Vec<String> = (0..160).map(|_| notification(&mut listener).1).collect();
    writers.into_iter().for_each(|w| w.join().expect("it ran"));
    // Of one session, always in its order.
    for who in 0..16 {
        let own: Vec<&String> = told.iter().filter(|t| t.starts_with(&format!("{who}."))).collect();
        assert_eq!(own, (0..10).map(|i| format!("{who}.{i}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    }
    // To who is silent, and to who has just asked something, without delay.
    let mut c = server.client();
    for _ in 0..3 {
        listener.query("SELECT 1");
        let start = Instant::now();
        c.query("NOTIFY told, 'now'");
        assert_eq!(notification(&mut listener).1, "now");
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }
    // To who is in a transaction, after it.
    listener.query("BEGIN");
    c.query("NOTIFY told, 'later'");
    assert_eq!(listener.query("SELECT 2").text(), "2");
    sends(&mut listener, "COMMIT");
    assert_eq!(notification(&mut listener).1, "later");
}

#[test]
fn hundreds_who_wait_for_a_lock_hold_up_nobody() {
    const WAITERS: usize = 300;
    let server = Server::start_with(&["--max-connections", "320"]);
    let mut holder = server.client();
    holder.query("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 0), (2, 0)");
    holder.query("BEGIN; UPDATE t SET b = b + 1 WHERE a = 1");
    let mut waiters: Vec<Client> = (0..WAITERS).map(|_| server.client()).collect();
    for waiter in &mut waiters {
        sends(waiter, "UPDATE t SET b = b + 1 WHERE a = 1");
    }
    let mut c = server.client();
    until(
        &mut c,
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE%'",
        &WAITERS.to_string(),
    );
    // Others, the holder among them, go on as if nothing were; a new one comes in.
    let start = Instant::now();
    for _ in 0..50 {
        holder.query("UPDATE t SET b = b + 1 WHERE a = 2");
        c.query("SELECT b FROM t WHERE a = 2");
    }
    server.client().query("SELECT 1");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // One of the waiters is cancelled, one ended.
    Client::cancel(server.port, waiters[WAITERS / 2].cancel_key).expect("asked");
    assert_eq!(waiters[WAITERS / 2].collect().expect("the connection holds").expect_err("cancelled").state(), "57014");
    let pid = waiters[7].cancel_key.0;
    assert_eq!(c.query(&format!("SELECT pg_terminate_backend({pid}, 20000)")).text(), "t");
    holder.query("COMMIT");
    for (i, waiter) in waiters.iter_mut().enumerate().filter(|(i, _)| *i != 7 && *i != WAITERS / 2) {
        assert_eq!(waiter.collect().expect("the connection holds").expect("updated").tag, "UPDATE 1", "{i}");
    }
    assert_eq!(c.query("SELECT b FROM t ORDER BY a").text(), format!("{}\n50", WAITERS - 1));
}

/// Kilobytes of memory a process has.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("a line of it");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const IDLE: usize = 500;
    let server = Server::start_with(&["--max-connections", "600"]);
    let mut c = server.client();
    c.query("CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) i");
    let run = |client: &mut Client, i: usize| {
        client.query("SET application_name = 'one of many'");
        client.query(&format!("SELECT * FROM t WHERE a = {}", i % 1000 + 1));
        client.query(&format!("UPDATE t SET b = b WHERE a = {}", i % 1000 + 1));
        client.query("SELECT count(*), max(b) FROM t");
    };
    // What the first few bring with them is not the connections'.
    let first: Vec<Client> = (0..50)
        .map(|i| {
            let mut client = server.client();
            run(&mut client, i);
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let before = resident_kib(server.pid());
    let idle: Vec<Client> = (0..IDLE)
        .map(|i| {
            let mut client = server.client();
            run(&mut client, i);
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let each = resident_kib(server.pid()).saturating_sub(before) as f64 / IDLE as f64;
    eprintln!("{each:.1} KiB a connection");
    assert!(each < 100.0, "{each:.1} KiB a connection");
    assert_eq!(
        c.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one of many' AND state = 'idle'")
            .text(),
        (IDLE + first.len()).to_string()
    );
    drop((first, idle));
    until(&mut c, "SELECT count(*) FROM pg_stat_activity", "1");
}
