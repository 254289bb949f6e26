//! How fast a stream sends: BBR, version 1 in the main (draft-cardwell-iccrg-bbr-congestion-control-00), in bytes.
//!
//! Each ack brings a sample of the rate at which packets arrive. The largest of the last ten round trips is the path's bandwidth, the shortest round trip of
//! the last ten seconds its delay; their product is what the path holds.
//!
//! ```text
//!   Startup ──rate stops growing for 3 rounds──► Drain ──in flight <= bandwidth × delay──► ProbeBandwidth: 1.25, 0.75, 1, 1, 1, 1, 1, 1
//!      ▲                                                                                        │ ▲
//!      └────────────────────── ProbeDelay: half of it in flight for 200 ms ◄──10 s without a new minimum─┘
//! ```
//!
//! Lost packets alone do not slow it down, as most losses on the paths between peers are not congestion (decision 0003). What differs from version 1, and
//! from libudx:
//!
//! * a round that loses more than a quarter of its packets is taken for an overflowing queue, and window and rate are braked;
//! * Startup ends after two rounds without growth if round trips show a queue, and begins again when a probe finds a fifth more and no queue;
//! * there is no packet conservation on recovery: libudx falls to what is in flight on each loss, which at 3 % is all the time;
//! * a delay below a millisecond counts as one: on loopback the scheduler is slower than the path;
//! * ProbeDelay keeps half the product in flight, as version 2 does, and not four packets.
//!
//! What must stay true: the window is at least four packets; the rate is never 0.

use std::collections::VecDeque;
use std::time::Duration;

use crate::udp::Now;

/// Packets in flight before anything is known.
pub const INITIAL_PACKETS: usize = 10;
const MIN_PACKETS: usize = 4;
const HIGH_GAIN: f64 = 2.885_39;
const WINDOW_GAIN: f64 = 2.0;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const BANDWIDTH_ROUNDS: u64 = 10;
const DELAY_WINDOW: Duration = Duration::from_secs(10);
const DELAY_MIN: Duration = Duration::from_millis(1);
const PROBE_DELAY_TIME: Duration = Duration::from_millis(200);
/// Less than this may be the scheduler's delay, not a queue's.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(10);
/// What is sent in one go: a millisecond's worth, and at most what one system call takes.
const QUANTUM_MAX: usize = 64 << 10;
/// A share of lost packets in one round that is no accident any more, and how many it takes to say so.
const LOSS_SHARE_MAX: f64 = 0.25;
const LOSS_PACKETS_MIN: usize = 16;
const BRAKE_MIN: f64 = 0.3;

/// A rate at which packets arrived.
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// Bytes.
    pub delivered: u64,
    /// In this time.
    pub interval: Duration,
    /// The count of delivered bytes when the newest of them was sent.
    pub prior_delivered: u64,
    /// The sender had too little to send then.
    pub is_app_limited: bool,
}

/// What an ack, or a timeout, tells.
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// When.
    pub now: Now,
    /// Bytes newly acked or SACKed.
    pub acked: usize,
    /// Bytes newly lost, MTU probes aside.
    pub lost: usize,
    /// Bytes still in flight.
    pub in_flight: usize,
    /// Bytes delivered since the beginning.
    pub delivered: u64,
    /// The rate, if it could be measured.
    pub sample: Option<RateSample>,
    /// The round trip, if it could be measured.
    pub round_trip: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeDelay,
}

/// The model of one path, and what follows from it.
#[derive(Debug)]
pub struct Bbr {
    mode: Mode,
    packet: usize,
    window: usize,
    /// Bytes a second.
    rate: f64,
    pacing_gain: f64,
    window_gain: f64,

    /// Round and rate, falling rates only: the front is the largest of the last rounds.
    bandwidths: VecDeque<(u64, f64)>,
    delay: Option<Duration>,
    delay_measured: Now,
    has_rate_from_delay: bool,

    round: u64,
    round_ends_at_delivered: u64,
    is_round_start: bool,
    full_bandwidth: f64,
    full_bandwidth_rounds: u32,
    is_pipe_full: bool,

    phase: usize,
    phase_began: Now,
    probe_delay_until: Option<Now>,
    probe_delay_round_done: bool,
    window_before: usize,
    is_idle_restart: bool,

