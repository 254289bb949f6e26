//! One topic: when to announce, look up and take an announcement back. [`Discovery`].
//!
//! ```text
//! join --> lookup at once (client), announce as soon as our server has its relays (server; an announce looks up as well)
//!             |
//!             +-- again after 10 to 12 minutes (10 to 20 s after a first announce: who came at the same time was not there yet); at once when the network changes; sooner while nobody was found or no node answered
//! leave --> the running query is cancelled, and what was announced is taken back
//! ```
//!
//! What must stay true: at most one query of a topic runs at a time; what was announced is taken back before the topic is forgotten; a topic left while another
//! join of it came in is not taken back.
//!
//! Source: hyperswarm lib/peer-discovery.js. Ours alone: the lookup that does not wait for our server, and looking sooner while there is nobody.

use std::time::Duration;

use crate::udp::{Now, Random};

/// Between two queries.
const REFRESH: Duration = Duration::from_secs(600);
/// Up to so much more.
const REFRESH_JITTER: Duration = Duration::from_secs(120);
/// How soon, and up to how much later, a first announce is followed by another.
const TOGETHER: Duration = Duration::from_secs(10);
/// The first wait while nobody was found; doubles each time.
const ALONE: Duration = Duration::from_secs(30);
/// The first wait while no node answered; doubles up to [`ALONE`].
const OFFLINE: Duration = Duration::from_secs(2);

/// What we are on a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Connects to those found there.
    pub client: bool,
    /// Is found there.
    pub server: bool,
}

impl Role {
    /// Both.
    pub const BOTH: Role = Role { client: true, server: true };
    /// Looks for others only.
    pub const CLIENT: Role = Role { client: true, server: false };
    /// Is found only.
    pub const SERVER: Role = Role { client: false, server: true };
}

/// A query on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Who is there.
    Lookup,
    /// Who is there, and we are too. The first one of a topic also takes back what an earlier life of ours left there.
    Announce {
        /// Nothing was announced there before.
        is_first: bool,
    },
    /// We are not there any more.
    Unannounce,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Nodes that answered.
    pub answers: usize,
}

/// One topic.
#[derive(Debug)]
pub struct Discovery {
    role: Role,
    is_left: bool,
    running: Option<Task>,
    /// The running query is of no use any more.
    is_stale: bool,
    next_at: Option<Now>,
    is_announced: bool,
    /// Nodes have taken the last announcement.
    is_kept: bool,
    /// Somebody answered the last query.
    was_answered: bool,
    announces: u32,
    /// Peers that the running query found.
    found: usize,
    /// Of the last query that ended.
    last_found: usize,
    last_ended: Option<Now>,
    fruitless: u32,
    /// No node answered the last query.
    is_offline: bool,
    has_ended_once: bool,
}

impl Discovery {
    /// A topic joined now.
    pub fn new(now: Now, role: Role) -> Discovery {
        Discovery {
            role,
            is_left: false,
            running: None,
            is_stale: false,
            next_at: Some(now),
            is_announced: false,
            is_kept: false,
            was_answered: false,
            announces: 0,
            found: 0,
            last_found: 0,
            last_ended: None,
            fruitless: 0,
            is_offline: false,
            has_ended_once: false,
        }
    }

    /// What we are there.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Left, and only still here to be taken back.
    pub fn is_left(&self) -> bool {
        self.is_left
    }

    /// A query ran to its end since the topic was joined.
    pub fn is_flushed(&self) -> bool {
        self.has_ended_once || self.is_left
    }

    /// Peers found by the last query, and when that ended.
    pub fn last(&self) -> (usize, Option<Now>) {
        (self.last_found.max(self.found), self.last_ended)
    }

    /// We are announced there.
    pub fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// Whether nodes answered the last query.
    pub fn was_answered(&self) -> bool {
        self.was_answered
    }

    /// Nodes have told us that they keep it.
    pub fn is_kept(&self) -> bool {
        self.is_announced && self.is_kept
    }

    /// Joined again, perhaps in another role.
    pub fn join(&mut self, now: Now, role: Role) {
        if self.role == role && !self.is_left {
            return;
        }
        (self.role, self.is_left, self.has_ended_once) = (role, false, false);
        self.restart(now);
    }

