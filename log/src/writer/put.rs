//! Putting a compressed segment in the place of what it was made of.
//!
//! Only the writer does it, because only the writer takes segments away: what was compressed may be purged
//! or truncated by then. A failure is none of the log's, which is right with either file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Writer;
use crate::compressed::write::Made;
use crate::segment::{Inside, Segment};

impl Writer {
    /// Puts it in place, unless the segment has gone or was found damaged meanwhile; then it stays.
    pub(super) fn put_compressed(&mut self, segment: &Arc<Segment>, made: Made) -> io::Result<()> {
        // What was asked for before is answered before, and waits for nothing of this.
        self.flush();
        let disk = self.shared.disk.clone();
        let is_there =
            self.shared.state.read().segments.iter().any(|there| Arc::ptr_eq(there, segment));
        if !is_there || !segment.damages.lock().is_empty() {
            segment.stays_as_it_is.store(true, Ordering::Relaxed);
            made.discard(&*disk);
            return Ok(());
        }
        let file = made.put_in_place(&*disk, &segment.path)?;
        let sealed = Inside::Sealed(segment.summary());
        let dir = &self.shared.dir;
        let compressed = Segment::existing(dir, segment.name, sealed, file, Vec::new());
        let mut state = self.shared.state.write();
        if let Some(place) = state.segments.iter_mut().find(|there| Arc::ptr_eq(there, segment)) {
            *place = Arc::new(compressed);
        }
        state.count_stored();
        drop(state);
        disk.sync_dir(dir)
    }
}
