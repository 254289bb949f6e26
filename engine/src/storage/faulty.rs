//! A [`Backend`] that fails when a test says so: before or after applying a write, by a full disk, by a
//! crash that forgets what was not synced.
//!
//! It wraps another backend and counts writes from 1 on. A [`Plan`] says what happens at which. After a
//! crash every operation fails until [`Faulty::heal`], which decides how many of the un-synced writes
//! survived: any number from none to all, but always the oldest, as the contract of [`Backend`] says.
//! Whatever opens the store after that must find a state that was committed.
//!
//! Batches are atomic here, too: a torn batch is a fault no backend may show, so none is made.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Backend, Change, Durability, Range, Scan, Space, Statistics, WriteBatch};
use crate::error::{Error, Result, StorageError, StorageErrorKind};

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and is not there.
    FailBefore,
    /// It is there, and yet reported as failed: what a lost answer of a disk looks like.
    FailAfter,
    /// It fails because the disk is full, and is not there.
    NoSpace,
    /// The machine stops before it.
    CrashBefore,
    /// The machine stops after it, before anyone is told. Whether it survives is up to
    /// [`Faulty::heal`], even if it was to be synced.
    CrashAfter,
}

/// Which writes suffer what.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    faults: BTreeMap<u64, Fault>,
}

impl Plan {
    /// Nothing fails.
    pub fn none() -> Plan {
        Plan::default()
    }

    /// A plan with one fault.
    pub fn at(write: u64, fault: Fault) -> Plan {
        Plan::none().and(write, fault)
    }

    /// One fault more. The first write is number 1.
    pub fn and(mut self, write: u64, fault: Fault) -> Plan {
        self.faults.insert(write, fault);
        self
    }

    /// A full disk for so many writes.
    pub fn no_space(mut self, first: u64, writes: u64) -> Plan {
        self.faults.extend((first..first + writes).map(|write| (write, Fault::NoSpace)));
        self
    }
}

/// The failing backend.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
}

struct State {
    plan: Plan,
    writes: u64,
    is_down: bool,
    /// For every un-synced batch, oldest first, the changes that undo it.
    undo: Vec<WriteBatch>,
}

impl Faulty {
    /// Wrap a backend.
    pub fn new(inner: Arc<dyn Backend>, plan: Plan) -> Faulty {
        let state = State { plan, writes: 0, is_down: false, undo: Vec::new() };
        Faulty { inner, state: Mutex::new(state) }
    }

    /// How many writes there were, failed ones included.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Replace the plan; writes are counted on.
    pub fn set_plan(&self, plan: Plan) {
        self.state.lock().plan = plan;
    }

    /// Whether it is crashed.
    pub fn is_down(&self) -> bool {
        self.state.lock().is_down
    }

    /// Stop the machine now.
    pub fn crash(&self) {
        self.state.lock().is_down = true;
    }

    /// How many writes a crash could take away.
    pub fn unsynced(&self) -> usize {
        self.state.lock().undo.len()
    }

    /// Start the machine again: of the un-synced writes the oldest `survivors` are there.
    ///
    /// # Errors
    ///
    /// Those of the wrapped backend.
    pub fn heal(&self, survivors: usize) -> Result<()> {
        let mut state = self.state.lock();
        while state.undo.len() > survivors {
            let Some(undo) = state.undo.pop() else { break };
            self.inner.write(undo, Durability::Sync)?;
        }
        state.undo.clear();
        state.is_down = false;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.state.lock().is_down { Err(injected("the machine is down")) } else { Ok(()) }
    }

    /// The changes that take the store back to what it is before this batch, in the order to apply them.
    fn undo_of(&self, batch: &WriteBatch) -> Result<WriteBatch> {
        // As changes of one batch may touch a key twice, only its oldest value counts.
        let mut before: BTreeMap<(Space, Bytes), Option<Bytes>> = BTreeMap::new();
        for change in batch.iter() {
            match change {
                Change::Put { space, key, .. } | Change::Delete { space, key } => {
                    let place = (space, Bytes::copy_from_slice(key));
                    if let Entry::Vacant(vacant) = before.entry(place) {
                        vacant.insert(self.inner.get(space, key)?);
                    }
                }
                Change::DeleteRange { space, start, end } => {
                    for entry in self.inner.scan(space, Range::new(start, end), false) {
                        let (key, value) = entry?;
                        before.entry((space, key)).or_insert(Some(value));
                    }
                }
            }
        }
        let mut undo = WriteBatch::new();
        for ((space, key), value) in before {
            match value {
                Some(value) => undo.put(space, &key, &value),
                None => undo.delete(space, &key),
            }
        }
        Ok(undo)
    }
}

