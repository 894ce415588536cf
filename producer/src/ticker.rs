//! When to measure next.
//!
//! Ticks lie an interval apart from the first one on. A process that was held up (stopped, or on
//! a machine that slept) goes on with the next tick that is due in the future and does not make
//! up for those it missed.

/// Ticks on the monotonic clock, in microseconds.
#[derive(Debug)]
pub struct Ticker {
    interval_us: u64,
    next_us: u64,
}

impl Ticker {
    /// A ticker whose first tick is at `first_us`.
    #[must_use]
    pub fn new(first_us: u64, interval_us: u64) -> Self {
        Self { interval_us: interval_us.max(1), next_us: first_us }
    }

    /// Whether a tick is due; each is answered once.
    pub fn due(&mut self, now_us: u64) -> bool {
        if now_us < self.next_us {
            return false;
        }
        let missed = (now_us - self.next_us) / self.interval_us;
        self.next_us += (missed + 1) * self.interval_us;
        true
    }

    /// How long until the next tick, in milliseconds, rounded up: a poll that ends a little
    /// early would find nothing due and have to be repeated.
    #[must_use]
    pub fn wait_ms(&self, now_us: u64) -> u64 {
        self.next_us.saturating_sub(now_us).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_distance_whatever_the_delay() {
        let mut ticker = Ticker::new(500, 1000);
        assert!(ticker.due(500));
        assert!(!ticker.due(1499));
        assert_eq!(ticker.wait_ms(1499), 1);
        assert!(ticker.due(1700));
        assert!(!ticker.due(2499));
        assert!(ticker.due(2500));
    }

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        let mut ticker = Ticker::new(0, 1000);
        assert!(ticker.due(0));
        assert!(ticker.due(10_500));
        assert!(!ticker.due(10_999));
        assert!(ticker.due(11_000));
        assert_eq!(ticker.wait_ms(11_000), 1);
    }
}
