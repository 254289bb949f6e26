//! Those who wait without a thread: the wakers of futures, each under a number of its own, kept behind the lock of what they wait for.
//!
//! What must stay true: a waker is called and dropped outside of that lock, for it may own a task, and that anything; a future that is dropped leaves nothing behind.

use std::collections::BTreeMap;
use std::task::Waker;

/// The wakers of futures that wait for one thing.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Wakers {
    /// Keeps the waker of a future, which has or gets a number. Returns the one it had before, to be dropped outside of the lock.
    #[must_use]
    pub fn keep(&mut self, number: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        let number = *number.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.waiting.insert(number, waker.clone())
    }

    /// Forgets a future. Returns its waker, to be dropped outside of the lock.
    #[must_use]
    pub fn forget(&mut self, number: u64) -> Option<Waker> {
        self.waiting.remove(&number)
    }

    /// All wakers: give them to [`wake`], outside of the lock.
    #[must_use]
    pub fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Wakes all of them.
pub(super) fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
