//! What the functions' tests share: a session that needs no server, and calls written as in SQL.
//!
//! The files in `cases/` hold a call a line, a tab, and what PostgreSQL 15 answers: the text of the value, `NULL`, or `! SQLSTATE message`, with
//! `| DETAIL` and `| HINT` where there are. The answers were taken from a server, none was written by hand. A call is
//!
//! ```text
//! name(arg, ...)                      arg OP arg                  'text'::type        NULL::type
//! AGG name(x) <- '{1,2}'::int4[]      an aggregate over the elements; two arrays give the arguments y, x
//! AGG name('0.5'::float8; x) <- ...   an ordered-set aggregate with its direct argument
//! SET name(arg, ...)                  the rows of a set-returning function, each as a row's text, joined by ;
//! ```

use std::sync::Arc;

use super::context::{CancelFlag, DateOrder, FnCx, Services, SessionCx};
use super::registry::{Registry, ScalarFn, registry};
use crate::catalog::{Catalog, INFORMATION_SCHEMA, PG_CATALOG, PUBLIC, Schema};
use crate::error::{Result, SqlError, state};
use crate::types::datum::Record;
use crate::types::timezone::TimeZone;
use crate::types::{Array, Datum, Type, info, io};

/// Services of a session with one sequence, whose oid is 1.
struct TestServices;

impl Services for TestServices {
    fn database_settings(&self) -> Vec<(String, Vec<String>)> {
        vec![("postgres".into(), vec!["bee.announce=on".into()])]
    }
    fn nextval(&self, sequence: u32) -> Result<i64> {
        if sequence == 1 { Ok(7) } else { Err(SqlError::internal("no such sequence")) }
    }
    fn currval(&self, _: u32) -> Result<i64> {
        Ok(7)
    }
    fn lastval(&self) -> Result<i64> {
        Ok(7)
    }
    fn setval(&self, _: u32, value: i64, _: bool) -> Result<i64> {
        Ok(value)
    }
    fn setting(&self, name: &str) -> Option<String> {
        (name == "server_version_num").then(|| "150018".to_owned())
    }
    fn set_config(&self, _: &str, value: Option<&str>, _: bool) -> Result<String> {
        Ok(value.unwrap_or_default().to_owned())
    }
    fn version(&self) -> u64 {
        42
    }
    fn key(&self) -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }
    fn export_snapshot(&self) -> Result<String> {
        Ok("42".to_owned())
    }
    fn wait_for(&self, version: u64, _: i64) -> Result<bool> {
        Ok(version <= 42)
    }
    fn sleep(&self, _: f64) -> Result<()> {
        Ok(())
    }
    fn transaction_id(&self) -> u64 {
        9
    }
}

/// A session of user and database postgres, at UTC, with the three schemas every database has.
pub(crate) fn session() -> SessionCx {
    let mut catalog = Catalog::default();
    for (oid, name) in [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (INFORMATION_SCHEMA, "information_schema")] {
        catalog.schemas.insert(oid, Arc::new(Schema { oid, name: name.to_owned(), comment: None }));
    }
    SessionCx {
        time_zone: TimeZone::utc(),
        date_order: DateOrder::Mdy,
        bytea_hex: true,
        transaction_micros: 760_270_272_131_415,
        statement_micros: 760_270_272_131_420,
        user: "postgres".into(),
        database: "postgres".into(),
        search_path: vec![PG_CATALOG, PUBLIC],
        backend_pid: 1,
        catalog: Arc::new(catalog),
        services: Arc::new(TestServices),
        cancel: Arc::new(CancelFlag::default()),
        work_mem_bytes: 4 << 20,
        memory: Arc::default(),
        random: parking_lot::Mutex::new(1),
    }
}

/// Runs every line of a case file and reports all that differ.
pub(crate) fn run_cases(cases: &str) {
    let session = session();
    let mut failed = Vec::new();
    let mut ran = 0;
    for line in cases.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (call, expected) = line.split_once('\t').expect("a tab");
        let got = match run(call, &session) {
            Ok(text) => text,
            Err(e) => {
                let tail: String = e.0.detail.iter().chain(&e.0.hint).map(|d| format!(" | {d}")).collect();
                format!("! {} {}{tail}", e.state(), e.message())
            }
        };
        ran += 1;
        if got.replace('\n', "\\n") != expected {
            failed.push(format!("{call}\n   expected {expected}\n        got {got}"));
        }
    }
    assert!(ran > 0 && failed.is_empty(), "{} of {ran} differ:\n{}", failed.len(), failed.join("\n"));
}

