//! Readings: from the kernel's files to samples.
//!
//! Which files is decided once, by [`cgroup`]: those of the container that this process runs in,
//! or the whole machine's. Then one reader a metric ([`cpu`], [`memory`], [`disk`], [`network`])
//! reads its few files at every tick and computes what `docker stats` would show.
//!
//! Every path goes through a [`Root`], so that a test reads a tree of its own. A reader does not
//! know the time: it is given the moment that the sample shall carry, and the monotonic time
//! that rates are divided by.
//!
//! The other containers of an engine are read by the same rules, out of files that are kept open
//! ([`mod@file`], [`crate::docker`]). [`cost`] is what the producer itself takes.
//!
//! What is left out: every smoothing: a value is what happened since the last tick.

pub mod cgroup;
pub mod cost;
pub mod counters;
pub mod cpu;
pub mod disk;
pub mod file;
pub mod memory;
pub mod network;

use std::io;
use std::path::{Path, PathBuf};

/// When a reading was taken, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix time in milliseconds: what the sample says.
    pub wall_ms: u64,
    /// Monotonic microseconds: what rates are divided by.
    pub monotonic_us: u64,
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel would not give the file.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{path} holds no {wanted}")]
    Nonsense {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
}

/// Where the file system begins: `/`, where a container has the host's mounted, or a test's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The machine's own file system.
    #[must_use]
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    /// Another place.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Where an absolute path is found below this root.
    #[must_use]
    pub fn path(&self, absolute: &Path) -> PathBuf {
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether there is a file or folder.
    #[must_use]
    pub fn has(&self, absolute: &Path) -> bool {
        self.path(absolute).exists()
    }

    /// The names of the folders in a folder.
    #[must_use]
    pub fn folders(&self, absolute: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(absolute)) else { return Vec::new() };
        let folder = |entry: std::fs::DirEntry| {
            // A link counts as what it leads to: `cpuacct` often leads to `cpu,cpuacct`.
            let kind = entry.file_type().ok()?;
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            is_folder.then(|| entry.file_name().into_string().ok()).flatten()
        };
        entries.filter_map(|entry| folder(entry.ok()?)).collect()
    }

    /// The text of a file.
    ///
    /// # Errors
    /// When the file is not there, may not be read, or is no text.
    pub fn read(&self, absolute: impl AsRef<Path>) -> Result<String, ReadError> {
        let path = self.path(absolute.as_ref());
        std::fs::read_to_string(&path).map_err(|source| ReadError::Unreadable { path, source })
    }

    fn nonsense(&self, absolute: impl AsRef<Path>, wanted: &'static str) -> ReadError {
        ReadError::Nonsense { path: self.path(absolute.as_ref()), wanted }
    }
}

/// The number after `name` and blanks, in a file of `name value` lines (`memory.stat`,
/// `cpu.stat`, and `meminfo` with its colon as part of the name).
pub(crate) fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// `part` of `whole` in percent; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "2^53 bytes are 8 PiB; a percentage needs no more")]
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

#[cfg(test)]
pub(crate) mod fixture {
    use std::fs;
    use std::path::Path;

    use super::Root;

    /// A file tree that stands in for a machine.
    pub(crate) struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self { folder: tempfile::tempdir().expect("a folder") };
            for (path, text) in files {
                tree.put(path, text);
            }
            tree
        }

        pub(crate) fn put(&self, path: &str, text: &str) {
            let path = self.root().path(Path::new(path));
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }

        pub(crate) fn remove(&self, path: &str) {
            fs::remove_file(self.root().path(Path::new(path))).expect("removed");
        }

        pub(crate) fn root(&self) -> Root {
            Root::at(self.folder.path())
        }
    }
}
