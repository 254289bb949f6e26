//! A statement's text with its literals taken out, and which of them may have other values under the same plan.
//!
//! ```text
//! UPDATE t SET a = a + -5 WHERE id = 7 AND b <> 'x'      the text
//! UPDATE t SET a = a + -?i WHERE id = ?i AND b <> ?s     its shape: a literal is its kind, i (int4), l (int8), n (numeric), s (string)
//! ```
//!
//! [`read`] makes the shape by one pass over the bytes, without the parser's tokens. It gives up on everything it need not know (comments,
//! parameters, dollar quotes, `E''`, `B'1'`, strings that go on in another line): such a statement is parsed and planned as ever.
//!
//! [`slots`] looks at the tree a text of this shape was parsed to. A literal becomes a slot, a parameter of its own type, only where neither the
//! binder nor the planner looks at its value: an operand beside an expression over columns in WHERE, ON and SET, a value of SET or of a one-row
//! VALUES. Everywhere else (LIMIT, ORDER BY 1, select lists, arguments, IN lists, patterns, types, what is made of literals alone) it stays what
//! it is, and its text belongs to the key. What must stay true: texts of one shape have one tree, but for the values of literals.

use crate::error::Result;
use crate::functions::SessionCx;
use crate::ir::JoinKind;
use crate::parse::ast::{self, Expr, ExprKind, StatementKind};
use crate::types::{Datum, Numeric, Type, io};

/// Longer texts are not looked at: what they hold is rarely said twice.
const TEXT_BYTES_MAX: usize = 4096;
/// Nor are those with more literals.
const LITERALS_MAX: usize = 64;
/// Digits of a number that is a slot.
const NUMBER_BYTES_MAX: usize = 300;

/// What a literal is before its context is known: its type, string literals having none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int4,
    Int8,
    Numeric,
    Text,
}

impl Kind {
    fn mark(self) -> u8 {
        match self {
            Kind::Int4 => b'i',
            Kind::Int8 => b'l',
            Kind::Numeric => b'n',
            Kind::Text => b's',
        }
    }
    /// The type of the parameter that stands for it; NONE where the context tells.
    pub fn declared(self) -> Type {
        match self {
            Kind::Int4 => Type::INT4,
            Kind::Int8 => Type::INT8,
            Kind::Numeric => Type::NUMERIC,
            Kind::Text => Type::NONE,
        }
    }
}

/// A literal of a text.
#[derive(Clone, Copy, Debug)]
pub struct Literal {
    pub kind: Kind,
    /// Its bytes, quotes included.
    pub start: usize,
    pub end: usize,
    /// Where the minus sign before it stands, if one does.
    minus: Option<usize>,
}

impl Literal {
    /// The text between the quotes, or the digits.
    fn text(&self, sql: &str) -> String {
        match self.kind {
            Kind::Text => sql[self.start + 1..self.end - 1].replace("''", "'"),
            _ => sql[self.start..self.end].to_owned(),
        }
    }
}

/// A text's shape and its literals, in order.
#[derive(Debug)]
pub struct Shape {
    pub text: String,
    pub literals: Vec<Literal>,
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}
fn is_name_part(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit() || b == b'$'
}
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

/// The shape of a string with one statement; None where reading it takes a parser.
pub fn read(sql: &str) -> Option<Shape> {
    if sql.len() > TEXT_BYTES_MAX {
        return None;
    }
    let bytes = sql.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut shape = Vec::with_capacity(sql.len() + 8);
    let mut literals = Vec::new();
    // The place of the last piece that was no space, if it is a minus sign.
    let (mut at, mut minus) = (0, None);
    while at < bytes.len() {
        let (start, before) = (at, minus.take());
        match bytes[at] {
            b if is_space(b) => {
                while is_space(byte(at)) {
                    at += 1;
                }
                shape.push(b' ');
                minus = before;
            }
            b if is_name_start(b) => {
                while is_name_part(byte(at)) {
                    at += 1;
                }
                // E'', B'', U&'' and their like.
                if byte(at) == b'\'' || byte(at) == b'&' {
                    return None;
                }
                shape.extend_from_slice(&bytes[start..at]);
            }
            b'0'..=b'9' => {
                at = number_end(bytes, at)?;
                let kind = number_kind(&sql[start..at], before.is_some())?;
                shape.extend_from_slice(&[1, kind.mark()]);
                literals.push(Literal { kind, start, end: at, minus: before });
            }
            b'\'' => {
                at = quoted_end(bytes, at)?;
                if goes_on(bytes, at) {
                    return None;
                }
                shape.extend_from_slice(&[1, Kind::Text.mark()]);
                literals.push(Literal { kind: Kind::Text, start, end: at, minus: None });
            }
            b'"' => {
                at = quoted_end(bytes, at)?;
                shape.extend_from_slice(&bytes[start..at]);
            }
            b';' => {
                if !bytes[at..].iter().all(|b| is_space(*b) || *b == b';') {
                    return None;
                }
                break;
            }
            b'$' => return None,
            b'.' if byte(at + 1).is_ascii_digit() => return None,
            b'-' if byte(at + 1) == b'-' => return None,
            b'/' if byte(at + 1) == b'*' => return None,
            b if b < b' ' || b == 0x7f => return None,
            b => {
                shape.push(b);
                at += 1;
                minus = (b == b'-').then_some(start);
            }
        }
        if literals.len() > LITERALS_MAX {
            return None;
        }
    }
    let text = String::from_utf8(shape).ok()?;
    Some(Shape { text, literals })
}

