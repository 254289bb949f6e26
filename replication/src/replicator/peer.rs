//! One peer of one core: what it says, what is asked of it, what it asked. `Peer`.
//!
//! ```text
//! said       sync, range, bitfield      where it stands, what it has
//! asked      request ids 1, 2, 3, ..    each with what was asked and when; see `Questions`
//! wanted     windows of 2^21 blocks     of which it was asked what it has; see `Windows`
//! pace       round trip, in flight      how much to ask at a time; see `Pace`
//! owed       see `upload`               what it asked of us
//! ```
//!
//! What must stay true: an id is used for one request at a time, and not again before the peer can no longer answer the old one; nothing here grows with what
//! the peer sends, but up to limits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pgbee_engine::hypercore::proof::Request;
use pgbee_engine::{BlockIndex, Fork, Length};

use super::Now;
use super::remote_bitfield::RemoteBitfield;
use super::schedule::Runs;
use super::upload::Uploads;
use crate::protocol::messages::{SEGMENT_BLOCKS, Span, Sync};

/// How many requests a peer is sent at a time, at least, once it was slow.
pub const IN_FLIGHT_MIN: usize = 16;
/// How many requests a peer is sent at a time, at most: as JavaScript peers are used to.
pub const IN_FLIGHT_MAX: usize = 512;
/// How many requests a new peer is sent at a time.
const IN_FLIGHT_FIRST: usize = 48;
/// Requests are in flight for about this long, and two round trips of an idle connection: enough to keep the pipe full, not so much that a block someone
/// waits for stands behind thousands.
const IN_FLIGHT_TIME: Duration = Duration::from_millis(250);
/// How many windows a peer is asked about, at most, as JavaScript peers accept.
pub const WINDOWS_MAX: usize = 512;
/// A peer that has nothing in a window does not answer: so long after it was asked, that is what it means.
pub const WINDOW_ANSWER: Duration = Duration::from_secs(2);
/// A peer that does not answer in three round trips is slow, but not before so long.
pub const SLOW_MIN: Duration = Duration::from_millis(500);

/// So often a silence doubles how slow a peer is thought to be.
const SILENCES_MAX: u32 = 12;

/// One peer.
pub(super) struct Peer {
    /// Where it stands, once it said so.
    pub said: Option<Sync>,
    pub has: RemoteBitfield,
    /// Whether we can prove the way from its length to ours: what we tell it.
    pub can_upgrade: bool,
    /// The length of ours that it acknowledged.
    pub acknowledged: Length,
    /// The last length of its, and the fork, of which we could prove the way to ours.
    pub upgradable: (Fork, Length),
    pub questions: Questions,
    pub windows: Windows,
    pub pace: Pace,
    /// The blocks of a wanted range that it is about to be asked for.
    pub runs: Runs,
    /// Where to look for its next run.
    pub cursor: u64,
    /// Nothing is asked of it before this.
    pub paused_until: Option<Now>,
    /// No upgrade is asked of it before this, and how often that happened.
    pub upgrade_after: Now,
    pub upgrade_failures: u32,
    /// Whether it ever gave one.
    pub has_upgraded_us: bool,
    /// It sent what does not verify, and was asked for its whole history: it is closed at this time, unless that shows a conflict before.
    pub suspect_until: Option<Now>,
    /// `noData` answers in a row: not available, invalid.
    pub no_data: [u32; 2],
    /// Evidence of conflicts that it sent.
    pub evidence: u32,
    pub uploads: Uploads,
    /// The length up to which it was told that we hold everything.
    pub told_full: u64,
    pub extension_sent: &'static str,
    pub extension_received: String,
    pub blocks_in: u64,
    pub blocks_out: u64,
}

impl Peer {
    pub fn new() -> Peer {
        Peer {
            said: None,
            has: RemoteBitfield::default(),
            can_upgrade: true,
            acknowledged: Length(0),
            upgradable: (Fork(0), Length(0)),
            questions: Questions::default(),
            windows: Windows::default(),
            pace: Pace::default(),
            runs: Runs::default(),
            cursor: 0,
            paused_until: None,
            upgrade_after: Now::ZERO,
            upgrade_failures: 0,
            has_upgraded_us: false,
            suspect_until: None,
            no_data: [0; 2],
            evidence: 0,
            uploads: Uploads::default(),
            told_full: 0,
            extension_sent: "",
            extension_received: String::new(),
            blocks_in: 0,
            blocks_out: 0,
        }
    }

