//! The folder that a broker keeps everything in, and whose it is.
//!
//! ```text
//! data/lock               held while a broker runs here: two would damage each other's log
//! data/broker.json        which broker of which cluster this folder belongs to
//! data/metadata.log/      the metadata's log
//! data/partition_0.log/   the log of partition 0, and so on
//! ```
//!
//! `broker.json` also holds the folder's *incarnation*, a number drawn when the folder was first
//! used. The cluster remembers it: a broker that comes back with another one has lost its disk,
//! and with it votes and records that others rely on.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_common::{BrokerId, PartitionId};
use aklight_log::Disk;
use aklight_log::disk::DiskLock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The version of `broker.json`; version 1 knew no clusters.
const VERSION: u32 = 2;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{} is in use by another broker{holder}: stop that one, or give this one a --data-dir of its own", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The other one's process, where it is known.
        holder: String,
    },
    /// It belongs to another broker of the cluster.
    #[error("{} belongs to broker {stored}, and this one is started with --node-id {given}: start it with --node-id {stored}, or give it a --data-dir of its own", dir.display())]
    OtherBroker {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        stored: u64,
        /// Who wants it.
        given: BrokerId,
    },
    /// A log that was here is here no longer.
    #[error("{} is gone, and votes and records that the other brokers rely on were there: bring this very folder back (not an older copy), or let another broker take this one's place: aklight cluster replace {broker} NEW@HOST:PORT", dir.display())]
    Lost {
        /// The log's folder.
        dir: PathBuf,
        /// This broker.
        broker: u64,
    },
    /// It was removed from its cluster, and this folder notes it.
    #[error(
        "broker {broker} was removed from cluster {cluster}, as {} notes, and numbers are not used again: add this broker under a new one (aklight cluster add NEW@HOST:7090), and start it with --node-id NEW and an empty --data-dir. If that cannot be so (this is an old copy of another cluster), take \"is_removed\" out of that file: it asks the other brokers again", file.display()
    )]
    Removed {
        /// The file.
        file: PathBuf,
        /// The broker.
        broker: BrokerId,
        /// The cluster.
        cluster: String,
    },
    /// The file system refuses.
    #[error("{} cannot be used as --data-dir: {what}: {cause}; it must be a folder that this user may write to, on a disk with room", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// The file that says whose folder it is does not.
    #[error("{} does not say which broker this folder belongs to ({cause}): write {{\"version\":1,\"broker\":N}} into it, N being the --node-id that was used here", file.display())]
    NoIdentity {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

/// Whose folder it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    /// The broker.
    pub broker: u64,
    /// Drawn when the folder was first used.
    #[serde(default)]
    pub incarnation: String,
    /// The cluster; empty until it is formed or joined.
    #[serde(default)]
    pub cluster: String,
    /// The brokers that the cluster was formed of, when this folder was there: id and address.
    #[serde(default)]
    pub founders: Vec<(u64, String)>,
    /// The other brokers of the cluster as they were last known, id and address: a folder that shares
    /// its records with others must not be taken for one that is alone, whatever `--peers` says.
    #[serde(default)]
    pub others: Vec<(u64, String)>,
    /// Whether the log of every partition has been here: one that is missing later was lost.
    #[serde(default)]
    pub is_complete: bool,
    /// Whether this broker was removed from its cluster, and told so: by the time that it is started
    /// again those who told it may be gone as well, and nobody is left to ask.
    #[serde(default)]
    pub is_removed: bool,
}

/// A broker's folder, locked for as long as this lives.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    kept: Mutex<Kept>,
    _lock: Box<dyn DiskLock>,
}

/// What `broker.json` holds.
struct Kept {
    identity: Identity,
    /// Whether the incarnation is on disk.
    is_claimed: bool,
}

