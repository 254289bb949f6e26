//! Workloads with an invariant: a bank, a queue, raced keys, raced sequences, deadlocks by the hundred.
//!
//! `PGBEE_LOAD=10` makes each ten times as large; `PGBEE_POSTGRES=5432` runs those that PostgreSQL can run on the one at this port.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use pgbee_tests::{Answer, Client, Server, WireError};

fn load(n: usize) -> usize {
    n * std::env::var("PGBEE_LOAD").ok().and_then(|l| l.parse().ok()).unwrap_or(1)
}

/// A server with an empty database: pgbee's own, or a PostgreSQL.
struct Place {
    port: u16,
    database: String,
    _server: Option<Server>,
}

impl Place {
    fn new(database: &str) -> Place {
        let postgres = std::env::var("PGBEE_POSTGRES").ok().map(|port| port.parse().expect("a port"));
        let server = postgres.is_none().then(|| Server::start_with(&["--max-connections", "300"]));
        let port = postgres.or(server.as_ref().map(|s| s.port)).expect("one of the two");
        let mut control =
            Client::connect(port, &[("user", "postgres"), ("database", "postgres")]).expect("a connection");
        let _ = control.try_query(&format!("DROP DATABASE IF EXISTS {database}"));
        control.query(&format!("CREATE DATABASE {database}"));
        Place { port, database: database.to_owned(), _server: server }
    }
    fn client(&self) -> Client {
        let mut client = connect(self.port, &self.database).expect("a connection");
        let _ = client.try_query("SET deadlock_timeout = '10ms'");
        client
    }
    fn is_pgbee(&self) -> bool {
        self._server.is_some()
    }
}

fn connect(port: u16, database: &str) -> std::io::Result<Client> {
    Client::connect(port, &[("user", "postgres"), ("database", database)])
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 8
}

fn asked(client: &mut Client, sql: &str) -> Result<Answer, WireError> {
    client.try_query(sql).expect("the connection holds")
}

/// Statements one after the other, in a block; the first error ends it.
fn block(client: &mut Client, level: &str, statements: &[String]) -> Result<(), WireError> {
    let mut run = || {
        asked(client, &format!("BEGIN ISOLATION LEVEL {level}"))?;
        for statement in statements {
            asked(client, statement)?;
        }
        asked(client, "COMMIT").map(|_| ())
    };
    let result = run();
    if client.status != 'I' {
        client.query("ROLLBACK");
    }
    result
}

/// A barrier that fails when somebody does not come, for then he has failed.
struct Meeting {
    size: usize,
    /// How many are here, and how many meetings there were.
    here: Mutex<(usize, usize)>,
    all: Condvar,
}

impl Meeting {
    fn new(size: usize) -> Meeting {
        Meeting { size, here: Mutex::default(), all: Condvar::new() }
    }
    fn wait(&self) {
        let mut here = self.here.lock().expect("unpoisoned");
        here.0 += 1;
        if here.0 == self.size {
            *here = (0, here.1 + 1);
            self.all.notify_all();
            return;
        }
        let meeting = here.1;
        let (here, waited) =
            self.all.wait_timeout_while(here, Duration::from_secs(60), |h| h.1 == meeting).expect("unpoisoned");
        drop(here);
        assert!(!waited.timed_out(), "not everybody came");
    }
}

/// Counts one who has ended, whichever way.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const ACCOUNTS: u64 = 12;
const SUM: u64 = ACCOUNTS * 1000;

