//! How the cost of a record grows with its size, with connections, and with topics. Nothing should
//! grow faster than its own work.

use std::sync::Arc;

use super::{Measure, SERVER_CPU, Stage, Unit, costs, float, measure};
use crate::drive::{Sender, pipelined};
use crate::load::Load;
use crate::peers::Share;

/// Bytes of payloads on the way at most, whatever their size: a quarter of what a broker allows.
const WINDOW_BYTES: u64 = 64 << 20;

/// Bytes that a point of a line sends at most.
const POINT_BYTES: u64 = 4 << 30;

/// A point of a line: its place, the name of its rate, and that of the server's processor time.
struct Point(usize, &'static str, &'static str);

const SIZES: [Point; 7] = [
    Point(16, "16 B", "16 B, CPU"),
    Point(64, "64 B", "64 B, CPU"),
    Point(256, "256 B", "256 B, CPU"),
    Point(1 << 10, "1 KiB", "1 KiB, CPU"),
    Point(4 << 10, "4 KiB", "4 KiB, CPU"),
    Point(16 << 10, "16 KiB", "16 KiB, CPU"),
    Point(64 << 10, "64 KiB", "64 KiB, CPU"),
];

const CONNECTIONS: [Point; 4] = [
    Point(1, "1", "1, CPU"),
    Point(10, "10", "10, CPU"),
    Point(100, "100", "100, CPU"),
    Point(1_000, "1,000", "1,000, CPU"),
];

const TOPICS: [Point; 7] = [
    Point(1, "1", "1, CPU"),
    Point(10, "10", "10, CPU"),
    Point(100, "100", "100, CPU"),
    Point(1_000, "1,000", "1,000, CPU"),
    Point(10_000, "10,000", "10,000, CPU"),
    Point(100_000, "100,000", "100,000, CPU"),
    Point(1_000_000, "1,000,000", "1,000,000, CPU"),
];

/// Records of 16 bytes to 64 KiB.
///
/// # Errors
/// When the system fails.
pub fn sizes(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    line(stage, &SIZES, |bytes| (stage.sizes.topics, bytes, 1))
}

/// 1 to 1,000 connections.
///
/// # Errors
/// When the system fails.
pub fn connections(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let sizes = stage.sizes;
    line(stage, &CONNECTIONS, |count| (sizes.topics, sizes.payload_bytes, count))
}

/// 1 to 1,000,000 topics.
///
/// # Errors
/// When the system fails.
pub fn topics(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    line(stage, &TOPICS, |count| (count, stage.sizes.payload_bytes, 1))
}

fn line(
    stage: &Stage<'_>,
    points: &[Point],
    with: impl Fn(usize) -> (usize, usize, usize),
) -> anyhow::Result<Vec<Measure>> {
    let mut measures = Vec::with_capacity(2 * points.len());
    for Point(at, rate, cpu) in points {
        let (topics, payload_bytes, connections) = with(*at);
        let load = Arc::new(Load::new(topics, payload_bytes)?);
        let fleet = stage.start(1)?;
        let step = connections as u64;
        let senders = (0..step).map(|first| {
            let publisher = stage.way.publisher(&load, Share { first, step });
            Sender::connect(fleet.address(0), publisher)
        });
        let mut senders = senders.collect::<anyhow::Result<Vec<_>>>()?;
        let bytes = payload_bytes as u64;
        let window = stage.sizes.window.min(WINDOW_BYTES / bytes / step).max(1);
        let records = stage.sizes.ingest_records.min(POINT_BYTES / bytes);
        let before = fleet.cpu();
        let sent = pipelined(&mut senders, records, window, stage.sizes.seconds_max)?;
        measures.push(measure(rate, float(sent.records) / sent.seconds, Unit::PerSecond));
        let server = costs(&fleet, &before, &sent).into_iter().find(|m| m.name == SERVER_CPU);
        measures.extend(server.map(|m| measure(cpu, m.value, m.unit)));
    }
    Ok(measures)
}
