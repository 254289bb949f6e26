//! Sorting rows, in memory and beyond.
//!
//! Rows gather in a flat batch; every [`RUN_ROWS`] of them, or when memory is full, become a sorted run: an order of row numbers over the batch, or a
//! file. Reading merges the runs. Runs are short enough that a cancel is noticed between them. The sort is stable.
//!
//! The first key of each row is also kept as eight bytes whose unsigned order never contradicts the key's, so most comparisons
//! read nothing else.

use std::cmp::Ordering;

use super::batch::Batch;
use super::eval::Env;
use super::spill::{Spool, SpoolReader};
use super::value::{self, KeyOrder};
use crate::error::Result;
use crate::types::Datum;

/// Rows of a run sorted in one go.
const RUN_ROWS: usize = 32 * 1024;
/// Files merged at once.
const FAN_IN: usize = 64;

/// A key: a column of the row and its order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SortColumn {
    /// Which.
    pub column: usize,
    /// How.
    pub order: KeyOrder,
}

/// Gathers rows, then gives them back in order.
pub(crate) struct Sorter {
    keys: Box<[SortColumn]>,
    width: usize,
    limit_bytes: usize,
    /// Only this many first rows are wanted.
    top: Option<usize>,
    /// The last row of the first `top` seen so far: what does not come before it is not wanted.
    cutoff: Option<Ref>,
    bytes: usize,
    rows: Batch,
    /// Row numbers in order, for the sorted part of `rows`, and where each run ends.
    order: Vec<Ref>,
    run_ends: Vec<usize>,
    files: Vec<Spool>,
    merge: Option<Merge>,
    emitted: usize,
}

/// A row by its number and the prefix of its first key.
#[derive(Clone, Copy)]
struct Ref {
    prefix: u64,
    row: u32,
}

/// Where reading stands in each run.
struct Merge {
    /// (next, end) in `order`.
    memory: Vec<(usize, usize)>,
    files: Vec<FileRun>,
    /// Heads of all runs, least first, as (prefix, run); memory runs are numbered after the files, which are older.
    heap: Vec<(u64, usize)>,
}

struct FileRun {
    reader: SpoolReader,
    head: Vec<Datum>,
}

impl Sorter {
    /// An empty sorter for rows of this width.
    pub fn new(width: usize, keys: impl Into<Box<[SortColumn]>>, limit_bytes: usize, top: Option<usize>) -> Sorter {
        Sorter {
            keys: keys.into(),
            width,
            limit_bytes,
            top,
            cutoff: None,
            bytes: 0,
            rows: Batch::new(width),
            order: Vec::new(),
            run_ends: Vec::new(),
            files: Vec::new(),
            merge: None,
            emitted: 0,
        }
    }
    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// How it sorted, for EXPLAIN ANALYZE: bytes in memory, or None when files were used.
    pub fn memory_used(&self) -> Option<usize> {
        self.files.is_empty().then_some(self.bytes)
    }
    /// Adds a row.
    pub fn push(&mut self, row: &[Datum], env: &Env<'_>) -> Result<()> {
        self.begin_row().extend_from_slice(row);
        self.end_row(env)
    }
    /// The place to push a row's values to; then [`Sorter::end_row`].
    pub fn begin_row(&mut self) -> &mut Vec<Datum> {
        self.rows.values()
    }
    /// Ends the row begun.
    pub fn end_row(&mut self, env: &Env<'_>) -> Result<()> {
        self.rows.close_row();
        let at = self.rows.len() - 1;
        let row = self.rows.row(at);
        self.bytes += value::row_bytes(row) + std::mem::size_of::<Ref>();
        let prefix = self.keys.first().map_or(0, |k| prefix(&row[k.column], k.order));
        let new = Ref { prefix, row: at as u32 };
        if let Some(cutoff) = &self.cutoff
            && compare_refs(&new, cutoff, &self.rows, &self.keys) != Ordering::Less
        {
            self.bytes -= value::row_bytes(row) + std::mem::size_of::<Ref>();
            self.rows.truncate(at);
            return Ok(());
        }
        self.order.push(new);
        if let Some(top) = self.top
            && self.run_ends.is_empty()
            && self.files.is_empty()
            && self.order.len() >= (top * 2).max(top + 1024)
        {
            self.keep_top(top);
        }
        if self.bytes > self.limit_bytes && self.rows.len() > 1 {
            env.check_cancel()?;
            self.spill(env)?;
        } else if self.order.len() - self.run_ends.last().unwrap_or(&0) >= RUN_ROWS {
            env.check_cancel()?;
            self.close_run();
        }
        Ok(())
    }

