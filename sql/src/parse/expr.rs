//! Expressions: operator precedence, and the forms around it.
//!
//! The levels are those of PostgreSQL's grammar. `b` marks its restricted expressions (`b_expr`): what stands before the AND of
//! BETWEEN, in POSITION, in a column's DEFAULT, where AND, NOT, IN, LIKE, BETWEEN and IS NULL would be ambiguous.

use super::ast::*;
use super::lexer::Tok;
use super::parser::Parser;
use crate::error::Result;

const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const IS: u8 = 4;
const COMPARE: u8 = 5;
const MATCH: u8 = 6;
const OTHER: u8 = 8;
const ADD: u8 = 9;
const MULTIPLY: u8 = 10;
const POWER: u8 = 11;
const AT: u8 = 12;
const COLLATE: u8 = 13;
const SIGN: u8 = 14;
const TYPECAST: u8 = 16;

/// What parentheses turned out to hold.
pub(super) enum Paren {
    /// A query.
    Query(Box<Query>),
    /// One expression, or the fields of a row.
    Exprs(Vec<Expr>),
}

pub(super) fn make(kind: ExprKind, pos: Pos) -> Expr {
    Expr { kind, pos }
}

/// A call of a pg_catalog function that a keyword form stands for.
pub(super) fn special(name: &str, args: Vec<Expr>, pos: Pos) -> Expr {
    let name = QName { parts: vec!["pg_catalog".into(), name.into()], pos };
    let args = args.into_iter().map(|value| Arg { name: None, value }).collect();
    make(ExprKind::Call(Box::new(Call { special: true, ..plain_call(name, args) })), pos)
}

pub(super) fn plain_call(name: QName, args: Vec<Arg>) -> Call {
    Call {
        name,
        args,
        star: false,
        variadic: false,
        distinct: false,
        order_by: vec![],
        within_group: vec![],
        filter: None,
        over: None,
        special: false,
    }
}

