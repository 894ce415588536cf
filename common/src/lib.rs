//! The vocabulary that every part of AKLight shares.
//!
//! Names come first ([`ids`], [`topic`], [`pattern`]), then what is stored ([`record`]), then
//! how it is said on a socket ([`wire`]). Nothing here reads a disk or decides anything about
//! storage; everything here can be used by a program that has no async runtime.
//!
//! What is absent on purpose: the log (crate `aklight-log`) and Raft (`broker::replication`).

pub mod atomic_file;
pub mod client;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod logging;
pub mod matcher;
pub mod partitioner;
pub mod pattern;
pub mod record;
pub mod settings;
mod together;
pub mod topic;
pub mod tree;
pub mod wire;

pub use ids::{BrokerId, Offset, PartitionId, RaftIndex, Term};
pub use pattern::{Pattern, PatternError};
pub use topic::{Topic, TopicError};
