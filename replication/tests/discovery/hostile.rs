//! Strangers who do what they can: nothing panics, nothing grows without limit, and nobody is taken for somebody else.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pgbee_replication::dht::PeerRecord;
use pgbee_replication::dht::messages::{Handshake, LookupReply, Mode, command};
use pgbee_replication::dht::rpc::message::{Message, Reply, node_id};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::swarm::Role;
use pgbee_replication::transport::simulated;
use pgbee_replication::transport::simulated_udp::{self, Conditions, Nat, Realm};
use pgbee_replication::udp::{Now, SocketId, Transmit};

use crate::world::{Key, Machine, PartyOptions, TOPIC, World, secs};

/// Flips, cuts or lengthens.
fn mutate(random: &mut simulated::Random, bytes: &mut Vec<u8>) {
    match random.below(4) {
        0 if !bytes.is_empty() => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => bytes.extend_from_slice(&random.bytes::<16>()),
        _ if !bytes.is_empty() => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        _ => {}
    }
}

#[test]
fn mutated_datagrams_between_all() {
    let mut world = World::new(90, Conditions::default(), 12);
    let lan = world.net.add_nat(Realm::INTERNET, Nat::PORT_RESTRICTED);
    let server = world.add_party(Realm::INTERNET, PartyOptions::default());
    let client = world.add_party(lan, PartyOptions::default());
    world.net.run_for(secs(10));
    // Streams are left as they are: UDX has no checksum of its own, and a changed byte rightly ends the secret stream. A copy of each is mutated on top.
    world.net.set_tap(Some(Box::new(|random, _, _, bytes| {
        let is_stream = bytes.len() >= 20 && bytes[..2] == [0xff, 1];
        if !is_stream && random.below(5) == 0 {
            mutate(random, bytes);
        }
        true
    })));
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(20));
    world.join(client.0, Role::CLIENT);
    assert!(world.wait_for_talk(server, client, secs(300)), "{:?}", world.notes(&[server.0, client.0]));
    world.assert_sound();
}

#[test]
fn mutated_packets_of_streams_end_streams_at_worst() {
    let mut world = World::new(91, Conditions::default(), 12);
    let parties = [
        world.add_party(Realm::INTERNET, PartyOptions::default()),
        world.add_party(Realm::INTERNET, PartyOptions::default()),
    ];
    world.net.set_tap(Some(Box::new(|random, _, _, bytes| {
        if random.below(10) == 0 {
            mutate(random, bytes);
        }
        true
    })));
    for party in parties {
        world.join(party.0, Role::BOTH);
    }
    world.net.run_for(secs(240));
    // Whatever broke, nobody heard what was not said: the secret stream refuses it. Breaking is the only fault.
    for (host, _) in parties {
        world.look(host, |party| {
            assert!(party.faults.iter().all(|fault| fault.starts_with("the stream broke")), "{:?}", party.faults);
            assert!(!party.met.is_empty());
        });
    }
}

