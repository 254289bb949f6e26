//! What is told of locks: pg_locks, pg_blocking_pids, wait events, and the DETAIL of a deadlock.
//!
//! Row locks that are held are not listed, as in PostgreSQL, where they are in the rows; who waits for one is shown the way it is shown there: it
//! waits for the transaction of a holder, and who is in line behind another waits for the row's own lock, its `tuple`.

use std::sync::atomic::Ordering;

use super::deadlock::{self, Edge};
use super::held::{Member, virtual_transaction};
use super::mode::{RowMode, TableMode, bit};
use super::queues::{Queues, Waiter};
use super::shards::Object;
use super::{AdvisoryKey, LockManager, Locks, Modes};

/// Number of the one database as pg_locks and DETAIL show it: see `pg_database.oid`.
const DATABASE: u32 = crate::catalog::DATABASE_OID;

/// What a lock of pg_locks is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockTarget {
    /// A table, index or view.
    Relation(u32),
    /// A row of a table.
    Tuple(u32),
    /// A transaction that writes.
    Transaction(u64),
    /// A transaction.
    Virtual(String),
    /// An advisory key.
    Advisory(AdvisoryKey),
}

/// A line of pg_locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockStatus {
    /// What is locked.
    pub target: LockTarget,
    /// The transaction that holds it or waits for it, `seat/number`.
    pub virtual_transaction: String,
    /// The session.
    pub pid: i32,
    /// Mode.
    pub mode: TableMode,
    /// Held, or waited for.
    pub granted: bool,
    /// Known to its session only.
    pub fast_path: bool,
    /// Since when it is waited for, in microseconds since 1970.
    pub wait_start: Option<i64>,
}

impl LockManager {
    /// Locks that are held or waited for, as pg_locks lists them.
    pub fn status(&self) -> Vec<LockStatus> {
        let queues = self.queues.lock();
        let mut all = Vec::new();
        for member in queues.members() {
            of_member(member, &mut all);
        }
        for (object, holder) in self.shards.listed() {
            let target = match object {
                Object::Table(oid) => LockTarget::Relation(oid),
                Object::Advisory(key) => LockTarget::Advisory(key),
                // Rows are not listed, and each transaction is listed with its session.
                Object::Key(_) | Object::Virtual(..) => continue,
            };
            if let Some(seat) = queues.seat(holder.owner) {
                held(&seat.member, &target, holder.modes, false, &mut all);
            }
        }
        for (object, queue) in &queues.queues {
            for waiter in queue {
                self.of_waiter(&queues, *object, waiter, &mut all);
            }
        }
        all
    }

    fn of_waiter(&self, queues: &Queues, object: Object, waiter: &Waiter, all: &mut Vec<LockStatus>) {
        let Some(seat) = queues.seat(waiter.owner) else { return };
        let mut waits = |target, mode| {
            let line = one(&seat.member, target, mode, false);
            all.push(LockStatus { wait_start: Some(waiter.since), ..line });
        };
        match object {
            Object::Table(oid) => waits(LockTarget::Relation(oid), TableMode::from_number(waiter.mode)),
            Object::Advisory(key) => waits(LockTarget::Advisory(key), TableMode::from_number(waiter.mode)),
            Object::Virtual(owner, local) => {
                waits(LockTarget::Virtual(virtual_transaction(owner, local)), TableMode::from_number(waiter.mode));
            }
            Object::Key(key) => {
                let edges = deadlock::blockers(queues, &self.shards, waiter.owner);
                let tuple_mode = RowMode::ALL[usize::from(waiter.mode) - 1].queue_mode();
                let in_line = edges.iter().any(|e| !e.is_hard);
                if in_line && !key.is_claim() {
                    return waits(LockTarget::Tuple(waiter.table), tuple_mode);
                }
                if let Some(first) = edges.first().and_then(|e| queues.seat(e.blocker)) {
                    let transaction = first.member.transaction.load(Ordering::Relaxed);
                    waits(LockTarget::Transaction(transaction), TableMode::Share);
                }
                if !key.is_claim() {
                    all.push(one(&seat.member, LockTarget::Tuple(waiter.table), tuple_mode, true));
                }
            }
        }
    }

