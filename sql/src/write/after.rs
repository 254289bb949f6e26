//! What is checked and done after a statement has changed its rows: foreign keys, and unique keys that may be deferred.
//!
//! ```text
//! a changed row -> record() -> events, oldest first
//!     now        fired by [`fire_statement`] when the statement is through; what a cascade changes comes in behind
//!     deferred   fired by [`fire_deferred`] at COMMIT, or by SET CONSTRAINTS .. IMMEDIATE
//! ```
//!
//! This is PostgreSQL's queue of after-row triggers, for the triggers constraints have there: the order of checks, and so which of two errors is
//! told, is the same. A row that is changed again before its check is checked as it then is, by the event of the later change.
//!
//! Nothing recurses: a cascade's rows queue up behind. Events are reserved memory. When there are many, those that can be seen to hold already are
//! dropped ([`AfterQueue::wants_sifting`]): a reference that was found is locked and stays found unless this transaction itself takes
//! it away, which is an event of its own. What was deferred before a savepoint is kept for ROLLBACK TO to find.

use std::collections::VecDeque;
use std::sync::Arc;

use pgbee_engine::bee::Direction;
use rustc_hash::FxHashMap;

use crate::catalog::schema::Deferral;
use crate::catalog::{Catalog, Relation};
use crate::codec::key::KeyColumn;
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::lock::Patience;
use crate::memory::Reservation;
use crate::types::Datum;

use super::TxnHandle;
use super::constraints::unique_violation;
use super::foreign_key::{ForeignKeyRule, Gone, Probe, Reference};
use super::target::Target;

/// Events between two siftings, at first.
const SIFT_AFTER: usize = 4096;

/// A change of one row, just made.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// A row came.
    Insert {
        /// Its key.
        key: &'a [u8],
        /// Its values.
        row: &'a [Datum],
    },
    /// A row changed.
    Update {
        /// The key it had.
        old_key: &'a [u8],
        /// The values it had.
        old: &'a [Datum],
        /// Its key.
        new_key: &'a [u8],
        /// Its values.
        new: &'a [Datum],
    },
    /// A row went.
    Delete {
        /// Its key.
        key: &'a [u8],
        /// Its values.
        old: &'a [Datum],
    },
}

/// What is to be done after a change.
enum Event {
    /// A row refers to something.
    Reference(Arc<ForeignKeyRule>, Reference),
    /// Something that may be referred to went, or has another key.
    Gone(Arc<ForeignKeyRule>, Gone),
    /// A deferrable unique key came.
    Key(Arc<KeyRule>, Box<[Datum]>),
}

impl Event {
    fn bytes(&self) -> usize {
        let values = |v: &[Datum]| v.iter().map(|d| size_of::<Datum>() + d.heap_bytes()).sum::<usize>();
        size_of::<Event>()
            + match self {
                Event::Reference(_, r) => {
                    r.key.len() + r.moved_from.as_ref().map_or(0, |k| k.len()) + values(&r.values)
                }
                Event::Gone(_, g) => values(&g.old) + g.new.as_deref().map_or(0, values),
                Event::Key(_, v) => values(v),
            }
    }
    /// The constraint, and when it is checked by itself.
    fn constraint(&self) -> (u32, Deferral) {
        match self {
            Event::Reference(rule, _) => (rule.key.oid, rule.key.deferral),
            Event::Gone(rule, gone) if rule.may_be_deferred(gone) => (rule.key.oid, rule.key.deferral),
            Event::Gone(rule, _) => (rule.key.oid, Deferral::Never),
            Event::Key(rule, _) => (rule.oid, rule.deferral),
        }
    }
    /// The table whose row changed.
    fn table(&self) -> u32 {
        match self {
            Event::Reference(rule, _) => rule.child.table.oid,
            Event::Gone(rule, _) => rule.parent.table.oid,
            Event::Key(rule, _) => rule.target.table.oid,
        }
    }
}

