//! A client's session: statements in, results out, transactions between them.
//!
//! [`Instance`] is a data directory with its databases; [`Session`] is one client in one database. A session is a state machine that one
//! thread at a time drives through `&mut self`; what it returns is plain data ([`outcome`]). Everything blocks (on storage, on pg_sleep), so call
//! it on a thread that may, with a stack of 16 MiB. [`Session::cancel_flag`] may be raised from any other.
//!
//! ```text
//! simple query      simple(sql)?; while let Some(outcome) = next_result()? { rows: fetch() until Done; copy: see below }
//! extended query    parse, bind, execute -> outcome, fetch() until Done or Suspended; sync() ends the implicit transaction
//! COPY FROM STDIN   outcome CopyIn: copy_data(bytes) as they come in, then copy_done() -> tag, or copy_fail(why) -> the error to send
//! COPY TO STDOUT    outcome CopyOut: copy_out() until Done
//! any error         the statement is undone; the rest of a simple string is abandoned; in extended mode skip to Sync, then call sync()
//! ```
//!
//! Results of a statement that is a transaction of its own are given out when it is committed: simple queries always; extended ones when
//! Sync has been answered, so do not flush DataRow and CommandComplete before `sync()` returned, unless the client sends Flush.
//!
//! Behind this surface:
//!
//! ```text
//! instance      databases and what they share       transaction  blocks, snapshots, commits, conflicts
//! settings      SET and SHOW                        query        planned statements and their rows
//! shared        what functions ask of the session   extended     prepared statements, portals, parameters
//! activity      who is connected, and does what
//! utility       all other statements                copying      COPY
//! plans         statements parsed and planned before
//! locking       locks of relations, own definitions concurrently CREATE INDEX CONCURRENTLY and its kin
//! followed      what is kept of a remote database   listen       LISTEN and NOTIFY
//! follower      what only a follower's session does foreign      bees of foreign tables
//! swarm         databases that are found by their keys alone
//! ```

pub mod activity;
mod concurrently;
mod copying;
mod extended;
mod flusher;
mod followed;
mod follower;
mod foreign;
pub mod instance;
mod listen;
mod lock_table;
mod locking;
pub mod outcome;
mod plans;
mod query;
pub mod settings;
mod shared;
mod swarm;
mod transaction;
mod utility;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

pub use activity::{Activity, End, WaitEvent};
pub use instance::{ConnectOptions, Instance, InstanceOptions, Verified};
pub use listen::{COMMITS, Notification, Wake};
pub use outcome::{CopyShape, CopyStep, Notice, Outcome, StatementShape, Step};

use crate::catalog::{Catalog, load};
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::functions::context::CancelFlag;
use crate::lock::Locks;
use crate::memory::{self, Account, Reservation};
use crate::parse::{self, ast};
use crate::wait::Waiting;
use crate::write::TxnHandle;
pub use crate::write::copy::CopyPiece;
use crate::write::copy::{CopyIn, CopyOut};

use activity::SessionState;
use extended::{Portal, Prepared};
use instance::{Db, Presence};
use plans::Candidate;
use plans::literals::Slot;
use query::{Ran, Rows};
use settings::{Derived, IsolationLevel, Settings};
use shared::{Current, SequenceUse, Shared};
use transaction::{Block, Status};

/// One client in one database.
pub struct Session {
    instance: Arc<Instance>,
    shared: Arc<Shared>,
    presence: Presence,
    /// The statement whose text is shown.
    shown: Option<Arc<Prepared>>,
    /// Messages have come since the client was last told that it may go on.
    has_heard: bool,
    user: String,
    backend_pid: i32,
    block: Block,
    statements: FxHashMap<String, Arc<Prepared>>,
    portals: FxHashMap<String, Portal>,
    /// Statements of a simple string that are still to run.
    script: Option<Script>,
    active: Active,
    /// The version bee.as_of names, by its text, and the definitions' stamp and settings' generation that text was read under.
    as_of: Option<(String, u64, u64, u64)>,
    /// A resolved search path, by catalog and settings.
    path: Option<(u64, u64, Vec<u32>)>,
    random: u64,
    /// The last statement's surroundings, and the settings they were made of.
    surroundings: Option<(Arc<Derived>, Arc<SessionCx>)>,
}

