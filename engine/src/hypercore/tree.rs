//! Reading Merkle nodes, packed or single (how they lie in the store is told in [`crate::storage::record`]), and the nodes that were
//! read or verified last: [`NodeCache`].
//!
//! What a core knows of its tree, and what must stay true of it:
//!
//! * with a node, its parent is known, up to a root of the head;
//! * of a held block, its leaf is known, and the siblings of that and of all nodes above it: the block can be proved;
//! * nothing is known that did not lead up to a signed root.
//!
//! So a node is known for certain if it is a root, or if a block is held below its parent: [`Core::missing_nodes`] asks no disk.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Core;
use crate::crypto::merkle::{Roots, TreeNode};
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::hypercore::bitfield::Bitfield;
use crate::position::{BlockIndex, Length, NodeIndex};
use crate::storage::key::{self, CoreId};
use crate::storage::record;
use crate::storage::{Backend, Space};

/// How many nodes are kept at least, once there were so many; twice as many at most, which take some 2 MB.
const CACHED_NODES: usize = 1 << 14;

/// A node of this depth covers as many blocks as a chunk.
const CHUNK_DEPTH: u32 = record::CHUNK_BLOCKS_MAX.ilog2();

/// The nodes that were read or verified last: a download in order, and serving one, read none from the store.
///
/// Two generations: what is used moves to the younger, and when that is full the older is forgotten.
#[derive(Default)]
pub(super) struct NodeCache {
    state: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: FxHashMap<NodeIndex, TreeNode>,
    old: FxHashMap<NodeIndex, TreeNode>,
    /// How often everything was forgotten.
    epoch: u64,
}

impl NodeCache {
    pub fn get(&self, index: NodeIndex) -> Option<TreeNode> {
        let mut state = self.state.lock();
        if let Some(node) = state.young.get(&index) {
            return Some(*node);
        }
        let node = state.old.remove(&index)?;
        state.insert(node);
        Some(node)
    }

    /// Which epoch this is; to be asked before what is to be kept is read.
    pub fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Keeps nodes that were read in this epoch.
    pub fn keep(&self, epoch: u64, nodes: impl IntoIterator<Item = TreeNode>) {
        let mut state = self.state.lock();
        if state.epoch == epoch {
            nodes.into_iter().for_each(|node| state.insert(node));
        }
    }

    /// Nodes have gone from the store: what is being read of it is not to be kept either.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        *state = Generations { epoch: state.epoch + 1, ..Generations::default() };
    }
}

impl Generations {
    fn insert(&mut self, node: TreeNode) {
        if self.young.len() >= CACHED_NODES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(node.index, node);
    }
}

impl Core {
    /// A node of the tree, from the cache or the store. The caller sees to it that it lies below the head.
    pub(super) fn known_node(&self, index: NodeIndex) -> Result<Option<TreeNode>> {
        if let Some(node) = self.nodes.get(index) {
            return Ok(Some(node));
        }
        let epoch = self.nodes.epoch();
        let is_packed = self.has(flat_tree::last_block(index));
        let found =
            find_node(&*self.backend, self.id, index, is_packed).map_err(|error| super::name(error, self.key, None))?;
        Ok(match found {
            Found::Packed(last, payload) => {
                let broken = |what| super::name(damaged(last, what), self.key, None);
                let nodes = record::chunk_nodes(last, &payload).map_err(broken)?;
                let node = nodes.iter().find(|node| node.index == index).copied();
                // Whoever asks for a node near the leaves will ask for its neighbours, which lie in this chunk; those of nodes further
                // up lie elsewhere.
                let near = if flat_tree::depth(index) < CHUNK_DEPTH { 0 } else { CHUNK_DEPTH };
                self.nodes.keep(epoch, nodes.into_iter().filter(|node| flat_tree::depth(node.index) >= near));
                node
            }
            Found::Single(node) => {
                self.nodes.keep(epoch, [node]);
                Some(node)
            }
            Found::Nothing => None,
        })
    }

    /// How many steps lead up from a node to one that is known here: what goes into
    /// [`BlockRequest::nodes`](super::proof::BlockRequest::nodes). 0 beyond the length.
    ///
    /// Reads nothing from the store. After a restart it may name a step more than needed, where a node is known that no held
    /// block lies near to.
    pub fn missing_nodes(&self, index: NodeIndex) -> u64 {
        let published = self.published.read();
        let known = |node| {
            published.roots.node(node).is_some() || is_implied(&published.held, node) || self.nodes.get(node).is_some()
        };
        if !is_below(index, published.head.length) {
            return 0;
        }
        let mut node = index;
        let mut steps = 0;
        while !known(node) {
            node = flat_tree::parent(node);
            steps += 1;
        }
        steps
    }
}

