//! What can happen: the words in which a history is told.
//!
//! Events of one client come in the order in which that client saw them, and a question before its
//! answer. Between clients no order is needed but this: what one client was told is observed before
//! what another does because of it.

use std::fmt;

use aklight_common::{BrokerId, Offset, PartitionId, RaftIndex, Term};

/// A record, by the number that its producer wrote into its payload.
///
/// Numbers are given out from 0 without gaps, in the order in which records are first sent: the
/// table of records is a plain vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

impl RecordId {
    const FOREIGN: u64 = 1 << 63;

    /// A record that somebody else produced, named by a digest of its content: it must stay what
    /// it is and where it is, and nothing more is known of it.
    #[must_use]
    pub const fn foreign(digest: u64) -> Self {
        Self(digest | Self::FOREIGN)
    }

    /// Whether somebody else produced it.
    #[must_use]
    pub const fn is_foreign(self) -> bool {
        self.0 & Self::FOREIGN != 0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_foreign() {
            write!(f, "somebody else's record {:x}", self.0 & !Self::FOREIGN)
        } else {
            write!(f, "record {}", self.0)
        }
    }
}

/// The name of a record sent by PRODUCE_ONCE: told, not kept, for the record's own number stands
/// for it. Who sends the same name again uses the same [`RecordId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Once {
    /// Who produces.
    pub producer: u32,
    /// Its own number for the record.
    pub sequence: u64,
}

/// What a producer was told about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, and where.
    Acked(PartitionId, Offset),
    /// It is not stored, now or ever: `busy`, `too_large` and their like.
    Refused,
    /// Nobody knows: `unavailable`, a lost connection, no answer.
    Unknown,
}

/// A record as somebody read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub partition: PartitionId,
    /// Where in it.
    pub offset: Offset,
    /// Which record its payload says it is.
    pub record: RecordId,
    /// Its key, as the harness numbers keys.
    pub key: u32,
    /// Its topic, as the harness numbers topics.
    pub topic: u16,
}

/// Something that happened. Times are microseconds of the harness's own monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record goes out; again, with the same number, when PRODUCE_ONCE repeats it.
    Sent {
        /// Which.
        record: RecordId,
        /// On which connection; a new one has a new number.
        connection: u32,
        /// The number of its key; records of one connection with one key keep their order. 0 for
        /// a record without a key.
        key: u32,
        /// The number of its topic.
        topic: u16,
        /// Its name, if it is sent by PRODUCE_ONCE.
        once: Option<Once>,
    },
    /// What became of it.
    Answered {
        /// Which.
        record: RecordId,
        /// What was said.
        outcome: Outcome,
        /// When.
        at_us: u64,
    },
    /// A reader got a record, by FETCH or LAST, or by a subscription of no persistent consumer.
    Read(Seen),
    /// A persistent consumer is registered, for the first time or again.
    Registered {
        /// Which.
        consumer: u32,
        /// The topics it subscribes to; `None` for all.
        topics: Option<Vec<u16>>,
        /// What the broker answered: for each partition the next offset not acknowledged.
        positions: Vec<(PartitionId, Offset)>,
    },
    /// A persistent consumer was sent a record.
    Delivered {
        /// Which.
        consumer: u32,
        /// What.
        seen: Seen,
    },
    /// A persistent consumer sends an acknowledgement up to and with an offset.
    Acking {
        /// Which.
        consumer: u32,
        /// Where.
        partition: PartitionId,
        /// How far.
        upto: Offset,
    },
    /// A PONG came after such an acknowledgement: it is done.
    Confirmed {
        /// Which.
        consumer: u32,
        /// Where.
        partition: PartitionId,
        /// How far.
        upto: Offset,
    },
    /// Somebody asks for the ends of the partitions (CLUSTER).
    EndsAsked {
        /// A number for the question.
        question: u64,
    },
    /// A broker says where a partition ends.
    EndSeen {
        /// Which broker.
        broker: BrokerId,
        /// How often it was started: what it says never goes back within one life.
        life: u32,
        /// Which partition.
        partition: PartitionId,
        /// Where it ends.
        end: Offset,
        /// The question that this answers; `None` where no question was asked that must be
        /// answered freshly (a metric, say).
        question: Option<u64>,
    },
    /// A broker was seen to lead.
    Led {
        /// The group's number: 0 for the metadata, partition 0 is 1.
        group: u32,
        /// In which term.
        term: Term,
        /// Who.
        broker: BrokerId,
    },
    /// A broker applied an entry. Told by those who can look inside.
    Applied {
        /// Which broker.
        broker: BrokerId,
        /// The group's number.
        group: u32,
        /// Which entry.
        index: RaftIndex,
        /// Of its content.
        digest: u64,
    },
    /// Everything that was broken is whole again, and clients go on.
    Healed {
        /// When.
        at_us: u64,
    },
    /// All replicas of all partitions hold the same, new records are acknowledged, and persistent
    /// consumers have caught up.
    Settled {
        /// When.
        at_us: u64,
    },
    /// In the end: a replica's records begin here. `Stored` follows for each record in order, and
    /// then `CopyEnds`.
    CopyBegins {
        /// Whose replica.
        broker: BrokerId,
        /// Of which partition.
        partition: PartitionId,
        /// The first offset that it holds; what is before it was forgotten by retention.
        start: Offset,
    },
    /// In the end: a replica holds a record.
    Stored {
        /// Whose replica.
        broker: BrokerId,
        /// What and where.
        seen: Seen,
    },
    /// In the end: a replica's records end.
    CopyEnds {
        /// Whose replica.
        broker: BrokerId,
        /// Of which partition.
        partition: PartitionId,
        /// The next offset to be written.
        end: Offset,
    },
}

impl Event {
    /// The record that somebody read, delivered or stored.
    #[must_use]
    pub const fn seen(&self) -> Option<&Seen> {
        match self {
            Self::Read(seen) | Self::Delivered { seen, .. } | Self::Stored { seen, .. } => {
                Some(seen)
            }
            _ => None,
        }
    }
}
