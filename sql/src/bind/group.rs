//! GROUP BY: keys and grouping sets, and what may stand above them.
//!
//! Above an aggregate only its keys and results exist. Every output is rewritten from the FROM row to that row: what equals a key becomes its
//! column; a column left over is an error (42803), unless it belongs to a table whose whole primary key is grouped by: then it is one more key,
//! which splits no group.

use super::binder::*;
use super::query::has_set;
use super::scope::Item;
use super::select::{Target, output_name};
use super::walk::{any_part, map_row, same, walk_expr};
use super::window::add_windows;
use crate::catalog::schema::Relation;
use crate::error::{Result, SqlError, state};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Datum, Type};

/// Most grouping sets of a query, as in PostgreSQL.
const SETS_MAX: usize = 4096;

/// The keys of a query, over its FROM row, and which of them each grouping set has.
pub(super) struct Grouping {
    pub keys: Vec<Expr>,
    pub sets: Vec<Vec<usize>>,
}

impl Binder<'_> {
    /// The GROUP BY clause.
    pub fn group_by(&mut self, items: &[ast::GroupItem], distinct: bool, targets: &[Target]) -> Result<Grouping> {
        let mut keys: Vec<Expr> = Vec::new();
        let mut sets: Vec<Vec<usize>> = vec![vec![]];
        for item in items {
            let choices = self.group_item(item, targets, &mut keys)?;
            check_sets(sets.len() * choices.len())?;
            sets = sets
                .iter()
                .flat_map(|set| {
                    choices.iter().map(|choice| {
                        let mut set = set.clone();
                        set.extend(choice.iter().filter(|k| !set.contains(k)).copied().collect::<Vec<_>>());
                        set
                    })
                })
                .collect();
        }
        if distinct {
            let mut seen: Vec<Vec<usize>> = Vec::new();
            sets.retain(|set| {
                let mut sorted = set.clone();
                sorted.sort_unstable();
                let new = !seen.contains(&sorted);
                seen.push(sorted);
                new
            });
        }
        Ok(Grouping { keys, sets })
    }

    /// The sets an item offers: one for an expression, several for ROLLUP, CUBE and GROUPING SETS.
    fn group_item(
        &mut self,
        item: &ast::GroupItem,
        targets: &[Target],
        keys: &mut Vec<Expr>,
    ) -> Result<Vec<Vec<usize>>> {
        Ok(match item {
            ast::GroupItem::Empty => vec![vec![]],
            ast::GroupItem::Expr(e) => vec![self.group_keys(e, targets, keys)?],
            ast::GroupItem::Rollup(exprs) => {
                check_sets(exprs.len() + 1)?;
                let parts = exprs.iter().map(|e| self.group_keys(e, targets, keys)).collect::<Result<Vec<_>>>()?;
                (0..=parts.len()).rev().map(|n| parts[..n].concat()).collect()
            }
            ast::GroupItem::Cube(exprs) => {
                if exprs.len() > 12 {
                    return error(state::TOO_MANY_COLUMNS, exprs[0].pos, "CUBE is limited to 12 elements");
                }
                let parts = exprs.iter().map(|e| self.group_keys(e, targets, keys)).collect::<Result<Vec<_>>>()?;
                let subset = |bits: usize| {
                    parts
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| bits >> (parts.len() - 1 - i) & 1 == 1)
                        .flat_map(|(_, p)| p.clone())
                        .collect()
                };
                (0..1usize << parts.len()).rev().map(subset).collect()
            }
            ast::GroupItem::Sets(items) => {
                let mut sets = Vec::new();
                for item in items {
                    sets.extend(self.group_item(item, targets, keys)?);
                    check_sets(sets.len())?;
                }
                sets
            }
        })
    }

    /// The keys of an expression, or of a parenthesised list of them.
    fn group_keys(&mut self, e: &ast::Expr, targets: &[Target], keys: &mut Vec<Expr>) -> Result<Vec<usize>> {
        if let ast::ExprKind::Row { fields, explicit: false } = &e.kind {
            let mut set = Vec::with_capacity(fields.len());
            for field in fields {
                set.extend(self.group_keys(field, targets, keys)?);
            }
            return Ok(set);
        }
        let mut key = self.group_key(e, targets)?;
        super::operator::check_equality(key.ty.ty, e.pos)?;
        if has_set(&mut key) {
            return unsupported(e.pos, "a set-returning function in GROUP BY");
        }
        let mut aggregates = false;
        let mut windows = false;
        any_part(&mut key, &mut |e| {
            if let ExprKind::Column(i) = e.kind {
                aggregates |= (AGGREGATES..WINDOWS).contains(&i);
                windows |= i >= WINDOWS;
            }
            false
        });
        if aggregates {
            return error(state::GROUPING_ERROR, e.pos, "aggregate functions are not allowed in GROUP BY");
        }
        if windows {
            return error(state::WINDOWING_ERROR, e.pos, "window functions are not allowed in GROUP BY");
        }
        let index = keys.iter().position(|k| same(k, &key)).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        // Each key is an entry of the target list, a hidden one if need be.
        check_targets(keys.len())?;
        Ok(vec![index])
    }

    fn group_key(&mut self, e: &ast::Expr, targets: &[Target]) -> Result<Expr> {
        // A name is a column of FROM first, an output column second.
        let is_input = match &e.kind {
            ast::ExprKind::Column(names) if names.len() == 1 => {
                self.level().items.iter().any(|i| i.by_column && i.columns.iter().any(|c| *c.name == names[0].text))
            }
            _ => false,
        };
        if !is_input && let Some(index) = output_name(e, targets, "GROUP BY")? {
            self.note_output(e, index);
            let val = targets[index].val.clone();
            return Ok(self.resolve_unknown(val)?.e);
        }
        let val = self.in_clause(Clause::GroupBy, |b| b.expr(e))?;
        Ok(self.resolve_unknown(val)?.e)
    }

    /// Whether a column of FROM follows from the keys: its table's primary key is among them.
    fn follows_from(&self, items: &[Item], index: usize, keys: &[Expr]) -> bool {
        let is_column = |e: &Expr, i: usize| matches!(e.kind, ExprKind::Column(c) if c == i);
        items.iter().filter(|item| item.relation != 0 && item.columns.iter().any(|c| is_column(&c.value, index))).any(
            |item| {
                let Some(Relation::Table(table)) = self.catalog.by_oid(item.relation) else { return false };
                let Some(key) = &table.primary_key else { return false };
                key.columns.iter().all(|attnum| {
                    item.columns.iter().any(|c| {
                        c.origin == (table.oid, *attnum)
                            && matches!(c.value.kind, ExprKind::Column(i) if keys.iter().any(|k| is_column(k, i)))
                    })
                })
            },
        )
    }
}

