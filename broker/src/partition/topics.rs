//! The topics of a partition: how many records each has, and where its newest one is.
//!
//! The topic tree holds the names, so that a pattern visits only what it can match; what is known of
//! each stands in a table, which takes a record a fraction of the way down the tree. Retention takes what
//! it drops out of the counts before it drops it, and up to which entry it has done so
//! (`subtracted_upto`) is kept with them: a crash between the two takes nothing out twice.

use std::collections::{BTreeMap, HashMap};

use aklight_common::tree::TopicTree;
use aklight_common::{Offset, Pattern, RaftIndex};
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// What is known of one topic in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStats {
    /// Records that are kept.
    pub records: u64,
    /// Offset of the newest one.
    pub last: u64,
    /// Time of the newest one, microseconds since the Unix epoch.
    pub last_time_us: u64,
}

#[derive(Debug, Default)]
struct State {
    names: TopicTree<()>,
    /// By the bytes of their names: those of stored records need not be checked again.
    stats: HashMap<Box<[u8]>, TopicStats, RandomState>,
    subtracted_upto: Option<RaftIndex>,
}

impl State {
    fn insert(&mut self, topic: &str, stats: TopicStats) {
        self.names.insert(topic, ());
        self.stats.insert(topic.as_bytes().into(), stats);
    }
}

/// A checkpoint's form of the topics.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SavedTopics {
    subtracted_upto: Option<u64>,
    topics: Vec<(String, TopicStats)>,
}

/// The topics of a partition.
#[derive(Debug, Default)]
pub struct Topics {
    state: RwLock<State>,
}

impl Topics {
    /// Counts committed records: their topics, offsets and times, in order.
    pub fn count<'a>(&self, records: impl Iterator<Item = (&'a [u8], Offset, u64)>) {
        let mut state = self.state.write();
        for (topic, offset, time_us) in records {
            let newest = TopicStats { records: 1, last: offset.0, last_time_us: time_us };
            match state.stats.get_mut(topic) {
                Some(stats) => *stats = TopicStats { records: stats.records + 1, ..newest },
                // No text is no topic: it was checked where it came in.
                None => std::str::from_utf8(topic).map_or((), |topic| state.insert(topic, newest)),
            }
        }
    }

    /// The topics that match, with what is known of them.
    #[must_use]
    pub fn matching(&self, pattern: &Pattern) -> Vec<(String, TopicStats)> {
        let mut found = Vec::new();
        let state = self.state.read();
        state.names.matching(pattern, &mut |topic, ()| {
            found.extend(state.stats.get(topic.as_bytes()).map(|stats| (topic.to_owned(), *stats)));
        });
        found
    }

    /// Time of the newest record, microseconds since the Unix epoch; 0 when there is none.
    #[must_use]
    pub fn newest_us(&self) -> u64 {
        let state = self.state.read();
        state.stats.values().map(|stats| stats.last_time_us).max().unwrap_or_default()
    }

    /// The last entry of the log whose records retention has taken out of the counts.
    #[must_use]
    pub fn subtracted_upto(&self) -> Option<RaftIndex> {
        self.state.read().subtracted_upto
    }

    /// Takes out what retention is about to drop with the entries up to and including `upto`.
    pub fn subtract(&self, dropped: &BTreeMap<String, u64>, upto: RaftIndex) {
        let mut state = self.state.write();
        for (topic, records) in dropped {
            let Some(stats) = state.stats.get_mut(topic.as_bytes()) else { continue };
            stats.records = stats.records.saturating_sub(*records);
            if stats.records == 0 {
                state.stats.remove(topic.as_bytes());
                state.names.remove(topic);
            }
        }
        state.subtracted_upto = Some(upto);
    }

    /// For a checkpoint.
    #[must_use]
    pub fn save(&self) -> SavedTopics {
        let state = self.state.read();
        let mut topics = Vec::new();
        state.names.for_each(&mut |topic, ()| {
            topics
                .extend(state.stats.get(topic.as_bytes()).map(|stats| (topic.to_owned(), *stats)));
        });
        SavedTopics { subtracted_upto: state.subtracted_upto.map(|index| index.0), topics }
    }

    /// From a checkpoint.
    pub fn restore(&self, saved: SavedTopics) {
        let mut state =
            State { subtracted_upto: saved.subtracted_upto.map(RaftIndex), ..State::default() };
        for (topic, stats) in saved.topics {
            state.insert(&topic, stats);
        }
        *self.state.write() = state;
    }
}
