//! Conversions: which are allowed where, how they are written, and the type several values have in common.
//!
//! PostgreSQL's `parse_coerce.c`: a literal of type unknown takes whatever type its surroundings want, through that type's input function, now; a
//! parameter of type unknown is settled by the first such want; everything else needs a cast whose context allows it.

use super::binder::*;
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{CastContext, CastMethod, ScalarFn, registry};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Datum, Type, TypeMod, info, io};

/// How one type becomes another.
pub(super) enum Path {
    /// Nothing to do.
    Relabel,
    Function(&'static ScalarFn),
    Io,
    /// Element by element.
    Array(Box<Path>),
}

/// The way from one type to another that a context allows.
pub(super) fn pathway(source: Type, target: Type, context: CastContext) -> Option<Path> {
    if source == target {
        return Some(Path::Relabel);
    }
    if let Some(cast) = registry().casts.get(&(source, target)) {
        if cast.context > context {
            return None;
        }
        return Some(match cast.method {
            CastMethod::Binary => Path::Relabel,
            CastMethod::Function(f) => Path::Function(f),
            CastMethod::InOut => Path::Io,
        });
    }
    if !matches!(target, Type::OIDVECTOR | Type::INT2VECTOR)
        && let (Some(from), Some(to)) = (source.element(), target.element())
    {
        match pathway(from, to, context) {
            Some(Path::Io) => return Some(Path::Io),
            Some(path) => return Some(Path::Array(Box::new(path))),
            None => {}
        }
    }
    let to_text = context >= CastContext::Assignment && target.is_string();
    let from_text = context >= CastContext::Explicit && source.is_string();
    (to_text || from_text).then_some(Path::Io)
}

/// Whether a value of one type may stand where another is wanted.
pub(super) fn can_coerce(source: Type, target: Type, context: CastContext) -> bool {
    source == target
        || source == Type::UNKNOWN
        || target == Type::ANY
        || target.is_polymorphic()
        || pathway(source, target, context).is_some()
}

/// Whether a value of one type is one of the other as it stands.
#[cfg(test)]
pub(super) fn binary_coercible(source: Type, target: Type) -> bool {
    source == target
        || target == Type::ANY
        || (target == Type::ANYARRAY && source.is_array())
        || registry()
            .casts
            .get(&(source, target))
            .is_some_and(|c| matches!(c.method, CastMethod::Binary) && c.context == CastContext::Implicit)
}

/// A call of a function of known types.
pub(super) fn call(func: &'static ScalarFn, args: Vec<Expr>, ty: TypeMod) -> Expr {
    Expr { kind: ExprKind::Call { func, args }, ty }
}

/// Applies a way to an expression.
fn apply(path: &Path, e: Expr, target: TypeMod, explicit: bool) -> Expr {
    match path {
        Path::Relabel => Expr { kind: e.kind, ty: target },
        Path::Function(func) => {
            let mut args = vec![e];
            // Cast functions may also take the modifier and whether the cast was written: text -> char(n), bit, interval.
            if func.args.len() > 1 && func.args[1] == Type::INT4 && func.optional == 0 {
                args.push(Expr::constant(Datum::Int4(target.typmod), Type::INT4));
                if func.args.len() > 2 {
                    args.push(Expr::constant(Datum::Bool(explicit), Type::BOOL));
                }
            }
            call(func, args, target)
        }
        Path::Io => Expr { kind: ExprKind::CoerceViaIo(Box::new(e)), ty: target },
        Path::Array(inner) => {
            let (from, to) = (e.ty.ty.element().unwrap_or(Type::TEXT), target.ty.element().unwrap_or(Type::TEXT));
            if matches!(**inner, Path::Relabel) && from == to {
                return Expr { kind: e.kind, ty: target };
            }
            let element = Expr::column(0, TypeMod { ty: from, typmod: e.ty.typmod });
            let cast = apply(inner, element, TypeMod { ty: to, typmod: target.typmod }, explicit);
            Expr { kind: ExprKind::ArrayCoerce { input: Box::new(e), cast: Box::new(cast) }, ty: target }
        }
    }
}

/// The category rule for a list of types (unknown ones included); Err tells the two that do not fit.
pub(super) fn common_type(types: &[Type]) -> Result<Type, (Type, Type)> {
    let mut common = Type::UNKNOWN;
    for &ty in types.iter().filter(|t| **t != Type::UNKNOWN) {
        if common == Type::UNKNOWN {
            common = ty;
        } else if ty != common {
            if ty.category() != common.category() {
                return Err((common, ty));
            }
            let forward = can_coerce(common, ty, CastContext::Implicit);
            if !common.is_preferred() && forward && !can_coerce(ty, common, CastContext::Implicit) {
                common = ty;
            }
        }
    }
    Ok(if common == Type::UNKNOWN { Type::TEXT } else { common })
}

impl Binder<'_> {
    /// Converts a value to a type (no modifier applied), as this context allows; None if it does not.
    pub fn try_convert(&mut self, val: Val, target: Type, context: CastContext) -> Result<Option<Val>> {
        if !can_coerce(val.ty(), target, context) {
            return Ok(None);
        }
        self.convert(val, target, context).map(Some)
    }

