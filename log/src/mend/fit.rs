//! Whether entries that were given are this log's, and where they go.
//!
//! Raft's own rule, log matching: where two logs hold an entry of the same index and term they are
//! the same up to there. What was given is committed, so it is what the log must hold. It begins
//! with the entry before the hole, which tells whether the log is the same up to it; it may go on
//! with the one behind, which tells the same of the other side.

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex};

use super::holes::{Hole, first_index};
use super::{MendError, io_error};
use crate::format::{BODY_BYTES_MAX, Batch, BatchHeader, BatchKind};
use crate::recovery::Recovered;
use crate::report::Damage;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::Segment;

/// Entries, and the place in a segment that they fill.
pub(super) struct Fit<'a> {
    /// What they come in place of.
    pub damage: Damage,
    pub run: &'a [Batch],
    /// The log ends with them: what stands behind is not what follows on them.
    pub ends: bool,
    /// The first entry of those that are here and that others come in place of.
    pub replaces: Option<RaftIndex>,
}

/// Finds the places of a run of entries. What is before `committed` is the same everywhere.
pub(super) fn fit<'a>(
    found: &Recovered,
    hole: &Hole,
    run: &'a [Batch],
    committed: RaftIndex,
) -> Result<Vec<Fit<'a>>, MendError> {
    check_run(run)?;
    let Damage { from, from_index, resume, resume_index, .. } = hole.damage;
    let no = |header: &BatchHeader, why| Err(MendError::DoesNotFit { index: header.index, why });
    let known_from = run[0].header.index.min(RaftIndex(from_index.0.saturating_sub(1)));
    let known = entries(found, known_from, resume_index)?;
    let in_front = run.partition_point(|batch| batch.header.index < from_index);
    for (place, Batch { header, .. }) in run[..in_front].iter().enumerate() {
        let Some(own) = known.get(&header.index) else { continue };
        if is_same(&own.header, header) {
            continue;
        }
        if header.index < committed {
            return no(header, "another one is here, and was committed".to_owned());
        }
        // Before what is committed nothing differs, and before the first nothing is here.
        if place == 0 && header.index > committed.max(first_index(found)) {
            return Err(MendError::Differs(header.index));
        }
        let replaces = Some(header.index);
        return Ok(vec![Fit { damage: own.as_damage(), run: &run[place..], ends: true, replaces }]);
    }
    let fills = &run[in_front..];
    let Some(first) = fills.first().map(|batch| batch.header) else {
        return Err(MendError::NoHole(run[0].header.index));
    };
    if first.base_offset != from {
        return no(&first, format!("it begins with offset {}, not {from}", first.base_offset));
    }
    if in_front == 0
        && from_index > committed.max(first_index(found))
        && known.contains_key(&RaftIndex(from_index.0 - 1))
    {
        return no(&first, "the entry before it must come with it".to_owned());
    }
    check_terms(found, &first)?;
    if hole.lost.is_some() {
        check_end(hole, fills)?;
        return Ok(vec![Fit {
            damage: hole.parts[0].clone(),
            run: fills,
            ends: true,
            replaces: None,
        }]);
    }
    let count = fills.partition_point(|batch| batch.header.index < resume_index);
    let (fills, behind) = fills.split_at(count);
    let last = fills.last().map(|batch| batch.header);
    let end = last.map_or(from, |last| last.end_offset());
    let upto = run.last().map_or(from_index, |batch| batch.header.index);
    let does_not_fill = || MendError::DoesNotFill { upto, end, resume_index, resume };
    let last = last.filter(|last| last.index.next() == resume_index && behind.len() <= 1);
    let last = last.ok_or_else(does_not_fill)?;
    let differs = match known.get(&resume_index) {
        Some(own) => {
            let differs = behind.first().is_some_and(|b| !is_same(&own.header, &b.header));
            differs || end != resume || last.term > own.header.term
        }
        // Nothing can be read there: the next hole, or the end. What was there began elsewhere.
        None => end != resume,
    };
    if !differs {
        return Ok(by_segment(found, hole, fills));
    }
    if resume_index < committed {
        return no(&last, "what follows here was committed, and does not follow on it".to_owned());
    }
    let damage = hole.parts[0].clone();
    Ok(vec![Fit { damage, run: fills, ends: true, replaces: Some(resume_index) }])
}

/// A hole that lacks nothing.
pub(super) fn nothing_in<'a>(hole: &Hole) -> Fit<'a> {
    Fit { damage: hole.damage.clone(), run: &[], ends: false, replaces: None }
}

