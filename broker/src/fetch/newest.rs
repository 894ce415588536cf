//! The newest record of each topic, found by what the partitions know of their topics.
//!
//! A topic without a key may have records in several partitions; its newest is the one that came in
//! last, which moments tell and offsets cannot.

use std::collections::BTreeMap;

use aklight_common::wire::WireError;
use aklight_common::{Offset, PartitionId, Pattern};

use super::reader::{self, Sink};
use crate::partition::Partitions;

/// Where the newest record of a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The topic.
    pub topic: String,
    partition: PartitionId,
    offset: Offset,
    time_us: u64,
}

/// The topics that one of the patterns matches, by name, each with the place of its newest record.
#[must_use]
pub fn newest(partitions: &Partitions, patterns: &[Pattern]) -> Vec<Newest> {
    let mut found: BTreeMap<String, Newest> = BTreeMap::new();
    for partition in partitions.iter() {
        for (topic, stats) in patterns.iter().flat_map(|pattern| partition.topics.matching(pattern))
        {
            let (offset, time_us) = (Offset(stats.last), stats.last_time_us);
            let here = Newest { topic, partition: partition.id, offset, time_us };
            match found.get_mut(&here.topic) {
                Some(known) if known.time_us >= here.time_us => {}
                Some(known) => *known = here,
                None => {
                    found.insert(here.topic.clone(), here);
                }
            }
        }
    }
    found.into_values().collect()
}

impl Newest {
    /// Reads it; `false` when retention, or damage, has taken it since: then the topic has none.
    ///
    /// # Errors
    /// When the disk does not answer, or what is stored does not decode.
    pub fn show(&self, partitions: &Partitions, sink: Sink<'_>) -> Result<bool, WireError> {
        let Some(partition) = partitions.get(self.partition) else { return Ok(false) };
        let Ok(batches) = reader::read_one(partition, self.offset)? else { return Ok(false) };
        let found = batches.first().and_then(|b| reader::records(b, self.offset).next());
        let Some(found) = found else { return Ok(false) };
        let (offset, record) = found?;
        sink(partition.id, offset, &record);
        Ok(true)
    }
}
