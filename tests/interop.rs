//! The real JavaScript packages read our bytes: what hyperbee finds in blocks we wrote is what we find.
//!
//! Needs node and the packages pinned in `interop/package-lock.json`; `npm ci` installs them when they are missing.

use std::process::Command;
use std::sync::Arc;

use pgbee_engine::bee::{Cache, Direction, KeyRange, Operation};
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::txn::{self, CommitInfo, Database};
use pgbee_engine::{BlockIndex, Version};
use pgbee_tests::{hex, install_packages, repository};
use serde_json::{Value, json};

fn javascript(input: &Value) -> Value {
    install_packages();
    let folder = repository().join("tests/interop");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), input.to_string()).expect("written");
    let output =
        Command::new("node").arg("read.mjs").arg(file.path()).current_dir(&folder).output().expect("node is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn entry(e: &pgbee_engine::bee::Entry) -> Value {
    json!([e.seq.0, hex(&e.key), e.value.as_ref().map(|v| hex(v))])
}

/// Commits of random puts and deletes through the transaction layer, commit records included.
fn written() -> (Arc<Database>, Vec<Version>) {
    let store = Store::open(Arc::new(Memory::new()), Options { primary_key: Some([9; 32]) }).expect("a store");
    let core = store.get_by_name("interop").expect("a core");
    let database = Database::open(core, Cache::new(8 << 20), txn::Options::default()).expect("a database");
    let (mut seed, mut versions) = (88_172_645_463_325_252u64, Vec::new());
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 20) % below
    };
    for commit in 0..60u64 {
        let mut txn = database.begin();
        for _ in 0..random(40) + 1 {
            let key = format!("\x03key {:04}", random(500)).into_bytes();
            if random(4) == 0 {
                txn.delete(key).expect("deleted");
            } else {
                txn.put(key, format!("value {} of {commit}", random(1000)).into_bytes()).expect("put");
            }
        }
        let info = CommitInfo::at(1_000_000 * (commit as i64 + 1));
        versions.push(database.commit(txn, info).expect("committed"));
    }
    (database, versions)
}

#[test]
fn hyperbee_reads_our_blocks_as_we_do() {
    let (database, versions) = written();
    let core = database.core();
    let blocks: Vec<String> = (0..core.len().0).map(|i| hex(&core.get(BlockIndex(i)).expect("a block"))).collect();
    let head = database.snapshot();
    let picked: Vec<Version> = versions.iter().copied().step_by(7).collect();
    let low = b"\x03key 0100".to_vec();
    let high = b"\x03key 0300".to_vec();
    let gets: Vec<Vec<u8>> = (0..500).step_by(9).map(|i| format!("\x03key {i:04}").into_bytes()).collect();
    let pairs = [(versions[10], versions[50]), (versions[59], versions[0]), (versions[30], versions[31])];
    let found = javascript(&json!({
        "blocks": blocks,
        "versions": picked.iter().map(|v| v.0).collect::<Vec<_>>(),
        "ranges": [{"gte": hex(&low), "lt": hex(&high)}, {"gt": hex(&low), "lte": hex(&high), "reverse": true, "limit": 17}],
        "gets": gets.iter().map(|k| hex(k)).collect::<Vec<_>>(),
        "diffs": pairs.iter().map(|(l, r)| json!([l.0, r.0])).collect::<Vec<_>>(),
    }));

    assert_eq!(found["length"], json!(core.len().0));
    assert_eq!(found["treeHash"], json!(hex(core.head().root_hash.as_ref())), "the same Merkle tree");
    let all = |version: Version| {
        let snapshot = database.snapshot_at(version).expect("a version");
        let (mut cursor, mut entries) = (snapshot.bee().cursor(KeyRange::all(), Direction::Forward), Vec::new());
        while let Some(e) = cursor.next().expect("readable") {
            entries.push(entry(&e));
        }
        Value::from(entries)
    };
    assert_eq!(found["entries"], all(database.head()));
    for (i, version) in picked.iter().enumerate() {
        assert_eq!(found["byVersion"][i], all(*version), "version {version}");
    }
    let range = |range: KeyRange, direction, limit: usize| {
        let (mut cursor, mut entries) = (head.bee().cursor(range, direction), Vec::new());
        while entries.len() < limit {
            let Some(e) = cursor.next().expect("readable") else { break };
            entries.push(entry(&e));
        }
        Value::from(entries)
    };
    use std::ops::Bound::{Excluded, Included};
    let bound = |k: &[u8]| bytes_of(k);
    assert_eq!(
        found["ranges"][0],
        range(KeyRange { start: Included(bound(&low)), end: Excluded(bound(&high)) }, Direction::Forward, usize::MAX)
    );
    assert_eq!(
        found["ranges"][1],
        range(KeyRange { start: Excluded(bound(&low)), end: Included(bound(&high)) }, Direction::Backward, 17)
    );
    for (i, key) in gets.iter().enumerate() {
        let ours = head.bee().get(key).expect("readable").map_or(Value::Null, |e| entry(&e));
        assert_eq!(found["gets"][i], ours, "key {}", hex(key));
    }
    let mut history = Vec::new();
    let mut ours = head.bee().history(BlockIndex(0)..BlockIndex(core.len().0), Direction::Forward);
    while let Some(change) = ours.next().expect("readable") {
        let kind = if change.operation == Operation::Put { "put" } else { "del" };
        history.push(json!([kind, change.seq.0, hex(&change.key), change.value.as_ref().map(|v| hex(v))]));
    }
    assert_eq!(history.len() as u64, core.len().0 - 1, "every block but the header is an entry");
    assert_eq!(found["history"], Value::from(history));
    for (i, (left, right)) in pairs.iter().enumerate() {
        let (left, right) =
            (database.snapshot_at(*left).expect("a version"), database.snapshot_at(*right).expect("a version"));
        let (mut diff, mut ours) = (left.bee().diff(right.bee(), KeyRange::all()), Vec::new());
        while let Some(d) = diff.next().expect("readable") {
            ours.push(json!([d.left.as_ref().map(entry), d.right.as_ref().map(entry)]));
        }
        assert_eq!(found["diffs"][i], Value::from(ours), "diff {i}");
    }
}

fn bytes_of(key: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(key)
}
