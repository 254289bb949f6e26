//! What the words of a stored text mean, and the text with that meaning written out.
//!
//! Views, defaults and checks are kept as text and bound again at each use, when there may be other columns, other tables of the same name,
//! another time zone. So before a text is kept, what only its surroundings settled is written into it ([`Trace::written_out`]): `*` and NATURAL
//! become lists of columns, columns and tables get their qualifiers, output columns their labels, and literals of dates and times become the
//! value they had. What the text means is a list of [`Meaning`]s, one for each name that binding resolved, in the order it did. The same text
//! (or one that differs only in names) with the same list is the same query: so DROP and ALTER find out whether a view still stands, and a
//! rename how its text must follow ([`Trace::renamed`]).

use std::sync::Arc;

use super::binder::*;
use super::walk::same;
use crate::catalog::Catalog;
use crate::catalog::ddl::{quote_identifier, regclass_literal};
use crate::catalog::schema::Relation;
use crate::parse::ast::{self, Name, Pos};
use crate::parse::{Lexeme, lexemes};
use crate::types::{Datum, Type, TypeMod, io};

/// What one name in a text was resolved to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    /// A relation, by its oid.
    Relation(u32),
    /// A column: how many rows further out, of which item of FROM there, and which of a table's columns it is (or else its place in the item).
    Column { up: usize, item: usize, origin: (u32, i16), place: usize, ty: TypeMod },
    /// The whole row of an item.
    Row { up: usize, item: usize },
    /// Two columns that USING or NATURAL makes equal.
    Using { left: (u32, i16), right: (u32, i16) },
    /// The fields `(row).*` stands for.
    Fields(Vec<Arc<str>>),
}

/// Where a name stands, as far as a rename may have to change it.
#[derive(Debug)]
enum Place {
    /// A relation's whole name, and where it could be given an alias if it has none.
    Relation { start: Pos, end: Pos, alias_at: Option<Pos> },
    /// A literal that names a relation.
    Literal { start: Pos, end: Pos },
    /// A column's own name, and where the label goes that it gives an output column.
    Column { start: Pos, end: Pos, text: String, label_at: Option<Pos> },
    /// None that can be changed.
    Fixed,
}

/// A piece of the text and what to write there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edit {
    start: Pos,
    end: Pos,
    text: String,
}

/// What binding a text found out about its words.
#[derive(Debug)]
pub(crate) struct Trace {
    text: String,
    lexemes: Vec<Lexeme>,
    /// In the order of binding.
    meanings: Vec<Meaning>,
    places: Vec<Place>,
    edits: Vec<Edit>,
    /// Pieces that stay as they are: clauses bound in a rewritten form.
    closed: Vec<(Pos, Pos)>,
    /// Columns need no qualifier: there is one row to read.
    one_row: bool,
}

impl Trace {
    pub(super) fn new(text: &str) -> Trace {
        Trace {
            text: text.to_owned(),
            lexemes: lexemes(text),
            meanings: vec![],
            places: vec![],
            edits: vec![],
            closed: vec![],
            one_row: false,
        }
    }
    pub(super) fn of_one_row(text: &str) -> Trace {
        Trace { one_row: true, ..Trace::new(text) }
    }

    /// What its names mean.
    pub(crate) fn meanings(&self) -> &[Meaning] {
        &self.meanings
    }

    /// Oids of the relations it names, each once, in order.
    pub(crate) fn relations(&self) -> Vec<u32> {
        let named = self.meanings.iter().filter_map(|m| if let Meaning::Relation(oid) = m { Some(*oid) } else { None });
        let mut oids: Vec<u32> = named.collect();
        oids.sort_unstable();
        oids.dedup();
        oids
    }

    /// Whether it reads this column of a table.
    pub(crate) fn reads(&self, table: u32, attnum: i16) -> bool {
        self.meanings.iter().any(|m| matches!(m, Meaning::Column { origin, .. } if *origin == (table, attnum)))
    }

    /// The text with everything its surroundings settled written into it.
    pub(crate) fn written_out(&self) -> String {
        let is_open = |e: &&Edit| !self.closed.iter().any(|(start, end)| *start <= e.start && e.start < *end);
        self.edited(self.edits.iter().filter(is_open).collect())
    }

