//! Who works, of the consumers of one name: one at a time, on whatever machines.
//!
//! Two consumers of one id would judge the same records and ring twice. So they take turns, and
//! the log is the judge: a turn is a record under `consumers/{id}`, and each follows one that was
//! there before. It is stored with PRODUCE_ONCE under the sequence after that of its predecessor,
//! which says it; of all who would follow the same turn, the broker stores the first, and answers the
//! others with the offset of that one, where they read whose it is. The newest record of the topic
//! is therefore always the turn that counts.
//!
//! ```text
//! nobody, or ended ─▶ take the turn ─▶ at work: a turn of one's own every RENEW_EVERY
//! somebody's ─▶ wait until it was the newest for TAKEN_OVER_AFTER ─▶ take the turn
//! at work, and the next turn is another's ─▶ lost
//! ```
//!
//! Invariant: who is at work judges nothing when its newest turn was *sent* longer than
//! [`VALID_FOR`] ago, and another waits [`TAKEN_OVER_AFTER`] since it *saw* that turn: the first is
//! over before the second begins, for `VALID_FOR < TAKEN_OVER_AFTER` and clocks that go on while a
//! process is stopped. It looks at the clock before it judges a record; a process that is stopped
//! between that look and the write of its file, a few microseconds later, is not covered.
//!
//! Invariant: sequences only grow, and none is more than one above its turn's offset. So whoever
//! finds no turn begins above all that were there once, at the start of the partition of turns.
//!
//! An instance is a state file, not a process: one that is started again with its file goes on at
//! once. Consumers that keep nothing take no turns.

use std::sync::Arc;
use std::time::Duration;

use aklight_common::client::{Client, ClientConfig, ClientError, FetchRequest, Producer};
use aklight_common::clock::SharedClock;
use aklight_common::partitioner::Partitioner;
use aklight_common::wire::WireError;
use aklight_common::{Offset, PartitionId, Pattern};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tracing::{debug, warn};

/// How often who is at work says so.
pub const RENEW_EVERY: Duration = Duration::from_secs(4);

/// How long a turn counts for the one who has it: two renewals may fail, as in an election.
pub const VALID_FOR: Duration = Duration::from_secs(12);

/// How long the same turn must be the newest before somebody else takes over.
pub const TAKEN_OVER_AFTER: Duration = Duration::from_secs(18);

/// How often one who waits looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);

/// The longest part of an id that fits, with what is added, into a producer's.
const ID_CHARS_MAX: usize = 24;

/// Why a turn could not be had or looked at: tried again.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A question failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The record was refused.
    #[error("the broker refused it: {0}")]
    Refused(WireError),
    /// The turn that was stored cannot be read back.
    #[error("the turn at offset {0} cannot be read")]
    Unreadable(Offset),
    /// The broker that was asked does not know the newest turn yet.
    #[error("the broker asked is behind")]
    Behind,
    /// Nothing came in time.
    #[error("no answer within {} s", ATTEMPT_MAX.as_secs())]
    Late,
}

/// A turn, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    offset: Offset,
    /// What it was stored under.
    sequence: u64,
    instance: String,
    /// Tells the attempts of an instance apart.
    attempt: u64,
    ended: bool,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This instance has the turn. `after_another` where somebody else worked before.
    Ours {
        /// Whether the state of this instance is not the newest.
        after_another: bool,
    },
    /// Another instance has it.
    Others,
}

/// An instance's view of whose turn it is.
pub struct Lease {
    config: ClientConfig,
    clock: SharedClock,
    topic: String,
    pattern: Pattern,
    instance: String,
    /// The newest turn that was seen, and since when, by the clock that never goes back.
    seen: Option<(Turn, u64)>,
    /// When the newest turn of our own was sent.
    sent_ms: Option<u64>,
    /// Stored the newest turn, and knows the next sequence: a connection for all turns.
    producer: Option<Producer>,
}

