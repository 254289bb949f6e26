//! Layers of uncommitted writes over a snapshot.
//!
//! A transaction's writes are a stack of levels; a savepoint or a running statement opens a level, and
//! what it wrote can be dropped, or merged into the level below. Within a level lie chunks
//! ([`super::chunk`]), because a chunk that a view holds may not change any more:
//!
//! ```text
//!              levels                            chunks, oldest first
//!   top   4    statement                         [ growing ]
//!         3    savepoint "b"                     (none)
//!         2    savepoint "a"                     [ held by a cursor ] [ growing ]
//! bottom  1    begin                             [ run ] [ run ] [ memory ]
//! ```
//!
//! What must stay true:
//!
//! * a chunk nobody else holds is merged with its neighbour of the same level in time proportional to
//!   the smaller one, so a transaction of n small statements costs O(n log n) and its levels have O(log n) chunks;
//! * memory stays below `bytes_max`: then the largest chunk becomes a run on disk, in place, which
//!   changes nothing of what is read; a quarter of it at most goes to the filters of runs;
//! * sixteen neighbouring runs of one size become one, so the number of runs is logarithmic too.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{self, Chunk, Memory, Write, WriteScan};
use super::spill::Scratch;
use crate::bee::{Direction, KeyRange};
use crate::error::{Error, Result};
use crate::position::Version;

/// So many neighbouring runs of one tier are merged into one of the next.
const RUNS_MERGED: usize = 16;

/// What opened a level.
enum Opened {
    /// The transaction itself.
    Begin,
    /// A savepoint and its name; names may repeat, the newest counts.
    Savepoint(String),
    /// A statement that is running.
    Statement,
}

struct Level {
    opened: Opened,
    /// Oldest first.
    chunks: Vec<Chunk>,
}

impl Level {
    fn new(opened: Opened) -> Level {
        Level { opened, chunks: Vec::new() }
    }

    /// Merges the newest chunks as far as that is cheap.
    fn settle(&mut self) {
        loop {
            let [.., Chunk::Memory(_), Chunk::Memory(_)] = self.chunks.as_slice() else {
                return;
            };
            let (newer, older) = (self.chunks.pop(), self.chunks.pop());
            let (Some(Chunk::Memory(newer)), Some(Chunk::Memory(older))) = (newer, older) else {
                unreachable!("both were seen above");
            };
            match chunk::merge(older, newer) {
                Ok(merged) => self.chunks.push(Chunk::Memory(merged)),
                Err((older, newer)) => {
                    self.chunks.extend([Chunk::Memory(older), Chunk::Memory(newer)]);
                    return;
                }
            }
        }
    }

    /// The chunk that takes the next write.
    fn growing(&mut self) -> &mut Memory {
        let can_grow = match self.chunks.last_mut() {
            Some(Chunk::Memory(top)) => Arc::get_mut(top).is_some(),
            _ => false,
        };
        if !can_grow {
            self.settle(); // what is shared now may have been so for long: keep the chunks few
            self.chunks.push(Chunk::Memory(Arc::default()));
        }
        match self.chunks.last_mut() {
            Some(Chunk::Memory(top)) => Arc::make_mut(top),
            _ => unreachable!("pushed above"),
        }
    }
}

/// The uncommitted writes of one transaction.
pub(crate) struct WriteSet {
    levels: Vec<Level>,
    scratch: Arc<Scratch>,
    /// Memory used by the chunks, filters of runs included, about.
    bytes: usize,
    bytes_max: usize,
    /// The oldest version anything was based on, writes rolled back included.
    oldest_base: Option<Version>,
}

impl WriteSet {
    /// Nothing written yet; beyond `bytes_max` of memory, writes go to `scratch`.
    pub fn new(scratch: Arc<Scratch>, bytes_max: usize) -> WriteSet {
        let levels = vec![Level::new(Opened::Begin)];
        WriteSet { levels, scratch, bytes: 0, bytes_max, oldest_base: None }
    }

    /// Writes a key in the top level.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] when memory is used up and the disk refuses what should be put aside; the
    /// write itself is there.
    pub fn put(&mut self, key: Bytes, value: Option<Bytes>, base: Version) -> Result<()> {
        self.oldest_base = Some(self.oldest_base.map_or(base, |oldest| oldest.min(base)));
        let growing = self.top().growing();
        let before = growing.bytes();
        growing.put(key, Write { value, base });
        let after = growing.bytes();
        self.bytes = (self.bytes + after) - before;
        if self.bytes > self.bytes_max { self.spill() } else { Ok(()) }
    }

    /// The newest write of a key. Its base is that of the newest chunk, not the oldest one.
    pub fn get(&self, key: &[u8]) -> Result<Option<Write>> {
        for chunk in self.chunks() {
            if let Some(write) = chunk.get(key)? {
                return Ok(Some(write));
            }
        }
        Ok(None)
    }

