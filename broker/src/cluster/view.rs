//! The cluster as people are shown it: brokers, groups, and how far every copy is.
//!
//! Any broker can be asked. What it shows is what the metadata says, what the brokers last said of
//! themselves, and of each group what its leader says; so a broker that is cut off shows an old
//! picture, in which it calls the others dead.

use aklight_common::BrokerId;
use serde::Serialize;

use super::pulse::GroupStatus;
use crate::replication::GroupId;
use crate::services::Services;

/// The cluster, as one of its brokers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// The cluster's id.
    pub cluster: String,
    /// Who says so.
    pub answered_by: u64,
    /// That broker's version.
    pub version: &'static str,
    /// The brokers, those that are expected included, by number.
    pub brokers: Vec<BrokerView>,
    /// The metadata's group, then the partitions'.
    pub groups: Vec<GroupView>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokerView {
    /// Its number.
    pub id: u64,
    /// Where clients reach it; empty as long as it has not said so.
    pub address: String,
    /// Where other brokers reach it.
    pub peer: String,
    /// Where its HTTP is.
    pub http: String,
    /// Whether it answers.
    pub state: BrokerState,
    /// Whether its word counts in the metadata's group.
    pub voter: bool,
    /// Bytes that the records take on its disk, as far as it has said.
    pub disk_bytes: Option<u64>,
    /// What is broken on purpose, as far as it can be asked.
    pub fault: Option<String>,
}

/// Whether a broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerState {
    /// It does.
    Alive,
    /// It does not.
    Dead,
    /// It was added and has not come yet.
    Expected,
}

/// A group, as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// `metadata`, or `partition` and its number.
    pub group: String,
    /// Who leads.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Whose word counts.
    pub voters: Vec<u64>,
    /// Who gets everything and has no vote.
    pub learners: Vec<u64>,
    /// The last committed entry.
    pub committed: Option<u64>,
    /// The first offset kept.
    pub start: u64,
    /// The high watermark.
    pub end: u64,
    /// The copies; empty where no leader could be asked.
    pub replicas: Vec<ReplicaView>,
}

/// A copy of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Who has it.
    pub broker: u64,
    /// Its last entry, as far as the leader knows.
    pub last: Option<u64>,
    /// Entries that the leader has and this copy lacks.
    pub behind: u64,
}

/// The cluster as this broker sees it.
#[must_use]
pub fn status(services: &Services) -> ClusterView {
    let mut groups: Vec<_> = group_ids(services).map(|id| services.pulse.group(id)).collect();
    for group in &mut groups {
        // Without a majority nobody is elected after a leader that died: it is remembered on.
        group.leader = group.leader.filter(|leader| services.pulse.is_alive(BrokerId(*leader)));
    }
    let voters = groups.first().map(|metadata| metadata.voters.clone()).unwrap_or_default();
    ClusterView {
        cluster: services.peers.cluster(),
        answered_by: services.broker.0,
        version: env!("CARGO_PKG_VERSION"),
        brokers: brokers(services, &voters),
        groups: groups.into_iter().map(group).collect(),
    }
}

/// All groups of the cluster.
pub(super) fn group_ids(services: &Services) -> impl Iterator<Item = GroupId> {
    let partitions = services.partitions.iter().map(|partition| GroupId::Partition(partition.id));
    std::iter::once(GroupId::Metadata).chain(partitions)
}

fn brokers(services: &Services, voters: &[u64]) -> Vec<BrokerView> {
    let seen = services.pulse.seen();
    let of = |id: BrokerId| {
        if id == services.broker {
            return (BrokerState::Alive, Some(services.pulse.own()));
        }
        match seen.get(&id) {
            Some((seen, true)) => (BrokerState::Alive, Some(seen.status.clone())),
            _ => (BrokerState::Dead, None),
        }
    };
    let brokers = services.sessions.metadata().brokers().into_iter();
    let view = brokers.map(|(id, info)| {
        let (state, said) = of(id);
        let fault = said.as_ref().and_then(|said| said.fault);
        let bytes = said.map(|said| said.groups.iter().map(|group| group.bytes).sum());
        let has_come = !info.incarnation.is_empty();
        BrokerView {
            id: id.0,
            address: info.client,
            peer: info.peer,
            http: info.http,
            state: if has_come { state } else { BrokerState::Expected },
            voter: voters.contains(&id.0),
            disk_bytes: bytes,
            fault: fault.map(|fault| fault.to_string()),
        }
    });
    view.collect()
}

fn group(status: GroupStatus) -> GroupView {
    let last = status.last.unwrap_or(0);
    let mut copies = status.copies;
    if let (true, Some(leader)) = (status.leads, status.leader) {
        copies.insert(leader, status.last);
    }
    let replicas = copies.into_iter().map(|(broker, copy)| ReplicaView {
        broker,
        last: copy,
        behind: last.saturating_sub(copy.unwrap_or(0)),
    });
    GroupView {
        group: GroupId::from_number(status.group).to_string(),
        leader: status.leader,
        term: status.term,
        voters: status.voters,
        learners: status.learners,
        committed: status.committed,
        start: status.start,
        end: status.end,
        replicas: if status.leads { replicas.collect() } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_shown_as_the_leader_knows_them() {
        let leads = GroupStatus {
            group: 1,
            leader: Some(2),
            leads: true,
            last: Some(90),
            copies: [(2, Some(80)), (3, Some(70)), (4, None)].into(),
            ..GroupStatus::default()
        };
        let shown = group(leads.clone());
        assert_eq!(shown.group, "partition 0");
        let lag: Vec<_> = shown.replicas.iter().map(|r| (r.broker, r.behind)).collect();
        assert_eq!(lag, [(2, 0), (3, 20), (4, 90)]);
        let follows = GroupStatus { leads: false, ..leads };
        assert!(group(follows).replicas.is_empty(), "a follower knows nothing of the others");
    }
}
