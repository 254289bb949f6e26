//! From the planner's tree to physical nodes.
//!
//! A lowered relation has a layout: which column stands where in its rows. It may hold more than the columns asked for; who needs
//! exactly those picks. Nodes say in which order their rows come, so sorts that change nothing are left out.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::access::{Delivered, OrderKey, Want};
use super::build::Scope;
use super::expr::as_column;
use super::logical::{ColId, LogicalCte, Lp, Op, Planner};
use super::lower_expr::types_of;
use super::node::{
    AggNode, AggregateNode, CteNode, DmlNode, Estimate, FunctionCall, FunctionNode, LimitCount, LimitNode, LockNode,
    Node, NodeKind, SetItem, SetOpNode, SortNode, VirtualNode, WithNode,
};
use crate::error::{Result, SqlError};
use crate::ir::{AggCall, Expr, ExprKind, SortKey};
use crate::types::{Datum, Type};

/// A lowered relation.
pub(crate) struct Low {
    pub node: Arc<Node>,
    pub layout: Vec<ColId>,
    pub order: Delivered,
}

/// What the reader of a relation would like, and how many rows it takes at most.
#[derive(Clone, Default)]
pub(crate) struct Ask {
    pub want: Want,
    /// It never takes more rows than this. Passed down only where each row below makes one row above.
    pub count: Option<Arc<LimitCount>>,
}

impl Ask {
    /// Without the promise about the number of rows, for inputs whose rows may be dropped or multiplied.
    pub fn order_only(&self) -> Ask {
        Ask { want: Want { order: self.want.order.clone(), rows: self.want.rows }, count: None }
    }
}

