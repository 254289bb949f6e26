//! Concurrent random transactions through the wire, and a record of what they did and saw.
//!
//! Keys are few and move on: of a *window* of [`WINDOW`] transactions all work on the same handful of registers, lists and groups, the next window on others, so there is
//! contention and no list grows without end.
//!
//! | table | |
//! | --- | --- |
//! | `reg (k, v, n)` | registers; each write counts `n` up and is told it by RETURNING |
//! | `lst (k, v text)`, `arr (k, v bigint[])` | lists of even and of odd keys |
//! | `mem (id, grp)` | rows of groups; `grp` has an index |
//!
//! What must stay true: an operation is recorded only when its answer is there, and COMMIT as unknown until its own is; values are never used twice.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgbee_tests::{Answer, Client};

use super::check::{End, Final, Key, Op, Txn, Value};

/// Transactions that share their keys.
const WINDOW: u64 = 300;
/// Registers, and lists, of a window.
const KEYS: u64 = 6;
/// Groups of a window.
const GROUPS: u64 = 4;

/// xorshift64*: the same seed does the same.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Below this.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// What the clients of a run share.
pub struct Run {
    /// Isolation level.
    pub level: String,
    /// Transactions to be run.
    pub wanted: u64,
    /// Where the server listens now; 0 while it does not.
    pub port: AtomicU16,
    /// Stop.
    pub stop: AtomicBool,
    started: AtomicU64,
    values: AtomicU64,
    clock: Instant,
    /// What was recorded.
    pub txns: Mutex<Vec<Txn>>,
    /// SQLSTATEs and how often they came.
    pub errors: Mutex<HashMap<String, usize>>,
    /// Errors that no level gives.
    pub unexpected: Mutex<Vec<String>>,
}

/// Why a transaction did not go on.
enum Stop {
    /// An error; the block is to be rolled back.
    Error,
    /// The connection is gone.
    Lost,
}

struct Session<'a> {
    run: &'a Run,
    client: Client,
    random: Random,
}

/// The tables, empty.
pub const SCHEMA: &str = "DROP TABLE IF EXISTS reg; DROP TABLE IF EXISTS lst; DROP TABLE IF EXISTS arr; DROP TABLE IF EXISTS mem; \
    CREATE TABLE reg (k bigint PRIMARY KEY, v bigint, n bigint); CREATE TABLE lst (k bigint PRIMARY KEY, v text); \
    CREATE TABLE arr (k bigint PRIMARY KEY, v bigint[]); CREATE TABLE mem (id bigint PRIMARY KEY, grp bigint); CREATE INDEX mem_grp ON mem (grp)";

impl Run {
    /// A run that has not begun.
    pub fn new(level: &str, wanted: u64, port: u16) -> Run {
        Run {
            level: level.to_owned(),
            wanted,
            port: AtomicU16::new(port),
            stop: AtomicBool::new(false),
            started: AtomicU64::new(0),
            values: AtomicU64::new(1),
            clock: Instant::now(),
            txns: Mutex::default(),
            errors: Mutex::default(),
            unexpected: Mutex::default(),
        }
    }
    /// Transactions begun.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }
    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
    fn value(&self) -> Value {
        self.values.fetch_add(1, Ordering::Relaxed)
    }
    /// A client's whole life, with as many connections as the server's deaths make needed.
    pub fn client(&self, database: &str, seed: u64) {
        let mut seeds = Random(seed | 1);
        while !self.stop.load(Ordering::Relaxed) && self.started() < self.wanted {
            let port = self.port.load(Ordering::Relaxed);
            let parameters = [("user", "postgres"), ("database", database)];
            let Ok(client) = Client::connect(port, &parameters) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let mut session = Session { run: self, client, random: Random(seeds.next() | 1) };
            // Where it cannot be set the default is short enough.
            let _ = session.client.try_query("SET deadlock_timeout = '10ms'");
            while !self.stop.load(Ordering::Relaxed) && self.started.fetch_add(1, Ordering::Relaxed) < self.wanted {
                if !session.transaction() {
                    break;
                }
            }
        }
    }
}

