//! The silence after `kill -9` of a leader: from the last acknowledgement before to the first one
//! after, as a producer on another server sees it that tries again until it is answered.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Measure, Stage, Unit, measure};
use crate::clock::{now_ns, seconds_since};
use crate::drive::Sender;
use crate::peers::Share;
use crate::server::Fleet;

/// How long a record waits for its answer before the producer connects anew.
const PATIENCE_MS: u16 = 250;

/// How long it waits before that, when it is told at once that nobody is there.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// How long records flow before the leader dies.
const BEFORE_SECONDS: f64 = 1.0;

/// A cluster that is silent for longer does not come back.
const SILENCE_SECONDS_MAX: f64 = 60.0;

/// Acknowledgements after the first one that must follow at once, or the cluster is not back.
const STEADY: u64 = 100;

/// How long nobody is answered.
///
/// # Errors
/// When the cluster does not come back.
pub fn silence(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Measure>> {
    let mut fleet = stage.start(3)?;
    let leader = stage.way.leader(fleet.address(0))?.context("it has no leader")?;
    let other = usize::from(leader == 0);
    let mut sender = connect(stage, &fleet, other)?;
    let begin_ns = now_ns();
    while seconds_since(begin_ns) < BEFORE_SECONDS {
        sender.send_one()?;
    }
    fleet.kill(leader)?;
    let killed_ns = now_ns();
    let (mut last_ns, mut longest_ns, mut steady) = (killed_ns, 0, 0);
    let mut sender = Some(sender);
    while steady < STEADY {
        ensure!(seconds_since(killed_ns) < SILENCE_SECONDS_MAX, "the cluster does not come back");
        let asked = sender.take().map_or_else(|| connect(stage, &fleet, other), Ok);
        let answered = asked.and_then(|mut sender| sender.send_one().map(|()| sender));
        if let Ok(answered) = answered {
            let now = now_ns();
            longest_ns = longest_ns.max(now - last_ns);
            (last_ns, steady, sender) = (now, steady + 1, Some(answered));
        } else {
            steady = 0;
            sleep(ASK_AGAIN);
        }
    }
    Ok(vec![measure("silence", crate::clock::seconds(longest_ns) * 1e3, Unit::Millis)])
}

fn connect(stage: &Stage<'_>, fleet: &Fleet<'_>, number: usize) -> anyhow::Result<Sender> {
    // Not alone: what it sent and was not told about may be stored as well.
    let share = Share { first: 0, step: 2 };
    let publisher = stage.way.publisher(&stage.load, share);
    Sender::connect_for(fleet.address(number), publisher, PATIENCE_MS)
}
