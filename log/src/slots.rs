//! A small state in a file of two slots: the vote, the purge mark, the committed hint.
//!
//! A write goes to the slot with the older value, so a write that is torn by a power loss leaves
//! the value before it. The slots are a page apart: no torn page holds both.
//!
//! ```text
//! slot = "AKS1" crc32c sequence length payload        4 + 4 + 8 + 4 bytes, then the payload
//! ```
//!
//! The file is born whole, under another name, so a file without one readable slot is damaged
//! and not merely new. What cannot be told: a newest slot that rotted later reads as one that
//! was torn, and the older value stands.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, write_all_at};

/// A page of memory or disk.
const SLOT_STRIDE: u64 = 4096;

const MAGIC: [u8; 4] = *b"AKS1";
const HEADER_BYTES: usize = 20;

/// Where the bytes that the checksum covers begin.
const CRC_FROM: usize = 8;

/// Longest payload: a vote of 64 bytes, or the log's own marks and as much of the caller's.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256;

/// A value in two slots.
pub(crate) struct Slots {
    file: Arc<dyn DiskFile>,
    sequence: u64,
    value: Vec<u8>,
    /// Whether the value is known to be durable: this process synced it.
    is_durable: bool,
}

/// What opening found.
pub(crate) enum Opened {
    Value(Slots),
    Missing,
    Damaged,
}

impl Slots {
    /// Opens an existing file.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Opened> {
        Self::on(disk.open(path))
    }

    /// The same for whoever only reads.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Opened> {
        Self::on(disk.open_read(path))
    }

    fn on(opened: io::Result<Arc<dyn DiskFile>>) -> io::Result<Opened> {
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Missing),
            other => other?,
        };
        let first = read_slot(&*file, 0)?;
        let second = read_slot(&*file, SLOT_STRIDE)?;
        let newest = first.into_iter().chain(second).max_by_key(|(sequence, _)| *sequence);
        Ok(match newest {
            Some((sequence, value)) => {
                Opened::Value(Self { file, sequence, value, is_durable: false })
            }
            None => Opened::Damaged,
        })
    }

    /// Makes a file with an empty value, in place of one that may be there. It is whole or not
    /// there; the caller syncs the folder.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let beside = beside(path);
        let file = disk.create(&beside)?;
        let mut slots = Self { file, sequence: 0, value: Vec::new(), is_durable: false };
        slots.write(&[])?;
        slots.write(&[])?;
        slots.sync()?;
        disk.rename(&beside, path)?;
        Ok(slots)
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// Writes a value, not yet durable.
    pub(crate) fn write(&mut self, value: &[u8]) -> io::Result<()> {
        if value.len() > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes do not fit into a slot of {PAYLOAD_BYTES_MAX}", value.len()),
            ));
        }
        self.is_durable = false;
        self.put(self.sequence + 1, value)?;
        self.sequence += 1;
        self.value = value.to_vec();
        Ok(())
    }

    /// Writes the value again where it is, and makes it durable, unless this process did so. One that
    /// died after a failed sync leaves bytes that can be read and are on no disk, and that no sync
    /// would save: the system thinks that they are. Only writing them again does.
    pub(crate) fn rewrite(&mut self) -> io::Result<()> {
        if self.is_durable {
            return Ok(());
        }
        self.put(self.sequence, &self.value)?;
        self.sync()
    }

    fn put(&self, sequence: u64, value: &[u8]) -> io::Result<()> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        write_all_at(&*self.file, &mut [IoSlice::new(&bytes)], sequence % 2 * SLOT_STRIDE)
    }

    /// Makes the last value durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.is_durable = true;
        Ok(())
    }
}

/// The name under which a file is made before it takes its place.
pub(crate) fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn read_slot(file: &dyn DiskFile, at: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut bytes = [0; HEADER_BYTES + PAYLOAD_BYTES_MAX];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(decode(&bytes[..filled]))
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let len = usize::try_from(u32::from_le_bytes(header[16..20].try_into().ok()?)).ok()?;
    let value = payload.get(..len)?;
    let checked = &bytes[CRC_FROM..HEADER_BYTES + len];
    (header[..4] == MAGIC && crc32c::crc32c(checked) == crc).then(|| (sequence, value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    const PATH: &str = "/d/vote";

    fn value(disk: &MemoryDisk) -> Option<Vec<u8>> {
        match Slots::open(disk, Path::new(PATH)).expect("readable") {
            Opened::Value(slots) => Some(slots.value().to_vec()),
            Opened::Missing | Opened::Damaged => None,
        }
    }

    fn with_two_values() -> MemoryDisk {
        let disk = MemoryDisk::new();
        let mut slots = Slots::create(&disk, Path::new(PATH)).expect("created");
        disk.sync_dir(Path::new("/d")).expect("synced");
        slots.write(b"one").expect("written");
        slots.sync().expect("synced");
        slots.write(b"two").expect("written");
        disk
    }

    #[test]
    fn a_torn_write_leaves_the_value_before_it() {
        let disk = with_two_values();
        assert_eq!(value(&disk), Some(b"two".to_vec()));
        let after: Vec<_> = (0..64).map(|seed| value(&disk.crash(seed))).collect();
        assert!(after.contains(&Some(b"one".to_vec())) && after.contains(&Some(b"two".to_vec())));
        assert!(after.iter().all(Option::is_some));
    }

    #[test]
    fn a_file_without_a_good_slot_is_damaged_and_not_new() {
        let disk = with_two_values();
        disk.flip_bit(Path::new(PATH), 170);
        assert!(value(&disk).is_some());
        disk.flip_bit(Path::new(PATH), 170 + 4096 * 8);
        let opened = Slots::open(&disk, Path::new(PATH)).expect("readable");
        assert!(matches!(opened, Opened::Damaged));
    }

    #[test]
    fn a_crash_while_the_file_is_made_leaves_a_whole_one_or_none() {
        let disk = MemoryDisk::new();
        Slots::create(&disk, Path::new(PATH)).expect("created");
        for seed in 0..64 {
            let opened = Slots::open(&disk.crash(seed), Path::new(PATH)).expect("readable");
            assert!(!matches!(opened, Opened::Damaged), "seed {seed}");
        }
    }
}
