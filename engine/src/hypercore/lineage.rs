//! Reading one history of a core, and being told when it was replaced: [`Lineage`].
//!
//! ```text
//! fork 0    a b c d e           a Lineage of fork 0 still reads a and b; c is Error::Rewritten,
//! fork 1    a b x y             never x, which belongs to another history
//! ```
//!
//! A snapshot, or a cache, knows blocks by their numbers. That is enough while nothing is rewritten; this is for the day when
//! something is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{BlockSource, Core};
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Fork};

/// A core as it is on one fork.
#[derive(Clone)]
pub struct Lineage {
    core: Arc<Core>,
    source: Arc<dyn BlockSource>,
    fork: Fork,
}

impl Lineage {
    /// The history of a core as it is now.
    pub fn new(core: Arc<Core>) -> Lineage {
        let fork = core.fork();
        Lineage { source: core.clone(), core, fork }
    }

    /// The history of a core on this fork, its blocks read through a source that may wait for them.
    pub fn over(core: Arc<Core>, source: Arc<dyn BlockSource>, fork: Fork) -> Lineage {
        Lineage { core, source, fork }
    }

    /// On which fork.
    pub fn fork(&self) -> Fork {
        self.fork
    }

    /// The core.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Whether the core has gone on to another fork.
    pub fn is_past(&self) -> bool {
        self.core.fork() != self.fork
    }

    /// Passes on what was read up to block `end`, unless that is of another history. To be asked after reading.
    fn check<T>(&self, first: BlockIndex, end: u64, read: Result<T>) -> Result<T> {
        let is_replacing = || !self.core.rewrites.load(Ordering::Acquire).is_multiple_of(2);
        let is_sound = match self.is_past() {
            false => read.is_ok() || !is_replacing(),
            true => end <= self.core.unchanged_since(self.fork).0,
        };
        if is_sound { read } else { Err(Error::Rewritten(first)) }
    }
}

impl BlockSource for Lineage {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        let block = self.source.block(index);
        self.check(index, index.0.saturating_add(1), block)
    }

    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        let blocks = self.source.blocks(first, count);
        let read = blocks.as_ref().map_or(1, Vec::len) as u64;
        match self.check(first, first.0.saturating_add(read), blocks) {
            // Some of them may be sound.
            Err(Error::Rewritten(_)) if count > 1 => self.block(first).map(|block| vec![block]),
            checked => checked,
        }
    }

    fn want(&self, blocks: &[BlockIndex]) {
        if !self.is_past() {
            self.source.want(blocks);
        }
    }

    fn fetch(&self, block: BlockIndex) -> Result<()> {
        let fetched = self.source.fetch(block);
        self.check(block, block.0.saturating_add(1), fetched)
    }

    fn ask(&self, name: &'static str, payload: Bytes) {
        if !self.is_past() {
            self.source.ask(name, payload);
        }
    }
}
