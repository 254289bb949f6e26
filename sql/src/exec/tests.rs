//! Operators against brute force, with memory enough and with almost none.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgbee_engine::bee::Cache;
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::txn::{Database, Options};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec::row::storage_cx;
use crate::functions::registry::{AggregateFn, ScalarFn, registry};
use crate::ir::{
    AggCall, Cte, Expr, ExprKind, Field, Frame, FrameBound, FrameExclude, FrameOffset, FrameUnit, JoinKind, Rel,
    RelKind, SetOp, SortKey, Subquery, SubqueryKind, WindowCall, WindowFunc,
};
use crate::plan::{PlanCx, plan};
use crate::types::Type;

/// Memory for a sort or hash: all is spilled, some is, nothing is.
const MEMORY: [usize; 3] = [1, 2000, 1 << 30];

type Pair = (Option<i32>, Option<i32>);

fn cx(work_mem_bytes: usize) -> ExecCx {
    let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
    let database = Database::open(store.get_by_name("test").unwrap(), Cache::new(1 << 20), Options::default()).unwrap();
    let from = storage_cx();
    let session = SessionCx {
        time_zone: from.time_zone.clone(),
        date_order: from.date_order,
        bytea_hex: true,
        transaction_micros: 0,
        statement_micros: 0,
        user: String::new(),
        database: String::new(),
        search_path: Vec::new(),
        backend_pid: 0,
        catalog: from.catalog.clone(),
        services: from.services.clone(),
        cancel: Arc::default(),
        work_mem_bytes,
        memory: Arc::default(),
        random: parking_lot::Mutex::new(0),
    };
    let view = database.snapshot().into();
    ExecCx::new(Arc::new(session), database, view, Vec::new(), None)
}

fn run(rel: &Rel, work_mem_bytes: usize) -> Result<Vec<Vec<Option<i64>>>> {
    let cx = Arc::new(cx(work_mem_bytes));
    let plan = Arc::new(plan(rel.clone(), &PlanCx::new(&cx.session))?);
    let rows = open(&plan, cx)?.collect()?;
    Ok(rows.iter().map(|row| row.iter().map(value::integer).collect()).collect())
}

/// Runs with each amount of memory; the rows, sorted, must be the expected ones.
fn check(rel: &Rel, mut expected: Vec<Vec<Option<i64>>>) -> Result<(), TestCaseError> {
    expected.sort();
    for memory in MEMORY {
        let mut rows = run(rel, memory).map_err(|e| TestCaseError::fail(e.to_string()))?;
        rows.sort();
        prop_assert_eq!(&rows, &expected, "with {} bytes: {:?}", memory, explained(rel));
    }
    Ok(())
}

/// The plan, for failures.
fn explained(rel: &Rel) -> Vec<String> {
    let session = cx(1 << 20).session;
    plan(rel.clone(), &PlanCx::new(&session))
        .map_or_else(|e| vec![e.to_string()], |p| crate::plan::explain(&p, &session, Default::default(), None, None))
}

fn fields(n: usize) -> Arc<[Field]> {
    (0..n)
        .map(|i| Field { name: Arc::from(format!("c{i}")), ty: Type::INT4.plain(), table_oid: 0, attnum: 0 })
        .collect()
}

fn constant(v: Option<i32>) -> Expr {
    Expr::constant(v.map_or(Datum::Null, Datum::Int4), Type::INT4)
}

fn values(rows: &[Pair]) -> Rel {
    Rel {
        kind: RelKind::Values(rows.iter().map(|(a, b)| vec![constant(*a), constant(*b)]).collect()),
        schema: fields(2),
    }
}

fn column(i: usize) -> Expr {
    Expr::column(i, Type::INT4.plain())
}

fn outer(index: usize) -> Expr {
    Expr { kind: ExprKind::Outer { depth: 1, index }, ty: Type::INT4.plain() }
}

fn operator(name: &str) -> &'static ScalarFn {
    registry().operators[name].iter().find(|o| o.left == Type::INT4 && o.right == Type::INT4).unwrap().func
}

fn call(name: &str, left: Expr, right: Expr) -> Expr {
    Expr { kind: ExprKind::Call { func: operator(name), args: vec![left, right] }, ty: Type::BOOL.plain() }
}

