//! Punches through simulated NATs, and what strangers do to them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::puncher::{BIRTHDAY_SOCKETS, Effect, Puncher, RemoteState, Step};
use super::{Context, Firewall, Punching};
use crate::transport::simulated_udp::{Conditions, HostId, Machine, Nat, Realm, SimulatedUdp};
use crate::udp::{Now, Random, SocketChange, SocketId, Transmit};

/// A node says from where it is asked; a peer punches, and a first word over the way found stands for a stream.
struct Host {
    punching: Punching,
    puncher: Option<Puncher>,
    nodes: Vec<SocketAddrV4>,
    is_initiator: bool,
    transmits: VecDeque<Transmit>,
    stream: Option<(SocketId, SocketAddrV4)>,
    is_aborted: bool,
    analyzed: usize,
    punches_sent: Vec<SocketAddrV4>,
}

const ASK: u8 = 1;
const TOLD: u8 = 2;
const STREAM: u8 = 9;

impl Host {
    fn new(seed: u8, nodes: &[SocketAddrV4], is_initiator: bool) -> Host {
        Host {
            punching: Punching::new(Random::new([seed; 32])),
            puncher: None,
            nodes: nodes.to_vec(),
            is_initiator,
            transmits: VecDeque::new(),
            stream: None,
            is_aborted: false,
            analyzed: 0,
            punches_sent: Vec::new(),
        }
    }

    fn call<R>(&mut self, now: Now, run: impl FnOnce(&mut Puncher, &mut Context<'_>) -> R) -> Option<R> {
        let mut puncher = self.puncher.take()?;
        let mut effects = Vec::new();
        let shared = &mut self.punching;
        let result = run(
            &mut puncher,
            &mut Context { now, shared, nodes: &self.nodes, is_firewalled: true, effects: &mut effects },
        );
        self.puncher = Some(puncher);
        self.carry_out(now, effects);
        Some(result)
    }

    fn start(&mut self, now: Now) {
        let mut effects = Vec::new();
        let shared = &mut self.punching;
        let mut cx = Context { now, shared, nodes: &self.nodes, is_firewalled: true, effects: &mut effects };
        self.puncher = Puncher::new(&mut cx, self.is_initiator, Firewall::Unknown);
        self.carry_out(now, effects);
    }

    fn carry_out(&mut self, now: Now, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Sample { to, step } => self.transmits.push_back(Transmit::new(step.0, to, vec![ASK, 0])),
                Effect::Analyzed => self.analyzed += 1,
                Effect::Connected { socket, from } => {
                    self.transmits.push_back(Transmit::new(socket, from, vec![STREAM, 0]));
                    self.connect(now, socket, from);
                }
                Effect::Aborted => self.is_aborted = true,
            }
        }
    }

    fn connect(&mut self, now: Now, socket: SocketId, from: SocketAddrV4) {
        if self.stream.is_none() {
            self.stream = Some((socket, from));
            self.punching.sockets.stream_opened(socket);
            self.call(now, |puncher, cx| puncher.destroy(cx));
        }
    }

    fn nat(&self) -> (Firewall, Option<Vec<SocketAddrV4>>) {
        let nat = self.puncher.as_ref().expect("a puncher").nat();
        (nat.firewall(), nat.addresses().map(<[SocketAddrV4]>::to_vec))
    }
}

impl Machine for Host {
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        match datagram {
            [_] => {
                self.call(now, |puncher, cx| puncher.handle_punch_packet(cx, socket, from));
            }
            [ASK, ..] => {
                let mut told = vec![TOLD];
                told.extend_from_slice(&from.ip().octets());
                told.extend_from_slice(&from.port().to_le_bytes());
                self.transmits.push_back(Transmit::new(socket, from, told));
            }
            [TOLD, a, b, c, d, low, high] => {
                let to = SocketAddrV4::new(Ipv4Addr::new(*a, *b, *c, *d), u16::from_le_bytes([*low, *high]));
                self.call(now, |puncher, cx| puncher.handle_sample(cx, Step(socket), Some((to, from))));
            }
            [STREAM, 0] => {
                self.transmits.push_back(Transmit::new(socket, from, vec![STREAM, 1]));
                self.connect(now, socket, from);
            }
            _ => {}
        }
    }

    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        let punch = self.punching.poll_transmit();
        self.punches_sent.extend(punch.as_ref().map(|transmit| transmit.to));
        punch.or_else(|| self.transmits.pop_front())
    }

    fn poll_timeout(&mut self) -> Option<Now> {
        self.puncher.as_ref().and_then(Puncher::poll_timeout)
    }

    fn handle_timeout(&mut self, now: Now) {
        self.call(now, |puncher, cx| puncher.handle_timeout(cx));
    }

    fn poll_socket_change(&mut self, _: Now) -> Option<SocketChange> {
        self.punching.poll_socket_change()
    }
}

