//! Samples: one measurement each, as the flat JSON object that is sent.
//!
//! A [`Sample`] holds what was measured and when; [`Sample::to_json`] writes it with `ts`, `value`
//! and `unit` first, where a person looks for them. A collector writes exactly one such object,
//! closed by a newline, into its pipe; what arrives there is sent as it is, but for
//! [`mark_late`], which adds `"late":true` to a sample that no broker could take when it was
//! measured.
//!
//! Invariant: the JSON is one line and ends with `}`. What is left out: nesting (but for lists of
//! numbers), numbers that are no numbers (NaN is written as 0).

use std::borrow::Cow;
use std::fmt::Write as _;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Use of the processors.
    Cpu,
    /// Use of the memory.
    Memory,
    /// Bytes read from and written to disks, and how full the file system is.
    Disk,
    /// Bytes received and sent.
    Network,
    /// Processes and threads.
    Pids,
    /// How often the quota of CPU time stopped it.
    Throttling,
    /// How long tasks waited for CPU, memory or disks.
    Pressure,
    /// How often the engine started it again.
    Restarts,
    /// Whether it runs, and how it ended.
    State,
    /// What the producer itself takes.
    Cost,
}

impl Metric {
    /// The last level of the metric's topic.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Network => "network",
            Self::Pids => "pids",
            Self::Throttling => "throttling",
            Self::Pressure => "pressure",
            Self::Restarts => "restarts",
            Self::State => "state",
            Self::Cost => "cost",
        }
    }

    /// The topic of the producer `id` for this metric.
    #[must_use]
    pub fn topic(self, id: &str) -> String {
        format!("metrics/docker/{id}/{}", self.name())
    }
}

/// What a field of a sample holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Bytes and counts.
    Whole(u64),
    /// Percentages and shares; written with at most two decimals, as `docker stats` shows them.
    Fraction(f64),
    /// Words, as the state of a container.
    Text(String),
    /// Numbers in a row, as the last minute.
    List(Vec<Value>),
}

impl Value {
    fn write(&self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = match self {
            Self::Whole(n) => write!(out, "{n}"),
            Self::Fraction(x) => write!(out, "{}", rounded(*x)),
            Self::Text(text) => write!(out, "{}", serde_json::Value::from(text.as_str())),
            Self::List(values) => {
                out.push('[');
                for (n, value) in values.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
                Ok(())
            }
        };
    }
}

/// Two decimals: more would pretend to a precision that counters read once a second do not have.
fn rounded(x: f64) -> f64 {
    if x.is_finite() { (x * 100.0).round() / 100.0 } else { 0.0 }
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Fraction(x)
    }
}

impl From<i64> for Value {
    #[expect(clippy::cast_precision_loss, reason = "an exit code is small")]
    fn from(n: i64) -> Self {
        u64::try_from(n).map_or(Self::Fraction(n as f64), Self::Whole)
    }
}

impl From<bool> for Value {
    /// 1 or 0: a rule compares numbers.
    fn from(yes: bool) -> Self {
        Self::Whole(u64::from(yes))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    ts_ms: u64,
    value: Value,
    unit: Cow<'static, str>,
    fields: Vec<(Cow<'static, str>, Value)>,
}

impl Sample {
    /// A sample of `value`, measured at `ts_ms` (Unix time in milliseconds).
    #[must_use]
    pub fn new(ts_ms: u64, value: impl Into<Value>, unit: impl Into<Cow<'static, str>>) -> Self {
        Self { ts_ms, value: value.into(), unit: unit.into(), fields: Vec::new() }
    }

    /// Adds a further field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds a further field where there is a value for it.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The number that a rule compares.
    #[must_use]
    pub fn value(&self) -> f64 {
        as_f64(&self.value)
    }

    /// A further field's number.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<f64> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| as_f64(value))
    }

    /// The payload: one line of JSON, without a newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(32 * (3 + self.fields.len()));
        let _ = write!(out, "{{\"ts\":{},\"value\":", self.ts_ms);
        self.value.write(&mut out);
        let _ = write!(out, ",\"unit\":\"{}\"", self.unit);
        for (name, value) in &self.fields {
            let _ = match name {
                Cow::Borrowed(name) => write!(out, ",\"{name}\":"),
                // A label may be called anything.
                Cow::Owned(name) => write!(out, ",{}:", serde_json::Value::from(name.as_str())),
            };
            value.write(&mut out);
        }
        out.push('}');
        out
    }
}

#[expect(clippy::cast_precision_loss, reason = "for comparing only; the JSON is written exactly")]
fn as_f64(value: &Value) -> f64 {
    match value {
        Value::Whole(n) => *n as f64,
        Value::Fraction(x) => rounded(*x),
        Value::Text(_) | Value::List(_) => f64::NAN,
    }
}

