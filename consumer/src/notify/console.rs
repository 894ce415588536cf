//! The consumer's own output: a line a sample, and lines that stand out for alerts.
//!
//! Text for people, with colour on a terminal (`NO_COLOR` counts); or a JSON object a line for
//! programs. What comes from outside is printed without its control characters, so that no
//! payload can steer a terminal.

use std::io::{self, Write};

use aklight_common::client::Message;
use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::message::{mark, moment, number, what};
use crate::alerts::Alert;
use crate::rules::{About, Kind, Severity};
use crate::sample::Sample;

/// How the output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Lines for people.
    // Another name, so that one AKLIGHT_OUTPUT serves all commands.
    #[value(alias = "table")]
    Text,
    /// A JSON object a line.
    Json,
}

/// Most characters of a payload that is no sample which are shown.
const SHOWN_CHARS_MAX: usize = 80;

const DIM: Style = Style::new().dimmed();
const ALARM: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// Writes lines. The stream decides whether colours pass: see `anstream`.
pub struct Console {
    out: Box<dyn Write + Send>,
    output: Output,
    quiet: bool,
}

impl Console {
    /// Onto `out`; `quiet` leaves out the samples.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, output: Output, quiet: bool) -> Self {
        Self { out, output, quiet }
    }

    /// The line of a record; `sample` is what it says, where it is one. What containers are is
    /// said once a minute of each and is not printed.
    ///
    /// # Errors
    /// When the stream takes no more.
    pub fn record(&mut self, message: &Message, sample: Option<&Sample>) -> io::Result<()> {
        let Message { topic, offset, partition, payload, .. } = message;
        let about = About::of(topic);
        if self.quiet || matches!(about, Some(About::Info(_))) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(payload);
        if self.output == Output::Json {
            let line = json!({
                "type": if sample.is_some() { "sample" } else { "record" },
                "topic": topic.as_str(),
                "partition": partition.0,
                "offset": offset.0,
                "ts": sample.and_then(|s| s.at_ms),
                "value": sample.map(|s| s.value),
                "unit": sample.map(|s| s.unit.as_str()),
                "payload": if sample.is_some() { None } else { Some(said) },
            });
            return writeln!(self.out, "{line}");
        }
        let said = match sample {
            Some(sample) if matches!(about, Some(About::Event(_))) => harmless(&happened(sample)),
            Some(sample) => number(sample.value, &harmless(&sample.unit)),
            None => harmless(&said),
        };
        writeln!(self.out, "{topic} {said} {DIM}(p{partition}@{offset}){DIM:#}")
    }

    /// The line of an alert. Nothing for changes that people are not told of.
    ///
    /// # Errors
    /// When the stream takes no more.
    pub fn alert(&mut self, alert: &Alert) -> io::Result<()> {
        let Some(mark) = mark(alert.kind) else { return Ok(()) };
        if self.output == Output::Json {
            let mut line = json!({ "type": "alert", "text": format!("{mark} {}", what(alert)) });
            if let (Some(line), Ok(serde_json::Value::Object(alert))) =
                (line.as_object_mut(), serde_json::to_value(alert))
            {
                line.extend(alert);
            }
            writeln!(self.out, "{line}")?;
        } else {
            let style = match (alert.kind, alert.severity) {
                (Kind::Resolved, _) => GOOD,
                (_, Severity::Critical) => ALARM,
                _ => WARNING,
            };
            let severity = alert.severity.as_str();
            let (rule, what, at) = (&alert.rule, what(alert), moment(alert.at_ms));
            writeln!(
                self.out,
                "{style}{mark}{style:#} [{severity}] {rule}: {what} {DIM}at {at}{DIM:#}"
            )?;
        }
        self.out.flush()
    }

    /// A line that explains.
    ///
    /// # Errors
    /// When the stream takes no more.
    pub fn explain(&mut self, text: &str) -> io::Result<()> {
        match self.output {
            Output::Text => writeln!(self.out, "{WARNING}note{WARNING:#} {text}")?,
            Output::Json => writeln!(self.out, "{}", json!({ "type": "note", "text": text }))?,
        }
        self.out.flush()
    }
}

