//! A comparison with a limit: `> 80`.

use std::fmt;
use std::str::FromStr;

/// How a value is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Comparison {
    /// The longer signs first: `>=` also begins with `>`.
    const BY_SIGN: [(&'static str, Self); 6] = [
        (">=", Self::GreaterOrEqual),
        ("<=", Self::LessOrEqual),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        (">", Self::Greater),
        ("<", Self::Less),
    ];

    const fn sign(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }

    const fn opposite(self) -> Self {
        match self {
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
        }
    }
}

/// A comparison and its limit. The limit is a finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub limit: f64,
}

impl Threshold {
    /// Whether `value` is on the named side of the limit.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "`== 0` in a rule means exactly that")]
    pub fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Greater => value > self.limit,
            Comparison::GreaterOrEqual => value >= self.limit,
            Comparison::Less => value < self.limit,
            Comparison::LessOrEqual => value <= self.limit,
            Comparison::Equal => value == self.limit,
            Comparison::NotEqual => value != self.limit,
        }
    }

    /// The threshold that holds exactly where this one does not.
    #[must_use]
    pub fn opposite(&self) -> Self {
        Self { comparison: self.comparison.opposite(), limit: self.limit }
    }

    /// A value at which both hold, when there is one.
    ///
    /// Each holds on a half-line, at a point, or everywhere but at a point; so if they meet at
    /// all, they meet at a limit, right beside one, or at an end of the scale. Values that read
    /// well are tried first.
    #[must_use]
    pub fn meets(&self, other: &Self) -> Option<f64> {
        let (a, b) = (self.limit, other.limit);
        let beside = |limit: f64| [limit, limit.next_up(), limit.next_down()];
        [f64::midpoint(a, b), a + 1.0, a - 1.0, b + 1.0, b - 1.0]
            .into_iter()
            .chain(beside(a))
            .chain(beside(b))
            .chain([f64::MIN, f64::MAX])
            .find(|value| self.holds(*value) && other.holds(*value))
    }
}

/// A text that is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no threshold: write a comparison (> >= < <= == !=) and a number, as in \"> 80\"")]
pub struct ThresholdError(String);

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        Comparison::BY_SIGN
            .into_iter()
            .find_map(|(sign, comparison)| Some((trimmed.strip_prefix(sign)?, comparison)))
            .and_then(|(number, comparison)| {
                let limit = number.trim().parse().ok().filter(|limit: &f64| limit.is_finite())?;
                Some(Self { comparison, limit })
            })
            .ok_or_else(|| ThresholdError(text.to_owned()))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.comparison.sign(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Threshold {
        text.parse().expect(text)
    }

    #[test]
    fn a_threshold_is_read_with_or_without_blanks_and_written_back() {
        for (text, expect) in
            [("> 80", "> 80"), (">=80.5", ">= 80.5"), (" != -3 ", "!= -3"), ("==0", "== 0")]
        {
            assert_eq!(threshold(text).to_string(), expect);
        }
    }

    #[test]
    fn what_is_no_threshold_is_quoted() {
        for bad in ["80", ">", "=> 80", "> 80%", "> NaN", "> inf", "", "> 8 0", "=80"] {
            let error = bad.parse::<Threshold>().expect_err(bad);
            assert_eq!(error, ThresholdError(bad.to_owned()));
        }
    }

    #[test]
    fn an_opposite_never_meets() {
        for text in ["> 80", ">= 80", "< 80", "<= 80", "== 80", "!= 80"] {
            let threshold = threshold(text);
            assert_eq!(threshold.meets(&threshold.opposite()), None, "{text}");
        }
    }

    #[test]
    fn thresholds_that_overlap_meet() {
        assert!(threshold("> 80").meets(&threshold("< 90")).is_some());
        assert!(threshold("> 80").meets(&threshold("> 90")).is_some());
        assert!(threshold(">= 80").meets(&threshold("<= 80")).is_some());
        assert!(threshold("!= 1").meets(&threshold("!= 2")).is_some());
        assert!(threshold("> 80").meets(&threshold("< 70")).is_none());
        assert!(threshold("== 1").meets(&threshold("== 2")).is_none());
    }
}
