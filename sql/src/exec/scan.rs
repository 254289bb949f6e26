//! Reading stored tables: by rows or by an index, in key order, only the columns asked for.

use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::Version;
use pgbee_engine::bee::{Direction, KeyRange};
use pgbee_engine::txn::{ReadView, Snapshot, ViewScan};

use super::batch::{BATCH_BYTES, BATCH_ROWS, Batch};
use super::eval::Env;
use super::filter::all_hold;
use super::foreign::remote_view;
use super::operator::Operator;
use super::range;
use crate::codec::row::written_by;
use crate::codec::{Decoder, IndexCodec};
use crate::error::{Result, SqlError, state};
use crate::plan::node::{Access, ScanNode, SystemColumn};
use crate::types::Datum;
use crate::wait::What;

/// Entries read at once before it is known how large they are, and after.
const FIRST_ENTRIES: usize = 4;
const MORE_ENTRIES: usize = 64;

/// A scan of a table.
pub(crate) struct Scan {
    node: Arc<ScanNode>,
    decoder: Decoder,
    /// Made when the first rows are asked for.
    state: Option<State>,
    entries: Vec<(Bytes, Bytes)>,
    /// Rows to read at once; grows.
    ask: usize,
}

struct State {
    view: ReadView,
    /// Ranges not yet begun, the next one last.
    ranges: Vec<KeyRange>,
    scan: Option<ViewScan>,
    /// Entries read so far.
    seen: u64,
    /// Bytes an entry had, the largest of the last batch.
    entry_bytes: usize,
}

impl State {
    /// Looks up a key and those that follow together, which where they have to be fetched costs as many round trips as one; how many bytes were found.
    fn read_points(&mut self, first: &Bytes, count: usize, entries: &mut Vec<(Bytes, Bytes)>) -> Result<usize> {
        let most = count.saturating_sub(entries.len()).clamp(1, MORE_ENTRIES);
        let mut keys = vec![first.clone()];
        while keys.len() < most
            && let Some(key) = self.ranges.last().and_then(point)
        {
            keys.push(key.clone());
            self.ranges.pop();
        }
        let mut bytes = 0;
        for (key, value) in keys.iter().zip(self.view.get_many(&keys)?) {
            if let Some(value) = value {
                bytes += key.len() + value.len();
                entries.push((key.clone(), value));
            }
        }
        Ok(bytes)
    }
}

impl Scan {
    pub fn new(node: Arc<ScanNode>) -> Scan {
        let decoder = Decoder::projecting(&node.table, &node.columns);
        Scan { node, decoder, state: None, entries: Vec::new(), ask: 1 }
    }

    fn width(&self) -> usize {
        self.node.keep + usize::from(self.node.row_key) + self.node.system.len()
    }

    fn start(&self, env: &Env<'_>) -> Result<State> {
        let view = match (&self.node.foreign, &self.node.at) {
            (Some(foreign), at) => remote_view(foreign, &self.node, at.as_ref(), env)?,
            (None, None) => env.cx.view.clone(),
            (None, Some(at)) => env.cx.database.snapshot_at(Version(at.version))?.into(),
        };
        let prefix = match &self.node.access {
            Access::Rows(codec) => codec.prefix(),
            Access::Index { codec, .. } => codec.prefix(),
            Access::Bee => return Err(SqlError::internal("entries of a bee are read by another operator")),
        };
        let mut ranges = range::resolve(&self.node.bounds, prefix, env)?;
        if !self.node.reverse {
            ranges.reverse();
        }
        Ok(State { view, ranges, scan: None, seen: 0, entry_bytes: 0 })
    }

    /// A whole table was read: the planner may know how many rows it has.
    fn note_rows(&self, env: &Env<'_>) {
        let node = &*self.node;
        let bounds = &node.bounds;
        let whole = matches!(node.access, Access::Rows(_))
            && node.foreign.is_none()
            && bounds.equals.is_empty()
            && bounds.lower.is_empty()
            && bounds.upper.is_empty();
        if let (true, None, Some(state)) = (whole, &node.at, &self.state) {
            crate::plan::note_rows(env.cx.session.services.key(), node.table.oid, state.seen);
        }
    }

    /// Whether rows are counted and keys looked at, but no value is needed.
    fn keys_only(&self) -> bool {
        match &self.node.access {
            _ if !self.node.system.is_empty() => false,
            Access::Rows(_) => self.node.columns.is_empty(),
            // A unique entry has the row's key in its value.
            Access::Bee => false,
            Access::Index { covering, .. } => {
                (covering.is_some() || self.node.columns.is_empty()) && !self.node.row_key
            }
        }
    }

