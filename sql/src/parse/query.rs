//! Queries: SELECT, VALUES, set operations, WITH, FROM with its joins and AS OF, windows.

use super::ast::*;
use super::lexer::Tok;
use super::parser::{Parser, QUERY_HEIGHT};
use crate::error::Result;
use crate::ir::{FrameExclude, FrameUnit, JoinKind, SetOp};

/// What parentheses in FROM turned out to hold.
enum FromParen {
    Query(Box<Query>),
    Item(FromItem),
}

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
            && query.locking.is_none();
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
        let pos = self.pos();
        self.advance();
        let strength = if self.eat_kw("update") {
            "FOR UPDATE"
        } else if self.eat_kws(&["no", "key", "update"]) {
            "FOR NO KEY UPDATE"
        } else if self.eat_kw("share") {
            "FOR SHARE"
        } else if self.eat_kws(&["key", "share"]) {
            "FOR KEY SHARE"
        } else if self.eat_kws(&["read", "only"]) {
            return Ok(());
        } else {
            return Err(self.unexpected());
        };
        if self.eat_kw("of") {
            self.qnames()?;
        }
        if !self.eat_kw("nowait") {
            self.eat_kws(&["skip", "locked"]);
        }
        query.locking.get_or_insert((strength.into(), pos));
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

    /// FROM's list.
    pub fn from_list(&mut self) -> Result<Vec<FromItem>> {
        let items = self.comma_list(|p| p.from_item())?;
        self.grow(u32::try_from(items.len()).unwrap_or(u32::MAX).min(100_000))?;
        Ok(items)
    }

    /// table_ref: one item with the joins that follow it.
    pub fn from_item(&mut self) -> Result<FromItem> {
        self.nested(2, |p| {
            let first = p.from_primary()?;
            p.joins(first)
        })
    }

    fn joins(&mut self, mut left: FromItem) -> Result<FromItem> {
        loop {
            let pos = self.pos();
            let natural = self.is_kw("natural");
            let skip = usize::from(natural);
            let kind = if self.is_kw_at(skip, "cross") && !natural && self.is_kw_at(1, "join") {
                self.at += 2;
                let right = self.from_primary()?;
                self.grow(2)?;
                left = join(JoinKind::Inner, left, right, pos, self.end());
                continue;
            } else if self.is_kw_at(skip, "join") {
                self.at += skip + 1;
                JoinKind::Inner
            } else if self.is_kw_at(skip, "inner") && self.is_kw_at(skip + 1, "join") {
                self.at += skip + 2;
                JoinKind::Inner
            } else if let Some(side) = ["left", "right", "full"].into_iter().find(|k| self.is_kw_at(skip, k)) {
                let outer = usize::from(self.is_kw_at(skip + 1, "outer"));
                if !self.is_kw_at(skip + 1 + outer, "join") {
                    self.at += skip + 1 + outer;
                    return Err(self.unexpected());
                }
                self.at += skip + 2 + outer;
                match side {
                    "left" => JoinKind::Left,
                    "right" => JoinKind::Right,
                    _ => JoinKind::Full,
                }
            } else if natural {
                self.advance();
                return Err(self.unexpected());
            } else {
                return Ok(left);
            };
            let right = if natural { self.from_primary()? } else { self.join_right()? };
            self.grow(2)?;
            let FromItem::Join(mut made) = join(kind, left, right, pos, self.end()) else {
                unreachable!("join makes a join")
            };
            if natural {
                made.natural = true;
            } else if self.eat_kw("on") {
                made.on = Some(self.expr()?);
            } else if self.eat_kw("using") {
                let columns = self.name_list()?;
                let alias = if self.eat_kw("as") { Some(self.col_id()?.text) } else { None };
                made.using = Some((columns, alias));
            } else {
                return Err(self.unexpected());
            }
            left = FromItem::Join(made);
        }
    }

    /// The right side of a qualified join: `a JOIN b JOIN c ON .. ON ..` nests to the right.
    fn join_right(&mut self) -> Result<FromItem> {
        let mut right = self.from_primary()?;
        while !self.is_kw("on")
            && !self.is_kw("using")
            && self.one_of(&["join", "inner", "left", "right", "full", "cross", "natural"]).is_some()
        {
            right = self.nested(2, |p| p.one_join(right))?;
        }
        Ok(right)
    }

    fn one_join(&mut self, left: FromItem) -> Result<FromItem> {
        self.joins(left)
    }

    fn from_primary(&mut self) -> Result<FromItem> {
        let pos = self.pos();
        let lateral = self.eat_kw("lateral");
        if self.is_op("(") {
            match self.from_paren()? {
                FromParen::Query(query) => {
                    let alias = self.alias()?;
                    return Ok(FromItem::Subquery { lateral, query, alias, pos });
                }
                FromParen::Item(_) if lateral => return Err(self.unexpected_at(self.at)),
                FromParen::Item(item) => {
                    let alias = self.alias()?;
                    return Ok(match (item, alias) {
                        (FromItem::Join(mut inner), Some(alias)) => {
                            inner.alias = Some(alias);
                            FromItem::Join(inner)
                        }
                        (item, _) => item,
                    });
                }
            }
        }
        if self.is_kw("rows") && self.is_kw_at(1, "from") && self.is_op_at(2, "(") {
            self.at += 3;
            let calls = self.comma_list(|p| {
                let call = p.from_call()?;
                if p.is_kw("as") {
                    return p.unsupported(p.pos(), "a column definition list");
                }
                Ok(call)
            })?;
            self.expect_op(")")?;
            return self.function_rest(lateral, calls, true, pos);
        }
        if self.from_is_call() {
            let call = self.from_call()?;
            return self.function_rest(lateral, vec![call], false, pos);
        }
        if lateral {
            return Err(self.unexpected());
        }
        self.table_reference(true)
    }

    /// `( .. )` in FROM: a query, or joined tables.
    fn from_paren(&mut self) -> Result<FromParen> {
        self.nested(2, |p| {
            p.expect_op("(")?;
            if p.is_query_start() {
                let query = p.query()?;
                p.expect_op(")")?;
                return Ok(FromParen::Query(Box::new(query)));
            }
            let pos = p.pos();
            if p.is_op("(") {
                let first = match p.from_paren()? {
                    FromParen::Query(query) => {
                        if p.is_op(")") || p.continues_query() {
                            let query = p.query_from(*query)?;
                            p.expect_op(")")?;
                            return Ok(FromParen::Query(Box::new(query)));
                        }
                        let alias = p.alias()?;
                        FromItem::Subquery { lateral: false, query, alias, pos }
                    }
                    FromParen::Item(item) => {
                        let alias = p.alias()?;
                        match (item, alias) {
                            (FromItem::Join(mut inner), Some(alias)) => {
                                inner.alias = Some(alias);
                                FromItem::Join(inner)
                            }
                            (item, _) => item,
                        }
                    }
                };
                let item = p.joins(first)?;
                p.expect_op(")")?;
                return Ok(FromParen::Item(item));
            }
            let item = p.from_item()?;
            let is_join = matches!(item, FromItem::Join(_));
            if !is_join && p.is_op(")") {
                return Err(p.unexpected());
            }
            p.expect_op(")")?;
            Ok(FromParen::Item(item))
        })
    }

    /// Whether a function's call begins here: a name with `(` behind it, or a keyword that is a value.
    fn from_is_call(&self) -> bool {
        if self
            .one_of(&[
                "current_date",
                "current_time",
                "current_timestamp",
                "localtime",
                "localtimestamp",
                "current_user",
                "session_user",
                "user",
                "current_role",
                "current_catalog",
            ])
            .is_some()
            || (self.is_kw("current_schema") && !self.is_op_at(1, "."))
        {
            return true;
        }
        let mut n = 0;
        while matches!(self.ahead(n), Tok::Word(..) | Tok::Quoted(_)) {
            if self.is_op_at(n + 1, "(") {
                return true;
            }
            if !self.is_op_at(n + 1, ".") {
                return false;
            }
            n += 2;
        }
        false
    }

    fn from_call(&mut self) -> Result<Expr> {
        let pos = self.pos();
        let call = self.b_expr()?;
        match call.kind {
            ExprKind::Call(_)
            | ExprKind::Keyword(_)
            | ExprKind::Coalesce(_)
            | ExprKind::NullIf(..)
            | ExprKind::MinMax { .. }
            | ExprKind::Cast { .. } => Ok(call),
            _ => {
                self.error(pos, format!("syntax error at or near \"{}\"", &self.sql[pos as usize..self.end() as usize]))
            }
        }
    }

    fn function_rest(&mut self, lateral: bool, calls: Vec<Expr>, rows_from: bool, pos: Pos) -> Result<FromItem> {
        let ordinality = self.eat_kws(&["with", "ordinality"]);
        if self.is_kw("as") && self.is_op_at(1, "(") {
            return self.unsupported(self.pos(), "a column definition list");
        }
        let alias = if self.eat_kw("as") || self.is_col_id() { Some(self.col_id()?) } else { None };
        let alias = match alias {
            None => None,
            Some(name) => {
                let columns = if self.is_op("(") { self.function_columns()? } else { vec![] };
                Some(Alias { name: name.text, columns })
            }
        };
        Ok(FromItem::Function { lateral, calls, rows_from, ordinality, alias, pos })
    }

    /// Column names of a function's alias; types behind them would be a column definition list.
    fn function_columns(&mut self) -> Result<Vec<Name>> {
        self.expect_op("(")?;
        let names = self.comma_list(|p| {
            let name = p.col_id()?;
            if !p.is_op(",") && !p.is_op(")") && (p.is_type_function_name() || p.is_type_keyword()) {
                return p.unsupported(name.pos, "a column definition list");
            }
            Ok(name)
        })?;
        self.expect_op(")")?;
        Ok(names)
    }

    /// A table's name with AS OF and alias.
    fn table_reference(&mut self, with_alias: bool) -> Result<FromItem> {
        let only = self.eat_kw("only");
        let name = if only && self.eat_op("(") {
            let name = self.relation_name()?;
            self.expect_op(")")?;
            name
        } else {
            self.relation_name()?
        };
        if !only {
            self.eat_op("*");
        }
        let mut as_of = self.as_of()?;
        let alias = if with_alias { self.alias()? } else { None };
        if as_of.is_none() && alias.is_some() {
            as_of = self.as_of()?;
        }
        if self.is_kw("tablesample") {
            return self.unsupported(self.pos(), "TABLESAMPLE");
        }
        Ok(FromItem::Table { name, as_of, alias, end: self.end() })
    }

    /// Every way to say at which version a table is read. `FROM t AS of` stays an alias.
    pub fn as_of(&mut self) -> Result<Option<AsOf>> {
        let pos = self.pos();
        if self.are_kws(&["for", "system_time", "as", "of"]) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.are_kws(&["for", "system_version", "as", "of"]) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        if !self.are_kws(&["as", "of"]) {
            return Ok(None);
        }
        if matches!(self.ahead(2), Tok::Number(_) | Tok::Param(_)) {
            self.at += 2;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        let starts_value = |p: &Self, n: usize| match p.ahead(n) {
            Tok::Number(_) | Tok::Param(_) | Tok::Str(_) => true,
            Tok::Op(o) => matches!(*o, "(" | "-" | "+"),
            Tok::Word(w, _) => {
                matches!(
                    w.as_str(),
                    "timestamp"
                        | "date"
                        | "interval"
                        | "now"
                        | "current_timestamp"
                        | "cast"
                        | "localtimestamp"
                        | "timestamptz"
                        | "to_timestamp"
                        | "current_date"
                )
            }
            _ => false,
        };
        if self.is_kw_at(2, "version") && starts_value(self, 3) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Version(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "timestamp") && starts_value(self, 3) {
            // `TIMESTAMP WITH TIME ZONE '..'` and `TIMESTAMP '..'` read alike: the literal is a point in time.
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "timestamp") && (self.is_kw_at(3, "with") || self.is_kw_at(3, "without")) {
            self.at += 2;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "system") && self.is_kw_at(3, "time") && starts_value(self, 4) {
            self.at += 4;
            return Ok(Some(AsOf { kind: AsOfKind::Time(self.b_expr()?), pos }));
        }
        if self.is_kw_at(2, "tag") && matches!(self.ahead(3), Tok::Str(_) | Tok::Quoted(_) | Tok::Word(_, None)) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Tag(self.name_or_string()?.text), pos }));
        }
        if self.is_kw_at(2, "tag") && matches!(self.ahead(3), Tok::Word(..)) && self.is_free_word(3) {
            self.at += 3;
            return Ok(Some(AsOf { kind: AsOfKind::Tag(self.col_id()?.text), pos }));
        }
        Ok(None)
    }

    fn is_free_word(&self, n: usize) -> bool {
        matches!(self.ahead(n), Tok::Word(_, Some((super::keyword::Category::Unreserved, _))))
    }

    /// `[AS] name [(columns)]`.
    pub fn alias(&mut self) -> Result<Option<Alias>> {
        if !self.eat_kw("as") && !self.is_col_id() {
            return Ok(None);
        }
        let name = self.col_id()?;
        let columns = if self.is_op("(") { self.name_list()? } else { vec![] };
        Ok(Some(Alias { name: name.text, columns }))
    }
}

fn join(kind: JoinKind, left: FromItem, right: FromItem, pos: Pos, right_end: Pos) -> FromItem {
    FromItem::Join(Box::new(Join {
        kind,
        natural: false,
        using: None,
        on: None,
        left,
        right,
        alias: None,
        pos,
        right_end,
    }))
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
    Query { with: None, body, order_by: vec![], limit: None, with_ties: false, offset: None, locking: None, pos, end }
}
