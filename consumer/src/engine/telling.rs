//! Telling: from a verdict to notices and announcements in the memory, and from the memory to
//! console, carriers and the broker. Between the two stands the write: see module `alerts`.
//!
//! Grouping: a notice for people waits for `group_wait` before it is handed on, and what fires
//! meanwhile for the same destination joins it. The console waits for nothing.

use std::collections::BTreeSet;

use aklight_common::Topic;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::Engine;
use crate::alerts::dead::DeadLetter;
use crate::alerts::memory::{ANNOUNCEMENTS_MAX, Announcement, GROUP_MAX, NOTICES_MAX};
use crate::alerts::{Alert, Destination, Notice};
use crate::notify::message::{mark, moment, what};
use crate::notify::sender::Order;
use crate::rules::{About, Audience, Channel, Kind, Rule, Verdict};

impl Engine {
    /// Puts into the memory what must be told of a verdict.
    pub(super) fn follow(&mut self, verdict: &Verdict, now_ms: u64) {
        let Verdict { rule, topic, change } = verdict;
        let alert = self.alert(verdict, now_ms);
        let people = self.people(&rule.name, topic.as_str(), now_ms);
        // Nor is it told when a mute or the night ends.
        let again = alert.kind == Kind::Reminder
            || (alert.kind == Kind::Fired && change.audience == Audience::Telephone);
        if again && people.acknowledged_by.is_some() {
            return;
        }
        let told = mark(alert.kind).is_some();
        let mut loud = told && change.audience != Audience::Quiet;
        let mut from_ms = now_ms;
        if loud && let Some(until_ms) = self.withheld_until_ms(&people, rule.severity, now_ms) {
            if change.reason.is_some() {
                // No sample will come to offer it again.
                from_ms = until_ms;
            } else {
                loud = false;
                if alert.kind == Kind::Reminder {
                    self.parts.book.owe_reminder(&rule.name, topic);
                } else {
                    self.parts.book.withhold(&rule.name, topic);
                }
            }
        }
        let printed = told && change.audience != Audience::Telephone;
        if printed && rule.notifies(Channel::Console) {
            self.parts.memory.notify(Notice::new(0, Destination::Console, alert.clone()));
        }
        if alert.kind == Kind::Fired && !again {
            self.forget_stand_ins(&alert);
        }
        if loud {
            self.notify_people(rule, &alert, from_ms, now_ms);
            if alert.kind == Kind::Resolved {
                self.notify_stand_ins(rule, &alert, from_ms, now_ms);
            }
        }
        // What the telephone hears later is recorded again: who takes over must know that it did.
        if (change.audience != Audience::Telephone || loud) && alert.kind != Kind::Reminder {
            self.announce(&alert, now_ms);
        }
        if alert.kind == Kind::Resolved {
            let is_it = |a: &crate::alerts::Acknowledged| a.rule == rule.name && a.topic == *topic;
            self.parts.memory.acknowledged.retain(|a| !is_it(a));
        }
        self.urgent |= told && (printed || loud);
        self.dirty = true;
    }

    /// The alert of a verdict, with what else is known of its container.
    pub(super) fn alert(&self, verdict: &Verdict, now_ms: u64) -> Alert {
        let mut alert = Alert::new(verdict, self.unit(&verdict.topic));
        if let Some(About::Sample(container, _)) = About::of(&verdict.topic)
            && alert.kind != Kind::Resolved
        {
            alert.context = self.context.of(&container, now_ms);
        }
        alert
    }

    /// Tells the rule's people, not before `from_ms`.
    pub(super) fn notify_people(&mut self, rule: &Rule, alert: &Alert, from_ms: u64, now_ms: u64) {
        let destinations: Vec<_> = self
            .parts
            .outlets
            .iter()
            .filter(|outlet| rule.notifies(outlet.channel))
            .flat_map(|outlet| outlet.destinations.clone())
            .collect();
        let due_ms = from_ms + self.parts.group_wait_ms;
        for destination in destinations {
            self.enqueue(destination, alert, rule.fallback.clone(), due_ms, now_ms);
        }
    }

    /// The references of the messages that wait to tell of an alert, the oldest first.
    fn waiting_for(&self, rule: &str, topic: &str) -> Vec<String> {
        let memory = &self.parts.memory;
        let tells = |notice: &&Notice| {
            notice.destination != Destination::Console
                && notice.alerts().any(|alert| alert.rule == rule && alert.topic == topic)
        };
        memory.notices.iter().filter(tells).map(|n| n.reference(&memory.consumer)).collect()
    }

