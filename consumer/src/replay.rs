//! Rules tried on records that are stored: when would they have rung? Nobody is told.
//!
//! The same book and machines as in the engine, with the records' own times for a clock: it is
//! the newest `ts` that was seen, and moves on in steps between records, so that silence is
//! noticed when it would have been. Pure.
//!
//! Left out: grouping, mutes and acknowledgements, which are about messages and not about rules.

use aklight_common::Topic;

use crate::alerts::Alert;
use crate::engine::context::Context;
use crate::notify::message::mark;
use crate::rules::book::{Judged, Labels};
use crate::rules::{About, Audience, Book, Kind, Quiet, Rules, Verdict, labels};
use crate::sample::Sample;

/// The step of the clock between records, unless they are far apart.
const STEP_MS: u64 = 1_000;

/// Most steps between two records: a log with a hole of a year must not take one to replay.
const STEPS_MAX: u64 = 3_600;

/// What would have happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// The alert.
    pub alert: Alert,
    /// Whether it would have gone by telephone: not where its sample was late, nor in quiet hours.
    pub loud: bool,
}

/// A replay.
#[derive(Debug)]
pub struct Replay {
    book: Book,
    quiet: Option<Quiet>,
    context: Context,
    now_ms: u64,
    mistakes: Vec<String>,
}

impl Replay {
    /// Of these rules, and of those in the labels that it meets.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let Rules { list, quiet } = rules;
        let context = Context::default();
        Self { book: Book::new(list), quiet, context, now_ms: 0, mistakes: Vec::new() }
    }

    /// Plays a record; gives back what people would have been told. Records are played in the
    /// order of their times.
    pub fn play(&mut self, topic: &Topic, payload: &[u8]) -> Vec<Rung> {
        let Ok(sample) = Sample::parse(payload) else { return Vec::new() };
        let at_ms = sample.at_ms.unwrap_or(self.now_ms);
        let mut rung = self.pass_time(at_ms);
        let now_ms = self.now_ms;
        let verdicts = match About::of(topic) {
            Some(About::Info(container)) if sample.value == 0.0 => {
                self.context.forget(&container);
                self.book.remove(&container, now_ms)
            }
            Some(About::Info(container)) => {
                let words = sample.words().filter(|(name, _)| name.starts_with(labels::PREFIX));
                let labels = words.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
                let (verdicts, mistakes) = self.book.label(Labels { container, labels }, now_ms);
                self.mistakes.extend(mistakes);
                verdicts
            }
            Some(About::Event(container)) => {
                self.context.event(container, &sample, now_ms);
                return rung;
            }
            about => {
                if let Some(About::Sample(container, metric)) = about {
                    self.context.sample(container, metric, &sample);
                }
                match self.book.judge(topic, &sample, now_ms) {
                    Judged::Changes(verdicts) => verdicts,
                    Judged::NoRule | Judged::TooManyTopics => Vec::new(),
                }
            }
        };
        rung.extend(verdicts.iter().filter_map(|verdict| self.rung(verdict, &sample.unit)));
        rung
    }

    /// The mistakes in labels that were met.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }

    /// Lets the clock go on to a record's time.
    fn pass_time(&mut self, at_ms: u64) -> Vec<Rung> {
        if self.now_ms == 0 {
            self.now_ms = at_ms;
        }
        let step_ms = (at_ms.saturating_sub(self.now_ms) / STEPS_MAX).max(STEP_MS);
        let mut rung = Vec::new();
        while self.now_ms < at_ms {
            self.now_ms = (self.now_ms + step_ms).min(at_ms);
            let verdicts = self.book.tick(self.now_ms, 0);
            rung.extend(verdicts.iter().filter_map(|verdict| self.rung(verdict, "")));
        }
        rung
    }

    fn rung(&self, verdict: &Verdict, unit: &str) -> Option<Rung> {
        let mut alert = Alert::new(verdict, unit);
        mark(alert.kind)?;
        if let Some(About::Sample(container, _)) = About::of(&verdict.topic)
            && alert.kind != Kind::Resolved
        {
            alert.context = self.context.of(&container, self.now_ms);
        }
        let quiet = self.quiet.as_ref();
        let waits = quiet.is_some_and(|quiet| quiet.holds(alert.severity, self.now_ms));
        let loud = verdict.change.audience != Audience::Quiet && !waits;
        Some(Rung { alert, loud })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::defaults;

    #[test]
    fn what_is_stored_rings_as_it_would_have_rung_with_labels_and_silence() {
        let mut replay = Replay::new(defaults());
        let mut rung = Vec::new();
        let mut play = |topic: &str, payload: &str| {
            let topic = Topic::new(topic).expect(topic);
            rung.extend(replay.play(&topic, payload.as_bytes()));
        };
        let t0 = 1_795_229_527_000_u64;
        let labels = format!(r#"{{"ts":{t0},"value":1,"aklight.alert.memory":"> 50 for 2s"}}"#);
        play("info/docker/p/web", &labels);
        for second in 0..5 {
            let ts = t0 + second * 1000;
            play("metrics/docker/p/cpu", &format!(r#"{{"ts":{ts},"value":1}}"#));
            let memory = format!(r#"{{"ts":{ts},"value":60,"unit":"percent"}}"#);
            play("metrics/docker/p/web/memory", &memory);
        }
        // The producer is silent for a minute; its container is gone after that.
        let ts = t0 + 65_000;
        play("metrics/docker/p/cpu", &format!(r#"{{"ts":{ts},"value":1}}"#));
        play("info/docker/p/web", &format!(r#"{{"ts":{ts},"value":0}}"#));
        let told: Vec<_> = rung
            .iter()
            .map(|rung| {
                let Alert { kind, rule, at_ms, .. } = &rung.alert;
                (*kind, rule.as_str(), (at_ms - t0) / 1000)
            })
            .collect();
        assert_eq!(
            told,
            [
                (Kind::Fired, "label-memory", 2),
                (Kind::Fired, "producer-silent", 34),
                (Kind::Resolved, "producer-silent", 65),
                (Kind::Resolved, "label-memory", 65),
            ]
        );
        assert!(rung.iter().all(|rung| rung.loud));
    }
}