/// Money is moved and never made: not between two reads of a snapshot, not at the end, not at any version.
#[test]
fn a_bank_keeps_its_money_at_every_version() {
    let place = Place::new("bank");
    let mut client = place.client();
    client.query("CREATE TABLE account (id int PRIMARY KEY, balance bigint CHECK (balance >= 0))");
    client.query("CREATE TABLE moved (n bigserial PRIMARY KEY, source int, target int, amount bigint)");
    client.query(&format!("INSERT INTO account SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) i"));
    let (left, done, refused) =
        (AtomicUsize::new(load(400)), AtomicUsize::new(0), Mutex::new(HashMap::<String, usize>::new()));
    let writers_done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for w in 0..6u64 {
            let (place, left, done, refused, writers_done) = (&place, &left, &done, &refused, &writers_done);
            scope.spawn(move || {
                let _counted = Counted(writers_done);
                let (mut client, mut seed) = (place.client(), 0x9e37_79b9 + w * 7_919);
                let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][w as usize % 3];
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let (from, amount) = (1 + random(&mut seed) % ACCOUNTS, 1 + random(&mut seed) % 300);
                    let to = 1 + (from + random(&mut seed) % (ACCOUNTS - 1)) % ACCOUNTS;
                    let mut statements = vec![
                        format!("UPDATE account SET balance = balance - {amount} WHERE id = {from}"),
                        format!("UPDATE account SET balance = balance + {amount} WHERE id = {to}"),
                        format!("INSERT INTO moved (source, target, amount) VALUES ({from}, {to}, {amount})"),
                    ];
                    match random(&mut seed) % 4 {
                        0 => statements.insert(0, format!("SELECT balance FROM account WHERE id IN ({from}, {to}) ORDER BY id FOR UPDATE")),
                        1 => {
                            let both = format!("UPDATE account SET balance = balance + CASE id WHEN {from} THEN -{amount} ELSE {amount} END WHERE id IN ({from}, {to})");
                            statements.splice(0..2, [both]);
                        }
                        _ => {}
                    }
                    loop {
                        match block(&mut client, level, &statements) {
                            Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                let state = error.state().to_owned();
                                assert!(level != "READ COMMITTED" || state != "40001", "40001 at READ COMMITTED: {}", error.message());
                                assert!(["40001", "40P01", "23514"].contains(&state.as_str()), "{state} {}", error.message());
                                *refused.lock().expect("unpoisoned").entry(state.clone()).or_default() += 1;
                                if state != "23514" {
                                    continue;
                                }
                            }
                        }
                        break;
                    }
                }
            });
        }
        let (place, writers_done) = (&place, &writers_done);
        scope.spawn(move || {
            let mut client = place.client();
            while writers_done.load(Ordering::Relaxed) < 6 {
                assert_eq!(
                    client.query("SELECT sum(balance) FROM account").text(),
                    SUM.to_string(),
                    "in one statement"
                );
                client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
                let each: u64 = (1..=ACCOUNTS)
                    .map(|id| {
                        client
                            .query(&format!("SELECT balance FROM account WHERE id = {id}"))
                            .text()
                            .parse::<u64>()
                            .expect("a number")
                    })
                    .sum();
                assert_eq!(each, SUM, "one by one in a snapshot");
                client.query("COMMIT");
            }
        });
    });
    println!("{} transfers, errors {:?}", done.load(Ordering::Relaxed), refused.lock().expect("unpoisoned"));
    assert_eq!(client.query("SELECT sum(balance) FROM account").text(), SUM.to_string());
    assert_eq!(client.query("SELECT count(*) FROM moved").text(), done.load(Ordering::Relaxed).to_string());
    let wrong = "SELECT id FROM account WHERE balance <> 1000 + (SELECT coalesce(sum(amount), 0) FROM moved WHERE target = account.id) \
                 - (SELECT coalesce(sum(amount), 0) FROM moved WHERE source = account.id)";
    assert_eq!(client.query(wrong).text(), "", "an account is not what was moved");
    if place.is_pgbee() {
        let versions = client.query("SELECT version FROM bee_commits ORDER BY version").text();
        let versions: Vec<&str> = versions.lines().skip(3).collect();
        let step = if versions.len() > 2_000 { 100 } else { 10 };
        for version in versions.iter().step_by(step).chain(versions.last()) {
            let then = client.query(&format!("SELECT sum(balance) FROM account AS OF VERSION {version}")).text();
            assert_eq!(then, SUM.to_string(), "at version {version}");
        }
    }
}

/// Every job is done once, by whoever took it; a consumer that rolls back gives its job back.
#[test]
fn consumers_with_skip_locked_share_a_queue() {
    let place = Place::new("queue");
    let mut client = place.client();
    client.query(
        "CREATE TABLE job (id int PRIMARY KEY, state text DEFAULT 'new'); CREATE INDEX job_state ON job (state)",
    );
    client.query("CREATE TABLE done (job int, consumer int)");
    let jobs = load(200);
    client.query(&format!("INSERT INTO job (id) SELECT i FROM generate_series(1, {jobs}) i"));
    std::thread::scope(|scope| {
        for consumer in 0..8u64 {
            let place = &place;
            scope.spawn(move || {
                let (mut client, mut seed) = (place.client(), 77 + consumer * 104_729);
                loop {
                    client.query("BEGIN");
                    let limit = 1 + random(&mut seed) % 3;
                    let taken = if consumer.is_multiple_of(2) {
                        client.query(&format!("SELECT id FROM job WHERE state = 'new' ORDER BY id LIMIT {limit} FOR UPDATE SKIP LOCKED")).text()
                    } else {
                        let one = "(SELECT id FROM job WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)";
                        client.query(&format!("UPDATE job SET state = 'done' WHERE id = {one} RETURNING id")).text()
                    };
                    if taken.is_empty() {
                        client.query("COMMIT");
                        if client.query("SELECT count(*) FROM job WHERE state = 'new'").text() == "0" {
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(2));
                        continue;
                    }
                    for id in taken.lines() {
                        client.query(&format!("UPDATE job SET state = 'done' WHERE id = {id}"));
                        client.query(&format!("INSERT INTO done VALUES ({id}, {consumer})"));
                    }
                    client.query(if random(&mut seed).is_multiple_of(5) { "ROLLBACK" } else { "COMMIT" });
                }
            });
        }
    });
    assert_eq!(client.query("SELECT count(*), count(DISTINCT job) FROM done").text(), format!("{jobs}|{jobs}"));
    assert_eq!(client.query("SELECT count(*) FROM job WHERE state <> 'done'").text(), "0");
    println!("{jobs} jobs by {} consumers", client.query("SELECT count(DISTINCT consumer) FROM done").text());
}