/// Behind a number; None for what is not plainly one.
fn number_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let digits = |mut at: usize| {
        while byte(at).is_ascii_digit() {
            at += 1;
        }
        at
    };
    at = digits(at);
    if byte(at) == b'.' {
        at = digits(at + 1);
    }
    if matches!(byte(at), b'e' | b'E') {
        let exponent = at + 1 + usize::from(matches!(byte(at + 1), b'+' | b'-'));
        if !byte(exponent).is_ascii_digit() {
            return None;
        }
        at = digits(exponent);
    }
    (!is_name_part(byte(at)) && byte(at) != b'.').then_some(at)
}

/// The type of a number as the binder finds it; None for those that have another one behind a minus sign.
fn number_kind(text: &str, behind_minus: bool) -> Option<Kind> {
    if text.len() > NUMBER_BYTES_MAX
        || behind_minus && matches!(text.parse(), Ok(2_147_483_648_u64 | 9_223_372_036_854_775_808))
    {
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Kind::Numeric);
    }
    Some(match (text.parse::<i32>(), text.parse::<i64>()) {
        (Ok(_), _) => Kind::Int4,
        (_, Ok(_)) => Kind::Int8,
        _ => Kind::Numeric,
    })
}

/// Behind what is quoted by the byte at this place, which is doubled inside.
fn quoted_end(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        match (*bytes.get(at)?, bytes.get(at + 1)) {
            (b, Some(next)) if b == quote && *next == quote => at += 2,
            (b, _) if b == quote => return Some(at + 1),
            // A NUL ends a text everywhere else.
            (0, _) => return None,
            _ => at += 1,
        }
    }
}

/// Whether a string literal is continued behind a line's end.
fn goes_on(bytes: &[u8], end: usize) -> bool {
    let rest = &bytes[end..];
    let space = rest.iter().take_while(|b| is_space(**b)).count();
    rest.get(space) == Some(&b'\'') && rest[..space].iter().any(|b| matches!(b, b'\n' | b'\r'))
}

/// A literal that has become a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Which literal of the text.
    pub literal: usize,
    /// The minus sign before it is its own.
    negated: bool,
}

impl Slot {
    /// Its value in a text of the same shape, as its parameter's type; an error, of whatever words, where the text must be bound to tell.
    pub fn value(&self, sql: &str, literals: &[Literal], ty: Type, cx: &SessionCx) -> Result<Datum> {
        let literal = &literals[self.literal];
        let mut text = literal.text(sql);
        if self.negated {
            text.insert(0, '-');
        }
        let number = |_| crate::SqlError::internal("a number that is none");
        match literal.kind {
            Kind::Int4 => Ok(Datum::Int4(text.parse().map_err(number)?)),
            Kind::Int8 => Ok(Datum::Int8(text.parse().map_err(number)?)),
            Kind::Numeric => Ok(Datum::Numeric(Numeric::parse(&text)?)),
            Kind::Text => io::text_in(&text, ty.plain(), cx),
        }
    }
}

/// Puts parameters in the place of the literals whose values nobody looks at, and tells which they are.
pub fn slots(statement: &mut ast::Statement, literals: &[Literal]) -> Vec<Slot> {
    let mut finder = Finder { literals, slots: Vec::new() };
    match &mut statement.kind {
        StatementKind::Query(query) => finder.query(query),
        StatementKind::Insert(insert) => finder.insert(insert),
        StatementKind::Update(update) => finder.update(update),
        StatementKind::Delete(delete) if delete.with.is_none() => {
            finder.from(&mut delete.using);
            finder.condition(delete.filter.as_mut());
        }
        _ => {}
    }
    finder.slots
}

struct Finder<'a> {
    literals: &'a [Literal],
    slots: Vec<Slot>,
}

