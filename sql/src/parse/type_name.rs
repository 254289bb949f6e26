//! Types as written: keyword spellings, modifiers, arrays, the fields of an interval.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::{Result, SqlError, state};

/// Bits of `INTERVAL_MASK`.
const YEAR: i32 = 1 << 2;
const MONTH: i32 = 1 << 1;
const DAY: i32 = 1 << 3;
const HOUR: i32 = 1 << 10;
const MINUTE: i32 = 1 << 11;
const SECOND: i32 = 1 << 12;

/// Words that begin a type's keyword spelling, and so a typed literal.
const TYPE_WORDS: &[&str] = &[
    "int",
    "integer",
    "smallint",
    "bigint",
    "real",
    "float",
    "decimal",
    "dec",
    "numeric",
    "boolean",
    "bit",
    "character",
    "char",
    "nchar",
    "national",
    "varchar",
    "timestamp",
    "time",
    "interval",
];

impl Parser<'_> {
    /// Whether a keyword spelling of a type begins here.
    pub fn is_type_keyword(&self) -> bool {
        match self.tok() {
            Tok::Word(w, Some(_)) => {
                TYPE_WORDS.contains(&w.as_str()) || (w == "double" && self.is_kw_at(1, "precision"))
            }
            _ => false,
        }
    }

    /// A type in a cast or a definition.
    pub fn type_name(&mut self) -> Result<TypeName> {
        let pos = self.pos();
        if self.is_kw("setof") {
            return self.unsupported(pos, "SETOF");
        }
        let mut ty = if self.is_type_keyword() { self.keyword_type(false)? } else { self.generic_type()? };
        while self.eat_op("[") {
            if !self.is_op("]") {
                self.int_const()?;
            }
            self.expect_op("]")?;
            ty.dims += 1;
        }
        if ty.dims == 0 && self.eat_kw("array") {
            ty.dims = 1;
            if self.eat_op("[") {
                self.int_const()?;
                self.expect_op("]")?;
            }
        }
        Ok(ty)
    }

    fn generic_type(&mut self) -> Result<TypeName> {
        let first = self.type_function_name()?;
        let mut parts = vec![first.text];
        while self.eat_op(".") {
            parts.push(self.col_label()?.text);
        }
        let pos = first.pos;
        // No %TYPE: only routines' parameters have it, and `7::int4 % 2` is a remainder.
        let mut mods = Vec::new();
        if self.eat_op("(") {
            mods = self.comma_list(|p| p.expr())?;
            self.expect_op(")")?;
        }
        Ok(TypeName { name: QName { parts, pos }, mods, interval_fields: None, dims: 0, pos })
    }

    fn precision(&mut self) -> Result<Vec<Expr>> {
        if !self.is_op("(") {
            return Ok(Vec::new());
        }
        self.advance();
        let pos = self.pos();
        let n = self.int_const()?;
        self.expect_op(")")?;
        Ok(vec![Expr { kind: ExprKind::Number(n.to_string()), pos }])
    }

    /// A type by keyword. In a typed literal (`constant`) char without a length has no limit.
    pub fn keyword_type(&mut self, constant: bool) -> Result<TypeName> {
        let pos = self.pos();
        let word = self.col_label()?.text;
        let mut mods = Vec::new();
        let mut interval_fields = None;
        let name = match word.as_str() {
            "int" | "integer" => "int4",
            "smallint" => "int2",
            "bigint" => "int8",
            "real" => "float4",
            "boolean" => "bool",
            "double" => {
                self.expect_kw("precision")?;
                "float8"
            }
            "float" => self.float_width()?,
            "decimal" | "dec" | "numeric" => {
                if self.eat_op("(") {
                    mods = self.comma_list(|p| p.expr())?;
                    self.expect_op(")")?;
                }
                "numeric"
            }
            "bit" => {
                let varying = self.eat_kw("varying");
                if self.eat_op("(") {
                    mods = self.comma_list(|p| p.expr())?;
                    self.expect_op(")")?;
                }
                if varying { "varbit" } else { "bit" }
            }
            "national" => {
                if self.eat_one_of(&["character", "char"]).is_none() {
                    return Err(self.unexpected());
                }
                self.character(false, constant, &mut mods)?
            }
            "character" | "char" | "nchar" => self.character(false, constant, &mut mods)?,
            "varchar" => self.character(true, constant, &mut mods)?,
            "timestamp" | "time" => {
                mods = self.precision()?;
                let zone = if self.eat_kws(&["with", "time", "zone"]) {
                    true
                } else {
                    self.eat_kws(&["without", "time", "zone"]);
                    false
                };
                match (word.as_str(), zone) {
                    ("timestamp", false) => "timestamp",
                    ("timestamp", true) => "timestamptz",
                    (_, false) => "time",
                    (_, true) => "timetz",
                }
            }
            _ => {
                if self.is_op("(") {
                    mods = self.precision()?;
                } else if !constant {
                    (interval_fields, mods) = self.interval_fields()?;
                }
                "interval"
            }
        };
        let name = QName { parts: vec!["pg_catalog".into(), name.into()], pos };
        Ok(TypeName { name, mods, interval_fields, dims: 0, pos })
    }

    fn float_width(&mut self) -> Result<&'static str> {
        if !self.eat_op("(") {
            return Ok("float8");
        }
        let pos = self.pos();
        let bits = self.int_const()?;
        self.expect_op(")")?;
        let out = |what: &str| {
            Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("precision for type float must be {what}"))
                .at(Some(pos + 1)))
        };
        match bits {
            ..=0 => out("at least 1 bit"),
            1..=24 => Ok("float4"),
            25..=53 => Ok("float8"),
            _ => out("less than 54 bits"),
        }
    }

    fn character(&mut self, varying: bool, constant: bool, mods: &mut Vec<Expr>) -> Result<&'static str> {
        let varying = varying || self.eat_kw("varying");
        *mods = self.precision()?;
        if mods.is_empty() && !varying && !constant {
            mods.push(Expr { kind: ExprKind::Number("1".into()), pos: self.pos() });
        }
        Ok(if varying { "varchar" } else { "bpchar" })
    }

    /// `YEAR TO MONTH` and its like, with the precision of SECOND.
    pub fn interval_fields(&mut self) -> Result<(Option<i32>, Vec<Expr>)> {
        let Some(first) = self.eat_one_of(&["year", "month", "day", "hour", "minute", "second"]) else {
            return Ok((None, Vec::new()));
        };
        if first == "second" {
            return Ok((Some(SECOND), self.precision()?));
        }
        let single = match first {
            "year" => YEAR,
            "month" => MONTH,
            "day" => DAY,
            "hour" => HOUR,
            _ => MINUTE,
        };
        if !self.is_kw("to") || first == "month" {
            return Ok((Some(single), Vec::new()));
        }
        self.advance();
        let last = self.eat_one_of(&["month", "hour", "minute", "second"]);
        let mask = match (first, last) {
            ("year", Some("month")) => YEAR | MONTH,
            ("day", Some("hour")) => DAY | HOUR,
            ("day", Some("minute")) => DAY | HOUR | MINUTE,
            ("day", Some("second")) => DAY | HOUR | MINUTE | SECOND,
            ("hour", Some("minute")) => HOUR | MINUTE,
            ("hour", Some("second")) => HOUR | MINUTE | SECOND,
            ("minute", Some("second")) => MINUTE | SECOND,
            (_, Some(_)) => return Err(self.unexpected_at(self.at - 1)),
            (_, None) => return Err(self.unexpected()),
        };
        let mods = if last == Some("second") { self.precision()? } else { Vec::new() };
        Ok((Some(mask), mods))
    }
}
