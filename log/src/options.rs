//! What a log can be told: how long its segments are, when it syncs, what it keeps.

use std::time::Duration;

/// When written batches are synced, and with that when they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged. Survives the loss of power.
    Always,
    /// This long behind the sync before, at the latest, the next one begins; acknowledged once written.
    /// Survives the death of the process.
    Interval(Duration),
    /// When a segment is full, at a checkpoint, and when the log is closed; acknowledged once written.
    Never,
}

/// How a log behaves. [`Default`] is what a broker uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment that would grow past this is closed and the next one begun. One batch alone
    /// may be longer.
    pub segment_bytes: u64,
    /// Space is taken from the file system in steps of this size, so that a sync need not
    /// record a new file length each time; 0 takes none in advance.
    pub preallocate_bytes: u64,
    /// When to sync.
    pub fsync: Fsync,
    /// Most operations that wait for the writer thread; the next caller waits for room.
    pub queue_ops_max: usize,
    /// Recent batches kept in memory for readers, in bytes. What is not yet written is kept
    /// beyond this.
    pub tail_cache_bytes: usize,
    /// Free space that [`Log::check_room`](crate::Log::check_room) leaves to metadata, votes and
    /// checkpoints.
    pub reserve_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            // Sixteen segments a gibibyte: fine-grained enough for retention, few enough files.
            segment_bytes: 64 << 20,
            // One change of length in 4 MiB instead of in every sync; little waste when idle.
            preallocate_bytes: 4 << 20,
            fsync: Fsync::Always,
            // A wave of the writer takes a few hundred at most: twice that keeps it busy.
            queue_ops_max: 1024,
            // What a few waves of the writer hold: live readers are within it. Whoever is further behind
            // reads what the system still has in memory.
            tail_cache_bytes: 3 << 20,
            reserve_bytes: 1 << 20,
        }
    }
}

/// What to keep. A segment goes when either limit says so; no limit keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Most bytes of segments.
    pub bytes: Option<u64>,
    /// Longest time since a segment's last record, in microseconds.
    pub age_us: Option<u64>,
}
