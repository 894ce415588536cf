//! Raft over the segmented log: the one place that names openraft.
//!
//! A [`Group`] is one replicated log: a partition's, or the metadata's. Its Raft log *is* the
//! segmented log of crate `aklight-log` (`log_store`); what is committed is handed, in order and
//! once, to a [`Machine`] (`state_machine`). No type of openraft leaves this folder.
//!
//! ```text
//! Proposal ──propose──▶ openraft ──append──▶ Log (fsync) ──commit──▶ Machine::apply ──▶ Applied
//! ```
//!
//! Invariant, checked in `state_machine`: applied ≤ committed ≤ flushed ≤ written.
//!
//! Left out: peers. A cluster of one talks to nobody (`network`); the transport between brokers
//! will implement the same trait in that module and change nothing else here.

mod codec;
mod group;
mod log_store;
mod network;
mod peers;
mod state_machine;
mod transport;
mod types;

pub use group::{Group, GroupConfig, GroupError, GroupStatus, ProposeError, Proposed};
pub use peers::Peers;
pub use state_machine::{Committed, Machine};
pub use transport::{
    Answers, Envelope, GroupId, Kind, Lane, MESSAGE_BYTES_MAX, Peer, PeerError, PeerHandler,
    PeerTransport, WIRE_VERSION,
};
pub use types::{Applied, Proposal};

#[cfg(test)]
mod tests;
