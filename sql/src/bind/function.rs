//! Calls: finding the overload, and what kind of function it is.

use std::sync::Arc;

use super::binder::*;
use super::coerce::{Path, call, pathway};
use super::expr::with_names;
use super::hypothetical::is_hypothetical;
use super::operator::{check_equality, check_ordering};
use super::overload::{Choice, choose, resolve_polymorphic};
use super::walk::{any_part, lower, nearest_level, same, same_agg, walk_expr};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{AggregateFn, CastContext, ScalarFn, SetFn, WindowFn, registry};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Datum, Type, TypeMod};

/// What a name may call.
#[derive(Clone, Copy)]
pub(super) enum Callable {
    Scalar(&'static ScalarFn),
    Aggregate(&'static AggregateFn),
    Window(&'static WindowFn),
    Set(&'static SetFn),
}

/// An overload as it looks to a call of a certain number of arguments.
struct Candidate {
    what: Callable,
    types: Vec<Type>,
    ret: Type,
    variadic: bool,
}

/// The outcome of looking a call up.
pub(super) enum Found {
    /// This function, its arguments converted, its result's type.
    Function { what: Callable, args: Vec<Val>, ret: Type },
    /// `type(x)` is a cast of this value.
    Cast(Type, Val),
}

impl Callable {
    fn ret(self) -> Type {
        match self {
            Callable::Scalar(f) => f.ret,
            Callable::Aggregate(f) => f.ret,
            Callable::Window(f) => f.ret,
            Callable::Set(f) => match f.columns {
                [(_, ty)] => *ty,
                _ => Type::RECORD,
            },
        }
    }
    fn signature(self) -> (&'static [Type], Option<Type>, usize) {
        match self {
            Callable::Scalar(f) => (f.args, f.variadic, f.optional),
            Callable::Aggregate(f) => (f.args, f.variadic, 0),
            Callable::Window(f) => (f.args, None, f.optional),
            Callable::Set(f) => (f.args, f.variadic, 0),
        }
    }
}

/// All functions of a name, as a call with this many arguments sees them.
fn candidates(name: &str, count: usize) -> Vec<Candidate> {
    let r = registry();
    let scalars = r.scalars.get(name).into_iter().flatten().map(|f| Callable::Scalar(f));
    let aggregates = r.aggregates.get(name).into_iter().flatten().map(|f| Callable::Aggregate(f));
    let windows = r.windows.get(name).into_iter().flatten().map(|f| Callable::Window(f));
    let sets = r.sets.get(name).into_iter().flatten().map(|f| Callable::Set(f));
    let mut found: Vec<Candidate> = Vec::new();
    for what in scalars.chain(aggregates).chain(windows).chain(sets) {
        let (args, variadic, optional) = what.signature();
        let types = match variadic {
            Some(element) if count >= args.len().max(1) => {
                let mut types = args.to_vec();
                types.resize(count, element);
                types
            }
            None if count <= args.len() && count + optional >= args.len() => args[..count].to_vec(),
            _ => continue,
        };
        found.push(Candidate { what, types, ret: what.ret(), variadic: variadic.is_some() });
    }
    // Of two that take the same, the one that is not variadic is meant.
    let mut unique: Vec<Candidate> = Vec::new();
    for candidate in found {
        match unique.iter_mut().find(|u| u.types == candidate.types) {
            Some(earlier) if earlier.variadic && !candidate.variadic => *earlier = candidate,
            Some(_) => {}
            None => unique.push(candidate),
        }
    }
    unique
}

fn signature_text(name: &str, args: &[Val], names: &[Option<&str>]) -> String {
    let args: Vec<String> = args
        .iter()
        .enumerate()
        .map(|(i, a)| match names.get(i).copied().flatten() {
            Some(n) => format!("{n} => {}", a.ty().sql_name()),
            None => a.ty().sql_name().to_owned(),
        })
        .collect();
    format!("{name}({})", args.join(", "))
}

fn no_function(name: &str, args: &[Val], names: &[Option<&str>], pos: Pos) -> SqlError {
    SqlError::new(state::UNDEFINED_FUNCTION, format!("function {} does not exist", signature_text(name, args, names)))
        .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
        .at(Some(pos + 1))
}

impl Binder<'_> {
    /// A function of pg_catalog applied to bound arguments.
    pub fn builtin(&mut self, name: &str, args: Vec<Val>, pos: Pos) -> Result<Val> {
        match self.find_function(name, name, args, &[], pos)? {
            Found::Function { what: Callable::Scalar(func), args, ret } => {
                Ok(Val { e: call(func, args.into_iter().map(|a| a.e).collect(), ret.plain()), pos, fields: None })
            }
            _ => Err(SqlError::internal(format!("{name} is no plain function"))),
        }
    }

    /// Looks a call up and converts its arguments.
    pub fn find_function(
        &mut self,
        name: &str,
        shown: &str,
        mut args: Vec<Val>,
        names: &[Option<&str>],
        pos: Pos,
    ) -> Result<Found> {
        let types: Vec<Type> = args.iter().map(Val::ty).collect();
        let found = candidates(name, args.len());
        let declared: Vec<&[Type]> = found.iter().map(|c| c.types.as_slice()).collect();
        let exact = declared.iter().position(|d| *d == types.as_slice());
        if let (None, [source], true) = (exact, types.as_slice(), names.is_empty())
            && let Some(target) = self.function_style_cast(name, *source)
        {
            return Ok(Found::Cast(target, args.remove(0)));
        }
        let chosen = match choose(&types, &declared) {
            Choice::One(i) => &found[i],
            Choice::None => {
                if found.is_empty() && crate::functions::json::is_lacking(name) {
                    return unsupported(pos, format!("function {name}"));
                }
                return Err(no_function(shown, &args, names, pos));
            }
            Choice::Ambiguous => {
                return Err(SqlError::new(
                    state::AMBIGUOUS_FUNCTION,
                    format!("function {} is not unique", signature_text(shown, &args, names)),
                )
                .hint("Could not choose a best candidate function. You might need to add explicit type casts.")
                .at(Some(pos + 1)));
            }
        };
        let (wanted, ret) = resolve_polymorphic(&types, &chosen.types, chosen.ret)?;
        let mut converted = Vec::with_capacity(args.len());
        let shows_names = crate::functions::json::shows_names(name);
        for (arg, ty) in args.into_iter().zip(wanted) {
            let arg = if shows_names { with_names(arg) } else { arg };
            converted.push(self.convert(arg, ty, CastContext::Implicit)?);
        }
        Ok(Found::Function { what: chosen.what, args: converted, ret })
    }

    /// `int4('42')`, `text(x)`: a cast that is written as a call and is no function.
    fn function_style_cast(&self, name: &str, source: Type) -> Option<Type> {
        let target =
            Type::by_typname(name).filter(|t| t.info().is_some_and(|i| i.kind == b'b' && i.category != b'P'))?;
        let is_cast = source == Type::UNKNOWN
            || match pathway(source, target, CastContext::Explicit) {
                Some(Path::Relabel) => true,
                Some(Path::Io) => !(source == Type::RECORD && target.is_string()),
                _ => false,
            };
        is_cast.then_some(target)
    }

    /// The plain name of a function, if its schema can have one of ours.
    pub fn function_name<'n>(&self, name: &'n ast::QName) -> Result<Option<&'n str>> {
        match name.schema() {
            None | Some("pg_catalog") => Ok(Some(name.last())),
            Some("information_schema") if name.last().starts_with('_') => Ok(Some(name.last())),
            Some(schema) if self.catalog.schema_oid(schema).is_none() => {
                error(state::INVALID_SCHEMA_NAME, name.pos, format!("schema \"{schema}\" does not exist"))
            }
            Some(_) => Ok(None),
        }
    }

    /// Binds the arguments of a call in their places, named ones sorted in.
    pub fn call_args<'c>(&mut self, c: &'c ast::Call, name: &str) -> Result<(Vec<Val>, Vec<Option<&'c str>>)> {
        let mut args: Vec<Val> = Vec::with_capacity(c.args.len());
        if c.args.len() + c.within_group.len() > ARGUMENTS_MAX {
            return error(
                state::TOO_MANY_ARGUMENTS,
                c.name.pos,
                format!("cannot pass more than {ARGUMENTS_MAX} arguments to a function"),
            );
        }
        for arg in &c.args {
            args.push(self.expr(&arg.value)?);
        }
        if c.variadic {
            self.expand_variadic(&mut args)?;
        }
        let first_named = c.args.iter().position(|a| a.name.is_some());
        let Some(first_named) = first_named else { return Ok((args, vec![])) };
        let names: Vec<Option<&str>> = c.args.iter().map(|a| a.name.as_ref().map(|n| n.text.as_str())).collect();
        let Some(parameters) = crate::functions::datetime::parameter_names(name) else { return Ok((args, names)) };
        let mut placed: Vec<Option<Val>> = args.drain(..first_named).map(Some).collect();
        for (val, given) in args.drain(..).zip(&names[first_named..]) {
            let given = given.unwrap_or_default();
            let Some(place) = parameters.iter().position(|p| *p == given) else {
                placed.push(Some(val));
                let args: Vec<Val> = placed.into_iter().flatten().collect();
                return Err(no_function(&c.name.to_string(), &args, &names, c.name.pos));
            };
            if placed.get(place).is_some_and(Option::is_some) {
                return error(state::SYNTAX_ERROR, val.pos, format!("argument name \"{given}\" used more than once"));
            }
            if placed.len() <= place {
                placed.resize_with(place + 1, || None);
            }
            placed[place] = Some(val);
        }
        // Parameters left out before the last one given have a default of 0: only make_interval has any.
        let zero = || Val::new(ExprKind::Const(Datum::Int4(0)), Type::INT4, c.name.pos);
        Ok((placed.into_iter().map(|p| p.unwrap_or_else(zero)).collect(), vec![]))
    }

