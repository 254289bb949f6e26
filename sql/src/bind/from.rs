//! FROM: tables, views, subqueries, functions and joins, and the names they bring.

use std::sync::Arc;

use super::binder::*;
use super::coerce::call;
use super::function::{Callable, Found, set_fields};
use super::locking::LeafKind;
use super::query::has_set;
use super::scope::{Item, ItemColumn};
use super::walk::shift_columns;
use crate::catalog::Catalog;
use crate::catalog::schema::{Relation, Table, View, VirtualTable};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{SetFn, registry};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::Type;

/// A bound item of FROM: its rows and its names.
pub(super) struct FromOut {
    pub rel: Rel,
    pub items: Vec<Item>,
}

impl Binder<'_> {
    /// FROM's list; without one, a single row of no columns.
    pub fn from_clause(&mut self, items: &[ast::FromItem]) -> Result<FromOut> {
        let mut out: Option<FromOut> = None;
        for item in items {
            out = Some(match out {
                None => self.deeper(3, |b| b.from_item(item))?,
                Some(left) => self.join_next(left, item)?,
            });
        }
        let out = out.unwrap_or_else(|| FromOut { rel: one_row(), items: vec![] });
        Ok(out)
    }

    /// The next item of a comma list: an inner join without a condition.
    pub fn join_next(&mut self, left: FromOut, item: &ast::FromItem) -> Result<FromOut> {
        let lateral = needs_lateral(item);
        let (left, right) = self.right_side(left, item, lateral, false)?;
        check_names(&left.items, &right.items, item_pos(item))?;
        Ok(joined(JoinKind::Inner, left, right, None, lateral))
    }

    /// Two bound sides as an inner join without a condition.
    pub fn join_bound(&mut self, left: FromOut, right: FromOut, items: &[ast::FromItem]) -> Result<FromOut> {
        check_names(&left.items, &right.items, items.first().map_or(0, item_pos))?;
        Ok(joined(JoinKind::Inner, left, right, None, false))
    }

    /// Binds the right side of a join; a lateral one sees the left row as another level.
    fn right_side(
        &mut self,
        left: FromOut,
        item: &ast::FromItem,
        lateral: bool,
        no_lateral: bool,
    ) -> Result<(FromOut, FromOut)> {
        if !lateral {
            let right = self.deeper(3, |b| b.from_item(item))?;
            return Ok((left, right));
        }
        let FromOut { rel, items } = left;
        let mut level = Level::new(items, Clause::FromFunction);
        level.lateral = true;
        for item in &mut level.items {
            item.no_lateral = no_lateral;
        }
        let (right, mut level) = self.in_level(level, |b| b.deeper(3, |b| b.from_item(item)))?;
        for item in &mut level.items {
            item.no_lateral = false;
        }
        Ok((FromOut { rel, items: level.items }, right))
    }

    fn from_item(&mut self, item: &ast::FromItem) -> Result<FromOut> {
        if !matches!(item, ast::FromItem::Join(_)) {
            self.count_relation()?;
        }
        match item {
            ast::FromItem::Table { name, as_of, alias, end } => {
                self.table_item(name, as_of.as_ref(), alias.as_ref(), *end)
            }
            ast::FromItem::Subquery { query, alias, pos, .. } => {
                let lock = self.lock_of_item(alias.as_ref().map(|a| a.name.as_str()), LeafKind::Query)?;
                self.inherited_lock = lock;
                let out = self.subquery_item(query, alias.as_ref(), *pos)?;
                self.lock_leaf(out, lock)
            }
            ast::FromItem::Function { calls, rows_from, ordinality, alias, pos, .. } => {
                let name = alias.as_ref().map(|a| a.name.as_str());
                let lock = self.lock_of_item(name, LeafKind::Other("a function"))?;
                // Arguments may hold queries of their own.
                let around = self.locks.take();
                let out = self.function_item(calls, *rows_from, *ordinality, alias.as_ref(), *pos)?;
                self.locks = around;
                self.lock_leaf(out, lock)
            }
            ast::FromItem::Join(join) => {
                self.lock_of_item(join.alias.as_ref().map(|a| a.name.as_str()), LeafKind::Other("a join"))?;
                self.join_item(join)
            }
        }
    }

    fn table_item(
        &mut self,
        name: &ast::QName,
        as_of: Option<&ast::AsOf>,
        alias: Option<&ast::Alias>,
        end: Pos,
    ) -> Result<FromOut> {
        if name.parts.len() == 1
            && as_of.is_none()
            && let Some(out) = self.cte_item(name, alias)?
        {
            let shown = alias.map_or(name.last(), |a| a.name.as_str());
            let lock = self.lock_of_item(Some(shown), LeafKind::Other("a WITH query"))?;
            return self.lock_leaf(out, lock);
        }
        let foreign = self.foreign_version(name, as_of)?;
        let (catalog, at) = match as_of {
            None => (self.catalog.clone(), self.at),
            Some(_) if foreign.is_some() => (self.catalog.clone(), foreign),
            Some(as_of) => {
                let version = self.resolve_as_of(as_of)?;
                (self.env.resolver.catalog_at(version).at_pos(as_of.pos)?, Some(version))
            }
        };
        let Some(relation) = self.lookup(&catalog, name)? else {
            return error(state::UNDEFINED_TABLE, name.pos, format!("relation \"{name}\" does not exist"));
        };
        self.note_relation(name, &relation, end, alias.is_some(), at.is_some());
        let mut fields = vec![];
        let kind = match &relation {
            Relation::Table(_) => LeafKind::Table,
            Relation::View(_) => LeafKind::Query,
            _ => LeafKind::Virtual,
        };
        let lock = self.lock_of_item(Some(alias.map_or(name.last(), |a| a.name.as_str())), kind)?;
        let rel = match &relation {
            Relation::Table(table) if at.is_some() && foreign.is_none() && is_elsewhere(table) => {
                return unsupported(
                    name.pos,
                    format!("reading foreign table \"{}\" AS OF a version of this database", table.name),
                );
            }
            Relation::Table(table) if lock.is_some() && table.foreign.is_some() => {
                let message = format!("cannot lock rows in foreign table \"{}\"", table.name);
                return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
            }
            Relation::Table(table) if lock.is_some() && at.is_some() => {
                return unsupported(name.pos, format!("locking rows of \"{}\" AS OF a version", table.name));
            }
            Relation::Table(table) => {
                let row_key = self.locks.is_some() && at.is_none() && table.foreign.is_none();
                scan(table, at, row_key, self.system && table.foreign.is_none())
            }
            Relation::View(view) => {
                self.inherited_lock = lock;
                let out = self.expand_view(view, catalog.clone(), at, name.pos)?;
                fields = out.fields;
                out.rel
            }
            Relation::Virtual(table) => {
                if at.is_some() {
                    return unsupported(name.pos, format!("AS OF of \"{name}\""));
                }
                Rel { schema: table.columns(), kind: RelKind::Virtual { table: table.clone(), args: vec![] } }
            }
            Relation::Sequence(_) => return unsupported(name.pos, "selecting from a sequence"),
            Relation::Index(..) => {
                return Err(SqlError::new(
                    state::WRONG_OBJECT_TYPE,
                    format!("cannot open relation \"{}\"", name.last()),
                )
                .detail("This operation is not supported for indexes.")
                .at(Some(name.pos + 1)));
            }
        };
        let shown: Arc<str> = Arc::from(alias.map_or(name.last(), |a| a.name.as_str()));
        // What is read besides a table's own columns has no name.
        let columns = match &relation {
            Relation::Table(table) => table.width(),
            _ => rel.schema.len(),
        };
        let mut item = Item::over(Some(shown), &rel, &fields, columns);
        item.relation = relation.oid();
        item.table_name = Some(Arc::from(relation.name()));
        if alias.is_none() {
            item.schema = Some(relation.schema());
        }
        rename(&mut item, alias, name.pos)?;
        self.lock_leaf(FromOut { rel, items: vec![item] }, lock)
    }

    /// The version of its own bee that AS OF names, if this is a foreign table.
    fn foreign_version(&mut self, name: &ast::QName, as_of: Option<&ast::AsOf>) -> Result<Option<u64>> {
        let Some(as_of) = as_of else { return Ok(None) };
        let catalog = self.catalog.clone();
        match (self.lookup(&catalog, name)?, &as_of.kind) {
            (Some(Relation::Table(table)), ast::AsOfKind::Version(_)) if is_elsewhere(&table) => {
                self.resolve_as_of(as_of).map(Some)
            }
            (Some(Relation::Table(table)), _) if is_elsewhere(&table) => {
                unsupported(as_of.pos, "AS OF a time or a tag of a foreign table")
            }
            _ => Ok(None),
        }
    }

    /// A relation by a name as written, in a catalog.
    pub fn lookup(&self, catalog: &Catalog, name: &ast::QName) -> Result<Option<Relation>> {
        if let [database, ..] = &name.parts[..]
            && name.parts.len() == 3
            && *database != self.env.session.database
        {
            return error(
                state::FEATURE_NOT_SUPPORTED,
                name.pos,
                format!("cross-database references are not implemented: \"{name}\""),
            );
        }
        match name.schema() {
            None => Ok(catalog.find(&self.search_path, name.last()).cloned()),
            Some(schema) => match catalog.schema_oid(schema) {
                Some(oid) => Ok(catalog.relation(oid, name.last()).cloned()),
                // A missing schema of a relation is a missing relation, as PostgreSQL words it.
                None => Ok(None),
            },
        }
    }

    /// A view's query in place of the view, bound where the view was made.
    pub fn expand_view(&mut self, view: &View, catalog: Arc<Catalog>, at: Option<u64>, pos: Pos) -> Result<QueryOut> {
        if self.views.contains(&view.oid) {
            return error(
                state::INVALID_OBJECT_DEFINITION,
                pos,
                format!("infinite recursion detected in rules for relation \"{}\"", view.name),
            );
        }
        let query = view_query(&view.query)?;
        let mut inner = Binder::new(self.env);
        inner.catalog = catalog;
        inner.search_path.clone_from(&view.search_path);
        inner.at = at;
        inner.next_cte = self.next_cte;
        inner.views.clone_from(&self.views);
        inner.views.push(view.oid);
        inner.depth = self.depth;
        inner.relations = self.relations;
        inner.inherited_lock = self.inherited_lock.take();
        inner.system = names_system_column(&view.query);
        let out = inner.deeper(20, |b| b.query(&query, true)).map_err(without_position);
        self.next_cte = inner.next_cte;
        self.relations = inner.relations;
        self.relative |= inner.relative;
        let mut out = out?;
        if out.rel.schema.len() != view.columns.len() {
            return Err(SqlError::internal(format!("the query of view \"{}\" has other columns", view.name)));
        }
        let schema = view
            .columns
            .iter()
            .zip(out.rel.schema.iter())
            .map(|(c, f)| Field { name: Arc::from(c.name.as_str()), ty: f.ty, table_oid: view.oid, attnum: c.attnum })
            .collect::<Vec<_>>();
        out.rel.schema = schema.into();
        Ok(out)
    }

    fn subquery_item(&mut self, query: &ast::Query, alias: Option<&ast::Alias>, pos: Pos) -> Result<FromOut> {
        let Some(alias) = alias else {
            let (what, example) = match query.body {
                ast::Body::Values(_) => ("VALUES", "(VALUES ...)"),
                _ => ("subquery", "(SELECT ...)"),
            };
            return Err(SqlError::new(state::SYNTAX_ERROR, format!("{what} in FROM must have an alias"))
                .hint(format!("For example, FROM {example} [AS] foo."))
                .at(Some(pos + 1)));
        };
        let out = self.query(query, true)?;
        let mut item = Item::over(Some(Arc::from(alias.name.as_str())), &out.rel, &out.fields, out.rel.schema.len());
        rename(&mut item, Some(alias), pos)?;
        Ok(FromOut { rel: out.rel, items: vec![item] })
    }

    fn function_item(
        &mut self,
        calls: &[ast::Expr],
        rows_from: bool,
        ordinality: bool,
        alias: Option<&ast::Alias>,
        pos: Pos,
    ) -> Result<FromOut> {
        let (out, _) = self.in_level(Level::new(vec![], Clause::FromFunction), |b| {
            b.function_calls(calls, rows_from, ordinality, alias, pos)
        })?;
        Ok(out)
    }

    fn function_calls(
        &mut self,
        calls: &[ast::Expr],
        rows_from: bool,
        ordinality: bool,
        alias: Option<&ast::Alias>,
        pos: Pos,
    ) -> Result<FromOut> {
        if let [ast::Expr { kind: ast::ExprKind::Call(c), pos }] = calls
            && let Some(out) = self.virtual_function(c, ordinality, alias, *pos)?
        {
            return Ok(out);
        }
        let mut exprs = Vec::new();
        let mut columns: Vec<Field> = Vec::new();
        let mut fields: Vec<Option<Fields>> = Vec::new();
        let mut first_name: Option<String> = None;
        let mut scalar = calls.len() == 1 && !ordinality;
        for written in calls {
            let name = match &written.kind {
                ast::ExprKind::Call(c) => c.name.last().to_owned(),
                _ => super::label::label(written),
            };
            let vals = match &written.kind {
                // unnest of several arrays goes through them side by side.
                ast::ExprKind::Call(c) if name == "unnest" && c.args.len() > 1 => {
                    scalar = false;
                    let mut vals = Vec::new();
                    for arg in &c.args {
                        let arg = self.expr(&arg.value)?;
                        vals.push(self.set_function("unnest", arg, written.pos)?);
                    }
                    vals
                }
                _ => vec![self.expr(written)?],
            };
            for val in vals {
                let mut arguments = val.e.clone();
                let nested = match &mut arguments.kind {
                    ExprKind::SetCall { args, .. } => args.iter_mut().any(has_set),
                    _ => has_set(&mut arguments),
                };
                if nested {
                    return error(
                        state::FEATURE_NOT_SUPPORTED,
                        val.pos,
                        "set-returning functions must appear at top level of FROM",
                    );
                }
                match (&val.e.kind, &val.fields) {
                    (ExprKind::SetCall { func, .. }, Some(named)) if func.columns.len() > 1 => {
                        scalar = false;
                        columns.extend(named.iter().map(|(n, ty)| field(n, *ty)));
                        fields.extend(named.iter().map(|_| None));
                    }
                    _ => {
                        if val.ty() == Type::RECORD && val.fields.is_none() {
                            return error(
                                state::SYNTAX_ERROR,
                                val.pos,
                                "a column definition list is required for functions returning \"record\"",
                            );
                        }
                        let label = match alias {
                            // A result with a name of its own, as jsonb_array_elements' value, keeps it.
                            _ if let Some(named) = own_name(&val.e) => named.to_owned(),
                            Some(alias) if calls.len() == 1 && !rows_from && columns.is_empty() => alias.name.clone(),
                            _ => name.clone(),
                        };
                        columns.push(field(&label, val.e.ty));
                        fields.push(val.fields.clone());
                    }
                }
                let mut e = val.e;
                if e.ty.ty == Type::UNKNOWN {
                    e.ty = Type::TEXT.plain();
                }
                exprs.push(e);
            }
            first_name.get_or_insert(name);
        }
        for column in &mut columns {
            if column.ty.ty == Type::UNKNOWN {
                column.ty = Type::TEXT.plain();
            }
        }
        if ordinality {
            columns.push(field("ordinality", Type::INT8.plain()));
            fields.push(None);
        }
        let rel = Rel { kind: RelKind::Function { calls: exprs, ordinality }, schema: columns.into() };
        let shown = alias.map_or_else(|| first_name.unwrap_or_default(), |a| a.name.clone());
        let mut item = Item::over(Some(Arc::from(shown)), &rel, &fields, rel.schema.len());
        item.scalar = scalar;
        rename(&mut item, alias, pos)?;
        Ok(FromOut { rel, items: vec![item] })
    }

    /// A set-returning function of one argument, applied to a bound value.
    fn set_function(&mut self, name: &str, arg: Val, pos: Pos) -> Result<Val> {
        match self.find_function(name, name, vec![arg], &[], pos)? {
            Found::Function { what: Callable::Set(func), args, ret } => {
                let types: Vec<Type> = args.iter().map(Val::ty).collect();
                let fields = if func.columns.len() > 1 { Some(set_fields(func, &types)?) } else { None };
                let args = args.into_iter().map(|a| a.e).collect();
                Ok(Val { e: Expr { kind: ExprKind::SetCall { func, args }, ty: ret.plain() }, pos, fields })
            }
            _ => Err(SqlError::internal(format!("{name} returns no set"))),
        }
    }

    /// A table function of the catalog: bee_history('t').
    fn virtual_function(
        &mut self,
        c: &ast::Call,
        ordinality: bool,
        alias: Option<&ast::Alias>,
        pos: Pos,
    ) -> Result<Option<FromOut>> {
        let Some(name) = self.function_name(&c.name)? else { return Ok(None) };
        let r = registry();
        if r.sets.contains_key(name) || r.scalars.contains_key(name) {
            return Ok(None);
        }
        let Some(table) = self.catalog.table_functions.get(name).cloned() else { return Ok(None) };
        if ordinality {
            return unsupported(pos, format!("WITH ORDINALITY of {name}"));
        }
        let (vals, names) = self.call_args(c, name)?;
        if names.iter().any(Option::is_some) {
            return error(state::UNDEFINED_FUNCTION, pos, format!("function {name} does not take named arguments"));
        }
        let mut args = Vec::with_capacity(vals.len());
        for val in vals {
            args.push(self.resolve_unknown(val)?.e);
        }
        let table = self.specialise(table, &args, pos)?;
        let rel = Rel { schema: table.columns(), kind: RelKind::Virtual { table, args } };
        let shown: Arc<str> = Arc::from(alias.map_or(name, |a| a.name.as_str()));
        let mut item = Item::over(Some(shown), &rel, &[], rel.schema.len());
        rename(&mut item, alias, pos)?;
        Ok(Some(FromOut { rel, items: vec![item] }))
    }

    /// A table function whose columns depend on its arguments, for these arguments.
    fn specialise(&mut self, table: Arc<dyn VirtualTable>, args: &[Expr], pos: Pos) -> Result<Arc<dyn VirtualTable>> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            match super::constant::evaluate(arg, self.env.session) {
                Some(value) => values.push(value.at_pos(pos)?),
                None => return Ok(table),
            }
        }
        let special = table.for_arguments(&values, &self.catalog, &self.search_path).at_pos(pos)?;
        Ok(special.unwrap_or(table))
    }

    fn join_item(&mut self, join: &ast::Join) -> Result<FromOut> {
        let left = self.deeper(3, |b| b.from_item(&join.left))?;
        let lateral = needs_lateral(&join.right);
        let no_lateral = matches!(join.kind, JoinKind::Right | JoinKind::Full);
        let (left, right) = self.right_side(left, &join.right, lateral, no_lateral)?;
        check_names(&left.items, &right.items, join.pos)?;
        let offset = left.rel.schema.len();
        let shown = |items: &[Item]| -> Vec<ItemColumn> {
            items.iter().filter(|i| i.by_column).flat_map(|i| i.columns.iter().cloned()).collect()
        };
        let left_columns = shown(&left.items);
        let mut right_columns = shown(&right.items);
        for column in &mut right_columns {
            shift_columns(&mut column.value, offset);
        }
        let names: Vec<ast::Name> = match (&join.using, join.natural) {
            (Some((names, _)), _) => names.clone(),
            (None, true) => left_columns
                .iter()
                .filter(|l| right_columns.iter().any(|r| r.name == l.name))
                .map(|l| ast::Name { text: l.name.to_string(), pos: join.pos })
                .collect(),
            (None, false) => vec![],
        };
        if join.natural {
            self.note_natural(join, &names);
        }
        let (merged, mut on) = self.merge_columns(join.kind, &names, &left_columns, &right_columns)?;
        let mut out = joined(join.kind, left, right, None, lateral);
        if let Some(condition) = &join.on {
            let level = Level::new(std::mem::take(&mut out.items), Clause::JoinOn);
            let (bound, level) = self.in_level(level, |b| {
                let val = b.expr(condition)?;
                b.boolean(val, "JOIN/ON")
            })?;
            out.items = level.items;
            on = Some(bound);
        }
        if let RelKind::Join { on: place, .. } = &mut out.rel.kind {
            *place = on;
        }
        let is_merged = |c: &ItemColumn| names.iter().any(|n| n.text == *c.name);
        let columns: Vec<ItemColumn> = merged
            .iter()
            .cloned()
            .chain(left_columns.into_iter().filter(|c| !is_merged(c)))
            .chain(right_columns.into_iter().filter(|c| !is_merged(c)))
            .collect();
        let plain = |name: Option<&str>, columns: Vec<ItemColumn>| Item {
            name: name.map(Arc::from),
            schema: None,
            table_name: None,
            relation: 0,
            columns,
            by_name: name.is_some(),
            by_column: true,
            no_lateral: false,
            scalar: false,
            system: None,
        };
        if let Some(alias) = &join.alias {
            let mut item = plain(Some(&alias.name), columns);
            rename(&mut item, Some(alias), join.pos)?;
            out.items = vec![item];
            return Ok(out);
        }
        // Behind the join its sides are found by their names only; what has none (a join) is found no more.
        out.items.retain(|item| item.by_name);
        for item in &mut out.items {
            item.by_column = false;
        }
        if let Some((_, Some(alias))) = &join.using {
            let item = Item { by_column: false, ..plain(Some(alias), merged) };
            check_names(&out.items, std::slice::from_ref(&item), join.pos)?;
            out.items.push(item);
        }
        out.items.push(plain(None, columns));
        Ok(out)
    }

    /// The columns of USING: each once, and the condition that they are equal.
    fn merge_columns(
        &mut self,
        kind: JoinKind,
        names: &[ast::Name],
        left: &[ItemColumn],
        right: &[ItemColumn],
    ) -> Result<(Vec<ItemColumn>, Option<Expr>)> {
        let mut merged = Vec::with_capacity(names.len());
        let mut conditions = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            if names[..i].iter().any(|n| n.text == name.text) {
                return error(
                    state::DUPLICATE_COLUMN,
                    name.pos,
                    format!("column name \"{}\" appears more than once in USING clause", name.text),
                );
            }
            let find = |columns: &[ItemColumn], side: &str| -> Result<ItemColumn> {
                let mut found = columns.iter().filter(|c| *c.name == name.text);
                match (found.next(), found.next()) {
                    (Some(column), None) => Ok(column.clone()),
                    (None, _) => error(
                        state::UNDEFINED_COLUMN,
                        name.pos,
                        format!("column \"{}\" specified in USING clause does not exist in {side} table", name.text),
                    ),
                    _ => error(
                        state::AMBIGUOUS_COLUMN,
                        name.pos,
                        format!("common column name \"{}\" appears more than once in {side} table", name.text),
                    ),
                }
            };
            let (l, r) = (find(left, "left")?, find(right, "right")?);
            self.note_using(l.origin, r.origin);
            let val = |c: &ItemColumn| Val { e: c.value.clone(), pos: name.pos, fields: c.fields.clone() };
            let c = self.comparison("=", val(&l), val(&r), name.pos)?;
            conditions.push(call(c.func, vec![c.left, c.right], Type::BOOL.plain()));
            let common = self.common_type_of(&[&val(&l), &val(&r)], "JOIN/USING")?;
            let typmod = if l.value.ty == r.value.ty { l.value.ty.typmod } else { -1 };
            let mut side = |c: &ItemColumn| self.to_common(val(c), common, "JOIN/USING").map(|v| v.e);
            let (left_value, right_value) = (side(&l)?, side(&r)?);
            let is_plain = |e: &Expr| matches!(e.kind, ExprKind::Column(_));
            let (mut value, origin) = match kind {
                JoinKind::Inner if !is_plain(&left_value) && is_plain(&right_value) => (right_value, r.origin),
                JoinKind::Inner | JoinKind::Left => (left_value, l.origin),
                JoinKind::Right => (right_value, r.origin),
                JoinKind::Full => {
                    let ty = common.plain();
                    (Expr { kind: ExprKind::Coalesce(vec![left_value, right_value]), ty }, (0, 0))
                }
            };
            value.ty.typmod = typmod;
            merged.push(ItemColumn { name: l.name.clone(), value, fields: l.fields.clone(), origin });
        }
        let on = match conditions.len() {
            0 => None,
            1 => conditions.pop(),
            _ => Some(Expr { kind: ExprKind::And(conditions), ty: Type::BOOL.plain() }),
        };
        Ok((merged, on))
    }
}

