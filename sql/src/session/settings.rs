//! Settings: what SET, SHOW and startup options change, with PostgreSQL's checks, and undone with their transaction.
//!
//! Values are kept as SHOW prints them. Three layers lie on each other: the defaults (with what the client asked for when it connected), the
//! session's, and the transaction's own (SET LOCAL). A log of old values takes back what a rolled back transaction or savepoint set.

mod table;
mod value;

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::error::{Result, SqlError, state};
use crate::functions::context::DateOrder;
use crate::types::timezone::TimeZone;

pub use table::DEFINITIONS;
use value::Given;
pub use value::IsolationLevel;

/// SQLSTATE of settings that cannot be changed (now).
const CANT_CHANGE_RUNTIME_PARAM: &str = "55P02";

/// A setting.
pub struct Definition {
    /// Name as SHOW ALL prints it.
    pub name: &'static str,
    /// What values it has.
    pub kind: Kind,
    /// Default, numbers in the setting's unit.
    pub default: &'static str,
    /// When it can be changed.
    pub context: Context,
    /// Clients are told when it changes.
    pub report: bool,
    /// One sentence.
    pub description: &'static str,
}

/// What values a setting has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// on or off.
    Bool,
    /// A number between limits, in a unit.
    Int(i64, i64, Unit),
    /// A number.
    Real,
    /// One of these.
    Enum(&'static [&'static str]),
    /// Anything; some have checks of their own.
    Text,
}

/// Units of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unit {
    None,
    Ms,
    S,
    Min,
    Bytes,
    Kb,
    /// Of 8 kB.
    Blocks,
    Mb,
}

/// When a setting can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Never.
    Internal,
    /// When the server starts.
    Start,
    /// When its configuration is read again.
    Reload,
    /// For a database, by ALTER DATABASE.
    Database,
    /// At any time.
    User,
}

/// Values that have an effect, ready for use.
#[derive(Clone)]
pub struct Derived {
    /// TimeZone.
    pub time_zone: TimeZone,
    /// The order of ambiguous dates, from DateStyle.
    pub date_order: DateOrder,
    /// bytea_output = hex.
    pub bytea_hex: bool,
    /// work_mem.
    pub work_mem_bytes: usize,
    /// statement_timeout.
    pub statement_timeout: Option<Duration>,
    /// lock_timeout.
    pub lock_timeout: Option<Duration>,
    /// client_connection_check_interval.
    pub client_check: Option<Duration>,
    /// deadlock_timeout.
    pub deadlock_timeout: Duration,
    /// idle_session_timeout.
    pub idle_session_timeout: Option<Duration>,
    /// idle_in_transaction_session_timeout.
    pub idle_in_transaction_session_timeout: Option<Duration>,
    /// synchronous_commit is not off.
    pub synchronous: bool,
    /// search_path, name by name; `$user` not resolved.
    pub search_path: Vec<String>,
    /// client_min_messages.
    pub min_severity: u8,
    /// default_transaction_read_only.
    pub read_only: bool,
    /// default_transaction_isolation.
    pub isolation: IsolationLevel,
    /// default_transaction_deferrable.
    pub deferrable: bool,
    /// bee.as_of.
    pub as_of: String,
    /// bee.commit_message.
    pub commit_message: String,
    /// application_name.
    pub application_name: String,
    /// bee.fetch_wait.
    pub fetch_wait: Duration,
}

/// Settings that no plan depends on; the search path is compared as what it resolves to.
const PLANS_IGNORE: [&str; 20] = [
    "application_name",
    "bee.as_of",
    "bee.commit_message",
    "bee.fetch_wait",
    "bee.follow_on_connect",
    "client_encoding",
    "client_min_messages",
    "data_directory",
    "deadlock_timeout",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "max_connections",
    "port",
    "search_path",
    "statement_timeout",
    "synchronous_commit",
];

