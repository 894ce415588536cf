//! Rollups: a minute of samples in one record, `rollup/1m/{topic of the samples}`.
//!
//! Every sample passes here on its way out, whatever becomes of it there, so a minute is whole
//! also when no broker was there to take its samples. A minute is closed by the first sample of
//! another one, or, where no more samples come, a little after its end; then a topic that is gone
//! takes no room any more.
//!
//! Of what has two directions the minute holds each, beside the value, which is both together: a
//! chart of a day then has the lines that one of five minutes has.
//!
//! Invariant: at most one open minute a topic, and at most [`TOPICS_MAX`] of them.
//!
//! What is left out: minutes of a producer that was started again in between. It has two records
//! of that minute, to be weighed by `count`.

use std::collections::HashMap;

use tracing::warn;

use crate::record::Record;
use crate::sample::{Head, Sample, head, number};

const MINUTE_MS: u64 = 60_000;

/// How long after its end a minute is closed though no later sample came: a sample may have
/// waited in a pipe.
const GRACE_MS: u64 = 2_000;

/// Open minutes, at about 300 bytes each: 1,024 containers of ten metrics, and some.
pub const TOPICS_MAX: usize = 12_288;

/// The metrics that have two directions, and the fields that hold them: mean, `_min` and `_max` of
/// each are in the minute.
const DIRECTIONS: [(&str, [&str; 2]); 2] =
    [("/network", ["rx_bytes_s", "tx_bytes_s"]), ("/disk", ["read_bytes_s", "written_bytes_s"])];

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
    value: Gathered,
    directions: Vec<(&'static str, Gathered)>,
}

/// Numbers of one field.
#[derive(Debug, Clone, Copy)]
struct Gathered {
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
                minute.add(sample.value, &record.payload);
                return None;
            }
            let closed = minute.record(&record.topic);
            *minute = Minute::new(begin_ms, &sample, record);
            return Some(closed);
        }
        if self.open.len() < TOPICS_MAX {
            let minute = Minute::new(begin_ms, &sample, record);
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
    fn new(begin_ms: u64, sample: &Head<'_>, record: &Record) -> Self {
        let of_topic = DIRECTIONS.iter().filter(|(metric, _)| record.topic.ends_with(metric));
        let directions = of_topic
            .flat_map(|(_, fields)| fields)
            .filter_map(|field| Some((*field, Gathered::new(number(&record.payload, field)?))));
        Self {
            begin_ms,
            unit: sample.unit.to_owned(),
            value: Gathered::new(sample.value),
            directions: directions.collect(),
        }
    }

    fn add(&mut self, value: f64, payload: &[u8]) {
        self.value.add(value);
        for (field, gathered) in &mut self.directions {
            if let Some(value) = number(payload, field) {
                gathered.add(value);
            }
        }
    }

    fn record(&self, topic: &str) -> Record {
        let Gathered { min, max, count, .. } = self.value;
        let mut payload = Sample::new(self.begin_ms, self.value.mean(), self.unit.clone())
            .with("min", min)
            .with("max", max)
            .with("count", count);
        for (field, gathered) in &self.directions {
            payload = payload
                .with(*field, gathered.mean())
                .with(format!("{field}_min"), gathered.min)
                .with(format!("{field}_max"), gathered.max);
        }
        Record { topic: format!("rollup/1m/{topic}"), payload: payload.to_json().into_bytes() }
    }
}

impl Gathered {
    fn new(value: f64) -> Self {
        Self { sum: value, min: value, max: value, count: 1 }
    }

    fn add(&mut self, value: f64) {
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.count += 1;
    }

    #[expect(clippy::cast_precision_loss, reason = "a minute has far less than 2^53 samples")]
    fn mean(&self) -> f64 {
        self.sum / self.count as f64
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
    fn a_minute_holds_both_directions() {
        let mut rollups = Rollups::default();
        for (ts, rx, tx) in [(60_000, 10.0, 1.0), (61_000, 30.0, 0.0), (62_000, 20.0, 5.0)] {
            let payload = Sample::new(ts, rx + tx, "bytes/s")
                .with("rx_bytes", 7_u64)
                .with("rx_bytes_s", rx)
                .with("tx_bytes_s", tx);
            let topic = "metrics/docker/p/c/network".to_owned();
            rollups.note(&Record { topic, payload: payload.to_json().into_bytes() });
        }
        check(
            rollups.take_all().remove(0),
            "rollup/1m/metrics/docker/p/c/network",
            serde_json::json!({"ts":60_000,"value":22,"unit":"bytes/s","min":11,"max":30,
                "count":3,"rx_bytes_s":20,"rx_bytes_s_min":10,"rx_bytes_s_max":30,
                "tx_bytes_s":2,"tx_bytes_s_min":0,"tx_bytes_s_max":5}),
        );
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
