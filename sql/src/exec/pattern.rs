//! LIKE patterns that are known when a statement is planned.
//!
//! Only patterns of literal pieces between `%` are taken; `_` and escapes that leave a special character in doubt are left to the function.

/// A pattern: pieces in order, `%` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Literal pieces without empty ones.
    pieces: Vec<Box<str>>,
    /// The text must begin with the first piece.
    anchored_start: bool,
    /// The text must end with the last piece.
    anchored_end: bool,
}

impl Pattern {
    /// Parses a LIKE pattern with the default escape; None if it holds `_` or ends in the middle of an escape.
    pub fn parse(pattern: &str) -> Option<Pattern> {
        let (mut pieces, mut piece) = (Vec::new(), String::new());
        let mut chars = pattern.chars();
        let (mut anchored_start, mut anchored_end, mut first) = (true, true, true);
        while let Some(c) = chars.next() {
            anchored_end = true;
            match c {
                '\\' => piece.push(chars.next()?),
                '_' => return None,
                '%' => {
                    anchored_start &= !first;
                    anchored_end = false;
                    if !piece.is_empty() {
                        pieces.push(std::mem::take(&mut piece).into_boxed_str());
                    }
                }
                c => piece.push(c),
            }
            first = false;
        }
        if !piece.is_empty() {
            pieces.push(piece.into_boxed_str());
        }
        Some(Pattern { pieces, anchored_start, anchored_end })
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        let mut pieces = &self.pieces[..];
        let mut rest = text;
        if self.anchored_start && self.anchored_end && pieces.len() <= 1 {
            return pieces.first().map_or("", |p| p) == text;
        }
        if self.anchored_start {
            let Some((first, others)) = pieces.split_first() else { return true };
            let Some(after) = rest.strip_prefix(&**first) else { return false };
            (rest, pieces) = (after, others);
        }
        if self.anchored_end {
            let Some((last, others)) = pieces.split_last() else { return true };
            let Some(before) = rest.strip_suffix(&**last) else { return false };
            (rest, pieces) = (before, others);
        }
        for piece in pieces {
            let Some(at) = rest.find(&**piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        true
    }

    /// The text every match begins with, if any, and whether it must be all of it.
    pub fn prefix(&self) -> Option<(&str, bool)> {
        if !self.anchored_start {
            return None;
        }
        let first = self.pieces.first()?;
        Some((first, self.anchored_end && self.pieces.len() == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn pieces_match_in_order() {
        let like = |p: &str, t: &str| Pattern::parse(p).map(|p| p.matches(t));
        assert_eq!(like("a%", "abc"), Some(true));
        assert_eq!(like("a%", "bac"), Some(false));
        assert_eq!(like("%c", "abc"), Some(true));
        assert_eq!(like("%b%", "abc"), Some(true));
        assert_eq!(like("a%b%c", "aXbYc"), Some(true));
        assert_eq!(like("a%b%c", "ac"), Some(false));
        assert_eq!(like("aa%a", "aa"), Some(false));
        assert_eq!(like("abc", "abc"), Some(true));
        assert_eq!(like("abc", "abcd"), Some(false));
        assert_eq!(like("", ""), Some(true));
        assert_eq!(like("", "a"), Some(false));
        assert_eq!(like("%", ""), Some(true));
        assert_eq!(like("100\\%", "100%"), Some(true));
        assert_eq!(like("a_", "ab"), None);
        assert_eq!(like("a\\", "a"), None);
        assert_eq!(
            Pattern::parse("ab%c").and_then(|p| p.prefix().map(|(s, all)| (s.to_owned(), all))),
            Some(("ab".into(), false))
        );
    }
}
