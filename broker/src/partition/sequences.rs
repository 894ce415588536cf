//! What a partition remembers of PRODUCE_ONCE: which sequences of which producer are stored in it,
//! and where.
//!
//! Learnt from committed records alone, in the order of the log, so that every copy of the
//! partition remembers the same. The leader of the partition decides by it: see `admission`.
//!
//! Of a producer, everything down to [`SEQUENCE_WINDOW`] below its highest sequence here is kept;
//! what is older cannot be told apart from a new one any more and is refused. Of producers, those
//! whose last record is newest in the log: never those that this broker has heard of last, which
//! every copy would see differently.
//!
//! Invariants: of each producer the highest sequence and the newest record are among those kept,
//! so that what is read back from a checkpoint goes on as if there had been none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aklight_common::Offset;
use aklight_common::limits::SEQUENCE_WINDOW;
use parking_lot::Mutex;

/// Most producers that a partition remembers: a client that makes up ids must not fill the memory,
/// and a cluster has thousands of producers at most.
const PRODUCERS_MAX: usize = 16_384;

/// For each producer its sequences and their offsets, as checkpoints hold them.
pub type SavedSequences = Vec<(String, Vec<(u64, u64)>)>;

/// What is known of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is stored here.
    Stored(Offset),
    /// It is not, and the producer's highest sequence is this; 0 when there is none.
    Not {
        /// The highest sequence stored here.
        highest: u64,
    },
}

/// The sequences that are stored in a partition.
#[derive(Debug, Default)]
pub struct Sequences {
    table: Mutex<Table>,
}

/// The table behind it, locked once for a whole batch.
#[derive(Debug, Default)]
pub struct Table {
    producers: HashMap<Arc<str>, Producer>,
    // Whose newest record each of these offsets is: the oldest is forgotten first.
    by_newest: BTreeMap<Offset, Arc<str>>,
}

#[derive(Debug)]
struct Producer {
    id: Arc<str>,
    highest: u64,
    newest: Offset,
    stored: BTreeMap<u64, Offset>,
}

impl Sequences {
    /// Reads the table.
    pub fn read<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.table.lock())
    }

    /// Takes in committed records, in the order of the log: producer, sequence, offset.
    pub fn store<'a>(&self, records: impl Iterator<Item = (&'a str, u64, Offset)>) {
        let mut table = self.table.lock();
        for (producer, sequence, offset) in records {
            table.store(producer, sequence, offset);
        }
    }

    /// For a checkpoint: what is stored below an offset.
    #[must_use]
    pub fn save(&self, below: Offset) -> SavedSequences {
        let table = self.table.lock();
        // In the order of the log, so that copies write the same.
        let producers = table.by_newest.values().filter_map(|id| table.producers.get(id));
        producers
            .map(|producer| {
                let stored = producer.stored.iter().filter(|(_, offset)| **offset < below);
                let stored: Vec<_> = stored.map(|(sequence, at)| (*sequence, at.0)).collect();
                (producer.id.to_string(), stored)
            })
            .filter(|(_, stored)| !stored.is_empty())
            .collect()
    }

    /// From a checkpoint, in place of all that was known.
    pub fn restore(&self, saved: &SavedSequences) {
        let mut records: Vec<_> = saved
            .iter()
            .flat_map(|(id, stored)| {
                stored.iter().map(|(sequence, offset)| (Offset(*offset), id.as_str(), *sequence))
            })
            .collect();
        records.sort_unstable();
        let mut table = Table::default();
        for (offset, producer, sequence) in records {
            table.store(producer, sequence, offset);
        }
        *self.table.lock() = table;
    }
}

impl Table {
    /// What is known of a producer's sequence.
    #[must_use]
    pub fn look(&self, producer: &str, sequence: u64) -> Known {
        let Some(producer) = self.producers.get(producer) else {
            return Known::Not { highest: 0 };
        };
        let highest = producer.highest;
        producer.stored.get(&sequence).map_or(Known::Not { highest }, |at| Known::Stored(*at))
    }

    /// A producer's highest sequence; 0 when none is known.
    #[must_use]
    pub fn highest(&self, producer: &str) -> u64 {
        self.producers.get(producer).map_or(0, |producer| producer.highest)
    }

    fn store(&mut self, id: &str, sequence: u64, offset: Offset) {
        let Some(producer) = self.producers.get_mut(id) else {
            self.begin(id.into(), sequence, offset);
            return;
        };
        // No leader lets these in; whoever did, every copy passes over them alike.
        if is_too_old(sequence, producer.highest) || producer.stored.contains_key(&sequence) {
            return;
        }
        producer.stored.insert(sequence, offset);
        self.by_newest.remove(&producer.newest);
        self.by_newest.insert(offset, producer.id.clone());
        producer.newest = offset;
        if sequence > producer.highest {
            producer.highest = sequence;
            while let Some(lowest) = producer.stored.first_entry()
                && is_too_old(*lowest.key(), sequence)
            {
                lowest.remove();
            }
        }
    }

