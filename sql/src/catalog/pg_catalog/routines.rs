//! Functions, operators, casts and aggregates as the registry has them.
//!
//! What PostgreSQL has too is shown with PostgreSQL's own row, so oids and flags are the familiar ones. What only exists here gets an
//! oid from [`FIRST_OWN_OID`] up, made of its name and argument types, so that it stays the same when others are added.

use std::sync::OnceLock;

use rustc_hash::{FxHashMap, FxHashSet};

use super::classes::vector;
use super::made::{definitions, recorded};
use super::value::{NULL, bool, char, int2, oid, text};
use crate::catalog::PG_CATALOG;
use crate::functions::registry::{CastContext, CastMethod, ScalarFn, Volatility, registry};
use crate::types::reg::SUPERUSER;
use crate::types::{Datum, Row, Type};

/// Oids of functions and operators that PostgreSQL does not have begin here.
pub(crate) const FIRST_OWN_OID: u32 = 9_000_000;
/// Oid of the language `internal`.
const INTERNAL: u32 = 12;

/// How a function is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    Set,
    Aggregate,
    Window,
}

/// A function of the registry, whatever its kind.
struct Callable {
    name: &'static str,
    args: Vec<Type>,
    variadic: Option<Type>,
    ret: Type,
    strict: bool,
    volatility: Volatility,
    kind: Kind,
}

fn callables() -> Vec<Callable> {
    let r = registry();
    let mut all = Vec::new();
    let mut add = |name, args: &[Type], optional: usize, variadic, ret, strict, volatility, kind| {
        // One row for each number of arguments it can be called with: that is how PostgreSQL declares most of them.
        for left_out in 0..=optional.min(args.len()) {
            all.push(Callable {
                name,
                args: args[..args.len() - left_out].to_vec(),
                variadic,
                ret,
                strict,
                volatility,
                kind,
            });
        }
    };
    for f in r.scalars.values().flatten() {
        add(f.name, f.args, f.optional, f.variadic, f.ret, f.strict, f.volatility, Kind::Function);
    }
    for f in r.sets.values().flatten() {
        let ret = if let [(_, ty)] = f.columns { *ty } else { Type::RECORD };
        add(f.name, f.args, 0, f.variadic, ret, f.strict, Volatility::Stable, Kind::Set);
    }
    for f in r.aggregates.values().flatten() {
        add(f.name, f.args, 0, f.variadic, f.ret, false, Volatility::Immutable, Kind::Aggregate);
    }
    for f in r.windows.values().flatten() {
        add(f.name, f.args, f.optional, None, f.ret, false, Volatility::Immutable, Kind::Window);
    }
    all
}

/// `proargtypes`: the parameter of VARIADIC is an array, or "any".
fn declared(args: &[Type], variadic: Option<Type>) -> Vec<u32> {
    let last = variadic.map(|v| if v == Type::ANY { v } else { v.array_of().unwrap_or(variadic_array(v)) });
    args.iter().copied().chain(last).map(|t| t.0).collect()
}

fn variadic_array(element: Type) -> Type {
    match element {
        Type::ANYELEMENT => Type::ANYARRAY,
        Type::ANYCOMPATIBLE => Type::ANYCOMPATIBLEARRAY,
        other => other,
    }
}

type Signature = (String, Vec<u32>);

fn definition_fields(name: &str) -> &'static [crate::ir::Field] {
    definitions().iter().find(|d| d.name == name).map_or(&[], |d| &d.fields)
}

fn oid_at(row: &[Datum], at: usize) -> u32 {
    if let Some(Datum::Oid(n)) = row.get(at) { *n } else { 0 }
}

fn text_at(row: &[Datum], at: usize) -> &str {
    if let Some(Datum::Text(s)) = row.get(at) { s } else { "" }
}

fn oids_at(row: &[Datum], at: usize) -> Vec<u32> {
    match row.get(at) {
        Some(Datum::Array(a)) => a.values.iter().map(|v| if let Datum::Oid(n) = v { *n } else { 0 }).collect(),
        _ => Vec::new(),
    }
}

