//! A relation made on the fly: its definition as recorded, and where its rows come from.

use std::sync::{Arc, OnceLock};

use crate::catalog::schema::VirtualTable;
use crate::codec::row::storage_cx;
use crate::error::Result;
use crate::exec::ExecCx;
use crate::functions::SessionCx;
use crate::ir::Field;
use crate::types::{Datum, Row, Type, TypeMod, datum, io};

/// What `data/relations.tsv` says of a relation.
pub(crate) struct Definition {
    pub oid: u32,
    pub schema: u32,
    pub name: &'static str,
    /// `pg_class.relkind`: r or v.
    pub kind: char,
    pub fields: Arc<[Field]>,
    /// `attnotnull` of each column.
    pub not_null: Vec<bool>,
}

/// All system relations, in the order of schema and name.
pub(crate) fn definitions() -> &'static [Definition] {
    static DEFINITIONS: OnceLock<Vec<Definition>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| include_str!("../data/relations.tsv").lines().map(definition).collect())
}

fn definition(line: &'static str) -> Definition {
    let mut words = line.split('\t');
    let mut word = || words.next().expect("five words in relations.tsv");
    let number = |s: &str| s.parse::<i32>().expect("a number in relations.tsv");
    let (schema, oid) = (number(word()).cast_unsigned(), number(word()).cast_unsigned());
    let (name, kind) = (word(), word().chars().next().expect("a kind in relations.tsv"));
    let mut not_null = Vec::new();
    let mut fields = Vec::new();
    for (attnum, column) in (1..).zip(word().split(',')) {
        let mut parts = column.split(':');
        let mut part = || parts.next().expect("four parts of a column in relations.tsv");
        let name = Arc::from(part());
        let ty = TypeMod { ty: Type(number(part()).cast_unsigned()), typmod: number(part()) };
        not_null.push(part() == "1");
        fields.push(Field { name, ty, table_oid: oid, attnum });
    }
    Definition { oid, schema, name, kind, fields: fields.into(), not_null }
}

/// What a query wants of a relation.
pub(crate) struct Ask<'a> {
    /// Settings and catalog.
    pub cx: &'a SessionCx,
    /// The running statement; None only in tests.
    pub exec: Option<&'a ExecCx>,
    fields: &'a [Field],
    equals: &'a [(usize, Datum)],
}

impl<'a> Ask<'a> {
    pub(crate) fn new(
        cx: &'a SessionCx,
        exec: Option<&'a ExecCx>,
        fields: &'a [Field],
        equals: &'a [(usize, Datum)],
    ) -> Ask<'a> {
        Ask { cx, exec, fields, equals }
    }
    /// The value this column must have, if the query says so.
    fn value(&self, column: &str) -> Option<&'a Datum> {
        self.equals.iter().find(|(i, _)| self.fields.get(*i).is_some_and(|f| &*f.name == column)).map(|(_, v)| v)
    }
    /// The oid this column must have, if the query says so.
    pub(crate) fn oid(&self, column: &str) -> Option<u32> {
        match self.value(column)? {
            Datum::Oid(n) => Some(*n),
            _ => None,
        }
    }
    /// The name this column must have, if the query says so.
    pub(crate) fn name(&self, column: &str) -> Option<&'a str> {
        match self.value(column)? {
            Datum::Text(s) => Some(s),
            _ => None,
        }
    }
}

