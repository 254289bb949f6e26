//! Sessions over a store in memory: scripts against what psql shows of PostgreSQL, protocols, conflicts, restarts, failing disks.

mod concurrency;
mod definitions;
mod faults;
mod follower;
mod foreign;
mod foreign_keys;
mod limits;
mod locks;
mod memory;
mod protocol;
mod row_locks;
mod scripts;
mod serializable;
mod speed;
mod swarm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::{ConnectOptions, CopyPiece, CopyStep, Instance, InstanceOptions, Outcome, Session, Step};
use crate::SqlError;
use crate::functions::SessionCx;
use crate::functions::context::CancelFlag;
use crate::types::io;

pub(super) fn instance() -> Arc<Instance> {
    Instance::in_memory(InstanceOptions { cache_bytes: 16 << 20, ..InstanceOptions::default() }).unwrap()
}

pub(super) fn connect(instance: &Arc<Instance>) -> Session {
    connect_to(instance, "postgres").unwrap()
}

fn connect_to(instance: &Arc<Instance>, database: &str) -> crate::Result<Session> {
    instance.connect(options(database, 7))
}

/// A session with a process id of its own.
fn connect_as(instance: &Arc<Instance>, pid: i32) -> Session {
    instance.connect(options("postgres", pid)).unwrap()
}

fn options(database: &str, pid: i32) -> ConnectOptions {
    ConnectOptions { user: "postgres".into(), database: database.into(), backend_pid: pid, ..ConnectOptions::default() }
}

/// Runs statements in another thread; it is back when they wait for a lock or are done.
fn beside<'s>(scope: &'s Scope<'s, '_>, session: &'s mut Session, sql: &'s str) -> ScopedJoinHandle<'s, String> {
    let locks = session.shared.db.locks.clone();
    let waiting = || locks.status().iter().filter(|lock| !lock.granted).count();
    let (before, start) = (waiting(), Instant::now());
    let thread = scope.spawn(|| show(session, sql));
    while !thread.is_finished() && waiting() == before {
        assert!(start.elapsed() < Duration::from_secs(60), "{sql} neither waits nor ends");
        std::thread::sleep(Duration::from_millis(1));
    }
    thread
}

/// Cancels what is run, again and again, for a cancel that comes before the statement is nobody's.
fn cancelling<T>(flag: &CancelFlag, run: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                flag.raise(SqlError::new("57014", "canceling statement due to user request"));
            }
        });
        let ran = run();
        is_over.store(true, Ordering::Relaxed);
        ran
    })
}

/// Runs a simple query string and shows what psql -At with verbose errors would.
fn show(session: &mut Session, sql: &str) -> String {
    show_copying(session, sql, "")
}

/// The same; a COPY FROM STDIN in it reads `data`.
fn show_copying(session: &mut Session, sql: &str, data: &str) -> String {
    let mut out = Vec::new();
    let result = run(session, sql, data, &mut out);
    tell_notices(session, &mut out);
    if let Err(e) = result {
        tell("ERROR", &e, &mut out);
    }
    out.join("\n")
}

fn run(session: &mut Session, sql: &str, data: &str, out: &mut Vec<String>) -> crate::Result<()> {
    session.simple(sql)?;
    while let Some(outcome) = session.next_result()? {
        tell_notices(session, out);
        match outcome {
            Outcome::Rows { fields, .. } => loop {
                match session.fetch()? {
                    Step::Rows(rows) => {
                        let cx = session.output_cx();
                        for row in rows {
                            out.push(
                                row.iter()
                                    .zip(fields.iter())
                                    .map(|(v, f)| print(v, f.ty.ty, &cx))
                                    .collect::<Vec<_>>()
                                    .join("|"),
                            );
                        }
                    }
                    Step::Done { tag } => {
                        if !tag.starts_with("SELECT") && !tag.starts_with("SHOW") && !tag.starts_with("EXPLAIN") {
                            out.push(tag);
                        }
                        break;
                    }
                    Step::Suspended => out.push("suspended".into()),
                }
            },
            Outcome::Command { tag } => out.push(tag),
            Outcome::CopyIn(_) => {
                // Pieces of odd sizes, as a network might cut them.
                for piece in data.as_bytes().chunks(7) {
                    session.copy_data(piece)?;
                }
                out.push(session.copy_done()?);
            }
            Outcome::CopyOut(_) => {
                while let CopyStep::Data(CopyPiece { bytes, .. }) = session.copy_out()? {
                    out.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
                }
            }
            Outcome::Empty => {}
        }
    }
    Ok(())
}

fn print(value: &crate::types::Datum, ty: crate::types::Type, cx: &SessionCx) -> String {
    if value.is_null() { "NULL".into() } else { io::to_text(value, ty, cx) }
}

fn tell_notices(session: &mut Session, out: &mut Vec<String>) {
    for notice in session.take_notices() {
        tell(notice.severity, &notice.report, out);
    }
}

pub(super) fn tell(severity: &str, report: &SqlError, out: &mut Vec<String>) {
    out.push(format!("{severity}:  {}: {}", report.state(), report.message()));
    for (name, value) in [("DETAIL", &report.0.detail), ("HINT", &report.0.hint), ("CONTEXT", &report.0.context)] {
        if let Some(text) = value {
            out.extend(format!("{name}:  {text}").lines().map(str::to_owned));
        }
    }
    let about = [
        ("SCHEMA", &report.0.schema),
        ("TABLE", &report.0.table),
        ("COLUMN", &report.0.column),
        ("CONSTRAINT", &report.0.constraint),
    ];
    for (name, value) in about {
        if let Some(text) = value {
            out.push(format!("{name} NAME:  {text}"));
        }
    }
}
