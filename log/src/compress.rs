//! Compresses sealed segments, one at a call, while the log goes on.
//!
//! ```text
//! read through ─▶ write ….new, sync ─▶ read that through ─▶ (writer) rename, show, sync names
//! ```
//!
//! What is damaged is left alone: bytes that are not what was written are evidence, and mending needs to
//! know what is around them. Nothing goes before what comes in its place was read back, batch by batch.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aklight_common::RaftIndex;

use crate::compressed::SegmentFile;
use crate::compressed::write::{compress_beside, discard};
use crate::disk::DiskFile;
use crate::index::Summary;
use crate::scan::{Cursor, Next, SCAN_CHUNK_BYTES, Step};
use crate::segment::Segment;
use crate::state::Shared;

/// What compressing a segment came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Bytes that it took.
    pub bytes: u64,
    /// Bytes that it takes now.
    pub compressed_bytes: u64,
}

impl Shared {
    /// Writes the next segment beside its place; none where there is none that is worth it.
    pub(crate) fn compress_next(
        &self,
        upto: RaftIndex,
    ) -> io::Result<Option<(Arc<Segment>, SegmentFile)>> {
        while let Some(segment) = self.next_to_compress(upto) {
            // What a full disk has left is for records; retention will make room.
            if self.check_room(segment.summary().size).is_err() {
                return Ok(None);
            }
            if let Some(made) = self.compress(&segment)? {
                return Ok(Some((segment, made)));
            }
        }
        Ok(None)
    }

    fn next_to_compress(&self, upto: RaftIndex) -> Option<Arc<Segment>> {
        let state = self.state.read();
        let mut segments = state.segments.iter();
        let next = segments.find(|segment| {
            segment.is_sealed()
                && !segment.is_compressed()
                && !segment.stays_as_it_is.load(Ordering::Relaxed)
                && segment.summary().next_index <= upto.next()
        });
        next.cloned()
    }

    /// Writes a segment beside its place. One that it is not worth is remembered; after an error it is
    /// tried again.
    fn compress(&self, segment: &Segment) -> io::Result<Option<SegmentFile>> {
        let leave = || segment.stays_as_it_is.store(true, Ordering::Relaxed);
        let summary = segment.summary();
        let file = segment.file().ok_or(io::ErrorKind::NotFound)?;
        // Also one behind which others are missing, which reads well.
        if !segment.damages.lock().is_empty() {
            leave();
            return Ok(None);
        }
        if let Some(broken) = first_broken(&**file, summary)? {
            // Whoever reads it says so, for everybody.
            let _ = self.read_indexes(broken, broken.next(), 0);
            leave();
            return Ok(None);
        }
        let Some(made) = compress_beside(&*self.disk, &segment.path, &**file, summary.size)? else {
            leave();
            return Ok(None);
        };
        if let Some(broken) = first_broken(&*made.file, summary)? {
            discard(&*self.disk, &segment.path);
            leave();
            let path = segment.path.display();
            let text = format!("{path} does not read back compressed, from entry {broken} on");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(made))
    }
}

/// The first entry of a segment that cannot be read.
fn first_broken(file: &dyn DiskFile, summary: Summary) -> io::Result<Option<RaftIndex>> {
    let start = Next { index: summary.first_index, offset: summary.base_offset };
    let end = Next { index: summary.next_index, offset: summary.end_offset };
    let mut cursor = Cursor::new(file, 0, summary.size, Some(start), SCAN_CHUNK_BYTES);
    loop {
        match cursor.step()? {
            Step::Batch(..) => {}
            Step::End if cursor.next() == Some(end) => return Ok(None),
            Step::End | Step::Broken => return Ok(Some(cursor.next().unwrap_or(start).index)),
        }
    }
}
