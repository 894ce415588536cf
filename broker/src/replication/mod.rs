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
//! Other brokers are reached through [`Peers`] over a [`PeerTransport`] that carries opaque bytes
//! (`transport`, `wire`): `network` is openraft's way out, `inbound` the way in, `asking` what
//! any broker asks of the leader, `members` who has copies, `role` who leads.

mod asking;
mod codec;
mod group;
mod inbound;
mod log_store;
mod members;
mod network;
mod peers;
mod role;
mod state_machine;
mod transport;
mod types;
mod wire;

pub use group::{Begin, Group, GroupConfig, GroupError, GroupStatus, ProposeError, Proposed};
pub use inbound::committed_entries;
pub use log_store::{committed_hint, committed_index};
pub use members::{Members, View};
pub use peers::Peers;
pub use role::Role;
pub(crate) use state_machine::off_the_runtime;
pub use state_machine::{Committed, Machine};
pub use transport::{
    Answers, Envelope, GroupId, Kind, Lane, MESSAGE_BYTES_MAX, NoPeers, Peer, PeerError,
    PeerHandler, PeerTransport, WIRE_VERSION,
};
pub use types::{Applied, Proposal};
pub use wire::{decode_entries, encode_entries};

#[cfg(test)]
mod tests;
