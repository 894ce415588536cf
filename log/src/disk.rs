//! The disk, as the log sees it: a dozen operations, passed in and never reached for.
//!
//! [`RealDisk`] is the one place where this crate touches the file system. [`MemoryDisk`] keeps
//! files in memory and can be told to fail: it knows which bytes and names were synced, so a crash
//! loses exactly what a crash may lose.
//!
//! A disk promises little: a write may be short, what was written may be lost until [`DiskFile::sync`]
//! has returned, and names may be lost until [`Disk::sync_dir`] has. Everything else is the log's
//! business.

mod memory;
mod real;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use memory::{DiskOp, MemoryDisk};
pub use real::RealDisk;

/// Folders and files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and those above it; an existing one is fine.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in a folder, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the file system says; `NotFound` where there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file of which nothing is changed: it may belong to somebody else.
    ///
    /// # Errors
    /// What the file system says; `NotFound` where there is none.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    /// Creates an empty file, in place of one that may be there.
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of one that may be there.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes creations, removals and renames in a folder durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that this process could still write below a folder.
    ///
    /// # Errors
    /// What the file system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes a lock file for as long as the guard lives.
    ///
    /// # Errors
    /// `WouldBlock` where another has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// A lock that is held until it is dropped, or its process dies.
pub trait DiskLock: Send + Sync {}

/// An open file. Positions are explicit, so many threads can use one file.
pub trait DiskFile: Send + Sync {
    /// Bytes in the file, those taken in advance included.
    ///
    /// # Errors
    /// What the file system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at a position; fewer at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Where anything but zeros may begin, from a position on; none where only zeros follow. A disk that
    /// does not know says the position itself.
    ///
    /// # Errors
    /// What the file system says.
    fn data_from(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at))
    }

    /// Writes some of the bytes, gathered from several places; answers how many.
    ///
    /// # Errors
    /// What the file system says.
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize>;

    /// Makes what was written durable, with the file's length.
    ///
    /// # Errors
    /// What the file system says. What was written before is then in doubt, whatever a later
    /// sync may answer.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// What the file system says.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file longer with zeros that have their place on the disk already.
    ///
    /// # Errors
    /// What the file system says; not every one can.
    fn preallocate(&self, from: u64, bytes: u64) -> io::Result<()>;
}

/// Fills `buffer` from a position.
pub(crate) fn read_exact_at(
    file: &dyn DiskFile,
    mut buffer: &mut [u8],
    mut at: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all parts one after another, in as few calls as the system allows.
pub(crate) fn write_all_at(
    file: &dyn DiskFile,
    mut parts: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let some = &parts[..parts.len().min(PARTS_MAX)];
        match file.write_at(some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut parts, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Most parts of one gathered write: Linux's `IOV_MAX`.
const PARTS_MAX: usize = 1024;
