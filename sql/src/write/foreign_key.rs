//! One foreign key at work: whether what a row refers to is there, and what becomes of the rows that refer to a row that goes.
//!
//! ```text
//! child  (the referring table)                parent  (the table referred to)
//! check: look the key up, lock its row   ->   FOR KEY SHARE: it stays until this transaction ends
//! act:   rows found by the old key       <-   a row went, or has another key
//! ```
//!
//! Both look at what the transaction wrote itself, else at the newest committed version. A transaction of one snapshot checks a reference by its
//! snapshot, as PostgreSQL does, and fails with 40001 when the row it sees there is gone or an action meets a row its snapshot lacks.
//!
//! Why nothing slips through: a child's check holds KEY SHARE on the parent's row to the end of its transaction, and whoever takes that row away holds
//! UPDATE on it before it looks for children. So of two such transactions the later waits for the earlier and then sees what it did.
//!
//! Rows that refer are found by an index, or primary key, that begins with columns of the foreign key; else every row is read.

mod words;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::bee::{Direction, KeyRange};
use pgbee_engine::txn::ReadView;
use rustc_hash::FxHashMap;

use crate::bind::{self, AsOfResolver, BindEnv, ParamTypes};
use crate::catalog::Catalog;
use crate::catalog::schema::{Action, ForeignKey, Table};
use crate::codec::Decoder;
use crate::codec::key::KeyColumn;
use crate::codec::keyspace;
use crate::codec::row::is_stored_alike;
use crate::error::{Result, SqlError, state};
use crate::exec::{self, ExecCx};
use crate::functions::SessionCx;
use crate::lock::{Patience, RowMode};
use crate::plan::PlanCx;
use crate::types::{Datum, Row, Type};

use super::TxnHandle;
use super::after::{Change, encoded};
use super::constraints::{missing_reference, mixed_nulls, still_referenced};
use super::moves::Stay;
use super::referring::{as_referenced, is_one_key};
use super::row::{self, Locked};
use super::target::{Prepared, Target};

/// Rows read between two looks for a cancel.
const BATCH: usize = 256;

/// A foreign key with both its tables made ready.
pub struct ForeignKeyRule {
    /// Its definition.
    pub key: ForeignKey,
    /// The table whose rows refer.
    pub child: Arc<Target>,
    /// The table they refer to.
    pub parent: Arc<Target>,
    /// Positions of the referring columns, in the foreign key's order.
    child_columns: Vec<(usize, KeyColumn)>,
    /// Positions of the columns they refer to, in the same order.
    parent_columns: Vec<(usize, KeyColumn)>,
    /// The parent's index that has the key; none: its primary key.
    parent_index: Option<usize>,
    access: Access,
    child_rows: Decoder,
    /// The definitions it is of.
    stamp: u64,
    /// Names of the schemas of child and parent.
    schemas: [String; 2],
}

/// A row that refers: its check is still to be made.
pub struct Reference {
    /// The row's key.
    pub key: Box<[u8]>,
    /// What it refers to, in the foreign key's order.
    pub values: Box<[Datum]>,
    /// The row only has a new key: it is to be checked if its check under the old one could not be made.
    pub moved_from: Option<Box<[u8]>>,
}

/// Values that may be referred to and are no more.
pub struct Gone {
    /// The values, in the foreign key's order.
    pub old: Box<[Datum]>,
    /// What the row has now; none: it was deleted.
    pub new: Option<Box<[Datum]>>,
}

/// How rows that refer to given values are found.
enum Access {
    /// Under an index of the child, whose first columns are these of the foreign key.
    Index(usize, Vec<usize>),
    /// Under its primary key.
    Primary(Vec<usize>),
    /// By reading them all.
    All,
}

/// What an action needs to change rows of the child.
struct Writing {
    prepared: Prepared,
    /// The parent's value as the child's column has it; none where it is the same.
    casts: Vec<Option<exec::Prepared>>,
    defaults: Vec<Option<exec::Prepared>>,
}

