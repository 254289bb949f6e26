//! Noise XX with Ed25519 keys, then frames under the secretstream cipher: a stream is encrypted or closed.
