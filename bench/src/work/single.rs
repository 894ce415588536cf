//! One record in flight: what a careful producer waits for each.
//!
//! The bench sleeps until the answer comes, as such a producer does; most of what is measured in
//! the page cache's row is two processors waking up (`design/limits.md`, section 1).

use super::{Measure, Stage, costs, percentiles};
use crate::drive::one_in_flight;

/// How long records go before anything is measured.
const WARM_UP_SECONDS: f64 = 0.1;

/// How long each record takes with one server.
///
/// # Errors
/// When the system fails.
pub fn alone(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    with(stage, 1)
}

/// How long each record takes with a cluster of three.
///
/// # Errors
/// When the system fails.
pub fn cluster(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    with(stage, 3)
}

fn with(stage: &Stage<'_>, servers: usize) -> anyhow::Result<Vec<Measure>> {
    let fleet = stage.start(servers)?;
    let mut sender = stage.sender(&fleet)?;
    one_in_flight(&mut sender, WARM_UP_SECONDS)?;
    let before = fleet.cpu();
    let (sent, took) = one_in_flight(&mut sender, stage.sizes.single_seconds)?;
    let mut measures = percentiles(&took).to_vec();
    measures.extend(costs(&fleet, &before, &sent));
    Ok(measures)
}
