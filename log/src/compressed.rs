//! A compressed segment: the same bytes in blocks of lz4, in a file of the same name.
//!
//! A sealed segment of whose entries none will be truncated may be compressed (see `compress`). Whoever
//! reads it is given a [`DiskFile`] that shows the batches where they were: positions, the index beside
//! it, damage and all that goes by them stay as they are. The file, every number little-endian:
//!
//! ```text
//! at            size
//!  0             24   head
//! 24                  blocks, each of 12 bytes and what is stored:
//!                       4  number of the block, from 0
//!                       4  bytes of the segment in it: 16384, fewer in the last one
//!                       4  bytes stored; as many where the block is stored as it is, else lz4's block format
//! …     8 × blocks    where each block begins in this file
//! end-24         24   the head once more
//!
//! head:  4  magic "LZAK"    4  crc32c over the rest of the head
//!        8  bytes of the segment    4  blocks    4  codec: 1, lz4
//! ```
//!
//! There is no checksum over a block: every batch has its own. What cannot be decoded reads as far as
//! it could be, then as zeros, which is damage like any other. A head that is damaged is read at the
//! other end; a place in the table that is, is found from the block before it.

pub(crate) mod write;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::buffer::Buffer;
use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::format::MAGIC as BATCH_MAGIC;

/// Bytes of a segment in a block: of what a producer writes, 16 KiB come to a quarter, 256 KiB to a fifth,
/// and one record takes one or two blocks to be read (docs/scaling.md).
const BLOCK_BYTES: usize = 16 << 10;

/// Blocks that are decoded at one call: what most readers ask for at once.
const BLOCKS_AT_ONCE: u64 = 16;

/// No bit of it makes it that of a batch.
const MAGIC: [u8; 4] = *b"LZAK";
const LZ4: u32 = 1;
const HEAD_BYTES: usize = 24;
const BLOCK_HEAD_BYTES: usize = 12;
const PLACE_BYTES: usize = 8;

/// A segment's file, as it is read.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    /// Its batches, each at its position.
    pub file: Arc<dyn DiskFile>,
    /// Bytes that they take on the disk, where they are compressed.
    pub compressed_bytes: Option<u64>,
}

/// Opens a segment's file, compressed or not.
pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<SegmentFile> {
    of_file(disk.open(path)?)
}

/// The same, of which nothing is changed.
pub(crate) fn open_read(disk: &dyn Disk, path: &Path) -> io::Result<SegmentFile> {
    of_file(disk.open_read(path)?)
}

fn of_file(file: Arc<dyn DiskFile>) -> io::Result<SegmentFile> {
    let size = file.size()?;
    let raw = SegmentFile { file: file.clone(), compressed_bytes: None };
    if size < 2 * HEAD_BYTES as u64 {
        return Ok(raw);
    }
    let head_at = |at| -> io::Result<[u8; HEAD_BYTES]> {
        let mut bytes = [0; HEAD_BYTES];
        read_exact_at(&*file, &mut bytes, at)?;
        Ok(bytes)
    };
    let first = head_at(0)?;
    if first.starts_with(&BATCH_MAGIC) {
        return Ok(raw);
    }
    let last = Head::decode(&head_at(size - HEAD_BYTES as u64)?);
    let Some(head) = Head::decode(&first).or(last) else { return Ok(raw) };
    let Head { bytes, blocks } = head;
    let behind_blocks =
        (size - HEAD_BYTES as u64).checked_sub(u64::from(blocks) * PLACE_BYTES as u64);
    // Without its end nobody knows where the table would be.
    let table_at = behind_blocks.filter(|_| last == Some(head));
    let blocks_end = table_at.unwrap_or(size);
    let found = OnceLock::new();
    let file = Arc::new(CompressedFile { file, bytes, blocks, table_at, blocks_end, found });
    Ok(SegmentFile { file, compressed_bytes: Some(size) })
}

/// What stands at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    bytes: u64,
    blocks: u32,
}

impl Head {
    /// `None` where a segment is too long to be compressed.
    fn of(bytes: u64) -> Option<Self> {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
        Some(Self { bytes, blocks })
    }

