//! A broken promise, said so that somebody can begin to look for the cause.

use std::fmt;

/// The promises; each has a file of its own in `invariants`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is said in a sentence by `as_str`")]
pub enum Rule {
    Durable,
    Unchanging,
    Dense,
    Leaders,
    Ends,
    KeyOrder,
    Once,
    Honest,
    Positions,
    Delivered,
    Settles,
    Replicas,
}

impl Rule {
    /// The promise.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "what is acknowledged is durable",
            Self::Unchanging => "what is committed never changes",
            Self::Dense => "offsets are dense",
            Self::Leaders => "a term has one leader",
            Self::Ends => "a high watermark never goes back and is never wrong",
            Self::KeyOrder => "records of one connection with one key keep their order",
            Self::Once => "a record is stored once",
            Self::Honest => "what is refused is not stored, and what is stored was sent",
            Self::Positions => "an acknowledged offset never goes back",
            Self::Delivered => "every record is delivered at least once",
            Self::Settles => "after healing everything moves",
            Self::Replicas => "replicas apply the same",
        }
    }
}

/// A promise that a history breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.as_str(), self.text)
    }
}

/// Most violations that are kept as text: the first ones tell the story, the rest are counted.
const VIOLATIONS_MAX: usize = 100;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub violations: Vec<Violation>,
    pub left_out: u64,
}

impl Found {
    pub fn add(&mut self, rule: Rule, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { rule, text });
        } else {
            self.left_out += 1;
        }
    }
}
