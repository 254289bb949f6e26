//! Over the same catalog as pg_catalog's tests.

use super::*;
use crate::catalog::pg_catalog::{fits, tests::sample};

fn collect(name: &str, cx: &SessionCx, columns: &[&str]) -> Vec<String> {
    let d = definitions()
        .iter()
        .find(|d| d.schema == INFORMATION_SCHEMA && d.name == name)
        .expect("a relation of this name");
    let rows = Made::new(d, rows_of(name)).collect(&Ask::new(cx, None, &d.fields, &[])).unwrap();
    let at: Vec<usize> =
        columns.iter().map(|c| d.fields.iter().position(|f| &*f.name == *c).expect("a column of this name")).collect();
    for row in &rows {
        assert_eq!(row.len(), d.fields.len(), "{name}");
        for (value, field) in row.iter().zip(d.fields.iter()) {
            assert!(fits(value, field.ty.ty), "{name}.{} is {value:?}", field.name);
        }
    }
    let show = |v: &Datum| match v {
        Datum::Text(s) => s.to_string(),
        Datum::Int4(n) => n.to_string(),
        _ => "-".to_owned(),
    };
    rows.iter()
        .filter(|r| r.iter().any(|v| matches!(v, Datum::Text(s) if &**s == "public")))
        .map(|r| at.iter().map(|i| show(&r[*i])).collect::<Vec<_>>().join("|"))
        .collect()
}

#[test]
fn a_table_is_described() {
    let cx = sample();
    assert_eq!(collect("tables", &cx, &["table_name", "table_type"]), ["bee|FOREIGN", "t|BASE TABLE", "v|VIEW"]);
    let columns = [
        "table_name",
        "column_name",
        "ordinal_position",
        "is_nullable",
        "data_type",
        "numeric_precision",
        "udt_name",
        "is_identity",
        "is_updatable",
    ];
    assert_eq!(
        collect("columns", &cx, &columns),
        [
            "bee|key|1|NO|bytea|-|bytea|NO|NO",
            "bee|value|2|YES|bytea|-|bytea|NO|NO",
            "bee|seq|3|NO|bigint|64|int8|NO|NO",
            "t|id|1|NO|integer|32|int4|NO|YES",
            "t|name|3|YES|character varying|-|varchar|NO|YES",
            "t|Price|4|YES|numeric|-|numeric|NO|YES",
            "v|id|1|NO|integer|32|int4|NO|NO",
        ]
    );
    assert_eq!(
        collect("table_constraints", &cx, &["constraint_name", "constraint_type"]),
        [
            "2200_16012_1_not_null|CHECK",
            "2200_16012_3_not_null|CHECK",
            "t_pkey|PRIMARY KEY",
            "t_name_key|UNIQUE",
            "t_price_check|CHECK",
            "2200_16384_1_not_null|CHECK"
        ]
    );
    assert_eq!(
        collect("key_column_usage", &cx, &["constraint_name", "column_name", "ordinal_position"]),
        ["t_pkey|id|1", "t_name_key|name|1"]
    );
    assert_eq!(
        collect("check_constraints", &cx, &["check_clause"]),
        ["key IS NOT NULL", "seq IS NOT NULL", "((\"Price\" > 0))", "id IS NOT NULL"]
    );
    assert_eq!(collect("sequences", &cx, &["sequence_name", "data_type", "maximum_value"]), ["t_id_seq|integer|9"]);
    assert_eq!(collect("view_table_usage", &cx, &["view_name", "table_name"]), ["v|t"]);
    for d in definitions().iter().filter(|d| d.schema == INFORMATION_SCHEMA) {
        collect(d.name, &cx, &[]);
    }
}
