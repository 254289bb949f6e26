//! Who waits for which block: the meeting point of readers, who miss blocks, and replicators, who fetch them. [`Wants`].
//!
//! ```text
//! reader       want(blocks) -> Want    a claim: as long as it lives, its blocks are asked of peers
//!              wait(block)             until it is here, or the time is over: who could have it
//! replicator   changed() / take()      what is newly wanted, what nobody wants any longer
//!              arrived(block, bytes)   it is in the store now: whoever waits goes on
//!              note_peers, note_holders   how many could be asked, so that a reader can give up
//! ```
//!
//! What must stay true: a block stays wanted exactly as long as a claim on it lives, or it is a hint, and it has not arrived; hints (what a peer says
//! would be useful next) are bounded, and die with the last claim; nothing here reads or writes a block.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::wakers::{Wakers, wake};
use crate::error::StorageError;
use crate::position::BlockIndex;

/// How many blocks hints of peers may name at a time.
pub const HINTS_MAX: usize = 4096;

/// What is wanted of one core.
#[derive(Default)]
pub struct Wants {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    blocks: HashMap<BlockIndex, Wanted>,
    /// With who counts what comes of each.
    ranges: Ranges,
    next_claim: u64,
    claims: usize,
    /// Who claims no block of its own: it has asked peers for hints, and is told what came of them.
    askers: Vec<Arc<Received>>,
    hints: usize,
    change: Change,
    generation: u64,
    wakers: Wakers,
    peers: usize,
    /// How often what came could not be stored, and why the last time.
    failures: (u64, Option<StorageError>),
}

/// By number.
type Ranges = BTreeMap<u64, (Range<BlockIndex>, Arc<Received>)>;

#[derive(Default)]
struct Wanted {
    claims: Vec<Arc<Received>>,
    is_hint: bool,
    /// [`Wants::count`] has told those who claim it.
    is_counted: bool,
    /// Peers that have it, as far as is known.
    holders: Option<usize>,
}

/// What changed since a replicator last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Blocks that are wanted now, in the order they were first wanted.
    pub wanted: Vec<BlockIndex>,
    /// Blocks that nobody wants any longer.
    pub dropped: Vec<BlockIndex>,
    /// The ranges that are wanted have changed; see [`Wants::ranges`].
    pub ranges: bool,
}

/// What arrived for one claim.
#[derive(Debug, Default)]
pub struct Received {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl Received {
    fn add(&self, bytes: usize) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The block is in the store, or nobody wants it any longer: read it.
    Here,
    /// The time is over.
    NotYet {
        /// Peers connected for this core.
        peers: usize,
        /// How many of them have the block; `None` while that is not known.
        holders: Option<usize>,
    },
}

/// A claim on blocks: they are wanted until it is dropped.
pub struct Want {
    wants: Arc<Wants>,
    number: u64,
    blocks: Vec<BlockIndex>,
    received: Arc<Received>,
}

impl Wants {
    /// Claims blocks, which should not be here. What arrives for the claim is counted in `received`; for a claim on nothing, which keeps hints alive, that is
    /// what arrives of hints.
    pub fn want(self: &Arc<Self>, blocks: &[BlockIndex], received: &Arc<Received>) -> Want {
        let wakers = {
            let mut state = self.state.lock();
            for &block in blocks {
                state.claim(block, received);
            }
            if blocks.is_empty() {
                state.askers.push(received.clone());
            }
            state.claims += 1;
            state.wake()
        };
        wake(wakers);
        Want { wants: self.clone(), number: u64::MAX, blocks: blocks.to_vec(), received: received.clone() }
    }

    /// Claims all blocks of a range that are not here, and those that come to be in it.
    pub fn want_range(self: &Arc<Self>, range: Range<BlockIndex>) -> Want {
        self.want_range_for(range, &Arc::default())
    }

