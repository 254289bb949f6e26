//! Tree nodes: sorted keys, and the children between them.
//!
//! A node lives inside a block and holds no key bytes: key `i` is the number of the block that wrote it.
//! Comparing with key `i` may therefore read a block; it is read once, and the node in memory then keeps
//! the key, and the value when that is not large.
//!
//! ```text
//! keys          k0      k1      k2         each a block
//! children  c0      c1      c2      c3     each a block and an offset among that block's nodes
//! ```
//!
//! Invariants, asserted by [`check`] on what we write and refused by decoding when others broke them:
//!
//! * 4 to 8 keys; the root may have fewer. Hyperbee 2's successor writes up to [`KEYS_MAX_READ`] into the
//!   same format, so that many are read;
//! * no children (a leaf), or one more child than keys; all leaves equally deep;
//! * nothing points to a newer block than the node's own;
//! * no path from a root is longer than [`DEPTH_MAX`].
//!
//! The limits belong to the format: JavaScript peers read these blocks too. Source: `T = 5` in
//! holepunchto/hyperbee `index.js`.

use std::cmp::Ordering;
use std::mem::size_of;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};

use bytes::Bytes;

use super::block::{Block, Level};
use super::{Entry, corrupt};
use crate::{BlockIndex, Result};

/// Fewest keys of a node that is not the root.
pub const KEYS_MIN: usize = 4;
/// Most keys of a node; with one more it is split.
pub const KEYS_MAX: usize = 2 * KEYS_MIN;
/// Most keys of a node that is read: hyperbee2's compatibility mode splits one later.
pub const KEYS_MAX_READ: usize = 9;
/// Longest path from a root. With at least five children a node, a full one would hold 5^32 keys.
pub const DEPTH_MAX: usize = 32;

// A node one key short, its sibling and the key between them must fit in one node to be merged.
const _: () = assert!((KEYS_MIN - 1) + 1 + KEYS_MIN <= KEYS_MAX);

/// Called on every node about to be written. Panics if an invariant above is broken, which only a bug of
/// ours can do: bad bytes from a disk or a peer were refused when they were decoded.
///
/// `current` nodes are part of the tree the block's batch ends with. Others are leftovers inside a batch
/// (see `batch`): they may have been roots, and may stay short.
pub(crate) fn check(keys: usize, children: usize, is_root: bool, current: bool) {
    assert!(keys <= KEYS_MAX_READ, "too many keys: {keys}");
    assert!(is_root || !current || keys >= KEYS_MIN, "too few keys: {keys}");
    assert!(children == 0 || children == keys + 1, "{keys} keys, {children} children");
}

/// Where a node lives: a block of a source, and its place among the nodes of that block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeAddress {
    /// Which log, as numbered by whoever opened it.
    pub(crate) source: u64,
    pub(crate) block: u64,
    pub(crate) offset: u32,
}

/// A decoded node. Immutable, but for keys that are filled in when first compared.
///
/// A search in it mostly touches this struct alone: `heads` has eight bytes of each key from byte `skip` on,
/// where keys around here begin to differ. What lies in other places of memory is only needed when these
/// are equal.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: NodeAddress,
    /// The cache's: bytes charged for this node, see `cache`.
    pub(crate) charged: AtomicU64,
    /// The cache's: set when the node is used, cleared when the clock's hand passes.
    pub(crate) referenced: AtomicBool,
    /// Which `heads` are filled in.
    known: AtomicU16,
    /// `SKIP_UNSET` until the first search.
    skip: AtomicU32,
    heads: [AtomicU64; KEYS_MAX_READ],
    pub(crate) children: Box<[Child]>,
    pub(crate) keys: Box<[Key]>,
}

const SKIP_UNSET: u32 = u32::MAX;

/// How many bytes the key that is searched for shares with the keys around the subtree at hand, the next
/// smaller and the next greater one seen on the way.
///
/// All keys of the subtree lie between these two, so they share the lesser number of bytes with each
/// other and with the key searched for. Keys count as followed by endless zero bytes here: that keeps
/// their order, except that it may call two equal that are not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nearness {
    pub(crate) low: usize,
    pub(crate) high: usize,
}

impl Nearness {
    #[inline]
    fn shared(self) -> usize {
        self.low.min(self.high)
    }
}

/// What a search compares first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needle {
    head: u64,
    skip: usize,
    known: u16,
}

#[inline]
fn head(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    match rest.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; 8];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

/// How many bytes two keys share.
pub(crate) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A key of a node: its block, and its bytes once they were needed.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) seq: u64,
    pub(crate) resolved: OnceLock<Resolved>,
}

/// A child of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Child {
    pub(crate) block: u64,
    pub(crate) offset: u32,
}

