//! Samples: one measurement each, as the flat JSON object that is sent.
//!
//! A [`Sample`] holds what was measured and when; [`Sample::to_json`] writes it with `ts`, `value`
//! and `unit` first, where a person looks for them. A collector writes exactly one such object,
//! closed by a newline, into its pipe; what arrives there is sent as it is, but for
//! [`mark_late`], which adds `"late":true` to a sample that no broker could take when it was
//! measured.
//!
//! Invariant: the JSON is one line and ends with `}`. What is left out: nesting, text that needs
//! escaping, numbers that are no numbers (NaN is written as 0).

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
        }
    }

    /// The topic of the producer `id` for this metric.
    #[must_use]
    pub fn topic(self, id: &str) -> String {
        format!("metrics/docker/{id}/{}", self.name())
    }
}

/// A number of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Bytes and counts.
    Whole(u64),
    /// Percentages and shares; written with at most two decimals, as `docker stats` shows them.
    Fraction(f64),
}

impl Number {
    fn write(self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = match self {
            Self::Whole(n) => write!(out, "{n}"),
            Self::Fraction(x) => write!(out, "{}", rounded(x)),
        };
    }
}

/// Two decimals: more would pretend to a precision that counters read once a second do not have.
fn rounded(x: f64) -> f64 {
    if x.is_finite() { (x * 100.0).round() / 100.0 } else { 0.0 }
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Self::Fraction(x)
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    ts_ms: u64,
    value: Number,
    unit: &'static str,
    fields: Vec<(&'static str, Number)>,
}

impl Sample {
    /// A sample of `value`, measured at `ts_ms` (Unix time in milliseconds).
    #[must_use]
    pub fn new(ts_ms: u64, value: impl Into<Number>, unit: &'static str) -> Self {
        Self { ts_ms, value: value.into(), unit, fields: Vec::new() }
    }

    /// Adds a further field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Number>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The number that a rule compares.
    #[must_use]
    pub fn value(&self) -> f64 {
        as_f64(self.value)
    }

    /// A further field's number.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<f64> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| as_f64(*value))
    }

    /// The payload: one line of JSON, without a newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(32 * (3 + self.fields.len()));
        let _ = write!(out, "{{\"ts\":{},\"value\":", self.ts_ms);
        self.value.write(&mut out);
        let _ = write!(out, ",\"unit\":\"{}\"", self.unit);
        for (name, value) in &self.fields {
            let _ = write!(out, ",\"{name}\":");
            value.write(&mut out);
        }
        out.push('}');
        out
    }
}

#[expect(clippy::cast_precision_loss, reason = "for comparing only; the JSON is written exactly")]
fn as_f64(number: Number) -> f64 {
    match number {
        Number::Whole(n) => n as f64,
        Number::Fraction(x) => rounded(x),
    }
}

/// Whether a line that came through a pipe is what a collector writes.
#[must_use]
pub fn is_payload(line: &[u8]) -> bool {
    line.starts_with(b"{\"ts\":") && line.ends_with(b"}")
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
    fn a_late_sample_says_so_and_is_otherwise_the_same() {
        let mut payload = Sample::new(7, 1_u64, "bytes/s").to_json().into_bytes();
        mark_late(&mut payload);
        let read: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(read, serde_json::json!({"ts":7,"value":1,"unit":"bytes/s","late":true}));
    }
}