    fn encode(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        head[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        head[20..].copy_from_slice(&LZ4.to_le_bytes());
        let crc = crc32c::crc32c(&head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn decode(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let is_whole = head.starts_with(&MAGIC) && number(&head[4..]) == crc32c::crc32c(&head[8..]);
        let bytes = u64::from(number(&head[8..])) | u64::from(number(&head[12..])) << 32;
        let found = Self::of(bytes)?;
        let fits = number(&head[16..]) == found.blocks && number(&head[20..]) == LZ4;
        (is_whole && fits).then_some(found)
    }
}

/// The first four bytes as a number; zeros behind the end.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Shows a segment as it was before it was compressed.
struct CompressedFile {
    file: Arc<dyn DiskFile>,
    /// Of the segment.
    bytes: u64,
    blocks: u32,
    /// Where the table is, unless that is damaged.
    table_at: Option<u64>,
    blocks_end: u64,
    /// Where blocks were found to begin, once the table was wrong.
    found: OnceLock<Vec<Option<u64>>>,
}

impl CompressedFile {
    /// Bytes of the segment that a block holds.
    fn len_of(&self, block: u64) -> usize {
        let left = self.bytes - block * BLOCK_BYTES as u64;
        usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES))
    }

    /// Where blocks begin, and where the last of them ends: by the table. Nothing where there is none.
    fn places(&self, from: u64, blocks: u64) -> io::Result<Vec<u64>> {
        let Some(table_at) = self.table_at else { return Ok(Vec::new()) };
        let has_next = from + blocks < u64::from(self.blocks);
        let count = usize::try_from(blocks).map_err(io::Error::other)? + usize::from(has_next);
        let mut bytes = vec![0; count * PLACE_BYTES];
        read_exact_at(&*self.file, &mut bytes, table_at + from * PLACE_BYTES as u64)?;
        let (places, _) = bytes.as_chunks();
        let places = places.iter().map(|place| u64::from_le_bytes(*place));
        Ok(places.chain((!has_next).then_some(self.blocks_end)).collect())
    }

    /// The bytes stored of a block that begins here, if it is the one that is sought.
    fn stored_at(&self, place: u64, block: u64) -> io::Result<Option<usize>> {
        let room = self.blocks_end.checked_sub(place.saturating_add(BLOCK_HEAD_BYTES as u64));
        let Some(room) = room else { return Ok(None) };
        let mut head = [0; BLOCK_HEAD_BYTES];
        read_exact_at(&*self.file, &mut head, place)?;
        Ok(self.stored_len(&head, block).filter(|stored| *stored as u64 <= room))
    }

    /// The same of a block's head.
    fn stored_len(&self, head: &[u8], block: u64) -> Option<usize> {
        let len = self.len_of(block);
        let stored = number(head.get(8..)?) as usize;
        let is_it = u64::from(number(head)) == block && number(&head[4..]) as usize == len;
        (is_it && stored <= len).then_some(stored)
    }

    /// Where every block is, by going from one to the next; where that ends, the table may know more.
    fn find_all(&self) -> io::Result<&[Option<u64>]> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let table = self.places(0, u64::from(self.blocks))?;
        let mut found = Vec::new();
        let mut behind = Some(HEAD_BYTES as u64);
        for block in 0..u64::from(self.blocks) {
            let by_table = usize::try_from(block).ok().and_then(|block| table.get(block)).copied();
            let mut here = None;
            for place in [behind, by_table].into_iter().flatten() {
                if let Some(stored) = self.stored_at(place, block)? {
                    here = Some((place, stored));
                    break;
                }
            }
            found.push(here.map(|(place, _)| place));
            behind = here.map(|(place, stored)| place + (BLOCK_HEAD_BYTES + stored) as u64);
        }
        Ok(self.found.get_or_init(|| found))
    }

    /// Decodes a block that is not where the table says.
    fn decode_lost(&self, block: u64, into: &mut [u8]) -> io::Result<()> {
        let all = self.find_all()?;
        let place = usize::try_from(block).ok().and_then(|block| *all.get(block)?);
        let stored = place.map(|place| self.stored_at(place, block)).transpose()?.flatten();
        let (Some(place), Some(stored)) = (place, stored) else {
            into.fill(0);
            return Ok(());
        };
        let mut bytes = vec![0; stored];
        read_exact_at(&*self.file, &mut bytes, place + BLOCK_HEAD_BYTES as u64)?;
        decode(&bytes, into);
        Ok(())
    }
}

/// Decodes what is stored of a block, as far as that can be done; the rest is zeros.
fn decode(stored: &[u8], into: &mut [u8]) {
    if stored.len() == into.len() {
        into.copy_from_slice(stored);
        return;
    }
    into.fill(0);
    // The batches in it tell what is wrong.
    let _ = lz4_flex::block::decompress_into(stored, into);
}

