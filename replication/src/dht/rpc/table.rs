//! The Kademlia table.