/// A simple query string.
struct Script {
    statements: VecDeque<ast::Statement>,
    /// It is one statement: a transaction of its own.
    single: bool,
    /// It has no statement at all.
    empty: bool,
    /// It may be one whose plan is kept.
    candidate: Option<Candidate>,
    /// It is not parsed yet: a text of its shape was, and has these slots.
    slots: Option<Arc<[Slot]>>,
    /// What its text becomes.
    _held: Option<Reservation>,
}

/// A result that is being fetched.
enum Active {
    None,
    /// With the portal the rows belong to.
    Rows(Box<Rows>, Option<String>),
    CopyIn(Box<CopyIn>),
    CopyOut(Box<CopyOut>),
}

impl Session {
    fn new(
        instance: Arc<Instance>,
        db: Arc<Db>,
        presence: Presence,
        cancel: Arc<CancelFlag>,
        options: &ConnectOptions,
        as_of: Option<String>,
    ) -> Result<Session> {
        let of_instance = instance.options();
        let mut settings = Settings::new([
            ("max_connections", of_instance.max_connections.to_string()),
            ("port", of_instance.port.to_string()),
            ("work_mem", (of_instance.work_mem_bytes / 1024).to_string()),
            ("session_authorization", options.user.clone()),
            ("data_directory", instance.dir().map(|d| d.display().to_string()).unwrap_or_default()),
            ("bee.follow_on_connect", if of_instance.follow_on_connect { "on" } else { "off" }.to_owned()),
            // Reported to the client: drivers that look for a server to write to find out by it.
            ("in_hot_standby", if db.followed.is_some() { "on" } else { "off" }.to_owned()),
        ])?;
        for (name, value) in &options.settings {
            settings.set_at_start(name, value)?;
        }
        if let Some(as_of) = &as_of {
            settings.set_at_start("bee.as_of", as_of)?;
        }
        let waiting = Waiting::new(cancel.clone(), instance.network_is_over().clone());
        // Who connects to a follower waits for no peer: its first statement loads the definitions.
        let is_follower = db.followed.is_some();
        let database = if is_follower { instance.reader(&db, &waiting) } else { db.database.clone() };
        let catalog = if is_follower { load::empty() } else { db.catalog(&database.snapshot())? };
        let locks = Locks::new(&db.locks, options.backend_pid, cancel.clone(), instance.memory())?;
        let shared = Arc::new(Shared {
            txn: TxnHandle::new(database.clone(), db.row_ids.clone(), db.moves.clone(), locks, instance.memory()),
            instance: instance.clone(),
            database,
            waiting,
            listening: Mutex::default(),
            backend_pid: options.backend_pid,
            user: options.user.clone(),
            settings: Mutex::new(settings),
            sequences: Mutex::new(SequenceUse::default()),
            notices: Mutex::default(),
            current: Mutex::new(Current {
                catalog,
                version: 0,
                read_only: is_follower,
                isolation: IsolationLevel::ReadCommitted,
                deferrable: false,
            }),
            has_read_definitions: AtomicBool::new(false),
            transaction_id: AtomicU64::new(0),
            foreign: foreign::SessionBees::default(),
            cancel,
            db,
            activity: presence.activity.clone(),
        });
        let of_session = Arc::downgrade(&shared);
        shared.txn.locks().set_names(Box::new(move |oid| of_session.upgrade()?.relation_name(oid)));
        presence.activity.belongs_to(&shared);
        let mut session = Session {
            instance,
            shared,
            presence,
            shown: None,
            has_heard: false,
            user: options.user.clone(),
            backend_pid: options.backend_pid,
            block: Block::idle(),
            statements: FxHashMap::default(),
            portals: FxHashMap::default(),
            script: None,
            active: Active::None,
            as_of: None,
            path: None,
            surroundings: None,
            random: shared::unix_micros() as u64 ^ 0x9e37_79b9_7f4a_7c15,
        };
        if !is_follower {
            // A past version that is none is refused now, not at the first statement.
            let first = session.statement();
            session.rollback();
            session.shared.activity.begin_counting();
            first?;
        }
        Ok(session)
    }

