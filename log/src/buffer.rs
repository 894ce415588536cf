//! Memory that a segment is read into: used again, and placed so that it is quickly filled.
//!
//! Two things cost more than the reading itself. Memory that is new to a process is given out page by
//! page, each with zeros; so a few buffers are kept, for all logs of the process. And a copy of some KiB
//! to a place that lies a little further within its page than the source does runs at a fifth of its
//! speed on some processors (`design/limits.md`, section 1), which is what a large `Vec` begins with; so
//! bytes lie within a page of the buffer as they do within a page of the file.

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of a page of memory, and of the file system's cache.
const PAGE_BYTES: usize = 4096;

/// Room for what most reads take: more is given back when it was used.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// Buffers that are kept: as many as readers are at it at once on a few processors.
const SPARE_MAX: usize = 2;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer for a stretch of a file.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// For `len` bytes that are at this position of their file.
    pub(crate) fn new(position: u64, len: usize) -> Self {
        let spare = if len <= BUFFER_BYTES { SPARE.lock().pop() } else { None };
        let new = || vec![0; len.max(BUFFER_BYTES) + 2 * PAGE_BYTES];
        let memory = spare.unwrap_or_else(new);
        let page = memory.as_ptr().align_offset(PAGE_BYTES);
        // A test's interpreter may know nothing of addresses: any place will do.
        let page = if page < PAGE_BYTES { page } else { 0 };
        Self { memory, start: page + (position % PAGE_BYTES as u64) as usize, len }
    }

    /// The first `len` bytes, to be shared; the buffer is free again when nobody has any of them.
    pub(crate) fn share(mut self, len: usize) -> Bytes {
        self.len = len.min(self.len);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        if self.memory.len() == BUFFER_BYTES + 2 * PAGE_BYTES && spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_within_a_page_as_they_do_in_their_file() {
        for (position, len) in [(0, 1), (1, BUFFER_BYTES), (4095, 4096), (70_000, 1 << 20)] {
            let mut buffer = Buffer::new(position, len);
            assert_eq!(buffer.as_ref().len(), len);
            assert_eq!(
                buffer.as_ref().as_ptr().addr() % PAGE_BYTES,
                position as usize % PAGE_BYTES
            );
            buffer.as_mut().fill(7);
            let shared = buffer.share(len / 2);
            assert_eq!((shared.len(), shared.iter().all(|byte| *byte == 7)), (len / 2, true));
        }
    }

    #[test]
    fn a_buffer_that_somebody_reads_is_not_given_out() {
        let fill = |byte| {
            let mut buffer = Buffer::new(0, 1000);
            buffer.as_mut().fill(byte);
            buffer.share(1000)
        };
        let all: Vec<_> = (0..10).map(fill).collect();
        for (byte, bytes) in (0..10).zip(&all) {
            assert!(bytes.iter().all(|there| *there == byte), "{byte}");
        }
    }
}
