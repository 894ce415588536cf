//! The batch: the unit that is appended, checked, replicated and read, and its bytes on disk.
//!
//! A segment file is batches one after another, without padding. Each is a header of 64 bytes
//! and a body; every number is little-endian:
//!
//! ```text
//! at size
//!  0  4  magic        "AKB1"
//!  4  4  crc32c       over the header from byte 8 on, and the body
//!  8  4  body length  bytes, at most BODY_BYTES_MAX
//! 12  1  kind         0 blank, 1 records, 2 membership, 3 command
//! 13  1  version      1
//! 14  2  reserved     0
//! 16  8  index        the Raft index; the next batch has the next one
//! 24  8  term         the Raft term; never falls
//! 32  8  base offset  of the first record; of the next record to come where there is none
//! 40  4  records      how many offsets the batch takes; 0 but for kind 1
//! 44  4  unsynced     bytes of this segment, right before this batch, of which it was not yet
//!                     known whether they were durable when this batch was written
//! 48  8  first time   microseconds since the Unix epoch
//! 56  8  last time    microseconds since the Unix epoch
//! ```
//!
//! `unsynced` is evidence for recovery: a batch that can be read vouches that everything before
//! its unsynced stretch had reached the disk, so a hole *there* is damage to something that may
//! have been acknowledged, while a hole within the stretch is what a power loss leaves of one
//! unfinished write. The file may go on with zeros (space taken in advance): a header of zeros
//! means that the log ends.
//!
//! The body of a batch of records is described in `aklight_common::record`; every other body is
//! opaque here. What is left out: any repair of a damaged batch. A sealed segment may be compressed as a
//! whole (see `compressed`); to whoever reads it, it is as said here.

use aklight_common::record::{Records, StoredRecords};
use aklight_common::{Offset, RaftIndex, Term};
use bytes::Bytes;

/// Bytes of a batch's header.
pub const HEADER_BYTES: usize = 64;

/// Longest body of a batch: thirty-two of the longest lines. Bounds what a reader allocates on
/// the word of a header that it could not check yet.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// Opens every batch.
pub(crate) const MAGIC: [u8; 4] = *b"AKB1";

const VERSION: u8 = 1;

/// Where the bytes that the checksum covers begin.
const CRC_FROM: usize = 8;

/// What a batch's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BatchKind {
    /// Nothing: the entry with which a leader begins its term.
    Blank = 0,
    /// Records; the only kind that takes offsets.
    Records = 1,
    /// The members of the cluster.
    Membership = 2,
    /// A command to the state machine.
    Command = 3,
}

impl BatchKind {
    /// The kind that is written as this byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Records),
            2 => Some(Self::Membership),
            3 => Some(Self::Command),
            _ => None,
        }
    }
}

/// A batch to be appended. The log adds the offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Must follow the log's last index.
    pub index: RaftIndex,
    /// Must not be below the log's last term.
    pub term: Term,
    /// What the body is.
    pub kind: BatchKind,
    /// How many records the body holds; 0 but for [`BatchKind::Records`].
    pub records: u32,
    /// Time of the first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// Time of the last record, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// What a stored batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Place in the Raft log.
    pub index: RaftIndex,
    /// Raft term.
    pub term: Term,
    /// What the body is.
    pub kind: BatchKind,
    /// Offset of the first record; where there is none, of the next record to come.
    pub base_offset: Offset,
    /// How many offsets the batch takes.
    pub records: u32,
    /// Time of the first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// Time of the last record, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// Bytes of the body.
    pub body_len: u32,
}

impl BatchHeader {
    /// The offset after the batch's last record.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0 + self.records as u64)
    }

    /// Bytes on disk, header and body.
    #[must_use]
    pub const fn stored_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_len as u64
    }
}

/// A batch as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What it says of itself.
    pub header: BatchHeader,
    /// Records, or whatever the kind says.
    pub body: Bytes,
}

