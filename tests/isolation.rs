//! Isolation: the specs of `isolation/specs` run on a pgbee server give what PostgreSQL 15 gave: who blocks, who goes on, SQLSTATEs, messages, rows.
//!
//! `isolation/expected/NAME.out` was printed by a PostgreSQL 15 (`isolation/record.sh`); where that is not the same every time, for two were waiting and either may
//! go on, each outcome seen is there and each is right. A spec that says `differs` also has `NAME.pgbee.out` with the permutations
//! in which we answer otherwise, and only those: a permutation listed there that gives PostgreSQL's outcome fails, as does one that gives neither.
//!
//! Whether a step waits is told by the server, but not in no time: on a loaded machine one that is about to go on may be met waiting. So a spec in which
//! something differs is run once more when all others are through, with nothing beside it, and that counts; what differed before is printed.
//!
//! | variable | |
//! | --- | --- |
//! | `PGBEE_SPEC=deadlock` | only specs whose names contain this |
//! | `PGBEE_POSTGRES=5432` | runs on this port of 127.0.0.1 instead of on a pgbee of its own |
//! | `PGBEE_RECORD=1` | with the former: writes the expected outcomes; `again` adds those not seen before |
//! | `PGBEE_BLESS=1` | writes `NAME.pgbee.out` of specs that say `differs` |

#[path = "isolation/drive.rs"]
mod drive;
#[path = "isolation/spec.rs"]
mod spec;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use drive::Stage;
use pgbee_tests::{Client, Server, repository};
use spec::{Spec, blocks};

/// Databases, each with permutations of its own under way.
const STAGES: usize = 4;

/// Permutations that differ are shown up to this many.
const SHOWN: usize = 60;

fn specs() -> Vec<PathBuf> {
    let wanted = std::env::var("PGBEE_SPEC").unwrap_or_default();
    let folder = repository().join("tests/isolation/specs");
    let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
    let mut specs: Vec<PathBuf> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "spec"))
        .filter(|p| p.file_stem().is_some_and(|n| n.to_string_lossy().contains(&wanted)))
        .collect();
    specs.sort();
    assert!(!specs.is_empty(), "no spec is called so");
    specs
}

fn expected(name: &str, ending: &str) -> PathBuf {
    repository().join(format!("tests/isolation/expected/{name}.{ending}"))
}

/// Titles and outputs, in the spec's order.
fn run(stage: &mut Stage, spec: &Spec) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for choice in spec.choices() {
        for order in &spec.permutations {
            let title = spec.title(order, &choice);
            let out = stage.run(spec, order, &choice);
            found.push((title, out));
        }
    }
    found
}

fn written(found: &[(String, String)]) -> String {
    found.iter().fold(String::new(), |mut text, (title, out)| {
        let _ = writeln!(text, "{title}\n{out}");
        text
    })
}

/// Both outputs from the first line in which they differ.
fn difference(got: &str, wanted: &str) -> String {
    let at = got.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| text.lines().skip(at.saturating_sub(2)).take(9).collect::<Vec<_>>().join("\n      ");
    format!("    got\n      {}\n    wanted\n      {}", from(got), from(wanted))
}

/// What PostgreSQL was seen to give, and what is written down as ours, by permutation.
fn known(spec: &Spec, ending: &str) -> HashMap<String, Vec<String>> {
    blocks(&std::fs::read_to_string(expected(&spec.name, ending)).unwrap_or_default())
}

/// What is wrong with the outcome of a spec on pgbee; on PostgreSQL only its own outcomes count.
fn compare(spec: &Spec, found: &[(String, String)], on_postgres: bool) -> Vec<String> {
    let (postgres, own) = (known(spec, "out"), if on_postgres { HashMap::new() } else { known(spec, "pgbee.out") });
    let mut wrong = Vec::new();
    if spec.differs.is_none() && !own.is_empty() {
        wrong.push(format!("{}: {}.pgbee.out is there, and the spec does not say why", spec.name, spec.name));
    }
    for title in own.keys().filter(|title| !found.iter().any(|(t, _)| t == *title)) {
        wrong.push(format!("{}: {}.pgbee.out has `{title}`, the spec has not", spec.name, spec.name));
    }
    for (title, out) in found {
        let out = out.trim_end().to_owned();
        let Some(theirs) = postgres.get(title) else {
            wrong.push(format!("{}: {title}\n    was not recorded", spec.name));
            continue;
        };
        match own.get(title) {
            Some(own) if own.iter().any(|o| theirs.contains(o)) => {
                wrong.push(format!("{}: {title}\n    {}.pgbee.out has what PostgreSQL gives", spec.name, spec.name));
            }
            Some(own) if !own.contains(&out) => {
                wrong.push(format!("{}: {title}\n{}", spec.name, difference(&out, &own[0])))
            }
            None if !theirs.contains(&out) => {
                wrong.push(format!("{}: {title}\n{}", spec.name, difference(&out, &theirs[0])))
            }
            _ => {}
        }
    }
    wrong
}

