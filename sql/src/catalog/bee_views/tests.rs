//! A table through three commits, one of which changes its definition.

use std::sync::Arc;

use pgbee_engine::Version;
use pgbee_engine::bee::Cache;
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::txn::{CommitInfo, Database, Options, ReadView};

use super::*;
use crate::catalog::change::Change;
use crate::catalog::load;
use crate::catalog::schema::{Column, Key};
use crate::codec::{RowEncoder, RowKeyCodec};
use crate::functions::testing;
use crate::types::io;

fn column(attnum: i16, name: &str, ty: Type) -> Column {
    Column { not_null: attnum == 1, ..Column::new(attnum, name, ty.plain()) }
}

fn table() -> Table {
    Table {
        oid: 16384,
        schema: crate::catalog::PUBLIC,
        name: "t".into(),
        slots: vec![column(1, "id", Type::INT4), column(2, "v", Type::TEXT)],
        primary_key: Some(Key { oid: 16385, name: "t_pkey".into(), columns: vec![1], comment: None }),
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        foreign: None,
        comment: None,
    }
}

/// Commits a definition, if given, and rows: Some(values) put, None deleted.
fn commit(db: &Arc<Database>, define: Option<&Table>, table: &Table, rows: &[(i32, Option<Vec<Datum>>)]) -> Version {
    let mut txn = db.begin();
    if let Some(definition) = define {
        let snapshot = db.snapshot();
        let catalog = load::load(&ReadView::from(snapshot.clone()), load::stamp(&snapshot).unwrap()).unwrap();
        let mut change = Change::new(Arc::new(catalog), 16400);
        change.put_table(definition.clone()).unwrap();
        for (key, value) in change.finish().1 {
            txn.put(key, value.unwrap()).unwrap();
        }
    }
    let codec = RowKeyCodec::new(table);
    for (id, row) in rows {
        let mut key_row = vec![Datum::Null; table.width()];
        key_row[0] = Datum::Int4(*id);
        match row {
            Some(row) => {
                let mut bytes = Vec::new();
                RowEncoder::new(table).encode(row, &mut bytes);
                txn.put(codec.encode(&key_row), bytes).unwrap()
            }
            None => txn.delete(codec.encode(&key_row)).unwrap(),
        };
    }
    db.commit(txn, CommitInfo { message: "m".into(), ..CommitInfo::at(1_000_000) }).unwrap()
}

fn show(cx: &ExecCx, function: &str, args: &[Datum], equals: &[(usize, Datum)]) -> Result<Vec<String>> {
    let found = table_functions().into_iter().find(|f| f.name() == function).unwrap();
    let special = found.for_arguments(args, &cx.session.catalog, &cx.session.search_path)?.unwrap();
    let columns = special.columns();
    let text = |row: Row| {
        assert_eq!(row.len(), columns.len());
        let values = row.iter().zip(columns.iter()).filter(|(_, f)| &*f.name != "_committed_at");
        values
            .map(|(v, f)| if v.is_null() { "-".into() } else { io::to_text(v, f.ty.ty, &cx.session) })
            .collect::<Vec<String>>()
            .join(" ")
    };
    special.rows(args, equals, cx)?.map(|r| r.map(text)).collect()
}

#[test]
fn history_and_differences() {
    let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
    let db = Database::open(store.get_by_name("db").unwrap(), Cache::new(1 << 20), Options::default()).unwrap();
    let row = |id, v: &str| Some(vec![Datum::Int4(id), Datum::text(v)]);
    let first = table();
    let v1 = commit(&db, Some(&first), &first, &[(1, row(1, "10")), (2, row(2, "20"))]);
    let v2 = commit(&db, None, &first, &[(1, row(1, "11")), (2, None)]);
    // v becomes an integer named w; a column is added.
    let mut second = table();
    second.slots[1] = column(2, "w", Type::INT4);
    second.slots.push(column(3, "n", Type::BOOL));
    let v3 =
        commit(&db, Some(&second), &second, &[(1, Some(vec![Datum::Int4(1), Datum::Int4(12), Datum::Bool(true)]))]);

    let snapshot = db.snapshot();
    let catalog = load::load(&ReadView::from(snapshot.clone()), load::stamp(&snapshot).unwrap()).unwrap();
    let mut session = testing::session();
    session.catalog = Arc::new(catalog);
    let cx = ExecCx {
        session: Arc::new(session),
        database: db.clone(),
        view: ReadView::from(snapshot),
        params: Vec::new(),
        writer: None,
        shared: Default::default(),
        waiting: None,
    };

    let name = Datum::text("t");
    let at = |v: Version| Datum::Int8(v.0.cast_signed());
    let all = [
        format!("{v1} insert 1 10 -"),
        format!("{v1} insert 2 20 -"),
        format!("{v2} update 1 11 -"),
        format!("{v2} delete 2 20 -"),
        format!("{v3} update 1 12 t"),
    ];
    assert_eq!(show(&cx, "bee_history", std::slice::from_ref(&name), &[]).unwrap(), all);
    assert_eq!(show(&cx, "bee_history", &[Datum::Oid(16384), at(v1), at(v2)], &[]).unwrap(), all[2..4]);
    let of_one = [all[0].clone(), all[2].clone(), all[4].clone()];
    assert_eq!(show(&cx, "bee_history", std::slice::from_ref(&name), &[(3, Datum::Int4(1))]).unwrap(), of_one);

    assert_eq!(
        show(&cx, "bee_diff", &[name.clone(), at(v1), at(v3)], &[]).unwrap(),
        ["update 1 10 - 1 12 t", "delete 2 20 - - - -"]
    );
    assert_eq!(
        show(&cx, "bee_diff", &[name.clone(), at(v3), at(v1)], &[]).unwrap(),
        ["update 1 12 t 1 10 -", "insert - - - 2 20 -"]
    );
    assert_eq!(show(&cx, "bee_diff", &[name.clone(), Datum::Int4(0)], &[]).unwrap(), ["insert - - - 1 12 t"]);

    let state_of = |args: &[Datum]| show(&cx, "bee_history", args, &[]).unwrap_err();
    assert_eq!(state_of(&[Datum::text("nothing")]).state(), state::UNDEFINED_TABLE);
    assert_eq!(state_of(&[Datum::text("pg_class")]).state(), state::WRONG_OBJECT_TYPE);
    for bad in [Datum::Int8(-1), Datum::Int8(1000), Datum::Int8(v2.0.cast_signed() - 1)] {
        let error = state_of(&[name.clone(), bad]);
        assert_eq!(error.state(), state::INVALID_PARAMETER_VALUE);
        assert!(error.0.detail.is_some());
    }

    let commits = tables().remove(0);
    let versions = |equals: &[(usize, Datum)]| {
        commits
            .rows(&[], equals, &cx)
            .unwrap()
            .map(|r| r.unwrap()[0].clone())
            .map(|d| if let Datum::Int8(n) = d { n } else { 0 })
            .collect::<Vec<_>>()
    };
    assert_eq!(versions(&[]), [v3, v2, v1].map(|v| v.0.cast_signed()));
    assert_eq!(versions(&[(0, at(v2))]), [v2.0.cast_signed()]);
    assert!(versions(&[(0, Datum::Int8(v2.0.cast_signed() - 1))]).is_empty());

    // Blocks of other tables are passed over with an eye on cancels too.
    cx.session.cancel.raise(SqlError::new(state::QUERY_CANCELED, "stop"));
    assert_eq!(show(&cx, "bee_history", std::slice::from_ref(&name), &[]).unwrap_err().message(), "stop");
}
