//! The swarm's policy, told what happened and asked what to do, without any network.

use super::*;

const T0: Now = Duration::ZERO;
const TOPIC: [u8; 32] = [200; 32];

fn key(n: u8) -> Key {
    [n; 32]
}
fn swarm(own: u8) -> Swarm {
    Swarm::new(key(own), SwarmOptions::default(), Random::new([own; 32]))
}
fn record(n: u8) -> PeerRecord {
    PeerRecord { public_key: key(n), relays: Vec::new() }
}
fn actions(swarm: &mut Swarm) -> Vec<Action> {
    std::iter::from_fn(|| swarm.poll_action()).collect()
}
fn connects(swarm: &mut Swarm) -> Vec<Key> {
    let key_of = |action| if let Action::Connect { key, .. } = action { Some(key) } else { None };
    actions(swarm).into_iter().filter_map(key_of).collect()
}

#[test]
fn a_topic_found_is_connected_to_once_whatever_the_number_of_topics() {
    let mut swarm = swarm(1);
    for topic in [TOPIC, [201; 32]] {
        assert!(swarm.join(T0, topic, Role::CLIENT));
        assert_eq!(actions(&mut swarm), [Action::Start { topic, task: Task::Lookup }]);
    }
    swarm.found(TOPIC, &[record(1), record(2), record(2)]);
    swarm.found([201; 32], &[record(2)]);
    assert_eq!(connects(&mut swarm), [key(2)], "not ourselves, and no one twice");
    swarm.opened(T0, &key(2));
    swarm.found(TOPIC, &[record(2)]);
    assert_eq!(connects(&mut swarm), [] as [Key; 0]);
    assert_eq!(swarm.topics_of(&key(2)), [TOPIC, [201; 32]]);
    assert!(!swarm.join(T0, [202; 32], Role::default()));
}

#[test]
fn both_sides_of_a_crossing_keep_the_same_connection() {
    for (ours, theirs) in [(1, 2), (2, 1)] {
        let (mut a, mut b) = (swarm(ours), swarm(theirs));
        for (swarm, other) in [(&mut a, theirs), (&mut b, ours)] {
            swarm.join(T0, TOPIC, Role::CLIENT);
            swarm.found(TOPIC, &[record(other)]);
            assert_eq!(connects(swarm), [key(other)]);
        }
        // Each gets the other's connection while its own is on its way.
        let (at_a, at_b) = (a.judge(&key(theirs), false), b.judge(&key(ours), false));
        assert_ne!(at_a, at_b);
        assert_eq!(at_a == Judgement::Refuse, ours > theirs, "the caller with the larger key stays");
        // A peer that opens another over a live one has lost the old one.
        assert_eq!(a.judge(&key(theirs), true), Judgement::Replace);
    }
    assert_eq!(swarm(1).judge(&key(9), false), Judgement::Accept);
}

#[test]
fn limits_hold() {
    let mut swarm = swarm(255);
    swarm.join(T0, TOPIC, Role::CLIENT);
    let records: Vec<PeerRecord> = (0..60).map(record).collect();
    let more: Vec<PeerRecord> = (60..120).map(record).collect();
    swarm.found(TOPIC, &records);
    swarm.found(TOPIC, &more);
    let mut begun = connects(&mut swarm);
    assert_eq!(begun.len(), 6);
    let mut at = 0;
    while at < begun.len() {
        swarm.opened(T0, &begun[at]);
        begun.extend(connects(&mut swarm));
        assert!(swarm.connecting() <= 6);
        at += 1;
    }
    assert_eq!(begun.len(), 64);
    // One is lost: another one takes its place.
    swarm.closed(T0, &begun[0], false);
    assert_eq!(connects(&mut swarm).len(), 1);
    for n in 0..250 {
        if swarm.is_welcome(&key(n)) && swarm.judge(&key(n), false) == Judgement::Accept {
            swarm.accepted(T0, key(n));
        }
    }
    assert!(!swarm.is_welcome(&key(255)), "not ourselves");
    assert!(swarm.connections.len() <= 256);
}

#[test]
fn a_peer_that_needs_a_relay_is_tried_with_one() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::CLIENT);
    swarm.found(TOPIC, &[record(2)]);
    connects(&mut swarm);
    swarm.closed(T0, &key(2), true);
    let at = swarm.poll_timeout().unwrap();
    assert!(at < Duration::from_secs(8), "{at:?}");
    swarm.handle_timeout(at);
    let relayed =
        actions(&mut swarm).into_iter().any(|action| matches!(action, Action::Connect { needs_relay: true, .. }));
    assert!(relayed);
}

#[test]
fn bans_close_and_keep_out() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::CLIENT);
    swarm.found(TOPIC, &[record(2)]);
    connects(&mut swarm);
    swarm.opened(T0, &key(2));
    assert!(swarm.is_welcome(&key(2)));
    swarm.ban(T0, key(2), true);
    assert_eq!(actions(&mut swarm), [Action::Close { key: key(2) }]);
    assert!(!swarm.is_welcome(&key(2)));
    swarm.found(TOPIC, &[record(2)]);
    assert_eq!(connects(&mut swarm), [] as [Key; 0]);
    swarm.ban(T0, key(2), false);
    swarm.found(TOPIC, &[record(2)]);
    assert_eq!(connects(&mut swarm), [key(2)]);
}

