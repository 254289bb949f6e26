//! SEARCH and CYCLE: rewritten to plain columns before binding, as PostgreSQL does.
//!
//! ```text
//! WITH RECURSIVE r(c) AS (L UNION ALL R) CYCLE c SET mark USING path          becomes
//! WITH RECURSIVE r(c, mark, path) AS (
//!     SELECT c, false, ARRAY[ROW(c)] FROM (L) x(c)
//!     UNION ALL
//!     SELECT c, CASE WHEN ROW(c) = ANY(path) THEN true ELSE false END, path || ROW(c)
//!     FROM (R, with r.mark and r.path behind its list) x(c, mark, path) WHERE mark <> true)
//! ```

use super::label::label;
use crate::error::{Result, SqlError, state};
use crate::ir::SetOp;
use crate::parse::ast::*;

/// A column that the clauses add: its name, its value at the start, and its value from the row before.
struct Extra {
    name: Name,
    start: Expr,
    step: Expr,
}

/// The CTE without its SEARCH and CYCLE clauses; None if it has none.
pub(super) fn expand(cte: &Cte) -> Result<Option<Cte>> {
    if cte.search.is_none() && cte.cycle.is_none() {
        return Ok(None);
    }
    let pos = cte.name.pos;
    let wrong = |message: &str| SqlError::new(state::SYNTAX_ERROR, message).at(Some(pos + 1));
    let StatementKind::Query(query) = &cte.statement else { return Err(wrong("WITH query is not recursive")) };
    let Body::SetOp { op: SetOp::Union, all, left, right, pos: union_pos } = &query.body else {
        return Err(wrong("WITH query is not recursive"));
    };
    if !matches!(left.body, Body::Select(_) | Body::Values(_)) {
        return Err(wrong("with a SEARCH or CYCLE clause, the left side of the UNION must be a SELECT"));
    }
    let Body::Select(right_select) = &right.body else {
        return Err(wrong("with a SEARCH or CYCLE clause, the right side of the UNION must be a SELECT"));
    };
    let columns = column_names(cte, left)?;
    let Some(previous) = right_select.from.iter().find_map(|f| find_reference(f, &cte.name.text)) else {
        return Err(wrong(
            "with a SEARCH or CYCLE clause, the recursive reference to WITH query must be at the top level of its right-hand SELECT",
        ));
    };
    let mut extras = Vec::new();
    let check = |names: &[Name], clause: &str| -> Result<()> {
        match names.iter().find(|n| !columns.iter().any(|c| c.text == n.text)) {
            Some(n) => Err(SqlError::new(
                state::SYNTAX_ERROR,
                format!("{clause} column \"{}\" not in WITH query column list", n.text),
            )
            .at(Some(n.pos + 1))),
            None => Ok(()),
        }
    };
    if let Some(search) = &cte.search {
        check(&search.columns, "search")?;
        extras.push(search_column(search));
    }
    let mut condition = None;
    if let Some(cycle) = &cte.cycle {
        check(&cycle.columns, "cycle")?;
        let (yes, no) = cycle
            .values
            .clone()
            .unwrap_or_else(|| (expr(ExprKind::Bool(true), cycle.pos), expr(ExprKind::Bool(false), cycle.pos)));
        let row = row_of(&cycle.columns, cycle.pos);
        let seen = Expr {
            kind: ExprKind::Quantified {
                left: Box::new(row.clone()),
                op: "=".into(),
                all: false,
                right: Quantified::Array(Box::new(column(&cycle.path))),
            },
            pos: cycle.pos,
        };
        let mark =
            ExprKind::Case { operand: None, whens: vec![(seen, yes.clone())], otherwise: Some(Box::new(no.clone())) };
        condition = Some(operator("<>", column(&cycle.mark), yes, cycle.pos));
        extras.push(Extra { name: cycle.mark.clone(), start: no, step: expr(mark, cycle.pos) });
        let path = operator("||", column(&cycle.path), row.clone(), cycle.pos);
        extras.push(Extra { name: cycle.path.clone(), start: expr(ExprKind::Array(vec![row]), cycle.pos), step: path });
    }
    // What R adds behind its list: the columns of the row before, which the steps are over.
    let mut inner = (**right_select).clone();
    for extra in &extras {
        let names = vec![Name { text: previous.clone(), pos }, extra.name.clone()];
        inner.targets.push(Target { expr: expr(ExprKind::Column(names), pos), alias: None, end: pos });
    }
    let mut inner_query = (**right).clone();
    inner_query.body = Body::Select(Box::new(inner));
    let plain = |c: &Name| Target { expr: column(c), alias: Some(c.text.clone()), end: c.pos };
    let with_extras = |value: fn(&Extra) -> &Expr| -> Vec<Target> {
        columns
            .iter()
            .map(plain)
            .chain(extras.iter().map(|e| Target { expr: value(e).clone(), alias: Some(e.name.text.clone()), end: pos }))
            .collect()
    };
    let all_names: Vec<Name> = columns.iter().cloned().chain(extras.iter().map(|e| e.name.clone())).collect();
    let start = wrap((**left).clone(), columns.clone(), with_extras(|e| &e.start), None);
    let step = wrap(inner_query, all_names.clone(), with_extras(|e| &e.step), condition);
    let mut rewritten = (**query).clone();
    rewritten.body =
        Body::SetOp { op: SetOp::Union, all: *all, left: Box::new(start), right: Box::new(step), pos: *union_pos };
    Ok(Some(Cte {
        end: cte.end,
        name: cte.name.clone(),
        columns: all_names,
        materialized: cte.materialized,
        statement: StatementKind::Query(Box::new(rewritten)),
        search: None,
        cycle: None,
    }))
}