struct Pair {
    net: SimulatedUdp<Host>,
    client: HostId,
    server: HostId,
}

impl Pair {
    /// Two peers behind such NATs (or none), each with its NAT found out.
    fn new(seed: u64, client: Option<Nat>, server: Option<Nat>) -> Pair {
        let mut net = SimulatedUdp::new(seed, Conditions::default());
        let mut nodes = Vec::new();
        for number in 0..6 {
            let id = net.add_host(Realm::INTERNET, |_, _| Host::new(100 + number, &[], false));
            nodes.push(net.server_address(id));
        }
        let mut add = |nat: Option<Nat>, is_initiator: bool| {
            let realm = nat.map_or(Realm::INTERNET, |nat| net.add_nat(Realm::INTERNET, nat));
            net.add_host(realm, |_, _| Host::new(seed as u8 * 2 + u8::from(is_initiator), &nodes, is_initiator))
        };
        let (client, server) = (add(client, true), add(server, false));
        let mut pair = Pair { net, client, server };
        for id in [client, server] {
            pair.net.with(id, Host::start);
        }
        pair.net.run_for(Duration::from_secs(1));
        pair
    }

    /// Each hears of the other's NAT and, if that is so, that it is where it says.
    fn introduce(&mut self, is_verified: bool) {
        for (to, about) in [(self.client, self.server), (self.server, self.client)] {
            let (firewall, addresses) = self.net.machine(about).expect("up").nat();
            let addresses = addresses.expect("known");
            let verified = is_verified.then_some(*addresses[0].ip());
            let state = RemoteState { is_punching: true, firewall, addresses, verified };
            self.net.with(to, |host, now| host.call(now, |puncher, _| puncher.update_remote(&state)));
        }
    }

    /// The server begins, as it does when it answers the client's second round.
    fn punch(&mut self) -> (bool, bool) {
        let server =
            self.net.with(self.server, |host, now| host.call(now, |puncher, cx| puncher.punch(cx))).expect("there");
        self.net.run_for(Duration::from_millis(100));
        let client = self.net.with(self.client, |host, now| host.call(now, |puncher, cx| puncher.punch(cx)));
        (client.unwrap_or(true), server)
    }

    fn is_connected(&self) -> bool {
        [self.client, self.server].iter().all(|id| self.net.machine(*id).is_some_and(|host| host.stream.is_some()))
    }

    /// One socket each is left, and none after the stream.
    fn assert_cleaned_up(&mut self) {
        for id in [self.client, self.server] {
            self.net.with(id, |host, _| {
                let (socket, _) = host.stream.expect("a stream");
                assert_eq!(host.punching.sockets.len(), 1);
                assert!(host.punching.sockets.contains(socket));
                host.punching.sockets.stream_closed(socket);
                assert!(host.punching.sockets.is_empty());
            });
        }
        self.net.run_for(Duration::from_secs(60));
        for id in [self.client, self.server] {
            self.net.with(id, |host, _| {
                host.punches_sent.clear();
                assert!(!host.is_aborted);
            });
        }
        self.net.run_for(Duration::from_secs(60));
        for id in [self.client, self.server] {
            assert!(self.net.machine(id).expect("up").punches_sent.is_empty(), "something is still sent");
        }
    }
}

const KNOWN: [Option<Nat>; 4] = [None, Some(Nat::FULL_CONE), Some(Nat::RESTRICTED), Some(Nat::PORT_RESTRICTED)];

