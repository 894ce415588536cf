//! The log by itself: batches to a segment, and a segment to its index.

use std::path::Path;
use std::sync::Arc;

use aklight_common::clock::ManualClock;
use aklight_common::{Offset, RaftIndex};
use aklight_log::{Driver, Log, LogOptions, MemoryDisk, NewBatch};
use anyhow::ensure;

use super::load::{self, BATCH_RECORDS, TOPICS};

/// Rounds of the load that the log holds whose index is made.
const STORED_ROUNDS: u64 = 10;

fn open(disk: &MemoryDisk, options: LogOptions) -> anyhow::Result<(Log, Driver)> {
    let clock = ManualClock::at(u64::from(crate::standstill::BEGIN_S) * 1_000_000);
    let dir = Path::new("/data/partition_0.log");
    let (log, _, driver) = Log::open_driven(disk.shared(), dir, options, clock, Arc::new(|| {}))?;
    Ok((log, driver))
}

fn fill(log: &Log, driver: &mut Driver, rounds: u64) -> anyhow::Result<()> {
    let batches = load::batches();
    let mut index = RaftIndex(0);
    for _ in 0..rounds {
        for batch in &batches {
            log.append(vec![NewBatch { index, ..batch.clone() }], Box::new(drop))?;
            index = index.next();
        }
        driver.turn();
    }
    let stored = log.bounds().end_offset.0;
    ensure!(stored == rounds * TOPICS, "{stored} records were stored");
    ensure!(log.bounds().flushed == log.bounds().last.map(|(_, index)| index), "all is written");
    Ok(())
}

/// Appends batches, ten a write.
pub fn append(rounds: u64) -> anyhow::Result<u64> {
    let (log, mut driver) = open(&MemoryDisk::new(), load::unsynced())?;
    fill(&log, &mut driver, rounds)?;
    Ok(rounds * TOPICS)
}

/// Opens a log whose index is not there, and goes through it by the index.
pub fn index(rounds: u64) -> anyhow::Result<u64> {
    let disk = MemoryDisk::new();
    // What was not synced would be written again at each opening.
    let (log, mut driver) = open(&disk, load::log_options())?;
    fill(&log, &mut driver, STORED_ROUNDS)?;
    log.close();
    // One topic of all, which is what an index is for; and not in the first block, where the look ends
    // at the topic's place in a table of hashes.
    let topic = load::topic(TOPICS - 1);
    let wanted = |name: &str| name == topic;
    for _ in 0..rounds {
        let (log, _driver) = open(&disk, load::log_options())?;
        let end = log.bounds().end_offset;
        let (mut search, mut next, mut found) = (log.topic_search(&wanted), Offset(0), 0);
        loop {
            next = search.next(next, end);
            if next == end {
                break;
            }
            // A reader reads a batch at least, and looks again behind it.
            next = end.min(Offset(next.0 + BATCH_RECORDS));
            found += 1;
        }
        ensure!(found >= STORED_ROUNDS, "the topic was found {found} times");
        log.close();
    }
    Ok(rounds * STORED_ROUNDS * TOPICS)
}
