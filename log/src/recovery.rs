//! Opening a log: what is on disk becomes a state that can be trusted, or says what cannot.
//!
//! Sealed segments are believed if their sidecar is whole, fits the file's length, and the first
//! and the last batch are as it says; any other segment, and always the last one, is read through
//! and its index built again. What is found where a batch should be is judged so:
//!
//! | what is there | and | it is |
//! |---|---|---|
//! | only zeros | | the end |
//! | anything | a good batch follows, and the hint or a later batch proves that the place had been durable | damage: set aside, the log goes on behind it |
//! | anything | the hint proves that more had been acknowledged | a lost tail: set aside, the log goes on behind what was acknowledged, in a new segment |
//! | anything | no proof | a torn write, never acknowledged: cut off (and set aside, if whole batches were in it) |
//!
//! A gap between two segments is damage too. In the end what is not known to be durable is written
//! again and synced: after a `kill -9` it may have been in the system's memory only (and after a
//! failed sync it may stay there for ever), and Raft is about to be told that it is safe. A log that
//! acknowledges without a sync may leave that to its first one.
//!
//! What is lost at the end is more than a hole. A broker may only vote if its log is at least as
//! up to date as what it once acknowledged (Raft counts on that: its "yes" was one of a majority).
//! The hint knows that point, the report names what is missing up to it, and the log says that it
//! ends there; but whoever leads must have the entries themselves. So: mend first, then vote.
//!
//! Left out: mending a damaged log from a peer (see `mend`).

mod end;
mod loaded;

pub(crate) use end::write_again;

use std::io;
use std::path::Path;
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use crate::disk::{Disk, DiskLock};
use crate::errors::OpenError;
use crate::index::SegmentIndex;
use crate::marks::{Hint, Point, decode_point};
use crate::report::OpenReport;
use crate::scan::Next;
use crate::segment::{Segment, SegmentName, sidecar_path};
use crate::slots::{Opened, Slots};
use loaded::Loaded;

/// What was found, ready to go on from.
pub(crate) struct Recovered {
    pub lock: Box<dyn DiskLock>,
    pub vote: Slots,
    pub purge: Slots,
    pub hint_slots: Slots,
    pub hint: Hint,
    pub purged: Option<Point>,
    /// In order; the last one is open and has its file.
    pub segments: Vec<Arc<Segment>>,
    pub last: Option<(Term, RaftIndex)>,
    pub end_offset: Offset,
    /// Length of the last segment's file, space taken in advance included.
    pub allocated: u64,
    /// Bytes of the last segment that are known to be durable.
    pub synced: u64,
    pub report: OpenReport,
}

/// Opens a log's folder. Where `syncs_later`, what is found need not be durable yet: the writer sees
/// to it with its first sync.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    syncs_later: bool,
) -> Result<Recovered, OpenError> {
    recover_with(disk, dir, true, syncs_later)
}

/// The same, but reads every segment through, whatever its sidecar says.
pub(crate) fn recover_unbelieving(disk: &dyn Disk, dir: &Path) -> Result<Recovered, OpenError> {
    recover_with(disk, dir, false, false)
}

fn recover_with(
    disk: &dyn Disk,
    dir: &Path,
    believes_sidecars: bool,
    syncs_later: bool,
) -> Result<Recovered, OpenError> {
    disk.create_dir_all(dir).map_err(at("create", dir))?;
    let lock = disk.lock(&dir.join("lock")).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
        _ => at("lock", dir)(source),
    })?;
    let names = disk.list(dir).map_err(at("list", dir))?;
    let mut segments: Vec<SegmentName> = names.iter().filter_map(|n| n.parse().ok()).collect();
    segments.sort_unstable();
    remove_leftovers(disk, dir, &names, &segments)?;

    let mut report = OpenReport::default();
    let is_new = segments.is_empty();
    let vote = open_slots(disk, &dir.join("vote"), is_new)?;
    let purge = open_slots(disk, &dir.join("purged"), is_new)?;
    let hint_path = dir.join("committed");
    let mut hint_slots = match Slots::open(disk, &hint_path).map_err(at("read", &hint_path))? {
        Opened::Value(slots) => slots,
        Opened::Missing | Opened::Damaged => {
            report.hint_lost = !is_new;
            Slots::create(disk, &hint_path).map_err(at("create", &hint_path))?
        }
    };
    disk.sync_dir(dir).map_err(at("sync", dir))?;
    let hint = Hint::decode(hint_slots.value());
    let purged = decode_point(purge.value());

    let acknowledged = hint.acknowledged;
    let mut recovery =
        Recovery { disk, dir, believes_sidecars, syncs_later, acknowledged, purged, report };
    let mut found = Vec::new();
    for (place, name) in segments.iter().enumerate() {
        let start = recovery.start_of(*name, found.last());
        found.push(recovery.load(*name, start, place + 1 == segments.len())?);
    }
    if recovery.needs_note(&found) {
        // The note is the one proof of what is lost, and may not be durable yet. What is made of it
        // must not outlive it: where the log is cut, the name of the segment behind.
        hint_slots.rewrite().map_err(at("sync", &hint_path))?;
    }
    if let Some(tail) = found.last_mut() {
        recovery.place_empty(tail);
    }
    recovery.drop_purged(&mut found)?;
    recovery.find_gaps(&mut found);
    let end = recovery.settle_end(&mut found)?;
    recovery.finish(found, end, Kept { lock, vote, purge, hint_slots, hint })
}