    /// Converts a value to a type it is known to fit.
    pub fn convert(&mut self, val: Val, target: Type, context: CastContext) -> Result<Val> {
        self.convert_mod(val, target.plain(), context)
    }

    fn convert_mod(&mut self, val: Val, target: TypeMod, context: CastContext) -> Result<Val> {
        let source = val.ty();
        if source == target.ty || target.ty == Type::ANY || target.ty.is_polymorphic() {
            return Ok(val);
        }
        let Val { e, pos, fields } = val;
        if source == Type::UNKNOWN {
            let kind = match e.kind {
                ExprKind::Const(Datum::Null) => ExprKind::Const(Datum::Null),
                ExprKind::Const(Datum::Text(text)) => {
                    // Only an interval's input depends on the modifier: '1' of HOUR is an hour.
                    let typmod = if target.ty == Type::INTERVAL { target.typmod } else { -1 };
                    let value = io::text_in(&text, TypeMod { ty: target.ty, typmod }, self.env.session).at_pos(pos)?;
                    self.note_literal(&text, pos, &value, target.ty);
                    ExprKind::Const(value)
                }
                ExprKind::Param(index) => {
                    self.settle_param(index, target.ty, pos)?;
                    ExprKind::Param(index)
                }
                kind => ExprKind::CoerceViaIo(Box::new(Expr { kind, ty: e.ty })),
            };
            return Ok(Val { e: Expr { kind, ty: target.ty.plain() }, pos, fields: None });
        }
        let Some(path) = pathway(source, target.ty, context) else {
            return error(
                state::CANNOT_COERCE,
                pos,
                format!("cannot cast type {} to {}", source.sql_name(), target.ty.sql_name()),
            );
        };
        let typmod = if matches!(path, Path::Relabel) && target.typmod < 0 { -1 } else { target.typmod };
        let explicit = context == CastContext::Explicit;
        Ok(Val { e: apply(&path, e, TypeMod { ty: target.ty, typmod }, explicit), pos, fields })
    }

    fn settle_param(&mut self, index: usize, ty: Type, pos: Pos) -> Result<()> {
        if matches!(ty, Type::UNKNOWN | Type::RECORD) {
            return Ok(());
        }
        if let Some(at) = self.unsettled.iter().position(|i| *i == index) {
            self.unsettled.swap_remove(at);
        }
        match self.env.params.settle(index, ty) {
            Some(earlier) if earlier != ty => {
                let message = format!("inconsistent types deduced for parameter ${}", index + 1);
                Err(SqlError::new(state::AMBIGUOUS_PARAMETER, message)
                    .detail(format!("{} versus {}", earlier.sql_name(), ty.sql_name()))
                    .at(Some(pos + 1)))
            }
            _ => Ok(()),
        }
    }

    /// Converts a value to a type with its modifier; None if the context does not allow it.
    pub fn coerce_to(&mut self, val: Val, target: TypeMod, context: CastContext) -> Result<Option<Val>> {
        if !can_coerce(val.ty(), target.ty, context) {
            return Ok(None);
        }
        let before = val.ty();
        let val = self.convert_mod(val, target, context)?;
        // A cast function that took the modifier has applied it.
        if before != target.ty && val.e.ty.typmod == target.typmod && took_modifier(&val.e) {
            return Ok(Some(val));
        }
        let mut val = val;
        if before != target.ty {
            // The conversion only named the modifier; it is still to be applied.
            val.e.ty.typmod = -1;
        }
        Ok(Some(self.apply_typmod(val, target.typmod, context == CastContext::Explicit)))
    }

