//! What is stored is read again: all of it, one topic of a thousand, a quarter by a wildcard.
//!
//! The servers are filled once and stay from round to round. Each round is a new connection, from
//! its first byte to the last record, and every record must come, once: their number and the sum
//! of their numbers are held against what was sent.

use anyhow::{Context, ensure};

use super::{CLIENT_CPU, Measure, PEAK_MEMORY, SERVER_CPU, Stage, Unit, float, measure};
use crate::clock::{now_ns, seconds_since};
use crate::drive::pipelined;
use crate::peers::Wanted;
use crate::receive::Receiver;
use crate::usage::own_cpu_seconds;

/// The topic that is looked for, from the middle.
const TOPIC: usize = 500;

/// Everything, as fast as it comes.
///
/// # Errors
/// When the system fails.
pub fn all(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let read = read(stage, Wanted::All, |_| true)?;
    Ok(read.measures(measure("records", float(read.records) / read.seconds, Unit::PerSecond)))
}

/// One topic of a thousand.
///
/// # Errors
/// When the system fails.
pub fn topic(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let topics = stage.sizes.topics as u64;
    let number = TOPIC.min(stage.sizes.topics - 1);
    let read = read(stage, Wanted::Topic(number), |n| n % topics == number as u64)?;
    Ok(read.measures(measure("time", read.seconds * 1e3, Unit::Millis)))
}

/// A quarter of all, by a pattern.
///
/// # Errors
/// When the system fails.
pub fn quarter(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let read = read(stage, Wanted::Quarter, |n| n % 4 == 0)?;
    Ok(read.measures(measure("records", float(read.records) / read.seconds, Unit::PerSecond)))
}

struct Read {
    records: u64,
    seconds: f64,
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
    peak_bytes: u64,
    grown_bytes: u64,
}

impl Read {
    fn measures(&self, first: Measure) -> Vec<Measure> {
        let each = 1e6 / float(self.records);
        vec![
            first,
            measure(SERVER_CPU, self.server_cpu_seconds * each, Unit::Micros),
            measure(CLIENT_CPU, self.client_cpu_seconds * each, Unit::Micros),
            measure(PEAK_MEMORY, float(self.peak_bytes) / 1e6, Unit::Megabytes),
            measure("reading adds", float(self.grown_bytes) / 1e6, Unit::Megabytes),
        ]
    }
}

fn read(
    stage: &mut Stage<'_>,
    wanted: Wanted,
    matches: impl Fn(u64) -> bool,
) -> anyhow::Result<Read> {
    fill(stage)?;
    let fleet = stage.fleet.as_ref().context("it was filled")?;
    let feed = stage.way.feed(&stage.load, wanted).context("it has no way to read that")?;
    let matching = (0..stage.stored).filter(|n| matches(*n));
    let (due, sum) = matching.fold((0, 0_u64), |(due, sum), n| (due + 1, sum.wrapping_add(n)));
    let (cpu, own_cpu, memory) = (fleet.cpu(), own_cpu_seconds(), fleet.memory());
    let begin_ns = now_ns();
    let mut receiver = Receiver::connect(fleet.address(0), feed)?;
    receiver.until(due)?;
    let seconds = seconds_since(begin_ns);
    let (own_cpu, after) = (own_cpu_seconds() - own_cpu, fleet.memory());
    ensure!(
        receiver.records == due && receiver.sum == sum,
        "{} records came where {due} match, and not each once",
        receiver.records
    );
    Ok(Read {
        records: due,
        seconds,
        server_cpu_seconds: fleet.cpu().seconds_since(&cpu),
        client_cpu_seconds: own_cpu,
        peak_bytes: after.peak,
        grown_bytes: after.peak.saturating_sub(memory.peak),
    })
}

/// New servers with as many records as are to be read, unless they are there already.
///
/// # Errors
/// When the system fails.
pub fn fill(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    if stage.fleet.is_none() {
        let fleet = stage.start(1)?;
        let mut sender = [stage.sender(&fleet)?];
        let records = stage.sizes.stored_records;
        let sent = pipelined(&mut sender, records, stage.sizes.window, f64::INFINITY)?;
        (stage.stored, stage.fleet) = (sent.records, Some(fleet));
    }
    Ok(())
}