impl Batch {
    /// The records, in order; none unless the kind is [`BatchKind::Records`].
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(self.stored(), self.header.first_time_us)
    }

    /// The same as they stand there, for readers who make something else of topics than text.
    #[must_use]
    pub fn stored_records<T: Copy>(&self) -> StoredRecords<'_, T> {
        StoredRecords::new(self.stored(), self.header.first_time_us)
    }

    fn stored(&self) -> &[u8] {
        if self.header.kind == BatchKind::Records { &self.body } else { &[] }
    }
}

/// Writes a header with its checksum.
pub(crate) fn encode_header(
    header: &BatchHeader,
    unsynced: u32,
    body: &[u8],
) -> [u8; HEADER_BYTES] {
    debug_assert_eq!(header.body_len as usize, body.len(), "the header describes this body");
    let mut bytes = [0_u8; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&header.body_len.to_le_bytes());
    bytes[12] = header.kind as u8;
    bytes[13] = VERSION;
    bytes[16..24].copy_from_slice(&header.index.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.term.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.base_offset.0.to_le_bytes());
    bytes[40..44].copy_from_slice(&header.records.to_le_bytes());
    bytes[44..48].copy_from_slice(&unsynced.to_le_bytes());
    bytes[48..56].copy_from_slice(&header.first_time_us.to_le_bytes());
    bytes[56..64].copy_from_slice(&header.last_time_us.to_le_bytes());
    let crc = checksum(&bytes, body);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A header whose form is right; its checksum is not yet compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawHeader {
    pub header: BatchHeader,
    pub unsynced: u32,
    crc: u32,
}

impl RawHeader {
    /// Reads a header; `None` where the bytes cannot be one.
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let header = BatchHeader {
            body_len: u32_at(bytes, 8),
            kind: BatchKind::from_byte(bytes[12])?,
            index: RaftIndex(u64_at(bytes, 16)),
            term: Term(u64_at(bytes, 24)),
            base_offset: Offset(u64_at(bytes, 32)),
            records: u32_at(bytes, 40),
            first_time_us: u64_at(bytes, 48),
            last_time_us: u64_at(bytes, 56),
        };
        let plausible = bytes[0..4] == MAGIC
            && bytes[13] == VERSION
            && header.body_len as usize <= BODY_BYTES_MAX
            && (header.kind == BatchKind::Records || header.records == 0)
            && header.base_offset.0.checked_add(u64::from(header.records)).is_some()
            && header.index.0 != u64::MAX;
        plausible.then_some(Self { header, unsynced: u32_at(bytes, 44), crc: u32_at(bytes, 4) })
    }

    /// Whether header and body are as they were written.
    pub(crate) fn vouches_for(&self, bytes: &[u8; HEADER_BYTES], body: &[u8]) -> bool {
        body.len() == self.header.body_len as usize && checksum(bytes, body) == self.crc
    }
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[CRC_FROM..]), body)
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            index: RaftIndex(7),
            term: Term(3),
            kind: BatchKind::Records,
            base_offset: Offset(40),
            records: 2,
            first_time_us: 1_000,
            last_time_us: 2_000,
            body_len: 4,
        }
    }

    #[test]
    fn the_bytes_of_version_1_stand() {
        let bytes = encode_header(&header(), 9, b"body");
        let expect = "414b4231 dc12b75d 04000000 01 01 0000 0700000000000000 0300000000000000 \
                      2800000000000000 02000000 09000000 e803000000000000 d007000000000000";
        let expect: String = expect.split_whitespace().collect();
        let got: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn any_flipped_bit_of_header_or_body_is_seen() {
        let good = encode_header(&header(), 0, b"body");
        for bit in 0..(HEADER_BYTES + 4) * 8 {
            let (mut bytes, mut body) = (good, *b"body");
            match bit / 8 {
                at if at < HEADER_BYTES => bytes[at] ^= 1 << (bit % 8),
                at => body[at - HEADER_BYTES] ^= 1 << (bit % 8),
            }
            let accepted =
                RawHeader::read(&bytes).is_some_and(|raw| raw.vouches_for(&bytes, &body));
            assert!(!accepted, "bit {bit}");
        }
        let raw = RawHeader::read(&good).expect("reads");
        assert!(raw.vouches_for(&good, b"body"));
        assert_eq!(raw.header, header());
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(RawHeader::read(&[0; HEADER_BYTES]), None);
    }
}
