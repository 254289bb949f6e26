//! Runs one permutation of a spec: a connection and a thread for each session, and one connection more that asks who is blocked.
//!
//! ```text
//! send the step ─> settle: every step that is under way has ended, or stably waits ─> print it, then those that went on
//! ```
//!
//! A step waits *stably* when it is blocked by a session that does nothing, or by one that waits stably itself, and is in no circle: a blocker that is still running
//! may free it any moment, and a circle is a deadlock, which the server resolves. `pg_blocking_pids` says who blocks whom; where a server lacks it, `pg_locks`
//! says who waits, where it lacks that too, half a second without an answer does, and where it is wrong, four seconds.
//!
//! What must stay true: the output depends on the server's decisions only, never on its speed. Process ids, transaction ids, oids and ctids are printed as words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use pgbee_tests::{Client, WireError};

use super::spec::{Choice, Spec, Turn, chosen};

/// A step to be waited for that has not ended by then is cancelled, and the output says so.
const PATIENCE: Duration = Duration::from_secs(15);

/// A step without an answer for so long is taken to wait, even if the server does not say so; the run counts these.
const SILENCE: Duration = Duration::from_secs(4);

/// Between two answers that everything waits; both have to say so.
const BETWEEN: Duration = Duration::from_millis(6);

enum Job {
    Run(String),
    /// Print what comes within this time.
    Listen(Duration),
}

/// A session under way.
struct Peer {
    name: String,
    pid: i32,
    key: (i32, i32),
    jobs: Sender<Job>,
    /// Lines of a finished job.
    lines: Receiver<Vec<String>>,
    /// Step under way: its turn, since when, and its lines once it has ended.
    step: Option<(Turn, Instant, Option<Vec<String>>)>,
}

/// How a server is asked who is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `pg_blocking_pids`, and whether there is `pg_safe_snapshot_blocking_pids` too.
    Blocking(bool),
    /// Ungranted rows of `pg_locks`.
    Locks,
    /// Half a second without an answer.
    Time,
}

impl Probe {
    /// The best one this server has.
    pub fn of(control: &mut Client) -> Probe {
        let mut works = |sql: &str| matches!(control.try_query(sql), Ok(Ok(_)));
        if works("SELECT pg_blocking_pids(1)") {
            Probe::Blocking(works("SELECT pg_safe_snapshot_blocking_pids(1)"))
        } else if works("SELECT pid FROM pg_locks WHERE NOT granted") {
            Probe::Locks
        } else {
            Probe::Time
        }
    }
}

/// Where permutations run: a server's port, a database of it, and a connection to it.
pub struct Stage {
    /// The server's port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Sets up, asks who is blocked, and asks the final questions.
    pub control: Client,
    /// How it asks.
    pub probe: Probe,
    /// How often a step was taken to wait though the server did not say so.
    pub by_silence: usize,
    /// The spec under way says that this may be.
    pub may_be_silent: bool,
}

impl Stage {
    /// A stage on this database.
    pub fn new(port: u16, database: &str) -> Stage {
        let mut control = connect(port, database);
        let probe = Probe::of(&mut control);
        Stage { port, database: database.to_owned(), control, probe, by_silence: 0, may_be_silent: false }
    }

    /// Runs a permutation; what it printed.
    pub fn run(&mut self, spec: &Spec, order: &[Turn], choice: &Choice) -> String {
        let mut out = String::new();
        self.may_be_silent = spec.silent;
        for sql in &spec.setup {
            self.say("setup", &chosen(sql, choice), &mut out, false);
        }
        let mut peers = Vec::new();
        for session in &spec.sessions {
            let mut client = connect(self.port, &self.database);
            for sql in &session.setup {
                let lines = run(&mut client, &chosen(sql, choice));
                for line in lines.iter().filter(|line| line.contains("ERROR")) {
                    let _ = writeln!(out, "{} setup: {line}", session.name);
                }
            }
            peers.push(Peer::start(session.name.clone(), client));
        }
        self.turns(spec, order, choice, &mut peers, &mut out);
        for peer in peers {
            peer.end(self.port);
        }
        for sql in &spec.finals {
            self.say("final", &chosen(sql, choice), &mut out, true);
        }
        for sql in &spec.teardown {
            self.say("teardown", &chosen(sql, choice), &mut out, false);
        }
        out
    }

    /// A statement of the spec itself: errors are printed, rows where they are wanted.
    fn say(&mut self, what: &str, sql: &str, out: &mut String, rows: bool) {
        let lines = run(&mut self.control, sql);
        if rows {
            let _ = writeln!(out, "{what}: {sql}");
        }
        for line in lines.iter().filter(|line| rows || line.contains("ERROR")) {
            let _ = writeln!(out, "{}{line}", if rows { "  " } else { what });
        }
    }

