//! What was seen at each offset of one partition.
//!
//! Offsets are dense but may begin anywhere (retention, a cluster that is older than the test), so
//! they are kept in chunks: a page of numbers for each [`CHUNK`] of offsets that was touched.

use std::collections::BTreeMap;

use aklight_common::Offset;

use crate::RecordId;

/// Offsets a page: large enough that the map is small, small enough that a lone offset is cheap.
const CHUNK: u64 = 4096;

const NOTHING: RecordId = RecordId(u64::MAX);

/// Records by offset.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    chunks: BTreeMap<u64, Box<[RecordId]>>,
}

impl Ledger {
    /// What was seen at an offset.
    pub fn get(&self, offset: Offset) -> Option<RecordId> {
        let page = self.chunks.get(&(offset.0 / CHUNK))?;
        let place = usize::try_from(offset.0 % CHUNK).ok()?;
        page.get(place).copied().filter(|record| *record != NOTHING)
    }

    /// Notes what was seen first at an offset; later sights change nothing.
    pub fn note(&mut self, offset: Offset, record: RecordId) {
        let page = self.chunks.entry(offset.0 / CHUNK).or_insert_with(new_page);
        let place = usize::try_from(offset.0 % CHUNK).ok();
        if let Some(slot) = place.and_then(|place| page.get_mut(place))
            && *slot == NOTHING
        {
            *slot = record;
        }
    }

    /// All that was seen, in the order of the offsets.
    pub fn iter(&self) -> impl Iterator<Item = (Offset, RecordId)> + '_ {
        self.chunks.iter().flat_map(|(chunk, page)| {
            (chunk * CHUNK..)
                .zip(page.iter().copied())
                .filter(|(_, record)| *record != NOTHING)
                .map(|(offset, record)| (Offset(offset), record))
        })
    }
}

fn new_page() -> Box<[RecordId]> {
    std::iter::repeat_n(NOTHING, usize::try_from(CHUNK).unwrap_or(0)).collect()
}

/// A set of offsets, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    words: BTreeMap<u64, u64>,
}

impl Offsets {
    /// Adds one; `false` when it was there already.
    pub fn add(&mut self, offset: Offset) -> bool {
        let (word, bit) = (self.words.entry(offset.0 / 64).or_default(), 1 << (offset.0 % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether it is there.
    pub fn has(&self, offset: Offset) -> bool {
        self.words.get(&(offset.0 / 64)).is_some_and(|word| word & (1 << (offset.0 % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sight_stays_and_all_come_in_order() {
        let mut ledger = Ledger::default();
        for offset in [9_000_000_000, 0, CHUNK - 1, CHUNK] {
            ledger.note(Offset(offset), RecordId(offset));
            ledger.note(Offset(offset), RecordId(7));
        }
        let all: Vec<_> = ledger.iter().map(|(offset, record)| (offset.0, record.0)).collect();
        let expect = [0, CHUNK - 1, CHUNK, 9_000_000_000].map(|offset| (offset, offset));
        assert_eq!(all, expect);
        assert_eq!(ledger.get(Offset(1)), None);
    }

    #[test]
    fn a_set_knows_its_offsets() {
        let mut offsets = Offsets::default();
        assert!(offsets.add(Offset(64)) && !offsets.add(Offset(64)));
        assert!(offsets.has(Offset(64)) && !offsets.has(Offset(0)) && !offsets.has(Offset(128)));
    }
}
