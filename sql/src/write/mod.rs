//! Changing rows: INSERT, UPDATE, DELETE and COPY FROM, with the constraints and indexes that go along.
//!
//! ```text
//! target       one table made ready to be written: its keys, its indexes, what must hold
//! constraints  NOT NULL, CHECK, unique keys, and the errors PostgreSQL reports for them
//! row          one row locked, put, changed, removed;  moves  where rows went whose keys changed
//! insert       rows in, ON CONFLICT;  update   rows changed and removed
//! after        what is checked at the end of a statement or transaction;  foreign_key  references checked, actions done
//! sequence     nextval and setval, durable ahead of use
//! copy         COPY in its three formats
//! ```
//!
//! A statement reads through a view taken before it began and writes to the transaction, so it never meets its own rows as input; what must be
//! unique is looked up through the transaction, own writes included. A [`Writer`] lives as long as its statement.

pub mod after;
pub mod constraints;
pub mod copy;
pub mod foreign_key;
pub mod insert;
pub mod moves;
pub mod referring;
pub mod row;
pub mod sequence;
pub mod target;
pub mod update;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::Version;
use pgbee_engine::bee::Direction;
use pgbee_engine::txn::{Database, ReadView, Transaction};
use rustc_hash::FxHashMap;

use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec::{DmlRunner, ExecCx, RowBuffer};
use crate::ir::{Dml, DmlKind};
use crate::lock::{Locks, Mark};
use crate::memory::{Account, Reservation};

use moves::{Move, Moves, Stay};

/// Bytes of what one transaction remembers of deleted rows. Those beyond are forgotten: who waits for one and finds another row of the same key
/// takes that for what the row was changed to.
const DELETED_BYTES_MAX: usize = 1 << 20;

/// The session's transaction, shared with what runs inside its statement.
#[derive(Clone)]
pub struct TxnHandle {
    inner: Arc<Inner>,
}

struct Inner {
    txn: Mutex<Option<Transaction>>,
    database: Arc<Database>,
    row_ids: Arc<RowIds>,
    locks: Locks,
    after: Mutex<after::AfterQueue>,
    moves: Arc<Moves>,
    moved: Mutex<Moved>,
    /// It reads one snapshot: what another changed since then may not be changed.
    is_fixed: AtomicBool,
    /// The number that the rows it writes carry: xmin.
    stamp: AtomicU32,
}

/// Rows of an open transaction whose keys changed.
#[derive(Default)]
struct Moved {
    list: Vec<Move>,
    held: Option<Reservation>,
    bytes: usize,
    deleted_bytes: usize,
}

/// What the memory of a move takes.
fn move_bytes(from: &[u8], to: Option<&[u8]>) -> usize {
    size_of::<Move>() + from.len() + to.map_or(0, <[u8]>::len)
}

impl Moved {
    /// Remembers one more.
    fn push(&mut self, from: &[u8], to: Option<&[u8]>) -> Result<()> {
        let bytes = move_bytes(from, to);
        let deleted_bytes = self.deleted_bytes + if to.is_none() { bytes } else { 0 };
        if to.is_none() && deleted_bytes > DELETED_BYTES_MAX {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            held.set(self.bytes + bytes)?;
        }
        (self.bytes, self.deleted_bytes) = (self.bytes + bytes, deleted_bytes);
        self.list.push((from.into(), to.map(Into::into)));
        Ok(())
    }
    /// Forgets all but the first so many: as if the others had not been.
    fn truncate(&mut self, count: usize) {
        for (from, to) in self.list.drain(count.min(self.list.len())..) {
            let bytes = move_bytes(&from, to.as_deref());
            self.bytes -= bytes;
            self.deleted_bytes -= if to.is_none() { bytes } else { 0 };
        }
        self.list.shrink_to(self.list.len() * 2);
        self.reserve_less();
    }
    /// Forgets all, and tells them.
    fn take(&mut self) -> Vec<Move> {
        (self.bytes, self.deleted_bytes) = (0, 0);
        self.reserve_less();
        std::mem::take(&mut self.list)
    }
    fn reserve_less(&mut self) {
        if let Some(held) = &mut self.held {
            // Less than before is always to be had.
            let _ = held.set(self.bytes);
        }
    }
}

/// A place among a transaction's locks and moves: see [`TxnHandle::undo_to`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    locks: Mark,
    moved: usize,
}

