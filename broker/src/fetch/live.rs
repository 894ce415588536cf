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

use super::reader::{self, Gap, Sink};
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
        }
        for (walk, start) in self.walk.iter_mut().zip(&start) {
            *walk = (*walk).min(*start);
        }
        self.places.insert(&pattern, Place { next: start.clone(), start });
        self.patterns.push(pattern);
    }

    /// Takes a pattern away.
    pub fn unsubscribe(&mut self, pattern: &Pattern) {
        self.places.remove(pattern);
        self.patterns.retain(|kept| kept != pattern);
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
        let mut pushed = Pushed::default();
        for (at, partition) in partitions.iter().enumerate() {
            let from = self.walk[at];
            let end = partition.end();
            if from < end {
                let reached = self.push_partition(at, partition, from, end, sink, &mut pushed)?;
                self.reach(at, reached);
                pushed.more |= reached < end;
            }
        }
        Ok(pushed)
    }

    fn push_partition(
        &self,
        at: usize,
        partition: &Partition,
        from: Offset,
        end: Offset,
        sink: Sink<'_>,
        pushed: &mut Pushed,
    ) -> Result<Offset, WireError> {
        let wanted = |topic: &str| {
            let mut any = false;
            self.places.matches(topic, &mut |_| any = true);
            any
        };
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
            for record in reader::records(batch, from) {
                let (offset, record) = record?;
                if offset >= end {
                    break;
                }
                reached = offset.next();
                if self.is_due(at, offset, record.topic) {
                    sink(partition.id, offset, &record);
                    pushed.records += 1;
                }
            }
        }
        Ok(reached)
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
        for pattern in &self.patterns {
            if let Some(place) = self.places.get_mut(pattern) {
                place.next[at] = place.next[at].max(reached);
            }
        }
    }
}
