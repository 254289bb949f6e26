//! A whole network from one seed: a writer, five followers, links that break, peers that lie. What a follower answers at a version is what the writer
//! answers there, or an error; never anything else.
//!
//! ```text
//! writer ---- follower ---- follower        who connects to whom, how long pieces take, when wires break, who is cut off for a while,
//!    \------- follower ---- liar            what is committed and what is asked: all from the seed
//! ```
//!
//! A liar is a follower whose store was altered behind its back: it serves blocks and hashes that were never signed, and signs with the right key that it has
//! them. `PGBEE_SEEDS=20000` runs more seeds, `PGBEE_SEED=n` repeats one; a failing one prints how.

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::hypercore::wants::Want;
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::record::{sealed, unseal};
use pgbee_engine::storage::{Durability, Range, Space, WriteBatch};
use pgbee_engine::txn::{CommitInfo, Database, Options, Snapshot};
use pgbee_engine::{BlockIndex, Error, Result, Version};
use pgbee_replication::transport::simulated::{Conditions, Random, Simulation};

/// Seeds of a normal run: what a minute or two allow.
const SEEDS: u64 = 1000;
const FOLLOWERS: usize = 5;
const COMMITS: u64 = 12;
const QUESTIONS: u64 = 40;
/// How long a question may wait, in made-up time, before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[test]
fn a_follower_answers_as_the_writer_or_not_at_all() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("PGBEE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PGBEE_SEEDS").unwrap_or(SEEDS),
    };
    let (mut answered, mut refused, mut lies) = (0, 0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let told = catch_unwind(AssertUnwindSafe(|| Network::new(seed).run())).unwrap_or_else(|panic| {
            eprintln!("repeat it with: PGBEE_SEED={seed} cargo test -p pgbee-tests --test simulation");
            std::panic::resume_unwind(panic)
        });
        answered += told.answered;
        refused += told.refused;
        lies += told.lies;
    }
    println!(
        "{count} seeds: {answered} questions answered, {refused} refused, {lies} connections ended for what did not verify"
    );
    assert!(
        answered > refused && (count < 100 || lies > 0),
        "the network hardly works: {answered} answered, {refused} refused, {lies} lies found"
    );
}

/// What came of a run.
#[derive(Default)]
struct Told {
    answered: u64,
    refused: u64,
    lies: u64,
}

/// A core as a reader sees it that cannot block: what is missing is claimed, and the read tried again once time has passed.
struct Source {
    core: Arc<Core>,
    claims: Mutex<Vec<Want>>,
}

impl BlockSource for Source {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        self.core.block(index)
    }
    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        self.core.blocks(first, count)
    }
    fn want(&self, blocks: &[BlockIndex]) {
        let length = self.core.len();
        let missing: Vec<BlockIndex> =
            blocks.iter().copied().filter(|block| length.contains(*block) && !self.core.has(*block)).collect();
        self.claims.lock().push(self.core.wants().want(&missing, &Arc::default()));
    }
    fn fetch(&self, block: BlockIndex) -> Result<()> {
        self.want(&[block]);
        Err(Error::MissingBlock(block))
    }
    fn ask(&self, name: &'static str, payload: Bytes) {
        self.core.extensions().broadcast(name, payload);
    }
}

struct Follower {
    node: usize,
    core: Arc<Core>,
    source: Arc<Source>,
    database: Arc<Database>,
    is_liar: bool,
}

struct Network {
    seed: u64,
    random: Random,
    simulation: Simulation,
    writer: Arc<Database>,
    followers: Vec<Follower>,
    /// What the writer had at each version.
    versions: BTreeMap<Version, Rows>,
    told: Told,
}

