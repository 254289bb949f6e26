//! A made-up UDP network: hosts, NATs of every kind between them, loss, delay and churn, everything from one seed. [`SimulatedUdp`].
//!
//! ```text
//!                        the internet (Realm::INTERNET)
//!      host 20.0.0.1         |              |              |
//!                        NAT 21.0.7.1   NAT 22.0.14.1  NAT 23.0.21.1           a NAT's inside is a realm of its own,
//!                         |       |         |              |                 in which hosts and further NATs stand
//!                       host    host      host         NAT 192.168.1.2
//!                  192.168.1.2  .1.3   192.168.1.2         |
//!                                                        host 192.168.1.2
//! ```
//!
//! A datagram climbs out through NATs when it is sent, waits, and goes down through NATs when it arrives: what a NAT lets in is decided by what it has let out
//! until then, as in a real one. Each NAT takes one hop, the internet takes [`Conditions::hops`]; what runs out of hops is gone, but the mappings it opened stay.
//!
//! Any machine of this crate's kind runs on a host ([`Machine`]); machines are moved by datagrams and by their own timeouts, in the order of made-up time.
//!
//! What must stay true: the same seed and the same calls give the same network to the last byte; nothing here keeps what a host sent after it was delivered; a
//! machine whose timeout stays in the past is a bug and stops the test.

mod nat;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

pub use nat::{Dependence, Nat, Ports};

use super::simulated::Random;
use crate::udp::{Now, SocketChange, SocketId, Transmit};
use nat::NatState;

/// IP and UDP headers.
const HEADERS_BYTES: usize = 28;
/// Time a datagram takes where it does not leave a LAN.
const LAN_DELAY: Duration = Duration::from_micros(300);
/// Hops of a datagram that says nothing of them.
const TTL: u8 = 64;
/// No chain of NATs is longer.
const NATS_MAX: usize = 8;
/// A machine that wants to be called so often without any time passing never ends.
const SPINS_MAX: u32 = 10_000;
/// Where servers listen, if the host has no other machine there.
const SERVER_PORT: u16 = 49_737;
/// Ports that sockets and mappings are given from here on.
const FREE_PORTS: u16 = 10_000;

/// What runs on a host.
pub trait Machine {
    /// A datagram came in.
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]);
    /// The next thing to send.
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit>;
    /// When to call [`Machine::handle_timeout`].
    fn poll_timeout(&mut self) -> Option<Now>;
    /// Time came.
    fn handle_timeout(&mut self, now: Now);
    /// The next socket to open or close. Asked before each transmit: the place to look at the machine's other events too.
    fn poll_socket_change(&mut self, now: Now) -> Option<SocketChange> {
        let _ = now;
        None
    }
}

/// A place where addresses mean something: the internet, or the inside of a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Realm(usize);

impl Realm {
    /// Where addresses are public.
    pub const INTERNET: Realm = Realm(0);
}

/// One host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(usize);

/// How the network behaves; may be changed while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// One way, shortest and longest; each pair of addresses has its own time between.
    pub delay: (Duration, Duration),
    /// Up to so much more for each datagram.
    pub jitter: Duration,
    /// Of a million datagrams so many are lost.
    pub losses_per_million: u32,
    /// So many come twice.
    pub duplicates_per_million: u32,
    /// So many take three times their time.
    pub reorders_per_million: u32,
    /// The largest IP packet that gets through; larger ones vanish.
    pub mtu: usize,
    /// Hops through the internet.
    pub hops: u8,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            delay: (Duration::from_millis(10), Duration::from_millis(60)),
            jitter: Duration::from_millis(2),
            losses_per_million: 0,
            duplicates_per_million: 0,
            reorders_per_million: 0,
            mtu: 1500,
            hops: 8,
        }
    }
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Left a host.
    pub sent: u64,
    /// Their payload.
    pub sent_bytes: u64,
    /// Came to a machine (duplicates too).
    pub delivered: u64,
    /// Lost by [`Conditions::losses_per_million`].
    pub lost: u64,
    /// Larger than [`Conditions::mtu`].
    pub too_large: u64,
    /// Out of hops.
    pub expired: u64,
    /// Not let in by a NAT.
    pub filtered: u64,
    /// To an address or port where nobody is, or over a partition.
    pub unreachable: u64,
}

