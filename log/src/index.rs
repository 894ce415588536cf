//! A segment's index: where an entry, an offset, a moment or a topic is, within one block.
//!
//! The segment is thought of as blocks of at least [`BLOCK_BYTES`]: a block begins with the first
//! batch that starts that far after the block before it. For each block the index has the position,
//! the entry and the offset it begins with and the latest time up to its end; for each topic, how
//! many records it has and in which blocks they are. A search ends with a walk through one block.
//!
//! A batch whose body has parts (see `common::record`) has a block for each of them, with a checksum of
//! its own: so a part can be read, and trusted, without the rest of its batch.
//!
//! The writer thread grows the index of the active segment with every batch that it has written.
//! When the segment is full the index is put beside it, as `….index`, with a checksum of its own
//! and the segment's length: what does not fit the segment is thrown away and built again.
//!
//! ```text
//! sidecar = "AKI1" crc32c payload        crc32c over the payload; numbers are LEB128 varints
//! payload = version summary blocks topics damages
//! ```
//!
//! Version 2 has parts; where there are none the sidecar is of version 1.
//!
//! Invariant: the index covers exactly the bytes of the segment below `summary.size`, damage
//! excepted. Left out: an index of single records, and of keys.

mod part;
mod topics;

use std::path::Path;

use aklight_common::record::{PART_BYTES, put_varint};
use aklight_common::{Offset, RaftIndex, Term};
use bytes::Bytes;

use crate::format::{Batch, BatchKind, HEADER_BYTES};
use crate::report::Damage;
use crate::varint::Varints;
pub(crate) use part::Part;
use topics::{Postings, Topics};

/// Least bytes of a block: a walk through one costs one read of the disk, and the block's entry
/// a thousandth of the segment.
pub(crate) const BLOCK_BYTES: u64 = 16 << 10;

const MAGIC: [u8; 4] = *b"AKI1";
const VERSION: u64 = 1;
const VERSION_WITH_PARTS: u64 = 2;

/// Magic and checksum.
const SIDECAR_HEADER_BYTES: usize = 8;

/// Stands for what is in a batch whose body does not decode: no topic is empty, so this one
/// matches every question.
const UNKNOWN_TOPIC: &str = "";

/// What a segment holds, in numbers.
///
/// Invariants: `first_index ≤ next_index`, `base_offset ≤ end_offset`, `last_position ≤ size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub first_index: RaftIndex,
    /// One past the last entry.
    pub next_index: RaftIndex,
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub last_term: Term,
    /// Where the last batch begins.
    pub last_position: u64,
    /// Bytes of batches, without space taken in advance.
    pub size: u64,
    /// The latest time of a record.
    pub time_us_max: u64,
}

/// Where to begin a walk, or a part of a batch to read alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub position: u64,
    pub index: RaftIndex,
    pub base_offset: Offset,
    /// The latest time of a record from the segment's start to the block's end.
    pub time_us_max: u64,
    /// Where the block is a part of a batch, and nothing else.
    pub part: Option<Part>,
}

impl Block {
    /// Whether it begins with a batch: others begin within one.
    const fn begins_batch(&self) -> bool {
        match &self.part {
            Some(part) => part.at > self.position,
            None => true,
        }
    }
}

/// The index of one segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentIndex {
    summary: Summary,
    blocks: Vec<Block>,
    topics: Topics,
    damages: Vec<Damage>,
}

impl SegmentIndex {
    /// The index of an empty segment.
    pub(crate) fn new(first_index: RaftIndex, base_offset: Offset) -> Self {
        let summary = Summary {
            first_index,
            next_index: first_index,
            base_offset,
            end_offset: base_offset,
            last_term: Term(0),
            last_position: 0,
            size: 0,
            time_us_max: 0,
        };
        Self { summary, blocks: Vec::new(), topics: Topics::new(), damages: Vec::new() }
    }

