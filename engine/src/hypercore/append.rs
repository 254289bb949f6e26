//! Hash, sign, write atomically, then publish the head.
//!
//! An append reads nothing from the store: the roots are in memory. It writes one batch with the blocks,
//! one record of Merkle nodes for every 64 of them, and the head, signed once whatever the number of
//! blocks. Readers see the new length only after the batch is written.
//!
//! **When the write fails** nothing is published, and the roots stay as they were. Whether the batch is
//! in the store is not known then; if it is, and the process stops now, the core will be found longer
//! than was ever told, with all of the append and never a part of it. If it goes on instead, the next
//! append first removes whatever lies beyond the published head. That is safe: no one was shown what is
//! overwritten.

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::watch::Position;
use super::{Core, Head, State};
use crate::crypto::merkle::Roots;
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Length};
use crate::storage::key;
use crate::storage::record::{self, CHUNK_BLOCKS_MAX, Chunk};
use crate::storage::{Durability, Space, WriteBatch};

/// The largest block that may be appended: 15 MiB, which is what JavaScript peers accept.
pub const BLOCK_BYTES_MAX: usize = 15 << 20;

/// What appending goes on from. Whoever has it is the one writer.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    pub roots: Roots,
    /// Whether something may lie in the store beyond the roots' length.
    pub has_tail: bool,
    /// Whether the store may be another than is published: a write of more than an append has failed. To be read again before
    /// anything is written.
    pub is_stale: bool,
}

/// Hands out the [`Writer`], to one at a time. Not a mutex guard, because a stage holds it for as long
/// as a load takes, and may move between threads.
pub(super) struct WriterLock {
    writer: Mutex<Option<Writer>>,
    free: Condvar,
}

impl WriterLock {
    pub fn new(roots: Roots, has_tail: bool) -> WriterLock {
        WriterLock { writer: Mutex::new(Some(Writer { roots, has_tail, is_stale: false })), free: Condvar::new() }
    }

    /// Wait for it and take it. It must be given back.
    pub fn take(&self) -> Writer {
        let mut writer = self.writer.lock();
        loop {
            if let Some(writer) = writer.take() {
                return writer;
            }
            self.free.wait(&mut writer);
        }
    }

    pub fn give_back(&self, writer: Writer) {
        *self.writer.lock() = Some(writer);
        self.free.notify_one();
    }

    /// Wait for it, and give it back when the turn ends, also by a panic.
    pub fn turn(&self) -> Turn<'_> {
        Turn { writer: self.take(), lock: Some(self) }
    }
}

/// The [`Writer`], for as long as it lives.
pub(super) struct Turn<'a> {
    pub writer: Writer,
    /// `None` once it was taken out, to be given back by someone else.
    lock: Option<&'a WriterLock>,
}

impl Turn<'_> {
    /// The writer, for who gives it back.
    pub fn take(mut self) -> Writer {
        self.lock = None;
        std::mem::take(&mut self.writer)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            lock.give_back(std::mem::take(&mut self.writer));
        }
    }
}

