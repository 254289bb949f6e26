//! The tree in memory that operations change, and the blocks that wait to be appended.
//!
//! What is found here: a put's way down and the splits up again, a delete's way down (the rest of it is in
//! `rebalance`), conditions, and what the cache is told when blocks are committed. How operations become
//! blocks is in `batch`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::Batch;
use super::arena::{Arena, ArenaNode, KeyId, LinkId, NONE, NodeId};
use super::block::{Encoder, Header, Metadata};
use super::cache::{Access, Cache};
use super::node::{Child, DEPTH_MAX, KEYS_MAX, Key, Node, NodeAddress, Resolved, VALUE_KEPT_MAX};
use super::readahead::Readahead;
use super::rebalance::{self, Path};
use super::tree::Tree;
use super::{BlockSource, Entry, corrupt};
use crate::{BlockIndex, Length, Result};

/// Makes blocks for a bee. It appends nothing: the caller takes the blocks and appends them.
///
/// Several batches can follow each other before that: each builds on the pending blocks of the one before,
/// so a group of transactions is one append. Between batches the writer keeps the part of the tree it used,
/// so a writer that lives on needs to read little. It must then be the only one who appends; when an append
/// failed, or someone else appended, throw it away.
pub struct Writer {
    pub(super) tree: Tree,
    pub(super) source: Arc<Pending>,
    metadata: Option<Metadata>,
    pub(super) arena: Arena,
    /// `NONE` until the root was loaded.
    pub(super) root: NodeId,
    /// Blocks in the log and pending, without the batch at hand.
    pub(super) length: u64,
    pub(super) encoder: Encoder,
    /// Places written since the last [`Writer::appended`], for the cache.
    pub(super) written: Vec<LinkId>,
    /// Places in blocks handed over that nodes had before.
    pub(super) superseded: Vec<Child>,
    /// Blocks below this were handed over: what the cache is or will be told of them can be superseded.
    pub(super) handed_below: u64,
    /// The batch at hand: its operations, and their lists of places one after the other.
    pub(super) operations: Vec<Operation>,
    pub(super) places: Vec<LinkId>,
    /// Nodes may be marked changed that no operation has written.
    pub(super) stray: bool,
    finger: Option<Finger>,
    /// The nodes above the finger's leaf; above whatever was found by the put at hand.
    pub(super) path: Path,
}

/// An effective operation of the batch at hand.
pub(super) struct Operation {
    pub(super) key: KeyId,
    /// The value, when it is too large to be kept with the key.
    pub(super) large: Option<Bytes>,
    /// Where its list of places begins.
    pub(super) places: usize,
}

/// The leaf last put into. A put between its bounds goes there without a descent, which is what makes
/// loading in key order cheap.
#[derive(Clone, Copy)]
struct Finger {
    leaf: NodeId,
    low: KeyId,
    high: KeyId,
}

/// What a condition compares: the entry there is, and the one that would replace it.
pub(super) type Condition<'c> = &'c mut dyn FnMut(&Entry, &Entry) -> bool;

/// Beyond these the tree in memory is let go before the next batch: about 10 MB, and so many bytes of keys
/// and values.
const KEPT_NODES_MAX: usize = 1 << 14;
const KEPT_KEYS_MAX: usize = 1 << 17;
const KEPT_BYTES_MAX: usize = 32 << 20;

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} blocks)", self.length)
    }
}

impl Writer {
    /// A writer on top of the first `length` blocks of a log; the last of them must end a batch. Nodes in
    /// them are read through the cache under `source_id`.
    pub fn new(source: Arc<dyn BlockSource>, cache: Arc<Cache>, source_id: u64, length: Length) -> Writer {
        let source = Arc::new(Pending {
            below: source,
            pending: RwLock::new(Waiting { first: length.0, blocks: Vec::new(), handed: 0 }),
        });
        Writer {
            tree: Tree { source: source.clone(), cache, source_id, cached_below: length.0 },
            source,
            metadata: None,
            arena: Arena::default(),
            root: NONE,
            length: length.0,
            encoder: Encoder::default(),
            written: Vec::new(),
            superseded: Vec::new(),
            handed_below: length.0,
            operations: Vec::new(),
            places: Vec::new(),
            stray: false,
            finger: None,
            path: Path::new(),
        }
    }