    /// The same; what arrives of it is counted in `received`.
    pub fn want_range_for(self: &Arc<Self>, range: Range<BlockIndex>, received: &Arc<Received>) -> Want {
        let (number, wakers) = {
            let mut state = self.state.lock();
            let number = state.next_claim;
            state.next_claim += 1;
            state.ranges.insert(number, (range, received.clone()));
            state.change.ranges = true;
            state.claims += 1;
            (number, state.wake())
        };
        wake(wakers);
        Want { wants: self.clone(), number, blocks: Vec::new(), received: received.clone() }
    }

    /// A peer says that these blocks will be useful to those who wait: they are wanted, too, as far as [`HINTS_MAX`] allows and while anyone waits. Leave out
    /// what is here.
    pub fn hint(&self, blocks: impl IntoIterator<Item = BlockIndex>) {
        let wakers = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if state.claims == 0 {
                return;
            }
            for block in blocks {
                if state.hints >= HINTS_MAX {
                    break;
                }
                if let Entry::Vacant(vacant) = state.blocks.entry(block) {
                    vacant.insert(Wanted { is_hint: true, ..Wanted::default() });
                    state.hints += 1;
                    state.change.wanted.push(block);
                }
            }
            state.wake()
        };
        wake(wakers);
    }

    /// Blocks this thread until a wanted block is here, or the time is over.
    pub fn wait(&self, block: BlockIndex, timeout: Duration) -> Waited {
        let mut state = self.state.lock();
        self.arrived.wait_while_for(&mut state, |state| state.blocks.contains_key(&block), timeout);
        match state.blocks.get(&block) {
            None => Waited::Here,
            Some(wanted) => Waited::NotYet { peers: state.peers, holders: wanted.holders },
        }
    }

    /// Whether anything is wanted.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.blocks.is_empty() && state.ranges.is_empty()
    }

    /// The ranges that are wanted whole.
    pub fn ranges(&self) -> Vec<Range<BlockIndex>> {
        self.state.lock().ranges.values().map(|(range, _)| range.clone()).collect()
    }

    /// All single blocks that are wanted now: for a replicator that begins.
    pub fn all(&self) -> Vec<BlockIndex> {
        let mut all: Vec<BlockIndex> = self.state.lock().blocks.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// What changed since this was last asked. There is one replicator a core.
    pub fn take(&self) -> Change {
        std::mem::take(&mut self.state.lock().change)
    }

    /// The number of the newest change, for [`changed`](Wants::changed).
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// A future that is ready once there is a newer change than `seen`; with its number.
    pub fn changed(self: &Arc<Self>, seen: u64) -> WantsChanged {
        WantsChanged { wants: self.clone(), seen, waiter: None }
    }

    /// These blocks, with so many bytes, are about to be seen in the store: counts them for those who claim them. Who finds a block there may let go of its claim
    /// at once, and would never hear of it in [`arrived`](Wants::arrived).
    pub fn count(&self, blocks: impl IntoIterator<Item = (BlockIndex, usize)>) {
        let State { blocks: wanted, ranges, askers, .. } = &mut *self.state.lock();
        for (block, bytes) in blocks {
            ranges.values().filter(|(range, _)| range.contains(&block)).for_each(|(_, received)| received.add(bytes));
            if let Some(wanted) = wanted.get_mut(&block) {
                wanted.count(block, ranges, askers, bytes);
            }
        }
    }

    /// A block is in the store now.
    pub fn arrived(&self, block: BlockIndex, bytes: usize) {
        let mut state = self.state.lock();
        let Some(mut wanted) = state.blocks.remove(&block) else { return };
        state.hints -= usize::from(wanted.is_hint);
        wanted.count(block, &state.ranges, &state.askers, bytes);
        drop(state);
        self.arrived.notify_all();
    }

    /// So many peers are connected for this core.
    pub fn note_peers(&self, peers: usize) {
        self.state.lock().peers = peers;
        self.arrived.notify_all();
    }

    /// What came could not be stored: those who wait may want to know.
    pub fn note_failure(&self, error: &StorageError) {
        let mut state = self.state.lock();
        state.failures = (state.failures.0 + 1, Some(error.clone()));
        drop(state);
        self.arrived.notify_all();
    }

    /// How often what came could not be stored so far, and why the last time.
    pub fn failures(&self) -> (u64, Option<StorageError>) {
        self.state.lock().failures.clone()
    }

    /// How many peers are connected for this core.
    pub fn peers(&self) -> usize {
        self.state.lock().peers
    }

    /// So many peers have a block; `None` when it is not known (any longer).
    pub fn note_holders(&self, block: BlockIndex, holders: Option<usize>) {
        if let Some(wanted) = self.state.lock().blocks.get_mut(&block) {
            wanted.holders = holders;
        }
    }
}

