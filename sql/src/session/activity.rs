//! Who is connected, what each of them does, and how to make them stop: the registry behind pg_stat_activity, pg_stat_database, pg_cancel_backend() and pg_terminate_backend().
//!
//! ```text
//! Session    begins a message -> active, with its text     Activity    one a session: a few atomics, and the text under a lock of its own
//!            has answered it  -> idle, as its block says    Activities  all of the instance, by process id; what sessions that left had counted
//! server     waits for the client, writes to it             Signals     others: cancel (the statement ends), end (the session ends)
//! ```
//!
//! What must stay true:
//!
//! * a statement pays for two clocks, one uncontended lock and one copy of at most [`TEXT_BYTES_MAX`] bytes, whoever looks on: no lock of the instance is taken;
//! * a session that was told to end does not forget it: a cancel is forgotten when the next message begins, an end never;
//! * who is in the registry has a session; it leaves when that is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::listen::Wake;
use super::shared::{Shared, sql_micros, unix_micros};
use crate::error::{Result, SqlError, state};
use crate::functions::context::CancelFlag;

/// Bytes of a statement's text that are shown: one less than track_activity_query_size, which cannot be changed.
pub(super) const TEXT_BYTES_MAX: usize = 1023;
/// SQLSTATE of a connection whose client is gone.
const CONNECTION_FAILURE: &str = "08006";
/// How long who waits for another session's end goes without looking for a cancel.
const POLL: Duration = Duration::from_millis(20);

/// What a session is doing: pg_stat_activity.state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionState {
    /// It waits for a command.
    Idle,
    /// It runs one.
    Active,
    /// It waits for a command inside of a transaction block.
    IdleInTransaction,
    /// The same, and the block has failed.
    Aborted,
}

impl SessionState {
    const ALL: [SessionState; 4] =
        [SessionState::Idle, SessionState::Active, SessionState::IdleInTransaction, SessionState::Aborted];

    /// As pg_stat_activity shows it.
    pub fn name(self) -> &'static str {
        match self {
            SessionState::Idle => "idle",
            SessionState::Active => "active",
            SessionState::IdleInTransaction => "idle in transaction",
            SessionState::Aborted => "idle in transaction (aborted)",
        }
    }
}

/// What a session waits for, apart from locks, which the lock manager knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitEvent {
    /// Nothing.
    None,
    /// The client's next message.
    ClientRead,
    /// The client's reading what was sent.
    ClientWrite,
    /// pg_sleep().
    Sleep,
    /// The disk, at a commit.
    Commit,
    /// A version that is to come: bee_wait_for().
    Version,
}

impl WaitEvent {
    const ALL: [WaitEvent; 6] = [
        WaitEvent::None,
        WaitEvent::ClientRead,
        WaitEvent::ClientWrite,
        WaitEvent::Sleep,
        WaitEvent::Commit,
        WaitEvent::Version,
    ];

    /// wait_event_type and wait_event.
    fn names(self) -> Option<(&'static str, &'static str)> {
        match self {
            WaitEvent::None => None,
            WaitEvent::ClientRead => Some(("Client", "ClientRead")),
            WaitEvent::ClientWrite => Some(("Client", "ClientWrite")),
            WaitEvent::Sleep => Some(("Timeout", "PgSleep")),
            WaitEvent::Commit => Some(("IO", "WALSync")),
            WaitEvent::Version => Some(("IPC", "BeeVersion")),
        }
    }
}

/// Why a session ends without its client having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// pg_terminate_backend(), or the server stops.
    Administrator = 1,
    /// Its client is gone.
    ClientGone = 2,
}

