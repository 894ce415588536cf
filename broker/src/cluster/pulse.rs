//! Who is alive, who leads what, and how far everybody is.
//!
//! Every broker asks every other how it is, twice a second. One that has not answered for
//! [`DEAD_AFTER`] is called dead; it takes part in nothing less for that, because Raft judges by
//! itself: this is for people, and for who decides where leaders should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::door::from_json;
use super::faults::{Fault, Faults};
use crate::events::Events;
use crate::partition::Partitions;
use crate::replication::{Group, GroupId, Kind, Peers, Role};
use crate::sessions::Sessions;

/// Time between two questions to a broker.
const BEAT: Duration = Duration::from_millis(500);

/// Longest wait for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Silence after which a broker is called dead: what an election takes at the longest, and a beat.
pub const DEAD_AFTER: Duration = Duration::from_millis(2500);

/// How a broker is, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// What is broken on purpose.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Whether the one who asks was removed from the cluster.
    #[serde(default)]
    pub removed: bool,
    /// Each of its groups.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
}

/// A broker's copy of a group, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group's number.
    pub group: u32,
    /// The term.
    #[serde(default)]
    pub term: u64,
    /// Who leads, as far as it knows.
    #[serde(default)]
    pub leader: Option<u64>,
    /// Whether it leads itself.
    #[serde(default)]
    pub leads: bool,
    /// The last entry of its log.
    #[serde(default)]
    pub last: Option<u64>,
    /// The last entry that it knows to be committed.
    #[serde(default)]
    pub committed: Option<u64>,
    /// Whose word counts.
    #[serde(default)]
    pub voters: Vec<u64>,
    /// Who gets everything and has no vote.
    #[serde(default)]
    pub learners: Vec<u64>,
    /// Whether who has a say is just being changed.
    #[serde(default)]
    pub changing: bool,
    /// Whether who has a say is committed.
    #[serde(default)]
    pub settled: bool,
    /// From a leader: the last entry that each copy is known to have.
    #[serde(default)]
    pub copies: BTreeMap<u64, Option<u64>>,
    /// The first offset kept.
    #[serde(default)]
    pub start: u64,
    /// The high watermark.
    #[serde(default)]
    pub end: u64,
    /// Bytes that its log takes on the disk.
    #[serde(default)]
    pub bytes: u64,
    /// Why it takes no more writes, if so.
    #[serde(default)]
    pub failed: Option<String>,
}

/// What was last heard of a broker.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Since when it has answered without a break.
    pub since: Instant,
    /// What it said.
    pub status: BrokerStatus,
}

/// The brokers' words about themselves.
pub struct Pulse {
    peers: Arc<Peers>,
    partitions: Arc<Partitions>,
    sessions: Arc<Sessions>,
    faults: Arc<Faults>,
    events: Arc<Events>,
    seen: Mutex<BTreeMap<BrokerId, Seen>>,
}

impl Pulse {
    /// Nobody was heard yet.
    #[must_use]
    pub fn new(
        peers: Arc<Peers>,
        partitions: Arc<Partitions>,
        sessions: Arc<Sessions>,
        faults: Arc<Faults>,
        events: Arc<Events>,
    ) -> Self {
        Self { peers, partitions, sessions, faults, events, seen: Mutex::default() }
    }

    /// How this broker is.
    #[must_use]
    pub fn own(&self) -> BrokerStatus {
        let metadata = group_status(self.sessions.group(), self.peers.me());
        let partitions = self.partitions.iter().map(|partition| GroupStatus {
            start: partition.start().0,
            end: partition.end().0,
            bytes: partition.log.bounds().bytes,
            ..group_status(partition.group(), self.peers.me())
        });
        BrokerStatus {
            fault: self.faults.now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            removed: false,
            groups: std::iter::once(metadata).chain(partitions).collect(),
        }
    }

