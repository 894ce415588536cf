//! What people do about alerts: acknowledge, mute, unmute. Records under `actions/alerts`.
//!
//! An acknowledged alert is told of no more until it is over. A muted one wakes nobody until the
//! mute ends; what is still so then is told then. Both are read by every consumer, and kept in its
//! memory.
//!
//! Pure. An action that cannot be understood is refused with what to write.

use aklight_common::{Pattern, Topic};
use serde::{Deserialize, Serialize};

/// The topic of actions.
pub const TOPIC: &str = "actions/alerts";

/// The key of actions: one for all, so that they keep their order.
pub const KEY: &[u8] = b"alerts";

/// Stands for every rule.
pub const EVERY_RULE: &str = "+";

/// Most mutes at once: more are no longer a person's.
pub const MUTES_MAX: usize = 1_000;

/// A mute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mute {
    /// The rule's name, or `+`.
    pub rule: String,
    /// The samples' topics.
    #[serde(with = "as_text")]
    pub pattern: Pattern,
    /// Who.
    pub by: String,
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
    /// Why; may be empty.
    pub reason: String,
}

impl Mute {
    /// Whether it holds for an alert.
    #[must_use]
    pub fn covers(&self, rule: &str, topic: &str) -> bool {
        (self.rule == EVERY_RULE || self.rule == rule) && self.pattern.matches(topic)
    }
}

/// An alert that somebody has seen to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The rule's name.
    pub rule: String,
    /// The topic of the samples.
    #[serde(with = "as_text")]
    pub topic: Topic,
    /// Who.
    pub by: String,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Has seen to what is firing.
    Acknowledge {
        /// A rule's name, or `+`.
        rule: String,
        /// The samples' topics.
        pattern: Pattern,
        /// Who.
        by: String,
    },
    /// Wants no message.
    Mute(Mute),
    /// Wants messages again: takes back the mutes with this rule and this pattern.
    Unmute {
        /// As it was muted.
        rule: String,
        /// As it was muted.
        pattern: Pattern,
    },
}

/// Why a record is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Not a JSON object with the fields of an action.
    #[error(
        "it is no action ({0}): write {{\"action\":\"acknowledge\",\"rule\":\"+\",\"match\":\"#\",\"by\":\"me\"}}"
    )]
    Form(String),
    /// Not a pattern.
    #[error("its 'match' is no pattern: {0}")]
    Pattern(String),
    /// A mute without an end.
    #[error("a mute needs 'until', Unix time in milliseconds")]
    Until,
    /// Something else.
    #[error("there is no action '{0}': write acknowledge, mute or unmute")]
    Unknown(String),
}

#[derive(Deserialize)]
struct Record {
    action: String,
    rule: String,
    #[serde(rename = "match")]
    pattern: String,
    #[serde(default)]
    by: String,
    until: Option<u64>,
    #[serde(default)]
    reason: String,
}

impl Action {
    /// Reads a record.
    ///
    /// # Errors
    /// [`ActionError`].
    pub fn parse(payload: &[u8]) -> Result<Self, ActionError> {
        let record: Record = serde_json::from_slice(payload)
            .map_err(|error| ActionError::Form(error.to_string()))?;
        let Record { action, rule, pattern, by, until, reason } = record;
        let pattern =
            Pattern::new(&pattern).map_err(|error| ActionError::Pattern(error.to_string()))?;
        match action.as_str() {
            "acknowledge" => Ok(Self::Acknowledge { rule, pattern, by }),
            "mute" => {
                let until_ms = until.ok_or(ActionError::Until)?;
                Ok(Self::Mute(Mute { rule, pattern, by, until_ms, reason }))
            }
            "unmute" => Ok(Self::Unmute { rule, pattern }),
            other => Err(ActionError::Unknown(other.to_owned())),
        }
    }
}

/// Topics and patterns as the texts that they are.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_actions_are_read_and_others_refused() {
        let read = |text: &str| Action::parse(text.as_bytes());
        let mute =
            read(r#"{"ts":1,"action":"mute","rule":"+","match":"metrics/#","by":"a","until":5}"#);
        let Ok(Action::Mute(mute)) = mute else { panic!("{mute:?}") };
        assert!(mute.covers("cpu-high", "metrics/docker/web/cpu") && !mute.covers("x", "a/b"));
        let named = Mute { rule: "cpu-high".to_owned(), ..mute };
        assert!(named.covers("cpu-high", "metrics/a") && !named.covers("other", "metrics/a"));
        assert!(matches!(
            read(r#"{"action":"acknowledge","rule":"r","match":"a/b","by":"me"}"#),
            Ok(Action::Acknowledge { .. })
        ));
        assert!(matches!(
            read(r#"{"action":"unmute","rule":"r","match":"a/b"}"#),
            Ok(Action::Unmute { .. })
        ));
        assert_eq!(read(r#"{"action":"mute","rule":"r","match":"a"}"#), Err(ActionError::Until));
        assert!(matches!(
            read(r#"{"action":"mute","rule":"r","match":"a#"}"#),
            Err(ActionError::Pattern(_))
        ));
        assert!(matches!(
            read(r#"{"action":"kill","rule":"r","match":"a"}"#),
            Err(ActionError::Unknown(_))
        ));
        assert!(matches!(read("12"), Err(ActionError::Form(_))));
    }
}
