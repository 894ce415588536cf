//! What a rule asks of a sample: a number beyond a limit, a word that is (or is not) there, a
//! counter that grew too fast, or silence.
//!
//! Numbers are compared by a [`Threshold`]. Words are the texts and booleans of a payload
//! (`health`, `oom_killed`): only `==` and `!=` make sense of them. Growth is a number too: how
//! much a counter grew within a window, kept by [`Growth`].
//!
//! Invariant: `fire` and `clear` of a condition ask for the same kind of thing, and never hold
//! at once. Left out: conditions over several topics.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::threshold::{Comparison, Threshold};
use crate::sample::Sample;

/// The field that a rule compares where it names none. Source: the payload's definition.
pub const VALUE: &str = "value";

/// Most steps of a counter that are remembered: a container that restarts every second would
/// make six hundred in ten minutes, and no rule needs to know them apart.
const STEPS_MAX: usize = 64;

/// What is wrong with a topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A field of the sample is what it should not be.
    Measured(Measured),
    /// Nothing came.
    Absent {
        /// For so long, in milliseconds.
        after_ms: u64,
    },
}

/// A condition that samples are judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Which field of the payload.
    pub field: String,
    /// Where it fires.
    pub fire: Test,
    /// Where it is over; never holds together with `fire`.
    pub clear: Test,
    /// How long `fire` must hold, in milliseconds.
    pub for_ms: u64,
    /// How long `clear` must hold, in milliseconds.
    pub clear_for_ms: u64,
    /// Compare not the number but its growth within so long, in milliseconds.
    pub increase_ms: Option<u64>,
}

/// A comparison of a number or a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `> 80`
    Number(Threshold),
    /// `== unhealthy`, `!= true`
    Word {
        /// Whether it must be the word, or must not.
        same: bool,
        /// The word.
        word: String,
    },
}

/// A field of a sample, as a rule sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen<'a> {
    /// A number.
    Number(f64),
    /// A text, or `true` and `false`.
    Word(&'a str),
}

impl Test {
    /// Whether it holds; never where the field is of another kind.
    #[must_use]
    pub fn holds(&self, seen: Seen<'_>) -> bool {
        match (self, seen) {
            (Self::Number(threshold), Seen::Number(value)) => threshold.holds(value),
            (Self::Word { same, word }, Seen::Word(given)) => (word == given) == *same,
            _ => false,
        }
    }

    /// The test that holds exactly where this one does not.
    #[must_use]
    pub fn opposite(&self) -> Self {
        match self {
            Self::Number(threshold) => Self::Number(threshold.opposite()),
            Self::Word { same, word } => Self::Word { same: !same, word: word.clone() },
        }
    }

    /// What both hold for, when there is such a thing, in words for people.
    #[must_use]
    pub fn meets(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => one.meets(two).map(|value| value.to_string()),
            (Self::Word { same: true, word }, Self::Word { .. }) => {
                other.holds(Seen::Word(word)).then(|| word.clone())
            }
            (Self::Word { same: false, .. }, Self::Word { same: true, .. }) => other.meets(self),
            (Self::Word { word, .. }, Self::Word { word: another, .. }) => {
                Some(format!("neither {word} nor {another}"))
            }
            _ => None,
        }
    }

    /// Whether both compare numbers, or both words.
    #[must_use]
    pub const fn is_kin(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Number(_), Self::Number(_)) | (Self::Word { .. }, Self::Word { .. })
        )
    }

    /// Whether it asks for one value and not for a range: then its limit says all.
    #[must_use]
    pub const fn is_equality(&self) -> bool {
        match self {
            Self::Number(threshold) => {
                matches!(threshold.comparison, Comparison::Equal | Comparison::NotEqual)
            }
            Self::Word { .. } => true,
        }
    }
}

/// A text that is no test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no threshold: write a comparison (> >= < <= == !=) and a number, as in \"> 80\", or == or != and a word, as in \"== unhealthy\""
)]
pub struct TestError(String);

impl FromStr for Test {
    type Err = TestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(threshold) = text.parse() {
            return Ok(Self::Number(threshold));
        }
        let trimmed = text.trim();
        [("==", true), ("!=", false)]
            .into_iter()
            .find_map(|(sign, same)| Some((trimmed.strip_prefix(sign)?.trim(), same)))
            .filter(|(word, _)| is_word(word))
            .map(|(word, same)| Self::Word { same, word: word.to_owned() })
            .ok_or_else(|| TestError(text.to_owned()))
    }
}

