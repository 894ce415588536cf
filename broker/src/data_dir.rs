//! The folder that a broker keeps everything in, and whose it is.
//!
//! ```text
//! data/lock               held while a broker runs here: two would damage each other's log
//! data/broker.json        which broker of the cluster this folder belongs to
//! data/metadata.log/      the metadata's log
//! data/partition_0.log/   the log of partition 0, and so on
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aklight_common::{BrokerId, PartitionId, atomic_file};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

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

#[derive(Serialize, Deserialize)]
struct Identity {
    version: u32,
    broker: u64,
}

/// A broker's folder, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the folder if it is not there, locks it, and sees that it is this broker's.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub fn open(dir: &Path, broker: BrokerId) -> Result<Self, DataDirError> {
        let failed = |what| move |cause| DataDirError::Io { dir: dir.to_owned(), what, cause };
        fs::create_dir_all(dir).map_err(failed("it cannot be made"))?;
        let lock = lock(dir)?;
        let path = dir.join("broker.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let identity: Identity = serde_json::from_slice(&bytes)
                    .map_err(|cause| DataDirError::NoIdentity { file: path.clone(), cause })?;
                if identity.broker != broker.0 {
                    let (dir, stored) = (dir.to_owned(), identity.broker);
                    return Err(DataDirError::OtherBroker { dir, stored, given: broker });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity { version: 1, broker: broker.0 };
                let bytes = serde_json::to_vec(&identity)
                    .map_err(|e| failed("broker.json cannot be written")(e.into()))?;
                atomic_file::write(&path, &bytes)
                    .map_err(failed("broker.json cannot be written"))?;
            }
            Err(error) => return Err(failed("broker.json cannot be read")(error)),
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Where a partition's log lies.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> PathBuf {
        self.dir.join(format!("partition_{id}.log"))
    }

    /// How many partitions have a log here.
    #[must_use]
    pub fn partitions_found(&self) -> u32 {
        (0..).map(PartitionId).take_while(|id| self.partition(*id).is_dir()).fold(0, |n, _| n + 1)
    }

    /// Where the metadata's log lies.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.dir.join("metadata.log")
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, DataDirError> {
    let failed =
        |cause| DataDirError::Io { dir: dir.to_owned(), what: "it cannot be locked", cause };
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people who meet the lock; the lock itself needs no content.
            let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            noted.map_err(failed)?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder =
                if known { format!(" (process {})", holder.trim()) } else { String::new() };
            Err(DataDirError::InUse { dir: dir.to_owned(), holder })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}
