//! Decoded nodes with the keys they have been asked for, shared by every bee of the process.
//!
//! The first bench to think of is the point read: among a million keys it visits about eight nodes and
//! compares with about twenty keys, each in a block of its own. With the nodes here it reads none of them.
//!
//! ```text
//! shard (many, by hash)     table: address -> node
//!   main                    nodes that lookups used: second chance. The oldest goes; if it was used
//!                           since the hand last passed, it is put behind the youngest instead
//!   probation               nodes that a scan brought in. Used again by anyone, a node moves to main.
//!                           Beyond an eighth it is probation that gives way, so that a scan of
//!                           everything passes by what lookups need; but while main has more than a
//!                           quarter its hand moves every other time, and what nobody used since
//!                           makes room for the scan
//! ```
//!
//! * A hit takes a shared lock and sets one bit, if it was not set. Lists change only on misses.
//! * Weights are what nodes really take: a key or value that is filled in later is charged later
//!   ([`Cache::charge`]), which may push other nodes out.
//! * A node that was pushed out stays alive for those who hold it; it is no longer charged.
//! * Blocks never change, so nothing here goes stale.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;
use rustc_hash::{FxHashSet, FxHasher};

use super::node::{Node, NodeAddress};

/// Decoded nodes, bounded in bytes. One for the process.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Shard]>,
    /// log2 of the number of shards.
    shard_bits: u32,
    shard_bytes_max: i64,
    misses: AtomicU64,
}

/// What a cache holds now, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Nodes held.
    pub nodes: usize,
    /// Bytes they take.
    pub bytes: usize,
    /// Nodes decoded since the cache was made, because they were not held.
    pub misses: u64,
}

/// Why a node is read, which decides how long it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Lookup,
    Scan,
}

#[derive(Debug, Default)]
struct Shard {
    state: RwLock<State>,
    /// Bytes of both queues. Changed without the lock when a key of a held node is filled in.
    bytes: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    nodes: FxHashSet<Held>,
    main: VecDeque<NodeAddress>,
    probation: VecDeque<NodeAddress>,
    /// How many nodes were removed whose addresses may still be queued.
    forgotten: usize,
    /// Probation gave way last: the next time main's hand moves.
    ages_main: bool,
}

/// A node found by its address. The table itself stays small enough for a processor's cache; comparing
/// addresses touches the node, which is wanted anyway.
#[derive(Debug)]
struct Held(Arc<Node>);

impl Borrow<NodeAddress> for Held {
    fn borrow(&self) -> &NodeAddress {
        &self.0.address
    }
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.address.hash(state);
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.0.address == other.0.address
    }
}

impl Eq for Held {}

/// Set in [`Node::charged`] while the node is in the cache.
const HELD: u64 = 1 << 63;

/// A node's share of table and queues, its reference counts, and what allocations cost.
const NODE_OVERHEAD: usize = 2 * 9 + 2 * size_of::<NodeAddress>() + 16 + 3 * 16;

/// Smaller shards would evict by chance rather than by age.
const SHARD_BYTES_MIN: usize = 256 << 10;
const SHARDS_MAX_BITS: u32 = 6;

impl Cache {
    /// A cache that takes at most so many bytes of memory. With 0 nothing is kept.
    pub fn new(bytes_max: usize) -> Arc<Cache> {
        let shard_bits = (bytes_max / SHARD_BYTES_MIN).checked_ilog2().unwrap_or(0).min(SHARDS_MAX_BITS);
        Arc::new(Cache {
            shards: (0..1 << shard_bits).map(|_| Shard::default()).collect(),
            shard_bits,
            shard_bytes_max: (bytes_max >> shard_bits) as i64,
            misses: AtomicU64::new(0),
        })
    }