    /// The length coercion of a type: varchar(n), numeric(p,s), timestamp(p).
    fn apply_typmod(&self, mut val: Val, typmod: i32, explicit: bool) -> Val {
        let ty = val.ty();
        if typmod < 0 || (val.e.ty.typmod == typmod && !matches!(val.e.kind, ExprKind::Const(_))) {
            val.e.ty.typmod = typmod;
            return val;
        }
        if matches!(val.e.kind, ExprKind::Const(Datum::Null)) {
            val.e.ty.typmod = typmod;
            return val;
        }
        let element = ty.element().unwrap_or(ty);
        let Some(CastMethod::Function(func)) = registry().casts.get(&(element, element)).map(|c| c.method) else {
            val.e.ty.typmod = typmod;
            return val;
        };
        let fit = |e: Expr| {
            let mut args = vec![e, Expr::constant(Datum::Int4(typmod), Type::INT4)];
            if func.args.len() > 2 {
                args.push(Expr::constant(Datum::Bool(explicit), Type::BOOL));
            }
            args.truncate(func.args.len().max(1));
            call(func, args, TypeMod { ty: element, typmod })
        };
        if element == ty {
            val.e = fit(val.e);
        } else {
            let cast = Box::new(fit(Expr::column(0, element.plain())));
            val.e = Expr { kind: ExprKind::ArrayCoerce { input: Box::new(val.e), cast }, ty: TypeMod { ty, typmod } };
        }
        val
    }

    /// An explicit cast.
    pub fn cast(&mut self, val: Val, target: TypeMod, pos: Pos) -> Result<Val> {
        let source = val.ty();
        if let (Type::RECORD, Some(fields)) = (target.ty, &val.fields) {
            let fields = Some(fields.clone());
            return Ok(Val { fields, ..val });
        }
        match self.coerce_to(val, target, CastContext::Explicit)? {
            Some(val) => Ok(val),
            None => error(
                state::CANNOT_COERCE,
                pos,
                format!("cannot cast type {} to {}", source.sql_name(), target.ty.sql_name()),
            ),
        }
    }

    /// The conversion an INSERT or UPDATE makes to store a value in a column.
    pub fn assign(&mut self, val: Val, target: TypeMod, column: &str) -> Result<Val> {
        let (source, pos) = (val.ty(), val.pos);
        match self.coerce_to(val, target, CastContext::Assignment)? {
            Some(val) => Ok(val),
            None => Err(SqlError::new(
                state::DATATYPE_MISMATCH,
                format!(
                    "column \"{column}\" is of type {} but expression is of type {}",
                    target.ty.sql_name(),
                    source.sql_name()
                ),
            )
            .hint("You will need to rewrite or cast the expression.")
            .at(Some(pos + 1))),
        }
    }

    /// A boolean, or 42804 naming the clause.
    pub fn boolean(&mut self, val: Val, what: &str) -> Result<Expr> {
        self.argument_of(val, Type::BOOL, what)
    }

    /// A value of a certain type (`LIMIT` wants bigint), or 42804.
    pub fn argument_of(&mut self, val: Val, target: Type, what: &str) -> Result<Expr> {
        let (source, pos) = (val.ty(), val.pos);
        match self.try_convert(val, target, CastContext::Assignment)? {
            Some(val) => Ok(val.e),
            None => error(
                state::DATATYPE_MISMATCH,
                pos,
                format!("argument of {what} must be type {}, not type {}", target.sql_name(), source.sql_name()),
            ),
        }
    }

    /// The type values of a construct (`CASE`, `UNION`) have in common.
    pub fn common_type_of(&self, vals: &[&Val], what: &str) -> Result<Type> {
        let types: Vec<Type> = vals.iter().map(|v| v.ty()).collect();
        common_type(&types).map_err(|(a, b)| {
            let pos = vals.iter().find(|v| v.ty() == b).map(|v| v.pos + 1);
            SqlError::new(
                state::DATATYPE_MISMATCH,
                format!("{what} types {} and {} cannot be matched", a.sql_name(), b.sql_name()),
            )
            .at(pos)
        })
    }

