//! PostgreSQL's advanced regular expressions, rewritten for the `regex` crate and compiled once.
//!
//! What carries over: all of the syntax but back references and look-around, which are 0A000. The crate answers every yes-or-no question and where
//! a match begins. How far it goes and what its groups hold is PostgreSQL's too: where the order of alternatives, which the crate goes by, could
//! make a difference, [`super::regex_extent`] finds out.
//!
//! Compiled patterns are kept by thread, the last used first, at most [`CACHED_MAX`].

use std::cell::RefCell;
use std::rc::Rc;

use regex::Regex;

use super::regex_extent::{Extents, Groups};

use crate::error::{Result, SqlError, state};

/// Compiled patterns a thread keeps, as PostgreSQL's MAX_CACHED_RES.
const CACHED_MAX: usize = 32;
/// Greatest number in `{m,n}`.
const REPEAT_MAX: u32 = 255;

/// What the option letters of the regexp functions, or of `(?...)` in front, ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `i`: case does not matter.
    pub ignore_case: bool,
    /// `.` and negated brackets do not match a newline (`n`, `m`, `p`).
    pub newline_stops: bool,
    /// `^` and `$` match at newlines (`n`, `m`, `w`).
    pub newline_anchors: bool,
    /// `x`: white space and comments are ignored.
    pub expanded: bool,
    /// `q`: the pattern is a plain string.
    pub literal: bool,
    /// `g`, which only some functions know.
    pub global: bool,
}

impl Flags {
    /// From option letters; 22023 for an unknown one.
    pub fn parse(letters: &str) -> Result<Flags> {
        let mut flags = Flags::default();
        for c in letters.chars() {
            if c == 'g' {
                flags.global = true;
            } else if c == 'b' {
                return Err(SqlError::unsupported("a basic regular expression"));
            } else if !flags.set(c) {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{c}\""),
                ));
            }
        }
        Ok(flags)
    }
    fn set(&mut self, letter: char) -> bool {
        match letter {
            // Extended expressions are advanced ones but for escapes.
            'e' => {}
            'c' => self.ignore_case = false,
            'i' => self.ignore_case = true,
            'm' | 'n' => (self.newline_stops, self.newline_anchors) = (true, true),
            'p' => (self.newline_stops, self.newline_anchors) = (true, false),
            's' => (self.newline_stops, self.newline_anchors) = (false, false),
            'w' => (self.newline_stops, self.newline_anchors) = (false, true),
            'q' => self.literal = true,
            't' => self.expanded = false,
            'x' => self.expanded = true,
            _ => return false,
        }
        true
    }
}

/// A compiled pattern.
pub struct Pattern {
    regex: Regex,
    /// Where the crate's matches may be others than PostgreSQL's.
    extents: Option<Extents>,
}

/// A match.
pub struct Found<'t> {
    text: &'t str,
    groups: Groups,
}

impl Pattern {
    /// Whether it matches anywhere.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
    /// The first match that begins at a place or behind it.
    pub fn find_at<'t>(&self, text: &'t str, at: usize) -> Result<Option<Found<'t>>> {
        let groups = match &self.extents {
            None => self.regex.captures_at(text, at).map(|c| c.iter().map(|g| g.map(|g| g.range())).collect()),
            Some(extents) => match self.regex.find_at(text, at) {
                Some(found) => Some(extents.from(text, found.start())?),
                None => None,
            },
        };
        Ok(groups.map(|groups| Found { text, groups }))
    }
}

impl<'t> Found<'t> {
    /// How many groups there are, the whole match counted.
    #[allow(clippy::len_without_is_empty)] // the whole match is always there
    pub fn len(&self) -> usize {
        self.groups.len()
    }
    /// Where the whole match is.
    pub fn whole(&self) -> std::ops::Range<usize> {
        self.range(0).unwrap_or_default()
    }
    /// Where a group is, if it took part.
    pub fn range(&self, group: usize) -> Option<std::ops::Range<usize>> {
        self.groups.get(group).cloned().flatten()
    }
    /// What a group holds, if it took part.
    pub fn text(&self, group: usize) -> Option<&'t str> {
        self.range(group).map(|r| &self.text[r])
    }
}

type Cache = RefCell<Vec<(String, Flags, Rc<Pattern>)>>;

