//! Queries and changes: bound, planned, kept while the definitions stay, run.

use std::sync::Arc;

use super::Session;
use super::outcome::{Outcome, Step};
use super::transaction::{StatementCx, resolver};
use crate::bind::{self, BindEnv, Bound, ParamTypes};
use crate::error::Result;
use crate::exec::{self, Batch, BufferPlace, Cursor, RowBuffer};
use crate::ir::{Field, Rel, RelKind};
use crate::lock::{RowMode, TableMode};
use crate::parse::ast::{self, StatementKind};
use crate::plan::{self, Physical, PlanCx};
use crate::types::{Datum, Row};
use crate::write::{DmlPlans, Writer};

/// A statement planned under certain definitions.
pub(super) struct Planned {
    stamp: u64,
    search_path: Vec<u32>,
    /// The time it counts an AS OF from, if it has such a one.
    moment: Option<i64>,
    /// When it was made, in microseconds since 2000.
    made: i64,
    /// How to run it.
    pub plan: Arc<Physical>,
    /// Shape of its rows.
    pub fields: Arc<[Field]>,
    /// What is locked before it runs.
    pub relations: Vec<(u32, TableMode)>,
    /// It changes rows.
    pub writes: bool,
    /// It locks rows that it gives.
    pub locks: Option<RowMode>,
    /// It gives rows (a change does with RETURNING).
    pub gives_rows: bool,
    /// More than one change is in it.
    several: bool,
    tag: Tag,
    dml: Arc<DmlPlans>,
}

/// How long a plan shared by simple statements is used before row counts are looked at again.
const PLAN_MICROS_MAX: i64 = 60_000_000;

/// The tag a statement ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Select,
    Insert,
    Update,
    Delete,
}

impl Tag {
    /// The tag with its number of rows.
    pub fn text(self, rows: u64) -> String {
        match self {
            Tag::Select => format!("SELECT {rows}"),
            Tag::Insert => format!("INSERT 0 {rows}"),
            Tag::Update => format!("UPDATE {rows}"),
            Tag::Delete => format!("DELETE {rows}"),
        }
    }
    fn command(self) -> &'static str {
        match self {
            Tag::Select => "SELECT",
            Tag::Insert => "INSERT",
            Tag::Update => "UPDATE",
            Tag::Delete => "DELETE",
        }
    }
}

impl Planned {
    /// Whether it means the same in this statement.
    pub fn is_current(&self, statement: &StatementCx) -> bool {
        self.stamp == statement.cx.catalog.stamp
            && self.search_path == statement.cx.search_path
            && self.moment.is_none_or(|m| m == statement.cx.statement_micros)
    }
    /// Whether it holds only for the statement it was made for.
    pub fn is_for_now(&self) -> bool {
        self.moment.is_some()
    }
    /// Whether it was made so long ago that tables may have other sizes now.
    pub fn is_old(&self, statement: &StatementCx) -> bool {
        !(0..PLAN_MICROS_MAX).contains(&(statement.cx.statement_micros - self.made))
    }
    /// Bytes it takes, about.
    pub fn bytes(&self) -> usize {
        const COLUMN: usize = 160;
        const OPERATOR: usize = 1024;
        (self.plan.names.0.len() + self.fields.len()) * COLUMN + self.plan.nodes * OPERATOR
    }
    /// Whether two statements do the same kind of thing.
    pub fn has_kind_of(&self, other: &Planned) -> bool {
        let kind = |p: &Planned| (p.tag, p.writes, p.locks, p.gives_rows, p.several);
        kind(self) == kind(other)
    }
}

/// Whether a statement is bound and planned, rather than carried out by the session.
pub(super) fn is_query(kind: &StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::Query(_) | StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_)
    )
}

/// Changes in a relation: at its top and in the WITH clauses above.
fn changes(rel: &Rel) -> usize {
    match &rel.kind {
        RelKind::Dml(_) => 1,
        RelKind::With { ctes, body } => ctes.iter().map(|c| changes(&c.definition)).sum::<usize>() + changes(body),
        _ => 0,
    }
}

