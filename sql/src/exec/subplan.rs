//! Subqueries in expressions, and what the operators of a statement share.
//!
//! A subquery is run once for each different tuple of values it takes from enclosing rows; one that takes none is thus run once a
//! statement. Answers are kept within a bound on memory. A subquery with a volatile function that does take values is run every
//! time, as in PostgreSQL.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pgbee_engine::CoreKey;
use pgbee_engine::txn::Snapshot;
use rustc_hash::FxHashMap;

use super::batch::Batch;
use super::code::Code;
use super::cte::CteStore;
use super::eval::{Env, truth};
use super::hash::HashIndex;
use super::metrics::Metrics;
use super::operator::{BoxOperator, open_node};
use super::spill::{BufferPlace, PagedRows, RowBuffer, write_datum};
use super::value;
use crate::error::{Result, SqlError, state};
use crate::foreign::ForeignBee;
use crate::ir::Dml;
use crate::memory::Reservation;
use crate::plan::node::{Node, Quantified};
use crate::types::{Array, Datum, Type};

/// What a statement's operators keep for each other.
#[derive(Default)]
pub struct Shared {
    /// CTEs by id, while their WITH is open.
    ctes: Mutex<FxHashMap<usize, Arc<CteStore>>>,
    /// Rows of the last round of a recursive CTE, by id.
    working: Mutex<FxHashMap<usize, Arc<Mutex<RowBuffer>>>>,
    /// Subqueries by their number in the process.
    subplans: Mutex<FxHashMap<u64, Arc<Mutex<SubState>>>>,
    /// Planned sources of changes, by address of the change.
    sources: Mutex<FxHashMap<usize, Arc<Node>>>,
    /// Versions of other bees that the statement reads: each bee at one.
    foreign: Mutex<FxHashMap<CoreKey, (Arc<ForeignBee>, Snapshot)>>,
    metrics: OnceLock<Metrics>,
    changed: AtomicU64,
}

impl Shared {
    /// Measures the nodes of a plan from now on. Before it is opened.
    pub fn measure(&self, nodes: usize) {
        self.metrics.get_or_init(|| Metrics::new(nodes));
    }
    /// Measurements, if asked for.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.metrics.get()
    }
    pub(crate) fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
    pub(crate) fn add_changed(&self, rows: u64) {
        self.changed.fetch_add(rows, Ordering::Relaxed);
    }
    pub(crate) fn set_source(&self, dml: &Dml, source: &Arc<Node>) {
        self.sources.lock().insert(std::ptr::from_ref(dml).addr(), source.clone());
    }
    pub(crate) fn source(&self, dml: &Dml) -> Option<Arc<Node>> {
        self.sources.lock().get(&std::ptr::from_ref(dml).addr()).cloned()
    }
    /// The version of another bee that the statement reads, found by `open` the first time.
    pub(crate) fn foreign(
        &self,
        key: CoreKey,
        open: impl FnOnce() -> Result<(Arc<ForeignBee>, Snapshot)>,
    ) -> Result<(Arc<ForeignBee>, Snapshot)> {
        if let Some(known) = self.foreign.lock().get(&key) {
            return Ok(known.clone());
        }
        // Without the lock, for it may wait for peers.
        let found = open()?;
        Ok(self.foreign.lock().entry(key).or_insert(found).clone())
    }
    pub(crate) fn set_cte(&self, id: usize, store: Arc<CteStore>) {
        self.ctes.lock().insert(id, store);
    }
    pub(crate) fn cte(&self, id: usize) -> Result<Arc<CteStore>> {
        self.ctes.lock().get(&id).cloned().ok_or_else(|| SqlError::internal("a CTE is read outside its WITH"))
    }
    pub(crate) fn set_working(&self, id: usize, rows: Arc<Mutex<RowBuffer>>) {
        self.working.lock().insert(id, rows);
    }
    pub(crate) fn working(&self, id: usize) -> Result<Arc<Mutex<RowBuffer>>> {
        self.working
            .lock()
            .get(&id)
            .cloned()
            .ok_or_else(|| SqlError::internal("a recursive term is read outside its CTE"))
    }
    fn subplan(&self, id: u64) -> Arc<Mutex<SubState>> {
        self.subplans.lock().entry(id).or_default().clone()
    }
}