impl Core {
    /// Wait until no one else writes. What is published is what is in the store, then.
    pub(super) fn turn(&self) -> Result<Turn<'_>> {
        let mut turn = self.writer.turn();
        self.check_frozen()?;
        self.refresh(&mut turn.writer)?;
        Ok(turn)
    }

    /// Append blocks as one: all of them or, after an error, none of them is part of the core. Waits for
    /// a [`Stage`](super::stage::Stage) that is open.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`]; [`Error::Invalid`] for a block above 15 MiB; [`Error::Frozen`]; [`Error::Storage`].
    pub fn append(&self, blocks: &[Bytes], durability: Durability) -> Result<Head> {
        check_sizes(blocks)?;
        self.append_in(self.turn()?, blocks, durability)
    }

    /// As [`append`](Core::append), of blocks that were made for one place in one history.
    ///
    /// # Errors
    ///
    /// [`Error::Rewritten`] if the core stands elsewhere by now.
    pub fn append_at(&self, at: Position, blocks: &[Bytes], durability: Durability) -> Result<Head> {
        check_sizes(blocks)?;
        let turn = self.turn()?;
        if turn.writer.roots.length() != at.length || self.fork() != at.fork {
            return Err(Error::Rewritten(BlockIndex(at.length.0)));
        }
        self.append_in(turn, blocks, durability)
    }

    fn append_in(&self, mut turn: Turn<'_>, blocks: &[Bytes], durability: Durability) -> Result<Head> {
        let mut writer = turn.writer.clone();
        // From here on the store may hold more than the roots say, until the append has succeeded.
        let had_tail = std::mem::replace(&mut turn.writer.has_tail, true);
        let head = self.append_with(&mut writer, blocks, durability)?;
        turn.writer = Writer { has_tail: had_tail && blocks.is_empty(), ..writer };
        Ok(head)
    }

    fn append_with(&self, writer: &mut Writer, blocks: &[Bytes], durability: Durability) -> Result<Head> {
        if blocks.is_empty() {
            if durability == Durability::Sync {
                self.sync()?;
            }
            return Ok(self.head());
        }
        let bytes: usize = blocks.iter().map(Bytes::len).sum();
        let mut batch = WriteBatch::with_capacity(
            blocks.len() + blocks.len() / CHUNK_BLOCKS_MAX + 4,
            bytes + 110 * blocks.len() + 512,
        );
        self.put_blocks(&mut batch, writer, blocks);
        self.commit(&mut batch, &writer.roots, durability)
    }

    /// Sign the roots, write the head together with what is in the batch, and publish it.
    pub(super) fn commit(&self, batch: &mut WriteBatch, roots: &Roots, durability: Durability) -> Result<Head> {
        let (Some(pair), Some(verifier)) = (&self.pair, self.verifier()) else {
            return Err(Error::NotWritable);
        };
        let (before, mut held) = {
            let published = self.published.read();
            (published.head.clone(), published.held.clone())
        };
        let mut head = Head::of(roots, before.fork, Bytes::new());
        head.signature = verifier.sign(pair, &head.root_hash, head.length, head.fork)?.into();
        held.set_range(BlockIndex(before.length.0)..BlockIndex(head.length.0));
        self.put_state(batch, &head, &mut held);
        self.backend.write(std::mem::take(batch), durability)?;
        let state = State { head: head.clone(), roots: roots.clone(), held };
        self.publish(state, durability == Durability::Sync);
        Ok(head)
    }
}

impl Core {
    /// Add blocks and the nodes they complete to a batch. The writer is brought up to date with what the
    /// batch will do; nothing else is touched.
    pub(super) fn put_blocks(&self, batch: &mut WriteBatch, writer: &mut Writer, blocks: &[Bytes]) {
        let mut index = writer.roots.length().0;
        if std::mem::take(&mut writer.has_tail) {
            self.remove_tail(batch, writer.roots.length());
        }
        let mut chunk = Chunk::default();
        let cipher = self.cipher().map(|cipher| (cipher, self.published.read().head.fork));
        for group in blocks.chunks(CHUNK_BLOCKS_MAX) {
            chunk.clear();
            for block in group {
                let encrypted = cipher.map(|(cipher, fork)| cipher.encrypt(BlockIndex(index), fork, block));
                let block = encrypted.as_ref().unwrap_or(block);
                let at = key::block(self.id, BlockIndex(index));
                batch.put_parts(Space::Block, &at, &[&record::seal(&at, block), block]);
                chunk.begin_block();
                writer.roots.append(block, |node| chunk.push(node));
                index += 1;
            }
            let at = key::block(self.id, BlockIndex(index - 1));
            let payload = chunk.payload();
            batch.put_parts(Space::Tree, &at, &[&record::seal(&at, payload), payload]);
        }
    }

    /// Add the removal of all that is stored from this length on to a batch.
    ///
    /// A write that was reported as failed may be there, and with it a head beyond the published one. It
    /// must not outlive its blocks, so the published head is put in its place by the same batch.
    pub(super) fn remove_tail(&self, batch: &mut WriteBatch, from: Length) {
        let first = BlockIndex(from.0);
        for space in [Space::Block, Space::Tree] {
            batch.delete_range(space, &key::block(self.id, first), &key::core_end(self.id));
        }
        batch.delete_range(Space::Tree, &key::nodes_from(self.id, first), &key::nodes_end(self.id));
        let published = self.published.read();
        self.put_head(batch, &published.head, &published.held);
    }
}

pub(super) fn check_sizes(blocks: &[Bytes]) -> Result<()> {
    match blocks.iter().find(|block| block.len() > BLOCK_BYTES_MAX) {
        Some(block) => {
            let len = block.len();
            Err(Error::Invalid(format!("a block of {len} bytes; at most {BLOCK_BYTES_MAX} are possible")))
        }
        None => Ok(()),
    }
}