/// Entries of a hole over several segments, apart where each segment begins.
fn by_segment<'a>(found: &Recovered, hole: &Hole, run: &'a [Batch]) -> Vec<Fit<'a>> {
    let begin = |part: &Damage| {
        let segment = found.segments.iter().find(|segment| segment.path == part.segment);
        segment.map_or(part.from, |segment| segment.name.offset)
    };
    let ends = hole.parts[1..].iter().map(begin).chain([Offset(u64::MAX)]);
    let mut rest = run;
    let mut fits = Vec::new();
    for (part, end) in hole.parts.iter().zip(ends) {
        let (run, more) = rest.split_at(rest.partition_point(|b| b.header.base_offset < end));
        rest = more;
        fits.push(Fit { damage: part.clone(), run, ends: false, replaces: None });
    }
    fits
}

/// Whether entries follow one another.
fn check_run(run: &[Batch]) -> Result<(), MendError> {
    let mut before: Option<BatchHeader> = None;
    for Batch { header, body } in run {
        let no = |why: String| Err(MendError::DoesNotFit { index: header.index, why });
        if let Some(before) = before {
            if header.index != before.index.next() {
                return no(format!("it comes behind entry {}", before.index));
            }
            if header.base_offset != before.end_offset() {
                let offset = before.end_offset();
                return no(format!("it begins with offset {}, not {offset}", header.base_offset));
            }
            if header.term < before.term {
                return no(format!("its term is {}, after one of {}", header.term, before.term));
            }
        }
        if header.body_len as usize != body.len() || body.len() > BODY_BYTES_MAX {
            return no(format!("its body has {} bytes, not {}", body.len(), header.body_len));
        }
        if header.kind != BatchKind::Records && header.records > 0 {
            return no("it holds records, but is of a kind that has none".to_owned());
        }
        before = Some(*header);
    }
    Ok(())
}

/// Terms never fall, behind a purge neither.
fn check_terms(found: &Recovered, first: &BatchHeader) -> Result<(), MendError> {
    let purged = found.purged.filter(|point| point.index.next() == first.index);
    match purged.filter(|point| point.term > first.term) {
        Some(point) => {
            let why = format!("its term is {}, after one of {}", first.term, point.term);
            Err(MendError::DoesNotFit { index: first.index, why })
        }
        None => Ok(()),
    }
}

/// Whether entries make up for an end that is lost.
fn check_end(hole: &Hole, run: &[Batch]) -> Result<(), MendError> {
    let (Some(lost), Some(last)) = (hole.lost, run.last().map(|batch| batch.header)) else {
        return Ok(());
    };
    if (last.term, last.index) < (lost.term, lost.upto_index) {
        return Err(MendError::FallsShort { upto: last.index, term: last.term, lost });
    }
    let resume = hole.damage.resume;
    let acknowledged = run.iter().map(|batch| batch.header);
    let mut acknowledged =
        acknowledged.filter(|h| (h.term, h.index) == (lost.term, lost.upto_index));
    match acknowledged.find(|header| header.end_offset() != resume) {
        Some(header) => {
            let why = format!("it ends with offset {}, not {resume}", header.end_offset());
            Err(MendError::DoesNotFit { index: header.index, why })
        }
        None => Ok(()),
    }
}

fn is_same(own: &BatchHeader, given: &BatchHeader) -> bool {
    (own.term, own.end_offset()) == (given.term, given.end_offset())
}

/// An entry of the log, and where it stands.
struct Own<'a> {
    segment: &'a Arc<Segment>,
    position: u64,
    header: BatchHeader,
}

impl Own<'_> {
    /// What goes, from this entry on, as a hole without an end.
    fn as_damage(&self) -> Damage {
        let BatchHeader { base_offset, index, .. } = self.header;
        Damage {
            segment: self.segment.path.clone(),
            position: self.position,
            bytes: 0,
            from: base_offset,
            resume: self.header.end_offset(),
            from_index: index,
            resume_index: index.next(),
            file: self.segment.path.clone(),
        }
    }
}

/// The entries of a stretch, the last included, as far as they can be read.
fn entries(
    found: &Recovered,
    from: RaftIndex,
    upto: RaftIndex,
) -> Result<BTreeMap<RaftIndex, Own<'_>>, MendError> {
    let mut entries = BTreeMap::new();
    for segment in &found.segments {
        let summary = segment.summary();
        let Some(file) = segment.file() else { continue };
        if summary.first_index > upto || summary.next_index <= from {
            continue;
        }
        let mut cursor = Cursor::new(&**file, 0, summary.size, None, READ_CHUNK_BYTES);
        loop {
            match cursor.step().map_err(io_error("read", &segment.path))? {
                Step::Batch(_, batch) if batch.header.index > upto => break,
                Step::Batch(position, batch) if batch.header.index >= from => {
                    let header = batch.header;
                    entries.insert(header.index, Own { segment, position, header });
                }
                Step::Batch(..) => {}
                Step::End => break,
                Step::Broken => match segment.damage_at(cursor.position()) {
                    Some(known) if known.resume_index <= upto && known.bytes > 0 => {
                        let next = Next { index: known.resume_index, offset: known.resume };
                        cursor.jump(known.position + known.bytes, next);
                    }
                    _ => break,
                },
            }
        }
    }
    Ok(entries)
}
