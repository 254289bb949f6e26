//! The registry: every function, operator and cast we implement, by name.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::context::FnCx;
use crate::error::Result;
use crate::types::{Datum, Type};

/// A scalar function: a row's arguments in, a value out. With `strict` it is never called with a NULL among them.
pub type ScalarImpl = fn(&[Datum], &FnCx<'_>) -> Result<Datum>;

/// When a call with the same arguments may give another answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Never: may be folded when planned.
    Immutable,
    /// Between statements (time zone, settings, catalog, now()).
    Stable,
    /// At every call.
    Volatile,
}

/// One overload of a scalar function.
pub struct ScalarFn {
    /// Name, lower case.
    pub name: &'static str,
    /// Declared argument types; may be polymorphic pseudo-types.
    pub args: &'static [Type],
    /// Element type of a VARIADIC last parameter, which is not counted in `args`.
    pub variadic: Option<Type>,
    /// How many trailing `args` may be left out (they have defaults the implementation knows).
    pub optional: usize,
    /// Declared result; a polymorphic one is resolved by the binder.
    pub ret: Type,
    /// NULL in, NULL out, without a call.
    pub strict: bool,
    /// When it may be folded.
    pub volatility: Volatility,
    /// The implementation.
    pub imp: ScalarImpl,
}

/// An operator: a name and operand types that mean a function. Prefix operators have `left == Type::NONE`.
pub struct Operator {
    /// `+`, `||`, `~~` ...
    pub name: &'static str,
    /// Left operand, or NONE.
    pub left: Type,
    /// Right operand.
    pub right: Type,
    /// What it calls.
    pub func: &'static ScalarFn,
}

/// Where a cast may be applied without being written, `pg_cast.castcontext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CastContext {
    /// Anywhere.
    Implicit,
    /// To a column of INSERT/UPDATE, and explicitly.
    Assignment,
    /// Only by CAST or `::`.
    Explicit,
}

