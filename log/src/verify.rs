//! Reads a log's folder through without touching it, whether a broker runs on it or not.
//!
//! [`Entries`] walks through every batch of every segment, sidecars unbelieved, and hands out what
//! identifies it, or the [`Problem`] that stands in its place. [`verify`] walks to the end and looks
//! at the small files too. Whoever has several replicas walks through each and compares entry by
//! entry: an [`Entry`] is the same on every broker, and small. (The checksum on disk is not: it
//! covers how much was synced when the batch was written.)
//!
//! A running broker appends, cuts and removes meanwhile. So the hint is read before the folder is
//! listed: what was acknowledged by then must be whole. Behind it a half-written end of the last
//! segment is no damage. And before anything is called a problem the marks are read again: what was
//! truncated or purged since is none. What is left of such races [`verify`] settles by looking
//! again; whoever walks through [`Entries`] himself does the same.
//!
//! Invariant: nothing is opened for writing, made, removed or locked. Left out: sidecars, which
//! any opening builds again, and what a body means.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aklight_common::{Offset, RaftIndex, Term};

use crate::checkpoint;
use crate::compressed;
use crate::disk::{Disk, DiskFile};
use crate::errors::OpenError;
use crate::format::{Batch, BatchKind};
use crate::marks::{Hint, Point, decode_point};
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step, is_vouched_for, next_good, read_rest};
use crate::segment::SegmentName;
use crate::slots::{Opened, Slots};
use crate::state::Bounds;

/// How often a small file is read before it is called damaged: a broker may be writing to it, and
/// writes one of its two slots at a time.
const SLOT_READS_MAX: usize = 3;

/// How often a folder is read through that shows problems while a broker writes to it: what was
/// truncated and written anew between two reads does not fit together; real damage stays.
const TRIES_MAX: usize = 3;

/// An entry, as it is on every replica that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Place in the Raft log.
    pub index: RaftIndex,
    /// Raft term.
    pub term: Term,
    /// What the body is.
    pub kind: BatchKind,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// How many offsets the entry takes.
    pub records: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
}

impl Entry {
    fn of(batch: &Batch) -> Self {
        let header = &batch.header;
        Self {
            index: header.index,
            term: header.term,
            kind: header.kind,
            base_offset: header.base_offset,
            records: header.records,
            body_bytes: header.body_len,
            body_crc: crc32c::crc32c(&batch.body),
        }
    }

    /// The offset after the entry's last record.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0 + self.records as u64)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// Bytes that are not what was written.
    Damaged,
    /// Entries or offsets that should be there and are not.
    Missing,
    /// Entries that are there twice, or out of order.
    OutOfOrder,
    /// A term below that of the entry before.
    TermFalls,
    /// Entries that were acknowledged, and behind which the log ends too early.
    LostEnd,
    /// A small file that cannot be decoded, or is missing.
    SmallFile,
    /// What the system said when it was read.
    Unreadable(String),
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// The file; the folder where a whole segment is missing.
    pub file: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// The first entry and offset that are concerned.
    pub from: (RaftIndex, Offset),
    /// The entry and the offset at which the log is right again, where it is.
    pub resume: Option<(RaftIndex, Offset)>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, file, position, bytes, from, resume } = self;
        let file = file.display();
        match kind {
            ProblemKind::SmallFile => return write!(f, "{file} is missing or damaged"),
            ProblemKind::Unreadable(why) => return write!(f, "{file} cannot be read: {why}"),
            ProblemKind::Damaged => {
                write!(f, "{file} is damaged at byte {position} for {bytes} bytes")?
            }
            ProblemKind::Missing => write!(f, "entries are missing in {file} at byte {position}")?,
            ProblemKind::OutOfOrder => write!(f, "{file} is out of order at byte {position}")?,
            ProblemKind::TermFalls => write!(f, "the term falls in {file} at byte {position}")?,
            ProblemKind::LostEnd => {
                write!(f, "the acknowledged end is missing in {file} at byte {position}")?
            }
        }
        write!(f, ": from entry {} and offset {}", from.0, from.1)?;
        match resume {
            Some((index, offset)) => {
                write!(f, " up to entry {index} and offset {offset}, the last not included")
            }
            None => write!(f, " on"),
        }
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Where the log begins and ends; `flushed` is what the hint says was acknowledged.
    pub bounds: Bounds,
    /// What the caller of the log last noted as committed, in its own bytes.
    pub committed: Option<Vec<u8>>,
    /// How many segments there are.
    pub segments: usize,
    /// How many good entries they hold.
    pub entries: u64,
    /// How many records those hold.
    pub records: u64,
    /// What is wrong, in the order of the log.
    pub problems: Vec<Problem>,
}

