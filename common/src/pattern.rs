//! Patterns over topics: the wildcards of MQTT 3.1.1, section 4.7.
//!
//! `+` stands for one whole level; `#`, in the last place only, for the level before it and
//! everything below. A topic whose first level begins with `$` is matched by no pattern that
//! begins with a wildcard (section 4.7.2).

use std::fmt;
use std::sync::Arc;

use crate::topic::{TopicError, check_levels, has_c1};

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Wrong in a way that a topic would be wrong too.
    #[error("a pattern is a topic with wildcards: {0}")]
    Levels(#[from] TopicError),
    /// `a+/b` or `a#`.
    #[error("'+' and '#' stand for whole levels: write metrics/+/cpu or metrics/#")]
    NotAlone,
    /// `a/#/b`.
    #[error("'#' is the last level of a pattern")]
    HashNotLast,
}

/// A checked pattern. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// What makes the text no pattern.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        check_pattern(text.as_bytes()).map(|text| Self(Arc::from(text)))
    }

    /// The pattern that matches every topic (but those beginning with `$`).
    #[must_use]
    pub fn all() -> Self {
        Self(Arc::from("#"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from the root on.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The one topic that this matches, when it holds no wildcard.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        (!self.0.contains(['+', '#'])).then_some(&self.0)
    }

    /// Whether a topic's name matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut topic = topic.split('/');
        let mut pattern = self.0.split('/');
        loop {
            match (pattern.next(), topic.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(p), Some(t)) if p == t => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", &*self.0)
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

/// Checks bytes that came from outside and gives them back as a pattern's text, not copied.
///
/// # Errors
/// What makes the bytes no pattern.
pub fn check_pattern(text: &[u8]) -> Result<&str, PatternError> {
    let checked = check_levels(text)?;
    if text.iter().any(|b| *b < 0x20 || matches!(*b, 0x7f | b'|')) || has_c1(text) {
        return Err(TopicError::Forbidden.into());
    }
    let mut after_hash = false;
    for level in checked.split('/') {
        if after_hash {
            return Err(PatternError::HashNotLast);
        }
        if level.len() > 1 && level.contains(['+', '#']) {
            return Err(PatternError::NotAlone);
        }
        after_hash = level == "#";
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, topic: &str, expect: bool) {
        let parsed = Pattern::new(pattern).expect(pattern);
        assert_eq!(parsed.matches(topic), expect, "{pattern} over {topic}");
    }

    #[test]
    fn plus_is_one_level() {
        check("a/+/c", "a/b/c", true);
        check("a/+/c", "a/b/d/c", false);
        check("a/+", "a", false);
        check("+", "a", true);
        check("+/+", "a", false);
    }

    #[test]
    fn hash_is_its_parent_and_all_below() {
        check("metrics/#", "metrics", true);
        check("metrics/#", "metrics/a/b", true);
        check("metrics/#", "metricsx", false);
        check("#", "a/b", true);
        check("a/+/#", "a/b", true);
        check("a/+/#", "a", false);
    }

    #[test]
    fn dollar_topics_need_a_literal_first_level() {
        check("#", "$SYS/x", false);
        check("+/x", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("a/#", "a/$b", true);
    }

    #[test]
    fn wildcards_stand_alone_and_hash_stands_last() {
        assert_eq!(Pattern::new("a/b+"), Err(PatternError::NotAlone));
        assert_eq!(Pattern::new("a#"), Err(PatternError::NotAlone));
        assert_eq!(Pattern::new("##"), Err(PatternError::NotAlone));
        assert_eq!(Pattern::new("a/#/b"), Err(PatternError::HashNotLast));
        assert_eq!(Pattern::new("#/#"), Err(PatternError::HashNotLast));
        assert!(matches!(Pattern::new("a//b"), Err(PatternError::Levels(_))));
        assert!(matches!(Pattern::new(""), Err(PatternError::Levels(_))));
    }
}
