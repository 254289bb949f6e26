//! The bytes of the JavaScript stack: compact-encoding for hypercore, protobuf for bee blocks; how bytes sort.
//!
//! Decoders are given bytes a stranger may have sent: they never panic, never allocate more than the
//! input could fill, and report what was wrong as a [`compact::DecodeError`].

pub mod compact;
pub mod order;
pub mod protobuf;
