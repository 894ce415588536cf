//! Who takes the figures of each second: latencies, memory, disk, and which segments there are.

use std::collections::BTreeSet;
use std::fs::read_dir;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use crate::clock::SECOND_NS;
use crate::drive::histogram;
use crate::server::Fleet;
use crate::usage::disk_bytes;
use crate::work::float;

/// Seconds between two looks at the folder: a segment lives longer, and retention looks each ten.
const FOLDER_EVERY: usize = 5;

/// One second of a run.
#[derive(Debug, Clone, Copy)]
pub struct Second {
    /// Acknowledgements: p99 and longest, in microseconds.
    pub acks_us: (f64, f64),
    /// Deliveries, the same.
    pub deliveries_us: (f64, f64),
    /// The broker's resident memory at its end.
    pub memory_bytes: u64,
    /// What its folder took on the disk, when it was last looked at.
    pub disk_bytes: u64,
}

/// Takes them.
pub struct Clerk {
    /// This second's acknowledgements.
    pub acks: Histogram<u64>,
    /// This second's deliveries.
    pub deliveries: Histogram<u64>,
    /// The seconds that are over.
    pub seconds: Vec<Second>,
    /// The segments.
    pub segments: Segments,
    next_ns: u64,
    disk_bytes: u64,
}

impl Clerk {
    /// From the first record on.
    ///
    /// # Errors
    /// Never with the bounds of `drive::histogram`.
    pub fn new(first_ns: u64) -> anyhow::Result<Self> {
        Ok(Self {
            acks: histogram()?,
            deliveries: histogram()?,
            seconds: Vec::new(),
            segments: Segments::default(),
            next_ns: first_ns + SECOND_NS,
            disk_bytes: 0,
        })
    }

    /// Closes a second that is over.
    pub fn note(&mut self, now: u64, fleet: &Fleet<'_>) {
        if now < self.next_ns {
            return;
        }
        self.next_ns = now + SECOND_NS;
        if self.seconds.len().is_multiple_of(FOLDER_EVERY) {
            let folder = fleet.data_dir(0);
            self.disk_bytes = disk_bytes(&folder);
            self.segments.look(&folder);
        }
        let us =
            |of: &Histogram<u64>| (float(of.value_at_quantile(0.99)) / 1e3, float(of.max()) / 1e3);
        self.seconds.push(Second {
            acks_us: us(&self.acks),
            deliveries_us: us(&self.deliveries),
            memory_bytes: fleet.memory().now,
            disk_bytes: self.disk_bytes,
        });
        self.acks.reset();
        self.deliveries.reset();
    }
}

/// The segments that were seen, and those that are there.
#[derive(Debug, Default)]
pub struct Segments {
    seen: BTreeSet<PathBuf>,
    there: usize,
}

impl Segments {
    fn look(&mut self, folder: &Path) {
        let inner = read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let files = inner.flat_map(|log| read_dir(log.path()).into_iter().flatten());
        let paths = files.filter_map(|file| Some(file.ok()?.path()));
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "log");
        let now: BTreeSet<_> = paths.filter(is_segment).collect();
        self.there = now.len();
        self.seen.extend(now);
    }

    /// How many were there and are no more.
    pub fn deleted(&self) -> usize {
        self.seen.len() - self.there
    }
}