fn arith(name: &str, left: Expr, right: Expr) -> Expr {
    Expr { kind: ExprKind::Call { func: operator(name), args: vec![left, right] }, ty: Type::INT4.plain() }
}

fn and(args: Vec<Expr>) -> Expr {
    Expr { kind: ExprKind::And(args), ty: Type::BOOL.plain() }
}

fn not(e: Expr) -> Expr {
    Expr { kind: ExprKind::Not(Box::new(e)), ty: Type::BOOL.plain() }
}

fn filter(input: Rel, predicate: Expr) -> Rel {
    let schema = input.schema.clone();
    Rel { kind: RelKind::Filter { input: Box::new(input), predicate }, schema }
}

fn project(input: Rel, exprs: Vec<Expr>) -> Rel {
    let schema = fields(exprs.len());
    Rel { kind: RelKind::Project { input: Box::new(input), exprs }, schema }
}

fn join(kind: JoinKind, left: Rel, right: Rel, on: Expr) -> Rel {
    let schema = fields(left.schema.len() + right.schema.len());
    Rel {
        kind: RelKind::Join { kind, left: Box::new(left), right: Box::new(right), on: Some(on), lateral: false },
        schema,
    }
}

fn aggregate(name: &str, arg: Type) -> &'static AggregateFn {
    registry().aggregates[name].iter().find(|a| a.args == [arg]).unwrap()
}

fn agg(name: &str, arg: Expr) -> AggCall {
    let func = if name == "count" {
        registry().aggregates["count"].iter().find(|a| a.args.len() == 1).unwrap()
    } else {
        aggregate(name, Type::INT4)
    };
    AggCall { func, args: vec![arg], distinct: false, order_by: Vec::new(), filter: None, ty: func.ret.plain() }
}

fn wide(v: Option<i32>) -> Option<i64> {
    v.map(i64::from)
}

fn row(values: &[Option<i32>]) -> Vec<Option<i64>> {
    values.iter().copied().map(wide).collect()
}

fn small() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![1 => Just(None), 6 => (0..6i32).prop_map(Some)]
}

fn pairs(max: usize) -> impl Strategy<Value = Vec<Pair>> {
    vec((small(), small()), 0..max)
}

