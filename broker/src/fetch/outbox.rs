//! What a connection has to say, gathered and written a buffer at a time.
//!
//! A client that takes no byte for the time allowed is cut off: when it reads again within a few
//! seconds it finds the rest of its line and an error that says why. Nobody else waits for it.

use std::io;
use std::time::Duration;

use aklight_common::wire::{ErrorCode, Reply};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes gathered before they are written in the middle of a listing: a full buffer's cost a
/// system call is a small part of a microsecond a line.
const LARGE: usize = 64 << 10;

/// Room that an idle connection's buffer keeps.
const KEPT: usize = 256 << 10;

/// How long a client that was cut off has to take the words of farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where a client's bytes go: a socket, or what a simulation has for one.
pub type Writing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The bytes on their way to a client.
pub struct Outbox {
    socket: Writing,
    bytes: Vec<u8>,
    stalled_max: Duration,
    acks: u64,
}

impl Outbox {
    /// Over the writing half of a connection.
    #[must_use]
    pub fn new(socket: Writing, stalled_max: Duration) -> Self {
        Self { socket, bytes: Vec::new(), stalled_max, acks: 0 }
    }

    /// Adds a line.
    pub fn push(&mut self, reply: &Reply<'_>) {
        self.end_acks();
        reply.encode(&mut self.bytes);
    }

    /// Adds one to the records that the next `ACKS` line acknowledges.
    pub fn push_cumulative_ack(&mut self) {
        self.acks += 1;
    }

    /// Writes what was gathered, if it is much.
    ///
    /// # Errors
    /// When the client is gone, or was cut off.
    pub async fn flush_when_large(&mut self) -> io::Result<()> {
        if self.bytes.len() < LARGE {
            return Ok(());
        }
        self.flush().await
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// When the client is gone, or was cut off ([`io::ErrorKind::TimedOut`]).
    pub async fn flush(&mut self) -> io::Result<()> {
        self.end_acks();
        let mut written = 0;
        while written < self.bytes.len() {
            match timeout(self.stalled_max, self.socket.write(&self.bytes[written..])).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(bytes)) => written += bytes,
                Ok(Err(error)) => return Err(error),
                Err(_) => return self.cut_off(written).await,
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        Ok(())
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.acks == 0
    }

    /// Says goodbye on the socket: the client reads all that was written, then the end.
    pub async fn close(&mut self) {
        // The client may have gone first; then there is nothing to close.
        let _ = self.socket.shutdown().await;
    }

    fn end_acks(&mut self) {
        let count = std::mem::take(&mut self.acks);
        if count > 0 {
            Reply::Acks(count).encode(&mut self.bytes);
        }
    }

    async fn cut_off(&mut self, written: usize) -> io::Result<()> {
        let unsent = &self.bytes[written..];
        // At the start of a line nothing of it needs finishing.
        let in_line = written > 0 && self.bytes[written - 1] != b'\n';
        let line = if in_line { memchr::memchr(b'\n', unsent).map_or(0, |at| at + 1) } else { 0 };
        let mut farewell = unsent[..line].to_vec();
        let seconds = self.stalled_max.as_secs();
        let error = ErrorCode::Busy.with(&format!(
            "cut off: nothing was read for {seconds} s; read faster, or subscribe to less, and connect again"
        ));
        Reply::Err(error).encode(&mut farewell);
        self.bytes.clear();
        let _ = timeout(FAREWELL, self.socket.write_all(&farewell)).await;
        Err(io::ErrorKind::TimedOut.into())
    }
}
