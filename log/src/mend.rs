//! Puts back what a log lost, from a copy that still has it: another broker's.
//!
//! Opening a log never repairs: it goes around what cannot be read and says where. That is right
//! for a broker alone. One with peers asks a peer for the entries of each hole and calls
//! [`mend`] on the closed log; the next opening finds nothing missing.
//!
//! How it works: the log is recovered as an opening would, except that no sidecar is believed, so
//! that every hole is known. What was given must fill holes exactly and fit what stands before and
//! behind them (see [`fit`]). Then each segment with a hole is written anew, beside its place, with
//! the entries where the hole was; a hole between two segments is filled at the end of the first, one
//! before every segment by a segment of its own.
//!
//! ```text
//! check ─▶ write ….new, sync ─▶ what is behind the new end goes ─▶ sidecars go ─▶ rename ─▶ sync names
//! ```
//!
//! Nothing of the log changes before everything is written and synced. A crash leaves each hole
//! as it was or mended, never something else: a rename is the whole change, and an index that no
//! longer fits is gone before it. The bytes that were set aside stay: they are evidence.
//!
//! **What others replaced**: this log may hold entries that were never committed, and a later leader
//! put others in their place while it was away. Those before or behind a hole go then, as they would
//! if that leader could send its own, and with them everything behind: the log ends with what was
//! given. If a crash comes between, more of its end is missing, and is mended as such.
//!
//! **The end of the log** may be a hole too: entries that were acknowledged here, and of which
//! nothing is left ([`OpenReport::lost_end`](crate::OpenReport::lost_end)). They may have been
//! replaced since by a leader of a later term. So a hole at the end is filled by any entries that
//! bring the log to where it is at least as up to date, in Raft's sense (term, then entry), as
//! what was acknowledged: then this broker may vote again.
//!
//! **Bytes between two entries** that follow each other are a hole that lacks nothing: they are cut
//! out, whatever is given.
//!
//! Left out: getting the entries, filling a part of a hole, and a hole that reaches over a purge (what
//! it lacks of before is nowhere; the copy is begun anew).

mod fit;
mod holes;
mod patch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use crate::disk::Disk;
use crate::errors::OpenError;
use crate::format::Batch;
use crate::marks::Point;
use crate::recovery::{Recovered, recover_unbelieving, remove_segment};
use crate::report::{Damage, LostEnd};
use crate::segment::{Segment, SegmentName, sidecar_path};
use fit::{Fit, fit, nothing_in};
use holes::{Hole, first_index, holes_of};
use patch::{Insert, Written};

/// What [`mend`] did, and what it could not for want of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MendReport {
    /// What can be read again, or was behind what is [`replaced`](Self::replaced).
    pub mended: Vec<Damage>,
    /// The first readable entry that went, with all behind it: never committed, and others came in
    /// their place meanwhile.
    pub replaced: Option<RaftIndex>,
    /// What cannot. With nothing given, this is everything that the log lacks.
    pub left: Vec<Damage>,
    /// The first entry that the log has, or should have.
    pub first: RaftIndex,
    /// The acknowledged end that is still missing.
    pub lost_end: Option<LostEnd>,
}

