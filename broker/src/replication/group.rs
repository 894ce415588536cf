//! One replicated log and its machine, ready to be proposed to.
//!
//! [`Group::propose`] keeps the order of its callers: what is proposed first is first in the log.
//! The answer comes when the entry is durable on a majority and applied; until then the caller
//! holds a [`Proposed`], and may propose more. Only the leader's group takes proposals;
//! [`Group::write`] passes a command on to it, and [`Group::barrier`] asks it how far it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::{BrokerId, Offset, RaftIndex, Term};
use aklight_log::{Health, Log};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::log_store::LogStore;
use super::network::Network;
use super::peers::Peers;
use super::role::{self, Role};
use super::state_machine::{Machine, StateMachine, off_the_runtime};
use super::transport::{GroupId, Peer};
use super::types::{Applied, Proposal, Types, log_id};

/// Longest wait for a group without peers to lead and to have applied what its log holds, at a
/// start. A log of one checkpoint's distance is applied within a second; a slow disk gets a minute.
const RECOVERY_WAIT: Duration = Duration::from_secs(60);

/// Longest wait for a purge that was allowed; the next round of retention tries again.
const PURGE_WAIT: Duration = Duration::from_secs(10);

/// Room that a disk must have before a copy that failed is opened again.
const RENEWAL_BYTES: u64 = 1 << 20;

/// What a group needs to start.
pub struct GroupConfig {
    /// Which group.
    pub id: GroupId,
    /// The group's log, open and whole.
    pub log: Log,
    /// What the group replicates.
    pub machine: Arc<dyn Machine>,
    /// The other brokers.
    pub peers: Arc<Peers>,
    /// Who has copies of it, if this is its very beginning.
    pub begin: Begin,
}

/// How a group without any history begins; one that has some goes on from there.
#[derive(Debug, Clone)]
pub enum Begin {
    /// These brokers have copies, this one among them. Each writes the group's first entry by
    /// itself, so that whoever of them is there can go on without the others; the one that is named
    /// first asks to lead at once.
    With(Vec<Peer>),
    /// Others have copies, and will send this one what there is.
    Join,
}

/// Why a group does not start or stop.
#[derive(Debug, thiserror::Error)]
#[error(
    "{id} {what}: {cause}; one of several brokers is replaced (aklight cluster replace), because an empty or older folder lacks votes and records that the others rely on; a broker alone gets its folder back from a backup"
)]
pub struct GroupError {
    id: GroupId,
    what: &'static str,
    cause: io::Error,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody leads, or somebody else does; nothing was appended, and nothing will be.
    #[error("no broker leads this group at the moment")]
    NoLeader,
    /// The leader's disk is nearly full; nothing was appended.
    #[error("{0}")]
    NoRoom(String),
    /// The leader changed: the entry may be stored or not.
    #[error("whether it was stored is not known: {0}")]
    Unknown(String),
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
    pub(super) id: GroupId,
    pub(super) raft: Raft<Types, StateMachine>,
    pub(super) state: StateMachine,
    pub(super) peers: Arc<Peers>,
    pub(super) log: Log,
    roles: watch::Receiver<Role>,
}

impl Group {
    /// Starts a group. One that no other broker has a copy of leads when this returns, and has
    /// applied all that its log holds.
    ///
    /// # Errors
    /// When the stored state is damaged, or the group does not get to lead.
    pub async fn start(config: GroupConfig) -> Result<Self, GroupError> {
        let id = config.id;
        // A task of its own: groups read what their logs hold side by side.
        let started = AbortOnDropHandle::new(tokio::spawn(Self::go_on(config))).await;
        let died = |died| GroupError { id, what: "does not start", cause: io::Error::other(died) };
        started.map_err(died)?
    }

    /// Goes on from what the log holds.
    async fn go_on(config: GroupConfig) -> Result<Self, GroupError> {
        let GroupConfig { id, log, machine, peers, begin } = config;
        let failed = |what, cause| GroupError { id, what, cause };
        let state =
            StateMachine::open(machine, log.clone()).map_err(|e| failed("cannot be opened", e))?;
        let mut store = LogStore::new(log.clone(), state.clone());
        store.finish_install().await.map_err(|e| failed("cannot be recovered", e))?;
        let has_first_turn = match begin {
            Begin::With(members) => {
                let is_first = members.first().is_some_and(|first| first.id == peers.me());
                store.begin(members).await.map_err(|e| failed("cannot begin", e))? && is_first
            }
            Begin::Join => false,
        };
        let raft_config = raft_config(id).map_err(|e| failed("has a bad configuration", e))?;
        let raft = Raft::new(
            peers.me().0,
            Arc::new(raft_config),
            Network { peers: peers.clone(), group: id },
            store,
            state.clone(),
        )
        .await
        .map_err(|e| failed("cannot be recovered", io::Error::other(e)))?;
        let roles = role::follow(&raft, peers.me());
        let group = Self { id, raft, state, peers, roles, log };
        let started = group.ask_to_lead(has_first_turn).await;
        started.map_err(|e| failed("does not get to lead", e))?;
        Ok(group)
    }

    /// Asks for the lead at once where no wait for another's sign of life is due.
    async fn ask_to_lead(&self, has_first_turn: bool) -> io::Result<()> {
        // Once it has answered, the view shows what the log holds.
        if !self.raft.is_initialized().await.map_err(io::Error::other)? {
            Ok(())
        } else if self.voters() == [self.peers.me()] {
            self.lead_alone(has_first_turn).await
        } else if has_first_turn {
            self.elect().await
        } else {
            Ok(())
        }
    }

    async fn elect(&self) -> io::Result<()> {
        self.raft.trigger().elect(false).await.map_err(io::Error::other)
    }

