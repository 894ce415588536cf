//! What is done about bytes that are not what was written: copied aside, named, gone around.
//!
//! Nothing is repaired here. A copy of the damaged stretch is put beside the segment as
//! `<segment>.damaged-<position>`, because the segment itself will one day fall to retention; a
//! later reader is told where the stretch begins, where the log goes on and where the copy is.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::report::Damage;
use crate::scan::{Next, next_good, read_rest};

/// Copies a stretch of a segment beside it and answers where. Where that fails the answer is the
/// segment itself: the bytes are still there.
pub(crate) fn set_aside(
    disk: &dyn Disk,
    segment: &Path,
    file: &dyn DiskFile,
    position: u64,
    bytes: u64,
) -> PathBuf {
    let mut aside = segment.as_os_str().to_owned();
    aside.push(format!(".damaged-{position}"));
    let aside = PathBuf::from(aside);
    if disk.open(&aside).is_ok() {
        return aside;
    }
    match copy(disk, &aside, file, position, bytes) {
        Ok(()) => aside,
        Err(error) => {
            tracing::warn!(segment = %segment.display(), position, bytes, %error,
                "cannot copy damaged bytes aside");
            segment.to_owned()
        }
    }
}

fn copy(
    disk: &dyn Disk,
    aside: &Path,
    file: &dyn DiskFile,
    position: u64,
    bytes: u64,
) -> io::Result<()> {
    let mut damaged = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    read_exact_at(file, &mut damaged, position)?;
    let copy = disk.create(aside)?;
    write_all_at(&*copy, &mut [IoSlice::new(&damaged)], 0)?;
    copy.sync()?;
    disk.sync_dir(aside.parent().unwrap_or(Path::new(".")))
}

/// A broken place in a segment.
pub(crate) struct Broken<'a> {
    pub disk: &'a dyn Disk,
    pub segment: &'a Path,
    pub file: &'a dyn DiskFile,
    pub position: u64,
    /// Where the segment's batches end.
    pub end: u64,
    /// What should have been there.
    pub from: Next,
    /// How the log goes on behind the segment.
    pub behind: Next,
}

impl Broken<'_> {
    /// Finds how far the damage reaches, and sets it aside.
    pub(crate) fn examine(&self) -> io::Result<Damage> {
        let rest = read_rest(self.file, self.position, self.end)?;
        let found = next_good(&rest, 0, self.from);
        let (bytes, resume) =
            found.map_or((rest.len(), self.behind), |found| (found.at, found.next));
        Ok(self.describe(bytes as u64, resume))
    }

    /// Sets aside a damage of known length.
    pub(crate) fn describe(&self, bytes: u64, resume: Next) -> Damage {
        let file = match bytes {
            0 => self.segment.to_owned(),
            _ => set_aside(self.disk, self.segment, self.file, self.position, bytes),
        };
        let damage = Damage {
            segment: self.segment.to_owned(),
            position: self.position,
            bytes,
            from: self.from.offset,
            resume: resume.offset,
            from_index: self.from.index,
            resume_index: resume.index,
            file,
        };
        tracing::error!(segment = %damage.segment.display(), position = damage.position,
            bytes = damage.bytes, from = damage.from.0, resume = damage.resume.0,
            file = %damage.file.display(), "a part of the log is damaged");
        damage
    }
}