/// What an event says: `die, exit code 137, killed for memory`.
fn happened(event: &Sample) -> String {
    let mut said = event.word("event").unwrap_or("event").to_owned();
    if let Some(health) = event.word("health") {
        said = format!("{said} {health}");
    }
    if let Some(code) = event.number("exit_code") {
        said = format!("{said}, exit code {code}");
    }
    if event.flag("oom_killed") == Some(true) {
        said.push_str(", killed for memory");
    }
    said
}

/// A text from outside, cut and without control characters.
fn harmless(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aklight_common::{Offset, PartitionId, Topic};

    use super::*;
    use crate::notify::message::tests::alert;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(output: Output, print: impl FnOnce(&mut Console)) -> String {
        let kept = Kept::default();
        // As anstream does where there is no terminal.
        let plain = anstream::StripStream::new(Box::new(kept.clone()) as Box<dyn Write + Send>);
        print(&mut Console::new(Box::new(plain), output, false));
        String::from_utf8(kept.0.lock().expect("a lock").clone()).expect("text")
    }

    fn message(payload: &'static [u8]) -> Message {
        Message {
            topic: Topic::new("metrics/docker/producer1/cpu").expect("a topic"),
            offset: Offset(1234),
            partition: PartitionId(0),
            key: payload[..0].into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn a_sample_is_one_short_line() {
        let message = message(br#"{"ts":1,"value":12.34,"unit":"percent"}"#);
        let sample = Sample::parse(&message.payload).expect("a sample");
        let line = printed(Output::Text, |c| c.record(&message, Some(&sample)).expect("printed"));
        assert_eq!(line, "metrics/docker/producer1/cpu 12.3 % (p0@1234)\n");
        let line = printed(Output::Json, |c| c.record(&message, Some(&sample)).expect("printed"));
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((json["offset"].as_u64(), json["value"].as_f64()), (Some(1234), Some(12.34)));
    }

    #[test]
    fn an_event_is_a_short_line_and_what_a_container_is_none() {
        let print = |topic: &str, payload: &'static [u8]| {
            let message =
                Message { topic: Topic::new(topic).expect("a topic"), ..message(payload) };
            let sample = Sample::parse(payload).expect("a sample");
            printed(Output::Text, |c| c.record(&message, Some(&sample)).expect("printed"))
        };
        let die = br#"{"ts":1,"value":1,"unit":"event","event":"die","exit_code":137,"oom_killed":1,"last_cpu":[1,2]}"#;
        assert_eq!(
            print("events/docker/p/web", die),
            "events/docker/p/web die, exit code 137, killed for memory (p0@1234)\n"
        );
        let health = br#"{"ts":1,"value":1,"event":"health","health":"unhealthy"}"#;
        assert_eq!(
            print("events/docker/p/web", health),
            "events/docker/p/web health unhealthy (p0@1234)\n"
        );
        assert_eq!(print("info/docker/p/web", br#"{"ts":1,"value":1}"#), "");
    }

    #[test]
    fn no_payload_steers_the_terminal() {
        let message = message(b"\x1b[2Jgone\r\n\xff");
        let line = printed(Output::Text, |c| c.record(&message, None).expect("printed"));
        assert_eq!(
            line,
            "metrics/docker/producer1/cpu \u{fffd}[2Jgone\u{fffd}\u{fffd}\u{fffd} (p0@1234)\n"
        );
    }

    #[test]
    fn an_alert_names_rule_topic_value_and_limit() {
        let line = printed(Output::Text, |c| c.alert(&alert(Kind::Fired)).expect("printed"));
        assert_eq!(
            line,
            "*** THRESHOLD EXCEEDED *** [critical] cpu-high: metrics/docker/web/cpu is 93.1 %, \
             limit > 80, for 5s at 2026-11-21T02:52:12Z\n"
        );
        let line = printed(Output::Text, |c| c.alert(&alert(Kind::Resolved)).expect("printed"));
        assert!(line.starts_with("--- RESOLVED --- [critical] cpu-high: "), "{line}");
        assert_eq!(printed(Output::Text, |c| c.alert(&alert(Kind::Pending)).expect("ok")), "");
        let line = printed(Output::Json, |c| c.alert(&alert(Kind::Fired)).expect("printed"));
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (json["type"].as_str(), json["rule"].as_str()),
            (Some("alert"), Some("cpu-high"))
        );
    }
}