/// The compiled form of a pattern.
///
/// # Errors
///
/// 2201B with PostgreSQL's words for what is wrong with it; 0A000 for back references and look-around.
pub fn compile(pattern: &str, flags: Flags) -> Result<Rc<Pattern>> {
    thread_local!(static CACHE: Cache = const { RefCell::new(Vec::new()) });
    CACHE.with_borrow_mut(|cache| {
        if let Some(i) = cache.iter().position(|(p, f, _)| p == pattern && *f == flags) {
            cache[..=i].rotate_right(1);
            return Ok(cache[0].2.clone());
        }
        let regex = Rc::new(build(pattern, flags)?);
        cache.truncate(CACHED_MAX - 1);
        cache.insert(0, (pattern.to_owned(), flags, regex.clone()));
        Ok(regex)
    })
}

/// Largest compiled form of a pattern that repeats a group by count. In the worst case every state is looked at for every byte of a text, and no
/// cancel is seen meanwhile; counts inside counts multiply to tens of thousands of states in a few characters.
const COUNTED_BYTES_MAX: usize = 1 << 20;

/// Largest compiled form of any other: a class of Unicode is some 20 KiB, repeated 255 times at most.
const COMPILED_BYTES_MAX: usize = 10 << 20;

fn invalid(what: &str) -> SqlError {
    SqlError::new(state::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {what}"))
}

fn build(pattern: &str, mut flags: Flags) -> Result<Pattern> {
    let mut rest = pattern;
    if let Some(literal) = rest.strip_prefix("***=") {
        flags.literal = true;
        rest = literal;
    } else if let Some(advanced) = rest.strip_prefix("***:") {
        rest = advanced;
    } else if rest.starts_with("***") {
        return Err(invalid("quantifier operand invalid"));
    }
    if !flags.literal
        && let Some((letters, after)) = rest.strip_prefix("(?").and_then(|r| r.split_once(')'))
        && !letters.is_empty()
        && letters.bytes().all(|b| b.is_ascii_alphabetic())
    {
        if !letters.chars().all(|c| flags.set(c)) {
            return Err(invalid("invalid embedded option"));
        }
        rest = after;
    }
    let translated = if flags.literal { regex::escape(rest) } else { Translator::new(rest, flags).run()? };
    let built = regex::RegexBuilder::new(&translated)
        .case_insensitive(flags.ignore_case)
        .size_limit(if rest.contains("){") { COUNTED_BYTES_MAX } else { COMPILED_BYTES_MAX })
        .build();
    let regex = built.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => invalid("regular expression is too complex"),
        _ => invalid("invalid regexp (reg version 0.8)"),
    })?;
    Ok(Pattern { regex, extents: Extents::new(&translated, flags.ignore_case)? })
}

struct Translator<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    flags: Flags,
    out: String,
    /// Groups that are open.
    groups: usize,
    /// Whether a quantifier may come next.
    atom: bool,
}

// A member of a bracket expression.
enum Member {
    Char(char),
    Class(&'static str),
}

const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}_";