/// A planned subquery.
pub struct SubPlan {
    /// Unique in the process, so that plans run within one statement never meet.
    id: u64,
    /// The query.
    pub node: Arc<Node>,
    /// What is asked of it.
    pub kind: SubKind,
    /// The values it takes from enclosing rows, over the row it is evaluated on.
    keys: Vec<Code>,
    /// Whether an answer may be kept for the same values.
    keep: bool,
}

/// What is asked of a subquery.
#[allow(missing_docs)] // the fields are told at their kinds
pub enum SubKind {
    /// Its one value.
    Scalar,
    /// Whether it has a row.
    Exists,
    /// `tests op ANY/ALL`.
    Quantified(Quantified),
    /// Its column as an array of this element type; of arrays, stacked, when `nested`.
    #[allow(missing_docs)] // told above
    Array { elem: Type, nested: bool },
}

/// Answers of one subquery in one statement.
#[derive(Default)]
struct SubState {
    operator: Option<BoxOperator>,
    answers: FxHashMap<Box<[u8]>, Datum>,
    bytes: usize,
    /// All rows of an uncorrelated quantified subquery.
    rows: Option<Candidates>,
}

/// The right side of `IN` and the like, read once.
enum Candidates {
    Hashed(HashedRows),
    Listed(RowBuffer),
}

/// Rows to be found by equality; those with a NULL stand apart. Beyond `work_mem` they are in a file, but for their hashes, which are reserved.
struct HashedRows {
    index: HashIndex,
    rows: PagedRows,
    with_null: PagedRows,
    held: Reservation,
}

impl SubPlan {
    /// A subquery; `keys` are the values it takes, `volatile` whether it holds a volatile function, `changing` whether it reads
    /// something that changes while the statement runs (the working table of a recursion).
    pub fn new(node: Arc<Node>, kind: SubKind, keys: Vec<Code>, volatile: bool, changing: bool) -> SubPlan {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let keep = !changing && (keys.is_empty() || !volatile);
        SubPlan { id: NEXT.fetch_add(1, Ordering::Relaxed), node, kind, keys, keep }
    }
    /// Whether it takes no value from enclosing rows.
    pub fn is_uncorrelated(&self) -> bool {
        self.keys.is_empty()
    }
    /// Whether its rows are kept in a hash table.
    pub fn is_hashed(&self) -> bool {
        self.keys.is_empty() && matches!(&self.kind, SubKind::Quantified(q) if q.hashed)
    }

    /// Its value for a row.
    pub(crate) fn value(&self, tests: &[Datum], row: &[Datum], env: &Env<'_>) -> Result<Datum> {
        let state = env.cx.shared.subplan(self.id);
        let mut state = state.lock();
        if let SubKind::Quantified(q) = &self.kind
            && self.keys.is_empty()
            && self.keep
        {
            if state.rows.is_none() {
                state.rows = Some(self.read_candidates(q, row, env)?);
            }
            let Some(rows) = &mut state.rows else { unreachable!("filled above") };
            return Ok(rows.answer(q, tests, env)?.map_or(Datum::Null, Datum::Bool));
        }
        if !self.keep {
            return self.run(&mut state, tests, row, env);
        }
        let mut key = Vec::new();
        for code in &self.keys {
            write_datum(&code.eval(row, env)?, &mut key);
        }
        tests.iter().for_each(|t| write_datum(t, &mut key));
        if let Some(answer) = state.answers.get(key.as_slice()) {
            return Ok(answer.clone());
        }
        let answer = self.run(&mut state, tests, row, env)?;
        let bytes = key.len() + 64 + value::heap_bytes(&answer);
        if state.bytes + bytes > env.cx.session.work_mem_bytes {
            state.answers.clear();
            state.bytes = 0;
        }
        state.bytes += bytes;
        state.answers.insert(key.into_boxed_slice(), answer.clone());
        Ok(answer)
    }

