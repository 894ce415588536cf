//! A payload as a sample: one flat JSON object with a number called `value`.

use serde_json::{Map, Value};

use crate::rules::VALUE;

/// A measured sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it was measured; `None` where the payload does not say.
    pub at_ms: Option<u64>,
    /// The number that a rule compares.
    pub value: f64,
    /// What the number counts; may be empty.
    pub unit: String,
    fields: Map<String, Value>,
}

/// Why a payload is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Not a JSON object.
    #[error("the payload is no JSON object ({0})")]
    NotJson(String),
    /// No number to compare.
    #[error("the payload has no number called \"value\"")]
    NoValue,
}

impl Sample {
    /// Reads a payload.
    ///
    /// # Errors
    /// What makes it no sample.
    pub fn parse(payload: &[u8]) -> Result<Self, SampleError> {
        let fields: Map<String, Value> = serde_json::from_slice(payload)
            .map_err(|error| SampleError::NotJson(error.to_string()))?;
        let value = fields.get(VALUE).and_then(Value::as_f64).ok_or(SampleError::NoValue)?;
        let at_ms = fields.get("ts").and_then(Value::as_u64);
        let unit = fields.get("unit").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { at_ms, value, unit, fields })
    }

    /// A number of the payload, where it has one of that name.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        self.fields.get(field).and_then(Value::as_f64)
    }

    /// A text of the payload, or a boolean as `true` and `false`, where it has one of that name.
    #[must_use]
    pub fn word(&self, field: &str) -> Option<&str> {
        match self.fields.get(field)? {
            Value::String(text) => Some(text),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            _ => None,
        }
    }

    /// A yes or no of the payload: a boolean, or 1 and 0.
    #[must_use]
    pub fn flag(&self, field: &str) -> Option<bool> {
        let value = self.fields.get(field)?;
        value.as_bool().or(match value.as_f64() {
            Some(1.0) => Some(true),
            Some(0.0) => Some(false),
            _ => None,
        })
    }

    /// The numbers of a list of the payload; none where it has no list of that name.
    pub fn numbers(&self, field: &str) -> impl Iterator<Item = f64> {
        let list = self.fields.get(field).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_f64)
    }

    /// Every field whose value is a text, with its name.
    pub fn words(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_value_and_perhaps_a_time_and_a_unit() {
        let sample =
            Sample::parse(br#"{"ts":5,"value":12,"unit":"%","fs_used_percent":3.5,"late":true}"#)
                .expect("a sample");
        assert_eq!((sample.at_ms, sample.value, sample.unit.as_str()), (Some(5), 12.0, "%"));
        assert_eq!(sample.number("fs_used_percent"), Some(3.5));
        assert_eq!(sample.number("late"), None);
        assert_eq!((sample.word("late"), sample.word("unit")), (Some("true"), Some("%")));
        assert_eq!((sample.flag("late"), sample.flag("value")), (Some(true), None));
        assert_eq!((sample.word("value"), sample.word("none")), (None, None));
        assert_eq!(Sample::parse(br#"{"value":1}"#).expect("a sample").at_ms, None);
    }

    #[test]
    fn what_is_no_sample_says_why() {
        for broken in [&b"12"[..], b"", b"{", b"[1]", b"\xff", b"null"] {
            assert!(matches!(Sample::parse(broken), Err(SampleError::NotJson(_))));
        }
        for broken in [&b"{}"[..], br#"{"value":"1"}"#, br#"{"value":null}"#] {
            assert_eq!(Sample::parse(broken), Err(SampleError::NoValue));
        }
    }
}
