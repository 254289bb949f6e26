//! Hosts that are a mux each, links between them that lose, double, delay, narrow and cut, and bytes that flow over these: time is made up, one seed is one run.
//!
//! What must stay true: a link looks at sizes and addresses, never at what a datagram says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;
use std::time::Duration;

use super::super::*;
use crate::udp::{Now, Random, Transmit};

pub(super) const MS: Duration = Duration::from_millis(1);

/// What a link does to datagrams.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) loss: f64,
    pub(super) duplicates: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Bytes a second, and how long its queue gets.
    pub(super) bandwidth: f64,
    pub(super) queue: Duration,
    /// Largest IP packet.
    pub(super) mtu: usize,
}

impl Link {
    pub(super) fn good() -> Link {
        Link {
            loss: 0.0,
            duplicates: 0.0,
            delay: 10 * MS,
            jitter: Duration::ZERO,
            bandwidth: 20e6,
            queue: 100 * MS,
            mtu: 1500,
        }
    }
    pub(super) fn lossy(loss: f64) -> Link {
        Link { loss, delay: 50 * MS, ..Link::good() }
    }
    pub(super) fn bad() -> Link {
        Link { loss: 0.05, duplicates: 0.05, jitter: 5 * MS, ..Link::good() }
    }
}

/// Datagrams under way; what comes first sorts first.
pub(super) type Flight = Reverse<(Now, u64, SocketAddrV4, SocketAddrV4, Vec<u8>)>;

/// Hosts, each a mux, every one with sockets 0..: 10.0.0.HOST:SOCKET.
pub(super) struct World {
    pub(super) now: Now,
    pub(super) random: Random,
    pub(super) hosts: Vec<Mux>,
    pub(super) link: Link,
    /// Links to certain addresses, where they differ.
    pub(super) links: HashMap<SocketAddrV4, Link>,
    pub(super) cut: HashSet<SocketAddrV4>,
    pub(super) busy_until: HashMap<SocketAddrV4, Now>,
    pub(super) under_way: BinaryHeap<Flight>,
    pub(super) count: u64,
    /// Called datagrams that no stream took.
    pub(super) stray: u64,
    pub(super) largest: usize,
}

impl World {
    pub(super) fn new(seed: u8, link: Link) -> World {
        World::with(seed, link, Config::default(), 2)
    }
    pub(super) fn with(seed: u8, link: Link, config: Config, hosts: usize) -> World {
        let mut random = Random::new([seed; 32]);
        let hosts = (0..hosts).map(|_| Mux::new(config.clone(), random.fork())).collect();
        World {
            now: Duration::from_secs(1),
            random,
            hosts,
            link,
            links: HashMap::new(),
            cut: HashSet::new(),
            busy_until: HashMap::new(),
            under_way: BinaryHeap::new(),
            count: 0,
            stray: 0,
            largest: 0,
        }
    }
    pub(super) fn chance(&mut self, share: f64) -> bool {
        (self.random.below(1_000_000) as f64) < share * 1e6
    }
    pub(super) fn transmit(&mut self, from: SocketAddrV4, transmit: Transmit) {
        let segment = transmit.segment.unwrap_or(transmit.payload.len()).max(1);
        assert!(
            transmit.payload.len() <= 65_507 && transmit.payload.len().div_ceil(segment) <= 64,
            "a batch the kernel takes"
        );
        for datagram in transmit.payload.chunks(segment) {
            self.carry(from, transmit.to, datagram);
        }
    }
    pub(super) fn carry(&mut self, from: SocketAddrV4, to: SocketAddrV4, datagram: &[u8]) {
        let link = self.links.get(&to).unwrap_or(&self.link).clone();
        self.largest = self.largest.max(datagram.len());
        let busy = self.busy_until.entry(to).or_default();
        let begins = (*busy).max(self.now);
        let is_lost = begins - self.now > link.queue;
        if datagram.len() + 28 > link.mtu || is_lost || self.cut.contains(&to) {
            return;
        }
        *busy = begins + Duration::from_secs_f64((datagram.len() + 28) as f64 / link.bandwidth);
        let arrives = *busy + link.delay;
        if self.chance(link.loss) {
            return;
        }
        let copies = 1 + u64::from(self.chance(link.duplicates));
        for _ in 0..copies {
            let jitter = Duration::from_nanos(self.random.below(link.jitter.as_nanos() as u64));
            self.count += 1;
            self.under_way.push(Reverse((arrives + jitter, self.count, from, to, datagram.to_vec())));
        }
    }
    pub(super) fn flush(&mut self) {
        for host in 0..self.hosts.len() {
            while let Some(transmit) = self.hosts[host].poll_transmit(self.now) {
                self.transmit(address(host, transmit.socket), transmit);
            }
        }
    }
    /// On to the next thing that happens, but not past `until`. False: nothing more happens before it.
    pub(super) fn step(&mut self, until: Now) -> bool {
        self.flush();
        let timer = self.hosts.iter_mut().filter_map(Mux::poll_timeout).min();
        let arrival = self.under_way.peek().map(|flight| flight.0.0);
        let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        while self.under_way.peek().is_some_and(|flight| flight.0.0 <= self.now) {
            let Reverse((_, _, from, to, datagram)) = self.under_way.pop().expect("peeked");
            let (host, socket) = host_of(to);
            if !matches!(self.hosts[host].handle_datagram(self.now, socket, from, &datagram), Handled::Stream(_)) {
                self.stray += 1;
            }
        }
        for host in &mut self.hosts {
            host.handle_timeout(self.now);
        }
        true
    }
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }
    /// A stream between two hosts, over socket 0.
    pub(super) fn connect(&mut self, a: usize, b: usize) -> (u32, u32) {
        let (one, two) = (self.hosts[a].open(), self.hosts[b].open());
        self.hosts[a].connect(self.now, one, path(0, b, 0, two));
        self.hosts[b].connect(self.now, two, path(0, a, 0, one));
        (one, two)
    }
    pub(super) fn stream(&mut self, host: usize, id: u32) -> &mut Stream {
        self.hosts[host].stream(id).expect("a stream")
    }
    pub(super) fn events(&mut self, host: usize) -> Vec<StreamEvent> {
        std::iter::from_fn(|| self.hosts[host].poll_event()).map(|(_, event)| event).collect()
    }
}

