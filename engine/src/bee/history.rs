//! What was written, in the order it was written: a bee's blocks one after the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Direction;
use super::block::Block;
use super::readahead::Readahead;
use super::tree::Tree;
use crate::hypercore::Patience;
use crate::{BlockIndex, Error, Result, Version};

/// So many blocks are asked for ahead when one is missing; twice as many each further time, up to the second number.
const AHEAD: (u64, u64) = (64, 1024);

/// What a block did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A key got a value, or a null.
    Put,
    /// A key was removed.
    Delete,
}

/// One block of a bee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The block.
    pub seq: BlockIndex,
    /// What it did. A null put looks like a delete in one case, see [`Block::is_deletion`].
    pub operation: Operation,
    /// To which key.
    pub key: Bytes,
    /// The value put.
    pub value: Option<Bytes>,
}

/// Reads blocks as operations.
#[derive(Debug)]
pub struct History {
    tree: Arc<Tree>,
    /// What is left to read.
    blocks: Range<u64>,
    direction: Direction,
    ahead: Readahead,
    /// How many blocks to ask for when one is missing.
    wanted: u64,
}

impl History {
    pub(crate) fn new(tree: Arc<Tree>, version: Version, blocks: Range<BlockIndex>, direction: Direction) -> History {
        let end = blocks.end.0.min(version.0);
        History {
            tree,
            // Block 0 is the header.
            blocks: blocks.start.0.max(1)..end,
            direction,
            ahead: Readahead::up_to(end),
            wanted: AHEAD.0,
        }
    }

    /// The next operation, or `None` when all blocks of the range are read.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica whose source does not wait; the place is kept, so call again
    /// once the block is there. [`Error::Corrupt`].
    #[allow(clippy::should_implement_trait)] // An iterator would have to end after an error.
    pub fn next(&mut self) -> Result<Option<Change>> {
        let mut patience = Patience::default();
        loop {
            match self.try_next() {
                Err(error @ Error::MissingBlock(_)) => {
                    self.want_next();
                    patience.wait(&*self.tree.source, error)?;
                }
                done => return done,
            }
        }
    }

    /// All blocks of the range will be read: the next ones are asked for together.
    #[cold]
    fn want_next(&mut self) {
        let Range { start, end } = self.blocks;
        let count = self.wanted.min(end - start);
        self.wanted = (2 * self.wanted).min(AHEAD.1);
        let blocks: Vec<BlockIndex> = match self.direction {
            Direction::Forward => (start..start + count).map(BlockIndex).collect(),
            Direction::Backward => (end - count..end).rev().map(BlockIndex).collect(),
        };
        self.tree.source.want(&blocks);
    }

    fn try_next(&mut self) -> Result<Option<Change>> {
        if self.blocks.is_empty() {
            return Ok(None);
        }
        let at = match self.direction {
            Direction::Forward => self.blocks.start,
            Direction::Backward => self.blocks.end - 1,
        };
        let bytes = self.ahead.block(&*self.tree.source, at, 1)?;
        let block = Block::decode(BlockIndex(at), bytes)?;
        let change = Change {
            seq: BlockIndex(at),
            operation: match block.is_deletion()? {
                true => Operation::Delete,
                false => Operation::Put,
            },
            key: bytes.slice_ref(block.key()),
            value: block.value().map(|value| bytes.slice_ref(value)),
        };
        match self.direction {
            Direction::Forward => self.blocks.start += 1,
            Direction::Backward => self.blocks.end -= 1,
        }
        Ok(Some(change))
    }
}
