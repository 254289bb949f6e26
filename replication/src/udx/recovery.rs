//! What becomes of sent packets: acked, lost and sent again, or given up. RACK and tail loss probes are RFC 8985's, with UDX's constants.
//!
//! ```text
//!             ack, SACK
//!   in flight ─────────► gone
//!      │  ▲                      a packet sent later arrived, and this one had its round trip and some more: lost (RACK)
//!      │  └── sent again         two round trips of silence: new data, or the last packet once more (tail loss probe)
//!      ▼                         a timeout of silence: the oldest, and all that had their round trip, are lost
//!     lost
//! ```
//!
//! The probe differs from RFC 8985's in that it also comes while losses are made up for: UDX's shortest timeout is a second, and the last packets of a lossy
//! stream would wait for it again and again. There is one probe at most between two acks that bring news.
//!
//! What must stay true: an ack beyond what was sent changes nothing; SACK pairs outside what is under way are skipped one by one; a packet that has timed out
//! six times and does once more ends the stream; what an ack costs is in proportion to what it newly acks, and to its length.

use std::time::Duration;

use super::congestion::{Feedback, RateSample};
use super::packet::{HEADER_BYTES, SACKS_MAX, Seq};
use super::send::{Sender, Sent, State};
use crate::udp::Now;

/// How often one packet may time out.
const TIMEOUTS_MAX: u8 = 6;
/// Added to a probe's time when one packet alone is under way: its ack may wait for company. Native peers add 2 ms as well.
const ALONE_DELAY: Duration = Duration::from_millis(2);
/// The reordering window grows in quarters of a round trip, up to this many.
const REORDER_STEPS_MAX: u32 = 8;

/// Whether losses are being made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No.
    Open,
    /// Until this number is acked.
    Recovery(Seq),
    /// After a timeout, until this number is acked.
    Loss(Seq),
}

/// What RACK knows: the packet sent last of those that arrived.
#[derive(Debug)]
pub(super) struct Rack {
    sent_at: Now,
    next: Seq,
    round_trip: Duration,
    /// Above all that arrived.
    forward: Seq,
    is_reordering_seen: bool,
    reorder_steps: u32,
    reorder_grew_at: Now,
}

impl Rack {
    pub fn new(first: Seq) -> Rack {
        Rack {
            sent_at: Now::ZERO,
            next: first,
            round_trip: Duration::ZERO,
            forward: first,
            is_reordering_seen: false,
            reorder_steps: 1,
            reorder_grew_at: Now::ZERO,
        }
    }
}

/// The tail loss probe.
#[derive(Debug, Default)]
pub(super) struct TailProbe {
    /// When to send one.
    pub at: Option<Now>,
    /// The next packet to leave is one.
    pub is_due: bool,
    /// Something arrived there since the last one.
    is_permitted: bool,
}

/// Measures the rate at which packets arrive (draft-cheng-iccrg-delivery-rate-estimation).
#[derive(Debug)]
pub(super) struct Rate {
    pub delivered: u64,
    pub delivered_at: Now,
    pub first_sent_at: Now,
    /// Until so much is delivered, samples tell about the writer, not the path. 0: they do not.
    pub app_limited_until: u64,
}

impl Rate {
    pub fn new(now: Now) -> Rate {
        Rate { delivered: 0, delivered_at: now, first_sent_at: now, app_limited_until: 1 }
    }
    pub fn restart(&mut self, now: Now) {
        (self.delivered_at, self.first_sent_at) = (now, now);
    }
}

/// What one ack has brought so far.
#[derive(Default)]
struct Progress {
    /// Packets of any path.
    packets: usize,
    /// Bytes that left by this path.
    acked: usize,
    newest: Option<Sent>,
    /// Of the packet sent last of those sent once, over this path.
    round_trip: Option<Duration>,
    round_trip_sent_at: Now,
}

