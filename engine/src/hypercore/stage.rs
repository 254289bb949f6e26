//! Bulk appends of any size in bounded memory: [`Stage`].
//!
//! ```text
//! store    | blocks of the core | staged blocks ...       |
//!          0                    head                      stage.len()
//!                               commit moves the head here, in one small synced write
//! ```
//!
//! Staged blocks and their nodes are written as they come, un-synced, beyond the head, where no reader
//! looks. The log of the store is in order, so when the signed head is synced all that was staged is
//! durable, too. Without that head the blocks are not part of the core: they are removed when the stage
//! is dropped, or by the next append, or (after a crash) are found at open and removed by the next
//! append.
//!
//! While a stage is open, appends wait: it is the one writer.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::append::{Writer, check_sizes};
use super::{BlockSource, Core, Head, READ_BYTES_MAX};
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Length};
use crate::storage::{Durability, WriteBatch};

/// Bytes of blocks that are written as one batch; what a push holds in memory besides its input.
const BATCH_BYTES: usize = 4 << 20;

/// Blocks written beyond a core's head, on their way to becoming one append.
pub struct Stage {
    core: Arc<Core>,
    state: Mutex<State>,
}

enum State {
    /// The staged roots, and the writer as it was before.
    Open { staged: Writer, before: Writer },
    /// Committed: the writer was given back.
    Done,
}

impl Core {
    /// Begin to stage blocks. Waits until no one else appends.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`]; [`Error::Frozen`].
    pub fn stage(self: &Arc<Self>) -> Result<Stage> {
        if !self.is_writable() {
            return Err(Error::NotWritable);
        }
        let before = self.turn()?.take();
        let staged = before.clone();
        Ok(Stage { core: self.clone(), state: Mutex::new(State::Open { staged, before }) })
    }
}

impl Stage {
    /// Write blocks behind those staged so far.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] or [`Error::Invalid`]: the stage is as it was before, or holds the first few of
    /// these blocks; [`len`](Stage::len) tells.
    pub fn push(&self, blocks: &[Bytes]) -> Result<()> {
        check_sizes(blocks)?;
        let mut state = self.state.lock();
        let State::Open { staged, .. } = &mut *state else {
            return Err(done());
        };
        let mut rest = blocks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest
                .iter()
                .take_while(|block| {
                    let fits = bytes < BATCH_BYTES;
                    bytes += block.len() + 32;
                    fits
                })
                .count();
            let (these, others) = rest.split_at(count);
            let mut batch = WriteBatch::with_capacity(count + count / 64 + 3, bytes + 90 * count + 64);
            let mut grown = staged.clone();
            self.core.put_blocks(&mut batch, &mut grown, these);
            if let Err(error) = self.core.backend.write(batch, Durability::NoSync) {
                // It may be there all the same.
                staged.has_tail = true;
                return Err(error);
            }
            *staged = grown;
            rest = others;
        }
        Ok(())
    }

    /// The length the core will have once this is committed; the head's length before that.
    pub fn len(&self) -> Length {
        match &*self.state.lock() {
            State::Open { staged, .. } => staged.roots.length(),
            State::Done => self.core.len(),
        }
    }

    /// Whether the core and the stage have no block.
    pub fn is_empty(&self) -> bool {
        self.len() == Length(0)
    }

    /// A block of the core or of the stage.
    ///
    /// # Errors
    ///
    /// As [`Core::get`], with the stage's length.
    pub fn get(&self, index: BlockIndex) -> Result<Bytes> {
        let length = self.len();
        if !length.contains(index) {
            return Err(Error::Invalid(format!("block {index} is beyond the staged length of {length}")));
        }
        self.core.plain(index, self.core.read(index)?)
    }

    /// Make all that was staged part of the core, as one. After that the stage is over, and others may
    /// append.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]: the core is as before, as far as anyone was told; commit again, or drop the
    /// stage.
    pub fn commit(&self, durability: Durability) -> Result<Head> {
        let mut state = self.state.lock();
        let State::Open { staged, before } = &mut *state else {
            return Err(done());
        };
        let head = if staged.roots == before.roots {
            if durability == Durability::Sync {
                self.core.sync()?;
            }
            self.core.head()
        } else {
            let mut batch = WriteBatch::new();
            // What a failed push may have left behind has to go before the head covers a prefix of it.
            if staged.has_tail {
                self.core.remove_tail(&mut batch, staged.roots.length());
            }
            self.core.check_frozen()?;
            let head = self.core.commit(&mut batch, &staged.roots, durability)?;
            staged.has_tail = false;
            head
        };
        self.core.writer.give_back(staged.clone());
        *state = State::Done;
        Ok(head)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let State::Open { before, .. } = std::mem::replace(self.state.get_mut(), State::Done) else {
            return;
        };
        let Writer { roots, .. } = before;
        let mut batch = WriteBatch::new();
        self.core.remove_tail(&mut batch, roots.length());
        // To have the room back at once. If it fails, the next append does it.
        let removed = self.core.backend.write(batch, Durability::NoSync);
        if let Err(error) = &removed {
            tracing::warn!(core = %self.core.key, %error, "staged blocks could not be removed yet");
        }
        self.core.writer.give_back(Writer { roots, has_tail: removed.is_err(), is_stale: false });
    }
}

impl BlockSource for Stage {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        self.get(index)
    }

    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        let length = self.len();
        if !length.contains(first) {
            return self.get(first).map(|block| vec![block]);
        }
        let count = count.min((length.0 - first.0) as usize);
        match self.core.read_range(first, count, READ_BYTES_MAX) {
            (blocks, Some(error)) if blocks.is_empty() => Err(error),
            (blocks, _) => self.core.plain_all(first, blocks),
        }
    }
}

fn done() -> Error {
    Error::invalid("the stage is committed")
}
