//! Every relation over a catalog with a bit of everything: each value must be of its column's type.

use std::sync::Arc;

use super::*;
use crate::catalog::schema::{CheckDef, Column, Index, IndexColumn, Key, Sequence, Table, View};
use crate::catalog::{PUBLIC, Relation};
use crate::functions::SessionCx;
use crate::functions::testing;
use crate::types::{Datum, Row, Type, io};

fn column(attnum: i16, name: &str, ty: Type) -> Column {
    Column { not_null: attnum == 1, ..Column::new(attnum, name, ty.plain()) }
}

/// public.t (id int primary key, gone, name varchar unique, price numeric check) with a view and a sequence.
pub(crate) fn sample() -> SessionCx {
    let mut cx = testing::session();
    let mut catalog = (*cx.catalog).clone();
    let gone = Column { dropped: true, ..column(2, "gone", Type::INT4) };
    let mut id = column(1, "id", Type::INT4);
    id.default = Some("nextval('t_id_seq'::regclass)".into());
    id.sequence = Some(16390);
    id.comment = Some("the key".into());
    let by = |attnum, desc| IndexColumn { attnum, desc, nulls_first: desc };
    let index = |oid, name: &str, columns, constraint| Index {
        unique: constraint,
        constraint,
        ..Index::new(oid, name.into(), columns)
    };
    let table = Arc::new(Table {
        oid: 16384,
        schema: PUBLIC,
        name: "t".into(),
        slots: vec![id, gone, column(3, "name", Type::VARCHAR), column(4, "Price", Type::NUMERIC)],
        primary_key: Some(Key { oid: 16385, name: "t_pkey".into(), columns: vec![1], comment: None }),
        indexes: vec![
            index(16386, "t_name_key", vec![by(3, false)], true),
            index(16387, "t_price", vec![by(4, true), by(1, false)], false),
        ],
        foreign: None,
        checks: vec![CheckDef {
            oid: 16388,
            name: "t_price_check".into(),
            expr: "\"Price\" > 0".into(),
            not_valid: false,
        }],
        foreign_keys: Vec::new(),
        comment: Some("all of it".into()),
    });
    let view = View {
        oid: 16389,
        schema: PUBLIC,
        name: "v".into(),
        columns: vec![column(1, "id", Type::INT4)],
        query: "SELECT id FROM t".into(),
        search_path: vec![PUBLIC],
        depends_on: vec![16384],
        comment: None,
    };
    let sequence = Sequence {
        oid: 16390,
        schema: PUBLIC,
        name: "t_id_seq".into(),
        ty: 23,
        start: 1,
        increment: 1,
        min: 1,
        max: 9,
        cycle: false,
        cache: 1,
        owner: Some((16384, 1)),
        comment: None,
    };
    for oid in [16385, 16386, 16387] {
        catalog.add(Relation::Index(table.clone(), oid));
    }
    catalog.add(Relation::Table(table));
    catalog.add(Relation::View(Arc::new(view)));
    catalog.add(Relation::Sequence(Arc::new(sequence)));
    let (server, foreign) = crate::foreign::own_table();
    catalog.servers.insert(server.oid, Arc::new(server));
    catalog.add(Relation::Table(Arc::new(foreign)));
    for table in tables().into_iter().chain(crate::catalog::information_schema::tables()) {
        catalog.add(Relation::Virtual(table));
    }
    cx.catalog = Arc::new(catalog);
    cx
}

fn collect(name: &str, cx: &SessionCx, equals: &[(&str, Datum)]) -> Vec<Row> {
    let definition =
        definitions().iter().find(|d| d.schema == PG_CATALOG && d.name == name).expect("a relation of this name");
    let at = |column: &str| definition.fields.iter().position(|f| &*f.name == column).expect("a column of this name");
    let equals: Vec<(usize, Datum)> = equals.iter().map(|(c, v)| (at(c), v.clone())).collect();
    Made::new(definition, rows_of(name)).collect(&Ask::new(cx, None, &definition.fields, &equals)).unwrap()
}

fn show(name: &str, cx: &SessionCx, equals: &[(&str, Datum)], columns: &[&str]) -> Vec<String> {
    let definition = definitions().iter().find(|d| d.schema == PG_CATALOG && d.name == name).unwrap();
    let at: Vec<usize> =
        columns.iter().map(|c| definition.fields.iter().position(|f| &*f.name == *c).unwrap()).collect();
    let text = |row: &Row, i: usize| {
        if row[i].is_null() { "NULL".into() } else { io::to_text(&row[i], definition.fields[i].ty.ty, cx) }
    };
    collect(name, cx, equals).iter().map(|r| at.iter().map(|i| text(r, *i)).collect::<Vec<_>>().join("|")).collect()
}

/// What the sample has none of: peers and sessions.
const NO_SAMPLE: [&str; 5] =
    ["pg_locks", "pg_stat_activity", "pg_stat_database", "pg_stat_replication", "pg_stat_wal_receiver"];