impl Session<'_> {
    /// One transaction; false if the connection is gone.
    fn transaction(&mut self) -> bool {
        let began = self.run.now();
        let window = self.run.started() / WINDOW;
        let (mut ops, mut undone) = (Vec::new(), Vec::new());
        let mut end = End::Aborted;
        let steps = 1 + self.random.below(5);
        let mut outcome = self.ask(&format!("BEGIN ISOLATION LEVEL {}", self.run.level)).map(|_| ());
        for _ in 0..steps {
            if outcome.is_ok() {
                outcome = self.step(window, &mut ops, &mut undone);
            }
        }
        let mut alive = !matches!(outcome, Err(Stop::Lost));
        if outcome.is_ok() && self.random.below(12) > 0 {
            end = End::Unknown;
            match self.ask("COMMIT") {
                Ok(answer) if answer.tag == "COMMIT" => end = End::Committed,
                Ok(answer) => self
                    .run
                    .unexpected
                    .lock()
                    .expect("unpoisoned")
                    .push(format!("COMMIT was answered by {}", answer.tag)),
                Err(Stop::Error) => end = End::Aborted,
                Err(Stop::Lost) => alive = false,
            }
        } else if alive {
            alive = !matches!(self.ask("ROLLBACK"), Err(Stop::Lost));
        }
        let ended = self.run.now();
        let mut txns = self.run.txns.lock().expect("unpoisoned");
        if !undone.is_empty() {
            txns.push(Txn { ops: undone, end: End::Aborted, began, ended });
        }
        txns.push(Txn { ops, end, began, ended });
        alive
    }

    fn ask(&mut self, sql: &str) -> Result<Answer, Stop> {
        match self.client.try_query(sql) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let state = error.state().to_owned();
                let level = self.run.level.as_str();
                let expected = match state.as_str() {
                    "40P01" | "57P01" | "57P03" => true,
                    "40001" => matches!(level, "REPEATABLE READ" | "SERIALIZABLE"),
                    _ => false,
                };
                if !expected {
                    let mut list = self.run.unexpected.lock().expect("unpoisoned");
                    list.push(format!("{sql}: {state} {}", error.message()));
                }
                *self.run.errors.lock().expect("unpoisoned").entry(state).or_default() += 1;
                Err(Stop::Error)
            }
            Err(_) => Err(Stop::Lost),
        }
    }

    /// An operation, in a savepoint that is rolled back now and then.
    fn step(&mut self, window: u64, ops: &mut Vec<Op>, undone: &mut Vec<Op>) -> Result<(), Stop> {
        if self.random.below(12) > 0 {
            return self.operation(window, ops);
        }
        self.ask("SAVEPOINT s")?;
        let mut inside = Vec::new();
        self.operation(window, &mut inside)?;
        if self.random.below(2) == 0 {
            self.ask("RELEASE s")?;
            ops.extend(inside);
        } else {
            self.ask("ROLLBACK TO s")?;
            undone.extend(
                inside
                    .into_iter()
                    .filter(|op| matches!(op, Op::Write(..) | Op::Append(..) | Op::Insert(..) | Op::Delete(..))),
            );
        }
        Ok(())
    }

    fn operation(&mut self, window: u64, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let key = window * KEYS + self.random.below(KEYS);
        let group = window * GROUPS + self.random.below(GROUPS);
        match self.random.below(20) {
            0..=3 => self.read_registers(key, key, ops),
            4 => {
                let to = key + self.random.below((window + 1) * KEYS - key);
                self.read_registers(key, to, ops)
            }
            5..=8 => self.write_register(key, ops),
            9..=11 => self.read_list(key, ops),
            12..=14 => self.append(key, ops),
            15 | 16 => self.range(group, ops),
            17 | 18 => {
                let id = self.run.value();
                self.ask(&format!("INSERT INTO mem VALUES ({id}, {group})"))?;
                ops.push(Op::Insert(group, id));
                Ok(())
            }
            _ => self.delete(group, ops),
        }
    }
    fn read_registers(&mut self, from: Key, to: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let lock = match self.random.below(12) {
            0 => " FOR UPDATE",
            1 => " FOR SHARE",
            2 => " FOR NO KEY UPDATE",
            _ => "",
        };
        let filter = if from == to { format!("k = {from}") } else { format!("k BETWEEN {from} AND {to}") };
        let answer = self.ask(&format!("SELECT k, v, n FROM reg WHERE {filter}{lock}"))?;
        let mut seen: HashMap<Key, (Value, u64)> =
            answer.rows.iter().map(|row| (number(&row[0]), (number(&row[1]), number(&row[2])))).collect();
        for key in from..=to {
            let (value, n) = seen.remove(&key).unwrap_or_default();
            ops.push(Op::Read(key, value, n));
        }
        Ok(())
    }
    fn write_register(&mut self, key: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let value = self.run.value();
        if self.random.below(2) == 0 {
            let answer = self.ask(&format!("UPDATE reg SET v = {value}, n = n + 1 WHERE k = {key} RETURNING n"))?;
            if let Some(row) = answer.rows.first() {
                ops.push(Op::Write(key, value, number(&row[0])));
                return Ok(());
            }
        }
        let sql = format!(
            "INSERT INTO reg VALUES ({key}, {value}, 1) ON CONFLICT (k) DO UPDATE SET v = excluded.v, n = reg.n + 1 RETURNING n"
        );
        let answer = self.ask(&sql)?;
        ops.push(Op::Write(key, value, answer.rows.first().map_or(0, |row| number(&row[0]))));
        Ok(())
    }
    fn read_list(&mut self, key: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let table = if key.is_multiple_of(2) { "lst" } else { "arr" };
        let answer = self.ask(&format!("SELECT v FROM {table} WHERE k = {key}"))?;
        ops.push(Op::ReadList(key, answer.rows.first().map_or_else(Vec::new, |row| list(&row[0]))));
        Ok(())
    }
    fn append(&mut self, key: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let value = self.run.value();
        let (table, added, update) = if key.is_multiple_of(2) {
            ("lst", format!("'{value}'"), format!("v || ',{value}'"))
        } else {
            ("arr", format!("ARRAY[{value}]::bigint[]"), format!("v || {value}::bigint"))
        };
        if self.random.below(2) == 0
            && self.ask(&format!("UPDATE {table} SET v = {update} WHERE k = {key}"))?.tag == "UPDATE 1"
        {
            ops.push(Op::Append(key, value));
            return Ok(());
        }
        self.ask(&format!(
            "INSERT INTO {table} VALUES ({key}, {added}) ON CONFLICT (k) DO UPDATE SET v = {table}.{update}"
        ))?;
        ops.push(Op::Append(key, value));
        Ok(())
    }
    fn range(&mut self, from: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let to = from + self.random.below(2);
        let answer = self.ask(&format!("SELECT id FROM mem WHERE grp BETWEEN {from} AND {to}"))?;
        let seen: BTreeSet<Value> = answer.rows.iter().map(|row| number(&row[0])).collect();
        if seen.len() != answer.rows.len() {
            self.run.unexpected.lock().expect("unpoisoned").push(format!("a row came twice: {}", answer.text()));
        }
        ops.push(Op::Range(from, to, seen));
        // What is counted in the same snapshot is what was listed.
        if self.run.level != "READ COMMITTED" && self.random.below(2) == 0 {
            let count = self.ask(&format!("SELECT count(*) FROM mem WHERE grp BETWEEN {from} AND {to}"))?.text();
            if count != answer.rows.len().to_string()
                && matches!(self.run.level.as_str(), "REPEATABLE READ" | "SERIALIZABLE")
            {
                let words = format!("{} rows listed and {count} counted in groups {from} to {to}", answer.rows.len());
                self.run.unexpected.lock().expect("unpoisoned").push(words);
            }
        }
        Ok(())
    }
    fn delete(&mut self, group: Key, ops: &mut Vec<Op>) -> Result<(), Stop> {
        let answer = self.ask(&format!("SELECT id FROM mem WHERE grp = {group} ORDER BY id LIMIT 1"))?;
        let Some(row) = answer.rows.first() else { return Ok(()) };
        let id = number(&row[0]);
        if self.ask(&format!("DELETE FROM mem WHERE id = {id}"))?.tag == "DELETE 1" {
            ops.push(Op::Delete(group, id));
        }
        Ok(())
    }
}

fn number(text: &Option<String>) -> u64 {
    text.as_deref().and_then(|t| t.parse().ok()).unwrap_or_default()
}
fn list(text: &Option<String>) -> Vec<Value> {
    let text = text.as_deref().unwrap_or_default().trim_matches(['{', '}']);
    text.split(',').filter_map(|v| v.parse().ok()).collect()
}

/// What the tables hold now.
pub fn last(client: &mut Client) -> Final {
    let mut last = Final::default();
    for row in client.query("SELECT k, v, n FROM reg").rows {
        last.registers.insert(number(&row[0]), (number(&row[1]), number(&row[2])));
    }
    for table in ["lst", "arr"] {
        for row in client.query(&format!("SELECT k, v FROM {table}")).rows {
            last.lists.insert(number(&row[0]), list(&row[1]));
        }
    }
    last.rows = client.query("SELECT id FROM mem").rows.iter().map(|row| number(&row[0])).collect();
    last
}
