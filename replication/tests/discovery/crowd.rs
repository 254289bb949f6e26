//! Many nodes that come and go: do lookups still find who announced, and what does it cost each node?
//!
//! ```text
//! 3 bootstrap nodes         one of them is down at any time, each for 20 minutes; their addresses stay, what they knew is lost
//! open nodes                persistent from 20 minutes of their life on, as the protocol has it; those of the beginning from the beginning
//! every third node          behind a NAT of its own, of any kind: ephemeral for good
//! whoever goes              goes without a word and is silent for ever; whoever comes has a new address, a new id, and knows the bootstrap nodes only
//! every tenth node          announces a topic for as long as it lives, every 11 minutes; two share a topic
//! every node                looks up once an hour, from its tenth second on
//! a datagram in a hundred   is lost
//! ```
//!
//! Each lookup is judged by every announcement of its topic that is live: announced 15 s ago or longer, by a node that still runs. A lookup that ends without
//! having heard of one has failed for it.
//!
//! What must stay true: 999 of 1000 are found; what a node sends and knows grows like the logarithm of the number of nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use pgbee_replication::dht::{DhtEvent, OperationId};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::transport::simulated;
use pgbee_replication::transport::simulated_udp::{Conditions, HostId, Nat, Realm};
use pgbee_replication::udp::Now;

use crate::world::{Key, World, secs};

/// Those who announce do it anew this often: the swarm's ten minutes and the middle of its jitter.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(660);
/// An announcement is live from then on.
const ANNOUNCE_TIME: Duration = Duration::from_secs(15);
/// What a lookup may take.
const LOOKUP_TIME: Duration = Duration::from_secs(30);
/// A bootstrap node's share of being down.
const OUTAGE: Duration = Duration::from_secs(20 * 60);
const HOUR: Duration = Duration::from_secs(3600);
const BOOTSTRAP_NODES: usize = 3;
const BAD_NETWORK: Conditions = Conditions {
    delay: (Duration::from_millis(10), Duration::from_millis(60)),
    jitter: Duration::from_millis(2),
    losses_per_million: 10_000,
    duplicates_per_million: 0,
    reorders_per_million: 0,
    mtu: 1500,
    hops: 8,
};
/// What a node's requests are: dht-rpc's own, and all others.
const KINDS: [&str; 6] = ["ping", "ping NAT", "find node", "down hint", "delayed ping", "lookup, announce"];

/// What to simulate.
pub struct Crowd {
    pub nodes: usize,
    pub hours: u64,
    /// Of a hundred nodes so many go within an hour; as many come.
    pub churn_percent: usize,
    /// Of each node.
    pub lookups_an_hour: f64,
}

/// What it showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub nodes: usize,
    /// Datagrams that a node sent in an hour, after the first one.
    pub sent_an_hour: f64,
    /// Of these, requests of each of the [`KINDS`], and tries after the first.
    pub requests_an_hour: [f64; 6],
    pub retries_an_hour: f64,
    pub table_mean: f64,
    pub table_max: usize,
    /// Nodes that are persistent in the end, and that came and went.
    pub persistent: usize,
    pub gone: usize,
    pub lookups: usize,
    /// Live announcements that lookups were judged by, and those that they found.
    pub wanted: usize,
    pub found: usize,
}

/// What happens at a time.
enum Task {
    Churn,
    Lookup,
    Announce(HostId),
    Judge(HostId, OperationId, Key),
    /// The next bootstrap node goes down, the one that was comes back.
    Outage(usize),
}

/// An announcement.
struct Announced {
    topic: Key,
    key: Key,
    identity: Identity,
    live_from: Now,
}

struct Run<'a> {
    crowd: &'a Crowd,
    world: World,
    chance: simulated::Random,
    agenda: BTreeMap<(Now, u64), Task>,
    planned: u64,
    /// All nodes that run but the bootstrap nodes, and when they came.
    members: Vec<(HostId, Now)>,
    announced: BTreeMap<HostId, Announced>,
    came: u64,
    report: Report,
    tally: Tally,
}

