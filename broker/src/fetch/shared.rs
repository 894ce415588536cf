//! MESSAGE lines that many subscribers are sent: made once for all of them.
//!
//! A line says nothing of whom it is for, so a batch has the same ones for everybody. The lines of what
//! was committed last are kept for those who come to it a moment later; who wants only some of the topics
//! is sent stretches of them. Topics are numbered, so that a subscriber decides once about each and then
//! asks its own table.
//!
//! Invariants: only committed batches get here, and those never change; still a batch is known by its
//! entry and term, not by where it is. At most [`KEPT_BYTES_MAX`] are kept, and none while there are not
//! two subscribers.
//!
//! Left out: batches far behind the end, and very long ones. Whoever comes to one makes its lines alone, with
//! numbers of its own, and nobody waits for that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aklight_common::record::BodyError;
use aklight_common::wire::MessageLines;
use aklight_common::{Offset, PartitionId, RaftIndex, Term};
use aklight_log::Batch;
use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::outbox::make_room;

/// Bytes of lines that are kept, of all partitions together: several reads of a fast producer, which
/// subscribers that keep up are within.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Batches that are kept, however small they are: each is looked at by who comes for another.
const KEPT_MAX: usize = 64;

/// Topics that are numbered at once; one more, and the numbers begin anew.
const NUMBERS_MAX: usize = 16 << 10;

/// Longest batch whose lines are kept: others wait while they are made, about as long as for a system call.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Records behind the end whose lines are kept: those further back are read by stragglers, of whom each
/// is somewhere else.
const NEAR_RECORDS: u64 = 16 << 10;

/// What a line is longer than its record in a batch, mostly: there topics are spelled out once.
const LINE_BYTES: usize = 48;

/// The lines of a batch's records.
pub struct BatchLines {
    entry: Entry,
    base: Offset,
    text: Bytes,
    /// Where each line ends, and which topic it has.
    lines: Vec<(u32, u32)>,
    numbering: u64,
    /// Bytes of memory.
    cost: usize,
}

type Entry = (PartitionId, RaftIndex, Term);

impl BatchLines {
    /// The offset of the first record.
    pub const fn base(&self) -> Offset {
        self.base
    }

    /// The lines, one after another.
    pub const fn text(&self) -> &Bytes {
        &self.text
    }

    /// The number of each line's topic.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = u32> {
        self.lines.iter().map(|(_, topic)| *topic)
    }

    /// Which numbering the topics' numbers are of.
    pub const fn numbering(&self) -> u64 {
        self.numbering
    }

    /// Where a line begins.
    pub fn start(&self, line: usize) -> usize {
        line.checked_sub(1).map_or(0, |before| self.lines[before].0 as usize)
    }

    /// The topic of a line.
    pub fn topic(&self, line: usize) -> &str {
        let mut fields = self.text[self.start(line)..].split(|byte| *byte == b'|');
        let topic = fields.nth(1).unwrap_or_default();
        std::str::from_utf8(topic).unwrap_or_default()
    }
}

/// Lines of what was committed last, and the topics' numbers.
#[derive(Default)]
pub struct SharedLines {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscribers: usize,
    // Few: the newest are looked at first.
    kept: VecDeque<Arc<BatchLines>>,
    kept_bytes: usize,
    numbers: Numbers,
}

/// One who is sent lines, for as long as this lives.
pub struct Subscriber(Arc<SharedLines>);

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.subscribers -= 1;
        if state.subscribers < 2 {
            state.forget();
        }
    }
}

impl SharedLines {
    /// Counts one who is sent lines.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Subscriber {
        self.state.lock().subscribers += 1;
        Subscriber(self.clone())
    }

    /// The lines of a committed batch; `end` is the high watermark of its partition. Where nobody else is
    /// expected to ask for them the topics' numbers are `own` ones.
    ///
    /// # Errors
    /// When what is stored does not decode.
    pub fn of(
        &self,
        partition: PartitionId,
        batch: &Batch,
        end: Offset,
        own: &mut Numbers,
    ) -> Result<Arc<BatchLines>, BodyError> {
        let header = &batch.header;
        let entry = (partition, header.index, header.term);
        let is_near = end.0.saturating_sub(header.base_offset.0) <= NEAR_RECORDS;
        if !is_near || batch.body.len() > BATCH_BYTES_MAX {
            return own.encode(entry, batch).map(Arc::new);
        }
        own.forget();
        let mut state = self.state.lock();
        if let Some(known) = state.kept.iter().rev().find(|known| known.entry == entry) {
            return Ok(known.clone());
        }
        // Under the lock: others who come for the same batch wait less than it takes them.
        let lines = Arc::new(state.numbers.encode(entry, batch)?);
        if state.subscribers > 1 {
            state.keep(lines.clone());
        }
        Ok(lines)
    }
}

