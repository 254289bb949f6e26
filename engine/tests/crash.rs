//! A crash at every write of a workload: whatever was acknowledged as durable is there, what was not is
//! there as a whole append or not at all, and every block verifies against the signed head.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::faulty::{Fault, Faulty, Plan};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability};
use pgbee_engine::{BlockIndex, Length};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Append { blocks: u64, synced: bool },
    Stage { pushes: Vec<u64>, commit: bool },
    Sync,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..70u64, any::<bool>()).prop_map(|(blocks, synced)| Step::Append { blocks, synced }),
        2 => (vec(1..70u64, 1..4), any::<bool>())
            .prop_map(|(pushes, commit)| Step::Stage { pushes, commit }),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// What a test knows of the core: its content as last seen, and what a crash may leave of it.
struct Model {
    blocks: Vec<Bytes>,
    /// Heads that a crash may bring back. The first is durable.
    possible: Vec<Vec<Bytes>>,
    made: u64,
}

impl Model {
    fn new() -> Model {
        Model { blocks: Vec::new(), possible: vec![Vec::new()], made: 0 }
    }

    /// Blocks that no other append has, so that a mixture would be noticed.
    fn make(&mut self, count: u64) -> Vec<Bytes> {
        let blocks = (self.made..self.made + count).map(|n| Bytes::from(format!("unique block {n}")));
        self.made += count;
        blocks.collect()
    }

    fn trying(&mut self, more: &[Bytes]) {
        self.possible.push([&self.blocks, more].concat());
    }

    fn succeeded(&mut self, more: &[Bytes], synced: bool) {
        self.blocks.extend_from_slice(more);
        if synced {
            self.synced();
        }
    }

    fn synced(&mut self) {
        self.possible = vec![self.blocks.clone()];
    }
}

fn open(backend: &Arc<dyn Backend>) -> pgbee_engine::Result<Arc<Core>> {
    Store::open(backend.clone(), Options { primary_key: Some([1; 32]) })?.get_by_name("log")
}

fn content(core: &Core) -> pgbee_engine::Result<Vec<Bytes>> {
    core.get_range(BlockIndex(0), core.len().0 as usize)
}

/// Runs steps until one fails or all are done.
fn run(backend: &Arc<dyn Backend>, steps: &[Step], model: &mut Model) -> pgbee_engine::Result<()> {
    let mut core = open(backend)?;
    for step in steps {
        match step {
            Step::Append { blocks, synced } => {
                let more = model.make(*blocks);
                model.trying(&more);
                let durability = if *synced { Durability::Sync } else { Durability::NoSync };
                core.append(&more, durability)?;
                model.succeeded(&more, *synced);
            }
            Step::Stage { pushes, commit } => {
                let stage = core.stage()?;
                let mut more = Vec::new();
                for &count in pushes {
                    let some = model.make(count);
                    stage.push(&some)?;
                    more.extend(some);
                }
                if *commit {
                    model.trying(&more);
                    stage.commit(Durability::Sync)?;
                    model.succeeded(&more, true);
                }
            }
            Step::Sync => {
                core.sync()?;
                model.synced();
            }
            Step::Reopen => {
                drop(core);
                core = open(backend)?;
            }
        }
        assert_eq!(core.len(), Length(model.blocks.len() as u64));
    }
    assert_eq!(content(&core)?, model.blocks);
    core.verify(|_, _| ())?;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_crash_at_any_write(steps in vec(step(), 1..10), survivors in 0..12usize, again in vec(step(), 1..4)) {
        let writes = {
            let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
            let backend: Arc<dyn Backend> = faulty.clone();
            run(&backend, &steps, &mut Model::new()).unwrap();
            faulty.writes()
        };
        for write in 1..=writes {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter] {
                let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::at(write, fault)));
                let backend: Arc<dyn Backend> = faulty.clone();
                let mut model = Model::new();
                // A dropped stage survives the failure of its own cleaning up.
                let _ = run(&backend, &steps, &mut model);
                faulty.crash();
                faulty.heal(survivors).unwrap();
                faulty.set_plan(Plan::none());

                let core = open(&backend).unwrap();
                let found = content(&core).unwrap();
                core.verify(|_, _| ()).unwrap();
                prop_assert!(
                    model.possible.contains(&found),
                    "{} blocks are no state that was ever committed", found.len()
                );
                drop(core);
                // And life goes on from there.
                let mut model = Model { blocks: found.clone(), possible: vec![found], made: 1 << 32 };
                run(&backend, &again, &mut model).unwrap();
            }
        }
    }
}

/// The same with RocksDB: the directory is copied while the store is open and un-synced data is in
/// flight, which is what a killed process leaves behind; then the log is cut at many places, which is
/// what a power cut may leave.
#[test]
fn a_cut_log_of_rocksdb_opens_at_a_committed_head() {
    let dir = tempfile::tempdir().unwrap();
    let options = RocksOptions { write_buffer_bytes: 1 << 20, ..RocksOptions::default() };
    let backend: Arc<dyn Backend> = Arc::new(Rocks::open(dir.path().join("live"), &options).unwrap());
    let core = open(&backend).unwrap();
    let mut model = Model::new();
    let mut lengths = vec![0];
    for n in 1..40 {
        let more = model.make(n);
        core.append(&more, Durability::NoSync).unwrap();
        model.succeeded(&more, false);
        lengths.push(model.blocks.len());
    }
    let stage = core.stage().unwrap();
    stage.push(&model.make(100)).unwrap();

    let live: Vec<_> = std::fs::read_dir(dir.path().join("live"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    let log = live.iter().find(|path| path.extension().is_some_and(|ext| ext == "log")).unwrap();
    let size = std::fs::metadata(log).unwrap().len();
    assert!(size > 10_000, "the blocks are in the log");
    for cut in 0..12 {
        let copy = dir.path().join(format!("copy{cut}"));
        std::fs::create_dir(&copy).unwrap();
        for path in &live {
            std::fs::copy(path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let copied_log = copy.join(log.file_name().unwrap());
        // Far enough in that the store and its core had been made.
        let len = if cut == 0 { size } else { 2000 + (size - 2000) * cut / 12 };
        std::fs::OpenOptions::new().write(true).open(&copied_log).unwrap().set_len(len).unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Rocks::open(&copy, &options).unwrap());
        let core = open(&backend).unwrap();
        core.verify(|_, _| ()).unwrap();
        let found = content(&core).unwrap();
        assert!(lengths.contains(&found.len()), "{} blocks", found.len());
        assert_eq!(found, model.blocks[..found.len()]);
        assert!(cut > 0 || found.len() == model.blocks.len());
        core.append(&[Bytes::from("more")], Durability::Sync).unwrap();
        core.verify(|_, _| ()).unwrap();
    }
}
