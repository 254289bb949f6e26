//! Channels over one encrypted stream: open, pair, close, batch.

mod frame;
mod mux;

pub use mux::{ChannelId, CloseReason, Event, Limits, Mux, MuxError};