impl Finder<'_> {
    fn query(&mut self, query: &mut ast::Query) {
        if let (None, ast::Body::Select(select)) = (&query.with, &mut query.body) {
            self.from(&mut select.from);
            self.condition(select.filter.as_mut());
        }
    }
    fn insert(&mut self, insert: &mut ast::Insert) {
        if insert.with.is_some() {
            return;
        }
        if let Some(source) = &mut insert.source
            && let (None, ast::Body::Values(rows)) = (&source.with, &mut source.body)
            && let ([row], true, None, None) =
                (rows.as_mut_slice(), source.order_by.is_empty(), &source.limit, &source.offset)
        {
            row.iter_mut().for_each(|value| self.value(value));
        }
        if let Some((sets, filter)) = insert.on_conflict.as_mut().and_then(|c| c.update.as_mut()) {
            self.sets(sets);
            self.condition(filter.as_mut());
        }
    }
    fn update(&mut self, update: &mut ast::Update) {
        if update.with.is_none() {
            self.sets(&mut update.sets);
            self.from(&mut update.from);
            self.condition(update.filter.as_mut());
        }
    }
    fn sets(&mut self, sets: &mut [ast::SetClause]) {
        for set in sets {
            match set {
                ast::SetClause::One { subscripts, value, .. } if subscripts.is_empty() => self.value(value),
                _ => {}
            }
        }
    }
    fn from(&mut self, items: &mut [ast::FromItem]) {
        for item in items {
            self.from_item(item);
        }
    }
    fn from_item(&mut self, item: &mut ast::FromItem) {
        if let ast::FromItem::Join(join) = item {
            self.from_item(&mut join.left);
            self.from_item(&mut join.right);
            if join.kind != JoinKind::Full {
                self.condition(join.on.as_mut());
            }
        }
    }
    /// A value that is stored, whole or as an operand.
    fn value(&mut self, value: &mut Expr) {
        if !self.take(value) {
            self.operands(value);
        }
    }
    fn condition(&mut self, condition: Option<&mut Expr>) {
        if let Some(condition) = condition {
            self.test(condition);
        }
    }
    fn test(&mut self, e: &mut Expr) {
        match &mut e.kind {
            ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter_mut().for_each(|part| self.test(part)),
            ExprKind::Not(input) => self.test(input),
            ExprKind::Between { input, low, high, symmetric: false, .. } if reads_column(input) => {
                self.operands(input);
                self.value(low);
                self.value(high);
            }
            _ => self.operands(e),
        }
    }
    /// Literals beside an expression over columns.
    fn operands(&mut self, e: &mut Expr) {
        let ExprKind::Op { schema: None, name, left: Some(left), right } = &mut e.kind else { return };
        if !matches!(name.as_str(), "=" | "<>" | "<" | "<=" | ">" | ">=" | "+" | "-" | "*" | "/" | "%" | "||") {
            return;
        }
        let (left_reads, right_reads) = (reads_column(left), reads_column(right));
        for (side, beside_column) in [(left, right_reads), (right, left_reads)] {
            if !(beside_column && self.take(side)) {
                self.operands(side);
            }
        }
    }
    /// Makes a parameter of a literal, or of the string of a plain cast; false if it is neither.
    fn take(&mut self, e: &mut Expr) -> bool {
        let pos = e.pos as usize;
        match &mut e.kind {
            ExprKind::Number(_) => {
                let found =
                    self.literals.iter().position(|l| l.kind != Kind::Text && (l.start == pos || l.minus == Some(pos)));
                found.is_some_and(|literal| self.replace(e, literal, self.literals[literal].start != pos))
            }
            ExprKind::String(_) => {
                let found = self.literals.iter().position(|l| l.kind == Kind::Text && l.start == pos);
                found.is_some_and(|literal| self.replace(e, literal, false))
            }
            ExprKind::Cast { input, ty } => {
                let plain = ty.mods.is_empty() && ty.dims == 0 && ty.interval_fields.is_none();
                plain && matches!(input.kind, ExprKind::String(_)) && self.take(input)
            }
            _ => false,
        }
    }
    fn replace(&mut self, e: &mut Expr, literal: usize, negated: bool) -> bool {
        if self.slots.iter().any(|s| s.literal == literal) {
            return false;
        }
        self.slots.push(Slot { literal, negated });
        e.kind = ExprKind::Param(self.slots.len() as u32);
        true
    }
}

/// Whether an expression is made of a column, so that nobody computes it beforehand.
fn reads_column(e: &Expr) -> bool {
    match &e.kind {
        ExprKind::Column(_) => true,
        ExprKind::Cast { input, .. } => reads_column(input),
        ExprKind::Op { left, right, .. } => left.as_deref().is_some_and(reads_column) || reads_column(right),
        ExprKind::Call(call) => call.over.is_none() && call.args.iter().any(|arg| reads_column(&arg.value)),
        _ => false,
    }
}

/// Whether a statement has literals that mean another time whenever they are read: they are read anew each time.
pub fn tells_time(sql: &str) -> bool {
    if !sql.contains(['\'', '$']) {
        return false;
    }
    const IN_QUOTES: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    // The offset of a time without one is today's.
    const ANYWHERE: [&str; 2] = ["timetz", "time with"];
    let has =
        |text: &str, word: &str| text.as_bytes().windows(word.len()).any(|at| at.eq_ignore_ascii_case(word.as_bytes()));
    let dollar_quotes = sql.split('$').skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    let mut quoted = sql.split('\'').skip(usize::from(!dollar_quotes)).step_by(if dollar_quotes { 1 } else { 2 });
    quoted.any(|text| IN_QUOTES.iter().any(|word| has(text, word))) || ANYWHERE.iter().any(|word| has(sql, word))
}
