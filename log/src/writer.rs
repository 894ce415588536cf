//! The writer: takes what has queued, writes it at once, syncs once, answers all in order.
//!
//! ```text
//! callers ──bounded queue──▶ wave ──one gathered write a segment──▶ one sync ──▶ hint ──▶ answers
//! ```
//!
//! It is run by a thread of its own, or by the log's owner (see `runner`). A wave is whatever had
//! queued when the writer came back from the disk, up to a limit: under
//! load many appends share a sync (group commit), and a lone one waits for nobody. Operations
//! keep their order. Appends next to one another share a wave; a vote, a truncation, a purge and
//! a wanted sync first finish what came before them.
//!
//! Space is taken from the file system in steps ahead of the writes, so that a sync need not
//! record a new length. A file system that cannot, or has too little left, is no failure: the
//! write itself then makes the file longer.
//!
//! After a failed write or sync nothing is written any more: the kernel may have dropped pages
//! that it could not write, and a later sync would not say so. Every waiting caller gets the
//! error; reads go on.
//!
//! Left out: retries, and io_uring (house.md says why).

mod cut;
mod op;
mod put;
mod sync;
mod syncer;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, TryRecvError};

use crate::disk::write_all_at;
use crate::format::{HEADER_BYTES, encode_header};
use crate::marks::{Hint, Point};
use crate::options::Fsync;
use crate::segment::{Inside, Segment};
use crate::sidecar;
use crate::slots::Slots;
use crate::state::{Planned, Shared};
pub use op::Done;
pub(crate) use op::{Answer, Op};
pub(crate) use sync::Syncing;
pub(crate) use syncer::{Syncer, Told};

/// Bytes of one wave: long enough to keep a disk busy between two syncs, short enough that the
/// first caller of the wave does not wait for much more than its own write.
const WAVE_BYTES_MAX: u64 = 8 << 20;

/// Bytes that are written in the caller's thread, and those that are synced there: what is longer
/// keeps the disk busy while the caller gets on with what follows.
const WRITE_HERE_BYTES_MAX: u64 = 1 << 20;
const SYNC_HERE_BYTES_MAX: u64 = 16 << 10;

/// A write into the page cache takes some ten microseconds. What takes so long waits for a disk
/// that cannot keep up: for a while callers get on and leave the waiting to the thread.
const SLOW_US: u64 = 2_000;
const SLOW_PAUSE_US: u64 = 1_000_000;

/// The writer's own state.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub queue: Receiver<Op>,
    pub vote: Slots,
    pub purge: Slots,
    pub hint_slots: Slots,
    pub hint: Hint,
    /// The segment that is written to.
    pub open: Arc<Segment>,
    /// Length of its file.
    pub allocated: u64,
    /// Bytes of it that are durable.
    pub synced: u64,
    /// Bytes of it that were found at the start and are to be written again before the first sync. It
    /// may be shorter by then, or another: to write what is there changes nothing.
    pub found: u64,
    /// Whether the file system has refused to take space in advance.
    pub cannot_preallocate: bool,
    /// Whether something is written and not yet synced.
    pub is_dirty: bool,
    pub last_sync_us: u64,
    /// How long a sync takes, by the last ones; none has been made yet where it is none.
    pub sync_takes_us: Option<u64>,
    /// Until when callers do not write in their own threads.
    pub slow_until_us: u64,
    /// Whether something was acknowledged that the hint's file does not say.
    pub hint_is_old: bool,
    /// Appends of this wave, and who waits for them.
    pub writes: Vec<Planned>,
    pub waiting: Vec<Done>,
    /// Who syncs beside; none where a sync comes before each acknowledgement, or the log is driven.
    pub syncer: Option<Syncer>,
    /// The sync that is on its way there, and who waits for one that is not begun yet.
    pub syncing: Option<Syncing>,
    pub wanting: Vec<Done>,
    /// Answers that whoever runs the writer gives for it; none where it answers at once.
    pub held: Option<Vec<Answer>>,
}

