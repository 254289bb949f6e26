//! What tools ask about objects: visibility, comments, privileges, sizes, encodings, the sequence of a column.
//!
//! There is one owner and nothing is granted or revoked in a bee, so every privilege question about a thing that exists is answered with true.
//! Sizes on disk are not kept by table: the size functions answer NULL, as PostgreSQL's do for what they cannot find.

use super::FnCx;
use super::args;
use super::registry::{Registry, ScalarImpl};
use crate::catalog::Relation;
use crate::catalog::pg_catalog::proc_row;
use crate::error::{Result, SqlError, state};
use crate::types::reg::{self, SUPERUSER, quote_identifier};
use crate::types::{Datum, Numeric, Type, io};

const T: Type = Type::TEXT;
const O: Type = Type::OID;
const N: Type = Type::NAME;
const B: Type = Type::BOOL;

/// Adds them all.
pub fn register(r: &mut Registry) {
    visibility(r);
    comments(r);
    privileges(r);
    sizes(r);
    r.stable("pg_get_userbyid", &[O], N, |a, cx| {
        let oid = args::oid(a, 0)?;
        Ok(Datum::text(if oid == SUPERUSER { cx.session.user.clone() } else { format!("unknown (OID={oid})") }))
    });
    r.stable("pg_encoding_to_char", &[Type::INT4], N, |a, _| {
        let i = usize::try_from(args::int4(a, 0)?).ok();
        Ok(Datum::text(i.and_then(|i| ENCODINGS.get(i)).copied().unwrap_or("")))
    });
    r.stable("pg_char_to_encoding", &[N], Type::INT4, |a, _| {
        let wanted: String =
            args::text(a, 0)?.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        let plain = |e: &str| e.replace('_', "");
        Ok(Datum::Int4(ENCODINGS.iter().position(|e| plain(e) == wanted).map_or(-1, |i| i as i32)))
    });
    r.stable("pg_get_serial_sequence", &[T, T], T, |a, cx| serial_sequence(args::text(a, 0)?, args::text(a, 1)?, cx));
    r.stable("pg_relation_is_publishable", &[Type::REGCLASS], B, |_, _| Ok(Datum::Bool(false)));
    r.stable("row_security_active", &[O], B, |_, _| Ok(Datum::Bool(false)));
    r.stable("row_security_active", &[T], B, |_, _| Ok(Datum::Bool(false)));
}

