//! Compresses sealed segments, one at a call, while the log goes on.
//!
//! ```text
//! read through ─▶ write ….new, sync ─▶ read that through ─▶ (writer) rename, show, sync names
//! ```
//!
//! What is damaged is left alone: bytes that are not what was written are evidence, and mending needs to
//! know what is around them. Nothing goes before what comes in its place was read back, batch by batch.
//! What could not be compressed, for whatever reason, is tried again when the log is opened again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aklight_common::RaftIndex;

use crate::compressed::write::{Made, compress_beside, pays};
use crate::disk::DiskFile;
use crate::index::Summary;
use crate::log::Log;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::Segment;
use crate::state::Shared;
use crate::writer::Op;

/// What compressing a segment came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Bytes that it took.
    pub bytes: u64,
    /// Bytes that it takes now.
    pub compressed_bytes: u64,
}

impl Log {
    /// Compresses the oldest sealed segment that is not, if it ends with or before `upto` (of which the
    /// caller knows that it will not be truncated) and that saves enough; see the lesson of
    /// `compressed`. Takes as long as it takes to read a segment twice and to write a part of it; the
    /// writer goes on meanwhile.
    ///
    /// # Errors
    /// What the file system says: the segment then stays as it was. A full disk is none.
    pub fn compress_next(&self, upto: RaftIndex) -> io::Result<Option<Compressed>> {
        let shared = self.shared();
        let _one_at_a_time = shared.compressing.lock();
        while let Some(segment) = shared.next_to_compress(upto) {
            // What a full disk has left is for records; retention will make room.
            if self.is_closed() || shared.check_room(segment.summary().size).is_err() {
                break;
            }
            let leave = || segment.stays_as_it_is.store(true, Ordering::Relaxed);
            let Some(made) = shared.compress(&segment).inspect_err(|_| leave())? else {
                leave();
                continue;
            };
            let compressed =
                Compressed { bytes: segment.summary().size, compressed_bytes: made.bytes() };
            let put = self.ask(|done| Op::PutCompressed { segment: segment.clone(), made, done });
            put.inspect_err(|_| leave())?;
            if !segment.stays_as_it_is.load(Ordering::Relaxed) {
                return Ok(Some(compressed));
            }
        }
        Ok(None)
    }
}

impl Shared {
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

    /// Writes a segment beside its place; none where it is not worth it, or damaged.
    fn compress(&self, segment: &Segment) -> io::Result<Option<Made>> {
        let summary = segment.summary();
        let file = segment.file().ok_or(io::ErrorKind::NotFound)?;
        // Damage may also be that others are missing behind it, while itself it reads well.
        if !segment.damages.lock().is_empty() || !pays(&**file, summary.size)? {
            return Ok(None);
        }
        if let Some(broken) = first_broken(&**file, summary)? {
            // Whoever reads it says so, for everybody.
            let _ = self.read_indexes(broken, broken.next(), 0);
            return Ok(None);
        }
        let now_us = self.clock.monotonic_us();
        let made = compress_beside(&*self.disk, &segment.path, now_us, &**file, summary.size)?;
        let Some(made) = made else { return Ok(None) };
        match first_broken(made.file(), summary) {
            Ok(None) => Ok(Some(made)),
            Ok(Some(broken)) => {
                made.discard(&*self.disk);
                let path = segment.path.display();
                let text = format!("{path} does not read back compressed, from entry {broken} on");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            Err(error) => {
                made.discard(&*self.disk);
                Err(error)
            }
        }
    }
}

/// The first entry of a segment that cannot be read.
fn first_broken(file: &dyn DiskFile, summary: Summary) -> io::Result<Option<RaftIndex>> {
    let start = Next { index: summary.first_index, offset: summary.base_offset };
    let end = Next { index: summary.next_index, offset: summary.end_offset };
    let mut cursor = Cursor::new(file, 0, summary.size, Some(start), READ_CHUNK_BYTES);
    loop {
        match cursor.step()? {
            Step::Batch(..) => {}
            Step::End if cursor.next() == Some(end) => return Ok(None),
            Step::End | Step::Broken => return Ok(Some(cursor.next().unwrap_or(start).index)),
        }
    }
}
