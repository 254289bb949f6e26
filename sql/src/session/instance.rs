//! A data directory: its databases, each a bee in a core of its own, and what never enters a bee.
//!
//! ```text
//! DIR/store           RocksDB: blocks and Merkle nodes of all cores
//! DIR/instance.json   names of databases and their cores; keys and peers of those that are followed; read keys of those that are encrypted; password
//!                     verifiers. Readable by its owner only
//! ```
//!
//! A database is written here or followed: read from the core of another writer, with what a [`Network`] fetches of it. Opening either kind, connecting to it, verifying it and
//! shutting down read what is here and ask no peer.
//!
//! A bee is readable by whoever has its key; roles and passwords therefore live in the second file. It is replaced as a whole, by a rename.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use pgbee_engine::Error;
use pgbee_engine::bee::{Cache, extension};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::encryption::EncryptionKey;
use pgbee_engine::storage::Backend;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::txn::{CommitInfo, Database, Options, Snapshot, Subscription};
use pgbee_engine::{CoreKey, Length};
use serde::{Deserialize, Serialize};

use super::Session;
use super::activity::{Activities, Activity, End};
use super::flusher::Flusher;
use super::followed::Followed;
use super::foreign::ForeignBees;
use super::listen::Channels;
use super::locking::Oids;
use super::plans::PlanCache;
use super::shared::unix_micros;
use crate::catalog::change::Change;
use crate::catalog::schema::Schema;
use crate::catalog::{Catalog, FIRST_USER_OID, PUBLIC, load};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::follow::{CoreStatus, Network, PeerStatus, ProgressStatus, ReadKey, Remote};
use crate::functions::context::CancelFlag;
use crate::lock::LockManager;
use crate::memory::Account;
use crate::wait::{FetchSource, Fetched, Waiting};
use crate::write::RowIds;
use crate::write::moves::Moves;
use crate::write::sequence::Sequences;

/// The number of the first transaction of an instance: it goes on from another one than after the last start, for what rows carry tells whether they changed.
/// Numbers below 3 have a meaning of their own in PostgreSQL.
fn first_transaction() -> u64 {
    let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
    (millis & 0x3fff_ffff).max(3)
}

/// The database every instance has from the start.
const FIRST_DATABASE: &str = "postgres";
/// The one role.
pub(super) const SUPERUSER_NAME: &str = "postgres";
/// SQLSTATE of what is in use.
pub(super) const OBJECT_IN_USE: &str = "55006";
/// How long DROP DATABASE ... WITH (FORCE) waits for the sessions it ends. Source: CountOtherDBBackends of PostgreSQL.
const FORCE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// How often a database that is dropped under who connects to it is looked for again.
const CONNECT_ATTEMPTS: usize = 16;

/// How an instance uses the machine.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// Memory for decoded nodes and entries of all databases.
    pub cache_bytes: usize,
    /// Memory for the store's own blocks.
    pub block_cache_bytes: usize,
    /// Memory one transaction may use for its writes before they are put aside on disk.
    pub write_set_bytes: usize,
    /// Default of work_mem, in bytes.
    pub work_mem_bytes: usize,
    /// Memory all statements together may reserve for what they cannot spill.
    pub memory_bytes: usize,
    /// What `SHOW max_connections` says; the server enforces it.
    pub max_connections: usize,
    /// What `SHOW port` says.
    pub port: u16,
    /// Whether all roles follow a database by connecting to its key; superusers do.
    pub follow_on_connect: bool,
}

impl Default for InstanceOptions {
    fn default() -> Self {
        InstanceOptions {
            cache_bytes: 256 << 20,
            block_cache_bytes: 128 << 20,
            write_set_bytes: 64 << 20,
            work_mem_bytes: 4 << 20,
            memory_bytes: 1 << 30,
            max_connections: 100,
            port: 5432,
            follow_on_connect: false,
        }
    }
}

/// Who connects to what.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Role. Whether it may is the server's to know.
    pub user: String,
    /// `name`, or `name@version` for a past one.
    pub database: String,
    /// Settings of the startup packet and of its `options`, in order (application_name, client_encoding ...).
    pub settings: Vec<(String, String)>,
    /// Process id told to the client.
    pub backend_pid: i32,
    /// Address and port of the client, if it has any.
    pub client: Option<std::net::SocketAddr>,
}

/// What [`Instance::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks hashed.
    pub blocks: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// One open database and what its sessions share.