impl TxnHandle {
    /// A session's handle, without transaction. What rows moved is reserved in `memory`.
    pub fn new(
        database: Arc<Database>,
        row_ids: Arc<RowIds>,
        moves: Arc<Moves>,
        locks: Locks,
        memory: &Arc<Account>,
    ) -> TxnHandle {
        let moved = Moved { held: Some(memory.reservation("Rows whose keys changed")), ..Moved::default() };
        TxnHandle {
            inner: Arc::new(Inner {
                txn: Mutex::default(),
                database,
                row_ids,
                locks,
                moves,
                after: Mutex::default(),
                moved: Mutex::new(moved),
                is_fixed: AtomicBool::new(false),
                stamp: AtomicU32::new(0),
            }),
        }
    }
    /// Works with the transaction. Keep it short, and do not evaluate expressions inside: they may want it too.
    pub fn with<R>(&self, f: impl FnOnce(&mut Transaction) -> Result<R>) -> Result<R> {
        f(self.inner.txn.lock().as_mut().ok_or_else(|| SqlError::internal("there is no transaction to write to"))?)
    }
    /// Sets the transaction, and the number its rows carry.
    pub fn set(&self, txn: Transaction, stamp: u32) {
        self.inner.stamp.store(stamp, Ordering::Relaxed);
        *self.inner.txn.lock() = Some(txn);
    }
    /// Takes the transaction away. Its locks stay until they are released.
    pub fn take(&self) -> Option<Transaction> {
        self.inner.txn.lock().take()
    }
    /// Whether there is one.
    pub fn is_open(&self) -> bool {
        self.inner.txn.lock().is_some()
    }
    /// The error as a SERIALIZABLE transaction has it: a key that is taken, where it read that it was free or anything else has changed since, means
    /// that it came too late and may succeed when run again.
    pub fn explain(&self, error: SqlError) -> SqlError {
        if error.state() == state::UNIQUE_VIOLATION { self.unless_dependent(error) } else { error }
    }
    /// The error, or 40001 for what it read where any of that has changed since, if it is SERIALIZABLE.
    pub fn unless_dependent(&self, error: SqlError) -> SqlError {
        let reads = self.with(|t| Ok(t.reads().filter(|_| t.is_recording()).cloned()));
        match reads {
            Ok(Some(reads)) => self.inner.database.validate(&reads).err().map_or(error, SqlError::from),
            _ => error,
        }
    }
    /// Whether the transaction is SERIALIZABLE, and not one that only reads.
    pub fn is_recording(&self) -> Result<bool> {
        self.with(|t| Ok(t.is_recording()))
    }
    /// Row ids of the database.
    pub fn row_ids(&self) -> &RowIds {
        &self.inner.row_ids
    }
    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.inner.database
    }
    /// The transaction's locks.
    pub fn locks(&self) -> &Locks {
        &self.inner.locks
    }
    /// Where rows of the database moved to.
    pub fn moves(&self) -> &Arc<Moves> {
        &self.inner.moves
    }
    /// What is to be done after its changes.
    fn after(&self) -> &Mutex<after::AfterQueue> {
        &self.inner.after
    }
    /// Whether the transaction reads one snapshot from its start to its end.
    pub fn is_fixed(&self) -> bool {
        self.inner.is_fixed.load(Ordering::Relaxed)
    }
    /// Says whether it does.
    pub fn set_fixed(&self, is_fixed: bool) {
        self.inner.is_fixed.store(is_fixed, Ordering::Relaxed);
    }
    /// The number that the rows it writes carry.
    pub fn row_stamp(&self) -> u32 {
        self.inner.stamp.load(Ordering::Relaxed)
    }
    /// What the transaction itself wrote to a key: `Some(None)` if it removed it. Without transaction it wrote nothing.
    pub fn written(&self, key: &[u8]) -> Result<Option<Option<Bytes>>> {
        match &*self.inner.txn.lock() {
            Some(txn) => Ok(txn.own(key)?),
            None => Ok(None),
        }
    }
    /// The newest value of a key: what the transaction itself wrote, else what was committed last.
    pub fn newest(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.written(key)? {
            Some(own) => Ok(own),
            None => Ok(self.inner.database.snapshot().get(key)?),
        }
    }
    /// A SERIALIZABLE transaction has looked at a key in another version than its own: it may not change from then on.
    pub fn rely_on(&self, key: &[u8], seen: Version) -> Result<()> {
        self.with(|t| {
            if t.is_recording()
                && let Some(reads) = t.reads()
            {
                reads.key(Bytes::copy_from_slice(key), seen);
            }
            Ok(())
        })
    }
    /// Remembers that a row has another key now, or none.
    ///
    /// # Errors
    /// 53200 when there is no memory for it.
    pub fn moved(&self, from: &[u8], to: Option<&[u8]>) -> Result<()> {
        self.inner.moved.lock().push(from, to)
    }
    /// The transaction is committed as this version: who saw its rows before may follow them. Before its locks are given up.
    pub fn publish_moves(&self, version: Version) {
        let list = self.forget_moves();
        self.inner.moves.publish(version, list);
    }
    fn forget_moves(&self) -> Vec<Move> {
        self.inner.moved.lock().take()
    }
    /// Where the transaction is: a mark for [`TxnHandle::undo_to`].
    pub fn place(&self) -> Place {
        Place { locks: self.inner.locks.mark(), moved: self.inner.moved.lock().list.len() }
    }
    /// What was locked and moved since is as it was before.
    pub fn undo_to(&self, place: Place) {
        self.inner.moved.lock().truncate(place.moved);
        self.inner.locks.release_since(place.locks);
    }
    /// The transaction is over: others may have what it locked.
    pub fn end(&self) {
        self.forget_moves();
        self.inner.locks.release_all();
    }
}

