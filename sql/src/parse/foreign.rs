//! Foreign servers, foreign tables, IMPORT FOREIGN SCHEMA, and the OPTIONS they have in common.

use super::ast::*;
use super::parser::Parser;
use crate::error::Result;

impl Parser<'_> {
    /// After CREATE SERVER.
    pub fn create_server(&mut self) -> Result<StatementKind> {
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let name = self.col_id()?;
        let kind = if self.eat_kw("type") { Some(self.string()?) } else { None };
        let version = self.server_version()?.flatten();
        self.expect_kws(&["foreign", "data", "wrapper"])?;
        let wrapper = self.col_id()?;
        let options = self.generic_options()?;
        let server = CreateServer { name, if_not_exists, kind, version, wrapper, options };
        Ok(StatementKind::Foreign(Box::new(ForeignStatement::CreateServer(server))))
    }

    /// VERSION 'x' or VERSION NULL; None: neither.
    fn server_version(&mut self) -> Result<Option<Option<String>>> {
        if !self.eat_kw("version") {
            return Ok(None);
        }
        Ok(Some(if self.eat_kw("null") { None } else { Some(self.string()?) }))
    }

    /// After CREATE FOREIGN, at TABLE.
    pub fn create_foreign_table(&mut self) -> Result<StatementKind> {
        self.expect_kw("table")?;
        let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
        let name = self.relation_name()?;
        if self.are_kws(&["partition", "of"]) {
            return self.unsupported(self.pos(), "CREATE FOREIGN TABLE PARTITION OF");
        }
        self.expect_op("(")?;
        let elements = if self.is_op(")") { vec![] } else { self.comma_list(|p| p.table_element())? };
        self.expect_op(")")?;
        if self.is_kw("inherits") {
            return self.unsupported(self.pos(), "INHERITS");
        }
        self.expect_kw("server")?;
        let server = self.col_id()?;
        let options = self.generic_options()?;
        let table = CreateTable { name, if_not_exists, temporary: false, unlogged: false, elements, unsupported: None };
        Ok(StatementKind::Foreign(Box::new(ForeignStatement::CreateTable { table, server, options })))
    }

    /// After ALTER SERVER.
    pub fn alter_server(&mut self) -> Result<StatementKind> {
        let name = self.col_id()?;
        let qname = QName { parts: vec![name.text.clone()], pos: name.pos };
        let kind = ObjectKind::Server;
        if self.are_kws(&["rename", "to"]) {
            self.at += 2;
            return Ok(StatementKind::Rename { kind, name: qname, if_exists: false, to: self.col_id()? });
        }
        if self.are_kws(&["owner", "to"]) {
            self.at += 2;
            return Ok(StatementKind::SetOwner { kind, name: qname, if_exists: false, owner: self.role()? });
        }
        let version = self.server_version()?;
        let changes = if self.is_kw("options") || version.is_none() { self.option_changes()? } else { vec![] };
        Ok(StatementKind::Foreign(Box::new(ForeignStatement::AlterServer { name, version, changes })))
    }

    /// After IMPORT.
    pub fn import_foreign_schema(&mut self) -> Result<StatementKind> {
        self.expect_kws(&["foreign", "schema"])?;
        let remote = self.col_id()?;
        let limit = if self.are_kws(&["limit", "to"]) {
            self.at += 2;
            ImportLimit::To(self.name_list()?)
        } else if self.eat_kw("except") {
            ImportLimit::Except(self.name_list()?)
        } else {
            ImportLimit::All
        };
        self.expect_kws(&["from", "server"])?;
        let server = self.col_id()?;
        self.expect_kw("into")?;
        let into = self.col_id()?;
        let options = self.generic_options()?;
        let import = ImportSchema { remote, limit, server, into, options };
        Ok(StatementKind::Foreign(Box::new(ForeignStatement::Import(import))))
    }

    /// `OPTIONS (name 'value', ...)`; none if the word is not there.
    pub fn generic_options(&mut self) -> Result<Vec<GenericOption>> {
        if !self.eat_kw("options") {
            return Ok(vec![]);
        }
        self.expect_op("(")?;
        let options = self.comma_list(|p| p.generic_option())?;
        self.expect_op(")")?;
        Ok(options)
    }

    fn generic_option(&mut self) -> Result<GenericOption> {
        Ok(GenericOption { name: self.col_label()?, value: self.string()? })
    }

    /// `OPTIONS ([ADD] name 'value', SET name 'value', DROP name ...)`.
    pub fn option_changes(&mut self) -> Result<Vec<OptionChange>> {
        self.expect_kw("options")?;
        self.expect_op("(")?;
        let changes = self.comma_list(|p| {
            // ADD, SET and DROP may be options' names, too: then a value follows at once.
            let is_word = |p: &Self| !matches!(p.ahead(1), super::lexer::Tok::Str(_));
            Ok(if p.is_kw("set") && is_word(p) {
                p.advance();
                OptionChange::Set(p.generic_option()?)
            } else if p.is_kw("drop") && is_word(p) {
                p.advance();
                OptionChange::Drop(p.col_label()?)
            } else {
                if p.is_kw("add") && is_word(p) {
                    p.advance();
                }
                OptionChange::Add(p.generic_option()?)
            })
        })?;
        self.expect_op(")")?;
        Ok(changes)
    }
}
