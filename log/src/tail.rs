//! The newest batches, in memory: what is not yet on disk, and what live readers want next.
//!
//! Invariant: the entries follow one another without a gap; whatever is not yet written is here,
//! however much it is. What is written goes, oldest first, once the tail holds more than it may.

use std::collections::VecDeque;

use aklight_common::{Offset, RaftIndex};

use crate::format::{Batch, HEADER_BYTES};

/// The newest batches.
#[derive(Default)]
pub(crate) struct Tail {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, batch: Batch) {
        debug_assert!(
            self.batches.back().is_none_or(|last| last.header.index.next() == batch.header.index),
            "entries follow one another"
        );
        self.bytes += cost(&batch);
        self.batches.push_back(batch);
    }

    /// Drops the oldest of what is written until at most `bytes_max` are left.
    pub(crate) fn shrink(&mut self, written: Option<RaftIndex>, bytes_max: usize) {
        while self.bytes > bytes_max {
            match self.batches.front() {
                Some(front) if Some(front.header.index) <= written => {
                    self.bytes -= cost(front);
                    self.batches.pop_front();
                }
                _ => break,
            }
        }
        // A queue that once grew long gives its memory back.
        if self.batches.capacity() > 1024 && self.batches.len() < self.batches.capacity() / 4 {
            self.batches.shrink_to(self.batches.len() * 2);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The batches from an entry on, where the tail reaches back so far.
    pub(crate) fn since_index(&self, index: RaftIndex) -> Option<impl Iterator<Item = &Batch>> {
        let first = self.batches.front()?.header.index;
        let skipped = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        (skipped < self.batches.len()).then(|| self.batches.range(skipped..))
    }

    /// The batches from the one that holds an offset on, where the tail reaches back so far.
    pub(crate) fn since_offset(&self, offset: Offset) -> Option<impl Iterator<Item = &Batch>> {
        if offset < self.batches.front()?.header.base_offset {
            return None;
        }
        let skipped = self.batches.partition_point(|batch| batch.header.end_offset() <= offset);
        (skipped < self.batches.len()).then(|| self.batches.range(skipped..))
    }

    /// Every batch, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }
}

fn cost(batch: &Batch) -> usize {
    batch.body.len() + HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use aklight_common::Term;
    use bytes::Bytes;

    use super::*;
    use crate::format::{BatchHeader, BatchKind};

    fn tail(batches: u64) -> Tail {
        let mut tail = Tail::default();
        for n in 0..batches {
            let header = BatchHeader {
                index: RaftIndex(10 + n),
                term: Term(1),
                kind: BatchKind::Records,
                base_offset: Offset(100 + 2 * n),
                records: 2,
                first_time_us: 0,
                last_time_us: 0,
                body_len: 36,
            };
            tail.push(Batch { header, body: Bytes::from_static(&[0; 36]) });
        }
        tail
    }

    fn first(found: Option<impl Iterator<Item = &'static Batch>>) -> Option<u64> {
        found?.next().map(|batch| batch.header.index.0)
    }

    #[test]
    fn what_is_not_written_stays() {
        let mut tail = tail(10);
        tail.shrink(Some(RaftIndex(13)), 0);
        assert_eq!(tail.all().next().map(|batch| batch.header.index), Some(RaftIndex(14)));
        tail.shrink(Some(RaftIndex(19)), 250);
        assert_eq!(tail.all().count(), 2);
    }

    #[test]
    fn a_place_is_found_by_entry_and_by_offset_or_not_at_all() {
        let tail: &'static Tail = Box::leak(Box::new(tail(3)));
        assert_eq!(first(tail.since_index(RaftIndex(11))), Some(11));
        assert_eq!(first(tail.since_index(RaftIndex(9))), None);
        assert_eq!(first(tail.since_index(RaftIndex(13))), None);
        assert_eq!(first(tail.since_offset(Offset(103))), Some(11));
        assert_eq!(first(tail.since_offset(Offset(99))), None);
        assert_eq!(first(tail.since_offset(Offset(106))), None);
    }
}
