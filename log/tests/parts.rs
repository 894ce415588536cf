//! Parts of large batches, read without the rest.

mod support;

use std::path::PathBuf;

use aklight_common::record::{BodyBuilder, Record};
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Batch, BatchKind, HEADER_BYTES, Log, LogOptions, MemoryDisk, NewBatch, StoredPart,
};
use support::*;

const TOPICS: u64 = 300;

/// A batch of records over many topics in turns, so long that it has parts.
fn large(index: u64, records: u32) -> NewBatch {
    let mut builder = BodyBuilder::new();
    for n in 0..u64::from(records) {
        // Every tenth on a topic that all parts name.
        let topic = format!("t/{}", if n % 10 == 0 { 0 } else { n % TOPICS });
        let payload = vec![b'a' + (n % 26) as u8; 60 + (n % 7) as usize];
        let record = Record {
            time_us: index * 1_000_000 + n,
            topic: &topic,
            key: b"k",
            payload: &payload,
            once: None,
        };
        builder.push(&record);
    }
    let body = builder.finish();
    NewBatch {
        index: RaftIndex(index),
        term: Term(1),
        kind: BatchKind::Records,
        records,
        first_time_us: body.first_time_us,
        last_time_us: body.last_time_us,
        body: body.bytes,
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 300_000, ..small() }
}

/// Large batches, and small ones before, between and behind them.
fn filled(options: &LogOptions) -> (MemoryDisk, Log) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, options.clone());
    for index in 0..9 {
        let batch = match index {
            1 | 2 | 5 | 7 => large(index, 1200),
            _ => records(index, 1, 3, 50),
        };
        append(&log, vec![batch]).expect("appended");
    }
    (disk, log)
}

type Line = (Offset, String, Vec<u8>);

fn of_part(part: &StoredPart) -> Vec<Line> {
    let mut records = part.stored_records();
    let read = std::iter::from_fn(|| records.next(Some));
    let lines = read.zip(part.base_offset.0..).map(|(record, offset)| {
        let record = record.expect("it decodes");
        let topic = String::from_utf8(record.topic.to_vec()).expect("a topic");
        (Offset(offset), topic, record.payload.to_vec())
    });
    lines.collect()
}

fn of_batch(batch: &Batch) -> Vec<Line> {
    let records = batch.records().zip(batch.header.base_offset.0..);
    let lines = records.map(|(record, offset)| {
        let record = record.expect("it decodes");
        (Offset(offset), record.topic.to_owned(), record.payload.to_vec())
    });
    lines.collect()
}

/// Reads every offset by its part; says how many parts there are, and how long the longest is.
fn check(log: &Log) -> (usize, usize) {
    let bounds = log.bounds();
    let batches =
        log.read_offsets(bounds.start_offset, bounds.end_offset, usize::MAX).expect("read");
    let (mut parts, mut longest) = (0, 0);
    for batch in &batches {
        let lines = of_batch(batch);
        let (mut at, end) = (batch.header.base_offset, batch.header.end_offset());
        while at < end {
            let Some(part) = log.read_part(at, end) else {
                assert!(lines.len() < 100, "a large batch has parts, at {at} too");
                break;
            };
            let lines: Vec<_> = lines
                .iter()
                .filter(|(offset, ..)| (part.base_offset..part.end_offset).contains(offset))
                .cloned()
                .collect();
            assert_eq!(part.base_offset, at);
            assert_eq!(of_part(&part), lines);
            let last = Offset(part.end_offset.0 - 1);
            let again = log.read_part(last, end).expect("whichever of its offsets is asked for");
            assert_eq!((again.base_offset, again.bytes), (at, part.bytes.clone()));
            assert!(log.read_part(at, last).is_none(), "it would go past where it may");
            (parts, longest) = (parts + 1, longest.max(part.bytes.len()));
            at = part.end_offset;
        }
    }
    assert!(log.read_part(bounds.end_offset, Offset(u64::MAX)).is_none());
    (parts, longest)
}

