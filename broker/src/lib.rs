//! The AKLight broker: a replicated, partitioned log of records, spoken to in lines.
//!
//! A record's way, room by room:
//!
//! ```text
//! ingress (lines, connections) → partition (order, high watermark) → replication (Raft, the log)
//!                              ← fetch (readers, live tail)        ← sessions (consumers, offsets)
//! admin (HTTP beside it all)     broker (builds and ends everything, in order)
//! ```
//!
//! Imports run one way: `replication → partition → {fetch, sessions} → cluster → {ingress, peer,
//! admin} → node → broker`.

pub mod admin;
mod broker;
pub mod cluster;
pub mod config;
mod data_dir;
pub mod events;
pub mod fetch;
pub mod ingress;
mod node;
pub mod partition;
pub mod peer;
pub mod replication;
pub mod services;
pub mod sessions;
mod stamp;
pub mod stats;
mod telemetry;

pub use broker::{Broker, StartError, run};
pub use config::{BrokerArgs, BrokerConfig};
pub use ingress::converse;
pub use node::{Addresses, Environment, Node, NodeError, OpenLog};
pub use telemetry::Telemetry;
