//! The window functions proper. What they compute is the executor's, row by row over a partition; aggregates serve as window functions too.

use super::registry::{Registry, WindowFn};
use crate::types::Type;

/// Which window function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// row_number(): the row's place in its partition, from 1.
    RowNumber,
    /// rank(): the row_number of the first peer.
    Rank,
    /// dense_rank(): how many groups of peers there are up to this one.
    DenseRank,
    /// percent_rank(): (rank - 1) / (rows - 1), 0 in a partition of one row.
    PercentRank,
    /// cume_dist(): rows up to the last peer / rows.
    CumeDist,
    /// ntile(n): buckets as equal as can be, the larger first. n < 1 is 22014 "argument of ntile must be greater than zero"; NULL gives NULL.
    Ntile,
    /// lag(value, offset = 1, default = NULL): the value `offset` rows before; a NULL offset gives NULL.
    Lag,
    /// lead(value, offset = 1, default = NULL).
    Lead,
    /// first_value(value) of the frame.
    FirstValue,
    /// last_value(value) of the frame.
    LastValue,
    /// nth_value(value, n) of the frame. n < 1 is 22016 "argument of nth_value must be greater than zero".
    NthValue,
}

/// Adds them all.
pub fn register(r: &mut Registry) {
    const E: Type = Type::ANYELEMENT;
    const C: Type = Type::ANYCOMPATIBLE;
    const I: Type = Type::INT4;
    let mut add = |name, args, ret, kind| r.window(WindowFn { name, args, optional: 0, ret, kind });
    add("row_number", &[], Type::INT8, WindowKind::RowNumber);
    add("rank", &[], Type::INT8, WindowKind::Rank);
    add("dense_rank", &[], Type::INT8, WindowKind::DenseRank);
    add("percent_rank", &[], Type::FLOAT8, WindowKind::PercentRank);
    add("cume_dist", &[], Type::FLOAT8, WindowKind::CumeDist);
    add("ntile", &[I], I, WindowKind::Ntile);
    for (name, kind) in [("lag", WindowKind::Lag), ("lead", WindowKind::Lead)] {
        add(name, &[E], E, kind);
        add(name, &[E, I], E, kind);
        add(name, &[C, I, C], C, kind);
    }
    add("first_value", &[E], E, WindowKind::FirstValue);
    add("last_value", &[E], E, WindowKind::LastValue);
    add("nth_value", &[E, I], E, WindowKind::NthValue);
}
