//! JSON as text: reading it as PostgreSQL's `jsonapi.c` does, so that the same texts are refused, with the same words.
//!
//! [`Reader`] gives a text's events one by one with the places they stand at; it keeps its own list of open containers, so no text makes it
//! recurse. With `unescape` strings are also decoded, which can fail where checking alone does not: json keeps `"\ud800"`, jsonb refuses it.

use std::borrow::Cow;
use std::ops::Range;

use super::{Builder, DEPTH_MAX, Jsonb, too_deep};
use crate::error::{Result, SqlError, state};
use crate::types::Numeric;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // JSON's kinds
pub enum Event<'a> {
    Null,
    Bool(bool),
    /// As written.
    Number(&'a str),
    /// Decoded if asked for, else as written between the quotes.
    String(Cow<'a, str>),
    /// A member's name; its value follows.
    Name(Cow<'a, str>),
    BeginArray,
    EndArray,
    BeginObject,
    EndObject,
}

/// What a token is, besides its place.
#[derive(Clone, Debug, PartialEq)]
enum Tok<'a> {
    Punctuation(u8),
    String(Cow<'a, str>),
    Number,
    True,
    False,
    Null,
    End,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Value,
    /// Behind `[`.
    FirstElement,
    /// Behind an element.
    NextElement,
    /// Behind `{`.
    FirstMember,
    /// Behind a member.
    NextMember,
    /// Behind the whole value.
    End,
    Done,
}

/// Reads a text from front to back.
pub struct Reader<'a> {
    text: &'a str,
    unescape: bool,
    /// End of the last token: where the next is looked for.
    at: usize,
    /// Where the current token begins.
    start: usize,
    line: usize,
    line_start: usize,
    expect: Expect,
    /// The open containers: whether each is an object.
    open: Vec<bool>,
    /// Where the last event stands.
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    /// At the beginning of a text.
    pub fn new(text: &'a str, unescape: bool) -> Reader<'a> {
        let (at, start, line, line_start) = (0, 0, 1, 0);
        Reader { text, unescape, at, start, line, line_start, expect: Expect::Value, open: Vec::new(), span: 0..0 }
    }
    /// Where the event given last stands; of a container its bracket only.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
    /// How many containers are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next event; None when the text has been read to its end.
    ///
    /// # Errors
    /// 22P02 with PostgreSQL's DETAIL and CONTEXT, 22P05 for `\u0000` where strings are decoded, 54001.
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>> {
        loop {
            if self.expect == Expect::Done {
                return Ok(None);
            }
            let token = self.token()?;
            let next = match (self.expect, &token) {
                (Expect::End, Tok::End) => {
                    self.expect = Expect::Done;
                    return Ok(None);
                }
                (Expect::End, _) => return Err(self.unexpected("Expected end of input", &token)),
                (Expect::NextElement, Tok::Punctuation(b',')) => {
                    self.expect = Expect::Value;
                    continue;
                }
                (Expect::FirstElement | Expect::NextElement, Tok::Punctuation(b']')) => {
                    self.close();
                    Event::EndArray
                }
                (Expect::NextElement, _) => return Err(self.unexpected("Expected \",\" or \"]\"", &token)),
                (Expect::FirstMember | Expect::NextMember, Tok::Punctuation(b'}')) => {
                    self.close();
                    Event::EndObject
                }
                (Expect::FirstMember, Tok::String(_)) => {
                    let Tok::String(name) = token else { continue };
                    return self.name(name).map(Some);
                }
                (Expect::FirstMember, _) => return Err(self.unexpected("Expected string or \"}\"", &token)),
                (Expect::NextMember, Tok::Punctuation(b',')) => match self.token()? {
                    Tok::String(name) => return self.name(name).map(Some),
                    other => return Err(self.unexpected("Expected string", &other)),
                },
                (Expect::NextMember, _) => return Err(self.unexpected("Expected \",\" or \"}\"", &token)),
                (Expect::Value | Expect::FirstElement | Expect::Done, _) => return self.value(token).map(Some),
            };
            return Ok(Some(next));
        }
    }

    fn name(&mut self, name: Cow<'a, str>) -> Result<Event<'a>> {
        let span = self.start..self.at;
        match self.token()? {
            Tok::Punctuation(b':') => {}
            other => return Err(self.unexpected("Expected \":\"", &other)),
        }
        self.span = span;
        self.expect = Expect::Value;
        Ok(Event::Name(name))
    }

    fn value(&mut self, token: Tok<'a>) -> Result<Event<'a>> {
        self.span = self.start..self.at;
        let event = match token {
            Tok::Punctuation(open @ (b'[' | b'{')) => {
                if self.open.len() >= DEPTH_MAX {
                    return Err(too_deep());
                }
                let object = open == b'{';
                self.open.push(object);
                self.expect = if object { Expect::FirstMember } else { Expect::FirstElement };
                return Ok(if object { Event::BeginObject } else { Event::BeginArray });
            }
            Tok::String(s) => Event::String(s),
            Tok::Number => Event::Number(&self.text[self.start..self.at]),
            Tok::True => Event::Bool(true),
            Tok::False => Event::Bool(false),
            Tok::Null => Event::Null,
            Tok::Punctuation(_) | Tok::End => return Err(self.unexpected("Expected JSON value", &token)),
        };
        self.behind_value();
        Ok(event)
    }

    fn close(&mut self) {
        self.span = self.start..self.at;
        self.open.pop();
        self.behind_value();
    }

    fn behind_value(&mut self) {
        self.expect = match self.open.last() {
            None => Expect::End,
            Some(true) => Expect::NextMember,
            Some(false) => Expect::NextElement,
        };
    }

    fn token(&mut self) -> Result<Tok<'a>> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while let Some(b @ (b' ' | b'\t' | b'\n' | b'\r')) = bytes.get(at) {
            at += 1;
            if *b == b'\n' {
                self.line += 1;
                self.line_start = at;
            }
        }
        self.start = at;
        let Some(first) = bytes.get(at) else {
            self.at = at;
            return Ok(Tok::End);
        };
        match first {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => {
                self.at = at + 1;
                Ok(Tok::Punctuation(*first))
            }
            b'"' => self.string().map(Tok::String),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Tok<'a>> {
        let len = self.text.as_bytes()[self.start..].iter().take_while(|b| is_word(**b)).count();
        self.at = self.start + len.max(1);
        match &self.text[self.start..self.at] {
            "true" => Ok(Tok::True),
            "false" => Ok(Tok::False),
            "null" => Ok(Tok::Null),
            _ => Err(self.invalid_token()),
        }
    }

    fn number(&mut self) -> Result<Tok<'a>> {
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut at = self.start + usize::from(bytes[self.start] == b'-');
        let mut wrong = false;
        match bytes.get(at) {
            Some(b'0') => at += 1,
            Some(b'1'..=b'9') => at += digits(at),
            _ => wrong = true,
        }
        if bytes.get(at) == Some(&b'.') {
            let n = digits(at + 1);
            wrong |= n == 0;
            at += 1 + n;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            let n = digits(at);
            wrong |= n == 0;
            at += n;
        }
        let more = bytes[at..].iter().take_while(|b| is_word(**b)).count();
        self.at = at + more;
        if wrong || more > 0 { Err(self.invalid_token()) } else { Ok(Tok::Number) }
    }

    /// A string; `start` is at its quote.
    fn string(&mut self) -> Result<Cow<'a, str>> {
        let (text, bytes) = (self.text, self.text.as_bytes());
        let begin = self.start + 1;
        let mut at = begin;
        // Up to the first escape nothing is copied.
        let mut decoded: Option<String> = None;
        let mut high: Option<u32> = None;
        loop {
            let run = bytes[at..].iter().take_while(|b| **b >= b' ' && **b != b'"' && **b != b'\\').count();
            if run > 0 {
                if high.is_some() {
                    return Err(self.bad_escape(at, "Unicode low surrogate must follow a high surrogate."));
                }
                if let Some(decoded) = &mut decoded {
                    decoded.push_str(&text[at..at + run]);
                }
                at += run;
            }
            match bytes.get(at) {
                None => {
                    self.at = at;
                    return Err(self.invalid_token());
                }
                Some(b'"') => break,
                Some(b'\\') => {
                    if self.unescape && decoded.is_none() {
                        decoded = Some(text[begin..at].to_owned());
                    }
                    at = self.escape(at, decoded.as_mut(), &mut high)?;
                }
                Some(control) => {
                    self.at = at;
                    return Err(self.error(format!("Character with value 0x{control:02x} must be escaped.")));
                }
            }
        }
        if high.is_some() {
            return Err(self.bad_escape(at, "Unicode low surrogate must follow a high surrogate."));
        }
        self.at = at + 1;
        Ok(match decoded {
            Some(decoded) => Cow::Owned(decoded),
            None => Cow::Borrowed(&text[begin..at]),
        })
    }

    /// One escape, its backslash at `at`; where it ends.
    fn escape(&mut self, at: usize, decoded: Option<&mut String>, high: &mut Option<u32>) -> Result<usize> {
        const LOW_MISSING: &str = "Unicode low surrogate must follow a high surrogate.";
        let bytes = self.text.as_bytes();
        let Some(&letter) = bytes.get(at + 1) else {
            self.at = at + 1;
            return Err(self.invalid_token());
        };
        if letter != b'u' {
            let plain = match letter {
                b'"' | b'\\' | b'/' => char::from(letter),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                _ => {
                    if high.is_some() {
                        return Err(self.bad_escape(at + 1, LOW_MISSING));
                    }
                    self.start = at + 1;
                    self.at = self.char_end(at + 1);
                    let shown = &self.text[self.start..self.at];
                    return Err(self.error(format!("Escape sequence \"\\{shown}\" is invalid.")));
                }
            };
            if high.is_some() {
                return Err(self.bad_escape(at + 1, LOW_MISSING));
            }
            if let Some(decoded) = decoded {
                decoded.push(plain);
            }
            return Ok(at + 2);
        }
        let mut code = 0;
        for i in at + 2..at + 6 {
            match bytes.get(i) {
                None => {
                    self.at = i;
                    return Err(self.invalid_token());
                }
                Some(b) => match char::from(*b).to_digit(16) {
                    Some(digit) => code = code * 16 + digit,
                    None => {
                        return Err(self.bad_escape(i, "\"\\u\" must be followed by four hexadecimal digits."));
                    }
                },
            }
        }
        let last = at + 5;
        let Some(decoded) = decoded else { return Ok(last + 1) };
        match (code, high.take()) {
            (0xd800..=0xdbff, Some(_)) => {
                Err(self.bad_escape(last, "Unicode high surrogate must not follow a high surrogate."))
            }
            (0xd800..=0xdbff, None) => {
                *high = Some(code);
                Ok(last + 1)
            }
            (0xdc00..=0xdfff, Some(high)) => {
                let code = 0x10000 + ((high & 0x3ff) << 10) + (code & 0x3ff);
                decoded.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                Ok(last + 1)
            }
            (0xdc00..=0xdfff, None) | (_, Some(_)) => Err(self.bad_escape(last, LOW_MISSING)),
            (0, None) => {
                self.at = last + 1;
                let error = SqlError::new(state::UNTRANSLATABLE_CHARACTER, "unsupported Unicode escape sequence")
                    .detail("\\u0000 cannot be converted to text.");
                Err(self.with_context(error, false))
            }
            (code, None) => {
                decoded.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                Ok(last + 1)
            }
        }
    }

    fn char_end(&self, at: usize) -> usize {
        let mut end = at + 1;
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        end.min(self.text.len())
    }

    fn bad_escape(&mut self, at: usize, detail: &str) -> SqlError {
        self.at = self.char_end(at);
        self.error(detail)
    }
    fn invalid_token(&self) -> SqlError {
        self.error(format!("Token \"{}\" is invalid.", &self.text[self.start..self.at]))
    }
    fn unexpected(&self, expected: &str, token: &Tok<'_>) -> SqlError {
        if *token == Tok::End {
            return self.at_end("The input string ended unexpectedly.");
        }
        self.error(format!("{expected}, but found \"{}\".", &self.text[self.start..self.at]))
    }
    fn error(&self, detail: impl Into<String>) -> SqlError {
        self.with_context(bad_json().detail(detail), false)
    }
    fn at_end(&self, detail: &str) -> SqlError {
        self.with_context(bad_json().detail(detail), true)
    }

    /// CONTEXT: the line up to the token, its last 50 bytes if it is long.
    fn with_context(&self, error: SqlError, at_end: bool) -> SqlError {
        let (line, end) = (self.line_start, self.at.max(self.line_start));
        let mut start = line;
        while end - start >= 50 {
            start = self.char_end(start);
        }
        if start - line <= 3 {
            start = line;
        }
        let prefix = if start > line { "..." } else { "" };
        let more = self.text.as_bytes().get(end).is_some_and(|b| !matches!(b, b'\n' | b'\r'));
        let suffix = if more && !at_end { "..." } else { "" };
        error.context(|| format!("JSON data, line {}: {prefix}{}{suffix}", self.line, &self.text[start..end]))
    }
}

fn bad_json() -> SqlError {
    SqlError::new(state::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// Whether a text is JSON: the input function of json.
///
/// # Errors
/// See [`Reader::next_event`].
pub fn check(text: &str) -> Result<()> {
    let mut reader = Reader::new(text, false);
    while reader.next_event()?.is_some() {}
    Ok(())
}

/// Reads a text into a document.
pub(super) fn to_jsonb(text: &str) -> Result<Jsonb> {
    let mut made = Builder::default();
    add_to(text, &mut made)?;
    Ok(made.finish())
}

/// Adds the value of a text to a document under construction.
///
/// # Errors
/// As [`Jsonb::parse`].
pub fn add_to(text: &str, made: &mut Builder) -> Result<()> {
    let mut reader = Reader::new(text, true);
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Null => made.null(),
            Event::Bool(b) => made.bool(b),
            Event::Number(n) if is_canonical(n) => made.digits(n),
            Event::Number(n) => match Numeric::parse(n) {
                Ok(number) => made.number(&number)?,
                Err(error) => {
                    // PostgreSQL has read the next token by then, and tells first what is wrong with that.
                    reader.token()?;
                    return Err(error);
                }
            },
            Event::String(s) => made.string(&s)?,
            Event::Name(s) => made.name(&s)?,
            Event::BeginArray => made.begin_array()?,
            Event::BeginObject => made.begin_object()?,
            Event::EndArray | Event::EndObject => made.end()?,
        }
    }
    Ok(())
}

/// Whether numeric prints a number as it is written: most are.
fn is_canonical(n: &str) -> bool {
    const SHORT: usize = 100;
    // There is no negative zero.
    let signed = n.starts_with('-') && !n.bytes().any(|b| matches!(b, b'1'..=b'9'));
    n.len() <= SHORT && !signed && !n.bytes().any(|b| b | 32 == b'e')
}

/// What the outermost value of a JSON text is, by `json_typeof`.
pub fn kind(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// A value found in a JSON text.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// As it stands there.
    pub raw: &'a str,
    /// Its characters if it is a string; None for null.
    pub text: Option<Cow<'a, str>>,
}

impl<'a> Found<'a> {
    fn new(raw: &'a str, first: Event<'a>) -> Found<'a> {
        let text = match first {
            Event::Null => None,
            Event::String(s) => Some(s),
            _ => Some(Cow::Borrowed(raw)),
        };
        Found { raw, text }
    }
}

