//! Whether anybody answers: from how many requests of each of the last four ticks were answered.
//!
//! What must stay true: silence counts only if something was asked; two silent ticks in a row are needed to be offline, one answer to be online again.
//! Source: dht-rpc `lib/health.js`.

/// A tick with fewer ends of requests says nothing.
const IDLE: u64 = 4;
const TICKS: u64 = 4;
const SILENT_TICKS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Health {
    ticks: u64,
    responses: u64,
    timeouts: u64,
    silent_ticks: u32,
    degraded_ticks: u32,
    healthy_ticks: u32,
    is_online: bool,
    is_degraded: bool,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            ticks: 0,
            responses: 0,
            timeouts: 0,
            silent_ticks: 0,
            degraded_ticks: 0,
            healthy_ticks: 0,
            is_online: true,
            is_degraded: false,
        }
    }
}

impl Health {
    /// Whether anybody answers.
    pub fn is_online(&self) -> bool {
        self.is_online
    }

    /// Whether most do not.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// A tick ended, with so many answers and timeouts since the beginning.
    pub fn tick(&mut self, responses: u64, timeouts: u64) {
        let (answered, missed) = (responses - self.responses, timeouts - self.timeouts);
        (self.responses, self.timeouts) = (responses, timeouts);
        self.ticks += 1;
        if self.ticks < TICKS || answered + missed < IDLE {
            return;
        }
        self.silent_ticks = if answered == 0 { self.silent_ticks + 1 } else { 0 };
        let is_degraded = answered > 0 && missed > answered;
        (self.degraded_ticks, self.healthy_ticks) = match (answered, is_degraded) {
            (0, _) => (self.degraded_ticks, self.healthy_ticks),
            (_, true) => (self.degraded_ticks + 1, 0),
            (_, false) => (0, self.healthy_ticks + 1),
        };
        self.is_online = self.silent_ticks < SILENT_TICKS && (answered > 0 || self.is_online);
        let is_settled = |ticks: u32| u64::from(ticks) >= TICKS;
        self.is_degraded =
            self.is_online && (is_settled(self.degraded_ticks) || self.is_degraded && !is_settled(self.healthy_ticks));
    }

    /// Begin anew, after a sleep.
    pub fn reset(&mut self) {
        *self = Health { responses: self.responses, timeouts: self.timeouts, ..Health::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_answers() {
        let mut health = Health::default();
        let (mut responses, mut timeouts) = (0, 0);
        let mut tick = |health: &mut Health, answered, missed| {
            (responses, timeouts) = (responses + answered, timeouts + missed);
            health.tick(responses, timeouts);
            (health.is_online(), health.is_degraded())
        };
        for _ in 0..4 {
            assert_eq!(tick(&mut health, 10, 0), (true, false));
        }
        assert_eq!(tick(&mut health, 0, 3), (true, false), "idle");
        assert_eq!(tick(&mut health, 0, 9), (true, false), "one silent tick");
        assert_eq!(tick(&mut health, 0, 9), (false, false));
        assert_eq!(tick(&mut health, 0, 0), (false, false));
        assert_eq!(tick(&mut health, 4, 0), (true, false));
        let degraded: Vec<bool> = (0..5).map(|_| tick(&mut health, 2, 8).1).collect();
        assert_eq!(degraded, [false, false, false, true, true]);
        health.reset();
        assert!(!health.is_degraded());
    }
}