impl Lease {
    /// For `instance` of the consumer of that id.
    ///
    /// # Errors
    /// Never for an id that is one level of a topic.
    pub fn new(
        config: &ClientConfig,
        consumer: &str,
        instance: &str,
        clock: SharedClock,
    ) -> Result<Self, aklight_common::PatternError> {
        let topic = format!("consumers/{consumer}");
        let head: String = consumer.chars().take(ID_CHARS_MAX).collect();
        // The whole id decides, not its head: two long ones must not share their turns.
        let hash = crc32c::crc32c(consumer.as_bytes());
        let config = ClientConfig { id: format!("{head}.turns.{hash:08x}"), ..config.clone() };
        let pattern = Pattern::new(&topic)?;
        let instance = instance.to_owned();
        Ok(Self {
            config,
            clock,
            topic,
            pattern,
            instance,
            seen: None,
            sent_ms: None,
            producer: None,
        })
    }

    /// Until when this instance may judge, by the clock that never goes back.
    fn valid_until_ms(&self) -> u64 {
        let valid_ms = u64::try_from(VALID_FOR.as_millis()).unwrap_or(0);
        self.sent_ms.map_or(0, |sent_ms| sent_ms + valid_ms)
    }

    /// Takes a look, and the turn where it may be taken or is this instance's already.
    ///
    /// # Errors
    /// [`LeaseError`]: nothing changed, as far as is known.
    pub async fn step(&mut self) -> Result<Step, LeaseError> {
        self.timed(false).await
    }

    /// Says that this instance works no more, so that nobody need wait for it.
    ///
    /// # Errors
    /// [`LeaseError`]: others then wait until the turn is over.
    pub async fn end(&mut self) -> Result<(), LeaseError> {
        if self.sent_ms.take().is_some() {
            self.timed(true).await?;
        }
        Ok(())
    }

    async fn timed(&mut self, ending: bool) -> Result<Step, LeaseError> {
        let attempt = tokio::time::timeout(ATTEMPT_MAX, self.attempt(ending));
        attempt.await.unwrap_or(Err(LeaseError::Late))
    }

    async fn attempt(&mut self, ending: bool) -> Result<Step, LeaseError> {
        let mut client = Client::connect(self.config.clone()).await?;
        let newest = client.last(&self.pattern).await?.pop();
        let newest = newest.map(|message| turn(message.offset, &message.payload));
        let now_ms = self.clock.monotonic_ms();
        if self.seen.as_ref().map(|(turn, _)| turn) != newest.as_ref() {
            self.seen = newest.clone().map(|turn| (turn, now_ms));
        }
        let ours = newest.as_ref().is_none_or(|turn| turn.instance == self.instance);
        if ending && !ours {
            return Ok(Step::Others);
        }
        if let Some((turn, since_ms)) = &self.seen
            && !ours
            && !turn.ended
        {
            let seen_for = Duration::from_millis(now_ms.saturating_sub(*since_ms));
            if self.sent_ms.is_some() || seen_for < TAKEN_OVER_AFTER {
                return Ok(Step::Others);
            }
        }
        let sequence = match &newest {
            Some(turn) => turn.sequence.saturating_add(1),
            None => self.first_sequence(&mut client).await?,
        };
        let attempt = self.clock.wall_us();
        let stored = self.store(&mut client, sequence, attempt, ending).await?;
        if stored.instance != self.instance {
            debug!(instance = stored.instance, "another was quicker");
            self.seen = Some((stored, self.clock.monotonic_ms()));
            return Ok(Step::Others);
        }
        // A turn of our own that was there before says nothing of what came after it.
        if stored.attempt != attempt {
            return Err(LeaseError::Behind);
        }
        self.seen = Some((stored, now_ms));
        if !ending {
            self.sent_ms = Some(now_ms);
        }
        Ok(Step::Ours { after_another: !ours })
    }

