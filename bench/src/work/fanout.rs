//! One producer, many subscribers that each want all: deliveries a second.

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
    crowd.run(sizes.ingest_records, sizes.seconds_max)?;
    let (seconds, sent) = (seconds_since(begin_ns), crowd.sent);
    let deliveries = sent * subscribers as u64;
    let client_cpu_seconds = own_cpu_seconds() - own_cpu;
    let done = Sent { records: deliveries, seconds, client_cpu_seconds };
    let mut measures = vec![measure("deliveries", float(deliveries) / seconds, Unit::PerSecond)];
    measures.extend(costs(&fleet, &cpu, &done));
    Ok(measures)
}
