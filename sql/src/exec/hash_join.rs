//! Joins by equality: a hash table of one side, probed by the other.
//!
//! ```text
//! build side --> Table: index of different keys -> chain of rows
//! probe side --> for each row the chain of its key, then the other conditions
//! ```
//!
//! When the table outgrows `work_mem` both sides are divided into files by hash and joined file by file; a file that is
//! still too large is divided again. Where that does not help, for its rows have one key, its rows are taken in pieces as large as memory
//! allows, and the other side's file is read again for each piece. Rows with a NULL among their keys have no partner; they are kept only where rows without one are wanted.

use std::sync::Arc;

use super::batch::Batch;
use super::eval::Env;
use super::filter::all_hold;
use super::hash::{HashIndex, MAX_LEVEL, Partition, Partitions};
use super::operator::{BoxOperator, Operator, open_node};
use super::sort::normalised;
use super::spill::SpoolReader;
use super::value;
use crate::error::Result;
use crate::memory::Reservation;
use crate::plan::node::{HashJoinNode, JoinType};
use crate::types::{Datum, Row};

/// No further row in a chain.
const END: u32 = u32::MAX;

/// A hash join.
pub(crate) struct HashJoin {
    node: Arc<HashJoinNode>,
    build: BoxOperator,
    probe: BoxOperator,
    /// Which build and probe rows without a partner are wanted, and whether build rows with one are (a semi join that builds its left side).
    wants: Wants,
    table: Table,
    source: Source,
    started: bool,
    waiting: Vec<(Option<Partition>, Option<Partition>)>,
    /// The build file at hand, if it is taken in pieces.
    pieces: Option<Pieces>,
    rows: Batch,
    at: usize,
    inside: bool,
    found: bool,
    /// The next build row of the chain at hand.
    chain: u32,
    /// The next build row of the final pass.
    rest: Option<usize>,
    pair: Row,
    keys: Row,
}

#[derive(Clone, Copy)]
struct Wants {
    probe_single: bool,
    build_single: bool,
    build_partnered: bool,
}

enum Source {
    Input,
    File(Partition, SpoolReader),
    None,
}

/// A build file of which one piece is in the table.
struct Pieces {
    file: Partition,
    reader: SpoolReader,
    /// Rows read from it.
    read: u64,
    /// Number of the first of the probe rows at hand.
    first: usize,
    /// Which probe rows found a partner in a piece so far, where that matters.
    found: Vec<bool>,
    _held: Reservation,
}

impl Pieces {
    fn is_last(&self) -> bool {
        self.read == self.file.rows.rows()
    }
}

/// Build rows by key.
struct Table {
    index: HashIndex,
    keys: Batch,
    /// First and last row of each key.
    ends: Vec<(u32, u32)>,
    rows: Batch,
    hashes: Vec<u64>,
    next: Vec<u32>,
    partnered: Vec<bool>,
    bytes: usize,
}

impl Table {
    fn new(width: usize, keys: usize) -> Table {
        Table {
            index: HashIndex::default(),
            keys: Batch::new(keys),
            ends: Vec::new(),
            rows: Batch::new(width),
            hashes: Vec::new(),
            next: Vec::new(),
            partnered: Vec::new(),
            bytes: 0,
        }
    }
    fn bytes(&self) -> usize {
        self.bytes + self.index.bytes()
    }
    /// Adds a row; `keyed` is false if a key is NULL.
    fn add(&mut self, row: &[Datum], keys: &[Datum], hash: u64, keyed: bool) {
        let number = self.rows.len() as u32;
        self.bytes += value::row_bytes(row) + 16;
        self.rows.push(row);
        self.hashes.push(hash);
        self.next.push(END);
        if !keyed {
            return;
        }
        match self.index.find(hash, |i| value::same_rows(self.keys.row(i), keys)) {
            Some(entry) => {
                let last = self.ends[entry].1;
                self.next[last as usize] = number;
                self.ends[entry].1 = number;
            }
            None => {
                self.index.insert(hash);
                self.bytes += value::row_bytes(keys) + 8;
                self.keys.push(keys);
                self.ends.push((number, number));
            }
        }
    }
    fn first(&self, keys: &[Datum]) -> u32 {
        self.index
            .find(value::hash_row(keys), |i| value::same_rows(self.keys.row(i), keys))
            .map_or(END, |entry| self.ends[entry].0)
    }
}

