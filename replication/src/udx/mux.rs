//! All streams over all sockets: finds a datagram's stream, lets streams send in turn, and keeps their timers.
//!
//! ```text
//!   datagram ─► id known? ─no─► closed lately: its last ack once more; else NotOurs
//!                  │yes
//!                  ├─ not connected, or with another socket ─► Unconnected (kept, if it comes too early)
//!                  ├─ relayed ─► the same bytes with the partner's id, to where the partner is connected
//!                  └─ its stream
//! ```
//!
//! What must stay true: ids are one space over all sockets; each stream that has something to send, to tell or to wait for is in `ready`, `eventful` or
//! `timers`; what waits for no stream (`outbox`, early datagrams, last acks) is bounded.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use super::packet::{Packet, flag};
use super::stream::{Stream, StreamEvent};
use super::{Config, Path};
use crate::udp::{Now, Random, SocketId, Transmit};

/// Datagrams kept for a stream that is not connected yet, and for all of them.
const EARLY_MAX: usize = 16;
const EARLY_TOTAL_MAX: usize = 1024;
/// No datagram of a peer is longer.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Bytes that wait to be relayed.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// Bytes that are relayed in one transmission.
const RELAY_BATCH_BYTES_MAX: usize = 60_000;
const RELAY_BATCH_MAX: usize = 64;
/// How many closed streams still answer for their last ack, and for how long: until the other side would have given up.
const LINGERING_MAX: usize = 1024;
const LINGER_TIME: Duration = Duration::from_secs(15);

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// A stream's, and it has been processed.
    Stream(u32),
    /// A stream's that is not connected, or is with another socket. Ask the firewall; connect or move the stream and hand the datagram in again, or drop it.
    Unconnected(u32),
    /// No stream's: the DHT's, perhaps.
    NotOurs,
}

/// All streams over all sockets.
pub struct Mux {
    config: Config,
    random: Random,
    now: Now,
    streams: HashMap<u32, Entry>,
    /// Streams that may have changed since they were last looked at.
    touched: Vec<u32>,
    ready: VecDeque<u32>,
    eventful: VecDeque<u32>,
    timers: BTreeSet<(Now, u32)>,
    outbox: VecDeque<Transmit>,
    outbox_bytes: usize,
    early: usize,
    lingering: HashMap<u32, Lingering>,
    lingering_order: VecDeque<(Now, u32)>,
}

struct Entry {
    stream: Box<Stream>,
    partner: Option<u32>,
    early: Vec<(SocketId, SocketAddrV4, Vec<u8>)>,
    is_touched: bool,
    is_ready: bool,
    is_eventful: bool,
    timer: Option<Now>,
}

/// A stream that ended well and is gone: the other side may not know yet.
struct Lingering {
    path: Path,
    ack: Vec<u8>,
    until: Now,
}

