//! Removing blocks: [`Core::truncate`], which makes a new fork, and [`Core::clear`], which makes holes.
//!
//! ```text
//! truncate to n    blocks from n on, and all nodes over any of them, go; what is left is signed anew under fork + 1
//! clear a..b       blocks a..b go; nodes stay that held blocks, or the roots, need
//! ```
//!
//! Nodes lie under the block that completes them, so a truncation removes one range of keys of each kind, and keeps the front
//! of the one chunk that spans the new end.
//!
//! What must stay true: a history that was replaced is never shown as the new one. Whoever reads through a
//! [`Lineage`](super::lineage::Lineage) of the old fork is told ([`Error::Rewritten`]), and caches know blocks by fork.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::append::Writer;
use super::intake::put_node;
use super::tree::{chunk_at, damaged, is_implied, roots_at};
use super::{Core, Head, State, name};
use crate::crypto::merkle::Roots;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::{BlockIndex, Fork, Length};
use crate::storage::key;
use crate::storage::record;
use crate::storage::{Durability, Space, WriteBatch};

/// How many chunks are rewritten by one batch of a clear.
const CLEARED_CHUNKS: usize = 512;

impl Core {
    /// Cuts the log back to a length, which may be its own or 0. The rest gets a new fork, signed at once.
    ///
    /// Blocks from there on are gone. Until a truncation is durable, nothing is shown to peers.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`]; [`Error::Invalid`] beyond the length, or inside of a prologue; [`Error::Frozen`]; [`Error::Storage`]:
    /// whether it was truncated is found out by whoever writes next.
    pub fn truncate(&self, to: Length, durability: Durability) -> Result<Head> {
        self.truncate_as(to, None, durability)
    }

    /// [`truncate`](Core::truncate) to a fork of the caller's choice, which has to be newer: for who writes one core from several places,
    /// one after another.
    ///
    /// # Errors
    ///
    /// As [`truncate`](Core::truncate).
    pub fn truncate_as(&self, to: Length, fork: Option<Fork>, durability: Durability) -> Result<Head> {
        let mut turn = self.turn()?;
        let (Some(pair), Some(verifier)) = (&self.pair, self.verifier()) else {
            return Err(Error::NotWritable);
        };
        let before = self.head();
        if to > before.length {
            return Err(Error::Invalid(format!("cannot truncate {} blocks to {to}", before.length)));
        }
        if verifier.prologue().is_some_and(|fixed| to.0 < fixed.length) {
            return Err(Error::invalid("cannot truncate a log inside of its prologue"));
        }
        let roots = roots_at(to, |index| self.known_node(index))?;
        let roots = roots.ok_or_else(|| Error::Invalid(format!("the roots at length {to} are not here")))?;
        let fork = fork.unwrap_or(Fork(before.fork.0 + 1));
        if fork <= before.fork {
            return Err(Error::Invalid(format!("fork {fork} is not newer than {}", before.fork)));
        }
        let mut head = Head::of(&roots, fork, Default::default());
        head.signature = verifier.sign(pair, &head.root_hash, head.length, fork)?.into();
        self.rewrite(&mut turn.writer, WriteBatch::new(), to, (head.clone(), roots), durability)?;
        Ok(head)
    }

    /// Replaces the history from a block on by another head; the nodes it needs are in the batch, to be added after the removal.
    pub(super) fn rewrite(
        &self,
        writer: &mut Writer,
        nodes: WriteBatch,
        from: Length,
        (head, roots): (Head, Roots),
        durability: Durability,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        self.remove_from(&mut batch, from)?;
        batch.append(&nodes);
        let mut held = self.published.read().held.clone();
        held.truncate(from);
        self.put_state(&mut batch, &head, &mut held);
        let rewriting = Rewriting::begin(&self.rewrites);
        writer.is_stale = true;
        let written = self.backend.write(batch, durability);
        self.nodes.forget();
        if let Err(error) = written {
            self.look_again(writer);
            return Err(error);
        }
        *writer = Writer { roots: roots.clone(), has_tail: false, is_stale: false };
        self.note_rewrite(from);
        // One of ours has to be durable before anyone sees it; a peer's cannot be signed otherwise.
        let is_shown = durability == Durability::Sync || self.pair.is_none();
        let position = self.replace_state(State { head, roots, held }, is_shown);
        // Whoever is told asks for proofs at once: none may be refused because of what is over.
        drop(rewriting);
        self.watch.publish(position);
        Ok(())
    }

    /// Adds the removal of blocks from this one on, and of all nodes over them, to a batch.
    pub(super) fn remove_from(&self, batch: &mut WriteBatch, from: Length) -> Result<()> {
        let first = BlockIndex(from.0);
        let broken = |what| name(damaged(first, what), self.key, None);
        let front = match chunk_at(&*self.backend, self.id, first)? {
            Some((last, payload)) => record::chunk_front(last, &payload, first).map_err(broken)?,
            None => None,
        };
        for space in [Space::Block, Space::Tree] {
            batch.delete_range(space, &key::block(self.id, first), &key::core_end(self.id));
        }
        batch.delete_range(Space::Tree, &key::nodes_from(self.id, first), &key::nodes_end(self.id));
        if let (Some(front), Some(last)) = (front, from.last()) {
            let at = key::block(self.id, last);
            batch.put_parts(Space::Tree, &at, &[&record::seal(&at, &front), &front]);
        }
        Ok(())
    }

