//! The search for the largest packet a path carries: full packets, padded by a step through their data offset.
//!
//! ```text
//!   Base ──first ack──► Searching ──probe of mtu + 32 acked──► larger mtu, next probe ──► .. ──► Done at the maximum
//!                           └──the same probe lost three times──► Done
//! ```
//!
//! What must stay true: a packet is never larger than what was acked once on this path, but for one probe at a time; a lost probe is no sign of congestion.

/// Bytes more with each probe.
const STEP: usize = 32;
/// A probe size that was lost this often is too large.
const ATTEMPTS_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was acked yet.
    Base,
    /// The next full packet is to be a probe.
    Wanted,
    /// A probe is under way.
    Sent,
    Done,
}

/// The search on one path. Sizes are those of IP packets.
#[derive(Debug)]
pub struct MtuSearch {
    current: usize,
    max: usize,
    attempts: u8,
    state: State,
}

impl MtuSearch {
    /// From a size that is believed in, up to another.
    pub fn new(min: usize, max: usize) -> MtuSearch {
        MtuSearch { current: min, max, attempts: 0, state: if max > min { State::Base } else { State::Done } }
    }
    /// The size in use.
    pub fn current(&self) -> usize {
        self.current
    }
    /// How much to pad the next full packet; 0 when no probe is wanted.
    pub fn padding(&self) -> u8 {
        if self.state == State::Wanted { (self.next() - self.current).min(255) as u8 } else { 0 }
    }
    /// A padded packet has left.
    pub fn probe_sent(&mut self) {
        (self.state, self.attempts) = (State::Sent, self.attempts + 1);
    }
    /// Something was acked: the path carries packets, so the search may begin.
    pub fn acked(&mut self) {
        if self.state == State::Base {
            self.state = State::Wanted;
        }
    }
    /// The probe was acked.
    pub fn probe_acked(&mut self) {
        if self.state == State::Sent {
            self.current = self.next();
            self.attempts = 0;
            self.state = if self.current >= self.max { State::Done } else { State::Wanted };
        }
    }
    /// The probe was lost.
    pub fn probe_lost(&mut self) {
        if self.state == State::Sent {
            self.state = if self.attempts >= ATTEMPTS_MAX { State::Done } else { State::Wanted };
        }
    }
    fn next(&self) -> usize {
        (self.current + STEP).min(self.max)
    }
}
