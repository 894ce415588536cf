//! As many records as it takes, pipelined: the window full, the answers counted.

use super::{Measure, Stage, Unit, costs, float, measure};
use crate::drive::pipelined;

/// Records that a new server is sent before anything is measured: connections, streams and
/// topics are made by then.
const WARM_UP: u64 = 10_000;

/// Records a second into one new server.
///
/// # Errors
/// When the system fails.
pub fn alone(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    into(stage, 1)
}

/// Records a second into a new cluster of three, every one acknowledged by a majority.
///
/// # Errors
/// When the system fails.
pub fn cluster(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    into(stage, 3)
}

fn into(stage: &Stage<'_>, servers: usize) -> anyhow::Result<Vec<Measure>> {
    let sizes = stage.sizes;
    let fleet = stage.start(servers)?;
    let mut senders = [stage.sender(&fleet)?];
    pipelined(&mut senders, WARM_UP, sizes.window, sizes.seconds_max)?;
    let before = fleet.cpu();
    let sent = pipelined(&mut senders, sizes.ingest_records, sizes.window, sizes.seconds_max)?;
    let mut measures =
        vec![measure("records", float(sent.records) / sent.seconds, Unit::PerSecond)];
    measures.extend(costs(&fleet, &before, &sent));
    Ok(measures)
}
