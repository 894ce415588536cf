//! Replicas apply the same: an entry is the same wherever it is applied, and in the end all copies
//! of a partition end at one offset.

use std::collections::BTreeMap;

use aklight_common::{BrokerId, Offset, PartitionId, RaftIndex};

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

#[derive(Default)]
pub(super) struct Replicas {
    entries: BTreeMap<(u32, RaftIndex), (u64, BrokerId)>,
    ends: BTreeMap<PartitionId, (Offset, BrokerId)>,
}

impl Invariant for Replicas {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        match event {
            Event::Applied { broker, group, index, digest } => {
                let first = *self.entries.entry((*group, *index)).or_insert((*digest, *broker));
                if first.0 != *digest {
                    let text = format!(
                        "entry {index} of group {group} is another for broker {broker} than for broker {}",
                        first.1
                    );
                    found.add(Rule::Replicas, text);
                }
            }
            Event::CopyEnds { broker, partition, end } => {
                let first = *self.ends.entry(*partition).or_insert((*end, *broker));
                if first.0 != *end {
                    let text = format!(
                        "partition {partition} ends at {} on broker {} and at {end} on broker {broker}",
                        first.0, first.1
                    );
                    found.add(Rule::Replicas, text);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::{Event, Rule};
    use aklight_common::{BrokerId, RaftIndex};

    #[test]
    fn an_entry_that_differs_is_found() {
        let applied = |broker, digest| Event::Applied {
            broker: BrokerId(broker),
            group: 1,
            index: RaftIndex(8),
            digest,
        };
        expect(&[], Story::new().tell(applied(1, 5)).tell(applied(2, 5)));
        expect(&[Rule::Replicas], Story::new().tell(applied(1, 5)).tell(applied(2, 6)));
    }

    #[test]
    fn copies_that_end_apart_are_found() {
        let story = || Story::new().sent(1).unknown(0);
        expect(&[], story().copy(1, &[0]).copy(2, &[0]));
        expect(&[Rule::Replicas], story().copy(1, &[0]).copy(2, &[]));
    }
}