/// What the checks of one moment have in common.
pub struct Probe<'a> {
    pub(super) txn: &'a TxnHandle,
    pub(super) session: &'a SessionCx,
    shared: Option<&'a Arc<SessionCx>>,
    /// The view taken last.
    view: Option<Seen>,
    /// Rows whose check could not be made, for they are not there any more, by foreign key.
    orphans: HashSet<(u32, Box<[u8]>)>,
    /// The key found last, and how many changes there had been.
    found: Option<(u32, Vec<u8>, u64)>,
    /// Foreign keys whose definitions changed since their checks were put in line; none: it was dropped.
    renewed: FxHashMap<u32, Option<Arc<ForeignKeyRule>>>,
    /// What actions need, by foreign key.
    writing: FxHashMap<u32, Arc<Writing>>,
}

/// A view, and the counts of rows that had come, and changed at all, when it was taken.
struct Seen {
    view: ReadView,
    arrivals: u64,
    changes: u64,
    /// Rows that move meanwhile are followed from it.
    _stay: Stay,
}

impl<'a> Probe<'a> {
    /// For checks alone.
    pub(super) fn new(txn: &'a TxnHandle, session: &'a SessionCx) -> Probe<'a> {
        let (renewed, writing) = (FxHashMap::default(), FxHashMap::default());
        Probe { txn, session, shared: None, view: None, orphans: HashSet::new(), found: None, renewed, writing }
    }
    /// For actions too, which may evaluate defaults and CHECKs.
    pub(super) fn acting(txn: &'a TxnHandle, session: &'a Arc<SessionCx>) -> Probe<'a> {
        Probe { shared: Some(session), ..Probe::new(txn, session) }
    }
    /// The newest committed version under the transaction's own writes. With `exact` all of these show; without, rows it removed may still be there.
    pub(super) fn view(&mut self, exact: bool) -> Result<ReadView> {
        let (arrivals, changes) = self.txn.row_counts();
        let database = self.txn.database();
        if let Some(seen) = &self.view
            && seen.view.version() == database.head()
            && if exact { seen.changes == changes } else { seen.arrivals == arrivals }
        {
            return Ok(seen.view.clone());
        }
        let (newest, stay) = loop {
            let newest = database.snapshot();
            if let Some(stay) = self.txn.moves().enter(newest.version()) {
                break (newest, stay);
            }
        };
        let view = self.txn.with(|t| {
            let base = t.base().clone();
            t.refresh(newest);
            // What it looks at stays so by locks, or is written: nothing of it need be validated at the commit.
            let view = t.view().unrecorded();
            t.refresh(base);
            Ok(view)
        })?;
        self.view = Some(Seen { view: view.clone(), arrivals, changes, _stay: stay });
        Ok(view)
    }
    /// A foreign key as it is now: definitions may have changed since a check was deferred. None: it was dropped.
    pub(super) fn current(&mut self, rule: &Arc<ForeignKeyRule>) -> Option<Arc<ForeignKeyRule>> {
        let catalog = &self.session.catalog;
        if rule.stamp == catalog.stamp {
            return Some(rule.clone());
        }
        let renew = || {
            let child = catalog.table(rule.child.table.oid)?;
            let key = child.foreign_keys.iter().find(|k| k.oid == rule.key.oid)?;
            ForeignKeyRule::new(child, key, catalog).map(Arc::new)
        };
        self.renewed.entry(rule.key.oid).or_insert_with(renew).clone()
    }
    fn exec(&mut self) -> Result<ExecCx> {
        let shared = self.shared.ok_or_else(|| SqlError::internal("an action where only checks are made"))?;
        let view = self.view(false)?;
        Ok(ExecCx::new(shared.clone(), self.txn.database().clone(), view, Vec::new(), None))
    }
}

