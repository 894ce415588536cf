//! How high each producer's sequences are, over all partitions.
//!
//! PRODUCE_ONCE refuses a sequence that is too far below its producer's highest, in whatever
//! partition that is. The broker that takes the line checks it, with what it knows: what is
//! committed here, and what connections of the same producer have let in here. That another broker
//! may know a higher one is harmless: each partition refuses what it cannot tell apart itself.
//!
//! Nothing is decided here about repeats: that is the partition's leader's, by `sequences`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Partitions;
use super::sequences::is_too_old;

/// One producer, as its connections to this broker share it.
#[derive(Debug)]
pub struct Producer {
    id: Arc<str>,
    let_in: AtomicU64,
}

impl Producer {
    /// The producer's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The highest sequence that is committed here.
    #[must_use]
    pub fn committed(&self, partitions: &Partitions) -> u64 {
        let highest = partitions.iter().map(|partition| partition.highest_sequence(&self.id));
        highest.max().unwrap_or(0)
    }

    /// Lets a sequence in, `committed` being the highest of [`Self::committed`].
    ///
    /// # Errors
    /// The highest sequence, when this one is too far below it.
    pub fn let_in(&self, sequence: u64, committed: u64) -> Result<(), u64> {
        let let_in = self.let_in.fetch_max(sequence, Ordering::Relaxed);
        let highest = let_in.max(committed);
        if is_too_old(sequence, highest) { Err(highest) } else { Ok(()) }
    }
}

/// The producers that are connected to this broker and have used PRODUCE_ONCE.
#[derive(Debug, Default)]
pub struct Producers {
    connected: Mutex<Connected>,
}

#[derive(Debug, Default)]
struct Connected {
    producers: HashMap<Arc<str>, Arc<Producer>>,
    // At so many those who have gone are looked for.
    full_at: usize,
}

/// Producers who have gone are looked for when there are so many, and from then on each time that
/// those who are left have doubled: bounded by the connections, at no cost that a line would feel.
const CONNECTED_MIN: usize = 1024;

impl Producers {
    /// The producer with this id, connected already or not.
    #[must_use]
    pub fn named(&self, id: &str) -> Arc<Producer> {
        let mut connected = self.connected.lock();
        if let Some(producer) = connected.producers.get(id) {
            return producer.clone();
        }
        if connected.producers.len() >= connected.full_at.max(CONNECTED_MIN) {
            connected.producers.retain(|_, producer| Arc::strong_count(producer) > 1);
            connected.full_at = 2 * connected.producers.len();
        }
        let id: Arc<str> = id.into();
        let producer = Arc::new(Producer { id: id.clone(), let_in: AtomicU64::new(0) });
        connected.producers.insert(id, producer.clone());
        producer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_more_than_the_window_below_the_highest_is_refused() {
        let producers = Producers::default();
        let producer = producers.named("p");
        assert_eq!(producer.let_in(10_000, 0), Ok(()));
        assert_eq!(producers.named("p").let_in(10_000 - 8192, 0), Ok(()));
        assert_eq!(producer.let_in(10_000 - 8193, 0), Err(10_000));
        assert_eq!(producer.let_in(10_000, 18_193), Err(18_193));
        assert_eq!(producers.named("q").let_in(1, 0), Ok(()));
    }

    #[test]
    fn those_who_have_gone_are_forgotten_and_those_who_are_here_are_not() {
        let producers = Producers::default();
        let here = producers.named("here");
        assert_eq!(here.let_in(10_000, 0), Ok(()));
        for n in 0..10 * CONNECTED_MIN {
            let _ = producers.named(&format!("p{n}"));
        }
        assert!(producers.connected.lock().producers.len() <= CONNECTED_MIN);
        assert_eq!(producers.named("here").let_in(1, 0), Err(10_000));
    }
}
