//! Rollups: a minute of samples in one record, `rollup/1m/{topic of the samples}`, and five minutes
//! in one, `rollup/5m/…`.
//!
//! Every sample passes here on its way out, whatever becomes of it there, so a rollup is whole
//! also when no broker was there to take its samples. A minute is closed by the first sample of
//! another one, or, where no more samples come, a little after its end. A topic that is gone then
//! takes no room any more.
//!
//! Five minutes are made of their minutes, and closed one sample later: what every topic sends at
//! once is no more than with minutes alone. Five minutes in which the producer was started, or ends,
//! have no record, because there is none that would be whole: who reads them takes the minutes, which
//! two processes may have sent.
//!
//! Of what has two directions a rollup holds each, beside the value, which is both together: a
//! chart of a day then has the lines that one of five minutes has.
//!
//! Invariant: at most one open rollup of each length a topic, and at most [`TOPICS_MAX`] topics.
//!
//! What is left out: a minute in which a producer was started again has two records, to be weighed
//! by `count`; of one in which it was killed there is none from before.

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
    /// Where the five minutes begin in which the first sample was taken: records begin behind them.
    started_ms: Option<u64>,
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
        let five_ms = FIVE.begin(sample.ts_ms);
        // Or a clock that was set back: it is as if it had been started anew.
        let started_ms = self.started_ms.map_or(five_ms, |known| known.min(five_ms));
        self.started_ms = Some(started_ms);
        if let Some(open) = self.open.get_mut(&record.topic) {
            open.note(record, &sample, started_ms, &mut closed);
        } else if self.open.len() < TOPICS_MAX {
            let mut open = Open::default();
            open.note(record, &sample, started_ms, &mut closed);
            self.open.insert(record.topic.clone(), open);
        } else if !std::mem::replace(&mut self.overflowed, true) {
            warn!("more than {TOPICS_MAX} topics have samples: those beyond get no rollups");
        }
        closed
    }

    /// The rollups that ended and whose topics fell silent.
    pub fn take_ended(&mut self, wall_ms: u64) -> Vec<Record> {
        let mut ended = Vec::new();
        let started_ms = self.started_ms.unwrap_or(u64::MAX);
        self.open.retain(|topic, open| {
            let is_over =
                |begin_ms: u64, length: Length| wall_ms >= begin_ms + length.ms + GRACE_MS;
            if open.minute.as_ref().is_some_and(|minute| is_over(minute.begin_ms, MINUTE)) {
                open.close_minute(topic, started_ms, &mut ended);
            }
            if open.five.as_ref().is_some_and(|five| is_over(five.begin_ms, FIVE)) {
                open.close_five(topic, &mut ended);
            }
            open.minute.is_some() || open.five.is_some()
        });
        ended
    }

    /// All minutes as they stand: the producer ends.
    pub fn take_all(&mut self) -> Vec<Record> {
        let open = self.open.drain();
        open.filter_map(|(topic, open)| Some(open.minute?.record(MINUTE, &topic))).collect()
    }
}

impl Open {
    fn note(
        &mut self,
        record: &Record,
        sample: &Head<'_>,
        started_ms: u64,
        closed: &mut Vec<Record>,
    ) {
        let begin_ms = MINUTE.begin(sample.ts_ms);
        if let Some(minute) = self.minute.as_mut().filter(|minute| minute.begin_ms == begin_ms) {
            minute.add(sample.value, &record.payload);
            return self.close_five_but(FIVE.begin(begin_ms), &record.topic, closed);
        }
        self.close_minute(&record.topic, started_ms, closed);
        self.minute = Some(Rollup::new(begin_ms, sample, record));
    }

    fn close_minute(&mut self, topic: &str, started_ms: u64, closed: &mut Vec<Record>) {
        let Some(minute) = self.minute.take() else { return };
        closed.push(minute.record(MINUTE, topic));
        let begin_ms = FIVE.begin(minute.begin_ms);
        self.close_five_but(begin_ms, topic, closed);
        match &mut self.five {
            Some(five) => five.join(&minute),
            None if begin_ms > started_ms => self.five = Some(Rollup { begin_ms, ..minute }),
            None => {}
        }
    }

