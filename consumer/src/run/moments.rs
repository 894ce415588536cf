//! The time of day, and whether somebody set it: told by the clock that never goes back.

use aklight_common::clock::SharedClock;

use crate::engine::CLOCK_SET_MS_MIN;

/// See the module.
pub(super) struct Moments {
    clock: SharedClock,
    wall_ms: u64,
    monotonic_ms: u64,
}

impl Moments {
    pub(super) fn new(clock: SharedClock) -> Self {
        let (wall_ms, monotonic_ms) = (clock.wall_ms(), clock.monotonic_ms());
        Self { clock, wall_ms, monotonic_ms }
    }

    /// The time of day in Unix milliseconds, and by how many milliseconds the clock was set since
    /// the last call, where it was.
    pub(super) fn now(&mut self) -> (u64, Option<i64>) {
        let (wall_ms, monotonic_ms) = (self.clock.wall_ms(), self.clock.monotonic_ms());
        let expected_ms = self.wall_ms + (monotonic_ms - self.monotonic_ms);
        (self.wall_ms, self.monotonic_ms) = (wall_ms, monotonic_ms);
        let set = wall_ms.abs_diff(expected_ms) >= CLOCK_SET_MS_MIN;
        let by_ms = i64::try_from(i128::from(wall_ms) - i128::from(expected_ms)).ok();
        (wall_ms, by_ms.filter(|_| set))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use aklight_common::clock::Clock;

    use super::*;

    /// Seconds of each clock.
    #[derive(Default)]
    struct Two {
        wall: AtomicU64,
        monotonic: AtomicU64,
    }

    impl Clock for Two {
        fn wall_us(&self) -> u64 {
            self.wall.load(Ordering::Relaxed) * 1_000_000
        }
        fn monotonic_us(&self) -> u64 {
            self.monotonic.load(Ordering::Relaxed) * 1_000_000
        }
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_time_that_passes() {
        let clock = Arc::new(Two::default());
        clock.wall.store(5_000, Ordering::Relaxed);
        let mut moments = Moments::new(Arc::clone(&clock) as SharedClock);
        for (wall, monotonic, by) in [
            (5_100, 100, None),
            (1_500, 101, Some(-3_601_000)),
            (1_501, 102, None),
            (5_103, 103, Some(3_601_000)),
            (5_103, 104, Some(-1_000)),
        ] {
            clock.wall.store(wall, Ordering::Relaxed);
            clock.monotonic.store(monotonic, Ordering::Relaxed);
            assert_eq!(moments.now(), (wall * 1000, by), "{wall} {monotonic}");
        }
    }
}