    /// Drops all but the first `top` rows seen so far.
    fn keep_top(&mut self, top: usize) {
        self.close_run();
        self.run_ends.clear();
        self.order.truncate(top);
        let mut kept = Batch::new(self.width);
        self.bytes = 0;
        for r in &mut self.order {
            kept.push_taken(&mut self.rows, r.row as usize);
            r.row = kept.len() as u32 - 1;
            self.bytes += value::row_bytes(kept.row(kept.len() - 1)) + std::mem::size_of::<Ref>();
        }
        self.rows = kept;
        self.cutoff = self.order.last().copied();
    }

    fn close_run(&mut self) {
        let start = self.run_ends.last().copied().unwrap_or(0);
        let (rows, keys) = (&self.rows, &self.keys);
        self.order[start..].sort_unstable_by(|a, b| compare_refs(a, b, rows, keys).then(a.row.cmp(&b.row)));
        self.run_ends.push(self.order.len());
    }

    /// Writes what is in memory as one sorted file.
    fn spill(&mut self, env: &Env<'_>) -> Result<()> {
        if self.run_ends.last().copied().unwrap_or(0) < self.order.len() {
            self.close_run();
        }
        let mut file = Spool::new()?;
        let mut merge = self.start_merge(false)?;
        let mut written = 0;
        while let Some(at) = self.pop_memory(&mut merge) {
            file.push(self.rows.row(at))?;
            written += 1;
            if written % 1024 == 0 {
                env.check_cancel()?;
            }
            if Some(written) == self.top {
                break;
            }
        }
        file.flush()?;
        self.files.push(file);
        self.rows.reset(self.width);
        self.order.clear();
        self.run_ends.clear();
        self.cutoff = None;
        self.bytes = 0;
        if self.files.len() >= FAN_IN {
            self.merge_files(env)?;
        }
        Ok(())
    }

    /// Makes one file of all.
    fn merge_files(&mut self, env: &Env<'_>) -> Result<()> {
        let mut merge = self.start_merge(true)?;
        let mut file = Spool::new()?;
        let mut row = Vec::new();
        while let Some(run) = self.pop_file(&mut merge, &mut row)? {
            debug_assert!(run < FAN_IN);
            file.push(&row)?;
            if file.rows() % 1024 == 0 {
                env.check_cancel()?;
            }
            if self.top.is_some_and(|top| file.rows() as usize >= top) {
                break;
            }
        }
        file.flush()?;
        self.files = vec![file];
        Ok(())
    }

    fn start_merge(&self, with_files: bool) -> Result<Merge> {
        let mut merge = Merge { memory: Vec::new(), files: Vec::new(), heap: Vec::new() };
        if with_files {
            for file in &self.files {
                let mut run = FileRun { reader: SpoolReader::default(), head: Vec::with_capacity(self.width) };
                let some = run.reader.next(file, &mut run.head)?;
                merge.files.push(run);
                if some {
                    let index = merge.files.len() - 1;
                    let prefix = self.head_prefix(&merge, index);
                    merge.heap.push((prefix, index));
                }
            }
        }
        let mut start = 0;
        for &end in &self.run_ends {
            merge.memory.push((start, end));
            if start < end {
                merge.heap.push((self.order[start].prefix, merge.files.len() + merge.memory.len() - 1));
            }
            start = end;
        }
        for at in (0..merge.heap.len() / 2).rev() {
            self.sift(&mut merge, at);
        }
        Ok(merge)
    }

    fn head_prefix(&self, merge: &Merge, run: usize) -> u64 {
        self.keys.first().map_or(0, |k| prefix(&self.head(merge, run)[k.column], k.order))
    }

    fn head<'a>(&'a self, merge: &'a Merge, run: usize) -> &'a [Datum] {
        match run.checked_sub(merge.files.len()) {
            None => &merge.files[run].head,
            Some(m) => self.rows.row(self.order[merge.memory[m].0].row as usize),
        }
    }

    fn before(&self, merge: &Merge, a: (u64, usize), b: (u64, usize)) -> bool {
        a.0.cmp(&b.0)
            .then_with(|| compare_rows(self.head(merge, a.1), self.head(merge, b.1), &self.keys))
            .then(a.1.cmp(&b.1))
            == Ordering::Less
    }

    /// Restores the heap below `at`.
    fn sift(&self, merge: &mut Merge, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < merge.heap.len() && self.before(merge, merge.heap[child], merge.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            merge.heap.swap(at, least);
            at = least;
        }
    }

    /// Moves past the head of the least run.
    fn advance(&self, merge: &mut Merge) -> Result<()> {
        let run = merge.heap[0].1;
        let more = match run.checked_sub(merge.files.len()) {
            None => {
                let file = &mut merge.files[run];
                file.head.clear();
                file.reader.next(&self.files[run], &mut file.head)?
            }
            Some(m) => {
                merge.memory[m].0 += 1;
                merge.memory[m].0 < merge.memory[m].1
            }
        };
        if more {
            merge.heap[0].0 = match run.checked_sub(merge.files.len()) {
                None => self.head_prefix(merge, run),
                Some(m) => self.order[merge.memory[m].0].prefix,
            };
        } else {
            merge.heap.swap_remove(0);
        }
        if !merge.heap.is_empty() {
            self.sift(merge, 0);
        }
        Ok(())
    }

