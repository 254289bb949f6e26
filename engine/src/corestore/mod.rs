//! Many cores over one backend and under one primary key: [`Store`].
//!
//! ```text
//! name -> alias in the store? ---------------------------> core id -> open, or shared if it is
//!              no: key pair from primary key -> new core
//! key  -> discovery key in the store? -------------------> core id
//!              no: a new core that can only be read
//! ```
//!
//! A core is opened once and shared by all who ask for it; it is closed when the last of them is done.
//! A name leads to the core that was made for it, for good, whatever the rules for new cores become.
//!
//! What must stay true: at most one [`Core`] exists for a core id, for it is the core's one writer; core
//! ids are never used twice; the primary key never changes.

pub mod names;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::crypto::hash::Hash;
use crate::crypto::key::{CoreKey, DiscoveryKey, EncryptionKey, KeyPair, random_bytes};
use crate::crypto::manifest::Manifest;
use crate::error::{Error, Result};
use crate::hypercore::Core;
use crate::storage::key::{CoreId, MetaKey};
use crate::storage::record::{self, CoreLink, CoreRecord, StoreRecord};
use crate::storage::{Backend, Durability, FORMAT_VERSION, FORMAT_VERSION_MIN, Range, Space, WriteBatch};

/// How to open a [`Store`].
#[derive(Clone, Default)]
pub struct Options {
    /// The primary key of a new store; random if none is given. A store that has another one is refused.
    pub primary_key: Option<[u8; 32]>,
}

/// Cores by name or key, each opened once.
pub struct Store {
    backend: Arc<dyn Backend>,
    primary_key: Zeroizing<[u8; 32]>,
    state: Mutex<State>,
}

struct State {
    record: StoreRecord,
    open: HashMap<CoreId, Weak<Core>>,
}

/// A name that leads to a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The namespace it is in.
    pub namespace: Hash,
    /// The name.
    pub name: Vec<u8>,
    /// The key of the core.
    pub key: CoreKey,
}

/// A part of a store with names of its own.
#[derive(Clone)]
pub struct Namespace {
    store: Arc<Store>,
    hash: Hash,
}

