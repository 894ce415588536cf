//! openraft's log storage on the segmented log.
//!
//! openraft appends, truncates, purges and votes through here; the log's one writer thread takes
//! all four in the order in which they came, which is the order that Raft's safety rests on. An
//! append returns at once and is readable from memory; its callback runs after the fsync.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use aklight_common::{RaftIndex, Term};
use aklight_log::{Log, ReadError};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{BasicNode, OptionalSend};
use tokio::sync::oneshot;

use super::codec;
use super::state_machine::StateMachine;
use super::transport::Peer;
use super::types::{Entry, LogId, Membership, Payload, Types, Vote, log_id};

/// Most bytes of entries that one read for replication returns; a follower takes the rest with
/// its next message. A quarter of gRPC's usual limit of 4 MiB a message.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log of one group, as openraft sees it.
#[derive(Clone)]
pub(super) struct LogStore {
    log: Log,
    state: StateMachine,
}

impl LogStore {
    pub(super) fn new(log: Log, state: StateMachine) -> Self {
        Self { log, state }
    }

    /// Lets the log go on behind a snapshot that was installed just before a crash. openraft does so
    /// too, but looks at terms first: a tail that was never committed may be of a later term than
    /// the last entry of the snapshot, and would stay where nothing can follow on it.
    pub(super) async fn finish_install(&mut self) -> io::Result<()> {
        match self.state.is_ahead_of_log() {
            Some(place) => self.purge(place.log_id).await,
            None => Ok(()),
        }
    }

    /// Writes the entry that a group begins with, who has copies of it, into a log that holds nothing
    /// yet; says whether it did.
    ///
    /// It is the same for each of the members, and of a term before all elections: as if each had
    /// been sent it by the others. So it is safe beside whatever was voted for already, and no group
    /// depends on the one broker that was to begin it.
    pub(super) async fn begin(&self, members: Vec<Peer>) -> io::Result<bool> {
        let bounds = self.log.bounds();
        if bounds.last.is_some() || bounds.purged.is_some() {
            return Ok(false);
        }
        let node = |peer: Peer| (peer.id.0, BasicNode { addr: peer.address });
        let nodes: BTreeMap<_, _> = members.into_iter().map(node).collect();
        let voters = vec![nodes.keys().copied().collect()];
        let membership = Membership::new(voters, nodes).map_err(io::Error::other)?;
        let first = Entry { log_id: log_id(0, 0), payload: Payload::Membership(membership) };
        let (done, waiting) = oneshot::channel();
        let batches = vec![codec::batch_of(first)?];
        self.log.append(batches, answer(done)).map_err(io::Error::other)?;
        finished(waiting).await?;
        Ok(true)
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        match self.log.read_indexes(RaftIndex(from), RaftIndex(to), bytes_max) {
            Ok(batches) => batches.into_iter().map(codec::entry_of).collect(),
            Err(ReadError::Damaged { resume_index, .. }) if self.state.is_alone() => {
                self.stand_ins(from, resume_index.0.min(to))
            }
            // Copies on other brokers have the entries: this one must not go on without them, and
            // is mended when the broker starts again.
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Blank entries for a place where the log is damaged, so that a broker without peers can go
    /// on around it. The state machine sees from the next readable entry which offsets are lost.
    /// A broker with peers is sent the real entries instead.
    fn stand_ins(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let term = self.term_before(from)?;
        Ok((from..to)
            .map(|index| Entry { log_id: log_id(term, index), payload: Payload::Blank })
            .collect())
    }

    /// The term of the entry before `index`, which one that cannot be read had at least.
    fn term_before(&self, index: u64) -> io::Result<u64> {
        let bounds = self.log.bounds();
        match (index.checked_sub(1), bounds.purged) {
            (Some(before), Some((term, purged))) if before <= purged.0 => Ok(term.0),
            (Some(before), _) => Ok(self
                .read(before, index, 1)?
                .first()
                .map_or(0, |entry| entry.log_id.leader_id.term)),
            (None, _) => Ok(0),
        }
    }

    /// The part of a range that the log holds.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let bounds = self.log.bounds();
        let end = bounds.last.map_or(0, |(_, index)| index.0 + 1);
        (from.max(bounds.first.0), to.min(end))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut from, to) = self.clamp(&range);
        let mut entries = Vec::new();
        while from < to {
            let read = self.read(from, to, READ_BYTES_MAX)?;
            let Some(last) = read.last() else { break };
            from = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.log.read_vote().map_err(io::Error::other)?;
        vote.map(|bytes| codec::decode_vote(&bytes)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (from, to) = self.clamp(&(start..end));
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(from, to, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let bounds = self.log.bounds();
        let id = |(term, index): (Term, RaftIndex)| log_id(term.0, index.0);
        let purged = bounds.purged.map(id);
        let last = bounds.last.map(id).max(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.log.save_vote(codec::encode_vote(vote), answer(done));
        finished(waiting).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(codec::encode_log_id(committed.as_ref()));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = match self.log.read_committed() {
            Some(bytes) => codec::decode_log_id(&bytes)?,
            None => None,
        };
        // A hint, written without a sync: after a power loss it may be ahead of the log.
        let last = self.get_log_state().await?.last_log_id;
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let batches = entries.into_iter().map(codec::batch_of).collect::<io::Result<Vec<_>>>()?;
        let done: aklight_log::Done = Box::new(move |result| callback.io_completed(result));
        // Nobody waits for heartbeats from a broker that is alone: it need not get on meanwhile.
        let appended = match self.state.is_alone() {
            true => self.log.append_here(batches, done),
            false => self.log.append(batches, done),
        };
        appended.map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.log.truncate_after(last.map(|id| RaftIndex(id.index)), answer(done));
        finished(waiting).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        // Of an entry that this log never had, the snapshot that stands in for it knows where it
        // ended; without one, nothing is known to lie between.
        let bounds = self.log.bounds();
        let is_past_end = bounds.last.is_none_or(|(_, last)| last.0 < upto.index);
        let known = self.state.end_of(upto);
        let end_offset = known.or_else(|| is_past_end.then_some(bounds.end_offset));
        let (term, upto) = (Term(upto.leader_id.term), RaftIndex(upto.index));
        self.log.purge_to(term, upto, end_offset, answer(done));
        finished(waiting).await
    }
}

/// The index in what a log keeps as its committed mark, for who reads a folder without opening it.
#[must_use]
pub fn committed_index(stored: &[u8]) -> Option<RaftIndex> {
    codec::decode_log_id(stored).ok().flatten().map(|id| RaftIndex(id.index))
}

/// How many entries a log that takes no part yet knows to be committed.
#[must_use]
pub fn committed_hint(log: &Log) -> u64 {
    let stored = log.read_committed().and_then(|bytes| codec::decode_log_id(&bytes).ok().flatten());
    let end = log.bounds().last.map_or(0, |(_, index)| index.0 + 1);
    stored.map_or(0, |id| (id.index + 1).min(end))
}

/// A callback for the log's writer thread that wakes a task.
fn answer(done: oneshot::Sender<io::Result<()>>) -> aklight_log::Done {
    Box::new(move |result| {
        // A task that no longer waits has been cancelled: nobody is left to tell.
        let _ = done.send(result);
    })
}

async fn finished(waiting: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    waiting.await.map_err(|_| io::Error::other("the log was closed"))?
}
