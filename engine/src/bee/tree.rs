//! From a version to its root, from the root to a key.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::block::{Block, Header};
use super::cache::{Access, Cache};
use super::node::{Child, DEPTH_MAX, Key, Nearness, Node, NodeAddress, Resolved, ResolvedValue, shared_bytes};
use super::readahead::Readahead;
use super::{
    AuditReport, BlockSource, Cursor, Diff, Direction, Entry, History, KeyRange, Sub, SubSnapshot, audit, corrupt,
    extension,
};
use crate::hypercore::{Patience, patiently};
use crate::{BlockIndex, Error, Result, Version};

/// Peers are asked about so many keys of one [`Snapshot::get_many`] at most.
const QUESTIONS_MAX: usize = 16;

/// A bee: blocks and a cache to read them through. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bee {
    tree: Arc<Tree>,
}

impl Bee {
    /// A bee over these blocks. The cache knows them by `source_id`, which must differ between logs that
    /// share a cache, and must not be used for blocks that may still be replaced (uncommitted ones).
    pub fn new(source: Arc<dyn BlockSource>, cache: Arc<Cache>, source_id: u64) -> Bee {
        Bee { tree: Arc::new(Tree { source, cache, source_id, cached_below: u64::MAX }) }
    }

    /// The bee as it was when a commit ended. Reads nothing yet; whether a commit ended there is the
    /// caller's to know. Versions 0 and 1 are empty.
    pub fn at(&self, version: Version) -> Snapshot {
        Snapshot { tree: self.tree.clone(), version, root: Arc::new(OnceLock::new()) }
    }
}

/// One version of a bee. Immutable, cheap to clone, free to keep.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) tree: Arc<Tree>,
    version: Version,
    root: Arc<OnceLock<Arc<Node>>>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({})", self.version)
    }
}

