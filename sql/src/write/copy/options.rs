//! The options of COPY.

use crate::error::{Result, SqlError, state};
use crate::parse::ast::DefValue;

/// Forms of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Text,
    Csv,
    Binary,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Data.
    No,
    /// Names, not looked at when reading.
    Yes,
    /// Names that must be those of the columns.
    Match,
}

/// Columns an option is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// All of them.
    pub all: bool,
    /// These.
    pub names: Vec<String>,
}

/// Checked options.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Form.
    pub format: Format,
    /// Between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// First line.
    pub header: Header,
    /// CSV's quote.
    pub quote: u8,
    /// What escapes a quote inside quotes.
    pub escape: u8,
    /// Columns always quoted when written.
    pub force_quote: Columns,
    /// Columns whose NULL string is an empty string when read.
    pub force_not_null: Columns,
    /// Columns whose NULL string is NULL even when quoted.
    pub force_null: Columns,
}

fn syntax(message: impl Into<String>) -> SqlError {
    SqlError::new(state::SYNTAX_ERROR, message)
}
fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message)
}
fn unsupported(message: impl Into<String>) -> SqlError {
    SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
}

impl CopyOptions {
    /// Checks options as written; `from` is COPY FROM.
    pub fn new(options: &[(String, DefValue)], from: bool) -> Result<CopyOptions> {
        for (i, (name, _)) in options.iter().enumerate() {
            if options[..i].iter().any(|(n, _)| n == name) {
                return Err(syntax("conflicting or redundant options"));
            }
        }
        let find = |name: &str| options.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let text = |name: &str| {
            find(name)
                .map(|v| v.text().map(str::to_owned).ok_or_else(|| syntax(format!("{name} requires a parameter"))))
        };
        let format = match text("format").transpose()?.as_deref() {
            None | Some("text") => Format::Text,
            Some("csv") => Format::Csv,
            Some("binary") => Format::Binary,
            Some(other) => return Err(invalid(format!("COPY format \"{other}\" not recognized"))),
        };
        let csv = format == Format::Csv;
        let columns = |name: &str| match find(name) {
            None => Ok(Columns::default()),
            Some(DefValue::Star) if name == "force_quote" => Ok(Columns { all: true, names: Vec::new() }),
            Some(DefValue::List(names)) => Ok(Columns { all: false, names: names.clone() }),
            Some(_) => Err(invalid(format!("argument to option \"{name}\" must be a list of column names"))),
        };
        let header = match find("header") {
            None => Header::No,
            Some(value) if value.text().is_some_and(|t| t.eq_ignore_ascii_case("match")) => {
                if !from {
                    return Err(unsupported("cannot use \"match\" with HEADER in COPY TO"));
                }
                Header::Match
            }
            Some(value) => match value.boolean() {
                Some(true) => Header::Yes,
                Some(false) => Header::No,
                None => return Err(syntax("header requires a Boolean value or \"match\"")),
            },
        };
        for (name, value) in options {
            match name.as_str() {
                "format" | "delimiter" | "null" | "header" | "quote" | "escape" | "force_quote" | "force_not_null"
                | "force_null" => {}
                "freeze" => {
                    value.boolean().ok_or_else(|| syntax("freeze requires a Boolean value"))?;
                }
                "encoding" => {
                    let encoding = value.text().unwrap_or_default();
                    let known = encoding.to_ascii_lowercase().replace(['-', '_'], "");
                    if !matches!(known.as_str(), "utf8" | "unicode") {
                        return Err(SqlError::unsupported(format!("COPY in encoding \"{encoding}\"")));
                    }
                }
                other => return Err(syntax(format!("option \"{other}\" not recognized"))),
            }
        }
        if format == Format::Binary {
            for name in ["delimiter", "null"] {
                if find(name).is_some() {
                    return Err(syntax(format!("cannot specify {} in BINARY mode", name.to_uppercase())));
                }
            }
            if find("header").is_some() {
                return Err(unsupported("cannot specify HEADER in BINARY mode"));
            }
        }
        let checked = CopyOptions {
            format,
            delimiter: one_byte(text("delimiter").transpose()?, if csv { b',' } else { b'\t' }, "delimiter")?,
            null: text("null").transpose()?.unwrap_or_else(|| if csv { String::new() } else { "\\N".into() }),
            header,
            quote: one_byte(text("quote").transpose()?, b'"', "quote")?,
            escape: 0,
            force_quote: columns("force_quote")?,
            force_not_null: columns("force_not_null")?,
            force_null: columns("force_null")?,
        };
        let escape = one_byte(text("escape").transpose()?, checked.quote, "escape")?;
        let checked = CopyOptions { escape, ..checked };
        checked.check_csv(&find, csv, from)?;
        checked.check_bytes(csv)?;
        Ok(checked)
    }

    fn check_csv<'v>(&self, find: &dyn Fn(&str) -> Option<&'v DefValue>, csv: bool, from: bool) -> Result<()> {
        for (name, words) in [
            ("quote", "quote"),
            ("escape", "escape"),
            ("force_quote", "force quote"),
            ("force_not_null", "force not null"),
            ("force_null", "force null"),
        ] {
            if find(name).is_some() && !csv {
                return Err(unsupported(format!("COPY {words} available only in CSV mode")));
            }
        }
        if from && find("force_quote").is_some() {
            return Err(unsupported("COPY force quote only available using COPY TO"));
        }
        for (name, words) in [("force_not_null", "force not null"), ("force_null", "force null")] {
            if !from && find(name).is_some() {
                return Err(unsupported(format!("COPY {words} only available using COPY FROM")));
            }
        }
        Ok(())
    }

    fn check_bytes(&self, csv: bool) -> Result<()> {
        if matches!(self.delimiter, b'\r' | b'\n') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(['\r', '\n']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        if !csv && b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&self.delimiter) {
            return Err(invalid(format!("COPY delimiter cannot be \"{}\"", self.delimiter as char)));
        }
        if csv && self.delimiter == self.quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if self.format != Format::Binary && self.null.as_bytes().contains(&self.delimiter) {
            return Err(unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if csv && self.null.as_bytes().contains(&self.quote) {
            return Err(unsupported("CSV quote character must not appear in the NULL specification"));
        }
        Ok(())
    }
}

fn one_byte(value: Option<String>, default: u8, what: &str) -> Result<u8> {
    match value.as_ref().map(String::as_bytes) {
        None => Ok(default),
        Some([byte]) => Ok(*byte),
        Some(_) => Err(unsupported(format!("COPY {what} must be a single one-byte character"))),
    }
}

impl Columns {
    /// For each column by name whether the option is for it.
    pub fn select(&self, columns: &[String], option: &str) -> Result<Vec<bool>> {
        if let Some(stray) = self.names.iter().find(|n| !columns.contains(n)) {
            let message = format!("{option} column \"{stray}\" not referenced by COPY");
            return Err(SqlError::new(state::INVALID_COLUMN_REFERENCE, message));
        }
        Ok(columns.iter().map(|c| self.all || self.names.contains(c)).collect())
    }
}
