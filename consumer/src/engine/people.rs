//! What people do about alerts, and when they are left in peace: acknowledgements, mutes, quiet
//! hours.
//!
//! A change that is withheld (muted, or in quiet hours) is recorded and printed as ever, but wakes
//! nobody, and the machine is told that the telephone did not hear of it: with the next sample it
//! offers the change again, as long as it still is so, and is heard when the mute or the night has
//! ended. A reminder is owed likewise. The end of what has no more samples (its container or its
//! rule is gone) waits as a notice instead, which goes sooner where the mute is taken back.

use std::collections::HashMap;
use std::sync::Arc;

use aklight_common::{Pattern, Topic};
use tracing::{info, warn};

use super::Engine;
use crate::alerts::actions::{EVERY_RULE, MUTES_MAX};
use crate::alerts::{Acknowledged, Action, Alert, Notice, People};
use crate::rules::machine::{Phase, State};
use crate::rules::{Audience, Change, Condition, Kind, Rule, Severity, Verdict};

impl Engine {
    /// Takes what somebody did.
    pub(super) fn act(&mut self, payload: &[u8], now_ms: u64) {
        let action = match Action::parse(payload) {
            Ok(action) => action,
            Err(error) => {
                warn!(%error, "a record of {} is passed over", crate::alerts::actions::TOPIC);
                return;
            }
        };
        let touched = match action {
            Action::Acknowledge { rule, pattern, by } => {
                self.acknowledge(&rule, &pattern, &by);
                Some((rule, pattern))
            }
            action => self.change_mutes(action, now_ms),
        };
        self.dirty = true;
        if let Some((rule, pattern)) = touched {
            self.restate(&rule, &pattern, now_ms);
        }
    }

    fn acknowledge(&mut self, rule: &str, pattern: &Pattern, by: &str) {
        let firing: Vec<_> = self
            .firing(rule, pattern)
            .map(|(rule, topic, _)| (rule.name.clone(), topic.clone()))
            .collect();
        let acknowledged = &mut self.parts.memory.acknowledged;
        for (rule, topic) in firing {
            acknowledged.retain(|known| (&known.rule, &known.topic) != (&rule, &topic));
            acknowledged.push(Acknowledged { rule, topic, by: by.to_owned() });
        }
    }

    /// Mutes or unmutes; gives back which rule and topics it was about.
    pub(super) fn change_mutes(
        &mut self,
        action: Action,
        now_ms: u64,
    ) -> Option<(String, Pattern)> {
        let mutes = &mut self.parts.memory.mutes;
        match action {
            Action::Mute(mute) if mute.until_ms > now_ms => {
                mutes.retain(|known| (&known.rule, &known.pattern) != (&mute.rule, &mute.pattern));
                if mutes.len() >= MUTES_MAX {
                    warn!("more than {MUTES_MAX} mutes: this one is not taken; unmute some");
                    return None;
                }
                info!(rule = mute.rule, topics = %mute.pattern, by = mute.by, "muted");
                let touched = (mute.rule.clone(), mute.pattern.clone());
                mutes.push(mute);
                Some(touched)
            }
            Action::Unmute { rule, pattern } => {
                mutes.retain(|mute| (&mute.rule, &mute.pattern) != (&rule, &pattern));
                Some((rule, pattern))
            }
            Action::Mute(_) | Action::Acknowledge { .. } => None,
        }
    }

