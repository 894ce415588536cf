//! The load: what a host's containers send, a thousand topics in turns, a hundred bytes each; and the
//! log that it goes to.

use std::fmt::Write as _;

use aklight_common::record::{BodyBuilder, Record};
use aklight_common::{RaftIndex, Term};
use aklight_log::{BatchKind, Fsync, LogOptions, NewBatch};
use bytes::Bytes;

use crate::standstill::BEGIN_S;

/// Topics, taken in turns.
pub const TOPICS: u64 = 1000;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 100;

/// What is measured of a container.
const KINDS: [&str; 4] = ["cpu", "mem", "net", "disk"];

/// A pattern that matches a quarter of the records. One that matches few makes an index look through
/// its topics until it finds one, in the order of a table of hashes, which is another in each build.
pub const QUARTER: &str = "metrics/docker/+/cpu";

/// Records of a batch: what a tenth of a read of a busy socket brings for one partition.
pub const BATCH_RECORDS: u64 = 100;

/// A log as it is by default, but that no space is taken in advance: a disk in memory fills it with
/// zeros, at a cost that no other has.
#[must_use]
pub fn log_options() -> LogOptions {
    LogOptions { preallocate_bytes: 0, ..LogOptions::default() }
}

/// The same, but nothing is synced: a disk in memory would copy it.
#[must_use]
pub fn unsynced() -> LogOptions {
    LogOptions { fsync: Fsync::Never, ..log_options() }
}

/// The topic of a record.
#[must_use]
pub fn topic(n: u64) -> String {
    let topic = n % TOPICS;
    format!("metrics/docker/web{}/{}", topic / 4, KINDS[topic as usize % 4])
}

/// The key of a record: every other one has none, and goes in turns.
#[must_use]
pub fn key(n: u64) -> String {
    if n.is_multiple_of(2) { String::new() } else { format!("web{}", n % TOPICS / 4) }
}

/// The payload of a record.
#[must_use]
pub fn payload(n: u64) -> String {
    let mut text = format!("{n:016x}");
    while text.len() < PAYLOAD_BYTES {
        // Writing to a String cannot fail.
        let _ = write!(text, " usage={}", n.wrapping_mul(7919) % 100_000);
    }
    text.truncate(PAYLOAD_BYTES);
    text
}

/// So many records as PRODUCE lines.
#[must_use]
pub fn lines(records: u64) -> Bytes {
    let lines = (0..records).map(|n| format!("PRODUCE|{}|{}|{}\n", topic(n), key(n), payload(n)));
    Bytes::from(lines.collect::<String>())
}

/// A record on each topic, as batches that follow each other from entry 0 on.
#[must_use]
pub fn batches() -> Vec<NewBatch> {
    (0..TOPICS / BATCH_RECORDS).map(batch).collect()
}

fn batch(index: u64) -> NewBatch {
    let mut builder = BodyBuilder::new();
    for n in index * BATCH_RECORDS..(index + 1) * BATCH_RECORDS {
        let (topic, key, payload) = (topic(n), key(n), payload(n));
        let time_us = u64::from(BEGIN_S) * 1_000_000 + n;
        let (topic, key, payload) = (topic.as_str(), key.as_bytes(), payload.as_bytes());
        builder.push(&Record { time_us, topic, key, payload, once: None });
    }
    let body = builder.finish();
    NewBatch {
        index: RaftIndex(index),
        term: Term(1),
        kind: BatchKind::Records,
        records: body.records,
        first_time_us: body.first_time_us,
        last_time_us: body.last_time_us,
        body: body.bytes,
    }
}
