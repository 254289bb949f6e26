//! Re-hashing what a sparse replica holds, up to its signed head: what `pgbee verify` does where only a part is here.
//!
//! ```text
//! roots            all here, hashing to the signed tree hash                 no: the head is bad
//! each held block  checksum; leaf, then up through its siblings to a root    no: the block, or a node above it, is bad
//! ```
//!
//! A climb stops at the first node above it that an earlier block of this walk was found to lead to, so each node is hashed about once.

use super::verify_log::VerifiedLog;
use super::{Core, name};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{BlockIndex, Length, NodeIndex};

/// Words of the bitfield that are looked at together.
const WORDS: usize = 128;

impl Core {
    /// Re-hash the blocks that are here and check that each leads to the signed head. `progress` is told now and then how much of the log was passed. What is
    /// verified is the head at the beginning.
    ///
    /// # Errors
    ///
    /// `Corrupt`, naming the first bad block where that can be told.
    pub fn verify_held(&self, mut progress: impl FnMut(Length, Length)) -> Result<VerifiedLog> {
        let head = self.head();
        let whole = |what: &str| name(Error::corrupt(what), self.key(), None);
        let mut roots = Vec::new();
        for index in flat_tree::full_roots(head.length) {
            roots.push(self.node(index)?.ok_or_else(|| whole("its roots are gone"))?);
        }
        let roots =
            Roots::from_nodes(head.length, roots).ok_or_else(|| whole("its roots are not those of its length"))?;
        if roots.hash() != head.root_hash || roots.byte_length() != head.byte_length {
            return Err(whole("the roots do not hash to the head"));
        }
        if head.length > Length(0) {
            let verifier = self.verifier();
            let compat = Verifier::compat(self.key());
            let verifier = verifier.as_deref().unwrap_or(&compat);
            let signed = verifier.verify(&roots, head.fork, &head.signature);
            signed.map_err(|_| whole("the head's signature is not valid"))?;
        }
        let mut found = VerifiedLog { blocks: Length(0), bytes: 0 };
        let mut path: Vec<TreeNode> = Vec::new();
        let mut at = 0;
        while at < head.length.0 {
            for (word, first) in self.bitfield_words(BlockIndex(at), WORDS).into_iter().zip((at..).step_by(32)) {
                for block in (0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| first + bit) {
                    if block < head.length.0 {
                        let bytes = self.climb(BlockIndex(block), &roots, &mut path)?;
                        found.blocks.0 += 1;
                        found.bytes += bytes;
                    }
                }
            }
            at += 32 * WORDS as u64;
            progress(Length(at.min(head.length.0)), head.length);
        }
        Ok(found)
    }

    /// Hash a block and all above it that the path of the block before does not show to be sound; leave its own path. How many bytes the block has.
    fn climb(&self, block: BlockIndex, roots: &Roots, path: &mut Vec<TreeNode>) -> Result<u64> {
        let bad = |what: &str| name(Error::corrupt(what), self.key(), Some(block));
        // As it is stored: hashes are over that, encrypted or not.
        let bytes = self.read(block)?;
        let mut node = TreeNode::leaf(NodeIndex(2 * block.0), &bytes);
        let mut fresh = Vec::new();
        loop {
            if self.node(node.index)?.is_some_and(|stored| stored != node) {
                let is_leaf = fresh.is_empty();
                return Err(bad(if is_leaf {
                    "its hash is not the stored one"
                } else {
                    "it does not hash to a stored parent"
                }));
            }
            fresh.push(node);
            if let Some(known) = path.iter().find(|known| known.index == node.index) {
                if *known != node {
                    return Err(bad("it does not hash to the parent of the block before"));
                }
                break;
            }
            if let Some(root) = roots.node(node.index) {
                if root != node {
                    return Err(bad("it does not hash to its root"));
                }
                break;
            }
            let sibling = self.node(flat_tree::sibling(node.index))?;
            let sibling = sibling.ok_or_else(|| bad("a node beside its way to the root is gone"))?;
            node = node.parent(&sibling).ok_or_else(|| bad("its Merkle nodes do not fit together"))?;
        }
        path.retain(|known| known.index != node.index && flat_tree::covers(known.index, node.index));
        fresh.append(path);
        *path = fresh;
        Ok(bytes.len() as u64)
    }
}
