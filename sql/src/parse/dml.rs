//! INSERT, UPDATE, DELETE and COPY.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::Result;
use crate::ir::Overriding;

impl Parser<'_> {
    /// After INSERT.
    pub fn insert(&mut self, with: Option<With>) -> Result<Insert> {
        self.expect_kw("into")?;
        let table = self.relation_name()?;
        let alias = if self.eat_kw("as") { Some(self.col_id()?.text) } else { None };
        let mut insert = Insert {
            with,
            table,
            alias,
            columns: vec![],
            overriding: Overriding::None,
            source: None,
            on_conflict: None,
            returning: vec![],
        };
        if self.eat_kws(&["default", "values"]) {
            return self.insert_rest(insert);
        }
        if self.is_op("(") && !self.paren_is_query() {
            self.advance();
            insert.columns = self.comma_list(|p| {
                let name = p.col_id()?;
                if p.is_op("[") || p.is_op(".") {
                    return p.unsupported(name.pos, "INSERT into a part of a column");
                }
                Ok(name)
            })?;
            self.expect_op(")")?;
        }
        if self.eat_kw("overriding") {
            insert.overriding = match self.eat_one_of(&["user", "system"]) {
                Some("user") => Overriding::User,
                Some(_) => Overriding::System,
                None => return Err(self.unexpected()),
            };
            self.expect_kw("value")?;
        }
        if insert.columns.is_empty() && insert.overriding == Overriding::None && self.at_end() {
            return Err(self.unexpected());
        }
        insert.source = Some(Box::new(self.query()?));
        self.insert_rest(insert)
    }

    /// Whether parentheses that begin here hold a query rather than a list of names.
    fn paren_is_query(&self) -> bool {
        let mut n = 0;
        while self.is_op_at(n, "(") {
            n += 1;
        }
        ["select", "values", "with", "table"].iter().any(|k| self.is_kw_at(n, k))
            && (n > 1 || !(self.is_op_at(n + 1, ",") || self.is_op_at(n + 1, ")")))
    }

    fn insert_rest(&mut self, mut insert: Insert) -> Result<Insert> {
        let pos = self.pos();
        if self.eat_kws(&["on", "conflict"]) {
            let mut target = None;
            if self.eat_kws(&["on", "constraint"]) {
                target = Some(ConflictTarget::Constraint(self.col_id()?));
            } else if self.eat_op("(") {
                let columns = self.comma_list(|p| {
                    let expr = p.expr()?;
                    if !p.is_op(",") && !p.is_op(")") {
                        return p.unsupported(expr.pos, "an operator class in ON CONFLICT");
                    }
                    Ok(expr)
                })?;
                self.expect_op(")")?;
                let filter = if self.eat_kw("where") { Some(self.expr()?) } else { None };
                target = Some(ConflictTarget::Columns(columns, filter));
            }
            self.expect_kw("do")?;
            let update = if self.eat_kw("nothing") {
                None
            } else {
                self.expect_kws(&["update", "set"])?;
                let sets = self.comma_list(|p| p.set_clause())?;
                let filter = if self.eat_kw("where") { Some(self.expr()?) } else { None };
                Some((sets, filter))
            };
            insert.on_conflict = Some(OnConflict { target, update, pos });
        }
        insert.returning = self.returning()?;
        Ok(insert)
    }

    fn returning(&mut self) -> Result<Vec<Target>> {
        if self.eat_kw("returning") { self.targets() } else { Ok(vec![]) }
    }

    fn set_clause(&mut self) -> Result<SetClause> {
        if self.eat_op("(") {
            let columns = self.comma_list(|p| {
                let name = p.col_id()?;
                if p.is_op("[") || p.is_op(".") {
                    return p.unsupported(name.pos, "assignment to a part of a column");
                }
                Ok(name)
            })?;
            self.expect_op(")")?;
            self.expect_op("=")?;
            return Ok(SetClause::Many { columns, value: self.expr()? });
        }
        let column = self.col_id()?;
        let mut subscripts = Vec::new();
        // A field of a column reads like a table's name in front of one, which is what it mostly is: the binder says which.
        while self.eat_op(".") {
            self.col_label()?;
            subscripts.push(Subscript::Slice(None, None));
        }
        while self.is_op("[") {
            subscripts.push(self.subscript()?);
        }
        self.expect_op("=")?;
        Ok(SetClause::One { column, subscripts, value: self.expr()? })
    }

    /// relation_expr_opt_alias: an alias may not be SET.
    fn dml_target(&mut self) -> Result<(QName, Option<String>)> {
        let only = self.eat_kw("only");
        let table = if only && self.eat_op("(") {
            let table = self.relation_name()?;
            self.expect_op(")")?;
            table
        } else {
            self.relation_name()?
        };
        if !only {
            self.eat_op("*");
        }
        let alias = if self.eat_kw("as") || (self.is_col_id() && !self.is_kw("set")) {
            Some(self.col_id()?.text)
        } else {
            None
        };
        Ok((table, alias))
    }

    fn where_clause(&mut self) -> Result<Option<Expr>> {
        if !self.eat_kw("where") {
            return Ok(None);
        }
        if self.are_kws(&["current", "of"]) {
            return self.unsupported(self.pos(), "WHERE CURRENT OF");
        }
        Ok(Some(self.expr()?))
    }

    /// After UPDATE.
    pub fn update(&mut self, with: Option<With>) -> Result<Update> {
        let (table, alias) = self.dml_target()?;
        self.expect_kw("set")?;
        let sets = self.comma_list(|p| p.set_clause())?;
        let from = if self.eat_kw("from") { self.from_list()? } else { vec![] };
        let filter = self.where_clause()?;
        Ok(Update { with, table, alias, sets, from, filter, returning: self.returning()? })
    }

    /// After DELETE.
    pub fn delete(&mut self, with: Option<With>) -> Result<Delete> {
        self.expect_kw("from")?;
        let (table, alias) = self.dml_target()?;
        let using = if self.eat_kw("using") { self.from_list()? } else { vec![] };
        let filter = self.where_clause()?;
        Ok(Delete { with, table, alias, using, filter, returning: self.returning()? })
    }

    /// After COPY.
    pub fn copy(&mut self) -> Result<Copy> {
        let mut options = Vec::new();
        let source = if self.is_op("(") {
            self.advance();
            let statement = self.inner_statement(|p| p.preparable())?;
            self.expect_op(")")?;
            CopySource::Query(Box::new(statement))
        } else {
            if self.eat_kw("binary") {
                options.push(("format".to_owned(), DefValue::Word("binary".into())));
            }
            let name = self.relation_name()?;
            let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
            CopySource::Table { name, columns }
        };
        let from = match self.eat_one_of(&["from", "to"]) {
            Some(word) => word == "from",
            None => return Err(self.unexpected()),
        };
        if from && matches!(source, CopySource::Query(_)) {
            return Err(self.unexpected_at(self.at - 1));
        }
        let program = self.eat_kw("program");
        let endpoint = if program {
            CopyEndpoint::Program(self.string()?)
        } else if matches!(self.tok(), Tok::Str(_)) {
            CopyEndpoint::File(self.string()?)
        } else if self.eat_one_of(&["stdin", "stdout"]).is_some() {
            CopyEndpoint::Client
        } else {
            return Err(self.unexpected());
        };
        if self.eat_kw("using") {
            self.expect_kw("delimiters")?;
            options.push(("delimiter".into(), DefValue::String(self.string()?)));
        }
        let with = self.eat_kw("with");
        if self.is_op("(") {
            options.extend(self.option_list()?);
        } else {
            self.copy_old_options(&mut options, with)?;
        }
        let filter = if self.eat_kw("where") { Some(self.expr()?) } else { None };
        Ok(Copy { source, from, endpoint, options, filter })
    }

    /// The options of before PostgreSQL 9.0.
    fn copy_old_options(&mut self, options: &mut Vec<(String, DefValue)>, _with: bool) -> Result<()> {
        loop {
            let word = match self.eat_one_of(&[
                "binary",
                "freeze",
                "delimiter",
                "null",
                "csv",
                "header",
                "quote",
                "escape",
                "force",
                "encoding",
            ]) {
                Some(word) => word,
                None => return Ok(()),
            };
            let (name, value) = match word {
                "binary" | "csv" => ("format", DefValue::Word(word.into())),
                "freeze" | "header" => (word, DefValue::Word("true".into())),
                "delimiter" | "null" | "quote" | "escape" => {
                    self.eat_kw("as");
                    (word, DefValue::String(self.string()?))
                }
                "encoding" => (word, DefValue::String(self.string()?)),
                _ => {
                    let name = if self.eat_kw("quote") {
                        "force_quote"
                    } else if self.eat_kws(&["not", "null"]) {
                        "force_not_null"
                    } else {
                        self.expect_kw("null")?;
                        "force_null"
                    };
                    if name == "force_quote" && self.eat_op("*") {
                        (name, DefValue::Star)
                    } else {
                        let columns = self.comma_list(|p| Ok(p.col_id()?.text))?;
                        (name, DefValue::List(columns))
                    }
                }
            };
            options.push((name.to_owned(), value));
        }
    }

    /// `(name [value], ..)` as COPY, EXPLAIN, VACUUM and others take it. Names are folded to lower case.
    pub fn option_list(&mut self) -> Result<Vec<(String, DefValue)>> {
        self.expect_op("(")?;
        let options = self.comma_list(|p| {
            let name = p.col_label()?.text;
            Ok((name, p.option_value()?))
        })?;
        self.expect_op(")")?;
        Ok(options)
    }

    pub fn option_value(&mut self) -> Result<DefValue> {
        Ok(match self.tok() {
            Tok::Op("," | ")") => DefValue::Missing,
            Tok::Op("*") => {
                self.advance();
                DefValue::Star
            }
            Tok::Op("(") => {
                self.advance();
                let items =
                    self.comma_list(
                        |p| if matches!(p.tok(), Tok::Str(_)) { p.string() } else { Ok(p.col_label()?.text) },
                    )?;
                self.expect_op(")")?;
                DefValue::List(items)
            }
            Tok::Str(_) => DefValue::String(self.string()?),
            Tok::Word(..) | Tok::Quoted(_) => DefValue::Word(self.col_label()?.text),
            _ => DefValue::Number(self.signed_number()?),
        })
    }
}
