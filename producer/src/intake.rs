//! Intake: where all that is measured comes in, from the pipes and from the parent itself, gets
//! its topic, is counted into its rollups ([`crate::rollup`]), and goes on to the outbox.
//!
//! A line that no collector of ours would write is named in the log and goes nowhere.

use tracing::warn;

use crate::collector::Collector;
use crate::outbox::Outbox;
use crate::record::{Record, Said, Tally, parse_line};
use crate::rollup::Rollups;
use crate::sample::{Metric, Sample, is_payload};

/// The way in.
#[derive(Debug)]
pub struct Intake {
    id: String,
    /// The way out.
    pub outbox: Outbox,
    rollups: Rollups,
    tally: Tally,
}

impl Intake {
    /// The way in of the producer `id`.
    #[must_use]
    pub fn new(id: &str, outbox: Outbox) -> Self {
        Self { id: id.to_owned(), outbox, rollups: Rollups::default(), tally: Tally::default() }
    }

    /// Takes what the parent measured.
    pub fn measured(&mut self, metric: Metric, sample: &Sample) {
        let payload = sample.to_json().into_bytes();
        self.take(Record { topic: metric.topic(&self.id), payload });
    }

    /// Takes a line that a collector wrote.
    pub fn said(&mut self, collector: Collector, line: Vec<u8>) {
        if let Some(metric) = collector.metric() {
            return if is_payload(&line) {
                self.take(Record { topic: metric.topic(&self.id), payload: line });
            } else {
                warn!("{} wrote no sample: {}", collector.name(), line.escape_ascii());
            };
        }
        match parse_line(&line) {
            Some(Said::Record(record)) => self.take(record),
            Some(Said::Tally(tally)) => self.tally = tally,
            None => warn!("{} wrote no record: {}", collector.name(), line.escape_ascii()),
        }
    }

    /// What the collector of containers counted last.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The collector of containers has died: it watches none.
    pub fn forget_containers(&mut self) {
        self.tally.containers = 0;
    }

    /// Sends the rollups that ended and of whose topics no more came.
    pub fn close_rollups(&mut self, wall_ms: u64) {
        for record in self.rollups.take_ended(wall_ms) {
            self.outbox.submit(record);
        }
    }

    /// Sends the rollups as they stand: nothing more will come.
    pub fn close_all_rollups(&mut self) {
        for record in self.rollups.take_all() {
            self.outbox.submit(record);
        }
    }

    fn take(&mut self, record: Record) {
        for rollup in self.rollups.note(&record) {
            self.outbox.submit(rollup);
        }
        self.outbox.submit(record);
    }
}
