//! The running story: one line an event, with the seconds since the beginning.
//!
//! A reader who goes away (`| head`) ends nothing: the brokers must be ended in any case.

use std::io::Write;

use aklight_common::clock::SharedClock;

/// Tells what happens. Cheap to clone.
#[derive(Clone)]
pub struct Story {
    clock: SharedClock,
}

impl Story {
    /// A story that begins now, on this clock.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }

    /// Tells an event.
    pub fn tell(&self, text: &str) {
        let seconds = self.clock.monotonic_ms() as f64 / 1000.0;
        self.line(&format!("{seconds:8.1} s  {text}"));
    }

    /// Tells something that has no moment.
    pub fn line(&self, text: &str) {
        let mut out = anstream::stdout();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
