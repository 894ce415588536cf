//! Which blocks of a segment have which topic.
//!
//! Of a segment that grows this is a table; of one whose sidecar was read it is the bytes that were
//! read, and where in them each topic is. Whoever goes through a day of segments looks into each for a
//! moment: a table of its thousand topics would be built, and thrown away.

use std::collections::HashMap;
use std::ops::Range;

use aklight_common::record::put_varint;
use bytes::Bytes;
use foldhash::fast::RandomState;

use super::{UNKNOWN_TOPIC, put_sized};
use crate::varint::Varints;

/// The topics of a segment.
#[derive(Debug, Clone)]
pub(super) enum Topics {
    Table(Table),
    Stored(Stored),
}

/// A topic's records: how many, and in which blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Postings<'a> {
    pub(super) records: u64,
    last_block: usize,
    /// Ordinals of blocks, rising: the first, then the steps between them, as varints.
    steps: &'a [u8],
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table(HashMap<Box<[u8]>, Growing, RandomState>);

#[derive(Debug, Clone, Default)]
struct Growing {
    records: u64,
    last_block: usize,
    steps: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    bytes: Bytes,
    places: Vec<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    name: Range<usize>,
    records: u64,
    last_block: usize,
    steps: Range<usize>,
}

impl Topics {
    pub(super) fn new() -> Self {
        Self::Table(Table::default())
    }

    /// Counts records of a topic in a block, which is the last one.
    ///
    /// Only a new name is looked at: what is no text is the topic that nobody knows.
    pub(super) fn count(&mut self, topic: &[u8], block: usize, records: u64) {
        match self {
            Self::Table(table) => table.count(topic, block, records),
            Self::Stored(stored) => {
                let mut table = Table::from(&*stored);
                table.count(topic, block, records);
                *self = Self::Table(table);
            }
        }
    }

    /// One topic.
    pub(super) fn get(&self, topic: &str) -> Option<Postings<'_>> {
        match self {
            Self::Table(table) => table.0.get(topic.as_bytes()).map(Growing::postings),
            Self::Stored(stored) => {
                stored.iter().find(|(name, _)| *name == topic).map(|(_, postings)| postings)
            }
        }
    }

    /// Each topic, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Postings<'_>)> {
        let (table, stored) = match self {
            Self::Table(table) => (Some(table), None),
            Self::Stored(stored) => (None, Some(stored)),
        };
        let of_table = table.into_iter().flat_map(Table::iter);
        of_table.chain(stored.into_iter().flat_map(Stored::iter))
    }

    /// Writes them, sorted, so that one segment has one sidecar.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        let mut topics: Vec<_> = self.iter().collect();
        topics.sort_unstable_by_key(|(topic, _)| *topic);
        put_varint(bytes, topics.len() as u64);
        for (topic, postings) in topics {
            put_sized(bytes, topic.as_bytes());
            put_varint(bytes, postings.records);
            put_varint(bytes, postings.last_block as u64);
            put_sized(bytes, postings.steps);
        }
    }

    /// Reads what [`Self::encode`] wrote; `numbers` reads to the end of `bytes`.
    pub(super) fn decode(bytes: &Bytes, numbers: &mut Varints<'_>) -> Option<Self> {
        let behind = |numbers: &Varints<'_>, len: usize| {
            let end = bytes.len() - numbers.left();
            end - len..end
        };
        let mut places = Vec::new();
        for _ in 0..numbers.next()? {
            let len = numbers.text()?.len();
            let name = behind(numbers, len);
            let records = numbers.next()?;
            let last_block = usize::try_from(numbers.next()?).ok()?;
            let len = numbers.sized()?.len();
            places.push(Place { name, records, last_block, steps: behind(numbers, len) });
        }
        Some(Self::Stored(Stored { bytes: bytes.clone(), places }))
    }
}

/// What is no text is the topic that nobody knows.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or(UNKNOWN_TOPIC)
}

impl Growing {
    fn postings(&self) -> Postings<'_> {
        let Self { records, last_block, steps } = self;
        Postings { records: *records, last_block: *last_block, steps }
    }
}

impl Table {
    fn count(&mut self, topic: &[u8], block: usize, records: u64) {
        let postings = match self.0.get_mut(topic) {
            Some(postings) => postings,
            None => self.0.entry(text(topic).as_bytes().into()).or_default(),
        };
        postings.records += records;
        if postings.steps.is_empty() || postings.last_block != block {
            put_varint(&mut postings.steps, (block - postings.last_block) as u64);
            postings.last_block = block;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Postings<'_>)> {
        self.0.iter().map(|(topic, growing)| (text(topic), growing.postings()))
    }
}

impl From<&Stored> for Table {
    fn from(stored: &Stored) -> Self {
        let growing = |(topic, postings): (&str, Postings<'_>)| {
            let Postings { records, last_block, steps } = postings;
            (topic.as_bytes().into(), Growing { records, last_block, steps: steps.to_vec() })
        };
        Self(stored.iter().map(growing).collect())
    }
}

impl Stored {
    fn iter(&self) -> impl Iterator<Item = (&str, Postings<'_>)> {
        self.places.iter().map(|Place { name, records, last_block, steps }| {
            let name = text(&self.bytes[name.clone()]);
            let steps = &self.bytes[steps.clone()];
            (name, Postings { records: *records, last_block: *last_block, steps })
        })
    }
}

impl<'a> Postings<'a> {
    /// The first block of the topic that is not before `block`.
    pub(super) fn first_from(self, block: usize) -> Option<usize> {
        if self.last_block < block {
            return None;
        }
        self.blocks().find(|at| *at >= block)
    }

    /// The blocks of the topic.
    pub(super) fn blocks(self) -> impl Iterator<Item = usize> + use<'a> {
        let mut steps = Varints::new(self.steps);
        let steps = std::iter::from_fn(move || steps.next());
        steps.scan(0_usize, |at, step| {
            *at += usize::try_from(step).unwrap_or(usize::MAX);
            Some(*at)
        })
    }
}
