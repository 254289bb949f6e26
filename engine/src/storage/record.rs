//! Every value of the store, with its bytes.
//!
//! A value begins with a checksum over its key and its payload, so that damage, and a value that got
//! under a wrong key, are found when it is read, whatever the backend:
//!
//! ```text
//! value          crc32c(key || payload) u32le || payload
//!
//! store record   uint format || uint next core id || primary key[32]
//! core record    uint flags || key[32] || [1] buffer manifest || [2] seed[32]
//!                || [4] namespace[32] || buffer name || [8] encryption key[32], [16] which is the block key
//! head           uint fork || uint length || uint byte length || uint contiguous length
//!                || tree hash[32] || buffer signature
//! block          its bytes
//! nodes          u8 blocks || nodes, each u64le size || hash[32]
//! single node    u64le size || hash[32]
//! conflict       uint fork || uint length || two upgrades from 0, ours and theirs: array(node) || array(node)
//!                || buffer signature; node = uint index || uint size || hash[32]
//! bitfield page  4096 bytes, bit i is bit i & 7 of byte i >> 3
//! ```
//!
//! **Nodes are packed** by the blocks that completed them: the chunk that ends with block `l` and spans
//! `n` blocks holds, for each of `l-n+1 ..= l`, its leaf and every parent whose rightmost leaf it is,
//! from the bottom up. Indices need not be stored: block `b` completes as many parents as `b` has
//! trailing one bits. A core has on average two nodes a block; packed they cost one key for 64 blocks
//! instead of 128 (bulk load is what this is for). Finding a node is one seek to its rightmost leaf.
//!
//! An append of any size starts a chunk, so no chunk spans a head: cutting a log back to a head never
//! splits one. Cutting it back to anywhere keeps the front of a chunk, which is the chunk of fewer blocks.
//!
//! **A replica** that holds a few blocks knows their nodes, all nodes above them, and the siblings of those.
//! What the held blocks completed is packed: a run of blocks that came together is a chunk, whatever its length
//! and wherever it begins. All other nodes are single. So a chunk covers held blocks only, every held block is in
//! just one chunk, and a seek finds it as it does on the writer.

use bytes::{Buf, Bytes};

use crate::crypto::hash::Hash;
use crate::crypto::key::{CoreKey, EncryptionKey};
use crate::crypto::merkle::TreeNode;
use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{BlockIndex, Fork, Length, NodeIndex};
use crate::storage::checksum::crc32c;

/// Bytes of the checksum in front of every value.
pub const CHECKSUM_BYTES: usize = 4;

/// How many blocks' nodes share a record at most: about 5 KB, read for one node.
pub const CHUNK_BLOCKS_MAX: usize = 64;

/// More blocks than any core has; the arithmetic of their nodes does not overflow below it.
const BLOCKS_MAX: u64 = 1 << 62;

/// Bytes of one packed node.
const NODE_BYTES: usize = 40;

/// The checksum that goes in front of a payload.
pub fn seal(key: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c(&[key, payload]).to_le_bytes()
}

/// The payload behind a checksum that matches, without a copy; else what is wrong.
pub fn unseal(key: &[u8], mut value: Bytes) -> std::result::Result<Bytes, &'static str> {
    let Some((stored, payload)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err("the stored value is cut off");
    };
    if *stored != seal(key, payload) {
        return Err("the stored bytes do not match their checksum");
    }
    value.advance(CHECKSUM_BYTES);
    Ok(value)
}

/// A payload behind its checksum, for records that are not worth doing it in place.
pub fn sealed(key: &[u8], payload: &[u8]) -> Vec<u8> {
    [&seal(key, payload)[..], payload].concat()
}

/// A record of the meta space, from its value.
pub fn decode<T: Record>(key: &[u8], value: Bytes) -> Result<T> {
    let payload = unseal(key, value).map_err(|what| Error::corrupt(format!("{}: {what}", T::NAME)))?;
    let mut from = Decoder::new(&payload);
    T::read(&mut from)
        .and_then(|record| from.finish().map(|()| record))
        .map_err(|what| Error::corrupt(format!("{}: {what}", T::NAME)))
}

/// A record of the meta space, as its value.
pub fn encode<T: Record>(key: &[u8], record: &T) -> Vec<u8> {
    let mut payload = Vec::with_capacity(192);
    record.write(&mut payload);
    sealed(key, &payload)
}

