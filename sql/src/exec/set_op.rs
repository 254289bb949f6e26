//! Duplicates and sets: DISTINCT, UNION, INTERSECT, EXCEPT.
//!
//! Hash tables that are full take no new rows; rows not found in them go to files by their hash and are
//! treated, file by file, when the rest is done. Rows already in the table need no memory and are settled at once.

use std::sync::Arc;

use super::batch::Batch;
use super::eval::Env;
use super::hash::{HashIndex, MAX_LEVEL, Partition, Partitions};
use super::operator::{BoxOperator, Operator, open_node};
use super::spill::SpoolReader;
use super::value;
use crate::error::Result;
use crate::ir::SetOp;
use crate::plan::node::{Prog, SetOpNode};
use crate::types::{Datum, Row, Type};

/// A set of rows. Rows keep the form they first had.
pub(crate) struct RowSet {
    index: HashIndex,
    rows: Batch,
    bytes: usize,
}

impl RowSet {
    pub fn new(width: usize) -> RowSet {
        RowSet { index: HashIndex::default(), rows: Batch::new(width), bytes: 0 }
    }
    pub fn bytes(&self) -> usize {
        self.bytes + self.index.bytes()
    }
    /// The number of an equal row.
    pub fn find(&self, hash: u64, row: &[Datum], types: &[Type]) -> Option<usize> {
        self.index.find(hash, |i| same_typed(self.rows.row(i), row, types))
    }
    /// Adds a row not yet in it.
    pub fn add(&mut self, hash: u64, row: &[Datum]) -> usize {
        self.bytes += value::row_bytes(row);
        self.rows.push(row);
        self.index.insert(hash)
    }
    /// Adds a row; false if an equal one was there.
    pub fn insert(&mut self, row: &[Datum], types: &[Type]) -> bool {
        let hash = hash_typed(row, types);
        if self.find(hash, row, types).is_some() {
            return false;
        }
        self.add(hash, row);
        true
    }
}

/// The hash of a row whose char(n) columns are to be hashed without padding.
pub(crate) fn hash_typed(row: &[Datum], types: &[Type]) -> u64 {
    if types.iter().any(|t| value::needs_normalising(*t)) {
        let normal: Row = row.iter().zip(types).map(|(d, t)| value::normalise(d.clone(), *t)).collect();
        return value::hash_row(&normal);
    }
    value::hash_row(row)
}

/// Equality of rows with char(n) columns compared without padding.
pub(crate) fn same_typed(a: &[Datum], b: &[Datum], types: &[Type]) -> bool {
    a.iter().zip(b).zip(types).all(|((a, b), ty)| match (a, b) {
        (Datum::Text(a), Datum::Text(b)) if *ty == Type::BPCHAR => a.trim_end_matches(' ') == b.trim_end_matches(' '),
        _ => value::same(a, b),
    })
}

/// Where rows are read from: the input, then files.
enum Source {
    Input,
    File(Partition, SpoolReader),
    End,
}

/// Each different row once.
pub(crate) struct Distinct {
    input: BoxOperator,
    types: Arc<[Type]>,
    source: Source,
    seen: RowSet,
    overflow: Option<Partitions>,
    level: u32,
    waiting: Vec<Partition>,
    rows: Batch,
}

impl Distinct {
    pub fn new(input: BoxOperator, types: Arc<[Type]>) -> Distinct {
        let width = types.len();
        Distinct {
            input,
            types,
            source: Source::Input,
            seen: RowSet::new(width),
            overflow: None,
            level: 0,
            waiting: Vec::new(),
            rows: Batch::new(width),
        }
    }

    /// Reads the next rows of the current source into `self.rows`.
    fn read(&mut self, env: &Env<'_>, target: usize) -> Result<bool> {
        self.rows.target = target;
        match &mut self.source {
            Source::Input => self.input.next(env, &mut self.rows),
            Source::File(file, reader) => {
                self.rows.reset(self.types.len());
                while !self.rows.is_full() && reader.next(&file.rows, self.rows.values())? {
                    self.rows.close_row();
                }
                Ok(!self.rows.is_empty())
            }
            Source::End => Ok(false),
        }
    }
}

