//! Reading batches back: from the tail in memory where they are there, else from the segments.
//!
//! A read looks up where its first batch is (under the state's lock), lets go of the lock, and
//! walks from the last batch that begins a block through the file with positioned reads. Every batch is
//! checked again. One answer may be shorter than asked for; it is never empty when there is
//! something to read, and never goes past damage: the damage is the answer of the next read.
//!
//! A truncation may take away what is being read. A reader that finds nonsense therefore looks
//! whether the log was truncated meanwhile, and begins again; only otherwise it is damage.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aklight_common::{Offset, RaftIndex};

use crate::damage::Broken;
use crate::disk::DiskFile;
use crate::errors::ReadError;
use crate::format::{Batch, BatchKind};
use crate::index::{Block, SegmentIndex, Summary};
use crate::report::Damage;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::{Inside, Segment, sidecar_path};
use crate::state::{Shared, State};

/// What a reader of little reads at once: about a block of the index.
const READ_CHUNK_BYTES_MIN: usize = 16 << 10;

/// Where a read begins.
#[derive(Clone, Copy)]
pub(crate) enum Seek {
    Index(RaftIndex),
    Offset(Offset),
}

/// Where a read ends, and what it leaves out.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub to_index: RaftIndex,
    pub to_offset: Offset,
    pub bytes_max: usize,
    pub records_only: bool,
}

/// Where the first batch was found.
enum Source {
    End,
    Tail,
    Segment(Place),
    /// Between two segments.
    Missing(Damage),
}

/// A segment to walk through, as it was when the state was looked at.
struct Place {
    segment: Arc<Segment>,
    summary: Summary,
    is_sealed: bool,
    /// What comes behind the segment.
    behind: Next,
    truncations: u64,
}

/// The batches of an answer.
struct Answer {
    batches: Vec<Batch>,
    bytes: usize,
    limit: Limit,
}

impl Answer {
    /// Whether the next batch would not fit in, as far as is known before it is read: its body's length
    /// where that much was read of it. What would be read in vain costs as much as what is answered.
    fn is_full_for(&self, body_len: Option<usize>) -> bool {
        let (bytes, bytes_max) = (self.bytes, self.limit.bytes_max);
        !self.batches.is_empty()
            && body_len.map_or(bytes > bytes_max / 2, |len| bytes + len > bytes_max)
    }

    /// Takes a batch in; `false` when the answer is complete without it.
    fn take(&mut self, batch: &Batch) -> bool {
        let header = &batch.header;
        if header.index >= self.limit.to_index || header.end_offset() > self.limit.to_offset {
            return false;
        }
        if self.limit.records_only && header.kind != BatchKind::Records {
            return true;
        }
        let bytes = self.bytes + batch.body.len();
        if !self.batches.is_empty() && bytes > self.limit.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.batches.push(batch.clone());
        true
    }
}

/// How a walk through a segment ended.
enum Walked {
    /// The answer is complete.
    Enough,
    /// The segment ended; the log goes on with this entry.
    On(RaftIndex),
    Damaged(Damage),
    /// The segment was truncated under the walk.
    Again,
}

impl Shared {
    pub(crate) fn read_indexes(
        &self,
        from: RaftIndex,
        to: RaftIndex,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let from = {
            let state = self.state.read();
            let first = state.first_index();
            let is_gone = state.purged.is_some() || state.start_offset() > Offset(0);
            if from < first && is_gone {
                return Err(ReadError::Purged { asked: from.0, first: state.start_offset() });
            }
            let end = state.last.map_or(first, |last| last.1.next());
            if from > end {
                return Err(ReadError::BeyondEnd { asked: from.0, end: state.end_offset });
            }
            // A log that never lost anything may begin with a later entry than the first.
            from.max(first)
        };
        let limit =
            Limit { to_index: to, to_offset: Offset(u64::MAX), bytes_max, records_only: false };
        self.read(Seek::Index(from), limit)
    }

    pub(crate) fn read_offsets(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        if from >= to {
            return Ok(Vec::new());
        }
        {
            let state = self.state.read();
            if from < state.start_offset() {
                return Err(ReadError::Purged { asked: from.0, first: state.start_offset() });
            }
            if from > state.end_offset {
                return Err(ReadError::BeyondEnd { asked: from.0, end: state.end_offset });
            }
        }
        let limit =
            Limit { to_index: RaftIndex(u64::MAX), to_offset: to, bytes_max, records_only: true };
        self.read(Seek::Offset(from), limit)
    }

