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
//! Imports run one way: `replication → partition → {fetch, sessions} → {ingress, admin} → broker`.

pub mod admin;
mod broker;
pub mod config;
mod data_dir;
pub mod events;
pub mod fetch;
pub mod ingress;
pub mod partition;
pub mod peer;
pub mod replication;
pub mod services;
pub mod sessions;
mod stamp;
pub mod stats;

pub use broker::{Broker, StartError, run};
pub use config::{BrokerArgs, BrokerConfig};