    fn turns(&mut self, spec: &Spec, order: &[Turn], choice: &Choice, peers: &mut [Peer], out: &mut String) {
        let names: Vec<(i32, String)> = peers.iter().map(|p| (p.pid, p.name.clone())).collect();
        let step_name = |turn: &Turn| &spec.sessions[turn.session].steps[turn.step].0;
        let print = |out: &mut String, lines: &[String]| {
            for line in lines {
                let _ = writeln!(out, "  {}", without_numbers(line, &names));
            }
        };
        for turn in order {
            let (name, sql) = &spec.sessions[turn.session].steps[turn.step];
            let sql = chosen(sql, choice);
            if let Some((waiting, ..)) = &peers[turn.session].step {
                let _ = writeln!(out, "end: {name} cannot be sent while {} waits", step_name(waiting));
                return;
            }
            let _ = writeln!(out, "{} {name}: {sql}", peers[turn.session].name);
            peers[turn.session].begin(turn.clone(), sql);
            let settled = self.settle(peers, turn);
            let own = &mut peers[turn.session];
            match own.step.take() {
                Some((_, _, Some(lines))) => print(out, &lines),
                waiting => {
                    let _ = writeln!(out, "  <waiting ...>");
                    own.step = waiting;
                }
            }
            // Those that went on, the longest under way first.
            let mut went_on: Vec<(Instant, usize)> =
                peers.iter().enumerate().filter_map(|(i, p)| p.ended().map(|at| (at, i))).collect();
            went_on.sort();
            for (_, i) in went_on {
                if let Some((turn, _, Some(lines))) = peers[i].step.take() {
                    let _ = writeln!(out, "{} {}: <... goes on>", peers[i].name, step_name(&turn));
                    print(out, &lines);
                }
            }
            if !settled {
                let _ = writeln!(out, "end: no answer in {PATIENCE:?}");
                return;
            }
            if spec.listen {
                for peer in peers.iter().filter(|p| p.step.is_none()) {
                    let _ = peer.jobs.send(Job::Listen(Duration::from_millis(60)));
                    let lines = peer.lines.recv().unwrap_or_default();
                    for line in lines {
                        let _ = writeln!(out, "{} is told: {}", peer.name, without_numbers(&line, &names));
                    }
                }
            }
        }
        for peer in peers.iter() {
            if let Some((turn, ..)) = &peer.step {
                let _ = writeln!(out, "end: {} still waits", step_name(turn));
            }
        }
    }

    /// Until each step under way has ended or waits stably. False when that took too long.
    fn settle(&mut self, peers: &mut [Peer], last: &Turn) -> bool {
        let began = Instant::now();
        let mut seen_waiting = false;
        peers[last.session].look(Duration::from_millis(2));
        loop {
            peers.iter_mut().for_each(|p| p.look(Duration::ZERO));
            let running: Vec<usize> = (0..peers.len()).filter(|i| peers[*i].runs()).collect();
            if running.is_empty() {
                return true;
            }
            let to_the_end = last.to_the_end && running.contains(&last.session);
            if began.elapsed() > PATIENCE {
                return false;
            }
            let silence = if self.may_be_silent { SILENCE / 4 } else { SILENCE };
            if began.elapsed() > silence && !to_the_end {
                self.by_silence += usize::from(!self.may_be_silent);
                return true;
            }
            let waiting = !to_the_end && self.all_wait(peers, &running, began);
            peers.iter_mut().for_each(|p| p.look(Duration::ZERO));
            let same = running.iter().all(|i| peers[*i].runs());
            if waiting && same && seen_waiting {
                return true;
            }
            seen_waiting = waiting && same;
            peers[running[0]].look(BETWEEN);
        }
    }

    /// Does every one of these wait stably?
    fn all_wait(&mut self, peers: &[Peer], running: &[usize], began: Instant) -> bool {
        match self.probe {
            Probe::Time => running.iter().all(|i| {
                let since = peers[*i].step.as_ref().map_or(began, |(_, since, _)| *since);
                since.elapsed() > Duration::from_millis(500) && began.elapsed() > Duration::from_millis(300)
            }),
            Probe::Locks => {
                let waiting = self.control.query("SELECT DISTINCT pid FROM pg_locks WHERE NOT granted").text();
                let waiting: BTreeSet<i32> = waiting.lines().filter_map(|l| l.parse().ok()).collect();
                running.iter().all(|i| waiting.contains(&peers[*i].pid))
            }
            Probe::Blocking(safe) => {
                let columns: Vec<String> = running
                    .iter()
                    .map(|i| {
                        let pid = peers[*i].pid;
                        let more =
                            if safe { format!(" || pg_safe_snapshot_blocking_pids({pid})") } else { String::new() };
                        format!("pg_blocking_pids({pid}){more}")
                    })
                    .collect();
                let answer = self.control.query(&format!("SELECT {}", columns.join(", ")));
                let mut blockers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
                for (column, i) in running.iter().enumerate() {
                    let text = answer.rows[0][column].clone().unwrap_or_default();
                    let pids = text.trim_matches(['{', '}']).split(',').filter_map(|p| p.parse::<i32>().ok());
                    blockers.insert(*i, pids.filter_map(|pid| peers.iter().position(|p| p.pid == pid)).collect());
                }
                stable(&blockers).len() == running.len()
            }
        }
    }
}

