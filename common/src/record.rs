//! Records, and how a batch of them is written as bytes.
//!
//! A batch's body is records one after another. The first record of a batch that belongs to a
//! topic spells the topic out; later ones name it by its ordinal, so that each of its topics is spelled
//! out once. Producers (of PRODUCE_ONCE) are named in the same way.
//!
//! A body that is long is made of parts of some [`PART_BYTES`]: with the first record of a part names
//! begin anew, so that a part can be read without those before it.
//!
//! ```text
//! record  = flags time-delta topic [producer sequence] key-length key payload-length payload
//! flags   = one byte: 1 the topic is spelled out, 2 has a sequence, 4 the producer is spelled out,
//!           8 names begin anew
//! topic   = length-byte name | ordinal        producer = length-byte id | ordinal
//! ```
//!
//! Every number but the length bytes is an unsigned LEB128 varint. A record's time is the
//! batch's first time plus the delta, in microseconds since the Unix epoch; it is the moment at
//! which the broker took the record in, and rises strictly within a broker.
//!
//! The bytes are protected by the checksum of the batch around them, and were checked where they came
//! in: decoding cannot be brought down by any bytes and gives text for text, but does not ask again
//! whether a name is a topic.

mod stored;

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::topic::check_topic;

pub use stored::{Stored, StoredRecords};

const SPELLS_TOPIC: u8 = 1;
const HAS_SEQUENCE: u8 = 2;
const SPELLS_PRODUCER: u8 = 4;
const BEGINS_PART: u8 = 8;

/// Least bytes of a part: what a walk through one costs is little more than one read of the disk, and
/// names of usual length that are spelled out again make a body no more than a tenth longer. Sixty of the
/// longest names fill a part by themselves: there nothing is saved by ordinals.
pub const PART_BYTES: usize = 16 << 10;

/// Who sent a record, and as its how-manieth: what PRODUCE_ONCE tells repeats by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once<'a> {
    /// The producer's id.
    pub producer: &'a str,
    /// The producer's number for this record, from 1.
    pub sequence: u64,
}

/// A record as a producer sends it and a batch stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When the broker took it in, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// A checked topic name.
    pub topic: &'a str,
    /// The key, unescaped; empty when there is none.
    pub key: &'a [u8],
    /// The payload, unescaped.
    pub payload: &'a [u8],
    /// Set for records of PRODUCE_ONCE.
    pub once: Option<Once<'a>>,
}

/// A body that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch's body breaks off or holds nonsense at byte {at}")]
pub struct BodyError {
    /// Where in the body.
    pub at: usize,
}

/// Builds the body of a batch.
#[derive(Debug, Default)]
pub struct BodyBuilder {
    bytes: Vec<u8>,
    topics: Names,
    producers: Names,
    // Where the last part begins.
    part: usize,
    records: u32,
    first_time_us: u64,
    last_time_us: u64,
}

/// Most names that a body's table remembers; a name beyond it is spelled out each time.
const NAMES_MAX: usize = 64;

impl BodyBuilder {
    /// An empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record. Its time must not be earlier than the one before it.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        let Record { time_us, topic, key, payload, once } = *record;
        self.push_stored(&Stored { time_us, topic: topic.as_bytes(), key, payload, once });
    }

    /// Adds a record of another body, whose topic was checked when it came in.
    pub fn push_stored(&mut self, record: &Stored<'_, &[u8]>) {
        debug_assert!(check_topic(record.topic).is_ok(), "{}", record.topic.escape_ascii());
        if self.records == 0 {
            self.first_time_us = record.time_us;
            self.last_time_us = record.time_us;
        }
        self.last_time_us = self.last_time_us.max(record.time_us);
        let mut flags = 0;
        if self.bytes.len() - self.part >= PART_BYTES {
            self.part = self.bytes.len();
            self.topics.clear();
            self.producers.clear();
            flags |= BEGINS_PART;
        }
        let topic = self.topics.find(&self.bytes, record.topic);
        if let Place::New(_) = topic {
            flags |= SPELLS_TOPIC;
        }
        let once = record.once.map(|once| {
            let producer = self.producers.find(&self.bytes, once.producer.as_bytes());
            (once, producer)
        });
        if let Some((_, producer)) = &once {
            flags |= HAS_SEQUENCE;
            if let Place::New(_) = producer {
                flags |= SPELLS_PRODUCER;
            }
        }
        self.bytes.push(flags);
        put_varint(&mut self.bytes, self.last_time_us - self.first_time_us);
        self.topics.put(&mut self.bytes, topic, record.topic);
        if let Some((once, producer)) = once {
            self.producers.put(&mut self.bytes, producer, once.producer.as_bytes());
            put_varint(&mut self.bytes, once.sequence);
        }
        put_varint(&mut self.bytes, record.key.len() as u64);
        self.bytes.extend_from_slice(record.key);
        put_varint(&mut self.bytes, record.payload.len() as u64);
        self.bytes.extend_from_slice(record.payload);
        self.records += 1;
    }

    /// Takes room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Records so far.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether no record was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The finished body.
    #[must_use]
    pub fn finish(mut self) -> Body {
        // They may be kept for long, and are counted by their length.
        if self.bytes.capacity() / 4 > self.bytes.len() / 3 {
            self.bytes.shrink_to_fit();
        }
        Body {
            records: self.records,
            first_time_us: self.first_time_us,
            last_time_us: self.last_time_us,
            bytes: Bytes::from(self.bytes),
        }
    }
}

