//! What an output column without AS is called: PostgreSQL's `FigureColname`.

use crate::parse::ast::{Body, Expr, ExprKind, KeywordValue, Query};

/// The label of a select list's entry.
pub(super) fn label(e: &Expr) -> String {
    figure(e).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name and whether it is a strong one: a cast's type gives way to it.
fn figure(e: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match &e.kind {
        ExprKind::Column(names) | ExprKind::Star(names) => names.last().map(|n| (n.text.clone(), true)),
        ExprKind::Field { name, .. } => strong(&name.text),
        ExprKind::Subscript { input, .. } | ExprKind::FieldStar(input) | ExprKind::Collate { input, .. } => {
            figure(input)
        }
        ExprKind::Call(call) => strong(call.name.last()),
        ExprKind::NullIf(..) => strong("nullif"),
        ExprKind::Coalesce(_) => strong("coalesce"),
        ExprKind::MinMax { greatest: true, .. } => strong("greatest"),
        ExprKind::MinMax { greatest: false, .. } => strong("least"),
        ExprKind::Grouping(_) => strong("grouping"),
        ExprKind::Exists(_) => strong("exists"),
        ExprKind::Array(_) | ExprKind::ArrayQuery(_) => strong("array"),
        ExprKind::Row { .. } => strong("row"),
        ExprKind::Keyword(value) => strong(keyword_name(*value)),
        ExprKind::ScalarQuery(query) => first_label(query).map(|name| (name, true)),
        ExprKind::Cast { input, ty } => match figure(input) {
            Some((name, true)) => Some((name, true)),
            _ => Some((ty.name.last().to_owned(), false)),
        },
        ExprKind::Case { otherwise, .. } => match otherwise.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        _ => None,
    }
}

/// The label of a subquery's first column; None where only binding can tell (`*`).
fn first_label(query: &Query) -> Option<String> {
    match &query.body {
        Body::Select(select) => {
            let target = select.targets.first()?;
            match (&target.alias, &target.expr.kind) {
                (Some(alias), _) => Some(alias.clone()),
                (None, ExprKind::Star(_)) => None,
                (None, _) => Some(label(&target.expr)),
            }
        }
        Body::Values(_) => Some("column1".to_owned()),
        Body::SetOp { left, .. } => first_label(left),
    }
}

pub(super) fn keyword_name(value: KeywordValue) -> &'static str {
    match value {
        KeywordValue::CurrentDate => "current_date",
        KeywordValue::CurrentTime(_) => "current_time",
        KeywordValue::CurrentTimestamp(_) => "current_timestamp",
        KeywordValue::LocalTime(_) => "localtime",
        KeywordValue::LocalTimestamp(_) => "localtimestamp",
        KeywordValue::CurrentUser => "current_user",
        KeywordValue::SessionUser => "session_user",
        KeywordValue::User => "user",
        KeywordValue::CurrentRole => "current_role",
        KeywordValue::CurrentCatalog => "current_catalog",
        KeywordValue::CurrentSchema => "current_schema",
    }
}