impl Network {
    fn new(seed: u64) -> Network {
        let mut random = Random::new(seed ^ 0x5eed);
        let slowest = random.between((Duration::from_millis(2), Duration::from_millis(80)));
        let conditions = Conditions {
            delay: (Duration::from_millis(1), slowest),
            piece_bytes_max: 1 << (4 + random.below(13)),
            breaks_per_million: [0, 300, 5000, 30_000][random.below(4) as usize],
            ..Conditions::default()
        };
        let mut simulation = Simulation::new(seed, conditions);
        simulation.add_node();
        let core = simulation.store(0).get_by_name("database").unwrap();
        let cache = Cache::new(4 << 20);
        pgbee_engine::bee::extension::register(&core, cache.clone());
        let writer = Database::open(core, cache, Options::default()).unwrap();
        let mut network = Network {
            seed,
            random,
            simulation,
            writer,
            followers: Vec::new(),
            versions: BTreeMap::new(),
            told: Told::default(),
        };
        network.versions.insert(Version(1), Rows::new());
        for _ in 0..FOLLOWERS {
            network.add_follower();
        }
        network
    }

    fn add_follower(&mut self) {
        let node = self.simulation.add_node();
        let core = self.simulation.store(node).get_by_key(self.writer.key()).unwrap();
        let source = Arc::new(Source { core: core.clone(), claims: Mutex::default() });
        let cache = Cache::new(1 << 20);
        pgbee_engine::bee::extension::register(&core, cache.clone());
        let database = Database::reader(core.clone(), source.clone(), cache);
        self.simulation.follow(node, &core);
        // The first one reaches the writer; the others any of those before them, and perhaps one more.
        for _ in 0..1 + self.random.below(2) {
            let to = self.random.below(node as u64) as usize;
            self.simulation.keep_connected(node, to);
        }
        self.followers.push(Follower { node, core, source, database, is_liar: false });
    }

    fn run(mut self) -> Told {
        let mut rows = Rows::new();
        let mut questions = QUESTIONS;
        for commit in 0..COMMITS {
            self.commit(commit, &mut rows);
            let pause = self.random.between((Duration::ZERO, Duration::from_millis(500)));
            self.simulation.run_for(pause);
            match self.random.below(8) {
                0 => {
                    let (one, other) =
                        (self.random.below(FOLLOWERS as u64 + 1), self.random.below(FOLLOWERS as u64 + 1));
                    self.simulation.partition(one as usize, other as usize);
                }
                1 => self.simulation.heal(),
                2 => self.make_a_liar(),
                _ => {}
            }
            for _ in 0..QUESTIONS / COMMITS {
                self.question();
                questions -= 1;
            }
        }
        self.simulation.heal();
        (0..questions).for_each(|_| self.question());
        self.told.lies = self.followers.iter().map(|follower| self.failures(follower)).sum();
        self.told
    }

    fn failures(&self, follower: &Follower) -> u64 {
        let slot = self.simulation.node(follower.node).core(follower.core.key());
        slot.map_or(0, |slot| slot.status().verification_failures)
    }

    /// A few puts and deletes, a large number of them now and then.
    fn commit(&mut self, commit: u64, rows: &mut Rows) {
        let mut txn = self.writer.begin();
        let count = if self.random.below(6) == 0 { 300 } else { 1 + self.random.below(20) };
        for _ in 0..count {
            let key = format!("key {:03}", self.random.below(400)).into_bytes();
            if self.random.below(4) == 0 {
                txn.delete(key.clone()).unwrap();
                rows.remove(&key);
            } else {
                let value = format!("{commit} {}", "v".repeat(self.random.below(60) as usize)).into_bytes();
                txn.put(key.clone(), value.clone()).unwrap();
                rows.insert(key, value);
            }
        }
        let version = self.writer.commit(txn, CommitInfo::at(1_000_000 * (commit as i64 + 1))).unwrap();
        self.versions.insert(version, rows.clone());
        let core = self.writer.core().clone();
        self.simulation.changed(0, &core);
    }