fn check_sets(count: usize) -> Result<()> {
    if count > SETS_MAX {
        return Err(SqlError::new(
            state::STATEMENT_TOO_COMPLEX,
            format!("too many grouping sets present (maximum {SETS_MAX})"),
        ));
    }
    Ok(())
}

/// How a column of FROM is called in a message.
fn column_name(items: &[Item], from: &Rel, index: usize) -> String {
    for item in items.iter().filter(|i| i.by_name) {
        if let Some(c) = item.columns.iter().find(|c| matches!(c.value.kind, ExprKind::Column(i) if i == index)) {
            return format!("{}.{}", item.name.as_deref().unwrap_or_default(), c.name);
        }
    }
    from.schema.get(index).map_or_else(String::new, |f| f.name.to_string())
}

/// Puts the aggregate (HAVING and window calls above it) between FROM and the outputs, and rewrites the outputs to what is above.
pub(super) fn aggregate(
    binder: &mut Binder<'_>,
    grouping: Grouping,
    level: &mut Level,
    input: Rel,
    outputs: &mut [Expr],
    positions: &[Pos],
    having: Option<Expr>,
) -> Result<Rel> {
    let Grouping { mut keys, mut sets } = grouping;
    let mut groupings = Vec::with_capacity(level.groupings.len());
    for args in std::mem::take(&mut level.groupings) {
        let mut indexes = Vec::with_capacity(args.len());
        for (arg, pos) in args {
            match keys.iter().position(|k| same(k, &arg)) {
                Some(index) => indexes.push(index),
                None => {
                    return error(
                        state::GROUPING_ERROR,
                        pos,
                        "arguments to GROUPING must be grouping expressions of the associated query level",
                    );
                }
            }
        }
        groupings.push(indexes);
    }
    let single = sets.len() == 1;
    let items = std::mem::take(&mut level.items);
    let mut extra: Vec<Expr> = Vec::new();
    let mut rewrite = |e: &mut Expr, pos: Option<Pos>| -> Result<()> {
        walk_expr(e, 0, &mut |e, depth| {
            if depth == 0
                && let Some(k) = keys.iter().position(|k| same(k, e))
            {
                *e = Expr::column(k, e.ty);
                return Ok(true);
            }
            let index = match e.kind {
                ExprKind::Column(i) if depth == 0 => i,
                ExprKind::Outer { depth: d, index } if d == depth && depth > 0 => index,
                _ => return Ok(false),
            };
            if index >= AGGREGATES {
                return Ok(true);
            }
            let is_key = |k: &Expr| matches!(k.kind, ExprKind::Column(c) if c == index);
            let place = keys.iter().position(is_key).or_else(|| extra.iter().position(is_key).map(|x| keys.len() + x));
            let place = match place {
                Some(place) => place,
                None if single && binder.follows_from(&items, index, &keys) => {
                    extra.push(Expr::column(index, input.schema[index].ty));
                    keys.len() + extra.len() - 1
                }
                None => {
                    let name = column_name(&items, &input, index);
                    let message = if depth == 0 {
                        format!(
                            "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"
                        )
                    } else {
                        format!("subquery uses ungrouped column \"{name}\" from outer query")
                    };
                    return Err(SqlError::new(state::GROUPING_ERROR, message).at(pos.map(|p| p + 1)));
                }
            };
            e.kind = if depth == 0 { ExprKind::Column(place) } else { ExprKind::Outer { depth, index: place } };
            Ok(true)
        })
    };
    for (output, pos) in outputs.iter_mut().zip(positions) {
        let whole = matches!(output.kind, ExprKind::Column(_));
        rewrite(output, whole.then_some(*pos))?;
    }
    let mut having = having;
    if let Some(having) = &mut having {
        rewrite(having, None)?;
    }
    // Window calls are rewritten twice: here to find what they need of FROM, below with the final places of aggregates.
    let mut windows = std::mem::take(&mut level.windows);
    let mut defs = std::mem::take(&mut level.window_defs);
    let used: Vec<usize> = windows.iter().map(|w| w.over).collect();
    for pending in &mut windows {
        if let WindowFunc::Aggregate(agg) = &mut pending.func {
            agg.args.iter_mut().chain(&mut agg.filter).try_for_each(|e| rewrite(e, None))?;
        }
        pending.args.iter_mut().try_for_each(|e| rewrite(e, None))?;
    }
    for (i, def) in defs.iter_mut().enumerate() {
        if used.contains(&i) {
            def.partition_by
                .iter_mut()
                .chain(def.order_by.iter_mut().map(|k| &mut k.expr))
                .try_for_each(|e| rewrite(e, None))?;
        }
    }
    level.windows = windows;
    level.window_defs = defs;

    let first_extra = keys.len();
    keys.extend(extra);
    if let [only] = &mut sets[..] {
        only.extend(first_extra..keys.len());
    }
    let aggs = std::mem::take(&mut level.aggs);
    let width = keys.len() + aggs.len();
    let constant_grouping: Vec<i32> = groupings
        .iter()
        .map(|args| args.iter().fold(0, |bits, k| bits << 1 | i32::from(!sets[0].contains(k))))
        .collect();
    let agg_types: Vec<_> = aggs.iter().map(|a| a.ty).collect();
    let key_count = keys.len();
    let mut place = |e: &mut Expr| {
        map_row(e, &mut |index| {
            Ok(if !(AGGREGATES..WINDOWS).contains(&index) {
                None
            } else if index >= GROUPINGS {
                let g = index - GROUPINGS;
                Some(if single {
                    Expr::constant(Datum::Int4(constant_grouping[g]), Type::INT4)
                } else {
                    Expr::column(width + g, Type::INT4.plain())
                })
            } else {
                let a = index - AGGREGATES;
                Some(Expr::column(key_count + a, agg_types[a]))
            })
        })
    };
    outputs.iter_mut().try_for_each(&mut place)?;
    having.iter_mut().try_for_each(&mut place)?;

    let mut schema: Vec<Field> = keys
        .iter()
        .map(|k| match k.kind {
            ExprKind::Column(i) => input.schema[i].clone(),
            _ => field("?column?", k.ty),
        })
        .collect();
    schema.extend(aggs.iter().map(|a| field(a.func.name, a.ty)));
    if single {
        groupings.clear();
    }
    schema.extend(groupings.iter().map(|_| field("grouping", Type::INT4.plain())));
    let mut rel = Rel {
        kind: RelKind::Aggregate { input: Box::new(input), keys, sets, aggs, grouping: groupings },
        schema: schema.into(),
    };
    if let Some(having) = having {
        rel = filter(rel, having);
    }
    add_windows(level, rel, outputs, &mut place)
}
