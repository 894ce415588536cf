//! What is asked for once: FETCH, LAST, TOPICS.
//!
//! A listing goes out as it is read, a buffer at a time, so that its length costs no memory. An
//! error in the middle of one ends it: the client sees an ERR instead of the END.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use aklight_common::limits::{FETCH_RECORDS_MAX, FETCH_WAIT_MS_MAX};
use aklight_common::record::Record;
use aklight_common::wire::{ErrorCode, MessageLines, Reply, WireError};
use aklight_common::{Offset, PartitionId, Pattern};

use tokio_util::sync::CancellationToken;

use super::lines::{Wanted, WantedRecords, Written};
use super::newest;
use super::outbox::Outbox;
use super::reader::{self, Stride};
use crate::partition::{Partition, Partitions};

/// Bytes that a listing reads before others get their turn: a part of a millisecond's work. Each turn
/// wakes a thread.
const TURN_BYTES_MAX: usize = 256 << 10;

/// A FETCH, decoded.
pub struct FetchRequest {
    /// Which topics.
    pub wanted: Wanted,
    /// The first offset wanted.
    pub offset: Offset,
    /// One partition, or all.
    pub partition: Option<PartitionId>,
    /// Most records.
    pub max: u64,
    /// How long to wait for the first one, in milliseconds.
    pub wait_ms: u64,
}

/// Why a listing ends early.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The client is told.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The client is gone.
    #[error(transparent)]
    Gone(#[from] std::io::Error),
}

