//! Re-hashing a whole log up to its signed head: what `pgbee verify` does.
//!
//! Reads check a block's checksum, which finds damage. This finds everything else as well: a block, a
//! Merkle node or a head that was altered together with its checksum. Every block is read in order and
//! hashed; each node it completes is compared with the stored one, so the first block that differs is
//! named; the roots at the end must be those that were signed.
//!
//! ```text
//! for each chunk of nodes     read it and the blocks it covers
//!   for each block            checksum, leaf hash = stored leaf?      no: this block is bad
//!     for each parent         hash = stored parent?                   no: the blocks below it are
//! roots, length, fork         as the head says, and its signature is valid?
//! ```

use bytes::Bytes;

use super::{Core, READ_BYTES_MAX, name};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{BlockIndex, Length};
use crate::storage::record;
use crate::storage::{Space, key};

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedLog {
    /// How many blocks.
    pub blocks: Length,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Core {
    /// Re-hash every block and check the result against the signed head. `progress` is told after every
    /// few thousand blocks how many are done, of how many. Appends may go on meanwhile: what is verified
    /// is the head at the beginning.
    ///
    /// # Errors
    ///
    /// `Corrupt`, naming the first bad block where that can be told; [`Error::MissingBlock`] on a replica
    /// that does not hold all.
    pub fn verify(&self, mut progress: impl FnMut(Length, Length)) -> Result<VerifiedLog> {
        let head = self.head();
        let mut roots = Roots::new();
        let mut told = 0;
        let range = key::blocks(self.id, BlockIndex(0), head.length.0);
        for entry in self.backend.scan(Space::Tree, range, false) {
            let at_chunk = roots.length().0;
            let bad_chunk = |what: String| name(Error::corrupt(what), self.key, Some(BlockIndex(at_chunk)));
            let (at, value) = entry.map_err(|error| name(error, self.key, None))?;
            let last = key::block_index(&at);
            let payload = record::unseal(&at, value).map_err(|what| bad_chunk(format!("its Merkle nodes: {what}")))?;
            let last = last.filter(|&last| record::chunk_first(last, &payload).is_ok_and(|first| first.0 == at_chunk));
            let last = last.ok_or_else(|| bad_chunk("its Merkle nodes are gone".into()))?;
            self.verify_chunk(&mut roots, last, &payload)?;
            if roots.length().0 >= told + 4096 {
                told = roots.length().0;
                progress(roots.length(), head.length);
            }
        }
        if roots.length() != head.length {
            let block = Some(BlockIndex(roots.length().0));
            return Err(name(Error::corrupt("its Merkle nodes are gone"), self.key, block));
        }
        let whole = |what: &str| name(Error::corrupt(what), self.key, None);
        if roots.hash() != head.root_hash || roots.byte_length() != head.byte_length {
            return Err(whole("the blocks do not hash to the head"));
        }
        if head.length > Length(0) {
            let compat = Verifier::compat(self.key);
            let verifier = self.verifier();
            verifier
                .as_deref()
                .unwrap_or(&compat)
                .verify(&roots, head.fork, &head.signature)
                .map_err(|_| whole("the head's signature is not valid"))?;
        }
        progress(head.length, head.length);
        Ok(VerifiedLog { blocks: head.length, bytes: roots.byte_length() })
    }

    /// Hash the blocks up to `last` and compare with the stored nodes.
    fn verify_chunk(&self, roots: &mut Roots, last: BlockIndex, payload: &[u8]) -> Result<()> {
        while roots.length().0 <= last.0 {
            let first = roots.length().0;
            let count = (last.0 + 1 - first) as usize;
            let (blocks, error) = self.read_range(BlockIndex(first), count, READ_BYTES_MAX);
            self.verify_blocks(roots, &blocks, last, payload)?;
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Hash the next blocks and compare with the nodes of the chunk that ends with `last`.
    fn verify_blocks(&self, roots: &mut Roots, blocks: &[Bytes], last: BlockIndex, payload: &[u8]) -> Result<()> {
        for (block, index) in blocks.iter().zip(roots.length().0..) {
            let mut different: Option<TreeNode> = None;
            roots.append(block, |node| {
                let stored = record::chunk_node(last, payload, node.index);
                if stored != Ok(Some(*node)) && different.is_none() {
                    different = Some(*node);
                }
            });
            let Some(node) = different else { continue };
            let what = match node.index.block() {
                Some(_) => "its hash is not the stored one".to_string(),
                None => {
                    let below = flat_tree::first_block(node.index);
                    format!("blocks {below} to {index} do not hash to their stored parent")
                }
            };
            return Err(name(Error::corrupt(what), self.key, Some(BlockIndex(index))));
        }
        Ok(())
    }
}
