//! The handle: what a caller does with a log.
//!
//! Appending plans under one lock (`submit`): it checks the batches, gives them offsets and places,
//! makes them readable in the tail, and queues them for the writer thread. So operations enter
//! the queue in the order in which they changed the state, and their answers come in that order,
//! but for syncs that are made beside them.
//! Reading takes none of that: see `read`.
//!
//! ```text
//! Log ─(clones)─ Inner ── submit ── queue ──▶ writer, run by a thread or by the owner
//!                  └───────── Shared ◀────────────┘   state, marks, indexes
//! ```
//!
//! The last handle to go closes the log: it waits until what was queued is durable. Not so a
//! driven log, which dies with its handles: see `runner`.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_common::{Offset, RaftIndex, Term};
use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use crate::assemble::assemble;
use crate::checkpoint;
use crate::disk::Disk;
use crate::errors::{LogError, NoRoom, OpenError, ReadError};
use crate::format::{Batch, NewBatch};
use crate::options::{Fsync, LogOptions, Retention};
use crate::part::StoredPart;
use crate::recovery::recover;
use crate::report::OpenReport;
use crate::runner::{Driver, Runner, Wake, queue_of_owner, queue_of_thread};
use crate::search::{TopicCounts, TopicSearch};
use crate::state::{Bounds, Health, Shared};
use crate::writer::{Done, Op};

/// Longest vote: two numbers and a flag, with room to spare.
pub const VOTE_BYTES_MAX: usize = 64;

/// Longest committed hint of the caller.
pub const COMMITTED_BYTES_MAX: usize = 64;

/// A segmented append log. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: Sender<Op>,
    /// Held from planning to queueing: both happen in one order. `true` once closed.
    submit: Mutex<bool>,
    runner: Runner,
    checkpoint: Mutex<()>,
}

