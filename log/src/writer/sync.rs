//! When what was written becomes durable: before it is acknowledged, in its time, or when the log ends.
//!
//! Where acknowledging waits for no sync, appends do not wait for a slow disk either: a sync is made
//! *beside* the writer, by a thread that does nothing else, and what comes meanwhile is written, for
//! [`PATIENCE_US`]. One is on its way at most. What needs a sync of its own (a truncation, a purge, the end
//! of a segment) waits for that one before: the system tells a failure to one of two that sync a file.
//!
//! Where acknowledging waits for no sync, a start does not wait for one either: what it finds behind
//! the last sync is as safe as it was when it was acknowledged. The first sync then writes it again
//! before it syncs, for the reason that `recovery` gives.

use std::io;
use std::time::Duration;

use crossbeam_channel::TryRecvError;

use super::syncer::{Told, gone};
use super::{Done, Writer, copy_of};
use crate::options::Fsync;
use crate::recovery::write_again;
use crate::state::Health;

/// A sync in the caller's thread takes no longer than this, going by those before it; to wake the
/// thread and to be woken by it costs a small broker some 50 to 100 µs.
const QUICK_SYNC_US: u64 = 500;

/// A sync beside that takes longer is waited for: a disk that hangs must not take in what it will not keep.
const PATIENCE_US: u64 = 2_000_000;

/// An append that comes so soon behind a sync has waited for it, and others may wait behind it: they
/// share the next one, which the thread makes.
const BACK_TO_BACK_US: u64 = 30;

/// A sync on its way.
pub(crate) struct Syncing {
    /// How much of the open segment it makes durable. What makes that another one, or shorter, syncs
    /// behind it.
    size: u64,
    pub result: Told,
    waiting: Vec<Done>,
}

impl Writer {
    /// How long until written batches must be synced; none where nothing waits for a sync, or one is on
    /// its way.
    pub(crate) fn sync_due(&self) -> Option<Duration> {
        if self.syncing.is_some() {
            return None;
        }
        if !self.wanting.is_empty() {
            return Some(Duration::ZERO);
        }
        let Fsync::Interval(interval) = self.shared.options.fsync else { return None };
        // After a failure nothing is synced any more.
        if !self.is_dirty || self.shared.health() != Health::Writable {
            return None;
        }
        let since = self.shared.clock.monotonic_us().saturating_sub(self.last_sync_us);
        Some(interval.saturating_sub(Duration::from_micros(since)))
    }

    /// Whether the sync on its way takes so long that nothing more is written before it ends.
    pub(super) fn is_sync_late(&self) -> bool {
        let since_us = || self.shared.clock.monotonic_us().saturating_sub(self.last_sync_us);
        self.syncing.is_some() && since_us() >= PATIENCE_US
    }

    pub(super) fn is_sync_quick(&self) -> bool {
        let since_us = self.shared.clock.monotonic_us().saturating_sub(self.last_sync_us);
        since_us >= BACK_TO_BACK_US && self.sync_takes_us.is_some_and(|us| us <= QUICK_SYNC_US)
    }

    /// Makes everything that is written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.settle_sync(true)?;
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

    /// Takes in what came of a sync beside, and begins the next one if it is due.
    pub(super) fn sync_when_due(&mut self) {
        // Who waited is told of a failure; for others it shows in the log's health.
        let _ = self.settle_sync(false);
        if !self.sync_due().is_some_and(|wait| wait.is_zero()) {
            return;
        }
        let begun = self.attempt("sync", Self::begin_sync);
        let wanting = std::mem::take(&mut self.wanting);
        match &mut self.syncing {
            Some(syncing) => syncing.waiting = wanting,
            None => self.answer_all(wanting, &begun),
        }
    }

    /// Begins a sync beside, or makes one here where nobody else does.
    fn begin_sync(&mut self) -> io::Result<()> {
        let Some(syncer) = self.syncer.as_ref().filter(|_| self.is_dirty) else {
            return self.sync();
        };
        let file = self.open.file().ok_or(io::ErrorKind::NotFound)?.clone();
        // Here, where no truncation comes between: these bytes would come back.
        write_again(&*file, self.synced, std::mem::take(&mut self.found))?;
        let result = syncer.sync(file)?;
        let size = self.open.summary().size;
        self.syncing = Some(Syncing { size, result, waiting: Vec::new() });
        self.is_dirty = false;
        self.last_sync_us = self.shared.clock.monotonic_us();
        Ok(())
    }

    /// Takes in what came of the sync that is on its way: of one that is not done only if it may `wait`.
    pub(super) fn settle_sync(&mut self, wait: bool) -> io::Result<()> {
        let Some(told) = self.told(wait) else { return Ok(()) };
        let Some(Syncing { size, waiting, .. }) = self.syncing.take() else { return Ok(()) };
        let settled = self.attempt("sync", |writer| {
            told?;
            writer.synced = size;
            Ok(())
        });
        self.answer_all(waiting, &settled);
        settled
    }

    fn told(&self, wait: bool) -> Option<io::Result<()>> {
        let told = &self.syncing.as_ref()?.result;
        match if wait { told.recv().map_err(Into::into) } else { told.try_recv() } {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }

    fn answer_all(&mut self, waiting: Vec<Done>, result: &io::Result<()>) {
        for done in waiting {
            self.answer(done, result.as_ref().copied().map_err(copy_of));
        }
    }

    /// The last sync: nobody is left waiting.
    pub(super) fn sync_last(&mut self) {
        let _ = self.settle_sync(true);
        let synced = self.attempt("sync", |writer| {
            writer.sync()?;
            writer.hint_slots.sync()
        });
        let wanting = std::mem::take(&mut self.wanting);
        self.answer_all(wanting, &synced);
    }
}
