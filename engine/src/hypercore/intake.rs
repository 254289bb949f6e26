//! Taking in what peers send: [`Intake`], a batch of verified proofs that becomes one write.
//!
//! ```text
//! verify   a proof against the store and against what this intake has added     -> Verified, or refused
//! add      blocks, nodes, a longer head: in memory, seen by later verify
//! commit   one atomic batch   blocks, chunks and single nodes, bitfield pages, head, manifest
//!          then published     length and held blocks, watch, wants
//! ```
//!
//! One intake at a time a core, for it is the one who writes.
//!
//! **What a block costs** in a download in order: its hash, about one parent's, and one record for it; 64 of them share a record
//! for their nodes. Nothing is read: what was verified last is in the core's node cache (`tree.rs`). A proof is
//! hashed upwards only to the first node that is known to be right; siblings above it, which a peer sends to who asked before
//! knowing it, are not looked at and not kept.
//!
//! What must stay true: nothing is stored that was not verified; with a node its parents, with a block its leaf and all
//! siblings on its way up are stored (see `tree.rs`); after an error the store is as it was, or has all of the batch:
//! whoever writes next looks which.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::sync::Arc;

use super::append::Turn;
use super::proof::{BlockProof, Proof, UpgradeProof};
use super::tree::{is_below, is_implied, roots_at};
use super::verify::{self, refuse};
use super::{Core, Head, State, name};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::hypercore::bitfield::Bitfield;
use crate::position::{BlockIndex, Fork, Length, NodeIndex};
use crate::storage::key::{self, CoreId, MetaKey};
use crate::storage::record::{self, CHUNK_BLOCKS_MAX, Chunk, CoreRecord};
use crate::storage::{Durability, Space, WriteBatch};

/// A batch of verified proofs on its way into the store. Dropped without a commit, it was never there.
pub struct Intake<'a> {
    core: &'a Core,
    turn: Turn<'a>,
    /// The state in the store, which is what is published.
    stored: Head,
    held: Bitfield,
    /// With what was added.
    roots: Roots,
    head: Option<Head>,
    overlay: FxHashMap<NodeIndex, TreeNode>,
    blocks: Vec<(BlockIndex, Bytes)>,
    verifier: Option<Arc<Verifier>>,
    /// Why it can do nothing: the store could not be read after a failed write.
    failed: Option<Error>,
    /// Tells what this intake has verified from what others have.
    number: u64,
}

/// What a proof brings, verified. Only [`Intake::verify`] makes one, and it is only of use to the same intake.
#[derive(Debug)]
pub struct Verified {
    block: Option<(BlockIndex, Bytes)>,
    nodes: Vec<TreeNode>,
    upgrade: Option<(Roots, Head)>,
    verifier: Option<Arc<Verifier>>,
    /// The length it was verified on top of.
    base: Length,
    intake: u64,
}

impl Verified {
    /// The block it brings.
    pub fn block(&self) -> Option<BlockIndex> {
        Some(self.block.as_ref()?.0)
    }

    /// The head it leads to, if that is a longer one.
    pub fn head(&self) -> Option<&Head> {
        Some(&self.upgrade.as_ref()?.1)
    }
}

/// What a commit has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The blocks that were taken in, in order. Those that were held before are not among them.
    pub blocks: Vec<BlockIndex>,
    /// The new head, if it moved.
    pub head: Option<Head>,
    /// Blocks from here on were dropped: a new history goes on from here.
    pub truncated_to: Option<Length>,
}

impl Core {
    /// Begins to take in proofs. Waits for whoever else writes: an append, a stage, another intake.
    pub fn intake(&self) -> Intake<'_> {
        let mut turn = self.writer.turn();
        let failed = self.refresh(&mut turn.writer).err();
        let published = self.published.read();
        Intake {
            core: self,
            stored: published.head.clone(),
            held: published.held.clone(),
            roots: turn.writer.roots.clone(),
            turn,
            head: None,
            overlay: FxHashMap::default(),
            blocks: Vec::new(),
            verifier: self.verifier(),
            failed,
            number: self.intakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        }
    }
}

