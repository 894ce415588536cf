//! Records of one partition, from an offset on.

use aklight_common::record::Record;
use aklight_common::wire::{ErrorCode, WireError};
use aklight_common::{Offset, PartitionId};
use aklight_log::{Batch, ReadError};

use super::lines::no_record;
use crate::partition::Partition;

/// Bytes of the log read at once: enough that the system call costs little, little enough to be
/// held for each reader of a full house.
const READ_BYTES: usize = 256 << 10;

/// The first read behind a jump: about a block of the log's index, which is what a topic that is
/// seldom written shares with others.
const FIRST_READ_BYTES: usize = 16 << 10;

/// So few records are looked at sooner than an index is asked about them.
const NEAR_RECORDS: u64 = 512;

/// Whether what is left between two offsets is so little that no index is worth asking.
#[must_use]
pub const fn is_near(from: Offset, to: Offset) -> bool {
    to.0.saturating_sub(from.0) <= NEAR_RECORDS
}

/// How much to read at once on a way through the log: little at first and behind a jump, more and more where one
/// read follows the other.
pub struct Stride(usize);

impl Stride {
    /// For a way that begins somewhere.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Bytes of the next read, which is at `from`; the one before ended at `before`.
    pub fn next(&mut self, before: Offset, from: Offset) -> usize {
        let goes_on = from == before && self.0 > 0;
        self.0 = if goes_on { (4 * self.0).min(READ_BYTES) } else { FIRST_READ_BYTES };
        self.0
    }

    /// Whether the way begins, or has just jumped, and what it will meet is not known.
    pub const fn is_first(&self) -> bool {
        self.0 == FIRST_READ_BYTES
    }
}

/// Where records go that were read.
pub type Sink<'a> = &'a mut dyn FnMut(PartitionId, Offset, &Record<'_>);

/// Why a reader cannot go on where it stands, and where it can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Gap {
    /// The next offset that can be read.
    pub resume: Offset,
    /// What lies before it.
    pub text: String,
}

impl Gap {
    /// As it is answered to a FETCH.
    #[must_use]
    pub fn to_wire(&self) -> WireError {
        ErrorCode::OffsetOutOfRange.with(&self.text)
    }
}

/// Reads batches from the one that holds `from` on, up to the offset `to` (exclusive); none when
/// there is nothing yet.
///
/// # Errors
/// A [`Gap`] where the log cannot be read, or `internal` when the disk does not answer.
pub fn read(
    partition: &Partition,
    from: Offset,
    to: Offset,
) -> Result<Result<Vec<Batch>, Gap>, WireError> {
    read_up_to(partition, from, to, READ_BYTES)
}

/// Reads the one batch that holds an offset.
///
/// # Errors
/// As [`read`].
pub fn read_one(
    partition: &Partition,
    offset: Offset,
) -> Result<Result<Vec<Batch>, Gap>, WireError> {
    read_up_to(partition, offset, partition.end(), 1)
}

/// As [`read`], about so many bytes.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(
    partition: &Partition,
    from: Offset,
    to: Offset,
    bytes_max: usize,
) -> Result<Result<Vec<Batch>, Gap>, WireError> {
    if from >= to {
        return Ok(Ok(Vec::new()));
    }
    let id = partition.id;
    match partition.log.read_offsets(from, to, bytes_max) {
        Ok(batches) => Ok(Ok(batches)),
        Err(ReadError::Purged { first, .. }) => Ok(Err(Gap {
            resume: first,
            text: format!("the first offset kept in partition {id} is {first}"),
        })),
        Err(ReadError::Damaged { from, file, .. }) if partition.group().has_copies() => {
            Err(ErrorCode::Unavailable.with(&format!(
                "the records from offset {from} on in partition {id} are damaged on this broker's disk (set aside in {}) and are being fetched from another broker: try again, or ask another broker",
                file.display()
            )))
        }
        Err(ReadError::Damaged { from, resume, file, .. }) => Ok(Err(Gap {
            resume,
            text: format!(
                "the records from offset {from} on in partition {id} are damaged on disk (set aside in {}): the first offset kept behind them is {resume}",
                file.display()
            ),
        })),
        Err(error) => {
            tracing::error!(partition = id.0, %error, "the log cannot be read");
            Err(ErrorCode::Internal.with(&format!("partition {id} cannot be read: {error}")))
        }
    }
}

/// The records of a batch with their offsets, those below `from` left out.
pub fn records(
    batch: &Batch,
    from: Offset,
) -> impl Iterator<Item = Result<(Offset, Record<'_>), WireError>> {
    records_on(batch, from, |_| true)
}

/// The same of some topics: of others nothing is looked at but how long they are.
pub fn records_on(
    batch: &Batch,
    from: Offset,
    wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = Result<(Offset, Record<'_>), WireError>> {
    let base = batch.header.base_offset.0;
    let mut records = batch.records();
    let read = std::iter::from_fn(move || records.next_wanted(&wanted));
    read.zip(base..).skip_while(move |(_, offset)| *offset < from.0).filter_map(
        |(record, offset)| {
            let record = record.transpose()?.map(|record| (Offset(offset), record));
            Some(record.map_err(|error| no_record(&error)))
        },
    )
}