impl ForeignKeyRule {
    /// Makes a foreign key of a table ready; None if the table it refers to is not there, which only a damaged catalog can bring about.
    pub fn new(child: &Arc<Table>, key: &ForeignKey, catalog: &Catalog) -> Option<ForeignKeyRule> {
        let parent = catalog.table(key.table)?;
        let child_columns = positions(child, &key.columns)?;
        let parent_columns = positions(parent, &key.referenced)?;
        let parent_index = match &parent.primary_key {
            Some(k) if k.oid == key.index => None,
            _ => Some(parent.indexes.iter().filter(|i| i.ready).position(|i| i.oid == key.index)?),
        };
        let access = Access::best(child, key, &child_columns, &parent_columns);
        Some(ForeignKeyRule {
            key: key.clone(),
            child_rows: Decoder::all(child),
            stamp: catalog.stamp,
            schemas: [child, parent]
                .map(|t| catalog.schemas.get(&t.schema).map(|s| s.name.clone()).unwrap_or_default()),
            child: Arc::new(Target::new(child)),
            parent: Arc::new(Target::new(parent)),
            child_columns,
            parent_columns,
            parent_index,
            access,
        })
    }
    /// What a change of the child asks to be checked. `is_awaited` tells whether checks of this foreign key may still be to come.
    pub(super) fn reference(&self, change: &Change<'_>, is_awaited: bool) -> Option<Reference> {
        let (key, new, moved_from) = match *change {
            Change::Insert { key, row } => (key, row, None),
            Change::Update { old_key, old, new_key, new } => {
                if encoded(&self.child_columns, old) != encoded(&self.child_columns, new) {
                    (new_key, new, None)
                } else if old_key != new_key && is_awaited {
                    (new_key, new, Some(old_key.into()))
                } else {
                    return None;
                }
            }
            Change::Delete { .. } => return None,
        };
        let nulls = self.child_columns.iter().filter(|(p, _)| new[*p].is_null()).count();
        if nulls > 0 && (!self.key.match_full || nulls == self.child_columns.len()) {
            return None;
        }
        Some(Reference { key: key.into(), values: values(&self.child_columns, new), moved_from })
    }
    /// What a change of the parent takes away. A value that is told in another way goes, too, even if it equals what was there: CASCADE is to carry it on,
    /// and RESTRICT refuses it, as in PostgreSQL.
    pub(super) fn gone(&self, change: &Change<'_>) -> Option<Gone> {
        let (old, new) = match *change {
            Change::Insert { .. } => return None,
            Change::Delete { old, .. } => (old, None),
            Change::Update { old, new, .. } => (old, Some(new)),
        };
        let has_null = self.parent_columns.iter().any(|(p, _)| old[*p].is_null());
        let stays = new.is_some_and(|new| self.parent_columns.iter().all(|(p, _)| is_stored_alike(&old[*p], &new[*p])));
        if has_null || stays {
            return None;
        }
        Some(Gone { old: values(&self.parent_columns, old), new: new.map(|new| values(&self.parent_columns, new)) })
    }
    fn action(&self, gone: &Gone) -> Action {
        if gone.new.is_some() { self.key.on_update } else { self.key.on_delete }
    }
    /// Only NO ACTION can wait for COMMIT.
    pub(super) fn may_be_deferred(&self, gone: &Gone) -> bool {
        self.action(gone) == Action::NoAction
    }

    // The child's side