/// Rows on their way to the client.
pub(super) struct Rows {
    source: Source,
    /// Shape.
    pub fields: Arc<[Field]>,
    /// Columns sent in binary form.
    pub binary: Arc<[bool]>,
    /// Rows given since the last Execute.
    sent: u64,
    /// How many may still be given before the portal is suspended.
    left: Option<usize>,
    ending: Ending,
}

/// The tag behind rows.
pub(super) enum Ending {
    /// Counts them.
    Counted(Tag),
    /// The same however many there are.
    Fixed(&'static str),
}

enum Source {
    Cursor(Box<Cursor>),
    Buffer(RowBuffer, BufferPlace),
}

/// Rows handed out at a time.
const BATCH: usize = 1024;

impl Rows {
    /// All rows are here already.
    pub fn buffered(rows: RowBuffer, fields: Arc<[Field]>, ending: Ending) -> Rows {
        Rows {
            source: Source::Buffer(rows, BufferPlace::default()),
            binary: text_formats(fields.len()),
            fields,
            sent: 0,
            left: None,
            ending,
        }
    }
    /// Of a running query.
    fn running(cursor: Cursor, fields: Arc<[Field]>) -> Rows {
        Rows {
            source: Source::Cursor(Box::new(cursor)),
            binary: text_formats(fields.len()),
            fields,
            sent: 0,
            left: None,
            ending: Ending::Counted(Tag::Select),
        }
    }
    /// Whether rows that are all here are in a file.
    #[cfg(test)]
    pub fn is_spilled(&self) -> bool {
        matches!(&self.source, Source::Buffer(rows, _) if rows.is_spilled())
    }
    /// Reads all rows now.
    pub fn settle(&mut self) -> Result<()> {
        if let Source::Cursor(cursor) = &mut self.source {
            self.source = Source::Buffer(cursor.gather()?, BufferPlace::default());
        }
        Ok(())
    }
    /// What the server is told.
    pub fn outcome(&self) -> Outcome {
        Outcome::Rows { fields: self.fields.clone(), binary: self.binary.clone() }
    }
    /// Begins an Execute, which is for at most so many rows and whose tag counts its own.
    pub fn go_on(&mut self, limit: Option<usize>) {
        (self.left, self.sent) = (limit, 0);
    }
    /// The next rows.
    pub fn step(&mut self) -> Result<Step> {
        if self.left == Some(0) {
            return Ok(Step::Suspended);
        }
        let max = self.left.unwrap_or(BATCH).min(BATCH);
        let rows = match &mut self.source {
            Source::Cursor(cursor) => cursor.next_rows(max)?.unwrap_or_default(),
            Source::Buffer(rows, place) => read(rows, place, max)?.unwrap_or_default(),
        };
        if rows.is_empty() {
            let tag = match self.ending {
                Ending::Counted(tag) => tag.text(self.sent),
                Ending::Fixed(tag) => tag.to_owned(),
            };
            return Ok(Step::Done { tag });
        }
        self.sent += rows.len() as u64;
        self.left = self.left.map(|n| n - rows.len());
        Ok(Step::Rows(rows))
    }
}

/// The next rows of a buffer; None at its end.
fn read(rows: &mut RowBuffer, place: &mut BufferPlace, max: usize) -> Result<Option<Vec<Row>>> {
    let mut batch = Batch::new(rows.width());
    batch.target = max;
    Ok(rows.read(place, &mut batch)?.then(|| batch.take_rows()))
}

/// All columns as text.
pub(super) fn text_formats(columns: usize) -> Arc<[bool]> {
    std::iter::repeat_n(false, columns).collect()
}

/// What running a statement gave.
pub(super) enum Ran {
    /// Rows to be fetched.
    Rows(Rows),
    /// It is done.
    Tag(String),
}

impl Session {
    /// Binds and plans a statement.
    pub(super) fn plan(&self, statement: &ast::Statement, params: &ParamTypes, cx: &StatementCx) -> Result<Planned> {
        let env = BindEnv {
            catalog: cx.cx.catalog.clone(),
            search_path: cx.cx.search_path.clone(),
            params,
            resolver: resolver(&self.shared),
            session: &cx.cx,
        };
        let (bound, is_relative) = bind::bind_to_keep(statement, &env)?;
        let writes = bound.writes();
        let (tag, gives_rows) = match (&statement.kind, &bound) {
            (_, Bound::Query(_)) => (Tag::Select, true),
            (StatementKind::Insert(_), b) => (Tag::Insert, returns(b)),
            (StatementKind::Update(_), b) => (Tag::Update, returns(b)),
            (StatementKind::Delete(_), b) => (Tag::Delete, returns(b)),
            _ => return Err(crate::SqlError::internal("a statement without rows was planned")),
        };
        let (Bound::Query(rel) | Bound::Dml(rel)) = bound else {
            return Err(crate::SqlError::internal("a statement without rows was planned"));
        };
        let several = changes(&rel) > 1;
        let relations = plan::relations(&rel, &cx.cx.catalog);
        let locks = plan::locks_rows(&rel);
        let plan = Arc::new(plan::plan(rel, &PlanCx::new(&cx.cx))?);
        Ok(Planned {
            stamp: cx.cx.catalog.stamp,
            search_path: cx.cx.search_path.clone(),
            moment: is_relative.then_some(cx.cx.statement_micros),
            made: cx.cx.statement_micros,
            fields: plan.schema.clone(),
            plan,
            relations,
            writes,
            locks,
            gives_rows,
            several,
            tag,
            dml: Arc::default(),
        })
    }

