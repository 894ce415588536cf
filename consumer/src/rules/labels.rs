//! Rules in containers' labels: `aklight.alert.memory = "> 90 for 2m clear < 80"`.
//!
//! A label names an aspect of its container (a metric, `state`, `health`, `restarts`, `absent`),
//! and its text is a small sentence:
//!
//! ```text
//! aklight.alert.memory              "> 90 for 2m clear < 80 repeat 30m"
//! aklight.alert.cpu.limit_percent   "> 90 for 1m"        (metric.field)
//! aklight.alert.state               "failed"             (or a state: "exited for 1m")
//! aklight.alert.health              "unhealthy for 1m"
//! aklight.alert.restarts            "> 3 in 10m"
//! aklight.alert.absent              "30s"
//! aklight.alert.severity            "critical"           (of all alerts of this container)
//! aklight.alert.notify              "webhook,email"      (of all alerts of this container)
//! ```
//!
//! `off` in place of a sentence silences the general rules on that aspect. A label's rule takes
//! the place of every general rule on the same aspect of this container. It is called
//! `label-` and what stands behind `aklight.alert.`, with `-` for `.`. `severity` and `notify` count
//! for the general rules that stay in force too: a container may be worth waking somebody, and have
//! no limits of its own.
//!
//! Pure: labels in; rules, aspects and mistakes out. A wrong label is a mistake that says what to
//! write, and leaves the general rules in force.

use std::collections::{BTreeMap, BTreeSet};

use aklight_common::{Pattern, Topic};

use super::condition::{Condition, Measured, Test, VALUE};
use super::container::{About, Container};
use super::mistake::instead;
use super::sentence::Sentence;
use super::threshold::{Comparison, Threshold};
use super::values::by_name;
use super::{Channel, Rule, Severity};

/// What the labels begin with that are rules.
pub const PREFIX: &str = "aklight.alert.";

/// How long a label is over before it is over, for those where containers flap: as long as in
/// the general rules.
const FLAPPING_CLEAR_MS: u64 = 60_000;

/// The window of `restarts` that names none. As in the general rules.
const RESTARTS_WINDOW_MS: u64 = 600_000;

/// The aspects that are no metrics of their own.
const STATE: &str = "state";
const HEALTH: &str = "health";
const RESTARTS: &str = "restarts";
const ABSENT: &str = "absent";

/// The metrics that a container has, each with its fields beside `value`. Source: the topics'
/// reference.
const METRICS: [(&str, &[&str]); 7] = [
    ("cpu", &["cpus", "limit_cpus", "limit_percent", "usage_us"]),
    ("memory", &["bytes", "limit_bytes", "rss_bytes"]),
    ("disk", &["read_bytes_s", "written_bytes_s", "read_bytes", "written_bytes"]),
    (
        "network",
        &[
            "rx_bytes_s",
            "tx_bytes_s",
            "rx_bytes",
            "tx_bytes",
            "rx_errors",
            "tx_errors",
            "rx_dropped",
            "tx_dropped",
        ],
    ),
    ("pids", &["limit"]),
    ("throttling", &["throttled_us"]),
    ("pressure", &["cpu", "memory", "io"]),
];

/// What a label on `state` may say: that it failed, or a word of the engine's.
const STATES: [&str; 7] =
    ["failed", "created", "running", "paused", "restarting", "exited", "dead"];

/// What a label on `health` may say.
const HEALTHS: [&str; 4] = ["healthy", "unhealthy", "starting", "none"];

/// What a container's labels come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labelled {
    /// Its own rules.
    pub rules: Vec<Rule>,
    /// The aspects of it that general rules do not judge.
    pub own: BTreeSet<String>,
    /// How bad every alert of it is, in place of what rules say.
    pub severity: Option<Severity>,
    /// Who is told of every alert of it, in place of what rules say.
    pub notify: Option<Vec<Channel>>,
    /// A sentence for each wrong label.
    pub mistakes: Vec<String>,
}

impl Labelled {
    /// Whether general rules judge this container otherwise than others.
    #[must_use]
    pub fn changes_rules(&self) -> bool {
        self.severity.is_some() || self.notify.is_some()
    }

    /// A rule as it judges this container.
    #[must_use]
    pub fn applied_to(&self, rule: &Rule) -> Rule {
        Rule {
            severity: self.severity.unwrap_or(rule.severity),
            notify: self.notify.clone().or_else(|| rule.notify.clone()),
            ..rule.clone()
        }
    }
}

