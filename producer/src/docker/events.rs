//! What happens to containers, and the last minute of each, which its end is told with.

use std::collections::VecDeque;

use super::details::{Details, is_failure};
use super::shapes::Event;
use crate::sample::{Sample, Value};

/// Samples of a container that are kept: a minute of one a second.
const LAST_SAMPLES_MAX: usize = 60;

/// A sample older than this, seen from the event, is none of its last minute.
const LAST_MS_MAX: u64 = 61_000;

/// What the engine is asked to tell, in Docker's words and in those that Podman has for the same.
/// Docker takes `health_status` for all that begin with it. What is not asked for are above all
/// `exec_…`: a health check makes three of them each time.
pub const FILTERS: &str = r#"{"type":["container"],"event":["create","start","stop","die","died","oom","restart","destroy","remove","rename","update","pause","unpause","health_status"]}"#;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It runs.
    Start,
    /// It was asked to end, and has.
    Stop,
    /// Its first process ended, with this code where the engine says it.
    Die(Option<i64>),
    /// The kernel killed a process of it for memory.
    Oom,
    /// It was started again, by a person.
    Restart,
    /// It is no more.
    Destroy,
    /// Its health check says something new: the word, where the engine says it.
    Health(Option<String>),
    /// Something that changes what it is, and is no event of ours.
    Change,
}

/// What happened, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// What.
    pub action: Action,
    /// Unix time in milliseconds.
    pub ts_ms: u64,
}

impl Happening {
    /// Out of the engine's words.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        let attribute = |name| event.actor.attributes.get(name);
        let exit_code = || attribute("exitCode")?.parse().ok();
        let action = match event.action.as_str() {
            "start" => Action::Start,
            "stop" => Action::Stop,
            "die" | "died" => Action::Die(exit_code()),
            "oom" => Action::Oom,
            "restart" => Action::Restart,
            "destroy" | "remove" => Action::Destroy,
            words => match words.split_once("health_status") {
                // Docker says `health_status: unhealthy`, Podman has it beside.
                Some((_, word)) if !word.is_empty() => {
                    Action::Health(Some(word.trim_start_matches([':', ' ']).to_owned()))
                }
                Some(_) => Action::Health(attribute("health_status").cloned()),
                None => Action::Change,
            },
        };
        Self { action, ts_ms: event.nanos() / 1_000_000 }
    }
}

impl Event {
    /// When it happened; the seconds alone where the engine says no more.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        if self.time_nano > 0 { self.time_nano } else { self.time.saturating_mul(1_000_000_000) }
    }
}

/// An event as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// See [`Action`].
    Start,
    /// See [`Action`].
    Stop,
    /// With the exit code, and whether it was killed for memory.
    Die(i64, bool),
    /// See [`Action`].
    Oom,
    /// By a person, or by the engine, in place of `start`.
    Restart,
    /// See [`Action`].
    Destroy,
    /// With what the check says.
    Health(&'a str),
}

impl Told<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Die(..) => "die",
            Self::Oom => "oom",
            Self::Restart => "restart",
            Self::Destroy => "destroy",
            Self::Health(_) => "health",
        }
    }

    /// The record.
    #[must_use]
    pub fn record(self, ts_ms: u64, container: &Details, last: &LastMinute) -> Sample {
        let event = Sample::new(ts_ms, 1_u64, "event")
            .with("event", self.name())
            .with("image", container.image.as_str())
            .with("restarts", container.restarts);
        match self {
            Self::Die(exit_code, oom_killed) => last.add_to(
                event
                    .with("exit_code", exit_code)
                    .with("oom_killed", oom_killed)
                    .with("failed", is_failure(exit_code, oom_killed)),
                ts_ms,
            ),
            Self::Oom | Self::Restart => last.add_to(event, ts_ms),
            Self::Health(health) => {
                let event = event.with("health", health);
                if health == "unhealthy" { last.add_to(event, ts_ms) } else { event }
            }
            Self::Start | Self::Stop | Self::Destroy => event,
        }
    }
}

/// The last samples of a container.
#[derive(Debug, Default)]
pub struct LastMinute {
    samples: VecDeque<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    ts_ms: u64,
    cpu: f64,
    memory: f64,
    bytes: f64,
}