/// Counters that give rows of tables without primary key their ids. They live in memory only: each starts from the greatest id there is, in the
/// newest version or in the transaction that asks first.
#[derive(Default)]
pub struct RowIds {
    last: Mutex<FxHashMap<u32, Arc<AtomicI64>>>,
}

impl RowIds {
    /// The counter of a table: the id given last.
    fn of(&self, table: u32, txn: &TxnHandle) -> Result<Arc<AtomicI64>> {
        let mut last = self.last.lock();
        if let Some(counter) = last.get(&table) {
            return Ok(counter.clone());
        }
        // The transaction may read an older version, and may have put rows of its own into a table it made.
        let rows = keyspace::table_range(table);
        let own = txn.with(|t| Ok(t.view().unrecorded().scan(rows.clone(), Direction::Backward)?.next()?))?;
        let newest = ReadView::from(txn.inner.database.snapshot()).scan(rows, Direction::Backward)?.next()?;
        let ids = [own, newest].into_iter().flatten().filter_map(|(key, _)| keyspace::parse_row_id(&key));
        let id = ids.max().unwrap_or(0);
        let counter = Arc::new(AtomicI64::new(id));
        last.insert(table, counter.clone());
        Ok(counter)
    }
    /// Forgets a counter: the table's rows were given new ids.
    pub fn forget(&self, table: u32) {
        self.last.lock().remove(&table);
    }
}

/// The next id of a counter.
fn next_id(counter: &AtomicI64) -> i64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

/// What was prepared of the changes of one plan: kept with the plan, for it costs more than a small change itself.
#[derive(Default)]
pub struct DmlPlans {
    prepared: Mutex<FxHashMap<usize, Arc<target::Prepared>>>,
}

impl DmlPlans {
    /// The change made ready. Plans keep their `Dml`s at one address for as long as they live.
    fn get(&self, dml: &Dml, cx: &ExecCx) -> Result<Arc<target::Prepared>> {
        let address = std::ptr::from_ref(dml).addr();
        if let Some(found) = self.prepared.lock().get(&address) {
            return Ok(found.clone());
        }
        let prepared = Arc::new(target::Prepared::new(dml, cx)?);
        self.prepared.lock().insert(address, prepared.clone());
        Ok(prepared)
    }
}

/// Carries out the changes of one statement.
pub struct Writer {
    txn: TxnHandle,
    plans: Arc<DmlPlans>,
    /// Keys of the rows changed so far, if a row may be reached by two changes of the statement.
    touched: Option<Mutex<KeySet>>,
    rows: AtomicU64,
    /// What moves while the statement runs is remembered.
    _stay: Option<Stay>,
}

/// Keys a statement has met, each as 128 bits of secret hashes: rows by the million are to be remembered, and that two keys of a
/// statement ever share them need not be thought of. What it holds is reserved.
struct KeySet {
    hashers: [RandomState; 2],
    seen: HashSet<u128, BuildHasherDefault<rustc_hash::FxHasher>>,
    held: Reservation,
}

