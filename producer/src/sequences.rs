//! Sequences: the producer's number for each record, never given twice.
//!
//! A broker tells repeats by (producer id, sequence), so a number that a restarted producer used
//! again would make a new sample look like an old one. Before a block of numbers is used, its end
//! is written to a file; a restarted producer begins behind that end, and leaves out what the
//! dead one did not use: sequences need not follow each other.
//!
//! The first number of a process is besides at least its wall clock in microseconds: with the
//! file lost, or no place to keep one, numbers still rise from one process to the next unless
//! the clock was set back meanwhile. No producer sends a sample a microsecond, so numbers do not
//! run ahead of the clock.

use std::path::{Path, PathBuf};

use aklight_common::atomic_file;
use tracing::warn;

/// Numbers reserved at a time: a durable write every two minutes at the 450 samples a second of
/// fifty containers.
const BLOCK: u64 = 65_536;

const FILE: &str = "sequences";

/// Gives out sequences.
#[derive(Debug)]
pub struct Sequences {
    file: Option<PathBuf>,
    next: u64,
    /// The first number that is not reserved. `next ≤ reserved`.
    reserved: u64,
}

impl Sequences {
    /// Goes on behind what `folder` says was reserved, behind `used` (found in the spool) and not
    /// before `wall_us`.
    #[must_use]
    pub fn open(folder: Option<&Path>, used: Option<u64>, wall_us: u64) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let reserved = file.as_deref().and_then(read_reserved).unwrap_or(0);
        let next = reserved.max(used.map_or(0, |used| used + 1)).max(wall_us).max(1);
        Self { file, next, reserved: next }
    }

    /// The next number.
    pub fn take(&mut self) -> u64 {
        if self.next == self.reserved {
            self.reserve();
        }
        let sequence = self.next;
        self.next += 1;
        sequence
    }

    fn reserve(&mut self) {
        self.reserved = self.next + BLOCK;
        let Some(file) = &self.file else { return };
        if let Err(error) = atomic_file::write(file, format!("{}\n", self.reserved).as_bytes()) {
            // The clock still keeps a restarted producer from using these numbers again.
            warn!("{} cannot be written: {error}", file.display());
        }
    }
}

fn read_reserved(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let reserved = text.trim().parse().ok();
    if reserved.is_none() {
        warn!("{} holds no number: sequences go on from the clock", file.display());
    }
    reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_producer_never_uses_a_number_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut last = 0;
        for taken in [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let mut sequences = Sequences::open(Some(folder.path()), None, 0);
            for _ in 0..taken {
                let sequence = sequences.take();
                assert!(sequence > last, "{sequence} after {last}");
                last = sequence;
            }
        }
    }

    #[test]
    fn numbers_of_one_process_follow_each_other() {
        let mut sequences = Sequences::open(None, None, 1_000_000);
        let taken: Vec<u64> = (0..3 * BLOCK).map(|_| sequences.take()).collect();
        assert_eq!(taken, (1_000_000..1_000_000 + 3 * BLOCK).collect::<Vec<_>>());
    }

    #[test]
    fn the_highest_of_file_spool_and_clock_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |used, wall_us| Sequences::open(Some(folder.path()), used, wall_us).take();
        assert_eq!(open(None, 0), 1);
        assert_eq!(open(None, 0), 1 + BLOCK);
        assert_eq!(open(Some(999_999), 500), 1_000_000);
        assert_eq!(open(None, 5_000_000), 5_000_000);
        assert_eq!(open(Some(7), 3), 5_000_000 + BLOCK);
    }

    #[test]
    fn a_file_of_nonsense_is_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), "nonsense").expect("written");
        assert_eq!(Sequences::open(Some(folder.path()), None, 77).take(), 77);
    }
}
