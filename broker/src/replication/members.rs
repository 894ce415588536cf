//! Who has copies of a group, and who of them leads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use aklight_common::{BrokerId, RaftIndex, Term};
use openraft::async_runtime::WatchReceiver as _;
use openraft::{BasicNode, ChangeMembers};
use tokio::time::timeout;

use super::group::Group;
use super::transport::Peer;

/// Longest wait for a change of members: two entries, each on a majority.
const CHANGE_WAIT: Duration = Duration::from_secs(10);

/// Who has copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Whose word counts.
    pub voters: BTreeSet<BrokerId>,
    /// Who gets everything and has no vote.
    pub learners: BTreeSet<BrokerId>,
    /// Whether one change is still on its way.
    pub changing: bool,
    /// Whether this is committed; else another leader may know of an older one only.
    pub committed: bool,
}

/// A group as this broker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The term.
    pub term: Term,
    /// The last entry in this broker's log.
    pub last: Option<RaftIndex>,
    /// The last entry that this broker knows to be committed.
    pub committed: Option<RaftIndex>,
    /// Who has copies.
    pub members: Members,
    /// The last entry that each copy is known to have; only the leader knows.
    pub copies: BTreeMap<BrokerId, Option<RaftIndex>>,
}

impl Group {
    /// The group as this broker sees it now.
    #[must_use]
    pub fn view(&self) -> View {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let index = |id: &super::types::LogId| RaftIndex(id.index);
        let brokers = |ids: &mut dyn Iterator<Item = u64>| ids.map(BrokerId).collect();
        View {
            term: Term(metrics.current_term),
            last: metrics.last_log_index.map(RaftIndex),
            committed: metrics.local_committed.as_ref().map(index),
            members: Members {
                voters: brokers(&mut membership.voter_ids()),
                learners: brokers(&mut membership.learner_ids()),
                changing: configs.len() > 1,
                committed: metrics.membership_config.log_id().as_ref().map(|id| id.index)
                    <= metrics.local_committed.as_ref().map(|id| id.index),
            },
            copies: metrics
                .replication
                .iter()
                .flatten()
                .map(|(id, matched)| (BrokerId(*id), matched.as_ref().map(index)))
                .collect(),
        }
    }

    /// Whose word counts.
    #[must_use]
    pub fn voters(&self) -> Vec<BrokerId> {
        self.view().members.voters.into_iter().collect()
    }

    /// Gives a broker a copy without a vote. Only the leader can.
    ///
    /// # Errors
    /// When it is not done in time.
    pub async fn add_learner(&self, peer: &Peer) -> io::Result<()> {
        let node = BasicNode { addr: peer.address.clone() };
        let added = self.raft.add_learner(peer.id.0, node, false);
        timeout(CHANGE_WAIT, added).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        Ok(())
    }

    /// Makes these brokers, which all have copies, the voters; who was one and is none any more
    /// loses its copy. Only the leader can.
    ///
    /// # Errors
    /// When it is not done in time.
    pub async fn set_voters(&self, voters: &BTreeSet<BrokerId>) -> io::Result<()> {
        let ids: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(ids)).await
    }

    /// Takes their copies away from brokers that have no vote. Only the leader can.
    ///
    /// # Errors
    /// When it is not done in time.
    pub async fn remove_learners(&self, learners: &BTreeSet<BrokerId>) -> io::Result<()> {
        let ids: BTreeSet<u64> = learners.iter().map(|id| id.0).collect();
        self.change(ChangeMembers::RemoveNodes(ids)).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> io::Result<()> {
        let changed = self.raft.change_membership(change, false);
        timeout(CHANGE_WAIT, changed).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        Ok(())
    }

    /// Asks another broker to lead instead of this one, without a gap: it first gets everything.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn transfer_to(&self, to: BrokerId) -> io::Result<()> {
        self.raft.trigger().transfer_leader(to.0).await.map_err(io::Error::other)
    }
}
