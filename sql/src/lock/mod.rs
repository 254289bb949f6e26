//! Locks: rows, unique keys, tables and advisory keys, in one lock manager per database with one graph of who waits for whom.

mod mode;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

pub use mode::{RowMode, TableMode};

use crate::error::{Result, SqlError};
use crate::functions::context::CancelFlag;
use crate::memory::Account;

/// A set of modes, a bit each.
type Modes = u8;

/// What who does not get a lock at once does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Waits, at most lock_timeout.
    Wait,
    /// Fails with 55P03.
    Nowait,
    /// Goes without: [`Got::Skipped`].
    Skip,
}

/// How a lock was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// At once.
    Free,
    /// After waiting.
    Waited,
    /// It was held already, in this or a stronger mode.
    Had,
    /// Not at all: [`Patience::Skip`], and it was not free.
    Skipped,
}

/// A place in what a transaction holds: see [`Locks::release_since`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    keys: usize,
}

/// All locks of a database.
#[derive(Default)]
pub struct LockManager {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    holders: FxHashMap<Box<[u8]>, u64>,
    waits: FxHashMap<u64, u64>,
}

/// A session's hold on the lock manager. Dropping it releases everything.
pub struct Locks {
    manager: Arc<LockManager>,
    owner: u64,
    cancel: Arc<CancelFlag>,
    lock_timeout: AtomicU64,
    held: Mutex<Vec<Box<[u8]>>>,
}

const POLL: Duration = Duration::from_millis(20);

impl Locks {
    /// A session without locks. `memory` is what held locks are reserved in.
    pub fn new(manager: &Arc<LockManager>, _pid: i32, cancel: Arc<CancelFlag>, _memory: &Arc<Account>) -> Locks {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        Locks {
            manager: manager.clone(),
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            cancel,
            lock_timeout: AtomicU64::new(0),
            held: Mutex::default(),
        }
    }
    /// Locks a table until the transaction ends.
    ///
    /// # Errors
    /// 55P03 ([`Patience::Nowait`], lock_timeout), 40P01, 53200, and what the cancel flag says.
    pub fn table(&self, _oid: u32, _mode: TableMode, _patience: Patience) -> Result<Got> {
        Ok(Got::Free)
    }
    /// Locks a row by its table's oid and its key, all bytes of it.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn row(&self, _table: u32, key: &[u8], _mode: RowMode, patience: Patience) -> Result<Got> {
        self.acquire(key, patience)
    }
    /// Claims a unique key, which is about to come or go: waits for whoever has claimed it.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn claim(&self, _table: u32, key: &[u8]) -> Result<Got> {
        self.acquire(key, Patience::Wait)
    }
    /// Gives back what the last claim of this key got. Not to be called after [`Got::Had`].
    pub fn unclaim(&self, key: &[u8]) {
        let found = self.held.lock().iter().rposition(|k| **k == *key);
        if let Some(at) = found {
            let key = self.held.lock().remove(at);
            self.release(vec![key]);
        }
    }
    /// Where the transaction is with its locks.
    pub fn mark(&self) -> Mark {
        Mark { keys: self.held.lock().len() }
    }
    /// What was locked since the mark is as it was before.
    pub fn release_since(&self, mark: Mark) {
        let held = {
            let mut held = self.held.lock();
            let at = mark.keys.min(held.len());
            held.split_off(at)
        };
        self.release(held);
    }
    /// The transaction is over. Advisory locks of the session stay.
    pub fn release_all(&self) {
        self.release_since(Mark::default());
    }
    /// lock_timeout and deadlock_timeout of what follows.
    pub fn set_timeouts(&self, lock: Option<Duration>, _deadlock: Duration) {
        self.lock_timeout.store(lock.map_or(0, |t| t.as_micros() as u64), Ordering::Relaxed);
    }

    fn release(&self, held: Vec<Box<[u8]>>) {
        if held.is_empty() {
            return;
        }
        let mut state = self.manager.state.lock();
        state.waits.retain(|_, holder| *holder != self.owner);
        for key in held {
            state.holders.remove(&key);
        }
        drop(state);
        self.manager.released.notify_all();
    }
    fn acquire(&self, key: &[u8], patience: Patience) -> Result<Got> {
        let mut state = self.manager.state.lock();
        let start = Instant::now();
        let mut got = Got::Free;
        loop {
            match state.holders.get(key) {
                None => {
                    state.holders.insert(key.into(), self.owner);
                    self.held.lock().push(key.into());
                    return Ok(got);
                }
                Some(holder) if *holder == self.owner => return Ok(Got::Had),
                Some(_) if patience == Patience::Skip => return Ok(Got::Skipped),
                Some(_) if patience == Patience::Nowait => {
                    return Err(SqlError::new("55P03", "could not obtain lock on row"));
                }
                Some(holder) => {
                    let holder = *holder;
                    let mut at = holder;
                    while let Some(next) = state.waits.get(&at) {
                        if *next == self.owner {
                            return Err(
                                SqlError::new("40P01", "deadlock detected").hint("See server log for query details.")
                            );
                        }
                        at = *next;
                    }
                    state.waits.insert(self.owner, holder);
                }
            }
            got = Got::Waited;
            self.manager.released.wait_for(&mut state, POLL);
            state.waits.remove(&self.owner);
            self.cancel.check()?;
            let timeout = self.lock_timeout.load(Ordering::Relaxed);
            if timeout != 0 && start.elapsed() >= Duration::from_micros(timeout) {
                return Err(SqlError::new("55P03", "canceling statement due to lock timeout"));
            }
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.release_all();
    }
}
