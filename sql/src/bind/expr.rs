//! Expressions: each written form to its bound one.
//!
//! [`Binder::expr`] only dispatches: every form has a function of its own, so that a level of nesting costs the stack one small frame and not one
//! with room for them all.

use super::binder::*;
use super::coerce::call;
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{CastContext, registry};
use crate::ir::*;
use crate::parse::ast::{self, KeywordValue, Pos};
use crate::types::{Array, Datum, Numeric, Type, TypeMod};

impl Binder<'_> {
    /// Binds an expression in the innermost level.
    pub fn expr(&mut self, e: &ast::Expr) -> Result<Val> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SqlError::new(state::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded"));
        }
        self.env.session.check_cancel()?;
        let made = self.dispatch(e);
        self.depth -= 1;
        made
    }

    fn dispatch(&mut self, e: &ast::Expr) -> Result<Val> {
        use ast::ExprKind as K;
        let pos = e.pos;
        match &e.kind {
            K::Number(text) => number(text, pos),
            K::String(text) => Ok(unknown(Datum::text(text), pos)),
            K::Null => Ok(unknown(Datum::Null, pos)),
            K::Bool(value) => Ok(Val::new(ExprKind::Const(Datum::Bool(*value)), Type::BOOL, pos)),
            K::BitString(_) => unsupported(pos, "type bit"),
            K::Param(number) => self.param(*number, pos),
            K::Column(names) => self.column_ref(names, pos),
            K::Star(names) if !names.is_empty() => self.whole_item(names, pos),
            K::Star(_) => error(state::SYNTAX_ERROR, pos, "row expansion via \"*\" is not supported here"),
            K::FieldStar(_) => {
                error(state::FEATURE_NOT_SUPPORTED, pos, "row expansion via \"*\" is not supported here")
            }
            K::Field { input, name } => self.field_of(input, name, pos),
            K::Subscript { input, items } => self.subscript(input, items, pos),
            K::Op { left: Some(_), .. } => self.operator_chain(e),
            K::Op { name, right, left: None, .. } => {
                let right = self.expr(right)?;
                self.operator(name, None, right, pos)
            }
            K::And(parts) => self.connective(parts, true, pos),
            K::Or(parts) => self.connective(parts, false, pos),
            K::Not(input) => self.not(input, pos),
            K::IsNull { input, negated } => self.is_null(input, *negated, pos),
            K::IsBool { input, value, negated } => self.is_bool(input, *value, *negated, pos),
            K::IsDistinct { left, right, negated } => self.distinct(left, right, *negated, pos),
            K::Between { input, low, high, symmetric, negated } => {
                self.between(input, low, high, *symmetric, *negated, pos)
            }
            K::InList { input, list, negated } => self.in_list(input, list, *negated, pos),
            K::InQuery { input, query, negated } => self.in_query(input, query, *negated, pos),
            K::Like { kind, input, pattern, escape, negated } => {
                self.like(*kind, input, pattern, escape.as_deref(), *negated, pos)
            }
            K::Quantified { left, op, all, right } => self.quantified(left, op, *all, right, pos),
            K::Exists(query) => self.exists(query, pos),
            K::ScalarQuery(query) => self.scalar_query(query, pos),
            K::ArrayQuery(query) => self.array_query(query, pos),
            K::Array(elements) => self.array(elements, None, pos),
            K::Row { .. } => self.row(e, pos),
            K::Case { operand, whens, otherwise } => self.case(operand.as_deref(), whens, otherwise.as_deref(), pos),
            K::Coalesce(args) => self.coalesce(args, pos),
            K::NullIf(left, right) => self.null_if(left, right, pos),
            K::MinMax { args, greatest } => self.min_max(args, *greatest, pos),
            K::Cast { input, ty } => self.cast_expr(input, ty, pos),
            K::Collate { input, collation } => self.collate(input, collation, pos),
            K::Call(c) => self.call_expr(c, pos),
            K::Keyword(value) => self.keyword(*value, pos),
            K::Grouping(args) => self.grouping_call(args, pos),
            K::Default => error(state::SYNTAX_ERROR, pos, "DEFAULT is not allowed in this context"),
        }
    }

    fn param(&mut self, number: u32, pos: Pos) -> Result<Val> {
        let ty = self.env.params.reference(number).at_pos(pos)?;
        if ty == Type::UNKNOWN {
            self.unsettled.push(number as usize - 1);
        }
        Ok(Val::new(ExprKind::Param(number as usize - 1), ty, pos))
    }

    fn connective(&mut self, parts: &[ast::Expr], and: bool, pos: Pos) -> Result<Val> {
        let what = if and { "AND" } else { "OR" };
        let mut bound = Vec::with_capacity(parts.len());
        let mut pos = pos;
        for part in parts {
            let val = self.expr(part)?;
            pos = pos.min(val.pos);
            bound.push(self.boolean(val, what)?);
        }
        Ok(Val::new(if and { ExprKind::And(bound) } else { ExprKind::Or(bound) }, Type::BOOL, pos))
    }

    fn not(&mut self, input: &ast::Expr, pos: Pos) -> Result<Val> {
        let val = self.expr(input)?;
        let input = self.boolean(val, "NOT")?;
        Ok(Val::new(ExprKind::Not(Box::new(input)), Type::BOOL, pos))
    }

    fn is_null(&mut self, input: &ast::Expr, negated: bool, pos: Pos) -> Result<Val> {
        let val = self.expr(input)?;
        let pos = pos.min(val.pos);
        Ok(Val::new(ExprKind::IsNull { input: Box::new(val.e), negated }, Type::BOOL, pos))
    }

    fn is_bool(&mut self, input: &ast::Expr, value: Option<bool>, negated: bool, pos: Pos) -> Result<Val> {
        let val = self.expr(input)?;
        let what = match (value, negated) {
            (Some(true), false) => "IS TRUE",
            (Some(true), true) => "IS NOT TRUE",
            (Some(false), false) => "IS FALSE",
            (Some(false), true) => "IS NOT FALSE",
            (None, false) => "IS UNKNOWN",
            (None, true) => "IS NOT UNKNOWN",
        };
        let input = Box::new(self.boolean(val, what)?);
        Ok(Val::new(ExprKind::IsBool { input, value, negated }, Type::BOOL, pos))
    }

    fn in_query(&mut self, input: &ast::Expr, query: &ast::Query, negated: bool, pos: Pos) -> Result<Val> {
        let found = self.query_test("=", input, query, false, pos)?;
        if !negated {
            return Ok(found);
        }
        Ok(Val::new(ExprKind::Not(Box::new(found.e)), Type::BOOL, pos))
    }

    fn quantified(&mut self, left: &ast::Expr, op: &str, all: bool, right: &ast::Quantified, pos: Pos) -> Result<Val> {
        match right {
            ast::Quantified::Query(query) => self.query_test(op, left, query, all, pos),
            ast::Quantified::Array(array) => {
                let left = self.expr(left)?;
                let array = self.expr(array)?;
                self.array_test(op, left, array, all, pos)
            }
        }
    }

    fn exists(&mut self, query: &ast::Query, pos: Pos) -> Result<Val> {
        let (out, correlated) = self.as_subquery(pos, |b| b.query(query, true))?;
        Ok(subquery(SubqueryKind::Exists, out.rel, correlated, Type::BOOL.plain(), pos))
    }

    fn scalar_query(&mut self, query: &ast::Query, pos: Pos) -> Result<Val> {
        let (out, correlated) = self.as_subquery(pos, |b| b.query(query, true))?;
        let [column] = &out.rel.schema[..] else {
            return error(state::SYNTAX_ERROR, pos, "subquery must return only one column");
        };
        let ty = column.ty;
        let mut val = subquery(SubqueryKind::Scalar, out.rel, correlated, ty, pos);
        val.fields = out.fields.into_iter().next().flatten();
        Ok(val)
    }

    fn array_query(&mut self, query: &ast::Query, pos: Pos) -> Result<Val> {
        let (out, correlated) = self.as_subquery(pos, |b| b.query(query, true))?;
        let [column] = &out.rel.schema[..] else {
            return error(state::SYNTAX_ERROR, pos, "subquery must return only one column");
        };
        let element = column.ty;
        let array = if element.ty.is_array() { Some(element.ty) } else { element.ty.array_of() };
        let Some(array) = array else {
            return error(
                state::UNDEFINED_OBJECT,
                pos,
                format!("could not find array type for data type {}", element.ty.sql_name()),
            );
        };
        Ok(subquery(SubqueryKind::Array, out.rel, correlated, TypeMod { ty: array, typmod: element.typmod }, pos))
    }

    /// ARRAY[..]; `wanted` is the array type a cast around it asks for.
    fn array(&mut self, elements: &[ast::Expr], wanted: Option<TypeMod>, pos: Pos) -> Result<Val> {
        let mut vals = Vec::with_capacity(elements.len());
        let mut nested = false;
        for element in elements {
            let val = match &element.kind {
                ast::ExprKind::Array(inner) => self.deeper(1, |b| b.array(inner, wanted, element.pos))?,
                _ => self.expr(element)?,
            };
            nested |= matches!(element.kind, ast::ExprKind::Array(_)) || val.ty().is_array();
            vals.push(val);
        }
        if let Some(wanted) = wanted {
            // The cast applies to the elements, or the inner arrays.
            let target = if nested {
                wanted
            } else {
                TypeMod { ty: wanted.ty.element().unwrap_or(wanted.ty), typmod: wanted.typmod }
            };
            let mut elems = Vec::with_capacity(vals.len());
            for val in vals {
                elems.push(self.cast(val, target, pos)?.e);
            }
            return Ok(Val::new(ExprKind::Array { elems, nested }, wanted, pos));
        }
        if vals.is_empty() {
            return Err(SqlError::new(state::INDETERMINATE_DATATYPE, "cannot determine type of empty array")
                .hint("Explicitly cast to the desired type, for example ARRAY[]::integer[].")
                .at(Some(pos + 1)));
        }
        let (elems, element) = self.unify(vals, "ARRAY")?;
        let array = if nested && element.ty.is_array() { Some(element.ty) } else { element.ty.array_of() };
        let Some(array) = array else {
            return error(
                state::UNDEFINED_OBJECT,
                pos,
                format!("could not find array type for data type {}", element.ty.sql_name()),
            );
        };
        Ok(Val::new(ExprKind::Array { elems, nested }, TypeMod { ty: array, typmod: element.typmod }, pos))
    }

    fn row(&mut self, e: &ast::Expr, pos: Pos) -> Result<Val> {
        let vals = self.row_fields(e)?;
        if vals.len() > TARGETS_MAX {
            return error(
                state::TOO_MANY_COLUMNS,
                pos,
                format!("ROW expressions can have at most {TARGETS_MAX} entries"),
            );
        }
        let mut parts = Vec::with_capacity(vals.len());
        for val in vals {
            // A parameter stays unknown here: in a row nothing says what it should be.
            let is_param = matches!(val.e.kind, ExprKind::Param(_));
            let val = with_names(val);
            parts.push(if is_param { val.e } else { self.resolve_unknown(val)?.e });
        }
        let fields = parts.iter().enumerate().map(|(i, p)| (format!("f{}", i + 1).into(), p.ty)).collect();
        Ok(Val { e: Expr { kind: ExprKind::Row(parts), ty: Type::RECORD.plain() }, pos, fields: Some(fields) })
    }

    /// The fields of a row value, one by one.
    pub fn expand_fields(&mut self, input: Val, pos: Pos) -> Result<Vec<(std::sync::Arc<str>, Val)>> {
        let Some(fields) = input.fields.clone() else {
            return if input.ty() == Type::RECORD {
                error(state::UNDEFINED_OBJECT, pos, "record type has not been registered")
            } else {
                error(state::WRONG_OBJECT_TYPE, pos, format!("type {} is not composite", input.ty().sql_name()))
            };
        };
        self.note_fields(&fields);
        Ok(fields.iter().enumerate().map(|(i, (name, ty))| (name.clone(), field_value(&input, i, *ty, pos))).collect())
    }

    fn field_of(&mut self, input: &ast::Expr, name: &ast::Name, _pos: Pos) -> Result<Val> {
        // `(t).a` of a table is its column.
        if let ast::ExprKind::Column(names) = &input.kind
            && let [table] = &names[..]
        {
            let is_column = self
                .levels
                .iter()
                .any(|l| l.items.iter().any(|i| i.by_column && i.columns.iter().any(|c| *c.name == table.text)));
            if !is_column && self.find_item(None, &table.text, input.pos)?.is_some() {
                return self.column_ref(&[table.clone(), name.clone()], input.pos);
            }
        }
        let input = self.expr(input)?;
        let pos = input.pos;
        match &input.fields {
            Some(fields) => match fields.iter().position(|(n, _)| **n == name.text) {
                Some(index) => {
                    let ty = fields[index].1;
                    Ok(field_value(&input, index, ty, pos))
                }
                None => error(
                    state::UNDEFINED_COLUMN,
                    pos,
                    format!("could not identify column \"{}\" in record data type", name.text),
                ),
            },
            None if input.ty() == Type::RECORD => error(
                state::UNDEFINED_COLUMN,
                pos,
                format!("could not identify column \"{}\" in record data type", name.text),
            ),
            None => error(
                state::WRONG_OBJECT_TYPE,
                pos,
                format!(
                    "column notation .{} applied to type {}, which is not a composite type",
                    name.text,
                    input.ty().sql_name()
                ),
            ),
        }
    }

    fn subscript(&mut self, input: &ast::Expr, items: &[ast::Subscript], pos: Pos) -> Result<Val> {
        let input = self.expr(input)?;
        if input.ty() == Type::JSONB {
            return self.jsonb_subscript(input, items, pos);
        }
        let Some(element) = input.ty().element() else {
            return error(
                state::DATATYPE_MISMATCH,
                input.pos,
                format!("cannot subscript type {} because it does not support subscripting", input.ty().sql_name()),
            );
        };
        let typmod = input.e.ty.typmod;
        let array = input.e.ty;
        let input = Box::new(input.e);
        if items.iter().all(|i| matches!(i, ast::Subscript::Index(_))) {
            let mut indexes = Vec::with_capacity(items.len());
            for item in items {
                if let ast::Subscript::Index(index) = item {
                    indexes.push(self.array_index(index)?);
                }
            }
            return Ok(Val::new(ExprKind::Subscript { input, indexes }, TypeMod { ty: element, typmod }, pos));
        }
        let mut bounds = Vec::with_capacity(items.len());
        for item in items {
            bounds.push(match item {
                // Beside a slice a lone index i means 1:i.
                ast::Subscript::Index(index) => {
                    (Some(Expr::constant(Datum::Int4(1), Type::INT4)), Some(self.array_index(index)?))
                }
                ast::Subscript::Slice(low, high) => (
                    low.as_ref().map(|l| self.array_index(l)).transpose()?,
                    high.as_ref().map(|h| self.array_index(h)).transpose()?,
                ),
            });
        }
        Ok(Val::new(ExprKind::Slice { input, bounds }, array, pos))
    }

    /// `j['a'][1]`: the value at a path of texts and numbers.
    fn jsonb_subscript(&mut self, input: Val, items: &[ast::Subscript], pos: Pos) -> Result<Val> {
        let mut steps = Vec::with_capacity(items.len());
        for item in items {
            let ast::Subscript::Index(index) = item else {
                let at = match item {
                    ast::Subscript::Slice(_, Some(bound)) | ast::Subscript::Slice(Some(bound), None) => bound.pos,
                    _ => input.pos,
                };
                return error(state::DATATYPE_MISMATCH, at, "jsonb subscript does not support slices");
            };
            let val = self.expr(index)?;
            let (ty, at) = (val.ty(), val.pos);
            let step = match ty {
                Type::UNKNOWN => self.try_convert(val, Type::TEXT, CastContext::Implicit)?,
                _ if super::coerce::can_coerce(ty, Type::TEXT, CastContext::Implicit) => {
                    self.try_convert(val, Type::TEXT, CastContext::Implicit)?
                }
                _ => match self.try_convert(val, Type::INT4, CastContext::Implicit)? {
                    Some(number) => self.try_convert(number, Type::TEXT, CastContext::Explicit)?,
                    None => None,
                },
            };
            let Some(step) = step else {
                return Err(SqlError::new(
                    state::DATATYPE_MISMATCH,
                    format!("subscript type {} is not supported", ty.sql_name()),
                )
                .hint("jsonb subscript must be coercible to either integer or text.")
                .at(Some(at + 1)));
            };
            steps.push(step.e);
        }
        let path = Expr { kind: ExprKind::Array { elems: steps, nested: false }, ty: Type::TEXT_ARRAY.plain() };
        let func = crate::functions::json::subscripting();
        Ok(Val { e: call(func, vec![input.e, path], Type::JSONB.plain()), pos, fields: None })
    }

    fn array_index(&mut self, index: &ast::Expr) -> Result<Expr> {
        let val = self.expr(index)?;
        let pos = val.pos;
        match self.try_convert(val, Type::INT4, CastContext::Assignment)? {
            Some(val) => Ok(val.e),
            None => error(state::DATATYPE_MISMATCH, pos, "array subscript must have type integer"),
        }
    }

    fn no_sets_in<T>(&mut self, what: &'static str, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = self.level().no_sets_in.replace(what);
        let made = f(self);
        self.level().no_sets_in = outer;
        made
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        whens: &[(ast::Expr, ast::Expr)],
        otherwise: Option<&ast::Expr>,
        pos: Pos,
    ) -> Result<Val> {
        self.no_sets_in("CASE", |b| b.case_parts(operand, whens, otherwise, pos))
    }

    fn case_parts(
        &mut self,
        operand: Option<&ast::Expr>,
        whens: &[(ast::Expr, ast::Expr)],
        otherwise: Option<&ast::Expr>,
        pos: Pos,
    ) -> Result<Val> {
        let operand = match operand {
            None => None,
            Some(operand) => {
                let val = self.expr(operand)?;
                Some(self.resolve_unknown(val)?)
            }
        };
        let (mut conditions, mut results) = (Vec::with_capacity(whens.len()), Vec::with_capacity(whens.len() + 1));
        for (condition, result) in whens {
            let val = self.expr(condition)?;
            conditions.push(match &operand {
                None => self.boolean(val, "CASE/WHEN")?,
                Some(operand) => {
                    let tested = Val {
                        e: Expr { kind: ExprKind::CaseOperand, ty: operand.e.ty },
                        pos: operand.pos,
                        fields: None,
                    };
                    let val = self.operator("=", Some(tested), val, condition.pos)?;
                    self.boolean(val, "CASE/WHEN")?
                }
            });
            results.push(self.expr(result)?);
        }
        // As PostgreSQL: the ELSE is asked first for the type, and a missing one is NULL.
        let otherwise = match otherwise {
            Some(e) => self.expr(e)?,
            None => unknown(Datum::Null, pos),
        };
        results.insert(0, otherwise);
        let (mut results, ty) = self.unify(results, "CASE")?;
        let otherwise = results.remove(0);
        let kind = ExprKind::Case {
            operand: operand.map(|o| Box::new(o.e)),
            whens: conditions.into_iter().zip(results).collect(),
            otherwise: Some(Box::new(otherwise)),
        };
        Ok(Val::new(kind, ty, pos))
    }

    fn coalesce(&mut self, args: &[ast::Expr], pos: Pos) -> Result<Val> {
        let vals = self.no_sets_in("COALESCE", |b| args.iter().map(|a| b.expr(a)).collect::<Result<Vec<_>>>())?;
        let (args, ty) = self.unify(vals, "COALESCE")?;
        Ok(Val::new(ExprKind::Coalesce(args), ty, pos))
    }

    fn min_max(&mut self, args: &[ast::Expr], greatest: bool, pos: Pos) -> Result<Val> {
        let vals = args.iter().map(|a| self.expr(a)).collect::<Result<Vec<_>>>()?;
        let (args, ty) = self.unify(vals, if greatest { "GREATEST" } else { "LEAST" })?;
        Ok(Val::new(ExprKind::MinMax { args, greatest }, ty, pos))
    }

    fn null_if(&mut self, left: &ast::Expr, right: &ast::Expr, pos: Pos) -> Result<Val> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let typmod = left.e.ty;
        let c = self.comparison("=", left, right, pos)?;
        let ty = if c.left.ty.ty == typmod.ty { typmod } else { c.left.ty.ty.plain() };
        Ok(Val::new(ExprKind::NullIf { eq: c.func, left: Box::new(c.left), right: Box::new(c.right) }, ty, pos))
    }

    fn cast_expr(&mut self, input: &ast::Expr, ty: &ast::TypeName, pos: Pos) -> Result<Val> {
        let target = self.type_name(ty)?;
        if let (ast::ExprKind::Array(elements), true) = (&input.kind, target.ty.is_array())
            && !matches!(target.ty, Type::INT2VECTOR | Type::OIDVECTOR)
        {
            return self.array(elements, Some(target), input.pos);
        }
        let val = self.expr(input)?;
        self.cast(val, target, pos)
    }

    fn collate(&mut self, input: &ast::Expr, collation: &ast::QName, pos: Pos) -> Result<Val> {
        let val = self.expr(input)?;
        let name = collation.last();
        let ours = matches!(name, "C" | "POSIX" | "default" | "ucs_basic");
        if !ours || !matches!(collation.schema(), None | Some("pg_catalog")) {
            if name.contains('_') || name.contains("-x-icu") {
                return unsupported(collation.pos, format!("collation \"{name}\""));
            }
            return error(
                state::UNDEFINED_OBJECT,
                pos,
                format!("collation \"{name}\" for encoding \"UTF8\" does not exist"),
            );
        }
        let element = val.ty().element().unwrap_or(val.ty());
        if !element.is_string() && !val.is_unknown() {
            return error(
                state::DATATYPE_MISMATCH,
                pos,
                format!("collations are not supported by type {}", val.ty().sql_name()),
            );
        }
        // All text sorts by C here, so all of these are one.
        Ok(val)
    }

    fn keyword(&mut self, value: KeywordValue, pos: Pos) -> Result<Val> {
        let (name, ty, precision) = match value {
            KeywordValue::CurrentDate => ("current_date", Type::DATE, None),
            KeywordValue::CurrentTime(_) => return unsupported(pos, "type timetz"),
            KeywordValue::CurrentTimestamp(p) => ("current_timestamp", Type::TIMESTAMPTZ, p),
            KeywordValue::LocalTime(p) => ("localtime", Type::TIME, p),
            KeywordValue::LocalTimestamp(p) => ("localtimestamp", Type::TIMESTAMP, p),
            KeywordValue::CurrentUser | KeywordValue::User | KeywordValue::CurrentRole => {
                ("current_user", Type::NAME, None)
            }
            KeywordValue::SessionUser => ("session_user", Type::NAME, None),
            KeywordValue::CurrentCatalog => ("current_database", Type::NAME, None),
            KeywordValue::CurrentSchema => ("current_schema", Type::NAME, None),
        };
        let func =
            registry().scalars.get(name).and_then(|all| all.iter().find(|f| f.args.len() == f.optional).copied());
        let Some(func) = func else {
            return match name {
                "current_user" | "session_user" => {
                    Ok(Val::new(ExprKind::Const(Datum::text(&self.env.session.user)), Type::NAME, pos))
                }
                _ => Err(SqlError::internal(format!("there is no function {name}"))),
            };
        };
        let mut args = vec![];
        let mut typmod = -1;
        if let Some(p) = precision {
            typmod = p.min(6);
            args.push(Expr::constant(Datum::Int4(typmod), Type::INT4));
        }
        Ok(Val { e: call(func, args, TypeMod { ty, typmod }), pos, fields: None })
    }
}

