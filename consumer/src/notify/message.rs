//! The words of an alert, for each channel. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use crate::alerts::{Alert, Notice, Sense};
use crate::rules::{Kind, Severity, duration};

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
    let Alert { topic, limit, reason, said, .. } = alert;
    if !said.is_empty() {
        return said.clone();
    }
    let value = number(alert.value, &alert.unit);
    let resolved = alert.kind == Kind::Resolved;
    let lasted =
        alert.since_ms.map(|since| duration(whole_seconds(alert.at_ms.saturating_sub(since))));
    let late = if alert.late { " (late sample)" } else { "" };
    let text = match (alert.absence, alert.sense) {
        _ if !reason.is_empty() => format!("{topic}: {reason}"),
        (true, _) if resolved => format!("{topic} sends again"),
        (true, _) => format!("{topic} has been silent for {value}, limit {limit}"),
        (false, Sense::Value) => format!("{topic} is {value}, limit {limit}"),
        (false, Sense::Equality) if resolved => format!("{topic}: no longer {limit}"),
        (false, Sense::Equality) => format!("{topic}: {limit}"),
        (false, Sense::Growth) => format!("{topic} grew by {value}, limit {limit}"),
    };
    let lasted = match (alert.kind, lasted) {
        (Kind::Resolved, Some(lasted)) => format!(", after {lasted}"),
        (Kind::Reminder, Some(lasted)) if !alert.absence => format!(", for {lasted} now"),
        (Kind::Fired, Some(lasted)) if !alert.absence && lasted != "0s" => {
            format!(", for {lasted}")
        }
        _ => String::new(),
    };
    let context =
        if alert.context.is_empty() { String::new() } else { format!("; {}", alert.context) };
    format!("{text}{lasted}{late}{context}")
}

/// A moment as people and programs read it.
#[must_use]
pub fn moment(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms - ms.rem_euclid(1000))
        .map_or_else(|_| format!("{ms} ms"), |moment| moment.to_string())
}

/// Most characters of a WhatsApp message: Twilio takes 1,600.
const BODY_CHARS_MAX: usize = 1_500;

/// The text of a WhatsApp message: as many of its alerts as fit, and how many more there are.
#[must_use]
pub fn body(notice: &Notice, reference: &str) -> String {
    let state_mark = if state(notice) == "resolved" { RESOLVED } else { FIRED };
    if notice.more.is_empty() {
        let Alert { rule, severity, .. } = &notice.alert;
        let severity = severity.as_str();
        return format!("{state_mark}\n{rule} ({severity})\n{}\n{reference}", what(&notice.alert));
    }
    let total = notice.alerts().count();
    let mut text = format!("{state_mark}\n{total} alerts");
    let mut shown = 0;
    for alert in notice.alerts() {
        let line = line(alert);
        if text.chars().count() + line.chars().count() > BODY_CHARS_MAX {
            break;
        }
        text = format!("{text}\n{line}");
        shown += 1;
    }
    if shown < total {
        text = format!("{text}\n… and {} more", total - shown);
    }
    format!("{text}\n{reference}")
}

/// The variables of a WhatsApp template: 1 firing or resolved, 2 rule, 3 severity, 4 what
/// happened, 5 the reference.
#[must_use]
pub fn variables(notice: &Notice, reference: &str) -> String {
    let more = match notice.more.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    json!({
        "1": state(notice).to_uppercase(),
        "2": notice.alert.rule,
        "3": worst(notice).as_str(),
        "4": format!("{}{more}", what(&notice.alert)),
        "5": reference,
    })
    .to_string()
}

/// A message in one line, for subjects: `FIRING: cpu-high (critical) metrics/docker/web/cpu`.
#[must_use]
pub fn title(notice: &Notice) -> String {
    let state = state(notice).to_uppercase();
    let severity = worst(notice).as_str();
    if notice.more.is_empty() {
        let Alert { rule, topic, .. } = &notice.alert;
        return format!("{state}: {rule} ({severity}) {topic}");
    }
    let rules: BTreeSet<_> = notice.alerts().map(|alert| alert.rule.as_str()).collect();
    let rules: Vec<_> = rules.into_iter().collect();
    format!("{state}: {} alerts ({severity}): {}", notice.alerts().count(), rules.join(", "))
}

/// An alert in one line: `FIRING [critical] cpu-high: metrics/docker/web/cpu is 93.1 %, …`.
#[must_use]
pub fn line(alert: &Alert) -> String {
    let state = if alert.kind == Kind::Resolved { "RESOLVED" } else { "FIRING" };
    format!("{state} [{}] {}: {}", alert.severity.as_str(), alert.rule, what(alert))
}

/// `resolved` where all of a message's alerts are over.
#[must_use]
pub fn state(notice: &Notice) -> &'static str {
    let over = notice.alerts().all(|alert| alert.kind == Kind::Resolved);
    if over { "resolved" } else { "firing" }
}

/// The worst severity of a message.
#[must_use]
pub fn worst(notice: &Notice) -> Severity {
    notice.alerts().map(|alert| alert.severity).max().unwrap_or(Severity::Info)
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
    use crate::alerts::Destination;

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
            sense: Sense::Value,
            said: String::new(),
            reason: String::new(),
            context: String::new(),
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
        let notice = Notice::new(7, Destination::Webhook, alert(Kind::Fired));
        let reference = notice.reference("c1");
        assert_eq!(reference, "[c1-7 2026-11-21T02:52:12Z]");
        assert_eq!(
            body(&Notice::new(7, Destination::Console, alert(Kind::Fired)), &reference),
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
        let unhealthy = Alert {
            sense: Sense::Equality,
            limit: "health == unhealthy".to_owned(),
            context: "memory ▁▇ 98.0 %".to_owned(),
            ..alert(Kind::Fired)
        };
        assert_eq!(
            what(&unhealthy),
            "metrics/docker/web/cpu: health == unhealthy, for 5s; memory ▁▇ 98.0 %"
        );
        let removed =
            Alert { reason: "the container was removed".to_owned(), ..alert(Kind::Resolved) };
        assert_eq!(what(&removed), "metrics/docker/web/cpu: the container was removed, after 5s");
    }

    #[test]
    fn alerts_of_one_message_share_a_title_and_fit_into_it() {
        let mut notice = Notice::new(7, Destination::Console, alert(Kind::Fired));
        assert_eq!(title(&notice), "FIRING: cpu-high (critical) metrics/docker/web/cpu");
        notice.more = vec![Alert { rule: "other".to_owned(), ..alert(Kind::Resolved) }; 40];
        assert_eq!(title(&notice), "FIRING: 41 alerts (critical): cpu-high, other");
        let text = body(&notice, "[ref]");
        assert!(
            text.starts_with("*** THRESHOLD EXCEEDED ***\n41 alerts\nFIRING [critical] cpu-high: ")
        );
        assert!(text.ends_with(" more\n[ref]") && text.chars().count() < 1600, "{text}");
        let shown = text.matches("RESOLVED [critical] other").count();
        assert!(text.contains(&format!("… and {} more", 40 - shown)), "{text}");
    }
}
