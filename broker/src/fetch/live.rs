//! What is pushed: a connection's subscriptions, each with its place in every partition.
//!
//! All subscriptions of a connection share one walk over the log. A record is sent once, however
//! many patterns match it, and a subscription that starts further back (a persistent consumer's
//! second pattern) gets its older records without the others getting theirs again:
//!
//! ```text
//! start ≤ next ≤ high watermark        of each subscription, in each partition
//! ```
//!
//! A record is due to a subscription when it matches and `next` has not passed it; it was sent
//! before when it matches another one whose `start` and `next` lie around it.

use aklight_common::tree::PatternTree;
use aklight_common::wire::WireError;
use aklight_common::{Offset, PartitionId, Pattern};
use aklight_log::Batch;

use super::lines::no_record;
use super::outbox::Outbox;
use super::reader::{self, Gap, Sink};
use super::shared::{BatchLines, Numbers, SharedLines};
use crate::partition::{Partition, Partitions};

/// Most patterns of one connection: each costs some bytes a partition and a branch of a tree.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

#[derive(Debug, Clone)]
struct Place {
    start: Vec<Offset>,
    next: Vec<Offset>,
}

/// The subscriptions of one connection.
#[derive(Default)]
pub struct Live {
    places: PatternTree<Place>,
    patterns: Vec<Pattern>,
    // The lowest `next` of any subscription, by partition: where the walk goes on.
    walk: Vec<Offset>,
    // Behind the last offset that this connection was ever walked over, by partition.
    seen: Vec<Offset>,
    // No `next` of any subscription lies behind it, by partition.
    furthest: Vec<Offset>,
    decided: Decided,
    // Of what no other subscriber is expected to come to.
    numbers: Numbers,
}

/// For which topics there is a subscription, by their numbers.
#[derive(Default)]
struct Decided {
    numbering: Option<u64>,
    wanted: Vec<Option<bool>>,
}

impl Decided {
    fn follow(&mut self, numbering: u64) {
        if self.numbering != Some(numbering) {
            *self = Self { numbering: Some(numbering), wanted: Vec::new() };
        }
    }

    fn is_wanted(&mut self, topic: u32, decide: impl FnOnce() -> bool) -> bool {
        let topic = topic as usize;
        match self.wanted.get(topic) {
            Some(Some(wanted)) => *wanted,
            _ => {
                let wanted = decide();
                self.wanted.resize(self.wanted.len().max(topic + 1), None);
                self.wanted[topic] = Some(wanted);
                wanted
            }
        }
    }
}

/// What a round of pushing came to.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Records sent.
    pub records: u64,
    /// Whether there is more to send at once.
    pub more: bool,
    /// Places where the log could not be read and was passed over.
    pub gaps: Vec<Gap>,
}

impl Live {
    /// Whether nothing is subscribed to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// How many patterns are subscribed to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Where a consumer stands that acknowledges an offset of a partition: behind it, but never
    /// ahead of what a second pattern is still owed. An offset that this connection has not come to
    /// yet was sent over an earlier one; with a single pattern nothing before it is owed any more,
    /// and it is not sent again.
    pub fn acknowledge(&mut self, partition: PartitionId, offset: Offset) -> Offset {
        let (at, next) = (partition.0 as usize, offset.next());
        if self.is_empty() {
            return next;
        }
        if self.patterns.len() == 1 && next > self.seen[at] {
            self.reach(at, next);
        }
        next.min(self.walk[at])
    }

    /// Adds a pattern from these offsets on. One that is there already keeps its place.
    pub fn subscribe(&mut self, pattern: Pattern, start: Vec<Offset>) {
        if self.places.get(&pattern).is_some() {
            return;
        }
        if self.patterns.is_empty() {
            self.walk.clone_from(&start);
            self.seen.resize(start.len(), Offset(0));
            self.furthest = vec![Offset(0); start.len()];
        }
        self.decided = Decided::default();
        for (walk, start) in self.walk.iter_mut().zip(&start) {
            *walk = (*walk).min(*start);
        }
        for (furthest, start) in self.furthest.iter_mut().zip(&start) {
            *furthest = (*furthest).max(*start);
        }
        self.places.insert(&pattern, Place { next: start.clone(), start });
        self.patterns.push(pattern);
    }

    /// Takes a pattern away.
    pub fn unsubscribe(&mut self, pattern: &Pattern) {
        self.places.remove(pattern);
        self.patterns.retain(|kept| kept != pattern);
        self.decided = Decided::default();
    }

