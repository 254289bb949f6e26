//! A batch of rows in one flat vector.
//!
//! The vector is filled by one operator, read by the next and filled again, so that a row costs no allocation. Invariant:
//! `data.len() == rows * width`, except between [`Batch::values`] and [`Batch::close_row`]. Rows without columns are counted only.
//!
//! A batch is full when it has the rows its reader wants or [`BATCH_BYTES`] of values, whichever is first: a thousand rows may be a gigabyte. So
//! a producer looks at [`Batch::is_full`] before each row, and keeps its place in what it reads.

use super::value;
use crate::types::{Datum, Row};

/// Rows in a batch unless the reader asks for fewer.
pub const BATCH_ROWS: usize = 1024;
/// Bytes its values point to when a batch is full, however few its rows are.
pub const BATCH_BYTES: usize = 1 << 20;

/// Rows of one width.
#[derive(Debug)]
pub struct Batch {
    width: usize,
    rows: usize,
    data: Vec<Datum>,
    /// What the values point to, at most: of values taken out, not all is subtracted.
    bytes: usize,
    /// How many rows the reader would like; a producer may stop there and should not go far beyond it.
    pub target: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new(0)
    }
}

impl Batch {
    /// An empty batch of rows of this width.
    pub fn new(width: usize) -> Batch {
        Batch { width, rows: 0, data: Vec::new(), bytes: 0, target: BATCH_ROWS }
    }
    /// Empties it for rows of this width; memory is kept.
    pub fn reset(&mut self, width: usize) {
        self.data.clear();
        self.rows = 0;
        self.bytes = 0;
        self.width = width;
    }
    /// Rows held.
    pub fn len(&self) -> usize {
        self.rows
    }
    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
    /// Whether the reader's wish is met, or the values are large.
    pub fn is_full(&self) -> bool {
        self.rows >= self.target || self.bytes >= BATCH_BYTES
    }
    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// A row.
    pub fn row(&self, index: usize) -> &[Datum] {
        &self.data[index * self.width..(index + 1) * self.width]
    }
    /// A row to change in place.
    pub fn row_mut(&mut self, index: usize) -> &mut [Datum] {
        &mut self.data[index * self.width..(index + 1) * self.width]
    }
    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &[Datum]> {
        (0..self.rows).map(|i| self.row(i))
    }
    /// Adds a copy of a row.
    pub fn push(&mut self, row: &[Datum]) {
        debug_assert_eq!(row.len(), self.width);
        self.data.extend_from_slice(row);
        self.close_row();
    }
    /// Adds a copy of two rows side by side.
    pub fn push_pair(&mut self, left: &[Datum], right: &[Datum]) {
        self.data.extend_from_slice(left);
        self.data.extend_from_slice(right);
        self.close_row();
    }
    /// Adds a row by value.
    pub fn push_owned(&mut self, row: impl IntoIterator<Item = Datum>) {
        self.data.extend(row);
        self.close_row();
    }
    /// The flat values, to push one row's worth onto; then [`Batch::close_row`].
    pub fn values(&mut self) -> &mut Vec<Datum> {
        &mut self.data
    }
    /// Ends the row whose values were pushed through [`Batch::values`].
    pub fn close_row(&mut self) {
        let start = self.rows * self.width;
        self.bytes += heap(&self.data[start..]);
        self.rows += 1;
        debug_assert_eq!(self.data.len(), self.rows * self.width);
    }
    /// Forgets values of a row that was begun and not closed.
    pub fn abandon_row(&mut self) {
        self.data.truncate(self.rows * self.width);
    }
    /// Takes a row's values out, leaving NULLs.
    pub fn take_row(&mut self, index: usize) -> Row {
        self.row_mut(index).iter_mut().map(std::mem::take).collect()
    }
    /// Moves a row from another batch of the same width to the end of this one.
    pub fn push_taken(&mut self, from: &mut Batch, index: usize) {
        debug_assert_eq!(from.width, self.width);
        let range = index * from.width..(index + 1) * from.width;
        self.data.extend(from.data[range].iter_mut().map(std::mem::take));
        self.close_row();
    }
    /// Keeps the rows for which `keep` holds, from row `first` on.
    pub fn retain(&mut self, first: usize, mut keep: impl FnMut(&[Datum]) -> crate::Result<bool>) -> crate::Result<()> {
        let mut kept = first;
        for i in first..self.rows {
            let wanted = keep(&self.data[i * self.width..(i + 1) * self.width])?;
            if wanted {
                if kept != i {
                    for column in 0..self.width {
                        self.data.swap(kept * self.width + column, i * self.width + column);
                    }
                }
                kept += 1;
            }
        }
        self.truncate(kept);
        Ok(())
    }
    /// Drops rows from this one on.
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.rows {
            self.rows = rows;
            self.bytes = self.bytes.saturating_sub(heap(&self.data[rows * self.width..]));
            self.data.truncate(rows * self.width);
        }
    }
    /// Drops the first rows.
    pub fn skip(&mut self, rows: usize) {
        let rows = rows.min(self.rows);
        self.bytes = self.bytes.saturating_sub(heap(&self.data[..rows * self.width]));
        self.data.drain(..rows * self.width);
        self.rows -= rows;
    }
    /// The rows, each in a vector of its own.
    pub fn take_rows(&mut self) -> Vec<Row> {
        let (width, rows) = (self.width, self.rows);
        let mut values = self.data.drain(..);
        let taken = (0..rows).map(|_| values.by_ref().take(width).collect()).collect();
        drop(values);
        self.rows = 0;
        self.bytes = 0;
        taken
    }
}

/// What values point to.
#[inline]
fn heap(values: &[Datum]) -> usize {
    values.iter().map(value::heap_bytes).sum()
}