/// Of 32 that insert one key at the same moment one wins, and the others are told so.
#[test]
fn one_of_thirty_two_wins_each_key() {
    const RACERS: usize = 32;
    let place = Place::new("race");
    let mut client = place.client();
    client.query(
        "CREATE TABLE k (id int PRIMARY KEY, by int); CREATE TABLE u (id serial PRIMARY KEY, name text UNIQUE, n int)",
    );
    let (rounds, start) = (load(6), Meeting::new(RACERS));
    let (won, lost) = (Mutex::new(HashMap::<usize, usize>::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for racer in 0..RACERS {
            let (place, start, won, lost) = (&place, &start, &won, &lost);
            scope.spawn(move || {
                let mut client = place.client();
                for round in 0..rounds {
                    start.wait();
                    match asked(&mut client, &format!("INSERT INTO k VALUES ({round}, {racer})")) {
                        Ok(_) => *won.lock().expect("unpoisoned").entry(round).or_default() += 1,
                        Err(error) => {
                            assert_eq!((error.state(), error.field('D')), ("23505", Some(format!("Key (id)=({round}) already exists.").as_str())));
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    start.wait();
                    let tag = client.query(&format!("INSERT INTO u (name, n) VALUES ('nothing {round}', 1) ON CONFLICT DO NOTHING")).tag;
                    assert!(["INSERT 0 1", "INSERT 0 0"].contains(&tag.as_str()), "{tag}");
                    client.query(&format!("INSERT INTO u (name, n) VALUES ('count {round}', 1) ON CONFLICT (name) DO UPDATE SET n = u.n + 1"));
                }
            });
        }
    });
    assert!((0..rounds).all(|round| won.lock().expect("unpoisoned").get(&round) == Some(&1)), "{won:?}");
    assert_eq!(lost.load(Ordering::Relaxed), rounds * (RACERS - 1));
    assert_eq!(
        client.query("SELECT count(*), min(n), max(n) FROM u WHERE name LIKE 'nothing%'").text(),
        format!("{rounds}|1|1")
    );
    assert_eq!(
        client.query("SELECT count(*), min(n), max(n) FROM u WHERE name LIKE 'count%'").text(),
        format!("{rounds}|{RACERS}|{RACERS}")
    );
}

/// No value of a sequence is handed out twice, whether its transaction is rolled back or the server is killed.
#[test]
fn sequences_give_no_value_twice_across_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut server = Server::open(&data, &[]).expect("it starts");
    server.client().query(
        "CREATE SEQUENCE plain; CREATE SEQUENCE cached CACHE 20; CREATE TABLE t (id serial PRIMARY KEY, by int)",
    );
    let (stop, port) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(server.port)));
    let told: Arc<Mutex<HashMap<&str, Vec<i64>>>> = Arc::default();
    let clients: Vec<_> = (0..6u64)
        .map(|c| {
            let (stop, port, told) = (stop.clone(), port.clone(), told.clone());
            std::thread::spawn(move || {
                let mut seed = 31 + c * 7_919;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut client) = connect(port.load(Ordering::Relaxed), "postgres") else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let (name, sql) = match random(&mut seed) % 4 {
                            0 => ("plain", "SELECT nextval('plain')".to_owned()),
                            1 => ("cached", "SELECT nextval('cached')".to_owned()),
                            2 => ("plain", "BEGIN; SELECT nextval('plain'); ROLLBACK".to_owned()),
                            _ => ("t", format!("INSERT INTO t (by) VALUES ({c}) RETURNING id")),
                        };
                        // The value is in the first answer of a string that goes on to roll back.
                        match if sql.starts_with("BEGIN") { rolled_back(&mut client) } else { client.try_query(&sql) } {
                            Ok(Ok(answer)) => {
                                let value =
                                    answer.text().parse().unwrap_or_else(|e| panic!("{sql}: {:?}: {e}", answer.text()));
                                told.lock().expect("unpoisoned").entry(name).or_default().push(value);
                            }
                            Ok(Err(error)) => panic!("{sql}: {} {}", error.state(), error.message()),
                            Err(_) => break,
                        }
                    }
                }
            })
        })
        .collect();
    let mut seed = 5;
    for round in 0..load(8) {
        std::thread::sleep(Duration::from_millis(40 + random(&mut seed) % 260));
        server.kill();
        server = Server::open(&data, &[]).unwrap_or_else(|e| panic!("round {round}: it did not start again: {e}"));
        port.store(server.port, Ordering::Relaxed);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client saw only what it may");
    }
    for (name, values) in told.lock().expect("unpoisoned").iter() {
        let mut met = HashSet::new();
        let twice: Vec<_> = values.iter().filter(|v| !met.insert(**v)).collect();
        assert!(twice.is_empty(), "{name}: {twice:?} of {} values came twice", values.len());
        println!("{name}: {} values, the last is {:?}", values.len(), values.iter().max());
    }
}

