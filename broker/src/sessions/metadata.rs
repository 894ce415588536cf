//! The cluster's metadata: a small state, changed by commands in its own Raft log.
//!
//! Commands and checkpoints are JSON, so that a person can read them and a later version can add
//! fields. Applying a command never fails on its content: a command that means nothing any more
//! (an acknowledgement of a consumer that is gone) changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use aklight_common::{BrokerId, Offset};
use aklight_log::{BatchKind, Log};
use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::replication::{Committed, GroupId, Machine};

/// A change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaCommand {
    /// The cluster begins.
    Create {
        /// How many partitions it has, for ever.
        partitions: u32,
        /// Who forms it.
        #[serde(default)]
        brokers: BTreeMap<u64, BrokerInfo>,
    },
    /// A broker is expected: its first start with an empty disk makes it a member.
    Expect {
        /// Its number, never used before.
        broker: u64,
        /// Where other brokers reach it.
        peer: String,
    },
    /// A broker has come, or says where it is now.
    Announce {
        /// Its number.
        broker: u64,
        /// Which disk it has, and where it is reached.
        info: BrokerInfo,
    },
    /// A broker is a member no longer; its number is never used again.
    Retire {
        /// Its number.
        broker: u64,
    },
    /// A broker shall lead a group, whenever it can.
    Prefer {
        /// The group's number.
        group: u32,
        /// The broker.
        broker: u64,
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

/// A broker of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerInfo {
    /// Which disk it has: see `data_dir`. Empty as long as it is expected.
    #[serde(default)]
    pub incarnation: String,
    /// Where other brokers reach it.
    #[serde(default)]
    pub peer: String,
    /// Where clients reach it.
    #[serde(default)]
    pub client: String,
    /// Where its HTTP is.
    #[serde(default)]
    pub http: String,
}

/// What a broker with some incarnation is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The cluster has not begun, or this broker does not know it yet.
    Undecided,
    /// Nobody expects it.
    Unknown,
    /// It is expected and may come.
    Expected,
    /// It is a member.
    Member,
    /// A broker of this number is a member, with another disk.
    OtherDisk,
    /// It was a member and is one no longer.
    Retired,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(default)]
    partitions: Option<u32>,
    #[serde(default)]
    brokers: BTreeMap<u64, BrokerInfo>,
    #[serde(default)]
    retired: BTreeSet<u64>,
    #[serde(default)]
    preferred: BTreeMap<u32, u64>,
    #[serde(default)]
    consumers: BTreeMap<String, Vec<u64>>,
}

/// The metadata behind the committed commands.
pub struct MetadataMachine {
    log: Log,
    state: RwLock<State>,
    changes: watch::Sender<u64>,
}

impl MetadataMachine {
    /// An empty state over the metadata's log.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log, state: RwLock::default(), changes: watch::channel(0).0 }
    }

    /// How many partitions the cluster was created with, once it was.
    pub fn partitions(&self) -> Option<u32> {
        self.state.read().partitions
    }

    /// The brokers of the cluster, those that are expected included.
    pub fn brokers(&self) -> BTreeMap<BrokerId, BrokerInfo> {
        let state = self.state.read();
        state.brokers.iter().map(|(id, info)| (BrokerId(*id), info.clone())).collect()
    }

    /// What a broker is to the cluster.
    pub fn standing(&self, broker: BrokerId, incarnation: &str) -> Standing {
        let state = self.state.read();
        if state.partitions.is_none() {
            return Standing::Undecided;
        }
        if state.retired.contains(&broker.0) {
            return Standing::Retired;
        }
        match state.brokers.get(&broker.0).map(|info| info.incarnation.as_str()) {
            None => Standing::Unknown,
            Some("") => Standing::Expected,
            Some(known) if known == incarnation => Standing::Member,
            Some(_) => Standing::OtherDisk,
        }
    }

    /// Who shall lead a group, if somebody said so.
    pub fn preferred(&self, group: GroupId) -> Option<BrokerId> {
        self.state.read().preferred.get(&group.number()).copied().map(BrokerId)
    }

    /// Changes whenever a command was applied.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
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
            MetaCommand::Create { partitions, brokers } => {
                if self.partitions.is_none() {
                    self.partitions = Some(partitions);
                    self.brokers = brokers;
                }
            }
            MetaCommand::Expect { broker, peer } => {
                if !self.retired.contains(&broker) {
                    let expected = BrokerInfo { peer, ..BrokerInfo::default() };
                    self.brokers.entry(broker).or_insert(expected);
                }
            }
            MetaCommand::Announce { broker, info } => self.announce(broker, info),
            MetaCommand::Retire { broker } => {
                if self.brokers.remove(&broker).is_some() {
                    self.retired.insert(broker);
                    self.preferred.retain(|_, preferred| *preferred != broker);
                }
            }
            MetaCommand::Prefer { group, broker } => {
                if self.brokers.contains_key(&broker) {
                    self.preferred.insert(group, broker);
                }
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

impl State {
    fn announce(&mut self, broker: u64, info: BrokerInfo) {
        // A cluster of the first version knew no brokers: its only one makes itself known.
        let is_first = self.brokers.is_empty() && self.retired.is_empty();
        match self.brokers.get_mut(&broker) {
            Some(known)
                if known.incarnation.is_empty() || known.incarnation == info.incarnation =>
            {
                *known = info;
            }
            None if is_first => {
                self.brokers.insert(broker, info);
            }
            // Another disk under a member's number, or one that was not expected.
            _ => {}
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
        self.changes.send_modify(|changes| *changes += 1);
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
            self.changes.send_modify(|changes| *changes += 1);
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

    #[test]
    fn a_number_belongs_to_one_disk_and_is_never_used_again() {
        let info = |incarnation: &str| BrokerInfo {
            incarnation: incarnation.to_owned(),
            ..BrokerInfo::default()
        };
        let machine = |commands: Vec<MetaCommand>| {
            let mut state = State::default();
            commands.into_iter().for_each(|command| state.change(command));
            state
        };
        let create = MetaCommand::Create { partitions: 2, brokers: [(1, info("a"))].into() };
        let expect = MetaCommand::Expect { broker: 2, peer: "b:7090".to_owned() };
        let announce = |disk| MetaCommand::Announce { broker: 2, info: info(disk) };
        let state = machine(vec![create.clone(), expect.clone(), announce("one"), announce("two")]);
        assert_eq!(state.brokers[&2].incarnation, "one", "the second disk is refused");
        let state = machine(vec![create.clone(), announce("one")]);
        assert!(!state.brokers.contains_key(&2), "nobody expected it");
        let retire = MetaCommand::Retire { broker: 2 };
        let state = machine(vec![create, expect.clone(), announce("one"), retire, expect]);
        assert!(!state.brokers.contains_key(&2), "it was retired");
    }
}
