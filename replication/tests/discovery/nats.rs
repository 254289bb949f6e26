//! Every pair of NATs.

use pgbee_replication::dht::Via;
use pgbee_replication::swarm::Role;
use pgbee_replication::transport::simulated_udp::{Conditions, HostId, Nat, Ports, Realm};

use crate::world::{Key, PartyOptions, World, secs};

/// What stands before a host.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    One(Nat),
}

const OPEN: Before = Before::Nothing;
const FULL_CONE: Before = Before::One(Nat::FULL_CONE);
const RESTRICTED: Before = Before::One(Nat::RESTRICTED);
const PORT_RESTRICTED: Before = Before::One(Nat::PORT_RESTRICTED);
/// One port for all, but not the one inside.
const REMAPPED: Before = Before::One(Nat { ports: Ports::Sequential, ..Nat::PORT_RESTRICTED });
const SYMMETRIC: Before = Before::One(Nat::SYMMETRIC);

fn world(seed: u8) -> World {
    World::new(seed, Conditions::default(), 12)
}

fn realm(world: &mut World, before: Before) -> Realm {
    match before {
        Before::Nothing => Realm::INTERNET,
        Before::One(nat) => world.net.add_nat(Realm::INTERNET, nat),
    }
}

/// A server behind one NAT, a client behind another; whether they talked within the time, and how.
fn meet(
    world: &mut World,
    server: Before,
    client: Before,
    options: &PartyOptions,
    time: u64,
) -> (bool, Option<Via>, [HostId; 2]) {
    let (at_server, at_client) = (realm(world, server), realm(world, client));
    let server = world.add_party(at_server, options.clone());
    let client = world.add_party(at_client, options.clone());
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(15));
    world.join(client.0, Role::CLIENT);
    let has_met = world.wait_for_talk(server, client, secs(time));
    let via = world.party(client.0, |party, _| party.via(&server.1));
    world.assert_sound();
    (has_met, via, [server.0, client.0])
}

fn meets(seed: u8, server: Before, client: Before) {
    let mut world = world(seed);
    let (has_met, via, hosts) = meet(&mut world, server, client, &PartyOptions::default(), 90);
    assert!(has_met, "{server:?} and {client:?}: {:?}", world.notes(&hosts));
    let is_open = server == OPEN || client == OPEN;
    assert!(
        if is_open { via == Some(Via::Direct) } else { matches!(via, Some(Via::Punched | Via::Direct)) },
        "{server:?} and {client:?}: {via:?}"
    );
}

#[test]
fn whoever_is_open_is_reached_by_everyone() {
    for (seed, other) in [OPEN, FULL_CONE, RESTRICTED, PORT_RESTRICTED, REMAPPED, SYMMETRIC].into_iter().enumerate() {
        meets(seed as u8, OPEN, other);
        meets(seed as u8 + 100, other, OPEN);
    }
}

#[test]
fn nats_that_show_everyone_the_same_port_are_punched_through() {
    let kinds = [FULL_CONE, RESTRICTED, PORT_RESTRICTED, REMAPPED];
    for (at, server) in kinds.into_iter().enumerate() {
        for client in &kinds[at..] {
            meets(20 + at as u8, server, *client);
        }
    }
    meets(30, PORT_RESTRICTED, FULL_CONE);
    meets(31, REMAPPED, RESTRICTED);
}

#[test]
fn a_nat_with_random_ports_meets_one_without() {
    for (at, other) in [FULL_CONE, RESTRICTED, PORT_RESTRICTED].into_iter().enumerate() {
        meets(40 + at as u8, SYMMETRIC, other);
        meets(50 + at as u8, other, SYMMETRIC);
    }
}

/// A relay, and the key it is asked for by.
fn relay(world: &mut World) -> Key {
    let (_, key) = world.add_party(Realm::INTERNET, PartyOptions { is_relay: true, ..PartyOptions::default() });
    world.net.run_for(secs(15));
    key
}

#[test]
fn two_nats_with_random_ports_need_a_relay() {
    let mut world = world(60);
    let (has_met, _, hosts) = meet(&mut world, SYMMETRIC, SYMMETRIC, &PartyOptions::default(), 60);
    assert!(!has_met);
    let notes = world.notes(&hosts);
    assert!(notes.iter().any(|note| note.contains("random ports")), "a person is told why: {notes:?}");

    let relay = relay(&mut world);
    let options = PartyOptions { relay_through: Some(relay), ..PartyOptions::default() };
    let (has_met, via, hosts) = meet(&mut world, SYMMETRIC, SYMMETRIC, &options, 60);
    assert!(has_met, "{:?}", world.notes(&hosts));
    assert_eq!(via, Some(Via::Relayed));
}