    // Simple protocol

    /// Begins a simple query string. Nothing has run yet; an error (syntax) fails the whole string.
    pub fn simple(&mut self, sql: &str) -> Result<()> {
        self.active = Active::None;
        self.script = None;
        self.hear(sql);
        let candidate = Candidate::of(sql);
        if let Some(candidate) = &candidate
            && let Some(slots) = self.known_slots(candidate)
        {
            let statements = VecDeque::new();
            self.script = Some(Script {
                statements,
                single: true,
                empty: false,
                candidate: None,
                slots: Some(slots),
                _held: None,
            });
        } else {
            self.read_script(sql)?;
        }
        if let Some(script) = &mut self.script {
            script.candidate = candidate;
        }
        Ok(())
    }
    fn read_script(&mut self, sql: &str) -> Result<()> {
        let held = self.instance.memory().reserve("A statement's text", memory::of_text(sql));
        match held.and_then(|held| Ok((parse::parse_unless(&self.shared.cancel, sql)?, held))) {
            Ok((statements, held)) => {
                let statements = VecDeque::from(statements);
                self.script = Some(Script {
                    single: statements.len() == 1,
                    empty: statements.is_empty(),
                    statements,
                    candidate: None,
                    slots: None,
                    _held: Some(held),
                });
                Ok(())
            }
            Err(e) => {
                self.fail();
                Err(e)
            }
        }
    }
    /// Runs the string's next statement; what it gave must have been fetched or dropped before. None: the string is through and, outside a
    /// transaction block, committed. After an error the string is over.
    pub fn next_result(&mut self) -> Result<Option<Outcome>> {
        self.start_clock();
        let result = self.next_statement();
        self.guard(result)
    }

    fn next_statement(&mut self) -> Result<Option<Outcome>> {
        self.drop_active();
        let Some(script) = &mut self.script else { return Ok(None) };
        if std::mem::take(&mut script.empty) {
            return Ok(Some(Outcome::Empty));
        }
        let mut candidate = script.candidate.take();
        if let (Some(slots), Some(candidate)) = (script.slots.take(), &candidate) {
            if let Some(outcome) = self.run_kept(candidate, &slots)? {
                return Ok(Some(outcome));
            }
            self.read_script(candidate.sql())?;
        }
        let Some(script) = &mut self.script else { return Ok(None) };
        let single = script.single;
        match script.statements.pop_front() {
            Some(statement) => {
                if let Some(candidate) = candidate.take().filter(|_| single) {
                    self.keep_plan(&candidate, &statement);
                }
                self.run(&statement, single).map(Some)
            }
            None => {
                self.script = None;
                self.has_heard = false;
                if self.block.status == Status::Implicit {
                    self.commit()?;
                }
                Ok(None)
            }
        }
    }

    /// The next rows of the last [`Outcome::Rows`].
    pub fn fetch(&mut self) -> Result<Step> {
        let Active::Rows(rows, portal) = &mut self.active else {
            return Err(SqlError::internal("there are no rows to fetch"));
        };
        let step = rows.step();
        let portal = portal.clone();
        match &step {
            Ok(Step::Rows(_)) => {}
            Ok(Step::Suspended) => self.suspend(portal),
            Ok(Step::Done { .. }) => {
                self.active = Active::None;
                self.finish_portal(portal);
            }
            Err(_) => self.active = Active::None,
        }
        self.guard(step)
    }

    /// Messages of the channels the session listens on; none inside of a transaction block. To be sent before ReadyForQuery, or when [`Session::on_notification`] wakes
    /// who serves an idle client.
    pub fn take_notifications(&mut self) -> Vec<Notification> {
        match self.block.status {
            Status::Idle => self.shared.listening.lock().mailbox.take(),
            Status::Implicit | Status::Explicit | Status::Failed => Vec::new(),
        }
    }
    /// Whether it listens on a channel: a message may come at any time.
    pub fn is_listening(&self) -> bool {
        self.shared.listening.lock().listens()
    }
    /// Who is called, in any thread, when there is a message for this session.
    pub fn on_notification(&self, wake: Wake) {
        self.shared.listening.lock().mailbox.set_wake(wake);
    }

