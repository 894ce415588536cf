//! Rollups: a minute of samples in one record, `rollup/1m/{topic of the samples}`, and five minutes
//! in one, `rollup/5m/…`.
//!
//! Every sample passes here on its way out, whatever becomes of it there, so a rollup is whole
//! also when no broker was there to take its samples. A minute is closed by the first sample of
//! another one, or, where no more samples come, a little after its end; so are five minutes, which
//! are made of the minutes. A topic that is gone then takes no room any more.
//!
//! Of what has two directions a rollup holds each, beside the value, which is both together: a
//! chart of a day then has the lines that one of five minutes has.
//!
//! Invariant: at most one open rollup of each length a topic, and at most [`TOPICS_MAX`] topics.
//!
//! What is left out: rollups of a producer that was started again in between. It has two records
//! of that time, to be weighed by `count`.

use std::collections::HashMap;

use tracing::warn;

use crate::record::Record;
use crate::sample::{Head, Sample, head, number};

/// How long a rollup is.
#[derive(Debug, Clone, Copy)]
struct Length {
    name: &'static str,
    ms: u64,
}

const MINUTE: Length = Length { name: "1m", ms: 60_000 };
const FIVE: Length = Length { name: "5m", ms: 5 * MINUTE.ms };

/// How long after its end a rollup is closed though no later sample came: a sample may have
/// waited in a pipe.
const GRACE_MS: u64 = 2_000;

/// Topics with open rollups, at about 500 bytes each: 1,024 containers of ten metrics, and some.
pub const TOPICS_MAX: usize = 12_288;

/// The metrics that have two directions, and the fields that hold them: mean, `_min` and `_max` of
/// each are in the rollup.
const DIRECTIONS: [(&str, [&str; 2]); 2] =
    [("/network", ["rx_bytes_s", "tx_bytes_s"]), ("/disk", ["read_bytes_s", "written_bytes_s"])];

/// The rollups that are not over.
#[derive(Debug, Default)]
pub struct Rollups {
    open: HashMap<String, Open>,
    overflowed: bool,
}

/// Those of a topic: the five minutes hold what was before the minute.
#[derive(Debug, Default)]
struct Open {
    minute: Option<Rollup>,
    five: Option<Rollup>,
}

#[derive(Debug)]
struct Rollup {
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
    /// Takes note of a record that is a sample; answers the rollups that it closed.
    pub fn note(&mut self, record: &Record) -> Vec<Record> {
        let mut closed = Vec::new();
        if !record.topic.starts_with("metrics/") {
            return closed;
        }
        let Some(sample) = head(&record.payload) else { return closed };
        if let Some(open) = self.open.get_mut(&record.topic) {
            open.note(record, &sample, &mut closed);
        } else if self.open.len() < TOPICS_MAX {
            let mut open = Open::default();
            open.note(record, &sample, &mut closed);
            self.open.insert(record.topic.clone(), open);
        } else if !std::mem::replace(&mut self.overflowed, true) {
            warn!("more than {TOPICS_MAX} topics have samples: those beyond get no rollups");
        }
        closed
    }

    /// The rollups that ended and whose topics fell silent.
    pub fn take_ended(&mut self, wall_ms: u64) -> Vec<Record> {
        let mut ended = Vec::new();
        self.open.retain(|topic, open| {
            let is_over =
                |begin_ms: u64, length: Length| wall_ms >= begin_ms + length.ms + GRACE_MS;
            if open.minute.as_ref().is_some_and(|minute| is_over(minute.begin_ms, MINUTE)) {
                open.close_minute(topic, &mut ended);
            }
            if open.five.as_ref().is_some_and(|five| is_over(five.begin_ms, FIVE)) {
                open.close_five(topic, &mut ended);
            }
            open.minute.is_some() || open.five.is_some()
        });
        ended
    }

    /// All rollups as they stand: the producer ends.
    pub fn take_all(&mut self) -> Vec<Record> {
        let mut all = Vec::new();
        for (topic, mut open) in self.open.drain() {
            open.close_minute(&topic, &mut all);
            open.close_five(&topic, &mut all);
        }
        all
    }
}

impl Open {
    fn note(&mut self, record: &Record, sample: &Head<'_>, closed: &mut Vec<Record>) {
        let begin_ms = MINUTE.begin(sample.ts_ms);
        if let Some(minute) = self.minute.as_mut().filter(|minute| minute.begin_ms == begin_ms) {
            return minute.add(sample.value, &record.payload);
        }
        self.close_minute(&record.topic, closed);
        if self.five.as_ref().is_some_and(|five| five.begin_ms != FIVE.begin(begin_ms)) {
            self.close_five(&record.topic, closed);
        }
        self.minute = Some(Rollup::new(begin_ms, sample, record));
    }

    fn close_minute(&mut self, topic: &str, closed: &mut Vec<Record>) {
        let Some(minute) = self.minute.take() else { return };
        closed.push(minute.record(MINUTE, topic));
        let begin_ms = FIVE.begin(minute.begin_ms);
        if self.five.as_ref().is_some_and(|five| five.begin_ms != begin_ms) {
            self.close_five(topic, closed);
        }
        match &mut self.five {
            Some(five) => five.join(&minute),
            None => self.five = Some(Rollup { begin_ms, ..minute }),
        }
    }

    fn close_five(&mut self, topic: &str, closed: &mut Vec<Record>) {
        closed.extend(self.five.take().map(|five| five.record(FIVE, topic)));
    }
}

impl Length {
    /// Where the rollup begins that a moment belongs to.
    const fn begin(self, ts_ms: u64) -> u64 {
        ts_ms - ts_ms % self.ms
    }
}

