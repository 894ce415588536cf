//! The brokers as one cluster: how they find, know and help each other.
//!
//! ```text
//! messages of other brokers ──▶ door ──┬▶ groups (Raft), partitions (records of other brokers)
//!                                      ├▶ forming   how a cluster begins, how a broker joins
//!                                      ├▶ pulse     who is alive, who leads what
//!                                      └▶ faults    broken on purpose
//! pulse, metadata ──▶ keeper    copies and leaders are where they should be
//! damaged log     ──▶ mend      what is lost here is asked of the others
//! people          ──▶ control   add, remove, replace, move a leader; view  what is so
//!                                      (quorum  whether the cluster survives it)
//! ```
//!
//! The metadata says who the brokers are; this room makes it so. What is decided is always a
//! command in the metadata's log, and the leaders of the groups carry it out, one step after
//! another, however often leaders change on the way.
//!
//! Left out: trust. Whoever reaches the port for brokers is believed, as long as it names the
//! cluster: that port belongs inside a private network.

pub mod control;
mod door;
mod faults;
mod forming;
mod keeper;
mod mend;
mod pulse;
mod quorum;
mod view;

pub use control::ControlError;
pub use door::{Door, Opened};
pub use faults::{Fault, Faults, FaultyTransport, SLOW_MS_MAX};
pub use forming::{JoinError, draw, founders, join, was_let_go};
pub use keeper::{VOTERS_MAX, keep};
pub use mend::Mender;
pub use pulse::{BrokerStatus, GroupStatus, Pulse, Seen};
pub use view::{BrokerState, BrokerView, ClusterView, GroupView, ReplicaView, status};
