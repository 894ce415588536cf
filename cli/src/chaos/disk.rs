//! A small disk for one broker: a tmpfs that a ballast file fills to the brim and frees again.
//!
//! It is mounted in a mount namespace of our own, which the brokers share and nobody else sees;
//! the kernel takes it down with the last of us, however we end. Needs root (CAP_SYS_ADMIN);
//! without, the story says so and goes on without full disks.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// The ballast is written in pieces of this size, the last ones smaller.
const PIECE_BYTES: usize = 1 << 20;

/// A folder with little room.
pub struct SmallDisk {
    folder: PathBuf,
    ballast: PathBuf,
}

impl SmallDisk {
    /// Puts a disk of `bytes` at a folder. To be called while this process has one thread, before
    /// the brokers are started.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub fn mount(folder: &Path, bytes: u64) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: Errno| format!("{what}: {}", error.desc())
        };
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(failed("no mount namespace (only root may make one)"))?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .map_err(failed("mounts cannot be made private"))?;
        let options = format!("size={bytes},mode=0700");
        let tmpfs = Some("tmpfs");
        mount(tmpfs, folder, tmpfs, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
            .map_err(failed("no tmpfs"))?;
        Ok(Self { folder: folder.to_owned(), ballast: folder.join("ballast") })
    }

    /// Fills it to the last byte; gives how many that took.
    ///
    /// # Errors
    /// The ballast cannot even be made.
    pub fn fill(&self) -> Result<u64, String> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.ballast);
        let mut file = opened.map_err(|error| format!("no ballast: {error}"))?;
        let mut piece = vec![0_u8; PIECE_BYTES];
        let mut filled = 0;
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(written) => filled += written as u64,
                // No room for a piece of this size: maybe for half of it.
                Err(_) => piece.truncate(piece.len() / 2),
            }
        }
        Ok(filled)
    }

    /// Frees it again. Does nothing when it is free.
    pub fn free(&self) {
        // It is not there when the disk was never filled.
        let _ = fs::remove_file(&self.ballast);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If somebody still has a file open there, it goes when that is closed.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}

/// Copies a folder with all that is in it to another place.
///
/// # Errors
/// What could not be read or written.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