/// A deferrable PRIMARY KEY or UNIQUE.
struct KeyRule {
    /// Oid of constraint and index.
    oid: u32,
    deferral: Deferral,
    /// Which of the target's indexes.
    index: usize,
    target: Arc<Target>,
}

/// What is to be looked after when rows of one table change.
#[derive(Default)]
struct Rules {
    /// Foreign keys of the table.
    references: Vec<Arc<ForeignKeyRule>>,
    /// Foreign keys that refer to it.
    referenced: Vec<Arc<ForeignKeyRule>>,
    /// Its deferrable unique keys.
    keys: Vec<Arc<KeyRule>>,
}

impl Rules {
    fn new(target: &Target, catalog: &Catalog) -> Rules {
        let table = &target.table;
        let references = table.foreign_keys.iter().filter_map(|k| ForeignKeyRule::new(table, k, catalog));
        let referenced = catalog.references_to(table.oid).into_iter();
        let shared = Arc::new(Target::new(table));
        let keys =
            table.indexes.iter().filter(|i| i.ready).enumerate().filter(|(_, i)| !i.deferral.is_never()).map(
                |(at, i)| Arc::new(KeyRule { oid: i.oid, deferral: i.deferral, index: at, target: shared.clone() }),
            );
        Rules {
            references: references.map(Arc::new).collect(),
            referenced: referenced.filter_map(|(t, k)| ForeignKeyRule::new(t, k, catalog)).map(Arc::new).collect(),
            keys: keys.collect(),
        }
    }
}

/// What SET CONSTRAINTS said in this transaction.
#[derive(Clone, Default)]
struct Modes {
    /// Of all, if it said ALL.
    all: Option<bool>,
    /// Of some, since then.
    some: FxHashMap<u32, bool>,
}

impl Modes {
    fn is_deferred(&self, oid: u32, deferral: Deferral) -> bool {
        let said = self.some.get(&oid).copied().or(self.all);
        match deferral {
            Deferral::Never => false,
            Deferral::Immediate => said.unwrap_or(false),
            Deferral::Deferred => said.unwrap_or(true),
        }
    }
}

/// A deferred event; `None` once it was fired.
type Slot = Option<Arc<Event>>;

/// Events of a transaction that are still to be fired, with their memory.
#[derive(Default)]
pub struct AfterQueue {
    now: VecDeque<Event>,
    deferred: Vec<Slot>,
    /// Deferred events fired since the oldest savepoint, by place: ROLLBACK TO brings them back.
    fired: Vec<(usize, Arc<Event>)>,
    modes: Modes,
    /// Deferred events may be due, for SET CONSTRAINTS said that some constraint is immediate.
    is_due: bool,
    /// Deferred events below this were there before the newest savepoint.
    saved: usize,
    rules: FxHashMap<u32, Arc<Rules>>,
    /// The definitions the rules are of.
    stamp: u64,
    bytes: usize,
    held: Option<Reservation>,
    sift_at: usize,
    /// Rows that came or changed, counted: what was read before may lack them.
    arrivals: u64,
    /// All changes, counted.
    changes: u64,
}

/// Where a queue stood when a savepoint was made.
#[derive(Clone, Default)]
pub struct AfterMark {
    deferred: usize,
    fired: usize,
    modes: Modes,
}

