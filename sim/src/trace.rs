//! The trace of a run: a digest of everything that happened, and the story for who wants to read it.
//!
//! Two runs of one seed must have one digest: each message that is carried, each operation of a
//! disk and each thing that a client was told goes into it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::dice::mixed;

/// Takes note of what happens. Clones share it.
#[derive(Clone, Default)]
pub struct Trace {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    digest: AtomicU64,
    now_us: AtomicU64,
    told: AtomicBool,
}

impl Trace {
    /// A trace; the story goes to standard error where it is to be `told`.
    #[must_use]
    pub fn new(told: bool) -> Self {
        let trace = Self::default();
        trace.shared.told.store(told, Ordering::Relaxed);
        trace
    }

    /// It is so late now.
    pub fn set_now_us(&self, now_us: u64) {
        self.shared.now_us.store(now_us, Ordering::Relaxed);
    }

    /// How late it is, in simulated microseconds.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.now_us.load(Ordering::Relaxed)
    }

    /// Something happened that is told apart from others by these numbers.
    pub fn note(&self, what: &str, numbers: &[u64]) {
        let mut digest = self.shared.digest.load(Ordering::Relaxed);
        digest = mixed(digest ^ u64::from(crc32c::crc32c(what.as_bytes())) ^ self.now_us());
        for number in numbers {
            digest = mixed(digest ^ number);
        }
        self.shared.digest.store(digest, Ordering::Relaxed);
        if self.is_told() {
            self.print(format_args!("{what} {numbers:?}"));
        }
    }

    /// Something that only belongs to the story.
    pub fn tell(&self, text: fmt::Arguments<'_>) {
        if self.is_told() {
            self.print(text);
        }
    }

    /// Whether anybody reads the story.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.shared.told.load(Ordering::Relaxed)
    }

    /// The digest of all that happened so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.digest.load(Ordering::Relaxed)
    }

    fn print(&self, text: fmt::Arguments<'_>) {
        eprintln!("{:>10.3} {text}", self.now_us() as f64 / 1_000_000.0);
    }
}
