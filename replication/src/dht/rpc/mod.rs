//! dht-rpc: requests and replies over UDP among nodes that keep a Kademlia table.

pub mod message;
pub mod query;
pub mod sampler;
pub mod table;