/// Why a log could not be mended. Nothing was changed then, except where it says so.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system refused something. What is half done is undone, or done, by the next try.
    #[error("cannot {what} {}: check that the disk is well and has room, then try again", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Entries that are not missing.
    #[error("no hole of the log begins with or behind entry {0}: ask it again what it lacks")]
    NoHole(RaftIndex),
    /// The first entry that was given is not what the log holds, so it is not told from where on the
    /// two are the same.
    #[error("entry {0} is another one here: give what comes before it too")]
    Differs(RaftIndex),
    /// Entries that leave a part of a hole open, or reach over its end.
    #[error(
        "entries up to {upto} with offsets up to {end} do not fill the hole, which ends \
             before entry {resume_index} with offset {resume}"
    )]
    DoesNotFill {
        /// The last entry that was given.
        upto: RaftIndex,
        /// The offset behind it.
        end: Offset,
        /// The first entry behind the hole.
        resume_index: RaftIndex,
        /// The first offset behind the hole.
        resume: Offset,
    },
    /// Entries that end the log before what it acknowledged.
    #[error("entries up to {upto} of term {term} fall behind what was acknowledged, entry \
             {} of term {}: take more from the leader", lost.upto_index, lost.term)]
    FallsShort {
        /// The last entry that was given.
        upto: RaftIndex,
        /// Its term.
        term: Term,
        /// What is missing.
        lost: LostEnd,
    },
    /// An entry that does not fit the one before or behind it, or is no entry at all.
    #[error("entry {index} does not fit: {why}")]
    DoesNotFit {
        /// The entry.
        index: RaftIndex,
        /// Why not.
        why: String,
    },
}

/// Fills holes of a closed log with entries from elsewhere, which must be committed: for each hole
/// that shall be mended a run of its own, with the entry before the hole (where there is one), all of
/// the hole's, and, where it is committed, the one behind. A run may begin further in front. See the
/// module's lesson. With no runs it tells which holes there are, after reading everything. No entry
/// before `committed` goes, whatever is given; where the one before a hole is, it need not come along. A
/// run that does not fit is left out with those behind it, and refused only if it is the first.
///
/// # Errors
/// When the log is open, cannot be read or written, or when the entries do not fit.
pub fn mend(
    disk: &dyn Disk,
    dir: &Path,
    runs: &[Vec<Batch>],
    committed: RaftIndex,
) -> Result<MendReport, MendError> {
    let found = recover_unbelieving(disk, dir)?;
    let holes = holes_of(&found);
    let mut fits: Vec<Fit<'_>> = Vec::new();
    for run in runs {
        let Some(first) = run.first().map(|batch| batch.header.index) else { continue };
        let mut behind = holes.iter().filter(|hole| !hole.lacks_nothing());
        let hole = behind.find(|hole| hole.damage.from_index >= first);
        match hole.ok_or(MendError::NoHole(first)).and_then(|h| fit(&found, h, run, committed)) {
            Ok(more) => fits.extend(more),
            Err(error) if fits.is_empty() => return Err(error),
            // What came before it is of use all the same.
            Err(_) => break,
        }
    }
    fits.extend(holes.iter().filter(|hole| hole.lacks_nothing()).map(nothing_in));
    fits.sort_by_key(|fit| fit.damage.from_index);
    if let Some(end) = fits.iter().position(|fit| fit.ends) {
        fits.truncate(end + 1);
    }
    let work = Mending { disk, dir, found: &found };
    if !fits.is_empty() {
        work.put(&fits)?;
    }
    let end = fits.last().filter(|fit| fit.ends);
    let is_gone = |hole: &Hole| {
        end.is_some_and(|end| hole.damage.from_index >= end.damage.from_index)
            || fits.iter().any(|fit| hole.parts.contains(&fit.damage))
    };
    let of = |gone: bool| holes.iter().filter(move |hole| is_gone(hole) == gone);
    let report = MendReport {
        mended: of(true).map(|hole| hole.damage.clone()).collect(),
        replaced: end.and_then(|end| end.replaces),
        left: of(false).map(|hole| hole.damage.clone()).collect(),
        first: first_index(&found),
        lost_end: of(false).find_map(|hole| hole.lost),
    };
    if let Some(last) = end.and_then(|end| end.run.last()).map(|batch| batch.header) {
        let point = Point { term: last.term, index: last.index, end_offset: last.end_offset() };
        note_end(dir, found, point)?;
    }
    Ok(report)
}

/// The acknowledged point is what the log ends with now: a later loss is judged by that.
fn note_end(dir: &Path, found: Recovered, end: Point) -> Result<(), MendError> {
    let Recovered { mut hint_slots, mut hint, .. } = found;
    hint.acknowledged = Some(end);
    hint_slots
        .write(&hint.encode())
        .and_then(|()| hint_slots.sync())
        .map_err(io_error("write", &dir.join("committed")))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MendError {
    let path = path.to_owned();
    move |source| MendError::Io { what, path, source }
}

struct Mending<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    found: &'a Recovered,
}

