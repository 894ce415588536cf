//! Questions about the log that are answered by its indexes: where a topic, a moment or an entry
//! is, what a purge would take away, what has grown too old.
//!
//! None of them fails for damage: an answer is then a lower bound, and the read that follows it
//! reports what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex};

use crate::errors::ReadError;
use crate::format::{Batch, BatchKind};
use crate::index::SegmentIndex;
use crate::options::Retention;
use crate::segment::{Inside, Segment, SegmentName};
use crate::state::Shared;

/// How many records of each topic.
pub type TopicCounts = BTreeMap<String, u64>;

/// Bytes that are read at once while counting what no index counts.
const COUNT_BYTES: usize = 1 << 20;

/// [`Log::next_with_topics`](crate::Log::next_with_topics) for one who goes through the log: which of
/// a segment's blocks have a wanted topic is found out once a segment, and not each time. That takes a
/// look at all of its topics, and pays from when a wanted one was found to be seldom: where the next
/// block has one, the first such topic answers. A single topic is looked up at once.
pub struct TopicSearch<'a> {
    shared: &'a Shared,
    wanted: &'a (dyn Fn(&str) -> bool + Sync),
    only: Option<&'a str>,
    is_seldom: bool,
    known: Option<Known>,
}

/// A segment's blocks that have a wanted topic, as far as the segment went then. Damage that was met
/// since counts the blocks anew.
struct Known {
    segment: SegmentName,
    damages: usize,
    upto: Offset,
    blocks: Vec<usize>,
}

impl Known {
    fn of(segment: SegmentName, index: &SegmentIndex, blocks: Vec<usize>) -> Self {
        let (damages, upto) = (index.damages().len(), index.summary().end_offset);
        Self { segment, damages, upto, blocks }
    }

    fn is_of(&self, segment: SegmentName, index: &SegmentIndex, to: Offset) -> bool {
        self.segment == segment
            && self.damages == index.damages().len()
            && self.upto >= to.min(index.summary().end_offset)
    }
}

impl<'a> TopicSearch<'a> {
    pub(crate) const fn new(shared: &'a Shared, wanted: &'a (dyn Fn(&str) -> bool + Sync)) -> Self {
        Self { shared, wanted, only: None, is_seldom: false, known: None }
    }

    /// The same where this is the one topic that is wanted: it is looked up, and no other looked at.
    #[must_use]
    pub fn only(self, topic: &'a str) -> Self {
        Self { only: Some(topic), ..self }
    }

    /// A lower bound of the first offset in the range that has a wanted topic; `to` when there is
    /// none. Nothing before `to` may change meanwhile.
    pub fn next(&mut self, from: Offset, to: Offset) -> Offset {
        let Self { shared, wanted, only, is_seldom, known } = self;
        shared.next_by(from, to, &mut |segment, index, at| {
            if only.is_none() && !*is_seldom {
                let found = index.next_with_topics(at, *wanted);
                *is_seldom = found != Some(at);
                return found;
            }
            let segment = segment.name;
            let known = match known.as_mut().filter(|known| known.is_of(segment, index, to)) {
                Some(known) => known,
                None => known.insert(Known::of(
                    segment,
                    index,
                    match only {
                        Some(topic) => index.blocks_with_topic(topic),
                        None => index.blocks_with(*wanted),
                    },
                )),
            };
            index.next_in(&known.blocks, at)
        })
    }
}

