//! Histories: random transactions of several clients at each level, checked for the anomalies the level excludes; the same under SIGKILL.
//!
//! `histories/run.rs` runs and records them, `histories/check.rs` says which anomalies a record shows; the checker itself is tested with a history made by hand for
//! every anomaly. `PGBEE_TXNS=50000` sets the transactions of each run (a small number otherwise), `PGBEE_POSTGRES=5432` runs on the PostgreSQL at this port,
//! `PGBEE_SEED=7` seeds the clients, `PGBEE_LEVEL=SERIALIZABLE` picks a level.

#[path = "histories/check.rs"]
mod check;
#[path = "histories/run.rs"]
mod run;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use check::{Anomaly, End, Final, Key, Op, Txn, Value, Verdict, allowed, check};
use pgbee_tests::{Client, Server};
use run::{Random, Run, SCHEMA, last};

const CLIENTS: u64 = 8;
const LEVELS: [&str; 4] = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn levels() -> Vec<&'static str> {
    let wanted = std::env::var("PGBEE_LEVEL").unwrap_or_default();
    LEVELS.into_iter().filter(|l| l.contains(&wanted)).collect()
}

/// A connection to a database made for this run.
fn fresh(port: u16, name: &str) -> Client {
    let connect =
        |database: &str| Client::connect(port, &[("user", "postgres"), ("database", database)]).expect("a connection");
    let mut control = connect("postgres");
    let _ = control.try_query(&format!("DROP DATABASE IF EXISTS {name}"));
    control.query(&format!("CREATE DATABASE {name}"));
    let mut client = connect(name);
    for statement in SCHEMA.split("; ") {
        client.query(statement);
    }
    client
}

/// Judges a run; what is wrong with it.
fn judged(run: &Run, client: &mut Client, began: Instant) -> Vec<String> {
    let last = last(client);
    let txns = std::mem::take(&mut *run.txns.lock().expect("unpoisoned"));
    let ran = began.elapsed();
    let verdict: Verdict = check(&txns, &last);
    let of = |end: End| txns.iter().filter(|t| t.end == end).count();
    println!(
        "{}: {} transactions in {:.1} s ({} committed, {} rolled back, {} unknown), {} edges, checked in {:.1} s; errors {:?}; found {:?}",
        run.level,
        txns.len(),
        ran.as_secs_f32(),
        verdict.committed,
        of(End::Aborted),
        of(End::Unknown),
        verdict.edges,
        (began.elapsed() - ran).as_secs_f32(),
        run.errors.lock().expect("unpoisoned"),
        verdict.counts
    );
    let mut unexpected = run.unexpected.lock().expect("unpoisoned").clone();
    unexpected.sort();
    let mut wrong: Vec<String> =
        unexpected.iter().step_by(1 + unexpected.len() / 8).map(|e| format!("{}: {e}", run.level)).collect();
    for anomaly in verdict.forbidden(&run.level) {
        let kind = format!("{anomaly:?}:");
        let witnesses = verdict.witnesses.iter().filter(|w| w.starts_with(&kind));
        wrong.push(format!(
            "{} shows {anomaly:?} {} times\n  {}",
            run.level,
            verdict.counts[&anomaly],
            witnesses.cloned().collect::<Vec<_>>().join("\n  ")
        ));
    }
    if verdict.committed * 4 < txns.len() {
        wrong.push(format!("{}: only {} of {} transactions committed", run.level, verdict.committed, txns.len()));
    }
    wrong
}