/// Answers a FETCH.
///
/// # Errors
/// When it is refused, or the client is gone.
pub async fn fetch(
    partitions: &Partitions,
    request: &FetchRequest,
    ended: &CancellationToken,
    out: &mut Outbox,
) -> Result<(), ListingError> {
    let asked = asked_partitions(partitions, request)?;
    // From here on commits are noticed, so that none falls between a look and the wait for it.
    let mut commits = partitions.commits.clone();
    let wait = Duration::from_millis(request.wait_ms.min(FETCH_WAIT_MS_MAX));
    let mut out_of_time = std::pin::pin!(tokio::time::sleep(wait));
    let max = request.max.min(FETCH_RECORDS_MAX);
    let mut next: Vec<_> = asked.iter().map(|partition| (partition.id, request.offset)).collect();
    let mut sent = 0;
    loop {
        commits.borrow_and_update();
        let mut refused = None;
        for (partition, (_, next)) in asked.iter().zip(&mut next) {
            match scan(partition, request, next, max - sent, out).await {
                Ok(found) => sent += found,
                Err(ListingError::Refused(error)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        // When something was sent it is whole; the next FETCH, from there on, tells of the gap.
        if let Some(error) = refused.filter(|_| sent == 0) {
            return Err(error.into());
        }
        if sent > 0 || max == 0 || request.wait_ms == 0 {
            break;
        }
        // Nothing yet: the waiting client sees what was answered before.
        out.flush().await?;
        tokio::select! {
            Ok(()) = commits.changed() => {}
            () = &mut out_of_time => break,
            () = ended.cancelled() => break,
        }
    }
    out.push(&Reply::End { count: sent, next: Some(next) });
    Ok(())
}

fn asked_partitions<'a>(
    partitions: &'a Partitions,
    request: &FetchRequest,
) -> Result<Vec<&'a Partition>, WireError> {
    let asked = match request.partition {
        None => partitions.iter().collect(),
        Some(id) => vec![partitions.get(id).ok_or_else(|| no_partition(id, partitions.len()))?],
    };
    let before_start: Vec<_> = asked
        .iter()
        .filter(|partition| request.offset < partition.start())
        .map(|partition| {
            format!("the first offset kept in partition {} is {}", partition.id, partition.start())
        })
        .collect();
    if before_start.is_empty() {
        return Ok(asked);
    }
    Err(ErrorCode::OffsetOutOfRange.with(&before_start.join("; ")))
}

/// The error for a partition that there is not.
#[must_use]
pub fn no_partition(id: PartitionId, partitions: usize) -> WireError {
    ErrorCode::BadNumber
        .with(&format!("there is no partition {id}: this cluster has {partitions}, counted from 0"))
}

/// Sends matching records of one partition from `next` on, at most `max`, and moves `next` behind
/// what was looked at.
async fn scan(
    partition: &Partition,
    request: &FetchRequest,
    next: &mut Offset,
    max: u64,
    out: &mut Outbox,
) -> Result<u64, ListingError> {
    let end = partition.end();
    let mut lines = MessageLines::of(partition.id);
    let wanted = |topic: &str| request.wanted.has(topic.as_bytes());
    let mut search = partition.log.topic_search(&wanted);
    if let Some(topic) = request.wanted.only() {
        search = search.only(topic);
    }
    let mut stride = Stride::new();
    let mut room = max;
    let mut turn_bytes = 0;
    while *next < end && room > 0 {
        let from = if reader::is_near(*next, end) { *next } else { search.next(*next, end) };
        let bytes = stride.next(*next, from);
        *next = from;
        if stride.is_first()
            && let Some(part) = partition.log.read_part(from, end)
        {
            if request.wanted.may_be_in(&part.bytes) {
                let mut records = WantedRecords::of_part(&part, &request.wanted);
                put(&mut records, &mut lines, from, next, &mut room, out).await?;
                if room == 0 {
                    return Ok(max);
                }
            }
            *next = part.end_offset.max(*next);
            turn_bytes += part.bytes.len();
            take_turns(&mut turn_bytes, out).await?;
            continue;
        }
        let batches = match reader::read_up_to(partition, from, end, bytes)? {
            Ok(batches) => batches,
            // What was sent so far is whole; the next FETCH, from there on, tells of the gap.
            Err(_) if room < max => break,
            Err(gap) => return Err(gap.to_wire().into()),
        };
        if batches.is_empty() {
            *next = end;
        }
        for batch in &batches {
            if request.wanted.may_be_in(&batch.body) {
                let mut records = WantedRecords::of(batch, &request.wanted);
                put(&mut records, &mut lines, from, next, &mut room, out).await?;
                if room == 0 {
                    return Ok(max);
                }
            }
            *next = batch.header.end_offset().min(end).max(*next);
            turn_bytes += batch.body.len();
        }
        take_turns(&mut turn_bytes, out).await?;
    }
    Ok(max - room)
}

/// A listing that finds little reads much: others get their turn in between.
async fn take_turns(turn_bytes: &mut usize, out: &mut Outbox) -> Result<(), ListingError> {
    out.flush_when_large().await?;
    if *turn_bytes >= TURN_BYTES_MAX {
        *turn_bytes = 0;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Sends records until all or `room` are sent; then `next` is behind the last one.
async fn put(
    records: &mut WantedRecords<'_>,
    lines: &mut MessageLines,
    from: Offset,
    next: &mut Offset,
    room: &mut u64,
    out: &mut Outbox,
) -> Result<(), ListingError> {
    while let Written::Some = out.put(records, lines, from, room)? {
        *next = records.reached().max(from);
        if *room == 0 {
            break;
        }
        out.flush_when_large().await?;
    }
    Ok(())
}

/// A stored record as a line.
#[must_use]
pub fn message<'a>(partition: PartitionId, offset: Offset, record: &Record<'a>) -> Reply<'a> {
    Reply::Message {
        topic: record.topic,
        offset,
        partition,
        key: Cow::Borrowed(record.key),
        payload: Cow::Borrowed(record.payload),
    }
}

/// Answers a LAST.
///
/// # Errors
/// When the log cannot be read, or the client is gone.
pub async fn last(
    partitions: &Partitions,
    pattern: &Pattern,
    out: &mut Outbox,
) -> Result<(), ListingError> {
    let mut count = 0;
    for newest in newest::newest(partitions, std::slice::from_ref(pattern)) {
        let mut send = |partition, offset, record: &Record<'_>| {
            out.push(&message(partition, offset, record));
        };
        count += newest::show(partitions, std::slice::from_ref(&newest), &mut send)?;
        out.flush_when_large().await?;
        tokio::task::yield_now().await;
    }
    out.push(&Reply::End { count, next: None });
    Ok(())
}

/// Answers a TOPICS.
///
/// # Errors
/// When the client is gone.
pub async fn topics(
    partitions: &Partitions,
    pattern: &Pattern,
    out: &mut Outbox,
) -> Result<(), ListingError> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for partition in partitions.iter() {
        for (topic, stats) in partition.topics.matching(pattern) {
            *counts.entry(topic).or_default() += stats.records;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    for (name, records) in &counts {
        out.push(&Reply::Topic { name, records: *records });
        out.flush_when_large().await?;
    }
    out.push(&Reply::End { count: counts.len() as u64, next: None });
    Ok(())
}