    /// For who looks for a bug.
    pub fn describe(&self, id: super::PeerId) -> String {
        format!(
            "peer {}: {:?}, has 0..{}, acknowledged {}, can upgrade {}, {} questions of {}, paused {:?}, suspect {:?}, upgrade after {:?}, cursor {}, runs {:?}, windows {}",
            id.0,
            self.said,
            self.has.contiguous(),
            self.acknowledged,
            self.can_upgrade,
            self.questions.len(),
            self.pace.limit(),
            self.paused_until,
            self.suspect_until,
            self.upgrade_after,
            self.cursor,
            self.runs,
            self.windows.asked.len(),
        )
    }

    /// The fork it is on, 0 before it said so, as JavaScript has it.
    pub fn fork(&self) -> Fork {
        self.said.map_or(Fork(0), |said| said.fork)
    }

    /// The length it claims.
    pub fn length(&self) -> Length {
        self.said.map_or(Length(0), |said| said.length)
    }

    /// Whether anything may be asked of it.
    pub fn is_active(&self, now: Now) -> bool {
        self.suspect_until.is_none()
            && self.paused_until.is_none_or(|until| now >= until)
            && self.said.is_some_and(|said| said.uploading)
    }

    /// How many more requests it may be sent.
    pub fn room(&self) -> usize {
        self.pace.limit().saturating_sub(self.questions.len())
    }

    /// Whether what it has of a block is known: it has it, or said what it has of its window, or its core is shorter.
    pub fn knows(&self, block: BlockIndex, now: Now) -> bool {
        let Some(said) = self.said else { return false };
        self.has.get(block) || block.0 >= said.length.0 || !said.uploading || self.windows.is_answered(block, now)
    }

    /// It did not give the upgrade it was asked for: it is asked again later, and later each time.
    pub fn upgrade_failed(&mut self, now: Now) {
        self.upgrade_failures += 1;
        self.upgrade_after = now + Duration::from_millis(500) * (1 << self.upgrade_failures.min(7));
    }

    /// A peer that does not answer for so long is slow.
    pub fn patience(&self) -> Duration {
        (3 * self.pace.round_trip().unwrap_or_default()).max(SLOW_MIN)
    }
}

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub request: Request,
    pub fork: Fork,
    pub sent_at: Now,
    /// How many requests were sent when this one was cut: what tells it from a later one with its id.
    serial: u64,
    /// How many cancels were sent before it.
    cancels: u64,
}

/// The requests in flight to one peer, by their ids.
///
/// Ids are small and used again: after the answer, last freed first; after a cancel only once a request that was sent later is answered, for the answer may
/// have been under way.
#[derive(Default)]
pub(super) struct Questions {
    open: BTreeMap<u64, Question>,
    free: Vec<u64>,
    next: u64,
    serials: u64,
    cancels: u64,
    cancelled: VecDeque<(u64, u64)>,
    /// Ids and serials in the order they were sent; answered ones are skipped.
    by_age: VecDeque<(u64, u64, Now)>,
}

impl Questions {
    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn get(&self, id: u64) -> Option<&Question> {
        self.open.get(&id)
    }

    pub fn ids(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// A new request's id.
    pub fn ask(&mut self, request: Request, fork: Fork, now: Now) -> u64 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.serials += 1;
        self.open.insert(id, Question { request, fork, sent_at: now, serial: self.serials, cancels: self.cancels });
        self.by_age.push_back((id, self.serials, now));
        id
    }

    /// A request is answered.
    pub fn answered(&mut self, id: u64) -> Option<Question> {
        let question = self.open.remove(&id)?;
        self.free.push(id);
        while let Some(&(cancel, id)) = self.cancelled.front()
            && cancel <= question.cancels
        {
            self.free.push(id);
            self.cancelled.pop_front();
        }
        Some(question)
    }

    /// A request need not be answered any longer: send a `cancel`.
    pub fn cancel(&mut self, id: u64) -> Option<Question> {
        let question = self.open.remove(&id)?;
        self.cancels += 1;
        self.cancelled.push_back((self.cancels, id));
        Some(question)
    }

    /// The oldest request that was not looked at since, and when it was sent.
    pub fn oldest(&mut self) -> Option<(u64, Now)> {
        while let Some(&(id, serial, at)) = self.by_age.front() {
            if self.open.get(&id).is_some_and(|question| question.serial == serial) {
                return Some((id, at));
            }
            self.by_age.pop_front();
        }
        None
    }

