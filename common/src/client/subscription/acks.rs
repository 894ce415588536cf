//! What the caller has acknowledged, on its way to being durable.
//!
//! ```text
//!  ack() ──► queued ──take, ACK lines and a PING──► on the way ──PONG──► durable
//!              ▲                                       │
//!              └─── connection lost, passing error ────┘
//! ```
//!
//! What a broker pushes between the SUBSCRIBEs of several patterns runs ahead of the older records
//! of the patterns that follow. To acknowledge it would acknowledge those too, unseen, so up to
//! there nothing is acknowledged: a later record, which comes in its order, covers it.
//!
//! An ACK covers all offsets of its partition up to its own, so of each partition only the
//! highest is kept: however quickly the caller acknowledges, one batch a round trip is sent.
//! Invariant, for each partition: durable ≤ on the way ≤ queued, where they are.

use std::collections::BTreeMap;

use crate::{Offset, PartitionId, Topic};

/// The highest acknowledged record of each partition.
pub(super) type Batch = BTreeMap<PartitionId, (Topic, Offset)>;

/// The acknowledgements of one consumer.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queued: Batch,
    on_the_way: Batch,
    durable: BTreeMap<PartitionId, Offset>,
    /// The highest record of each partition that ran ahead. Stays over reconnections, for the
    /// caller may acknowledge late.
    ran_ahead: BTreeMap<PartitionId, Offset>,
}

impl Acks {
    /// Queues one; false when it adds nothing to what was acknowledged before.
    pub(super) fn ack(&mut self, topic: &Topic, offset: Offset, partition: PartitionId) -> bool {
        let covered = self.highest(partition).max(self.ran_ahead.get(&partition).copied());
        if covered.is_some_and(|covered| covered >= offset) {
            return false;
        }
        self.queued.insert(partition, (topic.clone(), offset));
        true
    }

    /// A record came before the broker knew of every pattern.
    pub(super) fn ran_ahead(&mut self, offset: Offset, partition: PartitionId) {
        let highest = self.ran_ahead.entry(partition).or_insert(offset);
        *highest = (*highest).max(offset);
    }

    fn highest(&self, partition: PartitionId) -> Option<Offset> {
        let queued = self.queued.get(&partition).map(|(_, offset)| *offset);
        let on_the_way = self.on_the_way.get(&partition).map(|(_, offset)| *offset);
        queued.or(on_the_way).or(self.durable.get(&partition).copied())
    }

    /// What is to be sent next; empty while a batch is on the way, or when nothing is queued.
    pub(super) fn take(&mut self) -> Batch {
        if self.on_the_way.is_empty() {
            self.on_the_way = std::mem::take(&mut self.queued);
            return self.on_the_way.clone();
        }
        Batch::new()
    }

    /// The batch on the way is durable.
    pub(super) fn confirmed(&mut self) {
        for (partition, (_, offset)) in std::mem::take(&mut self.on_the_way) {
            self.durable.insert(partition, offset);
        }
    }

    /// The batch on the way may not have arrived: it is queued again, under what came since.
    pub(super) fn lost(&mut self) {
        for (partition, ack) in std::mem::take(&mut self.on_the_way) {
            self.queued.entry(partition).or_insert(ack);
        }
    }

    /// The batch on the way was refused for good.
    pub(super) fn refused(&mut self) {
        self.on_the_way.clear();
    }

    /// Whether all that was acknowledged is durable (or refused).
    pub(super) fn is_settled(&self) -> bool {
        self.queued.is_empty() && self.on_the_way.is_empty()
    }

    pub(super) fn durable(&self) -> &BTreeMap<PartitionId, Offset> {
        &self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(0);

    fn offsets(batch: &Batch) -> Vec<u64> {
        batch.values().map(|(_, offset)| offset.0).collect()
    }

    #[test]
    fn a_partition_sends_its_highest_ack_once_a_round_trip() {
        let topic = Topic::new("a").expect("a topic");
        let mut acks = Acks::default();
        assert!(acks.ack(&topic, Offset(3), P) && acks.ack(&topic, Offset(5), P));
        assert!(!acks.ack(&topic, Offset(4), P));
        assert_eq!(offsets(&acks.take()), [5]);
        assert!(acks.ack(&topic, Offset(9), P));
        assert!(acks.take().is_empty(), "one batch at a time");
        acks.confirmed();
        assert_eq!(acks.durable().get(&P), Some(&Offset(5)));
        assert_eq!(offsets(&acks.take()), [9]);
        acks.lost();
        assert_eq!(offsets(&acks.take()), [9], "again after a loss");
        acks.lost();
        assert!(acks.ack(&topic, Offset(10), P));
        assert_eq!(offsets(&acks.take()), [10]);
        assert!(!acks.is_settled());
        acks.confirmed();
        assert!(acks.is_settled());
        assert!(!acks.ack(&topic, Offset(10), P), "durable already");
    }
}
