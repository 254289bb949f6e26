//! Block encryption: JavaScript's vectors, and encrypted cores from the record in the store up to transactions.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::crypto::key::{KeyPair, from_hex, to_hex};
use pgbee_engine::crypto::manifest::Manifest;
use pgbee_engine::crypto::merkle::Roots;
use pgbee_engine::hypercore::encryption::{BlockCipher, EncryptionKey, PADDING_BYTES};
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability};
use pgbee_engine::txn::{CommitInfo, Database, Options};
use pgbee_engine::{BlockIndex, CoreKey, Error, Fork};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    let path = format!("{}/../tests/vectors/encryption.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
}

fn fixed(value: &Value) -> [u8; 32] {
    from_hex(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn encryption_key(core: &Value) -> EncryptionKey {
    let key = if core["isBlockKey"] == true { EncryptionKey::block_key } else { EncryptionKey::new };
    key(fixed(&core["encryptionKey"]))
}

#[test]
fn keys_and_blocks_are_those_of_javascript() {
    let vectors = vectors();
    let cores = vectors["cores"].as_array().unwrap();
    assert_eq!(cores.len(), 3);
    for core in cores {
        let name = core["name"].as_str().unwrap();
        let is_compat = core["compat"] == true;
        let cipher = BlockCipher::new(&encryption_key(core), CoreKey(fixed(&core["coreKey"])), is_compat);
        assert_eq!(cipher.keys(), (&fixed(&core["blockKey"]), &fixed(&core["blindingKey"])), "{name}");
        let mut newest = BTreeMap::new();
        let (mut plain_bytes, mut stored_bytes) = (0, 0);
        for block in core["blocks"].as_array().unwrap() {
            let index = BlockIndex(block["index"].as_u64().unwrap());
            let fork = Fork(block["fork"].as_u64().unwrap());
            let plain = from_hex(block["plain"].as_str().unwrap()).unwrap();
            let stored = cipher.encrypt(index, fork, &plain);
            assert_eq!(to_hex(&stored), block["stored"].as_str().unwrap(), "{name}, block {index} at fork {fork}");
            assert_eq!(cipher.decrypt(index, &stored).unwrap(), plain);
            if fork == Fork(0) {
                plain_bytes += plain.len() as u64;
                stored_bytes += stored.len() as u64;
            }
            // A block of a new fork took the place of one, and what was behind it is gone.
            newest.retain(|&before, _| before < index);
            newest.insert(index, stored);
        }
        // The lengths are from before that, the hash from after.
        assert_eq!(
            (Some(plain_bytes), Some(stored_bytes)),
            (core["byteLength"].as_u64(), core["storedByteLength"].as_u64())
        );
        let mut roots = Roots::new();
        newest.values().for_each(|block| roots.append(block, |_| {}));
        assert_eq!(to_hex(&roots.hash()), core["treeHash"].as_str().unwrap(), "{name}");
        assert_eq!(cipher.decrypt(BlockIndex(0), &[0; PADDING_BYTES - 1]), None);
    }
}

#[test]
fn a_core_stores_what_javascript_stores() {
    let vectors = vectors();
    let pair = KeyPair::from_seed(&[1; 32]);
    for core in vectors["cores"].as_array().unwrap().iter().filter(|core| core["compat"] == false) {
        let store = open(&(Arc::new(Memory::new()) as Arc<dyn Backend>));
        let key = Manifest::single(pair.public_key()).key();
        assert_eq!(key.0, fixed(&core["coreKey"]));
        drop(store.get_by_key_encrypted(key, &encryption_key(core)).unwrap());
        let written = store.get_by_key_pair(&pair).unwrap();
        assert!(written.is_writable() && written.encryption_key() == Some(&encryption_key(core)));
        let blocks = core["blocks"].as_array().unwrap().iter().filter(|block| block["fork"] == 0);
        let plain: Vec<Bytes> =
            blocks.clone().map(|block| from_hex(block["plain"].as_str().unwrap()).unwrap().into()).collect();
        written.append(&plain[..1], Durability::Sync).unwrap();
        let stage = written.stage().unwrap();
        stage.push(&plain[1..]).unwrap();
        assert_eq!(stage.get(BlockIndex(2)).unwrap(), plain[2]);
        assert_eq!(stage.blocks(BlockIndex(0), 4).unwrap(), plain);
        let head = stage.commit(Durability::Sync).unwrap();
        assert_eq!(Some(head.byte_length), core["storedByteLength"].as_u64(), "stored bytes are what is counted");
        for (i, block) in blocks.enumerate() {
            let index = BlockIndex(i as u64);
            assert_eq!(to_hex(&written.get_stored(index).unwrap()), block["stored"].as_str().unwrap());
            assert_eq!(written.get(index).unwrap(), plain[i]);
        }
        assert_eq!(written.get_range(BlockIndex(0), 4).unwrap(), plain);
        assert_eq!(written.blocks(BlockIndex(1), 9).unwrap(), plain[1..]);
        assert_eq!(written.verify(|_, _| {}).unwrap().bytes, head.byte_length);
    }
}

fn open(backend: &Arc<dyn Backend>) -> Arc<Store> {
    Store::open(backend.clone(), corestore::Options { primary_key: Some([7; 32]) }).unwrap()
}

fn database(core: Arc<Core>) -> Result<Arc<Database>, Error> {
    Database::open(
        core,
        Cache::new(1 << 20),
        Options { group_entries_max: 20, staged_entries: 8, ..Options::default() },
    )
}

#[test]
fn the_key_is_kept_with_the_core_and_cannot_change_under_it() {
    let backend: Arc<dyn Backend> = Arc::new(Memory::new());
    let (key, other) = (EncryptionKey::random().unwrap(), EncryptionKey::new([2; 32]));
    assert_ne!(key, EncryptionKey::random().unwrap());
    assert_eq!(EncryptionKey::parse(&key.to_hex()).unwrap(), key);
    let refused = EncryptionKey::parse("c0ffee").unwrap_err().to_string();
    assert!(!refused.contains("c0ffee"), "{refused}");
    assert!(!format!("{key:?}").contains(key.to_hex().as_str()));
    let public = {
        let store = open(&backend);
        let core = store.namespace("app").get_by_name_encrypted("secret", &key).unwrap();
        core.append(&["plain".into()], Durability::Sync).unwrap();
        assert!(Arc::ptr_eq(&core, &store.namespace("app").get_by_name("secret").unwrap()));
        store.get_by_name("open").unwrap().append(&["x".into()], Durability::Sync).unwrap();
        core.key()
    };
    let store = open(&backend);
    let app = store.namespace("app");
    for refused in [
        app.get_by_name_encrypted("secret", &other),
        store.get_by_name_encrypted("open", &key),
        store.get_by_key_encrypted(public, &other),
    ] {
        assert!(matches!(refused, Err(Error::Invalid(_))));
    }
    let core = store.get_by_key(public).unwrap();
    assert_eq!(core.encryption_key(), Some(&key));
    assert_eq!(core.get(BlockIndex(0)).unwrap(), "plain");
    assert!(Arc::ptr_eq(&core, &store.get_by_key_encrypted(public, &key).unwrap()));
    assert!(store.get_by_name("open").unwrap().encryption_key().is_none());

    // A reader who typed a wrong key may type another one, once nobody reads with the wrong one.
    let reader = open(&(Arc::new(Memory::new()) as Arc<dyn Backend>));
    let wrong = reader.get_by_key_encrypted(public, &other).unwrap();
    assert!(matches!(reader.get_by_key_encrypted(public, &key), Err(Error::Invalid(_))));
    drop(wrong);
    assert_eq!(reader.get_by_key_encrypted(public, &key).unwrap().encryption_key(), Some(&key));
    assert_eq!(reader.get_by_key(public).unwrap().encryption_key(), Some(&key));
}

/// Another store with the same stored blocks of a core, read with another key or none.
fn copy(core: &Core, encryption: Option<&EncryptionKey>) -> (Arc<Store>, Arc<Core>) {
    let store = open(&(Arc::new(Memory::new()) as Arc<dyn Backend>));
    let plain = store.get_by_name("secret").unwrap();
    assert_eq!(plain.key(), core.key(), "one primary key, one name");
    let blocks: Vec<Bytes> = (0..core.len().0).map(|i| core.get_stored(BlockIndex(i)).unwrap()).collect();
    plain.append(&blocks, Durability::Sync).unwrap();
    assert_eq!(plain.head(), core.head());
    drop(plain);
    let Some(key) = encryption else {
        let core = store.get_by_name("secret").unwrap();
        return (store, core);
    };
    // As it would be at a reader's: known by its key only, so in a store of its own.
    let cipher = BlockCipher::new(key, core.key(), false);
    let garbled = open(&(Arc::new(Memory::new()) as Arc<dyn Backend>));
    let read: Vec<Bytes> =
        blocks.iter().zip(0..).map(|(block, i)| cipher.decrypt(BlockIndex(i), block).unwrap()).collect();
    let core = garbled.get_by_name("garbled").unwrap();
    core.append(&read, Durability::Sync).unwrap();
    (garbled, core)
}

#[test]
fn without_the_key_or_with_a_wrong_one_a_bee_is_corrupt() {
    let backend: Arc<dyn Backend> = Arc::new(Memory::new());
    let store = open(&backend);
    let core = store.get_by_name_encrypted("secret", &EncryptionKey::new([3; 32])).unwrap();
    let db = database(core.clone()).unwrap();
    for i in 0..50u64 {
        let mut txn = db.begin();
        txn.put(i.to_be_bytes().to_vec(), "the value").unwrap();
        db.commit(txn, CommitInfo::at(i as i64)).unwrap();
    }
    for key in [None, Some(EncryptionKey::new([4; 32])), Some(EncryptionKey::block_key([3; 32]))] {
        let (_store, read) = copy(&core, key.as_ref());
        assert!(matches!(database(read.clone()), Err(Error::Corrupt { core: Some(_), .. })), "{key:?}");
        // What opens nothing can still be asked, and refuses.
        let reader = Database::reader(read.clone(), read.clone(), Cache::new(0));
        for version in [2, 50, 101] {
            let snapshot = reader.snapshot().bee().clone();
            let at = pgbee_engine::bee::Bee::new(read.clone(), Cache::new(0), 1).at(pgbee_engine::Version(version));
            assert!(matches!(at.get(b"x"), Err(Error::Corrupt { .. })));
            assert!(matches!(at.cursor(KeyRange::all(), Direction::Forward).next(), Err(Error::Corrupt { .. })));
            assert!(snapshot.audit().is_err());
        }
    }
    for i in 0..core.len().0 {
        let stored = core.get_stored(BlockIndex(i)).unwrap();
        assert!(!stored.windows(9).any(|part| part == b"the value"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// An encrypted database is a sorted map with versions, before and after it is opened again.
    #[test]
    fn an_encrypted_database_is_a_sorted_map(
        commits in proptest::collection::vec(proptest::collection::btree_map(0u16..300, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)), 1..40), 1..12),
        reopen_after in 0usize..12,
    ) {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        let key = EncryptionKey::new([9; 32]);
        let mut store = open(&backend);
        let mut db = database(store.get_by_name_encrypted("db", &key).unwrap()).unwrap();
        let mut model: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut versions = Vec::new();
        for (n, writes) in commits.into_iter().enumerate() {
            if n == reopen_after {
                drop(db);
                drop(store);
                store = open(&backend);
                db = database(store.get_by_name("db").unwrap()).unwrap();
            }
            let mut txn = db.begin();
            for (key, value) in writes {
                let at = key.to_be_bytes().to_vec();
                match value {
                    Some(value) => {
                        txn.put(at, value.clone()).unwrap();
                        model.insert(key, value);
                    }
                    None => {
                        txn.delete(at).unwrap();
                        model.remove(&key);
                    }
                }
            }
            let version = db.commit(txn, CommitInfo::at(n as i64)).unwrap();
            versions.push((version, model.clone()));
        }
        for (version, model) in versions {
            let snapshot = db.snapshot_at(version).unwrap();
            let mut scan = snapshot.scan(KeyRange { end: std::ops::Bound::Excluded(vec![6].into()), ..KeyRange::all() }, Direction::Forward);
            let mut found = BTreeMap::new();
            while let Some(entry) = scan.next().unwrap() {
                found.insert(u16::from_be_bytes(entry.key[..].try_into().unwrap()), entry.value.unwrap().to_vec());
            }
            prop_assert_eq!(found, model);
            snapshot.bee().audit().unwrap();
        }
        db.core().verify(|_, _| {}).unwrap();
    }
}
