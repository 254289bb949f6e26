//! Reading bees that pgbee did not write: entries in key order as rows, only the columns asked for; and the view by which tables of another pgbee's
//! bee are read like our own.
//!
//! A statement reads one version of each bee, whichever it finds newest when it first reads it. Entries are read a batch at a time, fewer where they are
//! large, so that nothing grows with the bee.

use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::bee::{self, Cursor, Direction, Entry, KeyRange};
use pgbee_engine::txn::{ReadView, Snapshot};

use super::batch::{BATCH_BYTES, BATCH_ROWS, Batch};
use super::eval::Env;
use super::filter::all_hold;
use super::operator::Operator;
use super::range::{self, Wanted};
use crate::catalog::schema::{Index, Relation, Table};
use crate::error::{Result, SqlError};
use crate::foreign::options::{INCONSISTENT_DESCRIPTOR, TABLE_NOT_FOUND};
use crate::foreign::{BeeTable, ForeignScan, Source};
use crate::ir::AsOf;
use crate::plan::node::{Access, ScanNode};
use crate::types::Datum;
use crate::wait::What;

/// Entries read at once before it is known how large they are, and after.
const FIRST_ENTRIES: usize = 4;
const MORE_ENTRIES: usize = 64;

/// The version of a bee that a statement reads.
fn snapshot(foreign: &ForeignScan, at: Option<&AsOf>, env: &Env<'_>) -> Result<Snapshot> {
    let session = &env.cx.session;
    match (&foreign.source, at) {
        (Source::Own, None) => Ok(env.cx.view.snapshot().clone()),
        (Source::Own, Some(at)) => session.services.snapshot_at(at.version),
        (Source::Key(key, peers), at) => {
            let open = || {
                let bee = session.services.foreign_bee(*key, peers)?;
                let newest = bee.newest()?;
                Ok((bee, newest))
            };
            let (bee, newest) = env.cx.shared.foreign(*key, open)?;
            at.map_or(Ok(newest), |at| bee.at(at.version))
        }
    }
}

/// A view of the bee a table of another pgbee is in.
///
/// # Errors
/// HV00R or HV021 if the table is no longer there as it was imported.
pub(crate) fn remote_view(
    foreign: &ForeignScan,
    node: &ScanNode,
    at: Option<&AsOf>,
    env: &Env<'_>,
) -> Result<ReadView> {
    let snapshot = snapshot(foreign, at, env)?;
    if let Source::Key(key, peers) = &foreign.source {
        let catalog = env.cx.session.services.foreign_bee(*key, peers)?.catalog(&snapshot)?;
        match catalog.by_oid(node.table.oid) {
            Some(Relation::Table(there)) if there.foreign.is_none() => check_same(&node.table, there, &node.access)?,
            _ => {
                let message = format!("the table that foreign table \"{}\" shows does not exist", node.table.name);
                return Err(SqlError::new(TABLE_NOT_FOUND, message)
                    .detail(format!("Bee {key} has no table with OID {}.", node.table.oid)));
            }
        }
    }
    Ok(snapshot.into())
}

/// Refuses to read rows by a definition that is not theirs.
fn check_same(here: &Table, there: &Table, access: &Access) -> Result<()> {
    let column = |attnum: i16| there.slots.iter().find(|c| c.attnum == attnum && !c.dropped);
    let columns = here.columns().all(|c| column(c.attnum).is_some_and(|t| t.type_mod() == c.type_mod()));
    let key = |t: &Table| t.primary_key.as_ref().map(|k| k.columns.clone());
    let shape = |i: &Index| (i.unique, i.columns.iter().map(|c| (c.attnum, c.desc, c.nulls_first)).collect::<Vec<_>>());
    let index = match access {
        Access::Index { name, .. } => {
            let wanted = here.indexes.iter().find(|i| i.name == **name);
            wanted.is_some_and(|w| there.indexes.iter().any(|i| i.oid == w.oid && shape(i) == shape(w)))
        }
        _ => true,
    };
    if columns && key(here) == key(there) && index {
        return Ok(());
    }
    let message = format!("foreign table \"{}\" was changed where it comes from since it was imported", here.name);
    Err(SqlError::new(INCONSISTENT_DESCRIPTOR, message).hint("Drop it and import it again."))
}

/// A scan of a bee's entries.
pub(crate) struct BeeScan {
    node: Arc<ScanNode>,
    foreign: Arc<ForeignScan>,
    state: Option<State>,
    entries: Vec<Entry>,
    /// Rows to read at once; grows.
    ask: usize,
}

struct State {
    bee: bee::Snapshot,
    /// Ranges not yet begun, the next one last.
    ranges: Vec<KeyRange>,
    cursor: Option<Cursor>,
    /// Bytes an entry had, the largest of the last batch.
    entry_bytes: usize,
}

impl BeeScan {
    pub fn new(node: Arc<ScanNode>) -> Result<BeeScan> {
        let foreign = node.foreign.clone().ok_or_else(|| SqlError::internal("a scan of no bee"))?;
        Ok(BeeScan { node, foreign, state: None, entries: Vec::new(), ask: 1 })
    }

