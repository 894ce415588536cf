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
//! Left out: getting the entries, and filling a part of a hole.

mod fit;
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
use fit::{Fit, fit};
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
/// before `committed` goes, whatever is given.
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
    let mut holes: Vec<Hole> =
        found.report.damaged.iter().map(|damage| Hole::new(damage, &found)).collect();
    holes.sort_by_key(|hole| (hole.damage.from_index, hole.damage.resume_index));
    let mut fits = Vec::new();
    for run in runs {
        let Some(first) = run.first().map(|batch| batch.header.index) else { continue };
        let hole = holes.iter().find(|hole| hole.damage.from_index >= first);
        let fit = fit(&found, hole.ok_or(MendError::NoHole(first))?, run)?;
        if let Some(index) = fit.replaces.filter(|index| *index < committed) {
            let why = "another one is here, and was committed".to_owned();
            return Err(MendError::DoesNotFit { index, why });
        }
        fits.push(fit);
    }
    let empty = holes.iter().filter(|hole| hole.lacks_nothing());
    fits.extend(empty.map(|hole| Fit {
        damage: hole.damage.clone(),
        run: &[],
        ends: false,
        replaces: None,
    }));
    fits.sort_by_key(|fit| (fit.damage.from_index, fit.damage.position));
    if let Some(end) = fits.iter().position(|fit| fit.ends) {
        fits.truncate(end + 1);
    }
    let end = fits.last().filter(|fit| fit.ends);
    let work = Mending { disk, dir, found: &found };
    if !fits.is_empty() {
        let inserts = fits.iter().map(|fit| work.place(fit)).collect::<Result<Vec<_>, _>>()?;
        let written = work.write(&inserts)?;
        work.put_in_place(&written, end)?;
    }
    let is_gone = |hole: &Hole| {
        end.is_some_and(|end| hole.damage.from_index >= end.damage.from_index)
            || fits.iter().any(|fit| fit.damage == hole.damage)
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

/// What the log lacks, and whether it is its end.
struct Hole {
    damage: Damage,
    lost: Option<LostEnd>,
}

impl Hole {
    fn new(damage: &Damage, found: &Recovered) -> Self {
        let lost = found.report.lost_end.filter(|lost| lost.from_index == damage.from_index);
        Self { damage: damage.clone(), lost }
    }

    /// Whether the entries around it follow each other: what lies between is no entry.
    fn lacks_nothing(&self) -> bool {
        let Damage { from_index, resume_index, bytes, .. } = self.damage;
        self.lost.is_none() && from_index == resume_index && bytes > 0
    }
}

fn first_index(found: &Recovered) -> RaftIndex {
    found.purged.map_or(RaftIndex(0), |point| point.index.next())
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
    /// Decides into which file entries go.
    fn place<'b>(&self, fit: &'b Fit<'_>) -> Result<Insert<'b>, MendError> {
        let damage = &fit.damage;
        let segments = &self.found.segments;
        let own = segments.iter().position(|segment| segment.path == damage.segment);
        let fresh = self.name_between(fit);
        let insert = match own {
            // Before every segment: one of its own, unless the first one has its name already.
            Some(at)
                if (damage.position, damage.bytes) == (0, 0)
                    && segments[at].first_index() > damage.from_index =>
            {
                let first = Insert::within(&segments[at], fit);
                fresh.map_or(first, |name| Insert::alone(self.dir, name, fit))
            }
            Some(at) if !is_behind_end(&segments[at], damage) => Insert::within(&segments[at], fit),
            _ => match fresh {
                Some(name) => Insert::alone(self.dir, name, fit),
                None => {
                    let why = format!("no segment of {} can take it", self.dir.display());
                    return Err(MendError::DoesNotFit { index: damage.from_index, why });
                }
            },
        };
        Ok(insert)
    }

    /// The name of a segment for the hole alone, if it sorts where it belongs.
    fn name_between(&self, fit: &Fit<'_>) -> Option<SegmentName> {
        let Damage { from, from_index, .. } = fit.damage;
        let staying = || self.found.segments.iter().filter(|segment| !goes(segment, fit));
        let is_behind = |segment: &&Arc<Segment>| segment.summary().next_index > from_index;
        let before = staying().take_while(|segment| !is_behind(segment)).last();
        let name = SegmentName::after(before.map(|segment| segment.name), from, from_index);
        let next = staying().find(is_behind);
        next.is_none_or(|next| name < next.name).then_some(name)
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
    fn put_in_place(&self, written: &[Written], end: Option<&Fit<'_>>) -> Result<(), MendError> {
        let sync_names = || self.disk.sync_dir(self.dir).map_err(io_error("sync", self.dir));
        // The last one first, as a truncation does.
        for segment in self.found.segments.iter().rev() {
            let is_written = written.iter().any(|file| file.path == segment.path);
            if !is_written && end.is_some_and(|end| goes(segment, end)) {
                let path = &segment.path;
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

/// Whether a hole begins further on than its segment ends: a purge lies between.
fn is_behind_end(segment: &Segment, damage: &Damage) -> bool {
    let summary = segment.summary();
    damage.position >= summary.size && summary.next_index != damage.from_index
}

/// Whether a segment stands behind what the log ends with.
fn goes(segment: &Segment, fit: &Fit<'_>) -> bool {
    fit.ends && segment.first_index() > fit.damage.from_index
}
