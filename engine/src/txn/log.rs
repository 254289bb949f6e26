//! A database's blocks as a sequence of commits: from a version or a time to its commit record.
//!
//! Blocks are read through a source, which on a replica may wait for peers. What will be read next is wanted with the block that is missing: a round trip is
//! paid for many.

use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, CommitRecord};
use crate::bee::block::Block;
use crate::error::{Error, Result};
use crate::hypercore::{BlockSource, Core, patiently};
use crate::position::{BlockIndex, Version};

/// When a block of a walk from commit to commit is missing, so many commits are looked at to find what comes next.
const AHEAD_COMMITS: usize = 256;
/// When a block of a sequential read is missing, so many are wanted with it at most.
const AHEAD_BLOCKS: u64 = 1024;

/// Reads commit records. A version found here may lie anywhere up to the core's length.
#[derive(Clone)]
pub(crate) struct Log {
    core: Arc<Core>,
    source: Arc<dyn BlockSource>,
}

impl Log {
    /// The log of a core, read through this source.
    pub fn new(core: Arc<Core>, source: Arc<dyn BlockSource>) -> Log {
        Log { core, source }
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Key and value of consecutive blocks from the beginning of a range on: one at least, at most `count`, and as many as one read gives. The whole range
    /// will be read sooner or later.
    pub fn entries(&self, range: Range<u64>, count: usize) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        let first = BlockIndex(range.start);
        let read = || self.source.blocks(first, count);
        let company = |_| (range.start..range.end.min(range.start + AHEAD_BLOCKS)).map(BlockIndex).collect();
        let blocks = patiently(&*self.source, read, company)?;
        blocks.iter().zip(first.0..).map(|(bytes, at)| entry(BlockIndex(at), bytes)).collect()
    }

    /// The commit that ended at this length, if one did.
    pub fn record(&self, version: Version) -> Result<Option<CommitRecord>> {
        patiently(&*self.source, || self.stored_record(version), |_| Vec::new())
    }

    /// The commit before another one, on a walk that goes on from there. `known` are earlier commits, nearest first, the wanted one among them.
    pub fn record_before(&self, version: Version, known: &[Version]) -> Result<Option<CommitRecord>> {
        patiently(&*self.source, || self.stored_record(version), |_| self.trail(known))
    }

    /// The commit that ended at this length, as far as blocks are here.
    fn stored_record(&self, version: Version) -> Result<Option<CommitRecord>> {
        let Some(root) = version.root() else {
            return Ok(None);
        };
        let (key, value) = entry(root, &self.source.block(root)?)?;
        match value {
            Some(value) if key == record::KEY => CommitRecord::decode(version, &value).map(Some),
            _ => Ok(None),
        }
    }

    /// The nearest commit records behind these that are not here, found through those that are.
    fn trail(&self, from: &[Version]) -> Vec<BlockIndex> {
        let mut next: BinaryHeap<Version> = from.iter().copied().collect();
        let mut seen: HashSet<Version> = from.iter().copied().collect();
        let mut missing = Vec::new();
        for _ in 0..AHEAD_COMMITS {
            let Some(version) = next.pop() else { break };
            match self.stored_record(version) {
                Err(Error::MissingBlock(block)) => missing.push(block),
                Ok(Some(record)) => next.extend(record.previous.into_iter().filter(|&version| seen.insert(version))),
                _ => {}
            }
        }
        missing
    }

    /// The newest commit, of `newest` and all before it, for which `is_old_enough` holds. It must hold
    /// for every commit older than one for which it holds. Reads O(log n) records, near enough.
    pub fn seek(
        &self,
        newest: CommitRecord,
        is_old_enough: impl Fn(&CommitRecord) -> bool,
    ) -> Result<Option<CommitRecord>> {
        if is_old_enough(&newest) {
            return Ok(Some(newest));
        }
        let mut too_new = newest;
        loop {
            // Among the earlier commits it points to, nearest first, the old enough ones are the last.
            let (mut low, mut high) = (0, too_new.previous.len());
            let (mut found, mut jump) = (None, None);
            while low < high {
                let middle = (low + high) / 2;
                let candidate = self.pointed_to(&too_new, middle, low..high)?;
                if is_old_enough(&candidate) {
                    (high, found) = (middle, Some(candidate));
                } else {
                    (low, jump) = (middle + 1, Some(candidate));
                }
            }
            match jump {
                // Everything between it and the next one is still to be looked at.
                Some(candidate) => too_new = candidate,
                // The commit just before is old enough, or there is none before.
                None => return Ok(found),
            }
        }
    }

    /// The commit behind one of a record's pointers, while all of `likely` may be looked at.
    fn pointed_to(&self, from: &CommitRecord, which: usize, likely: Range<usize>) -> Result<CommitRecord> {
        let version = from.previous[which];
        let company = |_| from.previous[likely.clone()].iter().filter_map(|version| version.root()).collect();
        let found = patiently(&*self.source, || self.stored_record(version), company)?;
        found.ok_or_else(|| Error::Corrupt {
            core: None,
            block: Some(BlockIndex(from.version.0 - 1)),
            what: format!("its commit record points to {version}, where no commit ended"),
        })
    }
}

fn entry(at: BlockIndex, bytes: &Bytes) -> Result<(Bytes, Option<Bytes>)> {
    let block = Block::decode(at, bytes)?;
    Ok((bytes.slice_ref(block.key()), block.value().map(|value| bytes.slice_ref(value))))
}
