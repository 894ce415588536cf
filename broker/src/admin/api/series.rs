//! Values over time, thinned out: the stretch is cut into steps of one length, and of each step are
//! kept the mean, the least, the greatest, and how many values they stand for.
//!
//! A rollup counts as the samples that it was made of, so that steps may
//! hold both. Values belong to the step in which they were measured (`ts`), whenever they came in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The source of lines of which a part was read.
pub(super) const SAMPLED: &str = "sampled";

/// The steps of a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) step_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    sum: f64,
    min: f64,
    max: f64,
    count: f64,
}

/// The values of one field of one topic.
#[derive(Debug, Default)]
struct Line {
    unit: Option<String>,
    steps: BTreeMap<u64, Step>,
}

/// Lines by topic and field.
pub(super) struct Series {
    grid: Grid,
    fields: Vec<String>,
    source: &'static str,
    lines: BTreeMap<(String, usize), Line>,
}

impl Grid {
    /// As many steps as wanted, or fewer: none is shorter than a millisecond.
    pub(super) fn new(from_ms: u64, to_ms: u64, points: u64) -> Self {
        Self { from_ms, to_ms, step_ms: (to_ms - from_ms).div_ceil(points).max(1) }
    }

    /// With steps of whole multiples of a length, which begin at multiples of it.
    pub(super) fn whole(self, length_ms: u64) -> Self {
        let from_ms = self.from_ms - self.from_ms % length_ms;
        Self { from_ms, step_ms: self.step_ms.next_multiple_of(length_ms), ..self }
    }

    /// Whether a moment lies in a step.
    pub(super) fn holds(&self, ts: u64) -> bool {
        self.step_of(ts).is_some()
    }

    fn step_of(&self, ts: u64) -> Option<u64> {
        (ts < self.to_ms).then_some(ts.checked_sub(self.from_ms)? / self.step_ms)
    }

    /// Where each step begins.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> + use<> {
        (self.from_ms..self.to_ms).step_by(usize::try_from(self.step_ms).unwrap_or(usize::MAX))
    }
}

impl Line {
    fn add(&mut self, at: u64, more: Step) {
        let step = self.steps.entry(at).or_insert(Step { sum: 0.0, count: 0.0, ..more });
        step.sum += more.sum;
        step.count += more.count;
        step.min = step.min.min(more.min);
        step.max = step.max.max(more.max);
    }
}

impl Series {
    /// No values yet; `source` says what they will be made of.
    pub(super) fn new(grid: Grid, fields: Vec<String>, source: &'static str) -> Self {
        Self { grid, fields, source, lines: BTreeMap::new() }
    }

    /// Adds a sample's values; whether there is one.
    pub(super) fn add(&mut self, topic: &str, ts: u64, sample: &Value) -> bool {
        let mut has_value = false;
        for place in 0..self.fields.len() {
            if let Some(value) = sample.get(&self.fields[place]).and_then(Value::as_f64) {
                let step = Step { sum: value, min: value, max: value, count: 1.0 };
                self.put(topic, place, ts, step, sample);
                has_value = true;
            }
        }
        has_value
    }

    /// Adds a rollup, and says whether it holds a value: of each field that it holds the mean, with
    /// its own least and greatest beside it. Those of the value have no name before them.
    pub(super) fn add_rollup(&mut self, topic: &str, ts: u64, rollup: &Value) -> bool {
        let number = |name: &str| rollup.get(name).and_then(Value::as_f64);
        let count = number("count").unwrap_or(1.0).max(1.0);
        let mut has_value = false;
        for place in 0..self.fields.len() {
            let field = &self.fields[place];
            let Some(mean) = number(field) else { continue };
            let (min, max) = match field.as_str() {
                "value" => (number("min"), number("max")),
                field => (number(&format!("{field}_min")), number(&format!("{field}_max"))),
            };
            let (min, max) = (min.unwrap_or(mean), max.unwrap_or(mean));
            let step = Step { sum: mean * count, min, max, count };
            self.put(topic, place, ts, step, rollup);
            has_value = true;
        }
        has_value
    }

    fn put(&mut self, topic: &str, place: usize, ts: u64, more: Step, from: &Value) {
        let Some(at) = self.grid.step_of(ts) else { return };
        let line = self.lines.entry((topic.to_owned(), place)).or_default();
        // The unit is the value's; other fields have theirs in their names.
        if line.unit.is_none() && self.fields[place] == "value" {
            line.unit = from.get("unit").and_then(Value::as_str).map(str::to_owned);
        }
        line.add(at, more);
    }

