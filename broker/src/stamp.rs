//! The moments at which records come in: microseconds since the Unix epoch that rise strictly,
//! even when the machine's clock is set back. They order a topic's records across partitions,
//! where offsets cannot be compared.
//!
//! Clocks of several brokers differ. So a moment is also later than every record that is committed
//! on this broker, whoever took that in: what a client writes after it has read something is newer
//! than what it read, on whatever brokers (a hybrid clock: Kulkarni and others, 2014).

use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::clock::SharedClock;

/// Gives out moments.
pub struct Stamp {
    clock: SharedClock,
    last_us: AtomicU64,
}

impl Stamp {
    /// Moments of this clock.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, last_us: AtomicU64::new(0) }
    }

    /// Goes on after a moment that is stored.
    pub fn see(&self, stored_us: u64) {
        self.last_us.fetch_max(stored_us, Ordering::Relaxed);
    }

    /// What the clock says now, in microseconds since the Unix epoch.
    pub fn now_us(&self) -> u64 {
        self.clock.wall_us()
    }

    /// The next moment: `now_us`, or later.
    pub fn next_us(&self, now_us: u64) -> u64 {
        let next = |last: u64| now_us.max(last.saturating_add(1));
        let last = self
            .last_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        last.map_or(now_us, next)
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::ManualClock;

    use super::*;

    #[test]
    fn moments_rise_even_when_the_clock_stands_or_is_behind() {
        let stamp = Stamp::new(ManualClock::at(500));
        assert_eq!((stamp.next_us(500), stamp.next_us(500)), (500, 501));
        stamp.see(900);
        stamp.see(700);
        assert_eq!((stamp.next_us(500), stamp.next_us(903)), (901, 903));
    }
}
