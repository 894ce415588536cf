//! An acknowledged offset never goes back: a consumer that registers again, anywhere, goes on
//! behind what a PONG confirmed, and is never sent that again. Nor does it run ahead: where a
//! consumer goes on, everything before was acknowledged by it (or forgotten by retention).

use std::collections::BTreeMap;

use aklight_common::{Offset, PartitionId};

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

type Key = (u32, PartitionId);

#[derive(Default)]
pub(super) struct Positions {
    /// The next offset that is not confirmed.
    confirmed: BTreeMap<Key, Offset>,
    /// The next offset that was never acknowledged, or where the consumer began.
    acking: BTreeMap<Key, Offset>,
    /// Positions that ran ahead, which retention may yet explain: given, expected at most.
    ahead: Vec<(Key, Offset, Offset)>,
}

/// Positions that ran ahead and are kept until retention is known: one tells the story.
const AHEAD_MAX: usize = 100;

impl Positions {
    fn registered(&mut self, key: Key, position: Offset, found: &mut Found) {
        if let Some(confirmed) = self.confirmed.get(&key).filter(|next| position < **next) {
            let text = format!(
                "consumer {} had confirmed partition {} up to {confirmed} (not included), and was told to go on at {position}",
                key.0, key.1
            );
            found.add(Rule::Positions, text);
        }
        let most = *self.acking.entry(key).or_insert(position);
        if position > most && self.ahead.len() < AHEAD_MAX {
            self.ahead.push((key, position, most));
        }
    }
}

impl Invariant for Positions {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        match event {
            Event::Registered { consumer, positions, .. } => {
                for (partition, position) in positions {
                    self.registered((*consumer, *partition), *position, found);
                }
            }
            Event::Acking { consumer, partition, upto } => {
                let most = self.acking.entry((*consumer, *partition)).or_default();
                *most = (*most).max(upto.next());
            }
            Event::Confirmed { consumer, partition, upto } => {
                let next = self.confirmed.entry((*consumer, *partition)).or_default();
                *next = (*next).max(upto.next());
            }
            Event::Delivered { consumer, seen } => {
                let confirmed = self.confirmed.get(&(*consumer, seen.partition));
                if confirmed.is_some_and(|next| seen.offset < *next) {
                    let text = format!(
                        "consumer {consumer} was sent {} at offset {} of partition {} again, which it had confirmed",
                        seen.record, seen.offset, seen.partition
                    );
                    found.add(Rule::Positions, text);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        for ((consumer, partition), position, most) in &self.ahead {
            if history.start(*partition).is_none_or(|start| position > &start) {
                let text = format!(
                    "consumer {consumer} was told to go on at {position} of partition {partition}, and had acknowledged up to {most} (not included)"
                );
                found.add(Rule::Positions, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    fn story() -> Story {
        let story = Story::new().registered(0).sent(1).acked(0, 0).sent(1).acked(1, 1);
        story.delivered(0, 0).delivered(1, 1)
    }

    #[test]
    fn a_position_behind_what_was_confirmed_is_found() {
        expect(&[], story().confirmed(0).registered(1).delivered(1, 1));
        expect(&[Rule::Positions], story().confirmed(0).registered(0));
        expect(&[Rule::Positions], story().confirmed(1).delivered(1, 1));
    }

    #[test]
    fn a_position_ahead_of_what_was_acknowledged_is_found() {
        expect(&[], story().acking(1).registered(1));
        expect(&[], story().acking(1).registered(2));
        expect(&[Rule::Positions], story().acking(0).registered(2));
    }
}