    /// Lets an alert join a notice that still waits for more, or makes a new one. Gives back the
    /// message's reference.
    pub(super) fn enqueue(
        &mut self,
        destination: Destination,
        alert: &Alert,
        fallback: Vec<Channel>,
        due_ms: u64,
        now_ms: u64,
    ) -> String {
        let (handed, group_wait_ms) = (&self.handed, self.parts.group_wait_ms);
        let open = self.parts.memory.notices.iter_mut().find(|notice| {
            notice.destination == destination
                && notice.fallback == fallback
                && !notice.fell_back
                && notice.due_ms > now_ms
                // What waits for the morning is no company for what is told now.
                && notice.due_ms.abs_diff(due_ms) <= group_wait_ms
                && !handed.contains(&notice.id)
                && notice.more.len() + 1 < GROUP_MAX
        });
        if let Some(notice) = open {
            notice.more.push(alert.clone());
            return notice.reference(&self.parts.memory.consumer);
        }
        let full = self.parts.memory.waiting(destination.channel()) >= NOTICES_MAX;
        let notice = Notice { due_ms, fallback, ..Notice::new(0, destination, alert.clone()) };
        let id = self.parts.memory.notify(notice.clone());
        self.report(id, "queued", json!({}), now_ms);
        if full {
            self.bury(id, "too many alerts wait to be told", now_ms);
        }
        Notice { id, ..notice }.reference(&self.parts.memory.consumer)
    }

    /// Records how an alert stands now.
    pub(super) fn announce(&mut self, alert: &Alert, now_ms: u64) {
        let people = self.people(&alert.rule, &alert.topic, now_ms);
        let topic = Topic::new(&alert.topic);
        let told = topic.is_ok_and(|topic| self.parts.book.told(&alert.rule, &topic));
        let messages = self.waiting_for(&alert.rule, &alert.topic);
        let consumer = &self.parts.memory.consumer;
        let payload = alert.record_payload(consumer, &people, told, &messages);
        match alert.record_topic() {
            Ok(topic) => self.record(&topic, payload),
            Err(error) => {
                warn!(rule = alert.rule, topic = alert.topic, %error, "this alert cannot be recorded");
            }
        }
    }

    /// Records what became of a message, with further fields.
    pub(super) fn report(&mut self, id: u64, status: &str, further: Value, now_ms: u64) {
        let memory = &self.parts.memory;
        let Some(notice) = memory.notices.iter().find(|notice| notice.id == id) else { return };
        let Notice { alert, destination, .. } = notice;
        let outlets = self.parts.outlets.iter();
        let mut destinations = outlets.flat_map(|outlet| outlet.destinations.iter().enumerate());
        let recipient = destinations.find(|(_, known)| *known == destination);
        let mut record = json!({
            "ts": now_ms,
            "id": format!("{}-{id}", memory.consumer),
            "reference": notice.reference(&memory.consumer),
            "recipient": recipient.map_or(0, |(n, _)| n),
            "status": status,
            "rule": alert.rule,
            "topic": alert.topic,
            "state": alert.state(),
            "alerts": notice.alerts().count(),
        });
        if let Some(to) = destination.recipient() {
            record["to"] = json!(to);
        }
        if let (Some(record), Value::Object(further)) = (record.as_object_mut(), further) {
            record.extend(further);
        }
        let channel = destination.channel().as_str();
        // An id is one level, so that this is a topic.
        if let Ok(topic) = Topic::new(&format!("deliveries/{}/{channel}", memory.consumer)) {
            self.record(&topic, record.to_string());
        }
    }

    fn record(&mut self, topic: &Topic, payload: String) {
        let memory = &mut self.parts.memory;
        let sequence = memory.next_sequence;
        memory.next_sequence += 1;
        let topic = topic.to_string();
        memory.announcements.push_back(Announcement { sequence, topic, payload });
        let waiting = memory.announcements.len();
        if waiting >= ANNOUNCEMENTS_MAX && !std::mem::replace(&mut self.full, true) {
            warn!(
                waiting,
                "nothing more is judged until a broker has stored half of the records that wait for it: does it take any?"
            );
        }
    }

