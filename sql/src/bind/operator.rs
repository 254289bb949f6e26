//! Operators: looking them up, comparing rows, IN, LIKE, ANY and ALL.

use super::binder::*;
use super::coerce::{call, common_type};
use super::overload::{Choice, choose, resolve_polymorphic};
use super::walk::any_part;
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{CastContext, Operator, ScalarFn, registry};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Type, TypeMod};

/// Operators that PostgreSQL knows as the btree strategies.
fn row_compare_op(name: &str) -> Option<RowCompareOp> {
    Some(match name {
        "=" => RowCompareOp::Eq,
        "<>" => RowCompareOp::Ne,
        "<" => RowCompareOp::Lt,
        "<=" => RowCompareOp::Le,
        ">" => RowCompareOp::Gt,
        ">=" => RowCompareOp::Ge,
        _ => return None,
    })
}

/// The operator for these operand types (NONE on the left for a prefix operator).
fn find(name: &str, left: Type, right: Type, pos: Pos) -> Result<&'static Operator> {
    let all: Vec<&'static Operator> = registry()
        .operators
        .get(name)
        .map_or(&[][..], |v| v)
        .iter()
        .filter(|o| (o.left == Type::NONE) == (left == Type::NONE))
        .collect();
    if left != Type::NONE {
        let (l, r) = match (left, right) {
            (Type::UNKNOWN, r) => (r, r),
            (l, Type::UNKNOWN) => (l, l),
            both => both,
        };
        if let Some(exact) = all.iter().find(|o| o.left == l && o.right == r) {
            return Ok(exact);
        }
    }
    let args: Vec<Type> = if left == Type::NONE { vec![right] } else { vec![left, right] };
    let declared: Vec<Vec<Type>> =
        all.iter().map(|o| if left == Type::NONE { vec![o.right] } else { vec![o.left, o.right] }).collect();
    let candidates: Vec<&[Type]> = declared.iter().map(Vec::as_slice).collect();
    let shown = if left == Type::NONE {
        format!("{name} {}", right.sql_name())
    } else {
        format!("{} {name} {}", left.sql_name(), right.sql_name())
    };
    match choose(&args, &candidates) {
        Choice::One(i) => Ok(all[i]),
        Choice::None if left == Type::JSONB && matches!(name, "@?" | "@@") => {
            unsupported(pos, format!("operator {name} of jsonb"))
        }
        Choice::None => Err(SqlError::new(state::UNDEFINED_FUNCTION, format!("operator does not exist: {shown}"))
            .hint(if left == Type::NONE {
                "No operator matches the given name and argument type. You might need to add an explicit type cast."
            } else {
                "No operator matches the given name and argument types. You might need to add explicit type casts."
            })
            .at(Some(pos + 1))),
        Choice::Ambiguous => Err(SqlError::new(state::AMBIGUOUS_FUNCTION, format!("operator is not unique: {shown}"))
            .hint("Could not choose a best candidate operator. You might need to add explicit type casts.")
            .at(Some(pos + 1))),
    }
}

/// Refuses to group, make distinct or tell apart what has no `=`: json, whose texts can differ where the values do not.
pub(super) fn check_equality(ty: Type, pos: Pos) -> Result<()> {
    if !is_json(ty) {
        return Ok(());
    }
    error(state::UNDEFINED_FUNCTION, pos, format!("could not identify an equality operator for type {}", ty.sql_name()))
}

/// Refuses to sort by what has no `<`.
pub(super) fn check_ordering(ty: Type, pos: Pos) -> Result<()> {
    if !is_json(ty) {
        return Ok(());
    }
    let message = format!("could not identify an ordering operator for type {}", ty.sql_name());
    Err(SqlError::new(state::UNDEFINED_FUNCTION, message)
        .hint("Use an explicit ordering operator or modify the query.")
        .at(Some(pos + 1)))
}

fn is_json(ty: Type) -> bool {
    matches!(ty, Type::JSON | Type::JSON_ARRAY)
}

/// A comparison with its sides brought to what its function takes.
pub(super) struct Comparison {
    pub func: &'static ScalarFn,
    pub left: Expr,
    pub right: Expr,
}

