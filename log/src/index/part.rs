//! A part of a large batch, as the index knows it: enough to read it alone and to trust it.

use std::ops::Range;

use aklight_common::record::put_varint;

use crate::format::Batch;
use crate::varint::Varints;

/// Records that can be read without those before them in their batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where in the segment the records are.
    pub at: u64,
    pub len: u32,
    pub records: u32,
    /// crc32c of them.
    pub crc: u32,
}

impl Part {
    /// The bytes `within` the body of a batch that is at `body_at` in its segment.
    pub(super) fn of(batch: &Batch, body_at: u64, within: Range<usize>, records: u32) -> Self {
        let at = body_at + within.start as u64;
        let bytes = batch.body.get(within).unwrap_or_default();
        // A body is at most as long as its header can say, which is 32 bits.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { at, len, records, crc: crc32c::crc32c(bytes) }
    }

    /// Writes a block's part, or that it is none.
    pub(super) fn encode(part: Option<&Self>, block_at: u64, bytes: &mut Vec<u8>) {
        let Some(Self { at, len, records, crc }) = part else { return put_varint(bytes, 0) };
        for number in [u64::from(*len), at - block_at, u64::from(*records), u64::from(*crc)] {
            put_varint(bytes, number);
        }
    }

    /// Reads what [`Self::encode`] wrote; nothing where that is nonsense.
    #[expect(clippy::option_option, reason = "nonsense, or no part")]
    pub(super) fn decode(block_at: u64, numbers: &mut Varints<'_>) -> Option<Option<Self>> {
        let mut number = || numbers.next();
        let small = |number: u64| u32::try_from(number).ok();
        let len = small(number()?)?;
        if len == 0 {
            return Some(None);
        }
        let at = block_at.checked_add(number()?)?;
        Some(Some(Self { at, len, records: small(number()?)?, crc: small(number()?)? }))
    }
}
