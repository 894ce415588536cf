//! The topics of a partition: how many records each has, and where its newest one is.
//!
//! Kept in the topic tree, so that a pattern visits only what it can match. Retention takes what
//! it drops out of the counts before it drops it, and up to which entry it has done so
//! (`subtracted_upto`) is kept with them: a crash between the two takes nothing out twice.

use std::collections::BTreeMap;

use aklight_common::tree::TopicTree;
use aklight_common::{Offset, Pattern, RaftIndex};
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
    tree: TopicTree<TopicStats>,
    subtracted_upto: Option<RaftIndex>,
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
    pub fn count<'a>(&self, records: impl Iterator<Item = (&'a str, Offset, u64)>) {
        let mut state = self.state.write();
        for (topic, offset, time_us) in records {
            let newest = TopicStats { records: 1, last: offset.0, last_time_us: time_us };
            match state.tree.get_mut(topic) {
                Some(stats) => *stats = TopicStats { records: stats.records + 1, ..newest },
                None => {
                    state.tree.insert(topic, newest);
                }
            }
        }
    }

    /// The topics that match, with what is known of them.
    #[must_use]
    pub fn matching(&self, pattern: &Pattern) -> Vec<(String, TopicStats)> {
        let mut found = Vec::new();
        self.state.read().tree.matching(pattern, &mut |topic, stats| {
            found.push((topic.to_owned(), *stats));
        });
        found
    }

    /// Time of the newest record, microseconds since the Unix epoch; 0 when there is none.
    #[must_use]
    pub fn newest_us(&self) -> u64 {
        let mut newest = 0;
        self.state.read().tree.for_each(&mut |_, stats| newest = newest.max(stats.last_time_us));
        newest
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
            let gone = match state.tree.get_mut(topic) {
                Some(stats) => {
                    stats.records = stats.records.saturating_sub(*records);
                    stats.records == 0
                }
                None => false,
            };
            if gone {
                state.tree.remove(topic);
            }
        }
        state.subtracted_upto = Some(upto);
    }

    /// For a checkpoint.
    #[must_use]
    pub fn save(&self) -> SavedTopics {
        let state = self.state.read();
        let mut topics = Vec::new();
        state.tree.for_each(&mut |topic, stats| topics.push((topic.to_owned(), *stats)));
        SavedTopics { subtracted_upto: state.subtracted_upto.map(|index| index.0), topics }
    }

    /// From a checkpoint.
    pub fn restore(&self, saved: SavedTopics) {
        let mut state =
            State { subtracted_upto: saved.subtracted_upto.map(RaftIndex), ..State::default() };
        for (topic, stats) in saved.topics {
            state.tree.insert(&topic, stats);
        }
        *self.state.write() = state;
    }
}
