//! What a webhook is sent: a template (Jinja, by minijinja), or one of those that are ready.
//!
//! A template sees `title` (one line), `text` (a line an alert), `state` (`firing` or `resolved`),
//! `severity` (the worst), `consumer`, `reference`, and `alerts`: a list, each with `state`,
//! `rule`, `topic`, `severity`, `value`, `unit`, `limit`, `text`, `since`, `ts`. The filter
//! `tojson` writes a value as JSON. A body that begins with `{` or `[` goes as JSON, any other as
//! plain text.
//!
//! A template is tried with a made-up alert when it is read, so that its mistakes are known at the
//! start and not at the first alert.

use std::path::PathBuf;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Value, json};

use crate::alerts::{Alert, Destination, Notice};
use crate::notify::carrier::Letter;
use crate::notify::message::{line, state, title, worst};
use crate::rules::Severity;

const JSON: &str = r#"{"title": {{ title|tojson }}, "text": {{ text|tojson }}, "state": {{ state|tojson }}, "severity": {{ severity|tojson }}, "consumer": {{ consumer|tojson }}, "reference": {{ reference|tojson }}, "alerts": {{ alerts|tojson }}}"#;
const SLACK: &str = r#"{"text": {{ ("*" ~ title ~ "*\n" ~ text)|tojson }}}"#;
/// Discord takes 2,000 characters.
const DISCORD: &str = r#"{"content": {{ ("**" ~ title ~ "**\n" ~ text)[:1900]|tojson }}}"#;
const NTFY: &str = "{{ text }}";
/// A longer message is an attachment to ntfy, and refused where it takes none.
/// Source: <https://docs.ntfy.sh/publish/>, limitations: 4,096 bytes.
const NTFY_BYTES_MAX: usize = 4_000;

/// The templates that are ready, by name.
pub const READY: [(&str, &str); 4] =
    [("json", JSON), ("slack", SLACK), ("discord", DISCORD), ("ntfy", NTFY)];

/// A template that can be filled in.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    ntfy: bool,
}

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// The body.
    pub text: String,
    /// Headers beside it.
    pub headers: Vec<(&'static str, String)>,
}

/// Why a template is none.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("--webhook-template is '{}', which is none of json, slack, discord, ntfy, and no file that can be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The template has a mistake.
    #[error("the webhook's template has a mistake: {0:#}")]
    Mistake(#[source] minijinja::Error),
}

impl Template {
    /// One that is ready, or one in a file; `json` where none is named.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn named(name: Option<&str>) -> Result<Self, TemplateError> {
        let name = name.unwrap_or("json");
        let ready = READY.iter().find(|(ready, _)| *ready == name);
        let text = match ready {
            Some((_, text)) => (*text).to_owned(),
            None => crate::load::load_template(name.as_ref())
                .map_err(|source| TemplateError::File { path: name.into(), source })?,
        };
        let template = Self { text, ntfy: name == "ntfy" };
        let notice = Notice::new(1, Destination::Webhook, Alert::example());
        let letter = Letter { notice: &notice, consumer: "consumer1", reference: "[consumer1-1]" };
        template.render(letter)?;
        Ok(template)
    }

    /// Fills it in.
    ///
    /// # Errors
    /// [`TemplateError::Mistake`].
    pub fn render(&self, letter: Letter<'_>) -> Result<Body, TemplateError> {
        let Letter { notice, consumer, reference } = letter;
        let bytes_max = if self.ntfy { NTFY_BYTES_MAX } else { usize::MAX };
        let alerts: Vec<Value> = notice.alerts().map(alert_json).collect();
        let values = minijinja::value::Serde(json!({
            "title": title(notice),
            "text": lines(notice, bytes_max),
            "state": state(notice),
            "severity": worst(notice).as_str(),
            "consumer": consumer,
            "reference": reference.trim_matches(['[', ']']),
            "alerts": alerts,
        }));
        let mut environment = Environment::new();
        // A misspelt name is a mistake, not an empty place in every alert to come.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let text = environment.render_str(&self.text, values).map_err(TemplateError::Mistake)?;
        let headers = if self.ntfy { ntfy_headers(notice) } else { Vec::new() };
        Ok(Body { text, headers })
    }
}

