//! Functions that ask the session: who, where, which settings and versions; sequences; sleeping; random numbers.

use super::FnCx;
use super::args::{self, is_null};
use super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::text::arg_type;
use crate::catalog::{PG_CATALOG, Relation};
use crate::error::{Result, SqlError, state};
use crate::types::info::format_type;
use crate::types::{Array, Datum, Interval, Type, bytea, io, reg};

const T: Type = Type::TEXT;
const L: Type = Type::INT8;
const F: Type = Type::FLOAT8;

/// The PostgreSQL version whose behaviour is followed.
pub const POSTGRESQL_VERSION: &str = "15.18";

/// Adds them all, and those of [`super::activity`] and [`super::inspection`].
pub fn register(r: &mut Registry) {
    session(r);
    settings(r);
    sequences(r);
    waiting(r);
    bees(r);
    values(r);
    super::activity::register(r);
    super::inspection::register(r);
}

// A function called with NULLs too.
fn nullable(
    r: &mut Registry,
    name: &'static str,
    args: &'static [Type],
    ret: Type,
    volatility: Volatility,
    imp: ScalarImpl,
) {
    r.scalar(ScalarFn { name, args, variadic: None, optional: 0, ret, strict: false, volatility, imp });
}

// A strict function that answers otherwise each time.
fn volatile(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) {
    r.scalar(ScalarFn {
        name,
        args,
        variadic: None,
        optional: 0,
        ret,
        strict: true,
        volatility: Volatility::Volatile,
        imp,
    });
}

/// version().
pub fn version() -> String {
    format!(
        "PostgreSQL {POSTGRESQL_VERSION} (pgbee {}) on {}-{}, {}-bit",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        usize::BITS
    )
}

fn session(r: &mut Registry) {
    r.stable("version", &[], T, |_, _| Ok(Datum::text(version())));
    for name in ["current_database", "current_catalog"] {
        r.stable(name, &[], Type::NAME, |_, cx| Ok(Datum::text(&cx.session.database)));
    }
    for name in ["current_user", "session_user", "user", "current_role", "getpgusername"] {
        r.stable(name, &[], Type::NAME, |_, cx| Ok(Datum::text(&cx.session.user)));
    }
    r.stable("current_schema", &[], Type::NAME, |_, cx| {
        Ok(schemas(cx, false).into_iter().next().map_or(Datum::Null, Datum::text))
    });
    r.stable("current_schemas", &[Type::BOOL], Type::NAME_ARRAY, |a, cx| {
        let names = schemas(cx, args::boolean(a, 0)?);
        Ok(Array::from_values(Type::NAME, names.into_iter().map(Datum::text).collect()).datum())
    });
    r.stable("pg_backend_pid", &[], Type::INT4, |_, cx| Ok(Datum::Int4(cx.session.backend_pid)));
    for name in ["txid_current", "txid_current_if_assigned"] {
        r.stable(name, &[], L, |_, cx| Ok(Datum::Int8(cx.session.services.transaction_id() as i64)));
    }
    volatile(r, "pg_is_in_recovery", &[], Type::BOOL, |_, cx| Ok(Datum::Bool(cx.session.services.is_follower())));
    volatile(r, "pg_jit_available", &[], Type::BOOL, |_, _| Ok(Datum::Bool(false)));
    r.stable("pg_client_encoding", &[], Type::NAME, |_, _| Ok(Datum::text("UTF8")));
    r.stable("getdatabaseencoding", &[], Type::NAME, |_, _| Ok(Datum::text("UTF8")));
    r.stable("pg_my_temp_schema", &[], Type::OID, |_, _| Ok(Datum::Oid(0)));
    r.stable("pg_is_other_temp_schema", &[Type::OID], Type::BOOL, |_, _| Ok(Datum::Bool(false)));
    r.stable("pg_trigger_depth", &[], Type::INT4, |_, _| Ok(Datum::Int4(0)));
}

// Names of the schemas searched. pg_catalog is searched first without being named; it is shown only if asked for or named.
fn schemas(cx: &FnCx<'_>, implicit: bool) -> Vec<String> {
    let named = cx.session.services.setting("search_path").is_some_and(|path| path.contains("pg_catalog"));
    let shown = cx.session.search_path.iter().filter(|oid| implicit || named || **oid != PG_CATALOG);
    shown.filter_map(|oid| cx.session.catalog.schemas.get(oid)).map(|s| s.name.clone()).collect()
}

