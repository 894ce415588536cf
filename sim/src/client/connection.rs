//! A client's connection: lines out, lines in, and patience.

use std::collections::VecDeque;

use aklight_common::wire::{Command, Line, LineCutter, Reply};
use aklight_common::{BrokerId, Offset, PartitionId};
use aklight_oracle::{Event, RecordId, Seen};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, timeout};

use super::{Kit, number_in};

/// Longest wait for an answer: what a broker takes for a record at most (5 s), and some more for one
/// that was stopped.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Longest line that a client of a simulation meets.
const LINE_BYTES_MAX: usize = 1 << 16;

/// The connection is no more.
#[derive(Debug)]
pub struct Lost;

/// A connection to one broker.
pub struct Connection {
    stream: DuplexStream,
    cutter: LineCutter,
    waiting: VecDeque<Bytes>,
    /// The broker.
    pub broker: u64,
    /// Which of its lives.
    pub life: u32,
    /// The connection's own number.
    pub number: u32,
}

impl Connection {
    /// Connects to some broker, other than `avoid` where there is a choice.
    pub fn to_any(kit: &mut Kit, avoid: Option<u64>) -> Option<Self> {
        let mut brokers = kit.gates.brokers();
        if brokers.len() > 1 {
            brokers.retain(|broker| Some(*broker) != avoid);
        }
        let broker = *kit.dice.pick(&brokers)?;
        Self::to(kit, broker)
    }

    /// Connects to this broker.
    pub fn to(kit: &Kit, broker: u64) -> Option<Self> {
        let (stream, life) = kit.gates.connect(broker)?;
        Some(Self {
            stream,
            cutter: LineCutter::new(LINE_BYTES_MAX),
            waiting: VecDeque::new(),
            broker,
            life,
            number: kit.teller.connection(),
        })
    }

    /// Sends some commands at once.
    pub async fn send(&mut self, commands: &[Command<'_>]) -> Result<(), Lost> {
        let mut lines = Vec::new();
        for command in commands {
            command.encode(&mut lines);
        }
        match timeout(PATIENCE, self.stream.write_all(&lines)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// The next line; `None` when none comes in time.
    pub async fn line(&mut self, patience: Duration) -> Result<Option<Bytes>, Lost> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Ok(Some(line));
            }
            while let Some(line) = self.cutter.next_line() {
                match line {
                    Line::Whole(line) => self.waiting.push_back(line),
                    Line::TooLong => return Err(Lost),
                }
            }
            if !self.waiting.is_empty() {
                continue;
            }
            match timeout(patience, self.stream.read_buf(self.cutter.buffer())).await {
                Ok(Ok(0) | Err(_)) => return Err(Lost),
                Ok(Ok(_)) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// The answer to a command, which must come.
    pub async fn answer(&mut self) -> Result<Bytes, Lost> {
        self.line(PATIENCE).await?.ok_or(Lost)
    }

    /// Sends a command whose answer must be OK.
    pub async fn ask_ok(&mut self, command: &Command<'_>) -> Result<(), Lost> {
        self.send(std::slice::from_ref(command)).await?;
        match Reply::decode(&self.answer().await?) {
            Ok(Reply::Ok) => Ok(()),
            _ => Err(Lost),
        }
    }
}

/// What a MESSAGE line says, if it is one.
pub fn seen(reply: &Reply<'_>) -> Option<Seen> {
    let Reply::Message { topic, offset, partition, key, payload } = reply else { return None };
    let key = if key.is_empty() { 0 } else { number_in(key, "k", u32::MAX) };
    let record = RecordId(number_in(payload, "", u64::MAX >> 1));
    let topic = number_in(topic.as_bytes(), "t/", u16::MAX);
    Some(Seen { partition: *partition, offset: *offset, record, key, topic })
}

/// What an answer to FETCH comes to.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The records.
    pub seen: Vec<Seen>,
    /// Where the next one goes on.
    pub next: Option<Offset>,
}

impl Connection {
    /// Fetches from one partition; `None` when the broker refuses.
    pub async fn fetch(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        max: u64,
        wait_ms: u64,
    ) -> Result<Option<Fetched>, Lost> {
        let partition_asked = Some(partition);
        let fetch =
            Command::Fetch { pattern: "#", offset, partition: partition_asked, max, wait_ms };
        self.send(&[fetch]).await?;
        let mut fetched = Fetched::default();
        loop {
            let line = self.answer().await?;
            match Reply::decode(&line) {
                Ok(Reply::End { next, .. }) => {
                    fetched.next = next.and_then(|next| next.first().map(|(_, next)| *next));
                    return Ok(Some(fetched));
                }
                Ok(reply @ Reply::Message { .. }) => fetched.seen.extend(seen(&reply)),
                _ => return Ok(None),
            }
        }
    }

    /// Where the partitions begin and end, as far as this broker knows; `None` when it refuses.
    /// Tells the oracle. Without a majority a broker answers CLUSTER with what it knows: so the ends
    /// may be old, but never wrong.
    pub async fn ends(
        &mut self,
        kit: &Kit,
    ) -> Result<Option<Vec<(PartitionId, Offset, Offset)>>, Lost> {
        self.send(&[Command::Cluster]).await?;
        let mut ends = Vec::new();
        loop {
            let line = self.answer().await?;
            match Reply::decode(&line) {
                Ok(Reply::End { .. }) => break,
                Ok(Reply::Partition { id, start, end, .. }) => ends.push((id, start, end)),
                Ok(Reply::Broker { .. }) => {}
                _ => return Ok(None),
            }
        }
        for (partition, _, end) in &ends {
            self.tell_end(kit, *partition, *end, None);
        }
        Ok(Some(ends))
    }

    /// Where the partitions end for certain: a consumer that is not persistent begins there.
    pub async fn fresh_ends(&mut self, kit: &Kit) -> Result<(), Lost> {
        let question = kit.teller.ask_ends();
        let id = format!("r{}", self.number);
        self.send(&[Command::RegisterConsumer { id: &id, persistent: false }]).await?;
        let line = self.answer().await?;
        if let Ok(Reply::OkPositions(ends)) = Reply::decode(&line) {
            for (partition, end) in ends {
                self.tell_end(kit, partition, end, Some(question));
            }
        }
        Ok(())
    }

    fn tell_end(&self, kit: &Kit, partition: PartitionId, end: Offset, question: Option<u64>) {
        let (broker, life) = (BrokerId(self.broker), self.life);
        kit.teller.observe(&Event::EndSeen { broker, life, partition, end, question });
    }
}
