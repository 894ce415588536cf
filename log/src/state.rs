//! What callers, readers and the writer thread share, and which lock guards what.
//!
//! ```text
//! purged ≤ flushed ≤ written ≤ last        start offset ≤ end offset
//! ```
//!
//! * `state`, a read-write lock: which segments there are, the tail, the bounds. Held for a few
//!   look-ups or pushes, never over a read, a write or a sync of the disk.
//! * `marks`, a mutex with a condition variable: what was acknowledged, and why no more will be.
//! * a segment's `inside`: its index, grown by the writer thread.
//!
//! They are taken in this order: `state`, then `inside`. A batch becomes readable when it enters
//! the tail, and leaves the tail only after the index of its segment knows it; so a reader that
//! holds `state` finds every entry in one of the two.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aklight_common::clock::SharedClock;
use aklight_common::{Offset, RaftIndex, Term};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::disk::Disk;
use crate::errors::{LogError, NoRoom};
use crate::format::{Batch, BatchHeader, BatchKind, HEADER_BYTES, NewBatch};
use crate::index_cache::IndexCache;
use crate::marks::Point;
use crate::options::LogOptions;
use crate::segment::{Segment, SegmentName};
use crate::tail::Tail;

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The last entry that was forgotten.
    pub purged: Option<(Term, RaftIndex)>,
    /// The first entry that is kept, or would be.
    pub first: RaftIndex,
    /// The last entry; the purged one where nothing follows it.
    pub last: Option<(Term, RaftIndex)>,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The next offset to be written.
    pub end_offset: Offset,
    /// The last entry that was acknowledged.
    pub flushed: Option<RaftIndex>,
    /// The last entry that was given to the file system.
    pub written: Option<RaftIndex>,
    /// Bytes of all segments as they are on the disk, compressed or not, and of what waits to be written;
    /// without space taken in advance. [`verify`](crate::verify()) tells them as they were written.
    pub bytes: u64,
}

/// Whether the log takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writable,
    /// It does not, until it is opened again, and why.
    Failed(String),
}

/// What was acknowledged, and why no more will be.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub flushed: Option<RaftIndex>,
    pub failed: Option<String>,
    pub vote: Option<Vec<u8>>,
}

/// The caller's committed bytes on their way into the hint.
#[derive(Debug, Default)]
pub(crate) struct CommittedHint {
    pub bytes: Option<Vec<u8>>,
    /// Given, and not yet written.
    pub is_new: bool,
}

/// Everything that more than one thread touches.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub options: LogOptions,
    pub clock: SharedClock,
    pub state: RwLock<State>,
    pub marks: Mutex<Marks>,
    pub marks_changed: Condvar,
    pub committed: Mutex<CommittedHint>,
    /// Whether a read met damage that the opening did not.
    pub found_damage: AtomicBool,
    /// Bytes of batches that wait for the writer thread.
    pub queued_bytes: AtomicU64,
    /// Bytes that the open segment's file has beyond its batches.
    pub spare_bytes: AtomicU64,
    pub indexes: IndexCache,
    /// Held by whoever compresses a segment.
    pub compressing: Mutex<()>,
    /// Entries and base offsets of what was last read from disk by entries: who reads entries
    /// asks for their offsets next.
    pub last_read: Mutex<Vec<(RaftIndex, Offset)>>,
}

impl Shared {
    pub(crate) fn bounds(&self) -> Bounds {
        let flushed = self.marks.lock().flushed;
        let state = self.state.read();
        Bounds {
            purged: state.purged.map(|point| (point.term, point.index)),
            first: state.first_index(),
            last: state.last,
            start_offset: state.start_offset(),
            end_offset: state.end_offset,
            // A truncation between the two locks may have taken entries away.
            flushed: flushed.min(state.last.map(|last| last.1)),
            written: state.written,
            bytes: state.stored_bytes + self.queued_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.marks.lock().failed.clone().map_or(Health::Writable, Health::Failed)
    }

    /// Refuses everything that writes from now on.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(dir = %self.dir.display(), reason, "the log refuses writes from now on");
        self.marks.lock().failed.get_or_insert(reason);
        self.marks_changed.notify_all();
    }

    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        let wanted = bytes + self.queued_bytes.load(Ordering::Relaxed);
        let spare = self.spare_bytes.load(Ordering::Relaxed);
        if wanted <= spare {
            return Ok(());
        }
        let dir = &self.dir;
        let needed = wanted - spare + self.options.reserve_bytes;
        match self.disk.free_bytes(dir) {
            Ok(free) if free >= needed => Ok(()),
            Ok(free) => Err(NoRoom::Full { dir: dir.clone(), free, needed }),
            Err(source) => Err(NoRoom::Unknown { dir: dir.clone(), source }),
        }
    }
}

