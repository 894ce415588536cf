//! An alert, as the newest record of its topic tells it, and what people can do about it. Pure.

use serde_json::json;

use super::record::{Payload, unescape};

/// For how long `m` mutes.
const MUTE_MS: u64 = 3_600_000;

/// For how long an alert that is over is shown among the recent ones.
const RECENT_MS: u64 = 86_400_000;

/// An alert.
#[derive(Debug, Clone)]
pub struct Alert {
    /// When it came to its state.
    pub ts_ms: u64,
    /// `pending`, `firing` or `ok`.
    pub state: String,
    /// The rule.
    pub rule: String,
    /// The topic of the sample that was judged.
    pub topic: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// What happened, in words.
    pub text: String,
    /// The value with its unit, and the limit.
    pub value: String,
    /// Since when.
    pub since_ms: u64,
    /// Who said that they see to it; empty: nobody.
    pub acknowledged_by: String,
    /// Until when nobody is told of it.
    pub muted_until_ms: u64,
}

impl Alert {
    /// Reads an alert.
    pub fn of(record_topic: &str, payload: &Payload) -> Self {
        let topic = match payload.text("topic") {
            named if named.is_empty() => {
                // alerts/{rule}/{topic}
                record_topic.splitn(3, '/').nth(2).unwrap_or_default().to_owned()
            }
            named => named,
        };
        let limit = payload.text("limit");
        let value = payload.number("value").map(|value| measured(value, &payload.text("unit")));
        let value = match (value.unwrap_or_default(), limit.is_empty()) {
            (value, true) => value,
            (value, false) => format!("{value} / {limit}"),
        };
        Self {
            ts_ms: payload.ts(),
            state: payload.text("state"),
            rule: payload.text("rule"),
            topic,
            severity: payload.text("severity"),
            text: payload.text("text"),
            value,
            since_ms: match payload.count("since") {
                0 => payload.ts(),
                since => since,
            },
            acknowledged_by: payload.text("acknowledged_by"),
            muted_until_ms: payload.count("muted_until"),
        }
    }

    /// Whether it rings.
    pub fn is_firing(&self) -> bool {
        self.state == "firing"
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "firing" | "pending")
    }

    /// For how long nobody will be told of it, if it is muted.
    pub fn muted_ms(&self, now_ms: u64) -> Option<u64> {
        self.muted_until_ms.checked_sub(now_ms).filter(|ms| *ms > 0)
    }

    /// Whether it is worth a line.
    pub fn is_shown(&self, now_ms: u64) -> bool {
        !self.is_over() || now_ms.saturating_sub(self.ts_ms) < RECENT_MS
    }

    /// Where it comes in a list: what fires before what may, and that before what is over.
    pub fn rank(&self) -> u8 {
        match self.state.as_str() {
            "firing" => 0,
            "pending" => 1,
            _ => 2,
        }
    }

    /// Whom it is about: `web/db cpu` for `metrics/docker/web/db/cpu`.
    pub fn about(&self) -> String {
        match self.topic.split('/').collect::<Vec<_>>()[..] {
            ["metrics", "docker", producer, container, metric] => {
                format!("{producer}/{} {metric}", unescape(container))
            }
            ["metrics", "docker", producer, metric] => format!("{producer} {metric}"),
            _ => unescape(&self.topic),
        }
    }

    /// What happened, without the topic: whom it is about stands beside it.
    pub fn happened(&self) -> &str {
        let text = self.text.strip_prefix(&self.topic).unwrap_or(&self.text);
        text.trim_start_matches(':').trim_start()
    }
}

/// A value with its unit, as short as the unit allows.
fn measured(value: f64, unit: &str) -> String {
    match unit {
        "percent" => format!("{}%", super::figures::percent(value)),
        "bytes/s" => format!("{}/s", super::figures::bytes(value)),
        "bytes" => super::figures::bytes(value),
        _ => super::figures::whole(value),
    }
}

/// What somebody does about an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Say that they see to it.
    Acknowledge,
    /// Have nobody told of it for an hour.
    Mute,
    /// Have people told of it again.
    Unmute,
}

impl Deed {
    /// The record for `actions/alerts`. The topic is no pattern with wildcards: it means itself.
    pub fn record(self, alert: &Alert, by: &str, now_ms: u64) -> String {
        let action = match self {
            Self::Acknowledge => "acknowledge",
            Self::Mute => "mute",
            Self::Unmute => "unmute",
        };
        let mut record = json!({
            "ts": now_ms, "action": action, "rule": alert.rule, "match": alert.topic, "by": by,
        });
        if self == Self::Mute {
            record["until"] = json!(now_ms + MUTE_MS);
        }
        record.to_string()
    }

    /// What is said once it is stored.
    pub fn done(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledged",
            Self::Mute => "muted for an hour:",
            Self::Unmute => "no longer muted:",
        }
    }
}