impl State {
    fn keep(&mut self, lines: Arc<BatchLines>) {
        self.kept_bytes += lines.cost;
        self.kept.push_back(lines);
        while self.kept_bytes > KEPT_BYTES_MAX || self.kept.len() > KEPT_MAX {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.cost;
        }
    }

    fn forget(&mut self) {
        (self.kept, self.kept_bytes) = (VecDeque::new(), 0);
        self.numbers.forget();
    }
}

/// The numbers of topics.
pub struct Numbers {
    of: HashMap<Box<[u8]>, u32, RandomState>,
    /// Numbers of another numbering mean something else.
    numbering: u64,
}

/// Numberings so far, anybody's.
static NUMBERINGS: AtomicU64 = AtomicU64::new(0);

impl Default for Numbers {
    fn default() -> Self {
        let numbering = NUMBERINGS.fetch_add(1, Ordering::Relaxed);
        Self { of: HashMap::default(), numbering }
    }
}

impl Numbers {
    fn forget(&mut self) {
        if !self.of.is_empty() {
            *self = Self::default();
        }
    }

    fn number(&mut self, topic: &[u8]) -> u32 {
        if let Some(number) = self.of.get(topic) {
            return *number;
        }
        let number = self.of.len() as u32;
        self.of.insert(topic.into(), number);
        number
    }

