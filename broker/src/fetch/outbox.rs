//! What a connection has to say, gathered and written a buffer at a time.
//!
//! A client that takes no byte for the time allowed is cut off: when it reads again within a few
//! seconds it finds the rest of its line and an error that says why. Nobody else waits for it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::time::Duration;

use aklight_common::Offset;
use aklight_common::wire::{AckLines, ErrorCode, MessageLines, Reply, WireError};
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::lines::{WantedRecords, Written};

/// Bytes gathered before they are written in the middle of a listing: a full buffer's cost a
/// system call is a small part of a microsecond a line.
const LARGE: usize = 64 << 10;

/// Room that an idle connection's buffer keeps.
const KEPT: usize = 256 << 10;

/// Least bytes of a stretch of shared lines that are sent from where they are: fewer are sooner copied.
const SHARED_MIN: usize = 4 << 10;

/// Most pieces of one gathered write: Linux's `IOV_MAX`.
const PIECES_MAX: usize = 1024;

/// Bytes of a page of memory.
const PAGE_BYTES: usize = 4096;

/// How long a client that was cut off has to take the words of farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where a client's bytes go: a socket, or what a simulation has for one.
pub type Writing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The bytes on their way to a client.
pub struct Outbox {
    socket: Writing,
    /// From `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// What others are sent too, and before which of `bytes` it goes.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    stalled_max: Duration,
    acks: u64,
}

impl Outbox {
    /// Over the writing half of a connection.
    #[must_use]
    pub fn new(socket: Writing, stalled_max: Duration) -> Self {
        Self {
            socket,
            bytes: Vec::new(),
            start: 0,
            shared: Vec::new(),
            shared_bytes: 0,
            stalled_max,
            acks: 0,
        }
    }

    /// Adds a line.
    pub fn push(&mut self, reply: &Reply<'_>) {
        self.end_acks();
        reply.encode(&mut self.bytes);
    }

    /// Adds the line that answers for one record.
    #[inline]
    pub fn push_ack(&mut self, lines: &mut AckLines, topic: &[u8], offset: Offset) {
        self.end_acks();
        lines.put(&mut self.bytes, topic, offset);
    }

    /// Adds lines of a batch's records, until there is much to be written, and counts them off `room`.
    ///
    /// # Errors
    /// When what is stored does not decode.
    pub fn put(
        &mut self,
        records: &mut WantedRecords<'_>,
        lines: &mut MessageLines,
        from: Offset,
        room: &mut u64,
    ) -> Result<Written, WireError> {
        self.end_acks();
        records.put(lines, from, room, self.start + LARGE, &mut self.bytes)
    }

    /// Adds lines that others are sent, too.
    pub fn share(&mut self, text: &Bytes, lines: Range<usize>) {
        self.end_acks();
        if lines.len() < SHARED_MIN {
            self.bytes.extend_from_slice(&text[lines]);
        } else {
            self.shared_bytes += lines.len();
            self.shared.push((self.bytes.len(), text.slice(lines)));
        }
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
        if self.len() < LARGE {
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
        while written < self.len() {
            let mut pieces = pieces(&self.bytes, self.start, &self.shared);
            let mut pieces = &mut pieces[..];
            IoSlice::advance_slices(&mut pieces, written);
            let pieces = &pieces[..pieces.len().min(PIECES_MAX)];
            match timeout(self.stalled_max, self.socket.write_vectored(pieces)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(bytes)) => written += bytes,
                Ok(Err(error)) => return Err(error),
                Err(_) => return self.cut_off(written).await,
            }
        }
        self.restart();
        Ok(())
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start + self.shared_bytes
    }