#[test]
fn nats_are_told_apart_through_pings() {
    for (nat, firewall) in
        KNOWN.map(|nat| (nat, Firewall::Consistent)).into_iter().chain([(Some(Nat::SYMMETRIC), Firewall::Random)])
    {
        let pair = Pair::new(1, nat, None);
        let (found, addresses) = pair.net.machine(pair.client).unwrap().nat();
        assert_eq!(found, firewall, "{nat:?}");
        assert_eq!(addresses.unwrap().len(), 1);
    }
}

#[test]
fn known_addresses_meet() {
    for client in KNOWN {
        for server in KNOWN {
            let mut pair = Pair::new(2, client, server);
            pair.introduce(true);
            assert_eq!(pair.punch(), (true, true));
            assert!(
                pair.net.run_until(Duration::from_secs(3), |_| false) || pair.is_connected(),
                "{client:?} {server:?}"
            );
            pair.assert_cleaned_up();
        }
    }
}

#[test]
fn known_addresses_meet_although_unproven_and_although_packets_are_lost() {
    let mut pair = Pair::new(3, Some(Nat::PORT_RESTRICTED), Some(Nat::PORT_RESTRICTED));
    pair.net.set_conditions(Conditions { losses_per_million: 300_000, ..Conditions::default() });
    pair.introduce(false);
    assert_eq!(pair.punch(), (true, true));
    pair.net.run_for(Duration::from_secs(2));
    assert!(!pair.is_connected(), "unproven addresses wait for the fourth round");
    pair.net.set_conditions(Conditions::default());
    pair.net.run_for(Duration::from_secs(7));
    assert!(pair.is_connected());
}

#[test]
fn random_ports_are_met_by_known_addresses_from_either_side() {
    for seed in 4..8 {
        for (client, server) in [(Nat::SYMMETRIC, Nat::PORT_RESTRICTED), (Nat::PORT_RESTRICTED, Nat::SYMMETRIC)] {
            let mut pair = Pair::new(seed, Some(client), Some(server));
            pair.introduce(true);
            assert_eq!(pair.punch(), (true, true));
            let sockets = |pair: &Pair, id| pair.net.machine(id).unwrap().punching.sockets.len();
            pair.net.run_for(Duration::from_millis(50));
            let most = sockets(&pair, pair.client).max(sockets(&pair, pair.server));
            assert!(most == BIRTHDAY_SOCKETS || pair.is_connected(), "{most} sockets");
            pair.net.run_for(Duration::from_secs(40));
            assert!(pair.is_connected(), "seed {seed}");
            pair.assert_cleaned_up();
            for id in [pair.client, pair.server] {
                let host = pair.net.machine(id).unwrap();
                assert_eq!(host.punching.stats.random, 1);
                assert!(host.punching.random_punches == 0 && host.punching.random_punch_ended.is_some());
            }
        }
    }
}

#[test]
fn random_ports_on_both_sides_are_refused() {
    let mut pair = Pair::new(9, Some(Nat::SYMMETRIC), Some(Nat::SYMMETRIC));
    pair.introduce(true);
    assert_eq!(pair.punch(), (false, false));
    pair.net.run_for(Duration::from_secs(5));
    assert!(!pair.is_connected());
    // Three other sockets do not make it better.
    let first = pair.net.machine(pair.client).unwrap().puncher.as_ref().unwrap().socket();
    let mut other = Pair::new(9, Some(Nat::SYMMETRIC), Some(Nat::SYMMETRIC));
    other.introduce(true);
    let analyze = |pair: &mut Pair, is_allowed| {
        pair.net.with(pair.client, |host, now| host.call(now, |puncher, cx| puncher.analyze(cx, is_allowed))).unwrap()
    };
    assert_eq!(analyze(&mut other, false), Some(false));
    assert_eq!(analyze(&mut other, true), None);
    other.net.run_for(Duration::from_secs(2));
    assert_eq!(other.net.machine(other.client).unwrap().analyzed, 1);
    assert_eq!(analyze(&mut other, true), Some(false));
    let host = other.net.machine(other.client).unwrap();
    assert_eq!(host.puncher.as_ref().unwrap().socket().0, first.0 + 3);
    assert_eq!(host.punching.sockets.len(), 1);
}