impl HashJoin {
    pub fn new(node: Arc<HashJoinNode>, env: &Env<'_>) -> Result<HashJoin> {
        let (left, right) = (open_node(&node.left, env)?, open_node(&node.right, env)?);
        let left_single = matches!(node.join, JoinType::Left | JoinType::Full | JoinType::Anti);
        let right_single = matches!(node.join, JoinType::Right | JoinType::Full);
        let (build, probe, wants, build_width, probe_width) = if node.build_left {
            let wants = Wants {
                probe_single: right_single,
                build_single: left_single,
                build_partnered: node.join == JoinType::Semi,
            };
            (left, right, wants, node.left.width, node.right.width)
        } else {
            (
                right,
                left,
                Wants { probe_single: left_single, build_single: right_single, build_partnered: false },
                node.right.width,
                node.left.width,
            )
        };
        let table = Table::new(build_width, node.keys.len());
        Ok(HashJoin {
            node,
            build,
            probe,
            wants,
            table,
            source: Source::Input,
            started: false,
            waiting: Vec::new(),
            pieces: None,
            rows: Batch::new(probe_width),
            at: 0,
            inside: false,
            found: false,
            chain: END,
            rest: None,
            pair: Row::new(),
            keys: Row::new(),
        })
    }

    /// Puts the keys of a row of one side into `self.keys`; false if one is NULL.
    fn find_keys(&mut self, row: &[Datum], of_left: bool, env: &Env<'_>) -> Result<bool> {
        self.keys.clear();
        let mut keyed = true;
        for key in &self.node.keys {
            let prog = if of_left { &key.left } else { &key.right };
            let value = normalised(prog.code.eval(row, env)?, key.ty);
            keyed &= !value.is_null();
            self.keys.push(value);
        }
        Ok(keyed)
    }

    fn tracks_partners(&self) -> bool {
        self.wants.build_single || self.wants.build_partnered
    }

    /// Reads the build side; if it is too large, also the probe side, and leaves the work in `waiting`.
    fn start(&mut self, env: &Env<'_>) -> Result<()> {
        self.started = true;
        let limit = env.cx.session.work_mem_bytes;
        let (mut overflow, mut batch) = (None, Batch::default());
        while self.build.next(env, &mut batch)? {
            env.check_cancel()?;
            for row in batch.iter() {
                self.take_build_row(row, 0, &mut overflow, limit, env)?;
            }
        }
        let Some(build_files) = overflow else {
            self.finish_table();
            return Ok(());
        };
        let mut probe_files = Partitions::new(0);
        while self.probe.next(env, &mut batch)? {
            env.check_cancel()?;
            for row in batch.iter() {
                let keyed = self.find_keys(row, !self.node.build_left, env)?;
                if keyed || self.wants.probe_single {
                    probe_files.push(value::hash_row(&self.keys), row)?;
                }
            }
        }
        self.source = Source::None;
        self.waiting.extend(build_files.finish()?.into_iter().zip(probe_files.finish()?));
        Ok(())
    }

    fn take_build_row(
        &mut self,
        row: &[Datum],
        level: u32,
        overflow: &mut Option<Partitions>,
        limit: usize,
        env: &Env<'_>,
    ) -> Result<()> {
        let keyed = self.find_keys(row, self.node.build_left, env)?;
        if !keyed && !self.wants.build_single {
            return Ok(());
        }
        let hash = value::hash_row(&self.keys);
        if let Some(files) = overflow {
            return files.push(hash, row);
        }
        self.table.add(row, &self.keys, hash, keyed);
        // Rows of one key stay together; from the input they go to a file nonetheless, to be taken in pieces.
        let divides = level < MAX_LEVEL && (level == 0 || self.table.index.len() > 1);
        if divides && self.table.bytes() > limit {
            let mut files = Partitions::new(level);
            for (row, hash) in self.table.rows.iter().zip(&self.table.hashes) {
                files.push(*hash, row)?;
            }
            self.table = Table::new(self.table.rows.width(), self.node.keys.len());
            *overflow = Some(files);
        }
        Ok(())
    }

    fn finish_table(&mut self) {
        if self.tracks_partners() {
            self.table.partnered = vec![false; self.table.rows.len()];
        }
    }

    /// Reads build rows of a file into the table: to its end, or until the table is full and cannot be divided.
    fn load(
        &mut self,
        file: &Partition,
        level: u32,
        (reader, read): (&mut SpoolReader, &mut u64),
        overflow: &mut Option<Partitions>,
        env: &Env<'_>,
    ) -> Result<()> {
        let limit = env.cx.session.work_mem_bytes;
        self.table = Table::new(self.table.rows.width(), self.node.keys.len());
        let mut row = Row::new();
        while overflow.is_some() || self.table.rows.is_empty() || self.table.bytes() <= limit {
            if !reader.next(&file.rows, &mut row)? {
                break;
            }
            self.take_build_row(&row, level, overflow, limit, env)?;
            row.clear();
            *read += 1;
            if read.is_multiple_of(1024) {
                env.check_cancel()?;
            }
        }
        Ok(())
    }