#[test]
fn a_relayed_stream_moves_to_the_direct_way() {
    let mut world = world(61);
    let relay = relay(&mut world);
    // Much to say, so that the talk is in full swing when the stream moves.
    let options = PartyOptions { relay_through: Some(relay), bytes: 2_000_000, ..PartyOptions::default() };
    let (has_met, via, hosts) = meet(&mut world, PORT_RESTRICTED, SYMMETRIC, &options, 120);
    assert!(has_met, "{:?}", world.notes(&hosts));
    let is_moved = world.net.run_until(secs(90), |net| {
        hosts.iter().all(
            |host| matches!(net.machine(*host), Some(crate::world::Machine::Party(party)) if party.totals().moved == 1),
        )
    });
    assert!(is_moved, "{via:?} {:?}", world.notes(&hosts));
    world.assert_sound();
    let (met, closed) = world.look(hosts[1], |party| (party.met.clone(), party.closed));
    assert_eq!((met.len(), met[0].2, closed), (1, Via::Relayed, 0), "one connection, from the relay to the direct way");
}

#[test]
fn peers_in_one_lan_meet_there() {
    let mut world = world(62);
    let lan = world.net.add_nat(Realm::INTERNET, Nat::SYMMETRIC);
    let (server, client) =
        (world.add_party(lan, PartyOptions::default()), world.add_party(lan, PartyOptions::default()));
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(15));
    world.join(client.0, Role::CLIENT);
    assert!(world.wait_for_talk(server, client, secs(60)), "{:?}", world.notes(&[server.0, client.0]));
    assert_eq!(world.party(client.0, |party, _| party.via(&server.1)), Some(Via::Lan));
    world.assert_sound();
}

#[test]
fn lans_with_the_same_private_addresses_are_not_mixed_up() {
    // Two homes behind one carrier's NAT: one public address, and 192.168.1.2 is another host in each.
    for hairpin in [true, false] {
        let mut world = world(63);
        let relay = relay(&mut world);
        let carrier = world.net.add_nat(Realm::INTERNET, Nat { hairpin, ..Nat::PORT_RESTRICTED });
        let homes =
            [world.net.add_nat(carrier, Nat::PORT_RESTRICTED), world.net.add_nat(carrier, Nat::PORT_RESTRICTED)];
        let options = PartyOptions { relay_through: Some(relay), ..PartyOptions::default() };
        let (server, client) = (world.add_party(homes[0], options.clone()), world.add_party(homes[1], options));
        world.join(server.0, Role::SERVER);
        world.net.run_for(secs(15));
        world.join(client.0, Role::CLIENT);
        let has_met = world.wait_for_talk(server, client, secs(90));
        let status = [server.0, client.0].map(|host| world.party(host, |party, _| party.endpoint.status()));
        assert!(has_met, "hairpin {hairpin}: {status:?}");
        world.assert_sound();
    }
}

#[test]
fn both_servers_and_clients_at_once_keep_one_connection() {
    let mut world = world(64);
    let lans: Vec<Realm> = (0..6).map(|_| world.net.add_nat(Realm::INTERNET, Nat::PORT_RESTRICTED)).collect();
    let parties: Vec<_> = lans.into_iter().map(|lan| world.add_party(lan, PartyOptions::default())).collect();
    for party in &parties {
        world.join(party.0, Role::BOTH);
    }
    world.net.run_for(secs(120));
    world.assert_sound();
    for (host, own) in &parties {
        let mut keys: Vec<Key> = world.look(*host, |party| party.talks.values().map(|talk| talk.key).collect());
        keys.sort();
        let mut others: Vec<Key> = parties.iter().map(|(_, key)| *key).filter(|key| key != own).collect();
        others.sort();
        assert_eq!(keys, others, "one connection to each: {:?}", world.notes(&[*host]));
    }
}

#[test]
fn a_seed_fixes_everything() {
    let story = || {
        let mut world = world(65);
        let relay = relay(&mut world);
        let options = PartyOptions { relay_through: Some(relay), ..PartyOptions::default() };
        let (_, via, hosts) = meet(&mut world, SYMMETRIC, PORT_RESTRICTED, &options, 60);
        let met = hosts.map(|host| world.look(host, |party| party.met.clone()));
        (world.net.now(), world.net.counts(), via, met)
    };
    assert_eq!(story(), story());
}
