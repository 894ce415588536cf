//! HTTP connections, as many as there is room for, each for as long as it may last.
//!
//! Whoever only holds connections open must take neither the file handles that the log needs nor
//! the places of those who ask something. A stream of events may last on, as long as its reader takes
//! bytes: its time begins anew with each that is written.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Most HTTP connections at once: a scraper, a health check, some people. The next one waits until
/// another ends.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last, a stream without a byte taken. A scrape takes milliseconds and can
/// connect anew.
const CONNECTION_MAX: Duration = Duration::from_secs(60);

/// Lets so many connections in at once.
pub(super) struct Limited {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

/// A connection that holds its place until its time is up.
pub(super) struct Placed {
    socket: TcpStream,
    time_is_up: Pin<Box<Sleep>>,
    lease: Lease,
    _place: OwnedSemaphorePermit,
}

/// For how long a connection has its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease(Arc<AtomicBool>);

impl Lease {
    /// The connection is a stream from here on.
    pub(super) fn extend(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Limited>> for Lease {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        stream.io().lease.clone()
    }
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Limited {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        let Ok(place) = self.room.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        // axum's own accept waits a little after an error, and tries again.
        let (socket, peer) = Listener::accept(&mut self.listener).await;
        // A stream whose reader is gone without a word must not keep its place for a quarter of an
        // hour, as TCP would; where that cannot be set it does.
        let _ = SockRef::from(&socket).set_tcp_user_timeout(Some(CONNECTION_MAX));
        let (time_is_up, lease) = (Box::pin(sleep(CONNECTION_MAX)), Lease::default());
        (Placed { socket, time_is_up, lease, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Placed {
    /// Fails once the time is up; until then whoever waits is woken when it is.
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.time_is_up.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        if written.is_ready() && self.lease.0.load(Ordering::Relaxed) {
            self.time_is_up.set(sleep(CONNECTION_MAX));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
