//! What any broker may ask of a group, whoever leads it: to store a command, and how far it is.
//!
//! Both go to the leader: this broker's own group, or a message to another's. Both are tried again
//! until the time is up, because the leader may be changing; so a command must do no harm when it
//! is stored twice, which those of the metadata do not.

use std::time::Duration;

use aklight_common::{BrokerId, RaftIndex, Term};
use bytes::Bytes;
use openraft::raft::ReadPolicy;
use tokio::time::{Instant, sleep, timeout_at};

use super::group::{Group, ProposeError, Proposed};
use super::role::Role;
use super::transport::{Kind, PeerError};
use super::types::Proposal;
use super::wire;

/// Longest wait for one answer of a leader; it may be gone, and another be elected meanwhile.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Pause before asking again: a small part of an election.
const PAUSE: Duration = Duration::from_millis(50);

impl Group {
    /// Stores a command, wherever the leader is, and waits until it is applied here too.
    ///
    /// # Errors
    /// When the time is up, or the group has stopped.
    pub async fn write(&self, command: Proposal, wait: Duration) -> Result<(), ProposeError> {
        let until = Instant::now() + wait;
        let body = wire::encode_proposal(&command).map_err(|e| self.stopped(&e.to_string()))?;
        let index = loop {
            let written = match self.role() {
                Role::Leads(term) => match self.propose_command(&command, term).await {
                    Ok(proposed) => within(until, self.committed(proposed)).await.map(|_| None),
                    Err(error) => Err(error),
                },
                Role::Follows(leader) => self.ask(leader, Kind::Command, body.clone(), until).await,
                Role::Nobody => Err(ProposeError::NoLeader),
            };
            match written {
                Ok(index) => break index,
                Err(error) => self.pause(error, until).await?,
            }
        };
        self.reach(index, until).await
    }

    /// Waits until this broker has applied everything that was committed anywhere when this was
    /// called: what it tells from then on is no older.
    ///
    /// # Errors
    /// When the time is up, or the group has stopped.
    pub async fn barrier(&self, wait: Duration) -> Result<(), ProposeError> {
        let until = Instant::now() + wait;
        let index = loop {
            let asked = match self.role() {
                Role::Leads(_) => within(until, self.confirm()).await,
                Role::Follows(leader) => self.ask(leader, Kind::Barrier, Bytes::new(), until).await,
                Role::Nobody => Err(ProposeError::NoLeader),
            };
            match asked {
                Ok(index) => break index,
                Err(error) => self.pause(error, until).await?,
            }
        };
        self.reach(index, until).await
    }

    /// Carries out what [`Self::write`] asks of this broker.
    pub(super) async fn answer_command(&self, body: Bytes) -> Result<Bytes, PeerError> {
        let refused = |error: &dyn std::fmt::Display| PeerError::Refused(error.to_string());
        let command = wire::decode_proposal(body).map_err(|error| refused(&error))?;
        let Role::Leads(term) = self.role() else {
            return Err(refused(&ProposeError::NoLeader));
        };
        let proposed = self.propose_command(&command, term).await;
        let proposed = proposed.map_err(|error| refused(&error))?;
        self.committed(proposed).await.map_err(|error| refused(&error))?;
        Ok(wire::encode_index(self.applied()))
    }

    /// Answers what [`Self::barrier`] asks of this broker.
    pub(super) async fn answer_barrier(&self) -> Result<Bytes, PeerError> {
        let confirmed = self.confirm().await;
        confirmed.map(wire::encode_index).map_err(|error| PeerError::Refused(error.to_string()))
    }

    async fn propose_command(
        &self,
        command: &Proposal,
        term: Term,
    ) -> Result<Proposed, ProposeError> {
        let room = self.log.check_room(command.body.len() as u64);
        room.map_err(|full| ProposeError::NoRoom(full.to_string()))?;
        self.propose(command.clone(), term).await
    }

    /// How far the group is committed, for certain: a majority still follows this broker.
    async fn confirm(&self) -> Result<Option<RaftIndex>, ProposeError> {
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        read.map(|id| Some(RaftIndex(id.log_id().index))).map_err(|_| ProposeError::NoLeader)
    }

    async fn ask(
        &self,
        leader: BrokerId,
        kind: Kind,
        body: Bytes,
        until: Instant,
    ) -> Result<Option<RaftIndex>, ProposeError> {
        let wait = ANSWER_WAIT.min(until.saturating_duration_since(Instant::now()));
        let answer = self.peers.call(leader, self.id, kind, body, wait).await;
        answer
            .map_err(std::io::Error::other)
            .and_then(wire::decode_index)
            .map_err(|error| ProposeError::Unknown(error.to_string()))
    }

    async fn pause(&self, error: ProposeError, until: Instant) -> Result<(), ProposeError> {
        if matches!(error, ProposeError::Stopped(_)) || Instant::now() + PAUSE >= until {
            return Err(error);
        }
        // A new leader is worth asking at once.
        let mut roles = self.roles();
        roles.mark_unchanged();
        tokio::select! {
            changed = roles.changed() => changed.map_err(|_| self.stopped("the group ended")),
            () = sleep(PAUSE) => Ok(()),
        }
    }

    async fn reach(&self, index: Option<RaftIndex>, until: Instant) -> Result<(), ProposeError> {
        let Some(index) = index else { return Ok(()) };
        let mut applied = self.state.follow_applied();
        let reached = applied.wait_for(|id| id.is_some_and(|id| id.index >= index.0));
        match timeout_at(until, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.stopped("the group ended")),
            Err(_) => Err(ProposeError::Unknown("this broker is behind".to_owned())),
        }
    }
}

async fn within<T>(
    until: Instant,
    work: impl Future<Output = Result<T, ProposeError>>,
) -> Result<T, ProposeError> {
    let late = || ProposeError::Unknown("no majority answers in time".to_owned());
    timeout_at(until, work).await.unwrap_or_else(|_| Err(late()))
}
