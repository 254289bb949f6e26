//! Waiting for peers: the one place where a statement stands still until a block it reads has come.
//!
//! ```text
//! bee      a block is missing -> want(what is needed next), ask(peers, for hints), fetch(the block)
//! here     claims on the core's wants, kept until the statement ends; waits in slices, looking at the cancel flag
//! engine   the replicator takes what is wanted from the core's wants; arrivals wake who waits
//! ```
//!
//! A [`FetchSource`] is the log of one followed core as one session reads it; [`Waiting`] is what all sources of a session share: whether a statement runs, its claims, what
//! it has fetched so far, and why it gave up. The engine has one error for "gave up"; the reason is kept here and put in its place by [`Waiting::explain`] before anybody sees it.
//!
//! What must stay true: outside of a statement nothing waits and nothing is claimed, so opening, catalogs, audits and shutdown never ask a peer; a claim ends with its
//! statement, whatever ends it; no lock is held while waiting; memory for claims is bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::hypercore::wants::{Received, Waited, Want};
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::{BlockIndex, Error as EngineError, Length};

use crate::catalog::schema::Table;
use crate::error::{SqlError, state};
use crate::follow::Remote;
use crate::functions::context::CancelFlag;

/// How long a waiting statement goes without looking for a cancel.
const SLICE: Duration = Duration::from_millis(20);
/// A peer that says it has more but proves nothing is believed for so many times `bee.fetch_wait`.
const CLAIMS_BELIEVED: u32 = 10;
/// How long is waited for the news of a core that has just begun to be followed, when somebody has some or may be found, and when nobody is there yet.
const NEWS_WAIT: Duration = Duration::from_secs(2);
const FIRST_PEER_WAIT: Duration = Duration::from_millis(500);
/// How long between two looks at what peers claim.
const NEWS_SLICE: Duration = Duration::from_millis(2);
/// Blocks a statement may have claimed before those that came are let go.
const CLAIMED_MAX: usize = 8192;

/// How a session waits, and what its statement has fetched. One a session.
pub struct Waiting {
    cancel: Arc<CancelFlag>,
    /// The network is gone for good: the server stops, and no block will come.
    is_over: Arc<AtomicBool>,
    /// A statement runs: it may wait.
    running: AtomicBool,
    /// There is something for [`Waiting::end`] to clear.
    dirty: AtomicBool,
    fetch_wait_micros: AtomicU64,
    received: Arc<Received>,
    round_trips: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    claims: Vec<Claim>,
    /// What is claimed, and how many round trips had been paid for when it was.
    claimed: HashMap<(u64, BlockIndex), u64>,
    /// Round trips the statement has paid for.
    paid: u64,
    failure: Option<(BlockIndex, SqlError)>,
    reading: Option<(What, u64)>,
}

/// A claim on blocks of one core.
struct Claim {
    core: Arc<Core>,
    source: u64,
    blocks: Vec<BlockIndex>,
    _want: Want,
}

/// What is being read, for whoever is told that it cannot be.
#[derive(Clone)]
pub enum What {
    /// A table or one of its indexes.
    Table(Arc<Table>),
    /// Anything else, by its name.
    Named(Arc<str>),
    /// The definitions of a version.
    Definitions,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Table(table) => write!(f, "table \"{}\"", table.name),
            What::Named(name) => write!(f, "table \"{name}\""),
            What::Definitions => f.write_str("definitions"),
        }
    }
}

/// What was fetched from peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Blocks.
    pub blocks: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Times a read stood still for blocks that were not on their way already.
    pub round_trips: u64,
}

impl Fetched {
    /// What was added since an earlier count.
    #[must_use]
    pub fn since(self, before: Fetched) -> Fetched {
        Fetched {
            blocks: self.blocks - before.blocks,
            bytes: self.bytes - before.bytes,
            round_trips: self.round_trips - before.round_trips,
        }
    }
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Fetched) -> Fetched {
        Fetched {
            blocks: self.blocks + other.blocks,
            bytes: self.bytes + other.bytes,
            round_trips: self.round_trips + other.round_trips,
        }
    }
    /// Whether there is anything to tell.
    pub fn is_some(self) -> bool {
        self != Fetched::default()
    }
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks={} bytes={} round trips={}", self.blocks, self.bytes, self.round_trips)
    }
}