impl AfterQueue {
    /// Puts in line what a change asks for; true if it is time to sift.
    fn record(&mut self, target: &Target, change: &Change<'_>, session: &SessionCx) -> Result<bool> {
        let rules = self.rules(target, &session.catalog);
        self.changes += 1;
        self.arrivals += u64::from(!matches!(change, Change::Delete { .. }));
        let before = self.bytes;
        for rule in &rules.referenced {
            if let Some(gone) = rule.gone(change) {
                self.push(Event::Gone(rule.clone(), gone));
            }
        }
        for rule in &rules.references {
            if let Some(reference) = rule.reference(change, !(self.now.is_empty() && self.deferred.is_empty())) {
                self.push(Event::Reference(rule.clone(), reference));
            }
        }
        for rule in &rules.keys {
            let columns = rule.columns();
            let new = match *change {
                Change::Insert { row, .. } => row,
                Change::Update { old, new, .. } if encoded(columns, old) != encoded(columns, new) => new,
                Change::Update { .. } | Change::Delete { .. } => continue,
            };
            let values: Box<[Datum]> = columns.iter().map(|(p, _)| new[*p].clone()).collect();
            if !values.iter().any(Datum::is_null) {
                self.push(Event::Key(rule.clone(), values));
            }
        }
        if self.bytes != before {
            self.reserve(session)?;
        }
        Ok(self.now.len() + self.deferred.len() >= self.sift_at.max(SIFT_AFTER))
    }

    fn rules(&mut self, target: &Target, catalog: &Catalog) -> Arc<Rules> {
        if self.stamp != catalog.stamp {
            self.rules.clear();
            self.stamp = catalog.stamp;
        }
        self.rules.entry(target.table.oid).or_insert_with(|| Arc::new(Rules::new(target, catalog))).clone()
    }
    fn push(&mut self, event: Event) {
        let (oid, deferral) = event.constraint();
        self.bytes += event.bytes();
        if self.modes.is_deferred(oid, deferral) {
            self.deferred.push(Some(Arc::new(event)));
        } else {
            self.now.push_back(event);
        }
    }
    fn reserve(&mut self, session: &SessionCx) -> Result<()> {
        if self.held.is_none() {
            self.held = Some(session.memory.reservation("Checks after a change"));
        }
        self.held.as_mut().map_or(Ok(()), |held| held.set(self.bytes))
    }
    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.deferred.iter().all(Option::is_none)
    }
    /// Gives memory back when nothing is left.
    fn settle(&mut self) {
        if self.now.is_empty() && self.deferred.is_empty() && self.fired.is_empty() {
            (self.bytes, self.held, self.sift_at) = (0, None, 0);
        }
    }
    /// A deferred event was fired, or needs not be.
    fn strike(&mut self, at: usize) {
        let Some(event) = self.deferred.get_mut(at).and_then(Option::take) else { return };
        if at < self.saved {
            self.fired.push((at, event));
        } else {
            self.bytes -= event.bytes().min(self.bytes);
        }
    }
}

impl KeyRule {
    fn columns(&self) -> &[(usize, KeyColumn)] {
        self.target.indexes[self.index].codec.columns()
    }
}

/// Values of a row as one string of bytes that is equal for equal values.
pub(super) fn encoded(columns: &[(usize, KeyColumn)], row: &[Datum]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 * columns.len());
    columns.iter().for_each(|(position, column)| column.encode(&row[*position], &mut bytes));
    bytes
}

