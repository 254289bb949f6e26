//! One bee as a database: snapshots of any version, transactions, the queue that commits them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::commit::{CommitInfo, Committer, Job};
use super::history::Commits;
use super::log::Log;
use super::news::{News, Subscription};
use super::queue::Queue;
use super::record::CommitRecord;
use super::snapshot::Snapshot;
use super::spill::Scratch;
use super::transaction::Transaction;
use crate::bee::{Bee, Cache, Direction};
use crate::crypto::key::CoreKey;
use crate::error::{Error, Result};
use crate::hypercore::Core;
use crate::hypercore::position::Version;

/// The most bytes user, application and message of a commit can have together.
const INFO_BYTES_MAX: usize = 1 << 20;

/// What a database is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory one transaction may use for its writes before they are put aside on disk.
    pub write_set_bytes_max: usize,
    /// So many entries at most are gathered for one append. A transaction with more is staged.
    pub group_entries_max: usize,
    /// So many bytes of entries at most are gathered for one append. A transaction with more is staged.
    pub group_bytes_max: usize,
    /// Entries in one bee batch of a staged transaction; it is held in memory.
    pub staged_entries: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            write_set_bytes_max: 64 << 20,
            group_entries_max: 1 << 16,
            group_bytes_max: 32 << 20,
            staged_entries: 1 << 15,
        }
    }
}

/// A bee with versions, transactions and one commit queue. Shared by all sessions.
///
/// There must be one `Database` for a core that is written here, for conflicts are found in its queue.
/// Over a core that someone else writes it only reads, and its head follows the core's.
pub struct Database {
    bee: Bee,
    log: Log,
    scratch: Arc<Scratch>,
    options: Options,
    queue: Queue<Job, Result<Version>>,
    committer: Committer,
    /// The newest snapshot anyone asked for, kept because asking is frequent.
    newest: RwLock<Snapshot>,
    news: Arc<News>,
}

impl Database {
    /// Opens the bee in a core. Reads no block.
    ///
    /// # Errors
    ///
    /// None today; opening may come to check what it opens.
    pub fn open(core: Arc<Core>, cache: Arc<Cache>, options: Options) -> Result<Arc<Database>> {
        let source_id = source_id(&core);
        let bee = Bee::new(core.clone(), cache.clone(), source_id);
        let log = Log::new(core.clone());
        let newest = Snapshot::new(bee.at(Version(core.len().0)), log.clone());
        Ok(Arc::new(Database {
            scratch: Scratch::new(core.backend().clone(), source_id.to_be_bytes()),
            committer: Committer::new(log.clone(), bee.clone(), cache, source_id, options.clone()),
            queue: Queue::new(|| Err(Error::invalid("the commit failed by a bug; see the log"))),
            newest: RwLock::new(newest),
            news: Arc::default(),
            bee,
            log,
            options,
        }))
    }

    /// The key that replicas follow.
    pub fn key(&self) -> CoreKey {
        self.core().key()
    }

    /// The log beneath.
    pub fn core(&self) -> &Arc<Core> {
        self.log.core()
    }

    /// The newest version: the core's signed length. 0 or 1 while nothing was committed.
    pub fn head(&self) -> Version {
        Version(self.core().len().0)
    }

    /// The newest version, to read.
    pub fn snapshot(&self) -> Snapshot {
        let head = self.head();
        {
            let newest = self.newest.read();
            if newest.version() == head {
                return newest.clone();
            }
        }
        let snapshot = Snapshot::new(self.bee.at(head), self.log.clone());
        *self.newest.write() = snapshot.clone();
        snapshot
    }

    /// A past version, to read. Versions 0 and 1 are the empty database. Reads one block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAVersion`] unless a commit ended there; [`nearest`](Database::nearest) finds one that
    /// did. In a bee without commit records only the newest version is known to be one.
    pub fn snapshot_at(&self, version: Version) -> Result<Snapshot> {
        let head = self.head();
        if version == head {
            return Ok(self.snapshot());
        }
        let is_version = version.0 <= 1 || version < head && self.log.record(version)?.is_some();
        if !is_version {
            return Err(self.not_a_version(version));
        }
        Ok(Snapshot::new(self.bee.at(version), self.log.clone()))
    }