impl Core {
    /// How many bytes the blocks that are stored here have. Costs nothing where all are; else some node reads, and one for each block behind the first hole.
    ///
    /// # Errors
    ///
    /// Those of storage.
    pub fn held_bytes(&self) -> Result<u64> {
        let (head, held) = {
            let published = self.published.read();
            (published.head.clone(), published.held.clone())
        };
        let Length(prefix) = held.contiguous();
        if prefix >= head.length.0 {
            return Ok(head.byte_length);
        }
        // What lies before a hole is covered by the full roots of that length, which the siblings on the way of its last block make up.
        let size = |index| -> Result<u64> { Ok(self.known_node(index)?.map_or(0, |node| node.size)) };
        let mut bytes = 0;
        let mut at = 0;
        for root in flat_tree::full_roots(Length(prefix)) {
            match self.known_node(root)? {
                Some(root) => bytes += root.size,
                None => {
                    for block in at..at + flat_tree::blocks(root) {
                        bytes += size(BlockIndex(block).node())?;
                    }
                }
            }
            at += flat_tree::blocks(root);
        }
        let mut next = held.first_set(BlockIndex(prefix));
        while let Some(block) = next.filter(|block| head.length.contains(*block)) {
            bytes += size(block.node())?;
            next = held.first_set(block.next());
        }
        Ok(bytes)
    }
}

/// Whether a node is complete in a log of this length; `false` also for what cannot be in any.
pub(super) fn is_below(index: NodeIndex, length: Length) -> bool {
    index.0 < super::verify::NODES_MAX && length.contains(flat_tree::last_block(index))
}

/// Whether it is certain that a node below the head is known: a block is held below its parent.
pub(super) fn is_implied(held: &Bitfield, index: NodeIndex) -> bool {
    let above = flat_tree::parent(index);
    held.any(flat_tree::first_block(above)..flat_tree::last_block(above).next())
}

/// The nodes of the roots of a log of this length, as far as `node` has them; `None` unless it has all.
pub(super) fn roots_at(length: Length, node: impl Fn(NodeIndex) -> Result<Option<TreeNode>>) -> Result<Option<Roots>> {
    let mut nodes = Vec::new();
    for index in flat_tree::full_roots(length) {
        match node(index)? {
            Some(node) => nodes.push(node),
            None => return Ok(None),
        }
    }
    Ok(Roots::from_nodes(length, nodes))
}

/// A node, if it is in the store.
pub(super) fn read_node(backend: &dyn Backend, core: CoreId, index: NodeIndex) -> Result<Option<TreeNode>> {
    match find_node(backend, core, index, true)? {
        Found::Packed(last, payload) => record::chunk_node(last, &payload, index).map_err(|what| damaged(last, what)),
        Found::Single(node) => Ok(Some(node)),
        Found::Nothing => Ok(None),
    }
}

enum Found {
    /// In the chunk that ends with this block.
    Packed(BlockIndex, bytes::Bytes),
    Single(TreeNode),
    Nothing,
}

/// A node lies in the chunk of the block that completes it, if that is held, else alone. `is_packed` says which it is; were that
/// wrong, the other place is looked at, too.
fn find_node(backend: &dyn Backend, core: CoreId, index: NodeIndex, is_packed: bool) -> Result<Found> {
    let (first, second): (Place, Place) = if is_packed { (packed, single) } else { (single, packed) };
    match first(backend, core, index)? {
        Found::Nothing => second(backend, core, index),
        found => Ok(found),
    }
}

type Place = fn(&dyn Backend, CoreId, NodeIndex) -> Result<Found>;

/// One seek: the chunk that has a node is the first to end at or after its rightmost leaf.
fn packed(backend: &dyn Backend, core: CoreId, index: NodeIndex) -> Result<Found> {
    let block = flat_tree::last_block(index);
    let Some((last, payload)) = chunk_at(backend, core, block)? else {
        return Ok(Found::Nothing);
    };
    let first = record::chunk_first(last, &payload).map_err(|what| damaged(last, what))?;
    Ok(if first <= block { Found::Packed(last, payload) } else { Found::Nothing })
}

fn single(backend: &dyn Backend, core: CoreId, index: NodeIndex) -> Result<Found> {
    let at = key::node(core, index);
    let Some(value) = backend.get(Space::Tree, &at)? else {
        return Ok(Found::Nothing);
    };
    let broken = |what| Error::corrupt(format!("Merkle node {index}: {what}"));
    let payload = record::unseal(&at, value).map_err(broken)?;
    record::unpack(index, &payload).map(Found::Single).ok_or_else(|| broken("it has an impossible length"))
}

/// The first chunk that ends at this block or after it: where it ends, and its payload.
pub(super) fn chunk_at(
    backend: &dyn Backend,
    core: CoreId,
    block: BlockIndex,
) -> Result<Option<(BlockIndex, bytes::Bytes)>> {
    let Some(entry) = backend.scan(Space::Tree, key::blocks_from(core, block), false).next() else {
        return Ok(None);
    };
    let (at, value) = entry?;
    let last = key::block_index(&at).ok_or_else(|| Error::corrupt("a key of a Merkle chunk is cut off"))?;
    let payload = record::unseal(&at, value).map_err(|what| damaged(last, what))?;
    Ok(Some((last, payload)))
}

pub(super) fn damaged(last: BlockIndex, what: &str) -> Error {
    Error::corrupt(format!("Merkle nodes up to block {last}: {what}"))
}