    /// It is this consumer's turn: hands on what was left untold. Once is enough.
    pub fn begin(&mut self, now_ms: u64) {
        if !std::mem::replace(&mut self.waits, false) {
            return;
        }
        let notices = self.parts.memory.notices.len();
        if notices > 0 {
            info!(notices, "telling what the last run was about to tell");
        }
        self.tell(now_ms);
        self.commit_if(|engine| engine.dirty, now_ms);
    }

    /// Hands on what is in the file, is due and was not handed on.
    pub(super) fn tell(&mut self, now_ms: u64) {
        if self.waits {
            return;
        }
        let is_due = |notice: &&Notice| {
            notice.destination == Destination::Console
                || (notice.due_ms <= now_ms && !self.handed.contains(&notice.id))
        };
        let due: Vec<_> = self.parts.memory.notices.iter().filter(is_due).cloned().collect();
        for notice in due {
            let (id, maybe_sent) = (notice.id, self.doubtful.contains(&notice.id));
            if notice.destination == Destination::Console {
                let printed = self.parts.console.alert(&notice.alert);
                self.printed(printed);
                self.parts.memory.strike(id);
                (self.urgent, self.dirty) = (true, true);
                continue;
            }
            let channel = notice.destination.channel();
            match self.parts.outlets.iter().find(|outlet| outlet.channel == channel) {
                // Full only where the sender is gone, which it is at the very end.
                Some(outlet) => {
                    if outlet.orders.try_send(Order { notice, maybe_sent }).is_ok() {
                        self.handed.insert(id);
                        self.doubtful.remove(&id);
                    }
                }
                None => {
                    let reason = format!("{} is no longer set up", channel.as_str());
                    self.bury(id, &reason, now_ms);
                    self.dirty = true;
                }
            }
        }
        let announced = self.announced;
        let waiting = self.parts.memory.announcements.iter();
        for announcement in waiting.filter(|waiting| waiting.sequence > announced) {
            // The rest when there is room again, for they go in order.
            if self.parts.announcements.try_send(announcement.clone()).is_err() {
                break;
            }
            self.announced = announcement.sequence;
        }
    }

    /// A notice does not get through for now: said on the console, and told by the next channel,
    /// while its own goes on trying.
    pub(super) fn hold_up(&mut self, id: u64, reason: &str, now_ms: u64) {
        let known = self.parts.memory.notices.iter().find(|notice| notice.id == id);
        let Some(notice) = known.cloned() else { return };
        self.explain(&notice, &format!("is held up ({reason})"), "It is tried on");
        let instead = self.fall_back(&notice, now_ms);
        self.report(id, "delayed", failure(reason, &instead), now_ms);
    }

    /// Gives a notice up: kept as a dead letter, said on the console, told by the next channel.
    pub(super) fn bury(&mut self, id: u64, reason: &str, now_ms: u64) {
        let known = self.parts.memory.notices.iter().find(|notice| notice.id == id);
        let Some(notice) = known.cloned() else { return };
        let letter = DeadLetter {
            at: moment(now_ms),
            consumer: self.parts.memory.consumer.clone(),
            reason: reason.to_owned(),
            notice: notice.clone(),
        };
        if let Err(cause) = self.parts.dead.append(&letter) {
            error!(error = %cause, "a dead letter cannot be kept");
        }
        let then = "It is kept in alerts.dead; `aklight alerts retry` sends it again";
        self.explain(&notice, &format!("did not go through ({reason})"), then);
        let instead = self.fall_back(&notice, now_ms);
        self.report(id, "failed", failure(reason, &instead), now_ms);
        self.parts.memory.strike(id);
    }

    /// Says on the console what became of a notice.
    fn explain(&mut self, notice: &Notice, fate: &str, then: &str) {
        let Notice { destination, alert, .. } = notice;
        let way = way(destination);
        let explained = format!("{way} {fate}: [{}] {}. {then}", alert.rule, what(alert));
        let printed = self.parts.console.explain(&explained);
        self.printed(printed);
    }
}

/// What a record says of a message that does not get through.
fn failure(reason: &str, instead: &BTreeSet<String>) -> Value {
    let mut failure = json!({ "reason": reason });
    if !instead.is_empty() {
        failure["instead"] = json!(instead);
    }
    failure
}

/// A destination in a sentence: `email to anna@example.org`, `webhook`.
fn way(destination: &Destination) -> String {
    let channel = destination.channel().as_str();
    match destination.recipient() {
        Some(to) => format!("{channel} to {to}"),
        None => channel.to_owned(),
    }
}