impl Sender {
    /// An ack with its SACK pairs; `seq` and `window` are of the packet it came in.
    pub(super) fn handle_ack(
        &mut self,
        now: Now,
        seq: Seq,
        ack: Seq,
        window: usize,
        sacks: impl Iterator<Item = (u32, u32)>,
    ) {
        if ack > self.next() {
            return;
        }
        self.update_window(seq, ack, window);
        let was_under_way = !self.sent.is_empty();
        if let Phase::Recovery(until) | Phase::Loss(until) = self.phase
            && ack >= until
        {
            self.phase = Phase::Open;
        }
        let mut progress = Progress::default();
        let has_advanced = ack > self.una;
        while self.una < ack {
            let sent = self.sent.pop_front().expect("ack <= next");
            let seq = self.una;
            self.una = seq.plus(1);
            match sent.state {
                State::Sacked => {
                    self.sacked_packets -= 1;
                    self.sacked_bytes -= usize::from(sent.len);
                }
                State::InFlight | State::Unknown | State::Lost => self.deliver(now, seq, sent, &mut progress),
            }
        }
        if has_advanced {
            self.sacked.remove_before(self.una);
            self.free_acked();
        }
        let (mut pairs, mut above) = (0, self.una);
        for (start, end) in sacks {
            let (start, end) = (self.una.expand(start), self.una.expand(end));
            (pairs, above) = (pairs + 1, above.max(end));
            self.handle_sack(now, start, end, &mut progress);
        }
        self.horizon = (pairs >= SACKS_MAX).then(|| above.max(self.horizon.unwrap_or(above)));
        if was_under_way {
            self.after_ack(now, has_advanced, &progress);
        }
    }
    /// Reordering, tail loss and retransmission timers. True if the other side is to be given up.
    pub(super) fn handle_recovery_timeout(&mut self, now: Now) -> bool {
        if self.reorder_at.is_some_and(|at| at <= now) {
            let lost = self.detect_losses(now);
            self.report(now, &Progress::default(), lost);
        }
        if self.probe.at.is_some_and(|at| at <= now) {
            self.probe.at = None;
            if !self.sent.is_empty() && self.probe.is_permitted {
                self.probe.is_due = true;
                self.timeout_at = Some(now + self.round_trip.timeout());
                return false;
            }
        }
        self.timeout_at.is_some_and(|at| at <= now) && self.handle_retransmission_timeout(now)
    }
    /// Timers after a packet has left.
    pub(super) fn arm_after_send(&mut self, now: Now, is_new: bool) {
        self.timeout_at.get_or_insert(now + self.round_trip.timeout());
        if std::mem::take(&mut self.probe.is_due) {
            self.probe.is_permitted = false;
        } else if is_new {
            self.schedule_probe(now);
        }
    }

