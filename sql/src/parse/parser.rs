//! The parser's hands: looking at tokens, taking them, refusing them, and counting how deep things are nested.
//!
//! Height is that of the tree built, not of the parser's own recursion: a chain of a thousand `+` is a thousand high though it was read in a
//! loop. Whoever walks the tree may recurse, so the limit is kept here, where trees are made: no deeper one exists behind.

use std::sync::Arc;

use super::ast::*;
use super::keyword::Category;
use super::lexer::{Tok, Token};
use crate::error::{Result, SqlError, state};
use crate::functions::context::CancelFlag;

/// Greatest height of a syntax tree.
pub(super) const HEIGHT_MAX: u32 = 2000;

/// How deep the rules may call themselves. A level of calls takes some 12 KiB of stack in a build without optimisation, and sessions have 16 MiB
/// (measured: 800 nested calls fit 8 MiB); chains of operators are read in loops and only count as height.
const DEPTH_MAX: u32 = 600;

/// What a query inside another counts for: its frames, here and in the binder, are larger than an expression's.
pub(super) const QUERY_HEIGHT: u32 = 6;

pub(super) struct Parser<'a> {
    pub source: Arc<str>,
    pub sql: &'a str,
    pub tokens: Vec<Token<'a>>,
    pub at: usize,
    /// Height of the parser's recursion.
    pub depth: u32,
    /// Height of the highest tree finished since the enclosing one was begun.
    pub child: u32,
    pub max_param: u32,
    /// Who may ask to stop: a text may be so long that reading it takes a while.
    pub cancel: Option<&'a CancelFlag>,
}

