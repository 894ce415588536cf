//! The one owner of a partition's order: takes batches from the mailbox and proposes them.
//!
//! While earlier proposals are on their way to the disk, what arrives in the mailbox is joined
//! into one larger batch: under load a batch, an entry of the Raft log and a place in the group
//! commit cost as much for a thousand records as for one.

use std::collections::VecDeque;
use std::sync::Arc;

use aklight_common::Offset;
use aklight_common::record::{Body, BodyBuilder, Records};
use aklight_log::Log;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::producers::Producers;
use super::{ProduceError, RoutedBatch};
use crate::replication::{Group, Proposal, ProposeError, Role};

/// Most bytes joined into one batch: large enough that its costs vanish, small enough that a
/// reader of one record does not read far.
const JOINED_BYTES_MAX: usize = 256 << 10;

/// A batch of at least this size is proposed as it is: joining would only copy it.
const ALONE_BYTES: usize = 64 << 10;

/// Proposals on their way at once. Two keep the disk busy; a few more let openraft and the writer
/// thread work side by side. More would only make the batches smaller.
const PROPOSALS_MAX: usize = 4;

/// What an actor works with.
pub struct ActorParts {
    /// The partition's group.
    pub group: Group,
    /// The partition's log, asked for room.
    pub log: Log,
    /// Told about records that were not appended.
    pub producers: Arc<Producers>,
    /// Where batches come from.
    pub mailbox: mpsc::Receiver<RoutedBatch>,
    /// Cancelled when nothing more shall be let in.
    pub stop: CancellationToken,
}

/// Who is to be told, and of how many records.
struct Waiting {
    records: u32,
    answer: oneshot::Sender<Result<Offset, ProduceError>>,
    permit: OwnedSemaphorePermit,
}

/// Lets records in until it is told to stop and the mailbox is empty.
pub async fn run(mut parts: ActorParts) {
    let on_their_way = Arc::new(Semaphore::new(PROPOSALS_MAX));
    let mut held_back = VecDeque::new();
    loop {
        let first = match held_back.pop_front() {
            Some(batch) => batch,
            None => match next(&mut parts).await {
                Some(batch) => batch,
                None => break,
            },
        };
        let Ok(place) = on_their_way.clone().acquire_owned().await else { break };
        let (body, waiting) = join(first, &mut parts.mailbox, &mut held_back);
        propose(&parts, body, waiting, place).await;
    }
    // Wait for what is on its way: whoever closes the log next must find it quiet.
    let _ = on_their_way.acquire_many(PROPOSALS_MAX as u32).await;
}

async fn next(parts: &mut ActorParts) -> Option<RoutedBatch> {
    if let Some(batch) = parts.stop.run_until_cancelled(parts.mailbox.recv()).await {
        return batch;
    }
    // Nothing new from here on; what is in the mailbox was taken in and gets its answer.
    parts.mailbox.close();
    parts.mailbox.recv().await
}

/// Joins what waits in the mailbox behind `first`, as long as it is small.
fn join(
    first: RoutedBatch,
    mailbox: &mut mpsc::Receiver<RoutedBatch>,
    held_back: &mut VecDeque<RoutedBatch>,
) -> (Body, Vec<Waiting>) {
    let (first, told) = split(first);
    let mut waiting = vec![told];
    if first.bytes.len() >= ALONE_BYTES {
        return (first, waiting);
    }
    let mut joined: Option<BodyBuilder> = None;
    let mut bytes = first.bytes.len();
    while let Ok(next) = mailbox.try_recv() {
        if next.body.bytes.len() >= ALONE_BYTES || bytes + next.body.bytes.len() > JOINED_BYTES_MAX
        {
            held_back.push_back(next);
            break;
        }
        bytes += next.body.bytes.len();
        let (body, told) = split(next);
        waiting.push(told);
        let builder = joined.get_or_insert_with(|| {
            let mut builder = BodyBuilder::new();
            append(&mut builder, &first);
            builder
        });
        append(builder, &body);
    }
    (joined.map_or(first, BodyBuilder::finish), waiting)
}

fn split(batch: RoutedBatch) -> (Body, Waiting) {
    let RoutedBatch { body, permit, answer } = batch;
    let records = body.records;
    (body, Waiting { records, answer, permit })
}

fn append(builder: &mut BodyBuilder, body: &Body) {
    for record in body.records() {
        // The bytes were encoded by this broker a moment ago and lie in its memory.
        let record = record.expect("a body that was just encoded decodes");
        builder.push(&record);
    }
}

async fn propose(
    parts: &ActorParts,
    body: Body,
    waiting: Vec<Waiting>,
    place: OwnedSemaphorePermit,
) {
    let bytes = body.bytes.clone();
    if let Err(full) = parts.log.check_room(bytes.len() as u64) {
        refuse(&parts.producers, &bytes, waiting, &ProduceError::NoRoom(full.to_string()));
        return;
    }
    let proposed = match parts.group.role() {
        Role::Leads(term) => parts.group.propose(Proposal::records(body), term).await,
        _ => Err(ProposeError::NoLeader),
    };
    let proposed = match proposed {
        Ok(proposed) => proposed,
        Err(error) => {
            refuse(&parts.producers, &bytes, waiting, &unavailable(&error));
            return;
        }
    };
    let group = parts.group.clone();
    let producers = parts.producers.clone();
    tokio::spawn(async move {
        match group.committed(proposed).await {
            Ok(applied) => answer(waiting, applied.base_offset),
            Err(error) => refuse(&producers, &bytes, waiting, &unavailable(&error)),
        }
        drop(place);
    });
}

fn answer(waiting: Vec<Waiting>, base_offset: Offset) {
    let mut offset = base_offset;
    for told in waiting {
        drop(told.permit);
        // A connection that has gone needs no answer; its records are stored all the same.
        let _ = told.answer.send(Ok(offset));
        offset = Offset(offset.0 + u64::from(told.records));
    }
}

fn refuse(producers: &Producers, body: &[u8], waiting: Vec<Waiting>, error: &ProduceError) {
    for once in Records::new(body, 0).filter_map(|record| record.ok()?.once) {
        producers.named(once.producer).withdraw(once.sequence);
    }
    for told in waiting {
        let _ = told.answer.send(Err(error.clone()));
    }
}

fn unavailable(error: &ProposeError) -> ProduceError {
    ProduceError::Unavailable(error.to_string())
}
