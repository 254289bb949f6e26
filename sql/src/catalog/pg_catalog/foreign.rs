//! The one foreign-data wrapper, servers and foreign tables.

use super::classes;
use super::made::Ask;
use super::value::{NULL, oid, text, text_or_null};
use crate::catalog::schema::FdwOptions;
use crate::error::Result;
use crate::foreign::{WRAPPER, WRAPPER_NAME};
use crate::types::reg::SUPERUSER;
use crate::types::{Array, Datum, Row, Type};

/// Options as pg_catalog keeps them: `{name=value,...}`, NULL if there are none.
pub(in crate::catalog) fn options(options: &FdwOptions) -> Datum {
    if options.is_empty() {
        return NULL;
    }
    Array::from_values(Type::TEXT, options.iter().map(|(name, value)| text(format!("{name}={value}"))).collect())
        .datum()
}

/// pg_foreign_data_wrapper. Its handler is no function of the catalog.
pub(super) fn wrappers() -> Vec<Row> {
    vec![vec![oid(WRAPPER), text(WRAPPER_NAME), oid(SUPERUSER), oid(0), oid(0), NULL, NULL]]
}

pub(super) fn servers(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let servers = ask.cx.catalog.servers.values().map(|s| {
        vec![
            oid(s.oid),
            text(&s.name),
            oid(SUPERUSER),
            oid(WRAPPER),
            text_or_null(s.kind.as_ref()),
            text_or_null(s.version.as_ref()),
            NULL,
            options(&s.options),
        ]
    });
    Ok(servers.collect())
}

pub(super) fn tables(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |t: &std::sync::Arc<crate::catalog::Table>| {
        let foreign = t.foreign.as_ref()?;
        Some(vec![oid(t.oid), oid(foreign.server), options(&foreign.options)])
    };
    Ok(classes::tables(ask, "ftrelid").filter_map(row).collect())
}
