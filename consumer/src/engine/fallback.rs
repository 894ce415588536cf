//! Fallback: who is told in place of those whom a channel does not reach.
//!
//! Whoever was told that an alert fires by a fallback is told its end too, though the rule's own
//! channel may work again by then: a *stand-in*, remembered until the alert fires anew.

use std::collections::BTreeSet;

use aklight_common::Topic;

use super::Engine;
use crate::alerts::memory::StandIn;
use crate::alerts::{Alert, Destination, Notice};
use crate::rules::{Channel, Kind, Rule};

impl Engine {
    /// The first of the channels left that is set up, and by which the rule does not tell anyway;
    /// where there is none, the console, for alerts that it was not to show. Once for all who were
    /// to be told the same. Gives back the references of the messages that go instead.
    pub(super) fn fall_back(&mut self, notice: &Notice, now_ms: u64) -> BTreeSet<String> {
        let mut instead = BTreeSet::new();
        if notice.fell_back {
            return instead;
        }
        for other in &mut self.parts.memory.notices {
            other.fell_back |=
                other.fallback == notice.fallback && other.alerts().eq(notice.alerts());
        }
        for alert in notice.alerts() {
            let topic = Topic::new(&alert.topic).ok();
            let rule = topic.and_then(|topic| self.parts.book.rule(&alert.rule, &topic));
            let tells = |channel| rule.as_ref().is_some_and(|rule| rule.notifies(channel));
            let next = notice.fallback.iter().enumerate().find_map(|(n, channel)| {
                let mut outlets = self.parts.outlets.iter();
                let outlet = outlets.find(|it| it.channel == *channel && !tells(*channel))?;
                Some((*channel, outlet.destinations.clone(), notice.fallback[n + 1..].to_vec()))
            });
            let (channel, destinations, rest) =
                next.unwrap_or((Channel::Console, Vec::new(), Vec::new()));
            if tells(channel) || !self.stands_in(alert, channel) {
                continue;
            }
            if channel == Channel::Console {
                let printed = self.parts.console.alert(alert);
                self.printed(printed);
            }
            for destination in destinations {
                instead.extend(self.fall_back_to(destination, alert, &rest, now_ms));
            }
        }
        self.urgent = true;
        instead
    }

    fn fall_back_to(
        &mut self,
        destination: Destination,
        alert: &Alert,
        rest: &[Channel],
        now_ms: u64,
    ) -> Option<String> {
        let mut waiting = self.parts.memory.notices.iter();
        // Its messages may have told it in other company: once is enough.
        let known = waiting
            .any(|other| other.destination == destination && other.alerts().any(|a| a == alert));
        (!known).then(|| self.enqueue(destination, alert, rest.to_vec(), now_ms + 1, now_ms))
    }

    /// A channel is to tell an alert in place of another: whether it does not do so already. From
    /// the moment that it fires on, it tells the end as well.
    fn stands_in(&mut self, alert: &Alert, channel: Channel) -> bool {
        let stand_in = StandIn { rule: alert.rule.clone(), topic: alert.topic.clone(), channel };
        let is_known = self.parts.memory.stand_ins.contains(&stand_in);
        if alert.kind == Kind::Resolved {
            return !is_known;
        }
        if !is_known {
            self.parts.memory.stand_in(stand_in);
        }
        true
    }

    /// Tells the end of an alert to those who were told of it in place of others.
    pub(super) fn notify_stand_ins(
        &mut self,
        rule: &Rule,
        alert: &Alert,
        from_ms: u64,
        now_ms: u64,
    ) {
        let due_ms = from_ms + self.parts.group_wait_ms;
        let stand_ins = self.parts.memory.stand_ins.iter();
        let channels: Vec<_> = stand_ins
            .filter(|it| it.is_of(alert) && !rule.notifies(it.channel))
            .map(|it| it.channel)
            .collect();
        for channel in channels {
            if channel == Channel::Console {
                self.parts.memory.notify(Notice::new(0, Destination::Console, alert.clone()));
            }
            let outlet = self.parts.outlets.iter().find(|outlet| outlet.channel == channel);
            for destination in outlet.map(|it| it.destinations.clone()).unwrap_or_default() {
                self.enqueue(destination, alert, Vec::new(), due_ms, now_ms);
            }
        }
    }

    /// An alert fires anew: what was told in place of others was of another time.
    pub(super) fn forget_stand_ins(&mut self, alert: &Alert) {
        self.parts.memory.stand_ins.retain(|it| !it.is_of(alert));
    }
}