    /// Reads up to `count` entries into `self.entries`, fewer if they are large; false at the end.
    fn read(&mut self, env: &Env<'_>, count: usize) -> Result<bool> {
        self.entries.clear();
        let keys_only = self.keys_only();
        let direction = if self.node.reverse { Direction::Backward } else { Direction::Forward };
        let state = match &mut self.state {
            Some(state) => state,
            None => {
                let state = self.start(env)?;
                self.state.insert(state)
            }
        };
        if let Some(waiting) = &env.cx.waiting {
            waiting.reading(What::Table(self.node.table.clone()), state.view.version().0);
        }
        let (mut held, mut largest) = (0, 0);
        loop {
            if held >= BATCH_BYTES {
                state.entry_bytes = largest;
                return Ok(true);
            }
            if let Some(scan) = &mut state.scan {
                // Nothing is known of the first entries; of later ones, that they are probably like those before.
                let size = state.entry_bytes.max(largest);
                let room = (BATCH_BYTES - held).checked_div(size);
                let fit = room.map_or(FIRST_ENTRIES, |n| n.clamp(1, MORE_ENTRIES));
                let left = (count - self.entries.len()).min(fit);
                let start = self.entries.len();
                let read = scan.next_batch(&mut self.entries, left)?;
                for (key, value) in &self.entries[start..] {
                    let bytes = key.len() + value.len();
                    held += bytes;
                    largest = largest.max(bytes);
                }
                // Short: the range may be over, or a block is missing; the next call tells.
                if read == 0 {
                    state.scan = None;
                }
                if self.entries.len() >= count || (read < left && self.entries.len() * 2 >= count) {
                    state.entry_bytes = largest;
                    return Ok(true);
                }
                continue;
            }
            let Some(range) = state.ranges.pop() else { return Ok(!self.entries.is_empty()) };
            if let Some(key) = point(&range) {
                if env.cx.waiting.is_some() {
                    held += state.read_points(key, count, &mut self.entries)?;
                    if self.entries.len() >= count {
                        return Ok(true);
                    }
                    continue;
                }
                if let Some(value) = state.view.get(key)? {
                    held += key.len() + value.len();
                    self.entries.push((key.clone(), value));
                }
                if self.entries.len() >= count {
                    return Ok(true);
                }
                continue;
            }
            state.scan = Some(if keys_only {
                state.view.scan_keys(range, direction)?
            } else {
                state.view.scan(range, direction)?
            });
        }
    }

    /// Turns the entries read into rows.
    fn decode(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<()> {
        let state = self.state.as_ref().ok_or_else(|| SqlError::internal("a scan that was not started"))?;
        let node = &*self.node;
        let nothing = node.columns.is_empty() && node.system.is_empty();
        let mut together = match &node.access {
            Access::Index { codec, covering: None, .. } if !nothing && env.cx.waiting.is_some() => {
                let keys = self.entries.iter().map(|(k, v)| codec.row_key(k, v)).collect::<Result<Vec<_>>>()?;
                Some(state.view.get_many(&keys)?.into_iter())
            }
            _ => None,
        };
        for (key, value) in &self.entries {
            let start = out.values().len();
            let mut stored = value.clone();
            match &node.access {
                _ if nothing => {}
                Access::Bee => {}
                Access::Rows(_) => self.decoder.decode_into(value, out.values())?,
                Access::Index { codec, covering: Some(places), .. } => cover(codec, places, key, out)?,
                Access::Index { codec, name, covering: None } => {
                    // Where rows may have to be fetched, those of a batch were looked up together: they cost as many round trips as one.
                    let row = match &mut together {
                        Some(rows) => rows.next().flatten(),
                        None => state.view.get(&codec.row_key(key, value)?)?,
                    };
                    let Some(row) = row else {
                        return Err(SqlError::new(
                            state::DATA_CORRUPTED,
                            format!("index \"{name}\" refers to a row that does not exist"),
                        ));
                    };
                    self.decoder.decode_into(&row, out.values())?;
                    stored = row;
                }
            }
            if !node.filter.is_empty() {
                env.check_cancel()?;
                if !all_hold(&node.filter, &out.values()[start..], env)? {
                    out.abandon_row();
                    continue;
                }
                out.values().truncate(start + node.keep);
            }
            if node.row_key {
                let key = match &node.access {
                    Access::Rows(_) | Access::Bee => Datum::bytea(key),
                    Access::Index { codec, .. } => Datum::bytea(codec.row_key(key, value)?),
                };
                out.values().push(key);
            }
            for column in &node.system {
                let made = match (column, &node.access) {
                    (SystemColumn::Xmin, _) => Datum::Oid(written_by(&stored)),
                    (SystemColumn::Ctid, Access::Index { codec, .. }) => {
                        place_of(state.view.snapshot(), &codec.row_key(key, value)?, &stored)?
                    }
                    (SystemColumn::Ctid, _) => place_of(state.view.snapshot(), key, &stored)?,
                };
                out.values().push(made);
            }
            out.close_row();
        }
        Ok(())
    }
}

/// Where a row is written: the block of its entry, as a page and a place on it. A row that is not committed yet is nowhere.
pub(crate) fn place_of(snapshot: &Snapshot, key: &[u8], stored: &[u8]) -> Result<Datum> {
    let entry = snapshot.get_entry(key)?.filter(|entry| entry.value.as_deref() == Some(stored));
    Ok(entry.map_or_else(nowhere, |entry| Datum::text(format!("({},{})", entry.seq.0 >> 16, entry.seq.0 & 0xffff))))
}

/// ctid of a row that is not committed.
pub(crate) fn nowhere() -> Datum {
    Datum::text("(4294967295,0)")
}

fn point(range: &KeyRange) -> Option<&Bytes> {
    match (&range.start, &range.end) {
        (std::ops::Bound::Included(a), std::ops::Bound::Included(b)) if a == b => Some(a),
        _ => None,
    }
}

fn cover(codec: &IndexCodec, places: &[usize], key: &[u8], out: &mut Batch) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let values = codec.decode(key)?;
    out.values().extend(places.iter().map(|p| values[*p].clone()));
    Ok(())
}

impl Operator for Scan {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.width());
        loop {
            env.check_cancel()?;
            let count = out.target.max(self.ask).min(BATCH_ROWS);
            if !self.node.filter.is_empty() {
                self.ask = (self.ask * 2).min(BATCH_ROWS);
            }
            if !self.read(env, count)? {
                self.note_rows(env);
                return Ok(false);
            }
            if let Some(state) = &mut self.state {
                state.seen += self.entries.len() as u64;
            }
            self.decode(env, out)?;
            if !out.is_empty() {
                return Ok(true);
            }
        }
    }
    fn rewind(&mut self) -> bool {
        self.state = None;
        self.ask = 1;
        true
    }
}
