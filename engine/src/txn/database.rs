//! One bee as a database: snapshots of any version, transactions, the queue that commits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::commit::{CommitInfo, Committer, Job};
use super::conflict;
use super::history::Commits;
use super::log::Log;
use super::news::{News, Subscription};
use super::reads::Reads;
use super::record::CommitRecord;
use super::snapshot::Snapshot;
use super::spill::Scratch;
use super::transaction::Transaction;
use crate::bee::{Bee, Cache, Direction, Header};
use crate::crypto::key::CoreKey;
use crate::error::{Error, Result};
use crate::hypercore::lineage::Lineage;
use crate::hypercore::watch::Position;
use crate::hypercore::{BlockSource, Core};
use crate::position::{BlockIndex, Fork, Version};

/// The most bytes user, application and message of a commit can have together.
const INFO_BYTES_MAX: usize = 1 << 20;

/// What a database is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory one transaction may use for its writes before they are put aside on disk.
    pub write_set_bytes_max: usize,
    /// So many entries at most are gathered for one append. A transaction with more is staged.
    pub group_entries_max: usize,
    /// So many bytes of entries at most are gathered for one append. A transaction with more is staged, and
    /// each of its bee batches ends when it has so many.
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
/// Over a core that someone else writes it only reads, and its head follows the core's; of such readers there may be many, each with a source of its own
/// ([`Database::reader`]).
pub struct Database {
    bee: Arc<CurrentBee>,
    log: Log,
    is_reader: bool,
    scratch: Arc<Scratch>,
    options: Options,
    committer: Committer,
    /// The newest snapshot anyone asked for, kept because asking is frequent.
    newest: RwLock<(Position, Snapshot)>,
    news: Arc<News>,
}

impl Database {
    /// Opens the bee in a core. Reads its header, if that is here: a core is opened by its key, and may be
    /// anything.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the core holds something else than a bee; those of storage.
    pub fn open(core: Arc<Core>, cache: Arc<Cache>, options: Options) -> Result<Arc<Database>> {
        let first = BlockIndex(0);
        if core.has(first) {
            Header::decode(&core.get(first)?).map_err(|error| match error {
                Error::Corrupt { block, what, .. } => Error::Corrupt { core: Some(core.key()), block, what },
                other => other,
            })?;
        }
        let source = core.clone();
        Ok(Database::over(core, source, cache, options, false))
    }

    /// Reads a bee that someone else writes through a source of the caller's, which may wait for peers. The head follows the core's. Reads nothing yet, so it
    /// waits for nothing; what the core holds shows at the first read.
    ///
    /// Several readers of one core share what is cached of it, whatever sources they have.
    pub fn reader(core: Arc<Core>, source: Arc<dyn BlockSource>, cache: Arc<Cache>) -> Arc<Database> {
        Database::over(core, source, cache, Options::default(), true)
    }