impl Node {
    /// Decodes one level of a block. The keys this block itself wrote come resolved.
    pub(crate) fn decode(address: NodeAddress, block: &Block<'_>, level: &Level<'_>) -> Result<Node> {
        let mut seqs = [0; KEYS_MAX_READ];
        let mut key_count = 0;
        for seq in level.keys() {
            let seq = seq?;
            if key_count == KEYS_MAX_READ {
                return Err(corrupt(address.block, "a tree node with too many keys"));
            }
            // Block 0 is the header and has no key; a key from the future would let nodes form a cycle.
            if seq == 0 || seq > address.block {
                return Err(corrupt(address.block, format!("a tree node names block {seq} as the home of a key")));
            }
            seqs[key_count] = seq;
            key_count += 1;
        }
        let mut children = [Child { block: 0, offset: 0 }; KEYS_MAX_READ + 1];
        let mut child_count = 0;
        let mut numbers = level.children();
        while let Some(child) = numbers.next() {
            let (child, offset) = (child?, numbers.next().transpose()?);
            let offset = offset.and_then(|offset| u32::try_from(offset).ok());
            let Some(offset) = offset.filter(|_| child != 0 && child <= address.block) else {
                return Err(corrupt(address.block, format!("a tree node has a child in block {child}")));
            };
            if child_count > key_count {
                return Err(corrupt(address.block, "a tree node with too many children"));
            }
            children[child_count] = Child { block: child, offset };
            child_count += 1;
        }
        if child_count != 0 && (key_count == 0 || child_count != key_count + 1) {
            return Err(corrupt(
                address.block,
                format!("a tree node with {key_count} keys and {child_count} children"),
            ));
        }
        let keys = seqs[..key_count].iter().map(|&seq| {
            let key = Key { seq, resolved: OnceLock::new() };
            if seq == address.block {
                let _ = key.resolved.set(Resolved::from_block(block));
            }
            key
        });
        Ok(Node::new(address, keys.collect(), children[..child_count].into()))
    }

    /// A node made of parts known to be sound.
    pub(crate) fn new(address: NodeAddress, keys: Box<[Key]>, children: Box<[Child]>) -> Node {
        Node {
            address,
            charged: AtomicU64::new(0),
            referenced: AtomicBool::new(false),
            known: AtomicU16::new(0),
            skip: AtomicU32::new(SKIP_UNSET),
            heads: Default::default(),
            children,
            keys,
        }
    }

    /// Prepares a search. The first one decides where heads begin; a later one whose keys around share
    /// less (in another version, under other parents) does without them.
    #[inline]
    pub(crate) fn needle(&self, key: &[u8], near: Nearness) -> Needle {
        let shared = near.shared();
        let mut skip = self.skip.load(Acquire);
        if skip == SKIP_UNSET {
            let wanted = u32::try_from(shared).unwrap_or(0);
            skip = match self.skip.compare_exchange(SKIP_UNSET, wanted, AcqRel, Acquire) {
                Ok(_) => wanted,
                Err(other) => other,
            };
        }
        let skip = skip as usize;
        Needle {
            head: head(key, skip),
            skip,
            known: match skip <= shared {
                true => self.known.load(Acquire),
                false => 0,
            },
        }
    }

    /// Compares what is searched for with key `i` by their heads: the order, and how many bytes are
    /// shared. `None`: the keys themselves must be compared.
    #[inline]
    pub(crate) fn compare_head(&self, needle: &Needle, i: usize) -> Option<(Ordering, usize)> {
        if needle.known & 1 << i == 0 {
            return None;
        }
        let head = self.heads[i].load(Relaxed);
        let differing = head ^ needle.head;
        if differing == 0 {
            return None;
        }
        let shared = needle.skip + differing.leading_zeros() as usize / 8;
        Some((needle.head.cmp(&head), shared))
    }

    /// Fills in the head of a key that had to be compared.
    #[inline]
    pub(crate) fn set_head(&self, needle: &Needle, i: usize, key: &[u8]) {
        if self.known.load(Relaxed) & 1 << i == 0 {
            self.heads[i].store(head(key, needle.skip), Relaxed);
            self.known.fetch_or(1 << i, Release);
        }
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Memory this node takes now, keys resolved so far included.
    pub(crate) fn bytes(&self) -> usize {
        let resolved = |key: &Key| key.resolved.get().map_or(0, Resolved::heap_bytes);
        size_of::<Node>()
            + self.keys.len() * size_of::<Key>()
            + self.children.len() * size_of::<Child>()
            + self.keys.iter().map(resolved).sum::<usize>()
    }
}

/// Values beyond this are not kept with their keys: one large value should not push a thousand nodes out
/// of the cache. They are read from their block when asked for.
pub(crate) const VALUE_KEPT_MAX: usize = 4096;

const NULL: u32 = u32::MAX;
const ELSEWHERE: u32 = u32::MAX - 1;

/// A key's bytes and, unless large, its value's: one shared piece of memory.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The key from the first byte on; where the value begins is in `value_at`, it goes to the end.
    data: Bytes,
    key_len: u32,
    value_at: u32,
}

