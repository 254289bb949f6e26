//! Making proofs, node for node as JavaScript makes them, from a whole or a sparse core.
//!
//! ```text
//! no upgrade, or the block lies before it     siblings from the leaf up, as many as asked
//! the block lies in the upgrade               siblings up to the node of the upgrade that covers it; that node is left out
//! seek                                        instead of the sibling that covers its byte: the way from there to the sibling
//! upgrade      start ... end                  right siblings on the way up from the last block before start, then roots of end
//! additional             end ... signed       the same from there: the signature is of the whole, whatever was asked
//! ```
//!
//! What must stay true: only what survives a crash is shown ([`Core::durable_len`]); a proof is of one history, also if that is
//! replaced meanwhile. Source: `generateProof` in holepunchto/hypercore `lib/merkle-tree.js`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::proof::{BlockProof, HashProof, Proof, Request, SeekProof, SeekRequest, UpgradeProof, UpgradeRequest};
use super::tree::is_below;
use super::{Core, Shown, verify};
use crate::crypto::manifest::Manifest;
use crate::crypto::merkle::TreeNode;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{BlockIndex, Length, NodeIndex};

impl Core {
    /// The proof of what is asked, as far as it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] for a block that is not held; [`Error::Invalid`] for what cannot be proved, be it impossible or only
    /// unknown here; [`Error::Frozen`]; those of storage.
    pub fn prove(&self, request: &Request) -> Result<Proof> {
        self.check_frozen()?;
        if let Request { block: None, hash: None, seek: None, upgrade: None, manifest: true } = request {
            let manifest = self.shown_manifest().ok_or_else(|| Error::invalid("the manifest is not known here"))?;
            return Ok(Proof { fork: self.fork(), manifest: Some(manifest), ..Proof::default() });
        }
        let rewrites = self.rewrites.load(Ordering::Acquire);
        let shown = self.published.read().shown.clone();
        let shown = shown.ok_or_else(|| Error::invalid("the history is not durable yet"))?;
        let proof = Prover { core: self, shown }.prove(request);
        // What was missing or gone may be so because of that.
        if !rewrites.is_multiple_of(2) || rewrites != self.rewrites.load(Ordering::Acquire) {
            return Err(Error::invalid("the history is being replaced"));
        }
        proof
    }

    /// A proof of the whole log, and of a block in it, that can be verified by who knows no more than the core's key:
    /// [`Proof::verify_alone`].
    ///
    /// # Errors
    ///
    /// As [`prove`](Core::prove).
    pub fn prove_alone(&self, block: Option<BlockIndex>) -> Result<Proof> {
        let upgrade = UpgradeRequest { start: Length(0), length: self.durable_len().0 };
        let block = block.map(|index| super::proof::BlockRequest { index, nodes: 0 });
        self.prove(&Request { block, upgrade: Some(upgrade), manifest: true, ..Request::default() })
    }

    /// The manifest, if it is known; peers know that of a compat core from its key.
    fn shown_manifest(&self) -> Option<Manifest> {
        let verifier = self.verifier()?;
        (!verifier.is_compat()).then(|| verifier.manifest().clone())
    }

    /// Whether a peer with a log of this length can be given an upgrade: the roots of that length are known. `true` for 0.
    pub fn can_prove_upgrade(&self, from: Length) -> bool {
        if from > self.durable_len() {
            return false;
        }
        flat_tree::full_roots(from).all(|root| {
            let published = self.published.read();
            if published.roots.node(root).is_some() {
                return true;
            }
            drop(published);
            matches!(self.known_node(root), Ok(Some(_)))
        })
    }
}

/// What is asked for: a block's leaf, or a node.
#[derive(Clone, Copy)]
struct Target {
    node: NodeIndex,
    is_block: bool,
    steps: u64,
    last: BlockIndex,
}

impl Target {
    fn of(request: &Request) -> Result<Option<Target>> {
        let (node, is_block, steps) = match (&request.block, &request.hash) {
            (Some(_), Some(_)) => return impossible("a block and a node"),
            (Some(block), None) if block.index.0 < verify::NODES_MAX / 2 => (block.index.node(), true, block.nodes),
            (None, Some(hash)) if hash.index.0 < verify::NODES_MAX => (hash.index, false, hash.nodes),
            (None, None) => return Ok(None),
            _ => return impossible("a node that no log has"),
        };
        Ok(Some(Target { node, is_block, steps, last: flat_tree::last_block(node) }))
    }
}

