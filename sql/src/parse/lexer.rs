//! Tokens: sqlparser's scanner cuts the text, PostgreSQL's rules (`scan.l`, `standard_conforming_strings` on) say what each piece is.
//!
//! sqlparser knows where words, strings, comments and operators begin and end, but not every rule: it goes on where PostgreSQL stops (`0x1F`, `1_000`),
//! cuts operators otherwise, joins no constants across lines, and tells errors in its own words. So each piece is read again from the source at the
//! place it begins, and pieces that turn out to belong to it are passed over. What cannot be read becomes a [`Tok::Error`] where it stood, so that an
//! earlier mistake of grammar is reported first, as PostgreSQL does.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token as Piece, Tokenizer};

use super::ast::Pos;
use super::keyword::{Category, lookup};
use crate::error::{SqlError, state};

/// Longest identifier in bytes (NAMEDATALEN - 1).
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// A token's kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok<'a> {
    /// An unquoted word, folded, and what keyword it is.
    Word(String, Option<(Category, bool)>),
    /// A quoted identifier.
    Quoted(String),
    /// A string constant.
    Str(String),
    /// A bit string, its letter first.
    Bits(String),
    /// A number as written.
    Number(&'a str),
    /// `$n`.
    Param(u32),
    /// An operator or a single character of punctuation; `!=` is `<>`.
    Op(&'a str),
    /// The end of the string.
    End,
    /// What could not be read.
    Error(Box<SqlError>),
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub tok: Tok<'a>,
    pub start: Pos,
    pub end: Pos,
}

/// Folds and truncates an unquoted identifier.
pub fn fold(word: &str) -> String {
    truncate(word.to_ascii_lowercase())
}

fn truncate(mut name: String) -> String {
    if name.len() > IDENTIFIER_BYTES_MAX {
        let mut end = IDENTIFIER_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

/// How often sqlparser's scanner is started again behind a piece that only PostgreSQL can read; then the rest is read without it, for starting
/// again costs the length of the rest.
const RESTARTS_MAX: usize = 8;

/// All tokens of a string, the last one [`Tok::End`] or [`Tok::Error`].
pub(super) fn tokenize(sql: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { sql, bytes: sql.as_bytes(), at: 0, tokens: Vec::with_capacity(sql.len() / 4 + 2) };
    let read = lexer.run();
    let at = lexer.at as Pos;
    let (tok, start) = match read {
        Ok(()) => (Tok::End, sql.len() as Pos),
        Err(error) => (Tok::Error(Box::new(error)), at),
    };
    lexer.tokens.push(Token { tok, start, end: sql.len() as Pos });
    lexer.tokens
}

/// A place in the text by line and column, as sqlparser counts (both from 1, in characters), and by byte.
struct Cursor {
    at: usize,
    line: u64,
    column: u64,
}

impl Cursor {
    /// Goes forward to a place and gives its byte.
    fn seek(&mut self, sql: &str, line: u64, column: u64) -> usize {
        let mut chars = sql[self.at..].chars();
        while (self.line, self.column) < (line, column) {
            match chars.next() {
                None => break,
                Some('\n') => {
                    self.line += 1;
                    self.column = 1;
                    self.at += 1;
                }
                Some(c) => {
                    self.column += 1;
                    self.at += c.len_utf8();
                }
            }
        }
        self.at
    }
}

struct Lexer<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    at: usize,
    tokens: Vec<Token<'a>>,
}

type Lexed<T> = Result<T, SqlError>;

fn is_ident_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}
fn is_ident_part(b: u8) -> bool {
    is_ident_start(b) || b.is_ascii_digit() || b == b'$'
}
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}
fn is_operator(b: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&b)
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error_at(&self, start: usize, end: usize, what: &str) -> SqlError {
        let near = &self.sql[start..end];
        SqlError::new(state::SYNTAX_ERROR, format!("{what} at or near \"{near}\"")).at(Some(start as u32 + 1))
    }

    fn unterminated(&self, start: usize, what: &str) -> SqlError {
        self.error_at(start, self.sql.len(), what)
    }

    fn push(&mut self, tok: Tok<'a>, start: usize) {
        self.tokens.push(Token { tok, start: start as Pos, end: self.at as Pos });
    }

    fn run(&mut self) -> Lexed<()> {
        for _ in 0..RESTARTS_MAX {
            let base = self.at;
            let mut pieces = Vec::new();
            let scanned = Tokenizer::new(&PostgreSqlDialect {}, &self.sql[base..])
                .with_unescape(false)
                .tokenize_with_location_into_buf(&mut pieces);
            let mut cursor = Cursor { at: base, line: 1, column: 1 };
            for piece in &pieces {
                let start = cursor.seek(self.sql, piece.span.start.line, piece.span.start.column);
                let end = cursor.seek(self.sql, piece.span.end.line, piece.span.end.column);
                self.read_piece(&piece.token, start, end)?;
            }
            self.skip_blank()?;
            if scanned.is_ok() && self.at >= self.bytes.len() {
                return Ok(());
            }
            // sqlparser cannot read what comes next. PostgreSQL can, or says why not.
            if self.at < self.bytes.len() {
                self.read()?;
            }
        }
        loop {
            self.skip_blank()?;
            if self.at >= self.bytes.len() {
                return Ok(());
            }
            self.read()?;
        }
    }

    /// Reads what sqlparser cut from `start` to `end`, unless it belonged to what was read before.
    fn read_piece(&mut self, piece: &Piece, start: usize, end: usize) -> Lexed<()> {
        if let (Piece::Word(word), true) = (piece, start == self.at) {
            // A letter before a quote is the beginning of a constant.
            if word.quote_style.is_none() && !matches!(self.bytes.get(end), Some(b'\'' | b'&')) {
                let folded = fold(&word.value);
                let keyword = lookup(&folded);
                self.at = end;
                self.push(Tok::Word(folded, keyword), start);
                return Ok(());
            }
        }
        while self.at < end {
            self.skip_blank()?;
            if self.at < end {
                self.read()?;
            }
        }
        Ok(())
    }

    /// Reads one token by PostgreSQL's rules.
    fn read(&mut self) -> Lexed<()> {
        let start = self.at;
        let b = self.bytes[start];
        match b {
            b'\'' => {
                self.at += 1;
                let text = self.plain_string(start)?;
                self.push(Tok::Str(text), start);
            }
            b'"' => {
                self.at += 1;
                let name = self.quoted_identifier(start)?;
                self.push(Tok::Quoted(truncate(name)), start);
            }
            b'e' | b'E' if self.peek(1) == b'\'' => {
                self.at += 2;
                let text = self.escape_string(start)?;
                self.push(Tok::Str(text), start);
            }
            b'b' | b'B' | b'x' | b'X' if self.peek(1) == b'\'' => {
                self.at += 2;
                let text = self.plain_string(start)?;
                self.push(Tok::Bits(format!("{}{text}", b.to_ascii_lowercase() as char)), start);
            }
            b'n' | b'N' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.push(Tok::Word("nchar".into(), lookup("nchar")), start);
            }
            b'u' | b'U' if self.peek(1) == b'&' && matches!(self.peek(2), b'\'' | b'"') => self.unicode(start)?,
            b'$' => self.dollar(start)?,
            b'0'..=b'9' => self.number(start)?,
            b'.' if self.peek(1).is_ascii_digit() => self.number(start)?,
            _ if is_ident_start(b) => {
                while is_ident_part(self.peek(0)) {
                    self.at += 1;
                }
                let word = fold(&self.sql[start..self.at]);
                let keyword = lookup(&word);
                self.push(Tok::Word(word, keyword), start);
            }
            b':' if self.peek(1) == b':' || self.peek(1) == b'=' => self.fixed(start, 2),
            b'.' if self.peek(1) == b'.' => self.fixed(start, 2),
            b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.' => self.fixed(start, 1),
            _ if is_operator(b) => self.operator(start),
            _ => {
                let end = start + self.sql[start..].chars().next().map_or(1, char::len_utf8);
                return Err(self.error_at(start, end, "syntax error"));
            }
        }
        Ok(())
    }

    fn fixed(&mut self, start: usize, len: usize) {
        self.at = start + len;
        self.push(Tok::Op(&self.sql[start..start + len]), start);
    }

    fn operator(&mut self, start: usize) {
        let mut end = start;
        while end < self.bytes.len() && is_operator(self.bytes[end]) {
            let pair = &self.bytes[end..self.bytes.len().min(end + 2)];
            if end > start && (pair == b"/*" || pair == b"--") {
                break;
            }
            end += 1;
        }
        // A trailing sign belongs to the next operand unless the operator has a character no sign goes with.
        while end - start > 1
            && matches!(self.bytes[end - 1], b'+' | b'-')
            && !self.bytes[start..end - 1].iter().any(|b| b"~!@#^&|`?%".contains(b))
        {
            end -= 1;
        }
        self.at = end;
        let text = &self.sql[start..end];
        self.push(Tok::Op(if text == "!=" { "<>" } else { text }), start);
    }

    fn skip_blank(&mut self) -> Lexed<()> {
        loop {
            let b = self.peek(0);
            if self.at < self.bytes.len() && is_space(b) {
                self.at += 1;
            } else if b == b'-' && self.peek(1) == b'-' {
                self.skip_line();
            } else if b == b'/' && self.peek(1) == b'*' {
                self.skip_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn skip_line(&mut self) {
        while self.at < self.bytes.len() && !matches!(self.bytes[self.at], b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) -> Lexed<()> {
        let start = self.at;
        let mut depth = 0usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.at += 1,
            }
        }
        Err(self.unterminated(start, "unterminated /* comment"))
    }

    /// After a closing quote: does the constant go on in a later line?
    fn continues(&mut self) -> bool {
        let from = self.at;
        let mut newline = false;
        loop {
            let b = self.peek(0);
            if self.at < self.bytes.len() && is_space(b) {
                newline |= matches!(b, b'\n' | b'\r');
                self.at += 1;
            } else if b == b'-' && self.peek(1) == b'-' {
                self.skip_line();
            } else if newline && b == b'\'' {
                self.at += 1;
                return true;
            } else {
                self.at = from;
                return false;
            }
        }
    }

    fn plain_string(&mut self, start: usize) -> Lexed<String> {
        let mut text = String::new();
        loop {
            let from = self.at;
            match self.bytes[from..].iter().position(|b| *b == b'\'') {
                None => return Err(self.unterminated(start, "unterminated quoted string")),
                Some(n) => {
                    text.push_str(&self.sql[from..from + n]);
                    self.at = from + n + 1;
                }
            }
            if self.peek(0) == b'\'' {
                text.push('\'');
                self.at += 1;
            } else if !self.continues() {
                return Ok(text);
            }
        }
    }

    fn quoted_identifier(&mut self, start: usize) -> Lexed<String> {
        let mut name = String::new();
        loop {
            let from = self.at;
            match self.bytes[from..].iter().position(|b| *b == b'"') {
                None => return Err(self.unterminated(start, "unterminated quoted identifier")),
                Some(n) => {
                    name.push_str(&self.sql[from..from + n]);
                    self.at = from + n + 1;
                }
            }
            if self.peek(0) == b'"' {
                name.push('"');
                self.at += 1;
            } else if name.is_empty() {
                return Err(self.error_at(start, self.at, "zero-length delimited identifier"));
            } else {
                return Ok(name);
            }
        }
    }

    fn escape_string(&mut self, start: usize) -> Lexed<String> {
        let mut text: Vec<u8> = Vec::new();
        let mut surrogate: Option<u32> = None;
        loop {
            let Some(&b) = self.bytes.get(self.at) else {
                return Err(self.unterminated(start, "unterminated quoted string"));
            };
            let escape = self.at;
            if surrogate.is_some() && !(b == b'\\' && matches!(self.peek(1), b'u' | b'U')) {
                return Err(self.bad_surrogate(escape));
            }
            self.at += 1;
            match b {
                b'\'' if self.peek(0) == b'\'' => {
                    text.push(b'\'');
                    self.at += 1;
                }
                b'\'' => {
                    if !self.continues() {
                        break;
                    }
                }
                b'\\' => {
                    let Some(&e) = self.bytes.get(self.at) else {
                        return Err(self.unterminated(start, "unterminated quoted string"));
                    };
                    self.at += 1;
                    match e {
                        b'b' => text.push(8),
                        b'f' => text.push(12),
                        b'n' => text.push(b'\n'),
                        b'r' => text.push(b'\r'),
                        b't' => text.push(b'\t'),
                        b'v' => text.push(11),
                        b'0'..=b'7' => {
                            let mut value = u32::from(e - b'0');
                            for _ in 0..2 {
                                let d = self.peek(0);
                                if !(b'0'..=b'7').contains(&d) {
                                    break;
                                }
                                value = value * 8 + u32::from(d - b'0');
                                self.at += 1;
                            }
                            text.push(value as u8);
                        }
                        b'x' if self.peek(0).is_ascii_hexdigit() => {
                            let len = 1 + usize::from(self.peek(1).is_ascii_hexdigit());
                            let value = u8::from_str_radix(&self.sql[self.at..self.at + len], 16).unwrap_or(0);
                            self.at += len;
                            text.push(value);
                        }
                        b'u' | b'U' => {
                            let len = if e == b'u' { 4 } else { 8 };
                            let code = self.hex(len).ok_or_else(|| {
                                SqlError::new(state::INVALID_ESCAPE_SEQUENCE, "invalid Unicode escape")
                                    .hint("Unicode escapes must be \\uXXXX or \\UXXXXXXXX.")
                                    .at(Some(escape as u32 + 1))
                            })?;
                            if let Some(c) = self.unicode_char(code, &mut surrogate, escape)? {
                                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                            }
                        }
                        other => text.push(other),
                    }
                }
                other => text.push(other),
            }
        }
        if surrogate.is_some() {
            return Err(self.bad_surrogate(self.at));
        }
        String::from_utf8(text)
            .map_err(|e| {
                let bad = &e.as_bytes()[e.utf8_error().valid_up_to()..];
                let shown: Vec<String> =
                    bad.iter().take(4).take_while(|b| **b >= 0x80).map(|b| format!("0x{b:02x}")).collect();
                SqlError::new(
                    state::CHARACTER_NOT_IN_REPERTOIRE,
                    format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
                )
            })
            .and_then(|s| {
                if s.contains('\0') {
                    Err(SqlError::new(
                        state::CHARACTER_NOT_IN_REPERTOIRE,
                        "invalid byte sequence for encoding \"UTF8\": 0x00",
                    ))
                } else {
                    Ok(s)
                }
            })
    }

    fn hex(&mut self, len: usize) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + len)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let value = u32::from_str_radix(&self.sql[self.at..self.at + len], 16).ok()?;
        self.at += len;
        Some(value)
    }

    fn bad_surrogate(&self, at: usize) -> SqlError {
        SqlError::new(state::SYNTAX_ERROR, "invalid Unicode surrogate pair").at(Some(at as u32 + 1))
    }

    /// A code point of an escape; None for the first half of a surrogate pair.
    fn unicode_char(&self, code: u32, surrogate: &mut Option<u32>, at: usize) -> Lexed<Option<char>> {
        match (surrogate.take(), code) {
            (None, 0xD800..=0xDBFF) => {
                *surrogate = Some(code);
                Ok(None)
            }
            (Some(high), 0xDC00..=0xDFFF) => Ok(char::from_u32(0x10000 + ((high & 0x3FF) << 10) + (code & 0x3FF))),
            (Some(_), _) | (None, 0xDC00..=0xDFFF) => Err(self.bad_surrogate(at)),
            (None, 0) => {
                Err(SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape value").at(Some(at as u32 + 1)))
            }
            (None, _) => char::from_u32(code).map(Some).ok_or_else(|| {
                SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape value").at(Some(at as u32 + 1))
            }),
        }
    }

    /// `U&'..'` and `U&".."`, with an optional UESCAPE.
    fn unicode(&mut self, start: usize) -> Lexed<()> {
        let is_name = self.peek(2) == b'"';
        self.at += 3;
        let body = self.at;
        let raw = if is_name { self.quoted_identifier(start)? } else { self.plain_string(start)? };
        let after = self.at;
        let mut escape = '\\';
        self.skip_blank()?;
        let word = self.at;
        while is_ident_part(self.peek(0)) {
            self.at += 1;
        }
        if self.sql[word..self.at].eq_ignore_ascii_case("uescape") {
            self.skip_blank()?;
            let at = self.at;
            let invalid =
                || SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape character").at(Some(at as u32 + 1));
            if self.peek(0) != b'\'' {
                return Err(SqlError::new(state::SYNTAX_ERROR, "UESCAPE must be followed by a simple string literal")
                    .at(Some(at as u32 + 1)));
            }
            self.at += 1;
            let given = self.plain_string(at)?;
            let mut chars = given.chars();
            escape = match (chars.next(), chars.next()) {
                (Some(c), None) if !c.is_ascii_hexdigit() && !"+'\"".contains(c) && !c.is_whitespace() => c,
                _ => return Err(invalid()),
            };
        } else {
            self.at = after;
        }
        let text = self.decode_unicode(&raw, escape, body)?;
        let tok = if is_name { Tok::Quoted(truncate(text)) } else { Tok::Str(text) };
        self.push(tok, start);
        Ok(())
    }

    fn decode_unicode(&self, raw: &str, escape: char, body: usize) -> Lexed<String> {
        let mut text = String::with_capacity(raw.len());
        let mut surrogate = None;
        let mut rest = raw;
        while let Some(c) = rest.chars().next() {
            let at = body + (raw.len() - rest.len());
            rest = &rest[c.len_utf8()..];
            if c != escape {
                if surrogate.is_some() {
                    return Err(self.bad_surrogate(at));
                }
                text.push(c);
                continue;
            }
            if let Some(after) = rest.strip_prefix(escape) {
                text.push(escape);
                rest = after;
                continue;
            }
            let (skip, len) = if rest.starts_with('+') { (1, 6) } else { (0, 4) };
            let code = rest
                .get(skip..skip + len)
                .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|d| u32::from_str_radix(d, 16).ok());
            let Some(code) = code else {
                return Err(SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape")
                    .hint("Unicode escapes must be \\XXXX or \\+XXXXXX.")
                    .at(Some(at as u32 + 1)));
            };
            rest = &rest[skip + len..];
            if let Some(c) = self.unicode_char(code, &mut surrogate, at)? {
                text.push(c);
            }
        }
        if surrogate.is_some() {
            return Err(self.bad_surrogate(body + raw.len()));
        }
        Ok(text)
    }

    /// `$1`, or a dollar-quoted string.
    fn dollar(&mut self, start: usize) -> Lexed<()> {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            let digits = &self.sql[start + 1..self.at];
            if is_ident_start(self.peek(0)) {
                while is_ident_part(self.peek(0)) {
                    self.at += 1;
                }
                return Err(self.error_at(start, self.at, "trailing junk after parameter"));
            }
            let number = digits.parse().unwrap_or(u32::MAX);
            self.push(Tok::Param(number), start);
            return Ok(());
        }
        let mut end = start + 1;
        while end < self.bytes.len() && is_ident_part(self.bytes[end]) && self.bytes[end] != b'$' {
            end += 1;
        }
        if self.bytes.get(end) != Some(&b'$') {
            return Err(self.error_at(start, start + 1, "syntax error"));
        }
        let tag = &self.sql[start..=end];
        let body = end + 1;
        match self.sql[body..].find(tag) {
            None => Err(self.unterminated(start, "unterminated dollar-quoted string")),
            Some(n) => {
                self.at = body + n + tag.len();
                self.push(Tok::Str(self.sql[body..body + n].to_owned()), start);
                Ok(())
            }
        }
    }

    fn number(&mut self, start: usize) -> Lexed<()> {
        let digits = |lexer: &mut Self| {
            let from = lexer.at;
            while lexer.peek(0).is_ascii_digit() {
                lexer.at += 1;
            }
            lexer.at - from
        };
        digits(self);
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let signed = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + signed).is_ascii_digit() {
                self.at += 1 + signed;
                digits(self);
            } else if signed == 1 {
                self.at += 2;
                return Err(self.error_at(start, self.at, "trailing junk after numeric literal"));
            }
        }
        if is_ident_start(self.peek(0)) {
            while is_ident_part(self.peek(0)) {
                self.at += 1;
            }
            return Err(self.error_at(start, self.at, "trailing junk after numeric literal"));
        }
        self.push(Tok::Number(&self.sql[start..self.at]), start);
        Ok(())
    }
}