impl Intake<'_> {
    /// The length with what was added: where the next upgrade has to begin.
    pub fn len(&self) -> Length {
        self.roots.length()
    }

    /// Whether the core has no block, with what was added.
    pub fn is_empty(&self) -> bool {
        self.len() == Length(0)
    }

    /// The fork it is for.
    pub fn fork(&self) -> Fork {
        self.stored.fork
    }

    /// Verifies a proof against the store and what was added. Nothing is kept of one that is refused.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidProof`], [`Error::InvalidSignature`], [`Error::InvalidManifest`]: the peer's fault;
    /// * [`Error::Invalid`]: an answer that came too late to be of use, nobody's fault;
    /// * [`Error::Frozen`]; `Corrupt` or [`Error::Storage`] where the store is to blame.
    pub fn verify(&self, proof: Proof) -> Result<Verified> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.core.check_frozen()?;
        verify::check_bounds(&proof)?;
        if proof.fork != self.stored.fork {
            return refuse(format!("it is of fork {}, not {}", proof.fork, self.stored.fork));
        }
        let mut verified = Verified {
            block: None,
            nodes: Vec::new(),
            upgrade: None,
            verifier: None,
            base: self.roots.length(),
            intake: self.number,
        };
        let sent = proof.manifest.as_ref().filter(|_| self.verifier.is_none());
        if let Some(manifest) = sent {
            verified.verifier = Some(Arc::new(Verifier::new(self.core.key, manifest.clone())?));
        }
        match (&proof.block, &proof.seek, &proof.upgrade) {
            (Some(block), None, None) => self.verify_block(block, &mut verified.nodes)?,
            _ => self.verify_parts(&proof, &mut verified)?,
        }
        verified.block = proof.block.map(|block| (block.index, block.value));
        Ok(verified)
    }

    /// A block alone, hashed upwards to the first node that is known.
    fn verify_block(&self, block: &BlockProof, learned: &mut Vec<TreeNode>) -> Result<()> {
        if !self.roots.length().contains(block.index) {
            return refuse(format!("block {} is beyond the length", block.index));
        }
        learned.reserve(2 * block.nodes.len().min(16) + 1);
        let mut node = TreeNode::leaf(block.index.node(), &block.value);
        learned.push(node);
        let mut siblings = block.nodes.iter();
        loop {
            let known = match siblings.as_slice() {
                [] => match self.node(node.index)? {
                    Some(known) => Some(known),
                    None => return self.leads_nowhere(node.index),
                },
                _ => self.node_at_hand(node.index)?,
            };
            if let Some(known) = known {
                return if known == node { Ok(()) } else { refuse(format!("node {} is another", node.index)) };
            }
            let sibling = *siblings.next().expect("the path has not ended");
            let needed = flat_tree::sibling(node.index);
            if sibling.index != needed {
                return refuse(format!("node {} where node {needed} is needed", sibling.index));
            }
            node = verify::join(&node, &sibling)?;
            learned.extend([sibling, node]);
        }
    }

    fn verify_parts(&self, proof: &Proof, verified: &mut Verified) -> Result<()> {
        let root = verify::subtree(proof, &mut verified.nodes)?;
        let is_part = match &proof.upgrade {
            Some(upgrade) if upgrade.signed_length() <= self.roots.length() => {
                self.verify_past(upgrade, root, &mut verified.nodes)?
            }
            Some(upgrade) => self.verify_upgrade(proof, upgrade, root, verified)?,
            None => false,
        };
        match root {
            Some(root) if !is_part => match self.node(root.index)? {
                Some(known) if known == root => Ok(()),
                Some(_) => refuse(format!("node {} is another", root.index)),
                None => self.leads_nowhere(root.index),
            },
            None if proof.upgrade.is_none() && proof.manifest.is_none() => refuse("it is empty"),
            _ => Ok(()),
        }
    }

    /// A proof ends at a node that is not known. If nothing was forgotten since the core was opened, it has never been.
    fn leads_nowhere<T>(&self, index: NodeIndex) -> Result<T> {
        let what = format!("it ends at node {index}, which is not known");
        if self.core.nodes.epoch() == 0 { refuse(what) } else { late(what) }
    }

    /// An upgrade to a longer head than ours. Whether the root of the proof's other parts became a part of it.
    fn verify_upgrade(
        &self,
        proof: &Proof,
        upgrade: &UpgradeProof,
        root: Option<TreeNode>,
        verified: &mut Verified,
    ) -> Result<bool> {
        let length = self.roots.length();
        if upgrade.start > length {
            return refuse(format!("an upgrade from {}, where {length} blocks are known", upgrade.start));
        }
        if upgrade.start < length {
            return late(format!("an upgrade from {} came when {length} blocks were known", upgrade.start));
        }
        let verifier = match (&self.verifier, &verified.verifier) {
            (Some(known), _) | (None, Some(known)) => known.clone(),
            (None, None) => Arc::new(verify::verifier(self.core.key, None)?),
        };
        let mut roots = self.roots.clone();
        let prologue = verifier.prologue();
        let is_part = verify::extend(&mut roots, upgrade, root, prologue, &mut verified.nodes)?;
        verifier.verify(&roots, proof.fork, &upgrade.signature)?;
        let head = Head::of(&roots, proof.fork, upgrade.signature.clone());
        verified.upgrade = Some((roots, head));
        // It has signed: that is who may.
        verified.verifier = self.verifier.is_none().then_some(verifier);
        Ok(is_part)
    }

    /// An upgrade to what is known already: it has to be the same.
    fn verify_past(&self, upgrade: &UpgradeProof, root: Option<TreeNode>, learned: &mut Vec<TreeNode>) -> Result<bool> {
        let Some(mut roots) = roots_at(upgrade.start, |index| self.node(index))? else {
            return late(format!("an upgrade from {}, whose roots are not known here", upgrade.start));
        };
        let prologue = self.verifier.as_deref().and_then(Verifier::prologue);
        let is_part = verify::extend(&mut roots, upgrade, root, prologue, learned)?;
        for node in roots.nodes() {
            match self.node(node.index)? {
                Some(known) if known == *node => {}
                Some(_) => return refuse(format!("root {} is another", node.index)),
                None => return late(format!("an upgrade to {}, whose roots are not known here", roots.length())),
            }
        }
        Ok(is_part)
    }

    /// A node that is known, from wherever it is.
    fn node(&self, index: NodeIndex) -> Result<Option<TreeNode>> {
        if let Some(node) = self.overlay.get(&index).copied().or_else(|| self.roots.node(index)) {
            return Ok(Some(node));
        }
        if is_below(index, self.stored.length) { self.core.known_node(index) } else { Ok(None) }
    }

    /// A node that is in memory, or certainly in the store.
    fn node_at_hand(&self, index: NodeIndex) -> Result<Option<TreeNode>> {
        if let Some(node) = self.overlay.get(&index) {
            return Ok(Some(*node));
        }
        if !is_below(index, self.stored.length) {
            return Ok(self.roots.node(index));
        }
        match self.core.nodes.get(index).or_else(|| self.roots.node(index)) {
            Some(node) => Ok(Some(node)),
            None if is_implied(&self.held, index) => self.core.known_node(index),
            None => Ok(None),
        }
    }

    /// Adds what was verified to the batch: later calls of [`verify`](Intake::verify) build on it.
    ///
    /// What another intake has verified is left out, and so is an upgrade that was verified before another one was added.
    pub fn add(&mut self, verified: Verified) {
        let Verified { block, nodes, upgrade, verifier, base, intake } = verified;
        if intake != self.number || upgrade.is_some() && base != self.roots.length() {
            return;
        }
        self.overlay.extend(nodes.into_iter().map(|node| (node.index, node)));
        if let Some((roots, head)) = upgrade {
            (self.roots, self.head) = (roots, Some(head));
        }
        if self.verifier.is_none() {
            self.verifier = verifier;
        }
        self.blocks.extend(block);
    }

    /// How many blocks were added.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Writes the batch as one, publishes what it brought, and tells those who wait for blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]: nothing of it is visible. The store may have it all the same; the next intake finds out.
    /// [`Error::Frozen`].
    pub fn commit(mut self, durability: Durability) -> Result<Applied> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.core.check_frozen()?;
        let mut arrived = std::mem::take(&mut self.blocks);
        // A block twice in a batch is the same block: both were verified.
        arrived.sort_by_key(|(index, _)| *index);
        arrived.dedup_by_key(|(index, _)| *index);
        let fresh: Vec<&(BlockIndex, Bytes)> = arrived.iter().filter(|(index, _)| !self.held.get(*index)).collect();
        let learned = self.verifier.as_ref().filter(|_| self.core.verifier().is_none()).cloned();
        if fresh.is_empty() && self.overlay.is_empty() && self.head.is_none() && learned.is_none() {
            if durability == Durability::Sync {
                self.core.sync()?;
            }
            return Ok(Applied::default());
        }

        let bytes: usize = fresh.iter().map(|(_, block)| block.len()).sum();
        let mut batch = WriteBatch::with_capacity(fresh.len() + 64, bytes + 120 * fresh.len() + 4096);
        let mut held = self.held.clone();
        for (index, block) in &fresh {
            let at = key::block(self.core.id, *index);
            batch.put_parts(Space::Block, &at, &[&record::seal(&at, block), block]);
            held.set(*index);
        }
        self.put_nodes(&mut batch, &fresh, &held)?;
        let head = self.head.clone().unwrap_or_else(|| self.stored.clone());
        self.core.put_state(&mut batch, &head, &mut held);
        if let Some(verifier) = &learned {
            self.core.put_manifest(&mut batch, verifier)?;
        }
        let blocks: Vec<BlockIndex> = fresh.iter().map(|(index, _)| *index).collect();
        let sizes: Vec<(BlockIndex, usize)> = fresh.iter().map(|(index, block)| (*index, block.len())).collect();
        drop(fresh);

        let epoch = self.core.nodes.epoch();
        // Until the write has succeeded the store may be ahead of what we know.
        self.turn.writer.is_stale = true;
        if let Err(error) = self.core.backend.write(batch, durability) {
            self.core.look_again(&mut self.turn.writer);
            return Err(error);
        }
        self.turn.writer.is_stale = false;
        self.turn.writer.roots = self.roots.clone();
        if let Some(verifier) = learned {
            self.core.verifier.write().get_or_insert(verifier);
        }
        self.core.nodes.keep(epoch, self.overlay.values().copied());
        let moved = self.head.take();
        self.core.wants.count(sizes);
        // Others cannot sign anything else at this length, so it may be shown before it survives a crash.
        self.core.publish(State { head, roots: self.roots.clone(), held }, true);
        for (index, block) in &arrived {
            self.core.wants.arrived(*index, block.len());
        }
        Ok(Applied { blocks, head: moved, truncated_to: None })
    }

    /// Adds the nodes of the overlay to the batch: packed where a new block completed them, single where none is held that did.
    fn put_nodes(&self, batch: &mut WriteBatch, fresh: &[&(BlockIndex, Bytes)], held: &Bitfield) -> Result<()> {
        let mut chunk = Chunk::default();
        let mut packed = Vec::with_capacity(CHUNK_BLOCKS_MAX * 2);
        let mut last: Option<BlockIndex> = None;
        let mut loose = Vec::new();
        for (index, _) in fresh {
            // Chunks end at multiples of their size, so that a download in order makes whole ones.
            let goes_on = last.is_some_and(|last| last.next() == *index && index.0 % CHUNK_BLOCKS_MAX as u64 != 0);
            if !goes_on {
                put_chunk(batch, self.core.id, last.take(), &mut chunk);
            }
            packed.clear();
            for node in record::completed_by(*index) {
                match self.node(node)? {
                    Some(node) => packed.push(node),
                    None => break,
                }
            }
            if packed.len() as u64 == 1 + u64::from(index.0.trailing_ones()) {
                chunk.begin_block();
                packed.iter().for_each(|node| chunk.push(node));
                last = Some(*index);
            } else {
                // A parent of a known node is not known, which should not be: its nodes can wait for it singly.
                debug_assert!(false, "block {index} was verified, and a node above it is not known");
                put_chunk(batch, self.core.id, last.take(), &mut chunk);
                loose.append(&mut packed);
            }
        }
        put_chunk(batch, self.core.id, last, &mut chunk);
        let unpacked = self.overlay.values().filter(|node| !held.get(flat_tree::last_block(node.index)));
        for node in unpacked.chain(&loose) {
            put_node(batch, self.core.id, node);
        }
        Ok(())
    }
}

