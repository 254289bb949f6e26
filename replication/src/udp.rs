//! Words that everything over UDP shares: sockets known by number, datagrams to be sent, randomness that a test can fix.
//!
//! The machines of this crate (`udx`, `dht`, `swarm`) own no socket. They are given datagrams with the number of the socket they came in on, and give out
//! [`Transmit`]s; whoever drives them, tokio or a simulated network, opens and closes sockets as they ask ([`SocketChange`]).
//!
//! What must stay true: addresses are IPv4, as the DHT's are; the numbers of closed sockets are not used again.

use std::net::SocketAddrV4;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Time since whoever drives a machine began.
pub type Now = Duration;

/// One UDP socket of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

impl SocketId {
    /// The socket whose port others are told of; it is open from the beginning.
    pub const SERVER: SocketId = SocketId(0);
    /// The socket that requests leave from while we may be behind a NAT; it is open from the beginning.
    pub const CLIENT: SocketId = SocketId(1);
}

/// One datagram to send, or several of one size to one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where it leaves.
    pub socket: SocketId,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// Hops it may take; None for the usual.
    pub ttl: Option<u8>,
    /// The payload is several datagrams of this size (the last may be smaller); None for one.
    pub segment: Option<usize>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Transmit {
    /// One datagram.
    pub fn new(socket: SocketId, to: SocketAddrV4, payload: Vec<u8>) -> Transmit {
        Transmit { socket, to, ttl: None, segment: None, payload }
    }
}

/// What a machine wants done with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketChange {
    /// Open one on a free port, under this number.
    Open(SocketId),
    /// Close it.
    Close(SocketId),
}

/// Random bytes from one seed: the operating system's, or a test's.
pub struct Random(ChaCha20Rng);

impl Random {
    /// From a seed.
    pub fn new(seed: [u8; 32]) -> Random {
        Random(ChaCha20Rng::from_seed(seed))
    }
    /// N random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
    /// A number below a bound; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply and take the upper half: the bias is below 2^-32 for every bound in use.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }
    /// Another source, which goes its own way from here.
    pub fn fork(&mut self) -> Random {
        Random::new(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_fixes_everything() {
        let (mut a, mut b) = (Random::new([7; 32]), Random::new([7; 32]));
        assert_eq!(a.bytes::<40>(), b.bytes::<40>());
        assert_eq!(a.fork().below(1000), b.fork().below(1000));
        assert!((0..1000).all(|_| a.below(7) < 7));
        assert_eq!(a.below(0), 0);
    }
}
