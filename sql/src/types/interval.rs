//! Intervals: months, days and microseconds, kept apart as PostgreSQL keeps them.

/// A span of time. The three parts have signs of their own; equality and order use months of 30 days and days of 24 hours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Whole months; years are 12 of them.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}
