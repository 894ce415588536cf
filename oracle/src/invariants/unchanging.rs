//! What is committed never changes: whoever reads an offset, anywhere and at any time, finds the
//! record that was found there first, or that its producer was told to be there.

use super::Invariant;
use crate::event::{Outcome, RecordId};
use crate::violation::{Found, Rule};
use crate::{Event, History};
use aklight_common::{Offset, PartitionId};

pub(super) struct Unchanging;

impl Invariant for Unchanging {
    fn observe(&mut self, event: &Event, history: &History, found: &mut Found) {
        let (partition, offset, record) = match event {
            Event::Answered { record, outcome: Outcome::Acked(partition, offset), .. } => {
                (*partition, *offset, *record)
            }
            _ => match event.seen() {
                Some(seen) => (seen.partition, seen.offset, seen.record),
                None => return,
            },
        };
        let Some(was) = history.at(partition, offset).filter(|was| *was != record) else { return };
        // A replica that holds another record than an acknowledged one has lost it: `durable`.
        let is_acked = |id: RecordId, place: (PartitionId, Offset)| {
            history.record(id).is_some_and(|r| r.acked() == Some(place))
        };
        if matches!(event, Event::Stored { .. }) && is_acked(was, (partition, offset)) {
            return;
        }
        let who = match event {
            Event::Answered { .. } => "a producer was told".to_owned(),
            Event::Delivered { consumer, .. } => format!("consumer {consumer} was sent"),
            Event::Stored { broker, .. } => format!("broker {broker} holds"),
            _ => "a reader was sent".to_owned(),
        };
        let text = format!(
            "offset {offset} of partition {partition} was {was}, then {who} that it is {record}"
        );
        found.add(Rule::Unchanging, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    #[test]
    fn an_offset_that_holds_two_records_is_found() {
        let story = || Story::new().sent(1).unknown(0).sent(1).unknown(1);
        expect(&[], story().read(0, 0).read(0, 0).copies(&[0]));
        expect(&[Rule::Unchanging], story().read(0, 0).read(0, 1));
        expect(&[Rule::Unchanging], story().read(0, 0).copies(&[1]));
        expect(&[Rule::Unchanging], story().copy(1, &[0]).copy(2, &[1]));
    }

    #[test]
    fn an_acknowledgement_for_a_place_that_is_taken_is_found() {
        expect(&[Rule::Unchanging], Story::new().sent(1).acked(0, 0).sent(1).acked(1, 0));
    }
}
