//! Committing: transactions to bee batches to one append.
//!
//! One leader at a time ([`super::queue`]) works here, on a group of transactions that wait together:
//!
//! ```text
//! for each:  check it against the head and the group's earlier ones      conflict: only it fails
//!            its puts in key order, its commit record last                a bee batch: a version
//! once:      core.append: blocks, Merkle nodes, signature, one fsync      a failure: the whole group fails
//!            the head moves, everyone is answered
//! ```
//!
//! What must stay true:
//!
//! * nothing is visible before it is as durable as asked, and then all of it is;
//! * the core's head is the only truth: after any failure the writer is thrown away and the next group
//!   starts from what the core says;
//! * memory is bounded: a group ends at so many entries or bytes ([`Options`]), and a transaction larger
//!   than that is staged. Its bee batches are written beyond the head, where nobody looks, and only the
//!   last one ends with the commit record; one signature over all of it makes it visible. Between those
//!   batches there are roots but no commit records, so there is no version there.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::conflict::{self, Group};
use super::database::{CurrentBee, Options};
use super::log::Log;
use super::record::{self, CommitRecord, Trail};
use super::transaction::Transaction;
use crate::bee::{self, Batch, Bee, Cache, KeyRange, Writer};
use crate::error::Result;
use crate::hypercore::BlockSource;
use crate::position::{BlockIndex, Fork, Version};
use crate::storage::Durability;

/// What a commit is told beside its writes.
#[derive(Clone, Debug)]
pub struct CommitInfo {
    /// Now, in microseconds since 1970-01-01 UTC. The commit gets this time, or the one just after the
    /// commit before it if that is later.
    pub time_micros: i64,
    /// Who commits; empty if there is nothing to say. So with the next two.
    pub user: String,
    /// By which program.
    pub application: String,
    /// Why.
    pub message: String,
    /// Rows changed, as the caller counts them.
    pub rows_changed: u64,
    /// Whether to answer before the disk has it.
    pub durability: Durability,
}

impl CommitInfo {
    /// A durable commit at that time with nothing else to say.
    pub fn at(time_micros: i64) -> CommitInfo {
        CommitInfo {
            time_micros,
            user: String::new(),
            application: String::new(),
            message: String::new(),
            rows_changed: 0,
            durability: Durability::Sync,
        }
    }
}

impl CommitInfo {
    pub(crate) fn text_bytes(&self) -> usize {
        self.user.len() + self.application.len() + self.message.len()
    }
}

/// A transaction to be committed.
pub(crate) struct Job {
    pub txn: Transaction,
    pub info: CommitInfo,
}

/// Turns transactions into blocks of one core.
pub(crate) struct Committer {
    log: Log,
    bee: Arc<CurrentBee>,
    cache: Arc<Cache>,
    options: Options,
    /// Only the leader locks it.
    ready: Mutex<Option<Ready>>,
}

/// What is carried from one group to the next.
struct Ready {
    fork: Fork,
    writer: Writer,
    trail: Trail,
}

/// Transactions applied to the writer and not yet appended.
struct Pending {
    fork: Fork,
    bee: Bee,
    writer: Writer,
    trail: Trail,
    head: bee::Snapshot,
    keys: Group,
    /// Which job, and the version it will be.
    applied: Vec<(usize, Version)>,
    entries: usize,
    bytes: usize,
    durability: Durability,
}

impl Committer {
    pub fn new(log: Log, bee: Arc<CurrentBee>, cache: Arc<Cache>, options: Options) -> Committer {
        Committer { log, bee, cache, options, ready: Mutex::new(None) }
    }

    /// Commits each job that can be, in order; `published` hears of each new head.
    pub fn commit(&self, jobs: &[Job], published: impl Fn(Version)) -> Vec<Result<Version>> {
        let mut answers: Vec<Option<Result<Version>>> = vec![None; jobs.len()];
        let mut pending: Option<Pending> = None;
        for (i, job) in jobs.iter().enumerate() {
            let is_large = job.txn.writes().is_spilled() || self.is_too_much(job, 0, 0);
            let is_full = |group: &Pending| self.is_too_much(job, group.entries, group.bytes);
            if is_large || pending.as_ref().is_some_and(is_full) {
                self.append(pending.take(), &mut answers, &published);
            }
            if is_large {
                let made = self.commit_staged(job);
                made.iter().for_each(|version| published(*version));
                answers[i] = Some(made);
                continue;
            }
            let mut group = match pending.take().map_or_else(|| self.prepare(), Ok) {
                Ok(group) => group,
                Err(error) => {
                    answers[i] = Some(Err(error));
                    continue;
                }
            };
            if let Err(error) = conflict::check(&job.txn, &group.bee, &group.head, &group.keys) {
                answers[i] = Some(Err(error));
                pending = Some(group);
                continue;
            }
            let has_followers = jobs[i + 1..].iter().any(|job| conflict::has_checks(&job.txn));
            if let Err(error) = group.apply(i, job, has_followers) {
                answers[i] = Some(Err(error));
            }
            pending = Some(group);
        }
        self.append(pending, &mut answers, &published);
        let answered = answers.into_iter().map(|a| a.expect("each job is answered or pending"));
        answered.collect()
    }

    /// Whether a transaction is too much for one append, with what is pending already.
    fn is_too_much(&self, job: &Job, entries: usize, bytes: usize) -> bool {
        let (writes, options) = (job.txn.writes(), &self.options);
        entries + writes.len() > options.group_entries_max || bytes + writes.bytes() > options.group_bytes_max
    }