/// Where a machine on a host listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Of [`SocketId::SERVER`], as hosts in the same realm see it.
    pub server: SocketAddrV4,
    /// Of [`SocketId::CLIENT`].
    pub client: SocketAddrV4,
}

/// What a tap makes of a datagram: it may change the payload; false lets it vanish.
pub type Tap = Box<dyn FnMut(&mut Random, SocketAddrV4, SocketAddrV4, &mut Vec<u8>) -> bool + Send>;

/// The whole network, and the machines on it.
pub struct SimulatedUdp<M> {
    now: Now,
    random: Random,
    seed: u64,
    conditions: Conditions,
    realms: Vec<RealmState>,
    nats: Vec<NatState>,
    hosts: Vec<Host<M>>,
    queue: BinaryHeap<Reverse<Entry>>,
    next_entry: u64,
    counts: Counts,
    tap: Option<Tap>,
}

impl<M: Machine> SimulatedUdp<M> {
    /// A network without hosts.
    pub fn new(seed: u64, conditions: Conditions) -> SimulatedUdp<M> {
        SimulatedUdp {
            now: Duration::ZERO,
            random: Random::new(seed),
            seed,
            conditions,
            realms: vec![RealmState { nat: None, holders: HashMap::new(), next_address: 0 }],
            nats: Vec::new(),
            hosts: Vec::new(),
            queue: BinaryHeap::new(),
            next_entry: 0,
            counts: Counts::default(),
            tap: None,
        }
    }

    /// A NAT that stands in `outside`; the answer is its inside.
    pub fn add_nat(&mut self, outside: Realm, nat: Nat) -> Realm {
        let id = self.nats.len();
        let inside = Realm(self.realms.len());
        let addresses = (0..nat.addresses.max(1)).map(|_| self.take_address(outside, Holder::Nat(id))).collect();
        self.nats.push(NatState::new(nat, outside, inside, addresses));
        self.realms.push(RealmState { nat: Some(id), holders: HashMap::new(), next_address: 0 });
        inside
    }

    /// A host in `realm` with a machine made for its addresses.
    pub fn add_host(&mut self, realm: Realm, make: impl FnOnce(Now, Addresses) -> M) -> HostId {
        let id = HostId(self.hosts.len());
        let ip = self.take_address(realm, Holder::Host(id));
        self.hosts.push(Host {
            realm,
            ip,
            machine: None,
            ports: BTreeMap::new(),
            sockets: HashMap::new(),
            timer: None,
            spins: (Duration::ZERO, 0),
            group: 0,
            counts: Counts::default(),
        });
        self.bring_up(id, make);
        id
    }

    /// Lets a machine run on a host that has none, at the same address with fresh sockets; an old machine is dropped.
    pub fn bring_up(&mut self, id: HostId, make: impl FnOnce(Now, Addresses) -> M) {
        self.take_down(id);
        let client_port = self.free_port(id);
        let host = &mut self.hosts[id.0];
        for (socket, port) in [(SocketId::SERVER, SERVER_PORT), (SocketId::CLIENT, client_port)] {
            host.sockets.insert(socket, port);
            host.ports.insert(port, socket);
        }
        let addresses = Addresses {
            server: SocketAddrV4::new(host.ip, SERVER_PORT),
            client: SocketAddrV4::new(host.ip, client_port),
        };
        self.hosts[id.0].machine = Some(make(self.now, addresses));
        self.settle(id);
    }

    /// Pulls a host's plug: no word to anyone, and what comes for it is gone.
    pub fn take_down(&mut self, id: HostId) -> Option<M> {
        let host = &mut self.hosts[id.0];
        host.ports.clear();
        host.sockets.clear();
        host.timer = None;
        host.machine.take()
    }

    /// Moves a host to another realm, where it has another address; its machine and sockets stay.
    pub fn move_host(&mut self, id: HostId, realm: Realm) -> Ipv4Addr {
        let (old, ip) = (self.hosts[id.0].realm, self.hosts[id.0].ip);
        self.realms[old.0].holders.remove(&ip);
        let ip = self.take_address(realm, Holder::Host(id));
        (self.hosts[id.0].realm, self.hosts[id.0].ip) = (realm, ip);
        ip
    }

