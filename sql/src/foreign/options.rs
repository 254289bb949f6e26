//! Options of servers, foreign tables and their columns: which there are, and what they say.
//!
//! They are kept as written, as PostgreSQL keeps them; what they say is found out each time, by the same functions that checked them when they were given.

use std::sync::Arc;

use pgbee_engine::CoreKey;

use super::Source;
use super::encoding::Encoding;
use crate::catalog::schema::{FdwOptions, Foreign, Server};
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{GenericOption, OptionChange};
use crate::types::bytea;

/// fdw_dynamic_parameter_value_needed.
const DYNAMIC_PARAMETER_VALUE_NEEDED: &str = "HV002";
/// fdw_invalid_data_type.
pub const INVALID_DATA_TYPE: &str = "HV004";
/// fdw_column_name_not_found.
pub const COLUMN_NAME_NOT_FOUND: &str = "HV005";
/// fdw_invalid_option_name.
const INVALID_OPTION_NAME: &str = "HV00D";
/// fdw_schema_not_found.
pub const SCHEMA_NOT_FOUND: &str = "HV00Q";
/// fdw_table_not_found.
pub const TABLE_NOT_FOUND: &str = "HV00R";
/// fdw_inconsistent_descriptor_information.
pub const INCONSISTENT_DESCRIPTOR: &str = "HV021";

/// What can have options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Place {
    Server,
    Table,
    Column,
    Import,
}

impl Place {
    fn names(self) -> &'static [&'static str] {
        match self {
            Place::Server => &["bee_key", "peer"],
            Place::Table => &[
                "bee_key",
                "peer",
                "key_encoding",
                "value_encoding",
                "sub",
                "sub_hex",
                "on_error",
                "schema_name",
                "table_name",
            ],
            Place::Column => &["column", "member"],
            Place::Import => &["bee_key", "peer", "sample"],
        }
    }
}

/// Options as given, checked one by one.
///
/// # Errors
/// HV00D for a name that is none here, 42710 for one given twice, 22023 for a value that cannot be.
pub fn given(options: &[GenericOption], place: Place) -> Result<FdwOptions> {
    let mut out = FdwOptions::new();
    for option in options {
        add(&mut out, option)?;
    }
    check(&out, place)?;
    Ok(out)
}

/// Options after ALTER ... OPTIONS.
///
/// # Errors
/// Those of [`given`], and 42704 for SET and DROP of one that is not there.
pub fn changed(options: &FdwOptions, changes: &[OptionChange], place: Place) -> Result<FdwOptions> {
    let mut out = options.clone();
    let find = |out: &FdwOptions, name: &str| {
        let missing = || SqlError::new(state::UNDEFINED_OBJECT, format!("option \"{name}\" not found"));
        out.iter().position(|(n, _)| n == name).ok_or_else(missing)
    };
    for change in changes {
        match change {
            OptionChange::Add(option) => add(&mut out, option)?,
            OptionChange::Set(option) => {
                let at = find(&out, &option.name.text)?;
                out[at].1.clone_from(&option.value);
            }
            OptionChange::Drop(name) => {
                let at = find(&out, &name.text)?;
                out.remove(at);
            }
        }
    }
    check(&out, place)?;
    Ok(out)
}

fn add(options: &mut FdwOptions, option: &GenericOption) -> Result<()> {
    let name = &option.name.text;
    if options.iter().any(|(n, _)| n == name) {
        return Err(SqlError::new(state::DUPLICATE_OBJECT, format!("option \"{name}\" provided more than once")));
    }
    options.push((name.clone(), option.value.clone()));
    Ok(())
}

