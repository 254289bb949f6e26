//! LISTEN and NOTIFY: the channels of one database, in memory.
//!
//! ```text
//! session   pending: what the transaction asked for; done at its commit, forgotten with it or with its savepoint
//! mailbox   what was told to a session and not delivered yet; bounded
//! channels  the mailboxes of a database's sessions that listen
//! turns     who commits notifications just now, and those that are committed and not told yet
//! ```
//!
//! Commits overlap, since many share one write to the disk; what they notify is told in the order of their versions nevertheless. Who is about to commit takes a [`Turn`]; what it
//! notified may be told once nobody who took a turn before that commit was over is still at it, for only they can become an older version. A session waits until its own are told,
//! so that it hears itself before its command is over: that is at most as long as the commits under way take.
//!
//! Channel [`COMMITS`] is told by the database itself: every new version, made here or come from the writer that is followed, is a notification whose payload is the version. When
//! many commits become visible at once, the newest is told.
//!
//! What must stay true: what a transaction notifies is told after its commit, whole and in order, also to itself; nobody is told anything inside of a transaction block;
//! a mailbox that nobody empties stays bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashSet;

use crate::error::{Result, SqlError, state};

/// The channel of new versions.
pub const COMMITS: &str = "bee_commit";
/// Bytes that may wait for a session.
const MAILBOX_BYTES_MAX: usize = 64 << 20;
/// Bytes of notifications that a transaction may gather.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Bytes of a channel's name, at most. Source: NAMEDATALEN of PostgreSQL.
const NAME_BYTES_MAX: usize = 63;
/// A payload is shorter than this. Source: NOTIFY_PAYLOAD_MAX_LENGTH of PostgreSQL.
const PAYLOAD_BYTES: usize = 8000;

/// One message of a channel: NotificationResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The channel.
    pub channel: Arc<str>,
    /// What was said.
    pub payload: Arc<str>,
    /// Process id of the session that said it; 0 for the database itself.
    pub pid: i32,
}

impl Notification {
    fn bytes(&self) -> usize {
        size_of::<Notification>() + self.channel.len() + self.payload.len()
    }
}

/// Called when something was put into an empty mailbox. Must be quick; may run in any thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What was told to one session.
#[derive(Default)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    channels: BTreeSet<String>,
    waiting: VecDeque<Notification>,
    bytes: usize,
    wake: Option<Wake>,
}

/// The sessions of a database that listen.
#[derive(Default)]
pub(super) struct Channels {
    listeners: Mutex<Vec<Weak<Mailbox>>>,
    turns: Mutex<Turns>,
    told: Condvar,
}

/// Notifications of transactions that commit, and of those that have.
#[derive(Default)]
struct Turns {
    /// Counts events: a turn taken, a commit over.
    clock: u64,
    /// Those who commit, by when they began.
    committing: BTreeSet<u64>,
    /// What is not told yet, by version and by when its commit was over.
    committed: BTreeMap<(u64, u64), Vec<Notification>>,
}

/// A transaction that is about to commit notifications.
pub(super) struct Turn {
    channels: Arc<Channels>,
    began: u64,
}

/// What a transaction asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Listen(String),
    Unlisten(String),
    UnlistenAll,
    Notify(Arc<str>, Arc<str>),
}

/// A session's part.
#[derive(Default)]
pub(super) struct Listening {
    pub mailbox: Arc<Mailbox>,
    pending: Vec<Pending>,
    /// The notifications among them, to find them by.
    notified: FxHashSet<(Arc<str>, Arc<str>)>,
    /// Bytes in them.
    bytes: usize,
    /// There are channels it listens on.
    listens: bool,
}

impl Mailbox {
    /// Who is told that there is something.
    pub fn set_wake(&self, wake: Wake) {
        self.inbox.lock().wake = Some(wake);
    }
    /// All there is.
    pub fn take(&self) -> Vec<Notification> {
        let mut inbox = self.inbox.lock();
        inbox.bytes = 0;
        inbox.waiting.drain(..).collect()
    }
    /// Names of the channels listened on.
    pub fn channels(&self) -> Vec<String> {
        self.inbox.lock().channels.iter().cloned().collect()
    }
    fn has_room_for(&self, bytes: usize) -> bool {
        self.inbox.lock().bytes + bytes <= MAILBOX_BYTES_MAX
    }
    /// What part of it is taken, from 0 to 1.
    pub fn usage(&self) -> f64 {
        self.inbox.lock().bytes as f64 / MAILBOX_BYTES_MAX as f64
    }

