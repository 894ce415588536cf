//! Records before they have a number: where they belong and what they say.
//!
//! The collector of containers writes them into its pipe a line each, `topic TAB payload`: neither
//! holds a tab or a newline, because a topic holds no control character and JSON escapes them. A
//! line without a topic is its [`Tally`], what it counted of itself.

use serde::{Deserialize, Serialize};

use crate::sample::is_payload;

/// A record on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it belongs.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// What the collector of containers counts of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Containers that it watches.
    pub containers: u64,
    /// Samples that the pipe had no room for, since the collector was started.
    pub dropped: u64,
}

/// A line of the collector of containers.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A record for the brokers.
    Record(Record),
    /// For the producer's own cost.
    Tally(Tally),
}

impl Record {
    /// What the record is partitioned by: its source, so that one source keeps its order. That is
    /// what stands between `docker` and, of a metric, the metric's name.
    #[must_use]
    pub fn key(&self) -> &str {
        let (kind, source) = self.topic.split_once("/docker/").unwrap_or(("", &self.topic));
        match source.rsplit_once('/') {
            Some((source, _)) if kind.ends_with("metrics") => source,
            _ => source,
        }
    }
}

/// Adds a record's line to `out`.
pub fn write_line(out: &mut Vec<u8>, topic: &str, payload: &str) {
    out.extend_from_slice(topic.as_bytes());
    out.push(b'\t');
    out.extend_from_slice(payload.as_bytes());
    out.push(b'\n');
}

/// The line of a tally.
#[must_use]
pub fn tally_line(tally: Tally) -> Vec<u8> {
    let mut line = Vec::new();
    write_line(&mut line, "", &serde_json::json!(tally).to_string());
    line
}

/// Reads a line (without its newline); `None` when it is none that a collector writes.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<Said> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let (topic, payload) = (std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..]);
    if topic.is_empty() {
        return serde_json::from_slice(payload).ok().map(Said::Tally);
    }
    is_payload(payload)
        .then(|| Said::Record(Record { topic: topic.to_owned(), payload: payload.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_source() {
        let key =
            |topic: &str| Record { topic: topic.to_owned(), payload: Vec::new() }.key().to_owned();
        assert_eq!(key("metrics/docker/p/cpu"), "p");
        assert_eq!(key("metrics/docker/p/web/cpu"), "p/web");
        assert_eq!(key("rollup/1m/metrics/docker/p/web/cpu"), "p/web");
        assert_eq!(key("info/docker/p/web"), "p/web");
        assert_eq!(key("events/docker/p/web"), "p/web");
    }

    #[test]
    fn a_line_says_what_was_written_into_it() {
        let mut line = Vec::new();
        write_line(&mut line, "info/docker/p/c", "{\"ts\":1}");
        assert_eq!(line.pop(), Some(b'\n'));
        let record =
            Record { topic: "info/docker/p/c".to_owned(), payload: b"{\"ts\":1}".to_vec() };
        assert_eq!(parse_line(&line), Some(Said::Record(record)));
        let tally = Tally { containers: 3, dropped: 7 };
        let mut line = tally_line(tally);
        assert_eq!(line.pop(), Some(b'\n'));
        assert_eq!(parse_line(&line), Some(Said::Tally(tally)));
    }

    #[test]
    fn anything_else_is_no_line() {
        for line in
            [&b""[..], b"x", b"{\"ts\":1}", b"topic\tnonsense", b"\t{}x", b"\xff\t{\"ts\":1}"]
        {
            assert_eq!(parse_line(line), None, "{}", line.escape_ascii());
        }
    }
}
