//! Telling: from a verdict to notices and announcements in the memory, and from the memory to
//! console, telephones and the broker. Between the two stands the write: see module `alerts`.

use std::collections::HashSet;

use tracing::{error, warn};

use super::Engine;
use crate::alerts::dead::DeadLetter;
use crate::alerts::memory::{ANNOUNCEMENTS_MAX, Announcement, NOTICES_MAX};
use crate::alerts::{Alert, Destination};
use crate::notify::message::{mark, moment, what};
use crate::notify::whatsapp::{Order, masked};
use crate::rules::{Audience, Channel, Kind, Verdict};

impl Engine {
    /// Puts into the memory what must be told of a verdict.
    pub(super) fn follow(&mut self, verdict: &Verdict, now_ms: u64) {
        let rule = &self.parts.book.rules()[verdict.rule];
        let unit = self.units.get(&verdict.topic).map_or("", String::as_str);
        let alert = Alert::new(rule, verdict, unit);
        let by = |channel| rule.notifies(channel);
        let (console, telephone) = match verdict.change.audience {
            Audience::Everyone => (by(Channel::Console), by(Channel::WhatsApp)),
            Audience::Quiet => (by(Channel::Console), false),
            Audience::Telephone => (false, by(Channel::WhatsApp)),
        };
        let told = mark(alert.kind).is_some();
        if told && console {
            self.parts.memory.notify(Destination::Console, alert.clone());
        }
        let to = self.parts.telephones.as_ref().map_or(&[][..], |t| &t.to).to_vec();
        if told && telephone {
            for to in to {
                let full = self.parts.memory.telephone_notices() >= NOTICES_MAX;
                let id = self.parts.memory.notify(Destination::WhatsApp { to }, alert.clone());
                if full {
                    self.bury(id, "too many alerts wait for WhatsApp", now_ms);
                }
            }
        }
        let changed = !matches!(verdict.change.audience, Audience::Telephone);
        if changed && alert.kind != Kind::Reminder {
            self.announce(&alert);
        }
        self.urgent |= told;
    }

    fn announce(&mut self, alert: &Alert) {
        let memory = &mut self.parts.memory;
        if memory.announcements.len() >= ANNOUNCEMENTS_MAX {
            warn!(rule = alert.rule, "too many alerts wait for a broker: this one is not recorded");
            return;
        }
        let topic = match alert.record_topic() {
            Ok(topic) => topic.to_string(),
            Err(error) => {
                warn!(rule = alert.rule, topic = alert.topic, %error, "this alert cannot be recorded");
                return;
            }
        };
        let payload = String::from_utf8_lossy(&alert.record_payload()).into_owned();
        let sequence = memory.next_sequence;
        memory.next_sequence += 1;
        memory.announcements.push(Announcement { sequence, topic, payload });
    }

    /// Hands on what is in the file and was not handed on; `restored` are notices of an earlier
    /// run, which may have been told already.
    pub(super) fn tell(&mut self, restored: &HashSet<u64>, now_ms: u64) {
        for notice in self.parts.memory.notices.clone() {
            let (id, maybe_sent) = (notice.id, restored.contains(&notice.id));
            match (&notice.destination, &self.parts.telephones) {
                (Destination::Console, _) => {
                    let printed = self.parts.console.alert(&notice.alert);
                    self.printed(printed);
                    self.parts.memory.strike(id);
                    self.urgent = true;
                    self.dirty = true;
                }
                (Destination::WhatsApp { .. }, _) if self.handed.contains(&id) => {}
                (Destination::WhatsApp { .. }, Some(telephones)) => {
                    // Full only where the sender is gone, which it is at the very end.
                    if telephones.orders.try_send(Order { notice, maybe_sent }).is_ok() {
                        self.handed.insert(id);
                    }
                }
                (Destination::WhatsApp { .. }, None) => {
                    self.bury(id, "WhatsApp is no longer set up", now_ms);
                    self.dirty = true;
                }
            }
        }
        for announcement in &self.parts.memory.announcements {
            if announcement.sequence > self.announced
                && self.parts.announcements.try_send(announcement.clone()).is_ok()
            {
                self.announced = announcement.sequence;
            }
        }
    }

    /// Gives a notice up: kept as a dead letter, said on the console.
    pub(super) fn bury(&mut self, id: u64, reason: &str, now_ms: u64) {
        let Some(notice) = self.parts.memory.strike(id) else { return };
        let Destination::WhatsApp { to } = &notice.destination else { return };
        let alert = notice.alert.clone();
        let explained = format!(
            "WhatsApp to {} did not go through ({reason}): [{}] {}. It is kept in alerts.dead; `aklight alerts retry` sends it again",
            masked(to),
            alert.rule,
            what(&alert)
        );
        let letter = DeadLetter {
            at: moment(now_ms),
            consumer: self.parts.memory.consumer.clone(),
            reason: reason.to_owned(),
            notice,
        };
        if let Err(cause) = self.parts.dead.append(&letter) {
            error!(error = %cause, "a dead letter cannot be kept");
        }
        let printed = self.parts.console.explain(&explained);
        self.printed(printed);
        // The next channel, for alerts that the console was not to show.
        let by_rule = self.parts.book.rules().iter().find(|rule| rule.name == alert.rule);
        if !by_rule.is_some_and(|rule| rule.notifies(Channel::Console)) {
            let printed = self.parts.console.alert(&alert);
            self.printed(printed);
        }
    }
}
