//! FROM: tables with AS OF, functions, subqueries, and how they are joined.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::Result;
use crate::ir::JoinKind;

/// What parentheses in FROM turned out to hold.
enum FromParen {
    Query(Box<Query>),
    Item(FromItem),
}

impl Parser<'_> {
    /// FROM's list.
    pub fn from_list(&mut self) -> Result<Vec<FromItem>> {
        let items = self.comma_list(|p| p.from_item())?;
        self.grow(u32::try_from(items.len()).unwrap_or(u32::MAX).min(100_000))?;
        Ok(items)
    }

    /// table_ref: one item with the joins that follow it.
    pub fn from_item(&mut self) -> Result<FromItem> {
        self.nested(2, |p| {
            let first = p.from_primary()?;
            p.joins(first)
        })
    }

    fn joins(&mut self, mut left: FromItem) -> Result<FromItem> {
        loop {
            let pos = self.pos();
            let natural = self.is_kw("natural");
            let skip = usize::from(natural);
            let kind = if self.is_kw_at(skip, "cross") && !natural && self.is_kw_at(1, "join") {
                self.at += 2;
                let right = self.from_primary()?;
                self.grow(2)?;
                left = join(JoinKind::Inner, left, right, pos, self.end());
                continue;
            } else if self.is_kw_at(skip, "join") {
                self.at += skip + 1;
                JoinKind::Inner
            } else if self.is_kw_at(skip, "inner") && self.is_kw_at(skip + 1, "join") {
                self.at += skip + 2;
                JoinKind::Inner
            } else if let Some(side) = ["left", "right", "full"].into_iter().find(|k| self.is_kw_at(skip, k)) {
                let outer = usize::from(self.is_kw_at(skip + 1, "outer"));
                if !self.is_kw_at(skip + 1 + outer, "join") {
                    self.at += skip + 1 + outer;
                    return Err(self.unexpected());
                }
                self.at += skip + 2 + outer;
                match side {
                    "left" => JoinKind::Left,
                    "right" => JoinKind::Right,
                    _ => JoinKind::Full,
                }
            } else if natural {
                self.advance();
                return Err(self.unexpected());
            } else {
                return Ok(left);
            };
            let right = if natural { self.from_primary()? } else { self.join_right()? };
            self.grow(2)?;
            let FromItem::Join(mut made) = join(kind, left, right, pos, self.end()) else {
                unreachable!("join makes a join")
            };
            if natural {
                made.natural = true;
            } else if self.eat_kw("on") {
                made.on = Some(self.expr()?);
            } else if self.eat_kw("using") {
                let columns = self.name_list()?;
                let alias = if self.eat_kw("as") { Some(self.col_id()?.text) } else { None };
                made.using = Some((columns, alias));
            } else {
                return Err(self.unexpected());
            }
            left = FromItem::Join(made);
        }
    }

    /// The right side of a qualified join: `a JOIN b JOIN c ON .. ON ..` nests to the right.
    fn join_right(&mut self) -> Result<FromItem> {
        let mut right = self.from_primary()?;
        while !self.is_kw("on")
            && !self.is_kw("using")
            && self.one_of(&["join", "inner", "left", "right", "full", "cross", "natural"]).is_some()
        {
            right = self.nested(2, |p| p.one_join(right))?;
        }
        Ok(right)
    }

    fn one_join(&mut self, left: FromItem) -> Result<FromItem> {
        self.joins(left)
    }

    fn from_primary(&mut self) -> Result<FromItem> {
        let pos = self.pos();
        let lateral = self.eat_kw("lateral");
        if self.is_op("(") {
            match self.from_paren()? {
                FromParen::Query(query) => {
                    let alias = self.alias()?;
                    return Ok(FromItem::Subquery { lateral, query, alias, pos });
                }
                FromParen::Item(_) if lateral => return Err(self.unexpected_at(self.at)),
                FromParen::Item(item) => {
                    let alias = self.alias()?;
                    return Ok(match (item, alias) {
                        (FromItem::Join(mut inner), Some(alias)) => {
                            inner.alias = Some(alias);
                            FromItem::Join(inner)
                        }
                        (item, _) => item,
                    });
                }
            }
        }
        if self.is_kw("rows") && self.is_kw_at(1, "from") && self.is_op_at(2, "(") {
            self.at += 3;
            let calls = self.comma_list(|p| {
                let call = p.from_call()?;
                if p.is_kw("as") {
                    return p.unsupported(p.pos(), "a column definition list");
                }
                Ok(call)
            })?;
            self.expect_op(")")?;
            return self.function_rest(lateral, calls, true, pos);
        }
        if self.from_is_call() {
            let call = self.from_call()?;
            return self.function_rest(lateral, vec![call], false, pos);
        }
        if lateral {
            return Err(self.unexpected());
        }
        self.table_reference(true)
    }

    /// `( .. )` in FROM: a query, or joined tables.
    fn from_paren(&mut self) -> Result<FromParen> {
        self.nested(2, |p| {
            p.expect_op("(")?;
            if p.is_query_start() {
                let query = p.query()?;
                p.expect_op(")")?;
                return Ok(FromParen::Query(Box::new(query)));
            }
            let pos = p.pos();
            if p.is_op("(") {
                let first = match p.from_paren()? {
                    FromParen::Query(query) => {
                        if p.is_op(")") || p.continues_query() {
                            let query = p.query_from(*query)?;
                            p.expect_op(")")?;
                            return Ok(FromParen::Query(Box::new(query)));
                        }
                        let alias = p.alias()?;
                        FromItem::Subquery { lateral: false, query, alias, pos }
                    }
                    FromParen::Item(item) => {
                        let alias = p.alias()?;
                        match (item, alias) {
                            (FromItem::Join(mut inner), Some(alias)) => {
                                inner.alias = Some(alias);
                                FromItem::Join(inner)
                            }
                            (item, _) => item,
                        }
                    }
                };
                let item = p.joins(first)?;
                p.expect_op(")")?;
                return Ok(FromParen::Item(item));
            }
            let item = p.from_item()?;
            let is_join = matches!(item, FromItem::Join(_));
            if !is_join && p.is_op(")") {
                return Err(p.unexpected());
            }
            p.expect_op(")")?;
            Ok(FromParen::Item(item))
        })
    }

    /// Whether a function's call begins here: a name with `(` behind it, or a keyword that is a value.
    fn from_is_call(&self) -> bool {
        if self
            .one_of(&[
                "current_date",
                "current_time",
                "current_timestamp",
                "localtime",
                "localtimestamp",
                "current_user",
                "session_user",
                "user",
                "current_role",
                "current_catalog",
            ])
            .is_some()
            || (self.is_kw("current_schema") && !self.is_op_at(1, "."))
        {
            return true;
        }
        let mut n = 0;
        while matches!(self.ahead(n), Tok::Word(..) | Tok::Quoted(_)) {
            if self.is_op_at(n + 1, "(") {
                return true;
            }
            if !self.is_op_at(n + 1, ".") {
                return false;
            }
            n += 2;
        }
        false
    }

    fn from_call(&mut self) -> Result<Expr> {
        let pos = self.pos();
        let call = self.b_expr()?;
        match call.kind {
            ExprKind::Call(_)
            | ExprKind::Keyword(_)
            | ExprKind::Coalesce(_)
            | ExprKind::NullIf(..)
            | ExprKind::MinMax { .. }
            | ExprKind::Cast { .. } => Ok(call),
            _ => {
                self.error(pos, format!("syntax error at or near \"{}\"", &self.sql[pos as usize..self.end() as usize]))
            }
        }
    }

    fn function_rest(&mut self, lateral: bool, calls: Vec<Expr>, rows_from: bool, pos: Pos) -> Result<FromItem> {
        let ordinality = self.eat_kws(&["with", "ordinality"]);
        if self.is_kw("as") && self.is_op_at(1, "(") {
            return self.unsupported(self.pos(), "a column definition list");
        }
        let alias = if self.eat_kw("as") || self.is_col_id() { Some(self.col_id()?) } else { None };
        let alias = match alias {
            None => None,
            Some(name) => {
                let columns = if self.is_op("(") { self.function_columns()? } else { vec![] };
                Some(Alias { name: name.text, columns })
            }
        };
        Ok(FromItem::Function { lateral, calls, rows_from, ordinality, alias, pos })
    }

    /// Column names of a function's alias; types behind them would be a column definition list.
    fn function_columns(&mut self) -> Result<Vec<Name>> {
        self.expect_op("(")?;
        let names = self.comma_list(|p| {
            let name = p.col_id()?;
            if !p.is_op(",") && !p.is_op(")") && (p.is_type_function_name() || p.is_type_keyword()) {
                return p.unsupported(name.pos, "a column definition list");
            }
            Ok(name)
        })?;
        self.expect_op(")")?;
        Ok(names)
    }

    /// A table's name with AS OF and alias.
    pub fn table_reference(&mut self, with_alias: bool) -> Result<FromItem> {
        let only = self.eat_kw("only");
        let name = if only && self.eat_op("(") {
            let name = self.relation_name()?;
            self.expect_op(")")?;
            name
        } else {
            self.relation_name()?
        };
        if !only {
            self.eat_op("*");
        }
        let mut as_of = self.as_of()?;
        let alias = if with_alias { self.alias()? } else { None };
        if as_of.is_none() && alias.is_some() {
            as_of = self.as_of()?;
        }
        if self.is_kw("tablesample") {
            return self.unsupported(self.pos(), "TABLESAMPLE");
        }
        Ok(FromItem::Table { name, as_of, alias, end: self.end() })
    }

    /// Every way to say at which version a table is read. `FROM t AS of` stays an alias.
    pub fn as_of(&mut self) -> Result<Option<AsOf>> {
        let pos = self.pos();
        if self.are_kws(&["for", "system_time", "as", "of"]) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.are_kws(&["for", "system_version", "as", "of"]) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        if !self.are_kws(&["as", "of"]) {
            return Ok(None);
        }
        if matches!(self.ahead(2), Tok::Number(_) | Tok::Param(_)) {
            self.at += 2;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        let starts_value = |p: &Self, n: usize| match p.ahead(n) {
            Tok::Number(_) | Tok::Param(_) | Tok::Str(_) => true,
            Tok::Op(o) => matches!(*o, "(" | "-" | "+"),
            Tok::Word(w, _) => {
                matches!(
                    w.as_str(),
                    "timestamp"
                        | "date"
                        | "interval"
                        | "now"
                        | "current_timestamp"
                        | "cast"
                        | "localtimestamp"
                        | "timestamptz"
                        | "to_timestamp"
                        | "current_date"
                )
            }
            _ => false,
        };
        if self.is_kw_at(2, "version") && starts_value(self, 3) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "timestamp") && starts_value(self, 3) {
            // `TIMESTAMP WITH TIME ZONE '..'` and `TIMESTAMP '..'` read alike: the literal is a point in time.
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "timestamp") && (self.is_kw_at(3, "with") || self.is_kw_at(3, "without")) {
            self.at += 2;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "system") && self.is_kw_at(3, "time") && starts_value(self, 4) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "tag") && matches!(self.ahead(3), Tok::Str(_) | Tok::Quoted(_) | Tok::Word(_, None)) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Tag(self.name_or_string()?.text), pos }));
        }
        if self.is_kw_at(2, "tag") && matches!(self.ahead(3), Tok::Word(..)) && self.is_free_word(3) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Tag(self.col_id()?.text), pos }));
        }
        Ok(None)
    }

    fn is_free_word(&self, n: usize) -> bool {
        matches!(self.ahead(n), Tok::Word(_, Some((super::keyword::Category::Unreserved, _))))
    }

    /// `[AS] name [(columns)]`.
    pub fn alias(&mut self) -> Result<Option<Alias>> {
        if !self.eat_kw("as") && !self.is_col_id() {
            return Ok(None);
        }
        let name = self.col_id()?;
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        Ok(Some(Alias { name: name.text, columns }))
    }
}

fn join(kind: JoinKind, left: FromItem, right: FromItem, pos: Pos, right_end: Pos) -> FromItem {
    FromItem::Join(Box::new(Join {
        kind,
        natural: false,
        using: None,
        on: None,
        left,
        right,
        alias: None,
        pos,
        right_end,
    }))
}
