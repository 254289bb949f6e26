//! GROUP BY.
//!
//! Grouping by hash keeps one set of states a group. When memory is full no new group is begun: rows of groups not in the table
//! go to files by hash and are grouped, file by file, when the table has been given out. A row of several grouping sets is
//! taken once for each; the set's number is part of the key.
//!
//! Where states grow with their rows (string_agg, DISTINCT), it does not help to begin no new group. From the moment memory is full all rows are
//! sorted by their keys instead, and the groups are ended one by one: only one grows at a time.

use std::sync::Arc;

use super::batch::Batch;
use super::code::Code;
use super::collect::Slot;
use super::eval::Env;
use super::hash::{HashIndex, MAX_LEVEL, Partition, Partitions};
use super::operator::{BoxOperator, Operator, open_node};
use super::set_op::{hash_typed, same_typed};
use super::sort::normalised;
use super::sorter::{SortColumn, Sorter};
use super::spill::SpoolReader;
use super::value::{self, KeyOrder};
use crate::error::Result;
use crate::plan::node::AggregateNode;
use crate::types::{Datum, Row};

impl AggregateNode {
    fn output_width(&self) -> usize {
        self.keys.len() + self.aggs.len() + if self.sets.len() > 1 { self.grouping.len() } else { 0 }
    }

    /// Appends the row of a group, its keys being those of the table.
    fn give(
        &self,
        keys: &[Datum],
        slots: impl IntoIterator<Item = Slot>,
        env: &Env<'_>,
        out: &mut Batch,
    ) -> Result<()> {
        out.values().extend_from_slice(&keys[..self.keys.len()]);
        for (agg, slot) in self.aggs.iter().zip(slots) {
            let value = agg.finish(slot, env)?;
            out.values().push(value);
        }
        let set = if self.sets.len() > 1 { keys.last().and_then(value::integer).unwrap_or(0) as usize } else { 0 };
        self.push_grouping(set, out);
        out.close_row();
        Ok(())
    }

    /// Appends GROUPING() values of a set: a bit for each key asked about that the set does not group by, first key highest.
    fn push_grouping(&self, set: usize, out: &mut Batch) {
        if self.sets.len() > 1 {
            for asked in &self.grouping {
                let bits = asked.iter().fold(0, |bits, key| bits << 1 | i32::from(!self.sets[set].contains(key)));
                out.values().push(Datum::Int4(bits));
            }
        }
    }
}

/// Grouping by hash.
pub(crate) struct HashAggregate {
    node: Arc<AggregateNode>,
    input: Option<BoxOperator>,
    groups: Groups,
    /// The next group to give.
    at: usize,
    waiting: Vec<Partition>,
    growing: Vec<bool>,
    late: Option<Late>,
}

/// The rows that came when memory was full of growing states, sorted by their keys.
struct Late {
    /// The row, then the keys it is sorted by.
    rows: Sorter,
    batch: Batch,
    at: usize,
    /// The group being ended: its keys, and its states taken out of the table, if it was there.
    group: Option<(Row, Vec<Slot>)>,
    /// Groups of the table that were ended.
    ended: Vec<bool>,
}

/// The groups in memory.
#[derive(Default)]
struct Groups {
    index: HashIndex,
    /// Keys, and with several grouping sets the set's number behind them.
    keys: Batch,
    slots: Vec<Slot>,
    bytes: usize,
}

impl HashAggregate {
    pub fn new(node: Arc<AggregateNode>, env: &Env<'_>) -> Result<HashAggregate> {
        let input = Some(open_node(&node.input, env)?);
        let growing = node.aggs.iter().map(|a| a.grows()).collect();
        Ok(HashAggregate { node, input, groups: Groups::default(), at: 0, waiting: Vec::new(), growing, late: None })
    }

    fn key_width(&self) -> usize {
        self.node.keys.len() + usize::from(self.node.sets.len() > 1)
    }

    fn restart(&mut self) {
        self.groups = Groups { keys: Batch::new(self.key_width()), ..Groups::default() };
        self.at = 0;
    }

    /// Takes rows from now on to be sorted.
    fn begin_late(&mut self, env: &Env<'_>) {
        let (width, keys) = (self.node.input.width, self.key_width());
        let order = KeyOrder { desc: false, nulls_first: false };
        let columns: Vec<SortColumn> = (width..width + keys).map(|column| SortColumn { column, order }).collect();
        self.late = Some(Late {
            rows: Sorter::new(width + keys, columns, env.cx.session.work_mem_bytes, None),
            batch: Batch::new(width),
            at: 0,
            group: None,
            ended: vec![false; self.groups.index.len()],
        });
    }

