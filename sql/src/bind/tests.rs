//! Labels, types and errors of bound statements; every expectation was read off PostgreSQL 15 (`\gdesc`, `\errverbose`).

use std::sync::Arc;

use super::*;
use crate::catalog::schema::{CheckDef, Column, Index, IndexColumn, Key, Schema, Sequence, Table, Tag};
use crate::catalog::{Catalog, PG_CATALOG, PUBLIC};
use crate::functions::context::{CancelFlag, DateOrder};
use crate::functions::{Services, SessionCx};
use crate::ir::{DmlKind, RelKind};
use crate::types::info::format_type;
use crate::types::timezone::TimeZone;

struct NoServices;
#[rustfmt::skip]
impl Services for NoServices {
    fn nextval(&self, _: u32) -> Result<i64> { Ok(1) }
    fn currval(&self, _: u32) -> Result<i64> { Ok(1) }
    fn lastval(&self) -> Result<i64> { Ok(1) }
    fn setval(&self, _: u32, value: i64, _: bool) -> Result<i64> { Ok(value) }
    fn setting(&self, _: &str) -> Option<String> { None }
    fn set_config(&self, _: &str, _: Option<&str>, _: bool) -> Result<String> { Ok(String::new()) }
    fn version(&self) -> u64 { 7 }
    fn key(&self) -> [u8; 32] { [0; 32] }
    fn export_snapshot(&self) -> Result<String> { Ok("7".into()) }
    fn wait_for(&self, _: u64, _: i64) -> Result<bool> { Ok(true) }
    fn sleep(&self, _: f64) -> Result<()> { Ok(()) }
    fn transaction_id(&self) -> u64 { 1 }
}

fn column(attnum: i16, name: &str, ty: Type, typmod: i32) -> Column {
    Column {
        attnum,
        name: name.into(),
        ty: ty.0,
        typmod,
        not_null: false,
        default: None,
        identity: None,
        sequence: None,
        missing: None,
        dropped: false,
        options: Vec::new(),
        comment: None,
    }
}

fn table(oid: u32, name: &str, slots: Vec<Column>) -> Table {
    Table {
        oid,
        schema: PUBLIC,
        name: name.into(),
        slots,
        primary_key: None,
        indexes: vec![],
        checks: vec![],
        foreign_keys: Vec::new(),
        foreign: None,
        comment: None,
    }
}

fn text_column(attnum: i16, name: &str) -> Column {
    column(attnum, name, Type::TEXT, -1)
}
fn int_column(attnum: i16, name: &str) -> Column {
    column(attnum, name, Type::INT4, -1)
}

/// `emp` and `dept` of the conformance scripts; `item(id int primary key, sku text unique, price numeric(10,2) default 1.5 check (price > 0),
/// note varchar(5), made timestamptz default now())`; `serials(id identity always, v int)`; view `rich`.
pub(super) fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (oid, name) in [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public")] {
        catalog.schemas.insert(oid, Arc::new(Schema { oid, name: name.into(), comment: None }));
    }
    let mut add = |relation: Relation| {
        catalog.names.insert((relation.schema(), relation.name().to_owned()), relation.oid());
        catalog.relations.insert(relation.oid(), relation);
    };
    let emp = vec![
        int_column(1, "id"),
        int_column(2, "dept"),
        text_column(3, "name"),
        column(4, "sal", Type::NUMERIC, (10 << 16 | 2) + 4),
    ];
    add(Relation::Table(Arc::new(table(20001, "emp", emp))));
    add(Relation::Table(Arc::new(table(20002, "dept", vec![int_column(1, "id"), text_column(2, "dname")]))));
    let mut item = table(
        20003,
        "item",
        vec![
            int_column(1, "id"),
            text_column(2, "sku"),
            Column { default: Some("1.5".into()), ..column(3, "price", Type::NUMERIC, (10 << 16 | 2) + 4) },
            Column { dropped: true, ..int_column(4, "gone") },
            column(5, "note", Type::VARCHAR, 9),
            Column { default: Some("now()".into()), ..column(6, "made", Type::TIMESTAMPTZ, -1) },
        ],
    );
    item.primary_key = Some(Key { oid: 20004, name: "item_pkey".into(), columns: vec![1], comment: None });
    let sku = vec![IndexColumn { attnum: 2, desc: false, nulls_first: false }];
    item.indexes = vec![Index { unique: true, constraint: true, ..Index::new(20005, "item_sku_key".into(), sku) }];
    item.checks =
        vec![CheckDef { oid: 20006, name: "item_price_check".into(), expr: "price > 0".into(), not_valid: false }];
    add(Relation::Table(Arc::new(item)));
    let id = Column { identity: Some('a'), sequence: Some(20008), not_null: true, ..int_column(1, "id") };
    add(Relation::Table(Arc::new(table(20007, "serials", vec![id, int_column(2, "v")]))));
    let sequence = Sequence {
        oid: 20008,
        schema: PUBLIC,
        name: "serials_id_seq".into(),
        ty: Type::INT4.0,
        start: 1,
        increment: 1,
        min: 1,
        max: 1 << 30,
        cycle: false,
        cache: 1,
        owner: Some((20007, 1)),
        comment: None,
    };
    add(Relation::Sequence(Arc::new(sequence)));
    let rich = View {
        oid: 20009,
        schema: PUBLIC,
        name: "rich".into(),
        columns: vec![int_column(1, "id"), column(2, "amount", Type::NUMERIC, (10 << 16 | 2) + 4)],
        query: "SELECT id, sal FROM emp WHERE sal > 15".into(),
        search_path: vec![PG_CATALOG, PUBLIC],
        depends_on: vec![20001],
        comment: None,
    };
    add(Relation::View(Arc::new(rich)));
    catalog.tags.insert("audit".into(), Arc::new(Tag { oid: 20010, name: "audit".into(), version: 5 }));
    catalog
}

