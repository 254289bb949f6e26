//! How a table is read: which conditions become ranges of which key, and what order the rows come in.
//!
//! A condition is usable if it compares a column, as it is stored, with something that does not depend on the scan's own row:
//! a constant, a parameter, a stable call, a column of an enclosing row or of the outer side of a nested loop. Values are computed when the scan opens.
//! A condition that the range ensures exactly is dropped; all others are checked on each row.

use std::collections::BTreeSet;

use super::compare::comparison;
use super::expr::as_column;
use super::logical::{ColId, Planner, Scan};
use crate::codec::{IndexCodec, RowKeyCodec, key_is_lossless};
use crate::exec::Pattern;
use crate::exec::code::CompareOp;
use crate::exec::value;
use crate::functions::registry::ScalarFn;
use crate::ir::{Expr, ExprKind, RowCompareOp};
use crate::types::{Datum, Type};

/// A key of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderKey {
    pub col: ColId,
    pub desc: bool,
    pub nulls_first: bool,
    /// The column is never NULL here, so where NULLs go does not matter.
    pub not_null: bool,
}

/// The order in which rows come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivered {
    pub keys: Vec<OrderKey>,
    /// Columns with one value in all rows.
    pub constants: BTreeSet<ColId>,
    /// No two rows agree in all keys.
    pub unique: bool,
}

/// What the reader of a relation would like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Want {
    pub order: Vec<OrderKey>,
    /// It reads about so many rows only.
    pub rows: Option<f64>,
}

impl Delivered {
    /// Whether rows in this order are in that order, too.
    pub fn satisfies(&self, wanted: &[OrderKey]) -> bool {
        let (mut at, mut seen) = (0, BTreeSet::new());
        for w in wanted {
            if self.constants.contains(&w.col) || !seen.insert(w.col) {
                continue;
            }
            if self.unique && at >= self.keys.len() {
                return true;
            }
            match self.keys.get(at) {
                Some(k)
                    if k.col == w.col
                        && k.desc == w.desc
                        && (k.nulls_first == w.nulls_first || k.not_null || w.not_null) =>
                {
                    at += 1
                }
                _ => return false,
            }
        }
        true
    }
    /// Whether equal values of these columns come next to each other.
    pub fn groups(&self, columns: &BTreeSet<ColId>) -> bool {
        let wanted: BTreeSet<ColId> = columns.difference(&self.constants).copied().collect();
        let head: BTreeSet<ColId> = self.keys.iter().take(wanted.len()).map(|k| k.col).collect();
        head == wanted
    }
    /// The order read backwards.
    pub fn reversed(mut self) -> Delivered {
        for k in &mut self.keys {
            k.desc = !k.desc;
            k.nulls_first = !k.nulls_first;
        }
        self
    }
}

/// What a usable condition says.
enum Sarg {
    Compare { col: ColId, op: CompareOp, value: Expr },
    List { col: ColId, values: Vec<Expr> },
    Array { col: ColId, array: Expr },
    Null { col: ColId },
    NotNull { col: ColId },
}

/// A usable condition, and whether it says all that the filter says.
struct Usable {
    filter: usize,
    sarg: Sarg,
    exact: bool,
}

/// Values of a key column.
pub(crate) enum KeyEqual {
    Value(Expr),
    List(Vec<Expr>),
    Array(Expr),
    Null,
}

/// A way to read a table.
pub(crate) struct Path {
    /// None: by rows; else the index's place in the table's list.
    pub index: Option<usize>,
    pub equals: Vec<KeyEqual>,
    pub lower: Vec<(CompareOp, Expr)>,
    pub upper: Vec<(CompareOp, Expr)>,
    pub not_null: bool,
    pub unique: bool,
    pub reverse: bool,
    /// Filters the ranges were made of.
    pub conditions: Vec<usize>,
    /// Filters that need not be checked any more.
    pub dropped: BTreeSet<usize>,
    /// The index alone gives all columns.
    pub covering: bool,
    /// Columns whose conditions are equalities with one value: they are used up to here.
    pub equal_columns: BTreeSet<ColId>,
    pub rows: f64,
    pub cost: f64,
    pub order: Delivered,
}

/// A key column as paths see it.
struct KeyPart {
    col: ColId,
    ty: Type,
    desc: bool,
    nulls_first: bool,
    not_null: bool,
}

