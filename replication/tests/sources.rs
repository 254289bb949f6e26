//! A hundred thousand sources, each of which says everything that can be said to a node: what that leaves in memory.
//!
//! What must stay true: after the second half of them there is no more of it than after the first. Alone in its binary, since it looks at the memory of the
//! whole process.

#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pgbee_replication::dht::connect::payload::{Initiation, Payload};
use pgbee_replication::dht::messages::{Handshake, Holepunch, Mode, command, target_of};
use pgbee_replication::dht::punch::Firewall;
use pgbee_replication::dht::rpc::RpcOptions;
use pgbee_replication::dht::rpc::message::{Message, Reply, Request, node_id};
use pgbee_replication::dht::{DhtOptions, DhtStats};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::swarm::{Endpoint, EndpointOptions, Role, SwarmOptions};
use pgbee_replication::udp::{Random, SocketId};
use pgbee_replication::udx;

const HALF: u32 = 50_000;

/// Kilobytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

struct Target {
    now: Duration,
    endpoint: Endpoint,
    address: SocketAddrV4,
    key: [u8; 32],
    noise: Vec<u8>,
    random: Random,
}

impl Target {
    fn new() -> Target {
        let address = SocketAddrV4::new(Ipv4Addr::new(20, 0, 0, 1), 49737);
        let identity = Identity::from_seed([1; 32]);
        let key = identity.public_key();
        let options = EndpointOptions {
            dht: DhtOptions { rpc: RpcOptions::bootstrapper(address), ..DhtOptions::default() },
            identity,
            swarm: SwarmOptions::default(),
            udx: udx::Config::default(),
            relay_through: None,
            is_relay: false,
        };
        let now = Duration::from_secs(1);
        let mut endpoint = Endpoint::new(now, options, [2; 32]);
        endpoint.join(now, [7; 32], Role::BOTH);
        let mut initiation = Initiation::new(&Identity::from_seed([3; 32]), key, [4; 32]);
        let noise = initiation.send(&Payload::new(0, Firewall::Unknown)).expect("a key");
        Target { now, endpoint, address, key, noise, random: Random::new([5; 32]) }
    }

    /// Hand a datagram in; the token of the reply to it, if there is one.
    fn hear(&mut self, from: SocketAddrV4, datagram: &[u8]) -> Option<[u8; 32]> {
        self.now += Duration::from_micros(20);
        self.endpoint.handle_datagram(self.now, SocketId::SERVER, from, datagram);
        let mut token = None;
        while let Some(transmit) = self.endpoint.poll_transmit(self.now) {
            if let Ok(Message::Reply(reply)) = Message::decode(&transmit.payload) {
                token = token.or(reply.token);
            }
        }
        while self.endpoint.poll_event().is_some() {}
        token
    }

    fn say(&mut self, from: SocketAddrV4, request: Request) -> Option<[u8; 32]> {
        self.hear(from, &request.encode())
    }

    /// Everything that one source can say.
    fn meet(&mut self, n: u32) {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x2000_0000 + n * 251), 1024 + (n % 50_000) as u16);
        let near = target_of(&self.key);
        let request = |internal, command, target, value| Request {
            tid: n as u16,
            to: SocketAddrV4::new(Ipv4Addr::new(20, 0, 0, 1), 49737),
            id: Some(node_id(from)),
            token: None,
            internal,
            command,
            target: Some(target),
            value,
        };
        let mut topic = [9; 32];
        topic[..4].copy_from_slice(&n.to_le_bytes());
        for command in 0..6 {
            self.say(from, request(true, command, topic, Some(vec![7; 6])));
        }
        let modes = [Mode::FromClient, Mode::FromRelay, Mode::FromSecondRelay, Mode::FromServer];
        let (peer_address, noise) =
            (Some(from), if n.is_multiple_of(4) { self.noise.clone() } else { vec![n as u8; 96] });
        let mode = modes[n as usize / 4 % 4];
        let handshake = Handshake { mode, noise, peer_address, relay_address: Some(from) }.encode();
        let holepunch = Holepunch { mode, id: u64::from(n % 99), payload: vec![1; 60], peer_address }.encode();
        let target = if n.is_multiple_of(2) { near } else { topic };
        self.say(from, request(false, command::PEER_HANDSHAKE, target, Some(handshake)));
        self.say(from, request(false, command::PEER_HOLEPUNCH, target, Some(holepunch)));
        let token = self.say(from, request(false, command::FIND_PEER, topic, None));
        for command in [command::LOOKUP, command::MUTABLE_GET, command::IMMUTABLE_GET, command::PLUGIN, 99] {
            self.say(from, request(false, command, topic, Some(vec![0])));
        }
        // Who got a token is there; and what it puts has the right hash.
        let value: Vec<u8> = self.random.bytes::<32>().repeat(8);
        let put = Request { token, ..request(false, command::IMMUTABLE_PUT, target_of(&value), Some(value)) };
        self.say(from, put);
        self.say(from, Request { token, ..request(false, command::ANNOUNCE, topic, Some(vec![0; 100])) });
        let reply = Reply {
            tid: n as u16,
            to: self.address,
            id: Some(node_id(from)),
            token: None,
            closer: vec![from; 20],
            error: 0,
            value: None,
        };
        self.hear(from, &reply.encode());
        self.hear(from, &[0]);
        let mut packet = self.random.bytes::<32>();
        (packet[0], packet[1]) = (0xff, 1);
        self.hear(from, &packet);
        if n.is_multiple_of(64) && self.endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
            self.endpoint.handle_timeout(self.now);
        }
    }

    fn stats(&mut self) -> DhtStats {
        self.endpoint.dht().stats()
    }
}

#[test]
fn a_crowd_of_sources_leaves_little_behind() {
    let mut target = Target::new();
    let before = resident();
    (0..HALF).for_each(|n| target.meet(n));
    let once = resident();
    (HALF..2 * HALF).for_each(|n| target.meet(n));
    let twice = resident();
    let stats = target.stats();
    println!("{before} kB, {once} kB, {twice} kB; {stats:?}");
    assert!(once - before < 96 << 10, "{} kB after fifty thousand", once - before);
    assert!(twice.saturating_sub(once) < 8 << 10, "{} kB after another fifty thousand", twice - once);
    assert!(stats.stored_bytes <= 64 << 20 && stats.rpc.nodes < 5000 && stats.rpc.requests_active < 200, "{stats:?}");
    assert!(stats.rpc.replies_sent > 1000, "and it was heard: {stats:?}");
}