    fn encode(&mut self, entry: Entry, batch: &Batch) -> Result<BatchLines, BodyError> {
        // Within a batch a number stays what it is.
        if self.of.len() >= NUMBERS_MAX {
            self.forget();
        }
        let count = batch.header.records as usize;
        let mut text = Vec::new();
        make_room(&mut text, batch.body.len() + count * LINE_BYTES);
        let start = text.len();
        let mut lines = Vec::with_capacity(count.min(batch.body.len()));
        let mut messages = MessageLines::of(entry.0);
        let mut records = batch.stored_records();
        let base = batch.header.base_offset;
        let mut offset = base;
        while let Some(record) = records.next(|topic| Some((topic, self.number(topic)))) {
            let record = record?;
            let (topic, number) = record.topic;
            messages.put(&mut text, topic, offset, record.key, record.payload);
            // A batch's lines are less than a gigabyte: `BODY_BYTES_MAX`.
            lines.push(((text.len() - start) as u32, number));
            offset = offset.next();
        }
        let cost = text.capacity() + lines.capacity() * size_of::<(u32, u32)>();
        let text = Bytes::from(text).slice(start..);
        Ok(BatchLines { entry, base, text, lines, numbering: self.numbering, cost })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aklight_common::record::{BodyBuilder, Record};
    use aklight_common::wire::Reply;
    use aklight_log::{BatchHeader, BatchKind};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A topic, a key and a payload each; payloads of all lengths, some with what needs an escape.
    pub(in super::super) fn records() -> impl Strategy<Value = Vec<(String, Vec<u8>, Vec<u8>)>> {
        let topic = prop_oneof![
            3 => prop::sample::select(vec!["a/b", "a/c", "a", "c", "$x/b"]).prop_map(str::to_owned),
            1 => (0..200).prop_map(|n| format!("a/{n}")),
        ];
        let byte = || prop_oneof![4 => Just(b'x'), 1 => any::<u8>()];
        let payload = prop_oneof![9 => vec(byte(), 0..80), 1 => vec(byte(), 5000..5001)];
        vec((topic, vec(byte(), 0..3), payload), 0..40)
    }

    pub(in super::super) fn batch(
        index: u64,
        term: u64,
        base: u64,
        records: &[(String, Vec<u8>, Vec<u8>)],
    ) -> Batch {
        let mut builder = BodyBuilder::new();
        for (n, (topic, key, payload)) in (0..).zip(records) {
            builder.push(&Record { time_us: 1000 + n, topic, key, payload, once: None });
        }
        let body = builder.finish();
        let header = BatchHeader {
            index: RaftIndex(index),
            term: Term(term),
            kind: BatchKind::Records,
            base_offset: Offset(base),
            records: body.records,
            first_time_us: body.first_time_us,
            last_time_us: body.last_time_us,
            body_len: u32::try_from(body.bytes.len()).expect("short"),
        };
        Batch { header, body: body.bytes }
    }

    fn one(index: u64, term: u64, payload: &str) -> Batch {
        batch(index, term, 7, &[("a/b".to_owned(), Vec::new(), payload.into())])
    }

    fn text(lines: &BatchLines) -> &str {
        std::str::from_utf8(lines.text()).expect("ASCII")
    }

    proptest! {
        #[test]
        fn each_line_is_where_it_is_said_to_be(batches in vec((records(), 0..1000_u64), 1..5)) {
            let shared = Arc::new(SharedLines::default());
            let _subscribers = [shared.join(), shared.join()];
            let (mut names, mut own) = (HashMap::new(), Numbers::default());
            for (nth, (records, base)) in (0..).zip(&batches) {
                let (partition, batch) = (PartitionId(2), batch(nth, 1, *base, records));
                // Near the end or far from it.
                let end = Offset(batch.header.end_offset().0 + nth % 2 * NEAR_RECORDS);
                let lines = shared.of(partition, &batch, end, &mut own).expect("decodes");
                prop_assert_eq!(lines.topics().len(), records.len());
                for (line, number) in lines.topics().enumerate() {
                    let (topic, key, payload) = &records[line];
                    let (key, payload) = ((&key[..]).into(), (&payload[..]).into());
                    let offset = Offset(base + line as u64);
                    let mut expect = Vec::new();
                    Reply::Message { topic, offset, partition, key, payload }.encode(&mut expect);
                    prop_assert!(lines.text()[lines.start(line)..].starts_with(&expect));
                    prop_assert_eq!(lines.topic(line), topic);
                    // One number is one topic.
                    let known = names.entry((lines.numbering(), number)).or_insert(topic);
                    prop_assert_eq!(known, &topic);
                }
                let all: usize = lines.text().iter().filter(|byte| **byte == b'\n').count();
                prop_assert_eq!(all, records.len());
            }
        }
    }

    #[test]
    fn a_batch_is_known_by_its_entry_and_term() {
        let shared = Arc::new(SharedLines::default());
        let _subscribers = [shared.join(), shared.join()];
        let of = |partition, batch: &Batch| {
            let own = &mut Numbers::default();
            shared.of(PartitionId(partition), batch, Offset(8), own).expect("decodes")
        };
        let first = of(0, &one(4, 1, "old"));
        assert!(Arc::ptr_eq(&first, &of(0, &one(4, 1, "old"))), "made once");
        assert_eq!(text(&first), "MESSAGE|a/b|7|0||old\n");
        assert_eq!(text(&of(0, &one(4, 2, "new"))), "MESSAGE|a/b|7|0||new\n");
        assert_eq!(text(&of(0, &one(5, 1, "next"))), "MESSAGE|a/b|7|0||next\n");
        assert_eq!(text(&of(1, &one(4, 1, "beside"))), "MESSAGE|a/b|7|1||beside\n");
    }

    #[test]
    fn nothing_is_kept_for_one_subscriber_and_little_for_many() {
        let shared = Arc::new(SharedLines::default());
        let kept = || {
            let state = shared.state.lock();
            (state.kept.len(), state.kept_bytes, state.numbers.of.len())
        };
        let read_long = |index, end, bytes| {
            let (batch, own) = (one(index, 1, &"x".repeat(bytes)), &mut Numbers::default());
            shared.of(PartitionId(0), &batch, end, own).expect("decodes")
        };
        let read = |index, end| read_long(index, end, 100_000);
        let first = shared.join();
        read(1, Offset(8));
        assert_eq!((kept().0, kept().1), (0, 0), "nobody else reads it");
        let second = shared.join();
        (1..200).for_each(|index| drop(read(index, Offset(8))));
        let (batches, bytes, topics) = kept();
        assert!(batches > 10 && bytes <= KEPT_BYTES_MAX && topics == 1, "{batches} {bytes}");
        read(900, Offset(7 + NEAR_RECORDS + 1));
        read_long(901, Offset(8), BATCH_BYTES_MAX);
        assert_eq!(kept().0, batches, "neither a straggler's batch is kept nor a long one");
        drop(first);
        assert_eq!(kept(), (0, 0, 0));
        drop(second);
        assert_eq!(shared.state.lock().subscribers, 0);
    }

    #[test]
    fn numbers_begin_anew_before_there_are_too_many() {
        let mut numbers = Numbers::default();
        let mut numbering = None;
        for round in 0..3_u64 {
            let names = (0..NUMBERS_MAX as u64).map(|n| format!("t/{round}/{n}"));
            let records: Vec<_> = names.map(|name| (name, Vec::new(), Vec::new())).collect();
            let entry = (PartitionId(0), RaftIndex(round), Term(1));
            let lines = numbers.encode(entry, &batch(round, 1, 0, &records)).expect("decodes");
            assert_eq!(lines.topics().max(), Some(NUMBERS_MAX as u32 - 1));
            assert!(numbering.replace(lines.numbering()) != Some(lines.numbering()));
        }
    }
}