/// Cost of finding the start of a range, in rows read in order.
const SEEK: f64 = 5.0;
/// Cost of fetching a row by its key.
const FETCH: f64 = 4.0;

impl Planner<'_> {
    /// The cheapest way to read a table's rows that satisfy `filters`, giving `cols`.
    pub(crate) fn choose_path(&self, scan: &Scan, filters: &[Expr], cols: &[ColId], want: &Want) -> Path {
        let usable = self.usable(scan, filters);
        let rows_out = self.scan_rows(&Scan { filter: filters.to_vec(), ..scan.clone() });
        let mut best = self.path(scan, filters, &usable, None, cols, want, rows_out);
        for (i, index) in scan.table.indexes.iter().enumerate() {
            let usable_types = index.columns.iter().all(|c| scan.table.position(c.attnum).is_some());
            if !usable_types || !index.valid {
                continue;
            }
            let path = self.path(scan, filters, &usable, Some(i), cols, want, rows_out);
            if path.cost < best.cost {
                best = path;
            }
        }
        best
    }

    #[allow(clippy::too_many_arguments)] // a path depends on all of these
    fn path(
        &self,
        scan: &Scan,
        filters: &[Expr],
        usable: &[Usable],
        index: Option<usize>,
        cols: &[ColId],
        want: &Want,
        rows_out: f64,
    ) -> Path {
        let parts = self.key_parts(scan, index);
        let mut path = Path {
            index,
            equals: Vec::new(),
            lower: Vec::new(),
            upper: Vec::new(),
            not_null: false,
            unique: false,
            reverse: false,
            conditions: Vec::new(),
            dropped: BTreeSet::new(),
            covering: false,
            equal_columns: BTreeSet::new(),
            rows: 0.0,
            cost: 0.0,
            order: Delivered::default(),
        };
        let (mut selectivity, mut points, mut lists) = (1.0, 1.0, false);
        for part in &parts {
            if let Some((equal, u, count)) = equality(usable, part, index.is_some()) {
                path.conditions.push(u.filter);
                let single = matches!(equal, KeyEqual::Value(_) | KeyEqual::Null);
                if single {
                    path.equal_columns.insert(part.col);
                    path.order.constants.insert(part.col);
                }
                if u.exact {
                    path.dropped.insert(u.filter);
                }
                lists |= !single;
                points *= count;
                selectivity *= 0.005 * count;
                path.equals.push(equal);
                continue;
            }
            for u in usable {
                let Sarg::Compare { col, op, value } = &u.sarg else { continue };
                if *col != part.col {
                    continue;
                }
                let side = match op {
                    CompareOp::Gt | CompareOp::Ge => &mut path.lower,
                    CompareOp::Lt | CompareOp::Le => &mut path.upper,
                    CompareOp::Eq | CompareOp::Ne => continue,
                };
                side.push((*op, value.clone()));
                path.conditions.push(u.filter);
                if u.exact {
                    path.dropped.insert(u.filter);
                }
            }
            match (path.lower.is_empty(), path.upper.is_empty()) {
                (false, false) => selectivity *= 0.02,
                (true, true) => {
                    if index.is_some()
                        && !part.not_null
                        && let Some(u) =
                            usable.iter().find(|u| matches!(u.sarg, Sarg::NotNull { col } if col == part.col))
                    {
                        path.not_null = true;
                        path.conditions.push(u.filter);
                        path.dropped.insert(u.filter);
                        selectivity *= 0.95;
                    }
                }
                _ => selectivity *= 0.15,
            }
            break;
        }
        if lists {
            // A list too long for ranges is not applied when the scan opens, nor is what comes after it.
            path.dropped.clear();
        }
        let inexact = |key: &KeyPart| {
            scan.foreign.as_ref().and_then(|f| f.bee.as_ref()).is_some_and(|bee| !bee.keys().0.is_exact(key.ty))
        };
        if parts.iter().any(inexact) {
            path.dropped.clear();
        }
        let mut seen = BTreeSet::new();
        path.conditions.retain(|c| seen.insert(*c));
        let whole_key = path.equals.len() == parts.len() && !parts.is_empty();
        let is_unique = index.is_none_or(|i| scan.table.indexes[i].unique);
        path.unique = whole_key && is_unique && path.equals.iter().all(|e| !matches!(e, KeyEqual::Null));
        let table_rows = self.table_rows(scan);
        path.rows = if path.unique { points } else { (table_rows * selectivity).max(points.min(table_rows)).max(1.0) };
        self.set_order(scan, index, &parts, &mut path, want);
        path.covering = index.is_some_and(|i| self.covers(scan, i, cols, filters, &path.dropped));
        let per_row = match index {
            None => {
                if cols.is_empty() && filters.is_empty() {
                    0.5
                } else {
                    1.0
                }
            }
            Some(_) if path.covering => 0.8,
            Some(_) => 1.0 + FETCH,
        };
        let ordered = path.order.satisfies(&want.order);
        // A reader that stops early reads only a part, if rows come in its order.
        let part = match want.rows {
            Some(limit) if ordered => (limit / rows_out).clamp(0.0, 1.0),
            _ => 1.0,
        };
        let seeks =
            if path.equals.is_empty() && path.lower.is_empty() && path.upper.is_empty() { 0.0 } else { SEEK * points };
        path.cost = seeks + (path.rows * per_row * part).max(1.0);
        if !ordered {
            path.cost += rows_out * (1.0 + rows_out.log2()) * 0.2;
        }
        path
    }

    fn key_parts(&self, scan: &Scan, index: Option<usize>) -> Vec<KeyPart> {
        let part = |attnum: i16, desc: bool, nulls_first: bool| {
            let col = scan.made[scan.table.position(attnum)?];
            let info = &self.columns[col];
            Some(KeyPart { col, ty: info.ty.ty, desc, nulls_first, not_null: info.not_null })
        };
        match index {
            None => {
                scan.table.primary_key.iter().flat_map(|k| &k.columns).filter_map(|a| part(*a, false, false)).collect()
            }
            Some(i) => {
                scan.table.indexes[i].columns.iter().filter_map(|c| part(c.attnum, c.desc, c.nulls_first)).collect()
            }
        }
    }

    fn set_order(&self, scan: &Scan, index: Option<usize>, parts: &[KeyPart], path: &mut Path, want: &Want) {
        let constants = path.order.constants.clone();
        let key = |p: &KeyPart| OrderKey { col: p.col, desc: p.desc, nulls_first: p.nulls_first, not_null: p.not_null };
        let mut keys: Vec<OrderKey> = parts.iter().filter(|p| !constants.contains(&p.col)).map(key).collect();
        let mut unique = index.is_none() && !parts.is_empty();
        if let Some(i) = index {
            let entry_is_unique = scan.table.indexes[i].unique && parts.iter().all(|p| p.not_null);
            if entry_is_unique {
                unique = true;
            } else if !scan.table.indexes[i].unique {
                // Entries with equal columns stand in the order of the rows' keys.
                let primary = self.key_parts(scan, None);
                unique = !primary.is_empty();
                for p in &primary {
                    if !constants.contains(&p.col) && !keys.iter().any(|k| k.col == p.col) {
                        keys.push(key(p));
                    }
                }
            }
        }
        let forward = Delivered { keys, constants, unique };
        let backward = forward.clone().reversed();
        path.reverse = !want.order.is_empty() && !forward.satisfies(&want.order) && backward.satisfies(&want.order);
        path.order = if path.reverse { backward } else { forward };
    }

    /// Whether an index gives these columns, and those of the conditions still checked, exactly as the row would.
    fn covers(&self, scan: &Scan, index: usize, cols: &[ColId], filters: &[Expr], dropped: &BTreeSet<usize>) -> bool {
        let index = &scan.table.indexes[index];
        let made: BTreeSet<ColId> = scan.made.iter().copied().collect();
        let has = |col: &ColId| {
            scan.row_key == Some(*col)
                || (key_is_lossless(self.columns[*col].ty.ty)
                    && index
                        .columns
                        .iter()
                        .any(|c| scan.table.position(c.attnum).is_some_and(|at| scan.made[at] == *col)))
        };
        let checked = filters
            .iter()
            .enumerate()
            .filter(|(i, _)| !dropped.contains(i))
            .flat_map(|(_, f)| self.used(f))
            .filter(|c| made.contains(c));
        cols.iter().copied().chain(checked).all(|c| has(&c))
    }

    fn usable(&self, scan: &Scan, filters: &[Expr]) -> Vec<Usable> {
        let made: BTreeSet<ColId> = scan.made.iter().copied().collect();
        let mut out = Vec::new();
        for (filter, p) in filters.iter().enumerate() {
            self.sargs(p, filter, &made, &mut out);
        }
        out
    }

    fn sargs(&self, p: &Expr, filter: usize, made: &BTreeSet<ColId>, out: &mut Vec<Usable>) {
        let column = |e: &Expr| as_column(e).filter(|id| made.contains(id));
        let fixed = |e: &Expr| self.used(e).is_disjoint(made) && !self.volatile(e);
        let mut push = |sarg, exact| out.push(Usable { filter, sarg, exact });
        match &p.kind {
            ExprKind::Call { func, args } => {
                if let Some((col, op, value)) = self.compared(func, args, made) {
                    push(Sarg::Compare { col, op, value }, op != CompareOp::Ne);
                } else if let ("starts_with", [input, prefix]) = (func.name, args.as_slice())
                    && let (Some(col), ExprKind::Const(Datum::Text(text))) = (column(input), &prefix.kind)
                    && value::family(self.columns[col].ty.ty) == Type::TEXT
                {
                    let constant = |s: &str| Expr::constant(Datum::text(s), Type::TEXT);
                    push(Sarg::Compare { col, op: CompareOp::Ge, value: constant(text) }, false);
                    if let Some(end) = after_prefix(text) {
                        push(Sarg::Compare { col, op: CompareOp::Lt, value: constant(&end) }, false);
                    }
                } else if let (Some(false), [input, pattern]) =
                    (crate::exec::code::like_function(func), args.as_slice())
                    && let (Some(col), ExprKind::Const(Datum::Text(text))) = (column(input), &pattern.kind)
                    && value::family(self.columns[col].ty.ty) == Type::TEXT
                    && let Some(parsed) = Pattern::parse(text)
                    && let Some((prefix, whole)) = parsed.prefix()
                {
                    let constant = |s: &str| Expr::constant(Datum::text(s), Type::TEXT);
                    if whole {
                        push(Sarg::Compare { col, op: CompareOp::Eq, value: constant(prefix) }, true);
                    } else {
                        push(Sarg::Compare { col, op: CompareOp::Ge, value: constant(prefix) }, false);
                        if let Some(end) = after_prefix(prefix) {
                            push(Sarg::Compare { col, op: CompareOp::Lt, value: constant(&end) }, false);
                        }
                    }
                }
            }
            ExprKind::ScalarArray { func, left, array, all: false } => {
                let Some(col) = column(left) else { return };
                if !self.equality_on(func, col) || !fixed(array) {
                    return;
                }
                match &array.kind {
                    ExprKind::Array { elems, nested: false } => push(Sarg::List { col, values: elems.clone() }, false),
                    _ => push(Sarg::Array { col, array: (**array).clone() }, false),
                }
            }
            ExprKind::Or(args) => {
                // a = 1 OR a = 2 is a list.
                let mut list: Option<(ColId, Vec<Expr>)> = None;
                for arg in args {
                    let ExprKind::Call { func, args } = &arg.kind else { return };
                    let Some((col, CompareOp::Eq, value)) = self.compared(func, args, made) else { return };
                    match &mut list {
                        None => list = Some((col, vec![value])),
                        Some((same, values)) if *same == col => values.push(value),
                        Some(_) => return,
                    }
                }
                if let Some((col, values)) = list {
                    push(Sarg::List { col, values }, false);
                }
            }
            ExprKind::IsNull { input, negated } => {
                if let Some(col) = column(input) {
                    push(if *negated { Sarg::NotNull { col } } else { Sarg::Null { col } }, true);
                }
            }
            ExprKind::Column(id) if made.contains(id) && p.ty.ty == Type::BOOL => push(
                Sarg::Compare { col: *id, op: CompareOp::Eq, value: Expr::constant(Datum::Bool(true), Type::BOOL) },
                true,
            ),
            ExprKind::Not(inner) => {
                if let Some(col) = column(inner) {
                    push(
                        Sarg::Compare { col, op: CompareOp::Eq, value: Expr::constant(Datum::Bool(false), Type::BOOL) },
                        true,
                    );
                }
            }
            ExprKind::RowCompare { op, pairs } => {
                // (a, b) > (x, y) implies a >= x; = implies all.
                for (at, pair) in pairs.iter().enumerate() {
                    let (Some(col), true) = (column(&pair.left), fixed(&pair.right)) else { return };
                    if !same_storage(self.columns[col].ty.ty, pair.right.ty.ty) {
                        return;
                    }
                    let value = pair.right.clone();
                    match op {
                        RowCompareOp::Eq => push(Sarg::Compare { col, op: CompareOp::Eq, value }, false),
                        RowCompareOp::Gt | RowCompareOp::Ge if at == 0 => {
                            push(Sarg::Compare { col, op: CompareOp::Ge, value }, false)
                        }
                        RowCompareOp::Lt | RowCompareOp::Le if at == 0 => {
                            push(Sarg::Compare { col, op: CompareOp::Le, value }, false)
                        }
                        _ => return,
                    }
                }
            }
            _ => {}
        }
    }

    /// `column op value` in either order.
    fn compared(
        &self,
        func: &'static ScalarFn,
        args: &[Expr],
        made: &BTreeSet<ColId>,
    ) -> Option<(ColId, CompareOp, Expr)> {
        let c = comparison(func)?;
        let [a, b] = args else { return None };
        for (column, value, op, types) in [(a, b, c.op, (c.left, c.right)), (b, a, c.op.flipped(), (c.right, c.left))] {
            let Some(col) = as_column(column).filter(|id| made.contains(id)) else { continue };
            let stored = self.columns[col].ty.ty;
            // The operator must compare the column as what it is stored as.
            if value::family(stored) == value::family(types.0)
                && same_storage(stored, types.1)
                && self.used(value).is_disjoint(made)
                && !self.volatile(value)
            {
                return Some((col, op, value.clone()));
            }
        }
        None
    }

    fn equality_on(&self, func: &'static ScalarFn, col: ColId) -> bool {
        let stored = self.columns[col].ty.ty;
        comparison(func).is_some_and(|c| {
            c.op == CompareOp::Eq && value::family(stored) == value::family(c.left) && same_storage(stored, c.right)
        })
    }
}

