//! The messages of a core's channel, byte for byte: [`Message`].
//!
//! ```text
//! 0 sync       uint flags (1 canUpgrade 2 uploading 4 downloading 8 hasManifest 16 allowPush), uint fork, uint length, uint remoteLength
//! 1 request    uint flags, uint id, uint fork, then by flag: 1 block (uint index, uint nodes)  2 hash (uint index, uint nodes)  4 seek (uint bytes, uint padding)
//!              8 upgrade (uint start, uint length)  16 manifest (nothing)  32 uint priority
//! 2 cancel     uint request
//! 3 data       uint flags, uint request, uint fork, then by flag: 1 block (uint index, buffer value, array(node))  2 hash (uint index, array(node))
//!              4 seek (uint bytes, array(node))  8 upgrade (uint start, uint length, array(node), array(node) additional, optional buffer signature)  16 manifest
//! 4 noData     uint request, uint flags, [1] uint reason                    the flags may be missing
//! 5, 6 want, unwant    uint start, uint length, uint flags (1 any)          the flags are omitted when 0
//! 7 bitfield   uint start, uint32array words
//! 8 range      uint flags (1 drop, 2 one block), uint start, [not 2] uint length
//! 9 extension  string name, then the payload
//!
//! node         uint index, uint size, hash[32]
//! ```
//!
//! Decoding is given bytes of strangers: every count is held against a limit that no honest peer reaches before anything is allocated for it, and what lies
//! behind a message is ignored, for a newer version may have put it there. Source: `wire` in hypercore `lib/messages.js`.

use bytes::Bytes;
use pgbee_engine::crypto::manifest::Manifest;
use pgbee_engine::crypto::merkle::TreeNode;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};
use pgbee_engine::hypercore::proof::{
    BlockProof, BlockRequest, HashProof, HashRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use pgbee_engine::{BlockIndex, Fork, Length, NodeIndex};

/// How many nodes one list of a proof may have: a tree is at most 53 high, so no list is longer than twice that.
pub const PROOF_NODES_MAX: u64 = 128;
/// How many blocks one `bitfield`, `want` or `unwant` speaks of at most: 2^21.
pub const SEGMENT_BLOCKS: u64 = 1 << 21;
/// How long the name of an extension may be.
pub const EXTENSION_NAME_MAX: usize = 256;

/// How many types of message there are; others are ignored.
pub const MESSAGE_TYPES: u64 = 10;

/// One message of a core's channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Where the sender stands.
    Sync(Sync),
    /// A proof is asked for.
    Request(Requested),
    /// A request need not be answered any longer.
    Cancel {
        /// Its number.
        request: u64,
    },
    /// A proof.
    Data(Data),
    /// A request cannot be answered.
    NoData {
        /// Its number.
        request: u64,
        /// Why.
        reason: Reason,
    },
    /// The sender wants to know which of these blocks the receiver has, now and as it gets them.
    Want(Span),
    /// The sender no longer wants to know.
    Unwant(Span),
    /// Which blocks the sender has, a bit each, from `start` on.
    Bitfield {
        /// The first block, a multiple of 32.
        start: BlockIndex,
        /// 32 blocks each, the lowest bit first.
        words: Vec<u32>,
    },
    /// The sender has these blocks, or has them no longer.
    Range {
        /// Whether it lost them.
        drop: bool,
        /// The first.
        start: BlockIndex,
        /// How many.
        length: u64,
    },
    /// A message for a layer above.
    Extension {
        /// Whose it is; empty: as in the message before.
        name: String,
        /// Opaque.
        payload: Bytes,
    },
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// Its fork.
    pub fork: Fork,
    /// Its length.
    pub length: Length,
    /// The length it last heard from us, if the forks agree, else 0: an acknowledgement.
    pub remote_length: Length,
    /// Whether it can prove the way from our length to its own.
    pub can_upgrade: bool,
    /// Whether it answers requests.
    pub uploading: bool,
    /// Whether it may request.
    pub downloading: bool,
    /// Whether it knows the manifest and would send it.
    pub has_manifest: bool,
    /// Whether it takes what it did not ask for.
    pub allow_push: bool,
}