impl Operator for Distinct {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let width = self.types.len();
        out.reset(width);
        let limit = env.cx.session.work_mem_bytes;
        loop {
            env.check_cancel()?;
            if !self.read(env, out.target)? {
                if let Some(overflow) = self.overflow.take() {
                    self.waiting.extend(overflow.finish()?.into_iter().flatten());
                }
                self.seen = RowSet::new(width);
                match self.waiting.pop() {
                    Some(file) => {
                        self.level = file.level;
                        self.source = Source::File(file, SpoolReader::default());
                        continue;
                    }
                    None => {
                        self.source = Source::End;
                        return Ok(false);
                    }
                }
            }
            for row in self.rows.iter() {
                let hash = hash_typed(row, &self.types);
                if self.seen.find(hash, row, &self.types).is_some() {
                    continue;
                }
                if self.overflow.is_some() || (self.seen.bytes() > limit && self.level < MAX_LEVEL) {
                    self.overflow.get_or_insert_with(|| Partitions::new(self.level)).push(hash, row)?;
                } else {
                    self.seen.add(hash, row);
                    out.push(row);
                }
            }
            if !out.is_empty() {
                return Ok(true);
            }
        }
    }
}

/// The first of neighbouring rows with equal keys.
pub(crate) struct Unique {
    input: BoxOperator,
    rows: Batch,
    keys: Arc<Vec<Prog>>,
    last: Option<Row>,
}

impl Unique {
    pub fn new(input: BoxOperator, width: usize, keys: Arc<Vec<Prog>>) -> Unique {
        Unique { input, rows: Batch::new(width), keys, last: None }
    }
}

impl Operator for Unique {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.rows.width());
        self.rows.target = out.target;
        while self.input.next(env, &mut self.rows)? {
            env.check_cancel()?;
            for i in 0..self.rows.len() {
                let row = self.rows.row(i);
                let keys = self
                    .keys
                    .iter()
                    .map(|k| Ok(super::sort::normalised(k.code.eval(row, env)?, k.expr.ty.ty)))
                    .collect::<Result<Row>>()?;
                if self.last.as_ref().is_none_or(|last| !value::same_rows(last, &keys)) {
                    self.last = Some(keys);
                    out.push_taken(&mut self.rows, i);
                }
            }
            if !out.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
    fn rewind(&mut self) -> bool {
        self.last = None;
        self.input.rewind()
    }
}

/// Inputs one after the other.
pub(crate) struct Append {
    inputs: Vec<BoxOperator>,
    at: usize,
}

impl Append {
    pub fn new(inputs: Vec<BoxOperator>) -> Append {
        Append { inputs, at: 0 }
    }
}

impl Operator for Append {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        while let Some(input) = self.inputs.get_mut(self.at) {
            if input.next(env, out)? {
                return Ok(true);
            }
            self.at += 1;
        }
        Ok(false)
    }
    fn rewind(&mut self) -> bool {
        self.at = 0;
        self.inputs.iter_mut().all(|input| input.rewind())
    }
}

/// INTERSECT and EXCEPT: counts each different row on both sides.
pub(crate) struct SetOperation {
    node: Arc<SetOpNode>,
    /// Open until the first rows are asked for.
    inputs: Option<(BoxOperator, BoxOperator)>,
    table: RowSet,
    counts: Vec<[u64; 2]>,
    /// The next row of the table to give, and how many copies were given.
    at: usize,
    given: u64,
    waiting: Vec<(Option<Partition>, Option<Partition>)>,
}

impl SetOperation {
    pub fn new(node: Arc<SetOpNode>, env: &Env<'_>) -> Result<SetOperation> {
        let inputs = Some((open_node(&node.left, env)?, open_node(&node.right, env)?));
        let width = node.types.len();
        Ok(SetOperation {
            node,
            inputs,
            table: RowSet::new(width),
            counts: Vec::new(),
            at: 0,
            given: 0,
            waiting: Vec::new(),
        })
    }

