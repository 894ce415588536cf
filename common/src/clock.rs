//! Time, passed in and never reached for.
//!
//! Every part that needs to know the time is given a [`Clock`]; the real one is made in `main`
//! (or in `broker.rs`, on its behalf). A simulation passes its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of wall-clock and monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the Unix epoch. May jump when the machine's clock is set.
    fn wall_us(&self) -> u64;

    /// Microseconds since some fixed moment of this process; never goes back.
    fn monotonic_us(&self) -> u64;

    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64 {
        self.wall_us() / 1000
    }

    /// Milliseconds since some fixed moment of this process; never goes back.
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_us() / 1000
    }
}

/// A clock shared by many parts.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// The same, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_us(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that is set by hand: for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    us: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `wall_us` until it is moved.
    #[must_use]
    pub fn at(wall_us: u64) -> Arc<Self> {
        Arc::new(Self { us: AtomicU64::new(wall_us) })
    }

    /// Moves the clock forward.
    pub fn advance_us(&self, us: u64) {
        self.us.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall_us(&self) -> u64 {
        self.us.load(Ordering::Relaxed)
    }

    fn monotonic_us(&self) -> u64 {
        self.us.load(Ordering::Relaxed)
    }
}
