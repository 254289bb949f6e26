//! Hashes, the Merkle tree over them, keys and manifests: who may sign a log, and what exactly is signed.
//!
//! BLAKE2b-256 and Ed25519 throughout, with the byte layouts of the JavaScript stack. Nothing here does
//! I/O or keeps state.

pub mod hash;
pub mod key;
pub mod manifest;
pub mod merkle;
pub mod verifier;
