//! What a record says: which host or container its topic names, and the numbers of its payload.
//!
//! MONITORING.md is the reference. Whatever does not look like that is passed over, field by field:
//! a producer of a later version may say more, and one that is broken must not end the view. Pure.

use aklight_common::client::Message;
use serde_json::Value;

use crate::output::printable;

/// The metrics of a container. Source: MONITORING.md.
pub const METRICS: [&str; 9] =
    ["cpu", "memory", "disk", "network", "pids", "throttling", "pressure", "restarts", "state"];

/// What stands before the topic of the samples that a minute's record is of.
pub const ROLLUP: &str = "rollup/1m/";

/// Whose samples they are: a producer and one of its containers, as they are written in topics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The producer, for a host.
    pub producer: String,
    /// The container, escaped as a topic's level.
    pub container: String,
}

impl Key {
    /// The topic of one of its metrics.
    pub fn topic(&self, metric: &str) -> String {
        format!("metrics/docker/{}/{}/{metric}", self.producer, self.container)
    }

    /// The container's own name.
    pub fn name(&self) -> String {
        unescape(&self.container)
    }
}

/// What a topic stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A metric of the host, or container, that a producer runs in.
    Host { producer: &'a str, metric: &'a str },
    /// A metric of a container.
    Container { key: Key, metric: &'a str },
    /// What a container is.
    Info(Key),
    /// What happened to a container.
    Event(Key),
    /// An alert of a rule over a topic.
    Alert,
}

impl<'a> Subject<'a> {
    /// Reads a topic; `None` for one that nothing is shown of.
    pub fn of(topic: &'a str) -> Option<Self> {
        if topic.starts_with("alerts/") {
            return Some(Self::Alert);
        }
        let key = |producer: &str, container: &str| Key {
            producer: producer.to_owned(),
            container: container.to_owned(),
        };
        let levels: Vec<&str> = topic.split('/').collect();
        match levels[..] {
            ["metrics", "docker", producer, metric] => Some(Self::Host { producer, metric }),
            ["metrics", "docker", producer, container, metric] => {
                Some(Self::Container { key: key(producer, container), metric })
            }
            ["info", "docker", producer, container] => Some(Self::Info(key(producer, container))),
            ["events", "docker", producer, container] => {
                Some(Self::Event(key(producer, container)))
            }
            _ => None,
        }
    }
}

/// A record's payload.
#[derive(Debug)]
pub struct Payload(Value);

impl Payload {
    /// Reads it; `None` when it is no JSON object with a time.
    pub fn of(message: &Message) -> Option<Self> {
        let value: Value = serde_json::from_slice(&message.payload).ok()?;
        value.get("ts")?.as_u64()?;
        Some(Self(value))
    }

    /// When it was measured, in Unix milliseconds.
    pub fn ts(&self) -> u64 {
        self.count("ts")
    }

    /// A number that a chart can hold.
    pub fn number(&self, field: &str) -> Option<f64> {
        match self.0.get(field)? {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            value => value.as_f64().filter(|number| number.is_finite()),
        }
    }

    /// A number from 0 on; 0 where there is none.
    pub fn amount(&self, field: &str) -> f64 {
        self.number(field).unwrap_or(0.0).max(0.0)
    }

    /// A whole number from 0 on; 0 where there is none.
    pub fn count(&self, field: &str) -> u64 {
        let value = self.0.get(field);
        value.and_then(Value::as_u64).unwrap_or_else(|| self.amount(field) as u64)
    }

    /// A text as a terminal may be shown it; empty where there is none.
    pub fn text(&self, field: &str) -> String {
        match self.0.get(field) {
            Some(Value::String(text)) => printable(text.as_bytes()),
            Some(Value::Null) | None => String::new(),
            Some(other) => printable(other.to_string().as_bytes()),
        }
    }

    /// Whether a field says yes, as `true` or as 1.
    pub fn flag(&self, field: &str) -> bool {
        self.number(field).is_some_and(|number| number != 0.0)
    }

    /// At most `most` numbers of a list.
    pub fn numbers(&self, field: &str, most: usize) -> Vec<f64> {
        let list = self.0.get(field).and_then(Value::as_array);
        list.into_iter().flatten().take(most).filter_map(Value::as_f64).collect()
    }
}

/// Turns `%2F` back into `/`, and what a terminal must not be shown into words.
pub fn unescape(level: &str) -> String {
    let mut bytes = Vec::with_capacity(level.len());
    let mut rest = level.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    printable(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_name_hosts_containers_and_what_is_told_of_them() {
        let key = Key { producer: "web".into(), container: "db".into() };
        let expect = [
            ("metrics/docker/web/cpu", Some(Subject::Host { producer: "web", metric: "cpu" })),
            (
                "metrics/docker/web/db/cpu",
                Some(Subject::Container { key: key.clone(), metric: "cpu" }),
            ),
            ("info/docker/web/db", Some(Subject::Info(key.clone()))),
            ("events/docker/web/db", Some(Subject::Event(key.clone()))),
            ("alerts/cpu-high/metrics/docker/web/db/cpu", Some(Subject::Alert)),
            ("metrics/docker/web", None),
            ("other/docker/web/db", None),
        ];
        for (topic, subject) in expect {
            assert_eq!(Subject::of(topic), subject, "{topic}");
        }
        assert_eq!(key.topic("cpu"), "metrics/docker/web/db/cpu");
    }

    #[test]
    fn names_are_unescaped_and_cannot_speak_to_the_terminal() {
        assert_eq!(unescape("a%2Fb%25"), "a/b%");
        assert_eq!(unescape("a%1B[2J"), "a\\u{1b}[2J");
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%+1"), "%zz%+1");
        assert_eq!(unescape("%C3%A9"), "é");
    }
}
