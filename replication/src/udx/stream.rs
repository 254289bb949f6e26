//! One UDX stream: a sender, a receiver, and what neither of them knows: where the packets go, what is owed to the other side, and how it ends.
//!
//! ```text
//!   write(), end() ─► Sender ──► DATA, END ─┐                        ┌─ HEARTBEAT ─► an ack is owed
//!   send_message() ─► messages ─► MESSAGE ──┼─► poll_transmit()      ├─ DATA, END ─► Receiver ─► read(), an ack is owed
//!   destroy() ──────────────────► DESTROY ──┤       handle_packet() ─┼─ ack, SACK ─► Sender
//!   what came in ───► owed acks ─► ack, SACK┘                        ├─ MESSAGE ───► read_message()
//!                                                                    └─ DESTROY ───► closed
//! ```
//!
//! An ack is owed for every packet with DATA or END, duplicates too, and is sent when the mux is polled next: who hands in a batch of datagrams first and
//! polls then sends one ack for all. Native peers take that as any cumulative ack.
//!
//! What must stay true: after [`StreamEvent::Closed`] nothing is sent but acks for ENDs that come again; each event is queued once, however often it happens
//! before it is polled.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use super::packet::{HEADER_BYTES, Header, OVERHEAD_BYTES, Packet, flag};
use super::receive::Receiver;
use super::send::Sender;
use super::{Config, Path};
use crate::udp::{Now, SocketId, Transmit};

/// Datagrams beside the stream that wait, in each direction.
const MESSAGES_MAX: usize = 64;
/// Datagrams in one batch, and their bytes: what the kernel takes at once.
const BATCH_SEGMENTS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 65_000;
/// Writers are woken for this much room, so that they write in large pieces.
const WRITABLE_BYTES_MIN: usize = 64 << 10;

/// Why a stream ended otherwise than by both sides' ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The other side destroyed it; or, of a pair of relaying streams, one was.
    Reset,
    /// One packet timed out seven times: the other side is not there any more.
    TimedOut,
}

/// What a stream's owner should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The first packet came over a path that is new.
    PathConfirmed,
    /// There is something to read.
    Readable,
    /// There is room again, after a write that took less than it was given; or the other side has acked our end.
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
    /// Bytes in flight, headers included.
    pub in_flight: usize,
    /// IP packet size in use.
    pub mtu: usize,
}

/// Events that wait to be polled, one bit each, in this order.
#[derive(Default)]
struct Pending(u8);

impl Pending {
    const PATH: u8 = 1;
    const READABLE: u8 = 2;
    const MESSAGE: u8 = 4;
    const REMOTE_ENDED: u8 = 8;
    const WRITABLE: u8 = 16;
    const CLOSED: u8 = 32;

