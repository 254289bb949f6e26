//! Locks: rows, unique keys, tables and advisory keys, in one lock manager per database with one graph of who waits for whom.
//!
//! ```text
//! mode      the modes and what conflicts             queues    who waits, in what order
//! shards    who holds what, a few bytes a lock       deadlock  circles among those who wait
//! held      what one session holds, to release it    status    pg_locks, pg_blocking_pids
//! holders   waiting for transactions that hold a table
//! ```
//!
//! A session's thread asks through its [`Locks`]. What is free is taken in one part of the shards, or, for tables in weak modes, in the session's own
//! list and nowhere else. What is not free is waited for in a queue, asleep; the one who lets go hands the lock over and wakes its new holder, so
//! nobody polls and nobody is overtaken but by row locks that go well with those held. After deadlock_timeout a sleeper looks for a circle through
//! itself, and gives up if it finds one (40P01).
//!
//! ```text
//! Row     the row under a key. UPDATE, DELETE, SELECT FOR ..., checks of foreign keys
//! Claim   a key that comes or goes: INSERT, DELETE, UPDATE of a key. Claims wait for claims, not for locks of the row there is
//! Table   all statements: see [`TableMode`]
//! ```
//!
//! What is locked stays locked to the end of the transaction, but for what [`Locks::release_since`] takes back (to a savepoint; what an insert claimed
//! in vain), and advisory locks of sessions, which stay until they are unlocked or the session ends.
//!
//! What must stay true:
//!
//! * a session asks from one thread at a time, and sleeps in no lock's critical section;
//! * a lock is noted in its session's list before the call that got it returns, or given back: an error leaves nothing held.

mod deadlock;
mod held;
mod holders;
mod mode;
mod queues;
mod shards;
mod status;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::{Result, SqlError, state};
use crate::functions::context::CancelFlag;
use crate::memory::Account;

use deadlock::Found;
use held::Member;
use mode::bit;
use queues::{Asked, Queues, Waiter, Woken};
use shards::{KeyId, Lower, Object, Request, Shards, Take};

pub use mode::{RowMode, TableMode};
pub use status::{LockStatus, LockTarget};

/// Message of lock_timeout's error.
pub const LOCK_TIMEOUT: &str = "canceling statement due to lock timeout";

/// A set of modes, a bit each.
type Modes = u8;
/// A session, by its seat among those of its database.
type Owner = u32;

/// Tables share so many counters of strong locks.
const STRONG_PARTS: usize = 1024;
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
    tables: usize,
    advisory: usize,
    shared: usize,
}

/// Key of an advisory lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdvisoryKey {
    /// The upper half of a bigint, or the first integer.
    pub high: u32,
    /// The lower half of a bigint, or the second integer.
    pub low: u32,
    /// Two integers: they are other keys than a bigint of the same bits.
    pub is_pair: bool,
}

impl AdvisoryKey {
    /// Of one bigint.
    pub fn one(key: i64) -> AdvisoryKey {
        AdvisoryKey { high: (key as u64 >> 32) as u32, low: key as u32, is_pair: false }
    }
    /// Of two integers.
    pub fn two(first: i32, second: i32) -> AdvisoryKey {
        AdvisoryKey { high: first as u32, low: second as u32, is_pair: true }
    }
}

/// The mode an advisory lock is held in.
fn advisory_mode(exclusive: bool) -> TableMode {
    if exclusive { TableMode::Exclusive } else { TableMode::Share }
}

/// All locks of a database.
pub struct LockManager {
    shards: Shards,
    /// How many strong locks there are of tables, held or asked for. While there is one, no table of its part goes the fast path.
    strong: Box<[AtomicU32]>,
    queues: Mutex<Queues>,
}

impl Default for LockManager {
    fn default() -> Self {
        let strong = (0..STRONG_PARTS).map(|_| AtomicU32::new(0)).collect();
        LockManager { shards: Shards::default(), strong, queues: Mutex::default() }
    }
}