    fn restart(&mut self) {
        self.shared.clear();
        self.shared_bytes = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        make_room(&mut self.bytes, 0);
        self.start = self.bytes.len();
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.acks == 0
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
        let pieces = pieces(&self.bytes, self.start, &self.shared);
        let all: Vec<_> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let (sent, unsent) = all.split_at(written);
        // At the start of a line nothing of it needs finishing.
        let in_line = sent.last().is_some_and(|byte| *byte != b'\n');
        let line = if in_line { memchr::memchr(b'\n', unsent).map_or(0, |at| at + 1) } else { 0 };
        let mut farewell = unsent[..line].to_vec();
        let seconds = self.stalled_max.as_secs();
        let error = ErrorCode::Busy.with(&format!(
            "cut off: nothing was read for {seconds} s; read faster, or subscribe to less, and connect again"
        ));
        Reply::Err(error).encode(&mut farewell);
        self.restart();
        let _ = timeout(FAREWELL, self.socket.write_all(&farewell)).await;
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// All that is to be written, in its order.
fn pieces<'a>(bytes: &'a [u8], start: usize, shared: &'a [(usize, Bytes)]) -> Vec<IoSlice<'a>> {
    let mut pieces = Vec::with_capacity(2 * shared.len() + 1);
    let mut from = start;
    for (at, shared) in shared {
        pieces.push(IoSlice::new(&bytes[from..*at]));
        pieces.push(IoSlice::new(shared));
        from = *at;
    }
    pieces.push(IoSlice::new(&bytes[from..]));
    pieces
}

/// Makes room for so many bytes in an empty buffer. Where they are many they begin at a page: from most
/// other places the kernel copies large writes at a fraction of the speed (`design/limits.md`, section 1).
pub fn make_room(bytes: &mut Vec<u8>, room: usize) {
    debug_assert!(bytes.is_empty(), "what is there would be moved");
    if bytes.capacity().max(room) < LARGE {
        return bytes.reserve_exact(room);
    }
    bytes.reserve_exact(PAGE_BYTES + room);
    let pad = bytes.as_ptr().align_offset(PAGE_BYTES);
    if pad < PAGE_BYTES {
        bytes.resize(pad, 0);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::sleep;

    use super::*;

    const STALLED_MAX: Duration = Duration::from_secs(30);

    /// 1,000 lines of 10 bytes.
    fn lines() -> Bytes {
        (0..1000).map(|n| format!("line {n:04}\n")).collect::<String>().into()
    }

    #[tokio::test]
    async fn what_is_shared_keeps_its_place() {
        let (mut client, socket) = duplex(1 << 20);
        let mut out = Outbox::new(Box::new(socket), STALLED_MAX);
        let lines = lines();
        let mut expect = String::new();
        for round in 0..3 {
            out.share(&lines, 0..50);
            out.push_cumulative_ack();
            out.share(&lines, 100..9_000);
            out.push(&Reply::Ok);
            out.share(&lines, 10..(20 * round).max(10));
            out.push_cumulative_ack();
            out.flush().await.expect("the client is there");
            for part in [&lines[..50], b"ACKS|1\n", &lines[100..9_000], b"OK\n"] {
                expect += std::str::from_utf8(part).expect("ASCII");
            }
            expect += std::str::from_utf8(&lines[10..(20 * round).max(10)]).expect("ASCII");
            expect += "ACKS|1\n";
        }
        drop(out);
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("it ends");
        assert_eq!(got, expect);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cut_off_in_a_shared_line_finds_its_rest() {
        // All but the last lines, and a part of one.
        for taken in [6_005, 6_010, 9_999] {
            let (mut client, socket) = duplex(3 + taken);
            let mut out = Outbox::new(Box::new(socket), STALLED_MAX);
            let lines = lines();
            out.push(&Reply::Ok);
            out.share(&lines, 0..lines.len());
            let flushed = tokio::spawn(async move { out.flush().await.map_err(|e| e.kind()) });
            sleep(STALLED_MAX + FAREWELL / 2).await;
            let mut got = String::new();
            client.read_to_string(&mut got).await.expect("it ends");
            assert_eq!(flushed.await.expect("no panic"), Err(io::ErrorKind::TimedOut));
            let whole = std::str::from_utf8(&lines[..taken.next_multiple_of(10)]).expect("ASCII");
            let rest = got.strip_prefix("OK\n").and_then(|got| got.strip_prefix(whole));
            assert!(rest.is_some_and(|rest| rest.starts_with("ERR|busy|cut off")), "{taken}");
        }
    }

    #[test]
    fn large_writes_begin_at_a_page() {
        for room in [0, 1, LARGE - 1, LARGE, 10 * LARGE + 1] {
            let mut bytes = Vec::new();
            make_room(&mut bytes, room);
            let start = bytes.len();
            assert!(bytes.capacity() >= start + room);
            let at_page = (start + bytes.as_ptr().addr()).is_multiple_of(PAGE_BYTES);
            assert!(if room < LARGE { start == 0 } else { at_page }, "{room}");
        }
    }
}
