//! One producer, many subscribers that each want all: deliveries a second.
//!
//! Some of these systems drop what a subscriber is slow to take. So that none has to, the producer
//! is never more than a window ahead of the slowest subscriber.

use anyhow::{Context, ensure};

use super::{Measure, Stage, Unit, costs, float, measure};
use crate::clock::{now_ns, seconds_since};
use crate::drive::{Sender, Sent};
use crate::peers::Wanted;
use crate::receive::Receiver;
use crate::usage::own_cpu_seconds;
use crate::wire::wait;

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
    let mut receivers = Vec::with_capacity(subscribers);
    for _ in 0..subscribers {
        let feed = stage.way.feed(&stage.load, Wanted::Live).context("it pushes nothing")?;
        receivers.push(Receiver::connect(fleet.address(0), feed)?);
    }
    let mut sender = stage.sender(&fleet)?;
    let (cpu, own_cpu, begin_ns) = (fleet.cpu(), own_cpu_seconds(), now_ns());
    let (records, seconds_max) = (sizes.ingest_records, sizes.seconds_max);
    let sent = through(&mut sender, &mut receivers, records, sizes.window, seconds_max)?;
    let seconds = seconds_since(begin_ns);
    let deliveries = sent * subscribers as u64;
    let client_cpu_seconds = own_cpu_seconds() - own_cpu;
    let done = Sent { records: deliveries, seconds, client_cpu_seconds };
    let mut measures = vec![measure("deliveries", float(deliveries) / seconds, Unit::PerSecond)];
    measures.extend(costs(&fleet, &cpu, &done));
    Ok(measures)
}

/// Sends records to subscribers, with at most `window` of them on the way to the slowest; fewer than
/// `records` when `seconds_max` is over before. Gives back how many; each has come to everyone once.
///
/// # Errors
/// When the system fails or loses a record.
pub fn through(
    sender: &mut Sender,
    receivers: &mut [Receiver],
    records: u64,
    window: u64,
    seconds_max: f64,
) -> anyhow::Result<u64> {
    let begin_ns = now_ns();
    let (mut sent, mut filling) = (0, true);
    loop {
        let slowest = receivers.iter().map(|receiver| receiver.records).min().unwrap_or(0);
        let is_over = seconds_since(begin_ns) > seconds_max || sent >= records;
        if is_over && slowest == sent {
            break;
        }
        let room = window - (sent - slowest);
        filling |= room >= window / 4;
        if filling && !is_over {
            let before = sent;
            while sent < before + room && !sender.has_a_write() {
                sender.publish();
                sent += 1;
            }
            filling = sent < before + room;
        }
        let mut progress = sender.flush()?;
        progress |= sender.receive()?;
        for receiver in receivers.iter_mut() {
            progress |= receiver.receive(&mut |_| {})?;
        }
        if !progress {
            let fds = receivers.iter().map(Receiver::poll_fd).chain([sender.poll_fd()]);
            let mut fds: Vec<_> = fds.collect();
            wait(&mut fds).with_context(|| format!("{slowest} of {sent} records came"))?;
        }
    }
    let sum = sent * sent.saturating_sub(1) / 2;
    ensure!(receivers.iter().all(|r| r.sum == sum && r.records == sent), "not each came once");
    Ok(sent)
}
