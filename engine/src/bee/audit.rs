//! A whole version checked: what `pgbee verify` asks of a bee.
//!
//! Hashes prove that the blocks are those the writer signed. This proves that they are a B-tree: keys in
//! order, sizes within bounds, leaves equally deep, every pointer to something of the right kind. It reads
//! the source, not the cache, and waits for nothing: a missing block ends it.

use bytes::Bytes;

use super::block::Block;
use super::corrupt;
use super::node::{Child, DEPTH_MAX, KEYS_MIN, Node};
use super::readahead::Readahead;
use super::tree::{Snapshot, Tree, too_deep};
use crate::{BlockIndex, Result};

/// What a sound version consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Keys, each found in the block that wrote it.
    pub keys: u64,
    /// Tree nodes.
    pub nodes: u64,
    /// Levels of the tree: 0 when there is no root, 1 when it is a leaf.
    pub depth: usize,
    /// Bytes of all keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
}

/// See [`Snapshot::audit`].
pub(crate) fn audit(snapshot: &Snapshot) -> Result<AuditReport> {
    if snapshot.version().0 > 0 {
        snapshot.read_header()?;
    }
    let Some(root) = snapshot.version().root() else {
        return Ok(AuditReport::default());
    };
    let mut audit = Audit {
        tree: &snapshot.tree,
        ahead: Readahead::up_to(snapshot.version().0),
        report: AuditReport::default(),
        last: None,
    };
    let root = audit.node(Child { block: root.0, offset: 0 })?;
    audit.walk(&root, 1)?;
    Ok(audit.report)
}

struct Audit<'a> {
    tree: &'a Tree,
    ahead: Readahead,
    report: AuditReport,
    last: Option<Bytes>,
}

impl Audit<'_> {
    fn node(&mut self, place: Child) -> Result<Node> {
        let bytes = self.ahead.block(&*self.tree.source, place.block, 1)?;
        let block = Block::decode(BlockIndex(place.block), bytes)?;
        let level = block.level(place.offset)?;
        Node::decode(self.tree.address(place), &block, &level)
    }

    /// Recursion is bounded by [`DEPTH_MAX`], and ends: every node but the root has keys, and keys rise.
    fn walk(&mut self, node: &Node, depth: usize) -> Result<()> {
        let at = node.address.block;
        if depth > 1 && node.keys.len() < KEYS_MIN {
            let what = format!("a tree node with only {} keys", node.keys.len());
            return Err(corrupt(at, what));
        }
        self.report.nodes += 1;
        if node.is_leaf() {
            match self.report.depth {
                0 => self.report.depth = depth,
                known if known != depth => return Err(corrupt(at, "leaves are not equally deep")),
                _ => {}
            }
        } else if depth == DEPTH_MAX {
            return Err(too_deep(node));
        }
        for i in 0..=node.keys.len() {
            if let Some(&child) = node.children.get(i) {
                let child = self.node(child)?;
                self.walk(&child, depth + 1)?;
            }
            if let Some(key) = node.keys.get(i) {
                self.key(at, key.seq)?;
            }
        }
        Ok(())
    }

    fn key(&mut self, node: u64, seq: u64) -> Result<()> {
        let bytes = self.ahead.block(&*self.tree.source, seq, 1)?;
        let block = Block::decode(BlockIndex(seq), bytes)?;
        let key = block.key();
        if self.last.as_ref().is_some_and(|last| key <= last.as_ref()) {
            return Err(corrupt(node, format!("the key of block {seq} is out of order")));
        }
        self.report.keys += 1;
        self.report.key_bytes += key.len() as u64;
        self.report.value_bytes += block.value().map_or(0, <[u8]>::len) as u64;
        self.last = Some(bytes.slice_ref(key));
        Ok(())
    }
}
