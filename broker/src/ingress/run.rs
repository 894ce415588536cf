//! A run of PRODUCE commands: what one read of a socket brought of them.
//!
//! Its records go to each partition as one batch; its answers are kept as slots in the order of
//! the commands, each waiting for its batch or holding its own answer already.

use std::sync::Arc;

use aklight_common::record::{BodyBuilder, Once, Record};
use aklight_common::wire::{Command, ErrorCode, WireError};
use aklight_common::{Offset, PartitionId};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::partition::producers::{Admission, Place, Producer};
use crate::partition::{ProduceError, RoutedBatch};
use crate::services::{Services, permits};

/// The answer to one PRODUCE, or where it will come from.
pub(super) enum Slot {
    /// The `nth` record of the run's batch for this partition.
    Batch { partition: PartitionId, nth: u32, topic: TopicText },
    /// A repeat of a record that is stored.
    Stored { place: Place, topic: TopicText },
    /// A repeat of a record that is on its way.
    Repeat { place: oneshot::Receiver<Place>, topic: TopicText },
    /// Refused.
    Refused(WireError),
}

/// A topic's name within the line that brought it: no copy.
#[derive(Clone)]
pub(super) struct TopicText(Bytes);

impl TopicText {
    fn of(line: &Bytes, topic: &str) -> Self {
        Self(line.slice_ref(topic.as_bytes()))
    }

    pub(super) fn as_str(&self) -> &str {
        // It was checked as a topic, which is UTF-8, and is never changed.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A batch of the run on its way to one partition.
pub(super) type Ticket = (PartitionId, oneshot::Receiver<Result<Offset, ProduceError>>);

/// The answers of a run.
#[derive(Default)]
pub(super) struct ProducedRun {
    pub(super) slots: Vec<Slot>,
    pub(super) tickets: Vec<Ticket>,
}

/// A run that is being gathered.
pub(super) struct RunBuilder {
    slots: Vec<Slot>,
    bodies: Vec<BodyBuilder>,
    bytes: usize,
}

impl RunBuilder {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            slots: Vec::new(),
            bodies: std::iter::repeat_with(BodyBuilder::new).take(partitions).collect(),
            bytes: 0,
        }
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
        self.slots.push(Slot::Refused(error));
    }

    /// Adds a PRODUCE or PRODUCE_ONCE line; `producer` is who registered on this connection.
    pub(super) fn add(
        &mut self,
        line: &Bytes,
        command: &Command<'_>,
        producer: Option<&Arc<Producer>>,
        services: &Services,
    ) {
        self.bytes += line.len();
        let partitioner = &services.partitions.partitioner;
        let slot = match command {
            Command::Produce { topic, key, payload } => {
                let partition = partitioner.route(key);
                self.append(line, partition, topic, key, payload, None, services)
            }
            Command::ProduceOnce { sequence, topic, key, payload } => {
                let Some(producer) = producer else {
                    self.refuse(ErrorCode::NotRegistered.with(
                        "PRODUCE_ONCE needs REGISTER_PRODUCER|id before it on this connection",
                    ));
                    return;
                };
                match producer.admit(*sequence) {
                    Admission::New => {
                        let partition = partitioner.route_once(*sequence, key);
                        let once = Once { producer: producer.id(), sequence: *sequence };
                        self.append(line, partition, topic, key, payload, Some(once), services)
                    }
                    Admission::Stored(place) => {
                        Slot::Stored { place, topic: TopicText::of(line, topic) }
                    }
                    Admission::Pending(place) => {
                        Slot::Repeat { place, topic: TopicText::of(line, topic) }
                    }
                    Admission::TooOld(highest) => {
                        Slot::Refused(ErrorCode::BadSequence.with(&format!(
                            "{sequence} is more than 8192 below this producer's highest, {highest}"
                        )))
                    }
                }
            }
            _ => Slot::Refused(ErrorCode::Internal.with("not a record")),
        };
        self.slots.push(slot);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one record, named at both calls")]
    fn append(
        &mut self,
        line: &Bytes,
        partition: PartitionId,
        topic: &str,
        key: &[u8],
        payload: &[u8],
        once: Option<Once<'_>>,
        services: &Services,
    ) -> Slot {
        let body = &mut self.bodies[partition.0 as usize];
        let nth = body.records();
        body.push(&Record { time_us: services.stamp.next_us(), topic, key, payload, once });
        Slot::Batch { partition, nth, topic: TopicText::of(line, topic) }
    }

    /// Sends each partition its batch, waiting for memory and for a place in its mailbox.
    pub(super) async fn dispatch(&mut self, services: &Services) -> ProducedRun {
        let mut tickets = Vec::new();
        for (body, partition) in self.bodies.iter_mut().zip(services.partitions.iter()) {
            if body.is_empty() {
                continue;
            }
            let body = std::mem::take(body).finish();
            let permit = acquire(services, body.bytes.len()).await;
            let (answer, ticket) = oneshot::channel();
            // A mailbox is closed only at shutdown; the ticket then ends without an answer, which
            // the client is told as `unavailable`.
            let _ = partition.take(RoutedBatch { body, permit, answer }).await;
            tickets.push((partition.id, ticket));
        }
        self.bytes = 0;
        ProducedRun { slots: std::mem::take(&mut self.slots), tickets }
    }
}

async fn acquire(services: &Services, bytes: usize) -> OwnedSemaphorePermit {
    // A body is a little larger than its lines at most; the budget is at least four lines.
    let all = permits(services.limits.inflight_bytes_max);
    match services.inflight.clone().acquire_many_owned(permits(bytes).min(all)).await {
        Ok(permit) => permit,
        Err(_) => unreachable!("the budget is never closed"),
    }
}