impl Log {
    /// Opens the log in a folder, or begins one there.
    ///
    /// Damage is no error: the log opens around it, and the report says what was lost.
    ///
    /// # Errors
    /// When another process has the folder, the file system refuses, or the vote or the purge
    /// mark is beyond reading.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        clock: SharedClock,
    ) -> Result<(Self, OpenReport), OpenError> {
        let recovered = recover(&*disk, dir, options.fsync != Fsync::Always)?;
        let queue = queue_of_thread(&options);
        let (shared, writer, queue, report, lock) =
            assemble(recovered, disk, dir, options, clock, queue)?;
        let runner = Runner::spawn(writer, lock).map_err(|source| OpenError::Io {
            what: "start the writer thread for",
            path: dir.to_owned(),
            source,
        })?;
        Ok((Self::new(shared, queue, runner), report))
    }

    /// Opens a log that has no thread: nothing is written before the [`Driver`] is turned, and
    /// `wake` is called when there is something to turn it for. Where a caller would have to wait
    /// (for a truncation, a purge past the end, a checkpoint, the end of the log, room in the
    /// queue) the call turns the log itself. For simulations, where all runs in one thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_driven(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        clock: SharedClock,
        wake: Wake,
    ) -> Result<(Self, OpenReport, Driver), OpenError> {
        let recovered = recover(&*disk, dir, options.fsync != Fsync::Always)?;
        let (shared, writer, queue, report, lock) =
            assemble(recovered, disk, dir, options, clock, queue_of_owner())?;
        let (runner, driver) = Runner::owned(writer, lock, wake);
        Ok((Self::new(shared, queue, runner), report, driver))
    }

    fn new(shared: Arc<Shared>, queue: Sender<Op>, runner: Runner) -> Self {
        let inner =
            Inner { shared, queue, submit: Mutex::new(false), runner, checkpoint: Mutex::new(()) };
        Self { inner: Arc::new(inner) }
    }

    /// Appends batches, which get the next offsets. They can be read on return; `done` is called
    /// when they are as durable as the options ask for. Waits while the queue is full; in a driven
    /// log the call makes room itself.
    ///
    /// # Errors
    /// When the batches do not follow on or the log takes no writes. Nothing was appended then,
    /// and `done` is not called.
    pub fn append(&self, batches: Vec<NewBatch>, done: Done) -> Result<(), LogError> {
        self.append_in_order(batches, false, done)
    }

    /// The same for a caller whom nobody waits for meanwhile: a short append is synced in the
    /// caller's thread, where syncs of this log have been quick. Without this one only writes that
    /// need no sync are made there.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_here(&self, batches: Vec<NewBatch>, done: Done) -> Result<(), LogError> {
        self.append_in_order(batches, true, done)
    }

    fn append_in_order(
        &self,
        batches: Vec<NewBatch>,
        may_sync: bool,
        done: Done,
    ) -> Result<(), LogError> {
        self.plan_and_hand_over(batches, may_sync, done)?;
        self.inner.runner.attend();
        Ok(())
    }

    fn plan_and_hand_over(
        &self,
        batches: Vec<NewBatch>,
        may_sync: bool,
        done: Done,
    ) -> Result<(), LogError> {
        let closed = self.inner.submit.lock();
        if *closed {
            return Err(LogError::Closed);
        }
        let shared = &self.inner.shared;
        if let Health::Failed(reason) = shared.health() {
            return Err(LogError::Failed(reason));
        }
        let writes = {
            let mut state = shared.state.write();
            state.check(&batches)?;
            state.plan(batches, &shared.dir, shared.options.segment_bytes)
        };
        let bytes = writes.iter().map(|write| write.batch.header.stored_len()).sum();
        shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.inner.runner.do_at_once(Op::Append { writes, may_sync, done }) {
            Some(left) => self.inner.queue.send(left).map_err(|_| LogError::Closed),
            None => Ok(()),
        }
    }

    /// Saves the vote, at most [`VOTE_BYTES_MAX`] bytes; `done` is called when it is durable, and
    /// everything that was queued before is as safe as its acknowledgement says.
    pub fn save_vote(&self, vote: Vec<u8>, done: Done) {
        if vote.len() > VOTE_BYTES_MAX {
            let text = format!("a vote has at most {VOTE_BYTES_MAX} bytes, not {}", vote.len());
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        self.submit(Op::Vote { vote, done });
    }

    /// The last vote that was saved.
    ///
    /// # Errors
    /// None today: a vote that cannot be read keeps the log from opening.
    pub fn read_vote(&self) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.inner.shared.marks.lock().vote.clone())
    }

    /// Notes how far the caller has committed, at most [`COMMITTED_BYTES_MAX`] bytes: a hint for
    /// the next start, written soon and never synced by itself. Does not wait.
    pub fn save_committed(&self, bytes: Vec<u8>) {
        debug_assert!(bytes.len() <= COMMITTED_BYTES_MAX, "the hint would not fit its slot");
        let was_new = {
            let mut committed = self.inner.shared.committed.lock();
            committed.bytes = Some(bytes);
            std::mem::replace(&mut committed.is_new, true)
        };
        if !was_new && let Some(wake) = self.inner.runner.do_at_once(Op::Wake) {
            // A full queue means that the writer is at work and will look by itself.
            let _ = self.inner.queue.try_send(wake);
            self.inner.runner.attend();
        }
    }

    /// What [`Self::save_committed`] noted last.
    #[must_use]
    pub fn read_committed(&self) -> Option<Vec<u8>> {
        self.inner.shared.committed.lock().bytes.clone()
    }

    /// Saves the state machine's checkpoint as of an entry, durably, in place of the one before.
    /// What the log holds is made durable first: no checkpoint is ever ahead of it.
    ///
    /// # Errors
    /// What the file system says; the checkpoint before then stands.
    pub fn save_checkpoint(&self, index: RaftIndex, bytes: Vec<u8>) -> io::Result<()> {
        let _one_at_a_time = self.inner.checkpoint.lock();
        self.ask(|done| Op::Sync { done })?;
        let shared = &self.inner.shared;
        checkpoint::write(&*shared.disk, &shared.dir, index, &bytes)
    }

    /// The last checkpoint; none where there is none, or a damaged one.
    ///
    /// # Errors
    /// When the file system refuses to read it.
    pub fn read_checkpoint(&self) -> Result<Option<(RaftIndex, Vec<u8>)>, LogError> {
        let shared = &self.inner.shared;
        checkpoint::read(&*shared.disk, &shared.dir)
            .map_err(|source| LogError::Io { path: checkpoint::path(&shared.dir), source })
    }

    /// Takes away every entry behind `last`; their offsets will be given out again. Returns when
    /// the log shows it, with whatever was queued before written; later appends may follow at
    /// once. `done` is called when it is durable.
    pub fn truncate_after(&self, last: Option<RaftIndex>, done: Done) {
        let (finished, shown) = bounded(0);
        let queued = {
            let closed = self.inner.submit.lock();
            let queued = self.queue(*closed, Op::Truncate { last, done, finished });
            queued.inspect(|()| self.inner.runner.wait_until_shown(&shown))
        };
        self.attend(queued);
    }

    /// Forgets every entry up to and with `upto`, which the log must hold. Whole segments are
    /// removed; the start of the log moves at once. `done` is called when that is durable.
    pub fn purge(&self, upto: RaftIndex, done: Done) {
        self.purge_with(upto, None, None, done);
    }

    /// The same for an entry that may be past the log's end (when a snapshot took its place): the
    /// log is empty then, and its next record gets `end_offset`. A purge past the end must say
    /// that offset. Of an entry that the log holds it need not; if it does, it must be the offset
    /// behind that entry, or nothing is purged.
    pub fn purge_to(&self, term: Term, upto: RaftIndex, end_offset: Option<Offset>, done: Done) {
        self.purge_with(upto, Some(term), end_offset, done);
    }

    fn purge_with(
        &self,
        upto: RaftIndex,
        term: Option<Term>,
        end_offset: Option<Offset>,
        done: Done,
    ) {
        let closed = self.inner.submit.lock();
        let last = self.inner.shared.state.read().last;
        let is_past_end = last.is_none_or(|last| upto > last.1);
        if is_past_end && (term.is_none() || end_offset.is_none()) {
            drop(closed);
            let text = format!(
                "cannot purge up to entry {upto}: the log ends before it, \
                 and nobody said which term and offset are there"
            );
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        // A purge past the end changes where the next append goes: wait for that.
        let (finished, shown) = bounded(0);
        let finished = is_past_end.then_some(finished);
        let queued = self.queue(*closed, Op::Purge { upto, term, end_offset, done, finished });
        if is_past_end && queued.is_ok() {
            self.inner.runner.wait_until_shown(&shown);
        }
        drop(closed);
        self.attend(queued);
    }

    /// Whether a read met damage that the opening did not find: the next opening will.
    #[must_use]
    pub fn has_found_damage(&self) -> bool {
        self.inner.shared.found_damage.load(Ordering::Relaxed)
    }

    /// Where the log begins and ends.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.inner.shared.bounds()
    }

    /// Waits until an entry is acknowledged; `false` when the time is up.
    ///
    /// # Errors
    /// When the log refuses writes: it will not be acknowledged then.
    pub fn wait_flushed(&self, index: RaftIndex, timeout: Duration) -> io::Result<bool> {
        self.inner.runner.work_off();
        let shared = &self.inner.shared;
        let mut marks = shared.marks.lock();
        shared.marks_changed.wait_while_for(
            &mut marks,
            |marks| marks.flushed < Some(index) && marks.failed.is_none(),
            timeout,
        );
        if marks.flushed >= Some(index) {
            return Ok(true);
        }
        marks.failed.clone().map_or(Ok(false), |reason| Err(io::Error::other(reason)))
    }

    /// Reads entries from `from` up to `to`, the last not included: at least one if there is one,
    /// and no more than fit into `bytes_max`.
    ///
    /// # Errors
    /// When `from` is purged, past the end or damaged, or the disk cannot be read.
    pub fn read_indexes(
        &self,
        from: RaftIndex,
        to: RaftIndex,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        self.inner.shared.read_indexes(from, to, bytes_max)
    }

    /// Reads the part of a large batch that holds an offset, if the part ends by `to`: for who looks for
    /// a few records among many. None where there are no parts, or something is wrong: the batch as a
    /// whole is then what to read.
    #[must_use]
    pub fn read_part(&self, at: Offset, to: Offset) -> Option<StoredPart> {
        self.inner.shared.read_part(at, to)
    }

    /// Reads batches of records, beginning with the one that holds `from`, up to `to`, the last
    /// not included: at least one if there is one, and no more than fit into `bytes_max`. A batch
    /// that reaches over `to` is not read.
    ///
    /// # Errors
    /// When `from` is purged, past the end or damaged, or the disk cannot be read.
    pub fn read_offsets(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        self.inner.shared.read_offsets(from, to, bytes_max)
    }

    /// A lower bound of the first offset from `from` up to `to` whose topic is wanted, by the
    /// indexes alone; `to` when there is none. Damage counts as a match, so that its reader
    /// hears of it.
    pub fn next_with_topics(
        &self,
        from: Offset,
        to: Offset,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Offset {
        self.inner.shared.next_with_topics(from, to, wanted)
    }

    /// The same, for one who asks again and again on the way through the log.
    #[must_use]
    pub fn topic_search<'a>(
        &'a self,
        wanted: &'a (dyn Fn(&str) -> bool + Sync),
    ) -> TopicSearch<'a> {
        TopicSearch::new(&self.inner.shared, wanted)
    }

    /// The first record that is not older; the log's end when all are.
    #[must_use]
    pub fn offset_at_time(&self, time_us: u64) -> Offset {
        self.inner.shared.offset_at_time(time_us)
    }

    /// The base offset of an entry; none where it is not (or no longer) there or is damaged.
    #[must_use]
    pub fn offset_of(&self, index: RaftIndex) -> Option<Offset> {
        self.inner.shared.offset_of(index)
    }

    /// How many records of each topic `purge(upto)` would take away.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn topic_counts_before(&self, upto: RaftIndex) -> Result<TopicCounts, ReadError> {
        self.inner.shared.topic_counts_before(upto)
    }

    /// The last entry that retention would purge now: always the last of a sealed segment.
    #[must_use]
    pub fn expired(&self, now_us: u64, retention: &Retention) -> Option<RaftIndex> {
        self.inner.shared.expired(now_us, retention)
    }

    /// Whether there is room for what is queued, `bytes` more and the reserve.
    ///
    /// # Errors
    /// When there is not, or nobody can tell.
    pub fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        self.inner.shared.check_room(bytes)
    }

    /// Whether the log takes writes.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Closes the log: what was queued is written, synced and answered, the writer ends, the
    /// folder is free. Reads go on. Closing again does nothing.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Asks the writer for something and waits for its answer. The caller is not the writer's thread.
    pub(crate) fn ask(&self, op: impl FnOnce(Done) -> Op) -> io::Result<()> {
        let (sender, answer) = bounded(1);
        self.submit(op(Box::new(move |result| {
            let _ = sender.send(result);
        })));
        self.inner.runner.work_off();
        answer.recv().map_err(|_| io::Error::other("the log is closed"))?
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.inner.submit.lock()
    }

    fn submit(&self, op: Op) {
        let queued = {
            let closed = self.inner.submit.lock();
            self.queue(*closed, op)
        };
        self.attend(queued);
    }

    /// Queues an operation, or gives it back: the log is closed. The caller holds `submit`.
    fn queue(&self, closed: bool, op: Op) -> Result<(), Op> {
        if closed { Err(op) } else { self.inner.queue.send(op).map_err(|refused| refused.0) }
    }

    /// Sees to what was queued, or answers that it was not. The caller holds no lock.
    fn attend(&self, queued: Result<(), Op>) {
        match queued {
            Ok(()) => self.inner.runner.attend(),
            Err(op) => op.refuse(),
        }
    }
}

impl Inner {
    fn close(&self) {
        {
            let mut closed = self.submit.lock();
            if !std::mem::replace(&mut *closed, true) {
                let _ = self.queue.send(Op::Close);
            }
        }
        self.runner.end();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.runner.closes_on_drop() {
            self.close();
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.shared.dir).finish_non_exhaustive()
    }
}
