//! Offsets are dense: a replica holds each offset from its start to its end, once and in order.

use std::collections::BTreeMap;

use aklight_common::{BrokerId, Offset, PartitionId};

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

#[derive(Default)]
pub(super) struct Dense {
    /// The offset that each copy must show next.
    next: BTreeMap<(BrokerId, PartitionId), Offset>,
}

impl Dense {
    fn step(
        &mut self,
        copy: (BrokerId, PartitionId),
        shown: Offset,
        what: &str,
        found: &mut Found,
    ) {
        let next = self.next.entry(copy).or_insert(shown);
        if *next != shown {
            let text = format!(
                "in partition {} of broker {} {what} {shown} where {next} belongs",
                copy.1, copy.0
            );
            found.add(Rule::Dense, text);
        }
        // Gone on from what is there: one hole is one violation.
        *next = shown.next();
    }
}

impl Invariant for Dense {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        match event {
            Event::CopyBegins { broker, partition, start } => {
                self.next.insert((*broker, *partition), *start);
            }
            Event::Stored { broker, seen } => {
                self.step((*broker, seen.partition), seen.offset, "stands", found);
            }
            Event::CopyEnds { broker, partition, end } => {
                self.step((*broker, *partition), *end, "the end stands at", found);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect, seen};
    use crate::{Event, Rule};
    use aklight_common::{BrokerId, Offset, PartitionId};

    fn copy(offsets: &[u64], end: u64) -> Story {
        let (broker, partition) = (BrokerId(1), PartitionId(0));
        let mut story = Story::new().sent(1).unknown(0).sent(2).unknown(1).sent(3).unknown(2);
        story = story.tell(Event::CopyBegins { broker, partition, start: Offset(5) });
        for (record, offset) in (0..).zip(offsets) {
            story = story.tell(Event::Stored { broker, seen: seen(*offset, record) });
        }
        story.tell(Event::CopyEnds { broker, partition, end: Offset(end) })
    }

    #[test]
    fn a_hole_and_a_second_one_are_found() {
        expect(&[], copy(&[5, 6, 7], 8));
        expect(&[Rule::Dense], copy(&[5, 7, 8], 9));
        expect(&[Rule::Dense], copy(&[6, 7, 8], 9));
        expect(&[Rule::Dense], copy(&[5, 6, 7], 9));
    }
}
