//! Partitions: each one a replicated log of records, with one actor that lets records in.
//!
//! ```text
//! RoutedBatch ──mailbox──▶ actor ─┬─ leading ───Proposal──▶ Group ──commit──▶ RecordMachine ──▶ high watermark
//!                                 └─ following ──stream──▶ the leader's `forwarded` ──▶ its actor
//! ```
//!
//! The `actor` owns the order of a partition on this broker and is the only one that proposes to
//! its group: where this broker leads (`leading`), records of PRODUCE_ONCE are let in or told to be
//! repeats (`admission`) just before they are proposed; where another leads (`following`), batches
//! are passed on to it, in order (`passing`, `streams`). What is committed goes through the
//! `machine` on every broker: it counts topics, learns sequences (`sequences`), and moves the high
//! watermark, which is what readers may see.
//!
//! Invariant: start ≤ high watermark ≤ the log's end.

mod actor;
mod admission;
pub mod compression;
mod following;
mod forwarded;
mod leading;
mod machine;
mod parcel;
mod passing;
mod placed;
pub mod producers;
pub mod retention;
pub mod sequences;
mod streams;
pub mod topics;

use std::sync::Arc;
use std::time::Duration;

use aklight_common::partitioner::Partitioner;
use aklight_common::record::Body;
use aklight_common::{BrokerId, Offset, PartitionId};
use aklight_log::Log;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::replication::{Answers, Group, GroupStatus, Peers};
use forwarded::Entrance;
use leading::GroupSequencer;
use parcel::{Answer, Parcel};
use producers::Producers;
use streams::{StreamId, Streams};
use topics::Topics;

pub use actor::Actor;
pub use machine::{Learnt, RecordMachine};
pub use placed::{Outcome, Placed, ProduceError};

/// Batches that may wait in a partition's mailbox, and as many again in its actor's queue. Their
/// bytes are limited by the broker's memory budget; this limits what many tiny ones cost beside
/// their bytes.
const MAILBOX_BATCHES_MAX: usize = 1024;

/// How long records wait for a leader, and then for a majority: two elections, of which the second
/// follows a first one without a winner. After that the client is told.
pub const PRODUCE_WAIT: Duration = Duration::from_secs(5);

/// Records of one connection for one partition, in order, with what they hold of the broker's
/// memory and where the answer goes.
pub struct RoutedBatch {
    body: Body,
    once: u32,
    permit: OwnedSemaphorePermit,
    deadline: Instant,
    from: Option<StreamId>,
    answer: Answer,
}

impl RoutedBatch {
    /// A batch of records, `once` of them of PRODUCE_ONCE. The permit is released when they are
    /// settled; the receiver is told where they are, or why they are not, within a little more than
    /// [`PRODUCE_WAIT`].
    #[must_use]
    pub fn new(
        body: Body,
        once: u32,
        permit: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<Placed, ProduceError>>) {
        let (answer, told) = oneshot::channel();
        let deadline = Instant::now() + PRODUCE_WAIT;
        (Self { body, once, permit, deadline, from: None, answer }, told)
    }

    fn over(self, stream: StreamId) -> Self {
        Self { from: Some(stream), ..self }
    }
}

impl From<RoutedBatch> for Parcel {
    fn from(batch: RoutedBatch) -> Self {
        let RoutedBatch { body, once, permit, deadline, from, answer } = batch;
        Self::new(body, once, deadline, from, (answer, permit))
    }
}

/// What a partition is made of.
pub struct PartitionParts {
    /// Which one.
    pub id: PartitionId,
    /// Its log.
    pub log: Log,
    /// Its group.
    pub group: Group,
    /// What the group replicates.
    pub machine: Arc<RecordMachine>,
    /// The other brokers.
    pub peers: Arc<Peers>,
    /// Cancelled when nothing more shall be let in.
    pub stop: CancellationToken,
}