fn run(call: &str, session: &SessionCx) -> Result<String> {
    let show =
        |(value, ty): (Datum, Type)| if value.is_null() { "NULL".to_owned() } else { io::to_text(&value, ty, session) };
    if let Some(rest) = call.strip_prefix("AGG ") {
        return aggregate(rest, session).map(show);
    }
    if let Some(rest) = call.strip_prefix("SET ") {
        return set(rest, session);
    }
    let mut p = Parser { rest: call, session };
    let value = p.expr()?;
    assert!(p.rest.trim().is_empty(), "left over: {}", p.rest);
    Ok(show(value))
}

struct Parser<'a> {
    rest: &'a str,
    session: &'a SessionCx,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }
    fn eat(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
    fn expr(&mut self) -> Result<(Datum, Type)> {
        let left = self.primary()?;
        self.skip();
        let end = self.rest.find(|c: char| !"~!@#%^&|`?+-*/<>=".contains(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Ok(left);
        }
        let op = &self.rest[..end];
        self.rest = &self.rest[end..];
        let right = self.primary()?;
        let types = [left.1, right.1];
        let candidates = registry().operators.get(op).map(Vec::as_slice).unwrap_or_default();
        let found = candidates
            .iter()
            .find(|o| [o.left, o.right] == types)
            .or_else(|| candidates.iter().find(|o| accepts(&[o.left, o.right], None, 0, &types)));
        let found = found.ok_or_else(|| {
            SqlError::new(
                state::UNDEFINED_FUNCTION,
                format!("operator does not exist: {} {op} {}", types[0].sql_name(), types[1].sql_name()),
            )
        })?;
        invoke(found.func, &[left.0, right.0], &types, self.session)
    }
    fn primary(&mut self) -> Result<(Datum, Type)> {
        self.skip();
        if self.eat("NULL::") {
            return Ok((Datum::Null, self.type_name()));
        }
        if self.rest.starts_with('\'') {
            let mut text = String::new();
            let mut chars = self.rest[1..].char_indices().peekable();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (_, '\'') if chars.peek().is_some_and(|c| c.1 == '\'') => {
                        chars.next();
                        text.push('\'');
                    }
                    (i, '\'') => break i + 2,
                    (_, c) => text.push(c),
                }
            };
            self.rest = &self.rest[end..];
            assert!(self.eat("::"), "a type behind '{text}'");
            let ty = self.type_name();
            return Ok((io::text_in(&text, ty.plain(), self.session)?, ty));
        }
        let (name, args) = self.call()?;
        scalar(&name, &args, self.session)
    }
    fn call(&mut self) -> Result<(String, Vec<(Datum, Type)>)> {
        self.skip();
        let open = self.rest.find('(').expect("a call");
        let name = self.rest[..open].trim().trim_matches('"').to_owned();
        self.rest = &self.rest[open + 1..];
        let mut args = Vec::new();
        if !self.eat(")") {
            loop {
                args.push(self.expr()?);
                if self.eat(")") {
                    break;
                }
                assert!(self.eat(","), "a comma at {}", self.rest);
            }
        }
        Ok((name, args))
    }
    fn type_name(&mut self) -> Type {
        let quoted = self.rest.starts_with('"');
        let end = self
            .rest
            .char_indices()
            .find(|(i, c)| !(c.is_alphanumeric() || "_[]".contains(*c) || quoted && *c == '"' && *i < 7))
            .map_or(self.rest.len(), |(i, _)| i);
        let name = &self.rest[..end];
        self.rest = &self.rest[end..];
        info::parse_type(name).unwrap_or_else(|_| panic!("type {name}")).ty
    }
}

