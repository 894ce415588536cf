//! The file of a consumer's memory: `DIR/{id}.offsets`, replaced as a whole by every write.
//!
//! A file that cannot be understood is set aside under another name, never removed, and the
//! start fails once with what to do; the next start begins where the broker says.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::Memory;
use super::encoding::{DecodeError, decode, encode};

/// Why a memory cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("cannot make the folder {}: choose another with --offsets-dir, or let this user write there", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {}: let this user read it, or choose another folder with --offsets-dir", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: is the disk full, or the folder not writable for this user?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged.
    #[error(
        "{} is damaged ({source}) and was set aside as {}. Start again to go on where the broker \
         says, which may repeat alerts of the last second; or mend the file, end it with the line \
         'end|edited', and move it back", path.display(), aside.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Another process uses it.
    #[error("a consumer '{consumer}' is running already with {}: give this one another --id", path.display())]
    InUse {
        /// Who.
        consumer: String,
        /// The lock's file.
        path: PathBuf,
    },
    /// The file belongs to another consumer.
    #[error("{} belongs to the consumer '{owner}': use --id {owner}, or another --offsets-dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
}

/// Where a consumer's memory is kept.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Held until the process ends, in whatever way. A file of its own, because the state's file
    /// is another one after each write.
    _lock: File,
}

impl Store {
    /// Opens the store of `consumer` in `folder`, and reads what is there; makes the folder and
    /// a first, empty file where there is none, so that a folder that cannot be written is
    /// known at the start and not at the first alert.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path, consumer: &str, now_ms: u64) -> Result<(Self, Memory), StoreError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join(format!("{consumer}.offsets"));
        let store = Self { path, _lock: lock(folder, consumer)? };
        let content = match std::fs::read(&store.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let memory = Memory::new(consumer, now_ms);
                store.write(&memory)?;
                return Ok((store, memory));
            }
            Err(source) => return Err(StoreError::Read { path: store.path, source }),
        };
        match decode(&content) {
            Ok(memory) if memory.consumer == consumer => Ok((store, memory)),
            Ok(memory) => Err(StoreError::Foreign { path: store.path, owner: memory.consumer }),
            Err(source) => Err(store.set_aside(source, now_ms)),
        }
    }

    /// Replaces the file, durably.
    ///
    /// # Errors
    /// [`StoreError::Write`]; the old file is then still there.
    pub fn write(&self, memory: &Memory) -> Result<(), StoreError> {
        aklight_common::atomic_file::write(&self.path, &encode(memory))
            .map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    fn set_aside(self, damage: DecodeError, now_ms: u64) -> StoreError {
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".damaged-{now_ms}"));
        let aside = PathBuf::from(aside);
        match std::fs::rename(&self.path, &aside) {
            Ok(()) => StoreError::Damaged { path: self.path, aside, source: damage },
            Err(source) => StoreError::Write { path: aside, source },
        }
    }
}

/// Two consumers of one name would overwrite each other's state.
fn lock(folder: &Path, consumer: &str) -> Result<File, StoreError> {
    let path = folder.join(format!("{consumer}.lock"));
    let unwritable = |source| StoreError::Write { path: path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { consumer: consumer.to_owned(), path })
        }
        Err(TryLockError::Error(source)) => Err(unwritable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::encoding::tests::full;

    #[test]
    fn a_memory_survives_and_belongs_to_its_consumer() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b");
        let (store, fresh) = Store::open(&deep, "consumer1", 5).expect("opened");
        assert_eq!(fresh, Memory::new("consumer1", 5));
        store.write(&full()).expect("written");
        let error = Store::open(&deep, "consumer1", 6).expect_err("in use");
        assert!(error.to_string().contains("running already"), "{error}");
        drop(store);
        let (_, read) = Store::open(&deep, "consumer1", 6).expect("opened again");
        assert_eq!(read, full());
        std::fs::rename(deep.join("consumer1.offsets"), deep.join("other.offsets")).expect("moved");
        let error = Store::open(&deep, "other", 6).expect_err("foreign");
        assert!(error.to_string().contains("--id consumer1"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_set_aside_with_what_to_do_and_the_next_start_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.offsets");
        std::fs::write(&path, b"AKLIGHT-CONSUMER|1\nconsumer|c\nend|00000000\n").expect("written");
        let error = Store::open(folder.path(), "c", 77).expect_err("damaged");
        let text = error.to_string();
        assert!(text.contains("c.offsets.damaged-77") && text.contains("Start again"), "{text}");
        assert!(folder.path().join("c.offsets.damaged-77").exists());
        Store::open(folder.path(), "c", 78).expect("goes on");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let error = Store::open(&file.join("sub"), "c", 1).expect_err("no folder");
        assert!(error.to_string().contains("--offsets-dir"), "{error}");
    }
}
