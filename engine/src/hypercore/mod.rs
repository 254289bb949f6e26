//! One signed, append-only log of blocks.

pub mod merkle;
pub mod position;