    /// The text with the names that `after` has where `before` had others.
    ///
    /// A table read at another version keeps its name there. A table without an alias gets its old name as one, and a column that labels an output
    /// column leaves the label behind, so nothing else in the text has to follow.
    pub(crate) fn renamed(&self, before: &Catalog, after: &Catalog) -> String {
        let mut edits = Vec::new();
        for (meaning, place) in self.meanings.iter().zip(&self.places) {
            match (meaning, place) {
                (Meaning::Relation(oid), Place::Relation { .. } | Place::Literal { .. }) => {
                    let (Some(old), Some(new)) = (relation_name(*oid, before), relation_name(*oid, after)) else {
                        continue;
                    };
                    if old == new {
                        continue;
                    }
                    match place {
                        Place::Relation { start, end, alias_at } => {
                            let text = format!("{}.{}", quote_identifier(&new.0), quote_identifier(&new.1));
                            edits.push(Edit { start: *start, end: *end, text });
                            if let Some(at) = alias_at.filter(|_| old.1 != new.1) {
                                edits.push(Edit {
                                    start: at,
                                    end: at,
                                    text: format!(" AS {}", quote_identifier(&old.1)),
                                });
                            }
                        }
                        Place::Literal { start, end } => {
                            edits.push(Edit { start: *start, end: *end, text: relation_literal(&new) });
                        }
                        _ => {}
                    }
                }
                (Meaning::Column { origin, .. }, Place::Column { start, end, text, label_at }) => {
                    let (Some(old), Some(new)) = (column_name(*origin, before), column_name(*origin, after)) else {
                        continue;
                    };
                    if old == new || *text != old {
                        continue;
                    }
                    edits.push(Edit { start: *start, end: *end, text: quote_identifier(&new) });
                    if let Some(at) = *label_at {
                        edits.push(Edit { start: at, end: at, text: format!(" AS {}", quote_identifier(&old)) });
                    }
                }
                _ => {}
            }
        }
        self.edited(edits.iter().collect())
    }

    fn edited(&self, mut edits: Vec<&Edit>) -> String {
        edits.sort();
        edits.dedup();
        let (mut out, mut copied) = (String::with_capacity(self.text.len() * 2), 0);
        for edit in edits.iter().filter(|e| e.end as usize <= self.text.len()) {
            // One piece bound twice to different things: the first stands, and the caller sees that the text means something else.
            if (edit.start as usize) < copied {
                continue;
            }
            out.push_str(&self.text[copied..edit.start as usize]);
            out.push_str(&edit.text);
            copied = edit.end as usize;
        }
        out.push_str(&self.text[copied..]);
        out
    }

    fn edit(&mut self, start: Pos, end: Pos, text: impl Into<String>) {
        self.edits.push(Edit { start, end, text: text.into() });
    }
    fn note(&mut self, meaning: Meaning, place: Place) {
        self.meanings.push(meaning);
        self.places.push(place);
    }

    fn at(&self, pos: Pos) -> Option<usize> {
        self.lexemes.binary_search_by_key(&pos, |l| l.start).ok()
    }
    fn is(&self, index: usize, op: &str) -> bool {
        self.lexemes.get(index).is_some_and(|l| &self.text[l.start as usize..l.end as usize] == op)
    }
    /// Where a name ends that begins here, if it does.
    fn name_end(&self, pos: Pos, name: &str) -> Option<Pos> {
        let lexeme = &self.lexemes[self.at(pos)?];
        (lexeme.name.as_deref() == Some(name)).then_some(lexeme.end)
    }
    /// From where to where `*` or `t.*` is written; with parentheses around the name, those too.
    fn star_span(&self, pos: Pos) -> Option<(Pos, Pos)> {
        let (mut first, mut at) = (self.at(pos)?, self.at(pos)?);
        loop {
            if self.is(at, "*") {
                return Some((self.lexemes[first].start, self.lexemes[at].end));
            }
            self.lexemes.get(at)?.name.as_ref()?;
            at += 1;
            while self.is(at, ")") && first > 0 && self.is(first - 1, "(") {
                (first, at) = (first - 1, at + 1);
            }
            if !self.is(at, ".") {
                return None;
            }
            at += 1;
        }
    }
}

fn relation_name(oid: u32, catalog: &Catalog) -> Option<(String, String)> {
    let relation = catalog.by_oid(oid)?;
    Some((catalog.schemas.get(&relation.schema())?.name.clone(), relation.name().to_owned()))
}

/// The string constant that names a relation whatever the search path is.
fn relation_literal((schema, name): &(String, String)) -> String {
    regclass_literal(schema, name).trim_end_matches("::regclass").to_owned()
}

