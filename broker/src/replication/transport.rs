//! How brokers reach each other: envelopes over a [`PeerTransport`], opened by a [`PeerHandler`].
//!
//! A message between brokers is an [`Envelope`]: whom it is from and for, which cluster and which
//! group it belongs to, what kind it is, and bytes. Who carries it (gRPC, a simulated network)
//! looks at nothing but the address; who opens it checks every line of the envelope first, because
//! a message that reaches the wrong broker, or a broker of another cluster, must do nothing.
//!
//! ```text
//! Group, Partition, … ──Envelope──▶ PeerTransport ~~~ network ~~~▶ PeerHandler ──▶ Group, …
//! ```
//!
//! Versions: a broker of version N understands N - 1 and N + 1. A body only ever gets new fields at
//! its end, and who reads it ignores what follows the fields that it knows.

use std::time::Duration;

use aklight_common::{BrokerId, PartitionId};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;

/// The version of the messages that this release writes.
pub const WIRE_VERSION: u32 = 1;

/// Longest body of a message: a read for replication and its headers come to a little more than
/// 1 MiB, one record may be as long as the longest line, 64 MiB.
pub const MESSAGE_BYTES_MAX: usize = 72 << 20;

/// What a message is about; it decides which connection carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Raft: entries for a follower, or its heartbeat.
    Append = 1,
    /// Raft: a vote is asked for.
    Vote = 2,
    /// Raft: would a vote be granted?
    PreVote = 3,
    /// Raft: the state that stands in for purged entries.
    Snapshot = 4,
    /// Raft: become the leader.
    TransferLeader = 5,
    /// Records for the leader of a partition, in order.
    Produce = 6,
    /// A command for the leader of the metadata.
    Command = 7,
    /// How far is this group committed? Asked of its leader.
    Barrier = 8,
    /// Who are you, and which cluster are you of?
    Hello = 9,
    /// Become a member of this new cluster.
    Form = 10,
    /// Committed entries of a group, to mend a damaged copy.
    Entries = 11,
    /// How is this broker, and each of its groups?
    Status = 12,
    /// Break on purpose, or stop doing so.
    Fault = 13,
    /// Make another broker lead a group.
    MoveLeader = 14,
    /// Raft: a heartbeat.
    Heartbeat = 15,
}

/// Connections are kept apart so that what is small and urgent never waits behind what is large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, questions.
    Control,
    /// Entries for followers.
    Append,
    /// Snapshots and entries that mend.
    Bulk,
    /// Records and commands for leaders.
    Forward,
}

impl Lane {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Control, Self::Append, Self::Bulk, Self::Forward];
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::Snapshot,
        Self::TransferLeader,
        Self::Produce,
        Self::Command,
        Self::Barrier,
        Self::Hello,
        Self::Form,
        Self::Entries,
        Self::Status,
        Self::Fault,
        Self::MoveLeader,
        Self::Heartbeat,
    ];

    /// The kind with this number, if this release knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Which connection carries it.
    #[must_use]
    pub const fn lane(self) -> Lane {
        match self {
            Self::Append => Lane::Append,
            Self::Snapshot | Self::Entries => Lane::Bulk,
            Self::Produce | Self::Command => Lane::Forward,
            _ => Lane::Control,
        }
    }
}

/// Which replicated log a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupId {
    /// The cluster's metadata.
    Metadata,
    /// A partition.
    Partition(PartitionId),
}

impl GroupId {
    /// As it is written: the metadata is 0, partition 0 is 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Metadata => 0,
            Self::Partition(id) => id.0 + 1,
        }
    }

    /// The group with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number.checked_sub(1) {
            None => Self::Metadata,
            Some(partition) => Self::Partition(PartitionId(partition)),
        }
    }
}

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Metadata => f.write_str("metadata"),
            Self::Partition(id) => write!(f, "partition {id}"),
        }
    }
}

/// A broker and where other brokers reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Which one.
    pub id: BrokerId,
    /// `host:port`; the name is resolved at each new connection.
    pub address: String,
}

/// A message between two brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The version that its sender writes: see [`WIRE_VERSION`].
    pub version: u32,
    /// The cluster, as text; empty from a broker that is of none yet.
    pub cluster: String,
    /// Who sends it.
    pub from: u64,
    /// Whom it is for.
    pub to: u64,
    /// The group's number: see [`GroupId::number`].
    pub group: u32,
    /// The kind's number: see [`Kind`].
    pub kind: u32,
    /// What the kind asks for.
    pub body: Bytes,
}

/// Why a message has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It did not arrive, or its answer did not: whether anything was done is not known.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It arrived and was refused: nothing was done.
    #[error("refuses: {0}")]
    Refused(String),
}

/// Answers to a stream of messages, in their order.
pub type Answers = BoxStream<'static, Result<Bytes, PeerError>>;

/// Carries messages to other brokers.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends one message and waits for its answer, no longer than `ttl`.
    fn call(
        &self,
        to: &Peer,
        message: Envelope,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Sends messages as they come, in their order, and gives the answers as they come, one for
    /// each message and in the same order. All are of one group and one kind, `kind`. An error ends
    /// the answers: what was not answered may have arrived or not. `ttl` bounds the time to connect.
    fn stream(
        &self,
        to: &Peer,
        kind: Kind,
        messages: BoxStream<'static, Envelope>,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>>;
}

/// Carries nothing: a cluster of one talks to nobody.
pub struct NoPeers;

impl PeerTransport for NoPeers {
    fn call(
        &self,
        _to: &Peer,
        _message: Envelope,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        ready(Err(alone())).boxed()
    }

    fn stream(
        &self,
        _to: &Peer,
        _kind: Kind,
        _messages: BoxStream<'static, Envelope>,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>> {
        ready(Err(alone())).boxed()
    }
}

fn alone() -> PeerError {
    PeerError::Unreachable("this broker is started without --peers".to_owned())
}

/// Opens messages from other brokers.
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one message.
    fn call(&self, message: Envelope) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Answers a stream of messages, in order; an error is the last answer.
    fn stream(&self, messages: BoxStream<'static, Envelope>) -> Answers;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_kinds_and_groups() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u32), Some(kind));
        }
        for group in [GroupId::Metadata, GroupId::Partition(PartitionId(7))] {
            assert_eq!(GroupId::from_number(group.number()), group);
        }
    }
}
