//! What clients saw, told to the oracle as it happens, and counted for people.
//!
//! All clients share one witness. It numbers records, so that their numbers rise in the order in
//! which they are first sent; and because every call takes the same lock, what one client is told
//! is observed before what another does because of it.
//!
//! How a record says which it is: its topic is `chaos/<run>/even|odd/<topic>`, its key a number (or
//! nothing, for 0), its payload the record's number. Whatever looks otherwise is somebody else's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aklight_common::clock::SharedClock;
use aklight_common::wire::Reply;
use aklight_common::{BrokerId, Offset, PartitionId, Pattern, Term};
use aklight_oracle::{Counts, Event, Limits, Once, Oracle, Outcome, RecordId, Seen, Violation};

/// How many topics the load is spread over: half of them even, half odd.
pub const TOPICS: u16 = 16;

/// Longest time from the end of all faults until everything moves again: an election or two, a
/// restart of every broker, and clients that find out by their patience (10 s) and wait between
/// attempts (5 s).
pub const SETTLE_MAX_S: u64 = 60;

const LIMITS: Limits = Limits { settle_us_max: SETTLE_MAX_S * 1_000_000 };

/// The key and topic of what is not of this run.
const FOREIGN_KEY: u32 = u32::MAX;
const FOREIGN_TOPIC: u16 = u16::MAX;

/// Which half of the topics a consumer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topics {
    All,
    Even,
    Odd,
}

impl Topics {
    /// The numbers of its topics.
    fn numbers(self) -> Vec<u16> {
        (0..TOPICS).filter(|topic| self.holds(*topic)).collect()
    }

    pub fn holds(self, topic: u16) -> bool {
        match self {
            Self::All => true,
            Self::Even => topic.is_multiple_of(2),
            Self::Odd => !topic.is_multiple_of(2),
        }
    }
}

/// A question and its answer about one record, as a client knows it.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// On which connection.
    pub connection: u32,
    /// The number of its key; 0 for none.
    pub key: u32,
    /// The number of its topic.
    pub topic: u16,
    /// Who sends it, if by PRODUCE_ONCE.
    pub once: Option<Once>,
}

/// The longest time without an ACK.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silence {
    /// How long, in microseconds.
    pub longest_us: u64,
    /// When it ended, on the clock of the story.
    pub ended_us: u64,
}

/// See the module's lesson.
pub struct Witness {
    run: String,
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    oracle: Oracle,
    next_record: u64,
    next_connection: u32,
    next_question: u64,
    last_ack_us: Option<u64>,
    silence: Silence,
    /// The highest term in which each group was seen to be led.
    terms: BTreeMap<u32, Term>,
    elections: u64,
    /// What is wrong beyond what the oracle knows of: a broker that ended by itself, say.
    others: Vec<String>,
}

