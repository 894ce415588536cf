//! What is done with committed entries, in order and once.
//!
//! The group keeps, for its [`Machine`], how far it has applied, the membership, and the offset of
//! the next record. All three and the machine's own state go to disk together, as a checkpoint:
//! at every [`CHECKPOINT_BYTES`] of applied entries, before a purge, and at shutdown. After a
//! start the machine is given the checkpoint and then the entries that follow it in the log.
//!
//! ```text
//! purged ≤ checkpoint ≤ applied ≤ committed ≤ flushed
//! ```
//!
//! A snapshot, for openraft, is what allows a purge: it names the last entry that retention may
//! drop ([`StateMachine::allow_purge`]), or, when nothing was allowed, the last one applied.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{BatchKind, Log};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::codec;
use super::types::{
    Applied, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, log_id,
};

/// Applied bytes after which a checkpoint is due. A start reads and applies no more than this
/// (well under a second), and a checkpoint costs far less than writing what it spares.
const CHECKPOINT_BYTES: usize = 64 << 20;

/// A committed entry.
#[derive(Debug)]
pub struct Committed<'a> {
    /// Its place in the Raft log.
    pub index: RaftIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// What the body holds.
    pub kind: BatchKind,
    /// Offset of its first record, or of the next one when it has none.
    pub base_offset: Offset,
    /// How many offsets it takes.
    pub records: u32,
    /// Time of its first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// The records, or the command.
    pub body: &'a Bytes,
}

/// What a group replicates: it is given each committed entry, in order and once.
pub trait Machine: Send + Sync + 'static {
    /// Takes an entry in. An error stops the group: it is for state that must not go on.
    ///
    /// # Errors
    /// When the entry makes no sense, which means that the log is damaged.
    fn apply(&self, entry: &Committed<'_>) -> io::Result<()>;

    /// Learns that the records before this offset which were not applied are damaged and lost.
    fn lose(&self, upto: Offset);

    /// The state after the last entry applied.
    ///
    /// # Errors
    /// When it cannot be written as bytes.
    fn checkpoint(&self) -> io::Result<Vec<u8>>;

    /// Goes back to a checkpoint's state, of which `next_offset` is the end; an empty one is the
    /// state before the first entry.
    ///
    /// # Errors
    /// When the bytes are no checkpoint of this machine.
    fn restore(&self, next_offset: Offset, checkpoint: &[u8]) -> io::Result<()>;
}

/// How far a group is, apart from its machine's state.
#[derive(Debug, Clone, Default)]
struct Progress {
    applied: Option<LogId>,
    membership: StoredMembership,
    next_offset: Offset,
    snapshot: Option<SnapshotMeta>,
    purge_allowed: Option<LogId>,
    bytes_since_checkpoint: usize,
}

#[derive(Serialize, Deserialize)]
struct CheckpointHead {
    applied: Option<(u64, u64)>,
    membership: Vec<u8>,
    next_offset: u64,
}

/// A group's machine, as openraft sees it. Clones share everything.
#[derive(Clone)]
pub(super) struct StateMachine {
    machine: Arc<dyn Machine>,
    log: Log,
    progress: Arc<Mutex<Progress>>,
    checkpointing: Arc<AtomicBool>,
    checkpoint_turn: Arc<Mutex<()>>,
}