    /// Runs a planned statement; a change to its end, a query only when its rows are fetched.
    pub(super) fn run_planned(&mut self, planned: &Planned, params: Vec<Datum>, cx: &StatementCx) -> Result<Ran> {
        if planned.writes {
            return self.change(planned, params, cx);
        }
        let writer = planned.locks.map(|mode| self.lock_writer(mode, planned.dml.clone(), cx)).transpose()?;
        let exec_cx = self.exec_cx(cx, params, writer)?;
        let cursor = exec::open(&planned.plan, Arc::new(exec_cx))?;
        Ok(Ran::Rows(Rows::running(cursor, planned.fields.clone())))
    }

    /// What a query locks rows with.
    pub(super) fn lock_writer(&mut self, mode: RowMode, plans: Arc<DmlPlans>, cx: &StatementCx) -> Result<Arc<Writer>> {
        let stay = self.open_writes(cx, &format!("SELECT {}", bind::clause_name(mode)))?;
        Ok(Arc::new(Writer::new(self.shared.txn.clone(), plans, false, &cx.cx.memory, stay)))
    }

    /// Runs a change to its end.
    fn change(&mut self, planned: &Planned, params: Vec<Datum>, cx: &StatementCx) -> Result<Ran> {
        let stay = self.begin_writes(cx, planned.tag.command())?;
        let (txn, plans) = (self.shared.txn.clone(), planned.dml.clone());
        let writer = Arc::new(Writer::new(txn, plans, planned.several, &cx.cx.memory, stay));
        let exec_cx = self.exec_cx(cx, params, Some(writer.clone()))?;
        let mut cursor = exec::open(&planned.plan, Arc::new(exec_cx))?;
        let rows = cursor.gather()?;
        self.end_writes()?;
        self.block.rows += writer.rows();
        Ok(if planned.gives_rows {
            Ran::Rows(Rows::buffered(rows, planned.fields.clone(), Ending::Counted(planned.tag)))
        } else {
            Ran::Tag(planned.tag.text(cursor.changed()))
        })
    }
}

fn returns(bound: &Bound) -> bool {
    bound.dml().is_some_and(|d| d.returning.is_some())
}
