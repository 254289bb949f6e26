//! Where the bees of foreign tables come from: cores of the instance's own store, followed over the network if there is one.
//!
//! ```text
//! instance    OpenBee      one a key: the core, followed as long as a session reads it; catalogs and heads known of it
//! session     ForeignBee   the same bee read through the session's own source, which waits for peers while a statement runs
//! ```
//!
//! The last session to let go of a bee ends following it. A core that is also a database here is not this module's to follow or to let go.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pgbee_engine::CoreKey;
use pgbee_engine::bee::extension;
use pgbee_engine::txn::{Database, Options};
use rustc_hash::FxHashMap;

use super::instance::Instance;
use super::shared::Shared;
use crate::error::Result;
use crate::foreign::handle::{ForeignBee, OnClose, OpenBee};
use crate::wait::FetchSource;

/// The bees open in an instance.
#[derive(Default)]
pub(super) struct ForeignBees {
    open: Mutex<FxHashMap<CoreKey, Weak<OpenBee>>>,
}

/// The bees a session reads.
#[derive(Default)]
pub(super) struct SessionBees {
    held: Mutex<FxHashMap<CoreKey, Arc<ForeignBee>>>,
}

impl SessionBees {
    /// A bee by its key; from its first use on with connections to these peers.
    pub fn get(&self, key: CoreKey, peers: &[String], shared: &Shared) -> Result<Arc<ForeignBee>> {
        if let Some(bee) = self.held.lock().get(&key) {
            return Ok(bee.clone());
        }
        let open = shared.instance.open_bee(key, peers)?;
        let core = open.database().core().clone();
        let reader = if core.is_writable() {
            open.database().clone()
        } else {
            let title = format!("bee {}", core.key());
            let source = FetchSource::new(core.clone(), title, shared.waiting.clone());
            Database::reader(core, source, shared.instance.cache().clone())
        };
        let bee = Arc::new(ForeignBee::new(open, reader, shared.waiting.clone(), shared.instance.network()));
        Ok(self.held.lock().entry(key).or_insert(bee).clone())
    }
}

impl Instance {
    /// Opens a bee, or finds it open; the network is told of peers. Asks them nothing yet.
    fn open_bee(self: &Arc<Self>, key: CoreKey, peers: &[String]) -> Result<Arc<OpenBee>> {
        // Dropped after the lock, for closing takes it.
        let known;
        let mut open = self.foreign.open.lock();
        open.retain(|_, bee| bee.strong_count() > 0);
        known = open.get(&key).and_then(Weak::upgrade);
        let own = self.database_of(key);
        let database = match (&known, &own) {
            (Some(bee), _) => bee.database().clone(),
            (None, Some(database)) => database.clone(),
            (None, None) => {
                let core = self.store().get_by_key(key)?;
                // Peers who read this bee may ask which blocks they will need.
                extension::register(&core, self.cache().clone());
                Database::open(core, self.cache().clone(), Options::default())?
            }
        };
        let core = database.core();
        let network = self.network().filter(|_| !core.is_writable());
        if let Some(network) = &network {
            network.follow(core, peers)?;
        }
        if let Some(bee) = known {
            return Ok(bee);
        }
        let on_close = network.map(|network| {
            let instance = Arc::downgrade(self);
            let close: OnClose = Box::new(move || {
                let Some(instance) = instance.upgrade() else { return network.unfollow(key) };
                // One step for whoever opens it again: it is followed under the same lock.
                let open = instance.foreign.open.lock();
                let is_open = open.get(&key).is_some_and(|bee| bee.strong_count() > 0);
                if !is_open && instance.database_of(key).is_none() {
                    network.unfollow(key);
                }
            });
            close
        });
        let bee = Arc::new(OpenBee::new(database, on_close));
        open.insert(key, Arc::downgrade(&bee));
        Ok(bee)
    }

    /// Whether a session reads a bee.
    pub(super) fn is_open_bee(&self, key: CoreKey) -> bool {
        self.foreign.open.lock().get(&key).is_some_and(|bee| bee.strong_count() > 0)
    }
}