    /// How many copies of a row with these counts are in the result.
    fn copies(&self, [left, right]: [u64; 2]) -> u64 {
        match (self.node.op, self.node.all) {
            (SetOp::Intersect, true) => left.min(right),
            (SetOp::Intersect, false) => u64::from(left > 0 && right > 0),
            (SetOp::Except, true) => left.saturating_sub(right),
            (SetOp::Except, false) => u64::from(left > 0 && right == 0),
            (SetOp::Union, true) => left + right,
            (SetOp::Union, false) => 1,
        }
    }

    /// Counts a row of one side; rows that do not fit go to `overflow`.
    fn count(
        &mut self,
        row: &[Datum],
        side: usize,
        level: u32,
        overflow: &mut Option<(Partitions, Partitions)>,
        limit: usize,
    ) -> Result<()> {
        let hash = hash_typed(row, &self.node.types);
        if let Some(entry) = self.table.find(hash, row, &self.node.types) {
            self.counts[entry][side] += 1;
            return Ok(());
        }
        if side == 1 && overflow.is_none() {
            // A row that is not on the left side is not in the result.
            return Ok(());
        }
        if side == 1 || overflow.is_some() || (self.table.bytes() > limit && level < MAX_LEVEL) {
            let (left, right) = overflow.get_or_insert_with(|| (Partitions::new(level), Partitions::new(level)));
            return if side == 0 { left.push(hash, row) } else { right.push(hash, row) };
        }
        self.table.add(hash, row);
        let mut counts = [0; 2];
        counts[side] = 1;
        self.counts.push(counts);
        Ok(())
    }

    fn restart(&mut self) {
        self.table = RowSet::new(self.node.types.len());
        self.counts.clear();
        self.at = 0;
        self.given = 0;
    }

    fn keep_overflow(&mut self, overflow: Option<(Partitions, Partitions)>) -> Result<()> {
        if let Some((left, right)) = overflow {
            self.waiting.extend(left.finish()?.into_iter().zip(right.finish()?));
        }
        Ok(())
    }

    fn read_inputs(&mut self, mut left: BoxOperator, mut right: BoxOperator, env: &Env<'_>) -> Result<()> {
        let limit = env.cx.session.work_mem_bytes;
        let mut overflow = None;
        for (side, input) in [&mut left, &mut right].into_iter().enumerate() {
            super::operator::drain(&mut **input, env, |batch| {
                batch.iter().try_for_each(|row| self.count(row, side, 0, &mut overflow, limit))
            })?;
        }
        self.keep_overflow(overflow)
    }

    fn read_files(&mut self, left: Option<Partition>, right: Option<Partition>, env: &Env<'_>) -> Result<()> {
        self.restart();
        let limit = env.cx.session.work_mem_bytes;
        let (mut overflow, mut row, mut seen) = (None, Row::new(), 0u32);
        for (side, file) in [left, right].into_iter().enumerate() {
            let Some(file) = file else { continue };
            let mut reader = SpoolReader::default();
            while reader.next(&file.rows, &mut row)? {
                self.count(&row, side, file.level, &mut overflow, limit)?;
                row.clear();
                seen += 1;
                if seen % 1024 == 0 {
                    env.check_cancel()?;
                }
            }
        }
        self.keep_overflow(overflow)
    }
}

impl Operator for SetOperation {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.types.len());
        if let Some((left, right)) = self.inputs.take() {
            self.read_inputs(left, right, env)?;
        }
        loop {
            while self.at < self.counts.len() && !out.is_full() {
                if self.given < self.copies(self.counts[self.at]) {
                    out.push(self.table.rows.row(self.at));
                    self.given += 1;
                } else {
                    self.at += 1;
                    self.given = 0;
                }
            }
            if !out.is_empty() {
                return Ok(true);
            }
            env.check_cancel()?;
            match self.waiting.pop() {
                Some((left, right)) => self.read_files(left, right, env)?,
                None => return Ok(false),
            }
        }
    }
}
