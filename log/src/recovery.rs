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
//! failed sync it may stay there for ever), and Raft is about to be told that it is safe.
//!
//! Left out: mending a damaged log from a peer. The report says enough for the broker to do it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};

use crate::damage::{Broken, set_aside};
use crate::disk::{Disk, DiskFile, DiskLock, write_all_at};
use crate::errors::OpenError;
use crate::index::{SegmentIndex, Summary};
use crate::marks::{Hint, Point, decode_point};
use crate::report::{Damage, OpenReport, TornTail};
use crate::scan::{Cursor, Next, SCAN_CHUNK_BYTES, Step, is_vouched_for, next_good, read_rest};
use crate::segment::{Inside, Segment, SegmentName, sidecar_path};
use crate::sidecar;
use crate::slots::{Opened, Slots};

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
    pub report: OpenReport,
}

/// Opens a log's folder.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Recovered, OpenError> {
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
    let hint_slots = match Slots::open(disk, &hint_path).map_err(at("read", &hint_path))? {
        Opened::Value(slots) => slots,
        Opened::Missing | Opened::Damaged => {
            report.hint_lost = !is_new;
            Slots::create(disk, &hint_path).map_err(at("create", &hint_path))?
        }
    };
    disk.sync_dir(dir).map_err(at("sync", dir))?;
    let hint = Hint::decode(hint_slots.value());
    let purged = decode_point(purge.value());

    let mut recovery = Recovery { disk, dir, acknowledged: hint.acknowledged, purged, report };
    let mut found = Vec::new();
    for (place, name) in segments.iter().enumerate() {
        let start = recovery.start_of(*name, found.last());
        found.push(recovery.load(*name, start, place + 1 == segments.len())?);
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
    acknowledged: Option<Point>,
    purged: Option<Point>,
    report: OpenReport,
}

/// A segment that was looked at.
struct Loaded {
    name: SegmentName,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    summary: Summary,
    /// Only where the segment was read through.
    index: Option<SegmentIndex>,
    damages: Vec<Damage>,
    /// Bytes behind the last good batch that are neither zeros nor damage with a batch behind.
    leftover: u64,
    leftover_holds_batches: bool,
    /// Bytes that are known to have been durable when the last batch was written.
    vouched: u64,
}

impl Loaded {
    const fn next(&self) -> Next {
        Next { index: self.summary.next_index, offset: self.summary.end_offset }
    }

    fn is_empty(&self) -> bool {
        self.summary.first_index == self.summary.next_index
    }
}

/// Where the log ends.
struct End {
    next: Next,
    last: Option<(Term, RaftIndex)>,
    /// Whether the log must go on in a new segment.
    new_segment: bool,
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

    /// An empty last segment says with which offset it goes on, not with which entry: that is
    /// behind whatever is known to have been before it.
    fn place_empty(&self, tail: &mut Loaded) {
        if !tail.is_empty() || tail.leftover > 0 {
            return;
        }
        let before = self.acknowledged.filter(|point| point.end_offset <= tail.name.offset);
        let behind = before.map(|point| point.index.next());
        let index = behind.map_or(tail.summary.next_index, |b| b.max(tail.summary.next_index));
        let placed = SegmentIndex::new(index, tail.name.offset);
        tail.summary = *placed.summary();
        tail.index = Some(placed);
    }

    fn load(&mut self, name: SegmentName, start: Next, last: bool) -> Result<Loaded, OpenError> {
        let path = self.dir.join(name.file());
        let file = self.disk.open(&path).map_err(at("open", &path))?;
        if !last && let Some(index) = self.believe(&path, &*file).map_err(at("read", &path))? {
            let damages = index.damages().to_vec();
            self.report.damaged.extend_from_slice(&damages);
            let summary = *index.summary();
            let (leftover, leftover_holds_batches, vouched) = (0, false, summary.size);
            let index = None;
            return Ok(Loaded {
                name,
                path,
                file,
                summary,
                index,
                damages,
                leftover,
                leftover_holds_batches,
                vouched,
            });
        }
        let loaded = self.scan(name, &path, file, start, last).map_err(at("read", &path))?;
        if !last {
            self.report.indexes_rebuilt.push(path);
            self.put_sidecar(&loaded);
        }
        Ok(loaded)
    }