/// The syntax of a view's text.
pub(super) fn view_query(text: &str) -> Result<Box<ast::Query>> {
    let mut statements = crate::parse::parse(text).map_err(without_position)?;
    match statements.pop().map(|s| s.kind) {
        Some(ast::StatementKind::Query(query)) if statements.is_empty() => Ok(query),
        _ => Err(SqlError::internal("the query of a view is no query")),
    }
}

/// Reads a stored table.
pub(super) fn scan(table: &Arc<Table>, at: Option<u64>, row_key: bool, system: bool) -> Rel {
    let mut schema: Vec<Field> = table.fields().to_vec();
    if row_key {
        schema.push(field("row key", Type::BYTEA.plain()));
    }
    if system {
        schema.push(field("xmin", Type::XID.plain()));
        schema.push(field("ctid", Type::TID.plain()));
    }
    Rel {
        kind: RelKind::Scan { table: table.clone(), at: at.map(|version| AsOf { version }), row_key, system },
        schema: schema.into(),
    }
}

/// Whether a text may name a system column that rows are read for. Where it does not, and most never do, nobody need read one.
pub(super) fn names_system_column(text: &str) -> bool {
    text.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"ctid") || word.eq_ignore_ascii_case(b"xmin"))
}

/// Two sides side by side, their names with them.
fn joined(kind: JoinKind, left: FromOut, right: FromOut, on: Option<Expr>, lateral: bool) -> FromOut {
    let offset = left.rel.schema.len();
    let schema = left.rel.schema.iter().chain(right.rel.schema.iter()).cloned().collect();
    let mut items = left.items;
    items.extend(right.items.into_iter().map(|mut item| {
        item.shift(offset);
        item
    }));
    // Joining with the one row of an empty FROM adds nothing.
    let rel =
        Rel { kind: RelKind::Join { kind, left: Box::new(left.rel), right: Box::new(right.rel), on, lateral }, schema };
    FromOut { rel, items }
}

