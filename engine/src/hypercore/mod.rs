//! One signed, append-only log of blocks.

pub mod bitfield;
pub mod merkle;
pub mod position;
pub mod watch;
