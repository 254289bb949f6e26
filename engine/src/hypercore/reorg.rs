//! Following a writer who rewrote history: [`Reorg`].
//!
//! ```text
//! the peer's roots (signed, newer fork)     the first that differs from ours is the difference D
//! while D is not a leaf, and not beyond what we have:
//!     ask for the way from D's first leaf up to D     its left child is ours?  then D = the right child, else the left
//! D's first block is where histories part: blocks below it stay, those from it on are dropped, the head is replaced
//! ```
//!
//! Nothing is written before [`Reorg::commit`], and the old history can be read until then. What a replica does not know of its
//! own tree counts as different, so it may drop more than it had to, never less.
//!
//! Source: `ReorgBatch` in holepunchto/hypercore `lib/merkle-tree.js`.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::intake::{Applied, put_node};
use super::proof::{HashRequest, Proof, Request};
use super::tree::is_below;
use super::verify::{self, refuse};
use super::{Core, Head};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{Length, NodeIndex};
use crate::storage::{Durability, WriteBatch};

/// A new history on its way to replacing the one that is held.
pub struct Reorg {
    core: Arc<Core>,
    /// The head it replaces.
    old: Head,
    head: Head,
    roots: Roots,
    verifier: Arc<Verifier>,
    /// All nodes of the new history that are known.
    nodes: FxHashMap<NodeIndex, TreeNode>,
    search: Search,
}

/// Where histories part.
enum Search {
    /// Somewhere below this node.
    Below(TreeNode),
    /// Just before this block.
    Found(Length),
}

impl Core {
    /// Begins to follow a newer fork. The proof is of an upgrade from 0 to the peer's length.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`], [`Error::InvalidSignature`], [`Error::InvalidManifest`]: the peer's fault. [`Error::Invalid`]: nobody
    /// signed the fork, for it ends with the prologue. [`Error::Frozen`]; those of storage.
    pub fn reorg(self: &Arc<Self>, proof: Proof) -> Result<Reorg> {
        self.check_frozen()?;
        let old = self.head();
        if proof.fork <= old.fork && !(old.length == Length(0) && proof.fork == old.fork) {
            return refuse(format!("fork {} is not newer than {}", proof.fork, old.fork));
        }
        let verifier = match self.verifier() {
            Some(verifier) => verifier,
            None => Arc::new(verify::verifier(self.key, proof.manifest.as_ref())?),
        };
        let (roots, learned) = verify::alone(&proof, &verifier)?;
        if verifier.prologue().is_some_and(|fixed| roots.length().0 <= fixed.length) {
            // A prologue stands for itself, and its fork for nothing: anyone could take back what was signed after it.
            return Err(Error::invalid("a fork that ends with its prologue is followed once more of it is signed"));
        }
        let signature = proof.upgrade.map(|upgrade| upgrade.signature).unwrap_or_default();
        let mut reorg = Reorg {
            core: self.clone(),
            old,
            head: Head::of(&roots, proof.fork, signature),
            verifier,
            nodes: learned.into_iter().map(|node| (node.index, node)).collect(),
            search: Search::Found(roots.length()),
            roots,
        };
        for root in reorg.roots.nodes() {
            if !reorg.is_ours(root)? {
                reorg.search = Search::Below(*root);
                break;
            }
        }
        reorg.descend()?;
        Ok(reorg)
    }
}

impl Reorg {
    /// The head it leads to.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What has to be asked of the peer next; `None` once the reorg can be committed.
    pub fn next_request(&self) -> Option<Request> {
        let Search::Below(node) = &self.search else { return None };
        let index = flat_tree::first_block(node.index).node();
        let hash = HashRequest { index, nodes: flat_tree::depth(node.index).into() };
        Some(Request { hash: Some(hash), ..Request::default() })
    }

    /// The answer to what was asked.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`]: the peer's fault; the same can be asked of another. Those of storage.
    pub fn receive(&mut self, proof: Proof) -> Result<()> {
        let Search::Below(different) = &self.search else { return Ok(()) };
        verify::check_bounds(&proof)?;
        if proof.fork != self.head.fork {
            return refuse(format!("it is of fork {}, not {}", proof.fork, self.head.fork));
        }
        let mut learned = Vec::new();
        if verify::subtree(&proof, &mut learned)? != Some(*different) {
            return refuse(format!("it does not lead up to node {}", different.index));
        }
        self.nodes.extend(learned.into_iter().map(|node| (node.index, node)));
        let before = different.index;
        self.descend()?;
        match &self.search {
            Search::Below(still) if still.index == before => refuse(format!("it says nothing of node {before}")),
            _ => Ok(()),
        }
    }

    /// Goes down as far as the nodes of the new history are known.
    fn descend(&mut self) -> Result<()> {
        while let Search::Below(different) = &self.search {
            let first = flat_tree::first_block(different.index);
            let children = flat_tree::left_child(different.index).zip(flat_tree::right_child(different.index));
            let Some((left, right)) = children else {
                self.search = Search::Found(Length(first.0.min(self.old.length.0)));
                return Ok(());
            };
            if first.0 >= self.old.length.0 {
                self.search = Search::Found(self.old.length);
                return Ok(());
            }
            let (Some(left), Some(right)) = (self.nodes.get(&left), self.nodes.get(&right)) else {
                return Ok(());
            };
            let next = if self.is_ours(left)? { *right } else { *left };
            self.search = Search::Below(next);
        }
        Ok(())
    }

    /// Whether a node of the new history is known to be one of ours.
    fn is_ours(&self, node: &TreeNode) -> Result<bool> {
        if !is_below(node.index, self.old.length) {
            return Ok(false);
        }
        Ok(self.core.known_node(node.index)? == Some(*node))
    }

    /// Replaces the old history. Blocks before the point where both part stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] while there is something to be asked, and if the core has got another head meanwhile: begin again.
    /// [`Error::Frozen`]; [`Error::Storage`]: the old history is the one that counts, unless the next who writes finds the new one.
    pub fn commit(self, durability: Durability) -> Result<Applied> {
        let Search::Found(from) = self.search else {
            return Err(Error::invalid("it is not known yet where the histories part"));
        };
        let core = &self.core;
        let mut turn = core.turn()?;
        if core.head() != self.old {
            return Err(Error::invalid("the core has another head now than when the reorg began"));
        }
        let mut nodes = WriteBatch::new();
        for node in self.nodes.values() {
            // Below the point where histories part they are ours, and those of held blocks are packed.
            if flat_tree::last_block(node.index).0 >= from.0 || core.known_node(node.index)?.is_none() {
                put_node(&mut nodes, core.id, node);
            }
        }
        let learned = core.verifier().is_none();
        if learned {
            core.put_manifest(&mut nodes, &self.verifier)?;
        }
        core.rewrite(&mut turn.writer, nodes, from, (self.head.clone(), self.roots), durability)?;
        if learned {
            core.verifier.write().get_or_insert(self.verifier);
        }
        Ok(Applied { blocks: Vec::new(), head: Some(self.head), truncated_to: Some(from) })
    }
}