#[test]
fn a_server_listens_once_and_announces_when_it_can_be_reached() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::SERVER);
    assert_eq!(actions(&mut swarm), [Action::Listen]);
    swarm.join(T0, [7; 32], Role::BOTH);
    assert_eq!(actions(&mut swarm), [Action::Start { topic: [7; 32], task: Task::Lookup }]);
    swarm.query_ended(T0, [7; 32], Ended { answers: 3 });
    assert_eq!(actions(&mut swarm), []);
    swarm.set_listening(T0);
    let announces = actions(&mut swarm);
    assert_eq!(announces.len(), 2);
    assert!(
        announces.iter().all(|action| matches!(action, Action::Start { task: Task::Announce { is_first: true }, .. }))
    );
    // Without relays it is announced all the same, later.
    let mut alone = self::swarm(1);
    alone.join(T0, TOPIC, Role::SERVER);
    assert_eq!(alone.poll_timeout(), Some(LISTEN_WAIT));
    alone.handle_timeout(LISTEN_WAIT);
    assert!(actions(&mut alone).iter().any(|action| matches!(action, Action::Start { .. })));
}

#[test]
fn many_topics_take_turns() {
    let mut swarm = swarm(1);
    for n in 0..100 {
        swarm.join(T0, key(n), Role::CLIENT);
    }
    let (mut seen, mut running) = (BTreeSet::new(), VecDeque::new());
    loop {
        for action in actions(&mut swarm) {
            let Action::Start { topic, .. } = action else { panic!("{action:?}") };
            assert!(seen.insert(topic));
            running.push_back(topic);
        }
        assert!(running.len() <= QUERIES_MAX);
        let Some(topic) = running.pop_front() else { break };
        swarm.query_ended(T0, topic, Ended { answers: 1 });
        assert!(swarm.poll_timeout().is_none_or(|at| at > T0 || swarm.running < QUERIES_MAX));
        swarm.handle_timeout(T0);
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn a_flush_waits_for_lookups_and_for_who_was_found() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::CLIENT);
    let flush = swarm.flush(T0);
    swarm.found(TOPIC, &[record(2), record(3)]);
    let is_flushed = |swarm: &mut Swarm| actions(swarm).contains(&Action::Flushed(flush));
    assert!(!is_flushed(&mut swarm));
    swarm.query_ended(T0, TOPIC, Ended { answers: 1 });
    assert!(!is_flushed(&mut swarm));
    swarm.opened(T0, &key(2));
    assert!(!is_flushed(&mut swarm));
    swarm.closed(T0, &key(3), false);
    assert!(is_flushed(&mut swarm));
    let again = swarm.flush(T0);
    assert!(actions(&mut swarm).contains(&Action::Flushed(again)), "nothing is left to wait for");
}

#[test]
fn leaving_takes_back_and_suspending_stops_everything() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::BOTH);
    swarm.set_listening(T0);
    actions(&mut swarm);
    swarm.query_ended(T0, TOPIC, Ended { answers: 1 });
    actions(&mut swarm);
    swarm.found(TOPIC, &[record(2)]);
    connects(&mut swarm);
    swarm.opened(T0, &key(2));
    swarm.leave(T0, &TOPIC);
    // The lookup that went first was followed by an announce, which is still on its way.
    let left = actions(&mut swarm);
    assert_eq!(left, [Action::Cancel { topic: TOPIC }]);
    swarm.query_ended(T0, TOPIC, Ended::default());
    assert_eq!(actions(&mut swarm), [Action::Start { topic: TOPIC, task: Task::Unannounce }]);
    swarm.query_ended(T0, TOPIC, Ended { answers: 1 });
    assert_eq!(swarm.topics().count(), 0);

    swarm.join(T0, TOPIC, Role::CLIENT);
    actions(&mut swarm);
    swarm.suspend();
    let stopped = actions(&mut swarm);
    assert!(
        stopped.contains(&Action::Cancel { topic: TOPIC }) && stopped.contains(&Action::Close { key: key(2) }),
        "{stopped:?}"
    );
    assert_eq!(swarm.poll_timeout(), None);
    assert!(!swarm.is_welcome(&key(3)));
    swarm.resume(T0);
    assert_eq!(actions(&mut swarm), [Action::Start { topic: TOPIC, task: Task::Lookup }]);
}

#[test]
fn a_topic_left_in_sleep_leaves_no_timer_behind() {
    let mut swarm = swarm(1);
    swarm.join(T0, TOPIC, Role::CLIENT);
    actions(&mut swarm);
    swarm.query_ended(T0, TOPIC, Ended { answers: 9 });
    let at = swarm.poll_timeout().expect("it looks again");
    swarm.suspend();
    swarm.leave(T0, &TOPIC);
    swarm.resume(T0);
    swarm.handle_timeout(at);
    assert_eq!(swarm.poll_timeout(), None);
}

#[test]
fn peers_known_before_a_sleep_do_not_fill_the_table() {
    let mut swarm = swarm(255);
    swarm.join(T0, TOPIC, Role::CLIENT);
    let record = |n: u32| {
        let mut public_key = [9; 32];
        public_key[..4].copy_from_slice(&n.to_le_bytes());
        PeerRecord { public_key, relays: Vec::new() }
    };
    for n in 0..peers::PEERS_MAX as u32 + 10 {
        swarm.found(TOPIC, &[record(n)]);
    }
    assert_eq!(swarm.known().0, peers::PEERS_MAX);
    swarm.suspend();
    actions(&mut swarm);
    assert_eq!(swarm.known().0, 0);
    swarm.resume(T0);
    actions(&mut swarm);
    swarm.found(TOPIC, &[record(1_000_000)]);
    assert_eq!(connects(&mut swarm), [record(1_000_000).public_key]);
}
