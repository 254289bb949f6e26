//! Whether a proof proves anything: pure, without a store.
//!
//! ```text
//! subtree    leaf (or node) and its siblings, hashed upwards            -> the root of a part of the tree
//!            the way to a seek's byte takes the place of one sibling
//! extend     roots of the length we have, then the nodes of the upgrade -> roots of a longer log
//!            (the subtree's root takes the place of one node), then the additional nodes
//! trusted    the subtree's root is a node that is known, or part of roots that are signed
//! ```
//!
//! What a stranger sends is bounded here before anything is computed from it: indices, sizes and numbers of nodes.
//! Below these bounds no sum overflows. Source: `verifyTree`, `verifyUpgrade` in holepunchto/hypercore `lib/merkle-tree.js`.

use crate::crypto::hash::Hash;
use crate::crypto::key::CoreKey;
use crate::crypto::manifest::{Manifest, Prologue};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::hypercore::append::BLOCK_BYTES_MAX;
use crate::hypercore::proof::{Proof, UpgradeProof};
use crate::position::{BlockIndex, Length, NodeIndex};

/// Nodes have smaller indices: what JavaScript peers can count to.
pub(super) const NODES_MAX: u64 = 1 << 53;
/// No node covers more bytes.
const BYTES_MAX: u64 = 1 << 53;
/// A path from a leaf to a root has no more siblings.
const PATH_NODES_MAX: usize = 64;
/// Between two lengths lie no more nodes: up one side and down the other.
const UPGRADE_NODES_MAX: usize = 2 * PATH_NODES_MAX;
/// More than the signatures of a thousand signers.
const SIGNATURE_BYTES_MAX: usize = 1 << 17;

/// Why a proof is refused.
pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::InvalidProof(why.into()))
}

/// Refuses what no log can have, before it is computed with.
pub(super) fn check_bounds(proof: &Proof) -> Result<()> {
    let fits = |nodes: &[TreeNode], most: usize| {
        nodes.len() <= most && nodes.iter().all(|node| node.index.0 < NODES_MAX && node.size <= BYTES_MAX)
    };
    let mut sound = true;
    if let Some(block) = &proof.block {
        sound &= block.index.0 < NODES_MAX / 2 && fits(&block.nodes, PATH_NODES_MAX);
        sound &= block.value.len() <= BLOCK_BYTES_MAX;
    }
    if let Some(hash) = &proof.hash {
        sound &= hash.index.0 < NODES_MAX && fits(&hash.nodes, PATH_NODES_MAX + 1);
    }
    if let Some(seek) = &proof.seek {
        sound &= fits(&seek.nodes, PATH_NODES_MAX + 1);
    }
    if let Some(upgrade) = &proof.upgrade {
        let end = upgrade.start.0.checked_add(upgrade.length);
        sound &= upgrade.length > 0 && end.is_some_and(|end| end < NODES_MAX / 2);
        sound &= fits(&upgrade.nodes, UPGRADE_NODES_MAX) && fits(&upgrade.additional, UPGRADE_NODES_MAX);
        sound &= upgrade.signature.len() <= SIGNATURE_BYTES_MAX;
    }
    match (&proof.block, &proof.hash) {
        _ if !sound => refuse("a number is beyond what a log can have"),
        (Some(_), Some(_)) => refuse("it is of a block and of a node"),
        _ => Ok(()),
    }
}

/// Nodes in the order in which they are needed, and one that was computed elsewhere.
struct Queue<'a> {
    nodes: std::slice::Iter<'a, TreeNode>,
    extra: Option<TreeNode>,
}