    /// The next row of a merge of memory runs only, by number.
    fn pop_memory(&self, merge: &mut Merge) -> Option<usize> {
        let run = merge.heap.first()?.1;
        let at = self.order[merge.memory[run].0].row as usize;
        self.advance(merge).expect("no file is read");
        Some(at)
    }

    /// The next row of a merge, copied to `row`, and its run.
    fn pop_file(&self, merge: &mut Merge, row: &mut Vec<Datum>) -> Result<Option<usize>> {
        let Some(&(_, run)) = merge.heap.first() else { return Ok(None) };
        row.clear();
        match run.checked_sub(merge.files.len()) {
            None => row.append(&mut merge.files[run].head),
            Some(_) => row.extend_from_slice(self.head(merge, run)),
        }
        self.advance(merge)?;
        Ok(Some(run))
    }

    /// Sorts what was gathered; then [`Sorter::read`].
    pub fn finish(&mut self, env: &Env<'_>) -> Result<()> {
        env.check_cancel()?;
        if let Some(top) = self.top
            && self.files.is_empty()
            && self.run_ends.is_empty()
            && self.order.len() > top
        {
            self.keep_top(top);
        }
        if self.run_ends.last().copied().unwrap_or(0) < self.order.len() {
            self.close_run();
        }
        self.files.iter_mut().try_for_each(Spool::flush)?;
        self.merge = Some(self.start_merge(true)?);
        Ok(())
    }

    /// Appends the next rows, their first `columns` values, until `out` is full; false if there was none.
    pub fn read(&mut self, out: &mut Batch, columns: usize) -> Result<bool> {
        let Some(mut merge) = self.merge.take() else { return Ok(false) };
        let before = out.len();
        while !out.is_full() && self.top != Some(self.emitted) {
            let Some(&(_, run)) = merge.heap.first() else { break };
            match run.checked_sub(merge.files.len()) {
                None => {
                    let head = &mut merge.files[run].head;
                    out.values().extend(head[..columns].iter().cloned());
                }
                Some(m) => {
                    let at = self.order[merge.memory[m].0].row as usize;
                    out.values().extend(self.rows.row(at)[..columns].iter().cloned());
                }
            }
            out.close_row();
            self.emitted += 1;
            self.advance(&mut merge)?;
        }
        self.merge = Some(merge);
        Ok(out.len() > before)
    }
}

fn compare_refs(a: &Ref, b: &Ref, rows: &Batch, keys: &[SortColumn]) -> Ordering {
    a.prefix.cmp(&b.prefix).then_with(|| compare_rows(rows.row(a.row as usize), rows.row(b.row as usize), keys))
}

/// The order of two rows by keys.
pub(crate) fn compare_rows(a: &[Datum], b: &[Datum], keys: &[SortColumn]) -> Ordering {
    for key in keys {
        let order = key.order.compare(&a[key.column], &b[key.column]);
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Eight bytes that order as the value does, or are equal where they cannot tell. The least and greatest stand for NULL.
fn prefix(d: &Datum, order: KeyOrder) -> u64 {
    const SIGN: u64 = 1 << 63;
    let bits = match d {
        Datum::Null => return if order.nulls_first { 0 } else { u64::MAX },
        Datum::Bool(v) => u64::from(*v),
        Datum::Int2(v) => i64::from(*v) as u64 ^ SIGN,
        Datum::Int4(v) | Datum::Date(v) => i64::from(*v) as u64 ^ SIGN,
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => *v as u64 ^ SIGN,
        Datum::Oid(v) => u64::from(*v),
        Datum::Float4(v) => float_prefix((*v).into()),
        Datum::Float8(v) => float_prefix(*v),
        Datum::Text(v) => first_bytes(v.as_bytes()),
        Datum::Bytea(v) => first_bytes(v),
        Datum::Uuid(v) => first_bytes(&v[..]),
        // Longer comparisons decide; all of a type get the same prefix.
        Datum::Numeric(_) | Datum::Interval(_) | Datum::Jsonb(_) | Datum::Array(_) | Datum::Record(_) => SIGN,
    };
    // Values keep off the two places of NULL; neighbours at the ends become equal, which is allowed.
    (if order.desc { !bits } else { bits }).clamp(1, u64::MAX - 1)
}

fn float_prefix(v: f64) -> u64 {
    let v = if v == 0.0 {
        0.0
    } else if v.is_nan() {
        f64::NAN.abs()
    } else {
        v
    };
    let bits = v.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn first_bytes(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let n = bytes.len().min(8);
    head[..n].copy_from_slice(&bytes[..n]);
    u64::from_be_bytes(head)
}