/// A value taken in a transaction that is rolled back.
fn rolled_back(client: &mut Client) -> std::io::Result<Result<Answer, WireError>> {
    if let Err(error) = client.try_query("BEGIN")? {
        return Ok(Err(error));
    }
    let answer = client.try_query("SELECT nextval('plain')")?;
    client.try_query("ROLLBACK")?.ok();
    Ok(answer)
}

/// Circles of two to five sessions, many at once: each has one victim, within a second, and the others go on.
#[test]
fn hundreds_of_deadlocks_are_resolved_within_a_second() {
    let place = Place::new("deadlock");
    let mut client = place.client();
    client
        .query("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i");
    let circles: Vec<usize> = vec![2, 2, 2, 2, 3, 3, 4, 5];
    let rounds = load(15);
    let (waits, victims, survivors) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicUsize::new(0));
    let first = |circle: usize| 1 + circle * 10;
    std::thread::scope(|scope| {
        for (c, size) in circles.iter().enumerate() {
            let (start, together) =
                (Arc::new(Meeting::new(*size)), Arc::new(Mutex::new(HashMap::<usize, usize>::new())));
            for member in 0..*size {
                let (place, start, together, waits, victims, survivors) =
                    (&place, start.clone(), together.clone(), &waits, &victims, &survivors);
                scope.spawn(move || {
                    let mut client = place.client();
                    for round in 0..rounds {
                        let (own, next) = (first(c) + member, first(c) + (member + 1) % size);
                        client.query("BEGIN");
                        client.query(&format!("UPDATE t SET n = n + 1 WHERE id = {own}"));
                        start.wait();
                        let began = Instant::now();
                        match asked(&mut client, &format!("UPDATE t SET n = n + 1 WHERE id = {next}")) {
                            Ok(_) => {
                                survivors.fetch_add(1, Ordering::Relaxed);
                                client.query("COMMIT");
                            }
                            Err(error) => {
                                assert_eq!((error.state(), error.message()), ("40P01", "deadlock detected"));
                                let detail = error.field('D').unwrap_or_default();
                                assert_eq!(detail.matches("blocked by process").count(), *size, "{detail}");
                                waits.lock().expect("unpoisoned").push(began.elapsed());
                                victims.fetch_add(1, Ordering::Relaxed);
                                *together.lock().expect("unpoisoned").entry(round).or_default() += 1;
                                client.query("ROLLBACK");
                            }
                        }
                        start.wait();
                        // Two may look at the same moment and both give way; nobody would be wrong. None giving way would.
                        assert!(
                            together.lock().expect("unpoisoned").get(&round).is_some_and(|n| *n >= 1),
                            "a circle without a victim"
                        );
                    }
                });
            }
        }
    });
    let (victims, survivors) = (victims.load(Ordering::Relaxed), survivors.load(Ordering::Relaxed));
    let mut waits = waits.into_inner().expect("unpoisoned");
    waits.sort_unstable();
    let (middle, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{victims} victims of {} deadlocks, waits of {middle:?}, the longest {longest:?}", rounds * circles.len());
    // A busy machine may hold up one of them, not all.
    assert!(middle < Duration::from_secs(1) && longest < Duration::from_secs(20), "{middle:?}, {longest:?}");
    assert_eq!(client.query("SELECT sum(n) FROM t").text(), (2 * survivors).to_string());
    assert_eq!(victims + survivors, rounds * circles.iter().sum::<usize>());
    assert_eq!(victims, rounds * circles.len(), "more than one session of a circle gave way");
}
