//! Waiting for transactions that hold a table, without keeping anyone from it: what CREATE INDEX CONCURRENTLY does between its steps.
//!
//! ```text
//! holders of the table now  ->  each one's transaction, as an object it holds itself  ->  waited for in that object's queue, one after the other
//! ```
//!
//! Nobody is behind the waiter at the table. That a transaction holds itself is told to others only when somebody is about to wait for it; it lets go
//! of itself behind everything else it holds. So such a wait is one like all others: woken at once, seen in pg_locks, part of circles, ended by lock_timeout.

use std::sync::atomic::Ordering;

use super::held::Member;
use super::mode::bit;
use super::shards::{Lower, Object, Request, conflicts};
use super::{Locks, Modes, Owner, Patience, TableMode};
use crate::error::Result;

impl Locks {
    /// Waits until all transactions have ended that now hold a table in a mode that conflicts with this one. Who comes later is not waited for.
    ///
    /// # Errors
    /// 40P01 if one of them waits for this session, 55P03 from lock_timeout, and what the cancel flag says.
    pub fn wait_for_holders(&self, table: u32, mode: TableMode) -> Result<()> {
        for (holder, local) in self.holders(table, conflicts(Object::Table(table), mode as u8)) {
            if !self.await_end_of(holder, local) {
                continue;
            }
            let (object, owner) = (Object::Virtual(holder, local), self.member.owner);
            self.take(&Request { object, owner, mode: TableMode::Share as u8 }, 0, Patience::Wait)?;
            self.manager.lower(object, owner, Lower::Without(bit(TableMode::Share as u8)));
        }
        Ok(())
    }

    /// Sessions that hold a table in one of these modes, and the numbers of their transactions.
    fn holders(&self, table: u32, conflicting: Modes) -> Vec<(Owner, u32)> {
        // So that those on the fast path are seen, too; later ones may go there again.
        self.manager.strong(table).fetch_add(1, Ordering::SeqCst);
        self.manager.transfer(table);
        let found = self.manager.shards.holders(Object::Table(table));
        self.manager.strong(table).fetch_sub(1, Ordering::SeqCst);
        let queues = self.manager.queues.lock();
        let others = found.iter().filter(|h| h.owner != self.member.owner && h.modes & conflicting != 0);
        let number = |member: &Member| member.local.load(Ordering::Acquire);
        others.filter_map(|h| Some((h.owner, number(&queues.seat(h.owner)?.member)))).collect()
    }

    /// Has a transaction hold itself; false if it has ended.
    fn await_end_of(&self, holder: Owner, local: u32) -> bool {
        let queues = self.manager.queues.lock();
        let Some(seat) = queues.seat(holder) else { return false };
        let mut held = seat.member.held.lock();
        let number = seat.member.local.load(Ordering::Acquire);
        if !seat.member.in_transaction.load(Ordering::Acquire) || number != local {
            return false;
        }
        if held.awaited.is_none() {
            held.awaited = Some(local);
            let object = Object::Virtual(holder, local);
            let mut part = self.manager.shards.part(object);
            part.widen(object).grant(&Request { object, owner: holder, mode: TableMode::Exclusive as u8 });
        }
        true
    }
}