    /// Some blocks and hashes of a follower's store become others, under checksums that match.
    fn make_a_liar(&mut self) {
        let which = self.random.below(FOLLOWERS as u64) as usize;
        let backend = self.simulation.store(self.followers[which].node).backend().clone();
        let mut batch = WriteBatch::new();
        for space in [Space::Block, Space::Tree] {
            for entry in backend.scan(space, Range::all(), false) {
                let (key, value) = entry.unwrap();
                let mut payload = unseal(&key, value).unwrap().to_vec();
                if self.random.below(3) == 0 && payload.len() > 1 {
                    let at = 1 + self.random.below(payload.len() as u64 - 1) as usize;
                    payload[at] ^= 1 << self.random.below(8);
                    batch.put(space, &key, &sealed(&key, &payload));
                }
            }
        }
        backend.write(batch, Durability::NoSync).unwrap();
        self.followers[which].is_liar = true;
    }

    /// Asks a follower something about a version that it has heard of; the answer has to be the writer's.
    fn question(&mut self) {
        let which = self.random.below(FOLLOWERS as u64) as usize;
        if self.followers[which].is_liar {
            // What it reads from its own altered store is its own affair.
            return;
        }
        let head = self.followers[which].database.head();
        let known: Vec<Version> = self.versions.range(..=head).map(|(version, _)| *version).collect();
        let Some(&version) = known.get(self.random.below(known.len().max(1) as u64) as usize) else { return };
        assert!(head.0 <= 1 || self.versions.contains_key(&head), "seed {}: {head} was never signed", self.seed);
        let key = format!("key {:03}", self.random.below(400)).into_bytes();
        let other = format!("key {:03}", self.random.below(400)).into_bytes();
        let is_get = self.random.below(2) == 0;
        let rows = self.versions[&version].clone();
        let database = self.followers[which].database.clone();
        let asked = self.ask(which, || {
            let snapshot = database.snapshot_at(version)?;
            if is_get {
                let found = snapshot.get(&key)?;
                return Ok(found.map(|value| (key.clone(), value.to_vec())).into_iter().collect());
            }
            scan(&snapshot, &key, &other)
        });
        match asked {
            None => self.told.refused += 1,
            Some(found) => {
                let wanted: Vec<(Vec<u8>, Vec<u8>)> = match is_get {
                    true => {
                        rows.get_key_value(&key).map(|(key, value)| (key.clone(), value.clone())).into_iter().collect()
                    }
                    false if key < other => rows
                        .range(key.clone()..other.clone())
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect(),
                    false => Vec::new(),
                };
                assert_eq!(found, wanted, "seed {}, follower {which} at version {version}", self.seed);
                self.told.answered += 1;
            }
        }
    }

    /// Tries until nothing is missing any longer, or patience is over.
    fn ask<T>(&mut self, which: usize, question: impl Fn() -> Result<T>) -> Option<T> {
        let end = self.simulation.now() + PATIENCE;
        loop {
            let found = question();
            let follower = &self.followers[which];
            let (node, core) = (follower.node, follower.core.clone());
            match found {
                Ok(found) => {
                    follower.source.claims.lock().clear();
                    self.simulation.changed(node, &core);
                    return Some(found);
                }
                Err(Error::MissingBlock(block)) if self.simulation.now() < end => {
                    self.simulation.changed(node, &core);
                    let left = end - self.simulation.now();
                    self.simulation.run_until(left, |_| core.has(block));
                }
                Err(Error::MissingBlock(_)) => {
                    follower.source.claims.lock().clear();
                    self.simulation.changed(node, &core);
                    return None;
                }
                Err(error) => panic!("seed {}, follower {which}: {error}", self.seed),
            }
        }
    }
}

fn scan(snapshot: &Snapshot, from: &[u8], to: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let bound = |key: &[u8]| Bytes::copy_from_slice(key);
    let range = KeyRange { start: Bound::Included(bound(from)), end: Bound::Excluded(bound(to)) };
    let mut cursor = snapshot.scan(range, Direction::Forward);
    let mut found = Vec::new();
    while let Some(entry) = cursor.next()? {
        found.push((entry.key.to_vec(), entry.value.unwrap_or_default().to_vec()));
    }
    Ok(found)
}