fn expr(kind: ExprKind, pos: Pos) -> Expr {
    Expr { kind, pos }
}

fn column(name: &Name) -> Expr {
    expr(ExprKind::Column(vec![name.clone()]), name.pos)
}

fn row_of(columns: &[Name], pos: Pos) -> Expr {
    expr(ExprKind::Row { fields: columns.iter().map(column).collect(), explicit: true }, pos)
}

fn operator(name: &str, left: Expr, right: Expr, pos: Pos) -> Expr {
    expr(ExprKind::Op { schema: None, name: name.into(), left: Some(Box::new(left)), right: Box::new(right) }, pos)
}

/// SEARCH's column: depth first the path so far, breadth first the depth with the columns.
fn search_column(search: &SearchClause) -> Extra {
    let pos = search.pos;
    let row = row_of(&search.columns, pos);
    if search.depth_first {
        let start = expr(ExprKind::Array(vec![row.clone()]), pos);
        return Extra { name: search.set.clone(), start, step: operator("||", column(&search.set), row, pos) };
    }
    let int8 = || {
        let name = QName { parts: vec!["pg_catalog".into(), "int8".into()], pos };
        Box::new(TypeName { name, mods: vec![], interval_fields: None, dims: 0, pos })
    };
    let number = |n: &str| expr(ExprKind::Number(n.into()), pos);
    let with_depth = |depth: Expr| {
        let fields = std::iter::once(depth).chain(search.columns.iter().map(column)).collect();
        expr(ExprKind::Row { fields, explicit: true }, pos)
    };
    let zero = expr(ExprKind::Cast { input: Box::new(number("0")), ty: int8() }, pos);
    let before =
        expr(ExprKind::Field { input: Box::new(column(&search.set)), name: Name { text: "f1".into(), pos } }, pos);
    Extra {
        name: search.set.clone(),
        start: with_depth(zero),
        step: with_depth(operator("+", before, number("1"), pos)),
    }
}

/// `SELECT targets FROM (query) x(columns) WHERE condition`.
fn wrap(query: Query, columns: Vec<Name>, targets: Vec<Target>, filter: Option<Expr>) -> Query {
    let (pos, end) = (query.pos, query.end);
    let from = FromItem::Subquery {
        lateral: false,
        query: Box::new(query),
        alias: Some(Alias { name: "*inner*".into(), columns }),
        pos,
    };
    let select = Select {
        distinct: Distinct::No,
        targets,
        into: None,
        from: vec![from],
        filter,
        group_by: vec![],
        group_distinct: false,
        having: None,
        windows: vec![],
    };
    Query {
        with: None,
        body: Body::Select(Box::new(select)),
        order_by: vec![],
        limit: None,
        with_ties: false,
        offset: None,
        locking: vec![],
        pos,
        end,
    }
}

fn column_names(cte: &Cte, left: &Query) -> Result<Vec<Name>> {
    if !cte.columns.is_empty() {
        return Ok(cte.columns.clone());
    }
    let pos = cte.name.pos;
    match &left.body {
        Body::Select(select) => select
            .targets
            .iter()
            .map(|t| match (&t.alias, &t.expr.kind) {
                (Some(alias), _) => Ok(Name { text: alias.clone(), pos }),
                (None, ExprKind::Star(_) | ExprKind::FieldStar(_)) => {
                    Err(SqlError::unsupported("SEARCH or CYCLE over * without a column list"))
                }
                (None, _) => Ok(Name { text: label(&t.expr), pos }),
            })
            .collect(),
        Body::Values(rows) => {
            Ok((1..=rows.first().map_or(0, Vec::len)).map(|i| Name { text: format!("column{i}"), pos }).collect())
        }
        Body::SetOp { .. } => Ok(vec![]),
    }
}

/// The name by which an item of FROM refers to the CTE.
fn find_reference(item: &FromItem, cte: &str) -> Option<String> {
    match item {
        FromItem::Table { name, alias, as_of: None, .. } if name.parts.len() == 1 && name.parts[0] == cte => {
            Some(alias.as_ref().map_or_else(|| cte.to_owned(), |a| a.name.clone()))
        }
        FromItem::Join(join) => find_reference(&join.left, cte).or_else(|| find_reference(&join.right, cte)),
        _ => None,
    }
}
