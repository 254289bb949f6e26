//! What strangers may cost: requests a host may make, and bytes we send to those who have not shown that they are where they say.
//!
//! A request may be forged to come from a victim, who then gets the reply. A node of JavaScript's sends requests of 43 bytes and counts on up to 20 nodes (121
//! bytes), a token, an id, and records in the reply, so a reply cannot be no larger than its request. What a reply is larger is paid for instead:
//!
//! ```text
//! the request shows a valid token                       free
//! to our own machine                                    free
//! the host answered us within the last minutes          a quarter, from what its /24 may have
//! anybody else                                          all of it, from what its /24 may have and from what all strangers may have together
//! ```
//!
//! A reply more than six times as large as its request waits, before all that, until its receiver has answered a ping; whoever is there loses one round trip by
//! that, once in five minutes.
//!
//! Where that does not suffice, a reply has fewer nodes in it, down to twice the request, which is free ([`Limits::reply_bytes_max`]); one with a value that is
//! larger is not sent, and its requester asks again.
//!
//! What must stay true: whatever strangers send, what we send to hosts that showed nothing is at most twice what came (or 64 bytes a request: a head and an id fit),
//! and [`RpcLimits::unproven_bytes`] a second, with four seconds' worth at once (sixteen for one /24); nothing here grows beyond its limit.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::options::RpcLimits;
use super::recent::Recent;
use super::scope::{Scope, subnet};
use crate::udp::Now;

/// How long an answer shows that a host is where it is.
const PROVEN_FOR: Duration = Duration::from_secs(300);
const BYTES_BURST: Duration = Duration::from_secs(4);
/// A network asks little, but all at once: when its hosts begin.
const SUBNET_BURST: Duration = Duration::from_secs(16);
const REQUESTS_BURST: Duration = Duration::from_secs(2);
/// What is sent to anybody: a reply with an id and nothing else.
const FREE_BYTES: usize = 64;

/// See the module.
pub struct Limits {
    options: RpcLimits,
    requests: Recent<Ipv4Addr, Now>,
    subnets: Recent<[u8; 3], Now>,
    everybody: Now,
    proven: Recent<Ipv4Addr, Now>,
}

impl Limits {
    /// Nobody has cost anything yet.
    pub fn new(options: RpcLimits) -> Limits {
        let max = options.remembered_max;
        Limits {
            options,
            requests: Recent::new(max),
            subnets: Recent::new(max),
            everybody: Duration::ZERO,
            proven: Recent::new(max),
        }
    }

    /// Whether a host may make one more request.
    pub fn admits(&mut self, now: Now, from: SocketAddrV4) -> bool {
        let is_loopback = from.ip().is_loopback();
        let rate = if is_loopback { self.options.requests_per_loopback_host } else { self.options.requests_per_host };
        let spent = self.requests.entry(*from.ip(), || now);
        let Some(after) = charged(*spent, now, 1, rate, REQUESTS_BURST) else { return false };
        *spent = after;
        true
    }

    /// A host answered us, or showed a token: it is where it says.
    pub fn prove(&mut self, now: Now, host: Ipv4Addr) {
        self.proven.insert(host, now + PROVEN_FOR);
    }

    /// Whether it did so within the last minutes.
    pub fn is_proven(&mut self, now: Now, host: Ipv4Addr) -> bool {
        self.proven.get_mut(&host).is_some_and(|until| now < *until)
    }

    /// How many bytes of a reply may be sent to a requester who sent `request` bytes and showed no token; `reply`, if that is paid for.
    pub fn reply_bytes_max(&mut self, now: Now, to: SocketAddrV4, request: usize, reply: usize) -> usize {
        let free = (2 * request).max(FREE_BYTES);
        if reply <= free || Scope::of(to) == Some(Scope::Loopback) || self.pay(now, *to.ip(), (reply - request) as u32)
        {
            return reply;
        }
        free
    }

    fn pay(&mut self, now: Now, host: Ipv4Addr, bytes: u32) -> bool {
        let is_proven = self.is_proven(now, host);
        let options = &self.options;
        let share = if is_proven { bytes.div_ceil(4) } else { bytes };
        let of_subnet = self.subnets.entry(subnet(host), || now);
        let Some(subnet_after) = charged(*of_subnet, now, share, options.unproven_bytes_per_subnet, SUBNET_BURST)
        else {
            return false;
        };
        if !is_proven {
            let Some(after) = charged(self.everybody, now, bytes, options.unproven_bytes, BYTES_BURST) else {
                return false;
            };
            self.everybody = after;
        }
        *of_subnet = subnet_after;
        true
    }
}

/// A bucket that leaks `rate` units a second and holds `burst` of time, as the time at which it will be empty: that time with `units` more in it, or `None` if
/// they do not fit.
pub(in crate::dht) fn charged(empty_at: Now, now: Now, units: u32, rate: u32, burst: Duration) -> Option<Now> {
    let after = empty_at.max(now) + Duration::from_nanos(u64::from(units) * 1_000_000_000 / u64::from(rate.max(1)));
    (after <= now + burst).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(RpcLimits { remembered_max: 64, ..RpcLimits::default() })
    }

    fn address(n: u32) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(0x0808_0000 + n), 9)
    }

    #[test]
    fn a_host_has_a_burst_and_a_rate() {
        let mut limits = limits();
        let admitted = |limits: &mut Limits, ms| {
            (0..1000).filter(|_| limits.admits(Duration::from_millis(ms), address(1))).count()
        };
        assert_eq!(admitted(&mut limits, 1000), 400);
        assert_eq!(admitted(&mut limits, 1500), 100);
        assert!(limits.admits(Duration::from_millis(1500), address(2)), "others are not touched");
    }

    #[test]
    fn bytes_to_strangers_are_bounded_by_subnet_and_in_all() {
        let mut limits = limits();
        let sent = |limits: &mut Limits, hosts: u32| -> usize {
            (0..hosts)
                .map(|n| limits.reply_bytes_max(Duration::from_secs(9), address(n), 43, 1243))
                .filter(|&bytes| bytes == 1243)
                .count()
        };
        assert_eq!(sent(&mut limits, 256), 4 * 16 * 1024 / 1200, "one /24");
        let all = sent(&mut limits, 256 * 256);
        assert!((700..=4 * 256 * 1024 / 1200).contains(&all), "{all} of all");
        assert_eq!(limits.reply_bytes_max(Duration::from_secs(9), address(77), 43, 1243), 86);
        assert!(limits.subnets.len() <= 128 && limits.requests.len() <= 128);
    }

    #[test]
    fn who_answered_pays_less() {
        let mut limits = limits();
        let now = Duration::from_secs(1);
        limits.prove(now, *address(1).ip());
        assert!(limits.is_proven(now + Duration::from_secs(299), *address(1).ip()));
        assert!(!limits.is_proven(now + Duration::from_secs(301), *address(1).ip()));
        let sent = (0..1000).filter(|_| limits.reply_bytes_max(now, address(1), 43, 1243) == 1243).count();
        assert_eq!(sent, 4 * 16 * 1024 / 300);
        assert_eq!(limits.reply_bytes_max(now, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), 43, 1243), 1243);
    }
}
