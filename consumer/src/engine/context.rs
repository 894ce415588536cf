//! What is known of a container beside the number that fired: how it ended, and its last minute.
//!
//! Fed with every sample and event, read when an alert is told. The event of a container comes
//! before the `state` sample of the same moment in the same partition, so that it is here when the
//! rule fires. Kept in memory only: after a restart an alert has what came in since. Where no event
//! is known, the `state` sample itself tells how the container ended.
//!
//! Limits: [`CONTAINERS_MAX`] containers, a minute of samples each.

use std::collections::{HashMap, VecDeque};

use crate::notify::sparkline::sparkline;
use crate::rules::Container;
use crate::sample::Sample;

/// Most containers: each takes a kilobyte.
const CONTAINERS_MAX: usize = 10_000;

/// A minute, at a sample a second.
const SAMPLES_MAX: usize = 60;

/// What happened longer ago than this has nothing to do with what is told now.
const EVENT_AGE_MS_MAX: u64 = 600_000;

/// What is known of the containers.
#[derive(Debug, Default)]
pub struct Context {
    containers: HashMap<Container, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    cpu: VecDeque<f64>,
    memory: VecDeque<f64>,
    event: Option<Event>,
    /// As its state says it, where it failed.
    failed: Option<Event>,
}

/// What an event said that is worth telling.
#[derive(Debug, Default)]
struct Event {
    at_ms: u64,
    exit_code: Option<f64>,
    oom_killed: bool,
    restarts: Option<f64>,
    cpu: Vec<f64>,
    memory: Vec<f64>,
}

impl Context {
    /// Notes a sample.
    pub fn sample(&mut self, container: Container, metric: &str, sample: &Sample) {
        if metric == "state" {
            if let Some(recent) = self.recent(container) {
                recent.failed = (sample.flag("failed") == Some(true)).then(|| Event {
                    exit_code: sample.number("exit_code"),
                    oom_killed: sample.flag("oom_killed") == Some(true),
                    ..Event::default()
                });
            }
            return;
        }
        if !matches!(metric, "cpu" | "memory") {
            return;
        }
        let Some(recent) = self.recent(container) else { return };
        let series = if metric == "cpu" { &mut recent.cpu } else { &mut recent.memory };
        if series.len() == SAMPLES_MAX {
            series.pop_front();
        }
        series.push_back(sample.value);
    }

    /// Notes an event. One that says nothing of how a container ended (`start`, say) leaves what
    /// is known of its end.
    pub fn event(&mut self, container: Container, event: &Sample, now_ms: u64) {
        let kind = event.word("event").unwrap_or_default();
        if !matches!(kind, "die" | "oom" | "restart" | "health") {
            return;
        }
        let Some(recent) = self.recent(container) else { return };
        let at_ms = event.at_ms.unwrap_or(now_ms);
        let mut known = recent.event.take().unwrap_or_default();
        if at_ms.saturating_sub(known.at_ms) > EVENT_AGE_MS_MAX {
            known = Event::default();
        }
        known.at_ms = at_ms;
        if kind == "die" {
            known.exit_code = event.number("exit_code");
            known.oom_killed = false;
        }
        known.oom_killed |= kind == "oom" || event.flag("oom_killed") == Some(true);
        known.restarts = event.number("restarts").or(known.restarts);
        for (field, series) in [("last_cpu", &mut known.cpu), ("last_memory", &mut known.memory)] {
            let last: Vec<f64> = event.numbers(field).take(SAMPLES_MAX).collect();
            if !last.is_empty() {
                *series = last;
            }
        }
        recent.event = Some(known);
    }

    /// A container is gone.
    pub fn forget(&mut self, container: &Container) {
        self.containers.remove(container);
    }

