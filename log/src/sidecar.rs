//! The file beside a sealed segment that holds its index.
//!
//! It is never needed, only quicker than reading the segment through; so it is written without a
//! sync, and one that is missing, damaged or of another segment reads as none.

use std::io::{self, IoSlice};
use std::path::Path;

use crate::disk::{Disk, read_exact_at, write_all_at};
use crate::index::SegmentIndex;
use crate::segment::sidecar_path;

/// Puts the index beside its segment. A failure is logged and costs the next start some time.
pub(crate) fn write(disk: &dyn Disk, segment: &Path, index: &SegmentIndex) {
    let path = sidecar_path(segment);
    let written = disk
        .create(&path)
        .and_then(|file| write_all_at(&*file, &mut [IoSlice::new(&index.encode())], 0));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error,
            "cannot write a segment's index; it will be built again at the next start");
    }
}

/// Reads the index of a segment, its damages with whole paths.
pub(crate) fn read(disk: &dyn Disk, segment: &Path) -> io::Result<Option<SegmentIndex>> {
    let file = match disk.open(&sidecar_path(segment)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    let dir = segment.parent().unwrap_or(Path::new(""));
    Ok(SegmentIndex::decode(&bytes.into()).map(|index| index.within(dir)))
}
