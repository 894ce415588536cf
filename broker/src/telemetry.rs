//! What tells people how a broker is: built before anything else, so that a broker which waits for
//! others can say so.

use std::sync::Arc;

use aklight_common::clock::SharedClock;

use crate::events::Events;
use crate::stats::Stats;

/// What tells people how a broker is.
#[derive(Clone)]
pub struct Telemetry {
    /// What happened lately.
    pub events: Arc<Events>,
    /// What is counted.
    pub stats: Stats,
}

impl Telemetry {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { events: Arc::new(Events::new(clock)), stats: Stats::default() }
    }
}
