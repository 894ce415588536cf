//! Made-up histories for the tests of the invariants: one consumer (7), one partition (0) unless
//! said otherwise, topic 0, connection 1; records are numbered as they are sent.

use aklight_common::{BrokerId, Offset, PartitionId};

use crate::{Event, Limits, Once, Oracle, Outcome, RecordId, Rule, Seen};

pub(crate) const SETTLE_US: u64 = 1000;
const CONSUMER: u32 = 7;

pub(crate) struct Story {
    events: Vec<Event>,
    keys: Vec<u32>,
    equal_ends: bool,
}

/// A sight of a record with key 1.
pub(crate) fn seen(offset: u64, record: u64) -> Seen {
    Seen {
        partition: PartitionId(0),
        offset: Offset(offset),
        record: RecordId(record),
        key: u32::try_from(record).expect("small") + 1,
        topic: 0,
    }
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { events: Vec::new(), keys: Vec::new(), equal_ends: true }
    }

    pub(crate) fn tell(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    fn send(mut self, record: u64, key: u32, once: bool) -> Self {
        if usize::try_from(record).expect("small") == self.keys.len() {
            self.keys.push(key);
        }
        let once = once.then_some(Once { producer: 1, sequence: record + 1 });
        let record = RecordId(record);
        self.tell(Event::Sent { record, connection: 1, key, topic: 0, once })
    }

    pub(crate) fn sent(self, key: u32) -> Self {
        let record = self.keys.len() as u64;
        self.send(record, key, false)
    }

    pub(crate) fn once(self, key: u32) -> Self {
        let record = self.keys.len() as u64;
        self.send(record, key, true)
    }

    pub(crate) fn again(self, record: u64) -> Self {
        let key = self.key(record);
        self.send(record, key, true)
    }

    fn key(&self, record: u64) -> u32 {
        self.keys.get(usize::try_from(record).expect("small")).copied().unwrap_or(0)
    }

    fn answered(self, record: u64, outcome: Outcome) -> Self {
        self.tell(Event::Answered { record: RecordId(record), outcome, at_us: 0 })
    }

    pub(crate) fn acked(self, record: u64, offset: u64) -> Self {
        self.acked_in(0, record, offset)
    }

    pub(crate) fn acked_in(self, partition: u32, record: u64, offset: u64) -> Self {
        self.answered(record, Outcome::Acked(PartitionId(partition), Offset(offset)))
    }

    pub(crate) fn refused(self, record: u64) -> Self {
        self.answered(record, Outcome::Refused)
    }

    pub(crate) fn unknown(self, record: u64) -> Self {
        self.answered(record, Outcome::Unknown)
    }

    fn sight(&self, offset: u64, record: u64) -> Seen {
        Seen { key: self.key(record), ..seen(offset, record) }
    }

    pub(crate) fn read(self, offset: u64, record: u64) -> Self {
        let seen = self.sight(offset, record);
        self.tell(Event::Read(seen))
    }

    pub(crate) fn registered(self, position: u64) -> Self {
        self.register(None, position)
    }

    pub(crate) fn registered_for(self, topics: &[u16], position: u64) -> Self {
        self.register(Some(topics.to_vec()), position)
    }

    fn register(self, topics: Option<Vec<u16>>, position: u64) -> Self {
        let positions = vec![(PartitionId(0), Offset(position))];
        self.tell(Event::Registered { consumer: CONSUMER, topics, positions })
    }

    pub(crate) fn delivered(self, offset: u64, record: u64) -> Self {
        let seen = self.sight(offset, record);
        self.tell(Event::Delivered { consumer: CONSUMER, seen })
    }

    pub(crate) fn acking(self, upto: u64) -> Self {
        let (partition, upto) = (PartitionId(0), Offset(upto));
        self.tell(Event::Acking { consumer: CONSUMER, partition, upto })
    }

    pub(crate) fn confirmed(self, upto: u64) -> Self {
        let (partition, offset) = (PartitionId(0), Offset(upto));
        self.acking(upto).tell(Event::Confirmed { consumer: CONSUMER, partition, upto: offset })
    }

    /// One broker's copy: these records from offset 0.
    pub(crate) fn copy(mut self, broker: u64, records: &[u64]) -> Self {
        let (broker, partition) = (BrokerId(broker), PartitionId(0));
        self = self.tell(Event::CopyBegins { broker, partition, start: Offset(0) });
        for (offset, record) in (0..).zip(records) {
            let seen = self.sight(offset, *record);
            self = self.tell(Event::Stored { broker, seen });
        }
        let end = Offset(records.len() as u64);
        self.tell(Event::CopyEnds { broker, partition, end })
    }

    /// The same copy of two brokers.
    pub(crate) fn copies(self, records: &[u64]) -> Self {
        self.copy(1, records).copy(2, records)
    }

    /// Copies of this story may end apart, and that is not what it is about.
    pub(crate) fn equal_ends(mut self, equal: bool) -> Self {
        self.equal_ends = equal;
        self
    }
}

/// The story breaks these promises, and no other.
pub(crate) fn expect(rules: &[Rule], story: Story) {
    let mut oracle = Oracle::new(Limits { settle_us_max: SETTLE_US });
    for event in &story.events {
        oracle.observe(event);
    }
    let (violations, _) = oracle.finish();
    let mut found: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    found.sort();
    found.dedup();
    if !story.equal_ends {
        found.retain(|rule| *rule != Rule::Replicas);
    }
    let mut rules = rules.to_vec();
    rules.sort();
    assert_eq!(found, rules, "{violations:#?}");
}
