//! The machine that was measured on: figures of another one are no figures of this one.

use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

use crate::disk::Sync;

/// What a reader must know of it.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Processors that a process may use.
    pub cores: usize,
    /// What they are called.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// Processes that wanted to run over the last minute, the bench's among them; at the end.
    pub load: String,
    /// What its disk takes for a sync; at the beginning.
    pub sync: Sync,
}

impl Machine {
    /// This one.
    pub fn here(sync: Sync) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let about = read("/proc/cpuinfo");
        let processor = about.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            cores: available_parallelism().map_or(0, usize::from),
            processor: processor.unwrap_or_else(|| "unknown".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            sync,
        }
    }
}
