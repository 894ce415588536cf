//! The end of the story: nothing is broken any more, and what is there is held against the history.
//!
//! ```text
//!  healed ─► producers get their last answers ─► a probe in each partition ─► consumers reach it
//!         ─► all brokers name the same ends ─► settled ─► every broker is read from start to end
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use aklight_common::client::PartitionInfo;
use aklight_common::limits::FETCH_RECORDS_DEFAULT;
use aklight_common::wire::{Command, Reply};
use aklight_common::{BrokerId, Offset, PartitionId};
use aklight_oracle::Outcome;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::consumers::Reached;
use super::course::{Course, Stage};
use super::link::Link;
use super::producers::fields;
use super::story::Story;
use super::witness::{SETTLE_MAX_S, Sending, Topics};

/// How long a broker may be silent when nothing is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a thing that must come has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Records that are read at a time in the end.
const READ_AT_ONCE: u64 = 5 * FETCH_RECORDS_DEFAULT;

/// What a consumer follows, and how far it is.
pub type Follower = (Topics, watch::Receiver<Reached>);

/// From healed to settled. What does not come about within the time is told to the witness.
pub async fn settle(
    course: &Course,
    stage: &watch::Sender<Stage>,
    producers: &mut JoinSet<()>,
    followers: &[Follower],
    story: &Story,
) {
    course.witness.healed();
    stage.send_replace(Stage::Draining);
    let mut waits_for = "the last answers to producers".to_owned();
    let steps = async {
        while producers.join_next().await.is_some() {}
        "acknowledgements of new records".clone_into(&mut waits_for);
        let probes = probe(course).await;
        "consumers to catch up".clone_into(&mut waits_for);
        for (topics, reached) in followers {
            catches_up(*topics, reached.clone(), &probes).await;
        }
        "all brokers to name the same ends".clone_into(&mut waits_for);
        while !ends_agree(course).await {
            sleep(LOOK_EVERY).await;
        }
        course.witness.settled();
    };
    let settled = timeout(Duration::from_secs(SETTLE_MAX_S), steps).await;
    if settled.is_err() {
        let text = format!("{SETTLE_MAX_S} s after healing it still waits for {waits_for}");
        story.tell(&text);
        course.witness.wrong(text);
    }
    stage.send_replace(Stage::Over);
}

type Probes = BTreeMap<(PartitionId, bool), Offset>;

/// Appends to each partition a record with an even topic and one with an odd; gives their places.
async fn probe(course: &Course) -> Probes {
    let mut probes = Probes::new();
    let mut broker = 0;
    loop {
        match probe_at(course, broker, &mut probes).await {
            Ok(()) => return probes,
            Err(reason) => tracing::debug!(%reason, "the probe goes elsewhere"),
        }
        broker = (broker + 1) % course.addresses.len();
        sleep(LOOK_EVERY).await;
    }
}

async fn probe_at(course: &Course, broker: usize, probes: &mut Probes) -> Result<(), String> {
    let mut link = Link::open(&course.addresses[broker], PATIENCE, &course.clock).await?;
    let partitions = link.partitions().await?;
    let connection = course.witness.connection();
    for topic in [0_u16, 1] {
        // Without a key each partition has its turn.
        while partitions.iter().any(|p| !probes.contains_key(&(p.id, topic == 1))) {
            let record = course.witness.sends(Sending { connection, key: 0, topic, once: None });
            let ((key, payload), name) = (fields(0, record), course.witness.topic(topic));
            let (key, payload) = (key.into(), payload.into());
            let mut outcome = Outcome::Unknown;
            let asked = link
                .ask(&Command::Produce { topic: &name, key, payload }, |reply| match reply {
                    Reply::Ack { offset, partition, .. } => {
                        outcome = Outcome::Acked(partition, offset);
                        Ok(true)
                    }
                    other => Err(format!("it answers PRODUCE with {other:?}")),
                })
                .await;
            course.witness.answered(record, outcome);
            asked?;
            if let Outcome::Acked(partition, offset) = outcome {
                probes.insert((partition, topic == 1), offset);
            }
        }
    }
    Ok(())
}

/// Waits until a consumer was sent the probes of its topics, and so everything before them.
async fn catches_up(topics: Topics, mut reached: watch::Receiver<Reached>, probes: &Probes) {
    let is_there = |reached: &Reached| {
        probes
            .iter()
            .filter(|((_, odd), _)| topics.holds(u16::from(*odd)))
            .all(|((partition, _), probe)| reached.get(partition).is_some_and(|at| at >= probe))
    };
    // An error means that the consumer has ended, which its own words explain.
    let _ = reached.wait_for(is_there).await;
}

async fn ends_agree(course: &Course) -> bool {
    let mut all: Vec<Vec<(PartitionId, Offset)>> = Vec::new();
    for address in course.addresses.iter() {
        match partitions(course, address).await {
            Ok(found) => all.push(found.iter().map(|p| (p.id, p.end)).collect()),
            Err(reason) => {
                tracing::debug!(%reason, "no ends");
                return false;
            }
        }
    }
    all.windows(2).all(|pair| pair[0] == pair[1])
}

async fn partitions(course: &Course, address: &str) -> Result<Vec<PartitionInfo>, String> {
    Link::open(address, PATIENCE, &course.clock).await?.partitions().await
}

/// Reads every broker's copy of every partition, and shows it to the witness. Gives the records
/// that each holds.
pub async fn read_copies(course: &Course) -> Vec<u64> {
    let mut all = Vec::new();
    for (n, address) in course.addresses.iter().enumerate() {
        let broker = BrokerId(n as u64 + 1);
        let mut records = 0;
        if let Err(reason) = read_copy(course, address, broker, &mut records).await {
            course.witness.wrong(format!("broker{broker} cannot be read in the end: {reason}"));
        }
        all.push(records);
    }
    all
}

async fn read_copy(
    course: &Course,
    address: &str,
    broker: BrokerId,
    records: &mut u64,
) -> Result<(), String> {
    let mut link = Link::open(address, PATIENCE, &course.clock).await?;
    for PartitionInfo { id, start, end, .. } in link.partitions().await? {
        course.witness.copy_begins(broker, id, start);
        let mut at = start;
        while at < end {
            let command = Command::Fetch {
                pattern: "#",
                offset: at,
                partition: Some(id),
                max: READ_AT_ONCE,
                wait_ms: 0,
            };
            let mut next = None;
            link.ask(&command, |reply| {
                if let Some(seen) = course.witness.read(&reply) {
                    course.witness.stored(broker, seen);
                    *records += 1;
                    return Ok(false);
                }
                match reply {
                    Reply::End { next: told, .. } => {
                        next = told.unwrap_or_default().into_iter().find(|(p, _)| *p == id);
                        Ok(true)
                    }
                    other => Err(format!("at offset {at} of partition {id}: {other:?}")),
                }
            })
            .await?;
            at = match next {
                Some((_, next)) if next > at => next,
                _ => return Err(format!("its listing of partition {id} stays at offset {at}")),
            };
        }
        course.witness.copy_ends(broker, id, at);
    }
    Ok(())
}