/// Two tables of one name cannot be told apart, unless they are of different schemas and have no alias.
fn check_names(left: &[Item], right: &[Item], pos: Pos) -> Result<()> {
    for r in right.iter().filter(|r| r.by_name) {
        for l in left.iter().filter(|l| l.by_name && l.name == r.name) {
            let different_tables = l.schema.is_some() && r.schema.is_some() && l.relation != r.relation;
            if !different_tables {
                let name = r.name.as_deref().unwrap_or_default();
                return error(state::DUPLICATE_ALIAS, pos, format!("table name \"{name}\" specified more than once"));
            }
        }
    }
    Ok(())
}

/// Applies the column names of an alias.
pub(super) fn rename(item: &mut Item, alias: Option<&ast::Alias>, pos: Pos) -> Result<()> {
    let Some(alias) = alias else { return Ok(()) };
    if alias.columns.len() > item.columns.len() {
        return error(
            state::INVALID_COLUMN_REFERENCE,
            pos,
            format!(
                "table \"{}\" has {} columns available but {} columns specified",
                alias.name,
                item.columns.len(),
                alias.columns.len()
            ),
        );
    }
    for (column, name) in item.columns.iter_mut().zip(&alias.columns) {
        column.name = Arc::from(name.text.as_str());
    }
    Ok(())
}