impl End {
    /// What the session's statement fails with, and its client is told if it is there.
    pub fn error(self) -> SqlError {
        match self {
            End::Administrator => {
                SqlError::new(state::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
            }
            End::ClientGone => SqlError::new(CONNECTION_FAILURE, "connection to client lost"),
        }
    }
}

/// One session, as others see it.
pub struct Activity {
    pid: i32,
    database: String,
    user: String,
    client: Option<SocketAddr>,
    started: i64,
    cancel: Arc<CancelFlag>,
    session: OnceLock<Weak<Shared>>,
    /// Called when the session is to end: who serves it may be waiting for its client.
    wake: Mutex<Option<Wake>>,
    end: AtomicU8,
    state: AtomicU8,
    wait: AtomicU8,
    // Microseconds since 2000; 0 is never.
    transaction_start: AtomicI64,
    query_start: AtomicI64,
    state_change: AtomicI64,
    query: Mutex<String>,
    counted: Counted,
}

/// What a session has counted. Only its own thread writes, so nothing is contended.
#[derive(Default)]
struct Counted {
    commits: AtomicU64,
    rollbacks: AtomicU64,
    deadlocks: AtomicU64,
    active_micros: AtomicU64,
    idle_in_transaction_micros: AtomicU64,
}

/// A row of pg_stat_activity.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    /// Process id, as its client was told.
    pub pid: i32,
    /// Name of its database.
    pub database: String,
    /// Name of its role.
    pub user: String,
    /// application_name.
    pub application: String,
    /// Address and port of its client.
    pub client: Option<SocketAddr>,
    /// What follows is the asker's to know.
    pub is_visible: bool,
    /// When it connected, in microseconds since 2000.
    pub started: i64,
    /// When its transaction began.
    pub transaction_start: Option<i64>,
    /// When its statement began, or the last one if none runs.
    pub query_start: Option<i64>,
    /// When its state became what it is.
    pub state_change: Option<i64>,
    /// What it does.
    pub state: SessionState,
    /// wait_event_type and wait_event.
    pub wait: Option<(&'static str, &'static str)>,
    /// Number of its transaction, if that has written.
    pub transaction: Option<u32>,
    /// Text of its statement, cut.
    pub query: String,
}

/// A row of pg_stat_database.
#[derive(Clone, Debug, Default)]
pub struct DatabaseStatus {
    /// Its name.
    pub database: String,
    /// Sessions connected now.
    pub sessions_now: i32,
    /// What they and those before them counted.
    pub totals: Totals,
}

/// What all sessions of a database counted since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions rolled back.
    pub rollbacks: u64,
    /// Deadlocks that one of their statements was given up for.
    pub deadlocks: u64,
    /// Microseconds that sessions existed.
    pub session_micros: u64,
    /// Microseconds that statements ran.
    pub active_micros: u64,
    /// Microseconds that blocks waited for their client.
    pub idle_in_transaction_micros: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions whose client was lost.
    pub abandoned: u64,
    /// Sessions an administrator ended.
    pub killed: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.commits += other.commits;
        self.rollbacks += other.rollbacks;
        self.deadlocks += other.deadlocks;
        self.session_micros += other.session_micros;
        self.active_micros += other.active_micros;
        self.idle_in_transaction_micros += other.idle_in_transaction_micros;
        self.sessions += other.sessions;
        self.abandoned += other.abandoned;
        self.killed += other.killed;
    }
}

/// All sessions of an instance.
#[derive(Default)]
pub(super) struct Activities {
    inner: Mutex<Inner>,
    left: Condvar,
}

#[derive(Default)]
struct Inner {
    /// By process id, and a number of our own: only a server gives ids that differ.
    sessions: BTreeMap<(i32, u64), Arc<Activity>>,
    next: u64,
    /// What those who left had counted, by database.
    before: BTreeMap<String, Totals>,
}

fn now() -> i64 {
    sql_micros(unix_micros())
}

fn moment(micros: &AtomicI64) -> Option<i64> {
    Some(micros.load(Ordering::Relaxed)).filter(|m| *m != 0)
}

