//! Reads what the user wrote into files: the rules, a webhook's template, a secret. Nothing else of
//! rules and notifications touches the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::rules::{Mistakes, Rules, file};

/// The longest rules file: a thousand rules with long comments. A larger one is no rules file.
const BYTES_MAX: u64 = 1 << 20;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the rules file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is too long to be one of rules.
    #[error("{} has more than {BYTES_MAX} bytes: is it a rules file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file has mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// Reads and checks a file.
///
/// # Errors
/// [`LoadError`].
pub fn load_rules(path: &Path) -> Result<Rules, LoadError> {
    let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > BYTES_MAX {
        return Err(LoadError::TooLong { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    file::parse(path, &text).map_err(LoadError::Mistakes)
}

/// Reads a file that holds one secret, without the blanks and line ends around it.
///
/// # Errors
/// Whatever the file system says.
pub fn load_secret(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned())
}

/// Reads a webhook's template.
///
/// # Errors
/// Whatever the file system says; a file that is too long to be one.
pub fn load_template(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

/// Checks a rules file: mistakes go to stderr, one a line, and make for exit code 1.
///
/// # Errors
/// When the file cannot be read.
pub fn check_rules(file: &Path) -> anyhow::Result<ExitCode> {
    match load_rules(file) {
        Ok(rules) => {
            let count = rules.list.len();
            let rules = if count == 1 { "rule" } else { "rules" };
            anstream::println!("{}: {count} {rules}, no mistake", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(LoadError::Mistakes(mistakes)) => {
            anstream::eprintln!("{mistakes}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}