impl Writer {
    /// Does what is queued now, up to the bytes of a wave; `false` when the log was closed.
    pub(crate) fn turn(&mut self) -> bool {
        let goes_on = match self.queue.try_recv() {
            Ok(first) => self.wave(first),
            Err(TryRecvError::Empty) => self.wave(Op::Wake),
            Err(TryRecvError::Disconnected) => false,
        };
        if !goes_on {
            self.end();
        }
        goes_on
    }

    /// Takes what has queued, and makes it durable; `false` when the last operation was among it.
    fn wave(&mut self, first: Op) -> bool {
        let _on_panic = OnPanic(self.shared.clone());
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(op) = next {
            bytes += op.bytes();
            if self.take(op) {
                return false;
            }
            next = if bytes < WAVE_BYTES_MAX { self.queue.try_recv().ok() } else { None };
        }
        self.flush();
        self.note();
        self.sync_when_due();
        true
    }

    /// From now on answers wait in [`Self::take_answers`].
    pub(crate) fn hold_answers(&mut self) {
        self.held = Some(Vec::new());
    }

    /// The answers that were held, in order.
    pub(crate) fn take_answers(&mut self) -> Vec<Answer> {
        self.held.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn answer(&mut self, done: Done, result: io::Result<()>) {
        match &mut self.held {
            Some(held) => held.push((done, result)),
            None => done(result),
        }
    }

    /// Does what needs no wait and comes behind all that was queued; returns what is left to be
    /// queued: the operation itself, or a wake for whoever is to sync it in time.
    pub(crate) fn do_at_once(&mut self, op: Op) -> Option<Op> {
        let now = self.shared.clock.monotonic_us();
        let waits = now < self.slow_until_us || self.is_sync_late();
        if !self.queue.is_empty() || waits || !self.is_quick(&op) {
            return Some(op);
        }
        let _on_panic = OnPanic(self.shared.clone());
        let was_dirty = self.is_dirty;
        // Who appends notes soon what is committed by that: one write then tells both.
        if self.hint_is_old || matches!(op, Op::Wake) {
            self.note();
        }
        self.take(op);
        self.flush();
        let took = self.shared.clock.monotonic_us().saturating_sub(now);
        if took > SLOW_US {
            self.slow_until_us = now + SLOW_PAUSE_US;
        }
        let begins_to_wait = self.is_dirty && !was_dirty && self.sync_due().is_some();
        begins_to_wait.then_some(Op::Wake)
    }

    /// Whether an operation is no more than a write into the page cache, or a quick sync where the
    /// caller allows it.
    fn is_quick(&self, op: &Op) -> bool {
        let Op::Append { writes, may_sync, .. } = op else { return matches!(op, Op::Wake) };
        let bytes_max = if self.shared.options.fsync != Fsync::Always {
            WRITE_HERE_BYTES_MAX
        } else if *may_sync && self.is_sync_quick() {
            SYNC_HERE_BYTES_MAX
        } else {
            0
        };
        op.bytes() <= bytes_max
            && writes.iter().all(|write| Arc::ptr_eq(&write.segment, &self.open))
    }

    /// Takes an operation in; `true` when it was the last one.
    fn take(&mut self, op: Op) -> bool {
        match op {
            Op::Append { writes, done, .. } => {
                self.writes.extend(writes);
                self.waiting.push(done);
            }
            Op::Wake => {}
            Op::Close => {
                self.flush();
                return true;
            }
            Op::Vote { vote, done } => {
                self.flush();
                let saved = self.attempt("save the vote", |writer| writer.save_vote(&vote));
                if saved.is_ok() {
                    self.shared.marks.lock().vote = Some(vote);
                }
                self.answer(done, saved);
            }
            Op::Truncate { last, done, finished } => {
                self.flush();
                let cut = self.truncate(last);
                drop(finished);
                self.answer(done, cut);
            }
            Op::Purge { upto, term, end_offset, done, finished } => {
                self.flush();
                let purged = self.purge(upto, term, end_offset);
                drop(finished);
                self.answer(done, purged);
            }
            Op::Sync { done } if self.syncer.is_some() => {
                self.flush();
                self.wanting.push(done);
            }
            Op::Sync { done } => {
                self.flush();
                let synced = self.attempt("sync", Self::sync);
                self.answer(done, synced);
            }
            Op::PutCompressed { segment, made, done } => {
                let put = self.put_compressed(&segment, made);
                self.answer(done, put);
            }
        }
        false
    }

    /// Does something that must not fail: if it does, the log refuses writes.
    fn attempt<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(reason) = self.shared.marks.lock().failed.clone() {
            return Err(io::Error::other(reason));
        }
        let worked = work(self);
        if let Err(error) = &worked {
            let reason = format!("cannot {what} in {}: {error}", self.shared.dir.display());
            self.shared.fail(reason);
        }
        worked
    }