impl<'a> Translator<'a> {
    fn new(pattern: &'a str, flags: Flags) -> Self {
        Translator {
            chars: pattern.chars().peekable(),
            flags,
            out: String::with_capacity(pattern.len() + 16),
            groups: 0,
            atom: false,
        }
    }
    fn run(mut self) -> Result<String> {
        while let Some(c) = self.chars.next() {
            match c {
                _ if self.flags.expanded && c.is_ascii_whitespace() => {}
                '#' if self.flags.expanded => while self.chars.next().is_some_and(|c| c != '\n') {},
                '\\' => self.escape()?,
                '(' => self.open()?,
                ')' => {
                    self.groups = self.groups.checked_sub(1).ok_or_else(|| invalid("parentheses () not balanced"))?;
                    self.out.push(')');
                    self.atom = true;
                }
                '|' => {
                    self.out.push('|');
                    self.atom = false;
                }
                '*' | '+' | '?' => self.quantifier(&c.to_string())?,
                '{' if self.chars.peek().is_some_and(char::is_ascii_digit) => {
                    let bounds = self.bounds()?;
                    self.quantifier(&bounds)?;
                }
                '^' | '$' => {
                    let anchor = if self.flags.newline_anchors { format!("(?m:{c})") } else { c.to_string() };
                    self.out.push_str(&anchor);
                    self.atom = false;
                }
                '.' => self.push(if self.flags.newline_stops { "[^\\n]" } else { "(?s:.)" }),
                '[' => self.bracket()?,
                c => self.push_char(c),
            }
        }
        if self.groups > 0 {
            return Err(invalid("parentheses () not balanced"));
        }
        Ok(self.out)
    }
    fn push(&mut self, atom: &str) {
        self.out.push_str(atom);
        self.atom = true;
    }
    fn push_char(&mut self, c: char) {
        let literal = regex::escape(c.encode_utf8(&mut [0; 4]));
        self.push(&literal);
    }
    fn open(&mut self) -> Result<()> {
        let mut spelled = "(";
        if self.chars.peek() == Some(&'?') {
            self.chars.next();
            match self.chars.next() {
                Some(':') => spelled = "(?:",
                Some('=' | '!' | '<') => return Err(SqlError::unsupported("look-around in a regular expression")),
                Some('#') => {
                    for c in self.chars.by_ref() {
                        if c == ')' {
                            return Ok(());
                        }
                    }
                    return Err(invalid("parentheses () not balanced"));
                }
                _ => return Err(invalid("quantifier operand invalid")),
            }
        }
        self.groups += 1;
        self.out.push_str(spelled);
        self.atom = false;
        Ok(())
    }
    // `{m}`, `{m,}` or `{m,n}`; the brace is read already.
    fn bounds(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('}') => break,
                Some(c) if c.is_ascii_digit() || c == ',' => text.push(c),
                Some(_) => return Err(invalid("invalid repetition count(s)")),
                None => return Err(invalid("braces {} not balanced")),
            }
        }
        let number = |s: &str| s.parse::<u32>().ok().filter(|n| *n <= REPEAT_MAX);
        let valid = match text.split_once(',') {
            None => number(&text).is_some(),
            Some((low, "")) => number(low).is_some(),
            Some((low, high)) => matches!((number(low), number(high)), (Some(l), Some(h)) if l <= h),
        };
        if valid { Ok(format!("{{{text}}}")) } else { Err(invalid("invalid repetition count(s)")) }
    }
    fn quantifier(&mut self, spelled: &str) -> Result<()> {
        if !std::mem::take(&mut self.atom) {
            return Err(invalid("quantifier operand invalid"));
        }
        self.out.push_str(spelled);
        if self.chars.peek() == Some(&'?') {
            self.chars.next();
            self.out.push('?');
        }
        Ok(())
    }
    // A backslash outside brackets; it is read already.
    fn escape(&mut self) -> Result<()> {
        let bad = || invalid("invalid escape \\ sequence");
        let c = self.chars.next().ok_or_else(bad)?;
        match c {
            'A' => self.anchor("\\A"),
            'Z' => self.anchor("\\z"),
            'm' => self.anchor("\\b{start}"),
            'M' => self.anchor("\\b{end}"),
            'y' => self.anchor("\\b"),
            'Y' => self.anchor("\\B"),
            'd' => self.push("[0-9]"),
            'D' => self.push(if self.flags.newline_stops { "[^0-9\\n]" } else { "[^0-9]" }),
            's' => self.push("\\s"),
            'S' => self.push("\\S"),
            'w' => self.push(&format!("[{WORD}]")),
            'W' => self.push(&format!("[^{WORD}{}]", if self.flags.newline_stops { "\\n" } else { "" })),
            '1'..='9' => {
                // One digit, or several if that many groups could be meant: either way a back reference.
                return Err(SqlError::unsupported("back reference in a regular expression"));
            }
            c => {
                let literal = self.char_escape(c)?;
                self.push_char(literal);
            }
        }
        Ok(())
    }
    fn anchor(&mut self, spelled: &str) {
        self.out.push_str(spelled);
        self.atom = false;
    }
    // The character that a backslash and this letter mean.
    fn char_escape(&mut self, c: char) -> Result<char> {
        let bad = || invalid("invalid escape \\ sequence");
        let hex = |this: &mut Self, min: usize, max: usize| -> Result<char> {
            let mut digits = String::new();
            while digits.len() < max
                && let Some(d) = this.chars.peek().filter(|d| d.is_ascii_hexdigit())
            {
                digits.push(*d);
                this.chars.next();
            }
            if digits.len() < min {
                return Err(bad());
            }
            u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or_else(bad)
        };
        Ok(match c {
            'a' => '\x07',
            'b' => '\x08',
            'B' => '\\',
            'c' => char::from(self.chars.next().ok_or_else(bad)? as u8 & 0x1f),
            'e' => '\x1b',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'u' => hex(self, 4, 4)?,
            'U' => hex(self, 8, 8)?,
            'x' => hex(self, 1, 255)?,
            '0' => {
                let mut n = 0;
                for _ in 0..2 {
                    let Some(d) = self.chars.peek().and_then(|d| d.to_digit(8)) else { break };
                    n = n * 8 + d;
                    self.chars.next();
                }
                char::from_u32(n).ok_or_else(bad)?
            }
            c if c.is_ascii_alphanumeric() => return Err(bad()),
            c => c,
        })
    }
    // A bracket expression; its `[` is read already.
    fn bracket(&mut self) -> Result<()> {
        let unbalanced = || invalid("brackets [] not balanced");
        let ahead: String = self.chars.clone().take(6).collect();
        if let Some(anchor) = [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")].iter().find(|w| w.0 == ahead) {
            self.chars.nth(5);
            self.anchor(anchor.1);
            return Ok(());
        }
        let negated = self.chars.peek() == Some(&'^');
        if negated {
            self.chars.next();
        }
        let mut class = String::new();
        let mut first = true;
        loop {
            let c = self.chars.next().ok_or_else(unbalanced)?;
            if c == ']' && !first {
                break;
            }
            first = false;
            let member = self.member(c)?;
            let ranged = self.chars.peek() == Some(&'-') && !matches!(self.chars.clone().nth(1), Some(']') | None);
            match member {
                Member::Char(from) if ranged => {
                    self.chars.next();
                    let c = self.chars.next().ok_or_else(unbalanced)?;
                    let Member::Char(to) = self.member(c)? else { return Err(invalid("invalid character range")) };
                    if from > to {
                        return Err(invalid("invalid character range"));
                    }
                    class.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", from as u32, to as u32));
                    // `a-c-e` means nothing.
                    if self.chars.peek() == Some(&'-') && self.chars.clone().nth(1) != Some(']') {
                        return Err(invalid("invalid character range"));
                    }
                }
                Member::Char(c) => class.push_str(&format!("\\x{{{:x}}}", c as u32)),
                Member::Class(_) if ranged => return Err(invalid("invalid character range")),
                Member::Class(set) => class.push_str(set),
            }
        }
        let newline = if negated && self.flags.newline_stops { "\\n" } else { "" };
        let spelled = format!("[{}{class}{newline}]", if negated { "^" } else { "" });
        self.push(&spelled);
        Ok(())
    }
    fn member(&mut self, c: char) -> Result<Member> {
        if c == '\\' {
            let c = self.chars.next().ok_or_else(|| invalid("invalid escape \\ sequence"))?;
            return Ok(match c {
                'd' => Member::Class("0-9"),
                's' => Member::Class("\\s"),
                'w' => Member::Class(WORD),
                'D' => Member::Class("[^0-9]"),
                'S' => Member::Class("\\S"),
                'W' => Member::Class(r"[^\p{Alphabetic}\p{M}\p{Nd}_]"),
                c => Member::Char(self.char_escape(c)?),
            });
        }
        let kind = match self.chars.peek() {
            Some(k @ (':' | '.' | '=')) if c == '[' => *k,
            _ => return Ok(Member::Char(c)),
        };
        self.chars.next();
        let mut name = String::new();
        loop {
            match self.chars.next() {
                Some(c) if c == kind && self.chars.peek() == Some(&']') => break,
                Some(c) => name.push(c),
                None => return Err(invalid("brackets [] not balanced")),
            }
        }
        self.chars.next();
        if kind != ':' {
            let mut chars = name.chars();
            return match (chars.next(), chars.next()) {
                (Some(c), None) => Ok(Member::Char(c)),
                _ => Err(invalid("invalid collating element")),
            };
        }
        Ok(Member::Class(match name.as_str() {
            "alpha" => r"\p{Alphabetic}",
            "upper" if !self.flags.ignore_case => r"\p{Uppercase}",
            "lower" if !self.flags.ignore_case => r"\p{Lowercase}",
            "upper" | "lower" => r"\p{Alphabetic}",
            "digit" => "0-9",
            "alnum" => r"\p{Alphabetic}\p{Nd}",
            "word" => WORD,
            "space" => r"\s",
            "blank" => r" \t",
            "punct" => r"\p{P}\p{S}",
            "xdigit" => "0-9A-Fa-f",
            "cntrl" => r"\p{Cc}",
            "graph" => r"[^\s\p{C}]",
            "print" => r" [^\s\p{C}]",
            "ascii" => r"\x00-\x7f",
            _ => return Err(invalid("invalid character class")),
        }))
    }
}