    /// Left. True if the topic can be forgotten at once.
    pub fn leave(&mut self, now: Now) -> bool {
        (self.is_left, self.role) = (true, Role::default());
        self.restart(now);
        !self.is_announced && self.running.is_none()
    }

    /// Everything anew, at once: another network, or awake again.
    pub fn refresh(&mut self, now: Now) {
        if self.running.is_none() {
            self.next_at = Some(now);
        }
    }

    /// What runs; and that it should be cancelled.
    pub fn running(&self) -> Option<(Task, bool)> {
        self.running.map(|task| (task, self.is_stale))
    }

    /// A running query's answers hold this many peers more.
    pub fn found(&mut self, peers: usize) {
        self.found += peers;
    }

    /// The query to start now. `is_listening`: our server has its relays, or will not get any.
    pub fn next(&mut self, now: Now, is_listening: bool) -> Option<Task> {
        if self.running.is_some() || self.next_at.is_none_or(|at| at > now) {
            return None;
        }
        let task = match (self.role.server, self.role.client) {
            (true, _) if is_listening => Task::Announce { is_first: self.announces == 0 },
            // Someone may be there already: no need to wait for our own server.
            (true, true) if !self.has_ended_once => Task::Lookup,
            (true, _) => return None,
            (false, _) if self.is_announced => Task::Unannounce,
            (false, true) => Task::Lookup,
            (false, false) => {
                self.next_at = None;
                return None;
            }
        };
        if matches!(task, Task::Announce { .. }) {
            (self.is_announced, self.announces) = (true, self.announces.saturating_add(1));
        }
        (self.running, self.is_stale, self.next_at, self.found) = (Some(task), false, None, 0);
        Some(task)
    }

    /// The running query ended, by itself or because it was cancelled. True if the topic can be forgotten.
    pub fn ended(&mut self, now: Now, ended: Ended, random: &mut Random) -> bool {
        let Some(task) = self.running.take() else { return self.is_left && !self.is_announced };
        let was_stale = std::mem::take(&mut self.is_stale);
        match task {
            Task::Unannounce => (self.is_announced, self.is_kept) = (false, false),
            Task::Announce { .. } => self.is_kept = ended.answers > 0,
            Task::Lookup => {}
        }
        if self.is_left {
            self.next_at = self.is_announced.then_some(now);
            return !self.is_announced;
        }
        if was_stale || task == Task::Unannounce {
            self.next_at = Some(now);
            return false;
        }
        self.has_ended_once = true;
        (self.last_found, self.last_ended, self.was_answered) = (self.found, Some(now), ended.answers > 0);
        let is_half = task == Task::Lookup && self.role.server;
        let is_first = task == Task::Announce { is_first: true } && self.role.client && ended.answers > 0;
        self.next_at = Some(match () {
            () if is_half => now,
            // Who announced itself at the same time was not there yet, and did not see us.
            () if is_first => now + TOGETHER + Duration::from_millis(random.below(TOGETHER.as_millis() as u64)),
            () => now + self.wait(ended, random),
        });
        false
    }

