//! Runs `testscripts/*`: stories of concurrent transactions, their output written by the run and read by
//! a person before it is kept. `PGBEE_REWRITE=1 cargo test scripts` writes it anew.
//!
//! A file is a comment, then blocks of commands, `---`, and what they print. A command that begins with
//! a name and a colon is done by that transaction; one that begins with `!` must fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{CommitInfo, CommitRecord, Database, Options, ReadView, Snapshot, Transaction, ViewScan};
use crate::bee::{Cache, Direction, KeyRange};
use crate::corestore::{self, Store};
use crate::error::Result;
use crate::position::Version;
use crate::storage::memory::Memory;

#[test]
fn scripts_print_what_they_printed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/txn/testscripts");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "scripts are missing: {files:?}");
    for file in files {
        let script = fs::read_to_string(&file).unwrap();
        let run = run(&script);
        if std::env::var_os("PGBEE_REWRITE").is_some() {
            fs::write(&file, run).unwrap();
        } else {
            assert_eq!(run, script, "{} prints something else", file.display());
        }
    }
}

/// The script with what its commands print now.
fn run(script: &str) -> String {
    let mut stage = Stage::new();
    let (mut out, mut printed) = (String::new(), String::new());
    let mut is_output = false;
    for line in script.lines().chain([""]) {
        if is_output {
            if line.is_empty() {
                out.push('\n');
                is_output = false;
            }
            continue;
        }
        match line {
            "" => {
                assert!(printed.is_empty(), "commands without --- before a blank line");
                out.push('\n');
            }
            "---" => {
                writeln!(out, "---\n{}", printed.trim_end()).unwrap();
                printed.clear();
                is_output = true;
            }
            _ => {
                writeln!(out, "{line}").unwrap();
                if !line.starts_with('#') {
                    stage.command(line, &mut printed);
                }
            }
        }
    }
    format!("{}\n", out.trim_end())
}

struct Stage {
    store: Arc<Store>,
    db: Arc<Database>,
    open: BTreeMap<String, Transaction>,
    views: BTreeMap<String, ReadView>,
    commits: i64,
}

impl Stage {
    fn new() -> Stage {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let db = Stage::database(&store);
        Stage { store, db, open: BTreeMap::new(), views: BTreeMap::new(), commits: 0 }
    }

    fn database(store: &Arc<Store>) -> Arc<Database> {
        let core = store.get_by_name("db").unwrap();
        Database::open(core, Cache::new(1 << 20), Options::default()).unwrap()
    }

