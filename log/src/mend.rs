//! Puts back what a log lost, from a copy that still has it: another broker's.
//!
//! Opening a log never repairs: it goes around what cannot be read and says where. That is right
//! for a broker alone. One with peers asks a peer for the entries of each hole and calls
//! [`mend`] on the closed log; the next opening finds nothing missing.
//!
//! How it works: the log is recovered as an opening would, except that no sidecar is believed, so
//! that every hole is known. What was given must fill holes exactly and fit what stands before and
//! behind them. Then each segment with a hole is written anew, beside its place, with the entries
//! where the hole was; a hole between two segments is filled at the end of the first, one before
//! every segment by a segment of its own.
//!
//! ```text
//! check ─▶ write ….new, sync ─▶ an empty last segment goes ─▶ sidecars go ─▶ rename ─▶ sync names
//! ```
//!
//! Nothing of the log changes before everything is written and synced. A crash leaves each hole
//! as it was or mended, never something else: a rename is the whole change, and an index that no
//! longer fits is gone before it. The bytes that were set aside stay: they are evidence.
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
//! Left out: getting the entries, and filling a part of a hole. Entries *behind* a hole that a later
//! leader replaced are refused ("falls behind"): such a log is better truncated or copied whole.

mod patch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use crate::disk::Disk;
use crate::errors::OpenError;
use crate::format::{BODY_BYTES_MAX, Batch, BatchKind};
use crate::marks::Point;
use crate::recovery::{Recovered, recover_unbelieving, remove_segment};
use crate::report::{Damage, LostEnd};
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::{Segment, SegmentName, sidecar_path};
use patch::{Insert, Written};

/// What [`mend`] did, and what it could not for want of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MendReport {
    /// What can be read again.
    pub mended: Vec<Damage>,
    /// What cannot. With no batches given, this is everything that the log lacks.
    pub left: Vec<Damage>,
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
    #[error("no hole of the log begins with entry {0}: ask it again what it lacks")]
    NoHole(RaftIndex),
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