impl Rollup {
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
        self.value.join(Gathered::new(value));
        for (field, gathered) in &mut self.directions {
            if let Some(value) = number(payload, field) {
                gathered.join(Gathered::new(value));
            }
        }
    }

    /// Adds what came later.
    fn join(&mut self, later: &Self) {
        self.value.join(later.value);
        for (field, gathered) in &later.directions {
            match self.directions.iter_mut().find(|(known, _)| known == field) {
                Some((_, known)) => known.join(*gathered),
                None => self.directions.push((field, *gathered)),
            }
        }
    }

    fn record(&self, length: Length, topic: &str) -> Record {
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
        let topic = format!("rollup/{}/{topic}", length.name);
        Record { topic, payload: payload.to_json().into_bytes() }
    }
}

impl Gathered {
    fn new(value: f64) -> Self {
        Self { sum: value, min: value, max: value, count: 1 }
    }

    fn join(&mut self, more: Self) {
        self.sum += more.sum;
        self.min = self.min.min(more.min);
        self.max = self.max.max(more.max);
        self.count += more.count;
    }

    #[expect(clippy::cast_precision_loss, reason = "five minutes have far less than 2^53 samples")]
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

    /// The record of a topic, as JSON.
    fn json(records: &[Record], topic: &str) -> serde_json::Value {
        let record = records.iter().find(|record| record.topic == topic);
        let record = record.unwrap_or_else(|| panic!("{topic} in {records:?}"));
        serde_json::from_slice(&record.payload).expect("JSON")
    }

    #[test]
    fn a_minute_is_closed_by_the_next_ones_first_sample() {
        let mut rollups = Rollups::default();
        for (ts, value) in [(120_000, 10.0), (150_000, 40.5), (179_999, 1.5)] {
            assert_eq!(rollups.note(&sample("metrics/docker/p/cpu", ts, value)), []);
        }
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 180_000, 7.0));
        assert_eq!(closed.len(), 1);
        assert_eq!(
            json(&closed, "rollup/1m/metrics/docker/p/cpu"),
            serde_json::json!({"ts":120_000,"value":17.33,"unit":"percent","min":1.5,"max":40.5,"count":3}),
        );
        assert_eq!(rollups.take_all().len(), 2);
    }

    #[test]
    fn five_minutes_are_made_of_their_minutes_and_closed_by_the_next_ones_first_sample() {
        let mut rollups = Rollups::default();
        for (ts, value) in [(310_000, 10.0), (320_000, 20.0), (370_000, 60.0), (599_000, 2.0)] {
            let closed = rollups.note(&sample("metrics/docker/p/cpu", ts, value));
            assert!(closed.iter().all(|record| record.topic.starts_with("rollup/1m/")));
        }
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 600_000, 7.0));
        assert_eq!(closed.len(), 2);
        assert_eq!(
            json(&closed, "rollup/5m/metrics/docker/p/cpu"),
            serde_json::json!({"ts":300_000,"value":23,"unit":"percent","min":2,"max":60,"count":4}),
        );
    }

    #[test]
    fn a_rollup_holds_both_directions() {
        let mut rollups = Rollups::default();
        for (ts, rx, tx) in
            [(60_000, 10.0, 1.0), (61_000, 30.0, 0.0), (62_000, 20.0, 5.0), (120_000, 40.0, 2.0)]
        {
            let payload = Sample::new(ts, rx + tx, "bytes/s")
                .with("rx_bytes", 7_u64)
                .with("rx_bytes_s", rx)
                .with("tx_bytes_s", tx);
            let topic = "metrics/docker/p/c/network".to_owned();
            let closed = rollups.note(&Record { topic, payload: payload.to_json().into_bytes() });
            if ts == 120_000 {
                assert_eq!(
                    json(&closed, "rollup/1m/metrics/docker/p/c/network"),
                    serde_json::json!({"ts":60_000,"value":22,"unit":"bytes/s","min":11,"max":30,
                        "count":3,"rx_bytes_s":20,"rx_bytes_s_min":10,"rx_bytes_s_max":30,
                        "tx_bytes_s":2,"tx_bytes_s_min":0,"tx_bytes_s_max":5}),
                );
            }
        }
        assert_eq!(
            json(&rollups.take_all(), "rollup/5m/metrics/docker/p/c/network"),
            serde_json::json!({"ts":0,"value":27,"unit":"bytes/s","min":11,"max":42,
                "count":4,"rx_bytes_s":25,"rx_bytes_s_min":10,"rx_bytes_s_max":40,
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
        json(&closed, "rollup/1m/metrics/docker/p/gone/cpu");
        rollups.note(&sample("metrics/docker/p/cpu", 301_000, 3.0));
        assert_eq!(rollups.take_ended(301_999), []);
        let closed = rollups.take_ended(302_000);
        assert_eq!(closed.len(), 1);
        json(&closed, "rollup/5m/metrics/docker/p/gone/cpu");
        assert_eq!(rollups.open.len(), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_other_records() {
        let mut rollups = Rollups::default();
        rollups.note(&sample("metrics/docker/p/cpu", 360_000, 1.0));
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 60_000, 2.0));
        assert_eq!(json(&closed, "rollup/1m/metrics/docker/p/cpu")["ts"], 360_000);
        assert_eq!(json(&closed, "rollup/5m/metrics/docker/p/cpu")["ts"], 300_000);
        let rest = rollups.take_all();
        assert_eq!(json(&rest, "rollup/5m/metrics/docker/p/cpu")["ts"], 0);
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
        assert_eq!(rollups.take_all().len(), 2 * TOPICS_MAX);
    }
}