/// A value of the meta space.
pub trait Record: Sized {
    /// What it is called in messages.
    const NAME: &'static str;
    /// Append its payload.
    fn write(&self, out: &mut Vec<u8>);
    /// Read its payload.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`].
    fn read(from: &mut Decoder<'_>) -> std::result::Result<Self, DecodeError>;
}

/// What is known of the store itself. Wiped when dropped: it holds the key of all keys.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreRecord {
    /// [`crate::storage::FORMAT_VERSION`] of who made it.
    pub format: u64,
    /// The id the next new core gets.
    pub next_core: u64,
    /// All named cores' keys come from it.
    pub primary_key: [u8; 32],
}

impl Drop for StoreRecord {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.primary_key);
    }
}

impl Record for StoreRecord {
    const NAME: &'static str = "the store record";

    fn write(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.format);
        compact::uint(out, self.next_core);
        out.extend_from_slice(&self.primary_key);
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<StoreRecord, DecodeError> {
        Ok(StoreRecord { format: from.uint()?, next_core: from.uint()?, primary_key: from.fixed()? })
    }
}

/// What is known of a core but its content.
#[derive(Clone, PartialEq, Eq)]
pub struct CoreRecord {
    /// Its key.
    pub key: CoreKey,
    /// Its manifest's bytes; unknown for a core that was opened by key and has met no peer yet.
    pub manifest: Option<Vec<u8>>,
    /// The seed of its key pair, if we may write it.
    pub seed: Option<[u8; 32]>,
    /// Its namespace and name, if it was made by name.
    pub name: Option<([u8; 32], Vec<u8>)>,
    /// What its blocks are encrypted with, if they are and we may read them.
    pub encryption: Option<EncryptionKey>,
}

impl CoreRecord {
    /// Of a core of which nothing but the key is known.
    pub fn new(key: CoreKey) -> CoreRecord {
        CoreRecord { key, manifest: None, seed: None, name: None, encryption: None }
    }
}

impl Drop for CoreRecord {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.seed);
    }
}

impl Record for CoreRecord {
    const NAME: &'static str = "a core record";

    fn write(&self, out: &mut Vec<u8>) {
        let flags = u64::from(self.manifest.is_some())
            | u64::from(self.seed.is_some()) << 1
            | u64::from(self.name.is_some()) << 2
            | u64::from(self.encryption.is_some()) << 3
            | u64::from(self.encryption.as_ref().is_some_and(EncryptionKey::is_block_key)) << 4;
        compact::uint(out, flags);
        out.extend_from_slice(&self.key.0);
        if let Some(manifest) = &self.manifest {
            compact::buffer(out, manifest);
        }
        if let Some(seed) = &self.seed {
            out.extend_from_slice(seed);
        }
        if let Some((namespace, name)) = &self.name {
            out.extend_from_slice(namespace);
            compact::buffer(out, name);
        }
        if let Some(encryption) = &self.encryption {
            out.extend_from_slice(encryption.as_bytes());
        }
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<CoreRecord, DecodeError> {
        let flags = from.uint()?;
        let mut record = CoreRecord::new(CoreKey(from.fixed()?));
        if flags & 1 != 0 {
            record.manifest = Some(from.buffer()?.to_vec());
        }
        if flags & 2 != 0 {
            record.seed = Some(from.fixed()?);
        }
        if flags & 4 != 0 {
            record.name = Some((from.fixed()?, from.buffer()?.to_vec()));
        }
        if flags & 8 != 0 {
            let key = if flags & 16 != 0 { EncryptionKey::block_key } else { EncryptionKey::new };
            record.encryption = Some(key(from.fixed()?));
        }
        Ok(record)
    }
}

/// A core's id, where a name or a discovery key leads to it.
pub struct CoreLink(pub u64);

impl Record for CoreLink {
    const NAME: &'static str = "a link to a core";

    fn write(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.0);
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<CoreLink, DecodeError> {
        from.uint().map(CoreLink)
    }
}

/// A core's signed head, and how much of it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRecord {
    /// How often history was rewritten.
    pub fork: Fork,
    /// How many blocks.
    pub length: Length,
    /// How many bytes they have.
    pub byte_length: u64,
    /// How many blocks from the first on are held without a hole.
    pub contiguous: Length,
    /// The hash over the roots.
    pub tree_hash: Hash,
    /// The signature over it, in the form peers send. Empty where none is needed.
    pub signature: Bytes,
}

impl Record for HeadRecord {
    const NAME: &'static str = "the head";

    fn write(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.fork.0);
        compact::uint(out, self.length.0);
        compact::uint(out, self.byte_length);
        compact::uint(out, self.contiguous.0);
        out.extend_from_slice(&self.tree_hash);
        compact::buffer(out, &self.signature);
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<HeadRecord, DecodeError> {
        Ok(HeadRecord {
            fork: Fork(from.uint()?),
            length: Length(from.uint()?),
            byte_length: from.uint()?,
            contiguous: Length(from.uint()?),
            tree_hash: from.fixed()?,
            signature: Bytes::copy_from_slice(from.buffer()?),
        })
    }
}