/// The value of a resolved key.
pub(crate) enum ResolvedValue {
    Here(Option<Bytes>),
    /// Too large to be kept: read the block.
    Elsewhere,
}

impl Resolved {
    /// From the block that wrote the key. Copied: most of an unbatched block is its index, and a source may
    /// have cut the block from a larger piece of memory, which would then stay.
    pub(crate) fn from_block(block: &Block<'_>) -> Resolved {
        Resolved::copy(block.key(), block.value())
    }

    /// In memory of its own.
    pub(crate) fn copy(key: &[u8], value: Option<&[u8]>) -> Resolved {
        let key_len = key.len() as u32;
        match value {
            None => Resolved { data: Bytes::copy_from_slice(key), key_len, value_at: NULL },
            Some(value) if value.len() > VALUE_KEPT_MAX => {
                Resolved { data: Bytes::copy_from_slice(key), key_len, value_at: ELSEWHERE }
            }
            Some(value) => Resolved { data: [key, value].concat().into(), key_len, value_at: key_len },
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }

    pub(crate) fn key_bytes(&self) -> Bytes {
        self.data.slice(..self.key_len as usize)
    }

    pub(crate) fn value(&self) -> ResolvedValue {
        match self.value_at {
            NULL => ResolvedValue::Here(None),
            ELSEWHERE => ResolvedValue::Elsewhere,
            at => ResolvedValue::Here(Some(self.data.slice(at as usize..))),
        }
    }

    /// The value without a new reference to it; `None` when it is elsewhere.
    pub(crate) fn value_ref(&self) -> Option<Option<&[u8]>> {
        match self.value_at {
            NULL => Some(None),
            ELSEWHERE => None,
            at => Some(Some(&self.data[at as usize..])),
        }
    }

    /// The entry without its value.
    pub(crate) fn key_entry(&self, seq: u64) -> Entry {
        Entry { seq: BlockIndex(seq), key: self.key_bytes(), value: None }
    }

    /// Memory held beyond the struct itself, with what an allocation and its reference count cost.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.len() + 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bee::block::Encoder;

    fn decode(at: u64, keys: &[u64], children: &[(u64, u32)]) -> Result<Node> {
        let mut encoder = Encoder::default();
        encoder.level(keys.iter().copied(), children.iter().copied());
        let bytes = encoder.finish(b"key", Some(b"value"));
        let block = Block::decode(BlockIndex(at), &bytes)?;
        let address = NodeAddress { source: 0, block: at, offset: 0 };
        Node::decode(address, &block, &block.level(0)?)
    }

    #[test]
    fn a_sound_node_is_read_with_its_own_key_resolved() {
        let node = decode(9, &[3, 9], &[(1, 0), (2, 1), (9, 4)]).unwrap();
        assert!(!node.is_leaf());
        assert!(node.keys[0].resolved.get().is_none());
        let own = node.keys[1].resolved.get().unwrap();
        assert_eq!(own.key(), b"key");
        assert!(matches!(own.value(), ResolvedValue::Here(Some(v)) if v == "value"));
        assert!(decode(9, &[], &[]).unwrap().is_leaf());
    }

    #[test]
    fn nodes_that_break_an_invariant_are_refused() {
        assert!(decode(9, &[0], &[]).is_err(), "a key in the header");
        assert!(decode(9, &[10], &[]).is_err(), "a key from the future");
        assert!(decode(9, &[1; 10], &[]).is_err(), "too many keys");
        assert!(decode(9, &[1], &[(1, 0)]).is_err(), "one child too few");
        assert!(decode(9, &[], &[(1, 0)]).is_err(), "a child without keys");
        assert!(decode(9, &[1], &[(1, 0); 3]).is_err(), "one child too many");
        assert!(decode(9, &[1], &[(1, 0), (10, 0)]).is_err(), "a newer child");
        assert!(decode(9, &[1], &[(1, 0), (0, 0)]).is_err(), "the header a child");
    }

    #[test]
    fn large_values_are_left_in_their_blocks() {
        let large = vec![1; VALUE_KEPT_MAX + 1];
        let resolved = Resolved::copy(b"k", Some(&large));
        assert!(matches!(resolved.value(), ResolvedValue::Elsewhere));
        assert_eq!(resolved.key(), b"k");
        assert!(resolved.heap_bytes() < 100);
        assert!(matches!(
            Resolved::copy(b"k", Some(b"")).value(),
            ResolvedValue::Here(Some(v)) if v.is_empty()
        ));
    }

    #[test]
    #[should_panic(expected = "too few keys")]
    fn a_short_node_is_never_written() {
        check(3, 0, false, true);
    }
}