/// Versions 1 to 7, a second apart from 2000-01-01; at version 5 and before, `emp` had only `id` and was called `emp` too.
struct Past {
    now: Arc<Catalog>,
}
impl AsOfResolver for Past {
    fn version_at(&self, micros: i64) -> Result<u64> {
        match micros / 1_000_000 {
            0 => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "no version is that old")),
            n => Ok((n as u64).min(7)),
        }
    }
    fn catalog_at(&self, version: u64) -> Result<Arc<Catalog>> {
        if version > 7 {
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("version {version} does not exist")));
        }
        let mut then = (*self.now).clone();
        if version <= 5 {
            then.relations.insert(20001, Relation::Table(Arc::new(table(20001, "emp", vec![int_column(1, "id")]))));
        }
        Ok(Arc::new(then))
    }
}

fn session(catalog: &Arc<Catalog>) -> SessionCx {
    SessionCx {
        time_zone: TimeZone::utc(),
        date_order: DateOrder::Mdy,
        bytea_hex: true,
        transaction_micros: 10_000_000,
        statement_micros: 10_000_000,
        user: "postgres".into(),
        database: "postgres".into(),
        search_path: vec![PG_CATALOG, PUBLIC],
        backend_pid: 1,
        catalog: catalog.clone(),
        services: Arc::new(NoServices),
        cancel: Arc::new(CancelFlag::default()),
        work_mem_bytes: 1 << 20,
        memory: Arc::default(),
        random: parking_lot::Mutex::new(1),
    }
}

/// Binds one statement and hands what came out to `f`.
fn with_bound<T>(sql: &str, params: &ParamTypes, f: impl FnOnce(Result<Bound>) -> T) -> T {
    let catalog = Arc::new(catalog());
    let session = session(&catalog);
    let past = Past { now: catalog.clone() };
    let env = BindEnv { catalog, search_path: vec![PG_CATALOG, PUBLIC], params, resolver: &past, session: &session };
    let bound = crate::parse::parse(sql).and_then(|statements| match &statements[..] {
        [one] => bind(one, &env),
        many => Err(SqlError::internal(format!("{} statements", many.len()))),
    });
    f(bound)
}

/// `label:type label:type`, or `SQLSTATE message [@position]`.
pub(super) fn describe(sql: &str) -> String {
    let params = ParamTypes::declared(vec![]);
    with_bound(sql, &params, |bound| match bound {
        Err(e) => {
            let at = e.0.position.map_or(String::new(), |p| format!(" @{p}"));
            format!("{} {}{at}", e.state(), e.message())
        }
        Ok(Bound::Utility) => "utility".into(),
        Ok(bound) => {
            if let Some(Err(wrong)) = bound.rel().map(super::validate::validate) {
                return format!("INVALID {wrong}");
            }
            let columns = bound.rel().map_or(vec![], |r| r.schema.to_vec());
            columns
                .iter()
                .map(|c| format!("{}:{}", c.name, format_type(c.ty.ty, c.ty.typmod)))
                .collect::<Vec<_>>()
                .join(" ")
        }
    })
}