    /// Loads the next pair of files; false if there is none.
    fn next_files(&mut self, env: &Env<'_>) -> Result<bool> {
        while let Some((build, probe)) = self.waiting.pop() {
            env.check_cancel()?;
            self.table = Table::new(self.table.rows.width(), self.node.keys.len());
            let mut overflow = None;
            if let Some(file) = build {
                let (mut reader, mut read) = (SpoolReader::default(), 0);
                self.load(&file, file.level, (&mut reader, &mut read), &mut overflow, env)?;
                if overflow.is_none() && read < file.rows.rows() {
                    let by_probe =
                        self.wants.probe_single || (!self.node.build_left && self.node.join == JoinType::Semi);
                    let probe_rows = probe.as_ref().filter(|_| by_probe).map_or(0, |p| p.rows.rows() as usize);
                    let held = env.cx.session.memory.reserve("A hash join", probe_rows)?;
                    let found = vec![false; probe_rows];
                    self.pieces = Some(Pieces { file, reader, read, first: 0, found, _held: held });
                }
            }
            if let Some(build_files) = overflow {
                let mut probe_files = None;
                if let Some(file) = probe {
                    let files = probe_files.insert(Partitions::new(file.level));
                    let (mut reader, mut row, mut count) = (SpoolReader::default(), Row::new(), 0u32);
                    while reader.next(&file.rows, &mut row)? {
                        self.find_keys(&row, !self.node.build_left, env)?;
                        files.push(value::hash_row(&self.keys), &row)?;
                        row.clear();
                        count += 1;
                        if count % 1024 == 0 {
                            env.check_cancel()?;
                        }
                    }
                }
                let probe_files = match probe_files {
                    Some(files) => files.finish()?,
                    None => (0..16).map(|_| None).collect(),
                };
                self.waiting.extend(build_files.finish()?.into_iter().zip(probe_files));
                continue;
            }
            self.finish_table();
            self.source = match probe {
                Some(file) => Source::File(file, SpoolReader::default()),
                None => Source::None,
            };
            return Ok(true);
        }
        Ok(false)
    }

    /// Loads the next piece of the build file, to be joined with the same probe file; false if there is none.
    fn next_piece(&mut self, env: &Env<'_>) -> Result<bool> {
        let Some(mut pieces) = self.pieces.take().filter(|p| !p.is_last()) else { return Ok(false) };
        env.check_cancel()?;
        let Pieces { file, reader, read, .. } = &mut pieces;
        self.load(file, MAX_LEVEL, (reader, read), &mut None, env)?;
        pieces.first = 0;
        self.pieces = Some(pieces);
        self.finish_table();
        if let Source::File(_, reader) = &mut self.source {
            *reader = SpoolReader::default();
        }
        Ok(true)
    }

    /// Whether the probe row at hand has met all build rows when it is done with the table.
    fn is_last_piece(&self) -> bool {
        self.pieces.as_ref().is_none_or(Pieces::is_last)
    }

    /// Where it is kept whether the probe row at hand found a partner in any piece.
    fn found_in_pieces(&mut self) -> Option<&mut bool> {
        let at = self.at;
        self.pieces.as_mut().and_then(|p| p.found.get_mut(p.first + at))
    }

    /// Reads the next probe rows.
    fn read_probe(&mut self, env: &Env<'_>, target: usize) -> Result<bool> {
        self.at = 0;
        if let Some(pieces) = &mut self.pieces {
            pieces.first += self.rows.len();
        }
        self.rows.target = target;
        match &mut self.source {
            Source::Input => {
                // Nothing can come of an empty table.
                if self.table.rows.is_empty() && !self.wants.probe_single {
                    return Ok(false);
                }
                self.probe.next(env, &mut self.rows)
            }
            Source::File(file, reader) => {
                let width = self.rows.width();
                self.rows.reset(width);
                while !self.rows.is_full() && reader.next(&file.rows, self.rows.values())? {
                    self.rows.close_row();
                }
                Ok(!self.rows.is_empty())
            }
            Source::None => Ok(false),
        }
    }