/// PostgreSQL's encodings by number.
static ENCODINGS: &[&str] = &[
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

fn visibility(r: &mut Registry) {
    r.stable("pg_table_is_visible", &[O], B, |a, cx| {
        let relation = cx.session.catalog.by_oid(args::oid(a, 0)?);
        Ok(relation.map_or(Datum::Null, |relation| Datum::Bool(reg::is_visible(relation, cx.session))))
    });
    r.stable("pg_type_is_visible", &[O], B, |a, _| {
        Ok(Type(args::oid(a, 0)?).info().map_or(Datum::Null, |_| Datum::Bool(true)))
    });
    r.stable("pg_function_is_visible", &[O], B, |a, _| {
        Ok(proc_row(args::oid(a, 0)?).map_or(Datum::Null, |_| Datum::Bool(true)))
    });
    // All of these stand in pg_catalog, which is always searched.
    for name in [
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_template_is_visible",
        "pg_ts_config_is_visible",
    ] {
        r.stable(name, &[O], B, |_, _| Ok(Datum::Bool(true)));
    }
}

fn comment(text: Option<&String>) -> Datum {
    text.map_or(Datum::Null, Datum::text)
}

fn relation_comment(oid: u32, cx: &FnCx<'_>) -> Datum {
    match cx.session.catalog.by_oid(oid) {
        Some(Relation::Table(t)) => comment(t.comment.as_ref()),
        Some(Relation::View(v)) => comment(v.comment.as_ref()),
        Some(Relation::Sequence(s)) => comment(s.comment.as_ref()),
        Some(Relation::Index(t, oid)) => match &t.primary_key {
            Some(key) if key.oid == *oid => comment(key.comment.as_ref()),
            _ => comment(t.indexes.iter().find(|i| i.oid == *oid).and_then(|i| i.comment.as_ref())),
        },
        _ => Datum::Null,
    }
}

/// Keys keep what is said of them with their indexes.
fn constraint_comment(oid: u32, cx: &FnCx<'_>) -> Datum {
    let tables = cx.session.catalog.relations.values().filter_map(|r| match r {
        Relation::Table(t) => Some(t),
        _ => None,
    });
    match tables.flat_map(|t| &t.foreign_keys).find(|k| k.oid == oid) {
        Some(key) => comment(key.comment.as_ref()),
        None => Datum::Null,
    }
}

fn comments(r: &mut Registry) {
    fn schema_comment(oid: u32, cx: &FnCx<'_>) -> Datum {
        cx.session.catalog.schemas.get(&oid).map_or(Datum::Null, |s| comment(s.comment.as_ref()))
    }
    r.stable("obj_description", &[O, N], T, |a, cx| {
        let oid = args::oid(a, 0)?;
        Ok(match args::text(a, 1)? {
            "pg_class" => relation_comment(oid, cx),
            "pg_constraint" => constraint_comment(oid, cx),
            "pg_namespace" => schema_comment(oid, cx),
            "pg_foreign_server" => {
                cx.session.catalog.servers.get(&oid).map_or(Datum::Null, |s| comment(s.comment.as_ref()))
            }
            _ => Datum::Null,
        })
    });
    r.stable("obj_description", &[O], T, |a, cx| {
        let oid = args::oid(a, 0)?;
        let places = [relation_comment, schema_comment, constraint_comment];
        Ok(places.iter().map(|of| of(oid, cx)).find(|found| !found.is_null()).unwrap_or_default())
    });
    r.stable("col_description", &[O, Type::INT4], T, |a, cx| {
        let attnum = args::int4(a, 1)?;
        let columns = match cx.session.catalog.by_oid(args::oid(a, 0)?) {
            Some(Relation::Table(t)) => &t.slots,
            Some(Relation::View(v)) => &v.columns,
            _ => return Ok(Datum::Null),
        };
        Ok(columns
            .iter()
            .find(|c| i32::from(c.attnum) == attnum && !c.dropped)
            .map_or(Datum::Null, |c| comment(c.comment.as_ref())))
    });
    r.stable("shobj_description", &[O, N], T, |_, _| Ok(Datum::Null));
}

/// The privilege functions, with how a thing is named in their text form.
static PRIVILEGES: &[(&str, Thing)] = &[
    ("has_table_privilege", Thing::Relation),
    ("has_any_column_privilege", Thing::Relation),
    ("has_sequence_privilege", Thing::Relation),
    ("has_schema_privilege", Thing::Schema),
    ("has_database_privilege", Thing::Database),
    ("has_function_privilege", Thing::Other),
    ("has_language_privilege", Thing::Other),
    ("has_tablespace_privilege", Thing::Other),
    ("has_type_privilege", Thing::Other),
    ("has_foreign_data_wrapper_privilege", Thing::Other),
    ("has_server_privilege", Thing::Other),
    ("has_parameter_privilege", Thing::Other),
    ("pg_has_role", Thing::Role),
];

#[derive(Clone, Copy)]
enum Thing {
    Relation,
    Schema,
    Database,
    Role,
    Other,
}

fn privileges(r: &mut Registry) {
    for (name, thing) in PRIVILEGES {
        let imp: ScalarImpl = match thing {
            Thing::Relation => |a, cx| privilege(a, Thing::Relation, cx),
            Thing::Schema => |a, cx| privilege(a, Thing::Schema, cx),
            Thing::Database => |a, cx| privilege(a, Thing::Database, cx),
            Thing::Role => |a, cx| privilege(a, Thing::Role, cx),
            Thing::Other => |a, cx| privilege(a, Thing::Other, cx),
        };
        // (thing, privilege), or with the user in front; users and things each by name or oid.
        let by_name = if matches!(thing, Thing::Role) { N } else { T };
        for args in if by_name == N {
            [&[N, T][..], &[O, T], &[N, N, T], &[N, O, T], &[O, N, T], &[O, O, T]]
        } else {
            [&[T, T][..], &[O, T], &[N, T, T], &[N, O, T], &[O, T, T], &[O, O, T]]
        } {
            r.stable(name, args, B, imp);
        }
    }
    // The column is named or numbered between the table and the privilege.
    const I: Type = Type::INT2;
    for args in [
        &[T, T, T][..],
        &[T, I, T],
        &[O, T, T],
        &[O, I, T],
        &[N, T, T, T],
        &[N, T, I, T],
        &[N, O, T, T],
        &[N, O, I, T],
        &[O, T, T, T],
        &[O, T, I, T],
        &[O, O, T, T],
        &[O, O, I, T],
    ] {
        r.stable("has_column_privilege", args, B, |a, cx| {
            let without_column = [&a[..a.len() - 2], &a[a.len() - 1..]].concat();
            privilege(&without_column, Thing::Relation, cx)
        });
    }
}

// True for what exists, NULL for an oid that does not, an error for a name that does not.
fn privilege(a: &[Datum], thing: Thing, cx: &FnCx<'_>) -> Result<Datum> {
    let wanted = args::text(a, a.len() - 1)?;
    for word in wanted.split(',') {
        let word = word.trim().to_ascii_uppercase();
        let word = word
            .strip_suffix(" WITH GRANT OPTION")
            .or_else(|| word.strip_suffix(" WITH ADMIN OPTION"))
            .unwrap_or(&word);
        if !matches!(
            word,
            "SELECT"
                | "INSERT"
                | "UPDATE"
                | "DELETE"
                | "TRUNCATE"
                | "REFERENCES"
                | "TRIGGER"
                | "USAGE"
                | "CREATE"
                | "CONNECT"
                | "TEMPORARY"
                | "TEMP"
                | "EXECUTE"
                | "MEMBER"
                | "SET"
                | "ALTER SYSTEM"
                | "RULE"
        ) {
            return Err(SqlError::new(
                state::INVALID_PARAMETER_VALUE,
                format!(
                    "unrecognized privilege type: \"{}\"",
                    wanted.split(',').map(str::trim).find(|w| w.eq_ignore_ascii_case(word)).unwrap_or(wanted)
                ),
            ));
        }
    }
    if a.len() > 2
        && let Datum::Text(user) = &a[0]
        && **user != *cx.session.user
        && &**user != "public"
    {
        return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("role \"{user}\" does not exist")));
    }
    let session = cx.session;
    let exists = match (&a[a.len() - 2], thing) {
        (Datum::Text(name), Thing::Relation) => reg::class_in(name, session).map(|_| true)?,
        (Datum::Text(name), Thing::Schema) => reg::namespace_in(&quote_identifier(name), session).map(|_| true)?,
        (Datum::Text(name), Thing::Role) => reg::role_in(&quote_identifier(name), session).map(|_| true)?,
        (Datum::Text(name), Thing::Database) if **name != *session.database => {
            return Err(SqlError::new(state::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")));
        }
        (Datum::Oid(oid), Thing::Relation) => session.catalog.by_oid(*oid).is_some(),
        (Datum::Oid(oid), Thing::Schema) => session.catalog.schemas.contains_key(oid),
        _ => true,
    };
    Ok(if exists { Datum::Bool(true) } else { Datum::Null })
}

fn sizes(r: &mut Registry) {
    const L: Type = Type::INT8;
    for name in ["pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size"] {
        r.stable(name, &[Type::REGCLASS], L, |_, _| Ok(Datum::Null));
    }
    r.stable("pg_relation_size", &[Type::REGCLASS, T], L, |_, _| Ok(Datum::Null));
    for args in [&[O], &[N]] {
        r.stable("pg_database_size", args, L, |_, _| Ok(Datum::Null));
        r.stable("pg_tablespace_size", args, L, |_, _| Ok(Datum::Null));
    }
    r.pure("pg_size_pretty", &[L], T, |a, _| Ok(Datum::text(size_pretty(&Numeric::from_i64(args::int8(a, 0)?))?)));
    r.pure("pg_size_pretty", &[Type::NUMERIC], T, |a, _| Ok(Datum::text(size_pretty(args::numeric(a, 0)?)?)));
    r.pure("pg_size_bytes", &[T], L, |a, _| size_bytes(args::text(a, 0)?));
}

/// (name, below which size it is used, whether sizes are rounded, how many bits it is)
static UNITS: [(&str, i64, bool, u32); 6] = [
    ("bytes", 10 * 1024, false, 0),
    ("kB", 20 * 1024 - 1, true, 10),
    ("MB", 20 * 1024 - 1, true, 20),
    ("GB", 20 * 1024 - 1, true, 30),
    ("TB", 20 * 1024 - 1, true, 40),
    ("PB", 20 * 1024 - 1, true, 50),
];

fn size_pretty(size: &Numeric) -> Result<String> {
    let mut size = size.clone();
    for (i, (name, limit, round, bits)) in UNITS.iter().enumerate() {
        let next = UNITS.get(i + 1);
        let Some((_, _, next_round, next_bits)) = next.filter(|_| size.abs() >= Numeric::from_i64(*limit)) else {
            if *round {
                // One bit was left over to round by.
                let half = Numeric::from_i64(if size.signum() < 0 { -1 } else { 1 });
                size = size.add(&half)?.div_trunc(&Numeric::from_i64(2))?;
            }
            return Ok(format!("{size} {name}"));
        };
        let shift = next_bits - bits - u32::from(*next_round) + u32::from(*round);
        size = size.div_trunc(&Numeric::from_i64(1 << shift))?;
    }
    Err(SqlError::internal("a size without a unit"))
}

fn size_bytes(s: &str) -> Result<Datum> {
    let invalid = || SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid size: \"{s}\""));
    let body = io::trim_space(s);
    let bytes = body.as_bytes();
    let digits = |mut i: usize| {
        while bytes.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    let start = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(start);
    let mut end = whole;
    let mut any = whole > start;
    if bytes.get(whole) == Some(&b'.') {
        end = digits(whole + 1);
        any |= end > whole + 1;
    }
    if !any {
        return Err(invalid());
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let number = Numeric::parse(&body[..end])?;
    let unit = io::trim_space(&body[end..]);
    let scaled = if unit.is_empty() {
        number
    } else {
        let Some((_, _, _, bits)) = UNITS.iter().find(|u| u.0.eq_ignore_ascii_case(unit)) else {
            return Err(invalid()
                .detail(format!("Invalid size unit: \"{unit}\"."))
                .hint("Valid units are \"bytes\", \"kB\", \"MB\", \"GB\", \"TB\", and \"PB\"."));
        };
        number.mul(&Numeric::from_i64(1 << bits))?
    };
    scaled.to_i64("bigint").map(Datum::Int8)
}

// The table is a name as in SQL, the column's is taken as it is.
fn serial_sequence(table: &str, column: &str, cx: &FnCx<'_>) -> Result<Datum> {
    let parts = reg::split_name(table).ok_or_else(|| SqlError::new(state::INVALID_NAME, "invalid name syntax"))?;
    let relation = reg::find_relation(&parts, cx.session)?;
    let columns = match relation {
        Relation::Table(t) => &t.slots[..],
        _ => &[],
    };
    let found = columns.iter().find(|c| c.name == column && !c.dropped);
    let found = found.ok_or_else(|| {
        SqlError::new(
            state::UNDEFINED_COLUMN,
            format!("column \"{column}\" of relation \"{}\" does not exist", relation.name()),
        )
    })?;
    let Some(Relation::Sequence(s)) = found.sequence.and_then(|oid| cx.session.catalog.by_oid(oid)) else {
        return Ok(Datum::Null);
    };
    let schema = cx.session.catalog.schemas.get(&s.schema).map_or("", |s| s.name.as_str());
    Ok(Datum::text(format!("{}.{}", quote_identifier(schema), quote_identifier(&s.name))))
}