    pub(crate) const fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.summary.next_index == self.summary.first_index
    }

    pub(crate) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Takes in a batch that begins at `position`, behind everything else.
    pub(crate) fn add(&mut self, position: u64, batch: &Batch) {
        let header = &batch.header;
        if self.is_empty() {
            // A segment that was made for an empty log learns here where it begins.
            self.summary.first_index = header.index;
            self.summary.base_offset = header.base_offset;
        }
        self.summary.next_index = header.index.next();
        self.summary.end_offset = header.end_offset();
        self.summary.last_term = header.term;
        self.summary.last_position = position;
        self.summary.size = position + header.stored_len();
        if header.kind == BatchKind::Records {
            self.summary.time_us_max = self.summary.time_us_max.max(header.last_time_us);
        }
        let time_us_max = self.summary.time_us_max;
        // One that may have parts is not behind others in a block.
        let is_short = batch.body.len() <= PART_BYTES;
        match self.blocks.last_mut() {
            Some(block)
                if is_short && block.part.is_none() && position - block.position < BLOCK_BYTES =>
            {
                block.time_us_max = time_us_max;
            }
            _ => self.begin_block(position, batch, header.base_offset),
        }
        self.add_topics(position, batch);
    }

    fn begin_block(&mut self, position: u64, batch: &Batch, base_offset: Offset) {
        self.blocks.push(Block {
            position,
            index: batch.header.index,
            base_offset,
            time_us_max: self.summary.time_us_max,
            part: None,
        });
    }

    /// Counts the topics of a batch in the last block, and those of its further parts in theirs.
    fn add_topics(&mut self, position: u64, batch: &Batch) {
        let base = batch.header.base_offset.0;
        let body_at = position + HEADER_BYTES as u64;
        let mut block = self.blocks.len() - 1;
        // Behind others in a block a batch has no blocks of its own, whatever its records say.
        let may_have_parts = self.blocks[block].position == position;
        // Where the part begins that is being read: in the body, and among the records.
        let mut part = (0, 0);
        // Runs of one topic are the rule: count a run, then look the topic up once.
        let (mut run, mut count) = (UNKNOWN_TOPIC.as_bytes(), 0);
        let mut records = batch.stored_records();
        for number in 0_u32.. {
            if may_have_parts && records.begins_part() && number > part.1 {
                if count > 0 {
                    self.topics.count(run, block, std::mem::take(&mut count));
                }
                let at = records.at();
                self.blocks[block].part =
                    Some(Part::of(batch, body_at, part.0..at, number - part.1));
                self.begin_block(body_at + at as u64, batch, Offset(base + u64::from(number)));
                (part, block) = ((at, number), block + 1);
            }
            let Some(record) = records.next(Some) else { break };
            let Ok(record) = record else {
                self.topics.count(UNKNOWN_TOPIC.as_bytes(), block, 0);
                break;
            };
            if record.topic != run {
                if count > 0 {
                    self.topics.count(run, block, count);
                }
                (run, count) = (record.topic, 0);
            }
            count += 1;
        }
        if count > 0 {
            self.topics.count(run, block, count);
        }
        if part.0 > 0 {
            // Of one that does not decode all the rest, which is then told by who reads it.
            let records = batch.header.records.saturating_sub(part.1);
            let rest = part.0..batch.body.len();
            self.blocks[block].part = Some(Part::of(batch, body_at, rest, records));
        }
    }

    /// Takes in a stretch that cannot be read; the batches go on at its end.
    pub(crate) fn add_damage(&mut self, damage: Damage) {
        self.summary.next_index = damage.resume_index;
        self.summary.end_offset = damage.resume;
        self.summary.size = damage.position + damage.bytes;
        self.damages.push(damage);
    }

    /// The same with whole paths in the damages; the sidecar has names only.
    pub(crate) fn within(mut self, dir: &Path) -> Self {
        self.damages = self.damages.into_iter().map(|damage| damage.within(dir)).collect();
        self
    }

    /// The block where the walk to an entry begins; none before the first block, which does not
    /// begin the segment when that is damaged.
    pub(crate) fn block_of_index(&self, index: RaftIndex) -> Option<Block> {
        self.last_batch_in(self.blocks.partition_point(|block| block.index <= index))
    }

    /// The block where the walk to an offset begins; none before the first block.
    pub(crate) fn block_of_offset(&self, offset: Offset) -> Option<Block> {
        self.last_batch_in(self.blocks.partition_point(|block| block.base_offset <= offset))
    }

    /// The last of so many blocks that begins with a batch.
    fn last_batch_in(&self, blocks: usize) -> Option<Block> {
        self.blocks[..blocks].iter().rev().find(|block| block.begins_batch()).copied()
    }

    /// The part of a batch that an offset is in, and the offset that it begins with; none where its
    /// batch has no parts.
    pub(crate) fn part_of(&self, offset: Offset) -> Option<(Offset, Part)> {
        let after = self.blocks.partition_point(|block| block.base_offset <= offset);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        block.part.map(|part| (block.base_offset, part))
    }

    /// The block where the walk to the first record of a time or later begins: with a batch, as all
    /// parts of one have the same latest time.
    pub(crate) fn block_of_time(&self, time_us: u64) -> Option<Block> {
        self.blocks.get(self.blocks.partition_point(|block| block.time_us_max < time_us)).copied()
    }

    /// The block that an offset is in, or the first one.
    fn ordinal_of(&self, offset: Offset) -> usize {
        self.blocks.partition_point(|block| block.base_offset <= offset).saturating_sub(1)
    }

    /// A lower bound of the first offset from `from` on that has a wanted topic; `None` when
    /// there is none in this segment.
    pub(crate) fn next_with_topics(
        &self,
        from: Offset,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Option<Offset> {
        let first = self.ordinal_of(from);
        let mut found: Option<usize> = None;
        for (topic, postings) in self.topics.iter() {
            if found == Some(first) {
                break;
            }
            if topic.is_empty() || wanted(topic) {
                found = found.into_iter().chain(postings.first_from(first)).min();
            }
        }
        self.beginning(found, from)
    }

    /// The blocks that have a wanted topic, rising: for [`Self::next_in`], by those who ask more
    /// than once.
    pub(crate) fn blocks_with(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<usize> {
        let found = self.topics.iter().filter(|(topic, _)| topic.is_empty() || wanted(topic));
        self.blocks_of(found.map(|(_, postings)| postings))
    }

    /// The same for one topic.
    pub(crate) fn blocks_with_topic(&self, topic: &str) -> Vec<usize> {
        self.blocks_of(
            [UNKNOWN_TOPIC, topic].into_iter().filter_map(|topic| self.topics.get(topic)),
        )
    }

    fn blocks_of<'a>(&self, topics: impl Iterator<Item = Postings<'a>>) -> Vec<usize> {
        // Many topics in few blocks are the rule: a mark for each block is sooner set than a block sorted.
        let mut has_one = vec![false; self.blocks.len()];
        for postings in topics {
            for block in postings.blocks() {
                if let Some(mark) = has_one.get_mut(block) {
                    *mark = true;
                }
            }
        }
        (0..).zip(has_one).filter_map(|(block, has_one)| has_one.then_some(block)).collect()
    }

    /// The same as [`Self::next_with_topics`].
    pub(crate) fn next_in(&self, blocks: &[usize], from: Offset) -> Option<Offset> {
        let first = self.ordinal_of(from);
        let place = blocks.partition_point(|block| *block < first);
        self.beginning(blocks.get(place).copied(), from)
    }

    /// Where a block begins, or what is damaged before it. What is damaged matches nothing and is
    /// nevertheless shown to the reader: it must learn that something is missing there.
    fn beginning(&self, block: Option<usize>, from: Offset) -> Option<Offset> {
        let block = block.and_then(|block| self.blocks.get(block));
        let ahead = self.damages.iter().filter(|damage| damage.resume > from);
        let damaged = ahead.map(|damage| damage.from.max(from));
        block.map(|block| block.base_offset.max(from)).into_iter().chain(damaged).min()
    }

    /// How many records each topic has.
    pub(crate) fn topic_counts(&self) -> impl Iterator<Item = (&str, u64)> {
        let known = self.topics.iter().filter(|(topic, _)| !topic.is_empty());
        known.map(|(topic, postings)| (topic, postings.records))
    }

    /// The bytes of the sidecar.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIDECAR_HEADER_BYTES];
        let summary = &self.summary;
        let has_parts = self.blocks.iter().any(|block| block.part.is_some());
        for number in [
            if has_parts { VERSION_WITH_PARTS } else { VERSION },
            summary.first_index.0,
            summary.next_index.0,
            summary.base_offset.0,
            summary.end_offset.0,
            summary.last_term.0,
            summary.last_position,
            summary.size,
            summary.time_us_max,
            self.blocks.len() as u64,
        ] {
            put_varint(&mut bytes, number);
        }
        for block in &self.blocks {
            for number in [block.position, block.index.0, block.base_offset.0, block.time_us_max] {
                put_varint(&mut bytes, number);
            }
            if has_parts {
                Part::encode(block.part.as_ref(), block.position, &mut bytes);
            }
        }
        self.topics.encode(&mut bytes);
        put_varint(&mut bytes, self.damages.len() as u64);
        for damage in &self.damages {
            damage.encode(&mut bytes);
        }
        bytes[..4].copy_from_slice(&MAGIC);
        let crc = crc32c::crc32c(&bytes[SIDECAR_HEADER_BYTES..]);
        bytes[4..SIDECAR_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a sidecar; `None` where it is damaged or of another version.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(SIDECAR_HEADER_BYTES)?;
        let crc = u32::from_le_bytes(header[4..].try_into().ok()?);
        if header[..4] != MAGIC || crc != crc32c::crc32c(payload) {
            return None;
        }
        let mut numbers = Varints::new(payload);
        let version = numbers.next()?;
        if !(VERSION..=VERSION_WITH_PARTS).contains(&version) {
            return None;
        }
        let summary = Summary {
            first_index: RaftIndex(numbers.next()?),
            next_index: RaftIndex(numbers.next()?),
            base_offset: Offset(numbers.next()?),
            end_offset: Offset(numbers.next()?),
            last_term: Term(numbers.next()?),
            last_position: numbers.next()?,
            size: numbers.next()?,
            time_us_max: numbers.next()?,
        };
        let mut blocks = Vec::new();
        for _ in 0..numbers.next()? {
            let mut block = Block {
                position: numbers.next()?,
                index: RaftIndex(numbers.next()?),
                base_offset: Offset(numbers.next()?),
                time_us_max: numbers.next()?,
                part: None,
            };
            if version == VERSION_WITH_PARTS {
                block.part = Part::decode(block.position, &mut numbers)?;
            }
            blocks.push(block);
        }
        let topics = Topics::decode(bytes, &mut numbers)?;
        let mut damages = Vec::new();
        for _ in 0..numbers.next()? {
            damages.push(Damage::decode(&mut numbers)?);
        }
        numbers.is_empty().then_some(Self { summary, blocks, topics, damages })
    }
}

