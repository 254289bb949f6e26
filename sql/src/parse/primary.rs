//! What an expression begins with: constants, names, calls, and the forms that only look like calls.

use super::ast::*;
use super::expr::{Paren, make, plain_call, special};
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::Result;

impl Parser<'_> {
    pub fn primary(&mut self) -> Result<Expr> {
        let pos = self.pos();
        let kind = match self.tok() {
            Tok::Number(n) => ExprKind::Number((*n).to_owned()),
            Tok::Str(s) => ExprKind::String(s.clone()),
            Tok::Bits(s) => ExprKind::BitString(s.clone()),
            Tok::Param(n) => {
                let n = *n;
                self.max_param = self.max_param.max(n);
                self.advance();
                return self.indirection(make(ExprKind::Param(n), pos));
            }
            Tok::Op("(") => {
                return match self.paren()? {
                    Paren::Query(query) => self.indirection(make(ExprKind::ScalarQuery(query), pos)),
                    Paren::Exprs(exprs) => self.parenthesised(exprs, pos),
                };
            }
            Tok::Op("*") | Tok::Op(_) | Tok::End | Tok::Error(_) => return Err(self.unexpected()),
            Tok::Quoted(_) => return self.name_form(),
            Tok::Word(_, _) => return self.word_form(),
        };
        self.advance();
        Ok(make(kind, pos))
    }

    /// What begins with a word: a keyword's own form, a typed literal, a call, a column.
    fn word_form(&mut self) -> Result<Expr> {
        let pos = self.pos();
        let word = match self.tok() {
            Tok::Word(w, Some(_)) => w.clone(),
            _ => return self.name_form(),
        };
        if let Some(value) = self.keyword_value(&word)? {
            return Ok(make(ExprKind::Keyword(value), pos));
        }
        let constant = match word.as_str() {
            "true" => Some(ExprKind::Bool(true)),
            "false" => Some(ExprKind::Bool(false)),
            "null" => Some(ExprKind::Null),
            "default" => Some(ExprKind::Default),
            _ => None,
        };
        if let Some(kind) = constant {
            self.advance();
            return Ok(make(kind, pos));
        }
        if let Some(made) = self.keyword_form(&word, pos)? {
            return Ok(made);
        }
        if self.is_type_keyword() {
            return self.typed_literal(pos);
        }
        self.name_form()
    }

    fn keyword_value(&mut self, word: &str) -> Result<Option<KeywordValue>> {
        use KeywordValue::*;
        let value = match word {
            "current_date" => CurrentDate,
            "current_user" => CurrentUser,
            "session_user" => SessionUser,
            "user" => User,
            "current_role" => CurrentRole,
            "current_catalog" => CurrentCatalog,
            "current_schema" if !self.is_op_at(1, "(") => CurrentSchema,
            "current_time" | "current_timestamp" | "localtime" | "localtimestamp" => {
                self.advance();
                let mut precision = None;
                if self.eat_op("(") {
                    precision = Some(self.int_const()?);
                    self.expect_op(")")?;
                }
                return Ok(Some(match word {
                    "current_time" => CurrentTime(precision),
                    "current_timestamp" => CurrentTimestamp(precision),
                    "localtime" => LocalTime(precision),
                    _ => LocalTimestamp(precision),
                }));
            }
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(value))
    }

    /// `int '42'`, `interval '1' year`.
    fn typed_literal(&mut self, pos: Pos) -> Result<Expr> {
        let mut ty = self.keyword_type(true)?;
        let input_pos = self.pos();
        let text = self.string()?;
        if ty.name.last() == "interval" && ty.mods.is_empty() {
            (ty.interval_fields, ty.mods) = self.interval_fields()?;
        }
        let input = Box::new(make(ExprKind::String(text), input_pos));
        Ok(make(ExprKind::Cast { input, ty: Box::new(ty) }, pos))
    }

    /// Forms that only a keyword begins. None: the word is an ordinary name here.
    fn keyword_form(&mut self, word: &str, pos: Pos) -> Result<Option<Expr>> {
        let call = self.is_op_at(1, "(");
        let kind = match word {
            "case" => {
                self.advance();
                self.case_form()?
            }
            "exists" if call => {
                self.advance();
                match self.paren()? {
                    Paren::Query(query) => ExprKind::Exists(query),
                    Paren::Exprs(_) => return Err(self.unexpected_at(self.at)),
                }
            }
            "array" => {
                self.advance();
                if self.is_op("[") {
                    ExprKind::Array(self.array_elements()?)
                } else {
                    match self.paren()? {
                        Paren::Query(query) => ExprKind::ArrayQuery(query),
                        Paren::Exprs(_) => return Err(self.unexpected_at(self.at)),
                    }
                }
            }
            "row" if call => {
                self.at += 2;
                let fields = if self.is_op(")") { vec![] } else { self.comma_list(|p| p.row_field())? };
                self.expect_op(")")?;
                ExprKind::Row { fields, explicit: true }
            }
            "grouping" if call => {
                self.at += 2;
                let args = self.comma_list(|p| p.expr())?;
                self.expect_op(")")?;
                ExprKind::Grouping(args)
            }
            "cast" if call => {
                self.at += 2;
                let input = Box::new(self.expr()?);
                self.expect_kw("as")?;
                let ty = Box::new(self.type_name()?);
                self.expect_op(")")?;
                ExprKind::Cast { input, ty }
            }
            "coalesce" | "greatest" | "least" if call => {
                self.at += 2;
                let args = self.comma_list(|p| p.expr())?;
                self.expect_op(")")?;
                if word == "coalesce" {
                    ExprKind::Coalesce(args)
                } else {
                    ExprKind::MinMax { args, greatest: word == "greatest" }
                }
            }
            "nullif" if call => {
                self.at += 2;
                let left = Box::new(self.expr()?);
                self.expect_op(",")?;
                let right = Box::new(self.expr()?);
                self.expect_op(")")?;
                ExprKind::NullIf(left, right)
            }
            "extract" | "position" | "substring" | "overlay" | "trim" | "normalize" if call => {
                self.at += 2;
                let made = self.string_form(word, pos)?;
                return Ok(Some(made));
            }
            "collation" if self.is_kw_at(1, "for") => {
                self.at += 2;
                self.expect_op("(")?;
                let value = self.expr()?;
                self.expect_op(")")?;
                return Ok(Some(special("pg_collation_for", vec![value], pos)));
            }
            "treat" | "xmlconcat" | "xmlelement" | "xmlexists" | "xmlforest" | "xmlparse" | "xmlpi" | "xmlroot"
            | "xmlserialize" | "xmltable"
                if call =>
            {
                return self.unsupported(pos, &word.to_ascii_uppercase());
            }
            _ => return Ok(None),
        };
        Ok(Some(make(kind, pos)))
    }

    fn row_field(&mut self) -> Result<Expr> {
        self.target_value()
    }

    fn array_elements(&mut self) -> Result<Vec<Expr>> {
        self.nested(1, |p| {
            p.expect_op("[")?;
            if p.eat_op("]") {
                return Ok(vec![]);
            }
            let elements = p.comma_list(|p| {
                let pos = p.pos();
                if p.is_op("[") { Ok(make(ExprKind::Array(p.array_elements()?), pos)) } else { p.expr() }
            })?;
            p.expect_op("]")?;
            Ok(elements)
        })
    }

    fn case_form(&mut self) -> Result<ExprKind> {
        let operand = if self.is_kw("when") { None } else { Some(Box::new(self.expr()?)) };
        let mut whens = Vec::new();
        while self.eat_kw("when") {
            let condition = self.expr()?;
            self.expect_kw("then")?;
            whens.push((condition, self.expr()?));
        }
        if whens.is_empty() {
            return Err(self.unexpected());
        }
        let otherwise = if self.eat_kw("else") { Some(Box::new(self.expr()?)) } else { None };
        self.expect_kw("end")?;
        Ok(ExprKind::Case { operand, whens, otherwise })
    }

    /// EXTRACT, POSITION, SUBSTRING, OVERLAY, TRIM, NORMALIZE, after the opening parenthesis.
    fn string_form(&mut self, word: &str, pos: Pos) -> Result<Expr> {
        let args = match word {
            "extract" => {
                let field_pos = self.pos();
                let field = if matches!(self.tok(), Tok::Str(_)) { self.string()? } else { self.col_label()?.text };
                self.expect_kw("from")?;
                vec![make(ExprKind::String(field), field_pos), self.expr()?]
            }
            "position" => {
                let part = self.b_expr()?;
                self.expect_kw("in")?;
                let whole = self.b_expr()?;
                vec![whole, part]
            }
            "trim" => return self.trim_form(pos),
            "normalize" => {
                let value = self.expr()?;
                let mut args = vec![value];
                if self.eat_op(",") {
                    let form_pos = self.pos();
                    match self.eat_one_of(&["nfc", "nfd", "nfkc", "nfkd"]) {
                        Some(form) => args.push(make(ExprKind::String(form.to_ascii_uppercase()), form_pos)),
                        None => return Err(self.unexpected()),
                    }
                }
                args
            }
            _ => {
                // The plain form goes through the search path as any call does.
                let name = QName { parts: vec![word.into()], pos };
                let named = self.is_op_at(1, "=>") || self.is_op_at(1, ":=");
                if named
                    || self.is_op(")")
                    || self.is_op("*")
                    || self.one_of(&["all", "distinct", "variadic"]).is_some()
                {
                    return self.call_rest(name, None, pos);
                }
                let first = self.expr()?;
                if self.one_of(&["from", "for", "placing", "similar"]).is_none() {
                    return self.call_rest(name, Some(first), pos);
                }
                self.substring_or_overlay(word, first)?
            }
        };
        self.expect_op(")")?;
        Ok(special(word, args, pos))
    }

    fn substring_or_overlay(&mut self, word: &str, first: Expr) -> Result<Vec<Expr>> {
        let mut args = vec![first];
        if word == "overlay" {
            self.expect_kw("placing")?;
            args.push(self.expr()?);
            self.expect_kw("from")?;
            args.push(self.expr()?);
            if self.eat_kw("for") {
                args.push(self.expr()?);
            }
            return Ok(args);
        }
        if self.eat_kw("similar") {
            args.push(self.expr()?);
            self.expect_kw("escape")?;
            args.push(self.expr()?);
        } else if self.eat_kw("from") {
            args.push(self.expr()?);
            if self.eat_kw("for") {
                args.push(self.expr()?);
            }
        } else {
            let for_pos = self.pos();
            self.expect_kw("for")?;
            let length = self.expr()?;
            if self.eat_kw("from") {
                args.push(self.expr()?);
                args.push(length);
            } else {
                let name = QName { parts: vec!["pg_catalog".into(), "int4".into()], pos: for_pos };
                let ty = TypeName { name, mods: vec![], interval_fields: None, dims: 0, pos: for_pos };
                args.push(make(ExprKind::Number("1".into()), for_pos));
                args.push(make(ExprKind::Cast { input: Box::new(length), ty: Box::new(ty) }, for_pos));
            }
        }
        Ok(args)
    }

    fn trim_form(&mut self, pos: Pos) -> Result<Expr> {
        let name = match self.eat_one_of(&["both", "leading", "trailing"]) {
            Some("leading") => "ltrim",
            Some("trailing") => "rtrim",
            _ => "btrim",
        };
        let mut args = Vec::new();
        if self.eat_kw("from") {
            args = self.comma_list(|p| p.expr())?;
        } else {
            let first = self.expr()?;
            if self.eat_kw("from") {
                args = self.comma_list(|p| p.expr())?;
                args.push(first);
            } else {
                args.push(first);
                while self.eat_op(",") {
                    args.push(self.expr()?);
                }
            }
        }
        self.expect_op(")")?;
        Ok(special(name, args, pos))
    }

    /// A column, a call, or a typed literal whose type is no keyword.
    fn name_form(&mut self) -> Result<Expr> {
        let pos = self.pos();
        let is_column = self.is_col_id();
        if !is_column && !self.is_type_function_name() {
            return Err(self.unexpected());
        }
        let is_function = self.is_type_function_name();
        let first = self.col_label()?;
        let mut names = vec![first];
        while self.is_op(".") && !self.is_op_at(1, "*") {
            self.advance();
            names.push(self.col_label()?);
        }
        if names.len() == 1 && !is_function && (self.is_op("(") || matches!(self.tok(), Tok::Str(_))) {
            return Err(self.unexpected());
        }
        if matches!(self.tok(), Tok::Str(_)) {
            return self.generic_literal(names, vec![], pos);
        }
        if self.is_op("(") {
            self.advance();
            let name = QName { parts: names.iter().map(|n| n.text.clone()).collect(), pos };
            let call = self.call_rest(name, None, pos)?;
            if !matches!(self.tok(), Tok::Str(_)) {
                return Ok(call);
            }
            return match call.kind {
                ExprKind::Call(call) if !call.star && !call.distinct && call.args.iter().all(|a| a.name.is_none()) => {
                    let mods = call.args.into_iter().map(|a| a.value).collect();
                    self.generic_literal(names, mods, pos)
                }
                _ => Err(self.unexpected()),
            };
        }
        if !is_column {
            return Err(self.unexpected());
        }
        if self.is_op(".") && self.is_op_at(1, "*") {
            self.at += 2;
            return Ok(make(ExprKind::Star(names), pos));
        }
        self.indirection(make(ExprKind::Column(names), pos))
    }

    fn generic_literal(&mut self, names: Vec<Name>, mods: Vec<Expr>, pos: Pos) -> Result<Expr> {
        let input_pos = self.pos();
        let text = self.string()?;
        let name = QName { parts: names.into_iter().map(|n| n.text).collect(), pos };
        let ty = TypeName { name, mods, interval_fields: None, dims: 0, pos };
        Ok(make(ExprKind::Cast { input: Box::new(make(ExprKind::String(text), input_pos)), ty: Box::new(ty) }, pos))
    }

    /// Subscripts and fields behind a value.
    pub fn indirection(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let pos = self.pos();
            if self.is_op("[") {
                let mut items = Vec::new();
                while self.is_op("[") {
                    items.push(self.subscript()?);
                }
                value = make(ExprKind::Subscript { input: Box::new(value), items }, pos);
            } else if self.eat_op(".") {
                if self.eat_op("*") {
                    value = make(ExprKind::FieldStar(Box::new(value)), pos);
                } else {
                    let name = self.col_label()?;
                    value = make(ExprKind::Field { input: Box::new(value), name }, pos);
                }
            } else {
                return Ok(value);
            }
            self.grow(1)?;
        }
    }

    pub fn subscript(&mut self) -> Result<Subscript> {
        self.expect_op("[")?;
        let low = if self.is_op(":") { None } else { Some(self.expr()?) };
        let made = if self.eat_op(":") {
            let high = if self.is_op("]") { None } else { Some(self.expr()?) };
            Subscript::Slice(low, high)
        } else {
            match low {
                Some(index) => Subscript::Index(index),
                None => return Err(self.unexpected()),
            }
        };
        self.expect_op("]")?;
        Ok(made)
    }

    /// A call's arguments and all that may follow them, after the opening parenthesis (and perhaps the first argument).
    pub fn call_rest(&mut self, name: QName, first: Option<Expr>, pos: Pos) -> Result<Expr> {
        let mut call = plain_call(name, vec![]);
        let mut more = true;
        let mut any_named = false;
        if let Some(value) = first {
            call.args.push(Arg { name: None, value });
            more = self.eat_op(",");
        }
        if call.args.is_empty() && self.eat_op("*") {
            call.star = true;
        } else if more && (!call.args.is_empty() || !self.is_op(")")) {
            call.distinct = call.args.is_empty() && self.eat_kw("distinct");
            if call.args.is_empty() && !call.distinct {
                self.eat_kw("all");
            }
            loop {
                if self.eat_kw("variadic") {
                    call.variadic = true;
                }
                let arg_pos = self.pos();
                let mut arg_name = None;
                if (self.is_op_at(1, "=>") || self.is_op_at(1, ":=")) && self.is_type_function_name() {
                    arg_name = Some(self.type_function_name()?);
                    self.advance();
                }
                if arg_name.is_none() && any_named {
                    self.expr()?;
                    return self.error(arg_pos, "positional argument cannot follow named argument");
                }
                any_named |= arg_name.is_some();
                let value = self.expr()?;
                call.args.push(Arg { name: arg_name, value });
                if call.variadic || !self.eat_op(",") {
                    break;
                }
            }
        }
        if !call.args.is_empty() && self.is_kw("order") {
            call.order_by = self.order_by()?;
        }
        self.expect_op(")")?;
        if self.is_kw("within") && self.is_kw_at(1, "group") {
            let within_pos = self.pos();
            self.at += 2;
            self.expect_op("(")?;
            if !self.is_kw("order") {
                return Err(self.unexpected());
            }
            call.within_group = self.order_by()?;
            self.expect_op(")")?;
            if !call.order_by.is_empty() {
                return self.error(within_pos, "cannot use multiple ORDER BY clauses with WITHIN GROUP");
            }
            if call.distinct {
                return self.error(within_pos, "cannot use DISTINCT with WITHIN GROUP");
            }
            if call.variadic {
                return self.error(within_pos, "cannot use VARIADIC with WITHIN GROUP");
            }
        }
        if self.is_kw("filter") && self.is_op_at(1, "(") {
            self.at += 2;
            self.expect_kw("where")?;
            call.filter = Some(self.expr()?);
            self.expect_op(")")?;
        }
        if self.eat_kw("over") {
            call.over =
                Some(if self.is_op("(") { Over::Spec(self.window_spec()?) } else { Over::Name(self.col_id()?) });
        }
        Ok(make(ExprKind::Call(Box::new(call)), pos))
    }
}
