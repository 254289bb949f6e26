//! OVER and WINDOW: partitions, orders and frames, and the columns window calls become.

use super::binder::*;
use super::function::sort_key;
use super::operator::check_equality;
use super::walk::{any_part, map_row, reads_row, same, walk_expr, walk_window};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::CastContext;
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Type, TypeMod};

impl Binder<'_> {
    /// The WINDOW clause, in order: each may build on those before.
    pub fn window_clause(&mut self, windows: &[(ast::Name, ast::WindowSpec)]) -> Result<()> {
        for (name, spec) in windows {
            if self.level().window_defs.iter().any(|w| w.name.as_deref() == Some(&name.text)) {
                return error(state::WINDOWING_ERROR, name.pos, format!("window \"{}\" is already defined", name.text));
            }
            let mut bound = self.window_spec(spec, false)?;
            bound.name = Some(name.text.clone());
            self.level().window_defs.push(bound);
        }
        Ok(())
    }

    fn named_window(&mut self, name: &ast::Name) -> Result<usize> {
        match self.level().window_defs.iter().position(|w| w.name.as_deref() == Some(&name.text)) {
            Some(index) => Ok(index),
            None => error(state::UNDEFINED_OBJECT, name.pos, format!("window \"{}\" does not exist", name.text)),
        }
    }

    /// A call with OVER: enters it into the level's list and gives what stands for it.
    pub fn window_call(
        &mut self,
        func: WindowFunc,
        args: Vec<Expr>,
        over: &ast::Over,
        ty: TypeMod,
        pos: Pos,
    ) -> Result<Val> {
        let mut parts: Vec<Expr> = args.clone();
        if let WindowFunc::Aggregate(agg) = &func {
            parts.extend(agg.args.iter().cloned().chain(agg.filter.clone()));
        }
        let mut nested = false;
        for part in &mut parts {
            walk_expr(part, 0, &mut |e, depth| {
                nested |= matches!(e.kind, ExprKind::Column(i) if depth == 0 && i >= WINDOWS);
                Ok(false)
            })?;
            if any_part(part, &mut |e| matches!(e.kind, ExprKind::SetCall { .. })) {
                return Err(SqlError::new(
                    state::FEATURE_NOT_SUPPORTED,
                    "window function calls cannot contain set-returning function calls",
                )
                .hint("You might be able to move the set-returning function into a LATERAL FROM item.")
                .at(Some(pos + 1)));
            }
        }
        if nested {
            return error(state::WINDOWING_ERROR, pos, "window function calls cannot be nested");
        }
        let over = match over {
            ast::Over::Name(name) => self.named_window(name)?,
            ast::Over::Spec(spec) => {
                let bound = self.window_spec(spec, true)?;
                let level = self.level();
                match level.window_defs.iter().position(|w| w.name.is_none() && same_window(w, &bound)) {
                    Some(index) => index,
                    None => {
                        level.window_defs.push(bound);
                        level.window_defs.len() - 1
                    }
                }
            }
        };
        let level = self.level();
        level.windows.push(PendingWindow { func, args, over, ty });
        let index = WINDOWS + level.windows.len() - 1;
        Ok(Val::new(ExprKind::Column(index), ty, pos))
    }

    fn window_spec(&mut self, spec: &ast::WindowSpec, inline: bool) -> Result<BoundWindow> {
        let base = match &spec.base {
            None => None,
            Some(name) => {
                let index = self.named_window(name)?;
                Some((name, self.level().window_defs[index].clone()))
            }
        };
        let wrong = |message: String| Err(SqlError::new(state::WINDOWING_ERROR, message).at(Some(spec.pos + 1)));
        if let Some((name, base)) = &base {
            if !spec.partition_by.is_empty() {
                return wrong(format!("cannot override PARTITION BY clause of window \"{}\"", name.text));
            }
            if !spec.order_by.is_empty() && !base.order_by.is_empty() {
                return wrong(format!("cannot override ORDER BY clause of window \"{}\"", name.text));
            }
            if base.has_frame {
                let plain = inline && spec.order_by.is_empty() && spec.frame.is_none();
                let made = SqlError::new(
                    state::WINDOWING_ERROR,
                    format!("cannot copy window \"{}\" because it has a frame clause", name.text),
                )
                .at(Some(spec.pos + 1));
                return Err(if plain { made.hint("Omit the parentheses in this OVER clause.") } else { made });
            }
        }
        let mut partition_by = Vec::new();
        for key in &spec.partition_by {
            let val = self.in_clause(Clause::WindowPartition, |b| b.expr(key))?;
            check_equality(val.ty(), val.pos)?;
            partition_by.push(self.resolve_unknown(val)?.e);
        }
        let mut order_by = Vec::new();
        for key in &spec.order_by {
            let val = self.in_clause(Clause::WindowOrder, |b| b.expr(&key.expr))?;
            order_by.push(sort_key(self.resolve_unknown(val)?.e, key)?);
        }
        if let Some((_, base)) = base {
            partition_by = base.partition_by;
            if order_by.is_empty() {
                order_by = base.order_by;
            }
        }
        let frame = match &spec.frame {
            Some(frame) => self.frame(frame, spec.pos, &mut order_by)?,
            None => Frame {
                unit: FrameUnit::Range,
                start: FrameBound::UnboundedPreceding,
                end: FrameBound::CurrentRow,
                exclude: FrameExclude::NoOthers,
            },
        };
        Ok(BoundWindow { name: None, partition_by, order_by, frame, has_frame: spec.frame.is_some() })
    }

    fn frame(&mut self, frame: &ast::Frame, pos: Pos, order_by: &mut [SortKey]) -> Result<Frame> {
        let offset = |b: &ast::FrameBound| matches!(b, ast::FrameBound::Preceding(_) | ast::FrameBound::Following(_));
        let has_offset = offset(&frame.start) || offset(&frame.end);
        if frame.unit == FrameUnit::Range && has_offset && order_by.len() != 1 {
            return error(
                state::WINDOWING_ERROR,
                pos,
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            );
        }
        if frame.unit == FrameUnit::Groups && order_by.is_empty() {
            return error(state::WINDOWING_ERROR, pos, "GROUPS mode requires an ORDER BY clause");
        }
        if frame.unit == FrameUnit::Range && has_offset {
            let offset_pos = match (&frame.start, &frame.end) {
                (ast::FrameBound::Preceding(e) | ast::FrameBound::Following(e), _) => e.pos,
                (_, ast::FrameBound::Preceding(e) | ast::FrameBound::Following(e)) => e.pos,
                _ => frame.pos,
            };
            self.widen_range_key(&mut order_by[0], offset_pos)?;
        }
        let start = self.frame_bound(&frame.start, frame.unit, order_by)?;
        let end = self.frame_bound(&frame.end, frame.unit, order_by)?;
        Ok(Frame { unit: frame.unit, start, end, exclude: frame.exclude })
    }

    /// The key of a RANGE with offset, in a type that adding the offset stays in: a date is a timestamp then.
    fn widen_range_key(&mut self, key: &mut SortKey, pos: Pos) -> Result<()> {
        let wide = match key.expr.ty.ty {
            Type::INT2 | Type::INT4 => Type::INT8,
            Type::FLOAT4 => Type::FLOAT8,
            Type::DATE => Type::TIMESTAMP,
            Type::TIME => Type::INTERVAL,
            Type::INT8 | Type::FLOAT8 | Type::NUMERIC | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL => {
                return Ok(());
            }
            other => {
                return error(
                    state::FEATURE_NOT_SUPPORTED,
                    pos,
                    format!(
                        "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {}",
                        other.sql_name()
                    ),
                );
            }
        };
        let val = Val { e: key.expr.clone(), pos, fields: None };
        key.expr = self.convert(val, wide, CastContext::Implicit)?.e;
        Ok(())
    }

    fn frame_bound(&mut self, bound: &ast::FrameBound, unit: FrameUnit, order_by: &[SortKey]) -> Result<FrameBound> {
        let (offset, preceding) = match bound {
            ast::FrameBound::UnboundedPreceding => return Ok(FrameBound::UnboundedPreceding),
            ast::FrameBound::CurrentRow => return Ok(FrameBound::CurrentRow),
            ast::FrameBound::UnboundedFollowing => return Ok(FrameBound::UnboundedFollowing),
            ast::FrameBound::Preceding(offset) => (offset, true),
            ast::FrameBound::Following(offset) => (offset, false),
        };
        let val = self.in_clause(Clause::WindowFrame, |b| b.expr(offset))?;
        let pos = val.pos;
        let name = match unit {
            FrameUnit::Rows => "ROWS",
            FrameUnit::Groups => "GROUPS",
            FrameUnit::Range => "RANGE",
        };
        let (mut value, mut minus, mut plus) = match unit {
            FrameUnit::Rows | FrameUnit::Groups => (self.argument_of(val, Type::INT8, name)?, None, None),
            FrameUnit::Range => {
                let key = &order_by[0].expr;
                let wanted = match key.ty.ty {
                    Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL => Type::INTERVAL,
                    number => number,
                };
                let source = val.ty();
                let Some(val) = self.try_convert(val, wanted, CastContext::Implicit)? else {
                    return Err(SqlError::new(
                        state::FEATURE_NOT_SUPPORTED,
                        format!(
                            "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {} and offset type {}",
                            key.ty.ty.sql_name(),
                            source.sql_name()
                        ),
                    )
                    .hint("Cast the offset value to an appropriate type.")
                    .at(Some(pos + 1)));
                };
                let side = |index, ty: TypeMod| Val {
                    e: Expr::column(index, TypeMod { ty: ty.ty, typmod: -1 }),
                    pos,
                    fields: None,
                };
                let minus = self.operator("-", Some(side(0, key.ty)), side(1, wanted.plain()), pos)?.e;
                let plus = self.operator("+", Some(side(0, key.ty)), side(1, wanted.plain()), pos)?.e;
                (val.e, Some(minus), Some(plus))
            }
        };
        if reads_row(&mut value) {
            return error(
                state::INVALID_COLUMN_REFERENCE,
                pos,
                format!("argument of {name} must not contain variables"),
            );
        }
        // A descending key moves the other way; the executor knows, so both are given as they are.
        let offset = Box::new(FrameOffset { value, minus: minus.take(), plus: plus.take() });
        Ok(if preceding { FrameBound::Preceding(offset) } else { FrameBound::Following(offset) })
    }
}

