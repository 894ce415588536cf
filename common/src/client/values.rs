//! What a client is answered with: the replies of the protocol as values that own their bytes.

use bytes::Bytes;

use crate::wire::Reply;
use crate::{BrokerId, Offset, PartitionId, Pattern, Topic};

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it belongs.
    pub topic: Topic,
    /// Its place in its partition.
    pub offset: Offset,
    /// Its partition.
    pub partition: PartitionId,
    /// What it was partitioned by; may be empty.
    pub key: Bytes,
    /// What it says.
    pub payload: Bytes,
}

impl Message {
    /// The record that a MESSAGE line holds; `None` for any other line.
    #[must_use]
    pub fn from_reply(reply: Reply<'_>) -> Option<Self> {
        let Reply::Message { topic, offset, partition, key, payload } = reply else {
            return None;
        };
        Some(Self {
            topic: Topic::new(topic).ok()?,
            offset,
            partition,
            key: Bytes::from(key.into_owned()),
            payload: Bytes::from(payload.into_owned()),
        })
    }
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its place in its partition.
    pub offset: Offset,
    /// Its partition.
    pub partition: PartitionId,
}

/// Which stored records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Which topics.
    pub pattern: Pattern,
    /// The first offset wanted, in each partition asked.
    pub offset: Offset,
    /// One partition, or all.
    pub partition: Option<PartitionId>,
    /// Most records.
    pub max: u64,
    /// How long the broker waits for the first one, in milliseconds.
    pub wait_ms: u64,
}

/// What a FETCH found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// The records.
    pub messages: Vec<Message>,
    /// Where the next FETCH goes on, for each partition asked.
    pub next: Vec<(PartitionId, Offset)>,
}

/// A topic and how many of its records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCount {
    /// The topic.
    pub topic: Topic,
    /// Its records.
    pub records: u64,
}

/// A broker as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its number.
    pub id: BrokerId,
    /// Where clients reach it.
    pub address: String,
    /// `alive` or `dead`.
    pub state: String,
}

/// A partition as the cluster sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub id: PartitionId,
    /// The broker that leads it, if one does.
    pub leader: Option<BrokerId>,
    /// The first offset that is kept.
    pub start: Offset,
    /// The next offset to be written.
    pub end: Offset,
}

/// Who is there, and who leads what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    /// The brokers.
    pub brokers: Vec<BrokerInfo>,
    /// The partitions.
    pub partitions: Vec<PartitionInfo>,
}
