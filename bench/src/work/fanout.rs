//! One producer, many subscribers that each want all: deliveries a second.

use anyhow::ensure;

use super::crowd::Crowd;
use super::{Measure, Stage, Unit, costs, float, measure};
use crate::clock::{now_ns, seconds_since};
use crate::drive::Sent;
use crate::usage::own_cpu_seconds;

/// To ten subscribers.
///
/// # Errors
/// When the system fails or loses a record.
pub fn ten(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    to(stage, 10)
}

/// To a hundred subscribers.
///
/// # Errors
/// When the system fails or loses a record.
pub fn hundred(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    to(stage, 100)
}

fn to(stage: &Stage<'_>, subscribers: usize) -> anyhow::Result<Vec<Measure>> {
    let sizes = stage.sizes;
    let fleet = stage.start(1)?;
    let mut crowd = Crowd::gather(stage, &fleet, subscribers)?;
    let (cpu, own_cpu, begin_ns) = (fleet.cpu(), own_cpu_seconds(), now_ns());
    loop {
        let is_over =
            seconds_since(begin_ns) > sizes.seconds_max || crowd.sent >= sizes.ingest_records;
        if is_over && crowd.had_by(subscribers) == crowd.sent {
            break;
        }
        crowd.step(subscribers, !is_over, &mut |_| {})?;
    }
    let (seconds, sent) = (seconds_since(begin_ns), crowd.sent);
    let sum = sent * sent.saturating_sub(1) / 2;
    let is_whole = crowd.receivers.iter().all(|r| r.sum == sum && r.records == sent);
    ensure!(is_whole, "not each came once");
    let deliveries = sent * subscribers as u64;
    let client_cpu_seconds = own_cpu_seconds() - own_cpu;
    let done = Sent { records: deliveries, seconds, client_cpu_seconds };
    let mut measures = vec![measure("deliveries", float(deliveries) / seconds, Unit::PerSecond)];
    measures.extend(costs(&fleet, &cpu, &done));
    Ok(measures)
}
