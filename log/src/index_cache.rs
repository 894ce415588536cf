//! The indexes of sealed segments that were lately asked for.
//!
//! An index takes about a hundredth of its segment, so not all of them can stay in memory. This
//! keeps a few, the most recently used first, and reads others from their sidecars; where there
//! is none that fits, from the segment itself.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::index::SegmentIndex;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::Segment;
use crate::sidecar;

/// Indexes that are kept: at 64 MiB a segment and a hundredth of that an index, about 10 MiB.
const INDEXES_MAX: usize = 16;

/// The indexes that were lately asked for.
#[derive(Default)]
pub(crate) struct IndexCache {
    recent: Mutex<VecDeque<(PathBuf, Arc<SegmentIndex>)>>,
}

impl IndexCache {
    /// The index of a sealed segment.
    pub(crate) fn get(&self, disk: &dyn Disk, segment: &Segment) -> io::Result<Arc<SegmentIndex>> {
        {
            let mut recent = self.recent.lock();
            if let Some(place) = recent.iter().position(|(path, _)| *path == segment.path)
                && let Some(entry) = recent.remove(place)
            {
                let index = entry.1.clone();
                recent.push_front(entry);
                return Ok(index);
            }
        }
        // Two readers may do this at once; both get it right.
        let summary = segment.summary();
        let stored = sidecar::read(disk, &segment.path)?;
        let index = match stored.filter(|index| *index.summary() == summary) {
            Some(index) => Arc::new(index),
            None => Arc::new(rebuild(segment)?),
        };
        self.put(segment, index.clone());
        Ok(index)
    }

    /// Keeps an index.
    pub(crate) fn put(&self, segment: &Segment, index: Arc<SegmentIndex>) {
        let mut recent = self.recent.lock();
        recent.push_front((segment.path.clone(), index));
        recent.truncate(INDEXES_MAX);
    }

    /// Forgets an index whose segment goes or changes.
    pub(crate) fn forget(&self, segment: &Segment) {
        self.recent.lock().retain(|(path, _)| *path != segment.path);
    }
}

/// Reads a segment through, around the damages that are known.
fn rebuild(segment: &Segment) -> io::Result<SegmentIndex> {
    let summary = segment.summary();
    let start = Next { index: summary.first_index, offset: summary.base_offset };
    let mut index = SegmentIndex::new(start.index, start.offset);
    let file = segment.file().ok_or(io::ErrorKind::NotFound)?;
    let mut cursor = Cursor::new(&**file, 0, summary.size, Some(start), READ_CHUNK_BYTES);
    loop {
        match cursor.step()? {
            Step::Batch(position, batch) => index.add(position, &batch),
            Step::End => return Ok(index),
            Step::Broken => {
                let known = segment.damage_at(cursor.position());
                let Some(damage) = known.filter(|damage| damage.bytes > 0) else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} is damaged at {}", segment.path.display(), cursor.position()),
                    ));
                };
                let next = Next { index: damage.resume_index, offset: damage.resume };
                cursor.jump(damage.position + damage.bytes, next);
                index.add_damage(damage);
            }
        }
    }
}
