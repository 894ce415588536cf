//! Ten subscribers, of whom one stops reading: what the others notice, and what becomes of it.
//!
//! First all ten read, then the tenth reads nothing for a while, then nothing more is sent and it
//! reads on. The nine are measured in both phases, at the pace of the slowest of them, and how long
//! a record takes is counted from when it was handed to the socket: with a window that is always
//! full that is a figure for before and after, not for a system at rest (`live` is).
//!
//! A server that keeps records in memory grows by them too, whoever reads.

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::crowd::Crowd;
use super::{Measure, Stage, Unit, float, measure};
use crate::clock::{SECOND_NS, now_ns, seconds_since};
use crate::drive::histogram;
use crate::wire::wait_ns;

/// Those who read all the time, and one more.
const FAST: usize = 9;

/// A subscriber that is brought nothing for so long is brought no more: longer than any server here
/// needs to read again what it stored.
const SILENCE_SECONDS: f64 = 5.0;

/// What one does to nine.
///
/// # Errors
/// When the system fails those who read.
pub fn one_stops(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let fleet = stage.start(1)?;
    let mut crowd = Crowd::gather(stage, &fleet, FAST + 1)?;
    let seconds = stage.sizes.slow_seconds;
    let before = phase(&mut crowd, FAST + 1, seconds / 2.0)?;
    let memory = fleet.memory();
    let during = phase(&mut crowd, FAST, seconds)?;
    let added = fleet.memory().peak.saturating_sub(memory.peak);
    let sum = crowd.sent * crowd.sent.saturating_sub(1) / 2;
    let mut fast = crowd.receivers[..FAST].iter();
    ensure!(fast.all(|r| r.sum == sum && r.records == crowd.sent), "the nine were not sent all");
    let mut measures = vec![
        measure("deliveries", during.deliveries_a_second, Unit::PerSecond),
        measure("deliveries before", before.deliveries_a_second, Unit::PerSecond),
        measure("p99", during.p99_us(), Unit::Micros),
        measure("p99 before", before.p99_us(), Unit::Micros),
        measure("memory added", float(added) / 1e6, Unit::Megabytes),
    ];
    measures.extend(fate(&mut crowd)?);
    Ok(measures)
}

/// How those who read fared.
struct Phase {
    deliveries_a_second: f64,
    took: Histogram<u64>,
}

impl Phase {
    fn p99_us(&self) -> f64 {
        float(self.took.value_at_quantile(0.99)) / 1e3
    }
}

fn phase(crowd: &mut Crowd, readers: usize, seconds: f64) -> anyhow::Result<Phase> {
    let (begin_ns, first) = (now_ns(), crowd.sent);
    let mut took = histogram()?;
    loop {
        let is_over = seconds_since(begin_ns) > seconds;
        if is_over && crowd.had_by(readers) == crowd.sent {
            break;
        }
        crowd.step(readers, !is_over, &mut |ns| took.saturating_record(ns))?;
    }
    let deliveries = (crowd.sent - first) * FAST as u64;
    Ok(Phase { deliveries_a_second: float(deliveries) / seconds_since(begin_ns), took })
}

/// What becomes of the one that reads on: it is brought the rest, or cut off, or left waiting.
fn fate(crowd: &mut Crowd) -> anyhow::Result<Vec<Measure>> {
    let sent = crowd.sent;
    let slow = &mut crowd.receivers[FAST];
    let (begin_ns, mut heard_ns, mut is_cut_off) = (now_ns(), now_ns(), false);
    while slow.records < sent && seconds_since(heard_ns) < SILENCE_SECONDS {
        match slow.receive(&mut |_, _| {}) {
            Ok(true) => heard_ns = now_ns(),
            Ok(false) => wait_ns(&mut [slow.poll_fd()], SECOND_NS)?,
            // However a server says it: closed, reset, or a word of farewell.
            Err(_) => {
                is_cut_off = true;
                break;
            }
        }
    }
    let missed = sent - slow.records;
    let mut measures = vec![
        measure("slow one missed", float(missed), Unit::Lost),
        measure("slow one cut off", float(u64::from(is_cut_off)), Unit::Times),
    ];
    if missed == 0 {
        let is_whole = slow.sum == sent * sent.saturating_sub(1) / 2;
        ensure!(is_whole, "the slow one was not brought each once");
        measures.push(measure("slow one back after", seconds_since(begin_ns) * 1e3, Unit::Millis));
    }
    Ok(measures)
}
