//! What a session and the functions its statements call have in common: settings, the transaction, sequences.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pgbee_engine::txn::{Database, Snapshot};
use pgbee_engine::{CoreKey, Error as EngineError, Version};
use rustc_hash::FxHashMap;

use super::activity::{Activity, DatabaseStatus, End, SessionStatus, WaitEvent};
use super::foreign::SessionBees;
use super::instance::{Db, Instance, SUPERUSER_NAME};
use super::listen::Listening;
use super::outcome::Notice;
use super::settings::{IsolationLevel, Settings};
use crate::bind::AsOfResolver;
use crate::catalog::bee_views::not_a_version;
use crate::catalog::ddl::DdlHost;
use crate::catalog::schema::Relation;
use crate::catalog::{Catalog, Sequence};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::follow::{CoreStatus, PeerStatus, ProgressStatus, Swarm, TopicStatus};
use crate::foreign::ForeignBee;
use crate::functions::Services;
use crate::functions::context::CancelFlag;
use crate::lock::{AdvisoryKey, LockStatus};
use crate::lock::{Got, Patience, TableMode};
use crate::wait::Waiting;
use crate::write::TxnHandle;
use crate::write::sequence::{SequenceState, Taken};

/// SQLSTATE of a warning.
const WARNING: &str = "01000";
/// SQLSTATE of what a role may not do.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Seconds between 1970 and 2000, where SQL's time begins.
const EPOCH_2000_SECONDS: i64 = 946_684_800;

/// Now, in microseconds since 1970-01-01 UTC: the engine's time.
pub(super) fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Engine time as SQL time (microseconds since 2000-01-01 UTC).
pub(super) fn sql_micros(unix_micros: i64) -> i64 {
    unix_micros - EPOCH_2000_SECONDS * 1_000_000
}

/// What the statement at hand reads and may do.
pub(super) struct Current {
    pub catalog: Arc<Catalog>,
    pub version: u64,
    pub read_only: bool,
    pub isolation: IsolationLevel,
    /// Whether it is DEFERRABLE.
    pub deferrable: bool,
}

/// Sequences as this session used them.
#[derive(Default)]
pub(super) struct SequenceUse {
    last: FxHashMap<u32, i64>,
    latest: Option<u32>,
    /// Those whose state is part of the open transaction.
    pub own: Vec<u32>,
    /// What CACHE has the session keep.
    taken: FxHashMap<u32, Taken>,
}

impl SequenceUse {
    /// DISCARD SEQUENCES.
    pub fn forget(&mut self) {
        (self.last, self.latest) = (FxHashMap::default(), None);
        self.taken.clear();
    }
}

/// Shared by a session and its statements.
pub(super) struct Shared {
    pub instance: Arc<Instance>,
    pub db: Arc<Db>,
    /// The database as this session reads it: on a follower, through a source that waits for peers.
    pub database: Arc<Database>,
    /// How this session waits for peers.
    pub waiting: Arc<Waiting>,
    pub listening: Mutex<Listening>,
    pub backend_pid: i32,
    pub settings: Mutex<Settings>,
    pub txn: TxnHandle,
    pub sequences: Mutex<SequenceUse>,
    pub notices: Mutex<Vec<Notice>>,
    pub cancel: Arc<CancelFlag>,
    /// What others see of this session.
    pub activity: Arc<Activity>,
    /// Its role.
    pub user: String,
    pub current: Mutex<Current>,
    /// The statement asked what the database defines.
    pub has_read_definitions: AtomicBool,
    /// Number of the transaction: txid_current().
    pub transaction_id: AtomicU64,
    /// Bees of others that this session reads.
    pub foreign: SessionBees,
}