    /// What the header will say, if this writer is the one to write it.
    pub fn with_metadata(mut self, metadata: Metadata) -> Writer {
        self.metadata = Some(metadata);
        self
    }

    /// Begins a batch. Its operations show in no block until [`Batch::flush`]; dropped before that, it
    /// never was.
    pub fn batch(&mut self) -> Batch<'_> {
        let Arena { nodes, keys, key_bytes, .. } = &self.arena;
        let is_much = nodes.len() > KEPT_NODES_MAX || keys.len() > KEPT_KEYS_MAX || *key_bytes > KEPT_BYTES_MAX;
        if !self.operations.is_empty() || is_much {
            self.forget_tree();
        }
        Batch::new(self)
    }

    /// How many blocks there are, those pending included.
    pub fn length(&self) -> Length {
        Length(self.length)
    }

    /// The blocks to append, oldest first; the header among them when the log was empty.
    pub fn pending(&self) -> Vec<Bytes> {
        let pending = self.source.pending.read();
        pending.blocks[pending.handed..].to_vec()
    }

    /// Hands the pending blocks over. They must be in the log (or staged, and readable through the
    /// source) before the next batch begins.
    pub fn take_pending(&mut self) -> Vec<Bytes> {
        let mut pending = self.source.pending.write();
        pending.first = self.length;
        pending.handed = 0;
        std::mem::take(&mut pending.blocks)
    }

    /// To be called once all blocks taken are committed: puts the nodes they hold into the cache, their
    /// keys known, so that readers of the new version find the path to what changed there. What these
    /// nodes replace leaves the cache.
    ///
    /// Without this call everything stays right, only colder. With it, blocks that are not committed for
    /// good would be believed by readers.
    pub fn appended(&mut self) {
        self.cache_update().apply();
        self.tree.cached_below = self.length;
    }

    /// Hands the pending blocks over while the next batches go on above them: they stay readable here until
    /// [`Writer::confirm`]. What the cache is to be told comes with them, to be [applied](CacheUpdate::apply) once they are committed,
    /// in the order they were handed over. If that fails, throw the writer away.
    pub fn hand_over(&mut self) -> (Vec<Bytes>, CacheUpdate) {
        let blocks = {
            let mut pending = self.source.pending.write();
            let blocks = pending.blocks[pending.handed..].to_vec();
            pending.handed = pending.blocks.len();
            blocks
        };
        (blocks, self.cache_update())
    }

    /// The blocks below this are in the log for good.
    pub fn confirm(&mut self, below: Length) {
        let mut pending = self.source.pending.write();
        let count = (below.0.saturating_sub(pending.first) as usize).min(pending.handed);
        pending.blocks.drain(..count);
        pending.first += count as u64;
        pending.handed -= count;
        self.tree.cached_below = self.tree.cached_below.max(below.0);
    }

    /// What the cache is to be told of the batches since the last time.
    fn cache_update(&mut self) -> CacheUpdate {
        let superseded = std::mem::take(&mut self.superseded).into_iter();
        let mut update = CacheUpdate {
            cache: self.tree.cache.clone(),
            superseded: superseded.map(|place| self.tree.address(place)).collect(),
            nodes: Vec::new(),
        };
        let mut written = std::mem::take(&mut self.written);
        written.sort_unstable();
        written.dedup();
        for link in written {
            let link = *self.arena.link(link);
            update.nodes.extend(self.node_at(link.node, link.block, link.offset));
        }
        if self.root != NONE && self.length >= 2 {
            update.nodes.extend(self.node_at(self.root, self.length - 1, 0));
        }
        self.handed_below = self.length;
        update
    }

    /// A node as the cache has it, unless it has it already.
    fn node_at(&self, node: NodeId, block: u64, offset: u32) -> Option<Node> {
        let address = self.tree.address(Child { block, offset });
        if block == 0 || self.tree.cache.get(address).is_some() {
            return None;
        }
        let node = self.arena.node(node);
        let keys = node.keys().iter().map(|&key| {
            let key = &self.arena.keys[key as usize];
            Key { seq: key.seq, resolved: key.resolved.clone().map(Into::into).unwrap_or_default() }
        });
        let children = node.children().iter().map(|&link| {
            let link = self.arena.link(link);
            Child { block: link.block, offset: link.offset }
        });
        Some(Node::new(address, keys.collect(), children.collect()))
    }

    /// Lets go of the tree in memory; the next operation loads what it needs.
    pub(super) fn forget_tree(&mut self) {
        self.arena.clear();
        self.root = NONE;
        self.written.clear();
        self.superseded.clear();
        self.operations.clear();
        self.places.clear();
        self.stray = false;
        self.finger = None;
    }

    /// The number the next block will have.
    fn next_block(&self) -> u64 {
        self.length + self.operations.len() as u64
    }

    /// Before any operation: the header is written, the root loaded.
    fn open(&mut self) -> Result<()> {
        if self.length == 0 {
            let header = Header { metadata: self.metadata.clone() };
            self.source.pending.write().blocks.push(header.encode());
            self.length = 1;
        }
        if self.root != NONE {
            return Ok(());
        }
        self.root = match self.length.checked_sub(2) {
            None => self.arena.add_node(ArenaNode::empty()),
            Some(_) => {
                let place = Child { block: self.length - 1, offset: 0 };
                let root = self.tree.node(place, &mut Readahead::none(), Access::Lookup)?;
                self.arena.load(&root, true)?
            }
        };
        Ok(())
    }

    /// An entry of the tree in memory. Large values of this batch are in no block yet.
    fn entry(&mut self, key: KeyId) -> Result<Entry> {
        let seq = self.arena.keys[key as usize].seq;
        if let Some(i) = seq.checked_sub(self.length)
            && let Some(large) = &self.operations[i as usize].large
        {
            let mut entry = self.arena.resolve(&self.tree, key)?.key_entry(seq);
            entry.value = Some(large.clone());
            return Ok(entry);
        }
        self.arena.entry(&self.tree, key)
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        self.open()?;
        let mut node = self.root;
        for _ in 0..DEPTH_MAX {
            node = match self.arena.search(&self.tree, node, key)? {
                Ok(i) => {
                    let key = self.arena.node(node).keys()[i];
                    return self.entry(key).map(Some);
                }
                Err(_) if self.arena.node(node).is_leaf() => return Ok(None),
                Err(i) => self.arena.child(&self.tree, node, i)?,
            }
        }
        Err(self.endless())
    }

    fn endless(&self) -> crate::Error {
        corrupt(self.length - 1, "a path from the root that does not end")
    }

    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        always_duplicate: bool,
        condition: Option<Condition<'_>>,
    ) -> Result<bool> {
        self.open()?;
        let (node, found) = self.seek(key)?;
        let is_leaf = self.arena.node(node).is_leaf();
        let at = match found {
            Err(at) => at,
            Ok(at) => {
                let there = self.arena.node(node).keys()[at];
                if !self.wants(there, key, value, always_duplicate, condition)? {
                    for &(node, _) in &self.path {
                        self.arena.node_mut(node).changed = true;
                        self.stray = true;
                    }
                    return Ok(false);
                }
                at
            }
        };
        let seq = self.next_block();
        let new = self.arena.add_key(seq, Some(Resolved::copy(key, value)));
        let places = self.places.len();
        if found.is_ok() {
            self.arena.node_mut(node).set_key(at, new);
            self.number_put(seq, is_leaf.then_some(node), None);
        } else {
            self.arena.node_mut(node).insert_key(at, new);
            if self.arena.node(node).keys().len() > KEYS_MAX {
                self.split(seq, node, at);
            } else {
                self.number_put(seq, Some(node), None);
            }
        }
        self.record(new, value, places);
        Ok(true)
    }

    /// Finds the place of a key: the node and the place in it. `path` then holds the nodes above a leaf,
    /// or those down to and with an inner node that has the key.
    fn seek(&mut self, key: &[u8]) -> Result<(NodeId, std::result::Result<usize, usize>)> {
        if let Some(finger) = self.finger
            && self.lies_above(finger.low, key)
            && self.lies_below(finger.high, key)
        {
            let found = self.arena.search(&self.tree, finger.leaf, key)?;
            return Ok((finger.leaf, found));
        }
        self.finger = None;
        self.path.clear();
        let (mut low, mut high) = (NONE, NONE);
        let mut node = self.root;
        for _ in 0..DEPTH_MAX {
            let found = self.arena.search(&self.tree, node, key)?;
            let keys = self.arena.node(node).keys();
            if self.arena.node(node).is_leaf() {
                self.finger = Some(Finger { leaf: node, low, high });
                return Ok((node, found));
            }
            let i = match found {
                Ok(i) => {
                    self.path.push((node, i));
                    return Ok((node, found));
                }
                Err(i) => i,
            };
            // The search compared with both neighbours, so their bytes are known.
            low = i.checked_sub(1).map_or(low, |before| keys[before]);
            high = keys.get(i).copied().unwrap_or(high);
            self.path.push((node, i));
            node = self.arena.child(&self.tree, node, i)?;
        }
        Err(self.endless())
    }

    fn lies_above(&self, bound: KeyId, key: &[u8]) -> bool {
        bound == NONE || self.known(bound).is_some_and(|bound| key > bound)
    }

    fn lies_below(&self, bound: KeyId, key: &[u8]) -> bool {
        bound == NONE || self.known(bound).is_some_and(|bound| key < bound)
    }

    fn known(&self, key: KeyId) -> Option<&[u8]> {
        let resolved = &self.arena.keys[key as usize].resolved;
        resolved.as_ref().map(Resolved::key)
    }

    /// Whether a put over an existing key is to be done.
    fn wants(
        &mut self,
        there: KeyId,
        key: &[u8],
        value: Option<&[u8]>,
        always_duplicate: bool,
        condition: Option<Condition<'_>>,
    ) -> Result<bool> {
        if condition.is_none() && always_duplicate {
            return Ok(true);
        }
        let existing = self.entry(there)?;
        if let Some(condition) = condition {
            let new = Entry {
                seq: BlockIndex(self.next_block()),
                key: Bytes::copy_from_slice(key),
                value: value.map(Bytes::copy_from_slice),
            };
            if !condition(&existing, &new) {
                return Ok(false);
            }
        }
        Ok(always_duplicate || existing.value.as_deref() != value)
    }

    /// Splits a node that has one key too many, and its parents as far as that makes them so.
    fn split(&mut self, seq: u64, leaf: NodeId, at: usize) {
        let parent_has_room = match self.path.last() {
            Some(&(parent, _)) => self.arena.node(parent).keys().len() < KEYS_MAX,
            None => false,
        };
        if !parent_has_room || self.stray {
            self.finger = None;
            for i in 0..self.path.len() {
                let (node, _) = self.path[i];
                self.arena.node_mut(node).changed = true;
            }
            let mut node = leaf;
            while self.arena.node(node).keys().len() > KEYS_MAX {
                let parent = self.path.pop();
                node = self.split_one(node, parent).0;
            }
            self.number_all(seq);
            return;
        }
        let parent = self.path.last().copied();
        let (_, right, median) = self.split_one(leaf, parent);
        self.number_put(seq, Some(leaf), Some(right));
        // The finger stays in the half that was put into.
        if let Some(finger) = &mut self.finger {
            if at < self.arena.node(leaf).keys().len() {
                finger.high = median;
            } else {
                finger.leaf = right;
                finger.low = median;
                self.path.last_mut().expect("it has a parent").1 += 1;
            }
        }
    }

    /// Cuts one node in two and tells its parent, or a new root: `(parent, right half, key between)`.
    fn split_one(&mut self, node: NodeId, parent: Option<(NodeId, usize)>) -> (NodeId, NodeId, KeyId) {
        let (median, right) = self.arena.node_mut(node).split();
        let right = self.arena.add_node(right);
        let right_link = self.arena.add_link(0, 0, right);
        let parent = match parent {
            Some((parent, index)) => {
                let node = self.arena.node_mut(parent);
                node.insert_key(index, median);
                node.insert_child(index + 1, right_link);
                parent
            }
            None => {
                let left_link = self.arena.add_link(0, 0, node);
                let mut root = ArenaNode::empty();
                root.insert_key(0, median);
                root.insert_child(0, left_link);
                root.insert_child(1, right_link);
                self.root = self.arena.add_node(root);
                self.root
            }
        };
        (parent, right, median)
    }

    pub(super) fn delete(&mut self, key: &[u8], condition: Option<Condition<'_>>) -> Result<bool> {
        self.open()?;
        let mut path = Path::with_capacity(12);
        let mut node = self.root;
        let at = loop {
            if path.len() == DEPTH_MAX {
                return Err(self.endless());
            }
            match self.arena.search(&self.tree, node, key)? {
                Ok(i) => {
                    path.push((node, i));
                    break i;
                }
                Err(_) if self.arena.node(node).is_leaf() => return Ok(false),
                Err(i) => {
                    path.push((node, i));
                    node = self.arena.child(&self.tree, node, i)?;
                }
            }
        };
        if let Some(condition) = condition {
            let existing = self.entry(self.arena.node(node).keys()[at])?;
            let new = Entry { seq: BlockIndex(self.next_block()), key: existing.key.clone(), value: None };
            if !condition(&existing, &new) {
                return Ok(false);
            }
        }
        self.root = rebalance::remove(&mut self.arena, &self.tree, &mut path, at)?;
        self.finger = None;
        let seq = self.next_block();
        let deleted = self.arena.add_key(seq, Some(Resolved::copy(key, None)));
        let places = self.places.len();
        self.number_all(seq);
        self.record(deleted, None, places);
        Ok(true)
    }

    fn record(&mut self, key: KeyId, value: Option<&[u8]>, places: usize) {
        let large = value.filter(|value| value.len() > VALUE_KEPT_MAX);
        self.operations.push(Operation { key, large: large.map(Bytes::copy_from_slice), places });
    }
}

