//! A file of the kernel's that is read again and again.
//!
//! It is opened once and read from its start each time: one system call a reading instead of
//! four, and no walk along the path, which is most of what reading a control group costs. A group
//! that is removed makes its open files fail (ENODEV), so that nothing old is ever read.
//!
//! What is left out: files of `/proc/PID/net`, which would keep a dead container's network alive
//! while they are open. Those are read by [`Root::read`](super::Root::read).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{ReadError, Root};

/// Read at a time: more than any file of a group holds.
const CHUNK_BYTES: usize = 16 << 10;

/// The kernel hands such files out a page at a time, cut between two lines (seq_file): a reading
/// shorter than half a page was not cut, and needs no second call to find the end.
const UNCUT_BYTES_MAX: usize = 2 << 10;

/// No file of a group is longer: a bound, not a limit that anybody meets.
const FILE_BYTES_MAX: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    file: File,
}

impl KernelFile {
    /// Opens a file, where there is one.
    #[must_use]
    pub fn open(root: &Root, absolute: impl AsRef<Path>) -> Option<Self> {
        let path = root.path(absolute.as_ref());
        let file = File::open(&path).ok()?;
        Some(Self { path, file })
    }

    /// What it holds now, put into `buffer`.
    ///
    /// # Errors
    /// When the file is gone or holds no text.
    pub fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b str, ReadError> {
        let unreadable = |source| ReadError::Unreadable { path: self.path.clone(), source };
        let length = self.fill(buffer).map_err(unreadable)?;
        std::str::from_utf8(&buffer[..length])
            .map_err(|_| ReadError::Nonsense { path: self.path.clone(), wanted: "text" })
    }

    fn fill(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut length = 0;
        loop {
            if buffer.len() < length + CHUNK_BYTES {
                buffer.resize(length + CHUNK_BYTES, 0);
            }
            match self.file.read_at(&mut buffer[length..], length as u64) {
                Ok(0) => return Ok(length),
                Ok(read) => {
                    length += read;
                    if read < UNCUT_BYTES_MAX || length > FILE_BYTES_MAX {
                        return Ok(length);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The error of a file that holds something else.
    #[must_use]
    pub fn nonsense(&self, wanted: &'static str) -> ReadError {
        ReadError::Nonsense { path: self.path.clone(), wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn each_reading_is_what_the_file_holds_then_however_long() {
        let tree = Tree::new(&[("/f", "1\n")]);
        let file = KernelFile::open(&tree.root(), "/f").expect("a file");
        let mut buffer = Vec::new();
        assert_eq!(file.read(&mut buffer).expect("read"), "1\n");
        for length in [0, 1, UNCUT_BYTES_MAX, CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let text = "x".repeat(length);
            tree.put("/f", &text);
            assert_eq!(file.read(&mut buffer).expect("read"), text, "{length} bytes");
        }
    }

    #[test]
    fn no_file_is_none() {
        assert!(KernelFile::open(&Tree::new(&[]).root(), "/f").is_none());
    }
}
