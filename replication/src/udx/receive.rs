//! The receiving half of a stream: puts packets back in order, within bounds.
//!
//! ```text
//!   read() ◄── sealed chunks ◄── open chunk ◄── next in order        bytes not yet read <= window (+ what was out of order)
//!                                   ▲
//!                                   └───────── waiting, by number    bytes <= out_of_order_max, numbers < next + 65536
//! ```
//!
//! What must stay true: what is dropped for lack of room was not acked, so the other side sends it again; nothing after the END is taken; memory is a
//! function of the two limits, not of what comes in.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::Config;
use super::packet::{SACKS_MAX, Seq, flag};
use super::ranges::RangeSet;

/// How far ahead of the next expected packet one is looked at; native peers' SACKs reach as far.
pub const AHEAD_MAX: u64 = 65_536;
/// Ranges out of order, at most.
const RANGES_MAX: usize = 8_192;
/// What a packet that waits costs besides its payload.
const WAITING_OVERHEAD_BYTES: usize = 96;
/// Of the SACK pairs, those that always name the oldest ranges.
const SACKS_OLDEST: usize = 20;

/// The receiving half.
pub struct Receiver {
    next: Seq,
    end: Option<Seq>,
    readable: Readable,
    waiting: BTreeMap<Seq, Bytes>,
    waiting_bytes: usize,
    ranges: RangeSet,
    fresh: Vec<(Seq, Seq)>,
    /// The packet out of order that came last.
    newest: Seq,
    window_max: usize,
    out_of_order_max: usize,
    /// Of what can be read, so much came out of order and stays counted there: a hole that is filled must not shut the window all at once.
    readable_out_of_order: usize,
}

impl Receiver {
    /// Expects the first packet.
    pub fn new(config: &Config) -> Receiver {
        let next = Seq::first(config.first_seq);
        Receiver {
            next,
            end: None,
            readable: Readable::default(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            ranges: RangeSet::default(),
            fresh: vec![],
            newest: next,
            window_max: config.receive_window,
            out_of_order_max: config.out_of_order_max,
            readable_out_of_order: 0,
        }
    }
    /// The packet expected next.
    pub fn next(&self) -> Seq {
        self.next
    }
    /// Whether a number is one that an honest peer could be at.
    pub fn is_plausible(&self, seq: Seq) -> bool {
        seq >= self.next && seq.since(self.next) < AHEAD_MAX
    }
    /// A packet with DATA or END. True if there is something new to read.
    pub fn handle(&mut self, seq: Seq, flags: u8, payload: &[u8]) -> bool {
        let is_end = flags & flag::END != 0;
        let payload = if flags & flag::DATA != 0 { payload } else { &[] };
        if !self.is_plausible(seq) || !self.fits_end(seq, is_end) {
            return false;
        }
        let before = self.readable.bytes;
        if seq == self.next {
            if !payload.is_empty() && self.window() == 0 {
                return false;
            }
            self.readable.append(payload);
            self.next = self.next.plus(1);
            self.take_waiting();
        } else if !self.keep(seq, payload) {
            return false;
        }
        if is_end {
            self.end = Some(seq);
        }
        self.readable.bytes > before
    }
    /// Whether END and all before it have come.
    pub fn is_ended(&self) -> bool {
        self.end.is_some_and(|end| self.next > end)
    }
    /// Bytes that may still come.
    pub fn window(&self) -> usize {
        self.window_max.saturating_sub(self.readable.bytes - self.readable_out_of_order)
    }
    /// Bytes that can be read.
    pub fn readable_bytes(&self) -> usize {
        self.readable.bytes
    }
    /// The next bytes, `max` at most.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let bytes = self.readable.read(max)?;
        self.readable_out_of_order = self.readable_out_of_order.saturating_sub(bytes.len());
        Some(bytes)
    }
    /// How many SACK pairs [`Receiver::sacks`] has.
    pub fn sacks_len(&self) -> usize {
        self.ranges.len().min(SACKS_MAX)
    }
    /// The SACK pairs to send: all ranges if they fit, else the oldest and those around what came last. So the other side hears of every packet at least once
    /// soon after it came, also when more than fifty are missing.
    pub fn sacks(&self) -> impl Iterator<Item = (Seq, Seq)> {
        let ranges = self.ranges.as_slice();
        let (oldest, recent) = if ranges.len() <= SACKS_MAX {
            (ranges, &ranges[..0])
        } else {
            let count = SACKS_MAX - SACKS_OLDEST;
            let from = self.ranges.position(self.newest).saturating_sub(count / 2);
            let from = from.clamp(SACKS_OLDEST, ranges.len() - count);
            (&ranges[..SACKS_OLDEST], &ranges[from..from + count])
        };
        oldest.iter().chain(recent).copied()
    }
    fn fits_end(&self, seq: Seq, is_end: bool) -> bool {
        match self.end {
            Some(end) => seq < end || (seq == end && is_end),
            None => !is_end || self.ranges.last().is_none_or(|last| last <= seq),
        }
    }
    fn keep(&mut self, seq: Seq, payload: &[u8]) -> bool {
        let cost = payload.len() + WAITING_OVERHEAD_BYTES;
        if self.waiting.contains_key(&seq) {
            return true;
        }
        if self.waiting_bytes + self.readable_out_of_order + cost > self.out_of_order_max {
            return false;
        }
        if self.ranges.len() >= RANGES_MAX && self.ranges.would_grow(seq) {
            return false;
        }
        self.waiting_bytes += cost;
        self.waiting.insert(seq, Bytes::copy_from_slice(payload));
        self.fresh.clear();
        self.ranges.insert((seq, seq.plus(1)), &mut self.fresh);
        self.newest = seq;
        true
    }
    fn take_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() == self.next) {
            let payload = entry.remove();
            self.waiting_bytes -= payload.len() + WAITING_OVERHEAD_BYTES;
            self.readable_out_of_order += payload.len();
            self.readable.push(payload);
            self.next = self.next.plus(1);
        }
        self.ranges.remove_before(self.next);
    }
}

