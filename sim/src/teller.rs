//! Tells the oracle what happens, and gives out the numbers that a history needs.

use std::fmt::Write as _;
use std::sync::Arc;

use aklight_oracle::{Counts, Event, Limits, Once, Oracle, Outcome, RecordId, Violation};
use parking_lot::Mutex;

use crate::trace::Trace;

/// Longest time, in simulated microseconds, from the end of all trouble to a cluster that is well:
/// elections (2 s each, some in vain), clients that wait 8 s for an answer and pause before the
/// next try, and a copy that has to catch up.
pub const SETTLE_US_MAX: u64 = 90_000_000;

/// Tells a history. Clones share it.
#[derive(Clone)]
pub struct Teller {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

struct Inner {
    oracle: Oracle,
    text: String,
    records: u64,
    connections: u32,
    questions: u64,
    last_ack_us: u64,
}

impl Teller {
    /// A history that is empty yet.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        let inner = Inner {
            oracle: Oracle::new(Limits { settle_us_max: SETTLE_US_MAX }),
            text: String::new(),
            records: 0,
            connections: 0,
            questions: 0,
            last_ack_us: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), trace }
    }

    /// Something happened.
    pub fn observe(&self, event: &Event) {
        let mut inner = self.inner.lock();
        if let Event::Answered { outcome: Outcome::Acked(..), at_us, .. } = event {
            inner.last_ack_us = *at_us;
        }
        inner.text.clear();
        // Writing into a text never fails.
        let _ = write!(inner.text, "{event:?}");
        self.trace.note(&inner.text, &[]);
        let violations = inner.oracle.violations().len();
        inner.oracle.observe(event);
        for found in inner.oracle.violations().iter().skip(violations) {
            self.trace.tell(format_args!("VIOLATION {found}"));
        }
    }

    /// A record with a number of its own goes out.
    pub fn send(&self, connection: u32, key: u32, topic: u16, once: Option<Once>) -> RecordId {
        let record = {
            let mut inner = self.inner.lock();
            inner.records += 1;
            RecordId(inner.records - 1)
        };
        self.observe(&Event::Sent { record, connection, key, topic, once });
        record
    }

    /// A producer was told something.
    pub fn answered(&self, record: RecordId, outcome: Outcome) {
        self.observe(&Event::Answered { record, outcome, at_us: self.trace.now_us() });
    }

    /// The number of a new connection.
    pub fn connection(&self) -> u32 {
        let mut inner = self.inner.lock();
        inner.connections += 1;
        inner.connections
    }

    /// Somebody asks where partitions end: the number of the question.
    pub fn ask_ends(&self) -> u64 {
        let question = {
            let mut inner = self.inner.lock();
            inner.questions += 1;
            inner.questions
        };
        self.observe(&Event::EndsAsked { question });
        question
    }

    /// How late it is.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.trace.now_us()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.lock().oracle.counts()
    }

    /// When a record was last acknowledged.
    #[must_use]
    pub fn last_ack_us(&self) -> u64 {
        self.inner.lock().last_ack_us
    }

    /// The history is over: what it breaks, and how much more than that.
    #[must_use]
    pub fn finish(&self) -> (Vec<Violation>, u64) {
        let unused = Oracle::new(Limits { settle_us_max: SETTLE_US_MAX });
        std::mem::replace(&mut self.inner.lock().oracle, unused).finish()
    }
}