/// Whether a value of the second type can bound keys of the first: `exec::range` converts between widths.
fn same_storage(column: Type, value: Type) -> bool {
    let widens = !(column == Type::FLOAT4 && value == Type::FLOAT8);
    crate::codec::key::is_key_type(column)
        && column != Type::CHAR
        && value::family(column) == value::family(value)
        && widens
}

/// The equality on a key column, if there is one, with how many values it has.
fn equality<'u>(usable: &'u [Usable], part: &KeyPart, nulls: bool) -> Option<(KeyEqual, &'u Usable, f64)> {
    debug_assert!(part.ty != Type::NONE);
    let of = |u: &'u Usable| {
        Some(match &u.sarg {
            Sarg::Compare { col, op: CompareOp::Eq, value } if *col == part.col => {
                (0, KeyEqual::Value(value.clone()), u, 1.0)
            }
            Sarg::Null { col } if *col == part.col && nulls => (1, KeyEqual::Null, u, 1.0),
            Sarg::List { col, values } if *col == part.col => {
                (2, KeyEqual::List(values.clone()), u, values.len() as f64)
            }
            Sarg::Array { col, array } if *col == part.col => {
                let count = match &array.kind {
                    ExprKind::Const(Datum::Array(a)) => a.values.len() as f64,
                    _ => 10.0,
                };
                (3, KeyEqual::Array(array.clone()), u, count)
            }
            _ => return None,
        })
    };
    // One value is better than several.
    usable.iter().filter_map(of).min_by_key(|(rank, ..)| *rank).map(|(_, equal, u, count)| (equal, u, count.max(1.0)))
}

/// The least text greater than all that begin with a prefix, if it is easy to say.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            c => char::from_u32(c as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Codecs of a path.
pub(crate) fn row_codec(scan: &Scan) -> RowKeyCodec {
    RowKeyCodec::new(&scan.table)
}

/// See [`row_codec`].
pub(crate) fn index_codec(scan: &Scan, index: usize) -> IndexCodec {
    IndexCodec::new(&scan.table, &scan.table.indexes[index])
}
