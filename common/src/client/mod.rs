//! The one client that everyone uses, in its forms.
//!
//! | form | for | mends itself |
//! |---|---|---|
//! | [`blocking::ProducerLink`] | programs with a poll loop and no runtime: the producer | yes |
//! | [`Producer`] | async programs that store records | yes |
//! | [`Subscription`] | async programs that follow topics: the consumer, `aklight tail` | yes |
//! | [`Client`] | one question, one answer: `aklight fetch`, `topics`, `cluster` | no |
//!
//! One state machine without sockets (`pipeline`) is behind both producers, and one rule
//! (`dialer`, [`Backoff`]) says for all forms which broker is tried next and when. What is
//! promised, and how it is kept:
//!
//! - *A reconnection loses and doubles no record.* A producer keeps each record until it is
//!   answered, and after a reconnection sends all of them again, in order, under the same
//!   sequences; PRODUCE_ONCE lets the broker tell the repeats.
//! - *What may pass is tried again, what will not is handed over.* `busy` and `unavailable` are
//!   repeated after a pause ([`crate::wire::ErrorCode::is_passing`]); every other error is the
//!   caller's.
//! - *Any broker will do.* The list is gone round by itself, and names are resolved anew each
//!   time (by a link without threads only when an address has failed for long: `names`). A broker that is there but serves nobody (no leader, cut off from the others) is left
//!   for the next one. A change, an outage and its end are told in the log once each (`telling`).
//! - *Nothing waits for ever.* Connecting, answering and idling each have a limit; where a form
//!   waits for its caller, or for a broker to come back, it says so.
//!
//! Left out: TLS and AUTH (brokers do not ask for them yet).

mod ask;
pub mod backoff;
pub mod blocking;
pub mod config;
mod dial;
mod dialer;
mod error;
mod names;
mod pipeline;
mod producer;
mod since;
mod socket;
mod subscription;
mod telling;
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
