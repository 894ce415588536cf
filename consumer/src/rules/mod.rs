//! Rules: what is worth an alert. Pure, all of it: no file, no clock, no socket.
//!
//! A rule names topics by a pattern and says when one of them is in trouble: a field of its
//! samples meets a [`condition`], or the topic falls silent. [`file`](mod@file) turns a TOML text
//! into rules and reports every mistake at once, [`labels`] does so with a container's labels,
//! `defaults` are there without either; [`machine`] is what happens to one topic
//! under one rule; [`book`] keeps the state of every such pair and feeds the machines; [`quiet`]
//! says when people sleep.
//!
//! Invariants: names of rules are unique and are one level of a topic; nothing fires and clears
//! a rule at once.
//!
//! Left out: who is told (module `notify`), and how state outlives the process (`alerts`).

pub mod book;
pub mod condition;
pub mod container;
mod defaults;
pub mod file;
pub mod labels;
pub mod machine;
pub mod mistake;
pub mod quiet;
mod sentence;
pub mod threshold;
mod values;

use aklight_common::Pattern;
use serde::{Deserialize, Serialize};

pub use book::{Book, Verdict};
pub use condition::{Condition, Measured, Test, VALUE};
pub use container::{About, Container};
pub use defaults::defaults;
pub use machine::{Audience, Change, Kind};
pub use mistake::{Mistake, Mistakes};
pub use quiet::Quiet;
pub use threshold::{Comparison, Threshold};

/// What a rules file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// The rules.
    pub list: Vec<Rule>,
    /// When alerts wait, where they do.
    pub quiet: Option<Quiet>,
}

/// How bad it is, the least bad first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The consumer's own output.
    Console,
    /// WhatsApp, by Twilio.
    WhatsApp,
    /// An HTTP POST.
    Webhook,
    /// E-mail, by SMTP.
    Email,
}

impl Channel {
    /// Every channel, by name.
    pub const BY_NAME: [(&'static str, Self); 4] = [
        ("console", Self::Console),
        ("whatsapp", Self::WhatsApp),
        ("webhook", Self::Webhook),
        ("email", Self::Email),
    ];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::WhatsApp => "whatsapp",
            Self::Webhook => "webhook",
            Self::Email => "email",
        }
    }
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
    /// Who is told; `None` is the default: the console, and all channels that are set up.
    pub notify: Option<Vec<Channel>>,
    /// Who is told where a channel failed for good: the first of these that is set up and was not
    /// told yet; where there is none, the console.
    pub fallback: Vec<Channel>,
}

impl Rule {
    /// Whether its alerts go by `channel`.
    #[must_use]
    pub fn notifies(&self, channel: Channel) -> bool {
        self.notify.as_ref().is_none_or(|channels| channels.contains(&channel))
    }

    /// The limit as people write it: `> 80`, `fs_used_percent > 90`, `> 2 in 10m`, or `30s` of
    /// silence.
    #[must_use]
    pub fn limit(&self) -> String {
        let measured = match &self.condition {
            Condition::Measured(measured) => measured,
            Condition::Absent { after_ms } => return duration(*after_ms),
        };
        let field = match measured.field.as_str() {
            VALUE => String::new(),
            field => format!("{field} "),
        };
        let within = measured.increase_ms.map(|ms| format!(" in {}", duration(ms)));
        format!("{field}{}{}", measured.fire, within.unwrap_or_default())
    }
}

/// A duration as people write it.
#[must_use]
pub fn duration(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}