// A stand-in for the binder's rules: exact types, or polymorphic ones that fit.
fn accepts(declared: &[Type], variadic: Option<Type>, optional: usize, actual: &[Type]) -> bool {
    if actual.len() + optional < declared.len() || actual.len() > declared.len() && variadic.is_none() {
        return false;
    }
    let wanted = declared.iter().copied().chain(variadic.into_iter().cycle());
    let element = resolve(Type::ANYELEMENT, declared, actual);
    actual.iter().zip(wanted).all(|(a, w)| {
        *a == w
            || match w {
                Type::ANY => true,
                Type::ANYELEMENT | Type::ANYCOMPATIBLE => *a == element,
                Type::ANYNONARRAY | Type(5079) => !a.is_array(),
                Type::ANYARRAY | Type::ANYCOMPATIBLEARRAY => a.element() == Some(element),
                Type::TEXT => *a == Type::UNKNOWN,
                _ => false,
            }
    })
}

// The result type: polymorphic ones from the arguments.
fn resolve(ret: Type, declared: &[Type], actual: &[Type]) -> Type {
    let elem = || {
        declared.iter().zip(actual).find_map(|(d, a)| match *d {
            Type::ANYELEMENT | Type::ANYNONARRAY | Type::ANYCOMPATIBLE | Type(5079) => Some(*a),
            Type::ANYARRAY | Type::ANYCOMPATIBLEARRAY => a.element(),
            _ => None,
        })
    };
    match ret {
        Type::ANYELEMENT | Type::ANYCOMPATIBLE | Type::ANYNONARRAY => elem().unwrap_or(ret),
        Type::ANYARRAY | Type::ANYCOMPATIBLEARRAY => elem().and_then(Type::array_of).unwrap_or(ret),
        _ => ret,
    }
}

