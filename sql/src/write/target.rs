//! A table made ready to be written, and the expressions of one change of it.

use std::sync::{Arc, OnceLock};

use crate::bind::{self, BindEnv};
use crate::catalog::Catalog;
use crate::catalog::schema::Table;
use crate::codec::{Decoder, IndexCodec, RowEncoder, RowKeyCodec};
use crate::error::Result;
use crate::exec::{self, ExecCx, RowBuffer, value};
use crate::functions::SessionCx;
use crate::ir::{Dml, DmlKind, Expr, ExprKind, Rel, RelKind, Subquery, SubqueryKind};
use crate::plan::PlanCx;
use crate::types::{Datum, Row, Type};

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
    /// Positions of the columns that unique keys are made of: who changes one of them changes the row's identity to foreign keys.
    pub key_columns: Vec<usize>,
    /// It has foreign keys, or keys that may be deferred.
    has_late_constraints: bool,
    /// Positions of columns that must not be NULL.
    not_null: Vec<usize>,
    /// All columns of a stored row.
    decoder: OnceLock<Decoder>,
    width: usize,
}

/// One index of a target.
pub struct TargetIndex {
    /// Its oid.
    pub oid: u32,
    /// Its name, that of the constraint too.
    pub name: String,
    /// It is unique and not valid: there may be several rows with one key, of which it has one.
    pub is_partial: bool,
    /// Its entries.
    pub codec: IndexCodec,
}

impl Target {
    /// Makes a table ready.
    pub fn new(table: &Arc<Table>) -> Target {
        let index = |i: &crate::catalog::schema::Index| TargetIndex {
            oid: i.oid,
            name: i.name.clone(),
            is_partial: i.unique && !i.valid,
            codec: IndexCodec::new(table, i),
        };
        let keys = RowKeyCodec::new(table);
        Target {
            key_columns: key_columns(table, &keys),
            keys,
            decoder: OnceLock::new(),
            has_late_constraints: !table.foreign_keys.is_empty()
                || table.indexes.iter().any(|i| !i.deferral.is_never()),
            encoder: RowEncoder::new(table),
            primary_after: table
                .primary_key
                .as_ref()
                .map_or(0, |k| table.indexes.iter().filter(|i| i.ready && i.oid < k.oid).count()),
            indexes: table.indexes.iter().filter(|i| i.ready).map(index).collect(),
            not_null: table.columns().enumerate().filter(|(_, c)| c.not_null).map(|(i, _)| i).collect(),
            width: table.width(),
            table: table.clone(),
        }
    }
    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Whether changes of its rows may ask for something at the end of the statement: see [`super::after`].
    pub fn has_after(&self, catalog: &Catalog) -> bool {
        self.has_late_constraints || catalog.is_referenced(self.table.oid)
    }
    /// Whether a new row can be refused for one that is there: some key of the table is unique.
    pub fn has_unique_keys(&self) -> bool {
        !self.key_columns.is_empty()
    }
    /// Fails with 23502 for a NULL where none may be.
    pub fn check_not_null(&self, row: &[Datum], session: &SessionCx) -> Result<()> {
        match self.not_null.iter().find(|p| row[**p].is_null()) {
            Some(position) => Err(not_null_violation(&self.table, *position, row, session)),
            None => Ok(()),
        }
    }
    /// The row's bytes, as a transaction of this number writes it.
    pub fn encode(&self, row: &[Datum], written_by: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + row.len() * 12);
        self.encoder.encode_by(row, written_by, &mut bytes);
        bytes
    }
    /// A row's values from its bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Row> {
        self.decoder.get_or_init(|| Decoder::all(&self.table)).decode(bytes)
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

