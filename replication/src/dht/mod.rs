//! The HyperDHT: who is there, where, and how to reach them behind their NATs.

pub mod announcer;
pub mod connect;
pub mod messages;
pub mod operations;
pub mod punch;
pub mod router;
pub mod rpc;
pub mod storage;
