//! What does a commit of one row cost: time, processor, fsyncs, bytes to disk, room on disk? And what of it is shared when many commit at once?
//!
//! One row of 100 bytes among 100,000 is changed by each commit, by 1, 8 and 32 threads, on RocksDB with an fsync. `fsyncs` counts the writes that asked for one;
//! `written` is what the process gave to the disk (/proc/self/io: whole pages, compaction included), `logged` what of it were the bytes of batches; processor time is
//! user and system of the whole process. Then so many commits without fsync, to see what a database grows by: its files before and after, once RocksDB
//! has settled. benches/compare/writes.sh asks the server and PostgreSQL the same. usage: commits [SECONDS [GROWTH]]     (default 5 1000000)

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::Result;
use pgbee_engine::bee::Cache;
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability, Range, Scan, Space, Statistics, WriteBatch};
use pgbee_engine::txn::{CommitInfo, Database, Options};

const ROWS: u64 = 100_000;
const THREADS: [u64; 3] = [1, 8, 32];

/// RocksDB, with what is written counted.
struct Counting {
    inner: Rocks,
    syncs: AtomicU64,
    bytes: AtomicU64,
}

impl Backend for Counting {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(space, key)
    }
    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.inner.multi_get(space, keys)
    }
    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        self.inner.scan(space, range, reverse)
    }
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.syncs.fetch_add(u64::from(durability == Durability::Sync), Ordering::Relaxed);
        self.bytes.fetch_add(batch.byte_len() as u64, Ordering::Relaxed);
        self.inner.write(batch, durability)
    }
    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().expect("arguments are numbers")).collect();
    let (seconds, growth) = (numbers.first().copied().unwrap_or(5), numbers.get(1).copied().unwrap_or(1_000_000));
    if let Err(error) = measure(Duration::from_secs(seconds), growth) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn key(i: u64) -> Vec<u8> {
    // As the SQL layer lays them out: a kind, a table's number, the primary key.
    [&[3, 0, 0, 0x40, 0][..], &i.to_be_bytes()].concat()
}

fn commit(db: &Database, i: u64, value: u64, durability: Durability) -> Result<()> {
    let mut txn = db.begin();
    let mut row = [7; 100];
    row[..8].copy_from_slice(&value.to_be_bytes());
    txn.put_guarded(key(i), row.to_vec())?;
    let info = CommitInfo {
        user: "bench".into(),
        application: "bench".into(),
        rows_changed: 1,
        durability,
        ..CommitInfo::at(1)
    };
    db.commit(txn, info).map(|_| ())
}

fn measure(time: Duration, growth: u64) -> Result<()> {
    let directory = tempfile::tempdir_in(std::env::var_os("BENCH_DIRECTORY").unwrap_or_else(|| ".".into()))
        .expect("a temporary directory");
    let rocks = Rocks::open(directory.path(), &RocksOptions::default())?;
    let backend = Arc::new(Counting { inner: rocks, syncs: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let store = Store::open(backend.clone(), corestore::Options { primary_key: None })?;
    let db = Database::open(store.get_by_name("bench")?, Cache::new(256 << 20), Options::default())?;
    for first in (0..ROWS).step_by(10_000) {
        let mut txn = db.begin();
        for i in first..first + 10_000 {
            txn.put(key(i), vec![7; 100])?;
        }
        db.commit(txn, CommitInfo::at(1))?;
    }
    println!(
        "{:>8} {:>12} {:>14} {:>16} {:>14} {:>14}",
        "threads", "commits/s", "cpu us each", "fsyncs each", "logged each", "written each"
    );
    for threads in THREADS {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let before = (
            processor_micros(),
            backend.syncs.load(Ordering::Relaxed),
            backend.bytes.load(Ordering::Relaxed),
            written_bytes(),
        );
        let from = Instant::now();
        thread::scope(|scope| {
            for thread in 0..threads {
                let (db, stop, done) = (&db, &stop, &done);
                scope.spawn(move || {
                    let mut i = thread;
                    while !stop.load(Ordering::Relaxed) {
                        // Each its own rows: nobody conflicts.
                        i = (i + 7919 * threads) % ROWS / threads * threads + thread;
                        commit(db, i % ROWS, i, Durability::Sync).expect("a commit");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
        let (elapsed, commits) = (from.elapsed().as_secs_f64(), done.into_inner() as f64);
        println!(
            "{threads:>8} {:>12.0} {:>14.1} {:>16.3} {:>14.0} {:>14.0}",
            commits / elapsed,
            (processor_micros() - before.0) / commits,
            (backend.syncs.load(Ordering::Relaxed) - before.1) as f64 / commits,
            (backend.bytes.load(Ordering::Relaxed) - before.2) as f64 / commits,
            (written_bytes() - before.3) as f64 / commits
        );
    }
    if growth == 0 {
        return Ok(());
    }
    let (room, written, from) = (directory_bytes(directory.path()), written_bytes(), Instant::now());
    for i in 0..growth {
        commit(&db, i * 7919 % ROWS, i, Durability::NoSync)?;
    }
    db.core().sync()?;
    let seconds = from.elapsed().as_secs_f64();
    let mut settled = directory_bytes(directory.path());
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = directory_bytes(directory.path());
        if now == settled {
            break;
        }
        settled = now;
    }
    println!(
        "{growth} commits without fsync: {:.0}/s, {:.0} bytes of files each, {:.0} bytes written each",
        growth as f64 / seconds,
        (settled as f64 - room as f64) / growth as f64,
        (written_bytes() - written) as f64 / growth as f64
    );
    Ok(())
}

/// User and system time of this process.
fn processor_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after = stat.rsplit(") ").next().expect("a name in brackets");
    // Fields 14 and 15, in hundredths of a second.
    after.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().expect("a number") * 10_000.0).sum()
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("write_bytes");
    line.parse().expect("a number")
}

fn directory_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the store's directory").flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
