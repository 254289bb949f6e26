//! Round trips: their mean, their spread, their recent minimum, and the retransmission timeout that follows (RFC 6298 with UDX's bounds).

use std::time::Duration;

use crate::udp::Now;

/// The first timeout, and the shortest.
pub const RTO_MIN: Duration = Duration::from_millis(1000);
/// The longest timeout.
pub const RTO_MAX: Duration = Duration::from_millis(30_000);
/// A sample above this that also is far off is taken for a machine that slept.
const OUTLIER_MIN: Duration = Duration::from_millis(5_000);
/// For how long a minimum holds: one to two of these.
const MIN_WINDOW: Duration = Duration::from_millis(30_000);

/// What is known of a path's round trips.
#[derive(Debug)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variance: Duration,
    /// The minima of this window and the one before it, and when this one began.
    minima: (Option<Duration>, Option<Duration>),
    window_began: Now,
}

impl RoundTrip {
    /// Nothing yet.
    pub fn new(now: Now) -> RoundTrip {
        RoundTrip { smoothed: None, variance: Duration::ZERO, minima: (None, None), window_began: now }
    }
    /// One was measured, on a packet that was sent once.
    pub fn sample(&mut self, now: Now, sample: Duration) {
        let sample = self.without_sleep(sample);
        match self.smoothed {
            None => (self.smoothed, self.variance) = (Some(sample), sample / 2),
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
        if now.saturating_sub(self.window_began) > MIN_WINDOW {
            (self.minima, self.window_began) = ((None, self.minima.0), now);
        }
        self.minima.0 = Some(self.minima.0.map_or(sample, |least| least.min(sample)));
    }
    /// The mean.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
    /// The shortest of late.
    pub fn min(&self) -> Option<Duration> {
        self.minima.0.into_iter().chain(self.minima.1).min()
    }
    /// When a packet that was not acked has timed out.
    pub fn timeout(&self) -> Duration {
        self.smoothed.map_or(RTO_MIN, |smoothed| (smoothed + self.variance * 4).clamp(RTO_MIN, RTO_MAX))
    }
    fn without_sleep(&self, sample: Duration) -> Duration {
        let expected = self.smoothed.map_or(RTO_MAX, |smoothed| smoothed + self.variance * 5);
        if sample > OUTLIER_MIN { sample.min(expected.max(OUTLIER_MIN)).min(RTO_MAX) } else { sample }
    }
}
