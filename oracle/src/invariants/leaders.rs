//! A term has one leader. Who leads is told by each broker of itself, or by a group's status.

use std::collections::BTreeMap;

use aklight_common::{BrokerId, Term};

use super::Invariant;
use crate::violation::{Found, Rule};
use crate::{Event, History};

#[derive(Default)]
pub(super) struct Leaders {
    of: BTreeMap<(u32, Term), BrokerId>,
}

impl Invariant for Leaders {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        let Event::Led { group, term, broker } = event else { return };
        let leader = self.of.entry((*group, *term)).or_insert(*broker);
        if leader != broker {
            let text = format!("term {term} of group {group} had broker {leader} and {broker}");
            found.add(Rule::Leaders, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, expect};
    use crate::{Event, Rule};
    use aklight_common::{BrokerId, Term};

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let led =
            |group, term, broker| Event::Led { group, term: Term(term), broker: BrokerId(broker) };
        let story = || Story::new().tell(led(1, 3, 1)).tell(led(1, 4, 2)).tell(led(2, 3, 2));
        expect(&[], story().tell(led(1, 3, 1)));
        expect(&[Rule::Leaders], story().tell(led(1, 3, 2)));
    }
}
