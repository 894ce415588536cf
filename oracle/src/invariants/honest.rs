//! What is refused is not stored, and what is stored was sent, with this key and this topic.

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

pub(super) struct Honest;

impl Invariant for Honest {
    fn observe(&mut self, event: &Event, history: &History, found: &mut Found) {
        let Some(seen) = event.seen().filter(|seen| !seen.record.is_foreign()) else { return };
        let place = format_args!("offset {} of partition {}", seen.offset, seen.partition);
        match history.record(seen.record) {
            None => {
                let text = format!("{} at {place} was never sent", seen.record);
                found.add(Rule::Honest, text);
            }
            Some(sent) if (sent.key, sent.topic) != (seen.key, seen.topic) => {
                let text = format!(
                    "{} at {place} has key {} and topic {}; it was sent with key {} and topic {}",
                    seen.record, seen.key, seen.topic, sent.key, sent.topic
                );
                found.add(Rule::Honest, text);
            }
            Some(_) => {}
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        for (partition, ledger) in history.ledgers() {
            for (offset, id) in ledger.iter() {
                if history.record(id).is_some_and(|sent| sent.refused && !sent.resent) {
                    let text = format!(
                        "{id} was refused, and stands at offset {offset} of partition {partition}"
                    );
                    found.add(Rule::Honest, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect, seen};
    use crate::{Event, Rule, Seen};

    #[test]
    fn a_refused_record_that_is_stored_is_found() {
        expect(&[], Story::new().sent(1).refused(0).sent(1).acked(1, 0).copies(&[1]));
        expect(&[Rule::Honest], Story::new().sent(1).refused(0).copies(&[0]));
        expect(&[], Story::new().once(1).refused(0).again(0).unknown(0).copies(&[0]));
    }

    #[test]
    fn a_record_that_nobody_sent_is_found() {
        expect(&[Rule::Honest], Story::new().sent(1).unknown(0).copies(&[3]));
        let other_key = Seen { key: 2, ..seen(0, 0) };
        let read = |seen| Story::new().sent(1).unknown(0).tell(Event::Read(seen));
        expect(&[], read(Seen { key: 1, ..seen(0, 0) }));
        expect(&[Rule::Honest], read(other_key));
    }
}