    fn command(&mut self, line: &str, printed: &mut String) {
        let (who, command) = line.split_once(": ").unwrap_or(("", line));
        let (must_fail, command) = match command.strip_prefix('!') {
            Some(command) => (true, command),
            None => (false, command),
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let result = if who.is_empty() { self.global(&words) } else { self.transaction(who, &words) };
        assert_eq!(result.is_err(), must_fail, "{line}: {result:?}");
        let text = result.unwrap_or_else(|error| format!("Error: {error}"));
        for text in text.lines() {
            let colon = if who.is_empty() { "" } else { ": " };
            writeln!(printed, "{who}{colon}{text}").unwrap();
        }
    }

    fn transaction(&mut self, who: &str, words: &[&str]) -> Result<String> {
        if words[0] == "begin" {
            let txn = match words.get(1) {
                Some(version) => self.db.begin_at(self.db.snapshot_at(number(version))?),
                None => self.db.begin(),
            };
            self.open.insert(who.into(), txn);
            return Ok(String::new());
        }
        if words[0] == "commit" {
            self.commits += 1;
            let mut info = CommitInfo::at(self.commits * 1000);
            info.user = who.into();
            info.message = words[1..].join(" ");
            let txn = self.open.remove(who).unwrap();
            return Ok(format!("version {}", self.db.commit(txn, info)?));
        }
        let txn = self.open.get_mut(who).unwrap_or_else(|| panic!("{who} has not begun"));
        match words {
            ["rollback"] => drop(self.open.remove(who)),
            ["refresh"] => txn.refresh(self.db.snapshot()),
            ["put", pairs @ ..] => {
                for pair in pairs {
                    let (key, value) = pair.split_once('=').unwrap();
                    txn.put(key.to_owned(), value.to_owned())?;
                }
            }
            ["delete", keys @ ..] => {
                for key in keys {
                    txn.delete(key.to_string())?;
                }
            }
            ["put_guarded", pair] => {
                let (key, value) = pair.split_once('=').unwrap();
                txn.put_guarded(key.to_owned(), value.to_owned())?;
            }
            ["delete_guarded", key] => txn.delete_guarded(key.to_string())?,
            ["own", key] => {
                return Ok(match txn.own(key.as_bytes())? {
                    Some(value) => pair(key, value),
                    None => format!("{key} is not its own"),
                });
            }
            ["get", key] => return Ok(pair(key, txn.get(key.as_bytes())?)),
            ["scan"] => return list(txn.scan(KeyRange::all(), Direction::Forward)?),
            ["scan", span] => return list(txn.scan(range(span), Direction::Forward)?),
            ["scan_back", span] => return list(txn.scan(range(span), Direction::Backward)?),
            ["statement"] => txn.begin_statement(),
            ["end"] => txn.end_statement()?,
            ["abort"] => txn.abort_statement()?,
            ["savepoint", name] => txn.savepoint(name),
            ["rollback_to", name] => txn.rollback_to(name)?,
            ["release", name] => txn.release(name)?,
            ["depend", key] => txn.depend_key(key.to_string()),
            ["depend_range", span] => txn.depend_range(range(span)),
            ["view", name] => drop(self.views.insert((*name).into(), txn.view())),
            ["changes"] => return Ok(txn.changes().to_string()),
            _ => panic!("no such command: {words:?}"),
        }
        Ok(String::new())
    }

    fn global(&mut self, words: &[&str]) -> Result<String> {
        let db = &self.db;
        match words {
            ["reopen"] => self.db = Stage::database(&self.store),
            ["head"] => return Ok(db.head().to_string()),
            ["at", version, "scan"] => return list_snapshot(&db.snapshot_at(number(version))?),
            ["at", version, "get", key] => {
                return Ok(pair(key, db.snapshot_at(number(version))?.get(key.as_bytes())?));
            }
            ["time", micros] => {
                return Ok(format!("version {}", db.version_at_time(micros.parse().unwrap())?));
            }
            ["view", name, "scan"] => {
                return list(self.views[*name].scan(KeyRange::all(), Direction::Forward)?);
            }
            ["view", name, "drop"] => drop(self.views.remove(*name)),
            ["commits"] => return commits(db, Direction::Backward),
            ["commits", "forward"] => return commits(db, Direction::Forward),
            ["diff", older, newer] => {
                let older = db.snapshot_at(number(older))?;
                let mut diff = db.snapshot_at(number(newer))?.diff(&older, range(".."));
                let mut out = String::new();
                while let Some(found) = diff.next()? {
                    let text = |entry: Option<crate::bee::Entry>| {
                        entry.map_or("none".into(), |e| lossy(&e.value.unwrap_or_default()))
                    };
                    let key = found.left.as_ref().or(found.right.as_ref()).map(|e| lossy(&e.key)).unwrap();
                    let (was, is) = (text(found.right), text(found.left));
                    writeln!(out, "{key}: {was} -> {is}").unwrap();
                }
                return Ok(out);
            }
            ["history", span, from, to] => {
                let mut history = db.snapshot().history(range(span), number(from), number(to))?;
                let mut out = String::new();
                while let Some(item) = history.next()? {
                    let value = item.value.map_or("deleted".into(), |value| lossy(&value));
                    let (version, time) = (item.version, item.time_micros.unwrap());
                    writeln!(out, "version {version} time {time}: {} {value}", lossy(&item.key)).unwrap();
                }
                return Ok(out);
            }
            _ => panic!("no such command: {words:?}"),
        }
        Ok(String::new())
    }
}

fn number(text: &str) -> Version {
    Version(text.parse().unwrap())
}

/// `a..c` from a up to c; either may be left out. The commit record, 06, is below all letters: a range
/// without a start leaves it out too.
fn range(span: &str) -> KeyRange {
    let (start, end) = span.split_once("..").unwrap();
    let bound = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    KeyRange {
        start: if start.is_empty() { Bound::Excluded(Bytes::from_static(&[6])) } else { Bound::Included(bound(start)) },
        end: if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(bound(end)) },
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pair(key: &str, value: Option<Bytes>) -> String {
    match value {
        Some(value) => format!("{key}={}", lossy(&value)),
        None => format!("{key} is not there"),
    }
}

fn list(mut scan: ViewScan) -> Result<String> {
    let mut out = vec![];
    while let Some((key, value)) = scan.next()? {
        if key != super::record::KEY {
            out.push(format!("{}={}", lossy(&key), lossy(&value)));
        }
    }
    Ok(if out.is_empty() { "nothing".into() } else { out.join(" ") })
}

fn list_snapshot(snapshot: &Snapshot) -> Result<String> {
    list(ReadView::from(snapshot.clone()).scan(KeyRange::all(), Direction::Forward)?)
}

fn commits(db: &Database, direction: Direction) -> Result<String> {
    let (mut commits, mut out) = (db.commits(db.head(), direction), String::new());
    while let Some(commit) = commits.next()? {
        let CommitRecord { version, number, time_micros, user, message, previous, .. } = commit;
        let previous: Vec<_> = previous.iter().map(Version::to_string).collect();
        let previous = previous.join(" ");
        writeln!(out, "{number}: version {version} time {time_micros} by {user} ({message}) after [{previous}]")
            .unwrap();
    }
    Ok(out)
}