fn check(options: &FdwOptions, place: Place) -> Result<()> {
    for (name, value) in options {
        if !place.names().contains(&name.as_str()) {
            return Err(SqlError::new(INVALID_OPTION_NAME, format!("invalid option \"{name}\""))
                .hint(format!("Valid options in this context are: {}", place.names().join(", "))));
        }
        let sound = match name.as_str() {
            "bee_key" => value.parse::<CoreKey>().is_ok(),
            "peer" => peers_of(value).is_some(),
            "key_encoding" | "value_encoding" => Encoding::by_name(value).is_some(),
            "sub_hex" => bytea::parse_hex(value).is_ok(),
            "on_error" => matches!(value.as_str(), "null" | "error"),
            "column" => matches!(value.as_str(), "key" | "value" | "seq"),
            "sample" => value.parse::<u32>().is_ok_and(|n| n > 0),
            _ => true,
        };
        if !sound {
            let error = SqlError::new(
                state::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"{name}\": \"{value}\""),
            );
            return Err(match name.as_str() {
                "bee_key" => error.hint("A bee's key is written in z-base-32 (52 characters) or in hex (64)."),
                "peer" => error.hint("Peers are written host:port, with commas between them."),
                "key_encoding" | "value_encoding" => {
                    error.hint("Encodings are binary, utf-8, ascii, hex, base64 and json.")
                }
                "on_error" => error.hint("It may be error or null."),
                "column" => error.hint("It may be key, value or seq."),
                _ => error,
            });
        }
    }
    if get(options, "sub").is_some() && get(options, "sub_hex").is_some() {
        return Err(SqlError::new(state::SYNTAX_ERROR, "conflicting or redundant options: sub, sub_hex"));
    }
    if get(options, "column").is_some() && get(options, "member").is_some() {
        return Err(SqlError::new(state::SYNTAX_ERROR, "conflicting or redundant options: column, member"));
    }
    Ok(())
}

/// An option's value.
pub fn get<'o>(options: &'o FdwOptions, name: &str) -> Option<&'o str> {
    options.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// `host:port` addresses with commas between them; None if one cannot be.
fn peers_of(value: &str) -> Option<Vec<String>> {
    let peer = |peer: &str| {
        let (host, port) = peer.trim().rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)).then(|| peer.trim().to_owned())
    };
    value.split(',').map(peer).collect()
}

/// Which bee options name, those of a table before those of its server.
///
/// # Errors
/// HV002 if none do.
pub fn source_of(table: &FdwOptions, server: &FdwOptions) -> Result<Source> {
    let key = get(table, "bee_key").or_else(|| get(server, "bee_key")).ok_or_else(|| {
        SqlError::new(DYNAMIC_PARAMETER_VALUE_NEEDED, "bee_key is required for hyperbee foreign tables")
            .hint("Give it as an option of the foreign table or of its server.")
    })?;
    let invalid = |_| SqlError::new(state::INVALID_PARAMETER_VALUE, format!("\"{key}\" is not the key of a bee"));
    let key = key.parse::<CoreKey>().map_err(invalid)?;
    let mut peers: Vec<String> = Vec::new();
    for list in [get(table, "peer"), get(server, "peer")].into_iter().flatten() {
        peers.extend(peers_of(list).unwrap_or_default());
    }
    peers.dedup();
    Ok(Source::Key(key, Arc::from(peers)))
}

/// [`source_of`] a foreign table.
///
/// # Errors
/// HV002 if none is named.
pub fn source(foreign: &Foreign, server: &Server) -> Result<Source> {
    source_of(&foreign.options, &server.options)
}

/// The encoding an option names.
pub(super) fn encoding(foreign: &Foreign, option: &str) -> Result<Option<Encoding>> {
    let Some(name) = get(&foreign.options, option) else { return Ok(None) };
    let unknown =
        || SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid value for option \"{option}\": \"{name}\""));
    Encoding::by_name(name).map(Some).ok_or_else(unknown)
}

pub(super) fn on_error_null(foreign: &Foreign) -> Result<bool> {
    Ok(get(&foreign.options, "on_error") == Some("null"))
}

/// What the keys of a table begin with.
pub(super) fn prefix(foreign: &Foreign) -> Result<Vec<u8>> {
    if let Some(hex) = get(&foreign.options, "sub_hex") {
        return bytea::parse_hex(hex);
    }
    Ok(get(&foreign.options, "sub").map_or_else(Vec::new, sub_prefix))
}

/// The prefix of a sub: each name followed by a zero byte.
fn sub_prefix(path: &str) -> Vec<u8> {
    let mut prefix = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0);
    }
    prefix
}