fn settings(r: &mut Registry) {
    fn unrecognized(name: &str) -> SqlError {
        SqlError::new(state::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
    }
    r.stable("current_setting", &[T], T, |a, cx| {
        let name = args::text(a, 0)?;
        cx.session.services.setting(name).map(Datum::text).ok_or_else(|| unrecognized(name))
    });
    r.stable("current_setting", &[T, Type::BOOL], T, |a, cx| {
        let name = args::text(a, 0)?;
        match cx.session.services.setting(name) {
            Some(value) => Ok(Datum::text(value)),
            None if args::boolean(a, 1)? => Ok(Datum::Null),
            None => Err(unrecognized(name)),
        }
    });
    nullable(r, "set_config", &[T, T, Type::BOOL], T, Volatility::Volatile, |a, cx| {
        let name = args::text_or_null(a, 0)?
            .ok_or_else(|| SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "SET requires parameter name"))?;
        let local = !is_null(a, 2) && args::boolean(a, 2)?;
        cx.session.services.set_config(name, args::text_or_null(a, 1)?, local).map(Datum::text)
    });
}

// The sequence a regclass argument names.
fn sequence<'a>(a: &[Datum], cx: &'a FnCx<'_>) -> Result<&'a crate::catalog::Sequence> {
    let oid = args::oid(a, 0)?;
    match cx.session.catalog.by_oid(oid) {
        Some(Relation::Sequence(s)) => Ok(s),
        Some(other) => Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a sequence", other.name()))),
        None => Err(SqlError::internal(format!("could not open relation with OID {oid}"))),
    }
}

fn sequences(r: &mut Registry) {
    volatile(r, "nextval", &[Type::REGCLASS], L, |a, cx| {
        cx.session.services.nextval(sequence(a, cx)?.oid).map(Datum::Int8)
    });
    volatile(r, "currval", &[Type::REGCLASS], L, |a, cx| {
        cx.session.services.currval(sequence(a, cx)?.oid).map(Datum::Int8)
    });
    volatile(r, "lastval", &[], L, |_, cx| cx.session.services.lastval().map(Datum::Int8));
    volatile(r, "setval", &[Type::REGCLASS, L], L, |a, cx| setval(a, true, cx));
    volatile(r, "setval", &[Type::REGCLASS, L, Type::BOOL], L, |a, cx| setval(a, args::boolean(a, 2)?, cx));
}

fn setval(a: &[Datum], is_called: bool, cx: &FnCx<'_>) -> Result<Datum> {
    let (s, value) = (sequence(a, cx)?, args::int8(a, 1)?);
    if !(s.min..=s.max).contains(&value) {
        let message =
            format!("setval: value {value} is out of bounds for sequence \"{}\" ({}..{})", s.name, s.min, s.max);
        return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, message));
    }
    cx.session.services.setval(s.oid, value, is_called).map(Datum::Int8)
}

fn waiting(r: &mut Registry) {
    const V: Type = Type::VOID;
    fn sleep(seconds: f64, cx: &FnCx<'_>) -> Result<Datum> {
        if seconds > 0.0 {
            cx.session.services.sleep(seconds)?;
        }
        Ok(Datum::text(""))
    }
    volatile(r, "pg_sleep", &[F], V, |a, cx| sleep(args::float8(a, 0)?, cx));
    volatile(r, "pg_sleep_for", &[Type::INTERVAL], V, |a, cx| sleep(micros(a, 0)? as f64 / 1e6, cx));
    volatile(r, "pg_sleep_until", &[Type::TIMESTAMPTZ], V, |a, cx| match a[0] {
        Datum::TimestampTz(t) => sleep(t.saturating_sub(cx.session.statement_micros) as f64 / 1e6, cx),
        _ => Err(SqlError::internal("pg_sleep_until of no time")),
    });
    volatile(r, "random", &[], F, |_, cx| {
        let mut seed = cx.session.random.lock();
        // SplitMix64: one addition a number, every seed good.
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Ok(Datum::Float8((z >> 11) as f64 / (1u64 << 53) as f64))
    });
    volatile(r, "setseed", &[F], V, |a, cx| {
        let seed = args::float8(a, 0)?;
        if !(-1.0..=1.0).contains(&seed) {
            return Err(SqlError::new(
                state::INVALID_PARAMETER_VALUE,
                format!("setseed parameter {seed} is out of allowed range [-1,1]"),
            ));
        }
        *cx.session.random.lock() = (seed * ((1u64 << 52) - 1) as f64) as i64 as u64;
        Ok(Datum::text(""))
    });
}

