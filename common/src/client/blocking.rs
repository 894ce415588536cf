//! (in the making) The producer's link without a runtime: one poll loop drives it.
#![allow(unused, missing_docs, reason = "signatures first; the bodies follow")]

use std::os::fd::BorrowedFd;

use super::ClientConfig;
use crate::clock::SharedClock;
use crate::wire::WireError;
use crate::{Offset, PartitionId};

/// As many records are unanswered as the protocol allows: drive the link, then send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many records are unanswered: try again when some are stored")]
pub struct WindowFull;

/// What happened on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Registered at a broker.
    Connected { broker: String },
    /// A connection was lost, or did not come about.
    Disconnected { reason: String, retry_in_ms: u64 },
    /// A record is stored, durably.
    Stored { sequence: u64, offset: Offset, partition: PartitionId },
    /// A record is refused for good.
    Refused { sequence: u64, error: WireError },
}

/// A reconnecting producer's connection.
pub struct ProducerLink(());

impl ProducerLink {
    pub fn new(config: ClientConfig, next_sequence: u64, clock: SharedClock) -> Self {
        panic!("in the making")
    }
    pub fn send(&mut self, topic: &str, key: &[u8], payload: &[u8]) -> Result<u64, WindowFull> {
        panic!("in the making")
    }
    /// For records restored from a spool: any sequence that is not unanswered already.
    pub fn send_with(
        &mut self,
        sequence: u64,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<(), WindowFull> {
        panic!("in the making")
    }
    pub fn next_sequence(&self) -> u64 {
        panic!("in the making")
    }
    pub fn unanswered(&self) -> usize {
        panic!("in the making")
    }
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        panic!("in the making")
    }
    pub fn wants_write(&self) -> bool {
        panic!("in the making")
    }
    pub fn next_wake_ms(&self) -> Option<u64> {
        panic!("in the making")
    }
    pub fn drive(&mut self) -> Vec<LinkEvent> {
        panic!("in the making")
    }
    /// Waits until `drive` has something to do, at most `timeout_ms`.
    pub fn wait(&mut self, timeout_ms: u64) {
        panic!("in the making")
    }
}
