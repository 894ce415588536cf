//! Which container a topic is about, as the topics' reference lays it down.
//!
//! `metrics/docker/{producer}/{container}/{metric}` and `info/docker/…`, `events/docker/…`
//! `{producer}/{container}`. A producer's own samples have no container.

use std::fmt;

use aklight_common::Topic;
use serde::{Deserialize, Serialize};

const SAMPLES: &str = "metrics/docker/";
const INFO: &str = "info/docker/";
const EVENTS: &str = "events/docker/";

/// A container of a producer's engine; both names are levels of topics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Who watches it.
    pub producer: String,
    /// Its name.
    pub name: String,
}

/// What a record says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About<'a> {
    /// A sample of this metric.
    Sample(Container, &'a str),
    /// What it is.
    Info(Container),
    /// What happened to it.
    Event(Container),
}

impl<'a> About<'a> {
    /// Reads a topic; `None` where it is about no container.
    #[must_use]
    pub fn of(topic: &'a Topic) -> Option<Self> {
        let text = topic.as_str();
        let container = |producer: &str, name: &str| Container {
            producer: producer.to_owned(),
            name: name.to_owned(),
        };
        if let Some(rest) = text.strip_prefix(SAMPLES) {
            let mut levels = rest.split('/');
            let (producer, name, metric) = (levels.next()?, levels.next()?, levels.next()?);
            return levels
                .next()
                .is_none()
                .then(|| Self::Sample(container(producer, name), metric));
        }
        let (rest, is_info) = match text.strip_prefix(INFO) {
            Some(rest) => (rest, true),
            None => (text.strip_prefix(EVENTS)?, false),
        };
        let (producer, name) = rest.split_once('/').filter(|(_, name)| !name.contains('/'))?;
        let container = container(producer, name);
        Some(if is_info { Self::Info(container) } else { Self::Event(container) })
    }
}

impl Container {
    /// Whether a topic holds samples of it.
    #[must_use]
    pub fn owns(&self, topic: &Topic) -> bool {
        let rest = topic.as_str().strip_prefix(SAMPLES);
        let rest = rest.and_then(|rest| rest.strip_prefix(&self.producer)?.strip_prefix('/'));
        rest.and_then(|rest| rest.strip_prefix(&self.name)).is_some_and(|end| end.starts_with('/'))
    }

    /// The topic of one of its metrics.
    #[must_use]
    pub fn topic_of(&self, metric: &str) -> String {
        format!("{SAMPLES}{self}/{metric}")
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_tell_which_container_they_are_about() {
        let topic = |text: &str| Topic::new(text).expect(text);
        let web = Container { producer: "p".to_owned(), name: "web".to_owned() };
        let cpu = topic("metrics/docker/p/web/cpu");
        assert_eq!(About::of(&cpu), Some(About::Sample(web.clone(), "cpu")));
        assert_eq!(About::of(&topic("info/docker/p/web")), Some(About::Info(web.clone())));
        assert_eq!(About::of(&topic("events/docker/p/web")), Some(About::Event(web.clone())));
        for other in ["metrics/docker/p/cpu", "metrics/docker/p/web/cpu/x", "info/docker/p", "a"] {
            assert_eq!(About::of(&topic(other)), None, "{other}");
        }
        assert!(web.owns(&cpu) && !web.owns(&topic("metrics/docker/p/webb/cpu")));
        assert_eq!(web.topic_of("cpu"), cpu.as_str());
    }
}
