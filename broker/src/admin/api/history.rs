//! `GET /api/history?match=PATTERN&from=MS&to=MS&points=N&fields=value,…`: values of the matching
//! topics over a stretch of time, thinned out to `points` steps.
//!
//! Up to a quarter of an hour is read from the samples; longer from the minutes' records
//! (`rollup/1m/…`), which have `value` and, of disk and network, each direction, and from the samples
//! of the last minutes, which have no record yet. A topic without such records is read from its
//! samples all the same.
//!
//! Either is read in full where that is no more than [`READ_BYTES_MAX`], else from the beginning of
//! each step as much as its share allows (`"source": "sampled"`): then something short may be missing.

use std::collections::HashMap;
use std::ops::Range;

use aklight_common::Pattern;
use aklight_common::record::Record;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::series::{Grid, SAMPLED, Series};
use super::{Api, Asked, Patterns, parameters};
use crate::admin::problem::Problem;
use crate::fetch::span::{self, Names};
use crate::services::Services;

/// Where the minutes' records are.
const MINUTES: &str = "rollup/1m/";
const MINUTE_MS: u64 = 60_000;

/// The longest stretch that is read from samples.
const SAMPLES_MS_MAX: u64 = 15 * MINUTE_MS;

/// How long after its end a minute's record may come in: until then its samples are read.
const TAIL_MS: u64 = 3 * MINUTE_MS;

/// How late values may come in: a producer keeps them while no broker answers.
const LATE_MS: u64 = 10 * MINUTE_MS;

/// Steps that an answer has unless it is asked for others: pixels of a chart, about.
const POINTS_DEFAULT: u64 = 300;
const POINTS_MAX: u64 = 1000;

/// Most lines of an answer, and most fields of a topic.
const LINES_MAX: usize = 2000;
const FIELDS_MAX: usize = 16;

/// Most steps of all lines together: some ten megabytes, as they are gathered and as JSON.
const STEPS_MAX: u64 = 200_000;

/// Bytes of the log that one question may read of samples in each partition.
const READ_BYTES_MAX: usize = 64 << 20;

/// The same of minutes. They lie among what else was stored in their moment: of a day of fifty
/// containers that is some 190 MB.
const MINUTES_READ_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    r#match: Patterns,
    from: Option<u64>,
    to: Option<u64>,
    points: Option<u64>,
    fields: Option<String>,
}

pub(super) async fn answer(
    State(api): State<Api>,
    asked: Asked<Question>,
) -> Result<Response, Problem> {
    let question = parameters(asked)?;
    let now_ms = api.services()?.stamp.now_us() / 1000;
    let to = question.to.unwrap_or(now_ms);
    let from = question.from.unwrap_or(to.saturating_sub(5 * MINUTE_MS));
    if from >= to {
        return Err(Problem::nonsense(format!("from ({from}) is before to ({to})")));
    }
    let points = question.points.unwrap_or(POINTS_DEFAULT);
    if !(1..=POINTS_MAX).contains(&points) {
        return Err(Problem::nonsense(format!("points is a number from 1 to {POINTS_MAX}")));
    }
    let fields = question.fields.as_deref().unwrap_or("value");
    let fields: Vec<_> = fields.split(',').map(str::to_owned).collect();
    if fields.len() > FIELDS_MAX {
        return Err(Problem::nonsense(format!("at most {FIELDS_MAX} fields at once")));
    }
    let patterns = question.r#match;
    let read = api.read(move |services| {
        let lines = lines(services, &patterns, from) * fields.len();
        if lines > LINES_MAX {
            return Err(Problem::nonsense(format!(
                "this asks for {lines} lines, and an answer has {LINES_MAX} at the most: write a narrower pattern, or fewer fields"
            )));
        }
        let points = points.min(STEPS_MAX / (lines as u64).max(1));
        let grid = Grid::new(from, to, points);
        Reading { services, grid, patterns: &patterns, fields: &fields }.answer(now_ms)
    });
    read.await
}

/// How many topics had a record since: those of what was removed long ago stay as long as their
/// records do, and have no line.
fn lines(services: &Services, patterns: &Patterns, from_ms: u64) -> usize {
    let matching = services
        .partitions
        .iter()
        .flat_map(|partition| patterns.0.iter().flat_map(|p| partition.topics.matching(p)));
    matching.filter(|(_, stats)| stats.last_time_us / 1000 >= from_ms).count()
}

/// A question that is being answered.
struct Reading<'a> {
    services: &'a Services,
    grid: Grid,
    patterns: &'a Patterns,
    fields: &'a [String],
}

/// The topics that are read: those of the patterns that pass the test.
struct Wanted<'a> {
    patterns: &'a Patterns,
    test: &'a dyn Fn(&str) -> bool,
}

/// Until when a topic has minutes' records.
type Covered = HashMap<String, u64>;

