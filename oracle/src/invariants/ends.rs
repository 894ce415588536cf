//! A high watermark never goes back within a broker's life, is never above what is there in the
//! end, and covers, when it was asked for freshly, all that was acknowledged before the question.

use std::collections::BTreeMap;

use aklight_common::{BrokerId, Offset, PartitionId};

use super::Invariant;
use crate::event::Outcome;
use crate::violation::{Found, Rule};
use crate::{Event, History};

/// Questions that may wait for their answers at once; one that was given up must not stay.
const QUESTIONS_MAX: usize = 1024;

type ByPartition = BTreeMap<PartitionId, Offset>;

#[derive(Default)]
pub(super) struct Ends {
    /// Of each broker's life.
    last: BTreeMap<(BrokerId, u32, PartitionId), Offset>,
    /// The highest ever told.
    highest: ByPartition,
    /// What is acknowledged by now ends here.
    acked: ByPartition,
    /// The same as of each question.
    questions: BTreeMap<u64, ByPartition>,
}

impl Ends {
    fn answered(&self, question: u64, partition: PartitionId, end: Offset, found: &mut Found) {
        let floor = self.questions.get(&question).and_then(|floors| floors.get(&partition));
        if let Some(floor) = floor.filter(|floor| end < **floor) {
            let text = format!(
                "partition {partition} was said to end at {end}, though records up to {floor} were acknowledged before the question"
            );
            found.add(Rule::Ends, text);
        }
    }
}

impl Invariant for Ends {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        match event {
            Event::Answered { outcome: Outcome::Acked(partition, offset), .. } => {
                let end = self.acked.entry(*partition).or_default();
                *end = (*end).max(offset.next());
            }
            Event::EndsAsked { question } => {
                if self.questions.len() >= QUESTIONS_MAX {
                    self.questions.pop_first();
                }
                self.questions.insert(*question, self.acked.clone());
            }
            Event::EndSeen { broker, life, partition, end, question } => {
                let last = self.last.entry((*broker, *life, *partition)).or_insert(*end);
                if end < last {
                    let text = format!(
                        "broker {broker} said that partition {partition} ends at {last}, then at {end}"
                    );
                    found.add(Rule::Ends, text);
                }
                *last = *end;
                let highest = self.highest.entry(*partition).or_insert(*end);
                *highest = (*highest).max(*end);
                if let Some(question) = question {
                    self.answered(*question, *partition, *end, found);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, history: &History, found: &mut Found) {
        for (partition, highest) in &self.highest {
            if let Some(end) = history.end(*partition).filter(|end| end < highest) {
                let text = format!(
                    "partition {partition} was said to end at {highest}, and a replica ends at {end}"
                );
                found.add(Rule::Ends, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::{Event, Rule};
    use aklight_common::{BrokerId, Offset, PartitionId};

    fn end(life: u32, end: u64, question: Option<u64>) -> Event {
        let (broker, partition) = (BrokerId(1), PartitionId(0));
        Event::EndSeen { broker, life, partition, end: Offset(end), question }
    }

    #[test]
    fn an_end_that_goes_back_is_found() {
        expect(&[], Story::new().tell(end(1, 5, None)).tell(end(1, 5, None)).tell(end(2, 3, None)));
        expect(&[Rule::Ends], Story::new().tell(end(1, 5, None)).tell(end(1, 4, None)));
    }

    #[test]
    fn an_end_above_what_is_there_is_found() {
        let story = || Story::new().sent(1).acked(0, 0);
        expect(&[], story().tell(end(1, 1, None)).copies(&[0]));
        expect(&[Rule::Ends], story().tell(end(1, 2, None)).copies(&[0]));
    }

    #[test]
    fn an_end_below_what_was_acknowledged_before_the_question_is_found() {
        let asked = Event::EndsAsked { question: 9 };
        let before = || Story::new().sent(1).acked(0, 0).tell(asked.clone());
        expect(&[], before().tell(end(1, 1, Some(9))));
        expect(&[Rule::Ends], before().tell(end(1, 0, Some(9))));
        let after = Story::new().tell(asked.clone()).sent(1).acked(0, 0);
        expect(&[], after.tell(end(1, 0, Some(9))));
    }
}
