//! Proofs as JavaScript makes them: the same bytes for the same request, each accepted with the same result, each mutation of one
//! refused with the store left as it was; forks followed as JavaScript follows them; seeks and truncations of its tree.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::crypto::key::{KeyPair, from_hex, to_hex};
use pgbee_engine::crypto::manifest::{Manifest, Prologue};
use pgbee_engine::crypto::merkle::TreeNode;
use pgbee_engine::encoding::compact::{DecodeError, Decoder};
use pgbee_engine::hypercore::intake::Applied;
use pgbee_engine::hypercore::proof::{
    BlockProof, BlockRequest, HashProof, HashRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use pgbee_engine::hypercore::{Core, Sought};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability, Range, Space};
use pgbee_engine::{BlockIndex, CoreKey, Error, Fork, Length, NodeIndex, Result};
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// A `data` message of the wire: uint flags, uint request, uint fork, then by flag its parts.
fn decode(hex: &Value) -> Proof {
    fn nodes(from: &mut Decoder<'_>) -> std::result::Result<Vec<TreeNode>, DecodeError> {
        from.array(|from| Ok(TreeNode { index: NodeIndex(from.uint()?), size: from.uint()?, hash: from.fixed()? }))
    }
    let bytes = from_hex(hex.as_str().unwrap()).unwrap();
    let mut from = Decoder::new(&bytes);
    let flags = from.uint().unwrap();
    assert_eq!(from.uint().unwrap(), 1, "the request's id");
    let mut proof = Proof { fork: Fork(from.uint().unwrap()), ..Proof::default() };
    if flags & 1 != 0 {
        let index = BlockIndex(from.uint().unwrap());
        let value = Bytes::copy_from_slice(from.buffer().unwrap());
        proof.block = Some(BlockProof { index, value, nodes: nodes(&mut from).unwrap() });
    }
    if flags & 2 != 0 {
        let index = NodeIndex(from.uint().unwrap());
        proof.hash = Some(HashProof { index, nodes: nodes(&mut from).unwrap() });
    }
    if flags & 4 != 0 {
        let bytes = from.uint().unwrap();
        proof.seek = Some(SeekProof { bytes, nodes: nodes(&mut from).unwrap() });
    }
    if flags & 8 != 0 {
        let (start, length) = (Length(from.uint().unwrap()), from.uint().unwrap());
        let (nodes, additional) = (nodes(&mut from).unwrap(), nodes(&mut from).unwrap());
        let signature = Bytes::copy_from_slice(from.buffer().unwrap());
        proof.upgrade = Some(UpgradeProof { start, length, nodes, additional, signature });
    }
    if flags & 16 != 0 {
        proof.manifest = Some(Manifest::decode_from(&mut from).unwrap());
    }
    from.finish().unwrap();
    proof
}

fn request(of: &Value, manifest: bool) -> Request {
    let part = |name: &str| (!of[name].is_null()).then(|| &of[name]);
    Request {
        block: part("block").map(|b| BlockRequest { index: BlockIndex(number(b, "index")), nodes: number(b, "nodes") }),
        hash: part("hash").map(|h| HashRequest { index: NodeIndex(number(h, "index")), nodes: number(h, "nodes") }),
        seek: part("seek").map(|s| SeekRequest { bytes: number(s, "bytes"), padding: number(s, "padding") }),
        upgrade: part("upgrade")
            .map(|u| UpgradeRequest { start: Length(number(u, "start")), length: number(u, "length") }),
        manifest,
    }
}

/// What is stored in all spaces.
fn dump(backend: &dyn Backend) -> Vec<(Space, Bytes, Bytes)> {
    let entries = |space| backend.scan(space, Range::all(), false).map(move |entry| (space, entry.unwrap()));
    Space::ALL.into_iter().flat_map(entries).map(|(space, (key, value))| (space, key, value)).collect()
}

fn store() -> (Arc<Memory>, Arc<Store>) {
    let backend = Arc::new(Memory::new());
    let store = Store::open(backend.clone(), Options { primary_key: Some([9; 32]) }).unwrap();
    (backend, store)
}

fn replica(key: CoreKey) -> (Arc<Memory>, Arc<Core>) {
    let (backend, store) = store();
    let core = store.get_by_key(key).unwrap();
    (backend, core)
}

fn block(i: u64) -> Bytes {
    (0..i * 7 % 23).map(|j| (i * 31 + j) as u8).collect::<Vec<u8>>().into()
}