impl DiskFile for CompressedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.bytes.saturating_sub(at));
        if wanted == 0 {
            return Ok(0);
        }
        let first = at / BLOCK_BYTES as u64;
        let behind = (at + wanted).div_ceil(BLOCK_BYTES as u64).min(first + BLOCKS_AT_ONCE);
        let places = self.places(first, behind - first)?;
        let (from, end) = (places.first().copied(), places.last().copied());
        let (from, end) = (from.unwrap_or_default(), end.unwrap_or_default());
        let is_plausible = places.is_sorted()
            && end <= self.blocks_end
            && end - from <= (behind - first) * (BLOCK_HEAD_BYTES + BLOCK_BYTES) as u64;
        let len = if is_plausible { usize::try_from(end - from).unwrap_or(0) } else { 0 };
        let mut stretch = Buffer::new(from, len);
        read_exact_at(&*self.file, stretch.as_mut(), from)?;

        let (mut filled, mut scratch) = (0, Vec::new());
        for (nth, block) in (first..behind).enumerate() {
            let place = places.get(nth).copied().unwrap_or(u64::MAX);
            let len = self.len_of(block);
            let skip = ((at + filled as u64) % BLOCK_BYTES as u64) as usize;
            let take = (len - skip).min(buffer.len() - filled);
            let whole = if take == len {
                &mut buffer[filled..filled + take]
            } else {
                scratch.resize(len, 0);
                &mut scratch[..]
            };
            let here = usize::try_from(place.wrapping_sub(from)).unwrap_or(usize::MAX);
            let head = stretch
                .as_ref()
                .get(here..)
                .and_then(|rest| rest.split_at_checked(BLOCK_HEAD_BYTES));
            let stored = head.and_then(|(head, rest)| rest.get(..self.stored_len(head, block)?));
            match stored {
                Some(stored) => decode(stored, whole),
                None => self.decode_lost(block, whole)?,
            }
            if take < len {
                buffer[filled..filled + take].copy_from_slice(&scratch[skip..skip + take]);
            }
            filled += take;
        }
        Ok(filled)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(unchangeable())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        Err(unchangeable())
    }

    fn preallocate(&self, _: u64, _: u64) -> io::Result<()> {
        Err(unchangeable())
    }
}

fn unchangeable() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a compressed segment is never written to")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::write::compress_beside;
    use super::*;
    use crate::disk::MemoryDisk;

    const PATH: &str = "/d/00000000000000000000.log";

    fn made_at() -> PathBuf {
        Path::new(PATH).with_extension("7.new")
    }

    /// A file of runs, which compresses, with some noise, which does not; and the same compressed.
    fn made(runs: &[(u8, usize)]) -> (Vec<u8>, MemoryDisk) {
        let mut content = Vec::new();
        for (byte, len) in runs {
            let mut noise = u32::from(*byte).wrapping_mul(2_654_435_761) + 1;
            for _ in 0..*len {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                content.push(if *byte < 16 { (noise >> 24) as u8 } else { *byte });
            }
        }
        let disk = MemoryDisk::new();
        let shared = disk.shared();
        let file = shared.create(Path::new(PATH)).expect("created");
        crate::disk::write_all_at(&*file, &mut [IoSlice::new(&content)], 0).expect("written");
        let len = content.len() as u64;
        compress_beside(&*shared, Path::new(PATH), 7, &*file, len).expect("made");
        (content, disk)
    }

    fn runs() -> impl Strategy<Value = Vec<(u8, usize)>> {
        prop::collection::vec((any::<u8>(), 1_usize..20_000), 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_stretch_reads_as_it_was(
            runs in runs(),
            stretches in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..400_000), 1..20),
        ) {
            let (content, disk) = made(&runs);
            let Ok(made) = open(&*disk.shared(), &made_at()) else {
                // It saves too little.
                return Ok(());
            };
            let on_disk = disk.contents(&made_at()).map(|bytes| bytes.len() as u64);
            prop_assert_eq!(made.compressed_bytes, on_disk);
            prop_assert_eq!(made.file.size().expect("known"), content.len() as u64);
            for (at, len) in stretches {
                let at = at.index(content.len());
                let len = len.min(content.len() - at);
                let mut bytes = vec![1; len];
                read_exact_at(&*made.file, &mut bytes, at as u64).expect("read");
                prop_assert!(bytes == content[at..at + len]);
            }
            prop_assert_eq!(made.file.read_at(&mut [0; 9], content.len() as u64).expect("read"), 0);
        }

        #[test]
        fn a_damaged_file_reads_as_long_as_it_was_and_each_time_alike(
            runs in runs(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (_, disk) = made(&runs);
            let path = made_at();
            let Some(len) = disk.contents(&path).map(|bytes| bytes.len()) else { return Ok(()) };
            let file = disk.shared().open(&path).expect("there");
            for (at, byte) in damage {
                file.write_at(&[IoSlice::new(&[byte])], at.index(len) as u64).expect("written");
            }
            if let Some(cut) = cut {
                file.set_size(cut.index(len) as u64).expect("cut");
            }
            let found = open(&*disk.shared(), &path).expect("opened");
            let size = found.file.size().expect("known");
            let mut whole = vec![0; usize::try_from(size).expect("little")];
            read_exact_at(&*found.file, &mut whole, 0).expect("read");
            let mut halves = vec![0; whole.len()];
            let (one, other) = halves.split_at_mut(whole.len() / 2);
            read_exact_at(&*found.file, one, 0).expect("read");
            read_exact_at(&*found.file, other, size / 2).expect("read");
            prop_assert!(whole == halves);
        }
    }
}
