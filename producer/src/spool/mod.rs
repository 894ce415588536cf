//! The spool: samples on disk while no broker takes them.
//!
//! A folder of segments, each named by the first sequence in it. Records are added to the newest;
//! they are read a segment at a time, the oldest first; and a segment is deleted when a broker has
//! answered for every record in it. So nothing is ever rewritten, and what is left after a
//! restart is what may not have been stored. A segment that was sent in part is then sent again
//! from its start: the broker knows the repeats by their sequences, as long as these lie within
//! its window. [`SEGMENT_SPAN_MAX`] together with the sender's own limit keeps them there.
//!
//! ```text
//!  append ──► newest … ──load_next──► sent, waiting for answers ──done──► deleted
//!                 (over the limit: the oldest segment goes, counted)
//! ```
//!
//! Invariants: segments are sorted and their sequences do not overlap; `bytes` is the sum of
//! their sizes and never above the limit; one process at a time has the folder (a lock file).
//!
//! What is left out: fsync. The spool survives the death of the producer, not that of the
//! machine: samples are not worth a wait for the disk in the loop that must not wait.

mod segment;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

use self::segment::{SegmentWriter, frame};
use crate::outgoing::Outgoing;

/// How far the sequences of one segment may lie apart: half the broker's window, so that a
/// segment may be sent again from its start while the other half is on its way
/// ([`crate::outbox::IN_FLIGHT_SPAN_MAX`]).
pub const SEGMENT_SPAN_MAX: u64 = 4000;

/// Largest segment: about 5,000 samples, read into memory at one go.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// Smallest limit of a segment, so that a small spool is not one file a sample.
const SEGMENT_BYTES_MIN: u64 = 8 << 10;
/// Into how many segments a spool is cut at least: what one eviction takes is an eighth.
const SEGMENTS_MIN: u64 = 8;

/// Smallest spool that can be asked for: eight segments of the smallest size.
pub const SPOOL_BYTES_MIN: u64 = SEGMENTS_MIN * SEGMENT_BYTES_MIN;

const EXTENSION: &str = "spool";
const LOCK_FILE: &str = "lock";

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error(
        "another producer uses the spool folder {0}: stop it, or give this one another --id or --spool-dir"
    )]
    Taken(PathBuf),
    /// The folder cannot be made, read or written.
    #[error("the spool folder {folder} cannot be used: name a writable one with --spool-dir")]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Samples on disk.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    writer: Option<SegmentWriter>,
    evicted: Vec<Evicted>,
    _lock: Flock<File>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    last: u64,
    /// Records that no broker has answered for.
    waiting: u64,
    bytes: u64,
    /// Whether its records were handed out.
    loaded: bool,
}

/// A segment that had to go before it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted {
    /// The last sequence of it.
    pub last: u64,
    /// How many records were lost that nobody had loaded.
    pub unloaded: u64,
}

