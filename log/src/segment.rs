//! A segment: a file of batches, its name, and what is known of it in memory.
//!
//! The name is the offset of its first record in twenty digits, so that names sort as the log
//! runs. A segment that begins before any record takes the offset of the next record to come; if
//! the segment before it did the same and got no record, the new one adds its first entry:
//! `00000000000000000042-00000000000000001337.log`. So no two are ever named alike, and they sort
//! in the order of the log.
//!
//! One segment, the last, is *open*: the writer thread appends to it, and its index is in memory.
//! All others are *sealed*: what they say never changes, and only a [`Summary`] of them is kept. Their
//! files may be compressed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aklight_common::{Offset, RaftIndex};
use parking_lot::{Mutex, RwLock};

use crate::compressed::SegmentFile;
use crate::disk::DiskFile;
use crate::index::{SegmentIndex, Summary};
use crate::report::Damage;

const DIGITS: usize = 20;

/// What a segment is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub offset: Offset,
    /// The first entry, where the offset alone would not do.
    pub index: Option<RaftIndex>,
}

impl SegmentName {
    /// The first segment of a log.
    pub(crate) const BEGIN: Self = Self { offset: Offset(0), index: None };

    /// The name of a segment that begins with `offset` and `index`, behind one named `before`.
    pub(crate) fn after(before: Option<Self>, offset: Offset, index: RaftIndex) -> Self {
        let taken = before.is_some_and(|before| before.offset >= offset);
        Self { offset, index: taken.then_some(index) }
    }

    pub(crate) fn file(self) -> String {
        format!("{self}.log")
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$}", self.offset.0)?;
        self.index.map_or(Ok(()), |index| write!(f, "-{:0DIGITS$}", index.0))
    }
}

impl FromStr for SegmentName {
    type Err = ();

    /// Reads the name of a file; anything but a segment's is an error.
    fn from_str(file: &str) -> Result<Self, ()> {
        let stem = file.strip_suffix(".log").ok_or(())?;
        let (offset, index) = match stem.split_once('-') {
            Some((offset, index)) => (offset, Some(RaftIndex(digits(index)?))),
            None => (stem, None),
        };
        Ok(Self { offset: Offset(digits(offset)?), index })
    }
}

fn digits(text: &str) -> Result<u64, ()> {
    let plain = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().map_err(|_| ()) } else { Err(()) }
}

/// The file of a segment's index.
pub(crate) fn sidecar_path(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// What is known of a segment's inside.
pub(crate) enum Inside {
    Open(SegmentIndex),
    Sealed(Summary),
}

/// A segment. Shared by the state, the writer thread and whoever reads from it.
pub(crate) struct Segment {
    pub name: SegmentName,
    pub path: PathBuf,
    pub base_offset: Offset,
    /// Known once the first batch is: an empty log takes any first entry.
    first_index: AtomicU64,
    /// Set when the writer thread has made the file; until then every batch is in the tail.
    file: OnceLock<Arc<dyn DiskFile>>,
    /// Bytes that a compressed one takes on the disk.
    compressed_bytes: Option<u64>,
    /// Whether compressing it was tried, and is not worth another try.
    pub stays_as_it_is: AtomicBool,
    pub inside: RwLock<Inside>,
    /// What readers found, beside what the index knows.
    pub damages: Mutex<Vec<Damage>>,
}

impl Segment {
    /// A segment that has no file yet.
    pub(crate) fn planned(dir: &Path, name: SegmentName, index: RaftIndex, offset: Offset) -> Self {
        Self::new(dir, name, Inside::Open(SegmentIndex::new(index, offset)))
    }

    /// A segment that is on disk.
    pub(crate) fn existing(
        dir: &Path,
        name: SegmentName,
        inside: Inside,
        file: SegmentFile,
        damages: Vec<Damage>,
    ) -> Self {
        let mut segment = Self::new(dir, name, inside);
        segment.compressed_bytes = file.compressed_bytes;
        segment.set_file(file.file);
        *segment.damages.lock() = damages;
        segment
    }

    fn new(dir: &Path, name: SegmentName, inside: Inside) -> Self {
        let summary = match &inside {
            Inside::Open(index) => *index.summary(),
            Inside::Sealed(summary) => *summary,
        };
        Self {
            name,
            path: dir.join(name.file()),
            base_offset: summary.base_offset,
            first_index: AtomicU64::new(summary.first_index.0),
            file: OnceLock::new(),
            compressed_bytes: None,
            stays_as_it_is: AtomicBool::new(false),
            inside: RwLock::new(inside),
            damages: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn first_index(&self) -> RaftIndex {
        // Written under the state's lock, and read under it.
        RaftIndex(self.first_index.load(Ordering::Relaxed))
    }

    /// Says with which entry an empty log begins.
    pub(crate) fn begin_at(&self, index: RaftIndex) {
        self.first_index.store(index.0, Ordering::Relaxed);
    }

    pub(crate) fn file(&self) -> Option<&Arc<dyn DiskFile>> {
        self.file.get()
    }

    pub(crate) fn set_file(&self, file: Arc<dyn DiskFile>) {
        let first = self.file.set(file).is_ok();
        debug_assert!(first, "a segment gets its file once");
    }

    /// What is written, in numbers.
    pub(crate) fn summary(&self) -> Summary {
        match &*self.inside.read() {
            Inside::Open(index) => *index.summary(),
            Inside::Sealed(summary) => *summary,
        }
    }

    pub(crate) const fn is_compressed(&self) -> bool {
        self.compressed_bytes.is_some()
    }

    /// Bytes that it takes on the disk, without space taken in advance.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.compressed_bytes.unwrap_or_else(|| self.summary().size)
    }

    /// The known damage that begins at a position.
    pub(crate) fn damage_at(&self, position: u64) -> Option<Damage> {
        self.damages.lock().iter().find(|damage| damage.position == position).cloned()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(&*self.inside.read(), Inside::Sealed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_sort_as_the_log_runs() {
        let mut names = Vec::new();
        for (offset, index) in [(0, 0), (0, 5), (0, 9), (7, 12), (7, 20), (1000, 21)] {
            let name = SegmentName::after(names.last().copied(), Offset(offset), RaftIndex(index));
            assert_eq!(name.file().parse(), Ok(name));
            names.push(name);
        }
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]));
        let mut files: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        files.sort();
        let expect: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        assert_eq!(files, expect);
        assert_eq!(names[0].file(), "00000000000000000000.log");
        assert_eq!(names[1].file(), "00000000000000000000-00000000000000000005.log");
    }

    #[test]
    fn other_files_are_no_segments() {
        for name in ["vote", "0.log", "00000000000000000000.index", "+0000000000000000000.log"] {
            assert_eq!(name.parse::<SegmentName>(), Err(()), "{name}");
        }
    }
}