impl TxnHandle {
    /// A row was changed: what is to be checked or done for it is put in line. Call it with each row, after it was written.
    ///
    /// # Errors
    /// 53200; those of looking at what is in line already, when it has grown long.
    pub fn record(&self, target: &Target, change: Change<'_>, session: &SessionCx) -> Result<()> {
        if !target.has_after(&session.catalog) {
            return Ok(());
        }
        let rules = self.after().lock().rules(target, &session.catalog);
        for rule in &rules.keys {
            rule.announce(self, &change)?;
        }
        if self.after().lock().record(target, &change, session)? {
            sift(self, session)?;
        }
        Ok(())
    }
    /// How many rows came or changed in the transaction, and how many changed at all, of those that are looked after.
    pub(super) fn row_counts(&self) -> (u64, u64) {
        let queue = self.after().lock();
        (queue.arrivals, queue.changes)
    }
    /// A savepoint was released: with `last` there is none left.
    pub fn release_after(&self, last: bool) {
        let mut queue = self.after().lock();
        if last {
            (queue.saved, queue.fired) = (0, Vec::new());
            queue.deferred.retain(Option::is_some);
            queue.settle();
        }
    }
    /// Whether something is to be done before the transaction may commit.
    pub fn has_deferred(&self) -> bool {
        !self.after().lock().is_empty()
    }
    /// A place to go back to.
    pub fn mark_after(&self) -> AfterMark {
        let mut queue = self.after().lock();
        let mark = AfterMark { deferred: queue.deferred.len(), fired: queue.fired.len(), modes: queue.modes.clone() };
        queue.saved = queue.deferred.len();
        mark
    }
    /// Goes back there.
    pub fn undo_after(&self, mark: &AfterMark) {
        let mut guard = self.after().lock();
        let queue = &mut *guard;
        queue.now.clear();
        for (at, event) in queue.fired.drain(mark.fired.min(queue.fired.len())..) {
            queue.deferred[at] = Some(event);
        }
        queue.deferred.truncate(mark.deferred);
        queue.fired.retain(|(at, _)| *at < mark.deferred);
        queue.saved = mark.deferred;
        queue.modes = mark.modes.clone();
        let events = queue.deferred.iter().flatten().chain(queue.fired.iter().map(|(_, e)| e));
        queue.bytes = events.map(|e| e.bytes()).sum();
        queue.settle();
    }
    /// The statement failed: what it asked for at its end is not wanted any more.
    pub fn forget_statement(&self) {
        self.after().lock().now.clear();
    }
    /// The transaction is over.
    pub fn forget_after(&self) {
        let mut queue = self.after().lock();
        let (rules, stamp) = (std::mem::take(&mut queue.rules), queue.stamp);
        *queue = AfterQueue { rules, stamp, ..AfterQueue::default() };
    }
    /// The error for a statement that cannot go on while changes of a table are still to be checked.
    pub fn refuse_pending(&self, table: u32, name: &str, what: &str) -> Result<()> {
        let queue = self.after().lock();
        if queue.deferred.iter().flatten().any(|e| e.table() == table) {
            let message = format!("cannot {what} \"{name}\" because it has pending trigger events");
            return Err(SqlError::new("55006", message));
        }
        Ok(())
    }
    /// SET CONSTRAINTS: of all, or of some, by oid. What is immediate from now on is to be fired then: [`fire_statement`].
    pub fn set_constraints(&self, which: Option<&[u32]>, deferred: bool) {
        let mut guard = self.after().lock();
        let queue = &mut *guard;
        queue.is_due |= !deferred;
        match which {
            None => queue.modes = Modes { all: Some(deferred), some: FxHashMap::default() },
            Some(oids) => queue.modes.some.extend(oids.iter().map(|oid| (*oid, deferred))),
        }
    }
}

/// Fires what is in line for the end of the statement, and deferred events whose constraint is immediate by now.
///
/// # Errors
/// 23503 and 23505 for what does not hold; those of the rows that cascades change; 40001 in a transaction of one snapshot.
pub fn fire_statement(txn: &TxnHandle, session: &Arc<SessionCx>) -> Result<()> {
    fire(txn, session, false)
}

/// Fires everything: the transaction is about to commit.
///
/// # Errors
/// As [`fire_statement`].
pub fn fire_deferred(txn: &TxnHandle, session: &Arc<SessionCx>) -> Result<()> {
    fire(txn, session, true)
}

fn fire(txn: &TxnHandle, session: &Arc<SessionCx>, all: bool) -> Result<()> {
    if txn.after().lock().is_empty() {
        return Ok(());
    }
    let mut probe = Probe::acting(txn, session);
    let mut at = 0;
    let result = loop {
        if let Err(e) = probe.each_now(&mut |probe, event| event.fire(probe)) {
            break Err(e);
        }
        let next = {
            let queue = txn.after().lock();
            if !all && !queue.is_due {
                break Ok(());
            }
            let due = |e: &Event| {
                let (oid, deferral) = e.constraint();
                all || !queue.modes.is_deferred(oid, deferral)
            };
            (at..queue.deferred.len()).find_map(|i| Some((i, queue.deferred[i].as_ref().filter(|e| due(e))?.clone())))
        };
        let Some((found, event)) = next else {
            txn.after().lock().is_due = false;
            break Ok(());
        };
        at = found + 1;
        if let Err(e) = event.fire(&mut probe) {
            break Err(e);
        }
        txn.after().lock().strike(found);
    };
    let mut queue = txn.after().lock();
    if queue.saved == 0 {
        queue.deferred.retain(Option::is_some);
    }
    queue.settle();
    result
}