impl Shared {
    fn sequence(&self, oid: u32) -> Result<Arc<Sequence>> {
        match self.current.lock().catalog.by_oid(oid) {
            Some(Relation::Sequence(s)) => Ok(s.clone()),
            Some(other) => {
                Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a sequence", other.name())))
            }
            None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation with OID {oid} does not exist"))),
        }
    }
    /// The sequence as it is once nobody alters it any more: it is locked until the transaction ends, as in PostgreSQL.
    fn locked_sequence(&self, sequence: Arc<Sequence>) -> Result<Arc<Sequence>> {
        if self.txn.locks().table(sequence.oid, TableMode::RowExclusive, Patience::Wait)? == Got::Had {
            return Ok(sequence);
        }
        match self.db.catalog(&self.database.snapshot())?.by_oid(sequence.oid) {
            Some(Relation::Sequence(now)) => Ok(now.clone()),
            _ => {
                let message = format!("could not open relation with OID {}", sequence.oid);
                Err(SqlError::new(state::UNDEFINED_TABLE, message))
            }
        }
    }
    /// What messages call a relation.
    pub fn relation_name(&self, oid: u32) -> Option<String> {
        Some(self.current.lock().catalog.by_oid(oid)?.name().to_owned())
    }
    /// The next value of a sequence: one the session keeps, if it does.
    fn take(&self, sequence: &Arc<Sequence>) -> Result<i64> {
        let all = &self.db.sequences;
        if sequence.cache > 1
            && let Some(value) = self.sequences.lock().taken.get_mut(&sequence.oid).and_then(|taken| taken.take())
        {
            return Ok(value);
        }
        let (value, taken) = all.next(sequence, &self.db.database, unix_micros())?;
        if sequence.cache > 1 {
            self.sequences.lock().taken.insert(sequence.oid, taken);
        }
        Ok(value)
    }
    fn refuse_read_only(&self, what: &str) -> Result<()> {
        if self.current.lock().read_only {
            return Err(self.read_only(what));
        }
        Ok(())
    }
    /// 25006, and on a follower why it is so.
    pub fn read_only(&self, what: &str) -> SqlError {
        let message = format!("cannot execute {what} in a read-only transaction");
        let error = SqlError::new(state::READ_ONLY_SQL_TRANSACTION, message);
        if !self.is_follower() {
            return error;
        }
        error.detail(format!("Database \"{}\" follows a remote bee: only its writer changes it.", self.db.name))
    }
    /// Number of the transaction, if it has written.
    pub fn writing_transaction(&self) -> Option<u32> {
        self.txn.is_open().then(|| self.transaction_id.load(Ordering::Relaxed) as u32)
    }
    /// wait_event_type and wait_event of the lock that is waited for.
    pub fn lock_wait(&self) -> Option<(&'static str, &'static str)> {
        Some(("Lock", self.txn.locks().wait_event()?))
    }
    fn is_superuser(&self) -> bool {
        self.user == SUPERUSER_NAME
    }
    pub fn warn(&self, message: String) {
        self.notices.lock().push(Notice::warning(WARNING, &message));
    }
    /// The session of this process id, if this one may signal it; None with a warning if there is no such one.
    fn signalled(&self, pid: i32, what: &str) -> Result<Option<Arc<Activity>>> {
        let Some(found) = self.instance.activities.find(pid) else {
            self.warn(format!("PID {pid} is not a PostgreSQL backend process"));
            return Ok(None);
        };
        if self.is_superuser() || found.user() == self.user {
            return Ok(Some(found));
        }
        let (doing, whose) = match what {
            "cancel" => ("cancel superuser query", "whose query is being canceled"),
            _ => ("terminate superuser process", "whose process is being terminated"),
        };
        let message = match found.user() == SUPERUSER_NAME {
            true => format!("must be a superuser to {doing}"),
            false => format!("must be a member of the role {whose} or member of pg_signal_backend"),
        };
        Err(SqlError::new(INSUFFICIENT_PRIVILEGE, message))
    }
    /// Whether the database is written elsewhere.
    pub fn is_follower(&self) -> bool {
        self.db.followed.is_some()
    }
    fn is_own(&self, oid: u32) -> bool {
        self.sequences.lock().own.contains(&oid)
    }
    fn remember(&self, oid: u32, value: i64) {
        let mut sequences = self.sequences.lock();
        sequences.last.insert(oid, value);
        sequences.latest = Some(oid);
    }
    /// The snapshot of a version. To the engine the lengths before the first commit are versions too, of an empty bee; a database has none there.
    pub fn snapshot_at(&self, version: u64) -> Result<Snapshot> {
        let database = &self.database;
        let asked = version.to_string();
        if version <= 1 && database.first_commit()?.is_some() {
            return Err(not_a_version(database, &self.db.name, &asked, database.snapshot().version()));
        }
        match database.snapshot_at(Version(version)) {
            // Where there are no commit records, a length seen as a head is a version.
            Err(EngineError::NotAVersion { newest, .. })
                if Version(version) < newest
                    && database.first_commit()?.is_none()
                    && self.db.followed.as_ref().is_some_and(|f| f.was_head(Version(version))) =>
            {
                Ok(database.snapshot_of_head(Version(version)))
            }
            other => other.map_err(|e| self.not_a_version(e, &asked)),
        }
    }
    /// 22023 with the valid range of versions and times.
    fn not_a_version(&self, error: EngineError, asked: &str) -> SqlError {
        let EngineError::NotAVersion { newest, .. } = error else { return error.into() };
        not_a_version(&self.database, &self.db.name, asked, newest)
    }
    /// The version that a value of bee.as_of names; None for an empty one.
    pub fn parse_as_of(&self, text: &str, catalog: &Catalog) -> Result<Option<u64>> {
        let text = text.trim();
        let invalid = || {
            SqlError::new(
                state::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"bee.as_of\": \"{text}\""),
            )
            .hint("Use version:1234, timestamp:2026-11-01 00:00+00, tag:name, or an empty string.")
        };
        if text.is_empty() {
            return Ok(None);
        }
        let (kind, value) = text.split_once(':').map_or(("version", text), |(k, v)| (k.trim(), v.trim()));
        let version = match kind {
            "version" => value.parse().map_err(|_| invalid())?,
            "timestamp" => {
                let zone = self.settings.lock().derived().time_zone.clone();
                let order = self.settings.lock().derived().date_order;
                let now = sql_micros(unix_micros());
                let cx = crate::types::datetime::InputCx { zone: &zone, order, now };
                self.version_at(crate::types::datetime::timestamptz_in(value, -1, &cx)?)?
            }
            "tag" => match catalog.tags.get(value) {
                Some(tag) => tag.version,
                None => return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("tag \"{value}\" does not exist"))),
            },
            _ => return Err(invalid()),
        };
        self.snapshot_at(version)?;
        Ok(Some(version))
    }
}

