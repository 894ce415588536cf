//! The state machine's checkpoint: one file, whole or not there.
//!
//! ```text
//! checkpoint = "AKC1" crc32c index length bytes       4 + 4 + 8 + 8 bytes, then the state
//! ```
//!
//! The checksum covers everything behind it. It is written beside its place, synced, renamed:
//! a crash leaves the one before. A damaged one reads as none, which costs the state machine a
//! longer replay and nothing else.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use aklight_common::RaftIndex;

use crate::disk::{Disk, read_exact_at, write_all_at};
use crate::slots::beside;

const MAGIC: [u8; 4] = *b"AKC1";
const HEADER_BYTES: usize = 24;
const CRC_FROM: usize = 8;

/// Replaces the checkpoint, durably.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, index: RaftIndex, bytes: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&index.0.to_le_bytes());
    header[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_FROM..]), bytes);
    header[4..8].copy_from_slice(&crc.to_le_bytes());

    let path = path(dir);
    let beside = beside(&path);
    let file = disk.create(&beside)?;
    write_all_at(&*file, &mut [IoSlice::new(&header), IoSlice::new(bytes)], 0)?;
    file.sync()?;
    disk.rename(&beside, &path)?;
    disk.sync_dir(dir)
}

/// Reads the checkpoint; `None` where there is none, or a damaged one.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<(RaftIndex, Vec<u8>)>> {
    let path = path(dir);
    let file = match disk.open_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // The file's own length bounds what is allocated, not a number that may be damaged.
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    let decoded = decode(&bytes);
    if decoded.is_none() {
        tracing::warn!(path = %path.display(), "the checkpoint is damaged and not used");
    }
    Ok(decoded)
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

fn decode(bytes: &[u8]) -> Option<(RaftIndex, Vec<u8>)> {
    let (header, state) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let index = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let len = u64::from_le_bytes(header[16..24].try_into().ok()?);
    let good = header[..4] == MAGIC
        && len == state.len() as u64
        && crc32c::crc32c(&bytes[CRC_FROM..]) == crc;
    good.then(|| (RaftIndex(index), state.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    const DIR: &str = "/d";

    #[test]
    fn a_crash_leaves_the_old_checkpoint_or_the_new_one() {
        let disk = MemoryDisk::new();
        write(&disk, Path::new(DIR), RaftIndex(3), b"old").expect("written");
        disk.fail("sync names", "", 0, io::ErrorKind::Other);
        assert!(write(&disk, Path::new(DIR), RaftIndex(4), b"newer").is_err());
        let read = |seed| read(&disk.crash(seed), Path::new(DIR)).expect("readable").map(|c| c.1);
        let after: Vec<_> = (0..64).map(read).collect();
        assert!(after.contains(&Some(b"old".to_vec())));
        assert!(after.contains(&Some(b"newer".to_vec())));
        assert!(after.iter().all(Option::is_some));
    }

    #[test]
    fn a_damaged_checkpoint_reads_as_none() {
        let disk = MemoryDisk::new();
        write(&disk, Path::new(DIR), RaftIndex(3), b"state").expect("written");
        let path = path(Path::new(DIR));
        assert_eq!(
            read(&disk, Path::new(DIR)).expect("readable"),
            Some((RaftIndex(3), b"state".to_vec()))
        );
        for bit in 0..(HEADER_BYTES + 5) * 8 {
            disk.flip_bit(&path, bit);
            assert_eq!(read(&disk, Path::new(DIR)).expect("readable"), None, "bit {bit}");
            disk.flip_bit(&path, bit);
        }
    }
}
