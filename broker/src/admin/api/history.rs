//! `GET /api/history?match=PATTERN&from=MS&to=MS&points=N&fields=value,…`: values of the matching
//! topics over a stretch of time, thinned out to `points` steps.
//!
//! Up to a quarter of an hour is read from the samples; longer from rollups, which have `value` and,
//! of disk and network, each direction: those of five minutes (`rollup/5m/…`) where a step is as long as
//! that, else those of a minute (`rollup/1m/…`). Steps are whole multiples of theirs then, and begin
//! where they do. Where one of five minutes is missing its minutes are read; what no rollup reaches yet is
//! read from the samples, and so is a topic that has none.
//!
//! Either is read in full where that is no more than [`Kind::read_bytes_max`], else from the beginning of
//! each step as much as its share allows (`"source": "sampled"`): then something short may be missing.

use std::collections::{BTreeSet, HashMap, HashSet};
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

/// Records that lines are made of.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What stands before the topic of the samples.
    prefix: &'static str,
    /// Their name in answers.
    source: &'static str,
    /// How long a record stands for.
    ms: u64,
    /// Bytes of the log that one question may read of them in each partition. Rollups lie among
    /// what else was stored in their moment: of a day of fifty containers those of minutes come to 190 MB.
    read_bytes_max: usize,
}

const MINUTE_MS: u64 = 60_000;
const FIVES: Kind = Kind {
    prefix: "rollup/5m/",
    source: "rollup/5m",
    ms: 5 * MINUTE_MS,
    read_bytes_max: 256 << 20,
};
const MINUTES: Kind =
    Kind { prefix: "rollup/1m/", source: "rollup/1m", ms: MINUTE_MS, read_bytes_max: 256 << 20 };
const SAMPLES: Kind = Kind { prefix: "", source: "samples", ms: 0, read_bytes_max: 64 << 20 };

/// The longest stretch that is read from samples, and from what is shorter than the rest is read from.
const SAMPLES_MS_MAX: u64 = 15 * MINUTE_MS;

/// How long after its end a rollup may come in, and how far clocks may differ: until then what it
/// is made of is read.
const TAIL_MS: u64 = 3 * MINUTE_MS;

/// How late values may come in: a producer keeps them while no broker answers.
const LATE_MS: u64 = 10 * MINUTE_MS;

/// Steps that an answer has unless it is asked for others: pixels of a chart, about, and five
/// minutes each of a day.
const POINTS_DEFAULT: u64 = 288;
const POINTS_MAX: u64 = 1000;

/// Most lines of an answer, and most fields of a topic.
const LINES_MAX: usize = 2000;
const FIELDS_MAX: usize = 16;

/// Most steps of all lines together: some ten megabytes, as they are gathered and as JSON.
const STEPS_MAX: u64 = 200_000;

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
        let mut grid = Grid::new(from, to, points);
        if to - from > SAMPLES_MS_MAX {
            grid = grid.whole(MINUTES.ms);
            if grid.step_ms >= FIVES.ms {
                grid = grid.whole(FIVES.ms);
            }
        }
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

/// Lines that were read from one kind of records.
struct Part {
    lines: Series,
    /// Of each topic, where the rollups begin that have been read.
    begins: HashMap<String, BTreeSet<u64>>,
    /// Of each topic, until when it has been read.
    ends: HashMap<String, u64>,
}