    fn over(
        core: Arc<Core>,
        source: Arc<dyn BlockSource>,
        cache: Arc<Cache>,
        options: Options,
        is_reader: bool,
    ) -> Arc<Database> {
        static READERS: AtomicU64 = AtomicU64::new(0);
        // Readers of one core each have scratch space of their own; a writer's is named after its core alone.
        let reader = if is_reader { READERS.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        let owner = core.source_id_at(Fork(0)).wrapping_add(reader.wrapping_mul(0xd134_2543_de82_ef95));
        let scratch = Scratch::new(core.backend().clone(), owner.to_be_bytes());
        let position = core.watch().position();
        let bee = Arc::new(CurrentBee::new(core.clone(), source.clone(), cache.clone(), position.fork));
        let log = Log::new(core, source);
        let newest = bee.at(position.fork).snapshot(Version(position.length.0));
        Arc::new(Database {
            scratch,
            is_reader,
            committer: Committer::new(log.clone(), bee.clone(), cache, options.clone()),
            newest: RwLock::new((position, newest)),
            news: Arc::default(),
            bee,
            log,
            options,
        })
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
        Version(self.core().watch().position().length.0)
    }

    /// The newest version, to read.
    pub fn snapshot(&self) -> Snapshot {
        self.newest_at(self.core().watch().position())
    }

    fn newest_at(&self, position: Position) -> Snapshot {
        {
            let newest = self.newest.read();
            if newest.0 == position {
                return newest.1.clone();
            }
        }
        let snapshot = self.bee.at(position.fork).snapshot(Version(position.length.0));
        *self.newest.write() = (position, snapshot.clone());
        snapshot
    }

    /// A past version, to read. Versions 0 and 1 are the empty database. Reads one block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAVersion`] unless a commit ended there. In a bee without commit records only the newest
    /// version is known to be one.
    pub fn snapshot_at(&self, version: Version) -> Result<Snapshot> {
        // Of one moment: a version of this history says nothing about the next one's.
        let position = self.core().watch().position();
        let head = Version(position.length.0);
        if version == head {
            return Ok(self.newest_at(position));
        }
        let current = self.bee.at(position.fork);
        let is_version = version.0 <= 1 || version < head && current.log.record(version)?.is_some();
        if !is_version {
            return Err(self.not_a_version(version));
        }
        Ok(current.snapshot(version))
    }

    /// A length that was once the signed head, to read: a version also in a bee without commit records. That it
    /// was one is the caller's to know; inside a batch there is no version.
    pub fn snapshot_of_head(&self, version: Version) -> Snapshot {
        let position = self.core().watch().position();
        self.bee.at(position.fork).snapshot(version.min(Version(position.length.0)))
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
        found.map(|record| record.version).ok_or_else(|| self.not_a_version(Version(0)))
    }

    /// What the commit that made a version says about itself. Reads one block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAVersion`] unless a commit ended there. Versions 0 and 1, the empty database, were
    /// made by no commit.
    pub fn commit_record(&self, version: Version) -> Result<CommitRecord> {
        let position = self.core().watch().position();
        let inside = version.length() <= position.length;
        let record = if inside { self.bee.at(position.fork).log.record(version)? } else { None };
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
        let position = self.core().watch().position();
        Commits::new(self.bee.at(position.fork).log, newest.min(Version(position.length.0)), direction)
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
    /// * [`Error::Conflict`], [`Error::ReadConflict`]: something it wrote or relied on changed since it read it. Run it again.
    /// * [`Error::Storage`]: nothing of it is visible, and the database goes on from the version before.
    ///   The disk may have it nevertheless, as after a crash just before the answer.
    /// * [`Error::NotWritable`]: the log is written elsewhere, or this is a reader.
    pub fn commit(&self, txn: Transaction, info: CommitInfo) -> Result<Version> {
        if !txn.is_of(&self.scratch) {
            return Err(Error::invalid("a transaction of another database"));
        }
        if info.text_bytes() > INFO_BYTES_MAX {
            return Err(Error::invalid(format!("more than {INFO_BYTES_MAX} bytes to say about a commit")));
        }
        if txn.is_read_only() {
            return Ok(txn.version());
        }
        if self.is_reader {
            return Err(Error::NotWritable);
        }
        if let Some(reads) = txn.reads().filter(|_| txn.is_recording()) {
            // Outside the queue, where it holds up nobody; there only what is committed from now on is left to look at.
            self.validate(reads)?;
        }
        self.committer.commit(Job { txn, info }, |version| self.news.tell(version))
    }

    /// Whether all that was read is in the newest version as it was seen. It is only compared with what was committed since the last time.
    ///
    /// # Errors
    ///
    /// [`Error::ReadConflict`] if not: a transaction that [records](Transaction::record) these reads cannot commit any more. Those of reading.
    pub fn validate(&self, reads: &Reads) -> Result<()> {
        let position = self.core().watch().position();
        let bee = self.bee.at(position.fork).bee;
        let (head, none) = (bee.at(Version(position.length.0)), conflict::Group::new());
        match conflict::check_reads(reads, &bee, &head, &conflict::OnTheirWay { groups: [&none, &none] }) {
            Err(Error::Conflict { base }) => Err(Error::ReadConflict { base }),
            checked => checked,
        }
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

    #[cfg(test)]
    pub(super) fn committer(&self) -> &Committer {
        &self.committer
    }

    fn seek(&self, is_old_enough: impl Fn(&CommitRecord) -> bool) -> Result<Option<CommitRecord>> {
        let position = self.core().watch().position();
        let log = self.bee.at(position.fork).log;
        match log.record(Version(position.length.0))? {
            Some(newest) => log.seek(newest, is_old_enough),
            None => Ok(None),
        }
    }

    fn oldest(&self) -> Version {
        self.head().min(Version(1))
    }

    fn not_a_version(&self, asked: Version) -> Error {
        Error::NotAVersion { asked, oldest: self.oldest(), newest: self.head() }
    }
}

/// The bee in a core at the fork the core is at: a fork puts other blocks in the place of some, and what is cached of those must not be met.
pub(crate) struct CurrentBee {
    core: Arc<Core>,
    source: Arc<dyn BlockSource>,
    cache: Arc<Cache>,
    newest: RwLock<AtFork>,
}

/// A bee and its log on one fork. Who reads either when the core has gone on to another fork is told, instead of being shown blocks of another history.
#[derive(Clone)]
struct AtFork {
    fork: Fork,
    bee: Bee,
    log: Log,
}

impl AtFork {
    fn new(core: &Arc<Core>, source: &Arc<dyn BlockSource>, cache: &Arc<Cache>, fork: Fork) -> AtFork {
        let lineage = Arc::new(Lineage::over(core.clone(), source.clone(), fork));
        let log = Log::new(core.clone(), lineage.clone());
        AtFork { fork, bee: Bee::new(lineage, cache.clone(), core.source_id_at(fork)), log }
    }

    fn snapshot(&self, version: Version) -> Snapshot {
        Snapshot::new(self.bee.at(version), self.log.clone())
    }
}

impl CurrentBee {
    fn new(core: Arc<Core>, source: Arc<dyn BlockSource>, cache: Arc<Cache>, fork: Fork) -> CurrentBee {
        let newest = RwLock::new(AtFork::new(&core, &source, &cache, fork));
        CurrentBee { core, source, cache, newest }
    }

    /// Where the core stands, and the bee on that fork.
    pub fn get(&self) -> (Position, Bee) {
        let position = self.core.watch().position();
        (position, self.at(position.fork).bee)
    }

    fn at(&self, fork: Fork) -> AtFork {
        {
            let newest = self.newest.read();
            if newest.fork == fork {
                return newest.clone();
            }
        }
        let current = AtFork::new(&self.core, &self.source, &self.cache, fork);
        *self.newest.write() = current.clone();
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bee::KeyRange;
    use crate::corestore::{self, Store};
    use crate::storage::Durability;
    use crate::storage::memory::Memory;

    fn database(options: Options) -> Arc<Database> {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("db").unwrap();
        Database::open(core, Cache::new(1 << 20), options).unwrap()
    }

    fn job(db: &Database, work: impl FnOnce(&mut Transaction)) -> Job {
        let mut txn = db.begin();
        work(&mut txn);
        let mut info = CommitInfo::at(7);
        info.durability = Durability::NoSync;
        Job { txn, info }
    }

    fn put(key: &'static str) -> impl FnOnce(&mut Transaction) {
        move |txn| txn.put(key, "value").unwrap()
    }

    /// Who waits together is committed in the order they came, each checked against those before.
    #[test]
    fn within_a_group_the_first_wins() {
        let db = database(Options::default());
        let setup = job(&db, put("a"));
        db.commit(setup.txn, setup.info).unwrap();
        let jobs = [
            job(&db, put("b")),
            job(&db, put("b")),
            job(&db, put("c")),
            job(&db, |txn| {
                txn.depend_key("c");
                txn.put("d", "").unwrap();
            }),
            job(&db, |txn| {
                txn.depend_range(KeyRange::prefix(b"c"));
                txn.put("e", "").unwrap();
            }),
            job(&db, |txn| {
                // What the refused ones would have written is not there.
                txn.depend_range(KeyRange::prefix(b"d"));
                txn.depend_key("e");
                txn.put("f", "").unwrap();
            }),
            job(&db, |txn| txn.delete("a").unwrap()),
            job(&db, put("a")),
        ];
        let told = parking_lot::Mutex::new(vec![]);
        let answers = db.committer.commit_together(&jobs, |version| told.lock().push(version));
        let conflict = Err(Error::Conflict { base: Version(3) });
        let want = [
            Ok(Version(5)),
            conflict.clone(),
            Ok(Version(7)),
            conflict.clone(),
            conflict.clone(),
            Ok(Version(9)),
            Ok(Version(11)),
            conflict,
        ];
        assert_eq!(answers, want);
        assert_eq!(told.into_inner(), [Version(11)], "one append for all");
        for (version, key) in [(5, "b"), (7, "c"), (9, "f")] {
            let (before, at) = (Version(version - 2), Version(version));
            let get = |version| db.snapshot_at(version).unwrap().get(key.as_bytes()).unwrap();
            assert_eq!((get(before).is_some(), get(at).is_some()), (false, true), "{key}");
        }
        let times: Vec<_> = [5, 7, 9, 11].map(|v| db.commit_record(Version(v)).unwrap().time_micros).to_vec();
        assert_eq!(times, [8, 9, 10, 11], "the clock stood still at 7");
    }

    /// What is too large for one append is staged, in the same order.
    #[test]
    fn a_large_transaction_is_cut() {
        let options = Options { group_entries_max: 5, staged_entries: 3, ..Options::default() };
        let db = database(options);
        let many = |txn: &mut Transaction| {
            (0..20).for_each(|i| txn.put(format!("many {i:02}"), "").unwrap());
        };
        let three = |txn: &mut Transaction| {
            for key in ["x", "y", "z"] {
                txn.put(key, "").unwrap();
            }
        };
        let jobs = [
            job(&db, put("a")),
            job(&db, many),
            job(&db, three),
            job(&db, put("many 03")),
            job(&db, |txn| ["b", "c", "d"].into_iter().for_each(|key| txn.put(key, "").unwrap())),
        ];
        let told = parking_lot::Mutex::new(vec![]);
        let tell = |version| told.lock().push(version);
        let answers: Vec<_> = jobs.into_iter().map(|job| db.committer.commit(job, tell)).collect();
        let conflict = Err(Error::Conflict { base: Version(0) });
        let want = [Ok(Version(3)), Ok(Version(24)), Ok(Version(28)), conflict, Ok(Version(32))];
        assert_eq!(answers, want);
        assert_eq!(told.into_inner(), [3, 24, 28, 32].map(Version));
        assert_eq!(db.snapshot_at(Version(24)).unwrap().bee().audit().unwrap().keys, 22);
        db.snapshot().bee().audit().unwrap();
    }

    #[test]
    fn a_bee_of_other_writers_is_read_at_its_head_and_written_on() {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("db").unwrap();
        let cache = Cache::new(1 << 20);
        let mut writer = crate::bee::Writer::new(core.clone(), cache.clone(), 99, core.len());
        for key in ["a", "b"] {
            let mut batch = writer.batch();
            batch.put(key.as_bytes(), Some(b"theirs")).unwrap();
            batch.put(b"null", None).unwrap();
            batch.flush();
        }
        core.append(&writer.take_pending(), Durability::Sync).unwrap();
        let db = Database::open(core, cache, Options::default()).unwrap();
        assert_eq!(db.head(), Version(5));
        let snapshot = db.snapshot_at(Version(5)).unwrap();
        assert_eq!(snapshot.get(b"b").unwrap().as_deref(), Some(&b"theirs"[..]));
        assert_eq!(snapshot.get(b"null").unwrap().as_deref(), Some(&b""[..]));
        let refused = Error::NotAVersion { asked: Version(3), oldest: Version(1), newest: Version(5) };
        assert_eq!(db.snapshot_at(Version(3)).err(), Some(refused));
        assert!(db.version_at_time(i64::MAX).is_err() && db.commit_record(Version(5)).is_err());
        assert_eq!(db.commits(db.head(), Direction::Forward).next(), Ok(None));
        assert_eq!(db.commits(db.head(), Direction::Backward).next(), Ok(None));
        assert_eq!(db.first_commit(), Ok(None));

        let ours = job(&db, put("a"));
        assert_eq!(db.commit(ours.txn, ours.info), Ok(Version(7)));
        let record = db.commit_record(Version(7)).unwrap();
        assert_eq!((record.number, record.base(), record.previous.len()), (1, Version(5), 0));
        let mut history = db.snapshot().history(KeyRange::all(), Version(1), Version(7)).unwrap();
        let mut found = vec![];
        while let Some(item) = history.next().unwrap() {
            found.push((item.block.0, item.version.0, item.base.0, item.time_micros));
        }
        let theirs = (1..5).map(|block| (block, block + 1, block, None));
        let ours = [5, 6].map(|block| (block, 7, 5, Some(7)));
        assert_eq!(found, theirs.chain(ours).collect::<Vec<_>>());
    }

    /// After a fork a snapshot of before is never answered with rows of the new history, nor a new one with old rows.
    #[test]
    fn a_fork_is_another_history() {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        // Nothing is cached, so that everything is read.
        let db = Database::open(store.get_by_name("db").unwrap(), Cache::new(0), Options::default()).unwrap();
        let put = |value: &'static str| {
            for i in 0..30 {
                let job = job(&db, |txn| txn.put(format!("key {i:02}"), value).unwrap());
                db.commit(job.txn, job.info).unwrap();
            }
        };
        put("old");
        let old = db.snapshot();
        assert_eq!(old.get(b"key 03").unwrap().as_deref(), Some(&b"old"[..]));
        db.core().truncate(crate::Length(5), Durability::Sync).unwrap();
        assert_eq!(db.head(), Version(5));
        assert_eq!(db.snapshot().get(b"key 03").unwrap(), None);
        put("new");
        let new = db.snapshot();
        let mut refused = 0;
        for i in 0..30 {
            let key = format!("key {i:02}");
            assert_eq!(new.get(key.as_bytes()).unwrap().as_deref(), Some(&b"new"[..]), "{key}");
            match old.get(key.as_bytes()) {
                Ok(value) => assert_eq!(value.as_deref(), Some(&b"old"[..]), "{key}"),
                Err(Error::Rewritten(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0, "nothing was read of the core");
        // The same holds for what was committed.
        let mut history = old.history(KeyRange::all(), Version(1), old.version()).unwrap();
        let mut told = None;
        while told.is_none() {
            match history.next() {
                Ok(Some(item)) => assert_ne!(item.value.as_deref(), Some(&b"new"[..])),
                Ok(None) => break,
                Err(error) => told = Some(error),
            }
        }
        assert!(matches!(told, Some(Error::Rewritten(_))), "{told:?}");
    }

    #[test]
    fn what_is_no_bee_is_not_opened() {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("log").unwrap();
        assert!(Database::open(core.clone(), Cache::new(1 << 20), Options::default()).is_ok(), "it may become one");
        core.append(&["a line of a log".into()], Durability::Sync).unwrap();
        let refused = Database::open(core.clone(), Cache::new(1 << 20), Options::default()).err();
        assert!(matches!(refused, Some(Error::Corrupt { core: Some(key), .. }) if key == core.key()), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_committed_is_refused() {
        let (db, other) = (database(Options::default()), database(Options::default()));
        let foreign = job(&other, put("a"));
        assert!(matches!(db.commit(foreign.txn, foreign.info), Err(Error::Invalid(_))));
        let mut talkative = job(&db, put("a"));
        talkative.info.message = "x".repeat(INFO_BYTES_MAX + 1);
        assert!(matches!(db.commit(talkative.txn, talkative.info), Err(Error::Invalid(_))));
        let mut txn = db.begin();
        let huge = vec![0; crate::txn::ENTRY_BYTES_MAX];
        assert!(matches!(txn.put("k", huge.clone()), Err(Error::Invalid(_))));
        assert!(matches!(txn.delete([&huge[..], b"k"].concat()), Err(Error::Invalid(_))));
        let reserved = crate::txn::COMMIT_RECORD_KEY;
        assert!(matches!(txn.put(reserved, "no commit"), Err(Error::Invalid(_))));
        assert!(matches!(txn.delete(reserved), Err(Error::Invalid(_))));
        assert!(txn.is_read_only());
        txn.put("k", huge[1..].to_vec()).unwrap();
        assert_eq!(db.commit(txn, CommitInfo::at(0)), Ok(Version(3)));

        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_key(other.key()).unwrap();
        let replica = Database::open(core, Cache::new(1 << 20), Options::default()).unwrap();
        let write = job(&replica, put("a"));
        assert_eq!(replica.commit(write.txn, write.info), Err(Error::NotWritable));
    }
}