/// Whether an item may read those to its left: it says LATERAL, or is a function whose arguments name columns.
fn needs_lateral(item: &ast::FromItem) -> bool {
    match item {
        ast::FromItem::Table { .. } => false,
        ast::FromItem::Subquery { lateral, .. } => *lateral,
        ast::FromItem::Function { calls, .. } => calls.iter().any(reads_columns),
        ast::FromItem::Join(join) => needs_lateral(&join.left) || needs_lateral(&join.right),
    }
}

/// Whether an expression might read a column: names or subqueries anywhere in it.
fn reads_columns(e: &ast::Expr) -> bool {
    use ast::ExprKind as K;
    match &e.kind {
        K::Number(_)
        | K::String(_)
        | K::BitString(_)
        | K::Bool(_)
        | K::Null
        | K::Param(_)
        | K::Keyword(_)
        | K::Default => false,
        K::Call(c) => c.args.iter().any(|a| reads_columns(&a.value)),
        K::Cast { input, .. } | K::Collate { input, .. } | K::Not(input) => reads_columns(input),
        K::Op { left, right, .. } => left.as_deref().is_some_and(reads_columns) || reads_columns(right),
        K::Array(parts) | K::Coalesce(parts) | K::And(parts) | K::Or(parts) => parts.iter().any(reads_columns),
        _ => true,
    }
}

fn item_pos(item: &ast::FromItem) -> Pos {
    match item {
        ast::FromItem::Table { name, .. } => name.pos,
        ast::FromItem::Subquery { pos, .. } | ast::FromItem::Function { pos, .. } => *pos,
        ast::FromItem::Join(join) => join.pos,
    }
}

/// An error about a stored text: the client wrote something else, so a position would mislead.
pub(super) fn without_position(mut error: SqlError) -> SqlError {
    error.0.position = None;
    error
}

/// Whether a table's rows are in another bee than the database's own.
fn is_elsewhere(table: &Table) -> bool {
    table.foreign.as_ref().is_some_and(|f| f.server != crate::foreign::OWN_SERVER)
}

/// The name of the one column of a set-returning function's result, where it is not the function's.
fn own_name(e: &Expr) -> Option<&'static str> {
    match &e.kind {
        ExprKind::SetCall { func: SetFn { name, columns: [(column, _)], .. }, .. } if column != name => Some(column),
        _ => None,
    }
}