/// Reads a log's folder through: every batch, and the small files.
///
/// # Errors
/// When there is no log, or its folder cannot be listed. All else is a [`Problem`].
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Verified, OpenError> {
    let mut tries = 0;
    loop {
        let (verified, marks) = look_through(disk, dir)?;
        tries += 1;
        let is_still = marks == Marks::read(disk, dir);
        if verified.problems.is_empty() || is_still || tries == TRIES_MAX {
            return Ok(verified);
        }
    }
}

fn look_through(disk: &dyn Disk, dir: &Path) -> Result<(Verified, Marks), OpenError> {
    let mut walk = Entries::open(disk, dir)?;
    let mut verified = Verified { segments: walk.segments.len(), ..Verified::default() };
    let mut first = None;
    for found in &mut walk {
        match found {
            Ok(entry) => {
                verified.entries += 1;
                verified.records += u64::from(entry.records);
                first.get_or_insert(entry);
            }
            Err(problem) => verified.problems.push(problem),
        }
    }
    verified.problems.extend(small_files(disk, dir));
    verified.committed = walk.marks.hint.committed.clone();
    let (purged, end) = (walk.marks.purged, walk.end());
    let start = purged.map_or(Offset(0), |point| point.end_offset);
    verified.bounds = Bounds {
        purged: purged.map(|point| (point.term, point.index)),
        first: purged.map_or(first.map_or(RaftIndex(0), |entry| entry.index), |p| p.index.next()),
        last: walk.last,
        start_offset: start,
        end_offset: end.offset.max(start),
        flushed: walk.marks.hint.acknowledged.map(|point| point.index),
        written: walk.last.map(|last| last.1),
        bytes: walk.bytes,
    };
    Ok((verified, walk.marks))
}

/// The purge mark and the hint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marks {
    purged: Option<Point>,
    hint: Hint,
}

impl Marks {
    fn read(disk: &dyn Disk, dir: &Path) -> Self {
        let value = |name| match read_slots(disk, &dir.join(name)) {
            Ok(Opened::Value(slots)) => slots.value().to_vec(),
            // What cannot be read is told by `small_files`; nothing is known then.
            _ => Vec::new(),
        };
        Self { purged: decode_point(&value("purged")), hint: Hint::decode(&value("committed")) }
    }
}