impl Probe<'_> {
    /// Takes events for the end of the statement out of the line, one by one, those that come in meanwhile too.
    fn each_now(&mut self, f: &mut dyn FnMut(&mut Self, &Event) -> Result<()>) -> Result<()> {
        let mut fired = 0u64;
        loop {
            let next = {
                let mut queue = self.txn.after().lock();
                let next = queue.now.pop_front();
                let bytes = next.as_ref().map_or(0, Event::bytes);
                queue.bytes -= bytes.min(queue.bytes);
                next
            };
            let Some(event) = next else { return Ok(()) };
            fired += 1;
            if fired.is_multiple_of(256) {
                self.session.check_cancel()?;
            }
            f(self, &event)?;
        }
    }
}

impl Event {
    fn fire(&self, probe: &mut Probe<'_>) -> Result<()> {
        match self {
            Event::Reference(rule, reference) => probe.current(rule).map_or(Ok(()), |r| r.check(reference, probe)),
            Event::Gone(rule, gone) => probe.current(rule).map_or(Ok(()), |r| r.act(gone, probe)),
            Event::Key(rule, values) => match rule.is_single(values, probe)? {
                true => Ok(()),
                false => Err(probe.txn.explain(rule.violation(values, probe.session))),
            },
        }
    }
    /// Whether it can be seen already that nothing is to be done.
    fn holds(&self, probe: &mut Probe<'_>) -> Result<bool> {
        match self {
            Event::Reference(rule, reference) => probe.current(rule).map_or(Ok(true), |r| r.holds(reference, probe)),
            Event::Gone(rule, gone) => probe.current(rule).map_or(Ok(true), |r| r.has_no_referrers(gone, probe)),
            Event::Key(rule, values) => rule.is_single(values, probe),
        }
    }
}

/// Drops events of which it can be seen already that they hold.
fn sift(txn: &TxnHandle, session: &SessionCx) -> Result<()> {
    let mut probe = Probe::new(txn, session);
    let (events, deferred) = {
        let mut queue = txn.after().lock();
        let deferred: Vec<(usize, Arc<Event>)> =
            (queue.saved..queue.deferred.len()).filter_map(|i| Some((i, queue.deferred[i].clone()?))).collect();
        (std::mem::take(&mut queue.now), deferred)
    };
    let mut kept = VecDeque::new();
    let mut result = Ok(());
    for event in events {
        match if result.is_ok() { event.holds(&mut probe) } else { Ok(false) } {
            Ok(true) => {
                let mut queue = txn.after().lock();
                queue.bytes -= event.bytes().min(queue.bytes);
            }
            Ok(false) => kept.push_back(event),
            Err(e) => result = Err(e),
        }
    }
    let mut held = Vec::new();
    for (at, event) in deferred {
        match if result.is_ok() { event.holds(&mut probe) } else { Ok(false) } {
            Ok(true) => held.push(at),
            Ok(false) => {}
            Err(e) => result = Err(e),
        }
    }
    let mut queue = txn.after().lock();
    for at in held {
        queue.strike(at);
    }
    let (saved, mut at) = (queue.saved, 0);
    queue.deferred.retain(|slot| {
        at += 1;
        at <= saved || slot.is_some()
    });
    queue.now = kept;
    // What does not hold yet is not looked at again before as much has come once more.
    queue.sift_at = 2 * (queue.now.len() + queue.deferred.len());
    result
}

