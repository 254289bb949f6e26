//! Commits one after the other, and what they wrote.
//!
//! Both walks hold little, however long the log, and keep their place after an error: call again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::log::Log;
use super::record::{self, CommitRecord};
use crate::bee::{Direction, KeyRange};
use crate::error::Result;
use crate::position::{BlockIndex, Version};

/// Commits in order, newest first or oldest first. Made by
/// [`Database::commits`](super::Database::commits).
pub struct Commits {
    log: Log,
    direction: Direction,
    /// The version to go on from: the next one backward; forward the newest of all.
    newest: Option<Version>,
    /// Backward only: earlier commits, as the one returned last named them.
    known: Vec<Version>,
    /// Forward only: the number of the commit to go on from.
    next_number: u64,
    /// Forward only: commits read and not returned, newest first.
    ahead: Vec<CommitRecord>,
}

impl Commits {
    /// Forward, so many commits are read backward at a time.
    const BATCH: u64 = 256;

    pub(crate) fn new(log: Log, newest: Version, direction: Direction) -> Commits {
        Commits { log, direction, newest: Some(newest), known: Vec::new(), next_number: 1, ahead: Vec::new() }
    }

    /// The next commit; `None` after the last one. Backward it reads one block a commit; forward, a few
    /// more every 256 commits.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`](crate::Error::MissingBlock) on a replica whose source does not wait, and those of storage.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at an error, this resumes")]
    pub fn next(&mut self) -> Result<Option<CommitRecord>> {
        match self.direction {
            Direction::Backward => {
                let Some(version) = self.newest else {
                    return Ok(None);
                };
                let record = self.log.record_before(version, &self.known)?;
                self.known = record.as_ref().map(|record| record.previous.clone()).unwrap_or_default();
                self.newest = self.known.first().copied();
                Ok(record)
            }
            Direction::Forward => {
                if self.ahead.is_empty() {
                    self.ahead = self.read_ahead()?;
                }
                Ok(self.ahead.pop())
            }
        }
    }

    fn read_ahead(&mut self) -> Result<Vec<CommitRecord>> {
        let newest = self.newest.map(|version| self.log.record(version)).transpose()?.flatten();
        let Some(newest) = newest else {
            return Ok(Vec::new());
        };
        let (first, last) = (self.next_number, self.next_number + Commits::BATCH - 1);
        if newest.number < first {
            return Ok(Vec::new());
        }
        let mut batch: Vec<CommitRecord> = Vec::new();
        let mut at = self.log.seek(newest, |record| record.number <= last)?;
        while let Some(record) = at.filter(|record| record.number >= first) {
            at = match record.previous.first() {
                Some(&before) => self.log.record_before(before, &record.previous)?,
                None => None,
            };
            batch.push(record);
        }
        self.next_number = last + 1;
        Ok(batch)
    }
}

/// One write of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// The version its commit made. In a bee without commit records, the version of the bee batch is not
    /// known: then it is the length with this block.
    pub version: Version,
    /// When its commit was made, in microseconds since 1970-01-01 UTC; `None` without commit records.
    pub time_micros: Option<i64>,
    /// The version before its commit: what the key held then tells an insert from an update. A commit
    /// writes a key once.
    pub base: Version,
    /// Where it is written.
    pub block: BlockIndex,
    /// The key written.
    pub key: Bytes,
    /// The new value; `None` when the key was deleted.
    pub value: Option<Bytes>,
}

/// What [`History::step`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryStep {
    /// The next write.
    Write(HistoryItem),
    /// Up to 256 blocks were read, and no write is at hand yet.
    Read,
    /// There are no more writes.
    End,
}

/// The writes to a range of keys, commit by commit, oldest first. Made by
/// [`Snapshot::history`](super::Snapshot::history).
pub struct History {
    log: Log,
    range: KeyRange,
    /// The next block to read, and the first not to read.
    next: u64,
    end: u64,
    /// The commit the next block belongs to, once it was looked up.
    commit: Option<Commit>,
    /// Writes inside the range whose commit's end was not seen yet, and the bytes of their keys and values.
    unattributed: VecDeque<HistoryItem>,
    held_back_bytes: usize,
    /// Writes whose commit is known.
    ready: VecDeque<HistoryItem>,
}

/// What of a commit its writes are told with.
#[derive(Clone, Copy)]
struct Commit {
    version: Version,
    time_micros: i64,
    base: Version,
}

impl History {
    /// Blocks read at a time; fewer when they are large.
    const BATCH: u64 = 256;
    /// So many writes of one commit, and so many bytes of them, are held back while its end is not seen yet;
    /// then it is looked up.
    const HELD_BACK: usize = 4096;
    const HELD_BACK_BYTES: usize = 1 << 20;

    pub(crate) fn new(log: Log, range: KeyRange, from: Version, to: Version) -> History {
        History {
            log,
            range,
            next: from.0.max(1), // block 0 is the header
            end: to.0,
            commit: None,
            unattributed: VecDeque::new(),
            held_back_bytes: 0,
            ready: VecDeque::new(),
        }
    }

