//! How large does a node get that everybody sends everything to?
//!
//! A process of its own (this program, called again) runs one node with one server. Tens of thousands of hosts, each in a /24 of its own so that nobody's share is
//! small, ask, announce, put, shake hands and punch, all within the lifetime of what they leave; the process reads its resident memory from the kernel.
//!
//! What must stay true: memory has a limit, which follows from the limits of tables and queues, and not from the number of hosts.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use pgbee_replication::dht::messages::{
    Announcement, Handshake, Holepunch, Mode, MutableValue, Place, Signed, command, target_of,
};
use pgbee_replication::dht::rpc::message::{Message, Request, node_id};
use pgbee_replication::dht::rpc::{Persistence, RpcOptions};
use pgbee_replication::dht::{ConnectOptions, Dht, DhtOptions, DhtStats, ServerOptions};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::udp::{Now, Random, SocketId, Transmit};

const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(20, 1, 1, 1), 49_737);
const SOURCES: &str = "FLOOD_SOURCES";
/// The tables have 84 MiB by their own count; allocation and the machine's queues add to that.
const MEMORY_MAX: usize = 160 << 20;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: usize = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("the second number");
    pages * 4096
}

/// Each in a network of its own.
fn source(n: usize) -> SocketAddrV4 {
    let n = n as u32;
    SocketAddrV4::new(Ipv4Addr::from((30 + (n >> 16)) << 24 | (n & 0xffff) << 8 | 7), 5000 + (n % 1000) as u16)
}

struct Flooded {
    dht: Dht,
    key: [u8; 32],
    now: Now,
    tid: u16,
}

impl Flooded {
    fn new() -> Flooded {
        let rpc = RpcOptions {
            persistence: Persistence::Forced,
            firewalled: false,
            server_port: NODE.port(),
            public_address: Some(NODE),
            ..RpcOptions::default()
        };
        let options = DhtOptions { rpc, local_addresses: vec![NODE], ..DhtOptions::default() };
        let mut dht = Dht::new(Duration::ZERO, options, Random::new([3; 32]));
        let identity = Identity::from_seed([9; 32]);
        let key = identity.public_key();
        dht.listen(Duration::ZERO, identity, ServerOptions::default());
        Flooded { dht, key, now: Duration::from_secs(1), tid: 0 }
    }

    /// A request from there; the token of the answer, if there was one.
    fn ask(
        &mut self,
        from: SocketAddrV4,
        command: u64,
        target: [u8; 32],
        token: Option<[u8; 32]>,
        value: Option<Vec<u8>>,
    ) -> Option<[u8; 32]> {
        self.tid = self.tid.wrapping_add(1);
        let request = Request {
            tid: self.tid,
            to: NODE,
            id: Some(node_id(from)),
            token,
            internal: false,
            command,
            target: Some(target),
            value,
        };
        self.dht.handle_datagram(self.now, SocketId::SERVER, from, &request.encode());
        let mut given = None;
        for transmit in self.drain() {
            if let Ok(Message::Reply(reply)) = Message::decode(&transmit.payload)
                && transmit.to == from
            {
                given = reply.token.or(given);
            }
        }
        given
    }

    fn drain(&mut self) -> Vec<Transmit> {
        if self.dht.poll_timeout().is_some_and(|at| at <= self.now) {
            self.dht.handle_timeout(self.now);
        }
        let mut sent = Vec::new();
        loop {
            while self.dht.poll_event().is_some() {}
            let Some(transmit) = self.dht.poll_transmit(self.now) else { return sent };
            sent.push(transmit);
        }
    }

