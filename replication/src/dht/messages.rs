//! The HyperDHT's messages and what they sign.
