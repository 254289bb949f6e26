//! The sending half of a stream: written bytes become numbered packets, sent when window, congestion and pace allow it. What becomes of them is in
//! [`super::recovery`].
//!
//! ```text
//!   written bytes   │ acked, freed │ sent: in flight, SACKed or lost │ not sent yet │ ◄── write()
//!                                  start                             unsent_at
//!   packets                        una .. una + sent.len()
//! ```
//!
//! What must stay true:
//!
//! * a packet that was sent keeps its number and its bytes;
//! * `in_flight` is the sum of what is in state [`State::InFlight`] on this path, `in_flight_before` of what left over the path before it;
//! * the buffer never holds more than `write_buffer_max`, whatever the other side's window.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Config;
use super::congestion::{Bbr, INITIAL_PACKETS};
use super::packet::{HEADER_BYTES, Header, OVERHEAD_BYTES, Seq, flag};
use super::pmtu::MtuSearch;
use super::ranges::{Range, RangeSet};
use super::recovery::{Phase, Rack, Rate, TailProbe};
use super::rtt::RoundTrip;
use crate::udp::Now;

/// Bytes that may be written above what may be in flight.
const WRITE_AHEAD_BYTES: usize = 256 << 10;
/// Packets that may be under way: a little less than what native receivers look ahead.
const SENT_MAX: usize = 60_000;
/// What a packet costs a receiver that keeps it out of order, besides its bytes.
const SACKED_OVERHEAD_BYTES: usize = 100;
/// A buffer that once was larger than this is given back when it is empty.
const IDLE_BUFFER_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    InFlight,
    /// Not under way any more, but whether it has arrived was not said ([`Sender::horizon`]).
    Unknown,
    Sacked,
    Lost,
}

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Where its payload begins in all that was ever written.
    pub offset: u64,
    pub len: u16,
    pub flags: u8,
    /// An MTU probe, and by how much it was padded.
    pub padding: u8,
    pub state: State,
    pub is_retransmitted: bool,
    pub is_app_limited: bool,
    pub timeouts: u8,
    /// Which path it left by last.
    pub epoch: u32,
    pub sent_at: Now,
    /// The state of the rate's measurement when it left.
    pub delivered: u64,
    pub delivered_at: Now,
    pub first_sent_at: Now,
}

impl Sent {
    /// What it counts in windows and rates.
    pub fn size(&self) -> usize {
        HEADER_BYTES + usize::from(self.len)
    }
}

/// What to send next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    /// A packet that was sent before.
    Again(Seq),
    /// The next of what was written.
    New { len: usize, padding: u8, flags: u8 },
}

/// Lets bytes pass at a rate, a few milliseconds' worth at once.
#[derive(Debug)]
struct Pacer {
    tokens: f64,
    updated: Now,
}

impl Pacer {
    /// How much time's worth of bytes may be saved up: timers of a millisecond come late.
    const BURST: f64 = 0.004;

    fn refill(&mut self, now: Now, rate: f64, burst_min: usize) {
        let elapsed = now.saturating_sub(self.updated).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min((rate * Self::BURST).max(burst_min as f64));
        self.updated = now;
    }
    fn ready_at(&self, now: Now, rate: f64, quantum: usize) -> Now {
        now + Duration::from_secs_f64(((quantum as f64 - self.tokens) / rate).clamp(0.000_05, 1.0))
    }
}

/// The sending half.
pub struct Sender {
    buffer: VecDeque<u8>,
    start: u64,
    unsent_at: u64,
    buffer_max: usize,
    /// Bytes that the other side may have to keep out of order.
    span_max: usize,
    is_ending: bool,
    pub(super) end: Option<Seq>,

    pub(super) una: Seq,
    pub(super) sent: VecDeque<Sent>,
    /// Sent packets in the order they left; an entry is stale if its packet left again, or is not in flight any more.
    pub(super) order: VecDeque<(Seq, Now)>,
    /// Of these, what would be lost if the last ack had had room to tell about it.
    pub(super) beyond: VecDeque<(Seq, Now)>,
    /// Above all that the last ack told about, if it was full.
    pub(super) horizon: Option<Seq>,
    pub(super) lost: BTreeSet<Seq>,
    pub(super) sacked: RangeSet,
    pub(super) sacked_packets: usize,
    pub(super) sacked_bytes: usize,
    pub(super) fresh: Vec<Range>,
    pub(super) in_flight: usize,
    pub(super) in_flight_before: usize,
    pub(super) unknown: usize,
    pub(super) epoch: u32,

    /// Bytes the other side takes, and the packet that said so.
    pub(super) window: usize,
    pub(super) window_seq: Seq,
    pub(super) window_ack: Seq,

