//! The relations of pg_catalog: PostgreSQL 15's own names, columns, order and types, over our definitions.
//!
//! Which relations there are and what columns they have stands in `data/relations.tsv`, taken from a PostgreSQL 15 (`data/generate.sh`
//! says how); here each gets its rows:
//!
//! ```text
//! recorded   rows of PostgreSQL that say what is the same here: types, access methods, operator classes
//! fixed      rows made once from what the process knows: functions, operators and casts of the registry
//! computed   rows made from the catalog the statement sees, or from its session
//! empty      what we have nothing of: triggers, policies, publications, extensions ...
//! ```
//!
//! A relation that could have rows here but has none to show is left out rather than shown empty. Expressions of defaults, checks and
//! views are shown as they are stored, that is as they were written, not as PostgreSQL would deparse them. Tables have no row type, so
//! `pg_class.reltype` is 0.

pub(crate) mod activity;
mod classes;
mod cluster;
mod constraints;
pub(super) mod describe;
pub(super) mod foreign;
mod locks;
mod made;
mod routines;
pub(super) mod value;

use std::sync::Arc;

pub(super) use made::{Ask, Made, Rows, definitions, fits};

use super::PG_CATALOG;
use super::schema::VirtualTable;

pub(super) use classes::index_attnums;
pub(super) use constraints::columns_of;
pub(crate) use describe::{check_def, foreign_key_def, index_column_name, index_def, key_def, marks, view_def};
pub(crate) use routines::proc_row;
pub(super) use routines::proc_rows;

/// All of them.
pub fn tables() -> Vec<Arc<dyn VirtualTable>> {
    definitions()
        .iter()
        .filter(|d| d.schema == PG_CATALOG)
        .map(|d| Arc::new(Made::new(d, rows_of(d.name))) as Arc<dyn VirtualTable>)
        .collect()
}

fn rows_of(name: &str) -> Rows {
    match name {
        "pg_type" => Rows::Recorded(include_str!("data/pg_type.tsv")),
        "pg_am" => Rows::Recorded(include_str!("data/pg_am.tsv")),
        "pg_language" => Rows::Recorded(include_str!("data/pg_language.tsv")),
        "pg_collation" => Rows::Recorded(include_str!("data/pg_collation.tsv")),
        "pg_tablespace" => Rows::Recorded(include_str!("data/pg_tablespace.tsv")),
        "pg_opclass" => Rows::Recorded(classes::OPCLASSES),
        "pg_opfamily" => Rows::Recorded(include_str!("data/pg_opfamily.tsv")),
        "pg_amop" => Rows::Recorded(include_str!("data/pg_amop.tsv")),
        "pg_amproc" => Rows::Recorded(include_str!("data/pg_amproc.tsv")),
        "pg_proc" => Rows::Fixed(routines::procs),
        "pg_operator" => Rows::Fixed(routines::operators),
        "pg_cast" => Rows::Fixed(routines::casts),
        "pg_aggregate" => Rows::Fixed(routines::aggregates),
        "pg_namespace" => Rows::Computed(classes::namespaces),
        "pg_class" => Rows::Defined(classes::classes),
        "pg_attribute" => Rows::Defined(classes::attributes),
        "pg_attrdef" => Rows::Defined(classes::defaults),
        "pg_sequence" => Rows::Defined(classes::sequences),
        "pg_description" => Rows::Computed(classes::descriptions),
        "pg_rewrite" => Rows::Computed(classes::rewrites),
        "pg_depend" => Rows::Computed(classes::dependencies),
        "pg_tables" => Rows::Defined(classes::tables_view),
        "pg_views" => Rows::Defined(classes::views_view),
        "pg_sequences" => Rows::Defined(classes::sequences_view),
        "pg_foreign_data_wrapper" => Rows::Fixed(foreign::wrappers),
        "pg_foreign_server" => Rows::Computed(foreign::servers),
        "pg_foreign_table" => Rows::Defined(foreign::tables),
        "pg_index" => Rows::Defined(constraints::indexes),
        "pg_constraint" => Rows::Defined(constraints::constraints),
        "pg_indexes" => Rows::Defined(constraints::indexes_view),
        "pg_database" => Rows::Computed(cluster::databases),
        "pg_db_role_setting" => Rows::Computed(cluster::database_settings),
        "pg_roles" => Rows::Computed(cluster::roles),
        "pg_authid" => Rows::Computed(cluster::authids),
        "pg_user" | "pg_shadow" => Rows::Computed(cluster::users),
        "pg_settings" => Rows::Computed(cluster::settings),
        "pg_locks" => Rows::Computed(locks::locks),
        "pg_stat_activity" => Rows::Computed(activity::activity),
        "pg_stat_database" => Rows::Computed(activity::databases),
        "pg_stat_replication" => Rows::Computed(cluster::replication),
        "pg_stat_wal_receiver" => Rows::Computed(cluster::wal_receiver),
        _ => Rows::Empty,
    }
}

#[cfg(test)]
pub(crate) mod tests;