/// Every entry of a folder, in order, or the problem that stands in its place.
pub struct Entries<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    /// As they were before the folder was listed.
    marks: Marks,
    segments: VecDeque<SegmentName>,
    /// What was found in the segment that was read last: one at a time.
    found: VecDeque<Result<Entry, Problem>>,
    /// What must come next; none where that is not known.
    next: Option<Next>,
    last: Option<(Term, RaftIndex)>,
    bytes: u64,
    /// Where the last segment ended, for what is said of the log's end.
    ended: (PathBuf, u64),
    is_over: bool,
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<'a> Entries<'a> {
    /// Begins to walk through a log's folder.
    ///
    /// # Errors
    /// When there is no log, or its folder cannot be listed.
    pub fn open(disk: &'a dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let marks = Marks::read(disk, dir);
        let refused =
            |source| OpenError::Io { what: "find a log in", path: dir.to_owned(), source };
        let names = disk.list(dir).map_err(refused)?;
        let mut segments: Vec<SegmentName> = names.iter().filter_map(|n| n.parse().ok()).collect();
        segments.sort_unstable();
        if segments.is_empty() && !names.iter().any(|name| name == "vote") {
            return Err(refused(io::ErrorKind::NotFound.into()));
        }
        let purged = marks.purged.map(|p| Next { index: p.index.next(), offset: p.end_offset });
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            segments: segments.into(),
            found: VecDeque::new(),
            next: purged,
            last: marks.purged.map(|point| (point.term, point.index)),
            marks,
            bytes: 0,
            ended: (dir.to_owned(), 0),
            is_over: false,
        })
    }

    /// What would come next.
    fn end(&self) -> Next {
        self.next.unwrap_or(Next { index: RaftIndex(0), offset: Offset(0) })
    }

    /// Reads the next segment through.
    fn read_segment(&mut self, name: SegmentName) {
        let path = self.dir.join(name.file());
        let is_last = self.segments.is_empty();
        let scanned = compressed::open_read(self.disk, &path)
            .and_then(|segment| self.scan(name, &path, &*segment.file, is_last));
        if let Err(error) = scanned {
            // A segment that is gone was purged or truncated, or its absence shows as a gap.
            if error.kind() != io::ErrorKind::NotFound {
                let next = self.end();
                let problem = ProblemKind::Unreadable(error.to_string());
                self.report(problem, &path, (0, 0), next, None);
                self.next = None;
            }
        }
    }

    fn scan(
        &mut self,
        name: SegmentName,
        path: &Path,
        file: &dyn DiskFile,
        is_last: bool,
    ) -> io::Result<()> {
        let size = file.size()?;
        let start = self.next.filter(|next| next.offset >= name.offset);
        let start = start.unwrap_or(Next { index: self.end().index, offset: name.offset });
        let mut cursor = Cursor::new(file, 0, size, None, READ_CHUNK_BYTES);
        loop {
            match cursor.step()? {
                Step::Batch(position, batch) => {
                    self.take(path, position, &batch);
                    self.bytes += batch.header.stored_len();
                    continue;
                }
                Step::End => break,
                Step::Broken => {}
            }
            let position = cursor.position();
            let rest = read_rest(file, position, size)?;
            let content = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            let rest = &rest[..content];
            let next = cursor.next().unwrap_or(start);
            if content == 0 || (is_last && self.may_be_unfinished(rest, next)) {
                break;
            }
            let Some(found) = next_good(rest, 0, next) else {
                self.report(ProblemKind::Damaged, path, (position, content as u64), next, None);
                // What the next segment begins with, or the hint, tells how far it reaches.
                break;
            };
            let stretch = (position, found.at as u64);
            self.report(ProblemKind::Damaged, path, stretch, next, Some(found.next));
            self.next = Some(found.next);
            cursor.jump(position + found.at as u64, found.next);
        }
        self.ended = (path.to_owned(), cursor.position());
        Ok(())
    }

    /// Whether bytes at the end of the last segment may be a write that is not acknowledged.
    fn may_be_unfinished(&self, rest: &[u8], next: Next) -> bool {
        let acknowledged = self.marks.hint.acknowledged;
        acknowledged.is_none_or(|point| point.index < next.index) && !is_vouched_for(rest, next)
    }

    /// Takes a good batch, and compares it with what should have come.
    fn take(&mut self, path: &Path, position: u64, batch: &Batch) {
        let entry = Entry::of(batch);
        let begins = Next { index: entry.index, offset: entry.base_offset };
        // What is purged need not be there, nor follow on.
        let is_purged = self.marks.purged.is_some_and(|point| entry.index <= point.index);
        if is_purged {
            return;
        }
        let expected = match (self.next, self.last) {
            // Without a purge offsets begin at 0, entries where the log was begun.
            (None, None) if self.found.is_empty() => {
                let name = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                let is_begin = name == Some(SegmentName::BEGIN);
                let index = if is_begin { begins.index } else { RaftIndex(0) };
                Some(Next { index, offset: Offset(0) })
            }
            (next, _) => next,
        };
        if let Some(next) = expected.filter(|next| *next != begins) {
            let is_ahead = begins.index >= next.index && begins.offset >= next.offset;
            let kind = if is_ahead { ProblemKind::Missing } else { ProblemKind::OutOfOrder };
            self.report(kind, path, (position, 0), next, Some(begins));
        }
        if self.last.is_some_and(|(term, _)| entry.term < term) {
            self.report(ProblemKind::TermFalls, path, (position, 0), begins, None);
        }
        self.next = Some(Next { index: entry.index.next(), offset: entry.end_offset() });
        self.last = Some((entry.term, entry.index));
        self.found.push_back(Ok(entry));
    }

    /// Notes a problem, unless what it is about was truncated or purged meanwhile.
    fn report(
        &mut self,
        kind: ProblemKind,
        path: &Path,
        (position, bytes): (u64, u64),
        from: Next,
        resume: Option<Next>,
    ) {
        let now = Marks::read(self.disk, &self.dir);
        let upto = resume.map_or(from.index, |resume| RaftIndex(resume.index.0.max(1) - 1));
        let is_purged = now.purged.is_some_and(|point| upto <= point.index);
        let (then, since) = (self.marks.hint.acknowledged, now.hint.acknowledged);
        let is_truncated = since < then && since.is_none_or(|point| point.index < from.index);
        if is_purged || is_truncated {
            self.is_over |= is_truncated;
            return;
        }
        self.found.push_back(Err(Problem {
            kind,
            file: path.to_owned(),
            position,
            bytes,
            from: (from.index, from.offset),
            resume: resume.map(|resume| (resume.index, resume.offset)),
        }));
    }

    /// Compares the end with what was acknowledged.
    fn check_end(&mut self) {
        let Some(point) = self.marks.hint.acknowledged else { return };
        if self.last.is_some_and(|last| last >= (point.term, point.index)) {
            return;
        }
        let (path, position) = self.ended.clone();
        let resume = Next { index: point.index.next(), offset: point.end_offset };
        let from = self.end();
        self.report(ProblemKind::LostEnd, &path, (position, 0), from, Some(resume));
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            if self.is_over {
                return None;
            }
            match self.segments.pop_front() {
                Some(name) => self.read_segment(name),
                None => {
                    self.is_over = true;
                    self.check_end();
                }
            }
        }
    }
}

