//! A circuit breaker: after failures in a row nobody is asked for a while.
//!
//! ```text
//! closed ──failures in a row──▶ open ──its time is over──▶ half open ──a success──▶ closed
//!                                ▲────────── a failure: open twice as long ──┘
//! ```
//!
//! Pure: the time is passed in, in milliseconds of any clock that never goes back.

use std::time::Duration;

/// Whether to ask at all.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    failures_max: u32,
    open_first_ms: u64,
    open_longest_ms: u64,
    open_ms: u64,
    open_until_ms: Option<u64>,
}

impl Breaker {
    /// A closed one, which opens after `failures_max` failures in a row, for `open` at first and
    /// never for longer than `open_max`.
    #[must_use]
    pub fn new(failures_max: u32, open: Duration, open_max: Duration) -> Self {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            failures: 0,
            failures_max,
            open_first_ms: ms(open),
            open_longest_ms: ms(open_max),
            open_ms: ms(open),
            open_until_ms: None,
        }
    }

    /// The first moment at which asking is allowed, from `now_ms` on.
    #[must_use]
    pub fn allowed_from(&self, now_ms: u64) -> u64 {
        self.open_until_ms.map_or(now_ms, |until| until.max(now_ms))
    }

    /// Notes an answer. True where this closed an open circuit.
    pub fn success(&mut self) -> bool {
        self.failures = 0;
        self.open_ms = self.open_first_ms;
        self.open_until_ms.take().is_some()
    }

    /// Notes a failure. For how long the circuit is open now, where this opened it.
    pub fn failure(&mut self, now_ms: u64) -> Option<Duration> {
        self.failures += 1;
        let trial = self.open_until_ms.is_some();
        if !trial && self.failures < self.failures_max {
            return None;
        }
        let open_ms = self.open_ms;
        self.open_ms = (open_ms * 2).min(self.open_longest_ms);
        self.open_until_ms = Some(now_ms + open_ms);
        Some(Duration::from_millis(open_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_tries_once_and_closes_again() {
        let mut breaker = Breaker::new(3, Duration::from_millis(100), Duration::from_millis(300));
        assert_eq!(breaker.failure(0), None);
        assert!(!breaker.success());
        assert_eq!(breaker.failure(1), None);
        assert_eq!(breaker.failure(2), None);
        assert_eq!(breaker.allowed_from(2), 2);
        assert_eq!(breaker.failure(3), Some(Duration::from_millis(100)));
        assert_eq!(breaker.allowed_from(4), 103);
        assert_eq!(breaker.allowed_from(200), 200);
        // A failed trial opens it at once, for longer, up to the longest.
        assert_eq!(breaker.failure(200), Some(Duration::from_millis(200)));
        assert_eq!(breaker.failure(500), Some(Duration::from_millis(300)));
        assert!(breaker.success());
        assert_eq!(breaker.allowed_from(501), 501);
        assert_eq!(breaker.failure(502), None);
    }
}
