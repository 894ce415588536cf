//! How long to wait before trying again: exponential, with full jitter.
//!
//! The ceiling doubles with every failure in a row; the wait is drawn evenly between nothing and
//! the ceiling, so that a thousand clients of a broker that restarts do not come back at once.
//! (Full jitter spreads best for its cost: "Exponential Backoff And Jitter", AWS Architecture
//! Blog, 2015.)

use std::time::Duration;

/// The waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first wait.
    pub first: Duration,
    /// The ceiling that no wait passes.
    pub max: Duration,
}

impl Default for Backoff {
    /// 100 ms is unnoticed by people; 5 s bounds how late a client sees that a broker is back.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The ceiling after `failures` failures in a row before the one that is waited for now.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// The wait, in milliseconds, for a `draw` from 0 to 1.
    #[must_use]
    pub fn wait_ms(&self, failures: u32, draw: f64) -> u64 {
        let wait = self.ceiling(failures).mul_f64(draw.clamp(0.0, 1.0));
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum() {
        let backoff = Backoff::default();
        let ceilings: Vec<_> = (0..8).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.ceiling(u32::MAX).as_millis(), 5000);
    }

    #[test]
    fn a_wait_is_anything_up_to_its_ceiling() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait_ms(2, 0.0), 0);
        assert_eq!(backoff.wait_ms(2, 0.5), 200);
        assert_eq!(backoff.wait_ms(2, 1.0), 400);
    }
}
