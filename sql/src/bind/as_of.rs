//! AS OF: from what was written to a version. It is resolved while binding, for the schema is that of the version too.

use super::binder::*;
use super::constant::require;
use crate::error::{Result, SqlError, state};
use crate::functions::registry::CastContext;
use crate::ir::*;
use crate::parse::ast;
use crate::types::{Datum, Type, TypeMod, io};

impl Binder<'_> {
    /// The version an AS OF names.
    pub fn resolve_as_of(&mut self, as_of: &ast::AsOf) -> Result<u64> {
        match &as_of.kind {
            ast::AsOfKind::Tag(name) => match self.env.catalog.tags.get(name) {
                Some(tag) => Ok(tag.version),
                None => error(state::UNDEFINED_OBJECT, as_of.pos, format!("tag \"{name}\" does not exist")),
            },
            ast::AsOfKind::Version(e) => {
                let val = self.as_of_value(e)?;
                let pos = val.pos;
                self.relative |= !matches!(val.e.kind, ExprKind::Const(_));
                // Not by an assignment's rules: those would round 3.5.
                if !matches!(val.ty(), Type::UNKNOWN | Type::INT2 | Type::INT4 | Type::INT8) {
                    return error(
                        state::DATATYPE_MISMATCH,
                        pos,
                        format!("argument of AS OF VERSION must be an integer, not type {}", val.ty().sql_name()),
                    );
                }
                let e = self.argument_of(val, Type::INT8, "AS OF VERSION")?;
                match require(&e, self.env.session, "AS OF VERSION with a value").at_pos(pos)? {
                    Datum::Int8(version) if version >= 0 => Ok(version as u64),
                    Datum::Int8(version) => {
                        error(state::INVALID_PARAMETER_VALUE, pos, format!("version {version} does not exist"))
                    }
                    _ => error(state::NULL_VALUE_NOT_ALLOWED, pos, "AS OF VERSION must not be null"),
                }
            }
            ast::AsOfKind::Time(e) => {
                let val = self.as_of_value(e)?;
                let pos = val.pos;
                let is_literal = matches!(val.e.kind, ExprKind::Const(_)) && val.ty() != Type::INTERVAL;
                let micros = self.as_of_micros(val)?;
                // A time still to come names the newest version, whichever that is then.
                self.relative |= !is_literal || micros >= self.env.session.statement_micros;
                self.env.resolver.version_at(micros).at_pos(pos)
            }
        }
    }

    /// The constant behind AS OF. Parameters have no value yet, so they cannot be one.
    fn as_of_value(&mut self, e: &ast::Expr) -> Result<Val> {
        if let ast::ExprKind::Param(_) = e.kind {
            return unsupported(e.pos, "a parameter in AS OF");
        }
        let (val, _) = self.in_level(Level::new(vec![], Clause::AsOf), |b| b.expr(e))?;
        Ok(val)
    }

    fn as_of_micros(&mut self, val: Val) -> Result<i64> {
        let pos = val.pos;
        let session = self.env.session;
        let not_null =
            || SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "AS OF TIMESTAMP must not be null").at(Some(pos + 1));
        // A string is a time, or with a sign in front a span before now.
        if let (true, ExprKind::Const(Datum::Text(text))) = (val.is_unknown(), &val.e.kind)
            && text.trim_start().starts_with('-')
            && !text.trim().eq_ignore_ascii_case("-infinity")
        {
            self.relative = true;
            let span = io::text_in(text, TypeMod::from(Type::INTERVAL), session).at_pos(pos)?;
            return self.after_now(Expr::constant(span, Type::INTERVAL), pos);
        }
        if val.ty() == Type::INTERVAL {
            return self.after_now(val.e, pos);
        }
        let e = match self.try_convert(val, Type::TIMESTAMPTZ, CastContext::Assignment)? {
            Some(val) => val.e,
            None => return error(state::DATATYPE_MISMATCH, pos, "argument of AS OF TIMESTAMP must be a time"),
        };
        match require(&e, session, "AS OF TIMESTAMP with a value").at_pos(pos)? {
            Datum::TimestampTz(micros) => Ok(micros),
            _ => Err(not_null()),
        }
    }

    fn after_now(&mut self, span: Expr, pos: u32) -> Result<i64> {
        let now = Expr::constant(Datum::TimestampTz(self.env.session.statement_micros), Type::TIMESTAMPTZ);
        let side = |e| Val { e, pos, fields: None };
        let sum = self.operator("+", Some(side(now)), side(span), pos)?.e;
        match require(&sum, self.env.session, "AS OF with a value").at_pos(pos)? {
            Datum::TimestampTz(micros) => Ok(micros),
            _ => error(state::NULL_VALUE_NOT_ALLOWED, pos, "AS OF SYSTEM TIME must not be null"),
        }
    }
}