/// Which aspect of a container a rule is about, where `topic` is one of its topics.
#[must_use]
pub fn aspect<'a>(rule: &'a Rule, topic: &'a Topic) -> Option<&'a str> {
    let Some(About::Sample(_, metric)) = About::of(topic) else { return None };
    match &rule.condition {
        Condition::Absent { .. } => Some(ABSENT),
        Condition::Measured(measured) if metric == STATE && measured.field == HEALTH => {
            Some(HEALTH)
        }
        Condition::Measured(_) => Some(metric),
    }
}

/// Reads a container's labels; those that are no rules are passed over.
#[must_use]
pub fn read(container: &Container, labels: &BTreeMap<String, String>) -> Labelled {
    let mut read = Labelled::default();
    let mut mistakes = Vec::new();
    let mut mistaken = |label: &str, mistake: String| {
        mistakes.push(format!("container {container}, label {PREFIX}{label}: {mistake}"));
    };
    let of_all = |name: &str| labels.get(&format!("{PREFIX}{name}")).map(String::as_str);
    read.severity = of_all("severity").and_then(|text| {
        by_name(&Severity::BY_NAME, "severity", text.trim())
            .map_err(|mistake| mistaken("severity", mistake))
            .ok()
    });
    read.notify = of_all("notify")
        .and_then(|text| channels(text).map_err(|mistake| mistaken("notify", mistake)).ok());
    for (label, text) in labels {
        let Some(label) = label.strip_prefix(PREFIX) else { continue };
        if matches!(label, "severity" | "notify") {
            continue;
        }
        let aspect = label.split('.').next().unwrap_or_default();
        match rule(container, label, text) {
            Ok(None) => {
                read.own.insert(aspect.to_owned());
            }
            Ok(Some(rule)) => {
                read.own.insert(aspect.to_owned());
                read.rules.push(read.applied_to(&rule));
            }
            Err(mistake) => mistaken(label, mistake),
        }
    }
    Labelled { mistakes, ..read }
}

/// The fields of an aspect beside its value; `None` where there is no such aspect.
fn fields(aspect: &str) -> Option<&'static [&'static str]> {
    if [STATE, HEALTH, RESTARTS, ABSENT].contains(&aspect) {
        return Some(&[]);
    }
    METRICS.iter().find(|(name, _)| *name == aspect).map(|(_, fields)| *fields)
}

fn channels(text: &str) -> Result<Vec<Channel>, String> {
    text.split(',').map(|name| by_name(&Channel::BY_NAME, "channel", name.trim())).collect()
}

/// The rule of a label; `None` where it only switches the general ones off.
fn rule(container: &Container, label: &str, text: &str) -> Result<Option<Rule>, String> {
    let (aspect, field) = label.split_once('.').unwrap_or((label, VALUE));
    let Some(fields) = fields(aspect) else {
        let known = METRICS.map(|(name, _)| name).join(", ");
        return Err(format!(
            "there is no '{aspect}': write one of {known}, state, health, restarts, absent, severity, notify"
        ));
    };
    if field != VALUE && !fields.contains(&field) {
        let hint = match fields {
            [] => format!("write {PREFIX}{aspect}"),
            fields => instead(field, fields),
        };
        return Err(format!("{aspect} has no field '{field}': {hint}"));
    }
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let wrong = |mistake: String| format!("'{text}': {mistake}");
    let (condition, repeat_ms) = match aspect {
        ABSENT => {
            // A topic that never had samples is not judged: `state` is there from the beginning.
            let sentence = Sentence::read(&format!("for {text}")).map_err(wrong)?;
            (sentence.absent("\"30s\"").map_err(wrong)?, sentence.repeat_ms)
        }
        STATE | HEALTH => {
            let sentence = Sentence::read(text).map_err(wrong)?;
            (worded(aspect, &sentence).map_err(wrong)?, sentence.repeat_ms)
        }
        _ => {
            let sentence = Sentence::read(text).map_err(wrong)?;
            let measured = sentence.measured(field).map_err(wrong)?;
            let window_ms = measured.increase_ms;
            if aspect != RESTARTS && window_ms.is_some() {
                return Err(wrong("'in' belongs to restarts: leave it out".to_owned()));
            }
            let increase_ms = (aspect == RESTARTS).then(|| window_ms.unwrap_or(RESTARTS_WINDOW_MS));
            (Condition::Measured(Measured { increase_ms, ..measured }), sentence.repeat_ms)
        }
    };
    let metric = if matches!(aspect, HEALTH | ABSENT) { STATE } else { aspect };
    let topic = container.topic_of(metric);
    let pattern = Pattern::new(&topic).map_err(|error| format!("{topic}: {error}"))?;
    let severity = match aspect {
        "memory" | STATE => Severity::Critical,
        _ => Severity::Warning,
    };
    let name = format!("label-{}", label.replace('.', "-"));
    let (notify, fallback) = (None, Vec::new());
    Ok(Some(Rule { name, pattern, condition, repeat_ms, severity, notify, fallback }))
}

