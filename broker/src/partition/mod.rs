//! Partitions: each one a replicated log of records, with one actor that lets records in.
//!
//! ```text
//! RoutedBatch ──mailbox──▶ actor ──Proposal──▶ Group ──commit──▶ RecordMachine ──▶ high watermark
//! ```
//!
//! The `actor` owns the order of a partition and is the only one that proposes to its group. What
//! is committed goes through the `machine`: it counts topics, learns sequences, and moves the
//! high watermark, which is what readers may see.
//!
//! Invariant: start ≤ high watermark ≤ the log's end.

mod actor;
mod machine;
pub mod producers;
pub mod retention;
pub mod topics;

use std::sync::Arc;

use aklight_common::partitioner::Partitioner;
use aklight_common::record::Body;
use aklight_common::{Offset, PartitionId};
use aklight_log::Log;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::replication::{Group, GroupStatus};
use topics::Topics;

pub use actor::{ActorParts, run as run_actor};
pub use machine::RecordMachine;

/// Batches that may wait in a partition's mailbox. Their bytes are limited by the broker's memory
/// budget; this limits what many tiny ones cost beside their bytes.
pub const MAILBOX_BATCHES_MAX: usize = 1024;

/// Why records were not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The disk is nearly full; nothing was appended.
    #[error("{0}")]
    NoRoom(String),
    /// The partition cannot be written; the text says whether it will pass.
    #[error("{0}")]
    Unavailable(String),
}

/// Records of one connection for one partition, in order, with what they hold of the broker's
/// memory and where the answer goes: the offset of the first one.
pub struct RoutedBatch {
    /// The records.
    pub body: Body,
    /// Released when the records are durable.
    pub permit: OwnedSemaphorePermit,
    /// Told when the records are durable, or why they are not.
    pub answer: oneshot::Sender<Result<Offset, ProduceError>>,
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
    pub(crate) mailbox: mpsc::Sender<RoutedBatch>,
    pub(crate) high_watermark: watch::Receiver<Offset>,
}

impl Partition {
    /// The first offset that is kept.
    pub fn start(&self) -> Offset {
        self.log.bounds().start_offset.min(self.end())
    }

    /// The high watermark: one behind the last record that readers may see.
    pub fn end(&self) -> Offset {
        *self.high_watermark.borrow()
    }

    /// Who leads it, and whether it can be written.
    pub fn status(&self) -> GroupStatus {
        self.group.status()
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
    /// Changes whenever any high watermark does.
    pub commits: watch::Receiver<u64>,
}

impl Partitions {
    /// From partition 0 on.
    #[must_use]
    pub fn new(all: Vec<Partition>, commits: watch::Receiver<u64>) -> Self {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        Self { all, partitioner: Partitioner::new(count), commits }
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
