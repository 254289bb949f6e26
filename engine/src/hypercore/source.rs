//! Reading blocks without knowing where they lie: [`BlockSource`], all that a bee sees of the log beneath it.

use bytes::Bytes;

use crate::error::Result;
use crate::position::BlockIndex;

/// A read of several blocks ends with the block that brings it to so many bytes.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// Where the blocks of one log are read: a core, blocks staged on top of one, or a `Vec` in a test.
pub trait BlockSource: Send + Sync {
    /// One block.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] when it exists but is not held here, [`Error::Invalid`] when there is no
    /// such block.
    fn block(&self, index: BlockIndex) -> Result<Bytes>;

    /// The blocks from `first` on, at most `count` of them and about [`READ_BYTES_MAX`] bytes, by one
    /// sequential read where the source has such a thing. Only a missing `first` is an error: a missing
    /// block further on ends the answer early, for readers ask for more than they may need.
    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        let mut blocks = Vec::with_capacity(count.min(1024));
        let mut bytes = 0;
        for index in first.0..first.0.saturating_add(count as u64) {
            if bytes >= READ_BYTES_MAX {
                break;
            }
            match self.block(BlockIndex(index)) {
                Ok(block) => {
                    bytes += block.len();
                    blocks.push(block);
                }
                Err(error) if blocks.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(blocks)
    }

    /// Told after a read met a missing block: all others that the reader will ask for next, so that a replica
    /// asks its peers for them at once. May name blocks that are held.
    fn want(&self, _blocks: &[BlockIndex]) {}

    /// Asked after a read met a missing block and [`want`](BlockSource::want) was told its company: a source that can wait for peers does so, and returns when
    /// the block is here to be read. Nobody may hold a lock meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`](crate::Error::MissingBlock) from a source that does not wait, as most do not; [`Error::GaveUp`](crate::Error::GaveUp) from one that did.
    fn fetch(&self, block: BlockIndex) -> Result<()> {
        Err(crate::Error::MissingBlock(block))
    }

    /// The reader is about to look up a key (`limit` 1) or read a range of a version, and a block of the way is missing: a source with peers may ask them, once a read, which
    /// blocks the whole of it will touch. `payload` is a message of the extension `name`.
    fn ask(&self, _name: &'static str, _payload: bytes::Bytes) {}
}