impl DdlHost for Shared {
    fn own_sequence(&self, oid: u32) {
        self.sequences.lock().own.push(oid);
    }
    fn is_own_sequence(&self, oid: u32) -> bool {
        self.is_own(oid)
    }
    fn publish(&self, catalog: &Arc<Catalog>) {
        self.current.lock().catalog = catalog.clone();
    }
}

impl AsOfResolver for Shared {
    fn version_at(&self, micros: i64) -> Result<u64> {
        let unix = micros.saturating_add(EPOCH_2000_SECONDS * 1_000_000);
        match self.database.version_at_time(unix) {
            Ok(version) => Ok(version.0),
            Err(e) => {
                let asked = crate::types::io::to_text(
                    &crate::types::Datum::TimestampTz(micros),
                    crate::types::Type::TIMESTAMPTZ,
                    crate::codec::row::storage_cx(),
                );
                Err(self.not_a_version(e, &format!("the state at {asked}")))
            }
        }
    }
    fn catalog_at(&self, version: u64) -> Result<Arc<Catalog>> {
        self.db.catalog(&self.snapshot_at(version)?)
    }
}

impl Services for Shared {
    fn definitions_are_read(&self) {
        self.has_read_definitions.store(true, Ordering::Relaxed);
    }
    fn nextval(&self, oid: u32) -> Result<i64> {
        self.refuse_read_only("nextval()")?;
        let sequence = self.sequence(oid)?;
        let value = if self.is_own(oid) {
            self.txn.with(|t| {
                let stored = t.get(&keyspace::sequence(oid))?;
                let next = SequenceState::parse(stored.as_deref(), &sequence)?.next(&sequence)?;
                next.put(oid, t)?;
                Ok(next.last)
            })?
        } else {
            let sequence = self.locked_sequence(sequence)?;
            self.take(&sequence)?
        };
        self.remember(oid, value);
        Ok(value)
    }
    fn currval(&self, oid: u32) -> Result<i64> {
        let sequence = self.sequence(oid)?;
        self.sequences.lock().last.get(&oid).copied().ok_or_else(|| {
            let message = format!("currval of sequence \"{}\" is not yet defined in this session", sequence.name);
            SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        })
    }
    fn lastval(&self) -> Result<i64> {
        let sequences = self.sequences.lock();
        let last = sequences.latest.and_then(|oid| sequences.last.get(&oid));
        last.copied().ok_or_else(|| {
            SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, "lastval is not yet defined in this session")
        })
    }
    fn setval(&self, oid: u32, value: i64, is_called: bool) -> Result<i64> {
        self.refuse_read_only("setval()")?;
        let sequence = self.sequence(oid)?;
        SequenceState::check_value(value, &sequence)?;
        let to = SequenceState { last: value, called: is_called };
        if self.is_own(oid) {
            self.txn.with(|t| Ok(to.put(oid, t)?))?;
        } else {
            let sequence = self.locked_sequence(sequence)?;
            self.db.sequences.set(&sequence, to, &self.db.database, unix_micros())?;
            self.sequences.lock().taken.remove(&oid);
        }
        if is_called {
            self.sequences.lock().last.insert(oid, value);
        }
        Ok(value)
    }
    fn setting(&self, name: &str) -> Option<String> {
        let current = self.current.lock();
        match name.to_ascii_lowercase().as_str() {
            "transaction_isolation" => Some(current.isolation.name().to_owned()),
            "transaction_read_only" => Some(if current.read_only { "on" } else { "off" }.to_owned()),
            "transaction_deferrable" => Some(on_or_off(current.deferrable).to_owned()),
            "bee.announce" => Some(on_or_off(self.instance.is_announced(&self.db.name)).to_owned()),
            _ => self.settings.lock().show(name).ok(),
        }
    }
    fn set_config(&self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        let lower = name.to_ascii_lowercase();
        if matches!(lower.as_str(), "transaction_isolation" | "transaction_read_only" | "transaction_deferrable") {
            // A statement that runs cannot change the block it runs in.
            return Err(SqlError::unsupported(format!("set_config() of \"{lower}\"")).hint("Use SET TRANSACTION."));
        }
        let mut settings = self.settings.lock();
        match value {
            Some(value) => settings.set_text(name, value, local)?,
            None => settings.reset(name, local)?,
        }
        settings.show(name)
    }
    fn version(&self) -> u64 {
        self.current.lock().version
    }
    fn key(&self) -> [u8; 32] {
        *self.database.key().as_bytes()
    }
    fn read_key(&self) -> Option<String> {
        self.db.read_key()
    }
    fn export_snapshot(&self) -> Result<String> {
        Ok(self.version().to_string())
    }
    fn wait_for(&self, version: u64, timeout_micros: i64) -> Result<bool> {
        let end = Instant::now() + Duration::from_micros(u64::try_from(timeout_micros).unwrap_or(0));
        let _waits = Waits::on(&self.activity, WaitEvent::Version);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.database.wait_for(Version(version), left.min(POLL)) {
                return Ok(true);
            }
            self.cancel.check()?;
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
    fn sessions(&self) -> Vec<SessionStatus> {
        let all = self.is_superuser();
        self.instance.activities.statuses(|user| all || user == self.user)
    }
    fn database_statuses(&self) -> Vec<DatabaseStatus> {
        self.instance.activities.databases(self.instance.databases())
    }
    fn cancel_backend(&self, pid: i32) -> Result<bool> {
        let Some(found) = self.signalled(pid, "cancel")? else { return Ok(false) };
        found.cancel();
        self.cancel.check()?;
        Ok(true)
    }
    fn terminate_backend(&self, pid: i32, timeout_ms: i64) -> Result<bool> {
        let Ok(timeout) = u64::try_from(timeout_ms).map(Duration::from_millis) else {
            return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "\"timeout\" must not be negative"));
        };
        let Some(found) = self.signalled(pid, "terminate")? else { return Ok(false) };
        found.terminate(End::Administrator);
        self.cancel.check()?;
        if timeout.is_zero() || self.instance.activities.wait_gone(&[found], timeout, &self.cancel)? {
            return Ok(true);
        }
        self.warn(format!("backend with PID {pid} did not terminate within {timeout_ms} milliseconds"));
        Ok(false)
    }
    fn sleep(&self, seconds: f64) -> Result<()> {
        let end = Instant::now() + Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX / 4);
        let _waits = Waits::on(&self.activity, WaitEvent::Sleep);
        self.cancel.wait(Some(end), || false).map(|_| ())
    }
    fn transaction_id(&self) -> u64 {
        self.transaction_id.load(Ordering::Relaxed)
    }
    fn snapshot_at(&self, version: u64) -> Result<Snapshot> {
        Shared::snapshot_at(self, version)
    }
    fn foreign_bee(&self, key: CoreKey, peers: &[String]) -> Result<Arc<ForeignBee>> {
        self.foreign.get(key, peers, self)
    }
    fn is_follower(&self) -> bool {
        Shared::is_follower(self)
    }
    fn notify(&self, channel: &str, payload: &str) -> Result<()> {
        self.listening.lock().notify(channel, payload)
    }
    fn listening(&self) -> (Vec<String>, f64) {
        let mailbox = self.listening.lock().mailbox.clone();
        (mailbox.channels(), self.db.channels.usage())
    }
    fn advisory_lock(&self, key: AdvisoryKey, exclusive: bool, by_session: bool, wait: bool) -> Result<bool> {
        self.lock_advisory(key, exclusive, by_session, wait)
    }
    fn advisory_unlock(&self, key: AdvisoryKey, exclusive: bool) -> Result<bool> {
        Ok(self.unlock_advisory(key, exclusive))
    }
    fn advisory_unlock_all(&self) {
        self.txn.locks().advisory_unlock_all();
    }
    fn locks(&self) -> Vec<(String, LockStatus)> {
        self.all_locks()
    }
    fn blocking_pids(&self, pid: i32) -> Vec<i32> {
        self.blockers(pid)
    }
    fn databases(&self) -> Vec<String> {
        self.instance.databases()
    }
    fn cores(&self) -> Result<Vec<CoreStatus>> {
        self.instance.cores()
    }
    fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.instance.peers()
    }
    fn swarm(&self) -> Option<Swarm> {
        self.instance.network()?.swarm()
    }
    fn swarm_topics(&self) -> Result<Vec<TopicStatus>> {
        self.instance.swarm_topics()
    }
    fn database_settings(&self) -> Vec<(String, Vec<String>)> {
        self.instance.database_settings()
    }
    fn progress(&self) -> Vec<ProgressStatus> {
        self.instance.progress()
    }
    fn download(&self, relation: Option<u32>) -> Result<u64> {
        Shared::download(self, relation)
    }
}

/// Shows that a session waits, as long as it lives.
pub(super) struct Waits<'a>(&'a Activity);

impl<'a> Waits<'a> {
    pub fn on(activity: &'a Activity, event: WaitEvent) -> Waits<'a> {
        activity.wait(event);
        Waits(activity)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wait(WaitEvent::None);
    }
}

/// A truth as settings show it.
pub(super) fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// How long a waiting statement goes without looking for a cancel.
pub(super) const POLL: Duration = Duration::from_millis(20);
