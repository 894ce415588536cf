//! The limits that more than one crate must agree on, each with its reason.

/// Longest line of the protocol, in bytes without its newline. Brokers take another with
/// `--max-line`. Source: the protocol's page.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Longest topic or pattern in bytes. One byte holds the length in a stored record.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Most levels of a topic or pattern; bounds the depth of every walk over the topic tree.
pub const TOPIC_LEVELS_MAX: usize = 32;

/// Longest id of a producer or a consumer, in bytes: an id is one level of a topic, and
/// `metrics/docker/{id}/{container}/{metric}` must still fit into a topic.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// How far below its highest sequence a producer may still repeat one; a client therefore
/// keeps no more than this many records unanswered. Source: the protocol's page.
pub const SEQUENCE_WINDOW: u64 = 8192;

/// Records that a FETCH without a number of its own answers with.
pub const FETCH_RECORDS_DEFAULT: u64 = 1000;

/// Most records that one FETCH may ask for: keeps one listing from blocking its connection
/// for longer than a second or so on a slow line.
pub const FETCH_RECORDS_MAX: u64 = 100_000;

/// Longest time that a FETCH may wait for its first record, in milliseconds: long enough to
/// spare idle pollers, short enough that a dead one is noticed within minutes.
pub const FETCH_WAIT_MS_MAX: u64 = 300_000;
