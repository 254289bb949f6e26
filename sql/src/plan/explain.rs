//! EXPLAIN: a plan as lines in PostgreSQL's shape.

use std::time::Duration;

use super::expr::{any, handle};
use super::node::{
    Access, AggNode, Equal, JoinType, Node, NodeKind, Physical, Prog, ScanNode, SetItem, WindowFuncNode,
};
use super::print::{Printer, identifier};
use crate::exec::{Metrics, SubKind};
use crate::functions::SessionCx;
use crate::ir::{AggCall, DmlKind, Expr, ExprKind, SetOp, SortKey};
use crate::wait::Fetched;

/// Options of EXPLAIN.
#[derive(Clone, Copy, Debug)]
pub struct ExplainOptions {
    /// Run it and show what was measured.
    pub analyze: bool,
    /// Show the columns of each node.
    pub verbose: bool,
    /// Show estimates.
    pub costs: bool,
    /// Show measured times, with `analyze`.
    pub timing: bool,
    /// Show times of planning and execution at the end.
    pub summary: bool,
    /// Show what was fetched from peers, with `analyze`. There are no buffers to be counted.
    pub buffers: bool,
}

/// What planning cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planning {
    /// How long it took.
    pub took: Duration,
    /// What it fetched from peers: definitions, mostly.
    pub fetched: Fetched,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        ExplainOptions { analyze: false, verbose: false, costs: true, timing: true, summary: false, buffers: false }
    }
}

/// The lines of EXPLAIN. `measured` are the measurements of a finished run and its time; `planning` is what planning cost.
pub fn explain(
    plan: &Physical,
    session: &SessionCx,
    options: ExplainOptions,
    planning: Option<Planning>,
    measured: Option<(&Metrics, Duration)>,
) -> Vec<String> {
    let printer = Printer {
        names: &plan.names,
        session,
        qualify: options.verbose || scans(&plan.root) > 1 || !plan.subplans.is_empty(),
    };
    let mut out = Explain { plan, options, printer, metrics: measured.map(|(m, _)| m), lines: Vec::new() };
    out.node(&plan.root, 0, "");
    let milliseconds = |d: Duration| d.as_secs_f64() * 1000.0;
    if let Some(planning) = planning.filter(|p| options.buffers && p.fetched.is_some()) {
        out.lines.push("Planning:".to_owned());
        out.lines.push(format!("  Fetched: {}", planning.fetched));
    }
    if options.summary || options.analyze {
        if let Some(planning) = planning {
            out.lines.push(format!("Planning Time: {:.3} ms", milliseconds(planning.took)));
        }
        if let Some((_, total)) = measured {
            out.lines.push(format!("Execution Time: {:.3} ms", milliseconds(total)));
        }
    }
    out.lines
}

fn scans(node: &Node) -> usize {
    let own = usize::from(matches!(
        node.kind,
        NodeKind::Scan(_)
            | NodeKind::Virtual(_)
            | NodeKind::Function(_)
            | NodeKind::CteScan { .. }
            | NodeKind::WorkScan { .. }
    ));
    own + node.children().iter().map(|n| scans(n)).sum::<usize>()
}

struct Explain<'a> {
    plan: &'a Physical,
    options: ExplainOptions,
    printer: Printer<'a>,
    metrics: Option<&'a Metrics>,
    lines: Vec<String>,
}

