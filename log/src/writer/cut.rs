//! Taking entries away, at the end (truncation) and at the beginning (purge).
//!
//! Both are ordered so that a crash in between leaves a log that opens as before or as after:
//!
//! * **Truncation** first lowers the hint, durably: it must never vouch for what is being taken
//!   away. Then the segments behind the cut go, the last one first, and the one with the cut is
//!   shortened, synced and open again. Its index is built anew from what is left.
//!   A compressed one is first replaced by one that can be shortened, which says the same.
//! * **Purge** first writes the mark, durably; then whole segments go, the oldest first. Opening
//!   removes what the mark says is gone and is still there.
//!
//! Readers see the new state before the files change; one that was already reading holds its file
//! and notices (see `read`).

use std::io;
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use super::Writer;
use crate::compressed::SegmentFile;
use crate::compressed::write::expand;
use crate::disk::DiskFile;
use crate::index::SegmentIndex;
use crate::marks::{Point, encode_point};
use crate::recovery::remove_segment;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::{Inside, Segment, SegmentName, sidecar_path};

impl Writer {
    /// Takes away every entry behind `last`.
    pub(super) fn truncate(&mut self, last: Option<RaftIndex>) -> io::Result<()> {
        let (end, purged) = {
            let state = self.shared.state.read();
            (state.last.map(|last| last.1), state.purged.map(|point| point.index))
        };
        if last >= end {
            return Ok(());
        }
        if last < purged {
            return Err(invalid(format!(
                "cannot truncate behind {last:?}: entries up to {purged:?} are purged"
            )));
        }
        self.attempt("truncate", |writer| writer.cut_behind(last))
    }