/// The body of a batch, with what a batch's header must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// How many records.
    pub records: u32,
    /// Time of the first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// Time of the last record, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// The records.
    pub bytes: Bytes,
}

impl Body {
    /// The records in order.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.bytes, self.first_time_us)
    }

    /// The same as they stand there.
    #[must_use]
    pub fn stored_records<T: Copy>(&self) -> StoredRecords<'_, T> {
        StoredRecords::new(&self.bytes, self.first_time_us)
    }
}

/// Reads the records of a body, in order; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    /// None: it was not wanted.
    stored: StoredRecords<'a, Option<&'a str>>,
}

impl<'a> Records<'a> {
    /// Reads `bytes`, the body of a batch whose first record has time `first_time_us`.
    #[must_use]
    pub fn new(bytes: &'a [u8], first_time_us: u64) -> Self {
        Self { stored: StoredRecords::new(bytes, first_time_us) }
    }

    /// The next record, or nothing in its place where its topic is not wanted: then the name is
    /// not even checked, which is most of the work with a batch of many topics.
    pub fn next_wanted(
        &mut self,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Result<Option<Record<'a>>, BodyError>> {
        let text = |name| std::str::from_utf8(name).ok();
        let read = self
            .stored
            .next(|name| if wanted(name) { text(name).map(Some) } else { Some(None) })?;
        Some(read.map(|Stored { time_us, topic, key, payload, once }| {
            topic.map(|topic| Record { time_us, topic, key, payload, once })
        }))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.next_wanted(|_| true)?.transpose() {
                return Some(record);
            }
        }
    }
}

/// The names that a body has spelled out, each by its ordinal.
#[derive(Debug, Default)]
struct Names {
    // (start, end) within the body: no copy of its own.
    places: Vec<(usize, usize)>,
    // Each at the place that its name's hash says, or at the next one that was free. Only once there
    // are more names than are quickly compared one by one.
    table: Vec<Entry>,
}

/// A place of the table: a byte of the name's hash, which tells nearly all others apart, and the ordinal
/// plus one; 0 is free.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    mark: u8,
    ordinal: u8,
}

/// Where a name is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Spelled out before.
    Known(usize),
    /// Not yet; what its hash is, where it was asked for.
    New(Option<u64>),
}

/// Most names that are compared one by one.
const COMPARED_MAX: usize = 8;

/// Places of the table, twice the names at least: a search ends soon.
const TABLE_PLACES: usize = 2 * NAMES_MAX;

impl Names {
    fn clear(&mut self) {
        self.places.clear();
        self.table.clear();
    }

    #[inline]
    fn find(&self, bytes: &[u8], name: &[u8]) -> Place {
        let is_it = |(start, end): &(usize, usize)| &bytes[*start..*end] == name;
        if self.table.is_empty() {
            return self.places.iter().rposition(is_it).map_or(Place::New(None), Place::Known);
        }
        let hash = hash(name);
        let mut at = first_place(hash);
        loop {
            let Entry { mark, ordinal } = self.table[at];
            let Some(ordinal) = usize::from(ordinal).checked_sub(1) else {
                return Place::New(Some(hash));
            };
            if mark == mark_of(hash) && is_it(&self.places[ordinal]) {
                return Place::Known(ordinal);
            }
            // Half of the places are free at least: it ends at one of them.
            at = (at + 1) % TABLE_PLACES;
        }
    }

    /// Writes a name, or the ordinal it was found by.
    fn put(&mut self, bytes: &mut Vec<u8>, place: Place, name: &[u8]) {
        let hash = match place {
            Place::Known(ordinal) => return put_varint(bytes, ordinal as u64),
            Place::New(hash) => hash,
        };
        // Topics and ids are at most 255 bytes: checked where they come in.
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        let start = bytes.len();
        bytes.extend_from_slice(name);
        if self.places.len() == NAMES_MAX {
            return;
        }
        self.places.push((start, bytes.len()));
        match hash {
            Some(hash) => self.enter(hash, self.places.len() - 1),
            None if self.places.len() > COMPARED_MAX => {
                self.table.resize(TABLE_PLACES, Entry::default());
                for ordinal in 0..self.places.len() {
                    let (start, end) = self.places[ordinal];
                    self.enter(self::hash(&bytes[start..end]), ordinal);
                }
            }
            None => {}
        }
    }

    fn enter(&mut self, hash: u64, ordinal: usize) {
        let mut at = first_place(hash);
        while self.table[at].ordinal > 0 {
            at = (at + 1) % TABLE_PLACES;
        }
        self.table[at] = Entry { mark: mark_of(hash), ordinal: ordinal as u8 + 1 };
    }
}

