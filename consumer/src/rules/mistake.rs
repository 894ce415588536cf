//! Mistakes in a rules file, each with its place and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

use aklight_common::settings::nearest;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// Every mistake of a file, in the order of its lines; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The mistakes.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Mistake { line, column, text }) in self.list.iter().enumerate() {
            let newline = if n > 0 { "\n" } else { "" };
            write!(f, "{newline}{}:{line}:{column}: {text}", self.file.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Gathers mistakes while a file is read.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    input: &'a str,
    found: Vec<(usize, String)>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, found: Vec::new() }
    }

    /// Notes a mistake at a byte of the input.
    pub(super) fn add(&mut self, at: usize, text: impl Into<String>) {
        self.found.push((at, text.into()));
    }

    /// The line of a byte of the input, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.before(at).matches('\n').count() + 1
    }

    /// All of them as an error, or `value` when there is none.
    pub(super) fn finish<T>(mut self, file: &Path, value: T) -> Result<T, Mistakes> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort_by_key(|(at, _)| *at);
        let place = |at: usize| {
            let before = self.before(at);
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (self.line(at), column)
        };
        let list = self
            .found
            .iter()
            .map(|(at, text)| {
                let (line, column) = place(*at);
                Mistake { line, column, text: text.clone() }
            })
            .collect();
        Err(Mistakes { file: file.to_owned(), list })
    }

    fn before(&self, at: usize) -> &'a str {
        let mut at = at.min(self.input.len());
        while !self.input.is_char_boundary(at) {
            at -= 1;
        }
        &self.input[..at]
    }
}

/// What to write instead of an unknown name: the one most likely meant, or all there are.
pub(super) fn instead(given: &str, known: &[&str]) -> String {
    let letters = |text: &str| {
        let mut letters: Vec<_> = text.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    // Letters that changed places are one slip of the fingers, though two edits.
    let swapped = known.iter().copied().find(|name| letters(name) == letters(given));
    match swapped.or_else(|| nearest(&given.to_lowercase(), known)) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("write one of {}", known.join(", ")),
    }
}
