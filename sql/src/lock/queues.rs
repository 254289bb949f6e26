//! Who waits: a queue for each object that somebody waits for, and the sessions that may wait.
//!
//! ```text
//! seats    owner -> session, and what it waits for if it does
//! queues   object -> waiters, first come first
//! ```
//!
//! Who comes is granted when nothing conflicts, neither a holder nor a waiter before it; else it goes to the end, except that who holds something
//! a waiter waits for goes before that waiter, for it must. When a holder lets go, the queue is served from its head: each waiter is granted that
//! conflicts neither with a holder nor with one before it that still waits. Source: `ProcSleep` and `ProcLockWakeup` of PostgreSQL's `proc.c`.
//!
//! Everything here is behind one lock, which is taken only where somebody waits already or has to: so whoever has it sees a graph of waits that
//! stands still. Order of locks: the queues', then a session's own, then a part of the shards.
//!
//! What must stay true: a session waits for one object, in one queue; an object has a queue exactly while it is marked `is_queued` in the shards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::held::Member;
use super::mode::bit;
use super::shards::{Lower, OWNERS_MAX, Object, Request, Shards, conflicts};
use super::{Modes, Owner};
use crate::error::{Result, SqlError, state};

/// One who waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub owner: Owner,
    pub mode: u8,
    /// The table of a row or a unique key; 0 if there is none.
    pub table: u32,
    /// Since when, in microseconds since 1970.
    pub since: i64,
}

/// A session among those that may wait.
pub(super) struct Seat {
    pub member: Arc<Member>,
    pub waits: Option<Object>,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Queues {
    seats: Vec<Option<Seat>>,
    free: Vec<Owner>,
    pub queues: FxHashMap<Object, VecDeque<Waiter>>,
}

/// Sessions that got what they waited for, to be woken when no lock is held any more.
#[derive(Default)]
#[must_use]
pub(super) struct Woken(Vec<Arc<Member>>);

impl Woken {
    /// Wakes them.
    pub fn wake(self) {
        for member in self.0 {
            member.cancel.wake();
        }
    }
}

/// What came of asking for a lock in a queue's presence.
pub(super) enum Asked {
    /// It is granted; what was held before.
    Granted(Modes),
    /// It waits in the queue.
    Queued(Modes),
    /// It would have to wait, and was not to.
    Refused,
    /// It would wait for one that waits for it.
    Deadlock { blocker: Owner, waits_for: u8 },
}

impl Queues {
    /// A place for a session.
    pub fn enter(&mut self, member: impl FnOnce(Owner) -> Member) -> Result<Arc<Member>> {
        let owner = match self.free.pop() {
            Some(owner) => owner,
            None if self.seats.len() < OWNERS_MAX => {
                self.seats.push(None);
                (self.seats.len() - 1) as Owner
            }
            None => return Err(SqlError::new(state::TOO_MANY_CONNECTIONS, "too many sessions hold locks")),
        };
        let member = Arc::new(member(owner));
        self.seats[owner as usize] = Some(Seat { member: member.clone(), waits: None });
        Ok(member)
    }
    /// A session that holds nothing any more leaves.
    pub fn leave(&mut self, owner: Owner) {
        self.seats[owner as usize] = None;
        self.free.push(owner);
    }
    /// A session's seat.
    pub fn seat(&self, owner: Owner) -> Option<&Seat> {
        self.seats.get(owner as usize)?.as_ref()
    }
    fn set_waits(&mut self, owner: Owner, object: Option<Object>) {
        if let Some(seat) = &mut self.seats[owner as usize] {
            seat.waits = object;
        }
    }
    /// All sessions.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.seats.iter().flatten().map(|s| &s.member)
    }
    /// What a session waits for.
    pub fn waits(&self, owner: Owner) -> Option<(Object, Waiter)> {
        let object = self.seat(owner)?.waits?;
        let waiter = self.queues.get(&object)?.iter().find(|w| w.owner == owner)?;
        Some((object, *waiter))
    }

