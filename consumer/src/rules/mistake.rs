//! Mistakes in a rules file, each with its place and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

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

/// Most letters that a misspelt name may differ in: beyond it a guess confuses more than it helps.
const LETTERS_OFF_MAX: usize = 2;

/// ` (did you mean 'x'?)`, or else the list of what there is.
pub(super) fn instead(given: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given.to_lowercase(), name), name))
        .min_by_key(|(off, _)| *off)
        .filter(|(off, _)| *off <= LETTERS_OFF_MAX);
    match nearest {
        Some((_, name)) => format!("did you mean '{name}'?"),
        None => format!("write one of {}", known.join(", ")),
    }
}
