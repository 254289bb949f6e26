//! Requests of ours that are under way: their numbers, tries and deadlines.
//!
//! ```text
//! begin -> waiting (the window is full) -> sent, with a deadline -> answered
//!                     ^------ again ------------'  `-> timed out, after the last try
//! ```
//!
//! What must stay true: an answer is taken only with the number of the request and from the address that was asked (JavaScript goes by the number alone;
//! replies that come through a relay are sent by the node that was asked, too); numbers are not to be guessed; of each request there is one end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use super::round_trip::RoundTrips;
use super::window::Window;
use crate::udp::{Now, Random, SocketId, Transmit};

/// More numbers than this in use make free ones hard to find.
const NUMBERS_MAX: usize = 32 * 1024;

/// One request under way, `O` says whose.
pub struct Pending<O> {
    /// Its number on the wire.
    pub tid: u16,
    /// Who is asked.
    pub to: SocketAddrV4,
    /// Where it leaves.
    pub socket: SocketId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Hops it may take.
    pub ttl: Option<u8>,
    /// How often it may be sent again.
    pub retries: u8,
    /// How long each try waits, if that is fixed.
    pub timeout: Option<Duration>,
    /// Whose it is.
    pub owner: O,
    /// When the first try was sent.
    pub first_sent_at: Now,
    tries: u8,
    sent_at: Now,
    deadline: Option<Now>,
}

/// What a deadline led to.
pub enum Expired<'a, O> {
    /// It will be sent again.
    Again(&'a mut Pending<O>),
    /// That was the last try.
    Over(Pending<O>),
}

/// See the module.
pub struct Inflight<O> {
    requests: HashMap<u64, Pending<O>>,
    numbers: HashMap<u16, u64>,
    deadlines: BTreeSet<(Now, u64)>,
    waiting: VecDeque<u64>,
    next_id: u64,
    window: Window,
    round_trips: RoundTrips,
}

impl<O> Inflight<O> {
    /// Nothing is under way.
    pub fn new(window: Window, round_trips: RoundTrips) -> Inflight<O> {
        Inflight {
            requests: HashMap::new(),
            numbers: HashMap::new(),
            deadlines: BTreeSet::new(),
            waiting: VecDeque::new(),
            next_id: 0,
            window,
            round_trips,
        }
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// A number that is not in use; `None` if too many are.
    pub fn free_number(&self, random: &mut Random) -> Option<u16> {
        if self.numbers.len() >= NUMBERS_MAX {
            return None;
        }
        // At least half of all numbers are free, so this ends soon.
        std::iter::repeat_with(|| u16::from_le_bytes(random.bytes())).find(|tid| !self.numbers.contains_key(tid))
    }

    /// An identity for the next request.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A request begins; [`next_transmit`](Inflight::next_transmit) sends it.
    #[expect(clippy::too_many_arguments, reason = "one call, of all that a request is")]
    pub fn begin(
        &mut self,
        id: u64,
        tid: u16,
        to: SocketAddrV4,
        socket: SocketId,
        bytes: Vec<u8>,
        ttl: Option<u8>,
        retries: u8,
        timeout: Option<Duration>,
        owner: O,
    ) {
        let pending = Pending {
            tid,
            to,
            socket,
            bytes,
            ttl,
            retries,
            timeout,
            owner,
            first_sent_at: Duration::ZERO,
            tries: 0,
            sent_at: Duration::ZERO,
            deadline: None,
        };
        self.numbers.insert(tid, id);
        self.requests.insert(id, pending);
        self.waiting.push_back(id);
    }

    /// The next one that the window lets go.
    pub fn next_transmit(&mut self, now: Now, random: &mut Random) -> Option<Transmit> {
        while let Some(&id) = self.waiting.front() {
            let Some(pending) = self.requests.get_mut(&id) else {
                self.waiting.pop_front();
                continue;
            };
            if self.window.is_full(now) {
                return None;
            }
            self.waiting.pop_front();
            self.window.sent(now);
            pending.tries += 1;
            pending.sent_at = now;
            if pending.tries == 1 {
                pending.first_sent_at = now;
            }
            let timeout =
                pending.timeout.unwrap_or_else(|| self.round_trips.timeout(pending.to, pending.tries, random));
            pending.deadline = Some(now + timeout);
            self.deadlines.insert((now + timeout, id));
            return Some(Transmit {
                ttl: pending.ttl,
                ..Transmit::new(pending.socket, pending.to, pending.bytes.clone())
            });
        }
        None
    }

    /// An answer with this number came from there: the request it belongs to, and how long it took.
    pub fn answered(&mut self, now: Now, tid: u16, from: SocketAddrV4) -> Option<(Pending<O>, Duration)> {
        let id = *self.numbers.get(&tid)?;
        if self.requests.get(&id).is_none_or(|pending| pending.to != from || pending.tries == 0) {
            return None;
        }
        let pending = self.remove(now, id)?;
        let round_trip = now.saturating_sub(pending.sent_at);
        self.round_trips.answered(from, round_trip, pending.tries);
        Some((pending, round_trip))
    }

    /// Takes a request away.
    pub fn remove(&mut self, now: Now, id: u64) -> Option<Pending<O>> {
        let pending = self.requests.remove(&id)?;
        self.numbers.remove(&pending.tid);
        if let Some(deadline) = pending.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if pending.tries > 0 {
            self.window.done(now);
        }
        Some(pending)
    }

    /// The next request whose try waited long enough.
    pub fn expired(&mut self, now: Now) -> Option<Expired<'_, O>> {
        let &(deadline, id) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        let is_over = self.requests.get(&id).is_some_and(|pending| pending.tries > pending.retries);
        if is_over {
            return self.remove(now, id).map(Expired::Over);
        }
        self.waiting.push_back(id);
        let pending = self.requests.get_mut(&id).expect("only requests under way have deadlines");
        pending.deadline = None;
        Some(Expired::Again(pending))
    }

