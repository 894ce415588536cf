//! What is acknowledged is durable: each replica holds the record in the end, at the offset that
//! its producer was told, unless retention has forgotten it.

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

pub(super) struct Durable;

impl Invariant for Durable {
    fn observe(&mut self, event: &Event, history: &History, found: &mut Found) {
        let Event::Stored { broker, seen } = event else { return };
        let place = (seen.partition, seen.offset);
        let Some(was) = history.at(seen.partition, seen.offset) else { return };
        if was != seen.record && history.record(was).is_some_and(|r| r.acked() == Some(place)) {
            let text = format!(
                "{was} was acknowledged at offset {} of partition {}, where broker {broker} holds {}",
                seen.offset, seen.partition, seen.record
            );
            found.add(Rule::Durable, text);
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        for (id, record) in history.records() {
            let Some((partition, offset)) = record.acked() else { continue };
            if let Some(end) = history.end(partition)
                && offset >= end
            {
                let text = format!(
                    "{id} was acknowledged at offset {offset} of partition {partition}, and a replica ends at {end}"
                );
                found.add(Rule::Durable, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::Rule;

    #[test]
    fn an_acknowledged_record_that_no_replica_holds_is_lost() {
        let lost = |story: Story| story.sent(1).acked(0, 0).sent(1).acked(1, 1);
        expect(&[Rule::Durable], lost(Story::new()).copies(&[0]));
        expect(
            &[Rule::Durable],
            lost(Story::new()).copy(1, &[0, 1]).copy(2, &[0]).equal_ends(false),
        );
        expect(&[], lost(Story::new()).copies(&[0, 1]));
    }

    #[test]
    fn an_acknowledged_record_that_another_took_the_place_of_is_lost() {
        expect(&[Rule::Durable], Story::new().sent(1).acked(0, 0).sent(1).unknown(1).copies(&[1]));
    }
}
