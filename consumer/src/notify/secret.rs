//! Texts that are never shown: tokens, and addresses that hold one.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, to be sent and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A value that was given. Empty ones count as absent: compose files hand on variables that
/// nobody has set.
pub(super) fn given(value: &Option<String>) -> Option<String> {
    value.clone().filter(|text| !text.trim().is_empty())
}

/// A secret by itself or in a file, which counts before it; the file where it cannot be read.
pub(super) fn secret(
    typed: Option<&Secret>,
    file: Option<&str>,
) -> Result<Option<Secret>, (PathBuf, io::Error)> {
    let secret = match file {
        Some(path) => {
            let read = crate::load::load_secret(path.as_ref());
            Some(Secret(read.map_err(|error| (PathBuf::from(path), error))?))
        }
        None => typed.cloned(),
    };
    Ok(secret.filter(|secret| !secret.0.trim().is_empty()))
}
