//! LISTEN and NOTIFY: the channels of one database, in memory.
//!
//! ```text
//! session   pending: what the transaction asked for; done at its commit, forgotten with it or with its savepoint
//! mailbox   what was told to a session and not delivered yet; bounded
//! channels  the mailboxes of a database's sessions that listen
//! ```
//!
//! Channel [`COMMITS`] is told by the database itself: every new version, made here or come from the writer that is followed, is a notification whose payload is the version. When
//! many commits become visible at once, the newest is told.
//!
//! What must stay true: what a transaction notifies is told after its commit, whole and in order, also to itself; nobody is told anything inside of a transaction block;
//! a mailbox that nobody empties stays bounded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::{Result, SqlError, state};

/// The channel of new versions.
pub const COMMITS: &str = "bee_commit";
/// Bytes that may wait for a session.
const MAILBOX_BYTES_MAX: usize = 8 << 20;
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
        if inbox.bytes + notification.bytes() > MAILBOX_BYTES_MAX {
            // Only versions come unasked whether there is room: the newest is what counts.
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
        let asked = Pending::Notify(channel.into(), payload.into());
        if !self.pending.contains(&asked) {
            self.pending.push(asked);
        }
        Ok(())
    }
    /// A place to go back to: a savepoint's.
    pub fn mark(&self) -> usize {
        self.pending.len()
    }
    /// Forgets what was asked for since a mark.
    pub fn undo_to(&mut self, mark: usize) {
        self.pending.truncate(mark);
    }

    /// Fails if somebody has too much unread to be told more. Before the commit.
    ///
    /// # Errors
    /// 54000.
    pub fn check_room(&self, channels: &Channels) -> Result<()> {
        let told = |p: &Pending| match p {
            Pending::Notify(channel, payload) => size_of::<Notification>() + channel.len() + payload.len(),
            _ => 0,
        };
        let bytes: usize = self.pending.iter().map(told).sum();
        if bytes > 0 && !channels.mailboxes().iter().all(|m| m.has_room_for(bytes)) {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "too many notifications in the NOTIFY queue"));
        }
        Ok(())
    }
    /// Does what was asked for. After the commit.
    pub fn commit(&mut self, channels: &Channels, pid: i32) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
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
        if self.mailbox.inbox.lock().channels.is_empty() {
            channels.leave(&self.mailbox);
        }
        for change in pending {
            if let Pending::Notify(channel, payload) = change {
                channels.tell(&Notification { channel, payload, pid });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_happens_at_the_commit() {
        let channels = Channels::default();
        let (mut one, mut two) = (Listening::default(), Listening::default());
        one.ask(Pending::Listen("a".into()));
        two.notify("a", "too early").unwrap();
        two.commit(&channels, 2);
        one.commit(&channels, 1);
        assert_eq!(one.mailbox.take(), []);
        let mark = two.mark();
        two.notify("a", "undone").unwrap();
        two.undo_to(mark);
        two.notify("a", "x").unwrap();
        two.notify("a", "x").unwrap();
        two.notify("b", "nobody hears").unwrap();
        two.commit(&channels, 2);
        assert_eq!(one.mailbox.take(), [Notification { channel: "a".into(), payload: "x".into(), pid: 2 }]);
        one.ask(Pending::UnlistenAll);
        one.commit(&channels, 1);
        assert!(channels.mailboxes().is_empty());
        assert!(two.notify(COMMITS, "7").is_err() && two.notify("", "").is_err());
        assert!(two.notify("a", &"x".repeat(8000)).is_err() && two.notify(&"a".repeat(64), "").is_err());
    }

    #[test]
    fn a_mailbox_nobody_empties_is_bounded_and_keeps_the_newest_version() {
        let channels = Channels::default();
        let (mut one, mut two) = (Listening::default(), Listening::default());
        for channel in [COMMITS, "a"] {
            one.ask(Pending::Listen(channel.into()));
        }
        one.commit(&channels, 1);
        channels.tell_version(5);
        let mut told = 0;
        let refused = loop {
            two.notify("a", &format!("{told:07999}")).unwrap();
            if let Err(e) = two.check_room(&channels) {
                break e;
            }
            two.commit(&channels, 2);
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
}
