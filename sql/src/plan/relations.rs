//! The relations a statement uses, and how each is to be locked before its snapshot is taken.
//!
//! ```text
//! read                                     ACCESS SHARE
//! FOR UPDATE and its kin                   ROW SHARE
//! INSERT, UPDATE, DELETE                   ROW EXCLUSIVE
//! what a foreign key makes them look at    ROW SHARE, and ROW EXCLUSIVE where it makes them change it
//! ```
//!
//! Views count as well as what they read. What is read at another version is not locked: the past stays as it is. Nor are relations made on the fly.

use super::build::each_rel_of;
use crate::catalog::Catalog;
use crate::catalog::schema::{Action, Relation, Table};
use crate::ir::{Dml, DmlKind, LockLeaf, Rel, RelKind};
use crate::lock::TableMode;

/// What a bound statement locks, in the order its relations are met; each once, in its strongest mode.
pub fn relations(rel: &Rel, catalog: &Catalog) -> Vec<(u32, TableMode)> {
    let mut wanted = Vec::new();
    let mut followed = Vec::new();
    each_rel_of(rel, &mut |rel| {
        match &rel.kind {
            RelKind::Scan { table, at: None, .. } => add(&mut wanted, table.oid, TableMode::AccessShare),
            RelKind::LockRows { locks, .. } => {
                for lock in &locks.locks {
                    if let LockLeaf::Row { table, .. } = &locks.leaves[lock.leaf] {
                        add(&mut wanted, table.oid, TableMode::RowShare);
                    }
                }
            }
            RelKind::Dml(dml) => change(dml.as_ref(), catalog, &mut followed, &mut wanted),
            _ => {}
        }
        // The columns of a view say so.
        if let Some(field) = rel.schema.first()
            && field.table_oid != 0
            && matches!(catalog.by_oid(field.table_oid), Some(Relation::View(_)))
        {
            add(&mut wanted, field.table_oid, TableMode::AccessShare);
        }
    });
    wanted
}

/// What rows put into a table lock.
pub fn written(table: &Table) -> Vec<(u32, TableMode)> {
    let mut wanted = vec![(table.oid, TableMode::RowExclusive)];
    for key in &table.foreign_keys {
        add(&mut wanted, key.table, TableMode::RowShare);
    }
    wanted
}

fn add(wanted: &mut Vec<(u32, TableMode)>, oid: u32, mode: TableMode) {
    // Of the modes here each conflicts with all that a weaker one conflicts with.
    match wanted.iter_mut().find(|(known, _)| *known == oid) {
        Some((_, at)) => *at = mode.max(*at),
        None => wanted.push((oid, mode)),
    }
}

/// Actions that were followed: oid of the foreign key, and whether it is that of ON UPDATE.
type Followed = Vec<(u32, bool)>;

fn change(dml: &Dml, catalog: &Catalog, followed: &mut Followed, wanted: &mut Vec<(u32, TableMode)>) {
    let attnums = |table: &Table, positions: &mut dyn Iterator<Item = usize>| -> Vec<i16> {
        positions.filter_map(|p| table.columns().nth(p)).map(|c| c.attnum).collect()
    };
    match &dml.kind {
        DmlKind::Insert { table, on_conflict, .. } => {
            written(table).into_iter().for_each(|(oid, mode)| add(wanted, oid, mode));
            if let Some((sets, _)) = on_conflict.as_ref().and_then(|c| c.update.as_ref()) {
                updated(table, &attnums(table, &mut sets.iter().map(|(p, _)| *p)), catalog, followed, wanted);
            }
        }
        DmlKind::Update { table, assignments, .. } => {
            add(wanted, table.oid, TableMode::RowExclusive);
            updated(table, &attnums(table, &mut assignments.iter().map(|(p, _)| *p)), catalog, followed, wanted);
        }
        DmlKind::Delete { table, .. } => {
            add(wanted, table.oid, TableMode::RowExclusive);
            deleted(table, catalog, followed, wanted);
        }
    }
}

/// What an update of these columns reaches through foreign keys.
fn updated(
    table: &Table,
    columns: &[i16],
    catalog: &Catalog,
    followed: &mut Followed,
    wanted: &mut Vec<(u32, TableMode)>,
) {
    for key in table.foreign_keys.iter().filter(|k| k.columns.iter().any(|c| columns.contains(c))) {
        add(wanted, key.table, TableMode::RowShare);
    }
    for (of, key) in catalog.references_to(table.oid) {
        if key.referenced.iter().any(|c| columns.contains(c))
            && reach(of.oid, key.on_update, wanted)
            && follow((key.oid, true), followed)
        {
            updated(of, &key.columns, catalog, followed, wanted);
        }
    }
}

/// What a deletion reaches through foreign keys.
fn deleted(table: &Table, catalog: &Catalog, followed: &mut Followed, wanted: &mut Vec<(u32, TableMode)>) {
    for (of, key) in catalog.references_to(table.oid) {
        if reach(of.oid, key.on_delete, wanted) && follow((key.oid, false), followed) {
            match key.on_delete {
                Action::Cascade => deleted(of, catalog, followed, wanted),
                _ => updated(of, &key.columns, catalog, followed, wanted),
            }
        }
    }
}

/// A table that refers to a changed one. True: it is changed, too.
fn reach(oid: u32, action: Action, wanted: &mut Vec<(u32, TableMode)>) -> bool {
    let mode = match action {
        Action::NoAction | Action::Restrict => TableMode::RowShare,
        Action::Cascade | Action::SetNull | Action::SetDefault => TableMode::RowExclusive,
    };
    add(wanted, oid, mode);
    mode == TableMode::RowExclusive
}

/// True for the first time, so that circles end. That a table is locked already does not tell what its own changes reach.
fn follow(action: (u32, bool), followed: &mut Followed) -> bool {
    let is_new = !followed.contains(&action);
    if is_new {
        followed.push(action);
    }
    is_new
}
