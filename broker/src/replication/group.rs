//! One replicated log and its machine, ready to be proposed to.
//!
//! [`Group::propose`] keeps the order of its callers: what is proposed first is first in the log.
//! The answer comes when the entry is durable on a majority and applied; until then the caller
//! holds a [`Proposed`], and may propose more.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::{BrokerId, RaftIndex};
use aklight_log::{Health, Log};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Config, Raft, SnapshotPolicy};

use super::log_store::LogStore;
use super::network::NoPeers;
use super::state_machine::{Machine, StateMachine};
use super::types::{Applied, Proposal, Types, log_id};

/// Longest wait for a group to lead and to have applied what its log holds, at a start. A log of
/// one checkpoint's distance is applied within a second; a slow disk gets a minute.
const RECOVERY_WAIT: Duration = Duration::from_secs(60);

/// Longest wait for a purge that was allowed; the next round of retention tries again.
const PURGE_WAIT: Duration = Duration::from_secs(10);

/// What a group needs to start.
pub struct GroupConfig {
    /// The group's name, for logs: `partition 0`, `metadata`.
    pub name: String,
    /// This broker.
    pub broker: BrokerId,
    /// Where peers reach this broker.
    pub address: String,
    /// The group's log, open.
    pub log: Log,
    /// What the group replicates.
    pub machine: Arc<dyn Machine>,
}

/// Why a group does not start or stop.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} {what}: {cause}; set its folder aside, or bring it back from a backup, and start again"
)]
pub struct GroupError {
    name: String,
    what: &'static str,
    cause: io::Error,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody leads, or somebody else does; nothing was appended.
    #[error("no broker leads this group at the moment")]
    NoLeader,
    /// The group stopped; whether the entry is stored shows after a restart.
    #[error("the log takes no more writes until the broker is restarted: {0}")]
    Stopped(String),
}

/// A proposal on its way.
pub struct Proposed(tokio::sync::oneshot::Receiver<ClientWriteResult<Types>>);

/// How a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, if anyone.
    pub leader: Option<BrokerId>,
    /// Why no more can be written, if so.
    pub failed: Option<String>,
}

/// A running group. Clones are handles of the same group.
#[derive(Clone)]
pub struct Group {
    name: Arc<str>,
    raft: Raft<Types, StateMachine>,
    state: StateMachine,
    log: Log,
}

impl Group {
    /// Starts a group and waits until it leads and has applied all that its log holds.
    ///
    /// # Errors
    /// When the stored state is damaged, or the group does not get to lead.
    pub async fn start(config: GroupConfig) -> Result<Self, GroupError> {
        let GroupConfig { name, broker, address, log, machine } = config;
        let failed = |what, cause| GroupError { name: name.clone(), what, cause };
        let state =
            StateMachine::open(machine, log.clone()).map_err(|e| failed("cannot be opened", e))?;
        let raft_config = raft_config(&name).map_err(|e| failed("has a bad configuration", e))?;
        let raft = Raft::new(
            broker.0,
            Arc::new(raft_config),
            NoPeers,
            LogStore::new(log.clone()),
            state.clone(),
        )
        .await
        .map_err(|e| failed("cannot be recovered", io::Error::other(e)))?;
        let group = Self { name: name.as_str().into(), raft, state, log };
        group.lead(broker, address).await.map_err(|e| failed("does not get to lead", e))?;
        Ok(group)
    }