impl Witness {
    /// A witness to which nothing has happened yet; `run` tells its records from all others.
    pub fn new(run: &str, clock: SharedClock) -> Self {
        let state = State {
            oracle: Oracle::new(LIMITS),
            next_record: 0,
            next_connection: 0,
            next_question: 0,
            last_ack_us: None,
            silence: Silence::default(),
            terms: BTreeMap::new(),
            elections: 0,
            others: Vec::new(),
        };
        Self { run: run.to_owned(), clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends the run anyway; the history up to there is good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, event: &Event) {
        self.state().oracle.observe(event);
    }

    /// The topic with a number.
    pub fn topic(&self, topic: u16) -> String {
        let half = if topic.is_multiple_of(2) { "even" } else { "odd" };
        format!("chaos/{}/{half}/{topic}", self.run)
    }

    /// What a consumer subscribes to.
    ///
    /// # Errors
    /// Never, as long as the run's name is one level of a topic.
    pub fn pattern(&self, topics: Topics) -> anyhow::Result<Pattern> {
        let run = &self.run;
        Ok(Pattern::new(&match topics {
            Topics::All => format!("chaos/{run}/#"),
            Topics::Even => format!("chaos/{run}/even/+"),
            Topics::Odd => format!("chaos/{run}/odd/+"),
        })?)
    }

    /// A number for a new connection.
    pub fn connection(&self) -> u32 {
        let mut state = self.state();
        state.next_connection += 1;
        state.next_connection
    }

    /// A new record is about to be sent: its number.
    pub fn sends(&self, sending: Sending) -> RecordId {
        let mut state = self.state();
        let record = RecordId(state.next_record);
        state.next_record += 1;
        state.oracle.observe(&sent(record, sending));
        record
    }

    /// A record is about to be sent once more, under the same name.
    pub fn sends_again(&self, record: RecordId, sending: Sending) {
        self.observe(&sent(record, sending));
    }

    /// A producer was told what became of its record, or never will be.
    pub fn answered(&self, record: RecordId, outcome: Outcome) {
        let at_us = self.clock.monotonic_us();
        let mut state = self.state();
        state.oracle.observe(&Event::Answered { record, outcome, at_us });
        if matches!(outcome, Outcome::Acked(..)) {
            let since_us = state.last_ack_us.map_or(0, |last_us| at_us.saturating_sub(last_us));
            if since_us > state.silence.longest_us {
                state.silence = Silence { longest_us: since_us, ended_us: at_us };
            }
            state.last_ack_us = Some(at_us);
        }
    }

    /// A persistent consumer is registered.
    pub fn registered(&self, consumer: u32, topics: Topics, positions: Vec<(PartitionId, Offset)>) {
        self.observe(&Event::Registered { consumer, topics: Some(topics.numbers()), positions });
    }

    /// A persistent consumer was sent a record.
    pub fn delivered(&self, consumer: u32, seen: Seen) {
        self.observe(&Event::Delivered { consumer, seen });
    }

    /// A persistent consumer is about to acknowledge.
    pub fn acking(&self, consumer: u32, partition: PartitionId, upto: Offset) {
        self.observe(&Event::Acking { consumer, partition, upto });
    }

    /// What a persistent consumer acknowledged is durable.
    pub fn confirmed(&self, consumer: u32, partition: PartitionId, upto: Offset) {
        self.observe(&Event::Confirmed { consumer, partition, upto });
    }

    /// The ends of the partitions are asked for: the number of the question.
    pub fn asks_ends(&self) -> u64 {
        let mut state = self.state();
        let question = state.next_question;
        state.next_question += 1;
        state.oracle.observe(&Event::EndsAsked { question });
        question
    }

    /// A broker said where a partition ends. A connection never outlives its broker, so each
    /// counts as a life.
    pub fn end_seen(&self, broker: BrokerId, life: u32, end: (PartitionId, Offset), question: u64) {
        let (partition, end) = end;
        let question = Some(question);
        self.observe(&Event::EndSeen { broker, life, partition, end, question });
    }

    /// A broker was seen to lead a group; true when that is news.
    pub fn led(&self, group: u32, term: Term, broker: BrokerId) -> bool {
        let mut state = self.state();
        state.oracle.observe(&Event::Led { group, term, broker });
        let before = state.terms.get(&group).copied();
        let is_news = before < Some(term);
        if is_news {
            state.terms.insert(group, term);
        }
        // The first leader that is seen was elected before anything was broken.
        state.elections += u64::from(is_news && before.is_some());
        is_news
    }

    /// How many elections were seen to be won.
    pub fn elections(&self) -> u64 {
        self.state().elections
    }

    /// Nothing is broken any more.
    pub fn healed(&self) {
        self.observe(&Event::Healed { at_us: self.clock.monotonic_us() });
    }

    /// Everything moves, and is the same everywhere.
    pub fn settled(&self) {
        self.observe(&Event::Settled { at_us: self.clock.monotonic_us() });
    }

    /// A broker's copy of a partition begins.
    pub fn copy_begins(&self, broker: BrokerId, partition: PartitionId, start: Offset) {
        self.observe(&Event::CopyBegins { broker, partition, start });
    }

    /// A broker's copy holds a record.
    pub fn stored(&self, broker: BrokerId, seen: Seen) {
        self.observe(&Event::Stored { broker, seen });
    }

    /// A broker's copy of a partition ends.
    pub fn copy_ends(&self, broker: BrokerId, partition: PartitionId, end: Offset) {
        self.observe(&Event::CopyEnds { broker, partition, end });
    }

    /// Something is wrong that the oracle cannot know of.
    pub fn wrong(&self, text: String) {
        self.state().others.push(text);
    }

    /// What was counted so far.
    pub fn counts(&self) -> (Counts, Silence) {
        let state = self.state();
        (state.oracle.counts(), state.silence)
    }

    /// The story is over: what is wrong, what of it the oracle found, and how much more there was
    /// than these. Nothing may be told afterwards.
    pub fn finish(&self) -> (Vec<String>, Vec<Violation>, u64) {
        let mut state = self.state();
        let oracle = std::mem::replace(&mut state.oracle, Oracle::new(LIMITS));
        let others = std::mem::take(&mut state.others);
        drop(state);
        let (violations, left_out) = oracle.finish();
        (others, violations, left_out)
    }

    /// The record in a MESSAGE line; `None` for any other line.
    pub fn read(&self, reply: &Reply<'_>) -> Option<Seen> {
        let Reply::Message { topic, offset, partition, key, payload } = reply else {
            return None;
        };
        let (partition, offset) = (*partition, *offset);
        let ours = self.topic_number(topic).zip(number(key)).zip(number(payload));
        let seen = match ours {
            Some(((topic, key), record)) => {
                let record = RecordId(record);
                let key = u32::try_from(key).unwrap_or(FOREIGN_KEY);
                Seen { partition, offset, record, key, topic }
            }
            None => {
                let record = RecordId::foreign(digest(&[topic.as_bytes(), key, payload]));
                Seen { partition, offset, record, key: FOREIGN_KEY, topic: FOREIGN_TOPIC }
            }
        };
        Some(seen)
    }

    fn topic_number(&self, topic: &str) -> Option<u16> {
        let rest = topic.strip_prefix("chaos/")?.strip_prefix(&self.run)?.strip_prefix('/')?;
        rest.split_once('/')?.1.parse().ok().filter(|topic| *topic < TOPICS)
    }
}

fn sent(record: RecordId, sending: Sending) -> Event {
    let Sending { connection, key, topic, once } = sending;
    Event::Sent { record, connection, key, topic, once }
}

/// A key or payload that is a number of ours; nothing counts as 0.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        b"" => Some(0),
        digits => std::str::from_utf8(digits).ok()?.parse().ok(),
    }
}

