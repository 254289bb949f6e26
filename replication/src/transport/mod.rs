//! Ways to reach a peer: an ordered stream of bytes each, whose two ends trust nothing about it.
//!
//! ```text
//! tcp             a known `host:port`
//! udp             UDX streams to peers that the swarm found
//! simulated       made-up time, one seed: for tests
//! simulated_udp   the same for datagrams, with NATs
//! ```
//!
//! What must stay true: nothing above a transport depends on which one it is; a transport encrypts nothing and checks nothing, for the secret stream does.

pub mod simulated;
pub mod simulated_udp;
pub mod tcp;
pub mod udp;
