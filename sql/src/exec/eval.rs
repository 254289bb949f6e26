//! Evaluating expressions.
//!
//! [`Env`] is what an expression sees besides its row: the statement and the rows of enclosing queries, a list on the stack. Arguments of
//! calls with up to four of them live on the stack too. Comparisons read columns in place, without cloning them.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use super::ExecCx;
use super::code::{ArithOp, Call, Code};
use super::value;
use crate::error::{Result, SqlError, state};
use crate::functions::FnCx;
use crate::ir::RowCompareOp;
use crate::types::datum::{Record, compare_typed};
use crate::types::{Array, Datum, Type, io};

/// What an expression sees besides its row.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The statement.
    pub cx: &'a ExecCx,
    /// The nearest enclosing row.
    pub outer: Option<&'a Outer<'a>>,
    case_operand: Option<&'a Datum>,
}

/// A row of an enclosing query and those around it.
pub struct Outer<'a> {
    /// The row.
    pub row: &'a [Datum],
    /// The next one out.
    pub up: Option<&'a Outer<'a>>,
    /// How many there are, this one included.
    pub depth: usize,
}

impl<'a> Env<'a> {
    /// Outermost surroundings.
    pub fn new(cx: &'a ExecCx) -> Env<'a> {
        Env { cx, outer: None, case_operand: None }
    }
    /// How many enclosing rows there are.
    pub fn depth(&self) -> usize {
        self.outer.map_or(0, |o| o.depth)
    }
    /// These surroundings with one more enclosing row; pass it to [`Env::within`].
    pub fn enclose(&self, row: &'a [Datum]) -> Outer<'a> {
        Outer { row, up: self.outer, depth: self.depth() + 1 }
    }
    /// The surroundings of a query inside that row.
    pub fn within<'b>(cx: &'b ExecCx, outer: &'b Outer<'b>) -> Env<'b> {
        Env { cx, outer: Some(outer), case_operand: None }
    }
    /// The surroundings with only the outermost `depth` enclosing rows.
    pub fn at_depth(&self, depth: usize) -> Env<'a> {
        let mut outer = self.outer;
        while let Some(o) = outer {
            if o.depth <= depth {
                break;
            }
            outer = o.up;
        }
        Env { cx: self.cx, outer, case_operand: None }
    }
    /// Fails if the statement was cancelled.
    pub fn check_cancel(&self) -> Result<()> {
        self.cx.session.check_cancel()
    }

    fn outer_value(&self, depth: usize, index: usize) -> Result<&'a Datum> {
        let mut outer = self.outer;
        for _ in 1..depth {
            outer = outer.and_then(|o| o.up);
        }
        outer.and_then(|o| o.row.get(index)).ok_or_else(|| SqlError::internal("no such enclosing row"))
    }
}

/// A value read in place or made.
enum Val<'a> {
    Ref(&'a Datum),
    Own(Datum),
}

impl Deref for Val<'_> {
    type Target = Datum;
    fn deref(&self) -> &Datum {
        match self {
            Val::Ref(d) => d,
            Val::Own(d) => d,
        }
    }
}

impl Call {
    /// Calls the function, after the check for NULLs of a strict one.
    pub(crate) fn call(&self, args: &[Datum], env: &Env<'_>) -> Result<Datum> {
        if self.func.strict && args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        (self.func.imp)(
            args,
            &FnCx { session: &env.cx.session, arg_types: &self.arg_types, ret: self.ret.ty, typmod: self.ret.typmod },
        )
    }
}

