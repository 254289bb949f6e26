//! What only a session that reads what others write does: waiting for a first head, refusing what only a writer may, fetching ahead of need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgbee_engine::bee::{Direction, KeyRange};
use pgbee_engine::{BlockIndex, Length, Version};

use super::instance::Progress;
use super::query::{Planned, Ran};
use super::shared::{Shared, unix_micros};
use super::transaction::StatementCx;
use super::{Notice, Outcome, Session};
use crate::bind::{Bound, ParamTypes};
use crate::catalog::schema::Relation;
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::follow::{CoreKey, ReadKey, parse_key, parse_read_key};
use crate::foreign::OWN_SERVER;
use crate::parse::ast::DefValue;
use crate::wait::{FetchSource, What};
use pgbee_engine::hypercore::BlockSource;

/// SQLSTATE warning.
const WARNING: &str = "01000";
/// Entries read at once by a download.
const ENTRIES: usize = 64;

impl Session {
    /// Whether it is a follower that has heard of no version yet.
    pub(super) fn awaits_first_head(&self) -> bool {
        self.shared.is_follower() && self.shared.awaits_first_head()
    }

    /// Runs what needs definitions. On a follower that has heard of no version yet, what fails for want of them waits for the first one and is run again; `SELECT 1`
    /// does not. What looks for them in system relations (psql's `\d`) waits, too, and is answered with a warning when nothing comes.
    pub(super) fn with_first_head<T: Settle>(&mut self, mut run: impl FnMut(&mut Session) -> Result<T>) -> Result<T> {
        if !self.awaits_first_head() {
            return run(self);
        }
        self.shared.has_read_definitions.store(false, Ordering::Relaxed);
        let first = run(self).and_then(|mut given| given.settle().map(|()| given));
        match first {
            Ok(empty) if self.shared.has_read_definitions.load(Ordering::Relaxed) => {
                match self.shared.wait_for_first_head() {
                    Ok(()) => {
                        drop(empty);
                        self.forget_empty_snapshot();
                        run(self)
                    }
                    Err(mut nobody) if nobody.state() == state::IO_ERROR => {
                        nobody.0.state = WARNING;
                        self.shared.notices.lock().push(Notice { severity: "WARNING", report: nobody });
                        Ok(empty)
                    }
                    Err(other) => Err(other),
                }
            }
            Err(error) if is_unknown(&error) => {
                self.shared.wait_for_first_head()?;
                self.forget_empty_snapshot();
                run(self)
            }
            other => other,
        }
    }

    /// 25006 for upkeep that only a writer does.
    pub(super) fn refuse_on_follower(&self, what: &str) -> Result<()> {
        if self.shared.is_follower() {
            let message = format!("cannot execute {what} during recovery");
            return Err(SqlError::new(state::READ_ONLY_SQL_TRANSACTION, message));
        }
        Ok(())
    }
}

/// What can be brought to the point where nothing in it can fail any more.
pub(super) trait Settle {
    /// Does so.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Settle for Ran {
    fn settle(&mut self) -> Result<()> {
        match self {
            Ran::Rows(rows) => rows.settle(),
            Ran::Tag(_) => Ok(()),
        }
    }
}

impl Settle for Outcome {}
// What is prepared or explained: nothing ran yet.
impl Settle for (ParamTypes, Arc<Planned>) {}
impl Settle for (StatementCx, Bound) {}

/// Whether a statement failed because something it names is not known.
fn is_unknown(error: &SqlError) -> bool {
    matches!(
        error.state(),
        state::UNDEFINED_TABLE
            | state::UNDEFINED_OBJECT
            | state::INVALID_SCHEMA_NAME
            | state::INVALID_PARAMETER_VALUE
            | state::UNDEFINED_FUNCTION
    )
}

/// The first length with a root: a JavaScript bee shows its header alone, on the way to its first entry.
pub(super) const FIRST_VERSION: Version = Version(2);

impl Shared {
    fn awaits_first_head(&self) -> bool {
        self.database.head() < FIRST_VERSION
    }
    /// Waits for the first verified head.
    fn wait_for_first_head(&self) -> Result<()> {
        let core = self.database.core();
        let remote = || self.instance.remote(core.key());
        let search = || self.instance.network().and_then(|network| network.search(core.key()));
        self.waiting.wait_for_first_head(core, Length(FIRST_VERSION.0), &self.db.title(), &remote, &search)
    }