    /// When the oldest request was sent, or somewhat before.
    pub fn peek_oldest(&self) -> Option<Now> {
        if self.open.is_empty() { None } else { self.by_age.front().map(|(_, _, at)| *at) }
    }

    /// Look at the oldest request again after as long as if it were sent now.
    pub fn postpone_oldest(&mut self, now: Now) {
        if let Some((id, serial, _)) = self.by_age.pop_front() {
            self.by_age.push_back((id, serial, now));
        }
    }
}

/// The windows a peer was asked about: what it has of these 2^21 blocks.
#[derive(Default)]
pub(super) struct Windows {
    asked: BTreeMap<u64, Window>,
    uses: u64,
}

struct Window {
    asked_at: Now,
    is_answered: bool,
    used: u64,
}

impl Windows {
    /// The block's window is of interest. What to send: an `unwant`, a `want`.
    pub fn use_for(&mut self, block: BlockIndex, now: Now) -> (Option<Span>, Option<Span>) {
        let number = block.0 / SEGMENT_BLOCKS;
        self.uses += 1;
        if let Some(window) = self.asked.get_mut(&number) {
            window.used = self.uses;
            return (None, None);
        }
        let span = |number| Span { start: BlockIndex(number * SEGMENT_BLOCKS), length: SEGMENT_BLOCKS, any: false };
        let mut unwant = None;
        if self.asked.len() >= WINDOWS_MAX
            && let Some((&oldest, _)) = self.asked.iter().min_by_key(|(_, window)| window.used)
        {
            self.asked.remove(&oldest);
            unwant = Some(span(oldest));
        }
        self.asked.insert(number, Window { asked_at: now, is_answered: false, used: self.uses });
        (unwant, Some(span(number)))
    }

    /// The peer said what it has from this block on.
    pub fn answered(&mut self, start: BlockIndex) {
        if let Some(window) = self.asked.get_mut(&(start.0 / SEGMENT_BLOCKS)) {
            window.is_answered = true;
        }
    }

    /// The peer said what it has from the beginning.
    pub fn answered_all(&mut self) {
        self.asked.values_mut().for_each(|window| window.is_answered = true);
    }

    pub fn is_answered(&self, block: BlockIndex, now: Now) -> bool {
        let window = self.asked.get(&(block.0 / SEGMENT_BLOCKS));
        window.is_some_and(|window| window.is_answered || now >= window.asked_at + WINDOW_ANSWER)
    }

    /// When silence will have become an answer.
    pub fn next_answer(&self) -> Option<Now> {
        self.asked.values().filter(|window| !window.is_answered).map(|window| window.asked_at + WINDOW_ANSWER).min()
    }

    /// Silence has become an answer for these.
    pub fn expire(&mut self, now: Now) -> bool {
        let mut any = false;
        for window in
            self.asked.values_mut().filter(|window| !window.is_answered && now >= window.asked_at + WINDOW_ANSWER)
        {
            window.is_answered = true;
            any = true;
        }
        any
    }
}

/// How much to ask of a peer at a time, from how long it takes to answer.
pub(super) struct Pace {
    limit: usize,
    smoothed: Option<Duration>,
    shortest: Duration,
    answers: usize,
    was_full: bool,
    /// How often it was found slow since it last answered.
    silences: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            limit: IN_FLIGHT_FIRST,
            smoothed: None,
            shortest: Duration::MAX,
            answers: 0,
            was_full: false,
            silences: 0,
        }
    }
}

impl Pace {
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The smoothed time from request to answer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// No more could be asked.
    pub fn full(&mut self) {
        self.was_full = true;
    }

    /// An answer came.
    pub fn answered(&mut self, took: Duration) {
        self.smoothed = Some(self.smoothed.map_or(took, |smoothed| (7 * smoothed + took) / 8));
        self.shortest = self.shortest.min(took);
        self.answers += 1;
        self.silences = 0;
        if self.answers >= self.limit {
            self.adapt();
        }
    }

    /// It has not answered for long.
    pub fn silent(&mut self) {
        self.silences = (self.silences + 1).min(SILENCES_MAX);
    }

    /// How long it will probably not answer, if it was found slow since it last did: twice as long each time.
    pub fn silence(&self, patience: Duration) -> Option<Duration> {
        let doublings = self.silences.checked_sub(1)?;
        Some(patience.saturating_mul(1 << doublings))
    }