pub(super) struct Db {
    pub name: String,
    pub database: Arc<Database>,
    pub row_ids: Arc<RowIds>,
    pub sequences: Sequences,
    /// Rows, unique keys, tables and advisory keys.
    pub locks: Arc<LockManager>,
    /// Oids of what will be defined.
    pub oids: Oids,
    /// Where rows went whose keys changed.
    pub moves: Arc<Moves>,
    /// Held by a definition that is made again after a conflict, so that those in trouble take turns.
    pub turn: Mutex<()>,
    /// Plans its sessions share.
    pub plans: PlanCache,
    /// Syncs what was committed without it.
    pub flusher: Flusher,
    /// LISTEN and NOTIFY.
    pub channels: Arc<Channels>,
    /// It is written elsewhere.
    pub followed: Option<Followed>,
    catalogs: load::Cache,
    newest: Mutex<Option<(u64, u64, Arc<Catalog>)>>,
    sessions: AtomicUsize,
    _news: Subscription,
}

impl Db {
    fn new(name: &str, database: Arc<Database>, followed: Option<Followed>) -> Db {
        let channels: Arc<Channels> = Arc::default();
        let told = channels.clone();
        Db {
            name: name.to_owned(),
            _news: database.subscribe(move |version| told.tell_version(version.0)),
            flusher: Flusher::new(&database),
            database,
            row_ids: Arc::default(),
            sequences: Sequences::default(),
            locks: Arc::default(),
            oids: Oids::default(),
            moves: Arc::default(),
            turn: Mutex::default(),
            plans: PlanCache::default(),
            channels,
            followed,
            catalogs: load::Cache::default(),
            newest: Mutex::default(),
            sessions: AtomicUsize::new(0),
        }
    }
    /// What messages call it.
    pub fn title(&self) -> String {
        format!("database \"{}\"", self.name)
    }
    /// What its blocks are encrypted with, in hex, if they are.
    pub fn read_key(&self) -> Option<String> {
        self.database.core().encryption_key().map(|key| key.to_hex().to_string())
    }
    /// Definitions of a version. On a follower it may wait for peers, and holds no lock meanwhile.
    pub fn catalog(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let version = snapshot.version().0;
        // Where a writer took back what it had written, the same version may have other definitions.
        let fork = if self.followed.is_some() { self.database.core().watch().position().fork.0 } else { 0 };
        if let Some((of, at, catalog)) = &*self.newest.lock()
            && (*of, *at) == (fork, version)
        {
            return Ok(catalog.clone());
        }
        let found = self.catalogs.get(snapshot, fork);
        let catalog = found.map_err(|e| match e.state() {
            state::DATA_CORRUPTED if self.followed.is_some() => e.hint(
                "A core that is no bee looks like this, and one that is encrypted without its read key: give it by pgbee follow --read-key, or CREATE DATABASE ... WITH read_key; one that is followed already, by pgbee follow KEY --read-key at a start.",
            ),
            _ => e,
        })?;
        *self.newest.lock() = Some((fork, version, catalog.clone()));
        Ok(catalog)
    }
}

/// What instance.json holds.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Private {
    format: u32,
    /// Number of the next core.
    next_core: u64,
    /// Name of the core by name of the database.
    databases: BTreeMap<String, String>,
    /// Whom a followed database is followed by, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) followed: BTreeMap<String, Source>,
    /// bee.announce by the database's name, of those that have it set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) announce: BTreeMap<String, bool>,
    /// What its blocks are encrypted with by name of the core, in hex; of those that are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    read_keys: BTreeMap<String, String>,
    /// Password verifier by role.
    #[serde(default)]
    passwords: BTreeMap<String, String>,
}

impl Private {
    pub fn has(&self, name: &str) -> bool {
        self.databases.contains_key(name) || self.followed.contains_key(name)
    }
}

/// Where a followed database comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The core's key, in z-base-32.
    pub key: String,
    /// `host:port` of peers to connect to.
    #[serde(default)]
    pub(super) peers: Vec<String>,
    /// What its blocks are encrypted with, in hex, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read_key: Option<String>,
    /// Somebody connected to the key, and nothing of it was seen yet: it may be a slip of the pen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_on_trial: bool,
}

const PRIVATE_FORMAT: u32 = 1;

