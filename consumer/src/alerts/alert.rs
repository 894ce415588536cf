//! An alert's change, with all that a person or a program must know of it.

use aklight_common::{Topic, TopicError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::rules::{Kind, Rule, Severity, Verdict};

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
}

impl Alert {
    /// The alert of a verdict under `rule`; `unit` is the sample's.
    #[must_use]
    pub fn new(rule: &Rule, verdict: &Verdict, unit: &str) -> Self {
        let change = &verdict.change;
        let absence = matches!(rule.condition, crate::rules::Condition::Absent { .. });
        let by_value = match &rule.condition {
            crate::rules::Condition::Threshold { field, .. } => field == crate::rules::VALUE,
            crate::rules::Condition::Absent { .. } => change.kind == Kind::Resolved,
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
            topic: verdict.topic.to_string(),
            severity: rule.severity,
            value: change.value,
            unit: unit.to_owned(),
            limit: rule.limit(),
            absence,
            since_ms: change.since_ms,
            at_ms: change.at_ms,
            late: change.late,
        }
    }

    /// Where this change is recorded: `alerts/{rule}/{topic of the sample}`.
    ///
    /// # Errors
    /// When that is too long or too deep for a topic.
    pub fn record_topic(&self) -> Result<Topic, TopicError> {
        Topic::new(&format!("alerts/{}/{}", self.rule, self.topic))
    }

    /// The record of this change: a flat JSON object, as every payload under AKLight's topics.
    #[must_use]
    pub fn record_payload(&self) -> Vec<u8> {
        let state = match self.kind {
            Kind::Pending => "pending",
            Kind::Fired | Kind::Reminder => "firing",
            Kind::Lapsed | Kind::Resolved => "ok",
        };
        json!({
            "ts": self.at_ms,
            "state": state,
            "rule": self.rule,
            "topic": self.topic,
            "severity": self.severity,
            "value": self.value,
            "unit": self.unit,
            "limit": self.limit,
            "since": self.since_ms,
            "late": self.late,
        })
        .to_string()
        .into_bytes()
    }
}
