//! Records as they stand in a body, read with no more work than the reader needs.
//!
//! A reader says what it makes of a topic's name: text, a number of its own, nothing where the topic
//! is not wanted. It is asked where the name is spelled out; records that name the topic by its ordinal
//! get what was made of it then.

use super::{BEGINS_PART, BodyError, HAS_SEQUENCE, NAMES_MAX, Once, SPELLS_PRODUCER, SPELLS_TOPIC};

/// A record as it stands in a body, with what its reader made of the topic's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a, T> {
    /// When the broker took it in, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// The topic.
    pub topic: T,
    /// The key, unescaped.
    pub key: &'a [u8],
    /// The payload, unescaped.
    pub payload: &'a [u8],
    /// Set for records of PRODUCE_ONCE.
    pub once: Option<Once<'a>>,
}

/// Reads a body's records, in order; ends after the first error.
#[derive(Debug, Clone)]
pub struct StoredRecords<'a, T> {
    rest: Rest<'a>,
    len: usize,
    first_time_us: u64,
    topics: Vec<T>,
    producers: Vec<&'a str>,
}

impl<'a, T: Copy> StoredRecords<'a, T> {
    /// Reads `bytes`, the body of a batch whose first record has time `first_time_us`.
    #[must_use]
    pub fn new(bytes: &'a [u8], first_time_us: u64) -> Self {
        Self {
            rest: Rest(bytes),
            len: bytes.len(),
            first_time_us,
            topics: Vec::new(),
            producers: Vec::new(),
        }
    }

    /// Where in the body the next record begins.
    #[inline]
    #[must_use]
    pub fn at(&self) -> usize {
        self.len - self.rest.0.len()
    }

    /// Whether the next record is the first of a part, but of the body's first one.
    #[inline]
    #[must_use]
    pub fn begins_part(&self) -> bool {
        self.rest.0.first().is_some_and(|flags| flags & BEGINS_PART != 0)
    }

    /// The next record; `name` says what a name that is spelled out is to the reader, and nothing
    /// where it is none.
    #[inline]
    pub fn next(
        &mut self,
        name: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Option<Result<Stored<'a, T>, BodyError>> {
        if self.rest.0.is_empty() {
            return None;
        }
        let read = self.read(name);
        let at = self.at();
        if read.is_none() {
            self.rest = Rest(&[]);
        }
        Some(read.ok_or(BodyError { at }))
    }

    #[inline]
    fn read(&mut self, name: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<Stored<'a, T>> {
        let flags = self.rest.byte()?;
        if flags & !(SPELLS_TOPIC | HAS_SEQUENCE | SPELLS_PRODUCER | BEGINS_PART) != 0 {
            return None;
        }
        if flags & BEGINS_PART != 0 {
            self.topics.clear();
            self.producers.clear();
        }
        let time_us = self.first_time_us.checked_add(self.rest.varint()?)?;
        let topic = if flags & SPELLS_TOPIC == 0 {
            let ordinal = usize::try_from(self.rest.varint()?).ok()?;
            *self.topics.get(ordinal)?
        } else {
            let len = usize::from(self.rest.byte()?);
            let topic = name(self.rest.take(len)?)?;
            remember(&mut self.topics, topic);
            topic
        };
        let once = if flags & HAS_SEQUENCE == 0 { None } else { Some(self.once(flags)?) };
        let key = self.rest.sized()?;
        let payload = self.rest.sized()?;
        Some(Stored { time_us, topic, key, payload, once })
    }

    fn once(&mut self, flags: u8) -> Option<Once<'a>> {
        let producer = if flags & SPELLS_PRODUCER == 0 {
            let ordinal = usize::try_from(self.rest.varint()?).ok()?;
            *self.producers.get(ordinal)?
        } else {
            let len = usize::from(self.rest.byte()?);
            let id = std::str::from_utf8(self.rest.take(len)?).ok()?;
            remember(&mut self.producers, id);
            id
        };
        Some(Once { producer, sequence: self.rest.varint()? })
    }
}

fn remember<T>(names: &mut Vec<T>, name: T) {
    if names.len() < NAMES_MAX {
        names.push(name);
    }
}

/// What is not read yet.
#[derive(Debug, Clone)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// Nearly all numbers are of one byte or two.
    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        match *self.0 {
            [second @ ..0x80, ref rest @ ..] => {
                self.0 = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(first),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