/// Datagrams that look like something, from everywhere.
fn flood(world: &mut World, to: SocketAddrV4, count: u32) {
    let mut random = simulated::Random::new(7);
    for n in 0..count {
        let from = SocketAddrV4::new(
            Ipv4Addr::from(0x0600_0000 + random.below(1 << 20) as u32),
            1024 + random.below(60_000) as u16,
        );
        let mut bytes = random.bytes::<64>().to_vec();
        match n % 4 {
            0 => bytes[0] = 0x03,
            1 => bytes[0] = 0x13,
            2 => (bytes[0], bytes[1]) = (0xff, 1),
            _ => bytes.truncate(1),
        }
        if n % 8 == 0 {
            // A well-formed FIND_NODE or command.
            (bytes[1], bytes[10]) = (4 | 8, random.below(12) as u8);
            bytes.truncate(43);
        }
        world.net.inject(from, to, bytes);
        if n % 200 == 0 {
            world.net.run_for(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_flood_from_everywhere_is_survived_and_answered_sparingly() {
    let mut world = World::new(92, Conditions::default(), 12);
    let server = world.add_party(Realm::INTERNET, PartyOptions::default());
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(20));
    let to = world.net.server_address(server.0);
    let before = world.net.host_counts(server.0);
    const FLOOD: u32 = 40_000;
    flood(&mut world, to, FLOOD);
    let after = world.net.host_counts(server.0);
    let (sent, got) = (after.sent_bytes - before.sent_bytes, u64::from(FLOOD) * 50);
    assert!(sent < got * 2, "{sent} bytes answered to {got}");
    let nodes = world.party(server.0, |party, _| party.endpoint.status().nodes);
    assert!(nodes < 2000, "{nodes} nodes from nowhere");
    let client = world.add_party(Realm::INTERNET, PartyOptions::default());
    world.join(client.0, Role::CLIENT);
    assert!(world.wait_for_talk(server, client, secs(60)), "{:?}", world.notes(&[server.0, client.0]));
    world.assert_sound();
}

/// A node that says it knows the way to everyone, and everyone is somebody it made up, or the victim.
struct Liar {
    /// Whose key it answers for without having it.
    victim: Key,
    friends: Vec<SocketAddrV4>,
    out: Vec<Transmit>,
    handshakes: usize,
}

impl simulated_udp::Machine for Liar {
    fn handle_datagram(&mut self, _: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        let Ok(Message::Request(request)) = Message::decode(datagram) else { return };
        let id = Some(node_id(request.to));
        let made_up =
            |n: u8| PeerRecord { public_key: Identity::from_seed([n; 32]).public_key(), relays: vec![request.to] };
        let value = match (request.internal, request.command) {
            (false, command::LOOKUP) => {
                let mut records: Vec<Vec<u8>> = (0..10).map(|n| made_up(n).encode()).collect();
                records.push(PeerRecord { public_key: self.victim, relays: vec![request.to] }.encode());
                Some(LookupReply::encode(&records, 0))
            }
            (false, command::FIND_PEER) => {
                Some(PeerRecord { public_key: self.victim, relays: vec![request.to] }.encode())
            }
            (false, command::PEER_HANDSHAKE) => {
                // An answer that looks like the victim's, and is not: the same bytes back, or noise.
                self.handshakes += 1;
                let noise = request
                    .value
                    .as_deref()
                    .and_then(|value| Handshake::decode(value).ok())
                    .map(|handshake| handshake.noise)
                    .unwrap_or_default();
                let mut answer = noise;
                answer.truncate(200);
                if let Some(byte) = answer.first_mut() {
                    *byte ^= (self.handshakes % 2) as u8;
                }
                let reply =
                    Handshake { mode: Mode::Reply, noise: answer, peer_address: Some(from), relay_address: None };
                Some(reply.encode())
            }
            _ => None,
        };
        let reply = Reply {
            tid: request.tid,
            to: from,
            id,
            token: Some([1; 32]),
            closer: self.friends.clone(),
            error: 0,
            value,
        };
        self.out.push(Transmit::new(socket, from, reply.encode()));
    }
    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        self.out.pop()
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        None
    }
    fn handle_timeout(&mut self, _: Now) {}
}

#[test]
fn liars_near_a_topic_cost_time_and_nothing_else() {
    let mut world = World::new(93, Conditions::default(), 40);
    let lan = world.net.add_nat(Realm::INTERNET, Nat::PORT_RESTRICTED);
    let server = world.add_party(lan, PartyOptions::default());
    // Ids follow from addresses, so who wants to be near a topic must take the addresses that are. These few were so lucky: of 400 addresses the 12 nearest
    // lie.
    let mut near: Vec<_> =
        (0..400).map(|_| world.net.add_host(Realm::INTERNET, |_, _| Machine::Other(Box::new(Idle)))).collect();
    let distance = |world: &World, host| {
        let id = node_id(world.net.server_address(host));
        let mut apart = [0; 32];
        for (at, byte) in apart.iter_mut().enumerate() {
            *byte = id[at] ^ TOPIC[at];
        }
        apart
    };
    near.sort_by_key(|host| distance(&world, *host));
    near.truncate(12);
    let friends: Vec<SocketAddrV4> = near.iter().map(|host| world.net.server_address(*host)).collect();
    for host in &near {
        let liar = Liar { victim: server.1, friends: friends.clone(), out: Vec::new(), handshakes: 0 };
        world.net.bring_up(*host, |_, _| Machine::Other(Box::new(liar)));
    }
    // They make themselves known to everyone.
    for (n, node) in world.nodes.clone().into_iter().enumerate() {
        for (m, friend) in friends.iter().enumerate() {
            let to = world.net.server_address(node);
            let request = pgbee_replication::dht::rpc::message::Request {
                tid: (n * 12 + m) as u16,
                to,
                id: Some(node_id(*friend)),
                token: None,
                internal: true,
                command: 2,
                target: Some(TOPIC),
                value: None,
            };
            world.net.inject(*friend, to, request.encode());
        }
    }
    world.net.run_for(secs(5));
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(20));
    let client = world.add_party(Realm::INTERNET, PartyOptions::default());
    world.net.run_for(secs(5));
    world.join(client.0, Role::CLIENT);
    assert!(world.wait_for_talk(server, client, secs(240)), "{:?}", world.notes(&[server.0, client.0]));
    world.assert_sound();
    let met = world.look(client.0, |party| party.met.clone());
    assert!(met.iter().all(|(_, key, _)| *key == server.1), "nobody else was there: {met:?}");
}

/// Holds an address and says nothing.
struct Idle;

impl simulated_udp::Machine for Idle {
    fn handle_datagram(&mut self, _: Now, _: SocketId, _: SocketAddrV4, _: &[u8]) {}
    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        None
    }
    fn handle_timeout(&mut self, _: Now) {}
}

#[test]
fn a_spoofed_source_moves_no_stream() {
    let mut world = World::new(94, Conditions::default(), 12);
    let [server, client] = [
        world.add_party(Realm::INTERNET, PartyOptions::default()),
        world.add_party(Realm::INTERNET, PartyOptions::default()),
    ];
    world.join(server.0, Role::SERVER);
    world.net.run_for(secs(20));
    world.join(client.0, Role::CLIENT);
    assert!(world.wait_for_talk(server, client, secs(60)));
    // Someone who sees all packets sends each again from its own address, with other flags.
    let thief = SocketAddrV4::new(Ipv4Addr::new(6, 6, 6, 6), 666);
    let streams: Vec<u32> = world.look(server.0, |party| party.talks.keys().copied().collect());
    for to in [world.net.server_address(server.0)] {
        for stream in &streams {
            for flags in 0..64u8 {
                let mut packet = vec![0xff, 1, flags, 0];
                packet.extend_from_slice(&stream.to_le_bytes());
                packet.extend_from_slice(&[0xff; 12]);
                packet.extend_from_slice(b"stolen");
                if flags & 16 == 0 {
                    world.net.inject(thief, to, packet);
                }
            }
        }
    }
    world.net.run_for(secs(30));
    for (host, other) in [(server, client), (client, server)] {
        let status = world.party(host.0, |party, _| party.endpoint.status());
        assert!(
            status
                .connections
                .iter()
                .all(|connection| connection.key == other.1 && connection.remote.ip() != thief.ip()),
            "{status:?}"
        );
        assert_eq!(status.connections.len(), 1);
    }
    world.assert_sound();
}