impl<'a> Queue<'a> {
    fn new(nodes: &'a [TreeNode], extra: Option<TreeNode>) -> Queue<'a> {
        Queue { nodes: nodes.iter(), extra }
    }

    fn is_empty(&self) -> bool {
        self.extra.is_none() && self.nodes.as_slice().is_empty()
    }

    fn take(&mut self, index: NodeIndex) -> Result<TreeNode> {
        if let Some(extra) = self.extra.take_if(|extra| extra.index == index) {
            return Ok(extra);
        }
        match self.nodes.next() {
            Some(node) if node.index == index => Ok(*node),
            Some(node) => refuse(format!("node {} where node {index} is needed", node.index)),
            None => refuse(format!("node {index} is not part of it")),
        }
    }
}

/// The parent of two siblings.
pub(super) fn join(node: &TreeNode, sibling: &TreeNode) -> Result<TreeNode> {
    match node.parent(sibling) {
        Some(parent) if parent.size <= BYTES_MAX => Ok(parent),
        _ => refuse("a node has more bytes than a log can have"),
    }
}

/// Hashes upwards until the queue is empty.
fn climb(from: TreeNode, mut queue: Queue<'_>, learned: &mut Vec<TreeNode>) -> Result<TreeNode> {
    let mut node = from;
    learned.push(node);
    while !queue.is_empty() {
        let sibling = queue.take(flat_tree::sibling(node.index))?;
        node = join(&node, &sibling)?;
        learned.extend([sibling, node]);
    }
    Ok(node)
}

/// What block, hash and seek of a proof hash up to; `None` if it has none of them. Nodes on the way are added to
/// `learned`. They are to be trusted only if the result is.
pub(super) fn subtree(proof: &Proof, learned: &mut Vec<TreeNode>) -> Result<Option<TreeNode>> {
    let mut found = None;
    if let Some((first, rest)) = proof.seek.as_ref().and_then(|seek| seek.nodes.split_first()) {
        found = Some(climb(*first, Queue::new(rest, None), learned)?);
    }
    if let Some(block) = &proof.block {
        let leaf = TreeNode::leaf(block.index.node(), &block.value);
        return climb(leaf, Queue::new(&block.nodes, found), learned).map(Some);
    }
    if let Some(hash) = &proof.hash {
        let mut queue = Queue::new(&hash.nodes, found);
        let first = queue.take(hash.index)?;
        return climb(first, queue, learned).map(Some);
    }
    Ok(found)
}

/// Makes the roots those of the longer log. Whether `extra` became a part of it.
pub(super) fn extend(
    roots: &mut Roots,
    upgrade: &UpgradeProof,
    extra: Option<TreeNode>,
    prologue: Option<Prologue>,
    learned: &mut Vec<TreeNode>,
) -> Result<bool> {
    let (start, end) = (upgrade.start.0, upgrade.start.0 + upgrade.length);
    if let Some(fixed) = prologue
        && start < fixed.length
        && (start != 0 || end < fixed.length)
    {
        return refuse("it divides the prologue");
    }
    let mut queue = Queue::new(&upgrade.nodes, extra);
    for index in roots.extension(Length(end)) {
        push(roots, queue.take(index)?, learned)?;
    }
    if !queue.nodes.as_slice().is_empty() {
        return refuse("it has more nodes than lead to its length");
    }
    if prologue.is_some_and(|fixed| fixed.length == end && fixed.hash != roots.hash()) {
        return refuse("it is not the prologue");
    }
    for node in &upgrade.additional {
        push(roots, *node, learned)?;
    }
    Ok(extra.is_none() || queue.extra.is_none())
}

fn push(roots: &mut Roots, node: TreeNode, learned: &mut Vec<TreeNode>) -> Result<()> {
    let grown = roots.push(node, |node| learned.push(*node));
    if !grown || roots.length().0 >= NODES_MAX / 2 || roots.byte_length() > BYTES_MAX {
        return refuse(format!("node {} does not follow", node.index));
    }
    Ok(())
}

/// Who may sign, as far as the key allows to know: from a manifest that a peer sent, or the one signer whose public key the key is.
pub(super) fn verifier(key: CoreKey, sent: Option<&Manifest>) -> Result<Verifier> {
    match sent {
        Some(manifest) => Verifier::new(key, manifest.clone()),
        None => Ok(Verifier::compat(key)),
    }
}

/// What a proof shows that needs no tree to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// The length that is signed.
    pub length: Length,
    /// The tree hash that is signed.
    pub root_hash: Hash,
    /// The block that it came with, now known to be part of that log.
    pub block: Option<BlockIndex>,
}

impl Proof {
    /// Verifies a proof that stands alone: an upgrade from 0, with or without a block, whose manifest is part of it unless
    /// the core's key is its signer's. Nothing is read or kept.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`], [`Error::InvalidManifest`], [`Error::InvalidSignature`].
    pub fn verify_alone(&self, key: CoreKey) -> Result<Alone> {
        let verifier = verifier(key, self.manifest.as_ref())?;
        let (roots, _) = alone(self, &verifier)?;
        let block = self.block.as_ref().map(|block| block.index);
        Ok(Alone { length: roots.length(), root_hash: roots.hash(), block })
    }
}

/// The signed roots of an upgrade from 0, and all nodes it teaches.
pub(super) fn alone(proof: &Proof, verifier: &Verifier) -> Result<(Roots, Vec<TreeNode>)> {
    check_bounds(proof)?;
    let Some(upgrade) = proof.upgrade.as_ref().filter(|upgrade| upgrade.start == Length(0)) else {
        return refuse("it is not an upgrade from 0");
    };
    let mut learned = Vec::new();
    let root = subtree(proof, &mut learned)?;
    let mut roots = Roots::new();
    if !extend(&mut roots, upgrade, root, verifier.prologue(), &mut learned)? {
        return refuse("its block is not a part of the upgrade");
    }
    verifier.verify(&roots, proof.fork, &upgrade.signature)?;
    Ok((roots, learned))
}
