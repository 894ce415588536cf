//! The producer's link for a program that has one poll loop, no threads and no runtime.
//!
//! The caller owns the loop: it polls [`ProducerLink::fd`] for reading (and for writing when
//! [`ProducerLink::wants_write`] says so) until [`ProducerLink::next_wake_ms`] at the latest,
//! then calls [`ProducerLink::drive`], which never waits for the network: it dials, reads,
//! writes and times out as far as that goes at once, and tells what happened.
//!
//! ```text
//!  Idle ──retry time──► Connecting ──stands──► Connected ──OK──► (records flow)
//!   ▲                        │                      │
//!   └──── lost, refused, timed out: the dialer names the next broker and the time
//! ```
//!
//! One thing may wait: resolving a broker's name (`getaddrinfo`), usually for no time at all, at worst for
//! the resolver's own timeouts. It is done once, and again when an address has failed for long (`names`);
//! whoever cannot afford that gives addresses instead of names.
//!
//! What the caller owes: sequences must not be used twice for different records by one producer
//! id, also after a restart. So the caller keeps [`ProducerLink::next_sequence`] and the
//! unanswered records with their sequences (the producer's spool does), and gives them back
//! through [`ProducerLink::send_with`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::Buf;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::config::ClientConfig;
use super::dial::plain;
use super::dialer::Dialer;
use super::names::Names;
use super::pipeline::{Answer, Pipeline};
use super::socket;
use crate::clock::SharedClock;
use crate::wire::WireError;
use crate::{Offset, PartitionId};

pub use super::pipeline::WindowFull;

/// Most bytes read in one `drive`: a broker that answers without end must not keep the caller's
/// loop from its other descriptors. `poll` reports the rest again.
const READ_BYTES_MAX: usize = 1 << 20;

/// Read at one go.
const CHUNK_BYTES: usize = 16 << 10;

/// What happened on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A broker took the registration; records flow.
    Connected {
        /// The broker, as it was given.
        broker: String,
    },
    /// A connection was lost, or an attempt to connect failed.
    Disconnected {
        /// Why.
        reason: String,
        /// When the next attempt begins.
        retry_in_ms: u64,
    },
    /// A record is stored, durably.
    Stored {
        /// Its sequence.
        sequence: u64,
        /// Its place in its partition.
        offset: Offset,
        /// Its partition.
        partition: PartitionId,
    },
    /// A record is refused for good; it will not be sent again.
    Refused {
        /// Its sequence.
        sequence: u64,
        /// Why.
        error: WireError,
    },
}

impl From<Answer> for LinkEvent {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Stored { sequence, offset, partition } => {
                Self::Stored { sequence, offset, partition }
            }
            Answer::Refused { sequence, error } => Self::Refused { sequence, error },
        }
    }
}

#[derive(Debug)]
enum State {
    Idle { retry_at_ms: u64 },
    Connecting { socket: Socket, deadline_ms: u64, further: VecDeque<SocketAddr> },
    Connected { stream: TcpStream },
}

/// A producer's connection that mends itself.
pub struct ProducerLink {
    config: ClientConfig,
    clock: SharedClock,
    dialer: Dialer,
    names: Names,
    pipeline: Pipeline,
    state: State,
    announced: bool,
}

impl std::fmt::Debug for ProducerLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerLink")
            .field("state", &self.state)
            .field("unanswered", &self.pipeline.unanswered())
            .finish_non_exhaustive()
    }
}

impl ProducerLink {
    /// A link that dials at its first `drive`. `next_sequence` is 1 for a producer that is new,
    /// and what `next_sequence` said last for one that is started again.
    #[must_use]
    pub fn new(config: ClientConfig, next_sequence: u64, clock: SharedClock) -> Self {
        Self {
            dialer: Dialer::new(config.brokers.clone(), config.backoff),
            names: Names::default(),
            pipeline: Pipeline::new(config.clone(), next_sequence),
            config,
            clock,
            state: State::Idle { retry_at_ms: 0 },
            announced: false,
        }
    }

