//! What lies between what a process sees and what is on the platter, and how much of it arrives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a disk writes at once or not at all.
const SECTOR_BYTES: usize = 512;

/// A file, twice.
#[derive(Default, Clone)]
pub(super) struct FileState {
    pub path: PathBuf,
    pub now: Vec<u8>,
    pub durable: Vec<u8>,
    pub pending: Vec<Change>,
    /// How many changes are pending no more.
    pub settled: usize,
}

/// A change to a file's bytes.
#[derive(Clone)]
pub(super) enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

/// A change to the names.
#[derive(Clone)]
pub(super) enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => put(bytes, *at, written),
            Self::Size(size) => bytes.resize(*size, 0),
        }
    }

    pub(super) fn apply_in_part(&self, bytes: &mut Vec<u8>, dice: &mut Dice) {
        match self {
            Self::Write(at, written) => {
                // Most crashes lose or keep a whole write; some tear it between sectors.
                let (keep_all, tear) = (dice.below(2) == 0, dice.below(2) == 0);
                let mut from = 0;
                while from < written.len() {
                    let to_sector_end = SECTOR_BYTES - (at + from) % SECTOR_BYTES;
                    let to = written.len().min(from + to_sector_end);
                    let keep = if tear { dice.below(2) == 0 } else { keep_all };
                    if keep {
                        put(bytes, at + from, &written[from..to]);
                    }
                    from = to;
                }
            }
            Self::Size(_) => {
                if dice.below(2) == 0 {
                    self.apply(bytes);
                }
            }
        }
    }
}

impl NameChange {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Remove(path) => path,
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Set(path, id) => names.insert(path.clone(), *id),
            Self::Remove(path) => names.remove(path),
        };
    }
}

pub(super) fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if at == bytes.len() {
        return bytes.extend_from_slice(written);
    }
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

/// Xorshift: enough to vary crashes, and the same everywhere.
pub(super) struct Dice(u64);

impl Dice {
    /// Seeds that follow one another shall not throw alike: the factor is 2^64 over the golden
    /// ratio, which spreads them.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
