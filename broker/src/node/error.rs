//! Why a node does not start, and what to do about it.

use aklight_log::{MendError, OpenError};

use crate::cluster::JoinError;
use crate::data_dir::DataDirError;
use crate::replication::GroupError;
use crate::sessions::SessionError;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster does not take this broker.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A log cannot be opened.
    #[error("{name}: {cause}{}", reason(cause))]
    Log {
        /// Whose log.
        name: String,
        /// What is wrong with it.
        cause: OpenError,
    },
    /// A damaged log cannot be mended.
    #[error(transparent)]
    Mend(#[from] MendError),
    /// The metadata's log is damaged, and no checkpoint holds what was there.
    #[error(
        "the metadata is damaged and not to be guessed (who consumes, and how far): {0}; bring metadata.log back from a backup, or set that folder aside: then the records stay, and consumers begin anew at the log's end"
    )]
    MetadataDamaged(String),
    /// A group does not start.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The metadata cannot be written.
    #[error("the metadata cannot be written: {0}")]
    Metadata(#[from] SessionError),
    /// It has others, and was not told where.
    #[error(
        "broker {broker} shares its cluster with brokers {others}, and without --peers it would hear none of them: start it with --peers ID@HOST:PORT,… of them all, itself too"
    )]
    NoPeers {
        /// This broker.
        broker: u64,
        /// Who else votes.
        others: String,
    },
    /// The cluster has another number of partitions.
    #[error(
        "this cluster was created with {stored} partitions and --partitions says {given}: leave the flag away, or create a new cluster in another --data-dir"
    )]
    OtherPartitions {
        /// As it was created.
        stored: u32,
        /// As it was asked for.
        given: u32,
    },
}

fn reason(error: &OpenError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(" ({source})"))
}