impl Store {
    /// Open the store in a backend, or make one there. Whatever transactions had spilled is removed.
    ///
    /// # Errors
    ///
    /// [`Error::FormatVersion`]; [`Error::Invalid`] if the store has another primary key than the one
    /// given; `Corrupt`; [`Error::Storage`].
    pub fn open(backend: Arc<dyn Backend>, options: Options) -> Result<Arc<Store>> {
        let at = MetaKey::Store.encode();
        let record = match backend.get(Space::Meta, &at)? {
            Some(stored) => {
                let mut record: StoreRecord = record::decode(&at, stored)?;
                if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&record.format) {
                    let found = record.format;
                    return Err(Error::FormatVersion { found, supported: FORMAT_VERSION });
                }
                if options.primary_key.is_some_and(|key| key != record.primary_key) {
                    return Err(Error::invalid("the store has another primary key"));
                }
                if record.format < FORMAT_VERSION {
                    record.format = FORMAT_VERSION;
                    let mut batch = WriteBatch::new();
                    batch.put(Space::Meta, &at, &record::encode(&at, &record));
                    backend.write(batch, Durability::Sync)?;
                }
                record
            }
            None => {
                let primary_key = match options.primary_key {
                    Some(key) => key,
                    None => *random_bytes()?,
                };
                let record = StoreRecord { format: FORMAT_VERSION, next_core: 1, primary_key };
                let mut batch = WriteBatch::new();
                batch.put(Space::Meta, &at, &record::encode(&at, &record));
                backend.write(batch, Durability::Sync)?;
                record
            }
        };
        clear_scratch(&*backend)?;
        let primary_key = Zeroizing::new(record.primary_key);
        let state = Mutex::new(State { record, open: HashMap::new() });
        Ok(Arc::new(Store { backend, primary_key, state }))
    }

    /// The key that all named cores' keys come from. Whoever has it can write all of them.
    pub fn primary_key(&self) -> &[u8; 32] {
        &self.primary_key
    }

    /// The store below.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// A part of the store with names of its own.
    pub fn namespace(self: &Arc<Self>, name: impl AsRef<[u8]>) -> Namespace {
        Namespace { store: self.clone(), hash: names::namespace(&names::ROOT, name.as_ref()) }
    }

    /// The core of this name, made if there is none. It can be written.
    ///
    /// # Errors
    ///
    /// `Corrupt`, naming core and block; [`Error::Storage`].
    pub fn get_by_name(&self, name: impl AsRef<[u8]>) -> Result<Arc<Core>> {
        self.named(&names::ROOT, name.as_ref(), None)
    }

    /// The core of this name, whose blocks are encrypted, made if there is none. It can be written.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name); [`Error::Invalid`] if the core exists and has another key, or none.
    pub fn get_by_name_encrypted(&self, name: impl AsRef<[u8]>, key: &EncryptionKey) -> Result<Arc<Core>> {
        self.named(&names::ROOT, name.as_ref(), Some(key))
    }

    /// The core with this key, whose blocks are encrypted with that one, made if there is none. Whether the encryption key is the right one shows when its
    /// blocks are read; another one replaces it, unless the core can be written here.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name); [`Error::Invalid`] if the core is open with another encryption key, or none, or is written here with such.
    pub fn get_by_key_encrypted(&self, key: CoreKey, encryption: &EncryptionKey) -> Result<Arc<Core>> {
        let mut wanted = CoreRecord::new(key);
        wanted.encryption = Some(encryption.clone());
        self.get(wanted)
    }

    /// The core with this key, made if there is none. It can be written only if the store has its key
    /// pair.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name).
    pub fn get_by_key(&self, key: CoreKey) -> Result<Arc<Core>> {
        self.get(CoreRecord::new(key))
    }

    /// The core with this manifest, made if there is none. Without a key pair it can only be read.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name), and [`Error::InvalidManifest`].
    pub fn get_by_manifest(&self, manifest: &Manifest, pair: Option<&KeyPair>) -> Result<Arc<Core>> {
        manifest.check()?;
        let mut wanted = CoreRecord::new(manifest.key());
        wanted.manifest = Some(manifest.encode());
        wanted.seed = pair.map(|pair| *pair.seed());
        self.get(wanted)
    }

    /// The core that this key pair alone signs, made if there is none.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name).
    pub fn get_by_key_pair(&self, pair: &KeyPair) -> Result<Arc<Core>> {
        self.get_by_manifest(&Manifest::single(pair.public_key()), Some(pair))
    }

    /// The core with this discovery key, if the store has it: what a peer's request names.
    ///
    /// # Errors
    ///
    /// As [`get_by_name`](Store::get_by_name).
    pub fn get_by_discovery_key(&self, key: DiscoveryKey) -> Result<Option<Arc<Core>>> {
        let mut state = self.state.lock();
        match self.link(MetaKey::Discovery(key))? {
            Some(id) => self.open_core(&mut state, id).map(Some),
            None => Ok(None),
        }
    }

    /// All names, in order of namespace and name.
    ///
    /// # Errors
    ///
    /// `Corrupt`; [`Error::Storage`].
    pub fn names(&self) -> Result<Vec<Named>> {
        let mut names = Vec::new();
        for entry in self.backend.scan(Space::Meta, MetaKey::all_names(), false) {
            let (at, value) = entry?;
            let CoreLink(id) = record::decode(&at, value)?;
            let key = self.core_record(CoreId(id))?.key;
            let (namespace, name) = at[1..].split_first_chunk().ok_or_else(|| Error::corrupt("a name is cut off"))?;
            names.push(Named { namespace: *namespace, name: name.to_vec(), key });
        }
        Ok(names)
    }

    /// The keys of all cores, in the order they were made.
    ///
    /// # Errors
    ///
    /// `Corrupt`; [`Error::Storage`].
    pub fn cores(&self) -> Result<Vec<CoreKey>> {
        let cores = self.backend.scan(Space::Meta, MetaKey::all_cores(), false);
        cores
            .map(|entry| {
                let (at, value) = entry?;
                Ok(record::decode::<CoreRecord>(&at, value)?.key)
            })
            .collect()
    }

    /// How many cores are open at the moment.
    pub fn open_cores(&self) -> usize {
        self.state.lock().open.values().filter(|core| core.strong_count() > 0).count()
    }

    fn named(&self, namespace: &Hash, name: &[u8], encryption: Option<&EncryptionKey>) -> Result<Arc<Core>> {
        let mut state = self.state.lock();
        if let Some(id) = self.link(MetaKey::Name(namespace, name))? {
            if encryption.is_some() && self.core_record(id)?.encryption.as_ref() != encryption {
                return Err(other_encryption());
            }
            return self.open_core(&mut state, id);
        }
        let pair = names::key_pair(&self.primary_key, namespace, name);
        let manifest = Manifest::single(pair.public_key());
        let mut wanted = CoreRecord::new(manifest.key());
        wanted.manifest = Some(manifest.encode());
        wanted.seed = Some(*pair.seed());
        wanted.name = Some((*namespace, name.to_vec()));
        wanted.encryption = encryption.cloned();
        self.get_locked(&mut state, wanted)
    }

    fn get(&self, wanted: CoreRecord) -> Result<Arc<Core>> {
        self.get_locked(&mut self.state.lock(), wanted)
    }

    /// The core of this key. If it is new, or the record knows more of it than the store, that is stored.
    fn get_locked(&self, state: &mut State, wanted: CoreRecord) -> Result<Arc<Core>> {
        let known = self.link(MetaKey::Discovery(wanted.key.discovery_key()))?;
        let Some(id) = known else {
            return self.create(state, wanted);
        };
        let stored = self.core_record(id)?;
        let merged = CoreRecord {
            key: stored.key,
            manifest: stored.manifest.clone().or_else(|| wanted.manifest.clone()),
            seed: stored.seed.or(wanted.seed),
            name: stored.name.clone().or_else(|| wanted.name.clone()),
            encryption: wanted.encryption.clone().or_else(|| stored.encryption.clone()),
        };
        if merged.encryption != stored.encryption && stored.seed.is_some() {
            return Err(other_encryption());
        }
        if merged != stored {
            if state.open.get(&id).is_some_and(|core| core.strong_count() > 0) {
                // It has a writer or readers who rely on what they saw.
                return Err(Error::invalid("the core is open with less than is now known of it"));
            }
            self.write_core(WriteBatch::new(), id, &merged)?;
        }
        self.open_core(state, id)
    }

    fn create(&self, state: &mut State, core: CoreRecord) -> Result<Arc<Core>> {
        let id = CoreId(state.record.next_core);
        // Before the write: were it said to have failed and yet there, the next core must not get the same id.
        state.record.next_core += 1;
        let mut batch = WriteBatch::new();
        let at = MetaKey::Store.encode();
        batch.put(Space::Meta, &at, &record::encode(&at, &state.record));
        let at = MetaKey::Discovery(core.key.discovery_key()).encode();
        batch.put(Space::Meta, &at, &record::encode(&at, &CoreLink(id.0)));
        self.write_core(batch, id, &core)?;
        self.open_core(state, id)
    }

    /// Write a core's record, and the name that leads to it, with what is in the batch.
    fn write_core(&self, mut batch: WriteBatch, id: CoreId, core: &CoreRecord) -> Result<()> {
        let at = MetaKey::Core(id).encode();
        batch.put(Space::Meta, &at, &record::encode(&at, core));
        if let Some((namespace, name)) = &core.name {
            let at = MetaKey::Name(namespace, name).encode();
            batch.put(Space::Meta, &at, &record::encode(&at, &CoreLink(id.0)));
        }
        self.backend.write(batch, Durability::Sync)
    }

    fn open_core(&self, state: &mut State, id: CoreId) -> Result<Arc<Core>> {
        if let Some(core) = state.open.get(&id).and_then(Weak::upgrade) {
            return Ok(core);
        }
        let record = self.core_record(id)?;
        let core = Arc::new(Core::open(self.backend.clone(), id, &record)?);
        state.open.retain(|_, core| core.strong_count() > 0);
        state.open.insert(id, Arc::downgrade(&core));
        Ok(core)
    }

    fn link(&self, key: MetaKey<'_>) -> Result<Option<CoreId>> {
        let at = key.encode();
        match self.backend.get(Space::Meta, &at)? {
            Some(value) => Ok(Some(CoreId(record::decode::<CoreLink>(&at, value)?.0))),
            None => Ok(None),
        }
    }

    fn core_record(&self, id: CoreId) -> Result<CoreRecord> {
        let at = MetaKey::Core(id).encode();
        let value = self.backend.get(Space::Meta, &at)?;
        record::decode(&at, value.ok_or_else(|| Error::corrupt("a core record is gone"))?)
    }
}

