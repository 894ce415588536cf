//! A persistent consumer: it acknowledges now and then, asks whether that is done now and then, and
//! comes back elsewhere.

use std::collections::BTreeMap;

use aklight_common::wire::{Command, Reply};
use aklight_common::{Offset, PartitionId};
use aklight_oracle::{Event, Seen};
use tokio::time::Duration;

use super::connection::{Connection, Lost, seen};
use super::{Kit, topic_name};

/// How a consumer is.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Its number.
    pub number: u32,
    /// The topics that it wants, a subscription each; `None` for all in one.
    pub topics: Option<Vec<u16>>,
    /// Whether the broker keeps its offsets.
    pub persistent: bool,
}

/// How long a consumer listens before it looks up.
const GLANCE: Duration = Duration::from_millis(250);

struct Session {
    consumer: Consumer,
    kit: Kit,
    connection: Connection,
    /// The last record of each partition that was sent and not acknowledged.
    newest: BTreeMap<PartitionId, Seen>,
    /// Acknowledged, without a PONG.
    acked: Vec<(PartitionId, Offset)>,
    /// PINGs without an answer: the token, and what it will confirm.
    asked: Vec<(u64, Vec<(PartitionId, Offset)>)>,
    tokens: u64,
}

/// Consumes for as long as the simulation goes on.
pub async fn consume(consumer: Consumer, mut kit: Kit) {
    let mut last_broker = None;
    loop {
        let Some(connection) = Connection::to_any(&mut kit, last_broker) else {
            kit.pause_ms(20, 500).await;
            continue;
        };
        last_broker = Some(connection.broker);
        let mut session = Session {
            consumer: consumer.clone(),
            kit: kit.clone(),
            connection,
            newest: BTreeMap::new(),
            acked: Vec::new(),
            asked: Vec::new(),
            tokens: 0,
        };
        // How it ends does not matter: what is not confirmed is not confirmed.
        let _ = session.run().await;
        kit.dice = session.kit.dice;
        kit.pause_ms(10, 500).await;
    }
}

impl Session {
    async fn run(&mut self) -> Result<(), Lost> {
        self.register().await?;
        let patterns = match &self.consumer.topics {
            None => vec!["#".to_owned()],
            Some(topics) => topics.iter().map(|topic| topic_name(*topic)).collect(),
        };
        let commands: Vec<_> =
            patterns.iter().map(|pattern| Command::Subscribe { pattern }).collect();
        self.connection.send(&commands).await?;
        let steps = self.kit.dice.between(20, 1500);
        for _ in 0..steps {
            match self.connection.line(GLANCE).await? {
                Some(line) => self.take(&line).await?,
                None if self.kit.dice.once_in(2) => self.acknowledge().await?,
                None => {}
            }
        }
        Ok(())
    }

    async fn register(&mut self) -> Result<(), Lost> {
        let id = format!("c{}", self.consumer.number);
        let persistent = self.consumer.persistent;
        self.connection.send(&[Command::RegisterConsumer { id: &id, persistent }]).await?;
        let line = self.connection.answer().await?;
        let Ok(Reply::OkPositions(positions)) = Reply::decode(&line) else { return Err(Lost) };
        if persistent {
            let mut delivered = self.kit.progress.delivered.lock();
            delivered.entry(self.consumer.number).or_insert_with(|| super::Delivered {
                topics: self.consumer.topics.clone(),
                begins: positions.iter().copied().collect(),
                highest: BTreeMap::new(),
            });
            drop(delivered);
            let (consumer, topics) = (self.consumer.number, self.consumer.topics.clone());
            self.kit.teller.observe(&Event::Registered { consumer, topics, positions });
        }
        Ok(())
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), Lost> {
        match Reply::decode(line) {
            Ok(reply @ Reply::Message { .. }) => {
                let Some(seen) = seen(&reply) else { return Err(Lost) };
                self.deliver(seen);
                if self.kit.dice.once_in(12) {
                    self.acknowledge().await?;
                }
                Ok(())
            }
            Ok(Reply::Pong(token)) => {
                self.confirm(super::number_in(token, "", 0));
                Ok(())
            }
            Ok(Reply::Ok) => Ok(()),
            _ => Err(Lost),
        }
    }

    fn deliver(&mut self, seen: Seen) {
        if !self.consumer.persistent {
            self.kit.teller.observe(&Event::Read(seen));
            return;
        }
        self.newest.insert(seen.partition, seen);
        let consumer = self.consumer.number;
        self.kit.teller.observe(&Event::Delivered { consumer, seen });
        let mut delivered = self.kit.progress.delivered.lock();
        let highest = &mut delivered.entry(consumer).or_default().highest;
        let highest = highest.entry(seen.partition).or_insert(seen.offset);
        *highest = (*highest).max(seen.offset);
    }

    /// Acknowledges what came, and mostly asks whether that is done.
    async fn acknowledge(&mut self) -> Result<(), Lost> {
        if !self.consumer.persistent {
            return Ok(());
        }
        let newest = std::mem::take(&mut self.newest);
        let names: Vec<_> = newest.values().map(|seen| (topic_name(seen.topic), *seen)).collect();
        let mut commands = Vec::new();
        for (topic, Seen { partition, offset, .. }) in &names {
            let (partition, upto) = (*partition, *offset);
            self.kit.teller.observe(&Event::Acking {
                consumer: self.consumer.number,
                partition,
                upto,
            });
            self.acked.push((partition, upto));
            commands.push(Command::Ack { topic, offset: upto, partition });
        }
        let token = (self.tokens + 1).to_string();
        if !self.acked.is_empty() && self.kit.dice.below(3) > 0 {
            self.tokens += 1;
            self.asked.push((self.tokens, self.acked.clone()));
            commands.push(Command::Ping { token: token.as_bytes() });
        }
        self.connection.send(&commands).await
    }

    fn confirm(&mut self, token: u64) {
        let consumer = self.consumer.number;
        for (asked, acked) in std::mem::take(&mut self.asked) {
            if asked != token {
                self.asked.push((asked, acked));
                continue;
            }
            for (partition, upto) in acked {
                self.acked.retain(|other| *other != (partition, upto));
                self.kit.teller.observe(&Event::Confirmed { consumer, partition, upto });
            }
        }
    }
}
