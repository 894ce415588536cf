//! The oracle: hands each event to every invariant, then to the history.
//!
//! An invariant sees an event before the history holds it, so that it can compare what is said now
//! with what was known before.

use crate::history::Counts;
use crate::invariants::{self, Invariant};
use crate::violation::Found;
use crate::{Event, History, Violation};

/// What the harness asks for beyond the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time from [`Event::Healed`] to [`Event::Settled`].
    pub settle_us_max: u64,
}

/// Holds a history against what AKLight promises.
pub struct Oracle {
    history: History,
    invariants: Vec<Box<dyn Invariant>>,
    found: Found,
}

impl Oracle {
    /// An oracle to which nothing was told yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            history: History::default(),
            invariants: invariants::all(limits),
            found: Found::default(),
        }
    }

    /// Tells it what happened next.
    pub fn observe(&mut self, event: &Event) {
        for invariant in &mut self.invariants {
            invariant.observe(event, &self.history, &mut self.found);
        }
        self.history.note(event);
    }

    /// What was found so far; a harness may stop at the first.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.found.violations
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.history.counts()
    }

    /// The history has ended and every replica's copy was told: what it breaks, and how many
    /// violations more than these there were.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Violation>, u64) {
        for invariant in &mut self.invariants {
            invariant.finish(&self.history, &mut self.found);
        }
        (self.found.violations, self.found.left_out)
    }
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle")
            .field("counts", &self.history.counts())
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}
