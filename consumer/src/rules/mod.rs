//! Rules: what is worth an alert. Pure, all of it: no file, no clock, no socket.
//!
//! A rule names topics by a pattern and says when one of them is in trouble: its value passes a
//! [`Threshold`], or the topic falls silent. [`file`](mod@file) turns a TOML text into rules and reports
//! every mistake at once; [`machine`] is what happens to one topic under one rule; [`book`]
//! keeps the state of every such pair and feeds the machines.
//!
//! Invariants: names of rules are unique and are one level of a topic; no value fires and clears
//! a rule at once.
//!
//! Left out: who is told (module `notify`), and how state outlives the process (`alerts`).

pub mod book;
pub mod file;
pub mod machine;
pub mod mistake;
pub mod threshold;

use aklight_common::Pattern;
use serde::{Deserialize, Serialize};

pub use book::{Book, Verdict};
pub use machine::{Audience, Change, Kind};
pub use mistake::{Mistake, Mistakes};
pub use threshold::{Comparison, Threshold};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Worth waking somebody.
    Critical,
}

impl Severity {
    /// Every severity, by name.
    pub const BY_NAME: [(&'static str, Self); 3] =
        [("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A way to tell people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The consumer's own output.
    Console,
    /// WhatsApp, by Twilio.
    WhatsApp,
}

impl Channel {
    /// Every channel, by name.
    pub const BY_NAME: [(&'static str, Self); 2] =
        [("console", Self::Console), ("whatsapp", Self::WhatsApp)];
}

/// What is wrong with a topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A number of the sample is beyond a limit.
    Threshold {
        /// Which number of the payload.
        field: String,
        /// Where it fires.
        fire: Threshold,
        /// Where it is over; never meets `fire`.
        clear: Threshold,
        /// How long `fire` must hold, in milliseconds.
        for_ms: u64,
    },
    /// Nothing came.
    Absent {
        /// For so long, in milliseconds.
        after_ms: u64,
    },
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name: one level of a topic.
    pub name: String,
    /// The topics it judges.
    pub pattern: Pattern,
    /// What it looks for.
    pub condition: Condition,
    /// How often to remind while it lasts, in milliseconds.
    pub repeat_ms: Option<u64>,
    /// How bad it is.
    pub severity: Severity,
    /// Who is told; `None` is the default: the console, and WhatsApp where it is configured.
    pub notify: Option<Vec<Channel>>,
}

impl Rule {
    /// Whether its alerts go by `channel`.
    #[must_use]
    pub fn notifies(&self, channel: Channel) -> bool {
        self.notify.as_ref().is_none_or(|channels| channels.contains(&channel))
    }

    /// The limit as people write it: `> 80`, `fs_used_percent > 90`, or `30s` of silence.
    #[must_use]
    pub fn limit(&self) -> String {
        match &self.condition {
            Condition::Threshold { field, fire, .. } if field == VALUE => fire.to_string(),
            Condition::Threshold { field, fire, .. } => format!("{field} {fire}"),
            Condition::Absent { after_ms } => duration(*after_ms),
        }
    }
}

/// The field that a rule compares where it names none. Source: the payload's definition.
pub const VALUE: &str = "value";

/// A duration as people write it.
#[must_use]
pub fn duration(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// The rules where no file gives any: each producer's own CPU and memory over 80, and its disk
/// over 90 percent full, for five seconds; over when ten below.
#[must_use]
pub fn defaults() -> Vec<Rule> {
    let rule = |name: &str, metric: &str, field: &str, fire: f64, clear: f64| Rule {
        name: name.to_owned(),
        pattern: Pattern::new(&format!("metrics/docker/+/{metric}"))
            .unwrap_or_else(|error| unreachable!("a pattern written by hand: {error}")),
        condition: Condition::Threshold {
            field: field.to_owned(),
            fire: Threshold { comparison: Comparison::Greater, limit: fire },
            clear: Threshold { comparison: Comparison::Less, limit: clear },
            for_ms: 5_000,
        },
        repeat_ms: None,
        severity: Severity::Critical,
        notify: None,
    };
    vec![
        rule("cpu-high", "cpu", VALUE, 80.0, 70.0),
        rule("memory-high", "memory", VALUE, 80.0, 70.0),
        rule("disk-full", "disk", "fs_used_percent", 90.0, 80.0),
    ]
}
