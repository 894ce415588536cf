//! Clients: they speak the line protocol, tell the oracle what they are told, and go elsewhere when
//! there is trouble.
//!
//! All of them run on one runtime. Each has dice of its own, so that what one does depends on what
//! it is told and on nothing else.

mod auditor;
mod connection;
mod consumer;
mod producer;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::{Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use auditor::{Audit, audit};
pub use consumer::{Consumer, consume};
pub use producer::{Producer, produce};
pub use reader::read;

use crate::dice::Dice;
use crate::gates::Gates;
use crate::teller::Teller;

/// Topics `t/0` and so on.
pub const TOPICS: u16 = 4;

/// Keys `k1` and so on; 0 is the empty one.
pub const KEYS: u32 = 12;

/// How far a simulation has come, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Produce, consume, read.
    Load,
    /// Nothing new: producers see to it that what they must know they know.
    Drain,
}

/// What every client has.
#[derive(Clone)]
pub struct Kit {
    /// Its dice.
    pub dice: Dice,
    /// The way to the brokers.
    pub gates: Gates,
    /// The history.
    pub teller: Teller,
    /// How far the simulation has come.
    pub stage: watch::Receiver<Stage>,
    /// How far all clients are.
    pub progress: Arc<Progress>,
}

/// How far clients are, for the end of a simulation.
#[derive(Default)]
pub struct Progress {
    /// Producers that may still produce or repeat.
    pub producing: AtomicU64,
    /// The highest offset that each persistent consumer was sent, and the topics that it wants.
    pub delivered: Mutex<BTreeMap<u32, Delivered>>,
}

/// How far a persistent consumer is.
#[derive(Debug, Clone, Default)]
pub struct Delivered {
    /// `None` for all.
    pub topics: Option<Vec<u16>>,
    /// Where it began.
    pub begins: BTreeMap<PartitionId, Offset>,
    /// The highest offset that it was sent.
    pub highest: BTreeMap<PartitionId, Offset>,
}

impl Progress {
    /// Whether all producers have ended.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.producing.load(Ordering::Relaxed) == 0
    }
}

impl Kit {
    fn is_draining(&self) -> bool {
        *self.stage.borrow() >= Stage::Drain
    }

    async fn pause_ms(&mut self, low: u64, high: u64) {
        let ms = self.dice.between(low, high);
        tokio::time::sleep(tokio::time::Duration::from_millis(ms)).await;
    }
}

/// The name of a topic.
fn topic_name(topic: u16) -> String {
    format!("t/{topic}")
}

/// The text of a key.
fn key_name(key: u32) -> String {
    if key == 0 { String::new() } else { format!("k{key}") }
}

/// The number in a topic's or key's name; a number that nobody uses for a name that is no such.
fn number_in<T: std::str::FromStr>(name: &[u8], before: &str, other: T) -> T {
    let text = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(before));
    text.and_then(|text| text.parse().ok()).unwrap_or(other)
}
