//! What becomes of the records of a batch.

use aklight_common::Offset;

/// Why records were not stored, or are not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The disk is nearly full; nothing was stored.
    #[error("{0}")]
    NoRoom(String),
    /// Nobody took them in time; nothing was stored.
    #[error("{0}: nothing was stored, try again")]
    NotStored(String),
    /// They were on their way; they may be stored or not.
    #[error("{0}: whether it was stored is not known; repeat it with PRODUCE_ONCE")]
    Unknown(String),
    /// This broker does not lead the partition, and what another passes on to it goes no further;
    /// nothing was stored. Never told to clients.
    #[error("this broker does not lead the partition: nothing was stored")]
    NotLeader,
}

/// Where the records of a batch are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// One behind the other, from this offset on: a batch without repeats.
    From(Offset),
    /// Each in its own place, in the order of the batch.
    Each(Vec<Outcome>),
}

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored there: now, or since an earlier time when it is a repeat.
    Stored(Offset),
    /// It is too far below its producer's highest sequence, which is this.
    TooOld(u64),
}

impl Placed {
    /// What became of the `nth` record.
    #[must_use]
    pub fn of(&self, nth: u32) -> Option<Outcome> {
        match self {
            Self::From(base) => Some(Outcome::Stored(Offset(base.0 + u64::from(nth)))),
            Self::Each(outcomes) => outcomes.get(nth as usize).copied(),
        }
    }

    /// A part of the batch, as a batch of its own; none when there are not that many records.
    #[must_use]
    pub(super) fn part(&self, first: u32, records: u32) -> Option<Self> {
        match self {
            Self::From(base) => Some(Self::From(Offset(base.0 + u64::from(first)))),
            Self::Each(outcomes) => {
                let end = (first as usize).checked_add(records as usize)?;
                Some(Self::compact(outcomes.get(first as usize..end)?.to_vec()))
            }
        }
    }

    /// In the shorter form where there is one.
    fn compact(outcomes: Vec<Outcome>) -> Self {
        let Some(Outcome::Stored(base)) = outcomes.first().copied() else {
            return Self::Each(outcomes);
        };
        let rising = (base.0..).map(|offset| Outcome::Stored(Offset(offset)));
        if outcomes.iter().copied().eq(rising.take(outcomes.len())) {
            return Self::From(base);
        }
        Self::Each(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_as_a_batch_of_its_own() {
        let stored = |offset| Outcome::Stored(Offset(offset));
        let placed = Placed::Each(vec![stored(3), Outcome::TooOld(9), stored(7), stored(8)]);
        assert_eq!(placed.part(2, 2), Some(Placed::From(Offset(7))));
        assert_eq!(placed.part(0, 2), Some(Placed::Each(vec![stored(3), Outcome::TooOld(9)])));
        assert_eq!(placed.part(3, 2), None);
        assert_eq!(Placed::From(Offset(5)).part(2, 2), Some(Placed::From(Offset(7))));
    }
}