/// A data directory in use by this process, and its databases.
pub struct Instance {
    dir: Option<PathBuf>,
    options: InstanceOptions,
    store: Arc<Store>,
    cache: Arc<Cache>,
    pub(super) private: Mutex<Private>,
    open: Mutex<BTreeMap<String, Arc<Db>>>,
    /// Who is connected.
    pub(super) activities: Activities,
    memory: Arc<Account>,
    closing: AtomicBool,
    network_is_over: Arc<AtomicBool>,
    transactions: AtomicU64,
    network: RwLock<Option<Arc<dyn Network>>>,
    progress: Mutex<Vec<Weak<Progress>>>,
    /// Bees that foreign tables read.
    pub(super) foreign: ForeignBees,
}

/// Something that fetches much, as bee_progress shows it.
pub(super) struct Progress {
    pub pid: i32,
    pub database: String,
    pub what: String,
    pub total: Option<u64>,
    pub started_at: i64,
    pub waiting: Arc<Waiting>,
    pub before: Fetched,
}

impl Instance {
    /// Opens a data directory; an empty or missing one is made, with a database `postgres`.
    ///
    /// # Errors
    /// 55000 when another process uses it, XX000 when it is not ours or of another format, 58030 when the disk fails.
    pub fn open(dir: &Path, options: InstanceOptions) -> Result<Arc<Instance>> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("create", dir, &e))?;
        let path = dir.join("instance.json");
        let private = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Private>(&bytes)
                .map_err(|e| SqlError::internal(format!("{}: {e}", path.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // It is written before the store is begun: a store without it has lost its passwords and the names of its databases.
                if dir.join("store").join("FORMAT").exists() {
                    return Err(SqlError::new(
                        state::DATA_CORRUPTED,
                        format!("\"{}\" is missing: without it nobody knows who may come in", path.display()),
                    )
                    .hint("Restore it from a backup of the data directory."));
                }
                let private = Private { format: PRIVATE_FORMAT, ..Private::default() };
                write_private(dir, &private)?;
                private
            }
            Err(e) => return Err(io_error("read", &path, &e)),
        };
        if private.format != PRIVATE_FORMAT {
            return Err(SqlError::internal(format!(
                "{} has format {}; this pgbee reads format {PRIVATE_FORMAT}",
                path.display(),
                private.format
            )));
        }
        let rocks = RocksOptions { block_cache_bytes: options.block_cache_bytes, ..RocksOptions::default() };
        let backend: Arc<dyn Backend> = Arc::new(Rocks::open(dir.join("store"), &rocks)?);
        Instance::start(Some(dir.to_owned()), backend, private, options)
    }
    /// An instance that keeps nothing: for tests.
    pub fn in_memory(options: InstanceOptions) -> Result<Arc<Instance>> {
        Instance::on(Arc::new(Memory::new()), options)
    }
    /// An instance on a store of the caller's, of which only the blocks are kept: for tests.
    pub fn on(backend: Arc<dyn Backend>, options: InstanceOptions) -> Result<Arc<Instance>> {
        Instance::start(None, backend, Private { format: PRIVATE_FORMAT, ..Private::default() }, options)
    }

    fn start(
        dir: Option<PathBuf>,
        backend: Arc<dyn Backend>,
        private: Private,
        options: InstanceOptions,
    ) -> Result<Arc<Instance>> {
        let store = Store::open(backend, corestore::Options::default())?;
        let instance = Arc::new(Instance {
            dir,
            cache: Cache::new(options.cache_bytes),
            memory: Arc::new(Account::of_instance(options.memory_bytes)),
            options,
            store,
            private: Mutex::new(private),
            open: Mutex::default(),
            activities: Activities::default(),
            closing: AtomicBool::new(false),
            network_is_over: Arc::default(),
            transactions: AtomicU64::new(first_transaction()),
            network: RwLock::default(),
            progress: Mutex::default(),
            foreign: ForeignBees::default(),
        });
        if instance.private.lock().databases.is_empty() {
            instance.create_database(FIRST_DATABASE)?;
        }
        instance.end_trials()?;
        Ok(instance)
    }

    /// The data directory; none of an instance that keeps nothing.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }
    /// What it was opened with.
    pub fn options(&self) -> &InstanceOptions {
        &self.options
    }
    /// What its statements reserved.
    pub fn memory(&self) -> &Arc<Account> {
        &self.memory
    }
    /// A session in a database.
    ///
    /// # Errors
    /// 3D000 unknown database, 42501 a key that the role may not follow, 22023 a version that is none, and those of the settings.
    pub fn connect(self: &Arc<Self>, options: ConnectOptions) -> Result<Session> {
        self.check_open()?;
        let (name, version) = match options.database.rsplit_once('@') {
            _ if self.private.lock().has(&options.database) => (options.database.as_str(), None),
            Some((name, version)) => (name, Some(version)),
            None => (options.database.as_str(), None),
        };
        let as_of = version.map(|v| if v.contains(':') { v.to_owned() } else { format!("version:{v}") });
        let cancel = Arc::new(CancelFlag::default());
        for _ in 0..CONNECT_ATTEMPTS {
            let db = match self.db(name) {
                Err(unknown) if unknown.state() == state::INVALID_CATALOG_NAME => match name.parse() {
                    Ok(key) => match self.database_by_key(key, &options.user)? {
                        Some(db) => db,
                        None => continue,
                    },
                    Err(_) => return Err(unknown),
                },
                found => found?,
            };
            // Who connects while it is dropped looks for it anew.
            if let Some(presence) = self.enter(&db, &cancel, &options) {
                return Session::new(self.clone(), db, presence, cancel, &options, as_of);
            }
        }
        Err(unknown_database(name))
    }
    /// Databases that are open.
    pub(super) fn open_databases(&self) -> Vec<Arc<Db>> {
        self.open.lock().values().cloned().collect()
    }
    /// Names of the databases.
    pub fn databases(&self) -> Vec<String> {
        let private = self.private.lock();
        let mut names: Vec<String> = private.databases.keys().chain(private.followed.keys()).cloned().collect();
        names.sort_unstable();
        names
    }
    /// Names of the databases that are followed, with their keys and peers.
    pub fn followed(&self) -> Vec<(String, CoreKey, Vec<String>)> {
        let private = self.private.lock();
        let known = private.followed.iter();
        known
            .filter_map(|(name, source)| Some((name.clone(), source.key.parse().ok()?, source.peers.clone())))
            .collect()
    }
    /// The store of all cores: what a network serves.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
    /// From now on followed databases are kept up to date by this network.
    ///
    /// # Errors
    /// Those of opening a followed database.
    pub fn set_network(&self, network: Arc<dyn Network>) -> Result<()> {
        *self.network.write() = Some(network.clone());
        // Also those nobody has connected to yet: peers may ask for them.
        for name in self.databases() {
            network.announce(self.db(&name)?.database.key(), self.is_announced(&name));
        }
        for (name, _, peers) in self.followed() {
            network.follow(self.db(&name)?.database.core(), &peers)?;
        }
        Ok(())
    }
    /// Peers are asked nothing any more.
    pub fn clear_network(&self) {
        self.network_is_over.store(true, Ordering::Release);
        let network = self.network.write().take();
        drop(network); // it may end tasks: not under the lock
    }
    /// Set when there will be no network any more.
    pub(super) fn network_is_over(&self) -> &Arc<AtomicBool> {
        &self.network_is_over
    }
    /// Memory for decoded nodes.
    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }
    /// The open database over a core, if there is one.
    pub(super) fn database_of(&self, key: CoreKey) -> Option<Arc<Database>> {
        self.open.lock().values().find(|db| db.database.key() == key).map(|db| db.database.clone())
    }
    pub(super) fn network(&self) -> Option<Arc<dyn Network>> {
        self.network.read().clone()
    }

    /// CREATE DATABASE. 42P04 if there is one.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.create(name, false)
    }
    /// CREATE DATABASE ... WITH encrypted: whoever has its key can follow it and verify it, and needs its read key to read it. 42P04 if there is one.
    pub fn create_encrypted_database(&self, name: &str) -> Result<()> {
        self.create(name, true)
    }
    fn create(&self, name: &str, encrypted: bool) -> Result<()> {
        let mut private = self.private.lock();
        if private.has(name) {
            return Err(already_exists(name));
        }
        let mut next = private.clone();
        let read_key = if encrypted { Some(EncryptionKey::random()?) } else { None };
        // The bee is whole before its name is known; a crash in between leaves a core that the next database takes over. Unless one of the two is encrypted: the
        // key of what was left is known to nobody.
        let core = loop {
            let core = format!("database/{}", next.next_core);
            next.next_core += 1;
            match self.named_core(&core, read_key.as_ref()) {
                Ok(left) if left.encryption_key() == read_key.as_ref() => break core,
                Ok(_) | Err(Error::Invalid(_)) => {}
                Err(error) => return Err(error.into()),
            }
        };
        next.databases.insert(name.to_owned(), core.clone());
        if let Some(key) = &read_key {
            next.read_keys.insert(core.clone(), key.to_hex().to_string());
        }
        let database = self.open_core(&core, read_key.as_ref())?;
        if load::stamp(&database.snapshot())? == 0 {
            found(&database, name)?;
        }
        self.save(&next)?;
        *private = next;
        Ok(())
    }
    /// CREATE DATABASE ... WITH bee_key: follows the database of another writer, with the peers at these `host:port` addresses, and the read key if it is
    /// encrypted. Returns at once.
    ///
    /// # Errors
    /// 42P04 if there is a database of this name, 42710 if the key is followed already, 22023 if it is a core of our own or an address is none.
    pub fn follow_database(
        &self,
        name: &str,
        key: CoreKey,
        peers: &[String],
        read_key: Option<&ReadKey>,
    ) -> Result<()> {
        let read_key = read_key.map(|key| key.to_hex().to_string());
        let source = Source { key: key.to_string(), peers: peers.to_vec(), read_key, is_on_trial: false };
        self.follow_source(name, key, source)
    }
    pub(super) fn follow_source(&self, name: &str, key: CoreKey, source: Source) -> Result<()> {
        let peers = source.peers.clone();
        {
            let mut private = self.private.lock();
            if private.has(name) {
                return Err(already_exists(name));
            }
            let text = &source.key;
            if let Some((other, _)) = private.followed.iter().find(|(_, source)| source.key == *text) {
                return Err(SqlError::new(
                    state::DUPLICATE_OBJECT,
                    format!("key {text} is followed already, as database \"{other}\""),
                ));
            }
            if self.store.get_by_key(key)?.is_writable() {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("key {text} is that of a database that is written here"),
                ));
            }
            let mut next = private.clone();
            next.followed.insert(name.to_owned(), source);
            self.save(&next)?;
            *private = next;
        }
        let begun = self.db(name).and_then(|db| match self.network() {
            Some(network) => {
                network.announce(key, self.is_announced(name));
                network.follow(db.database.core(), &peers)
            }
            None => Ok(()),
        });
        if begun.is_err() {
            self.drop_database(name)?;
        }
        begun
    }
    /// Gives a followed database other peers.
    ///
    /// # Errors
    /// 3D000 if no database of this name is followed, 22023 for an address that is none.
    pub fn set_peers(&self, name: &str, peers: &[String]) -> Result<()> {
        {
            let mut private = self.private.lock();
            let mut next = private.clone();
            let source = next.followed.get_mut(name).ok_or_else(|| unknown_database(name))?;
            (source.peers, source.is_on_trial) = (peers.to_vec(), false);
            self.save(&next)?;
            *private = next;
        }
        let db = self.db(name)?;
        if let Some(network) = self.network() {
            network.unfollow(db.database.key());
            network.follow(db.database.core(), peers)?;
        }
        Ok(())
    }
    /// Gives a followed database that is not in use another read key.
    ///
    /// # Errors
    /// 3D000 if no database of this name is followed, 55006 while it is open.
    pub fn set_read_key(&self, name: &str, read_key: &ReadKey) -> Result<()> {
        let mut private = self.private.lock();
        let mut next = private.clone();
        let source = next.followed.get_mut(name).ok_or_else(|| unknown_database(name))?;
        let text = read_key.to_hex().to_string();
        if source.read_key.as_ref() == Some(&text) {
            return Ok(());
        }
        if self.open.lock().contains_key(name) {
            return Err(SqlError::new(OBJECT_IN_USE, format!("database \"{name}\" is open with another read key")));
        }
        source.read_key = Some(text);
        self.save(&next)?;
        *private = next;
        Ok(())
    }
    /// Fetches all of a followed database, what is to come too; or no longer.
    ///
    /// # Errors
    /// 55000 for one that is written here.
    pub fn mirror(&self, name: &str, on: bool) -> Result<()> {
        let db = self.db(name)?;
        let followed = db.followed.as_ref().ok_or_else(|| {
            SqlError::new(
                state::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("database \"{name}\" is written here and whole"),
            )
        })?;
        followed.set_mirror(on);
        Ok(())
    }
    /// DROP DATABASE: its name goes; its log stays on disk, since others may follow it. 3D000 if there is none, 55006 while in use.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        self.drop_database_if(name, |_| true).map(|_| ())
    }
    /// Ends all sessions of a database, and waits a little for them to go.
    pub(super) fn end_sessions_of(&self, database: &str, cancel: &CancelFlag) -> Result<()> {
        let there = self.activities.of_database(database);
        for activity in &there {
            activity.terminate(End::Administrator);
        }
        self.activities.wait_gone(&there, FORCE_WAIT, cancel)?;
        Ok(())
    }
    /// The same if what is known of it is so; whether it was.
    pub(super) fn drop_database_if(&self, name: &str, is_to_go: impl FnOnce(&Private) -> bool) -> Result<bool> {
        let mut private = self.private.lock();
        let mut open = self.open.lock();
        if !private.has(name) {
            return Err(unknown_database(name));
        }
        if !is_to_go(&private) {
            return Ok(false);
        }
        let sessions = open.get(name).map_or(0, |db| db.sessions.load(Ordering::Acquire));
        if sessions > 0 {
            let verb = if sessions == 1 { "is 1 other session" } else { &format!("are {sessions} other sessions") };
            return Err(SqlError::new(OBJECT_IN_USE, format!("database \"{name}\" is being accessed by other users"))
                .detail(format!("There {verb} using the database.")));
        }
        let mut next = private.clone();
        if let Some(core) = next.databases.remove(name) {
            next.read_keys.remove(&core);
        }
        let source = next.followed.remove(name);
        next.announce.remove(name);
        self.save(&next)?;
        *private = next;
        let db = open.remove(name);
        drop((open, private));
        self.activities.forget(name);
        if let (Some(db), Some(network)) = (&db, self.network()) {
            network.announce(db.database.key(), false);
        }
        drop(db); // a mirror's claim ends, which wakes the replicator
        if let (Some(key), Some(network)) = (source.and_then(|s| s.key.parse().ok()), self.network())
            && !self.is_open_bee(key)
        {
            network.unfollow(key);
        }
        Ok(true)
    }
    /// The public key replicas follow the database by.
    pub fn key(&self, database: &str) -> Result<[u8; 32]> {
        Ok(*self.db(database)?.database.key().as_bytes())
    }
    /// What an encrypted database's readers need beside its key, in hex; none of one that is not encrypted.
    pub fn read_key(&self, database: &str) -> Result<Option<String>> {
        Ok(self.db(database)?.read_key())
    }
    /// Re-hashes a database's log against its signed root, and checks the tree of its newest version; `progress` gets (blocks done, blocks in all). Of a followed one that is
    /// here in part, the blocks that are here are checked, and no tree.
    ///
    /// # Errors
    /// XX001 naming the first bad block.
    pub fn verify(&self, database: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let db = self.db(database)?;
        let newest = db.database.snapshot();
        // The end is told only when the tree was found sound, too.
        let core = db.database.core();
        let is_whole = core.held_blocks() == core.len().0;
        let mut tell = |done: Length, all: Length| {
            if done < all {
                progress(done.0, all.0);
            }
        };
        let found = if is_whole { core.verify(&mut tell)? } else { core.verify_held(&mut tell)? };
        if is_whole {
            newest.bee().audit()?;
        }
        progress(core.len().0, core.len().0);
        Ok(Verified { blocks: found.blocks.0, bytes: found.bytes })
    }
    /// A role's password verifier (`SCRAM-SHA-256$...`), which never enters a bee.
    pub fn password_verifier(&self, role: &str) -> Option<String> {
        self.private.lock().passwords.get(role).cloned()
    }
    /// Sets or removes a role's password verifier.
    pub fn set_password_verifier(&self, role: &str, verifier: Option<&str>) -> Result<()> {
        let mut private = self.private.lock();
        let mut next = private.clone();
        match verifier {
            Some(verifier) => next.passwords.insert(role.to_owned(), verifier.to_owned()),
            None => next.passwords.remove(role),
        };
        self.save(&next)?;
        *private = next;
        Ok(())
    }
    /// Cancels all sessions (57P01) and makes everything durable. The instance takes no connections and no statements after it.
    pub fn shutdown(&self) -> Result<()> {
        self.closing.store(true, Ordering::Release);
        for activity in self.activities.all() {
            activity.terminate(End::Administrator);
        }
        let open: Vec<Arc<Db>> = self.open.lock().values().cloned().collect();
        for db in open.iter().filter(|db| db.followed.is_none()) {
            db.sequences.flush(&db.database, unix_micros())?;
        }
        // What commits left to the operating system.
        Ok(self.store.backend().sync()?)
    }

    /// What is known of each database's core, by the database's name. Reads nothing of peers.
    pub fn cores(&self) -> Result<Vec<CoreStatus>> {
        let network = self.network();
        let mut cores = Vec::new();
        for name in self.databases() {
            let db = match self.db(&name) {
                Ok(db) => db,
                // Dropped meanwhile.
                Err(e) if e.state() == state::INVALID_CATALOG_NAME => continue,
                Err(e) => return Err(e),
            };
            let remote = network.as_ref().and_then(|n| n.remote(db.database.key()));
            cores.push(CoreStatus::of(&name, &db.database, db.followed.is_some(), remote));
        }
        Ok(cores)
    }
    /// All connections to peers, with the databases they are for.
    pub fn peers(&self) -> Result<Vec<PeerStatus>> {
        let Some(network) = self.network() else { return Ok(Vec::new()) };
        let peers = network.peers();
        if peers.is_empty() {
            return Ok(Vec::new());
        }
        let mut names: BTreeMap<CoreKey, (String, bool)> = BTreeMap::new();
        for name in self.databases() {
            if let Ok(db) = self.db(&name) {
                names.insert(db.database.key(), (name, db.followed.is_some()));
            }
        }
        let status = |peer: crate::follow::Peer| {
            let (database, is_followed) = names.get(&peer.core).cloned().map_or((None, false), |(n, f)| (Some(n), f));
            PeerStatus { database, is_followed, peer }
        };
        Ok(peers.into_iter().map(status).collect())
    }
    /// What fetches much just now.
    pub fn progress(&self) -> Vec<ProgressStatus> {
        let running: Vec<Arc<Progress>> = {
            let mut all = self.progress.lock();
            all.retain(|p| p.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        running.iter().map(|p| p.status()).collect()
    }
    /// Shows something in bee_progress as long as it lives.
    pub(super) fn show_progress(&self, progress: Progress) -> Arc<Progress> {
        let progress = Arc::new(progress);
        self.progress.lock().push(Arc::downgrade(&progress));
        progress
    }

    /// Fails when the instance is closing.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) { Err(closing_error()) } else { Ok(()) }
    }
    /// A session's presence in a database; None if it was dropped just now.
    fn enter(self: &Arc<Self>, db: &Arc<Db>, cancel: &Arc<CancelFlag>, options: &ConnectOptions) -> Option<Presence> {
        {
            let private = self.private.lock();
            let mut open = self.open.lock();
            if !open.get(&db.name).is_some_and(|there| Arc::ptr_eq(there, db)) {
                return None;
            }
            if !private.has(&db.name) {
                // Dropped by one who came between our look at its definition and its being opened.
                if db.sessions.load(Ordering::Acquire) == 0 {
                    open.remove(&db.name);
                }
                return None;
            }
            db.sessions.fetch_add(1, Ordering::AcqRel);
        }
        let who = (options.backend_pid, db.name.as_str(), options.user.as_str());
        let activity = Arc::new(Activity::new(who, options.client, cancel.clone()));
        let number = self.activities.enter(&activity);
        Some(Presence { db: db.clone(), instance: Arc::downgrade(self), activity, number })
    }
    /// A number for a transaction. Rows carry its lower half.
    pub(super) fn transaction_id(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn db(&self, name: &str) -> Result<Arc<Db>> {
        let (core, read_key, source) = {
            let private = self.private.lock();
            let core = private.databases.get(name).cloned();
            let source = private.followed.get(name).cloned();
            let read_key = match (&core, &source) {
                (Some(core), _) => private.read_keys.get(core),
                (None, source) => source.as_ref().and_then(|s| s.read_key.as_ref()),
            };
            let read_key = read_key.map(|key| EncryptionKey::parse(key)).transpose()?;
            (core, read_key, source)
        };
        let mut open = self.open.lock();
        if let Some(db) = open.get(name) {
            return Ok(db.clone());
        }
        let db = match (core, source) {
            (Some(core), _) => Db::new(name, self.open_core(&core, read_key.as_ref())?, None),
            (None, Some(source)) => {
                let database = self.open_followed(name, &source, read_key.as_ref())?;
                let followed = Followed::start(name, &database)?;
                Db::new(name, database, Some(followed))
            }
            (None, None) => return Err(unknown_database(name)),
        };
        // Peers who read this bee may ask which blocks they will need.
        extension::register(db.database.core(), self.cache.clone());
        let db = Arc::new(db);
        open.insert(name.to_owned(), db.clone());
        Ok(db)
    }
    fn open_followed(&self, name: &str, source: &Source, read_key: Option<&EncryptionKey>) -> Result<Arc<Database>> {
        let key: CoreKey = source.key.parse().map_err(|_| {
            SqlError::new(state::DATA_CORRUPTED, format!("the key that database \"{name}\" follows cannot be read"))
        })?;
        let core = match read_key {
            Some(read_key) => self.store.get_by_key_encrypted(key, read_key)?,
            None => self.store.get_by_key(key)?,
        };
        Ok(Database::open(core, self.cache.clone(), Options::default())?)
    }
    /// What peers say of a core.
    pub(super) fn remote(&self, key: CoreKey) -> Remote {
        self.network().and_then(|network| network.remote(key)).unwrap_or_default()
    }
    /// A followed database as one session reads it.
    pub(super) fn reader(&self, db: &Db, waiting: &Arc<Waiting>) -> Arc<Database> {
        let core = db.database.core().clone();
        let source = FetchSource::new(core.clone(), db.title(), waiting.clone());
        Database::reader(core, source, self.cache.clone())
    }
    fn named_core(&self, name: &str, read_key: Option<&EncryptionKey>) -> pgbee_engine::Result<Arc<Core>> {
        match read_key {
            Some(key) => self.store.get_by_name_encrypted(name, key),
            None => self.store.get_by_name(name),
        }
    }
    fn open_core(&self, name: &str, read_key: Option<&EncryptionKey>) -> Result<Arc<Database>> {
        let core = self.named_core(name, read_key)?;
        let options = Options { write_set_bytes_max: self.options.write_set_bytes, ..Options::default() };
        Ok(Database::open(core, self.cache.clone(), options)?)
    }
    pub(super) fn save(&self, private: &Private) -> Result<()> {
        self.dir.as_ref().map_or(Ok(()), |dir| write_private(dir, private))
    }
}

impl Progress {
    fn status(&self) -> ProgressStatus {
        let fetched = self.waiting.fetched().since(self.before);
        ProgressStatus {
            pid: self.pid,
            database: self.database.clone(),
            what: self.what.clone(),
            blocks_done: fetched.blocks,
            blocks_total: self.total,
            bytes: fetched.bytes,
            started_at: self.started_at,
        }
    }
}

fn write_private(dir: &Path, private: &Private) -> Result<()> {
    let json = serde_json::to_vec_pretty(private).map_err(|e| SqlError::internal(e.to_string()))?;
    replace_file(dir, "instance.json", &json).map_err(|e| io_error("write", &dir.join("instance.json"), &e))
}

/// Counts a session among its database's as long as it lives.
pub(super) struct Presence {
    db: Arc<Db>,
    instance: Weak<Instance>,
    pub activity: Arc<Activity>,
    number: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let was_last = self.db.sessions.fetch_sub(1, Ordering::AcqRel) == 1;
        let Some(instance) = self.instance.upgrade() else { return };
        instance.activities.leave(&self.activity, self.number);
        if was_last && self.db.followed.is_some() {
            instance.end_trial(&self.db);
        }
    }
}