    /// Ends groups that late rows belong to until `out` is full; false when there are no late rows left.
    fn give_late(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let Some(late) = &mut self.late else { return Ok(false) };
        let node = &*self.node;
        let (width, several) = (node.input.width, node.sets.len() > 1);
        let columns = width + node.keys.len() + usize::from(several);
        let mut args = Row::new();
        loop {
            if late.at >= late.batch.len() {
                env.check_cancel()?;
                late.at = 0;
                late.batch.reset(columns);
                if !late.rows.read(&mut late.batch, columns)? {
                    if let Some((keys, slots)) = late.group.take() {
                        node.give(&keys, slots, env, out)?;
                    }
                    return Ok(false);
                }
            }
            let (row, sorted_by) = late.batch.row(late.at).split_at(width);
            if late.group.as_ref().is_none_or(|(keys, _)| !same_typed(keys, sorted_by, &node.key_types)) {
                if let Some((keys, slots)) = late.group.take() {
                    node.give(&keys, slots, env, out)?;
                    if out.is_full() {
                        return Ok(true);
                    }
                }
                let groups = &mut self.groups;
                let hash = hash_typed(sorted_by, &node.key_types);
                let known = groups.index.find(hash, |i| same_typed(groups.keys.row(i), sorted_by, &node.key_types));
                late.group = Some(match known {
                    Some(group) => {
                        late.ended[group] = true;
                        (groups.keys.row(group).to_vec(), Groups::take_slots(&mut groups.slots, node, group).collect())
                    }
                    None => {
                        let set =
                            if several { sorted_by.last().and_then(value::integer).unwrap_or(0) as usize } else { 0 };
                        let mut keys = vec![Datum::Null; node.keys.len()];
                        for key in &node.sets[set] {
                            keys[*key] = node.keys[*key].code.eval(row, env)?;
                        }
                        if several {
                            keys.push(Datum::Int4(set as i32));
                        }
                        let limit = env.cx.session.work_mem_bytes;
                        (keys, node.aggs.iter().map(|agg| agg.slot(env, limit)).collect())
                    }
                });
            }
            if let Some((_, slots)) = &mut late.group {
                for (agg, slot) in node.aggs.iter().zip(slots) {
                    agg.take(slot, row, &mut args, env)?;
                }
            }
            late.at += 1;
        }
    }

    fn gather(&mut self, mut input: BoxOperator, env: &Env<'_>) -> Result<()> {
        self.restart();
        let node = self.node.clone();
        // A grouping set without keys has a group even of no rows.
        for (set, keys) in node.sets.iter().enumerate() {
            if keys.is_empty() {
                let mut key = vec![Datum::Null; node.keys.len()];
                if node.sets.len() > 1 {
                    key.push(Datum::Int4(set as i32));
                }
                let hash = hash_typed(&key, &node.key_types);
                self.groups.begin(&node, hash, &key, env);
            }
        }
        let plain = node.sets.len() == 1 && node.sets[0].len() == node.keys.len();
        let columns: Option<Vec<usize>> = plain
            .then(|| {
                node.keys
                    .iter()
                    .zip(&node.key_types)
                    .map(|(k, ty)| match k.code {
                        Code::Column(c) if !value::needs_normalising(*ty) => Some(c),
                        _ => None,
                    })
                    .collect()
            })
            .flatten();
        let (mut overflow, mut batch, mut scratch) = (None, Batch::new(node.input.width), Scratch::default());
        while input.next(env, &mut batch)? {
            env.check_cancel()?;
            for row in batch.iter() {
                if let Some(columns) = &columns {
                    self.take_by_columns(row, columns, &mut scratch, &mut overflow, env)?;
                    continue;
                }
                scratch.all_keys.clear();
                for key in &node.keys {
                    scratch.all_keys.push(key.code.eval(row, env)?);
                }
                for set in 0..node.sets.len() {
                    self.take(row, set, 0, &mut scratch, &mut overflow, env)?;
                }
            }
        }
        if let Some(late) = &mut self.late {
            late.rows.finish(env)?;
        }
        self.keep(overflow)
    }

    /// Takes a row whose keys are columns of it, without copying them unless the group is new.
    #[inline]
    fn take_by_columns(
        &mut self,
        row: &[Datum],
        columns: &[usize],
        scratch: &mut Scratch,
        overflow: &mut Option<Partitions>,
        env: &Env<'_>,
    ) -> Result<()> {
        scratch.keys.clear();
        let hash = {
            let mut h = rustc_hash::FxHasher::default();
            for c in columns {
                value::hash_value(&row[*c], &mut h);
            }
            value::finish_hash(h)
        };
        let groups = &self.groups;
        let found = groups.index.find(hash, |i| {
            let keys = groups.keys.row(i);
            columns.iter().zip(keys).all(|(c, key)| value::same(&row[*c], key))
        });
        if found.is_none() {
            scratch.keys.extend(columns.iter().map(|c| row[*c].clone()));
        }
        self.update(row, found, hash, 0, scratch, overflow, env)
    }