    /// How many records lie before the high watermarks that were not looked at yet.
    #[must_use]
    pub fn behind(&self, partitions: &Partitions) -> u64 {
        let ends = partitions.iter().map(Partition::end);
        ends.zip(&self.walk).map(|(end, walk)| end.0.saturating_sub(walk.0)).sum()
    }

    /// Hands what is due to `sink`, about one read of each partition.
    ///
    /// # Errors
    /// When the log cannot be read at all.
    pub fn push(&mut self, partitions: &Partitions, sink: Sink<'_>) -> Result<Pushed, WireError> {
        self.walk(partitions, &mut |live, Found { at, partition, batch, from }| {
            live.show_due(at, partition.id, batch, from, sink)
        })
    }

    /// Puts what is due into `out`, as lines, about one read of each partition.
    ///
    /// # Errors
    /// When the log cannot be read at all.
    pub fn push_lines(
        &mut self,
        partitions: &Partitions,
        shared: &SharedLines,
        out: &mut Outbox,
    ) -> Result<Pushed, WireError> {
        let mut decided = std::mem::take(&mut self.decided);
        let mut numbers = std::mem::take(&mut self.numbers);
        let pushed = self.walk(partitions, &mut |live, Found { at, partition, batch, from }| {
            let lines = shared.of(partition.id, batch, partition.end(), &mut numbers);
            let lines = lines.map_err(|error| no_record(&error))?;
            Ok(live.share_due(at, &lines, from, &mut decided, out))
        });
        (self.decided, self.numbers) = (decided, numbers);
        pushed
    }

    /// Shows `take` each batch that may have something due, and where in it that begins.
    fn walk(
        &mut self,
        partitions: &Partitions,
        take: &mut dyn FnMut(&Self, Found<'_>) -> Result<u64, WireError>,
    ) -> Result<Pushed, WireError> {
        let mut pushed = Pushed::default();
        for (at, partition) in partitions.iter().enumerate() {
            let from = self.walk[at];
            let end = partition.end();
            if from < end {
                let reached = self.walk_partition(at, partition, from, end, take, &mut pushed)?;
                self.reach(at, reached);
                pushed.more |= reached < end;
            }
        }
        Ok(pushed)
    }

    fn walk_partition(
        &self,
        at: usize,
        partition: &Partition,
        from: Offset,
        end: Offset,
        take: &mut dyn FnMut(&Self, Found<'_>) -> Result<u64, WireError>,
        pushed: &mut Pushed,
    ) -> Result<Offset, WireError> {
        let wanted = |topic: &str| self.is_wanted(topic);
        let from = if reader::is_near(from, end) {
            from
        } else {
            partition.log.next_with_topics(from, end, &wanted)
        };
        let batches = match reader::read(partition, from, end)? {
            Ok(batches) => batches,
            Err(gap) => {
                let resume = gap.resume.max(from.next()).min(end);
                pushed.gaps.push(gap);
                return Ok(resume);
            }
        };
        let mut reached = if batches.is_empty() { end } else { from };
        for batch in &batches {
            pushed.records += take(self, Found { at, partition, batch, from })?;
            reached = batch.header.end_offset();
        }
        Ok(reached)
    }

    /// Hands the records of a batch that are due to `sink`.
    fn show_due(
        &self,
        at: usize,
        partition: PartitionId,
        batch: &Batch,
        from: Offset,
        sink: Sink<'_>,
    ) -> Result<u64, WireError> {
        let mut sent = 0;
        for record in reader::records(batch, from) {
            let (offset, record) = record?;
            if self.is_due(at, offset, record.topic) {
                sink(partition, offset, &record);
                sent += 1;
            }
        }
        Ok(sent)
    }

    /// Puts the lines of a batch that are due into `out`, in stretches as long as they come.
    fn share_due(
        &self,
        at: usize,
        lines: &BatchLines,
        from: Offset,
        decided: &mut Decided,
        out: &mut Outbox,
    ) -> u64 {
        decided.follow(lines.numbering());
        // Where no subscription is ahead of the walk, it is the topic alone that decides.
        let is_even = self.furthest[at] <= from;
        let mut is_due = |line: usize, topic| {
            let name = || lines.topic(line);
            if is_even {
                return decided.is_wanted(topic, || self.is_wanted(name()));
            }
            self.is_due(at, Offset(lines.base().0 + line as u64), name())
        };
        let first = from.0.saturating_sub(lines.base().0) as usize;
        let (mut sent, mut begin) = (0, None);
        for (line, topic) in lines.topics().enumerate().skip(first) {
            if is_due(line, topic) {
                sent += 1;
                begin.get_or_insert(line);
            } else if let Some(begin) = begin.take() {
                out.share(lines.text(), lines.start(begin)..lines.start(line));
            }
        }
        if let Some(begin) = begin {
            out.share(lines.text(), lines.start(begin)..lines.text().len());
        }
        sent
    }

    fn is_wanted(&self, topic: &str) -> bool {
        let mut any = false;
        self.places.matches(topic, &mut |_| any = true);
        any
    }

    fn is_due(&self, at: usize, offset: Offset, topic: &str) -> bool {
        let (mut due, mut sent) = (false, false);
        self.places.matches(topic, &mut |place| {
            due |= place.next[at] <= offset;
            sent |= place.start[at] <= offset && offset < place.next[at];
        });
        due && !sent
    }

    fn reach(&mut self, at: usize, reached: Offset) {
        self.walk[at] = reached;
        self.seen[at] = self.seen[at].max(reached);
        self.furthest[at] = self.furthest[at].max(reached);
        for pattern in &self.patterns {
            if let Some(place) = self.places.get_mut(pattern) {
                place.next[at] = place.next[at].max(reached);
            }
        }
    }
}

/// A batch that a walk came to.
struct Found<'a> {
    at: usize,
    partition: &'a Partition,
    batch: &'a Batch,
    from: Offset,
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};
    use std::time::Duration;

