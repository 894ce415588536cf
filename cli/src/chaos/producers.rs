//! The load: producers that write down each outcome exactly as they were told it.
//!
//! Plain ones send a record once: answered, refused, or nobody knows. Those with PRODUCE_ONCE keep
//! a record under its sequence until somebody has answered for it, over however many connections,
//! and so must lose and double nothing. Both pipeline, both go to another broker after a loss, and
//! each connection has a patience of its own, so that some wait a pause out and some do not.
//!
//! ```text
//!        rate                 ┌─ ACK ────────────────► Acked
//!  due ───────► send ─► owed ─┼─ ERR ───────────────► Refused, or Unknown (once: later again)
//!                             └─ loss, silence ─────► Unknown            (once: again at once)
//! ```
//!
//! Invariant: `owed` holds what this connection was asked and has not answered, in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use aklight_common::wire::{Command, ErrorCode, ProducerMode, Reply};
use aklight_oracle::{Once, Outcome, RecordId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::course::{Course, Stage};
use super::link::Link;
use super::witness::{Sending, TOPICS};

/// How often records fall due.
const TICK: Duration = Duration::from_millis(20);

/// Most records of one producer that nobody has answered for: a broker that hangs is not buried,
/// and well below what the protocol lets PRODUCE_ONCE keep open.
const OWED_MAX: usize = 512;

/// Keys of one producer; each record has one of them, or in one case of four none.
const KEYS: u32 = 12;

/// How long a connection waits for a word, at least and at most.
const PATIENCE_MS: std::ops::Range<u64> = 2_000..10_000;

/// Between two attempts to connect, at most: people who fail over do it at once, and clients that
/// hammer a dead port teach nothing.
const PAUSE_MS_MAX: u64 = 400;

/// One producer, over all its connections.
pub struct ProducerTask {
    course: Course,
    number: u32,
    once: bool,
    records_per_second: f64,
    rng: SmallRng,
    broker: usize,
    sequence: u64,
    /// Of PRODUCE_ONCE: what nobody has answered for, by sequence.
    unanswered: BTreeMap<u64, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    id: RecordId,
    key: u32,
    topic: u16,
}

/// What a connection was asked.
struct Owed {
    record: Record,
    sequence: Option<u64>,
}

impl ProducerTask {
    /// A producer that has sent nothing.
    pub fn new(course: Course, number: u32, once: bool, records_per_second: f64) -> Self {
        let rng = SmallRng::seed_from_u64(course.seed ^ u64::from(number) << 32);
        let broker = usize::try_from(number).unwrap_or(0) % course.addresses.len();
        let unanswered = BTreeMap::new();
        Self { course, number, once, records_per_second, rng, broker, sequence: 0, unanswered }
    }

    /// Sends until the load is to end, and then until nothing is unanswered or all is over.
    pub async fn run(mut self) {
        let mut course = self.course.clone();
        tokio::select! {
            () = self.connections() => {}
            () = course.reaches(Stage::Over) => {}
        }
        let left = self.unanswered.len();
        if left > 0 {
            let text = format!(
                "producer {} was never answered for {left} records that it sent with PRODUCE_ONCE",
                self.number
            );
            self.course.witness.wrong(text);
        }
    }

    async fn connections(&mut self) {
        while !(self.course.is_at(Stage::Draining) && self.unanswered.is_empty()) {
            if let Err(reason) = self.connection().await {
                tracing::debug!(producer = self.number, %reason, "another connection");
            }
            self.broker = (self.broker + 1) % self.course.addresses.len();
            sleep(Duration::from_millis(self.rng.random_range(0..PAUSE_MS_MAX))).await;
        }
    }

    async fn connection(&mut self) -> Result<(), String> {
        let patience = Duration::from_millis(self.rng.random_range(PATIENCE_MS));
        let address = self.course.addresses[self.broker].clone();
        let mut link = Link::open(&address, patience, &self.course.clock).await?;
        if self.once {
            let (id, mode) =
                (format!("chaos-{}-{}", self.course.run, self.number), ProducerMode::Each);
            link.ask(&Command::RegisterProducer { id: &id, mode }, |reply| match reply {
                Reply::Ok => Ok(true),
                other => Err(format!("it answers REGISTER_PRODUCER with {other:?}")),
            })
            .await?;
        }
        let connection = self.course.witness.connection();
        let mut owed = VecDeque::new();
        let ended = self.converse(&mut link, connection, &mut owed).await;
        // What PRODUCE_ONCE will repeat is not known now, and will be.
        owed.iter().for_each(|owed: &Owed| self.answered(owed, Outcome::Unknown));
        ended
    }

    async fn converse(
        &mut self,
        link: &mut Link,
        connection: u32,
        owed: &mut VecDeque<Owed>,
    ) -> Result<(), String> {
        let repeats: Vec<u64> = self.unanswered.keys().copied().collect();
        for sequence in repeats {
            self.send(link, connection, owed, Some(sequence));
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut leaves) = (0.0, false);
        loop {
            while let Some(line) = link.next_line()? {
                let reply = Reply::decode(&line).map_err(|error| error.to_string())?;
                leaves |= self.take(&reply, owed)?;
            }
            // What is still owed is waited for, because the answers say more than their absence;
            // the next connection, elsewhere and a little later, repeats what is repeated.
            leaves |= self.course.is_at(Stage::Draining);
            if leaves && owed.is_empty() {
                return Ok(());
            }
            tokio::select! {
                done = link.step() => done?,
                _ = tick.tick() => {
                    if !owed.is_empty() {
                        link.check_patience()?;
                    }
                    due += self.records_per_second * TICK.as_secs_f64();
                    while due >= 1.0 {
                        due -= 1.0;
                        if !leaves && owed.len() < OWED_MAX {
                            if owed.is_empty() {
                                link.begins_to_wait();
                            }
                            self.send(link, connection, owed, None);
                        }
                    }
                }
            }
        }
    }

    /// Sends a record: the one of an old sequence, or a new one.
    fn send(
        &mut self,
        link: &mut Link,
        connection: u32,
        owed: &mut VecDeque<Owed>,
        again: Option<u64>,
    ) {
        let witness = &self.course.witness;
        let old = again.and_then(|sequence| Some((sequence, *self.unanswered.get(&sequence)?)));
        let (record, sequence) = match old {
            Some((sequence, record)) => {
                let Record { id, key, topic } = record;
                let once = Some(Once { producer: self.number, sequence });
                witness.sends_again(id, Sending { connection, key, topic, once });
                (record, Some(sequence))
            }
            None => {
                let sequence = self.once.then_some(self.sequence + 1);
                let once = sequence.map(|sequence| Once { producer: self.number, sequence });
                let (key, topic) = (key_of(&mut self.rng, self.number), topic_of(&mut self.rng));
                let id = witness.sends(Sending { connection, key, topic, once });
                let record = Record { id, key, topic };
                if let Some(sequence) = sequence {
                    self.sequence = sequence;
                    self.unanswered.insert(sequence, record);
                }
                (record, sequence)
            }
        };
        say(link, &self.course.witness.topic(record.topic), record, sequence);
        owed.push_back(Owed { record, sequence });
    }

    /// Takes the answer to what is owed longest; true when this broker is better left alone.
    fn take(&mut self, reply: &Reply<'_>, owed: &mut VecDeque<Owed>) -> Result<bool, String> {
        let Some(first) = owed.pop_front() else {
            return Err(format!("it says what nobody asked: {reply:?}"));
        };
        match reply {
            Reply::Ack { offset, partition, .. } => {
                self.answered(&first, Outcome::Acked(*partition, *offset));
                if let Some(sequence) = first.sequence {
                    self.unanswered.remove(&sequence);
                }
                Ok(false)
            }
            Reply::Err(error) => {
                let outcome = match error.code {
                    ErrorCode::Unavailable | ErrorCode::Internal => Outcome::Unknown,
                    _ => Outcome::Refused,
                };
                self.answered(&first, outcome);
                if error.code.is_passing() {
                    return Ok(true);
                }
                let text = format!("producer {} was refused for good: {error}", self.number);
                self.course.witness.wrong(text.clone());
                if let Some(sequence) = first.sequence {
                    self.unanswered.remove(&sequence);
                }
                Err(text)
            }
            other => {
                owed.push_front(first);
                Err(format!("it answers PRODUCE with {other:?}"))
            }
        }
    }

    fn answered(&self, owed: &Owed, outcome: Outcome) {
        self.course.witness.answered(owed.record.id, outcome);
    }
}

/// A key that no other producer has; 0 for none.
pub fn key_of(rng: &mut SmallRng, producer: u32) -> u32 {
    match rng.random_range(0..4) {
        0 => 0,
        _ => 1 + producer * KEYS + rng.random_range(0..KEYS),
    }
}

/// One of the topics.
pub fn topic_of(rng: &mut SmallRng) -> u16 {
    rng.random_range(0..TOPICS)
}

/// What a key and a payload are on the wire: numbers, and nothing for no key.
pub fn fields(key: u32, record: RecordId) -> (Vec<u8>, Vec<u8>) {
    let key = if key == 0 { String::new() } else { key.to_string() };
    (key.into_bytes(), record.0.to_string().into_bytes())
}

fn say(link: &mut Link, topic: &str, record: Record, sequence: Option<u64>) {
    let (key, payload) = fields(record.key, record.id);
    let (key, payload) = (key.into(), payload.into());
    link.say(&match sequence {
        Some(sequence) => Command::ProduceOnce { sequence, topic, key, payload },
        None => Command::Produce { topic, key, payload },
    });
}
