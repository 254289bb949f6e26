//! Window functions as physical nodes: calls over the same window share one node and one sort.

use std::sync::Arc;

use super::access::OrderKey;
use super::build::Scope;
use super::expr::as_column;
use super::logical::{ColId, Lp, Planner};
use super::lower::{Ask, Low};
use super::node::{BoundNode, FrameNode, NodeKind, OffsetNode, WindowCallNode, WindowFuncNode, WindowNode};
use crate::error::Result;
use crate::exec::value;
use crate::ir::{Expr, ExprKind, Frame, FrameBound, SortKey, WindowCall, WindowFunc};

impl Planner<'_> {
    pub(crate) fn lower_window(
        &mut self,
        input: &Lp,
        calls: &[(ColId, WindowCall)],
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        let mut low = self.lower(input, up, &Ask::default())?;
        let mut left: Vec<&(ColId, WindowCall)> = calls.iter().collect();
        while let Some((_, first)) = left.first() {
            let (group, rest): (Vec<_>, Vec<_>) = left.iter().partition(|(_, c)| same_window(first, c));
            let (partition_by, order_by) = (first.partition_by.clone(), first.order_by.clone());
            low = self.one_window(low, &partition_by, &order_by, &group, up)?;
            left = rest;
        }
        Ok(low)
    }

    fn one_window(
        &mut self,
        low: Low,
        partition_by: &[Expr],
        order_by: &[SortKey],
        calls: &[&(ColId, WindowCall)],
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        let low = self.sorted_for(low, partition_by, order_by, up)?;
        let scope = Scope { columns: &low.layout, up };
        let mut nodes = Vec::with_capacity(calls.len());
        for (_, call) in calls {
            let func = match &call.func {
                WindowFunc::Window(func) => WindowFuncNode::Window {
                    func,
                    args: self.progs(&call.args, &scope)?,
                    arg_types: call.args.iter().map(|a| a.ty.ty).collect(),
                },
                WindowFunc::Aggregate(agg) => WindowFuncNode::Aggregate(self.agg_node(agg, &scope)?),
            };
            nodes.push(WindowCallNode { func, frame: self.frame(&call.frame, &scope)?, ret: call.ty });
        }
        let partition = self.progs(partition_by, &scope)?;
        let order = self.key_progs(order_by, &scope)?;
        let layout: Vec<ColId> = low.layout.iter().copied().chain(calls.iter().map(|(id, _)| *id)).collect();
        let e = low.node.estimate;
        let node = WindowNode { input: low.node, partition_by: partition, order_by: order, calls: nodes };
        let node = self.node(
            NodeKind::Window(Arc::new(node)),
            layout.len(),
            e.rows,
            e.startup,
            e.total + e.rows * calls.len() as f64 * 0.2,
        );
        Ok(Low { node, layout, order: low.order })
    }

    /// The relation sorted by partition, then order.
    fn sorted_for(
        &mut self,
        low: Low,
        partition_by: &[Expr],
        order_by: &[SortKey],
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        if partition_by.is_empty() && order_by.is_empty() {
            return Ok(low);
        }
        let mut keys: Vec<SortKey> =
            partition_by.iter().map(|e| SortKey { expr: e.clone(), desc: false, nulls_first: false }).collect();
        keys.extend(order_by.iter().cloned());
        let wanted = self.order_of(&keys);
        if let (Some(wanted), Some(columns)) = (&wanted, partition_by.iter().map(as_column).collect::<Option<_>>())
            && low.order.groups(&columns)
            && (wanted.len() == partition_by.len()
                || low.order.satisfies(&by_groups(&low, &columns, &wanted[partition_by.len()..])))
        {
            return Ok(low);
        }
        self.sort(low, &keys, wanted, None, up)
    }

    fn frame(&mut self, frame: &Frame, scope: &Scope<'_>) -> Result<FrameNode> {
        Ok(FrameNode {
            unit: frame.unit,
            start: self.bound(&frame.start, scope)?,
            end: self.bound(&frame.end, scope)?,
            exclude: frame.exclude,
        })
    }

    fn bound(&mut self, bound: &FrameBound, scope: &Scope<'_>) -> Result<BoundNode> {
        let mut offset = |o: &crate::ir::FrameOffset| -> Result<OffsetNode> {
            let pair = Scope { columns: super::expr::FIRST_SCOPE, up: scope.up };
            Ok(OffsetNode {
                value: self.prog(&o.value, &Scope { columns: &[], up: scope.up })?,
                minus: o.minus.as_ref().map(|e| self.compile(e, &pair)).transpose()?,
                plus: o.plus.as_ref().map(|e| self.compile(e, &pair)).transpose()?,
            })
        };
        Ok(match bound {
            FrameBound::UnboundedPreceding => BoundNode::UnboundedPreceding,
            FrameBound::Preceding(o) => BoundNode::Preceding(offset(o)?),
            FrameBound::CurrentRow => BoundNode::CurrentRow,
            FrameBound::Following(o) => BoundNode::Following(offset(o)?),
            FrameBound::UnboundedFollowing => BoundNode::UnboundedFollowing,
        })
    }
}

/// The order wanted within groups, led by the groups' columns in the order they come in.
fn by_groups(low: &Low, columns: &std::collections::BTreeSet<ColId>, order: &[OrderKey]) -> Vec<OrderKey> {
    let leading = low.order.keys.iter().take_while(|k| columns.contains(&k.col)).copied();
    leading.chain(order.iter().copied()).collect()
}

fn same_window(a: &WindowCall, b: &WindowCall) -> bool {
    let same_keys = |a: &[SortKey], b: &[SortKey]| {
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| a.desc == b.desc && a.nulls_first == b.nulls_first && same(&a.expr, &b.expr))
    };
    a.partition_by.len() == b.partition_by.len()
        && a.partition_by.iter().zip(&b.partition_by).all(|(a, b)| same(a, b))
        && same_keys(&a.order_by, &b.order_by)
}

/// Whether two expressions surely have the same value on the same row.
pub(crate) fn same(a: &Expr, b: &Expr) -> bool {
    if a.ty != b.ty {
        return false;
    }
    match (&a.kind, &b.kind) {
        (ExprKind::Column(a), ExprKind::Column(b)) => a == b,
        (ExprKind::Param(a), ExprKind::Param(b)) => a == b,
        (ExprKind::Const(a), ExprKind::Const(b)) => value::same(a, b),
        (ExprKind::Call { func: f, args: a }, ExprKind::Call { func: g, args: b }) => {
            std::ptr::eq(*f, *g)
                && f.volatility != crate::functions::registry::Volatility::Volatile
                && a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (ExprKind::CoerceViaIo(a), ExprKind::CoerceViaIo(b)) => same(a, b),
        _ => false,
    }
}