/// Packs the nodes of up to [`CHUNK_BLOCKS_MAX`] blocks; used again and again.
#[derive(Default)]
pub struct Chunk {
    payload: Vec<u8>,
}

impl Chunk {
    /// Begin the next chunk.
    pub fn clear(&mut self) {
        self.payload.clear();
    }

    /// A block's nodes follow.
    pub fn begin_block(&mut self) {
        match self.payload.first_mut() {
            Some(blocks) => *blocks += 1,
            None => self.payload.push(1),
        }
    }

    /// The next node, in the order in which [`Roots::append`](crate::crypto::merkle::Roots::append)
    /// completes them.
    pub fn push(&mut self, node: &TreeNode) {
        self.payload.extend_from_slice(&node.size.to_le_bytes());
        self.payload.extend_from_slice(&node.hash);
    }

    /// How many blocks are in it.
    pub fn blocks(&self) -> usize {
        self.payload.first().copied().unwrap_or(0).into()
    }

    /// The payload of the record.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// The first block whose nodes are in a chunk that ends with `last`, or what is wrong with it.
pub fn chunk_first(last: BlockIndex, payload: &[u8]) -> std::result::Result<BlockIndex, &'static str> {
    let broken = "a chunk of Merkle nodes has an impossible length";
    let blocks = u64::from(*payload.first().ok_or(broken)?);
    if !(1..=CHUNK_BLOCKS_MAX as u64).contains(&blocks) || last.0 >= BLOCKS_MAX {
        return Err(broken);
    }
    let first = (last.0 + 1).checked_sub(blocks).ok_or(broken)?;
    let nodes = completed_before(last.next()) - completed_before(BlockIndex(first));
    if payload.len() as u64 != 1 + nodes * NODE_BYTES as u64 {
        return Err(broken);
    }
    Ok(BlockIndex(first))
}

/// A node out of the chunk that ends with block `last`; `None` if it is not in there.
///
/// # Errors
///
/// What is wrong with the chunk.
pub fn chunk_node(
    last: BlockIndex,
    payload: &[u8],
    index: NodeIndex,
) -> std::result::Result<Option<TreeNode>, &'static str> {
    let first = chunk_first(last, payload)?;
    let block = flat_tree::last_block(index);
    if block < first || block > last {
        return Ok(None);
    }
    let before = completed_before(block) - completed_before(first);
    let at = 1 + (before as usize + flat_tree::depth(index) as usize) * NODE_BYTES;
    let node = payload.get(at..at + NODE_BYTES).expect("chunk_first checked the length");
    Ok(unpack(index, node))
}

/// All nodes of the chunk that ends with block `last`, in the order they were completed.
///
/// # Errors
///
/// What is wrong with the chunk.
pub fn chunk_nodes(last: BlockIndex, payload: &[u8]) -> std::result::Result<Vec<TreeNode>, &'static str> {
    let first = chunk_first(last, payload)?;
    let indices = (first.0..=last.0).flat_map(|block| completed_by(BlockIndex(block)));
    Ok(indices.zip(payload[1..].chunks_exact(NODE_BYTES)).filter_map(|(index, node)| unpack(index, node)).collect())
}

/// The front of the chunk that ends with block `last`: the payload of the chunk that ends just before block `end`. `None` where nothing is left.
///
/// # Errors
///
/// What is wrong with the chunk.
pub fn chunk_front(
    last: BlockIndex,
    payload: &[u8],
    end: BlockIndex,
) -> std::result::Result<Option<Vec<u8>>, &'static str> {
    let first = chunk_first(last, payload)?;
    if end <= first {
        return Ok(None);
    }
    let end = end.min(last.next());
    let nodes = (completed_before(end) - completed_before(first)) as usize;
    let mut front = payload[..1 + nodes * NODE_BYTES].to_vec();
    front[0] = (end.0 - first.0) as u8;
    Ok(Some(front))
}

/// The nodes that a block completes: its leaf, then upwards.
pub fn completed_by(block: BlockIndex) -> impl Iterator<Item = NodeIndex> {
    (0..=block.0.trailing_ones()).map(move |depth| flat_tree::node(depth, block.0 >> depth))
}

/// A single node, as its value without the checksum.
pub fn pack(node: &TreeNode) -> [u8; NODE_BYTES] {
    let mut bytes = [0; NODE_BYTES];
    bytes[..8].copy_from_slice(&node.size.to_le_bytes());
    bytes[8..].copy_from_slice(&node.hash);
    bytes
}

