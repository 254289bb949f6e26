//! One UDX stream.

use bytes::Bytes;
use std::time::Duration;

use super::Path;

/// Why a stream ended otherwise than by both sides' ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The other side destroyed it.
    Reset,
    /// The other side did not ack a packet that was sent seven times.
    TimedOut,
}

/// What a stream's owner should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The first packet came over a path that is new.
    PathConfirmed,
    /// There is something to read.
    Readable,
    /// There is room again, after a write that took less than it was given.
    Writable,
    /// A datagram beside the stream came in.
    Message,
    /// The other side has ended, and all before it can be read.
    RemoteEnded,
    /// It is over. None: both sides have ended and know it, or it was destroyed here. What came before can still be read; [`super::Mux::remove`] forgets it.
    Closed(Option<CloseReason>),
}

/// Numbers about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Datagrams sent, of all kinds.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Datagrams received, of all kinds.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Packets sent again.
    pub retransmits: u64,
    /// Packets taken for lost.
    pub lost: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Smoothed round trip.
    pub round_trip: Option<Duration>,
    /// Shortest recent round trip.
    pub round_trip_min: Option<Duration>,
    /// Congestion window in bytes.
    pub congestion_window: usize,
    /// Estimate of the path's bandwidth, bytes a second.
    pub bandwidth: u64,
    /// Packets in flight, in bytes of payload.
    pub in_flight: usize,
    /// IP packet size in use.
    pub mtu: usize,
}

/// One stream: bytes in order in both directions, and datagrams beside them.
pub struct Stream {
    path: Option<Path>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        Stream { path: None }
    }
    /// Takes bytes to send; how many. Less than all means that the buffer is full: [`StreamEvent::Writable`] tells when there is room.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }
    /// Whether a write would take something.
    pub fn is_writable(&self) -> bool {
        true
    }
    /// The next bytes, `max` at most; None when there is nothing now.
    pub fn read(&mut self, _max: usize) -> Option<Bytes> {
        None
    }
    /// Whether the other side has ended and all was read.
    pub fn is_read_to_end(&self) -> bool {
        false
    }
    /// Bytes that can be read now.
    pub fn readable_bytes(&self) -> usize {
        0
    }
    /// Written bytes that are not acked yet.
    pub fn unacked_bytes(&self) -> usize {
        0
    }
    /// Nothing will be written any more: sent after all that was written.
    pub fn end(&mut self) {}
    /// Ends it at once, and tells the other side.
    pub fn destroy(&mut self) {}
    /// Whether it is over ([`StreamEvent::Closed`]).
    pub fn is_closed(&self) -> bool {
        false
    }
    /// Sends one datagram beside the stream: it may be lost, or overtake. False: too long for the path, too many wait, or not connected.
    pub fn send_message(&mut self, _bytes: &[u8]) -> bool {
        false
    }
    /// The next datagram that came in.
    pub fn read_message(&mut self) -> Option<Bytes> {
        None
    }
    /// Where it goes; None before it is connected.
    pub fn path(&self) -> Option<Path> {
        self.path
    }
    /// Numbers about it.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    pub(super) fn connect(&mut self, path: Path) {
        self.path = Some(path);
    }
}
