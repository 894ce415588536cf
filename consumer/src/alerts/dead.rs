//! Dead letters: `DIR/alerts.dead`, a JSON line for each notice that could not be delivered.
//!
//! Append-only while a consumer runs. `aklight alerts retry` first moves the file to
//! `alerts.dead.retrying`, so that a running consumer goes on appending to a new one; what still
//! cannot be delivered is appended there again, and only then is the moved file removed. A retry
//! that was killed leaves the moved file, and the next one begins with it.
//!
//! The file holds whole telephone numbers, for they are needed to try again: it is readable by
//! its owner only.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Destination, Notice};

/// The longest that the file grows: some ten thousand letters. Whoever has more has not looked
/// for weeks, and the disk is needed for other things.
const BYTES_MAX: u64 = 16 << 20;

/// A notice that could not be delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was given up, RFC 3339.
    pub at: String,
    /// Which consumer gave it up.
    pub consumer: String,
    /// Why.
    pub reason: String,
    /// What was to be told.
    pub notice: Notice,
}

impl DeadLetter {
    /// One for each of `recipients` where its mail was for all of them: [`Notice::spread`].
    #[must_use]
    pub fn spread(self, recipients: &[Destination]) -> Vec<Self> {
        let notices = self.notice.clone().spread(recipients).into_iter();
        notices.map(|notice| Self { notice, ..self.clone() }).collect()
    }
}

/// The file of dead letters of a folder.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    path: PathBuf,
}

/// Why dead letters cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is as long as it may be.
    #[error("{} is full: send its letters with `aklight alerts retry`, or move it away", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no dead letter.
    #[error("line {line} of {} is no dead letter ({source}): remove it and retry", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl DeadLetters {
    /// Those of `folder`.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join("alerts.dead") }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a letter, durably.
    ///
    /// # Errors
    /// [`DeadError`].
    pub fn append(&self, letter: &DeadLetter) -> Result<(), DeadError> {
        let mut line = serde_json::to_vec(letter)
            .unwrap_or_else(|error| unreachable!("plain structs are always JSON: {error}"));
        line.push(b'\n');
        let error = |source| DeadError::Io { what: "write", path: self.path.clone(), source };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(error)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(error)?;
        if file.metadata().map_err(error)?.len() + line.len() as u64 > BYTES_MAX {
            return Err(DeadError::Full { path: self.path.clone() });
        }
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(error)
    }

    /// Takes every letter out, to be tried again; they stay in a moved file until
    /// [`DeadLetters::forget_taken`].
    ///
    /// # Errors
    /// [`DeadError`]; nothing is lost then.
    pub fn take(&self) -> Result<Vec<DeadLetter>, DeadError> {
        let taken = self.taken_path();
        if !taken.exists() {
            match std::fs::rename(&self.path, &taken) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(source) => {
                    return Err(DeadError::Io { what: "move", path: self.path.clone(), source });
                }
                Ok(()) => {}
            }
        }
        let text = std::fs::read_to_string(&taken).map_err(|source| DeadError::Io {
            what: "read",
            path: taken.clone(),
            source,
        })?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(n, line)| {
                serde_json::from_str(line).map_err(|source| DeadError::Line {
                    path: taken.clone(),
                    line: n + 1,
                    source,
                })
            })
            .collect()
    }

    /// Removes the letters that [`DeadLetters::take`] gave: each was delivered or appended again.
    ///
    /// # Errors
    /// [`DeadError`].
    pub fn forget_taken(&self) -> Result<(), DeadError> {
        let path = self.taken_path();
        std::fs::remove_file(&path).map_err(|source| DeadError::Io { what: "remove", path, source })
    }

    fn taken_path(&self) -> PathBuf {
        self.path.with_extension("dead.retrying")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::encoding::tests::full;

    fn letter(reason: &str) -> DeadLetter {
        DeadLetter {
            at: "2026-11-21T02:52:07Z".to_owned(),
            consumer: "c".to_owned(),
            reason: reason.to_owned(),
            notice: full().notices.remove(1),
        }
    }

    #[test]
    fn letters_are_appended_taken_and_forgotten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let dead = DeadLetters::of(folder.path());
        assert_eq!(dead.take().expect("none yet"), []);
        dead.append(&letter("one")).expect("appended");
        dead.append(&letter("two")).expect("appended");
        let mode = std::fs::metadata(dead.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(dead.take().expect("taken"), [letter("one"), letter("two")]);
        // A consumer goes on; a killed retry begins again with what it had taken.
        dead.append(&letter("three")).expect("appended");
        assert_eq!(dead.take().expect("taken again"), [letter("one"), letter("two")]);
        dead.forget_taken().expect("forgotten");
        assert_eq!(dead.take().expect("the rest"), [letter("three")]);
    }

    #[test]
    fn a_line_that_is_no_letter_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let dead = DeadLetters::of(folder.path());
        dead.append(&letter("one")).expect("appended");
        let mut text = std::fs::read_to_string(dead.path()).expect("read");
        text.push_str("nonsense\n");
        std::fs::write(dead.path(), text).expect("written");
        let error = dead.take().expect_err("nonsense");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn a_mail_of_before_is_a_letter_to_each_recipient() {
        let email = |to: &str| Destination::Email { to: to.to_owned() };
        let to_all = DeadLetter {
            notice: Notice { destination: email(""), ..letter("one").notice },
            ..letter("one")
        };
        let spread = to_all.clone().spread(&[email("anna@example.org"), email("ben@example.org")]);
        let to: Vec<_> = spread.iter().map(|letter| letter.notice.destination.shown()).collect();
        assert_eq!(to, ["anna@example.org", "ben@example.org"]);
        assert_eq!(to_all.clone().spread(&[]), [to_all], "kept where there is nobody");
        assert_eq!(letter("one").spread(&[email("anna@example.org")]), [letter("one")]);
    }
}