impl Snapshot {
    /// The version this is a view of.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The entry of one key. Visits a node a level, about log6 of the number of keys; those and their keys
    /// are read from blocks the first time and are in the cache afterwards.
    ///
    /// JavaScript's `get` takes a short cut: it returns the block at hand when that block's operation had
    /// the wanted key. The block may be an old one whose key was deleted since. This is the plain descent.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica whose source does not wait: call again once it is there. [`Error::GaveUp`] from one that waited.
    /// [`Error::Corrupt`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        match self.look_up(key) {
            Err(error @ Error::MissingBlock(_)) => self.get_patiently(key, error),
            found => found,
        }
    }

    /// Peers are asked, once, which blocks the way to the key has; each level of it that is missing all the same takes a round of waiting.
    #[cold]
    fn get_patiently(&self, key: &[u8], mut error: Error) -> Result<Option<Entry>> {
        let source = &*self.tree.source;
        source.ask(extension::NAME, extension::get(self.version, key));
        let mut patience = Patience::default();
        loop {
            patience.wait(source, error)?;
            error = match self.look_up(key) {
                Err(missing @ Error::MissingBlock(_)) => missing,
                found => return found,
            };
        }
    }

    /// The entries of several keys. On a replica they take about as many rounds of waiting as one: what any of them misses is asked for together.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Entry>>> {
        let mut entries = vec![None; keys.len()];
        let mut left: Vec<usize> = (0..keys.len()).collect();
        let mut patience = Patience::default();
        let mut have_asked = false;
        loop {
            let mut missing = Vec::new();
            let mut still = Vec::new();
            for i in left {
                match self.look_up(keys[i].as_ref()) {
                    Ok(entry) => entries[i] = entry,
                    Err(Error::MissingBlock(block)) => {
                        missing.push(block);
                        still.push(i);
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(&first) = missing.first() else {
                return Ok(entries);
            };
            let source = &*self.tree.source;
            if !std::mem::replace(&mut have_asked, true) {
                for &i in still.iter().take(QUESTIONS_MAX) {
                    source.ask(extension::NAME, extension::get(self.version, keys[i].as_ref()));
                }
            }
            source.want(&missing);
            patience.wait(source, Error::MissingBlock(first))?;
            left = still;
        }
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Entry>> {
        let mut ahead = Readahead::none();
        let Some(root) = self.root(&mut ahead, Access::Lookup)? else {
            return Ok(None);
        };
        let mut near = Nearness::default();
        let mut held;
        let mut node = root;
        for _ in 0..DEPTH_MAX {
            let child = match self.tree.search(node, key, &mut near, &mut ahead)? {
                Ok(i) => return self.tree.entry(node, i, &mut ahead, 1).map(Some),
                Err(_) if node.is_leaf() => return Ok(None),
                Err(i) => i,
            };
            held = self.tree.child(node, child, &mut ahead, Access::Lookup)?;
            node = &held;
        }
        Err(too_deep(node))
    }

    /// Reads the entries of a range in order.
    pub fn cursor(&self, range: KeyRange, direction: Direction) -> Cursor {
        Cursor::new(self.clone(), range, direction)
    }

    /// What differs between this version and another of the same bee, usually an older one.
    pub fn diff(&self, older: &Snapshot, range: KeyRange) -> Diff {
        Diff::new(self.clone(), older.clone(), range)
    }

    /// The operations in a range of blocks, cut to what this version has, in the order they were written
    /// or the reverse.
    pub fn history(&self, blocks: Range<BlockIndex>, direction: Direction) -> History {
        History::new(self.tree.clone(), self.version, blocks, direction)
    }

    /// The keys below a prefix, as a bee of their own.
    pub fn sub(&self, sub: Sub) -> SubSnapshot {
        SubSnapshot::new(self.clone(), sub)
    }

    /// What block 0 says about the bee.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the log is not a bee; what the source says when it has no block 0.
    pub fn header(&self) -> Result<Header> {
        let source = &*self.tree.source;
        patiently(source, || self.read_header(), |_| Vec::new())
    }

    /// The header, if it is here.
    pub(crate) fn read_header(&self) -> Result<Header> {
        Header::decode(&self.tree.source.block(BlockIndex(0))?)
    }

    /// Walks all of this version and checks every invariant, reading the stored blocks past the cache.
    ///
    /// # Errors
    ///
    /// The first [`Error::Corrupt`] met, or [`Error::MissingBlock`] where not everything is held.
    pub fn audit(&self) -> Result<AuditReport> {
        audit::audit(self)
    }

    /// The root, or `None` of an empty version.
    pub(crate) fn root(&self, ahead: &mut Readahead, access: Access) -> Result<Option<&Arc<Node>>> {
        if let Some(root) = self.root.get() {
            return Ok(Some(root));
        }
        let Some(block) = self.version.root() else {
            return Ok(None);
        };
        let root = self.tree.node(Child { block: block.0, offset: 0 }, ahead, access)?;
        Ok(Some(self.root.get_or_init(|| root)))
    }
}

/// What every view of a bee shares.
pub(crate) struct Tree {
    pub(crate) source: Arc<dyn BlockSource>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) source_id: u64,
    /// Blocks from here on may yet be replaced: nodes in them do not enter the cache.
    pub(crate) cached_below: u64,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree(source {})", self.source_id)
    }
}

impl Tree {
    pub(crate) fn address(&self, place: Child) -> NodeAddress {
        NodeAddress { source: self.source_id, block: place.block, offset: place.offset }
    }

    /// A node, from the cache or from its block.
    #[inline]
    pub(crate) fn node(&self, place: Child, ahead: &mut Readahead, access: Access) -> Result<Arc<Node>> {
        let address = self.address(place);
        match self.cache.get(address) {
            Some(node) => Ok(node),
            None => self.read_node(address, ahead, access),
        }
    }

    #[cold]
    fn read_node(&self, address: NodeAddress, ahead: &mut Readahead, access: Access) -> Result<Arc<Node>> {
        self.cache.count_miss();
        let bytes = ahead.block(&*self.source, address.block, 1)?;
        let block = Block::decode(BlockIndex(address.block), bytes)?;
        let node = Node::decode(address, &block, &block.level(address.offset)?)?;
        if address.block < self.cached_below { Ok(self.cache.insert(node, access)) } else { Ok(Arc::new(node)) }
    }

    /// A node's child. Only roots may be empty; refusing it here makes every walk of hostile blocks
    /// produce keys, whose order is checked, or end.
    #[inline]
    pub(crate) fn child(&self, node: &Node, i: usize, ahead: &mut Readahead, access: Access) -> Result<Arc<Node>> {
        match self.node(node.children[i], ahead, access) {
            Ok(child) if child.keys.is_empty() => Err(corrupt(child.address.block, "an empty tree node")),
            child => child,
        }
    }