fn impossible<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::Invalid(format!("cannot be proved: {what}")))
}

/// The two parts that may be made inside of an upgrade or outside.
#[derive(Default)]
struct Parts {
    node: Option<Vec<TreeNode>>,
    seek: Option<Vec<TreeNode>>,
}

struct Prover<'a> {
    core: &'a Core,
    shown: Arc<Shown>,
}

impl Prover<'_> {
    fn prove(&self, request: &Request) -> Result<Proof> {
        let head = self.shown.head.length;
        let upgrade = self.whole_prologue(request.upgrade);
        let (from, to) = match upgrade {
            Some(UpgradeRequest { start, length }) => (start, Length(start.0.saturating_add(length))),
            None => (Length(0), head),
        };
        if from >= to || to > head {
            return impossible(format!("from {from} to {to} of {head} blocks"));
        }
        let target = Target::of(request)?;
        let seek = request.seek;
        if let Some(target) = target {
            if !to.contains(target.last) {
                return impossible(format!("node {} of {to} blocks", target.node));
            }
            if seek.is_some() && upgrade.is_some() && target.node.0 >= from.0 * 2 {
                return impossible("a seek and a block inside of the upgrade");
            }
        }
        let block = match request.block {
            Some(block) => Some((block.index, self.core.get_stored(block.index)?)),
            None => None,
        };

        let mut parts = Parts::default();
        let mut inside = None;
        match (target, seek) {
            (Some(target), _) if upgrade.is_none() || target.last.0 < from.0 => {
                let root = climb(target, to)?;
                let seek = seek.map(|seek| self.seek_below(root, seek)).transpose()?;
                self.path(Some(target), seek, root, &mut parts)?;
            }
            (_, Some(_)) if upgrade.is_none() => return impossible("a seek without a node or an upgrade"),
            (_, Some(seek)) => inside = self.seek_from_head(to, seek)?,
            (Some(target), None) => inside = Some(target.node),
            (None, None) => {}
        }
        let upgrade = match upgrade {
            Some(UpgradeRequest { start, length }) => {
                let within = inside.map(|subtree| (subtree, target, seek.is_some()));
                let nodes = self.between(from, to, within, &mut parts)?;
                let additional = self.between(to, head, None, &mut Parts::default())?;
                let signature = self.shown.head.signature.clone();
                Some(UpgradeProof { start, length, nodes, additional, signature })
            }
            None => None,
        };
        if target.is_some() && parts.node.is_none() {
            return impossible("the node lies outside of the upgrade");
        }
        let nodes = parts.node.unwrap_or_default();
        let (block, hash) = match (block, target) {
            (Some((index, value)), _) => (Some(BlockProof { index, value, nodes }), None),
            (None, Some(target)) => (None, Some(HashProof { index: target.node, nodes })),
            (None, None) => (None, None),
        };
        let seek = seek.zip(parts.seek).map(|(seek, nodes)| SeekProof { bytes: seek.bytes, nodes });
        let manifest = if request.manifest { self.core.shown_manifest() } else { None };
        Ok(Proof { fork: self.shown.head.fork, block, hash, seek, upgrade, manifest })
    }

    /// An upgrade that begins inside of the prologue is of just the prologue; what follows are additional nodes.
    fn whole_prologue(&self, asked: Option<UpgradeRequest>) -> Option<UpgradeRequest> {
        let asked = asked?;
        let fixed = self.core.verifier().and_then(|verifier| verifier.prologue());
        Some(match fixed {
            Some(fixed) if asked.start.0 < fixed.length => UpgradeRequest { start: Length(0), length: fixed.length },
            _ => asked,
        })
    }

    fn node(&self, index: NodeIndex) -> Result<TreeNode> {
        match self.find(index)? {
            Some(node) => Ok(node),
            None => impossible(format!("node {index} is not here")),
        }
    }

    fn find(&self, index: NodeIndex) -> Result<Option<TreeNode>> {
        if let Some(node) = self.shown.roots.node(index) {
            return Ok(Some(node));
        }
        if !is_below(index, self.shown.head.length) {
            return Ok(None);
        }
        self.core.known_node(index)
    }

    /// Siblings on the way from the target up to a root, and from a node near the sought byte up to where the ways meet.
    fn path(&self, target: Option<Target>, seek: Option<NodeIndex>, root: NodeIndex, parts: &mut Parts) -> Result<()> {
        let Some(target) = target else {
            parts.seek = seek.map(|seek| self.seek_path(seek, root)).transpose()?;
            return Ok(());
        };
        if !flat_tree::covers(root, target.node) {
            return impossible(format!("node {} does not lie below {root}", target.node));
        }
        let mut nodes = Vec::with_capacity(1 + (flat_tree::depth(root) - flat_tree::depth(target.node)) as usize);
        if !target.is_block {
            nodes.push(self.node(target.node)?);
        }
        let mut at = target.node;
        while at != root {
            let sibling = flat_tree::sibling(at);
            match seek {
                Some(seek) if seek != sibling && flat_tree::covers(sibling, seek) => {
                    parts.seek = Some(self.seek_path(seek, sibling)?);
                }
                _ => nodes.push(self.node(sibling)?),
            }
            at = flat_tree::parent(at);
        }
        parts.node = Some(nodes);
        Ok(())
    }

    fn seek_path(&self, from: NodeIndex, root: NodeIndex) -> Result<Vec<TreeNode>> {
        let mut nodes = vec![self.node(from)?];
        let mut at = from;
        while at != root {
            nodes.push(self.node(flat_tree::sibling(at))?);
            at = flat_tree::parent(at);
        }
        Ok(nodes)
    }

    /// The nodes that lead from one length to a longer one. Where one of them covers the subtree of `within`, the path inside of it
    /// is made instead.
    fn between(
        &self,
        from: Length,
        to: Length,
        within: Option<(NodeIndex, Option<Target>, bool)>,
        parts: &mut Parts,
    ) -> Result<Vec<TreeNode>> {
        let mut nodes = Vec::new();
        let mut emit = |index: NodeIndex| -> Result<()> {
            match within {
                Some((subtree, target, is_seek))
                    if parts.node.is_none() && parts.seek.is_none() && flat_tree::covers(index, subtree) =>
                {
                    self.path(target, is_seek.then_some(subtree), index, parts)
                }
                _ => {
                    nodes.push(self.node(index)?);
                    Ok(())
                }
            }
        };
        for root in flat_tree::full_roots(to) {
            if flat_tree::last_block(root).0 < from.0 {
                continue;
            }
            match from.last().filter(|last| flat_tree::contains(root, *last)) {
                None => emit(root)?,
                Some(last) => {
                    let mut at = last.node();
                    while at != root {
                        let sibling = flat_tree::sibling(at);
                        if sibling > at {
                            emit(sibling)?;
                        }
                        at = flat_tree::parent(at);
                    }
                }
            }
        }
        Ok(nodes)
    }

    /// A node near a byte that lies below `to`; `None` beyond.
    fn seek_from_head(&self, to: Length, seek: SeekRequest) -> Result<Option<NodeIndex>> {
        let mut bytes = seek.bytes;
        for root in flat_tree::full_roots(to) {
            let size = unpadded(&self.node(root)?, seek.padding)?;
            if bytes == size {
                return Ok(Some(root));
            }
            if bytes < size {
                return self.seek_inside(root, bytes, seek.padding).map(Some);
            }
            bytes -= size;
        }
        Ok(None)
    }

    /// A node near a byte, if that lies below `root`.
    fn seek_below(&self, root: NodeIndex, seek: SeekRequest) -> Result<NodeIndex> {
        let first = flat_tree::first_block(root);
        let before = self.byte_offset(first)?;
        let padding = first.0.checked_mul(seek.padding).and_then(|padding| before.checked_sub(padding));
        let Some(bytes) = padding.and_then(|offset| seek.bytes.checked_sub(offset)) else {
            return impossible("the byte lies before the node");
        };
        if bytes > 0 && unpadded(&self.node(root)?, seek.padding)? <= bytes {
            return impossible("the byte lies behind the node");
        }
        self.seek_inside(root, bytes, seek.padding)
    }

    fn seek_inside(&self, root: NodeIndex, mut bytes: u64, padding: u64) -> Result<NodeIndex> {
        let mut at = root;
        if bytes == 0 {
            return Ok(at);
        }
        while let (Some(left), Some(right)) = (flat_tree::left_child(at), flat_tree::right_child(at)) {
            let Some(node) = self.find(left)? else { break };
            let size = unpadded(&node, padding)?;
            if size == bytes {
                return Ok(left);
            }
            if size > bytes {
                at = left;
            } else {
                bytes -= size;
                at = right;
            }
        }
        Ok(at)
    }

    /// How many bytes lie before a block.
    fn byte_offset(&self, block: BlockIndex) -> Result<u64> {
        let mut offset = 0;
        for root in flat_tree::full_roots(self.shown.head.length) {
            if flat_tree::last_block(root) < block {
                offset += self.node(root)?.size;
                continue;
            }
            let mut at = root;
            while let (Some(left), Some(right)) = (flat_tree::left_child(at), flat_tree::right_child(at)) {
                if block <= flat_tree::last_block(left) {
                    at = left;
                } else {
                    offset += self.node(left)?.size;
                    at = right;
                }
            }
            break;
        }
        Ok(offset)
    }
}

