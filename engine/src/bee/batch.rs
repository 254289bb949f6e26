//! Puts and deletes to blocks, byte for byte as JavaScript's `batch()` writes them.
//!
//! Each operation that has an effect becomes one block. It changes nodes in memory, and numbers those it
//! changed, depth first from the root: node `n` of block `b` is then the newest place of that node. Later
//! operations of the batch change some of them again, and give these newer places. When the batch ends,
//! blocks are made of what is left:
//!
//! ```text
//! operation 1 numbers     root A B        block 1   .  B            A and the root have newer places
//! operation 2 numbers     root A C        block 2   .  .  C         so has A here; C moves to its place:
//! operation 3 numbers     root A          block 3   root A          block 2 is written as  C
//! ```
//!
//! So in all blocks but the last:
//!
//! * the root's place is dropped, always;
//! * a place that is not the newest of its node is filled by the last of the list;
//! * what is written are the nodes as they are at the end, not as they were.
//!
//! Only the last block has a root: a batch is one version. One batch of one operation gives the same block
//! as an operation outside of a batch.
//!
//! A put marks the nodes above the leaf as changed before it knows whether it will change anything. When
//! it does not (a refused condition, an equal value where duplicates are not wanted), the next operation
//! writes these nodes too. That is in the bytes, so it is done here as well (`stray`).
//!
//! Source: `Batch` and `TreeNode.indexChanges` in holepunchto/hyperbee `index.js`.

use std::ops::Range;

use super::Entry;
use super::arena::{LinkId, NONE, NodeId};
use super::node::{self, Child};
use super::writer::Writer;
use crate::Result;

/// Of larger batches only the last block's nodes are handed to the cache.
const PUBLISHED_OPERATIONS_MAX: usize = 1024;

/// Operations that become one version.
#[derive(Debug)]
pub struct Batch<'w> {
    writer: &'w mut Writer,
    always_duplicate: bool,
    /// Whether the header was written by this batch, and goes if the batch goes.
    header_pending: bool,
    touched: bool,
}

impl<'w> Batch<'w> {
    pub(super) fn new(writer: &'w mut Writer) -> Batch<'w> {
        Batch { header_pending: writer.length == 0, writer, always_duplicate: true, touched: false }
    }

    /// Whether putting an equal value writes a block. It does unless switched off.
    pub fn always_duplicate(mut self, yes: bool) -> Self {
        self.always_duplicate = yes;
        self
    }

    /// Puts a value; `None` is Hyperbee's null. Tells whether there is a block for it: there is none for
    /// an equal value when duplicates are off.
    ///
    /// Keys that come in order cost about a microsecond each, others a descent.
    ///
    /// # Errors
    ///
    /// What reading the tree met; nothing has changed then, so the call can be made again.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        self.touched = true;
        self.writer.put(key, value, self.always_duplicate, None)
    }

    /// Puts a value if the key does not exist, or if `condition(existing, new)` allows replacing it.
    ///
    /// # Errors
    ///
    /// As [`Batch::put`].
    pub fn put_cas(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        mut condition: impl FnMut(&Entry, &Entry) -> bool,
    ) -> Result<bool> {
        self.touched = true;
        self.writer.put(key, value, self.always_duplicate, Some(&mut condition))
    }

    /// Deletes a key. Tells whether it was there; a missing one writes no block.
    ///
    /// # Errors
    ///
    /// As [`Batch::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool> {
        self.touched = true;
        self.writer.delete(key, None)
    }

    /// Deletes a key if it exists and `condition(existing, new)` allows it; `new` has no value.
    ///
    /// # Errors
    ///
    /// As [`Batch::put`].
    pub fn delete_cas(&mut self, key: &[u8], mut condition: impl FnMut(&Entry, &Entry) -> bool) -> Result<bool> {
        self.touched = true;
        self.writer.delete(key, Some(&mut condition))
    }

    /// The entry of a key, this batch's operations included; `seq` is the block it has or will have.
    ///
    /// # Errors
    ///
    /// As [`Batch::put`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        if self.header_pending && !self.touched {
            return Ok(None);
        }
        self.writer.get(key)
    }

    /// How many blocks this batch has so far, the header not counted.
    pub fn blocks(&self) -> u64 {
        self.writer.operations.len() as u64
    }

    /// Ends the batch: its blocks are now among the writer's pending ones. Returns how many it added; the
    /// header counts if this batch was the first to do anything, even a delete that found nothing.
    pub fn flush(mut self) -> u64 {
        let header = u64::from(self.header_pending && self.touched);
        self.header_pending = false;
        header + self.writer.flush()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.header_pending {
            self.writer.source.pending.write().blocks.clear();
            self.writer.length = 0;
        }
        if self.writer.stray || !self.writer.operations.is_empty() || self.header_pending {
            self.writer.forget_tree();
        }
    }
}

