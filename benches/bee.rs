//! What does a bee cost, and how does the cost grow with the number of keys?
//!
//! For each size: a load in batches of 10,000 through the signed, fsynced log on RocksDB; the first 5,000 gets, in no order, after opening it (cold: nothing is
//! decoded, the operating system's own cache is warm) and the same again (warm); an ordered scan of everything, first and second time. Keys of 11 bytes, values
//! of 100. Every figure is the median of three rounds, each on a store opened anew; what is read is checked. compare/hyperbee.mjs asks JavaScript the same. usage: bee [SIZE...]     (default 10000 100000 1000000)

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pgbee_engine::bee::{Bee, Cache, Direction, KeyRange, Writer};
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability};
use pgbee_engine::{Result, Version};

const BATCH: u64 = 10_000;
const GETS: u64 = 5_000;
const ROUNDS: usize = 3;
const CACHE_BYTES: usize = 2 << 30;
const SOURCE_ID: u64 = 1;

fn key(i: u64) -> String {
    format!("k{i:010}")
}

fn main() {
    let sizes: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().expect("sizes are numbers")).collect();
    let sizes = if sizes.is_empty() { vec![10_000, 100_000, 1_000_000] } else { sizes };
    println!(
        "{:>10} {:>14} {:>10} {:>10} {:>14} {:>14}",
        "keys", "put entries/s", "cold get", "warm get", "cold scan /s", "warm scan /s"
    );
    for size in sizes {
        if let Err(error) = measure(size) {
            eprintln!("{size}: {error}");
            std::process::exit(1);
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn open(directory: &std::path::Path) -> Result<Arc<Core>> {
    let backend: Arc<dyn Backend> = Arc::new(Rocks::open(directory, &RocksOptions::default())?);
    Store::open(backend, Options { primary_key: None })?.get_by_name("bench")
}

/// Fills a new store; entries a second.
fn load(directory: &std::path::Path, size: u64) -> Result<f64> {
    let core = open(directory)?;
    let started = Instant::now();
    let value = [7u8; 100];
    let mut writer = Writer::new(core.clone(), Cache::new(64 << 20), SOURCE_ID, core.len());
    for first in (0..size).step_by(BATCH as usize) {
        let mut batch = writer.batch();
        for i in first..(first + BATCH).min(size) {
            batch.put(key(i).as_bytes(), Some(&value))?;
        }
        batch.flush();
        let blocks: Vec<Bytes> = writer.take_pending();
        core.append(&blocks, Durability::Sync)?;
        writer.appended();
    }
    Ok(size as f64 / started.elapsed().as_secs_f64())
}

fn measure(size: u64) -> Result<()> {
    let (mut directory, mut put) = (None, Vec::new());
    for _ in 0..ROUNDS {
        let fresh = tempfile::tempdir().expect("a temporary directory");
        put.push(load(fresh.path(), size)?);
        directory = Some(fresh);
    }
    let directory = directory.expect("there is a round");
    let put = median(put);

    // A walk that meets every key once, in no order: 7919 divides no power of ten.
    let keys: Vec<String> = (0..size.min(GETS)).map(|i| key(i * 7919 % size)).collect();
    let (mut cold, mut warm, mut cold_scan, mut warm_scan) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let core = open(directory.path())?;
        let version = Version(core.len().0);
        let snapshot = Bee::new(core.clone(), Cache::new(CACHE_BYTES), SOURCE_ID).at(version);
        let gets = || -> Result<f64> {
            let from = Instant::now();
            for key in &keys {
                assert_eq!(snapshot.get(key.as_bytes())?.and_then(|e| e.value).map(|v| v.len()), Some(100));
            }
            Ok(from.elapsed().as_secs_f64() * 1e6 / keys.len() as f64)
        };
        cold.push(gets()?);
        warm.push(gets()?);
        let snapshot = Bee::new(core, Cache::new(CACHE_BYTES), SOURCE_ID).at(version);
        let scan = || -> Result<f64> {
            let from = Instant::now();
            let (mut cursor, mut seen) = (snapshot.cursor(KeyRange::all(), Direction::Forward), 0);
            while let Some(entry) = cursor.next()? {
                seen += u64::from(entry.value.is_some_and(|v| v.len() == 100));
            }
            assert_eq!(seen, size);
            Ok(size as f64 / from.elapsed().as_secs_f64())
        };
        cold_scan.push(scan()?);
        warm_scan.push(scan()?);
    }
    println!(
        "{size:>10} {put:>14.0} {:>7.2} us {:>7.2} us {:>14.0} {:>14.0}",
        median(cold),
        median(warm),
        median(cold_scan),
        median(warm_scan)
    );
    Ok(())
}