impl LockManager {
    fn strong(&self, table: u32) -> &AtomicU32 {
        &self.strong[table as usize % STRONG_PARTS]
    }
    /// Tells everyone of a table's locks on the fast path. Its counter of strong locks was raised before, so that there are no new ones.
    fn transfer(&self, table: u32) {
        let queues = self.queues.lock();
        for member in queues.members() {
            let mut held = member.held.lock();
            for fast in held.fast.iter_mut().filter(|f| f.table == table && f.modes != 0) {
                let modes = std::mem::take(&mut fast.modes);
                // Still under the member's lock: it finds the lock here or there, never nowhere.
                let mut part = self.shards.part(Object::Table(table));
                let wide = part.widen(Object::Table(table));
                for mode in TableMode::ALL.iter().filter(|m| modes & bit(**m as u8) != 0) {
                    wide.grant(&Request { object: Object::Table(table), owner: member.owner, mode: *mode as u8 });
                }
            }
        }
    }
    /// Takes from what an owner holds of what others know, and hands over what becomes free.
    fn lower(&self, object: Object, owner: Owner, lower: Lower) {
        if self.shards.lower(object, owner, lower) {
            return;
        }
        let mut woken = Woken::default();
        self.queues.lock().lower(&self.shards, object, owner, lower, &mut woken);
        woken.wake();
    }
}

/// How a session's errors name a table.
pub type TableNames = Box<dyn Fn(u32) -> Option<String> + Send + Sync>;

/// A session's hold on the lock manager. Dropping it releases everything.
pub struct Locks {
    manager: Arc<LockManager>,
    member: Arc<Member>,
    /// lock_timeout in microseconds; 0: none.
    lock_timeout: AtomicU64,
    /// deadlock_timeout in microseconds.
    deadlock_timeout: AtomicU64,
    names: OnceLock<TableNames>,
}

impl Locks {
    /// A session without locks. `memory` is what held locks are reserved in.
    ///
    /// # Errors
    /// 53300 with more sessions than there are numbers for.
    pub fn new(manager: &Arc<LockManager>, pid: i32, cancel: Arc<CancelFlag>, memory: &Arc<Account>) -> Result<Locks> {
        let member = manager.queues.lock().enter(|owner| Member::new(owner, pid, cancel, memory))?;
        Ok(Locks {
            manager: manager.clone(),
            member,
            lock_timeout: AtomicU64::new(0),
            deadlock_timeout: AtomicU64::new(10_000),
            names: OnceLock::new(),
        })
    }
    /// Says once how tables are named in errors.
    pub fn set_names(&self, names: TableNames) {
        drop(self.names.set(names));
    }
    /// lock_timeout and deadlock_timeout of what follows.
    pub fn set_timeouts(&self, lock: Option<Duration>, deadlock: Duration) {
        self.lock_timeout.store(lock.map_or(0, |t| t.as_micros() as u64), Ordering::Relaxed);
        self.deadlock_timeout.store(deadlock.as_micros() as u64, Ordering::Relaxed);
    }
    /// A transaction begins, of this number: what DETAIL of a deadlock and pg_locks call it.
    pub fn begin(&self, transaction: u64) {
        let member = &*self.member;
        member.transaction.store(transaction, Ordering::Relaxed);
        member.local.fetch_add(1, Ordering::Relaxed);
        member.is_writer.store(false, Ordering::Relaxed);
        member.in_transaction.store(true, Ordering::Release);
    }

    /// Locks a table until the transaction ends. In a weak mode, while nobody has or wants a strong one, it costs some 50 ns.
    ///
    /// # Errors
    /// 55P03 ([`Patience::Nowait`], lock_timeout), 40P01, 53200, and what the cancel flag says. Nothing more is held then.
    pub fn table(&self, oid: u32, mode: TableMode, patience: Patience) -> Result<Got> {
        {
            let mut held = self.member.held.lock();
            if held.covers(oid, mode) {
                return Ok(Got::Had);
            }
            // Who wants it strongly raises the counter, then asks for our lock to look what we have: one of us sees the other.
            if mode.is_weak() && self.manager.strong(oid).load(Ordering::SeqCst) == 0 && held.take_fast(oid, mode) {
                return held.push_table(oid, mode).map(|()| Got::Free);
            }
        }
        let got = self.shared_table(oid, mode, patience);
        if mode.is_strong() && !matches!(got, Ok(Got::Free | Got::Waited)) {
            self.manager.strong(oid).fetch_sub(1, Ordering::SeqCst);
        }
        got
    }

