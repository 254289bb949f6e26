//! Whole endpoints on a made-up network: they find each other by a topic alone, behind NATs of every kind, whatever the network loses and strangers send.
//!
//! ```text
//! world.rs     the network: DHT nodes, endpoints that talk to whom they are connected to, and what they must hear
//! nats.rs      every pair of NATs: directly where it can be done, through a relay elsewhere
//! weather.rs   loss, duplicates, reordering, small packets, networks that part and change
//! crowd.rs     many nodes that come and go, for a day; the long ones are ignored by default
//! eclipse.rs   nodes with chosen ids that hide a topic
//! hostile.rs   mutated datagrams, floods, spoofed sources, liars
//! memory.rs    what floods leave behind
//! ```
//!
//! What must stay true: every test is fixed by its seed; whoever is connected has proved the key that the other side was told.

mod crowd;
mod eclipse;
mod hostile;
mod memory;
mod nats;
mod weather;
mod world;
