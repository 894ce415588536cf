//! The rules file: a TOML text in, rules or every mistake in it out.
//!
//! The text is read into TOML values that know where they stand, and each rule is then taken
//! apart key by key: what is left over is an unknown key. A mistake never ends the reading; it
//! is noted and a harmless value stands in, so that one run shows them all. Only where the text
//! is no TOML at all are its rules not looked at: half a table would make for false complaints.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use aklight_common::Pattern;
use aklight_common::settings::nearest;
use aklight_common::wire::command::check_client_id;
use toml::de::{DeTable, DeValue};

use super::mistake::{Gathered, instead};
use super::{Channel, Condition, Mistakes, Rule, Severity, Threshold, VALUE};

/// The keys of a rule.
pub const KEYS: [&str; 10] =
    ["name", "match", "field", "fire", "clear", "for", "repeat", "absent", "severity", "notify"];

/// What people write who know other alarms, and what it is called here.
const OTHER_NAMES: [(&str, &str); 10] = [
    ("threshold", "fire"),
    ("when", "fire"),
    ("above", "fire"),
    ("topic", "match"),
    ("pattern", "match"),
    ("duration", "for"),
    ("resolve", "clear"),
    ("silent", "absent"),
    ("channels", "notify"),
    ("level", "severity"),
];

/// Longest name of a rule in bytes: `alerts/{rule}/{topic}` should still fit into a topic.
const NAME_BYTES_MAX: usize = 64;

/// Most rules of a file: each sample is judged by all that match, and people who need more have
/// generated them and should use wildcards.
const RULES_MAX: usize = 1_000;

/// Reads rules from `text`; `file` is only named in the mistakes.
///
/// # Errors
/// Every mistake, with its place and what to write instead.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Rule>, Mistakes> {
    let mut mistakes = Gathered::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        mistakes.add(at, format!("this is no TOML: {}", error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return mistakes.finish(file, Vec::new());
    }
    let mut rules = Vec::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "rule" {
            let text = format!(
                "unknown key '{}': a rules file holds [[rule]] tables only; put it below a [[rule]] line",
                key.get_ref()
            );
            mistakes.add(key.span().start, text);
            continue;
        }
        let Some(tables) = value.get_ref().as_array() else {
            mistakes.add(key.span().start, "write [[rule]], with two brackets, before each rule");
            continue;
        };
        for entry in tables.iter() {
            match entry.get_ref().as_table() {
                Some(table) => {
                    let mut reader =
                        RuleReader { table, at: entry.span(), mistakes: &mut mistakes };
                    let rule = reader.read();
                    rules.extend(rule.map(|rule| (rule, entry.span().start)));
                }
                None => mistakes.add(entry.span().start, "a rule is a table: write [[rule]]"),
            }
        }
    }
    check_together(&rules, &mut mistakes);
    mistakes.finish(file, rules.into_iter().map(|(rule, _)| rule).collect())
}

/// What no rule can be wrong in alone.
fn check_together(rules: &[(Rule, usize)], mistakes: &mut Gathered<'_>) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (n, (rule, at)) in rules.iter().enumerate() {
        if n == RULES_MAX {
            mistakes.add(*at, format!("more than {RULES_MAX} rules: join some by wildcards"));
        }
        if let Some(earlier) = first.get(rule.name.as_str()) {
            let line = mistakes.line(*earlier);
            mistakes.add(
                *at,
                format!("a second rule is called '{}', as the one in line {line}: give it a name of its own", rule.name),
            );
        }
        first.entry(&rule.name).or_insert(*at);
    }
}

/// Takes one `[[rule]]` table apart.
struct RuleReader<'a, 'i, 'm> {
    table: &'a DeTable<'i>,
    at: Range<usize>,
    mistakes: &'a mut Gathered<'m>,
}