/// Those that wait for someone who does nothing (is no key of `blockers`), directly or through others, and are in no circle.
fn stable(blockers: &BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    let reaches = |from: usize, to: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            for b in blockers.get(&next).into_iter().flatten() {
                if *b == to {
                    return true;
                }
                if seen.insert(*b) {
                    open.push(*b);
                }
            }
        }
        false
    };
    let mut found = BTreeSet::new();
    loop {
        let more: Vec<usize> = blockers
            .iter()
            .filter(|(i, by)| {
                !found.contains(*i)
                    && by.iter().any(|b| !blockers.contains_key(b) || found.contains(b))
                    && !reaches(**i, **i)
            })
            .map(|(i, _)| *i)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

impl Peer {
    fn start(name: String, mut client: Client) -> Peer {
        let (jobs, orders) = channel();
        let (sender, lines) = channel();
        let key = client.cancel_key;
        std::thread::spawn(move || {
            for job in orders {
                let lines = match job {
                    Job::Run(sql) => run(&mut client, &sql),
                    Job::Listen(within) => notifications(&mut client, within),
                };
                if sender.send(lines).is_err() {
                    return;
                }
            }
        });
        Peer { name, pid: key.0, key, jobs, lines, step: None }
    }
    fn begin(&mut self, turn: Turn, sql: String) {
        self.step = Some((turn, Instant::now(), None));
        let _ = self.jobs.send(Job::Run(sql));
    }
    fn runs(&self) -> bool {
        matches!(self.step, Some((_, _, None)))
    }
    fn ended(&self) -> Option<Instant> {
        self.step.as_ref().and_then(|(_, since, lines)| lines.as_ref().map(|_| *since))
    }
    /// Takes the lines of the step under way, if they come within this time.
    fn look(&mut self, within: Duration) {
        if let Some((_, _, lines @ None)) = &mut self.step {
            match self.lines.recv_timeout(within) {
                Ok(got) => *lines = Some(got),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => *lines = Some(vec!["the connection is lost".to_owned()]),
            }
        }
    }
    /// Cancels what is under way and rolls back.
    fn end(mut self, port: u16) {
        let began = Instant::now();
        while self.runs() && began.elapsed() < PATIENCE {
            let _ = Client::cancel(port, self.key);
            self.look(Duration::from_millis(100));
        }
        if !self.runs() {
            let _ = self.jobs.send(Job::Run("ROLLBACK; SELECT pg_advisory_unlock_all()".to_owned()));
            let _ = self.lines.recv_timeout(PATIENCE);
        }
    }
}

/// Connects, for the server may be counting those that are about to leave.
fn connect(port: u16, database: &str) -> Client {
    let parameters = [("user", "postgres"), ("database", database), ("application_name", "isolation")];
    let mut tries = 0;
    loop {
        match Client::connect(port, &parameters) {
            Ok(client) => return client,
            Err(error) => {
                tries += 1;
                assert!(tries < 50, "a connection to {database}: {error}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Runs a step; its answer in lines. A step is a simple query, or `\prepare NAME SQL` and `\execute NAME values...` in the extended protocol.
fn run(client: &mut Client, sql: &str) -> Vec<String> {
    let sent = if let Some(rest) = sql.strip_prefix("\\prepare ") {
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let body = [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat();
        client.send(b'P', &body).and_then(|()| client.send(b'S', &[]))
    } else if let Some(rest) = sql.strip_prefix("\\execute ") {
        let mut words = rest.split_whitespace();
        let name = words.next().unwrap_or("");
        let values: Vec<&str> = words.collect();
        let mut body = [b"\0", name.as_bytes(), b"\0\0\0"].concat();
        body.extend((values.len() as u16).to_be_bytes());
        for value in values {
            body.extend((value.len() as u32).to_be_bytes());
            body.extend(value.as_bytes());
        }
        body.extend([0, 0]);
        client.send(b'B', &body).and_then(|()| client.send(b'E', &[0; 5])).and_then(|()| client.send(b'S', &[]))
    } else {
        client.send(b'Q', &[sql.as_bytes(), b"\0"].concat())
    };
    let mut lines = Vec::new();
    if let Err(error) = sent {
        return vec![format!("the connection is lost: {}", error.kind())];
    }
    // Where the rows of the statement under way begin: if it fails they are no part of the outcome, for servers differ in how early they send them.
    let (mut rows, mut first) = (false, 0);
    loop {
        let notices = client.notices.len();
        let message = client.receive();
        lines.extend(client.notices[notices..].iter().map(|n| format!("NOTICE {n}")));
        match message {
            Ok((b'T', _)) => rows = false,
            Ok((b'D', body)) => {
                if !rows {
                    (rows, first) = (true, lines.len());
                }
                lines.push(
                    Client::row(&body)
                        .into_iter()
                        .map(|v| v.unwrap_or_else(|| "<null>".to_owned()))
                        .collect::<Vec<_>>()
                        .join("|"),
                );
            }
            Ok((b'C', body)) => {
                let tag = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
                if !(rows && tag.starts_with("SELECT")) {
                    lines.push(tag);
                }
                rows = false;
            }
            Ok((b'E', body)) => {
                if rows {
                    lines.truncate(first);
                }
                lines.extend(error(&Client::error(&body)));
            }
            Ok((b'A', body)) => lines.push(notification(&body)),
            Ok((b'Z', _)) => return lines,
            Ok(_) => {}
            Err(error) => {
                lines.push(format!("the connection is lost: {}", error.kind()));
                return lines;
            }
        }
    }
}

/// An error in lines. The details of 40001 name the way it was found, which is each server's own.
fn error(error: &WireError) -> Vec<String> {
    let mut lines = vec![format!("{} {}: {}", error.field('S').unwrap_or("ERROR"), error.state(), error.message())];
    if error.state() != "40001" {
        let detail = error.field('D').into_iter().flat_map(str::lines).map(|l| format!("DETAIL {l}"));
        lines.extend(detail.chain(error.field('H').map(|h| format!("HINT {h}"))));
    }
    lines
}

fn notification(body: &[u8]) -> String {
    let pid = i32::from_be_bytes([body[0], body[1], body[2], body[3]]);
    let mut words = body[4..].split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    format!(
        "notification {} '{}' from process {pid}",
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default()
    )
}

/// What comes unasked within this time.
fn notifications(client: &mut Client, within: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    while client.readable(within).unwrap_or(false) {
        match client.receive() {
            Ok((b'A', body)) => lines.push(notification(&body)),
            Ok((kind, _)) => lines.push(format!("message {}", char::from(kind))),
            Err(error) => {
                lines.push(format!("the connection is lost: {}", error.kind()));
                break;
            }
        }
    }
    lines
}

/// Numbers that differ from run to run, as words: sessions by their names.
fn without_numbers(line: &str, names: &[(i32, String)]) -> String {
    if !["DETAIL", "notification", "NOTICE"].iter().any(|w| line.starts_with(w)) {
        return line.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut before = String::new();
    for word in line.split(' ') {
        let number: String = word.chars().take_while(char::is_ascii_digit).collect();
        let rest = &word[number.len()..];
        let shown = match before.to_ascii_lowercase().as_str() {
            "process" if !number.is_empty() => {
                let name = names.iter().find(|(pid, _)| pid.to_string() == number).map_or("?", |(_, name)| name);
                format!("<{name}>{rest}")
            }
            "transaction" | "relation" | "database" if !number.is_empty() => format!("<n>{rest}"),
            "tuple" if word.starts_with('(') => "<ctid>".to_owned(),
            // An advisory lock's first number is the database.
            "lock" if word.starts_with('[') => {
                word.split_once(',').map_or(word.to_owned(), |(_, keys)| format!("[<n>,{keys}"))
            }
            _ => word.to_owned(),
        };
        word.clone_into(&mut before);
        words.push(shown);
    }
    words.join(" ")
}

#[test]
fn who_waits_stably() {
    let graph = |edges: &[(usize, &[usize])]| {
        edges.iter().map(|(i, by)| (*i, by.iter().copied().collect())).collect::<BTreeMap<_, BTreeSet<_>>>()
    };
    // 1 waits for the idle 0, 2 for 1.
    assert_eq!(stable(&graph(&[(1, &[0]), (2, &[1])])), [1, 2].into());
    // 1 and 2 are a deadlock; 3 waits for 1, which will be freed.
    assert!(stable(&graph(&[(1, &[2]), (2, &[1]), (3, &[1])])).is_empty());
    // 1 runs, so 2 will go on.
    assert!(stable(&graph(&[(1, &[]), (2, &[1])])).is_empty());
}
