//! An alert's change, with all that a person or a program must know of it.

use aklight_common::{Topic, TopicError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::notify::message::what;
use crate::rules::{Channel, Condition, Kind, Measured, Severity, VALUE, Verdict};

/// How an alert's number is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sense {
    /// As it is: it passed a limit.
    #[default]
    Value,
    /// The limit says all: `health == unhealthy`.
    Equality,
    /// It is how much a counter grew.
    Growth,
}

/// What happened to which topic under which rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What happened.
    pub kind: Kind,
    /// The rule's name.
    pub rule: String,
    /// The topic of the sample.
    pub topic: String,
    /// How bad it is.
    pub severity: Severity,
    /// The number that decided.
    pub value: f64,
    /// What it counts; may be empty.
    pub unit: String,
    /// The rule's limit, as people write it.
    pub limit: String,
    /// Whether the rule looks for silence.
    pub absence: bool,
    /// When the trouble began, Unix milliseconds.
    pub since_ms: Option<u64>,
    /// When this happened, Unix milliseconds.
    pub at_ms: u64,
    /// Whether the sample was more than two minutes old.
    pub late: bool,
    /// How the number is to be read.
    #[serde(default)]
    pub sense: Sense,
    /// Why, where the number does not say it: the container was removed, say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What else is known of the container: how it ended, its last minute.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub context: String,
    /// All of it in words, where an earlier consumer said it so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

impl Alert {
    /// The alert of a verdict; `unit` is the sample's.
    #[must_use]
    pub fn new(verdict: &Verdict, unit: &str) -> Self {
        let Verdict { rule, topic, change } = verdict;
        let (absence, by_value, sense) = match &rule.condition {
            Condition::Absent { .. } => (true, change.kind == Kind::Resolved, Sense::Value),
            Condition::Measured(Measured { field, fire, increase_ms, .. }) => {
                let sense = match increase_ms {
                    Some(_) => Sense::Growth,
                    None if fire.is_equality() => Sense::Equality,
                    None => Sense::Value,
                };
                (false, field == VALUE && increase_ms.is_none(), sense)
            }
        };
        let unit = if by_value {
            unit
        } else if absence {
            "s"
        } else {
            // The unit belongs to `value`; of another field only its name tells, as in `…_percent`.
            ""
        };
        Self {
            kind: change.kind,
            rule: rule.name.clone(),
            topic: topic.to_string(),
            severity: rule.severity,
            value: change.value,
            unit: unit.to_owned(),
            limit: rule.limit(),
            absence,
            since_ms: change.since_ms,
            at_ms: change.at_ms,
            late: change.late,
            sense,
            reason: change.reason.unwrap_or_default().to_owned(),
            context: String::new(),
            said: String::new(),
        }
    }

    /// Where this change is recorded: `alerts/{rule}/{topic of the sample}`.
    ///
    /// # Errors
    /// When that is too long or too deep for a topic.
    pub fn record_topic(&self) -> Result<Topic, TopicError> {
        Topic::new(&format!("alerts/{}/{}", self.rule, self.topic))
    }

    /// How the alert stands after this, in the words of records.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self.kind {
            Kind::Pending => "pending",
            Kind::Fired | Kind::Reminder => "firing",
            Kind::Lapsed | Kind::Resolved => "ok",
        }
    }

    /// The record of this change: a flat JSON object, as every payload under AKLight's topics.
    /// `told` is whether the telephone last heard that the alert fires, `messages` are the
    /// references of those that wait to tell of it.
    #[must_use]
    pub fn record_payload(
        &self,
        consumer: &str,
        people: &People,
        told: bool,
        messages: &[String],
    ) -> String {
        let mut record = json!({
            "ts": self.at_ms,
            "state": self.state(),
            "rule": self.rule,
            "topic": self.topic,
            "severity": self.severity,
            "value": self.value,
            "unit": self.unit,
            "limit": self.limit,
            "since": self.since_ms,
            "late": self.late,
            "told": told,
            "consumer": consumer,
            "text": what(self),
        });
        if let Some(by) = &people.acknowledged_by {
            record["acknowledged_by"] = json!(by);
        }
        if let Some(until_ms) = people.muted_until_ms {
            record["muted_until"] = json!(until_ms);
        }
        if !people.told_by.is_empty() {
            record["told_by"] = json!(people.told_by);
        }
        if !messages.is_empty() {
            record["messages"] = json!(messages);
        }
        record.to_string()
    }

    /// One that is made up: to try a template with.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Kind::Fired,
            rule: "container-memory".to_owned(),
            topic: "metrics/docker/producer1/web/memory".to_owned(),
            severity: Severity::Critical,
            value: 93.1,
            unit: "percent".to_owned(),
            limit: "> 90".to_owned(),
            absence: false,
            since_ms: Some(0),
            at_ms: 0,
            late: false,
            sense: Sense::Value,
            reason: String::new(),
            context: String::new(),
            said: String::new(),
        }
    }
}

/// What people did about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct People {
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// Until when it is muted, Unix milliseconds.
    pub muted_until_ms: Option<u64>,
    /// By which channels people were told instead of by the rule's own, and not of the end yet.
    pub told_by: Vec<Channel>,
}