/// FNV-1a over the fields and where they end: enough to notice that a record changed.
fn digest(fields: &[&[u8]]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = fields.iter().flat_map(|field| field.iter().copied().chain([b'|']));
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::{ManualClock, SystemClock};

    use super::*;

    fn message<'a>(topic: &'a str, key: &'a [u8], payload: &'a [u8]) -> Reply<'a> {
        let (key, payload) = (key.into(), payload.into());
        Reply::Message { topic, offset: Offset(4), partition: PartitionId(1), key, payload }
    }

    #[test]
    fn a_record_is_known_by_its_topic_key_and_payload() {
        let witness = Witness::new("r1", SystemClock::shared());
        let topic = witness.topic(3);
        let seen = witness.read(&message(&topic, b"12", b"99")).expect("a record");
        assert_eq!((seen.record, seen.key, seen.topic), (RecordId(99), 12, 3));
        assert_eq!((seen.partition, seen.offset), (PartitionId(1), Offset(4)));
        assert_eq!(witness.read(&message(&topic, b"", b"1")).map(|seen| seen.key), Some(0));
        assert!(witness.pattern(Topics::Odd).expect("a pattern").matches(&topic));
        assert!(!witness.pattern(Topics::Even).expect("a pattern").matches(&topic));
    }

    #[test]
    fn what_others_produced_is_told_apart_by_its_content() {
        let witness = Witness::new("r1", SystemClock::shared());
        let read = |topic, key, payload| {
            witness.read(&message(topic, key, payload)).expect("a record").record
        };
        let other = read("metrics/docker/p/cpu", b"1", b"2");
        assert!(other.is_foreign());
        assert_ne!(other, read("metrics/docker/p/cpu", b"12", b""));
        assert!(read("chaos/r2/even/2", b"", b"7").is_foreign());
        assert!(read("chaos/r1/even/999", b"", b"7").is_foreign());
        assert!(read("chaos/r1/even/2", b"k", b"7").is_foreign());
        assert!(witness.read(&Reply::Ok).is_none());
    }

    #[test]
    fn the_longest_silence_lies_between_two_acks() {
        let clock = ManualClock::at(1_000);
        let witness = Witness::new("r1", clock.clone());
        let sending = Sending { connection: 1, key: 0, topic: 0, once: None };
        for (offset, later_us) in [(0, 5_000), (1, 20), (2, 700), (3, 9_000)] {
            let record = witness.sends(sending);
            clock.advance_us(later_us);
            // What is not acknowledged breaks no silence.
            let unknown = witness.sends(sending);
            witness.answered(unknown, Outcome::Unknown);
            witness.answered(record, Outcome::Acked(PartitionId(0), Offset(offset)));
        }
        let (counts, silence) = witness.counts();
        assert_eq!((counts.sent, counts.acked, counts.unknown), (8, 4, 4));
        assert_eq!((silence.longest_us, silence.ended_us), (9_000, 15_720));
    }
}