impl<'a> Parser<'a> {
    pub fn tok(&self) -> &Tok<'a> {
        &self.tokens[self.at].tok
    }
    pub fn ahead(&self, n: usize) -> &Tok<'a> {
        &self.tokens[(self.at + n).min(self.tokens.len() - 1)].tok
    }
    pub fn pos(&self) -> Pos {
        self.tokens[self.at].start
    }
    /// Where the last token taken ended.
    pub fn end(&self) -> Pos {
        self.at.checked_sub(1).map_or(0, |i| self.tokens[i].end)
    }
    pub fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    /// The error of a token that fits nowhere.
    pub fn unexpected(&self) -> SqlError {
        self.unexpected_at(self.at)
    }
    pub fn unexpected_at(&self, at: usize) -> SqlError {
        let token = &self.tokens[at.min(self.tokens.len() - 1)];
        match &token.tok {
            Tok::Error(e) => (**e).clone(),
            Tok::End => SqlError::new(state::SYNTAX_ERROR, "syntax error at end of input").at(Some(token.start + 1)),
            _ => {
                let near = &self.sql[token.start as usize..token.end as usize];
                SqlError::new(state::SYNTAX_ERROR, format!("syntax error at or near \"{near}\""))
                    .at(Some(token.start + 1))
            }
        }
    }
    pub fn error<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T> {
        Err(SqlError::new(state::SYNTAX_ERROR, message).at(Some(pos + 1)))
    }
    pub fn unsupported<T>(&self, pos: Pos, what: &str) -> Result<T> {
        Err(SqlError::unsupported(what).at(Some(pos + 1)))
    }

    pub fn is_kw(&self, kw: &str) -> bool {
        matches!(self.tok(), Tok::Word(w, _) if w == kw)
    }
    pub fn is_kw_at(&self, n: usize, kw: &str) -> bool {
        matches!(self.ahead(n), Tok::Word(w, _) if w == kw)
    }
    /// Whether these keywords come next, in this order.
    pub fn are_kws(&self, kws: &[&str]) -> bool {
        kws.iter().enumerate().all(|(n, kw)| self.is_kw_at(n, kw))
    }
    /// The first of these keywords that comes next.
    pub fn one_of(&self, kws: &[&'static str]) -> Option<&'static str> {
        match self.tok() {
            Tok::Word(w, _) => kws.iter().find(|k| *k == w).copied(),
            _ => None,
        }
    }
    pub fn eat_kw(&mut self, kw: &str) -> bool {
        let found = self.is_kw(kw);
        if found {
            self.advance();
        }
        found
    }
    pub fn eat_kws(&mut self, kws: &[&str]) -> bool {
        let found = self.are_kws(kws);
        if found {
            self.at += kws.len();
        }
        found
    }
    pub fn eat_one_of(&mut self, kws: &[&'static str]) -> Option<&'static str> {
        let found = self.one_of(kws);
        if found.is_some() {
            self.advance();
        }
        found
    }
    pub fn expect_kw(&mut self, kw: &str) -> Result<()> {
        if self.eat_kw(kw) { Ok(()) } else { Err(self.unexpected()) }
    }
    pub fn expect_kws(&mut self, kws: &[&str]) -> Result<()> {
        kws.iter().try_for_each(|kw| self.expect_kw(kw))
    }
    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.tok(), Tok::Op(o) if *o == op)
    }
    pub fn is_op_at(&self, n: usize, op: &str) -> bool {
        matches!(self.ahead(n), Tok::Op(o) if *o == op)
    }
    pub fn eat_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.advance();
        }
        found
    }
    pub fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.eat_op(op) { Ok(()) } else { Err(self.unexpected()) }
    }
    pub fn at_end(&self) -> bool {
        matches!(self.tok(), Tok::End) || self.is_op(";")
    }

    fn word(&self, allowed: fn(Option<(Category, bool)>) -> bool) -> Option<String> {
        match self.tok() {
            Tok::Quoted(name) => Some(name.clone()),
            Tok::Word(name, keyword) if allowed(*keyword) => Some(name.clone()),
            _ => None,
        }
    }
    fn take(&mut self, word: Option<String>) -> Result<Name> {
        match word {
            Some(text) => {
                let pos = self.pos();
                self.advance();
                Ok(Name { text, pos })
            }
            None => Err(self.unexpected()),
        }
    }
    /// Whether a column or table name can begin here.
    pub fn is_col_id(&self) -> bool {
        self.word(|k| matches!(k, None | Some((Category::Unreserved | Category::ColumnName, _)))).is_some()
    }
    /// ColId: a name of a column, a table, an alias.
    pub fn col_id(&mut self) -> Result<Name> {
        let word = self.word(|k| matches!(k, None | Some((Category::Unreserved | Category::ColumnName, _))));
        self.take(word)
    }
    /// ColLabel: after AS or a dot, where any word is free.
    pub fn col_label(&mut self) -> Result<Name> {
        let word = self.word(|_| true);
        self.take(word)
    }
    /// BareColLabel: a label without AS.
    pub fn bare_label(&mut self) -> Option<Name> {
        let word = self.word(|k| matches!(k, None | Some((_, true))))?;
        self.take(Some(word)).ok()
    }
    /// type_function_name.
    pub fn is_type_function_name(&self) -> bool {
        self.word(|k| matches!(k, None | Some((Category::Unreserved | Category::TypeOrFunction, _)))).is_some()
    }
    pub fn type_function_name(&mut self) -> Result<Name> {
        let word = self.word(|k| matches!(k, None | Some((Category::Unreserved | Category::TypeOrFunction, _))));
        self.take(word)
    }
    /// NonReservedWord: roles, languages, extensions.
    pub fn non_reserved(&mut self) -> Result<Name> {
        let word = self.word(|k| !matches!(k, Some((Category::Reserved, _))));
        self.take(word)
    }
    /// RoleSpec: a role's name, or one of the keywords that stand for one.
    pub fn role(&mut self) -> Result<Name> {
        if self.one_of(&["current_user", "session_user", "current_role"]).is_some() {
            return self.col_label();
        }
        self.non_reserved()
    }
    /// any_name: a possibly qualified name.
    pub fn qname(&mut self) -> Result<QName> {
        let first = self.col_id()?;
        let mut parts = vec![first.text];
        while self.eat_op(".") {
            parts.push(self.col_label()?.text);
        }
        Ok(QName { parts, pos: first.pos })
    }
    /// A name of a relation: at most database.schema.name.
    pub fn relation_name(&mut self) -> Result<QName> {
        let name = self.qname()?;
        if name.parts.len() > 3 {
            return self.error(name.pos, format!("improper qualified name (too many dotted names): {name}"));
        }
        Ok(name)
    }
    pub fn qnames(&mut self) -> Result<Vec<QName>> {
        self.comma_list(|p| p.relation_name())
    }
    /// `(a, b)`.
    pub fn name_list(&mut self) -> Result<Vec<Name>> {
        self.expect_op("(")?;
        let names = self.comma_list(|p| p.col_id())?;
        self.expect_op(")")?;
        Ok(names)
    }
    /// One or more, with commas between.
    pub fn comma_list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat_op(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }
    pub fn string(&mut self) -> Result<String> {
        match self.tok() {
            Tok::Str(s) => {
                let s = s.clone();
                self.advance();
                Ok(s)
            }
            _ => Err(self.unexpected()),
        }
    }
    /// A name or a string: tags, roles' names in settings.
    pub fn name_or_string(&mut self) -> Result<Name> {
        if matches!(self.tok(), Tok::Str(_)) {
            let pos = self.pos();
            return Ok(Name { text: self.string()?, pos });
        }
        self.col_id()
    }
    /// A number as written, with its sign.
    pub fn signed_number(&mut self) -> Result<String> {
        let minus = self.is_op("-");
        if minus || self.is_op("+") {
            self.advance();
        }
        match self.tok() {
            Tok::Number(n) => {
                let text = if minus { format!("-{n}") } else { (*n).to_owned() };
                self.advance();
                Ok(text)
            }
            _ => Err(self.unexpected()),
        }
    }
    /// A whole number that fits bigint.
    pub fn signed_integer(&mut self) -> Result<i64> {
        let at = self.at;
        let text = self.signed_number()?;
        text.parse().map_err(|_| {
            if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                SqlError::new(
                    state::NUMERIC_VALUE_OUT_OF_RANGE,
                    format!("value \"{text}\" is out of range for type bigint"),
                )
                .at(Some(self.tokens[at].start + 1))
            } else {
                self.unexpected_at(at)
            }
        })
    }
    /// `Iconst`.
    pub fn int_const(&mut self) -> Result<i32> {
        match self.tok() {
            Tok::Number(n) => match n.parse() {
                Ok(v) => {
                    self.advance();
                    Ok(v)
                }
                Err(_) => Err(self.unexpected()),
            },
            _ => Err(self.unexpected()),
        }
    }

    /// Fails if someone wants to stop.
    pub fn check_cancel(&self) -> Result<()> {
        self.cancel.map_or(Ok(()), CancelFlag::check)
    }
    /// 54001, as PostgreSQL answers to its own stack's depth.
    pub fn too_deep() -> SqlError {
        SqlError::new(state::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
            .hint("Simplify the statement: expressions and queries are nested too deeply.")
    }
    /// Runs a rule one level (or `weight` levels) further down and counts what it built.
    pub fn nested<T>(&mut self, weight: u32, rule: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += weight;
        if self.depth > DEPTH_MAX {
            return Err(Self::too_deep());
        }
        self.check_cancel()?;
        let outer = std::mem::take(&mut self.child);
        let made = rule(self)?;
        self.depth -= weight;
        self.grow(weight)?;
        self.child = self.child.max(outer);
        Ok(made)
    }
    /// The tree at hand got another level above all it consists of.
    pub fn grow(&mut self, weight: u32) -> Result<()> {
        self.child += weight;
        if self.child > HEIGHT_MAX {
            return Err(Self::too_deep());
        }
        Ok(())
    }
}