    /// A writer at the core's head.
    fn prepare(&self) -> Result<Pending> {
        let length = self.log.core().len();
        let head = Version(length.0);
        let (fork, bee) = self.bee.get();
        let is_current = |ready: &Ready| ready.writer.length() == length && ready.fork == fork;
        let ready = self.ready.lock().take().filter(is_current);
        let Ready { writer, trail, .. } = match ready {
            Some(ready) => ready,
            None => {
                let source: Arc<dyn BlockSource> = self.log.core().clone();
                let source_id = self.log.core().source_id_at(fork);
                Ready {
                    fork,
                    writer: Writer::new(source, self.cache.clone(), source_id, length),
                    trail: self.trail_at(head)?,
                }
            }
        };
        Ok(Pending {
            fork,
            head: bee.at(head),
            bee,
            writer,
            trail,
            keys: Group::new(),
            applied: Vec::new(),
            entries: 0,
            bytes: 0,
            durability: Durability::NoSync,
        })
    }

    fn trail_at(&self, head: Version) -> Result<Trail> {
        let newest = self.log.record(head)?;
        Ok(newest.as_ref().map(Trail::after).unwrap_or_default())
    }

    /// Makes what was applied durable and visible, and answers for it.
    fn append(&self, pending: Option<Pending>, answers: &mut [Option<Result<Version>>], published: &impl Fn(Version)) {
        let Some(mut group) = pending else { return };
        let Some(&(_, newest)) = group.applied.last() else {
            *self.ready.lock() = Some(group.into_ready());
            return;
        };
        let blocks = group.writer.take_pending();
        match self.log.core().append(&blocks, group.durability) {
            Ok(_) => {
                for &(job, version) in &group.applied {
                    answers[job] = Some(Ok(version));
                }
                group.writer.appended();
                *self.ready.lock() = Some(group.into_ready());
                published(newest);
            }
            Err(error) => {
                // The writer knows blocks that do not exist: it is dropped with the group.
                for &(job, _) in &group.applied {
                    answers[job] = Some(Err(error.clone()));
                }
            }
        }
    }

    /// Commits one large transaction in bounded memory.
    fn commit_staged(&self, job: &Job) -> Result<Version> {
        let Pending { fork, bee, trail, head, .. } = self.prepare()?;
        conflict::check(&job.txn, &bee, &head, &Group::new())?;
        let stage = Arc::new(self.log.core().stage()?);
        // Nodes of staged blocks stay out of the cache until they are committed: the writer sees to that.
        let (cache, length) = (self.cache.clone(), self.log.core().len());
        let mut writer = Writer::new(stage.clone(), cache, self.log.core().source_id_at(fork), length);
        let first_block = first_block(&writer);
        let mut scan = job.txn.writes().scan(&KeyRange::all())?;
        let mut is_done = false;
        while !is_done {
            let mut batch = writer.batch();
            let (mut entries, mut bytes) = (0, 0);
            // One at least, so that every batch gets on.
            while entries == 0 || entries < self.options.staged_entries && bytes < self.options.group_bytes_max {
                match scan.next()? {
                    Some((key, write)) => {
                        entries += 1;
                        bytes += key.len() + write.value.as_ref().map_or(0, Bytes::len);
                        apply(&mut batch, &key, write.value.as_ref())?;
                    }
                    None => {
                        is_done = true;
                        break;
                    }
                }
            }
            if is_done {
                let time = trail.next_time(job.info.time_micros);
                apply(&mut batch, record::KEY, Some(&job.record(first_block, &trail, time)))?;
            }
            batch.flush();
            stage.push(&writer.take_pending())?;
        }
        stage.commit(job.info.durability)?;
        writer.appended();
        Ok(Version(writer.length().0))
    }
}

impl Pending {
    fn into_ready(self) -> Ready {
        Ready { fork: self.fork, writer: self.writer, trail: self.trail }
    }

    /// Makes a transaction's blocks, after those of the group's earlier ones. If more are to follow, its
    /// keys are kept for their conflict checks. After an error it is as if it had not been tried: a batch
    /// that is not flushed never was.
    fn apply(&mut self, index: usize, job: &Job, has_followers: bool) -> Result<()> {
        let first_block = first_block(&self.writer);
        let mut scan = job.txn.writes().scan(&KeyRange::all())?;
        let mut batch = self.writer.batch();
        let mut keys = Vec::new();
        while let Some((key, write)) = scan.next()? {
            apply(&mut batch, &key, write.value.as_ref())?;
            if has_followers {
                keys.push(key);
            }
        }
        let time = self.trail.next_time(job.info.time_micros);
        apply(&mut batch, record::KEY, Some(&job.record(first_block, &self.trail, time)))?;
        batch.flush();
        let version = Version(self.writer.length().0);
        self.trail.push(version, time);
        self.keys.extend(keys);
        self.applied.push((index, version));
        self.entries += job.txn.writes().len();
        self.bytes += job.txn.writes().bytes();
        if job.info.durability == Durability::Sync {
            self.durability = Durability::Sync;
        }
        Ok(())
    }
}

impl Job {
    /// Its commit record.
    fn record(&self, first_block: BlockIndex, trail: &Trail, time_micros: i64) -> Bytes {
        let record = CommitRecord {
            version: Version(0), // not part of the bytes: where they stand says it
            number: trail.number + 1,
            first_block,
            time_micros,
            user: self.info.user.clone(),
            application: self.info.application.clone(),
            message: self.info.message.clone(),
            changes: self.info.rows_changed,
            previous: trail.previous(),
        };
        record.encode()
    }
}

fn apply(batch: &mut Batch<'_>, key: &[u8], value: Option<&Bytes>) -> Result<()> {
    match value {
        Some(value) => batch.put(key, Some(value))?,
        None => batch.delete(key)?,
    };
    Ok(())
}

/// Where the next transaction's blocks begin. In an empty core the header comes before them.
fn first_block(writer: &Writer) -> BlockIndex {
    BlockIndex(writer.length().0.max(1))
}
