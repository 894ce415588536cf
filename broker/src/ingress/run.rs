//! A run of PRODUCE commands: what one read of a socket brought of them.
//!
//! Its records go to each partition as one batch; its answers are kept as slots in the order of
//! the commands, each waiting for its batch or holding its own answer already.

use std::sync::Arc;

use aklight_common::PartitionId;
use aklight_common::limits::SEQUENCE_WINDOW;
use aklight_common::record::{BodyBuilder, Once, Record};
use aklight_common::wire::{Command, ErrorCode, WireError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::partition::producers::Producer;
use crate::partition::{Placed, ProduceError, RoutedBatch};
use crate::services::{Services, permits};

/// Where the answer to one PRODUCE comes from. A read brings thousands of them: they are kept small.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    /// The run's batch for this partition, of which it is the next record.
    Batch { partition: PartitionId, topic: Span },
    /// The next of the run's refusals.
    Refused,
}

/// The bytes that a run's lines are in: topics are told as they were sent.
#[derive(Clone, Default)]
pub(super) struct RunText(Bytes);

/// A topic within them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    len: u8,
}

impl RunText {
    /// Where a topic lies that was cut from these bytes.
    #[inline]
    fn span(&self, topic: &str) -> Span {
        let start = topic.as_ptr().addr().wrapping_sub(self.0.as_ptr().addr());
        debug_assert!(start + topic.len() <= self.0.len(), "it was cut from there");
        // A read is far shorter than 32 bits can say, and a topic was checked.
        let (start, len) = (u32::try_from(start), u8::try_from(topic.len()));
        Span { start: start.unwrap_or(u32::MAX), len: len.unwrap_or(u8::MAX) }
    }

    pub(super) fn topic(&self, at: Span) -> &[u8] {
        let start = at.start as usize;
        self.0.get(start..start + usize::from(at.len)).unwrap_or_default()
    }
}

/// A batch of the run on its way to one partition.
pub(super) type Ticket = (PartitionId, oneshot::Receiver<Result<Placed, ProduceError>>);

/// The answers of a run.
pub(super) struct ProducedRun {
    pub(super) text: RunText,
    pub(super) slots: Vec<Slot>,
    pub(super) refusals: Vec<WireError>,
    pub(super) tickets: Vec<Ticket>,
}

/// A run that is being gathered.
pub(super) struct RunBuilder {
    text: RunText,
    slots: Vec<Slot>,
    // Slots of the last run.
    slots_before: usize,
    refusals: Vec<WireError>,
    batches: Vec<Batch>,
    // Bytes of the last batch for each partition.
    rooms: Vec<usize>,
    bytes: usize,
    // What the clock said when the run began: its records came in together.
    now_us: Option<u64>,
    // The highest sequence of the connection's producer that is committed: looked up once a run.
    committed: Option<u64>,
}

/// What a refused line holds of the connection's budget until it is answered, about.
const REFUSAL_BYTES: usize = 256;

/// The run's records for one partition.
#[derive(Default)]
struct Batch {
    body: BodyBuilder,
    once: u32,
}

