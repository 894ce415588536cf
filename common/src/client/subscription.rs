//! (in the making) The async, reconnecting consumer.
#![allow(unused, missing_docs, clippy::unused_async, reason = "signatures first")]

use std::collections::BTreeMap;
use std::time::Duration;

use super::ClientConfig;
use super::values::Message;
use crate::wire::WireError;
use crate::{Offset, PartitionId, Pattern, Topic};

/// What a subscription has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Registered and subscribed; for each partition the first offset that will come.
    Connected { broker: String, positions: Vec<(PartitionId, Offset)> },
    /// A connection was lost, or did not come about.
    Disconnected { reason: String, retry_in: Duration },
    /// A record.
    Message(Message),
    /// The broker refused the registration, a pattern or an acknowledgement.
    Refused(WireError),
}

/// A reconnecting consumer.
pub struct Subscription(());

impl Subscription {
    /// Starts the background task: call it within a tokio runtime.
    pub fn open(config: ClientConfig, persistent: bool, patterns: Vec<Pattern>) -> Self {
        panic!("in the making")
    }
    /// The next event; `None` only when the runtime is shutting down.
    pub async fn next(&mut self) -> Option<SubscriptionEvent> {
        panic!("in the making")
    }
    /// Everything of this partition up to and including `offset` is processed. Cheap: queued,
    /// coalesced, sent behind the caller's back.
    pub fn ack(&self, topic: &Topic, offset: Offset, partition: PartitionId) {
        panic!("in the making")
    }
    /// The highest offset of each partition whose acknowledgement is durable.
    pub fn acknowledged(&self) -> BTreeMap<PartitionId, Offset> {
        panic!("in the making")
    }
    /// Sends what is acknowledged, waits until it is durable, says QUIT.
    /// False when the broker could not be told in time.
    pub async fn close(self) -> bool {
        panic!("in the making")
    }
}
