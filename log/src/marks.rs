//! What the log remembers beside its segments: the purge mark and the committed hint.
//!
//! Both live in files of two slots (see `slots`), as plain little-endian numbers with a byte in
//! front that says whether they are there.
//!
//! The *hint* is written often and synced never by itself. It holds the caller's own bytes (how
//! far it had committed) and the log's: the last entry it had acknowledged. An acknowledgement
//! is noted only after the entry was durable, so a hint that says more than the segments hold is
//! proof of a loss; a hint that says less proves nothing. An opening that has such proof makes it
//! durable first.

use aklight_common::{Offset, RaftIndex, Term};

const POINT_BYTES: usize = 25;

/// A place in the log: an entry, and the offset right behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub term: Term,
    pub index: RaftIndex,
    /// The offset after the entry's last record.
    pub end_offset: Offset,
}

/// Writes a place, or that there is none.
pub(crate) fn encode_point(point: Option<Point>) -> [u8; POINT_BYTES] {
    let mut bytes = [0; POINT_BYTES];
    if let Some(point) = point {
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&point.term.0.to_le_bytes());
        bytes[9..17].copy_from_slice(&point.index.0.to_le_bytes());
        bytes[17..25].copy_from_slice(&point.end_offset.0.to_le_bytes());
    }
    bytes
}

/// Reads a place; what is not one reads as none.
pub(crate) fn decode_point(bytes: &[u8]) -> Option<Point> {
    let bytes: &[u8; POINT_BYTES] = bytes.first_chunk()?;
    let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    (bytes[0] == 1).then(|| Point {
        term: Term(number(1)),
        index: RaftIndex(number(9)),
        end_offset: Offset(number(17)),
    })
}

/// The committed hint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    /// The last entry that was acknowledged.
    pub acknowledged: Option<Point>,
    /// The caller's own bytes, if it gave any.
    pub committed: Option<Vec<u8>>,
}

impl Hint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = encode_point(self.acknowledged).to_vec();
        if let Some(committed) = &self.committed {
            bytes.push(1);
            bytes.extend_from_slice(committed);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let committed = match bytes.get(POINT_BYTES..) {
            Some([1, committed @ ..]) => Some(committed.to_vec()),
            _ => None,
        };
        Self { acknowledged: decode_point(bytes), committed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_comes_back() {
        let point = Point { term: Term(3), index: RaftIndex(1 << 40), end_offset: Offset(77) };
        for acknowledged in [None, Some(point)] {
            for committed in [None, Some(Vec::new()), Some(b"bytes".to_vec())] {
                let hint = Hint { acknowledged, committed };
                assert_eq!(Hint::decode(&hint.encode()), hint);
            }
        }
        assert_eq!(Hint::decode(&[]), Hint::default());
    }
}
