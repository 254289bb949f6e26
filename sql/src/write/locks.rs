//! Locks on keys, so that writers of one row wait for each other as in PostgreSQL.
//!
//! A transaction locks each row key and unique key before it writes it, and keeps the lock to its end. Whoever wants it waits; when it gets it, and
//! the key was changed since its snapshot, the statement is to be run again on a newer one (READ COMMITTED) or fails (REPEATABLE READ): see
//! [`super::TxnHandle::lock`]. Locks are in memory and only order writers: what may commit is decided by the engine, which knows every key
//! written. A transaction of very many rows stops locking after [`HELD_MAX`] and takes its chances there.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use crate::error::{Result, SqlError};
use crate::functions::context::CancelFlag;

/// SQLSTATE of a deadlock.
const DEADLOCK_DETECTED: &str = "40P01";
/// SQLSTATE of lock_timeout.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Locks one transaction holds at most.
pub const HELD_MAX: usize = 50_000;
/// How long a waiter goes without looking for a cancel.
const POLL: Duration = Duration::from_millis(20);

/// A transaction, to the lock table.
pub type Owner = u64;

/// All locks of a database.
#[derive(Default)]
pub struct LockTable {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    holders: FxHashMap<Box<[u8]>, Owner>,
    /// Whom each waiting transaction waits for.
    waits: FxHashMap<Owner, Owner>,
}

impl LockTable {
    /// Locks a key, waiting for its holder. False: this transaction has it already.
    ///
    /// # Errors
    /// 40P01 if the holder waits for this transaction, 55P03 after `timeout`, and what the cancel flag says.
    pub fn acquire(&self, owner: Owner, key: &[u8], cancel: &CancelFlag, timeout: Option<Duration>) -> Result<bool> {
        let mut state = self.state.lock();
        let start = Instant::now();
        loop {
            match state.holders.get(key) {
                None => {
                    state.holders.insert(key.into(), owner);
                    return Ok(true);
                }
                Some(holder) if *holder == owner => return Ok(false),
                Some(holder) => {
                    let holder = *holder;
                    if state.waits_for(holder, owner) {
                        return Err(SqlError::new(DEADLOCK_DETECTED, "deadlock detected")
                            .detail("The holder of a row's lock waits for a row that this transaction holds.")
                            .hint("The transaction might succeed if retried."));
                    }
                    state.waits.insert(owner, holder);
                }
            }
            self.released.wait_for(&mut state, POLL);
            state.waits.remove(&owner);
            cancel.check()?;
            if timeout.is_some_and(|t| start.elapsed() >= t) {
                return Err(SqlError::new(LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout"));
            }
        }
    }

    /// Gives up locks of a transaction. Nobody counts as waiting for it any more: those who still do will say so when they wake.
    pub fn release(&self, owner: Owner, keys: impl IntoIterator<Item = Box<[u8]>>) {
        let mut state = self.state.lock();
        state.waits.retain(|_, holder| *holder != owner);
        for key in keys {
            state.holders.remove(&key);
        }
        drop(state);
        self.released.notify_all();
    }
}

impl State {
    /// Whether a transaction waits, through others, for another.
    fn waits_for(&self, from: Owner, to: Owner) -> bool {
        let mut at = from;
        // A chain has no cycle, for nobody was let into one; it ends.
        while let Some(next) = self.waits.get(&at) {
            if *next == to {
                return true;
            }
            at = *next;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_get_the_lock_in_the_end() {
        let table = LockTable::default();
        let cancel = CancelFlag::default();
        assert!(table.acquire(1, b"k", &cancel, None).unwrap());
        assert!(!table.acquire(1, b"k", &cancel, None).unwrap());
        let timeout = table.acquire(2, b"k", &cancel, Some(Duration::from_millis(1))).unwrap_err();
        assert_eq!(timeout.state(), "55P03");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| table.acquire(2, b"k", &CancelFlag::default(), None).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            table.release(1, [b"k".as_slice().into()]);
            assert!(waiter.join().unwrap());
        });
        assert!(table.acquire(1, b"other", &cancel, None).unwrap());
    }

    #[test]
    fn a_circle_of_waiters_is_found() {
        let table = LockTable::default();
        let cancel = CancelFlag::default();
        for (owner, key) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            table.acquire(owner, key, &cancel, None).unwrap();
        }
        std::thread::scope(|scope| {
            let one = scope.spawn(|| table.acquire(1, b"b", &CancelFlag::default(), None));
            let two = scope.spawn(|| table.acquire(2, b"c", &CancelFlag::default(), None));
            // Whoever closes the circle is refused, whichever that is; here it is the third once both others wait.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(table.acquire(3, b"a", &cancel, None).unwrap_err().state(), "40P01");
            table.release(3, [b"c".as_slice().into()]);
            two.join().unwrap().unwrap();
            table.release(2, [b"b".as_slice().into(), b"c".as_slice().into()]);
            one.join().unwrap().unwrap();
        });
    }
}
