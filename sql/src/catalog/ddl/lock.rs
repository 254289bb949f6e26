//! Which relations a statement that changes definitions locks, and in which mode, before it looks at them.
//!
//! The modes are PostgreSQL's (its documentation's "Explicit Locking", and what `AlterTableGetLockLevel` gives each action of ALTER TABLE). A
//! schema or server is locked by its oid like a relation: whoever makes something in it shares it, who drops it wants it alone.
//!
//! Names that mean nothing are passed over here: that they do is for the statement itself to say, once what it locked is locked.

use super::names::quote_identifier;
use crate::bind::{self, BindEnv};
use crate::catalog::schema::{Relation, Table};
use crate::catalog::{Catalog, PG_CATALOG};
use crate::lock::TableMode;
use crate::parse::ast::{
    AlterAction, AlterTable, ColumnConstraintKind, CommentTarget, ConstraintKind, CreateTable, CreateView,
    ForeignStatement, ObjectKind, QName, Query, References, SequenceOption, StatementKind, TableElement,
};
use crate::plan;

/// Relations and the mode each is to be locked in, in the order to lock them.
pub type Wanted = Vec<(u32, TableMode)>;

/// What a statement of [`super::run`] locks. `source` is the text its positions count in.
pub fn wanted(statement: &StatementKind, source: &str, env: &BindEnv<'_>) -> Wanted {
    let mut wants = Wants { env, source, wanted: Wanted::new() };
    wants.statement(statement);
    wants.wanted
}

struct Wants<'a> {
    env: &'a BindEnv<'a>,
    source: &'a str,
    wanted: Wanted,
}