/// A node from its packed bytes; `None` unless there are 40.
pub fn unpack(index: NodeIndex, bytes: &[u8]) -> Option<TreeNode> {
    let (size, hash) = bytes.split_first_chunk::<8>()?;
    Some(TreeNode { index, size: u64::from_le_bytes(*size), hash: hash.try_into().ok()? })
}

fn completed_before(block: BlockIndex) -> u64 {
    flat_tree::completed(Length(block.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::merkle::Roots;

    #[test]
    fn every_node_is_found_in_its_chunk() {
        for (first, blocks) in [(0, 1), (0, 64), (5, 3), (63, 2), (64, 64), (1023, 1)] {
            let (mut roots, mut chunk, mut nodes) = (Roots::new(), Chunk::default(), Vec::new());
            for block in 0..first + blocks {
                if block >= first {
                    chunk.begin_block();
                }
                roots.append(&u64::to_le_bytes(block), |node| {
                    if block >= first {
                        chunk.push(node);
                        nodes.push(*node);
                    }
                });
            }
            let last = BlockIndex(first + blocks - 1);
            assert_eq!(chunk_first(last, chunk.payload()), Ok(BlockIndex(first)));
            for node in nodes {
                assert_eq!(chunk_node(last, chunk.payload(), node.index), Ok(Some(node)));
            }
            assert_eq!(chunk_nodes(last, chunk.payload()).unwrap().len() * NODE_BYTES + 1, chunk.payload().len());
            for end in first..=first + blocks {
                let front = chunk_front(last, chunk.payload(), BlockIndex(end)).unwrap();
                let Some(front) = front else {
                    assert_eq!(end, first);
                    continue;
                };
                let nodes = chunk_nodes(BlockIndex(end - 1), &front).unwrap();
                assert_eq!(nodes, chunk_nodes(last, chunk.payload()).unwrap()[..nodes.len()]);
            }
            let beyond = last.next().node();
            assert_eq!(chunk_node(last, chunk.payload(), beyond), Ok(None));
            let short = &chunk.payload()[..chunk.payload().len() - 1];
            assert!(chunk_first(last, short).is_err() && chunk_first(last, &[]).is_err());
        }
    }

    #[test]
    fn chunks_that_nobody_writes_are_refused() {
        let most = CHUNK_BLOCKS_MAX as u64;
        for (last, blocks, is_sound) in [(300, most, true), (300, most + 1, false), (300, 0, false), (9, 11, false)] {
            let nodes = completed_before(BlockIndex(last + 1))
                - completed_before(BlockIndex((last + 1).saturating_sub(blocks)));
            let payload = [vec![blocks as u8], vec![0; nodes as usize * NODE_BYTES]].concat();
            assert_eq!(chunk_first(BlockIndex(last), &payload).is_ok(), is_sound, "{blocks} blocks up to {last}");
        }
        assert!(chunk_first(BlockIndex(u64::MAX), &[1]).is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let key = MetaKey::Head(CoreId(7)).encode();
        let head = HeadRecord {
            fork: Fork(1),
            length: Length(300),
            byte_length: 70_000,
            contiguous: Length(300),
            tree_hash: [9; 32],
            signature: Bytes::from_static(&[3; 68]),
        };
        let value = encode(&key, &head);
        assert_eq!(decode::<HeadRecord>(&key, value.clone().into()), Ok(head));
        for bit in 0..value.len() * 8 {
            let mut altered = value.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<HeadRecord>(&key, altered.into()).is_err(), "bit {bit}");
        }
        let other = MetaKey::Head(CoreId(8)).encode();
        assert!(decode::<HeadRecord>(&other, value.into()).is_err(), "under another key");
    }

    #[test]
    fn a_core_record_may_have_an_encryption_key() {
        let at = MetaKey::Core(CoreId(1)).encode();
        let mut record = CoreRecord::new(CoreKey([1; 32]));
        record.name = Some(([2; 32], b"name".to_vec()));
        // As written before there was encryption.
        let old = [&[4][..], &[1; 32], &[2; 32], &[4], b"name"].concat();
        let read = decode::<CoreRecord>(&at, sealed(&at, &old).into()).unwrap();
        assert!(read == record && encode(&at, &record) == sealed(&at, &old));
        for (key, flags) in [(EncryptionKey::new([3; 32]), 12), (EncryptionKey::block_key([3; 32]), 28)] {
            record.encryption = Some(key);
            let value = encode(&at, &record);
            assert_eq!(value[CHECKSUM_BYTES], flags);
            assert!(decode::<CoreRecord>(&at, value.into()).unwrap() == record);
        }
    }

    use crate::storage::key::{CoreId, MetaKey};
}
