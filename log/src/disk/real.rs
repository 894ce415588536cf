//! The machine's own disk: the one place in this crate that names `std::fs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::unistd::{Whence, lseek};

use super::{Disk, DiskFile, DiskLock};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The disk, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string()));
        // A name that is no UTF-8 is none of ours.
        names.filter_map(|name| name.map(Result::ok).transpose()).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(dir)?;
        // `c_ulong` is 32 bits wide on some machines that Rust knows.
        #[expect(clippy::useless_conversion, reason = "the types differ between machines")]
        Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Closing the file ends the lock.
struct RealLock(#[expect(dead_code, reason = "held, never used")] File);

impl DiskLock for RealLock {}

struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn data_from(&self, at: u64) -> io::Result<Option<u64>> {
        let from = i64::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match lseek(&self.0, from, Whence::SeekData) {
            Ok(data) => Ok(Some(u64::try_from(data).unwrap_or(at))),
            Err(Errno::ENXIO) => Ok(None),
            // A file system that does not tell: then it is read.
            Err(_) => Ok(Some(at)),
        }
    }

    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let at = i64::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Ok(nix::sys::uio::pwritev(&self.0, parts, at)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn preallocate(&self, from: u64, bytes: u64) -> io::Result<()> {
        let too_large = |_| io::ErrorKind::FileTooLarge;
        let from = i64::try_from(from).map_err(too_large)?;
        let bytes = i64::try_from(bytes).map_err(too_large)?;
        Ok(nix::fcntl::fallocate(&self.0, FallocateFlags::empty(), from, bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_that_was_taken_in_advance_is_passed_over_and_what_was_written_is_not() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().expect("a folder");
        let file = RealDisk.create(&dir.path().join("file")).expect("created");
        file.write_at(&[IoSlice::new(b"begin")], 0).expect("written");
        if file.preallocate(5, 4 * MIB).is_err() {
            file.set_size(4 * MIB + 5).expect("longer");
        }
        let page = |at: Option<u64>| at.map(|at| at / 4096);
        assert_eq!(page(file.data_from(0).expect("told")), Some(0));
        // A file system without holes says the position itself.
        let behind = file.data_from(MIB).expect("told");
        assert!(behind.is_none_or(|at| at == MIB), "{behind:?}");
        file.write_at(&[IoSlice::new(b"x")], 3 * MIB).expect("written");
        let found = file.data_from(MIB).expect("told").expect("there is something");
        assert!((MIB..=3 * MIB).contains(&found), "{found}");
        assert_eq!(file.data_from(5 * MIB).expect("told"), None);
    }
}
