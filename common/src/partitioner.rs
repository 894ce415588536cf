//! Which partition a record goes to.
//!
//! A key always leads to the same partition, so that one source keeps its order; records
//! without a key go round. The hash is DJB2 as the protocol's page gives it: h = 5381, then
//! h · 33 + byte, in 32 bits that wrap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use crate::PartitionId;

/// DJB2 over a key's unescaped bytes.
#[must_use]
pub fn djb2(key: &[u8]) -> u32 {
    key.iter().fold(5381_u32, |h, byte| h.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

/// Most keys that the table remembers: a machine has at most thousands of sources, and a
/// client that makes up keys must not fill the memory. Beyond it a key is hashed each time.
const KEYS_MAX: usize = 65_536;

/// Leads records to partitions, and remembers which keys it has seen and where they went.
#[derive(Debug)]
pub struct Partitioner {
    partitions: u32,
    round_robin: AtomicU32,
    keys: RwLock<HashMap<Box<[u8]>, PartitionId, RandomState>>,
}

impl Partitioner {
    /// For a cluster of `partitions` partitions, at least one.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        assert!(partitions > 0, "a cluster has at least one partition");
        Self { partitions, round_robin: AtomicU32::new(0), keys: RwLock::default() }
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a record of PRODUCE: by its key, or the next in turn when it has none.
    pub fn route(&self, key: &[u8]) -> PartitionId {
        if key.is_empty() {
            return PartitionId(self.round_robin.fetch_add(1, Ordering::Relaxed) % self.partitions);
        }
        self.route_key(key)
    }

    /// The partition of a record of PRODUCE_ONCE: by its key, or by its sequence, so that a
    /// repeat meets the first one.
    pub fn route_once(&self, sequence: u64, key: &[u8]) -> PartitionId {
        if key.is_empty() {
            let turn = sequence % u64::from(self.partitions);
            return PartitionId(u32::try_from(turn).unwrap_or_default());
        }
        self.route_key(key)
    }

    /// The keys seen in each partition, for people who ask why one partition is fuller.
    pub fn keys_per_partition(&self) -> Vec<usize> {
        let mut counts = vec![0; self.partitions as usize];
        for partition in self.keys.read().values() {
            counts[partition.0 as usize] += 1;
        }
        counts
    }

    fn route_key(&self, key: &[u8]) -> PartitionId {
        // Many readers at once on the common path; a writer only for a key's first record.
        if let Some(partition) = self.keys.read().get(key) {
            return *partition;
        }
        let partition = PartitionId(djb2(key) % self.partitions);
        let mut keys = self.keys.write();
        if keys.len() < KEYS_MAX {
            keys.insert(key.into(), partition);
        }
        partition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures worked out by hand from the formula.
    #[test]
    fn djb2_is_the_formula_of_the_protocol() {
        assert_eq!(djb2(b""), 5381);
        assert_eq!(djb2(b"a"), 5381 * 33 + 97);
        assert_eq!(djb2(b"ab"), (5381 * 33 + 97) * 33 + 98);
        assert_eq!(djb2(&[0xff; 64]), {
            let mut h: u32 = 5381;
            for _ in 0..64 {
                h = h.wrapping_mul(33).wrapping_add(255);
            }
            h
        });
    }

    #[test]
    fn a_key_stays_where_it_is_and_no_key_goes_round() {
        let partitioner = Partitioner::new(2);
        let first = partitioner.route(b"producer1");
        assert_eq!(first, PartitionId(djb2(b"producer1") % 2));
        assert_eq!(partitioner.route(b"producer1"), first);
        assert_eq!(partitioner.route_once(77, b"producer1"), first);
        assert_eq!(partitioner.keys_per_partition().iter().sum::<usize>(), 1);
        let turns: Vec<_> = (0..4).map(|_| partitioner.route(b"").0).collect();
        assert_eq!(turns, [0, 1, 0, 1]);
        assert_eq!(partitioner.route_once(7, b""), PartitionId(1));
    }
}