/// Fills holes of a closed log with entries from elsewhere: for each hole that shall be mended,
/// all of its entries, in order. See the module's lesson. With no entries it tells which holes
/// there are, after reading everything.
///
/// # Errors
/// When the log is open, cannot be read or written, or when the entries do not fit.
pub fn mend(disk: &dyn Disk, dir: &Path, batches: Vec<Batch>) -> Result<MendReport, MendError> {
    let found = recover_unbelieving(disk, dir)?;
    let mut holes: Vec<Hole> =
        found.report.damaged.iter().map(|damage| Hole::new(damage, &found)).collect();
    holes.sort_by_key(|hole| (hole.damage.from_index, hole.damage.resume_index));
    let mut filled = Vec::new();
    for run in runs(batches, &holes) {
        let first = run[0].header.index;
        let hole = holes.iter().find(|hole| hole.damage.from_index == first);
        let hole = hole.ok_or(MendError::NoHole(first))?;
        check_run(hole, &run)?;
        filled.push((hole, run));
    }
    filled.extend(holes.iter().filter(|hole| hole.lacks_nothing()).map(|hole| (hole, Vec::new())));
    filled.sort_by_key(|(hole, _)| (hole.damage.from_index, hole.damage.position));
    let work = Mending { disk, dir, found: &found };
    let mut inserts = Vec::new();
    let mut before: Option<&Batch> = None;
    for (hole, run) in &filled {
        // The entry before a hole may be of another one.
        let before_run = before.map(|batch| batch.header);
        before = run.last().or(before);
        let before_run = before_run.filter(|header| header.index.next() == hole.damage.from_index);
        work.check_terms(hole, run, before_run.map(|header| header.term))?;
        inserts.push(work.place(hole, run)?);
    }
    if !inserts.is_empty() {
        let written = work.write(&inserts)?;
        work.put_in_place(&written, filled.iter().any(|(hole, _)| hole.lost.is_some()))?;
    }
    let is_filled = |hole: &Hole| filled.iter().any(|(f, _)| f.damage == hole.damage);
    let of = |mended: bool| holes.iter().filter(move |hole| is_filled(hole) == mended);
    let report = MendReport {
        mended: of(true).map(|hole| hole.damage.clone()).collect(),
        left: of(false).map(|hole| hole.damage.clone()).collect(),
        lost_end: of(false).find_map(|hole| hole.lost),
    };
    let end = filled.iter().find(|(hole, _)| hole.lost.is_some()).and_then(|(_, run)| run.last());
    if let Some(end) = end.map(|batch| batch.header) {
        let point = Point { term: end.term, index: end.index, end_offset: end.end_offset() };
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

/// Batches that follow one another without a gap, apart where a hole ends and the next begins.
fn runs(batches: Vec<Batch>, holes: &[Hole]) -> Vec<Vec<Batch>> {
    let mut runs: Vec<Vec<Batch>> = Vec::new();
    for batch in batches {
        let begins = holes.iter().any(|hole| hole.damage.from_index == batch.header.index);
        match runs.last_mut() {
            Some(run)
                if !begins
                    && run.last().map(|b| b.header.index.next()) == Some(batch.header.index) =>
            {
                run.push(batch);
            }
            _ => runs.push(vec![batch]),
        }
    }
    runs
}

/// Whether entries are what the hole lacks.
fn check_run(hole: &Hole, run: &[Batch]) -> Result<(), MendError> {
    let Damage { from, resume, resume_index, .. } = hole.damage;
    let (mut offset, mut term) = (from, Term(0));
    for Batch { header, body } in run {
        let no = |why: String| Err(MendError::DoesNotFit { index: header.index, why });
        if header.base_offset != offset {
            return no(format!("it begins with offset {}, not {offset}", header.base_offset));
        }
        if header.term < term {
            return no(format!("its term is {}, after one of {term}", header.term));
        }
        if header.body_len as usize != body.len() || body.len() > BODY_BYTES_MAX {
            return no(format!("its body has {} bytes, not {}", body.len(), header.body_len));
        }
        if header.kind != BatchKind::Records && header.records > 0 {
            return no("it holds records, but is of a kind that has none".to_owned());
        }
        if let Some(lost) = hole.lost
            && (header.term, header.index) == (lost.term, lost.upto_index)
            && header.end_offset() != resume
        {
            return no(format!("it ends with offset {}, not {resume}", header.end_offset()));
        }
        (offset, term) = (header.end_offset(), header.term);
    }
    let Some(last) = run.last().map(|batch| batch.header) else { return Ok(()) };
    match hole.lost {
        Some(lost) if (last.term, last.index) < (lost.term, lost.upto_index) => {
            Err(MendError::FallsShort { upto: last.index, term: last.term, lost })
        }
        Some(_) => Ok(()),
        None if (last.index.next(), offset) == (resume_index, resume) => Ok(()),
        None => Err(MendError::DoesNotFill { upto: last.index, end: offset, resume_index, resume }),
    }
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
    fn place<'b>(&self, hole: &Hole, run: &'b [Batch]) -> Result<Insert<'b>, MendError> {
        let damage = &hole.damage;
        let segments = &self.found.segments;
        let own = segments.iter().position(|segment| segment.path == damage.segment);
        let fresh = self.name_between(hole);
        let insert = match own {
            // Before every segment: one of its own, unless the first one has its name already.
            Some(at) if (damage.position, damage.bytes) == (0, 0) => {
                let first = Insert::within(&segments[at], damage, run);
                fresh.map_or(first, |name| Insert::alone(self.dir, name, run))
            }
            Some(at) if !is_behind_end(&segments[at], damage) => {
                Insert::within(&segments[at], damage, run)
            }
            _ => match fresh {
                Some(name) => Insert::alone(self.dir, name, run),
                None => {
                    let why = format!("no segment of {} can take it", self.dir.display());
                    return Err(MendError::DoesNotFit { index: damage.from_index, why });
                }
            },
        };
        Ok(insert)
    }

    /// The name of a segment for the hole alone, if it sorts where it belongs.
    fn name_between(&self, hole: &Hole) -> Option<SegmentName> {
        let Damage { from, from_index, .. } = hole.damage;
        let behind = self.found.segments.iter().position(|segment| {
            segment.summary().next_index > from_index && !self.goes(segment, hole)
        });
        let behind = behind.unwrap_or_else(|| {
            self.found.segments.iter().filter(|segment| !self.goes(segment, hole)).count()
        });
        let before = behind.checked_sub(1).map(|at| self.found.segments[at].name);
        let name = SegmentName::after(before, from, from_index);
        let next = self.found.segments.get(behind).filter(|segment| !self.goes(segment, hole));
        next.is_none_or(|next| name < next.name).then_some(name)
    }

    /// Whether a segment is the empty one behind a lost end.
    fn goes(&self, segment: &Arc<Segment>, hole: &Hole) -> bool {
        hole.lost.is_some() && self.found.segments.last().is_some_and(|l| Arc::ptr_eq(l, segment))
    }

    /// Terms never fall, over the hole's edges neither.
    fn check_terms(
        &self,
        hole: &Hole,
        run: &[Batch],
        before: Option<Term>,
    ) -> Result<(), MendError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let Damage { from_index, resume_index, .. } = hole.damage;
        let no = |index, why| Err(MendError::DoesNotFit { index, why });
        let before = match (before, from_index.0.checked_sub(1).map(RaftIndex)) {
            (None, Some(index)) => self.term_of(index)?,
            (known, _) => known,
        };
        if let Some(term) = before.filter(|term| *term > first.header.term) {
            let why = format!("its term is {}, after one of {term}", first.header.term);
            return no(first.header.index, why);
        }
        if hole.lost.is_none()
            && let Some(term) = self.term_of(resume_index)?.filter(|term| *term < last.header.term)
        {
            let why = format!("its term is {}, before one of {term}", last.header.term);
            return no(last.header.index, why);
        }
        Ok(())
    }

    /// The term of an entry; none where the log does not know it.
    fn term_of(&self, index: RaftIndex) -> Result<Option<Term>, MendError> {
        if let Some(purged) = self.found.purged.filter(|point| point.index == index) {
            return Ok(Some(purged.term));
        }
        let holds = |segment: &&Arc<Segment>| {
            let summary = segment.summary();
            (summary.first_index..summary.next_index).contains(&index)
        };
        let Some(segment) = self.found.segments.iter().find(holds) else { return Ok(None) };
        let summary = segment.summary();
        if summary.next_index == index.next() && segment.damages.lock().is_empty() {
            return Ok(Some(summary.last_term));
        }
        let Some(file) = segment.file() else { return Ok(None) };
        let at = io_error("read", &segment.path);
        let mut cursor = Cursor::new(&**file, 0, summary.size, None, READ_CHUNK_BYTES);
        let term = loop {
            match cursor.step() {
                Err(error) => return Err(at(error)),
                Ok(Step::Batch(_, batch)) if batch.header.index == index => {
                    break Some(batch.header.term);
                }
                Ok(Step::Batch(..)) => {}
                Ok(Step::End) => break None,
                Ok(Step::Broken) => match segment.damage_at(cursor.position()) {
                    Some(known) if known.resume_index > index => break None,
                    Some(known) => {
                        let next = Next { index: known.resume_index, offset: known.resume };
                        cursor.jump(known.position + known.bytes, next);
                    }
                    None => break None,
                },
            }
        };
        Ok(term)
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
    fn put_in_place(&self, written: &[Written], fills_end: bool) -> Result<(), MendError> {
        let sync_names = || self.disk.sync_dir(self.dir).map_err(io_error("sync", self.dir));
        let last = self.found.segments.last().filter(|last| last.summary().size == 0);
        if fills_end && let Some(empty) = last {
            remove_segment(self.disk, &empty.path).map_err(io_error("remove", &empty.path))?;
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