#[test]
fn nothing_random_is_sent_to_a_host_that_did_not_prove_itself() {
    let mut pair = Pair::new(10, Some(Nat::PORT_RESTRICTED), Some(Nat::SYMMETRIC));
    pair.introduce(false);
    assert_eq!(pair.punch(), (false, false));
    pair.net.run_for(Duration::from_secs(5));
    for id in [pair.client, pair.server] {
        assert!(pair.net.machine(id).unwrap().punches_sent.is_empty());
    }
}

#[test]
fn who_is_never_heard_is_given_up_and_leaves_nothing() {
    for server in [Nat::PORT_RESTRICTED, Nat::SYMMETRIC] {
        let mut pair = Pair::new(11, Some(Nat::PORT_RESTRICTED), Some(server));
        pair.introduce(true);
        pair.net.set_group(pair.server, 1);
        assert_eq!(pair.punch(), (true, true));
        pair.net.run_for(Duration::from_secs(9));
        assert!(!pair.net.machine(pair.client).unwrap().is_aborted);
        pair.net.run_for(Duration::from_secs(40));
        for id in [pair.client, pair.server] {
            let host = pair.net.machine(id).unwrap();
            assert!(host.is_aborted && host.punching.sockets.is_empty() && host.punching.random_punches == 0);
        }
    }
}

#[test]
fn one_random_punch_at_a_time_and_twenty_seconds_between_two() {
    let mut pair = Pair::new(12, Some(Nat::PORT_RESTRICTED), Some(Nat::SYMMETRIC));
    pair.introduce(true);
    let is_allowed = |pair: &Pair| {
        let host = pair.net.machine(pair.client).unwrap();
        host.punching.is_random_punch_allowed(pair.net.now())
    };
    assert!(is_allowed(&pair));
    pair.net.with(pair.client, |host, _| host.punching.reserve_random_punch());
    assert!(!is_allowed(&pair), "one is agreed upon");
    pair.net.with(pair.client, |host, _| host.punching.unreserve_random_punch());
    assert!(is_allowed(&pair));
    pair.punch();
    assert!(!is_allowed(&pair), "one runs");
    pair.net.with(pair.client, |host, now| host.call(now, |puncher, cx| puncher.destroy(cx)));
    assert!(!is_allowed(&pair), "one has just ended");
    pair.net.run_for(Duration::from_millis(19_900));
    assert!(!is_allowed(&pair));
    pair.net.run_for(Duration::from_millis(200));
    assert!(is_allowed(&pair));
}

#[test]
fn a_packet_from_nowhere_is_believed_only_if_nothing_better_comes() {
    let stranger = SocketAddrV4::new(Ipv4Addr::new(6, 6, 6, 6), 666);
    let forge = |pair: &mut Pair| {
        pair.net.with(pair.client, |host, now| {
            let socket = host.puncher.as_ref().unwrap().socket();
            host.handle_datagram(now, socket, stranger, &[0]);
            host.handle_datagram(now, SocketId::SERVER, stranger, &[0]);
            host.handle_datagram(now, SocketId(99), stranger, &[0]);
        });
    };
    let mut pair = Pair::new(13, Some(Nat::FULL_CONE), Some(Nat::PORT_RESTRICTED));
    pair.introduce(true);
    forge(&mut pair);
    assert_eq!(pair.punch(), (true, true));
    pair.net.run_for(Duration::from_secs(2));
    let (_, from) = pair.net.machine(pair.client).unwrap().stream.unwrap();
    assert_ne!(from, stranger);
    assert!(pair.is_connected());
    // A peer whose NAT has more addresses than it knows is believed, later.
    let mut pair = Pair::new(13, Some(Nat::FULL_CONE), Some(Nat::PORT_RESTRICTED));
    forge(&mut pair);
    pair.net.run_for(Duration::from_millis(1900));
    assert!(pair.net.machine(pair.client).unwrap().stream.is_none());
    pair.net.run_for(Duration::from_millis(200));
    assert_eq!(pair.net.machine(pair.client).unwrap().stream.unwrap().1, stranger);
}

