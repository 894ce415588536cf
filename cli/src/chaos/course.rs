//! What everyone who takes part shares: the brokers, the witness, the clock, and where the course
//! of events stands.
//!
//! ```text
//!  Loading ──► Draining ──► Over
//!  producers send   they wait for answers,      everyone goes home
//!                   consumers catch up
//! ```

use std::sync::Arc;

use aklight_common::clock::SharedClock;
use tokio::sync::watch;

use super::witness::Witness;

/// Where the course of events stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Loading,
    Draining,
    Over,
}

/// See the module's lesson. Cheap to clone.
#[derive(Clone)]
pub struct Course {
    /// Where the brokers take lines.
    pub addresses: Arc<[String]>,
    /// Tells the oracle.
    pub witness: Arc<Witness>,
    /// The one clock of the story.
    pub clock: SharedClock,
    /// The name of this run.
    pub run: Arc<str>,
    /// What everything random comes from.
    pub seed: u64,
    stage: watch::Receiver<Stage>,
}

impl Course {
    /// A course at its beginning, and what moves it on.
    pub fn new(
        addresses: Vec<String>,
        witness: Arc<Witness>,
        clock: SharedClock,
        run: &str,
        seed: u64,
    ) -> (Self, watch::Sender<Stage>) {
        let (sender, stage) = watch::channel(Stage::Loading);
        let course =
            Self { addresses: addresses.into(), witness, clock, run: run.into(), seed, stage };
        (course, sender)
    }

    /// Whether it is there, or further.
    pub fn is_at(&self, stage: Stage) -> bool {
        *self.stage.borrow() >= stage
    }

    /// Waits until it is there, or further.
    pub async fn reaches(&mut self, stage: Stage) {
        // Whoever moved it on is gone only when all is over.
        let _ = self.stage.wait_for(|now| *now >= stage).await;
    }
}