impl Namespace {
    /// A namespace inside this one.
    pub fn namespace(&self, name: impl AsRef<[u8]>) -> Namespace {
        Namespace { store: self.store.clone(), hash: names::namespace(&self.hash, name.as_ref()) }
    }

    /// The hash that stands for it in derived keys.
    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// The core of this name in this namespace, made if there is none. It can be written.
    ///
    /// # Errors
    ///
    /// As [`Store::get_by_name`].
    pub fn get_by_name(&self, name: impl AsRef<[u8]>) -> Result<Arc<Core>> {
        self.store.named(&self.hash, name.as_ref(), None)
    }

    /// The core of this name in this namespace, whose blocks are encrypted, made if there is none. It can be written.
    ///
    /// # Errors
    ///
    /// As [`Store::get_by_name_encrypted`].
    pub fn get_by_name_encrypted(&self, name: impl AsRef<[u8]>, key: &EncryptionKey) -> Result<Arc<Core>> {
        self.store.named(&self.hash, name.as_ref(), Some(key))
    }

    /// The store it is a part of.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} cores open)", self.open_cores())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", crate::crypto::key::to_hex(&self.hash))
    }
}

fn other_encryption() -> Error {
    Error::invalid("the core is there with another encryption key, or without one")
}

/// What transactions of an earlier process spilled means nothing to anyone now.
fn clear_scratch(backend: &dyn Backend) -> Result<()> {
    let Some(last) = backend.scan(Space::Scratch, Range::all(), true).next() else {
        return Ok(());
    };
    let (mut end, _) = last?;
    let mut after = std::mem::take(&mut end).to_vec();
    after.push(0);
    let mut batch = WriteBatch::new();
    batch.delete_range(Space::Scratch, &[], &after);
    backend.write(batch, Durability::NoSync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty::{Fault, Faulty, Plan};
    use crate::storage::memory::Memory;
    use bytes::Bytes;

    fn open(backend: &Arc<dyn Backend>, primary_key: Option<[u8; 32]>) -> Result<Arc<Store>> {
        Store::open(backend.clone(), Options { primary_key })
    }

    #[test]
    fn a_name_leads_to_the_same_core_for_good() {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        let store = open(&backend, None).unwrap();
        let core = store.get_by_name("main").unwrap();
        let key = core.key();
        core.append(&[Bytes::from("one")], Durability::Sync).unwrap();
        assert!(Arc::ptr_eq(&core, &store.get_by_name("main").unwrap()));
        assert!(Arc::ptr_eq(&core, &store.get_by_key(key).unwrap()));
        let found = store.get_by_discovery_key(key.discovery_key()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&core, &found) && core.is_writable());
        assert_eq!(store.open_cores(), 1);
        drop((core, found));
        assert_eq!(store.open_cores(), 0);
        let other = store.namespace("app").get_by_name("main").unwrap();
        assert_ne!(other.key(), key);
        drop((store, other));

        let store = open(&backend, None).unwrap();
        let core = store.get_by_name("main").unwrap();
        assert_eq!((core.key(), core.get(crate::BlockIndex(0)).unwrap().as_ref()), (key, &b"one"[..]));
        assert_eq!(store.cores().unwrap().len(), 2);
        let names = store.names().unwrap();
        assert!(names.iter().all(|named| named.name == b"main") && names.len() == 2);
        assert_eq!(names[0].key, key, "the root namespace sorts first");
        let wrong = [1; 32];
        assert!(matches!(open(&backend, Some(wrong)), Err(Error::Invalid(_))));
        assert!(open(&backend, Some(*store.primary_key())).is_ok());
        assert!(!format!("{store:?}").contains(&format!("{:?}", store.primary_key())));
    }

    #[test]
    fn a_core_opened_by_key_can_be_read_only() {
        let store = Store::open(Arc::new(Memory::new()), Options::default()).unwrap();
        let pair = KeyPair::from_seed(&[5; 32]);
        let manifest = Manifest::single(pair.public_key());
        let core = store.get_by_key(manifest.key()).unwrap();
        assert!(core.manifest().is_none() && !core.is_writable());
        let append = core.append(&[Bytes::from("x")], Durability::Sync);
        assert_eq!(append, Err(Error::NotWritable));
        assert_eq!(core.stage().err(), Some(Error::NotWritable));
        let foreign = Manifest::single(KeyPair::from_seed(&[6; 32]).public_key());
        assert!(matches!(core.learn_manifest(foreign), Err(Error::InvalidManifest(_))));
        core.learn_manifest(manifest.clone()).unwrap();
        assert_eq!(core.manifest(), Some(manifest));
        // While it is open it cannot become writable under its readers.
        assert!(matches!(store.get_by_key_pair(&pair), Err(Error::Invalid(_))));
        drop(core);
        let core = store.get_by_key_pair(&pair).unwrap();
        assert!(core.is_writable());
        core.append(&[Bytes::from("x")], Durability::Sync).unwrap();
    }

    #[test]
    fn a_core_id_is_not_used_twice_whatever_a_failed_write_did() {
        for fault in [Fault::FailBefore, Fault::FailAfter] {
            let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
            let backend: Arc<dyn Backend> = faulty.clone();
            let store = open(&backend, None).unwrap();
            faulty.set_plan(Plan::at(faulty.writes() + 1, fault));
            assert!(matches!(store.get_by_name("one"), Err(Error::Storage(_))), "{fault:?}");
            let names = ["two", "one"];
            for name in names {
                let core = store.get_by_name(name).unwrap();
                core.append(&[Bytes::from(name)], Durability::Sync).unwrap();
            }
            drop(store);
            let store = open(&backend, None).unwrap();
            for name in names {
                let core = store.get_by_name(name).unwrap();
                assert_eq!((core.len().0, core.get(crate::BlockIndex(0)).unwrap().as_ref()), (1, name.as_bytes()));
            }
        }
    }

    #[test]
    fn another_format_is_refused_and_scratch_is_cleared() {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        drop(open(&backend, None).unwrap());
        let mut batch = WriteBatch::new();
        batch.put(Space::Scratch, b"left", b"over");
        backend.write(batch, Durability::NoSync).unwrap();
        drop(open(&backend, None).unwrap());
        assert_eq!(backend.get(Space::Scratch, b"left").unwrap(), None);

        let at = MetaKey::Store.encode();
        let newer = StoreRecord { format: FORMAT_VERSION + 1, next_core: 1, primary_key: [0; 32] };
        let mut batch = WriteBatch::new();
        batch.put(Space::Meta, &at, &record::encode(&at, &newer));
        backend.write(batch, Durability::Sync).unwrap();
        let refused = open(&backend, None).err();
        assert_eq!(refused, Some(Error::FormatVersion { found: FORMAT_VERSION + 1, supported: FORMAT_VERSION }));

        let older = StoreRecord { format: FORMAT_VERSION_MIN, next_core: 9, primary_key: [0; 32] };
        let mut batch = WriteBatch::new();
        batch.put(Space::Meta, &at, &record::encode(&at, &older));
        backend.write(batch, Durability::Sync).unwrap();
        drop(open(&backend, None).unwrap());
        let raised: StoreRecord = record::decode(&at, backend.get(Space::Meta, &at).unwrap().unwrap()).unwrap();
        assert_eq!((raised.format, raised.next_core), (FORMAT_VERSION, 9));
    }
}