impl StateMachine {
    /// The machine as it stood at the last checkpoint of `log`.
    pub(super) fn open(machine: Arc<dyn Machine>, log: Log) -> io::Result<Self> {
        let this = Self {
            machine,
            log,
            progress: Arc::default(),
            checkpointing: Arc::default(),
            checkpoint_turn: Arc::default(),
        };
        let purged = this.log.bounds().purged;
        match this.log.read_checkpoint().map_err(io::Error::other)? {
            Some((_, bytes)) => this.restore(&bytes)?,
            None if purged.is_some() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the checkpoint is missing or damaged, and the entries before it were purged",
                ));
            }
            None => this.machine.restore(Offset(0), &[])?,
        }
        // What was purged was in a snapshot once: openraft wants to see it again.
        if let Some((term, index)) = purged {
            let mut progress = this.progress.lock();
            progress.snapshot = Some(SnapshotMeta {
                last_log_id: Some(log_id(term.0, index.0)),
                last_membership: progress.membership.clone(),
            });
        }
        Ok(this)
    }

    /// Writes a checkpoint of the state as it is now. Reads and writes the disk.
    pub(super) fn write_checkpoint(&self) -> io::Result<()> {
        // One at a time: an older state must not replace a newer one.
        let _turn = self.checkpoint_turn.lock();
        let (index, bytes) = {
            let mut progress = self.progress.lock();
            let Some(applied) = progress.applied else { return Ok(()) };
            progress.bytes_since_checkpoint = 0;
            (RaftIndex(applied.index), self.encode(&progress)?)
        };
        self.log.save_checkpoint(index, bytes)
    }

    /// Lets the next snapshot, and so the purge, reach up to this entry.
    pub(super) fn allow_purge(&self, upto: LogId) {
        self.progress.lock().purge_allowed = Some(upto);
    }

    pub(super) fn applied(&self) -> Option<RaftIndex> {
        self.progress.lock().applied.as_ref().map(|id| RaftIndex(id.index))
    }

    fn encode(&self, progress: &Progress) -> io::Result<Vec<u8>> {
        let head = serde_json::to_vec(&CheckpointHead {
            applied: progress.applied.as_ref().map(|id| (id.leader_id.term, id.index)),
            membership: codec::encode_stored_membership(&progress.membership)?,
            next_offset: progress.next_offset.0,
        })?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        Ok([&length.to_le_bytes()[..], &head, &self.machine.checkpoint()?].concat())
    }

    fn restore(&self, bytes: &[u8]) -> io::Result<()> {
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "not a checkpoint");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(nonsense)?;
        let (head, state) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(nonsense)?;
        let head: CheckpointHead = serde_json::from_slice(head)?;
        let next_offset = Offset(head.next_offset);
        self.machine.restore(next_offset, state)?;
        let mut progress = self.progress.lock();
        progress.applied = head.applied.map(|(term, index)| log_id(term, index));
        progress.membership = codec::decode_stored_membership(&head.membership)?;
        progress.next_offset = next_offset;
        Ok(())
    }

    fn apply_one(&self, entry: Entry) -> io::Result<Applied> {
        let mut progress = self.progress.lock();
        let base_offset = self.base_offset(&entry, progress.next_offset)?;
        progress.next_offset = base_offset;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                progress.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                self.machine.apply(&Committed {
                    index: RaftIndex(entry.log_id.index),
                    term: Term(entry.log_id.leader_id.term),
                    kind: proposal.kind,
                    base_offset,
                    records: proposal.records,
                    first_time_us: proposal.first_time_us,
                    body: &proposal.body,
                })?;
                progress.next_offset = Offset(base_offset.0 + u64::from(proposal.records));
                progress.bytes_since_checkpoint += proposal.body.len();
            }
        }
        progress.applied = Some(entry.log_id);
        Ok(Applied { base_offset })
    }

    /// The offset at which an entry begins: where the one before it ended, or further on, when
    /// records in between are damaged and lost.
    fn base_offset(&self, entry: &Entry, expected: Offset) -> io::Result<Offset> {
        match self.log.offset_of(RaftIndex(entry.log_id.index)) {
            Some(stored) if stored > expected => {
                self.machine.lose(stored);
                Ok(stored)
            }
            Some(stored) if stored < expected => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "entry {} begins at offset {stored}, and records up to {expected} were committed before it",
                    entry.log_id
                ),
            )),
            _ => Ok(expected),
        }
    }

    /// Writes a checkpoint beside the applying when one is due: no entry waits for it.
    fn checkpoint_when_due(&self) {
        let due = self.progress.lock().bytes_since_checkpoint >= CHECKPOINT_BYTES;
        if !due || self.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = this.write_checkpoint() {
                tracing::warn!(%error, "no checkpoint written: the next start reads more of the log");
            }
            this.checkpointing.store(false, Ordering::Release);
        });
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let progress = self.progress.lock();
        Ok((progress.applied, progress.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        self.checkpoint_when_due();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        self.restore(&snapshot)?;
        let mut progress = self.progress.lock();
        progress.applied = meta.last_log_id;
        progress.membership = meta.last_membership.clone();
        progress.snapshot = Some(meta.clone());
        drop(progress);
        self.write_checkpoint()
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let progress = self.progress.lock();
        let Some(meta) = progress.snapshot.clone() else { return Ok(None) };
        Ok(Some(Snapshot { meta, snapshot: self.encode(&progress)?.into() }))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut progress = self.progress.lock();
        let meta = SnapshotMeta {
            last_log_id: progress.purge_allowed.take().or_else(|| progress.applied),
            last_membership: progress.membership.clone(),
        };
        progress.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: self.encode(&progress)?.into() })
    }
}