pub(super) fn address(host: usize, socket: SocketId) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host as u8), 1000 + socket.0 as u16)
}

pub(super) fn host_of(address: SocketAddrV4) -> (usize, SocketId) {
    (usize::from(address.ip().octets()[3]), SocketId(u32::from(address.port()) - 1000))
}

pub(super) fn path(socket: u32, host: usize, remote_socket: u32, remote_id: u32) -> Path {
    Path { socket: SocketId(socket), remote: address(host, SocketId(remote_socket)), remote_id }
}

/// Every test's data repeats after so many bytes, a prime.
pub(super) const PERIOD: usize = 65_537;

/// `len` bytes of every test's data, from an offset.
pub(super) fn pattern(offset: usize, len: usize) -> &'static [u8] {
    static TWICE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..2 * PERIOD).map(|at| ((at % PERIOD) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[6]).collect()
    });
    &TWICE[offset % PERIOD..][..len]
}

/// One direction of a transfer: writes the pattern, and checks it where it comes out.
pub(super) struct Flow {
    pub(super) from: (usize, u32),
    pub(super) to: (usize, u32),
    pub(super) total: usize,
    pub(super) written: usize,
    pub(super) read: usize,
    /// Whether the reader reads.
    pub(super) is_read: bool,
}

impl Flow {
    pub(super) fn new(from: (usize, u32), to: (usize, u32), total: usize) -> Flow {
        Flow { from, to, total, written: 0, read: 0, is_read: true }
    }
    pub(super) fn go(&mut self, world: &mut World) {
        while self.written < self.total {
            let piece = pattern(self.written, (self.total - self.written).min(60_000));
            let stream = world.stream(self.from.0, self.from.1);
            let count = stream.write(piece);
            self.written += count;
            if self.written == self.total {
                stream.end();
            }
            if count < piece.len() {
                break;
            }
        }
        while let Some(bytes) = self.is_read.then(|| world.stream(self.to.0, self.to.1).read(30_000)).flatten() {
            assert!(bytes == pattern(self.read, bytes.len()), "after {}", self.read);
            self.read += bytes.len();
        }
    }
    pub(super) fn is_done(&self, world: &mut World) -> bool {
        self.read == self.total && world.stream(self.to.0, self.to.1).is_read_to_end()
    }
}

/// Runs flows to their ends; how long it took.
pub(super) fn run(world: &mut World, flows: &mut [Flow], limit: Duration) -> Duration {
    let began = world.now;
    loop {
        flows.iter_mut().for_each(|flow| flow.go(world));
        if flows.iter().all(|flow| flow.is_done(world)) {
            return world.now - began;
        }
        let progress: Vec<_> = flows.iter().map(|flow| (flow.written, flow.read)).collect();
        assert!(world.step(began + limit), "not done in time: {progress:?}");
    }
}

/// A transfer over a link, there and nothing back; megabytes a second.
pub(super) fn rate(seed: u8, link: Link, total: usize) -> f64 {
    let mut world = World::new(seed, link);
    let (a, b) = world.connect(0, 1);
    let took = run(&mut world, &mut [Flow::new((0, a), (1, b), total)], Duration::from_secs(600));
    total as f64 / took.as_secs_f64() / 1e6
}