impl Shared {
    pub(crate) fn next_with_topics(
        &self,
        from: Offset,
        to: Offset,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Offset {
        self.next_by(from, to, &mut |_, index, at| index.next_with_topics(at, wanted))
    }

    /// Asks the index of each segment in turn.
    fn next_by(
        &self,
        from: Offset,
        to: Offset,
        ask: &mut dyn FnMut(&Segment, &SegmentIndex, Offset) -> Option<Offset>,
    ) -> Offset {
        let from = from.max(self.state.read().start_offset());
        for segment in self.segments_from(from) {
            if segment.base_offset >= to {
                return to.max(from);
            }
            let at = from.max(segment.base_offset);
            if let Inside::Open(index) = &*segment.inside.read() {
                // What is behind is not written, and so not indexed yet.
                let found = ask(&segment, index, at).unwrap_or(index.summary().end_offset);
                return found.max(at).min(to.max(from));
            }
            let found = match self.indexes.get(&*self.disk, &segment) {
                Ok(index) => ask(&segment, &index, at),
                Err(_) => Some(at),
            };
            let damaged = segment
                .damages
                .lock()
                .iter()
                .filter(|d| d.resume > at)
                .map(|d| d.from.max(at))
                .min();
            if let Some(found) = found.into_iter().chain(damaged).min() {
                return found.min(to.max(from));
            }
        }
        to.max(from)
    }

    /// The segments from the one that holds an offset on.
    fn segments_from(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let state = self.state.read();
        let behind = state.segments.partition_point(|segment| segment.base_offset <= offset);
        state.segments.range(behind.saturating_sub(1)..).cloned().collect()
    }

    pub(crate) fn offset_at_time(&self, time_us: u64) -> Offset {
        let start = self.state.read().start_offset();
        let is_late = |batch: &Batch| {
            batch.header.kind == BatchKind::Records && batch.header.last_time_us >= time_us
        };
        for segment in self.segments_from(start) {
            if segment.summary().time_us_max < time_us {
                continue;
            }
            let block = self.look(&segment, |index| index.block_of_time(time_us));
            let Some(block) = block.flatten() else { return segment.base_offset.max(start) };
            return match self.first_in_block(&segment, block, is_late) {
                Ok(Some(batch)) => first_record_at(&batch, time_us).max(start),
                Ok(None) | Err(_) => block.base_offset.max(start),
            };
        }
        let state = self.state.read();
        let in_tail = state.tail.all().find(|batch| is_late(batch));
        in_tail.map_or(state.end_offset, |batch| first_record_at(batch, time_us)).max(start)
    }

    /// Asks a segment's index; `None` where it cannot be read.
    pub(crate) fn look<T>(&self, segment: &Segment, ask: impl Fn(&SegmentIndex) -> T) -> Option<T> {
        if let Inside::Open(index) = &*segment.inside.read() {
            return Some(ask(index));
        }
        self.indexes.get(&*self.disk, segment).ok().map(|index| ask(&index))
    }

    pub(crate) fn offset_of(&self, index: RaftIndex) -> Option<Offset> {
        {
            let state = self.state.read();
            if index < state.first_index() || state.last.is_none_or(|last| index > last.1) {
                return None;
            }
            if let Some(mut batches) = state.tail.since_index(index) {
                return batches.next().map(|batch| batch.header.base_offset);
            }
        }
        {
            let read = self.last_read.lock();
            if let Ok(place) = read.binary_search_by_key(&index, |(index, _)| *index) {
                return Some(read[place].1);
            }
        }
        self.batch_at(index).ok()?.map(|batch| batch.header.base_offset)
    }

    pub(crate) fn topic_counts_before(&self, upto: RaftIndex) -> Result<TopicCounts, ReadError> {
        let mut counts = TopicCounts::new();
        let (segments, first, end) = {
            let state = self.state.read();
            let end = state.last.map_or(state.first_index(), |last| last.1.next());
            let segments: Vec<_> = state.segments.iter().cloned().collect();
            (segments, state.first_index(), end.min(upto.next()))
        };
        for (place, segment) in segments.iter().enumerate() {
            let from = segment.first_index().max(first);
            let next = segments.get(place + 1).map_or(end, |next| next.first_index()).min(end);
            if from >= next {
                continue;
            }
            let is_whole = segment.is_sealed()
                && from == segment.first_index()
                && segment.summary().next_index <= next;
            if is_whole && let Ok(index) = self.indexes.get(&*self.disk, segment) {
                for (topic, records) in index.topic_counts() {
                    add(&mut counts, topic, records);
                }
                continue;
            }
            self.count_between(from, next, &mut counts)?;
        }
        Ok(counts)
    }

    /// Counts by reading, around damage.
    fn count_between(
        &self,
        mut from: RaftIndex,
        to: RaftIndex,
        counts: &mut TopicCounts,
    ) -> Result<(), ReadError> {
        while from < to {
            let batches = match self.read_indexes(from, to, COUNT_BYTES) {
                Ok(batches) => batches,
                Err(ReadError::Damaged { resume_index, .. }) if resume_index > from => {
                    from = resume_index;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = batches.last() else { break };
            from = last.header.index.next();
            for record in batches.iter().flat_map(Batch::records).flatten() {
                add(counts, record.topic, 1);
            }
        }
        Ok(())
    }

    pub(crate) fn expired(&self, now_us: u64, retention: &Retention) -> Option<RaftIndex> {
        let state = self.state.read();
        let summaries: Vec<_> = state.segments.iter().map(|segment| segment.summary()).collect();
        let mut kept_bytes: u64 = state.segments.iter().map(|segment| segment.stored_bytes()).sum();
        let sealed = state.segments.iter().zip(&summaries).filter(|(s, _)| s.is_sealed());
        let mut expired = None;
        for (segment, summary) in sealed {
            let too_much = retention.bytes.is_some_and(|bytes_max| kept_bytes > bytes_max);
            let too_old = retention
                .age_us
                .is_some_and(|age_us| summary.time_us_max.saturating_add(age_us) < now_us);
            if !too_much && !too_old {
                break;
            }
            kept_bytes -= segment.stored_bytes();
            expired = summary.next_index.0.checked_sub(1).map(RaftIndex);
        }
        expired.filter(|index| *index >= state.first_index())
    }

    /// One entry.
    pub(crate) fn batch_at(&self, index: RaftIndex) -> Result<Option<Batch>, ReadError> {
        Ok(self.read_indexes(index, index.next(), 0)?.into_iter().next())
    }
}

fn add(counts: &mut TopicCounts, topic: &str, records: u64) {
    match counts.get_mut(topic) {
        Some(count) => *count += records,
        None => {
            counts.insert(topic.to_owned(), records);
        }
    }
}

/// The first record of a batch that is not older.
fn first_record_at(batch: &Batch, time_us: u64) -> Offset {
    let base = batch.header.base_offset;
    let times = batch.records().map_while(Result::ok).map(|record| record.time_us);
    let older = times.take_while(|time| *time < time_us).count();
    Offset(base.0 + (older as u64).min(u64::from(batch.header.records)))
}
