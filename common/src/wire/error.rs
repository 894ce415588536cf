//! What a broker refuses, and why: the codes are for programs, the texts for people.

use std::fmt;

/// The codes of `ERR` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is named and explained by `as_str` and the protocol's page")]
pub enum ErrorCode {
    BadCommand,
    BadTopic,
    BadPattern,
    BadEscape,
    BadNumber,
    TooLarge,
    NotRegistered,
    Unauthorized,
    Forbidden,
    BadSequence,
    OffsetOutOfRange,
    Busy,
    Unavailable,
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 14] = [
        Self::BadCommand,
        Self::BadTopic,
        Self::BadPattern,
        Self::BadEscape,
        Self::BadNumber,
        Self::TooLarge,
        Self::NotRegistered,
        Self::Unauthorized,
        Self::Forbidden,
        Self::BadSequence,
        Self::OffsetOutOfRange,
        Self::Busy,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadCommand => "bad_command",
            Self::BadTopic => "bad_topic",
            Self::BadPattern => "bad_pattern",
            Self::BadEscape => "bad_escape",
            Self::BadNumber => "bad_number",
            Self::TooLarge => "too_large",
            Self::NotRegistered => "not_registered",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::BadSequence => "bad_sequence",
            Self::OffsetOutOfRange => "offset_out_of_range",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The error with this code and a text for people.
    #[must_use]
    pub fn with(self, text: &str) -> WireError {
        WireError::new(self, text)
    }

    /// Whether the same command may succeed when it is sent again later.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands in an `ERR` line. The text holds no newline and no carriage return.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct WireError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and what to do.
    pub text: String,
}

impl WireError {
    /// An error with a text; line breaks in it become blanks.
    #[must_use]
    pub fn new(code: ErrorCode, text: &str) -> Self {
        Self { code, text: text.replace(['\n', '\r'], " ") }
    }
}