/// Rows of pg_proc and where to find them.
struct Procs {
    rows: Vec<Row>,
    by_oid: FxHashMap<u32, usize>,
    by_signature: FxHashMap<Signature, u32>,
}

fn all() -> &'static Procs {
    static PROCS: OnceLock<Procs> = OnceLock::new();
    PROCS.get_or_init(|| {
        let known = recorded(include_str!("../data/pg_proc.tsv"), definition_fields("pg_proc"));
        let known: FxHashMap<Signature, Row> =
            known.into_iter().map(|r| ((text_at(&r, 1).to_owned(), oids_at(&r, 19)), r)).collect();
        let mut rows: FxHashMap<u32, Row> = FxHashMap::default();
        for f in callables() {
            let signature = (f.name.to_owned(), declared(&f.args, f.variadic));
            let row = known.get(&signature).cloned().unwrap_or_else(|| own_proc(&f, &signature));
            rows.entry(oid_at(&row, 0)).or_insert(row);
        }
        // The input and output functions that pg_type names are there too, though they cannot be called by name.
        for p in crate::functions::procs::PROCS {
            let signature = (p.name.to_owned(), p.arg_oids.to_vec());
            if let Some(row) = known.get(&signature) {
                rows.entry(p.oid).or_insert_with(|| row.clone());
            }
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|r| oid_at(r, 0));
        let by_oid = rows.iter().enumerate().map(|(i, r)| (oid_at(r, 0), i)).collect();
        let by_signature = rows.iter().map(|r| ((text_at(r, 1).to_owned(), oids_at(r, 19)), oid_at(r, 0))).collect();
        Procs { rows, by_oid, by_signature }
    })
}

/// An oid for what PostgreSQL does not have: FNV-1a of its name and types.
fn own_oid(name: &str, args: &[u32]) -> u32 {
    let bytes = name.bytes().chain(args.iter().flat_map(|a| a.to_be_bytes()));
    let hash = bytes.fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    FIRST_OWN_OID + hash % 900_000_000
}

fn own_proc(f: &Callable, (name, args): &Signature) -> Row {
    let kind = match f.kind {
        Kind::Function | Kind::Set => 'f',
        Kind::Aggregate => 'a',
        Kind::Window => 'w',
    };
    let volatility = match f.volatility {
        Volatility::Immutable => 'i',
        Volatility::Stable => 's',
        Volatility::Volatile => 'v',
    };
    let is_set = f.kind == Kind::Set;
    vec![
        oid(own_oid(name, args)),
        text(name),
        oid(PG_CATALOG),
        oid(SUPERUSER),
        oid(INTERNAL),
        Datum::Float4(1.0),
        Datum::Float4(if is_set { 1000.0 } else { 0.0 }),
        oid(f.variadic.map_or(0, |v| v.0)),
        oid(0), // prosupport
        char(kind),
        bool(false), // prosecdef
        bool(false), // proleakproof
        bool(f.strict),
        bool(is_set),
        char(volatility),
        char('s'), // proparallel
        int2(args.len()),
        int2(0), // pronargdefaults
        oid(f.ret.0),
        vector(Type::OIDVECTOR, args.iter().map(|a| Datum::Oid(*a))),
        NULL, // proallargtypes
        NULL, // proargmodes
        NULL, // proargnames
        NULL, // proargdefaults
        NULL, // protrftypes
        text(name),
        NULL, // probin
        NULL, // prosqlbody
        NULL, // proconfig
        NULL, // proacl
    ]
}

pub(super) fn procs() -> Vec<Row> {
    all().rows.clone()
}

/// The row of a function by oid.
pub(crate) fn proc_row(oid: u32) -> Option<&'static Row> {
    all().by_oid.get(&oid).map(|i| &all().rows[*i])
}