    fn update_window(&mut self, seq: Seq, ack: Seq, window: usize) {
        let is_newer = self.window_seq < seq || (self.window_seq == seq && self.window_ack <= ack);
        if ack >= self.una && is_newer {
            (self.window, self.window_seq, self.window_ack) = (window, seq, ack);
        }
    }
    fn handle_sack(&mut self, now: Now, start: Seq, end: Seq, progress: &mut Progress) {
        if start >= end || start < self.una || end > self.next() {
            return;
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.clear();
        self.sacked.insert((start, end), &mut fresh);
        for &(from, to) in &fresh {
            for number in from.0..to.0 {
                let index = Seq(number).since(self.una) as usize;
                let sent = self.sent[index];
                self.sent[index].state = State::Sacked;
                self.sacked_packets += 1;
                self.sacked_bytes += usize::from(sent.len);
                self.deliver(now, Seq(number), sent, progress);
            }
        }
        self.fresh = fresh;
    }
    /// A packet has arrived there.
    fn deliver(&mut self, now: Now, seq: Seq, sent: Sent, progress: &mut Progress) {
        match sent.state {
            State::InFlight | State::Unknown => self.forget_flight(&sent),
            State::Lost => drop(self.lost.remove(&seq)),
            State::Sacked => return,
        }
        self.mtu.acked();
        if sent.padding > 0 {
            self.mtu.probe_acked();
            self.congestion.set_packet(self.payload_max() + HEADER_BYTES);
        }
        progress.packets += 1;
        let round_trip = now.saturating_sub(sent.sent_at);
        let is_this_path = sent.epoch == self.epoch;
        if is_this_path {
            progress.acked += sent.size();
            self.rate.delivered += sent.size() as u64;
            self.rate.delivered_at = now;
        }
        if is_this_path && progress.newest.is_none_or(|newest| sent.sent_at >= newest.sent_at) {
            progress.newest = Some(sent);
        }
        if is_this_path && !sent.is_retransmitted && sent.sent_at >= progress.round_trip_sent_at {
            (progress.round_trip, progress.round_trip_sent_at) = (Some(round_trip), sent.sent_at);
        }
        self.update_rack(now, seq, &sent, round_trip);
    }
    fn update_rack(&mut self, now: Now, seq: Seq, sent: &Sent, round_trip: Duration) {
        let next = seq.plus(1);
        let is_plausible = self.round_trip.min().is_none_or(|min| round_trip >= min);
        if !sent.is_retransmitted || is_plausible {
            let is_later = (sent.sent_at, next) > (self.rack.sent_at, self.rack.next);
            if is_later && sent.epoch == self.epoch {
                (self.rack.sent_at, self.rack.next, self.rack.round_trip) = (sent.sent_at, next, round_trip);
            }
        } else if now.saturating_sub(self.rack.reorder_grew_at) > self.round_trip.smoothed().unwrap_or_default() {
            // Acked sooner than a round trip after it was sent again: the first one was late, not lost.
            self.rack.is_reordering_seen = true;
            self.rack.reorder_steps = (self.rack.reorder_steps + 1).min(REORDER_STEPS_MAX);
            self.rack.reorder_grew_at = now;
        }
        if next > self.rack.forward {
            self.rack.forward = next;
        } else if next < self.rack.forward && !sent.is_retransmitted && sent.epoch == self.epoch {
            self.rack.is_reordering_seen = true;
        }
    }
    fn after_ack(&mut self, now: Now, has_advanced: bool, progress: &Progress) {
        if let Some(sample) = progress.round_trip {
            self.round_trip.sample(now, sample);
        }
        self.probe.is_permitted |= progress.packets > 0;
        let lost = if progress.packets > 0 { self.detect_losses(now) } else { 0 };
        if self.sent.is_empty() {
            (self.timeout_at, self.reorder_at, self.probe.at) = (None, None, None);
            self.probe.is_due = false;
        } else if progress.packets > 0 || has_advanced {
            self.timeout_at = Some(now + self.round_trip.timeout());
            self.probe.at = None;
            if self.reorder_at.is_none() {
                self.schedule_probe(now);
            }
        }
        if progress.packets > 0 {
            self.report(now, progress, lost);
        }
    }
    /// Marks what is lost by now, and sets the time when more may be. Bytes lost, probes for the MTU aside.
    fn detect_losses(&mut self, now: Now) -> usize {
        self.reorder_at = None;
        let window = self.reorder_window();
        let (mut lost, mut is_congestion) = (0, false);
        while let Some(&(seq, at)) = self.beyond.front() {
            if self.is_current((seq, at)) {
                if self.is_beyond_horizon(seq) {
                    break;
                }
                let size = self.mark_lost(seq);
                lost += size;
                is_congestion |= size > 0;
            }
            self.beyond.pop_front();
        }
        while let Some(&(seq, at)) = self.order.front() {
            if !self.is_current((seq, at)) {
                self.order.pop_front();
                continue;
            }
            if (at, seq.plus(1)) >= (self.rack.sent_at, self.rack.next) {
                break;
            }
            let sent = &self.sent[seq.since(self.una) as usize];
            let mut round_trip = self.rack.round_trip;
            if sent.epoch != self.epoch {
                round_trip = round_trip.max(self.round_trip_before);
            }
            let deadline = at + round_trip + window;
            if deadline > now {
                self.reorder_at = Some(deadline);
                break;
            }
            self.order.pop_front();
            if self.is_beyond_horizon(seq) {
                self.set_unknown(seq);
                self.beyond.push_back((seq, at));
                continue;
            }
            let size = self.mark_lost(seq);
            lost += size;
            is_congestion |= size > 0;
        }
        if is_congestion && self.phase == Phase::Open {
            self.phase = Phase::Recovery(self.next());
        }
        lost
    }
    /// Whether an ack had no room to tell about a packet. Native receivers name the fifty lowest ranges alone: what lies above has not arrived for all we
    /// know, and has for all they know. It counts as neither in flight nor lost until they get there.
    fn is_beyond_horizon(&self, seq: Seq) -> bool {
        self.horizon.is_some_and(|horizon| seq >= horizon)
    }
    fn reorder_window(&self) -> Duration {
        if !self.rack.is_reordering_seen && (self.phase != Phase::Open || self.sacked_packets >= 3) {
            return Duration::ZERO;
        }
        let step = self.round_trip.min().unwrap_or_default() / 4;
        (step * self.rack.reorder_steps).min(self.round_trip.smoothed().unwrap_or_default())
    }
    /// Bytes lost: none if it was a probe for the MTU.
    fn mark_lost(&mut self, seq: Seq) -> usize {
        self.leave_flight(seq);
        let sent = &mut self.sent[seq.since(self.una) as usize];
        sent.state = State::Lost;
        let (size, padding) = (sent.size(), std::mem::take(&mut sent.padding));
        self.lost.insert(seq);
        self.lost_count += 1;
        if padding > 0 {
            self.mtu.probe_lost();
            return 0;
        }
        size
    }
    fn handle_retransmission_timeout(&mut self, now: Now) -> bool {
        if self.sent.is_empty() {
            self.timeout_at = None;
            return false;
        }
        self.timeouts += 1;
        self.phase = Phase::Loss(self.next());
        self.probe = TailProbe { is_permitted: self.probe.is_permitted, ..TailProbe::default() };
        self.timeout_at = Some(now + self.round_trip.timeout() * 2);
        let grace = self.rack.round_trip + self.reorder_window();
        for index in 0..self.sent.len() {
            let sent = &self.sent[index];
            let is_due = index == 0 || sent.sent_at + grace < now;
            if sent.state == State::Sacked || !is_due {
                continue;
            }
            if index == 0 && sent.timeouts >= TIMEOUTS_MAX {
                return true;
            }
            let seq = self.una.plus(index as u64);
            self.sent[index].timeouts += u8::from(index == 0);
            if matches!(self.sent[index].state, State::InFlight | State::Unknown) {
                self.mark_lost(seq);
            }
        }
        self.congestion.on_timeout(self.in_flight);
        false
    }
    fn schedule_probe(&mut self, now: Now) {
        if self.sent.is_empty() {
            return;
        }
        let mut wait = self.round_trip.smoothed().map_or(Duration::from_secs(1), |smoothed| smoothed * 2);
        if self.sent.len() == 1 {
            wait += ALONE_DELAY;
        }
        let at = now + wait.max(ALONE_DELAY);
        self.probe.at = Some(self.timeout_at.map_or(at, |timeout| at.min(timeout)));
    }
    /// Tells congestion control.
    fn report(&mut self, now: Now, progress: &Progress, lost: usize) {
        if self.rate.app_limited_until > 0 && self.rate.delivered > self.rate.app_limited_until {
            self.rate.app_limited_until = 0;
        }
        let sample = progress.newest.and_then(|newest| self.rate_sample(now, &newest));
        if let Some(newest) = &progress.newest {
            self.rate.first_sent_at = newest.sent_at;
        }
        self.congestion.on_ack(&Feedback {
            now,
            acked: progress.acked,
            lost,
            in_flight: self.in_flight,
            delivered: self.rate.delivered,
            sample,
            round_trip: progress.round_trip,
        });
    }
    fn rate_sample(&self, now: Now, newest: &Sent) -> Option<RateSample> {
        let sending = newest.sent_at.saturating_sub(newest.first_sent_at);
        let acking = now.saturating_sub(newest.delivered_at);
        let interval = sending.max(acking);
        if interval.is_zero() || self.round_trip.min().is_some_and(|min| interval < min) {
            return None;
        }
        Some(RateSample {
            delivered: self.rate.delivered - newest.delivered,
            interval,
            prior_delivered: newest.delivered,
            is_app_limited: newest.is_app_limited,
        })
    }
}