fn put_sized(bytes: &mut Vec<u8>, sized: &[u8]) {
    put_varint(bytes, sized.len() as u64);
    bytes.extend_from_slice(sized);
}

#[cfg(test)]
mod tests {
    use aklight_common::record::{BodyBuilder, Record};

    use super::*;
    use crate::format::BatchHeader;

    fn batch(index: u64, base: u64, topic: &str, payload_bytes: usize) -> Batch {
        let mut builder = BodyBuilder::new();
        let payload = vec![b'x'; payload_bytes];
        builder.push(&Record {
            time_us: index * 10,
            topic,
            key: b"",
            payload: &payload,
            once: None,
        });
        let body = builder.finish();
        let header = BatchHeader {
            index: RaftIndex(index),
            term: Term(1),
            kind: BatchKind::Records,
            base_offset: Offset(base),
            records: 1,
            first_time_us: body.first_time_us,
            last_time_us: body.last_time_us,
            body_len: u32::try_from(body.bytes.len()).expect("short"),
        };
        Batch { header, body: body.bytes }
    }

    /// Offsets 100 to 139, one record a batch, about 5 batches a block; `rare/a` at 130 only.
    fn sample() -> SegmentIndex {
        let mut index = SegmentIndex::new(RaftIndex(0), Offset(0));
        let mut position = 0;
        for n in 0..40 {
            let topic = if n == 30 { "rare/a" } else { "usual/b" };
            let batch = batch(7 + n, 100 + n, topic, 4000);
            index.add(position, &batch);
            position += batch.header.stored_len();
        }
        index
    }