    /// A sealed segment's index from its sidecar, if both fit together.
    fn believe(&self, path: &Path, file: &dyn DiskFile) -> io::Result<Option<SegmentIndex>> {
        let Some(index) = sidecar::read(self.disk, path)? else { return Ok(None) };
        let summary = *index.summary();
        if summary.size != file.size()? {
            return Ok(None);
        }
        let first = Next { index: summary.first_index, offset: summary.base_offset };
        let mut begin = Cursor::new(file, 0, summary.size, Some(first), 0);
        let mut end = Cursor::new(file, summary.last_position, summary.size, None, 0);
        let fits = matches!(begin.step()?, Step::Batch(..))
            && matches!(end.step()?, Step::Batch(..))
            && end.next() == Some(Next { index: summary.next_index, offset: summary.end_offset })
            && end.position() == summary.size;
        Ok(fits.then_some(index))
    }

    /// Reads a segment through.
    fn scan(
        &mut self,
        name: SegmentName,
        path: &Path,
        file: Arc<dyn DiskFile>,
        start: Next,
        last: bool,
    ) -> io::Result<Loaded> {
        let size = file.size()?;
        let mut index = SegmentIndex::new(start.index, start.offset);
        let (mut leftover, mut leftover_holds_batches) = (0, false);
        let mut cursor = Cursor::new(&*file, 0, size, None, SCAN_CHUNK_BYTES);
        loop {
            match cursor.step()? {
                Step::Batch(position, batch) => {
                    index.add(position, &batch);
                    continue;
                }
                Step::End => break,
                Step::Broken => {}
            }
            let position = cursor.position();
            let rest = read_rest(&*file, position, size)?;
            let content = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            let next = cursor.next().unwrap_or(start);
            let found = next_good(&rest[..content], 0, next);
            let was_durable =
                || !last || self.is_acknowledged(next) || is_vouched_for(&rest[..content], next);
            match found {
                Some(found) if was_durable() => {
                    let broken = Broken {
                        disk: self.disk,
                        segment: path,
                        file: &*file,
                        position,
                        end: size,
                        from: next,
                        behind: found.next,
                    };
                    index.add_damage(broken.describe(found.at as u64, found.next));
                    cursor.jump(position + found.at as u64, found.next);
                }
                _ => {
                    leftover = content as u64;
                    leftover_holds_batches = found.is_some();
                    break;
                }
            }
        }
        self.report.scanned_bytes += cursor.position();
        let vouched = cursor.vouched();
        self.report.damaged.extend_from_slice(index.damages());
        Ok(Loaded {
            name,
            path: path.to_owned(),
            summary: *index.summary(),
            damages: index.damages().to_vec(),
            index: Some(index),
            file,
            leftover,
            leftover_holds_batches,
            vouched,
        })
    }

    fn is_acknowledged(&self, next: Next) -> bool {
        self.acknowledged.is_some_and(|point| point.index >= next.index)
    }

    fn put_sidecar(&self, loaded: &Loaded) {
        if let Some(index) = &loaded.index {
            sidecar::write(self.disk, &loaded.path, index);
        }
    }

    /// Removes the segments that a purge had not yet removed.
    fn drop_purged(&self, found: &mut Vec<Loaded>) -> Result<(), OpenError> {
        let Some(purged) = self.purged else { return Ok(()) };
        let kept_from = purged.index.next();
        let is_purged = |loaded: &Loaded, is_last: bool| match is_last {
            false => loaded.summary.next_index <= kept_from,
            // The last one stays if the log goes on in it.
            true => !loaded.is_empty() && loaded.summary.next_index < kept_from,
        };
        while let Some(first) = found.first()
            && is_purged(first, found.len() == 1)
        {
            remove_segment(self.disk, &first.path).map_err(at("remove", &first.path))?;
            found.remove(0);
        }
        self.disk.sync_dir(self.dir).map_err(at("sync", self.dir))
    }

