//! What opening a log found: for the operator, and for the broker to decide what to do about it.

use std::path::{Path, PathBuf};

use aklight_common::record::put_varint;
use aklight_common::{Offset, RaftIndex, Term};

use crate::varint::Varints;

/// A stretch of the log that cannot be read any more, though it may have been acknowledged.
///
/// Its offsets and indexes are never used again; the log goes on behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment it is in.
    pub segment: PathBuf,
    /// Where in the segment it begins.
    pub position: u64,
    /// Bytes that are damaged; 0 where they are missing altogether.
    pub bytes: u64,
    /// The first offset that cannot be read.
    pub from: Offset,
    /// The next one that can (or that will be written).
    pub resume: Offset,
    /// The first entry that cannot be read.
    pub from_index: RaftIndex,
    /// The next one that can (or that will be written).
    pub resume_index: RaftIndex,
    /// A copy of the damaged bytes; the segment itself where no copy could be made.
    pub file: PathBuf,
}

impl Damage {
    /// Written into the segment's sidecar: the names without their folder, which may be moved.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        for path in [&self.segment, &self.file] {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            put_varint(bytes, name.len() as u64);
            bytes.extend_from_slice(name);
        }
        for number in [
            self.position,
            self.bytes,
            self.from.0,
            self.resume.0,
            self.from_index.0,
            self.resume_index.0,
        ] {
            put_varint(bytes, number);
        }
    }

    pub(crate) fn decode(numbers: &mut Varints<'_>) -> Option<Self> {
        Some(Self {
            segment: numbers.text()?.into(),
            file: numbers.text()?.into(),
            position: numbers.next()?,
            bytes: numbers.next()?,
            from: Offset(numbers.next()?),
            resume: Offset(numbers.next()?),
            from_index: RaftIndex(numbers.next()?),
            resume_index: RaftIndex(numbers.next()?),
        })
    }

    /// The same with whole paths.
    pub(crate) fn within(mut self, dir: &Path) -> Self {
        self.segment = dir.join(self.segment);
        self.file = dir.join(self.file);
        self
    }
}

/// Bytes behind the last whole batch: a write that was never finished, and never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment it was in.
    pub segment: PathBuf,
    /// Where the segment was cut.
    pub position: u64,
    /// Bytes that were cut off.
    pub bytes: u64,
    /// Where they are kept, if whole batches were among them.
    pub file: Option<PathBuf>,
}

/// Entries at the log's end that had been acknowledged, and of which nothing is left.
///
/// To its leader and to every candidate this broker's log reached up to `upto_index`. Until the
/// entries are back ([`mend`](crate::mend)) it must not take part in an election: as a candidate
/// it could win with entries that it does not have. The log's bounds say that it ends there, so
/// it does at least not vote for a log that is shorter than what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostEnd {
    /// The first entry that is missing.
    pub from_index: RaftIndex,
    /// The last one that was acknowledged.
    pub upto_index: RaftIndex,
    /// Its term.
    pub term: Term,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// How many segments the log has.
    pub segments: usize,
    /// Bytes that had to be read through and checked.
    pub scanned_bytes: u64,
    /// Segments whose index was missing or did not fit, and was built again.
    pub indexes_rebuilt: Vec<PathBuf>,
    /// What was cut off the end.
    pub torn: Option<TornTail>,
    /// What cannot be read any more.
    pub damaged: Vec<Damage>,
    /// What of it is the end of the log: acknowledged once, and gone.
    pub lost_end: Option<LostEnd>,
    /// Whether the note of how far the log had been acknowledged was unreadable: then loss at
    /// the log's end cannot be told from a write that was never finished.
    pub hint_lost: bool,
}

impl OpenReport {
    /// Whether nothing was lost or in doubt.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && !self.hint_lost
    }
}