impl KeySet {
    fn new(memory: &Arc<Account>, what: &'static str) -> KeySet {
        let hashers = [RandomState::new(), RandomState::new()];
        KeySet { hashers, seen: HashSet::default(), held: memory.reservation(what) }
    }
    fn hash(&self, key: &[u8]) -> u128 {
        let [a, b] = self.hashers.each_ref().map(|hasher| hasher.hash_one(key));
        u128::from(a) << 64 | u128::from(b)
    }
    fn contains(&self, key: &[u8]) -> bool {
        self.seen.contains(&self.hash(key))
    }
    /// Adds a key; false if it was there.
    fn insert(&mut self, key: &[u8]) -> Result<bool> {
        let hash = self.hash(key);
        let fresh = self.seen.insert(hash);
        self.held.set(self.seen.capacity() * (size_of::<u128>() + 1))?;
        Ok(fresh)
    }
}

impl Writer {
    /// For a statement of this transaction, with its account. `several`: it has more than one change in it.
    pub fn new(
        txn: TxnHandle,
        plans: Arc<DmlPlans>,
        several: bool,
        memory: &Arc<Account>,
        stay: Option<Stay>,
    ) -> Writer {
        let touched = several.then(|| Mutex::new(KeySet::new(memory, "WITH of several changes")));
        Writer { txn, plans, touched, rows: AtomicU64::new(0), _stay: stay }
    }
    /// Rows changed so far, by all changes of the statement.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
    /// From now on a row was changed by this statement.
    fn touch(&self, key: &[u8]) -> Result<()> {
        self.touched.as_ref().map_or(Ok(()), |t| t.lock().insert(key).map(|_| ()))
    }
    /// Whether a row was changed by this statement before.
    fn was_touched(&self, key: &[u8]) -> bool {
        self.touched.as_ref().is_some_and(|t| t.lock().contains(key))
    }
}

impl DmlRunner for Writer {
    fn run(&self, dml: &Dml, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
        let prepared = self.plans.get(dml, cx)?;
        let changed = match &dml.kind {
            DmlKind::Insert { columns, on_conflict, .. } => {
                insert::run(self, dml, &prepared, columns, on_conflict.as_ref(), cx)
            }
            DmlKind::Update { .. } => update::update(self, dml, &prepared, cx),
            DmlKind::Delete { .. } => update::delete(self, dml, &prepared, cx),
        };
        let (returned, count) = changed.map_err(|error| self.txn.explain(error))?;
        self.rows.fetch_add(count, Ordering::Relaxed);
        Ok((returned, count))
    }
    fn txn(&self) -> &TxnHandle {
        &self.txn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction's handle in a database of its own, with so much memory.
    fn handle(memory: &Arc<Account>) -> TxnHandle {
        use pgbee_engine::{bee::Cache, corestore, storage::memory::Memory, txn::Options};
        let store = corestore::Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("db").unwrap();
        let database = Database::open(core, Cache::new(1 << 20), Options::default()).unwrap();
        let locks = Locks::new(&Arc::default(), 1, Arc::default(), memory).unwrap();
        TxnHandle::new(database, Arc::default(), Arc::default(), locks, memory)
    }

    #[test]
    fn what_is_rolled_back_to_a_savepoint_is_not_counted() {
        let memory = Arc::new(Account::of_instance(256 << 10));
        let txn = handle(&memory);
        let (key, other) = ([7; 1000], [8; 1000]);
        txn.moved(&key, Some(&other)).unwrap();
        txn.moved(&other, None).unwrap();
        let (held, place) = (memory.used(), txn.place());
        // Together more than both limits, one statement at a time within them.
        for _ in 0..2000 {
            txn.moved(&key, Some(&other)).unwrap();
            txn.moved(&other, None).unwrap();
            txn.undo_to(place);
        }
        // Many at once, and what is held for them is given back.
        for _ in 0..100 {
            txn.moved(&key, None).unwrap();
        }
        txn.undo_to(place);
        assert!(memory.used() <= 2 * held, "{} bytes are reserved, {held} were", memory.used());
        assert_eq!(txn.inner.moved.lock().list.len(), 2);
        // Deletions that stay are remembered still.
        txn.moved(&key, None).unwrap();
        assert_eq!(txn.inner.moved.lock().list.len(), 3);
        // An undo to a place behind what there is leaves all as it is, and what found no memory is not counted.
        txn.undo_to(Place { locks: place.locks, moved: 1000 });
        let huge = vec![0; 1 << 20];
        assert_eq!(txn.moved(&key, Some(&huge)).unwrap_err().state(), state::OUT_OF_MEMORY);
        txn.moved(&key, Some(&other)).unwrap();
        assert_eq!(txn.forget_moves().len(), 4);
        let moved = txn.inner.moved.lock();
        assert_eq!((memory.used(), moved.bytes, moved.deleted_bytes), (0, 0, 0));
    }
}
