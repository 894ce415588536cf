//! From a producer to a subscriber, at a rate that leaves everybody time: how late is each record?
//!
//! Records are due on a fixed schedule and are counted from when they were due, not from when they
//! were sent: a system that stalls is charged for all that waited (no coordinated omission). The
//! bench sleeps until a record is due or comes, as producers and subscribers do, and its own
//! lateness (a timer here is 43 µs late, `design/limits.md`, section 1) is in every system's
//! figures. A bench that spins is more exact, but takes one of two processors from servers that
//! have several threads: it was tried, and it measured the scheduler.

use anyhow::{Context, ensure};

use super::{Measure, Stage, Unit, costs, float, measure, percentiles};
use crate::clock::{SECOND_NS, now_ns, seconds_since};
use crate::drive::{Sent, histogram};
use crate::peers::Wanted;
use crate::receive::Receiver;
use crate::usage::own_cpu_seconds;
use crate::wire::wait_ns;

/// Records a second.
const RATE: u64 = 10_000;

/// Before the first record is due.
const LEAD_NS: u64 = 1_000_000;

/// Nothing coming for so long is a failure and not a slow system.
const SILENCE_SECONDS: f64 = 10.0;

/// How late records come to one subscriber.
///
/// # Errors
/// When the system fails or loses a record.
pub fn one(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let fleet = stage.start(1)?;
    let feed = stage.way.feed(&stage.load, Wanted::Live).context("it pushes nothing")?;
    let mut receiver = Receiver::connect(fleet.address(0), feed)?;
    let mut sender = stage.sender(&fleet)?;
    let records = RATE * stage.sizes.live_seconds;
    // A tenth warms up and is not counted.
    let counted_from = records / 10;
    let mut late = histogram()?;
    let (cpu, own_cpu) = (fleet.cpu(), own_cpu_seconds());
    let first_ns = now_ns() + LEAD_NS;
    let due_ns = |n: u64| first_ns + n * (SECOND_NS / RATE);
    let (mut sent, mut progress_ns) = (0, first_ns);
    while receiver.records < records {
        let now = now_ns();
        while sent < records && due_ns(sent) <= now {
            sender.publish();
            sent += 1;
        }
        sender.flush()?;
        sender.receive()?;
        let mut came_ns = None;
        let came = receiver.receive(&mut |n, _| {
            let at = *came_ns.get_or_insert_with(now_ns);
            if n >= counted_from {
                late.saturating_record(at.saturating_sub(due_ns(n)));
            }
        })?;
        if came {
            progress_ns = now;
        } else {
            let next_ns = if sent < records { due_ns(sent) } else { now + SECOND_NS };
            let left_ns = next_ns.saturating_sub(now_ns());
            wait_ns(&mut [receiver.poll_fd(), sender.poll_fd()], left_ns)?;
        }
        ensure!(
            now < progress_ns || seconds_since(progress_ns) < SILENCE_SECONDS,
            "{} of {sent} records came, and then nothing",
            receiver.records
        );
    }
    let whole = receiver.records == records && receiver.sum == records * (records - 1) / 2;
    ensure!(whole, "not every record came once");
    let done = Sent {
        records,
        seconds: seconds_since(first_ns),
        client_cpu_seconds: own_cpu_seconds() - own_cpu,
    };
    let mut measures = percentiles(&late).to_vec();
    measures.push(measure("max", float(late.max()) / 1e3, Unit::Micros));
    measures.extend(costs(&fleet, &cpu, &done));
    Ok(measures)
}