#[test]
fn each_level_shows_only_what_it_allows() {
    let postgres: Option<u16> = std::env::var("PGBEE_POSTGRES").ok().map(|port| port.parse().expect("a port"));
    let server = postgres.is_none().then(Server::start);
    let port = postgres.or(server.as_ref().map(|s| s.port)).expect("one of the two");
    let (wanted, seed) = (setting("PGBEE_TXNS", 2_000), setting("PGBEE_SEED", 1));
    let mut wrong = Vec::new();
    for (n, level) in levels().into_iter().enumerate() {
        let database = format!("history{n}");
        let mut client = fresh(port, &database);
        let (run, began) = (Run::new(level, wanted, port), Instant::now());
        std::thread::scope(|scope| {
            for c in 0..CLIENTS {
                let (run, database) = (&run, &database);
                scope.spawn(move || run.client(database, seed * 1_000 + c * 7_919 + 1));
            }
        });
        wrong.extend(judged(&run, &mut client, began));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn killed_at_random_moments_they_show_no_more() {
    let (wanted, seed) = (setting("PGBEE_TXNS", 1_200), setting("PGBEE_SEED", 1));
    let mut wrong = Vec::new();
    // READ UNCOMMITTED is READ COMMITTED.
    for level in levels().into_iter().filter(|l| *l != "READ UNCOMMITTED") {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        let mut server = Server::open(&data, &[]).expect("it starts");
        drop(fresh(server.port, "history"));
        let (run, began, mut random) = (Run::new(level, wanted, server.port), Instant::now(), Random(seed + 77));
        let (mut kills, mut broken) = (0, None);
        std::thread::scope(|scope| {
            for c in 0..CLIENTS {
                let run = &run;
                scope.spawn(move || run.client("history", seed * 1_000 + c * 104_729 + 3));
            }
            while run.started() < wanted && broken.is_none() {
                std::thread::sleep(Duration::from_millis(50 + random.below(700)));
                server.kill();
                kills += 1;
                match Server::open(&data, &[]) {
                    Ok(again) => {
                        run.port.store(again.port, Ordering::Relaxed);
                        server = again;
                    }
                    Err(error) => broken = Some(error),
                }
            }
            if broken.is_some() {
                run.stop.store(true, Ordering::Relaxed);
            }
        });
        println!("{level}: {kills} kills");
        match broken {
            Some(error) => wrong.push(format!("{level}: after kill {kills} it did not start: {error}")),
            None => {
                let mut client = Client::connect(server.port, &[("user", "postgres"), ("database", "history")])
                    .expect("a connection");
                wrong.extend(judged(&run, &mut client, began));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// The checker, on histories made by hand.

fn done(ops: &[Op]) -> Txn {
    Txn { ops: ops.to_vec(), end: End::Committed, began: 0, ended: u64::MAX }
}
fn ended(end: End, ops: &[Op]) -> Txn {
    Txn { end, ..done(ops) }
}
fn at(began: u64, ended: u64, ops: &[Op]) -> Txn {
    Txn { began, ended, ..done(ops) }
}
fn saw(key: Key, list: &[Value]) -> Op {
    Op::ReadList(key, list.to_vec())
}
fn ends(lists: &[(Key, &[Value])], registers: &[(Key, Value, u64)], rows: &[Value]) -> Final {
    Final {
        lists: lists.iter().map(|(k, l)| (*k, l.to_vec())).collect(),
        registers: registers.iter().map(|(k, v, n)| (*k, (*v, *n))).collect(),
        rows: rows.iter().copied().collect(),
    }
}
fn found(txns: &[Txn], last: &Final) -> Vec<Anomaly> {
    let verdict = check(txns, last);
    for witness in &verdict.witnesses {
        println!("{witness}");
    }
    verdict.counts.keys().copied().collect()
}

use Op::{Append, Delete, Insert, Range, Read, Write};

#[test]
fn a_serial_history_shows_nothing() {
    let txns = [
        at(0, 1, &[Append(1, 10), Write(1, 11, 1), Insert(1, 12)]),
        at(2, 3, &[saw(1, &[10]), Append(1, 20), saw(1, &[10, 20]), Read(1, 11, 1), Write(1, 21, 2), Read(1, 21, 2)]),
        at(
            4,
            5,
            &[
                Range(0, 2, [12].into()),
                Delete(1, 12),
                Range(0, 2, [].into()),
                Insert(2, 30),
                Write(1, 31, 3),
                Write(1, 32, 4),
            ],
        ),
        at(6, 7, &[saw(1, &[10, 20]), Read(1, 32, 4), Read(2, 0, 0), Range(0, 2, [30].into())]),
    ];
    assert_eq!(found(&txns, &ends(&[(1, &[10, 20])], &[(1, 32, 4)], &[30])), []);
}

#[test]
fn circles_are_found_and_named() {
    let g0 = [done(&[Append(1, 1), Append(2, 2)]), done(&[Append(1, 3), Append(2, 4)])];
    assert_eq!(found(&g0, &ends(&[(1, &[1, 3]), (2, &[4, 2])], &[], &[])), [Anomaly::G0]);
    let g1c = [done(&[Append(1, 1), saw(2, &[2])]), done(&[Append(2, 2), saw(1, &[1])])];
    assert_eq!(found(&g1c, &ends(&[(1, &[1]), (2, &[2])], &[], &[])), [Anomaly::G1c]);
    let single = [done(&[saw(1, &[]), saw(2, &[2])]), done(&[Append(1, 1), Append(2, 2)])];
    assert_eq!(found(&single, &ends(&[(1, &[1]), (2, &[2])], &[], &[])), [Anomaly::GSingle]);
    let fork = [
        done(&[Append(1, 1)]),
        done(&[Append(2, 2)]),
        done(&[saw(1, &[1]), saw(2, &[])]),
        done(&[saw(1, &[]), saw(2, &[2])]),
    ];
    assert_eq!(found(&fork, &ends(&[(1, &[1]), (2, &[2])], &[], &[])), [Anomaly::Nonadjacent]);
    let skew =
        [done(&[Read(1, 0, 0), Read(2, 0, 0), Write(1, 5, 1)]), done(&[Read(1, 0, 0), Read(2, 0, 0), Write(2, 6, 1)])];
    assert_eq!(found(&skew, &ends(&[], &[(1, 5, 1), (2, 6, 1)], &[])), [Anomaly::G2Item]);
    let three =
        [done(&[saw(2, &[]), Append(1, 1)]), done(&[saw(3, &[]), Append(2, 2)]), done(&[saw(1, &[]), Append(3, 3)])];
    assert_eq!(found(&three, &ends(&[(1, &[1]), (2, &[2]), (3, &[3])], &[], &[])), [Anomaly::G2Item]);
    let predicate = [done(&[Range(1, 1, [].into()), Insert(2, 7)]), done(&[Range(2, 2, [].into()), Insert(1, 8)])];
    assert_eq!(found(&predicate, &ends(&[], &[], &[7, 8])), [Anomaly::G2]);
    let deleted = [
        done(&[Insert(1, 7), Insert(2, 8)]),
        done(&[Range(1, 1, [7].into()), Delete(2, 8)]),
        done(&[Range(2, 2, [8].into()), Delete(1, 7)]),
    ];
    assert_eq!(found(&deleted, &ends(&[], &[], &[])), [Anomaly::G2]);
    let report = [
        done(&[Read(1, 0, 0), Read(2, 0, 0), Write(1, 5, 1)]),
        done(&[Read(2, 0, 0), Write(2, 6, 1)]),
        done(&[Read(1, 0, 0), Read(2, 6, 1)]),
    ];
    assert_eq!(found(&report, &ends(&[], &[(1, 5, 1), (2, 6, 1)], &[])), [Anomaly::G2Item], "the read-only anomaly");
}

#[test]
fn reads_of_what_never_was_are_found() {
    let aborted = [ended(End::Aborted, &[Append(1, 1), Write(1, 2, 1)]), done(&[saw(1, &[1])])];
    assert_eq!(found(&aborted, &ends(&[], &[], &[])), [Anomaly::G1a]);
    let register = [ended(End::Aborted, &[Write(1, 2, 1)]), done(&[Read(1, 2, 1)])];
    assert_eq!(found(&register, &ends(&[], &[], &[])), [Anomaly::G1a]);
    let row = [ended(End::Aborted, &[Insert(1, 2)]), done(&[Range(1, 1, [2].into())])];
    assert_eq!(found(&row, &ends(&[], &[], &[])), [Anomaly::G1a]);
    let left = [ended(End::Aborted, &[Append(1, 1)])];
    assert_eq!(found(&left, &ends(&[(1, &[1])], &[], &[])), [Anomaly::G1a]);
    let between = [done(&[Append(1, 1), Append(1, 2)]), done(&[saw(1, &[1])])];
    assert!(found(&between, &ends(&[(1, &[1, 2])], &[], &[])).contains(&Anomaly::G1b));
    let register = [done(&[Write(1, 5, 1), Write(1, 6, 2)]), done(&[Read(1, 5, 1)])];
    assert!(found(&register, &ends(&[], &[(1, 6, 2)], &[])).contains(&Anomaly::G1b));
}

#[test]
fn what_one_transaction_shows_is_found() {
    let lost = [done(&[Read(1, 0, 0), Write(1, 5, 1)]), done(&[Read(1, 0, 0), Write(1, 6, 2)])];
    assert_eq!(found(&lost, &ends(&[], &[(1, 6, 2)], &[])), [Anomaly::LostUpdate, Anomaly::GSingle]);
    let twice = [done(&[saw(1, &[]), saw(1, &[1])]), done(&[Append(1, 1)])];
    assert_eq!(found(&twice, &ends(&[(1, &[1])], &[], &[])), [Anomaly::NonRepeatable, Anomaly::GSingle]);
    let own = [done(&[Append(1, 1), saw(1, &[])])];
    assert_eq!(found(&own, &ends(&[(1, &[1])], &[], &[])), [Anomaly::Own]);
    let own = [done(&[Insert(1, 1), Range(1, 1, [].into())])];
    assert_eq!(found(&own, &ends(&[], &[], &[1])), [Anomaly::Own]);
}

#[test]
fn what_is_gone_is_found() {
    let gone = [done(&[Append(1, 1)])];
    assert_eq!(found(&gone, &ends(&[], &[], &[])), [Anomaly::Lost]);
    assert_eq!(found(&[done(&[Write(1, 5, 1)])], &ends(&[], &[], &[])), [Anomaly::Lost]);
    assert_eq!(found(&[done(&[Insert(1, 5)])], &ends(&[], &[], &[])), [Anomaly::Lost]);
    let same = [done(&[Write(1, 5, 1)]), done(&[Write(1, 6, 1)])];
    assert_eq!(found(&same, &ends(&[], &[(1, 6, 1)], &[])), [Anomaly::Lost]);
    let doubled = [done(&[Append(1, 1)])];
    assert_eq!(found(&doubled, &ends(&[(1, &[1, 1])], &[], &[])), [Anomaly::Lost]);
    let both = [done(&[Insert(1, 5)]), done(&[Delete(1, 5)]), done(&[Delete(1, 5)])];
    assert!(found(&both, &ends(&[], &[], &[])).contains(&Anomaly::Lost));
    let stale = [at(0, 1, &[Append(1, 1)]), at(2, 3, &[saw(1, &[])])];
    assert_eq!(found(&stale, &ends(&[(1, &[1])], &[], &[])), [Anomaly::Stale]);
    let stale = [at(0, 1, &[Insert(1, 1)]), at(2, 3, &[Range(1, 1, [].into())])];
    assert_eq!(found(&stale, &ends(&[], &[], &[1])), [Anomaly::Stale]);
}

#[test]
fn unknown_ends_are_settled_by_what_is_seen() {
    let unknown = [ended(End::Unknown, &[Append(1, 1), Write(1, 5, 1), Insert(1, 9)])];
    assert_eq!(found(&unknown, &ends(&[], &[], &[])), [], "it was not committed");
    assert_eq!(found(&unknown, &ends(&[(1, &[1])], &[(1, 5, 1)], &[9])), [], "it was");
    assert_eq!(found(&unknown, &ends(&[(1, &[1])], &[], &[9])), [Anomaly::Torn]);
    assert_eq!(found(&unknown, &ends(&[], &[(1, 5, 1)], &[9])), [Anomaly::Torn]);
    assert_eq!(found(&unknown, &ends(&[(1, &[1])], &[(1, 5, 1)], &[])), [Anomaly::Torn]);
    let overwritten = [unknown[0].clone(), done(&[Write(1, 6, 2)])];
    assert_eq!(found(&overwritten, &ends(&[(1, &[1])], &[(1, 6, 2)], &[9])), []);
    assert_eq!(
        found(&overwritten, &ends(&[], &[(1, 6, 2)], &[9])),
        [Anomaly::Torn],
        "version 2 stands on its version 1"
    );
    let seen = [unknown[0].clone(), done(&[Range(1, 1, [9].into()), Delete(1, 9)])];
    assert_eq!(found(&seen, &ends(&[(1, &[1])], &[(1, 5, 1)], &[])), []);
}

#[test]
fn levels_allow_more_from_step_to_step() {
    assert!(allowed("SERIALIZABLE").is_empty());
    assert!(allowed("REPEATABLE READ").iter().all(|a| allowed("READ COMMITTED").contains(a)));
    assert_eq!(allowed("READ COMMITTED"), allowed("READ UNCOMMITTED"));
    let verdict = check(
        &[done(&[Read(1, 0, 0), Write(1, 5, 1)]), done(&[Read(1, 0, 0), Write(1, 6, 2)])],
        &ends(&[], &[(1, 6, 2)], &[]),
    );
    assert_eq!(verdict.forbidden("READ COMMITTED"), []);
    assert_eq!(verdict.forbidden("REPEATABLE READ"), [Anomaly::LostUpdate, Anomaly::GSingle]);
}