    /// Lets this broker be elected, or not; it votes in any case.
    pub fn may_lead(&self, may: bool) {
        self.raft.runtime_config().elect(may);
    }

    /// Leads at once: the only voter need not wait for a silence that nobody will break.
    async fn lead_alone(&self, is_new: bool) -> io::Result<()> {
        if self.raft.current_leader().await.is_none() {
            self.elect().await?;
        }
        let mut roles = self.roles.clone();
        tokio::time::timeout(RECOVERY_WAIT, roles.wait_for(|role| matches!(role, Role::Leads(_))))
            .await
            .map_err(|_| io::Error::other("it took too long"))?
            .map_err(io::Error::other)?;
        let has_checkpoint = matches!(self.log.read_checkpoint(), Ok(Some(_)));
        if is_new || !has_checkpoint {
            // The membership is in the log's first entry: keep it apart as well, so that damage
            // there cannot leave a log that nobody may lead.
            self.checkpoint_soon();
        }
        Ok(())
    }

    /// Whether other brokers have copies too.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        !self.state.is_alone()
    }

    /// Whether opening this broker's copy again could make it take writes: others have copies, and
    /// the disk has room.
    #[must_use]
    pub fn may_be_renewed(&self) -> bool {
        self.has_copies() && self.log.check_room(RENEWAL_BYTES).is_ok()
    }

    /// Whether a read of this broker's copy met damage that another copy can make good.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.has_copies() && self.log.has_found_damage()
    }

    /// Which group this is.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.id
    }

    /// What this broker is to the group now.
    #[must_use]
    pub fn role(&self) -> Role {
        *self.roles.borrow()
    }

    /// Follows what this broker is to the group.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.roles.clone()
    }

    /// Writes the machine's state as it is now to the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let state = self.state.clone();
        off_the_runtime(move || state.write_checkpoint()).await
    }

    /// The same beside all else: nobody waits for it, and the log has everything that it holds.
    pub fn checkpoint_soon(&self) {
        let state = self.state.clone();
        tokio::spawn(async move { state.try_checkpoint().await });
    }

    /// Hands in an entry; it is behind all that was handed in before by the same caller. It is
    /// appended only if this broker still leads, and has led without a break since it took over in
    /// `term`: what the caller knows of the log is then all there is before the entry.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn propose(&self, proposal: Proposal, term: Term) -> Result<Proposed, ProposeError> {
        let (responder, answer) = ProgressResponder::complete_only();
        self.raft
            .write(proposal)
            .with_leader(openraft::vote::leader_id_std::CommittedLeaderId::new(term.0))
            .responder(responder)
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
            Ok(Err(error @ ClientWriteError::LogEntryDiscarded(_))) => {
                Err(ProposeError::Unknown(error.to_string()))
            }
            Ok(Err(error)) => Err(self.stopped(&error.to_string())),
            Err(_) => Err(self.stopped("the group ended")),
        }
    }

    /// Forgets the entries up to and including one that is applied: checkpoint, snapshot, purge.
    ///
    /// # Errors
    /// When the checkpoint cannot be written, or the group has stopped.
    pub async fn purge(&self, upto: RaftIndex) -> io::Result<()> {
        self.checkpoint().await?;
        let batches = self.log.read_indexes(upto, upto.next(), 1).map_err(io::Error::other)?;
        let Some(last) = batches.first() else { return Ok(()) };
        let end = Offset(last.header.base_offset.0 + u64::from(last.header.records));
        self.state.allow_purge(log_id(last.header.term.0, upto.0), end);
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
        self.state.applied().map(|id| RaftIndex(id.index))
    }

    /// Who leads, and whether the log can still be written.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let stopped = {
            use openraft::async_runtime::WatchReceiver as _;
            let metrics = self.raft.metrics();
            metrics.borrow_watched().running_state.as_ref().err().map(ToString::to_string)
        };
        let failed = match self.log.health() {
            Health::Writable => stopped,
            Health::Failed(why) => Some(why),
        };
        GroupStatus { leader: self.role().leader(self.peers.me()), failed }
    }

    /// Ends the group: nothing more is taken, what was taken is written, and the state goes to a
    /// checkpoint, so that the next start reads almost nothing.
    ///
    /// # Errors
    /// When the checkpoint cannot be written; the log is whole all the same.
    pub async fn shutdown(self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(io::Error::other)?;
        off_the_runtime(move || {
            let written = self.state.write_checkpoint();
            self.log.close();
            written
        })
        .await
    }

    pub(super) fn stopped(&self, why: &str) -> ProposeError {
        let why = match self.log.health() {
            Health::Failed(cause) => cause,
            Health::Writable => why.to_owned(),
        };
        tracing::debug!(group = %self.id, %why, "a proposal has no answer");
        ProposeError::Stopped(why)
    }
}

/// Timers. A follower counts on its leader for `election_timeout_max` after each sign of life, and
/// asks to be elected after a pause of `election_timeout_min` to `max` more: a leader that dies is
/// replaced in 0.7 to 0.9 s. A heartbeat goes out every 100 ms, so that four in a row must be lost
/// or late before anyone doubts, and then a majority must: nobody is voted for by who has heard of the
/// leader within that time.
fn raft_config(id: GroupId) -> io::Result<Config> {
    Config {
        cluster_name: id.to_string(),
        heartbeat_interval: 100,
        heartbeat_min_interval: Some(80),
        election_timeout_min: 250,
        election_timeout_max: 450,
        enable_pre_vote: Some(true),
        // A leader that comes back must not go on in its old term: its log may hold entries of that
        // term which it has not applied, and `Role::Leads` promises that there are none.
        enable_leader_restore: Some(false),
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
