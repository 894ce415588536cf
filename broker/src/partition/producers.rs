//! What PRODUCE_ONCE remembers: which sequences of which producer are stored, and where.
//!
//! A sequence is *pending* from the moment it is let in until its record is applied, and *stored*
//! from then on; a repeat of a pending one waits for the same outcome, a repeat of a stored one is
//! answered at once. Only the newest [`SEQUENCE_WINDOW`] below a producer's highest sequence are
//! kept: an older one cannot be told apart from a new one any more and is refused.
//!
//! The table spans all partitions of the broker, because a producer's sequences do. What is stored
//! goes into each partition's checkpoint and is learnt again from the log behind it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::limits::SEQUENCE_WINDOW;
use aklight_common::{Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most producers remembered. Beyond it the one that has been silent longest, and is not connected,
/// is forgotten, so that a client that makes up ids cannot fill the memory.
const PRODUCERS_MAX: usize = 16_384;

/// Where a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
}

/// What is to be done with a record of PRODUCE_ONCE.
#[derive(Debug)]
pub enum Admission {
    /// It is new: append it.
    New,
    /// It is stored already.
    Stored(Place),
    /// It is on its way already; the place comes, or nothing when that attempt fails.
    Pending(oneshot::Receiver<Place>),
    /// It is too far below the highest sequence, which is this.
    TooOld(u64),
}

#[derive(Debug)]
enum Seen {
    Pending(Vec<oneshot::Sender<Place>>),
    Stored(Place),
}

#[derive(Debug, Default)]
struct Sequences {
    highest: u64,
    seen: BTreeMap<u64, Seen>,
}

/// One producer's sequences.
#[derive(Debug)]
pub struct Producer {
    id: Arc<str>,
    sequences: Mutex<Sequences>,
    used: AtomicU64,
}

impl Producer {
    /// The producer's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Lets a sequence in, or says why it need not or must not be appended.
    pub fn admit(&self, sequence: u64) -> Admission {
        let mut sequences = self.sequences.lock();
        if sequence.saturating_add(SEQUENCE_WINDOW) < sequences.highest {
            return Admission::TooOld(sequences.highest);
        }
        match sequences.seen.get_mut(&sequence) {
            Some(Seen::Stored(place)) => return Admission::Stored(*place),
            Some(Seen::Pending(waiting)) => {
                let (tell, told) = oneshot::channel();
                waiting.push(tell);
                return Admission::Pending(told);
            }
            None => {}
        }
        sequences.insert(sequence, Seen::Pending(Vec::new()));
        Admission::New
    }

    fn is_pending(&self) -> bool {
        let sequences = self.sequences.lock();
        sequences.seen.values().any(|seen| matches!(seen, Seen::Pending(_)))
    }

    /// Takes a sequence back whose record was not appended: it may be tried again.
    pub fn withdraw(&self, sequence: u64) {
        let mut sequences = self.sequences.lock();
        if matches!(sequences.seen.get(&sequence), Some(Seen::Pending(_))) {
            // Dropping the senders tells those who wait that nothing came of it.
            sequences.seen.remove(&sequence);
        }
    }

    fn store(&self, sequence: u64, place: Place) {
        let mut sequences = self.sequences.lock();
        if let Some(Seen::Pending(waiting)) = sequences.seen.remove(&sequence) {
            for tell in waiting {
                // Whoever no longer waits has closed its connection.
                let _ = tell.send(place);
            }
        }
        sequences.insert(sequence, Seen::Stored(place));
    }
}

impl Sequences {
    fn insert(&mut self, sequence: u64, seen: Seen) {
        self.seen.insert(sequence, seen);
        if sequence > self.highest {
            self.highest = sequence;
            let oldest = sequence.saturating_sub(SEQUENCE_WINDOW);
            while let Some(first) = self.seen.first_entry() {
                if *first.key() >= oldest {
                    break;
                }
                first.remove();
            }
        }
    }
}

