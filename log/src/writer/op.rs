//! What can be asked of the writer.

use std::io;
use std::sync::Arc;

use aklight_common::{Offset, RaftIndex, Term};
use crossbeam_channel::Sender;

use crate::compressed::write::Made;
use crate::segment::Segment;
use crate::state::Planned;

/// Called in the order of the operations (but for a sync that nothing waits for, which is made beside
/// them), by the writer thread or by whoever turns a driven log.
/// It must not call back into a log that has a thread: the thread that would have to answer is
/// the one that calls it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Who waits, and for what.
pub(crate) type Answer = (Done, io::Result<()>);

/// An operation for the writer.
pub(crate) enum Op {
    Append {
        writes: Vec<Planned>,
        /// Whether the caller can do without its thread for a sync.
        may_sync: bool,
        done: Done,
    },
    Vote {
        vote: Vec<u8>,
        done: Done,
    },
    /// Everything behind `last` goes. `finished` is dropped once the state shows it.
    Truncate {
        last: Option<RaftIndex>,
        done: Done,
        finished: Sender<()>,
    },
    /// Everything up to `upto` is forgotten. `finished` is dropped once the state shows it.
    Purge {
        upto: RaftIndex,
        term: Option<Term>,
        end_offset: Option<Offset>,
        done: Done,
        finished: Option<Sender<()>>,
    },
    /// Makes everything before it durable, whatever the options say.
    Sync {
        done: Done,
    },
    /// A sealed segment was written compressed, and waits beside its place.
    PutCompressed {
        segment: Arc<Segment>,
        made: Made,
        done: Done,
    },
    /// There is something to do that is in no queue: the committed hint.
    Wake,
    Close,
}

impl Op {
    /// Answers an operation that the closed log does not take.
    pub(crate) fn refuse(self) {
        match self {
            Self::Append { done, .. }
            | Self::Vote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Sync { done }
            | Self::PutCompressed { done, .. } => done(Err(io::Error::other("the log is closed"))),
            Self::Wake | Self::Close => {}
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Append { writes, .. } => {
                writes.iter().map(|write| write.batch.header.stored_len()).sum()
            }
            _ => 0,
        }
    }
}
