//! Tools of the tests: a pgbee server in a process of its own, and a wire client that shows every byte's meaning.
//!
//! The server under test is the `pgbee` binary beside the test's own executable (`make test` builds it first), always on a free loopback port and in a
//! fresh directory.

mod ask;
mod javascript;
mod link;
mod server;
mod udp_link;
mod wire;

pub use ask::{ask, client, told};
pub use javascript::{JavaScript, hex, install_packages};
pub use link::Link;
pub use server::{Server, binary, repository, swarm_of};
pub use udp_link::{UdpLink, Weather};
pub use wire::{Answer, Client, WireError};