    aggregation: Aggregation,
    brake: f64,
    round_lost: usize,
    round_acked: usize,
    /// Shortest round trip of the last round, and of this one.
    round_delay: (Option<Duration>, Option<Duration>),
    /// The bandwidth before it was probed.
    bandwidth_before: f64,
}

impl Bbr {
    /// Knows nothing.
    pub fn new(now: Now, packet: usize) -> Bbr {
        let window = INITIAL_PACKETS * packet;
        Bbr {
            mode: Mode::Startup,
            packet,
            window,
            rate: HIGH_GAIN * window as f64 / DELAY_MIN.as_secs_f64(),
            pacing_gain: HIGH_GAIN,
            window_gain: WINDOW_GAIN,
            bandwidths: VecDeque::new(),
            delay: None,
            delay_measured: now,
            has_rate_from_delay: false,
            round: 0,
            round_ends_at_delivered: 0,
            is_round_start: false,
            full_bandwidth: 0.0,
            full_bandwidth_rounds: 0,
            is_pipe_full: false,
            phase: 0,
            phase_began: now,
            probe_delay_until: None,
            probe_delay_round_done: false,
            window_before: 0,
            is_idle_restart: false,
            aggregation: Aggregation::new(now),
            brake: 1.0,
            round_lost: 0,
            round_acked: 0,
            round_delay: (None, None),
            bandwidth_before: 0.0,
        }
    }
    /// Bytes that may be in flight.
    pub fn window(&self) -> usize {
        self.window
    }
    /// Bytes a second to send at.
    pub fn rate(&self) -> f64 {
        self.rate
    }
    /// Bytes a second that the path is believed to carry.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidths.front().map_or(0.0, |entry| entry.1)
    }
    /// Bytes to send in one go.
    pub fn quantum(&self) -> usize {
        ((self.rate * 0.001) as usize).clamp(2 * self.packet, QUANTUM_MAX)
    }
    /// Packets are larger from now on.
    pub fn set_packet(&mut self, packet: usize) {
        self.packet = packet;
    }
    /// The first packet leaves after nothing was in flight.
    pub fn restart(&mut self, now: Now, is_app_limited: bool) {
        if is_app_limited {
            self.is_idle_restart = true;
            self.aggregation.restart(now);
            if self.mode == Mode::ProbeBandwidth {
                self.rate = self.rate_of(1.0);
            }
        }
    }
    /// An ack has come.
    pub fn on_ack(&mut self, feedback: &Feedback) {
        self.round_lost += feedback.lost;
        self.round_acked += feedback.acked;
        self.update_bandwidth(feedback);
        self.aggregation.on_ack(feedback, self.is_round_start, self.bandwidth(), self.window);
        self.update_brake();
        self.note_round_delay(feedback);
        self.update_phase(feedback);
        self.update_pipe(feedback);
        self.update_delay(feedback);
        self.update_gains();
        self.update_rate(feedback);
        self.update_window(feedback);
    }
    /// Nothing was heard for so long that all in flight is lost.
    pub fn on_timeout(&mut self, in_flight: usize) {
        self.full_bandwidth = 0.0;
        self.window = in_flight.max(MIN_PACKETS * self.packet);
    }
    /// Whether samples are to be ignored as too small because less than usual is in flight on purpose.
    pub fn is_probing_delay(&self) -> bool {
        self.mode == Mode::ProbeDelay
    }

    fn update_bandwidth(&mut self, feedback: &Feedback) {
        self.is_round_start = false;
        let Some(sample) = feedback.sample else { return };
        if sample.prior_delivered >= self.round_ends_at_delivered {
            self.round_ends_at_delivered = feedback.delivered;
            self.round += 1;
            self.is_round_start = true;
        }
        let rate = sample.delivered as f64 / sample.interval.as_secs_f64().max(1e-6);
        if sample.is_app_limited && rate < self.bandwidth() {
            return;
        }
        while self.bandwidths.back().is_some_and(|entry| entry.1 <= rate) {
            self.bandwidths.pop_back();
        }
        self.bandwidths.push_back((self.round, rate));
        while self.bandwidths.front().is_some_and(|entry| entry.0 + BANDWIDTH_ROUNDS < self.round) {
            self.bandwidths.pop_front();
        }
    }
    fn update_brake(&mut self) {
        if !self.is_round_start {
            return;
        }
        let share = self.round_lost as f64 / (self.round_lost + self.round_acked).max(1) as f64;
        if share > LOSS_SHARE_MAX && self.round_lost > LOSS_PACKETS_MIN * self.packet {
            self.brake = (self.brake * 0.7).max(BRAKE_MIN);
            self.is_pipe_full = true;
        } else {
            self.brake = (self.brake + 0.1).min(1.0);
        }
        (self.round_lost, self.round_acked) = (0, 0);
    }
    fn update_phase(&mut self, feedback: &Feedback) {
        if self.mode != Mode::ProbeBandwidth {
            return;
        }
        let is_over = feedback.now.saturating_sub(self.phase_began) > self.delay.unwrap_or(DELAY_MIN);
        let is_next = match self.pacing_gain {
            gain if gain > 1.0 => is_over && (feedback.lost > 0 || feedback.in_flight >= self.product(gain)),
            gain if gain < 1.0 => is_over || feedback.in_flight <= self.product(1.0),
            _ => is_over,
        };
        if is_next {
            self.phase = (self.phase + 1) % CYCLE.len();
            self.phase_began = feedback.now;
            match self.phase {
                0 => self.bandwidth_before = self.bandwidth(),
                2 if self.bandwidth() > self.bandwidth_before * 1.2 && !self.has_queue() => self.start_again(),
                _ => {}
            }
        }
    }
    /// The probe found as much more as it asked for, and no queue: the pipe was not full after all.
    fn start_again(&mut self) {
        self.mode = Mode::Startup;
        (self.is_pipe_full, self.full_bandwidth, self.full_bandwidth_rounds) = (false, 0.0, 0);
    }
    fn update_pipe(&mut self, feedback: &Feedback) {
        let is_app_limited = feedback.sample.is_none_or(|sample| sample.is_app_limited);
        if !self.is_pipe_full && self.is_round_start && !is_app_limited {
            if self.bandwidth() >= self.full_bandwidth * 1.25 {
                (self.full_bandwidth, self.full_bandwidth_rounds) = (self.bandwidth(), 0);
            } else {
                self.full_bandwidth_rounds += 1;
                self.is_pipe_full = self.full_bandwidth_rounds >= if self.has_queue() { 2 } else { 3 };
            }
        }
        if self.mode == Mode::Startup && self.is_pipe_full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && feedback.in_flight <= self.product(1.0) {
            self.probe_bandwidth(feedback.now);
        }
    }
    /// Whether all round trips of the last round were so much longer than the path that a queue must stand somewhere.
    fn has_queue(&self) -> bool {
        let delay = self.delay.unwrap_or(Duration::MAX);
        self.round_delay.0.is_some_and(|least| least > delay.saturating_add((delay / 4).max(QUEUE_DELAY_MIN)))
    }
    fn note_round_delay(&mut self, feedback: &Feedback) {
        if self.is_round_start {
            self.round_delay = (self.round_delay.1, None);
        }
        let least = self.round_delay.1.into_iter().chain(feedback.round_trip).min();
        self.round_delay.1 = least;
    }
    fn probe_bandwidth(&mut self, now: Now) {
        self.mode = Mode::ProbeBandwidth;
        (self.phase, self.phase_began) = (3, now);
    }
    fn update_delay(&mut self, feedback: &Feedback) {
        let now = feedback.now;
        let has_expired = now.saturating_sub(self.delay_measured) > DELAY_WINDOW;
        if let Some(sample) = feedback.round_trip
            && (has_expired || self.delay.is_none_or(|delay| sample <= delay))
        {
            (self.delay, self.delay_measured) = (Some(sample), now);
        }
        if has_expired && !self.is_idle_restart && self.mode != Mode::ProbeDelay && self.delay.is_some() {
            self.mode = Mode::ProbeDelay;
            self.window_before = self.window;
            self.probe_delay_until = None;
        }
        if self.mode == Mode::ProbeDelay {
            self.probe_delay(feedback);
        }
        if feedback.acked > 0 {
            self.is_idle_restart = false;
        }
    }
    fn probe_delay(&mut self, feedback: &Feedback) {
        match self.probe_delay_until {
            None if feedback.in_flight <= self.probe_delay_window() => {
                self.probe_delay_until = Some(feedback.now + PROBE_DELAY_TIME);
                self.probe_delay_round_done = false;
                self.round_ends_at_delivered = feedback.delivered;
            }
            None => {}
            Some(until) => {
                self.probe_delay_round_done |= self.is_round_start;
                if self.probe_delay_round_done && feedback.now >= until {
                    self.delay_measured = feedback.now;
                    self.window = self.window.max(self.window_before);
                    if self.is_pipe_full { self.probe_bandwidth(feedback.now) } else { self.mode = Mode::Startup }
                }
            }
        }
    }
    fn update_gains(&mut self) {
        (self.pacing_gain, self.window_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, WINDOW_GAIN),
            Mode::Drain => (1.0 / HIGH_GAIN, WINDOW_GAIN),
            Mode::ProbeBandwidth => (CYCLE[self.phase], WINDOW_GAIN),
            Mode::ProbeDelay => (1.0, 1.0),
        };
    }
    fn update_rate(&mut self, feedback: &Feedback) {
        if !self.has_rate_from_delay
            && let Some(sample) = feedback.round_trip
        {
            self.has_rate_from_delay = true;
            self.rate = HIGH_GAIN * self.window as f64 / sample.max(DELAY_MIN).as_secs_f64();
        }
        let rate = self.rate_of(self.pacing_gain);
        if self.is_pipe_full || rate > self.rate {
            self.rate = rate;
        }
    }
    fn update_window(&mut self, feedback: &Feedback) {
        if feedback.acked == 0 {
            return;
        }
        let target =
            self.product(self.window_gain) as f64 + self.aggregation.extra(self.bandwidth(), self.is_pipe_full);
        let target = (target * self.brake) as usize + 3 * self.quantum();
        if self.is_pipe_full {
            self.window = (self.window + feedback.acked).min(target);
        } else if self.window < target || feedback.delivered < (INITIAL_PACKETS * self.packet) as u64 {
            self.window += feedback.acked;
        }
        self.window = self.window.max(MIN_PACKETS * self.packet);
        if self.mode == Mode::ProbeDelay {
            self.window = self.window.min(self.probe_delay_window());
        }
    }
    fn rate_of(&self, gain: f64) -> f64 {
        let least = self.packet as f64 * 4.0;
        (self.bandwidth() * gain * self.brake.max(0.5) * 0.99).max(least)
    }
    /// What the path holds, times a gain.
    fn product(&self, gain: f64) -> usize {
        match self.delay {
            Some(delay) => (self.bandwidth() * delay.max(DELAY_MIN).as_secs_f64() * gain) as usize,
            None => INITIAL_PACKETS * self.packet,
        }
    }
    fn probe_delay_window(&self) -> usize {
        self.product(0.5).max(MIN_PACKETS * self.packet)
    }
}