    /// Joins the probe row at hand until `out` is full (false) or it is done (true).
    fn join_row(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let probe_row = self.rows.row(self.at);
        let mut steps = 0u32;
        while self.chain != END {
            if out.is_full() {
                return Ok(false);
            }
            steps += 1;
            if steps.is_multiple_of(1024) {
                env.check_cancel()?;
            }
            let build = self.chain as usize;
            self.chain = self.table.next[build];
            let build_row = self.table.rows.row(build);
            let (left, right) = if self.node.build_left { (build_row, probe_row) } else { (probe_row, build_row) };
            if !self.node.conditions.is_empty() {
                self.pair.clear();
                self.pair.extend_from_slice(left);
                self.pair.extend_from_slice(right);
                if !all_hold(&self.node.conditions, &self.pair, env)? {
                    continue;
                }
            }
            self.found = true;
            if let Some(partnered) = self.table.partnered.get_mut(build) {
                *partnered = true;
            }
            match self.node.join {
                // With the left side built, the final pass gives its rows.
                JoinType::Semi | JoinType::Anti if self.node.build_left => {}
                JoinType::Semi => {
                    out.push(left);
                    return Ok(true);
                }
                JoinType::Anti => return Ok(true),
                _ => out.push_pair(left, right),
            }
        }
        if !self.found && self.wants.probe_single && self.is_last_piece() {
            let probe_row = self.rows.row(self.at);
            if self.node.join == JoinType::Anti {
                out.push(probe_row);
            } else {
                push_single(probe_row, !self.node.build_left, self.table.rows.width(), out);
            }
        }
        Ok(true)
    }

    /// Gives build rows without (or, for a semi join, with) a partner; false when all were seen.
    fn build_rest(&mut self, out: &mut Batch) -> bool {
        let Some(at) = &mut self.rest else { return false };
        while *at < self.table.partnered.len() {
            if out.is_full() {
                return true;
            }
            let wanted = self.table.partnered[*at] == self.wants.build_partnered;
            if wanted {
                let row = self.table.rows.row(*at);
                match self.node.join {
                    JoinType::Semi | JoinType::Anti => out.push(row),
                    _ => push_single(row, self.node.build_left, self.rows.width(), out),
                }
            }
            *at += 1;
        }
        false
    }
}

/// A row and NULLs in place of the other side.
fn push_single(row: &[Datum], is_left: bool, other_width: usize, out: &mut Batch) {
    let nulls = std::iter::repeat_n(Datum::Null, other_width);
    if is_left {
        out.values().extend_from_slice(row);
        out.values().extend(nulls);
    } else {
        out.values().extend(nulls);
        out.values().extend_from_slice(row);
    }
    out.close_row();
}

impl Operator for HashJoin {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(match self.node.join {
            JoinType::Semi | JoinType::Anti => self.node.left.width,
            _ => self.node.left.width + self.node.right.width,
        });
        if !self.started {
            self.start(env)?;
            if matches!(self.source, Source::None) && !self.next_files(env)? {
                return Ok(false);
            }
        }
        loop {
            if self.rest.is_some() {
                if self.build_rest(out) {
                    return Ok(true);
                }
                self.rest = None;
                if !self.next_piece(env)? && !self.next_files(env)? {
                    self.source = Source::None;
                    self.table = Table::new(self.table.rows.width(), self.node.keys.len());
                    self.rows.reset(self.rows.width());
                    self.rest = Some(0);
                    return Ok(!out.is_empty());
                }
                continue;
            }
            if self.inside {
                if !self.join_row(env, out)? {
                    return Ok(true);
                }
                self.inside = false;
                let found = self.found;
                if let Some(kept) = self.found_in_pieces() {
                    *kept = found;
                }
                self.at += 1;
                continue;
            }
            if out.is_full() {
                return Ok(true);
            }
            if self.at < self.rows.len() {
                self.found = self.found_in_pieces().is_some_and(|found| *found);
                if self.found && matches!(self.node.join, JoinType::Semi | JoinType::Anti) {
                    // An earlier piece has settled it.
                    self.at += 1;
                    continue;
                }
                // The row is borrowed while its keys are made, so it is taken out for that long.
                let row = std::mem::take(&mut self.rows);
                let keyed = self.find_keys(row.row(self.at), !self.node.build_left, env);
                self.rows = row;
                self.chain = if keyed? { self.table.first(&self.keys) } else { END };
                self.inside = true;
                continue;
            }
            env.check_cancel()?;
            if !self.read_probe(env, out.target)? {
                self.rows.reset(self.rows.width());
                self.rest = Some(0);
            }
        }
    }
}
