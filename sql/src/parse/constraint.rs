//! Constraints: of columns, of tables, and when they are checked.

use super::ast::*;
use super::parser::Parser;
use crate::catalog::schema::{Action, Deferral};
use crate::error::{Result, SqlError, state};

impl Parser<'_> {
    /// A column's constraint, if one comes next.
    pub fn column_constraint(&mut self) -> Result<Option<ColumnConstraint>> {
        let pos = self.pos();
        let name = if self.eat_kw("constraint") { Some(self.col_id()?) } else { None };
        use ColumnConstraintKind as Kind;
        let kind = if self.eat_kws(&["not", "null"]) {
            Kind::NotNull
        } else if self.eat_kw("null") {
            Kind::Null
        } else if self.eat_kw("default") {
            Kind::Default(self.text_expr(|p| p.b_expr())?)
        } else if self.eat_kw("check") {
            let check = self.check_expr()?;
            if self.are_kws(&["no", "inherit"]) {
                return self.unsupported(self.pos(), "NO INHERIT");
            }
            Kind::Check(check)
        } else if self.eat_kws(&["primary", "key"]) {
            self.index_parameters()?;
            Kind::PrimaryKey
        } else if self.eat_kw("unique") {
            let nulls_not_distinct = self.nulls_distinct()?;
            self.index_parameters()?;
            Kind::Unique { nulls_not_distinct }
        } else if self.is_kw("references") {
            Kind::References(self.references()?)
        } else if self.eat_kw("generated") {
            let always = self.eat_kw("always");
            if !always {
                self.expect_kws(&["by", "default"])?;
            }
            self.expect_kw("as")?;
            if self.eat_kw("identity") {
                let options = self.parenthesised_sequence_options()?;
                Kind::Identity { always, options }
            } else {
                self.expect_op("(")?;
                let value = self.text_expr(|p| p.expr())?;
                self.expect_op(")")?;
                self.expect_kw("stored")?;
                Kind::Generated(value)
            }
        } else if name.is_some() {
            return Err(self.unexpected());
        } else {
            return Ok(None);
        };
        let deferral = match kind {
            Kind::References(_) | Kind::PrimaryKey | Kind::Unique { .. } => self.deferrability(true)?.deferral(),
            _ => Deferral::Never,
        };
        Ok(Some(ColumnConstraint { name, kind, deferral, pos }))
    }

    fn check_expr(&mut self) -> Result<TextExpr> {
        self.expect_op("(")?;
        let check = self.text_expr(|p| p.expr())?;
        self.expect_op(")")?;
        Ok(check)
    }

    fn nulls_distinct(&mut self) -> Result<bool> {
        if !self.eat_kw("nulls") {
            return Ok(false);
        }
        let not = self.eat_kw("not");
        self.expect_kw("distinct")?;
        Ok(not)
    }

    /// WITH (..) and USING INDEX TABLESPACE behind a key.
    fn index_parameters(&mut self) -> Result<()> {
        if self.is_kw("with") && self.is_op_at(1, "(") {
            self.advance();
            self.reloptions()?;
        }
        if self.are_kws(&["using", "index", "tablespace"]) {
            return self.unsupported(self.pos(), "TABLESPACE");
        }
        Ok(())
    }

    fn references(&mut self) -> Result<References> {
        let pos = self.pos();
        self.expect_kw("references")?;
        let table = self.relation_name()?;
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        let mut made = References {
            table,
            columns,
            match_full: false,
            on_delete: None,
            on_update: None,
            set_columns: vec![],
            pos,
        };
        if self.is_kw("match") {
            let at = self.pos();
            self.advance();
            match self.eat_one_of(&["full", "partial", "simple"]) {
                Some("full") => made.match_full = true,
                Some("partial") => {
                    let message = "MATCH PARTIAL not yet implemented";
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message).at(Some(at + 1)));
                }
                Some(_) => {}
                None => return Err(self.unexpected()),
            }
        }
        while self.is_kw("on") {
            let delete = match (self.is_kw_at(1, "delete"), self.is_kw_at(1, "update")) {
                (true, _) if made.on_delete.is_none() => true,
                (_, true) if made.on_update.is_none() => false,
                (false, false) => break,
                _ => {
                    self.advance();
                    return Err(self.unexpected());
                }
            };
            let at = self.pos();
            self.at += 2;
            let action = self.action()?;
            if matches!(action, Action::SetNull | Action::SetDefault) && self.is_op("(") {
                if !delete {
                    let words = action.words();
                    let message = format!("a column list with {words} is only supported for ON DELETE actions");
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message).at(Some(at + 1)));
                }
                made.set_columns = self.name_list()?;
            }
            *(if delete { &mut made.on_delete } else { &mut made.on_update }) = Some(action);
        }
        Ok(made)
    }

    fn action(&mut self) -> Result<Action> {
        Ok(if self.eat_kws(&["no", "action"]) {
            Action::NoAction
        } else if self.eat_kw("restrict") {
            Action::Restrict
        } else if self.eat_kw("cascade") {
            Action::Cascade
        } else if self.eat_kws(&["set", "null"]) {
            Action::SetNull
        } else {
            self.expect_kws(&["set", "default"])?;
            Action::SetDefault
        })
    }

    /// Whether [NOT] DEFERRABLE or INITIALLY .. comes next.
    pub fn is_deferrability(&self) -> bool {
        self.is_kw("deferrable") || self.is_kw("initially") || self.are_kws(&["not", "deferrable"])
    }
    /// The error for it behind what cannot be deferred.
    pub fn misplaced_deferrability<T>(&mut self) -> Result<T> {
        let (at, mut said) = (self.pos(), Deferrable::default());
        self.deferrability_word(&mut said, true)?;
        let clause = match (said.deferrable, said.deferred) {
            (Some(true), _) => "DEFERRABLE",
            (Some(false), _) => "NOT DEFERRABLE",
            (_, Some(true)) => "INITIALLY DEFERRED",
            _ => "INITIALLY IMMEDIATE",
        };
        self.error(at, format!("misplaced {clause} clause"))
    }
    /// [NOT] DEFERRABLE and INITIALLY .., in any order.
    pub fn deferrability(&mut self, of_column: bool) -> Result<Deferrable> {
        let mut said = Deferrable::default();
        while self.is_deferrability() {
            self.deferrability_word(&mut said, of_column)?;
        }
        Ok(said)
    }
    /// One of them. A column's constraint refuses what is said twice, a table's only what is not the same.
    fn deferrability_word(&mut self, said: &mut Deferrable, of_column: bool) -> Result<()> {
        let at = self.pos();
        let (known, now, what) = if self.eat_kw("initially") {
            let deferred = match self.eat_one_of(&["deferred", "immediate"]) {
                Some(word) => word == "deferred",
                None => return Err(self.unexpected()),
            };
            (&mut said.deferred, deferred, "INITIALLY IMMEDIATE/DEFERRED")
        } else {
            let not = self.eat_kw("not");
            self.expect_kw("deferrable")?;
            (&mut said.deferrable, !not, "DEFERRABLE/NOT DEFERRABLE")
        };
        let before = known.replace(now);
        if of_column && before.is_some() {
            return self.error(at, format!("multiple {what} clauses not allowed"));
        }
        if said.deferrable == Some(false) && said.deferred == Some(true) {
            return self.error(at, "constraint declared INITIALLY DEFERRED must be DEFERRABLE");
        }
        if before.is_some_and(|b| b != now) {
            return self.error(at, "conflicting constraint properties");
        }
        Ok(())
    }

    /// A table's constraint, if one comes next.
    pub fn table_constraint(&mut self) -> Result<Option<Constraint>> {
        let pos = self.pos();
        let name = if self.eat_kw("constraint") { Some(self.col_id()?) } else { None };
        let kind = if self.eat_kw("check") {
            ConstraintKind::Check(self.check_expr()?)
        } else if self.is_kw("primary") && self.is_kw_at(1, "key") {
            self.at += 2;
            if self.eat_kws(&["using", "index"]) {
                ConstraintKind::UsingIndex { index: self.col_id()?, primary: true }
            } else {
                let columns = self.name_list()?;
                let include = if self.eat_kw("include") { self.name_list()? } else { vec![] };
                self.index_parameters()?;
                ConstraintKind::PrimaryKey { columns, include }
            }
        } else if self.eat_kw("unique") {
            if self.eat_kws(&["using", "index"]) {
                ConstraintKind::UsingIndex { index: self.col_id()?, primary: false }
            } else {
                let nulls_not_distinct = self.nulls_distinct()?;
                let columns = self.name_list()?;
                let include = if self.eat_kw("include") { self.name_list()? } else { vec![] };
                self.index_parameters()?;
                ConstraintKind::Unique { columns, include, nulls_not_distinct }
            }
        } else if self.eat_kws(&["foreign", "key"]) {
            let columns = self.name_list()?;
            ConstraintKind::ForeignKey { columns, references: self.references()? }
        } else if self.is_kw("exclude") && (self.is_op_at(1, "(") || self.is_kw_at(1, "using")) {
            return self.unsupported(self.pos(), "EXCLUDE");
        } else if name.is_some() {
            return Err(self.unexpected());
        } else {
            return Ok(None);
        };
        let (words, mut made) =
            (kind_words(&kind), Constraint { name, kind, deferral: Deferral::Never, not_valid: false, pos });
        let mut said = Deferrable::default();
        loop {
            let at = self.pos();
            if self.is_deferrability() {
                self.deferrability_word(&mut said, false)?;
            } else if self.eat_kws(&["not", "valid"]) {
                if !matches!(made.kind, ConstraintKind::ForeignKey { .. } | ConstraintKind::Check(_)) {
                    return refuse_mark(words, "NOT VALID");
                }
                made.not_valid = true;
            } else if self.are_kws(&["no", "inherit"]) {
                if !matches!(made.kind, ConstraintKind::Check(_)) {
                    return refuse_mark(words, "NO INHERIT");
                }
                return self.unsupported(at, "NO INHERIT");
            } else {
                break;
            }
        }
        made.deferral = said.deferral();
        if !made.deferral.is_never() && matches!(made.kind, ConstraintKind::Check(_)) {
            return refuse_mark(words, "DEFERRABLE");
        }
        Ok(Some(made))
    }

    /// ALTER CONSTRAINT, after its name.
    pub fn alter_constraint(&mut self, name: Name) -> Result<AlterAction> {
        let mut said = Deferrable::default();
        loop {
            if self.is_deferrability() {
                self.deferrability_word(&mut said, false)?;
            } else if self.are_kws(&["not", "valid"]) {
                return refuse_mark("FOREIGN KEY", "NOT VALID");
            } else if self.are_kws(&["no", "inherit"]) {
                return refuse_mark("FOREIGN KEY", "NO INHERIT");
            } else {
                return Ok(AlterAction::AlterConstraint { name, deferral: said.deferral() });
            }
        }
    }
}

fn kind_words(kind: &ConstraintKind) -> &'static str {
    match kind {
        ConstraintKind::Check(_) => "CHECK",
        ConstraintKind::PrimaryKey { .. } | ConstraintKind::UsingIndex { primary: true, .. } => "PRIMARY KEY",
        ConstraintKind::Unique { .. } | ConstraintKind::UsingIndex { primary: false, .. } => "UNIQUE",
        ConstraintKind::ForeignKey { .. } => "FOREIGN KEY",
        ConstraintKind::Exclude => "EXCLUDE",
    }
}

fn refuse_mark<T>(words: &str, mark: &str) -> Result<T> {
    let message = format!("{words} constraints cannot be marked {mark}");
    Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message))
}
