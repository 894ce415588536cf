//! What a group's log entries hold, and openraft's view of it.

use std::fmt;

use aklight_common::Offset;
use aklight_common::record::Body;
use aklight_log::BatchKind;
use bytes::Bytes;

/// What is proposed to a group: one entry of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What the body holds.
    pub kind: BatchKind,
    /// How many offsets it takes.
    pub records: u32,
    /// Time of the first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// Time of the last record, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// The records, or a command of the metadata.
    pub body: Bytes,
    /// Offset of the first record, in an entry that was read from a log: whoever applies it need not
    /// look for it there once more.
    pub base_offset: Option<Offset>,
}

impl Proposal {
    /// A batch of records.
    #[must_use]
    pub fn records(body: Body) -> Self {
        Self {
            kind: BatchKind::Records,
            records: body.records,
            first_time_us: body.first_time_us,
            last_time_us: body.last_time_us,
            body: body.bytes,
            base_offset: None,
        }
    }

    /// A command of the metadata; takes no offset.
    #[must_use]
    pub fn command(body: Bytes, time_us: u64) -> Self {
        Self {
            kind: BatchKind::Command,
            records: 0,
            first_time_us: time_us,
            last_time_us: time_us,
            body,
            base_offset: None,
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} records, {} bytes", self.kind, self.records, self.body.len())
    }
}

/// What the proposer is told once an entry is committed and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Offset of the entry's first record; for an entry without records, the next one's.
    pub base_offset: Offset,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "applied at offset {}", self.base_offset)
    }
}

openraft::declare_raft_types!(
    /// The types that openraft works with here. Leader ids are those of plain Raft: one leader at
    /// most in a term, so that a log entry needs no more than its term to be told apart.
    pub(super) Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(super) use openraft::type_config::alias;

pub(super) type LogId = alias::LogIdOf<Types>;
pub(super) type Entry = alias::EntryOf<Types>;
pub(super) type Payload = alias::PayloadOf<Types>;
pub(super) type Vote = alias::VoteOf<Types>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(super) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = alias::SnapshotOf<Types, Bytes>;

/// A log id from its parts.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(term), index }
}