fn scalar(name: &str, args: &[(Datum, Type)], session: &SessionCx) -> Result<(Datum, Type)> {
    let types: Vec<Type> = args.iter().map(|a| a.1).collect();
    let values: Vec<Datum> = args.iter().map(|a| a.0.clone()).collect();
    let candidates: &[&'static ScalarFn] = registry().scalars.get(name).map(Vec::as_slice).unwrap_or_default();
    let found = candidates
        .iter()
        .find(|f| f.variadic.is_none() && f.args == types)
        .or_else(|| candidates.iter().find(|f| accepts(f.args, f.variadic, f.optional, &types)));
    match found {
        Some(f) => invoke(f, &values, &types, session),
        None => {
            let shown: Vec<&str> = types.iter().map(|t| t.sql_name()).collect();
            Err(SqlError::new(
                state::UNDEFINED_FUNCTION,
                format!("function {name}({}) does not exist", shown.join(", ")),
            ))
        }
    }
}

fn invoke(f: &ScalarFn, values: &[Datum], types: &[Type], session: &SessionCx) -> Result<(Datum, Type)> {
    let ret = resolve(f.ret, f.args, types);
    if f.strict && values.iter().any(Datum::is_null) {
        return Ok((Datum::Null, ret));
    }
    let value = (f.imp)(values, &FnCx { session, arg_types: types, ret, typmod: -1 })?;
    Ok((value, ret))
}

fn aggregate(call: &str, session: &SessionCx) -> Result<(Datum, Type)> {
    let (head, source) = call.split_once("<-").expect("AGG f(x) <- array");
    let mut p = Parser { rest: source, session };
    let mut columns: Vec<(Array, Type)> = Vec::new();
    loop {
        let (value, ty) = p.primary()?;
        let Datum::Array(a) = value else { panic!("an array") };
        columns.push((Arc::unwrap_or_clone(a), ty.element().expect("an array type")));
        if !p.eat(";") {
            break;
        }
    }
    let (name, inside) = head.trim().trim_end_matches(')').split_once('(').expect("f(...)");
    let mut direct = Vec::new();
    let mut after = Vec::new();
    if let Some((args, _)) = inside.split_once(';') {
        direct.push(Parser { rest: args, session }.primary()?);
    } else if let Some((_, extra)) = inside.split_once(", ") {
        after.push(Parser { rest: extra, session }.primary()?);
    }
    let types: Vec<Type> =
        direct.iter().map(|d| d.1).chain(columns.iter().map(|c| c.1)).chain(after.iter().map(|d| d.1)).collect();
    let types = if inside == "*" { Vec::new() } else { types };
    let r: &Registry = registry();
    let candidates = r.aggregates.get(name).map(Vec::as_slice).unwrap_or_default();
    let found = candidates
        .iter()
        .find(|f| f.args == types)
        .or_else(|| candidates.iter().find(|f| accepts(f.args, f.variadic, 0, &types)));
    let f = found.unwrap_or_else(|| panic!("aggregate {name} of {types:?}"));
    let ret = resolve(f.ret, f.args, &types);
    let cx = FnCx { session, arg_types: &types, ret, typmod: -1 };
    let mut state = (f.new)(&cx);
    let mut rows: Vec<Vec<Datum>> =
        (0..columns[0].0.values.len()).map(|i| columns.iter().map(|c| c.0.values[i].clone()).collect()).collect();
    if f.ordered_set.is_some() {
        rows.sort_by(|a, b| a[0].compare(&b[0]));
    }
    for row in rows {
        let args: Vec<Datum> =
            direct.iter().map(|d| d.0.clone()).chain(row).chain(after.iter().map(|d| d.0.clone())).collect();
        if f.strict && args.iter().any(Datum::is_null) {
            continue;
        }
        state.update(&args, &cx)?;
    }
    let first = state.finish(&cx)?;
    let second = state.finish(&cx)?;
    assert!(first.compare(&second).is_eq(), "finish gives the same twice");
    Ok((second, ret))
}

fn set(call: &str, session: &SessionCx) -> Result<String> {
    let mut p = Parser { rest: call, session };
    let (name, args) = p.call()?;
    let types: Vec<Type> = args.iter().map(|a| a.1).collect();
    let values: Vec<Datum> = args.into_iter().map(|a| a.0).collect();
    let candidates = registry().sets.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
    let found = candidates
        .iter()
        .find(|f| f.args == types)
        .or_else(|| candidates.iter().find(|f| accepts(f.args, f.variadic, 0, &types)));
    let f = found.unwrap_or_else(|| panic!("set function {name} of {types:?}"));
    if f.strict && values.iter().any(Datum::is_null) {
        return Ok(String::new());
    }
    let ret = resolve(f.columns[0].1, f.args, &types);
    let fields: Arc<[_]> = f.columns.iter().map(|c| (Arc::from(c.0), resolve(c.1, f.args, &types).plain())).collect();
    let mut rows = Vec::new();
    for row in (f.imp)(&values, &FnCx { session, arg_types: &types, ret, typmod: -1 })? {
        rows.push(io::to_text(
            &Datum::Record(Arc::new(Record { fields: fields.clone(), values: row? })),
            Type::RECORD,
            session,
        ));
    }
    Ok(rows.join(";"))
}

/// Values at the edges of each type.
fn edges(ty: Type, session: &SessionCx) -> Vec<Datum> {
    let texts: &[&str] = match ty {
        Type::BOOL => &["t", "f"],
        Type::INT2 => &["0", "1", "-1", "32767", "-32768"],
        Type::INT4 => &["0", "1", "-1", "3", "2147483647", "-2147483648"],
        Type::INT8 => &["0", "1", "-1", "9223372036854775807", "-9223372036854775808"],
        Type::NUMERIC => &["0", "-1.50", "1e100", "1e-20", "NaN", "Infinity", "-Infinity"],
        Type::FLOAT4 => &["0", "-1.5", "3e38", "NaN", "inf"],
        Type::FLOAT8 => &["0", "-0.5", "1e308", "1e-300", "NaN", "-inf"],
        Type::BYTEA => &["", "\\x00", "\\xff00ff"],
        Type::OID | Type::XID | Type::CID => &["0", "23", "4294967295"],
        Type::DATE => &["2024-02-29", "-infinity", "infinity", "4714-11-24 BC", "5874897-12-31"],
        Type::TIME => &["00:00", "24:00", "12:34:56.789"],
        Type::TIMESTAMP => &["2024-02-29 12:00", "infinity", "4714-11-24 BC", "294276-12-31"],
        Type::TIMESTAMPTZ => &["2024-02-29 12:00+00", "-infinity", "4714-11-24 00:00+00 BC", "294276-12-31 00:00+00"],
        Type::INTERVAL => &["0", "1 mon -1 day", "-178000000 years", "2147483647 days", "-0.000001"],
        Type::UUID => &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        Type::TID => &["(0,1)"],
        Type::JSON | Type::JSONB => &[
            "null",
            "-1.50",
            "\"a\"",
            "[]",
            "[1, [2], {\"a\": null}]",
            "{}",
            "{\"a\": [true, {\"b\": 1}], \"\": \"x\"}",
        ],
        Type::CHAR => &["", "a", "\\377"],
        Type::INT2VECTOR | Type::OIDVECTOR => &["", "1 2"],
        Type::REGCLASS
        | Type::REGTYPE
        | Type::REGPROC
        | Type::REGNAMESPACE
        | Type::REGROLE
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR => &["0", "23", "99999"],
        Type::ANYARRAY | Type::ANYCOMPATIBLEARRAY | Type::INT4_ARRAY => return edges_of_array(Type::INT4, session),
        Type::ANY | Type::ANYELEMENT | Type::ANYNONARRAY | Type::ANYCOMPATIBLE => return edges(Type::INT4, session),
        Type::RECORD => return Vec::new(),
        other => match other.element() {
            Some(elem) => return edges_of_array(elem, session),
            None => &[
                "",
                "a",
                "é%_\\",
                "\\1",
                " (",
                "2024-02-29",
                "UTC",
                "day",
                "YYYY-MM-DD HH:MI AM TZ",
                "9,990.99EEEE",
                "1:2",
                "ß\u{10ffff}",
                "a,b",
                "%s",
                "g",
                "hex",
            ],
        },
    };
    texts.iter().map(|t| io::text_in(t, ty.plain(), session).unwrap_or_else(|e| panic!("{t}: {e}"))).collect()
}

fn edges_of_array(elem: Type, session: &SessionCx) -> Vec<Datum> {
    let values = edges(elem, session);
    let nested = Array {
        elem,
        dims: vec![(1, 0), (values.len() as i32, i32::MAX - values.len() as i32)],
        values: values.clone(),
    };
    vec![
        Array::empty(elem).datum(),
        Array::from_values(elem, values).datum(),
        Array::from_values(elem, vec![Datum::Null]).datum(),
        nested.datum(),
    ]
}

/// No arguments make a function panic. Overflow checks are on in tests, so a wrapped number shows too.
#[test]
fn every_function_survives_edge_arguments() {
    let session = session();
    let mut random = 1u64;
    let mut pick = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    let mut names: Vec<_> = registry().scalars.values().flatten().filter(|f| !f.name.starts_with("pg_sleep")).collect();
    names.sort_by_key(|f| (f.name, f.args));
    let mut panicked = Vec::new();
    for f in names {
        let concrete = |t: &Type| match *t {
            Type::ANYARRAY | Type::ANYCOMPATIBLEARRAY => Type::INT4_ARRAY,
            Type::ANY | Type::ANYELEMENT | Type::ANYNONARRAY | Type::ANYCOMPATIBLE => Type::INT4,
            // A default's or check's text, see functions/catalog.rs.
            Type(194) => Type::TEXT,
            other => other,
        };
        let types: Vec<Type> = f.args.iter().chain(&f.variadic).map(concrete).collect();
        let choices: Vec<Vec<Datum>> = types.iter().map(|t| edges(*t, &session)).collect();
        if choices.iter().any(Vec::is_empty) {
            continue;
        }
        let combinations: usize = choices.iter().map(Vec::len).product();
        for _ in 0..combinations.min(150) {
            let mut values: Vec<Datum> = choices.iter().map(|c| c[pick(c.len())].clone()).collect();
            if !f.strict && !values.is_empty() && pick(4) == 0 {
                let i = pick(values.len());
                values[i] = Datum::Null;
            }
            let ret = concrete(&f.ret);
            let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (f.imp)(&values, &FnCx { session: &session, arg_types: &types, ret, typmod: -1 })
            }));
            match called {
                Ok(Ok(value)) => drop(io::to_text(&value, ret, &session)),
                Ok(Err(_)) => {}
                Err(_) => {
                    panicked.push(format!("{}({values:?})", f.name));
                    break;
                }
            }
        }
    }
    assert!(panicked.is_empty(), "{}", panicked.join("\n"));
}
