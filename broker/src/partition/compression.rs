//! Compresses closed segments in the background, a little at a time.
//!
//! It takes a tenth of one core at most. Where segments are closed faster than that, some stay as they
//! were written until there is time for them, or until retention takes them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_log::Compressed;
use tokio_util::sync::CancellationToken;

use super::{Partition, Partitions};
use crate::events::Events;
use crate::replication::off_the_runtime;

/// Time between two looks when there was nothing to do: a look costs some microseconds.
const ROUND: Duration = Duration::from_secs(10);

/// How much longer than its work it rests.
const RESTS: u32 = 9;

/// Compresses what every partition has closed until it is told to stop.
pub async fn run(
    partitions: Arc<Partitions>,
    clock: SharedClock,
    events: Arc<Events>,
    stop: CancellationToken,
) {
    loop {
        let mut rest = ROUND;
        for partition in partitions.iter() {
            let began_us = clock.monotonic_us();
            match next(partition).await {
                Ok(None) => continue,
                Ok(Some(Compressed { bytes, compressed_bytes })) => {
                    tracing::debug!(%partition.id, bytes, compressed_bytes, "a segment is compressed");
                }
                Err(_) if stop.is_cancelled() => return,
                // Told once for each segment: it is not tried again. The others can wait.
                Err(error) => {
                    events.warn(
                        "compression",
                        format!("partition {} has a segment not compressed: {error}", partition.id),
                    );
                    continue;
                }
            }
            let took = Duration::from_micros(clock.monotonic_us().saturating_sub(began_us));
            // There may be more.
            rest = Duration::ZERO;
            if stop.run_until_cancelled(tokio::time::sleep(took * RESTS)).await.is_none() {
                return;
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
            return;
        }
    }
}

/// Compresses one segment, if there is one of which every entry is committed.
async fn next(partition: &Partition) -> io::Result<Option<Compressed>> {
    let Some(applied) = partition.group.applied() else { return Ok(None) };
    let log = partition.log.clone();
    off_the_runtime(move || log.compress_next(applied)).await
}