impl RunBuilder {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            text: RunText::default(),
            slots: Vec::new(),
            slots_before: 0,
            refusals: Vec::new(),
            batches: std::iter::repeat_with(Batch::default).take(partitions).collect(),
            rooms: vec![0; partitions],
            bytes: 0,
            now_us: None,
            committed: None,
        }
    }

    /// The lines from now on are in these bytes.
    pub(super) fn read_from(&mut self, text: &Bytes) {
        self.text = RunText(text.clone());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of the lines gathered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an answer that is known already.
    pub(super) fn refuse(&mut self, error: WireError) {
        // The shortest lines have the longest answers.
        self.bytes += REFUSAL_BYTES;
        self.slots.push(Slot::Refused);
        self.refusals.push(error);
    }

    /// Adds a PRODUCE or PRODUCE_ONCE line; `producer` is who registered on this connection.
    #[inline]
    pub(super) fn add(
        &mut self,
        line: &[u8],
        command: &Command<'_>,
        producer: Option<&Arc<Producer>>,
        services: &Services,
    ) {
        self.bytes += line.len();
        let partitioner = &services.partitions.partitioner;
        match command {
            Command::Produce { topic, key, payload } => {
                let partition = partitioner.route(key);
                self.append(partition, (topic, key, payload), None, services);
            }
            Command::ProduceOnce { sequence, topic, key, payload } => {
                let Some(producer) = producer else {
                    return self.refuse(ErrorCode::NotRegistered.with(
                        "PRODUCE_ONCE needs REGISTER_PRODUCER|id before it on this connection",
                    ));
                };
                let partitions = &services.partitions;
                let committed =
                    self.committed.get_or_insert_with(|| producer.committed(partitions));
                match producer.let_in(*sequence, *committed) {
                    Ok(()) => {
                        let partition = partitioner.route_once(*sequence, key);
                        let once = Once { producer: producer.id(), sequence: *sequence };
                        self.append(partition, (topic, key, payload), Some(once), services);
                    }
                    Err(highest) => self.refuse(too_old(highest)),
                }
            }
            _ => self.refuse(ErrorCode::Internal.with("not a record")),
        }
    }

    #[inline]
    fn append(
        &mut self,
        partition: PartitionId,
        (topic, key, payload): (&str, &[u8], &[u8]),
        once: Option<Once<'_>>,
        services: &Services,
    ) {
        let share = self.text.0.len() / self.batches.len();
        let batch = &mut self.batches[partition.0 as usize];
        if batch.body.is_empty() {
            // Its share of what was read, or as much as last time: who sends much goes on to.
            let room = self.rooms[partition.0 as usize].min(self.text.0.len()).max(share);
            batch.body.reserve(room + room / 8);
        }
        batch.once += u32::from(once.is_some());
        let now_us = *self.now_us.get_or_insert_with(|| services.stamp.now_us());
        let time_us = services.stamp.next_us(now_us);
        batch.body.push(&Record { time_us, topic, key, payload, once });
        if self.slots.is_empty() {
            // As with bytes: who sends much goes on to.
            self.slots.reserve(self.slots_before);
        }
        self.slots.push(Slot::Batch { partition, topic: self.text.span(topic) });
    }

    /// Sends each partition its batch, waiting for memory and for a place in its mailbox.
    pub(super) async fn dispatch(&mut self, services: &Services) -> ProducedRun {
        let mut tickets = Vec::new();
        for (batch, partition) in self.batches.iter_mut().zip(services.partitions.iter()) {
            if batch.body.is_empty() {
                continue;
            }
            let Batch { body, once } = std::mem::take(batch);
            self.rooms[partition.id.0 as usize] = body.len();
            let body = body.finish();
            let permit = acquire(services, body.bytes.len()).await;
            let (batch, ticket) = RoutedBatch::new(body, once, permit);
            // A mailbox is closed only at shutdown; the ticket then ends without an answer, which
            // the client is told as `unavailable`.
            let _ = partition.take(batch).await;
            tickets.push((partition.id, ticket));
        }
        self.committed = None;
        self.now_us = None;
        self.bytes = 0;
        let slots = std::mem::take(&mut self.slots);
        self.slots_before = slots.len();
        let refusals = std::mem::take(&mut self.refusals);
        ProducedRun { text: self.text.clone(), slots, refusals, tickets }
    }
}

/// Why a sequence is refused.
pub(super) fn too_old(highest: u64) -> WireError {
    ErrorCode::BadSequence.with(&format!(
        "this sequence is more than {SEQUENCE_WINDOW} below the producer's highest, {highest}"
    ))
}

async fn acquire(services: &Services, bytes: usize) -> OwnedSemaphorePermit {
    // A body is a little larger than its lines at most; the budget is at least four lines.
    let all = permits(services.limits.inflight_bytes_max);
    match services.inflight.clone().acquire_many_owned(permits(bytes).min(all)).await {
        Ok(permit) => permit,
        Err(_) => unreachable!("the budget is never closed"),
    }
}
