//! Queries: SELECT, VALUES, set operations, WITH, windows.

use super::ast::*;
use super::lexer::Tok;
use super::parser::{Parser, QUERY_HEIGHT};
use crate::error::Result;
use crate::ir::{FrameExclude, FrameUnit, SetOp};
use crate::lock::{Patience, RowMode};

impl Parser<'_> {
    /// SelectStmt: a query, in parentheses or not.
    pub fn query(&mut self) -> Result<Query> {
        self.nested(QUERY_HEIGHT, |p| {
            let pos = p.pos();
            let with = p.with_clause()?;
            let first = p.set_operand()?;
            p.query_rest(with, first, pos)
        })
    }

    /// Goes on with a query whose first operand, in parentheses, is read already.
    pub fn query_from(&mut self, first: Query) -> Result<Query> {
        let pos = first.pos;
        self.query_rest(None, first, pos)
    }

    /// Whether what follows a parenthesised query makes it part of a larger one.
    pub fn continues_query(&self) -> bool {
        self.one_of(&["union", "intersect", "except", "order", "limit", "offset", "fetch", "for"]).is_some()
    }

    fn query_rest(&mut self, with: Option<With>, first: Query, pos: Pos) -> Result<Query> {
        let mut query = self.set_operations(first, 0)?;
        let bare = query.with.is_none()
            && query.order_by.is_empty()
            && query.limit.is_none()
            && query.offset.is_none()
            && query.locking.is_empty();
        let more = self.one_of(&["order", "limit", "offset", "fetch", "for"]).is_some();
        if !bare && (more || with.is_some()) {
            // `(SELECT .. LIMIT 1) ORDER BY ..`: PostgreSQL merges the two levels where neither says the same thing twice.
            let inner_with = query.with.is_some();
            if with.is_some() && inner_with {
                return self.error(query.pos, "multiple WITH clauses not allowed");
            }
        }
        if with.is_some() {
            query.with = with;
        }
        if self.is_kw("order") {
            let order_pos = self.pos();
            let order_by = self.order_by()?;
            if !query.order_by.is_empty() {
                return self.error(order_pos, "multiple ORDER BY clauses not allowed");
            }
            query.order_by = order_by;
        }
        self.limits(&mut query)?;
        query.pos = pos;
        query.end = self.end();
        Ok(query)
    }

    /// LIMIT, OFFSET, FETCH and FOR, in any order PostgreSQL takes them.
    fn limits(&mut self, query: &mut Query) -> Result<()> {
        let (mut limit_seen, mut offset_seen) = (query.limit.is_some(), query.offset.is_some());
        loop {
            let pos = self.pos();
            if self.eat_kw("limit") {
                if limit_seen {
                    return self.error(pos, "multiple LIMIT clauses not allowed");
                }
                limit_seen = true;
                if !self.eat_kw("all") {
                    query.limit = Some(self.expr()?);
                    if self.is_op(",") {
                        return self
                            .error(pos, "LIMIT #,# syntax is not supported")
                            .map_err(|e| e.hint("Use separate LIMIT and OFFSET clauses."));
                    }
                }
            } else if self.eat_kw("offset") {
                if offset_seen {
                    return self.error(pos, "multiple OFFSET clauses not allowed");
                }
                offset_seen = true;
                query.offset = Some(self.expr()?);
                if !self.eat_kw("row") {
                    self.eat_kw("rows");
                }
            } else if self.eat_kw("fetch") {
                if limit_seen {
                    return self.error(pos, "multiple LIMIT clauses not allowed");
                }
                limit_seen = true;
                self.fetch_first(query, pos)?;
            } else if self.is_kw("for") {
                self.locking(query)?;
            } else {
                return Ok(());
            }
        }
    }

    fn fetch_first(&mut self, query: &mut Query, pos: Pos) -> Result<()> {
        if self.eat_one_of(&["first", "next"]).is_none() {
            return Err(self.unexpected());
        }
        let count = if self.one_of(&["row", "rows"]).is_some() {
            Expr { kind: ExprKind::Number("1".into()), pos: self.pos() }
        } else if matches!(self.tok(), Tok::Op("+" | "-")) {
            let pos = self.pos();
            Expr { kind: ExprKind::Number(self.signed_number()?), pos }
        } else {
            self.fetch_count()?
        };
        query.limit = Some(count);
        if self.eat_one_of(&["row", "rows"]).is_none() {
            return Err(self.unexpected());
        }
        if self.eat_kws(&["with", "ties"]) {
            query.with_ties = true;
            if query.order_by.is_empty() {
                return self.error(pos, "WITH TIES cannot be specified without ORDER BY clause");
            }
            return Ok(());
        }
        self.expect_kw("only")
    }

    /// c_expr: what FETCH counts by.
    fn fetch_count(&mut self) -> Result<Expr> {
        // ROW and ROWS follow, which no operator does: the whole expression is a c_expr in all that PostgreSQL accepts.
        self.expr()
    }

    fn locking(&mut self, query: &mut Query) -> Result<()> {
        self.advance();
        let mode = if self.eat_kw("update") {
            RowMode::Update
        } else if self.eat_kws(&["no", "key", "update"]) {
            RowMode::NoKeyUpdate
        } else if self.eat_kw("share") {
            RowMode::Share
        } else if self.eat_kws(&["key", "share"]) {
            RowMode::KeyShare
        } else if self.eat_kws(&["read", "only"]) {
            return Ok(());
        } else {
            return Err(self.unexpected());
        };
        let of = if self.eat_kw("of") { self.qnames()? } else { Vec::new() };
        let patience = if self.eat_kw("nowait") {
            Patience::Nowait
        } else if self.eat_kws(&["skip", "locked"]) {
            Patience::Skip
        } else {
            Patience::Wait
        };
        query.locking.push(Locking { mode, of, patience });
        Ok(())
    }

    /// UNION and EXCEPT bind alike, INTERSECT tighter; all to the left.
    fn set_operations(&mut self, mut left: Query, min: u8) -> Result<Query> {
        loop {
            let pos = self.pos();
            let (op, level) = match self.one_of(&["union", "except", "intersect"]) {
                Some("union") => (SetOp::Union, 1),
                Some("except") => (SetOp::Except, 1),
                Some(_) => (SetOp::Intersect, 2),
                None => return Ok(left),
            };
            if level < min {
                return Ok(left);
            }
            self.advance();
            let all = self.eat_kw("all");
            if !all {
                self.eat_kw("distinct");
            }
            let operand = self.set_operand()?;
            let right = self.set_operations(operand, level + 1)?;
            self.grow(3)?;
            let start = left.pos;
            let body = Body::SetOp { op, all, left: Box::new(left), right: Box::new(right), pos };
            left = bare_query(body, start, self.end());
        }
    }

    fn set_operand(&mut self) -> Result<Query> {
        let pos = self.pos();
        if self.is_op("(") {
            return self.nested(QUERY_HEIGHT, |p| {
                p.advance();
                let query = p.query()?;
                p.expect_op(")")?;
                Ok(query)
            });
        }
        let body = if self.eat_kw("values") {
            Body::Values(self.comma_list(|p| {
                p.expect_op("(")?;
                let row = p.comma_list(|p| p.expr())?;
                p.expect_op(")")?;
                Ok(row)
            })?)
        } else if self.eat_kw("table") {
            let name = self.table_reference(false)?;
            let star = Target { expr: Expr { kind: ExprKind::Star(vec![]), pos }, alias: None, end: pos };
            Body::Select(Box::new(Select { targets: vec![star], from: vec![name], ..empty_select() }))
        } else if self.eat_kw("select") {
            Body::Select(Box::new(self.select()?))
        } else {
            return Err(self.unexpected());
        };
        Ok(bare_query(body, pos, self.end()))
    }

    fn select(&mut self) -> Result<Select> {
        let mut select = empty_select();
        if self.eat_kw("distinct") {
            select.distinct = Distinct::All;
            if self.eat_kw("on") {
                self.expect_op("(")?;
                select.distinct = Distinct::On(self.comma_list(|p| p.expr())?);
                self.expect_op(")")?;
            }
        } else {
            self.eat_kw("all");
        }
        let empty = self.at_end()
            || self.is_op(")")
            || self.continues_query()
            || self.one_of(&["from", "where", "group", "having", "window", "into"]).is_some();
        if !empty || !matches!(select.distinct, Distinct::No) {
            select.targets = self.targets()?;
        }
        if self.eat_kw("into") {
            for word in ["temporary", "temp", "unlogged", "local", "global"] {
                if self.is_kw(word) && !self.is_op_at(1, ".") {
                    return self.unsupported(self.pos(), "SELECT INTO a temporary or unlogged table");
                }
            }
            self.eat_kw("table");
            select.into = Some(self.relation_name()?);
        }
        if self.eat_kw("from") {
            select.from = self.from_list()?;
        }
        if self.eat_kw("where") {
            select.filter = Some(self.expr()?);
        }
        if self.eat_kws(&["group", "by"]) {
            select.group_distinct = self.eat_kw("distinct");
            if !select.group_distinct {
                self.eat_kw("all");
            }
            select.group_by = self.comma_list(|p| p.group_item())?;
        }
        if self.eat_kw("having") {
            select.having = Some(self.expr()?);
        }
        if self.eat_kw("window") {
            select.windows = self.comma_list(|p| {
                let name = p.col_id()?;
                p.expect_kw("as")?;
                Ok((name, p.window_spec()?))
            })?;
        }
        Ok(select)
    }

    /// target_list.
    pub fn targets(&mut self) -> Result<Vec<Target>> {
        self.comma_list(|p| {
            let expr = p.target_value()?;
            let star = matches!(expr.kind, ExprKind::Star(ref names) if names.is_empty());
            let alias = if star {
                None
            } else if p.eat_kw("as") {
                Some(p.col_label()?.text)
            } else {
                p.bare_label().map(|n| n.text)
            };
            Ok(Target { expr, alias, end: p.end() })
        })
    }

    fn group_item(&mut self) -> Result<GroupItem> {
        let list = |p: &mut Self| -> Result<Vec<Expr>> {
            p.expect_op("(")?;
            let exprs = p.comma_list(|p| p.expr())?;
            p.expect_op(")")?;
            Ok::<_, crate::error::SqlError>(exprs)
        };
        if self.is_kw("rollup") && self.is_op_at(1, "(") {
            self.advance();
            return Ok(GroupItem::Rollup(list(self)?));
        }
        if self.is_kw("cube") && self.is_op_at(1, "(") {
            self.advance();
            return Ok(GroupItem::Cube(list(self)?));
        }
        if self.is_kw("grouping") && self.is_kw_at(1, "sets") {
            return self.nested(1, |p| {
                p.at += 2;
                p.expect_op("(")?;
                let sets = p.comma_list(|p| p.group_item())?;
                p.expect_op(")")?;
                Ok(GroupItem::Sets(sets))
            });
        }
        if self.is_op("(") && self.is_op_at(1, ")") {
            self.at += 2;
            return Ok(GroupItem::Empty);
        }
        Ok(GroupItem::Expr(self.expr()?))
    }

    /// ORDER BY and its list.
    pub fn order_by(&mut self) -> Result<Vec<OrderBy>> {
        self.expect_kws(&["order", "by"])?;
        self.comma_list(|p| {
            let expr = p.expr()?;
            let mut desc = false;
            if p.is_kw("using") {
                p.advance();
                let pos = p.pos();
                let (_, op) = if p.is_kw("operator") {
                    p.advance();
                    p.expect_op("(")?;
                    let op = p.qualified_operator()?;
                    p.expect_op(")")?;
                    op
                } else {
                    p.qualified_operator()?
                };
                desc = match op.as_str() {
                    "<" => false,
                    ">" => true,
                    _ => return p.unsupported(pos, "ORDER BY USING with an operator other than < and >"),
                };
            } else if p.eat_kw("desc") {
                desc = true;
            } else {
                p.eat_kw("asc");
            }
            Ok(OrderBy { expr, desc, nulls_first: p.nulls_order()? })
        })
    }

    /// NULLS FIRST or LAST.
    pub fn nulls_order(&mut self) -> Result<Option<bool>> {
        if self.is_kw("nulls") && (self.is_kw_at(1, "first") || self.is_kw_at(1, "last")) {
            let first = self.is_kw_at(1, "first");
            self.at += 2;
            return Ok(Some(first));
        }
        Ok(None)
    }

    /// `(..)` of OVER and WINDOW.
    pub fn window_spec(&mut self) -> Result<WindowSpec> {
        let pos = self.pos();
        self.expect_op("(")?;
        let mut spec = WindowSpec { base: None, partition_by: vec![], order_by: vec![], frame: None, pos };
        let clause = self.one_of(&["partition", "range", "rows", "groups"]).is_some();
        if !clause && self.is_col_id() {
            spec.base = Some(self.col_id()?);
        }
        if self.eat_kws(&["partition", "by"]) {
            spec.partition_by = self.comma_list(|p| p.expr())?;
        }
        if self.is_kw("order") {
            spec.order_by = self.order_by()?;
        }
        let frame_pos = self.pos();
        if let Some(unit) = self.eat_one_of(&["range", "rows", "groups"]) {
            let unit = match unit {
                "range" => FrameUnit::Range,
                "rows" => FrameUnit::Rows,
                _ => FrameUnit::Groups,
            };
            spec.frame = Some(self.frame(unit, frame_pos)?);
        }
        self.expect_op(")")?;
        Ok(spec)
    }

    fn frame(&mut self, unit: FrameUnit, pos: Pos) -> Result<Frame> {
        let windowing = |message: &str| {
            Err(crate::error::SqlError::new(crate::error::state::WINDOWING_ERROR, message).at(Some(pos + 1)))
        };
        let (start, end);
        if self.eat_kw("between") {
            start = self.frame_bound()?;
            self.expect_kw("and")?;
            end = self.frame_bound()?;
        } else {
            start = self.frame_bound()?;
            end = FrameBound::CurrentRow;
            if matches!(start, FrameBound::UnboundedFollowing) {
                return windowing("frame start cannot be UNBOUNDED FOLLOWING");
            }
            if matches!(start, FrameBound::Following(_)) {
                return windowing("frame starting from following row cannot end with current row");
            }
        }
        match (&start, &end) {
            (FrameBound::UnboundedFollowing, _) => return windowing("frame start cannot be UNBOUNDED FOLLOWING"),
            (_, FrameBound::UnboundedPreceding) => return windowing("frame end cannot be UNBOUNDED PRECEDING"),
            (FrameBound::CurrentRow, FrameBound::Preceding(_)) => {
                return windowing("frame starting from current row cannot have preceding rows");
            }
            (FrameBound::Following(_), FrameBound::Preceding(_) | FrameBound::CurrentRow) => {
                return windowing("frame starting from following row cannot have preceding rows");
            }
            _ => {}
        }
        let mut exclude = FrameExclude::NoOthers;
        if self.eat_kw("exclude") {
            exclude = if self.eat_kws(&["current", "row"]) {
                FrameExclude::CurrentRow
            } else if self.eat_kw("group") {
                FrameExclude::Group
            } else if self.eat_kw("ties") {
                FrameExclude::Ties
            } else {
                self.expect_kws(&["no", "others"])?;
                FrameExclude::NoOthers
            };
        }
        Ok(Frame { unit, start, end, exclude, pos })
    }

    fn frame_bound(&mut self) -> Result<FrameBound> {
        let direction = |p: &mut Self| match p.eat_one_of(&["preceding", "following"]) {
            Some(word) => Ok(word == "preceding"),
            None => Err(p.unexpected()),
        };
        if self.is_kw("unbounded") && (self.is_kw_at(1, "preceding") || self.is_kw_at(1, "following")) {
            self.advance();
            return Ok(if direction(self)? { FrameBound::UnboundedPreceding } else { FrameBound::UnboundedFollowing });
        }
        if self.eat_kws(&["current", "row"]) {
            return Ok(FrameBound::CurrentRow);
        }
        let value = self.expr()?;
        Ok(if direction(self)? { FrameBound::Preceding(value) } else { FrameBound::Following(value) })
    }

    /// WITH, if it begins here.
    pub fn with_clause(&mut self) -> Result<Option<With>> {
        if !self.eat_kw("with") {
            return Ok(None);
        }
        let recursive = self.eat_kw("recursive");
        let ctes = self.comma_list(|p| p.cte())?;
        Ok(Some(With { recursive, ctes }))
    }

    fn cte(&mut self) -> Result<Cte> {
        let name = self.col_id()?;
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        self.expect_kw("as")?;
        let materialized = if self.eat_kw("materialized") {
            Some(true)
        } else if self.eat_kws(&["not", "materialized"]) {
            Some(false)
        } else {
            None
        };
        self.expect_op("(")?;
        let statement = self.preparable()?;
        self.expect_op(")")?;
        let search_pos = self.pos();
        let mut search = None;
        if self.eat_kw("search") {
            let depth_first = self.eat_kw("depth");
            if !depth_first {
                self.expect_kw("breadth")?;
            }
            self.expect_kws(&["first", "by"])?;
            let columns = self.comma_list(|p| p.col_id())?;
            self.expect_kw("set")?;
            search = Some(SearchClause { depth_first, columns, set: self.col_id()?, pos: search_pos });
        }
        let cycle_pos = self.pos();
        let mut cycle = None;
        if self.eat_kw("cycle") {
            let columns = self.comma_list(|p| p.col_id())?;
            self.expect_kw("set")?;
            let mark = self.col_id()?;
            let mut values = None;
            if self.eat_kw("to") {
                let yes = self.expr()?;
                self.expect_kw("default")?;
                values = Some((yes, self.expr()?));
            }
            self.expect_kw("using")?;
            cycle = Some(CycleClause { columns, mark, values, path: self.col_id()?, pos: cycle_pos });
        }
        Ok(Cte { name, columns, materialized, statement, search, cycle, end: self.end() })
    }

    /// PreparableStmt: SELECT, INSERT, UPDATE, DELETE.
    pub fn preparable(&mut self) -> Result<StatementKind> {
        self.nested(QUERY_HEIGHT, |p| {
            let mut skip = 0;
            if p.is_kw("with") {
                skip = p.after_with();
            }
            let kind = ["insert", "update", "delete", "merge"].into_iter().find(|k| p.is_kw_at(skip, k));
            match kind {
                None => Ok(StatementKind::Query(Box::new(p.query()?))),
                Some("merge") => p.unsupported(p.pos(), "MERGE"),
                Some(kind) => {
                    let with = p.with_clause()?;
                    p.advance();
                    match kind {
                        "insert" => Ok(StatementKind::Insert(Box::new(p.insert(with)?))),
                        "update" => Ok(StatementKind::Update(Box::new(p.update(with)?))),
                        _ => Ok(StatementKind::Delete(Box::new(p.delete(with)?))),
                    }
                }
            }
        })
    }

    /// How many tokens a WITH clause takes up to the statement it belongs to, which is the first of these words outside parentheses.
    fn after_with(&self) -> usize {
        let mut depth = 0usize;
        for n in 0.. {
            match self.ahead(n) {
                Tok::Op("(" | "[") => depth += 1,
                Tok::Op(")" | "]") => depth = depth.saturating_sub(1),
                Tok::Op(";") | Tok::End | Tok::Error(_) => return n,
                // A CTE may be called `update`, and so may the columns of SEARCH and CYCLE.
                Tok::Word(w, _)
                    if depth == 0
                        && matches!(
                            w.as_str(),
                            "select" | "values" | "table" | "insert" | "update" | "delete" | "merge"
                        )
                        && !(n > 0
                            && (self.is_op_at(n - 1, ",")
                                || ["with", "recursive", "by", "set", "using", "cycle"]
                                    .iter()
                                    .any(|k| self.is_kw_at(n - 1, k)))) =>
                {
                    return n;
                }
                _ => {}
            }
        }
        0
    }
}

fn empty_select() -> Select {
    Select {
        distinct: Distinct::No,
        targets: vec![],
        into: None,
        from: vec![],
        filter: None,
        group_by: vec![],
        group_distinct: false,
        having: None,
        windows: vec![],
    }
}

fn bare_query(body: Body, pos: Pos, end: Pos) -> Query {
    Query { with: None, body, order_by: vec![], limit: None, with_ties: false, offset: None, locking: vec![], pos, end }
}
