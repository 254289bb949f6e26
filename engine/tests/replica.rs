//! What a replica promises, against a model: any order of upgrades, blocks, nodes, holes, restarts, truncations and forks, through a chain of
//! replicas; failing disks; writers with two histories; strangers who send anything.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::bee::{Bee, Cache, Writer};
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::crypto::key::KeyPair;
use pgbee_engine::crypto::merkle::TreeNode;
use pgbee_engine::hypercore::intake::Applied;
use pgbee_engine::hypercore::lineage::Lineage;
use pgbee_engine::hypercore::proof::{BlockRequest, HashRequest, Proof, Request, SeekRequest, UpgradeRequest};
use pgbee_engine::hypercore::wants::Waited;
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::faulty::{Fault, Faulty, Plan};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability, Range, Space};
use pgbee_engine::{BlockIndex, CoreKey, Error, Fork, Length, NodeIndex, Result, Version, flat_tree};
use proptest::collection::vec;
use proptest::prelude::*;

fn open(backend: &Arc<impl Backend + 'static>, key: CoreKey) -> Result<Arc<Core>> {
    Store::open(backend.clone(), Options { primary_key: Some([2; 32]) })?.get_by_key(key)
}

/// The one writer of these tests.
fn writer() -> Arc<Core> {
    writer_in(&Arc::new(Memory::new()))
}

fn writer_in(backend: &Arc<impl Backend + 'static>) -> Arc<Core> {
    let store = Store::open(backend.clone(), Options { primary_key: Some([1; 32]) }).unwrap();
    store.get_by_key_pair(&KeyPair::from_seed(&[7; 32])).unwrap()
}

/// Blocks of a history differ from those of another.
fn block(history: u64, i: u64) -> Bytes {
    Bytes::from(format!("block {i} of history {history} ").repeat((i % 4) as usize))
}

fn append(core: &Core, history: u64, count: u64) {
    let from = core.len().0;
    let blocks: Vec<Bytes> = (from..from + count).map(|i| block(history, i)).collect();
    core.append(&blocks, Durability::Sync).unwrap();
}

fn upgrade(start: u64, length: u64) -> Request {
    Request { upgrade: Some(UpgradeRequest { start: Length(start), length }), manifest: true, ..Request::default() }
}

fn ask_block(core: &Core, i: u64) -> Request {
    let index = BlockIndex(i);
    let block = Some(BlockRequest { index, nodes: core.missing_nodes(index.node()) });
    Request { block, ..Request::default() }
}

fn take_in(core: &Core, proofs: impl IntoIterator<Item = Proof>) -> Result<Applied> {
    let mut intake = core.intake();
    for proof in proofs {
        let verified = intake.verify(proof)?;
        intake.add(verified);
    }
    intake.commit(Durability::Sync)
}

fn dump(backend: &dyn Backend) -> Vec<(Space, Bytes, Bytes)> {
    let entries = |space| backend.scan(space, Range::all(), false).map(move |entry| (space, entry.unwrap()));
    Space::ALL.into_iter().flat_map(entries).map(|(space, (key, value))| (space, key, value)).collect()
}

/// Of every held block the leaf, all nodes above it and their siblings are in the store, and with any node its parent.
fn check_nodes(core: &Core) {
    let length = core.len();
    let inside = |node: NodeIndex| length.contains(flat_tree::last_block(node));
    for i in (0..length.0).filter(|&i| core.has(BlockIndex(i))) {
        let mut node = BlockIndex(i).node();
        while inside(node) {
            assert!(core.node(node).unwrap().is_some(), "node {node} over block {i} of {length}");
            if inside(flat_tree::parent(node)) {
                let sibling = flat_tree::sibling(node);
                assert!(core.node(sibling).unwrap().is_some(), "node {sibling} beside the way from block {i}");
            }
            node = flat_tree::parent(node);
        }
    }
    for i in 0..length.0 {
        let mut node = BlockIndex(i).node();
        let mut steps = core.missing_nodes(node);
        while steps > 0 {
            (node, steps) = (flat_tree::parent(node), steps - 1);
        }
        assert!(core.node(node).unwrap().is_some(), "block {i} is said to be missing up to node {node}");
    }
    let known: Vec<u64> = (0..2 * length.0).filter(|&i| core.node(NodeIndex(i)).unwrap().is_some()).collect();
    for i in known {
        let above = flat_tree::parent(NodeIndex(i));
        assert!(!inside(above) || core.node(above).unwrap().is_some(), "node {above} over {i}");
    }
}

/// One replica with what it should hold.
struct Replica {
    backend: Arc<Memory>,
    core: Arc<Core>,
    held: BTreeSet<u64>,
}

impl Replica {
    fn new(key: CoreKey) -> Replica {
        let backend = Arc::new(Memory::new());
        let core = open(&backend, key).unwrap();
        Replica { backend, core, held: BTreeSet::new() }
    }

    fn reopen(&mut self) {
        let key = self.core.key();
        let head = self.core.head();
        self.core = open(&Arc::new(Memory::new()), key).unwrap();
        self.core = open(&self.backend, key).unwrap();
        assert_eq!(self.core.head(), head);
    }

