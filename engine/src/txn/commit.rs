//! Committing: transactions to bee batches to one append.
//!
//! Each committing thread makes its own transaction's blocks, one at a time, on top of what those before it made, and joins the
//! group that is open. The group before it is on its way to the disk meanwhile; when it is there, the open one follows as a whole:
//!
//! ```text
//! each:  check it against the head and all on their way      conflict: only it fails, at once
//!        its puts in key order, its commit record last        a bee batch: a version
//!        join the open group
//! one:   core.append: blocks, Merkle nodes, signature, one fsync     a failure: the group fails, and all built on it
//!        the head moves, the next group's leader is called, everyone is answered
//!
//! group 1   [made]|------- disk -------|
//! group 2          [made] [made] [made]|------- disk -------|      the processor works while the disk does
//! group 3                               [made] [made]        |---
//! ```
//!
//! What must stay true:
//!
//! * nothing is visible before it is as durable as asked, and then all of it is;
//! * groups reach the log in the order they were made in, one after the other, each on what the core then holds;
//! * the core's head is the only truth: after any failure the writer is thrown away, what was made on top of the failed blocks fails
//!   as well, and the next group starts from what the core says;
//! * memory is bounded: a group ends at so many entries or bytes ([`Options`]), two groups exist at most, and a
//!   transaction larger than a group is staged, alone. Its bee batches are written beyond the head, where nobody looks, and only the
//!   last one ends with the commit record; one signature over all of it makes it visible. Between those
//!   batches there are roots but no commit records, so there is no version there.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::conflict::{self, Group, OnTheirWay};
use super::database::{CurrentBee, Options};
use super::log::Log;
use super::queue::Ticket;
use super::record::{self, CommitRecord, Trail};
use super::transaction::Transaction;
use crate::bee::{Batch, Bee, Cache, CacheUpdate, KeyRange, Writer};
use crate::error::{Error, Result};
use crate::hypercore::BlockSource;
use crate::hypercore::watch::Position;
use crate::position::{BlockIndex, Length, Version};
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
    line: Mutex<Line>,
    /// A group was closed or written, or a large transaction is through: whoever could not join may look again.
    moved: Condvar,
}

/// What is on its way to the log.
#[derive(Default)]
struct Line {
    /// What the next transaction is applied to; `None`: to be made from the core's head.
    ready: Option<Ready>,
    /// The group that takes members.
    open: OpenGroup,
    /// What is being written: its keys, and the log's length with it.
    writing: Option<(Group, Length)>,
    /// A large transaction waits for those before it or is being written: nobody joins.
    is_closed: bool,
}

/// What is carried from one transaction to the next.
struct Ready {
    position: Position,
    writer: Writer,
    trail: Trail,
}

/// Transactions applied to the writer and not yet handed to the core.
struct OpenGroup {
    /// The first one leads.
    members: Vec<Member>,
    keys: Group,
    entries: usize,
    bytes: usize,
    durability: Durability,
}

impl Default for OpenGroup {
    fn default() -> OpenGroup {
        let (members, keys) = (Vec::new(), Group::new());
        OpenGroup { members, keys, entries: 0, bytes: 0, durability: Durability::NoSync }
    }
}

struct Member {
    ticket: Arc<Ticket<Result<Version>>>,
    /// The version it will be.
    version: Version,
}

/// What a transaction that joined does next.
enum Joined {
    /// Waits.
    Member(Arc<Ticket<Result<Version>>>),
    /// Leads, for nothing is being written.
    Leader(Arc<Ticket<Result<Version>>>),
}

impl Committer {
    pub fn new(log: Log, bee: Arc<CurrentBee>, cache: Arc<Cache>, options: Options) -> Committer {
        Committer { log, bee, cache, options, line: Mutex::default(), moved: Condvar::new() }
    }