    /// Another peer was faster: this one is asked less, until it answers again.
    pub fn lost(&mut self) {
        self.limit = (self.limit / 2).max(1);
        self.answers = 0;
    }

    /// Once for every round of answers: twice as many while they come back in time, as many as do when they do not.
    fn adapt(&mut self) {
        let target = IN_FLIGHT_TIME + 2 * self.shortest;
        let smoothed = self.smoothed.unwrap_or_default();
        if smoothed > target {
            let share = target.as_secs_f64() / smoothed.as_secs_f64();
            self.limit = ((self.limit as f64 * share) as usize).max(IN_FLIGHT_MIN);
        } else if self.was_full {
            self.limit = (2 * self.limit).min(IN_FLIGHT_MAX);
        }
        (self.answers, self.was_full) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(questions: &mut Questions) -> u64 {
        questions.ask(Request::default(), Fork(0), Now::ZERO)
    }

    #[test]
    fn an_id_is_used_again_once_its_answer_cannot_come_any_more() {
        let mut questions = Questions::default();
        let ids = [ask(&mut questions), ask(&mut questions), ask(&mut questions)];
        assert_eq!(ids, [1, 2, 3]);
        questions.answered(2).unwrap();
        assert_eq!(ask(&mut questions), 2, "its answer came");
        questions.cancel(1).unwrap();
        assert!(questions.answered(1).is_none(), "nobody waits for it");
        assert_eq!(ask(&mut questions), 4, "1 may still be answered");
        questions.answered(3).unwrap();
        assert_eq!(ask(&mut questions), 3, "3 was sent before the cancel");
        questions.answered(4).unwrap();
        let (first, second) = (ask(&mut questions), ask(&mut questions));
        assert_eq!((first, second), (1, 4), "4 was sent after the cancel: whoever answered it has read the cancel");
    }

    #[test]
    fn the_oldest_request_is_found_though_ids_are_used_again() {
        let mut questions = Questions::default();
        for at in 1..4 {
            questions.ask(Request::default(), Fork(0), Duration::from_secs(at));
        }
        questions.answered(1).unwrap();
        questions.ask(Request::default(), Fork(0), Duration::from_secs(9));
        assert_eq!(questions.oldest(), Some((2, Duration::from_secs(2))));
        questions.postpone_oldest(Duration::from_secs(10));
        questions.answered(3).unwrap();
        assert_eq!(questions.oldest(), Some((1, Duration::from_secs(9))));
        questions.answered(1).unwrap();
        assert_eq!(questions.oldest(), Some((2, Duration::from_secs(10))));
    }

    #[test]
    fn a_fast_peer_is_asked_more_and_a_slow_one_less() {
        let mut pace = Pace::default();
        for _ in 0..2000 {
            pace.full();
            pace.answered(Duration::from_millis(5));
        }
        assert_eq!(pace.limit(), IN_FLIGHT_MAX);
        for _ in 0..20_000 {
            pace.full();
            pace.answered(Duration::from_secs(4));
        }
        assert!(pace.limit() <= 2 * IN_FLIGHT_MIN, "{}", pace.limit());
        let mut idle = Pace::default();
        (0..1000).for_each(|_| idle.answered(Duration::from_millis(1)));
        assert_eq!(idle.limit(), IN_FLIGHT_FIRST, "it never was at its limit");
    }

    #[test]
    fn windows_are_bounded_and_silence_is_an_answer() {
        let mut windows = Windows::default();
        let block = |window: u64| BlockIndex(window * SEGMENT_BLOCKS + 7);
        for window in 0..WINDOWS_MAX as u64 {
            let (unwant, want) = windows.use_for(block(window), Now::ZERO);
            assert!(unwant.is_none() && want.unwrap().start == BlockIndex(window * SEGMENT_BLOCKS));
        }
        assert_eq!(windows.use_for(block(0), Now::ZERO), (None, None));
        let (unwant, want) = windows.use_for(block(9999), Now::ZERO);
        assert_eq!(unwant.unwrap().start, BlockIndex(SEGMENT_BLOCKS), "the one not used for longest");
        assert!(want.is_some() && !windows.is_answered(block(9999), Now::ZERO));
        windows.answered(BlockIndex(9999 * SEGMENT_BLOCKS));
        assert!(windows.is_answered(block(9999), Now::ZERO));
        assert!(windows.is_answered(block(5), WINDOW_ANSWER) && windows.expire(WINDOW_ANSWER));
        assert_eq!(windows.next_answer(), None);
    }
}