impl Planner<'_> {
    pub(crate) fn node(&mut self, kind: NodeKind, layout: &[ColId], rows: f64, startup: f64, total: f64) -> Arc<Node> {
        self.next_node += 1;
        let row_bytes = layout.iter().map(|id| type_bytes(self.ty(*id).ty)).sum();
        Arc::new(Node {
            id: self.next_node - 1,
            kind,
            width: layout.len(),
            estimate: Estimate { rows: rows.max(0.0), startup, total, row_bytes },
        })
    }

    /// Lowers a subquery of an expression over `scope`; one that is only asked for a row gives no columns.
    pub(crate) fn lower_sub(&mut self, plan: Lp, exists: bool, scope: &Scope<'_>) -> Result<Arc<Node>> {
        if exists {
            let plan = self.prune(plan, &BTreeSet::new());
            let ask = Ask { want: Want { order: Vec::new(), rows: Some(1.0) }, count: None };
            return Ok(self.lower(&plan, Some(scope), &ask)?.node);
        }
        let cols = plan.cols.clone();
        let plan = self.prune_all(plan, &BTreeSet::new());
        Ok(self.lower_exactly(&plan, &cols, Some(scope), &Ask::default())?.node)
    }

    /// Lowers a relation so that its rows are exactly these columns.
    pub(crate) fn lower_exactly(&mut self, lp: &Lp, cols: &[ColId], up: Option<&Scope<'_>>, ask: &Ask) -> Result<Low> {
        let low = self.lower(lp, up, ask)?;
        self.pick(low, cols)
    }

    /// These columns of a lowered relation.
    pub(crate) fn pick(&mut self, low: Low, cols: &[ColId]) -> Result<Low> {
        if low.layout == cols {
            return Ok(low);
        }
        let columns = cols
            .iter()
            .map(|c| low.layout.iter().position(|l| l == c))
            .collect::<Option<Arc<[usize]>>>()
            .ok_or_else(|| SqlError::internal("a column got lost while planning"))?;
        let e = low.node.estimate;
        let node = self.node(NodeKind::Pick { input: low.node, columns }, cols, e.rows, e.startup, e.total);
        Ok(Low { node, layout: cols.to_vec(), order: low.order })
    }

    pub(crate) fn lower(&mut self, lp: &Lp, up: Option<&Scope<'_>>, ask: &Ask) -> Result<Low> {
        let is_join = matches!(lp.op, Op::Join { .. });
        self.deeper(is_join, |planner| planner.lower_op(lp, up, ask))
    }

    /// The first of each run of rows that are equal by some expressions: their order has brought those together.
    fn first_of_neighbours(&mut self, low: Low, by: &[Expr], rows: f64, up: Option<&Scope<'_>>) -> Result<Low> {
        let keys = self.progs(by, &Scope { columns: &low.layout, up })?;
        let e = low.node.estimate;
        let node = self.node(
            NodeKind::Unique { input: low.node, keys: Arc::new(keys) },
            &low.layout,
            rows,
            e.startup,
            e.total + e.rows * 0.1,
        );
        Ok(Low { node, ..low })
    }

    fn lower_op(&mut self, lp: &Lp, up: Option<&Scope<'_>>, ask: &Ask) -> Result<Low> {
        let rows = self.rows(lp);
        match &lp.op {
            Op::Values { rows: values } => {
                let kind = match constants(values) {
                    Some(values) => NodeKind::Constants(values),
                    None => {
                        let scope = Scope { columns: &[], up };
                        let progs = values.iter().map(|row| self.progs(row, &scope)).collect::<Result<Vec<_>>>()?;
                        NodeKind::Values(Arc::new(progs))
                    }
                };
                let node = self.node(kind, &lp.cols, rows, 0.0, rows * 0.01);
                Ok(Low {
                    node,
                    layout: lp.cols.clone(),
                    order: Delivered { unique: values.len() <= 1, ..Delivered::default() },
                })
            }
            Op::Scan(scan) => self.lower_scan(scan, scan.filter.clone(), &lp.cols, up, &ask.want),
            Op::Virtual { .. } => self.lower_virtual(lp, up, ask),
            Op::Function { calls, ordinality } => self.lower_function(lp, calls, *ordinality, up),
            Op::Filter { input, preds } => {
                let mut below = ask.order_only();
                below.want.rows = None;
                let low = self.lower(input, up, &below)?;
                self.filter(low, preds, rows, up)
            }
            Op::Project { input, exprs } => self.lower_project(lp, input, exprs, up, ask),
            Op::ProjectSet { input, exprs } => {
                let low = self.lower(input, up, &Ask::default())?;
                let scope = Scope { columns: &low.layout, up };
                let items = exprs.iter().map(|(_, e)| self.set_item(e, &scope)).collect::<Result<Vec<_>>>()?;
                let (e, layout): (Estimate, Vec<ColId>) =
                    (low.node.estimate, exprs.iter().map(|(id, _)| *id).collect());
                let node = self.node(
                    NodeKind::ProjectSet { input: low.node, items: Arc::new(items) },
                    &layout,
                    rows,
                    e.startup,
                    e.total + rows,
                );
                Ok(Low { node, layout, order: Delivered::default() })
            }
            Op::Join { kind, left, right, on, lateral, .. } => {
                self.lower_join(*kind, left, right, on, *lateral, rows, up, ask)
            }
            Op::Aggregate { .. } => self.lower_aggregate(lp, up),
            Op::Window { input, calls } => self.lower_window(input, calls, up),
            Op::Sort { input, keys } => self.lower_sort(input, keys, up, ask),
            Op::LockRows { input, locks, .. } => {
                // Rows may be left out, so that no promise of how many are taken holds below.
                let low = self.lower_exactly(input, &lp.cols, up, &ask.order_only())?;
                let e = low.node.estimate;
                let kind = LockNode { input: low.node, locks: locks.clone(), recheck: OnceLock::new() };
                let node =
                    self.node(NodeKind::LockRows(Arc::new(kind)), &lp.cols, e.rows, e.startup, e.total + e.rows * 0.1);
                Ok(Low { node, ..low })
            }
            Op::Limit { input, limit, offset, ties } => {
                self.lower_limit(input, limit.as_ref(), offset.as_ref(), ties.as_deref(), up, ask)
            }
            Op::Distinct { input, on: None } => {
                let low = self.lower_exactly(input, &lp.cols, up, &Ask::default())?;
                if low.order.groups(&lp.col_set()) {
                    let columns: Vec<Expr> = lp.cols.iter().map(|c| self.column_expr(*c)).collect();
                    return self.first_of_neighbours(low, &columns, rows, up);
                }
                let types = lp.cols.iter().map(|c| self.ty(*c).ty).collect();
                let e = low.node.estimate;
                let node = self.node(
                    NodeKind::Distinct { input: low.node, types },
                    &lp.cols,
                    rows,
                    e.startup,
                    e.total + e.rows,
                );
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
            Op::Distinct { input, on: Some(on) } => {
                let low = self.lower(input, up, &Ask::default())?;
                self.first_of_neighbours(low, on, rows, up)
            }
            Op::Append { inputs } => {
                let mut nodes = Vec::with_capacity(inputs.len());
                let below = Ask {
                    want: Want { order: Vec::new(), rows: ask.want.rows.filter(|_| ask.want.order.is_empty()) },
                    count: ask.count.clone(),
                };
                for input in inputs {
                    nodes.push(self.lower_exactly(input, &input.cols, up, &below)?.node);
                }
                let total = nodes.iter().map(|n| n.estimate.total).sum();
                let node = self.node(NodeKind::Append(nodes), &lp.cols, rows, 0.0, total);
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
            Op::SetOp { op, all, left, right } => {
                let l = self.lower_exactly(left, &left.cols, up, &Ask::default())?.node;
                let r = self.lower_exactly(right, &right.cols, up, &Ask::default())?.node;
                let total = l.estimate.total + r.estimate.total + l.estimate.rows + r.estimate.rows;
                let types = lp.cols.iter().map(|c| self.ty(*c).ty).collect();
                let node = self.node(
                    NodeKind::SetOp(Arc::new(SetOpNode { op: *op, all: *all, left: l, right: r, types })),
                    &lp.cols,
                    rows,
                    total,
                    total + rows,
                );
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
            Op::With { ctes, body } => {
                let ctes = ctes.iter().map(|cte| self.lower_cte(cte, up)).collect::<Result<Vec<_>>>()?;
                let low = self.lower(body, up, ask)?;
                let e = low.node.estimate;
                let extra: f64 = ctes.iter().map(|c| c.definition.estimate.total).sum();
                let node = self.node(
                    NodeKind::With(Arc::new(WithNode { ctes, body: low.node })),
                    &low.layout,
                    e.rows,
                    e.startup,
                    e.total + extra,
                );
                Ok(Low { node, ..low })
            }
            Op::CteScan { id, name } => {
                let node =
                    self.node(NodeKind::CteScan { id: *id, name: name.clone() }, &lp.cols, rows, 0.0, rows * 0.2);
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
            Op::WorkScan { id, name } => {
                let node =
                    self.node(NodeKind::WorkScan { id: *id, name: name.clone() }, &lp.cols, rows, 0.0, rows * 0.2);
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
            Op::Dml { dml, source } => {
                let source = self.lower_exactly(source, &source.cols, up, &Ask::default())?.node;
                let e = source.estimate;
                let node = self.node(
                    NodeKind::Dml(Arc::new(DmlNode { dml: dml.clone(), source, top: self.dml_on_top })),
                    &lp.cols,
                    e.rows,
                    e.startup,
                    e.total + e.rows,
                );
                Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
            }
        }
    }

    /// A filter over a lowered relation.
    pub(crate) fn filter(&mut self, low: Low, preds: &[Expr], rows: f64, up: Option<&Scope<'_>>) -> Result<Low> {
        let conditions = self.progs(preds, &Scope { columns: &low.layout, up })?;
        let e = low.node.estimate;
        let node = self.node(
            NodeKind::Filter { input: low.node, conditions: Arc::new(conditions) },
            &low.layout,
            rows.min(e.rows),
            e.startup,
            e.total + e.rows * 0.1,
        );
        Ok(Low { node, ..low })
    }

    fn lower_project(
        &mut self,
        lp: &Lp,
        input: &Lp,
        exprs: &[(ColId, Expr)],
        up: Option<&Scope<'_>>,
        ask: &Ask,
    ) -> Result<Low> {
        // An order by a computed column cannot be had from below.
        let given = input.col_set();
        let passes = ask.want.order.iter().all(|k| given.contains(&k.col));
        let order = if passes { ask.want.order.clone() } else { Vec::new() };
        let rows = ask.want.rows.filter(|_| passes);
        let below = Ask { want: Want { order, rows }, count: ask.count.clone().filter(|_| passes) };
        let low = self.lower(input, up, &below)?;
        if exprs.is_empty() {
            return self.pick(low, &lp.cols);
        }
        let scope = Scope { columns: &low.layout, up };
        let mut progs = Vec::with_capacity(lp.cols.len());
        for id in &lp.cols {
            let e = match exprs.iter().find(|(c, _)| c == id) {
                Some((_, e)) => e.clone(),
                None => self.column_expr(*id),
            };
            progs.push(self.prog(&e, &scope)?);
        }
        let e = low.node.estimate;
        let node = self.node(
            NodeKind::Project { input: low.node, exprs: Arc::new(progs) },
            &lp.cols,
            e.rows,
            e.startup,
            e.total + e.rows * 0.05,
        );
        Ok(Low { node, layout: lp.cols.clone(), order: low.order })
    }

    fn lower_virtual(&mut self, lp: &Lp, up: Option<&Scope<'_>>, ask: &Ask) -> Result<Low> {
        let Op::Virtual { table, args, made, filter, alias } = &lp.op else { unreachable!("called for it") };
        let own: BTreeSet<ColId> = made.iter().copied().collect();
        let mut layout = lp.cols.clone();
        for p in filter {
            for id in self.used(p) {
                if own.contains(&id) && !layout.contains(&id) {
                    layout.push(id);
                }
            }
        }
        let (scope, outside) = (Scope { columns: &layout, up }, Scope { columns: &[], up });
        let mut equals = Vec::new();
        for p in filter {
            if let Some((col, value)) = self.equal_to_value(p, &own)
                && let Some(at) = made.iter().position(|c| *c == col)
            {
                equals.push((at, self.prog(&value, &outside)?));
            }
        }
        let columns = layout.iter().filter_map(|c| made.iter().position(|m| m == c)).collect();
        let node = VirtualNode {
            table: table.clone(),
            args: self.progs(args, &outside)?,
            columns,
            equals,
            filter: self.progs(filter, &scope)?,
            limit: ask.count.clone().filter(|_| ask.want.order.is_empty()),
            alias: alias.clone(),
        };
        let rows = self.rows(lp);
        let node = self.node(NodeKind::Virtual(Arc::new(node)), &layout, rows, 0.0, 200.0);
        Ok(Low { node, layout, order: Delivered::default() })
    }

    fn set_item(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<SetItem> {
        Ok(match &e.kind {
            ExprKind::SetCall { func, args } => SetItem::Set {
                func,
                arg_types: args.iter().map(|a| a.ty.ty).collect(),
                ret: e.ty,
                args: self.progs(args, scope)?,
                expr: e.clone(),
            },
            _ => SetItem::Scalar(self.prog(e, scope)?),
        })
    }

    fn lower_function(&mut self, lp: &Lp, calls: &[Expr], ordinality: bool, up: Option<&Scope<'_>>) -> Result<Low> {
        let scope = Scope { columns: &[], up };
        let columns = lp.cols.len() - usize::from(ordinality);
        let mut nodes = Vec::with_capacity(calls.len());
        for call in calls {
            let (width, expand) = match &call.kind {
                // unnest of several arrays and functions returning record: as many columns as the query gives them.
                ExprKind::SetCall { func, .. } => {
                    (if calls.len() == 1 { columns } else { func.columns.len().max(1) }, false)
                }
                _ if calls.len() == 1 => (columns, columns != 1),
                _ => (1, false),
            };
            nodes.push(FunctionCall { width, item: self.set_item(call, &scope)?, expand });
        }
        let node = self.node(
            NodeKind::Function(Arc::new(FunctionNode { calls: nodes, ordinality })),
            &lp.cols,
            100.0,
            0.0,
            10.0,
        );
        Ok(Low { node, layout: lp.cols.clone(), order: Delivered::default() })
    }

    /// The order that sort keys ask for, if all are columns.
    pub(crate) fn order_of(&self, keys: &[SortKey]) -> Option<Vec<OrderKey>> {
        keys.iter()
            .map(|k| {
                Some(OrderKey { col: as_column(&k.expr)?, desc: k.desc, nulls_first: k.nulls_first, not_null: false })
            })
            .collect()
    }

    fn lower_sort(&mut self, input: &Lp, keys: &[SortKey], up: Option<&Scope<'_>>, ask: &Ask) -> Result<Low> {
        let wanted = self.order_of(keys);
        // The rows asked of a sort are asked of its input only if that comes in order already.
        let below = Ask {
            want: Want { order: wanted.clone().unwrap_or_default(), rows: ask.want.rows.filter(|_| wanted.is_some()) },
            count: None,
        };
        let low = self.lower(input, up, &below)?;
        if wanted.as_ref().is_some_and(|w| low.order.satisfies(w)) {
            return Ok(low);
        }
        self.sort(low, keys, wanted, ask.count.clone(), up)
    }

    pub(crate) fn sort(
        &mut self,
        low: Low,
        keys: &[SortKey],
        wanted: Option<Vec<OrderKey>>,
        limit: Option<Arc<LimitCount>>,
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        let progs = self.key_progs(keys, &Scope { columns: &low.layout, up })?;
        let types = progs.iter().map(|(p, _)| p.expr.ty.ty).collect();
        let e = low.node.estimate;
        let total = e.total + e.rows * (1.0 + e.rows.max(2.0).log2()) * 0.2;
        let node = self.node(
            NodeKind::Sort(Arc::new(SortNode { input: low.node, keys: progs, types, limit })),
            &low.layout,
            e.rows,
            total,
            total + e.rows * 0.01,
        );
        Ok(Low {
            node,
            layout: low.layout,
            order: Delivered { keys: wanted.unwrap_or_default(), ..Delivered::default() },
        })
    }

    fn lower_limit(
        &mut self,
        input: &Lp,
        limit: Option<&Expr>,
        offset: Option<&Expr>,
        ties: Option<&[SortKey]>,
        up: Option<&Scope<'_>>,
        ask: &Ask,
    ) -> Result<Low> {
        let scope = Scope { columns: &[], up };
        let constant = |e: Option<&Expr>| match e.map(|e| &e.kind) {
            Some(ExprKind::Const(d)) => crate::exec::value::integer(d).map(|n| n as f64),
            Some(_) => Some(100.0),
            None => None,
        };
        let rows = constant(limit).map(|n| n + constant(offset).unwrap_or(0.0));
        let mut part = || -> Result<LimitCount> {
            Ok(LimitCount {
                limit: limit.map(|e| self.prog(e, &scope)).transpose()?,
                offset: offset.map(|e| self.prog(e, &scope)).transpose()?,
            })
        };
        let count = Arc::new(part()?);
        // WITH TIES reads on after the last row that counts.
        let below =
            Ask { want: Want { order: ask.want.order.clone(), rows }, count: ties.is_none().then(|| count.clone()) };
        let low = self.lower(input, up, &below)?;
        let ties = match ties {
            Some(keys) => Some(
                keys.iter()
                    .map(|k| self.prog(&k.expr, &Scope { columns: &low.layout, up }))
                    .collect::<Result<Vec<_>>>()?,
            ),
            None => None,
        };
        let e = low.node.estimate;
        let given = rows.map_or(e.rows, |n| n.min(e.rows));
        let part = if e.rows > 0.0 { given / e.rows } else { 1.0 };
        let node = self.node(
            NodeKind::Limit(Arc::new(LimitNode { input: low.node, count, ties })),
            &low.layout,
            given,
            e.startup,
            e.startup + (e.total - e.startup) * part,
        );
        Ok(Low { node, ..low })
    }

    fn lower_cte(&mut self, cte: &LogicalCte, up: Option<&Scope<'_>>) -> Result<CteNode> {
        let top = std::mem::replace(&mut self.dml_on_top, false);
        let definition = self.lower_exactly(&cte.definition, &cte.definition.cols, up, &Ask::default())?.node;
        let recursive = match &cte.recursive {
            Some(term) => Some(self.lower_exactly(term, &term.cols, up, &Ask::default())?.node),
            None => None,
        };
        self.dml_on_top = top;
        let types = cte.definition.cols.iter().map(|c| self.ty(*c).ty).collect();
        Ok(CteNode {
            id: cte.id,
            name: cte.name.clone(),
            definition,
            recursive,
            all: cte.all,
            writes: cte.writes,
            types,
        })
    }

    fn lower_aggregate(&mut self, lp: &Lp, up: Option<&Scope<'_>>) -> Result<Low> {
        let Op::Aggregate { input, keys, sets, aggs, grouping } = &lp.op else { unreachable!("called for it") };
        let rows = self.rows(lp);
        if let Some(low) = self.lower_min_max(input, keys, sets, aggs, up)? {
            return Ok(low);
        }
        let low = self.lower(input, up, &Ask::default())?;
        let scope = Scope { columns: &low.layout, up };
        let key_progs = self.progs(keys.iter().map(|(_, e)| e), &scope)?;
        let mut key_types = types_of(&key_progs);
        if sets.len() > 1 {
            key_types.push(Type::INT4);
        }
        let key_cols: Option<BTreeSet<ColId>> = keys.iter().map(|(_, e)| as_column(e)).collect();
        let plain = sets.len() == 1 && sets[0].len() == keys.len();
        let sorted = plain && (keys.is_empty() || key_cols.as_ref().is_some_and(|cols| low.order.groups(cols)));
        let agg_nodes = aggs.iter().map(|(_, call)| self.agg_node(call, &scope)).collect::<Result<Vec<_>>>()?;
        let layout: Vec<ColId> = keys
            .iter()
            .map(|(id, _)| *id)
            .chain(aggs.iter().map(|(id, _)| *id))
            .chain(grouping.iter().map(|(id, _)| *id))
            .collect();
        let order = match (&key_cols, sorted) {
            (Some(cols), true) => Delivered {
                keys: low.order.keys.iter().take_while(|k| cols.contains(&k.col)).copied().collect(),
                constants: low.order.constants.clone(),
                unique: true,
            },
            _ => Delivered::default(),
        };
        let e = low.node.estimate;
        let total = e.total + e.rows * 0.1 * (1 + aggs.len()) as f64;
        let startup = if sorted && !keys.is_empty() { e.startup } else { total };
        let node = AggregateNode {
            input: low.node,
            keys: key_progs,
            key_types,
            sets: sets.clone(),
            grouping: grouping.iter().map(|(_, asked)| asked.clone()).collect(),
            aggs: agg_nodes,
            sorted,
        };
        let node = self.node(NodeKind::Aggregate(Arc::new(node)), &layout, rows, startup, total + rows * 0.01);
        Ok(Low { node, layout, order })
    }

    pub(crate) fn agg_node(&mut self, call: &AggCall, scope: &Scope<'_>) -> Result<AggNode> {
        Ok(AggNode {
            func: call.func,
            arg_types: call.args.iter().map(|a| a.ty.ty).collect(),
            ret: call.ty,
            args: self.progs(&call.args, scope)?,
            distinct: call.distinct,
            order_by: self.key_progs(&call.order_by, scope)?,
            filter: call.filter.as_ref().map(|f| self.prog(f, scope)).transpose()?,
        })
    }

    /// min and max of columns that a key orders: the first row of a scan each.
    fn lower_min_max(
        &mut self,
        input: &Lp,
        keys: &[(ColId, Expr)],
        sets: &[Vec<usize>],
        aggs: &[(ColId, AggCall)],
        up: Option<&Scope<'_>>,
    ) -> Result<Option<Low>> {
        let Op::Scan(scan) = &input.op else { return Ok(None) };
        if !keys.is_empty() || sets.len() != 1 || aggs.is_empty() {
            return Ok(None);
        }
        let mut firsts = Vec::with_capacity(aggs.len());
        for (id, call) in aggs {
            let desc = match call.func.name {
                "min" => false,
                "max" => true,
                _ => return Ok(None),
            };
            let col = match call.args.as_slice() {
                [e] if !call.distinct && call.order_by.is_empty() && call.filter.is_none() => {
                    as_column(e).filter(|c| scan.made.contains(c))
                }
                _ => None,
            };
            let Some(col) = col else { return Ok(None) };
            let want = Want { order: vec![OrderKey { col, desc, nulls_first: desc, not_null: true }], rows: Some(1.0) };
            let mut filters = scan.filter.clone();
            if !self.columns[col].not_null {
                filters.push(Expr {
                    kind: ExprKind::IsNull { input: Box::new(self.column_expr(col)), negated: true },
                    ty: Type::BOOL.plain(),
                });
            }
            let path = self.choose_path(scan, &filters, &[col], &want);
            if !path.order.satisfies(&want.order) {
                return Ok(None);
            }
            firsts.push((*id, call, col, want, filters));
        }
        let mut joined: Option<Low> = None;
        for (id, call, col, want, filters) in firsts {
            let low = self.lower_scan(scan, filters, &[col], up, &want)?;
            let one = Expr::constant(crate::types::Datum::Int8(1), Type::INT8);
            let count =
                Arc::new(LimitCount { limit: Some(self.prog(&one, &Scope { columns: &[], up })?), offset: None });
            let e = low.node.estimate;
            let node = self.node(
                NodeKind::Limit(Arc::new(LimitNode { input: low.node, count, ties: None })),
                &low.layout,
                1.0,
                e.startup,
                e.total,
            );
            let agg = self.agg_node(call, &Scope { columns: &low.layout, up })?;
            let node = AggregateNode {
                input: node,
                keys: Vec::new(),
                key_types: Vec::new(),
                sets: vec![Vec::new()],
                grouping: Vec::new(),
                aggs: vec![agg],
                sorted: true,
            };
            let node = self.node(NodeKind::Aggregate(Arc::new(node)), &[id], 1.0, e.total, e.total + 0.01);
            let low = Low { node, layout: vec![id], order: Delivered::default() };
            joined = Some(match joined {
                None => low,
                Some(left) => self.nested_loop(super::node::JoinType::Inner, left, low, &[], false, 1.0, up)?,
            });
        }
        Ok(joined)
    }
}

/// About how many bytes a value of a type takes on the wire of other systems: what EXPLAIN calls width.
fn type_bytes(ty: Type) -> usize {
    ty.info().map_or(32, |info| usize::try_from(info.len).ok().filter(|n| *n > 0).unwrap_or(32))
}

/// The values of many rows of constants: expressions of each would be ten times as large.
fn constants(rows: &[Vec<Expr>]) -> Option<Arc<[Datum]>> {
    let constant = |e: &Expr| match &e.kind {
        ExprKind::Const(d) => Some(d.clone()),
        _ => None,
    };
    if rows.len() < 16 || rows[0].is_empty() {
        return None;
    }
    rows.iter().flatten().map(constant).collect()
}