    /// Commits a transaction; `published` hears of a new head, if this thread made it.
    pub fn commit(&self, job: Job, published: impl Fn(Version)) -> Result<Version> {
        if job.txn.writes().is_spilled() || self.is_too_much(&job, &OpenGroup::default()) {
            return self.commit_alone(&job, published);
        }
        let joined = self.join(&job)?;
        // What it wrote is in blocks now. A large one takes a while to be let go: while the disk works.
        drop(job);
        let ticket = match joined {
            Joined::Leader(ticket) => ticket,
            Joined::Member(ticket) => match ticket.wait() {
                Some(answer) => return answer,
                None => ticket,
            },
        };
        self.write_group(&ticket, published);
        match ticket.wait() {
            Some(answer) => answer,
            None => unreachable!("a leader answers itself"),
        }
    }

    /// Whether a transaction is too much for a group.
    fn is_too_much(&self, job: &Job, group: &OpenGroup) -> bool {
        let (writes, options) = (job.txn.writes(), &self.options);
        group.entries + writes.len() > options.group_entries_max
            || group.bytes + writes.bytes() > options.group_bytes_max
    }

    /// Makes a transaction's blocks, behind all that are on their way, and has it join the open group. Fails for itself only.
    fn join(&self, job: &Job) -> Result<Joined> {
        let mut line = self.line.lock();
        while line.is_closed || line.is_lost() || !line.open.members.is_empty() && self.is_too_much(job, &line.open) {
            self.moved.wait(&mut line);
        }
        let mut applying = Applying { committer: self, line: &mut line, is_done: false };
        let joined = self.apply(applying.line, job);
        applying.is_done = true;
        joined
    }

    fn apply(&self, line: &mut Line, job: &Job) -> Result<Joined> {
        let (position, bee) = self.bee.get();
        if line.writing.as_ref().is_some_and(|(_, length)| position.length >= *length) {
            // The head has it: whoever read since then has seen it.
            line.writing = line.writing.take().map(|(_, length)| (Group::new(), length));
        }
        let is_idle = line.writing.is_none() && line.open.members.is_empty();
        if is_idle && line.ready.as_ref().is_some_and(|ready| !ready.is_at(position)) {
            line.ready = None;
        }
        if line.ready.is_none() {
            line.ready = Some(self.ready_at(position, &bee)?);
        }
        let Line { ready: Some(ready), open, writing, .. } = line else { unreachable!("made above") };
        let none = Group::new();
        let others = OnTheirWay { groups: [writing.as_ref().map_or(&none, |(keys, _)| keys), &open.keys] };
        conflict::check(&job.txn, &bee, &bee.at(Version(position.length.0)), &others)?;
        let version = ready.apply(job, &mut open.keys)?;
        open.entries += job.txn.writes().len();
        open.bytes += job.txn.writes().bytes();
        if job.info.durability == Durability::Sync {
            open.durability = Durability::Sync;
        }
        let ticket = Arc::new(Ticket::new());
        open.members.push(Member { ticket: ticket.clone(), version });
        let leads = writing.is_none() && open.members.len() == 1;
        Ok(if leads { Joined::Leader(ticket) } else { Joined::Member(ticket) })
    }

    /// A writer at the core's head.
    fn ready_at(&self, position: Position, bee: &Bee) -> Result<Ready> {
        debug_assert_eq!(bee.at(Version(position.length.0)).version(), Version(position.length.0));
        let source: Arc<dyn BlockSource> = self.log.core().clone();
        let source_id = self.log.core().source_id_at(position.fork);
        let writer = Writer::new(source, self.cache.clone(), source_id, position.length);
        Ok(Ready { position, writer, trail: self.trail_at(Version(position.length.0))? })
    }

    /// Commits those that can be as one group, as if they had come while another was written.
    #[cfg(test)]
    pub fn commit_together(&self, jobs: &[Job], published: impl Fn(Version)) -> Vec<Result<Version>> {
        {
            let mut line = self.line.lock();
            let (position, bee) = self.bee.get();
            line.ready = Some(self.ready_at(position, &bee).expect("the head can be read"));
            line.writing = Some((Group::new(), Length(0)));
        }
        let joined: Vec<Result<Joined>> = jobs.iter().map(|job| self.join(job)).collect();
        let leader = {
            let mut line = self.line.lock();
            line.writing = None;
            line.open.members.first().map(|first| first.ticket.clone())
        };
        if let Some(leader) = leader {
            self.write_group(&leader, published);
        }
        let answer = |joined: Result<Joined>| match joined? {
            Joined::Member(ticket) => ticket.wait().expect("everyone was answered"),
            Joined::Leader(_) => unreachable!("something was being written"),
        };
        joined.into_iter().map(answer).collect()
    }

