//! How Raft's own state is written: votes, log ids and memberships, in formats of ours, so that a
//! new version of openraft changes no file on disk.
//!
//! Votes and log ids are little-endian numbers; memberships, which people may want to read, JSON:
//! `{"configs":[[1,2,3]],"nodes":{"1":"broker1:7090"}}`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use aklight_log::{Batch, BatchKind, NewBatch};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::types::{Entry, LogId, Membership, Payload, Proposal, StoredMembership, Vote, log_id};
use aklight_common::{RaftIndex, Term};
use openraft::EntryPayload;
use openraft::vote::RaftVote as _;

#[derive(Serialize, Deserialize)]
struct MembershipFile {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredMembershipFile {
    log_id: Option<(u64, u64)>,
    membership: MembershipFile,
}

fn membership_file(membership: &Membership) -> MembershipFile {
    MembershipFile {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    }
}

fn membership_from(file: MembershipFile) -> io::Result<Membership> {
    let nodes: BTreeMap<_, _> =
        file.nodes.into_iter().map(|(id, addr)| (id, openraft::BasicNode { addr })).collect();
    Membership::new(file.configs, nodes).map_err(io::Error::other)
}

/// Writes a membership for the body of a log entry.
pub(super) fn encode_membership(membership: &Membership) -> io::Result<Bytes> {
    Ok(serde_json::to_vec(&membership_file(membership))?.into())
}

/// Reads a membership from the body of a log entry.
pub(super) fn decode_membership(body: &[u8]) -> io::Result<Membership> {
    membership_from(serde_json::from_slice(body)?)
}

/// Writes a membership and where in the log it stood.
pub(super) fn encode_stored_membership(stored: &StoredMembership) -> io::Result<Vec<u8>> {
    let file = StoredMembershipFile {
        log_id: stored.log_id().as_ref().map(|id| (id.leader_id.term, id.index)),
        membership: membership_file(stored.membership()),
    };
    Ok(serde_json::to_vec(&file)?)
}

/// Reads what [`encode_stored_membership`] wrote.
pub(super) fn decode_stored_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let file: StoredMembershipFile = serde_json::from_slice(bytes)?;
    let at = file.log_id.map(|(term, index)| log_id(term, index));
    Ok(StoredMembership::new(at, membership_from(file.membership)?))
}

/// Writes a vote: term, broker voted for, whether a quorum granted it.
pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(17);
    bytes.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    bytes.extend_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    bytes.push(u8::from(vote.committed));
    bytes
}

/// Reads what [`encode_vote`] wrote.
pub(super) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let (term, rest) = number(bytes)?;
    let (voted_for, rest) = number(rest)?;
    let [committed @ (0 | 1)] = rest else {
        return Err(nonsense("vote"));
    };
    let leader = openraft::impls::leader_id_std::LeaderId { term, voted_for };
    Ok(Vote::from_leader_id(leader, *committed == 1))
}

/// Writes a log id, or that there is none.
pub(super) fn encode_log_id(id: Option<&LogId>) -> Vec<u8> {
    id.map_or_else(Vec::new, |id| {
        [id.leader_id.term.to_le_bytes(), id.index.to_le_bytes()].concat()
    })
}

/// Reads what [`encode_log_id`] wrote.
pub(super) fn decode_log_id(bytes: &[u8]) -> io::Result<Option<LogId>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (term, rest) = number(bytes)?;
    let (index, rest) = number(rest)?;
    if !rest.is_empty() {
        return Err(nonsense("log id"));
    }
    Ok(Some(log_id(term, index)))
}

/// An entry of openraft as a batch of the log.
pub(super) fn batch_of(entry: Entry) -> io::Result<NewBatch> {
    let proposal = match entry.payload {
        EntryPayload::Blank => bodyless(BatchKind::Blank, Bytes::new()),
        EntryPayload::Membership(membership) => {
            bodyless(BatchKind::Membership, encode_membership(&membership)?)
        }
        EntryPayload::Normal(proposal) => proposal,
    };
    Ok(NewBatch {
        index: RaftIndex(entry.log_id.index),
        term: Term(entry.log_id.leader_id.term),
        kind: proposal.kind,
        records: proposal.records,
        first_time_us: proposal.first_time_us,
        last_time_us: proposal.last_time_us,
        body: proposal.body,
    })
}

/// A batch of the log as an entry of openraft.
pub(super) fn entry_of(batch: Batch) -> io::Result<Entry> {
    let header = batch.header;
    let payload = match header.kind {
        BatchKind::Blank => Payload::Blank,
        BatchKind::Membership => Payload::Membership(decode_membership(&batch.body)?),
        BatchKind::Records | BatchKind::Command => Payload::Normal(Proposal {
            kind: header.kind,
            records: header.records,
            first_time_us: header.first_time_us,
            last_time_us: header.last_time_us,
            body: batch.body,
            base_offset: Some(header.base_offset),
        }),
    };
    Ok(Entry { log_id: log_id(header.term.0, header.index.0), payload })
}

/// The same of a batch that another broker sent: where it stands in the log here is not known yet.
pub(super) fn sent_entry_of(batch: Batch) -> io::Result<Entry> {
    let mut entry = entry_of(batch)?;
    if let Payload::Normal(proposal) = &mut entry.payload {
        proposal.base_offset = None;
    }
    Ok(entry)
}

fn bodyless(kind: BatchKind, body: Bytes) -> Proposal {
    Proposal { kind, records: 0, first_time_us: 0, last_time_us: 0, body, base_offset: None }
}

fn number(bytes: &[u8]) -> io::Result<(u64, &[u8])> {
    bytes
        .split_first_chunk::<8>()
        .map(|(number, rest)| (u64::from_le_bytes(*number), rest))
        .ok_or_else(|| nonsense("number"))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a stored {what} does not decode"))
}