    fn check(&self, history: &[Bytes]) {
        let core = &self.core;
        for i in 0..core.len().0 {
            let index = BlockIndex(i);
            assert_eq!(core.has(index), self.held.contains(&i), "block {i}");
            match self.held.contains(&i) {
                true => assert_eq!(core.get(index).unwrap(), history[i as usize]),
                false => assert_eq!(core.get(index), Err(Error::MissingBlock(index))),
            }
        }
        assert_eq!(core.held_blocks(), self.held.len() as u64);
        let bytes: usize = self.held.iter().map(|&i| history[i as usize].len()).sum();
        assert_eq!(core.held_bytes().unwrap(), bytes as u64);
        let words = core.bitfield_words(BlockIndex(0), 8);
        assert!((0..256).all(|i| (words[i / 32] >> (i % 32) & 1 == 1) == self.held.contains(&(i as u64))));
        check_nodes(core);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Truncate(u64),
    /// Replica, and how much of what the source has more.
    Upgrade(usize, u64),
    /// Replica, first block, how many, and how far apart.
    Blocks(usize, u64, u64, u64),
    /// A block together with an upgrade.
    UpgradeWith(usize, u64),
    Hash(usize, u64),
    Seek(usize, u64),
    Clear(usize, u64, u64),
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0..2usize;
    prop_oneof![
        3 => (1..40u64).prop_map(Step::Append),
        1 => any::<u64>().prop_map(Step::Truncate),
        4 => (replica(), any::<u64>()).prop_map(|(to, pick)| Step::Upgrade(to, pick)),
        6 => (replica(), any::<u64>(), 1..90u64, 1..4u64).prop_map(|(to, at, n, apart)| Step::Blocks(to, at, n, apart)),
        2 => (replica(), any::<u64>()).prop_map(|(to, pick)| Step::UpgradeWith(to, pick)),
        1 => (replica(), any::<u64>()).prop_map(|(to, pick)| Step::Hash(to, pick)),
        1 => (replica(), any::<u64>()).prop_map(|(to, pick)| Step::Seek(to, pick)),
        2 => (replica(), any::<u64>(), 0..70u64).prop_map(|(to, at, n)| Step::Clear(to, at, n)),
        2 => replica().prop_map(Step::Reopen),
    ]
}

/// A writer, a replica of it, and a replica of that.
struct Chain {
    writer: Arc<Core>,
    history: Vec<Bytes>,
    replicas: [Replica; 2],
}

impl Chain {
    fn new() -> Chain {
        let writer = writer();
        let replicas = [Replica::new(writer.key()), Replica::new(writer.key())];
        Chain { writer, history: Vec::new(), replicas }
    }

    fn source(&self, of: usize) -> Arc<Core> {
        if of == 0 { self.writer.clone() } else { self.replicas[0].core.clone() }
    }