    fn run(&self, state: &mut SubState, tests: &[Datum], row: &[Datum], env: &Env<'_>) -> Result<Datum> {
        env.check_cancel()?;
        let outer = env.enclose(row);
        let env = &Env::within(env.cx, &outer);
        // An operator that can start again is cheaper than a new one.
        let mut operator = match state.operator.take().and_then(|mut kept| kept.rewind().then_some(kept)) {
            Some(kept) => kept,
            None => open_node(&self.node, env)?,
        };
        let answer = self.ask(&mut operator, tests, env)?;
        state.operator = Some(operator);
        Ok(answer)
    }

    fn ask(&self, operator: &mut BoxOperator, tests: &[Datum], env: &Env<'_>) -> Result<Datum> {
        let mut batch = Batch::new(self.node.width);
        match &self.kind {
            SubKind::Exists => {
                batch.target = 1;
                Ok(Datum::Bool(operator.next(env, &mut batch)?))
            }
            SubKind::Scalar => {
                batch.target = 2;
                if !operator.next(env, &mut batch)? {
                    return Ok(Datum::Null);
                }
                let value = batch.row_mut(0).first_mut().map(std::mem::take).unwrap_or_default();
                if batch.len() > 1 || operator.next(env, &mut batch)? {
                    return Err(SqlError::new(
                        state::CARDINALITY_VIOLATION,
                        "more than one row returned by a subquery used as an expression",
                    ));
                }
                Ok(value)
            }
            SubKind::Array { elem, nested } => {
                let mut values = Vec::new();
                let mut held = env.cx.session.memory.reservation("ARRAY(subquery)");
                while operator.next(env, &mut batch)? {
                    held.add(batch.iter().map(value::row_bytes).sum())?;
                    values.extend((0..batch.len()).map(|i| std::mem::take(&mut batch.row_mut(i)[0])));
                    env.check_cancel()?;
                }
                if *nested && !values.is_empty() {
                    return super::eval::make_array(values, true, *elem);
                }
                let dims = if values.is_empty() { vec![] } else { vec![(values.len() as i32, 1)] };
                Ok(Datum::Array(Arc::new(Array { elem: *elem, dims, values })))
            }
            SubKind::Quantified(q) => {
                let mut found = Some(q.all);
                while operator.next(env, &mut batch)? {
                    for row in batch.iter() {
                        match q.compare(tests, row, env)? {
                            Some(b) if b != q.all => return Ok(Datum::Bool(b)),
                            Some(_) => {}
                            None => found = None,
                        }
                    }
                    env.check_cancel()?;
                }
                Ok(found.map_or(Datum::Null, Datum::Bool))
            }
        }
    }

    fn read_candidates(&self, q: &Quantified, row: &[Datum], env: &Env<'_>) -> Result<Candidates> {
        let outer = env.enclose(row);
        let env = &Env::within(env.cx, &outer);
        let width = self.node.width;
        let mut operator = open_node(&self.node, env)?;
        let limit = env.cx.session.work_mem_bytes;
        let mut listed = RowBuffer::new(width, limit);
        let mut hashed = HashedRows {
            index: HashIndex::default(),
            rows: PagedRows::new(width, limit),
            with_null: PagedRows::new(width, limit),
            held: env.cx.session.memory.reservation("IN (subquery)"),
        };
        super::operator::drain(&mut *operator, env, |batch| {
            if q.hashed {
                (0..batch.len()).try_for_each(|i| hashed.add(batch.row_mut(i), &q.types))
            } else {
                listed.push_all(batch)
            }
        })?;
        Ok(if q.hashed { Candidates::Hashed(hashed) } else { Candidates::Listed(listed) })
    }
}

