//! A table made ready to be written, and the expressions of one change of it.

use std::sync::Arc;

use crate::catalog::schema::Table;
use crate::codec::keyspace::{self, Kind};
use crate::codec::{IndexCodec, RowEncoder, RowKeyCodec};
use crate::error::Result;
use crate::exec::{self, ExecCx, RowBuffer};
use crate::functions::SessionCx;
use crate::ir::{Dml, DmlKind, Expr, Rel, RelKind};
use crate::plan::PlanCx;
use crate::types::{Datum, Row};

use super::TxnHandle;
use super::constraints::{check_violation, is_true_or_null, not_null_violation, unique_violation};

/// One table with its codecs.
pub struct Target {
    /// The table.
    pub table: Arc<Table>,
    /// Keys of its rows.
    pub keys: RowKeyCodec,
    /// Its rows' bytes.
    pub encoder: RowEncoder,
    /// Its secondary indexes.
    pub indexes: Vec<TargetIndex>,
    /// How many of the indexes are older than the primary key: unique keys are checked in the order they were made.
    pub primary_after: usize,
    /// Positions of columns that must not be NULL.
    not_null: Vec<usize>,
    width: usize,
}

/// One index of a target.
pub struct TargetIndex {
    /// Its oid.
    pub oid: u32,
    /// Its name, that of the constraint too.
    pub name: String,
    /// Its entries.
    pub codec: IndexCodec,
}

impl Target {
    /// Makes a table ready.
    pub fn new(table: &Arc<Table>) -> Target {
        let index = |i: &crate::catalog::schema::Index| TargetIndex {
            oid: i.oid,
            name: i.name.clone(),
            codec: IndexCodec::new(table, i),
        };
        Target {
            keys: RowKeyCodec::new(table),
            encoder: RowEncoder::new(table),
            primary_after: table
                .primary_key
                .as_ref()
                .map_or(0, |k| table.indexes.iter().filter(|i| i.oid < k.oid).count()),
            indexes: table.indexes.iter().map(index).collect(),
            not_null: table.columns().enumerate().filter(|(_, c)| c.not_null).map(|(i, _)| i).collect(),
            width: table.width(),
            table: table.clone(),
        }
    }
    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.width
    }
    /// The commit fails if the table's definition changes meanwhile.
    pub fn depend(&self, txn: &TxnHandle) -> Result<()> {
        txn.with(|t| {
            t.depend_key(keyspace::definition(Kind::Table, self.table.oid));
            Ok(())
        })
    }
    /// Fails with 23502 for a NULL where none may be.
    pub fn check_not_null(&self, row: &[Datum], session: &SessionCx) -> Result<()> {
        match self.not_null.iter().find(|p| row[**p].is_null()) {
            Some(position) => Err(not_null_violation(&self.table, *position, row, session)),
            None => Ok(()),
        }
    }
    /// The row's bytes.
    pub fn encode(&self, row: &[Datum]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + row.len() * 12);
        self.encoder.encode(row, &mut bytes);
        bytes
    }
    /// Locks what a new row claims: its key, if it is not a row id, and its unique keys.
    pub fn lock_new(&self, row: &[Datum], txn: &TxnHandle) -> Result<()> {
        if !self.keys.by_row_id() {
            txn.lock(&self.keys.encode(row))?;
        }
        self.lock_unique(row, txn)
    }
    /// Locks the unique keys of a row.
    pub fn lock_unique(&self, row: &[Datum], txn: &TxnHandle) -> Result<()> {
        for index in &self.indexes {
            if let Some(key) = index.codec.unique_key(row) {
                txn.lock(&key)?;
            }
        }
        Ok(())
    }
    /// Name of the primary key's constraint.
    pub fn primary_name(&self) -> &str {
        self.table.primary_key.as_ref().map_or("", |k| &k.name)
    }
    /// 23505 for the primary key.
    pub fn primary_violation(&self, row: &[Datum], session: &SessionCx) -> crate::SqlError {
        unique_violation(&self.table, self.primary_name(), self.keys.columns().iter().map(|(p, _)| *p), row, session)
    }
    /// 23505 for an index.
    pub fn index_violation(&self, index: &TargetIndex, row: &[Datum], session: &SessionCx) -> crate::SqlError {
        unique_violation(&self.table, &index.name, index.codec.columns().iter().map(|(p, _)| *p), row, session)
    }
}

