//! `synchronous_commit = off`, bounded in time: what was answered before the disk had it is there soon after.
//!
//! ```text
//! commit, not synced    answered at once ... commit, not synced ... commit, not synced
//!        |------------------ DELAY -----------------| one sync for all of them; then, if more came, again
//! ```
//!
//! The thread lives while there is something to sync and ends after it, so a database that is not written costs nothing. What a crash can take
//! away is what was committed in the last [`DELAY`] and the time of a sync: PostgreSQL's bound is three times wal_writer_delay, 600 ms.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pgbee_engine::txn::Database;

/// How long a commit stays un-synced: PostgreSQL's wal_writer_delay.
const DELAY: Duration = Duration::from_millis(200);

/// Syncs a database some time after commits that did not.
pub(super) struct Flusher {
    database: Weak<Database>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Default)]
struct State {
    is_dirty: bool,
    is_running: bool,
    is_closing: bool,
}

impl Flusher {
    /// For this database; nothing runs yet.
    pub fn new(database: &Arc<Database>) -> Flusher {
        Flusher { database: Arc::downgrade(database), shared: Arc::default(), thread: Mutex::default() }
    }

    /// Something was committed that is not synced.
    pub fn soon(&self) {
        {
            let mut state = self.shared.state.lock();
            state.is_dirty = true;
            if state.is_running {
                return;
            }
        }
        // Held until the thread is noted: closing waits for the one that runs, not for one before it.
        let mut thread = self.thread.lock();
        if std::mem::replace(&mut self.shared.state.lock().is_running, true) {
            return;
        }
        let (shared, database) = (self.shared.clone(), self.database.clone());
        let spawned = std::thread::Builder::new().name("flush".into()).spawn(move || shared.run(&database));
        match spawned {
            // The one before has ended: it said so.
            Ok(spawned) => *thread = Some(spawned),
            Err(error) => {
                tracing::warn!(%error, "commits are not synced in the background");
                self.shared.state.lock().is_running = false;
            }
        }
    }
}

impl Shared {
    fn run(&self, database: &Weak<Database>) {
        let mut has_failed = false;
        loop {
            {
                let mut state = self.state.lock();
                if !state.is_dirty || state.is_closing {
                    state.is_running = false;
                    return;
                }
                self.closing.wait_while_for(&mut state, |state| !state.is_closing, DELAY);
                if state.is_closing {
                    state.is_running = false;
                    return;
                }
                state.is_dirty = false;
            }
            let Some(database) = database.upgrade() else { continue };
            match database.core().sync() {
                Ok(()) => has_failed = false,
                Err(error) => {
                    // Commits that ask for it are refused meanwhile; these were answered, and are tried for as long as it takes.
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::error!(%error, "commits that were answered before the disk had them cannot be synced");
                    }
                    self.state.lock().is_dirty = true;
                }
            }
        }
    }
}

impl Drop for Flusher {
    // A store may be opened again once its instance is gone: nothing may still be using it.
    fn drop(&mut self) {
        self.shared.state.lock().is_closing = true;
        self.shared.closing.notify_all();
        if let Some(thread) = self.thread.get_mut().take()
            && thread.join().is_err()
        {
            tracing::error!("syncing in the background panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgbee_engine::bee::Cache;
    use pgbee_engine::corestore::{self, Store};
    use pgbee_engine::storage::faulty::{Faulty, Plan};
    use pgbee_engine::storage::memory::Memory;
    use pgbee_engine::storage::{Backend, Durability};
    use pgbee_engine::txn::{CommitInfo, Options};
    use std::time::Instant;

    fn database(backend: Arc<dyn Backend>) -> Arc<Database> {
        let store = Store::open(backend, corestore::Options::default()).unwrap();
        Database::open(store.get_by_name("db").unwrap(), Cache::new(1 << 20), Options::default()).unwrap()
    }

    fn commit(database: &Database) {
        let mut txn = database.begin();
        txn.put("k", "v").unwrap();
        let info = CommitInfo { durability: Durability::NoSync, ..CommitInfo::at(1) };
        database.commit(txn, info).unwrap();
    }

    fn wait_until(mut f: impl FnMut() -> bool) -> Duration {
        let start = Instant::now();
        while !f() {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    }

    #[test]
    fn what_was_not_synced_is_soon() {
        let database = database(Arc::new(Memory::new()));
        let flusher = Flusher::new(&database);
        for _ in 0..2 {
            commit(&database);
            assert!(database.core().durable_len() < database.core().len());
            flusher.soon();
            wait_until(|| database.core().durable_len() == database.core().len());
            wait_until(|| !flusher.shared.state.lock().is_running);
        }
        // Closing waits for no delay; a busy machine may look as if it did.
        drop(flusher);
        let closes_at_once = |_| {
            let flusher = Flusher::new(&database);
            commit(&database);
            flusher.soon();
            let start = Instant::now();
            drop(flusher);
            start.elapsed() < DELAY
        };
        assert!((0..20).any(closes_at_once));
    }

    #[test]
    fn it_is_tried_again_until_the_disk_takes_it() {
        let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
        let database = database(faulty.clone());
        let flusher = Flusher::new(&database);
        commit(&database);
        faulty.crash();
        flusher.soon();
        std::thread::sleep(2 * DELAY);
        assert!(database.core().durable_len() < database.core().len());
        faulty.heal(usize::MAX).unwrap();
        wait_until(|| database.core().durable_len() == database.core().len());
    }
}
