//! The rules file: a TOML text in, rules and quiet hours or every mistake in it out.
//!
//! The text is read into TOML values that know where they stand, and each rule is then taken
//! apart key by key: what is left over is an unknown key. A mistake never ends the reading; it
//! is noted and a harmless value stands in, so that one run shows them all. Only where the text
//! is no TOML at all are its rules not looked at: half a table would make for false complaints.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use aklight_common::Pattern;
use aklight_common::settings::nearest;
use aklight_common::wire::command::check_client_id;
use toml::de::{DeTable, DeValue};

use super::condition::{Condition, Measured, VALUE};
use super::mistake::{Gathered, instead};
use super::quiet::{self, Quiet};
use super::values::{at_once, by_name, milliseconds, test};
use super::{Channel, Mistakes, Rule, Rules, Severity};

/// The keys of a rule.
pub const KEYS: [&str; 13] = [
    "name",
    "match",
    "field",
    "fire",
    "clear",
    "for",
    "clear_for",
    "increase",
    "repeat",
    "absent",
    "severity",
    "notify",
    "fallback",
];

/// The keys of `[quiet]`.
pub const QUIET_KEYS: [&str; 4] = ["from", "to", "zone", "except"];

/// What people write who know other alarms, and what it is called here.
const OTHER_NAMES: [(&str, &str); 11] = [
    ("keep_firing_for", "clear_for"),
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
pub fn parse(file: &Path, text: &str) -> Result<Rules, Mistakes> {
    let mut mistakes = Gathered::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        mistakes.add(at, format!("this is no TOML: {}", error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return mistakes.finish(file, Rules::default());
    }
    let mut rules = Vec::new();
    let mut quiet = None;
    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("rule", DeValue::Array(tables)) => {
                for entry in tables.iter() {
                    match entry.get_ref().as_table() {
                        Some(table) => {
                            let rule = Reader::new(table, entry.span(), &mut mistakes).rule();
                            rules.extend(rule.map(|rule| (rule, entry.span().start)));
                        }
                        None => {
                            mistakes.add(entry.span().start, "a rule is a table: write [[rule]]");
                        }
                    }
                }
            }
            ("quiet", DeValue::Table(table)) => {
                quiet = Reader::new(table, key.span(), &mut mistakes).quiet();
            }
            ("rule", _) => {
                mistakes
                    .add(key.span().start, "write [[rule]], with two brackets, before each rule");
            }
            ("quiet", _) => {
                mistakes.add(key.span().start, "write [quiet], and its keys below it");
            }
            (other, _) => {
                let text = format!(
                    "unknown key '{other}': a rules file holds [[rule]] tables and [quiet] only; put it below a [[rule]] line"
                );
                mistakes.add(key.span().start, text);
            }
        }
    }
    check_together(&rules, &mut mistakes);
    let list = rules.into_iter().map(|(rule, _)| rule).collect();
    mistakes.finish(file, Rules { list, quiet })
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

/// Takes one table apart.
struct Reader<'a, 'i, 'm> {
    table: &'a DeTable<'i>,
    at: Range<usize>,
    mistakes: &'a mut Gathered<'m>,
}

impl<'a, 'i, 'm> Reader<'a, 'i, 'm> {
    fn new(table: &'a DeTable<'i>, at: Range<usize>, mistakes: &'a mut Gathered<'m>) -> Self {
        Self { table, at, mistakes }
    }