#[test]
fn a_part_is_what_its_batch_has_there() {
    let (disk, log) = filled(&options());
    let (parts, longest) = check(&log);
    assert!((20..40).contains(&parts) && longest < 17 << 10, "{parts} {longest}");
    log.close();
    // By what stands beside the segments, and by what is built anew.
    let (log, _) = open(&disk, options());
    assert_eq!(check(&log), (parts, longest));
    log.close();
    for (path, _) in disk.files() {
        if path.extension().is_some_and(|extension| extension == "index") {
            disk.shared().remove(&path).expect("removed");
        }
    }
    let (log, report) = open(&disk, options());
    assert!(!report.indexes_rebuilt.is_empty());
    assert_eq!(check(&log), (parts, longest));
    assert!(compress(&log).expect("compressed") > 0);
    assert_eq!(check(&log), (parts, longest));
    truncate(&log, Some(5)).expect("truncated");
    let (fewer, _) = check(&log);
    assert!((1..parts).contains(&fewer));
    append(&log, vec![large(6, 1200)]).expect("appended");
    assert_eq!(check(&log).0, parts);
    purge(&log, 2).expect("purged");
    assert!(log.read_part(Offset(5), Offset(u64::MAX)).is_none(), "what is purged is gone");
    let (kept, _) = check(&log);
    assert!((1..parts).contains(&kept));
}

#[test]
fn what_is_in_memory_is_not_read_in_parts() {
    let in_memory = LogOptions { tail_cache_bytes: 1 << 20, ..options() };
    let (_disk, log) = filled(&in_memory);
    assert!(log.read_part(Offset(5), Offset(u64::MAX)).is_none());
}

#[test]
fn a_topic_is_looked_for_by_parts() {
    let (_disk, log) = filled(&options());
    let end = log.bounds().end_offset;
    let wanted = |topic: &str| topic == "t/123";
    let mut search = log.topic_search(&wanted).only("t/123");
    let (mut found, mut read, mut next) = (Vec::new(), 0, search.next(Offset(0), end));
    while next < end {
        let part = log.read_part(next, end).expect("it is in a large batch");
        read += 1;
        found.extend(of_part(&part).into_iter().filter(|(_, topic, _)| wanted(topic)));
        next = search.next(part.end_offset, end);
    }
    let batches = log.read_offsets(Offset(0), end, usize::MAX).expect("read");
    let all: Vec<_> =
        batches.iter().flat_map(of_batch).filter(|(_, topic, _)| wanted(topic)).collect();
    assert_eq!((found.len(), &found), (16, &all));
    let (parts, _) = check(&log);
    assert!(read < parts, "{read} of {parts}: not every part has it");
}

#[test]
fn where_every_topic_is_wanted_nothing_is_skipped() {
    let (_disk, log) = filled(&options());
    let end = log.bounds().end_offset;
    let all = |_: &str| true;
    for at in (0..end.0).map(Offset) {
        assert_eq!(log.next_with_topics(at, end, &all), at);
    }
}

#[test]
fn a_part_that_is_damaged_is_no_answer_and_its_batch_tells() {
    let (disk, log) = filled(&options());
    log.close();
    let path = PathBuf::from(format!("{DIR}/00000000000000000000.log"));
    // Behind a small batch, the first large one: its third part.
    let first = records(0, 1, 3, 50).body.len() + HEADER_BYTES;
    disk.flip_bit(&path, (first + HEADER_BYTES + 40_000) * 8);
    let (log, _) = open(&disk, options());
    let end = log.bounds().end_offset;
    let (mut good, mut bad, mut at) = (0, 0, 3);
    while at < 1203 {
        match log.read_part(Offset(at), end) {
            Some(part) => {
                good += 1;
                at = part.end_offset.0;
            }
            None => {
                bad += 1;
                at += 1;
            }
        }
    }
    assert!(good >= 5 && (50..300).contains(&bad), "{good} {bad}");
    // Once the damage is known nothing of the batch is read.
    assert!(log.read_offsets(Offset(3), end, 1).is_err());
    assert!((3..1203).all(|at| log.read_part(Offset(at), end).is_none()));
    assert!(log.read_part(Offset(1203), end).is_some());
}
