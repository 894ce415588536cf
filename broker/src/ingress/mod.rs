//! The line protocol over TCP.
//!
//! ```text
//! socket ─▶ intake (lines → commands; records go to their partitions at once) ─▶ Work, in order
//! Work ─▶ answers (waits for each in turn, pushes MESSAGEs between) ─▶ outbox ─▶ socket
//! ```
//!
//! A connection is two tasks with a queue between them: the [`intake`] never waits for an answer,
//! so a client may pipeline; the [`answers`] never read, so they keep the order. Everything a
//! connection holds is bounded: its lines by a budget of its own, its records on their way by the
//! broker's, its output by the outbox. A client that stops reading stops being read.

mod answers;
mod intake;
mod listener;
mod outbox;
mod run;

use std::sync::Arc;

use aklight_common::BrokerId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::events::Events;
use crate::partition::Partitions;
use crate::partition::producers::Producers;
use crate::sessions::Sessions;
use crate::stamp::Stamp;
use crate::stats::Stats;

pub use listener::serve;
pub use outbox::Outbox;

/// What every connection works with.
pub struct Services {
    /// The partitions.
    pub partitions: Arc<Partitions>,
    /// The consumers.
    pub sessions: Arc<Sessions>,
    /// What PRODUCE_ONCE remembers.
    pub producers: Arc<Producers>,
    /// When records come in.
    pub stamp: Stamp,
    /// Memory for records on their way, in units of [`PERMIT_BYTES`].
    pub inflight: Arc<Semaphore>,
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
    /// Cancelled when the broker shuts down.
    pub stopping: CancellationToken,
}

/// Bytes that one permit of a memory budget stands for.
pub const PERMIT_BYTES: usize = 1024;

/// The permits for so many bytes; at least one.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX)
}
