//! Several nodes over a made-up network: the whole stack, from one seed, in made-up time.

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::wants::Waited;
use pgbee_engine::storage::Durability;
use pgbee_engine::{BlockIndex, Length};
use pgbee_replication::transport::simulated::{Conditions, Random, Simulation};

const MINUTE: Duration = Duration::from_secs(60);

fn blocks(fork: u64, from: u64, to: u64) -> Vec<Bytes> {
    (from..to).map(|n| Bytes::from(format!("fork {fork} block {n} {}", "x".repeat((n % 40) as usize)))).collect()
}

/// A simulation with a writer, node 0, who has one core of so many blocks.
fn writer(seed: u64, conditions: Conditions, length: u64) -> (Simulation, Arc<Core>) {
    let mut simulation = Simulation::new(seed, conditions);
    simulation.add_node();
    let core = simulation.store(0).get_by_name("log").unwrap();
    core.append(&blocks(0, 0, length), Durability::Sync).unwrap();
    (simulation, core)
}

/// Another node, which follows the core.
fn follower(simulation: &mut Simulation, core: &Core) -> (usize, Arc<Core>) {
    let node = simulation.add_node();
    let copy = simulation.store(node).get_by_key(core.key()).unwrap();
    simulation.follow(node, &copy);
    (node, copy)
}

fn is_whole(copy: &Core, length: u64) -> bool {
    copy.len() == Length(length) && copy.contiguous_len() == Length(length)
}

fn assert_prefix(copy: &Core, core: &Core) {
    let length = copy.len().0;
    assert!(length <= core.len().0);
    for block in 0..length {
        if copy.has(BlockIndex(block)) {
            assert_eq!(copy.get(BlockIndex(block)).unwrap(), core.get(BlockIndex(block)).unwrap());
        }
    }
}

#[test]
fn a_full_copy_and_what_is_appended_later() {
    let (mut simulation, core) = writer(1, Conditions::default(), 3000);
    let (node, copy) = follower(&mut simulation, &core);
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.changed(node, &copy);
    simulation.keep_connected(node, 0);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 3000)), "{copy:?} {:?}", simulation.faults());
    assert_eq!(copy.head(), core.head());
    for more in 1..20 {
        core.append(&blocks(0, 2990 + more * 10, 3000 + more * 10), Durability::Sync).unwrap();
        simulation.changed(0, &core);
        let before = simulation.now();
        assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 3000 + more * 10)));
        assert!(simulation.now() - before < Duration::from_millis(200), "two round trips and a half");
    }
    assert_prefix(&copy, &core);
    assert!(simulation.faults().is_empty());
}

#[test]
fn a_sparse_reader_fetches_what_it_wants_and_nothing_else() {
    let (mut simulation, core) = writer(2, Conditions::default(), 5000);
    let (node, copy) = follower(&mut simulation, &core);
    simulation.keep_connected(node, 0);
    assert!(simulation.run_until(MINUTE, |_| copy.len() == Length(5000)));
    assert_eq!(copy.held_blocks(), 0);
    let wanted: Vec<BlockIndex> = [4999, 0, 2500, 2501, 77].into_iter().map(BlockIndex).collect();
    let received = Arc::default();
    let claim = copy.wants().want(&wanted, &received);
    simulation.changed(node, &copy);
    assert!(simulation.run_until(MINUTE, |_| wanted.iter().all(|block| copy.has(*block))));
    assert_eq!((copy.held_blocks(), received.blocks(), copy.wants().is_idle()), (5, 5, true));
    drop(claim);
    assert_prefix(&copy, &core);
}