/// Writes what a PostgreSQL gave; `again` keeps what was known and adds what is new.
fn record(spec: &Spec, found: &[(String, String)], again: bool) {
    let before = if again { known(spec, "out") } else { HashMap::new() };
    let mut all = Vec::new();
    for (title, out) in found {
        let mut outcomes = before.get(title).cloned().unwrap_or_default();
        if !outcomes.contains(&out.trim_end().to_owned()) {
            outcomes.push(out.trim_end().to_owned());
        }
        all.extend(outcomes.into_iter().map(|o| (title.clone(), o + "\n")));
    }
    std::fs::write(expected(&spec.name, "out"), written(&all)).expect("it can be written");
}

/// Writes the outcomes of ours that PostgreSQL does not give.
fn bless(spec: &Spec, reason: &str, found: &[(String, String)]) {
    let postgres = known(spec, "out");
    let differ =
        |(title, out): &&(String, String)| postgres.get(title).is_none_or(|p| !p.contains(&out.trim_end().to_owned()));
    let differing: Vec<(String, String)> = found.iter().filter(differ).cloned().collect();
    let path = expected(&spec.name, "pgbee.out");
    if differing.is_empty() {
        let _ = std::fs::remove_file(path);
    } else {
        std::fs::write(path, format!("{reason}\n\n{}", written(&differing))).expect("it can be written");
    }
}

fn stages(port: u16, count: usize) -> Vec<Stage> {
    let mut control = Client::connect(port, &[("user", "postgres"), ("database", "postgres")]).expect("a connection");
    let database = |n: usize| {
        let name = format!("isolation{n}");
        let _ = control.try_query(&format!("DROP DATABASE IF EXISTS {name}"));
        control.query(&format!("CREATE DATABASE {name}"));
        Stage::new(port, &name)
    };
    (0..count).map(database).collect()
}

#[test]
fn outcomes_are_postgresqls() {
    let set = |name: &str| std::env::var_os(name).is_some();
    let recording = std::env::var("PGBEE_RECORD").unwrap_or_default();
    let postgres: Option<u16> = std::env::var("PGBEE_POSTGRES").ok().map(|port| port.parse().expect("a port"));
    let server = postgres.is_none().then(|| Server::start_with(&["--max-connections", "200"]));
    let port = postgres.or(server.as_ref().map(|s| s.port)).expect("one of the two");
    // Recording: a serializable transaction of PostgreSQL waits for those of other databases too.
    let mut stages = stages(port, if postgres.is_some() { 1 } else { STAGES });
    println!("blocked is found by {:?}", stages[0].probe);
    let specs: Vec<Spec> = specs().iter().map(|path: &PathBuf| Spec::read(Path::new(path))).collect();
    let (next, doubtful, count) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for stage in &mut stages {
            scope.spawn(|| {
                while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = std::time::Instant::now();
                    let found = run(stage, spec);
                    count.fetch_add(found.len(), Ordering::Relaxed);
                    match (postgres, recording.as_str(), &spec.differs) {
                        (Some(_), "1", _) => record(spec, &found, false),
                        (Some(_), "again", _) => record(spec, &found, true),
                        (None, _, Some(reason)) if set("PGBEE_BLESS") => bless(spec, reason, &found),
                        _ => {}
                    }
                    let differences = compare(spec, &found, postgres.is_some());
                    println!(
                        "{}: {} permutations, {} differ, {:.1} s",
                        spec.name,
                        found.len(),
                        differences.len(),
                        began.elapsed().as_secs_f32()
                    );
                    if !differences.is_empty() {
                        doubtful.lock().expect("unpoisoned").push((spec, differences));
                    }
                }
            });
        }
    });
    let mut wrong = Vec::new();
    for (spec, differences) in doubtful.into_inner().expect("unpoisoned") {
        println!("{}: run again, for at first\n{}", spec.name, differences.join("\n"));
        wrong.extend(compare(spec, &run(&mut stages[0], spec), postgres.is_some()));
    }
    let silent: usize = stages.iter().map(|s| s.by_silence).sum();
    if silent > 0 {
        wrong.push(format!("{silent} times a step waited and the server did not say so ({:?})", stages[0].probe));
    }
    wrong.sort();
    let count = count.load(Ordering::Relaxed);
    println!("{} specs, {count} permutations, {} differ", specs.len(), wrong.len());
    let shown = if set("PGBEE_ALL") { wrong.len() } else { SHOWN };
    assert!(
        wrong.is_empty(),
        "{} of {count} permutations differ:\n{}",
        wrong.len(),
        wrong.iter().take(shown).cloned().collect::<Vec<_>>().join("\n")
    );
}