impl Backend for Faulty {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        self.inner.get(space, key)
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.check()?;
        self.inner.multi_get(space, keys)
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        match self.check() {
            Ok(()) => self.inner.scan(space, range, reverse),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_down {
            return Err(injected("the machine is down"));
        }
        state.writes += 1;
        let number = state.writes;
        let fault = state.plan.faults.get(&number).copied();
        match fault {
            Some(Fault::FailBefore) => return Err(injected(&format!("write {number} fails"))),
            Some(Fault::NoSpace) => {
                let message = format!("no space left for write {number}");
                return Err(StorageError { message, kind: StorageErrorKind::NoSpace }.into());
            }
            Some(Fault::CrashBefore) => {
                state.is_down = true;
                return Err(injected(&format!("a crash before write {number}")));
            }
            Some(Fault::FailAfter | Fault::CrashAfter) | None => {}
        }
        let undo = self.undo_of(&batch)?;
        self.inner.write(batch, durability)?;
        state.undo.push(undo);
        match fault {
            Some(Fault::FailAfter) => Err(injected(&format!("write {number} is said to have failed"))),
            Some(Fault::CrashAfter) => {
                state.is_down = true;
                Err(injected(&format!("a crash after write {number}")))
            }
            _ => {
                if durability == Durability::Sync {
                    state.undo.clear();
                }
                Ok(())
            }
        }
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_down {
            return Err(injected("the machine is down"));
        }
        self.inner.sync()?;
        state.undo.clear();
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

fn injected(message: &str) -> Error {
    StorageError { message: message.to_string(), kind: StorageErrorKind::Injected }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    fn put(key: &[u8], value: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Space::Meta, key, value);
        batch
    }

    fn contents(backend: &dyn Backend) -> Vec<(Bytes, Bytes)> {
        backend.scan(Space::Meta, Range::all(), false).map(|entry| entry.unwrap()).collect()
    }

    #[test]
    fn a_crash_takes_the_newest_unsynced_writes() {
        for survivors in 0..=3 {
            let faulty = Faulty::new(Arc::new(Memory::new()), Plan::none());
            faulty.write(put(b"a", b"0"), Durability::NoSync).unwrap();
            faulty.write(put(b"b", b"0"), Durability::Sync).unwrap();
            let mut states = vec![contents(&faulty)];
            faulty.write(put(b"a", b"1"), Durability::NoSync).unwrap();
            states.push(contents(&faulty));
            let mut cut = WriteBatch::new();
            cut.delete_range(Space::Meta, b"a", b"z");
            cut.put(Space::Meta, b"a", b"2");
            faulty.write(cut, Durability::NoSync).unwrap();
            states.push(contents(&faulty));
            faulty.write(put(b"c", b"3"), Durability::NoSync).unwrap();
            states.push(contents(&faulty));

            assert_eq!(faulty.unsynced(), 3);
            faulty.crash();
            assert!(faulty.get(Space::Meta, b"a").is_err() && faulty.sync().is_err());
            assert!(faulty.scan(Space::Meta, Range::all(), false).any(|entry| entry.is_err()));
            faulty.heal(survivors).unwrap();
            assert_eq!(contents(&faulty), states[survivors]);
        }
    }

    #[test]
    fn a_plan_is_followed() {
        let plan = Plan::at(2, Fault::FailBefore).and(3, Fault::FailAfter).no_space(4, 2);
        let faulty = Faulty::new(Arc::new(Memory::new()), plan.and(7, Fault::CrashBefore));
        let put = |n: &[u8]| faulty.write(put(n, n), Durability::Sync);
        put(b"1").unwrap();
        assert!(matches!(put(b"2"), Err(Error::Storage(e)) if e.kind == StorageErrorKind::Injected));
        assert!(put(b"3").is_err());
        assert!(matches!(put(b"4"), Err(Error::Storage(e)) if e.kind == StorageErrorKind::NoSpace));
        assert!(put(b"5").is_err());
        put(b"6").unwrap();
        assert!(put(b"7").is_err() && put(b"8").is_err() && faulty.is_down());
        faulty.heal(0).unwrap();
        let keys: Vec<Bytes> = contents(&faulty).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [&b"1"[..], b"3", b"6"]);
        assert_eq!(faulty.writes(), 7);
    }
}
