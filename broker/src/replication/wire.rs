//! What a Raft group says to its copies on other brokers, as bytes of ours: a new version of
//! openraft changes nothing between two releases.
//!
//! All numbers are little-endian. A log id is `u8` there, `u64` term, `u64` index, or just a 0. A
//! vote is `u64` term, `u64` broker, `u8` committed. An entry is `u64` index, `u64` term, `u8` kind
//! (the log's), `u32` records, `u64` first time, `u64` last time, `u32` length, and the body. What
//! carries records begins with the CRC-32C of the rest: TCP's own checksum lets one damaged packet
//! in some millions through, and what is replicated is kept; a snapshot's head has the checksum of
//! the pieces that follow. Readers ignore bytes behind the fields that they know.

use std::io;

use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{Batch, BatchHeader, BatchKind};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftVote as _;

use super::codec;
use super::types::{Entry, LogId, Proposal, SnapshotMeta, Types, Vote, log_id};

/// Bytes of an entry beside its body.
const ENTRY_HEAD_BYTES: usize = 41;

/// An AppendEntries request.
pub(super) fn encode_append(request: AppendEntriesRequest<Types>) -> io::Result<Bytes> {
    let mut out = checked_body();
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    out.put_u32_le(count(request.entries.len())?);
    for entry in request.entries {
        let batch = codec::batch_of(entry)?;
        out.reserve(ENTRY_HEAD_BYTES + batch.body.len());
        put_entry(&mut out, batch.index, batch.term, batch.kind, batch.records);
        out.put_u64_le(batch.first_time_us);
        out.put_u64_le(batch.last_time_us);
        out.put_u32_le(count(batch.body.len())?);
        out.put_slice(&batch.body);
    }
    Ok(seal(out))
}