impl Quantified {
    /// `tests op row`, all columns.
    fn compare(&self, tests: &[Datum], row: &[Datum], env: &Env<'_>) -> Result<Option<bool>> {
        let mut all = Some(true);
        for ((call, test), value) in self.calls.iter().zip(tests).zip(row) {
            match truth(&call.call(&[test.clone(), value.clone()], env)?)? {
                Some(true) => {}
                Some(false) => return Ok(Some(false)),
                None => all = None,
            }
        }
        Ok(all)
    }
}

impl Candidates {
    fn answer(&mut self, q: &Quantified, tests: &[Datum], env: &Env<'_>) -> Result<Option<bool>> {
        match self {
            // ALL is hashed only as `<> ALL`, the opposite of `= ANY`.
            Candidates::Hashed(rows) => Ok(rows.contains(tests, &q.types, env)?.map(|found| found != q.all)),
            Candidates::Listed(rows) => {
                let (mut place, mut batch, mut found) = (BufferPlace::default(), Batch::new(rows.width()), Some(q.all));
                loop {
                    batch.reset(rows.width());
                    if !rows.read(&mut place, &mut batch)? {
                        return Ok(found);
                    }
                    env.check_cancel()?;
                    for row in batch.iter() {
                        match q.compare(tests, row, env)? {
                            Some(b) if b != q.all => return Ok(Some(b)),
                            Some(_) => {}
                            None => found = None,
                        }
                    }
                }
            }
        }
    }
}

impl HashedRows {
    fn add(&mut self, row: &mut [Datum], types: &[Type]) -> Result<()> {
        for (d, ty) in row.iter_mut().zip(types) {
            if value::needs_normalising(*ty) {
                *d = value::normalise(std::mem::take(d), *ty);
            }
        }
        if row.iter().any(Datum::is_null) {
            // One row without any value says all that many would.
            if self.with_null.is_empty() || row.len() > 1 {
                self.with_null.push(row)?;
            }
            return Ok(());
        }
        let hash = value::hash_row(row);
        if !self.find(hash, row)? {
            self.index.insert(hash);
            self.held.set(self.index.bytes())?;
            self.rows.push(row)?;
        }
        Ok(())
    }

    fn find(&mut self, hash: u64, row: &[Datum]) -> Result<bool> {
        let mut failed = None;
        let rows = &mut self.rows;
        let found = self.index.find(hash, |i| match rows.row(i) {
            Ok(known) => value::same_rows(known, row),
            Err(e) => {
                failed = Some(e);
                true
            }
        });
        failed.map_or(Ok(found.is_some()), Err)
    }

    /// `tests IN rows`.
    fn contains(&mut self, tests: &[Datum], types: &[Type], env: &Env<'_>) -> Result<Option<bool>> {
        let tests: Vec<Datum> = tests.iter().zip(types).map(|(d, ty)| value::normalise(d.clone(), *ty)).collect();
        let unknown = if tests.iter().any(Datum::is_null) {
            (tests.len() == 1 && !self.rows.is_empty()) || any_may_equal(&mut self.rows, &tests, env)?
        } else {
            if self.find(value::hash_row(&tests), &tests)? {
                return Ok(Some(true));
            }
            false
        };
        Ok(if unknown || any_may_equal(&mut self.with_null, &tests, env)? { None } else { Some(false) })
    }
}

/// Whether a row would equal `tests` if NULLs were the right values.
fn any_may_equal(rows: &mut PagedRows, tests: &[Datum], env: &Env<'_>) -> Result<bool> {
    for i in 0..rows.len() {
        if i % 1024 == 1023 {
            env.check_cancel()?;
        }
        let row = rows.row(i)?;
        if tests.iter().zip(row).all(|(a, b)| a.is_null() || b.is_null() || value::same(a, b)) {
            return Ok(true);
        }
    }
    Ok(false)
}
