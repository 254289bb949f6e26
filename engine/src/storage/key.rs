//! Every key of the store, with its bytes.
//!
//! ```text
//! space   key                                          value (see `record.rs`)
//! meta    00                                           store record
//!         01  core id u64be                            core record
//!         02  discovery key[32]                        core id
//!         03  namespace[32]  name                      core id
//!         04  core id u64be                            head
//!         05  core id u64be  page u32be                bitfield page (only of cores with holes)
//!         06  core id u64be                            why the core is frozen (only of those that are)
//! block   core id u64be  block u64be                   block
//! tree    core id u64be  last block of chunk u64be     Merkle nodes of up to 64 blocks that are held
//!         core id + 2^63 u64be  last block u64be  depth u8      one Merkle node (of sparse replicas)
//! ```
//!
//! Numbers are big-endian, so that keys sort as their numbers do: the blocks of a core lie side by side
//! in order, and a chunk of nodes is found by a seek to the block that completed a node. A single node lies
//! under the block that completes it, too: all nodes over any block from `n` on, of either kind, are one range,
//! which is what a truncation removes. Core ids are handed out by the store from 1 on; they are shorter than
//! keys and keep cores apart in the order they were made.

use crate::crypto::key::DiscoveryKey;
use crate::flat_tree;
use crate::position::{BlockIndex, NodeIndex};
use crate::storage::Range;

/// A core's number within one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u64);

/// A key of [`Space::Meta`](crate::storage::Space::Meta).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey<'a> {
    /// The one record about the store itself.
    Store,
    /// What is known of a core but its content.
    Core(CoreId),
    /// The core with this discovery key.
    Discovery(DiscoveryKey),
    /// The core with this name.
    Name(&'a [u8; 32], &'a [u8]),
    /// A core's signed head.
    Head(CoreId),
    /// Which blocks of one page a core holds.
    Page(CoreId, u32),
    /// Why a core is frozen.
    Conflict(CoreId),
}

impl MetaKey<'_> {
    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        let join = |kind: u8, parts: &[&[u8]]| [&[kind], parts.concat().as_slice()].concat();
        match self {
            MetaKey::Store => vec![0],
            MetaKey::Core(core) => join(1, &[&core.0.to_be_bytes()]),
            MetaKey::Discovery(key) => join(2, &[&key.0]),
            MetaKey::Name(namespace, name) => join(3, &[namespace, name]),
            MetaKey::Head(core) => join(4, &[&core.0.to_be_bytes()]),
            MetaKey::Page(core, page) => join(5, &[&core.0.to_be_bytes(), &page.to_be_bytes()]),
            MetaKey::Conflict(core) => join(6, &[&core.0.to_be_bytes()]),
        }
    }

    /// All core records.
    pub fn all_cores() -> Range {
        Range::prefix(&[1])
    }

    /// All names of all namespaces.
    pub fn all_names() -> Range {
        Range::prefix(&[3])
    }

    /// All bitfield pages of a core.
    pub fn all_pages(core: CoreId) -> Range {
        Range::prefix(&[&[5], &core.0.to_be_bytes()[..]].concat())
    }
}

/// Key of a block, and of the chunk of nodes that ends with it.
pub fn block(core: CoreId, block: BlockIndex) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&core.0.to_be_bytes());
    key[8..].copy_from_slice(&block.0.to_be_bytes());
    key
}

/// The block that a key of [`block()`] names.
pub fn block_index(key: &[u8]) -> Option<BlockIndex> {
    let bytes: &[u8; 8] = key.get(8..)?.try_into().ok()?;
    Some(BlockIndex(u64::from_be_bytes(*bytes)))
}

/// All keys of a core from this block on, in the space of blocks or of nodes.
pub fn blocks_from(core: CoreId, first: BlockIndex) -> Range {
    Range::new(block(core, first), core_end(core))
}

/// Keys of so many blocks of a core.
pub fn blocks(core: CoreId, first: BlockIndex, count: u64) -> Range {
    Range::new(block(core, first), block(core, BlockIndex(first.0 + count)))
}

/// Key of a single node.
pub fn node(core: CoreId, node: NodeIndex) -> [u8; 17] {
    let mut key = [0; 17];
    key[..16].copy_from_slice(&nodes_from(core, flat_tree::last_block(node)));
    key[16] = flat_tree::depth(node) as u8;
    key
}

/// The node that a key of [`node()`] names.
pub fn node_index(key: &[u8]) -> Option<NodeIndex> {
    let (last, depth): (&[u8; 8], &[u8; 1]) = (key.get(8..16)?.try_into().ok()?, key.get(16..)?.try_into().ok()?);
    let (last, depth) = (u64::from_be_bytes(*last), u32::from(depth[0]));
    (depth < 60 && last < 1 << 60).then(|| flat_tree::node(depth, last >> depth))
}

/// Where the single nodes begin whose last block is this one or a later one.
pub fn nodes_from(core: CoreId, first: BlockIndex) -> [u8; 16] {
    block(singles(core), first)
}

/// The first key after all single nodes of a core.
pub fn nodes_end(core: CoreId) -> [u8; 16] {
    core_end(singles(core))
}

/// Under what number a core's single nodes lie: no core has such an id.
fn singles(core: CoreId) -> CoreId {
    CoreId(core.0 | 1 << 63)
}

/// The first key after all of a core's, in the space of blocks or of chunks.
pub fn core_end(core: CoreId) -> [u8; 16] {
    block(CoreId(core.0 + 1), BlockIndex(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_nodes_sort_by_the_block_that_completes_them() {
        let keys: Vec<_> = [0, 2, 1, 4, 6, 5, 3, 8].map(|index| node(CoreId(7), NodeIndex(index))).to_vec();
        assert!(keys.is_sorted() && keys.iter().all(|key| key[..] < nodes_end(CoreId(7))[..]));
        assert!(keys.iter().all(|key| key[..] > core_end(CoreId(u64::MAX >> 1))[..] || key[0] == 0x80));
        for key in keys {
            assert_eq!(node(CoreId(7), node_index(&key).expect("it is one")), key);
        }
        assert_eq!((node_index(&[0; 16]), node_index(&[255; 17])), (None, None));
    }
}
