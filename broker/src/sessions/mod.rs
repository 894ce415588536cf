//! Consumers that come back: who they are and how far they have got.
//!
//! Registrations and acknowledged offsets are the cluster's metadata: commands in a Raft group of
//! their own (`metadata`). Acknowledgements come by the thousand, so they are gathered while one
//! command is on its way to the disk, and the next command carries the newest of each consumer
//! and partition ([`Sessions::run`]).
//!
//! Invariant: what a consumer acknowledged never goes back.

mod metadata;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_common::{Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::replication::{Group, Proposal, ProposeError};
pub use metadata::{BrokerInfo, MetaCommand, MetadataMachine, Standing};

/// Most persistent consumers. Each costs some 100 bytes of memory and of every checkpoint; ids
/// that are made up must not grow without end.
pub const CONSUMERS_MAX: usize = 10_000;

/// The metadata log's size at which it is cut: its state is in the checkpoint.
const METADATA_BYTES_MAX: u64 = 64 << 20;

/// How often the log's size is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Commands after which the state goes to a checkpoint: how much damage in the log can put in
/// doubt, against a small file written once in some minutes.
const COMMANDS_A_CHECKPOINT: u32 = 256;

/// Longest wait for a command to be stored, elections included.
const WRITE_WAIT: Duration = Duration::from_secs(5);

/// Why a consumer is not registered or an offset not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There are too many consumers.
    #[error(
        "this cluster remembers {CONSUMERS_MAX} persistent consumers already: register with persistent 0, or use an id that is known"
    )]
    TooMany,
    /// The metadata cannot be written now: it may be tried again.
    #[error("offsets cannot be kept: {0}")]
    Unavailable(String),
    /// The metadata cannot be written by this broker until it is restarted.
    #[error("offsets cannot be kept: {0}")]
    Stopped(String),
}

impl From<ProposeError> for SessionError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Stopped(_) => Self::Stopped(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    // The next offset not acknowledged, by consumer and partition.
    offsets: HashMap<(Arc<str>, PartitionId), Offset>,
    // The same, of the command that is on its way.
    writing: HashMap<(Arc<str>, PartitionId), Offset>,
    // How many acknowledgements were ever gathered.
    count: u64,
}

/// How far the gathered acknowledgements are durable.
#[derive(Debug, Clone, Default)]
struct Durable {
    count: u64,
    failed: Option<SessionError>,
}

/// The consumers of the cluster.
pub struct Sessions {
    group: Group,
    machine: Arc<MetadataMachine>,
    clock: SharedClock,
    gathered: Mutex<Gathered>,
    gathered_some: Notify,
    durable: watch::Sender<Durable>,
}

impl Sessions {
    /// Over the metadata's group and machine.
    #[must_use]
    pub fn new(group: Group, machine: Arc<MetadataMachine>, clock: SharedClock) -> Self {
        Self {
            group,
            machine,
            clock,
            gathered: Mutex::default(),
            gathered_some: Notify::new(),
            durable: watch::channel(Durable::default()).0,
        }
    }

    /// Where a consumer stands that may have been at another broker a moment ago; none when it
    /// never registered anywhere.
    ///
    /// # Errors
    /// When it cannot be known now.
    pub async fn known(&self, id: &str) -> Result<Option<Vec<Offset>>, SessionError> {
        self.group.barrier(WRITE_WAIT).await?;
        Ok(self.positions(&id.into()))
    }

    /// Registers a new persistent consumer, which stands at `ends`; where it stands then.
    ///
    /// # Errors
    /// When there are too many, or the registration cannot be kept.
    pub async fn register(&self, id: &str, ends: Vec<Offset>) -> Result<Vec<Offset>, SessionError> {
        if self.machine.consumers() >= CONSUMERS_MAX {
            return Err(SessionError::TooMany);
        }
        let register = MetaCommand::Register {
            consumer: id.to_owned(),
            positions: ends.iter().map(|offset| offset.0).collect(),
        };
        self.write(&register).await?;
        self.keep_apart().await?;
        self.machine
            .positions(id)
            .ok_or_else(|| SessionError::Unavailable("the registration is not there".to_owned()))
    }

    /// Where a persistent consumer stands: what is durable, and what was taken in since.
    #[must_use]
    pub fn positions(&self, id: &Arc<str>) -> Option<Vec<Offset>> {
        let gathered = self.gathered.lock();
        let mut positions = self.machine.positions(id)?;
        for (position, partition) in positions.iter_mut().zip((0..).map(PartitionId)) {
            let key = (id.clone(), partition);
            for taken in [&gathered.writing, &gathered.offsets] {
                *position = taken.get(&key).map_or(*position, |next| (*position).max(*next));
            }
        }
        Some(positions)
    }

