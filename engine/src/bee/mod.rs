//! The B-tree inside a log.

use bytes::Bytes;

use crate::error::Result;
use crate::hypercore::position::BlockIndex;

/// Where a bee's blocks are: a core, blocks staged on top of one, or a `Vec` in a test.
pub trait BlockSource: Send + Sync {
    /// One block.
    fn block(&self, index: BlockIndex) -> Result<Bytes>;

    /// The blocks from `first` on, at most `count`; only a missing `first` is an error.
    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        let mut blocks = Vec::with_capacity(count.min(1024));
        for index in first.0..first.0.saturating_add(count as u64) {
            match self.block(BlockIndex(index)) {
                Ok(block) => blocks.push(block),
                Err(error) if blocks.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(blocks)
    }
}
