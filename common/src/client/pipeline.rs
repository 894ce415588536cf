//! The producer's side of the protocol without sockets: what was sent, what was answered, and
//! what must be sent again.
//!
//! Bytes and `now` go in, bytes and events come out; [`super::blocking`] and
//! [`super::Producer`] put sockets around it. Every record travels as PRODUCE_ONCE under its own
//! sequence until a broker has answered for it:
//!
//! ```text
//!  send ──► unsent ──fill──► in_flight ──ACK──────────────► Stored
//!             ▲                  │  ├────ERR, permanent───► Refused
//!             │                  │  └────ERR, passing──┐
//!             └── connection lost┴─────── after a pause┘
//! ```
//!
//! Invariants: `unsent` and `in_flight` are disjoint and together are the keys of `records`;
//! the highest sequence of `records` is less than [`SEQUENCE_WINDOW`] above the lowest; answers
//! come in the order of `in_flight`. A sequence leaves only with an event, so every record is
//! answered once.
//!
//! A record that is `unavailable` again and again, for [`STUCK_MS_MAX`], ends the connection: the
//! broker may be cut off from a leader that the next one can reach.
//!
//! Records are sent in the order of their sequences, and again after a reconnection. Only a
//! passing error (`busy`, `unavailable`) may let a record that was sent behind the refused one be
//! stored before it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::config::ClientConfig;
use crate::limits::SEQUENCE_WINDOW;
use crate::topic::check_topic;
use crate::wire::command::check_client_id;
use crate::wire::{Command, ErrorCode, Line, LineCutter, ProducerMode, Reply, WireError};
use crate::{Offset, PartitionId};

/// Most bytes of unanswered records: the window alone would allow 8 GiB of the longest lines.
/// One record always fits.
pub(crate) const UNANSWERED_BYTES_MAX: usize = 64 << 20;

/// How much is written ahead of the socket: enough to fill its buffer at one go, little enough
/// that a pause takes effect soon.
const OUT_BYTES_MAX: usize = 256 << 10;

/// How long a record may be `unavailable` on one connection before another broker is tried: an
/// election takes a second or two, and within it no other broker knows better. A broker that
/// waits for a leader before it says so is left at its second answer.
const STUCK_MS_MAX: u64 = 3_000;

/// As many records are unanswered as the protocol (or the memory set aside for them) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many records are unanswered: send again when some of them are")]
pub struct WindowFull;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored, durably.
    Stored { sequence: u64, offset: Offset, partition: PartitionId },
    /// It is refused for good.
    Refused { sequence: u64, error: WireError },
}

#[derive(Debug)]
struct Unanswered {
    line: Bytes,
    /// Where the topic stands in the line.
    topic: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Offline,
    /// REGISTER_PRODUCER is sent and not answered.
    Registering,
    Ready,
}

/// The state of one producer.
#[derive(Debug)]
pub(crate) struct Pipeline {
    config: ClientConfig,
    next_sequence: u64,
    records: BTreeMap<u64, Unanswered>,
    unsent: BTreeSet<u64>,
    in_flight: VecDeque<u64>,
    bytes: usize,
    phase: Phase,
    cutter: LineCutter,
    out: BytesMut,
    answers: Vec<Answer>,
    /// Since when the oldest question is waiting for any answer at all.
    waiting_since_ms: Option<u64>,
    /// Until when nothing is sent, after a passing error.
    paused_until_ms: Option<u64>,
    passing_errors: u32,
    /// A record that this broker could not store for want of a leader, and since when.
    stuck: Option<(u64, u64)>,
    /// Whether this connection has answered for a record.
    proved: bool,
}

