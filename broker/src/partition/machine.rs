//! What a partition does with committed records: counts topics, learns sequences, shows them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::Offset;
use aklight_common::record::{Stored, StoredRecords};
use aklight_log::BatchKind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::sequences::{SavedSequences, Sequences};
use super::topics::{SavedTopics, Topics};
use crate::replication::{Committed, Machine};
use crate::stamp::Stamp;

/// What committed records tell the leader of a partition.
#[derive(Debug, Default)]
pub struct Learnt {
    /// What PRODUCE_ONCE remembers.
    pub sequences: Sequences,
    newest_us: AtomicU64,
}

impl Learnt {
    /// Time of the newest record, microseconds since the Unix epoch; 0 when there is none.
    #[must_use]
    pub fn newest_us(&self) -> u64 {
        self.newest_us.load(Ordering::Acquire)
    }
}

/// The state behind a partition's committed records.
pub struct RecordMachine {
    pub(super) topics: Arc<Topics>,
    pub(super) learnt: Arc<Learnt>,
    stamp: Arc<Stamp>,
    high_watermark: watch::Sender<Offset>,
    commits: Arc<watch::Sender<u64>>,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    topics: SavedTopics,
    producers: SavedSequences,
}

impl RecordMachine {
    /// The machine of one partition; the stamp and `commits` are shared by all of them.
    pub fn new(stamp: Arc<Stamp>, commits: Arc<watch::Sender<u64>>) -> Self {
        let (high_watermark, _) = watch::channel(Offset(0));
        let (topics, learnt) = (Arc::default(), Arc::default());
        Self { topics, learnt, stamp, high_watermark, commits }
    }

    /// Follows the high watermark.
    pub fn high_watermark(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    fn count(&self, entry: &Committed<'_>) -> io::Result<()> {
        let mut damage = None;
        let mut newest_us = entry.first_time_us;
        let mut once = Vec::new();
        let records = read(entry, &mut damage);
        let records = records.map(|(offset, record)| {
            newest_us = newest_us.max(record.time_us);
            if let Some(of) = record.once {
                once.push((of.producer, of.sequence, offset));
            }
            (record.topic, offset, record.time_us)
        });
        self.topics.count(records);
        if !once.is_empty() {
            self.learnt.sequences.store(once.into_iter());
        }
        self.see(newest_us);
        match damage {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(()),
        }
    }

    /// Whatever this broker takes in from now on is newer.
    fn see(&self, newest_us: u64) {
        self.learnt.newest_us.fetch_max(newest_us, Ordering::AcqRel);
        self.stamp.see(newest_us);
    }
}

/// The records of an entry up to the first that is damaged.
fn read<'a>(
    entry: &Committed<'a>,
    damage: &mut Option<aklight_common::record::BodyError>,
) -> impl Iterator<Item = (Offset, Stored<'a, &'a [u8]>)> {
    let mut records = StoredRecords::new(entry.body, entry.first_time_us);
    let records = std::iter::from_fn(move || records.next(Some));
    let records = records.map_while(|record| record.map_err(|error| *damage = Some(error)).ok());
    (entry.base_offset.0..).map(Offset).zip(records)
}