impl Reading<'_> {
    fn answer(&self, now_ms: u64) -> Result<Vec<u8>, Problem> {
        let Grid { from_ms, to_ms, step_ms } = self.grid;
        let head = json!({"now": now_ms, "from": from_ms, "to": to_ms, "step": step_ms});
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(b",\"series\":[");
        let mut parts: Vec<Part> = Vec::new();
        for kind in self.kinds() {
            for part in &mut parts {
                match kind.ms {
                    0 => self.read_tail(part)?,
                    _ => self.read_gaps(kind, part)?,
                }
            }
            let is_new = |topic: &str| parts.iter().all(|part| !part.ends.contains_key(topic));
            let mut part = Part::new(self.series(kind.source));
            let span = from_ms..to_ms.saturating_add(LATE_MS);
            self.read(kind, &mut part, &is_new, &|_, _| true, span)?;
            parts.push(part);
        }
        parts.iter().for_each(|part| part.lines.put_json(&mut out));
        out.extend_from_slice(b"]}");
        Ok(out)
    }

    /// What is read, longest first.
    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let Grid { from_ms, to_ms, step_ms } = self.grid;
        let is_long = to_ms - from_ms > SAMPLES_MS_MAX;
        let fives = (is_long && step_ms >= FIVES.ms).then_some(FIVES);
        let minutes = is_long.then_some(MINUTES);
        fives.into_iter().chain(minutes).chain(std::iter::once(SAMPLES))
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

    /// Reads a stretch of the topics (of samples) that pass the test, and of those what `is_new`
    /// says of topic and time: all of it, or, where that is too much, from the beginning of each step
    /// as much as its share allows.
    fn read(
        &self,
        kind: Kind,
        into: &mut Part,
        test: &dyn Fn(&str) -> bool,
        is_new: &dyn Fn(&str, u64) -> bool,
        span: Range<u64>,
    ) -> Result<(), Problem> {
        let patterns = kind.patterns(self.patterns);
        let of_samples = |topic: &str| test(topic.strip_prefix(kind.prefix).unwrap_or(topic));
        let test = |topic: &str| patterns.matches(topic) && of_samples(topic);
        let wanted = Wanted { patterns: &patterns, test: &test };
        let add = |part: &mut Part, topic: &str, ts: u64, payload: &Value| {
            let topic = topic.strip_prefix(kind.prefix).unwrap_or(topic);
            if is_new(topic, ts) && self.grid.holds(ts) {
                part.add(kind, topic, ts, payload);
            }
        };
        let budget = kind.read_bytes_max;
        let mut part = Part::new(self.series(kind.source));
        let mut put = |topic: &str, ts: u64, payload: &Value| add(&mut part, topic, ts, payload);
        if self.walk(&wanted, span.clone(), budget, &mut put)? {
            into.join(part);
            return Ok(());
        }
        let mut part = Part::new(self.series(SAMPLED));
        let steps = self.grid.starts().map(|start| start..start + self.grid.step_ms);
        let pieces = steps.chain(std::iter::once(self.grid.to_ms..span.end));
        let pieces = pieces.map(|piece| piece.start.max(span.start)..piece.end.min(span.end));
        let pieces: Vec<_> = pieces.filter(|piece| !piece.is_empty()).collect();
        for piece in &pieces {
            let mut put =
                |topic: &str, ts: u64, payload: &Value| add(&mut part, topic, ts, payload);
            self.walk(&wanted, piece.clone(), budget / pieces.len(), &mut put)?;
        }
        into.join(part);
        Ok(())
    }

    /// Adds from minutes what no five minutes of a part tell: of before there were such records, where
    /// the producer was started or ended in between, and since the last ones.
    fn read_gaps(&self, kind: Kind, part: &mut Part) -> Result<(), Problem> {
        let latest = self.latest(kind);
        let mut gaps: Vec<(Range<u64>, String)> = Vec::new();
        for (topic, begins) in &part.begins {
            // None is looked for behind the last record there is.
            let latest = latest.get(topic).map_or(0, |ms| ms + TAIL_MS);
            let mut from = self.grid.from_ms;
            for next in begins.iter().copied().chain([self.grid.to_ms.min(latest)]) {
                if from < next {
                    gaps.push((from..next, topic.clone()));
                }
                from = next + FIVES.ms;
            }
        }
        gaps.sort_unstable_by_key(|(gap, _)| gap.start);
        let begins = part.begins.clone();
        let is_new = |topic: &str, ts: u64| {
            let before = begins.get(topic).and_then(|begins| begins.range(..=ts).next_back());
            before.is_none_or(|begin| ts >= begin + FIVES.ms)
        };
        // Those that overlap are read together.
        let mut gaps = gaps.into_iter().peekable();
        while let Some((mut span, topic)) = gaps.next() {
            let mut topics = HashSet::from([topic]);
            span.end += LATE_MS;
            while let Some((gap, topic)) = gaps.next_if(|(gap, _)| gap.start <= span.end) {
                span.end = span.end.max(gap.end + LATE_MS);
                topics.insert(topic);
            }
            self.read(kind, part, &|topic| topics.contains(topic), &is_new, span)?;
        }
        Ok(())
    }

    /// Adds the samples of which there is no rollup yet: of the last minutes, or since the last
    /// one where a topic has none for longer, but not further back than samples are read.
    fn read_tail(&self, part: &mut Part) -> Result<(), Problem> {
        let Grid { from_ms, to_ms, .. } = self.grid;
        let latest = self.latest(SAMPLES);
        // What has ended is not looked for.
        let goes_on =
            |topic: &str, end: u64| latest.get(topic).is_some_and(|ms| ms + TAIL_MS >= end);
        let mut behind = part.ends.clone();
        behind.retain(|topic, end| goes_on(topic, *end));
        let Some(oldest) = behind.values().min().copied() else { return Ok(()) };
        let start = oldest.min(to_ms.saturating_sub(TAIL_MS));
        let start = start.max(to_ms.saturating_sub(SAMPLES_MS_MAX)).max(from_ms);
        let is_new = |topic: &str, ts: u64| behind.get(topic).is_some_and(|end| ts >= *end);
        let span = start..to_ms.saturating_add(LATE_MS);
        self.read(SAMPLES, part, &|topic| behind.contains_key(topic), &is_new, span)
    }

    /// When the last record of this kind came in, of each topic.
    fn latest(&self, kind: Kind) -> HashMap<String, u64> {
        let patterns = kind.patterns(self.patterns).0;
        let partitions = self.services.partitions.iter();
        let known = partitions
            .flat_map(|partition| patterns.iter().flat_map(|p| partition.topics.matching(p)));
        let mut latest: HashMap<String, u64> = HashMap::new();
        for (topic, stats) in known {
            if let Some(topic) = topic.strip_prefix(kind.prefix) {
                let ms = latest.entry(topic.to_owned()).or_default();
                *ms = (*ms).max(stats.last_time_us / 1000);
            }
        }
        latest
    }
}