/// A request as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Its number, which the answer repeats.
    pub id: u64,
    /// The fork it is about.
    pub fork: Fork,
    /// Above 0: before others.
    pub priority: u64,
    /// What is asked for.
    pub request: Request,
}

/// A proof as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The request it answers.
    pub request: u64,
    /// What is proved.
    pub proof: Proof,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An older peer does not say.
    Unknown,
    /// What was asked for is not there.
    NotAvailable,
    /// What was asked for cannot be.
    InvalidRequest,
    /// A reason of a newer version.
    Other(u64),
}

/// Some blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub start: BlockIndex,
    /// How many.
    pub length: u64,
    /// Whether any one of them will do.
    pub any: bool,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Message {
    /// The number of its type.
    pub fn kind(&self) -> u64 {
        match self {
            Message::Sync(_) => 0,
            Message::Request(_) => 1,
            Message::Cancel { .. } => 2,
            Message::Data(_) => 3,
            Message::NoData { .. } => 4,
            Message::Want(_) => 5,
            Message::Unwant(_) => 6,
            Message::Bitfield { .. } => 7,
            Message::Range { .. } => 8,
            Message::Extension { .. } => 9,
        }
    }

    /// The bytes of its body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_hint());
        match self {
            Message::Sync(sync) => sync.encode(&mut out),
            Message::Request(requested) => requested.encode(&mut out),
            Message::Cancel { request } => compact::uint(&mut out, *request),
            Message::Data(data) => data.encode(&mut out),
            Message::NoData { request, reason } => {
                compact::uint(&mut out, *request);
                reason.encode(&mut out);
            }
            Message::Want(span) | Message::Unwant(span) => span.encode(&mut out),
            Message::Bitfield { start, words } => {
                compact::uint(&mut out, start.0);
                compact::uint32_array(&mut out, words);
            }
            Message::Range { drop, start, length } => {
                compact::uint(&mut out, flags([*drop, *length == 1]));
                compact::uint(&mut out, start.0);
                if *length != 1 {
                    compact::uint(&mut out, *length);
                }
            }
            Message::Extension { name, payload } => {
                compact::string(&mut out, name);
                out.extend_from_slice(payload);
            }
        }
        out
    }

    /// About how many bytes it has, a few too many.
    pub fn size_hint(&self) -> usize {
        match self {
            Message::Data(data) => data.proof.size_hint(),
            Message::Bitfield { words, .. } => 32 + 4 * words.len(),
            Message::Extension { name, payload } => 16 + name.len() + payload.len(),
            _ => 64,
        }
    }

    /// From its type and body. `None` for a type that is not known.
    ///
    /// # Errors
    /// If the body ends too early, or says what cannot be.
    pub fn decode(kind: u64, body: &Bytes) -> Result<Option<Message>> {
        let from = &mut Decoder::new(body);
        Ok(Some(match kind {
            0 => Message::Sync(Sync::decode(from)?),
            1 => Message::Request(Requested::decode(from)?),
            2 => Message::Cancel { request: from.uint()? },
            3 => Message::Data(Data::decode(from, body)?),
            4 => Message::NoData { request: from.uint()?, reason: Reason::decode(from)? },
            5 => Message::Want(Span::decode(from)?),
            6 => Message::Unwant(Span::decode(from)?),
            7 => Message::Bitfield { start: BlockIndex(from.uint()?), words: decode_words(from)? },
            8 => {
                let flags = from.uint()?;
                let start = BlockIndex(from.uint()?);
                let length = if flags & 2 != 0 { 1 } else { from.uint()? };
                Message::Range { drop: flags & 1 != 0, start, length }
            }
            9 => {
                let name = from.string()?;
                if name.len() > EXTENSION_NAME_MAX {
                    return Err(DecodeError::TooLarge);
                }
                Message::Extension { name: name.to_string(), payload: body.slice_ref(from.rest()) }
            }
            _ => return Ok(None),
        }))
    }
}