/// `failed`, or a word of the engine's; each with the durations of a sentence.
fn worded(aspect: &str, sentence: &Sentence) -> Result<Condition, String> {
    let example = if aspect == STATE { "\"failed\"" } else { "\"unhealthy for 1m\"" };
    let Some(word) = &sentence.word else {
        return Err(format!("write a word, as in {example}"));
    };
    let known: &[&str] = if aspect == STATE { &STATES } else { &HEALTHS };
    if !known.contains(&word.as_str()) {
        let hint = match (aspect, word.as_str()) {
            // What people call it; the engine does not.
            (STATE, "stopped") => "did you mean 'exited'?".to_owned(),
            // What some readers of YAML make of a bare `off`.
            (_, "false") => "did you mean \"off\"? Put it in quotes".to_owned(),
            _ => instead(word, known),
        };
        return Err(format!("there is no {aspect} '{word}': {hint}"));
    }
    if sentence.clear.is_some() || sentence.window_ms.is_some() {
        return Err(format!("'clear' and 'in' belong to numbers: write {example}"));
    }
    let number = |comparison, limit| Test::Number(Threshold { comparison, limit });
    let (field, fire) = match (aspect, word.as_str()) {
        (STATE, "failed") => ("failed", number(Comparison::Equal, 1.0)),
        _ => (aspect, Test::Word { same: true, word: word.clone() }),
    };
    let clear = fire.opposite();
    Ok(Condition::Measured(Measured {
        field: field.to_owned(),
        fire,
        clear,
        for_ms: sentence.for_ms,
        clear_for_ms: FLAPPING_CLEAR_MS,
        increase_ms: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(label: &str, text: &str) -> Labelled {
        let container = Container { producer: "p".to_owned(), name: "web".to_owned() };
        read(&container, &BTreeMap::from([(format!("{PREFIX}{label}"), text.to_owned())]))
    }

    fn shown(label: &str, text: &str) -> String {
        let read = read_one(label, text);
        assert_eq!(read.mistakes, [""; 0], "{label}: {text}");
        let Rule { name, pattern, condition, repeat_ms, .. } = &read.rules[0];
        let condition = match condition {
            Condition::Absent { after_ms } => format!("absent {after_ms}"),
            Condition::Measured(m) => format!(
                "{} {} for {} clear {} hold {} in {:?}",
                m.field, m.fire, m.for_ms, m.clear, m.clear_for_ms, m.increase_ms
            ),
        };
        format!("{name} | {pattern} | {condition} | {repeat_ms:?}")
    }

    #[test]
    fn every_form_of_a_label_is_a_rule() {
        let cases = [
            (
                "memory",
                "> 90 for 2m clear < 80",
                "label-memory | metrics/docker/p/web/memory | value > 90 for 120000 clear < 80 hold 0 in None | None",
            ),
            (
                "cpu.limit_percent",
                ">90 repeat 30m",
                "label-cpu-limit_percent | metrics/docker/p/web/cpu | limit_percent > 90 for 0 clear <= 90 hold 0 in None | Some(1800000)",
            ),
            (
                "state",
                "failed",
                "label-state | metrics/docker/p/web/state | failed == 1 for 0 clear != 1 hold 60000 in None | None",
            ),
            (
                "state",
                "exited for 1m",
                "label-state | metrics/docker/p/web/state | state == exited for 60000 clear != exited hold 60000 in None | None",
            ),
            (
                "health",
                "unhealthy for 1m",
                "label-health | metrics/docker/p/web/state | health == unhealthy for 60000 clear != unhealthy hold 60000 in None | None",
            ),
            (
                "restarts",
                "> 3 in 5m",
                "label-restarts | metrics/docker/p/web/restarts | value > 3 for 0 clear <= 3 hold 0 in Some(300000) | None",
            ),
            (
                "restarts",
                "> 3",
                "label-restarts | metrics/docker/p/web/restarts | value > 3 for 0 clear <= 3 hold 0 in Some(600000) | None",
            ),
            ("absent", "30s", "label-absent | metrics/docker/p/web/state | absent 30000 | None"),
        ];
        for (label, text, expect) in cases {
            assert_eq!(shown(label, text), expect);
        }
    }

    #[test]
    fn a_wrong_label_says_what_to_write() {
        let cases = [
            ("memory", "90", "'90': begin with a comparison, as in \"> 90 for 2m clear < 80\""),
            ("memory", "> 90 fro 2m", "'> 90 fro 2m': unknown word 'fro': did you mean 'for'?"),
            (
                "memory",
                "> 90 clear < 95",
                "'> 90 clear < 95': at 92.5 the alert would fire (\"> 90\") and clear (\"< 95\") at once: clear on the other side, as in \"<= 90\"",
            ),
            ("memory", "> 90 for", "'> 90 for': 'for' needs what comes after it: write for 2m"),
            ("cpu", "> 90 in 5m", "'> 90 in 5m': 'in' belongs to restarts: leave it out"),
            (
                "memroy",
                "> 90",
                "there is no 'memroy': write one of cpu, memory, disk, network, pids, throttling, pressure, state, health, restarts, absent, severity, notify",
            ),
            ("severity", "critcal", "unknown severity 'critcal': did you mean 'critical'?"),
            (
                "notify",
                "sms",
                "unknown channel 'sms': write one of console, whatsapp, webhook, email",
            ),
            (
                "health",
                "unhealty",
                "'unhealty': there is no health 'unhealty': did you mean 'unhealthy'?",
            ),
            (
                "health",
                "false",
                "'false': there is no health 'false': did you mean \"off\"? Put it in quotes",
            ),
            ("state", "stopped", "'stopped': there is no state 'stopped': did you mean 'exited'?"),
            (
                "state",
                "failed clear < 1",
                "'failed clear < 1': 'clear' and 'in' belong to numbers: write \"failed\"",
            ),
            (
                "health",
                "unhealthy in 5m",
                "'unhealthy in 5m': 'clear' and 'in' belong to numbers: write \"unhealthy for 1m\"",
            ),
            ("absent", "30s for 1m", "'30s for 1m': 'for' stands there twice: write it once"),
            (
                "cpu.limit_percnt",
                "> 90",
                "cpu has no field 'limit_percnt': did you mean 'limit_percent'?",
            ),
            ("pids.", "off", "pids has no field '': write one of limit"),
            ("state.word", "failed", "state has no field 'word': write aklight.alert.state"),
            ("health", "> 1", "'> 1': write a word, as in \"unhealthy for 1m\""),
            (
                "absent",
                "soon",
                "'soon': 'soon' is no duration: write a number and a unit, as in \"10s\", \"5m\" or \"1h 30m\"",
            ),
        ];
        for (label, text, expect) in cases {
            let read = read_one(label, text);
            assert_eq!(
                read.mistakes,
                [format!("container p/web, label aklight.alert.{label}: {expect}")]
            );
            assert!(read.rules.is_empty() && read.own.is_empty(), "{label}: {text}");
        }
    }

    #[test]
    fn off_takes_the_general_rules_away_and_severity_and_notify_are_for_all() {
        let read = read_one("health", "off");
        assert_eq!((read.rules.len(), read.own.contains("health")), (0, true));
        assert!(read_one("state", " OFF").own.contains("state"));
        let container = Container { producer: "p".to_owned(), name: "web".to_owned() };
        let labels = [("memory", "> 90"), ("severity", "info"), ("notify", "webhook, email")];
        let labels =
            labels.map(|(label, text)| (format!("{PREFIX}{label}"), text.to_owned())).into();
        let read = super::read(&container, &labels);
        assert_eq!(read.rules[0].severity, Severity::Info);
        assert_eq!(read.rules[0].notify, Some(vec![Channel::Webhook, Channel::Email]));
    }
}