    /// All chunks with something in them, newest first. Holding them freezes them.
    pub fn freeze(&self) -> Vec<Chunk> {
        self.chunks().filter(|chunk| chunk.len() > 0).cloned().collect()
    }

    /// All writes of a range, ascending: newest value, oldest base.
    pub fn scan(&self, range: &KeyRange) -> Result<WriteScan> {
        WriteScan::new(self.freeze(), range, Direction::Forward)
    }

    /// Memory used, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No write is based on a version older than this.
    pub fn oldest_base(&self) -> Option<Version> {
        self.oldest_base
    }

    /// Keys written; one that is written in several chunks counts several times.
    pub fn len(&self) -> usize {
        self.chunks().map(Chunk::len).sum()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.chunks().all(|chunk| chunk.len() == 0)
    }

    /// Whether some writes are on disk.
    pub fn is_spilled(&self) -> bool {
        self.chunks().any(|chunk| matches!(chunk, Chunk::Spilled(_)))
    }

    /// Opens a level for a statement.
    pub fn begin_statement(&mut self) {
        self.top().settle();
        self.levels.push(Level::new(Opened::Statement));
    }

    /// Merges the running statement's level, and any above it, into the one below.
    pub fn end_statement(&mut self) -> Result<()> {
        let statement = self.statement()?;
        self.merge_from(statement);
        Ok(())
    }

    /// Drops what the running statement wrote.
    pub fn abort_statement(&mut self) -> Result<()> {
        let statement = self.statement()?;
        self.levels.truncate(statement);
        self.recount();
        Ok(())
    }

    /// Opens a level with a name.
    pub fn savepoint(&mut self, name: &str) {
        self.top().settle();
        self.levels.push(Level::new(Opened::Savepoint(name.to_owned())));
    }