/// Statements and expectations of a file: a line of SQL, then an indented line of what PostgreSQL says.
fn cases(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len() % 2, 0, "every statement has its answer");
    lines.chunks(2).map(|pair| (pair[0], pair[1].trim_start())).collect::<Vec<_>>().into_iter()
}

fn check(text: &'static str, answer: fn(&str) -> String) {
    let wrong: Vec<String> = cases(text)
        .filter_map(|(sql, expected)| {
            let got = answer(sql);
            (got != expected).then(|| format!("{sql}\n    wants {expected}\n    got   {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn labels_types_and_errors_are_postgresqls() {
    check(include_str!("cases.txt"), describe);
}

/// The parameter types PREPARE infers: `{integer,text}`, or the error.
fn infer(sql: &str) -> String {
    let params = ParamTypes::declared(vec![]);
    let bound = with_bound(sql, &params, |bound| bound.map(|_| ()));
    match bound.and_then(|()| params.finish()) {
        Ok(types) => format!("{{{}}}", types.iter().map(|t| t.sql_name()).collect::<Vec<_>>().join(",")),
        Err(e) => format!("{} {}", e.state(), e.message()),
    }
}

#[test]
fn parameter_types_are_inferred_as_prepare_does() {
    check(include_str!("parameters.txt"), infer);
}

#[test]
fn declared_parameter_types_win() {
    let infer = |declared: Vec<Type>, sql: &str| {
        let params = ParamTypes::declared(declared);
        with_bound(sql, &params, |bound| bound.map(|_| ())).and_then(|()| params.finish())
    };
    assert_eq!(infer(vec![Type::INT8], "SELECT id FROM emp WHERE id = $1").expect("binds"), [Type::INT8]);
    assert_eq!(infer(vec![Type::NONE, Type::TEXT], "SELECT $1 + 1, $2").expect("binds"), [Type::INT4, Type::TEXT]);
    assert_eq!(infer(vec![Type::TEXT], "SELECT $1 + 1").expect_err("text + integer").state(), "42883");
    let fixed = ParamTypes::none();
    let error = with_bound("SELECT $1", &fixed, |bound| bound.map(|_| ())).expect_err("none is allowed");
    assert_eq!((error.state(), error.message(), error.0.position), ("42P02", "there is no parameter $1", Some(8)));
}

/// The version and columns that a table is read at.
fn version_read(sql: &str) -> String {
    with_bound(sql, &ParamTypes::declared(vec![]), |bound| {
        let bound = match bound {
            Ok(bound) => bound,
            Err(e) => return format!("{} {}", e.state(), e.message()),
        };
        let mut rel = bound.rel().cloned().expect("a query");
        loop {
            rel = match rel.kind {
                RelKind::Project { input, .. } | RelKind::Filter { input, .. } => *input,
                RelKind::Scan { at, table, .. } => {
                    return format!("{:?} {}", at.map(|a| a.version), table.width());
                }
                other => return format!("{other:?}"),
            };
        }
    })
}

#[test]
fn as_of_reads_a_version_and_its_columns() {
    for (sql, expected) in [
        ("SELECT * FROM emp", "None 4"),
        ("SELECT * FROM emp AS OF VERSION 6", "Some(6) 4"),
        ("SELECT * FROM emp AS OF 3 e", "Some(3) 1"),
        ("SELECT name FROM emp AS OF 3", "42703 column \"name\" does not exist"),
        ("SELECT * FROM emp AS OF VERSION 2 + 1", "Some(3) 1"),
        ("SELECT * FROM emp AS OF VERSION 99", "22023 version 99 does not exist"),
        ("SELECT * FROM emp AS OF VERSION -1", "22023 version -1 does not exist"),
        ("SELECT * FROM emp AS OF VERSION 'x'", "22P02 invalid input syntax for type bigint: \"x\""),
        ("SELECT * FROM emp AS OF TAG audit", "Some(5) 1"),
        ("SELECT * FROM emp AS OF TAG 'nosuch'", "42704 tag \"nosuch\" does not exist"),
        ("SELECT * FROM emp AS OF TIMESTAMP '2000-01-01 00:00:06+00'", "Some(6) 4"),
        ("SELECT * FROM emp FOR SYSTEM_TIME AS OF timestamptz '2000-01-01 00:00:04+00'", "Some(4) 1"),
        ("SELECT * FROM emp FOR SYSTEM_VERSION AS OF 7", "Some(7) 4"),
        ("SELECT * FROM emp AS OF SYSTEM TIME '-5s'", "Some(5) 1"),
        ("SELECT * FROM emp AS OF SYSTEM TIME interval '-4 seconds'", "Some(6) 4"),
        ("SELECT * FROM emp AS OF TIMESTAMP now() - interval '6 s'", "Some(4) 1"),
        ("SELECT * FROM emp AS OF TIMESTAMP '2000-01-01'", "22023 no version is that old"),
        ("SELECT * FROM emp AS OF $1", "0A000 a parameter in AS OF is not supported"),
        ("SELECT * FROM rich AS OF VERSION 6", "Some(6) 4"),
        ("SELECT * FROM rich AS OF VERSION 3", "42703 column \"sal\" does not exist"),
        ("SELECT id AS of FROM emp AS of", "None 4"),
    ] {
        assert_eq!(version_read(sql), expected, "{sql}");
    }
}

#[test]
fn an_insert_brings_defaults_checks_and_its_arbiter() {
    let sql = "INSERT INTO item (id, sku) VALUES (1, DEFAULT) ON CONFLICT (sku) DO UPDATE SET price = DEFAULT WHERE excluded.id > item.id";
    with_bound(sql, &ParamTypes::none(), |bound| {
        let bound = bound.expect("binds");
        let dml = bound.dml().expect("an INSERT").clone();
        let DmlKind::Insert { columns, defaults, checks, on_conflict, .. } = &dml.kind else { panic!("no INSERT") };
        assert_eq!(columns, &[0, 1]);
        assert_eq!(defaults.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, false, true]);
        assert_eq!(checks.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["item_price_check"]);
        let conflict = on_conflict.as_ref().expect("ON CONFLICT");
        assert_eq!(conflict.arbiter, Some(20005));
        assert!(matches!(&conflict.update, Some((sets, Some(_))) if sets.len() == 1 && sets[0].0 == 2));
    });
}

#[test]
fn stored_expressions_and_arguments_are_bound_without_positions() {
    let catalog = Arc::new(catalog());
    let session = session(&catalog);
    let past = Past { now: catalog.clone() };
    let params = ParamTypes::none();
    let env = BindEnv {
        catalog: catalog.clone(),
        search_path: vec![PG_CATALOG, PUBLIC],
        params: &params,
        resolver: &past,
        session: &session,
    };
    let Some(Relation::Table(item)) = catalog.by_oid(20003) else { panic!("no item") };
    assert_eq!(bind_check("price > 0 AND note IS NOT NULL", &item.fields(), &env).expect("binds").ty.ty, Type::BOOL);
    let error = bind_check("price > nosuch", &item.fields(), &env).expect_err("no such column");
    assert_eq!((error.state(), error.0.position), ("42703", None));
    let price = item.columns().nth(2).expect("price").type_mod();
    assert_eq!(bind_default("'1.25'", "price", price, &env).expect("binds").ty, price);
    assert_eq!(bind_default("now()", "price", price, &env).expect_err("no assignment").state(), "42804");
    assert_eq!(bind_scalar("id", &[], &env).expect_err("no columns").state(), "42703");
    assert!(assignment_cast(Type::INT4.plain(), price, &env).expect("binds").is_some());
    assert!(assignment_cast(Type::DATE.plain(), price, &env).expect("binds").is_none());
    let args = |sql: &str| match crate::parse::parse(sql).expect("parses").remove(0).kind {
        ast::StatementKind::Execute { args, .. } => args,
        other => panic!("{other:?}"),
    };
    let bound = bind_arguments("p", &args("EXECUTE p('5', 2)"), &[Type::INT4, Type::TEXT], "EXECUTE p('5', 2)", &env);
    assert_eq!(bound.expect("binds").iter().map(|e| e.ty.ty).collect::<Vec<_>>(), [Type::INT4, Type::TEXT]);
    let few =
        bind_arguments("p", &args("EXECUTE p(1)"), &[Type::INT4, Type::TEXT], "", &env).expect_err("one is missing");
    assert_eq!((few.state(), few.0.detail.as_deref()), ("42601", Some("Expected 2 parameters but got 1.")));
}

#[test]
fn a_long_statement_is_bound_in_linear_time() {
    let started = std::time::Instant::now();
    let rows = "(1, 2, 'some text', 3.5), ".repeat(30_000);
    assert_eq!(describe(&format!("INSERT INTO emp VALUES {rows}(1, 2, 'x', 3)")), "");
    let list = "1, ".repeat(100_000);
    assert_eq!(describe(&format!("SELECT id IN ({list}2) FROM emp")), "?column?:boolean");
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

/// Whatever the parser lets through is bound on the stack a session has, in a build without optimisation.
#[test]
fn binding_fits_a_sessions_stack() {
    let on_session_stack = |sql: String| {
        std::thread::Builder::new()
            .stack_size(16 << 20)
            .spawn(move || describe(&sql))
            .expect("spawns")
            .join()
            .expect("no overflow")
    };
    let deep = |open: &str, inner: &str, close: &str| {
        // The deepest that parses: the limit is the parser's.
        let (mut low, mut high) = (1, 4000);
        while low + 1 < high {
            let n = (low + high) / 2;
            let sql = format!("{}{inner}{}", open.repeat(n), close.repeat(n));
            let parsed = std::thread::Builder::new()
                .stack_size(16 << 20)
                .spawn(move || crate::parse::parse(&format!("SELECT {sql}")).is_ok());
            if parsed.expect("spawns").join().expect("no overflow") { low = n } else { high = n }
        }
        format!("SELECT {}{inner}{}", open.repeat(low), close.repeat(low))
    };
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("abs(", "1", ")"),
        ("- ", "id", " FROM emp"),
        ("", "1", " + 1"),
        ("", "1", "::int"),
        ("", "true", " IS NULL"),
        ("NOT ", "true", ""),
        ("(SELECT ", "1", ")"),
        ("ARRAY[", "1", "]"),
        ("CASE WHEN true THEN ", "1", " END"),
        ("CASE ", "1", " WHEN 1 THEN 1 END"),
        ("coalesce(", "1", ", 2)"),
        ("1 IN (SELECT 1 WHERE ", "true", ")"),
        ("(1 + ", "1", ")"),
        ("ROW(", "1", ")"),
        ("", "1", " UNION ALL SELECT 1"),
        ("* FROM (SELECT ", "1", ") x"),
        ("1 = ANY (ARRAY[(SELECT 1 WHERE ", "true", ")])"),
    ] {
        let sql = deep(open, inner, if open == "- " { "" } else { close });
        let sql = if open == "- " { sql + " FROM emp" } else { sql };
        let out = on_session_stack(sql);
        assert!(!out.starts_with("XX"), "{open}{inner}{close}: {out}");
    }
    let joins =
        format!("SELECT 1 FROM emp a0{}", (1..600).map(|i| format!(" JOIN emp a{i} USING (id)")).collect::<String>());
    let out = on_session_stack(joins);
    assert!(out.starts_with("54001") || out == "?column?:integer", "{out}");
}

#[test]
fn reading_binding_and_planning_stop_when_told() {
    let catalog = Arc::new(catalog());
    let session = session(&catalog);
    let past = Past { now: catalog.clone() };
    let params = ParamTypes::none();
    let env =
        BindEnv { catalog, search_path: vec![PG_CATALOG, PUBLIC], params: &params, resolver: &past, session: &session };
    let sql = "select 1 from emp";
    let statements = crate::parse::parse_unless(&session.cancel, sql).unwrap();
    let Ok(Bound::Query(rel)) = bind(&statements[0], &env) else { panic!("{sql} is a query") };
    session.cancel.raise(SqlError::new(state::QUERY_CANCELED, "stop"));
    assert_eq!(crate::parse::parse_unless(&session.cancel, sql).unwrap_err().message(), "stop");
    assert_eq!(bind(&statements[0], &env).unwrap_err().message(), "stop");
    assert!(crate::plan::plan(rel, &crate::plan::PlanCx::new(&session)).is_err_and(|e| e.message() == "stop"));
}