    /// Compares where each segment ends with where the next begins.
    fn find_gaps(&mut self, found: &mut [Loaded]) {
        let start = self.purged.map(|p| Next { index: p.index.next(), offset: p.end_offset });
        if let Some(first) = found.first_mut() {
            let begins =
                Next { index: first.summary.first_index, offset: first.summary.base_offset };
            // Without a purge the first entry may have any index, but offsets begin at 0.
            let start = start.unwrap_or(Next { index: begins.index, offset: Offset(0) });
            if begins.offset > start.offset || begins.index > start.index {
                let damage = self.gap(first, 0, start, begins);
                self.report.damaged.push(damage);
            }
        }
        for place in 1..found.len() {
            let (before, behind) = found.split_at_mut(place);
            let (before, behind) = (&mut before[place - 1], &behind[0]);
            let (ends, begins) = (
                before.next(),
                Next { index: behind.summary.first_index, offset: behind.summary.base_offset },
            );
            if begins.offset > ends.offset || begins.index > ends.index {
                let damage = self.gap(before, before.leftover, ends, begins);
                before.damages.push(damage.clone());
                self.report.damaged.push(damage);
            }
        }
    }

    /// Damage at the end of a segment's good batches.
    fn gap(&self, segment: &Loaded, bytes: u64, from: Next, resume: Next) -> Damage {
        let broken = Broken {
            disk: self.disk,
            segment: &segment.path,
            file: &*segment.file,
            position: if bytes == 0 && from.index < segment.summary.first_index {
                0
            } else {
                segment.summary.size
            },
            end: segment.summary.size + bytes,
            from,
            behind: resume,
        };
        broken.describe(bytes, resume)
    }

    /// The last entry before the log's end: of a segment, or known from a mark where the entry
    /// itself is purged or lost.
    fn last_before(&self, next: Next, found: &[Loaded]) -> Option<(Term, RaftIndex)> {
        let stored = found.iter().rev().find(|loaded| !loaded.is_empty());
        let stored = stored.map(|l| (l.summary.last_term, l.summary.next_index));
        let known = self.purged.into_iter().chain(self.acknowledged);
        let known = known.map(|point| (point.term, point.index.next()));
        let before = known.chain(stored).filter(|(_, behind)| *behind <= next.index);
        let (term, _) = before.max_by_key(|(_, behind)| *behind)?;
        Some((term, RaftIndex(next.index.0.checked_sub(1)?)))
    }

    /// Decides where the log ends, and cuts off or sets aside what is behind.
    fn settle_end(&mut self, found: &mut [Loaded]) -> Result<End, OpenError> {
        let start = self.purged.map_or(Next { index: RaftIndex(0), offset: Offset(0) }, |point| {
            Next { index: point.index.next(), offset: point.end_offset }
        });
        let next = found.last().map_or(start, Loaded::next);
        let last = self.last_before(next, found);
        let lost = self.acknowledged.filter(|point| point.index >= next.index);

        if let Some(tail) = found.last_mut().filter(|tail| tail.leftover > 0 || lost.is_some()) {
            let position = tail.summary.size;
            if let Some(lost) = lost {
                let resume = resume_behind(lost, next);
                let damage = self.gap(tail, tail.leftover, next, resume);
                tail.damages.push(damage.clone());
                self.report.damaged.push(damage);
            } else {
                let file = tail.leftover_holds_batches.then(|| {
                    set_aside(self.disk, &tail.path, &*tail.file, position, tail.leftover)
                });
                let (segment, bytes) = (tail.path.clone(), tail.leftover);
                tracing::warn!(segment = %segment.display(), position, bytes,
                    "cut off a write that was never finished");
                self.report.torn = Some(TornTail { segment, position, bytes, file });
            }
            tail.file.set_size(position).map_err(at("cut", &tail.path))?;
        } else if let Some(lost) = lost {
            let resume = resume_behind(lost, next);
            let missing = Damage {
                segment: self.dir.to_owned(),
                position: 0,
                bytes: 0,
                from: next.offset,
                resume: resume.offset,
                from_index: next.index,
                resume_index: resume.index,
                file: self.dir.to_owned(),
            };
            tracing::error!(dir = %self.dir.display(), resume = resume.offset.0,
                "every segment of the log is missing");
            self.report.damaged.push(missing);
        }
        Ok(match lost {
            Some(lost) => End {
                next: resume_behind(lost, next),
                last: Some((lost.term, lost.index)),
                new_segment: true,
            },
            None => End { next, last, new_segment: found.is_empty() },
        })
    }