/// How much more than the bandwidth says is acked at once: receivers, and batches of datagrams, ack in bursts. The window must reach over the gaps between
/// them.
#[derive(Debug)]
struct Aggregation {
    began: Now,
    acked: f64,
    rounds: u32,
    /// The most of the last five rounds, and of the five before.
    extra: [f64; 2],
}

impl Aggregation {
    const EXTRA_TIME: f64 = 0.1;

    fn new(now: Now) -> Aggregation {
        Aggregation { began: now, acked: 0.0, rounds: 0, extra: [0.0; 2] }
    }
    fn restart(&mut self, now: Now) {
        (self.began, self.acked) = (now, 0.0);
    }
    fn on_ack(&mut self, feedback: &Feedback, is_round_start: bool, bandwidth: f64, window: usize) {
        if feedback.acked == 0 || feedback.sample.is_none() {
            return;
        }
        if is_round_start {
            self.rounds += 1;
            if self.rounds >= 5 {
                (self.rounds, self.extra) = (0, [0.0, self.extra[0]]);
            }
        }
        let mut expected = bandwidth * feedback.now.saturating_sub(self.began).as_secs_f64();
        if self.acked <= expected {
            (self.acked, self.began, expected) = (0.0, feedback.now, 0.0);
        }
        self.acked += feedback.acked as f64;
        self.extra[0] = self.extra[0].max((self.acked - expected).min(window as f64));
    }
    fn extra(&self, bandwidth: f64, is_pipe_full: bool) -> f64 {
        if is_pipe_full { self.extra[0].max(self.extra[1]).min(bandwidth * Self::EXTRA_TIME) } else { 0.0 }
    }
}