    #[test]
    fn a_search_ends_in_the_block_that_holds_the_answer() {
        let index = sample();
        assert_eq!(
            (index.summary().first_index, index.summary().next_index),
            (RaftIndex(7), RaftIndex(47))
        );
        for n in 0..40 {
            let by_offset = index.block_of_offset(Offset(100 + n)).expect("a block");
            let by_index = index.block_of_index(RaftIndex(7 + n)).expect("a block");
            let by_time = index.block_of_time((7 + n) * 10).expect("a block");
            assert_eq!((by_offset, by_index), (by_index, by_time));
            assert!(by_offset.base_offset <= Offset(100 + n));
            assert!(Offset(100 + n).0 - by_offset.base_offset.0 <= 5);
        }
        assert_eq!(index.block_of_time(470), None);
    }

    #[test]
    fn blocks_without_a_wanted_topic_are_skipped() {
        let index = sample();
        let rare = |topic: &str| topic == "rare/a";
        let found = index.next_with_topics(Offset(100), &rare).expect("there is one");
        assert!(found <= Offset(130) && found > Offset(120), "{found}");
        assert_eq!(index.next_with_topics(Offset(139), &rare), None);
        assert_eq!(index.next_with_topics(Offset(104), &|t| t == "usual/b"), Some(Offset(104)));
        assert_eq!(index.next_with_topics(Offset(100), &|_| false), None);
        let stored = SegmentIndex::decode(&index.encode().into()).expect("whole");
        for from in (99..141).map(Offset) {
            for wanted in ["rare/a", "usual/b", "none"] {
                let expect = index.next_with_topics(from, &|topic| topic == wanted);
                let blocks = index.blocks_with(&|topic| topic == wanted);
                assert_eq!(index.next_in(&blocks, from), expect, "{from}");
                assert_eq!(index.blocks_with_topic(wanted), blocks, "{from}");
                assert_eq!(stored.blocks_with_topic(wanted), blocks, "{from}");
            }
        }
        let mut counts: Vec<_> = index.topic_counts().collect();
        counts.sort_unstable();
        assert_eq!(counts, [("rare/a", 1), ("usual/b", 39)]);
    }

