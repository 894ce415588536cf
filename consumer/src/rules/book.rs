//! Every topic under every rule that matches it.
//!
//! A topic is matched against the rules once, when it is first seen; after that a sample costs
//! one look-up and a step of each of its machines. Replacing the rules keeps the state of those
//! that kept their names.
//!
//! Containers bring rules of their own in their labels ([`super::labels`]). They come with the
//! container's `info` record and go with it: what was firing under a rule that is gone, or on a
//! container that is gone, ends with a reason.
//!
//! Limits: [`TOPICS_MAX`] topics; the records of further ones are not judged, and that is said
//! once. [`CONTAINERS_MAX`] containers with labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_common::{Pattern, Topic};
use serde::{Deserialize, Serialize};

use super::labels::{self, Labelled};
use super::machine::{Change, Phase, Reading, State, end, on_sample, on_tick};
use super::{Condition, Container, Rule, Severity};
use crate::sample::Sample;

/// Most topics that are judged: a machine of a few hundred bytes for each rule of each, some
/// tens of megabytes in all; a monitored fleet has thousands.
pub const TOPICS_MAX: usize = 100_000;

/// Most containers whose labels are rules: each has nine topics.
pub const CONTAINERS_MAX: usize = TOPICS_MAX / 9;

/// Topics below these are what consumers and people write themselves: judging them would make
/// alerts of alerts without end.
const OWN_TOPICS: [&str; 3] = ["alerts/", "deliveries/", "actions/"];

/// Why an alert ends whose container is gone.
const REMOVED: &str = "the container was removed";
/// Why an alert ends whose rule is gone.
const RULE_GONE: &str = "its rule is gone";

/// A change of one topic under one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The topic.
    pub topic: Topic,
    /// What happened.
    pub change: Change,
}

/// A container's labels that are rules, as they are remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// Whose.
    #[serde(flatten)]
    pub container: Container,
    /// By name.
    pub labels: BTreeMap<String, String>,
}

/// What is known of a container with labels.
#[derive(Debug)]
struct Known {
    labels: BTreeMap<String, String>,
    rules: Vec<Arc<Rule>>,
    /// What else they come to.
    read: Labelled,
}

