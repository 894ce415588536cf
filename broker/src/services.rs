//! What those who serve clients work with: built once by the broker, shared by every connection and
//! by the HTTP side.

use std::sync::Arc;

use aklight_common::BrokerId;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Faults, Pulse};
use crate::config::Limits;
use crate::events::Events;
use crate::fetch::SharedLines;
use crate::partition::Partitions;
use crate::replication::Peers;
use crate::sessions::Sessions;
use crate::stamp::Stamp;
use crate::stats::Stats;

/// The broker's parts, as connections see them.
pub struct Services {
    /// The partitions.
    pub partitions: Arc<Partitions>,
    /// The consumers.
    pub sessions: Arc<Sessions>,
    /// How the brokers are.
    pub pulse: Arc<Pulse>,
    /// The other brokers.
    pub peers: Arc<Peers>,
    /// What is broken on purpose.
    pub faults: Arc<Faults>,
    /// When records come in.
    pub stamp: Arc<Stamp>,
    /// Memory for records on their way, in units of [`PERMIT_BYTES`].
    pub inflight: Arc<Semaphore>,
    /// Places for lines that are longer than a read of the socket and still coming in: together
    /// they may take [`LONG_LINES_BYTES`].
    pub long_lines: Arc<Semaphore>,
    /// What many subscribers are sent.
    pub lines: Arc<SharedLines>,
    /// What clients may use.
    pub limits: Limits,
    /// This broker.
    pub broker: BrokerId,
    /// Where clients reach it.
    pub address: String,
    /// What happened lately.
    pub events: Arc<Events>,
    /// What is counted.
    pub stats: Stats,
    /// Why the node shall end by itself, once there is a reason.
    pub ending: watch::Sender<Option<Ending>>,
    /// Cancelled when the broker shuts down.
    pub stopping: CancellationToken,
}

/// Why a node ends that nobody told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Started anew, it mends its disk.
    Renew,
    /// It was removed from its cluster, and nobody counts on it any more.
    Removed,
}

/// Memory for long lines that are coming in, of all connections together: few clients send such
/// lines, and many halves of them must not fill the memory.
pub const LONG_LINES_BYTES: usize = 128 << 20;

/// Bytes that one permit of a memory budget stands for.
pub const PERMIT_BYTES: usize = 1024;

/// The permits for so many bytes; at least one.
#[must_use]
pub fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX)
}