/// Reads what [`encode_append`] wrote.
pub(super) fn decode_append(body: Bytes) -> io::Result<AppendEntriesRequest<Types>> {
    let mut body = open(body)?;
    let vote = get_vote(&mut body)?;
    let prev_log_id = get_log_id(&mut body)?;
    let leader_commit = get_log_id(&mut body)?;
    let entries = (0..get_u32(&mut body)?)
        // Entries have no offset of their own on the way: each copy counts for itself.
        .map(|_| codec::sent_entry_of(get_batch(&mut body, Offset(0))?))
        .collect::<io::Result<Vec<Entry>>>()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// The answer to one AppendEntries.
pub(super) fn encode_append_answer(answer: &StreamAppendResult<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(24);
    match answer {
        Ok(matching) => {
            out.put_u8(0);
            put_log_id(&mut out, matching.as_ref());
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            put_log_id(&mut out, Some(at));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

/// Reads what [`encode_append_answer`] wrote.
pub(super) fn decode_append_answer(mut body: Bytes) -> io::Result<StreamAppendResult<Types>> {
    Ok(match get_u8(&mut body)? {
        0 => Ok(get_log_id(&mut body)?),
        1 => {
            let at = get_log_id(&mut body)?.ok_or_else(|| nonsense("conflict"))?;
            Err(StreamAppendError::Conflict(at))
        }
        2 => Err(StreamAppendError::HigherVote(get_vote(&mut body)?)),
        _ => return Err(nonsense("answer to entries")),
    })
}

/// A request for a vote.
pub(super) fn encode_vote_request(request: &VoteRequest<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(40);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

/// Reads what [`encode_vote_request`] wrote.
pub(super) fn decode_vote_request(mut body: Bytes) -> io::Result<VoteRequest<Types>> {
    let vote = get_vote(&mut body)?;
    let last_log_id = get_log_id(&mut body)?;
    let leadership_transfer = get_u8(&mut body)? == 1;
    Ok(VoteRequest { vote, last_log_id, leadership_transfer })
}

/// The answer to a request for a vote.
pub(super) fn encode_vote_answer(answer: &VoteResponse<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(40);
    put_vote(&mut out, &answer.vote);
    out.put_u8(u8::from(answer.vote_granted));
    put_log_id(&mut out, answer.last_log_id.as_ref());
    out.freeze()
}

/// Reads what [`encode_vote_answer`] wrote.
pub(super) fn decode_vote_answer(mut body: Bytes) -> io::Result<VoteResponse<Types>> {
    let vote = get_vote(&mut body)?;
    let vote_granted = get_u8(&mut body)? == 1;
    let last_log_id = get_log_id(&mut body)?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

/// A vote by itself: the answer to a snapshot.
pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    put_vote(&mut out, vote);
    out.freeze()
}

/// Reads what [`encode_vote`] wrote.
pub(super) fn decode_vote(mut body: Bytes) -> io::Result<Vote> {
    get_vote(&mut body)
}

/// A leader's wish that the receiver leads.
pub(super) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    put_vote(&mut out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    put_log_id(&mut out, request.last_log_id());
    out.freeze()
}

/// Reads what [`encode_transfer`] wrote.
pub(super) fn decode_transfer(mut body: Bytes) -> io::Result<TransferLeaderRequest<Types>> {
    let vote = get_vote(&mut body)?;
    let to = get_u64(&mut body)?;
    Ok(TransferLeaderRequest::new(vote, to, get_log_id(&mut body)?))
}

/// What comes before a snapshot's bytes.
pub(super) struct SnapshotHead {
    /// The leader's vote.
    pub(super) vote: Vote,
    /// What the snapshot stands for.
    pub(super) meta: SnapshotMeta,
    /// How long it is.
    pub(super) bytes: usize,
    crc: Option<u32>,
}

impl SnapshotHead {
    /// Whether these are the bytes that the head announced.
    pub(super) fn announces(&self, snapshot: &[u8]) -> bool {
        self.bytes == snapshot.len() && self.crc.is_none_or(|crc| crc == crc32c::crc32c(snapshot))
    }
}

/// The head of a snapshot: the leader's vote, what it stands for, how long it is, its checksum.
pub(super) fn encode_snapshot_head(
    vote: &Vote,
    meta: &SnapshotMeta,
    snapshot: &[u8],
) -> io::Result<Bytes> {
    let membership = codec::encode_stored_membership(&meta.last_membership)?;
    let mut out = BytesMut::with_capacity(64 + membership.len());
    put_vote(&mut out, vote);
    put_log_id(&mut out, meta.last_log_id.as_ref());
    out.put_u32_le(count(snapshot.len())?);
    out.put_u32_le(count(membership.len())?);
    out.put_slice(&membership);
    out.put_u32_le(crc32c::crc32c(snapshot));
    Ok(out.freeze())
}

/// Reads what [`encode_snapshot_head`] wrote; the first ones had no checksum.
pub(super) fn decode_snapshot_head(mut body: Bytes) -> io::Result<SnapshotHead> {
    let vote = get_vote(&mut body)?;
    let last_log_id = get_log_id(&mut body)?;
    let bytes = get_u32(&mut body)? as usize;
    let membership = get_bytes(&mut body)?;
    let last_membership = codec::decode_stored_membership(&membership)?;
    let crc = if body.is_empty() { None } else { Some(get_u32(&mut body)?) };
    Ok(SnapshotHead { vote, meta: SnapshotMeta { last_log_id, last_membership }, bytes, crc })
}

/// A proposal on its way to the leader.
pub(super) fn encode_proposal(proposal: &Proposal) -> io::Result<Bytes> {
    let mut out = checked_body();
    out.put_u8(proposal.kind as u8);
    out.put_u32_le(proposal.records);
    out.put_u64_le(proposal.first_time_us);
    out.put_u64_le(proposal.last_time_us);
    out.put_u32_le(count(proposal.body.len())?);
    out.put_slice(&proposal.body);
    Ok(seal(out))
}

/// Reads what [`encode_proposal`] wrote.
pub(super) fn decode_proposal(body: Bytes) -> io::Result<Proposal> {
    let mut body = open(body)?;
    Ok(Proposal {
        kind: get_kind(&mut body)?,
        records: get_u32(&mut body)?,
        first_time_us: get_u64(&mut body)?,
        last_time_us: get_u64(&mut body)?,
        body: get_bytes(&mut body)?,
        base_offset: None,
    })
}

/// Entries as the log holds them, with their offsets: what mends a damaged copy.
///
/// # Errors
/// None that entries of a log can meet.
pub fn encode_entries(batches: &[Batch]) -> io::Result<Bytes> {
    let mut out = checked_body();
    out.put_u32_le(count(batches.len())?);
    for batch in batches {
        let header = &batch.header;
        out.put_u64_le(header.base_offset.0);
        put_entry(&mut out, header.index, header.term, header.kind, header.records);
        out.put_u64_le(header.first_time_us);
        out.put_u64_le(header.last_time_us);
        out.put_u32_le(header.body_len);
        out.put_slice(&batch.body);
    }
    Ok(seal(out))
}

/// Reads what [`encode_entries`] wrote.
///
/// # Errors
/// When it is damaged, or no entries.
pub fn decode_entries(body: Bytes) -> io::Result<Vec<Batch>> {
    let mut body = open(body)?;
    (0..get_u32(&mut body)?)
        .map(|_| {
            let base_offset = Offset(get_u64(&mut body)?);
            get_batch(&mut body, base_offset)
        })
        .collect()
}

/// A number of the log.
pub(super) fn encode_index(index: Option<RaftIndex>) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(u8::from(index.is_some()));
    out.put_u64_le(index.map_or(0, |index| index.0));
    out.freeze()
}

/// Reads what [`encode_index`] wrote.
pub(super) fn decode_index(mut body: Bytes) -> io::Result<Option<RaftIndex>> {
    let is_some = get_u8(&mut body)? == 1;
    let index = get_u64(&mut body)?;
    Ok(is_some.then_some(RaftIndex(index)))
}

fn checked_body() -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_u32_le(0);
    out
}

fn seal(mut out: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

fn open(mut body: Bytes) -> io::Result<Bytes> {
    let crc = get_u32(&mut body)?;
    if crc32c::crc32c(&body) != crc {
        return Err(nonsense("message (its checksum is wrong)"));
    }
    Ok(body)
}

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_slice(&codec::encode_vote(vote));
}

fn get_vote(body: &mut Bytes) -> io::Result<Vote> {
    let term = get_u64(body)?;
    let voted_for = get_u64(body)?;
    let leader = openraft::impls::leader_id_std::LeaderId { term, voted_for };
    Ok(Vote::from_leader_id(leader, get_u8(body)? == 1))
}

fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        out.put_u64_le(id.leader_id.term);
        out.put_u64_le(id.index);
    }
}

fn get_log_id(body: &mut Bytes) -> io::Result<Option<LogId>> {
    if get_u8(body)? == 0 {
        return Ok(None);
    }
    let term = get_u64(body)?;
    Ok(Some(log_id(term, get_u64(body)?)))
}

fn put_entry(out: &mut BytesMut, index: RaftIndex, term: Term, kind: BatchKind, records: u32) {
    out.put_u64_le(index.0);
    out.put_u64_le(term.0);
    out.put_u8(kind as u8);
    out.put_u32_le(records);
}

fn get_batch(body: &mut Bytes, base_offset: Offset) -> io::Result<Batch> {
    let index = RaftIndex(get_u64(body)?);
    let term = Term(get_u64(body)?);
    let kind = get_kind(body)?;
    let records = get_u32(body)?;
    let first_time_us = get_u64(body)?;
    let last_time_us = get_u64(body)?;
    let bytes = get_bytes(body)?;
    let header = BatchHeader {
        index,
        term,
        kind,
        base_offset,
        records,
        first_time_us,
        last_time_us,
        body_len: count(bytes.len())?,
    };
    Ok(Batch { header, body: bytes })
}

fn get_kind(body: &mut Bytes) -> io::Result<BatchKind> {
    BatchKind::from_byte(get_u8(body)?).ok_or_else(|| nonsense("kind of entry"))
}

fn get_bytes(body: &mut Bytes) -> io::Result<Bytes> {
    let length = get_u32(body)? as usize;
    if body.len() < length {
        return Err(nonsense("message (it is cut short)"));
    }
    Ok(body.split_to(length))
}

fn get_u8(body: &mut Bytes) -> io::Result<u8> {
    body.try_get_u8().map_err(|_| nonsense("message (it is cut short)"))
}

fn get_u32(body: &mut Bytes) -> io::Result<u32> {
    body.try_get_u32_le().map_err(|_| nonsense("message (it is cut short)"))
}

fn get_u64(body: &mut Bytes) -> io::Result<u64> {
    body.try_get_u64_le().map_err(|_| nonsense("message (it is cut short)"))
}

fn count(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a {what} of another broker does not decode"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::types::Payload;

    fn entry(index: u64, body: &'static [u8]) -> Entry {
        let payload = Payload::Normal(Proposal {
            kind: BatchKind::Records,
            records: 3,
            first_time_us: 10,
            last_time_us: 12,
            body: Bytes::from_static(body),
            base_offset: None,
        });
        Entry { log_id: log_id(4, index), payload }
    }

    fn vote(term: u64) -> Vote {
        let leader = openraft::impls::leader_id_std::LeaderId { term, voted_for: 2 };
        Vote::from_leader_id(leader, true)
    }

    #[test]
    fn a_snapshot_that_changes_on_its_way_is_told_from_what_was_announced() {
        let meta = SnapshotMeta { last_log_id: Some(log_id(4, 6)), ..SnapshotMeta::default() };
        let head = encode_snapshot_head(&vote(5), &meta, b"state").expect("encodes");
        let read = decode_snapshot_head(head.clone()).expect("decodes");
        assert_eq!((read.vote, &read.meta, read.bytes), (vote(5), &meta, 5));
        let whole: Vec<_> = [&b"state"[..], b"statf", b"stat"].map(|s| read.announces(s)).into();
        assert_eq!(whole, [true, false, false]);
        let first = decode_snapshot_head(head.slice(..head.len() - 4)).expect("decodes");
        assert!(first.announces(b"statf"), "the first release sent no checksum");
    }

    #[test]
    fn entries_come_back_as_they_were_and_bytes_behind_them_are_ignored() {
        let request = AppendEntriesRequest {
            vote: vote(5),
            prev_log_id: Some(log_id(4, 6)),
            entries: vec![entry(7, b"one"), entry(8, b"")],
            leader_commit: None,
        };
        let encoded = encode_append(request.clone()).expect("encodes");
        let mut longer = BytesMut::from(&encoded[..]);
        longer.put_slice(b"a field of a later release");
        let longer = seal(longer);
        for body in [encoded, longer] {
            let back = decode_append(body).expect("decodes");
            assert_eq!(back.vote, request.vote);
            assert_eq!(back.prev_log_id, request.prev_log_id);
            assert_eq!(back.leader_commit, None);
            assert_eq!(format!("{:?}", back.entries), format!("{:?}", request.entries));
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let request = AppendEntriesRequest {
            vote: vote(5),
            prev_log_id: None,
            entries: vec![entry(0, b"payload")],
            leader_commit: None,
        };
        let encoded = encode_append(request).expect("encodes");
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_append(damaged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        for answer in [
            Ok(None),
            Ok(Some(log_id(3, 9))),
            Err(StreamAppendError::Conflict(log_id(1, 2))),
            Err(StreamAppendError::HigherVote(vote(8))),
        ] {
            let body = encode_append_answer(&answer);
            assert_eq!(decode_append_answer(body).expect("decodes"), answer);
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let request = VoteRequest { vote: vote(2), last_log_id: None, leadership_transfer: true };
        let whole = encode_vote_request(&request);
        for length in 0..whole.len() {
            assert!(decode_vote_request(whole.slice(..length)).is_err(), "{length} bytes");
        }
        assert_eq!(decode_vote_request(whole).expect("decodes"), request);
    }
}
