//! Peers: how blocks travel between the holders of a core, and why none of them needs trust.
//!
//! This crate is the house before its furniture: the modules below are empty but for what they will hold, so that the invariants of the workspace
//! (who may know whom) are in force from the start. Nothing here answers a peer yet.
//!
//! ```text
//! transport      a way to reach a peer: TCP, UDX, a simulated network
//! secret_stream  an encrypted stream: Noise XX, then secretstream frames
//! protomux       channels over one stream
//! protocol       the hypercore channel's messages and capabilities
//! replicator     one core and its peers: what to ask of whom, what to give
//! driver         where the state machines above meet sockets
//! ```
//!
//! What will stay true: protocol logic does no I/O (`handle_*` in, `poll_*` out, time as an argument); only drivers and transports touch sockets; this crate sees cores,
//! proofs and wants, and does not know what a bee is.

pub mod connection;
pub mod driver;
pub mod error;
pub mod node;
pub mod protocol;
pub mod protomux;
pub mod replicator;
pub mod secret_stream;
pub mod transport;

pub use driver::{Network, NetworkOptions, PeerInfo, RemoteInfo};
