//! `kill -9` in the middle of ingest: what was acknowledged is there, once, where it was said to be.
//!
//! A server takes as much as it can, is killed at a moment that nobody chose, and is started again on
//! its folder; so it goes some times, each life's records following the last one's. Then all that
//! is stored is read back. Only the process dies: what the page cache holds stays, so that a server
//! that syncs later is asked the same.
//!
//! ```text
//! acknowledged ≤ found ≤ sent
//! ```
//!
//! What was sent and never answered may be stored or not, but not twice.

use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Measure, Stage, Unit, float, measure};
use crate::clock::now_ns;
use crate::drive::Sender;
use crate::load::Load;
use crate::peers::{Found, Place, Share, Wanted, Way};
use crate::receive::Receiver;
use crate::wire::{is_broken, wait};

/// How often the server is killed.
const KILLS: u64 = 3;

/// The signal comes within so many nanoseconds of when enough was acknowledged: some hundred times
/// as long as a batch takes, so that it finds the server anywhere in its work.
const MOMENT_NS: u64 = 20_000_000;

/// What is known of a record that was sent, by its number.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    is_acknowledged: bool,
    place: Option<Place>,
    is_found: bool,
}

/// What a server knows after it was killed.
///
/// # Errors
/// When the system fails, or has a record twice or elsewhere.
pub fn midway(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let mut fleet = stage.start(1)?;
    let mut fates: Vec<Fate> = Vec::new();
    for _ in 0..KILLS {
        let share = Share { first: fates.len() as u64, step: 1 };
        let mut publisher = stage.way.publisher(&stage.load, share);
        publisher.keep_places();
        let mut sender = Sender::connect(fleet.address(0), publisher)?;
        let pid = fleet.pid(0).context("it is dead already")?;
        let enough = stage.sizes.stored_records / (KILLS + 1);
        until_killed(&mut sender, stage.sizes.window, enough, pid)?;
        fleet.kill(0)?;
        remember(&mut fates, &sender);
        drop(sender);
        fleet.restart(0)?;
    }
    let feed = stage.way.feed(&stage.load, Wanted::All);
    let mut receiver = Receiver::connect(fleet.address(0), feed.context("it has no way to read")?)?;
    let mut wrong = None;
    receiver.until_over(&mut |number, record| {
        let found = look(&mut fates, stage.way, &stage.load, number, record);
        wrong = wrong.take().or(found.err());
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let count = |which: fn(&&Fate) -> bool| float(fates.iter().filter(which).count() as u64);
    Ok(vec![
        measure("lost", count(|fate| fate.is_acknowledged && !fate.is_found), Unit::Lost),
        measure("acknowledged", count(|fate| fate.is_acknowledged), Unit::Records),
        measure("found", count(|fate| fate.is_found), Unit::Records),
        measure("sent", float(fates.len() as u64), Unit::Records),
    ])
}

/// Sends until the server is gone, whose process is killed some time after `enough` records were
/// acknowledged. What it said before it died is read.
fn until_killed(sender: &mut Sender, window: u64, enough: u64, pid: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let mut killer = None;
    sender.owe(u64::MAX / 2);
    let broken = loop {
        if killer.is_none() && sender.acknowledged() >= enough {
            let moment = Duration::from_nanos(now_ns() % MOMENT_NS);
            killer = Some(spawn(move || {
                sleep(moment);
                kill(pid, Signal::SIGKILL)
            }));
        }
        match sender.pump(window) {
            Ok(true) => {}
            Ok(false) => wait(&mut [sender.poll_fd()])?,
            Err(error) => break error,
        }
    };
    let Some(killer) = killer else {
        return Err(broken).context("before it was killed");
    };
    if killer.join().map_or(true, |killed| killed.is_err()) {
        bail!("it could not be killed: {broken:#}");
    }
    // A write that fails says nothing of what there is to be read.
    let mut last = broken;
    while is_broken(&last) {
        match sender.receive() {
            Ok(true) => {}
            Ok(false) => wait(&mut [sender.poll_fd()])?,
            Err(error) if is_broken(&error) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

// Acknowledgements come in the order of the records.
fn remember(fates: &mut Vec<Fate>, sender: &Sender) {
    let places = sender.publisher().places();
    fates.extend((0..sender.sent()).map(|turn| Fate {
        is_acknowledged: turn < sender.acknowledged(),
        place: usize::try_from(turn).ok().and_then(|turn| places.get(turn).copied()),
        is_found: false,
    }));
}

fn look(
    fates: &mut [Fate],
    way: &dyn Way,
    load: &Load,
    number: u64,
    record: Found<'_>,
) -> anyhow::Result<()> {
    let fate = usize::try_from(number).ok().and_then(|number| fates.get_mut(number));
    let fate = fate.with_context(|| format!("record {number} was never sent"))?;
    ensure!(!fate.is_found, "record {number} is there twice");
    fate.is_found = true;
    let Some((place, topic)) = way.place(record.head) else { return Ok(()) };
    let due = load.topic(load.topic_of(number));
    ensure!(
        topic == due,
        "record {number} of {} is under {}",
        due.escape_ascii(),
        topic.escape_ascii()
    );
    if let Some(told) = fate.place {
        ensure!(told == place, "record {number} was acknowledged at {told:?} and is at {place:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::peers::aklight::Aklight;

    /// What is said of records that were read, where two were acknowledged at 7 and 8 of partition 0.
    fn read(found: &[(u64, &str)]) -> anyhow::Result<()> {
        let (way, load) = (Aklight::new(Path::new("aklight")), Load::new(4, 16)?);
        let told = |offset| Some(Place { partition: 0, offset });
        let fate = |place| Fate { is_acknowledged: true, place, is_found: false };
        let mut fates = [fate(told(7)), fate(told(8)), Fate::default()];
        found.iter().try_for_each(|(number, head)| {
            let record = Found { payload: b"", head: head.as_bytes() };
            look(&mut fates, &way, &load, *number, record)
        })
    }

    const FIRST: (u64, &str) = (0, "MESSAGE|metrics/docker/web0/cpu|7|0|");
    const SECOND: (u64, &str) = (1, "MESSAGE|metrics/docker/web0/mem|8|0|");

    #[test]
    fn what_is_where_it_was_said_to_be_is_well() {
        let unanswered = (2, "MESSAGE|metrics/docker/web0/net|3|1|");
        read(&[SECOND, unanswered, FIRST]).expect("all well");
    }

    #[test]
    fn what_is_elsewhere_or_twice_or_was_never_sent_is_not() {
        assert!(read(&[FIRST, FIRST]).is_err());
        assert!(read(&[(0, "MESSAGE|metrics/docker/web0/cpu|8|0|")]).is_err());
        assert!(read(&[(0, "MESSAGE|metrics/docker/web0/cpu|7|1|")]).is_err());
        assert!(read(&[(1, "MESSAGE|metrics/docker/web0/cpu|8|0|")]).is_err());
        assert!(read(&[(3, "MESSAGE|metrics/docker/web0/disk|9|0|")]).is_err());
    }
}
