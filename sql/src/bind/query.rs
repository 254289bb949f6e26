//! Queries as wholes: WITH around them, set operations and VALUES, ORDER BY and LIMIT over their columns.

use std::sync::Arc;

use super::binder::*;
use super::coerce::common_typmod;
use super::function::sort_key;
use super::locking::clause_name;
use super::operator::check_equality;
use super::scope::Item;
use super::walk::{any_part, reads_row, same};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::CastContext;
use crate::ir::*;
use crate::lock::Patience;
use crate::parse::ast::{self, Pos};
use crate::types::{Type, TypeMod};

impl Binder<'_> {
    /// Binds a query at the present levels. Without `resolve`, output columns that are bare literals stay of type unknown: the caller gives them one.
    pub fn query(&mut self, q: &ast::Query, resolve: bool) -> Result<QueryOut> {
        // What the query around this one locks in its own FROM is not this one's.
        let (around, inherited) = (self.locks.take(), self.inherited_lock.take());
        let Some(with) = &q.with else {
            self.inherited_lock = inherited;
            let out = self.nested_body(q, resolve)?;
            self.locks = around;
            return Ok(out);
        };
        let mark = self.ctes.len();
        let ctes = self.with_clause(with)?;
        self.inherited_lock = inherited;
        let out = self.nested_body(q, resolve)?;
        self.ctes.truncate(mark);
        self.locks = around;
        Ok(QueryOut { rel: with_around(ctes, out.rel), ..out })
    }

    fn nested_body(&mut self, q: &ast::Query, resolve: bool) -> Result<QueryOut> {
        self.nesting += 1;
        let out = self.body(q, resolve);
        self.nesting -= 1;
        out
    }

    fn body(&mut self, q: &ast::Query, resolve: bool) -> Result<QueryOut> {
        match &q.body {
            ast::Body::Select(select) => self.select(select, q, resolve),
            ast::Body::Values(rows) => {
                self.inherited_lock = None;
                if let Some(clause) = q.locking.first() {
                    let message = format!("{} cannot be applied to VALUES", clause_name(clause.mode));
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
                }
                let out = self.values(rows)?;
                self.order_and_limit(out, q, None)
            }
            ast::Body::SetOp { op, all, left, right, .. } => {
                let inherited = self.inherited_lock.take().map(|(mode, _)| mode);
                let clauses = [q, left, right].into_iter().flat_map(|q| &q.locking).map(|c| c.mode);
                if let Some(mode) = clauses.chain(inherited).next() {
                    let message = format!("{} is not allowed with UNION/INTERSECT/EXCEPT", clause_name(mode));
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
                }
                let out = self.set_operation(*op, *all, left, right)?;
                self.order_and_limit(out, q, Some(*op))
            }
        }
    }

    /// VALUES as a query.
    fn values(&mut self, rows: &[Vec<ast::Expr>]) -> Result<QueryOut> {
        let (out, _) = self.in_level(Level::new(vec![], Clause::Values), |b| b.value_rows(rows))?;
        Ok(out)
    }

    fn value_rows(&mut self, rows: &[Vec<ast::Expr>]) -> Result<QueryOut> {
        let mut columns: Vec<Vec<Val>> = Vec::new();
        let mut positions = Vec::new();
        for (r, row) in rows.iter().enumerate() {
            let mut vals = Vec::with_capacity(row.len());
            for cell in row {
                match &cell.kind {
                    ast::ExprKind::Star(names) => {
                        vals.extend(self.expand_star(names, cell.pos)?.into_iter().map(|(_, v)| v))
                    }
                    _ => vals.push(self.expr(cell)?),
                }
            }
            check_targets(vals.len())?;
            if r == 0 {
                columns.resize_with(vals.len(), || Vec::with_capacity(rows.len()));
                positions = vals.iter().map(|v| v.pos).collect();
            } else if vals.len() != columns.len() {
                let pos = row.first().map_or(0, |e| e.pos);
                return error(state::SYNTAX_ERROR, pos, "VALUES lists must all be the same length");
            }
            columns.iter_mut().zip(vals).for_each(|(column, val)| column.push(val));
        }
        let mut out: Vec<Vec<Expr>> = (0..rows.len()).map(|_| Vec::with_capacity(columns.len())).collect();
        let mut schema = Vec::with_capacity(columns.len());
        for (i, column) in columns.into_iter().enumerate() {
            let (exprs, ty) = self.unify(column, "VALUES")?;
            out.iter_mut().zip(exprs).for_each(|(row, e)| row.push(e));
            schema.push(field(format!("column{}", i + 1), ty));
        }
        let width = schema.len();
        Ok(QueryOut {
            rel: Rel { kind: RelKind::Values(out), schema: schema.into() },
            fields: vec![None; width],
            positions,
        })
    }

    fn set_operation(&mut self, op: SetOp, all: bool, left: &ast::Query, right: &ast::Query) -> Result<QueryOut> {
        let left_out = self.deeper(2, |b| b.query(left, false))?;
        let right_out = self.deeper(2, |b| b.query(right, false))?;
        self.combine(op, all, left_out, right_out, right.pos)
    }

    /// Brings two queries to common column types and puts the operation above them.
    pub fn combine(
        &mut self,
        op: SetOp,
        all: bool,
        left: QueryOut,
        right: QueryOut,
        right_pos: Pos,
    ) -> Result<QueryOut> {
        let what = set_op_name(op);
        if left.rel.schema.len() != right.rel.schema.len() {
            let pos = right.positions.first().copied().unwrap_or(right_pos);
            return error(state::SYNTAX_ERROR, pos, format!("each {what} query must have the same number of columns"));
        }
        let mut types = Vec::with_capacity(left.rel.schema.len());
        for (i, (l, r)) in left.rel.schema.iter().zip(right.rel.schema.iter()).enumerate() {
            types.push(common_column(self, l, r, what, left.positions[i], right.positions[i])?);
        }
        if !(all && op == SetOp::Union) {
            types.iter().zip(&left.positions).try_for_each(|(ty, pos)| check_equality(ty.ty, *pos))?;
        }
        let (l, r) = (
            self.retype(left.rel, &types, what, &left.positions)?,
            self.retype(right.rel, &types, what, &right.positions)?,
        );
        let schema = l.schema.iter().zip(&types).map(|(f, ty)| field(&f.name, *ty)).collect();
        let kind = RelKind::SetOp { op, all, left: Box::new(l), right: Box::new(r) };
        Ok(QueryOut { rel: Rel { kind, schema }, fields: left.fields, positions: left.positions })
    }

    /// Converts the columns of a relation to given types, literals among them directly.
    pub fn retype(&mut self, rel: Rel, types: &[TypeMod], what: &str, positions: &[Pos]) -> Result<Rel> {
        if rel.schema.iter().zip(types).all(|(f, ty)| f.ty.ty == ty.ty) {
            return Ok(rel);
        }
        let mut exprs = Vec::with_capacity(types.len());
        for (i, ty) in types.iter().enumerate() {
            let e = unknown_literal(&rel, i).unwrap_or_else(|| Expr::column(i, rel.schema[i].ty));
            exprs.push(self.to_common(Val { e, pos: positions[i], fields: None }, ty.ty, what)?.e);
        }
        let schema = rel.schema.iter().zip(types).map(|(f, ty)| field(&f.name, *ty)).collect();
        Ok(project(rel, exprs, schema))
    }

    /// ORDER BY and LIMIT of VALUES and set operations, whose rows have only their own columns.
    fn order_and_limit(&mut self, out: QueryOut, q: &ast::Query, op: Option<SetOp>) -> Result<QueryOut> {
        if q.order_by.is_empty() && q.limit.is_none() && q.offset.is_none() {
            return Ok(out);
        }
        let QueryOut { mut rel, fields, positions } = out;
        let item = Item::over(None, &rel, &fields, rel.schema.len());
        let item = Item { by_name: false, ..item };
        let (keys, limits) = self
            .in_level(Level::new(vec![item], Clause::OrderBy), |b| {
                let mut keys = Vec::with_capacity(q.order_by.len());
                for key in &q.order_by {
                    let expr = b.output_key(key, &rel.schema, op)?;
                    // Of two equal keys the second decides nothing.
                    if !keys.iter().any(|k: &SortKey| same(&k.expr, &expr)) {
                        keys.push(sort_key(expr, key)?);
                        check_targets(keys.len())?;
                    }
                }
                Ok((keys, b.limit_exprs(q)?))
            })?
            .0;
        if !keys.is_empty() {
            rel = sort(rel, keys.clone());
        }
        rel = limit(rel, limits, q.with_ties.then_some(keys));
        Ok(QueryOut { rel, fields, positions })
    }

    /// A sort key that may only be an output column (or for VALUES an expression over them).
    fn output_key(&mut self, key: &ast::OrderBy, schema: &[Field], op: Option<SetOp>) -> Result<Expr> {
        let pos = key.expr.pos;
        match &key.expr.kind {
            ast::ExprKind::Number(n) => {
                let index = position(n, schema.len(), "ORDER BY", pos)?;
                return Ok(Expr::column(index, schema[index].ty));
            }
            ast::ExprKind::Column(names) if names.len() == 1 => {
                let mut found = schema.iter().enumerate().filter(|(_, f)| *f.name == names[0].text);
                match (found.next(), found.next()) {
                    (Some((i, f)), None) => return Ok(Expr::column(i, f.ty)),
                    (Some(_), Some(_)) => {
                        return error(
                            state::AMBIGUOUS_COLUMN,
                            pos,
                            format!("ORDER BY \"{}\" is ambiguous", names[0].text),
                        );
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let mut val = self.expr(&key.expr)?;
        if op.is_some() && (reads_row(&mut val.e) || !matches!(val.e.kind, ExprKind::Const(_))) {
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "invalid UNION/INTERSECT/EXCEPT ORDER BY clause")
                .detail("Only result column names can be used, not expressions or functions.")
                .hint("Add the expression/function to every SELECT, or move the UNION into a FROM clause.")
                .at(Some(val.pos + 1)));
        }
        Ok(self.resolve_unknown(val)?.e)
    }

    /// LIMIT and OFFSET, of type bigint and without columns.
    pub fn limit_exprs(&mut self, q: &ast::Query) -> Result<(Option<Expr>, Option<Expr>)> {
        let mut one = |e: &Option<ast::Expr>, clause: Clause| -> Result<Option<Expr>> {
            let Some(e) = e else { return Ok(None) };
            let val = self.in_clause(clause, |b| b.expr(e))?;
            let mut bound = self.argument_of(val, Type::INT8, clause.name())?;
            if reads_row(&mut bound) {
                return error(
                    state::INVALID_COLUMN_REFERENCE,
                    e.pos,
                    format!("argument of {} must not contain variables", clause.name()),
                );
            }
            Ok(Some(bound))
        };
        if q.with_ties && q.limit.as_ref().is_some_and(is_null_literal) {
            let pos = q.limit.as_ref().map_or(q.pos, |l| l.pos);
            return error(
                state::INVALID_ROW_COUNT_IN_LIMIT,
                pos,
                "row count cannot be null in FETCH FIRST ... WITH TIES clause",
            );
        }
        if q.with_ties && q.locking.iter().any(|clause| clause.patience == Patience::Skip) {
            let message = "SKIP LOCKED and WITH TIES options cannot be used together";
            return Err(SqlError::new(state::SYNTAX_ERROR, message));
        }
        let limit = one(&q.limit, Clause::Limit)?;
        Ok((limit, one(&q.offset, Clause::Offset)?))
    }

    /// Brings the output of a query to the types of columns that it is stored in.
    pub fn assign_columns(&mut self, rel: Rel, targets: &[(String, TypeMod)], positions: &[Pos]) -> Result<Rel> {
        let mut exprs = Vec::with_capacity(targets.len());
        let mut changed = false;
        for (i, (name, ty)) in targets.iter().enumerate() {
            let e = unknown_literal(&rel, i).unwrap_or_else(|| Expr::column(i, rel.schema[i].ty));
            let val = self.assign(Val { e, pos: positions[i], fields: None }, *ty, name)?;
            changed |= !matches!(val.e.kind, ExprKind::Column(c) if c == i);
            exprs.push(val.e);
        }
        if !changed {
            return Ok(rel);
        }
        let schema = targets.iter().map(|(name, ty)| field(name, *ty)).collect();
        Ok(project(rel, exprs, schema))
    }

    /// Converts an explicit list of arguments to declared types, as EXECUTE does.
    pub fn assign_argument(&mut self, val: Val, ty: Type, number: usize) -> Result<Expr> {
        let (source, pos) = (val.ty(), val.pos);
        match self.coerce_to(val, ty.plain(), CastContext::Assignment)? {
            Some(val) => Ok(val.e),
            None => Err(SqlError::new(
                state::DATATYPE_MISMATCH,
                format!(
                    "parameter ${number} of type {} cannot be coerced to the expected type {}",
                    source.sql_name(),
                    ty.sql_name()
                ),
            )
            .hint("You will need to rewrite or cast the expression.")
            .at(Some(pos + 1))),
        }
    }
}

/// The type a column of two united queries has.
pub(super) fn common_column(
    binder: &Binder<'_>,
    l: &Field,
    r: &Field,
    what: &str,
    left_pos: Pos,
    right_pos: Pos,
) -> Result<TypeMod> {
    let val = |f: &Field, pos| Val { e: Expr::column(0, f.ty), pos, fields: None };
    let ty = binder.common_type_of(&[&val(l, left_pos), &val(r, right_pos)], what)?;
    Ok(TypeMod { ty, typmod: common_typmod([l.ty, r.ty].into_iter(), ty) })
}

/// A position in ORDER BY or GROUP BY: the index of an output column.
pub(super) fn position(text: &str, columns: usize, clause: &str, pos: Pos) -> Result<usize> {
    let Ok(n) = text.parse::<i32>() else {
        return error(state::SYNTAX_ERROR, pos, format!("non-integer constant in {clause}"));
    };
    match usize::try_from(n) {
        Ok(n) if n >= 1 && n <= columns => Ok(n - 1),
        _ => error(state::INVALID_COLUMN_REFERENCE, pos, format!("{clause} position {n} is not in select list")),
    }
}

/// CTEs around a relation.
pub(super) fn with_around(ctes: Vec<Cte>, body: Rel) -> Rel {
    if ctes.is_empty() {
        return body;
    }
    let schema = body.schema.clone();
    Rel { kind: RelKind::With { ctes, body: Box::new(body) }, schema }
}

/// Rows in order.
pub(super) fn sort(input: Rel, keys: Vec<SortKey>) -> Rel {
    let schema = input.schema.clone();
    Rel { kind: RelKind::Sort { input: Box::new(input), keys }, schema }
}

/// Some of the rows, if a limit or an offset is given.
pub(super) fn limit(input: Rel, (limit, offset): (Option<Expr>, Option<Expr>), with_ties: Option<Vec<SortKey>>) -> Rel {
    if limit.is_none() && offset.is_none() {
        return input;
    }
    let schema = input.schema.clone();
    Rel { kind: RelKind::Limit { input: Box::new(input), limit, offset, with_ties }, schema }
}

/// The literal (or parameter) that makes an output column of type unknown.
pub(super) fn unknown_literal(rel: &Rel, column: usize) -> Option<Expr> {
    if rel.schema[column].ty.ty != Type::UNKNOWN {
        return None;
    }
    match &rel.kind {
        RelKind::Project { exprs, .. } => match &exprs[column].kind {
            ExprKind::Const(_) | ExprKind::Param(_) => Some(exprs[column].clone()),
            ExprKind::Column(inner) => match &rel.kind {
                RelKind::Project { input, .. } => unknown_literal(input, *inner),
                _ => None,
            },
            _ => None,
        },
        RelKind::Sort { input, .. } | RelKind::Limit { input, .. } | RelKind::Distinct { input, .. } => {
            unknown_literal(input, column)
        }
        RelKind::With { body, .. } => unknown_literal(body, column),
        _ => None,
    }
}

fn set_op_name(op: SetOp) -> &'static str {
    match op {
        SetOp::Union => "UNION",
        SetOp::Intersect => "INTERSECT",
        SetOp::Except => "EXCEPT",
    }
}

/// Whether an expression returns a set somewhere.
pub(super) fn has_set(e: &mut Expr) -> bool {
    any_part(e, &mut |e| matches!(e.kind, ExprKind::SetCall { .. }))
}

/// A schema's columns under other names.
pub(super) fn renamed(schema: &[Field], names: &[ast::Name]) -> Arc<[Field]> {
    schema
        .iter()
        .enumerate()
        .map(|(i, f)| match names.get(i) {
            Some(name) => Field { name: Arc::from(name.text.as_str()), ..f.clone() },
            None => f.clone(),
        })
        .collect()
}
