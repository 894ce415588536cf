//! What a partition does with committed records: counts topics, learns sequences, shows them.

use std::io;
use std::sync::Arc;

use aklight_common::record::Records;
use aklight_common::{Offset, PartitionId};
use aklight_log::BatchKind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::producers::{Place, Producers};
use super::topics::{SavedTopics, Topics};
use crate::replication::{Committed, Machine};

/// The state behind a partition's committed records.
pub struct RecordMachine {
    partition: PartitionId,
    topics: Arc<Topics>,
    producers: Arc<Producers>,
    high_watermark: watch::Sender<Offset>,
    commits: Arc<watch::Sender<u64>>,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    topics: SavedTopics,
    producers: Vec<(String, Vec<(u64, u64)>)>,
}

impl RecordMachine {
    /// The machine of one partition; `commits` is shared by all of them.
    pub fn new(
        partition: PartitionId,
        topics: Arc<Topics>,
        producers: Arc<Producers>,
        commits: Arc<watch::Sender<u64>>,
    ) -> Self {
        let (high_watermark, _) = watch::channel(Offset(0));
        Self { partition, topics, producers, high_watermark, commits }
    }

    /// Follows the high watermark.
    pub fn high_watermark(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    fn count(&self, entry: &Committed<'_>) -> io::Result<()> {
        let mut damage = None;
        let mut offset = entry.base_offset;
        let records = Records::new(entry.body, entry.first_time_us).map_while(|record| {
            let record = record.map_err(|error| damage = Some(error)).ok()?;
            let place = Place { partition: self.partition, offset };
            if let Some(once) = record.once {
                self.producers.stored(once.producer, once.sequence, place);
            }
            offset = offset.next();
            Some((record.topic, place.offset, record.time_us))
        });
        self.topics.count(records);
        match damage {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(()),
        }
    }
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
        Ok(serde_json::to_vec(&Checkpoint {
            topics: self.topics.save(),
            producers: self.producers.stored_in(self.partition),
        })?)
    }

    fn restore(&self, next_offset: Offset, checkpoint: &[u8]) -> io::Result<()> {
        if !checkpoint.is_empty() {
            let checkpoint: Checkpoint = serde_json::from_slice(checkpoint)?;
            self.topics.restore(checkpoint.topics);
            for (producer, stored) in checkpoint.producers {
                for (sequence, offset) in stored {
                    let place = Place { partition: self.partition, offset: Offset(offset) };
                    self.producers.stored(&producer, sequence, place);
                }
            }
        }
        self.high_watermark.send_replace(next_offset);
        Ok(())
    }
}