    /// The newest version not above the one asked for, itself if it is one. O(log n) blocks.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn nearest(&self, version: Version) -> Result<Version> {
        let found = self.seek(|record| record.version <= version)?;
        Ok(found.map_or(version.min(self.oldest()), |record| record.version))
    }

    /// The newest version committed at or before a time, given in microseconds since 1970-01-01 UTC.
    /// O(log n) blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NotAVersion`], asking for version 0, when the time lies before the first commit, or the
    /// bee has no commit records.
    pub fn version_at_time(&self, micros: i64) -> Result<Version> {
        let found = self.seek(|record| record.time_micros <= micros)?;
        found
            .map(|record| record.version)
            .ok_or_else(|| self.not_a_version(Version(0)))
    }

    /// What the commit that made a version says about itself. Reads one block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAVersion`] unless a commit ended there. Versions 0 and 1, the empty database, were
    /// made by no commit.
    pub fn commit_record(&self, version: Version) -> Result<CommitRecord> {
        let inside = version <= self.head();
        let record = if inside {
            self.log.record(version)?
        } else {
            None
        };
        record.ok_or_else(|| self.not_a_version(version))
    }

    /// The first commit, `None` while there is none. O(log n) blocks.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn first_commit(&self) -> Result<Option<CommitRecord>> {
        self.seek(|record| record.number <= 1)
    }

    /// All commits up to and with `newest`, which must be a version, from either end. Holds a few
    /// hundred at most.
    pub fn commits(&self, newest: Version, direction: Direction) -> Commits {
        Commits::new(self.log.clone(), newest.min(self.head()), direction)
    }

    /// Begins a transaction on the newest version.
    pub fn begin(&self) -> Transaction {
        self.begin_at(self.snapshot())
    }

    /// Begins a transaction on a snapshot. On an old one every write of a key changed since conflicts.
    pub fn begin_at(&self, base: Snapshot) -> Transaction {
        Transaction::new(base, self.scratch.clone(), self.options.write_set_bytes_max)
    }

    /// Commits a transaction and says which version it made; one that wrote nothing makes none and gets
    /// the version it read. Returns when the commit is visible to new snapshots and, with
    /// [`Durability::Sync`](crate::storage::Durability::Sync), on disk.
    ///
    /// # Errors
    ///
    /// * [`Error::Conflict`]: something it wrote or relied on changed since it read it. Run it again.
    /// * [`Error::Storage`]: nothing of it is visible, and the database goes on from the version before.
    ///   The disk may have it nevertheless, as after a crash just before the answer.
    /// * [`Error::NotWritable`]: the log is written elsewhere.
    pub fn commit(&self, txn: Transaction, info: CommitInfo) -> Result<Version> {
        if !txn.is_of(&self.scratch) {
            return Err(Error::invalid("a transaction of another database"));
        }
        if info.text_bytes() > INFO_BYTES_MAX {
            return Err(Error::invalid(format!(
                "more than {INFO_BYTES_MAX} bytes to say about a commit"
            )));
        }
        if txn.is_read_only() {
            return Ok(txn.version());
        }
        self.queue.run(Job { txn, info }, |jobs| {
            self.committer
                .commit(jobs, |version| self.news.tell(version))
        })
    }

    /// Waits until the head has reached a version; whether it has, before the time was up.
    pub fn wait_for(&self, version: Version, timeout: Duration) -> bool {
        self.core().watch().wait_for(version.length(), timeout)
    }

    /// Calls back with every new head, in the thread that made it, until the subscription is dropped.
    /// Callbacks must be quick, and must not commit: the commit queue stands still meanwhile.
    pub fn subscribe(&self, callback: impl Fn(Version) + Send + Sync + 'static) -> Subscription {
        self.news.subscribe(callback)
    }

    /// Tells those who subscribed that the core has a new head. Whoever replicates into the core calls it;
    /// commits do so themselves.
    pub fn announce(&self) {
        self.news.tell(self.head());
    }

    fn seek(&self, is_old_enough: impl Fn(&CommitRecord) -> bool) -> Result<Option<CommitRecord>> {
        match self.log.record(self.head())? {
            Some(newest) => self.log.seek(newest, is_old_enough),
            None => Ok(None),
        }
    }

    fn oldest(&self) -> Version {
        self.head().min(Version(1))
    }

    fn not_a_version(&self, asked: Version) -> Error {
        Error::NotAVersion {
            asked,
            oldest: self.oldest(),
            newest: self.head(),
        }
    }
}

/// What the cache and the scratch space tell this core's things from others' by: eight bytes of its key,
/// so that whoever opens the core again finds what is cached of it.
fn source_id(core: &Core) -> u64 {
    let first = core.key().0.first_chunk().copied();
    u64::from_be_bytes(first.expect("a key has 32 bytes"))
}