    /// Follows the source to its fork, if that is another, and says whether both are on one.
    fn follow(&mut self, which: usize) -> bool {
        let source = self.source(which);
        let replica = &mut self.replicas[which];
        if source.fork() <= replica.core.fork() {
            return source.fork() == replica.core.fork();
        }
        if source.is_empty() {
            return false;
        }
        let proof = source.prove(&upgrade(0, source.len().0)).unwrap();
        let before = replica.core.head();
        let mut reorg = replica.core.reorg(proof).unwrap();
        let mut steps = 0;
        while let Some(request) = reorg.next_request() {
            steps += 1;
            assert!(steps < 64);
            match source.prove(&request) {
                Ok(proof) => reorg.receive(proof).unwrap(),
                // A sparse source does not know enough: nothing has happened.
                Err(Error::Invalid(_)) => {
                    assert_eq!(replica.core.head(), before);
                    return false;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let applied = reorg.commit(Durability::Sync).unwrap();
        let kept = applied.truncated_to.unwrap().0;
        replica.held.retain(|&i| i < kept);
        assert_eq!(replica.core.head(), source.head());
        if source.fork() == self.writer.fork() {
            let is_right = |&i: &u64| self.history.get(i as usize) == replica.core.get(BlockIndex(i)).ok().as_ref();
            assert!(replica.held.iter().all(is_right), "a block of the old history was kept");
        }
        true
    }

    fn run(&mut self, step: Step) {
        let target = match step {
            Step::Append(count) => {
                let history = self.writer.fork().0;
                let from = self.history.len() as u64;
                append(&self.writer, history, count);
                self.history.extend((from..from + count).map(|i| block(history, i)));
                return;
            }
            Step::Truncate(pick) => {
                let to = pick % (self.writer.len().0 + 1);
                let head = self.writer.truncate(Length(to), Durability::Sync).unwrap();
                self.history.truncate(to as usize);
                assert_eq!((self.writer.head(), self.writer.len()), (head, Length(to)));
                self.writer.verify(|_, _| ()).unwrap();
                return;
            }
            Step::Reopen(to) => return self.replicas[to].reopen(),
            Step::Upgrade(to, _) | Step::Blocks(to, ..) | Step::UpgradeWith(to, _) => to,
            Step::Hash(to, _) | Step::Seek(to, _) | Step::Clear(to, ..) => to,
        };
        if !self.follow(target) {
            return;
        }
        let source = self.source(target);
        let Replica { core, held, .. } = &mut self.replicas[target];
        let (length, longer) = (core.len().0, source.len().0);
        match step {
            Step::Upgrade(_, pick) if longer > length && source.can_prove_upgrade(core.len()) => {
                let more = 1 + pick % (longer - length);
                let request = upgrade(length, more);
                match source.prove(&request) {
                    Ok(proof) => {
                        let applied = take_in(core, [proof]).unwrap();
                        assert_eq!((applied.head, core.len()), (Some(source.head()), source.len()));
                        assert_eq!(core.watch().position().length, source.len());
                    }
                    // Roots of that length in between need not be known.
                    Err(Error::Invalid(_)) => assert_eq!(target, 1),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::UpgradeWith(_, pick) if longer > length && source.can_prove_upgrade(core.len()) => {
                let index = pick % longer;
                let mut request = upgrade(length, longer - length);
                let nodes = core.missing_nodes(BlockIndex(index).node());
                request.block = Some(BlockRequest { index: BlockIndex(index), nodes });
                match source.prove(&request) {
                    Ok(proof) => {
                        let applied = take_in(core, [proof]).unwrap();
                        assert_eq!(applied.blocks.len(), usize::from(held.insert(index)));
                    }
                    Err(Error::MissingBlock(_) | Error::Invalid(_)) => assert_eq!(target, 1),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Blocks(_, at, count, apart) if length > 0 => {
                let wanted: Vec<u64> = (0..count).map(|i| (at % length + i * apart) % length).collect();
                let available: Vec<u64> = wanted.into_iter().filter(|&i| source.has(BlockIndex(i))).collect();
                let proofs: Vec<Proof> =
                    available.iter().map(|&i| source.prove(&ask_block(core, i)).unwrap()).collect();
                let applied = take_in(core, proofs).unwrap();
                let new: BTreeSet<u64> = available.into_iter().filter(|i| !held.contains(i)).collect();
                assert_eq!(applied.blocks.iter().map(|block| block.0).collect::<Vec<_>>(), Vec::from_iter(new.clone()));
                held.extend(new);
            }
            Step::Hash(_, pick) if length > 0 => {
                let index = NodeIndex(pick % (2 * length - 1));
                if !core.len().contains(flat_tree::last_block(index)) {
                    return;
                }
                let hash = Some(HashRequest { index, nodes: core.missing_nodes(index) });
                if let Ok(proof) = source.prove(&Request { hash, ..Request::default() }) {
                    take_in(core, [proof]).unwrap();
                    assert!(core.node(index).unwrap().is_some());
                }
            }
            Step::Seek(_, pick) if length > 0 && core.head().byte_length > 0 => {
                let bytes = pick % core.head().byte_length;
                if let Ok(pgbee_engine::hypercore::Sought::Within(span, _)) = core.seek(bytes, 0) {
                    let index = span.start.node();
                    let hash = Some(HashRequest { index, nodes: core.missing_nodes(index) });
                    let seek = Some(SeekRequest { bytes, padding: 0 });
                    if let Ok(proof) = source.prove(&Request { hash, seek, ..Request::default() }) {
                        take_in(core, [proof]).unwrap();
                    }
                }
            }
            Step::Clear(_, at, count) if length > 0 => {
                let range = at % length..(at % length + count).min(length);
                core.clear(BlockIndex(range.start)..BlockIndex(range.end)).unwrap();
                held.retain(|i| !range.contains(i));
            }
            _ => {}
        }
    }

    fn check(&self) {
        for replica in &self.replicas {
            if replica.core.fork() == self.writer.fork() {
                replica.check(&self.history);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However they come by it, replicas hold what the writer wrote, say so, and can prove it to the next.
    #[test]
    fn replicas_are_parts_of_the_log(steps in vec(step(), 0..40)) {
        let mut chain = Chain::new();
        append(&chain.writer, 0, 20);
        chain.history.extend((0..20).map(|i| block(0, i)));
        for step in steps {
            chain.run(step);
            chain.check();
        }
        // What the last one holds it proves to someone who has nothing.
        let last = &chain.replicas[1];
        if !last.core.is_empty() {
            let third = Replica::new(last.core.key());
            if third.core.fork() == last.core.fork() {
                take_in(&third.core, [last.core.prove(&upgrade(0, last.core.len().0)).unwrap()]).unwrap();
            } else {
                let proof = last.core.prove(&upgrade(0, last.core.len().0)).unwrap();
                let reorg = third.core.reorg(proof).unwrap();
                prop_assert_eq!(reorg.next_request(), None, "who has nothing needs to ask nothing");
                reorg.commit(Durability::Sync).unwrap();
            }
            for &i in &last.held {
                let proof = last.core.prove(&ask_block(&third.core, i)).unwrap();
                take_in(&third.core, [proof]).unwrap();
                prop_assert_eq!(third.core.get(BlockIndex(i)), last.core.get(BlockIndex(i)));
            }
            check_nodes(&third.core);
        }
    }

    /// Every n-th write fails, one way or another. What was said to be taken in is there, what is there is sound.
    #[test]
    fn a_failing_disk_leaves_a_sound_replica(
        every in 2..6u64,
        fault in prop_oneof![Just(Fault::FailBefore), Just(Fault::FailAfter), Just(Fault::NoSpace), Just(Fault::CrashAfter), Just(Fault::CrashBefore)],
        survivors in 0..3usize,
        picks in vec((any::<u64>(), 1..30u64, 0..8u8), 1..30),
    ) {
        let writer = writer();
        append(&writer, 0, 100);
        // What the writer wrote on each fork.
        let mut histories: Vec<Vec<Bytes>> = vec![(0..100).map(|i| block(0, i)).collect()];
        let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
        let mut core = open(&faulty, writer.key()).unwrap();
        let mut promised: BTreeSet<u64> = BTreeSet::new();
        let mut promised_length = 0;
        let plan = (1..200).fold(Plan::none(), |plan, n| plan.and(faulty.writes() + n * every, fault));
        faulty.set_plan(plan);
        for (pick, count, what) in picks {
            let length = core.len();
            let result = if core.fork() < writer.fork() {
                let mut reorg = core.reorg(writer.prove(&upgrade(0, writer.len().0)).unwrap()).unwrap();
                while let Some(request) = reorg.next_request() {
                    reorg.receive(writer.prove(&request).unwrap()).unwrap();
                }
                promised_length = 0;
                let result = reorg.commit(Durability::Sync);
                match &result {
                    Ok(applied) => promised.retain(|i| *i < applied.truncated_to.unwrap().0),
                    // Whether it is there is not known, and so neither what is still held.
                    Err(_) => promised.clear(),
                }
                result.map(|_| ())
            } else if length.0 < writer.len().0 {
                take_in(&core, [writer.prove(&upgrade(length.0, writer.len().0 - length.0)).unwrap()]).map(|_| ())
            } else if what == 0 {
                let kept = pick % 101;
                let mut history = histories.last().unwrap().clone();
                writer.truncate(Length(kept), Durability::Sync).unwrap();
                history.truncate(kept as usize);
                append(&writer, writer.fork().0, 100 - kept);
                history.extend((kept..100).map(|i| block(writer.fork().0, i)));
                histories.push(history);
                Ok(())
            } else if what == 1 {
                let at = pick % length.0;
                let range = at..(at + count).min(length.0);
                promised.retain(|i| !range.contains(i));
                core.clear(BlockIndex(range.start)..BlockIndex(range.end))
            } else {
                let blocks: Vec<u64> = (0..count).map(|i| (pick % length.0 + i) % length.0).collect();
                let proofs: Vec<Proof> = blocks.iter().map(|&i| writer.prove(&ask_block(&core, i)).unwrap()).collect();
                take_in(&core, proofs).map(|_| promised.extend(blocks))
            };
            match result {
                Ok(()) => promised_length = core.len().0,
                Err(Error::Storage(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if faulty.is_down() {
                // Everything is synced but clears, and those promise nothing.
                faulty.heal(survivors).unwrap();
                core = open(&faulty, writer.key()).unwrap();
            } else if pick % 4 == 0 {
                drop(core);
                core = open(&faulty, writer.key()).unwrap();
            }
            prop_assert!(core.len().0 >= promised_length);
            prop_assert!(promised.iter().all(|&i| core.has(BlockIndex(i))));
            for i in (0..core.len().0).filter(|&i| core.has(BlockIndex(i))) {
                prop_assert_eq!(&core.get(BlockIndex(i)).unwrap(), &histories[core.fork().0 as usize][i as usize]);
            }
            check_nodes(&core);
        }
        faulty.set_plan(Plan::none());
        drop(core);
        let core = open(&faulty, writer.key()).unwrap();
        check_nodes(&core);
        if core.fork() < writer.fork() {
            let mut reorg = core.reorg(writer.prove(&upgrade(0, 100)).unwrap()).unwrap();
            while let Some(request) = reorg.next_request() {
                reorg.receive(writer.prove(&request).unwrap()).unwrap();
            }
            reorg.commit(Durability::Sync).unwrap();
        } else if core.is_empty() {
            take_in(&core, [writer.prove(&upgrade(0, 100)).unwrap()]).unwrap();
        }
        let missing = (0..100).filter(|&i| !core.has(BlockIndex(i)));
        let proofs: Vec<Proof> = missing.map(|i| writer.prove(&ask_block(&core, i)).unwrap()).collect();
        take_in(&core, proofs).unwrap();
        core.verify(|_, _| ()).unwrap();
    }

    /// Whatever is changed in a proof, it is refused or proves what the writer wrote; nothing panics, and what is refused leaves no trace.
    #[test]
    fn altered_proofs_prove_nothing_else(
        pick in any::<u64>(),
        changes in vec((0..12u8, any::<u64>(), any::<u64>()), 1..4),
        kind in 0..5u8,
    ) {
        let writer = writer();
        append(&writer, 0, 53);
        let backend = Arc::new(Memory::new());
        let core = open(&backend, writer.key()).unwrap();
        if kind > 0 {
            take_in(&core, [writer.prove(&upgrade(0, 30)).unwrap()]).unwrap();
            append(&writer, 0, 20);
        }
        let length = core.len().0;
        let request = match kind {
            0 => upgrade(0, 1 + pick % 53),
            1 => ask_block(&core, pick % length),
            2 => Request { block: ask_block(&core, pick % length).block, ..upgrade(length, 20) },
            3 => {
                let index = NodeIndex(pick % 40 * 2);
                let hash = Some(HashRequest { index, nodes: core.missing_nodes(index) });
                Request { hash, seek: Some(SeekRequest { bytes: 5, padding: 0 }), ..Request::default() }
            }
            _ => Request { seek: Some(SeekRequest { bytes: pick % 1500, padding: 0 }), ..upgrade(length, 20) },
        };
        let Ok(sound) = writer.prove(&request) else { return Ok(()) };
        let mut proof = sound.clone();
        for (what, at, value) in changes {
            alter(&mut proof, what, at, value);
        }
        let before = dump(&*backend);
        match take_in(&core, [proof]) {
            Ok(_) => {
                for i in (0..core.len().0).filter(|&i| core.has(BlockIndex(i))) {
                    prop_assert_eq!(core.get(BlockIndex(i)).unwrap(), block(0, i));
                }
                for i in 0..2 * core.len().0 {
                    let node = core.node(NodeIndex(i)).unwrap();
                    prop_assert!(node.is_none() || node == writer.node(NodeIndex(i)).unwrap(), "node {}", i);
                }
            }
            Err(_) => prop_assert_eq!(dump(&*backend), before),
        }
        check_nodes(&core);
        // It can go on as if nothing had been.
        if core.len().0 == length {
            take_in(&core, [sound]).unwrap();
        }
    }

    /// Any request has an answer or an error.
    #[test]
    fn any_request_is_answered(
        block in proptest::option::of((any_number(), any_number())),
        hash in proptest::option::of((any_number(), any_number())),
        seek in proptest::option::of((any_number(), any_number())),
        upgrade in proptest::option::of((any_number(), any_number())),
    ) {
        let writer = writer();
        append(&writer, 0, 37);
        let request = Request {
            block: block.map(|(index, nodes)| BlockRequest { index: BlockIndex(index), nodes }),
            hash: hash.map(|(index, nodes)| HashRequest { index: NodeIndex(index), nodes }),
            seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
            upgrade: upgrade.map(|(start, length)| UpgradeRequest { start: Length(start), length }),
            manifest: true,
        };
        let proof = writer.prove(&request);
        if let (Ok(proof), Some(_)) = (&proof, request.upgrade.filter(|upgrade| upgrade.start == Length(0))) {
            prop_assert_eq!(proof.verify_alone(writer.key()).map(|alone| alone.length), Ok(Length(37)));
        }
        prop_assert!(matches!(proof, Ok(_) | Err(Error::Invalid(_))), "{:?}", proof);
        let _ = writer.seek(request.seek.map_or(3, |seek| seek.bytes), request.seek.map_or(1, |seek| seek.padding));
        let index = request.hash.map_or(NodeIndex(u64::MAX), |hash| hash.index);
        let _ = (writer.missing_nodes(index), writer.node(index), writer.can_prove_upgrade(Length(index.0)));
    }
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..80u64, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => (0..64u32).prop_map(|bit| 1 << bit)]
}

/// Changes one thing of a proof.
fn alter(proof: &mut Proof, what: u8, at: u64, value: u64) {
    let mut lists: Vec<&mut Vec<TreeNode>> = Vec::new();
    lists.extend(proof.block.as_mut().map(|block| &mut block.nodes));
    lists.extend(proof.hash.as_mut().map(|hash| &mut hash.nodes));
    lists.extend(proof.seek.as_mut().map(|seek| &mut seek.nodes));
    if let Some(upgrade) = &mut proof.upgrade {
        lists.extend([&mut upgrade.nodes, &mut upgrade.additional]);
    }
    let Some(nodes) = (!lists.is_empty()).then(|| lists.swap_remove(at as usize % lists.len())) else { return };
    let which = (at / 7) as usize % nodes.len().max(1);
    match what {
        0 if !nodes.is_empty() => nodes[which].hash[value as usize % 32] ^= 1 << (value % 8),
        1 if !nodes.is_empty() => nodes[which].size = value,
        2 if !nodes.is_empty() => nodes[which].index = NodeIndex(value),
        3 if !nodes.is_empty() => drop(nodes.remove(which)),
        4 if !nodes.is_empty() => nodes.insert(which, nodes[which]),
        5 => nodes.reverse(),
        6 => nodes.extend(vec![TreeNode { index: NodeIndex(value), size: value, hash: [1; 32] }; at as usize % 300]),
        7 => {
            if let Some(block) = &mut proof.block {
                block.index = BlockIndex(value);
            }
        }
        8 => {
            if let Some(block) = &mut proof.block {
                block.value = Bytes::from(vec![7; value as usize % 100]);
            }
        }
        9 => {
            if let Some(upgrade) = &mut proof.upgrade {
                (upgrade.start, upgrade.length) = (Length((at % 3).wrapping_mul(value)), value);
            }
        }
        10 => proof.fork = Fork(value % 3),
        _ => {
            if let Some(upgrade) = &mut proof.upgrade {
                let mut signature = upgrade.signature.to_vec();
                let which = value as usize % signature.len();
                signature[which] ^= 1 << (at % 8);
                upgrade.signature = signature.into();
            }
        }
    }
}

#[test]
fn a_batch_builds_on_itself() {
    let writer = writer();
    append(&writer, 0, 10);
    let backend = Arc::new(Memory::new());
    let core = open(&backend, writer.key()).unwrap();
    let mut intake = core.intake();
    let first = intake.verify(writer.prove(&upgrade(0, 10)).unwrap()).unwrap();
    // Verified before another was added, an upgrade is of no use any more.
    append(&writer, 0, 5);
    let late = intake.verify(writer.prove(&upgrade(0, 15)).unwrap()).unwrap();
    assert!(intake.verify(writer.prove(&upgrade(10, 5)).unwrap()).is_err(), "an upgrade from what is not here");
    intake.add(first);
    intake.add(late);
    assert_eq!(intake.len(), Length(10));
    let next = intake.verify(writer.prove(&upgrade(10, 5)).unwrap()).unwrap();
    assert_eq!((next.head(), next.block()), (Some(&writer.head()), None));
    intake.add(next);
    // The blocks of a head that is nowhere but in the batch.
    let path = |i| Request { block: Some(BlockRequest { index: BlockIndex(i), nodes: 2 }), ..Request::default() };
    for i in [8, 9, 9] {
        let verified = intake.verify(writer.prove(&path(i)).unwrap()).unwrap();
        intake.add(verified);
    }
    assert_eq!(core.len(), Length(0), "nothing is visible yet");
    assert_eq!(backend.statistics().entries[Space::Block as usize], 0);
    // What is wanted is told of as it arrives.
    let received = Arc::default();
    let _claim = core.wants().want(&[BlockIndex(9)], &received);
    let applied = intake.commit(Durability::Sync).unwrap();
    assert_eq!((applied.blocks, applied.head), (vec![BlockIndex(8), BlockIndex(9)], Some(writer.head())));
    assert_eq!((received.blocks(), received.bytes()), (1, block(0, 9).len() as u64));
    assert_eq!(core.wants().wait(BlockIndex(9), Duration::ZERO), Waited::Here);
    check_nodes(&core);

    // A late answer is nobody's fault, and brings what it can.
    let mut intake = core.intake();
    let stale = intake.verify(writer.prove(&upgrade(10, 5)).unwrap()).unwrap();
    assert_eq!(stale.head(), None);
    append(&writer, 0, 9);
    let late = intake.verify(writer.prove(&upgrade(10, 14)).unwrap());
    assert!(matches!(late, Err(Error::Invalid(_))), "{late:?}");
    intake.add(stale);
    // What another intake has verified is not taken.
    let foreign = intake.verify(writer.prove(&upgrade(15, 9)).unwrap()).unwrap();
    drop(intake);
    let mut intake = core.intake();
    intake.add(foreign);
    assert_eq!(intake.commit(Durability::Sync).unwrap(), Applied::default());
    assert_eq!(core.len(), Length(15));
}

#[test]
fn what_is_not_durable_is_not_shown() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let writer = writer_in(&faulty);
    append(&writer, 0, 10);
    let durable = writer.head();
    writer.append(&[block(0, 10)], Durability::NoSync).unwrap();
    assert_eq!((writer.len(), writer.durable_len()), (Length(11), Length(10)));
    assert!(writer.prove(&upgrade(0, 11)).is_err() && writer.prove(&ask_block(&writer, 10)).is_err());
    let proof = writer.prove(&upgrade(0, 10)).unwrap();
    assert_eq!(proof.upgrade.unwrap().signature, durable.signature);
    assert!(!writer.can_prove_upgrade(Length(11)));
    writer.sync().unwrap();
    assert_eq!(writer.prove(&upgrade(10, 1)).unwrap().upgrade.unwrap().signature, writer.head().signature);

    let head = writer.truncate(Length(4), Durability::NoSync).unwrap();
    assert_eq!((writer.durable_len(), writer.len()), (Length(0), Length(4)));
    assert!(writer.prove(&upgrade(0, 4)).is_err());
    writer.sync().unwrap();
    assert_eq!(writer.prove(&upgrade(0, 4)).unwrap().upgrade.unwrap().signature, head.signature);
}

#[test]
fn a_truncation_that_fails_is_found_out() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
        let writer = writer_in(&faulty);
        append(&writer, 0, 100);
        let past = Lineage::new(writer.clone());
        faulty.set_plan(Plan::at(faulty.writes() + 1, fault));
        assert!(matches!(writer.truncate(Length(30), Durability::Sync), Err(Error::Storage(_))));
        // What failed is looked for at once.
        assert_eq!(writer.len(), Length(if fault == Fault::FailAfter { 30 } else { 100 }));
        append(&writer, 1, 1);
        let expected = if fault == Fault::FailAfter { (Length(31), Fork(1)) } else { (Length(101), Fork(0)) };
        assert_eq!((writer.len(), writer.fork()), expected);
        writer.verify(|_, _| ()).unwrap();
        assert_eq!(past.block(BlockIndex(99)).is_ok(), fault == Fault::FailBefore);
        let head = writer.head();
        drop((writer, past));
        assert_eq!(writer_in(&faulty).head(), head);
    }
}

#[test]
fn a_past_history_is_never_shown_as_the_new_one() {
    let writer = writer();
    append(&writer, 0, 100);
    let past = Lineage::new(writer.clone());
    assert_eq!(past.block(BlockIndex(60)).unwrap(), block(0, 60));
    let seen = writer.watch().position();
    writer.truncate(Length(50), Durability::Sync).unwrap();
    assert_ne!(writer.watch().wait(seen, Duration::ZERO), seen);
    let between = Lineage::new(writer.clone());
    append(&writer, 1, 100);
    assert_eq!(past.block(BlockIndex(49)).unwrap(), block(0, 49));
    assert_eq!(past.block(BlockIndex(60)), Err(Error::Rewritten(BlockIndex(60))));
    assert_eq!(past.blocks(BlockIndex(60), 10).err(), Some(Error::Rewritten(BlockIndex(60))));
    assert_eq!(past.blocks(BlockIndex(48), 10).unwrap(), [block(0, 48)]);
    assert_eq!(between.block(BlockIndex(60)).unwrap(), block(1, 60));
    writer.truncate(Length(70), Durability::Sync).unwrap();
    append(&writer, 2, 9);
    assert_eq!(between.block(BlockIndex(69)).unwrap(), block(1, 69));
    assert!(between.block(BlockIndex(70)).is_err() && past.block(BlockIndex(50)).is_err());
    assert_eq!((writer.unchanged_since(Fork(0)), writer.unchanged_since(Fork(1))), (Length(50), Length(70)));
    writer.truncate(Length(10), Durability::Sync).unwrap();
    assert_eq!((writer.unchanged_since(Fork(0)), writer.unchanged_since(Fork(2))), (Length(10), Length(10)));
    assert_eq!(writer.unchanged_since(writer.fork()), Length(u64::MAX));
    assert!(matches!(writer.truncate(Length(11), Durability::Sync), Err(Error::Invalid(_))));
    let replica = Replica::new(writer.key());
    assert_eq!(replica.core.truncate(Length(0), Durability::Sync), Err(Error::NotWritable));
}

/// Proofs are made while blocks come in and histories are replaced: each is of one history.
#[test]
fn a_proof_is_of_one_history() {
    let writer = writer();
    append(&writer, 0, 200);
    let replica = Replica::new(writer.key());
    take_in(&replica.core, [writer.prove(&upgrade(0, 200)).unwrap()]).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for core in [&writer, &replica.core] {
            scope.spawn(|| {
                let (mut made, mut at) = (0, 0);
                while !is_done.load(Ordering::Relaxed) || made == 0 {
                    at = (at + 37) % 200;
                    let length = core.durable_len().0;
                    let block = Some(BlockRequest { index: BlockIndex(at), nodes: 0 });
                    for block in [block, None] {
                        match core.prove(&Request { block, ..upgrade(0, length) }) {
                            Ok(proof) => {
                                proof.verify_alone(core.key()).unwrap();
                                made += 1;
                            }
                            Err(Error::Invalid(_) | Error::MissingBlock(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
        for round in 1..60 {
            writer.truncate(Length(round * 3 % 190), Durability::Sync).unwrap();
            append(&writer, round, 200 - writer.len().0);
            let core = &replica.core;
            let mut reorg = core.reorg(writer.prove(&upgrade(0, 200)).unwrap()).unwrap();
            while let Some(request) = reorg.next_request() {
                reorg.receive(writer.prove(&request).unwrap()).unwrap();
            }
            reorg.commit(Durability::Sync).unwrap();
            let missing = (round..200).step_by(3).filter(|&i| !core.has(BlockIndex(i)));
            let proofs: Vec<Proof> = missing.map(|i| writer.prove(&ask_block(core, i)).unwrap()).collect();
            take_in(core, proofs).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    check_nodes(&replica.core);
    writer.verify(|_, _| ()).unwrap();
}

/// A page of the bitfield that is ahead of the head, as a failed append leaves it, does not say later that a block is held.
#[test]
fn a_page_ahead_of_its_head_is_cut_back() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let core = writer_in(&faulty);
    append(&core, 0, 20);
    core.clear(BlockIndex(3)..BlockIndex(5)).unwrap();
    faulty.set_plan(Plan::at(faulty.writes() + 1, Fault::FailAfter));
    let blocks: Vec<Bytes> = (20..60).map(|i| block(1, i)).collect();
    assert!(core.append(&blocks, Durability::Sync).is_err());
    // Whoever writes next puts the head back. A stage that comes to nothing writes nothing else.
    drop(core.stage().unwrap());
    drop(core);
    let core = writer_in(&faulty);
    assert_eq!((core.len(), core.held_blocks()), (Length(20), 18));
    let other = writer();
    append(&other, 0, 20);
    append(&other, 0, 30);
    take_in(&core, [other.prove(&upgrade(20, 30)).unwrap()]).unwrap();
    drop(core);
    let core = writer_in(&faulty);
    assert_eq!((core.len(), core.held_blocks(), core.has(BlockIndex(40))), (Length(50), 18, false));
}

/// A bee read on one fork never shows an entry of another, cached or not.
#[test]
fn a_bee_is_read_in_one_history() {
    fn put(core: &Arc<Core>, cache: &Arc<Cache>, id: u64, value: &str) {
        let mut writer = Writer::new(core.clone(), cache.clone(), id, core.len());
        for key in 0..40u8 {
            let mut batch = writer.batch();
            batch.put(&[key], Some(value.as_bytes())).unwrap();
            batch.flush();
        }
        core.append(&writer.take_pending(), Durability::Sync).unwrap();
    }
    let (core, cache) = (writer(), Cache::new(1 << 20));
    put(&core, &cache, 1, "old");
    let old = Bee::new(Arc::new(Lineage::new(core.clone())), cache.clone(), 1).at(Version(core.len().0));
    assert_eq!(old.get(&[3]).unwrap().unwrap().value.unwrap(), "old");
    core.truncate(Length(11), Durability::Sync).unwrap();
    put(&core, &cache, 2, "new");
    assert!(core.len() > Length(41));
    let new = Bee::new(Arc::new(Lineage::new(core.clone())), cache.clone(), 2).at(Version(core.len().0));
    let mut refused = 0;
    for key in 0..40u8 {
        assert_eq!(new.get(&[key]).unwrap().unwrap().value.unwrap(), "new");
        match old.get(&[key]) {
            Ok(entry) => assert_eq!(entry.unwrap().value.unwrap(), "old"),
            Err(Error::Rewritten(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 20, "{refused}");
}

/// A second machine with the writer's key, and another history.
fn impostor(blocks: u64) -> Arc<Core> {
    let core = writer();
    append(&core, 666, blocks);
    core
}

#[test]
fn a_writer_with_two_histories_is_found_out() {
    let (writer, other) = (writer(), impostor(40));
    append(&writer, 0, 30);
    let backend = Arc::new(Memory::new());
    let core = open(&backend, writer.key()).unwrap();
    take_in(&core, [writer.prove(&upgrade(0, 30)).unwrap()]).unwrap();
    take_in(&core, [writer.prove(&ask_block(&core, 3)).unwrap()]).unwrap();

    // The same history, or one of another fork, or longer than ours, is no evidence.
    for proof in [writer.prove(&upgrade(0, 16)), other.prove(&upgrade(0, 40)), writer.prove(&ask_block(&core, 3))] {
        assert_eq!(core.check_conflict(&proof.unwrap()), Ok(None));
    }
    // At a length whose roots a replica does not know it cannot tell.
    assert_eq!(core.check_conflict(&other.prove(&upgrade(0, 29)).unwrap()), Ok(None));
    let mut forged = other.prove(&upgrade(0, 30)).unwrap();
    forged.upgrade.as_mut().unwrap().nodes[0].hash[0] ^= 1;
    assert_eq!(core.check_conflict(&forged), Err(Error::InvalidSignature));
    // A longer history than ours that does not go on from ours is refused as any other proof.
    let wrong = take_in(&core, [other.prove(&upgrade(30, 10)).unwrap()]);
    assert_eq!(wrong, Err(Error::InvalidSignature));

    let theirs = other.prove(&upgrade(0, 30)).unwrap();
    let conflict = core.check_conflict(&theirs).unwrap().unwrap();
    assert_eq!((conflict.fork, conflict.length), (Fork(0), Length(30)));
    assert_ne!(conflict.ours, conflict.theirs);
    let innocent = pgbee_engine::hypercore::conflict::Conflict { theirs: conflict.ours.clone(), ..conflict.clone() };
    assert!(matches!(core.freeze(innocent), Err(Error::Invalid(_))));
    assert_eq!(core.conflict(), None);
    core.freeze(conflict.clone()).unwrap();

    let check = |core: &Arc<Core>| {
        let frozen = Error::Frozen(core.key());
        assert_eq!(core.conflict(), Some(conflict.clone()));
        assert_eq!(core.prove(&ask_block(core, 3)).err(), Some(frozen.clone()));
        let proof = writer.prove(&ask_block(core, 4)).unwrap();
        assert_eq!(core.intake().verify(proof.clone()).err(), Some(frozen.clone()));
        assert_eq!(core.reorg(proof).err(), Some(frozen));
        assert_eq!(core.get(BlockIndex(3)).unwrap(), block(0, 3));
    };
    check(&core);
    drop(core);
    check(&open(&backend, writer.key()).unwrap());

    // The writer itself stops, too.
    let conflict = writer.check_conflict(&other.prove(&upgrade(0, 7)).unwrap()).unwrap().unwrap();
    writer.freeze(conflict).unwrap();
    let frozen = Err(Error::Frozen(writer.key()));
    assert_eq!(writer.append(&[block(0, 30)], Durability::Sync).map(|_| ()), frozen);
    assert_eq!(writer.truncate(Length(0), Durability::Sync).map(|_| ()), frozen);
    assert_eq!(writer.stage().map(|_| ()), frozen);
    assert_eq!(writer.get(BlockIndex(29)).unwrap(), block(0, 29));
}

#[test]
fn a_core_that_lost_its_blocks_gets_them_back_and_goes_on() {
    let rocks = tempfile::tempdir().unwrap();
    let small = RocksOptions { write_buffer_bytes: 64 << 10, ..RocksOptions::default() };
    let writer = writer();
    append(&writer, 0, 5000);
    for round in 0..4u64 {
        let backend = Arc::new(Rocks::open(rocks.path(), &small).unwrap());
        let core = open(&backend, writer.key()).unwrap();
        if round == 0 {
            take_in(&core, [writer.prove(&upgrade(0, 5000)).unwrap()]).unwrap();
        }
        let blocks: Vec<u64> = (0..5000).filter(|i| i / 7 % 4 == round || round == 3).collect();
        for some in blocks.chunks(311) {
            let proofs: Vec<Proof> = some.iter().map(|&i| writer.prove(&ask_block(&core, i)).unwrap()).collect();
            take_in(&core, proofs).unwrap();
        }
        if round == 3 {
            assert_eq!((core.contiguous_len(), core.held_blocks()), (Length(5000), 5000));
            core.verify(|_, _| ()).unwrap();
            core.clear(BlockIndex(100)..BlockIndex(4900)).unwrap();
            assert_eq!(core.held_blocks(), 200);
            check_nodes(&core);
            let records = backend.scan(Space::Tree, Range::all(), false).count();
            assert!(records < 200, "nodes nobody needs are gone, {records} are left");
        }
    }
    // A writer may make holes as well, and go on.
    writer.clear(BlockIndex(10)..BlockIndex(4000)).unwrap();
    append(&writer, 0, 70);
    assert_eq!((writer.contiguous_len(), writer.held_blocks()), (Length(10), 5070 - 3990));
    assert_eq!(writer.get(BlockIndex(10)), Err(Error::MissingBlock(BlockIndex(10))));
    let head = writer.head();
    let core = open(&Arc::new(Memory::new()), writer.key()).unwrap();
    take_in(&core, [writer.prove(&upgrade(0, 5070)).unwrap()]).unwrap();
    assert_eq!(core.head(), head);
    check_nodes(&writer);
}
