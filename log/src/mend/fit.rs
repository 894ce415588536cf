//! Whether entries that were given are this log's, and where they go.
//!
//! Raft's own rule, log matching: where two logs hold an entry of the same index and term they are
//! the same up to there. What was given is committed, so it is what the log must hold. It begins
//! with the entry before the hole, which tells whether the log is the same up to it; it may go on
//! with the one behind, which tells the same of the other side.

use std::sync::Arc;

use aklight_common::{RaftIndex, Term};

use super::{Hole, MendError, first_index, io_error};
use crate::format::{BODY_BYTES_MAX, Batch, BatchHeader, BatchKind};
use crate::recovery::Recovered;
use crate::report::Damage;
use crate::scan::{Cursor, Next, READ_CHUNK_BYTES, Step};
use crate::segment::Segment;

/// Entries, and the place in the log that they fill.
pub(super) struct Fit<'a> {
    /// What they come in place of.
    pub damage: Damage,
    pub run: &'a [Batch],
    /// The log ends with them: what stands behind is not what follows on them.
    pub ends: bool,
    /// The first entry of those that are here and that others come in place of.
    pub replaces: Option<RaftIndex>,
}

/// Finds the place of a run of entries.
pub(super) fn fit<'a>(
    found: &Recovered,
    hole: &Hole,
    run: &'a [Batch],
) -> Result<Fit<'a>, MendError> {
    check_run(hole, run)?;
    let Damage { from, from_index, resume, resume_index, .. } = hole.damage;
    let before = run.partition_point(|batch| batch.header.index < from_index);
    for (place, Batch { header, .. }) in run[..before].iter().enumerate() {
        let Some(own) = entry_at(found, header.index)? else { continue };
        if is_same(&own.header, header) {
            continue;
        }
        if place == 0 && header.index > first_index(found) {
            return Err(MendError::Differs(header.index));
        }
        let replaces = Some(header.index);
        return Ok(Fit { damage: own.as_damage(), run: &run[place..], ends: true, replaces });
    }
    let no = |header: &BatchHeader, why| Err(MendError::DoesNotFit { index: header.index, why });
    let fills = &run[before..];
    let Some(first) = fills.first().map(|batch| batch.header) else {
        return Err(MendError::NoHole(run[0].header.index));
    };
    if first.base_offset != from {
        return no(&first, format!("it begins with offset {}, not {from}", first.base_offset));
    }
    if before == 0
        && let Some(index) = from_index.0.checked_sub(1).map(RaftIndex)
        && let Some(term) = term_of(found, index)?
    {
        if found.purged.is_none_or(|point| point.index < index) {
            return no(&first, "the entry before it must come with it".to_owned());
        }
        if term > first.term {
            return no(&first, format!("its term is {}, after one of {term}", first.term));
        }
    }
    if hole.lost.is_some() {
        let damage = hole.damage.clone();
        return Ok(Fit { damage, run: fills, ends: true, replaces: None });
    }
    let count = fills.partition_point(|batch| batch.header.index < resume_index);
    let (fills, behind) = fills.split_at(count);
    let last = fills[count - 1].header;
    if last.index.next() != resume_index || behind.len() > 1 {
        let (upto, end) = run.last().map_or((last.index, last.end_offset()), |batch| {
            (batch.header.index, batch.header.end_offset())
        });
        return Err(MendError::DoesNotFill { upto, end, resume_index, resume });
    }
    let ends = match entry_at(found, resume_index)? {
        Some(own) => {
            let differs = behind.first().is_some_and(|b| !is_same(&own.header, &b.header));
            differs || last.end_offset() != resume || last.term > own.header.term
        }
        // Nothing can be read there: the next hole, or the end.
        None if last.end_offset() == resume => false,
        None => {
            let (upto, end) = (last.index, last.end_offset());
            return Err(MendError::DoesNotFill { upto, end, resume_index, resume });
        }
    };
    let replaces = ends.then_some(resume_index);
    Ok(Fit { damage: hole.damage.clone(), run: fills, ends, replaces })
}

/// Whether entries follow one another, and make up for an end that is lost.
fn check_run(hole: &Hole, run: &[Batch]) -> Result<(), MendError> {
    let mut before: Option<BatchHeader> = None;
    for Batch { header, body } in run {
        let no = |why: String| Err(MendError::DoesNotFit { index: header.index, why });
        if let Some(before) = before {
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
        if let Some(lost) = hole.lost
            && (header.term, header.index) == (lost.term, lost.upto_index)
            && header.end_offset() != hole.damage.resume
        {
            let resume = hole.damage.resume;
            return no(format!("it ends with offset {}, not {resume}", header.end_offset()));
        }
        before = Some(*header);
    }
    match (hole.lost, before) {
        (Some(lost), Some(last)) if (last.term, last.index) < (lost.term, lost.upto_index) => {
            Err(MendError::FallsShort { upto: last.index, term: last.term, lost })
        }
        _ => Ok(()),
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

/// The term of an entry; none where the log does not know it.
fn term_of(found: &Recovered, index: RaftIndex) -> Result<Option<Term>, MendError> {
    if let Some(purged) = found.purged.filter(|point| point.index == index) {
        return Ok(Some(purged.term));
    }
    Ok(entry_at(found, index)?.map(|own| own.header.term))
}

/// An entry; none where the log has none that can be read.
fn entry_at(found: &Recovered, index: RaftIndex) -> Result<Option<Own<'_>>, MendError> {
    let holds = |segment: &&Arc<Segment>| {
        let summary = segment.summary();
        (summary.first_index..summary.next_index).contains(&index)
    };
    let Some(segment) = found.segments.iter().find(holds) else { return Ok(None) };
    let Some(file) = segment.file() else { return Ok(None) };
    let size = segment.summary().size;
    let mut cursor = Cursor::new(&**file, 0, size, None, READ_CHUNK_BYTES);
    loop {
        match cursor.step().map_err(io_error("read", &segment.path))? {
            Step::Batch(position, batch) if batch.header.index == index => {
                return Ok(Some(Own { segment, position, header: batch.header }));
            }
            Step::Batch(..) => {}
            Step::End => return Ok(None),
            Step::Broken => match segment.damage_at(cursor.position()) {
                Some(known) if known.resume_index <= index => {
                    let next = Next { index: known.resume_index, offset: known.resume };
                    cursor.jump(known.position + known.bytes, next);
                }
                _ => return Ok(None),
            },
        }
    }
}