    /// Drops blocks that are held, to have the room. The log stays as it is; whoever wants them again asks peers, if any has them.
    ///
    /// A large range is several batches: after an error some of it may be gone, from the front.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn clear(&self, range: Range<BlockIndex>) -> Result<()> {
        let mut turn = self.writer.turn();
        self.refresh(&mut turn.writer)?;
        let end = range.end.min(BlockIndex(self.len().0));
        let mut at = range.start;
        while at < end {
            at = self.clear_some(&mut turn.writer, at..end)?;
        }
        Ok(())
    }

    /// Drops the front of a range; what is left of it begins at the block that is returned.
    fn clear_some(&self, writer: &mut Writer, range: Range<BlockIndex>) -> Result<BlockIndex> {
        let state = {
            let published = self.published.read();
            State { head: published.head.clone(), roots: published.roots.clone(), held: published.held.clone() }
        };
        let Some(first) = state.held.first_set(range.start).filter(|first| *first < range.end) else {
            return Ok(range.end);
        };
        let mut chunks = Vec::new();
        let mut end = range.end;
        for entry in self.backend.scan(Space::Tree, key::blocks_from(self.id, first), false) {
            let (at, value) = entry?;
            let last = key::block_index(&at).ok_or_else(|| damaged(first, "a key is cut off"))?;
            let payload = record::unseal(&at, value).map_err(|what| damaged(last, what))?;
            let start = record::chunk_first(last, &payload).map_err(|what| damaged(last, what))?;
            if start >= range.end {
                break;
            }
            if chunks.len() == CLEARED_CHUNKS {
                end = start;
                break;
            }
            chunks.push((last, start, payload));
        }

        let mut held = state.held.clone();
        held.unset_range(first..end);
        let mut batch = WriteBatch::new();
        batch.delete_range(Space::Block, &key::block(self.id, first), &key::block(self.id, end));
        // Of the nodes between the held blocks around the hole none is needed but those that are implied: were one left, it could
        // be without its parent.
        let before = held.last_set(first).map_or(BlockIndex(0), BlockIndex::next);
        let after = held.first_set(end).unwrap_or(BlockIndex(state.head.length.0));
        let is_needed = |index| state.roots.node(index).is_some() || is_implied(&held, index);
        let singles = crate::storage::Range::new(key::nodes_from(self.id, before), key::nodes_from(self.id, after));
        for entry in self.backend.scan(Space::Tree, singles, false) {
            let (at, _) = entry?;
            let index = key::node_index(&at).ok_or_else(|| damaged(first, "a key is cut off"))?;
            if !is_needed(index) {
                batch.delete(Space::Tree, &at);
            }
        }
        for (last, start, payload) in chunks {
            batch.delete(Space::Tree, &key::block(self.id, last));
            let nodes = record::chunk_nodes(last, &payload).map_err(|what| damaged(last, what))?;
            // In front of the hole and behind it chunks remain; in it, single nodes.
            let mut chunk = record::Chunk::default();
            let mut packed: Option<BlockIndex> = None;
            let flush = |batch: &mut WriteBatch, chunk: &mut record::Chunk, packed: &mut Option<BlockIndex>| {
                if let Some(last) = packed.take() {
                    let at = key::block(self.id, last);
                    batch.put_parts(Space::Tree, &at, &[&record::seal(&at, chunk.payload()), chunk.payload()]);
                }
                chunk.clear();
            };
            for node in nodes {
                let block = flat_tree::last_block(node.index);
                debug_assert!((start..=last).contains(&block));
                if held.get(block) {
                    if node.index.block().is_some() {
                        chunk.begin_block();
                    }
                    chunk.push(&node);
                    packed = Some(block);
                } else {
                    flush(&mut batch, &mut chunk, &mut packed);
                    if is_needed(node.index) {
                        put_node(&mut batch, self.id, &node);
                    }
                }
            }
            flush(&mut batch, &mut chunk, &mut packed);
        }
        self.put_state(&mut batch, &state.head, &mut held);
        writer.is_stale = true;
        let written = self.backend.write(batch, Durability::NoSync);
        self.nodes.forget();
        if let Err(error) = written {
            self.look_again(writer);
            return Err(error);
        }
        writer.is_stale = false;
        self.published.write().held = held;
        Ok(end)
    }

    /// Blocks below this one are the same now as they were on an earlier fork since the core was opened.
    pub fn unchanged_since(&self, fork: Fork) -> Length {
        let published = self.published.read();
        let since = published.rewrites.iter().filter(|(before, _)| *before >= fork);
        since.map(|(_, from)| *from).min().unwrap_or(Length(u64::MAX))
    }

    /// Remembers that the history was replaced from a block on. Called before the new head is published.
    pub(super) fn note_rewrite(&self, from: Length) {
        let mut published = self.published.write();
        let fork = published.head.fork;
        // What was replaced less far back says nothing any longer.
        published.rewrites.retain(|(_, earlier)| *earlier < from);
        published.rewrites.push((fork, from));
    }
}

/// While a history is being replaced, the number is odd.
struct Rewriting<'a>(&'a AtomicU64);

impl Rewriting<'_> {
    fn begin(number: &AtomicU64) -> Rewriting<'_> {
        number.fetch_add(1, Ordering::AcqRel);
        Rewriting(number)
    }
}

impl Drop for Rewriting<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