fn read_slots(disk: &dyn Disk, path: &Path) -> io::Result<Opened> {
    let mut opened = Opened::Damaged;
    for _ in 0..SLOT_READS_MAX {
        opened = Slots::read(disk, path)?;
        if !matches!(opened, Opened::Damaged) {
            break;
        }
    }
    Ok(opened)
}

/// What is wrong with the vote, the marks and the checkpoint.
fn small_files(disk: &dyn Disk, dir: &Path) -> Vec<Problem> {
    let slots = ["vote", "purged", "committed"].into_iter().map(|name| {
        let path = dir.join(name);
        let read = read_slots(disk, &path).map(|opened| matches!(opened, Opened::Value(_)));
        (path, read)
    });
    let path = checkpoint::path(dir);
    let checkpoint = match disk.open_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(_) => checkpoint::read(disk, dir).map(|checkpoint| checkpoint.is_some()),
    };
    let problem = |(file, read): (PathBuf, io::Result<bool>)| {
        let kind = match read {
            Ok(true) => return None,
            Ok(false) => ProblemKind::SmallFile,
            Err(error) => ProblemKind::Unreadable(error.to_string()),
        };
        let from = (RaftIndex(0), Offset(0));
        Some(Problem { kind, file, position: 0, bytes: 0, from, resume: None })
    };
    slots.chain([(path, checkpoint)]).filter_map(problem).collect()
}