    fn bee(&self) -> Result<&BeeTable> {
        self.foreign.bee.as_ref().ok_or_else(|| SqlError::internal("a scan of no bee's entries"))
    }

    fn start(&self, env: &Env<'_>) -> Result<State> {
        let (encoding, prefix) = self.bee()?.keys();
        let mut ranges: Vec<KeyRange> = match range::wanted(&self.node.bounds, env)? {
            Wanted::Values(values) => values.iter().filter_map(|value| encoding.point(prefix, value)).collect(),
            Wanted::Between(lower, upper) => vec![encoding.range(prefix, lower.as_ref(), upper.as_ref())],
        };
        ranges.retain(|r| !range::empty(r));
        ranges.sort_by(|a, b| start_of(a).cmp(&start_of(b)));
        ranges.dedup();
        if !self.node.reverse {
            ranges.reverse();
        }
        let bee = snapshot(&self.foreign, self.node.at.as_ref(), env)?.bee().clone();
        Ok(State { bee, ranges, cursor: None, entry_bytes: 0 })
    }

    /// Reads up to `count` entries, fewer if they are large; false at the end.
    fn read(&mut self, env: &Env<'_>, count: usize) -> Result<bool> {
        self.entries.clear();
        let keys_only = self.bee()?.keys_suffice(&self.node.columns);
        let direction = if self.node.reverse { Direction::Backward } else { Direction::Forward };
        if self.state.is_none() {
            self.state = Some(self.start(env)?);
        }
        let Some(state) = &mut self.state else { return Ok(false) };
        if let Some(waiting) = &env.cx.waiting {
            waiting.reading(What::Table(self.node.table.clone()), state.bee.version().0);
        }
        let (mut held, mut largest) = (0, 0);
        while held < BATCH_BYTES && self.entries.len() < count {
            let Some(cursor) = &mut state.cursor else {
                let Some(range) = state.ranges.pop() else { break };
                match point(&range) {
                    Some(key) => {
                        if let Some(entry) = state.bee.get(key)? {
                            held += bytes_of(&entry);
                            self.entries.push(entry);
                        }
                        env.check_cancel()?;
                    }
                    None => {
                        let cursor = state.bee.cursor(range, direction);
                        state.cursor = Some(if keys_only { cursor.keys_only() } else { cursor });
                    }
                }
                continue;
            };
            // Nothing is known of the first entries; of later ones, that they are probably like those before.
            let room = (BATCH_BYTES - held).checked_div(state.entry_bytes.max(largest));
            let fit = room.map_or(FIRST_ENTRIES, |n| n.clamp(1, MORE_ENTRIES)).min(count - self.entries.len());
            let start = self.entries.len();
            let read = cursor.next_batch(&mut self.entries, fit)?;
            for entry in &self.entries[start..] {
                held += bytes_of(entry);
                largest = largest.max(bytes_of(entry));
            }
            if read == 0 {
                state.cursor = None;
            }
        }
        state.entry_bytes = largest;
        Ok(!self.entries.is_empty())
    }

    fn decode(&self, env: &Env<'_>, out: &mut Batch) -> Result<()> {
        let (node, bee) = (&*self.node, self.bee()?);
        for entry in &self.entries {
            let start = out.values().len();
            out.values().resize(start + node.columns.len(), Datum::Null);
            let session = &env.cx.session;
            if !node.filter.is_empty() {
                env.check_cancel()?;
                // Only what the filter looks at: the rest of a row it drops need not be readable.
                bee.decode(entry, &node.columns, |at| node.filtered[at], session, &mut out.values()[start..])?;
                if !all_hold(&node.filter, &out.values()[start..], env)? {
                    out.abandon_row();
                    continue;
                }
                out.values().truncate(start + node.keep);
            }
            let kept = &node.columns[..node.keep];
            let left = |at: usize| node.filter.is_empty() || !node.filtered[at];
            bee.decode(entry, kept, left, session, &mut out.values()[start..])?;
            out.close_row();
        }
        Ok(())
    }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.key.len() + entry.value.as_ref().map_or(0, Bytes::len)
}

fn start_of(range: &KeyRange) -> Option<&Bytes> {
    match &range.start {
        std::ops::Bound::Included(key) | std::ops::Bound::Excluded(key) => Some(key),
        std::ops::Bound::Unbounded => None,
    }
}

fn point(range: &KeyRange) -> Option<&Bytes> {
    match (&range.start, &range.end) {
        (std::ops::Bound::Included(a), std::ops::Bound::Included(b)) if a == b => Some(a),
        _ => None,
    }
}

impl Operator for BeeScan {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.keep);
        loop {
            env.check_cancel()?;
            let count = out.target.max(self.ask).min(BATCH_ROWS);
            if !self.node.filter.is_empty() {
                self.ask = (self.ask * 2).min(BATCH_ROWS);
            }
            if !self.read(env, count)? {
                return Ok(false);
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