impl KeyRule {
    /// Lets others know that a row comes under a key, or goes: who checks the key waits until it is known for good. Nobody waits for that here. Who is not
    /// the first waits at its own check, and finds there what became of the row of the first.
    fn announce(&self, txn: &TxnHandle, change: &Change<'_>) -> Result<()> {
        let columns = self.columns();
        let (old, new) = match *change {
            Change::Insert { row, .. } => (None, Some(row)),
            Change::Delete { old, .. } => (Some(old), None),
            Change::Update { old, new, .. } if encoded(columns, old) != encoded(columns, new) => (Some(old), Some(new)),
            Change::Update { .. } => (None, None),
        };
        for row in [old, new].into_iter().flatten() {
            if !columns.iter().any(|(p, _)| row[*p].is_null()) {
                let key = self.key(columns.iter().map(|(p, _)| &row[*p]));
                txn.locks().claim_with(self.target.table.oid, &key, Patience::Skip)?;
            }
        }
        Ok(())
    }
    /// What all entries of a key begin with.
    fn key<'v>(&self, values: impl Iterator<Item = &'v Datum>) -> Vec<u8> {
        let mut prefix = self.target.indexes[self.index].codec.prefix().to_vec();
        for ((_, column), value) in self.columns().iter().zip(values) {
            column.encode(value, &mut prefix);
        }
        prefix
    }
    /// Whether at most one row has this key, once nobody else is about to change that. Others who want it wait from now on.
    fn is_single(&self, values: &[Datum], probe: &mut Probe<'_>) -> Result<bool> {
        let prefix = self.key(values.iter());
        probe.txn.locks().claim(self.target.table.oid, &prefix)?;
        let mut scan = probe.view(true)?.scan_keys(keyspace::prefix_range(&prefix), Direction::Forward)?;
        Ok(scan.next()?.is_none() || scan.next()?.is_none())
    }
    fn violation(&self, values: &[Datum], session: &SessionCx) -> SqlError {
        let mut row = vec![Datum::Null; self.target.width()];
        for ((position, _), value) in self.columns().iter().zip(values) {
            row[*position] = value.clone();
        }
        let index = &self.target.indexes[self.index];
        unique_violation(&self.target.table, &index.name, self.columns().iter().map(|(p, _)| *p), &row, session)
    }
}

/// Oids of the constraints SET CONSTRAINTS names: in the first schema of the path that has one of the name, all of it.
///
/// # Errors
/// 42704 if there is none, 42809 if it is to be deferred and cannot be.
pub fn named_constraints(catalog: &Catalog, schemas: &[u32], name: &str, deferred: bool) -> Result<Vec<u32>> {
    for schema in schemas {
        let mut found: Vec<(u32, Deferral)> = Vec::new();
        for relation in catalog.relations.values() {
            let Relation::Table(table) = relation else { continue };
            if table.schema != *schema {
                continue;
            }
            let keys = table.foreign_keys.iter().filter(|k| k.name == name).map(|k| (k.oid, k.deferral));
            let indexes = table.indexes.iter().filter(|i| i.constraint && i.name == name).map(|i| (i.oid, i.deferral));
            let never = |oid| (oid, Deferral::Never);
            let primary = table.primary_key.iter().filter(|k| k.name == name).map(|k| never(k.oid));
            let checks = table.checks.iter().filter(|c| c.name == name).map(|c| never(c.oid));
            found.extend(keys.chain(indexes).chain(primary).chain(checks));
        }
        if found.is_empty() {
            continue;
        }
        if deferred && found.iter().any(|(_, d)| d.is_never()) {
            let message = format!("constraint \"{name}\" is not deferrable");
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
        }
        return Ok(found.into_iter().filter(|(_, d)| !d.is_never()).map(|(oid, _)| oid).collect());
    }
    Err(SqlError::new(state::UNDEFINED_OBJECT, format!("constraint \"{name}\" does not exist")))
}