fn micros(a: &[Datum], i: usize) -> Result<i64> {
    match a.get(i) {
        Some(Datum::Interval(span)) => Ok(i64::try_from(Interval::span(span)).unwrap_or(i64::MAX)),
        _ => Err(SqlError::internal("an interval argument of another type")),
    }
}

fn bees(r: &mut Registry) {
    r.stable("bee_version", &[], L, |_, cx| Ok(Datum::Int8(cx.session.services.version() as i64)));
    r.stable("bee_key", &[], T, |_, cx| Ok(Datum::text(z_base_32(&cx.session.services.key()))));
    r.stable("bee_key", &[T], T, |a, cx| {
        let key = cx.session.services.key();
        match args::text(a, 0)?.to_ascii_lowercase().as_str() {
            "hex" => {
                let mut out = String::new();
                bytea::write_hex(&key, &mut out);
                Ok(Datum::text(out))
            }
            "z32" | "z-base-32" => Ok(Datum::text(z_base_32(&key))),
            other => {
                Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("unrecognized key format: \"{other}\""))
                    .hint("Formats are \"z32\" and \"hex\"."))
            }
        }
    });
    r.stable("bee_read_key", &[], T, |_, cx| Ok(cx.session.services.read_key().map_or(Datum::Null, Datum::text)));
    fn wait(a: &[Datum], timeout: i64, cx: &FnCx<'_>) -> Result<Datum> {
        let version = args::int8(a, 0)?;
        let version = u64::try_from(version)
            .map_err(|_| SqlError::new(state::INVALID_PARAMETER_VALUE, "version must not be negative"))?;
        cx.session.services.wait_for(version, timeout).map(Datum::Bool)
    }
    volatile(r, "bee_wait_for", &[L], Type::BOOL, |a, cx| wait(a, i64::MAX, cx));
    volatile(r, "bee_wait_for", &[L, Type::INTERVAL], Type::BOOL, |a, cx| wait(a, micros(a, 1)?, cx));
    volatile(r, "bee_download", &[], L, |_, cx| download(None, cx));
    volatile(r, "bee_download", &[Type::REGCLASS], L, |a, cx| download(Some(args::oid(a, 0)?), cx));
    volatile(r, "bee_download", &[T], L, |a, cx| download(Some(reg::class_in(&named(a)?, cx.session)?), cx));
    // Also of NULL, which PostgreSQL takes as no payload.
    nullable(r, "pg_notify", &[T, T], Type::VOID, Volatility::Volatile, |a, cx| {
        let text = |i| args::text_or_null(a, i).map(Option::unwrap_or_default);
        cx.session.services.notify(text(0)?, text(1)?)?;
        Ok(Datum::text(""))
    });
    volatile(r, "pg_notification_queue_usage", &[], F, |_, cx| Ok(Datum::Float8(cx.session.services.listening().1)));
    volatile(r, "pg_export_snapshot", &[], T, |_, cx| cx.session.services.export_snapshot().map(Datum::text));
}

fn download(relation: Option<u32>, cx: &FnCx<'_>) -> Result<Datum> {
    Ok(Datum::Int8(cx.session.services.download(relation)?.cast_signed()))
}

