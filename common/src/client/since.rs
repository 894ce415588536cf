//! Where a moment is in the log, for those who ask over the line protocol.
//!
//! Records know when they were measured; offsets are in the order of arrival, which is that of the
//! measurements but for late records. So the first record that is not older than a moment is looked
//! for by halves, with a FETCH of one record a step: some twenty steps for a million records. Where
//! late records lie about, the offset that is found may have an older record behind it.
//!
//! Invariant: every matching record before `low` that was looked at is older, and none is from
//! `high` on; each step makes what is between them smaller.

use super::{Client, ClientError, FetchRequest, Message, PartitionInfo};
use crate::{Offset, Pattern};

impl Client {
    /// The offset of the first record of a partition that is not older than a moment, or where its
    /// log ended when `partition` was asked for. `time_of` reads a record's moment; one that has none
    /// counts as not older.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub async fn first_since(
        &mut self,
        pattern: &Pattern,
        partition: &PartitionInfo,
        from_ms: u64,
        time_of: impl Fn(&Message) -> Option<u64>,
    ) -> Result<Offset, ClientError> {
        let mut halving = Halving::new(partition.start, partition.end);
        while let Some(offset) = halving.next() {
            let (pattern, partition) = (pattern.clone(), Some(partition.id));
            let request = FetchRequest { pattern, offset, partition, max: 1, wait_ms: 0 };
            let fetched = self.fetch(&request).await?;
            let found = fetched.messages.first();
            let older = found.filter(|found| time_of(found).is_some_and(|ms| ms < from_ms));
            halving.note(offset, older.map(|older| older.offset));
        }
        Ok(halving.low)
    }
}

/// What is left of a search.
struct Halving {
    low: Offset,
    high: Offset,
}

impl Halving {
    fn new(low: Offset, high: Offset) -> Self {
        Self { low, high }
    }

    /// From where to look for a record next.
    fn next(&self) -> Option<Offset> {
        let left = self.high.0.checked_sub(self.low.0).filter(|left| *left > 0)?;
        Some(Offset(self.low.0 + left / 2))
    }

    /// From there on, the first record is this one, and older than what is looked for; or there is
    /// none that is.
    fn note(&mut self, looked: Offset, older: Option<Offset>) {
        match older {
            Some(older) => self.low = older.next(),
            None => self.high = looked,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Records with their times, in order; every second or third matches.
        #[test]
        fn the_first_record_that_is_not_older_is_found(
            steps in prop::collection::vec((0..3_u64, any::<bool>()), 0..200),
            start in 0..1000_u64,
            from in 0..300_u64,
        ) {
            let mut at = 0;
            let mut log = Vec::new();
            for (step, matches) in steps {
                at += step;
                log.push(matches.then_some(at));
            }
            let (first, end) = (Offset(start), Offset(start + log.len() as u64));
            let mut halving = Halving::new(first, end);
            let mut looks = 0;
            while let Some(looked) = halving.next() {
                let records = (start..).zip(&log).skip_while(|(offset, _)| *offset < looked.0);
                let found = records.filter_map(|(offset, time)| Some((offset, (*time)?))).next();
                let older = found.filter(|(_, time)| *time < from).map(|(offset, _)| Offset(offset));
                halving.note(looked, older);
                looks += 1;
            }
            let matching = || (start..).zip(&log).filter_map(|(at, time)| Some((at, (*time)?)));
            // Nothing older is left behind it, and nothing that is wanted before it.
            prop_assert!(matching().all(|(at, time)| (at < halving.low.0) == (time < from)));
            prop_assert!(first <= halving.low && halving.low <= end);
            prop_assert!(looks <= 9, "{looks} looks for {} records", log.len());
        }
    }
}