impl Machine for RecordMachine {
    fn apply(&self, entry: &Committed<'_>) -> io::Result<()> {
        if entry.kind != BatchKind::Records {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a partition's log holds no {:?}", entry.kind),
            ));
        }
        self.count(entry)?;
        let end = Offset(entry.base_offset.0 + u64::from(entry.records));
        let before = self.high_watermark.send_replace(end);
        assert!(before <= entry.base_offset, "the high watermark never goes back");
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    fn lose(&self, upto: Offset) {
        self.high_watermark.send_modify(|end| *end = (*end).max(upto));
        self.commits.send_modify(|commits| *commits += 1);
    }

    fn checkpoint(&self) -> io::Result<Vec<u8>> {
        let topics = self.topics.save();
        let producers = self.learnt.sequences.save(Offset(u64::MAX));
        Ok(serde_json::to_vec(&Checkpoint { topics, producers })?)
    }

    fn restore(&self, next_offset: Offset, checkpoint: &[u8]) -> io::Result<()> {
        let (topics, producers) = if checkpoint.is_empty() {
            (SavedTopics::default(), SavedSequences::new())
        } else {
            let Checkpoint { topics, producers } = serde_json::from_slice(checkpoint)?;
            (topics, producers)
        };
        self.topics.restore(topics);
        self.learnt.sequences.restore(&producers);
        self.see(self.topics.newest_us());
        self.high_watermark.send_replace(next_offset);
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    /// Topics are counted anew from `start` on, so none is in it.
    fn snapshot(&self, start: Offset) -> Option<io::Result<Vec<u8>>> {
        let topics = SavedTopics::default();
        let producers = self.learnt.sequences.save(start);
        Some(serde_json::to_vec(&Checkpoint { topics, producers }).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::ManualClock;
    use aklight_common::record::{BodyBuilder, Once, Record};
    use aklight_common::{RaftIndex, Term};

    use super::super::sequences::Known;
    use super::*;

    fn machine() -> (RecordMachine, Arc<Stamp>) {
        let stamp = Arc::new(Stamp::new(ManualClock::at(500)));
        (RecordMachine::new(stamp.clone(), Arc::new(watch::channel(0).0)), stamp)
    }

    fn apply(machine: &RecordMachine, at: u64, topic: &str, sequences: &[u64]) {
        let mut builder = BodyBuilder::new();
        for sequence in sequences {
            let once = Some(Once { producer: "p", sequence: *sequence });
            let record = Record { time_us: 1_000 + at, topic, key: b"", payload: b"x", once };
            builder.push(&record);
        }
        let body = builder.finish();
        let entry = Committed {
            index: RaftIndex(at),
            term: Term(1),
            kind: BatchKind::Records,
            base_offset: Offset(at),
            records: body.records,
            first_time_us: body.first_time_us,
            body: &body.bytes,
        };
        machine.apply(&entry).expect("it makes sense");
    }

    fn look(machine: &RecordMachine, sequence: u64) -> Known {
        machine.learnt.sequences.read(|table| table.look("p", sequence))
    }

    #[test]
    fn what_is_committed_here_is_older_than_what_is_taken_in_here() {
        let (machine, stamp) = machine();
        apply(&machine, 0, "t", &[1]);
        assert_eq!((machine.learnt.newest_us(), stamp.next_us(500)), (1_000, 1_001));
    }

    #[test]
    fn a_snapshot_is_the_state_before_the_records_that_follow_it() {
        let (leader, _) = machine();
        apply(&leader, 0, "old", &[1, 2]);
        apply(&leader, 2, "kept", &[3, 4]);
        let snapshot = leader.snapshot(Offset(2)).expect("there is one").expect("it is written");
        let (copy, _) = machine();
        apply(&copy, 0, "of another history", &[7]);
        copy.restore(Offset(2), &snapshot).expect("it is read");
        assert_eq!(*copy.high_watermark().borrow(), Offset(2));
        assert!(copy.topics.matching(&"#".parse().expect("a pattern")).is_empty());
        assert_eq!(look(&copy, 2), Known::Stored(Offset(1)));
        assert_eq!(look(&copy, 3), Known::Not { highest: 2 });
        assert_eq!(look(&copy, 7), Known::Not { highest: 2 });
        apply(&copy, 2, "kept", &[3, 4]);
        assert_eq!(copy.learnt.sequences.save(Offset(9)), leader.learnt.sequences.save(Offset(9)));
    }

    #[test]
    fn a_checkpoint_of_the_first_version_is_read() {
        let (machine, _) = machine();
        let checkpoint = br#"{"topics":{"subtracted_upto":null,"topics":[["t",{"records":2,"last":1,"last_time_us":77}]]},"producers":[["p",[[1,0],[2,1]]]]}"#;
        machine.restore(Offset(2), checkpoint).expect("it is read");
        assert_eq!(look(&machine, 2), Known::Stored(Offset(1)));
        assert_eq!(machine.learnt.newest_us(), 77);
    }
}