    /// bee_download(): fetches a table with its indexes, an index, or everything; how many blocks came.
    pub(super) fn download(&self, relation: Option<u32>) -> Result<u64> {
        let catalog = self.current.lock().catalog.clone();
        let foreign = match relation.and_then(|oid| catalog.by_oid(oid)) {
            Some(Relation::Table(table)) => table.foreign.as_ref().map(|foreign| (table, foreign.server)),
            _ => None,
        };
        // The one table of a bee that pgbee did not write is all of it.
        let relation = relation.filter(|_| foreign.is_none_or(|(_, server)| server != OWN_SERVER));
        if let Some((table, _)) = foreign.filter(|_| relation.is_some()) {
            return Err(SqlError::unsupported(format!("bee_download() of foreign table \"{}\"", table.name))
                .hint("Follow its bee as a database: CREATE DATABASE ... WITH bee_key = '...'."));
        }
        if !self.is_follower() {
            return Ok(0);
        }
        if self.awaits_first_head() {
            self.wait_for_first_head()?;
        }
        let before = self.waiting.fetched();
        let progress = |what: String, total| Progress {
            pid: self.backend_pid,
            database: self.db.name.clone(),
            what,
            total,
            started_at: unix_micros(),
            waiting: self.waiting.clone(),
            before,
        };
        match relation {
            None => {
                let core = self.database.core();
                let total = core.len().0.saturating_sub(core.held_blocks());
                let _shown = self.instance.show_progress(progress(format!("database {}", self.db.name), Some(total)));
                self.download_all()?;
                Ok(self.waiting.fetched().since(before).blocks)
            }
            Some(oid) => {
                let (what, ranges) = self.ranges(oid)?;
                let _shown = self.instance.show_progress(progress(what, None));
                for range in ranges {
                    self.read_through(range)?;
                }
                Ok(self.waiting.fetched().since(before).blocks)
            }
        }
    }

    fn download_all(&self) -> Result<()> {
        let core = self.database.core().clone();
        let length = core.len();
        self.waiting.reading(What::Named("all of it".into()), length.0);
        let source = FetchSource::new(core.clone(), self.db.title(), self.waiting.clone());
        let _all = core.wants().want_range_for(BlockIndex(0)..BlockIndex(length.0), self.waiting.received());
        loop {
            let missing = BlockIndex(core.contiguous_len().0);
            if !length.contains(missing) {
                return Ok(());
            }
            source.fetch(missing)?;
        }
    }

    /// What a relation is called and where its entries lie.
    fn ranges(&self, oid: u32) -> Result<(String, Vec<KeyRange>)> {
        let catalog = self.current.lock().catalog.clone();
        let of_index = |table: &crate::catalog::Table, oid: u32| match &table.primary_key {
            Some(key) if key.oid == oid => keyspace::table_range(table.oid),
            _ => keyspace::index_range(oid),
        };
        match catalog.by_oid(oid) {
            Some(Relation::Table(table)) => {
                let mut ranges = vec![keyspace::table_range(table.oid)];
                ranges.extend(table.indexes.iter().map(|index| keyspace::index_range(index.oid)));
                self.waiting.reading(What::Table(table.clone()), self.current.lock().version);
                Ok((format!("table {}", table.name), ranges))
            }
            Some(found @ Relation::Index(table, oid)) => {
                self.waiting.reading(What::Table(table.clone()), self.current.lock().version);
                Ok((format!("index {}", found.name()), vec![of_index(table, *oid)]))
            }
            Some(other) => {
                Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table or index", other.name())))
            }
            None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation with OID {oid} does not exist"))),
        }
    }

    /// Reads a range of the version the statement reads, to the end.
    fn read_through(&self, range: KeyRange) -> Result<()> {
        let version = self.current.lock().version;
        let mut scan = self.snapshot_at(version)?.scan(range, Direction::Forward);
        let mut entries = Vec::with_capacity(ENTRIES);
        while scan.next_batch(&mut entries, ENTRIES)? > 0 {
            self.cancel.check()?;
            entries.clear();
        }
        Ok(())
    }
}

/// Whom CREATE DATABASE follows: a key, peers, and what the blocks are encrypted with.
type Follows = (CoreKey, Vec<String>, Option<ReadKey>);

/// The key and the peers that CREATE DATABASE ... WITH bee_key names; None without one.
///
/// # Errors
/// 22023 for a key that is none, 0A000 for another option beside them.
pub(super) fn followed_by(options: &[(String, DefValue)]) -> Result<Option<Follows>> {
    let Some((_, key)) = options.iter().find(|(name, _)| name == "bee_key") else {
        return match options.iter().find(|(name, _)| matches!(name.as_str(), "peer" | "read_key")) {
            Some((name, _)) => {
                let message = format!("option \"{name}\" needs option \"bee_key\"");
                Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message))
            }
            None => Ok(None),
        };
    };
    let key = parse_key(key.text().unwrap_or_default())?;
    let (mut peers, mut read_key) = (Vec::new(), None);
    for (name, value) in options {
        match name.as_str() {
            "bee_key" => {}
            "read_key" => read_key = Some(parse_read_key(value.text().unwrap_or_default())?),
            "peer" => {
                let listed = value.text().unwrap_or_default().split(',').map(str::trim).filter(|p| !p.is_empty());
                peers.extend(listed.map(str::to_owned));
            }
            other => {
                return Err(SqlError::unsupported(format!(
                    "CREATE DATABASE ... {} with bee_key",
                    other.to_uppercase()
                )));
            }
        }
    }
    for peer in &peers {
        check_address(peer)?;
    }
    Ok(Some((key, peers, read_key)))
}

/// 22023 for what cannot be `host:port`.
fn check_address(text: &str) -> Result<()> {
    let sound = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if sound {
        return Ok(());
    }
    Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid peer address: \"{text}\""))
        .hint("An address is written host:port; several are separated by commas."))
}
