//! What is done about bytes that are not what was written: copied aside, named, gone around.
//!
//! Nothing is repaired here. A copy of the damaged stretch is put beside the segment as
//! `<segment>.damaged-<position>` (and a number, if an earlier damage has that name), because the segment itself will one day fall to retention; a
//! later reader is told where the stretch begins, where the log goes on and where the copy is.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::report::Damage;
use crate::scan::{Next, next_good, read_rest};

/// Most copies of one place: each is another damage, of a segment that was mended in between.
const COPIES_MAX: u32 = 100;

/// Copies a stretch of a segment beside it and answers where. Where that fails the answer is the
/// segment itself: the bytes are still there.
pub(crate) fn set_aside(
    disk: &dyn Disk,
    segment: &Path,
    file: &dyn DiskFile,
    position: u64,
    bytes: u64,
) -> PathBuf {
    match copy(disk, segment, file, position, bytes) {
        Ok(aside) => aside,
        Err(error) => {
            tracing::warn!(segment = %segment.display(), position, bytes, %error,
                "cannot copy damaged bytes aside");
            segment.to_owned()
        }
    }
}

fn copy(
    disk: &dyn Disk,
    segment: &Path,
    file: &dyn DiskFile,
    position: u64,
    bytes: u64,
) -> io::Result<PathBuf> {
    let mut damaged = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    read_exact_at(file, &mut damaged, position)?;
    for number in 0..COPIES_MAX {
        let mut aside = segment.as_os_str().to_owned();
        aside.push(match number {
            0 => format!(".damaged-{position}"),
            _ => format!(".damaged-{position}-{number}"),
        });
        let aside = PathBuf::from(aside);
        match read_whole(disk, &aside)? {
            // From an earlier opening.
            Some(there) if there == damaged => return Ok(aside),
            Some(_) => continue,
            None => {}
        }
        let copy = disk.create(&aside)?;
        write_all_at(&*copy, &mut [IoSlice::new(&damaged)], 0)?;
        copy.sync()?;
        disk.sync_dir(aside.parent().unwrap_or(Path::new(".")))?;
        return Ok(aside);
    }
    Err(io::Error::other(format!("there are {COPIES_MAX} others of this place")))
}

fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
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