    /// What the cache holds now.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            nodes: self.shards.iter().map(|s| s.state.read().nodes.len()).sum(),
            bytes: self.shards.iter().map(|shard| shard.bytes.load(Relaxed).max(0) as usize).sum(),
            misses: self.misses.load(Relaxed),
        }
    }

    #[inline]
    pub(crate) fn get(&self, address: NodeAddress) -> Option<Arc<Node>> {
        let state = self.shard(address).state.read();
        let Held(node) = state.nodes.get(&address)?;
        // Written only when it changes: the line stays shared between processors.
        if !node.referenced.load(Relaxed) {
            node.referenced.store(true, Relaxed);
        }
        Some(node.clone())
    }

    /// Counts a node that had to be decoded.
    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    /// Keeps a node that was just decoded. Of two threads that decoded the same one, the later gets the
    /// earlier's, so that keys are filled in once.
    pub(crate) fn insert(&self, node: Node, access: Access) -> Arc<Node> {
        let shard = self.shard(node.address);
        let bytes = (node.bytes() + NODE_OVERHEAD) as i64;
        if bytes > self.shard_bytes_max {
            return Arc::new(node);
        }
        let mut state = shard.state.write();
        if let Some(Held(held)) = state.nodes.get(&node.address) {
            return held.clone();
        }
        node.charged.store(bytes as u64 | HELD, Relaxed);
        shard.bytes.fetch_add(bytes, Relaxed);
        let node = Arc::new(node);
        state.nodes.insert(Held(node.clone()));
        match access {
            Access::Lookup => state.main.push_back(node.address),
            Access::Scan => state.probation.push_back(node.address),
        }
        state.evict(shard, self.shard_bytes_max);
        node
    }

    /// Lets a node go that the newest version no longer has. Who reads an older version decodes it again.
    pub(crate) fn remove(&self, address: NodeAddress) {
        let shard = self.shard(address);
        let mut state = shard.state.write();
        if let Some(Held(node)) = state.nodes.take(&address) {
            shard.release(&node);
            state.forgotten += 1;
        }
        // Its address is left in a queue; when most of them are of this kind, queues are cleaned.
        if state.forgotten > 64 + state.nodes.len() {
            let State { nodes, main, probation, forgotten, .. } = &mut *state;
            main.retain(|address| nodes.contains(address));
            probation.retain(|address| nodes.contains(address));
            *forgotten = 0;
        }
    }

    /// Accounts for bytes that a held node grew by. Of no effect for a node that is not held (any more).
    pub(crate) fn charge(&self, node: &Node, bytes: usize) {
        let held = node
            .charged
            .fetch_update(Relaxed, Relaxed, |charged| (charged & HELD != 0).then(|| charged + bytes as u64));
        if held.is_err() {
            return;
        }
        let shard = self.shard(node.address);
        let before = shard.bytes.fetch_add(bytes as i64, Relaxed);
        if before + bytes as i64 > self.shard_bytes_max {
            shard.state.write().evict(shard, self.shard_bytes_max);
        }
    }

    #[inline]
    fn shard(&self, address: NodeAddress) -> &Shard {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(address);
        // The map uses the low bits and the top seven for its own ends.
        let shard = (hash >> 40) & ((1 << self.shard_bits) - 1);
        &self.shards[shard as usize]
    }
}

impl Shard {
    fn release(&self, node: &Node) {
        let charged = node.charged.swap(0, Relaxed) & !HELD;
        self.bytes.fetch_sub(charged as i64, Relaxed);
    }
}