    /// What is firing under a rule, or under all.
    fn firing<'a>(
        &'a self,
        rule: &'a str,
        pattern: &'a Pattern,
    ) -> impl Iterator<Item = (&'a Arc<Rule>, &'a Topic, &'a State)> {
        self.parts.book.firing().filter(move |(of, topic, _)| {
            (rule == EVERY_RULE || of.name == rule) && pattern.matches(topic.as_str())
        })
    }

    /// Records again how the alerts stand that somebody did something about.
    pub(super) fn restate(&mut self, rule: &str, pattern: &Pattern, now_ms: u64) {
        let every = rule == crate::alerts::actions::EVERY_RULE;
        let firing =
            self.parts.book.firing().filter(|(of, topic, _)| {
                (every || of.name == rule) && pattern.matches(topic.as_str())
            });
        let verdicts: Vec<_> = firing
            .map(|(rule, topic, state)| Verdict {
                rule: rule.clone(),
                topic: topic.clone(),
                change: Change {
                    kind: Kind::Reminder,
                    audience: Audience::Quiet,
                    value: match rule.condition {
                        Condition::Measured(_) => state.value,
                        // Of a silence the last sample's number says nothing.
                        Condition::Absent { .. } => {
                            (now_ms.saturating_sub(state.heard_ms) / 1000) as f64
                        }
                    },
                    since_ms: match state.phase {
                        Phase::Firing { since_ms, .. } => Some(since_ms),
                        _ => None,
                    },
                    at_ms: now_ms,
                    late: false,
                    reason: None,
                },
            })
            .collect();
        for verdict in verdicts {
            let alert = self.alert(&verdict, now_ms);
            self.announce(&alert, now_ms);
        }
    }

    /// What people did about an alert.
    pub(super) fn people(&self, rule: &str, topic: &str, now_ms: u64) -> People {
        let memory = &self.parts.memory;
        let acknowledged =
            memory.acknowledged.iter().find(|a| a.rule == rule && a.topic.as_str() == topic);
        let mutes = memory.mutes.iter().filter(|mute| mute.covers(rule, topic));
        let stand_ins = memory.stand_ins.iter();
        let told_by = stand_ins.filter(|it| it.rule == rule && it.topic == topic && !it.ended);
        People {
            told_by: told_by.map(|it| it.channel).collect(),
            acknowledged_by: acknowledged.map(|a| a.by.clone()),
            muted_until_ms: mutes.map(|mute| mute.until_ms).filter(|until| *until > now_ms).max(),
        }
    }

    /// Until when an alert waits: muted, or in quiet hours.
    pub(super) fn withheld_until_ms(
        &self,
        people: &People,
        severity: Severity,
        now_ms: u64,
    ) -> Option<u64> {
        let quiet = self.parts.quiet.as_ref();
        quiet.and_then(|quiet| quiet.until_ms(severity, now_ms)).max(people.muted_until_ms)
    }

    /// Lets notices go that wait for longer than there is reason to: the mute is taken back, the night
    /// is another one by other rules, or the clock was set back.
    pub(super) fn bring_forward(&mut self, now_ms: u64) {
        let group_wait_ms = self.parts.group_wait_ms;
        let waits = |notice: &&Notice| notice.due_ms > now_ms + group_wait_ms;
        let until_ms = |alert: &Alert| {
            let people = self.people(&alert.rule, &alert.topic, now_ms);
            self.withheld_until_ms(&people, alert.severity, now_ms).unwrap_or(now_ms)
        };
        let notices = &self.parts.memory.notices;
        let sooner: HashMap<_, _> = notices
            .iter()
            .filter(waits)
            .map(|notice| {
                let until_ms = notice.alerts().map(until_ms).max().unwrap_or(now_ms);
                (notice.id, until_ms + group_wait_ms)
            })
            .collect();
        for notice in &mut self.parts.memory.notices {
            if let Some(due_ms) = sooner.get(&notice.id).filter(|due_ms| **due_ms < notice.due_ms) {
                notice.due_ms = *due_ms;
                self.dirty = true;
            }
        }
    }

    /// Drops mutes that have ended.
    pub(super) fn end_mutes(&mut self, now_ms: u64) {
        let before = self.parts.memory.mutes.len();
        self.parts.memory.mutes.retain(|mute| mute.until_ms > now_ms);
        self.dirty |= self.parts.memory.mutes.len() < before;
    }
}