/// As much of a text as is shown, whole characters.
fn clipped(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Activity {
    pub(super) fn new(
        (pid, database, user): (i32, &str, &str),
        client: Option<SocketAddr>,
        cancel: Arc<CancelFlag>,
    ) -> Activity {
        let at = now();
        Activity {
            pid,
            database: database.to_owned(),
            user: user.to_owned(),
            client,
            started: at,
            cancel,
            session: OnceLock::new(),
            wake: Mutex::default(),
            end: AtomicU8::new(0),
            state: AtomicU8::new(SessionState::Idle as u8),
            wait: AtomicU8::new(WaitEvent::ClientRead as u8),
            transaction_start: AtomicI64::new(0),
            query_start: AtomicI64::new(0),
            state_change: AtomicI64::new(at),
            query: Mutex::default(),
            counted: Counted::default(),
        }
    }
    /// Whose it is, once that is made.
    pub(super) fn belongs_to(&self, session: &Arc<Shared>) {
        let _ = self.session.set(Arc::downgrade(session));
    }

    /// Name of its role.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    // What the session tells.

    /// A message with a statement has come.
    pub(super) fn begin(&self, text: &str) {
        let at = now();
        if matches!(self.state(), SessionState::IdleInTransaction | SessionState::Aborted) {
            self.spent(&self.counted.idle_in_transaction_micros, at);
        }
        {
            let mut query = self.query.lock();
            query.clear();
            query.push_str(clipped(text));
        }
        self.wait.store(WaitEvent::None as u8, Ordering::Relaxed);
        self.query_start.store(at, Ordering::Relaxed);
        self.state_change.store(at, Ordering::Relaxed);
        self.state.store(SessionState::Active as u8, Ordering::Relaxed);
    }
    /// It was answered.
    pub(super) fn rest(&self, state: SessionState) {
        let at = now();
        if self.state() == SessionState::Active {
            self.spent(&self.counted.active_micros, at);
        }
        self.state_change.store(at, Ordering::Relaxed);
        self.state.store(state as u8, Ordering::Relaxed);
        self.wait.store(WaitEvent::ClientRead as u8, Ordering::Relaxed);
    }
    fn spent(&self, sum: &AtomicU64, now: i64) {
        let since = now.saturating_sub(self.state_change.load(Ordering::Relaxed));
        add(sum, u64::try_from(since).unwrap_or(0));
    }
    pub(super) fn begin_transaction(&self, at: i64) {
        self.transaction_start.store(at, Ordering::Relaxed);
    }
    /// It has failed: what it did is undone, though its block goes on.
    pub(super) fn fail_transaction(&self) {
        self.transaction_start.store(0, Ordering::Relaxed);
    }
    pub(super) fn end_transaction(&self, committed: bool) {
        self.transaction_start.store(0, Ordering::Relaxed);
        add(if committed { &self.counted.commits } else { &self.counted.rollbacks }, 1);
    }

    /// Its statement was given up so that others could go on.
    pub(super) fn was_deadlocked(&self) {
        add(&self.counted.deadlocks, 1);
    }
    /// What was done before there was a client does not count.
    pub(super) fn begin_counting(&self) {
        self.counted.rollbacks.store(0, Ordering::Relaxed);
    }

    // What the server tells.

    /// What is waited for from now on; [`WaitEvent::None`] when that is over.
    pub fn wait(&self, event: WaitEvent) {
        self.wait.store(event as u8, Ordering::Relaxed);
    }
    /// Who is called, in any thread, when the session is to end.
    pub fn on_end(&self, wake: Wake) {
        *self.wake.lock() = Some(wake);
    }
    /// Why the session is to end, if it is.
    pub fn ending(&self) -> Option<End> {
        match self.end.load(Ordering::Acquire) {
            1 => Some(End::Administrator),
            2 => Some(End::ClientGone),
            _ => None,
        }
    }
    /// How long its statement has been running, if one does; and how often its client is to be looked for meanwhile, if it is.
    pub fn running(&self) -> Option<(Duration, Option<Duration>)> {
        if self.state() != SessionState::Active {
            return None;
        }
        let micros = now().saturating_sub(self.query_start.load(Ordering::Relaxed));
        let session = self.session.get()?.upgrade()?;
        let interval = session.settings.lock().derived().client_check;
        Some((Duration::from_micros(u64::try_from(micros).unwrap_or(0)), interval))
    }

    // What others do.

    /// Stops the statement that runs, if one does.
    pub fn cancel(&self) {
        self.cancel.raise(SqlError::new(state::QUERY_CANCELED, "canceling statement due to user request"));
    }
    /// Ends the session: its statement fails, and who serves it is woken.
    pub fn terminate(&self, end: End) {
        // The first reason stays.
        let _ = self.end.compare_exchange(0, end as u8, Ordering::AcqRel, Ordering::Acquire);
        self.cancel.raise(end.error());
        let wake = self.wake.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    fn state(&self) -> SessionState {
        SessionState::ALL[usize::from(self.state.load(Ordering::Relaxed)) % SessionState::ALL.len()]
    }
    fn totals(&self) -> Totals {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let ending = self.ending();
        Totals {
            commits: count(&self.counted.commits),
            rollbacks: count(&self.counted.rollbacks),
            deadlocks: count(&self.counted.deadlocks),
            session_micros: u64::try_from(now().saturating_sub(self.started)).unwrap_or(0),
            active_micros: count(&self.counted.active_micros),
            idle_in_transaction_micros: count(&self.counted.idle_in_transaction_micros),
            sessions: 1,
            abandoned: u64::from(ending == Some(End::ClientGone)),
            killed: u64::from(ending == Some(End::Administrator)),
        }
    }
    /// What is shown of it. Takes locks of its session: not to be called with one of the instance.
    fn status(&self, is_visible: bool) -> SessionStatus {
        let session = self.session.get().and_then(Weak::upgrade);
        let application = session.as_ref().map(|s| s.settings.lock().derived().application_name.clone());
        let state = self.state();
        let mut event = WaitEvent::ALL[usize::from(self.wait.load(Ordering::Relaxed)) % WaitEvent::ALL.len()];
        if state != SessionState::Active {
            // The last of its answer may be on its way still.
            event = WaitEvent::ClientRead;
        }
        let lock = session.as_ref().filter(|_| state == SessionState::Active).and_then(|s| s.lock_wait());
        SessionStatus {
            pid: self.pid,
            database: self.database.clone(),
            user: self.user.clone(),
            application: application.unwrap_or_default(),
            client: self.client,
            is_visible,
            started: self.started,
            transaction_start: moment(&self.transaction_start),
            query_start: moment(&self.query_start),
            state_change: moment(&self.state_change),
            state,
            wait: lock.or(event.names()),
            transaction: session.as_ref().and_then(|s| s.writing_transaction()),
            query: self.query.lock().clone(),
        }
    }
}

/// Adds to a number that only this thread changes.
fn add(sum: &AtomicU64, more: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Activities {
    /// One more; the number to leave with.
    pub fn enter(&self, activity: &Arc<Activity>) -> u64 {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let number = inner.next;
        inner.sessions.insert((activity.pid, number), activity.clone());
        number
    }
    /// One less: what it counted is kept.
    pub fn leave(&self, activity: &Activity, number: u64) {
        let mut inner = self.inner.lock();
        if inner.sessions.remove(&(activity.pid, number)).is_some() {
            inner.before.entry(activity.database.clone()).or_default().add(&activity.totals());
        }
        drop(inner);
        self.left.notify_all();
    }
    /// All there are, by process id.
    pub fn all(&self) -> Vec<Arc<Activity>> {
        self.inner.lock().sessions.values().cloned().collect()
    }
    /// Those of a database.
    pub fn of_database(&self, name: &str) -> Vec<Arc<Activity>> {
        self.inner.lock().sessions.values().filter(|a| a.database == name).cloned().collect()
    }
    /// The one with this process id.
    pub fn find(&self, pid: i32) -> Option<Arc<Activity>> {
        self.inner.lock().sessions.range((pid, 0)..=(pid, u64::MAX)).next().map(|(_, a)| a.clone())
    }
    /// What a role may see of each.
    pub fn statuses(&self, is_visible: impl Fn(&str) -> bool) -> Vec<SessionStatus> {
        self.all().iter().map(|a| a.status(is_visible(&a.user))).collect()
    }
    /// What was counted in each of these databases.
    pub fn databases(&self, names: Vec<String>) -> Vec<DatabaseStatus> {
        let inner = self.inner.lock();
        let status = |name: String| {
            let mut totals = inner.before.get(&name).copied().unwrap_or_default();
            let mut sessions_now = 0;
            for activity in inner.sessions.values().filter(|a| a.database == name) {
                totals.add(&activity.totals());
                sessions_now += 1;
            }
            DatabaseStatus { database: name, sessions_now, totals }
        };
        names.into_iter().map(status).collect()
    }
    /// What was counted in a database that is gone is forgotten.
    pub fn forget(&self, database: &str) {
        self.inner.lock().before.remove(database);
    }
    /// Waits until none of these is there any more; false when the time is over first.
    ///
    /// # Errors
    /// The asker was cancelled.
    pub fn wait_gone(&self, those: &[Arc<Activity>], limit: Duration, cancel: &CancelFlag) -> Result<bool> {
        let end = Instant::now() + limit;
        let mut inner = self.inner.lock();
        loop {
            if !inner.sessions.values().any(|a| those.iter().any(|t| Arc::ptr_eq(a, t))) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.left.wait_for(&mut inner, left.min(POLL));
            cancel.check()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(pid: i32, database: &str) -> Arc<Activity> {
        Arc::new(Activity::new((pid, database, "postgres"), None, Arc::default()))
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(clipped("abc"), "abc");
        let long = "ä".repeat(1000);
        assert_eq!((clipped(&long).len(), clipped(&"x".repeat(5000)).len()), (1022, TEXT_BYTES_MAX));
    }

    #[test]
    fn states_follow_the_messages() {
        let all = Activities::default();
        let one = session(7, "a");
        let number = all.enter(&one);
        let shown = || all.statuses(|_| true).remove(0);
        assert_eq!(
            (shown().state, shown().wait, shown().query_start),
            (SessionState::Idle, Some(("Client", "ClientRead")), None)
        );
        one.begin("BEGIN");
        one.begin_transaction(5);
        assert_eq!((shown().state, shown().wait, shown().query.as_str()), (SessionState::Active, None, "BEGIN"));
        one.wait(WaitEvent::Commit);
        assert_eq!(shown().wait, Some(("IO", "WALSync")));
        one.rest(SessionState::IdleInTransaction);
        assert_eq!((shown().state.name(), shown().transaction_start), ("idle in transaction", Some(5)));
        one.begin("COMMIT");
        one.end_transaction(true);
        one.rest(SessionState::Idle);
        assert_eq!((shown().transaction_start, shown().query.as_str()), (None, "COMMIT"));
        let before = all.databases(vec!["a".into()]).remove(0);
        all.leave(&one, number);
        let after = all.databases(vec!["a".into()]).remove(0);
        assert_eq!((before.sessions_now, after.sessions_now), (1, 0));
        assert_eq!((before.totals.commits, after.totals.commits, after.totals.sessions), (1, 1, 1));
    }

    #[test]
    fn who_is_to_end_is_woken_and_does_not_forget_it() {
        let all = Activities::default();
        let (one, other) = (session(1, "a"), session(2, "a"));
        let (first, second) = (all.enter(&one), all.enter(&other));
        let woken = Arc::new(AtomicU64::new(0));
        let count = woken.clone();
        one.on_end(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let found = all.find(1).expect("it is there");
        assert!(all.find(3).is_none());
        found.terminate(End::Administrator);
        found.terminate(End::ClientGone);
        one.cancel.reset();
        assert_eq!((woken.load(Ordering::Relaxed), one.ending()), (2, Some(End::Administrator)));
        let asker = CancelFlag::default();
        let gone = std::slice::from_ref(&found);
        assert!(!all.wait_gone(gone, Duration::from_millis(30), &asker).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                all.leave(&one, first);
            });
            assert!(all.wait_gone(gone, Duration::from_secs(10), &asker).unwrap());
        });
        assert_eq!(all.databases(vec!["a".into()])[0].totals.killed, 1);
        asker.raise(SqlError::new(state::QUERY_CANCELED, "enough"));
        assert!(all.wait_gone(std::slice::from_ref(&other), Duration::from_secs(10), &asker).is_err());
        all.leave(&other, second);
    }

    /// A message costs what the file's head says: the bound is for a build without optimisation on a busy machine.
    #[test]
    fn a_message_costs_next_to_nothing() {
        let one = session(1, "a");
        let text = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
        // The best of many short rounds: what else the machine does is not looked at.
        let round = |_| {
            let start = Instant::now();
            for _ in 0..1_000 {
                one.begin(text);
                one.rest(SessionState::Idle);
            }
            start.elapsed() / 1_000
        };
        let each = (0..100).map(round).min().expect("there are rounds");
        eprintln!("{each:?} a message");
        assert!(each < Duration::from_micros(20), "{each:?}");
    }
}
