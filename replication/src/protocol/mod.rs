//! What two peers of one core say to each other: the messages of a channel, and the proof that both know the core's key.
//!
//! ```text
//! channel "hypercore/alpha", id = discovery key     handshake: uint flags (1 = seeks) || capability[32]
//! messages      0 sync  1 request  2 cancel  3 data  4 noData  5 want  6 unwant  7 bitfield  8 range  9 extension
//! ```
//!
//! Only bytes are known here: what they mean for a core is [`crate::replicator`]'s matter.

pub mod capability;
pub mod messages;
#[cfg(test)]
pub(crate) mod tests;

/// The name of the protocol whose channels carry cores.
pub const PROTOCOL: &str = "hypercore/alpha";
/// The older name of the same protocol.
pub const PROTOCOL_ALIAS: &str = "hypercore";
