//! The segmented append log (in the making).

pub mod disk;
mod errors;
mod format;
mod log;
mod options;

pub use disk::{Disk, DiskFile, MemoryDisk, RealDisk};
pub use errors::{LogError, NoRoom, OpenError, ReadError};
pub use format::{BODY_BYTES_MAX, Batch, BatchHeader, BatchKind, HEADER_BYTES, NewBatch};
pub use log::{Bounds, Done, Health, Log, OpenReport, TopicCounts};
pub use options::{Fsync, LogOptions, Retention};
