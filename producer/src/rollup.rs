//! Rollups: a minute of samples in one record, `rollup/1m/{topic of the samples}`.
//!
//! Every sample passes here on its way out, whatever becomes of it there, so a minute is whole
//! also when no broker was there to take its samples. A minute is closed by the first sample of
//! another one, or, where no more samples come, a little after its end; then a topic that is gone
//! takes no room any more.
//!
//! Invariant: at most one open minute a topic, and at most [`TOPICS_MAX`] of them.
//!
//! What is left out: minutes of a producer that was started again in between. It has two records
//! of that minute, to be weighed by `count`.

use std::collections::HashMap;

use tracing::warn;

use crate::record::Record;
use crate::sample::{Sample, head};

const MINUTE_MS: u64 = 60_000;

/// How long after its end a minute is closed though no later sample came: a sample may have
/// waited in a pipe.
const GRACE_MS: u64 = 2_000;

/// Open minutes, at about 200 bytes each: 1,024 containers of ten metrics, and some.
pub const TOPICS_MAX: usize = 12_288;

/// The minutes that are not over.
#[derive(Debug, Default)]
pub struct Rollups {
    open: HashMap<String, Minute>,
    overflowed: bool,
}

#[derive(Debug)]
struct Minute {
    begin_ms: u64,
    unit: String,
    sum: f64,
    min: f64,
    max: f64,
    count: u64,
}

impl Rollups {
    /// Takes note of a record that is a sample; answers the minute that it closed.
    pub fn note(&mut self, record: &Record) -> Option<Record> {
        if !record.topic.starts_with("metrics/") {
            return None;
        }
        let sample = head(&record.payload)?;
        let begin_ms = sample.ts_ms - sample.ts_ms % MINUTE_MS;
        if let Some(minute) = self.open.get_mut(&record.topic) {
            if minute.begin_ms == begin_ms {
                minute.add(sample.value);
                return None;
            }
            let closed = minute.record(&record.topic);
            *minute = Minute::new(begin_ms, sample.value, sample.unit);
            return Some(closed);
        }
        if self.open.len() < TOPICS_MAX {
            let minute = Minute::new(begin_ms, sample.value, sample.unit);
            self.open.insert(record.topic.clone(), minute);
        } else if !std::mem::replace(&mut self.overflowed, true) {
            warn!("more than {TOPICS_MAX} topics have samples: those beyond get no rollups");
        }
        None
    }

    /// The minutes that ended and whose topics fell silent.
    pub fn take_ended(&mut self, wall_ms: u64) -> Vec<Record> {
        let ended = |minute: &Minute| wall_ms >= minute.begin_ms + MINUTE_MS + GRACE_MS;
        let closed = self.open.extract_if(|_, minute| ended(minute));
        closed.map(|(topic, minute)| minute.record(&topic)).collect()
    }

    /// All minutes as they stand: the producer ends.
    pub fn take_all(&mut self) -> Vec<Record> {
        self.open.drain().map(|(topic, minute)| minute.record(&topic)).collect()
    }
}

impl Minute {
    fn new(begin_ms: u64, value: f64, unit: &str) -> Self {
        Self { begin_ms, unit: unit.to_owned(), sum: value, min: value, max: value, count: 1 }
    }

    fn add(&mut self, value: f64) {
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.count += 1;
    }

    #[expect(clippy::cast_precision_loss, reason = "a minute has far less than 2^53 samples")]
    fn record(&self, topic: &str) -> Record {
        let payload = Sample::new(self.begin_ms, self.sum / self.count as f64, self.unit.clone())
            .with("min", self.min)
            .with("max", self.max)
            .with("count", self.count);
        Record { topic: format!("rollup/1m/{topic}"), payload: payload.to_json().into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(topic: &str, ts_ms: u64, value: f64) -> Record {
        let payload = Sample::new(ts_ms, value, "percent").with("cpus", 2_u64).to_json();
        Record { topic: topic.to_owned(), payload: payload.into_bytes() }
    }

    fn check(record: Record, topic: &str, json: serde_json::Value) {
        assert_eq!(record.topic, topic);
        let read: serde_json::Value = serde_json::from_slice(&record.payload).expect("JSON");
        assert_eq!(read, json);
    }

    #[test]
    fn a_minute_is_closed_by_the_next_ones_first_sample() {
        let mut rollups = Rollups::default();
        for (ts, value) in [(120_000, 10.0), (150_000, 40.5), (179_999, 1.5)] {
            assert_eq!(rollups.note(&sample("metrics/docker/p/cpu", ts, value)), None);
        }
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 180_000, 7.0)).expect("closed");
        check(
            closed,
            "rollup/1m/metrics/docker/p/cpu",
            serde_json::json!({"ts":120_000,"value":17.33,"unit":"percent","min":1.5,"max":40.5,"count":3}),
        );
        assert_eq!(rollups.take_all().len(), 1);
    }

    #[test]
    fn a_topic_that_fell_silent_is_closed_and_forgotten() {
        let mut rollups = Rollups::default();
        rollups.note(&sample("metrics/docker/p/gone/cpu", 61_000, 3.0));
        rollups.note(&sample("metrics/docker/p/cpu", 121_000, 3.0));
        assert_eq!(rollups.take_ended(121_999), []);
        let closed = rollups.take_ended(122_000);
        assert_eq!(closed.len(), 1);
        assert!(closed[0].topic.ends_with("/gone/cpu"));
        assert_eq!(rollups.open.len(), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_another_record() {
        let mut rollups = Rollups::default();
        rollups.note(&sample("metrics/docker/p/cpu", 300_000, 1.0));
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 60_000, 2.0)).expect("closed");
        assert!(closed.payload.starts_with(b"{\"ts\":300000,"));
    }

    #[test]
    fn only_samples_are_rolled_up_and_only_so_many_topics() {
        let mut rollups = Rollups::default();
        rollups.note(&sample("events/docker/p/c", 1, 1.0));
        rollups.note(&sample("info/docker/p/c", 1, 1.0));
        assert_eq!(rollups.take_all(), []);
        for n in 0..TOPICS_MAX + 10 {
            rollups.note(&sample(&format!("metrics/docker/p/{n}/cpu"), 1, 1.0));
        }
        assert_eq!(rollups.take_all().len(), TOPICS_MAX);
    }
}
