//! (in the making) The async producer: reconnects by itself, pipelines, loses and doubles nothing.
#![allow(unused, missing_docs, clippy::unused_async, reason = "signatures first")]

use super::ClientConfig;
use super::values::Stored;
use crate::clock::SharedClock;
use crate::wire::WireError;

/// A handle that tasks may share (`Arc<Producer>`); dropping the last ends the background task.
pub struct Producer(());

/// The answer to come for one record.
pub struct Receipt(());

impl Producer {
    /// Starts the background task: call it within a tokio runtime.
    pub fn open(config: ClientConfig, next_sequence: u64, clock: SharedClock) -> Self {
        panic!("in the making")
    }
    /// Waits for room in the window, sends, waits for the answer.
    pub async fn send(&self, topic: &str, key: &[u8], payload: &[u8]) -> Result<Stored, WireError> {
        panic!("in the making")
    }
    /// Waits for room in the window only; the receipt's `answer().await` tells the rest.
    pub async fn enqueue(&self, topic: &str, key: &[u8], payload: &[u8]) -> Receipt {
        panic!("in the making")
    }
    pub fn next_sequence(&self) -> u64 {
        panic!("in the making")
    }
    pub fn unanswered(&self) -> usize {
        panic!("in the making")
    }
}

impl Receipt {
    pub fn sequence(&self) -> u64 {
        panic!("in the making")
    }
    pub async fn answer(self) -> Result<Stored, WireError> {
        panic!("in the making")
    }
}