    /// Takes a row into the group of one set, its keys being in `scratch.all_keys`.
    fn take(
        &mut self,
        row: &[Datum],
        set: usize,
        level: u32,
        scratch: &mut Scratch,
        overflow: &mut Option<Partitions>,
        env: &Env<'_>,
    ) -> Result<()> {
        let node = &*self.node;
        scratch.keys.clear();
        scratch.keys.resize(node.keys.len(), Datum::Null);
        for key in &node.sets[set] {
            scratch.keys[*key].clone_from(&scratch.all_keys[*key]);
        }
        if node.sets.len() > 1 {
            scratch.keys.push(Datum::Int4(set as i32));
        }
        let hash = hash_typed(&scratch.keys, &node.key_types);
        let groups = &self.groups;
        let found = groups.index.find(hash, |i| same_typed(groups.keys.row(i), &scratch.keys, &node.key_types));
        self.update(row, found, hash, level, scratch, overflow, env)
    }

    #[allow(clippy::too_many_arguments)] // the two ways of finding a group end here
    #[inline]
    fn update(
        &mut self,
        row: &[Datum],
        found: Option<usize>,
        hash: u64,
        level: u32,
        scratch: &mut Scratch,
        overflow: &mut Option<Partitions>,
        env: &Env<'_>,
    ) -> Result<()> {
        let full = self.groups.bytes + self.groups.index.bytes() > env.cx.session.work_mem_bytes;
        if self.late.is_none() && full && self.growing.contains(&true) && self.groups.index.len() > 0 {
            self.begin_late(env);
        }
        let node = &*self.node;
        if let Some(late) = &mut self.late {
            let keys = found.map_or(scratch.keys.as_slice(), |group| self.groups.keys.row(group));
            let values = late.rows.begin_row();
            values.extend_from_slice(row);
            values.extend(keys.iter().zip(&node.key_types).map(|(key, ty)| normalised(key.clone(), *ty)));
            return late.rows.end_row(env);
        }
        let group = match found {
            Some(group) => group,
            None => {
                if overflow.is_some() || (full && level < MAX_LEVEL && self.groups.index.len() > 0) {
                    scratch.row.clear();
                    scratch.row.extend_from_slice(row);
                    if node.sets.len() > 1 {
                        scratch.row.push(scratch.keys.last().cloned().unwrap_or_default());
                    }
                    return overflow.get_or_insert_with(|| Partitions::new(level)).push(hash, &scratch.row);
                }
                self.groups.begin(node, hash, &scratch.keys, env)
            }
        };
        let slots = &mut self.groups.slots[group * node.aggs.len()..(group + 1) * node.aggs.len()];
        for ((agg, slot), grows) in node.aggs.iter().zip(slots).zip(&self.growing) {
            if *grows {
                let before = slot.bytes();
                agg.take(slot, row, &mut scratch.args, env)?;
                // A sort within a group that went to a file holds less than before.
                self.groups.bytes = (self.groups.bytes + slot.bytes()).saturating_sub(before);
            } else {
                agg.take(slot, row, &mut scratch.args, env)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, overflow: Option<Partitions>) -> Result<()> {
        if let Some(overflow) = overflow {
            self.waiting.extend(overflow.finish()?.into_iter().flatten());
        }
        Ok(())
    }

    fn gather_file(&mut self, file: &Partition, env: &Env<'_>) -> Result<()> {
        self.restart();
        let node = self.node.clone();
        let width = node.input.width;
        let (mut overflow, mut scratch) = (None, Scratch::default());
        let (mut reader, mut row, mut count) = (SpoolReader::default(), Row::new(), 0u32);
        while reader.next(&file.rows, &mut row)? {
            let set = if node.sets.len() > 1 { value::integer(&row[width]).unwrap_or(0) as usize } else { 0 };
            scratch.all_keys.clear();
            for key in &node.keys {
                scratch.all_keys.push(key.code.eval(&row[..width], env)?);
            }
            self.take(&row[..width], set, file.level, &mut scratch, &mut overflow, env)?;
            row.clear();
            count += 1;
            if count % 1024 == 0 {
                env.check_cancel()?;
            }
        }
        self.keep(overflow)
    }
}

#[derive(Default)]
struct Scratch {
    all_keys: Row,
    keys: Row,
    args: Row,
    row: Row,
}

impl Groups {
    /// Adds a group without rows.
    fn begin(&mut self, node: &AggregateNode, hash: u64, keys: &[Datum], env: &Env<'_>) -> usize {
        let limit = env.cx.session.work_mem_bytes;
        self.keys.push(keys);
        self.bytes += value::row_bytes(keys);
        for agg in &node.aggs {
            let slot = agg.slot(env, limit);
            self.bytes += slot.bytes() + std::mem::size_of::<Slot>();
            self.slots.push(slot);
        }
        self.index.insert(hash)
    }
    /// The states of a group that is being given out.
    fn take_slots(slots: &mut [Slot], node: &AggregateNode, group: usize) -> impl Iterator<Item = Slot> {
        let slots = &mut slots[group * node.aggs.len()..(group + 1) * node.aggs.len()];
        slots.iter_mut().map(|slot| std::mem::replace(slot, Slot::Count(0)))
    }
}

impl Operator for HashAggregate {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.output_width());
        if let Some(input) = self.input.take() {
            self.gather(input, env)?;
        }
        let node = self.node.clone();
        loop {
            if self.give_late(env, out)? {
                return Ok(true);
            }
            while self.at < self.groups.index.len() && !out.is_full() {
                if !self.late.as_ref().is_some_and(|late| late.ended[self.at]) {
                    let slots = Groups::take_slots(&mut self.groups.slots, &node, self.at);
                    node.give(self.groups.keys.row(self.at), slots, env, out)?;
                }
                self.at += 1;
            }
            if !out.is_empty() {
                return Ok(true);
            }
            env.check_cancel()?;
            match self.waiting.pop() {
                Some(file) => self.gather_file(&file, env)?,
                None => {
                    self.restart();
                    return Ok(false);
                }
            }
        }
    }
}