    /// Beyond every turn that was here once and is kept no more.
    async fn first_sequence(&self, client: &mut Client) -> Result<u64, LeaseError> {
        let partitions = client.cluster().await?.partitions;
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
        // Of their own partition: another's start may be so far ahead that all later turns are
        // refused as too old.
        let own = Partitioner::new(count).route(self.topic.as_bytes());
        let own = partitions.iter().find(|partition| partition.id == own);
        Ok(own.map_or(0, |partition| partition.start.0) + 1)
    }

    /// Stores a turn, unless somebody was quicker; gives back the one that is stored.
    async fn store(
        &mut self,
        client: &mut Client,
        sequence: u64,
        attempt: u64,
        ending: bool,
    ) -> Result<Turn, LeaseError> {
        let payload = json!({
            "ts": self.clock.wall_ms(),
            "instance": self.instance,
            "attempt": attempt,
            "sequence": sequence,
            "state": if ending { "ended" } else { "working" },
        })
        .to_string();
        let open = || Producer::open(self.config.clone(), sequence, Arc::clone(&self.clock));
        let kept = self.producer.take().filter(|kept| kept.next_sequence() == sequence);
        let producer = kept.unwrap_or_else(open);
        let sent = producer.send(&self.topic, self.topic.as_bytes(), payload.as_bytes()).await;
        let stored = sent.map_err(LeaseError::Refused)?;
        // Only now: one that waits for an answer could store a turn that nobody counts on.
        self.producer = Some(producer);
        self.read(client, stored.partition, stored.offset).await
    }

    async fn read(
        &self,
        client: &mut Client,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Turn, LeaseError> {
        let (pattern, partition) = (self.pattern.clone(), Some(partition));
        // The broker asked may be a moment behind the one that stored it.
        let wait_ms = 2_000;
        let request = FetchRequest { pattern, offset, partition, max: 1, wait_ms };
        let fetched = client.fetch(&request).await?;
        let message = fetched.messages.into_iter().find(|message| message.offset == offset);
        let message = message.ok_or(LeaseError::Unreadable(offset))?;
        Ok(turn(offset, &message.payload))
    }
}

/// A turn from a record; whatever somebody else may have written there is nobody's turn.
fn turn(offset: Offset, payload: &[u8]) -> Turn {
    let record: Value = serde_json::from_slice(payload).unwrap_or_default();
    let instance = record["instance"].as_str().unwrap_or_default().to_owned();
    let ended = instance.is_empty() || record["state"] == "ended";
    let attempt = record["attempt"].as_u64().unwrap_or_default();
    let sequence = record["sequence"].as_u64().unwrap_or(offset.0 + 1);
    Turn { offset, sequence, instance, attempt, ended }
}

/// What the one who works must know of its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// Nobody said yet whose turn it is.
    Unknown,
    /// It is another's.
    Others,
    /// It is ours, and counts up to this moment of the clock that never goes back.
    Ours {
        /// Until when.
        until_ms: u64,
        /// How often somebody else worked in between, since this process was started.
        others: u32,
    },
}

/// Keeps taking turns until told to stop, and then ends the last one.
pub async fn keep(mut lease: Lease, turns: watch::Sender<Turns>, mut stop: oneshot::Receiver<()>) {
    let mut others = 0;
    let mut failing = false;
    loop {
        let step = tokio::select! {
            step = lease.step() => step,
            _ = &mut stop => break,
        };
        if step.is_ok() {
            failing = false;
        }
        let wait = match step {
            Ok(Step::Ours { after_another }) => {
                others += u32::from(after_another);
                let until_ms = lease.valid_until_ms();
                turns.send_replace(Turns::Ours { until_ms, others });
                RENEW_EVERY
            }
            Ok(Step::Others) => {
                turns.send_replace(Turns::Others);
                LOOK_EVERY
            }
            Err(error) => {
                // Said once: it is tried again every second, and the reason seldom changes.
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot see whether it is this consumer's turn: trying again");
                }
                LOOK_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = &mut stop => break,
        }
    }
    if let Err(error) = lease.end().await {
        debug!(%error, "others will wait for this consumer for a while");
    }
}