    use aklight_common::wire::Reply;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::AsyncWrite;

    use super::super::listing::message;
    use super::super::shared::tests::{batch, records};
    use super::*;

    /// Takes so many bytes of each write.
    struct Taking(usize, Arc<Mutex<Vec<u8>>>);

    impl AsyncWrite for Taking {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.0);
            self.1.lock().expect("no panic").extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let pattern = prop::sample::select(vec!["#", "a/#", "a/+", "+/b", "a/b", "c", "x/#"]);
        pattern.prop_map(|text| Pattern::new(text).expect("a pattern"))
    }

    proptest! {
        #[test]
        fn lines_are_sent_of_the_records_that_are_due(
            batches in vec(records(), 1..6),
            subscriptions in vec((pattern(), 0..60_u64, 0..6_usize), 1..5),
            gone in vec(any::<prop::sample::Index>(), 0..2),
            taken in 1..6_000_usize,
        ) {
            let mut live = Live::default();
            let (shared, got) = (Arc::new(SharedLines::default()), Arc::default());
            let _subscribers = [shared.join(), shared.join()];
            let mut out = Outbox::new(Box::new(Taking(taken, Arc::clone(&got))), Duration::MAX);
            let (mut expect, mut base) = (Vec::new(), 0);
            for (nth, records) in batches.iter().enumerate() {
                for (pattern, start, from) in &subscriptions {
                    // Some come later, when others have been walked over a part.
                    if *from == nth || nth == 0 {
                        live.subscribe(pattern.clone(), vec![Offset(*start)]);
                    }
                }
                if let Some(index) = gone.get(nth) {
                    live.unsubscribe(&index.get(&subscriptions).0);
                }
                let batch = batch(nth as u64, 1, base, records);
                base = batch.header.end_offset().0;
                // A walk begins where it ended last, or in the middle of a batch.
                let from = live.walk[0].min(batch.header.end_offset());
                let mut show = |partition, offset, record: &aklight_common::record::Record<'_>| {
                    let line: Reply<'_> = message(partition, offset, record);
                    line.encode(&mut expect);
                };
                let partition = PartitionId(3);
                let shown = live.show_due(0, partition, &batch, from, &mut show).expect("decodes");
                let mut decided = std::mem::take(&mut live.decided);
                // The second time they are made already.
                for is_sent in [false, true] {
                    let end = batch.header.end_offset();
                    let lines = shared.of(partition, &batch, end, &mut live.numbers);
                    if is_sent {
                        let lines = lines.expect("decodes");
                        let sent = live.share_due(0, &lines, from, &mut decided, &mut out);
                        prop_assert_eq!(sent, shown);
                    }
                }
                live.decided = decided;
                let reached = batch.header.end_offset().max(live.walk[0]);
                live.reach(0, reached);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(out.flush()).expect("it takes all");
            prop_assert!(out.is_empty());
            prop_assert_eq!(&*got.lock().expect("no panic"), &expect);
        }
    }
}