    async fn lead(&self, broker: BrokerId, address: String) -> io::Result<()> {
        let is_new = !self.raft.is_initialized().await.map_err(io::Error::other)?;
        if is_new {
            let members = BTreeMap::from([(broker.0, openraft::BasicNode { addr: address })]);
            self.raft.initialize(members).await.map_err(io::Error::other)?;
        } else if self.raft.current_leader().await.is_none() {
            // The only voter need not wait for a silence that nobody will break.
            self.raft.trigger().elect(false).await.map_err(io::Error::other)?;
        }
        self.raft
            .wait(Some(RECOVERY_WAIT))
            .metrics(|m| m.current_leader == Some(broker.0), "this broker leads")
            .await
            .map_err(io::Error::other)?;
        self.raft.wait_for_recovery(Some(RECOVERY_WAIT)).await.map_err(io::Error::other)?;
        let has_checkpoint = matches!(self.log.read_checkpoint(), Ok(Some(_)));
        if is_new || !has_checkpoint {
            // The membership is in the log's first entry: keep it apart as well, so that damage
            // there cannot leave a log that nobody may lead.
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Writes the machine's state as it is now to the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || state.write_checkpoint())
            .await
            .map_err(io::Error::other)?
    }

    /// Hands in an entry; it is behind all that was handed in before by the same caller.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn propose(&self, proposal: Proposal) -> Result<Proposed, ProposeError> {
        let (responder, answer) = ProgressResponder::complete_only();
        self.raft
            .client_write_ff(proposal, Some(responder))
            .await
            .map_err(|error| self.stopped(&error.to_string()))?;
        Ok(Proposed(answer))
    }

    /// Waits until a proposal is durable on a majority and applied.
    ///
    /// # Errors
    /// When that will not happen, or cannot be known.
    pub async fn committed(&self, proposed: Proposed) -> Result<Applied, ProposeError> {
        match proposed.0.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NoLeader),
            Ok(Err(error)) => Err(self.stopped(&error.to_string())),
            Err(_) => Err(self.stopped("the group ended")),
        }
    }

    /// Proposes and waits.
    ///
    /// # Errors
    /// See [`Group::propose`] and [`Group::committed`].
    pub async fn write(&self, proposal: Proposal) -> Result<Applied, ProposeError> {
        let proposed = self.propose(proposal).await?;
        self.committed(proposed).await
    }

    /// Forgets the entries up to and including one that is applied: checkpoint, snapshot, purge.
    ///
    /// # Errors
    /// When the checkpoint cannot be written, or the group has stopped.
    pub async fn purge(&self, upto: RaftIndex) -> io::Result<()> {
        self.checkpoint().await?;
        let batches = self.log.read_indexes(upto, upto.next(), 1).map_err(io::Error::other)?;
        let Some(last) = batches.first() else { return Ok(()) };
        self.state.allow_purge(log_id(last.header.term.0, upto.0));
        self.raft.trigger().snapshot().await.map_err(io::Error::other)?;
        self.raft
            .wait(Some(PURGE_WAIT))
            .metrics(|m| m.purged.as_ref().is_some_and(|id| id.index >= upto.0), "purged")
            .await
            .map_err(io::Error::other)?;
        Ok(())
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> Option<RaftIndex> {
        self.state.applied()
    }

    /// Who leads, and whether the log can still be written.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let (leader, stopped) = {
            use openraft::async_runtime::WatchReceiver as _;
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_leader, metrics.running_state.as_ref().err().map(ToString::to_string))
        };
        let failed = match self.log.health() {
            Health::Writable => stopped,
            Health::Failed(why) => Some(why),
        };
        GroupStatus { leader: leader.map(BrokerId), failed }
    }

    /// Ends the group: nothing more is taken, what was taken is written, and the state goes to a
    /// checkpoint, so that the next start reads almost nothing.
    ///
    /// # Errors
    /// When the checkpoint cannot be written; the log is whole all the same.
    pub async fn shutdown(self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(io::Error::other)?;
        tokio::task::spawn_blocking(move || {
            let written = self.state.write_checkpoint();
            self.log.close();
            written
        })
        .await
        .map_err(io::Error::other)?
    }

    fn stopped(&self, why: &str) -> ProposeError {
        let why = match self.log.health() {
            Health::Failed(cause) => cause,
            Health::Writable => why.to_owned(),
        };
        tracing::debug!(group = %self.name, %why, "a proposal has no answer");
        ProposeError::Stopped(why)
    }
}

/// Timers that a busy two-core machine keeps: a heartbeat every 250 ms, an election after 1 to 2 s
/// of silence, at least ten times what an append takes at its slowest.
fn raft_config(name: &str) -> io::Result<Config> {
    Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: 250,
        heartbeat_min_interval: Some(200),
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        enable_pre_vote: Some(true),
        max_payload_entries: 64,
        max_append_entries: Some(256),
        // Retention decides when there is something to purge, and asks for the snapshot.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        ..Config::default()
    }
    .validate()
    .map_err(io::Error::other)
}