    fn save_vote(&mut self, vote: &[u8]) -> io::Result<()> {
        // What was queued before the vote is as safe as ever before it: it was flushed.
        self.vote.write(vote)?;
        self.vote.sync()
    }

    /// Writes the wave, syncs as the options say, and answers.
    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.is_sync_late() {
            let _ = self.settle_sync(true);
        }
        let writes = std::mem::take(&mut self.writes);
        let bytes: u64 = writes.iter().map(|write| write.batch.header.stored_len()).sum();
        let last = writes.last().map(|write| {
            let header = &write.batch.header;
            Point { term: header.term, index: header.index, end_offset: header.end_offset() }
        });
        let flushed = self.attempt("append", |writer| {
            writer.write(&writes)?;
            if writer.shared.options.fsync == Fsync::Always { writer.sync() } else { Ok(()) }
        });
        drop(writes);
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let (Ok(()), Some(last)) = (&flushed, last) {
            self.acknowledge(last);
        }
        for done in std::mem::take(&mut self.waiting) {
            self.answer(done, flushed.as_ref().copied().map_err(copy_of));
        }
    }

    /// Notes how far the log is safe: before anyone is told, or soon after where being told is no
    /// promise of a sync.
    fn acknowledge(&mut self, last: Point) {
        self.hint.acknowledged = Some(last);
        self.hint_is_old = true;
        if self.shared.options.fsync == Fsync::Always {
            self.note();
        }
        self.shared.marks.lock().flushed = Some(last.index);
        self.shared.marks_changed.notify_all();
    }

    /// Writes the hint, if there is something new to say.
    fn note(&mut self) {
        if self.take_committed() || self.hint_is_old {
            self.write_hint();
        }
    }

    /// Takes the caller's committed bytes into the hint; `false` when there are no new ones.
    fn take_committed(&mut self) -> bool {
        let mut committed = self.shared.committed.lock();
        if committed.is_new {
            self.hint.committed.clone_from(&committed.bytes);
        }
        std::mem::take(&mut committed.is_new)
    }

    /// Writes the hint. It is only a hint: a failure costs evidence, not data.
    fn write_hint(&mut self) {
        self.hint_is_old = false;
        if let Err(error) = self.hint_slots.write(&self.hint.encode()) {
            tracing::warn!(dir = %self.shared.dir.display(), %error,
                "cannot note how far the log is committed");
        }
    }

    /// Writes batches, one gathered write a segment.
    fn write(&mut self, writes: &[Planned]) -> io::Result<()> {
        for run in writes.chunk_by(|a, b| Arc::ptr_eq(&a.segment, &b.segment)) {
            let Some(first) = run.first() else { continue };
            if !Arc::ptr_eq(&first.segment, &self.open) {
                self.roll(&first.segment)?;
            }
            self.write_run(first.position, run)?;
            self.publish(run);
        }
        Ok(())
    }

    fn write_run(&mut self, position: u64, run: &[Planned]) -> io::Result<()> {
        let mut end = position;
        let headers: Vec<_> = run
            .iter()
            .map(|write| {
                let unsynced = u32::try_from(write.position - self.synced).unwrap_or(u32::MAX);
                end = write.position + write.batch.header.stored_len();
                encode_header(&write.batch.header, unsynced, &write.batch.body)
            })
            .collect();
        let bodies = run.iter().map(|write| &write.batch.body);
        let mut parts: Vec<_> = headers
            .iter()
            .zip(bodies)
            .flat_map(|(header, body)| [IoSlice::new(header), IoSlice::new(body)])
            .collect();
        debug_assert_eq!(
            end - position,
            parts.iter().map(|part| part.len() as u64).sum::<u64>(),
            "batches of {HEADER_BYTES} bytes and a body, without a gap"
        );
        self.preallocate(end);
        self.is_dirty = true;
        let file = self.open.file().ok_or(io::ErrorKind::NotFound)?;
        write_all_at(&**file, &mut parts, position)?;
        self.allocated = self.allocated.max(end);
        self.shared.spare_bytes.store(self.allocated - end, Ordering::Relaxed);
        Ok(())
    }

    /// Takes space for everything up to `end`, and a step more.
    fn preallocate(&mut self, end: u64) {
        let step = self.shared.options.preallocate_bytes;
        if end <= self.allocated || step == 0 || self.cannot_preallocate {
            return;
        }
        let steps = (end - self.allocated).div_ceil(step);
        let wanted =
            (self.allocated + steps * step).min(self.shared.options.segment_bytes.max(end));
        let Some(file) = self.open.file() else { return };
        match file.preallocate(self.allocated, wanted - self.allocated) {
            Ok(()) => self.allocated = wanted,
            // Nearly full: what is to be written may fit all the same.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => {
                tracing::info!(dir = %self.shared.dir.display(), %error,
                    "the file system takes no space in advance; appends will be slower");
                self.cannot_preallocate = true;
            }
        }
    }

    /// Makes written batches findable on disk, then lets go of their copies in memory.
    fn publish(&self, run: &[Planned]) {
        if let Inside::Open(index) = &mut *self.open.inside.write() {
            for write in run {
                index.add(write.position, &write.batch);
            }
        }
        let bytes: u64 = run.iter().map(|write| write.batch.header.stored_len()).sum();
        let mut state = self.shared.state.write();
        state.stored_bytes += bytes;
        state.written = run.last().map(|write| write.batch.header.index).or(state.written);
        let written = state.written;
        state.tail.shrink(written, self.shared.options.tail_cache_bytes);
    }

    /// Closes the open segment for good and begins the next.
    fn roll(&mut self, next: &Arc<Segment>) -> io::Result<()> {
        self.seal()?;
        self.begin(next)
    }

    /// Gives a planned segment its file and makes it the open one.
    fn begin(&mut self, next: &Arc<Segment>) -> io::Result<()> {
        let file = self.shared.disk.create(&next.path)?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        next.set_file(file);
        self.open = next.clone();
        self.allocated = 0;
        self.synced = 0;
        self.found = 0;
        Ok(())
    }

    /// A sealed segment is as long as its batches, durable, and has its index beside it.
    fn seal(&mut self) -> io::Result<()> {
        let size = self.open.summary().size;
        let file = self.open.file().ok_or(io::ErrorKind::NotFound)?;
        if self.allocated > size {
            file.set_size(size)?;
        }
        self.is_dirty = true;
        self.sync()?;
        let mut inside = self.open.inside.write();
        let Inside::Open(index) = &*inside else { return Ok(()) };
        let summary = *index.summary();
        let sealed = std::mem::replace(&mut *inside, Inside::Sealed(summary));
        // Readers need not wait for the sidecar: the cache has the index.
        if let Inside::Open(index) = sealed {
            let index = Arc::new(index);
            self.shared.indexes.put(&self.open, index.clone());
            drop(inside);
            sidecar::write(&*self.shared.disk, &self.open.path, &index);
        }
        Ok(())
    }

    /// The end of a closed log: everything durable, the hint too.
    fn end(&mut self) {
        self.take_committed();
        self.write_hint();
        self.sync_last();
    }
}

/// An error is not `Clone`, and everyone who waits must get it.
fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// A panic of the writer must not look like a slow disk.
struct OnPanic(Arc<Shared>);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the log's writer panicked".to_owned());
        }
    }
}