impl Binder<'_> {
    /// Applies an operator to bound operands.
    pub fn operator(&mut self, name: &str, left: Option<Val>, right: Val, pos: Pos) -> Result<Val> {
        let left_type = left.as_ref().map_or(Type::NONE, Val::ty);
        let op = find(name, left_type, right.ty(), pos)?;
        let mut declared = vec![op.right];
        let mut actual = vec![right.ty()];
        let mut operands = vec![right];
        // Where a value is written is where its first operand is; what is wrong with an operator is told at the operator.
        let first = left.as_ref().map_or(pos, |l| l.pos);
        if let Some(left) = left {
            declared.insert(0, op.left);
            actual.insert(0, left_type);
            operands.insert(0, left);
        }
        let (declared, ret) = resolve_polymorphic(&actual, &declared, op.func.ret).at_pos(pos)?;
        let mut args = Vec::with_capacity(2);
        for (operand, ty) in operands.into_iter().zip(declared) {
            args.push(self.convert(operand, ty, CastContext::Implicit)?.e);
        }
        Ok(Val { e: call(op.func, args, ret.plain()), pos: pos.min(first), fields: None })
    }

    /// An operator whose result must be boolean, taken apart.
    pub fn comparison(&mut self, name: &str, left: Val, right: Val, pos: Pos) -> Result<Comparison> {
        let val = self.operator(name, Some(left), right, pos)?;
        match val.e.kind {
            ExprKind::Call { func, mut args } if args.len() == 2 && val.e.ty.ty == Type::BOOL => {
                let right = args.pop().expect("two arguments");
                let left = args.pop().expect("two arguments");
                Ok(Comparison { func, left, right })
            }
            _ => error(state::DATATYPE_MISMATCH, pos, format!("{name} must be an operator that yields boolean")),
        }
    }

    /// `e` is bound here so that a chain of a thousand operators does not recurse: left operands are gone down in a loop.
    pub fn operator_chain(&mut self, e: &ast::Expr) -> Result<Val> {
        let mut spine = vec![];
        let mut at = e;
        while let ast::ExprKind::Op { left: Some(left), .. } = &at.kind {
            spine.push(at);
            if !is_plain_op(at) {
                break;
            }
            at = left;
        }
        let mut val: Option<Val> = None;
        for op in spine.into_iter().rev() {
            let ast::ExprKind::Op { schema, name, left: Some(left), right } = &op.kind else { continue };
            self.check_operator_schema(schema.as_deref(), name, op.pos)?;
            val = Some(match val {
                None => self.first_operation(name, left, right, op.pos)?,
                Some(left) => {
                    let right = self.expr(right)?;
                    self.operator(name, Some(left), right, op.pos)?
                }
            });
        }
        match val {
            Some(val) => Ok(val),
            None => Err(SqlError::internal("an operator without operands")),
        }
    }

    fn check_operator_schema(&self, schema: Option<&str>, name: &str, pos: Pos) -> Result<()> {
        match schema {
            None | Some("pg_catalog") => Ok(()),
            Some(schema) if self.catalog.schema_oid(schema).is_none() => {
                error(state::INVALID_SCHEMA_NAME, pos, format!("schema \"{schema}\" does not exist"))
            }
            Some(schema) => error(state::UNDEFINED_FUNCTION, pos, format!("operator does not exist: {schema}.{name}")),
        }
    }

    /// The innermost operation of a chain, whose left operand may be a row.
    fn first_operation(&mut self, name: &str, left: &ast::Expr, right: &ast::Expr, pos: Pos) -> Result<Val> {
        if let ast::ExprKind::Row { .. } = &left.kind {
            match &right.kind {
                ast::ExprKind::Row { .. } => {
                    let left = self.row_fields(left)?;
                    let right = self.row_fields(right)?;
                    return self.compare_rows(name, left, right, pos);
                }
                ast::ExprKind::ScalarQuery(query) => return self.compare_row_with_query(name, left, query, pos),
                _ => {}
            }
        }
        let left = self.expr(left)?;
        let right = self.expr(right)?;
        self.operator(name, Some(left), right, pos)
    }

    /// The fields of a row constructor.
    pub fn row_fields(&mut self, row: &ast::Expr) -> Result<Vec<Val>> {
        let ast::ExprKind::Row { fields, .. } = &row.kind else { return Ok(vec![self.expr(row)?]) };
        let mut vals = Vec::with_capacity(fields.len());
        for field in fields {
            match &field.kind {
                ast::ExprKind::Star(names) => {
                    vals.extend(self.expand_star(names, field.pos)?.into_iter().map(|(_, v)| v))
                }
                ast::ExprKind::FieldStar(input) => {
                    let input = self.expr(input)?;
                    vals.extend(self.expand_fields(input, field.pos)?.into_iter().map(|(_, v)| v));
                }
                _ => vals.push(self.expr(field)?),
            }
        }
        Ok(vals)
    }

    /// `(a, b) op (c, d)`.
    pub fn compare_rows(&mut self, name: &str, left: Vec<Val>, right: Vec<Val>, pos: Pos) -> Result<Val> {
        if left.len() != right.len() {
            return error(state::SYNTAX_ERROR, pos, "unequal number of entries in row expressions");
        }
        if left.is_empty() {
            return error(state::FEATURE_NOT_SUPPORTED, pos, "cannot compare rows of zero length");
        }
        let mut parts = Vec::with_capacity(left.len());
        for (left, right) in left.into_iter().zip(right) {
            parts.push(self.comparison(name, left, right, pos)?);
        }
        let Some(op) = row_compare_op(name) else {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("could not determine interpretation of row comparison operator {name}"),
            )
            .hint("Row comparison operators must be associated with btree operator families.")
            .at(Some(pos + 1)));
        };
        let kind = match op {
            RowCompareOp::Eq | RowCompareOp::Ne => {
                let mut parts: Vec<Expr> =
                    parts.into_iter().map(|c| call(c.func, vec![c.left, c.right], Type::BOOL.plain())).collect();
                match (parts.len(), op) {
                    (1, _) => return Ok(Val { e: parts.remove(0), pos, fields: None }),
                    (_, RowCompareOp::Eq) => ExprKind::And(parts),
                    _ => ExprKind::Or(parts),
                }
            }
            _ if parts.len() == 1 => {
                let only = parts.remove(0);
                ExprKind::Call { func: only.func, args: vec![only.left, only.right] }
            }
            _ => {
                let mut pairs = Vec::with_capacity(parts.len());
                for part in parts {
                    pairs.push(self.alike(part, pos)?);
                }
                ExprKind::RowCompare { op, pairs }
            }
        };
        Ok(Val::new(kind, Type::BOOL, pos))
    }

    /// Both sides of a comparison in one type, as ordering by the type wants.
    fn alike(&mut self, c: Comparison, pos: Pos) -> Result<RowPair> {
        let (l, r) = (c.left.ty.ty, c.right.ty.ty);
        if l == r {
            return Ok(RowPair { left: c.left, right: c.right });
        }
        let common = common_type(&[l, r]).unwrap_or(l);
        let mut side =
            |e: Expr| Ok::<_, SqlError>(self.to_common(Val { e, pos, fields: None }, common, "row comparison")?.e);
        Ok(RowPair { left: side(c.left)?, right: side(c.right)? })
    }

    /// `(a, b) op (SELECT x, y ..)`: the subquery's one row, column by column.
    fn compare_row_with_query(&mut self, name: &str, left: &ast::Expr, query: &ast::Query, pos: Pos) -> Result<Val> {
        let left = self.row_fields(left)?;
        let (out, correlated) = self.as_subquery(pos, |b| b.query(query, true))?;
        let width = out.rel.schema.len();
        if width < left.len() {
            return error(state::SYNTAX_ERROR, pos, "subquery has too few columns");
        }
        if width > left.len() {
            return error(state::SYNTAX_ERROR, pos, "subquery has too many columns");
        }
        let right = (0..width)
            .map(|i| Val { e: column_subquery(&out.rel, i, correlated), pos: query.pos, fields: None })
            .collect();
        self.compare_rows(name, left, right, pos)
    }

    /// IS [NOT] DISTINCT FROM.
    pub fn distinct(&mut self, left: &ast::Expr, right: &ast::Expr, negated: bool, pos: Pos) -> Result<Val> {
        if is_null_literal(right) || is_null_literal(left) {
            let input = self.expr(if is_null_literal(right) { left } else { right })?;
            return Ok(Val::new(ExprKind::IsNull { input: Box::new(input.e), negated: !negated }, Type::BOOL, pos));
        }
        if let (ast::ExprKind::Row { .. }, ast::ExprKind::Row { .. }) = (&left.kind, &right.kind) {
            let (left, right) = (self.row_fields(left)?, self.row_fields(right)?);
            if left.len() != right.len() {
                return error(state::SYNTAX_ERROR, pos, "unequal number of entries in row expressions");
            }
            let mut parts = Vec::with_capacity(left.len());
            for (left, right) in left.into_iter().zip(right) {
                parts.push(self.distinct_vals(left, right, negated, pos)?.e);
            }
            return Ok(Val::new(if negated { ExprKind::And(parts) } else { ExprKind::Or(parts) }, Type::BOOL, pos));
        }
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        self.distinct_vals(left, right, negated, pos)
    }

    fn distinct_vals(&mut self, left: Val, right: Val, negated: bool, pos: Pos) -> Result<Val> {
        let c = self.comparison("=", left, right, pos)?;
        Ok(Val::new(
            ExprKind::Distinct { eq: c.func, left: Box::new(c.left), right: Box::new(c.right), negated },
            Type::BOOL,
            pos,
        ))
    }

    /// BETWEEN, as the comparisons it stands for, the operands they have in common [`shared`].
    pub fn between(
        &mut self,
        input: &ast::Expr,
        low: &ast::Expr,
        high: &ast::Expr,
        symmetric: bool,
        negated: bool,
        pos: Pos,
    ) -> Result<Val> {
        let (mut x, mut low, mut high) = (self.expr(input)?, self.expr(low)?, self.expr(high)?);
        let operand = if symmetric { shared(vec![&mut x, &mut low, &mut high]) } else { shared(vec![&mut x]) };
        let range = |b: &mut Self, low: &Val, high: &Val| -> Result<Expr> {
            let ge = b.operator(if negated { "<" } else { ">=" }, Some(x.clone()), low.clone(), pos)?.e;
            let le = b.operator(if negated { ">" } else { "<=" }, Some(x.clone()), high.clone(), pos)?.e;
            let kind = if negated { ExprKind::Or(vec![ge, le]) } else { ExprKind::And(vec![ge, le]) };
            Ok(Expr { kind, ty: Type::BOOL.plain() })
        };
        let mut test = range(self, &low, &high)?;
        if symmetric {
            let parts = vec![test, range(self, &high, &low)?];
            let kind = if negated { ExprKind::And(parts) } else { ExprKind::Or(parts) };
            test = Expr { kind, ty: Type::BOOL.plain() };
        }
        Ok(with_operand(operand, Val { e: test, pos, fields: None }))
    }

    /// LIKE, ILIKE, SIMILAR TO.
    pub fn like(
        &mut self,
        kind: ast::LikeKind,
        input: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
        negated: bool,
        pos: Pos,
    ) -> Result<Val> {
        let left = self.expr(input)?;
        let mut right = self.expr(pattern)?;
        let escape = escape.map(|e| self.expr(e)).transpose()?;
        match (kind, escape) {
            (ast::LikeKind::Similar, escape) => {
                let args = std::iter::once(right).chain(escape).collect();
                right = self.builtin("similar_to_escape", args, pos)?;
            }
            (_, Some(escape)) => right = self.builtin("like_escape", vec![right, escape], pos)?,
            (_, None) => {}
        }
        let op = match (kind, negated) {
            (ast::LikeKind::Like, false) => "~~",
            (ast::LikeKind::Like, true) => "!~~",
            (ast::LikeKind::ILike, false) => "~~*",
            (ast::LikeKind::ILike, true) => "!~~*",
            (ast::LikeKind::Similar, false) => "~",
            (ast::LikeKind::Similar, true) => "!~",
        };
        self.operator(op, Some(left), right, pos)
    }

    /// `x IN (a, b, ..)`: one test against an array where the list has a common type, else a test each.
    pub fn in_list(&mut self, input: &ast::Expr, list: &[ast::Expr], negated: bool, pos: Pos) -> Result<Val> {
        let op = if negated { "<>" } else { "=" };
        if let ast::ExprKind::Row { .. } = input.kind {
            let mut left = self.row_fields(input)?;
            let operand = if list.len() > 1 { shared(left.iter_mut().collect()) } else { None };
            let mut tests = Vec::with_capacity(list.len());
            for item in list {
                if let ast::ExprKind::Row { .. } = item.kind {
                    let right = self.row_fields(item)?;
                    tests.push(self.compare_rows(op, left.clone(), right, pos)?.e);
                } else {
                    let row = self.expr(input)?;
                    let right = self.expr(item)?;
                    tests.push(self.operator(op, Some(row), right, pos)?.e);
                }
            }
            return Ok(with_operand(operand, any_of(tests, negated, pos)));
        }
        let mut left = self.expr(input)?;
        let mut constants = Vec::new();
        let mut others = Vec::new();
        for item in list {
            let mut val = self.expr(item)?;
            if super::walk::nearest_level(&mut val.e).is_some() || matches!(val.e.kind, ExprKind::Subquery(_)) {
                others.push(val);
            } else {
                constants.push(val);
            }
        }
        let operand = if others.is_empty() { None } else { shared(vec![&mut left]) };
        let mut tests = Vec::new();
        if constants.len() > 1 {
            let types: Vec<Type> = std::iter::once(left.ty()).chain(constants.iter().map(Val::ty)).collect();
            let element = common_type(&types).ok().filter(|t| *t != Type::RECORD);
            if let Some((element, array)) = element.and_then(|e| e.array_of().map(|a| (e, a))) {
                let mut elems = Vec::with_capacity(constants.len());
                for val in std::mem::take(&mut constants) {
                    elems.push(self.to_common(val, element, "IN")?.e);
                }
                let array = Val::new(ExprKind::Array { elems, nested: false }, array, pos);
                tests.push(self.array_test(op, left.clone(), array, negated, pos)?.e);
            }
        }
        for val in constants.into_iter().chain(others) {
            tests.push(self.operator(op, Some(left.clone()), val, pos)?.e);
        }
        Ok(with_operand(operand, any_of(tests, negated, pos)))
    }

    /// `left op ANY/ALL (array)`.
    pub fn array_test(&mut self, op: &str, left: Val, array: Val, all: bool, pos: Pos) -> Result<Val> {
        let element = if array.is_unknown() {
            Type::UNKNOWN
        } else {
            match array.ty().element() {
                Some(element) => element,
                None => return error(state::WRONG_OBJECT_TYPE, pos, "op ANY/ALL (array) requires array on right side"),
            }
        };
        let stand_in = Val::new(ExprKind::CaseOperand, element, array.pos);
        let test = self.operator(op, Some(left), stand_in, pos)?;
        let (ExprKind::Call { func, mut args }, Type::BOOL) = (test.e.kind, test.e.ty.ty) else {
            return error(state::WRONG_OBJECT_TYPE, pos, "op ANY/ALL (array) requires operator to yield boolean");
        };
        let wanted = args.pop().map_or(element, |e| e.ty.ty);
        let left = args.pop().ok_or_else(|| SqlError::internal("an operator without a left operand"))?;
        let Some(wanted_array) = wanted.array_of() else {
            return error(
                state::UNDEFINED_OBJECT,
                pos,
                format!("could not find array type for data type {}", wanted.sql_name()),
            );
        };
        let array = self.convert(array, wanted_array, CastContext::Implicit)?.e;
        Ok(Val::new(ExprKind::ScalarArray { func, left: Box::new(left), array: Box::new(array), all }, Type::BOOL, pos))
    }

    /// `left op ANY/ALL (subquery)` and `left IN (subquery)`.
    pub fn query_test(&mut self, op: &str, left: &ast::Expr, query: &ast::Query, all: bool, pos: Pos) -> Result<Val> {
        let tests = self.row_fields(left)?;
        let (out, correlated) = self.as_subquery(pos, |b| b.query(query, true))?;
        let mut plan = out.rel;
        if plan.schema.len() != tests.len() {
            let few = plan.schema.len() < tests.len();
            return error(
                state::SYNTAX_ERROR,
                pos,
                if few { "subquery has too few columns" } else { "subquery has too many columns" },
            );
        }
        // The negation of `<>` over rows is `=`: (a,b) <> ALL means NOT (a,b) = ANY.
        let row = tests.len() > 1;
        let (op, all, negated) = match op {
            "<>" if row => ("=", !all, true),
            "=" => ("=", all, false),
            _ if row => return unsupported(pos, format!("row comparison {op} with ANY or ALL of a subquery")),
            _ => (op, all, false),
        };
        let (mut funcs, mut sides, mut casts) = (vec![], vec![], vec![]);
        let mut cast_needed = false;
        for (i, test) in tests.into_iter().enumerate() {
            let column = Val { e: Expr::column(i, plan.schema[i].ty), pos: query.pos, fields: None };
            let c = self.comparison(op, test, column, pos)?;
            cast_needed |= !matches!(c.right.kind, ExprKind::Column(_));
            funcs.push(c.func);
            sides.push(c.left);
            casts.push(c.right);
        }
        if cast_needed {
            let schema = plan.schema.iter().zip(&casts).map(|(f, c)| field(&f.name, c.ty)).collect();
            plan = project(plan, casts, schema);
        }
        let sub = Subquery { kind: SubqueryKind::Quantified { tests: sides, funcs, all }, plan, correlated };
        let e = Expr { kind: ExprKind::Subquery(Box::new(sub)), ty: Type::BOOL.plain() };
        let kind = if negated { ExprKind::Not(Box::new(e)) } else { e.kind };
        Ok(Val::new(kind, Type::BOOL, pos))
    }
}

