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
//! A snapshot, for openraft, is two things. It allows a purge: it names the last entry that
//! retention may drop ([`StateMachine::allow_purge`]), or, when nothing was allowed, the last one
//! applied. And it stands in for what was purged when a copy on another broker needs it: then it
//! holds the state right behind the entry that it names, never a later one, because the copy
//! applies all that follows. A machine that can tell an earlier state does so
//! ([`Machine::snapshot`]); for any other the snapshot is of now.

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
use tokio::runtime::RuntimeFlavor;
use tokio::sync::watch;

use super::codec;
use super::types::{
    Applied, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, log_id,
};

/// Applied bytes after which a checkpoint is due. A start after a kill applies no more than this and
/// what comes while one is written: hundredths of a second. A checkpoint costs two syncs, and one of the
/// log, for which the writer stops where appends do not wait for it anyway: not to be paid more often.
const CHECKPOINT_BYTES: usize = 32 << 20;

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

    /// The state as it was before the first of the records that begin at `start`, as
    /// [`Machine::restore`] takes it; none from a machine that only knows its state of now.
    fn snapshot(&self, start: Offset) -> Option<io::Result<Vec<u8>>> {
        let _ = start;
        None
    }
}

/// A place in the log, and the offset that follows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) log_id: LogId,
    end: Offset,
}

/// How far a group is, apart from its machine's state.
#[derive(Debug, Clone, Default)]
struct Progress {
    applied: Option<LogId>,
    /// Those that were applied, the newest last: a snapshot names the one that held at its place.
    memberships: Vec<StoredMembership>,
    next_offset: Offset,
    /// What the last snapshot stands for.
    snapshot: Option<Place>,
    purge_allowed: Option<Place>,
    bytes_since_checkpoint: usize,
}

impl Progress {
    fn membership(&self) -> StoredMembership {
        self.memberships.last().cloned().unwrap_or_default()
    }

    fn membership_at(&self, log_id: &LogId) -> StoredMembership {
        let held = |stored: &&StoredMembership| stored.log_id().as_ref() <= Some(log_id);
        self.memberships.iter().rev().find(held).cloned().unwrap_or_default()
    }

    /// Forgets memberships that no snapshot will name any more.
    fn forget_memberships_before(&mut self, log_id: &LogId) {
        let held = self.membership_at(log_id);
        self.memberships.retain(|stored| stored.log_id() >= held.log_id());
    }
}

#[derive(Serialize, Deserialize)]
struct CheckpointHead {
    applied: Option<(u64, u64)>,
    membership: Vec<u8>,
    /// Memberships before that one, oldest first; version 1 had none.
    #[serde(default)]
    earlier: Vec<Vec<u8>>,
    next_offset: u64,
}