impl Writer {
    /// Numbers what a put changed, when that is just the path, its leaf, and the leaf's new right half:
    /// the same list as [`Writer::number_all`] makes, without looking at every sibling on the way.
    pub(super) fn number_put(&mut self, seq: u64, leaf: Option<NodeId>, right: Option<NodeId>) {
        if self.stray {
            for &(node, _) in &self.path {
                self.arena.node_mut(node).changed = true;
            }
            if let Some(leaf) = leaf {
                self.arena.node_mut(leaf).changed = true;
            }
            self.number_all(seq);
            return;
        }
        self.places.push(NONE);
        let below = self.path.len() - usize::from(leaf.is_none());
        let mut offset = 0;
        for step in 0..below {
            let (node, i) = self.path[step];
            offset += 1;
            let link = self.arena.node(node).children()[i];
            self.place(link, seq, offset);
            self.places.push(link);
        }
        if let Some(leaf) = leaf {
            self.arena.node_mut(leaf).changed = false;
        }
        if let (Some(right), Some(&(parent, i))) = (right, self.path.last()) {
            let link = self.arena.node(parent).children()[i + 1];
            self.place(link, seq, offset + 1);
            self.places.push(link);
            self.arena.node_mut(right).changed = false;
        }
    }

    fn place(&mut self, link: LinkId, seq: u64, offset: u32) {
        let before = self.arena.link(link);
        if before.block != 0 && before.block < self.handed_below {
            self.superseded.push(Child { block: before.block, offset: before.offset });
        }
        self.arena.place(link, seq, offset);
    }

    /// Numbers every changed node, depth first from the root.
    pub(super) fn number_all(&mut self, seq: u64) {
        let start = self.places.len();
        self.number(self.root, start, seq);
        self.stray = false;
    }

    fn number(&mut self, node: NodeId, start: usize, seq: u64) -> u32 {
        let offset = (self.places.len() - start) as u32;
        self.places.push(NONE);
        self.arena.node_mut(node).changed = false;
        for i in 0..self.arena.node(node).children().len() {
            let link = self.arena.node(node).children()[i];
            let child = self.arena.link(link).node;
            if child != NONE && self.arena.node(child).changed {
                let offset = self.number(child, start, seq);
                self.place(link, seq, offset);
                self.places[start + offset as usize] = link;
            }
        }
        offset
    }

    /// Takes back marks that no operation will write: the batch is over.
    fn clear_marks(&mut self) {
        let mut marked = vec![self.root];
        while let Some(node) = marked.pop().filter(|&node| node != NONE) {
            self.arena.node_mut(node).changed = false;
            for &link in self.arena.node(node).children() {
                let child = self.arena.link(link).node;
                if child != NONE && self.arena.node(child).changed {
                    marked.push(child);
                }
            }
        }
        self.stray = false;
    }

    /// Makes the blocks of the batch at hand.
    fn flush(&mut self) -> u64 {
        let count = self.operations.len();
        let mut operations = std::mem::take(&mut self.operations).into_iter().enumerate().peekable();
        let mut blocks = Vec::with_capacity(count);
        // Each is let go with its block made: large values are in memory once.
        while let Some((i, operation)) = operations.next() {
            let last = i + 1 == count;
            let end = operations.peek().map_or(self.places.len(), |(_, next)| next.places);
            let mut places = operation.places..end;
            if !last {
                places.end = self.settle(places.clone(), self.length + i as u64);
            }
            for (offset, at) in places.clone().enumerate() {
                let is_root = last && offset == 0;
                let node = match is_root {
                    true => self.root,
                    false => self.arena.link(self.places[at]).node,
                };
                let node = self.arena.node(node);
                node::check(node.keys().len(), node.children().len(), is_root, last);
                let keys = node.keys().iter();
                let children = node.children().iter().map(|&link| {
                    let link = self.arena.link(link);
                    (link.block, link.offset)
                });
                self.encoder.level(keys.map(|&key| self.arena.keys[key as usize].seq), children);
            }
            let resolved = self.arena.keys[operation.key as usize].resolved.as_ref();
            let resolved = resolved.expect("the key of an operation is known");
            let value = resolved.value_ref().unwrap_or(operation.large.as_deref());
            blocks.push(self.encoder.finish(resolved.key(), value));
            if last || count <= PUBLISHED_OPERATIONS_MAX {
                let links = &self.places[places];
                self.written.extend(links.iter().filter(|&&link| link != NONE));
            }
        }
        self.source.pending.write().blocks.append(&mut blocks);
        if count > 0 && (2..=self.handed_below).contains(&self.length) {
            self.superseded.push(Child { block: self.length - 1, offset: 0 });
        }
        self.length += count as u64;
        self.places.clear();
        self.arena.drop_retired();
        if self.stray {
            self.clear_marks();
        }
        count as u64
    }

    /// Leaves in a list only the places that are still the newest of their nodes, filling gaps from the
    /// end, and corrects the offsets. Returns where the list now ends.
    fn settle(&mut self, places: Range<usize>, block: u64) -> usize {
        let Range { start, mut end } = places;
        self.places[start] = NONE;
        let mut at = start;
        while at < end {
            let place = self.places[at];
            if place != NONE && self.arena.link(place).block == block {
                self.arena.place(place, block, (at - start) as u32);
                at += 1;
            } else {
                end -= 1;
                self.places[at] = self.places[end];
            }
        }
        end
    }
}