    fn trail_at(&self, head: Version) -> Result<Trail> {
        let newest = self.log.record(head)?;
        Ok(newest.as_ref().map(Trail::after).unwrap_or_default())
    }

    /// Closes the open group and makes it durable and visible. Its leader calls this, when nothing else is being written.
    fn write_group(&self, leader: &Arc<Ticket<Result<Version>>>, published: impl Fn(Version)) {
        let mut line = self.line.lock();
        if !line.open.members.first().is_some_and(|first| Arc::ptr_eq(&first.ticket, leader)) {
            return; // it was given up, and everyone in it told so
        }
        debug_assert!(line.writing.is_none(), "groups are written one after the other");
        let OpenGroup { members, keys, durability, .. } = mem::take(&mut line.open);
        let ready = line.ready.as_mut().expect("whoever joined has applied to it");
        let (at, length) = (ready.position, ready.writer.length());
        let (blocks, update) = ready.writer.hand_over();
        ready.position.length = length;
        line.writing = Some((keys, length));
        drop(line);
        self.moved.notify_all();
        // Dropped also by a panic.
        let mut lead = Lead { committer: self, members, written: Err(abandoned()) };
        lead.written = self.log.core().append_at(at, &blocks, durability).map(|_| update);
        if lead.written.is_ok() {
            published(Version(length.0));
        }
    }

    /// Commits a transaction too large for a group, in bounded memory, when all before it are through.
    fn commit_alone(&self, job: &Job, published: impl Fn(Version)) -> Result<Version> {
        {
            let mut line = self.line.lock();
            self.moved.wait_while(&mut line, |line| line.is_closed);
            line.is_closed = true;
        }
        let _alone = Alone { committer: self };
        {
            let mut line = self.line.lock();
            self.moved.wait_while(&mut line, |line| line.writing.is_some() || !line.open.members.is_empty());
            line.ready = None;
        }
        let version = self.commit_staged(job)?;
        published(version);
        Ok(version)
    }

