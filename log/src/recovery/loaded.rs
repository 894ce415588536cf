//! Looking at one segment: believing its sidecar, or reading it through.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Recovery, at};
use crate::compressed::{self, SegmentFile};
use crate::damage::Broken;
use crate::disk::DiskFile;
use crate::errors::OpenError;
use crate::index::{SegmentIndex, Summary};
use crate::report::Damage;
use crate::scan::{
    Cursor, Next, READ_CHUNK_BYTES, Step, is_blank, is_vouched_for, next_good, read_rest,
};
use crate::segment::SegmentName;
use crate::sidecar;

/// A segment that was looked at.
pub(super) struct Loaded {
    pub name: SegmentName,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub compressed_bytes: Option<u64>,
    pub summary: Summary,
    /// Only where the segment was read through.
    pub index: Option<SegmentIndex>,
    pub damages: Vec<Damage>,
    /// Bytes behind the last good batch that are neither zeros nor damage with a batch behind.
    pub leftover: u64,
    pub leftover_holds_batches: bool,
    /// Bytes that are known to have been durable when the last batch was written.
    pub vouched: u64,
}

impl Loaded {
    pub(super) const fn next(&self) -> Next {
        Next { index: self.summary.next_index, offset: self.summary.end_offset }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.summary.first_index == self.summary.next_index
    }
}

impl Recovery<'_> {
    /// Looks at a segment.
    pub(super) fn load(
        &mut self,
        name: SegmentName,
        start: Next,
        last: bool,
    ) -> Result<Loaded, OpenError> {
        let path = self.dir.join(name.file());
        let opened = compressed::open(self.disk, &path).map_err(at("open", &path))?;
        let SegmentFile { file, compressed_bytes } = match opened.compressed_bytes {
            // What came behind it is gone, and the log goes on in it.
            Some(_) if last => {
                self.expand(&path, &*opened.file).map_err(at("write anew", &path))?
            }
            _ => opened,
        };
        if !last
            && self.believes_sidecars
            && let Some(index) = self.believe(&path, &*file).map_err(at("read", &path))?
        {
            let damages = index.damages().to_vec();
            self.report.damaged.extend_from_slice(&damages);
            let summary = *index.summary();
            let (leftover, leftover_holds_batches, vouched) = (0, false, summary.size);
            let index = None;
            return Ok(Loaded {
                name,
                path,
                file,
                compressed_bytes,
                summary,
                index,
                damages,
                leftover,
                leftover_holds_batches,
                vouched,
            });
        }
        let mut loaded = self.scan(name, &path, file, start, last).map_err(at("read", &path))?;
        loaded.compressed_bytes = compressed_bytes;
        if !last {
            self.report.indexes_rebuilt.push(path);
            self.put_sidecar(&loaded);
        }
        Ok(loaded)
    }

    fn expand(&self, path: &Path, file: &dyn DiskFile) -> io::Result<SegmentFile> {
        let file = compressed::write::expand(self.disk, path, file, file.size()?)?;
        Ok(SegmentFile { file, compressed_bytes: None })
    }

    /// A sealed segment's index from its sidecar, if both fit together.
    fn believe(&self, path: &Path, file: &dyn DiskFile) -> io::Result<Option<SegmentIndex>> {
        let Some(index) = sidecar::read(self.disk, path)? else { return Ok(None) };
        let summary = *index.summary();
        if summary.size != file.size()? {
            return Ok(None);
        }
        let first = Next { index: summary.first_index, offset: summary.base_offset };
        let mut begin = Cursor::new(file, 0, summary.size, Some(first), 0);
        let mut end = Cursor::new(file, summary.last_position, summary.size, None, 0);
        let fits = matches!(begin.step()?, Step::Batch(..))
            && matches!(end.step()?, Step::Batch(..))
            && end.next() == Some(Next { index: summary.next_index, offset: summary.end_offset })
            && end.position() == summary.size;
        Ok(fits.then_some(index))
    }

    /// Reads a segment through.
    fn scan(
        &mut self,
        name: SegmentName,
        path: &Path,
        file: Arc<dyn DiskFile>,
        start: Next,
        last: bool,
    ) -> io::Result<Loaded> {
        let size = file.size()?;
        let mut index = SegmentIndex::new(start.index, start.offset);
        let (mut leftover, mut leftover_holds_batches) = (0, false);
        let mut cursor = Cursor::new(&*file, 0, size, None, READ_CHUNK_BYTES);
        loop {
            match cursor.step()? {
                Step::Batch(position, batch) => {
                    index.add(position, &batch);
                    continue;
                }
                Step::End => break,
                Step::Broken => {}
            }
            let position = cursor.position();
            if is_blank(&*file, position, size)? {
                break;
            }
            let rest = read_rest(&*file, position, size)?;
            let content = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            let next = cursor.next().unwrap_or(start);
            let found = next_good(&rest[..content], 0, next);
            let was_durable =
                || !last || self.is_acknowledged(next) || is_vouched_for(&rest[..content], next);
            match found {
                Some(found) if was_durable() => {
                    let broken = Broken {
                        disk: self.disk,
                        segment: path,
                        file: &*file,
                        position,
                        end: size,
                        from: next,
                        behind: found.next,
                    };
                    index.add_damage(broken.describe(found.at as u64, found.next));
                    cursor.jump(position + found.at as u64, found.next);
                }
                _ => {
                    leftover = content as u64;
                    leftover_holds_batches = found.is_some();
                    break;
                }
            }
        }
        self.report.scanned_bytes += cursor.position();
        let vouched = cursor.vouched();
        self.report.damaged.extend_from_slice(index.damages());
        Ok(Loaded {
            name,
            path: path.to_owned(),
            summary: *index.summary(),
            damages: index.damages().to_vec(),
            index: Some(index),
            file,
            compressed_bytes: None,
            leftover,
            leftover_holds_batches,
            vouched,
        })
    }

    fn is_acknowledged(&self, next: Next) -> bool {
        self.acknowledged.is_some_and(|point| point.index >= next.index)
    }

    pub(super) fn put_sidecar(&self, loaded: &Loaded) {
        if let Some(index) = &loaded.index {
            sidecar::write(self.disk, &loaded.path, index);
        }
    }
}
