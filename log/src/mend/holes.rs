//! What a log lacks, as stretches that can be asked for.

use aklight_common::RaftIndex;

use crate::recovery::Recovered;
use crate::report::{Damage, LostEnd};

/// What the log lacks in one stretch, and whether it is its end.
pub(super) struct Hole {
    /// All of it; where it begins is in the first part's segment.
    pub damage: Damage,
    pub lost: Option<LostEnd>,
    /// What recovery found. Usually one; but the end of a segment and the head of the next may both
    /// be damaged, and a segment's name tells with which offset it begins, not with which entry.
    pub parts: Vec<Damage>,
}

/// The holes of a log, in order. What a purge has taken the meaning from is none.
pub(super) fn holes_of(found: &Recovered) -> Vec<Hole> {
    let mut damaged = found.report.damaged.clone();
    if let Some(purged) = found.purged {
        damaged.retain(|d| d.resume_index > purged.index.next() || d.resume > purged.end_offset);
    }
    damaged.sort_by_key(|damage| (damage.from_index, damage.from, damage.resume_index));
    let mut holes: Vec<Hole> = Vec::new();
    for damage in damaged {
        match holes.last_mut() {
            Some(hole) if hole.goes_on_in(&damage) => hole.add(damage),
            _ => holes.push(Hole { damage: damage.clone(), lost: None, parts: vec![damage] }),
        }
    }
    if let Some(lost) = found.report.lost_end
        && let Some(end) = holes.iter_mut().rfind(|hole| hole.damage.from_index == lost.from_index)
    {
        end.lost = Some(lost);
    }
    holes
}

/// The first entry that a log has, or should have.
pub(super) fn first_index(found: &Recovered) -> RaftIndex {
    found.purged.map_or(RaftIndex(0), |point| point.index.next())
}

/// Whether the entries around it follow each other: what lies between is no entry.
fn is_no_entry(damage: &Damage) -> bool {
    (damage.from_index, damage.from) == (damage.resume_index, damage.resume) && damage.bytes > 0
}

impl Hole {
    /// Whether nothing is missing there.
    pub(super) fn lacks_nothing(&self) -> bool {
        self.lost.is_none() && is_no_entry(&self.damage)
    }

    /// Whether offsets are missing of which no entry is known, and the next damage begins with them.
    fn goes_on_in(&self, next: &Damage) -> bool {
        let Damage { from, resume, from_index, resume_index, .. } = self.damage;
        from_index == resume_index
            && from < resume
            && (next.from_index, next.from) == (resume_index, resume)
    }

    fn add(&mut self, damage: Damage) {
        self.damage.resume = damage.resume;
        self.damage.resume_index = damage.resume_index;
        self.parts.push(damage);
    }
}
