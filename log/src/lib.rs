//! The segmented append log: a partition's log, and its Raft log, which are one.
//!
//! A [`Log`] is a folder. Batches are appended at its end, in memory first, then by one writer
//! thread to the last of its segments; they are read back by entry or by offset, from memory or
//! from the files. Everything is synchronous: no runtime is needed, and none is known here. In a
//! simulation the log has no thread either: its owner turns it (`runner`).
//!
//! ```text
//! partition_0.log/
//!   00000000000000000000.log      a segment, named after its first offset   (format, segment),
//!                                 compressed once it is sealed              (compress, compressed)
//!   00000000000000000000.index    its index: offsets, times, topics          (index, sidecar)
//!   00000000000000052144.log      the open segment, written to at its end    (writer)
//!   vote                          Raft's vote, two slots                     (slots)
//!   purged                        what was forgotten at the beginning        (marks)
//!   committed                     how far it is committed: a hint            (marks)
//!   checkpoint                    the state machine's, whole or not there    (checkpoint)
//!   lock                          held while a process has the log open
//!   ….log.damaged-4096            bytes that were set aside                  (damage)
//! ```
//!
//! Who reads the code begins with [`BatchHeader`]'s module for the bytes, then `state` for what is
//! shared, `writer` for how it gets to disk and `recovery` for how it comes back.
//!
//! What the log promises: an entry whose answer was given is there after a crash (as far as
//! [`Fsync`] goes), or its loss is reported; offsets have no holes but those of reported damage,
//! and none is given out twice unless a truncation took it away. What was lost can be put back
//! from a copy ([`mend()`]). What it leaves out: Raft itself, and what a record means.

mod assemble;
mod buffer;
mod checkpoint;
mod compress;
mod compressed;
mod damage;
pub mod disk;
mod errors;
mod format;
mod index;
mod index_cache;
mod log;
mod marks;
mod mend;
mod options;
mod part;
mod read;
mod recovery;
mod report;
mod runner;
mod scan;
mod search;
mod segment;
mod sidecar;
mod slots;
mod state;
mod tail;
mod varint;
mod verify;
mod writer;

pub use compress::Compressed;
pub use disk::{Disk, DiskFile, MemoryDisk, RealDisk};
pub use errors::{LogError, NoRoom, OpenError, ReadError};
pub use format::{BODY_BYTES_MAX, Batch, BatchHeader, BatchKind, HEADER_BYTES, NewBatch};
pub use log::{COMMITTED_BYTES_MAX, Log, VOTE_BYTES_MAX};
pub use mend::{MendError, MendReport, mend};
pub use options::{Fsync, LogOptions, Retention};
pub use part::StoredPart;
pub use report::{Damage, LostEnd, OpenReport, TornTail};
pub use runner::{Driver, Wake};
pub use search::{TopicCounts, TopicSearch};
pub use state::{Bounds, Health};
pub use verify::{Entries, Entry, Problem, ProblemKind, Verified, verify};
pub use writer::Done;