    fn put(&self, notification: &Notification) {
        let mut inbox = self.inbox.lock();
        if !inbox.channels.contains(&*notification.channel) {
            return;
        }
        if &*notification.channel == COMMITS && inbox.bytes + notification.bytes() > MAILBOX_BYTES_MAX {
            // Versions come unasked whether there is room: the newest is what counts.
            if let Some(newest) = inbox.waiting.iter_mut().rev().find(|n| n.channel == notification.channel) {
                newest.payload = notification.payload.clone();
            }
            return;
        }
        inbox.bytes += notification.bytes();
        inbox.waiting.push_back(notification.clone());
        let wake = inbox.wake.clone();
        drop(inbox);
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl Channels {
    /// Tells all who listen.
    pub fn tell(&self, notification: &Notification) {
        for mailbox in self.mailboxes() {
            mailbox.put(notification);
        }
    }
    /// Tells of a new version.
    pub fn tell_version(&self, version: u64) {
        let mailboxes = self.mailboxes();
        if mailboxes.is_empty() {
            return;
        }
        let told = Notification { channel: COMMITS.into(), payload: version.to_string().into(), pid: 0 };
        for mailbox in mailboxes {
            mailbox.put(&told);
        }
    }
    /// What part of the fullest mailbox is taken, from 0 to 1.
    pub fn usage(&self) -> f64 {
        self.mailboxes().iter().map(|m| m.usage()).fold(0.0, f64::max)
    }
    /// Before a commit with notifications.
    pub fn turn(self: &Arc<Self>) -> Turn {
        let mut turns = self.turns.lock();
        turns.clock += 1;
        let began = turns.clock;
        turns.committing.insert(began);
        Turn { channels: self.clone(), began }
    }
    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let mut listeners = self.listeners.lock();
        if listeners.is_empty() {
            return Vec::new();
        }
        listeners.retain(|m| m.strong_count() > 0);
        listeners.iter().filter_map(Weak::upgrade).collect()
    }
    fn join(&self, mailbox: &Arc<Mailbox>) {
        let mut listeners = self.listeners.lock();
        if !listeners.iter().any(|m| m.as_ptr() == Arc::as_ptr(mailbox)) {
            listeners.push(Arc::downgrade(mailbox));
        }
    }
    fn leave(&self, mailbox: &Arc<Mailbox>) {
        self.listeners.lock().retain(|m| m.as_ptr() != Arc::as_ptr(mailbox));
    }
}

impl Turn {
    /// The commit is over; what it notified is told before this returns.
    fn commit(self, version: u64, notifications: Vec<Notification>) {
        let channels = self.channels.clone();
        let mut turns = channels.turns.lock();
        turns.clock += 1;
        let key = (version, turns.clock);
        turns.committed.insert(key, notifications);
        turns.committing.remove(&self.began);
        channels.tell_committed(&mut turns);
        while turns.committed.contains_key(&key) {
            channels.told.wait(&mut turns);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.channels.turns.lock();
        // It failed: nobody waits for it any more.
        if turns.committing.remove(&self.began) {
            self.channels.tell_committed(&mut turns);
        }
    }
}

impl Channels {
    /// Tells what nobody can come before any more.
    fn tell_committed(&self, turns: &mut Turns) {
        while let Some((at, version)) = turns.committed.keys().map(|(version, at)| (*at, *version)).min() {
            if turns.committing.first().is_some_and(|began| *began < at) {
                break;
            }
            // Whoever commits now began after this commit was over, and becomes a newer version than it and than those below it.
            while let Some(entry) = turns.committed.first_entry().filter(|e| e.key().0 <= version) {
                entry.remove().iter().for_each(|notification| self.tell(notification));
            }
        }
        self.told.notify_all();
    }
}

impl Listening {
    /// Asks for something, to be done at the commit.
    pub fn ask(&mut self, what: Pending) {
        self.pending.push(what);
    }
    /// NOTIFY. The same channel and payload are told once a transaction.
    ///
    /// # Errors
    /// 22023 for a name or payload that cannot be, 42939 for the database's own channel.
    pub fn notify(&mut self, channel: &str, payload: &str) -> Result<()> {
        let invalid = |message: &str| Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
        if channel.is_empty() {
            return invalid("channel name cannot be empty");
        }
        if channel.len() > NAME_BYTES_MAX {
            return invalid("channel name too long");
        }
        if payload.len() >= PAYLOAD_BYTES {
            return invalid("payload string too long");
        }
        if channel == COMMITS {
            return Err(SqlError::new(
                state::RESERVED_NAME,
                format!("channel \"{COMMITS}\" tells of new versions only"),
            ));
        }
        let (channel, payload): (Arc<str>, Arc<str>) = (channel.into(), payload.into());
        if !self.notified.insert((channel.clone(), payload.clone())) {
            return Ok(());
        }
        let bytes = size_of::<Notification>() + channel.len() + payload.len();
        if self.bytes + bytes > PENDING_BYTES_MAX {
            self.notified.remove(&(channel, payload));
            return Err(too_many());
        }
        self.bytes += bytes;
        self.pending.push(Pending::Notify(channel, payload));
        Ok(())
    }
    /// A place to go back to: a savepoint's.
    pub fn mark(&self) -> usize {
        self.pending.len()
    }
    /// Forgets what was asked for since a mark.
    pub fn undo_to(&mut self, mark: usize) {
        for undone in self.pending.drain(mark..) {
            if let Pending::Notify(channel, payload) = undone {
                self.bytes -= size_of::<Notification>() + channel.len() + payload.len();
                self.notified.remove(&(channel, payload));
            }
        }
    }
    /// Whether the transaction notifies.
    pub fn notifies(&self) -> bool {
        !self.notified.is_empty()
    }
    /// Whether it listens on a channel.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// Fails if somebody has too much unread to be told more. Before the commit.
    ///
    /// # Errors
    /// 54000.
    pub fn check_room(&self, channels: &Channels) -> Result<()> {
        if self.bytes > 0 && !channels.mailboxes().iter().all(|m| m.has_room_for(self.bytes)) {
            return Err(too_many());
        }
        Ok(())
    }
    /// Does what was asked for. After the commit, which made a version; with the turn taken before it if there are notifications.
    pub fn commit(&mut self, channels: &Channels, pid: i32, turn: Option<Turn>, version: u64) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        (self.notified, self.bytes) = (FxHashSet::default(), 0);
        for change in &pending {
            match change {
                Pending::Listen(channel) => {
                    self.mailbox.inbox.lock().channels.insert(channel.clone());
                    channels.join(&self.mailbox);
                }
                Pending::Unlisten(channel) => {
                    self.mailbox.inbox.lock().channels.remove(channel);
                }
                Pending::UnlistenAll => self.mailbox.inbox.lock().channels.clear(),
                Pending::Notify(..) => {}
            }
        }
        self.listens = !self.mailbox.inbox.lock().channels.is_empty();
        if !self.listens {
            channels.leave(&self.mailbox);
        }
        let notification = |change| match change {
            Pending::Notify(channel, payload) => Some(Notification { channel, payload, pid }),
            _ => None,
        };
        if let Some(turn) = turn {
            turn.commit(version, pending.into_iter().filter_map(notification).collect());
        }
    }
}

fn too_many() -> SqlError {
    SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "too many notifications in the NOTIFY queue")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(one: &mut Listening, channels: &Arc<Channels>, pid: i32) {
        let turn = one.notifies().then(|| channels.turn());
        one.commit(channels, pid, turn, 0);
    }

