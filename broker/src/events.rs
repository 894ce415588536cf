//! What happened lately: a ring buffer for people who ask why.
//!
//! Every event is a log line as well; the ring keeps the last [`EVENTS_KEPT`] so that
//! `aklight debug events` shows them on a broker whose log is out of reach. When it is full the
//! oldest makes place: memory is bounded, and writing never waits.

use std::collections::VecDeque;

use aklight_common::clock::SharedClock;
use parking_lot::Mutex;

/// Events kept: enough for an evening's trouble, at most some 200 KiB.
pub const EVENTS_KEPT: usize = 1024;

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the record.
    Info,
    /// Somebody should look.
    Warn,
    /// Something is broken.
    Error,
}

impl Level {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How bad it is.
    pub level: Level,
    /// What it is about, in one word for programs.
    pub kind: &'static str,
    /// What happened, for people.
    pub text: String,
}

/// The ring.
pub struct Events {
    clock: SharedClock,
    ring: Mutex<VecDeque<Event>>,
}

impl Events {
    /// An empty ring.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, ring: Mutex::new(VecDeque::with_capacity(EVENTS_KEPT)) }
    }

    /// Notes something for the record.
    pub fn info(&self, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(kind, "{text}");
        self.push(Level::Info, kind, text);
    }

    /// Notes something that somebody should look at.
    pub fn warn(&self, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        tracing::warn!(kind, "{text}");
        self.push(Level::Warn, kind, text);
    }

    /// Notes something broken.
    pub fn error(&self, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        tracing::error!(kind, "{text}");
        self.push(Level::Error, kind, text);
    }

    /// The events kept, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Event> {
        self.ring.lock().iter().cloned().collect()
    }

    fn push(&self, level: Level, kind: &'static str, text: String) {
        let event = Event { at_ms: self.clock.wall_ms(), level, kind, text };
        let mut ring = self.ring.lock();
        if ring.len() == EVENTS_KEPT {
            ring.pop_front();
        }
        ring.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::ManualClock;

    use super::*;

    #[test]
    fn the_oldest_makes_place() {
        let events = Events::new(ManualClock::at(5_000_000));
        for n in 0..=EVENTS_KEPT {
            events.info("test", n.to_string());
        }
        let kept = events.recent();
        assert_eq!(kept.len(), EVENTS_KEPT);
        assert_eq!((kept[0].text.as_str(), kept[0].at_ms), ("1", 5000));
    }
}
