//! Isolation: the specs of `isolation/specs` run on a pgbee server give what PostgreSQL 15 gave: who blocks, who goes on, SQLSTATEs, messages, rows.
//!
//! `isolation/expected/NAME.out` was printed by a PostgreSQL 15 (`isolation/record.sh`). A spec that says `differs` also has `NAME.pgbee.out` with the permutations
//! in which we answer otherwise, and only those: a permutation listed there that gives PostgreSQL's outcome fails, as does one that gives neither.
//!
//! | variable | |
//! | --- | --- |
//! | `PGBEE_SPEC=deadlock` | only specs whose names contain this |
//! | `PGBEE_POSTGRES=5432` | runs on this port of 127.0.0.1 instead of on a pgbee of its own |
//! | `PGBEE_RECORD=1` | with the former: writes the expected outcomes |
//! | `PGBEE_BLESS=1` | writes `NAME.pgbee.out` of specs that say `differs` |

#[path = "isolation/drive.rs"]
mod drive;
#[path = "isolation/spec.rs"]
mod spec;

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

/// What is wrong with the outcome of a spec.
fn compare(spec: &Spec, found: &[(String, String)]) -> Vec<String> {
    let read = |ending| blocks(&std::fs::read_to_string(expected(&spec.name, ending)).unwrap_or_default());
    let (postgres, own) = (read("out"), read("pgbee.out"));
    let mut wrong = Vec::new();
    if spec.differs.is_none() && !own.is_empty() {
        wrong.push(format!("{}: {}.pgbee.out is there, and the spec does not say why", spec.name, spec.name));
    }
    for title in own.keys().filter(|title| !found.iter().any(|(t, _)| t == *title)) {
        wrong.push(format!("{}: {}.pgbee.out has `{title}`, the spec has not", spec.name, spec.name));
    }
    for (title, out) in found {
        let Some(theirs) = postgres.get(title) else {
            wrong.push(format!("{}: {title}\n    was not recorded", spec.name));
            continue;
        };
        let (out, theirs) = (out.trim_end(), theirs.trim_end());
        match own.get(title).map(|own| own.trim_end()) {
            Some(own) if own == theirs => wrong.push(format!("{}: {title}\n    is no difference any more", spec.name)),
            Some(own) if own != out => wrong.push(format!("{}: {title}\n{}", spec.name, difference(out, own))),
            None if out != theirs => wrong.push(format!("{}: {title}\n{}", spec.name, difference(out, theirs))),
            _ => {}
        }
    }
    wrong
}

/// The outcomes of ours that differ from the recorded ones.
fn bless(spec: &Spec, reason: &str, found: &[(String, String)]) {
    let postgres = blocks(&std::fs::read_to_string(expected(&spec.name, "out")).unwrap_or_default());
    let differ = |(title, out): &&(String, String)| postgres.get(title).is_none_or(|p| p.trim_end() != out.trim_end());
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
    let postgres: Option<u16> = std::env::var("PGBEE_POSTGRES").ok().map(|port| port.parse().expect("a port"));
    let server = postgres.is_none().then(|| Server::start_with(&["--max-connections", "200"]));
    let port = postgres.or(server.as_ref().map(|s| s.port)).expect("one of the two");
    // Recording: a serializable transaction of PostgreSQL waits for those of other databases too.
    let mut stages = stages(port, if postgres.is_some() { 1 } else { STAGES });
    println!("blocked is found by {:?}", stages[0].probe);
    let specs: Vec<Spec> = specs().iter().map(|path: &PathBuf| Spec::read(Path::new(path))).collect();
    let (next, wrong, count) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for stage in &mut stages {
            scope.spawn(|| {
                while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = std::time::Instant::now();
                    let found = run(stage, spec);
                    count.fetch_add(found.len(), Ordering::Relaxed);
                    if postgres.is_some() && set("PGBEE_RECORD") {
                        std::fs::write(expected(&spec.name, "out"), written(&found)).expect("it can be written");
                    } else if let (true, None, Some(reason)) = (set("PGBEE_BLESS"), postgres, &spec.differs) {
                        bless(spec, reason, &found);
                    }
                    // A PostgreSQL is compared with PostgreSQL's outcomes alone.
                    let mut differences = compare(spec, &found);
                    if postgres.is_some() {
                        let recorded = blocks(&std::fs::read_to_string(expected(&spec.name, "out")).unwrap_or_default());
                        let same = |(t, o): &(String, String)| recorded.get(t).is_some_and(|r| r.trim_end() == o.trim_end());
                        differences.retain(|_| !found.iter().all(same));
                    }
                    println!("{}: {} permutations, {} differ, {:.1} s", spec.name, found.len(), differences.len(), began.elapsed().as_secs_f32());
                    wrong.lock().expect("unpoisoned").extend(differences);
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("unpoisoned");
    wrong.sort();
    let count = count.load(Ordering::Relaxed);
    println!("{} specs, {count} permutations, {} differ", specs.len(), wrong.len());
    let shown = if set("PGBEE_ALL") { wrong.len() } else { SHOWN };
    assert!(wrong.is_empty(), "{} of {count} permutations differ:\n{}", wrong.len(), wrong.iter().take(shown).cloned().collect::<Vec<_>>().join("\n"));
}
