//! What a function may ask besides its arguments: the statement's time, settings that change results, the catalog,
//! sequences. Everything here is fixed for one statement except what [`Services`] does.

use std::sync::Arc;

use pgbee_engine::CoreKey;
use pgbee_engine::txn::Snapshot;

use crate::catalog::Catalog;
use crate::error::{Result, SqlError};
use crate::follow::{CoreStatus, PeerStatus, ProgressStatus, Swarm, TopicStatus};
use crate::foreign::ForeignBee;
use crate::lock::{AdvisoryKey, LockStatus};
use crate::memory::Account;
use crate::session::activity::{DatabaseStatus, SessionStatus};
use crate::types::Type;
use crate::types::timezone::TimeZone;

pub use super::cancel::CancelFlag;

/// What the session does for functions that are more than arithmetic. Implemented by the session.
pub trait Services: Send + Sync {
    /// nextval of a sequence.
    fn nextval(&self, sequence: u32) -> Result<i64>;
    /// currval: 55000 if this session has not called nextval on it.
    fn currval(&self, sequence: u32) -> Result<i64>;
    /// lastval: 55000 if this session has not called nextval.
    fn lastval(&self) -> Result<i64>;
    /// setval.
    fn setval(&self, sequence: u32, value: i64, is_called: bool) -> Result<i64>;
    /// A setting as SHOW prints it; None if there is no such one.
    fn setting(&self, name: &str) -> Option<String>;
    /// SET name = value, local to the transaction or not; the value as SHOW prints it.
    fn set_config(&self, name: &str, value: Option<&str>, local: bool) -> Result<String>;
    /// The version this statement reads: bee_version().
    fn version(&self) -> u64;
    /// The database's public key: bee_key().
    fn key(&self) -> [u8; 32];
    /// What the database's blocks are encrypted with, in hex, if they are: bee_read_key().
    fn read_key(&self) -> Option<String> {
        None
    }
    /// pg_export_snapshot(): the current version as text.
    fn export_snapshot(&self) -> Result<String>;
    /// Waits until the database has this version; false when the time is over.
    fn wait_for(&self, version: u64, timeout_micros: i64) -> Result<bool>;
    /// Blocks the thread, waking early to notice a cancel: pg_sleep().
    fn sleep(&self, seconds: f64) -> Result<()>;
    /// Number of this transaction: txid_current().
    fn transaction_id(&self) -> u64;
    /// A past version of the session's own database.
    fn snapshot_at(&self, _version: u64) -> Result<Snapshot> {
        Err(SqlError::unsupported("reading the past here"))
    }
    /// A bee by its key, for reading; open as long as the session uses it.
    fn foreign_bee(&self, _key: CoreKey, _peers: &[String]) -> Result<Arc<ForeignBee>> {
        Err(SqlError::unsupported("reading another bee here"))
    }
    /// A system relation that tells what the database defines is read; on a copy that has seen no version yet, it is empty for that.
    fn definitions_are_read(&self) {}
    /// Whether the database is written elsewhere: pg_is_in_recovery().
    fn is_follower(&self) -> bool {
        false
    }
    /// pg_notify(): told when the transaction commits.
    fn notify(&self, _channel: &str, _payload: &str) -> Result<()> {
        Err(SqlError::unsupported("pg_notify() here"))
    }
    /// Channels the session listens on, and what part of the memory for its messages is taken.
    fn listening(&self) -> (Vec<String>, f64) {
        (Vec::new(), 0.0)
    }
    /// Takes an advisory lock; false if it is not free and not to be waited for.
    fn advisory_lock(&self, _key: AdvisoryKey, _exclusive: bool, _by_session: bool, _wait: bool) -> Result<bool> {
        Err(SqlError::unsupported("advisory locks here"))
    }
    /// Gives back an advisory lock of the session; false, with a warning, if it has none of this key and mode.
    fn advisory_unlock(&self, _key: AdvisoryKey, _exclusive: bool) -> Result<bool> {
        Err(SqlError::unsupported("advisory locks here"))
    }
    /// pg_advisory_unlock_all().
    fn advisory_unlock_all(&self) {}
    /// Locks that are held or waited for, with their databases: pg_locks.
    fn locks(&self) -> Vec<(String, LockStatus)> {
        Vec::new()
    }
    /// Sessions that this one waits for: pg_blocking_pids().
    fn blocking_pids(&self, _pid: i32) -> Vec<i32> {
        Vec::new()
    }
    /// All sessions of the server: pg_stat_activity.
    fn sessions(&self) -> Vec<SessionStatus> {
        Vec::new()
    }
    /// What was counted in each database: pg_stat_database.
    fn database_statuses(&self) -> Vec<DatabaseStatus> {
        Vec::new()
    }
    /// pg_cancel_backend(): whether there is such a session; if not, a warning says so.
    fn cancel_backend(&self, _pid: i32) -> Result<bool> {
        Err(SqlError::unsupported("pg_cancel_backend() here"))
    }
    /// pg_terminate_backend(): the same, and whether it was gone within so many milliseconds, if any are given.
    fn terminate_backend(&self, _pid: i32, _timeout_ms: i64) -> Result<bool> {
        Err(SqlError::unsupported("pg_terminate_backend() here"))
    }
    /// Names of all databases of the server: pg_database.
    fn databases(&self) -> Vec<String> {
        Vec::new()
    }
    /// What is known of each database's core: bee_cores.
    fn cores(&self) -> Result<Vec<CoreStatus>> {
        Ok(Vec::new())
    }
    /// Connections to peers: bee_peers.
    fn peers(&self) -> Result<Vec<PeerStatus>> {
        Ok(Vec::new())
    }
    /// Our place in the swarm: bee_swarm.
    fn swarm(&self) -> Option<Swarm> {
        None
    }
    /// What peers are looked for by: bee_swarm_topics.
    fn swarm_topics(&self) -> Result<Vec<TopicStatus>> {
        Ok(Vec::new())
    }
    /// Settings of databases, `name=value` each, by the database's name: pg_db_role_setting.
    fn database_settings(&self) -> Vec<(String, Vec<String>)> {
        Vec::new()
    }
    /// What fetches much just now: bee_progress.
    fn progress(&self) -> Vec<ProgressStatus> {
        Vec::new()
    }
    /// Fetches a table with its indexes, an index, or everything, and says how many blocks came: bee_download().
    fn download(&self, _relation: Option<u32>) -> Result<u64> {
        Ok(0)
    }
}