/// The node so many steps above the target.
fn climb(target: Target, to: Length) -> Result<NodeIndex> {
    let mut at = target.node;
    for _ in 0..target.steps {
        at = flat_tree::parent(at);
        if !to.contains(flat_tree::last_block(at)) {
            return impossible(format!("{} steps up from node {} of {to} blocks", target.steps, target.node));
        }
    }
    Ok(at)
}

/// How many bytes below a node count.
fn unpadded(node: &TreeNode, padding: u64) -> Result<u64> {
    let padding = padding.checked_mul(flat_tree::blocks(node.index));
    match padding.and_then(|padding| node.size.checked_sub(padding)) {
        Some(size) => Ok(size),
        None => impossible("blocks are smaller than their padding"),
    }
}

/// Where a byte lies, as far as it can be told here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// In this block, so many bytes behind its padding. The end of the log is the block after the last.
    At(BlockIndex, u64),
    /// So many bytes behind the beginning of these blocks, whose nodes are not known here: a peer has to be asked.
    Within(std::ops::Range<BlockIndex>, u64),
    /// Behind the end.
    Beyond,
}

impl Core {
    /// Which block a byte of the log lies in. `padding` bytes of every block do not count: 8 where blocks are encrypted.
    /// Reads O(log length) nodes. Empty blocks are passed over, but at byte 0.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where blocks are smaller than the padding; those of storage.
    pub fn seek(&self, bytes: u64, padding: u64) -> Result<Sought> {
        let (length, roots) = {
            let published = self.published.read();
            (published.head.length, published.roots.clone())
        };
        if bytes == 0 {
            return Ok(Sought::At(BlockIndex(0), 0));
        }
        let mut bytes = bytes;
        for root in roots.nodes() {
            let size = unpadded(root, padding)?;
            if bytes == size {
                return Ok(Sought::At(flat_tree::last_block(root.index).next(), 0));
            }
            if bytes > size {
                bytes -= size;
                continue;
            }
            let mut at = root.index;
            while let (Some(left), Some(right)) = (flat_tree::left_child(at), flat_tree::right_child(at)) {
                let Some(node) = self.known_node(left)? else {
                    let span = flat_tree::first_block(at)..flat_tree::last_block(at).next();
                    return Ok(Sought::Within(span, bytes));
                };
                let size = unpadded(&node, padding)?;
                if size == bytes {
                    return Ok(Sought::At(flat_tree::last_block(left).next(), 0));
                }
                if size > bytes {
                    at = left;
                } else {
                    bytes -= size;
                    at = right;
                }
            }
            return Ok(Sought::At(flat_tree::first_block(at), bytes));
        }
        debug_assert!(roots.length() == length);
        Ok(Sought::Beyond)
    }

    /// How many bytes of the log lie before a block, its padding included. Reads O(log length) nodes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] beyond the durable length, or where nodes are not known here; those of storage.
    pub fn byte_offset(&self, block: BlockIndex) -> Result<u64> {
        let shown = self.published.read().shown.clone();
        let shown = shown.filter(|shown| block.0 <= shown.head.length.0);
        let shown = shown.ok_or_else(|| Error::Invalid(format!("block {block} is beyond the core's length")))?;
        Prover { core: self, shown }.byte_offset(block)
    }
}