/// A group's machine, as openraft sees it. Clones share everything.
#[derive(Clone)]
pub(super) struct StateMachine {
    machine: Arc<dyn Machine>,
    log: Log,
    progress: Arc<Mutex<Progress>>,
    /// Whether no other broker has a copy, by the newest membership. Apart from `progress`, which is
    /// held while a checkpoint is encoded: openraft asks before each append.
    is_alone: Arc<AtomicBool>,
    applied: Arc<watch::Sender<Option<LogId>>>,
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
            is_alone: Arc::new(AtomicBool::new(true)),
            applied: Arc::new(watch::channel(None).0),
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
        let newest = match this.is_ahead_of_log() {
            Some(applied) => Some(applied),
            None => purged.map(|(term, index)| Place {
                log_id: log_id(term.0, index.0),
                end: this.log.bounds().start_offset,
            }),
        };
        this.progress.lock().snapshot = newest;
        Ok(this)
    }

    /// What is applied, where the log ends before that: a snapshot was installed, and a crash came
    /// before the log forgot what it stands for.
    pub(super) fn is_ahead_of_log(&self) -> Option<Place> {
        let progress = self.progress.lock();
        let applied = progress.applied?;
        let last = self.log.bounds().last;
        last.is_none_or(|(_, last)| last.0 < applied.index)
            .then_some(Place { log_id: applied, end: progress.next_offset })
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
    pub(super) fn allow_purge(&self, upto: LogId, end: Offset) {
        self.progress.lock().purge_allowed = Some(Place { log_id: upto, end });
    }

    pub(super) fn applied(&self) -> Option<LogId> {
        self.progress.lock().applied
    }

    /// Follows what is applied.
    pub(super) fn follow_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    /// Whether no other broker has a copy of this group.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Acquire)
    }

    fn see_membership(&self, progress: &Progress) {
        let is_alone = progress.membership().membership().nodes().count() <= 1;
        self.is_alone.store(is_alone, Ordering::Release);
    }

    /// The offset that follows an entry which a snapshot has just stood in for.
    pub(super) fn end_of(&self, upto: LogId) -> Option<Offset> {
        let progress = self.progress.lock();
        (progress.applied == Some(upto)).then_some(progress.next_offset)
    }

    fn encode(&self, progress: &Progress) -> io::Result<Vec<u8>> {
        let mut memberships = progress
            .memberships
            .iter()
            .map(codec::encode_stored_membership)
            .collect::<io::Result<Vec<_>>>()?;
        let membership = match memberships.pop() {
            Some(newest) => newest,
            None => codec::encode_stored_membership(&StoredMembership::default())?,
        };
        let head = CheckpointHead {
            applied: progress.applied.as_ref().map(|id| (id.leader_id.term, id.index)),
            membership,
            earlier: memberships,
            next_offset: progress.next_offset.0,
        };
        join(&head, &self.machine.checkpoint()?)
    }

    /// The snapshot that stands for everything up to `place`, or, from a machine that only knows
    /// its state of now, up to what is applied.
    fn snapshot_at(&self, progress: &Progress, place: Place) -> io::Result<Snapshot> {
        let (meta, bytes) = match (self.machine.snapshot(place.end), progress.applied) {
            (Some(state), _) => {
                let last_membership = progress.membership_at(&place.log_id);
                let head = CheckpointHead {
                    applied: Some((place.log_id.leader_id.term, place.log_id.index)),
                    membership: codec::encode_stored_membership(&last_membership)?,
                    earlier: Vec::new(),
                    next_offset: place.end.0,
                };
                (
                    SnapshotMeta { last_log_id: Some(place.log_id), last_membership },
                    join(&head, &state?)?,
                )
            }
            (None, applied) => {
                let last_membership = progress.membership();
                (SnapshotMeta { last_log_id: applied, last_membership }, self.encode(progress)?)
            }
        };
        Ok(Snapshot { meta, snapshot: bytes.into() })
    }

    fn restore(&self, bytes: &[u8]) -> io::Result<()> {
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "not a checkpoint");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(nonsense)?;
        let (head, state) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(nonsense)?;
        let head: CheckpointHead = serde_json::from_slice(head)?;
        let next_offset = Offset(head.next_offset);
        let memberships = head
            .earlier
            .iter()
            .chain([&head.membership])
            .map(|bytes| codec::decode_stored_membership(bytes))
            .collect::<io::Result<_>>()?;
        // Held over both: a checkpoint that is written meanwhile must not put the new state of the
        // machine under the old place in the log.
        let mut progress = self.progress.lock();
        self.machine.restore(next_offset, state)?;
        progress.applied = head.applied.map(|(term, index)| log_id(term, index));
        progress.memberships = memberships;
        self.see_membership(&progress);
        progress.next_offset = next_offset;
        let applied = progress.applied;
        drop(progress);
        self.applied.send_replace(applied);
        Ok(())
    }

    fn apply_one(&self, entry: Entry) -> io::Result<Applied> {
        let mut progress = self.progress.lock();
        let base_offset = self.base_offset(&entry, progress.next_offset)?;
        progress.next_offset = base_offset;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership);
                progress.memberships.push(stored);
                self.see_membership(&progress);
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
        drop(progress);
        self.applied.send_replace(Some(entry.log_id));
        Ok(Applied { base_offset })
    }

    /// The offset at which an entry begins: where the one before it ended, or further on, when
    /// records in between are damaged and lost.
    fn base_offset(&self, entry: &Entry, expected: Offset) -> io::Result<Offset> {
        let known = match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.base_offset,
            _ => None,
        };
        match known.or_else(|| self.log.offset_of(RaftIndex(entry.log_id.index))) {
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
        tokio::spawn(async move {
            this.try_checkpoint().await;
            this.checkpointing.store(false, Ordering::Release);
        });
    }

    /// Writes a checkpoint that may fail: the log has all that it would hold.
    pub(super) async fn try_checkpoint(&self) {
        let this = self.clone();
        let written = off_the_runtime(move || this.write_checkpoint()).await;
        if let Err(error) = written {
            tracing::warn!(%error, "no checkpoint written: the next start reads more of the log");
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let progress = self.progress.lock();
        Ok((progress.applied, progress.membership()))
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
        {
            let mut progress = self.progress.lock();
            let told = (progress.applied, progress.membership());
            if told != (meta.last_log_id, meta.last_membership.clone()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a snapshot stands for another entry than it says",
                ));
            }
            let end = progress.next_offset;
            progress.snapshot = progress.applied.map(|log_id| Place { log_id, end });
        }
        // Durable before the log forgets what the snapshot stands for.
        let this = self.clone();
        off_the_runtime(move || this.write_checkpoint()).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let progress = self.progress.lock();
        let Some(place) = progress.snapshot else { return Ok(None) };
        Ok(Some(self.snapshot_at(&progress, place)?))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut progress = self.progress.lock();
        let now = progress.applied.map(|log_id| Place { log_id, end: progress.next_offset });
        let Some(place) = progress.purge_allowed.take().or(now) else {
            // Nothing is applied yet, and nothing can be purged by it.
            let snapshot = self.encode(&progress)?.into();
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot });
        };
        let snapshot = self.snapshot_at(&progress, place)?;
        // One that was installed meanwhile stands for more, and the log is purged up to there.
        let newest = progress.snapshot.map(|place| place.log_id);
        if let Some(log_id) = snapshot.meta.last_log_id.filter(|id| newest <= Some(*id)) {
            progress.forget_memberships_before(&log_id);
            progress.snapshot = Some(Place { log_id, end: place.end });
        }
        Ok(snapshot)
    }
}

/// Does what may take the disk a while without holding up the runtime's threads. A runtime of one
/// thread (a simulation) has nobody to hand it to and does it at once.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::runtime::Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
    }
}

fn join(head: &CheckpointHead, state: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    Ok([&length.to_le_bytes()[..], &head, state].concat())
}
