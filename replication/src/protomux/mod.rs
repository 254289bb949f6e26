//! Channels over one encrypted stream: open, pair, close, batch.
//!
//! ```text
//! frame      uint channel | uint kind | body           one of the messages of the secret stream; empty frames are ignored
//! channel    the sender's own number of it, from 1; 0 is control:
//!
//!   0 batch    uint channel | entries                  entry: uint len | (uint kind | body)
//!                                                      len 0: the next uint is the channel of the entries behind it
//!   1 open     uint number | string protocol | optional buffer id | handshake
//!   2 reject   uint number                             the opener's number of it
//!   3 close    uint number                             the closer's number of it
//! ```
//!
//! Both sides open a channel, each under its own number, and what is opened under the same protocol and id is one channel. Messages may follow an open at
//! once, so what arrives for an open that is not answered yet is kept; beyond 32 KiB of that the stream has to wait.
//!
//! ```text
//!          ours: open()                 theirs: open                 theirs: close
//!  (free) ------------> (waiting) ---------------------> (open) ---------------------> (free)
//!                           |  theirs: reject               |  ours: close()
//!                           | ----------> (free)            | ----------> (free)
//!                           |  ours: close()
//!                           ` ----------> (abandoned) -- theirs: open or reject --> (free)
//! ```
//!
//! A number is free again once both sides are known to be done with it; freed numbers are used again, the last one first.
//!
//! * `frame`: what is written, and control messages read;
//! * `mux`: [`Mux`], the state of all channels of a stream.
//!
//! What must stay true: a peer holds no more of our memory than [`Limits`] says; a broken rule is an error value that ends this stream only; numbers on
//! the wire never reach users, who hold [`ChannelId`]s that are never used twice.
//!
//! Source: protomux `index.js`. Vectors: `plain` in `tests/vectors/transcript-*.json`.

mod frame;
mod mux;

pub use mux::{ChannelId, CloseReason, Event, Limits, Mux, MuxError};