impl LastMinute {
    /// Takes note of what was measured.
    pub fn note(&mut self, ts_ms: u64, cpu: &Sample, memory: &Sample) {
        if self.samples.len() == LAST_SAMPLES_MAX {
            self.samples.pop_front();
        }
        let bytes = memory.field("bytes").unwrap_or(0.0);
        self.samples.push_back(Last { ts_ms, cpu: cpu.value(), memory: memory.value(), bytes });
    }

    /// Its memory when it was measured last, in percent of what it may have.
    #[must_use]
    pub fn memory(&self) -> Option<f64> {
        self.samples.back().map(|last| last.memory)
    }

    fn add_to(&self, event: Sample, ts_ms: u64) -> Sample {
        let recent = || self.samples.iter().filter(|last| ts_ms < last.ts_ms + LAST_MS_MAX);
        let list = |of: fn(&Last) -> f64| Value::List(recent().map(|l| of(l).into()).collect());
        event
            .with("last_cpu", list(|last| last.cpu))
            .with("last_memory", list(|last| last.memory))
            .with("last_memory_bytes", list(|last| last.bytes))
            .with_some("last_ts", recent().next_back().map(|last| last.ts_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::details::tests::running;
    use super::*;

    fn event(json: serde_json::Value) -> Happening {
        Happening::new(&serde_json::from_value(json).expect("an event"))
    }

    #[test]
    fn dockers_and_podmans_words_are_understood() {
        let die = event(serde_json::json!({
            "Type": "container", "Action": "die", "scope": "local", "time": 5,
            "timeNano": 5_000_000_123_u64,
            "Actor": {"ID": "ab", "Attributes": {"exitCode": "137", "name": "web"}},
        }));
        assert_eq!(die, Happening { action: Action::Die(Some(137)), ts_ms: 5000 });
        let action = |word: &str| event(serde_json::json!({"Action": word, "time": 7})).action;
        assert_eq!(action("died"), Action::Die(None));
        assert_eq!(action("remove"), Action::Destroy);
        assert_eq!(
            action("health_status: unhealthy"),
            Action::Health(Some("unhealthy".to_owned()))
        );
        assert_eq!(action("health_status"), Action::Health(None));
        let podman = serde_json::json!({"Action": "health_status", "time": 7,
            "Actor": {"Attributes": {"health_status": "healthy"}}});
        assert_eq!(event(podman).action, Action::Health(Some("healthy".to_owned())));
        assert_eq!(action("rename"), Action::Change);
        assert_eq!(event(serde_json::json!({"Action": "oom", "time": 7})).ts_ms, 7000);
    }

    #[test]
    fn the_filters_are_json() {
        assert!(serde_json::from_str::<serde_json::Value>(FILTERS).is_ok());
    }

    #[test]
    fn an_end_is_told_with_the_last_minute_and_nothing_older() {
        let mut last = LastMinute::default();
        for second in 0..100_u64 {
            let cpu = Sample::new(0, second, "percent");
            let memory = Sample::new(0, 2_u64, "percent").with("bytes", 7_u64);
            last.note(second * 1000, &cpu, &memory);
        }
        let die = |ts_ms| -> serde_json::Value {
            let record = Told::Die(137, true).record(ts_ms, &running("ab", "web"), &last);
            serde_json::from_str(&record.to_json()).expect("JSON")
        };
        let full = die(99_500);
        assert_eq!(full["event"], "die");
        assert_eq!(full["exit_code"], 137);
        assert_eq!((full["oom_killed"].as_u64(), full["failed"].as_u64()), (Some(1), Some(1)));
        let cpu: Vec<u64> = serde_json::from_value(full["last_cpu"].clone()).expect("numbers");
        assert_eq!(cpu, (40..100).collect::<Vec<u64>>());
        assert_eq!(full["last_ts"], 99_000);
        let later = die(150_000);
        assert_eq!(later["last_cpu"].as_array().map(Vec::len), Some(10));
        let long_after = die(1_000_000);
        assert_eq!(long_after["last_cpu"], serde_json::json!([]));
        assert_eq!(long_after.get("last_ts"), None);
    }

    #[test]
    fn the_longest_end_is_one_write_into_a_pipe() {
        let mut last = LastMinute::default();
        for second in 0..60 {
            let cpu = Sample::new(0, 12_345.67, "percent");
            let memory = Sample::new(0, 99.99, "percent").with("bytes", 1_u64 << 42);
            last.note(second, &cpu, &memory);
        }
        let record = Told::Die(137, true).record(1, &running("ab", "web"), &last).to_json();
        assert!(record.len() < 3000, "{}", record.len());
    }
}
