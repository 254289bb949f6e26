//! Peers: how blocks travel between the holders of a core, and why none of them needs trust.
//!
//! Modules in reading order, from a core outwards:
//!
//! ```text
//! error          what ends a connection
//! protocol       the messages of a core's channel, and the proof that both sides know its key
//! replicator     one core and its peers: what to ask of whom, what to give
//! secret_stream  an encrypted stream: Noise XX, then secretstream frames
//! protomux       channels over one stream
//! connection     one stream with its channels, a core on each
//! node           many cores, many connections
//! driver         where all of that meets sockets, threads and time
//! transport      a way to reach a peer: TCP; and a made-up network for tests
//! udp            words that all of the following share: sockets by number, datagrams to send
//! udx            reliable streams over UDP
//! dht            the HyperDHT: who is there, where, and how to reach them behind their NATs
//! swarm          which peers to be connected to, by topic; and all of the above as one machine, the endpoint
//! ```
//!
//! What must stay true: protocol logic does no I/O (`handle_*` in, `poll_*` out, time as an argument); only the driver and transports touch sockets; this
//! crate sees cores, proofs and wants, and does not know what a bee is. What a hostile peer can and cannot do is in `README.md` beside this crate.

pub mod connection;
pub mod dht;
pub mod driver;
pub mod error;
pub mod node;
pub mod protocol;
pub mod protomux;
pub mod replicator;
pub mod secret_stream;
pub mod swarm;
pub mod transport;
pub mod udp;
pub mod udx;

pub use driver::{Network, NetworkOptions, PeerInfo, RemoteInfo};
