//! Loss, duplicates, reordering, small packets; networks that part, and hosts that move.

use pgbee_replication::dht::messages::target_of;
use pgbee_replication::swarm::Role;
use pgbee_replication::transport::simulated_udp::{Conditions, Nat, Realm};

use crate::world::{Key, PartyOptions, World, secs};
use pgbee_replication::transport::simulated_udp::HostId;

const STORM: Conditions = Conditions {
    delay: (std::time::Duration::from_millis(10), std::time::Duration::from_millis(60)),
    jitter: std::time::Duration::from_millis(20),
    losses_per_million: 50_000,
    duplicates_per_million: 20_000,
    reorders_per_million: 50_000,
    mtu: 1280,
    hops: 8,
};

/// A server and a client behind NATs of one kind, connected.
fn pair(world: &mut World, nat: Nat, bytes: usize) -> [(HostId, Key); 2] {
    let options = PartyOptions { bytes, ..PartyOptions::default() };
    let realms = [world.net.add_nat(Realm::INTERNET, nat), world.net.add_nat(Realm::INTERNET, nat)];
    let pair = realms.map(|realm| world.add_party(realm, options.clone()));
    world.join(pair[0].0, Role::SERVER);
    world.net.run_for(secs(20));
    world.join(pair[1].0, Role::CLIENT);
    assert!(world.wait_for_talk(pair[0], pair[1], secs(180)), "{:?}", world.notes(&[pair[0].0, pair[1].0]));
    pair
}

#[test]
fn a_storm_changes_no_byte() {
    let mut world = World::new(70, STORM, 12);
    let nats = [Nat::FULL_CONE, Nat::PORT_RESTRICTED];
    for nat in nats {
        pair(&mut world, nat, 300_000);
    }
    world.assert_sound();
    let counts = world.net.counts();
    assert!(counts.lost > 50 && counts.too_large > 0, "the path's MTU was searched for: {counts:?}");
}

#[test]
fn networks_that_part_find_together_again() {
    let mut world = World::new(71, Conditions::default(), 12);
    let [server, client] = pair(&mut world, Nat::PORT_RESTRICTED, 10_000);
    world.net.set_group(client.0, 1);
    // Nobody has anything to say, so nobody notices: the application's keep-alive is what notices. Here, each side says something.
    for host in [server.0, client.0] {
        world.party(host, |party, _| {
            let streams: Vec<u32> = party.talks.keys().copied().collect();
            for stream in streams {
                party.endpoint.mux().stream(stream).map(|stream| stream.write(b"?"));
            }
        });
    }
    world.net.run_for(secs(60));
    assert_eq!(world.look(client.0, |party| party.talks.len()), 0, "the stream has ended");
    world.party(client.0, |party, _| party.heard_all.clear());
    world.party(server.0, |party, _| party.heard_all.clear());
    world.net.set_group(client.0, 0);
    assert!(world.wait_for_talk(server, client, secs(900)), "{:?}", world.notes(&[server.0, client.0]));
}

#[test]
fn a_host_that_moves_is_found_at_its_new_place() {
    let mut world = World::new(72, Conditions::default(), 12);
    let [server, client] = pair(&mut world, Nat::PORT_RESTRICTED, 10_000);
    let elsewhere = world.net.add_nat(Realm::INTERNET, Nat::RESTRICTED);
    world.net.move_host(server.0, elsewhere);
    let address = world.net.server_address(server.0);
    for host in [server, client] {
        world.party(host.0, |party, now| {
            party.heard_all.clear();
            if party.name == server.1 {
                party.endpoint.network_changed(now, &[address]);
            }
            let streams: Vec<u32> = party.talks.keys().copied().collect();
            for stream in streams {
                party.endpoint.disconnect(now, stream);
            }
        });
    }
    assert!(world.wait_for_talk(server, client, secs(120)), "{:?}", world.notes(&[server.0, client.0]));
    world.assert_sound();
}