/// A word begins with a letter: what begins otherwise was meant to be a number.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic())
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(threshold) => threshold.fmt(f),
            Self::Word { same, word } => write!(f, "{} {word}", if *same { "==" } else { "!=" }),
        }
    }
}

impl Measured {
    /// What a sample says of the field. `None` where it has no such field, or one of another kind.
    #[must_use]
    pub fn see<'a>(&self, sample: &'a Sample) -> Option<Seen<'a>> {
        match &self.fire {
            Test::Number(_) => sample.number(&self.field).map(Seen::Number),
            // A yes or no may also be measured as 1 or 0.
            Test::Word { word, .. } if matches!(word.as_str(), "true" | "false") => {
                let flag = sample.flag(&self.field)?;
                Some(Seen::Word(if flag { "true" } else { "false" }))
            }
            Test::Word { .. } => sample.word(&self.field).map(Seen::Word),
        }
    }
}

/// How a counter grew. A counter that is lower than before began anew: a new baseline, no growth.
///
/// Invariant: steps are in the order of time and at most `STEPS_MAX`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Growth {
    last: Option<f64>,
    steps: Vec<(u64, f64)>,
}

impl Growth {
    /// Takes a reading; gives back the growth within the last `window_ms`.
    pub fn take(&mut self, at_ms: u64, value: f64, window_ms: u64) -> f64 {
        if let Some(last) = self.last
            && value > last
        {
            if self.steps.len() == STEPS_MAX {
                // Two steps become one, at the later moment: nothing is forgotten too early.
                let (_, by) = self.steps.remove(0);
                self.steps[0].1 += by;
            }
            self.steps.push((at_ms, value - last));
        }
        self.last = Some(value);
        self.steps.retain(|(step_ms, _)| step_ms + window_ms > at_ms);
        self.steps.iter().map(|(_, by)| by).sum()
    }

    /// The readings' clock was set back.
    pub fn set_back(&mut self, by_ms: u64) {
        for (step_ms, _) in &mut self.steps {
            *step_ms = step_ms.saturating_sub(by_ms);
        }
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(text: &str) -> Test {
        text.parse().expect(text)
    }

    #[test]
    fn words_are_compared_for_being_the_same() {
        assert_eq!(test("== unhealthy").to_string(), "== unhealthy");
        assert!(test("==true").holds(Seen::Word("true")));
        assert!(test("!= running").holds(Seen::Word("exited")));
        assert!(!test("!= running").holds(Seen::Number(1.0)), "another kind of thing");
        assert_eq!(test("> 80"), Test::Number("> 80".parse().expect("one")));
        for bad in ["> unhealthy", "== ", "unhealthy", "== 80%", "== un healthy", "=! x"] {
            assert!(bad.parse::<Test>().is_err(), "{bad}");
        }
    }

    #[test]
    fn words_meet_where_one_word_fits_both() {
        assert_eq!(test("== a").meets(&test("== b")), None);
        assert_eq!(test("== a").meets(&test("!= a")), None);
        assert_eq!(test("== a").meets(&test("!= b")), Some("a".to_owned()));
        assert_eq!(test("!= b").meets(&test("== a")), Some("a".to_owned()));
        assert!(test("!= a").meets(&test("!= b")).is_some());
        assert_eq!(test("== a").meets(&test("== a")), Some("a".to_owned()));
    }

    #[test]
    fn growth_is_that_of_the_window_and_a_counter_that_began_anew_is_none() {
        let mut growth = Growth::default();
        let taken: Vec<f64> = [(0, 7.0), (10, 8.0), (20, 10.0), (30, 0.0), (40, 1.0), (111, 1.0)]
            .into_iter()
            .map(|(at_ms, value)| growth.take(at_ms, value, 100))
            .collect();
        assert_eq!(taken, [0.0, 1.0, 3.0, 3.0, 4.0, 3.0]);
    }

    #[test]
    fn a_counter_that_never_rests_takes_bounded_room() {
        let mut growth = Growth::default();
        let mut last = 0.0;
        for n in 0..1000_u32 {
            last = growth.take(n.into(), n.into(), 10_000);
        }
        assert!(growth.steps.len() <= STEPS_MAX);
        assert!((last - 999.0).abs() < 1e-9, "{last}");
    }
}
