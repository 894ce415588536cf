//! The time of a simulation, and what each broker's clock makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aklight_common::clock::Clock;

use crate::standstill;
use crate::trace::Trace;

/// When every simulation begins: the first of January 2026, in microseconds.
const BEGIN_US: u64 = standstill::BEGIN_S as u64 * 1_000_000;

/// A broker's clock: simulated time, off by what the nemesis does to it.
pub struct SimClock {
    trace: Trace,
    off_us: AtomicI64,
}

impl SimClock {
    /// A clock that is right.
    #[must_use]
    pub fn new(trace: Trace) -> Arc<Self> {
        Arc::new(Self { trace, off_us: AtomicI64::new(0) })
    }

    /// Sets the wall clock wrong, by so much. Monotonic time does not jump.
    pub fn set_off_us(&self, off_us: i64) {
        self.off_us.store(off_us, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_us(&self) -> u64 {
        (BEGIN_US + self.trace.now_us()).saturating_add_signed(self.off_us.load(Ordering::Relaxed))
    }

    fn monotonic_us(&self) -> u64 {
        self.trace.now_us()
    }
}