fn column_name((relation, attnum): (u32, i16), catalog: &Catalog) -> Option<String> {
    match catalog.by_oid(relation)? {
        Relation::Table(t) => t.columns().find(|c| c.attnum == attnum).map(|c| c.name.clone()),
        Relation::View(v) => v.columns.iter().find(|c| c.attnum == attnum).map(|c| c.name.clone()),
        _ => None,
    }
}

/// Types whose input depends on the session's settings or on the time it is read at.
fn reads_settings(ty: Type) -> bool {
    matches!(ty.element().unwrap_or(ty), Type::DATE | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ)
}

impl Binder<'_> {
    /// A relation in FROM. `end` is where an alias could go; `alias` whether it has one; `past` whether another version is read.
    pub fn note_relation(&mut self, name: &ast::QName, relation: &Relation, end: Pos, alias: bool, past: bool) {
        let Some(trace) = &mut self.trace else { return };
        let oid = relation.oid();
        let mut place = Place::Fixed;
        if let (false, Some(first)) = (past, trace.at(name.pos))
            && let Some(last) = trace.lexemes.get(first + 2 * (name.parts.len() - 1))
            && last.name.as_deref() == Some(name.last())
        {
            let (start, last) = (name.pos, last.end);
            place = Place::Relation { start, end: last, alias_at: (!alias).then_some(end) };
            if let Some(full) = relation_name(oid, &self.catalog) {
                trace.edit(start, last, format!("{}.{}", quote_identifier(&full.0), quote_identifier(&full.1)));
            }
        }
        trace.note(Meaning::Relation(oid), place);
    }

    /// A column by the last of `names`, found in this item.
    pub fn note_column(&mut self, level: usize, item: usize, column: usize, names: &[Name]) {
        if self.trace.is_none() {
            return;
        }
        let qualified = self.qualified(level, item, column);
        let meaning = self.column_meaning(level, item, column);
        let (source, _) = self.named(level, item, column).unwrap_or((item, column));
        // Only a relation's own columns are renamed with it; what a subquery passes on has a label.
        let relation = self.levels[level].items[source].relation;
        let is_own = matches!(meaning, Meaning::Column { origin, .. } if origin.0 == relation);
        let Some(trace) = &mut self.trace else { return };
        let mut place = Place::Fixed;
        if let [first, .., last] | [first @ last] = names
            && let Some(end) = trace.name_end(last.pos, &last.text)
        {
            if is_own {
                place = Place::Column { start: last.pos, end, text: last.text.clone(), label_at: None };
            }
            if let (Some(qualifier), true) = (qualified, names.len() != 2 && !trace.one_row) {
                trace.edit(first.pos, last.pos, format!("{}.", quote_identifier(&qualifier)));
            }
        }
        trace.note(meaning, place);
    }

    /// The columns `*` stands for, as (item, column).
    pub fn note_star(&mut self, pos: Pos, columns: &[(usize, usize, usize)]) {
        if self.trace.is_none() {
            return;
        }
        let mut words = Vec::with_capacity(columns.len());
        for &(level, item, column) in columns {
            let meaning = self.column_meaning(level, item, column);
            let name = quote_identifier(&self.levels[level].items[item].columns[column].name);
            words.push(match self.qualified(level, item, column) {
                Some(qualifier) => format!("{}.{name}", quote_identifier(&qualifier)),
                None => name,
            });
            if let Some(trace) = &mut self.trace {
                trace.note(meaning, Place::Fixed);
            }
        }
        let Some(trace) = &mut self.trace else { return };
        if let Some((start, end)) = trace.star_span(pos) {
            trace.edit(start, end, words.join(", "));
        } else if let Some(end) = trace.name_end(pos, "table") {
            // TABLE t.
            trace.edit(pos, end, format!("SELECT {} FROM", words.join(", ")));
        }
    }

    /// A whole row.
    pub fn note_row(&mut self, level: usize, item: usize) {
        let up = self.levels.len() - 1 - level;
        if let Some(trace) = &mut self.trace {
            trace.note(Meaning::Row { up, item }, Place::Fixed);
        }
    }

    /// The fields `(row).*` was taken apart into.
    pub fn note_fields(&mut self, fields: &Fields) {
        if let Some(trace) = &mut self.trace {
            trace.note(Meaning::Fields(fields.iter().map(|(name, _)| name.clone()).collect()), Place::Fixed);
        }
    }

    /// A column of USING or NATURAL.
    pub fn note_using(&mut self, left: (u32, i16), right: (u32, i16)) {
        if let Some(trace) = &mut self.trace {
            trace.note(Meaning::Using { left, right }, Place::Fixed);
        }
    }

    /// NATURAL, which from here on is USING these columns, or no condition at all.
    pub fn note_natural(&mut self, join: &ast::Join, names: &[Name]) {
        let Some(trace) = &mut self.trace else { return };
        let Some(end) = trace.name_end(join.pos, "natural") else { return };
        trace.edit(join.pos, end, "");
        let condition = if names.is_empty() {
            " ON true".to_owned()
        } else {
            let names: Vec<String> = names.iter().map(|n| quote_identifier(&n.text)).collect();
            format!(" USING ({})", names.join(", "))
        };
        trace.edit(join.right_end, join.right_end, condition);
    }

    /// An entry of a select list without AS has got this label.
    pub fn note_label(&mut self, target: &ast::Target, label: &str) {
        let Some(trace) = &mut self.trace else { return };
        match &target.expr.kind {
            // Its own name is the label, until it is renamed.
            ast::ExprKind::Column(_) => {
                if let Some(Place::Column { start, label_at, .. }) = trace.places.last_mut()
                    && *start >= target.expr.pos
                {
                    *label_at = Some(target.end);
                }
            }
            _ if label == "?column?" => {}
            _ => trace.edit(target.end, target.end, format!(" AS {}", quote_identifier(label))),
        }
    }

    /// A name in GROUP BY that means the output column at this index.
    pub fn note_output(&mut self, e: &ast::Expr, index: usize) {
        let Some(trace) = &mut self.trace else { return };
        if let ast::ExprKind::Column(names) = &e.kind
            && let [name] = &names[..]
            && let Some(end) = trace.name_end(name.pos, &name.text)
        {
            trace.edit(name.pos, end, (index + 1).to_string());
        }
    }

    /// A literal of unknown type has become this value.
    pub fn note_literal(&mut self, text: &str, pos: Pos, value: &Datum, ty: Type) {
        let Some(trace) = &mut self.trace else { return };
        let Some(lexeme) = trace.at(pos).map(|i| &trace.lexemes[i]).filter(|l| l.string.as_deref() == Some(text))
        else {
            return;
        };
        let (start, end) = (lexeme.start, lexeme.end);
        match value {
            Datum::Oid(oid) if ty == Type::REGCLASS => {
                let is_number = text.trim().bytes().all(|b| b.is_ascii_digit());
                if let Some(full) = relation_name(*oid, &self.catalog).filter(|_| !is_number) {
                    trace.edit(start, end, relation_literal(&full));
                    trace.note(Meaning::Relation(*oid), Place::Literal { start, end });
                } else {
                    trace.note(Meaning::Relation(*oid), Place::Fixed);
                }
            }
            _ if reads_settings(ty) => {
                let plain = io::to_text(value, ty, self.env.session);
                if plain != text {
                    trace.edit(start, end, format!("'{}'", plain.replace('\'', "''")));
                }
            }
            _ => {}
        }
    }

    /// A clause that is bound in a form nobody wrote.
    pub fn note_rewritten(&mut self, start: Pos, end: Pos) {
        if let Some(trace) = &mut self.trace {
            trace.closed.push((start, end));
        }
    }

    fn column_meaning(&self, level: usize, item: usize, column: usize) -> Meaning {
        let (item, column) = self.named(level, item, column).unwrap_or((item, column));
        let found = &self.levels[level].items[item].columns[column];
        let place = if found.origin.0 == 0 { column } else { 0 };
        Meaning::Column { up: self.levels.len() - 1 - level, item, origin: found.origin, place, ty: found.value.ty }
    }

    /// The name of an item by which this column can be read from here.
    fn qualified(&self, level: usize, item: usize, column: usize) -> Option<String> {
        let (item, _) = self.named(level, item, column)?;
        let name = self.levels[level].items[item].name.as_deref()?;
        let found = self.find_item(None, name, 0).ok()?;
        (found == Some((level, item))).then(|| name.to_owned())
    }

    /// The item with a name that has this column: a join without an alias only passes its sides' columns on.
    fn named(&self, level: usize, item: usize, column: usize) -> Option<(usize, usize)> {
        let items = &self.levels[level].items;
        if items[item].name.is_some() {
            return items[item].by_name.then_some((item, column));
        }
        let wanted = &items[item].columns[column];
        items.iter().enumerate().filter(|(_, i)| i.by_name && i.name.is_some()).find_map(|(i, candidate)| {
            let mut called = candidate.columns.iter().enumerate().filter(|(_, c)| c.name == wanted.name);
            match (called.next(), called.next()) {
                (Some((c, found)), None) if same(&found.value, &wanted.value) => Some((i, c)),
                _ => None,
            }
        })
    }
}