impl Spool {
    /// Opens the folder, or makes it, and finds what an earlier process left.
    ///
    /// # Errors
    /// When another process has the folder, or it cannot be used.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        let unusable = |source| SpoolError::Unusable { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unusable)?;
        let lock = File::create(folder.join(LOCK_FILE)).map_err(unusable)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::Taken(folder.to_owned()))?;
        let mut spool = Self {
            folder: folder.to_owned(),
            bytes_max: bytes_max.max(SPOOL_BYTES_MIN),
            segments: VecDeque::new(),
            writer: None,
            evicted: Vec::new(),
            _lock: lock,
        };
        spool.find_segments().map_err(unusable)?;
        Ok(spool)
    }

    fn find_segments(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(segment) = find_segment(path)?
            {
                found.push(segment);
            }
        }
        found.sort_by_key(|segment| segment.first);
        self.segments = found.into();
        Ok(())
    }

    /// Records that were not handed out.
    #[must_use]
    pub fn unloaded(&self) -> u64 {
        let unloaded = self.segments.iter().filter(|segment| !segment.loaded);
        unloaded.map(|segment| segment.waiting).sum()
    }

    /// Whether there is a segment that was not handed out.
    #[must_use]
    pub fn has_unloaded(&self) -> bool {
        self.segments.iter().any(|segment| !segment.loaded)
    }

    /// The highest sequence in it.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        self.segments.back().map(|segment| segment.last)
    }

    /// Size on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Adds a record behind all others. What had to go for it, [`Self::take_evicted`] tells.
    ///
    /// # Errors
    /// When the disk does not take it; the spool then goes on with a new segment.
    pub fn append(&mut self, record: &Outgoing) -> io::Result<()> {
        debug_assert!(self.last_sequence().is_none_or(|last| last < record.sequence));
        let frame = frame(record);
        self.make_room(frame.len() as u64);
        self.close_when_full(record.sequence, frame.len() as u64);
        if self.writer.is_none() {
            let at = self.segments.len();
            self.writer = Some(self.create_segment(at, record.sequence)?);
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.append(&frame)
        {
            self.close();
            return Err(error);
        }
        if let Some(newest) = self.segments.back_mut() {
            newest.last = record.sequence;
            newest.waiting += 1;
            newest.bytes += frame.len() as u64;
        }
        Ok(())
    }

    /// Adds records that were handed to a broker already, in a segment of their own, which is
    /// not handed out again before a restart. They need not be the newest.
    ///
    /// # Errors
    /// When the disk does not take them; none is then in the spool.
    pub fn keep_sent(&mut self, records: &[Outgoing]) -> io::Result<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let frames: Vec<u8> = records.iter().flat_map(frame).collect();
        self.make_room(frames.len() as u64);
        let at = self.segments.partition_point(|segment| segment.first < first.sequence);
        // The newest segment must be the one that is written to.
        if at == self.segments.len() {
            self.close();
        }
        let mut writer = self.create_segment(at, first.sequence)?;
        if let Err(error) = writer.append(&frames) {
            self.remove(at);
            return Err(error);
        }
        let kept = &mut self.segments[at];
        kept.last = last.sequence;
        kept.waiting = records.len() as u64;
        kept.bytes = writer.bytes();
        kept.loaded = true;
        Ok(())
    }

    /// What had to go since this was asked last, the oldest first.
    pub fn take_evicted(&mut self) -> Vec<Evicted> {
        std::mem::take(&mut self.evicted)
    }

    /// Hands out the oldest segment that was not handed out yet; empty when there is none.
    pub fn load_next(&mut self) -> Vec<Outgoing> {
        while let Some(at) = self.segments.iter().position(|segment| !segment.loaded) {
            if at + 1 == self.segments.len() {
                // What comes later goes into a segment that is not handed out yet.
                self.close();
            }
            let segment = &mut self.segments[at];
            let records = match segment::read(&segment.path) {
                Ok(content) => content.records,
                Err(error) => {
                    warn!(
                        "{} samples in {} cannot be read: {error}",
                        segment.waiting,
                        segment.path.display()
                    );
                    Vec::new()
                }
            };
            segment.loaded = true;
            segment.waiting = records.len() as u64;
            if !records.is_empty() {
                return records;
            }
            self.remove(at);
        }
        Vec::new()
    }

    /// A broker has answered for a record that was handed out.
    pub fn done(&mut self, sequence: u64) {
        let holds = |segment: &Segment| {
            segment.loaded && (segment.first..=segment.last).contains(&sequence)
        };
        let Some(at) = self.segments.iter().position(holds) else { return };
        let segment = &mut self.segments[at];
        segment.waiting = segment.waiting.saturating_sub(1);
        if segment.waiting == 0 {
            self.remove(at);
        }
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes() + bytes > self.bytes_max
            && let Some(oldest) = self.segments.front()
        {
            let unloaded = if oldest.loaded { 0 } else { oldest.waiting };
            self.evicted.push(Evicted { last: oldest.last, unloaded });
            self.remove(0);
        }
    }

    fn close_when_full(&mut self, sequence: u64, bytes: u64) {
        let bytes_max = (self.bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let full = self.segments.back().is_some_and(|newest| {
            newest.bytes + bytes > bytes_max || sequence - newest.first >= SEGMENT_SPAN_MAX
        });
        if full {
            self.close();
        }
    }

    fn close(&mut self) {
        self.writer = None;
    }

    fn create_segment(&mut self, at: usize, first: u64) -> io::Result<SegmentWriter> {
        // Twenty digits hold every sequence, so that the names sort as the numbers do.
        let path = self.folder.join(format!("{first:020}.{EXTENSION}"));
        let writer = SegmentWriter::create(&path)?;
        let bytes = writer.bytes();
        let segment = Segment { path, first, last: first, waiting: 0, bytes, loaded: false };
        self.segments.insert(at, segment);
        Ok(writer)
    }

    fn remove(&mut self, at: usize) {
        if at + 1 == self.segments.len() {
            self.close();
        }
        if let Some(segment) = self.segments.remove(at)
            && let Err(error) = fs::remove_file(&segment.path)
        {
            // It will be sent again after a restart, and the broker will know it.
            warn!("{} cannot be removed: {error}", segment.path.display());
        }
    }
}

/// Looks at a file that an earlier process left; `None` when nothing in it can be sent.
fn find_segment(path: PathBuf) -> io::Result<Option<Segment>> {
    let content = segment::read(&path)?;
    if content.damaged_bytes > 0 {
        warn!(
            "{} ends in {} bytes that are no sample: they are passed over",
            path.display(),
            content.damaged_bytes
        );
    }
    let (Some(first), Some(last)) = (content.records.first(), content.records.last()) else {
        if content.damaged_bytes == 0 {
            fs::remove_file(&path)?;
        } else {
            // Set aside, not removed: somebody may want to look at it.
            fs::rename(&path, path.with_extension("damaged"))?;
        }
        return Ok(None);
    };
    let bytes = fs::metadata(&path)?.len();
    let waiting = content.records.len() as u64;
    let (first, last) = (first.sequence, last.sequence);
    Ok(Some(Segment { path, first, last, waiting, bytes, loaded: false }))
}

#[cfg(test)]
mod tests;