#[test]
fn sleeping_and_waking_and_leaving() {
    let mut world = World::new(73, Conditions::default(), 12);
    let [server, client] = pair(&mut world, Nat::FULL_CONE, 10_000);
    world.party(client.0, |party, now| party.endpoint.suspend(now));
    world.net.run_for(secs(30));
    assert_eq!(world.look(server.0, |party| party.talks.len()), 0);
    let sent = world.net.host_counts(client.0).sent;
    world.net.run_for(secs(600));
    assert_eq!(world.net.host_counts(client.0).sent, sent, "asleep");
    world.party(client.0, |party, now| {
        party.heard_all.clear();
        party.endpoint.resume(now);
    });
    assert!(world.wait_for_talk(server, client, secs(60)), "{:?}", world.notes(&[server.0, client.0]));
    // Who left a topic is not found there any more.
    world.party(server.0, |party, now| party.endpoint.leave(now, crate::world::TOPIC));
    world.net.run_for(secs(30));
    let late = world.add_party(Realm::INTERNET, PartyOptions::default());
    let flush = world.party(late.0, |party, now| {
        party.endpoint.join(now, crate::world::TOPIC, Role::CLIENT);
        party.endpoint.flush(now)
    });
    world.net.run_for(secs(60));
    world.look(late.0, |party| {
        assert!(party.met.is_empty() && party.flushed == [flush], "{:?} {:?}", party.met, party.notes)
    });
    world.assert_sound();
}

#[test]
fn who_stops_is_forgotten_at_once_and_who_comes_back_lets_others_in() {
    let mut world = World::new(74, Conditions::default(), 12);
    let [server, client] = pair(&mut world, Nat::FULL_CONE, 10_000);
    let target = target_of(&server.1);
    let kept = |world: &mut World| -> (usize, usize) {
        let nodes = world.nodes.clone();
        let kept = nodes
            .iter()
            .map(|host| world.node(*host, |node, now| (node.dht.stats().records, node.dht.has_route(now, &target))));
        kept.fold((0, 0), |(records, routes), (kept, has_route)| (records + kept, routes + usize::from(has_route)))
    };
    let (records, routes) = kept(&mut world);
    assert!(records > 0 && routes == 3, "{records} records, {routes} routes");
    world.party(server.0, |party, now| party.endpoint.suspend(now));
    world.net.run_for(secs(2));
    assert!(world.look(server.0, |party| party.endpoint.is_quiet()));
    assert_eq!(kept(&mut world), (0, 0), "within two seconds nobody is sent to a peer that is not there");
    world.party(client.0, |party, _| party.heard_all.clear());
    world.party(server.0, |party, now| {
        party.heard_all.clear();
        party.endpoint.resume(now);
    });
    // It never connects to anybody itself.
    assert!(world.wait_for_talk(server, client, secs(900)), "{:?}", world.notes(&[server.0, client.0]));
    world.assert_sound();
}

#[test]
fn nodes_that_come_back_are_found_soon() {
    let mut world = World::new(75, Conditions::default(), 4);
    let addresses: Vec<HostId> = world.nodes.clone();
    for host in &addresses {
        world.net.take_down(*host);
    }
    let server = world.add_party(Realm::INTERNET, PartyOptions::default());
    let client = world.add_party(Realm::INTERNET, PartyOptions::default());
    world.join(server.0, Role::SERVER);
    world.join(client.0, Role::CLIENT);
    world.net.run_for(secs(100));
    for host in &addresses {
        world.revive_node(*host);
    }
    assert!(world.wait_for_talk(server, client, secs(120)), "{:?}", world.notes(&[server.0, client.0]));
    // And what was to be found out at the start is found out now.
    world.net.run_for(secs(60));
    for party in [server, client] {
        assert_eq!(world.party(party.0, |party, _| party.endpoint.status().nat), "open");
    }
}
