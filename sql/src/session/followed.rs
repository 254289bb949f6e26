//! A database that someone else writes: what is kept of it in the background.
//!
//! ```text
//! watcher   a thread that sleeps until the core has a new head, then
//!             wants the tail (the blocks of small new commits), and tells who listens on bee_commit
//! mirror    a claim on all blocks, as long as it is asked for
//! heads     the lengths seen as heads since the start: the only versions known of a bee without commit records
//! ```
//!
//! The tail is what keeps a follower able to answer offline: whatever a new version changed in the tree lies in its new blocks, so with those here everything that could be
//! read at the version before can be read at this one. Of a jump further than [`TAIL_BLOCKS`] only the newest block, which has the root, is wanted: statements fetch
//! the rest when they read it.
//!
//! What must stay true: the thread never waits for a block, holds neither core nor database while it sleeps, and ends soon after the database is closed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::wants::Want;
use pgbee_engine::hypercore::watch::Position;
use pgbee_engine::txn::Database;
use pgbee_engine::{BlockIndex, Fork, Length, Version};

use crate::error::{Result, SqlError};

/// New blocks that are fetched unasked, at most.
const TAIL_BLOCKS: u64 = 256;
/// How long a closed database's thread may sleep on.
const SLICE: Duration = Duration::from_millis(250);
/// Heads remembered.
const HEADS_MAX: usize = 10_000;
/// Stack of the thread, which does next to nothing.
const STACK_BYTES: usize = 256 << 10;

/// A database that is followed.
pub(super) struct Followed {
    core: Arc<Core>,
    is_over: Arc<AtomicBool>,
    mirror: Mutex<Option<Want>>,
    heads: Arc<Mutex<Heads>>,
}

/// Heads of one fork.
#[derive(Default)]
struct Heads {
    fork: Fork,
    lengths: BTreeSet<u64>,
}

impl Heads {
    fn note(&mut self, position: Position) {
        if self.fork != position.fork {
            *self = Heads { fork: position.fork, lengths: BTreeSet::new() };
        }
        if self.lengths.insert(position.length.0) && self.lengths.len() > HEADS_MAX {
            self.lengths.pop_first();
        }
    }
}

impl Followed {
    /// Begins to watch a core for the database over it.
    pub fn start(name: &str, database: &Arc<Database>) -> Result<Followed> {
        let (core, is_over) = (database.core().clone(), Arc::new(AtomicBool::new(false)));
        let (seen, heads) = (core.watch().position(), Arc::<Mutex<Heads>>::default());
        heads.lock().note(seen);
        let watcher = Watcher {
            database: Arc::downgrade(database),
            is_over: is_over.clone(),
            seen,
            tail: None,
            heads: heads.clone(),
        };
        let watch = core.watch().clone();
        std::thread::Builder::new()
            .name(format!("follow {name}"))
            .stack_size(STACK_BYTES)
            .spawn(move || watcher.run(&watch))
            .map_err(|e| SqlError::internal(format!("could not start a thread: {e}")))?;
        Ok(Followed { core, is_over, mirror: Mutex::default(), heads })
    }
    /// Whether a length was seen as the head of the history there is now.
    pub fn was_head(&self, version: Version) -> bool {
        let heads = self.heads.lock();
        heads.fork == self.core.watch().position().fork && heads.lengths.contains(&version.0)
    }
    /// From now on every block is wanted, those to come too; or no longer.
    pub fn set_mirror(&self, on: bool) {
        let want = on.then(|| self.core.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX)));
        let before = std::mem::replace(&mut *self.mirror.lock(), want);
        drop(before); // wakes the replicator: not under the lock
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}

struct Watcher {
    database: Weak<Database>,
    is_over: Arc<AtomicBool>,
    seen: Position,
    tail: Option<(Vec<BlockIndex>, Want)>,
    heads: Arc<Mutex<Heads>>,
}

impl Watcher {
    fn run(mut self, watch: &pgbee_engine::hypercore::watch::Watch) {
        loop {
            let now = watch.wait(self.seen, SLICE);
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            let Some(database) = self.database.upgrade() else { return };
            let core = database.core();
            if self.tail.as_ref().is_some_and(|(blocks, _)| blocks.iter().all(|b| core.has(*b))) {
                self.tail = None;
            }
            if now != self.seen {
                self.heads.lock().note(now);
                // Those of the version before are let go only when the new ones are claimed, so that hints live on.
                let tail = tail(core, self.seen.length, now.length);
                self.tail = match (tail, self.tail.take()) {
                    (None, before) => before,
                    (new, _) => new,
                };
                self.seen = now;
                database.announce();
            }
        }
    }
}

/// Claims the new blocks of a core that are not here.
fn tail(core: &Arc<Core>, before: Length, now: Length) -> Option<(Vec<BlockIndex>, Want)> {
    let last = now.last()?;
    let first =
        if before.0 > 0 && now.0.saturating_sub(before.0) <= TAIL_BLOCKS { before.0.min(last.0) } else { last.0 };
    let blocks: Vec<BlockIndex> = (first..=last.0).map(BlockIndex).filter(|b| !core.has(*b)).collect();
    let want = core.wants().want(&blocks, &Arc::default());
    (!blocks.is_empty()).then_some((blocks, want))
}
