//! Many nodes that come and go: do lookups still find who announced, and what does it cost each node?

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use pgbee_replication::dht::DhtEvent;
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::transport::simulated;
use pgbee_replication::transport::simulated_udp::{Conditions, HostId};

use crate::world::{Key, World, secs};

/// Those who announce do it anew this often: the swarm's ten minutes and the middle of its jitter.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(660);
/// What a lookup may take.
const LOOKUP_TIME: Duration = Duration::from_secs(30);

/// What to simulate.
struct Crowd {
    nodes: usize,
    hours: u64,
    /// Of a hundred nodes so many go within an hour; as many come.
    churn_percent: usize,
    /// Topics, each announced by a node of its own that stays.
    topics: usize,
    /// Lookups from any nodes, evenly over the time.
    lookups_an_hour: u64,
}

/// What it showed; printed.
#[derive(Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
struct Report {
    nodes: usize,
    /// Datagrams that a node sent in an hour, after the first one.
    messages_a_node_an_hour: f64,
    table_mean: f64,
    table_max: usize,
    lookups: usize,
    found: usize,
}

impl Crowd {
    fn run(&self, seed: u8) -> Report {
        let mut world = World::new(seed, Conditions { jitter: Duration::ZERO, ..Conditions::default() }, 0);
        let mut chance = simulated::Random::new(u64::from(seed));
        for n in 0..self.nodes {
            world.add_node();
            // The first few one by one, the others in crowds.
            if n < 20 || n % 10 == 0 {
                world.net.run_for(Duration::from_millis(200));
            }
        }
        world.net.run_for(secs(60));
        let announcers: Vec<(HostId, Key, Key)> = (0..self.topics)
            .map(|n| (world.nodes[1 + n], [n as u8 + 1; 32], Identity::from_seed([n as u8 + 1; 32]).public_key()))
            .collect();
        let mut running: BTreeMap<HostId, (Key, Duration)> = BTreeMap::new();
        let (mut lookups, mut found) = (0, 0);
        let hour = secs(3600);
        let churn_every = (self.nodes * self.churn_percent > 0)
            .then(|| hour.mul_f64(100.0 / (self.nodes * self.churn_percent) as f64));
        let lookup_every = hour.div_f64(self.lookups_an_hour as f64);
        let began = world.net.now();
        let (mut churn_at, mut lookup_at, mut announce_at) =
            (began + churn_every.unwrap_or(hour), began + secs(60), began);
        let mut sent_before = 0;
        let mut measured_from = began;
        while world.net.now() < began + hour * self.hours as u32 {
            let now = world.net.now();
            if now >= announce_at {
                for (n, (host, topic, _)) in announcers.iter().enumerate() {
                    let identity = Identity::from_seed([n as u8 + 1; 32]);
                    world.node(*host, |node, now| node.dht.announce(now, *topic, &identity, Vec::new()));
                }
                announce_at += ANNOUNCE_EVERY;
            }
            if let Some(every) = churn_every
                && now >= churn_at
            {
                // The bootstrap node and the announcers stay.
                let at = 1 + self.topics + chance.below((self.nodes - self.topics - 1) as u64) as usize;
                let host = world.nodes[at];
                running.remove(&host);
                world.net.take_down(host);
                // In its place, that is at its address, comes another one later; here at once, for the number to stay.
                world.revive_node(host);
                churn_at += every;
            }
            if now >= lookup_at {
                let host = world.nodes[chance.below(self.nodes as u64) as usize];
                if let Entry::Vacant(idle) = running.entry(host) {
                    let topic = announcers[chance.below(self.topics as u64) as usize].1;
                    world.node(host, |node, now| {
                        node.events.clear();
                        node.dht.lookup(now, topic)
                    });
                    idle.insert((topic, now + LOOKUP_TIME));
                }
                lookup_at += lookup_every;
            }
            let due: Vec<HostId> =
                running.iter().filter(|(_, (_, until))| *until <= now).map(|(host, _)| *host).collect();
            for host in due {
                let Some((topic, _)) = running.remove(&host) else { continue };
                let wanted = announcers.iter().find(|(_, other, _)| *other == topic).map(|(_, _, key)| *key);
                let is_found = world.node(host, |node, _| {
                    std::mem::take(&mut node.events)
                        .into_iter()
                        .any(|event| matches!(event, DhtEvent::Peers { peers, .. } if peers.iter().any(|peer| Some(peer.public_key) == wanted)))
                });
                lookups += 1;
                found += usize::from(is_found);
            }
            if now >= began + hour && measured_from == began {
                (measured_from, sent_before) = (now, world.net.counts().sent);
            }
            let next = [
                Some(announce_at),
                churn_every.map(|_| churn_at),
                Some(lookup_at),
                running.values().map(|(_, until)| *until).min(),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(now + secs(1));
            world.net.run_for(next.saturating_sub(now).max(Duration::from_millis(1)));
        }
        let hours = (world.net.now() - measured_from).as_secs_f64() / 3600.0;
        let tables: Vec<usize> =
            world.nodes.clone().into_iter().map(|host| world.node(host, |node, _| node.dht.nodes_len())).collect();
        Report {
            nodes: self.nodes,
            messages_a_node_an_hour: (world.net.counts().sent - sent_before) as f64 / self.nodes as f64 / hours,
            table_mean: tables.iter().sum::<usize>() as f64 / tables.len() as f64,
            table_max: tables.iter().copied().max().unwrap_or(0),
            lookups,
            found,
        }
    }
}

impl Report {
    fn assert_found(&self, of_a_thousand: usize) {
        println!("{self:?}");
        assert!(self.lookups > 0 && self.found * 1000 >= self.lookups * of_a_thousand, "{self:?}");
    }
}

#[test]
fn a_small_crowd_for_an_hour() {
    let report = Crowd { nodes: 60, hours: 1, churn_percent: 20, topics: 3, lookups_an_hour: 200 }.run(80);
    report.assert_found(999);
}

#[test]
#[ignore = "a simulated day of a thousand nodes takes minutes; run it by name, in release mode"]
fn a_thousand_nodes_for_a_day() {
    Crowd { nodes: 1000, hours: 24, churn_percent: 20, topics: 20, lookups_an_hour: 1000 }.run(81).assert_found(999);
}

/// Costs grow like the logarithm of the number of nodes: ten times as many nodes cost as much more each time, not ten times as much.
fn assert_logarithmic(reports: &[Report]) {
    for report in reports {
        report.assert_found(999);
    }
    for pair in reports.windows(2) {
        assert!(pair[1].messages_a_node_an_hour < pair[0].messages_a_node_an_hour * 3.0 + 2000.0, "{pair:?}");
        assert!(pair[1].table_mean < pair[0].table_mean * 3.0 + 60.0, "{pair:?}");
    }
}

fn sizes(sizes: &[usize]) -> Vec<Report> {
    sizes
        .iter()
        .map(|nodes| Crowd { nodes: *nodes, hours: 2, churn_percent: 20, topics: 3, lookups_an_hour: 500 }.run(82))
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
