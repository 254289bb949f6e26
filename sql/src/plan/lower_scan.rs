//! Scans of stored tables as physical nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{Delivered, KeyEqual, Path, Want, index_codec, row_codec};
use super::build::Scope;
use super::logical::{ColId, Planner, Scan};
use super::lower::Low;
use super::node::{Access, Bounds, Equal, NodeKind, Prog, ScanNode, SystemColumn};
use crate::error::Result;
use crate::exec::code::CompareOp;
use crate::ir::Expr;

impl Planner<'_> {
    /// A scan giving `cols` of the rows that satisfy `filters`.
    pub(crate) fn lower_scan(
        &mut self,
        scan: &Scan,
        filters: Vec<Expr>,
        cols: &[ColId],
        up: Option<&Scope<'_>>,
        want: &Want,
    ) -> Result<Low> {
        if filters.iter().any(super::expr::is_never) {
            let node = self.node(NodeKind::Values(Arc::new(Vec::new())), cols, 0.0, 0.0, 0.0);
            return Ok(Low { node, layout: cols.to_vec(), order: Delivered { unique: true, ..Delivered::default() } });
        }
        let path = self.choose_path(scan, &filters, cols, want);
        self.lower_path(scan, filters, cols, up, path)
    }

    pub(crate) fn lower_path(
        &mut self,
        scan: &Scan,
        filters: Vec<Expr>,
        cols: &[ColId],
        up: Option<&Scope<'_>>,
        path: Path,
    ) -> Result<Low> {
        let rows = if path.unique && path.rows <= 1.0 {
            1.0
        } else {
            self.scan_rows(&Scan { filter: filters.clone(), ..scan.clone() })
        };
        let system: Vec<(ColId, SystemColumn)> = scan
            .system
            .into_iter()
            .flat_map(|[xmin, ctid]| [(xmin, SystemColumn::Xmin), (ctid, SystemColumn::Ctid)])
            .filter(|(id, _)| cols.contains(id))
            .collect();
        let made: BTreeSet<ColId> = scan.made.iter().copied().collect();
        let row_key = scan.row_key.filter(|id| cols.contains(id));
        // Columns given first, then those only the filter reads.
        let made_up: Vec<ColId> = scan.row_key.into_iter().chain(scan.system.into_iter().flatten()).collect();
        let mut decoded: Vec<ColId> = cols.iter().copied().filter(|c| !made_up.contains(c)).collect();
        let keep = decoded.len();
        let mut looked_at: BTreeSet<ColId> = BTreeSet::new();
        let residual: Vec<Expr> =
            filters.iter().enumerate().filter(|(i, _)| !path.dropped.contains(i)).map(|(_, f)| f.clone()).collect();
        for f in &residual {
            for id in self.used(f) {
                if made.contains(&id) {
                    looked_at.insert(id);
                    if !decoded.contains(&id) {
                        decoded.push(id);
                    }
                }
            }
        }
        let filter = self.progs(&residual, &Scope { columns: &decoded, up })?;
        let bounds_of = |planner: &mut Self, e: &Expr| planner.prog(e, &Scope { columns: &[], up });
        let mut equals = Vec::with_capacity(path.equals.len());
        for equal in &path.equals {
            equals.push(match equal {
                KeyEqual::Value(e) => Equal::Value(bounds_of(self, e)?),
                KeyEqual::List(list) => Equal::List(list.iter().map(|e| bounds_of(self, e)).collect::<Result<_>>()?),
                KeyEqual::Array(e) => Equal::Array(bounds_of(self, e)?),
                KeyEqual::Null => Equal::Null,
            });
        }
        let mut sides = |list: &[(CompareOp, Expr)]| {
            list.iter().map(|(op, e)| Ok((*op, bounds_of(self, e)?))).collect::<Result<Vec<(CompareOp, Prog)>>>()
        };
        let (lower, upper) = (sides(&path.lower)?, sides(&path.upper)?);
        let position = |id: &ColId| scan.made.iter().position(|m| m == id);
        let (access, key) = match path.index {
            None if scan.foreign.as_ref().is_some_and(|f| f.bee.is_some()) => {
                (Access::Bee, row_codec(scan).columns().iter().map(|(_, c)| *c).collect())
            }
            None => {
                let codec = row_codec(scan);
                let key = codec.columns().iter().map(|(_, c)| *c).collect();
                (Access::Rows(codec), key)
            }
            Some(i) => {
                let codec = index_codec(scan, i);
                let key = codec.columns().iter().map(|(_, c)| *c).collect();
                let covering = (path.covering && system.is_empty())
                    .then(|| {
                        decoded
                            .iter()
                            .map(|id| codec.columns().iter().position(|(at, _)| Some(*at) == position(id)))
                            .collect::<Option<Vec<usize>>>()
                    })
                    .flatten();
                (Access::Index { codec, name: Arc::from(scan.table.indexes[i].name.as_str()), covering }, key)
            }
        };
        let node = ScanNode {
            table: scan.table.clone(),
            foreign: scan.foreign.clone(),
            at: scan.at.clone(),
            columns: decoded.iter().filter_map(position).collect(),
            keep,
            row_key: row_key.is_some(),
            system: system.iter().map(|(_, column)| *column).collect(),
            access,
            bounds: Bounds { key, equals, lower, upper, not_null: path.not_null, unique: path.unique },
            reverse: path.reverse,
            filtered: decoded.iter().map(|id| looked_at.contains(id)).collect(),
            filter,
            conditions: path.conditions.iter().map(|i| filters[*i].clone()).collect(),
            residual,
            alias: scan.alias.clone(),
        };
        let layout: Vec<ColId> =
            decoded[..keep].iter().copied().chain(row_key).chain(system.iter().map(|(id, _)| *id)).collect();
        let node = self.node(NodeKind::Scan(Arc::new(node)), &layout, rows, 0.0, path.cost);
        Ok(Low { node, layout, order: path.order })
    }
}