impl Wants<'_> {
    fn statement(&mut self, statement: &StatementKind) {
        use TableMode::{AccessExclusive, Share, ShareRowExclusive, ShareUpdateExclusive};
        match statement {
            StatementKind::CreateTable(create) => self.create_table(create),
            StatementKind::CreateTableAs(create) => {
                self.creation(&create.name);
                if let StatementKind::Query(query) = &create.statement {
                    self.query(query);
                }
            }
            StatementKind::CreateIndex(create) => {
                self.named(&create.table, if create.concurrently { ShareUpdateExclusive } else { Share });
            }
            StatementKind::CreateView(create) => self.create_view(create),
            StatementKind::CreateSequence { name, options, .. } => {
                self.creation(name);
                self.owners(options);
            }
            StatementKind::AlterSequence { name, options, .. } => {
                self.named(name, ShareRowExclusive);
                self.owners(options);
            }
            StatementKind::AlterTable(alter) => self.alter_table(alter),
            StatementKind::Foreign(statement) => match &**statement {
                ForeignStatement::CreateTable { table, server, .. } => {
                    self.create_table(table);
                    self.server(&server.text, TableMode::AccessShare);
                }
                ForeignStatement::Import(import) => {
                    self.schema(&import.into.text, TableMode::AccessShare);
                    self.server(&import.server.text, TableMode::AccessShare);
                }
                ForeignStatement::CreateServer(_) | ForeignStatement::AlterServer { .. } => {}
            },
            // A new name of an index is nothing that a plan could stumble over.
            StatementKind::Rename { kind: ObjectKind::Index, name, .. } => self.index(name, None, ShareUpdateExclusive),
            StatementKind::Rename { kind, name, .. } | StatementKind::SetOwner { kind, name, .. }
                if is_relation(*kind) =>
            {
                self.named(name, AccessExclusive);
            }
            StatementKind::SetSchema { name, schema, .. } => {
                self.schema(&schema.text, TableMode::AccessShare);
                self.named(name, AccessExclusive);
            }
            StatementKind::Drop { kind: ObjectKind::Schema, names, .. } => {
                for name in names {
                    self.schema(name.last(), AccessExclusive);
                    self.inside(name.last());
                }
            }
            StatementKind::Drop { kind: ObjectKind::Server, names, .. } => {
                for name in names {
                    self.server(name.last(), AccessExclusive);
                }
                self.dependents();
            }
            StatementKind::Drop { kind: ObjectKind::Index, names, concurrently, .. } => {
                let mode = if *concurrently { ShareUpdateExclusive } else { AccessExclusive };
                names.iter().for_each(|name| self.index(name, Some(mode), mode));
            }
            StatementKind::Drop { kind, names, cascade, .. } if is_relation(*kind) => {
                names.iter().for_each(|name| self.named(name, AccessExclusive));
                if *cascade {
                    self.dependents();
                }
                self.referenced();
            }
            StatementKind::Truncate { tables, cascade, restart_identity } => {
                tables.iter().for_each(|name| self.named(name, AccessExclusive));
                if *cascade {
                    self.referring();
                }
                if *restart_identity {
                    self.owned_sequences();
                }
            }
            StatementKind::Comment { on, .. } => self.comment(on),
            StatementKind::Reindex { name, kind, .. } => {
                self.named(name, Share);
                if *kind == ObjectKind::Index {
                    self.index(name, None, AccessExclusive);
                }
            }
            _ => {}
        }
    }

    fn catalog(&self) -> &Catalog {
        &self.env.catalog
    }
    fn find(&self, name: &QName) -> Option<Relation> {
        bind::find_relation(name, self.env).ok().flatten()
    }
    fn add(&mut self, oid: u32, mode: TableMode) {
        if !self.wanted.iter().any(|(known, at)| *known == oid && (*at == mode || *at == TableMode::AccessExclusive)) {
            self.wanted.push((oid, mode));
        }
    }
    /// A relation of this name; a table's index stands for the table.
    fn named(&mut self, name: &QName, mode: TableMode) {
        match self.find(name) {
            Some(Relation::Virtual(_)) | None => {}
            Some(Relation::Index(table, _)) => self.add(table.oid, mode),
            Some(other) => self.add(other.oid(), mode),
        }
    }
    /// An index: perhaps its table, then itself.
    fn index(&mut self, name: &QName, table: Option<TableMode>, mode: TableMode) {
        if let Some(Relation::Index(of, oid)) = self.find(name) {
            if let Some(mode) = table {
                self.add(of.oid, mode);
            }
            self.add(oid, mode);
        }
    }
    fn schema(&mut self, name: &str, mode: TableMode) {
        if let Some(oid) = self.catalog().schema_oid(name) {
            self.add(oid, mode);
        }
    }
    fn server(&mut self, name: &str, mode: TableMode) {
        if let Some(oid) = self.catalog().server(name).map(|s| s.oid) {
            self.add(oid, mode);
        }
    }
    /// The schema a new object of this name goes to.
    fn creation(&mut self, name: &QName) {
        match name.schema() {
            Some(schema) => self.schema(schema, TableMode::AccessShare),
            None => {
                let path = &self.env.search_path;
                let found = path.iter().find(|s| **s != PG_CATALOG && self.catalog().schemas.contains_key(s)).copied();
                if let Some(oid) = found {
                    self.add(oid, TableMode::AccessShare);
                }
            }
        }
    }
    /// What a query reads.
    fn query(&mut self, query: &Query) {
        if let Ok(rel) = bind::bind_query(query, self.source, self.env) {
            for (oid, mode) in plan::relations(&rel, self.catalog()) {
                self.add(oid, mode);
            }
        }
    }
    fn create_table(&mut self, create: &CreateTable) {
        self.creation(&create.name);
        for element in &create.elements {
            match element {
                TableElement::Like { table, .. } => self.named(table, TableMode::AccessShare),
                TableElement::Constraint(constraint) => self.constraint(&constraint.kind),
                TableElement::Column(column) => {
                    for constraint in &column.constraints {
                        if let ColumnConstraintKind::References(references) = &constraint.kind {
                            self.references(references);
                        }
                    }
                }
            }
        }
    }
    fn constraint(&mut self, kind: &ConstraintKind) {
        if let ConstraintKind::ForeignKey { references, .. } = kind {
            self.references(references);
        }
    }
    fn references(&mut self, references: &References) {
        self.named(&references.table, TableMode::ShareRowExclusive);
    }
    fn create_view(&mut self, create: &CreateView) {
        self.creation(&create.name);
        if create.or_replace {
            self.named(&create.name, TableMode::AccessExclusive);
        }
        self.query(&create.query);
    }
    fn owners(&mut self, options: &[SequenceOption]) {
        for option in options {
            if let SequenceOption::OwnedBy(Some(name)) = option
                && let Some((_, table)) = name.parts.split_last().filter(|(_, table)| !table.is_empty())
            {
                self.named(&QName { parts: table.to_vec(), pos: name.pos }, TableMode::AccessShare);
            }
        }
    }

    fn alter_table(&mut self, alter: &AlterTable) {
        let mode = alter.actions.iter().map(of_action).max().unwrap_or(TableMode::AccessExclusive);
        let table = self.find(&alter.name);
        self.named(&alter.name, mode);
        for action in &alter.actions {
            match action {
                AlterAction::AddConstraint(constraint) => self.constraint(&constraint.kind),
                AlterAction::AddColumn { column, .. } => {
                    for constraint in &column.constraints {
                        if let ColumnConstraintKind::References(references) = &constraint.kind {
                            self.references(references);
                        }
                    }
                }
                // The table referred to has its part in a foreign key, too.
                AlterAction::DropConstraint { name, .. } => {
                    if let Some(Relation::Table(table)) = &table
                        && let Some(key) = table.foreign_keys.iter().find(|k| k.name == name.text)
                    {
                        self.add(key.table, TableMode::AccessExclusive);
                    }
                }
                AlterAction::DropColumn { name, cascade, .. } => {
                    if *cascade {
                        self.dependents();
                    }
                    if let Some(Relation::Table(table)) = &table
                        && let Some((_, column)) = table.column(&name.text)
                    {
                        for key in table.foreign_keys.iter().filter(|k| k.columns.contains(&column.attnum)) {
                            self.add(key.table, TableMode::AccessExclusive);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn comment(&mut self, on: &CommentTarget) {
        let mode = TableMode::ShareUpdateExclusive;
        match on {
            CommentTarget::Object(ObjectKind::Index, name) => self.index(name, None, mode),
            CommentTarget::Object(kind, name) if is_relation(*kind) => self.named(name, mode),
            CommentTarget::Object(..) => {}
            CommentTarget::Column(name) => {
                if let Some((_, table)) = name.parts.split_last().filter(|(_, table)| !table.is_empty()) {
                    self.named(&QName { parts: table.to_vec(), pos: name.pos }, mode);
                }
            }
            CommentTarget::Constraint { table, .. } => self.named(table, mode),
        }
    }

    /// All that is in a schema.
    fn inside(&mut self, schema: &str) {
        let Some(schema) = self.catalog().schema_oid(schema) else { return };
        let of_schema =
            |r: &&Relation| r.schema() == schema && !matches!(r, Relation::Index(..) | Relation::Virtual(_));
        let mut inside: Vec<u32> = self.catalog().relations.values().filter(of_schema).map(Relation::oid).collect();
        inside.sort_unstable();
        for oid in inside {
            self.add(oid, TableMode::AccessExclusive);
        }
        self.dependents();
        self.referenced();
    }
    /// What goes with the relations wanted so far: views over them, their sequences, and tables with foreign keys or defaults that refer to them.
    fn dependents(&mut self) {
        let mut at = 0;
        while let Some((oid, _)) = self.wanted.get(at).copied() {
            at += 1;
            let mut found: Vec<u32> = Vec::new();
            for relation in self.catalog().relations.values() {
                let depends = match relation {
                    Relation::View(view) => view.depends_on.contains(&oid),
                    Relation::Sequence(sequence) => sequence.owner.is_some_and(|(table, _)| table == oid),
                    Relation::Table(table) => {
                        table.foreign_keys.iter().any(|k| k.table == oid)
                            || table.foreign.as_ref().is_some_and(|f| f.server == oid)
                            || self.calls_sequence(table, oid)
                    }
                    Relation::Index(..) | Relation::Virtual(_) => false,
                };
                if depends {
                    found.push(relation.oid());
                }
            }
            found.sort_unstable();
            found.into_iter().for_each(|oid| self.add(oid, TableMode::AccessExclusive));
        }
    }
    /// Tables that those wanted so far refer to: they have their part in a foreign key, which goes.
    fn referenced(&mut self) {
        let of = |oid: &u32| self.catalog().table(*oid).map(|t| t.foreign_keys.iter().map(|k| k.table).collect());
        let tables: Vec<u32> =
            self.wanted.iter().filter_map(|(oid, _)| of(oid)).flat_map(|tables: Vec<u32>| tables).collect();
        tables.into_iter().for_each(|oid| self.add(oid, TableMode::AccessExclusive));
    }
    /// Whether a default of a table's column calls a sequence.
    fn calls_sequence(&self, table: &Table, oid: u32) -> bool {
        let Some(Relation::Sequence(sequence)) = self.catalog().by_oid(oid) else { return false };
        let name = quote_identifier(&sequence.name);
        table.slots.iter().any(|c| c.sequence == Some(oid) || c.default.as_ref().is_some_and(|d| d.contains(&name)))
    }
    /// Sequences of the relations wanted so far.
    fn owned_sequences(&mut self) {
        let tables: Vec<u32> = self.wanted.iter().map(|(oid, _)| *oid).collect();
        let owned = |r: &Relation| match r {
            Relation::Sequence(s) if s.owner.is_some_and(|(table, _)| tables.contains(&table)) => Some(s.oid),
            _ => None,
        };
        let mut sequences: Vec<u32> = self.catalog().relations.values().filter_map(owned).collect();
        sequences.sort_unstable();
        sequences.into_iter().for_each(|oid| self.add(oid, TableMode::AccessExclusive));
    }
    /// Tables that refer to those wanted so far, and so on.
    fn referring(&mut self) {
        let mut at = 0;
        while let Some((oid, _)) = self.wanted.get(at).copied() {
            at += 1;
            let tables: Vec<u32> = self.catalog().references_to(oid).into_iter().map(|(table, _)| table.oid).collect();
            tables.into_iter().for_each(|oid| self.add(oid, TableMode::AccessExclusive));
        }
    }
}

/// The mode an action of ALTER TABLE needs at least.
fn of_action(action: &AlterAction) -> TableMode {
    match action {
        AlterAction::ValidateConstraint(_) => TableMode::ShareUpdateExclusive,
        AlterAction::AddConstraint(constraint) => match constraint.kind {
            ConstraintKind::ForeignKey { .. } => TableMode::ShareRowExclusive,
            _ => TableMode::AccessExclusive,
        },
        _ => TableMode::AccessExclusive,
    }
}

fn is_relation(kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::Table | ObjectKind::View | ObjectKind::Index | ObjectKind::Sequence | ObjectKind::ForeignTable => {
            true
        }
        ObjectKind::Server | ObjectKind::Schema | ObjectKind::Database | ObjectKind::Other(_) => false,
    }
}
