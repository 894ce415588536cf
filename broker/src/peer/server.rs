//! Takes in connections of other brokers, and hands what they carry to a [`PeerHandler`].
//!
//! Each connection is a task, each message or stream on it another. A handler is dropped in the
//! middle of its work when its caller has given up or is gone, so it must leave nothing half done
//! at an `await`; what must go on belongs into a task of its own.
//!
//! The end, in order: no connection is let in any more; streams end with an error, for they could
//! last for ever; messages that are being answered have [`DRAIN`]; then all connections are cut.
//!
//! Who sends anything but HTTP/2 is cut off, and so is who sends nothing: a broker connects when it
//! has something to say.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

use super::connection::prepare;
use super::wire::peer_server::{Peer, PeerServer};
use super::wire::{self, Reply};
use super::{
    CONNECTION_WINDOW, FRAME_BYTES_MAX, PING_EVERY, SILENCE_MAX, STREAM_WINDOW, WIRE_BYTES_MAX,
};
use crate::replication::{Answers, Envelope, PeerHandler};

/// Most connections at once: a broker has one a lane, and while it connects anew the old ones are
/// on their way out. The next one waits until another ends.
const CONNECTIONS_MAX: usize = 128;

/// Messages and streams under way on one connection; what is more waits at its sender. A stream a
/// partition, and the questions of as many connected clients.
const STREAMS_MAX: u32 = 1024;

/// How long a connection may last before its first message is read to the end of its header.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(10);

/// After an accept that failed for want of file handles or memory, so long nobody is let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long messages that are being answered have at a shutdown. Other brokers have long turned to
/// the next leader when it is over.
const DRAIN: Duration = Duration::from_secs(2);

/// Answers other brokers until `stopping`; then ends what is open, within about two seconds.
///
/// # Errors
/// When the listener breaks, so that nobody could connect any more.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<dyn PeerHandler>,
    stopping: CancellationToken,
) -> io::Result<()> {
    serve_with(listener, handler, stopping, FIRST_MESSAGE_MAX).await
}

pub(super) async fn serve_with(
    listener: TcpListener,
    handler: Arc<dyn PeerHandler>,
    stopping: CancellationToken,
    first_message_max: Duration,
) -> io::Result<()> {
    // Also cancelled when the listener breaks, which is not for us to call the end of the broker.
    let stopping = stopping.child_token();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    // However this function ends, also when it is dropped: no connection outlives it.
    let _cut_at_the_end = cut.clone().drop_guard();
    let desk = Arc::new(Desk { handler, stopping: stopping.clone(), first_message_max });
    let accepting = async {
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
            let Some(socket) = accept(&listener).await? else { continue };
            let (desk, cut) = (desk.clone(), cut.clone());
            connections.spawn(async move {
                let ended = cut.run_until_cancelled(converse(socket, desk)).await;
                if let Some(Err(error)) = ended {
                    tracing::debug!(%error, "a connection of another broker broke");
                }
                drop(place);
            });
        }
    };
    let accepted = stopping.run_until_cancelled(accepting).await.unwrap_or(Ok(()));
    drop(listener);
    stopping.cancel();
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::debug!(left = connections.len(), "connections of other brokers are cut");
    }
    accepted
}

/// The next connection, or none this time.
async fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept().await {
        Ok((socket, _)) => Ok(Some(socket)),
        // What accept(2) says of a socket that does not listen: it never will again.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a connection of another broker was not let in");
            sleep(ACCEPT_PAUSE).await;
            Ok(None)
        }
    }
}

async fn converse(
    socket: TcpStream,
    desk: Arc<Desk>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    prepare(&socket)?;
    let (stopping, first_message_max) = (desk.stopping.clone(), desk.first_message_max);
    let heard = Arc::new(AtomicBool::new(false));
    let peer = PeerServer::from_arc(desk).max_decoding_message_size(WIRE_BYTES_MAX);
    let service = {
        let heard = heard.clone();
        service_fn(move |request: hyper::Request<Incoming>| {
            heard.store(true, Ordering::Relaxed);
            peer.clone().call(request)
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(SILENCE_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut patience = pin!(sleep(first_message_max));
    let (mut patient, mut open) = (true, true);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = patience.as_mut(), if patient => patient = false,
            () = stopping.cancelled(), if open => {
                open = false;
                connection.as_mut().graceful_shutdown();
            }
        }
        // Its time is up, or the broker's.
        if !heard.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Where messages are handed over.
struct Desk {
    handler: Arc<dyn PeerHandler>,
    stopping: CancellationToken,
    first_message_max: Duration,
}

#[tonic::async_trait]
impl Peer for Desk {
    type StreamStream = BoxStream<'static, Result<Reply, Status>>;

    async fn call(&self, request: Request<wire::Envelope>) -> Result<Response<Reply>, Status> {
        let answer = self.handler.call(request.into_inner().into()).await;
        Ok(Response::new(answer.into()))
    }

    async fn stream(
        &self,
        request: Request<Streaming<wire::Envelope>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let broken = Arc::new(OnceLock::new());
        let messages = up_to_a_broken_one(request.into_inner(), broken.clone());
        let answers = self.handler.stream(messages.boxed());
        let answering = Answering { answers, broken, stopping: self.stopping.clone() };
        Ok(Response::new(stream::unfold(Some(answering), Answering::next).boxed()))
    }
}

/// The messages of a stream, up to one that cannot be read.
fn up_to_a_broken_one(
    messages: Streaming<wire::Envelope>,
    broken: Arc<OnceLock<Status>>,
) -> impl Stream<Item = Envelope> + Send {
    messages.scan(broken, |broken, message| {
        // Nothing is read after a broken one, so it is set once.
        ready(message.map_err(|status| broken.set(status)).ok().map(Envelope::from))
    })
}

/// The answers to a stream, while there are any.
struct Answering {
    answers: Answers,
    /// Set when a message could not be read: the error that ends the answers to those before it.
    broken: Arc<OnceLock<Status>>,
    stopping: CancellationToken,
}

impl Answering {
    async fn next(answering: Option<Self>) -> Option<(Result<Reply, Status>, Option<Self>)> {
        let mut answering = answering?;
        match answering.stopping.run_until_cancelled(answering.answers.next()).await {
            Some(Some(answer)) => {
                let rest = answer.is_ok().then_some(answering);
                Some((Ok(Reply::from(answer)), rest))
            }
            Some(None) => answering.broken.get().map(|status| (Err(status.clone()), None)),
            None => Some((Err(Status::unavailable("this broker is stopping")), None)),
        }
    }
}
