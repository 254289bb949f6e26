//! Statements that are neither queries nor definitions: transactions, settings, prepared statements, cursors, maintenance.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::{Result, SqlError, state};

impl Parser<'_> {
    /// One statement.
    pub fn statement(&mut self) -> Result<StatementKind> {
        if self.is_op("(") {
            return Ok(StatementKind::Query(Box::new(self.query()?)));
        }
        let word = match self.tok() {
            Tok::Word(w, Some(_)) => w.clone(),
            _ => return Err(self.unexpected()),
        };
        match word.as_str() {
            "select" | "values" | "table" | "with" | "insert" | "update" | "delete" => {
                return Ok(select_into(self.preparable()?));
            }
            "merge" => {
                self.skip_statement()?;
                return Ok(StatementKind::Unsupported("MERGE".into()));
            }
            _ => {}
        }
        self.advance();
        match word.as_str() {
            "create" => self.create(),
            "alter" => self.alter(),
            "drop" => self.drop(),
            "explain" => self.explain(),
            "begin" => self.begin(),
            "start" => {
                self.expect_kw("transaction")?;
                Ok(StatementKind::Begin { modes: self.transaction_modes()? })
            }
            "commit" | "end" => {
                if word == "commit" && self.eat_kw("prepared") {
                    self.string()?;
                    return Ok(StatementKind::Unsupported("COMMIT PREPARED".into()));
                }
                Ok(StatementKind::Commit { chain: self.chain_clause()? })
            }
            "rollback" | "abort" => self.rollback(word == "rollback"),
            "savepoint" => Ok(StatementKind::Savepoint(self.col_id()?)),
            "release" => {
                self.eat_kw("savepoint");
                Ok(StatementKind::ReleaseSavepoint(self.col_id()?))
            }
            "set" => self.set(),
            "show" => {
                if self.eat_kw("all") {
                    return Ok(StatementKind::ShowAll);
                }
                Ok(StatementKind::Show { name: self.setting_name()? })
            }
            "reset" => {
                if self.eat_kw("all") {
                    return Ok(StatementKind::ResetAll);
                }
                Ok(StatementKind::Reset { name: self.setting_name()? })
            }
            "discard" => {
                Ok(StatementKind::Discard(match self.eat_one_of(&["all", "plans", "sequences", "temp", "temporary"]) {
                    Some("all") => DiscardKind::All,
                    Some("plans") => DiscardKind::Plans,
                    Some("sequences") => DiscardKind::Sequences,
                    Some(_) => DiscardKind::Temp,
                    None => return Err(self.unexpected()),
                }))
            }
            "prepare" => self.prepare(),
            "execute" => self.execute(),
            "deallocate" => {
                self.eat_kw("prepare");
                Ok(StatementKind::Deallocate(if self.eat_kw("all") { None } else { Some(self.col_id()?) }))
            }
            "declare" => {
                self.skip_statement()?;
                Ok(StatementKind::Unsupported("DECLARE CURSOR".into()))
            }
            "fetch" | "move" => self.fetch(),
            "close" => Ok(StatementKind::Close(if self.eat_kw("all") { None } else { Some(self.col_id()?) })),
            "listen" => Ok(StatementKind::Listen(self.col_id()?)),
            "unlisten" => Ok(StatementKind::Unlisten(if self.eat_op("*") { None } else { Some(self.col_id()?) })),
            "notify" => {
                let channel = self.col_id()?;
                let payload = if self.eat_op(",") { Some(self.string()?) } else { None };
                Ok(StatementKind::Notify { channel, payload })
            }
            "vacuum" => self.vacuum(),
            "analyze" | "analyse" => {
                if self.is_op("(") {
                    self.flags("ANALYZE", &["verbose", "skip_locked"])?;
                } else {
                    self.eat_kw("verbose");
                }
                Ok(StatementKind::Analyze { tables: self.vacuum_tables()? })
            }
            "checkpoint" => Ok(StatementKind::Checkpoint),
            "cluster" => self.cluster(),
            "reindex" => self.reindex(),
            "lock" => self.lock(),
            "grant" | "revoke" => {
                self.skip_statement()?;
                Ok(StatementKind::Unsupported(word.to_ascii_uppercase()))
            }
            "do" => {
                let (mut language, mut body) = (None, None);
                while !self.at_end() {
                    if self.eat_kw("language") {
                        language = Some(self.name_or_string()?.text);
                    } else {
                        body = Some(self.string()?);
                    }
                }
                match body {
                    Some(body) => Ok(StatementKind::Do { language, body }),
                    None => Err(self.unexpected()),
                }
            }
            "call" => {
                let pos = self.pos();
                let name = self.qname()?;
                self.expect_op("(")?;
                Ok(StatementKind::Call(Box::new(self.call_rest(name, None, pos)?)))
            }
            "copy" => Ok(StatementKind::Copy(Box::new(self.copy()?))),
            "comment" => self.comment(),
            "truncate" => self.truncate(),
            "import" => self.import_foreign_schema(),
            "refresh" | "security" | "reassign" | "load" => {
                let tag = match word.as_str() {
                    "refresh" => "REFRESH MATERIALIZED VIEW",
                    "security" => "SECURITY LABEL",
                    "reassign" => "REASSIGN OWNED",
                    _ => "LOAD",
                };
                self.skip_statement()?;
                Ok(StatementKind::Unsupported(tag.into()))
            }
            _ => Err(self.unexpected_at(self.at - 1)),
        }
    }

    /// A statement inside another, with its own text.
    pub fn inner_statement(&mut self, rule: impl FnOnce(&mut Self) -> Result<StatementKind>) -> Result<Statement> {
        let start = self.pos();
        let outer = std::mem::take(&mut self.max_param);
        let kind = rule(self)?;
        let max_param = self.max_param;
        self.max_param = outer.max(max_param);
        Ok(Statement { kind, source: self.source.clone(), start, end: self.end(), max_param })
    }

    fn explain(&mut self) -> Result<StatementKind> {
        let mut made = Explain { analyze: false, verbose: false, options: vec![], statement: Box::new(self.nothing()) };
        let parenthesised = self.is_op("(")
            && !["select", "values", "with", "table"].iter().any(|k| self.is_kw_at(1, k))
            && !self.is_op_at(1, "(");
        if parenthesised {
            made.options = self.option_list()?;
            for (name, value) in &made.options {
                match name.as_str() {
                    "analyze" | "analyse" => made.analyze = value.boolean().unwrap_or(false),
                    "verbose" => made.verbose = value.boolean().unwrap_or(false),
                    _ => {}
                }
            }
        } else {
            made.analyze = self.eat_one_of(&["analyze", "analyse"]).is_some();
            made.verbose = self.eat_kw("verbose");
        }
        made.statement = Box::new(self.inner_statement(|p| {
            if p.is_op("(")
                || p.one_of(&[
                    "select", "values", "table", "with", "insert", "update", "delete", "declare", "create", "execute",
                    "merge", "refresh",
                ])
                .is_some()
            {
                p.statement()
            } else {
                Err(p.unexpected())
            }
        })?);
        Ok(StatementKind::Explain(Box::new(made)))
    }

    fn nothing(&self) -> Statement {
        Statement { kind: StatementKind::Checkpoint, source: self.source.clone(), start: 0, end: 0, max_param: 0 }
    }

    fn begin(&mut self) -> Result<StatementKind> {
        self.eat_one_of(&["work", "transaction"]);
        Ok(StatementKind::Begin { modes: self.transaction_modes()? })
    }

    fn chain_clause(&mut self) -> Result<bool> {
        self.eat_one_of(&["work", "transaction"]);
        if !self.eat_kw("and") {
            return Ok(false);
        }
        let no = self.eat_kw("no");
        self.expect_kw("chain")?;
        Ok(!no)
    }

    fn rollback(&mut self, may_name: bool) -> Result<StatementKind> {
        if may_name && self.eat_kw("prepared") {
            self.string()?;
            return Ok(StatementKind::Unsupported("ROLLBACK PREPARED".into()));
        }
        let at = self.at;
        self.eat_one_of(&["work", "transaction"]);
        if may_name && self.eat_kw("to") {
            self.eat_kw("savepoint");
            return Ok(StatementKind::RollbackTo(self.col_id()?));
        }
        self.at = at;
        Ok(StatementKind::Rollback { chain: self.chain_clause()? })
    }

    fn transaction_modes(&mut self) -> Result<TransactionModes> {
        let mut modes = TransactionModes::default();
        let mut comma = false;
        loop {
            if self.eat_kws(&["isolation", "level"]) {
                modes.isolation = Some(if self.eat_kws(&["read", "uncommitted"]) {
                    IsolationLevel::ReadUncommitted
                } else if self.eat_kws(&["read", "committed"]) {
                    IsolationLevel::ReadCommitted
                } else if self.eat_kws(&["repeatable", "read"]) {
                    IsolationLevel::RepeatableRead
                } else {
                    self.expect_kw("serializable")?;
                    IsolationLevel::Serializable
                });
            } else if self.eat_kws(&["read", "only"]) {
                modes.read_only = Some(true);
            } else if self.eat_kws(&["read", "write"]) {
                modes.read_only = Some(false);
            } else if self.eat_kws(&["not", "deferrable"]) {
                modes.deferrable = Some(false);
            } else if self.eat_kw("deferrable") {
                modes.deferrable = Some(true);
            } else if comma || !self.at_end() {
                return Err(self.unexpected());
            } else {
                return Ok(modes);
            }
            comma = self.eat_op(",");
        }
    }

    /// A setting's name as SHOW and RESET take it, the special spellings resolved.
    pub fn setting_name(&mut self) -> Result<String> {
        if self.eat_kws(&["time", "zone"]) {
            return Ok("timezone".into());
        }
        if self.eat_kws(&["transaction", "isolation", "level"]) {
            return Ok("transaction_isolation".into());
        }
        if self.eat_kws(&["session", "authorization"]) {
            return Ok("session_authorization".into());
        }
        let mut name = self.col_id()?.text;
        while self.eat_op(".") {
            name.push('.');
            name.push_str(&self.col_id()?.text);
        }
        Ok(name)
    }

    /// After SET.
    pub fn set(&mut self) -> Result<StatementKind> {
        if self.are_kws(&["session", "characteristics"]) {
            self.at += 2;
            self.expect_kws(&["as", "transaction"])?;
            let modes = self.transaction_modes()?;
            if modes == TransactionModes::default() {
                return Err(self.unexpected());
            }
            return Ok(StatementKind::SetSessionCharacteristics { modes });
        }
        if self.eat_kw("constraints") {
            let names = if self.eat_kw("all") { vec![] } else { self.qnames()? };
            let deferred = match self.eat_one_of(&["deferred", "immediate"]) {
                Some(word) => word == "deferred",
                None => return Err(self.unexpected()),
            };
            return Ok(StatementKind::SetConstraints { names, deferred });
        }
        let followed = !(self.is_op_at(1, "=") || self.is_kw_at(1, "to"));
        let local = followed && self.eat_kw("local");
        if followed && !local && !self.is_kw_at(1, "authorization") {
            self.eat_kw("session");
        }
        if self.is_kw("transaction") && !self.is_op_at(1, "=") && !self.is_kw_at(1, "to") {
            self.advance();
            if self.eat_kw("snapshot") {
                return Ok(StatementKind::SetTransactionSnapshot(self.string()?));
            }
            let modes = self.transaction_modes()?;
            if modes == TransactionModes::default() {
                return Err(self.unexpected());
            }
            return Ok(StatementKind::SetTransaction { modes });
        }
        let set = |name: &str, value| Ok(StatementKind::Set { name: name.into(), local, value });
        let one = |text: String| SetValue::Values(vec![text]);
        if self.eat_kws(&["time", "zone"]) {
            let value = if self.eat_one_of(&["default", "local"]).is_some() {
                SetValue::Default
            } else if self.is_kw("interval") {
                let pos = self.pos();
                let value = self.expr()?;
                match value.kind {
                    ExprKind::Cast { input, .. } => match input.kind {
                        ExprKind::String(text) => SetValue::Interval(text),
                        _ => return Err(self.unexpected()),
                    },
                    _ => return self.error(pos, "time zone interval must be HOUR or HOUR TO MINUTE"),
                }
            } else {
                one(self.set_value()?)
            };
            return set("timezone", value);
        }
        if self.is_kw("catalog") && matches!(self.ahead(1), Tok::Str(_)) {
            return self.unsupported(self.pos(), "SET CATALOG");
        }
        if self.is_kw("schema") && matches!(self.ahead(1), Tok::Str(_)) {
            self.advance();
            return set("search_path", one(self.string()?));
        }
        if self.is_kw("names") && !self.is_op_at(1, "=") && !self.is_kw_at(1, "to") {
            self.advance();
            let value = if self.at_end() || self.eat_kw("default") { SetValue::Default } else { one(self.string()?) };
            return set("client_encoding", value);
        }
        if self.is_kw("role") && !self.is_op_at(1, "=") && !self.is_kw_at(1, "to") {
            self.advance();
            return set("role", one(self.name_or_string_reserved()?));
        }
        if self.eat_kws(&["session", "authorization"]) {
            let value = if self.eat_kw("default") { SetValue::Default } else { one(self.name_or_string_reserved()?) };
            return set("session_authorization", value);
        }
        if self.eat_kws(&["xml", "option"]) {
            return self.unsupported(self.pos(), "SET XML OPTION");
        }
        let name = self.setting_name()?;
        if self.eat_kws(&["from", "current"]) {
            return set(&name, SetValue::Current);
        }
        if !self.eat_op("=") && !self.eat_kw("to") {
            return Err(self.unexpected());
        }
        if self.is_kw("default") {
            self.advance();
            return set(&name, SetValue::Default);
        }
        let values = self.comma_list(|p| p.set_value())?;
        set(&name, SetValue::Values(values))
    }

    fn name_or_string_reserved(&mut self) -> Result<String> {
        if matches!(self.tok(), Tok::Str(_)) { self.string() } else { Ok(self.role()?.text) }
    }

    fn set_value(&mut self) -> Result<String> {
        match self.tok() {
            Tok::Str(_) => self.string(),
            Tok::Number(_) | Tok::Op("-" | "+") => self.signed_number(),
            Tok::Word(w, _) if matches!(w.as_str(), "true" | "false" | "on") => Ok(self.col_label()?.text),
            _ => Ok(self.non_reserved()?.text),
        }
    }

    fn prepare(&mut self) -> Result<StatementKind> {
        if self.is_kw("transaction") && matches!(self.ahead(1), Tok::Str(_)) {
            self.advance();
            return Ok(StatementKind::PrepareTransaction(self.string()?));
        }
        let name = self.col_id()?;
        let mut types = Vec::new();
        if self.eat_op("(") {
            types = self.comma_list(|p| p.type_name())?;
            self.expect_op(")")?;
        }
        self.expect_kw("as")?;
        let statement = Box::new(self.inner_statement(|p| p.preparable())?);
        Ok(StatementKind::Prepare { name, types, statement })
    }

    /// After EXECUTE.
    pub fn execute(&mut self) -> Result<StatementKind> {
        let name = self.col_id()?;
        let mut args = Vec::new();
        if self.eat_op("(") {
            args = self.comma_list(|p| p.expr())?;
            self.expect_op(")")?;
        }
        Ok(StatementKind::Execute { name, args })
    }

    /// FETCH and MOVE: in which direction matters to no one, for there are no cursors.
    fn fetch(&mut self) -> Result<StatementKind> {
        let count = |p: &mut Self| -> Result<()> {
            if !p.eat_kw("all") && matches!(p.tok(), Tok::Number(_) | Tok::Op("-" | "+")) {
                p.signed_integer()?;
            }
            Ok(())
        };
        match self.one_of(&["next", "prior", "first", "last", "absolute", "relative", "forward", "backward"]) {
            // A cursor may have such a name: then nothing, or FROM and IN, cannot follow.
            Some(word) if !matches!(self.ahead(1), Tok::End | Tok::Op(";")) => {
                self.advance();
                match word {
                    "absolute" | "relative" => {
                        self.signed_integer()?;
                    }
                    "forward" | "backward" => count(self)?,
                    _ => {}
                }
            }
            _ => count(self)?,
        }
        self.eat_one_of(&["from", "in"]);
        Ok(StatementKind::Fetch(self.col_id()?))
    }

    fn vacuum(&mut self) -> Result<StatementKind> {
        // How it is done makes no difference where there is nothing to do.
        const OPTIONS: [&str; 11] = [
            "analyze",
            "analyse",
            "verbose",
            "freeze",
            "full",
            "disable_page_skipping",
            "skip_locked",
            "index_cleanup",
            "process_toast",
            "truncate",
            "parallel",
        ];
        let analyze = if self.is_op("(") {
            self.flags("VACUUM", &OPTIONS)?.iter().any(|o| matches!(o.as_str(), "analyze" | "analyse"))
        } else {
            self.eat_kw("full");
            self.eat_kw("freeze");
            self.eat_kw("verbose");
            self.eat_one_of(&["analyze", "analyse"]).is_some()
        };
        let tables = self.vacuum_tables()?;
        if !analyze && tables.iter().any(|t| !t.columns.is_empty()) {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "ANALYZE option must be specified when a column list is provided",
            ));
        }
        Ok(StatementKind::Vacuum { tables })
    }

    fn vacuum_tables(&mut self) -> Result<Vec<VacuumTable>> {
        if self.at_end() {
            return Ok(vec![]);
        }
        self.comma_list(|p| {
            let name = p.relation_name()?;
            let columns = if p.is_op("(") { p.name_list()? } else { vec![] };
            Ok(VacuumTable { name, columns })
        })
    }

    /// The options of a maintenance command, which must be among those it knows: those that are on.
    fn flags(&mut self, command: &str, known: &[&str]) -> Result<Vec<String>> {
        let at = self.at;
        let mut on = Vec::new();
        for (name, value) in self.option_list()? {
            if !known.contains(&name.as_str()) {
                return self.error(self.tokens[at + 1].start, format!("unrecognized {command} option \"{name}\""));
            }
            match (name.as_str(), value.boolean()) {
                // These take other values too.
                ("parallel" | "index_cleanup", _) => {}
                (_, Some(true)) => on.push(name),
                (_, Some(false)) => {}
                (_, None) => {
                    let pos = self.tokens[at + 1].start;
                    return self.error(pos, format!("{name} requires a Boolean value"));
                }
            }
        }
        Ok(on)
    }

    fn reindex(&mut self) -> Result<StatementKind> {
        let mut concurrently = false;
        if self.is_op("(") {
            concurrently = self.flags("REINDEX", &["verbose", "concurrently"])?.iter().any(|o| o == "concurrently");
        }
        let kind = match self.eat_one_of(&["index", "table", "schema", "database", "system"]) {
            Some("index") => ObjectKind::Index,
            Some("table") => ObjectKind::Table,
            Some("schema") => ObjectKind::Schema,
            Some(_) => ObjectKind::Database,
            None => return Err(self.unexpected()),
        };
        concurrently |= self.eat_kw("concurrently");
        Ok(StatementKind::Reindex { kind, name: self.relation_name()?, concurrently })
    }

    fn cluster(&mut self) -> Result<StatementKind> {
        if self.is_op("(") {
            self.option_list()?;
        } else {
            self.eat_kw("verbose");
        }
        if self.at_end() {
            return Ok(StatementKind::Cluster(None));
        }
        let table = self.relation_name()?;
        if self.eat_one_of(&["using", "on"]).is_some() {
            self.qname()?;
        }
        Ok(StatementKind::Cluster(Some(table)))
    }

    fn lock(&mut self) -> Result<StatementKind> {
        self.eat_kw("table");
        let tables = self.relation_list()?;
        let mut mode = "ACCESS EXCLUSIVE".to_owned();
        if self.eat_kw("in") {
            let mut words = Vec::new();
            while !self.is_kw("mode") {
                match self.eat_one_of(&["access", "row", "share", "update", "exclusive"]) {
                    Some(word) => words.push(word.to_ascii_uppercase()),
                    None => return Err(self.unexpected()),
                }
            }
            self.advance();
            mode = words.join(" ");
            const MODES: [&str; 8] = [
                "ACCESS SHARE",
                "ROW SHARE",
                "ROW EXCLUSIVE",
                "SHARE UPDATE EXCLUSIVE",
                "SHARE",
                "SHARE ROW EXCLUSIVE",
                "EXCLUSIVE",
                "ACCESS EXCLUSIVE",
            ];
            if !MODES.contains(&mode.as_str()) {
                return Err(self.unexpected_at(self.at - 1));
            }
        }
        let nowait = self.eat_kw("nowait");
        Ok(StatementKind::Lock { tables, mode, nowait })
    }

    /// relation_expr_list.
    fn relation_list(&mut self) -> Result<Vec<QName>> {
        self.comma_list(|p| {
            let only = p.eat_kw("only");
            if only && p.eat_op("(") {
                let name = p.relation_name()?;
                p.expect_op(")")?;
                return Ok(name);
            }
            let name = p.relation_name()?;
            if !only {
                p.eat_op("*");
            }
            Ok(name)
        })
    }

    fn truncate(&mut self) -> Result<StatementKind> {
        self.eat_kw("table");
        let tables = self.relation_list()?;
        let restart_identity = self.eat_kws(&["restart", "identity"]);
        if !restart_identity {
            self.eat_kws(&["continue", "identity"]);
        }
        let cascade = self.eat_kw("cascade");
        if !cascade {
            self.eat_kw("restrict");
        }
        Ok(StatementKind::Truncate { tables, restart_identity, cascade })
    }

    fn comment(&mut self) -> Result<StatementKind> {
        self.expect_kw("on")?;
        let word = self.col_label()?.text;
        let on = match word.as_str() {
            "table" => CommentTarget::Object(ObjectKind::Table, self.relation_name()?),
            "view" => CommentTarget::Object(ObjectKind::View, self.relation_name()?),
            "index" => CommentTarget::Object(ObjectKind::Index, self.relation_name()?),
            "sequence" => CommentTarget::Object(ObjectKind::Sequence, self.relation_name()?),
            "server" => CommentTarget::Object(ObjectKind::Server, self.relation_name()?),
            "foreign" if self.eat_kw("table") => CommentTarget::Object(ObjectKind::ForeignTable, self.relation_name()?),
            "schema" => CommentTarget::Object(ObjectKind::Schema, self.relation_name()?),
            "database" => CommentTarget::Object(ObjectKind::Database, self.relation_name()?),
            "column" => {
                let name = self.qname()?;
                if name.parts.len() < 2 {
                    return self.error(name.pos, "column name must be qualified");
                }
                CommentTarget::Column(name)
            }
            "constraint" => {
                let name = self.col_id()?;
                self.expect_kw("on")?;
                if self.eat_kw("domain") {
                    return self.unsupported(self.pos(), "COMMENT ON a domain's constraint");
                }
                CommentTarget::Constraint { name, table: self.relation_name()? }
            }
            _ => {
                self.skip_statement()?;
                return Ok(StatementKind::Unsupported(format!("COMMENT ON {}", word.to_ascii_uppercase())));
            }
        };
        self.expect_kw("is")?;
        let text = if self.eat_kw("null") { None } else { Some(self.string()?) };
        Ok(StatementKind::Comment { on, text })
    }
}

/// SELECT .. INTO t is CREATE TABLE t AS SELECT ..
fn select_into(kind: StatementKind) -> StatementKind {
    let StatementKind::Query(mut query) = kind else { return kind };
    let into = match &mut query.body {
        Body::Select(select) => select.into.take(),
        _ => None,
    };
    match into {
        None => StatementKind::Query(query),
        Some(name) => StatementKind::CreateTableAs(Box::new(CreateTableAs {
            name,
            columns: vec![],
            if_not_exists: false,
            temporary: false,
            materialized_view: false,
            unsupported: None,
            statement: StatementKind::Query(query),
            with_data: true,
        })),
    }
}
