//! Hole punching.

pub mod nat;
pub mod payload;
pub mod puncher;