impl Wanted {
    /// Tells whoever claims it, or else whoever asked for hints, that it came; once, and not those to whom it counts as part of a range.
    fn count(&mut self, block: BlockIndex, ranges: &Ranges, askers: &[Arc<Received>], bytes: usize) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let counts_in_range = |one: &Arc<Received>| {
            ranges.values().any(|(range, received)| range.contains(&block) && Arc::ptr_eq(one, received))
        };
        let claims = if self.claims.is_empty() { askers } else { &self.claims };
        claims.iter().filter(|claim| !counts_in_range(claim)).for_each(|received| received.add(bytes));
    }
}

impl State {
    fn claim(&mut self, block: BlockIndex, received: &Arc<Received>) {
        let wanted = self.blocks.entry(block).or_insert_with(|| {
            self.change.wanted.push(block);
            Wanted::default()
        });
        self.hints -= usize::from(std::mem::take(&mut wanted.is_hint));
        wanted.claims.push(received.clone());
    }

    /// There is a change: those to be woken.
    fn wake(&mut self) -> Vec<Waker> {
        self.generation += 1;
        self.wakers.take()
    }

    fn release(&mut self, blocks: &[BlockIndex], received: &Arc<Received>) {
        for block in blocks {
            let Some(wanted) = self.blocks.get_mut(block) else { continue };
            if let Some(own) = wanted.claims.iter().position(|claim| Arc::ptr_eq(claim, received)) {
                wanted.claims.swap_remove(own);
            }
            if wanted.claims.is_empty() && !wanted.is_hint {
                self.blocks.remove(block);
                self.change.dropped.push(*block);
            }
        }
        if blocks.is_empty()
            && let Some(own) = self.askers.iter().position(|asker| Arc::ptr_eq(asker, received))
        {
            self.askers.swap_remove(own);
        }
        self.claims -= 1;
        if self.claims == 0 && self.hints > 0 {
            let hints = self.blocks.iter().filter(|(_, wanted)| wanted.is_hint).map(|(block, _)| *block);
            let hints: Vec<BlockIndex> = hints.collect();
            for block in hints {
                self.blocks.remove(&block);
                self.change.dropped.push(block);
            }
            self.hints = 0;
        }
    }
}

impl Want {
    /// What arrived for it.
    pub fn received(&self) -> &Arc<Received> {
        &self.received
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        let wakers = {
            let mut state = self.wants.state.lock();
            if state.ranges.remove(&self.number).is_some() {
                state.change.ranges = true;
            }
            state.release(&self.blocks, &self.received);
            state.wake()
        };
        wake(wakers);
    }
}

