//! What can go wrong, one enum an operation, in words that a user can act on.

use std::io;
use std::path::PathBuf;

use aklight_common::{Offset, RaftIndex, Term};

use crate::format::BODY_BYTES_MAX;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process: stop it, or give this one a folder of its own", dir.display())]
    InUse {
        /// The log's folder.
        dir: PathBuf,
    },
    /// The file system refused something.
    #[error("cannot {what} {}: check that the folder exists, belongs to this user and has room", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file that keeps a small state (the vote, the purge mark) has no readable copy left.
    #[error("both copies in {} are damaged: this log may not vote or append on its own any more; \
             restore the file from a backup, or set the folder aside and let the broker start anew", path.display())]
    SlotsDamaged {
        /// The file.
        path: PathBuf,
    },
}

/// Why the log refused an operation.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// A write or a sync failed earlier.
    #[error("the log refuses writes until it is opened again: {0}")]
    Failed(String),
    /// An index that does not follow.
    #[error("entry {got} does not follow: the log goes on with {expected}")]
    IndexGap {
        /// The index that would have been taken.
        expected: RaftIndex,
        /// The one that was offered.
        got: RaftIndex,
    },
    /// A term below the last entry's.
    #[error("term {got} is below the last entry's, {last}")]
    TermFalls {
        /// The last entry's.
        last: Term,
        /// The one that was offered.
        got: Term,
    },
    /// Records in a kind that has none.
    #[error("entry {0} says that it holds records, but is of a kind that has none")]
    NoRecordsInKind(RaftIndex),
    /// A body that no header could describe.
    #[error("the body of entry {index} has {bytes} bytes; at most {BODY_BYTES_MAX} are allowed")]
    TooLarge {
        /// The entry.
        index: RaftIndex,
        /// Its size.
        bytes: usize,
    },
    /// A small state could not be read back.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why batches could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Older than what is kept.
    #[error("offset or entry {asked} is no longer kept: the first offset is {first}")]
    Purged {
        /// The offset or the index that was asked for.
        asked: u64,
        /// The first offset that is kept.
        first: Offset,
    },
    /// Beyond the end.
    #[error("the log ends before {asked}: its next offset is {end}")]
    BeyondEnd {
        /// The offset or the index that was asked for.
        asked: u64,
        /// The next offset to be written.
        end: Offset,
    },
    /// The bytes on disk are not those that were written. What they hold is lost here; everything
    /// from `resume` on can be read.
    #[error("offsets {from} to {resume} (the last not included) are damaged on disk; \
             what is left of them is in {}", file.display())]
    Damaged {
        /// The first offset that cannot be read.
        from: Offset,
        /// The next one that can.
        resume: Offset,
        /// The next entry that can be read.
        resume_index: RaftIndex,
        /// Where the damaged bytes are.
        file: PathBuf,
    },
    /// The file system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Too little space to take more.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// The file system is (nearly) full.
    #[error("{} has {free} bytes free and needs {needed}: free some space, \
             or lower the retention", dir.display())]
    Full {
        /// The log's folder.
        dir: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed, the reserve for metadata included.
        needed: u64,
    },
    /// The free space cannot be asked for.
    #[error("cannot tell how much space {} has", dir.display())]
    Unknown {
        /// The log's folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