/// Whether each row of a relation is one of a table's.
fn reads_one_table(rel: &Rel) -> bool {
    match &rel.kind {
        RelKind::Scan { .. } => true,
        RelKind::Filter { input, .. } | RelKind::Project { input, .. } => reads_one_table(input),
        _ => false,
    }
}

/// ON CONFLICT DO UPDATE: assignments, and WHERE.
pub type ConflictUpdate = (Vec<(usize, exec::Prepared)>, Option<exec::Prepared>);

/// A change with its expressions ready to be evaluated.
pub struct Prepared {
    /// The table.
    pub target: Target,
    /// INSERT: values of columns the source does not give.
    pub defaults: Vec<(usize, exec::Prepared)>,
    /// UPDATE: the assignments.
    pub assignments: Vec<(usize, exec::Prepared)>,
    /// ON CONFLICT DO UPDATE: assignments and WHERE.
    pub conflict: Option<ConflictUpdate>,
    /// UPDATE and DELETE: no FROM or USING can bring a row more than once.
    pub reaches_once: bool,
    checks: Vec<(Arc<str>, exec::Prepared)>,
    returning: Option<Vec<exec::Prepared>>,
}

impl Prepared {
    /// Prepares a change.
    pub fn new(dml: &Dml, cx: &ExecCx) -> Result<Prepared> {
        let plan_cx = PlanCx::new(&cx.session);
        let one = |e: &Expr| exec::prepare(e, &plan_cx);
        let each = |list: &[(usize, Expr)]| list.iter().map(|(p, e)| Ok((*p, one(e)?))).collect::<Result<Vec<_>>>();
        let checked = |list: &[crate::ir::Check]| {
            list.iter().map(|c| Ok((c.name.clone(), one(&c.expr)?))).collect::<Result<Vec<_>>>()
        };
        let returning =
            dml.returning.as_ref().map(|list| list.iter().map(one).collect::<Result<Vec<_>>>()).transpose()?;
        let mut prepared = match &dml.kind {
            DmlKind::Insert { table, columns, defaults, checks, on_conflict, .. } => {
                let mut prepared = Prepared::bare(table);
                let missing = defaults.iter().enumerate().filter(|(p, _)| !columns.contains(p));
                prepared.defaults =
                    missing.filter_map(|(p, e)| Some(one(e.as_ref()?).map(|e| (p, e)))).collect::<Result<_>>()?;
                prepared.checks = checked(checks)?;
                if let Some((sets, filter)) = on_conflict.as_ref().and_then(|c| c.update.as_ref()) {
                    prepared.conflict = Some((each(sets)?, filter.as_ref().map(one).transpose()?));
                }
                prepared
            }
            DmlKind::Update { table, source, assignments, checks } => {
                let mut prepared = Prepared::bare(table);
                prepared.reaches_once = reads_one_table(source);
                prepared.assignments = each(assignments)?;
                prepared.checks = checked(checks)?;
                prepared
            }
            DmlKind::Delete { table, source } => {
                Prepared { reaches_once: reads_one_table(source), ..Prepared::bare(table) }
            }
        };
        prepared.returning = returning;
        Ok(prepared)
    }

    fn bare(table: &Arc<Table>) -> Prepared {
        Prepared {
            target: Target::new(table),
            defaults: vec![],
            assignments: vec![],
            conflict: None,
            reaches_once: true,
            checks: vec![],
            returning: None,
        }
    }

    /// Fails unless a new row satisfies NOT NULL and CHECK.
    pub fn check(&self, row: &[Datum], cx: &ExecCx) -> Result<()> {
        self.target.check_not_null(row, &cx.session)?;
        for (name, check) in &self.checks {
            if !is_true_or_null(&check.eval(row, cx)?) {
                return Err(check_violation(&self.target.table, name, row, &cx.session));
            }
        }
        Ok(())
    }
    /// Evaluates RETURNING over a row, if asked for.
    pub fn return_row(&self, row: &[Datum], cx: &ExecCx, out: &mut RowBuffer) -> Result<()> {
        if let Some(list) = &self.returning {
            out.push(&list.iter().map(|e| e.eval(row, cx)).collect::<Result<Row>>()?)?;
        }
        Ok(())
    }
    /// A place for the rows of RETURNING.
    pub fn returned(&self, cx: &ExecCx) -> RowBuffer {
        RowBuffer::new(self.returning.as_ref().map_or(0, Vec::len), cx.session.work_mem_bytes)
    }
    /// Whether rows are to be returned.
    pub fn returns(&self) -> bool {
        self.returning.is_some()
    }
}
