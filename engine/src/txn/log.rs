//! A database's blocks as a sequence of commits: from a version or a time to its commit record.

use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, CommitRecord};
use crate::bee::block::Block;
use crate::error::Result;
use crate::hypercore::{BlockSource, Core};
use crate::position::{BlockIndex, Version};

/// Reads commit records. A version found here may lie anywhere up to the core's length.
#[derive(Clone)]
pub(crate) struct Log {
    core: Arc<Core>,
}

impl Log {
    pub fn new(core: Arc<Core>) -> Log {
        Log { core }
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Key and value of consecutive blocks: one at least, at most `count`, and as many as one read gives.
    pub fn entries(&self, first: BlockIndex, count: usize) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        let blocks = self.core.blocks(first, count)?;
        blocks.iter().zip(first.0..).map(|(bytes, at)| entry(BlockIndex(at), bytes)).collect()
    }

    /// The commit that ended at this length, if one did.
    pub fn record(&self, version: Version) -> Result<Option<CommitRecord>> {
        let Some(root) = version.root() else {
            return Ok(None);
        };
        let (key, value) = entry(root, &self.core.get(root)?)?;
        match value {
            Some(value) if key == record::KEY => CommitRecord::decode(version, &value).map(Some),
            _ => Ok(None),
        }
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
                let candidate = self.pointed_to(&too_new, middle)?;
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

    fn pointed_to(&self, from: &CommitRecord, which: usize) -> Result<CommitRecord> {
        let version = from.previous[which];
        self.record(version)?.ok_or_else(|| crate::Error::Corrupt {
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
