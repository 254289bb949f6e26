//! Reliable streams over UDP, as libudx speaks them: what HyperDHT's peers talk over once they have found each other.
//!
//! ```text
//!   datagrams in ──► Mux::handle_datagram ──► Stream: receive    in-order bytes, SACK ranges, window
//!                        │ by the id in it            recovery   RACK, probes, timeouts
//!                        │                            congestion model of the path: rate and window
//!   datagrams out ◄─ Mux::poll_transmit ◄──── Stream: send       packets from written bytes, paced, in batches
//! ```
//!
//! There is no handshake: both sides have learnt each other's 32-bit stream id elsewhere ([`Path::remote_id`]). Packets are numbered, not bytes, and a packet
//! keeps its number and its payload for good, so nothing can be split again once it was sent. Source: libudx `src/udx.c`; formats in [`packet`].
//!
//! What must stay true:
//!
//! * any bytes may come in: no panic, and memory bounded by [`Config`], whatever they are;
//! * sequence numbers wrap at 2^32 on the wire and never inside ([`packet::Seq`]);
//! * nothing is read from a clock, a socket or the operating system's randomness.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::udp::SocketId;

pub mod congestion;
pub mod mux;
pub mod packet;
mod pmtu;
mod ranges;
mod receive;
mod recovery;
mod rtt;
mod send;
pub mod stream;
#[cfg(test)]
mod tests;

pub use mux::{Handled, Mux};
pub use stream::{CloseReason, Stats, Stream, StreamEvent};

/// Where a stream's packets go, and whose they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Our socket.
    pub socket: SocketId,
    /// The other side's address.
    pub remote: SocketAddrV4,
    /// The other side's number for this stream, or its relay's.
    pub remote_id: u32,
}

/// What a stream may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes received and not yet read, at most: what is advertised.
    pub receive_window: usize,
    /// Bytes kept that came before others they follow, at most. Native senders count only what is neither acked nor SACKed against our window, and go on
    /// sending while a packet is lost twice and thrice: a bound of one window would drop a good part of what they send at high loss. Our senders stop at
    /// three quarters of this.
    pub out_of_order_max: usize,
    /// Bytes written and not yet acked, at most, however large the other side's window.
    pub write_buffer_max: usize,
    /// IP packet size that every path is believed to carry.
    pub mtu_min: usize,
    /// IP packet size where the search ends.
    pub mtu_max: usize,
    /// A HEARTBEAT after this much silence of ours; hyperdht uses none.
    pub keep_alive: Option<Duration>,
    /// Number of the first packet of either side; JavaScript's payloads always say 0.
    pub first_seq: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            receive_window: 4 << 20,
            out_of_order_max: 16 << 20,
            write_buffer_max: 16 << 20,
            mtu_min: 1200,
            mtu_max: 1500,
            keep_alive: None,
            first_seq: 0,
        }
    }
}