impl Mux {
    /// With no stream.
    pub fn new(config: Config, random: Random) -> Mux {
        Mux {
            config,
            random,
            now: Now::ZERO,
            streams: HashMap::new(),
            touched: vec![],
            ready: VecDeque::new(),
            eventful: VecDeque::new(),
            timers: BTreeSet::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            early: 0,
            lingering: HashMap::new(),
            lingering_order: VecDeque::new(),
        }
    }
    /// A stream that is not connected yet, under a fresh random id.
    pub fn open(&mut self) -> u32 {
        loop {
            let id = u32::from_le_bytes(self.random.bytes());
            if !self.streams.contains_key(&id) && !self.lingering.contains_key(&id) {
                self.open_as(id);
                return id;
            }
        }
    }
    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
    /// Connects it. Packets that came before over that socket are processed now.
    pub fn connect(&mut self, now: Now, id: u32, path: Path) {
        self.change_path(now, id, path);
    }
    /// Moves a live stream to another path; connects one that is not connected. Packets under way count for the old path until they are acked, the search for
    /// the MTU and the measure of the path begin anew, and an ack tells the other side.
    pub fn change_path(&mut self, now: Now, id: u32, path: Path) {
        self.now = self.now.max(now);
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.stream.set_path(now, path);
        let early = std::mem::take(&mut entry.early);
        self.early -= early.len();
        self.touch(id);
        for (socket, from, datagram) in early {
            if socket == path.socket {
                self.handle_datagram(now, socket, from, &datagram);
            }
        }
    }
    /// Packets for `a` go on to where `b` is connected, and those for `b` to where `a` is. Neither processes any itself; a DESTROY that passes closes both.
    pub fn relay(&mut self, a: u32, b: u32) {
        if a == b || !self.streams.contains_key(&a) || !self.streams.contains_key(&b) {
            return;
        }
        for (id, partner) in [(a, b), (b, a)] {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.partner = Some(partner);
            }
        }
    }
    /// One datagram from a socket.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) -> Handled {
        self.now = self.now.max(now);
        let Some(packet) = Packet::decode(datagram) else { return Handled::NotOurs };
        let id = packet.header.stream_id;
        let Some(entry) = self.streams.get_mut(&id) else { return self.answer_late(socket, from, &packet) };
        if !entry.stream.is_with(socket) {
            self.keep_early(id, socket, from, datagram);
            return Handled::Unconnected(id);
        }
        entry.stream.note_packet(socket, from, datagram.len());
        match entry.partner {
            Some(partner) => self.forward(id, partner, &packet, datagram),
            None => entry.stream.handle_packet(now, &packet),
        }
        self.touch(id);
        Handled::Stream(id)
    }
    /// A stream, to write, read or end.
    pub fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.touch(id);
        self.streams.get_mut(&id).map(|entry| &mut *entry.stream)
    }
    /// Forgets a stream; one that is still open is destroyed. Its partner, if it relays, is closed.
    pub fn remove(&mut self, id: u32) {
        let Some(mut entry) = self.streams.remove(&id) else { return };
        self.early -= entry.early.len();
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, id));
        }
        if let Some(partner) = entry.partner {
            return self.close_relay(partner);
        }
        if entry.stream.is_ended() {
            let transmit = entry.stream.poll_transmit(self.now);
            transmit.into_iter().for_each(|transmit| self.push_outbox(transmit));
        }
        entry.stream.destroy();
        if let Some((path, ack)) = entry.stream.last_ack() {
            self.linger(id, path, ack);
        }
        // What is still owed: a DESTROY, or the ack of an end.
        while let Some(transmit) = entry.stream.poll_transmit(self.now) {
            self.push_outbox(transmit);
        }
    }
    /// The next datagrams to send; call until None. Streams take turns.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.now = self.now.max(now);
        self.look_at_touched();
        if let Some(transmit) = self.outbox.pop_front() {
            self.outbox_bytes -= transmit.payload.len();
            return Some(transmit);
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = self.streams.get_mut(&id) else { continue };
            entry.is_ready = false;
            let transmit = if entry.partner.is_some() { None } else { entry.stream.poll_transmit(now) };
            let has_more = transmit.is_some();
            self.look_at(id, has_more);
            if transmit.is_some() {
                return transmit;
            }
        }
        None
    }
    /// The next event of a stream.
    pub fn poll_event(&mut self) -> Option<(u32, StreamEvent)> {
        self.look_at_touched();
        while let Some(&id) = self.eventful.front() {
            if let Some(entry) = self.streams.get_mut(&id) {
                if let Some(event) = entry.stream.poll_event() {
                    return Some((id, event));
                }
                entry.is_eventful = false;
            }
            self.eventful.pop_front();
        }
        None
    }
    /// When to call [`Mux::handle_timeout`]. In the past: now, or there is something to poll.
    pub fn poll_timeout(&mut self) -> Option<Now> {
        self.look_at_touched();
        if !self.ready.is_empty() || !self.outbox.is_empty() {
            return Some(self.now);
        }
        self.timers.first().map(|timer| timer.0)
    }
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = self.now.max(now);
        self.look_at_touched();
        let mut due = vec![];
        while let Some(&(at, id)) = self.timers.first().filter(|timer| timer.0 <= now) {
            self.timers.remove(&(at, id));
            due.push(id);
        }
        for id in due {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.timer = None;
                entry.stream.handle_timeout(now);
                self.touch(id);
            }
        }
        self.forget_lingering();
    }

    pub(super) fn open_as(&mut self, id: u32) {
        let stream = Box::new(Stream::new(&self.config, self.now));
        let entry = Entry {
            stream,
            partner: None,
            early: vec![],
            is_touched: false,
            is_ready: false,
            is_eventful: false,
            timer: None,
        };
        self.streams.insert(id, entry);
    }
    fn touch(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut entry.is_touched, true)
        {
            self.touched.push(id);
        }
    }
    fn look_at_touched(&mut self) {
        while let Some(id) = self.touched.pop() {
            self.look_at(id, true);
        }
    }
    /// Puts a stream where its next turn is.
    fn look_at(&mut self, id: u32, may_send: bool) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.is_touched = false;
        if may_send && !std::mem::replace(&mut entry.is_ready, true) {
            self.ready.push_back(id);
        }
        if entry.stream.has_event() && !std::mem::replace(&mut entry.is_eventful, true) {
            self.eventful.push_back(id);
        }
        let timer = if entry.partner.is_some() { None } else { entry.stream.poll_timeout() };
        if timer != entry.timer {
            if let Some(at) = entry.timer {
                self.timers.remove(&(at, id));
            }
            self.timers.extend(timer.map(|at| (at, id)));
            entry.timer = timer;
        }
    }
    fn keep_early(&mut self, id: u32, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let is_early = entry.stream.path().is_none() && !entry.stream.is_closed();
        let fits =
            datagram.len() <= DATAGRAM_BYTES_MAX && entry.early.len() < EARLY_MAX && self.early < EARLY_TOTAL_MAX;
        if is_early && fits {
            entry.early.push((socket, from, datagram.to_vec()));
            self.early += 1;
        }
    }
    fn forward(&mut self, id: u32, partner: u32, packet: &Packet<'_>, datagram: &[u8]) {
        if let Some(path) = self.streams.get(&partner).and_then(|entry| entry.stream.path()) {
            let mut payload = datagram.to_vec();
            payload[4..8].copy_from_slice(&path.remote_id.to_le_bytes());
            self.push_outbox(Transmit::new(path.socket, path.remote, payload));
        }
        if packet.header.has(flag::DESTROY) {
            self.close_relay(id);
            self.close_relay(partner);
        }
    }
    fn close_relay(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.stream.reset();
            self.touch(id);
        }
    }
    /// Adds a datagram to what waits, if it can to the batch that waits last. Full: it is lost, as on any link.
    fn push_outbox(&mut self, transmit: Transmit) {
        let size = transmit.payload.len();
        if self.outbox_bytes + size > OUTBOX_BYTES_MAX {
            return;
        }
        self.outbox_bytes += size;
        if let Some(last) = self.outbox.back_mut() {
            let segment = last.segment.unwrap_or(last.payload.len());
            let is_alike = (last.socket, last.to, last.ttl) == (transmit.socket, transmit.to, transmit.ttl);
            let has_room =
                last.payload.len() + size <= RELAY_BATCH_BYTES_MAX && last.payload.len() / segment < RELAY_BATCH_MAX;
            let is_whole = last.payload.len().is_multiple_of(segment);
            if is_alike && has_room && is_whole && transmit.segment.is_none() && size <= segment && size > 0 {
                last.segment = Some(segment);
                last.payload.extend_from_slice(&transmit.payload);
                return;
            }
        }
        self.outbox.push_back(transmit);
    }
    fn answer_late(&mut self, socket: SocketId, from: SocketAddrV4, packet: &Packet<'_>) -> Handled {
        let id = packet.header.stream_id;
        let Some(lingering) = self.lingering.get(&id).filter(|lingering| lingering.until > self.now) else {
            return Handled::NotOurs;
        };
        // Only to where it was connected: this must not send anything to who merely claims to be there.
        if lingering.path.socket == socket && lingering.path.remote == from && packet.header.has(flag::DATA | flag::END)
        {
            let transmit = Transmit::new(socket, from, lingering.ack.clone());
            self.push_outbox(transmit);
        }
        Handled::Stream(id)
    }
    fn linger(&mut self, id: u32, path: Path, ack: Vec<u8>) {
        self.forget_lingering();
        if self.lingering_order.len() >= LINGERING_MAX
            && let Some((_, oldest)) = self.lingering_order.pop_front()
        {
            self.lingering.remove(&oldest);
        }
        let until = self.now + LINGER_TIME;
        self.lingering.insert(id, Lingering { path, ack, until });
        self.lingering_order.push_back((until, id));
    }
    fn forget_lingering(&mut self) {
        while let Some(&(_, id)) = self.lingering_order.front().filter(|entry| entry.0 <= self.now) {
            self.lingering_order.pop_front();
            self.lingering.remove(&id);
        }
    }
}
