//! How a session is told to stop, and where it sleeps meanwhile.
//!
//! A [`CancelFlag`] is both the flag that running statements look at and the place where the session's thread waits: for a lock, for time to pass.
//! Whoever raises the flag wakes the sleeper, and so does whoever brings what it waits for; nobody polls.
//!
//! ```text
//! sleeper   gate locked: done()? cancelled? too late?  no: sleep, the gate let go in the same step
//! others    what the sleeper waits for is set, then the gate is locked and let go, then the sleeper woken
//! ```
//!
//! What must stay true: what `done` looks at is set before [`CancelFlag::wake`] is called. A sleeper that looked before it was set still has the gate
//! then, or sleeps already: it cannot miss the call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Result, SqlError, state};

/// Why a statement should stop, if it should.
#[derive(Default)]
pub struct CancelFlag {
    raised: AtomicBool,
    reason: Mutex<Option<SqlError>>,
    /// When statement_timeout strikes, in microseconds of the process's clock; 0: never.
    deadline: AtomicU64,
    gate: Mutex<()>,
    woken: Condvar,
}

/// When the process first asked.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl CancelFlag {
    /// Asks the statement to stop with this error, and wakes it if it sleeps.
    pub fn raise(&self, reason: SqlError) {
        *self.reason.lock() = Some(reason);
        self.raised.store(true, Ordering::Release);
        self.wake();
    }
    /// Forgets an old request: called when a statement starts.
    pub fn reset(&self) {
        self.raised.store(false, Ordering::Release);
        *self.reason.lock() = None;
        self.set_timeout(None);
    }
    /// Stops the statement after this time: statement_timeout.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        let at = timeout.map_or(0, |t| Self::clock().saturating_add(t.as_micros() as u64).max(1));
        self.deadline.store(at, Ordering::Release);
    }
    /// Microseconds since the process first asked.
    fn clock() -> u64 {
        start().elapsed().as_micros() as u64
    }
    /// The error to stop with, if any. Two relaxed loads when there is none: call it every few hundred rows.
    pub fn check(&self) -> Result<()> {
        if !self.raised.load(Ordering::Relaxed) {
            let deadline = self.deadline.load(Ordering::Relaxed);
            if deadline != 0 && Self::clock() >= deadline {
                return Err(SqlError::new(state::QUERY_CANCELED, "canceling statement due to statement timeout"));
            }
            return Ok(());
        }
        let reason = self.reason.lock().clone();
        Err(reason.unwrap_or_else(|| SqlError::new(state::QUERY_CANCELED, "canceling statement due to user request")))
    }
    /// Sleeps until `done`, which is asked at the start and whenever the session is woken; false when `until` has come before.
    ///
    /// `done` should only look at something: it is called with the gate locked, which all who wake this session need.
    ///
    /// # Errors
    /// What [`CancelFlag::check`] says, as soon as it says so. What is done is done: `done` goes first.
    pub fn wait(&self, until: Option<Instant>, mut done: impl FnMut() -> bool) -> Result<bool> {
        let mut gate = self.gate.lock();
        loop {
            if done() {
                return Ok(true);
            }
            self.check()?;
            if until.is_some_and(|at| Instant::now() >= at) {
                return Ok(false);
            }
            let timeout = match self.deadline.load(Ordering::Relaxed) {
                0 => None,
                // Never: the statement has no end that the clock can tell.
                micros => start().checked_add(Duration::from_micros(micros)),
            };
            match until.into_iter().chain(timeout).min() {
                Some(at) => {
                    self.woken.wait_until(&mut gate, at);
                }
                None => self.woken.wait(&mut gate),
            }
        }
    }
    /// Has the session, if it sleeps in [`CancelFlag::wait`], look again.
    pub fn wake(&self) {
        // Through the gate: a sleeper that has looked and does not sleep yet holds it.
        drop(self.gate.lock());
        self.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_woken_by_what_it_waits_for_by_a_cancel_and_by_time() {
        let flag = CancelFlag::default();
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(!flag.wait(Some(soon), || false).unwrap());
        assert!(Instant::now() >= soon);
        for _ in 0..200 {
            let ready = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| flag.wait(None, || ready.load(Ordering::Acquire)));
                ready.store(true, Ordering::Release);
                flag.wake();
                assert!(sleeper.join().unwrap().unwrap());
            });
        }
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| flag.wait(None, || false));
            flag.raise(SqlError::new(state::ADMIN_SHUTDOWN, "stop"));
            assert_eq!(sleeper.join().unwrap().unwrap_err().state(), state::ADMIN_SHUTDOWN);
        });
        flag.reset();
        flag.set_timeout(Some(Duration::from_millis(5)));
        let error = flag.wait(None, || false).unwrap_err();
        assert_eq!(error.message(), "canceling statement due to statement timeout");
        // What is done is done, cancelled or not.
        assert!(flag.wait(None, || true).unwrap());
    }
}
