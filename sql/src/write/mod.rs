//! Changing rows: INSERT, UPDATE, DELETE and COPY FROM, with the constraints and indexes that go along.
//!
//! ```text
//! target       one table made ready to be written: its keys, its indexes, what must hold
//! constraints  NOT NULL, CHECK, unique keys, and the errors PostgreSQL reports for them
//! insert       rows in, ON CONFLICT;  update   rows changed and removed
//! sequence     nextval and setval, durable ahead of use
//! copy         COPY in its three formats
//! ```
//!
//! A statement reads through a view taken before it began and writes to the transaction, so it never meets its own rows as input; what must be
//! unique is looked up through the transaction, own writes included. A [`Writer`] lives as long as its statement.

pub mod constraints;
pub mod copy;
pub mod insert;
pub mod sequence;
pub mod target;
pub mod update;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use pgbee_engine::bee::Direction;
use pgbee_engine::txn::{Database, ReadView, Snapshot, Transaction};
use rustc_hash::FxHashMap;

use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec::{DmlRunner, ExecCx, RowBuffer};
use crate::ir::{Dml, DmlKind};
use crate::memory::{Account, Reservation};

use crate::lock::{Got, Locks};

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
    /// A lock was got and its key had changed: the statement needs a newer snapshot.
    is_stale: AtomicBool,
}

impl TxnHandle {
    /// A session's handle, without transaction.
    pub fn new(database: Arc<Database>, row_ids: Arc<RowIds>, locks: Locks) -> TxnHandle {
        TxnHandle {
            inner: Arc::new(Inner {
                txn: Mutex::default(),
                database,
                row_ids,
                locks,
                is_stale: AtomicBool::new(false),
            }),
        }
    }
    /// Works with the transaction. Keep it short, and do not evaluate expressions inside: they may want it too.
    pub fn with<R>(&self, f: impl FnOnce(&mut Transaction) -> Result<R>) -> Result<R> {
        f(self.inner.txn.lock().as_mut().ok_or_else(|| SqlError::internal("there is no transaction to write to"))?)
    }
    /// Sets the transaction.
    pub fn set(&self, txn: Transaction) {
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
    /// Row ids of the database.
    pub fn row_ids(&self) -> &RowIds {
        &self.inner.row_ids
    }

    /// Locks a key to be written, waiting for whoever has it.
    ///
    /// # Errors
    /// 40001 if the key was changed since the transaction's snapshot; [`TxnHandle::take_stale`] then tells that a newer snapshot would
    /// help. 40P01, 55P03 and cancels while waiting.
    pub fn lock(&self, key: &[u8]) -> Result<()> {
        let inner = &*self.inner;
        if inner.locks.claim(0, key)? == Got::Had {
            return Ok(());
        }
        let is_stale = self.with(|t| {
            if inner.database.head() == t.base().version() {
                return Ok(false);
            }
            let written_in = |s: &Snapshot| Ok::<_, SqlError>(s.get_entry(key)?.map(|e| e.seq));
            Ok(written_in(&inner.database.snapshot())? != written_in(t.base())?)
        })?;
        if is_stale {
            inner.is_stale.store(true, Ordering::Relaxed);
            return Err(SqlError::new(
                state::SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update",
            ));
        }
        Ok(())
    }
    /// Whether a statement failed because its snapshot was too old for a row it locked.
    pub fn take_stale(&self) -> bool {
        self.inner.is_stale.swap(false, Ordering::Relaxed)
    }
    /// The transaction's locks.
    pub fn locks(&self) -> &Locks {
        &self.inner.locks
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
        let own = txn.with(|t| Ok(t.scan(rows.clone(), Direction::Backward)?.next()?))?;
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
    pub fn new(txn: TxnHandle, plans: Arc<DmlPlans>, several: bool, memory: &Arc<Account>) -> Writer {
        let touched = several.then(|| Mutex::new(KeySet::new(memory, "WITH of several changes")));
        Writer { txn, plans, touched, rows: AtomicU64::new(0) }
    }
    /// Rows changed so far, by all changes of the statement.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
    /// From now on a row was changed by this statement.
    fn touch(&self, key: &[u8]) -> Result<()> {
        self.is_touched(key).map(|_| ())
    }
    /// Whether a row was changed by this statement before; from now on it was.
    fn is_touched(&self, key: &[u8]) -> Result<bool> {
        self.touched.as_ref().map_or(Ok(false), |t| Ok(!t.lock().insert(key)?))
    }
}

impl DmlRunner for Writer {
    fn run(&self, dml: &Dml, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
        let prepared = self.plans.get(dml, cx)?;
        prepared.target.depend(&self.txn)?;
        let (returned, count) = match &dml.kind {
            DmlKind::Insert { columns, on_conflict, .. } => {
                insert::run(self, dml, &prepared, columns, on_conflict.as_ref(), cx)?
            }
            DmlKind::Update { .. } => update::update(self, dml, &prepared, cx)?,
            DmlKind::Delete { .. } => update::delete(self, dml, &prepared, cx)?,
        };
        self.rows.fetch_add(count, Ordering::Relaxed);
        Ok((returned, count))
    }
}
