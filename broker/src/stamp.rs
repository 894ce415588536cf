//! The moments at which records come in: microseconds since the Unix epoch that rise strictly,
//! even when the machine's clock is set back. They order a topic's records across partitions,
//! where offsets cannot be compared.

use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::clock::SharedClock;

/// Gives out moments.
pub struct Stamp {
    clock: SharedClock,
    last_us: AtomicU64,
}

impl Stamp {
    /// Goes on after `last_us`, the newest moment that is stored.
    #[must_use]
    pub fn after(last_us: u64, clock: SharedClock) -> Self {
        Self { clock, last_us: AtomicU64::new(last_us) }
    }

    /// The next moment.
    pub fn next_us(&self) -> u64 {
        let now = self.clock.wall_us();
        let last = self
            .last_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
            .unwrap_or(now);
        now.max(last + 1)
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::ManualClock;

    use super::*;

    #[test]
    fn moments_rise_even_when_the_clock_stands_or_is_behind() {
        let stamp = Stamp::after(1_000, ManualClock::at(500));
        assert_eq!((stamp.next_us(), stamp.next_us()), (1_001, 1_002));
        let stamp = Stamp::after(0, ManualClock::at(500));
        assert_eq!((stamp.next_us(), stamp.next_us()), (500, 501));
    }
}
