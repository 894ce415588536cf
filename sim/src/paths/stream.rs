//! The two sides of a connection that is not there: lines that were written before, answers that
//! nobody keeps. What a client does is not to be counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Says the same so many times, and then nothing more.
pub struct Again {
    bytes: Bytes,
    at: usize,
    times: u64,
}

impl Again {
    /// These bytes, so often.
    pub fn new(bytes: impl Into<Bytes>, times: u64) -> Self {
        Self { bytes: bytes.into(), at: 0, times }
    }
}

impl AsyncRead for Again {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.times > 0 && buffer.remaining() > 0 {
            let rest = &self.bytes[self.at..];
            let read = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..read]);
            self.at += read;
            if self.at == self.bytes.len() {
                (self.at, self.times) = (0, self.times - 1);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes that are kept of what was said last: more than an `END` takes.
const KEPT_BYTES: usize = 256;

/// Listens, and remembers the end. Clones share it.
#[derive(Clone, Default)]
pub struct Heard {
    inner: Arc<Mutex<Vec<u8>>>,
}

impl Heard {
    /// The last line.
    pub fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.inner.lock()).into_owned();
        text.lines().last().unwrap_or_default().to_owned()
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut kept = self.inner.lock();
        kept.clear();
        kept.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT_BYTES)..]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
