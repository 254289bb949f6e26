//! Which peers to be connected to, by topic.

pub mod discovery;
pub mod endpoint;
pub mod peers;
pub mod relay;
