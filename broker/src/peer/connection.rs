//! One connection to another broker: HTTP/2 below, what tonic asks for above.
//!
//! [`Caller`] is the service that tonic's generated client speaks to. It stands on h2 and not on
//! tonic's own channel (which is hyper's client) for the sake of one case: there, a stream whose
//! other side has stopped reading cannot be given up. Its sender waits for room and sees nothing
//! else, so the stream stays for ever and with it a part of the connection's window; a broker that
//! asks again and again would pile them up. Here the body of the answer holds a guard: dropped, it
//! resets the stream, whatever its sender waits for.
//!
//! A connection is made once. When it is broken it says so ([`Connection::is_broken`]) and somebody
//! makes another; nothing here tries again.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use hyper::body::{Body, Frame};
use hyper::{Request, Response};
use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body as Outgoing;
use tonic::codegen::Service;

use super::{CONNECTION_WINDOW, FRAME_BYTES_MAX, PING_EVERY, SILENCE_MAX, STREAM_WINDOW};

/// How long a name may take to resolve, and then all its addresses to connect. The kernel repeats
/// a lost first packet after a second; by then it is better to begin again.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Bytes of a stream that are taken from its sender before they are on their way.
const SEND_BUFFER_MAX: usize = 1 << 20;

type BoxError = Box<dyn Error + Send + Sync>;

/// A connection that is being made, stands or is broken.
pub(super) struct Connection {
    /// The same outcome for all who wait for it.
    made: Shared<BoxFuture<'static, Result<SendRequest<Bytes>, Arc<io::Error>>>>,
    broken: CancellationToken,
}

impl Connection {
    /// Begins to connect. That goes on when those who wait for it no longer do: a name that
    /// resolves slowly would otherwise never be resolved for who waits a short time only.
    pub(super) fn new(address: &str) -> Self {
        let broken = CancellationToken::new();
        let connecting = tokio::spawn(connect(address.to_owned(), broken.clone()));
        let made = async move { connecting.await.map_err(io::Error::other)?.map_err(Arc::new) };
        Self { made: made.boxed().shared(), broken }
    }

    /// Whether it was made in vain, or is no more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    #[cfg(test)]
    pub(super) async fn until_broken(&self) {
        self.broken.cancelled().await;
    }
}

async fn connect(address: String, broken: CancellationToken) -> io::Result<SendRequest<Bytes>> {
    let breaks = broken.drop_guard();
    let socket = dial(&address).await?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .enable_push(false);
    let (sender, mut connection) = builder.handshake(socket).await.map_err(io::Error::other)?;
    let pings = connection.ping_pong();
    tokio::spawn(async move {
        let _breaks = breaks;
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(address, %error, "a connection to another broker broke");
            },
            () = silence(pings) => {
                tracing::debug!(address, "a connection to another broker fell silent");
            }
        }
    });
    Ok(sender)
}

/// A socket to one of the addresses of this name.
async fn dial(address: &str) -> io::Result<TcpStream> {
    let too_late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    let found = timeout(CONNECT_MAX, lookup_host(address)).await;
    let found: Vec<_> = found.map_err(|_| too_late("its name is not resolved in time"))??.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    let share = CONNECT_MAX / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    for address in found {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                prepare(&socket)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = too_late("nobody answers there"),
        }
    }
    Err(last)
}

/// Sets what both ends of a connection need.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // Without it the kernel repeats for a quarter of an hour what nobody confirms, with ever longer
    // pauses, and a network that is whole again is found out late.
    SockRef::from(socket).set_tcp_user_timeout(Some(SILENCE_MAX))
}

/// Returns when the other side gives no sign of life.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(PING_EVERY).await;
        match timeout(SILENCE_MAX, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself will tell.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Calls over a connection, as tonic's client does.
#[derive(Clone)]
pub(super) struct Caller {
    connection: Arc<Connection>,
}

impl Caller {
    pub(super) const fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }
}

impl Service<Request<Outgoing>> for Caller {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Outgoing>) -> Self::Future {
        let made = self.connection.made.clone();
        Box::pin(async move { send(made.await?, request).await })
    }
}

async fn send(
    sender: SendRequest<Bytes>,
    request: Request<Outgoing>,
) -> Result<Response<Incoming>, BoxError> {
    let (head, body) = request.into_parts();
    // Waits while as many streams are open as the other side allows.
    let (response, stream) =
        sender.ready().await?.send_request(Request::from_parts(head, ()), false)?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move {
        let mut stream = stream;
        let sent = ended.run_until_cancelled(send_body(body, &mut stream)).await;
        if !matches!(sent, Some(Ok(()))) {
            stream.send_reset(Reason::CANCEL);
        }
    });
    let response = response.await?;
    Ok(response.map(|stream| Incoming { stream, data_done: false, _guard: guard }))
}

async fn send_body(body: Outgoing, stream: &mut SendStream<Bytes>) -> Result<(), BoxError> {
    let mut body = pin!(body);
    loop {
        let frame = poll_fn(|context| {
            // Also when there is nothing to send: who is not read any more shall know.
            if let Poll::Ready(reset) = stream.poll_reset(context) {
                return Poll::Ready(Err(BoxError::from(h2::Error::from(reset?))));
            }
            body.as_mut().poll_frame(context).map(Ok)
        });
        let Some(frame) = frame.await? else { break };
        // A request has no trailers.
        let Ok(mut data) = frame?.into_data() else { continue };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = poll_fn(|context| stream.poll_capacity(context)).await;
            let room = room.ok_or("the stream is closed")??;
            stream.send_data(data.split_to(room.min(data.len())), false)?;
        }
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// The body of an answer as it comes. Dropped, it ends the whole call.
pub(super) struct Incoming {
    stream: RecvStream,
    data_done: bool,
    _guard: DropGuard,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    self.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_a_connection_are_told_the_same() {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = closed.local_addr().expect("bound").to_string();
        drop(closed);
        let connection = Connection::new(&address);
        let (one, two) = tokio::join!(connection.made.clone(), connection.made.clone());
        let (one, two) = (one.expect_err("an error"), two.expect_err("an error"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connection.is_broken());
    }

    #[tokio::test]
    async fn connecting_goes_on_when_nobody_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connection = Connection::new(&listener.local_addr().expect("bound").to_string());
        assert!(connection.made.clone().now_or_never().is_none());
        let forever = Duration::from_secs(30);
        let (mut other_end, _) = listener.accept().await.expect("connected");
        let mut preface = [0; 3];
        let read = timeout(forever, other_end.read_exact(&mut preface)).await;
        read.expect("it goes on").expect("connected");
        assert_eq!(&preface, b"PRI");
        assert!(connection.made.clone().await.is_ok());
        assert!(!connection.is_broken());
        drop(other_end);
        timeout(forever, connection.until_broken()).await.expect("it breaks");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told() {
        let error = Connection::new("nobody.invalid:1").made.await.expect_err("an error");
        assert!(!error.to_string().is_empty());
    }
}