impl DataDir {
    /// Makes the folder if it is not there, locks it, and sees that it is this broker's. A new one
    /// gets `incarnation`, which is on disk with whatever is noted first.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        broker: BrokerId,
        incarnation: String,
    ) -> Result<Self, DataDirError> {
        let failed = |what| move |cause| DataDirError::Io { dir: dir.to_owned(), what, cause };
        disk.create_dir_all(dir).map_err(failed("it cannot be made"))?;
        let lock = lock(&*disk, dir)?;
        let path = dir.join("broker.json");
        let new = Identity {
            version: VERSION,
            broker: broker.0,
            incarnation: incarnation.clone(),
            cluster: String::new(),
            founders: Vec::new(),
            others: Vec::new(),
            is_complete: false,
            is_removed: false,
        };
        let (identity, is_new) = match read(&*disk, &path) {
            Ok(bytes) => {
                let mut stored: Identity = serde_json::from_slice(&bytes)
                    .map_err(|cause| DataDirError::NoIdentity { file: path.clone(), cause })?;
                if stored.broker != broker.0 {
                    let dir = dir.to_owned();
                    return Err(DataDirError::OtherBroker {
                        dir,
                        stored: stored.broker,
                        given: broker,
                    });
                }
                if stored.is_removed {
                    let cluster = stored.cluster;
                    return Err(DataDirError::Removed { file: path, broker, cluster });
                }
                // Version 1 drew no incarnation: this is its first.
                let is_new = stored.incarnation.is_empty();
                if is_new {
                    stored.incarnation = incarnation;
                }
                (stored, is_new)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (new, true),
            Err(error) => return Err(failed("broker.json cannot be read")(error)),
        };
        let kept = Mutex::new(Kept { identity, is_claimed: !is_new });
        Ok(Self { disk, dir: dir.to_owned(), kept, _lock: lock })
    }

    /// Whose folder this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.kept.lock().identity.clone()
    }

    /// Notes a new incarnation: it must be on disk before another broker hears of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn claim(&self) -> Result<(), DataDirError> {
        self.note(|_| ())
    }

    /// Notes the cluster that this folder belongs to from now on, and who formed it, if it was
    /// just formed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_cluster(
        &self,
        cluster: &str,
        founders: Vec<(u64, String)>,
    ) -> Result<(), DataDirError> {
        self.note(|identity| {
            cluster.clone_into(&mut identity.cluster);
            identity.founders = founders;
        })
    }

    /// Notes who else is of the cluster.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_others(&self, others: Vec<(u64, String)>) -> Result<(), DataDirError> {
        self.note(|identity| identity.others = others)
    }

    /// Notes that the log of every partition is here from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_complete(&self) -> Result<(), DataDirError> {
        self.note(|identity| identity.is_complete = true)
    }

    /// Notes that this broker was removed from its cluster. Where the disk refuses, the next start has to
    /// ask the others again.
    pub fn set_removed(&self) {
        if let Err(error) = self.note(|identity| identity.is_removed = true) {
            tracing::warn!(%error, "that this broker was removed is not noted");
        }
    }

    /// Writes what is news.
    fn note(&self, change: impl FnOnce(&mut Identity)) -> Result<(), DataDirError> {
        let mut kept = self.kept.lock();
        let mut identity = Identity { version: VERSION, ..kept.identity.clone() };
        change(&mut identity);
        if kept.is_claimed && identity == kept.identity {
            return Ok(());
        }
        let written = serde_json::to_vec(&identity)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&*self.disk, &self.dir, "broker.json", &bytes));
        written.map_err(|cause| DataDirError::Io {
            dir: self.dir.clone(),
            what: "broker.json cannot be written",
            cause,
        })?;
        *kept = Kept { identity, is_claimed: true };
        Ok(())
    }

    /// Where a partition's log lies.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> PathBuf {
        self.dir.join(format!("partition_{id}.log"))
    }

    /// How many partitions have a log here.
    #[must_use]
    pub fn partitions_found(&self) -> u32 {
        (0..)
            .map(PartitionId)
            .take_while(|id| self.holds(&self.partition(*id)))
            .fold(0, |found, _| found + 1)
    }

    /// Where the metadata's log lies.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.dir.join("metadata.log")
    }

    /// Sees that the folder of a log is there, unless it may not have been yet: what others rely on
    /// must not begin anew without a word. A broker without others owes nobody anything.
    ///
    /// # Errors
    /// When it was there and is gone.
    pub fn expect_unless_new(&self, dir: &Path, has_others: bool) -> Result<(), DataDirError> {
        let identity = self.identity();
        if has_others && identity.is_complete && !self.holds(dir) {
            return Err(DataDirError::Lost { dir: dir.to_owned(), broker: identity.broker });
        }
        Ok(())
    }

    /// Whether there are files in a folder of this one.
    #[must_use]
    pub fn holds(&self, dir: &Path) -> bool {
        self.disk.list(dir).is_ok_and(|names| !names.is_empty())
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, DataDirError> {
    let failed =
        |cause| DataDirError::Io { dir: dir.to_owned(), what: "it cannot be locked", cause };
    let path = dir.join("lock");
    match disk.lock(&path) {
        Ok(lock) => {
            // For people who meet the lock; the lock itself needs no content.
            let process = format!("{}\n", std::process::id());
            let noted = disk.open(&path).and_then(|file| {
                file.set_size(0)?;
                file.write_at(&[IoSlice::new(process.as_bytes())], 0)
            });
            if let Err(error) = noted {
                tracing::debug!(%error, "the lock does not say whose it is");
            }
            Ok(lock)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let holder = read(disk, &path).map_or_else(
                |_| String::new(),
                |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
            );
            let holder = if holder.is_empty() { holder } else { format!(" (process {holder})") };
            Err(DataDirError::InUse { dir: dir.to_owned(), holder })
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => break,
            read => at += read,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Puts a small file in place of another, whole or not at all, durably.
fn replace(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let file = disk.create(&beside)?;
    let mut at = 0;
    while at < bytes.len() {
        at += file.write_at(&[IoSlice::new(&bytes[at..])], at as u64)?;
    }
    file.sync()?;
    disk.rename(&beside, &path)?;
    disk.sync_dir(dir)
}