#[test]
fn a_relay_in_the_middle_serves_what_it_has_and_gets() {
    let (mut simulation, core) = writer(3, Conditions::default(), 2000);
    let (middle, relay) = follower(&mut simulation, &core);
    simulation.keep_connected(middle, 0);
    assert!(simulation.run_until(MINUTE, |_| relay.len() == Length(2000)));
    let _some = relay.wants().want_range(BlockIndex(500)..BlockIndex(800));
    simulation.changed(middle, &relay);
    assert!(simulation.run_until(MINUTE, |_| relay.held_blocks() == 300));

    let (far, copy) = follower(&mut simulation, &core);
    simulation.keep_connected(far, middle);
    assert!(simulation.run_until(MINUTE, |_| copy.len() == Length(2000)), "the head comes through the relay");
    let _more = copy.wants().want_range(BlockIndex(400)..BlockIndex(1000));
    let single = copy.wants().want(&[BlockIndex(1500)], &Arc::default());
    simulation.changed(far, &copy);
    assert!(
        simulation.run_until(MINUTE, |_| copy.held_blocks() == 300),
        "as far as the relay has them: {}",
        copy.held_blocks()
    );
    simulation.run_for(Duration::from_secs(3));
    let waited = copy.wants().wait(BlockIndex(1500), Duration::ZERO);
    assert_eq!(waited, Waited::NotYet { peers: 1, holders: Some(0) }, "nobody who is connected has it");

    // Now the relay gets the rest, and the far one hears of it.
    let _rest = relay.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.changed(middle, &relay);
    assert!(simulation.run_until(MINUTE, |_| copy.held_blocks() == 601), "{}", copy.held_blocks());
    drop(single);
    core.append(&blocks(0, 2000, 2100), Durability::Sync).unwrap();
    simulation.changed(0, &core);
    assert!(simulation.run_until(MINUTE, |_| copy.len() == Length(2100)), "a new head goes through");
    assert_prefix(&copy, &core);
    assert!(simulation.faults().is_empty(), "{:?}", simulation.faults());
}

#[test]
fn a_truncation_is_followed_also_through_a_relay() {
    let (mut simulation, core) = writer(4, Conditions::default(), 700);
    let (middle, relay) = follower(&mut simulation, &core);
    let (far, copy) = follower(&mut simulation, &core);
    let _relay = relay.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    let _copy = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.keep_connected(middle, 0);
    simulation.keep_connected(far, middle);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 700) && is_whole(&relay, 700)));
    for (fork, to) in [(1, 333), (2, 332), (3, 5)] {
        core.truncate(Length(to), Durability::Sync).unwrap();
        simulation.changed(0, &core);
        core.append(&blocks(fork, to, 400), Durability::Sync).unwrap();
        simulation.changed(0, &core);
        assert!(
            simulation.run_until(MINUTE, |_| copy.head() == core.head() && is_whole(&copy, 400)),
            "fork {fork}: {copy:?} {:?}",
            copy.head()
        );
        assert_prefix(&copy, &core);
        assert_prefix(&relay, &core);
    }
    assert!(simulation.faults().is_empty(), "{:?}", simulation.faults());
}

#[test]
fn bytes_one_by_one_and_many_peers() {
    let conditions =
        Conditions { piece_bytes_max: 1, delay: (Duration::ZERO, Duration::from_micros(10)), ..Conditions::default() };
    let (mut simulation, core) = writer(5, conditions, 60);
    let (one, copy) = follower(&mut simulation, &core);
    let _copy = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.keep_connected(one, 0);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 60)));
    simulation.set_conditions(Conditions::default());
    let (two, other) = follower(&mut simulation, &core);
    let _other = other.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.keep_connected(two, 0);
    simulation.keep_connected(two, one);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&other, 60)));
    assert_prefix(&other, &core);
}

#[test]
fn a_range_is_spread_over_peers() {
    let (mut simulation, core) = writer(6, Conditions::default(), 4000);
    let mut copies = Vec::new();
    for _ in 0..2 {
        let (node, copy) = follower(&mut simulation, &core);
        let all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        simulation.keep_connected(node, 0);
        copies.push((node, copy, all));
    }
    assert!(simulation.run_until(MINUTE, |_| copies.iter().all(|(_, copy, _)| is_whole(copy, 4000))));
    let (node, copy) = follower(&mut simulation, &core);
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    for from in 0..3 {
        simulation.keep_connected(node, from);
    }
    assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 4000)));
    let given: Vec<u64> =
        simulation.node(node).core(core.key()).unwrap().status().peers.iter().map(|(_, peer)| peer.blocks_in).collect();
    assert_eq!(given.len(), 3);
    assert_eq!(given.iter().sum::<u64>(), 4000, "each block once: {given:?}");
    assert!(given.iter().all(|blocks| *blocks > 500), "{given:?}");
}

#[test]
fn a_slow_holder_is_overtaken() {
    // Two peers have everything, but one of them stops answering in the middle: its wire is cut without anyone noticing.
    let (mut simulation, core) = writer(7, Conditions::default(), 2000);
    let (other, second) = follower(&mut simulation, &core);
    let _second = second.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.keep_connected(other, 0);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&second, 2000)));
    let (node, copy) = follower(&mut simulation, &core);
    simulation.keep_connected(node, 0);
    simulation.keep_connected(node, other);
    assert!(simulation.run_until(MINUTE, |_| copy.len() == Length(2000)));
    simulation.freeze(other);
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    simulation.changed(node, &copy);
    assert!(simulation.run_until(MINUTE, |_| is_whole(&copy, 2000)), "{}", copy.held_blocks());
    assert!(simulation.now() < Duration::from_secs(20), "{:?}", simulation.now());
}