    /// Grants a request or queues it.
    pub fn ask(&mut self, shards: &Shards, request: &Request, waiter: Waiter, may_wait: bool) -> Result<Asked> {
        let (object, owner) = (request.object, request.owner);
        let mut part = shards.part(object);
        let wide = part.widen(object);
        let (own, others) = wide.held(owner);
        let queue = self.queues.get(&object);
        let waiting = queue.into_iter().flatten().fold(0, |all, w| all | bit(w.mode));
        let is_free = others & request.conflicts() == 0;
        if is_free && (request.passes_queue() || waiting & request.conflicts() == 0) {
            wide.grant(request);
            return Ok(Asked::Granted(own));
        }
        if !may_wait {
            part.tidy(object);
            return Ok(Asked::Refused);
        }
        let (mut place, mut before) = (queue.map_or(0, VecDeque::len), 0);
        for (at, other) in queue.into_iter().flatten().enumerate() {
            if own & conflicts(object, other.mode) == 0 {
                before |= bit(other.mode);
                continue;
            }
            // That one waits for us: we go first, if it does not hold what we wait for.
            let (held, _) = wide.held(other.owner);
            if held & request.conflicts() != 0 && !request.passes_queue() {
                return Ok(Asked::Deadlock { blocker: other.owner, waits_for: other.mode });
            }
            if is_free && before & request.conflicts() == 0 {
                wide.grant(request);
                return Ok(Asked::Granted(own));
            }
            place = at;
            break;
        }
        let seat = self.seats[owner as usize].as_mut().filter(|s| s.waits.is_none());
        let Some(seat) = seat else {
            return Err(SqlError::internal("a session waits for two locks"));
        };
        seat.waits = Some(object);
        seat.member.is_granted.store(false, Ordering::Relaxed);
        wide.is_queued = true;
        self.queues.entry(object).or_default().insert(place, waiter);
        Ok(Asked::Queued(own))
    }

    /// Grants what can be granted of a queue.
    pub fn serve(&mut self, shards: &Shards, object: Object, woken: &mut Woken) {
        let Some(mut queue) = self.queues.remove(&object) else { return };
        let mut part = shards.part(object);
        let wide = part.widen(object);
        let mut before = 0;
        queue.retain(|waiter| {
            let request = Request { object, owner: waiter.owner, mode: waiter.mode };
            let (_, others) = wide.held(waiter.owner);
            if (before | others) & request.conflicts() != 0 {
                before |= bit(waiter.mode);
                return true;
            }
            wide.grant(&request);
            self.set_waits(waiter.owner, None);
            if let Some(seat) = self.seat(waiter.owner) {
                seat.member.is_granted.store(true, Ordering::Release);
                woken.0.push(seat.member.clone());
            }
            false
        });
        if queue.is_empty() {
            wide.is_queued = false;
            part.tidy(object);
        } else {
            self.queues.insert(object, queue);
        }
    }

    /// Takes from what an owner holds of an object somebody waits for.
    pub fn lower(&mut self, shards: &Shards, object: Object, owner: Owner, lower: Lower, woken: &mut Woken) {
        shards.lower_queued(object, owner, lower);
        self.serve(shards, object, woken);
    }

    /// A session waits no more. False: it was granted what it waited for.
    pub fn leave_queue(&mut self, shards: &Shards, owner: Owner, woken: &mut Woken) -> bool {
        let Some(object) = self.seat(owner).and_then(|s| s.waits) else { return false };
        self.set_waits(owner, None);
        if let Some(queue) = self.queues.get_mut(&object) {
            queue.retain(|w| w.owner != owner);
        }
        // Those behind it may have waited only for it; a queue that is empty now goes.
        self.serve(shards, object, woken);
        true
    }

    /// Puts a queue in another order of the same waiters.
    pub fn reorder(&mut self, object: Object, order: &[Owner]) {
        if let Some(queue) = self.queues.get_mut(&object) {
            let places: FxHashMap<Owner, usize> = order.iter().enumerate().map(|(at, owner)| (*owner, at)).collect();
            queue.make_contiguous().sort_by_key(|w| places.get(&w.owner).copied().unwrap_or(usize::MAX));
        }
    }
}