/// A constant whose type its surroundings decide.
pub(super) fn unknown(value: Datum, pos: Pos) -> Val {
    Val::new(ExprKind::Const(value), Type::UNKNOWN, pos)
}

/// A number: integer, bigint or numeric, the first it fits.
fn number(text: &str, pos: Pos) -> Result<Val> {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        if let Ok(v) = text.parse::<i32>() {
            return Ok(Val::new(ExprKind::Const(Datum::Int4(v)), Type::INT4, pos));
        }
        if let Ok(v) = text.parse::<i64>() {
            return Ok(Val::new(ExprKind::Const(Datum::Int8(v)), Type::INT8, pos));
        }
    }
    let value = Numeric::parse(text).at_pos(pos)?;
    Ok(Val::new(ExprKind::Const(Datum::Numeric(value)), Type::NUMERIC, pos))
}

fn subquery(kind: SubqueryKind, plan: Rel, correlated: bool, ty: TypeMod, pos: Pos) -> Val {
    Val::new(ExprKind::Subquery(Box::new(Subquery { kind, plan, correlated })), ty, pos)
}

/// A row whose fields are named as the columns it was made of, for functions that show the names; other values as they are.
pub(super) fn with_names(val: Val) -> Val {
    let Some(fields) = val.fields.clone() else { return val };
    if fields.iter().enumerate().all(|(i, (name, _))| **name == format!("f{}", i + 1)) {
        return val;
    }
    let names = fields.iter().map(|(name, _)| Datum::Text(name.clone())).collect();
    let names = Expr::constant(Array::from_values(Type::TEXT, names).datum(), Type::TEXT_ARRAY);
    let e = call(crate::functions::json::naming(), vec![val.e, names], Type::RECORD.plain());
    Val { e, pos: val.pos, fields: Some(fields) }
}

/// A field of a row value: of a row constructor, the very expression.
fn field_value(input: &Val, index: usize, ty: TypeMod, pos: Pos) -> Val {
    let e = match &input.e.kind {
        ExprKind::Row(parts) => parts[index].clone(),
        _ => Expr { kind: ExprKind::Field { input: Box::new(input.e.clone()), index }, ty },
    };
    Val { e, pos, fields: None }
}