impl Waiting {
    /// Of a session whose statements this flag stops, in a server that says when its network is gone for good. No statement runs yet.
    pub fn new(cancel: Arc<CancelFlag>, is_over: Arc<AtomicBool>) -> Arc<Waiting> {
        Arc::new(Waiting {
            cancel,
            is_over,
            running: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            fetch_wait_micros: AtomicU64::new(0),
            received: Arc::default(),
            round_trips: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }
    /// A statement begins. It gives up on a block that no connected peer has for so long.
    pub fn begin(&self, fetch_wait: Duration) {
        self.clear();
        self.fetch_wait_micros.store(u64::try_from(fetch_wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.running.store(true, Ordering::Relaxed);
    }
    /// The statement is over: nobody waits for what it wanted.
    pub fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
        self.clear();
    }
    fn clear(&self) {
        if self.dirty.swap(false, Ordering::Relaxed) {
            let old = std::mem::take(&mut *self.state.lock());
            drop(old); // a claim that ends wakes the replicator: not under the lock
        }
    }
    /// What is read next, for the error that tells it could not be.
    pub fn reading(&self, what: What, version: u64) {
        self.dirty.store(true, Ordering::Relaxed);
        self.state.lock().reading = Some((what, version));
    }
    /// All that was fetched by the session's statements so far.
    pub fn fetched(&self) -> Fetched {
        Fetched {
            blocks: self.received.blocks(),
            bytes: self.received.bytes(),
            round_trips: self.round_trips.load(Ordering::Relaxed),
        }
    }
    /// Where what comes is counted, for claims that are made elsewhere.
    pub fn received(&self) -> &Arc<Received> {
        &self.received
    }
    /// The reason in place of the engine's "gave up"; any other error as it is.
    #[must_use]
    pub fn explain(&self, error: SqlError) -> SqlError {
        if error.state() != state::IO_ERROR || !self.dirty.load(Ordering::Relaxed) {
            return error;
        }
        let state = self.state.lock();
        match &state.failure {
            Some((block, reason)) if error.message() == SqlError::from(EngineError::GaveUp(*block)).message() => {
                reason.clone()
            }
            _ => error,
        }
    }
    /// Whether a statement runs.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
    /// How long nobody may have a block.
    pub fn fetch_wait(&self) -> Duration {
        Duration::from_micros(self.fetch_wait_micros.load(Ordering::Relaxed))
    }

    /// Fails when the statement is cancelled, or when nothing will come any more.
    fn check(&self) -> Result<(), SqlError> {
        self.cancel.check()?;
        if self.is_over.load(Ordering::Acquire) {
            let message = "terminating connection due to administrator command";
            return Err(SqlError::new(state::ADMIN_SHUTDOWN, message));
        }
        Ok(())
    }

    /// Waits for a core's first verified head of at least this length, on account of what the network knows of it.
    ///
    /// # Errors
    /// 58030 when nobody shows one for as long as `bee.fetch_wait`, with how the search for peers went; a cancel.
    pub fn wait_for_first_head(
        &self,
        core: &Core,
        least: Length,
        name: &str,
        remote: &dyn Fn() -> Remote,
        search: &dyn Fn() -> Option<String>,
    ) -> Result<(), SqlError> {
        let (limit, start) = (self.fetch_wait(), Instant::now());
        let mut nobody_since: Option<Instant> = None;
        loop {
            self.check()?;
            if core.watch().wait_for(least, SLICE) {
                return Ok(());
            }
            let remote = remote();
            let is_claimed = remote.peers > 0 && remote.length >= least.0;
            let is_early = start.elapsed() < limit.saturating_mul(CLAIMS_BELIEVED);
            if is_early && (is_claimed || remote.is_searching) {
                nobody_since = None;
            } else if nobody_since.get_or_insert_with(Instant::now).elapsed() >= limit {
                let who = match remote.peers {
                    0 => "no peer is connected".to_owned(),
                    1 => "its 1 peer has shown none".to_owned(),
                    n => format!("its {n} peers have shown none"),
                };
                let error = SqlError::new(state::IO_ERROR, format!("no version of {name} is here and {who}"));
                return Err(match search() {
                    Some(search) => error.detail(search).hint(
                        "bee_swarm and bee_swarm_topics tell how peers are looked for, bee_peers who is connected.",
                    ),
                    None => error.hint("bee_peers and bee_cores tell who is connected and what they have."),
                });
            }
        }
    }

    /// Waits until a core that has just begun to be followed has what a connected peer claims: not for long, for what is here can be read.
    ///
    /// # Errors
    /// A cancel.
    pub fn wait_for_news(&self, core: &Core, remote: &dyn Fn() -> Remote) -> Result<(), SqlError> {
        let start = Instant::now();
        loop {
            self.check()?;
            let (remote, length) = (remote(), core.len().0);
            let is_told = remote.peers > 0 && remote.length > 0;
            let limit = if is_told || remote.is_searching { NEWS_WAIT } else { FIRST_PEER_WAIT };
            if is_told && length >= remote.length || start.elapsed() >= limit.min(self.fetch_wait()) {
                return Ok(());
            }
            core.watch().wait_for(Length(length + 1), NEWS_SLICE);
        }
    }

    /// Claims those of the blocks that are not here and not claimed yet.
    fn claim(&self, core: &Arc<Core>, source: u64, blocks: &[BlockIndex]) {
        let length = core.len();
        let mut state = self.state.lock();
        let missing = blocks.iter().copied().filter(|b| length.contains(*b) && !core.has(*b));
        let paid = state.paid;
        let mut is_fresh = |block: &BlockIndex| match state.claimed.entry((source, *block)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(paid);
                true
            }
        };
        let fresh: Vec<BlockIndex> = missing.filter(|b| is_fresh(b)).collect();
        if fresh.is_empty() {
            return;
        }
        let freed = if state.claimed.len() > CLAIMED_MAX { state.thin_out() } else { Vec::new() };
        drop(state);
        drop(freed);
        // Outside of the lock: it wakes the replicator.
        let want = core.wants().want(&fresh, &self.received);
        self.keep(Claim { core: core.clone(), source, blocks: fresh, _want: want });
    }
    /// A wait begins. It is a round trip of its own unless the block was asked for together with one that was waited for before.
    fn pay(&self, source: u64, block: BlockIndex) {
        let mut state = self.state.lock();
        if state.claimed.get(&(source, block)).is_none_or(|at| *at == state.paid) {
            state.paid += 1;
            self.round_trips.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn keep(&self, claim: Claim) {
        self.dirty.store(true, Ordering::Relaxed);
        self.state.lock().claims.push(claim);
    }
    /// The block came and went, or was never asked for: claim it anew.
    fn claim_again(&self, core: &Arc<Core>, source: u64, block: BlockIndex) {
        self.state.lock().claimed.remove(&(source, block));
        self.claim(core, source, &[block]);
    }
    fn give_up(&self, block: BlockIndex, reason: SqlError) -> EngineError {
        self.dirty.store(true, Ordering::Relaxed);
        self.state.lock().failure = Some((block, reason));
        EngineError::GaveUp(block)
    }
    fn what_is_read(&self) -> Option<(What, u64)> {
        self.state.lock().reading.clone()
    }
}

impl State {
    /// Takes out the claims whose blocks are all here; if that is not enough, the older half: what is still missing of them is claimed again when it is read.
    fn thin_out(&mut self) -> Vec<Claim> {
        let here = |claim: &mut Claim| claim.blocks.iter().all(|b| claim.core.has(*b));
        let mut freed: Vec<Claim> = self.claims.extract_if(.., here).collect();
        let left: usize = self.claims.iter().map(|c| c.blocks.len()).sum();
        if left > CLAIMED_MAX / 2 {
            freed.extend(self.claims.drain(..self.claims.len() / 2));
        }
        for claim in &freed {
            for block in &claim.blocks {
                self.claimed.remove(&(claim.source, *block));
            }
        }
        freed
    }
}

/// The log of a followed core, as one session reads it: a block that is not here is waited for while a statement runs.
pub struct FetchSource {
    core: Arc<Core>,
    /// What the core is called in messages: `database "shop"`, `bee 8pihnzmm...`.
    name: Arc<str>,
    /// Tells the blocks of this core from those of the session's others.
    id: u64,
    waiting: Arc<Waiting>,
}

impl FetchSource {
    /// The log of a core that messages call by this name: `database "shop"`, `bee 8pihnzmm...`.
    pub fn new(core: Arc<Core>, name: impl Into<Arc<str>>, waiting: Arc<Waiting>) -> Arc<FetchSource> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Arc::new(FetchSource { core, name: name.into(), id: IDS.fetch_add(1, Ordering::Relaxed), waiting })
    }

    /// Waits until the block is here.
    fn wait(&self, block: BlockIndex) -> Result<(), SqlError> {
        let waiting = &*self.waiting;
        let mut nobody_since: Option<Instant> = None;
        let (failures, _) = self.core.wants().failures();
        loop {
            waiting.check()?;
            if let (now, Some(error)) = self.core.wants().failures()
                && now > failures
            {
                return Err(EngineError::Storage(error).into());
            }
            if self.core.has(block) {
                return Ok(());
            }
            if !self.core.len().contains(block) {
                return Err(self.taken_back());
            }
            match self.core.wants().wait(block, SLICE) {
                Waited::Here if self.core.has(block) => return Ok(()),
                Waited::Here => waiting.claim_again(&self.core, self.id, block),
                Waited::NotYet { peers, holders } if peers == 0 || holders == Some(0) => {
                    if nobody_since.get_or_insert_with(Instant::now).elapsed() >= waiting.fetch_wait() {
                        return Err(self.nobody_has(block, peers));
                    }
                }
                Waited::NotYet { .. } => nobody_since = None,
            }
        }
    }

    /// 58030: the block, the database, what was read, and how many could have had it.
    fn nobody_has(&self, block: BlockIndex, peers: usize) -> SqlError {
        let who = match peers {
            0 => "no peer is connected".to_owned(),
            1 => "its 1 peer does not have it".to_owned(),
            n => format!("none of its {n} peers has it"),
        };
        let error = SqlError::new(state::IO_ERROR, format!("block {block} of {} is not here and {who}", self.name));
        let peers = if peers == 1 { "1 peer".to_owned() } else { format!("{peers} peers") };
        let error = match self.waiting.what_is_read() {
            Some((what, version)) => error.detail(format!("Reading {what} at version {version}, with {peers}.")),
            None => error.detail(format!("Connected: {peers}.")),
        };
        error.hint("bee_cores and bee_peers tell what is here and who is connected; what was read before is answered without a peer.")
    }

    /// 40001: the version that is read is no longer part of the log.
    fn taken_back(&self) -> SqlError {
        SqlError::new(state::SERIALIZATION_FAILURE, "canceling statement due to conflict with recovery")
            .detail(format!("The writer of {} took back the version that the statement read.", self.name))
    }
}

impl BlockSource for FetchSource {
    fn block(&self, index: BlockIndex) -> pgbee_engine::Result<Bytes> {
        self.core.block(index)
    }
    fn blocks(&self, first: BlockIndex, count: usize) -> pgbee_engine::Result<Vec<Bytes>> {
        self.core.blocks(first, count)
    }
    fn want(&self, blocks: &[BlockIndex]) {
        if self.waiting.is_running() {
            self.waiting.claim(&self.core, self.id, blocks);
        }
    }
    fn fetch(&self, block: BlockIndex) -> pgbee_engine::Result<()> {
        let waiting = &*self.waiting;
        if self.core.has(block) {
            return Ok(());
        }
        if !waiting.is_running() {
            return Err(EngineError::MissingBlock(block));
        }
        waiting.claim(&self.core, self.id, &[block]);
        waiting.pay(self.id, block);
        self.wait(block).map_err(|reason| waiting.give_up(block, reason))
    }
    fn ask(&self, name: &'static str, payload: Bytes) {
        if !self.waiting.is_running() {
            return;
        }
        self.core.extensions().broadcast(name, payload);
        // A claim on nothing wakes the replicator, keeps the hints that are answered as long as the statement, and counts them. One is enough to keep.
        let want = self.core.wants().want(&[], &self.waiting.received);
        if self.waiting.state.lock().claims.iter().any(|c| c.source == self.id && c.blocks.is_empty()) {
            return;
        }
        self.waiting.keep(Claim { core: self.core.clone(), source: self.id, blocks: Vec::new(), _want: want });
    }
}

impl fmt::Debug for FetchSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchSource({}, {:?})", self.name, self.core)
    }
}