    /// VARIADIC array: its elements, where they can be told now.
    fn expand_variadic(&mut self, args: &mut Vec<Val>) -> Result<()> {
        let Some(last) = args.pop() else { return Ok(()) };
        let pos = last.pos;
        let Some(element) = last.ty().element() else {
            return error(state::DATATYPE_MISMATCH, pos, "VARIADIC argument must be an array");
        };
        match last.e.kind {
            ExprKind::Array { elems, nested: false } => {
                args.extend(elems.into_iter().map(|e| Val { e, pos, fields: None }));
                Ok(())
            }
            ExprKind::Const(Datum::Array(array)) => {
                args.extend(array.values.iter().map(|v| Val::new(ExprKind::Const(v.clone()), element, pos)));
                Ok(())
            }
            _ => unsupported(pos, "VARIADIC with an array that is not written out"),
        }
    }

    /// A call as an expression.
    pub fn call_expr(&mut self, c: &ast::Call, pos: Pos) -> Result<Val> {
        let shown = c.name.to_string();
        let shown = shown.as_str();
        let Some(name) = self.function_name(&c.name)? else {
            let (args, names) = self.call_args(c, "")?;
            return Err(no_function(shown, &args, &names, pos));
        };
        if c.star && name != "count" {
            let is_aggregate = registry().aggregates.contains_key(name);
            if !is_aggregate && !candidates(name, 0).is_empty() {
                return error(
                    state::WRONG_OBJECT_TYPE,
                    pos,
                    format!("{name}(*) specified, but {name} is not an aggregate function"),
                );
            }
            return Err(no_function(shown, &[], &[], pos));
        }
        if is_hypothetical(name, c) {
            return self.hypothetical(name, c, pos);
        }
        let (mut args, names) = self.call_args(c, name)?;
        let mut sorted = Vec::new();
        for key in &c.within_group {
            let val = self.expr(&key.expr)?;
            sorted.push((key, args.len()));
            args.push(val);
        }
        // Windows and aggregates over a filter see no name of the select list, so it can be bound at once.
        match self.find_function(name, shown, args, &names, pos)? {
            Found::Cast(target, arg) => {
                self.plain_only(c, name, pos)?;
                self.cast(arg, target.plain(), pos)
            }
            Found::Function { what, args, ret } => match what {
                Callable::Scalar(func) => {
                    self.plain_only(c, name, pos)?;
                    Ok(Val { e: call(func, args.into_iter().map(|a| a.e).collect(), ret.plain()), pos, fields: None })
                }
                Callable::Set(func) => {
                    self.plain_only(c, name, pos)?;
                    self.set_call(func, args, ret, pos)
                }
                Callable::Aggregate(func) => self.aggregate_call(c, func, args, &sorted, ret, pos),
                Callable::Window(func) => {
                    let Some(over) = &c.over else {
                        return error(
                            state::WRONG_OBJECT_TYPE,
                            pos,
                            format!("window function {name} requires an OVER clause"),
                        );
                    };
                    self.check_window_call(c, pos)?;
                    if c.filter.is_some() {
                        return error(
                            state::FEATURE_NOT_SUPPORTED,
                            pos,
                            "FILTER is not implemented for non-aggregate window functions",
                        );
                    }
                    if !c.within_group.is_empty() {
                        return error(
                            state::WRONG_OBJECT_TYPE,
                            pos,
                            format!("window function {name} cannot have WITHIN GROUP"),
                        );
                    }
                    let args = args.into_iter().map(|a| a.e).collect();
                    self.window_call(WindowFunc::Window(func), args, over, ret.plain(), pos)
                }
            },
        }
    }

