//! Waiting for transactions that hold a table, without keeping anyone from it: what CREATE INDEX CONCURRENTLY does between its steps.
//!
//! Whoever waits here is in no queue, so nobody is behind it, and others that look for a circle do not see that it waits. It looks for one itself:
//! if a transaction it waits for waits, through others, for it, neither would ever go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::held::Member;
use super::shards::{Object, conflicts};
use super::{Locks, Modes, TableMode, deadlock};
use crate::error::{Result, SqlError, state};

/// How long it sleeps between two looks, which happen a few times for each index that is built: ends of transactions are not told to anyone.
const LOOK: Duration = Duration::from_millis(5);

/// A transaction that is waited for.
struct Holder {
    member: Arc<Member>,
    local: u32,
}

impl Locks {
    /// Waits until all transactions have ended that now hold a table in a mode that conflicts with this one. Who comes later is not waited for.
    ///
    /// # Errors
    /// 40P01 if one of them waits for this session, and what the cancel flag says. lock_timeout does not count, as in PostgreSQL.
    pub fn wait_for_holders(&self, table: u32, mode: TableMode) -> Result<()> {
        let object = Object::Table(table);
        let conflicting = conflicts(object, mode as u8);
        for holder in self.holders(table, conflicting) {
            // It may have begun another transaction since, or given the lock back to a savepoint.
            let has_ended = || {
                let held = self.manager.shards.holders(object);
                holder.member.local.load(Ordering::Relaxed) != holder.local
                    || !held.iter().any(|h| h.owner == holder.member.owner && h.modes & conflicting != 0)
            };
            while !self.member.cancel.wait(Instant::now().checked_add(LOOK), has_ended)? {
                self.look_for_circle(&holder.member)?;
            }
        }
        Ok(())
    }

    fn holders(&self, table: u32, conflicting: Modes) -> Vec<Holder> {
        // So that those on the fast path are seen, too; later ones may go there again.
        self.manager.strong(table).fetch_add(1, Ordering::SeqCst);
        self.manager.transfer(table);
        let found = self.manager.shards.holders(Object::Table(table));
        self.manager.strong(table).fetch_sub(1, Ordering::SeqCst);
        let queues = self.manager.queues.lock();
        let others = found.iter().filter(|h| h.owner != self.member.owner && h.modes & conflicting != 0);
        others
            .filter_map(|h| queues.seat(h.owner))
            .map(|seat| Holder { member: seat.member.clone(), local: seat.member.local.load(Ordering::Relaxed) })
            .collect()
    }

    fn look_for_circle(&self, from: &Member) -> Result<()> {
        let queues = self.manager.queues.lock();
        let (mut ahead, mut seen) = (vec![from.owner], FxHashSet::default());
        while let Some(owner) = ahead.pop() {
            if owner == self.member.owner {
                let (own, other) = (self.member.pid, from.pid);
                let transaction = from.virtual_transaction();
                let detail = format!(
                    "Process {own} waits for {} on virtual transaction {transaction}; blocked by process {other}.\nProcess {other} waits for a lock that process {own} holds.",
                    TableMode::Share.name()
                );
                return Err(SqlError::new(state::DEADLOCK_DETECTED, "deadlock detected")
                    .detail(detail)
                    .hint("See server log for query details."));
            }
            if seen.insert(owner) {
                ahead.extend(deadlock::blockers(&queues, &self.manager.shards, owner).iter().map(|edge| edge.blocker));
            }
        }
        Ok(())
    }
}