    fn rule(&mut self) -> Option<Rule> {
        self.check_keys(&KEYS, right_key);
        let name = self.required("a rule", "name", "name = \"cpu-high\"", check_name);
        let pattern =
            self.required("a rule", "match", "match = \"metrics/docker/+/cpu\"", |text| {
                Pattern::new(text).map_err(|error| format!("'{text}' is no pattern: {error}"))
            });
        let condition = self.condition();
        let repeat_ms = self.optional("repeat", milliseconds);
        let severity =
            self.optional("severity", |text| by_name(&Severity::BY_NAME, "severity", text));
        let channels = "[\"console\", \"whatsapp\"]";
        let notify = self.names("notify", channels, "channel", &Channel::BY_NAME);
        let fallback = self.names("fallback", "[\"email\"]", "channel", &Channel::BY_NAME);
        Some(Rule {
            name: name?,
            pattern: pattern?,
            condition: condition?,
            repeat_ms,
            severity: severity.unwrap_or(Severity::Warning),
            notify,
            fallback: fallback.unwrap_or_default(),
        })
    }

    fn quiet(&mut self) -> Option<Quiet> {
        self.check_keys(&QUIET_KEYS, |given| instead(given, &QUIET_KEYS));
        let from = self.required("[quiet]", "from", "from = \"22:00\"", quiet::time);
        let to = self.required("[quiet]", "to", "to = \"07:00\"", quiet::time);
        let zone = self.required("[quiet]", "zone", "zone = \"UTC\"", quiet::zone);
        let except = self.names("except", "[\"critical\"]", "severity", &Severity::BY_NAME);
        let except = except.unwrap_or_default();
        Some(Quiet { from: from?, to: to?, zone: zone?, except })
    }

    fn check_keys(&mut self, known: &[&str], right: impl Fn(&str) -> String) {
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let text = format!("unknown key '{0}': {1}", key.get_ref(), right(key.get_ref()));
                self.mistakes.add(key.span().start, text);
            }
        }
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
                for key in ["clear", "for", "clear_for", "increase", "field"] {
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
            (true, false) => self.measured().map(Condition::Measured),
        }
    }

    fn measured(&mut self) -> Option<Measured> {
        let fire = self.optional("fire", test);
        let clear = self.optional("clear", test);
        let for_ms = self.optional("for", milliseconds).unwrap_or(0);
        let clear_for_ms = self.optional("clear_for", milliseconds).unwrap_or(0);
        let increase_ms = self.optional("increase", milliseconds);
        let field = self.optional("field", |text| {
            if text.is_empty() {
                Err("a field has a name: field = \"fs_used_percent\"".to_owned())
            } else {
                Ok(text.to_owned())
            }
        });
        let fire = fire?;
        if increase_ms.is_some() && !matches!(fire, super::Test::Number(_)) {
            self.mistake_at("increase", "only a number grows: write fire = \"> 2\" with it");
        }
        let clear = clear.unwrap_or_else(|| fire.opposite());
        if let Some(text) = at_once(&fire, &clear) {
            self.mistake_at("clear", text);
        }
        let field = field.unwrap_or_else(|| VALUE.to_owned());
        Some(Measured { field, fire, clear, for_ms, clear_for_ms, increase_ms })
    }

    /// A list of names, as `notify` is one.
    fn names<T: Copy>(
        &mut self,
        key: &str,
        example: &str,
        what: &str,
        known: &[(&str, T)],
    ) -> Option<Vec<T>> {
        let value = self.table.get(key)?;
        let Some(entries) = value.get_ref().as_array() else {
            let text = format!(
                "'{key}' is a list of texts, not {}: write {key} = {example}",
                article(value.get_ref())
            );
            self.mistakes.add(value.span().start, text);
            return None;
        };
        let mut names = Vec::new();
        for entry in entries.iter() {
            let name = match entry.get_ref().as_str() {
                Some(name) => by_name(known, what, name),
                None => {
                    Err(format!("a {what} is a text in quotes, not {}", article(entry.get_ref())))
                }
            };
            match name {
                Ok(name) => names.push(name),
                Err(text) => self.mistakes.add(entry.span().start, text),
            }
        }
        Some(names)
    }

    fn required<T>(
        &mut self,
        what: &str,
        key: &str,
        example: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.mistakes.add(self.at.start, format!("{what} needs '{key}': write {example}"));
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

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