/// The settings of one session.
pub struct Settings {
    /// What RESET returns to, by lower-case name.
    start: FxHashMap<String, String>,
    /// The session's own values, over `start`.
    session: FxHashMap<String, String>,
    /// SET LOCAL's values, over `session`.
    local: FxHashMap<String, String>,
    undo: Vec<Undo>,
    derived: Arc<Derived>,
    planning: Arc<str>,
    generation: u64,
    /// Reported settings that changed and were not told yet.
    changed: Vec<&'static Definition>,
}

/// What a setting had before.
struct Undo {
    name: String,
    session: Option<String>,
    local: Option<String>,
}

/// The definition of a setting.
pub fn definition(name: &str) -> Option<&'static Definition> {
    let lower = name.to_ascii_lowercase();
    let lower = if lower == "timezone" || lower == "time zone" { "timezone" } else { &lower };
    DEFINITIONS.binary_search_by(|d| compare_folded(d.name, lower)).ok().map(|i| &DEFINITIONS[i])
}

/// What a Boolean setting is given, checked as SET does, whoever may change it.
///
/// # Errors
/// 22023 for what is no truth.
pub(super) fn truth(definition: &Definition, values: &[String]) -> Result<bool> {
    Ok(value::check(definition, Given::Arguments(values))? == "on")
}