/// A partition, as readers and the router see it.
pub struct Partition {
    /// Which one.
    pub id: PartitionId,
    /// Its log.
    pub log: Log,
    /// Its topics.
    pub topics: Arc<Topics>,
    pub(crate) group: Group,
    learnt: Arc<Learnt>,
    mailbox: mpsc::Sender<RoutedBatch>,
    entrance: Entrance,
    high_watermark: watch::Receiver<Offset>,
}

impl Partition {
    /// A partition, and the actor that owns its order: nothing is taken in before it runs.
    #[must_use]
    pub fn new(parts: PartitionParts) -> (Self, Actor) {
        let PartitionParts { id, log, group, machine, peers, stop } = parts;
        let (mailbox, received) = mpsc::channel(MAILBOX_BATCHES_MAX);
        let streams = Arc::new(Streams::default());
        let (topics, learnt) = (machine.topics.clone(), machine.learnt.clone());
        let actor = Actor {
            group: group.id(),
            sequencer: Arc::new(GroupSequencer { group: group.clone(), log: log.clone() }),
            learnt: learnt.clone(),
            streams: streams.clone(),
            peers,
            roles: group.roles(),
            mailbox: received,
            stop,
            state: actor::State::default(),
        };
        let entrance = Entrance::new(mailbox.clone(), group.roles(), streams);
        let high_watermark = machine.high_watermark();
        (Self { id, log, topics, group, learnt, mailbox, entrance, high_watermark }, actor)
    }

    /// The first offset that is kept.
    pub fn start(&self) -> Offset {
        self.log.bounds().start_offset.min(self.end())
    }

    /// The high watermark: one behind the last record that readers may see.
    pub fn end(&self) -> Offset {
        *self.high_watermark.borrow()
    }

    /// Waits until everything before `offset` can be read here.
    pub async fn reaches(&self, offset: Offset) {
        // The machine that moves the high watermark lives as long as the group that is held here.
        let _ = self.high_watermark.clone().wait_for(|end| *end >= offset).await;
    }

    /// Its copies on the brokers.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Who leads it, and whether it can be written.
    pub fn status(&self) -> GroupStatus {
        self.group.status()
    }

    /// A producer's highest sequence that is committed here; 0 when there is none.
    #[must_use]
    pub fn highest_sequence(&self, producer: &str) -> u64 {
        self.learnt.sequences.read(|table| table.highest(producer))
    }

    /// Answers a stream of records that another broker passes on to the leader.
    #[must_use]
    pub fn serve_forwarded(&self, from: BrokerId, bodies: BoxStream<'static, Bytes>) -> Answers {
        self.entrance.serve(from, bodies)
    }

    /// Puts records into the mailbox, waiting while it is full.
    ///
    /// # Errors
    /// Gives the batch back when the broker is shutting down.
    pub async fn take(&self, batch: RoutedBatch) -> Result<(), Box<RoutedBatch>> {
        self.mailbox.send(batch).await.map_err(|refused| Box::new(refused.0))
    }
}

/// All partitions of the broker, and what leads a record to one of them.
pub struct Partitions {
    all: Vec<Partition>,
    /// Leads records to partitions.
    pub partitioner: Partitioner,
    /// How high the sequences of those who are connected are.
    pub producers: Producers,
    /// Changes whenever any high watermark does.
    pub commits: watch::Receiver<u64>,
}

impl Partitions {
    /// From partition 0 on.
    #[must_use]
    pub fn new(all: Vec<Partition>, commits: watch::Receiver<u64>) -> Self {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let (partitioner, producers) = (Partitioner::new(count), Producers::default());
        Self { all, partitioner, producers, commits }
    }

    /// Each partition, from 0 on.
    pub fn iter(&self) -> std::slice::Iter<'_, Partition> {
        self.all.iter()
    }

    /// One partition, if it exists.
    #[must_use]
    pub fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.all.get(id.0 as usize)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none, which no broker is started with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The end of every partition.
    #[must_use]
    pub fn ends(&self) -> Vec<Offset> {
        self.all.iter().map(Partition::end).collect()
    }
}

#[cfg(test)]
mod tests;