/// One column of a subquery as a value.
pub(super) fn column_subquery(plan: &Rel, column: usize, correlated: bool) -> Expr {
    let ty: TypeMod = plan.schema[column].ty;
    let plan = if plan.schema.len() == 1 {
        plan.clone()
    } else {
        project(plan.clone(), vec![Expr::column(column, ty)], std::iter::once(plan.schema[column].clone()).collect())
    };
    Expr { kind: ExprKind::Subquery(Box::new(Subquery { kind: SubqueryKind::Scalar, plan, correlated })), ty }
}

/// The one row of a subquery as a value.
pub(super) fn row_subquery(plan: &Rel, correlated: bool) -> Expr {
    let ty = Type::RECORD.plain();
    let row = Expr { kind: ExprKind::Row(columns_of(&plan.schema)), ty };
    let plan = project(plan.clone(), vec![row], std::iter::once(field("row", ty)).collect());
    Expr { kind: ExprKind::Subquery(Box::new(Subquery { kind: SubqueryKind::Scalar, plan, correlated })), ty }
}

/// Parts an expression may have to be copied rather than shared.
const SMALL_PARTS: usize = 8;

/// Whether an expression may be written twice: a column with a cast or a little arithmetic, which an index may serve.
fn is_small(e: &mut Expr) -> bool {
    let mut parts = 0;
    let mut query = false;
    any_part(e, &mut |e| {
        parts += 1;
        query |= matches!(e.kind, ExprKind::Subquery(_));
        query || parts > SMALL_PARTS
    });
    !query && parts <= SMALL_PARTS
}