    /// Adds further values of the same lines; those of a part make the whole a part.
    pub(super) fn join(&mut self, further: Self) {
        if further.source == SAMPLED {
            self.source = SAMPLED;
        }
        for (name, line) in further.lines {
            let known = self.lines.entry(name).or_default();
            known.unit = known.unit.take().or(line.unit);
            line.steps.into_iter().for_each(|(at, step)| known.add(at, step));
        }
    }

    /// Adds the lines to a list of JSON, which they are written into one by one, as they may be many;
    /// a step is `[where it begins, mean, least, greatest]`.
    pub(super) fn put_json(&self, out: &mut Vec<u8>) {
        for ((topic, place), line) in &self.lines {
            if !out.ends_with(b"[") {
                out.push(b',');
            }
            let head = json!({
                "topic": topic,
                "field": self.fields[*place],
                "unit": line.unit,
                "source": self.source,
            });
            out.extend_from_slice(head.to_string().as_bytes());
            out.pop();
            out.extend_from_slice(b",\"points\":[");
            for (at, step) in &line.steps {
                if !out.ends_with(b"[") {
                    out.push(b',');
                }
                let begins = self.grid.from_ms + at * self.grid.step_ms;
                let mean = rounded(step.sum / step.count);
                // Numbers, written into memory: that does not fail.
                let _ = serde_json::to_writer(
                    &mut *out,
                    &(begins, mean, rounded(step.min), rounded(step.max)),
                );
            }
            out.extend_from_slice(b"]}");
        }
    }
}

/// A chart shows no more, and an answer gets shorter.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(series: &Series) -> Value {
        let mut out = b"[".to_vec();
        series.put_json(&mut out);
        out.push(b']');
        serde_json::from_slice(&out).expect("JSON")
    }

    fn points(series: &Series) -> Value {
        shown(series)[0]["points"].clone()
    }

    #[test]
    fn a_step_keeps_the_mean_and_both_ends() {
        let grid = Grid::new(1000, 3000, 2);
        let mut series = Series::new(grid, vec!["value".into()], "samples");
        for (ts, value) in [(999, 50.0), (1000, 1.0), (1500, 3.0), (2999, 8.0), (3000, 50.0)] {
            series.add("t", ts, &json!({"value": value, "unit": "percent"}));
        }
        assert_eq!(points(&series), json!([[1000, 2.0, 1.0, 3.0], [2000, 8.0, 8.0, 8.0]]));
        assert_eq!(shown(&series)[0]["unit"], "percent");
    }

    #[test]
    fn a_minute_weighs_as_much_as_its_samples() {
        let mut series = Series::new(Grid::new(0, 120_000, 1), vec!["value".into()], "rollup/1m");
        series.add_rollup("t", 0, &json!({"value": 10.0, "min": 1.0, "max": 90.0, "count": 30}));
        series.add_rollup(
            "t",
            60_000,
            &json!({"value": 40.0, "min": 20.0, "max": 50.0, "count": 10}),
        );
        assert_eq!(points(&series), json!([[0, 17.5, 1.0, 90.0]]));
    }

    #[test]
    fn a_minute_has_a_line_for_each_field_that_it_holds() {
        let fields = ["value", "rx_bytes_s", "tx_bytes_s"].map(str::to_owned).to_vec();
        let mut series = Series::new(Grid::new(0, 120_000, 1), fields, "rollup/1m");
        let mut minute = json!({"value": 3.0, "count": 1});
        series.add_rollup("before", 0, &minute);
        minute["rx_bytes_s"] = json!(2.0);
        minute["rx_bytes_s_min"] = json!(0.0);
        minute["rx_bytes_s_max"] = json!(9.0);
        series.add_rollup("t", 0, &minute);
        minute["rx_bytes_s"] = json!(6.0);
        minute["count"] = json!(3);
        series.add_rollup("t", 60_000, &minute);
        let shown = shown(&series);
        let lines: Vec<_> = shown.as_array().expect("a list").iter().collect();
        let names: Vec<_> = lines.iter().map(|line| (&line["topic"], &line["field"])).collect();
        assert_eq!(json!(names), json!([["before", "value"], ["t", "value"], ["t", "rx_bytes_s"]]));
        assert_eq!(lines[2]["points"], json!([[0, 5.0, 0.0, 9.0]]));
    }

    #[test]
    fn no_step_is_missing() {
        assert_eq!(Grid::new(0, 10, 3).starts().collect::<Vec<_>>(), [0, 4, 8]);
        assert_eq!(Grid::new(5, 7, 100).starts().collect::<Vec<_>>(), [5, 6]);
    }
}
