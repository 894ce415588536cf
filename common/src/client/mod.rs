//! The one client that everyone uses. (In the making.)

mod ask;
pub mod backoff;
pub mod blocking;
pub mod config;
mod dial;
mod dialer;
mod error;
mod pipeline;
mod producer;
mod socket;
mod subscription;
pub mod values;

pub use ask::Client;
pub use backoff::Backoff;
pub use config::{BrokersError, ClientConfig, parse_brokers};
pub use error::ClientError;
pub use producer::{Producer, Receipt};
pub use subscription::{Subscription, SubscriptionEvent};
pub use values::{
    BrokerInfo, ClusterInfo, FetchRequest, Fetched, Message, PartitionInfo, Stored, TopicCount,
};