    /// Commits one large transaction in bounded memory.
    fn commit_staged(&self, job: &Job) -> Result<Version> {
        let (position, bee) = self.bee.get();
        let (head, none) = (Version(position.length.0), Group::new());
        conflict::check(&job.txn, &bee, &bee.at(head), &OnTheirWay { groups: [&none, &none] })?;
        let trail = self.trail_at(head)?;
        let stage = Arc::new(self.log.core().stage()?);
        // Nodes of staged blocks stay out of the cache until they are committed: the writer sees to that.
        let source_id = self.log.core().source_id_at(position.fork);
        let mut writer = Writer::new(stage.clone(), self.cache.clone(), source_id, position.length);
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

impl Ready {
    fn is_at(&self, position: Position) -> bool {
        self.position == position
    }

    /// Makes a transaction's blocks, after those of the ones before, and adds its keys to those of its group. After an error it is as if it had not
    /// been tried: a batch that is not flushed never was.
    fn apply(&mut self, job: &Job, keys: &mut Group) -> Result<Version> {
        let first_block = first_block(&self.writer);
        let mut scan = job.txn.writes().scan(&KeyRange::all())?;
        let mut batch = self.writer.batch();
        let mut written = Vec::new();
        while let Some((key, write)) = scan.next()? {
            apply(&mut batch, &key, write.value.as_ref())?;
            written.push(key);
        }
        let time = self.trail.next_time(job.info.time_micros);
        apply(&mut batch, record::KEY, Some(&job.record(first_block, &self.trail, time)))?;
        batch.flush();
        let version = Version(self.writer.length().0);
        self.trail.push(version, time);
        keys.extend(written);
        Ok(version)
    }
}

/// A transaction is being applied. If that panics, what the writer holds is not to be trusted.
struct Applying<'a, 'l> {
    committer: &'a Committer,
    line: &'a mut MutexGuard<'l, Line>,
    is_done: bool,
}

impl Drop for Applying<'_, '_> {
    fn drop(&mut self) {
        if !self.is_done {
            for member in self.line.give_up() {
                member.ticket.answer(Err(abandoned()));
            }
            self.committer.moved.notify_all();
        }
    }
}

impl Line {
    /// A group is being written and what was made on top of it is gone: a writer can only be made when it is known whether the group is there.
    fn is_lost(&self) -> bool {
        self.ready.is_none() && self.writing.is_some()
    }
    /// What was made on top of the head is not to be: forgets it. Its members, who are to be told.
    fn give_up(&mut self) -> Vec<Member> {
        self.ready = None;
        mem::take(&mut self.open).members
    }
}

/// A group is being written; when this is dropped, by a panic too, the next one is called and everyone answered.
struct Lead<'a> {
    committer: &'a Committer,
    members: Vec<Member>,
    written: Result<CacheUpdate>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let written = mem::replace(&mut self.written, Err(abandoned()));
        let mut line = self.committer.line.lock();
        let length = line.writing.take().map_or(Length(0), |(_, length)| length);
        let (written, failed) = match written {
            Ok(update) => {
                if let Some(ready) = &mut line.ready {
                    ready.writer.confirm(length);
                }
                if let Some(leader) = line.open.members.first() {
                    leader.ticket.lead();
                }
                (Ok(update), Vec::new())
            }
            Err(error) => {
                tracing::error!(%error, transactions = self.members.len(), "an append failed");
                (Err(error), line.give_up())
            }
        };
        drop(line);
        self.committer.moved.notify_all();
        // The next group is on its way: what it tells the cache may even come first, which costs a few nodes that nobody will ask for.
        let (answer, superseded) = match written {
            Ok(update) => (Ok(()), Some(update.put_nodes())),
            Err(error) => (Err(error), None),
        };
        for member in self.members.drain(..).chain(failed) {
            member.ticket.answer(answer.clone().map(|()| member.version));
        }
        // Nobody waits for that: those who were answered let go of their locks meanwhile.
        if let Some(superseded) = superseded {
            superseded.remove();
        }
    }
}

/// A large transaction is alone with the log for as long as this lives.
struct Alone<'a> {
    committer: &'a Committer,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.committer.line.lock().is_closed = false;
        self.committer.moved.notify_all();
    }
}