/// The rules and the state of every topic under them.
#[derive(Debug, Default)]
pub struct Book {
    rules: Vec<Arc<Rule>>,
    containers: BTreeMap<Container, Known>,
    topics: BTreeMap<Topic, Vec<(Arc<Rule>, State)>>,
    /// What stood under rules that are gone; it ends with the next tick. No more than there were.
    gone: Vec<(Topic, Arc<Rule>, State)>,
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
        let rules = rules.into_iter().map(Arc::new).collect();
        Self { rules, ..Self::default() }
    }

    /// The rules of the file, or the defaults.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Whether a rule matches the topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        !self.fresh(topic).is_empty()
    }

    /// Judges a sample.
    pub fn judge(&mut self, topic: &Topic, sample: &Sample, now_ms: u64) -> Judged {
        if !self.topics.contains_key(topic) {
            let states = self.fresh(topic);
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
            let Some(reading) = Reading::of(rule, sample, now_ms) else { continue };
            let (after, change) = on_sample(rule, state, reading, now_ms);
            *state = after;
            verdicts.extend(change.map(|change| verdict(rule, topic, change)));
        }
        Judged::Changes(verdicts)
    }

    /// Lets time pass for every topic, and ends what stood under rules that are gone.
    pub fn tick(&mut self, now_ms: u64, watching_since_ms: u64) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (topic, rule, state) in std::mem::take(&mut self.gone) {
            let change = end(&state, RULE_GONE, now_ms);
            verdicts.extend(change.map(|change| verdict(&rule, &topic, change)));
        }
        for (topic, states) in &mut self.topics {
            for (rule, state) in states {
                let (after, change) = on_tick(rule, state, now_ms, watching_since_ms);
                *state = after;
                verdicts.extend(change.map(|change| verdict(rule, topic, change)));
            }
        }
        verdicts
    }

    /// A container is there, with these labels. Gives back what ended by it, and a sentence for
    /// each mistake in labels that are new.
    pub fn label(&mut self, labels: Labels, now_ms: u64) -> (Vec<Verdict>, Vec<String>) {
        let Labels { container, labels } = labels;
        let known = self.containers.get(&container);
        let same = known.map_or(labels.is_empty(), |known| known.labels == labels);
        if same || (known.is_none() && self.containers.len() >= CONTAINERS_MAX) {
            return (Vec::new(), Vec::new());
        }
        let mut read = labels::read(&container, &labels);
        let mistakes = std::mem::take(&mut read.mistakes);
        let rules = std::mem::take(&mut read.rules).into_iter().map(Arc::new).collect();
        if labels.is_empty() {
            self.containers.remove(&container);
        } else {
            self.containers.insert(container.clone(), Known { labels, rules, read });
        }
        let topics = self.topics_of(&container);
        let mut verdicts = Vec::new();
        for topic in topics {
            let fresh = self.fresh(&topic);
            let Some(states) = self.topics.get_mut(&topic) else { continue };
            let before = std::mem::replace(states, fresh);
            hear(states, heard_ms(&before));
            for (rule, state) in before {
                match states.iter_mut().find(|(kept, _)| kept.name == rule.name) {
                    Some((_, kept)) => *kept = state,
                    None => {
                        let change = end(&state, RULE_GONE, now_ms);
                        verdicts.extend(change.map(|change| verdict(&rule, &topic, change)));
                    }
                }
            }
        }
        (verdicts, mistakes)
    }

    /// A container is gone: so are its labels and all its states. Gives back what ended by it.
    pub fn remove(&mut self, container: &Container, now_ms: u64) -> Vec<Verdict> {
        self.containers.remove(container);
        let mut verdicts = Vec::new();
        for topic in self.topics_of(container) {
            for (rule, state) in self.topics.remove(&topic).into_iter().flatten() {
                let change = end(&state, REMOVED, now_ms);
                verdicts.extend(change.map(|change| verdict(&rule, &topic, change)));
            }
        }
        verdicts
    }

    /// The telephone was not told of a change after all: it is told when it may be, if it is still
    /// so.
    pub fn withhold(&mut self, rule: &str, topic: &Topic) {
        if let Some(state) = self.state_mut(rule, topic) {
            state.told = !matches!(state.phase, Phase::Firing { .. });
        }
    }

    /// A reminder did not reach the telephone: it comes when it may.
    pub fn owe_reminder(&mut self, rule: &str, topic: &Topic) {
        if let Some(state) = self.state_mut(rule, topic) {
            state.reminder_owed = true;
        }
    }

    /// The clock was set by so many milliseconds: see [`State::clock_set`].
    pub fn clock_set(&mut self, by_ms: i64, now_ms: u64) {
        let states = self.topics.values_mut().flatten().map(|(_, state)| state);
        for state in states.chain(self.gone.iter_mut().map(|(_, _, state)| state)) {
            state.clock_set(by_ms, now_ms);
        }
    }

    /// The newest moment of the consumer's clock that is remembered; 0 where there is none.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        self.states().map(|(_, _, state)| state.noted_ms()).max().unwrap_or_default()
    }

    /// Whether the telephone last heard that a topic fires under a rule.
    #[must_use]
    pub fn told(&self, rule: &str, topic: &Topic) -> bool {
        let mut states = self.topics.get(topic).into_iter().flatten();
        states.any(|(of, state)| of.name == rule && state.told)
    }

    /// The rule of that name which judges a topic.
    #[must_use]
    pub fn rule(&self, name: &str, topic: &Topic) -> Option<&Rule> {
        let mut states = self.topics.get(topic)?.iter();
        states.find(|(rule, _)| rule.name == name).map(|(rule, _)| &**rule)
    }

    /// Takes other rules. The state of a topic under a rule is kept where its name is; what was
    /// firing under the others ends with the next tick.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        self.rules = rules.into_iter().map(Arc::new).collect();
        for (topic, kept) in std::mem::take(&mut self.topics) {
            let mut states = self.fresh(&topic);
            hear(&mut states, heard_ms(&kept));
            for (rule, state) in kept {
                match states.iter_mut().find(|(new, _)| new.name == rule.name) {
                    Some((_, fresh)) => *fresh = state,
                    None if state.phase == Phase::Ok => {}
                    None => self.gone.push((topic.clone(), rule, state)),
                }
            }
            if !states.is_empty() {
                self.topics.insert(topic, states);
            }
        }
    }

    /// Forgets how every topic stands; the rules stay.
    pub fn forget_states(&mut self) {
        self.topics.clear();
        self.gone.clear();
    }

    /// Every topic that is firing, and under which rule.
    pub fn firing(&self) -> impl Iterator<Item = (&Arc<Rule>, &Topic, &State)> {
        self.states().filter(|(_, _, state)| matches!(state.phase, Phase::Firing { .. }))
    }

    /// Puts a state back; one whose rule is gone or no longer matches ends with the next tick.
    pub fn restore(&mut self, rule: &str, topic: &Topic, state: State) {
        if !self.topics.contains_key(topic) {
            let mut fresh = self.fresh(topic);
            hear(&mut fresh, state.heard_ms);
            if !fresh.is_empty() {
                self.topics.insert(topic.clone(), fresh);
            }
        }
        if let Some(kept) = self.state_mut(rule, topic) {
            *kept = state;
        } else if state.phase != Phase::Ok
            && let Some(rule) = stand_in(rule, topic)
        {
            self.gone.push((topic.clone(), Arc::new(rule), state));
        }
    }

    /// Somebody else heard of a topic: where a rule wants to hear of it, silence counts from now on.
    pub fn hear(&mut self, topic: &Topic, now_ms: u64) {
        if self.topics.len() >= TOPICS_MAX {
            return;
        }
        for (rule, _) in self.fresh(topic) {
            if matches!(rule.condition, Condition::Absent { .. }) {
                let state = State { heard_ms: now_ms, ..State::default() };
                self.restore(&rule.name, topic, state);
            }
        }
    }

    /// The states that must outlive the process: all but those that a new topic would have.
    pub fn states(&self) -> impl Iterator<Item = (&Arc<Rule>, &Topic, &State)> {
        let gone = self.gone.iter().map(|(topic, rule, state)| (rule, topic, state));
        gone.chain(self.topics.iter().flat_map(move |(topic, states)| {
            states.iter().map(move |(rule, state)| (rule, topic, state)).filter(
                |(rule, _, state)| {
                    state.phase != Phase::Ok
                        || state.told
                        || !state.growth.is_empty()
                        || (matches!(rule.condition, Condition::Absent { .. })
                            && state.heard_ms > 0)
                },
            )
        }))
    }

    /// The labels that are rules.
    pub fn labels(&self) -> impl Iterator<Item = Labels> {
        self.containers.iter().map(|(container, known)| Labels {
            container: container.clone(),
            labels: known.labels.clone(),
        })
    }

    fn state_mut(&mut self, rule: &str, topic: &Topic) -> Option<&mut State> {
        let states = self.topics.get_mut(topic)?;
        states.iter_mut().find(|(of, _)| of.name == rule).map(|(_, state)| state)
    }

    fn topics_of(&self, container: &Container) -> Vec<Topic> {
        self.topics.keys().filter(|topic| container.owns(topic)).cloned().collect()
    }

    /// The rules of a topic, each with the state of one that is new: the general ones but for the
    /// aspects that its container's labels speak of, as those labels want them told, and the labels'
    /// own.
    fn fresh(&self, topic: &Topic) -> Vec<(Arc<Rule>, State)> {
        if OWN_TOPICS.iter().any(|own| topic.as_str().starts_with(own)) {
            return Vec::new();
        }
        let known = match super::About::of(topic) {
            Some(super::About::Sample(container, _)) => self.containers.get(&container),
            _ => None,
        };
        let general = self.rules.iter().filter(|rule| {
            let own = known.is_some_and(|known| {
                labels::aspect(rule, topic).is_some_and(|aspect| known.read.own.contains(aspect))
            });
            !own
        });
        let matches = |rule: &&Arc<Rule>| rule.pattern.matches(topic.as_str());
        let general = general.filter(matches).map(|rule| match known {
            Some(known) if known.read.changes_rules() => Arc::new(known.read.applied_to(rule)),
            _ => Arc::clone(rule),
        });
        let labelled = known.iter().flat_map(|known| &known.rules).filter(matches).cloned();
        general.chain(labelled).map(|rule| (rule, State::default())).collect()
    }
}

/// In place of a rule of which only the name is known: everybody hears that its alert is over.
fn stand_in(name: &str, topic: &Topic) -> Option<Rule> {
    Some(Rule {
        name: name.to_owned(),
        pattern: Pattern::new(topic.as_str()).ok()?,
        condition: Condition::Absent { after_ms: 0 },
        repeat_ms: None,
        severity: Severity::Warning,
        notify: None,
        fallback: Vec::new(),
    })
}

/// When a topic was last heard: each of its states knows.
fn heard_ms(states: &[(Arc<Rule>, State)]) -> u64 {
    states.iter().map(|(_, state)| state.heard_ms).max().unwrap_or_default()
}

/// Tells new states when their topic was last heard: it is not silent because a rule is new.
fn hear(states: &mut [(Arc<Rule>, State)], heard_ms: u64) {
    for (_, state) in states {
        state.heard_ms = heard_ms;
    }
}

fn verdict(rule: &Arc<Rule>, topic: &Topic, change: Change) -> Verdict {
    Verdict { rule: Arc::clone(rule), topic: topic.clone(), change }
}
