//! Looking into a jsonb: one level at a time ([`View`]), or all of it in order ([`Tokens`]).
//!
//! Nothing here allocates but the walk's list of open containers. The bytes were checked when they became a [`super::Jsonb`]; where they
//! could still not be read, they read as null, never as a panic.

use super::{ARRAY, DEPTH_MAX, FALSE, NULL, NUMBER, OBJECT, STRING, TRUE, quote, take_varint};

/// One value inside a document, or all of it.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a>(&'a [u8]);

/// A value's outermost level.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // JSON's kinds
pub enum View<'a> {
    Null,
    Bool(bool),
    /// As numeric prints it.
    Number(&'a str),
    String(&'a str),
    Array(Elements<'a>),
    Object(Members<'a>),
}

/// The elements of an array, in order.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    count: usize,
    rest: &'a [u8],
}

/// The members of an object, names rising by length, then by bytes.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    count: usize,
    rest: &'a [u8],
}

static NOTHING: [u8; 1] = [NULL];

impl<'a> Item<'a> {
    /// A value that is all of these bytes.
    pub(super) fn whole(bytes: &'a [u8]) -> Item<'a> {
        Item(bytes)
    }
    /// Its bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
    /// Its outermost level.
    pub fn view(self) -> View<'a> {
        view(self.0).unwrap_or(View::Null)
    }
    /// Whether it is an array or an object.
    pub fn is_container(self) -> bool {
        matches!(self.0.first(), Some(&ARRAY | &OBJECT))
    }
    /// All of it, in order.
    pub fn tokens(self) -> Tokens<'a> {
        Tokens { rest: self.0, open: Vec::new() }
    }
    /// The member of this name, if it is an object that has one.
    pub fn member(self, name: &str) -> Option<Item<'a>> {
        match self.view() {
            View::Object(members) => members.get(name),
            _ => None,
        }
    }
    /// `jsonb_typeof`.
    pub fn kind(self) -> &'static str {
        match self.view() {
            View::Null => "null",
            View::Bool(_) => "boolean",
            View::Number(_) => "number",
            View::String(_) => "string",
            View::Array(_) => "array",
            View::Object(_) => "object",
        }
    }
    /// How deep its containers are nested: 0 for a scalar.
    pub fn depth(self) -> usize {
        let mut tokens = self.tokens();
        let mut deepest = 0;
        while tokens.next().is_some() {
            deepest = deepest.max(tokens.open.len());
        }
        deepest
    }

    /// The output function: PostgreSQL's spacing, `{"a": 1, "b": [1, 2]}`.
    pub fn write(self, out: &mut String) {
        let mut first = true;
        let mut after_name = false;
        for token in self.tokens() {
            let closes = matches!(token, Token::EndArray | Token::EndObject);
            if !(first || closes || after_name) {
                out.push_str(", ");
            }
            (first, after_name) = (false, false);
            match token {
                Token::Null => out.push_str("null"),
                Token::Bool(b) => out.push_str(if b { "true" } else { "false" }),
                Token::Number(n) => out.push_str(n),
                Token::String(s) => quote(s, out),
                Token::Name(s) => {
                    quote(s, out);
                    out.push_str(": ");
                    after_name = true;
                }
                Token::Array(_) => {
                    out.push('[');
                    first = true;
                }
                Token::Object(_) => {
                    out.push('{');
                    first = true;
                }
                Token::EndArray => out.push(']'),
                Token::EndObject => out.push('}'),
            }
        }
    }
    /// `jsonb_pretty`: a member or element a line, four blanks a level.
    pub fn write_pretty(self, out: &mut String) {
        let mut level = 0;
        let (mut first, mut after_name) = (true, false);
        let line = |out: &mut String, level: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', 4 * level));
        };
        for token in self.tokens() {
            if matches!(token, Token::EndArray | Token::EndObject) {
                level -= 1;
                line(out, level);
                out.push(if matches!(token, Token::EndArray) { ']' } else { '}' });
                first = false;
                continue;
            }
            if !first {
                out.push(',');
            }
            if level > 0 && !after_name {
                line(out, level);
            }
            (first, after_name) = (false, false);
            match token {
                Token::Null => out.push_str("null"),
                Token::Bool(b) => out.push_str(if b { "true" } else { "false" }),
                Token::Number(n) => out.push_str(n),
                Token::String(s) => quote(s, out),
                Token::Name(s) => {
                    quote(s, out);
                    out.push_str(": ");
                    (first, after_name) = (true, true);
                }
                Token::Array(_) | Token::Object(_) => {
                    out.push(if matches!(token, Token::Array(_)) { '[' } else { '{' });
                    level += 1;
                    first = true;
                }
                Token::EndArray | Token::EndObject => {}
            }
        }
    }
}

fn view(bytes: &[u8]) -> Option<View<'_>> {
    let (tag, mut rest) = bytes.split_first()?;
    Some(match *tag {
        NULL => View::Null,
        FALSE => View::Bool(false),
        TRUE => View::Bool(true),
        NUMBER => View::Number(take_text(&mut rest)?),
        STRING => View::String(take_text(&mut rest)?),
        ARRAY => {
            take_varint(&mut rest)?;
            let count = take_varint(&mut rest)?;
            View::Array(Elements { count, rest })
        }
        OBJECT => {
            take_varint(&mut rest)?;
            let count = take_varint(&mut rest)?;
            View::Object(Members { count, rest })
        }
        _ => return None,
    })
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_varint(rest)?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