impl<'a, 'i> RuleReader<'a, 'i, '_> {
    fn read(&mut self) -> Option<Rule> {
        for key in self.table.keys() {
            if !KEYS.contains(&key.get_ref().as_ref()) {
                let text =
                    format!("unknown key '{0}': {1}", key.get_ref(), right_key(key.get_ref()));
                self.mistakes.add(key.span().start, text);
            }
        }
        let name = self.required("name", "name = \"cpu-high\"", check_name);
        let pattern = self.required("match", "match = \"metrics/docker/+/cpu\"", |text| {
            Pattern::new(text).map_err(|error| format!("'{text}' is no pattern: {error}"))
        });
        let condition = self.condition();
        let repeat_ms = self.optional("repeat", milliseconds);
        let severity =
            self.optional("severity", |text| by_name(&Severity::BY_NAME, "severity", text));
        let notify = self.notify();
        Some(Rule {
            name: name?,
            pattern: pattern?,
            condition: condition?,
            repeat_ms,
            severity: severity.unwrap_or(Severity::Warning),
            notify,
        })
    }

    fn condition(&mut self) -> Option<Condition> {
        let has = |key: &str| self.table.contains_key(key);
        match (has("fire"), has("absent")) {
            (true, true) => {
                self.mistake_at("absent", "'fire' and 'absent' in one rule: make two rules of it");
                None
            }
            (false, false) => {
                let text = "a rule needs a condition: fire = \"> 80\" or absent = \"30s\"";
                self.mistakes.add(self.at.start, text);
                None
            }
            (false, true) => {
                for key in ["clear", "for", "field"] {
                    if self.table.contains_key(key) {
                        let text = format!(
                            "'{key}' belongs to 'fire'; a rule with 'absent' has no use for it: leave it out"
                        );
                        self.mistake_at(key, text);
                    }
                }
                let after_ms = self.optional("absent", milliseconds)?;
                Some(Condition::Absent { after_ms })
            }
            (true, false) => self.threshold(),
        }
    }

    fn threshold(&mut self) -> Option<Condition> {
        let fire = self.optional("fire", threshold);
        let clear = self.optional("clear", threshold);
        let for_ms = self.optional("for", milliseconds).unwrap_or(0);
        let field = self.optional("field", |text| {
            if text.is_empty() {
                Err("a field has a name: field = \"fs_used_percent\"".to_owned())
            } else {
                Ok(text.to_owned())
            }
        });
        let fire = fire?;
        let clear = clear.unwrap_or_else(|| fire.opposite());
        if let Some(value) = fire.meets(&clear) {
            let text = format!(
                "at {value} the alert would fire (\"{fire}\") and clear (\"{clear}\") at once: clear on the other side, as in \"{}\"",
                fire.opposite()
            );
            self.mistake_at("clear", text);
        }
        Some(Condition::Threshold {
            field: field.unwrap_or_else(|| VALUE.to_owned()),
            fire,
            clear,
            for_ms,
        })
    }

    fn notify(&mut self) -> Option<Vec<Channel>> {
        let value = self.table.get("notify")?;
        let Some(entries) = value.get_ref().as_array() else {
            let text = format!(
                "'notify' is a list of texts, not {}: write notify = [\"console\", \"whatsapp\"]",
                article(value.get_ref())
            );
            self.mistakes.add(value.span().start, text);
            return None;
        };
        let mut channels = Vec::new();
        for entry in entries.iter() {
            let channel = match entry.get_ref().as_str() {
                Some(name) => by_name(&Channel::BY_NAME, "channel", name),
                None => {
                    Err(format!("a channel is a text in quotes, not {}", article(entry.get_ref())))
                }
            };
            match channel {
                Ok(channel) => channels.push(channel),
                Err(text) => self.mistakes.add(entry.span().start, text),
            }
        }
        Some(channels)
    }

    fn required<T>(
        &mut self,
        key: &str,
        example: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.mistakes.add(self.at.start, format!("a rule needs '{key}': write {example}"));
        }
        self.optional(key, read)
    }

    fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let read = match value.get_ref().as_str() {
            Some(text) => read(text),
            None => Err(format!("'{key}' is a text in quotes, not {}", article(value.get_ref()))),
        };
        read.map_err(|text| self.mistakes.add(value.span().start, text)).ok()
    }

    fn mistake_at(&mut self, key: &str, text: impl Into<String>) {
        let at = self.table.get(key).map_or(self.at.start, |value| value.span().start);
        self.mistakes.add(at, text);
    }
}

fn right_key(given: &str) -> String {
    let others: Vec<_> = OTHER_NAMES.iter().map(|(other, _)| *other).collect();
    let known = |name: &str| OTHER_NAMES.iter().find(|(other, _)| *other == name);
    // A misspelt name of another alarm's is as good as the name itself.
    let other = nearest(given, &others).filter(|_| nearest(given, &KEYS).is_none());
    match other.and_then(known) {
        Some((_, name)) => format!("it is called '{name}' here"),
        None => instead(given, &KEYS),
    }
}

fn check_name(name: &str) -> Result<String, String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a rule's name has at most {NAME_BYTES_MAX} bytes"));
    }
    check_client_id(name.as_bytes()).map(str::to_owned).map_err(|_| {
        format!("'{name}' is no name for a rule: it is one level of the topic alerts/{{rule}}/…, so without '/', '+', '#' and '|'")
    })
}

fn threshold(text: &str) -> Result<Threshold, String> {
    Threshold::from_str(text).map_err(|error| error.to_string())
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is no duration: write a number and a unit, as in \"10s\", \"5m\" or \"1h 30m\""
        )
    };
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let ms = u64::try_from(duration.as_millis()).map_err(|_| wrong())?;
    if ms == 0 {
        return Err(format!("'{text}' is no time at all: leave the key out instead"));
    }
    Ok(ms)
}

fn by_name<T: Copy>(known: &[(&str, T)], what: &str, given: &str) -> Result<T, String> {
    known.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        format!("unknown {what} '{given}': {}", instead(given, &names))
    })
}

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
