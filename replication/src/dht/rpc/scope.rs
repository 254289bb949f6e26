//! How far an address reaches, and who may be believed about it.
//!
//! ```text
//! loopback (127/8)  <  private (10/8, 172.16/12, 192.168/16, 100.64/10, 169.254/16)  <  public
//! ```
//!
//! What must stay true: a node is believed only about addresses that reach at least as far as its own. So a stranger on the internet cannot make us send
//! datagrams to this machine or into our local network, while a private network, or one on loopback, works without being told that it is one.

use std::net::{Ipv4Addr, SocketAddrV4};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// A local network, or that of a provider.
    Private,
    /// Everywhere.
    Public,
}

impl Scope {
    /// That of an address; `None` if no node can be there.
    pub fn of(address: SocketAddrV4) -> Option<Scope> {
        let first = address.ip().octets()[0];
        (address.port() != 0 && first != 0 && first < 224).then(|| Scope::of_host(*address.ip()))
    }

    /// That of a host, by its range alone.
    pub fn of_host(host: Ipv4Addr) -> Scope {
        let is_shared = matches!(host.octets(), [100, 64..=127, ..]);
        if host.is_loopback() {
            Scope::Loopback
        } else if host.is_private() || host.is_link_local() || is_shared {
            Scope::Private
        } else {
            Scope::Public
        }
    }
}

/// Whether a node may be believed that there is a node at an address.
pub fn is_believable(told_by: SocketAddrV4, about: SocketAddrV4) -> bool {
    Scope::of(about).is_some_and(|about| Some(about) >= Scope::of(told_by))
}

/// The /24 of a host.
pub fn subnet(host: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = host.octets();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address")
    }

    #[test]
    fn scopes() {
        let of = |text| Scope::of(address(text));
        assert_eq!(of("127.0.0.1:1"), Some(Scope::Loopback));
        for private in ["10.0.0.1:1", "192.168.0.1:1", "172.31.0.1:1", "100.64.0.1:1", "169.254.1.1:1"] {
            assert_eq!(of(private), Some(Scope::Private), "{private}");
        }
        for public in ["88.99.3.86:1", "100.128.0.1:1", "172.32.0.1:1"] {
            assert_eq!(of(public), Some(Scope::Public), "{public}");
        }
        for unusable in ["0.0.0.0:1", "0.1.2.3:1", "224.0.0.1:1", "255.255.255.255:1", "1.1.1.1:0"] {
            assert_eq!(of(unusable), None, "{unusable}");
        }
    }

    #[test]
    fn strangers_do_not_point_inwards() {
        let (loopback, private, public) = (address("127.0.0.1:9"), address("10.0.0.1:9"), address("1.1.1.1:9"));
        assert!(!is_believable(public, loopback) && !is_believable(public, private) && is_believable(public, public));
        assert!(!is_believable(private, loopback) && is_believable(private, private) && is_believable(private, public));
        assert!(is_believable(loopback, loopback) && is_believable(loopback, private));
        assert!(!is_believable(loopback, address("0.0.0.0:9")));
    }
}