    pub(super) round_trip: RoundTrip,
    /// How long packets that left by the path before may take.
    pub(super) round_trip_before: Duration,
    pub(super) congestion: Bbr,
    pub(super) mtu: MtuSearch,
    pub(super) rate: Rate,
    pub(super) rack: Rack,
    pub(super) probe: TailProbe,
    pub(super) phase: Phase,
    pacer: Pacer,

    pub(super) timeout_at: Option<Now>,
    pub(super) reorder_at: Option<Now>,
    pacing_at: Option<Now>,
    zero_window_at: Option<Now>,
    heartbeat_owed: bool,

    pub(super) retransmits: u64,
    pub(super) lost_count: u64,
    pub(super) timeouts: u64,
}

impl Sender {
    /// Nothing written, nothing known of the path.
    pub fn new(config: &Config, now: Now) -> Sender {
        let first = Seq::first(config.first_seq);
        let packet = config.mtu_min - OVERHEAD_BYTES + HEADER_BYTES;
        Sender {
            buffer: VecDeque::new(),
            start: 0,
            unsent_at: 0,
            buffer_max: config.write_buffer_max,
            span_max: config.out_of_order_max / 4 * 3,
            is_ending: false,
            end: None,
            una: first,
            sent: VecDeque::new(),
            order: VecDeque::new(),
            beyond: VecDeque::new(),
            horizon: None,
            lost: BTreeSet::new(),
            sacked: RangeSet::default(),
            sacked_packets: 0,
            sacked_bytes: 0,
            fresh: vec![],
            in_flight: 0,
            in_flight_before: 0,
            unknown: 0,
            epoch: 0,
            window: config.receive_window,
            window_seq: first,
            window_ack: first,
            round_trip: RoundTrip::new(now),
            round_trip_before: Duration::ZERO,
            congestion: Bbr::new(now, packet),
            mtu: MtuSearch::new(config.mtu_min, config.mtu_max),
            rate: Rate::new(now),
            rack: Rack::new(first),
            probe: TailProbe::default(),
            phase: Phase::Open,
            pacer: Pacer { tokens: (INITIAL_PACKETS * packet) as f64, updated: now },
            timeout_at: None,
            reorder_at: None,
            pacing_at: None,
            zero_window_at: None,
            heartbeat_owed: false,
            retransmits: 0,
            lost_count: 0,
            timeouts: 0,
        }
    }
    /// The number of the next new packet.
    pub fn next(&self) -> Seq {
        self.una.plus(self.sent.len() as u64)
    }
    /// Bytes that a write would take.
    pub fn room(&self) -> usize {
        if self.is_ending {
            return 0;
        }
        let wanted = WRITE_AHEAD_BYTES + self.congestion.window().min(self.window);
        let waiting = self.buffer.len() - self.sacked_bytes;
        wanted.saturating_sub(waiting).min(self.buffer_max - self.buffer.len())
    }
    /// Takes as much as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.buffer.extend(&bytes[..count]);
        count
    }
    /// Nothing more will be written.
    pub fn finish(&mut self) {
        self.is_ending = true;
    }
    /// Whether END was acked, and so all before it.
    pub fn is_ended(&self) -> bool {
        self.end.is_some_and(|end| self.una > end)
    }
    /// Bytes written and not acked.
    pub fn unacked_bytes(&self) -> usize {
        self.buffer.len() - self.sacked_bytes
    }
    /// Largest payload of a packet now.
    pub fn payload_max(&self) -> usize {
        self.mtu.current() - OVERHEAD_BYTES
    }
    /// What may be sent now. Sets the time when pacing lets the next one through, if that alone stands in the way.
    pub(super) fn pick(&mut self, now: Now) -> Option<Pick> {
        self.pacing_at = None;
        if self.probe.is_due {
            if let Some(pick) = self.pick_probe() {
                return Some(pick);
            }
            self.probe.is_due = false;
        }
        if let Some(&seq) = self.lost.first() {
            let may = self.in_flight < self.congestion.window() && self.is_paced(now);
            return may.then_some(Pick::Again(seq));
        }
        let Some(pick) = self.pick_new() else {
            self.note_app_limited();
            return None;
        };
        (self.in_flight < self.congestion.window() && self.is_paced(now)).then_some(pick)
    }
    /// Bytes of the datagram that a pick makes.
    pub(super) fn datagram_bytes(&self, pick: &Pick) -> usize {
        HEADER_BYTES
            + match *pick {
                Pick::Again(seq) => usize::from(self.sent[seq.since(self.una) as usize].len),
                Pick::New { len, padding, .. } => len + usize::from(padding),
            }
    }
    /// Appends the datagram to `into`. The header comes with stream id, window and ack.
    pub(super) fn send(&mut self, now: Now, pick: Pick, header: Header, into: &mut Vec<u8>) {
        if self.in_flight + self.in_flight_before == 0 {
            self.congestion.restart(now, self.rate.app_limited_until > 0);
            self.rate.restart(now);
        }
        let (seq, is_new) = match pick {
            Pick::Again(seq) => (self.prepare_again(seq), false),
            Pick::New { len, padding, flags } => (self.prepare_new(now, len, padding, flags), true),
        };
        let is_app_limited = self.rate.app_limited_until > 0 || self.congestion.is_probing_delay();
        let sent = &mut self.sent[seq.since(self.una) as usize];
        sent.state = State::InFlight;
        sent.epoch = self.epoch;
        sent.sent_at = now;
        sent.is_app_limited = is_app_limited;
        (sent.delivered, sent.delivered_at, sent.first_sent_at) =
            (self.rate.delivered, self.rate.delivered_at, self.rate.first_sent_at);
        let sent = *sent;
        self.in_flight += sent.size();
        self.remember_order(seq, now);
        self.pacer.tokens -= sent.size() as f64;

        let header = Header { flags: sent.flags, data_offset: sent.padding, seq: seq.wire(), ..header };
        header.encode(into);
        into.resize(into.len() + usize::from(sent.padding), 0);
        let from = (sent.offset - self.start) as usize;
        append_range(&self.buffer, from, usize::from(sent.len), into);
        self.arm_after_send(now, is_new);
    }
    /// Whether a HEARTBEAT is to be sent now, to ask a full receiver for room.
    pub(super) fn take_heartbeat(&mut self, now: Now) -> bool {
        let is_stuck = self.window == 0 && self.sent.is_empty() && (self.unsent_bytes() > 0 || self.is_end_unsent());
        if !is_stuck {
            self.zero_window_at = None;
        } else if self.zero_window_at.is_none() {
            self.heartbeat_owed = true;
            self.zero_window_at = Some(now + self.round_trip.timeout());
        }
        std::mem::take(&mut self.heartbeat_owed)
    }
    /// The earliest of all timers.
    pub(super) fn poll_timeout(&self) -> Option<Now> {
        [self.timeout_at, self.reorder_at, self.probe.at, self.pacing_at, self.zero_window_at]
            .into_iter()
            .flatten()
            .min()
    }
    /// Time has passed; true if the other side is to be given up.
    pub(super) fn handle_timeout(&mut self, now: Now) -> bool {
        if self.zero_window_at.is_some_and(|at| at <= now) {
            self.heartbeat_owed = true;
            self.zero_window_at = Some(now + self.round_trip.timeout() * 2);
        }
        self.handle_recovery_timeout(now)
    }
    /// The path is another one from now on: what was learnt of the old one does not hold for it.
    pub(super) fn change_path(&mut self, now: Now, config: &Config) {
        self.round_trip_before = self.round_trip.smoothed().map_or(self.round_trip.timeout(), |smoothed| smoothed * 2);
        self.epoch += 1;
        self.in_flight_before += std::mem::take(&mut self.in_flight);
        self.mtu = MtuSearch::new(config.mtu_min, config.mtu_max);
        let packet = self.payload_max() + HEADER_BYTES;
        self.round_trip = RoundTrip::new(now);
        self.congestion = Bbr::new(now, packet);
        self.rate.restart(now);
        self.pacer = Pacer { tokens: (INITIAL_PACKETS * packet) as f64, updated: now };
        for sent in &mut self.sent {
            sent.padding = 0;
            sent.timeouts = 0;
        }
        self.timeout_at = (!self.sent.is_empty()).then(|| now + self.round_trip.timeout());
    }
    /// Frees what was acked, up to the oldest packet that is not.
    pub(super) fn free_acked(&mut self) {
        let until = self.sent.front().map_or(self.unsent_at, |sent| sent.offset);
        self.buffer.drain(..(until - self.start) as usize);
        self.start = until;
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BUFFER_BYTES {
            self.buffer = VecDeque::new();
        }
    }
    pub(super) fn unsent_bytes(&self) -> usize {
        self.buffer.len() - (self.unsent_at - self.start) as usize
    }

    fn is_end_unsent(&self) -> bool {
        self.is_ending && self.end.is_none()
    }
    fn is_paced(&mut self, now: Now) -> bool {
        let (rate, quantum) = (self.congestion.rate(), self.congestion.quantum());
        self.pacer.refill(now, rate, quantum);
        if self.pacer.tokens > 0.0 {
            return true;
        }
        self.pacing_at = Some(self.pacer.ready_at(now, rate, quantum));
        false
    }
    fn pick_new(&self) -> Option<Pick> {
        let unsent = self.unsent_bytes();
        if (unsent == 0 && !self.is_end_unsent()) || self.sent.len() >= SENT_MAX {
            return None;
        }
        let len = unsent.min(self.payload_max());
        let in_flight = self.in_flight + self.in_flight_before;
        // Any room at all is room for one packet, as with native senders; END without payload needs none.
        let fits = if in_flight == 0 { self.window > 0 || len == 0 } else { in_flight + len <= self.window };
        let span = in_flight + self.unknown + self.sacked_bytes + self.sacked_packets * SACKED_OVERHEAD_BYTES;
        if !fits || span > self.span_max {
            return None;
        }
        let data = if len > 0 { flag::DATA } else { 0 };
        let end = if len == unsent && self.is_end_unsent() { flag::END } else { 0 };
        let padding = if len == self.payload_max() && self.in_flight_before == 0 { self.mtu.padding() } else { 0 };
        Some(Pick::New { len, padding, flags: data | end })
    }
    /// Something new, or what was sent last once more; neither congestion nor pace stops it.
    fn pick_probe(&self) -> Option<Pick> {
        let new = self.pick_new().map(|pick| match pick {
            Pick::New { len, flags, .. } => Pick::New { len, padding: 0, flags },
            again => again,
        });
        let last = || self.order.iter().rev().find(|entry| self.is_current(**entry)).map(|entry| Pick::Again(entry.0));
        new.or_else(last)
    }
    fn note_app_limited(&mut self) {
        if self.unsent_bytes() == 0 && self.in_flight < self.congestion.window() {
            self.rate.app_limited_until = (self.rate.delivered + self.in_flight as u64).max(1);
        }
    }
    fn prepare_again(&mut self, seq: Seq) -> Seq {
        self.retransmits += 1;
        self.lost.remove(&seq);
        self.leave_flight(seq);
        let sent = &mut self.sent[seq.since(self.una) as usize];
        sent.is_retransmitted = true;
        if std::mem::take(&mut sent.padding) > 0 {
            self.mtu.probe_lost();
        }
        seq
    }
    fn prepare_new(&mut self, now: Now, len: usize, padding: u8, flags: u8) -> Seq {
        let seq = self.next();
        self.sent.push_back(Sent {
            offset: self.unsent_at,
            len: len as u16,
            flags,
            padding,
            state: State::InFlight,
            is_retransmitted: false,
            is_app_limited: false,
            timeouts: 0,
            epoch: self.epoch,
            sent_at: now,
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
        });
        self.unsent_at += len as u64;
        if padding > 0 {
            self.mtu.probe_sent();
        }
        if flags & flag::END != 0 {
            self.end = Some(seq);
        }
        seq
    }
    /// Takes a packet out of what counts as in flight, if it is.
    pub(super) fn leave_flight(&mut self, seq: Seq) {
        let sent = self.sent[seq.since(self.una) as usize];
        self.forget_flight(&sent);
    }
    pub(super) fn forget_flight(&mut self, sent: &Sent) {
        match sent.state {
            State::InFlight if sent.epoch == self.epoch => self.in_flight -= sent.size(),
            State::InFlight => self.in_flight_before -= sent.size(),
            State::Unknown => self.unknown -= sent.size(),
            State::Sacked | State::Lost => {}
        }
    }
    /// A packet whose fate the other side has no room to tell is not in flight any more.
    pub(super) fn set_unknown(&mut self, seq: Seq) {
        self.leave_flight(seq);
        let sent = &mut self.sent[seq.since(self.una) as usize];
        sent.state = State::Unknown;
        self.unknown += sent.size();
    }
    fn remember_order(&mut self, seq: Seq, now: Now) {
        if self.order.len() > 2 * self.sent.len() + 64 {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|entry| self.is_current(*entry));
            self.order = order;
        }
        if self.beyond.len() > 2 * self.sent.len() + 64 {
            let mut beyond = std::mem::take(&mut self.beyond);
            beyond.retain(|entry| self.is_current(*entry));
            self.beyond = beyond;
        }
        self.order.push_back((seq, now));
    }
    /// Whether an entry of `order` tells where its packet is.
    pub(super) fn is_current(&self, (seq, at): (Seq, Now)) -> bool {
        seq >= self.una
            && self
                .sent
                .get(seq.since(self.una) as usize)
                .is_some_and(|sent| matches!(sent.state, State::InFlight | State::Unknown) && sent.sent_at == at)
    }
}

fn append_range(buffer: &VecDeque<u8>, from: usize, len: usize, into: &mut Vec<u8>) {
    let (front, back) = buffer.as_slices();
    let split = front.len().clamp(from, from + len);
    if split > from {
        into.extend_from_slice(&front[from..split]);
    }
    if from + len > split {
        into.extend_from_slice(&back[split - front.len()..from + len - front.len()]);
    }
}
