//! Proofs, and what asks for them: [`Request`], [`Proof`].
//!
//! ```text
//! request   block i, nodes n      the siblings on the way up from leaf i, n steps: the asker has what is there
//!           hash  i, nodes n      the same from any node, with the node itself
//!           seek  bytes           the siblings on the way up from the block with that byte
//!           upgrade start, n      what leads from a log of length `start` to `start + n`, and to the signed head
//! proof     the same, answered; `nodes` from the bottom up, those that the asker can compute left out
//! ```
//!
//! Plain data: a proof that was received proves nothing before [`Intake::verify`](super::intake::Intake::verify).

use bytes::Bytes;

use crate::crypto::manifest::Manifest;
use crate::crypto::merkle::TreeNode;
use crate::position::{BlockIndex, Fork, Length, NodeIndex};

/// What is asked of a peer: any of its parts, all about one fork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// A block.
    pub block: Option<BlockRequest>,
    /// A node; not together with a block.
    pub hash: Option<HashRequest>,
    /// The way to a byte.
    pub seek: Option<SeekRequest>,
    /// A longer log.
    pub upgrade: Option<UpgradeRequest>,
    /// Whether the manifest is wanted.
    pub manifest: bool,
}

/// A block, and its siblings so many steps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Which block.
    pub index: BlockIndex,
    /// Steps up to a node the asker has: [`Core::missing_nodes`](super::Core::missing_nodes).
    pub nodes: u64,
}

/// A node, and its siblings so many steps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRequest {
    /// Which node.
    pub index: NodeIndex,
    /// Steps up to a node the asker has.
    pub nodes: u64,
}

/// The way to a byte of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekRequest {
    /// Which byte, from the beginning of the log.
    pub bytes: u64,
    /// Bytes of every block that do not count: 8 where blocks are encrypted.
    pub padding: u64,
}

/// From one length to a longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The length the asker has.
    pub start: Length,
    /// How many blocks more.
    pub length: u64,
}

/// What a peer answers. The parts mirror those of the [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Of which history.
    pub fork: Fork,
    /// The block.
    pub block: Option<BlockProof>,
    /// The node.
    pub hash: Option<HashProof>,
    /// The way to the byte.
    pub seek: Option<SeekProof>,
    /// The longer log.
    pub upgrade: Option<UpgradeProof>,
    /// Who may sign.
    pub manifest: Option<Manifest>,
}

/// A block and the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockProof {
    /// Which block.
    pub index: BlockIndex,
    /// Its bytes.
    pub value: Bytes,
    /// From the bottom up.
    pub nodes: Vec<TreeNode>,
}

/// A node and the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashProof {
    /// Which node.
    pub index: NodeIndex,
    /// The node itself, then from the bottom up.
    pub nodes: Vec<TreeNode>,
}

/// A node near a byte, and the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekProof {
    /// Which byte.
    pub bytes: u64,
    /// The node that has the byte, then from the bottom up.
    pub nodes: Vec<TreeNode>,
}

/// What a log has to be given to become longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProof {
    /// From this length.
    pub start: Length,
    /// So many blocks.
    pub length: u64,
    /// From left to right, what another part of the proof computes left out.
    pub nodes: Vec<TreeNode>,
    /// What leads on from there to the length that is signed.
    pub additional: Vec<TreeNode>,
    /// Of the signed length, as the manifest asks.
    pub signature: Bytes,
}

impl UpgradeProof {
    /// The length that is signed: the one asked for and what the additional nodes cover.
    pub fn signed_length(&self) -> Length {
        match self.additional.last() {
            Some(node) => Length(crate::flat_tree::last_block(node.index).0.saturating_add(1)),
            None => Length(self.start.0.saturating_add(self.length)),
        }
    }
}