fn late<T>(what: String) -> Result<T> {
    Err(Error::Invalid(what))
}

/// Adds a chunk that ends with this block to a batch, and begins the next one.
fn put_chunk(batch: &mut WriteBatch, core: CoreId, last: Option<BlockIndex>, chunk: &mut Chunk) {
    if let Some(last) = last {
        let at = key::block(core, last);
        let payload = chunk.payload();
        batch.put_parts(Space::Tree, &at, &[&record::seal(&at, payload), payload]);
    }
    chunk.clear();
}

/// Adds a single node to a batch.
pub(super) fn put_node(batch: &mut WriteBatch, core: CoreId, node: &TreeNode) {
    let at = key::node(core, node.index);
    let payload = record::pack(node);
    batch.put_parts(Space::Tree, &at, &[&record::seal(&at, &payload), &payload]);
}

impl Core {
    /// Adds the head and the bitfield's changed pages to a batch.
    pub(super) fn put_state(&self, batch: &mut WriteBatch, head: &Head, held: &mut Bitfield) {
        for page in held.take_changed() {
            // Beyond this no page is ever set, for no log is so long.
            let Ok(number) = u32::try_from(page) else { continue };
            let at = MetaKey::Page(self.id, number).encode();
            match held.page_bytes(page) {
                Some(bytes) => batch.put(Space::Meta, &at, &record::sealed(&at, &bytes)),
                None => batch.delete(Space::Meta, &at),
            }
        }
        self.put_head(batch, head, held);
    }

    /// Adds the head to a batch. The one of a core of which nothing is known yet is no record.
    pub(super) fn put_head(&self, batch: &mut WriteBatch, head: &Head, held: &Bitfield) {
        let at = MetaKey::Head(self.id).encode();
        if head.signature.is_empty() && head.length == Length(0) {
            batch.delete(Space::Meta, &at);
        } else {
            batch.put(Space::Meta, &at, &record::encode(&at, &head.record(held.contiguous())));
        }
    }

    /// Adds the manifest to a batch.
    pub(super) fn put_manifest(&self, batch: &mut WriteBatch, verifier: &Verifier) -> Result<()> {
        let at = MetaKey::Core(self.id).encode();
        let stored = self.backend.get(Space::Meta, &at)?;
        let stored = stored.ok_or_else(|| name(Error::corrupt("its record is gone"), self.key, None))?;
        let mut core: CoreRecord = record::decode(&at, stored)?;
        core.manifest = Some(verifier.manifest().encode());
        batch.put(Space::Meta, &at, &record::encode(&at, &core));
        Ok(())
    }
}