    /// What is known, in words: `exit code 137, killed for memory, 3 restarts; cpu ▁▂ 12.0 %,
    /// memory ▅█ 98.0 %`. Empty where nothing is.
    #[must_use]
    pub fn of(&self, container: &Container, now_ms: u64) -> String {
        let Some(recent) = self.containers.get(container) else { return String::new() };
        let fresh = |event: &&Event| now_ms.saturating_sub(event.at_ms) <= EVENT_AGE_MS_MAX;
        // One that ended before anybody looked has no event.
        let event = recent.event.as_ref().filter(fresh).or(recent.failed.as_ref());
        let mut ended = Vec::new();
        let (mut cpu, mut memory) = (Vec::new(), Vec::new());
        if let Some(event) = event {
            // A state may be told before the engine's word of the end, behind that of a kill.
            let failed = recent.failed.as_ref();
            let exit_code = event.exit_code.or(failed.and_then(|failed| failed.exit_code));
            let oom_killed = event.oom_killed || failed.is_some_and(|failed| failed.oom_killed);
            ended.extend(exit_code.map(|code| format!("exit code {code}")));
            ended.extend(oom_killed.then(|| "killed for memory".to_owned()));
            ended.extend(event.restarts.map(|restarts| match restarts {
                1.0 => "1 restart".to_owned(),
                restarts => format!("{restarts} restarts"),
            }));
            cpu.clone_from(&event.cpu);
            memory.clone_from(&event.memory);
        }
        if cpu.is_empty() {
            cpu = recent.cpu.iter().copied().collect();
        }
        if memory.is_empty() {
            memory = recent.memory.iter().copied().collect();
        }
        let drawn = |name: &str, series: &[f64]| {
            let last = series.last()?;
            // Percent: of the limit, or of a CPU, which may pass 100.
            Some(format!("{name} {} {last:.1} %", sparkline(series, 100.0)))
        };
        let minute: Vec<_> =
            [drawn("cpu", &cpu), drawn("memory", &memory)].into_iter().flatten().collect();
        let parts = [ended.join(", "), minute.join(", ")];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    fn recent(&mut self, container: Container) -> Option<&mut Recent> {
        if self.containers.len() >= CONTAINERS_MAX && !self.containers.contains_key(&container) {
            return None;
        }
        Some(self.containers.entry(container).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Sample {
        Sample::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn an_end_is_told_with_its_code_its_reason_and_the_last_minute() {
        let web = || Container { producer: "p".to_owned(), name: "web".to_owned() };
        let mut context = Context::default();
        assert_eq!(context.of(&web(), 0), "");
        context.sample(web(), "cpu", &sample(r#"{"value":50}"#));
        assert_eq!(context.of(&web(), 0), "cpu ▅ 50.0 %");
        context.event(web(), &sample(r#"{"ts":1,"value":1,"event":"oom","restarts":2}"#), 9);
        let die = r#"{"ts":2,"value":1,"event":"die","exit_code":137,"oom_killed":1,"restarts":3,
            "last_cpu":[0,100],"last_memory":[50.5,98]}"#;
        context.event(web(), &sample(die), 9);
        context.event(web(), &sample(r#"{"ts":3,"value":1,"event":"start","restarts":3}"#), 9);
        assert_eq!(
            context.of(&web(), 9),
            "exit code 137, killed for memory, 3 restarts; cpu ▁█ 100.0 %, memory ▅█ 98.0 %"
        );
        assert_eq!(context.of(&web(), 700_000), "cpu ▅ 50.0 %", "long ago");
        context.forget(&web());
        assert_eq!(context.of(&web(), 9), "");
    }

    #[test]
    fn a_state_that_comes_before_the_word_of_an_end_gives_its_code() {
        let web = || Container { producer: "p".to_owned(), name: "web".to_owned() };
        let mut context = Context::default();
        context.event(web(), &sample(r#"{"ts":1,"value":1,"event":"oom","restarts":0}"#), 9);
        assert_eq!(context.of(&web(), 9), "killed for memory, 0 restarts");
        let state =
            r#"{"ts":2,"value":0,"state":"exited","failed":1,"exit_code":137,"oom_killed":1}"#;
        context.sample(web(), "state", &sample(state));
        assert_eq!(context.of(&web(), 9), "exit code 137, killed for memory, 0 restarts");
    }
}