/// Requests and hours of all nodes, those that are gone too.
#[derive(Default)]
struct Tally {
    requests: [u64; 6],
    retries: u64,
    hours: f64,
}

impl Crowd {
    pub fn run(&self, seed: u8) -> Report {
        let mut run = Run {
            crowd: self,
            world: World::new(seed, BAD_NETWORK, 0),
            chance: simulated::Random::new(u64::from(seed)),
            agenda: BTreeMap::new(),
            planned: 0,
            members: Vec::new(),
            announced: BTreeMap::new(),
            came: 0,
            report: Report { nodes: self.nodes, ..Report::default() },
            tally: Tally::default(),
        };
        run.populate();
        run.live();
        run.reckon()
    }
}

impl Run<'_> {
    fn plan(&mut self, at: Now, task: Task) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), task);
    }

    fn populate(&mut self) {
        for _ in 0..BOOTSTRAP_NODES {
            let host = self.world.add_node();
            let address = self.world.net.server_address(host);
            if !self.world.bootstrap.contains(&address) {
                self.world.bootstrap.push(address);
            }
            self.world.net.run_for(secs(1));
        }
        for n in BOOTSTRAP_NODES..self.crowd.nodes {
            self.arrive(true);
            // The first few one by one, the others in crowds.
            if n < 20 || n % 10 == 0 {
                self.world.net.run_for(Duration::from_millis(200));
            }
        }
        self.world.net.run_for(secs(120));
    }

    /// A node comes, at an address where nobody was.
    fn arrive(&mut self, is_of_the_beginning: bool) {
        self.came += 1;
        let n = self.came;
        let nats = [Nat::PORT_RESTRICTED, Nat::SYMMETRIC, Nat::FULL_CONE, Nat::RESTRICTED];
        let host = if n.is_multiple_of(3) {
            let realm = self.world.net.add_nat(Realm::INTERNET, nats[(n / 3) as usize % nats.len()]);
            self.world.add_adaptive_node(realm)
        } else if is_of_the_beginning {
            self.world.add_node()
        } else {
            self.world.add_adaptive_node(Realm::INTERNET)
        };
        let now = self.world.net.now();
        self.members.push((host, now));
        if n % 10 == 5 {
            let mut topic = [0x44; 32];
            topic[..8].copy_from_slice(&(n / 20).to_le_bytes());
            let mut seed = [0x55; 32];
            seed[..8].copy_from_slice(&n.to_le_bytes());
            let identity = Identity::from_seed(seed);
            let at = now + secs(5 + self.chance.below(if is_of_the_beginning { 600 } else { 30 }));
            let announced = Announced { topic, key: identity.public_key(), identity, live_from: at + ANNOUNCE_TIME };
            self.announced.insert(host, announced);
            self.plan(at, Task::Announce(host));
        }
    }

    /// A node goes: any but the bootstrap nodes.
    fn depart(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let at = self.chance.below(self.members.len() as u64) as usize;
        let (host, came) = self.members.swap_remove(at);
        self.count(host, came);
        self.announced.remove(&host);
        self.world.net.take_down(host);
        self.report.gone += 1;
    }

    fn count(&mut self, host: HostId, came: Now) {
        let now = self.world.net.now();
        let rpc = self.world.node(host, |node, _| node.dht.stats().rpc);
        let kinds = rpc.internal_sent.into_iter().chain([rpc.others_sent]);
        self.tally.requests.iter_mut().zip(kinds).for_each(|(sum, count)| *sum += count);
        self.tally.retries += rpc.retries;
        self.tally.hours += now.saturating_sub(came).as_secs_f64() / 3600.0;
    }

    fn live(&mut self) {
        let began = self.world.net.now();
        let end = began + HOUR * self.crowd.hours as u32;
        let (mut measured_from, mut sent_before) = (began, self.world.net.counts().sent);
        if self.crowd.churn_percent > 0 {
            self.plan(began, Task::Churn);
        }
        self.plan(began + secs(60), Task::Lookup);
        self.plan(began + secs(600), Task::Outage(0));
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let task = entry.remove();
            self.world.net.run_for(at.saturating_sub(self.world.net.now()));
            if measured_from == began && self.crowd.hours > 1 && at >= began + HOUR {
                (measured_from, sent_before) = (self.world.net.now(), self.world.net.counts().sent);
            }
            self.perform(task);
        }
        let hours = self.world.net.now().saturating_sub(measured_from).as_secs_f64() / 3600.0;
        let sent = self.world.net.counts().sent - sent_before;
        self.report.sent_an_hour = sent as f64 / self.crowd.nodes as f64 / hours;
    }

    fn perform(&mut self, task: Task) {
        let now = self.world.net.now();
        match task {
            Task::Churn => {
                self.depart();
                self.arrive(false);
                self.plan(
                    now + HOUR.mul_f64(100.0 / (self.crowd.nodes * self.crowd.churn_percent) as f64),
                    Task::Churn,
                );
            }
            Task::Lookup => {
                self.begin_lookup();
                self.plan(now + HOUR.div_f64(self.crowd.lookups_an_hour * self.crowd.nodes as f64), Task::Lookup);
            }
            Task::Announce(host) => {
                let Some(Announced { topic, identity, .. }) = self.announced.get(&host) else { return };
                let (topic, identity) = (*topic, identity.clone());
                self.world.node(host, |node, now| node.dht.announce(now, topic, &identity, Vec::new()));
                self.plan(now + ANNOUNCE_EVERY, Task::Announce(host));
            }
            Task::Judge(host, operation, topic) => self.judge(host, operation, topic),
            Task::Outage(n) => {
                let hosts: Vec<HostId> = self.world.nodes[..BOOTSTRAP_NODES].to_vec();
                if let Some(before) = n.checked_sub(1) {
                    self.world.revive_node(hosts[before % BOOTSTRAP_NODES]);
                }
                self.world.net.take_down(hosts[n % BOOTSTRAP_NODES]);
                self.plan(now + OUTAGE, Task::Outage(n + 1));
            }
        }
    }

    fn begin_lookup(&mut self) {
        if self.members.is_empty() || self.announced.is_empty() {
            return;
        }
        let now = self.world.net.now();
        let (host, came) = self.members[self.chance.below(self.members.len() as u64) as usize];
        if now < came + secs(10) {
            return;
        }
        let nth = self.chance.below(self.announced.len() as u64) as usize;
        let Some(topic) = self.announced.values().nth(nth).map(|announced| announced.topic) else { return };
        let operation = self.world.node(host, |node, now| node.dht.lookup(now, topic));
        self.plan(now + LOOKUP_TIME, Task::Judge(host, operation, topic));
    }

    fn judge(&mut self, host: HostId, lookup: OperationId, topic: Key) {
        if self.world.net.machine(host).is_none() {
            return; // it went meanwhile
        }
        // What was live when the lookup began, and still is.
        let began = self.world.net.now() - LOOKUP_TIME;
        let live = self.announced.values().filter(|announced| announced.topic == topic && announced.live_from <= began);
        let live: Vec<Key> = live.map(|announced| announced.key).collect();
        let mut heard = Vec::new();
        self.world.node(host, |node, _| {
            for event in std::mem::take(&mut node.events) {
                match event {
                    DhtEvent::Peers { operation, peers, .. } if operation == lookup => {
                        heard.extend(peers.iter().map(|peer| peer.public_key));
                    }
                    // Of another lookup, which will be judged later.
                    DhtEvent::Peers { .. } => node.events.push(event),
                    _ => {}
                }
            }
        });
        self.report.lookups += usize::from(!live.is_empty());
        self.report.wanted += live.len();
        self.report.found += live.iter().filter(|key| heard.contains(key)).count();
    }

    fn reckon(mut self) -> Report {
        for (host, came) in self.members.clone() {
            self.count(host, came);
        }
        let tables: Vec<(usize, bool)> = self
            .members
            .iter()
            .map(|(host, _)| self.world.node(*host, |node, _| (node.dht.nodes_len(), node.dht.is_persistent())))
            .collect();
        let mut report = self.report;
        report.table_mean = tables.iter().map(|(len, _)| len).sum::<usize>() as f64 / tables.len().max(1) as f64;
        report.table_max = tables.iter().map(|(len, _)| *len).max().unwrap_or(0);
        report.persistent = tables.iter().filter(|(_, is_persistent)| *is_persistent).count();
        report.requests_an_hour = self.tally.requests.map(|count| count as f64 / self.tally.hours);
        report.retries_an_hour = self.tally.retries as f64 / self.tally.hours;
        report
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{:>6} nodes: {:.0} datagrams a node an hour; table {:.1} (max {}); {} persistent, {} gone; {} lookups, {} of {} live announcements found",
            self.nodes,
            self.sent_an_hour,
            self.table_mean,
            self.table_max,
            self.persistent,
            self.gone,
            self.lookups,
            self.found,
            self.wanted,
        );
        let kinds: Vec<String> =
            KINDS.iter().zip(self.requests_an_hour).map(|(kind, count)| format!("{kind} {count:.0}")).collect();
        println!("       requests a node an hour: {}; retries {:.0}", kinds.join(", "), self.retries_an_hour);
    }

    fn assert_found(&self) {
        self.print();
        assert!(self.wanted > 0 && self.found * 1000 >= self.wanted * 999, "{self:?}");
    }
}

