//! How much work strangers may cause: tokens that come back with time, for each host and for all hosts together.
//!
//! ```text
//! bucket   full at `burst`; each handshake takes one token; `per_second` tokens come back
//! ```
//!
//! What must stay true: memory is bounded by [`HOSTS_MAX`]; a host that was forgotten and comes back has a full bucket again, so that of all hosts
//! bounds the work; that of a host keeps one alone from using up the others' share.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::udp::Now;

/// How many hosts are told apart at once.
pub const HOSTS_MAX: usize = 1024;

/// A pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// As many at once.
    pub burst: u32,
    /// As many a second in the long run.
    pub per_second: u32,
}

/// Counts what each host and all hosts cause.
pub struct Limit {
    a_host: Pace,
    all: Pace,
    total: Bucket,
    hosts: HashMap<Ipv4Addr, Bucket>,
}

impl Limit {
    /// Full buckets.
    pub fn new(a_host: Pace, all: Pace) -> Limit {
        Limit { a_host, all, total: Bucket { spent: 0.0, at: Duration::ZERO }, hosts: HashMap::new() }
    }

    /// Takes a token for this host, if it and all hosts together have one left.
    pub fn take(&mut self, now: Now, host: Ipv4Addr) -> bool {
        if !self.hosts.contains_key(&host) && !self.make_room(now) {
            return false;
        }
        let bucket = self.hosts.entry(host).or_insert(Bucket { spent: 0.0, at: now });
        // The host first: one that is over its share does not use up that of all.
        bucket.has(now, self.a_host) && self.total.has(now, self.all) && {
            bucket.spent += 1.0;
            self.total.spent += 1.0;
            true
        }
    }

    /// Takes a token for a host that has no share of its own.
    pub fn take_of_all(&mut self, now: Now) -> bool {
        let has = self.total.has(now, self.all);
        self.total.spent += f64::from(u8::from(has));
        has
    }

    /// Forgets hosts whose buckets are full again. Only when so many hosts are busy at once that none is, a new one is refused.
    fn make_room(&mut self, now: Now) -> bool {
        if self.hosts.len() >= HOSTS_MAX && self.total.has(now, self.all) {
            let pace = self.a_host;
            self.hosts.retain(|_, bucket| bucket.refill(now, pace) > 0.0);
        }
        self.hosts.len() < HOSTS_MAX
    }
}

struct Bucket {
    /// Tokens that are gone and have not come back.
    spent: f64,
    at: Now,
}

impl Bucket {
    fn refill(&mut self, now: Now, pace: Pace) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.spent = (self.spent - passed * f64::from(pace.per_second)).max(0.0);
        self.at = now;
        self.spent
    }

    fn has(&mut self, now: Now, pace: Pace) -> bool {
        self.refill(now, pace) + 1.0 <= f64::from(pace.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_HOST: Pace = Pace { burst: 3, per_second: 1 };
    const ALL: Pace = Pace { burst: 10, per_second: 5 };

    fn taken(limit: &mut Limit, at_ms: u64, host: u32, tries: usize) -> usize {
        (0..tries).filter(|_| limit.take(Duration::from_millis(at_ms), Ipv4Addr::from_bits(host))).count()
    }

    #[test]
    fn a_host_gets_its_share_and_no_more() {
        let mut limit = Limit::new(A_HOST, ALL);
        assert_eq!(taken(&mut limit, 0, 1, 100), 3);
        assert_eq!(taken(&mut limit, 999, 1, 100), 0);
        assert_eq!(taken(&mut limit, 2_000, 1, 100), 2);
        assert_eq!(taken(&mut limit, 2_000, 2, 100), 3, "others are not held up");
    }

    #[test]
    fn all_hosts_together_get_no_more_than_the_total() {
        let mut limit = Limit::new(A_HOST, ALL);
        let sum: usize = (0..100).map(|host| taken(&mut limit, 0, host, 2)).sum();
        assert_eq!(sum, 10);
        let sum: usize = (0..100).map(|host| taken(&mut limit, 1_000, host, 2)).sum();
        assert_eq!(sum, 5);
    }

    #[test]
    fn a_crowd_of_hosts_costs_bounded_memory() {
        let mut limit = Limit::new(A_HOST, Pace { burst: 100_000, per_second: 10_000 });
        for host in 0..20_000 {
            limit.take(Duration::from_micros(u64::from(host) * 100), Ipv4Addr::from_bits(host));
            assert!(limit.hosts.len() <= HOSTS_MAX);
        }
        assert!(limit.take(Duration::from_secs(1000), Ipv4Addr::from_bits(7)), "and it ends when they do");
    }
}