/// What was opened on the way and only passes through.
struct Kept {
    lock: Box<dyn DiskLock>,
    vote: Slots,
    purge: Slots,
    hint_slots: Slots,
    hint: Hint,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    believes_sidecars: bool,
    syncs_later: bool,
    acknowledged: Option<Point>,
    purged: Option<Point>,
    report: OpenReport,
}

impl Recovery<'_> {
    /// What a segment should begin with.
    fn start_of(&self, name: SegmentName, before: Option<&Loaded>) -> Next {
        let behind = before.map(|before| before.summary.next_index);
        let purged = self.purged.filter(|point| point.end_offset <= name.offset);
        let purged = purged.map(|point| point.index.next());
        let index = name.index.or(behind).max(purged).unwrap_or_default();
        Next { index, offset: name.offset }
    }

    /// Whether the note may be all that tells of a loss: that entries were behind all that is here, or that
    /// a broken place in the last segment had been durable.
    fn needs_note(&self, found: &[Loaded]) -> bool {
        if found.last().is_some_and(|tail| !tail.damages.is_empty()) {
            return true;
        }
        let stored = found.iter().rev().find(|loaded| !loaded.is_empty());
        let stored = stored.map(|loaded| loaded.summary.next_index);
        let upto = stored.max(self.purged.map(|point| point.index.next()));
        self.acknowledged.is_some_and(|point| upto.is_none_or(|upto| point.index >= upto))
    }

    /// An empty last segment says with which offset it goes on, not with which entry: that is
    /// behind whatever is known to have been before it. Before the first segment nothing was, unless it
    /// was purged: there the note tells what is lost, and nothing is to hide that.
    fn place_empty(&self, tail: &mut Loaded) {
        let is_begin = tail.name == SegmentName::BEGIN && self.purged.is_none();
        if is_begin || !tail.is_empty() || tail.leftover > 0 {
            return;
        }
        let before = self.acknowledged.filter(|point| point.end_offset <= tail.name.offset);
        let behind = before.map(|point| point.index.next());
        let index = behind.map_or(tail.summary.next_index, |b| b.max(tail.summary.next_index));
        let placed = SegmentIndex::new(index, tail.name.offset);
        tail.summary = *placed.summary();
        tail.index = Some(placed);
    }

    /// Removes the segments that a purge had not yet removed.
    fn drop_purged(&self, found: &mut Vec<Loaded>) -> Result<(), OpenError> {
        let Some(purged) = self.purged else { return Ok(()) };
        let kept_from = purged.index.next();
        let is_purged = |loaded: &Loaded, is_last: bool| match is_last {
            false => loaded.summary.next_index <= kept_from,
            // The last one stays if the log goes on in it, or if it holds what must be looked at.
            true => loaded.summary.next_index < kept_from && loaded.leftover == 0,
        };
        let last = found.len().saturating_sub(1);
        let kept = found.iter().enumerate().position(|(n, loaded)| !is_purged(loaded, n == last));
        let gone = found.drain(..kept.unwrap_or(found.len()));
        self.remove(gone)
    }

    /// Removes segments, the oldest first.
    fn remove(&self, gone: impl Iterator<Item = Loaded>) -> Result<(), OpenError> {
        for Loaded { path, .. } in gone {
            remove_segment(self.disk, &path).map_err(at("remove", &path))?;
        }
        self.disk.sync_dir(self.dir).map_err(at("sync", self.dir))
    }
}

/// Removes a segment and its sidecar. The caller syncs the folder.
pub(crate) fn remove_segment(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for path in [&sidecar_path(path), path] {
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what an interrupted write or removal left: files beside their place, sidecars without
/// a segment.
fn remove_leftovers(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    segments: &[SegmentName],
) -> Result<(), OpenError> {
    for name in names {
        let is_orphan = name.strip_suffix(".index").is_some_and(|stem| {
            let segment = format!("{stem}.log").parse();
            segment.is_ok_and(|segment| segments.binary_search(&segment).is_err())
        });
        if is_orphan || name.ends_with(".new") {
            let path = dir.join(name);
            disk.remove(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

fn open_slots(disk: &dyn Disk, path: &Path, is_new: bool) -> Result<Slots, OpenError> {
    match Slots::open(disk, path).map_err(at("read", path))? {
        Opened::Value(slots) => Ok(slots),
        Opened::Missing if is_new => Slots::create(disk, path).map_err(at("create", path)),
        Opened::Missing | Opened::Damaged => Err(OpenError::SlotsDamaged { path: path.to_owned() }),
    }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}