    /// A plain function takes none of the clauses of aggregates.
    fn plain_only(&self, c: &ast::Call, name: &str, pos: Pos) -> Result<()> {
        let wrong = |what: &str| {
            error(state::WRONG_OBJECT_TYPE, pos, format!("{what} specified, but {name} is not an aggregate function"))
        };
        if c.distinct {
            return wrong("DISTINCT");
        }
        if !c.within_group.is_empty() {
            return wrong("WITHIN GROUP");
        }
        if !c.order_by.is_empty() {
            return wrong("ORDER BY");
        }
        if c.filter.is_some() {
            return wrong("FILTER");
        }
        if c.over.is_some() {
            return error(
                state::WRONG_OBJECT_TYPE,
                pos,
                format!("OVER specified, but {name} is not a window function nor an aggregate function"),
            );
        }
        Ok(())
    }

    fn set_call(&mut self, func: &'static SetFn, args: Vec<Val>, ret: Type, pos: Pos) -> Result<Val> {
        let level = self.level();
        if let Some(inside) = level.no_sets_in {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("set-returning functions are not allowed in {inside}"),
            )
            .hint("You might be able to move the set-returning function into a LATERAL FROM item.")
            .at(Some(pos + 1)));
        }
        if !level.clause.allows_sets() {
            let place = level.clause.name();
            return error(
                state::FEATURE_NOT_SUPPORTED,
                pos,
                format!("set-returning functions are not allowed in {place}"),
            );
        }
        level.has_sets = true;
        let types: Vec<Type> = args.iter().map(Val::ty).collect();
        let fields = if func.columns.len() > 1 { Some(set_fields(func, &types)?) } else { None };
        let args = args.into_iter().map(|a| a.e).collect();
        Ok(Val { e: Expr { kind: ExprKind::SetCall { func, args }, ty: ret.plain() }, pos, fields })
    }

    fn aggregate_call(
        &mut self,
        c: &ast::Call,
        func: &'static AggregateFn,
        args: Vec<Val>,
        sorted: &[(&ast::OrderBy, usize)],
        ret: Type,
        pos: Pos,
    ) -> Result<Val> {
        let name = func.name;
        if args.is_empty() && !c.star && func.args.is_empty() {
            return error(
                state::WRONG_OBJECT_TYPE,
                pos,
                format!("{name}(*) must be used to call a parameterless aggregate function"),
            );
        }
        match (func.ordered_set.is_some(), sorted.is_empty()) {
            (true, true) => {
                return error(
                    state::WRONG_OBJECT_TYPE,
                    pos,
                    format!("WITHIN GROUP is required for ordered-set aggregate {name}"),
                );
            }
            (false, false) => {
                return error(
                    state::WRONG_OBJECT_TYPE,
                    pos,
                    format!("{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP"),
                );
            }
            _ => {}
        }
        let mut order_by: Vec<SortKey> =
            sorted.iter().map(|(key, at)| sort_key(args[*at].e.clone(), key)).collect::<Result<_>>()?;
        if c.distinct {
            args.iter().try_for_each(|a| check_equality(a.ty(), a.pos))?;
        }
        for key in &c.order_by {
            let val = self.expr(&key.expr)?;
            let val = self.resolve_unknown(val)?;
            order_by.push(sort_key(val.e, key)?);
        }
        let args: Vec<Expr> = args.into_iter().map(|a| a.e).collect();
        let unlisted = order_by.iter().position(|k| !args.iter().any(|a| same(a, &k.expr)));
        if let (true, true, Some(key)) = (c.distinct, sorted.is_empty(), unlisted) {
            let pos = c.order_by.get(key).map_or(pos, |k| k.expr.pos);
            return error(
                state::INVALID_COLUMN_REFERENCE,
                pos,
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
            );
        }
        let filter = match &c.filter {
            None => None,
            Some(filter) => {
                let val = self.in_clause(Clause::Filter, |b| b.expr(filter))?;
                Some(self.boolean(val, "FILTER")?)
            }
        };
        let mut agg = AggCall { func, args, distinct: c.distinct, order_by, filter, ty: ret.plain() };
        match &c.over {
            Some(over) => {
                self.check_window_call(c, pos)?;
                if func.ordered_set.is_some() {
                    return error(
                        state::FEATURE_NOT_SUPPORTED,
                        pos,
                        format!("OVER is not supported for ordered-set aggregate {name}"),
                    );
                }
                self.window_call(WindowFunc::Aggregate(agg), vec![], over, ret.plain(), pos)
            }
            None => {
                let depth = self.check_aggregate(&mut agg, pos)?;
                Ok(self.add_aggregate(agg, depth, pos))
            }
        }
    }

    /// The level an aggregate belongs to, counted outwards; errors for what may not be inside it, or where it may not be.
    fn check_aggregate(&mut self, agg: &mut AggCall, pos: Pos) -> Result<usize> {
        let mut nearest: Option<usize> = None;
        let (mut nested, mut window, mut sets) = (false, false, false);
        let AggCall { args, order_by, filter, .. } = agg;
        let mut parts: Vec<&mut Expr> =
            args.iter_mut().chain(order_by.iter_mut().map(|k| &mut k.expr)).chain(filter).collect();
        for part in &mut parts {
            if let Some(level) = nearest_level(part) {
                nearest = Some(nearest.map_or(level, |n: usize| n.min(level)));
            }
            sets |= any_part(part, &mut |e| matches!(e.kind, ExprKind::SetCall { .. }));
        }
        let depth = nearest.unwrap_or(0);
        for part in &mut parts {
            walk_expr(part, 0, &mut |e, d| {
                let index = match e.kind {
                    ExprKind::Column(i) if d == 0 && depth == 0 => i,
                    ExprKind::Outer { depth: o, index } if o == d + depth && o > 0 => index,
                    _ => return Ok(false),
                };
                nested |= (AGGREGATES..WINDOWS).contains(&index);
                window |= index >= WINDOWS;
                Ok(false)
            })?;
        }
        if nested {
            return error(state::GROUPING_ERROR, pos, "aggregate function calls cannot be nested");
        }
        if window {
            return error(state::GROUPING_ERROR, pos, "aggregate function calls cannot contain window function calls");
        }
        if sets {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "aggregate function calls cannot contain set-returning function calls",
            )
            .hint("You might be able to move the set-returning function into a LATERAL FROM item.")
            .at(Some(pos + 1)));
        }
        let owner = self.levels.len() - 1 - depth;
        let level = &self.levels[owner];
        if level.lateral {
            return error(
                state::GROUPING_ERROR,
                pos,
                "aggregate functions are not allowed in FROM clause of their own query level",
            );
        }
        if !level.clause.allows_aggregates() {
            return error(
                state::GROUPING_ERROR,
                pos,
                format!("aggregate functions are not allowed in {}", level.clause.name()),
            );
        }
        if depth > 0 {
            for part in parts {
                lower(part, depth);
            }
            self.note_read(owner);
        }
        Ok(depth)
    }

    /// Enters an aggregate into its level's list (equal ones once) and gives what stands for it here.
    fn add_aggregate(&mut self, agg: AggCall, depth: usize, pos: Pos) -> Val {
        let owner = self.levels.len() - 1 - depth;
        let ty = agg.ty;
        let aggs = &mut self.levels[owner].aggs;
        let index = match aggs.iter().position(|a| same_agg(a, &agg)) {
            Some(index) => index,
            None => {
                aggs.push(agg);
                aggs.len() - 1
            }
        };
        Val::new(stand_in(AGGREGATES + index, depth), ty, pos)
    }

    fn check_window_call(&mut self, c: &ast::Call, pos: Pos) -> Result<()> {
        if c.distinct {
            return error(state::FEATURE_NOT_SUPPORTED, pos, "DISTINCT is not implemented for window functions");
        }
        if !c.order_by.is_empty() {
            return error(
                state::FEATURE_NOT_SUPPORTED,
                pos,
                "aggregate ORDER BY is not implemented for window functions",
            );
        }
        let level = self.level();
        if level.lateral || !level.clause.allows_windows() {
            let message = match level.clause {
                Clause::WindowPartition | Clause::WindowOrder | Clause::WindowFrame => {
                    "window functions are not allowed in window definitions".to_owned()
                }
                clause => format!("window functions are not allowed in {}", clause.name()),
            };
            return error(state::WINDOWING_ERROR, pos, message);
        }
        Ok(())
    }

    /// GROUPING(..): a stand-in until the keys are known.
    pub fn grouping_call(&mut self, args: &[ast::Expr], pos: Pos) -> Result<Val> {
        if args.len() > 31 {
            return error(state::TOO_MANY_ARGUMENTS, pos, "GROUPING must have fewer than 32 arguments");
        }
        let mut bound = Vec::with_capacity(args.len());
        let mut nearest: Option<usize> = None;
        for arg in args {
            let mut e = self.expr(arg)?.e;
            if let Some(level) = nearest_level(&mut e) {
                nearest = Some(nearest.map_or(level, |n| n.min(level)));
            }
            bound.push((e, arg.pos));
        }
        // As an aggregate, it belongs to the query its columns are of.
        let depth = nearest.unwrap_or(0);
        let owner = self.levels.len() - 1 - depth;
        if depth > 0 {
            bound.iter_mut().for_each(|(e, _)| lower(e, depth));
            self.note_read(owner);
        }
        let level = &mut self.levels[owner];
        if level.lateral || !level.clause.allows_aggregates() {
            return error(
                state::GROUPING_ERROR,
                pos,
                format!("grouping operations are not allowed in {}", level.clause.name()),
            );
        }
        level.groupings.push(bound);
        let index = GROUPINGS + level.groupings.len() - 1;
        Ok(Val::new(stand_in(index, depth), Type::INT4, pos))
    }
}

/// A column that stands for something of a level `depth` outwards.
fn stand_in(index: usize, depth: usize) -> ExprKind {
    if depth == 0 { ExprKind::Column(index) } else { ExprKind::Outer { depth, index } }
}

/// A sort key as written; NULLs are greatest unless told otherwise.
pub(super) fn sort_key(expr: Expr, key: &ast::OrderBy) -> Result<SortKey> {
    check_ordering(expr.ty.ty, key.expr.pos)?;
    Ok(SortKey { expr, desc: key.desc, nulls_first: key.nulls_first.unwrap_or(key.desc) })
}

/// Names and types of the columns of a set-returning function called with these types.
pub(super) fn set_fields(func: &SetFn, args: &[Type]) -> Result<Fields> {
    let mut declared = func.args.to_vec();
    if let Some(element) = func.variadic {
        declared.resize(args.len().max(declared.len()), element);
    }
    declared.truncate(args.len());
    func.columns
        .iter()
        .map(|(name, ty)| {
            let (_, actual) = resolve_polymorphic(args, &declared, *ty)?;
            Ok((Arc::from(*name), TypeMod::from(actual)))
        })
        .collect::<Result<Vec<_>>>()
        .map(Fields::from)
}