/// Writer, followers, lossy wires: every follower's core is a prefix of the writer's at all times, and equal in the end.
fn story(seed: u64) -> (u64, String) {
    let mut random = Random::new(seed);
    let pieces = 4 + random.below(12);
    let conditions = Conditions {
        delay: (Duration::ZERO, Duration::from_millis(1 + random.below(80))),
        piece_bytes_max: 1 + random.below(1 << pieces) as usize,
        breaks_per_million: random.below(3000) as u32,
        ..Conditions::default()
    };
    let (mut simulation, core) = writer(seed, conditions.clone(), random.below(400));
    let mut copies = Vec::new();
    for _ in 0..1 + random.below(3) {
        let (node, copy) = follower(&mut simulation, &core);
        let all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        // To the writer, or to one who came before: a chain at worst.
        simulation.keep_connected(node, random.below(node as u64) as usize);
        if random.below(2) == 0 {
            simulation.keep_connected(node, 0);
        }
        copies.push((node, copy, all));
    }
    let mut fork = 0;
    for _ in 0..random.below(12) {
        simulation.run_for(Duration::from_millis(random.below(600)));
        match random.below(9) {
            0..5 => {
                let length = core.len().0;
                core.append(&blocks(fork, length, length + 1 + random.below(60)), Durability::Sync).unwrap();
            }
            5 if core.len().0 > 0 => {
                core.truncate(Length(random.below(core.len().0)), Durability::Sync).unwrap();
                fork += 1;
            }
            6 => simulation.partition(
                random.below(copies.len() as u64 + 1) as usize,
                random.below(copies.len() as u64 + 1) as usize,
            ),
            7 => {
                let (node, copy, _) = &copies[random.below(copies.len() as u64) as usize];
                simulation.restart(*node);
                simulation.follow(*node, copy);
            }
            _ => simulation.heal(),
        }
        simulation.changed(0, &core);
        for (_, copy, _) in &copies {
            if copy.head().fork == core.head().fork {
                assert_prefix(copy, &core);
            }
        }
    }
    simulation.heal();
    simulation.set_conditions(Conditions { breaks_per_million: 0, ..conditions });
    if core.len() == Length(0) {
        // Nobody follows a truncation to nothing before something is appended.
        core.append(&blocks(fork, 0, 1), Durability::Sync).unwrap();
        simulation.changed(0, &core);
    }
    let done = simulation.run_until(10 * MINUTE, |_| {
        copies.iter().all(|(_, copy, _)| copy.head() == core.head() && is_whole(copy, core.len().0))
    });
    let at = |node: usize| simulation.node(node).core(core.key()).map(|slot| slot.describe());
    let state: Vec<String> = copies
        .iter()
        .map(|(node, copy, _)| {
            format!("{copy:?} fork {} holds {}: {:?}\n", copy.head().fork, copy.held_blocks(), at(*node))
        })
        .collect();
    assert!(done, "of {core:?} fork {}: {state:?}; faults {:?}", core.head().fork, simulation.faults());
    for (_, copy, _) in &copies {
        assert_prefix(copy, &core);
    }
    assert!(simulation.faults().is_empty(), "{:?}", simulation.faults());
    (simulation.pieces(), format!("{:?} {state:?}", simulation.now()))
}

#[test]
fn every_follower_ends_with_what_the_writer_has() {
    // SEED=7 repeats one story, SEED=100..500 tells others.
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let seeds = match std::env::var("SEED") {
        Ok(text) => text
            .split_once("..")
            .map_or_else(|| number(&text)..number(&text) + 1, |(from, to)| number(from)..number(to)),
        Err(_) => 0..40,
    };
    for seed in seeds {
        let told = std::panic::catch_unwind(|| story(seed));
        assert!(told.is_ok(), "to repeat: SEED={seed} cargo test -p pgbee-replication --test simulated every_follower");
    }
}

#[test]
fn one_seed_is_one_story() {
    for seed in [3, 11] {
        assert_eq!(story(seed), story(seed));
    }
}