#[test]
fn a_small_crowd_for_an_hour() {
    Crowd { nodes: 60, hours: 1, churn_percent: 20, lookups_an_hour: 4.0 }.run(80).assert_found();
}

#[test]
#[ignore = "a simulated day of a thousand nodes takes minutes; run it by name, in release mode"]
fn a_thousand_nodes_for_a_day() {
    Crowd { nodes: 1000, hours: 24, churn_percent: 20, lookups_an_hour: 1.0 }.run(81).assert_found();
}

/// Each tenfold number of nodes adds about the same; it does not multiply.
fn assert_logarithmic(reports: &[Report]) {
    for report in reports {
        report.assert_found();
    }
    // Below that, everybody is in every table.
    let reports: Vec<&Report> = reports.iter().filter(|report| report.nodes >= 100).collect();
    for pair in reports.windows(2) {
        assert!(pair[1].sent_an_hour < pair[0].sent_an_hour * 1.6, "{pair:?}");
        assert!(pair[1].table_mean < pair[0].table_mean + 20.0 * 10f64.log2() + 20.0, "{pair:?}");
    }
}

fn sizes(sizes: &[usize]) -> Vec<Report> {
    // Few nodes look up little: they get longer.
    let crowd =
        |&nodes| Crowd { nodes, hours: if nodes <= 100 { 24 } else { 2 }, churn_percent: 20, lookups_an_hour: 1.0 };
    sizes
        .iter()
        .map(|nodes| {
            let report = crowd(nodes).run(82);
            report.print();
            report
        })
        .collect()
}

#[test]
#[ignore = "takes minutes; run it by name, in release mode"]
fn costs_grow_like_the_logarithm() {
    assert_logarithmic(&sizes(&[10, 100, 1000]));
}

#[test]
#[ignore = "takes long and gigabytes; run it by name, in release mode"]
fn costs_grow_like_the_logarithm_to_ten_thousand() {
    assert_logarithmic(&sizes(&[10, 100, 1000, 10_000]));
}