/// Bytes in z-base-32, as the JavaScript stack writes keys.
pub fn z_base_32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let (mut out, mut buffer, mut bits) = (String::new(), 0u32, 0);
    for b in bytes {
        buffer = (buffer << 8 | u32::from(*b)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    out
}

// What a value takes in PostgreSQL: four bytes in front of what varies in length, numbers by four digits, arrays with their dimensions.
fn column_size(value: &Datum, ty: Type) -> usize {
    let fixed = |ty: Type| ty.info().and_then(|i| usize::try_from(i.len).ok());
    if let Some(len) = fixed(ty) {
        return len;
    }
    match value {
        Datum::Text(s) if ty == Type::UNKNOWN => s.len() + 1,
        Datum::Text(s) => s.len() + 4,
        Datum::Bytea(b) => b.len() + 4,
        Datum::Numeric(n) => {
            // The sent form has eight bytes before the digits where the stored one has six.
            let mut sent = Vec::new();
            n.send(&mut sent);
            sent.len() - 2
        }
        Datum::Array(array) => {
            let nulls = if array.values.iter().any(Datum::is_null) { array.values.len().div_ceil(8) } else { 0 };
            let mut size = 16 + 8 * array.dims.len();
            if nulls > 0 {
                size = (size + nulls).next_multiple_of(8);
            }
            let align = match array.elem.info().map_or(b'i', |i| i.align) {
                b'c' => 1,
                b's' => 2,
                b'd' => 8,
                _ => 4,
            };
            for value in array.values.iter().filter(|v| !v.is_null()) {
                size = (size + column_size(value, array.elem)).next_multiple_of(align);
            }
            size
        }
        Datum::Record(record) => {
            24 + record.fields.iter().zip(&record.values).map(|((_, ty), v)| column_size(v, ty.ty)).sum::<usize>()
        }
        _ => value.heap_bytes() + 4,
    }
}

fn values(r: &mut Registry) {
    r.stable("pg_column_size", &[Type::ANY], Type::INT4, |a, cx| Ok(args::count(column_size(&a[0], arg_type(cx, 0)))));
    r.stable("inet_server_port", &[], Type::INT4, |_, cx| {
        let port = cx.session.services.setting("port").and_then(|p| p.parse().ok());
        Ok(port.map_or(Datum::Null, Datum::Int4))
    });
    nullable(r, "pg_typeof", &[Type::ANY], Type::REGTYPE, Volatility::Stable, |_, cx| {
        Ok(Datum::Oid(arg_type(cx, 0).0))
    });
    nullable(r, "format_type", &[Type::OID, Type::INT4], T, Volatility::Stable, |a, _| {
        if is_null(a, 0) {
            return Ok(Datum::Null);
        }
        let ty = Type(args::oid(a, 0)?);
        // Without a modifier (NULL) the name is SQL's own, `character`; with -1 it is the type without one, `bpchar`.
        Ok(Datum::text(if is_null(a, 1) { ty.sql_name().to_owned() } else { format_type(ty, args::int4(a, 1)?) }))
    });
    let variadic = |name, imp| ScalarFn {
        name,
        args: &[],
        variadic: Some(Type::ANY),
        optional: 0,
        ret: Type::INT4,
        strict: false,
        volatility: Volatility::Immutable,
        imp,
    };
    r.scalar(variadic("num_nulls", |a, _| Ok(args::count(a.iter().filter(|v| v.is_null()).count()))));
    r.scalar(variadic("num_nonnulls", |a, _| Ok(args::count(a.iter().filter(|v| !v.is_null()).count()))));
    for (name, find) in [
        ("to_regclass", (|a, cx| or_null(reg::class_in(&named(a)?, cx.session))) as ScalarImpl),
        ("to_regtype", |a, _| or_null(reg::type_in(&named(a)?))),
        ("to_regproc", |a, _| or_null(reg::proc_in(&named(a)?, Type::REGPROC))),
        ("to_regprocedure", |a, _| or_null(reg::proc_in(&named(a)?, Type::REGPROCEDURE))),
        ("to_regnamespace", |a, cx| or_null(reg::namespace_in(&named(a)?, cx.session))),
        ("to_regrole", |a, cx| or_null(reg::role_in(&named(a)?, cx.session))),
    ] {
        let ret = Type::by_typname(&name[3..]).unwrap_or(Type::OID);
        r.stable(name, &[T], ret, find);
    }
}

fn named(a: &[Datum]) -> Result<String> {
    args::text(a, 0).map(|s| io::trim_space(s).to_owned())
}

// What does not exist is NULL; what is no name stays an error.
fn or_null(found: Result<u32>) -> Result<Datum> {
    match found {
        Ok(oid) => Ok(Datum::Oid(oid)),
        Err(e)
            if matches!(
                e.state(),
                state::UNDEFINED_TABLE
                    | state::INVALID_SCHEMA_NAME
                    | state::UNDEFINED_OBJECT
                    | state::UNDEFINED_FUNCTION
                    | state::AMBIGUOUS_FUNCTION
                    | state::FEATURE_NOT_SUPPORTED
            ) =>
        {
            Ok(Datum::Null)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run_cases;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/system.txt"));
    }

    /// The last from the specification of z-base-32; the others are its alphabet.
    #[test]
    fn keys_in_z_base_32() {
        assert_eq!(super::z_base_32(&[0; 32]), "y".repeat(52));
        assert_eq!(super::z_base_32(&[0xff; 5]), "99999999");
        assert_eq!(super::z_base_32(&[0xf0, 0xbf, 0xc7]), "6n9hq");
    }
}