fn compare_folded(name: &str, lower: &str) -> std::cmp::Ordering {
    name.bytes().map(|b| b.to_ascii_lowercase()).cmp(lower.bytes())
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(state::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

impl Settings {
    /// Defaults, with what the instance knows better.
    pub fn new(overrides: impl IntoIterator<Item = (&'static str, String)>) -> Result<Settings> {
        let mut settings = Settings {
            start: FxHashMap::default(),
            session: FxHashMap::default(),
            local: FxHashMap::default(),
            undo: Vec::new(),
            derived: Arc::new(Derived::defaults()),
            planning: Arc::from(""),
            generation: 0,
            changed: Vec::new(),
        };
        for (name, value) in overrides {
            settings.start.insert(name.to_ascii_lowercase(), value);
        }
        settings.derive()?;
        Ok(settings)
    }
    /// A setting of the startup packet: what RESET returns to.
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<()> {
        let (key, value) = self.check(name, Given::Text(value))?;
        self.start.insert(key, value);
        self.derive()
    }
    /// Ready values.
    pub fn derived(&self) -> &Arc<Derived> {
        &self.derived
    }
    /// The settings, and who set them, that the meaning of a text or its plan may depend on: all but those known not to.
    pub fn planning(&self) -> &Arc<str> {
        &self.planning
    }
    /// Counts changes: equal numbers mean equal settings.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value as SHOW prints it.
    pub fn show(&self, name: &str) -> Result<String> {
        let Some(definition) = definition(name) else {
            return self.raw(&name.to_ascii_lowercase()).map(str::to_owned).ok_or_else(|| unknown(name));
        };
        Ok(self.print(definition))
    }
    fn print(&self, definition: &Definition) -> String {
        let value = self.raw(&definition.name.to_ascii_lowercase()).unwrap_or(definition.default);
        value::print(definition.kind, value)
    }
    /// The value as it is kept.
    fn raw(&self, key: &str) -> Option<&str> {
        let found = self.local.get(key).or_else(|| self.session.get(key)).or_else(|| self.start.get(key));
        found.map(String::as_str)
    }
    /// Name, value and description of all.
    pub fn all(&self) -> Vec<(&'static str, String, &'static str)> {
        DEFINITIONS.iter().map(|d| (d.name, self.print(d), d.description)).collect()
    }
    /// Values of the settings that clients are told.
    pub fn reported(&self) -> Vec<(&'static str, String)> {
        DEFINITIONS.iter().filter(|d| d.report).map(|d| (d.name, self.print(d))).collect()
    }
    /// Those that changed since the last call.
    pub fn take_changed(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.changed).into_iter().map(|d| (d.name, self.print(d))).collect()
    }

    /// SET [LOCAL] name TO values.
    pub fn set(&mut self, name: &str, values: &[String], local: bool) -> Result<()> {
        let (key, value) = self.check(name, Given::Arguments(values))?;
        self.put(key, Some(value), local)
    }
    /// set_config: lists come as one text.
    pub fn set_text(&mut self, name: &str, value: &str, local: bool) -> Result<()> {
        let (key, value) = self.check(name, Given::Text(value))?;
        self.put(key, Some(value), local)
    }
    /// RESET name, SET name TO DEFAULT.
    pub fn reset(&mut self, name: &str, local: bool) -> Result<()> {
        match definition(name) {
            Some(d) => check_context(d)?,
            None if is_custom(name) => {}
            None => return Err(unknown(name)),
        }
        let key = canonical(name);
        let value = if local { Some(self.start.get(&key).cloned().unwrap_or_else(|| default_of(name))) } else { None };
        self.put(key, value, local)
    }
    /// RESET ALL.
    pub fn reset_all(&mut self) -> Result<()> {
        let keys: Vec<String> = self.session.keys().chain(self.local.keys()).cloned().collect();
        for key in keys {
            self.put(key, None, false)?;
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: Option<String>, local: bool) -> Result<()> {
        let before = self.raw(&key).map(str::to_owned);
        self.undo.push(Undo {
            session: self.session.get(&key).cloned(),
            local: self.local.get(&key).cloned(),
            name: key.clone(),
        });
        if local {
            set_or_remove(&mut self.local, &key, value);
        } else {
            self.local.remove(&key);
            set_or_remove(&mut self.session, &key, value);
        }
        self.note_change(&key, before.as_deref());
        self.derive()
    }

    fn note_change(&mut self, key: &str, before: Option<&str>) {
        if let Some(d) = definition(key).filter(|d| d.report)
            && self.raw(key) != before
            && !self.changed.iter().any(|c| c.name == d.name)
        {
            self.changed.push(d);
        }
    }

    /// A place in the log to go back to: a savepoint's.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }
    /// Takes back what was set since a mark.
    pub fn undo_to(&mut self, mark: usize) {
        if self.undo.len() <= mark {
            return;
        }
        while self.undo.len() > mark {
            let Some(u) = self.undo.pop() else { break };
            let before = self.raw(&u.name).map(str::to_owned);
            set_or_remove(&mut self.session, &u.name, u.session);
            set_or_remove(&mut self.local, &u.name, u.local);
            self.note_change(&u.name, before.as_deref());
        }
        self.derive_again();
    }
    /// The transaction is committed: SET LOCAL ends, the rest stays.
    pub fn commit(&mut self) {
        if self.undo.is_empty() && self.local.is_empty() {
            return;
        }
        self.undo.clear();
        let ended: Vec<(String, String)> = self.local.drain().collect();
        for (key, before) in ended {
            self.note_change(&key, Some(&before));
        }
        self.derive_again();
    }
    /// The transaction is rolled back: all it set is undone.
    pub fn rollback(&mut self) {
        self.undo_to(0);
    }

    /// Values that were good once are good again.
    fn derive_again(&mut self) {
        if let Err(e) = self.derive() {
            tracing::error!(error = %e, "a setting that was accepted before was refused");
        }
    }

    fn check(&self, name: &str, given: Given<'_>) -> Result<(String, String)> {
        let Some(definition) = definition(name) else {
            if is_custom(name) {
                let value = match given {
                    Given::Arguments(values) => values.join(", "),
                    Given::Text(text) => text.to_owned(),
                };
                return Ok((name.to_ascii_lowercase(), value));
            }
            return Err(unknown(name));
        };
        check_context(definition)?;
        Ok((canonical(name), value::check(definition, given)?))
    }

    fn derive(&mut self) -> Result<()> {
        let text = |name: &str| self.raw(name).map_or_else(|| default_of(name), str::to_owned);
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(0);
        let milliseconds = |name: &str| u64::try_from(number(name)).ok().filter(|n| *n > 0).map(Duration::from_millis);
        let derived = Derived {
            time_zone: TimeZone::setting(&text("timezone")).unwrap_or_else(TimeZone::utc),
            date_order: value::date_order(&text("datestyle")),
            bytea_hex: text("bytea_output") == "hex",
            work_mem_bytes: number("work_mem").max(64) as usize * 1024,
            statement_timeout: milliseconds("statement_timeout"),
            lock_timeout: milliseconds("lock_timeout"),
            client_check: milliseconds("client_connection_check_interval"),
            deadlock_timeout: milliseconds("deadlock_timeout").unwrap_or_default(),
            idle_session_timeout: milliseconds("idle_session_timeout"),
            idle_in_transaction_session_timeout: milliseconds("idle_in_transaction_session_timeout"),
            synchronous: text("synchronous_commit") != "off",
            search_path: value::split_list(&text("search_path")),
            min_severity: value::severity(&text("client_min_messages")),
            read_only: text("default_transaction_read_only") == "on",
            isolation: IsolationLevel::parse(&text("default_transaction_isolation")),
            deferrable: text("default_transaction_deferrable") == "on",
            as_of: text("bee.as_of"),
            commit_message: text("bee.commit_message"),
            application_name: text("application_name"),
            fetch_wait: milliseconds("bee.fetch_wait").unwrap_or_default(),
        };
        self.derived = Arc::new(derived);
        self.planning = self.describe_planning();
        self.generation += 1;
        Ok(())
    }
}

impl Settings {
    fn describe_planning(&self) -> Arc<str> {
        let mut names: Vec<&String> =
            [&self.start, &self.session, &self.local].into_iter().flat_map(|m| m.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut text = String::new();
        for name in names.into_iter().filter(|n| !PLANS_IGNORE.contains(&n.as_str())) {
            let value = self.raw(name).unwrap_or_default();
            text.push_str(&format!("{name}={}:{value};", value.len()));
        }
        text.into()
    }
}

impl Derived {
    fn defaults() -> Derived {
        Derived {
            time_zone: TimeZone::utc(),
            date_order: DateOrder::Mdy,
            bytea_hex: true,
            work_mem_bytes: 4 << 20,
            statement_timeout: None,
            lock_timeout: None,
            client_check: None,
            deadlock_timeout: Duration::from_millis(10),
            idle_session_timeout: None,
            idle_in_transaction_session_timeout: None,
            synchronous: true,
            search_path: Vec::new(),
            min_severity: 0,
            read_only: false,
            isolation: IsolationLevel::ReadCommitted,
            deferrable: false,
            as_of: String::new(),
            commit_message: String::new(),
            application_name: String::new(),
            fetch_wait: Duration::ZERO,
        }
    }
}

fn set_or_remove(map: &mut FxHashMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value);
        }
        None => {
            map.remove(key);
        }
    }
}

/// The key a setting is kept under.
fn canonical(name: &str) -> String {
    definition(name).map_or_else(|| name.to_ascii_lowercase(), |d| d.name.to_ascii_lowercase())
}

fn default_of(name: &str) -> String {
    definition(name).map_or_else(String::new, |d| d.default.to_owned())
}

/// `extension.name`: PostgreSQL keeps such settings for extensions it does not know.
fn is_custom(name: &str) -> bool {
    let mut parts = name.split('.');
    let is_word = |p: &str| {
        !p.is_empty()
            && p.bytes().enumerate().all(|(i, b)| {
                b == b'_' || b.is_ascii_alphabetic() || b >= 0x80 || i > 0 && (b.is_ascii_digit() || b == b'$')
            })
    };
    name.contains('.') && parts.all(is_word) && !name.to_ascii_lowercase().starts_with("bee.")
}

fn check_context(definition: &Definition) -> Result<()> {
    let why = match definition.context {
        Context::User => return Ok(()),
        Context::Internal => "cannot be changed",
        Context::Start => "cannot be changed without restarting the server",
        Context::Reload => "cannot be changed now",
        Context::Database => "cannot be changed for a session",
    };
    let error = SqlError::new(CANT_CHANGE_RUNTIME_PARAM, format!("parameter \"{}\" {why}", definition.name));
    if definition.context == Context::Database {
        return Err(error.hint(format!("Use ALTER DATABASE ... SET {}.", definition.name)));
    }
    Err(error)
}

#[cfg(test)]
mod tests;