#[test]
fn values_are_of_their_columns_types() {
    let cx = sample();
    for d in definitions().iter().filter(|d| d.schema == PG_CATALOG) {
        let rows = collect(d.name, &cx, &[]);
        let has_none = matches!(rows_of(d.name), Rows::Empty) || NO_SAMPLE.contains(&d.name);
        assert_eq!(rows.is_empty(), has_none, "{}", d.name);
        for row in rows {
            assert_eq!(row.len(), d.fields.len(), "{}", d.name);
            for ((value, field), not_null) in row.iter().zip(d.fields.iter()).zip(&d.not_null) {
                assert!(
                    made::fits(value, field.ty.ty) && !(*not_null && value.is_null()),
                    "{}.{} is {value:?}",
                    d.name,
                    field.name
                );
            }
        }
    }
}

#[test]
fn lookups_by_oid_give_just_those_rows() {
    let cx = sample();
    assert_eq!(
        show("pg_class", &cx, &[("oid", Datum::Oid(16384))], &["relname", "relkind", "relhasindex", "relchecks"]),
        ["t|r|t|1"]
    );
    assert_eq!(show("pg_class", &cx, &[("relname", Datum::text("t_price"))], &["oid", "relkind"]), ["16387|i"]);
    assert_eq!(
        show("pg_type", &cx, &[("oid", Datum::Oid(23))], &["typname", "typarray", "typinput"]),
        ["int4|1007|int4in"]
    );
    assert!(collect("pg_class", &cx, &[("oid", Datum::Oid(1))]).is_empty());
    let all = collect("pg_attribute", &cx, &[]).len();
    let by_one: usize = collect("pg_class", &cx, &[])
        .iter()
        .map(|r| collect("pg_attribute", &cx, &[("attrelid", r[0].clone())]).len())
        .sum();
    assert_eq!(all, by_one);
}

#[test]
fn a_table_is_described() {
    let cx = sample();
    let of_table = [("attrelid", Datum::Oid(16384))];
    assert_eq!(
        show(
            "pg_attribute",
            &cx,
            &of_table,
            &["attnum", "attname", "atttypid", "attnotnull", "atthasdef", "attisdropped", "attcollation"]
        ),
        [
            "1|id|23|t|t|f|0",
            "2|........pg.dropped.2........|0|f|f|t|0",
            "3|name|1043|f|f|f|100",
            "4|Price|1700|f|f|f|0"
        ]
    );
    assert_eq!(
        show(
            "pg_index",
            &cx,
            &[("indrelid", Datum::Oid(16384))],
            &["indexrelid", "indisunique", "indisprimary", "indkey", "indclass", "indoption", "indcollation"]
        ),
        ["16385|t|t|1|1978|0|0", "16386|t|f|3|3126|0|100", "16387|f|f|4 1|3125 1978|3 0|0 0"]
    );
    assert_eq!(
        show(
            "pg_constraint",
            &cx,
            &[("conrelid", Datum::Oid(16384))],
            &["oid", "conname", "contype", "conindid", "conkey", "conbin"]
        ),
        [
            "16385|t_pkey|p|16385|{1}|NULL",
            "16386|t_name_key|u|16386|{3}|NULL",
            "16388|t_price_check|c|0|{4}|\"Price\" > 0"
        ]
    );
    assert_eq!(
        show("pg_indexes", &cx, &[], &["indexdef"]),
        [
            "CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id)",
            "CREATE UNIQUE INDEX t_name_key ON public.t USING btree (name)",
            "CREATE INDEX t_price ON public.t USING btree (\"Price\" DESC, id)",
        ]
    );
    assert_eq!(
        show("pg_views", &cx, &[("viewname", Datum::text("v"))], &["schemaname", "definition"]),
        ["public|v"].map(|_| "public| SELECT id FROM t;")
    );
    let owned = [("objid", Datum::Oid(16390)), ("deptype", Datum::text("a"))];
    assert_eq!(show("pg_depend", &cx, &owned, &["refobjid", "refobjsubid"]), ["16384|1"]);
    assert_eq!(
        show("pg_description", &cx, &[("objoid", Datum::Oid(16384))], &["objsubid", "description"]),
        ["0|all of it", "1|the key"]
    );
}

#[test]
fn functions_have_the_oids_of_postgresql() {
    let cx = sample();
    assert_eq!(
        show("pg_proc", &cx, &[("oid", Datum::Oid(177))], &["proname", "prorettype", "proargtypes"]),
        ["int4pl|23|23 23"]
    );
    assert_eq!(show("pg_operator", &cx, &[("oid", Datum::Oid(551))], &["oprname", "oprcode"]), ["+|int4pl"]);
    assert_eq!(show("pg_proc", &cx, &[("proname", Datum::text("array_recv"))], &["oid"]), ["2400"]);
    let oids: Vec<String> = show("pg_proc", &cx, &[], &["oid"]);
    let distinct: std::collections::BTreeSet<&String> = oids.iter().collect();
    assert_eq!(oids.len(), distinct.len());
}