impl State {
    /// Lets nodes go until the rest fits.
    fn evict(&mut self, shard: &Shard, bytes_max: i64) {
        // Each node is passed over at most once a round, so the hand stops.
        let mut patience = 2 * (self.main.len() + self.probation.len());
        while shard.bytes.load(Relaxed) > bytes_max && patience > 0 {
            patience -= 1;
            let mut probation = self.main.is_empty();
            if self.probation.len() * 8 > self.nodes.len() {
                self.ages_main = !self.ages_main;
                probation |= self.ages_main || self.main.len() * 4 < self.nodes.len();
            }
            let queue = if probation { &mut self.probation } else { &mut self.main };
            let Some(address) = queue.pop_front() else {
                return;
            };
            let Some(Held(node)) = self.nodes.get(&address) else {
                continue;
            };
            if node.referenced.swap(false, Relaxed) {
                self.main.push_back(address);
            } else {
                shard.release(node);
                self.nodes.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bee::node::{Key, Resolved};
    use std::sync::OnceLock;

    fn node(source: u64, block: u64) -> Node {
        let address = NodeAddress { source, block, offset: 0 };
        let key = |seq| Key { seq, resolved: OnceLock::new() };
        Node::new(address, (1..7).map(key).collect(), Box::new([]))
    }

    fn address(block: u64) -> NodeAddress {
        node(1, block).address
    }

    #[test]
    fn memory_stays_within_bounds_also_when_keys_are_filled_in() {
        let cache = Cache::new(64 << 10);
        for block in 1..2000 {
            let node = cache.insert(node(1, block), Access::Lookup);
            for key in &node.keys {
                let resolved = Resolved::copy(&[7; 30], Some(&[8; 100]));
                let bytes = resolved.heap_bytes();
                key.resolved.set(resolved).unwrap();
                cache.charge(&node, bytes);
            }
            assert!(cache.stats().bytes <= 64 << 10);
        }
        let held: usize =
            cache.shards[0].state.read().nodes.iter().map(|Held(node)| node.bytes() + NODE_OVERHEAD).sum();
        assert_eq!(held, cache.stats().bytes);
        assert!(held > 48 << 10, "it is used, too: {held}");
    }

    #[test]
    fn a_scan_passes_by_what_lookups_use() {
        let cache = Cache::new(64 << 10);
        for block in 1..20 {
            cache.insert(node(1, block), Access::Lookup);
        }
        for block in 100..5000 {
            cache.insert(node(1, block), Access::Scan);
            if block % 10 == 0 {
                cache.get(address(block / 10 % 19 + 1));
            }
        }
        assert!((1..20).all(|block| cache.get(address(block)).is_some()));
        assert!(cache.get(address(4999)).is_some());
        assert!(cache.get(address(200)).is_none());
    }

    #[test]
    fn what_nobody_uses_makes_room_for_scans() {
        let cache = Cache::new(64 << 10);
        for block in 1..5000 {
            cache.insert(node(1, block), Access::Lookup);
        }
        let half = cache.stats().nodes as u64 / 2;
        let mut found = 0;
        for _ in 0..6 {
            found = 0;
            for block in 10_000..10_000 + half {
                match cache.get(address(block)) {
                    Some(_) => found += 1,
                    None => drop(cache.insert(node(1, block), Access::Scan)),
                }
            }
        }
        assert_eq!(found, half);
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let cache = Cache::new(64 << 10);
        for block in 1..5000 {
            cache.insert(node(1, block), Access::Lookup);
            assert!(cache.get(address(1)).is_some());
        }
    }

    #[test]
    fn nodes_let_go_are_no_longer_charged() {
        let cache = Cache::new(1 << 20);
        let early = cache.insert(node(1, 5), Access::Lookup);
        cache.insert(node(1, 9), Access::Scan);
        cache.insert(node(2, 9), Access::Lookup);
        cache.remove(address(9));
        assert_eq!(cache.stats().nodes, 2);
        cache.remove(address(5));
        cache.charge(&early, 1000);
        let left = cache.stats();
        assert_eq!(left.bytes, node(2, 9).bytes() + NODE_OVERHEAD);
        cache.remove(node(2, 9).address);
        assert_eq!((cache.stats().nodes, cache.stats().bytes), (0, 0));
    }

    #[test]
    fn removed_nodes_leave_nothing_behind() {
        let cache = Cache::new(1 << 20);
        for block in 1..10_000 {
            cache.insert(node(1, block), Access::Lookup);
            cache.remove(address(block - 1));
        }
        assert_eq!(cache.stats().nodes, 1);
        let queued: usize = cache.shards.iter().map(|s| s.state.read().main.len()).sum();
        assert!(queued < 1000, "{queued}");
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = Cache::new(0);
        let node = cache.insert(node(1, 1), Access::Lookup);
        assert!(cache.get(node.address).is_none());
        assert_eq!(cache.stats().nodes, 0);
    }
}
