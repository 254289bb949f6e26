//! How many requests may be sent: 80 in a slot of 750 ms and 160 in four of them, less those that were answered.
//!
//! What must stay true: a burst of walks does not flood the network we are in; an idle window costs no timer. Source: dht-rpc `lib/io.js`.

use std::time::Duration;

use crate::udp::Now;

const SLOT: Duration = Duration::from_millis(750);

/// See the module.
pub struct Window {
    max: usize,
    slots: [usize; 4],
    /// Slots since the beginning of time, up to the one we are in.
    slot: u64,
}

impl Window {
    /// An empty one.
    pub fn new(now: Now, max: usize) -> Window {
        Window { max, slots: [0; 4], slot: slot(now) }
    }

    /// Whether one more may be sent.
    pub fn is_full(&mut self, now: Now) -> bool {
        self.advance(now);
        self.slots[self.at()] >= self.max || self.slots.iter().sum::<usize>() >= 2 * self.max
    }

    /// One was sent.
    pub fn sent(&mut self, now: Now) {
        self.advance(now);
        let at = self.at();
        self.slots[at] += 1;
    }

    /// One was answered or given up.
    pub fn done(&mut self, now: Now) {
        self.advance(now);
        let at = self.at();
        self.slots[at] = self.slots[at].saturating_sub(1);
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.slots = [0; 4];
    }

    /// When the next slot begins.
    pub fn next_slot(&self) -> Now {
        SLOT * u32::try_from(self.slot + 1).unwrap_or(u32::MAX)
    }

    fn advance(&mut self, now: Now) {
        let current = slot(now).max(self.slot);
        for passed in 1..=(current - self.slot).min(4) {
            self.slots[((self.slot + passed) & 3) as usize] = 0;
        }
        self.slot = current;
    }

    fn at(&self) -> usize {
        (self.slot & 3) as usize
    }
}

fn slot(now: Now) -> u64 {
    (now.as_millis() / SLOT.as_millis()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_a_slot_and_twice_that_in_four() {
        let mut window = Window::new(Duration::ZERO, 80);
        let fill = |window: &mut Window, slot: u32| {
            let mut sent = 0;
            while !window.is_full(SLOT * slot) {
                window.sent(SLOT * slot);
                sent += 1;
            }
            sent
        };
        assert_eq!([0, 1, 2, 3].map(|slot| fill(&mut window, slot)), [80, 80, 0, 0]);
        assert_eq!(fill(&mut window, 4), 80, "the first slot is forgotten");
        window.done(SLOT * 4);
        assert_eq!(fill(&mut window, 4), 1);
        assert_eq!(window.next_slot(), SLOT * 5);
        assert_eq!(fill(&mut window, 100), 80);
    }
}