/// Nested loops written down as SQL defines joins.
fn brute_join(
    kind: JoinKind,
    left: &[Pair],
    right: &[Pair],
    on: impl Fn(&Pair, &Pair) -> bool,
) -> Vec<Vec<Option<i64>>> {
    let (mut rows, mut partnered) = (Vec::new(), vec![false; right.len()]);
    for l in left {
        let mut found = false;
        for (i, r) in right.iter().enumerate() {
            if on(l, r) {
                rows.push(row(&[l.0, l.1, r.0, r.1]));
                (found, partnered[i]) = (true, true);
            }
        }
        if !found && matches!(kind, JoinKind::Left | JoinKind::Full) {
            rows.push(row(&[l.0, l.1, None, None]));
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        rows.extend(right.iter().zip(&partnered).filter(|(_, p)| !**p).map(|(r, _)| row(&[None, None, r.0, r.1])));
    }
    rows
}

fn equal(a: Option<i32>, b: Option<i32>) -> Option<bool> {
    Some(a? == b?)
}

/// `test IN values`.
fn is_in(test: Option<i32>, values: impl Iterator<Item = Option<i32>>) -> Option<bool> {
    let mut found = Some(false);
    for v in values {
        match equal(test, v) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

fn subquery(kind: SubqueryKind, plan: Rel, correlated: bool) -> Expr {
    Expr { kind: ExprKind::Subquery(Box::new(Subquery { kind, plan, correlated })), ty: Type::BOOL.plain() }
}

fn window_sum(frame: Frame, desc: bool, nulls_first: bool) -> WindowCall {
    let call = agg("sum", column(1));
    let ty = call.ty;
    WindowCall {
        func: WindowFunc::Aggregate(call),
        args: Vec::new(),
        partition_by: Vec::new(),
        order_by: vec![SortKey { expr: column(0), desc, nulls_first }],
        frame,
        ty,
    }
}

fn bound(kind: u8, n: i32) -> FrameBound {
    let offset = || {
        Box::new(FrameOffset {
            value: constant(Some(n)),
            minus: Some(arith("-", column(0), column(1))),
            plus: Some(arith("+", column(0), column(1))),
        })
    };
    match kind {
        0 => FrameBound::UnboundedPreceding,
        1 => FrameBound::Preceding(offset()),
        2 => FrameBound::CurrentRow,
        3 => FrameBound::Following(offset()),
        _ => FrameBound::UnboundedFollowing,
    }
}

/// Whether a row is in the frame of another, straight from the definition. Rows are (key, value) sorted.
#[allow(clippy::too_many_arguments)] // the frame's definition has that many parts
fn in_frame(
    rows: &[Pair],
    at: usize,
    other: usize,
    unit: FrameUnit,
    start: (u8, i32),
    end: (u8, i32),
    exclude: FrameExclude,
    desc: bool,
) -> bool {
    let groups: Vec<usize> = (0..rows.len())
        .scan(0, |g, i| {
            if i > 0 && rows[i].0 != rows[i - 1].0 {
                *g += 1;
            }
            Some(*g)
        })
        .collect();
    let distance = |kind: u8, n: i32| if kind == 1 { -n } else { n };
    let after_start = match (unit, start) {
        (_, (0, _)) => true,
        (_, (4, _)) => false,
        (FrameUnit::Rows, (2, _)) => other >= at,
        (FrameUnit::Rows, (k, n)) => other as i64 >= at as i64 + i64::from(distance(k, n)),
        (_, (2, _)) => groups[other] >= groups[at],
        (FrameUnit::Groups, (k, n)) => groups[other] as i64 >= groups[at] as i64 + i64::from(distance(k, n)),
        (FrameUnit::Range, (k, n)) => match (rows[at].0, rows[other].0) {
            (None, _) => groups[other] >= groups[at],
            // NULLs stand behind all keys or before them; only an unbounded end reaches them from a key.
            (Some(_), None) => other > at,
            (Some(a), Some(o)) => {
                if desc {
                    -o >= -a + distance(k, n)
                } else {
                    o >= a + distance(k, n)
                }
            }
        },
    };
    let before_end = match (unit, end) {
        (_, (4, _)) => true,
        (_, (0, _)) => false,
        (FrameUnit::Rows, (2, _)) => other <= at,
        (FrameUnit::Rows, (k, n)) => other as i64 <= at as i64 + i64::from(distance(k, n)),
        (_, (2, _)) => groups[other] <= groups[at],
        (FrameUnit::Groups, (k, n)) => groups[other] as i64 <= groups[at] as i64 + i64::from(distance(k, n)),
        (FrameUnit::Range, (k, n)) => match (rows[at].0, rows[other].0) {
            (None, _) => groups[other] <= groups[at],
            (Some(_), None) => other < at,
            (Some(a), Some(o)) => {
                if desc {
                    -o <= -a + distance(k, n)
                } else {
                    o <= a + distance(k, n)
                }
            }
        },
    };
    let excluded = match exclude {
        FrameExclude::NoOthers => false,
        FrameExclude::CurrentRow => other == at,
        FrameExclude::Group => groups[other] == groups[at],
        FrameExclude::Ties => groups[other] == groups[at] && other != at,
    };
    after_start && before_end && !excluded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every kind of join, by equality alone and with a further condition, gives what nested loops give; NULL keys find nobody.
    #[test]
    fn joins_are_nested_loops(left in pairs(40), right in pairs(40), also in any::<bool>()) {
        for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full] {
            let mut on = vec![call("=", column(0), column(2))];
            if also {
                on.push(call("<", column(1), column(3)));
            }
            let rel = join(kind, values(&left), values(&right), and(on));
            check(&rel, brute_join(kind, &left, &right, |l, r| equal(l.0, r.0) == Some(true) && (!also || matches!((l.1, r.1), (Some(a), Some(b)) if a < b))))?;
        }
    }

    /// Joins without an equality.
    #[test]
    fn inequality_joins_are_nested_loops(left in pairs(25), right in pairs(25)) {
        for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full] {
            let rel = join(kind, values(&left), values(&right), call("<", column(0), column(2)));
            check(&rel, brute_join(kind, &left, &right, |l, r| matches!((l.0, r.0), (Some(a), Some(b)) if a < b)))?;
        }
    }

    /// A condition above an outer join gives the same whether the join is weakened by it or not.
    #[test]
    fn conditions_above_outer_joins(left in pairs(25), right in pairs(25), n in 0..6i32) {
        for kind in [JoinKind::Left, JoinKind::Right, JoinKind::Full] {
            for (at, null_too) in [(0, false), (1, true), (2, false), (3, true)] {
                let joined = join(kind, values(&left), values(&right), call("=", column(0), column(2)));
                let is_null = Expr { kind: ExprKind::IsNull { input: Box::new(column(at)), negated: false }, ty: Type::BOOL.plain() };
                let less = call("<", column(at), constant(Some(n)));
                let predicate = if null_too { Expr { kind: ExprKind::Or(vec![less, is_null]), ty: Type::BOOL.plain() } } else { less };
                let expected = brute_join(kind, &left, &right, |l, r| equal(l.0, r.0) == Some(true))
                    .into_iter()
                    .filter(|row| row[at].map_or(null_too, |v| v < i64::from(n)))
                    .collect();
                check(&filter(joined, predicate), expected)?;
            }
        }
    }

    /// EXISTS, NOT EXISTS, IN and NOT IN, correlated and not, with NULLs on both sides.
    #[test]
    fn subqueries_follow_three_valued_logic(left in pairs(25), right in pairs(25)) {
        let correlated = || filter(values(&right), call("=", column(0), outer(0)));
        let first = |rel: Rel| project(rel, vec![column(1)]);
        let partners = |l: &Pair| right.iter().filter(|r| equal(l.0, r.0) == Some(true)).map(|r| r.1).collect::<Vec<_>>();
        let quantified = |test: Expr| SubqueryKind::Quantified { tests: vec![test], funcs: vec![operator("=")], all: false };
        let keep = |f: &dyn Fn(&Pair) -> bool| left.iter().filter(|l| f(l)).map(|l| row(&[l.0, l.1])).collect::<Vec<_>>();

        let exists = subquery(SubqueryKind::Exists, correlated(), true);
        check(&filter(values(&left), exists.clone()), keep(&|l| !partners(l).is_empty()))?;
        check(&filter(values(&left), not(exists)), keep(&|l| partners(l).is_empty()))?;

        let plain_in = subquery(quantified(column(1)), first(values(&right)), false);
        check(&filter(values(&left), plain_in.clone()), keep(&|l| is_in(l.1, right.iter().map(|r| r.1)) == Some(true)))?;
        check(&filter(values(&left), not(plain_in)), keep(&|l| is_in(l.1, right.iter().map(|r| r.1)) == Some(false)))?;

        let correlated_in = subquery(quantified(column(1)), first(correlated()), true);
        check(&filter(values(&left), correlated_in.clone()), keep(&|l| is_in(l.1, partners(l).into_iter()) == Some(true)))?;
        check(&filter(values(&left), not(correlated_in)), keep(&|l| is_in(l.1, partners(l).into_iter()) == Some(false)))?;

        // Two columns: (a, b) IN (select a, b).
        let both = subquery(SubqueryKind::Quantified { tests: vec![column(0), column(1)], funcs: vec![operator("="); 2], all: false }, values(&right), false);
        let pair_in = |l: &Pair| {
            let mut found = Some(false);
            for r in &right {
                match (equal(l.0, r.0), equal(l.1, r.1)) {
                    (Some(true), Some(true)) => return Some(true),
                    (Some(false), _) | (_, Some(false)) => {}
                    _ => found = None,
                }
            }
            found
        };
        check(&filter(values(&left), both.clone()), keep(&|l| pair_in(l) == Some(true)))?;
        check(&filter(values(&left), not(both)), keep(&|l| pair_in(l) == Some(false)))?;
    }

    /// A correlated scalar subquery as a column.
    #[test]
    fn scalar_subqueries_are_run_for_each_row(left in pairs(20), right in pairs(20)) {
        let count = agg("count", column(1));
        let inner = filter(values(&right), call("=", column(0), outer(0)));
        let counted = Rel {
            kind: RelKind::Aggregate { input: Box::new(inner), keys: vec![], sets: vec![vec![]], aggs: vec![count], grouping: vec![] },
            schema: fields(1),
        };
        let sub = Expr { kind: ExprKind::Subquery(Box::new(Subquery { kind: SubqueryKind::Scalar, plan: counted, correlated: true })), ty: Type::INT8.plain() };
        let expected = left.iter().map(|l| {
            let n = right.iter().filter(|r| equal(l.0, r.0) == Some(true) && r.1.is_some()).count();
            vec![wide(l.0), Some(n as i64)]
        }).collect();
        check(&project(values(&left), vec![column(0), sub]), expected)?;
    }

    /// A lateral join is its right side run for each left row.
    #[test]
    fn lateral_joins_see_the_left_row(left in pairs(15), right in pairs(15)) {
        for kind in [JoinKind::Inner, JoinKind::Left] {
            let inner = filter(values(&right), call("<", column(0), outer(1)));
            let rel = Rel {
                kind: RelKind::Join { kind, left: Box::new(values(&left)), right: Box::new(inner), on: Some(call("<>", column(0), column(3))), lateral: true },
                schema: fields(4),
            };
            check(&rel, brute_join(kind, &left, &right, |l, r| matches!((r.0, l.1), (Some(a), Some(b)) if a < b) && matches!((l.0, r.1), (Some(a), Some(b)) if a != b)))?;
        }
    }

    /// Sorting, in memory or not, whole or only the first rows, is stable.
    #[test]
    fn sorts_are_stable(rows in vec((small(), small()), 0..300), desc in any::<bool>(), nulls_first in any::<bool>(), offset in 0..10i64, limit in 0..40i64) {
        let numbered: Vec<Pair> = rows.iter().enumerate().map(|(i, (a, _))| (*a, Some(i as i32))).collect();
        let sorted = Rel { kind: RelKind::Sort { input: Box::new(values(&numbered)), keys: vec![SortKey { expr: column(0), desc, nulls_first }] }, schema: fields(2) };
        let mut expected = numbered.clone();
        expected.sort_by(|a, b| match (a.0, b.0) {
            (Some(a), Some(b)) => if desc { b.cmp(&a) } else { a.cmp(&b) },
            (None, None) => Ordering::Equal,
            (a, _) => if a.is_none() == nulls_first { Ordering::Less } else { Ordering::Greater },
        });
        let expected: Vec<_> = expected.iter().map(|r| row(&[r.0, r.1])).collect();
        let number = |n: i64| Some(Expr::constant(Datum::Int8(n), Type::INT8));
        let limited = Rel { kind: RelKind::Limit { input: Box::new(sorted.clone()), limit: number(limit), offset: number(offset), with_ties: None }, schema: fields(2) };
        let ties = vec![SortKey { expr: column(0), desc, nulls_first }];
        let with_ties = Rel { kind: RelKind::Limit { input: Box::new(sorted.clone()), limit: number(limit), offset: None, with_ties: Some(ties) }, schema: fields(2) };
        let part: Vec<_> = expected.iter().skip(offset as usize).take(limit as usize).cloned().collect();
        let last = expected.get((limit as usize).wrapping_sub(1)).map(|r| r[0]);
        let peers: Vec<_> = expected.iter().enumerate().filter(|(i, r)| (*i as i64) < limit || (limit > 0 && Some(r[0]) == last)).map(|(_, r)| r.clone()).collect();
        for memory in MEMORY {
            prop_assert_eq!(&run(&sorted, memory).unwrap(), &expected);
            prop_assert_eq!(&run(&limited, memory).unwrap(), &part);
            prop_assert_eq!(&run(&with_ties, memory).unwrap(), &peers);
        }
    }

    /// Grouping with plain, filtered and distinct aggregates.
    #[test]
    fn groups_are_gathered(rows in vec((prop_oneof![Just(None), (0..60i32).prop_map(Some)], small()), 0..250)) {
        let mut distinct = agg("count", column(1));
        distinct.distinct = true;
        let mut filtered = agg("sum", column(1));
        filtered.filter = Some(call(">", column(1), constant(Some(2))));
        let rel = Rel {
            kind: RelKind::Aggregate {
                input: Box::new(values(&rows)),
                keys: vec![column(0)],
                sets: vec![vec![0]],
                aggs: vec![agg("count", column(1)), agg("sum", column(1)), agg("max", column(1)), distinct, filtered],
                grouping: vec![],
            },
            schema: fields(6),
        };
        let mut groups: BTreeMap<Option<i32>, Vec<i32>> = BTreeMap::new();
        for (key, value) in &rows {
            groups.entry(*key).or_default().extend(value);
        }
        let sum = |v: &[i32]| (!v.is_empty()).then(|| v.iter().map(|n| i64::from(*n)).sum::<i64>());
        let expected = groups.iter().map(|(key, v)| {
            let large: Vec<i32> = v.iter().copied().filter(|n| *n > 2).collect();
            let different: BTreeSet<_> = v.iter().collect();
            vec![wide(*key), Some(v.len() as i64), sum(v), v.iter().max().map(|n| i64::from(*n)), Some(different.len() as i64), sum(&large)]
        }).collect();
        check(&rel, expected)?;
    }

    /// GROUPING SETS ((0,1), (0), ()) with GROUPING(0, 1).
    #[test]
    fn grouping_sets_are_separate_groupings(rows in pairs(120)) {
        let sets = vec![vec![0, 1], vec![0], vec![]];
        let rel = Rel {
            kind: RelKind::Aggregate { input: Box::new(values(&rows)), keys: vec![column(0), column(1)], sets: sets.clone(), aggs: vec![agg("count", constant(Some(1)))], grouping: vec![vec![0, 1]] },
            schema: fields(4),
        };
        let mut expected = Vec::new();
        for (set, bits) in sets.iter().zip([0, 1, 3]) {
            let mut groups: BTreeMap<(Option<i32>, Option<i32>), i64> = BTreeMap::new();
            if set.is_empty() {
                groups.insert((None, None), 0);
            }
            for (a, b) in &rows {
                let key = (a.filter(|_| set.contains(&0)), b.filter(|_| set.contains(&1)));
                *groups.entry(key).or_default() += 1;
            }
            expected.extend(groups.iter().map(|((a, b), n)| vec![wide(*a), wide(*b), Some(*n), Some(bits)]));
        }
        check(&rel, expected)?;
    }

    /// Set operations are those of bags and sets.
    #[test]
    fn set_operations_count_copies(left in pairs(60), right in pairs(60)) {
        let count = |rows: &[Pair]| rows.iter().fold(BTreeMap::<Pair, usize>::new(), |mut m, r| {
            *m.entry(*r).or_default() += 1;
            m
        });
        let (l, r) = (count(&left), count(&right));
        for op in [SetOp::Union, SetOp::Intersect, SetOp::Except] {
            for all in [true, false] {
                let rel = Rel { kind: RelKind::SetOp { op, all, left: Box::new(values(&left)), right: Box::new(values(&right)) }, schema: fields(2) };
                let mut expected = Vec::new();
                for key in l.keys().chain(r.keys()).collect::<BTreeSet<_>>() {
                    let (a, b) = (l.get(key).copied().unwrap_or(0), r.get(key).copied().unwrap_or(0));
                    let copies = match (op, all) {
                        (SetOp::Union, true) => a + b,
                        (SetOp::Union, false) => 1,
                        (SetOp::Intersect, true) => a.min(b),
                        (SetOp::Intersect, false) => usize::from(a > 0 && b > 0),
                        (SetOp::Except, true) => a.saturating_sub(b),
                        (SetOp::Except, false) => usize::from(a > 0 && b == 0),
                    };
                    expected.extend(std::iter::repeat_n(row(&[key.0, key.1]), copies));
                }
                check(&rel, expected)?;
            }
        }
    }

    /// A window aggregate sums the rows that the frame's definition says.
    #[test]
    fn frames_hold_what_their_definition_says(
        mut rows in pairs(18), unit in 0..3u8, start in (0..4u8, 0..3i32), end in (1..5u8, 0..3i32), exclude in 0..4u8, desc in any::<bool>(), nulls_first in any::<bool>(),
    ) {
        prop_assume!(start.0 <= end.0);
        let unit = [FrameUnit::Rows, FrameUnit::Range, FrameUnit::Groups][unit as usize];
        let exclude = [FrameExclude::NoOthers, FrameExclude::CurrentRow, FrameExclude::Group, FrameExclude::Ties][exclude as usize];
        let frame = Frame { unit, start: bound(start.0, start.1), end: bound(end.0, end.1), exclude };
        rows.sort_by(|a, b| match (a.0, b.0) {
            (Some(a), Some(b)) => if desc { b.cmp(&a) } else { a.cmp(&b) },
            (None, None) => Ordering::Equal,
            (a, _) => if a.is_none() == nulls_first { Ordering::Less } else { Ordering::Greater },
        });
        let rel = Rel { kind: RelKind::Window { input: Box::new(values(&rows)), calls: vec![window_sum(frame, desc, nulls_first)] }, schema: fields(3) };
        let expected = (0..rows.len()).map(|at| {
            let inside: Vec<i64> = (0..rows.len()).filter(|o| in_frame(&rows, at, *o, unit, start, end, exclude, desc)).filter_map(|o| wide(rows[o].1)).collect();
            vec![wide(rows[at].0), wide(rows[at].1), (!inside.is_empty()).then(|| inside.iter().sum())]
        }).collect();
        check(&rel, expected)?;
    }

    /// UNION in a recursion stops when nothing new comes; its rows are the nodes that can be reached.
    #[test]
    fn recursion_reaches_what_can_be_reached(edges in vec((0..12i32, 0..12i32), 0..40)) {
        let edge_rows: Vec<Pair> = edges.iter().map(|(a, b)| (Some(*a), Some(*b))).collect();
        let start = project(values(&[(Some(0), None)]), vec![column(0)]);
        let scan = Rel { kind: RelKind::CteScan { id: 7 }, schema: fields(1) };
        let step = project(join(JoinKind::Inner, scan.clone(), values(&edge_rows), call("=", column(0), column(1))), vec![column(2)]);
        let cte = Cte { id: 7, name: Arc::from("r"), definition: start, recursive: Some((step, false)), materialized: None };
        let rel = Rel { kind: RelKind::With { ctes: vec![cte], body: Box::new(scan) }, schema: fields(1) };
        let mut reached = BTreeSet::from([0]);
        loop {
            let next: BTreeSet<i32> = edges.iter().filter(|(a, _)| reached.contains(a)).map(|(_, b)| *b).collect();
            let before = reached.len();
            reached.extend(next);
            if reached.len() == before {
                break;
            }
        }
        check(&rel, reached.into_iter().map(|n| row(&[Some(n)])).collect())?;
    }
}

#[test]
fn a_long_recursion_ends_with_its_reader() {
    let start = project(values(&[(Some(1), None)]), vec![column(0)]);
    let scan = Rel { kind: RelKind::CteScan { id: 1 }, schema: fields(1) };
    let step = project(scan.clone(), vec![arith("+", column(0), constant(Some(1)))]);
    let cte = Cte { id: 1, name: Arc::from("r"), definition: start, recursive: Some((step, true)), materialized: None };
    let with = Rel { kind: RelKind::With { ctes: vec![cte], body: Box::new(scan) }, schema: fields(1) };
    let limit = Some(Expr::constant(Datum::Int8(5), Type::INT8));
    let rel =
        Rel { kind: RelKind::Limit { input: Box::new(with), limit, offset: None, with_ties: None }, schema: fields(1) };
    assert_eq!(run(&rel, 1 << 20).unwrap(), (1..=5).map(|n| row(&[Some(n)])).collect::<Vec<_>>());
}

#[test]
fn a_scalar_subquery_of_two_rows_fails() {
    let sub = Subquery {
        kind: SubqueryKind::Scalar,
        plan: project(values(&[(Some(1), None), (Some(2), None)]), vec![column(0)]),
        correlated: false,
    };
    let e = Expr { kind: ExprKind::Subquery(Box::new(sub)), ty: Type::INT4.plain() };
    let rel = project(values(&[(None, None)]), vec![e]);
    assert_eq!(run(&rel, 1 << 20).unwrap_err().state(), "21000");
}

#[test]
fn errors_of_branches_not_taken_stay_away() {
    let division = arith("/", constant(Some(1)), constant(Some(0)));
    let whens = vec![(call("=", column(0), constant(Some(9))), division.clone())];
    let case = Expr {
        kind: ExprKind::Case { operand: None, whens, otherwise: Some(Box::new(constant(Some(7)))) },
        ty: Type::INT4.plain(),
    };
    assert_eq!(run(&project(values(&[(Some(1), None)]), vec![case.clone()]), 1 << 20).unwrap(), vec![row(&[Some(7)])]);
    assert_eq!(run(&project(values(&[(Some(9), None)]), vec![case]), 1 << 20).unwrap_err().state(), "22012");
    assert_eq!(run(&project(values(&[]), vec![division]), 1 << 20).unwrap(), Vec::<Vec<Option<i64>>>::new());
}

#[test]
fn negative_limits_are_errors() {
    for (limit, offset, state) in [(Some(-1), None, "2201W"), (None, Some(-1), "2201X")] {
        let number = |n: Option<i64>| n.map(|n| Expr::constant(Datum::Int8(n), Type::INT8));
        let rel = Rel {
            kind: RelKind::Limit {
                input: Box::new(values(&[(None, None)])),
                limit: number(limit),
                offset: number(offset),
                with_ties: None,
            },
            schema: fields(2),
        };
        assert_eq!(run(&rel, 1 << 20).unwrap_err().state(), state);
    }
}

#[test]
fn a_cancel_stops_a_join_without_rows() {
    let cx = Arc::new(cx(1 << 20));
    let many: Vec<Pair> = (0..3000).map(|i| (Some(i), Some(i))).collect();
    let never = call(">", arith("+", column(0), column(2)), constant(Some(100_000)));
    let pairs = join(JoinKind::Inner, values(&many), values(&many), never.clone());
    let plan = Arc::new(plan(pairs, &PlanCx::new(&cx.session)).unwrap());
    let mut cursor = open(&plan, cx.clone()).unwrap();
    let cancel = cx.session.cancel.clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        cancel.raise(crate::SqlError::new(
            crate::error::state::QUERY_CANCELED,
            "canceling statement due to user request",
        ));
    });
    // Nine million pairs: without the cancel this would end with no row; with it, much sooner, with an error.
    assert_eq!(cursor.next_batch().unwrap_err().state(), "57014");
    waker.join().unwrap();
}