#[test]
fn forged_packets_to_the_other_side_cost_one_byte_each_and_end() {
    let mut pair = Pair::new(14, Some(Nat::FULL_CONE), None);
    let stranger = SocketAddrV4::new(Ipv4Addr::new(6, 6, 6, 6), 666);
    pair.net.with(pair.server, |host, now| {
        let socket = host.puncher.as_ref().unwrap().socket();
        for _ in 0..10_000 {
            host.handle_datagram(now, socket, stranger, &[7]);
        }
        assert!(host.stream.is_none());
    });
    let sent = &pair.net.machine(pair.server).unwrap().punches_sent;
    assert!(!sent.is_empty() && sent.len() <= 4096, "{} answers", sent.len());
}

#[test]
fn addresses_that_are_nobodys_are_sent_nothing() {
    let mut pair = Pair::new(15, Some(Nat::PORT_RESTRICTED), None);
    let mut addresses = vec![
        SocketAddrV4::new(Ipv4Addr::new(0, 0, 0, 0), 5),
        SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 5),
        SocketAddrV4::new(Ipv4Addr::BROADCAST, 5),
        SocketAddrV4::new(Ipv4Addr::new(7, 7, 7, 7), 0),
    ];
    addresses.extend((1..100).map(|port| SocketAddrV4::new(Ipv4Addr::new(7, 7, 7, 8), port)));
    let state = RemoteState {
        is_punching: true,
        firewall: Firewall::Consistent,
        addresses,
        verified: Some(Ipv4Addr::new(7, 7, 7, 8)),
    };
    pair.net.with(pair.client, |host, now| {
        host.call(now, |puncher, cx| {
            puncher.update_remote(&state);
            puncher.update_remote(&RemoteState { verified: None, ..state.clone() });
            assert!(puncher.punch(cx));
        })
    });
    pair.net.run_for(Duration::from_secs(30));
    let host = pair.net.machine(pair.client).unwrap();
    assert!(host.is_aborted);
    assert!(host.punches_sent.iter().all(|to| *to.ip() == Ipv4Addr::new(7, 7, 7, 8)));
    // Seven addresses that stayed proven, each of ten rounds.
    assert_eq!(host.punches_sent.len(), 70);
}

#[test]
fn rounds_in_any_order_end_in_a_verdict() {
    let mut random = Random::new([16; 32]);
    for seed in 0..30 {
        let nats = [Nat::FULL_CONE, Nat::PORT_RESTRICTED, Nat::SYMMETRIC];
        let mut pick = || Some(nats[random.below(3) as usize]);
        let mut pair = Pair::new(seed, pick(), pick());
        for _ in 0..40 {
            let id = if random.below(2) == 0 { pair.client } else { pair.server };
            let what = random.below(9);
            let address =
                SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, random.below(12) as u8), random.below(3) as u16 * 5000);
            let state = RemoteState {
                is_punching: random.below(2) == 0,
                firewall: Firewall::from_wire(random.below(5)),
                addresses: (0..random.below(3)).map(|_| address).collect(),
                verified: (random.below(2) == 0).then_some(*address.ip()),
            };
            pair.net.with(id, |host, now| {
                host.call(now, |puncher, cx| match what {
                    0 => puncher.update_remote(&state),
                    1 => drop(puncher.analyze(cx, true)),
                    2 => drop(puncher.analyze(cx, false)),
                    3 => drop(puncher.punch(cx)),
                    4 => puncher.freeze(),
                    5 => puncher.unfreeze(cx),
                    6 => puncher.observe(cx, address, address),
                    7 => puncher.handle_sample(cx, Step(puncher.socket()), None),
                    _ => puncher.open_session(cx, address),
                })
            });
            pair.net.run_for(Duration::from_millis(random.below(1500)));
        }
        pair.net.run_for(Duration::from_secs(60));
        for id in [pair.client, pair.server] {
            pair.net.with(id, |host, now| {
                host.call(now, |puncher, cx| {
                    assert!(!puncher.is_punching(), "it ends by itself");
                    puncher.destroy(cx);
                });
                if let Some((socket, _)) = host.stream {
                    host.punching.sockets.stream_closed(socket);
                }
                assert!(host.punching.sockets.is_empty() && host.punching.random_punches == 0);
                assert_eq!(host.poll_timeout(), None);
            });
        }
    }
}
