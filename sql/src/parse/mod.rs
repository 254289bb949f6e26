//! From text to syntax: PostgreSQL's grammar, by hand.
//!
//! ```text
//! lexer     bytes -> tokens            scan.l's rules; errors keep their place in line
//! parser    looking, taking, refusing  and the limit on how high a tree may grow
//! expr      precedence climbing        primary  what expressions begin with
//! query     SELECT                     from     its FROM
//! dml  ddl  constraint  alter  foreign  utility    the rest
//! ast       what comes out
//! ```
//!
//! Why not a library: `sql/decisions/0002-a-parser-of-our-own.md`. Reading is linear in the length of the text: nothing is read twice but the
//! tokens of a WITH clause, once a level.

mod alter;
pub mod ast;
mod ast_foreign;
mod ast_utility;
mod constraint;
mod ddl;
mod dml;
mod expr;
mod foreign;
mod from;
mod keyword;
mod lexer;
mod parser;
mod primary;
mod query;
#[cfg(test)]
mod tests;
mod type_name;
mod utility;

use std::sync::Arc;

pub use ast::{Statement, StatementKind};
pub use lexer::{IDENTIFIER_BYTES_MAX, fold};

use crate::error::{Result, SqlError};
use crate::functions::context::CancelFlag;
use parser::Parser;

/// Splits a string into its statements and parses each; empty ones are left out.
///
/// As in PostgreSQL one mistake refuses the whole string. Trees are at most so high that walking them is safe on a 16 MiB stack.
///
/// # Errors
/// 42601 with a position; 54001 for what is nested too deeply; 0A000 for syntax that is known and not honoured inside a statement.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    parse_statements(sql, None)
}

/// [`parse`], looking for a cancel at every expression and every statement.
///
/// # Errors
/// Those of [`parse`] and what the flag says.
pub fn parse_unless(cancel: &CancelFlag, sql: &str) -> Result<Vec<Statement>> {
    parse_statements(sql, Some(cancel))
}

fn parse_statements(sql: &str, cancel: Option<&CancelFlag>) -> Result<Vec<Statement>> {
    let source: Arc<str> = Arc::from(sql);
    run(&source, cancel, |p| {
        let mut statements = Vec::new();
        loop {
            while p.eat_op(";") {}
            if matches!(p.tok(), lexer::Tok::End) {
                return Ok(statements);
            }
            p.check_cancel()?;
            p.child = 0;
            p.max_param = 0;
            statements.push(p.inner_statement(|p| p.statement())?);
            if !p.at_end() {
                return Err(p.unexpected());
            }
        }
    })
}

/// Parses a stored expression: a DEFAULT or a CHECK.
pub fn parse_expr(sql: &str) -> Result<ast::Expr> {
    let source: Arc<str> = Arc::from(sql);
    run(&source, None, |p| {
        let expr = p.expr()?;
        if matches!(p.tok(), lexer::Tok::End) { Ok(expr) } else { Err(p.unexpected()) }
    })
}

/// Parses a type's name as a cast would: `regtype` input and `format_type`'s own output.
pub fn parse_type(sql: &str) -> Result<ast::TypeName> {
    let source: Arc<str> = Arc::from(sql);
    run(&source, None, |p| {
        let ty = p.type_name()?;
        if matches!(p.tok(), lexer::Tok::End) { Ok(ty) } else { Err(p.unexpected()) }
    })
}

/// A token as others than the parser need it.
#[derive(Debug)]
pub(crate) struct Lexeme {
    /// Where it begins.
    pub start: ast::Pos,
    /// Where it ends.
    pub end: ast::Pos,
    /// The identifier or keyword it is, folded.
    pub name: Option<String>,
    /// The value of the string constant it is.
    pub string: Option<String>,
}

/// The tokens of a text, in order.
pub(crate) fn lexemes(sql: &str) -> Vec<Lexeme> {
    use lexer::Tok;
    let lexeme = |t: lexer::Token<'_>| {
        let (name, string) = match t.tok {
            Tok::Word(name, _) | Tok::Quoted(name) => (Some(name), None),
            Tok::Str(string) => (None, Some(string)),
            _ => (None, None),
        };
        Lexeme { start: t.start, end: t.end, name, string }
    };
    lexer::tokenize(sql).into_iter().filter(|t| t.start < t.end).map(lexeme).collect()
}

fn run<T>(
    source: &Arc<str>,
    cancel: Option<&CancelFlag>,
    rule: impl FnOnce(&mut Parser<'_>) -> Result<T>,
) -> Result<T> {
    if u32::try_from(source.len()).is_err() {
        return Err(SqlError::new(crate::error::state::PROGRAM_LIMIT_EXCEEDED, "statement is too long"));
    }
    let tokens = lexer::tokenize(source);
    let mut parser =
        Parser { source: source.clone(), sql: source, tokens, at: 0, depth: 0, child: 0, max_param: 0, cancel };
    rule(&mut parser).map_err(|e| with_char_position(e, source))
}

/// Turns the byte offset in an error into the character position that clients count, from 1.
pub(crate) fn with_char_position(mut error: SqlError, source: &str) -> SqlError {
    if let Some(position) = error.0.position {
        let byte = (position as usize - 1).min(source.len());
        let chars = source.char_indices().take_while(|(i, _)| *i < byte).count();
        error.0.position = u32::try_from(chars + 1).ok();
    }
    error
}
