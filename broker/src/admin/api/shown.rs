//! A record as JSON: `{"topic": "…", "time": 1700000000000, "payload": …}`.
//!
//! `time` is when a broker took it in, in Unix milliseconds. A payload that is JSON stands there as
//! such; any other as a text. Nothing shown holds a line break or another control character, so that
//! it fits into a line of a stream.

use aklight_common::record::Record;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::ANSWER_BYTES_MAX;

/// Records as they are gathered for an answer, each behind a comma but the first.
#[derive(Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    pub(super) left_out: usize,
}

impl Listing {
    /// Adds a record.
    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.add(|bytes| put_record(bytes, record));
    }

    /// Adds the JSON of a record.
    pub(super) fn push_shown(&mut self, shown: &[u8]) {
        self.add(|bytes| bytes.extend_from_slice(shown));
    }

    fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        if self.is_full() {
            return self.leave_out(1);
        }
        if !self.bytes.is_empty() {
            self.bytes.push(b',');
        }
        put(&mut self.bytes);
    }

    /// Counts records that there is no room for.
    pub(super) fn leave_out(&mut self, records: usize) {
        self.left_out += records;
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= ANSWER_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As a list of JSON.
    pub(super) fn into_list(self) -> Vec<u8> {
        [b"[".as_slice(), &self.bytes, b"]"].concat()
    }

    /// As a whole answer; `now` is this broker's time in milliseconds, `left_out` counts what the
    /// answer has no room for.
    pub(super) fn into_answer(self, now_ms: u64) -> Vec<u8> {
        let head = format!("{{\"now\":{now_ms},\"left_out\":{},\"records\":", self.left_out);
        [head.as_bytes(), &self.into_list(), b"}"].concat()
    }
}

/// A record's JSON.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    put_json(out, &Value::from(record.topic));
    out.extend_from_slice(format!(",\"time\":{},\"payload\":", record.time_us / 1000).as_bytes());
    put_payload(out, record.payload);
    out.push(b'}');
}

fn put_payload(out: &mut Vec<u8>, payload: &[u8]) {
    let Ok(text) = std::str::from_utf8(payload) else {
        return put_json(out, &Value::from(String::from_utf8_lossy(payload)));
    };
    let is_one_line = !payload.iter().any(|byte| *byte < 0x20);
    if is_one_line && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return out.extend_from_slice(payload);
    }
    put_json(out, &serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)));
}

fn put_json(out: &mut Vec<u8>, value: &Value) {
    // A value with texts for keys, written into memory: neither fails.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(payload: &[u8]) -> String {
        let record = Record { time_us: 7_000, topic: "a/\"b", key: b"", payload, once: None };
        let mut out = Vec::new();
        put_record(&mut out, &record);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn any_payload_is_shown_in_one_line_of_json() {
        let begin = r#"{"topic":"a/\"b","time":7,"payload":"#;
        for (payload, expect) in [
            (&br#"{"value":1.50}"#[..], r#"{"value":1.50}"#),
            (b"{\r\n\"value\":1}", r#"{"value":1}"#),
            (b"12.5", "12.5"),
            (b"<b>plain</b>", r#""<b>plain</b>""#),
            (b"{\"broken", r#""{\"broken""#),
            (b"two\nlines", r#""two\nlines""#),
            (b"\xff", "\"\u{fffd}\""),
            (b"\"\xff\"", "\"\\\"\u{fffd}\\\"\""),
            (b"", "\"\""),
        ] {
            assert_eq!(shown(payload), format!("{begin}{expect}}}"));
        }
    }
}
