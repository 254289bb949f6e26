//! Connecting to a public key.