    /// Opens a socket of a host at a port of one's choice; `Err` gives the number back if the port is taken.
    ///
    /// # Errors
    /// If another socket is there, or the socket is open already.
    pub fn open_at(&mut self, id: HostId, socket: SocketId, port: u16) -> Result<(), SocketId> {
        let host = &mut self.hosts[id.0];
        if host.ports.contains_key(&port) || host.sockets.contains_key(&socket) {
            return Err(socket);
        }
        host.ports.insert(port, socket);
        host.sockets.insert(socket, port);
        Ok(())
    }

    /// Hosts of different groups do not hear each other; all begin in group 0.
    pub fn set_group(&mut self, id: HostId, group: u32) {
        self.hosts[id.0].group = group;
    }

    /// All that NATs remember is gone, as after a power cut.
    pub fn reset_nats(&mut self) {
        for nat in &mut self.nats {
            nat.reset();
        }
    }

    /// How the network behaves from here on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Looks at (and may change) every datagram on the internet from here on.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// Puts a datagram on the internet, from any address: nobody checks.
    pub fn inject(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: Vec<u8>) {
        let at = self.now + self.delay(from, to);
        self.push(at, What::Datagram(Datagram { realm: Realm::INTERNET, from, to, ttl: TTL, group: None, payload }));
    }

    /// Time since the network began.
    pub fn now(&self) -> Now {
        self.now
    }

    /// What became of all datagrams until now.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What one host sent and got.
    pub fn host_counts(&self, id: HostId) -> Counts {
        self.hosts[id.0].counts
    }