/// A line an alert; where that is too long, as many as fit and how many more there are.
fn lines(notice: &Notice, bytes_max: usize) -> String {
    let mut text = String::new();
    for (shown, alert) in notice.alerts().enumerate() {
        let line = line(alert);
        if shown > 0 && text.len() + line.len() > bytes_max {
            return format!("{text}\n… and {} more", notice.alerts().count() - shown);
        }
        text = if shown == 0 { line } else { format!("{text}\n{line}") };
    }
    text
}

/// Source: <https://docs.ntfy.sh/publish/>. A header is ASCII: other letters become `?`.
fn ntfy_headers(notice: &Notice) -> Vec<(&'static str, String)> {
    let ascii = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let resolved = state(notice) == "resolved";
    let (priority, tag) = match worst(notice) {
        _ if resolved => ("default", "white_check_mark"),
        Severity::Critical => ("urgent", "rotating_light"),
        Severity::Warning => ("high", "warning"),
        Severity::Info => ("low", "information_source"),
    };
    vec![
        ("Title", title(notice).chars().map(ascii).collect()),
        ("Priority", priority.to_owned()),
        ("Tags", tag.to_owned()),
    ]
}

fn alert_json(alert: &Alert) -> Value {
    json!({
        "state": alert.state(),
        "rule": alert.rule,
        "topic": alert.topic,
        "severity": alert.severity,
        "value": alert.value,
        "unit": alert.unit,
        "limit": alert.limit,
        "text": crate::notify::message::what(alert),
        "since": alert.since_ms,
        "ts": alert.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::alert;
    use crate::rules::Kind;

    fn rendered(name: &str) -> Body {
        let mut notice = Notice::new(7, Destination::Webhook, alert(Kind::Fired));
        notice.more.push(Alert { rule: "quote \" and é".to_owned(), ..alert(Kind::Resolved) });
        let letter = Letter { notice: &notice, consumer: "c1", reference: "[c1-7 now]" };
        Template::named(Some(name)).expect(name).render(letter).expect(name)
    }

    #[test]
    fn what_is_ready_is_right_json_whatever_the_names_hold() {
        for name in ["json", "slack", "discord"] {
            let body = rendered(name);
            let json: Value = serde_json::from_str(&body.text).expect(&body.text);
            assert!(json.to_string().contains("quote"), "{name}: {json}");
        }
        let json: Value = serde_json::from_str(&rendered("json").text).expect("JSON");
        assert_eq!(json["reference"], "c1-7 now");
        assert_eq!((&json["state"], &json["severity"]), (&json!("firing"), &json!("critical")));
        assert_eq!(
            (&json["alerts"][0]["rule"], &json["alerts"][1]["state"]),
            (&json!("cpu-high"), &json!("ok"))
        );
    }

    #[test]
    fn ntfy_gets_text_and_headers_that_are_headers() {
        let body = rendered("ntfy");
        assert_eq!(body.text.lines().count(), 2, "{}", body.text);
        assert!(body.headers.contains(&("Priority", "urgent".to_owned())));
        assert!(body.headers.iter().all(|(_, value)| value.is_ascii()));
    }

    #[test]
    fn a_mistake_in_a_template_is_told_when_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.jinja");
        std::fs::write(&path, "{{ tilte }}").expect("written");
        let error = Template::named(path.to_str()).expect_err("misspelt");
        assert!(error.to_string().contains("mistake"), "{error}");
        std::fs::write(&path, "{{ title }}: {{ alerts|length }}").expect("written");
        let template = Template::named(path.to_str()).expect("right");
        let notice = Notice::new(1, Destination::Webhook, alert(Kind::Fired));
        let letter = Letter { notice: &notice, consumer: "c1", reference: "[c1-1]" };
        assert!(template.render(letter).expect("filled in").text.ends_with(": 1"));
        assert!(Template::named(Some("slakc")).is_err());
    }

    #[test]
    fn ntfy_is_sent_what_it_takes_as_a_message() {
        let mut notice = Notice::new(7, Destination::Webhook, alert(Kind::Fired));
        notice.more = vec![alert(Kind::Fired); 49];
        let letter = Letter { notice: &notice, consumer: "c1", reference: "[c1-7]" };
        let text =
            Template::named(Some("ntfy")).expect("ready").render(letter).expect("right").text;
        let shown = text.matches("FIRING").count();
        assert!(text.len() <= 4096 && shown > 30, "{} bytes", text.len());
        assert!(text.ends_with(&format!("\n… and {} more", 50 - shown)), "{text}");
        let all = Template::named(Some("json")).expect("ready").render(letter).expect("right").text;
        assert!(!all.contains(" more"), "{all}");
    }
}
