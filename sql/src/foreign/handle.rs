//! An open bee that someone else writes: its newest head, the heads it had, and if pgbee wrote it its definitions.
//!
//! There is one for a key in an instance, shared by its sessions; the last one to let go closes it, which ends following it over the network unless it is
//! followed as a database, too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgbee_engine::txn::{Database, Snapshot};
use pgbee_engine::{Error, Length, Version};

use crate::catalog::{Catalog, load};
use crate::error::{Result, SqlError, state};
use crate::functions::context::CancelFlag;

/// Heads remembered.
const HEADS_MAX: usize = 10_000;
/// How long a waiting statement goes without looking for a cancel.
const POLL: Duration = Duration::from_millis(20);

/// Waits until there is a first version.
type FirstHead = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// What closing a bee does.
pub type OnClose = Box<dyn FnOnce() + Send + Sync>;

/// An open bee.
pub struct ForeignBee {
    database: Arc<Database>,
    /// Someone may send what is not here.
    has_network: bool,
    catalogs: load::Cache,
    /// Lengths seen as heads: in a bee without commit records the only versions known.
    heads: Mutex<BTreeSet<u64>>,
    on_close: Mutex<Option<OnClose>>,
    first_head: Option<FirstHead>,
}

impl std::fmt::Debug for ForeignBee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForeignBee({})", self.database.key())
    }
}

impl ForeignBee {
    /// A bee in a core of the store.
    pub fn new(database: Arc<Database>, has_network: bool, on_close: Option<OnClose>) -> ForeignBee {
        ForeignBee {
            database,
            has_network,
            catalogs: load::Cache::default(),
            heads: Mutex::default(),
            on_close: Mutex::new(on_close),
            first_head: None,
        }
    }
    /// The same, which waits in this way for a first version.
    #[must_use]
    pub fn waiting(mut self, first_head: impl Fn() -> Result<()> + Send + Sync + 'static) -> ForeignBee {
        self.first_head = Some(Box::new(first_head));
        self
    }
    /// The database over its core.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The newest version. If none is known yet, waits until a peer tells one.
    ///
    /// # Errors
    /// 58030 when nobody can tell; a cancel.
    pub fn newest(&self, cancel: &CancelFlag) -> Result<Snapshot> {
        let core = self.database.core();
        if let Some(wait) = self.first_head.as_ref().filter(|_| core.is_empty() && !core.is_writable()) {
            wait()?;
        }
        while core.len().0 == 0 && !core.is_writable() {
            cancel.check()?;
            if !self.has_network {
                return Err(SqlError::new(state::IO_ERROR, format!("nothing is stored of bee {}", core.key()))
                    .hint("The option peer names peers that have it."));
            }
            core.watch().wait_for(Length(1), POLL);
        }
        let snapshot = self.database.snapshot();
        self.note(snapshot.version());
        Ok(snapshot)
    }

    fn note(&self, version: Version) {
        let mut heads = self.heads.lock();
        if heads.insert(version.0) && heads.len() > HEADS_MAX {
            heads.pop_first();
        }
    }

    /// A version: the end of a commit where there are commit records, else a length that was a head.
    ///
    /// # Errors
    /// 22023 for what is not known to be a version.
    pub fn at(&self, version: u64, cancel: &CancelFlag) -> Result<Snapshot> {
        let newest = self.newest(cancel)?;
        match self.database.snapshot_at(Version(version)) {
            Err(Error::NotAVersion { .. }) if version <= newest.version().0 && self.heads.lock().contains(&version) => {
                Ok(self.database.snapshot_of_head(Version(version)))
            }
            Err(Error::NotAVersion { .. }) => {
                let known: Vec<String> = self.heads.lock().iter().rev().take(8).rev().map(u64::to_string).collect();
                Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("{version} is not a version of bee {}", self.database.key()),
                )
                .detail(format!("Versions known here: {}.", known.join(", "))))
            }
            other => Ok(other?),
        }
    }

    /// The definitions of a version of a bee that pgbee wrote.
    ///
    /// # Errors
    /// Those of reading.
    pub fn catalog(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        self.catalogs.get(snapshot, self.database.core().watch().position().fork.0)
    }
}

impl Drop for ForeignBee {
    fn drop(&mut self) {
        if let Some(close) = self.on_close.lock().take() {
            close();
        }
    }
}