impl Explain<'_> {
    /// A node at a depth; `label` stands in a line of its own before it.
    ///
    /// Nodes that only choose or compute columns or drop rows are shown as part of the node below them, as PostgreSQL does them there.
    fn node(&mut self, top: &Node, depth: usize, label: &str) {
        let mut node = top;
        let (mut filters, mut ctes, mut subplans, mut output) = (Vec::new(), Vec::new(), Vec::new(), None);
        loop {
            match &node.kind {
                NodeKind::Pick { input, .. } => node = input,
                NodeKind::Project { input, exprs } => {
                    subplans.extend(self.subplans_of(node));
                    output = output.or(Some(exprs));
                    node = input;
                }
                NodeKind::Filter { input, conditions } => {
                    subplans.extend(self.subplans_of(node));
                    filters.extend(conditions.iter().map(|c| &c.expr));
                    node = input;
                }
                NodeKind::With(with) => {
                    ctes.extend(&with.ctes);
                    node = &with.body;
                }
                _ => break,
            }
        }
        subplans.extend(self.subplans_of(node));
        let mut at = depth;
        if !label.is_empty() {
            self.lines.push(format!("{}{label}", " ".repeat(at)));
            at += 2;
        }
        let arrow = if at > 0 { "->  " } else { "" };
        self.lines.push(format!("{}{arrow}{}{}", " ".repeat(at), self.title(node), self.numbers(top)));
        let below = at + arrow.len() + 2;
        if let (true, Some(exprs)) = (self.options.verbose, output) {
            self.line(
                below,
                format!("Output: {}", exprs.iter().map(|e| self.printer.expr(&e.expr)).collect::<Vec<_>>().join(", ")),
            );
        }
        self.details(node, below, output.is_some());
        if !filters.is_empty() {
            self.line(below, format!("Filter: {}", self.printer.all(filters)));
            self.removed(top, node, below);
        }
        if let Some(metrics) = self.metrics.filter(|_| self.options.buffers) {
            let fetched = metrics.node(top.id).fetched;
            if fetched.is_some() {
                self.line(below, format!("Fetched: {fetched}"));
            }
        }
        for cte in ctes {
            if let Some(term) = &cte.recursive {
                self.line(below, format!("CTE {}", cte.name));
                self.line(below + 2, "->  Recursive Union".to_owned());
                self.node(&cte.definition, below + 8, "");
                self.node(term, below + 8, "");
            } else {
                self.node(&cte.definition, below, &format!("CTE {}", cte.name));
            }
        }
        for number in subplans {
            if let Some((_, sub)) = self.plan.subplans.iter().find(|(n, _)| *n == number) {
                let kind = if sub.is_uncorrelated() && !matches!(sub.kind, SubKind::Quantified(_)) {
                    "InitPlan"
                } else {
                    "SubPlan"
                };
                let (node, label) = (sub.node.clone(), format!("{kind} {}", number + 1));
                self.node(&node, below, &label);
            }
        }
        match &node.kind {
            NodeKind::HashJoin(n) => {
                let (probe, build) = if n.build_left { (&n.right, &n.left) } else { (&n.left, &n.right) };
                self.node(probe, below, "");
                self.line(below, format!("->  Hash{}", self.numbers(build)));
                self.node(build, below + 6, "");
            }
            _ => node.children().into_iter().for_each(|child| self.node(child, below, "")),
        }
    }

    /// How many rows a filter above a node dropped.
    fn removed(&mut self, filter: &Node, below: &Node, depth: usize) {
        if let Some(metrics) = self.metrics {
            let (kept, given) = (metrics.node(filter.id), metrics.node(below.id));
            if given.rows > kept.rows {
                let each = (given.rows - kept.rows) as f64 / kept.loops.max(1) as f64;
                self.line(depth, format!("Rows Removed by Filter: {:.0}", each.round()));
            }
        }
    }

    fn title(&self, node: &Node) -> String {
        match &node.kind {
            NodeKind::Values(rows) if rows.len() == 1 => "Result".to_owned(),
            NodeKind::Values(rows) if rows.is_empty() => "Result".to_owned(),
            NodeKind::Values(_) | NodeKind::Constants(_) => "Values Scan on \"*VALUES*\"".to_owned(),
            NodeKind::Scan(scan) => scan_title(scan),
            NodeKind::Virtual(v) => format!("Seq Scan on {}", identifier(&v.alias)),
            NodeKind::Function(f) => {
                format!("Function Scan on {}", f.calls.first().map_or("rows", |c| function_name(&c.item)))
            }
            NodeKind::Filter { .. } => "Result".to_owned(),
            NodeKind::Project { .. } | NodeKind::Pick { .. } => "Result".to_owned(),
            NodeKind::ProjectSet { .. } => "ProjectSet".to_owned(),
            NodeKind::NestedLoop(n) => format!("Nested Loop{}", join_suffix(n.join)),
            NodeKind::HashJoin(n) => {
                // The side that is hashed is shown as the right one.
                let shown = match (n.join, n.build_left) {
                    (JoinType::Inner, _) => " Join".to_owned(),
                    (JoinType::Left, true) => join_suffix(JoinType::Right),
                    (JoinType::Right, true) => join_suffix(JoinType::Left),
                    (JoinType::Semi | JoinType::Anti, true) => format!(" Right{}", join_suffix(n.join)),
                    (join, _) => join_suffix(join),
                };
                format!("Hash{shown}")
            }
            NodeKind::Aggregate(n) if n.keys.is_empty() => "Aggregate".to_owned(),
            NodeKind::Aggregate(n) if n.sorted => "GroupAggregate".to_owned(),
            NodeKind::Aggregate(n) if n.sets.len() > 1 => "MixedAggregate".to_owned(),
            NodeKind::Aggregate(_) => "HashAggregate".to_owned(),
            NodeKind::Window(_) => "WindowAgg".to_owned(),
            NodeKind::Sort(_) => "Sort".to_owned(),
            NodeKind::LockRows(_) => "LockRows".to_owned(),
            NodeKind::Limit(_) => "Limit".to_owned(),
            NodeKind::Distinct { .. } => "HashAggregate".to_owned(),
            NodeKind::Unique { .. } => "Unique".to_owned(),
            NodeKind::Append(_) => "Append".to_owned(),
            NodeKind::SetOp(n) => format!(
                "HashSetOp {}{}",
                if n.op == SetOp::Intersect { "Intersect" } else { "Except" },
                if n.all { " All" } else { "" }
            ),
            NodeKind::With(_) => "Result".to_owned(),
            NodeKind::CteScan { name, .. } => format!("CTE Scan on {}", identifier(name)),
            NodeKind::WorkScan { name, .. } => format!("WorkTable Scan on {}", identifier(name)),
            NodeKind::Dml(n) => match &n.dml.kind {
                DmlKind::Insert { table, .. } => format!("Insert on {}", identifier(&table.name)),
                DmlKind::Update { table, .. } => format!("Update on {}", identifier(&table.name)),
                DmlKind::Delete { table, .. } => format!("Delete on {}", identifier(&table.name)),
            },
        }
    }

    fn numbers(&self, node: &Node) -> String {
        let mut text = String::new();
        if self.options.costs {
            let e = &node.estimate;
            text += &format!(
                "  (cost={:.2}..{:.2} rows={:.0} width={})",
                e.startup / 100.0,
                e.total / 100.0,
                e.rows,
                e.row_bytes.min(10_000)
            );
        }
        if let Some(metrics) = self.metrics {
            let m = metrics.node(node.id);
            if m.loops == 0 {
                let space = if text.is_empty() { "  " } else { " " };
                return text + space + "(never executed)";
            }
            let each = |d: Duration| d.as_secs_f64() * 1000.0 / m.loops as f64;
            let rows = (m.rows as f64 / m.loops as f64).round();
            let space = if text.is_empty() { "  " } else { " " };
            text += &if self.options.timing {
                format!(
                    "{space}(actual time={:.3}..{:.3} rows={rows} loops={})",
                    each(m.startup),
                    each(m.total),
                    m.loops
                )
            } else {
                format!("{space}(actual rows={rows} loops={})", m.loops)
            };
        }
        text
    }

    fn line(&mut self, depth: usize, text: String) {
        self.lines.push(format!("{}{text}", " ".repeat(depth)));
    }

    /// What a node does, line by line; `has_output` if its columns were shown already.
    fn details(&mut self, node: &Node, depth: usize, has_output: bool) {
        let p = &self.printer;
        let progs = |progs: &[Prog]| p.all(progs.iter().map(|p| &p.expr));
        let mut lines = Vec::new();
        match &node.kind {
            NodeKind::Scan(scan) => {
                if self.options.verbose && !has_output {
                    let columns: Vec<&str> = scan
                        .columns
                        .iter()
                        .take(scan.keep)
                        .filter_map(|c| scan.table.columns().nth(*c))
                        .map(|c| c.name.as_str())
                        .collect();
                    lines.push(format!("Output: {}", columns.join(", ")));
                }
                if !scan.conditions.is_empty() {
                    let what = if matches!(scan.access, Access::Bee) { "Key Range" } else { "Index Cond" };
                    lines.push(format!("{what}: {}", p.all(&scan.conditions)));
                }
                // Lists are checked again on each row, in case they were too long for ranges; that is not worth a line.
                let is_list = |e: &Expr| {
                    matches!(e.kind, ExprKind::ScalarArray { .. } | ExprKind::Or(_))
                        && scan.conditions.iter().any(|c| p.expr(c) == p.expr(e))
                };
                let left: Vec<&Expr> = scan.residual.iter().filter(|r| !is_list(r)).collect();
                if !left.is_empty() {
                    lines.push(format!("Filter: {}", p.all(left)));
                }
            }
            NodeKind::Virtual(v) if !v.filter.is_empty() => lines.push(format!("Filter: {}", progs(&v.filter))),
            NodeKind::Values(rows) if rows.is_empty() => lines.push("One-Time Filter: false".to_owned()),
            NodeKind::NestedLoop(n) if !n.conditions.is_empty() => {
                lines.push(format!("Join Filter: {}", progs(&n.conditions)))
            }
            NodeKind::HashJoin(n) => {
                let keys: Vec<String> =
                    n.keys.iter().map(|k| format!("({} = {})", p.expr(&k.left.expr), p.expr(&k.right.expr))).collect();
                lines.push(format!(
                    "Hash Cond: {}",
                    if keys.len() == 1 { keys.concat() } else { format!("({})", keys.join(" AND ")) }
                ));
                if !n.conditions.is_empty() {
                    lines.push(format!("Join Filter: {}", progs(&n.conditions)));
                }
            }
            NodeKind::Aggregate(n) => {
                if self.options.verbose && !has_output {
                    let aggs: Vec<String> = n
                        .keys
                        .iter()
                        .map(|k| p.expr(&k.expr))
                        .chain(n.aggs.iter().map(|a| p.agg(&as_call(a))))
                        .collect();
                    lines.push(format!("Output: {}", aggs.join(", ")));
                }
                for set in &n.sets {
                    if !set.is_empty() {
                        lines.push(format!(
                            "Group Key: {}",
                            set.iter().map(|k| p.expr(&n.keys[*k].expr)).collect::<Vec<_>>().join(", ")
                        ));
                    } else if n.sets.len() > 1 {
                        lines.push("Group Key: ()".to_owned());
                    }
                }
            }
            NodeKind::Distinct { .. } => {}
            NodeKind::Unique { keys, .. } if self.options.verbose => {
                lines.push(format!("Keys: {}", keys.iter().map(|k| p.expr(&k.expr)).collect::<Vec<_>>().join(", ")))
            }
            NodeKind::Sort(n) => {
                lines.push(format!(
                    "Sort Key: {}",
                    n.keys.iter().map(|(k, o)| p.key(&k.expr, o.desc, o.nulls_first)).collect::<Vec<_>>().join(", ")
                ));
                if let Some(metrics) = self.metrics {
                    let m = metrics.node(node.id);
                    let method = match (m.spilled, &n.limit) {
                        (true, _) => "external merge  Disk".to_owned(),
                        (false, Some(_)) => format!("top-N heapsort  Memory: {}kB", m.memory.div_ceil(1024)),
                        (false, None) => format!("quicksort  Memory: {}kB", m.memory.div_ceil(1024)),
                    };
                    if m.loops > 0 {
                        lines.push(format!("Sort Method: {method}"));
                    }
                }
            }
            NodeKind::Window(_) if self.metrics.is_some_and(|metrics| metrics.node(node.id).spilled) => {
                lines.push("Storage: Disk".to_owned());
            }
            _ => {}
        }
        for text in lines {
            self.line(depth, text);
        }
    }

    /// Numbers of the subqueries in a node's own expressions.
    fn subplans_of(&self, node: &Node) -> Vec<usize> {
        let mut found = Vec::new();
        let mut visit = |e: &Expr| {
            any(e, &mut |e| {
                if let ExprKind::Subquery(sub) = &e.kind
                    && let Some(number) = handle(sub)
                    && !found.contains(&number)
                {
                    found.push(number);
                }
                false
            });
        };
        let mut progs = |list: &[Prog]| list.iter().for_each(|p| visit(&p.expr));
        match &node.kind {
            NodeKind::Values(rows) => rows.iter().for_each(|row| progs(row)),
            NodeKind::Scan(scan) => {
                progs(&scan.filter);
                for equal in &scan.bounds.equals {
                    match equal {
                        Equal::Value(p) | Equal::Array(p) => progs(std::slice::from_ref(p)),
                        Equal::List(list) => progs(list),
                        Equal::Null => {}
                    }
                }
                scan.bounds.lower.iter().chain(&scan.bounds.upper).for_each(|(_, p)| progs(std::slice::from_ref(p)));
            }
            NodeKind::Virtual(v) => progs(&v.filter),
            NodeKind::Filter { conditions, .. } => progs(conditions),
            NodeKind::Project { exprs, .. } => progs(exprs),
            NodeKind::NestedLoop(n) => progs(&n.conditions),
            NodeKind::HashJoin(n) => progs(&n.conditions),
            NodeKind::Aggregate(n) => {
                progs(&n.keys);
                n.aggs.iter().for_each(|a| progs(&a.args));
            }
            NodeKind::Sort(n) => n.keys.iter().for_each(|(p, _)| progs(std::slice::from_ref(p))),
            NodeKind::Window(n) => {
                for call in &n.calls {
                    match &call.func {
                        WindowFuncNode::Window { args, .. } => progs(args),
                        WindowFuncNode::Aggregate(a) => progs(&a.args),
                    }
                }
            }
            NodeKind::Limit(n) => {
                n.count.limit.iter().chain(&n.count.offset).for_each(|p| progs(std::slice::from_ref(p)))
            }
            _ => {}
        }
        found
    }
}