    /// Fails with 23503 if a row refers to what is not there.
    pub(super) fn check(&self, reference: &Reference, probe: &mut Probe<'_>) -> Result<()> {
        if let Some(from) = &reference.moved_from
            && !probe.orphans.contains(&(self.key.oid, from.clone()))
        {
            return Ok(());
        }
        if !self.is_live(reference, probe)? {
            probe.orphans.insert((self.key.oid, reference.key.clone()));
            return Ok(());
        }
        if reference.values.iter().any(Datum::is_null) {
            return Err(mixed_nulls(self, probe.session));
        }
        let found = self.find_referenced(&reference.values, probe);
        match found.map_err(|e| e.context(|| self.lookup_text()))? {
            true => Ok(()),
            false => Err(missing_reference(self, &reference.values, probe.session)),
        }
    }
    /// Whether a check need not be made again at its time: what is referred to is there, and stays.
    pub(super) fn holds(&self, reference: &Reference, probe: &mut Probe<'_>) -> Result<bool> {
        let is_plain = reference.moved_from.is_none() && !reference.values.iter().any(Datum::is_null);
        Ok(is_plain && self.is_live(reference, probe)? && self.find_referenced(&reference.values, probe)?)
    }
    /// Whether the row still is there and refers to the same.
    fn is_live(&self, reference: &Reference, probe: &Probe<'_>) -> Result<bool> {
        let Some(bytes) = probe.txn.newest(&reference.key)? else { return Ok(false) };
        let row = self.child_rows.decode(&bytes)?;
        let is_same =
            |((position, column), value): (&(usize, KeyColumn), &Datum)| is_same(&row[*position], value, column);
        Ok(self.child_columns.iter().zip(&reference.values).all(is_same))
    }
    /// Looks for the row that values of the child refer to, and keeps it from going away.
    fn find_referenced(&self, values: &[Datum], probe: &mut Probe<'_>) -> Result<bool> {
        let types = self.child_columns.iter().zip(&self.parent_columns);
        let converted: Option<Vec<Datum>> =
            values.iter().zip(types).map(|(v, ((_, from), (_, to)))| as_referenced(v, from.ty, to.ty)).collect();
        match converted {
            Some(values) => self.find_parent(&values, probe.txn.is_fixed(), probe),
            None => Ok(false),
        }
    }
    /// The same by values of the parent's types. `by_snapshot`: what the transaction's snapshot does not show is not there.
    fn find_parent(&self, values: &[Datum], by_snapshot: bool, probe: &mut Probe<'_>) -> Result<bool> {
        let key = self.parent_key(values);
        let (_, changes) = probe.txn.row_counts();
        if probe.found.as_ref().is_some_and(|(oid, k, at)| (*oid, *at) == (self.key.oid, changes) && *k == key) {
            return Ok(true);
        }
        let found = self.lock_parent(&key, by_snapshot, probe.txn)?;
        if found {
            probe.found = Some((self.key.oid, key, changes));
        }
        Ok(found)
    }
    fn lock_parent(&self, key: &[u8], by_snapshot: bool, txn: &TxnHandle) -> Result<bool> {
        if by_snapshot {
            // The lock keeps the row, so there is nothing to be remembered of this look at the snapshot.
            let seen = match txn.written(key)? {
                Some(own) => own,
                None => txn.with(|t| Ok(t.base().get(key)?))?,
            };
            if seen.is_none() {
                return Ok(false);
            }
        }
        loop {
            let Some(value) = txn.newest(key)? else { break };
            let row_key = self.parent_row_key(key, &value)?;
            if txn.written(&row_key)?.is_some() {
                // Its own: others cannot take it away before it has ended.
                return Ok(true);
            }
            let mark = txn.locks().mark();
            txn.locks().row(self.parent.table.oid, &row_key, RowMode::KeyShare, Patience::Wait)?;
            match txn.newest(key)? {
                // A row key says all; under an index another row may have the key by now.
                Some(now) if self.parent_index.is_none() || now == value => return Ok(true),
                _ => txn.locks().release_since(mark),
            }
        }
        if by_snapshot { Err(changed_since(txn)) } else { Ok(false) }
    }
    /// The key under which the parent has such a row: the row's own, or that of an index entry.
    fn parent_key(&self, values: &[Datum]) -> Vec<u8> {
        let mut row = vec![Datum::Null; self.parent.width()];
        for ((position, _), value) in self.parent_columns.iter().zip(values) {
            row[*position] = value.clone();
        }
        match self.parent_index {
            None => self.parent.keys.encode(&row),
            Some(index) => self.parent.indexes[index].codec.unique_key(&row).unwrap_or_default(),
        }
    }
    fn parent_row_key(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        match self.parent_index {
            None => Ok(key.to_vec()),
            Some(index) => self.parent.indexes[index].codec.row_key(key, value),
        }
    }

    // The parent's side

