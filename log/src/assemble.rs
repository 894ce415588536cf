//! From what recovery found on disk to a log that works: the shared state and the writer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use aklight_common::clock::SharedClock;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::disk::{Disk, DiskLock};
use crate::errors::OpenError;
use crate::index_cache::IndexCache;
use crate::marks::Point;
use crate::options::LogOptions;
use crate::recovery::Recovered;
use crate::report::OpenReport;
use crate::state::{CommittedHint, Marks, Shared, State};
use crate::writer::{Op, Writer};

pub(crate) type Assembled = (Arc<Shared>, Writer, Sender<Op>, OpenReport, Box<dyn DiskLock>);

/// Makes what is shared and the writer from what was found on disk.
pub(crate) fn assemble(
    recovered: Recovered,
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
    clock: SharedClock,
    (sender, queue): (Sender<Op>, Receiver<Op>),
) -> Result<Assembled, OpenError> {
    let end =
        recovered.last.map(|(term, index)| Point { term, index, end_offset: recovered.end_offset });
    let Recovered {
        lock,
        vote,
        purge,
        mut hint_slots,
        mut hint,
        segments,
        allocated,
        synced,
        report,
        ..
    } = recovered;
    let Some(open) = segments.last().cloned() else {
        return Err(OpenError::Io {
            what: "find a segment in",
            path: dir.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        });
    };
    let size = open.summary().size;
    let is_dirty = synced < size;
    if report.lost_end.is_none() && end > hint.acknowledged {
        // The note is synced now and then only, and may be older than what was acknowledged. What is
        // found counts as acknowledged from here on: a later loss must be told by it.
        hint.acknowledged = end;
        // Where what is found is to be synced later, the note is no surer than that.
        let noted = hint_slots.write(&hint.encode());
        let noted = noted.and_then(|()| if is_dirty { Ok(()) } else { hint_slots.sync() });
        if let Err(error) = noted {
            tracing::warn!(dir = %dir.display(), %error, "cannot note where the log ends");
        }
    }
    let saved_vote = Some(vote.value().to_vec()).filter(|vote| !vote.is_empty());
    let flushed = recovered.last.map(|last| last.1);
    let state = State::opened(segments, recovered.purged, recovered.last, recovered.end_offset);
    let shared = Arc::new(Shared {
        disk,
        dir: dir.to_owned(),
        state: RwLock::new(state),
        marks: Mutex::new(Marks { flushed, failed: None, vote: saved_vote }),
        marks_changed: Condvar::new(),
        committed: Mutex::new(CommittedHint { bytes: hint.committed.clone(), is_new: false }),
        found_damage: AtomicBool::new(false),
        queued_bytes: AtomicU64::new(0),
        spare_bytes: AtomicU64::new(allocated.saturating_sub(size)),
        indexes: IndexCache::default(),
        compressing: Mutex::default(),
        last_read: Mutex::default(),
        options,
        clock,
    });
    let writer = Writer {
        queue,
        vote,
        purge,
        hint_slots,
        hint,
        open,
        allocated,
        synced,
        found: size,
        cannot_preallocate: false,
        is_dirty,
        last_sync_us: shared.clock.monotonic_us(),
        sync_takes_us: None,
        slow_until_us: 0,
        hint_is_old: false,
        writes: Vec::new(),
        waiting: Vec::new(),
        syncer: None,
        syncing: None,
        wanting: Vec::new(),
        held: None,
        shared: shared.clone(),
    };
    Ok((shared, writer, sender, report, lock))
}