    /// Takes away all that an owner no longer wants.
    pub fn remove_where(&mut self, now: Now, is_unwanted: impl Fn(&O) -> bool) -> Vec<Pending<O>> {
        let unwanted = self.requests.iter().filter(|(_, pending)| is_unwanted(&pending.owner)).map(|(&id, _)| id);
        let mut unwanted: Vec<u64> = unwanted.collect();
        unwanted.sort_unstable();
        unwanted.into_iter().filter_map(|id| self.remove(now, id)).collect()
    }

    /// Forget what was sent before, after a pause.
    pub fn clear_window(&mut self) {
        self.window.clear();
    }

    /// When there is something to do next.
    pub fn next_timeout(&self) -> Option<Now> {
        let deadline = self.deadlines.first().map(|&(deadline, _)| deadline);
        let slot = self.waiting.iter().any(|id| self.requests.contains_key(id)).then(|| self.window.next_slot());
        deadline.into_iter().chain(slot).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Duration = Duration::from_millis;

    fn inflight(max: usize) -> (Inflight<u8>, Random, SocketAddrV4) {
        let inflight = Inflight::new(Window::new(AT(0), max), RoundTrips::new(true, 16));
        (inflight, Random::new([1; 32]), "1.1.1.1:1".parse().expect("an address"))
    }

    fn begin(inflight: &mut Inflight<u8>, random: &mut Random, to: SocketAddrV4, owner: u8) -> (u64, u16) {
        let (id, tid) = (inflight.next_id(), inflight.free_number(random).expect("a number"));
        inflight.begin(id, tid, to, SocketId::CLIENT, vec![owner], None, 2, None, owner);
        (id, tid)
    }

    #[test]
    fn tries_and_their_end() {
        let (mut inflight, mut random, to) = inflight(80);
        begin(&mut inflight, &mut random, to, 7);
        let mut sent_at = Vec::new();
        let mut now = AT(0);
        loop {
            while let Some(transmit) = inflight.next_transmit(now, &mut random) {
                assert_eq!((transmit.to, transmit.payload), (to, vec![7]));
                sent_at.push(now.as_millis());
            }
            now = inflight.next_timeout().expect("something to wait for");
            match inflight.expired(now) {
                Some(Expired::Again(_)) => {}
                Some(Expired::Over(pending)) => break assert_eq!(pending.owner, 7),
                None => panic!("a timeout without a reason"),
            }
        }
        assert_eq!(sent_at, [0, 1000, 2000]);
        assert_eq!((now, inflight.len(), inflight.next_timeout()), (AT(3000), 0, None));
    }

    #[test]
    fn only_who_was_asked_answers() {
        let (mut inflight, mut random, to) = inflight(80);
        let (_, tid) = begin(&mut inflight, &mut random, to, 7);
        assert!(inflight.answered(AT(0), tid, to).is_none(), "not yet sent");
        inflight.next_transmit(AT(0), &mut random).expect("sent");
        assert!(inflight.answered(AT(1), tid, "1.1.1.1:2".parse().expect("an address")).is_none());
        assert!(inflight.answered(AT(1), tid.wrapping_add(1), to).is_none());
        let (pending, round_trip) = inflight.answered(AT(30), tid, to).expect("answered");
        assert_eq!((pending.owner, round_trip), (7, AT(30)));
        assert!(inflight.answered(AT(31), tid, to).is_none());
    }

    #[test]
    fn a_full_window_waits_for_its_slot() {
        let (mut inflight, mut random, to) = inflight(3);
        let ids: Vec<u64> = (0..6).map(|owner| begin(&mut inflight, &mut random, to, owner).0).collect();
        let sent = |inflight: &mut Inflight<u8>, random: &mut Random, ms| {
            std::iter::from_fn(|| inflight.next_transmit(AT(ms), random)).count()
        };
        assert_eq!(sent(&mut inflight, &mut random, 0), 3);
        inflight.remove(AT(1), ids[3]).expect("it waited");
        assert_eq!(inflight.next_timeout(), Some(AT(750)));
        assert_eq!(sent(&mut inflight, &mut random, 750), 2);
        assert_eq!(inflight.remove_where(AT(751), |&owner| owner < 2).len(), 2);
        assert_eq!(inflight.len(), 3);
    }
}