/// Prepares values for a test that needs them more than once. Small ones may be copied; in the place of larger ones comes what stands for the
/// operand of a CASE, and that operand (one value, or a row of them) is returned for [`with_operand`]: tests are nested in one another, and copies
/// of copies would double with every level.
fn shared(mut vals: Vec<&mut Val>) -> Option<Expr> {
    vals.retain_mut(|val| !is_small(&mut val.e));
    if let [only] = &mut vals[..] {
        let stand_in = Expr { kind: ExprKind::CaseOperand, ty: only.e.ty };
        return Some(std::mem::replace(&mut only.e, stand_in));
    }
    let mut parts = Vec::with_capacity(vals.len());
    for (index, val) in vals.into_iter().enumerate() {
        let row = Box::new(Expr { kind: ExprKind::CaseOperand, ty: Type::RECORD.plain() });
        let stand_in = Expr { kind: ExprKind::Field { input: row, index }, ty: val.e.ty };
        parts.push(std::mem::replace(&mut val.e, stand_in));
    }
    (!parts.is_empty()).then(|| Expr { kind: ExprKind::Row(parts), ty: Type::RECORD.plain() })
}

/// A test of what [`shared`] put aside: a CASE without conditions.
fn with_operand(operand: Option<Expr>, test: Val) -> Val {
    match operand {
        None => test,
        Some(operand) => {
            let (operand, otherwise) = (Some(Box::new(operand)), Some(Box::new(test.e)));
            Val::new(ExprKind::Case { operand, whens: vec![], otherwise }, Type::BOOL, test.pos)
        }
    }
}

/// OR of tests, or AND of negated ones.
fn any_of(mut tests: Vec<Expr>, negated: bool, pos: Pos) -> Val {
    let kind = match tests.len() {
        1 => return Val { e: tests.remove(0), pos, fields: None },
        _ if negated => ExprKind::And(tests),
        _ => ExprKind::Or(tests),
    };
    Val::new(kind, Type::BOOL, pos)
}

/// Whether an operator's left operand may be bound before it: not so where it is a row, which only a comparison can take.
fn is_plain_op(e: &ast::Expr) -> bool {
    matches!(&e.kind, ast::ExprKind::Op { left: Some(left), .. } if matches!(left.kind, ast::ExprKind::Op { left: Some(_), .. }))
}