    /// Drops what was written since the newest savepoint of that name, which stays.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        let savepoint = self.find(name)?;
        self.levels.truncate(savepoint + 1);
        self.top().chunks.clear();
        self.recount();
        Ok(())
    }

    /// Forgets the newest savepoint of that name and all after it, keeping what was written.
    pub fn release(&mut self, name: &str) -> Result<()> {
        let savepoint = self.find(name)?;
        self.merge_from(savepoint);
        Ok(())
    }

    /// Whether a savepoint of that name exists.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the first level is never dropped")
    }

    /// Newest first.
    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.levels.iter().rev().flat_map(|level| level.chunks.iter().rev())
    }

    fn statement(&self) -> Result<usize> {
        let is_statement = |level: &Level| matches!(level.opened, Opened::Statement);
        let found = self.levels.iter().rposition(is_statement);
        found.ok_or_else(|| Error::invalid("no statement is running"))
    }

    fn find(&self, name: &str) -> Result<usize> {
        let is_it = |level: &Level| matches!(&level.opened, Opened::Savepoint(it) if it == name);
        let found = self.levels.iter().rposition(is_it);
        found.ok_or_else(|| Error::invalid(format!("savepoint \"{name}\" does not exist")))
    }

    /// Merges level `first` and all above it into the level below.
    fn merge_from(&mut self, first: usize) {
        let above = self.levels.split_off(first);
        let into = self.top();
        for level in above {
            for chunk in level.chunks {
                into.chunks.push(chunk);
                into.settle();
            }
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.bytes = self.chunks().map(Chunk::bytes).sum();
    }

    /// What is left for the filter of one more run.
    fn filter_bytes_left(&self) -> usize {
        let runs = self.chunks().filter(|chunk| matches!(chunk, Chunk::Spilled(_)));
        (self.bytes_max / 4).saturating_sub(runs.map(Chunk::bytes).sum())
    }

    /// Puts the largest chunk aside.
    fn spill(&mut self) -> Result<()> {
        let places = self.levels.iter().enumerate();
        let chunks = places.flat_map(|(l, level)| level.chunks.iter().enumerate().map(move |(c, chunk)| (l, c, chunk)));
        let in_memory = chunks.filter_map(|(l, c, chunk)| match chunk {
            Chunk::Memory(memory) => Some((l, c, memory)),
            Chunk::Spilled(_) => None,
        });
        let Some((l, c, memory)) = in_memory.max_by_key(|(_, _, memory)| memory.bytes()) else {
            return Ok(());
        };
        let mut writer = self.scratch.writer(memory.len(), 0, self.filter_bytes_left());
        for (key, write) in memory.iter() {
            writer.push(key, write)?;
        }
        self.levels[l].chunks[c] = Chunk::Spilled(Arc::new(writer.finish()?));
        self.recount();
        while self.merge_runs(l)? {}
        Ok(())
    }

    /// Merges sixteen neighbouring runs of one tier, if a level has them.
    fn merge_runs(&mut self, level: usize) -> Result<bool> {
        let chunks = &self.levels[level].chunks;
        let tier = |chunk: &Chunk| match chunk {
            Chunk::Spilled(run) => Some(run.tier),
            Chunk::Memory(_) => None,
        };
        let same =
            |group: &[Chunk]| tier(&group[0]).is_some() && group.iter().all(|chunk| tier(chunk) == tier(&group[0]));
        let Some(first) = chunks.windows(RUNS_MERGED).position(same) else {
            return Ok(false);
        };
        let group = first..first + RUNS_MERGED;
        let old = &chunks[group.clone()];
        let expected = old.iter().map(Chunk::len).sum();
        let next_tier = tier(&old[0]).map_or(0, |tier| tier + 1);
        let mut writer = self.scratch.writer(expected, next_tier, self.filter_bytes_left());
        let newest_first = old.iter().rev().cloned();
        let mut scan = WriteScan::new(newest_first, &KeyRange::all(), Direction::Forward)?;
        while let Some((key, write)) = scan.next()? {
            writer.push(&key, &write)?;
        }
        let merged = Chunk::Spilled(Arc::new(writer.finish()?));
        self.levels[level].chunks.splice(group, [merged]);
        self.recount();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory as MemoryBackend;
    use crate::storage::{Backend, Range, Space};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn write_set(bytes_max: usize) -> (WriteSet, Arc<MemoryBackend>) {
        let backend = Arc::new(MemoryBackend::new());
        (WriteSet::new(Scratch::new(backend.clone(), *b"database"), bytes_max), backend)
    }

    fn key(i: u64) -> Bytes {
        Bytes::copy_from_slice(&i.to_be_bytes())
    }

    type Model = BTreeMap<Bytes, (Option<Bytes>, Version)>;

    fn content(mut scan: WriteScan) -> Vec<(Bytes, (Option<Bytes>, Version))> {
        let mut found = vec![];
        while let Some((key, write)) = scan.next().unwrap() {
            found.push((key, (write.value, write.base)));
        }
        found
    }

    fn scratch_entries(backend: &MemoryBackend) -> usize {
        backend.scan(Space::Scratch, Range::all(), false).count()
    }

    #[test]
    fn many_small_statements_leave_few_chunks() {
        let (mut writes, _) = write_set(usize::MAX);
        for i in 0..20_000 {
            writes.begin_statement();
            let view = writes.freeze();
            writes.put(key(i % 5000), Some(key(i)), Version(1)).unwrap();
            // Half of the statements end before their view is let go.
            let view = (i % 2 == 0).then_some(view);
            writes.end_statement().unwrap();
            drop(view);
            assert!(writes.freeze().len() <= 3, "{} chunks at {i}", writes.freeze().len());
        }
        assert_eq!(content(writes.scan(&KeyRange::all()).unwrap()).len(), 5000);
    }

    #[test]
    fn views_held_for_long_leave_logarithmically_many_chunks() {
        let (mut writes, _) = write_set(usize::MAX);
        let mut held = vec![];
        for i in 0..4096 {
            held.push(writes.freeze());
            writes.put(key(i), None, Version(1)).unwrap();
            assert!(writes.freeze().len() <= 14, "{} chunks at {i}", writes.freeze().len());
        }
        for (i, view) in held.into_iter().enumerate() {
            let scan = WriteScan::new(view, &KeyRange::all(), Direction::Forward).unwrap();
            assert_eq!(content(scan).len(), i, "a view changed");
        }
    }

    #[test]
    fn a_load_beyond_memory_is_spilled_merged_and_removed() {
        let (mut writes, backend) = write_set(20_000);
        let count = 40_000u64;
        for i in 0..count {
            let i = (i * 7919) % count; // no order at all
            writes.put(key(i), Some(key(i)), Version(i)).unwrap();
            assert!(writes.bytes <= 20_000);
        }
        assert!(writes.is_spilled());
        // 40,000 keys at 10 bits would take 50,000 bytes.
        let runs = writes.freeze().into_iter().filter(|chunk| matches!(chunk, Chunk::Spilled(_)));
        let filters: Vec<usize> = runs.map(|run| run.bytes()).collect();
        assert!(filters.iter().sum::<usize>() <= 5_000, "{filters:?}");
        assert!(filters.iter().any(|bytes| *bytes > 0), "{filters:?}");
        assert!(writes.freeze().len() < 64, "{} chunks", writes.freeze().len());
        let found = content(writes.scan(&KeyRange::all()).unwrap());
        let want = (0..count).map(|i| (key(i), (Some(key(i)), Version(i))));
        assert!(found.into_iter().eq(want));
        assert_eq!(writes.get(&key(7)).unwrap().unwrap().value, Some(key(7)));
        assert_eq!(writes.get(&key(count)).unwrap(), None);
        assert!(scratch_entries(&backend) > 0);
        drop(writes);
        assert_eq!(scratch_entries(&backend), 0, "spilled writes outlive their transaction");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, Option<u64>, u64),
        BeginStatement,
        EndStatement,
        AbortStatement,
        Savepoint(u8),
        RollbackTo(u8),
        Release(u8),
        Hold,
        LetGo,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            12 => (0..40u64, any::<Option<u64>>(), 1..9u64).prop_map(|(k, v, b)| Op::Put(k, v, b)),
            2 => Just(Op::BeginStatement),
            2 => Just(Op::EndStatement),
            1 => Just(Op::AbortStatement),
            2 => (0..3u8).prop_map(Op::Savepoint),
            1 => (0..3u8).prop_map(Op::RollbackTo),
            1 => (0..3u8).prop_map(Op::Release),
            2 => Just(Op::Hold),
            2 => Just(Op::LetGo),
        ]
    }

    proptest! {
        /// A write set is a stack of maps: whatever is merged, frozen, copied or spilled beneath.
        #[test]
        fn a_write_set_is_a_stack_of_maps(
            ops in prop::collection::vec(op(), 0..200),
            bytes_max in prop_oneof![Just(usize::MAX), Just(0), 300..3000usize],
        ) {
            let (mut writes, backend) = write_set(bytes_max);
            let mut model: Vec<(Option<u8>, bool, Model)> = vec![(None, false, Model::new())];
            let mut held: Vec<(Vec<Chunk>, Model)> = vec![];
            let merged = |model: &[(Option<u8>, bool, Model)]| {
                let mut all = Model::new();
                for (key, (value, base)) in model.iter().flat_map(|(_, _, m)| m.clone()) {
                    let earlier = all.get(&key).map_or(base, |(_, b): &(_, Version)| *b);
                    all.insert(key, (value, base.min(earlier)));
                }
                all
            };
            for op in ops {
                let statement = model.iter().rposition(|(_, is_statement, _)| *is_statement);
                let find = |name: u8| model.iter().rposition(|(n, _, _)| *n == Some(name));
                match op {
                    Op::Put(k, v, b) => {
                        let (value, base) = (v.map(key), Version(b));
                        writes.put(key(k), value.clone(), base).unwrap();
                        let top = &mut model.last_mut().unwrap().2;
                        let earlier = top.get(&key(k)).map_or(base, |(_, b)| *b);
                        top.insert(key(k), (value, base.min(earlier)));
                    }
                    Op::BeginStatement => {
                        writes.begin_statement();
                        model.push((None, true, Model::new()));
                    }
                    Op::EndStatement | Op::Release(_) => {
                        let from = match op {
                            Op::Release(name) => {
                                let from = find(name);
                                prop_assert_eq!(writes.release(&name.to_string()).is_ok(), from.is_some());
                                from
                            }
                            _ => {
                                prop_assert_eq!(writes.end_statement().is_ok(), statement.is_some());
                                statement
                            }
                        };
                        if let Some(from) = from {
                            let all = merged(&model[from - 1..]);
                            model.truncate(from);
                            model[from - 1].2 = all;
                        }
                    }
                    Op::AbortStatement => {
                        prop_assert_eq!(writes.abort_statement().is_ok(), statement.is_some());
                        model.truncate(statement.unwrap_or(model.len()));
                    }
                    Op::Savepoint(name) => {
                        writes.savepoint(&name.to_string());
                        model.push((Some(name), false, Model::new()));
                    }
                    Op::RollbackTo(name) => {
                        let from = find(name);
                        prop_assert_eq!(writes.rollback_to(&name.to_string()).is_ok(), from.is_some());
                        if let Some(from) = from {
                            model.truncate(from + 1);
                            model[from].2.clear();
                        }
                    }
                    Op::Hold => held.push((writes.freeze(), merged(&model))),
                    Op::LetGo => drop(held.pop()),
                }
                let all = merged(&model);
                prop_assert_eq!(writes.is_empty(), all.is_empty());
                for k in 0..40 {
                    let found = writes.get(&key(k)).unwrap().map(|write| write.value);
                    prop_assert_eq!(found, all.get(&key(k)).map(|(value, _)| value.clone()));
                }
                prop_assert!(content(writes.scan(&KeyRange::all()).unwrap()).into_iter().eq(all));
            }
            for (view, model) in held {
                let scan = WriteScan::new(view.clone(), &KeyRange::all(), Direction::Backward).unwrap();
                prop_assert!(content(scan).into_iter().eq(model.into_iter().rev()), "a view changed");
            }
            drop(writes);
            prop_assert_eq!(scratch_entries(&backend), 0);
        }
    }
}