    /// Takes a record in under the next sequence; the next `drive` sends it. A topic that is
    /// none, or a record too long for a line, is answered by a [`LinkEvent::Refused`] like one
    /// that the broker refuses.
    ///
    /// # Errors
    /// When too many records are unanswered: drive the link and send again.
    pub fn send(&mut self, topic: &str, key: &[u8], payload: &[u8]) -> Result<u64, WindowFull> {
        self.pipeline.send(topic, key, payload)
    }

    /// Takes a record in that had its sequence before, as one restored from a spool. A sequence
    /// that is unanswered already is taken for the same record. Records are sent in the order of
    /// their sequences, so the lowest should be given back first.
    ///
    /// # Errors
    /// When too many records are unanswered: drive the link and send again.
    pub fn send_with(
        &mut self,
        sequence: u64,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<(), WindowFull> {
        self.pipeline.send_with(sequence, topic, key, payload)
    }

    /// The sequence that the next `send` will use: what a caller keeps across restarts.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.pipeline.next_sequence()
    }

    /// How many records no broker has answered for.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.pipeline.unanswered()
    }

    /// Whether a broker took the registration on the connection that stands now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.pipeline.is_ready()
    }

    /// What to poll, if there is a socket. It changes with every connection: ask before each poll.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Idle { .. } => None,
            State::Connecting { socket, .. } => Some(socket.as_fd()),
            State::Connected { stream } => Some(stream.as_fd()),
        }
    }

    /// Whether to poll for writing too.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        match self.state {
            State::Idle { .. } => false,
            State::Connecting { .. } => true,
            State::Connected { .. } => self.pipeline.wants_write(),
        }
    }

    /// When `drive` is due though nothing arrives: monotonic milliseconds of the link's clock.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        match self.state {
            State::Idle { retry_at_ms } => Some(retry_at_ms),
            State::Connecting { deadline_ms, .. } => Some(deadline_ms),
            State::Connected { .. } => self.pipeline.wake_ms(),
        }
    }

    /// Waits until `drive` has something to do, for at most `timeout_ms`; a signal ends it too.
    /// For callers that have nothing else to poll.
    pub fn wait(&mut self, timeout_ms: u64) {
        let now_ms = self.clock.monotonic_ms();
        let due_ms = self.next_wake_ms().map_or(u64::MAX, |wake| wake.saturating_sub(now_ms));
        let timeout = i32::try_from(timeout_ms.min(due_ms)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        let mut events = PollFlags::POLLIN;
        if self.wants_write() {
            events |= PollFlags::POLLOUT;
        }
        let mut fds: Vec<PollFd<'_>> =
            self.fd().map(|fd| PollFd::new(fd, events)).into_iter().collect();
        // Interrupted is as good as ready: `drive` finds out for itself.
        let _ = poll(&mut fds, timeout);
    }

    /// Does all that can be done without waiting, and tells what happened, in order.
    pub fn drive(&mut self) -> Vec<LinkEvent> {
        let now_ms = self.clock.monotonic_ms();
        let mut events = Vec::new();
        if let Err(reason) = self.advance(now_ms, &mut events) {
            self.collect(&mut events);
            self.pipeline.disconnected();
            self.announced = false;
            if let Some(broker) = self.dialer.broker() {
                self.names.failed(broker, now_ms);
            }
            let retry_in_ms = self.dialer.failed(&reason);
            self.state = State::Idle { retry_at_ms: now_ms + retry_in_ms };
            events.push(LinkEvent::Disconnected { reason, retry_in_ms });
        }
        self.collect(&mut events);
        events
    }

    fn collect(&mut self, events: &mut Vec<LinkEvent>) {
        events.extend(self.pipeline.take_answers().into_iter().map(LinkEvent::from));
    }

    /// An error is the reason why there is no connection.
    fn advance(&mut self, now_ms: u64, events: &mut Vec<LinkEvent>) -> Result<(), String> {
        if matches!(self.state, State::Idle { retry_at_ms } if now_ms >= retry_at_ms) {
            let broker = self.dialer.broker().ok_or("no broker was given")?;
            let addresses = self.names.addresses(broker, now_ms, resolve)?;
            self.dial(addresses, now_ms)?;
        }
        if matches!(self.state, State::Connecting { .. }) {
            self.check_connecting(now_ms)?;
        }
        if matches!(self.state, State::Connected { .. }) {
            let read = self.read(now_ms);
            self.announce(events);
            read?;
            self.write(now_ms)?;
            self.pipeline.check_time(now_ms)?;
        }
        Ok(())
    }

    /// Begins a connection to the first address that takes one.
    fn dial(&mut self, mut addresses: VecDeque<SocketAddr>, now_ms: u64) -> Result<(), String> {
        let mut reason = "its name has no address".to_owned();
        while let Some(address) = addresses.pop_front() {
            match begin(address) {
                Ok(socket) => {
                    let deadline_ms = now_ms + millis(self.config.connect_timeout);
                    self.state = State::Connecting { socket, deadline_ms, further: addresses };
                    return Ok(());
                }
                Err(error) => reason = format!("{address}: {error}"),
            }
        }
        Err(reason)
    }

    fn check_connecting(&mut self, now_ms: u64) -> Result<(), String> {
        let idle = State::Idle { retry_at_ms: now_ms };
        let State::Connecting { socket, deadline_ms, further } =
            std::mem::replace(&mut self.state, idle)
        else {
            return Ok(());
        };
        let failure = match (socket.take_error(), socket.peer_addr()) {
            (Ok(None), Ok(_)) => {
                socket::configure(&SockRef::from(&socket), self.config.request_timeout)
                    .map_err(|error| format!("the socket cannot be set up: {error}"))?;
                self.state = State::Connected { stream: socket.into() };
                return self.pipeline.connected(now_ms);
            }
            (Ok(None), Err(_)) if now_ms < deadline_ms => {
                self.state = State::Connecting { socket, deadline_ms, further };
                return Ok(());
            }
            (Ok(None), Err(_)) => {
                format!("no connection within {} ms", millis(self.config.connect_timeout))
            }
            (Ok(Some(error)) | Err(error), _) => plain(&error),
        };
        // A name may have several addresses (::1 and 127.0.0.1), of which only one is served.
        if further.is_empty() { Err(failure) } else { self.dial(further, now_ms) }
    }

    fn read(&mut self, now_ms: u64) -> Result<(), String> {
        let State::Connected { stream } = &mut self.state else { return Ok(()) };
        let mut chunk = [0_u8; CHUNK_BYTES];
        let mut total = 0;
        while total < READ_BYTES_MAX {
            match stream.read(&mut chunk) {
                Ok(0) => return Err("the broker closed the connection".to_owned()),
                Ok(read) => {
                    total += read;
                    self.pipeline.received(&chunk[..read], now_ms)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn write(&mut self, now_ms: u64) -> Result<(), String> {
        let State::Connected { stream } = &mut self.state else { return Ok(()) };
        loop {
            self.pipeline.fill(now_ms);
            let out = self.pipeline.out();
            if out.is_empty() {
                return Ok(());
            }
            match stream.write(out) {
                Ok(written) => out.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Tells of a registration before anything that followed from it.
    fn announce(&mut self, events: &mut Vec<LinkEvent>) {
        if self.pipeline.is_ready() && !self.announced {
            self.announced = true;
            self.dialer.connected();
            if let Some(broker) = self.dialer.broker() {
                self.names.answered(broker);
            }
            let broker = self.dialer.broker().unwrap_or_default().to_owned();
            events.push(LinkEvent::Connected { broker });
        }
        if self.pipeline.is_proved() {
            self.dialer.proved();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

fn resolve(broker: &str) -> Result<VecDeque<SocketAddr>, String> {
    match broker.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("the name of {broker} cannot be resolved: {error}")),
    }
}

/// A socket that is connecting.
fn begin(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