fn abandoned() -> Error {
    Error::invalid("the commit failed by a bug; see the log")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corestore::{self, Store};
    use crate::storage::faulty::{Fault, Faulty, Plan};
    use crate::storage::memory::Memory;
    use crate::storage::{Backend, Range, Scan, Space, Statistics, WriteBatch};
    use crate::txn::Database;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    /// A backend whose writes wait until they are let through.
    struct Gate {
        inner: Arc<Faulty>,
        state: Mutex<(bool, usize)>,
        moved: Condvar,
    }

    impl Gate {
        fn new() -> Arc<Gate> {
            let inner = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
            Arc::new(Gate { inner, state: Mutex::new((true, 0)), moved: Condvar::new() })
        }

        fn set_open(&self, is_open: bool) {
            self.state.lock().0 = is_open;
            self.moved.notify_all();
        }

        fn wait_for_one_inside(&self) {
            let mut state = self.state.lock();
            let result = self.moved.wait_while_for(&mut state, |state| state.1 == 0, Duration::from_secs(20));
            assert!(!result.timed_out(), "nobody writes");
        }
    }

    impl Backend for Gate {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
            self.inner.get(space, key)
        }
        fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
            self.inner.multi_get(space, keys)
        }
        fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
            self.inner.scan(space, range, reverse)
        }
        fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
            let mut state = self.state.lock();
            state.1 += 1;
            self.moved.notify_all();
            self.moved.wait_while(&mut state, |state| !state.0);
            state.1 -= 1;
            drop(state);
            self.inner.write(batch, durability)
        }
        fn sync(&self) -> Result<()> {
            self.inner.sync()
        }
        fn statistics(&self) -> Statistics {
            self.inner.statistics()
        }
    }

    fn open(backend: Arc<dyn Backend>, options: Options) -> Arc<Database> {
        let store = Store::open(backend, corestore::Options::default()).unwrap();
        Database::open(store.get_by_name("db").unwrap(), Cache::new(1 << 20), options).unwrap()
    }

    fn put(db: &Database, key: &str) -> Result<Version> {
        let mut txn = db.begin();
        txn.put(key.to_owned(), "value").unwrap();
        db.commit(txn, CommitInfo::at(7))
    }

    fn wait_until(mut f: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            if f() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come");
    }

    /// Transactions are made ready while a group is being written, are invisible and unanswered until their own is, and are one group then.
    #[test]
    fn the_next_group_gathers_while_the_disk_works() {
        let gate = Gate::new();
        let db = open(gate.clone(), Options::default());
        put(&db, "0").unwrap();
        let writes = gate.inner.writes();
        gate.set_open(false);
        thread::scope(|scope| {
            let first = scope.spawn(|| put(&db, "1"));
            gate.wait_for_one_inside();
            let others: Vec<_> = (2..10)
                .map(|i| {
                    let db = &db;
                    scope.spawn(move || put(db, &i.to_string()))
                })
                .collect();
            let line = &db.committer().line;
            wait_until(|| line.lock().open.members.len() == 8);
            assert_eq!(db.head(), Version(3), "nothing is visible before it is durable");
            assert!(others.iter().all(|other| !other.is_finished()));
            // Who relies on what is on its way is told at once.
            let mut late = db.begin();
            late.put("1", "again").unwrap();
            assert_eq!(db.commit(late, CommitInfo::at(7)), Err(Error::Conflict { base: Version(3) }));
            let mut late = db.begin();
            late.depend_range(KeyRange::half_open("5", "6"));
            late.put("x", "").unwrap();
            assert_eq!(db.commit(late, CommitInfo::at(7)), Err(Error::Conflict { base: Version(3) }));
            gate.set_open(true);
            assert_eq!(first.join().unwrap(), Ok(Version(5)));
            let mut versions: Vec<_> = others.into_iter().map(|other| other.join().unwrap().unwrap().0).collect();
            versions.sort_unstable();
            assert_eq!(versions, (3..11).map(|i| 2 * i + 1).collect::<Vec<_>>());
        });
        assert_eq!(gate.inner.writes() - writes, 2, "one for the first, one for all others");
        assert_eq!(db.snapshot().bee().audit().unwrap().keys, 11);
        // What was on its way is seen by whoever begins now.
        let mut txn = db.begin();
        txn.put("1", "again").unwrap();
        db.commit(txn, CommitInfo::at(7)).unwrap();
    }

    /// When an append fails, all its transactions fail, and with them those that were made on top of it; the next ones go on from what the log holds.
    #[test]
    fn what_is_built_on_a_failed_append_fails_with_it() {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::NoSpace] {
            let gate = Gate::new();
            let db = open(gate.clone(), Options::default());
            put(&db, "0").unwrap();
            gate.set_open(false);
            gate.inner.set_plan(Plan::at(gate.inner.writes() + 1, fault));
            thread::scope(|scope| {
                let first = scope.spawn(|| put(&db, "1"));
                gate.wait_for_one_inside();
                let others: Vec<_> = (2..6)
                    .map(|i| {
                        let db = &db;
                        scope.spawn(move || put(db, &i.to_string()))
                    })
                    .collect();
                let line = &db.committer().line;
                wait_until(|| line.lock().open.members.len() == 4);
                gate.set_open(true);
                assert!(matches!(first.join().unwrap(), Err(Error::Storage(_))), "{fault:?}");
                for other in others {
                    assert!(matches!(other.join().unwrap(), Err(Error::Storage(_))), "{fault:?}");
                }
            });
            assert_eq!(db.head(), Version(3));
            assert_eq!(put(&db, "6"), Ok(Version(5)), "{fault:?}");
            let db = open(gate.inner.clone(), Options::default());
            let keys = |key: &str| db.snapshot().get(key.as_bytes()).unwrap().is_some();
            assert!(keys("0") && keys("6") && !(1..6).any(|i| keys(&i.to_string())), "{fault:?}");
            db.snapshot().bee().audit().unwrap();
        }
    }

    /// What was made on top of a group that is on its way is lost, as when applying a transaction panics: the next one waits to know what the log
    /// holds, and is made on that.
    #[test]
    fn who_comes_after_what_was_lost_waits_for_the_group_on_its_way() {
        for fault in [None, Some(Fault::FailBefore)] {
            let gate = Gate::new();
            let db = open(gate.clone(), Options::default());
            put(&db, "0").unwrap();
            gate.set_open(false);
            if let Some(fault) = fault {
                gate.inner.set_plan(Plan::at(gate.inner.writes() + 1, fault));
            }
            thread::scope(|scope| {
                let first = scope.spawn(|| put(&db, "1"));
                gate.wait_for_one_inside();
                assert!(db.committer().line.lock().give_up().is_empty());
                let next = scope.spawn(|| put(&db, "2"));
                thread::sleep(Duration::from_millis(20));
                assert!(db.committer().line.lock().open.members.is_empty() && !next.is_finished());
                gate.set_open(true);
                assert_eq!(first.join().unwrap().is_ok(), fault.is_none());
                let version = if fault.is_none() { Version(7) } else { Version(5) };
                assert_eq!(next.join().unwrap(), Ok(version));
            });
            db.snapshot().bee().audit().unwrap();
        }
    }

    /// Threads that commit small and large transactions through groups of a few entries, while now and then a write fails: what was
    /// acknowledged is there, what failed is not.
    #[test]
    fn groups_of_all_sizes_with_failures_in_between() {
        let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
        let options = Options { group_entries_max: 4, staged_entries: 3, ..Options::default() };
        let db = open(faulty.clone(), options);
        put(&db, "first").unwrap();
        let mut plan = Plan::none();
        for i in 0..40 {
            let faults = [Fault::FailBefore, Fault::FailAfter];
            plan = plan.and(faulty.writes() + 10 + i * 13, faults[i as usize % 2]);
        }
        faulty.set_plan(plan);
        let failures = AtomicUsize::new(0);
        let outcomes: Vec<(String, usize, bool)> = thread::scope(|scope| {
            let one = |thread: usize, i: usize| {
                let (name, count) = (format!("{thread}-{i:03}"), if i.is_multiple_of(17) { 20 } else { 1 + i % 3 });
                let mut txn = db.begin();
                (0..count).for_each(|n| txn.put(format!("{name}-{n:02}"), "value").unwrap());
                let is_there = match db.commit(txn, CommitInfo::at(7)) {
                    Ok(_) => true,
                    Err(Error::Storage(_)) => false,
                    Err(error) => panic!("{error}"),
                };
                failures.fetch_add(usize::from(!is_there), Ordering::Relaxed);
                (name, count, is_there)
            };
            let threads: Vec<_> =
                (0..8).map(|thread| scope.spawn(move || (0..60).map(|i| one(thread, i)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(failures.into_inner() > 10, "too few failures to tell anything");
        let snapshot = db.snapshot();
        for (name, count, is_there) in outcomes {
            for n in 0..count {
                assert_eq!(snapshot.get(format!("{name}-{n:02}").as_bytes()).unwrap().is_some(), is_there, "{name}");
            }
        }
        snapshot.bee().audit().unwrap();
        let line = db.committer().line.lock();
        assert!(line.writing.is_none() && line.open.members.is_empty() && !line.is_closed);
    }
}