    /// Locks a table so that others know.
    fn shared_table(&self, oid: u32, mode: TableMode, patience: Patience) -> Result<Got> {
        if mode.is_strong() {
            self.manager.strong(oid).fetch_add(1, Ordering::SeqCst);
            self.manager.transfer(oid);
        }
        let object = Object::Table(oid);
        let request = Request { object, owner: self.member.owner, mode: mode as u8 };
        let Some((got, _, _)) = self.take(&request, oid, patience)? else { return Ok(Got::Skipped) };
        if mode == TableMode::AccessExclusive {
            self.member.is_writer.store(true, Ordering::Relaxed);
        }
        let noted = self.member.held.lock().push_table(oid, mode);
        if let Err(e) = noted {
            self.manager.lower(object, self.member.owner, Lower::Without(bit(mode as u8)));
            return Err(e);
        }
        Ok(got)
    }

    /// Locks a row by its table's oid and its key, all bytes of it. Whoever gets it should see whether the row is still as it was read.
    ///
    /// Goes past those that wait if it conflicts with no holder, as in PostgreSQL.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn row(&self, table: u32, key: &[u8], mode: RowMode, patience: Patience) -> Result<Got> {
        self.key(self.manager.shards.key(key, false), table, mode, patience)
    }
    /// Claims a unique key, which is about to come or go: waits for whoever has claimed it.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn claim(&self, table: u32, key: &[u8]) -> Result<Got> {
        self.key(self.manager.shards.key(key, true), table, RowMode::Update, Patience::Wait)
    }
    /// As [`Locks::claim`], for who would rather go without than wait.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn claim_with(&self, table: u32, key: &[u8], patience: Patience) -> Result<Got> {
        self.key(self.manager.shards.key(key, true), table, RowMode::Update, patience)
    }
    fn key(&self, id: KeyId, table: u32, mode: RowMode, patience: Patience) -> Result<Got> {
        let request = Request { object: Object::Key(id), owner: self.member.owner, mode: mode as u8 };
        let Some((got, before, shared)) = self.take(&request, table, patience)? else { return Ok(Got::Skipped) };
        if got == Got::Had {
            return Ok(got);
        }
        self.member.is_writer.store(true, Ordering::Relaxed);
        let noted = id.with_note((before as u32).checked_ilog2().map_or(0, |m| m as u8 + 1));
        let kept = self.member.held.lock().push_key(noted, shared);
        if let Err(e) = kept {
            self.release_key(noted);
            return Err(e);
        }
        Ok(got)
    }
    /// Takes a key's lock back to what it was.
    fn release_key(&self, noted: u64) {
        let (id, before) = KeyId::split(noted);
        let left = if before == 0 { 0 } else { bit(before) };
        self.manager.lower(Object::Key(id), self.member.owner, Lower::To(left));
    }

    /// Takes an advisory lock: for the session, to be unlocked as often as it was taken, or for the transaction. False: not free, and `wait` is not.
    ///
    /// # Errors
    /// As [`Locks::table`].
    pub fn advisory(&self, key: AdvisoryKey, exclusive: bool, by_session: bool, wait: bool) -> Result<bool> {
        let mode = advisory_mode(exclusive);
        let object = Object::Advisory(key);
        let has = self.member.held.lock().advisory.get(&key).is_some_and(|a| a.count(exclusive) > 0);
        if !has {
            let request = Request { object, owner: self.member.owner, mode: mode as u8 };
            let patience = if wait { Patience::Wait } else { Patience::Skip };
            if self.take(&request, 0, patience)?.is_none() {
                return Ok(false);
            }
        }
        let mut held = self.member.held.lock();
        if let Err(e) = held.push_advisory(key, exclusive, by_session) {
            if !by_session {
                held.advisory_log.pop();
            }
            let gone = held.drop_advisory(key, exclusive, by_session).unwrap_or(0);
            drop(held);
            self.manager.lower(object, self.member.owner, Lower::Without(gone));
            return Err(e);
        }
        Ok(true)
    }
    /// Gives back one of the session's advisory locks; false if the session has none of this key and mode.
    pub fn advisory_unlock(&self, key: AdvisoryKey, exclusive: bool) -> bool {
        let gone = self.member.held.lock().drop_advisory(key, exclusive, true);
        if let Some(gone) = gone.filter(|gone| *gone != 0) {
            self.manager.lower(Object::Advisory(key), self.member.owner, Lower::Without(gone));
        }
        gone.is_some()
    }
    /// Gives back all of the session's advisory locks; those of its transaction stay.
    pub fn advisory_unlock_all(&self) {
        let keys: Vec<AdvisoryKey> = self.member.held.lock().advisory.keys().copied().collect();
        for key in keys {
            for exclusive in [false, true] {
                while self.advisory_unlock(key, exclusive) {}
            }
        }
    }

    /// Where the transaction is with its locks.
    pub fn mark(&self) -> Mark {
        self.member.held.lock().mark()
    }
    /// What was locked since the mark is as it was before: not at all, or in a weaker mode.
    pub fn release_since(&self, mark: Mark) {
        let mut shared = Vec::new();
        let (keys, advisory) = {
            let mut held = self.member.held.lock();
            while let Some((table, mode, is_shared)) = held.pop_table(mark) {
                if is_shared {
                    shared.push((table, mode));
                }
            }
            let mut advisory = Vec::new();
            while let Some(popped) = held.pop_advisory(mark) {
                advisory.push(popped);
            }
            (held.take_keys(mark), advisory)
        };
        for noted in keys.iter().rev() {
            self.release_key(*noted);
        }
        for (table, mode) in shared {
            self.manager.lower(Object::Table(table), self.member.owner, Lower::Without(bit(mode as u8)));
            if mode.is_strong() {
                self.manager.strong(table).fetch_sub(1, Ordering::SeqCst);
            }
        }
        for (key, gone) in advisory.into_iter().filter(|(_, gone)| *gone != 0) {
            self.manager.lower(Object::Advisory(key), self.member.owner, Lower::Without(gone));
        }
        let mut held = self.member.held.lock();
        held.reuse(keys);
        // It only becomes less.
        drop(held.reserve());
    }
    /// The transaction is over. Advisory locks of the session stay.
    pub fn release_all(&self) {
        let (is_idle, awaited) = {
            let mut held = self.member.held.lock();
            // Whoever wants to wait for its end asks under the same lock.
            self.member.in_transaction.store(false, Ordering::Release);
            (held.is_idle(), held.awaited.take())
        };
        if !is_idle {
            self.release_since(Mark::default());
        }
        if let Some(local) = awaited {
            let (object, owner) = (Object::Virtual(self.member.owner, local), self.member.owner);
            self.manager.lower(object, owner, Lower::Without(bit(TableMode::Exclusive as u8)));
        }
    }

    /// Takes what is free or waits for it; what was held before, and whether others hold it, too. None: it is to be gone without.
    fn take(&self, request: &Request, table: u32, patience: Patience) -> Result<Option<(Got, Modes, bool)>> {
        match self.manager.shards.take(request) {
            Take::Granted { before, shared } => return Ok(Some((Got::Free, before, shared))),
            Take::Had => return Ok(Some((Got::Had, 0, false))),
            Take::Conflict => {}
        }
        let waiter = Waiter { owner: request.owner, mode: request.mode, table, since: unix_micros() };
        let manager = &*self.manager;
        let asked = {
            let mut queues = manager.queues.lock();
            match queues.ask(&manager.shards, request, waiter, patience == Patience::Wait)? {
                Asked::Deadlock { blocker, waits_for } => {
                    return Err(two_sided(&queues, request, blocker, waits_for));
                }
                other => other,
            }
        };
        match asked {
            Asked::Granted(before) => Ok(Some((Got::Free, before, true))),
            Asked::Queued(before) => self.wait(request, before).map(|()| Some((Got::Waited, before, true))),
            Asked::Refused if patience == Patience::Skip => Ok(None),
            Asked::Refused | Asked::Deadlock { .. } => Err(self.not_available(request.object, table)),
        }
    }

    /// Sleeps until a queued request is granted.
    fn wait(&self, request: &Request, before: Modes) -> Result<()> {
        let start = Instant::now();
        let after = |micros: u64| start.checked_add(Duration::from_micros(micros));
        let too_late = Some(self.lock_timeout.load(Ordering::Relaxed)).filter(|t| *t != 0).and_then(after);
        let mut look = after(self.deadlock_timeout.load(Ordering::Relaxed));
        loop {
            let until = too_late.into_iter().chain(look).min();
            let granted = || self.member.is_granted.load(Ordering::Acquire);
            match self.member.cancel.wait(until, granted) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    self.give_up(request, Some(before));
                    return Err(e);
                }
            }
            let now = Instant::now();
            if too_late.is_some_and(|at| now >= at) {
                if !self.give_up(request, None) {
                    return Ok(());
                }
                return Err(SqlError::new(state::LOCK_NOT_AVAILABLE, LOCK_TIMEOUT));
            }
            if look.is_some_and(|at| now >= at) {
                // Once: a circle that is closed later is found by who closes it.
                look = None;
                self.look_for_deadlock()?;
            }
        }
    }

    /// Stops waiting. False: it was granted at the last moment; what was held before, if given, is all that is held then.
    fn give_up(&self, request: &Request, before: Option<Modes>) -> bool {
        let (manager, owner) = (&*self.manager, self.member.owner);
        let mut woken = Woken::default();
        let mut queues = manager.queues.lock();
        let has_left = queues.leave_queue(&manager.shards, owner, &mut woken);
        if let (false, Some(before)) = (has_left, before) {
            let lower = match request.object {
                Object::Key(_) => Lower::To(before),
                Object::Table(_) | Object::Advisory(_) | Object::Virtual(..) => {
                    Lower::Without(bit(request.mode) & !before)
                }
            };
            queues.lower(&manager.shards, request.object, owner, lower, &mut woken);
        }
        drop(queues);
        woken.wake();
        has_left
    }

    /// Fails with 40P01, and waits no more, if this session waits for itself. Queues may be put in another order instead.
    fn look_for_deadlock(&self) -> Result<()> {
        let (manager, owner) = (&*self.manager, self.member.owner);
        let mut woken = Woken::default();
        let mut queues = manager.queues.lock();
        let result = match deadlock::look(&queues, &manager.shards, owner) {
            Found::Nothing => Ok(()),
            Found::Orders(orders) => {
                for (object, order) in orders {
                    queues.reorder(object, &order);
                    queues.serve(&manager.shards, object, &mut woken);
                }
                Ok(())
            }
            Found::Deadlock(circle) => {
                let error = circular(&queues, &circle);
                queues.leave_queue(&manager.shards, owner, &mut woken);
                Err(error)
            }
        };
        drop(queues);
        woken.wake();
        result
    }

    fn name(&self, table: u32) -> String {
        self.names.get().and_then(|names| names(table)).unwrap_or_else(|| table.to_string())
    }

    /// 55P03: not free, and not to be waited for.
    fn not_available(&self, object: Object, table: u32) -> SqlError {
        let name = self.name(table);
        SqlError::new(
            state::LOCK_NOT_AVAILABLE,
            match object {
                Object::Key(_) => format!("could not obtain lock on row in relation \"{name}\""),
                Object::Table(_) => format!("could not obtain lock on relation \"{name}\""),
                Object::Advisory(_) => "could not obtain advisory lock".to_owned(),
                Object::Virtual(..) => "could not obtain lock on virtual transaction".to_owned(),
            },
        )
    }
}

/// 40P01 for two that hold an object and both want more of it.
fn two_sided(queues: &Queues, request: &Request, blocker: Owner, waits_for: u8) -> SqlError {
    let (object, owner) = (request.object, request.owner);
    let edge = |waiter, mode, blocker| deadlock::Edge { waiter, object, mode, blocker, is_hard: true };
    circular(queues, &[edge(owner, request.mode, blocker), edge(blocker, waits_for, owner)])
}

/// 40P01, with who waits for whom.
fn circular(queues: &Queues, circle: &[deadlock::Edge]) -> SqlError {
    let lines: Vec<String> = circle.iter().map(|edge| status::line_of(queues, edge)).collect();
    SqlError::new(state::DEADLOCK_DETECTED, "deadlock detected")
        .detail(lines.join("\n"))
        .hint("See server log for query details.")
}

impl Drop for Locks {
    // A session may end anywhere: its client is gone, or it panicked.
    fn drop(&mut self) {
        self.release_all();
        self.advisory_unlock_all();
        // Its number is another's soon: who waits for its transactions is to see that they are over.
        self.member.local.fetch_add(1, Ordering::Relaxed);
        self.manager.queues.lock().leave(self.member.owner);
    }
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
