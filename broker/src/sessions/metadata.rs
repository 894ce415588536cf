//! The cluster's metadata: a small state, changed by commands in its own Raft log.
//!
//! Commands and checkpoints are JSON, so that a person can read them and a later version can add
//! fields. Applying a command never fails on its content: a command that means nothing any more
//! (an acknowledgement of a consumer that is gone) changes nothing.

use std::collections::BTreeMap;
use std::io;

use aklight_common::Offset;
use aklight_log::{BatchKind, Log};
use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::replication::{Committed, Machine};

/// A change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaCommand {
    /// The cluster begins.
    Create {
        /// How many partitions it has, for ever.
        partitions: u32,
    },
    /// A persistent consumer is seen for the first time.
    Register {
        /// Its id.
        consumer: String,
        /// The next offset it is to be sent, partition by partition.
        positions: Vec<u64>,
    },
    /// Consumers have processed records.
    Acknowledge {
        /// Consumer, partition, and the next offset not acknowledged.
        acknowledged: Vec<(String, u32, u64)>,
    },
}

impl MetaCommand {
    /// As the body of a log entry.
    ///
    /// # Errors
    /// None that a command of ours can meet.
    pub fn encode(&self) -> io::Result<Bytes> {
        Ok(serde_json::to_vec(self)?.into())
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(default)]
    partitions: Option<u32>,
    #[serde(default)]
    consumers: BTreeMap<String, Vec<u64>>,
}

/// The metadata behind the committed commands.
pub struct MetadataMachine {
    log: Log,
    state: RwLock<State>,
}

impl MetadataMachine {
    /// An empty state over the metadata's log.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log, state: RwLock::default() }
    }

    /// How many partitions the cluster was created with, once it was.
    pub fn partitions(&self) -> Option<u32> {
        self.state.read().partitions
    }

    /// Where a persistent consumer stands, if it is known.
    pub fn positions(&self, consumer: &str) -> Option<Vec<Offset>> {
        let state = self.state.read();
        Some(state.consumers.get(consumer)?.iter().copied().map(Offset).collect())
    }

    /// How many persistent consumers are known.
    pub fn consumers(&self) -> usize {
        self.state.read().consumers.len()
    }

    /// The size of the metadata's log on disk.
    pub fn log_bytes(&self) -> u64 {
        self.log.bounds().bytes
    }
}

impl State {
    fn change(&mut self, command: MetaCommand) {
        match command {
            MetaCommand::Create { partitions } => {
                self.partitions.get_or_insert(partitions);
            }
            MetaCommand::Register { consumer, positions } => {
                self.consumers.entry(consumer).or_insert(positions);
            }
            MetaCommand::Acknowledge { acknowledged } => {
                for (consumer, partition, next) in acknowledged {
                    let positions = self.consumers.get_mut(&consumer);
                    if let Some(position) = positions.and_then(|p| p.get_mut(partition as usize)) {
                        *position = next.max(*position);
                    }
                }
            }
        }
    }
}

impl Machine for MetadataMachine {
    fn apply(&self, entry: &Committed<'_>) -> io::Result<()> {
        if entry.kind != BatchKind::Command {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the metadata's log holds no {:?}", entry.kind),
            ));
        }
        let command = serde_json::from_slice(entry.body)?;
        self.state.write().change(command);
        Ok(())
    }

    fn lose(&self, _upto: Offset) {
        // Commands take no offsets.
    }

    fn checkpoint(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&*self.state.read())?)
    }

    fn restore(&self, _next_offset: Offset, checkpoint: &[u8]) -> io::Result<()> {
        if !checkpoint.is_empty() {
            *self.state.write() = serde_json::from_slice(checkpoint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_never_goes_back() {
        let mut state = State::default();
        let register = |positions| MetaCommand::Register { consumer: "c".to_owned(), positions };
        state.change(register(vec![5, 6]));
        state.change(register(vec![9, 9]));
        assert_eq!(state.consumers["c"], [5, 6], "the first registration stands");
        for next in [8, 7] {
            state.change(MetaCommand::Acknowledge {
                acknowledged: vec![("c".to_owned(), 1, next), ("gone".to_owned(), 0, 1)],
            });
        }
        assert_eq!(state.consumers["c"], [5, 8]);
    }
}
