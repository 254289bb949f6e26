//! Reading blocks without knowing where they lie: [`BlockSource`], all that a bee sees of the log beneath it.

use bytes::Bytes;

use super::Core;
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Fork};

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
    /// [`Error::MissingBlock`] from a source that does not wait, as most do not; [`Error::GaveUp`] from one that did.
    fn fetch(&self, block: BlockIndex) -> Result<()> {
        Err(Error::MissingBlock(block))
    }

    /// The reader is about to look up a key (`limit` 1) or read a range of a version, and a block of the way is missing: a source with peers may ask them, once a read, which
    /// blocks the whole of it will touch. `payload` is a message of the extension `name`.
    fn ask(&self, _name: &'static str, _payload: bytes::Bytes) {}
}

impl Core {
    /// What caches tell this core's blocks from others' by: eight bytes of its key, so that whoever opens the core again finds what is cached of it, and its
    /// fork, for a fork puts other blocks in the place of some.
    pub fn source_id(&self) -> u64 {
        self.source_id_at(self.watch().position().fork)
    }

    /// [`source_id`](Core::source_id) while the core is at a fork.
    pub(crate) fn source_id_at(&self, fork: Fork) -> u64 {
        let first = self.key().0.first_chunk().copied();
        let first = u64::from_be_bytes(first.expect("a key has 32 bytes"));
        // An odd factor: as many ids as forks.
        first.wrapping_add(fork.0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A block that was fetched and is missing once more, so often in a row, is given up.
const AGAIN_MAX: u32 = 3;
/// One read waits so often at most: a source that loses blocks as fast as it gets them would keep it forever.
const ROUNDS_MAX: u32 = 1 << 14;

/// How often one read has waited, and for what.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    last: Option<BlockIndex>,
    again: u32,
    rounds: u32,
}

impl Patience {
    /// Waits for a missing block if the source does: then the read can be made again. Its company should be wanted by now.
    ///
    /// # Errors
    ///
    /// Any other error is given back, and so is this one once waiting has not helped.
    pub(crate) fn wait(&mut self, source: &dyn BlockSource, error: Error) -> Result<()> {
        let Error::MissingBlock(block) = error else {
            return Err(error);
        };
        self.rounds += 1;
        self.again = if self.last == Some(block) { self.again + 1 } else { 0 };
        self.last = Some(block);
        if self.again == AGAIN_MAX || self.rounds == ROUNDS_MAX {
            return Err(error);
        }
        source.fetch(block)
    }
}

/// Makes a read until it meets no missing block, waiting for each if the source does. `company` is told of each and says what else will be needed.
pub(crate) fn patiently<T>(
    source: &dyn BlockSource,
    mut read: impl FnMut() -> Result<T>,
    mut company: impl FnMut(BlockIndex) -> Vec<BlockIndex>,
) -> Result<T> {
    let mut patience = Patience::default();
    loop {
        match read() {
            Err(Error::MissingBlock(block)) => {
                let company = company(block);
                if !company.is_empty() {
                    source.want(&company);
                }
                patience.wait(source, Error::MissingBlock(block))?;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Says that it has fetched, and never has.
    struct Forgetful(AtomicU32);

    impl BlockSource for Forgetful {
        fn block(&self, index: BlockIndex) -> Result<Bytes> {
            Err(Error::MissingBlock(index))
        }

        fn fetch(&self, _block: BlockIndex) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_block_that_stays_missing_is_given_up() {
        let source = Forgetful(AtomicU32::new(0));
        let read = patiently(&source, || source.block(BlockIndex(7)), |_| Vec::new());
        assert_eq!(read, Err(Error::MissingBlock(BlockIndex(7))));
        assert_eq!(source.0.load(Ordering::Relaxed), AGAIN_MAX);
        // One that loses what it had got is given up, too.
        let mut turn = 0;
        let alternating = || {
            turn ^= 1;
            source.block(BlockIndex(turn))
        };
        assert!(patiently(&source, alternating, |_| Vec::new()).is_err());
        assert!(source.0.load(Ordering::Relaxed) < 2 * ROUNDS_MAX);
    }
}