impl Pipeline {
    pub(crate) fn new(config: ClientConfig, next_sequence: u64) -> Self {
        let cutter = LineCutter::new(config.reply_bytes_max());
        Self {
            config,
            // Sequences are counted from 1.
            next_sequence: next_sequence.max(1),
            records: BTreeMap::new(),
            unsent: BTreeSet::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            phase: Phase::Offline,
            cutter,
            out: BytesMut::new(),
            answers: Vec::new(),
            waiting_since_ms: None,
            paused_until_ms: None,
            passing_errors: 0,
            stuck: None,
            proved: false,
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.records.len()
    }

    /// Takes a record in under the next sequence.
    pub(crate) fn send(
        &mut self,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<u64, WindowFull> {
        let sequence = self.next_sequence;
        self.send_with(sequence, topic, key, payload)?;
        Ok(sequence)
    }

    /// Takes a record in under a sequence of the caller's.
    pub(crate) fn send_with(
        &mut self,
        sequence: u64,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<(), WindowFull> {
        if self.records.contains_key(&sequence) {
            // The very record that is on its way already: its one answer will come.
            return Ok(());
        }
        if let Err(error) = check(sequence, topic) {
            self.refuse_unsent(sequence, error);
            return Ok(());
        }
        let mut line = Vec::with_capacity(topic.len() + key.len() + payload.len() + 48);
        let (key, payload) = (key.into(), payload.into());
        Command::ProduceOnce { sequence, topic, key, payload }.encode(&mut line);
        if line.len() - 1 > self.config.line_bytes_max {
            let text = format!(
                "a line has at most {} bytes and this record would need {}: send less at once",
                self.config.line_bytes_max,
                line.len() - 1
            );
            self.refuse_unsent(sequence, ErrorCode::TooLarge.with(&text));
            return Ok(());
        }
        if !self.has_room(sequence, line.len()) {
            return Err(WindowFull);
        }
        let topic_start = "PRODUCE_ONCE|".len() + sequence.to_string().len() + 1;
        let topic = topic_start..topic_start + topic.len();
        self.bytes += line.len();
        self.records.insert(sequence, Unanswered { line: line.into(), topic });
        self.unsent.insert(sequence);
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        Ok(())
    }

    fn has_room(&self, sequence: u64, line_bytes: usize) -> bool {
        let (Some((lowest, _)), Some((highest, _))) =
            (self.records.first_key_value(), self.records.last_key_value())
        else {
            return true;
        };
        let span = sequence.max(*highest) - sequence.min(*lowest);
        span < SEQUENCE_WINDOW && self.bytes + line_bytes <= UNANSWERED_BYTES_MAX
    }

    fn refuse_unsent(&mut self, sequence: u64, error: WireError) {
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        self.answers.push(Answer::Refused { sequence, error });
    }

    /// A connection stands: greets the broker.
    pub(crate) fn connected(&mut self, now_ms: u64) -> Result<(), String> {
        debug_assert_eq!(self.phase, Phase::Offline, "one connection at a time");
        let id = check_client_id(self.config.id.as_bytes())?;
        let mut line = Vec::new();
        Command::RegisterProducer { id, mode: ProducerMode::Each }.encode(&mut line);
        self.out.extend_from_slice(&line);
        self.phase = Phase::Registering;
        self.waiting_since_ms = Some(now_ms);
        Ok(())
    }

    /// The connection is gone: everything unanswered will be sent again.
    pub(crate) fn disconnected(&mut self) {
        self.phase = Phase::Offline;
        self.cutter = LineCutter::new(self.config.reply_bytes_max());
        self.out.clear();
        self.unsent.extend(self.in_flight.drain(..));
        self.waiting_since_ms = None;
        self.paused_until_ms = None;
        self.passing_errors = 0;
        self.stuck = None;
        self.proved = false;
        debug_assert_eq!(self.unsent.len(), self.records.len());
    }

    /// Takes in what the broker said. An error ends the connection; its text is the reason.
    pub(crate) fn received(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), String> {
        self.cutter.buffer().extend_from_slice(bytes);
        while let Some(line) = self.cutter.next_line() {
            let Line::Whole(line) = line else {
                return Err("the broker sent a line that is too long to be an answer".to_owned());
            };
            let reply = Reply::decode(&line).map_err(|error| error.to_string())?;
            self.answered(reply, now_ms)?;
        }
        Ok(())
    }

    fn answered(&mut self, reply: Reply<'_>, now_ms: u64) -> Result<(), String> {
        match (self.phase, reply) {
            (Phase::Registering, Reply::Ok) => self.phase = Phase::Ready,
            (Phase::Registering, Reply::Err(error)) => {
                return Err(format!("the broker did not take the registration: {error}"));
            }
            (Phase::Ready, Reply::Ack { topic, offset, partition }) => {
                let sequence = self.oldest_in_flight()?;
                let record = self.take(sequence);
                if record.line.get(record.topic.clone()) != Some(topic.as_bytes()) {
                    // Never believe an answer that belongs to another record.
                    self.put_back(sequence, record);
                    return Err(format!("the broker acknowledged '{topic}' out of its turn"));
                }
                self.proved = true;
                self.passing_errors = 0;
                self.answers.push(Answer::Stored { sequence, offset, partition });
            }
            (Phase::Ready, Reply::Err(error)) => {
                let Some(sequence) = self.in_flight.pop_front() else {
                    return Err(format!("the broker ended the connection: {error}"));
                };
                if error.code.is_passing() {
                    self.unsent.insert(sequence);
                    self.pause(now_ms);
                    self.check_stuck(sequence, &error, now_ms)?;
                } else {
                    self.forget(sequence);
                    self.proved = true;
                    self.answers.push(Answer::Refused { sequence, error });
                }
            }
            (_, reply) => return Err(format!("the broker said what nobody asked: {reply:?}")),
        }
        self.waiting_since_ms = (!self.in_flight.is_empty()).then_some(now_ms);
        Ok(())
    }

    fn oldest_in_flight(&mut self) -> Result<u64, String> {
        self.in_flight.pop_front().ok_or_else(|| "the broker acknowledged too much".to_owned())
    }

    fn take(&mut self, sequence: u64) -> Unanswered {
        let record = self.records.remove(&sequence).expect("what is in flight is in `records`");
        self.stuck = self.stuck.filter(|(stuck, _)| *stuck != sequence);
        self.bytes -= record.line.len();
        record
    }

    fn forget(&mut self, sequence: u64) {
        drop(self.take(sequence));
    }

    fn put_back(&mut self, sequence: u64, record: Unanswered) {
        self.bytes += record.line.len();
        self.records.insert(sequence, record);
        self.in_flight.push_front(sequence);
    }

    /// An error ends the connection: another broker may do better.
    fn check_stuck(&mut self, sequence: u64, error: &WireError, now_ms: u64) -> Result<(), String> {
        if error.code != ErrorCode::Unavailable {
            return Ok(());
        }
        // Of many records one tells enough: they go the same way.
        let (stuck, since_ms) = *self.stuck.get_or_insert((sequence, now_ms));
        if stuck == sequence && now_ms >= since_ms + STUCK_MS_MAX {
            let waited_ms = now_ms - since_ms;
            return Err(format!("it stored nothing of this for {waited_ms} ms: {error}"));
        }
        Ok(())
    }

    fn pause(&mut self, now_ms: u64) {
        // One pause for the whole run of refusals that a full pipeline brings.
        if self.paused_until_ms.is_none() {
            let wait_ms = self.config.backoff.wait_ms(self.passing_errors, rand::random());
            self.passing_errors = self.passing_errors.saturating_add(1);
            self.paused_until_ms = Some(now_ms + wait_ms);
        }
    }

    /// Moves records to the output, as far as it has room. Call it before writing.
    pub(crate) fn fill(&mut self, now_ms: u64) {
        if self.paused_until_ms.is_some_and(|until| now_ms >= until) {
            self.paused_until_ms = None;
        }
        if self.phase != Phase::Ready || self.paused_until_ms.is_some() {
            return;
        }
        while self.out.len() < OUT_BYTES_MAX {
            let Some(sequence) = self.unsent.pop_first() else { break };
            let record = &self.records[&sequence];
            self.out.extend_from_slice(&record.line);
            self.in_flight.push_back(sequence);
            self.waiting_since_ms.get_or_insert(now_ms);
        }
    }

    /// What is to be written; what was written is to be taken off its front.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether there is, or `fill` would make, something to write.
    pub(crate) fn wants_write(&self) -> bool {
        let may_send = self.phase == Phase::Ready && self.paused_until_ms.is_none();
        !self.out.is_empty() || may_send && !self.unsent.is_empty()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_proved(&self) -> bool {
        self.proved
    }

    /// When `fill` or `check_time` will have something to do though nothing arrives.
    pub(crate) fn wake_ms(&self) -> Option<u64> {
        let timeout_ms = self.waiting_since_ms.map(|since| since + self.answer_ms_max());
        [timeout_ms, self.paused_until_ms].into_iter().flatten().min()
    }

    /// An error ends the connection: the broker has been silent for too long.
    pub(crate) fn check_time(&self, now_ms: u64) -> Result<(), String> {
        let limit_ms = self.answer_ms_max();
        match self.waiting_since_ms {
            Some(since) if now_ms >= since + limit_ms => {
                Err(format!("the broker did not answer within {limit_ms} ms"))
            }
            _ => Ok(()),
        }
    }

    fn answer_ms_max(&self) -> u64 {
        let limit = match self.phase {
            Phase::Registering => self.config.greeting_timeout,
            Phase::Offline | Phase::Ready => self.config.request_timeout,
        };
        u64::try_from(limit.as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// What became of records since the last call.
    pub(crate) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }
}

/// What can be refused without asking a broker; it would break the framing besides.
fn check(sequence: u64, topic: &str) -> Result<(), WireError> {
    if sequence == 0 {
        return Err(ErrorCode::BadSequence.with("sequences are counted from 1"));
    }
    check_topic(topic.as_bytes())
        .map(|_| ())
        .map_err(|error| ErrorCode::BadTopic.with(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipeline that is registered and has sent `count` records at time 0.
    fn sent(count: usize) -> Pipeline {
        let mut pipeline = Pipeline::new(ClientConfig::new(Vec::new(), "p"), 1);
        pipeline.connected(0).expect("a good id");
        pipeline.received(b"OK\n", 0).expect("registered");
        for n in 0..count {
            pipeline.send(&format!("t/{n}"), b"", b"x").expect("room");
        }
        pipeline.fill(0);
        pipeline.out().clear();
        assert_eq!(pipeline.in_flight.len(), count);
        pipeline
    }

    /// How long nothing is sent after the last of `errors` passing errors in a row.
    fn pause_ms(errors: usize) -> u64 {
        let mut pipeline = sent(1);
        let mut now_ms = 0;
        for n in 1..=errors {
            pipeline.received(b"ERR|busy|later\n", now_ms).expect("taken");
            let until_ms = pipeline.wake_ms().expect("a pause has an end");
            if until_ms > now_ms {
                pipeline.fill(until_ms - 1);
                assert!(pipeline.out().is_empty() && !pipeline.wants_write(), "within the pause");
            }
            pipeline.fill(until_ms);
            assert!(pipeline.out().starts_with(b"PRODUCE_ONCE|1|t/0|"), "the same sequence");
            pipeline.out().clear();
            if n == errors {
                return until_ms - now_ms;
            }
            now_ms = until_ms;
        }
        0
    }

    #[test]
    fn a_busy_broker_is_left_alone_for_longer_and_longer() {
        let longest = |errors| (0..100).map(|_| pause_ms(errors)).max().unwrap_or(0);
        let (first, fifth) = (longest(1), longest(5));
        assert!(first > 0 && first <= 100, "{first}");
        assert!(fifth > 200 && fifth <= 1600, "{fifth}");
    }

    #[test]
    fn an_answer_out_of_its_turn_ends_the_connection_and_is_not_believed() {
        for wrong in ["ACK|t/1|0|0\n", "OK\n", "PONG|x\n", "ACKS|1\n", "END|0\n"] {
            let mut pipeline = sent(2);
            assert!(pipeline.received(wrong.as_bytes(), 0).is_err(), "{wrong}");
            pipeline.disconnected();
            assert_eq!((pipeline.unanswered(), pipeline.take_answers().len()), (2, 0), "{wrong}");
        }
        let mut pipeline = sent(1);
        let twice = pipeline.received(b"ACK|t/0|0|0\nACK|t/0|1|0\n", 0);
        assert!(twice.is_err() && pipeline.take_answers().len() == 1);
    }
}
