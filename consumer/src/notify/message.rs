//! The words of an alert, for each channel. Pure.

use jiff::Timestamp;
use serde_json::json;

use crate::alerts::Alert;
use crate::rules::{Kind, duration};

/// What a firing alert's line holds. Source: monitoring.md.
pub const FIRED: &str = "*** THRESHOLD EXCEEDED ***";
/// What the line of its end holds. Source: monitoring.md.
pub const RESOLVED: &str = "--- RESOLVED ---";

/// The mark that an alert's line begins with; `None` where people are not told.
#[must_use]
pub const fn mark(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Fired | Kind::Reminder => Some(FIRED),
        Kind::Resolved => Some(RESOLVED),
        Kind::Pending | Kind::Lapsed => None,
    }
}

/// What happened, without mark and rule: `metrics/docker/web/cpu is 93.1 %, limit > 80, for 5s`.
#[must_use]
pub fn what(alert: &Alert) -> String {
    let Alert { topic, limit, .. } = alert;
    let value = number(alert.value, &alert.unit);
    let lasted =
        alert.since_ms.map(|since| duration(whole_seconds(alert.at_ms.saturating_sub(since))));
    let late = if alert.late { " (late sample)" } else { "" };
    let text = match (alert.kind, alert.absence) {
        (Kind::Resolved, true) => format!("{topic} sends again"),
        (_, true) => format!("{topic} has been silent for {value}, limit {limit}"),
        (_, false) => format!("{topic} is {value}, limit {limit}"),
    };
    let lasted = match (alert.kind, lasted) {
        (Kind::Resolved, Some(lasted)) => format!(", after {lasted}"),
        (Kind::Reminder, Some(lasted)) if !alert.absence => format!(", for {lasted} now"),
        (Kind::Fired, Some(lasted)) if !alert.absence && lasted != "0s" => {
            format!(", for {lasted}")
        }
        _ => String::new(),
    };
    format!("{text}{lasted}{late}")
}

/// A moment as people and programs read it.
#[must_use]
pub fn moment(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms - ms.rem_euclid(1000))
        .map_or_else(|_| format!("{ms} ms"), |moment| moment.to_string())
}

/// What tells one message from every other: by it a message is found at Twilio again.
#[must_use]
pub fn reference(consumer: &str, notice: u64, alert: &Alert) -> String {
    format!("[{consumer}-{notice} {}]", moment(alert.at_ms))
}

/// The text of a WhatsApp message. With the longest topic and rule it stays far below the 1,600
/// characters that Twilio takes.
#[must_use]
pub fn body(alert: &Alert, reference: &str) -> String {
    let mark = mark(alert.kind).unwrap_or_default();
    let severity = alert.severity.as_str();
    format!("{mark}\n{} ({severity})\n{}\n{reference}", alert.rule, what(alert))
}

/// The variables of a WhatsApp template: 1 firing or resolved, 2 rule, 3 severity, 4 what
/// happened, 5 the reference.
#[must_use]
pub fn variables(alert: &Alert, reference: &str) -> String {
    let state = if alert.kind == Kind::Resolved { "RESOLVED" } else { "FIRING" };
    json!({
        "1": state,
        "2": alert.rule,
        "3": alert.severity.as_str(),
        "4": what(alert),
        "5": reference,
    })
    .to_string()
}

/// A number with its unit, short: `93.1 %`, `1.5 MB/s`.
#[must_use]
pub fn number(value: f64, unit: &str) -> String {
    match unit {
        "" => plain(value),
        "%" | "percent" => format!("{value:.1} %"),
        "bytes" => bytes(value),
        "bytes/s" => format!("{}/s", bytes(value)),
        unit => format!("{} {unit}", plain(value)),
    }
}

fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(value: f64) -> String {
    const STEP: f64 = 1000.0;
    let mut value = value;
    for unit in ["B", "kB", "MB", "GB"] {
        if value.abs() < STEP {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= STEP;
    }
    format!("{value:.1} TB")
}

const fn whole_seconds(ms: u64) -> u64 {
    ms - ms % 1000
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rules::Severity;

    pub(crate) fn alert(kind: Kind) -> Alert {
        Alert {
            kind,
            rule: "cpu-high".to_owned(),
            topic: "metrics/docker/web/cpu".to_owned(),
            severity: Severity::Critical,
            value: 93.14,
            unit: "percent".to_owned(),
            limit: "> 80".to_owned(),
            absence: false,
            since_ms: Some(1_795_229_527_000),
            at_ms: 1_795_229_532_900,
            late: false,
        }
    }

    #[test]
    fn a_number_is_short() {
        let cases = [
            (93.14, "percent", "93.1 %"),
            (12.0, "", "12"),
            (0.126, "", "0.13"),
            (3.0, "processes", "3 processes"),
            (999.0, "bytes/s", "999 B/s"),
            (1_500_000.0, "bytes/s", "1.5 MB/s"),
            (2.5e15, "bytes", "2500.0 TB"),
        ];
        for (value, unit, expect) in cases {
            assert_eq!(number(value, unit), expect);
        }
    }

    #[test]
    fn a_message_says_what_where_how_much_and_for_how_long() {
        let reference = reference("c1", 7, &alert(Kind::Fired));
        assert_eq!(reference, "[c1-7 2026-11-21T02:52:12Z]");
        assert_eq!(
            body(&alert(Kind::Fired), &reference),
            "*** THRESHOLD EXCEEDED ***\ncpu-high (critical)\n\
             metrics/docker/web/cpu is 93.1 %, limit > 80, for 5s\n[c1-7 2026-11-21T02:52:12Z]"
        );
        assert_eq!(
            what(&Alert { value: 12.0, ..alert(Kind::Resolved) }),
            "metrics/docker/web/cpu is 12.0 %, limit > 80, after 5s"
        );
        let silent = Alert {
            absence: true,
            value: 31.0,
            unit: "s".to_owned(),
            limit: "30s".to_owned(),
            ..alert(Kind::Fired)
        };
        assert_eq!(what(&silent), "metrics/docker/web/cpu has been silent for 31 s, limit 30s");
    }
}