#[test]
fn a_plan_runs_again_with_other_parameters() {
    let param = Expr { kind: ExprKind::Param(0), ty: Type::INT4.plain() };
    let rel = filter(values(&[(Some(1), Some(10)), (Some(2), Some(20))]), call("=", column(0), param));
    let first = cx(1 << 20);
    let physical = Arc::new(plan(rel, &PlanCx::new(&first.session)).unwrap());
    for (n, expected) in [(1, Some(10)), (2, Some(20)), (3, None)] {
        let mut cx = first.clone();
        (cx.params, cx.shared) = (vec![Datum::Int4(n)], Arc::default());
        let rows = open(&physical, Arc::new(cx)).unwrap().collect().unwrap();
        assert_eq!(rows.first().map(|r| value::integer(&r[1]).unwrap()), expected);
    }
}

#[test]
fn many_rows_of_constants_are_kept_as_values() {
    let rel = values(&(0..100).map(|i| (Some(i), None)).collect::<Vec<_>>());
    let plan = plan(rel, &PlanCx::new(&cx(1 << 20).session)).unwrap();
    let crate::plan::node::NodeKind::Constants(values) = &plan.root.kind else { panic!("expressions") };
    assert_eq!(values.len(), 200);
    let rows = open(&Arc::new(plan), Arc::new(cx(1 << 20))).unwrap().collect().unwrap();
    assert!(rows.len() == 100 && value::integer(&rows[99][0]) == Some(99) && rows[99][1].is_null());
}
