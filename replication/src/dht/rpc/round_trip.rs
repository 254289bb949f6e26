//! How long to wait for an answer: twice the usual deviation more than the usual round trip to that node, longer with each try.
//!
//! What must stay true: nobody is waited for less than 300 ms or more than 4 s a try; of a node not known a second is expected, as JavaScript does; a late
//! answer to an early try, which would make a node look quick, does not count for more than the second try. Source: adaptive-timeout `index.js`, dht-rpc
//! `lib/io.js`.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::recent::Recent;
use crate::udp::Random;

const UNKNOWN: Duration = Duration::from_millis(1000);
const MIN_MS: i64 = 300;
const MAX_MS: i64 = 4000;
const JITTER_MS: u64 = 256;

/// See the module.
pub struct RoundTrips {
    known: Recent<SocketAddrV4, Estimate>,
    is_adaptive: bool,
}

struct Estimate {
    mean_ms: i64,
    deviation_ms: i64,
}

impl RoundTrips {
    /// Nothing is known yet.
    pub fn new(is_adaptive: bool, remembered_max: usize) -> RoundTrips {
        RoundTrips { known: Recent::new(remembered_max), is_adaptive }
    }

    /// A node answered after so long, to this try.
    pub fn answered(&mut self, from: SocketAddrV4, round_trip: Duration, tries: u8) {
        if !self.is_adaptive || tries > 2 {
            return;
        }
        let ms = i64::try_from(round_trip.as_millis()).unwrap_or(MAX_MS);
        match self.known.get_mut(&from) {
            Some(known) => {
                known.deviation_ms += ((known.mean_ms - ms).abs() - known.deviation_ms) >> 2;
                known.mean_ms += (ms - known.mean_ms) >> 3;
            }
            None => self.known.insert(from, Estimate { mean_ms: ms, deviation_ms: ms >> 1 }),
        }
    }

    /// How long a try waits; the first is 1.
    pub fn timeout(&mut self, to: SocketAddrV4, tries: u8, random: &mut Random) -> Duration {
        let Some(known) = self.known.get_mut(&to).filter(|_| self.is_adaptive) else { return UNKNOWN };
        let ms = (known.mean_ms + 2 * known.deviation_ms) * i64::from(tries) + random.below(JITTER_MS) as i64;
        Duration::from_millis(ms.clamp(MIN_MS, MAX_MS) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_nodes_are_not_waited_for_as_long() {
        let mut random = Random::new([1; 32]);
        let (near, far) = ("1.1.1.1:1".parse().expect("an address"), "2.2.2.2:1".parse().expect("an address"));
        let mut trips = RoundTrips::new(true, 10);
        assert_eq!(trips.timeout(near, 1, &mut random), UNKNOWN);
        for _ in 0..50 {
            trips.answered(near, Duration::from_millis(20), 1);
            trips.answered(far, Duration::from_millis(700), 2);
        }
        trips.answered(far, Duration::ZERO, 3);
        let in_ms = |low, high| Duration::from_millis(low)..=Duration::from_millis(high);
        assert!(in_ms(300, 300).contains(&trips.timeout(near, 1, &mut random)));
        assert!(
            in_ms(700, 970).contains(&trips.timeout(far, 1, &mut random)),
            "{:?}",
            trips.timeout(far, 1, &mut random)
        );
        assert!(in_ms(2100, 2400).contains(&trips.timeout(far, 3, &mut random)));
        assert!(in_ms(4000, 4000).contains(&trips.timeout(far, 200, &mut random)));
        assert_eq!(RoundTrips::new(false, 10).timeout(near, 1, &mut random), UNKNOWN);
    }
}