    fn read(&self, start: Seek, limit: Limit) -> Result<Vec<Batch>, ReadError> {
        let new = || Answer { batches: Vec::new(), bytes: 0, limit };
        let (mut answer, mut seek, mut from_disk) = (new(), start, false);
        loop {
            let walked = match self.find(seek, &mut answer) {
                Source::End | Source::Tail => Walked::Enough,
                Source::Missing(damage) => Walked::Damaged(damage),
                Source::Segment(place) => {
                    from_disk = true;
                    let path = place.segment.path.clone();
                    Walk { shared: self, place }
                        .run(seek, &mut answer)
                        .map_err(|source| ReadError::Io { path, source })?
                }
            };
            match walked {
                Walked::Enough => {
                    if from_disk && matches!(start, Seek::Index(_)) {
                        self.remember(&answer.batches);
                    }
                    return Ok(answer.batches);
                }
                Walked::On(index) => seek = Seek::Index(index),
                Walked::Again => (answer, seek) = (new(), start),
                Walked::Damaged(damage) if answer.batches.is_empty() => {
                    return Err(ReadError::Damaged {
                        from: damage.from,
                        resume: damage.resume,
                        resume_index: damage.resume_index,
                        file: damage.file,
                    });
                }
                Walked::Damaged(_) => return Ok(answer.batches),
            }
        }
    }

    /// Keeps the offsets of entries that were read: who reads entries asks for them next.
    fn remember(&self, batches: &[Batch]) {
        let pairs = batches.iter().map(|batch| (batch.header.index, batch.header.base_offset));
        *self.last_read.lock() = pairs.collect();
    }

    /// Finds where to read; answers from the tail at once.
    fn find(&self, seek: Seek, answer: &mut Answer) -> Source {
        let state = self.state.read();
        let in_tail = match seek {
            Seek::Index(index) => state.tail.since_index(index).map(|tail| take_all(tail, answer)),
            Seek::Offset(offset) => {
                state.tail.since_offset(offset).map(|tail| take_all(tail, answer))
            }
        };
        if in_tail.is_some() {
            return Source::Tail;
        }
        let ended = match seek {
            Seek::Index(index) => state.last.is_none_or(|last| index > last.1),
            Seek::Offset(offset) => offset >= state.end_offset,
        };
        if ended {
            return Source::End;
        }
        let behind = state.segments.partition_point(|segment| match seek {
            Seek::Index(index) => segment.first_index() <= index,
            Seek::Offset(offset) => segment.base_offset <= offset,
        });
        let after = next_of(&state, behind);
        let Some(segment) = behind.checked_sub(1).and_then(|place| state.segments.get(place))
        else {
            return Source::Missing(missing(&self.dir, state.first_next(), after));
        };
        let (summary, is_sealed) = match &*segment.inside.read() {
            Inside::Open(index) => (*index.summary(), false),
            Inside::Sealed(summary) => (*summary, true),
        };
        Source::Segment(Place {
            segment: segment.clone(),
            summary,
            is_sealed,
            behind: after,
            truncations: state.truncations,
        })
    }

    /// Walks through one block to the first batch that `wanted` takes.
    pub(crate) fn first_in_block(
        &self,
        segment: &Segment,
        block: Block,
        wanted: impl Fn(&Batch) -> bool,
    ) -> io::Result<Option<Batch>> {
        let summary = segment.summary();
        let Some(file) = segment.file() else { return Ok(None) };
        let start = Next { index: block.index, offset: block.base_offset };
        let mut cursor =
            Cursor::new(&**file, block.position, summary.size, Some(start), READ_CHUNK_BYTES);
        while let Step::Batch(_, batch) = cursor.step()? {
            if wanted(&batch) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// The block of a segment where a walk begins.
    pub(crate) fn block(&self, segment: &Segment, seek: Seek) -> io::Result<Option<Block>> {
        let look = |index: &SegmentIndex| match seek {
            Seek::Index(at) => index.block_of_index(at),
            Seek::Offset(at) => index.block_of_offset(at),
        };
        if let Inside::Open(index) = &*segment.inside.read() {
            return Ok(look(index));
        }
        Ok(look(&*self.indexes.get(&*self.disk, segment)?))
    }
}

fn take_all<'a>(tail: impl Iterator<Item = &'a Batch>, answer: &mut Answer) {
    for batch in tail {
        if !answer.take(batch) {
            break;
        }
    }
}

/// What comes behind the segments before `place`.
fn next_of(state: &State, place: usize) -> Next {
    match state.segments.get(place) {
        Some(segment) => Next { index: segment.first_index(), offset: segment.base_offset },
        None => Next {
            index: state.last.map_or(state.first_index(), |last| last.1.next()),
            offset: state.end_offset,
        },
    }
}

/// A stretch of which not even a file is left.
fn missing(dir: &Path, from: Next, resume: Next) -> Damage {
    Damage {
        segment: dir.to_owned(),
        position: 0,
        bytes: 0,
        from: from.offset,
        resume: resume.offset,
        from_index: from.index,
        resume_index: resume.index,
        file: dir.to_owned(),
    }
}

/// A walk through one segment.
struct Walk<'a> {
    shared: &'a Shared,
    place: Place,
}

