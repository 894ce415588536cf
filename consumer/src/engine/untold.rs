//! What an earlier consumer of this name was about to tell people and may not have told: it stands
//! in that one's file, which is on another machine or gone, but also between its records.
//!
//! The newest record of an alert names the messages that were to tell of it (`messages`, by their
//! references), and a record of each message says what became of it. One of which nothing but
//! `queued` or `delayed` is known is made again: under its old number and reference, by which the carrier is
//! asked for it first, or its receiver tells a repeat. It tells how the alert stands now.
//!
//! Limits: of several messages about one alert that wait for the same recipient the last is told.

use std::collections::{BTreeMap, VecDeque};

use aklight_common::Topic;
use aklight_common::client::Message;
use serde::Deserialize;

use super::Engine;
use crate::alerts::{Alert, Destination, Notice};
use crate::rules::Channel;

/// An alert, and the references of the messages that were to tell of it, the oldest first.
pub(super) type Untold = (Alert, Vec<String>);

/// A record of a message.
#[derive(Deserialize)]
struct Record {
    id: String,
    status: String,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    recipient: usize,
    #[serde(default)]
    instead: Vec<String>,
}

/// What the records say of a message.
struct Known {
    id: u64,
    channel: Channel,
    recipient: usize,
    done: bool,
    /// Whether another channel, or the console, was told instead.
    fell_back: bool,
    /// The messages that other channels took over from it.
    instead: Vec<String>,
}

/// The messages of one consumer, by reference.
pub(super) struct Messages {
    known: BTreeMap<String, Known>,
    highest_id: u64,
}

impl Messages {
    /// From records of `deliveries/{consumer}/…`, in any order.
    pub(super) fn read(consumer: &str, records: &[Message]) -> Self {
        let mut read = Self { known: BTreeMap::new(), highest_id: 0 };
        for Message { topic, payload, .. } in records {
            let Ok(record) = serde_json::from_slice::<Record>(payload) else { continue };
            let number = record.id.strip_prefix(consumer).and_then(|rest| rest.strip_prefix('-'));
            let Some(id) = number.and_then(|number| number.parse().ok()) else { continue };
            read.highest_id = read.highest_id.max(id);
            let last = topic.as_str().rsplit('/').next().unwrap_or_default();
            let by_name = Channel::BY_NAME.iter().find(|(name, _)| *name == last);
            let Some((_, channel)) = by_name else { continue };
            let known = read.known.entry(record.reference).or_insert_with(|| Known {
                id,
                channel: *channel,
                recipient: record.recipient,
                done: false,
                fell_back: false,
                instead: Vec::new(),
            });
            known.done |= !matches!(record.status.as_str(), "queued" | "delayed");
            known.fell_back |= record.status == "delayed";
            known.instead.extend(record.instead);
        }
        read
    }

    /// Whether a message is known, and not that it was told.
    pub(super) fn is_on_its_way(&self, reference: &str) -> bool {
        self.known.get(reference).is_some_and(|known| !known.done)
    }

    /// The last message about an alert for each recipient; `None` where no record of any is there.
    fn last(&self, references: Vec<String>) -> Option<BTreeMap<(Channel, usize), &str>> {
        let mut last = BTreeMap::new();
        let mut rest = VecDeque::from(references);
        while let Some(reference) = rest.pop_front() {
            let Some((reference, known)) = self.known.get_key_value(&reference) else { continue };
            last.insert((known.channel, known.recipient), reference.as_str());
            rest.extend(known.instead.iter().cloned());
        }
        (!last.is_empty()).then_some(last)
    }
}

impl Engine {
    /// Puts into the memory what is still to be told; gives back how many messages that are.
    pub(super) fn take_over(
        &mut self,
        messages: &Messages,
        untold: Vec<Untold>,
        now_ms: u64,
    ) -> usize {
        // Numbers go on where the other one's ended: the two are never taken for each other.
        let memory = &mut self.parts.memory;
        memory.next_notice = memory.next_notice.max(messages.highest_id + 1);
        let before = memory.notices.len();
        let mut again: BTreeMap<&str, Notice> = BTreeMap::new();
        for (alert, references) in untold {
            let Ok(topic) = Topic::new(&alert.topic) else { continue };
            let people = self.people(&alert.rule, &alert.topic, now_ms);
            let withheld_ms = self.withheld_until_ms(&people, alert.severity, now_ms);
            let rule = self.parts.book.rule(&alert.rule, &topic).cloned();
            let Some(last) = messages.last(references) else {
                // It was to be told, and not even that was recorded of the message.
                if let Some(rule) = rule {
                    self.notify_people(&rule, &alert, withheld_ms.unwrap_or(now_ms), now_ms);
                }
                continue;
            };
            let fallback = rule.map(|rule| rule.fallback).unwrap_or_default();
            for (place, reference) in last {
                let known = &messages.known[reference];
                let (false, Some(destination)) = (known.done, self.destination(place)) else {
                    continue;
                };
                let due_ms = withheld_ms.unwrap_or(now_ms);
                if let Some(notice) = again.get_mut(reference) {
                    notice.more.push(alert.clone());
                    notice.due_ms = notice.due_ms.max(due_ms);
                } else {
                    let new = Notice::new(known.id, destination, alert.clone());
                    let new = Notice {
                        reference: reference.to_owned(),
                        fallback: fallback.clone(),
                        fell_back: known.fell_back,
                        due_ms,
                        ..new
                    };
                    again.insert(reference, new);
                }
            }
        }
        let memory = &mut self.parts.memory;
        for (reference, notice) in again {
            let own = memory.notices.iter().find(|own| own.id == notice.id);
            if own.is_some_and(|own| own.reference(&memory.consumer) == reference) {
                // This one had begun to tell it before the other one took over.
                continue;
            }
            let id = if own.is_some() { memory.notify(notice) } else { memory.restore(notice) };
            self.doubtful.insert(id);
        }
        memory.notices.len() - before
    }

    fn destination(&self, (channel, recipient): (Channel, usize)) -> Option<Destination> {
        let outlet = self.parts.outlets.iter().find(|outlet| outlet.channel == channel)?;
        outlet.destinations.get(recipient).cloned()
    }
}
