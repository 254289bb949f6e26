//! Merkle nodes.

use crate::crypto::hash::Hash;
use crate::hypercore::position::NodeIndex;

/// One Merkle node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// Its place in the tree.
    pub index: NodeIndex,
    /// How many block bytes lie below it.
    pub size: u64,
    /// Its hash.
    pub hash: Hash,
}
