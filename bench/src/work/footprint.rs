//! What a server takes when nothing happens, after a load, and to come back after `kill -9`.

use anyhow::Context;

use super::{Measure, PEAK_MEMORY, Stage, Unit, float, measure};
use crate::clock::{now_ns, seconds_since};
use crate::drive::pipelined;
use crate::peers::Wanted;
use crate::receive::Receiver;

/// Start, memory, disk, and the way back.
///
/// # Errors
/// When the system fails.
pub fn server(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let mut fleet = stage.start(1)?;
    let idle = fleet.memory();
    let mut sender = [stage.sender(&fleet)?];
    let empty_bytes = fleet.disk_bytes();
    let records = stage.sizes.stored_records;
    pipelined(&mut sender, records, stage.sizes.window, f64::INFINITY)?;
    drop(sender);
    let loaded = fleet.memory();
    let mut measures = vec![
        measure("start", fleet.started_seconds * 1e3, Unit::Millis),
        measure("memory idle", float(idle.now) / 1e6, Unit::Megabytes),
        measure("memory after", float(loaded.now) / 1e6, Unit::Megabytes),
        measure(PEAK_MEMORY, float(loaded.peak) / 1e6, Unit::Megabytes),
    ];
    if stage.way.is_stored() {
        let bytes = fleet.disk_bytes().saturating_sub(empty_bytes);
        measures.push(measure("disk a record", float(bytes) / float(records), Unit::Bytes));
        fleet.kill(0)?;
        let begin_ns = now_ns();
        fleet.restart(0)?;
        let wanted = Wanted::Topic(0);
        let feed = stage.way.feed(&stage.load, wanted).context("it has no way to read")?;
        Receiver::connect(fleet.address(0), feed)?.until(1)?;
        measures.push(measure("back after kill", seconds_since(begin_ns) * 1e3, Unit::Millis));
    }
    Ok(measures)
}
