//! A data directory: its databases, each a bee in a core of its own, and what never enters a bee.
//!
//! ```text
//! DIR/store           RocksDB: blocks and Merkle nodes of all cores
//! DIR/instance.json   names of databases and their cores; read keys of those that are encrypted; password verifiers. Readable by its owner only
//! ```
//!
//! A bee is readable by whoever has its key; roles and passwords therefore live in the second file. It is replaced as a whole, by a rename.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pgbee_engine::Error;
use pgbee_engine::bee::Cache;
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::encryption::EncryptionKey;
use pgbee_engine::storage::Backend;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::txn::{CommitInfo, Database, Options, Snapshot};
use serde::{Deserialize, Serialize};

use super::Session;
use super::shared::unix_micros;
use crate::catalog::change::Change;
use crate::catalog::schema::Schema;
use crate::catalog::{Catalog, FIRST_USER_OID, PUBLIC, load};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::functions::context::CancelFlag;
use crate::memory::Account;
use crate::write::RowIds;
use crate::write::locks::LockTable;
use crate::write::sequence::Sequences;

/// The database every instance has from the start.
const FIRST_DATABASE: &str = "postgres";
/// The one role.
pub(super) const SUPERUSER_NAME: &str = "postgres";
/// SQLSTATE of what is in use.
const OBJECT_IN_USE: &str = "55006";

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
    pub locks: Arc<LockTable>,
    /// Held by a statement that is run again after a conflict, so that those in trouble take turns.
    pub turn: Mutex<()>,
    catalogs: load::Cache,
    newest: Mutex<Option<(u64, Arc<Catalog>)>>,
    sessions: AtomicUsize,
}

impl Db {
    /// What its blocks are encrypted with, in hex, if they are.
    pub fn read_key(&self) -> Option<String> {
        self.database.core().encryption_key().map(|key| key.to_hex().to_string())
    }
    /// Definitions of a version.
    pub fn catalog(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let version = snapshot.version().0;
        if let Some((at, catalog)) = &*self.newest.lock()
            && *at == version
        {
            return Ok(catalog.clone());
        }
        let catalog = self.catalogs.get(snapshot)?;
        *self.newest.lock() = Some((version, catalog.clone()));
        Ok(catalog)
    }
}

/// What instance.json holds.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Private {
    format: u32,
    /// Number of the next core.
    next_core: u64,
    /// Name of the core by name of the database.
    databases: BTreeMap<String, String>,
    /// What its blocks are encrypted with by name of the core, in hex; of those that are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    read_keys: BTreeMap<String, String>,
    /// Password verifier by role.
    #[serde(default)]
    passwords: BTreeMap<String, String>,
}

const PRIVATE_FORMAT: u32 = 1;