/// Ready once what is wanted has changed; see [`Wants::changed`]. Dropped before that, it leaves nothing behind.
pub struct WantsChanged {
    wants: Arc<Wants>,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for WantsChanged {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let this = self.get_mut();
        let mut state = this.wants.state.lock();
        if state.generation != this.seen {
            return Poll::Ready(state.generation);
        }
        let before = state.wakers.keep(&mut this.waiter, context.waker());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for WantsChanged {
    fn drop(&mut self) {
        let waker = self.waiter.and_then(|waiter| self.wants.state.lock().wakers.forget(waiter));
        drop(waker); // not under the lock, as above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(numbers: &[u64]) -> Vec<BlockIndex> {
        numbers.iter().copied().map(BlockIndex).collect()
    }

    #[test]
    fn a_block_is_wanted_as_long_as_someone_claims_it() {
        let wants = Arc::new(Wants::default());
        let (one, two) = (Arc::default(), Arc::default());
        let first = wants.want(&blocks(&[1, 2]), &one);
        let second = wants.want(&blocks(&[2, 3]), &two);
        assert_eq!(wants.take(), Change { wanted: blocks(&[1, 2, 3]), ..Change::default() });
        drop(first);
        assert_eq!(wants.take().dropped, blocks(&[1]));
        wants.arrived(BlockIndex(2), 10);
        assert_eq!((one.blocks(), two.blocks(), two.bytes()), (0, 1, 10));
        assert_eq!(wants.wait(BlockIndex(2), Duration::ZERO), Waited::Here);
        wants.note_peers(2);
        wants.note_holders(BlockIndex(3), Some(1));
        let waited = wants.wait(BlockIndex(3), Duration::from_millis(1));
        assert_eq!(waited, Waited::NotYet { peers: 2, holders: Some(1) });
        drop(second);
        assert_eq!(wants.take().dropped, blocks(&[3]));
        assert!(wants.is_idle());
    }

    #[test]
    fn hints_are_bounded_and_die_with_the_last_claim() {
        let wants = Arc::new(Wants::default());
        wants.hint(blocks(&[7]));
        assert!(wants.is_idle(), "nobody waits");
        let claim = wants.want(&blocks(&[1]), &Arc::default());
        wants.hint((0..2 * HINTS_MAX as u64).map(BlockIndex));
        assert_eq!(wants.all().len(), HINTS_MAX + 1);
        wants.arrived(BlockIndex(5), 1);
        wants.hint(blocks(&[1, 99_999, 100_000]));
        assert_eq!(wants.all().len(), HINTS_MAX + 1);
        drop(claim);
        assert!(wants.is_idle());
        let received = Arc::default();
        let range = wants.want_range_for(BlockIndex(3)..BlockIndex(9), &received);
        assert!(wants.take().ranges && wants.ranges() == [BlockIndex(3)..BlockIndex(9)]);
        let one = wants.want(&blocks(&[4]), &received);
        wants.count([(BlockIndex(2), 10), (BlockIndex(3), 10), (BlockIndex(4), 10)]);
        assert_eq!((received.blocks(), received.bytes()), (2, 20), "what is wanted twice by one is counted once");
        drop(one);
        wants.take();
        drop(range);
        assert!(wants.take().ranges && wants.is_idle());
    }

    #[test]
    fn hints_are_counted_for_who_asked() {
        let wants = Arc::new(Wants::default());
        let (asker, other) = (Arc::default(), Arc::default());
        let _claim = wants.want(&blocks(&[1]), &other);
        let asked = wants.want(&[], &asker);
        wants.hint(blocks(&[1, 2, 3]));
        for block in blocks(&[1, 2]) {
            wants.arrived(block, 10);
        }
        assert_eq!((asker.blocks(), asker.bytes(), other.blocks()), (1, 10, 1));
        drop(asked);
        wants.arrived(BlockIndex(3), 10);
        assert_eq!((asker.blocks(), other.blocks()), (1, 1));
    }

    #[test]
    fn what_is_seen_before_it_is_announced_is_counted_once() {
        let wants = Arc::new(Wants::default());
        let (quick, slow) = (Arc::default(), Arc::default());
        let first = wants.want(&blocks(&[1]), &quick);
        let _second = wants.want(&blocks(&[1]), &slow);
        wants.count([(BlockIndex(1), 10), (BlockIndex(2), 5)]);
        drop(first);
        wants.arrived(BlockIndex(1), 10);
        assert_eq!((quick.blocks(), quick.bytes(), slow.blocks(), slow.bytes()), (1, 10, 1, 10));
    }

    #[test]
    fn who_waits_is_woken_by_an_arrival() {
        let wants = Arc::new(Wants::default());
        let _claim = wants.want(&blocks(&[4]), &Arc::default());
        let waiting = wants.clone();
        let thread = std::thread::spawn(move || waiting.wait(BlockIndex(4), Duration::from_secs(60)));
        wants.arrived(BlockIndex(4), 1);
        assert_eq!(thread.join().unwrap(), Waited::Here);
    }
}
