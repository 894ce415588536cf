//! Forgets what is old: by age and by bytes, whole segments at a time.
//!
//! The order is what keeps a crash harmless: topic counts are taken back, the checkpoint that
//! holds them is written, then the group purges. A crash in between leaves a segment whose records
//! are counted no more; the next round drops it.

use std::sync::Arc;
use std::time::Duration;

use aklight_common::RaftIndex;
use aklight_common::clock::SharedClock;
use aklight_log::{Retention, TopicCounts};
use tokio_util::sync::CancellationToken;

use super::{Partition, Partitions};
use crate::events::Events;

/// Time between two rounds: a segment holds minutes of records at least, so that nothing is kept
/// noticeably too long, and a round that finds nothing costs microseconds.
const ROUND: Duration = Duration::from_secs(10);

/// Applies retention to every partition until it is told to stop.
pub async fn run(
    partitions: Arc<Partitions>,
    retention: Retention,
    clock: SharedClock,
    events: Arc<Events>,
    stop: CancellationToken,
) {
    // The first round comes at once: it finishes what a crash cut short.
    loop {
        for partition in partitions.iter() {
            if let Err(error) = apply(partition, &retention, &clock, &events).await {
                events.warn(
                    "retention",
                    format!("partition {} keeps more than it should: {error}", partition.id),
                );
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_none() {
            return;
        }
    }
}

async fn apply(
    partition: &Partition,
    retention: &Retention,
    clock: &SharedClock,
    events: &Events,
) -> std::io::Result<()> {
    let purged = partition.log.bounds().purged.map(|(_, index)| index);
    let cut_short = partition.topics.subtracted_upto().filter(|index| Some(*index) > purged);
    let Some(upto) = partition.log.expired(clock.wall_us(), retention).max(cut_short) else {
        return Ok(());
    };
    if partition.group.applied().is_none_or(|applied| applied < upto) {
        return Ok(());
    }
    let mut dropped = counts(partition, upto)?;
    if let Some(taken) = cut_short {
        // A purge was cut short by a crash: its records are out of the counts already.
        for (topic, records) in counts(partition, taken)? {
            dropped.entry(topic).and_modify(|count| *count = count.saturating_sub(records));
        }
    }
    partition.topics.subtract(&dropped, upto);
    partition.group.purge(upto).await?;
    let start = partition.start();
    events.info("retention", format!("partition {} now starts at offset {start}", partition.id));
    Ok(())
}

fn counts(partition: &Partition, upto: RaftIndex) -> std::io::Result<TopicCounts> {
    partition.log.topic_counts_before(upto).map_err(std::io::Error::other)
}