    /// All that one host can do.
    fn harass(&mut self, n: usize, random: &mut Random, handshakes: &[Vec<u8>]) {
        let (from, topic) = (source(n), random.bytes::<32>());
        self.now += Duration::from_micros(500);
        if n.is_multiple_of(50) {
            let ids = (0..8).map(|at| (n * 8 + at) as u32).collect();
            self.dht.offer_stream_ids(ids);
        }
        let Some(token) = self.ask(from, command::LOOKUP, topic, None, None) else { return };
        let node = node_id(NODE);
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        let identity = Identity::from_seed(seed);
        let relays = [source(n + 1), source(n + 2), source(n + 3)];
        for target in [topic, target_of(&identity.public_key())] {
            let place = Place { target: &target, node: &node, token: &token };
            let announcement =
                Announcement { refresh: None, ..Announcement::signed(Signed::Announce, &place, &identity, &relays) };
            self.ask(from, command::ANNOUNCE, target, Some(token), Some(announcement.encode()));
        }
        let noise: Vec<u8> = (0..31).flat_map(|_| random.bytes::<32>()).collect();
        let value = MutableValue::sign(&identity, 1, noise.clone()).encode_put(&identity.public_key());
        self.ask(from, command::MUTABLE_PUT, target_of(&identity.public_key()), Some(token), Some(value));
        self.ask(from, command::IMMUTABLE_PUT, target_of(&noise), Some(token), Some(noise.clone()));
        let target = target_of(&self.key);
        let handshake = handshakes.get(n % handshakes.len().max(1)).cloned().unwrap_or_else(|| noise[..200].to_vec());
        let handshake = Handshake { mode: Mode::FromClient, noise: handshake, peer_address: None, relay_address: None };
        self.ask(from, command::PEER_HANDSHAKE, target, None, Some(handshake.encode()));
        let punch =
            Holepunch { mode: Mode::FromClient, id: n as u64 % 64, payload: noise[..300].to_vec(), peer_address: None };
        self.ask(from, command::PEER_HOLEPUNCH, target, None, Some(punch.encode()));
    }
}

/// First messages of real handshakes with that key.
fn handshakes(key: [u8; 32], count: u32) -> Vec<Vec<u8>> {
    let at = SocketAddrV4::new(Ipv4Addr::new(21, 1, 1, 1), 9);
    let rpc = RpcOptions { public_address: Some(at), server_port: 9, firewalled: false, ..RpcOptions::default() };
    let mut client = Dht::new(
        Duration::ZERO,
        DhtOptions { rpc, local_addresses: vec![at], ..DhtOptions::default() },
        Random::new([4; 32]),
    );
    let mut found = Vec::new();
    for n in 0..count {
        let now = Duration::from_secs(u64::from(n) + 1);
        let options =
            ConnectOptions { relay_addresses: vec![NODE], ..ConnectOptions::new(Identity::from_seed([7; 32])) };
        let connection = client.connect(now, key, options, n + 1);
        while let Some(transmit) = client.poll_transmit(now) {
            if let Ok(Message::Request(request)) = Message::decode(&transmit.payload)
                && (request.internal, request.command) == (false, command::PEER_HANDSHAKE)
                && let Some(handshake) = request.value.and_then(|value| Handshake::decode(&value).ok())
            {
                found.push(handshake.noise);
            }
        }
        client.abort(now, connection);
        while client.poll_event().is_some() {}
    }
    found
}

/// Runs in a process of its own, called by the test below; by itself it does nothing.
#[test]
#[ignore = "called by the others"]
fn a_flooded_node() {
    let Some(sources) = std::env::var(SOURCES).ok().and_then(|word| word.parse::<usize>().ok()) else { return };
    let mut flooded = Flooded::new();
    let mut random = Random::new([5; 32]);
    let handshakes = handshakes(flooded.key, 200);
    assert!(handshakes.len() >= 200, "the clients have shaken hands: {}", handshakes.len());
    let before = resident_bytes();
    let mut most = 0;
    for n in 0..sources {
        flooded.harass(n, &mut random, &handshakes);
        if n % 1000 == 999 {
            most = most.max(resident_bytes().saturating_sub(before));
            if n % (sources / 5) < 1000 {
                println!("after {} sources: {} MiB more", n + 1, most >> 20);
            }
        }
    }
    let DhtStats { rpc, records, stored_bytes, .. } = flooded.dht.stats();
    println!("kept {records} records, {} MiB by the tables' own count; {rpc:?}", stored_bytes >> 20);
    assert!(records > 0 && stored_bytes <= 84 << 20);
    assert!(rpc.requests_active <= 2048);
    println!("more-bytes {most}");
}

/// The most memory that a node took for so many sources.
fn flood(sources: usize) -> usize {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--ignored", "--exact", "memory::a_flooded_node", "--nocapture"])
        .env(SOURCES, sources.to_string())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let bytes = text.lines().find_map(|line| line.strip_prefix("more-bytes ")).and_then(|word| word.parse().ok());
    bytes.expect("it says how much")
}

#[test]
#[cfg(target_os = "linux")]
fn a_node_under_a_flood_stays_small() {
    let bytes = flood(5_000);
    assert!(bytes > 1 << 20 && bytes < MEMORY_MAX, "{bytes}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "takes a minute; run it by name, in release mode"]
fn a_node_under_a_flood_of_a_hundred_thousand_stays_small() {
    let (some, many) = (flood(50_000), flood(100_000));
    assert!(many < MEMORY_MAX, "{many}");
    assert!(many < some + (16 << 20), "{some} bytes for half of them, {many} for all");
}