/// The source of all vectors, at a length.
fn source(length: u64) -> Arc<Core> {
    let (_, store) = store();
    let core = store.get_by_key_pair(&KeyPair::from_seed(&[1; 32])).unwrap();
    let blocks: Vec<Bytes> = (0..length).map(block).collect();
    core.append(&blocks, Durability::Sync).unwrap();
    core
}

fn take_in(core: &Core, proof: Proof) -> Result<Applied> {
    let mut intake = core.intake();
    let verified = intake.verify(proof)?;
    intake.add(verified);
    intake.commit(Durability::Sync)
}

fn key(of: &Value, name: &str) -> CoreKey {
    CoreKey(from_hex(text(of, name)).unwrap().try_into().unwrap())
}

#[test]
fn proofs_are_made_taken_and_refused_as_in_javascript() {
    let vectors = load("proofs");
    let key = key(&vectors, "coreKey");
    let mut refused = 0;
    for case in list(&vectors, "cases") {
        let name = text(case, "name");
        let proof = decode(&case["data"]);
        let from = number(&case["request"], "from");
        let asked = request(&case["request"], proof.manifest.is_some());
        assert_eq!(source(from).prove(&asked).as_ref(), Ok(&proof), "{name}: made");

        let prepared = || {
            let (backend, core) = replica(key);
            for message in list(case, "setup") {
                take_in(&core, decode(message)).unwrap();
            }
            assert_eq!(core.len(), Length(number(case, "lengthBefore")), "{name}");
            (backend, core)
        };
        for bad in list(case, "bad") {
            let (backend, core) = prepared();
            let before = dump(&*backend);
            let result = take_in(&core, decode(&bad["data"]));
            let is_fault =
                matches!(result, Err(Error::InvalidProof(_) | Error::InvalidSignature | Error::InvalidManifest(_)));
            assert!(is_fault, "{name}: {}: {result:?}", text(bad, "why"));
            assert_eq!(dump(&*backend), before, "{name}: {}", text(bad, "why"));
            refused += 1;
            // What was refused is not in the way of what is sound.
            take_in(&core, proof.clone()).unwrap();
        }

        let (backend, core) = prepared();
        if let Some(asked) = asked.block.filter(|_| asked.upgrade.is_none()) {
            assert_eq!(core.missing_nodes(asked.index.node()), asked.nodes, "{name}");
        }
        let length_before = core.len();
        let applied = take_in(&core, proof.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let length = Length(number(case, "lengthAfter"));
        assert_eq!((core.len(), core.head().byte_length), (length, number(case, "byteLengthAfter")), "{name}");
        assert_eq!(applied.head.is_some(), length != length_before, "{name}");
        let taken: Vec<BlockIndex> = proof.block.iter().map(|block| block.index).collect();
        assert_eq!(applied.blocks, taken, "{name}");
        for block in proof.block.iter() {
            assert_eq!(core.get(block.index).as_ref(), Ok(&block.value), "{name}");
            assert_eq!(core.missing_nodes(block.index.node()), 0, "{name}");
        }
        // It is in the store, too.
        let head = core.head();
        drop(core);
        let store = Store::open(backend, Options::default()).unwrap();
        let core = store.get_by_key(key).unwrap();
        assert_eq!(core.head(), head, "{name}");
        for block in proof.block.iter() {
            assert_eq!(core.get(block.index).as_ref(), Ok(&block.value), "{name}");
        }
    }
    assert_eq!(refused, 287);
}

#[test]
fn a_compat_core_needs_no_manifest() {
    let vectors = load("proofs");
    let case = &vectors["compat"];
    let (_, core) = replica(key(case, "key"));
    take_in(&core, decode(&case["data"])).unwrap();
    assert_eq!(core.len(), Length(number(case, "lengthAfter")));
    assert!(core.verifier().unwrap().is_compat());
    // None is sent on, either.
    let upgrade = Some(UpgradeRequest { start: Length(0), length: core.len().0 });
    let proof = core.prove(&Request { upgrade, manifest: true, ..Request::default() }).unwrap();
    assert_eq!(proof.manifest, None);
    let (_, third) = replica(key(case, "key"));
    take_in(&third, proof).unwrap();
    assert_eq!(third.head(), core.head());
}

/// The key of a compat core is its signer's: what else a manifest says, a stranger may have made up.
#[test]
fn a_compat_core_has_no_prologue() {
    let core = source(6);
    let signer = core.manifest().unwrap().signers[0];
    let key = CoreKey(signer.public_key.0);
    let forged = Prologue { hash: core.head().root_hash, length: 6 };
    let manifest = Manifest { prologue: Some(forged), ..Manifest::single(signer.public_key) };
    let mut proof = core.prove_alone(Some(BlockIndex(3))).unwrap();
    proof.manifest = Some(manifest);
    assert_eq!(proof.verify_alone(key), Err(Error::InvalidSignature));
    let (backend, replica) = replica(key);
    let before = dump(&*backend);
    assert_eq!(take_in(&replica, proof), Err(Error::InvalidSignature));
    assert_eq!((dump(&*backend), replica.manifest()), (before, None));
}

/// A log whose manifest fixes its beginning: an upgrade is of all of that at least, and needs no signature up to there.
#[test]
fn a_prologue_is_taken_whole() {
    let whole = source(20);
    let fixed = Prologue { hash: whole.head().root_hash, length: 20 };
    let (pair, blocks) =
        (KeyPair::from_seed(&[5; 32]), |range: std::ops::Range<u64>| range.map(block).collect::<Vec<_>>());
    let manifest = Manifest { prologue: Some(fixed), ..Manifest::single(pair.public_key()) };
    let (_, store) = store();
    let core = store.get_by_manifest(&manifest, Some(&pair)).unwrap();
    core.append(&blocks(0..20), Durability::Sync).unwrap();
    let ask = |start, length| Request {
        upgrade: Some(UpgradeRequest { start: Length(start), length }),
        manifest: true,
        ..Request::default()
    };
    assert_eq!(core.head().signature.len(), 0);
    let unsigned = core.prove(&ask(0, 20)).unwrap();
    core.append(&blocks(20..31), Durability::Sync).unwrap();
    assert!(matches!(core.truncate(Length(19), Durability::Sync), Err(Error::Invalid(_))));
    for (proof, length) in [(unsigned, 20), (core.prove(&ask(0, 7)).unwrap(), 31)] {
        let upgrade = proof.upgrade.as_ref().unwrap();
        assert_eq!((upgrade.start, upgrade.length), (Length(0), 20));
        let (_, replica) = replica(core.key());
        let mut divided = proof.clone();
        divided.upgrade.as_mut().unwrap().length = 16;
        assert!(matches!(take_in(&replica, divided), Err(Error::InvalidProof(_))));
        take_in(&replica, proof).unwrap();
        assert_eq!(replica.len(), Length(length));
    }
    let (_, replica) = replica(core.key());
    take_in(&replica, core.prove(&ask(0, 20)).unwrap()).unwrap();
    assert_eq!(replica.head(), core.head());
    assert!(core.prove(&ask(25, 6)).is_ok());
    core.truncate(Length(20), Durability::Sync).unwrap();
    assert_eq!((core.head().signature.len(), core.fork()), (0, Fork(1)));
    // Nobody signed that: whoever has the prologue could say so.
    let unsigned = replica.reorg(core.prove(&ask(0, 20)).unwrap());
    assert!(matches!(unsigned.err(), Some(Error::Invalid(_))));
    core.append(&blocks(20..22), Durability::Sync).unwrap();
    let reorg = replica.reorg(core.prove(&ask(0, 22)).unwrap()).unwrap();
    assert_eq!(reorg.head(), &core.head());
}

#[test]
fn a_fork_is_followed_as_in_javascript() {
    let vectors = load("proofs");
    let case = &vectors["reorg"];
    let (_, core) = replica(key(case, "coreKey"));
    for message in list(case, "setup") {
        take_in(&core, decode(message)).unwrap();
    }
    assert_eq!(core.len(), Length(number(case, "blocksBefore")));
    let mut reorg = core.reorg(decode(&case["forkProof"])).unwrap();
    assert_eq!(reorg.next_request().is_none(), case["finished"].as_bool().unwrap());
    let steps = list(case, "steps");
    let hash = reorg.next_request().unwrap().hash.unwrap();
    assert_eq!(hash.nodes, number(&case["wantAfterFirst"], "nodes"));
    for step in steps {
        assert_eq!(reorg.next_request(), Some(request(&step["request"], false)));
        let mut wrong = decode(&step["data"]);
        wrong.hash.as_mut().unwrap().nodes[1].hash[0] ^= 1;
        assert!(matches!(reorg.receive(wrong), Err(Error::InvalidProof(_))));
        reorg.receive(decode(&step["data"])).unwrap();
        assert_eq!(reorg.next_request().is_none(), step["finished"].as_bool().unwrap());
    }
    let applied = reorg.commit(Durability::Sync).unwrap();
    let ancestors = number(steps.last().unwrap(), "ancestors");
    assert_eq!(applied.truncated_to, Some(Length(ancestors)));
    let head = core.head();
    assert_eq!((head.length, head.fork), (Length(number(case, "lengthAfter")), Fork(number(case, "forkAfter"))));
    assert_eq!(to_hex(&head.root_hash), text(case, "treeHashAfter"));
}

#[test]
fn bytes_are_found_as_in_javascript() {
    let vectors = load("merkle");
    let core = source(40);
    for case in list(&vectors, "seeks") {
        let bytes = number(case, "bytes");
        let expected = match case["result"].as_array() {
            Some(place) => Sought::At(BlockIndex(place[0].as_u64().unwrap()), place[1].as_u64().unwrap()),
            None => Sought::Beyond,
        };
        assert_eq!(core.seek(bytes, 0).unwrap(), expected, "{bytes}");
    }
    let mut offset = 0;
    for case in list(&vectors, "byteRanges") {
        let index = BlockIndex(number(case, "index"));
        assert_eq!(core.byte_offset(index).unwrap(), offset);
        // The package gives none beyond the first root.
        assert!(case["offset"].as_u64().is_none_or(|theirs| theirs == offset));
        assert_eq!(core.get(index).unwrap().len() as u64, number(case, "size"));
        offset += number(case, "size");
    }
    assert_eq!(core.byte_offset(BlockIndex(40)).unwrap(), core.head().byte_length);
    assert!(core.byte_offset(BlockIndex(41)).is_err() && core.seek(1, 8).is_err());

    // Who has only the roots knows between which blocks, and learns the rest.
    let (_, sparse) = replica(core.key());
    let upgrade = Some(UpgradeRequest { start: Length(0), length: 40 });
    take_in(&sparse, core.prove(&Request { upgrade, manifest: true, ..Request::default() }).unwrap()).unwrap();
    let Sought::Within(blocks, offset) = sparse.seek(100, 0).unwrap() else { panic!() };
    assert_eq!((blocks.clone(), offset), (BlockIndex(0)..BlockIndex(32), 100));
    let hash = HashRequest { index: blocks.start.node(), nodes: sparse.missing_nodes(blocks.start.node()) };
    let seek = Some(SeekRequest { bytes: 100, padding: 0 });
    let proof = core.prove(&Request { hash: Some(hash), seek, ..Request::default() }).unwrap();
    take_in(&sparse, proof).unwrap();
    assert_eq!(sparse.seek(100, 0).unwrap(), core.seek(100, 0).unwrap());
}

#[test]
fn truncations_sign_what_javascript_signs() {
    let vectors = load("merkle");
    let core = source(40);
    for step in list(&vectors, "truncations") {
        let length = Length(number(step, "length"));
        let head = if let Some(appended) = step["appended"].as_str() {
            core.append(&[from_hex(appended).unwrap().into()], Durability::Sync).unwrap()
        } else {
            let fork = step["requestedFork"].as_u64().map(Fork);
            core.truncate_as(length, fork, Durability::Sync).unwrap()
        };
        assert_eq!((head.length, head.fork), (length, Fork(number(step, "fork"))));
        assert_eq!(to_hex(&head.root_hash), text(step, "treeHash"));
        assert_eq!(head.byte_length, number(step, "byteLength"));
        if let Some(signature) = step["signature"].as_str() {
            assert_eq!(to_hex(&head.signature), signature);
        }
        assert_eq!((core.head(), core.len(), core.durable_len()), (head, length, length));
        core.verify(|_, _| ()).unwrap();
    }
}

#[test]
fn a_proof_can_stand_alone() {
    let core = source(27);
    let proof = core.prove_alone(Some(BlockIndex(13))).unwrap();
    let alone = proof.verify_alone(core.key()).unwrap();
    assert_eq!((alone.length, alone.block), (Length(27), Some(BlockIndex(13))));
    assert_eq!(alone.root_hash, core.head().root_hash);
    let mut altered = proof.clone();
    altered.block.as_mut().unwrap().value = "another".into();
    assert_eq!(altered.verify_alone(core.key()), Err(Error::InvalidSignature));
    let nameless = Proof { manifest: None, ..proof.clone() };
    assert_eq!(nameless.verify_alone(core.key()), Err(Error::InvalidSignature));
    assert!(matches!(proof.verify_alone(CoreKey([3; 32])), Err(Error::InvalidManifest(_))));
}