fn already_exists(name: &str) -> SqlError {
    SqlError::new(state::DUPLICATE_DATABASE, format!("database \"{name}\" already exists"))
}

fn closing_error() -> SqlError {
    End::Administrator.error()
}

pub(super) fn unknown_database(name: &str) -> SqlError {
    SqlError::new(state::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
}

fn io_error(what: &str, path: &Path, error: &std::io::Error) -> SqlError {
    SqlError::new(state::IO_ERROR, format!("could not {what} \"{}\": {error}", path.display()))
}

/// The first commit of a database: its name, and schema public.
fn found(database: &Database, name: &str) -> Result<()> {
    let mut change = Change::new(Arc::default(), FIRST_USER_OID);
    change.put_schema(Schema { oid: PUBLIC, name: "public".into(), comment: Some("standard public schema".into()) })?;
    let mut txn = database.begin();
    let about = serde_json::json!({ "format": 1, "database": name });
    txn.put(keyspace::DATABASE.to_vec(), about.to_string().into_bytes())?;
    txn.put(keyspace::NEXT_OID.to_vec(), FIRST_USER_OID.to_string().into_bytes())?;
    for (key, value) in change.finish().1 {
        match value {
            Some(value) => txn.put(key, value)?,
            None => txn.delete(key)?,
        }
    }
    let info = CommitInfo { message: format!("create database {name}"), ..CommitInfo::at(unix_micros()) };
    database.commit(txn, info)?;
    Ok(())
}

/// Writes a file so that it is the old or the new one, whenever the machine stops. Only its owner may read it.
fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}
