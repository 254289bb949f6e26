//! Which addresses are worth trying: those of special ranges, and those on a network that is also ours.
//!
//! What must stay true: the ranges and the choice are those of JavaScript, for both sides of a connection take the same decisions from the same lists.
//!
//! Sources: the bogon package; `matchAddress` in hyperdht `lib/holepuncher.js`. Vectors: `tests/vectors/swarm/lan-match.json`.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::dht::rpc::scope::Scope;

/// Addresses of private networks, carriers' NATs, links and this host: they may work, and only from nearby.
pub fn is_private(ip: Ipv4Addr) -> bool {
    Scope::of_host(ip) < Scope::Public
}

/// Addresses that no host has: documentation, benchmarks, multicast, the future.
pub fn is_reserved(ip: Ipv4Addr) -> bool {
    matches!(
        ip.octets(),
        [0, ..] | [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..]
    )
}

/// Addresses that nobody on the internet has.
pub fn is_bogon(ip: Ipv4Addr) -> bool {
    is_private(ip) || is_reserved(ip)
}

/// A datagram can be sent there at all: an address of a stranger may have port 0.
pub fn is_reachable(address: SocketAddrV4) -> bool {
    address.port() != 0
        && !address.ip().is_unspecified()
        && !address.ip().is_multicast()
        && !address.ip().is_broadcast()
}

/// The address of the other side that shares most leading bytes, at least one and at most three, with one of ours; the first of those that share as many.
pub fn nearest(ours: &[SocketAddrV4], theirs: &[SocketAddrV4]) -> Option<SocketAddrV4> {
    let mut best = None;
    let mut shared_most = 0;
    for own in ours {
        for remote in theirs {
            let pairs = own.ip().octets().into_iter().zip(remote.ip().octets());
            let shared = pairs.take(3).take_while(|(a, b)| a == b).count();
            if shared > shared_most {
                shared_most = shared;
                best = Some(*remote);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors::read;
    use serde_json::Value;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_network_we_share_is_that_of_javascript() {
        let hosts = |value: &Value| -> Vec<SocketAddrV4> {
            let hosts = value.as_array().expect("hosts").iter();
            hosts.map(|host| SocketAddrV4::new(ip(host.as_str().expect("a host")), 1)).collect()
        };
        let vectors = read("swarm/lan-match");
        let cases = vectors["cases"].as_array().expect("cases");
        for case in cases {
            let found =
                nearest(&hosts(&case["local"]), &hosts(&case["remote"])).map(|address| address.ip().to_string());
            assert_eq!(found.as_deref(), case["match"].as_str(), "{case}");
        }
        assert_eq!(cases.len(), 4);
        assert_eq!(nearest(&[], &[SocketAddrV4::new(ip("1.2.3.4"), 1)]), None);
    }

    #[test]
    fn ranges_end_where_they_should() {
        for (private, public) in [
            ("10.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.63.255.255"),
            ("100.127.255.255", "100.128.0.0"),
            ("127.0.0.1", "128.0.0.1"),
            ("169.254.0.0", "169.253.255.255"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.168.0.0", "192.167.255.255"),
        ] {
            assert!(is_private(ip(private)) && is_bogon(ip(private)) && !is_reserved(ip(private)), "{private}");
            assert!(!is_bogon(ip(public)), "{public}");
        }
        for (reserved, public) in [
            ("0.0.0.0", "1.0.0.0"),
            ("192.0.0.255", "192.0.1.0"),
            ("192.0.2.0", "192.0.3.0"),
            ("198.18.0.0", "198.17.255.255"),
            ("198.19.255.255", "198.20.0.0"),
            ("198.51.100.1", "198.51.101.0"),
            ("203.0.113.9", "203.0.114.0"),
            ("224.0.0.0", "223.255.255.255"),
            ("255.255.255.255", "8.8.8.8"),
        ] {
            assert!(is_reserved(ip(reserved)) && is_bogon(ip(reserved)) && !is_private(ip(reserved)), "{reserved}");
            assert!(!is_bogon(ip(public)), "{public}");
        }
    }

    #[test]
    fn nothing_is_sent_where_nothing_can_be() {
        for (address, reachable) in [
            ("1.2.3.4:5", true),
            ("127.0.0.1:5", true),
            ("1.2.3.4:0", false),
            ("0.0.0.0:5", false),
            ("224.0.0.1:5", false),
        ] {
            assert_eq!(is_reachable(address.parse().expect("an address")), reachable, "{address}");
        }
    }
}
