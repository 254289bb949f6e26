//! What others say our address is.
//!
//! Every reply tells where the request seemed to come from. Of the latest 16 such samples, each of an exact address and of its host alone, all must agree (of
//! 3), all but one (of 7), two (of 11), or three:
//!
//! ```text
//! the exact address agrees   host and port      a NAT that keeps one port for all, or none
//! only the host agrees       host, no port      a NAT with another port for each
//! nothing agrees             nothing yet
//! ```
//!
//! What must stay true: the same samples give the same result as in JavaScript (the vectors), quirks included: a sample is compared with the last four only.
//! Source: nat-sampler `index.js`.

use std::net::{Ipv4Addr, SocketAddrV4};

const SLOTS: usize = 32;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    /// Exact addresses at even places, their hosts (port 0) at odd ones; places in `tallies`.
    slots: Vec<usize>,
    tallies: Vec<Tally>,
    top: usize,
    size: u32,
    threshold: u32,
    best_address: Option<usize>,
    best_host: Option<usize>,
    result: Option<SocketAddrV4>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    address: SocketAddrV4,
    hits: u32,
}

impl Sampler {
    /// The host that the samples agree on.
    pub fn host(&self) -> Option<Ipv4Addr> {
        self.result.map(|address| *address.ip())
    }

    /// The port that they agree on.
    pub fn port(&self) -> Option<u16> {
        self.result.map(|address| address.port()).filter(|&port| port != 0)
    }

    /// Both.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.result.filter(|address| address.port() != 0)
    }

    /// How many samples there are, at most 16.
    pub fn count(&self) -> u32 {
        self.size
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// One more says that this is our address.
    pub fn add(&mut self, address: SocketAddrV4) {
        let exact = self.bump(address, 2);
        let host = self.bump(SocketAddrV4::new(*address.ip(), 0), 1);
        if self.slots.len() < SLOTS {
            self.size += 1;
            self.threshold = self.size - [0, 1, 2, 3][(self.size as usize / 4).min(3)];
            self.slots.extend([exact, host]);
            self.top += 2;
        } else {
            self.top %= SLOTS;
            self.replace(exact);
            self.replace(host);
        }
        let hits = |tally: usize| self.tallies[tally].hits;
        let best = |best: Option<usize>, new: usize| Some(best.filter(|&best| hits(best) >= hits(new)).unwrap_or(new));
        (self.best_address, self.best_host) = (best(self.best_address, exact), best(self.best_host, host));
        self.result = [self.best_address, self.best_host]
            .into_iter()
            .flatten()
            .map(|tally| self.tallies[tally])
            .find(|tally| tally.hits >= self.threshold)
            .map(|tally| tally.address);
    }

    fn replace(&mut self, tally: usize) {
        let gone = std::mem::replace(&mut self.slots[self.top], tally);
        self.tallies[gone].hits -= 1;
        self.top += 1;
    }

    /// The tally of an address, which has one more hit: that of one of the last four samples, or a new one.
    fn bump(&mut self, address: SocketAddrV4, behind: usize) -> usize {
        for i in 0..4 {
            let slot = (self.top + 2 * SLOTS - behind - 2 * i) % SLOTS;
            let Some(&tally) = self.slots.get(slot) else { break };
            if self.tallies[tally].address == address {
                self.tallies[tally].hits += 1;
                return tally;
            }
        }
        let tally = Tally { address, hits: 1 };
        let is_free = |&place: &usize| {
            self.tallies[place].hits == 0 && ![self.best_address, self.best_host].contains(&Some(place))
        };
        match (0..self.tallies.len()).find(is_free) {
            Some(place) => {
                self.tallies[place] = tally;
                place
            }
            None => {
                self.tallies.push(tally);
                self.tallies.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors::read;

    #[test]
    fn vectors() {
        for case in read("swarm/nat-sampler")["cases"].as_array().expect("cases") {
            let mut sampler = Sampler::default();
            for (at, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
                let host = step["host"].as_str().expect("a host").parse().expect("a host");
                sampler.add(SocketAddrV4::new(host, step["port"].as_u64().expect("a port") as u16));
                let expected = step["result_host"].as_str().map(|host| host.parse::<Ipv4Addr>().expect("a host"));
                assert_eq!(sampler.host(), expected, "{} {at}", case["name"]);
                assert_eq!(
                    u64::from(sampler.port().unwrap_or(0)),
                    step["result_port"].as_u64().expect("a port"),
                    "{} {at}",
                    case["name"]
                );
            }
        }
    }

    #[test]
    fn it_stays_small() {
        let mut sampler = Sampler::default();
        for n in 0..10_000u32 {
            sampler.add(SocketAddrV4::new(Ipv4Addr::from(n % 97), (n % 11) as u16 + 1));
            assert!(sampler.tallies.len() <= SLOTS + 4, "{}", sampler.tallies.len());
        }
    }
}