    fn begin(&mut self, id: Arc<str>, sequence: u64, offset: Offset) {
        let stored = BTreeMap::from([(sequence, offset)]);
        let producer = Producer { id: id.clone(), highest: sequence, newest: offset, stored };
        self.producers.insert(id.clone(), producer);
        self.by_newest.insert(offset, id);
        while self.producers.len() > PRODUCERS_MAX {
            let Some((_, silent)) = self.by_newest.pop_first() else { break };
            self.producers.remove(&silent);
        }
    }
}

/// Whether a sequence is further below a producer's highest than is remembered.
#[must_use]
pub const fn is_too_old(sequence: u64, highest: u64) -> bool {
    sequence.saturating_add(SEQUENCE_WINDOW) < highest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: Offset = Offset(u64::MAX);

    fn stored(records: &[(&str, u64, u64)]) -> Sequences {
        let sequences = Sequences::default();
        sequences.store(records.iter().map(|(id, sequence, at)| (*id, *sequence, Offset(*at))));
        sequences
    }

    fn look(sequences: &Sequences, id: &str, sequence: u64) -> Known {
        sequences.read(|table| table.look(id, sequence))
    }

    #[test]
    fn everything_within_the_window_is_remembered_and_nothing_below_it() {
        let sequences = stored(&[("p", 1807, 0), ("p", 1808, 1), ("p", 10_000, 2), ("q", 5, 3)]);
        assert_eq!(look(&sequences, "p", 1808), Known::Stored(Offset(1)));
        assert_eq!(look(&sequences, "p", 1807), Known::Not { highest: 10_000 });
        assert_eq!(look(&sequences, "q", 5), Known::Stored(Offset(3)));
        assert_eq!(look(&sequences, "r", 5), Known::Not { highest: 0 });
    }

    #[test]
    fn the_producer_whose_last_record_is_oldest_is_forgotten_first() {
        let sequences = stored(&[("first", 1, 0), ("second", 1, 1), ("first", 2, 2)]);
        for n in 0..PRODUCERS_MAX as u64 - 1 {
            sequences.store([(format!("p{n}").as_str(), 1, Offset(3 + n))].into_iter());
        }
        assert_eq!(look(&sequences, "first", 1), Known::Stored(Offset(0)));
        assert_eq!(look(&sequences, "second", 1), Known::Not { highest: 0 });
        assert_eq!(sequences.save(END).len(), PRODUCERS_MAX);
    }

    #[test]
    fn a_checkpoint_stands_in_place_of_what_was_known() {
        let sequences = stored(&[("p", 1, 0), ("q", 1, 1)]);
        sequences.restore(&vec![("q".to_owned(), vec![(7, 70)])]);
        assert_eq!(sequences.save(END), [("q".to_owned(), vec![(7, 70)])]);
    }

    fn records() -> impl Strategy<Value = Vec<(u8, u64)>> {
        // Few producers and wide jumps: windows move, and repeats come.
        proptest::collection::vec((0_u8..4, 1_u64..40_000), 0..200)
    }

    fn take(sequences: &Sequences, records: &[(u8, u64)], from: usize) {
        let names = ["a", "b", "c", "d"];
        let records = records.iter().enumerate().skip(from);
        sequences.store(
            records.map(|(at, (who, sequence))| {
                (names[usize::from(*who)], *sequence, Offset(at as u64))
            }),
        );
    }

    proptest! {
        /// A copy that began from a checkpoint, or from the state that stands in for purged
        /// records, remembers what a copy that read the whole log does.
        #[test]
        fn copies_remember_the_same(records in records(), cut in 0_usize..200, start in 0_usize..200) {
            let whole = Sequences::default();
            take(&whole, &records, 0);
            let cut = cut.min(records.len());
            let first = Sequences::default();
            take(&first, &records[..cut], 0);
            let restarted = Sequences::default();
            restarted.restore(&first.save(END));
            take(&restarted, &records, cut);
            prop_assert_eq!(restarted.save(END), whole.save(END));

            let start = start.min(cut);
            let sent = Sequences::default();
            sent.restore(&first.save(Offset(start as u64)));
            take(&sent, &records, start);
            prop_assert_eq!(sent.save(END), whole.save(END));
        }
    }
}
