//! Every topic under every rule that matches it.
//!
//! A topic is matched against the rules once, when it is first seen; after that a sample costs
//! one look-up and a step of each of its machines. Replacing the rules keeps the state of those
//! that kept their names.
//!
//! Limit: [`TOPICS_MAX`] topics; the records of further ones are not judged, and that is said once.

use std::collections::BTreeMap;

use aklight_common::Topic;

use super::machine::{Change, Phase, Reading, State, on_sample, on_tick};
use super::{Condition, Rule};
use crate::sample::Sample;

/// Most topics that are judged: a machine of a few hundred bytes for each rule of each, some
/// tens of megabytes in all; a monitored fleet has thousands.
pub const TOPICS_MAX: usize = 100_000;

/// Topics below this one are what consumers write themselves: judging them would make alerts
/// of alerts without end.
const OWN_TOPICS: &str = "alerts/";

/// A change of one topic under one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The rule's place in [`Book::rules`].
    pub rule: usize,
    /// The topic.
    pub topic: Topic,
    /// What happened.
    pub change: Change,
}

/// The rules and the state of every topic under them.
#[derive(Debug, Default)]
pub struct Book {
    rules: Vec<Rule>,
    topics: BTreeMap<Topic, Vec<(usize, State)>>,
}

/// What a sample led to.
#[derive(Debug, PartialEq)]
pub enum Judged {
    /// The changes, often none.
    Changes(Vec<Verdict>),
    /// No rule matches the topic.
    NoRule,
    /// There are too many topics already.
    TooManyTopics,
}

impl Book {
    /// A book without a topic.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, topics: BTreeMap::new() }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a rule matches the topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        !matching(&self.rules, topic).is_empty()
    }

    /// Judges a sample.
    pub fn judge(&mut self, topic: &Topic, sample: &Sample, now_ms: u64) -> Judged {
        if !self.topics.contains_key(topic) {
            let states = matching(&self.rules, topic);
            if states.is_empty() {
                return Judged::NoRule;
            }
            if self.topics.len() >= TOPICS_MAX {
                return Judged::TooManyTopics;
            }
            self.topics.insert(topic.clone(), states);
        }
        let mut verdicts = Vec::new();
        for (rule, state) in self.topics.get_mut(topic).into_iter().flatten() {
            let value = match &self.rules[*rule].condition {
                Condition::Threshold { field, .. } => sample.number(field),
                Condition::Absent { .. } => Some(sample.value),
            };
            // Not every sample has every field: a container's disk has no fill level.
            let Some(value) = value else { continue };
            let reading = Reading { at_ms: sample.at_ms.unwrap_or(now_ms), value };
            let (after, change) = on_sample(&self.rules[*rule], *state, reading, now_ms);
            *state = after;
            verdicts.extend(change.map(|change| Verdict {
                rule: *rule,
                topic: topic.clone(),
                change,
            }));
        }
        Judged::Changes(verdicts)
    }

    /// Lets time pass for every topic.
    pub fn tick(&mut self, now_ms: u64, watching_since_ms: u64) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (topic, states) in &mut self.topics {
            for (rule, state) in states {
                let (after, change) =
                    on_tick(&self.rules[*rule], *state, now_ms, watching_since_ms);
                *state = after;
                verdicts.extend(change.map(|change| Verdict {
                    rule: *rule,
                    topic: topic.clone(),
                    change,
                }));
            }
        }
        verdicts
    }

    /// Takes other rules. The state of a topic under a rule is kept where its name is. Gives back
    /// how many alerts were firing under rules that are gone.
    pub fn replace(&mut self, rules: Vec<Rule>) -> usize {
        let kept: Vec<_> = self
            .states()
            .map(|(rule, topic, state)| (rule.name.clone(), topic.clone(), *state))
            .collect();
        let before = self.firing();
        *self = Self::new(rules);
        for (rule, topic, state) in kept {
            self.restore(&rule, &topic, state);
        }
        before - self.firing()
    }

    fn firing(&self) -> usize {
        let firing = |state: &State| matches!(state.phase, Phase::Firing { .. });
        self.states().filter(|(_, _, state)| firing(state)).count()
    }

    /// Puts a state back; one whose rule is gone or no longer matches is dropped.
    pub fn restore(&mut self, rule: &str, topic: &Topic, state: State) {
        let states =
            self.topics.entry(topic.clone()).or_insert_with(|| matching(&self.rules, topic));
        for (at, kept) in states.iter_mut() {
            if self.rules[*at].name == rule {
                *kept = state;
            }
        }
        if states.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// The states that must outlive the process: all but those that a new topic would have.
    pub fn states(&self) -> impl Iterator<Item = (&Rule, &Topic, &State)> {
        self.topics.iter().flat_map(move |(topic, states)| {
            states.iter().map(move |(rule, state)| (&self.rules[*rule], topic, state)).filter(
                |(rule, _, state)| {
                    state.phase != Phase::Ok
                        || state.told
                        || (matches!(rule.condition, Condition::Absent { .. })
                            && state.heard_ms > 0)
                },
            )
        })
    }
}

fn matching(rules: &[Rule], topic: &Topic) -> Vec<(usize, State)> {
    if topic.as_str().starts_with(OWN_TOPICS) {
        return Vec::new();
    }
    rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.pattern.matches(topic.as_str()))
        .map(|(n, _)| (n, State::default()))
        .collect()
}
