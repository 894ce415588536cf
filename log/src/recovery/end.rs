//! Where the log ends, and what lies between its segments.

use std::io::{self, IoSlice};
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use super::loaded::Loaded;
use super::{Kept, Recovered, Recovery, at};
use crate::compressed::SegmentFile;
use crate::damage::{Broken, set_aside};
use crate::disk::{DiskFile, write_all_at};
use crate::errors::OpenError;
use crate::marks::Point;
use crate::report::{Damage, LostEnd, TornTail};
use crate::scan::{Next, READ_CHUNK_BYTES, read_rest};
use crate::segment::{Inside, Segment, SegmentName};

/// Where the log ends.
pub(super) struct End {
    next: Next,
    last: Option<(Term, RaftIndex)>,
    /// Whether the log must go on in a new segment.
    new_segment: bool,
}

impl Recovery<'_> {
    /// Compares where each segment ends with where the next begins.
    pub(super) fn find_gaps(&mut self, found: &mut [Loaded]) {
        let start = self.purged.map(|p| Next { index: p.index.next(), offset: p.end_offset });
        if let Some(first) = found.first_mut() {
            let begins =
                Next { index: first.summary.first_index, offset: first.summary.base_offset };
            // Without a purge offsets begin at 0. So do entries, if some are missing; a log
            // that lost none may have been begun with a later one.
            let is_begin = first.name == SegmentName::BEGIN;
            let first_index = if is_begin { begins.index } else { RaftIndex(0) };
            let start = start.unwrap_or(Next { index: first_index, offset: Offset(0) });
            if begins.offset > start.offset || begins.index > start.index {
                let damage = self.gap(first, 0, start, begins);
                self.report.damaged.push(damage);
            }
        }
        for place in 1..found.len() {
            let (before, behind) = found.split_at_mut(place);
            let (before, behind) = (&mut before[place - 1], &behind[0]);
            let (ends, begins) = (
                before.next(),
                Next { index: behind.summary.first_index, offset: behind.summary.base_offset },
            );
            if begins.offset > ends.offset || begins.index > ends.index {
                let damage = self.gap(before, before.leftover, ends, begins);
                before.damages.push(damage.clone());
                self.report.damaged.push(damage);
            }
        }
    }

    /// Damage at the end of a segment's good batches.
    fn gap(&self, segment: &Loaded, bytes: u64, from: Next, resume: Next) -> Damage {
        let broken = Broken {
            disk: self.disk,
            segment: &segment.path,
            file: &*segment.file,
            position: if bytes == 0 && from.index < segment.summary.first_index {
                0
            } else {
                segment.summary.size
            },
            end: segment.summary.size + bytes,
            from,
            behind: resume,
        };
        broken.describe(bytes, resume)
    }

    /// The last entry before the log's end: of a segment, or known from a mark where the entry
    /// itself is purged or lost.
    fn last_before(&self, next: Next, found: &[Loaded]) -> Option<(Term, RaftIndex)> {
        let stored = found.iter().rev().find(|loaded| !loaded.is_empty());
        let stored = stored.map(|l| (l.summary.last_term, l.summary.next_index));
        let known = self.purged.into_iter().chain(self.acknowledged);
        let known = known.map(|point| (point.term, point.index.next()));
        let before = known.chain(stored).filter(|(_, behind)| *behind <= next.index);
        let (term, _) = before.max_by_key(|(_, behind)| *behind)?;
        Some((term, RaftIndex(next.index.0.checked_sub(1)?)))
    }

    /// Decides where the log ends, and cuts off or sets aside what is behind.
    pub(super) fn settle_end(&mut self, found: &mut Vec<Loaded>) -> Result<End, OpenError> {
        let start = self.purged.map_or(Next { index: RaftIndex(0), offset: Offset(0) }, |point| {
            Next { index: point.index.next(), offset: point.end_offset }
        });
        let stored = found.last().map_or(start, Loaded::next);
        // A tail that ends before the purge was cut short; nothing goes on in it.
        let is_behind = stored.index < start.index;
        let next = if is_behind { start } else { stored };
        let last = self.last_before(next, found);
        // Terms never fall, so what ends with a later term than the acknowledged entry's was
        // truncated since, or mended: nothing is lost.
        let is_lost = |point: &Point| {
            point.index >= next.index && last.is_none_or(|(term, _)| term <= point.term)
        };
        let lost = self.acknowledged.filter(is_lost);

        if let Some(tail) = found.last_mut().filter(|tail| tail.leftover > 0 || lost.is_some()) {
            let position = tail.summary.size;
            if let Some(lost) = lost {
                let resume = resume_behind(lost, next);
                let damage = self.gap(tail, tail.leftover, next, resume);
                let is_safe = damage.bytes == 0 || damage.file != tail.path;
                tail.damages.push(damage.clone());
                self.report.damaged.push(damage);
                if !is_safe {
                    // The bytes could not be copied: they stay where they are, in a segment that
                    // the log does not go on in.
                    return Ok(Self::end_behind(lost, next));
                }
            } else {
                let file = tail.leftover_holds_batches.then(|| {
                    set_aside(self.disk, &tail.path, &*tail.file, position, tail.leftover)
                });
                let (segment, bytes) = (tail.path.clone(), tail.leftover);
                tracing::warn!(segment = %segment.display(), position, bytes,
                    "cut off a write that was never finished");
                self.report.torn = Some(TornTail { segment, position, bytes, file });
            }
            tail.file.set_size(position).map_err(at("cut", &tail.path))?;
        } else if let Some(lost) = lost {
            let missing = self.all_missing(next, resume_behind(lost, next));
            self.report.damaged.push(missing);
        }
        if let Some(lost) = lost {
            return Ok(Self::end_behind(lost, next));
        }
        // What could be looked at of such a tail is set aside now. It must not stay: a truncation
        // to the purged entry would look for that entry's end in it.
        if is_behind {
            self.remove(found.drain(..))?;
        }
        Ok(End { next, last, new_segment: found.is_empty() })
    }

    fn all_missing(&self, from: Next, resume: Next) -> Damage {
        tracing::error!(dir = %self.dir.display(), resume = resume.offset.0,
            "every segment of the log is missing");
        Damage {
            segment: self.dir.to_owned(),
            position: 0,
            bytes: 0,
            from: from.offset,
            resume: resume.offset,
            from_index: from.index,
            resume_index: resume.index,
            file: self.dir.to_owned(),
        }
    }

    /// The end of a log that lost its tail: a new segment behind what was acknowledged.
    fn end_behind(lost: Point, next: Next) -> End {
        End {
            next: resume_behind(lost, next),
            last: Some((lost.term, lost.index)),
            new_segment: true,
        }
    }

    /// Syncs what was found and makes the segments of the state.
    pub(super) fn finish(
        mut self,
        mut found: Vec<Loaded>,
        end: End,
        mut kept: Kept,
    ) -> Result<Recovered, OpenError> {
        let mut synced = 0;
        if let Some(tail) = found.last() {
            let size = tail.summary.size;
            // Where the log was cut off just now, or by a process that died before its sync, the file
            // ends with the last batch: what follows relies on the cut.
            let is_cut = tail.file.size().map_err(at("read", &tail.path))? <= size;
            synced = tail.vouched.min(size);
            if !self.syncs_later || is_cut || end.new_segment {
                let again = write_again(&*tail.file, synced, size);
                again.and_then(|()| tail.file.sync()).map_err(at("sync", &tail.path))?;
                synced = size;
            }
        }
        for (slots, name) in [(&mut kept.vote, "vote"), (&mut kept.purge, "purged")] {
            slots.rewrite().map_err(at("sync", &self.dir.join(name)))?;
        }
        let before = found.last().map(|loaded| loaded.name);
        let mut allocated = 0;
        let open_one = if end.new_segment { None } else { found.pop() };
        let mut segments = Vec::new();
        for loaded in found {
            if end.new_segment && Some(loaded.name) == before {
                self.put_sidecar(&loaded);
            }
            let Loaded { name, file, compressed_bytes, summary, damages, .. } = loaded;
            let file = SegmentFile { file, compressed_bytes };
            let sealed = Inside::Sealed(summary);
            segments.push(Arc::new(Segment::existing(self.dir, name, sealed, file, damages)));
        }
        segments.push(match open_one {
            Some(Loaded { name, path, file, index: Some(index), damages, .. }) => {
                allocated = file.size().map_err(at("read", &path))?;
                let file = SegmentFile { file, compressed_bytes: None };
                Arc::new(Segment::existing(self.dir, name, Inside::Open(index), file, damages))
            }
            _ => {
                self.create(SegmentName::after(before, end.next.offset, end.next.index), end.next)?
            }
        });
        self.report.segments = segments.len();
        self.report.lost_end = self.lost_end(end.next);
        let Kept { lock, vote, purge, hint_slots, hint } = kept;
        Ok(Recovered {
            lock,
            vote,
            purge,
            hint_slots,
            hint,
            purged: self.purged,
            segments,
            last: end.last,
            end_offset: end.next.offset,
            allocated,
            synced: if end.new_segment { 0 } else { synced },
            report: self.report,
        })
    }

    /// The hole that the log ends with, if it does: now, or since an earlier opening.
    fn lost_end(&self, next: Next) -> Option<LostEnd> {
        let point = self.acknowledged.filter(|point| point.index.next() == next.index)?;
        let hole = self.report.damaged.iter().find(|damage| damage.resume_index == next.index)?;
        Some(LostEnd { from_index: hole.from_index, upto_index: point.index, term: point.term })
    }

    fn create(&self, name: SegmentName, next: Next) -> Result<Arc<Segment>, OpenError> {
        let segment = Segment::planned(self.dir, name, next.index, next.offset);
        let file = self.disk.create(&segment.path).map_err(at("create", &segment.path))?;
        segment.set_file(file);
        self.disk.sync_dir(self.dir).map_err(at("sync", self.dir))?;
        Ok(Arc::new(segment))
    }
}

/// Writes again what was found in a file and is not known to have been durable, for a sync that is to
/// follow. See [`Slots::rewrite`](crate::slots::Slots::rewrite) for why a sync alone would not do.
pub(crate) fn write_again(file: &dyn DiskFile, from: u64, upto: u64) -> io::Result<()> {
    let mut position = from;
    while position < upto {
        let end = upto.min(position + READ_CHUNK_BYTES as u64);
        let stretch = read_rest(file, position, end)?;
        write_all_at(file, &mut [IoSlice::new(&stretch)], position)?;
        position = end;
    }
    Ok(())
}

/// Where the log goes on when its acknowledged tail is lost.
fn resume_behind(lost: Point, next: Next) -> Next {
    Next { index: lost.index.next(), offset: lost.end_offset.max(next.offset) }
}