    /// A result nobody wants any more: a COPY FROM that was left is undone.
    fn drop_active(&mut self) {
        if matches!(std::mem::replace(&mut self.active, Active::None), Active::CopyIn(_)) {
            self.fail();
        }
    }

    /// An error outside the session ends what was going on in it, as an error of its own does: a result could not be told, the client spoke out of turn.
    pub fn abort(&mut self) {
        self.active = Active::None;
        self.script = None;
        self.has_heard = false;
        self.fail();
    }

    /// An error ends what was going on; why a statement stopped waiting for peers is told as it is. Where nothing is left to fetch, the statement is over.
    fn guard<T>(&mut self, result: Result<T>) -> Result<T> {
        let result = result.map_err(|e| self.shared.waiting.explain(e));
        if let Err(error) = &result {
            if error.state() == state::DEADLOCK_DETECTED {
                self.shared.activity.was_deadlocked();
            }
            self.abort();
        }
        if matches!(self.active, Active::None) {
            self.shared.waiting.end();
        }
        result
    }

    /// A message with a statement: shows its text, and forgets a cancel that came too late for the one before.
    fn hear(&mut self, text: &str) {
        self.shown = None;
        self.shared.activity.begin(text);
        if !std::mem::replace(&mut self.has_heard, true) {
            self.shared.cancel.reset();
            // Who is told to end is told once: a flag that was raised before it was reset is raised again.
            if let Some(end) = self.shared.activity.ending() {
                self.shared.cancel.raise(end.error());
            }
        }
        self.start_clock();
    }
    /// The client is about to be told that it may go on: from now on it is waited for.
    pub fn rest(&mut self) {
        self.has_heard = false;
        self.shared.activity.rest(match self.block.status {
            Status::Idle | Status::Implicit => SessionState::Idle,
            Status::Explicit => SessionState::IdleInTransaction,
            Status::Failed => SessionState::Aborted,
        });
    }
    /// What others see of it.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.presence.activity
    }

    /// Starts statement_timeout; from now on peers may be waited for.
    fn start_clock(&mut self) {
        let (timeout, fetch_wait) = {
            let settings = self.shared.settings.lock();
            (settings.derived().statement_timeout, settings.derived().fetch_wait)
        };
        self.shared.cancel.set_timeout(timeout);
        self.shared.waiting.begin(fetch_wait);
    }

    /// Runs a statement. `own`: it is a transaction of its own, if none is open.
    fn run(&mut self, statement: &ast::Statement, own: bool) -> Result<Outcome> {
        self.check_not_failed(&statement.kind)?;
        if let Some(outcome) = self.transaction_control(statement)? {
            return Ok(outcome);
        }
        if query::is_query(&statement.kind) {
            return self.run_query(statement, own);
        }
        self.utility(statement, own)
    }

    fn run_query(&mut self, statement: &ast::Statement, own: bool) -> Result<Outcome> {
        if self.awaits_first_head() {
            let ran = self.with_first_head(|session| session.plan_and_run(statement).map(|(ran, _)| ran))?;
            return Ok(self.give(ran, None));
        }
        let (ran, writes) = self.plan_and_run(statement)?;
        // A change that is a transaction of its own is committed before anything of it is given out.
        if writes && own && self.block.status == Status::Implicit {
            self.commit()?;
        }
        Ok(self.give(ran, None))
    }

    /// What a statement without parameters gives, and whether it changed rows.
    fn plan_and_run(&mut self, statement: &ast::Statement) -> Result<(Ran, bool)> {
        let params = crate::bind::ParamTypes::none();
        let (planned, cx) = self.plan_under_locks(|s, cx| s.plan(statement, &params, cx).map(Arc::new))?;
        let ran = self.run_planned(&planned, Vec::new(), &cx)?;
        Ok((ran, planned.writes))
    }

    /// Makes a statement's result the active one.
    fn give(&mut self, ran: Ran, portal: Option<String>) -> Outcome {
        match ran {
            Ran::Rows(rows) => {
                let outcome = rows.outcome();
                self.active = Active::Rows(Box::new(rows), portal);
                outcome
            }
            Ran::Tag(tag) => Outcome::Command { tag },
        }
    }

    // State

    /// For ReadyForQuery: `I` idle, `T` in a transaction block, `E` in a failed one.
    pub fn transaction_status(&self) -> u8 {
        match self.block.status {
            Status::Idle | Status::Implicit => b'I',
            Status::Explicit => b'T',
            Status::Failed => b'E',
        }
    }
    /// How long the client may be silent now, and what it is told after that.
    pub fn idle_limit(&self) -> Option<(Duration, SqlError)> {
        let derived = self.shared.settings.lock().derived().clone();
        let (limit, code, what) = match self.transaction_status() {
            b'I' => (derived.idle_session_timeout, "57P05", "idle-session"),
            _ => (derived.idle_in_transaction_session_timeout, "25P03", "idle-in-transaction"),
        };
        limit.map(|limit| (limit, SqlError::new(code, format!("terminating connection due to {what} timeout"))))
    }
    /// What a cancel request or a shutdown raises.
    pub fn cancel_flag(&self) -> Arc<CancelFlag> {
        self.shared.cancel.clone()
    }
    /// Messages since the last call, to be sent before what follows; those below client_min_messages are left out.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let least = self.shared.settings.lock().derived().min_severity;
        let mut notices = std::mem::take(&mut *self.shared.notices.lock());
        notices.retain(|n| n.rank() >= least);
        notices
    }
    /// Settings to be told (ParameterStatus) that changed since the last call.
    pub fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)> {
        self.shared.settings.lock().take_changed()
    }
    /// Settings to be told at the start.
    pub fn parameters_at_start(&self) -> Vec<(&'static str, String)> {
        self.shared.settings.lock().reported()
    }
    /// Surroundings that values are printed in (time zone, styles); take it anew for each result.
    pub fn output_cx(&self) -> Arc<SessionCx> {
        let derived = self.shared.settings.lock().derived().clone();
        let catalog: Arc<Catalog> = self.shared.current.lock().catalog.clone();
        // The statement's own, unless it has changed settings or definitions.
        if let Some((under, cx)) = &self.surroundings
            && Arc::ptr_eq(under, &derived)
            && Arc::ptr_eq(&cx.catalog, &catalog)
        {
            return cx.clone();
        }
        Arc::new(SessionCx {
            time_zone: derived.time_zone.clone(),
            date_order: derived.date_order,
            bytea_hex: derived.bytea_hex,
            transaction_micros: 0,
            statement_micros: 0,
            user: String::new(),
            database: String::new(),
            search_path: self.path.as_ref().map(|(_, _, path)| path.clone()).unwrap_or_default(),
            backend_pid: self.backend_pid,
            catalog,
            services: self.shared.clone(),
            cancel: self.shared.cancel.clone(),
            work_mem_bytes: derived.work_mem_bytes,
            memory: Arc::new(Account::of_statement(self.instance.memory(), derived.work_mem_bytes)),
            random: Mutex::new(0),
        })
    }
    /// The value of a setting as SHOW prints it.
    ///
    /// # Errors
    /// 42704 if there is none of this name.
    pub fn setting(&self, name: &str) -> Result<String> {
        self.shared.settings.lock().show(name)
    }
}

impl Drop for Session {
    // Whoever waits for the session's end finds its locks free: what it holds goes before its place among the sessions does.
    fn drop(&mut self) {
        self.active = Active::None;
        self.rollback();
        // What its statements were surrounded by may live a little longer, and the session's locks with it.
        self.shared.txn.locks().advisory_unlock_all();
    }
}

/// 42601 for several statements where one is allowed.
fn one_statement(cancel: &CancelFlag, sql: &str) -> Result<Option<ast::Statement>> {
    let mut statements = parse::parse_unless(cancel, sql)?;
    if statements.len() > 1 {
        return Err(SqlError::new(state::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"));
    }
    Ok(statements.pop())
}