    #[test]
    fn what_is_asked_for_happens_at_the_commit() {
        let channels = Arc::new(Channels::default());
        let (mut one, mut two) = (Listening::default(), Listening::default());
        one.ask(Pending::Listen("a".into()));
        two.notify("a", "too early").unwrap();
        commit(&mut two, &channels, 2);
        commit(&mut one, &channels, 1);
        assert_eq!(one.mailbox.take(), []);
        let mark = two.mark();
        two.notify("a", "undone").unwrap();
        two.undo_to(mark);
        two.notify("a", "x").unwrap();
        two.notify("a", "x").unwrap();
        two.notify("b", "nobody hears").unwrap();
        commit(&mut two, &channels, 2);
        assert_eq!(one.mailbox.take(), [Notification { channel: "a".into(), payload: "x".into(), pid: 2 }]);
        one.ask(Pending::UnlistenAll);
        commit(&mut one, &channels, 1);
        assert!(channels.mailboxes().is_empty());
        assert!(two.notify(COMMITS, "7").is_err() && two.notify("", "").is_err());
        assert!(two.notify("a", &"x".repeat(8000)).is_err() && two.notify(&"a".repeat(64), "").is_err());
    }

    #[test]
    fn a_mailbox_nobody_empties_is_bounded_and_keeps_the_newest_version() {
        let channels = Arc::new(Channels::default());
        let (mut one, mut two) = (Listening::default(), Listening::default());
        for channel in [COMMITS, "a"] {
            one.ask(Pending::Listen(channel.into()));
        }
        commit(&mut one, &channels, 1);
        channels.tell_version(5);
        let mut told = 0;
        let refused = loop {
            two.notify("a", &format!("{told:07999}")).unwrap();
            if let Err(e) = two.check_room(&channels) {
                break e;
            }
            commit(&mut two, &channels, 2);
            told += 1;
        };
        assert_eq!(refused.state(), "54000");
        for version in 6..100_000 {
            channels.tell_version(version);
        }
        let waiting = one.mailbox.take();
        assert!(waiting.iter().map(Notification::bytes).sum::<usize>() <= MAILBOX_BYTES_MAX);
        let versions: Vec<&str> = waiting.iter().filter(|n| &*n.channel == COMMITS).map(|n| &*n.payload).collect();
        assert_eq!((versions.first(), versions.last()), (Some(&"5"), Some(&"99999")));
        assert!(told > 900 && one.mailbox.usage() == 0.0);
    }