fn as_call(a: &AggNode) -> AggCall {
    AggCall {
        func: a.func,
        args: a.args.iter().map(|p| p.expr.clone()).collect(),
        distinct: a.distinct,
        order_by: a
            .order_by
            .iter()
            .map(|(p, o)| SortKey { expr: p.expr.clone(), desc: o.desc, nulls_first: o.nulls_first })
            .collect(),
        filter: None,
        ty: a.ret,
    }
}

fn scan_title(scan: &ScanNode) -> String {
    let table = identifier(&scan.table.name);
    let backward = if scan.reverse { " Backward" } else { "" };
    if scan.foreign.is_some() {
        return format!("Foreign Scan{backward} on {table}");
    }
    match &scan.access {
        Access::Rows(_) if scan.conditions.is_empty() && !scan.reverse => format!("Seq Scan on {table}"),
        Access::Bee => format!("Foreign Scan{backward} on {table}"),
        Access::Rows(_) => format!(
            "Index Scan{backward} using {} on {table}",
            scan.table.primary_key.as_ref().map_or_else(|| table.clone(), |k| identifier(&k.name))
        ),
        Access::Index { name, covering, .. } => format!(
            "Index{} Scan{backward} using {} on {table}",
            if covering.is_some() { " Only" } else { "" },
            identifier(name)
        ),
    }
}

fn function_name(item: &SetItem) -> &'static str {
    match item {
        SetItem::Set { func, .. } => func.name,
        SetItem::Scalar(p) => match &p.expr.kind {
            ExprKind::Call { func, .. } => func.name,
            _ => "expression",
        },
    }
}

fn join_suffix(join: JoinType) -> String {
    match join {
        JoinType::Inner => "",
        JoinType::Left => " Left Join",
        JoinType::Right => " Right Join",
        JoinType::Full => " Full Join",
        JoinType::Semi => " Semi Join",
        JoinType::Anti => " Anti Join",
    }
    .to_owned()
}