    /// The next write; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`](crate::Error::MissingBlock) on a replica whose source does not wait, and those of storage.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at an error, this resumes")]
    pub fn next(&mut self) -> Result<Option<HistoryItem>> {
        loop {
            match self.step()? {
                HistoryStep::Write(item) => return Ok(Some(item)),
                HistoryStep::Read => {}
                HistoryStep::End => return Ok(None),
            }
        }
    }

    /// The next write if it is at hand, else one read towards it: for a caller who wants to be able to stop where many
    /// blocks are of other keys.
    ///
    /// # Errors
    ///
    /// As [`History::next`].
    pub fn step(&mut self) -> Result<HistoryStep> {
        if let Some(item) = self.ready.pop_front() {
            return Ok(HistoryStep::Write(item));
        }
        let is_much = self.held_back_bytes >= History::HELD_BACK_BYTES;
        if is_much || self.unattributed.len() >= History::HELD_BACK {
            self.look_up_commit()?;
        } else if self.next < self.end {
            self.read_on()?;
        } else {
            // Only a bee without commit records ends like this.
            self.give_up_attributing();
            if self.ready.is_empty() {
                return Ok(HistoryStep::End);
            }
        }
        Ok(HistoryStep::Read)
    }

    fn read_on(&mut self) -> Result<()> {
        let count = History::BATCH.min(self.end - self.next);
        for (key, value) in self.log.entries(self.next..self.end, count as usize)? {
            let block = BlockIndex(self.next);
            let version = Version(self.next + 1);
            let is_end = key == record::KEY;
            let record = match &value {
                Some(value) if is_end => Some(CommitRecord::decode(version, value)?),
                _ => None,
            };
            self.next += 1;
            if self.range.contains(&key) {
                let base = Version(block.0);
                let item = HistoryItem { version, time_micros: None, base, block, key, value };
                match self.commit {
                    Some(commit) => self.ready.push_back(commit.attribute(item)),
                    None => {
                        self.held_back_bytes += item.key.len() + item.value.as_ref().map_or(0, Bytes::len);
                        self.unattributed.push_back(item);
                    }
                }
            }
            if let Some(record) = record {
                self.attribute(Commit::of(&record));
                self.commit = None; // the next block begins another
            }
        }
        Ok(())
    }

    /// The end of a large commit is found through the commit records instead of by reading up to it.
    fn look_up_commit(&mut self) -> Result<()> {
        let Some(first) = self.unattributed.front().map(|item| item.block) else {
            return Ok(());
        };
        let newest = self.log.record(Version(self.end))?;
        // The oldest commit that contains the block is the one after the newest that does not.
        let mut later = newest.clone();
        if let Some(newest) = newest
            && newest.first_block > first
        {
            later = self.log.seek(newest, |record| record.first_block <= first)?;
        }
        match later {
            Some(record) => {
                let commit = Commit::of(&record);
                self.attribute(commit);
                self.commit = Some(commit);
            }
            None => self.give_up_attributing(),
        }
        Ok(())
    }

    /// What was held back belongs to no commit that is known.
    fn give_up_attributing(&mut self) {
        self.held_back_bytes = 0;
        self.ready.append(&mut self.unattributed);
    }

    /// What was held back belongs to this commit, but for what a writer without commit records left
    /// before it.
    fn attribute(&mut self, commit: Commit) {
        self.held_back_bytes = 0;
        let held_back = self.unattributed.drain(..);
        self.ready.extend(held_back.map(|item| match item.block.0 < commit.base.0 {
            true => item,
            false => commit.attribute(item),
        }));
    }
}

impl Commit {
    fn of(record: &CommitRecord) -> Commit {
        Commit { version: record.version, time_micros: record.time_micros, base: record.base() }
    }

    fn attribute(self, mut item: HistoryItem) -> HistoryItem {
        item.version = self.version;
        item.time_micros = Some(self.time_micros);
        item.base = self.base;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bee::Cache;
    use crate::corestore::{self, Store};
    use crate::storage::memory::Memory;
    use crate::txn::{CommitInfo, Database, Options};

    #[test]
    fn large_writes_are_not_all_held_until_their_commit_is_known() {
        let store = Store::open(std::sync::Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("db").unwrap();
        let db = Database::open(core, Cache::new(1 << 20), Options::default()).unwrap();
        let mut txn = db.begin();
        for i in 0..100u8 {
            txn.put(vec![i, i], vec![i; 100_000]).unwrap();
        }
        let version = db.commit(txn, CommitInfo::at(5)).unwrap();
        let mut history = db.snapshot().history(KeyRange::all(), Version(0), version).unwrap();
        let mut found = 0;
        while let Some(item) = history.next().unwrap() {
            assert_eq!((item.version, item.time_micros), (version, Some(5)));
            let waiting = history.ready.iter().chain(&history.unattributed);
            let bytes: usize = waiting.map(|item| item.value.as_ref().map_or(0, Bytes::len)).sum();
            assert!(bytes < 3 << 20, "{bytes} bytes held");
            found += 1;
        }
        assert_eq!(found, 101);
    }
}
