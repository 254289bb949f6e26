//! Ways to reach a peer: an ordered stream of bytes each, whose two ends trust nothing about it.
//!
//! ```text
//! tcp         a known `host:port`
//! simulated   made-up time, one seed: for tests
//! ```
//!
//! What must stay true: nothing above a transport depends on which one it is; a transport encrypts nothing and checks nothing, for the secret stream does.

pub mod simulated;
pub mod tcp;