impl Reading<'_> {
    fn answer(&self, now_ms: u64) -> Result<Vec<u8>, Problem> {
        let Grid { from_ms, to_ms, step_ms } = self.grid;
        let head = json!({"now": now_ms, "from": from_ms, "to": to_ms, "step": step_ms});
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(b",\"series\":[");
        let mut covered = Covered::new();
        if to_ms - from_ms > SAMPLES_MS_MAX {
            let mut minutes = self.read_minutes()?;
            covered.extend(minutes.newest().map(|(topic, ts)| (topic.to_owned(), ts + MINUTE_MS)));
            minutes.join(self.read_tail(&covered)?);
            minutes.put_json(&mut out);
        }
        let test = |topic: &str| self.patterns.matches(topic) && !covered.contains_key(topic);
        self.read_samples(&Wanted { patterns: self.patterns, test: &test })?.put_json(&mut out);
        out.extend_from_slice(b"]}");
        Ok(out)
    }

    fn series(&self, source: &'static str) -> Series {
        Series::new(self.grid, self.fields.to_vec(), source)
    }

    /// Reads what came in within a stretch, in milliseconds; says whether all of it was read.
    fn walk(
        &self,
        wanted: &Wanted<'_>,
        span: Range<u64>,
        budget: usize,
        add: &mut dyn FnMut(&str, u64, &Value),
    ) -> Result<bool, Problem> {
        let span = span.start.saturating_mul(1000)..span.end.saturating_mul(1000);
        let mut whole = true;
        for partition in self.services.partitions.iter() {
            let Wanted { patterns, test } = wanted;
            let names = Names::of(partition, &patterns.0, span.start, test);
            let mut look = |_, _, record: &Record<'_>| {
                if let Ok(payload) = serde_json::from_slice::<Value>(record.payload) {
                    let ts = payload.get("ts").and_then(Value::as_u64);
                    add(record.topic, ts.unwrap_or(record.time_us / 1000), &payload);
                }
            };
            let mut budget = budget;
            whole &= span::walk(partition, &names, span.clone(), &mut budget, &mut look)?;
        }
        Ok(whole)
    }

    /// Reads a stretch: all of it, or, where that is too much, from the beginning of each step as
    /// much as its share allows.
    fn read(
        &self,
        source: &'static str,
        wanted: &Wanted<'_>,
        span: Range<u64>,
        budget: usize,
        add: &dyn Fn(&mut Series, &str, u64, &Value),
    ) -> Result<Series, Problem> {
        let mut series = self.series(source);
        let mut put = |topic: &str, ts: u64, payload: &Value| add(&mut series, topic, ts, payload);
        if self.walk(wanted, span.clone(), budget, &mut put)? {
            return Ok(series);
        }
        let mut sampled = self.series(SAMPLED);
        let steps = self.grid.starts().map(|start| start..start + self.grid.step_ms);
        let pieces = steps.chain(std::iter::once(self.grid.to_ms..span.end));
        let pieces = pieces.map(|piece| piece.start.max(span.start)..piece.end);
        let pieces: Vec<_> = pieces.filter(|piece| !piece.is_empty()).collect();
        for piece in &pieces {
            let mut put =
                |topic: &str, ts: u64, payload: &Value| add(&mut sampled, topic, ts, payload);
            self.walk(wanted, piece.clone(), budget / pieces.len(), &mut put)?;
        }
        Ok(sampled)
    }

    fn read_minutes(&self) -> Result<Series, Problem> {
        let patterns = self.patterns.0.iter();
        // A pattern that is too long with the prefix matches no topic that exists.
        let patterns =
            patterns.filter_map(|pattern| Pattern::new(&format!("{MINUTES}{pattern}")).ok());
        let patterns = Patterns(patterns.collect());
        let span = self.grid.from_ms..self.grid.to_ms.saturating_add(LATE_MS);
        let test = |topic: &str| patterns.matches(topic);
        let wanted = Wanted { patterns: &patterns, test: &test };
        self.read(
            "rollup/1m",
            &wanted,
            span,
            MINUTES_READ_BYTES_MAX,
            &|minutes, topic, ts, minute| {
                minutes.add_minute(topic.strip_prefix(MINUTES).unwrap_or(topic), ts, minute);
            },
        )
    }

    /// Reads the samples of minutes that have no record yet: of the last minutes, or since the last
    /// record where a topic has none for longer, but not further back than samples are read.
    fn read_tail(&self, covered: &Covered) -> Result<Series, Problem> {
        let Grid { from_ms, to_ms, .. } = self.grid;
        let oldest = covered.values().min().copied().unwrap_or(to_ms);
        let start = oldest.min(to_ms.saturating_sub(TAIL_MS));
        let start = start.max(to_ms.saturating_sub(SAMPLES_MS_MAX)).max(from_ms);
        let test = |topic: &str| covered.contains_key(topic);
        let wanted = Wanted { patterns: self.patterns, test: &test };
        let span = start..to_ms.saturating_add(LATE_MS);
        self.read("rollup/1m", &wanted, span, READ_BYTES_MAX, &|tail, topic, ts, sample| {
            if covered.get(topic).is_some_and(|end| ts >= *end) {
                tail.add(topic, ts, sample);
            }
        })
    }

    fn read_samples(&self, wanted: &Wanted<'_>) -> Result<Series, Problem> {
        let span = self.grid.from_ms..self.grid.to_ms.saturating_add(LATE_MS);
        self.read("samples", wanted, span, READ_BYTES_MAX, &Series::add)
    }
}
