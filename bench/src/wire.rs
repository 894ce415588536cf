//! A non-blocking connection with its two buffers.
//!
//! Buffers begin at a page. On this family of processors a copy whose target lies 16 bytes past
//! its source modulo 4 KiB runs at a fifth of its speed, and that is exactly where a large `Vec`
//! begins (`design/limits.md`, section 1): an unaligned bench would measure itself.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

/// Bytes of a page, and of an aligned beginning.
const PAGE: usize = 4_096;

/// What is collected for one write.
pub const WRITE_BYTES: usize = 64 << 10;

/// Bytes that were sent and still stand before those that were not: at most so many, and a write.
const SENT_BYTES_MAX: usize = 4 << 20;

/// What one read takes at most.
const READ_BYTES: usize = 256 << 10;

/// Room for the beginning of an answer that has not come whole: a record of 64 KiB, doubled.
const KEPT_BYTES: usize = 128 << 10;

/// Longest wait for a peer that has something to say. One that says nothing for so long hangs,
/// and a bench of the night must come to its end.
const SILENCE_MS: u16 = 30_000;

/// A connection.
pub struct Wire {
    socket: TcpStream,
    /// What is to be sent: append here, then `flush`. What stands before `sent` is gone.
    pub out: Vec<u8>,
    sent: usize,
    // What came. Reads go to `read_at`, a page's beginning; what was left of the last one is kept
    // right before it, so that it goes on there.
    input: Vec<u8>,
    read_at: usize,
    kept: usize,
    /// How long the peer may be silent where it has something to say, in milliseconds.
    pub patience_ms: u16,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        Self::new(socket).with_context(|| format!("preparing the connection to {address}"))
    }

    /// The connection over a socket.
    ///
    /// # Errors
    /// When the socket takes no option.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let input = vec![0; KEPT_BYTES + READ_BYTES + PAGE];
        let read_at = KEPT_BYTES + input.as_ptr().align_offset(PAGE);
        let mut wire = Self {
            socket,
            out: Vec::new(),
            sent: 0,
            input,
            read_at,
            kept: 0,
            patience_ms: SILENCE_MS,
        };
        wire.out.reserve(2 * WRITE_BYTES + PAGE);
        wire.restart_out();
        Ok(wire)
    }

    /// Bytes that are not sent yet.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what the socket takes. Gives back whether it took any.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn flush(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(bytes) => {
                    self.sent += bytes;
                    any = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.forget_sent();
                    return Ok(any);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the peer takes nothing more"),
            }
        }
        if any {
            self.restart_out();
        }
        Ok(any)
    }

    /// Reads once and hands over all that is there, with the buffer for answers to it; `parse`
    /// tells how many bytes it is done with. Gives back whether anything came.
    ///
    /// # Errors
    /// When the peer has closed, or `parse` refuses what came.
    pub fn receive(
        &mut self,
        parse: impl FnOnce(&[u8], &mut Vec<u8>) -> anyhow::Result<usize>,
    ) -> anyhow::Result<bool> {
        let came = match self.socket.read(&mut self.input[self.read_at..][..READ_BYTES]) {
            Ok(0) => {
                let gone = io::Error::from(ErrorKind::UnexpectedEof);
                return Err(gone).context("the peer closed the connection");
            }
            Ok(came) => came,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error).context("the peer says nothing more"),
        };
        let whole = self.read_at - self.kept..self.read_at + came;
        let consumed = parse(&self.input[whole.clone()], &mut self.out)?;
        let left = whole.start + consumed..whole.end;
        ensure!(left.len() <= KEPT_BYTES, "an answer of more than {KEPT_BYTES} bytes");
        self.kept = left.len();
        self.input.copy_within(left, self.read_at - self.kept);
        Ok(true)
    }

    /// What to wait for: something to read, and room for what is to be sent.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let room = if self.unsent() > 0 { PollFlags::POLLOUT } else { PollFlags::empty() };
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | room)
    }

    /// Waits until it can go on.
    ///
    /// # Errors
    /// When the peer is silent for half a minute.
    pub fn wait(&self) -> anyhow::Result<()> {
        wait_for(&mut [self.poll_fd()], self.patience_ms)
    }

    /// Sends a request and waits for its answer: `done` is shown all that has come so far, and
    /// gives back how many bytes the answer has, once it is whole.
    ///
    /// # Errors
    /// When the peer closes, falls silent, or `done` refuses what came.
    pub fn ask(
        &mut self,
        request: &[u8],
        mut done: impl FnMut(&[u8]) -> anyhow::Result<Option<usize>>,
    ) -> anyhow::Result<()> {
        self.out.extend_from_slice(request);
        let mut answered = false;
        while !answered {
            self.flush()?;
            self.wait()?;
            self.receive(|bytes, _| {
                let answer = done(bytes)?;
                answered = answer.is_some();
                Ok(answer.unwrap_or(0))
            })?;
        }
        Ok(())
    }

    // A peer that never takes all would make `out` grow with what it took.
    fn forget_sent(&mut self) {
        if self.sent > SENT_BYTES_MAX {
            let pad = self.out.as_ptr().align_offset(PAGE);
            self.out.drain(pad..self.sent);
            self.sent = pad;
        }
    }

    // The next write begins at a page, with what `out` holds from there on.
    fn restart_out(&mut self) {
        self.out.clear();
        let pad = self.out.as_ptr().align_offset(PAGE);
        self.out.resize(pad, 0);
        self.sent = pad;
    }
}

/// Whether an error is that of a connection that broke, and not of what came over it.
pub fn is_broken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some()
}

/// Waits until one of them can go on.
///
/// # Errors
/// When all are silent for half a minute.
pub fn wait(fds: &mut [PollFd<'_>]) -> anyhow::Result<()> {
    wait_for(fds, SILENCE_MS)
}

/// Waits until one of them can go on, or some nanoseconds are over.
///
/// # Errors
/// When the system cannot wait.
pub fn wait_ns(fds: &mut [PollFd<'_>], most_ns: u64) -> anyhow::Result<()> {
    let most = TimeSpec::from_duration(Duration::from_nanos(most_ns));
    match ppoll(fds, Some(most), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("waiting for the peer"),
    }
}

fn wait_for(fds: &mut [PollFd<'_>], patience_ms: u16) -> anyhow::Result<()> {
    loop {
        match poll(fds, PollTimeout::from(patience_ms)) {
            Ok(0) => bail!("the peer says nothing for {patience_ms} ms"),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the peer"),
        }
    }
}