impl Part {
    fn new(lines: Series) -> Self {
        Self { lines, begins: HashMap::new(), ends: HashMap::new() }
    }

    fn add(&mut self, kind: Kind, topic: &str, ts: u64, payload: &Value) {
        let has_value = match kind.ms {
            0 => self.lines.add(topic, ts, payload),
            _ => self.lines.add_rollup(topic, ts, payload),
        };
        // One that lacks what is asked for may have it in shorter records.
        if !has_value {
            return;
        }
        if kind.ms == FIVES.ms {
            self.begins.entry(topic.to_owned()).or_default().insert(ts);
        }
        let end = self.ends.entry(topic.to_owned()).or_default();
        *end = (*end).max(ts + kind.ms);
    }

    fn join(&mut self, further: Self) {
        self.lines.join(further.lines);
        for (topic, begins) in further.begins {
            self.begins.entry(topic).or_default().extend(begins);
        }
        for (topic, further) in further.ends {
            let end = self.ends.entry(topic).or_default();
            *end = (*end).max(further);
        }
    }
}

impl Kind {
    /// The patterns over records of this kind. One that is too long with the prefix matches no topic
    /// that exists.
    fn patterns(self, of_samples: &Patterns) -> Patterns {
        let whole = |pattern| Pattern::new(&format!("{}{pattern}", self.prefix)).ok();
        Patterns(of_samples.0.iter().filter_map(whole).collect())
    }
}