/// How a value of one type becomes one of another.
#[derive(Clone, Copy)]
pub enum CastMethod {
    /// The same representation.
    Binary,
    /// Through this function.
    Function(&'static ScalarFn),
    /// Through the text form of the source and the input function of the target.
    InOut,
}

/// A cast between two types.
pub struct Cast {
    /// From.
    pub source: Type,
    /// To.
    pub target: Type,
    /// Where it applies.
    pub context: CastContext,
    /// How.
    pub method: CastMethod,
}

/// State of one aggregate over one group.
pub trait AggState: Send {
    /// Takes a row's arguments (already evaluated; NULLs included unless the aggregate is strict).
    fn update(&mut self, args: &[Datum], cx: &FnCx<'_>) -> Result<()>;
    /// The result over what was taken so far. May be called more than once (windows call it after every row).
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum>;
    /// The result when it is not asked for again: a state that collects need not copy what it has.
    fn finish_last(mut self: Box<Self>, cx: &FnCx<'_>) -> Result<Datum> {
        self.finish(cx)
    }
    /// Bytes held beyond the struct itself, for memory accounting.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// An aggregate function.
pub struct AggregateFn {
    /// Name, lower case.
    pub name: &'static str,
    /// Argument types; empty for count(*). For an ordered-set aggregate: the direct arguments, then the sorted one.
    pub args: &'static [Type],
    /// Element type of VARIADIC arguments.
    pub variadic: Option<Type>,
    /// Declared result.
    pub ret: Type,
    /// Rows with a NULL argument are skipped.
    pub strict: bool,
    /// For ordered-set aggregates, how many arguments are direct (`percentile_cont(0.5)` has 1).
    pub ordered_set: Option<usize>,
    /// A fresh state. For ordered-set aggregates `update` gets direct arguments followed by the sorted value, in order.
    pub new: fn(&FnCx<'_>) -> Box<dyn AggState>,
}

/// Rows of a set-returning function, made as they are asked for.
pub type SetIter = Box<dyn Iterator<Item = Result<Vec<Datum>>> + Send>;

/// A set-returning function.
pub struct SetFn {
    /// Name, lower case.
    pub name: &'static str,
    /// Argument types.
    pub args: &'static [Type],
    /// Element type of VARIADIC arguments.
    pub variadic: Option<Type>,
    /// Names and types of its columns. One column: its name is the function's alias in FROM. Types may be polymorphic.
    pub columns: &'static [(&'static str, Type)],
    /// NULL among the arguments: no rows.
    pub strict: bool,
    /// The implementation.
    pub imp: fn(&[Datum], &FnCx<'_>) -> Result<SetIter>,
}

/// A window function proper (row_number, lag ...); aggregates serve as window functions too.
pub struct WindowFn {
    /// Name, lower case.
    pub name: &'static str,
    /// Argument types.
    pub args: &'static [Type],
    /// How many trailing arguments may be left out.
    pub optional: usize,
    /// Declared result.
    pub ret: Type,
    /// Which one it is.
    pub kind: super::window::WindowKind,
}

/// Everything callable. Built once.
#[derive(Default)]
pub struct Registry {
    /// Scalar functions by name.
    pub scalars: FxHashMap<&'static str, Vec<&'static ScalarFn>>,
    /// Operators by name.
    pub operators: FxHashMap<&'static str, Vec<Operator>>,
    /// Casts by (source, target).
    pub casts: FxHashMap<(Type, Type), Cast>,
    /// Aggregates by name.
    pub aggregates: FxHashMap<&'static str, Vec<&'static AggregateFn>>,
    /// Set-returning functions by name.
    pub sets: FxHashMap<&'static str, Vec<&'static SetFn>>,
    /// Window functions by name.
    pub windows: FxHashMap<&'static str, Vec<&'static WindowFn>>,
}

impl Registry {
    /// Adds a scalar function and returns it, for operators and casts that call it too.
    pub fn scalar(&mut self, f: ScalarFn) -> &'static ScalarFn {
        let f: &'static ScalarFn = Box::leak(Box::new(f));
        self.scalars.entry(f.name).or_default().push(f);
        f
    }
    /// Adds a strict immutable function of fixed arguments: what most are.
    pub fn pure(&mut self, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) -> &'static ScalarFn {
        self.scalar(ScalarFn {
            name,
            args,
            variadic: None,
            optional: 0,
            ret,
            strict: true,
            volatility: Volatility::Immutable,
            imp,
        })
    }
    /// Adds a strict stable function of fixed arguments.
    pub fn stable(
        &mut self,
        name: &'static str,
        args: &'static [Type],
        ret: Type,
        imp: ScalarImpl,
    ) -> &'static ScalarFn {
        self.scalar(ScalarFn {
            name,
            args,
            variadic: None,
            optional: 0,
            ret,
            strict: true,
            volatility: Volatility::Stable,
            imp,
        })
    }
    /// Adds an operator that calls `func`.
    pub fn operator(&mut self, name: &'static str, left: Type, right: Type, func: &'static ScalarFn) {
        self.operators.entry(name).or_default().push(Operator { name, left, right, func });
    }
    /// Adds a strict immutable binary operator together with the function behind it, named as in pg_proc.
    pub fn binary(
        &mut self,
        op: &'static str,
        fname: &'static str,
        args: &'static [Type; 2],
        ret: Type,
        imp: ScalarImpl,
    ) -> &'static ScalarFn {
        let f = self.pure(fname, args, ret, imp);
        self.operator(op, args[0], args[1], f);
        f
    }
    /// Adds a cast.
    pub fn cast(&mut self, source: Type, target: Type, context: CastContext, method: CastMethod) {
        self.casts.insert((source, target), Cast { source, target, context, method });
    }
    /// Adds an aggregate.
    pub fn aggregate(&mut self, f: AggregateFn) {
        let f: &'static AggregateFn = Box::leak(Box::new(f));
        self.aggregates.entry(f.name).or_default().push(f);
    }
    /// Adds a set-returning function.
    pub fn set(&mut self, f: SetFn) {
        let f: &'static SetFn = Box::leak(Box::new(f));
        self.sets.entry(f.name).or_default().push(f);
    }
    /// Adds a window function.
    pub fn window(&mut self, f: WindowFn) {
        let f: &'static WindowFn = Box::leak(Box::new(f));
        self.windows.entry(f.name).or_default().push(f);
    }
}

/// The one registry of the process.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut r = Registry::default();
        super::cast::register(&mut r);
        super::compare::register(&mut r);
        super::arith::register(&mut r);
        super::math::register(&mut r);
        super::text::register(&mut r);
        super::pattern::register(&mut r);
        super::format::register(&mut r);
        super::bytea::register(&mut r);
        super::datetime::register(&mut r);
        super::to_char::register(&mut r);
        super::array::register(&mut r);
        super::uuid::register(&mut r);
        super::json::register(&mut r);
        super::system::register(&mut r);
        super::locks::register(&mut r);
        super::srf::register(&mut r);
        super::aggregate::register(&mut r);
        super::window::register(&mut r);
        // Last: it fills in what no other module has.
        super::catalog::register(&mut r);
        r
    })
}