/// Takes a value off the front, without looking into it.
fn take_item<'a>(rest: &mut &'a [u8]) -> Option<Item<'a>> {
    let (tag, mut tail) = rest.split_first()?;
    let len = match *tag {
        NULL | FALSE | TRUE => 1,
        _ => {
            let body = take_varint(&mut tail)?;
            rest.len() - tail.len() + body
        }
    };
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(Item(head))
}

impl<'a> Elements<'a> {
    /// How many are left.
    pub fn count(&self) -> usize {
        self.count
    }
    /// The element at a place counted from 0, or from the end if negative.
    pub fn at(mut self, index: i64) -> Option<Item<'a>> {
        let index = if index < 0 { index.checked_add(i64::try_from(self.count).ok()?)? } else { index };
        self.nth(usize::try_from(index).ok()?)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        self.count = self.count.checked_sub(1)?;
        Some(take_item(&mut self.rest).unwrap_or(Item(&NOTHING)))
    }
}

impl<'a> Members<'a> {
    /// How many are left.
    pub fn count(&self) -> usize {
        self.count
    }
    /// The value of a name.
    pub fn get(self, name: &str) -> Option<Item<'a>> {
        for (key, value) in self {
            match (key.len(), key).cmp(&(name.len(), name)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(value),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let name = take_text(&mut self.rest).unwrap_or_default();
        Some((name, take_item(&mut self.rest).unwrap_or(Item(&NOTHING))))
    }
}

/// A step of a walk through a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // JSON's kinds
pub enum Token<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(&'a str),
    /// A member's name; its value follows.
    Name(&'a str),
    /// An array of so many elements begins.
    Array(usize),
    EndArray,
    /// An object of so many members begins.
    Object(usize),
    EndObject,
}

/// A walk through a value in its own order, containers opened and closed.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a [u8],
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    object: bool,
    left: usize,
    /// Between a name and its value.
    named: bool,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(top) = self.open.last_mut() {
            if top.left == 0 && !top.named {
                let object = top.object;
                self.open.pop();
                return Some(if object { Token::EndObject } else { Token::EndArray });
            }
            if top.object && !top.named {
                top.left -= 1;
                top.named = true;
                return take_text(&mut self.rest).map(Token::Name);
            }
            if top.named {
                top.named = false;
            } else {
                top.left -= 1;
            }
        }
        let (tag, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(match *tag {
            NULL => Token::Null,
            FALSE => Token::Bool(false),
            TRUE => Token::Bool(true),
            NUMBER => Token::Number(take_text(&mut self.rest)?),
            STRING => Token::String(take_text(&mut self.rest)?),
            tag => {
                take_varint(&mut self.rest)?;
                let left = take_varint(&mut self.rest)?;
                let object = tag == OBJECT;
                self.open.push(Open { object, left, named: false });
                if object { Token::Object(left) } else { Token::Array(left) }
            }
        })
    }
}

/// A container whose inside is being checked.
struct Checked<'a> {
    object: bool,
    left: usize,
    /// What of the document follows it.
    after: &'a [u8],
    /// The name before.
    name: Option<&'a str>,
}

/// Whether bytes are one value in the form the module draws, and nothing more.
pub(super) fn is_valid(bytes: &[u8]) -> bool {
    check(bytes).is_some()
}

fn check(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    let mut open: Vec<Checked<'_>> = Vec::new();
    loop {
        // Containers that are full end where they said.
        while let Some(top) = open.last_mut() {
            if top.left > 0 {
                top.left -= 1;
                if top.object {
                    let name = take_plain(&mut rest)?;
                    if top.name.is_some_and(|before| (before.len(), before) >= (name.len(), name)) {
                        return None;
                    }
                    top.name = Some(name);
                }
                break;
            }
            if !rest.is_empty() {
                return None;
            }
            rest = top.after;
            open.pop();
            if open.is_empty() {
                return rest.is_empty().then_some(());
            }
        }
        let (tag, tail) = rest.split_first()?;
        rest = tail;
        match *tag {
            NULL | FALSE | TRUE => {}
            NUMBER => {
                let digits = take_plain(&mut rest)?;
                if !is_number(digits) {
                    return None;
                }
            }
            STRING => {
                take_plain(&mut rest)?;
            }
            ARRAY | OBJECT => {
                if open.len() >= DEPTH_MAX {
                    return None;
                }
                let len = take_varint(&mut rest)?;
                let (inside, after) = rest.split_at_checked(len)?;
                rest = inside;
                let left = take_varint(&mut rest)?;
                open.push(Checked { object: *tag == OBJECT, left, after, name: None });
            }
            _ => return None,
        }
        if open.is_empty() {
            return rest.is_empty().then_some(());
        }
    }
}

fn take_plain<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    take_text(rest).filter(|s| !s.as_bytes().contains(&0))
}

/// `-?digits[.digits]`, as numeric prints what is finite: no zero before other digits, no zero less than zero, and not longer than numeric can be.
fn is_number(text: &str) -> bool {
    const LONGEST: usize = 131_072 + 16_383 + 2;
    let body = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = body.split_once('.').unwrap_or((body, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let is_canonical = whole == "0" || !whole.starts_with('0');
    let is_minus_zero = body.len() < text.len() && body.bytes().all(|b| matches!(b, b'0' | b'.'));
    text.len() <= LONGEST && digits(whole) && digits(fraction) && is_canonical && !is_minus_zero
}