    /// Syncs what was found and makes the segments of the state.
    fn finish(
        mut self,
        mut found: Vec<Loaded>,
        end: End,
        kept: Kept,
    ) -> Result<Recovered, OpenError> {
        if let Some(tail) = found.last() {
            make_durable(tail).map_err(at("sync", &tail.path))?;
        }
        for (slots, name) in [(&kept.vote, "vote"), (&kept.purge, "purged")] {
            slots.rewrite().map_err(at("sync", &self.dir.join(name)))?;
        }
        let before = found.last().map(|loaded| loaded.name);
        let mut allocated = 0;
        let open_one = if end.new_segment { None } else { found.pop() };
        let mut segments = Vec::new();
        for loaded in found {
            if end.new_segment && Some(loaded.name) == before {
                self.put_sidecar(&loaded);
            }
            let Loaded { name, file, summary, damages, .. } = loaded;
            let sealed = Inside::Sealed(summary);
            segments.push(Arc::new(Segment::existing(self.dir, name, sealed, file, damages)));
        }
        segments.push(match open_one {
            Some(Loaded { name, path, file, index: Some(index), damages, .. }) => {
                allocated = file.size().map_err(at("read", &path))?;
                Arc::new(Segment::existing(self.dir, name, Inside::Open(index), file, damages))
            }
            _ => {
                self.create(SegmentName::after(before, end.next.offset, end.next.index), end.next)?
            }
        });
        self.report.segments = segments.len();
        let Kept { lock, vote, purge, hint_slots, hint } = kept;
        Ok(Recovered {
            lock,
            vote,
            purge,
            hint_slots,
            hint,
            purged: self.purged,
            segments,
            last: end.last,
            end_offset: end.next.offset,
            allocated,
            report: self.report,
        })
    }

    fn create(&self, name: SegmentName, next: Next) -> Result<Arc<Segment>, OpenError> {
        let segment = Segment::planned(self.dir, name, next.index, next.offset);
        let file = self.disk.create(&segment.path).map_err(at("create", &segment.path))?;
        segment.set_file(file);
        self.disk.sync_dir(self.dir).map_err(at("sync", self.dir))?;
        Ok(Arc::new(segment))
    }
}

/// Writes again what is not known to have been durable, and syncs it. See [`Slots::rewrite`] for
/// why a sync alone would not do.
fn make_durable(tail: &Loaded) -> io::Result<()> {
    let stretch = read_rest(&*tail.file, tail.vouched, tail.summary.size)?;
    write_all_at(&*tail.file, &mut [IoSlice::new(&stretch)], tail.vouched)?;
    tail.file.sync()
}

/// Where the log goes on when its acknowledged tail is lost.
fn resume_behind(lost: Point, next: Next) -> Next {
    Next { index: lost.index.next(), offset: lost.end_offset.max(next.offset) }
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
