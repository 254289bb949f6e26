//! The bytes of Protomux frames.