fn same_window(a: &BoundWindow, b: &BoundWindow) -> bool {
    let offset = |bound: &FrameBound| matches!(bound, FrameBound::Preceding(_) | FrameBound::Following(_));
    !a.has_frame
        && !b.has_frame
        && !offset(&a.frame.start)
        && a.partition_by.len() == b.partition_by.len()
        && a.order_by.len() == b.order_by.len()
        && a.partition_by.iter().zip(&b.partition_by).all(|(x, y)| same(x, y))
        && a.order_by
            .iter()
            .zip(&b.order_by)
            .all(|(x, y)| x.desc == y.desc && x.nulls_first == y.nulls_first && same(&x.expr, &y.expr))
}

/// Puts the level's window calls between a relation and what is computed from it: `rewrite` brings their parts to the relation's row; then every
/// stand-in in `outputs` becomes a column behind the relation's own.
pub(super) fn add_windows(
    level: &mut Level,
    input: Rel,
    outputs: &mut [Expr],
    rewrite: &mut dyn FnMut(&mut Expr) -> Result<()>,
) -> Result<Rel> {
    if level.windows.is_empty() {
        return Ok(input);
    }
    let width = input.schema.len();
    let mut calls = Vec::with_capacity(level.windows.len());
    for pending in std::mem::take(&mut level.windows) {
        let def = &level.window_defs[pending.over];
        let mut made = WindowCall {
            func: pending.func,
            args: pending.args,
            partition_by: def.partition_by.clone(),
            order_by: def.order_by.clone(),
            frame: def.frame.clone(),
            ty: pending.ty,
        };
        let WindowCall { func, args, partition_by, order_by, .. } = &mut made;
        if let WindowFunc::Aggregate(AggCall { args, filter, .. }) = func {
            args.iter_mut().chain(filter).try_for_each(&mut *rewrite)?;
        }
        args.iter_mut()
            .chain(partition_by)
            .chain(order_by.iter_mut().map(|k| &mut k.expr))
            .try_for_each(&mut *rewrite)?;
        debug_assert!(
            walk_window(&mut made.clone(), 0, &mut |e, d| {
                assert!(
                    !matches!(e.kind, ExprKind::Column(i) if d == 0 && i >= AGGREGATES),
                    "a stand-in is left in a window call"
                );
                Ok(false)
            })
            .is_ok()
        );
        calls.push(made);
    }
    for output in outputs {
        map_row(output, &mut |index| {
            Ok((index >= WINDOWS).then(|| Expr::column(width + (index - WINDOWS), calls[index - WINDOWS].ty)))
        })?;
    }
    let schema = input.schema.iter().cloned().chain(calls.iter().map(|c| field("?column?", c.ty))).collect();
    Ok(Rel { kind: RelKind::Window { input: Box::new(input), calls }, schema })
}
