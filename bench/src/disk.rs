//! The disk under the servers' folders: what a sync costs that nothing else is added to.
//!
//! A folder in memory would make every sync free and every figure of it wrong, so it is refused.

use std::io::Write as _;

use anyhow::{Context, ensure};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use serde::Serialize;

use crate::clock::now_ns;
use crate::drive::histogram;
use crate::work::float;

/// Bytes of one append, as in `design/limits.md`.
const APPEND: [u8; 4_096] = [b'x'; 4_096];

/// Appends: enough for a 99th percentile, a fifth of a second on a disk of today.
const APPENDS: usize = 500;

/// How long `fdatasync` takes after 4 KiB were appended, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sync {
    /// The half of them take less.
    pub p50_us: f64,
    /// All but a hundredth take less.
    pub p99_us: f64,
}

/// Measures it where servers will have their folders.
///
/// # Errors
/// When that is in memory, or cannot be written to.
pub fn measure() -> anyhow::Result<Sync> {
    let mut file = tempfile::tempfile().context("making a file in the temporary folder")?;
    let kind = fstatfs(&file).context("asking where that folder is")?.filesystem_type();
    ensure!(
        kind != TMPFS_MAGIC,
        "the temporary folder is in memory, where a sync costs nothing: set TMPDIR to a folder on \
         a disk"
    );
    let mut took = histogram()?;
    for _ in 0..APPENDS {
        file.write_all(&APPEND)?;
        let begin_ns = now_ns();
        file.sync_data()?;
        took.saturating_record(now_ns() - begin_ns);
    }
    let at = |quantile| float(took.value_at_quantile(quantile)) / 1e3;
    Ok(Sync { p50_us: at(0.5), p99_us: at(0.99) })
}