/// Where a batch goes.
pub(crate) struct Planned {
    pub segment: Arc<Segment>,
    pub position: u64,
    pub batch: Batch,
}

/// What the log consists of.
pub(crate) struct State {
    /// In order, never empty. The last one is where appends are planned to go.
    pub segments: VecDeque<Arc<Segment>>,
    /// Bytes of the last segment, with what is queued for it.
    pub planned_bytes: u64,
    pub tail: Tail,
    pub purged: Option<Point>,
    pub last: Option<(Term, RaftIndex)>,
    pub end_offset: Offset,
    pub written: Option<RaftIndex>,
    /// Bytes of what is written, in all segments, as they are on the disk.
    pub stored_bytes: u64,
    /// How often entries were taken away: a reader that finds nonsense looks whether this moved.
    pub truncations: u64,
}

impl State {
    /// The state of a log as it was found on disk.
    pub(crate) fn opened(
        segments: Vec<Arc<Segment>>,
        purged: Option<Point>,
        last: Option<(Term, RaftIndex)>,
        end_offset: Offset,
    ) -> Self {
        let mut state = Self {
            planned_bytes: segments.last().map_or(0, |open| open.summary().size),
            segments: segments.into(),
            tail: Tail::default(),
            purged,
            last,
            end_offset,
            written: last.map(|last| last.1),
            stored_bytes: 0,
            truncations: 0,
        };
        state.count_stored();
        state
    }

    /// Counts the bytes of all segments: after some were taken away.
    pub(crate) fn count_stored(&mut self) {
        self.stored_bytes = self.segments.iter().map(|segment| segment.stored_bytes()).sum();
    }

    pub(crate) fn start_offset(&self) -> Offset {
        let first = self.segments.front().map_or(self.end_offset, |segment| segment.base_offset);
        self.purged.map_or(first.min(self.end_offset), |point| point.end_offset)
    }

    /// The first entry that is kept, or would be.
    pub(crate) fn first_index(&self) -> RaftIndex {
        match self.purged {
            Some(purged) => purged.index.next(),
            None => self.segments.front().map_or(RaftIndex(0), |segment| segment.first_index()),
        }
    }

    /// Checks that the batches follow on.
    pub(crate) fn check(&self, batches: &[NewBatch]) -> Result<(), LogError> {
        let mut last = self.last;
        for batch in batches {
            let got = batch.index;
            if let Some((term, index)) = last {
                if got != index.next() {
                    return Err(LogError::IndexGap { expected: index.next(), got });
                }
                if batch.term < term {
                    return Err(LogError::TermFalls { last: term, got: batch.term });
                }
            }
            if batch.kind != BatchKind::Records && batch.records > 0 {
                return Err(LogError::NoRecordsInKind(got));
            }
            if batch.body.len() > crate::format::BODY_BYTES_MAX {
                return Err(LogError::TooLarge { index: got, bytes: batch.body.len() });
            }
            last = Some((batch.term, got));
        }
        Ok(())
    }

    /// Gives checked batches their offsets and places, and makes them readable.
    pub(crate) fn plan(
        &mut self,
        batches: Vec<NewBatch>,
        dir: &Path,
        segment_bytes: u64,
    ) -> Vec<Planned> {
        let mut planned = Vec::with_capacity(batches.len());
        for new in batches {
            let batch = Batch {
                header: BatchHeader {
                    index: new.index,
                    term: new.term,
                    kind: new.kind,
                    base_offset: self.end_offset,
                    records: new.records,
                    first_time_us: new.first_time_us,
                    last_time_us: new.last_time_us,
                    // Checked: at most `BODY_BYTES_MAX`.
                    body_len: new.body.len() as u32,
                },
                body: new.body,
            };
            let segment = self.segment_for(&batch, dir, segment_bytes);
            let position = self.planned_bytes;
            self.planned_bytes += batch.header.stored_len();
            self.end_offset = batch.header.end_offset();
            self.last = Some((batch.header.term, batch.header.index));
            self.tail.push(batch.clone());
            planned.push(Planned { segment, position, batch });
        }
        planned
    }

    fn segment_for(&mut self, batch: &Batch, dir: &Path, segment_bytes: u64) -> Arc<Segment> {
        let index = batch.header.index;
        let full = self.planned_bytes > 0
            && self.planned_bytes + HEADER_BYTES as u64 + batch.body.len() as u64 > segment_bytes;
        match self.segments.back() {
            Some(open) if !full => {
                if self.planned_bytes == 0 {
                    open.begin_at(index);
                }
                open.clone()
            }
            before => {
                let name =
                    SegmentName::after(before.map(|before| before.name), self.end_offset, index);
                let next = Arc::new(Segment::planned(dir, name, index, self.end_offset));
                self.segments.push_back(next.clone());
                self.planned_bytes = 0;
                next
            }
        }
    }
}
