//! When what was written becomes durable: before it is acknowledged, in its time, or when the log ends.
//!
//! Where acknowledging waits for no sync, a start does not wait for one either: what it finds behind
//! the last sync is as safe as it was when it was acknowledged. The first sync then writes it again
//! before it syncs, for the reason that `recovery` gives.

use std::io;
use std::time::Duration;

use super::Writer;
use crate::options::Fsync;
use crate::recovery::write_again;
use crate::state::Health;

/// A sync in the caller's thread takes no longer than this, going by those before it; to wake the
/// thread and to be woken by it costs a small broker some 50 to 100 µs.
const QUICK_SYNC_US: u64 = 500;

/// An append that comes so soon behind a sync has waited for it, and others may wait behind it: they
/// share the next one, which the thread makes.
const BACK_TO_BACK_US: u64 = 30;

impl Writer {
    /// How long until written batches must be synced; none where nothing waits for a sync.
    pub(crate) fn sync_due(&self) -> Option<Duration> {
        let Fsync::Interval(interval) = self.shared.options.fsync else { return None };
        // After a failure nothing is synced any more.
        if !self.is_dirty || self.shared.health() != Health::Writable {
            return None;
        }
        let since = self.shared.clock.monotonic_us().saturating_sub(self.last_sync_us);
        Some(interval.saturating_sub(Duration::from_micros(since)))
    }

    pub(super) fn is_sync_quick(&self) -> bool {
        let since_us = self.shared.clock.monotonic_us().saturating_sub(self.last_sync_us);
        since_us >= BACK_TO_BACK_US && self.sync_takes_us.is_some_and(|us| us <= QUICK_SYNC_US)
    }

    /// Makes everything that is written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        let file = self.open.file().ok_or(io::ErrorKind::NotFound)?.clone();
        write_again(&*file, self.synced, std::mem::take(&mut self.found))?;
        let began_us = self.shared.clock.monotonic_us();
        file.sync()?;
        self.is_dirty = false;
        self.synced = self.open.summary().size;
        self.last_sync_us = self.shared.clock.monotonic_us();
        let took_us = self.last_sync_us.saturating_sub(began_us);
        self.sync_takes_us = Some(self.sync_takes_us.map_or(took_us, |us| (7 * us + took_us) / 8));
        Ok(())
    }

    pub(super) fn sync_when_due(&mut self) {
        if self.sync_due().is_some_and(|wait| wait.is_zero()) {
            // Nobody waits for this; the failure shows in the log's health.
            let _ = self.attempt("sync", Self::sync);
        }
    }
}
