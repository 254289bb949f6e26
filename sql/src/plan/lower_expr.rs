//! From planner expressions to compiled ones: columns get positions, comparisons and arithmetic their fast forms, subqueries their plans.

use std::sync::Arc;

use super::build::Scope;
use super::compare::comparison;
use super::expr::{FIRST_SCOPE, handle};
use super::logical::{ColId, Planner};
use super::node::{Prog, Quantified};
use crate::error::{Result, SqlError};
use crate::exec::code::{Call, Code, CompareOp, ConstSet, arith_function, like_function};
use crate::exec::value::KeyOrder;
use crate::exec::{Pattern, SubKind, SubPlan};
use crate::functions::registry::ScalarFn;
use crate::ir::{Expr, ExprKind, SortKey, Subquery, SubqueryKind};
use crate::types::{Datum, Type, TypeMod};

/// Elements from which a constant list is made a hash set.
const SET_MIN: usize = 9;

impl Planner<'_> {
    /// Compiles an expression over a row of `scope.columns`.
    pub(crate) fn prog(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Prog> {
        Ok(Prog { code: self.compile(e, scope)?, expr: e.clone() })
    }

    pub(crate) fn progs<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        scope: &Scope<'_>,
    ) -> Result<Vec<Prog>> {
        exprs.into_iter().map(|e| self.prog(e, scope)).collect()
    }

    pub(crate) fn key_progs(&mut self, keys: &[SortKey], scope: &Scope<'_>) -> Result<Vec<(Prog, KeyOrder)>> {
        keys.iter()
            .map(|k| Ok((self.prog(&k.expr, scope)?, KeyOrder { desc: k.desc, nulls_first: k.nulls_first })))
            .collect()
    }

    pub(crate) fn compile(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Code> {
        Ok(match &e.kind {
            ExprKind::Const(d) => Code::Const(d.clone()),
            ExprKind::Column(id) => place(*id, scope)?,
            ExprKind::Outer { .. } => return Err(SqlError::internal("an enclosing column was not resolved")),
            ExprKind::Param(i) => Code::Param(*i),
            ExprKind::CaseOperand => Code::CaseOperand,
            ExprKind::Call { func, args } => self.compile_call(func, args, e.ty, scope)?,
            ExprKind::CoerceViaIo(input) => {
                Code::ViaIo { from: input.ty.ty, input: self.boxed(input, scope)?, to: e.ty }
            }
            ExprKind::ArrayCoerce { input, cast } => {
                let elem = e.ty.ty.element().unwrap_or(cast.ty.ty);
                Code::ArrayCoerce {
                    input: self.boxed(input, scope)?,
                    cast: Box::new(self.compile(cast, &Scope { columns: FIRST_SCOPE, up: scope.up })?),
                    elem,
                }
            }
            ExprKind::And(args) => Code::And(self.all(args, scope)?),
            ExprKind::Or(args) => Code::Or(self.all(args, scope)?),
            ExprKind::Not(input) => Code::Not(self.boxed(input, scope)?),
            ExprKind::IsNull { input, negated } => Code::IsNull { input: self.boxed(input, scope)?, negated: *negated },
            ExprKind::IsBool { input, value, negated } => {
                Code::IsBool { input: self.boxed(input, scope)?, value: *value, negated: *negated }
            }
            ExprKind::Distinct { eq, left, right, negated } => Code::Distinct {
                eq: call_of(eq, [left.ty.ty, right.ty.ty]),
                args: self.pair(left, right, scope)?,
                negated: *negated,
            },
            ExprKind::Case { operand, whens, otherwise } => Code::Case {
                operand: operand.as_ref().map(|o| self.boxed(o, scope)).transpose()?,
                whens: whens
                    .iter()
                    .map(|(when, then)| Ok((self.compile(when, scope)?, self.compile(then, scope)?)))
                    .collect::<Result<_>>()?,
                otherwise: otherwise.as_ref().map(|o| self.boxed(o, scope)).transpose()?,
            },
            ExprKind::Coalesce(args) => Code::Coalesce(self.all(args, scope)?),
            ExprKind::NullIf { eq, left, right } => {
                Code::NullIf { eq: call_of(eq, [left.ty.ty, right.ty.ty]), args: self.pair(left, right, scope)? }
            }
            ExprKind::MinMax { args, greatest } => {
                Code::MinMax { args: self.all(args, scope)?, greatest: *greatest, ty: e.ty.ty }
            }
            ExprKind::ScalarArray { func, left, array, all } => {
                self.compile_scalar_array(func, left, array, *all, scope)?
            }
            ExprKind::Array { elems, nested } => {
                let of =
                    e.ty.ty
                        .element()
                        .or_else(|| elems.first().map(|e| e.ty.ty.element().filter(|_| *nested).unwrap_or(e.ty.ty)))
                        .unwrap_or(Type::TEXT);
                Code::Array { elems: self.all(elems, scope)?, nested: *nested, elem: of }
            }
            ExprKind::Row(args) => {
                let fields = args.iter().enumerate().map(|(i, a)| (Arc::from(format!("f{}", i + 1)), a.ty)).collect();
                Code::Row { fields, values: self.all(args, scope)? }
            }
            ExprKind::Field { input, index } => Code::Field { input: self.boxed(input, scope)?, index: *index },
            ExprKind::Subscript { input, indexes } => {
                Code::Subscript { input: self.boxed(input, scope)?, indexes: self.all(indexes, scope)? }
            }
            ExprKind::Slice { input, bounds } => {
                let mut bound = |b: &Option<Expr>| b.as_ref().map(|b| self.compile(b, scope)).transpose();
                let bounds = bounds.iter().map(|(low, high)| Ok((bound(low)?, bound(high)?))).collect::<Result<_>>()?;
                Code::Slice { input: self.boxed(input, scope)?, bounds }
            }
            ExprKind::RowCompare { op, pairs } => Code::RowCompare {
                op: *op,
                pairs: pairs
                    .iter()
                    .map(|p| Ok((self.compile(&p.left, scope)?, self.compile(&p.right, scope)?, p.left.ty.ty)))
                    .collect::<Result<_>>()?,
            },
            ExprKind::Subquery(sub) => self.compile_subquery(sub, e.ty, scope)?,
            ExprKind::SetCall { .. } => {
                return Err(SqlError::new(
                    crate::error::state::FEATURE_NOT_SUPPORTED,
                    "set-valued function called in context that cannot accept a set",
                ));
            }
            ExprKind::Default => {
                return Err(SqlError::new(crate::error::state::SYNTAX_ERROR, "DEFAULT is not allowed in this context"));
            }
        })
    }

    fn boxed(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Box<Code>> {
        Ok(Box::new(self.compile(e, scope)?))
    }

    fn all(&mut self, exprs: &[Expr], scope: &Scope<'_>) -> Result<Box<[Code]>> {
        exprs.iter().map(|e| self.compile(e, scope)).collect()
    }

    fn pair(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Result<Box<[Code; 2]>> {
        Ok(Box::new([self.compile(left, scope)?, self.compile(right, scope)?]))
    }

    fn compile_call(&mut self, func: &'static ScalarFn, args: &[Expr], ty: TypeMod, scope: &Scope<'_>) -> Result<Code> {
        let call = Call { func, arg_types: args.iter().map(|a| a.ty.ty).collect(), ret: ty };
        if let [left, right] = args {
            if let Some(c) = comparison(func)
                && c.is_native()
            {
                return Ok(Code::Compare { op: c.op, call, args: self.pair(left, right, scope)? });
            }
            if let Some(op) = arith_function(func) {
                return Ok(Code::Arith { op, call, args: self.pair(left, right, scope)? });
            }
            if let (Some(negated), ExprKind::Const(Datum::Text(text))) = (like_function(func), &right.kind)
                && let Some(pattern) = Pattern::parse(text)
            {
                return Ok(Code::Like { input: self.boxed(left, scope)?, pattern, negated });
            }
        }
        Ok(Code::Call { call, args: self.all(args, scope)? })
    }

    fn compile_scalar_array(
        &mut self,
        func: &'static ScalarFn,
        left: &Expr,
        array: &Expr,
        all: bool,
        scope: &Scope<'_>,
    ) -> Result<Code> {
        if let ExprKind::Const(Datum::Array(constant)) = &array.kind
            && constant.values.len() >= SET_MIN
            && let Some(c) = comparison(func)
            && c.is_native()
            && c.hashes()
            && ((c.op == CompareOp::Eq && !all) || (c.op == CompareOp::Ne && all))
        {
            let set = Arc::new(ConstSet::new(constant.values.iter().cloned()));
            return Ok(Code::InSet { left: self.boxed(left, scope)?, set, negated: all });
        }
        let elem = array.ty.ty.element().unwrap_or(func.args.get(1).copied().unwrap_or(Type::TEXT));
        Ok(Code::ScalarArray {
            call: call_of(func, [left.ty.ty, elem]),
            left: self.boxed(left, scope)?,
            array: self.boxed(array, scope)?,
            all,
        })
    }

    fn compile_subquery(&mut self, sub: &Subquery, ty: TypeMod, scope: &Scope<'_>) -> Result<Code> {
        let Some(number) = handle(sub) else { return Err(SqlError::internal("a subquery was not converted")) };
        let Some(known) = self.subs.get(number).cloned() else { return Err(SqlError::internal("no such subquery")) };
        let schema = &sub.plan.schema;
        let (kind, tests) = match &sub.kind {
            SubqueryKind::Scalar => (SubKind::Scalar, Vec::new()),
            SubqueryKind::Exists => (SubKind::Exists, Vec::new()),
            SubqueryKind::Array => {
                let of = schema.first().map_or(Type::TEXT, |f| f.ty.ty);
                let nested = of.element().is_some() && ty.ty == of;
                (SubKind::Array { elem: if nested { of.element().unwrap_or(of) } else { of }, nested }, Vec::new())
            }
            SubqueryKind::Quantified { tests, funcs, all } => {
                let calls: Vec<Call> = tests
                    .iter()
                    .zip(funcs)
                    .zip(schema.iter())
                    .map(|((t, f), field)| call_of(f, [t.ty.ty, field.ty.ty]))
                    .collect();
                let compares: Option<Vec<_>> = funcs.iter().map(|f| comparison(f).filter(|c| c.hashes())).collect();
                let hashed = compares.is_some_and(|c| {
                    if *all {
                        c.len() == 1 && c[0].op == CompareOp::Ne
                    } else {
                        c.iter().all(|c| c.op == CompareOp::Eq)
                    }
                });
                let types = funcs.iter().map(|f| f.args.first().copied().unwrap_or(Type::NONE)).collect();
                (SubKind::Quantified(Quantified { calls, all: *all, hashed, types }), tests.clone())
            }
        };
        let tests = self.all(&tests, scope)?;
        let mut keys = Vec::with_capacity(known.free.len());
        for id in &known.free {
            keys.push(place(*id, scope)?);
        }
        let one_row = matches!(kind, SubKind::Exists);
        let node = self.lower_sub(known.plan, one_row, scope)?;
        let plan = Arc::new(SubPlan::new(node, kind, keys, known.volatile || known.reads_work, known.reads_work));
        self.subplans.insert(number, plan.clone());
        Ok(Code::Subquery { plan, tests })
    }
}

fn call_of(func: &'static ScalarFn, args: [Type; 2]) -> Call {
    Call { func, arg_types: Arc::new(args), ret: Type::BOOL.plain() }
}

/// Where a column is: in the row, or in that of an enclosing query.
fn place(id: ColId, scope: &Scope<'_>) -> Result<Code> {
    if let Some(at) = scope.columns.iter().position(|c| *c == id) {
        return Ok(Code::Column(at));
    }
    let (mut up, mut depth) = (scope.up, 1);
    while let Some(scope) = up {
        if let Some(index) = scope.columns.iter().position(|c| *c == id) {
            return Ok(Code::Outer { depth, index });
        }
        (up, depth) = (scope.up, depth + 1);
    }
    Err(SqlError::internal(format!("column {id} is not among the rows at hand")))
}

/// Types of values, for the char(n) that must be normalised.
pub(crate) fn types_of(exprs: &[Prog]) -> Vec<Type> {
    exprs.iter().map(|p| p.expr.ty.ty).collect()
}
