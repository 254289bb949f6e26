//! What do a thousand clients cost who mostly say nothing, and what do hundreds who wait for one lock?
//!
//! ```text
//! memory     1,000 sessions that have run a few statements and are silent: what each adds (of PostgreSQL's processes the proportional set sizes)
//! speed      point reads by 8 clients, alone and beside the 1,000
//! lock       300 sessions wait for one row: what its holder's statements take, how fast one of the waiters is cancelled, and how fast all are served at last
//! ```
//!
//! usage: connections [IDLE] [SECONDS]      (1,000 and 4). Needs PostgreSQL 15's programs and an open-files limit of some thousands; Linux only.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgbee_tests::{Client, Server};

const WAITERS: usize = 300;
const BUSY: usize = 8;
const ROUNDS: usize = 3;
const ROWS: usize = 100_000;

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("a number"));
    let idle = words.next().unwrap_or(1000);
    let seconds = Duration::from_secs(words.next().unwrap_or(4) as u64);
    let places = (idle + WAITERS + 50).to_string();
    let postgres = Postgres::start(&places);
    let pgbee = Server::start_with(&["--max-connections", &places]);
    let sides = [
        Side { port: postgres.port, pids: Pids::Processes(postgres.child.id()) },
        Side { port: pgbee.port, pids: Pids::One(pgbee.pid()) },
    ];
    println!("{:<58} {:>12} {:>12} {:<8} {:>7}", "question", "postgresql", "pgbee", "unit", "ratio");
    let prepare = |side: &Side| {
        let mut c = side.client();
        c.query("CREATE TABLE points (id int PRIMARY KEY, v text NOT NULL)");
        c.query(&format!("INSERT INTO points SELECT i, 'value ' || i FROM generate_series(1, {ROWS}) i"));
    };
    sides.iter().for_each(prepare);
    let alone = alternate(&sides, |side| side.reads_a_second(seconds));
    row("point reads by 8 clients", "/s", true, alone);
    let mut held = Vec::new();
    let mut figures = Vec::new();
    for side in &sides {
        let (clients, kib, rate) = side.many(idle);
        held.push(clients);
        figures.push((kib, rate));
    }
    row(&format!("memory of one of {idle} that are silent"), "KiB", false, [figures[0].0, figures[1].0]);
    row(&format!("sessions begun a second, {idle} of them"), "/s", true, [figures[0].1, figures[1].1]);
    let beside = alternate(&sides, |side| side.reads_a_second(seconds));
    row(&format!("point reads by 8 clients beside {idle} silent ones"), "/s", true, beside);
    row("part of the speed that is kept", "", true, [beside[0] / alone[0], beside[1] / alone[1]]);
    drop(held);
    let crowds = [sides[0].crowd(), sides[1].crowd()];
    row(
        &format!("a statement of the holder while {WAITERS} wait"),
        "ms",
        false,
        crowds.each_ref().map(|c| c.holder_ms),
    );
    row("a waiter's cancel, until it is told", "ms", false, crowds.each_ref().map(|c| c.cancel_ms));
    row(
        &format!("{WAITERS} served one after the other, once it commits"),
        "s",
        false,
        crowds.each_ref().map(|c| c.served_s),
    );
}

fn row(question: &str, unit: &str, is_more_better: bool, [postgres, pgbee]: [f64; 2]) {
    let ratio = if is_more_better { pgbee / postgres } else { postgres / pgbee };
    println!("{question:<58} {postgres:>12.4} {pgbee:>12.4} {unit:<8} {ratio:>6.2}x");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The median of a few rounds, in which the sides take turns.
fn alternate(sides: &[Side; 2], measure: impl Fn(&Side) -> f64) -> [f64; 2] {
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| sides.each_ref().map(&measure)).collect();
    [0, 1].map(|i| median(rounds.iter().map(|r| r[i]).collect()))
}

/// A server under test.
struct Side {
    port: u16,
    pids: Pids,
}

/// What its memory is counted over.
enum Pids {
    /// One process.
    One(u32),
    /// This process and its children.
    Processes(u32),
}

struct Crowd {
    holder_ms: f64,
    cancel_ms: f64,
    served_s: f64,
}

impl Side {
    fn client(&self) -> Client {
        Client::connect(self.port, &[("user", "postgres"), ("database", "postgres")]).expect("a connection")
    }

    fn reads_a_second(&self, time: Duration) -> f64 {
        let over = AtomicBool::new(false);
        let start = Instant::now();
        let reads: usize = std::thread::scope(|scope| {
            let client = |number: usize| {
                let (mut c, over) = (self.client(), &over);
                move || {
                    let mut random = number as u64 + 1;
                    let mut done = 0;
                    while !over.load(Ordering::Relaxed) {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        c.query(&format!("SELECT v FROM points WHERE id = {}", (random >> 33) as usize % ROWS + 1));
                        done += 1;
                    }
                    done
                }
            };
            let all: Vec<_> = (0..BUSY).map(|number| scope.spawn(client(number))).collect();
            std::thread::sleep(time);
            over.store(true, Ordering::Relaxed);
            all.into_iter().map(|one| one.join().expect("it ran")).sum()
        });
        reads as f64 / start.elapsed().as_secs_f64()
    }