/// Grouping of rows that come sorted by the keys; or of all rows, when there are no keys.
pub(crate) struct SortedAggregate {
    node: Arc<AggregateNode>,
    input: BoxOperator,
    rows: Batch,
    at: usize,
    /// Keys and states of the group being gathered.
    group: Option<(Row, Vec<Slot>)>,
    any: bool,
    done: bool,
}

impl SortedAggregate {
    pub fn new(node: Arc<AggregateNode>, env: &Env<'_>) -> Result<SortedAggregate> {
        let input = open_node(&node.input, env)?;
        let rows = Batch::new(node.input.width);
        Ok(SortedAggregate { node, input, rows, at: 0, group: None, any: false, done: false })
    }

    fn begin(&self, keys: Row, env: &Env<'_>) -> (Row, Vec<Slot>) {
        (keys, self.node.aggs.iter().map(|a| a.slot(env, env.cx.session.work_mem_bytes)).collect())
    }

    fn give(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<()> {
        match self.group.take() {
            Some((keys, slots)) => self.node.give(&keys, slots, env, out),
            None => Ok(()),
        }
    }
}

impl Operator for SortedAggregate {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.output_width());
        let node = self.node.clone();
        let (mut keys, mut args) = (Row::new(), Row::new());
        while !self.done && !out.is_full() {
            if self.at >= self.rows.len() {
                self.at = 0;
                env.check_cancel()?;
                // A group needs all its rows; but groups of one row must not make LIMIT 1 read a thousand.
                self.rows.target = if node.keys.is_empty() { super::batch::BATCH_ROWS } else { out.target.max(16) };
                if !self.input.next(env, &mut self.rows)? {
                    self.done = true;
                    if node.keys.is_empty() && !self.any {
                        self.group = Some(self.begin(Row::new(), env));
                    }
                    self.give(env, out)?;
                    break;
                }
            }
            let row = self.rows.row(self.at);
            keys.clear();
            for key in &node.keys {
                keys.push(key.code.eval(row, env)?);
            }
            if self.group.as_ref().is_none_or(|(current, _)| !same_typed(current, &keys, &node.key_types)) {
                self.give(env, out)?;
                self.group = Some(self.begin(keys.clone(), env));
                self.any = true;
            }
            let row = self.rows.row(self.at);
            if let Some((_, slots)) = &mut self.group {
                for (agg, slot) in node.aggs.iter().zip(slots) {
                    agg.take(slot, row, &mut args, env)?;
                }
            }
            self.at += 1;
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        self.rows.reset(self.rows.width());
        self.at = 0;
        self.group = None;
        self.any = false;
        self.done = false;
        self.input.rewind()
    }
}