    fn set(&mut self, bit: u8) {
        self.0 |= bit;
    }
    fn take(&mut self) -> Option<u8> {
        let bit = self.0 & self.0.wrapping_neg();
        self.0 ^= bit;
        (bit != 0).then_some(bit)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    /// Both ends were acked: the last ack may have been lost, so it is given again to who asks.
    Cleanly,
    Here,
    By(CloseReason),
}

/// One stream: bytes in order in both directions, and datagrams beside them.
pub struct Stream {
    config: Config,
    path: Option<Path>,
    /// The path before this one: the other side may still use its socket.
    path_before: Option<Path>,
    is_path_confirmed: bool,
    sender: Sender,
    receiver: Receiver,
    ack_owed: bool,
    heartbeat_owed: bool,
    destroy_owed: bool,
    advertised: usize,
    outgoing_messages: VecDeque<Bytes>,
    incoming_messages: VecDeque<Bytes>,
    is_write_blocked: bool,
    is_remote_end_told: bool,
    is_end_ack_told: bool,
    closed: Option<Closed>,
    pending: Pending,
    keep_alive_at: Option<Now>,
    packets: (u64, u64),
    bytes: (u64, u64),
}

impl Stream {
    pub(super) fn new(config: &Config, now: Now) -> Stream {
        Stream {
            config: config.clone(),
            path: None,
            path_before: None,
            is_path_confirmed: false,
            sender: Sender::new(config, now),
            receiver: Receiver::new(config),
            ack_owed: false,
            heartbeat_owed: false,
            destroy_owed: false,
            advertised: config.receive_window,
            outgoing_messages: VecDeque::new(),
            incoming_messages: VecDeque::new(),
            is_write_blocked: false,
            is_remote_end_told: false,
            is_end_ack_told: false,
            closed: None,
            pending: Pending::default(),
            keep_alive_at: None,
            packets: (0, 0),
            bytes: (0, 0),
        }
    }
    /// Takes bytes to send; how many. Less than all means that the buffer is full: [`StreamEvent::Writable`] tells when there is room. Nothing is taken after
    /// [`Stream::end`] or when it is closed. May be called before the stream is connected.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.is_closed() {
            return 0;
        }
        let count = self.sender.write(bytes);
        self.is_write_blocked |= count < bytes.len();
        count
    }
    /// Whether a write would take something.
    pub fn is_writable(&self) -> bool {
        !self.is_closed() && self.sender.room() > 0
    }
    /// The next bytes, `max` at most; None when there is nothing now.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let bytes = self.receiver.read(max);
        // A sender that stopped for lack of room hears of it before it asks, and more than once: what tells it may be lost.
        let quarter = (self.config.receive_window / 4).max(1);
        if self.advertised + quarter <= self.receiver.window() {
            self.ack_owed = true;
        }
        bytes
    }
    /// Whether the other side has ended and all was read.
    pub fn is_read_to_end(&self) -> bool {
        self.receiver.is_ended() && self.receiver.readable_bytes() == 0
    }
    /// Bytes that can be read now.
    pub fn readable_bytes(&self) -> usize {
        self.receiver.readable_bytes()
    }
    /// Written bytes that are not acked yet.
    pub fn unacked_bytes(&self) -> usize {
        self.sender.unacked_bytes()
    }
    /// Whether [`Stream::end`] was called and the other side has acked all, the end included.
    pub fn is_end_acked(&self) -> bool {
        self.sender.is_ended()
    }
    /// Nothing will be written any more: sent after all that was written.
    pub fn end(&mut self) {
        self.sender.finish();
    }
    /// Ends it at once, and tells the other side.
    pub fn destroy(&mut self) {
        if !self.is_closed() {
            self.destroy_owed = self.path.is_some();
            self.close(Closed::Here);
        }
    }
    /// Whether it is over ([`StreamEvent::Closed`]).
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }
    /// Why it is over, if the other side has ended it.
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.closed {
            Some(Closed::By(reason)) => Some(reason),
            _ => None,
        }
    }
    /// Sends one datagram beside the stream: it may be lost, or overtake. False: too long for the path, too many wait, or not connected.
    pub fn send_message(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.sender.payload_max() && self.outgoing_messages.len() < MESSAGES_MAX;
        let is_sent = fits && self.path.is_some() && !self.is_closed();
        if is_sent {
            self.outgoing_messages.push_back(Bytes::copy_from_slice(bytes));
        }
        is_sent
    }
    /// The next datagram that came in. The oldest 64 are kept.
    pub fn read_message(&mut self) -> Option<Bytes> {
        self.incoming_messages.pop_front()
    }
    /// Where it goes; None before it is connected.
    pub fn path(&self) -> Option<Path> {
        self.path
    }
    /// Whether a packet has come over the path in use.
    pub fn is_path_confirmed(&self) -> bool {
        self.is_path_confirmed
    }
    /// Numbers about it.
    pub fn stats(&self) -> Stats {
        let sender = &self.sender;
        Stats {
            packets_sent: self.packets.0,
            bytes_sent: self.bytes.0,
            packets_received: self.packets.1,
            bytes_received: self.bytes.1,
            retransmits: sender.retransmits,
            lost: sender.lost_count,
            timeouts: sender.timeouts,
            round_trip: sender.round_trip.smoothed(),
            round_trip_min: sender.round_trip.min(),
            congestion_window: sender.congestion.window(),
            bandwidth: sender.congestion.bandwidth() as u64,
            in_flight: sender.in_flight + sender.in_flight_before,
            mtu: sender.mtu.current(),
        }
    }

    pub(super) fn set_path(&mut self, now: Now, path: Path) {
        if self.is_closed() || self.path == Some(path) {
            return;
        }
        if self.path.is_some() {
            self.path_before = self.path;
            self.is_path_confirmed = false;
            self.sender.change_path(now, &self.config);
            // Opens the way there, and tells the other side that there is one.
            self.ack_owed = true;
        }
        self.path = Some(path);
        self.keep_alive_at = self.config.keep_alive.map(|interval| now + interval);
    }
    /// Whether packets from a socket are this stream's without asking.
    pub(super) fn is_with(&self, socket: SocketId) -> bool {
        let is = |path: &Option<Path>| path.is_some_and(|path| path.socket == socket);
        is(&self.path) || (self.path.is_some() && is(&self.path_before))
    }
    /// A packet came; what it says is for a relay's partner to process.
    pub(super) fn note_packet(&mut self, socket: SocketId, from: SocketAddrV4, bytes: usize) {
        self.packets.1 += 1;
        self.bytes.1 += bytes as u64;
        let Some(path) = self.path.filter(|path| !self.is_path_confirmed && path.socket == socket) else { return };
        // NATs may show another address than the one we send to; the old path's is the one that proves nothing.
        let is_old = self.path_before.is_some_and(|old| old.socket == socket && old.remote == from);
        if path.remote == from || !is_old {
            self.is_path_confirmed = true;
            self.pending.set(Pending::PATH);
        }
    }
    /// A packet for this stream.
    pub(super) fn handle_packet(&mut self, now: Now, packet: &Packet<'_>) {
        let header = &packet.header;
        if self.is_closed() {
            self.ack_owed |=
                self.closed == Some(Closed::Cleanly) && header.has(flag::DATA | flag::END | flag::HEARTBEAT);
            return;
        }
        if header.has(flag::HEARTBEAT) {
            self.ack_owed = true;
            return;
        }
        let Some(payload) = packet.payload else { return };
        let seq = self.receiver.next().expand(header.seq);
        if header.has(flag::DATA | flag::END) {
            self.ack_owed = true;
            if self.receiver.handle(seq, header.flags, payload) {
                self.pending.set(Pending::READABLE);
            }
        }
        if header.has(flag::DESTROY) && self.receiver.is_plausible(seq) {
            return self.close(Closed::By(CloseReason::Reset));
        }
        if header.has(flag::MESSAGE) && self.incoming_messages.len() < MESSAGES_MAX {
            self.incoming_messages.push_back(Bytes::copy_from_slice(payload));
            self.pending.set(Pending::MESSAGE);
        }
        // What is far ahead of all we know would keep the window from ever being updated again.
        if seq < self.receiver.next() || self.receiver.is_plausible(seq) {
            let ack = self.sender.una.expand(header.ack);
            self.sender.handle_ack(now, seq, ack, header.window as usize, packet.sacks());
        }
        self.update();
    }
    pub(super) fn poll_timeout(&self) -> Option<Now> {
        match (self.is_closed(), self.path) {
            (false, Some(_)) => self.sender.poll_timeout().into_iter().chain(self.keep_alive_at).min(),
            _ => None,
        }
    }
    pub(super) fn handle_timeout(&mut self, now: Now) {
        if self.is_closed() || self.path.is_none() {
            return;
        }
        if self.sender.handle_timeout(now) {
            self.close(Closed::By(CloseReason::TimedOut));
        }
        if self.keep_alive_at.is_some_and(|at| at <= now) {
            self.heartbeat_owed = true;
        }
    }
    /// The next datagrams to send: what is owed, messages, then what was lost or written.
    pub(super) fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        let path = self.path?;
        let transmit =
            self.poll_small(now, &path).or_else(|| self.poll_batch(now, &path)).or_else(|| self.poll_ack(&path));
        if let Some(transmit) = &transmit {
            self.packets.0 += transmit.segment.map_or(1, |segment| transmit.payload.len().div_ceil(segment)) as u64;
            self.bytes.0 += transmit.payload.len() as u64;
            self.keep_alive_at = self.config.keep_alive.map(|interval| now + interval);
        }
        self.update();
        transmit
    }
    pub(super) fn poll_event(&mut self) -> Option<StreamEvent> {
        Some(match self.pending.take()? {
            Pending::PATH => StreamEvent::PathConfirmed,
            Pending::READABLE => StreamEvent::Readable,
            Pending::MESSAGE => StreamEvent::Message,
            Pending::REMOTE_ENDED => StreamEvent::RemoteEnded,
            Pending::WRITABLE => StreamEvent::Writable,
            _ => StreamEvent::Closed(self.close_reason()),
        })
    }
    pub(super) fn has_event(&self) -> bool {
        self.pending.0 != 0
    }
    /// Both have ended and know it, but for an ack that is still owed.
    pub(super) fn is_ended(&self) -> bool {
        self.sender.is_ended() && self.receiver.is_ended()
    }
    pub(super) fn reset(&mut self) {
        if !self.is_closed() {
            self.close(Closed::By(CloseReason::Reset));
        }
    }
    /// The ack that is given again when the other side has not got the last one; only after both have ended.
    pub(super) fn last_ack(&self) -> Option<(Path, Vec<u8>)> {
        let path = self.path.filter(|_| self.closed == Some(Closed::Cleanly))?;
        let mut ack = vec![];
        self.header(0, &path).encode(&mut ack);
        Some((path, ack))
    }

    /// What follows from the last packet, timer or transmission.
    fn update(&mut self) {
        if self.is_closed() {
            return;
        }
        if self.is_write_blocked && self.sender.room() >= WRITABLE_BYTES_MIN {
            self.is_write_blocked = false;
            self.pending.set(Pending::WRITABLE);
        }
        if self.receiver.is_ended() && !std::mem::replace(&mut self.is_remote_end_told, true) {
            self.pending.set(Pending::REMOTE_ENDED);
        }
        if !self.sender.is_ended() {
            return;
        }
        if self.receiver.is_ended() {
            if !self.ack_owed {
                self.close(Closed::Cleanly);
            }
        } else if !std::mem::replace(&mut self.is_end_ack_told, true) {
            // Native streams say so once more when their end was acked. Whoever waits for that looks again.
            self.ack_owed = true;
            self.pending.set(Pending::WRITABLE);
        }
    }
    fn close(&mut self, how: Closed) {
        self.closed = Some(how);
        self.ack_owed = false;
        self.outgoing_messages.clear();
        self.pending.set(Pending::CLOSED);
    }
    fn header(&self, flags: u8, path: &Path) -> Header {
        Header {
            flags,
            data_offset: 0,
            stream_id: path.remote_id,
            window: self.receiver.window() as u32,
            seq: self.sender.next().wire(),
            ack: self.receiver.next().wire(),
        }
    }
    fn one(&mut self, flags: u8, path: &Path, payload: &[u8]) -> Transmit {
        let header = self.header(flags, path);
        self.advertised = header.window as usize;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        header.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        Transmit::new(path.socket, path.remote, bytes)
    }
    fn poll_small(&mut self, now: Now, path: &Path) -> Option<Transmit> {
        if std::mem::take(&mut self.destroy_owed) {
            return Some(self.one(flag::DESTROY, path, &[]));
        }
        if self.is_closed() {
            return None;
        }
        if std::mem::take(&mut self.heartbeat_owed) | self.sender.take_heartbeat(now) {
            return Some(self.one(flag::HEARTBEAT, path, &[]));
        }
        if let Some(message) = self.outgoing_messages.pop_front() {
            return Some(self.one(flag::MESSAGE, path, &message));
        }
        // Packets with DATA say what was received in order; only a packet of its own can say what was not.
        if self.receiver.sacks_len() > 0 { self.poll_ack(path) } else { None }
    }
    fn poll_ack(&mut self, path: &Path) -> Option<Transmit> {
        if !std::mem::take(&mut self.ack_owed) {
            return None;
        }
        let sacks = self.receiver.sacks_len();
        let header = self.header(if sacks > 0 { flag::SACK } else { 0 }, path);
        self.advertised = header.window as usize;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 8 * sacks);
        header.encode(&mut bytes);
        for (start, end) in self.receiver.sacks() {
            bytes.extend_from_slice(&start.wire().to_le_bytes());
            bytes.extend_from_slice(&end.wire().to_le_bytes());
        }
        Some(Transmit::new(path.socket, path.remote, bytes))
    }
    /// Packets of one size, the last of which may be smaller, as many as pace and window let through.
    fn poll_batch(&mut self, now: Now, path: &Path) -> Option<Transmit> {
        if self.is_closed() {
            return None;
        }
        let mut pick = self.sender.pick(now)?;
        let segment = self.sender.datagram_bytes(&pick);
        let header = self.header(0, path);
        let limit = (BATCH_BYTES_MAX / segment).clamp(1, BATCH_SEGMENTS_MAX);
        let mut bytes = Vec::with_capacity(self.batch_bytes(segment, limit));
        let mut count = 0;
        loop {
            let size = self.sender.datagram_bytes(&pick);
            self.sender.send(now, pick, header, &mut bytes);
            count += 1;
            if size < segment || count == limit || bytes.len() >= BATCH_BYTES_MAX {
                break;
            }
            match self.sender.pick(now) {
                Some(next) if self.sender.datagram_bytes(&next) <= segment => pick = next,
                _ => break,
            }
        }
        self.ack_owed = false;
        self.advertised = header.window as usize;
        let segment = (count > 1).then_some(segment);
        Some(Transmit { socket: path.socket, to: path.remote, ttl: None, segment, payload: bytes })
    }
    fn batch_bytes(&self, segment: usize, limit: usize) -> usize {
        let waiting = self.sender.unsent_bytes() / (OVERHEAD_BYTES.max(segment.saturating_sub(HEADER_BYTES)))
            + 1
            + self.sender.lost.len();
        segment * waiting.min(limit)
    }
}

/// For tests: where both directions are.
#[cfg(test)]
impl Stream {
    pub(super) fn numbers(&self) -> (super::packet::Seq, super::packet::Seq, super::packet::Seq) {
        (self.sender.una, self.sender.next(), self.receiver.next())
    }
}