    /// So many who have said something and say nothing now; KiB each, and how many came in a second.
    fn many(&self, count: usize) -> (Vec<Client>, f64, f64) {
        let speak = |client: &mut Client, i: usize| {
            client.query("SET application_name = 'one of many'");
            client.query(&format!("SELECT v FROM points WHERE id = {}", i % ROWS + 1));
            client.query(&format!("UPDATE points SET v = v WHERE id = {}", i % ROWS + 1));
        };
        let first: Vec<Client> = (0..50)
            .map(|i| {
                let mut c = self.client();
                speak(&mut c, i);
                c
            })
            .collect();
        let settle = || std::thread::sleep(Duration::from_secs(12));
        settle();
        let before = self.kib();
        let start = Instant::now();
        let mut all: Vec<Client> = (0..count).map(|_| self.client()).collect();
        let rate = count as f64 / start.elapsed().as_secs_f64();
        for (i, client) in all.iter_mut().enumerate() {
            speak(client, i);
        }
        settle();
        let each = (self.kib() - before) / count as f64;
        drop(first);
        (all, each, rate)
    }

    fn crowd(&self) -> Crowd {
        let mut holder = self.client();
        holder.query("CREATE TABLE crowd (a int PRIMARY KEY, b int)");
        holder.query("INSERT INTO crowd VALUES (1, 0), (2, 0)");
        holder.query("BEGIN");
        holder.query("UPDATE crowd SET b = b + 1 WHERE a = 1");
        let mut waiters: Vec<Client> = (0..WAITERS).map(|_| self.client()).collect();
        for waiter in &mut waiters {
            waiter.send(b'Q', b"UPDATE crowd SET b = b + 1 WHERE a = 1\0").expect("sent");
        }
        let mut other = self.client();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE crowd%'";
        while other.query(waiting).text() != WAITERS.to_string() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let timed = |f: &mut dyn FnMut()| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64() * 1e3
        };
        let holder_ms = median(
            (0..101).map(|_| timed(&mut || drop(holder.query("UPDATE crowd SET b = b + 1 WHERE a = 2")))).collect(),
        );
        let mut cancelled = Vec::new();
        for waiter in waiters.iter_mut().skip(WAITERS / 2).take(21) {
            cancelled.push(timed(&mut || {
                Client::cancel(self.port, waiter.cancel_key).expect("asked");
                waiter.collect().expect("the connection holds").expect_err("cancelled");
            }));
        }
        let left = |i: &usize| !(WAITERS / 2..WAITERS / 2 + 21).contains(i);
        let served = timed(&mut || {
            holder.query("COMMIT");
            for (_, waiter) in waiters.iter_mut().enumerate().filter(|(i, _)| left(i)) {
                waiter.collect().expect("the connection holds").expect("updated");
            }
        });
        Crowd { holder_ms, cancel_ms: median(cancelled), served_s: served / 1e3 }
    }

    /// Memory the server has, shared pages counted once.
    fn kib(&self) -> f64 {
        let pss = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0)
        };
        match self.pids {
            Pids::One(pid) => pss(pid),
            Pids::Processes(parent) => pss(parent) + children(parent).into_iter().map(pss).sum::<f64>(),
        }
    }
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1).and_then(|p| p.parse().ok()) == Some(parent)
    };
    pids.filter(is_child).collect()
}

/// A PostgreSQL on a directory of its own.
struct Postgres {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Postgres {
    fn start(places: &str) -> Postgres {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bin = PathBuf::from(std::env::var("PGBIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned()));
        // It refuses to be run by root.
        let is_root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("Uid:\t0\t"));
        if is_root {
            let owned = Command::new("chown").arg("postgres").arg(directory.path()).status();
            assert!(owned.is_ok_and(|s| s.success()), "the role postgres of the system owns its data");
        }
        let program = |name: &str| {
            let mut command = match is_root {
                true => {
                    let mut command = Command::new("setpriv");
                    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(bin.join(name));
                    command
                }
                false => Command::new(bin.join(name)),
            };
            command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(directory.path());
            command
        };
        let data = directory.path().join("data");
        let made = program("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8"])
            .status();
        assert!(made.expect("initdb runs").success(), "initdb failed");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let child = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("max_connections={places}")])
            .spawn()
            .expect("postgres runs");
        let postgres = Postgres { child, port, _directory: directory };
        let parameters = [("user", "postgres"), ("database", "postgres")];
        for _ in 0..600 {
            if Client::connect(port, &parameters).is_ok() {
                return postgres;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL did not start");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once: nothing of it is kept.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
