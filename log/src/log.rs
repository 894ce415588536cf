//! In the making.
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_common::{Offset, RaftIndex, Term};

use crate::disk::Disk;
use crate::errors::{LogError, NoRoom, OpenError, ReadError};
use crate::format::{Batch, NewBatch};
use crate::options::{LogOptions, Retention};

/// Called by the writer thread.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Records a topic.
pub type TopicCounts = BTreeMap<String, u64>;
/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The last entry that was forgotten.
    pub purged: Option<(Term, RaftIndex)>,
    /// The last entry; the purged one where nothing follows it.
    pub last: Option<(Term, RaftIndex)>,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The next offset to be written.
    pub end_offset: Offset,
    /// The last entry that was acknowledged.
    pub flushed: Option<RaftIndex>,
    /// The last entry that was given to the file system.
    pub written: Option<RaftIndex>,
    /// Bytes of all segments.
    pub bytes: u64,
}
/// Health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Takes writes.
    Writable,
    /// Refuses them, and why.
    Failed(String),
}
/// Report.
#[derive(Debug)]
pub struct OpenReport {}
/// A log.
#[derive(Clone, Debug)]
pub struct Log;
#[expect(missing_docs, clippy::missing_errors_doc, reason = "in the making")]
#[expect(unused_variables, reason = "in the making")]
impl Log {
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        clock: SharedClock,
    ) -> Result<(Log, OpenReport), OpenError> {
        panic!("in the making")
    }
    pub fn append(&self, batches: Vec<NewBatch>, done: Done) -> Result<(), LogError> {
        panic!("in the making")
    }
    pub fn save_vote(&self, vote: Vec<u8>, done: Done) {
        panic!("in the making")
    }
    pub fn read_vote(&self) -> Result<Option<Vec<u8>>, LogError> {
        panic!("in the making")
    }
    pub fn save_committed(&self, bytes: Vec<u8>) {
        panic!("in the making")
    }
    pub fn read_committed(&self) -> Option<Vec<u8>> {
        panic!("in the making")
    }
    pub fn save_checkpoint(&self, index: RaftIndex, bytes: Vec<u8>) -> io::Result<()> {
        panic!("in the making")
    }
    pub fn read_checkpoint(&self) -> Result<Option<(RaftIndex, Vec<u8>)>, LogError> {
        panic!("in the making")
    }
    pub fn truncate_after(&self, last: Option<RaftIndex>, done: Done) {
        panic!("in the making")
    }
    pub fn purge(&self, upto: RaftIndex, done: Done) {
        panic!("in the making")
    }
    pub fn bounds(&self) -> Bounds {
        panic!("in the making")
    }
    pub fn wait_flushed(&self, index: RaftIndex, timeout: Duration) -> io::Result<bool> {
        panic!("in the making")
    }
    pub fn read_indexes(
        &self,
        from: RaftIndex,
        to: RaftIndex,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        panic!("in the making")
    }
    pub fn read_offsets(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        panic!("in the making")
    }
    pub fn next_with_topics(
        &self,
        from: Offset,
        to: Offset,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Offset {
        panic!("in the making")
    }
    pub fn offset_at_time(&self, time_us: u64) -> Offset {
        panic!("in the making")
    }
    pub fn offset_of(&self, index: RaftIndex) -> Option<Offset> {
        panic!("in the making")
    }
    pub fn topic_counts_before(&self, upto: RaftIndex) -> Result<TopicCounts, ReadError> {
        panic!("in the making")
    }
    pub fn expired(&self, now_us: u64, retention: &Retention) -> Option<RaftIndex> {
        panic!("in the making")
    }
    pub fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        panic!("in the making")
    }
    pub fn health(&self) -> Health {
        panic!("in the making")
    }
    pub fn close(&self) {
        panic!("in the making")
    }
}