/// The statement's surroundings, shared by all its operators.
pub struct SessionCx {
    /// TimeZone setting.
    pub time_zone: TimeZone,
    /// DateStyle: only ISO output is implemented; the order of ambiguous input, "MDY", "DMY" or "YMD".
    pub date_order: DateOrder,
    /// bytea_output is hex; false means escape.
    pub bytea_hex: bool,
    /// Start of the transaction, microseconds since 2000-01-01 UTC: now().
    pub transaction_micros: i64,
    /// Start of the statement.
    pub statement_micros: i64,
    /// current_user.
    pub user: String,
    /// current_database().
    pub database: String,
    /// Schema oids searched for names, in order, pg_catalog included where PostgreSQL would.
    pub search_path: Vec<u32>,
    /// Process id shown to the client.
    pub backend_pid: i32,
    /// The catalog the statement sees.
    pub catalog: Arc<Catalog>,
    /// What needs the session.
    pub services: Arc<dyn Services>,
    /// Set by a cancel request, a timeout or a shutdown; see [`SessionCx::check_cancel`].
    pub cancel: Arc<CancelFlag>,
    /// Memory one sort, hash or aggregate may hold before it spills, in bytes: work_mem.
    pub work_mem_bytes: usize,
    /// What the statement reserves of memory that cannot be spilled.
    pub memory: Arc<Account>,
    /// State of random(), seeded by setseed().
    pub random: parking_lot::Mutex<u64>,
}

/// Order of day, month and year in ambiguous date input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateOrder {
    /// Year, month, day.
    Ymd,
    /// Day first.
    Dmy,
    /// Month first, the default.
    Mdy,
}

impl SessionCx {
    /// Fails if the statement was cancelled or timed out.
    pub fn check_cancel(&self) -> Result<()> {
        self.cancel.check()
    }
}

/// A call's surroundings: the session, and the types the binder settled on (polymorphic functions need them).
pub struct FnCx<'a> {
    /// The statement's surroundings.
    pub session: &'a SessionCx,
    /// Actual argument types.
    pub arg_types: &'a [Type],
    /// Actual result type.
    pub ret: Type,
    /// Type modifier of the result, for length and precision casts; -1 otherwise.
    pub typmod: i32,
}
