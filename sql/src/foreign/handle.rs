//! An open bee that someone else writes: its newest head, the heads it had, and if pgbee wrote it its definitions.
//!
//! There is one [`OpenBee`] for a key in an instance; each session reads it through a [`ForeignBee`] of its own, which waits for peers as the session's statements do. The last
//! one to let go closes it, which ends following it over the network.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pgbee_engine::txn::{Database, Snapshot};
use pgbee_engine::{Error, Length, Version};

use crate::catalog::{Catalog, load};
use crate::error::{Result, SqlError, state};
use crate::follow::Network;
use crate::wait::Waiting;

/// Heads remembered.
const HEADS_MAX: usize = 10_000;

/// What closing a bee does.
pub type OnClose = Box<dyn FnOnce() + Send + Sync>;

/// A bee that some session reads.
pub struct OpenBee {
    database: Arc<Database>,
    catalogs: load::Cache,
    /// Lengths seen as heads: in a bee without commit records the only versions known.
    heads: Mutex<BTreeSet<u64>>,
    /// Nobody knows yet whether peers have more than was stored.
    is_unasked: AtomicBool,
    on_close: Mutex<Option<OnClose>>,
}

impl OpenBee {
    /// A bee in a core of the store.
    pub fn new(database: Arc<Database>, on_close: Option<OnClose>) -> OpenBee {
        let is_unasked = AtomicBool::new(on_close.is_some());
        let (catalogs, heads) = (load::Cache::default(), Mutex::default());
        OpenBee { database, catalogs, heads, is_unasked, on_close: Mutex::new(on_close) }
    }
    /// The database over its core, which waits for nobody.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }
    fn note(&self, version: Version) {
        let mut heads = self.heads.lock();
        if heads.insert(version.0) && heads.len() > HEADS_MAX {
            heads.pop_first();
        }
    }
}

impl Drop for OpenBee {
    fn drop(&mut self) {
        if let Some(close) = self.on_close.lock().take() {
            close();
        }
    }
}

/// A bee as one session reads it.
pub struct ForeignBee {
    open: Arc<OpenBee>,
    database: Arc<Database>,
    waiting: Arc<Waiting>,
    network: Option<Arc<dyn Network>>,
}

impl std::fmt::Debug for ForeignBee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForeignBee({})", self.database.key())
    }
}

impl ForeignBee {
    /// An open bee, read through `reader`.
    pub fn new(
        open: Arc<OpenBee>,
        reader: Arc<Database>,
        waiting: Arc<Waiting>,
        network: Option<Arc<dyn Network>>,
    ) -> ForeignBee {
        ForeignBee { open, database: reader, waiting, network }
    }

    /// The newest version. If none is known yet, waits until a peer shows one; where following it has just begun, a little for what is new, as
    /// JavaScript's `update()` does: a session may be over long before the next one begins, and see nothing else.
    ///
    /// # Errors
    /// 58030 when nobody does; a cancel.
    pub fn newest(&self) -> Result<Snapshot> {
        self.wait_for_head()?;
        let snapshot = self.database.snapshot();
        self.open.note(snapshot.version());
        Ok(snapshot)
    }

    fn wait_for_head(&self) -> Result<()> {
        let core = self.database.core();
        let remote = || self.network.as_ref().and_then(|n| n.remote(core.key())).unwrap_or_default();
        if self.open.is_unasked.load(Ordering::Relaxed) && !core.is_empty() {
            // Others who come meanwhile wait as well, and again after a cancel.
            self.waiting.wait_for_news(core, &remote)?;
            self.open.is_unasked.store(false, Ordering::Relaxed);
        }
        if !core.is_empty() || core.is_writable() {
            return Ok(());
        }
        let search = || self.network.as_ref().and_then(|n| n.search(core.key()));
        let name = format!("bee {}", core.key());
        let waited = self.waiting.wait_for_first_head(core, Length(1), &name, &remote, &search);
        waited.map_err(|e| match e.state() {
            state::IO_ERROR => e.hint("The option peer of the foreign table or its server names peers that have it."),
            _ => e,
        })
    }

    /// A version: the end of a commit where there are commit records, else a length that was a head.
    ///
    /// # Errors
    /// 22023 for what is not known to be a version.
    pub fn at(&self, version: u64) -> Result<Snapshot> {
        let newest = self.newest()?;
        match self.database.snapshot_at(Version(version)) {
            Err(Error::NotAVersion { .. }) => {
                let heads = self.open.heads.lock();
                if version <= newest.version().0 && heads.contains(&version) {
                    return Ok(self.database.snapshot_of_head(Version(version)));
                }
                let known: Vec<String> = heads.iter().rev().take(8).rev().map(u64::to_string).collect();
                let message = format!("{version} is not a version of bee {}", self.database.key());
                Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                    .detail(format!("The last versions known here are {}.", known.join(", "))))
            }
            other => Ok(other?),
        }
    }

    /// The definitions of a version of a bee that pgbee wrote.
    ///
    /// # Errors
    /// Those of reading.
    pub fn catalog(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        self.open.catalogs.get(snapshot, self.database.core().watch().position().fork.0)
    }
}