/// A data directory in use by this process, and its databases.
pub struct Instance {
    dir: Option<PathBuf>,
    options: InstanceOptions,
    store: Arc<Store>,
    cache: Arc<Cache>,
    private: Mutex<Private>,
    open: Mutex<BTreeMap<String, Arc<Db>>>,
    sessions: Mutex<Vec<Weak<CancelFlag>>>,
    memory: Arc<Account>,
    closing: AtomicBool,
    transactions: AtomicU64,
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
            sessions: Mutex::default(),
            closing: AtomicBool::new(false),
            transactions: AtomicU64::new(1),
        });
        if instance.private.lock().databases.is_empty() {
            instance.create_database(FIRST_DATABASE)?;
        }
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
    /// 3D000 unknown database, 22023 a version that is none, and those of the settings.
    pub fn connect(self: &Arc<Self>, options: ConnectOptions) -> Result<Session> {
        self.check_open()?;
        let (name, version) = match options.database.rsplit_once('@') {
            _ if self.private.lock().databases.contains_key(&options.database) => (options.database.as_str(), None),
            Some((name, version)) => (name, Some(version)),
            None => (options.database.as_str(), None),
        };
        let db = self.db(name)?;
        let as_of = version.map(|v| if v.contains(':') { v.to_owned() } else { format!("version:{v}") });
        Session::new(self.clone(), db, &options, as_of)
    }
    /// Names of the databases.
    pub fn databases(&self) -> Vec<String> {
        self.private.lock().databases.keys().cloned().collect()
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
        if private.databases.contains_key(name) {
            return Err(SqlError::new(state::DUPLICATE_DATABASE, format!("database \"{name}\" already exists")));
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
    /// DROP DATABASE: its name goes; its log stays on disk, since others may follow it. 3D000 if there is none, 55006 while in use.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        let mut private = self.private.lock();
        let mut open = self.open.lock();
        if !private.databases.contains_key(name) {
            return Err(unknown_database(name));
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
        self.save(&next)?;
        *private = next;
        open.remove(name);
        Ok(())
    }
    /// The public key replicas follow the database by.
    pub fn key(&self, database: &str) -> Result<[u8; 32]> {
        Ok(*self.db(database)?.database.key().as_bytes())
    }
    /// What an encrypted database's readers need beside its key, in hex; none of one that is not encrypted.
    pub fn read_key(&self, database: &str) -> Result<Option<String>> {
        Ok(self.db(database)?.read_key())
    }
    /// Re-hashes a database's log against its signed root, and checks the tree of its newest version; `progress` gets (blocks done, blocks in all).
    ///
    /// # Errors
    /// XX001 naming the first bad block.
    pub fn verify(&self, database: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let db = self.db(database)?;
        let newest = db.database.snapshot();
        // The end is told only when the tree was found sound, too.
        let found = db.database.core().verify(|done, all| {
            if done < all {
                progress(done.0, all.0);
            }
        })?;
        newest.bee().audit()?;
        progress(found.blocks.0, found.blocks.0);
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
        for flag in self.sessions.lock().iter().filter_map(Weak::upgrade) {
            flag.raise(closing_error());
        }
        let open: Vec<Arc<Db>> = self.open.lock().values().cloned().collect();
        for db in open {
            db.sequences.flush(&db.database, unix_micros())?;
        }
        // What commits left to the operating system.
        Ok(self.store.backend().sync()?)
    }

    /// Fails when the instance is closing.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) { Err(closing_error()) } else { Ok(()) }
    }
    /// A session's presence in a database.
    pub(super) fn enter(self: &Arc<Self>, db: &Arc<Db>, cancel: &Arc<CancelFlag>) -> Presence {
        db.sessions.fetch_add(1, Ordering::AcqRel);
        let mut sessions = self.sessions.lock();
        sessions.retain(|s| s.strong_count() > 0);
        sessions.push(Arc::downgrade(cancel));
        Presence(db.clone())
    }
    /// A number for a transaction.
    pub(super) fn transaction_id(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }

    fn db(&self, name: &str) -> Result<Arc<Db>> {
        let (core, read_key) = {
            let private = self.private.lock();
            let core = private.databases.get(name).cloned().ok_or_else(|| unknown_database(name))?;
            let read_key = private.read_keys.get(&core).map(|key| EncryptionKey::parse(key)).transpose()?;
            (core, read_key)
        };
        let mut open = self.open.lock();
        if let Some(db) = open.get(name) {
            return Ok(db.clone());
        }
        let db = Arc::new(Db {
            name: name.to_owned(),
            database: self.open_core(&core, read_key.as_ref())?,
            row_ids: Arc::default(),
            sequences: Sequences::default(),
            locks: Arc::default(),
            turn: Mutex::default(),
            catalogs: load::Cache::default(),
            newest: Mutex::default(),
            sessions: AtomicUsize::new(0),
        });
        open.insert(name.to_owned(), db.clone());
        Ok(db)
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
    fn save(&self, private: &Private) -> Result<()> {
        self.dir.as_ref().map_or(Ok(()), |dir| write_private(dir, private))
    }
}

fn write_private(dir: &Path, private: &Private) -> Result<()> {
    let json = serde_json::to_vec_pretty(private).map_err(|e| SqlError::internal(e.to_string()))?;
    replace_file(dir, "instance.json", &json).map_err(|e| io_error("write", &dir.join("instance.json"), &e))
}

/// Counts a session among its database's as long as it lives.
pub(super) struct Presence(Arc<Db>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

fn closing_error() -> SqlError {
    SqlError::new(state::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

fn unknown_database(name: &str) -> SqlError {
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