    /// Does what the foreign key says about rows that refer to what is gone.
    pub(super) fn act(&self, gone: &Gone, probe: &mut Probe<'_>) -> Result<()> {
        match self.action(gone) {
            Action::NoAction => self.refuse(gone, true, probe),
            Action::Restrict => self.refuse(gone, false, probe),
            Action::Cascade if gone.new.is_none() => self.delete_referrers(gone, probe),
            Action::Cascade => self.update_referrers(gone, Set::New, probe),
            Action::SetNull => self.update_referrers(gone, Set::Null, probe),
            Action::SetDefault => {
                self.update_referrers(gone, Set::Default, probe)?;
                // A default that is what went leaves rows as they were: they are found now.
                self.refuse(gone, true, probe)
            }
        }
    }
    /// Whether nothing is to be done, whatever the action is.
    pub(super) fn has_no_referrers(&self, gone: &Gone, probe: &mut Probe<'_>) -> Result<bool> {
        let mut found = false;
        self.each_candidate(gone, probe, &mut |_, _, _| {
            found = true;
            Ok(false)
        })?;
        Ok(!found)
    }
    /// Fails with 23503 if a row refers to what is gone; with `may_return`, not if another row has its values by now.
    fn refuse(&self, gone: &Gone, may_return: bool, probe: &mut Probe<'_>) -> Result<()> {
        if may_return && self.find_parent(&gone.old, false, probe)? {
            return Ok(());
        }
        let (mut found, mut is_late) = (false, false);
        let result = self.each_referrer(gone, RowMode::KeyShare, probe, &mut |probe, key, _| {
            found = true;
            is_late = probe.txn.is_recording()? && !self.is_in_snapshot(key, probe.txn)?;
            Ok(false)
        });
        result.map_err(|e| e.context(|| self.referrers_text("SELECT 1 FROM ONLY", " FOR KEY SHARE OF x")))?;
        if !found {
            return Ok(());
        }
        let refused = still_referenced(self, &gone.old, probe.session);
        // It came while this transaction was there: run again on what there is now, there may be nothing to refuse.
        Err(if is_late { probe.txn.unless_dependent(refused) } else { refused })
    }
    fn delete_referrers(&self, gone: &Gone, probe: &mut Probe<'_>) -> Result<()> {
        let result = self.each_referrer(gone, RowMode::Update, probe, &mut |probe, key, old| {
            row::delete(&self.child, probe.txn, &old, key)?;
            probe.txn.record(&self.child, Change::Delete { key, old: &old }, probe.session)?;
            Ok(true)
        });
        result.map_err(|e| e.within(|| self.referrers_text("DELETE FROM ONLY", "")))
    }
    fn update_referrers(&self, gone: &Gone, set: Set, probe: &mut Probe<'_>) -> Result<()> {
        let exec = probe.exec()?;
        let writing = self.writing(&exec, probe)?;
        let columns: Vec<usize> = (0..self.key.columns.len())
            .filter(|i| {
                let some = &self.key.set_columns;
                gone.new.is_some() || some.is_empty() || some.contains(&self.key.columns[*i])
            })
            .collect();
        let value = |i: usize| match (set, &gone.new, &writing.casts[i], &writing.defaults[i]) {
            (Set::New, Some(new), Some(cast), _) => cast.eval(std::slice::from_ref(&new[i]), &exec),
            (Set::New, Some(new), None, _) => Ok(new[i].clone()),
            (Set::Default, _, _, Some(default)) => default.eval(&[], &exec),
            _ => Ok(Datum::Null),
        };
        let changes_key = columns.iter().any(|i| self.child.key_columns.contains(&self.child_columns[*i].0));
        let mode = if changes_key { RowMode::Update } else { RowMode::NoKeyUpdate };
        let result = self.each_referrer(gone, mode, probe, &mut |probe, key, old| {
            let mut new = old.clone();
            for i in &columns {
                new[self.child_columns[*i].0] = value(*i)?;
            }
            writing.prepared.check(&new, &exec)?;
            let new_key = row::update(&self.child, probe.txn, &old, key, &new, probe.session)?;
            let change = Change::Update { old_key: key, old: &old, new_key: &new_key, new: &new };
            probe.txn.record(&self.child, change, probe.session)?;
            Ok(true)
        });
        result.map_err(|e| e.within(|| self.update_text(&columns, set)))
    }
    fn writing(&self, exec: &ExecCx, probe: &mut Probe<'_>) -> Result<Arc<Writing>> {
        if let Some(known) = probe.writing.get(&self.key.oid) {
            return Ok(known.clone());
        }
        let session = &exec.session;
        let params = ParamTypes::none();
        let env = BindEnv {
            catalog: session.catalog.clone(),
            search_path: session.search_path.clone(),
            params: &params,
            resolver: &NoPast,
            session,
        };
        let plan_cx = PlanCx::new(session);
        let column = |attnum: i16| self.child.table.columns().find(|c| c.attnum == attnum);
        let (mut casts, mut defaults) = (Vec::new(), Vec::new());
        for (i, attnum) in self.key.columns.iter().enumerate() {
            let column = column(*attnum).ok_or_else(|| SqlError::internal("a foreign key of no column"))?;
            let from = self.parent.table.columns().find(|c| c.attnum == self.key.referenced[i]);
            let from = from.ok_or_else(|| SqlError::internal("a foreign key to no column"))?.type_mod();
            let cast = match from == column.type_mod() {
                true => None,
                false => bind::assignment_cast(from, column.type_mod(), &env)?,
            };
            casts.push(cast.map(|e| exec::prepare(&e, &plan_cx)).transpose()?);
            defaults.push(bind::column_default(column, &env)?.map(|e| exec::prepare(&e, &plan_cx)).transpose()?);
        }
        let prepared = Prepared::of_table(&self.child.table, &env)?;
        let writing = Arc::new(Writing { prepared, casts, defaults });
        probe.writing.insert(self.key.oid, writing.clone());
        Ok(writing)
    }

