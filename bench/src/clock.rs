//! The bench's clock: nanoseconds since the process first asked.
//!
//! The one place that reads the real time, because measuring it is what this crate is for. It
//! also tells how much processor time the bench itself has used, so that a slow driver is seen.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since the first call; monotonic.
pub fn now_ns() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds between a `now_ns` of before and now, in seconds.
pub fn seconds_since(begin_ns: u64) -> f64 {
    seconds(now_ns().saturating_sub(begin_ns))
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a span of a run is far below 2^53 ns")]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}
