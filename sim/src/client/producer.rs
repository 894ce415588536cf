//! A producer: bursts of records with keys, pipelined; with PRODUCE_ONCE it repeats what it does
//! not know.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use aklight_common::wire::{Command, ErrorCode, ProducerMode, Reply};
use aklight_oracle::{Event, Once, Outcome, RecordId};

use super::connection::{Connection, Lost};
use super::{KEYS, Kit, TOPICS, key_name, topic_name};

/// Most records without an answer on one connection.
const PIPELINE_MAX: u64 = 24;

/// How a producer is.
#[derive(Debug, Clone)]
pub struct Producer {
    /// Its number.
    pub number: u32,
    /// Whether it names its records, and repeats them.
    pub once: bool,
}

/// A record that is on its way, or will be again.
#[derive(Debug, Clone, Copy)]
struct Pending {
    record: RecordId,
    key: u32,
    topic: u16,
    sequence: u64,
}

struct Run {
    producer: Producer,
    kit: Kit,
    sequence: u64,
    /// To be sent again, in order.
    again: VecDeque<Pending>,
    /// The last that was acknowledged: sent again now and then, though nobody must.
    last_acked: Option<Pending>,
}

/// Produces until the stage says no more.
pub async fn produce(producer: Producer, kit: Kit) {
    let progress = kit.progress.clone();
    let mut run = Run { producer, kit, sequence: 0, again: VecDeque::new(), last_acked: None };
    let mut last_broker = None;
    while !run.is_done() {
        let Some(connection) = Connection::to_any(&mut run.kit, last_broker) else {
            run.kit.pause_ms(20, 300).await;
            continue;
        };
        last_broker = Some(connection.broker);
        let mut sent = VecDeque::new();
        let ended = run.converse(connection, &mut sent).await;
        for pending in sent {
            run.settle(pending, Outcome::Unknown);
        }
        if ended.is_err() {
            run.kit.pause_ms(10, 500).await;
        }
    }
    progress.producing.fetch_sub(1, Ordering::Relaxed);
}

impl Run {
    fn is_done(&self) -> bool {
        self.kit.is_draining() && self.again.is_empty()
    }

    /// One connection's time; `sent` is what has no answer when it ends.
    async fn converse(
        &mut self,
        mut connection: Connection,
        sent: &mut VecDeque<Pending>,
    ) -> Result<(), Lost> {
        if self.producer.once {
            let id = format!("p{}", self.producer.number);
            let mode = ProducerMode::Each;
            connection.ask_ok(&Command::RegisterProducer { id: &id, mode }).await?;
        }
        let rounds = self.kit.dice.between(5, 200);
        for _ in 0..rounds {
            if self.is_done() {
                break;
            }
            let burst = self.kit.dice.between(1, 8).min(PIPELINE_MAX - sent.len() as u64);
            let batch: Vec<_> = (0..burst).filter_map(|_| self.next(&connection)).collect();
            // Known as sent before a byte of it is: it may arrive though the sending fails.
            sent.extend(batch.iter().copied());
            self.send(&mut connection, &batch).await?;
            let leave = self.kit.dice.below(PIPELINE_MAX / 2);
            while sent.len() as u64 > leave || (sent.len() as u64) > PIPELINE_MAX - 8 {
                self.hear(&mut connection, sent).await?;
            }
            if self.kit.dice.once_in(4) {
                self.kit.pause_ms(1, 200).await;
            } else {
                self.kit.pause_ms(1, 20).await;
            }
        }
        while !sent.is_empty() {
            self.hear(&mut connection, sent).await?;
        }
        Ok(())
    }

    /// The next record to send: an old one first.
    fn next(&mut self, connection: &Connection) -> Option<Pending> {
        let repeat = match self.again.pop_front() {
            None if self.producer.once && self.kit.dice.once_in(50) => self.last_acked,
            again => again,
        };
        if let Some(pending) = repeat {
            self.kit.teller.observe(&Event::Sent {
                record: pending.record,
                connection: connection.number,
                key: pending.key,
                topic: pending.topic,
                once: Some(self.name_of(pending.sequence)),
            });
            return Some(pending);
        }
        if self.kit.is_draining() {
            return None;
        }
        let key = u32::try_from(self.kit.dice.below(u64::from(KEYS) + 1)).unwrap_or(0);
        let topic = u16::try_from(self.kit.dice.below(u64::from(TOPICS))).unwrap_or(0);
        let mut once = None;
        if self.producer.once {
            self.sequence += 1;
            once = Some(self.name_of(self.sequence));
        }
        let record = self.kit.teller.send(connection.number, key, topic, once);
        Some(Pending { record, key, topic, sequence: self.sequence })
    }

    fn name_of(&self, sequence: u64) -> Once {
        Once { producer: self.producer.number, sequence }
    }

    async fn send(&self, connection: &mut Connection, batch: &[Pending]) -> Result<(), Lost> {
        let texts: Vec<_> = batch
            .iter()
            .map(|p| (topic_name(p.topic), key_name(p.key), p.record.0.to_string(), p.sequence))
            .collect();
        let commands: Vec<_> = texts
            .iter()
            .map(|(topic, key, payload, sequence)| {
                let key = Cow::Borrowed(key.as_bytes());
                let payload = Cow::Borrowed(payload.as_bytes());
                if self.producer.once {
                    Command::ProduceOnce { sequence: *sequence, topic, key, payload }
                } else {
                    Command::Produce { topic, key, payload }
                }
            })
            .collect();
        connection.send(&commands).await
    }

    /// Takes one answer.
    async fn hear(
        &mut self,
        connection: &mut Connection,
        sent: &mut VecDeque<Pending>,
    ) -> Result<(), Lost> {
        let line = connection.answer().await?;
        let outcome = match Reply::decode(&line) {
            Ok(Reply::Ack { offset, partition, .. }) => Outcome::Acked(partition, offset),
            Ok(Reply::Err(error)) => match error.code {
                ErrorCode::Unavailable | ErrorCode::Internal => Outcome::Unknown,
                _ => Outcome::Refused,
            },
            _ => return Err(Lost),
        };
        if let Some(pending) = sent.pop_front() {
            self.settle(pending, outcome);
        }
        match outcome {
            Outcome::Acked(..) => Ok(()),
            // Trouble here: often elsewhere is better.
            _ if self.kit.dice.once_in(2) => Err(Lost),
            _ => {
                self.kit.pause_ms(10, 100).await;
                Ok(())
            }
        }
    }

    fn settle(&mut self, pending: Pending, outcome: Outcome) {
        self.kit.teller.answered(pending.record, outcome);
        match outcome {
            Outcome::Acked(..) => self.last_acked = Some(pending),
            _ if self.producer.once => self.again.push_back(pending),
            _ => {}
        }
    }
}