    /// Notifications of three commits that overlap: told by version, however their sessions are scheduled, and each before its session goes on.
    #[test]
    fn notifications_are_told_in_the_order_of_versions() {
        let channels = Arc::new(Channels::default());
        let mut listener = Listening::default();
        listener.ask(Pending::Listen("a".into()));
        commit(&mut listener, &channels, 1);
        let session = |payload: &str| {
            let mut session = Listening::default();
            session.notify("a", payload).unwrap();
            (session, channels.turn())
        };
        let (mut slow, slow_turn) = session("version 1");
        let (mut quick, quick_turn) = session("version 2");
        let (failed, failed_turn) = session("never");
        std::thread::scope(|scope| {
            let first_over = scope.spawn(|| quick.commit(&channels, 2, Some(quick_turn), 2));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!first_over.is_finished() && listener.mailbox.take().is_empty());
            scope.spawn(|| slow.commit(&channels, 3, Some(slow_turn), 1));
            std::thread::sleep(std::time::Duration::from_millis(50));
            // The third may still become version 0, for all anybody knows.
            assert!(!first_over.is_finished() && listener.mailbox.take().is_empty());
            // Whoever begins now comes later.
            let (mut late, late_turn) = session("version 3");
            drop((failed, failed_turn));
            first_over.join().unwrap();
            late.commit(&channels, 4, Some(late_turn), 3);
        });
        let told: Vec<_> = listener.mailbox.take().iter().map(|n| n.payload.to_string()).collect();
        assert_eq!(told, ["version 1", "version 2", "version 3"]);
    }

    #[test]
    fn a_thousand_notifications_are_told_once_each_and_a_transaction_is_bounded() {
        let mut one = Listening::default();
        for i in 0..200_000 {
            one.notify("a", &(i % 100_000).to_string()).unwrap();
        }
        assert_eq!(one.pending.len(), 100_000);
        let mark = one.mark();
        one.notify("a", "more").unwrap();
        one.undo_to(mark);
        one.notify("a", "more").unwrap();
        assert_eq!(one.pending.len(), 100_001);
        one.undo_to(0);
        assert!(!one.notifies() && one.bytes == 0);
        let refused = (0..).find_map(|i| one.notify("a", &format!("{i:07999}")).err()).expect("it is bounded");
        assert_eq!(refused.state(), "54000");
        assert!(one.bytes <= PENDING_BYTES_MAX);
    }
}
