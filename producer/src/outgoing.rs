//! A record on its way to a broker.

/// What is sent, under the number that it keeps until a broker has answered for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The producer's number for it: never used for another.
    pub sequence: u64,
    /// Where it belongs.
    pub topic: String,
    /// What it is partitioned by.
    pub key: String,
    /// What it says.
    pub payload: Vec<u8>,
}