impl Sync {
    fn encode(&self, out: &mut Vec<u8>) {
        compact::uint(
            out,
            flags([self.can_upgrade, self.uploading, self.downloading, self.has_manifest, self.allow_push]),
        );
        compact::uint(out, self.fork.0);
        compact::uint(out, self.length.0);
        compact::uint(out, self.remote_length.0);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Sync> {
        let flags = from.uint()?;
        Ok(Sync {
            fork: Fork(from.uint()?),
            length: Length(from.uint()?),
            remote_length: Length(from.uint()?),
            can_upgrade: flags & 1 != 0,
            uploading: flags & 2 != 0,
            downloading: flags & 4 != 0,
            has_manifest: flags & 8 != 0,
            allow_push: flags & 16 != 0,
        })
    }
}

impl Requested {
    fn encode(&self, out: &mut Vec<u8>) {
        let Request { block, hash, seek, upgrade, manifest } = &self.request;
        let has = [block.is_some(), hash.is_some(), seek.is_some(), upgrade.is_some(), *manifest, self.priority != 0];
        compact::uint(out, flags(has));
        compact::uint(out, self.id);
        compact::uint(out, self.fork.0);
        let mut pair = |first, second| {
            compact::uint(out, first);
            compact::uint(out, second);
        };
        if let Some(block) = block {
            pair(block.index.0, block.nodes);
        }
        if let Some(hash) = hash {
            pair(hash.index.0, hash.nodes);
        }
        if let Some(seek) = seek {
            pair(seek.bytes, seek.padding);
        }
        if let Some(upgrade) = upgrade {
            pair(upgrade.start.0, upgrade.length);
        }
        if self.priority != 0 {
            compact::uint(out, self.priority);
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Requested> {
        let flags = from.uint()?;
        let (id, fork) = (from.uint()?, Fork(from.uint()?));
        let has = |flag: u64| flags & flag != 0;
        let mut pair = |flag| if has(flag) { Ok(Some((from.uint()?, from.uint()?))) } else { Ok(None) };
        let block = pair(1)?.map(|(index, nodes)| BlockRequest { index: BlockIndex(index), nodes });
        let hash = pair(2)?.map(|(index, nodes)| HashRequest { index: NodeIndex(index), nodes });
        let seek = pair(4)?.map(|(bytes, padding)| SeekRequest { bytes, padding });
        let upgrade = pair(8)?.map(|(start, length)| UpgradeRequest { start: Length(start), length });
        let priority = if has(32) { from.uint()? } else { 0 };
        Ok(Requested { id, fork, priority, request: Request { block, hash, seek, upgrade, manifest: has(16) } })
    }
}

impl Data {
    fn encode(&self, out: &mut Vec<u8>) {
        let Proof { fork, block, hash, seek, upgrade, manifest } = &self.proof;
        compact::uint(
            out,
            flags([block.is_some(), hash.is_some(), seek.is_some(), upgrade.is_some(), manifest.is_some()]),
        );
        compact::uint(out, self.request);
        compact::uint(out, fork.0);
        if let Some(block) = block {
            compact::uint(out, block.index.0);
            compact::buffer(out, &block.value);
            encode_nodes(out, &block.nodes);
        }
        if let Some(hash) = hash {
            compact::uint(out, hash.index.0);
            encode_nodes(out, &hash.nodes);
        }
        if let Some(seek) = seek {
            compact::uint(out, seek.bytes);
            encode_nodes(out, &seek.nodes);
        }
        if let Some(upgrade) = upgrade {
            compact::uint(out, upgrade.start.0);
            compact::uint(out, upgrade.length);
            encode_nodes(out, &upgrade.nodes);
            encode_nodes(out, &upgrade.additional);
            compact::buffer(out, &upgrade.signature);
        }
        if let Some(manifest) = manifest {
            out.extend_from_slice(&manifest.encode());
        }
    }

    /// Block and signature are slices of `body`, which they keep alive.
    fn decode(from: &mut Decoder<'_>, body: &Bytes) -> Result<Data> {
        let flags = from.uint()?;
        let (request, fork) = (from.uint()?, Fork(from.uint()?));
        let has = |flag: u64| flags & flag != 0;
        let mut proof = Proof { fork, block: None, hash: None, seek: None, upgrade: None, manifest: None };
        if has(1) {
            let index = BlockIndex(from.uint()?);
            let value = body.slice_ref(from.buffer()?);
            proof.block = Some(BlockProof { index, value, nodes: decode_nodes(from)? });
        }
        if has(2) {
            proof.hash = Some(HashProof { index: NodeIndex(from.uint()?), nodes: decode_nodes(from)? });
        }
        if has(4) {
            proof.seek = Some(SeekProof { bytes: from.uint()?, nodes: decode_nodes(from)? });
        }
        if has(8) {
            let (start, length) = (Length(from.uint()?), from.uint()?);
            let (nodes, additional) = (decode_nodes(from)?, decode_nodes(from)?);
            let signature = Bytes::copy_from_slice(from.buffer()?);
            proof.upgrade = Some(UpgradeProof { start, length, nodes, additional, signature });
        }
        if has(16) {
            proof.manifest = Some(Manifest::decode_from(from).map_err(|_| DecodeError::Unknown("manifest"))?);
        }
        Ok(Data { request, proof })
    }
}

impl Reason {
    fn encode(self, out: &mut Vec<u8>) {
        let reason = match self {
            Reason::Unknown => return compact::uint(out, 0),
            Reason::NotAvailable => 1,
            Reason::InvalidRequest => 2,
            Reason::Other(reason) => reason,
        };
        compact::uint(out, 1);
        compact::uint(out, reason);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Reason> {
        let flags = if from.is_empty() { 0 } else { from.uint()? };
        let reason = if flags & 1 != 0 { from.uint()? } else { 0 };
        Ok(match reason {
            0 => Reason::Unknown,
            1 => Reason::NotAvailable,
            2 => Reason::InvalidRequest,
            reason => Reason::Other(reason),
        })
    }
}

impl Span {
    fn encode(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.start.0);
        compact::uint(out, self.length);
        if self.any {
            compact::uint(out, 1);
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Span> {
        let (start, length) = (BlockIndex(from.uint()?), from.uint()?);
        let flags = if from.is_empty() { 0 } else { from.uint()? };
        Ok(Span { start, length, any: flags & 1 != 0 })
    }
}

/// How a proof's size is estimated, in bytes.
trait SizeHint {
    fn size_hint(&self) -> usize;
}

impl SizeHint for Proof {
    fn size_hint(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.value.len() + 42 * block.nodes.len());
        let hash = self.hash.as_ref().map_or(0, |hash| 42 * hash.nodes.len());
        let seek = self.seek.as_ref().map_or(0, |seek| 42 * seek.nodes.len());
        let upgrade = self
            .upgrade
            .as_ref()
            .map_or(0, |upgrade| 42 * (upgrade.nodes.len() + upgrade.additional.len()) + upgrade.signature.len());
        64 + block + hash + seek + upgrade
    }
}

fn flags<const N: usize>(bits: [bool; N]) -> u64 {
    bits.iter().enumerate().map(|(bit, &is_set)| u64::from(is_set) << bit).sum()
}

fn encode_nodes(out: &mut Vec<u8>, nodes: &[TreeNode]) {
    compact::array(out, nodes, |out, node| {
        compact::uint(out, node.index.0);
        compact::uint(out, node.size);
        out.extend_from_slice(&node.hash);
    });
}

fn decode_nodes(from: &mut Decoder<'_>) -> Result<Vec<TreeNode>> {
    let mut ahead = *from;
    if ahead.uint()? > PROOF_NODES_MAX {
        return Err(DecodeError::TooLarge);
    }
    from.array(|from| Ok(TreeNode { index: NodeIndex(from.uint()?), size: from.uint()?, hash: from.fixed()? }))
}

fn decode_words(from: &mut Decoder<'_>) -> Result<Vec<u32>> {
    let mut ahead = *from;
    if ahead.uint()? > SEGMENT_BLOCKS / 32 {
        return Err(DecodeError::TooLarge);
    }
    from.uint32_array()
}
