//! Hole punching.

pub mod nat;
pub mod payload;
pub mod puncher;

/// The sockets that holes are punched from.
#[derive(Debug, Default)]
pub struct SocketPool {}
