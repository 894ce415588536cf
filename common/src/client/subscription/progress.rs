//! Which records the caller was given, so that a reconnection brings each of the rest once.
//!
//! The two kinds of consumer forget in different places. To a *persistent* one the broker sends
//! again, after a reconnection, whatever is not acknowledged: [`Progress::Persistent`] remembers
//! what was delivered since and holds it back. A *live* one is sent only what is new: what was
//! stored while it was away is fetched, and [`Progress::Live`] knows from where, and where the
//! fetched and the pushed records meet.
//!
//! For a live one the positions are kept by pattern and partition: `next` means that every
//! record below it which that pattern matches was delivered. A record that several patterns
//! match was delivered as soon as one of their positions is above it.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::values::Message;
use crate::{Offset, PartitionId, Pattern};

/// Most delivered and unacknowledged records that are remembered: 16 bytes each or so. A caller
/// that acknowledges later than that may see a record again after a reconnection, as the
/// protocol allows ("at least once").
const REMEMBERED_MAX: usize = 1 << 20;

/// What one consumer was given.
#[derive(Debug)]
pub(super) enum Progress {
    Persistent(Seen),
    Live(Positions),
}

/// Of a persistent consumer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Delivered above what is acknowledged.
    delivered: BTreeMap<PartitionId, BTreeSet<Offset>>,
    count: usize,
}

impl Seen {
    /// Records up to here need not be remembered: the broker learns of this before it is asked
    /// for records again.
    pub(super) fn acknowledged(&mut self, partition: PartitionId, offset: Offset) {
        if let Some(delivered) = self.delivered.get_mut(&partition) {
            let kept = delivered.split_off(&offset.next());
            self.count -= delivered.len();
            *delivered = kept;
        }
    }

    /// Notes a record; false when the caller had it before.
    pub(super) fn note(&mut self, message: &Message) -> bool {
        let delivered = self.delivered.entry(message.partition).or_default();
        if delivered.contains(&message.offset) {
            return false;
        }
        if self.count < REMEMBERED_MAX {
            delivered.insert(message.offset);
            self.count += 1;
        }
        true
    }
}

/// Of a live consumer.
#[derive(Debug)]
pub(super) struct Positions {
    patterns: Vec<(Pattern, BTreeMap<PartitionId, Offset>)>,
}

impl Positions {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        Self { patterns: patterns.iter().map(|p| (p.clone(), BTreeMap::new())).collect() }
    }

    /// A partition that is seen for the first time begins at its end.
    pub(super) fn registered(&mut self, ends: &[(PartitionId, Offset)]) {
        for (partition, end) in ends {
            for (_, positions) in &mut self.patterns {
                let next = positions.entry(*partition).or_insert(*end);
                if *next > *end {
                    tracing::warn!(
                        %partition, broker_end = %end, seen = %next,
                        "the broker's log ends before what was seen of it: if its data was removed, subscribe anew"
                    );
                }
            }
        }
    }

    /// What to fetch from: the number of each pattern, its partitions and positions.
    pub(super) fn gaps(&self) -> Vec<(usize, PartitionId, Offset)> {
        let patterns = self.patterns.iter().enumerate();
        patterns.flat_map(|(n, (_, p))| p.iter().map(move |(p, next)| (n, *p, *next))).collect()
    }

    pub(super) fn pattern(&self, number: usize) -> &Pattern {
        &self.patterns[number].0
    }

    /// Notes a pushed record; false when the caller had it before.
    pub(super) fn note_pushed(&mut self, message: &Message) -> bool {
        let fresh = self.is_fresh(message);
        for (pattern, positions) in &mut self.patterns {
            if pattern.matches(message.topic.as_str()) {
                raise(positions, message.partition, message.offset.next());
            }
        }
        fresh
    }

    /// Notes a record fetched for one pattern: of the others it says nothing about what lies
    /// before it.
    pub(super) fn note_fetched(&mut self, number: usize, message: &Message) -> bool {
        let fresh = self.is_fresh(message);
        self.fetched_up_to(number, message.partition, message.offset.next());
        fresh
    }

    pub(super) fn fetched_up_to(&mut self, number: usize, partition: PartitionId, next: Offset) {
        raise(&mut self.patterns[number].1, partition, next);
    }

    fn is_fresh(&self, message: &Message) -> bool {
        !self.patterns.iter().any(|(pattern, positions)| {
            positions.get(&message.partition).is_some_and(|next| *next > message.offset)
                && pattern.matches(message.topic.as_str())
        })
    }
}

fn raise(positions: &mut BTreeMap<PartitionId, Offset>, partition: PartitionId, next: Offset) {
    let position = positions.entry(partition).or_default();
    *position = (*position).max(next);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Topic;

    const P: PartitionId = PartitionId(1);

    fn message(topic: &str, offset: u64) -> Message {
        Message {
            topic: Topic::new(topic).expect("a topic"),
            offset: Offset(offset),
            partition: P,
            key: Bytes::new(),
            payload: Bytes::new(),
        }
    }

    #[test]
    fn a_persistent_consumer_is_spared_what_it_was_given() {
        let mut seen = Seen::default();
        for offset in [4, 5, 9] {
            assert!(seen.note(&message("a", offset)));
        }
        seen.acknowledged(P, Offset(5));
        assert_eq!(seen.count, 1);
        let again: Vec<_> = (6..12).filter(|offset| seen.note(&message("a", *offset))).collect();
        assert_eq!(again, [6, 7, 8, 10, 11]);
    }

    #[test]
    fn a_record_that_two_patterns_match_is_delivered_once_and_hides_nothing() {
        let patterns = ["a/#", "+/x"].map(|p| Pattern::new(p).expect("a pattern"));
        let mut positions = Positions::new(&patterns);
        positions.registered(&[(P, Offset(10))]);
        assert!(positions.note_pushed(&message("a/x", 10)));
        assert!(!positions.note_pushed(&message("a/x", 10)));
        // The gap: 11 b/x, 12 a/x, 13 a/y.
        assert!(positions.note_fetched(0, &message("a/x", 12)));
        assert!(positions.note_fetched(0, &message("a/y", 13)));
        positions.fetched_up_to(0, P, Offset(14));
        assert!(positions.note_fetched(1, &message("b/x", 11)), "12 must not hide it");
        assert!(!positions.note_fetched(1, &message("a/x", 12)));
        positions.fetched_up_to(1, P, Offset(14));
        assert_eq!(positions.gaps(), [(0, P, Offset(14)), (1, P, Offset(14))]);
        assert!(!positions.note_pushed(&message("a/y", 13)));
        assert!(positions.note_pushed(&message("b/x", 14)));
    }

    #[test]
    fn a_position_outlives_a_reconnection() {
        let mut positions = Positions::new(&[Pattern::all()]);
        positions.registered(&[(P, Offset(3))]);
        positions.registered(&[(P, Offset(8))]);
        assert_eq!(positions.gaps(), [(0, P, Offset(3))]);
    }
}