    /// Calls back with each row that refers to what is gone, locked, as it is now, until the callback says no.
    fn each_referrer(
        &self,
        gone: &Gone,
        mode: RowMode,
        probe: &mut Probe<'_>,
        f: &mut dyn FnMut(&mut Probe<'_>, &[u8], Row) -> Result<bool>,
    ) -> Result<()> {
        let wanted = self.wanted(&gone.old);
        let changes = mode != RowMode::KeyShare;
        self.each_candidate(gone, probe, &mut |probe, key, seen| {
            let txn = probe.txn;
            let mark = txn.locks().mark();
            let locked = row::lock_row(txn, self.child.table.oid, key, seen, mode, Patience::Wait)?;
            let moved;
            let key = match locked {
                Locked::Same => key,
                Locked::Changed { key, .. } => {
                    moved = key;
                    &moved[..]
                }
                Locked::Gone { .. } | Locked::Skipped => return Ok(true),
            };
            let Some(bytes) = txn.newest(key)? else { return Ok(true) };
            let row = self.child_rows.decode(&bytes)?;
            if !self.refers(&row, &wanted) {
                txn.locks().release_since(mark);
                return Ok(true);
            }
            if changes && txn.is_fixed() && !self.is_in_snapshot(key, txn)? {
                return Err(row::concurrent("update"));
            }
            f(probe, key, row)
        })
    }
    /// Calls back with the keys of rows that refer to what is gone, as far as can be seen without a lock, and the version they were seen at.
    fn each_candidate(
        &self,
        gone: &Gone,
        probe: &mut Probe<'_>,
        f: &mut dyn FnMut(&mut Probe<'_>, &[u8], pgbee_engine::Version) -> Result<bool>,
    ) -> Result<()> {
        let Some(range) = self.range(&gone.old) else { return Ok(()) };
        let wanted = self.wanted(&gone.old);
        let view = probe.view(false)?;
        let by_entries = matches!(self.access, Access::Index(..));
        let mut scan = view.scan(range, Direction::Forward)?;
        let mut batch: Vec<(Bytes, Bytes)> = Vec::with_capacity(BATCH);
        while scan.next_batch(&mut batch, BATCH)? > 0 {
            probe.session.check_cancel()?;
            for (key, value) in batch.drain(..) {
                let key = match &self.access {
                    Access::Index(at, _) => Bytes::from(self.child.indexes[*at].codec.row_key(&key, &value)?),
                    Access::Primary(_) | Access::All => key,
                };
                // As the view has it: what became of it since, another key even, is known when it is locked.
                let row = match probe.txn.written(&key)? {
                    Some(own) => own,
                    None if by_entries => view.get(&key)?,
                    None => Some(value),
                };
                let is_candidate = match row {
                    Some(bytes) => self.refers(&self.child_rows.decode(&bytes)?, &wanted),
                    None => false,
                };
                if is_candidate && !f(probe, &key, view.version())? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
    /// Whether a row is as the transaction's snapshot has it, or its own.
    fn is_in_snapshot(&self, key: &[u8], txn: &TxnHandle) -> Result<bool> {
        if txn.written(key)?.is_some() {
            return Ok(true);
        }
        let base = txn.with(|t| Ok(t.base().version()))?;
        Ok(txn.database().snapshot().get_entry(key)?.is_some_and(|e| e.seq.0 < base.0))
    }
    /// Values of the parent in the form [`ForeignKeyRule::refers`] compares with.
    fn wanted(&self, values: &[Datum]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 * values.len());
        self.parent_columns.iter().zip(values).for_each(|((_, column), value)| column.encode(value, &mut bytes));
        bytes
    }
    fn refers(&self, row: &[Datum], wanted: &[u8]) -> bool {
        let mut bytes = Vec::with_capacity(wanted.len());
        for ((position, from), (_, to)) in self.child_columns.iter().zip(&self.parent_columns) {
            match as_referenced(&row[*position], from.ty, to.ty) {
                Some(value) if !value.is_null() => to.encode(&value, &mut bytes),
                _ => return false,
            }
        }
        bytes == wanted
    }
    /// Where rows that refer to these values can be; None if no value of the child's type equals one of them.
    fn range(&self, values: &[Datum]) -> Option<KeyRange> {
        let (mut prefix, columns, leading) = match &self.access {
            Access::All => return Some(keyspace::table_range(self.child.table.oid)),
            Access::Index(at, leading) => {
                let codec = &self.child.indexes[*at].codec;
                (codec.prefix().to_vec(), codec.columns(), leading)
            }
            Access::Primary(leading) => (self.child.keys.prefix().to_vec(), self.child.keys.columns(), leading),
        };
        for ((_, column), i) in columns.iter().zip(leading) {
            let value = as_referenced(&values[*i], self.parent_columns[*i].1.ty, self.child_columns[*i].1.ty)?;
            column.encode(&value, &mut prefix);
        }
        Some(keyspace::prefix_range(&prefix))
    }
}

/// What an action sets the referring columns to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    New,
    Null,
    Default,
}

/// 40001: what the transaction's snapshot shows is not there any more.
fn changed_since(txn: &TxnHandle) -> SqlError {
    txn.unless_dependent(row::concurrent("update"))
}

/// Defaults and CHECKs read nothing, so nothing of another version.
struct NoPast;

impl AsOfResolver for NoPast {
    fn version_at(&self, _micros: i64) -> Result<u64> {
        Err(SqlError::internal("a constraint reads the past"))
    }
    fn catalog_at(&self, _version: u64) -> Result<Arc<Catalog>> {
        Err(SqlError::new(state::INTERNAL_ERROR, "a constraint reads the past"))
    }
}

impl Access {
    /// The key of the child that begins with the most columns of the foreign key.
    fn best(
        child: &Table,
        key: &ForeignKey,
        child_columns: &[(usize, KeyColumn)],
        parent_columns: &[(usize, KeyColumn)],
    ) -> Access {
        let leading = |attnums: &mut dyn Iterator<Item = i16>| {
            let of_key = |a: i16| {
                let at = key.columns.iter().position(|c| *c == a)?;
                is_one_key(child_columns[at].1.ty, parent_columns[at].1.ty).then_some(at)
            };
            attnums.map_while(of_key).collect::<Vec<usize>>()
        };
        let mut best = Access::All;
        let mut most = 0;
        if let Some(primary) = &child.primary_key {
            let found = leading(&mut primary.columns.iter().copied());
            if found.len() > most {
                (most, best) = (found.len(), Access::Primary(found));
            }
        }
        // Counted as a target counts them; only valid ones have an entry for every row.
        for (at, index) in child.indexes.iter().filter(|i| i.ready).enumerate().filter(|(_, i)| i.valid) {
            let found = leading(&mut index.columns.iter().map(|c| c.attnum));
            if found.len() > most {
                (most, best) = (found.len(), Access::Index(at, found));
            }
        }
        best
    }
}

fn positions(table: &Table, attnums: &[i16]) -> Option<Vec<(usize, KeyColumn)>> {
    let one = |attnum: &i16| {
        let position = table.position(*attnum)?;
        let column = table.columns().nth(position)?;
        Some((position, KeyColumn::index(Type(column.ty), false, false)))
    };
    attnums.iter().map(one).collect()
}

fn values(columns: &[(usize, KeyColumn)], row: &[Datum]) -> Box<[Datum]> {
    columns.iter().map(|(position, _)| row[*position].clone()).collect()
}

fn is_same(a: &Datum, b: &Datum, column: &KeyColumn) -> bool {
    let mut bytes = [Vec::new(), Vec::new()];
    column.encode(a, &mut bytes[0]);
    column.encode(b, &mut bytes[1]);
    bytes[0] == bytes[1]
}