    /// Sessions that a session waits for: those that hold what it wants, and those before it in the queue. None if it does not wait.
    pub fn blocking_pids(&self, pid: i32) -> Vec<i32> {
        let queues = self.queues.lock();
        let owners: Vec<_> = queues.members().filter(|m| m.pid == pid).map(|m| m.owner).collect();
        let edges = owners.into_iter().flat_map(|owner| deadlock::blockers(&queues, &self.shards, owner));
        edges.filter_map(|e| Some(queues.seat(e.blocker)?.member.pid)).collect()
    }
}

impl Locks {
    /// What the session waits for, as `pg_stat_activity.wait_event` has it where the type is `Lock`.
    pub fn wait_event(&self) -> Option<&'static str> {
        let queues = self.manager.queues.lock();
        let (object, waiter) = queues.waits(self.member.owner)?;
        Some(match object {
            Object::Table(_) => "relation",
            Object::Advisory(_) => "advisory",
            Object::Virtual(..) => "virtualxid",
            Object::Key(key) if key.is_claim() => "transactionid",
            // In line behind another, it waits for its turn; else for who has the row.
            Object::Key(_) => {
                let is_first = queues.queues.get(&object)?.front().is_some_and(|first| first.owner == waiter.owner);
                if is_first { "transactionid" } else { "tuple" }
            }
        })
    }
}

fn one(member: &Member, target: LockTarget, mode: TableMode, granted: bool) -> LockStatus {
    let virtual_transaction = member.virtual_transaction();
    LockStatus { target, virtual_transaction, pid: member.pid, mode, granted, fast_path: false, wait_start: None }
}

fn held(member: &Member, target: &LockTarget, modes: Modes, fast_path: bool, all: &mut Vec<LockStatus>) {
    for mode in TableMode::ALL.into_iter().filter(|m| modes & bit(*m as u8) != 0) {
        all.push(LockStatus { fast_path, ..one(member, target.clone(), mode, true) });
    }
}

/// What a session's transaction is itself, and its tables on the fast path.
fn of_member(member: &Member, all: &mut Vec<LockStatus>) {
    if member.in_transaction.load(Ordering::Acquire) {
        let virtual_transaction = LockTarget::Virtual(member.virtual_transaction());
        let fast_path = member.held.lock().awaited.is_none();
        all.push(LockStatus { fast_path, ..one(member, virtual_transaction, TableMode::Exclusive, true) });
        if member.is_writer.load(Ordering::Relaxed) {
            let transaction = LockTarget::Transaction(member.transaction.load(Ordering::Relaxed));
            all.push(one(member, transaction, TableMode::Exclusive, true));
        }
    }
    let fast = member.held.lock().fast;
    for fast in fast.iter().filter(|f| f.modes != 0) {
        held(member, &LockTarget::Relation(fast.table), fast.modes, true, all);
    }
}

/// A line of a deadlock's DETAIL, in PostgreSQL's words.
pub(super) fn line_of(queues: &Queues, edge: &Edge) -> String {
    let seat = |owner| queues.seat(owner).map(|s| &s.member);
    let pid = |owner| seat(owner).map_or(0, |m| m.pid);
    let transaction = seat(edge.blocker).map_or(0, |m| m.transaction.load(Ordering::Relaxed));
    let (mode, what) = match edge.object {
        Object::Key(_) => (TableMode::Share, format!("transaction {transaction}")),
        Object::Table(oid) => (TableMode::from_number(edge.mode), format!("relation {oid} of database {DATABASE}")),
        Object::Virtual(owner, local) => {
            (TableMode::from_number(edge.mode), format!("virtual transaction {}", virtual_transaction(owner, local)))
        }
        Object::Advisory(key) => {
            let kind = if key.is_pair { 2 } else { 1 };
            let key = format!("advisory lock [{DATABASE},{},{},{kind}]", key.high, key.low);
            (TableMode::from_number(edge.mode), key)
        }
    };
    let (waiter, blocker) = (pid(edge.waiter), pid(edge.blocker));
    format!("Process {waiter} waits for {} on {what}; blocked by process {blocker}.", mode.name())
}
