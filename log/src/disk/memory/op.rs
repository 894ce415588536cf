//! The trace of a disk in memory: what was done to it, in words.

use std::fmt;

/// An operation that changed the disk, as the trace shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// A file was created, or emptied.
    Create(String),
    /// A file was removed.
    Remove(String),
    /// A file got another name.
    Rename(String, String),
    /// A folder's names were made durable.
    SyncDir,
    /// Bytes were written: name, position, length.
    Write(String, u64, usize),
    /// A file was made durable.
    Sync(String),
    /// A file's length was set.
    SetSize(String, u64),
    /// Space was taken in advance: name, position, length.
    Preallocate(String, u64, u64),
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(f, "create {name}"),
            Self::Remove(name) => write!(f, "remove {name}"),
            Self::Rename(from, to) => write!(f, "rename {from} {to}"),
            Self::SyncDir => write!(f, "sync names"),
            Self::Write(name, at, bytes) => write!(f, "write {name} {at}+{bytes}"),
            Self::Sync(name) => write!(f, "sync {name}"),
            Self::SetSize(name, bytes) => write!(f, "size {name} {bytes}"),
            Self::Preallocate(name, at, bytes) => write!(f, "reserve {name} {at}+{bytes}"),
        }
    }
}

impl DiskOp {
    /// The word that a fault is ordered by.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Remove(_) => "remove",
            Self::Rename(..) => "rename",
            Self::SyncDir => "sync names",
            Self::Write(..) => "write",
            Self::Sync(_) => "sync",
            Self::SetSize(..) => "size",
            Self::Preallocate(..) => "reserve",
        }
    }
}
