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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::corestore::{Options, Store};
    use crate::hypercore::proof::{BlockRequest, Request, UpgradeRequest};
    use crate::storage::memory::Memory;
    use crate::storage::{Durability, Space, WriteBatch, key, record};

    fn store() -> Arc<Store> {
        Store::open(Arc::new(Memory::new()), Options::default()).unwrap()
    }

    fn bring(from: &Core, to: &Core, request: Request) {
        let mut intake = to.intake();
        let verified = intake.verify(from.prove(&request).unwrap()).unwrap();
        intake.add(verified);
        intake.commit(Durability::Sync).unwrap();
    }

    /// A writer of 300 blocks, and a replica that holds some of them.
    fn replica(held: &[u64]) -> (Arc<Core>, Arc<Store>, Arc<Core>) {
        let (ours, theirs) = (store(), store());
        let writer = theirs.get_by_name("main").unwrap();
        let blocks: Vec<Bytes> = (0..300).map(|i| Bytes::from(format!("block {i}"))).collect();
        writer.append(&blocks, Durability::Sync).unwrap();
        let core = ours.get_by_key(writer.key()).unwrap();
        let upgrade = Some(UpgradeRequest { start: Length(0), length: 300 });
        bring(&writer, &core, Request { upgrade, manifest: true, ..Request::default() });
        for &block in held {
            let nodes = core.missing_nodes(NodeIndex(2 * block));
            let block = Some(BlockRequest { index: BlockIndex(block), nodes });
            bring(&writer, &core, Request { block, ..Request::default() });
        }
        (writer, ours, core)
    }

    fn what(core: &Core) -> String {
        core.verify_held(|_, _| {}).unwrap_err().to_string()
    }

    #[test]
    fn what_is_here_is_verified_and_what_is_not_is_passed_over() {
        let held = [0, 1, 2, 3, 7, 130, 131, 255, 256, 290, 298, 299];
        let (writer, _store, core) = replica(&held);
        let mut told = Vec::new();
        let found = core.verify_held(|done, all| told.push((done.0, all.0))).unwrap();
        assert_eq!((found.blocks.0, told.last()), (held.len() as u64, Some(&(300, 300))));
        assert_eq!(found.bytes, held.iter().map(|i| format!("block {i}").len() as u64).sum::<u64>());
        assert_eq!(writer.verify_held(|_, _| {}), writer.verify(|_, _| {}));
        assert_eq!(store().get_by_name("empty").unwrap().verify_held(|_, _| {}).unwrap().blocks.0, 0);
    }

    #[test]
    fn a_block_that_was_altered_with_its_checksum_is_named() {
        let (_writer, store, core) = replica(&[5, 6, 200]);
        let at = key::block(core.id, BlockIndex(6));
        let mut batch = WriteBatch::new();
        batch.put(Space::Block, &at, &record::sealed(&at, b"block X"));
        store.backend().write(batch, Durability::Sync).unwrap();
        assert!(what(&core).contains("block 6 of core") && what(&core).contains("its hash is not the stored one"));
    }

    /// Whichever stored node is damaged, it is found, for each stands on the way of a block that is here or beside it.
    #[test]
    fn a_node_that_was_altered_with_its_checksum_is_found() {
        let (_writer, store, core) = replica(&[5, 6, 200, 299]);
        let chunks: Vec<(Bytes, Bytes)> = store
            .backend()
            .scan(Space::Tree, key::blocks(core.id, BlockIndex(0), 300), false)
            .map(Result::unwrap)
            .collect();
        assert!(!chunks.is_empty());
        for (at, value) in &chunks {
            let payload = record::unseal(at, value.clone()).unwrap();
            let mut altered = payload.to_vec();
            let last = altered.len() - 1;
            altered[last] ^= 1;
            let mut batch = WriteBatch::new();
            batch.put(Space::Tree, at, &record::sealed(at, &altered));
            store.backend().write(batch, Durability::Sync).unwrap();
            assert!(core.verify_held(|_, _| {}).is_err(), "{at:?}");
            let mut batch = WriteBatch::new();
            batch.put(Space::Tree, at, value);
            store.backend().write(batch, Durability::Sync).unwrap();
        }
        assert!(core.verify_held(|_, _| {}).is_ok());
    }
}
