//! The records of a stretch of time, found through the log's indexes of times and topics.
//!
//! A walk begins at the first record that came in at the span's start, jumps over blocks without a
//! wanted topic, and ends with the span, or when its budget of bytes is used up: whoever asks for
//! more than a broker should read for one question gets a part, and knows it.

use std::ops::Range;

use aklight_common::wire::WireError;

use super::reader::{self, Sink};
use crate::partition::Partition;

/// The first read behind a jump: about a block of the log's index, which is what a topic that is
/// seldom written shares with others.
const FIRST_READ_BYTES: usize = 16 << 10;

/// A read that goes on where the one before it ended: a topic that is in every block.
const LONGEST_READ_BYTES: usize = 256 << 10;

/// What a read costs beside its bytes, in bytes: looking into indexes.
const READ_COST_BYTES: usize = 4 << 10;

/// Hands the wanted records that came in within the span (microseconds since the Unix epoch) to
/// `sink`, in order, and takes the bytes read from `budget`. Says whether the span was read to its
/// end.
///
/// # Errors
/// When the disk does not answer.
pub fn walk(
    partition: &Partition,
    wanted: &dyn Fn(&str) -> bool,
    span: Range<u64>,
    budget: &mut usize,
    sink: Sink<'_>,
) -> Result<bool, WireError> {
    let end = partition.end();
    let mut next = partition.log.offset_at_time(span.start).max(partition.start());
    let mut bytes = FIRST_READ_BYTES;
    while next < end {
        let from = partition.log.next_with_topics(next, end, wanted);
        bytes = if from == next { (2 * bytes).min(LONGEST_READ_BYTES) } else { FIRST_READ_BYTES };
        let batches = match reader::read_up_to(partition, from, end, bytes)? {
            Ok(batches) => batches,
            // What is lost cannot be shown; what lies behind it can.
            Err(gap) => {
                next = gap.resume.max(from.next());
                continue;
            }
        };
        if batches.is_empty() {
            return Ok(true);
        }
        let mut read = READ_COST_BYTES;
        for batch in &batches {
            read += batch.body.len();
            next = batch.header.end_offset().max(next);
            for record in reader::records(batch, from) {
                let (offset, record) = record?;
                if record.time_us >= span.end || offset >= end {
                    return Ok(true);
                }
                if record.time_us >= span.start && wanted(record.topic) {
                    sink(partition.id, offset, &record);
                }
            }
        }
        if *budget < read {
            *budget = 0;
            return Ok(false);
        }
        *budget -= read;
    }
    Ok(true)
}
