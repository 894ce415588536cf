//! Making a compressed segment, and one that can be written to out of it.
//!
//! Both write the new file beside the old one and sync it; a rename is the whole change. So a crash
//! leaves one or the other, and what each says is the same.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BLOCK_BYTES, BLOCK_HEAD_BYTES, HEAD_BYTES, Head, SegmentFile, of_file};
use crate::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::slots::beside;

/// A segment stays as it is if it would not come to four fifths: reading it costs more than it saves.
const PAYS_PERCENT: u64 = 80;

/// Blocks that are tried, from all over a segment, before it is written.
const SAMPLES: u64 = 16;

/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A segment that was written compressed, and waits beside its place.
pub(crate) struct Made {
    file: SegmentFile,
    beside: PathBuf,
}

impl Made {
    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file.file
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.compressed_bytes.unwrap_or(u64::MAX)
    }

    /// Puts it where the segment is. The caller syncs the folder.
    pub(crate) fn put_in_place(self, disk: &dyn Disk, path: &Path) -> io::Result<SegmentFile> {
        match disk.rename(&self.beside, path) {
            Ok(()) => Ok(self.file),
            Err(error) => {
                self.discard(disk);
                Err(error)
            }
        }
    }

    /// Removes it.
    pub(crate) fn discard(self, disk: &dyn Disk) {
        discard(disk, &self.beside);
    }
}

/// What stays is removed when the log is opened.
fn discard(disk: &dyn Disk, beside: &Path) {
    let _ = disk.remove(beside);
}

/// Writes a segment compressed beside its place, synced; `None` where that saves too little, and nothing is
/// left there then. The time makes the name its own: a broker that starts anew within its process may
/// have an earlier log's compression still at work in the folder.
pub(crate) fn compress_beside(
    disk: &dyn Disk,
    path: &Path,
    now_us: u64,
    source: &dyn DiskFile,
    bytes: u64,
) -> io::Result<Option<Made>> {
    let Some(head) = Head::of(bytes) else { return Ok(None) };
    let beside = path.with_extension(format!("{now_us}.new"));
    let written = write(disk, &beside, source, head).inspect_err(|_| discard(disk, &beside));
    let made = Made { file: written?, beside };
    if is_less(made.bytes(), bytes) {
        return Ok(Some(made));
    }
    made.discard(disk);
    Ok(None)
}

/// Replaces a compressed segment by one that can be written to, with its first `bytes`.
pub(crate) fn expand(
    disk: &dyn Disk,
    path: &Path,
    source: &dyn DiskFile,
    bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let beside = beside(path);
    let file = copy(disk, &beside, source, bytes).inspect_err(|_| discard(disk, &beside))?;
    disk.rename(&beside, path).inspect_err(|_| discard(disk, &beside))?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

fn copy(
    disk: &dyn Disk,
    beside: &Path,
    source: &dyn DiskFile,
    bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(beside)?;
    let mut at = 0;
    while at < bytes {
        let len = usize::try_from(bytes - at).map_or(WRITE_BYTES, |left| left.min(WRITE_BYTES));
        let mut stretch = vec![0; len];
        read_exact_at(source, &mut stretch, at)?;
        write_all_at(&*file, &mut [IoSlice::new(&stretch)], at)?;
        at += len as u64;
    }
    file.sync()?;
    Ok(file)
}

fn is_less(compressed: u64, bytes: u64) -> bool {
    compressed * 100 <= bytes * PAYS_PERCENT
}

/// Whether a few blocks from all over a segment come to little enough.
pub(crate) fn pays(source: &dyn DiskFile, bytes: u64) -> io::Result<bool> {
    let Some(head) = Head::of(bytes) else { return Ok(false) };
    let step = (u64::from(head.blocks) / SAMPLES).max(1);
    let mut block = Block::default();
    let (mut before, mut after) = (0, 0);
    for number in (0..u64::from(head.blocks)).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let stored = block.encode(source, head, number)?.len() - BLOCK_HEAD_BYTES;
        (before, after) = (before + block.raw.len() as u64, after + stored as u64);
    }
    Ok(is_less(after, before))
}

fn write(
    disk: &dyn Disk,
    beside: &Path,
    source: &dyn DiskFile,
    head: Head,
) -> io::Result<SegmentFile> {
    let file = disk.create(beside)?;
    let (mut out, mut at) = (head.encode().to_vec(), 0);
    let mut table = Vec::new();
    let mut block = Block::default();
    let mut flush = |out: &mut Vec<u8>| {
        write_all_at(&*file, &mut [IoSlice::new(out)], at)?;
        at += out.len() as u64;
        out.clear();
        io::Result::Ok(())
    };
    let mut place = HEAD_BYTES as u64;
    for number in 0..u64::from(head.blocks) {
        let stored = block.encode(source, head, number)?;
        table.extend_from_slice(&place.to_le_bytes());
        place += stored.len() as u64;
        out.extend_from_slice(stored);
        if out.len() >= WRITE_BYTES {
            flush(&mut out)?;
        }
    }
    out.extend_from_slice(&table);
    out.extend_from_slice(&head.encode());
    flush(&mut out)?;
    file.sync()?;
    of_file(file)
}

/// A block on its way: memory that is used again.
#[derive(Default)]
struct Block {
    raw: Vec<u8>,
    stored: Vec<u8>,
}

impl Block {
    /// The block with its head.
    fn encode(&mut self, source: &dyn DiskFile, head: Head, number: u64) -> io::Result<&[u8]> {
        let at = number * BLOCK_BYTES as u64;
        let len =
            usize::try_from(head.bytes - at).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        self.raw.resize(len, 0);
        read_exact_at(source, &mut self.raw, at)?;
        self.stored.resize(BLOCK_HEAD_BYTES + lz4_flex::block::get_maximum_output_size(len), 0);
        let (place, body) = self.stored.split_at_mut(BLOCK_HEAD_BYTES);
        let made = lz4_flex::block::compress_into(&self.raw, body).unwrap_or(len);
        let stored = if made < len {
            made
        } else {
            body[..len].copy_from_slice(&self.raw);
            len
        };
        for (field, value) in place.chunks_mut(4).zip([number, len as u64, stored as u64]) {
            // All below 2³²: the head was made of it.
            field.copy_from_slice(&(value as u32).to_le_bytes());
        }
        Ok(&self.stored[..BLOCK_HEAD_BYTES + stored])
    }
}
