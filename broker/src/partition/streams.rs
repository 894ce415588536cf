//! Which stream of another broker may still bring records.
//!
//! A broker passes records on over one stream at a time. When it breaks, it begins another one, and
//! what was on its way over the old one must not come in behind what the new one brings: records of
//! one connection would change places. So each stream gets a number when it begins, and only the
//! newest of a broker counts; and it counts only in the term in which it began, because a broker
//! that leads again could otherwise take in what others have overtaken.
//!
//! A stream of which one batch was sent back is at its end as well: what followed that batch must
//! not be stored before it.

use std::collections::HashMap;

use aklight_common::{BrokerId, Term};
use parking_lot::Mutex;

/// A stream of records from another broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId {
    from: BrokerId,
    number: u64,
    /// The term in which it began: its records are appended in no other.
    pub(super) term: Term,
}

/// The streams of one partition. As many entries as brokers have ever passed records on: few.
#[derive(Debug, Default)]
pub(super) struct Streams {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    newest: HashMap<BrokerId, u64>,
}

impl Streams {
    /// Begins a stream of a broker, which ends the one before it.
    pub(super) fn begin(&self, from: BrokerId, term: Term) -> StreamId {
        let mut state = self.state.lock();
        state.begun += 1;
        let number = state.begun;
        state.newest.insert(from, number);
        StreamId { from, number, term }
    }

    /// Ends a stream: nothing more comes in over it.
    pub(super) fn end(&self, stream: StreamId) {
        let mut state = self.state.lock();
        if state.newest.get(&stream.from) == Some(&stream.number) {
            state.newest.remove(&stream.from);
        }
    }

    /// Whether a stream may bring records.
    pub(super) fn is_open(&self, stream: StreamId) -> bool {
        self.state.lock().newest.get(&stream.from) == Some(&stream.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_stream_of_a_broker_is_open_until_it_is_ended() {
        let streams = Streams::default();
        let other = streams.begin(BrokerId(2), Term(1));
        let first = streams.begin(BrokerId(1), Term(1));
        assert!(streams.is_open(first));
        let second = streams.begin(BrokerId(1), Term(1));
        assert!(!streams.is_open(first) && streams.is_open(second) && streams.is_open(other));
        streams.end(first);
        assert!(streams.is_open(second), "the end of an old one is nothing to the new one");
        streams.end(second);
        assert!(!streams.is_open(second) && streams.is_open(other));
    }
}