    /// Takes an acknowledgement in: the consumer goes on at `next`. Gives the number to wait for.
    pub fn acknowledge(&self, id: &Arc<str>, partition: PartitionId, next: Offset) -> u64 {
        let mut gathered = self.gathered.lock();
        let offset = gathered.offsets.entry((id.clone(), partition)).or_default();
        *offset = next.max(*offset);
        gathered.count += 1;
        let count = gathered.count;
        drop(gathered);
        self.gathered_some.notify_one();
        count
    }

    /// Waits until the acknowledgement with this number, and all before it, are durable.
    ///
    /// # Errors
    /// When they will not be.
    pub async fn durable(&self, count: u64) -> Result<(), SessionError> {
        let mut durable = self.durable.subscribe();
        let reached = durable
            .wait_for(|durable| durable.count >= count || durable.failed.is_some())
            .await
            .map_err(|_| SessionError::Unavailable("the broker is shutting down".to_owned()))?;
        match &reached.failed {
            Some(error) if reached.count < count => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Writes gathered acknowledgements and keeps the log short, until told to stop; what is left
    /// then is tried once more.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Beside each other: a purge that has to wait holds up no acknowledgement. And whether or
        // not anybody acknowledges here: this broker's copy holds what is acknowledged at others.
        let cutting = async {
            loop {
                sleep(LOOK_EVERY).await;
                self.cut_log().await;
            }
        };
        tokio::join!(stop.run_until_cancelled(cutting), self.write_until(&stop));
    }

    async fn write_until(&self, stop: &CancellationToken) {
        let mut written = 0;
        loop {
            let stopping = stop.run_until_cancelled(self.gathered_some.notified()).await.is_none();
            let (offsets, count) = {
                let mut gathered = self.gathered.lock();
                let offsets = std::mem::take(&mut gathered.offsets);
                gathered.writing.clone_from(&offsets);
                (offsets, gathered.count)
            };
            if !offsets.is_empty() {
                self.write_gathered(offsets, count).await;
                written += 1;
            }
            if written >= COMMANDS_A_CHECKPOINT {
                written = 0;
                if let Err(error) = self.keep_apart().await {
                    tracing::warn!(%error, "offsets have no second copy yet");
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Makes the cluster known, at its first start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn create(
        &self,
        partitions: u32,
        brokers: BTreeMap<u64, BrokerInfo>,
    ) -> Result<(), SessionError> {
        self.write(&MetaCommand::Create { partitions, brokers }).await?;
        self.group.checkpoint_soon();
        Ok(())
    }

    /// What is known of the cluster.
    #[must_use]
    pub fn metadata(&self) -> &Arc<MetadataMachine> {
        &self.machine
    }

    /// Writes a checkpoint: what the cluster is, and who consumes, must survive damage in the log's
    /// one copy of it.
    async fn keep_apart(&self) -> Result<(), SessionError> {
        let kept = self.group.checkpoint().await;
        kept.map_err(|error| SessionError::Unavailable(error.to_string()))
    }

    /// The metadata's group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    async fn write_gathered(&self, offsets: HashMap<(Arc<str>, PartitionId), Offset>, count: u64) {
        let acknowledged = offsets
            .iter()
            .map(|((consumer, partition), next)| (consumer.to_string(), partition.0, next.0))
            .collect();
        match self.write(&MetaCommand::Acknowledge { acknowledged }).await {
            Ok(()) => {
                self.durable.send_replace(Durable { count, failed: None });
            }
            Err(error) => {
                tracing::warn!(%error, "acknowledged offsets are not kept yet");
                self.put_back(offsets);
                if matches!(error, SessionError::Stopped(_)) {
                    self.durable.send_modify(|durable| durable.failed = Some(error));
                } else {
                    // Nobody need acknowledge anything more for these to be tried again.
                    self.gathered_some.notify_one();
                }
            }
        }
    }

    /// Puts acknowledgements that were not written back: the next round takes them along, so that
    /// none is called durable that is not.
    fn put_back(&self, offsets: HashMap<(Arc<str>, PartitionId), Offset>) {
        let mut gathered = self.gathered.lock();
        for (consumer, next) in offsets {
            let offset = gathered.offsets.entry(consumer).or_default();
            *offset = next.max(*offset);
        }
    }

    /// Keeps the metadata's log short.
    async fn cut_log(&self) {
        if self.machine.log_bytes() < METADATA_BYTES_MAX {
            return;
        }
        let Some(applied) = self.group.applied() else { return };
        if let Err(error) = self.group.purge(applied).await {
            tracing::warn!(%error, "the metadata's log is not cut and grows on");
        }
    }

    /// Stores a command, wherever the metadata's leader is.
    ///
    /// # Errors
    /// When it cannot be written in time.
    pub async fn write(&self, command: &MetaCommand) -> Result<(), SessionError> {
        let body = command.encode().map_err(|e| SessionError::Unavailable(e.to_string()))?;
        self.group.write(Proposal::command(body, self.clock.wall_us()), WRITE_WAIT).await?;
        Ok(())
    }
}