/// What information_schema tells of a function.
pub(in crate::catalog) struct ProcFacts {
    pub oid: u32,
    pub name: &'static str,
    /// `prokind`.
    pub kind: &'static str,
    pub ret: Type,
    pub strict: bool,
    pub immutable: bool,
}

/// All functions, by oid.
pub(in crate::catalog) fn proc_rows() -> Vec<ProcFacts> {
    let facts = |r: &'static Row| ProcFacts {
        oid: oid_at(r, 0),
        name: text_at(r, 1),
        kind: text_at(r, 9),
        ret: Type(oid_at(r, 18)),
        strict: matches!(r[12], Datum::Bool(true)),
        immutable: text_at(r, 14) == "i",
    };
    all().rows.iter().map(facts).collect()
}

fn proc_oid(f: &ScalarFn) -> u32 {
    all().by_signature.get(&(f.name.to_owned(), declared(f.args, f.variadic))).copied().unwrap_or(0)
}

pub(super) fn operators() -> Vec<Row> {
    let known = recorded(include_str!("../data/pg_operator.tsv"), definition_fields("pg_operator"));
    let known: FxHashMap<(String, u32, u32), Row> =
        known.into_iter().map(|r| ((text_at(&r, 1).to_owned(), oid_at(&r, 7), oid_at(&r, 8)), r)).collect();
    let mut rows = Vec::new();
    for op in registry().operators.values().flatten() {
        if let Some(row) = known.get(&(op.name.to_owned(), op.left.0, op.right.0)) {
            rows.push(row.clone());
            continue;
        }
        rows.push(vec![
            oid(own_oid(op.name, &[op.left.0, op.right.0])),
            text(op.name),
            oid(PG_CATALOG),
            oid(SUPERUSER),
            char(if op.left == Type::NONE { 'l' } else { 'b' }),
            bool(false), // oprcanmerge
            bool(false), // oprcanhash
            oid(op.left.0),
            oid(op.right.0),
            oid(op.func.ret.0),
            oid(0), // oprcom
            oid(0), // oprnegate
            oid(proc_oid(op.func)),
            oid(0), // oprrest
            oid(0), // oprjoin
        ]);
    }
    // Commutators and negators that do not exist here are told as none.
    let there: FxHashSet<u32> = rows.iter().map(|r| oid_at(r, 0)).collect();
    for row in &mut rows {
        for at in [10, 11] {
            if !there.contains(&oid_at(row, at)) {
                row[at] = oid(0);
            }
        }
    }
    rows
}

pub(super) fn casts() -> Vec<Row> {
    let known = recorded(include_str!("../data/pg_cast.tsv"), definition_fields("pg_cast"));
    let known: FxHashMap<(u32, u32), Row> = known.into_iter().map(|r| ((oid_at(&r, 1), oid_at(&r, 2)), r)).collect();
    let own = |c: &crate::functions::registry::Cast| {
        let context = match c.context {
            CastContext::Implicit => 'i',
            CastContext::Assignment => 'a',
            CastContext::Explicit => 'e',
        };
        let (method, function) = match c.method {
            CastMethod::Binary => ('b', 0),
            CastMethod::Function(f) => ('f', proc_oid(f)),
            CastMethod::InOut => ('i', 0),
        };
        let id = own_oid("cast", &[c.source.0, c.target.0]);
        vec![oid(id), oid(c.source.0), oid(c.target.0), oid(function), char(context), char(method)]
    };
    registry().casts.values().map(|c| known.get(&(c.source.0, c.target.0)).cloned().unwrap_or_else(|| own(c))).collect()
}

/// PostgreSQL's rows for the aggregates that exist here too; of how others work inside there is nothing to tell.
pub(super) fn aggregates() -> Vec<Row> {
    let ours: FxHashSet<u32> = all().rows.iter().filter(|r| text_at(r, 9) == "a").map(|r| oid_at(r, 0)).collect();
    let known = recorded(include_str!("../data/pg_aggregate.tsv"), definition_fields("pg_aggregate"));
    known.into_iter().filter(|r| ours.contains(&oid_at(r, 0))).collect()
}