    /// A search in a node met a missing key. Before that is reported, all that the search may still need of the node is wanted: the keys of this range that
    /// are not known, and the children between and around them.
    #[cold]
    fn missing(&self, node: &Node, keys: Range<usize>, error: Error) -> Error {
        if let Error::MissingBlock(_) = error {
            let children = keys.start..=keys.end;
            let unknown = |key: &&Key| key.resolved.get().is_none();
            let keys = node.keys[keys].iter().filter(unknown).map(|key| key.seq);
            let children = node.children.get(children).unwrap_or_default().iter().map(|child| child.block);
            let mut wanted: Vec<BlockIndex> = keys.chain(children).map(BlockIndex).collect();
            wanted.sort_unstable();
            wanted.dedup();
            self.source.want(&wanted);
        }
        error
    }

    /// Key `i` of a node, read from its block if this is the first time. `run`: see [`Readahead::block`].
    #[inline]
    pub(crate) fn resolve<'n>(
        &self,
        node: &'n Node,
        i: usize,
        ahead: &mut Readahead,
        run: i64,
    ) -> Result<&'n Resolved> {
        match node.keys[i].resolved.get() {
            Some(resolved) => Ok(resolved),
            None => self.read_key(node, i, ahead, run),
        }
    }

    #[cold]
    fn read_key<'n>(&self, node: &'n Node, i: usize, ahead: &mut Readahead, run: i64) -> Result<&'n Resolved> {
        let key = &node.keys[i];
        let resolved = self.read_resolved(key.seq, ahead, run)?;
        let bytes = resolved.heap_bytes();
        if key.resolved.set(resolved).is_ok() {
            self.cache.charge(node, bytes);
        }
        Ok(key.resolved.get().expect("set here or by another thread"))
    }

    /// The key and value a block wrote.
    pub(crate) fn read_resolved(&self, seq: u64, ahead: &mut Readahead, run: i64) -> Result<Resolved> {
        let bytes = ahead.block(&*self.source, seq, run)?;
        Ok(Resolved::from_block(&Block::decode(BlockIndex(seq), bytes)?))
    }

    /// `Ok` with the index of a key, or `Err` with the index of the child that may hold it. `near` is
    /// carried from the root down: a new one for each search.
    #[inline]
    pub(crate) fn search(
        &self,
        node: &Node,
        key: &[u8],
        near: &mut Nearness,
        ahead: &mut Readahead,
    ) -> Result<std::result::Result<usize, usize>> {
        let needle = node.needle(key, *near);
        let (mut low, mut high) = (0, node.keys.len());
        while low < high {
            let middle = (low + high) / 2;
            let (order, shared) = match node.compare_head(&needle, middle) {
                Some(known) => known,
                None => {
                    let other = match self.resolve(node, middle, ahead, 1) {
                        Ok(resolved) => resolved.key(),
                        Err(error) => return Err(self.missing(node, low..high, error)),
                    };
                    node.set_head(&needle, middle, other);
                    (key.cmp(other), shared_bytes(key, other))
                }
            };
            match order {
                Ordering::Equal => return Ok(Ok(middle)),
                Ordering::Less => (high, near.high) = (middle, shared),
                Ordering::Greater => (low, near.low) = (middle + 1, shared),
            }
        }
        Ok(Err(low))
    }

    /// Key `i` of a node with its value.
    #[inline]
    pub(crate) fn entry(&self, node: &Node, i: usize, ahead: &mut Readahead, run: i64) -> Result<Entry> {
        let resolved = self.resolve(node, i, ahead, run)?;
        self.complete(node.keys[i].seq, resolved, ahead)
    }

    /// The entry of a resolved key: a value too large to be kept is read again.
    #[inline]
    pub(crate) fn complete(&self, seq: u64, resolved: &Resolved, ahead: &mut Readahead) -> Result<Entry> {
        let mut entry = resolved.key_entry(seq);
        match resolved.value() {
            ResolvedValue::Here(value) => entry.value = value,
            ResolvedValue::Elsewhere => {
                let bytes = ahead.block(&*self.source, seq, 1)?;
                let block = Block::decode(BlockIndex(seq), bytes)?;
                entry.value = block.value().map(|value| bytes.slice_ref(value));
            }
        }
        Ok(entry)
    }
}

#[cold]
pub(crate) fn too_deep(node: &Node) -> Error {
    corrupt(node.address.block, format!("a path from the root longer than {DEPTH_MAX} nodes"))
}