impl Walk<'_> {
    fn run(&self, seek: Seek, answer: &mut Answer) -> io::Result<Walked> {
        let Place { segment, summary, is_sealed, behind, .. } = &self.place;
        let Some(file) = segment.file() else {
            // Nothing was written yet, and the tail was cut since it was looked at.
            return Ok(if self.is_stale() { Walked::Again } else { Walked::Enough });
        };
        let (position, next) = match self.shared.block(segment, seek) {
            Ok(Some(block)) => {
                (block.position, Next { index: block.index, offset: block.base_offset })
            }
            // The index cannot be read: walk from the start.
            Ok(None) | Err(_) => {
                (0, Next { index: summary.first_index, offset: summary.base_offset })
            }
        };
        let chunk = answer.limit.bytes_max.clamp(READ_CHUNK_BYTES_MIN, READ_CHUNK_BYTES);
        let mut cursor = Cursor::new(&**file, position, summary.size, Some(next), chunk);
        loop {
            if answer.is_full_for(cursor.body_len_ahead()) {
                return Ok(Walked::Enough);
            }
            let (is_end, next) = match cursor.step()? {
                Step::Batch(_, batch) => {
                    let is_before = match seek {
                        Seek::Index(index) => batch.header.index < index,
                        Seek::Offset(offset) => batch.header.end_offset() <= offset,
                    };
                    if !is_before && !answer.take(&batch) {
                        return Ok(Walked::Enough);
                    }
                    continue;
                }
                Step::End => (true, cursor.next().unwrap_or(next)),
                Step::Broken => (false, cursor.next().unwrap_or(next)),
            };
            if self.is_stale() {
                return Ok(Walked::Again);
            }
            // Of a segment that was open, more may have been written since: look again.
            if is_end && (!is_sealed || *behind == next) {
                return Ok(Walked::On(next.index));
            }
            let damage = self.damage(&**file, cursor.position(), summary.size, next)?;
            let sought_behind = match seek {
                Seek::Index(index) => index >= damage.resume_index,
                Seek::Offset(offset) => offset >= damage.resume,
            };
            if !sought_behind {
                return Ok(Walked::Damaged(damage));
            }
            let resume = Next { index: damage.resume_index, offset: damage.resume };
            if resume == *behind || damage.position + damage.bytes >= summary.size {
                return Ok(Walked::On(resume.index));
            }
            cursor.jump(damage.position + damage.bytes, resume);
        }
    }

    fn is_stale(&self) -> bool {
        self.shared.state.read().truncations != self.place.truncations
    }

    /// The damage at a position: known, or examined now and remembered.
    fn damage(
        &self,
        file: &dyn DiskFile,
        position: u64,
        end: u64,
        from: Next,
    ) -> io::Result<Damage> {
        let segment = &self.place.segment;
        if let Some(known) = segment.damage_at(position) {
            return Ok(known);
        }
        let broken = Broken {
            disk: &*self.shared.disk,
            segment: &segment.path,
            file,
            position,
            end,
            from,
            behind: self.place.behind,
        };
        let damage = broken.examine()?;
        segment.damages.lock().push(damage.clone());
        self.shared.found_damage.store(true, Ordering::Relaxed);
        if self.place.is_sealed {
            // The sidecar knows nothing of it, and the next opening would believe it. That it
            // cannot be removed is no harm: the next reader finds the damage again.
            let _ = self.shared.disk.remove(&sidecar_path(&segment.path));
        }
        Ok(damage)
    }
}

impl State {
    /// What the log begins with, or should.
    fn first_next(&self) -> Next {
        Next { index: self.first_index(), offset: self.start_offset() }
    }
}
