//! Fallback: who is told in place of those whom a channel does not reach.
//!
//! Whoever was told that an alert fires by a fallback is told its end too, though the rule's own
//! channel may work again by then: a *stand-in*. It is in the alert's record, for who takes over.

use std::collections::BTreeSet;

use aklight_common::{Pattern, Topic};

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
        let over = self.over_meanwhile(notice);
        for alert in notice.alerts().chain(&over) {
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
        self.restate_all(notice, now_ms);
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

    /// The ends of alerts that a message tells to fire, where they wait for the same recipient: this
    /// channel may be back before they are held up as well.
    fn over_meanwhile(&self, notice: &Notice) -> Vec<Alert> {
        let waiting = self.parts.memory.notices.iter();
        let behind = waiting.filter(|it| it.destination == notice.destination && it.id > notice.id);
        let is_end = |alert: &&Alert| {
            alert.kind == Kind::Resolved
                && notice.alerts().any(|it| (&it.rule, &it.topic) == (&alert.rule, &alert.topic))
        };
        behind.flat_map(Notice::alerts).filter(is_end).cloned().collect()
    }

    /// A channel is to tell an alert in place of another: whether it has not done so already. Once
    /// it has told that the alert fires, it tells the end as well.
    fn stands_in(&mut self, alert: &Alert, channel: Channel) -> bool {
        let stand_ins = &mut self.parts.memory.stand_ins;
        let known = stand_ins.iter_mut().find(|it| it.is_of(alert) && it.channel == channel);
        let is_end = alert.kind == Kind::Resolved;
        match known {
            Some(known) => return !std::mem::replace(&mut known.ended, is_end) || !is_end,
            None if is_end => return true,
            None => {}
        }
        let (rule, topic) = (alert.rule.clone(), alert.topic.clone());
        self.parts.memory.stand_in(StandIn { rule, topic, channel, ended: false });
        true
    }

    /// Records how the alerts stand that a message told to fire: with who tells them instead.
    fn restate_all(&mut self, notice: &Notice, now_ms: u64) {
        for alert in notice.alerts() {
            // A topic is the pattern of itself.
            if let Ok(pattern) = Pattern::new(&alert.topic) {
                self.restate(&alert.rule, &pattern, now_ms);
            }
        }
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
        let stand_ins = self.parts.memory.stand_ins.iter_mut();
        let mut channels = Vec::new();
        for it in stand_ins.filter(|it| it.is_of(alert) && !it.ended) {
            it.ended = true;
            channels.push(it.channel);
        }
        for channel in channels.into_iter().filter(|channel| !rule.notifies(*channel)) {
            if channel == Channel::Console {
                self.parts.memory.notify(Notice::new(0, Destination::Console, alert.clone()));
            }
            let outlet = self.parts.outlets.iter().find(|outlet| outlet.channel == channel);
            for destination in outlet.map(|it| it.destinations.clone()).unwrap_or_default() {
                self.enqueue(destination, alert, Vec::new(), due_ms, now_ms);
            }
        }
    }

    /// An alert fires anew: whoever was told its end is no more concerned.
    pub(super) fn forget_stand_ins(&mut self, alert: &Alert) {
        self.parts.memory.stand_ins.retain(|it| !it.is_of(alert) || !it.ended);
    }
}