impl Parser<'_> {
    /// a_expr.
    pub fn expr(&mut self) -> Result<Expr> {
        self.expr_at(0, false)
    }
    /// b_expr.
    pub fn b_expr(&mut self) -> Result<Expr> {
        self.expr_at(0, true)
    }

    fn expr_at(&mut self, min: u8, b: bool) -> Result<Expr> {
        self.nested(1, |p| {
            let left = p.prefix(b)?;
            p.infix(left, min, b)
        })
    }

    fn prefix(&mut self, b: bool) -> Result<Expr> {
        let pos = self.pos();
        match self.tok() {
            Tok::Op("-") => {
                self.advance();
                let operand = self.expr_at(SIGN, b)?;
                Ok(match operand.kind {
                    ExprKind::Number(n) => {
                        let negated = n.strip_prefix('-').map_or_else(|| format!("-{n}"), str::to_owned);
                        make(ExprKind::Number(negated), pos)
                    }
                    kind => make(
                        ExprKind::Op {
                            schema: None,
                            name: "-".into(),
                            left: None,
                            right: Box::new(make(kind, operand.pos)),
                        },
                        pos,
                    ),
                })
            }
            Tok::Op("+") => {
                self.advance();
                let right = Box::new(self.expr_at(SIGN, b)?);
                Ok(make(ExprKind::Op { schema: None, name: "+".into(), left: None, right }, pos))
            }
            Tok::Word(w, _) if w == "not" && !b => {
                self.advance();
                Ok(make(ExprKind::Not(Box::new(self.expr_at(NOT, b)?)), pos))
            }
            _ => {
                if let Some((schema, name)) = self.other_operator()? {
                    let right = Box::new(self.expr_at(OTHER + 1, b)?);
                    return Ok(make(ExprKind::Op { schema, name, left: None, right }, pos));
                }
                self.primary()
            }
        }
    }

    /// Takes an operator of the generic kind (`qual_Op`), or OPERATOR(schema.op).
    fn other_operator(&mut self) -> Result<Option<(Option<String>, String)>> {
        match self.tok() {
            Tok::Op(o) if is_other(o) => {
                let name = (*o).to_owned();
                self.advance();
                Ok(Some((None, name)))
            }
            Tok::Word(w, _) if w == "operator" && self.is_op_at(1, "(") => {
                self.at += 2;
                let found = self.qualified_operator()?;
                self.expect_op(")")?;
                Ok(Some(found))
            }
            _ => Ok(None),
        }
    }

    /// any_operator: `schema.op`.
    pub fn qualified_operator(&mut self) -> Result<(Option<String>, String)> {
        let mut schema = None;
        while !matches!(self.tok(), Tok::Op(_)) {
            schema = Some(self.col_id()?.text);
            self.expect_op(".")?;
        }
        match self.tok() {
            Tok::Op(o) if !matches!(*o, "(" | ")" | "[" | "]" | "," | ";" | "." | ":" | "::" | ":=" | "=>" | "..") => {
                let name = (*o).to_owned();
                self.advance();
                Ok((schema, name))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn infix(&mut self, mut left: Expr, min: u8, b: bool) -> Result<Expr> {
        loop {
            let at = self.at;
            let pos = self.pos();
            let next = match self.tok() {
                Tok::Op(o) => match *o {
                    "::" if TYPECAST >= min => {
                        self.advance();
                        let ty = Box::new(self.type_name()?);
                        make(ExprKind::Cast { input: Box::new(left), ty }, pos)
                    }
                    "^" if POWER >= min => self.operation(left, POWER + 1, b)?,
                    "*" | "/" | "%" if MULTIPLY >= min => self.operation(left, MULTIPLY + 1, b)?,
                    "+" | "-" if ADD >= min => self.operation(left, ADD + 1, b)?,
                    "<" | ">" | "=" | "<=" | ">=" | "<>" if COMPARE >= min => {
                        if self.quantifier(1) {
                            let op = self.operator_text();
                            self.quantified(left, op, pos)?
                        } else {
                            let made = self.binary(left, COMPARE + 1, b)?;
                            self.refuse(|p| matches!(p.tok(), Tok::Op("<" | ">" | "=" | "<=" | ">=" | "<>")))?;
                            made
                        }
                    }
                    o if is_other(o) && OTHER >= min => self.operation(left, OTHER + 1, b)?,
                    _ => return Ok(left),
                },
                Tok::Word(w, Some(_)) => match w.as_str() {
                    "operator" if OTHER >= min && self.is_op_at(1, "(") => self.named_operator(left, b, pos)?,
                    "at" if AT >= min && self.are_kws(&["at", "time", "zone"]) => {
                        self.at += 3;
                        let zone = self.expr_at(AT + 1, b)?;
                        special("timezone", vec![zone, left], pos)
                    }
                    "collate" if COLLATE >= min && !b => {
                        self.advance();
                        let collation = self.qname()?;
                        make(ExprKind::Collate { input: Box::new(left), collation }, pos)
                    }
                    "and" if AND >= min && !b => self.chain(left, AND, pos)?,
                    "or" if OR >= min && !b => self.chain(left, OR, pos)?,
                    "is" if IS >= min => match self.is_test(left, b, pos)? {
                        Ok(made) => made,
                        Err(left) => return Ok(left),
                    },
                    "isnull" | "notnull" if IS >= min && !b => {
                        let negated = w == "notnull";
                        self.advance();
                        make(ExprKind::IsNull { input: Box::new(left), negated }, pos)
                    }
                    "overlaps" if matches!(left.kind, ExprKind::Row { .. }) => self.overlaps(left, pos)?,
                    "between" | "in" | "like" | "ilike" | "similar" | "not"
                        if MATCH >= min && !b && !self.is_match_form() =>
                    {
                        return Ok(left);
                    }
                    "between" | "in" | "like" | "ilike" | "similar" if MATCH >= min && !b => {
                        self.match_form(left, false, pos)?
                    }
                    "not" if MATCH >= min && !b => {
                        self.advance();
                        self.match_form(left, true, pos)?
                    }
                    _ => return Ok(left),
                },
                _ => return Ok(left),
            };
            debug_assert!(self.at > at);
            self.grow(1)?;
            left = next;
        }
    }

    /// After a non-associative operator: another of its level is an error.
    fn refuse(&self, is_same: impl Fn(&Self) -> bool) -> Result<()> {
        if is_same(self) { Err(self.unexpected()) } else { Ok(()) }
    }

    fn operator_text(&mut self) -> String {
        let text = match self.tok() {
            Tok::Op(o) => (*o).to_owned(),
            _ => String::new(),
        };
        self.advance();
        text
    }

    /// An operator with its right side: an operand, or ANY and ALL of an array or a query.
    fn operation(&mut self, left: Expr, right_min: u8, b: bool) -> Result<Expr> {
        if !self.quantifier(1) {
            return self.binary(left, right_min, b);
        }
        let pos = self.pos();
        let op = self.operator_text();
        self.quantified(left, op, pos)
    }

    fn binary(&mut self, left: Expr, right_min: u8, b: bool) -> Result<Expr> {
        let pos = self.pos();
        let name = self.operator_text();
        let right = Box::new(self.expr_at(right_min, b)?);
        Ok(make(ExprKind::Op { schema: None, name, left: Some(Box::new(left)), right }, pos))
    }

    fn named_operator(&mut self, left: Expr, b: bool, pos: Pos) -> Result<Expr> {
        self.at += 2;
        let (schema, name) = self.qualified_operator()?;
        self.expect_op(")")?;
        if self.quantifier(0) {
            return self.quantified(left, name, pos);
        }
        let right = Box::new(self.expr_at(OTHER + 1, b)?);
        Ok(make(ExprKind::Op { schema, name, left: Some(Box::new(left)), right }, pos))
    }

    /// AND and OR of any number are one node: their height does not grow with their length.
    fn chain(&mut self, left: Expr, level: u8, pos: Pos) -> Result<Expr> {
        let word = if level == AND { "and" } else { "or" };
        let mut parts = match (level, left.kind) {
            (AND, ExprKind::And(parts)) | (OR, ExprKind::Or(parts)) => parts,
            (_, kind) => vec![make(kind, left.pos)],
        };
        while self.eat_kw(word) {
            parts.push(self.expr_at(level + 1, false)?);
        }
        Ok(make(if level == AND { ExprKind::And(parts) } else { ExprKind::Or(parts) }, pos))
    }

    fn is_test(&mut self, left: Expr, b: bool, pos: Pos) -> Result<Result<Expr, Expr>> {
        let skip = 1 + usize::from(self.is_kw_at(1, "not"));
        let negated = skip == 2;
        if self.is_kw_at(skip, "distinct") && self.is_kw_at(skip + 1, "from") {
            self.at += skip + 2;
            let right = Box::new(self.expr_at(IS + 1, b)?);
            self.refuse(|p| p.is_kw("is") || p.is_kw("isnull") || p.is_kw("notnull"))?;
            return Ok(Ok(make(ExprKind::IsDistinct { left: Box::new(left), right, negated }, pos)));
        }
        if b && !self.is_kw_at(skip, "document") {
            return Ok(Err(left));
        }
        self.at += skip;
        let input = Box::new(left);
        let value = match self.eat_one_of(&[
            "null",
            "true",
            "false",
            "unknown",
            "document",
            "normalized",
            "nfc",
            "nfd",
            "nfkc",
            "nfkd",
        ]) {
            Some("null") => return Ok(Ok(make(ExprKind::IsNull { input, negated }, pos))),
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some("unknown") => None,
            Some("document") => return self.unsupported(pos, "IS DOCUMENT"),
            Some(_) => return self.unsupported(pos, "IS NORMALIZED"),
            None => return Err(self.unexpected()),
        };
        Ok(Ok(make(ExprKind::IsBool { input, value, negated }, pos)))
    }

    fn overlaps(&mut self, left: Expr, pos: Pos) -> Result<Expr> {
        self.advance();
        let row_pos = self.pos();
        let right = self.primary()?;
        let (ExprKind::Row { fields: mut all, .. }, ExprKind::Row { fields: more, .. }) = (left.kind, right.kind)
        else {
            return Err(self.unexpected_at(self.at));
        };
        if all.len() != 2 {
            return self.error(left.pos, "wrong number of parameters on left side of OVERLAPS expression");
        }
        if more.len() != 2 {
            return self.error(row_pos, "wrong number of parameters on right side of OVERLAPS expression");
        }
        all.extend(more);
        Ok(special("overlaps", all, pos))
    }

    /// Whether BETWEEN, IN, LIKE, ILIKE or SIMILAR TO comes next, or NOT and one of them. SIMILAR alone is a word of substring().
    fn is_match_form(&self) -> bool {
        let at = usize::from(self.is_kw("not"));
        ["between", "in", "like", "ilike"].iter().any(|k| self.is_kw_at(at, k))
            || (self.is_kw_at(at, "similar") && self.is_kw_at(at + 1, "to"))
    }

    /// BETWEEN, IN, LIKE, ILIKE, SIMILAR TO, after an optional NOT.
    fn match_form(&mut self, left: Expr, negated: bool, pos: Pos) -> Result<Expr> {
        let same = Self::is_match_form;
        let input = Box::new(left);
        if self.eat_kw("between") {
            let symmetric = self.eat_kw("symmetric");
            if !symmetric {
                self.eat_kw("asymmetric");
            }
            let low = Box::new(self.b_expr()?);
            self.expect_kw("and")?;
            let high = Box::new(self.expr_at(MATCH + 1, false)?);
            self.refuse(same)?;
            return Ok(make(ExprKind::Between { input, low, high, symmetric, negated }, pos));
        }
        if self.eat_kw("in") {
            if !self.is_op("(") {
                return Err(self.unexpected());
            }
            return Ok(make(
                match self.paren()? {
                    Paren::Query(query) => ExprKind::InQuery { input, query, negated },
                    Paren::Exprs(list) => ExprKind::InList { input, list, negated },
                },
                pos,
            ));
        }
        let kind = match self.eat_one_of(&["like", "ilike", "similar"]) {
            Some("like") => LikeKind::Like,
            Some("ilike") => LikeKind::ILike,
            _ => {
                self.expect_kw("to")?;
                LikeKind::Similar
            }
        };
        if kind != LikeKind::Similar && self.quantifier(0) {
            let op = match (kind, negated) {
                (LikeKind::Like, false) => "~~",
                (LikeKind::Like, true) => "!~~",
                (_, false) => "~~*",
                (_, true) => "!~~*",
            };
            return self.quantified(*input, op.into(), pos);
        }
        let pattern = Box::new(self.expr_at(MATCH + 1, false)?);
        let escape = if self.eat_kw("escape") { Some(Box::new(self.expr_at(MATCH + 1, false)?)) } else { None };
        self.refuse(same)?;
        Ok(make(ExprKind::Like { kind, input, pattern, escape, negated }, pos))
    }

    fn quantifier(&self, ahead: usize) -> bool {
        self.is_op_at(ahead + 1, "(") && ["any", "some", "all"].iter().any(|k| self.is_kw_at(ahead, k))
    }

    fn quantified(&mut self, left: Expr, op: String, pos: Pos) -> Result<Expr> {
        let all = self.is_kw("all");
        self.advance();
        let at = self.at;
        let right = match self.paren()? {
            Paren::Query(query) => Quantified::Query(query),
            Paren::Exprs(mut list) if list.len() == 1 => match list.pop() {
                Some(array) => Quantified::Array(Box::new(array)),
                None => return Err(self.unexpected_at(at)),
            },
            Paren::Exprs(_) => return Err(self.unexpected_at(at)),
        };
        Ok(make(ExprKind::Quantified { left: Box::new(left), op, all, right }, pos))
    }

    /// Whether a query begins here (after any opening parenthesis).
    pub fn is_query_start(&self) -> bool {
        self.one_of(&["select", "values", "with", "table"]).is_some()
    }

    /// Takes `( .. )`, whatever it holds.
    pub fn paren(&mut self) -> Result<Paren> {
        self.nested(1, |p| {
            p.expect_op("(")?;
            let first = if p.is_query_start() {
                let query = p.query()?;
                p.expect_op(")")?;
                return Ok(Paren::Query(Box::new(query)));
            } else if p.is_op("(") {
                let pos = p.pos();
                match p.paren()? {
                    Paren::Query(query) => {
                        if p.is_op(")") || p.continues_query() {
                            let query = p.query_from(*query)?;
                            p.expect_op(")")?;
                            return Ok(Paren::Query(Box::new(query)));
                        }
                        let value = make(ExprKind::ScalarQuery(query), pos);
                        let value = p.indirection(value)?;
                        p.infix(value, 0, false)?
                    }
                    Paren::Exprs(exprs) => {
                        let value = p.parenthesised(exprs, pos)?;
                        p.infix(value, 0, false)?
                    }
                }
            } else {
                p.expr()?
            };
            let mut exprs = vec![first];
            while p.eat_op(",") {
                exprs.push(p.expr()?);
            }
            p.expect_op(")")?;
            Ok(Paren::Exprs(exprs))
        })
    }

    pub fn parenthesised(&mut self, mut exprs: Vec<Expr>, pos: Pos) -> Result<Expr> {
        if exprs.len() == 1
            && let Some(inner) = exprs.pop()
        {
            return self.indirection(inner);
        }
        Ok(make(ExprKind::Row { fields: exprs, explicit: false }, pos))
    }

    /// An expression, or `*`, `t.*`, `(e).*` where a list of columns may stand.
    pub fn target_value(&mut self) -> Result<Expr> {
        if self.is_op("*") {
            let pos = self.pos();
            self.advance();
            return Ok(make(ExprKind::Star(vec![]), pos));
        }
        self.expr()
    }
}

/// Whether an operator is of the generic kind, which all share one precedence.
fn is_other(op: &str) -> bool {
    !matches!(
        op,
        "+" | "-"
            | "*"
            | "/"
            | "%"
            | "^"
            | "<"
            | ">"
            | "="
            | "<="
            | ">="
            | "<>"
            | "("
            | ")"
            | "["
            | "]"
            | ","
            | ";"
            | "."
            | ":"
            | "::"
            | ":="
            | "=>"
            | ".."
    )
}
