//! Those who choose their ids: nodes near a topic that hide what was announced there.
//!
//! ```text
//! id = hash(address, port): of 65,535 ports of a host some are nearer to any topic than every honest node
//! a sybil      answers as a node does, with other sybils as its closer nodes; says yes to announcements, and has none to tell
//! all of them  make themselves known to the honest nodes near the topic, again and again
//! ```
//!
//! What must stay true: whoever has a few hosts does not hide an announcement from our nodes, with however many ports; it takes as many /24 networks as fill the
//! 20 closest ([`RpcLimits::closest_per_subnet`] each), all nearer than the honest.

use std::net::SocketAddrV4;

use pgbee_replication::dht::messages::command;
use pgbee_replication::dht::rpc::RpcLimits;
use pgbee_replication::dht::rpc::message::{Message, Reply, Request, node_id};
use pgbee_replication::dht::{DhtEvent, Outcome};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::transport::simulated_udp::{self, Conditions, HostId, Realm};
use pgbee_replication::udp::{Now, SocketId, Transmit};

use crate::world::{Key, Machine, TOPIC, World, secs};

/// Many nodes on one host, at a port each.
struct Sybils {
    friends: Vec<SocketAddrV4>,
    out: Vec<Transmit>,
}

impl simulated_udp::Machine for Sybils {
    fn handle_datagram(&mut self, _: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        let Ok(Message::Request(request)) = Message::decode(datagram) else { return };
        let is_asked_for_nodes = request.target.is_some() && (request.internal || request.command == command::LOOKUP);
        let reply = Reply {
            tid: request.tid,
            to: from,
            id: Some(node_id(request.to)),
            token: (!request.internal).then_some([1; 32]),
            closer: if is_asked_for_nodes { self.friends.clone() } else { Vec::new() },
            error: 0,
            value: None,
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

fn distance(node: SocketAddrV4) -> Key {
    let id = node_id(node);
    std::array::from_fn(|at| id[at] ^ TOPIC[at])
}

/// The nodes of a network, and those who want to hide a topic in it.
struct Attack {
    world: World,
    hosts: Vec<HostId>,
    sybils: Vec<SocketAddrV4>,
    lookups: usize,
    announced: u8,
}

/// What came of it.
#[derive(Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
struct Report {
    sybils: usize,
    hosts: usize,
    /// Sybils among the 20 ids closest to the topic.
    closest: usize,
    /// Honest nodes that keep the announcement, after two announcements.
    keepers: usize,
    found: usize,
    lookups: usize,
}

impl Attack {
    fn new(honest: usize, hosts: usize, limits: RpcLimits, seed: u8) -> Attack {
        let mut world = World::new(seed, Conditions::default(), 0);
        world.limits = limits;
        for n in 0..honest {
            world.add_node();
            if n < 20 || n % 10 == 0 {
                world.net.run_for(std::time::Duration::from_millis(200));
            }
        }
        world.net.run_for(secs(60));
        let hosts = (0..hosts).map(|_| {
            let sybils = |_, _| Machine::Other(Box::new(Sybils { friends: Vec::new(), out: Vec::new() }));
            world.net.add_host(Realm::INTERNET, sybils)
        });
        let hosts = hosts.collect();
        Attack { world, hosts, sybils: Vec::new(), lookups: 40, announced: 0 }
    }

    /// So many sybils now: of all ports of all hosts the nearest to the topic.
    fn grow(&mut self, count: usize) {
        let net = &self.world.net;
        let mut places: Vec<(Key, SocketAddrV4, HostId)> = Vec::new();
        for host in &self.hosts {
            let ip = net.address(*host);
            places.extend((1024..=u16::MAX).map(|port| {
                let node = SocketAddrV4::new(ip, port);
                (distance(node), node, *host)
            }));
        }
        places.sort_unstable_by_key(|(distance, ..)| *distance);
        places.truncate(count);
        self.sybils = places.iter().map(|(_, node, _)| *node).collect();
        let friends: Vec<SocketAddrV4> = self.sybils.iter().copied().take(20).collect();
        for host in &self.hosts {
            let friends = friends.clone();
            self.world.net.bring_up(*host, |_, _| Machine::Other(Box::new(Sybils { friends, out: Vec::new() })));
        }
        for (n, (_, node, host)) in places.iter().enumerate() {
            let socket = SocketId(10 + n as u32);
            // One may be the host's own server or client port: that one is taken, and answers as well.
            let _ = self.world.net.open_at(*host, socket, node.port());
        }
        self.advertise();
    }

    /// They ask the honest nodes near the topic something, with their ids: those ping them, and take them into their tables where there is room.
    fn advertise(&mut self) {
        let mut honest: Vec<SocketAddrV4> =
            self.world.nodes.iter().map(|host| self.world.net.server_address(*host)).collect();
        honest.sort_by_key(|node| distance(*node));
        for round in 0..2 {
            for (n, from) in self.sybils.clone().into_iter().enumerate() {
                let all = if n < 40 { honest.len() } else { 60 };
                for to in honest.iter().take(all) {
                    let request = Request {
                        tid: (n * 2 + round) as u16,
                        to: *to,
                        id: Some(node_id(from)),
                        token: None,
                        internal: true,
                        command: 2,
                        target: Some(TOPIC),
                        value: None,
                    };
                    self.world.net.inject(from, *to, request.encode());
                }
                if n % 10 == 0 {
                    self.world.net.run_for(secs(1));
                }
            }
            self.world.net.run_for(secs(200));
        }
    }

    /// Somebody announces, as the swarm does: now and again; others look it up.
    fn report(&mut self) -> Report {
        self.announced += 1;
        let identity = Identity::from_seed([self.announced; 32]);
        let key = identity.public_key();
        let announcer = self.world.nodes[7];
        let kept = |world: &mut World| -> usize {
            let nodes = world.nodes.clone();
            nodes.into_iter().map(|host| world.node(host, |node, _| node.dht.stats().records)).sum()
        };
        let before = kept(&mut self.world);
        for _ in 0..2 {
            self.world.node(announcer, |node, now| node.dht.announce(now, TOPIC, &identity, Vec::new()));
            self.world.net.run_for(secs(30));
        }
        let keepers = kept(&mut self.world).saturating_sub(before);
        let every = self.world.nodes.len() / self.lookups;
        let askers: Vec<HostId> = self.world.nodes.iter().copied().skip(1).step_by(every).take(self.lookups).collect();
        for host in &askers {
            self.world.node(*host, |node, now| {
                node.events.clear();
                node.dht.lookup(now, TOPIC)
            });
        }
        self.world.net.run_for(secs(30));
        let mut found = 0;
        for host in &askers {
            let events = self.world.node(*host, |node, _| std::mem::take(&mut node.events));
            let is_over = |event: &DhtEvent| matches!(event, DhtEvent::Done { outcome: Outcome::Ended { .. }, .. });
            assert!(events.iter().any(is_over), "a lookup ends, whoever answers it");
            found += usize::from(events.iter().any(|event| {
                matches!(event, DhtEvent::Peers { peers, .. } if peers.iter().any(|peer| peer.public_key == key))
            }));
        }
        let honest = self.world.nodes.iter().map(|host| (distance(self.world.net.server_address(*host)), false));
        let mut all: Vec<(Key, bool)> = honest.chain(self.sybils.iter().map(|node| (distance(*node), true))).collect();
        all.sort_unstable();
        let closest = all.iter().take(20).filter(|(_, is_sybil)| *is_sybil).count();
        let hosts = self.hosts.len();
        Report { sybils: self.sybils.len(), hosts, closest, keepers, found, lookups: askers.len() }
    }
}

/// What JavaScript's nodes do.
fn unlimited() -> RpcLimits {
    RpcLimits { nodes_per_subnet: 20, closest_per_subnet: 20, ..RpcLimits::default() }
}

fn attack(honest: usize, hosts: usize, limits: RpcLimits, sizes: &[usize]) -> Vec<Report> {
    let mut attack = Attack::new(honest, hosts, limits, 95);
    let reports = sizes.iter().map(|size| {
        attack.grow(*size);
        let report = attack.report();
        println!("{report:?}");
        report
    });
    reports.collect()
}

fn assert_found(reports: &[Report]) {
    for report in reports {
        assert!(report.closest >= 12 && report.keepers >= 10 && report.found == report.lookups, "{report:?}");
    }
}

#[test]
fn two_hosts_do_not_hide_a_topic() {
    assert_found(&attack(150, 2, RpcLimits::default(), &[12, 50]));
}

#[test]
#[ignore = "takes minutes; run it by name, in release mode"]
fn two_hosts_do_not_hide_a_topic_among_a_thousand() {
    println!("without limits");
    attack(1000, 2, unlimited(), &[12, 50, 500]);
    println!("with limits");
    assert_found(&attack(1000, 2, RpcLimits::default(), &[12, 50, 500]));
    println!("what it takes: hosts in networks of their own");
    for hosts in [4, 7, 10] {
        attack(1000, hosts, RpcLimits::default(), &[500]);
    }
}
