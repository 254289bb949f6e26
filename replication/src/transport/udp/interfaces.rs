//! This computer's own IPv4 addresses: what others on the same network reach it by.
//!
//! Neither std nor socket2 can list them; `if-addrs` asks the operating system (getifaddrs, or what Windows has for it) and does nothing else.
//!
//! What must stay true: loopback addresses are named only by who is bound to one, for nobody else could use them.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// The addresses that a socket bound to `host` and `port` has: sorted; none if the operating system does not tell.
pub fn local_addresses(host: Ipv4Addr, port: u16) -> Vec<SocketAddrV4> {
    let at = |host| SocketAddrV4::new(host, port);
    if !host.is_unspecified() {
        return vec![at(host)];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<SocketAddrV4> = interfaces
        .into_iter()
        .filter_map(|interface| match interface.ip() {
            IpAddr::V4(host) if !host.is_loopback() && !host.is_unspecified() => Some(at(host)),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::local_addresses;

    #[test]
    fn a_bound_host_is_the_only_one() {
        let host = Ipv4Addr::LOCALHOST;
        assert_eq!(local_addresses(host, 7), ["127.0.0.1:7".parse().expect("an address")]);
    }

    #[test]
    fn all_hosts_are_this_computers_without_loopback() {
        let found = local_addresses(Ipv4Addr::UNSPECIFIED, 7);
        for address in &found {
            assert!(!address.ip().is_loopback());
            assert_eq!(address.port(), 7);
            // Only an own address can be bound.
            std::net::UdpSocket::bind((*address.ip(), 0)).expect("it is ours");
        }
        assert!(found.is_sorted());
    }
}