/// All producers of PRODUCE_ONCE that this broker knows.
#[derive(Debug, Default)]
pub struct Producers {
    table: Mutex<HashMap<Arc<str>, Arc<Producer>>>,
    uses: AtomicU64,
}

impl Producers {
    /// The producer with this id, known or new.
    pub fn named(&self, id: &str) -> Arc<Producer> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.lock();
        if let Some(producer) = table.get(id) {
            producer.used.store(now, Ordering::Relaxed);
            return producer.clone();
        }
        if table.len() >= PRODUCERS_MAX {
            let silent = table
                .values()
                .filter(|producer| Arc::strong_count(producer) == 1)
                .min_by_key(|producer| producer.used.load(Ordering::Relaxed));
            // One whose records are still on their way is kept: then there is one too many for once.
            if let Some(silent) =
                silent.filter(|producer| !producer.is_pending()).map(|producer| producer.id.clone())
            {
                table.remove(&silent);
            }
        }
        let id: Arc<str> = id.into();
        let producer = Arc::new(Producer {
            id: id.clone(),
            sequences: Mutex::default(),
            used: AtomicU64::new(now),
        });
        table.insert(id, producer.clone());
        producer
    }

    /// Notes that a record is committed.
    pub fn stored(&self, id: &str, sequence: u64, place: Place) {
        self.named(id).store(sequence, place);
    }

    /// What is stored in one partition: for each producer its sequences and their offsets.
    pub fn stored_in(&self, partition: PartitionId) -> Vec<(String, Vec<(u64, u64)>)> {
        let producers: Vec<_> = self.table.lock().values().cloned().collect();
        producers
            .iter()
            .map(|producer| {
                let sequences = producer.sequences.lock();
                let stored = sequences.seen.iter().filter_map(|(sequence, seen)| match seen {
                    Seen::Stored(place) if place.partition == partition => {
                        Some((*sequence, place.offset.0))
                    }
                    _ => None,
                });
                (producer.id.to_string(), stored.collect::<Vec<_>>())
            })
            .filter(|(_, stored)| !stored.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Place {
        Place { partition: PartitionId(0), offset: Offset(offset) }
    }

    #[test]
    fn a_repeat_is_answered_with_the_first_ones_place() {
        let producers = Producers::default();
        let producer = producers.named("p");
        assert!(matches!(producer.admit(1), Admission::New));
        let Admission::Pending(mut told) = producer.admit(1) else { panic!("is pending") };
        producers.stored("p", 1, place(7));
        assert_eq!(told.try_recv(), Ok(place(7)));
        assert!(matches!(producer.admit(1), Admission::Stored(p) if p == place(7)));
    }

    #[test]
    fn a_sequence_more_than_the_window_below_the_highest_is_refused() {
        let producer = Producers::default().named("p");
        assert!(matches!(producer.admit(10_000), Admission::New));
        assert!(matches!(producer.admit(10_000 - 8192), Admission::New));
        assert!(matches!(producer.admit(10_000 - 8193), Admission::TooOld(10_000)));
    }

    #[test]
    fn a_withdrawn_sequence_may_be_tried_again() {
        let producer = Producers::default().named("p");
        assert!(matches!(producer.admit(3), Admission::New));
        let Admission::Pending(mut told) = producer.admit(3) else { panic!("is pending") };
        producer.withdraw(3);
        assert!(told.try_recv().is_err());
        assert!(matches!(producer.admit(3), Admission::New));
    }

    #[test]
    fn the_silent_are_forgotten_before_the_memory_is_full() {
        let producers = Producers::default();
        for n in 0..PRODUCERS_MAX + 10 {
            producers.stored(&format!("p{n}"), 1, place(1));
        }
        assert_eq!(producers.table.lock().len(), PRODUCERS_MAX);
        assert!(!producers.table.lock().contains_key("p0"));
    }
}