    /// When [`Discovery::next`] may have something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.next_at.filter(|_| self.running.is_none())
    }

    /// Begins anew after being suspended.
    pub fn resume(&mut self, now: Now) {
        (self.running, self.is_stale, self.has_ended_once) = (None, false, false);
        self.next_at = Some(now);
    }

    fn restart(&mut self, now: Now) {
        self.is_stale = self.running.is_some_and(|task| task != Task::Unannounce);
        self.next_at = Some(now);
    }

    fn wait(&mut self, ended: Ended, random: &mut Random) -> Duration {
        let jitter = Duration::from_millis(random.below(REFRESH_JITTER.as_millis() as u64));
        if std::mem::replace(&mut self.is_offline, ended.answers == 0) != self.is_offline {
            // That nobody could be found does not say that nobody is there.
            self.fruitless = 0;
        }
        let first = match (ended.answers, self.found) {
            (0, _) => OFFLINE,
            (_, 0) if self.role.client => ALONE,
            _ => {
                self.fruitless = 0;
                return REFRESH + jitter;
            }
        };
        let wait = first * 2u32.pow(self.fruitless.min(8));
        self.fruitless = self.fruitless.saturating_add(1);
        let longest = if ended.answers == 0 { ALONE } else { REFRESH };
        wait.min(longest) + jitter / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Now = Duration::ZERO;

    fn random() -> Random {
        Random::new([2; 32])
    }

    #[test]
    fn looks_first_announces_when_the_server_listens_then_every_ten_minutes() {
        let mut topic = Discovery::new(T0, Role::BOTH);
        assert_eq!(topic.next(T0, false), Some(Task::Lookup));
        assert_eq!(topic.next(T0, true), None, "one at a time");
        topic.ended(T0, Ended { answers: 20 }, &mut random());
        assert!(topic.is_flushed());
        assert_eq!(topic.next(T0, false), None);
        assert_eq!(topic.next(T0, true), Some(Task::Announce { is_first: true }));
        topic.found(3);
        topic.ended(T0, Ended { answers: 20 }, &mut random());
        let again = topic.poll_timeout().unwrap();
        assert!((10..=20).contains(&again.as_secs()), "once more for those who came at the same time");
        assert_eq!(topic.next(again, true), Some(Task::Announce { is_first: false }));
        topic.found(3);
        topic.ended(T0, Ended { answers: 20 }, &mut random());
        let at = topic.poll_timeout().unwrap();
        assert!((600..=720).contains(&at.as_secs()), "{at:?}");
        assert_eq!(topic.next(at - Duration::from_millis(1), true), None);
        assert_eq!(topic.next(at, true), Some(Task::Announce { is_first: false }));
    }

    #[test]
    fn leaving_cancels_and_takes_back() {
        let mut topic = Discovery::new(T0, Role::SERVER);
        assert_eq!(topic.next(T0, true), Some(Task::Announce { is_first: true }));
        assert!(!topic.leave(T0));
        assert_eq!(topic.running(), Some((Task::Announce { is_first: true }, true)));
        assert!(!topic.ended(T0, Ended::default(), &mut random()));
        assert_eq!(topic.next(T0, true), Some(Task::Unannounce));
        assert!(topic.ended(T0, Ended { answers: 20 }, &mut random()));
        let mut only_looks = Discovery::new(T0, Role::CLIENT);
        assert!(only_looks.leave(T0), "nothing ran, nothing was announced");
    }

    #[test]
    fn a_join_after_a_leave_wins() {
        let mut topic = Discovery::new(T0, Role::SERVER);
        topic.next(T0, true);
        topic.leave(T0);
        topic.join(T0, Role::SERVER);
        assert!(!topic.ended(T0, Ended::default(), &mut random()));
        assert!(matches!(topic.next(T0, true), Some(Task::Announce { .. })));
    }

    #[test]
    fn a_server_that_becomes_a_client_takes_back_then_looks() {
        let mut topic = Discovery::new(T0, Role::BOTH);
        assert!(topic.next(T0, true).is_some());
        topic.ended(T0, Ended { answers: 9 }, &mut random());
        topic.join(T0, Role::CLIENT);
        assert_eq!(topic.next(T0, true), Some(Task::Unannounce));
        topic.ended(T0, Ended { answers: 9 }, &mut random());
        assert_eq!(topic.next(T0, true), Some(Task::Lookup));
    }

    #[test]
    fn while_nobody_is_there_it_looks_sooner() {
        let mut topic = Discovery::new(T0, Role::CLIENT);
        let (mut now, mut waits) = (T0, Vec::new());
        for _ in 0..8 {
            assert_eq!(topic.next(now, true), Some(Task::Lookup));
            topic.ended(now, Ended { answers: 20 }, &mut random());
            let at = topic.poll_timeout().unwrap();
            waits.push((at - now).as_secs());
            now = at;
        }
        assert!(waits[0] < 45 && waits.is_sorted() && (600..=720).contains(&waits[7]), "{waits:?}");
        for answers in [0, 0, 0, 0, 0, 0, 20] {
            assert!(topic.next(now, true).is_some());
            topic.ended(now, Ended { answers }, &mut random());
            let at = topic.poll_timeout().unwrap();
            assert!(at - now <= ALONE + REFRESH_JITTER / 10, "{answers} {:?}", at - now);
            now = at;
        }
    }
}
