//! Taking over from another consumer of the same name: how its alerts stand is read from its
//! records, for its file is on another machine, or is gone.
//!
//! Who was heard of is in no record of an alert: of every topic that a rule wants to hear of, and
//! that has a record, silence counts from now on. What the records do not hold begins anew: the
//! growth of counters within a window, and what a container's last minute was.

use std::collections::HashSet;

use aklight_common::client::Message;
use aklight_common::{Pattern, Topic};
use serde::Deserialize;
use tracing::info;

use super::Engine;
use super::untold::Messages;
use crate::alerts::memory::StandIn;
use crate::alerts::{Acknowledged, Action, Alert, Sense};
use crate::rules::machine::{Phase, State};
use crate::rules::{About, Channel, Condition, Kind, Severity};
use crate::sample::Sample;

/// What is stored of an earlier consumer's work.
#[derive(Debug, Default)]
pub struct Left {
    /// The newest record of each topic below `info/docker/`.
    pub infos: Vec<Message>,
    /// The topics that were heard of, of those that a rule wants to hear of.
    pub heard: Vec<Topic>,
    /// The newest record of each topic below `alerts/`.
    pub alerts: Vec<Message>,
    /// What people did, the oldest first.
    pub actions: Vec<Message>,
    /// What became of its messages.
    pub deliveries: Vec<Message>,
}

/// A record of an alert, as far as it matters here.
#[derive(Deserialize)]
struct Record {
    ts: u64,
    state: String,
    rule: String,
    topic: String,
    #[serde(default)]
    value: f64,
    severity: Option<Severity>,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    limit: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    messages: Vec<String>,
    since: Option<u64>,
    #[serde(default)]
    late: bool,
    /// Missing in records of versions before.
    told: Option<bool>,
    #[serde(default)]
    consumer: String,
    acknowledged_by: Option<String>,
    #[serde(default)]
    told_by: Vec<Channel>,
    muted_until: Option<u64>,
}

impl Record {
    /// What people are told of it.
    fn alert(&self) -> Alert {
        let kind = if self.state == "firing" { Kind::Fired } else { Kind::Resolved };
        Alert {
            kind,
            rule: self.rule.clone(),
            topic: self.topic.clone(),
            severity: self.severity.unwrap_or(Severity::Warning),
            value: self.value,
            unit: self.unit.clone(),
            limit: self.limit.clone(),
            absence: false,
            since_ms: self.since,
            at_ms: self.ts,
            late: self.late,
            sense: Sense::Value,
            reason: String::new(),
            context: String::new(),
            // That it is beyond its limit again is no end.
            said: if self.state == "pending" { String::new() } else { self.text.clone() },
        }
    }
}

impl Engine {
    /// Where the rules look for silence, but for those of labels.
    #[must_use]
    pub fn awaited(&self) -> Vec<Pattern> {
        let rules = self.rules().iter();
        let awaiting = rules.filter(|rule| matches!(rule.condition, Condition::Absent { .. }));
        awaiting.map(|rule| rule.pattern.clone()).collect()
    }

    /// Goes on where another consumer of this name stopped. What that one was still to tell is told
    /// (`engine::untold`), and of what this one was to tell when it worked last what the other one
    /// did not (`engine::outdated`).
    pub fn adopt(&mut self, left: &Left, now_ms: u64) {
        self.parts.book.forget_states();
        let messages = Messages::read(&self.parts.memory.consumer, &left.deliveries);
        self.drop_outdated(left, &messages);
        let memory = &mut self.parts.memory;
        // Where to go on, the broker knows: the other one told it.
        memory.next.clear();
        memory.processed.clear();
        memory.acknowledged.clear();
        memory.stand_ins.clear();
        memory.mutes.clear();
        let mut gone = HashSet::new();
        for message in &left.infos {
            if let (Some(About::Info(container)), Ok(info)) =
                (About::of(&message.topic), Sample::parse(&message.payload))
            {
                if info.value == 0.0 {
                    gone.insert(container.clone());
                }
                self.on_info(container, &info, now_ms);
            }
        }
        for topic in &left.heard {
            let is_gone = match About::of(topic) {
                Some(About::Sample(container, _)) => gone.contains(&container),
                _ => false,
            };
            if !is_gone {
                self.parts.book.hear(topic, now_ms);
            }
        }
        for message in &left.actions {
            match Action::parse(&message.payload) {
                Ok(Action::Acknowledge { .. }) | Err(_) => {}
                Ok(action) => {
                    self.change_mutes(action, now_ms);
                }
            }
        }
        let records = left
            .alerts
            .iter()
            .filter_map(|message| serde_json::from_slice::<Record>(&message.payload).ok());
        let own = self.parts.memory.consumer.clone();
        let (mut firing, mut untold) = (0, Vec::new());
        for record in records.filter(|record| record.consumer == own) {
            let Ok(topic) = Topic::new(&record.topic) else { continue };
            // The other machine's clock may be ahead of this one's.
            let at_ms = record.ts.min(now_ms);
            let since_ms = record.since.unwrap_or(at_ms).min(at_ms);
            let phase = match record.state.as_str() {
                "firing" => Phase::Firing { since_ms, said_ms: at_ms },
                "pending" => Phase::Pending { since_ms },
                _ => Phase::Ok,
            };
            let is_firing = matches!(phase, Phase::Firing { .. });
            let maybe_told = is_firing && !record.late && record.muted_until.is_none();
            let told = record.told.unwrap_or(maybe_told);
            let state = State {
                phase,
                told,
                // What the broker sends again because it was not told in time is judged already.
                sample_ms: at_ms + 1,
                heard_ms: now_ms,
                value: record.value,
                ..State::default()
            };
            self.parts.book.restore(&record.rule, &topic, state);
            firing += usize::from(is_firing);
            if !record.messages.is_empty() && (!is_firing || record.acknowledged_by.is_none()) {
                untold.push((record.alert(), record.messages.clone()));
            }
            for channel in record.told_by {
                let (rule, topic) = (record.rule.clone(), record.topic.clone());
                self.parts.memory.stand_in(StandIn { rule, topic, channel, ended: false });
            }
            if let Some(by) = record.acknowledged_by.filter(|_| is_firing) {
                self.parts.memory.acknowledged.push(Acknowledged { rule: record.rule, topic, by });
            }
        }
        let untold = self.take_over(&messages, untold, now_ms);
        info!(firing, untold, "going on where another consumer of this name stopped");
        self.dirty = true;
    }
}
