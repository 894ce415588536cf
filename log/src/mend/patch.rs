//! A segment file written anew, with entries where it had a hole.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_common::RaftIndex;

use crate::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::format::{Batch, encode_header};
use crate::scan::READ_CHUNK_BYTES;
use crate::segment::{Segment, SegmentName};
use crate::slots::beside;

use super::fit::Fit;

/// Entries, and where in which file they go.
pub(super) struct Insert<'a> {
    pub path: PathBuf,
    /// Where in the file as it is.
    pub position: u64,
    /// How many bytes of it they replace.
    bytes: u64,
    run: &'a [Batch],
    /// Nothing of the file comes behind them.
    ends: bool,
    /// The file as it is, and how long its batches are; none makes a new one.
    source: Option<(Arc<dyn DiskFile>, u64)>,
}

impl<'a> Insert<'a> {
    /// In place of what is damaged in a segment.
    pub(super) fn within(segment: &Segment, fit: &'a Fit<'_>) -> Self {
        Self {
            path: segment.path.clone(),
            position: fit.damage.position,
            bytes: fit.damage.bytes,
            run: fit.run,
            ends: fit.ends,
            source: segment.file().cloned().map(|file| (file, segment.summary().size)),
        }
    }

    pub(super) fn first_index(&self) -> Option<RaftIndex> {
        self.run.first().map(|batch| batch.header.index)
    }

    /// As a segment.
    pub(super) fn alone(dir: &Path, name: SegmentName, fit: &'a Fit<'_>) -> Self {
        let Fit { run, ends, .. } = *fit;
        Self { path: dir.join(name.file()), position: 0, bytes: 0, run, ends, source: None }
    }
}

/// A file that waits beside its place.
pub(super) struct Written {
    pub path: PathBuf,
    pub beside: PathBuf,
}

/// Writes one file with all that goes into it, in the order of the positions, and syncs it.
pub(super) fn write_beside(
    disk: &dyn Disk,
    path: &Path,
    inserts: &[&Insert<'_>],
) -> io::Result<Written> {
    let beside = beside(path);
    let file = disk.create(&beside)?;
    let mut copy = Copy { file: &*file, end: 0 };
    let source = inserts.first().and_then(|insert| insert.source.clone());
    let mut read = 0;
    for insert in inserts {
        if let Some((source, _)) = &source {
            copy.range(&**source, read, insert.position)?;
        }
        copy.batches(insert.run)?;
        read = insert.position + insert.bytes;
    }
    let ends = inserts.iter().any(|insert| insert.ends);
    if let Some((source, size)) = source.as_ref().filter(|_| !ends) {
        copy.range(&**source, read, *size)?;
    }
    file.sync()?;
    Ok(Written { path: path.to_owned(), beside })
}

struct Copy<'a> {
    file: &'a dyn DiskFile,
    end: u64,
}

impl Copy<'_> {
    /// Copies bytes as they are, other damage included.
    fn range(&mut self, source: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(usize::MAX).min(READ_CHUNK_BYTES);
            let mut bytes = vec![0; len];
            read_exact_at(source, &mut bytes, at)?;
            self.put(&mut [IoSlice::new(&bytes)], len)?;
            at += len as u64;
        }
        Ok(())
    }

    fn batches(&mut self, run: &[Batch]) -> io::Result<()> {
        for Batch { header, body } in run {
            // The file is synced whole before it counts: what is before was durable.
            let head = encode_header(header, 0, body);
            let len = head.len() + body.len();
            self.put(&mut [IoSlice::new(&head), IoSlice::new(body)], len)?;
        }
        Ok(())
    }

    fn put(&mut self, parts: &mut [IoSlice<'_>], len: usize) -> io::Result<()> {
        write_all_at(self.file, parts, self.end)?;
        self.end += len as u64;
        Ok(())
    }
}
