//! A batch's records on their way to be MESSAGE lines: from where they stand in the batch straight into a
//! connection's bytes.

use aklight_common::matcher::Matcher;
use aklight_common::record::{BodyError, StoredRecords};
use aklight_common::wire::{ErrorCode, MessageLines, WireError};
use aklight_common::{Offset, Pattern};
use aklight_log::{Batch, StoredPart};
use memchr::memmem::Finder;

/// Which topics a FETCH wants.
pub struct Wanted {
    matcher: Matcher,
    /// The one topic, where there is only one: looking for it takes a part of the time of going through
    /// a batch's records.
    only: Option<Finder<'static>>,
}

impl Wanted {
    /// Those that a pattern matches.
    #[must_use]
    pub fn new(pattern: &Pattern) -> Self {
        let only = pattern.as_literal().map(|topic| Finder::new(topic).into_owned());
        Self { matcher: Matcher::new(pattern), only }
    }

    /// The one topic, where there is only one.
    #[must_use]
    pub fn only(&self) -> Option<&str> {
        self.only.as_ref().and_then(|only| std::str::from_utf8(only.needle()).ok())
    }

    /// Whether a topic is one of them.
    #[inline]
    #[must_use]
    pub fn has(&self, topic: &[u8]) -> bool {
        self.matcher.matches(topic)
    }

    /// Whether a batch or a part of one may have a record on one of them: it spells out each of its topics.
    #[must_use]
    pub fn may_be_in(&self, body: &[u8]) -> bool {
        self.only.as_ref().is_none_or(|only| only.find(body).is_some())
    }
}

/// The records of a batch that a FETCH wants, in order.
pub struct WantedRecords<'a> {
    wanted: &'a Wanted,
    records: StoredRecords<'a, Option<&'a [u8]>>,
    /// The offset of the next record.
    at: Offset,
}

/// How far a batch's records were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There is more.
    Some,
    /// To its end.
    All,
}

impl<'a> WantedRecords<'a> {
    /// From the batch's beginning.
    #[must_use]
    pub fn of(batch: &'a Batch, wanted: &'a Wanted) -> Self {
        Self { wanted, records: batch.stored_records(), at: batch.header.base_offset }
    }

    /// From a part's beginning.
    #[must_use]
    pub fn of_part(part: &'a StoredPart, wanted: &'a Wanted) -> Self {
        Self { wanted, records: part.stored_records(), at: part.base_offset }
    }

    /// Behind the last record that was looked at.
    #[must_use]
    pub const fn reached(&self) -> Offset {
        self.at
    }

    /// Writes records from `from` on until `room` are written or `out` is `full` long, and counts them off
    /// `room`.
    ///
    /// # Errors
    /// When what is stored does not decode.
    pub fn put(
        &mut self,
        lines: &mut MessageLines,
        from: Offset,
        room: &mut u64,
        full: usize,
        out: &mut Vec<u8>,
    ) -> Result<Written, WireError> {
        let wanted = self.wanted;
        while *room > 0 && out.len() < full {
            let name = |name| Some(wanted.has(name).then_some(name));
            let Some(record) = self.records.next(name) else { return Ok(Written::All) };
            let record = record.map_err(|error| no_record(&error))?;
            let offset = self.at;
            self.at = offset.next();
            if let Some(topic) = record.topic
                && offset >= from
            {
                lines.put(out, topic, offset, record.key, record.payload);
                *room -= 1;
            }
        }
        Ok(Written::Some)
    }
}

/// The error for a batch that is no batch.
pub fn no_record(error: &BodyError) -> WireError {
    ErrorCode::Internal.with(&format!("a stored batch does not decode: {error}"))
}
