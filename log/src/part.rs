//! Reading a part of a large batch alone: for who looks for a few records among many.
//!
//! It is trusted by the checksum that the index has of it. Whatever does not fit is no answer here: who
//! then reads the whole batch is told what is wrong with it.

use aklight_common::Offset;
use aklight_common::record::StoredRecords;
use bytes::Bytes;

use crate::buffer::Buffer;
use crate::disk::read_exact_at;
use crate::report::Damage;
use crate::state::Shared;

/// Records of a batch that were read without the rest of it.
#[derive(Debug, Clone)]
pub struct StoredPart {
    /// The offset of the first one.
    pub base_offset: Offset,
    /// One past the last one.
    pub end_offset: Offset,
    /// The records, as they stand in the body.
    pub bytes: Bytes,
}

impl StoredPart {
    /// The records in order. Their times are counted from that of their batch, which is not read.
    #[must_use]
    pub fn stored_records<T: Copy>(&self) -> StoredRecords<'_, T> {
        StoredRecords::new(&self.bytes, 0)
    }
}

impl Shared {
    /// The part that holds an offset, if it ends by `to`; none where its batch has no parts, or is still
    /// in memory as a whole.
    pub(crate) fn read_part(&self, at: Offset, to: Offset) -> Option<StoredPart> {
        let segment = {
            let state = self.state.read();
            if at < state.start_offset() || state.tail.since_offset(at).is_some() {
                return None;
            }
            let behind = state.segments.partition_point(|segment| segment.base_offset <= at);
            state.segments.get(behind.checked_sub(1)?)?.clone()
        };
        let is_lost = |damage: &Damage| (damage.from..damage.resume).contains(&at);
        if segment.damages.lock().iter().any(is_lost) {
            return None;
        }
        let (base_offset, part) = self.look(&segment, |index| index.part_of(at))??;
        let end_offset = Offset(base_offset.0 + u64::from(part.records));
        if at >= end_offset || end_offset > to {
            return None;
        }
        let len = usize::try_from(part.len).ok()?;
        let mut buffer = Buffer::new(part.at, len);
        read_exact_at(&**segment.file()?, buffer.as_mut(), part.at).ok()?;
        let is_good = crc32c::crc32c(buffer.as_ref()) == part.crc;
        is_good.then(|| StoredPart { base_offset, end_offset, bytes: buffer.share(len) })
    }
}
