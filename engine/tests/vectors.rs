//! What the JavaScript packages produced, reproduced byte for byte: compact-encoding, hypercore-crypto,
//! hypercore's tree, signatures and manifests, corestore's derivations. Where the vectors come from is
//! told in each file's `about` and `producedBy`.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store, names};
use pgbee_engine::crypto::hash;
use pgbee_engine::crypto::key::{KeyPair, PublicKey, from_hex, to_hex};
use pgbee_engine::crypto::manifest::{Manifest, Prologue, SignerKey};
use pgbee_engine::crypto::merkle::{Roots, TreeNode};
use pgbee_engine::crypto::verifier::{MultiSignature, PartialSignature, Verifier};
use pgbee_engine::encoding::compact::{self, Decoder};
use pgbee_engine::storage::Durability;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::{BlockIndex, CoreKey, Fork, Length, NodeIndex, flat_tree};
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    from_hex(text(value, key)).unwrap()
}

fn fixed(value: &Value, key: &str) -> [u8; 32] {
    bytes(value, key).try_into().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    from_hex(value.as_str().unwrap()).unwrap()
}

/// Encodes each value and decodes each encoding of one primitive.
fn primitive<T: PartialEq + std::fmt::Debug>(
    vectors: &Value,
    name: &str,
    parse: impl Fn(&Value) -> T,
    encode: impl Fn(&mut Vec<u8>, &T),
    decode: impl Fn(&mut Decoder<'_>) -> T,
) {
    let cases = list(vectors, name);
    assert!(!cases.is_empty());
    for case in cases {
        let value = parse(&case["value"]);
        let mut out = Vec::new();
        encode(&mut out, &value);
        assert_eq!(to_hex(&out), text(case, "encoded"), "{name} {value:?}");
        let mut from = Decoder::new(&out);
        let back = decode(&mut from);
        assert!(from.is_empty(), "{name} {value:?} left bytes behind");
        assert_eq!(back, case.get("decodesTo").map_or(value, &parse), "{name}");
    }
}

#[test]
fn compact_encoding() {
    let v = load("compact-encoding");
    let uint = |v: &Value| v.as_u64().unwrap();
    primitive(&v, "uint", uint, |o, n| compact::uint(o, *n), |d| d.uint().unwrap());
    primitive(&v, "uint64", uint, |o, n| compact::uint64(o, *n), |d| d.uint64().unwrap());
    primitive(&v, "lexint", uint, |o, n| compact::lexint(o, *n), |d| d.lexint().unwrap());
    let int = |v: &Value| v.as_i64().unwrap();
    primitive(&v, "int", int, |o, n| compact::int(o, *n), |d| d.int().unwrap());
    let buffer = |d: &mut Decoder<'_>| d.buffer().unwrap().to_vec();
    primitive(&v, "buffer", hex, |o, b| compact::buffer(o, b), buffer);
    let optional = |v: &Value| v.as_str().map(|text| from_hex(text).unwrap());
    primitive(
        &v,
        "optionalBuffer",
        optional,
        |o, b| compact::buffer(o, b.as_deref().unwrap_or(&[])),
        |d| d.optional_buffer().unwrap().map(<[u8]>::to_vec),
    );
    let string = |v: &Value| v.as_str().unwrap().to_string();
    primitive(&v, "string", string, |o, s| compact::string(o, s), |d| d.string().unwrap().into());
    let uints = |v: &Value| v.as_array().unwrap().iter().map(uint).collect::<Vec<u64>>();
    primitive(
        &v,
        "uint32array",
        |v| uints(v).into_iter().map(|n| n as u32).collect::<Vec<u32>>(),
        |o, words| compact::uint32_array(o, words),
        |d| d.uint32_array().unwrap(),
    );
    primitive(
        &v,
        "arrayOfUint",
        uints,
        |o, items| compact::array(o, items, |o, n| compact::uint(o, *n)),
        |d| d.array(|d| d.uint()).unwrap(),
    );
    primitive(
        &v,
        "frameOfString",
        string,
        |o, s| compact::frame(o, |o| compact::string(o, s)),
        |d| d.frame().unwrap().string().unwrap().to_string(),
    );
    let bool = |v: &Value| v.as_bool().unwrap();
    primitive(&v, "bool", bool, |o, b| compact::bool(o, *b), |d| d.bool().unwrap());
    for case in list(&v, "nonCanonicalUint") {
        let encoded = bytes(case, "encoded");
        assert_eq!(Decoder::new(&encoded).uint().unwrap(), number(case, "decodesTo"));
    }
}

#[test]
fn keys_hashes_and_capabilities() {
    let v = load("crypto");
    for case in list(&v, "namespaces") {
        let value = hash::namespace(text(case, "name"), number(case, "index") as u8);
        assert_eq!(to_hex(&value), text(case, "value"));
        let known = match (text(case, "name"), number(case, "index")) {
            ("hypercore", 0) => hash::TREE,
            ("hypercore", 1) => hash::REPLICATE_INITIATOR,
            ("hypercore", 2) => hash::REPLICATE_RESPONDER,
            ("hypercore", 3) => hash::MANIFEST,
            ("hypercore", 4) => hash::DEFAULT_NAMESPACE,
            ("hypercore", 5) => hash::DEFAULT_ENCRYPTION,
            ("corestore", 0) => hash::CORESTORE,
            _ => value,
        };
        assert_eq!(known, value);
    }
    for case in list(&v, "keys") {
        let pair = KeyPair::from_seed(&fixed(case, "seed"));
        let public = pair.public_key();
        assert_eq!(public.to_hex(), text(case, "publicKey"));
        assert_eq!(to_hex(&*pair.secret_key()), text(case, "secretKey"));
        let compat = CoreKey(public.0);
        assert_eq!(compat.discovery_key().to_hex(), text(case, "discoveryKeyOfPublicKey"));
        let manifest = Manifest::single(public);
        assert_eq!(to_hex(&manifest.encode()), text(case, "defaultManifest"));
        let key = manifest.key();
        assert_eq!(key.to_hex(), text(case, "coreKey"));
        assert_eq!(key.discovery_key().to_hex(), text(case, "discoveryKey"));
        assert_eq!(key.to_z32(), text(case, "coreId"));
        assert_eq!(text(case, "coreId").parse::<CoreKey>().unwrap(), key);
        assert_eq!(compat.to_hex(), text(case, "compatCoreKey"));
        assert!(Verifier::new(compat, manifest).unwrap().is_compat());
    }
    for case in list(&v, "hashes") {
        let data = bytes(case, "data");
        assert_eq!(to_hex(&hash::hash(&[&data])), text(case, "hash"));
        assert_eq!(to_hex(&hash::leaf(&data)), text(case, "leaf"));
    }
    for case in list(&v, "capabilities") {
        let key = CoreKey(fixed(case, "coreKey"));
        let handshake: [u8; 64] = bytes(case, "handshakeHash").try_into().unwrap();
        for (side, is_initiator) in [("initiator", true), ("responder", false)] {
            let shown = hash::capability(&key, is_initiator, &handshake);
            assert_eq!(to_hex(&shown), text(case, side));
        }
    }
}

fn parse_manifest(v: &Value) -> Manifest {
    let signer =
        |v: &Value| SignerKey { namespace: fixed(v, "namespace"), public_key: PublicKey(fixed(v, "publicKey")) };
    let prologue = &v["prologue"];
    Manifest {
        version: number(v, "version"),
        allow_patch: v["allowPatch"].as_bool().unwrap(),
        quorum: number(v, "quorum"),
        signers: list(v, "signers").iter().map(signer).collect(),
        prologue: prologue
            .is_object()
            .then(|| Prologue { hash: fixed(prologue, "hash"), length: number(prologue, "length") }),
        linked: v["linked"].as_array().map(|keys| keys.iter().map(|key| hex(key).try_into().unwrap()).collect()),
        user_data: v["userData"].as_str().map(|data| from_hex(data).unwrap()),
    }
}

#[test]
fn manifests() {
    let v = load("crypto");
    for case in list(&v, "manifests") {
        let manifest = parse_manifest(&case["manifest"]);
        manifest.check().unwrap();
        let encoded = manifest.encode();
        assert_eq!(to_hex(&encoded), text(case, "encoded"), "{}", case["name"]);
        assert_eq!(Manifest::decode(&encoded).unwrap(), parse_manifest(&case["decodesTo"]));
        assert_eq!(manifest.key().to_hex(), text(case, "key"));
        assert_eq!(manifest.key().discovery_key().to_hex(), text(case, "discoveryKey"));
        Verifier::new(manifest.key(), manifest).unwrap();
    }
    // The invalid ones are given by name only; two of them (a negative quorum, a hash of 31 bytes) have
    // no value in our types at all.
    let one = Manifest::single(PublicKey([1; 32]));
    for case in list(&v, "invalidManifests") {
        let manifest = match text(case, "name") {
            "quorum above signers" => Manifest { quorum: 2, ..one.clone() },
            "linked on v1" => Manifest { linked: Some(vec![[1; 32]]), ..one.clone() },
            "userData on v1" => Manifest { user_data: Some(vec![1]), ..one.clone() },
            "negative quorum" | "prologue hash of 31 bytes" => continue,
            other => panic!("unknown case {other}"),
        };
        assert!(manifest.check().is_err(), "{}", case["name"]);
    }
}

fn parse_node(v: &Value) -> TreeNode {
    TreeNode { index: NodeIndex(number(v, "index")), size: number(v, "size"), hash: fixed(v, "hash") }
}

/// Checks one state of the vectors, and that both kinds of core sign it the same way.
fn check_state(v: &Value, roots: &Roots, pair: &KeyPair, verifiers: [&Verifier; 2]) {
    let fork = Fork(number(v, "fork"));
    assert_eq!(roots.length().0, number(v, "length"));
    assert_eq!(roots.byte_length(), number(v, "byteLength"));
    let expected: Vec<TreeNode> = list(v, "roots").iter().map(parse_node).collect();
    assert_eq!(roots.nodes(), expected);
    let tree = roots.hash();
    assert_eq!(to_hex(&tree), text(v, "treeHash"));
    let fields = [("signable", "signature"), ("compatSignable", "compatSignature")];
    for (verifier, (signable, signature)) in verifiers.into_iter().zip(fields) {
        assert_eq!(to_hex(&verifier.signable(0, &tree, roots.length(), fork)), text(v, signable));
        let Some(expected) = v[signature].as_str() else {
            continue;
        };
        let made = verifier.sign(pair, &tree, roots.length(), fork).unwrap();
        assert_eq!(to_hex(&made), expected, "{signature} at length {}", roots.length());
        verifier.verify(roots, fork, &made).unwrap();
        assert!(verifier.verify(roots, Fork(fork.0 + 1), &made).is_err());
    }
}

#[test]
fn merkle() {
    let v = load("merkle");
    let pair = KeyPair::from_seed(&fixed(&v["keyPair"], "seed"));
    let key = CoreKey(fixed(&v, "coreKey"));
    let verifier = Verifier::new(key, Manifest::single(pair.public_key())).unwrap();
    let compat = Verifier::compat(CoreKey(fixed(&v, "compatKey")));
    let verifiers = [&verifier, &compat];

    let blocks: Vec<Vec<u8>> = list(&v, "blocks").iter().map(hex).collect();
    let states = list(&v, "states");
    let (mut roots, mut nodes) = (Roots::new(), HashMap::new());
    check_state(&states[0], &roots, &pair, verifiers);
    for (block, state) in blocks.iter().zip(&states[1..]) {
        roots.append(block, |node| {
            nodes.insert(node.index.0, *node);
        });
        check_state(state, &roots, &pair, verifiers);
    }
    let all = list(&v, "nodesAt40");
    assert_eq!(all.len(), nodes.len());
    for node in all {
        let ours = nodes[&node[0].as_u64().unwrap()];
        assert_eq!(ours.size, node[1].as_u64().unwrap());
        assert_eq!(to_hex(&ours.hash), node[2].as_str().unwrap());
    }
    for case in list(&v, "fullRoots") {
        let ours = flat_tree::full_roots(Length(number(case, "length")));
        let expected: Vec<u64> = list(case, "roots").iter().map(|root| root.as_u64().unwrap()).collect();
        assert_eq!(ours.map(|node| node.0).collect::<Vec<_>>(), expected);
    }

    // A truncated tree is the roots of the shorter length, out of the same nodes.
    for case in list(&v, "truncations") {
        if let Some(block) = case["appended"].as_str() {
            roots.append(&from_hex(block).unwrap(), |_| ());
        } else {
            let length = Length(number(case, "length"));
            let shorter = flat_tree::full_roots(length).map(|root| nodes[&root.0]).collect();
            roots = Roots::from_nodes(length, shorter).unwrap();
        }
        check_state(case, &roots, &pair, verifiers);
    }
}

/// The same through a whole core: nodes come back from the packed records, the head is what JavaScript
/// signs, whether blocks are appended one by one or all at once.
#[test]
fn merkle_through_a_core() {
    let v = load("merkle");
    let pair = KeyPair::from_seed(&fixed(&v["keyPair"], "seed"));
    let blocks: Vec<Bytes> = list(&v, "blocks").iter().map(|block| hex(block).into()).collect();
    for at_a_time in [1, 7, 40] {
        let store = Store::open(Arc::new(Memory::new()), Options::default()).unwrap();
        let core = store.get_by_key_pair(&pair).unwrap();
        assert_eq!(core.key().to_hex(), text(&v, "coreKey"));
        for some in blocks.chunks(at_a_time) {
            let head = core.append(some, Durability::Sync).unwrap();
            let state = &v["states"][head.length.0 as usize];
            assert_eq!(to_hex(&head.root_hash), text(state, "treeHash"));
            assert_eq!(to_hex(&head.signature), text(state, "signature"));
            assert_eq!(head.byte_length, number(state, "byteLength"));
        }
        for node in list(&v, "nodesAt40") {
            let ours = core.node(NodeIndex(node[0].as_u64().unwrap())).unwrap().unwrap();
            assert_eq!(to_hex(&ours.hash), node[2].as_str().unwrap());
            assert_eq!(ours.size, node[1].as_u64().unwrap());
        }
        assert_eq!(core.node(NodeIndex(63)).unwrap(), None);
        // JavaScript could not give the offsets of the last eight blocks at that point (null).
        let mut offset = 0;
        for case in list(&v, "byteRanges") {
            let block = core.get(BlockIndex(number(case, "index"))).unwrap();
            assert_eq!(number(case, "size"), block.len() as u64);
            assert_eq!(case["offset"].as_u64().unwrap_or(offset), offset);
            offset += block.len() as u64;
        }
    }
}

#[test]
fn multisig() {
    let v = load("multisig");
    for case in list(&v, "cases") {
        let manifest = Manifest::decode(&bytes(case, "manifest")).unwrap();
        assert_eq!(manifest.version, number(case, "version"));
        assert_eq!(manifest.allow_patch, case["allowPatch"].as_bool().unwrap());
        assert_eq!(manifest.quorum, number(case, "quorum"));
        let verifier = Verifier::new(CoreKey(fixed(case, "key")), manifest.clone()).unwrap();
        let fork = Fork(number(case, "fork"));

        let (mut roots, mut nodes, mut at) = (Roots::new(), HashMap::new(), vec![Roots::new()]);
        for block in list(case, "blocks") {
            roots.append(&hex(block), |node| {
                nodes.insert(node.index, *node);
            });
            at.push(roots.clone());
        }
        let tree = &at[number(case, "length") as usize];

        // Each signer's part, and the whole put together from the parts.
        let (mut proofs, mut extra) = (Vec::new(), Vec::<TreeNode>::new());
        for signed in list(case, "signed") {
            let signer = number(signed, "signer");
            let theirs = &at[number(signed, "length") as usize];
            assert_eq!(to_hex(&theirs.hash()), text(signed, "treeHash"));
            let signable = verifier.signable(signer as usize, &theirs.hash(), theirs.length(), fork);
            assert_eq!(to_hex(&signable), text(signed, "signable"));
            let signature: [u8; 64] = bytes(signed, "signature").try_into().unwrap();
            let key = manifest.signers[signer as usize].public_key;
            assert!(key.verify(&signable, &signature));
            let patch = theirs.length().0 - tree.length().0;
            let mut placement = Vec::new();
            for index in tree.extension(theirs.length()) {
                // Version 0 does not look for nodes that are there already.
                let known = extra.iter().position(|node| node.index == index);
                let place = known.filter(|_| manifest.version > 0).unwrap_or_else(|| {
                    extra.push(nodes[&index]);
                    extra.len() - 1
                });
                placement.push(place as u64);
            }
            let placement = (manifest.version == 0 && patch > 0).then(|| (theirs.length().0, placement.clone()));
            proofs.push(PartialSignature { signer, signature, patch, placement });
        }
        let whole = MultiSignature { proofs, nodes: extra };
        let assembled = bytes(case, "assembled");
        let decoded = MultiSignature::decode(manifest.version, &assembled).unwrap();
        assert_eq!(to_hex(&decoded.encode(manifest.version)), to_hex(&assembled));
        assert_eq!(to_hex(&whole.encode(manifest.version)), to_hex(&assembled), "{case}");

        assert_eq!(verifier.verify(tree, fork, &assembled).is_ok(), case["verifies"] == true);
        for bad in list(case, "bad") {
            let verified = verifier.verify(tree, fork, &bytes(bad, "assembled")).is_ok();
            assert_eq!(verified, bad["verifies"] == true, "{}", bad["why"]);
        }
        for other in at.iter().filter(|other| other.length() != tree.length()) {
            assert!(verifier.verify(other, fork, &assembled).is_err());
        }
    }

    let v = &v["prologue"];
    let manifest = Manifest::decode(&bytes(v, "manifest")).unwrap();
    let verifier = Verifier::new(CoreKey(fixed(v, "key")), manifest).unwrap();
    let mut roots = Roots::new();
    for block in list(v, "blocks") {
        assert!(verifier.verify(&roots, Fork(0), &[]).is_err());
        roots.append(&hex(block), |_| ());
    }
    assert_eq!(to_hex(&roots.hash()), text(v, "treeHash"));
    assert_eq!(v["verifiesWithoutSignature"], true);
    verifier.verify(&roots, Fork(0), &[]).unwrap();
}

#[test]
fn corestore() {
    let v = load("corestore");
    assert_eq!(to_hex(&hash::CORESTORE), text(&v, "derivationNamespace"));
    for stored in list(&v, "stores") {
        let primary_key = fixed(stored, "primaryKey");
        let options = Options { primary_key: Some(primary_key) };
        let store = Store::open(Arc::new(Memory::new()), options).unwrap();
        for case in list(stored, "cores") {
            let (name, mut at, mut space) = (text(case, "name"), names::ROOT, None);
            for part in list(case, "namespacePath") {
                let part = hex(part);
                at = names::namespace(&at, &part);
                space = Some(match space {
                    None => store.namespace(&part),
                    Some(above) => pgbee_engine::corestore::Namespace::namespace(&above, &part),
                });
            }
            assert_eq!(to_hex(&at), text(case, "namespace"));
            let pair = names::key_pair(&primary_key, &at, name.as_bytes());
            assert_eq!(pair.public_key().to_hex(), text(case, "publicKey"));
            assert_eq!(to_hex(&*pair.secret_key()), text(case, "secretKey"));
            let core = match space {
                None => store.get_by_name(name).unwrap(),
                Some(space) => {
                    assert_eq!(*space.hash(), at);
                    space.get_by_name(name).unwrap()
                }
            };
            assert_eq!(core.key().to_hex(), text(case, "key"));
            assert_eq!(core.key().to_z32(), text(case, "id"));
            assert_eq!(core.discovery_key().to_hex(), text(case, "discoveryKey"));
            assert_eq!(to_hex(&core.manifest().unwrap().encode()), text(case, "manifest"));
        }
        // Other versions of the default manifest; the option 0 means 1.
        for (field, version) in [("manifestVersion2", 2), ("manifestVersion0Option", 1)] {
            let case = &stored[field];
            let pair = names::key_pair(&primary_key, &names::ROOT, text(case, "name").as_bytes());
            let manifest = Manifest { version, ..Manifest::single(pair.public_key()) };
            assert_eq!(to_hex(&manifest.encode()), text(case, "manifest"));
            assert_eq!(manifest.key().to_hex(), text(case, "key"));
            let core = store.get_by_manifest(&manifest, Some(&pair)).unwrap();
            assert!(core.is_writable());
        }
        let case = &stored["fromKeyPair"];
        let manifest = Manifest::single(PublicKey(fixed(case, "publicKey")));
        assert_eq!(manifest.key().to_hex(), text(case, "key"));
        let case = &stored["staticify"];
        let prologue = Prologue { hash: fixed(case, "treeHash"), length: number(case, "length") };
        let manifest = Manifest::fixed(prologue);
        assert_eq!(to_hex(&manifest.encode()), text(case, "manifest"));
        assert_eq!(manifest.key().to_hex(), text(case, "key"));
    }
}