    /// Closes five minutes, unless it is those that begin at `begin_ms`.
    fn close_five_but(&mut self, begin_ms: u64, topic: &str, closed: &mut Vec<Record>) {
        if self.five.as_ref().is_some_and(|five| five.begin_ms != begin_ms) {
            self.close_five(topic, closed);
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
        assert_eq!(rollups.take_all().len(), 1);
    }

    #[test]
    fn five_minutes_are_made_of_their_minutes_and_closed_by_the_second_sample_behind_them() {
        let mut rollups = Rollups::default();
        let samples =
            [(299_000, 9.0), (310_000, 10.0), (320_000, 20.0), (370_000, 60.0), (599_000, 2.0)];
        for (ts, value) in samples.into_iter().chain([(600_000, 7.0)]) {
            let closed = rollups.note(&sample("metrics/docker/p/cpu", ts, value));
            assert!(closed.iter().all(|record| record.topic.starts_with("rollup/1m/")));
        }
        let closed = rollups.note(&sample("metrics/docker/p/cpu", 601_000, 7.0));
        assert_eq!(closed.len(), 1);
        assert_eq!(
            json(&closed, "rollup/5m/metrics/docker/p/cpu"),
            serde_json::json!({"ts":300_000,"value":23,"unit":"percent","min":2,"max":60,"count":4}),
        );
    }

    #[test]
    fn five_minutes_that_were_not_seen_whole_have_no_record() {
        let mut rollups = Rollups::default();
        let mut all = Vec::new();
        for ts in (130_000..660_000).step_by(10_000) {
            all.extend(rollups.note(&sample("metrics/docker/p/cpu", ts, 1.0)));
        }
        // One that appears later was there as long as it is known.
        for ts in [410_000, 601_000, 602_000] {
            all.extend(rollups.note(&sample("metrics/docker/p/young/cpu", ts, 1.0)));
        }
        all.extend(rollups.take_all());
        let mut fives: Vec<_> = all.iter().filter(|r| r.topic.starts_with("rollup/5m/")).collect();
        fives.sort_by_key(|record| record.topic.len());
        let told = fives.iter().map(|record| {
            let five: serde_json::Value = serde_json::from_slice(&record.payload).expect("JSON");
            (record.topic.as_str(), five["ts"].clone(), five["count"].clone())
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("rollup/5m/metrics/docker/p/cpu", 300_000.into(), 30.into()),
                ("rollup/5m/metrics/docker/p/young/cpu", 300_000.into(), 1.into()),
            ]
        );
    }

    #[test]
    fn a_rollup_holds_both_directions() {
        let mut rollups = Rollups::default();
        let samples = [
            (299_000, 9.0, 9.0),
            (360_000, 10.0, 1.0),
            (361_000, 30.0, 0.0),
            (362_000, 20.0, 5.0),
            (420_000, 40.0, 2.0),
        ];
        for (ts, rx, tx) in samples {
            let payload = Sample::new(ts, rx + tx, "bytes/s")
                .with("rx_bytes", 7_u64)
                .with("rx_bytes_s", rx)
                .with("tx_bytes_s", tx);
            let topic = "metrics/docker/p/c/network".to_owned();
            let closed = rollups.note(&Record { topic, payload: payload.to_json().into_bytes() });
            if ts == 420_000 {
                assert_eq!(
                    json(&closed, "rollup/1m/metrics/docker/p/c/network"),
                    serde_json::json!({"ts":360_000,"value":22,"unit":"bytes/s","min":11,"max":30,
                        "count":3,"rx_bytes_s":20,"rx_bytes_s_min":10,"rx_bytes_s_max":30,
                        "tx_bytes_s":2,"tx_bytes_s_min":0,"tx_bytes_s_max":5}),
                );
            }
        }
        assert_eq!(
            json(&rollups.take_ended(602_000), "rollup/5m/metrics/docker/p/c/network"),
            serde_json::json!({"ts":300_000,"value":27,"unit":"bytes/s","min":11,"max":42,
                "count":4,"rx_bytes_s":25,"rx_bytes_s_min":10,"rx_bytes_s_max":40,
                "tx_bytes_s":2,"tx_bytes_s_min":0,"tx_bytes_s_max":5}),
        );
    }

    #[test]
    fn a_topic_that_fell_silent_is_closed_and_forgotten() {
        let mut rollups = Rollups::default();
        rollups.note(&sample("metrics/docker/p/cpu", 299_000, 3.0));
        rollups.note(&sample("metrics/docker/p/gone/cpu", 361_000, 3.0));
        rollups.note(&sample("metrics/docker/p/cpu", 421_000, 3.0));
        assert_eq!(rollups.take_ended(421_999), []);
        let closed = rollups.take_ended(422_000);
        assert_eq!(closed.len(), 1);
        json(&closed, "rollup/1m/metrics/docker/p/gone/cpu");
        rollups.note(&sample("metrics/docker/p/cpu", 601_000, 3.0));
        assert_eq!(rollups.take_ended(601_999), []);
        let closed = rollups.take_ended(602_000);
        json(&closed, "rollup/5m/metrics/docker/p/gone/cpu");
        json(&closed, "rollup/5m/metrics/docker/p/cpu");
        assert_eq!((closed.len(), rollups.open.len()), (2, 1));
    }

    #[test]
    fn a_clock_that_was_set_back_begins_other_records() {
        let mut rollups = Rollups::default();
        let mut note = |ts| rollups.note(&sample("metrics/docker/p/cpu", ts, 1.0));
        assert!(note(900_000).is_empty() && note(1_260_000).len() == 1);
        let closed = note(60_000);
        assert_eq!(json(&closed, "rollup/1m/metrics/docker/p/cpu")["ts"], 1_260_000);
        let closed = note(60_001);
        assert_eq!(json(&closed, "rollup/5m/metrics/docker/p/cpu")["ts"], 1_200_000);
        // Those of the new time that are seen whole have records again.
        assert!(note(300_000).len() == 1 && note(600_000).len() == 1);
        assert_eq!(json(&note(600_001), "rollup/5m/metrics/docker/p/cpu")["ts"], 300_000);
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
