//! Every record is delivered at least once: to each persistent consumer all that match, from where
//! it was first registered to the end, except what retention forgot.

use std::collections::BTreeMap;

use aklight_common::{Offset, PartitionId};

use super::Invariant;
use crate::ledger::Offsets;
use crate::violation::{Found, Rule};
use crate::{Event, History};

#[derive(Default)]
pub(super) struct Delivered {
    consumers: BTreeMap<u32, Consumer>,
}

#[derive(Default)]
struct Consumer {
    topics: Option<Vec<u16>>,
    begins: BTreeMap<PartitionId, Offset>,
    delivered: BTreeMap<PartitionId, Offsets>,
}

impl Consumer {
    fn wants(&self, history: &History, record: crate::RecordId) -> bool {
        match (&self.topics, history.record(record)) {
            (None, _) => true,
            (Some(topics), Some(sent)) => topics.contains(&sent.topic),
            (Some(_), None) => false,
        }
    }
}

impl Invariant for Delivered {
    fn observe(&mut self, event: &Event, _history: &History, _found: &mut Found) {
        match event {
            Event::Registered { consumer, topics, positions } => {
                self.consumers.entry(*consumer).or_insert_with(|| Consumer {
                    topics: topics.clone(),
                    begins: positions.iter().copied().collect(),
                    delivered: BTreeMap::new(),
                });
            }
            Event::Delivered { consumer, seen } => {
                let delivered = &mut self.consumers.entry(*consumer).or_default().delivered;
                delivered.entry(seen.partition).or_default().add(seen.offset);
            }
            _ => {}
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        let nothing = Offsets::default();
        for (name, consumer) in &self.consumers {
            for (partition, ledger) in history.ledgers() {
                let delivered = consumer.delivered.get(&partition).unwrap_or(&nothing);
                let (Some(begin), Some(start), Some(end)) = (
                    consumer.begins.get(&partition),
                    history.start(partition),
                    history.end(partition),
                ) else {
                    continue;
                };
                let mut missing = ledger.iter().filter(|(offset, record)| {
                    let is_due = offset >= begin && *offset >= start && *offset < end;
                    is_due && consumer.wants(history, *record) && !delivered.has(*offset)
                });
                if let Some((offset, record)) = missing.next() {
                    let more = missing.count();
                    let text = format!(
                        "consumer {name} was never sent {record} at offset {offset} of partition {partition}, nor {more} more there"
                    );
                    found.add(Rule::Delivered, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    #[test]
    fn a_record_that_a_consumer_never_got_is_found() {
        let story = || Story::new().sent(1).acked(0, 0).registered(1).sent(1).acked(1, 1);
        expect(&[], story().delivered(1, 1).copies(&[0, 1]));
        expect(&[Rule::Delivered], story().copies(&[0, 1]));
    }

    #[test]
    fn a_topic_that_it_did_not_ask_for_is_not_missed() {
        let story = || Story::new().registered_for(&[5], 0).sent(1).acked(0, 0);
        expect(&[], story().copies(&[0]));
        let story = || Story::new().registered_for(&[0], 0).sent(1).acked(0, 0);
        expect(&[Rule::Delivered], story().copies(&[0]));
    }
}