/// Positions of the columns that a table's unique keys are made of.
pub fn key_columns(table: &Table, keys: &RowKeyCodec) -> Vec<usize> {
    let unique = table.indexes.iter().filter(|i| i.unique).flat_map(|i| &i.columns);
    let mut columns: Vec<usize> = keys.columns().iter().map(|(p, _)| *p).collect();
    columns.extend(unique.filter_map(|c| table.position(c.attnum)));
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Whether each row of a relation is one of a table's.
fn reads_one_table(rel: &Rel) -> bool {
    match &rel.kind {
        RelKind::Scan { .. } => true,
        RelKind::Filter { input, .. } | RelKind::Project { input, .. } => reads_one_table(input),
        _ => false,
    }
}

/// What makes a source row of an UPDATE or DELETE, above the rows that were joined: WHERE, and values computed behind the row. Evaluated again over
/// the target's newest row beside the very rows it was joined with, which is what PostgreSQL calls EvalPlanQual.
///
/// A subquery that PostgreSQL joins with is one of the rows that were joined: `x IN (SELECT ...)` holds while x is what it was, NOT EXISTS holds, and EXISTS if
/// a row of the subquery goes with the target as it was and as it is.
pub struct Recheck {
    /// WHERE, condition by condition, over the row as it is and then as it was.
    conditions: Vec<Condition>,
    /// Values behind the joined row, and how long that is.
    computed: Vec<exec::Prepared>,
    joined: usize,
}

impl Recheck {
    fn new(source: &Rel, cx: &PlanCx<'_>) -> Result<Recheck> {
        let (mut below, mut computed) = (source, Vec::new());
        if let RelKind::Project { input, exprs } = &below.kind {
            computed = exprs[input.schema.len()..].iter().map(|e| exec::prepare(e, cx)).collect::<Result<_>>()?;
            below = input;
        }
        let joined = below.schema.len();
        let mut conditions = Vec::new();
        if let RelKind::Filter { predicate, .. } = &below.kind {
            let parts = match &predicate.kind {
                ExprKind::And(parts) => parts.as_slice(),
                _ => std::slice::from_ref(predicate),
            };
            for part in parts.iter().filter(|part| !locks_rows(part)) {
                conditions.extend(Condition::new(part, joined, cx)?);
            }
        }
        Ok(Recheck { conditions, computed, joined })
    }

    /// Whether the source gives this row again in the place of the old one; then what was computed of it is computed anew.
    pub fn holds(&self, row: &mut Row, old: &[Datum], cx: &ExecCx) -> Result<bool> {
        row.truncate(self.joined);
        row.extend_from_slice(&old[..self.joined]);
        for condition in &self.conditions {
            if !condition.holds(row, cx)? {
                return Ok(false);
            }
        }
        row.truncate(self.joined);
        for i in 0..self.computed.len() {
            let value = self.computed[i].eval(row, cx)?;
            row.push(value);
        }
        Ok(true)
    }
}

/// A condition of a [`Recheck`].
enum Condition {
    /// It is true.
    True(exec::Prepared),
    /// Both values are the same.
    Same(exec::Prepared, exec::Prepared),
}

impl Condition {
    /// What is asked for a part of WHERE, over the new row and behind it, `joined` columns further on, the old one.
    fn new(part: &Expr, joined: usize, cx: &PlanCx<'_>) -> Result<Vec<Condition>> {
        let subquery = |e: &Expr| match &e.kind {
            ExprKind::Subquery(sub) => Some((**sub).clone()),
            _ => None,
        };
        if let ExprKind::Not(inner) = &part.kind
            && let Some(sub) = subquery(inner)
            && matches!(sub.kind, SubqueryKind::Exists)
            && is_joined(&sub)
        {
            return Ok(vec![]);
        }
        match subquery(part) {
            Some(Subquery {
                kind: SubqueryKind::Quantified { tests, funcs, all: false }, correlated: false, ..
            }) if funcs.iter().all(|f| f.name == "=" || f.name.ends_with("eq")) => {
                let pair = |test: &Expr| {
                    let mut old = test.clone();
                    bind::shift_columns(&mut old, joined);
                    Ok(Condition::Same(exec::prepare(test, cx)?, exec::prepare(&old, cx)?))
                };
                tests.iter().map(pair).collect()
            }
            Some(mut sub) if matches!(sub.kind, SubqueryKind::Exists) && is_joined(&sub) => {
                if let Some(predicate) = predicate_of(&mut sub.plan) {
                    let mut old = predicate.clone();
                    bind::shift_outer(&mut old, joined);
                    let both = vec![std::mem::replace(predicate, Expr::constant(Datum::Null, Type::BOOL)), old];
                    *predicate = Expr { kind: ExprKind::And(both), ty: Type::BOOL.plain() };
                }
                let exists = Expr { kind: ExprKind::Subquery(Box::new(sub)), ty: part.ty };
                Ok(vec![Condition::True(exec::prepare(&exists, cx)?)])
            }
            _ => Ok(vec![Condition::True(exec::prepare(part, cx)?)]),
        }
    }

    fn holds(&self, row: &[Datum], cx: &ExecCx) -> Result<bool> {
        Ok(match self {
            Condition::True(condition) => matches!(condition.eval(row, cx)?, Datum::Bool(true)),
            Condition::Same(new, old) => {
                let (new, old) = (new.eval(row, cx)?, old.eval(row, cx)?);
                !new.is_null() && !old.is_null() && value::order(&new, &old).is_eq()
            }
        })
    }
}

/// Whether PostgreSQL makes a join of an EXISTS: it reads the row around it, in its WHERE, over plain FROM items.
fn is_joined(sub: &Subquery) -> bool {
    sub.correlated && predicate_of(&mut sub.plan.clone()).is_some()
}

/// WHERE of a query that is nothing but FROM, WHERE and a select list.
fn predicate_of(rel: &mut Rel) -> Option<&mut Expr> {
    match &mut rel.kind {
        RelKind::Project { input, .. } | RelKind::Sort { input, .. } => predicate_of(input),
        RelKind::Filter { input, predicate } => {
            matches!(input.kind, RelKind::Scan { .. } | RelKind::Join { .. } | RelKind::CteScan { .. })
                .then_some(predicate)
        }
        _ => None,
    }
}

/// Whether a condition takes row locks itself. What it found it found locked, so that it holds still; asked again it would lock others.
fn locks_rows(e: &Expr) -> bool {
    let mut found = false;
    crate::plan::each_rel(e, &mut |rel| found |= matches!(rel.kind, RelKind::LockRows { .. }));
    found
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
    /// See [`Prepared::recheck`].
    recheck: OnceLock<Recheck>,
    /// The target's system columns are among what RETURNING may name.
    pub system: bool,
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
        prepared.system = dml.system;
        Ok(prepared)
    }

    fn bare(table: &Arc<Table>) -> Prepared {
        Prepared {
            target: Target::new(table),
            defaults: vec![],
            assignments: vec![],
            conflict: None,
            reaches_once: true,
            recheck: OnceLock::new(),
            system: false,
            checks: vec![],
            returning: None,
        }
    }

    /// UPDATE and DELETE: what is asked of a row again that another transaction changed before its lock was got. Made when it is first asked.
    pub fn recheck(&self, dml: &Dml, cx: &ExecCx) -> Result<Option<&Recheck>> {
        let (DmlKind::Update { source, .. } | DmlKind::Delete { source, .. }) = &dml.kind else { return Ok(None) };
        if let Some(made) = self.recheck.get() {
            return Ok(Some(made));
        }
        let made = Recheck::new(source, &PlanCx::new(&cx.session))?;
        Ok(Some(self.recheck.get_or_init(|| made)))
    }
    /// For rows that no statement names: those that foreign keys' actions change.
    pub fn of_table(table: &Arc<Table>, env: &BindEnv<'_>) -> Result<Prepared> {
        let (mut prepared, fields, plan_cx) = (Prepared::bare(table), table.fields(), PlanCx::new(env.session));
        for check in &table.checks {
            let expr = bind::bind_check(&check.expr, &fields, env)?;
            prepared.checks.push((Arc::from(check.name.as_str()), exec::prepare(&expr, &plan_cx)?));
        }
        Ok(prepared)
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
    /// xmin and ctid of a row that is written but not committed, where they are asked for.
    pub fn fresh_system(&self, row_stamp: u32) -> impl Iterator<Item = Datum> {
        let columns = self.system.then(|| [Datum::Oid(row_stamp), exec::nowhere()]);
        columns.into_iter().flatten()
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
