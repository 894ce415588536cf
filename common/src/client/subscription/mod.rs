//! The async consumer: subscribed for as long as it stands, over however many connections.
//!
//! A background task owns the socket and hands records to the caller through a short queue. When
//! the caller is slow the queue fills, the task stops reading, and TCP holds the broker back;
//! acknowledgements go out meanwhile.
//!
//! What a reconnection brings depends on the kind of consumer:
//!
//! - **persistent**: the broker knows what was acknowledged and sends the rest again; what the
//!   caller was given already is held back here (`progress`), so that within one process a
//!   record comes once. A process that starts again is given what it had not acknowledged.
//! - **not persistent**: what was stored meanwhile is fetched from where the subscription stood,
//!   before new records follow: a broker that restarts costs `aklight tail` no line. Where
//!   several patterns are subscribed to, the fetched records come pattern by pattern.
//!
//! The rooms: `acks` and `progress` are pure states; `task` dials and
//! hands on, `catch_up` fetches what was missed, `connection` speaks on one socket.

mod acks;
mod catch_up;
mod connection;
mod progress;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::acks::Acks;
use super::config::ClientConfig;
use super::values::Message;
use crate::wire::WireError;
use crate::{Offset, PartitionId, Pattern, Topic};

/// Records that wait for the caller: enough to keep it busy while the next packet is on its way,
/// and no more, for each may be as long as a line.
const EVENTS_MAX: usize = 256;

/// What a subscription has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Registered: no record that is stored from now on will be missed.
    Connected {
        /// The broker, as it was given.
        broker: String,
        /// What REGISTER_CONSUMER answered: for each partition, the next offset that this
        /// consumer has not acknowledged, or the log's end when it is not persistent.
        positions: Vec<(PartitionId, Offset)>,
    },
    /// A connection was lost, or an attempt to connect failed.
    Disconnected {
        /// Why.
        reason: String,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// A record.
    Message(Message),
    /// The registration, a pattern or an acknowledgement was refused for good. What else was
    /// asked goes on; a refused registration is tried again at the next connection.
    Refused(WireError),
}

/// What the caller's handle and the task share.
#[derive(Debug, Default)]
struct Shared {
    acks: Mutex<Acks>,
    /// Something was acknowledged.
    acked: Notify,
}

/// A consumer's subscription that mends itself. Dropping it ends the task at once, without the
/// acknowledgements that are still queued: [`Subscription::close`] sends them first.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    persistent: bool,
    patience: Duration,
    events: mpsc::Receiver<SubscriptionEvent>,
    closing: watch::Sender<bool>,
    task: JoinHandle<bool>,
}

impl Subscription {
    /// Starts the background task: to be called within a tokio runtime.
    #[must_use]
    pub fn open(config: ClientConfig, persistent: bool, patterns: Vec<Pattern>) -> Self {
        let shared = Arc::new(Shared::default());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (closing, closed) = watch::channel(false);
        let patience = config.request_timeout;
        let task =
            task::Task::new(config, persistent, patterns, Arc::clone(&shared), sender, closed);
        let task = tokio::spawn(task.run());
        Self { shared, persistent, patience, events, closing, task }
    }

    /// The next event. `None` only when the runtime is shutting down. Safe to be cancelled: no
    /// event is lost.
    pub async fn next(&mut self) -> Option<SubscriptionEvent> {
        self.events.recv().await
    }

    /// Says that every record of this partition up to and including `offset` is processed; the
    /// topic is that record's. Cheap: queued, and sent behind the caller's back, the highest of
    /// each partition. Does nothing for a consumer that is not persistent.
    pub fn ack(&self, topic: &Topic, offset: Offset, partition: PartitionId) {
        if self.persistent && self.shared.acks.lock().ack(topic, offset, partition) {
            self.shared.acked.notify_one();
        }
    }

    /// The highest offset of each partition whose acknowledgement is durable: a broker will
    /// never send a record up to there again.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<PartitionId, Offset> {
        self.shared.acks.lock().durable().clone()
    }

    /// Sends what is acknowledged, waits until it is durable, and takes leave. False when that
    /// could not be done (no connection, or no answer within the request's time): the records
    /// will then come again.
    pub async fn close(mut self) -> bool {
        self.events.close();
        // Nobody to tell means that the task has ended.
        let _ = self.closing.send(true);
        matches!(timeout(self.patience, &mut self.task).await, Ok(Ok(true)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}
