//! Labels, types and errors of bound statements; every expectation was read off PostgreSQL 15 (`\gdesc`, `\errverbose`).

use std::sync::Arc;

use super::*;
use crate::catalog::schema::{CheckDef, Column, Index, IndexColumn, Key, Schema, Sequence, Table, Tag};
use crate::catalog::{Catalog, PG_CATALOG, PUBLIC};
use crate::functions::context::{CancelFlag, DateOrder};
use crate::functions::{Services, SessionCx};
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
    item.indexes = vec![Index {
        oid: 20005,
        name: "item_sku_key".into(),
        columns: sku,
        unique: true,
        constraint: true,
        comment: None,
    }];
    item.checks = vec![CheckDef { oid: 20006, name: "item_price_check".into(), expr: "price > 0".into() }];
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

/// Reads statements from a file, one a line, and prints what became of each: for comparing with PostgreSQL by hand.
#[test]
#[ignore = "a tool: set BIND_FILE"]
fn describe_file() {
    let Ok(path) = std::env::var("BIND_FILE") else { return };
    let text = std::fs::read_to_string(path).expect("readable");
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        println!("{line}\n\t{}", describe(line));
    }
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
#[ignore = "a tool: set PARAM_FILE to lines of statement, tab, expectation"]
fn infer_file() {
    let Ok(path) = std::env::var("PARAM_FILE") else { return };
    for line in std::fs::read_to_string(path).expect("readable").lines() {
        let (sql, expected) = line.split_once('\t').expect("a tab");
        let got = infer(sql);
        let same = got.replace([' ', '"'], "") == expected.replace([' ', '"'], "");
        println!("{} {sql}\n    pg   {expected}\n    mine {got}", if same { "ok  " } else { "DIFF" });
    }
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