fn hash(name: &[u8]) -> u64 {
    FixedState::default().hash_one(name)
}

/// Where in the table the search for a name begins.
const fn first_place(hash: u64) -> usize {
    hash as usize % TABLE_PLACES
}

const fn mark_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Writes an unsigned LEB128 varint.
pub fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(topic: &'a str, payload: &'a [u8], time_us: u64) -> Record<'a> {
        Record { time_us, topic, key: b"k", payload, once: None }
    }

    #[test]
    fn a_topic_is_spelled_once_a_batch() {
        let mut builder = BodyBuilder::new();
        builder.push(&record("metrics/docker/web/cpu", b"1", 100));
        let first = builder.len();
        builder.push(&record("metrics/docker/web/cpu", b"2", 105));
        // flags, delta, ordinal, key length, key, payload length, payload
        assert_eq!(builder.len() - first, 7);
        let body = builder.finish();
        let read: Vec<_> = body.records().map(|r| r.expect("decodes")).collect();
        assert_eq!(read[1], record("metrics/docker/web/cpu", b"2", 105));
        assert_eq!((body.records, body.first_time_us, body.last_time_us), (2, 100, 105));
    }

    #[test]
    fn each_of_the_first_names_is_spelled_once() {
        for names in [COMPARED_MAX, COMPARED_MAX + 1, NAMES_MAX] {
            let mut builder = BodyBuilder::new();
            let mut lens = Vec::new();
            for n in (0..names).chain((0..names).rev()) {
                let before = builder.len();
                builder.push(&record(&format!("metrics/docker/web{n}/cpu"), b"1", 7));
                lens.push(builder.len() - before);
            }
            assert!(lens[..names].iter().all(|len| *len > 20), "{names}: {lens:?}");
            assert!(lens[names..].iter().all(|len| *len == 7), "{names}: {lens:?}");
        }
    }

    #[test]
    fn more_names_than_the_table_holds_still_decode() {
        let names: Vec<_> = (0..200).map(|n| format!("t/{n}")).collect();
        let mut builder = BodyBuilder::new();
        for round in 0..2 {
            for name in &names {
                builder.push(&record(name, b"x", 7 + round));
            }
        }
        let body = builder.finish();
        let topics: Vec<_> = body.records().map(|r| r.expect("decodes").topic).collect();
        assert_eq!(topics.len(), 400);
        assert!(topics.iter().zip(names.iter().cycle()).all(|(a, b)| a == b));
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_in_its_place() {
        let mut builder = BodyBuilder::new();
        // More names than the table holds; each twice, spelled out and by its ordinal.
        for n in 0..400_u64 {
            builder.push(&Record {
                once: Some(Once { producer: "p", sequence: n }),
                ..record(&format!("t/{}", n % 100), b"x", n)
            });
        }
        let body = builder.finish();
        let wanted = |name: &[u8]| name.ends_with(b"7");
        let mut records = body.records();
        let read: Vec<_> = std::iter::from_fn(|| records.next_wanted(wanted)).collect();
        let all: Vec<_> = body.records().map(|record| record.expect("decodes")).collect();
        let expect = all.iter().map(|r| Ok(Some(*r).filter(|r| wanted(r.topic.as_bytes()))));
        assert_eq!((read.len(), read), (400, expect.collect()));
    }

    #[test]
    fn a_part_is_read_without_those_before_it() {
        // Fewer and more names than are remembered.
        for names in [3, 200] {
            let mut builder = BodyBuilder::new();
            for n in 0..1_000_u64 {
                let producer = ["p", "q"][n as usize / 3 % 2];
                builder.push(&Record {
                    once: Some(Once { producer, sequence: n }),
                    ..record(&format!("t/{}", n % names), &[b'x'; 70], n)
                });
            }
            let body = builder.finish();
            let mut all: StoredRecords<'_, &[u8]> = StoredRecords::new(&body.bytes, 0);
            let mut starts = Vec::new();
            let mut records = Vec::new();
            loop {
                if all.begins_part() {
                    starts.push((all.at(), records.len()));
                }
                let Some(record) = all.next(Some) else { break };
                records.push(record.expect("decodes"));
            }
            assert!((4..8).contains(&starts.len()), "{starts:?}");
            for (at, before) in starts {
                let part: StoredRecords<'_, &[u8]> = StoredRecords::new(&body.bytes[at..], 0);
                let mut part = part;
                for expect in &records[before..] {
                    assert_eq!(part.next(Some), Some(Ok(*expect)));
                }
                assert_eq!(part.next(Some), None);
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error_and_not_a_panic() {
        let mut builder = BodyBuilder::new();
        builder.push(&Record {
            once: Some(Once { producer: "p", sequence: 9 }),
            ..record("a/b", b"payload", 1)
        });
        let body = builder.finish();
        for cut in 1..body.bytes.len() {
            let read: Vec<_> = Records::new(&body.bytes[..cut], 1).collect();
            assert!(read.len() == 1 && read[0].is_err(), "cut at {cut}");
        }
    }
}