/// The elements of a JSON array, or the members of an object, in their order: of an object each with its name.
pub struct Parts<'a> {
    reader: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// The parts of a text that is an array or an object; of a scalar there are none.
    ///
    /// # Errors
    /// Those of escapes that cannot be decoded.
    pub fn new(text: &'a str) -> Result<Parts<'a>> {
        let mut reader = Reader::new(text, true);
        reader.next_event()?;
        Ok(Parts { reader })
    }
    /// The next one.
    ///
    /// # Errors
    /// Those of escapes that cannot be decoded.
    #[allow(clippy::should_implement_trait)] // it fails where an iterator cannot
    pub fn next(&mut self) -> Result<Option<(Option<Cow<'a, str>>, Found<'a>)>> {
        let text = self.reader.text;
        let mut name = None;
        loop {
            let Some(event) = self.reader.next_event()? else { return Ok(None) };
            let start = self.reader.span().start;
            match event {
                Event::Name(n) => {
                    name = Some(n);
                    continue;
                }
                Event::EndArray | Event::EndObject => continue,
                first => {
                    if matches!(first, Event::BeginArray | Event::BeginObject) {
                        let depth = self.reader.depth();
                        while self.reader.depth() >= depth && self.reader.next_event()?.is_some() {}
                    }
                    let raw = &text[start..self.reader.span().end];
                    return Ok(Some((name, Found::new(raw, first))));
                }
            }
        }
    }
    /// Reads on to the end, for what may be wrong there.
    ///
    /// # Errors
    /// Those of escapes that cannot be decoded.
    pub fn finish(mut self) -> Result<()> {
        while self.reader.next_event()?.is_some() {}
        Ok(())
    }
}

/// The whole value of a text.
///
/// # Errors
/// Those of escapes that cannot be decoded.
pub fn whole(text: &str) -> Result<Found<'_>> {
    let trimmed = text.trim_matches([' ', '\t', '\n', '\r']);
    let mut reader = Reader::new(trimmed, true);
    let first = reader.next_event()?.unwrap_or(Event::Null);
    while reader.next_event()?.is_some() {}
    Ok(Found::new(trimmed, first))
}
