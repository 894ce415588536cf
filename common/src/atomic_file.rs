//! Small files that are whole or not there: written beside their place, synced, renamed.
//!
//! After [`write()`] returns, the new content survives a power loss; when it fails, or the machine
//! dies within it, the old content stands. Readers never see half of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces the file at `path` by `content`, durably.
///
/// # Errors
/// Whatever the file system says; the old content is then still there.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let written = (|| {
        let mut file = File::create(beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(beside, path)
    })();
    if written.is_err() {
        // A half-written file beside the real one would only confuse people.
        let _ = fs::remove_file(beside);
        return written;
    }
    sync_folder(path)
}

/// Makes a rename, a creation or a removal of `path` durable.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_content_replaces_the_old_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("missing").join("state");
        assert!(write(&path, b"x").is_err());
        assert!(!path.exists());
    }
}