/// Bytes in order that nobody has read yet.
#[derive(Default)]
struct Readable {
    sealed: VecDeque<Bytes>,
    open: BytesMut,
    chunk_bytes: usize,
    bytes: usize,
}

impl Readable {
    const CHUNK_BYTES_MIN: usize = 2 << 10;
    const CHUNK_BYTES_MAX: usize = 64 << 10;
    /// Payloads as large as this are not copied once more to join their neighbours.
    const WHOLE_BYTES_MIN: usize = 512;

    fn append(&mut self, payload: &[u8]) {
        self.bytes += payload.len();
        if self.open.capacity() - self.open.len() < payload.len() {
            self.seal();
            // An idle stream keeps little; a busy one gets to whole chunks in a few steps.
            self.chunk_bytes = (self.chunk_bytes * 2).clamp(Self::CHUNK_BYTES_MIN, Self::CHUNK_BYTES_MAX);
            self.open.reserve(self.chunk_bytes.max(payload.len()));
        }
        self.open.extend_from_slice(payload);
    }
    fn push(&mut self, payload: Bytes) {
        if payload.len() < Self::WHOLE_BYTES_MIN {
            return self.append(&payload);
        }
        self.seal();
        self.bytes += payload.len();
        self.sealed.push_back(payload);
    }
    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(self.open.split().freeze());
        }
    }
    fn read(&mut self, max: usize) -> Option<Bytes> {
        if max == 0 || self.bytes == 0 {
            return None;
        }
        let bytes = match self.sealed.front_mut() {
            Some(front) if front.len() > max => front.split_to(max),
            Some(_) => self.sealed.pop_front().expect("there is a front"),
            None => self.open.split_to(max.min(self.open.len())).freeze(),
        };
        self.bytes -= bytes.len();
        Some(bytes)
    }
}
