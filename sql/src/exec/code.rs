//! Compiled expressions: what the planner makes of [`crate::ir::Expr`] once columns have positions and subqueries have plans.
//!
//! A [`Code`] is immutable and shared by all executions of a plan. Comparisons and arithmetic that need no call for the
//! common types are nodes of their own; they fall back to the registry's function for all else, which also makes the errors.

use std::cmp::Ordering;
use std::sync::Arc;

use super::hash::HashIndex;
use super::pattern::Pattern;
use super::subplan::SubPlan;
use super::value;
use crate::functions::registry::ScalarFn;
use crate::ir::RowCompareOp;
use crate::types::{Datum, Type, TypeMod};

/// An expression ready to be evaluated; see [`Code::eval`].
#[allow(missing_docs)] // the fields are those of the kinds of `ir::ExprKind`
pub enum Code {
    /// A constant.
    Const(Datum),
    /// A column of the row.
    Column(usize),
    /// A column of an enclosing row; depth 1 is the nearest.
    Outer { depth: usize, index: usize },
    /// A parameter.
    Param(usize),
    /// The operand of the CASE being evaluated.
    CaseOperand,
    /// A call.
    Call { call: Call, args: Box<[Code]> },
    /// A comparison, done here when the values are of a native type.
    Compare { op: CompareOp, call: Call, args: Box<[Code; 2]> },
    /// `+`, `-` or `*`, done here for int4, int8 and float8 without overflow.
    Arith { op: ArithOp, call: Call, args: Box<[Code; 2]> },
    /// LIKE or NOT LIKE with a constant pattern.
    Like { input: Box<Code>, pattern: Pattern, negated: bool },
    /// Through text.
    ViaIo { input: Box<Code>, from: Type, to: TypeMod },
    /// Element-wise cast.
    ArrayCoerce { input: Box<Code>, cast: Box<Code>, elem: Type },
    /// AND.
    And(Box<[Code]>),
    /// OR.
    Or(Box<[Code]>),
    /// NOT.
    Not(Box<Code>),
    /// IS [NOT] NULL.
    IsNull { input: Box<Code>, negated: bool },
    /// IS [NOT] TRUE / FALSE / UNKNOWN.
    IsBool { input: Box<Code>, value: Option<bool>, negated: bool },
    /// IS [NOT] DISTINCT FROM.
    Distinct { eq: Call, args: Box<[Code; 2]>, negated: bool },
    /// CASE.
    Case { operand: Option<Box<Code>>, whens: Box<[(Code, Code)]>, otherwise: Option<Box<Code>> },
    /// COALESCE.
    Coalesce(Box<[Code]>),
    /// NULLIF.
    NullIf { eq: Call, args: Box<[Code; 2]> },
    /// GREATEST, LEAST.
    MinMax { args: Box<[Code]>, greatest: bool, ty: Type },
    /// op ANY/ALL (array).
    ScalarArray { call: Call, left: Box<Code>, array: Box<Code>, all: bool },
    /// `= ANY` (or `<> ALL` when negated) of many constants.
    InSet { left: Box<Code>, set: Arc<ConstSet>, negated: bool },
    /// ARRAY[...].
    Array { elems: Box<[Code]>, nested: bool, elem: Type },
    /// ROW(...).
    Row { fields: Arc<[(Arc<str>, TypeMod)]>, values: Box<[Code]> },
    /// Field of a record.
    Field { input: Box<Code>, index: usize },
    /// a[i].
    Subscript { input: Box<Code>, indexes: Box<[Code]> },
    /// a[lo:hi].
    Slice { input: Box<Code>, bounds: Box<[(Option<Code>, Option<Code>)]> },
    /// Row comparison.
    RowCompare { op: RowCompareOp, pairs: Box<[(Code, Code, Type)]> },
    /// A subquery as a value; `tests` are the left sides of a quantified one.
    Subquery { plan: Arc<SubPlan>, tests: Box<[Code]> },
}

/// A function with the types it is called with.
#[derive(Clone)]
pub struct Call {
    /// Which.
    pub func: &'static ScalarFn,
    /// Actual argument types.
    pub arg_types: Arc<[Type]>,
    /// Actual result type and modifier.
    pub ret: TypeMod,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl CompareOp {
    /// Whether it holds for two values in this order.
    #[inline]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            CompareOp::Eq => order == Ordering::Equal,
            CompareOp::Ne => order != Ordering::Equal,
            CompareOp::Lt => order == Ordering::Less,
            CompareOp::Le => order != Ordering::Greater,
            CompareOp::Gt => order == Ordering::Greater,
            CompareOp::Ge => order != Ordering::Less,
        }
    }
    /// The operator with its sides exchanged.
    pub fn flipped(self) -> CompareOp {
        match self {
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
            same => same,
        }
    }
}

/// Arithmetic with a fast form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ArithOp {
    Add,
    Sub,
    Mul,
}

/// The elements of a long constant list.
pub struct ConstSet {
    values: Vec<Datum>,
    index: HashIndex,
    /// Whether NULL was among them: what is not found is then unknown.
    pub has_null: bool,
}

impl ConstSet {
    /// A set of these values, which are of one hashable family and normalised.
    pub fn new(elements: impl IntoIterator<Item = Datum>) -> ConstSet {
        let mut set = ConstSet { values: Vec::new(), index: HashIndex::default(), has_null: false };
        for d in elements {
            if d.is_null() {
                set.has_null = true;
            } else if !set.contains(&d) {
                set.index.insert(value::hash_row(std::slice::from_ref(&d)));
                set.values.push(d);
            }
        }
        set
    }
    /// Whether a non-null value is among them.
    pub fn contains(&self, d: &Datum) -> bool {
        self.index.find(value::hash_row(std::slice::from_ref(d)), |i| value::same(&self.values[i], d)).is_some()
    }
    /// Whether it has no element but NULL.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// LIKE and NOT LIKE by the name of the function behind the operator: Some(negated).
pub(crate) fn like_function(func: &ScalarFn) -> Option<bool> {
    if func.args.len() != 2 || func.args[0] != Type::TEXT || func.args[1] != Type::TEXT {
        return None;
    }
    match func.name {
        "textlike" => Some(false),
        "textnlike" => Some(true),
        _ => None,
    }
}

/// Arithmetic functions [`Code::Arith`] knows, by their names in pg_proc.
pub(crate) fn arith_function(func: &ScalarFn) -> Option<ArithOp> {
    match func.name {
        "int4pl" | "int8pl" | "float8pl" => Some(ArithOp::Add),
        "int4mi" | "int8mi" | "float8mi" => Some(ArithOp::Sub),
        "int4mul" | "int8mul" | "float8mul" => Some(ArithOp::Mul),
        _ => None,
    }
}
