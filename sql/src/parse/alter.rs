//! ALTER.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::Result;

impl Parser<'_> {
    /// ALTER ROLE: only its password can be changed.
    fn alter_role(&mut self, word: &str) -> Result<StatementKind> {
        let role = self.role()?;
        self.eat_kw("with");
        self.eat_kw("encrypted");
        if !self.eat_kw("password") {
            return self.skip_unsupported("ALTER", word);
        }
        let password = if self.eat_kw("null") { None } else { Some(self.string()?) };
        if !self.at_end() {
            return self.skip_unsupported("ALTER", word);
        }
        Ok(StatementKind::SetPassword { role, password })
    }

    /// ALTER DATABASE name SET | RESET: settings of a database.
    fn alter_database(&mut self, name: QName) -> Result<StatementKind> {
        let start = self.at;
        let database = Name { text: name.last().to_owned(), pos: name.pos };
        if self.eat_kw("reset") {
            let setting = if self.eat_kw("all") { None } else { Some(self.setting_name()?) };
            return Ok(StatementKind::AlterDatabase { database, setting, value: SetValue::Default });
        }
        if self.is_kw("set") && !self.is_kw_at(1, "tablespace") {
            self.advance();
            if let StatementKind::Set { name, local: false, value } = self.set()? {
                return Ok(StatementKind::AlterDatabase { database, setting: Some(name), value });
            }
        }
        self.at = start;
        self.skip_unsupported("ALTER", "database")
    }

    /// After ALTER.
    pub fn alter(&mut self) -> Result<StatementKind> {
        let word = match self.tok() {
            Tok::Word(w, _) => w.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        let kind = match word.as_str() {
            "role" | "user" if !self.is_kw("mapping") => return self.alter_role(&word),
            "table" => ObjectKind::Table,
            "view" => ObjectKind::View,
            "index" => ObjectKind::Index,
            "sequence" => ObjectKind::Sequence,
            "server" => return self.alter_server(),
            "foreign" if self.is_kw("table") => {
                self.advance();
                ObjectKind::ForeignTable
            }
            "schema" => ObjectKind::Schema,
            "database" => ObjectKind::Database,
            _ => return self.skip_unsupported("ALTER", &word),
        };
        if self.is_kw("all") {
            return self.unsupported(self.pos(), "ALTER .. ALL IN TABLESPACE");
        }
        let if_exists = self.eat_kws(&["if", "exists"]);
        let is_table = matches!(kind, ObjectKind::Table | ObjectKind::ForeignTable);
        if is_table {
            self.eat_kw("only");
        }
        let name = self.relation_name()?;
        if is_table {
            self.eat_op("*");
        }
        if self.are_kws(&["rename", "to"]) {
            self.at += 2;
            return Ok(StatementKind::Rename { kind, name, if_exists, to: self.col_id()? });
        }
        if self.are_kws(&["set", "schema"]) {
            self.at += 2;
            return Ok(StatementKind::SetSchema { kind, name, if_exists, schema: self.col_id()? });
        }
        if self.are_kws(&["owner", "to"]) {
            self.at += 2;
            return Ok(StatementKind::SetOwner { kind, name, if_exists, owner: self.role()? });
        }
        match kind {
            ObjectKind::Sequence if !self.is_kw("set") => {
                let options = self.sequence_options()?;
                if options.is_empty() {
                    return Err(self.unexpected());
                }
                return Ok(StatementKind::AlterSequence { name, if_exists, options });
            }
            ObjectKind::Schema => return Err(self.unexpected()),
            ObjectKind::Database if !if_exists => return self.alter_database(name),
            ObjectKind::Database => return Err(self.unexpected()),
            ObjectKind::Index if self.one_of(&["set", "reset", "attach", "depends", "no", "alter"]).is_some() => {
                return self.skip_unsupported("ALTER", "index");
            }
            _ => {}
        }
        if self.eat_kw("rename") {
            if self.eat_kw("constraint") {
                let from = self.col_id()?;
                self.expect_kw("to")?;
                let to = self.col_id()?;
                return Ok(alter(name, kind, if_exists, vec![AlterAction::RenameConstraint { from, to }]));
            }
            self.eat_kw("column");
            let from = self.col_id()?;
            self.expect_kw("to")?;
            let to = self.col_id()?;
            return Ok(alter(name, kind, if_exists, vec![AlterAction::RenameColumn { from, to }]));
        }
        let actions = self.comma_list(|p| p.alter_action())?;
        Ok(alter(name, kind, if_exists, actions))
    }

    fn alter_action(&mut self) -> Result<AlterAction> {
        if self.eat_kw("add") {
            if let Some(constraint) = self.table_constraint()? {
                return Ok(AlterAction::AddConstraint(Box::new(constraint)));
            }
            self.eat_kw("column");
            let if_not_exists = self.eat_kws(&["if", "not", "exists"]);
            return Ok(AlterAction::AddColumn { column: Box::new(self.column_def()?), if_not_exists });
        }
        if self.is_kw("options") {
            return Ok(AlterAction::Options(self.option_changes()?));
        }
        if self.eat_kw("drop") {
            let constraint = self.eat_kw("constraint");
            if !constraint {
                self.eat_kw("column");
            }
            let if_exists = self.eat_kws(&["if", "exists"]);
            let name = self.col_id()?;
            let cascade = self.drop_behavior();
            return Ok(if constraint {
                AlterAction::DropConstraint { name, if_exists, cascade }
            } else {
                AlterAction::DropColumn { name, if_exists, cascade }
            });
        }
        if self.eat_kws(&["validate", "constraint"]) {
            return Ok(AlterAction::ValidateConstraint(self.col_id()?));
        }
        if self.eat_kws(&["alter", "constraint"]) {
            let name = self.col_id()?;
            return self.alter_constraint(name);
        }
        if self.eat_kw("alter") {
            self.eat_kw("column");
            let column = self.col_id()?;
            return self.alter_column(column);
        }
        // Clustering, triggers, inheritance, row security, storage: known words, no such things here.
        let words: Vec<String> = match self.tok() {
            Tok::Word(w, _)
                if matches!(
                    w.as_str(),
                    "set"
                        | "reset"
                        | "enable"
                        | "disable"
                        | "inherit"
                        | "no"
                        | "of"
                        | "not"
                        | "cluster"
                        | "replica"
                        | "force"
                        | "attach"
                        | "detach"
                ) =>
            {
                let mut words = vec![w.to_ascii_uppercase()];
                self.advance();
                while !self.at_end() && !self.is_op(",") {
                    if self.is_op("(") {
                        self.reloptions()?;
                        continue;
                    }
                    if words.len() < 3
                        && let Tok::Word(w, Some(_)) = self.tok()
                    {
                        words.push(w.to_ascii_uppercase());
                    }
                    self.advance();
                }
                words
            }
            _ => return Err(self.unexpected()),
        };
        Ok(AlterAction::Unsupported(words.join(" ")))
    }

    fn alter_column(&mut self, column: Name) -> Result<AlterAction> {
        let pos = self.pos();
        if self.is_kw("options") {
            return Ok(AlterAction::ColumnOptions { column, changes: self.option_changes()? });
        }
        if self.eat_kws(&["set", "default"]) {
            return Ok(AlterAction::SetDefault { column, value: self.text_expr(|p| p.expr())? });
        }
        if self.eat_kws(&["drop", "default"]) {
            return Ok(AlterAction::DropDefault { column });
        }
        if self.eat_kws(&["set", "not", "null"]) {
            return Ok(AlterAction::SetNotNull { column });
        }
        if self.eat_kws(&["drop", "not", "null"]) {
            return Ok(AlterAction::DropNotNull { column });
        }
        if self.are_kws(&["set", "data", "type"]) || self.is_kw("type") {
            if self.eat_kw("set") {
                self.advance();
            }
            self.advance();
            let ty = self.type_name()?;
            let collation = self.collate()?;
            let using = if self.eat_kw("using") { Some(self.expr()?) } else { None };
            return Ok(AlterAction::SetType { column, ty, collation, using });
        }
        if self.eat_kws(&["add", "generated"]) {
            let always = self.eat_kw("always");
            if !always {
                self.expect_kws(&["by", "default"])?;
            }
            self.expect_kws(&["as", "identity"])?;
            let options = self.parenthesised_sequence_options()?;
            return Ok(AlterAction::AddIdentity { column, always, options });
        }
        if self.eat_kws(&["drop", "identity"]) {
            return Ok(AlterAction::DropIdentity { column, if_exists: self.eat_kws(&["if", "exists"]) });
        }
        if self.are_kws(&["set", "generated"]) || self.is_kw("restart") || self.is_kw("set") {
            let mut always = None;
            let mut options = Vec::new();
            loop {
                if self.eat_kws(&["set", "generated"]) {
                    always = Some(self.eat_kw("always"));
                    if always == Some(false) {
                        self.expect_kws(&["by", "default"])?;
                    }
                } else if self.is_kw("restart") {
                    options.extend(self.sequence_option()?);
                } else if self.is_kw("set")
                    && !self.is_op_at(1, "(")
                    && !self.is_kw_at(1, "statistics")
                    && !self.is_kw_at(1, "storage")
                    && !self.is_kw_at(1, "compression")
                {
                    self.advance();
                    match self.sequence_option()? {
                        Some(option) => options.push(option),
                        None => return Err(self.unexpected()),
                    }
                } else {
                    break;
                }
            }
            if always.is_some() || !options.is_empty() {
                return Ok(AlterAction::SetIdentity { column, always, options });
            }
        }
        if self.one_of(&["set", "reset", "drop"]).is_some() {
            return self.unsupported(pos, "ALTER COLUMN with STATISTICS, STORAGE, COMPRESSION, EXPRESSION or options");
        }
        Err(self.unexpected())
    }
}

fn alter(name: QName, kind: ObjectKind, if_exists: bool, actions: Vec<AlterAction>) -> StatementKind {
    StatementKind::AlterTable(Box::new(AlterTable { name, kind, if_exists, actions }))
}
