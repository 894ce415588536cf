//! After healing everything moves: within a bound all replicas hold the same, new records are
//! acknowledged, and consumers have caught up.

use super::Invariant;
use crate::oracle::Limits;
use crate::violation::{Found, Rule};
use crate::{Event, History};

pub(super) struct Settles {
    limits: Limits,
    healed_at: Option<u64>,
    settled: bool,
}

impl Settles {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, healed_at: None, settled: false }
    }
}

impl Invariant for Settles {
    fn observe(&mut self, event: &Event, _history: &History, found: &mut Found) {
        match event {
            Event::Healed { at_us } => {
                self.healed_at = Some(*at_us);
                self.settled = false;
            }
            Event::Settled { at_us } => {
                self.settled = true;
                let took = at_us.saturating_sub(self.healed_at.unwrap_or(*at_us));
                if took > self.limits.settle_us_max {
                    let (took, most) = (took / 1000, self.limits.settle_us_max / 1000);
                    let text = format!("the cluster was well after {took} ms, not {most}");
                    found.add(Rule::Settles, text);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, _history: &History, found: &mut Found) {
        if self.healed_at.is_some() && !self.settled {
            found.add(Rule::Settles, "the cluster was healed and never got well".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{SETTLE_US, Story, expect};
    use crate::{Event, Rule};

    #[test]
    fn a_cluster_that_does_not_get_well_is_found() {
        let healed = || Story::new().tell(Event::Healed { at_us: 7 });
        expect(&[], healed().tell(Event::Settled { at_us: 7 + SETTLE_US }));
        expect(&[Rule::Settles], healed().tell(Event::Settled { at_us: 8 + SETTLE_US }));
        expect(&[Rule::Settles], healed());
    }
}