    fn cut_behind(&mut self, last: Option<RaftIndex>) -> io::Result<()> {
        let (kept, gone) = {
            let state = self.shared.state.read();
            let behind = state
                .segments
                .partition_point(|segment| Some(segment.first_index()) <= last)
                .max(1);
            let gone: Vec<_> = state.segments.range(behind..).cloned().collect();
            (state.segments[behind - 1].clone(), gone)
        };
        let index = keep_up_to(&kept, last)?;
        let size = index.summary().size;
        let mut file = kept.file().ok_or(io::ErrorKind::NotFound)?.clone();
        if kept.is_compressed() {
            file = expand(&*self.shared.disk, &kept.path, &*file, kept.summary().size)?;
        }

        let point = self.show_truncated(&kept, index, file.clone());
        self.hint.acknowledged = self.hint.acknowledged.and_then(|acknowledged| match point {
            Some(point) if point.index < acknowledged.index => Some(point),
            Some(_) => Some(acknowledged),
            None => None,
        });
        self.take_committed();
        self.hint_slots.write(&self.hint.encode())?;
        self.hint_slots.sync()?;

        let disk = self.shared.disk.clone();
        for segment in gone.iter().rev() {
            self.shared.indexes.forget(segment);
            remove_segment(&*disk, &segment.path)?;
        }
        self.shared.indexes.forget(&kept);
        match disk.remove(&sidecar_path(&kept.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk.sync_dir(&self.shared.dir)?;
        file.set_size(size)?;
        self.allocated = size;
        self.shared.spare_bytes.store(0, std::sync::atomic::Ordering::Relaxed);
        self.is_dirty = true;
        self.sync()
    }

    /// Shows the truncated log to everyone; answers where it ends.
    fn show_truncated(
        &mut self,
        kept: &Segment,
        index: SegmentIndex,
        file: Arc<dyn DiskFile>,
    ) -> Option<Point> {
        let summary = *index.summary();
        let damages = index.damages().to_vec();
        let name = kept.name;
        let is_empty = index.is_empty();
        let file = SegmentFile { file, compressed_bytes: None };
        let segment =
            Arc::new(Segment::existing(&self.shared.dir, name, Inside::Open(index), file, damages));
        let mut state = self.shared.state.write();
        while state.segments.back().is_some_and(|last| last.name >= name) {
            state.segments.pop_back();
        }
        let last = if is_empty {
            let before = state.segments.back().map(|segment| segment.summary());
            before.map(|before| (before.last_term, RaftIndex(before.next_index.0 - 1)))
        } else {
            Some((summary.last_term, RaftIndex(summary.next_index.0 - 1)))
        };
        let purged = state.purged.map(|point| (point.term, point.index));
        let last = match (last, purged) {
            (Some(last), Some(purged)) if last.1 <= purged.1 => Some(purged),
            (Some(last), _) => Some(last),
            (None, purged) => purged,
        };
        state.segments.push_back(segment.clone());
        state.planned_bytes = summary.size;
        state.tail.clear();
        state.last = last;
        state.end_offset = summary.end_offset;
        state.written = last.map(|last| last.1);
        state.truncations += 1;
        state.count_stored();
        drop(state);
        self.shared.last_read.lock().clear();
        let mut marks = self.shared.marks.lock();
        marks.flushed = marks.flushed.min(last.map(|last| last.1));
        drop(marks);
        self.open = segment;
        last.map(|(term, index)| Point { term, index, end_offset: summary.end_offset })
    }

    /// Forgets every entry up to `upto`, behind which the caller may know the offset.
    pub(super) fn purge(
        &mut self,
        upto: RaftIndex,
        term: Option<Term>,
        given: Option<Offset>,
    ) -> io::Result<()> {
        let (purged, last) = {
            let state = self.shared.state.read();
            (state.purged.map(|point| point.index), state.last)
        };
        if Some(upto) <= purged {
            return Ok(());
        }
        let is_past_end = last.is_none_or(|last| upto > last.1);
        let point = if is_past_end {
            let end_offset = self.make_way_for(given)?;
            Point { term: term.unwrap_or_default(), index: upto, end_offset }
        } else {
            let (own_term, end_offset) = self.end_of(upto)?;
            if let Some(given) = given.filter(|given| *given != end_offset) {
                return Err(invalid(format!(
                    "cannot purge up to entry {upto}: the log has offset {end_offset} behind it, \
                     not {given}"
                )));
            }
            Point { term: term.or(own_term).unwrap_or_default(), index: upto, end_offset }
        };
        self.attempt("purge", |writer| {
            writer.sync()?;
            writer.purge.write(&encode_point(Some(point)))?;
            writer.purge.sync()
        })?;
        if is_past_end {
            self.attempt("begin a segment", |writer| writer.begin_anew(point))?;
        }
        self.drop_segments(point)
    }

    /// The offset where the log goes on behind a purge past its end. Entries that were never
    /// committed may have taken offsets beyond it: they are truncated, so that segments go on to
    /// have rising names.
    fn make_way_for(&mut self, given: Option<Offset>) -> io::Result<Offset> {
        let (purged, start, end) = {
            let state = self.shared.state.read();
            (state.purged.map(|point| point.index), state.start_offset(), state.end_offset)
        };
        let given = given.unwrap_or(end);
        if given < start {
            return Err(invalid(format!(
                "cannot purge up to offset {given}: the log was already purged up to {start}"
            )));
        }
        if given < end {
            self.truncate(purged)?;
        }
        Ok(given)
    }

    /// Term and end of an entry, without reading it where a segment ends with it.
    fn end_of(&self, index: RaftIndex) -> io::Result<(Option<Term>, Offset)> {
        let ends_with = {
            let state = self.shared.state.read();
            if index < state.first_index() {
                return Ok((None, state.start_offset()));
            }
            if let Some(last) = state.last.filter(|last| last.1 == index) {
                return Ok((Some(last.0), state.end_offset));
            }
            let mut sealed = state.segments.iter().filter(|segment| segment.is_sealed());
            sealed.find(|s| s.summary().next_index == index.next()).map(|s| s.summary())
        };
        if let Some(summary) = ends_with {
            return Ok((Some(summary.last_term), summary.end_offset));
        }
        let batch = self.shared.batch_at(index).map_err(io::Error::other)?;
        let header = batch.ok_or(io::ErrorKind::NotFound)?.header;
        Ok((Some(header.term), header.end_offset()))
    }

    /// An empty segment behind a purge that goes past the log's end.
    fn begin_anew(&mut self, purged: Point) -> io::Result<()> {
        let next = purged.index.next();
        let name = SegmentName::after(Some(self.open.name), purged.end_offset, next);
        let segment = Arc::new(Segment::planned(&self.shared.dir, name, next, purged.end_offset));
        self.seal()?;
        self.begin(&segment)?;
        let mut state = self.shared.state.write();
        state.segments.push_back(segment);
        state.planned_bytes = 0;
        state.tail.clear();
        state.last = Some((purged.term, purged.index));
        state.end_offset = purged.end_offset;
        state.written = Some(purged.index);
        state.truncations += 1;
        drop(state);
        self.shared.spare_bytes.store(0, std::sync::atomic::Ordering::Relaxed);
        let mut marks = self.shared.marks.lock();
        marks.flushed = Some(purged.index);
        Ok(())
    }

    /// Shows the purge to everyone and removes whole segments.
    fn drop_segments(&mut self, purged: Point) -> io::Result<()> {
        let mut gone = Vec::new();
        {
            let mut state = self.shared.state.write();
            state.purged = Some(purged);
            while state.segments.len() > 1
                && state.segments[0].is_sealed()
                && state.segments[0].summary().next_index <= purged.index.next()
            {
                gone.extend(state.segments.pop_front());
            }
            state.count_stored();
        }
        // The log is right whatever happens now: the next start removes what is left here.
        for segment in &gone {
            self.shared.indexes.forget(segment);
            remove_segment(&*self.shared.disk, &segment.path)?;
        }
        if gone.is_empty() { Ok(()) } else { self.shared.disk.sync_dir(&self.shared.dir) }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The index of a segment as it will be when everything behind `last` is gone.
fn keep_up_to(segment: &Segment, last: Option<RaftIndex>) -> io::Result<SegmentIndex> {
    let summary = segment.summary();
    let start = Next { index: summary.first_index, offset: summary.base_offset };
    let mut index = SegmentIndex::new(start.index, start.offset);
    let file = segment.file().ok_or(io::ErrorKind::NotFound)?;
    let mut cursor = Cursor::new(&**file, 0, summary.size, Some(start), READ_CHUNK_BYTES);
    loop {
        match cursor.step()? {
            Step::Batch(position, batch) if Some(batch.header.index) <= last => {
                index.add(position, &batch);
            }
            Step::Batch(..) | Step::End => return Ok(index),
            Step::Broken => {
                let known = segment.damage_at(cursor.position()).filter(|d| d.bytes > 0);
                match known {
                    Some(damage) if Some(damage.resume_index) <= last => {
                        let next = Next { index: damage.resume_index, offset: damage.resume };
                        cursor.jump(damage.position + damage.bytes, next);
                        index.add_damage(damage);
                    }
                    _ => {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!(
                                "{} is damaged at {}",
                                segment.path.display(),
                                cursor.position()
                            ),
                        ));
                    }
                }
            }
        }
    }
}