    #[test]
    fn a_batch_behind_others_in_a_block_has_no_parts_of_its_own() {
        let mut index = SegmentIndex::new(RaftIndex(0), Offset(0));
        let mut marked = batch(1, 1, "t", 40);
        let twice = [&marked.body[..], &[marked.body[0] | 8], &marked.body[1..]].concat();
        marked.header.records = 2;
        marked.header.body_len = u32::try_from(twice.len()).expect("short");
        marked.body = twice.into();
        let first = batch(0, 0, "t", 40);
        index.add(0, &first);
        index.add(first.header.stored_len(), &marked);
        assert_eq!(index.part_of(Offset(0)), None);
        assert_eq!(index.part_of(Offset(2)), None);
        let mut alone = SegmentIndex::new(RaftIndex(0), Offset(0));
        alone.add(0, &marked);
        assert!(alone.part_of(Offset(2)).is_some_and(|(base, _)| base == Offset(2)));
    }

    #[test]
    fn a_body_that_does_not_decode_is_never_skipped() {
        let mut index = sample();
        let mut opaque = batch(47, 140, "x", 10);
        opaque.body = bytes::Bytes::from_static(b"\xff\xff");
        opaque.header.body_len = 2;
        index.add(index.summary().size, &opaque);
        assert!(index.next_with_topics(Offset(140), &|_| false).is_some());
        assert_eq!(index.blocks_with_topic("none").len(), 1);
    }

    #[test]
    fn a_sidecar_is_read_as_it_was_written_or_not_at_all() {
        let index = sample();
        let bytes = index.encode();
        let decode = |bytes: &[u8]| SegmentIndex::decode(&Bytes::copy_from_slice(bytes));
        let mut stored = decode(&bytes).expect("whole");
        assert_eq!(stored.encode(), bytes);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_none(), "bit {bit}");
        }
        // One that was read goes on as the one that was written.
        let mut index = index;
        for (n, topic) in ["rare/a", "new", "usual/b"].into_iter().enumerate() {
            let n = n as u64;
            let batch = batch(47 + n, 140 + n, topic, 9000);
            let position = index.summary().size;
            index.add(position, &batch);
            stored.add(position, &batch);
        }
        assert_eq!(stored.encode(), index.encode());
    }
}
