//! Records of one connection with one key keep their order, and a key keeps its partition.
//!
//! Records that were sent more than once are left out: where a repeat was stored, its first sending
//! was not, and the other records had gone ahead.

use std::collections::HashMap;

use aklight_common::PartitionId;

use super::Invariant;
use crate::event::RecordId;
use crate::violation::{Found, Rule};
use crate::{Event, History};

pub(super) struct KeyOrder;

impl Invariant for KeyOrder {
    fn observe(&mut self, _event: &Event, _history: &History, _found: &mut Found) {}

    fn finish(&mut self, history: &History, found: &mut Found) {
        let mut homes: HashMap<u32, PartitionId> = HashMap::new();
        for (partition, ledger) in history.ledgers() {
            let mut last: HashMap<(u32, u32), RecordId> = HashMap::new();
            for (offset, id) in ledger.iter() {
                let Some(record) = history.record(id).filter(|record| record.key != 0) else {
                    continue;
                };
                let home = *homes.entry(record.key).or_insert(partition);
                if home != partition {
                    let text = format!(
                        "key {} belongs to partition {home}, and {id} with that key stands at offset {offset} of partition {partition}",
                        record.key
                    );
                    found.add(Rule::KeyOrder, text);
                }
                if record.resent {
                    continue;
                }
                let before = last.entry((record.connection, record.key)).or_insert(id);
                if *before > id {
                    let text = format!(
                        "{id} stands at offset {offset} of partition {partition}, behind {before}, which connection {} sent later with the same key {}",
                        record.connection, record.key
                    );
                    found.add(Rule::KeyOrder, text);
                }
                *before = id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    #[test]
    fn records_that_overtook_one_another_are_found() {
        let same_key = || Story::new().sent(1).sent(1);
        expect(&[], same_key().acked(0, 0).acked(1, 1).copies(&[0, 1]));
        expect(&[Rule::KeyOrder], same_key().acked(0, 1).acked(1, 0).copies(&[1, 0]));
        expect(&[Rule::KeyOrder], same_key().unknown(0).acked(1, 0).copies(&[1, 0]));
        expect(&[], Story::new().sent(1).sent(2).acked(0, 1).acked(1, 0).copies(&[1, 0]));
        expect(&[], Story::new().sent(0).sent(0).acked(0, 1).acked(1, 0).copies(&[1, 0]));
    }

    #[test]
    fn a_repeat_may_come_later() {
        let story = Story::new().once(1).unknown(0).once(1).acked(1, 0).again(0).acked(0, 1);
        expect(&[], story.copies(&[1, 0]));
    }

    #[test]
    fn a_key_in_two_partitions_is_found() {
        let story = Story::new().sent(1).acked(0, 0).sent(1).acked_in(7, 1, 0);
        expect(&[Rule::KeyOrder], story);
    }
}