    /// Converts a value to the common type of a construct.
    pub fn to_common(&mut self, val: Val, target: Type, what: &str) -> Result<Val> {
        let (source, pos) = (val.ty(), val.pos);
        match self.try_convert(val, target, CastContext::Implicit)? {
            Some(val) => Ok(val),
            None => error(
                state::CANNOT_COERCE,
                pos,
                format!("{what} could not convert type {} to {}", source.sql_name(), target.sql_name()),
            ),
        }
    }

    /// Brings values to their common type; the modifier stays if all have the same.
    pub fn unify(&mut self, vals: Vec<Val>, what: &str) -> Result<(Vec<Expr>, TypeMod)> {
        let ty = self.common_type_of(&vals.iter().collect::<Vec<_>>(), what)?;
        let vals = vals.into_iter().map(|v| self.to_common(v, ty, what)).collect::<Result<Vec<_>>>()?;
        let typmod = common_typmod(vals.iter().map(|v| v.e.ty), ty);
        Ok((vals.into_iter().map(|v| v.e).collect(), TypeMod { ty, typmod }))
    }

    /// Literals and parameters that nothing told a type are text.
    pub fn resolve_unknown(&mut self, val: Val) -> Result<Val> {
        if val.is_unknown() { self.convert(val, Type::TEXT, CastContext::Implicit) } else { Ok(val) }
    }

    /// A type as written.
    pub fn type_name(&self, ty: &ast::TypeName) -> Result<TypeMod> {
        let name = ty.name.last();
        let missing = |shown: &str| error(state::UNDEFINED_OBJECT, ty.pos, format!("type \"{shown}\" does not exist"));
        if let Some(schema) = ty.name.schema() {
            if self.catalog.schema_oid(schema).is_none() && schema != "pg_catalog" {
                return error(state::INVALID_SCHEMA_NAME, ty.pos, format!("schema \"{schema}\" does not exist"));
            }
            if schema != "pg_catalog" {
                return missing(&ty.name.to_string());
            }
        }
        let Some(mut found) = Type::by_typname(name) else {
            if info::unsupported_name(name) {
                return unsupported(ty.pos, format!("type {name}"));
            }
            if ty.name.schema().is_none() && self.catalog.find(&self.search_path, name).is_some() {
                return unsupported(ty.pos, format!("the row type of \"{name}\""));
            }
            return missing(name);
        };
        let mut typmod = -1;
        if let Some(mask) = ty.interval_fields {
            let precision = self.modifiers(ty)?.first().copied().map_or(0xffff, |p| p.clamp(0, 6));
            typmod = mask << 16 | precision;
        } else if !ty.mods.is_empty() {
            typmod = info::typmod_in(found, &self.modifiers(ty)?).at_pos(ty.pos)?;
        }
        if ty.dims > 0 && !found.is_array() {
            found = match found.array_of() {
                Some(array) => array,
                None => {
                    return error(
                        state::UNDEFINED_OBJECT,
                        ty.pos,
                        format!("could not find array type for data type {}", found.sql_name()),
                    );
                }
            };
        }
        Ok(TypeMod { ty: found, typmod })
    }

    fn modifiers(&self, ty: &ast::TypeName) -> Result<Vec<i32>> {
        ty.mods
            .iter()
            .map(|m| match &m.kind {
                ast::ExprKind::Number(n) => n.parse().map_err(|_| {
                    SqlError::new(
                        state::INVALID_TEXT_REPRESENTATION,
                        format!("invalid input syntax for type integer: \"{n}\""),
                    )
                    .at(Some(m.pos + 1))
                }),
                ast::ExprKind::String(_) | ast::ExprKind::Column(_) => {
                    error(state::INVALID_PARAMETER_VALUE, m.pos, "invalid type modifier")
                }
                _ => error(state::SYNTAX_ERROR, m.pos, "type modifiers must be simple constants or identifiers"),
            })
            .collect()
    }
}

/// The modifier values share, if all are of the type and have the same.
pub(super) fn common_typmod(types: impl Iterator<Item = TypeMod>, ty: Type) -> i32 {
    let mut common = None;
    for t in types {
        if t.ty != ty || common.is_some_and(|c| c != t.typmod) {
            return -1;
        }
        common = Some(t.typmod);
    }
    common.unwrap_or(-1)
}

fn took_modifier(e: &Expr) -> bool {
    match &e.kind {
        ExprKind::Call { func, args } => func.args.len() > 1 && args.len() > 1,
        ExprKind::ArrayCoerce { cast, .. } => took_modifier(cast),
        _ => false,
    }
}