    /// Every host, up or not.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<M> {
        (0..self.hosts.len()).map(HostId)
    }

    /// A host's address in its realm.
    pub fn address(&self, id: HostId) -> Ipv4Addr {
        self.hosts[id.0].ip
    }

    /// Where a host's server socket is, in its realm.
    pub fn server_address(&self, id: HostId) -> SocketAddrV4 {
        SocketAddrV4::new(self.hosts[id.0].ip, SERVER_PORT)
    }

    /// A host's machine, if it is up.
    pub fn machine(&self, id: HostId) -> Option<&M> {
        self.hosts[id.0].machine.as_ref()
    }

    /// Tells a machine something, then sends what it has to send.
    ///
    /// # Panics
    ///
    /// If the host is down.
    pub fn with<R>(&mut self, id: HostId, run: impl FnOnce(&mut M, Now) -> R) -> R {
        let now = self.now;
        let result = run(self.hosts[id.0].machine.as_mut().expect("the host is up"), now);
        self.settle(id);
        result
    }

    /// The next thing that happens, if there is one before `until`.
    pub fn step(&mut self, until: Now) -> bool {
        if self.queue.peek().is_none_or(|next| next.0.at > until) {
            return false;
        }
        let Some(Reverse(entry)) = self.queue.pop() else { return false };
        self.now = entry.at;
        match entry.what {
            What::Datagram(datagram) => self.arrive(datagram),
            What::Timeout(id) => self.time_out(id, entry.at),
        }
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Lets time pass until the condition holds, which is looked at after everything that happens; false if it did not within `time`.
    pub fn run_until(&mut self, time: Duration, mut is_met: impl FnMut(&mut SimulatedUdp<M>) -> bool) -> bool {
        let until = self.now + time;
        loop {
            if is_met(self) {
                return true;
            }
            if !self.step(until) {
                self.now = until;
                return is_met(self);
            }
        }
    }

    fn time_out(&mut self, id: HostId, at: Now) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        if host.timer != Some(at) {
            return; // an earlier one took its place
        }
        host.timer = None;
        let Some(machine) = host.machine.as_mut() else { return };
        if machine.poll_timeout().is_some_and(|timeout| timeout <= now) {
            host.spins = if host.spins.0 == now { (now, host.spins.1 + 1) } else { (now, 0) };
            assert!(
                host.spins.1 < SPINS_MAX,
                "the machine on host {} wants its timeout at {now:?} again and again",
                id.0
            );
            machine.handle_timeout(now);
        }
        self.settle(id);
    }

    /// Opens and closes sockets, sends, and sets the timer anew.
    fn settle(&mut self, id: HostId) {
        let now = self.now;
        loop {
            let Some(machine) = self.hosts[id.0].machine.as_mut() else { return };
            if let Some(change) = machine.poll_socket_change(now) {
                self.change_socket(id, change);
            } else if let Some(transmit) = machine.poll_transmit(now) {
                self.transmit(id, transmit);
            } else {
                break;
            }
        }
        let host = &mut self.hosts[id.0];
        let Some(timeout) = host.machine.as_mut().and_then(Machine::poll_timeout) else { return };
        let at = timeout.max(now);
        if host.timer.is_none_or(|timer| at < timer) {
            host.timer = Some(at);
            self.push(at, What::Timeout(id));
        }
    }

    fn change_socket(&mut self, id: HostId, change: SocketChange) {
        match change {
            SocketChange::Open(socket) => {
                let port = self.free_port(id);
                let host = &mut self.hosts[id.0];
                host.sockets.insert(socket, port);
                host.ports.insert(port, socket);
            }
            SocketChange::Close(socket) => {
                let host = &mut self.hosts[id.0];
                if let Some(port) = host.sockets.remove(&socket) {
                    host.ports.remove(&port);
                }
            }
        }
    }

    fn transmit(&mut self, id: HostId, transmit: Transmit) {
        let Some(&port) = self.hosts[id.0].sockets.get(&transmit.socket) else { return };
        let from = SocketAddrV4::new(self.hosts[id.0].ip, port);
        let ttl = transmit.ttl.unwrap_or(TTL);
        match transmit.segment {
            Some(size) if size > 0 && transmit.payload.len() > size => {
                for piece in transmit.payload.chunks(size) {
                    self.send(id, from, transmit.to, ttl, piece.to_vec());
                }
            }
            _ => self.send(id, from, transmit.to, ttl, transmit.payload),
        }
    }

    /// Out through the NATs above a host, then on its way.
    fn send(&mut self, id: HostId, mut from: SocketAddrV4, to: SocketAddrV4, mut ttl: u8, mut payload: Vec<u8>) {
        for counts in [&mut self.counts, &mut self.hosts[id.0].counts] {
            counts.sent += 1;
            counts.sent_bytes += payload.len() as u64;
        }
        if payload.len() + HEADERS_BYTES > self.conditions.mtu {
            self.counts.too_large += 1;
            return;
        }
        let (start, group) = (self.hosts[id.0].realm, self.hosts[id.0].group);
        let mut realm = start;
        // Each turn leaves one realm; the realm that knows the address is where the way down begins.
        while !self.realms[realm.0].holders.contains_key(to.ip()) {
            let Some(nat) = self.realms[realm.0].nat else {
                self.counts.unreachable += 1;
                return;
            };
            let own = self.nats[nat].addresses.contains(to.ip());
            if own && !self.nats[nat].nat.hairpin {
                self.counts.filtered += 1;
                return;
            }
            let Some(mapped) = self.nats[nat].let_out(self.now, &mut self.random, from, to) else {
                self.counts.filtered += 1;
                return;
            };
            (from, realm) = (mapped, self.nats[nat].outside);
            if ttl <= 1 {
                self.counts.expired += 1;
                return;
            }
            ttl -= 1;
        }
        let is_internet = realm == Realm::INTERNET && !(realm != start && self.is_hairpin(start, to));
        if is_internet {
            if ttl <= self.conditions.hops {
                self.counts.expired += 1;
                return;
            }
            ttl -= self.conditions.hops;
            if let Some(tap) = &mut self.tap
                && !tap(&mut self.random, from, to, &mut payload)
            {
                self.counts.lost += 1;
                return;
            }
        }
        if self.chance(self.conditions.losses_per_million) {
            self.counts.lost += 1;
            return;
        }
        let delay = if is_internet { self.delay(from, to) } else { LAN_DELAY };
        let datagram = Datagram { realm, from, to, ttl, group: Some(group), payload };
        if self.chance(self.conditions.duplicates_per_million) {
            let again = if is_internet { self.delay(from, to) } else { LAN_DELAY };
            self.push(self.now + again, What::Datagram(datagram.clone()));
        }
        self.push(self.now + delay, What::Datagram(datagram));
    }

    fn is_hairpin(&self, start: Realm, to: SocketAddrV4) -> bool {
        self.realms[start.0].nat.is_some_and(|nat| self.nats[nat].addresses.contains(to.ip()))
    }

    /// Down through the NATs to a machine.
    fn arrive(&mut self, mut datagram: Datagram) {
        for _ in 0..NATS_MAX {
            match self.realms[datagram.realm.0].holders.get(datagram.to.ip()) {
                Some(&Holder::Host(id)) => return self.deliver(id, &datagram),
                Some(&Holder::Nat(nat)) => {
                    let Some(inside) = self.nats[nat].let_in(self.now, datagram.from, datagram.to) else {
                        self.counts.filtered += 1;
                        return;
                    };
                    if datagram.ttl <= 1 {
                        self.counts.expired += 1;
                        return;
                    }
                    datagram.ttl -= 1;
                    (datagram.realm, datagram.to) = (self.nats[nat].inside, inside);
                }
                None => break,
            }
        }
        self.counts.unreachable += 1;
    }

    fn deliver(&mut self, id: HostId, datagram: &Datagram) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        let is_apart = datagram.group.is_some_and(|group| group != host.group);
        let (Some(&socket), Some(machine), false) =
            (host.ports.get(&datagram.to.port()), host.machine.as_mut(), is_apart)
        else {
            self.counts.unreachable += 1;
            return;
        };
        self.counts.delivered += 1;
        host.counts.delivered += 1;
        machine.handle_datagram(now, socket, datagram.from, &datagram.payload);
        self.settle(id);
    }

    fn take_address(&mut self, realm: Realm, holder: Holder) -> Ipv4Addr {
        let state = &mut self.realms[realm.0];
        let n = state.next_address;
        state.next_address += 1;
        let ip = match realm {
            // Far from each other, as machines of strangers are: code that counts how many of a subnet it knows shall see many subnets.
            Realm::INTERNET => {
                Ipv4Addr::from((20 + n % 70) << 24 | (n / 70 % 256) << 16 | (n * 7 % 256) << 8 | (1 + n / 17_920 % 250))
            }
            // Every LAN has the same addresses inside, as LANs have: whoever takes a private address for a name meets the wrong host.
            _ => Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 1, 2)) + n),
        };
        state.holders.insert(ip, holder);
        ip
    }

    fn free_port(&mut self, id: HostId) -> u16 {
        loop {
            let port = FREE_PORTS + self.random.below(u64::from(u16::MAX - FREE_PORTS)) as u16;
            if port != SERVER_PORT && !self.hosts[id.0].ports.contains_key(&port) {
                return port;
            }
        }
    }

    fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.random.below(1_000_000) < u64::from(per_million)
    }

    /// What a pair of addresses always has, and this datagram's own share.
    fn delay(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> Duration {
        let (shortest, longest) = self.conditions.delay;
        let (a, b) = (u64::from(from.ip().to_bits()), u64::from(to.ip().to_bits()));
        let mut of_pair = Random::new(self.seed ^ (a.min(b) << 32 | a.max(b)));
        let spread = longest.saturating_sub(shortest).as_micros() as u64;
        let mut delay = shortest + Duration::from_micros(of_pair.below(spread + 1));
        delay += Duration::from_micros(self.random.below(self.conditions.jitter.as_micros() as u64 + 1));
        if self.chance(self.conditions.reorders_per_million) { delay * 3 } else { delay }
    }

    fn push(&mut self, at: Now, what: What) {
        self.next_entry += 1;
        self.queue.push(Reverse(Entry { at, number: self.next_entry, what }));
    }
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Host(HostId),
    Nat(usize),
}

struct RealmState {
    /// The way out.
    nat: Option<usize>,
    holders: HashMap<Ipv4Addr, Holder>,
    next_address: u32,
}

struct Host<M> {
    realm: Realm,
    ip: Ipv4Addr,
    machine: Option<M>,
    ports: BTreeMap<u16, SocketId>,
    sockets: HashMap<SocketId, u16>,
    /// When the queue calls it next; entries for other times are void.
    timer: Option<Now>,
    /// How often it was called at one time.
    spins: (Now, u32),
    group: u32,
    counts: Counts,
}

#[derive(Clone)]
struct Datagram {
    realm: Realm,
    from: SocketAddrV4,
    to: SocketAddrV4,
    ttl: u8,
    /// The sender's; None for what nobody sent.
    group: Option<u32>,
    payload: Vec<u8>,
}

enum What {
    Datagram(Datagram),
    Timeout(HostId),
}

struct Entry {
    at: Now,
    /// First pushed, first out, at one time.
    number: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