/// The log with the pending blocks on top.
pub(super) struct Pending {
    below: Arc<dyn BlockSource>,
    pub(super) pending: RwLock<Waiting>,
}

/// Blocks that are not in the log yet.
pub(super) struct Waiting {
    /// The first one's number.
    first: u64,
    pub(super) blocks: Vec<Bytes>,
    /// So many of them, the oldest, were handed over.
    handed: usize,
}

/// What the cache is to be told once blocks that were handed over are committed.
pub struct CacheUpdate {
    cache: Arc<Cache>,
    superseded: Vec<NodeAddress>,
    nodes: Vec<Node>,
}

impl CacheUpdate {
    /// Puts the nodes of the blocks into the cache, and takes out what they replace. Blocks that are not committed for good would be
    /// believed by readers.
    pub fn apply(self) {
        self.put_nodes().remove();
    }

    /// Puts the nodes of the blocks into the cache, which is what readers of the new version wait for. What they replace is still there, and
    /// given back to be [removed](Superseded::remove).
    pub fn put_nodes(self) -> Superseded {
        for node in self.nodes {
            self.cache.insert(node, Access::Lookup);
        }
        Superseded { cache: self.cache, places: self.superseded }
    }
}

/// Nodes in the cache that the newest version no longer has. Forgotten, they stay until others push them out.
#[must_use]
pub struct Superseded {
    cache: Arc<Cache>,
    places: Vec<NodeAddress>,
}

impl Superseded {
    /// Takes them out.
    pub fn remove(self) {
        for address in self.places {
            self.cache.remove(address);
        }
    }
}

impl BlockSource for Pending {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        {
            let pending = self.pending.read();
            let block = index.0.checked_sub(pending.first);
            if let Some(block) = block.and_then(|i| pending.blocks.get(i as usize)) {
                return Ok(block.clone());
            }
        }
        // Not under the lock: this may wait for a disk.
        self.below.block(index)
    }

    fn want(&self, blocks: &[BlockIndex]) {
        self.below.want(blocks);
    }
}
