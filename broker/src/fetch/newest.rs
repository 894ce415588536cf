//! The newest record of each topic, found by what the partitions know of their topics.
//!
//! A topic without a key may have records in several partitions; its newest is the one that came in
//! last, which moments tell and offsets cannot.

use std::collections::{BTreeMap, HashSet};

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
    /// When it came in, in microseconds since the Unix epoch.
    pub time_us: u64,
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

/// Reads them in the order of the log, each batch once however many of them it holds, and says how
/// many there were: what retention, or damage, has taken since is passed over.
///
/// # Errors
/// When the disk does not answer, or what is stored does not decode.
pub fn show(partitions: &Partitions, all: &[Newest], sink: Sink<'_>) -> Result<u64, WireError> {
    let mut places: Vec<_> = all.iter().map(|newest| (newest.partition, newest.offset)).collect();
    places.sort_unstable();
    let names: HashSet<_> = all.iter().map(|newest| newest.topic.as_bytes()).collect();
    let mut places = places.into_iter().peekable();
    let mut count = 0;
    while let Some((id, first)) = places.next() {
        let Some(partition) = partitions.get(id) else { continue };
        let Ok(batches) = reader::read_one(partition, first)? else { continue };
        let mut wanted = first;
        let Some(batch) = batches.first() else { continue };
        for record in reader::records_on(batch, first, |name| names.contains(name)) {
            let (offset, record) = record?;
            if offset != wanted {
                continue;
            }
            sink(id, offset, &record);
            count += 1;
            let batch_end = batch.header.end_offset();
            let Some((_, next)) = places.next_if(|next| next.0 == id && next.1 < batch_end) else {
                break;
            };
            wanted = next;
        }
    }
    Ok(count)
}
