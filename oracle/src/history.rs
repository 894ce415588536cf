//! What all invariants look at: the records that were sent, and what was seen at each offset.
//!
//! An acknowledgement counts as a sight: who is told that a record has an offset has seen it there.

use std::collections::BTreeMap;

use aklight_common::{Offset, PartitionId};

use crate::ledger::Ledger;
use crate::{Event, Outcome, RecordId};

/// A record that was sent. 24 bytes: there are millions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentRecord {
    acked_at: u64,
    pub connection: u32,
    pub key: u32,
    acked_in: u16,
    pub topic: u16,
    /// It was sent more than once, maybe on several connections.
    pub resent: bool,
    /// The last answer was a plain refusal.
    pub refused: bool,
    /// It is sent by PRODUCE_ONCE.
    pub once: bool,
}

const NOT_ACKED: u64 = u64::MAX;

impl SentRecord {
    /// Where it was acknowledged, if it was.
    pub fn acked(&self) -> Option<(PartitionId, Offset)> {
        (self.acked_at != NOT_ACKED)
            .then(|| (PartitionId(u32::from(self.acked_in)), Offset(self.acked_at)))
    }
}

/// What is counted while a history is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records sent, repeats not counted.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Answers that were plain refusals.
    pub refused: u64,
    /// Answers that leave open whether the record is stored.
    pub unknown: u64,
    /// Records that persistent consumers were sent, repeats counted.
    pub delivered: u64,
    /// Records that readers were sent.
    pub read: u64,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct History {
    records: Vec<SentRecord>,
    ledgers: BTreeMap<PartitionId, Ledger>,
    starts: BTreeMap<PartitionId, Offset>,
    ends: BTreeMap<PartitionId, Offset>,
    counts: Counts,
}

impl History {
    /// What is counted.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// A record that was sent.
    pub(crate) fn record(&self, id: RecordId) -> Option<&SentRecord> {
        self.records.get(usize::try_from(id.0).ok()?)
    }

    /// All records that were sent.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordId, &SentRecord)> {
        (0..).map(RecordId).zip(&self.records)
    }

    /// What was seen at a place.
    pub(crate) fn at(&self, partition: PartitionId, offset: Offset) -> Option<RecordId> {
        self.ledgers.get(&partition)?.get(offset)
    }

    /// All partitions and what was seen in them.
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = (PartitionId, &Ledger)> {
        self.ledgers.iter().map(|(partition, ledger)| (*partition, ledger))
    }

    /// The first offset that any replica holds in the end: what is before it was forgotten.
    pub(crate) fn start(&self, partition: PartitionId) -> Option<Offset> {
        self.starts.get(&partition).copied()
    }

    /// Where the replicas end in the end: the lowest of them.
    pub(crate) fn end(&self, partition: PartitionId) -> Option<Offset> {
        self.ends.get(&partition).copied()
    }

    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Sent { record, connection, key, topic, once } => {
                self.note_sent(*record, *connection, *key, *topic, once.is_some());
            }
            Event::Answered { record, outcome, .. } => self.note_answer(*record, *outcome),
            Event::Read(_) => self.counts.read += 1,
            Event::Delivered { .. } => self.counts.delivered += 1,
            Event::CopyBegins { partition, start, .. } => {
                let lowest = self.starts.entry(*partition).or_insert(*start);
                *lowest = (*lowest).min(*start);
            }
            Event::CopyEnds { partition, end, .. } => {
                let lowest = self.ends.entry(*partition).or_insert(*end);
                *lowest = (*lowest).min(*end);
            }
            _ => {}
        }
        if let Some(seen) = event.seen() {
            self.ledgers.entry(seen.partition).or_default().note(seen.offset, seen.record);
        }
    }

    fn note_sent(&mut self, id: RecordId, connection: u32, key: u32, topic: u16, once: bool) {
        let place = usize::try_from(id.0).unwrap_or(usize::MAX);
        if let Some(record) = self.records.get_mut(place) {
            record.resent = true;
            return;
        }
        debug_assert_eq!(place, self.records.len(), "records are numbered without gaps");
        self.counts.sent += 1;
        self.records.push(SentRecord {
            acked_at: NOT_ACKED,
            connection,
            key,
            acked_in: 0,
            topic,
            resent: false,
            refused: false,
            once,
        });
    }

    fn note_answer(&mut self, id: RecordId, outcome: Outcome) {
        match outcome {
            Outcome::Acked(..) => {}
            Outcome::Refused => self.counts.refused += 1,
            Outcome::Unknown => self.counts.unknown += 1,
        }
        let Some(record) = usize::try_from(id.0).ok().and_then(|at| self.records.get_mut(at))
        else {
            return;
        };
        record.refused = outcome == Outcome::Refused;
        let Outcome::Acked(partition, offset) = outcome else { return };
        if record.acked_at == NOT_ACKED {
            self.counts.acked += 1;
            record.acked_at = offset.0;
            record.acked_in = u16::try_from(partition.0).unwrap_or(u16::MAX);
        }
        self.ledgers.entry(partition).or_default().note(offset, id);
    }
}