    /// What was last heard of the others, and whether they are alive.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<BrokerId, (Seen, bool)> {
        let now = Instant::now();
        let alive = |seen: &Seen| now.duration_since(seen.at) < DEAD_AFTER;
        let seen = self.seen.lock();
        seen.iter().map(|(id, seen)| (*id, (seen.clone(), alive(seen)))).collect()
    }

    /// Whether a broker is there: this one, or one that answers.
    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        broker == self.peers.me() || self.alive_for(broker).is_some()
    }

    /// For how long another broker has answered without a break; none when it does not.
    #[must_use]
    pub fn alive_for(&self, broker: BrokerId) -> Option<Duration> {
        let now = Instant::now();
        let seen = self.seen.lock();
        let seen = seen.get(&broker)?;
        (now.duration_since(seen.at) < DEAD_AFTER).then(|| now.duration_since(seen.since))
    }

    /// A group in the words of whoever leads it, or, when nobody does, of this broker.
    #[must_use]
    pub fn group(&self, id: GroupId) -> GroupStatus {
        let own = self.own().groups.into_iter().find(|group| group.group == id.number());
        let seen = self.seen().into_values().filter(|(_, alive)| *alive);
        let told = seen.flat_map(|(seen, _)| seen.status.groups);
        newest_leader(own.unwrap_or_default(), told.filter(|told| told.group == id.number()))
    }

    /// Whether another broker says that this one was removed: it may be the last to learn so.
    #[must_use]
    pub fn says_removed(&self) -> bool {
        self.seen.lock().values().any(|seen| seen.status.removed)
    }

    /// Whether a broker votes in some group; in one that nobody is known to lead it may.
    #[must_use]
    pub fn counts_on(&self, broker: BrokerId) -> bool {
        let groups = self.own().groups.into_iter().map(|own| own.group);
        let mut told = groups.map(|group| self.group(GroupId::from_number(group)));
        told.any(|group| !group.leads || !group.settled || group.voters.contains(&broker.0))
    }

    /// Asks the others until the broker ends.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let beats = async {
            loop {
                let others = self.peers.others();
                let asked = others.iter().map(|peer| self.ask(peer.id));
                futures_util::future::join_all(asked).await;
                self.forget_all_but(&others.iter().map(|peer| peer.id).collect::<Vec<_>>());
                sleep(BEAT).await;
            }
        };
        stop.run_until_cancelled(beats).await;
    }

    async fn ask(&self, broker: BrokerId) {
        let asked =
            self.peers.call(broker, GroupId::Metadata, Kind::Status, Bytes::new(), ANSWER_WAIT);
        let answer = asked.await.and_then(|body| from_json::<BrokerStatus>(&body));
        let now = Instant::now();
        match answer {
            Ok(status) => {
                let mut seen = self.seen.lock();
                let before = seen.get(&broker);
                let lasting = before.filter(|seen| now.duration_since(seen.at) < DEAD_AFTER);
                let since = lasting.map_or(now, |seen| seen.since);
                let is_back = lasting.is_none();
                seen.insert(broker, Seen { at: now, since, status });
                drop(seen);
                if is_back {
                    self.events.info("alive", format!("broker {broker} is there"));
                }
            }
            Err(error) => {
                tracing::debug!(%broker, %error, "does not say how it is");
                let was_alive = self.seen.lock().get(&broker).is_some_and(|seen| {
                    let silent = now.duration_since(seen.at);
                    silent >= DEAD_AFTER && silent < DEAD_AFTER + BEAT + ANSWER_WAIT
                });
                if was_alive {
                    self.events.warn("dead", format!("broker {broker} does not answer: {error}"));
                }
            }
        }
    }

    fn forget_all_but(&self, known: &[BrokerId]) {
        self.seen.lock().retain(|broker, _| known.contains(broker));
    }
}

/// The word of whoever leads in the newest term; one that has led before and was cut off since may
/// still say that it leads. The own word, when nobody says so in a term as new as the own.
pub(super) fn newest_leader(
    own: GroupStatus,
    told: impl Iterator<Item = GroupStatus>,
) -> GroupStatus {
    let leader = told.filter(|told| told.leads).max_by_key(|told| told.term);
    match leader {
        Some(told) if told.term > own.term || (told.term == own.term && !own.leads) => told,
        _ => own,
    }
}

fn group_status(group: &Group, me: BrokerId) -> GroupStatus {
    let view = group.view();
    let role = group.role();
    let numbers = |ids: &std::collections::BTreeSet<BrokerId>| ids.iter().map(|id| id.0).collect();
    GroupStatus {
        group: group.id().number(),
        term: view.term.0,
        leader: role.leader(me).map(|id| id.0),
        leads: matches!(role, Role::Leads(_)),
        last: view.last.map(|index| index.0),
        committed: view.committed.map(|index| index.0),
        voters: numbers(&view.members.voters),
        learners: numbers(&view.members.learners),
        changing: view.members.changing,
        settled: view.members.committed && !view.members.changing,
        copies: view.copies.iter().map(|(id, last)| (id.0, last.map(|index| index.0))).collect(),
        failed: group.status().failed,
        ..GroupStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_leader_is_believed() {
        let says = |leader, leads, term| {
            let leader = Some(leader);
            GroupStatus { leader, leads, term, ..GroupStatus::default() }
        };
        let shown = |own, told: &[GroupStatus]| newest_leader(own, told.iter().cloned()).leader;
        let (cut_off, leads) = (says(1, true, 3), says(2, true, 4));
        assert_eq!(shown(says(1, false, 3), &[cut_off.clone(), leads.clone()]), Some(2));
        assert_eq!(shown(cut_off.clone(), std::slice::from_ref(&leads)), Some(2));
        assert_eq!(shown(leads, std::slice::from_ref(&cut_off)), Some(2));
        assert_eq!(shown(says(2, false, 4), &[cut_off, says(9, false, 7)]), Some(2));
    }
}