/// Where rows come from.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    /// There are none.
    Empty,
    /// PostgreSQL's own, as COPY text.
    Recorded(&'static str),
    /// Made once.
    Fixed(fn() -> Vec<Row>),
    /// Made for each query.
    Computed(fn(&Ask<'_>) -> Result<Vec<Row>>),
    /// The same, of what the database defines.
    Defined(fn(&Ask<'_>) -> Result<Vec<Row>>),
}

/// One system relation.
pub(crate) struct Made {
    definition: &'static Definition,
    rows: Rows,
    /// Rows that do not change, sorted by the first column if that is an oid.
    kept: OnceLock<Vec<Row>>,
}

impl Made {
    pub(crate) fn new(definition: &'static Definition, rows: Rows) -> Made {
        Made { definition, rows, kept: OnceLock::new() }
    }

    fn keyed_by_oid(&self) -> bool {
        self.definition.fields.first().is_some_and(|f| f.ty.ty.is_oid_like())
    }
    fn kept(&self, make: impl FnOnce() -> Vec<Row>) -> &[Row] {
        self.kept.get_or_init(|| {
            let mut rows = make();
            if self.keyed_by_oid() {
                rows.sort_by(|a, b| a[0].compare(&b[0]));
            }
            rows
        })
    }
    fn matches(&self, row: &[Datum], equals: &[(usize, Datum)]) -> bool {
        equals.iter().all(|(i, value)| match (row.get(*i), self.definition.fields.get(*i)) {
            // A value of another type than the column is not ours to compare.
            (Some(found), Some(field)) if fits(value, field.ty.ty) => datum::equal_typed(found, value, field.ty.ty),
            _ => true,
        })
    }
    /// The rows a query wants, without a running statement.
    pub(crate) fn collect(&self, ask: &Ask<'_>) -> Result<Vec<Row>> {
        let kept = match self.rows {
            Rows::Empty => return Ok(Vec::new()),
            Rows::Computed(make) | Rows::Defined(make) => {
                let mut rows = make(ask)?;
                rows.retain(|r| self.matches(r, ask.equals));
                return Ok(rows);
            }
            Rows::Recorded(tsv) => self.kept(|| recorded(tsv, &self.definition.fields)),
            Rows::Fixed(make) => self.kept(make),
        };
        let first = ask.equals.iter().find(|(i, v)| *i == 0 && matches!(v, Datum::Oid(_)));
        let range = match first {
            Some((_, key)) if self.keyed_by_oid() => {
                let start = kept.partition_point(|r| r[0].compare(key).is_lt());
                let end = kept.partition_point(|r| r[0].compare(key).is_le());
                &kept[start..end]
            }
            _ => kept,
        };
        Ok(range.iter().filter(|r| self.matches(r, ask.equals)).cloned().collect())
    }
}

impl VirtualTable for Made {
    fn oid(&self) -> u32 {
        self.definition.oid
    }
    fn name(&self) -> &str {
        self.definition.name
    }
    fn schema(&self) -> u32 {
        self.definition.schema
    }
    fn columns(&self) -> Arc<[Field]> {
        self.definition.fields.clone()
    }
    fn rows<'a>(
        &'a self,
        _: &[Datum],
        equals: &[(usize, Datum)],
        cx: &'a ExecCx,
    ) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send + 'a>> {
        if matches!(self.rows, Rows::Defined(_)) {
            cx.session.services.definitions_are_read();
        }
        let rows = self.collect(&Ask::new(&cx.session, Some(cx), &self.definition.fields, equals))?;
        Ok(Box::new(rows.into_iter().map(Ok)))
    }
}

/// Whether a value is one of this type, NULL included.
pub(crate) fn fits(value: &Datum, ty: Type) -> bool {
    match value {
        Datum::Null => true,
        Datum::Bool(_) => ty == Type::BOOL,
        Datum::Int2(_) => ty == Type::INT2,
        Datum::Int4(_) => ty == Type::INT4,
        Datum::Int8(_) => ty == Type::INT8,
        Datum::Float4(_) => ty == Type::FLOAT4,
        Datum::Float8(_) => ty == Type::FLOAT8,
        Datum::Numeric(_) => ty == Type::NUMERIC,
        Datum::Text(_) => ty.is_string() || matches!(ty, Type::CHAR | Type::JSON | Type(194)),
        Datum::Bytea(_) => ty == Type::BYTEA,
        Datum::Date(_) => ty == Type::DATE,
        Datum::Time(_) => ty == Type::TIME,
        Datum::Timestamp(_) => ty == Type::TIMESTAMP,
        Datum::TimestampTz(_) => ty == Type::TIMESTAMPTZ,
        Datum::Interval(_) => ty == Type::INTERVAL,
        Datum::Uuid(_) => ty == Type::UUID,
        Datum::Oid(_) => ty.is_oid_like() || ty == Type::XID || ty == Type::CID,
        Datum::Jsonb(_) => ty == Type::JSONB,
        Datum::Array(a) => ty.element() == Some(a.elem),
        Datum::Record(_) => ty == Type::RECORD,
    }
}

/// Rows of COPY text. A value that our input functions refuse is a mistake in the data file: the tests read all of them.
pub(crate) fn recorded(tsv: &str, fields: &[Field]) -> Vec<Row> {
    tsv.lines()
        .map(|line| fields.iter().zip(line.split('\t')).map(|(field, text)| value(text, field)).collect())
        .collect()
}

fn value(text: &str, field: &Field) -> Datum {
    if text == "\\N" {
        return Datum::Null;
    }
    let plain = text.replace("\\\\", "\\");
    io::text_in(&plain, field.ty.ty.plain(), storage_cx()).expect("data files hold values of their columns' types")
}

/// The first column of recorded rows whose columns at `positions` have these texts.
pub(crate) fn find_recorded<'t>(tsv: &'t str, wanted: &[(usize, &str)]) -> Option<&'t str> {
    let matches = |line: &&str| wanted.iter().all(|(i, text)| line.split('\t').nth(*i) == Some(text));
    tsv.lines().find(matches).and_then(|line| line.split('\t').next())
}
