//! Whatever bytes arrive, the decoders neither panic nor believe what has no canonical form.
//!
//! `cargo test` runs the committed corpus (`tests/__fuzz__/…/corpus`) and a few seconds of random
//! bytes on stable; `cargo bolero test commands` fuzzes with coverage.

use std::time::Duration;

use aklight_common::record::{BodyBuilder, Records};
use aklight_common::topic::check_topic;
use aklight_common::wire::{Command, Line, LineCutter, Reply};

/// How long each target runs as a plain test: enough for some hundred thousand inputs, short
/// enough to run with every change.
const TEST_TIME: Duration = Duration::from_secs(5);

/// Some lines of the corpus are longer than this limit, so that both ways are walked.
const LINE_BYTES_MAX: usize = 64;

/// The stream cut in two at its first byte's place, and all of a part's lines taken at once, gives
/// the lines that it gives whole, one by one.
fn lines(stream: &[u8]) -> Vec<Line> {
    let cut = stream.first().map_or(0, |at| usize::from(*at)).min(stream.len());
    let (before, after) = stream.split_at(cut);
    let mut cutter = LineCutter::new(LINE_BYTES_MAX);
    let mut in_parts = Vec::new();
    for part in [before, after] {
        cutter.buffer().extend_from_slice(part);
        in_parts.extend(cutter.lines().iter().map(|line| match line {
            Line::Whole(line) => Line::Whole(line.to_vec().into()),
            Line::TooLong => Line::TooLong,
        }));
    }
    let mut cutter = LineCutter::new(LINE_BYTES_MAX);
    cutter.buffer().extend_from_slice(stream);
    let whole: Vec<Line> = std::iter::from_fn(|| cutter.next_line()).collect();
    assert_eq!(in_parts, whole, "cut at {cut}");
    whole
}

/// Each line of a stream, and the stream itself as one.
fn each_line(stream: &[u8], mut check: impl FnMut(&[u8])) {
    for line in lines(stream) {
        if let Line::Whole(line) = line {
            check(&line);
        }
    }
    check(stream.split(|b| *b == b'\n').next().unwrap_or_default());
}

#[test]
fn commands() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|stream: &[u8]| {
        each_line(stream, |line| {
            let Ok(command) = Command::decode(line) else { return };
            let mut canonical = Vec::new();
            command.encode(&mut canonical);
            assert_eq!(canonical.pop(), Some(b'\n'));
            assert_eq!(Command::decode(&canonical), Ok(command));
        });
    });
}

#[test]
fn replies() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|stream: &[u8]| {
        each_line(stream, |line| {
            let Ok(reply) = Reply::decode(line) else { return };
            let mut canonical = Vec::new();
            reply.encode(&mut canonical);
            assert_eq!(canonical.pop(), Some(b'\n'));
            assert_eq!(Reply::decode(&canonical), Ok(reply));
        });
    });
}

#[test]
fn bodies() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|bytes: &[u8]| {
        let read: Vec<_> = Records::new(bytes, 1_000).collect();
        assert!(read.iter().rev().skip(1).all(Result::is_ok), "an error is the last");
        let Ok(records) = read.into_iter().collect::<Result<Vec<_>, _>>() else { return };
        // Times that go back are read but never written.
        if !records.is_sorted_by_key(|record| record.time_us) {
            return;
        }
        // So are names that no broker takes in as topics.
        if records.iter().any(|record| check_topic(record.topic.as_bytes()).is_err()) {
            return;
        }
        let mut builder = BodyBuilder::new();
        records.iter().for_each(|record| builder.push(record));
        let body = builder.finish();
        let again: Result<Vec<_>, _> = body.records().collect();
        assert_eq!(again, Ok(records));
    });
}
