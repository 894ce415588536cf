//! A record is stored once: with PRODUCE_ONCE however often it is sent, with PRODUCE because it
//! was sent once. And a repeat is answered with the first one's place.

use super::Invariant;
use crate::event::{Outcome, RecordId};
use crate::ledger::Offsets;
use crate::violation::{Found, Rule};
use crate::{Event, History};
use aklight_common::Offset;

pub(super) struct StoredOnce;

impl Invariant for StoredOnce {
    fn observe(&mut self, event: &Event, history: &History, found: &mut Found) {
        let Event::Answered { record: id, outcome: Outcome::Acked(partition, offset), .. } = event
        else {
            return;
        };
        let first = history.record(*id).and_then(|record| record.acked());
        if let Some(first) = first.filter(|first| *first != (*partition, *offset)) {
            let text = format!(
                "{id} was acknowledged at offset {} of partition {}, then at offset {offset} of partition {partition}",
                first.1, first.0
            );
            found.add(Rule::Once, text);
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        // A record's number serves as its place in the set.
        let mut stored = Offsets::default();
        for (partition, ledger) in history.ledgers() {
            for (offset, id) in ledger.iter().filter(|(_, id)| !id.is_foreign()) {
                if !stored.add(Offset(id.0)) {
                    let how = match history.record(id) {
                        Some(record) if record.once => "sent by PRODUCE_ONCE",
                        _ => "sent by PRODUCE, and once",
                    };
                    let first = first_place(history, id);
                    let text = format!(
                        "{id} ({how}) stands at offset {offset} of partition {partition} and at {first}"
                    );
                    found.add(Rule::Once, text);
                }
            }
        }
    }
}

fn first_place(history: &History, id: RecordId) -> String {
    history
        .ledgers()
        .find_map(|(partition, ledger)| {
            let (offset, _) = ledger.iter().find(|(_, record)| *record == id)?;
            Some(format!("offset {offset} of partition {partition}"))
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    #[test]
    fn a_record_that_stands_twice_is_found() {
        expect(&[], Story::new().once(1).unknown(0).again(0).acked(0, 0).copies(&[0]));
        let doubled = Story::new().once(1).unknown(0).again(0).acked(0, 1);
        expect(&[Rule::Once], doubled.copies(&[0, 0]));
        expect(&[Rule::Once], Story::new().sent(1).unknown(0).copies(&[0, 0]));
    }

    #[test]
    fn a_repeat_with_another_place_is_found() {
        let story = Story::new().once(1).acked(0, 0).once(1).acked(1, 1);
        expect(&[Rule::Once, Rule::Unchanging], story.again(0).acked(0, 1));
    }
}