impl Code {
    /// The value over a row.
    pub fn eval(&self, row: &[Datum], env: &Env<'_>) -> Result<Datum> {
        Ok(match self {
            Code::Const(d) => d.clone(),
            Code::Column(i) => row[*i].clone(),
            Code::Outer { depth, index } => env.outer_value(*depth, *index)?.clone(),
            Code::Param(i) => param(*i, env)?.clone(),
            Code::CaseOperand => env.case_operand.cloned().unwrap_or_default(),
            Code::Call { call, args } => eval_call(call, args, row, env)?,
            Code::Arith { op, call, args } => arith(*op, call, args, row, env)?,
            Code::Compare { .. }
            | Code::Like { .. }
            | Code::And(_)
            | Code::Or(_)
            | Code::Not(_)
            | Code::IsNull { .. }
            | Code::IsBool { .. }
            | Code::Distinct { .. }
            | Code::ScalarArray { .. }
            | Code::InSet { .. }
            | Code::RowCompare { .. } => self.eval_bool(row, env)?.map_or(Datum::Null, Datum::Bool),
            Code::ViaIo { input, from, to } => {
                let input = input.eval_ref(row, env)?;
                if input.is_null() {
                    return Ok(Datum::Null);
                }
                let mut text = String::new();
                io::text_out(&input, *from, &env.cx.session, &mut text);
                io::text_in(&text, *to, &env.cx.session)?
            }
            Code::ArrayCoerce { input, cast, elem } => match &*input.eval_ref(row, env)? {
                Datum::Array(array) => {
                    let values =
                        array.values.iter().map(|v| cast.eval(std::slice::from_ref(v), env)).collect::<Result<_>>()?;
                    Datum::Array(Arc::new(Array { elem: *elem, dims: array.dims.clone(), values }))
                }
                _ => Datum::Null,
            },
            Code::Case { operand, whens, otherwise } => {
                let operand = operand.as_ref().map(|o| o.eval(row, env)).transpose()?;
                let inner = Env { case_operand: operand.as_ref().or(env.case_operand), ..*env };
                for (when, then) in whens {
                    if when.eval_bool(row, &inner)? == Some(true) {
                        return then.eval(row, env);
                    }
                }
                match otherwise {
                    Some(otherwise) => otherwise.eval(row, &inner)?,
                    None => Datum::Null,
                }
            }
            Code::Coalesce(args) => {
                for arg in args {
                    let value = arg.eval(row, env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Datum::Null
            }
            Code::NullIf { eq, args } => {
                let pair = [args[0].eval(row, env)?, args[1].eval(row, env)?];
                if !pair[0].is_null() && !pair[1].is_null() && matches!(eq.call(&pair, env)?, Datum::Bool(true)) {
                    return Ok(Datum::Null);
                }
                let [left, _] = pair;
                left
            }
            Code::MinMax { args, greatest, ty } => {
                let mut best = Datum::Null;
                for arg in args {
                    let value = arg.eval(row, env)?;
                    let better = !value.is_null()
                        && (best.is_null()
                            || compare_of(&value, &best, *ty)
                                == if *greatest { Ordering::Greater } else { Ordering::Less });
                    if better {
                        best = value;
                    }
                }
                best
            }
            Code::Array { elems, nested, elem } => {
                let values = elems.iter().map(|e| e.eval(row, env)).collect::<Result<Vec<_>>>()?;
                make_array(values, *nested, *elem)?
            }
            Code::Row { fields, values } => {
                let values = values.iter().map(|e| e.eval(row, env)).collect::<Result<Vec<_>>>()?;
                Datum::Record(Arc::new(Record { fields: fields.clone(), values }))
            }
            Code::Field { input, index } => match &*input.eval_ref(row, env)? {
                Datum::Record(r) => r.values.get(*index).cloned().unwrap_or_default(),
                _ => Datum::Null,
            },
            Code::Subscript { input, indexes } => {
                let input = input.eval_ref(row, env)?;
                let Datum::Array(array) = &*input else { return Ok(Datum::Null) };
                let mut at = Vec::with_capacity(indexes.len());
                for index in indexes {
                    match value::integer(&*index.eval_ref(row, env)?) {
                        Some(i) => at.push(i),
                        None => return Ok(Datum::Null),
                    }
                }
                element(array, &at)
            }
            Code::Slice { input, bounds } => {
                let input = input.eval_ref(row, env)?;
                let Datum::Array(array) = &*input else { return Ok(Datum::Null) };
                let mut at = Vec::with_capacity(bounds.len());
                for (low, high) in bounds {
                    let mut pair = [None, None];
                    for (slot, bound) in pair.iter_mut().zip([low, high]) {
                        if let Some(bound) = bound {
                            match value::integer(&*bound.eval_ref(row, env)?) {
                                Some(i) => *slot = Some(i),
                                None => return Ok(Datum::Null),
                            }
                        }
                    }
                    at.push((pair[0], pair[1]));
                }
                slice(array, &at)
            }
            Code::Subquery { plan, tests } => {
                let tests = tests.iter().map(|t| t.eval(row, env)).collect::<Result<Vec<_>>>()?;
                plan.value(&tests, row, env)?
            }
        })
    }

    /// The value of a boolean expression; None is unknown.
    pub fn eval_bool(&self, row: &[Datum], env: &Env<'_>) -> Result<Option<bool>> {
        Ok(match self {
            Code::Compare { op, call, args } => {
                let (left, right) = (args[0].eval_ref(row, env)?, args[1].eval_ref(row, env)?);
                if left.is_null() || right.is_null() {
                    if call.func.strict {
                        return Ok(None);
                    }
                } else if let Some(order) = value::native_order(&left, &right) {
                    return Ok(Some(op.holds(order)));
                }
                truth(&call.call(&[left.clone(), right.clone()], env)?)?
            }
            Code::Like { input, pattern, negated } => match &*input.eval_ref(row, env)? {
                Datum::Text(s) => Some(pattern.matches(s) != *negated),
                _ => None,
            },
            Code::And(args) => {
                let mut all = Some(true);
                for arg in args {
                    match arg.eval_bool(row, env)? {
                        Some(false) => return Ok(Some(false)),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Code::Or(args) => {
                let mut any = Some(false);
                for arg in args {
                    match arg.eval_bool(row, env)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Code::Not(arg) => arg.eval_bool(row, env)?.map(|b| !b),
            Code::IsNull { input, negated } => {
                let value: Val<'_> = input.eval_ref(row, env)?;
                Some(is_null(&value, *negated))
            }
            Code::IsBool { input, value, negated } => Some((input.eval_bool(row, env)? == *value) != *negated),
            Code::Distinct { eq, args, negated } => {
                let (left, right) = (args[0].eval_ref(row, env)?, args[1].eval_ref(row, env)?);
                let distinct = match (left.is_null(), right.is_null()) {
                    (true, true) => false,
                    (false, false) => truth(&eq.call(&[left.clone(), right.clone()], env)?)? != Some(true),
                    _ => true,
                };
                Some(distinct != *negated)
            }
            Code::ScalarArray { call, left, array, all } => scalar_array(call, left, array, *all, row, env)?,
            Code::InSet { left, set, negated } => {
                let left = left.eval_ref(row, env)?;
                if left.is_null() {
                    None
                } else if set.contains(&left) {
                    Some(!negated)
                } else if set.has_null {
                    None
                } else {
                    Some(*negated)
                }
            }
            Code::RowCompare { op, pairs } => row_compare(*op, pairs, row, env)?,
            other => {
                let value: Val<'_> = other.eval_ref(row, env)?;
                truth(&value)?
            }
        })
    }

    fn eval_ref<'a>(&'a self, row: &'a [Datum], env: &Env<'a>) -> Result<Val<'a>> {
        Ok(match self {
            Code::Const(d) => Val::Ref(d),
            Code::Column(i) => Val::Ref(&row[*i]),
            Code::Outer { depth, index } => Val::Ref(env.outer_value(*depth, *index)?),
            Code::Param(i) => Val::Ref(param(*i, env)?),
            other => Val::Own(other.eval(row, env)?),
        })
    }
}

fn param<'a>(index: usize, env: &Env<'a>) -> Result<&'a Datum> {
    env.cx
        .params
        .get(index)
        .ok_or_else(|| SqlError::new(state::UNDEFINED_PARAMETER, format!("there is no parameter ${}", index + 1)))
}

/// A condition's value as a truth value.
pub(crate) fn truth(d: &Datum) -> Result<Option<bool>> {
    match d {
        Datum::Bool(b) => Ok(Some(*b)),
        Datum::Null => Ok(None),
        _ => Err(SqlError::internal("a condition is not boolean")),
    }
}

fn is_null(d: &Datum, negated: bool) -> bool {
    match d {
        Datum::Record(r) => r.values.iter().all(|v| v.is_null() != negated),
        d => d.is_null() != negated,
    }
}

fn compare_of(a: &Datum, b: &Datum, ty: Type) -> Ordering {
    value::native_order(a, b).filter(|_| !value::needs_normalising(ty)).unwrap_or_else(|| compare_typed(a, b, ty))
}

fn eval_call(call: &Call, args: &[Code], row: &[Datum], env: &Env<'_>) -> Result<Datum> {
    let mut stack: [Datum; 4] = Default::default();
    let mut heap = Vec::new();
    let values: &mut [Datum] = if args.len() <= stack.len() {
        &mut stack[..args.len()]
    } else {
        heap.resize(args.len(), Datum::Null);
        &mut heap
    };
    for (slot, arg) in values.iter_mut().zip(args) {
        *slot = arg.eval(row, env)?;
    }
    call.call(values, env)
}

fn arith(op: ArithOp, call: &Call, args: &[Code; 2], row: &[Datum], env: &Env<'_>) -> Result<Datum> {
    let (left, right) = (args[0].eval_ref(row, env)?, args[1].eval_ref(row, env)?);
    let fast = match (&*left, &*right) {
        (Datum::Int4(a), Datum::Int4(b)) => match op {
            ArithOp::Add => a.checked_add(*b),
            ArithOp::Sub => a.checked_sub(*b),
            ArithOp::Mul => a.checked_mul(*b),
        }
        .map(Datum::Int4),
        (Datum::Int8(a), Datum::Int8(b)) => match op {
            ArithOp::Add => a.checked_add(*b),
            ArithOp::Sub => a.checked_sub(*b),
            ArithOp::Mul => a.checked_mul(*b),
        }
        .map(Datum::Int8),
        (Datum::Float8(a), Datum::Float8(b)) => {
            let r = match op {
                ArithOp::Add => a + b,
                ArithOp::Sub => a - b,
                ArithOp::Mul => a * b,
            };
            // Overflow and underflow are errors; the function knows which and words them.
            (r.is_normal() || (r == 0.0 && op != ArithOp::Mul)).then_some(Datum::Float8(r))
        }
        _ => None,
    };
    match fast {
        Some(d) => Ok(d),
        None => call.call(&[left.clone(), right.clone()], env),
    }
}

fn scalar_array(
    call: &Call,
    left: &Code,
    array: &Code,
    all: bool,
    row: &[Datum],
    env: &Env<'_>,
) -> Result<Option<bool>> {
    let left = left.eval_ref(row, env)?;
    let array = array.eval_ref(row, env)?;
    let Datum::Array(array) = &*array else { return Ok(None) };
    if array.values.is_empty() {
        return Ok(Some(all));
    }
    if call.func.strict && left.is_null() {
        return Ok(None);
    }
    let mut pair = [left.clone(), Datum::Null];
    let mut unknown = false;
    for element in &array.values {
        pair[1].clone_from(element);
        match truth(&call.call(&pair, env)?)? {
            Some(b) if b != all => return Ok(Some(b)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { None } else { Some(all) })
}

fn row_compare(op: RowCompareOp, pairs: &[(Code, Code, Type)], row: &[Datum], env: &Env<'_>) -> Result<Option<bool>> {
    let mut unknown = false;
    for (left, right, ty) in pairs {
        let (left, right) = (left.eval_ref(row, env)?, right.eval_ref(row, env)?);
        if left.is_null() || right.is_null() {
            if !matches!(op, RowCompareOp::Eq | RowCompareOp::Ne) {
                return Ok(None);
            }
            unknown = true;
            continue;
        }
        match (value::order_as(*ty, &left, &right), op) {
            (Ordering::Equal, _) => {}
            (_, RowCompareOp::Eq) => return Ok(Some(false)),
            (_, RowCompareOp::Ne) => return Ok(Some(true)),
            (order, RowCompareOp::Lt | RowCompareOp::Le) => return Ok(Some(order == Ordering::Less)),
            (order, RowCompareOp::Gt | RowCompareOp::Ge) => return Ok(Some(order == Ordering::Greater)),
        }
    }
    Ok(if unknown { None } else { Some(matches!(op, RowCompareOp::Eq | RowCompareOp::Le | RowCompareOp::Ge)) })
}

pub(crate) fn make_array(values: Vec<Datum>, nested: bool, elem: Type) -> Result<Datum> {
    if !nested {
        let dims = if values.is_empty() { vec![] } else { vec![(values.len() as i32, 1)] };
        return Ok(Datum::Array(Arc::new(Array { elem, dims, values })));
    }
    let mismatch = || {
        SqlError::new(
            state::ARRAY_SUBSCRIPT_ERROR,
            "multidimensional arrays must have array expressions with matching dimensions",
        )
    };
    let count = values.len() as i32;
    let mut flat = Vec::new();
    let mut inner: Option<Vec<(i32, i32)>> = None;
    for value in &values {
        // A NULL array counts as an empty one, as in PostgreSQL.
        let (dims, elements): (&[_], &[_]) = match value {
            Datum::Array(a) => (&a.dims, &a.values),
            _ => (&[], &[]),
        };
        match &inner {
            None => inner = Some(dims.to_vec()),
            Some(first) if first.as_slice() == dims => {}
            Some(_) => return Err(mismatch()),
        }
        flat.extend_from_slice(elements);
    }
    let inner = inner.unwrap_or_default();
    if inner.is_empty() {
        return Ok(Datum::Array(Arc::new(Array { elem, dims: vec![], values: vec![] })));
    }
    if inner.len() >= 6 {
        return Err(SqlError::new(
            state::PROGRAM_LIMIT_EXCEEDED,
            "number of array dimensions (7) exceeds the maximum allowed (6)",
        ));
    }
    let mut dims = vec![(count, 1)];
    dims.extend(inner);
    Ok(Datum::Array(Arc::new(Array { elem, dims, values: flat })))
}

/// The element at subscripts, NULL outside or with a wrong number of them.
fn element(array: &Array, at: &[i64]) -> Datum {
    if array.dims.len() != at.len() {
        return Datum::Null;
    }
    let mut offset = 0usize;
    for (&(length, lower), &index) in array.dims.iter().zip(at) {
        let position = index - i64::from(lower);
        if position < 0 || position >= i64::from(length) {
            return Datum::Null;
        }
        offset = offset * length as usize + position as usize;
    }
    array.values.get(offset).cloned().unwrap_or_default()
}

/// The part of an array between bounds; its lower bounds become 1. Dimensions without bounds are taken whole.
fn slice(array: &Array, bounds: &[(Option<i64>, Option<i64>)]) -> Datum {
    let empty = || Datum::Array(Arc::new(Array { elem: array.elem, dims: vec![], values: vec![] }));
    if bounds.len() > array.dims.len() || array.dims.is_empty() {
        return empty();
    }
    let mut spans = Vec::with_capacity(array.dims.len());
    for (d, &(length, lower)) in array.dims.iter().enumerate() {
        let (lower, upper) = (i64::from(lower), i64::from(lower) + i64::from(length) - 1);
        let (from, to) = bounds.get(d).copied().unwrap_or((None, None));
        let (from, to) = (from.unwrap_or(lower).max(lower), to.unwrap_or(upper).min(upper));
        if from > to {
            return empty();
        }
        spans.push(((from - lower) as usize, (to - lower) as usize));
    }
    let mut values = Vec::new();
    let mut at: Vec<usize> = spans.iter().map(|s| s.0).collect();
    'all: loop {
        let offset = at.iter().zip(&array.dims).fold(0, |o, (&i, &(length, _))| o * length as usize + i);
        values.push(array.values[offset].clone());
        for d in (0..at.len()).rev() {
            if at[d] < spans[d].1 {
                at[d] += 1;
                continue 'all;
            }
            at[d] = spans[d].0;
        }
        break;
    }
    let dims = spans.iter().map(|(from, to)| ((to - from + 1) as i32, 1)).collect();
    Datum::Array(Arc::new(Array { elem: array.elem, dims, values }))
}