/// Whether a line that came through a pipe is what a collector writes.
#[must_use]
pub fn is_payload(line: &[u8]) -> bool {
    line.starts_with(b"{\"ts\":") && line.ends_with(b"}")
}

/// What every sample begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head<'a> {
    /// When it was measured.
    pub ts_ms: u64,
    /// The number that a rule compares.
    pub value: f64,
    /// What that number counts.
    pub unit: &'a str,
}

/// The beginning of a payload that [`Sample::to_json`] wrote: three fields in a fixed order, read
/// without the rest, because every sample passes here.
#[must_use]
pub fn head(payload: &[u8]) -> Option<Head<'_>> {
    let text = std::str::from_utf8(payload).ok()?;
    let (ts, rest) = text.strip_prefix("{\"ts\":")?.split_once(",\"value\":")?;
    let (value, rest) = rest.split_once(",\"unit\":\"")?;
    let (unit, _) = rest.split_once('"')?;
    Some(Head { ts_ms: ts.parse().ok()?, value: value.parse().ok()?, unit })
}

/// A further field's number, out of a payload that [`Sample::to_json`] wrote.
#[must_use]
pub fn number(payload: &[u8], field: &str) -> Option<f64> {
    let text = std::str::from_utf8(payload).ok()?;
    let value = text.match_indices(field).find_map(|(at, _)| {
        let is_name = text[..at].ends_with('"');
        is_name.then(|| text[at + field.len()..].strip_prefix("\":")).flatten()
    })?;
    value.split([',', '}']).next()?.parse().ok()
}

/// Adds `"late":true` to a payload.
pub fn mark_late(payload: &mut Vec<u8>) {
    debug_assert!(is_payload(payload), "{}", payload.escape_ascii());
    payload.pop();
    payload.extend_from_slice(b",\"late\":true}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_flat_json_object_with_what_is_always_there_first() {
        let sample = Sample::new(1_700_000_000_123, 12.345_6, "percent")
            .with("cpus", 2_u64)
            .with("limit_cpus", 1.5);
        assert_eq!(
            sample.to_json(),
            r#"{"ts":1700000000123,"value":12.35,"unit":"percent","cpus":2,"limit_cpus":1.5}"#
        );
        let read: serde_json::Value = serde_json::from_str(&sample.to_json()).expect("JSON");
        assert_eq!(read["ts"], 1_700_000_000_123_u64);
    }

    #[test]
    fn what_is_no_number_is_written_as_zero() {
        assert!(Sample::new(1, f64::NAN, "percent").to_json().contains("\"value\":0,"));
        assert!(Sample::new(1, f64::INFINITY, "percent").to_json().contains("\"value\":0,"));
    }

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let sample = Sample::new(1, 2.0, "bytes/s")
            .with("max_rx", 3_u64)
            .with("rx_bytes", 4_u64)
            .with("rx", 5.25)
            .with("word", "rx");
        let json = sample.to_json();
        let found = ["rx", "max_rx", "word", "tx"].map(|name| number(json.as_bytes(), name));
        assert_eq!(found, [Some(5.25), Some(3.0), None, None]);
    }

    #[test]
    fn words_lists_and_labels_are_escaped() {
        let sample = Sample::new(1, true, "state")
            .with("state", "a \"word\"\n")
            .with("aklight.\t\"x\"".to_owned(), "y")
            .with("last_cpu", Value::List(vec![1.5.into(), 2_u64.into()]))
            .with("ended", false);
        let json = sample.to_json();
        assert!(!json.contains(['\t', '\n']), "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let expect = serde_json::json!({"ts":1,"value":1,"unit":"state","state":"a \"word\"\n",
            "aklight.\t\"x\"":"y","last_cpu":[1.5,2],"ended":0});
        assert_eq!(read, expect);
    }

    #[test]
    fn the_head_of_a_sample_is_what_was_put_in() {
        let json = Sample::new(17, 2.5, "bytes/s").with("value", 9_u64).to_json();
        let expect = Head { ts_ms: 17, value: 2.5, unit: "bytes/s" };
        assert_eq!(head(json.as_bytes()), Some(expect));
        assert_eq!(head(b"{\"ts\":x}"), None);
    }

    #[test]
    fn a_late_sample_says_so_and_is_otherwise_the_same() {
        let mut payload = Sample::new(7, 1_u64, "bytes/s").to_json().into_bytes();
        mark_late(&mut payload);
        let read: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(read, serde_json::json!({"ts":7,"value":1,"unit":"bytes/s","late":true}));
    }
}
