//! CREATE and DROP, and what ALTER shares with them.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::{Result, SqlError, state};

/// Storage parameters of PostgreSQL's tables, indexes and views that change no answer here; those of autovacuum are known by how they begin.
const STORAGE_PARAMETERS: [&str; 15] = [
    "fillfactor",
    "parallel_workers",
    "toast_tuple_target",
    "log_autovacuum_min_duration",
    "user_catalog_table",
    "vacuum_index_cleanup",
    "vacuum_truncate",
    "deduplicate_items",
    "buffering",
    "fastupdate",
    "gin_pending_list_limit",
    "pages_per_range",
    "autosummarize",
    "security_barrier",
    "security_invoker",
];

impl Parser<'_> {
    /// After CREATE.
    pub fn create(&mut self) -> Result<StatementKind> {
        let or_replace = self.eat_kws(&["or", "replace"]);
        if self.one_of(&["local", "global"]).is_some() && (self.is_kw_at(1, "temp") || self.is_kw_at(1, "temporary")) {
            self.advance();
        }
        let temporary = self.eat_one_of(&["temp", "temporary"]).is_some();
        let unlogged = !temporary && self.eat_kw("unlogged");
        let recursive = self.is_kw("recursive") && self.is_kw_at(1, "view") && self.eat_kw("recursive");
        let word = match self.tok() {
            Tok::Word(w, _) => w.clone(),
            _ => return Err(self.unexpected()),
        };
        if (temporary || unlogged) && !matches!(word.as_str(), "table" | "view" | "sequence") {
            return Err(self.unexpected());
        }
        if or_replace && matches!(word.as_str(), "table" | "sequence" | "schema" | "index" | "database" | "tag") {
            return Err(self.unexpected());
        }
        self.advance();
        match word.as_str() {
            "table" => self.create_table(temporary, unlogged),
            "view" => self.create_view(or_replace, temporary, recursive),
            "materialized" if self.is_kw("view") => {
                self.advance();
                self.create_table_as_rest(false, true)
            }
            "sequence" => {
                let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
                let name = self.relation_name()?;
                let options = self.sequence_options()?;
                Ok(StatementKind::CreateSequence { name, if_not_exists, temporary, options })
            }
            "schema" => self.create_schema(),
            "unique" => {
                self.expect_kw("index")?;
                self.create_index(true)
            }
            "index" => self.create_index(false),
            "database" => {
                let name = self.col_id()?;
                self.eat_kw("with");
                let mut options = Vec::new();
                while !self.at_end() {
                    let option = self.col_label()?.text;
                    self.eat_op("=");
                    let value = self.option_value()?;
                    options.push((option, value));
                }
                Ok(StatementKind::CreateDatabase { name, options })
            }
            "server" => self.create_server(),
            "foreign" if self.is_kw("table") => self.create_foreign_table(),
            "tag" => {
                let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
                let name = self.name_or_string()?;
                let at = self.as_of()?;
                Ok(StatementKind::CreateTag { name, at, if_not_exists })
            }
            _ => self.skip_unsupported("CREATE", &word),
        }
    }

    /// A statement PostgreSQL has and we do not: its tag, the rest unread (up to the semicolon outside of a SQL body).
    pub fn skip_unsupported(&mut self, verb: &str, word: &str) -> Result<StatementKind> {
        let object = match word {
            "materialized" => "MATERIALIZED VIEW".into(),
            "foreign" => {
                if self.is_kw("data") {
                    "FOREIGN DATA WRAPPER".into()
                } else {
                    "FOREIGN TABLE".to_owned()
                }
            }
            "user" if self.is_kw("mapping") => "USER MAPPING".into(),
            "event" => "EVENT TRIGGER".into(),
            "text" => "TEXT SEARCH".into(),
            "default" => "DEFAULT PRIVILEGES".into(),
            "large" => "LARGE OBJECT".into(),
            "operator" if self.is_kw("class") => "OPERATOR CLASS".into(),
            "operator" if self.is_kw("family") => "OPERATOR FAMILY".into(),
            "access" => "ACCESS METHOD".into(),
            "type" | "domain" | "function" | "procedure" | "routine" | "aggregate" | "operator" | "cast"
            | "collation" | "conversion" | "extension" | "language" | "policy" | "publication" | "subscription"
            | "rule" | "role" | "user" | "group" | "server" | "statistics" | "tablespace" | "transform" | "trigger"
            | "trusted" | "procedural" | "constraint" | "system" | "database" | "view" | "index" | "sequence"
            | "table" | "schema" | "owned" => word.to_ascii_uppercase(),
            _ => return Err(self.unexpected_at(self.at - 1)),
        };
        self.skip_statement()?;
        Ok(StatementKind::Unsupported(format!("{verb} {object}")))
    }

    /// Takes everything up to the semicolon that ends the statement: one outside of BEGIN ATOMIC .. END.
    pub fn skip_statement(&mut self) -> Result<()> {
        let mut atomic = 0usize;
        while !matches!(self.tok(), Tok::End | Tok::Error(_)) {
            if self.is_op(";") && atomic == 0 {
                break;
            }
            if self.are_kws(&["begin", "atomic"]) || (atomic > 0 && self.is_kw("case")) {
                atomic += 1;
            } else if self.is_kw("end") {
                atomic = atomic.saturating_sub(1);
            }
            self.advance();
        }
        if matches!(self.tok(), Tok::Error(_)) { Err(self.unexpected()) } else { Ok(()) }
    }

    fn create_schema(&mut self) -> Result<StatementKind> {
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let mut name = None;
        let mut authorization = None;
        if !self.is_kw("authorization") {
            name = Some(self.col_id()?);
        }
        if self.eat_kw("authorization") {
            authorization = Some(self.role()?);
        }
        let elements = self.one_of(&["create", "grant"]).is_some();
        if elements {
            return self.unsupported(self.pos(), "CREATE SCHEMA with elements");
        }
        Ok(StatementKind::CreateSchema { name, if_not_exists, authorization, elements })
    }

    fn create_table(&mut self, temporary: bool, unlogged: bool) -> Result<StatementKind> {
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let name = self.relation_name()?;
        if self.is_kw("as") || self.table_as_follows() {
            return self.table_as(name, if_not_exists, temporary, false);
        }
        let mut unsupported = None;
        if self.is_kw("of") {
            return self.unsupported(self.pos(), "CREATE TABLE OF");
        }
        if self.are_kws(&["partition", "of"]) {
            return self.unsupported(self.pos(), "CREATE TABLE PARTITION OF");
        }
        self.expect_op("(")?;
        let mut elements = Vec::new();
        if !self.is_op(")") {
            elements = self.comma_list(|p| p.table_element())?;
        }
        self.expect_op(")")?;
        if self.is_kw("inherits") {
            return self.unsupported(self.pos(), "INHERITS");
        }
        if self.is_kw("partition") {
            return self.unsupported(self.pos(), "PARTITION BY");
        }
        self.table_storage(&mut unsupported)?;
        Ok(StatementKind::CreateTable(Box::new(CreateTable {
            name,
            if_not_exists,
            temporary,
            unlogged,
            elements,
            unsupported,
        })))
    }

    /// USING, WITH (..), WITHOUT OIDS, ON COMMIT, TABLESPACE.
    fn table_storage(&mut self, unsupported: &mut Option<String>) -> Result<()> {
        if self.eat_kw("using") {
            let method = self.col_id()?;
            if method.text != "heap" {
                unsupported.get_or_insert(format!("USING {}", method.text));
            }
        }
        if self.is_kw("with") && self.is_op_at(1, "(") {
            self.advance();
            self.reloptions()?;
        } else {
            self.eat_kws(&["without", "oids"]);
        }
        if self.eat_kws(&["on", "commit"]) && !self.eat_kws(&["preserve", "rows"]) {
            unsupported.get_or_insert("ON COMMIT".into());
            if !self.eat_kws(&["delete", "rows"]) {
                self.expect_kw("drop")?;
            }
        }
        if self.eat_kw("tablespace") {
            let name = self.col_id()?;
            if name.text != "pg_default" {
                unsupported.get_or_insert("TABLESPACE".into());
            }
        }
        Ok(())
    }

    /// Storage parameters (`fillfactor = 70`): advice about pages, of which we have none; taken and forgotten, as they change no answer.
    pub fn reloptions(&mut self) -> Result<()> {
        self.expect_op("(")?;
        self.comma_list(|p| {
            let mut name = p.col_label()?;
            if p.eat_op(".") {
                name = p.col_label()?;
            }
            if p.eat_op("=") {
                p.option_value()?;
            }
            match name.text.as_str() {
                "oids" => p.unsupported(name.pos, "WITH (oids)"),
                known if STORAGE_PARAMETERS.contains(&known) || known.starts_with("autovacuum_") => Ok(()),
                other => {
                    let message = format!("unrecognized parameter \"{other}\"");
                    Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message))
                }
            }
        })?;
        self.expect_op(")")
    }

    /// `name (a, b) AS`, `name USING m AS`: looks past the parentheses.
    fn table_as_follows(&self) -> bool {
        if !self.is_op("(") {
            return self.is_kw("using")
                || self.is_kw("with")
                || self.are_kws(&["on", "commit"])
                || self.is_kw("tablespace");
        }
        let mut n = 1;
        loop {
            if !matches!(self.ahead(n), Tok::Word(..) | Tok::Quoted(_)) {
                return false;
            }
            if self.is_op_at(n + 1, ")") {
                let next = |k: &str| self.is_kw_at(n + 2, k);
                return next("as") || next("using") || next("with") || next("on") || next("tablespace");
            }
            if !self.is_op_at(n + 1, ",") {
                return false;
            }
            n += 2;
        }
    }

    fn create_table_as_rest(&mut self, temporary: bool, materialized: bool) -> Result<StatementKind> {
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let name = self.relation_name()?;
        self.table_as(name, if_not_exists, temporary, materialized)
    }

    fn table_as(
        &mut self,
        name: QName,
        if_not_exists: bool,
        temporary: bool,
        materialized_view: bool,
    ) -> Result<StatementKind> {
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        let mut unsupported = None;
        self.table_storage(&mut unsupported)?;
        self.expect_kw("as")?;
        let statement =
            if self.eat_kw("execute") { self.execute()? } else { StatementKind::Query(Box::new(self.query()?)) };
        let mut with_data = true;
        if self.eat_kw("with") {
            with_data = !self.eat_kw("no");
            self.expect_kw("data")?;
        }
        Ok(StatementKind::CreateTableAs(Box::new(CreateTableAs {
            name,
            columns,
            if_not_exists,
            temporary,
            materialized_view,
            unsupported,
            statement,
            with_data,
        })))
    }

    fn create_view(&mut self, or_replace: bool, temporary: bool, recursive: bool) -> Result<StatementKind> {
        let name = self.relation_name()?;
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        let mut options = Vec::new();
        if self.is_kw("with") && self.is_op_at(1, "(") {
            self.at += 2;
            options = self.comma_list(|p| {
                let name = p.col_label()?.text;
                let value = if p.eat_op("=") { p.option_value()? } else { DefValue::Missing };
                Ok((name, value))
            })?;
            self.expect_op(")")?;
        }
        self.expect_kw("as")?;
        let query = Box::new(self.query()?);
        let text = self.sql[query.pos as usize..query.end as usize].to_owned();
        let mut check_option = false;
        if self.eat_kw("with") {
            self.eat_one_of(&["local", "cascaded"]);
            self.expect_kws(&["check", "option"])?;
            check_option = true;
        }
        Ok(StatementKind::CreateView(Box::new(CreateView {
            name,
            or_replace,
            temporary,
            recursive,
            columns,
            query,
            text,
            check_option,
            options,
        })))
    }

    fn create_index(&mut self, unique: bool) -> Result<StatementKind> {
        let concurrently = self.eat_kw("concurrently");
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let name = if self.is_kw("on") { None } else { Some(self.col_id()?) };
        if if_not_exists && name.is_none() {
            return Err(self.unexpected());
        }
        self.expect_kw("on")?;
        self.eat_kw("only");
        let table = self.relation_name()?;
        let method = if self.eat_kw("using") { Some(self.col_id()?.text) } else { None };
        self.expect_op("(")?;
        let columns = self.comma_list(|p| p.index_element())?;
        self.expect_op(")")?;
        let include = if self.eat_kw("include") { self.name_list()? } else { vec![] };
        let mut nulls_not_distinct = false;
        if self.eat_kw("nulls") {
            nulls_not_distinct = self.eat_kw("not");
            self.expect_kw("distinct")?;
        }
        let mut unsupported = None;
        if self.eat_kw("with") {
            self.reloptions()?;
        }
        if self.eat_kw("tablespace") {
            self.col_id()?;
            unsupported = Some("TABLESPACE".to_owned());
        }
        let filter = if self.eat_kw("where") { Some(self.text_expr(|p| p.expr())?) } else { None };
        Ok(StatementKind::CreateIndex(Box::new(CreateIndex {
            name,
            table,
            unique,
            concurrently,
            if_not_exists,
            method,
            columns,
            include,
            nulls_not_distinct,
            filter,
            unsupported,
        })))
    }

    fn index_element(&mut self) -> Result<IndexElement> {
        let expr = self.text_expr(|p| p.index_value())?;
        let collation = self.collate()?;
        let opclass = if self.is_col_id() && self.one_of(&["nulls"]).is_none() { Some(self.qname()?) } else { None };
        if opclass.is_some() && self.is_op("(") {
            return self.unsupported(self.pos(), "operator class parameters");
        }
        let desc = self.eat_kw("desc");
        if !desc {
            self.eat_kw("asc");
        }
        Ok(IndexElement { expr, collation, opclass, desc, nulls_first: self.nulls_order()? })
    }

    /// A column, a call or a parenthesised expression.
    fn index_value(&mut self) -> Result<Expr> {
        let pos = self.pos();
        if self.is_op("(") {
            self.advance();
            let value = self.expr()?;
            self.expect_op(")")?;
            return Ok(value);
        }
        if self.is_col_id() && !self.is_op_at(1, "(") {
            let name = self.col_id()?;
            return Ok(Expr { kind: ExprKind::Column(vec![name]), pos });
        }
        self.b_expr()
    }

    /// Runs a rule and keeps the text it took.
    pub fn text_expr(&mut self, rule: impl FnOnce(&mut Self) -> Result<Expr>) -> Result<TextExpr> {
        let start = self.pos() as usize;
        let expr = rule(self)?;
        Ok(TextExpr { expr, text: self.sql[start..self.end() as usize].to_owned() })
    }

    pub fn table_element(&mut self) -> Result<TableElement> {
        if self.eat_kw("like") {
            let table = self.relation_name()?;
            let mut including: Vec<String> = Vec::new();
            const ALL: [&str; 9] = [
                "comments",
                "compression",
                "constraints",
                "defaults",
                "generated",
                "identity",
                "indexes",
                "statistics",
                "storage",
            ];
            while let Some(word) = self.eat_one_of(&["including", "excluding"]) {
                let option = self.col_label()?;
                let names: Vec<&str> = match option.text.as_str() {
                    "all" => ALL.to_vec(),
                    other => {
                        vec![ALL.iter().copied().find(|o| *o == other).ok_or_else(|| self.unexpected_at(self.at - 1))?]
                    }
                };
                including.retain(|o| !names.contains(&o.as_str()));
                if word == "including" {
                    including.extend(names.into_iter().map(str::to_owned));
                }
            }
            return Ok(TableElement::Like { table, including });
        }
        if let Some(constraint) = self.table_constraint()? {
            return Ok(TableElement::Constraint(Box::new(constraint)));
        }
        Ok(TableElement::Column(Box::new(self.column_def()?)))
    }

    /// COLLATE name, where errors point at the word COLLATE.
    pub fn collate(&mut self) -> Result<Option<QName>> {
        let pos = self.pos();
        if !self.eat_kw("collate") {
            return Ok(None);
        }
        Ok(Some(QName { pos, ..self.qname()? }))
    }

    /// columnDef.
    pub fn column_def(&mut self) -> Result<ColumnDef> {
        let name = self.col_id()?;
        let mut ty = self.type_name()?;
        let mut serial = false;
        if ty.name.parts.len() == 1 && ty.mods.is_empty() {
            let integer = match ty.name.last() {
                "smallserial" | "serial2" => Some("int2"),
                "serial" | "serial4" => Some("int4"),
                "bigserial" | "serial8" => Some("int8"),
                _ => None,
            };
            if let Some(integer) = integer {
                if ty.dims > 0 {
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "array of serial is not implemented")
                        .at(Some(ty.pos + 1)));
                }
                serial = true;
                ty.name.parts = vec!["pg_catalog".into(), integer.into()];
            }
        }
        let mut column = ColumnDef { name, ty, serial, collation: None, options: vec![], constraints: vec![] };
        if self.is_kw("storage") || self.is_kw("compression") {
            return self.unsupported(self.pos(), "STORAGE and COMPRESSION");
        }
        column.options = self.generic_options()?;
        loop {
            if let Some(collation) = self.collate()? {
                column.collation = Some(collation);
                continue;
            }
            match self.column_constraint()? {
                Some(constraint) => column.constraints.push(constraint),
                None if self.is_deferrability() => return self.misplaced_deferrability(),
                None => return Ok(column),
            }
        }
    }

    pub fn parenthesised_sequence_options(&mut self) -> Result<Vec<SequenceOption>> {
        if !self.eat_op("(") {
            return Ok(vec![]);
        }
        let options = self.sequence_options()?;
        self.expect_op(")")?;
        Ok(options)
    }

    /// All options of a sequence that follow.
    pub fn sequence_options(&mut self) -> Result<Vec<SequenceOption>> {
        let mut options = Vec::new();
        while let Some(option) = self.sequence_option()? {
            options.push(option);
        }
        Ok(options)
    }

    pub fn sequence_option(&mut self) -> Result<Option<SequenceOption>> {
        use SequenceOption as Option_;
        let Some(word) = self.eat_one_of(&[
            "as",
            "increment",
            "minvalue",
            "maxvalue",
            "start",
            "restart",
            "cache",
            "cycle",
            "no",
            "owned",
            "sequence",
        ]) else {
            return Ok(None);
        };
        let option = match word {
            "as" => Option_::As(self.type_name()?.name.last().to_owned()),
            "increment" => {
                self.eat_kw("by");
                Option_::Increment(self.signed_integer()?)
            }
            "minvalue" => Option_::MinValue(Some(self.signed_integer()?)),
            "maxvalue" => Option_::MaxValue(Some(self.signed_integer()?)),
            "start" => {
                self.eat_kw("with");
                Option_::Start(self.signed_integer()?)
            }
            "restart" => {
                let with = self.eat_kw("with");
                let number = with || matches!(self.tok(), Tok::Number(_) | Tok::Op("-" | "+"));
                Option_::Restart(if number { Some(self.signed_integer()?) } else { None })
            }
            "cache" => Option_::Cache(self.signed_integer()?),
            "cycle" => Option_::Cycle(true),
            "owned" => {
                self.expect_kw("by")?;
                let name = self.qname()?;
                Option_::OwnedBy(if name.parts.len() == 1 && name.parts[0] == "none" { None } else { Some(name) })
            }
            "sequence" => {
                self.expect_kw("name")?;
                Option_::SequenceName(self.qname()?)
            }
            _ => match self.eat_one_of(&["minvalue", "maxvalue", "cycle"]) {
                Some("minvalue") => Option_::MinValue(None),
                Some("maxvalue") => Option_::MaxValue(None),
                Some(_) => Option_::Cycle(false),
                None => return Err(self.unexpected()),
            },
        };
        Ok(Some(option))
    }

    pub fn drop_behavior(&mut self) -> bool {
        let cascade = self.eat_kw("cascade");
        if !cascade {
            self.eat_kw("restrict");
        }
        cascade
    }

    /// After DROP.
    pub fn drop(&mut self) -> Result<StatementKind> {
        let word = match self.tok() {
            Tok::Word(w, _) => w.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        let kind = match word.as_str() {
            "table" => ObjectKind::Table,
            "view" => ObjectKind::View,
            "index" => ObjectKind::Index,
            "sequence" => ObjectKind::Sequence,
            "server" => ObjectKind::Server,
            "foreign" if self.is_kw("table") => {
                self.advance();
                ObjectKind::ForeignTable
            }
            "schema" => ObjectKind::Schema,
            "database" => {
                let if_exists = self.eat_kws(&["if", "exists"]);
                let name = self.col_id()?;
                self.eat_kw("with");
                let mut force = false;
                if self.eat_op("(") {
                    self.expect_kw("force")?;
                    self.expect_op(")")?;
                    force = true;
                }
                return Ok(StatementKind::DropDatabase { name, if_exists, force });
            }
            "tag" => {
                let if_exists = self.eat_kws(&["if", "exists"]);
                return Ok(StatementKind::DropTag { name: self.name_or_string()?, if_exists });
            }
            "type" => ObjectKind::Other("type"),
            "domain" => ObjectKind::Other("domain"),
            "extension" => ObjectKind::Other("extension"),
            "collation" => ObjectKind::Other("collation"),
            "role" | "user" | "group" if !self.is_kw("mapping") => ObjectKind::Other("role"),
            "materialized" if self.is_kw("view") => {
                self.advance();
                ObjectKind::Other("materialized view")
            }
            _ => return self.skip_unsupported("DROP", &word),
        };
        let concurrently = kind == ObjectKind::Index && self.eat_kw("concurrently");
        let if_exists = self.eat_kws(&["if", "exists"]);
        let names = self.qnames()?;
        let cascade = self.drop_behavior();
        Ok(StatementKind::Drop { kind, names, if_exists, cascade, concurrently })
    }
}
