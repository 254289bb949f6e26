//! Connections by public key: Noise IK over the DHT, then the shortest way that works.

pub mod client;
pub mod payload;
pub mod server;