impl Mending<'_> {
    /// Puts entries where they go.
    fn put(&self, fits: &[Fit<'_>]) -> Result<(), MendError> {
        let (mut inserts, mut gone): (_, &[_]) = (Vec::new(), &[]);
        for fit in fits {
            let (insert, behind) = self.place(fit)?;
            inserts.push(insert);
            if fit.ends {
                gone = &self.found.segments[behind..];
            }
        }
        let written = self.write(&inserts)?;
        self.put_in_place(&written, gone)
    }

    /// Decides into which file entries go, and how many segments there are up to it.
    fn place<'b>(&self, fit: &'b Fit<'_>) -> Result<(Insert<'b>, usize), MendError> {
        let damage = &fit.damage;
        let segments = &self.found.segments;
        let own = segments.iter().position(|segment| segment.path == damage.segment);
        let before = match own {
            Some(at) if is_in_front(&segments[at], damage) => at,
            Some(at) if is_behind_end(&segments[at], damage) => at + 1,
            Some(at) => return Ok((Insert::within(&segments[at], fit), at + 1)),
            None => 0,
        };
        // A segment of its own, unless the next one has its name already.
        let last = before.checked_sub(1).map(|at| segments[at].name);
        let name = SegmentName::after(last, damage.from, damage.from_index);
        if fit.ends || segments.get(before).is_none_or(|next| name < next.name) {
            return Ok((Insert::alone(self.dir, name, fit), before));
        }
        match own {
            Some(at) if at == before => Ok((Insert::within(&segments[at], fit), at + 1)),
            _ => {
                let why = format!("no segment of {} can take it", self.dir.display());
                Err(MendError::DoesNotFit { index: damage.from_index, why })
            }
        }
    }

    /// Writes every file that changes, beside its place.
    fn write(&self, inserts: &[Insert<'_>]) -> Result<Vec<Written>, MendError> {
        let mut paths: Vec<&PathBuf> = inserts.iter().map(|insert| &insert.path).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut written = Vec::new();
        for path in paths {
            let mut into: Vec<_> = inserts.iter().filter(|insert| insert.path == *path).collect();
            into.sort_by_key(|insert| (insert.position, insert.first_index()));
            let file = patch::write_beside(self.disk, path, &into);
            written.push(file.map_err(io_error("write anew", path))?);
        }
        Ok(written)
    }

    /// Makes what was written the log.
    fn put_in_place(&self, written: &[Written], gone: &[Arc<Segment>]) -> Result<(), MendError> {
        let sync_names = || self.disk.sync_dir(self.dir).map_err(io_error("sync", self.dir));
        // The last one first, as a truncation does.
        for path in gone.iter().rev().map(|segment| &segment.path) {
            if !written.iter().any(|file| file.path == *path) {
                remove_segment(self.disk, path).map_err(io_error("remove", path))?;
            }
        }
        for Written { path, .. } in written {
            match self.disk.remove(&sidecar_path(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove the index of", path)(error));
                }
                _ => {}
            }
        }
        sync_names()?;
        for Written { path, beside } in written {
            self.disk.rename(beside, path).map_err(io_error("replace", path))?;
        }
        sync_names()
    }
}

/// Whether a hole begins before all that its segment holds.
fn is_in_front(segment: &Segment, damage: &Damage) -> bool {
    damage.bytes == 0
        && (segment.first_index() > damage.from_index || segment.name.offset > damage.from)
}

/// Whether a hole begins further on than its segment ends: a purge lies between.
fn is_behind_end(segment: &Segment, damage: &Damage) -> bool {
    let summary = segment.summary();
    damage.position >= summary.size && summary.next_index != damage.from_index
}
