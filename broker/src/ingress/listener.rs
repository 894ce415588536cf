//! Takes connections in, as many as there is room for.
//!
//! A semaphore counts them. One more than the limit is told so in one line and closed; it costs
//! nothing that lasts. A connection's two tasks end together: when the client leaves, the answers
//! that are due are still written; when the answers cannot be written, the client is not read on.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_common::wire::{ErrorCode, Reply, WireError};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::answers::Answers;
use super::intake::{Intake, Reading, WORK_MAX};
use super::spin::{Spin, Spinning};
use crate::cluster::Fault;
use crate::fetch::{Outbox, Writing};
use crate::services::Services;

/// How long a connection that the broker closes may go on sending. Closing at once could make the
/// kernel throw the last answer away, when the client has sent something that was not read.
const LINGER: Duration = Duration::from_secs(1);

/// Refused connections that are given that time at once; beyond it they are told and closed.
const REFUSALS_MAX: usize = 64;

/// After an accept that failed for want of file handles or memory, so long nobody is let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients have, at a shutdown, to take the answers they are owed: within the ten seconds
/// that containers are given to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// A silent connection is asked for a sign of life after so long: a machine that vanished without
/// a word holds its place for about two minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long clients wait in the kernel's queue for a broker that starts: a usual start takes less.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// Turns clients away, with the reason, for as long as this is waited for: a broker that waits for
/// the others of its cluster answers nothing, and a client would not know to go elsewhere.
pub async fn turn_away(listener: Arc<TcpListener>) -> Infallible {
    tokio::time::sleep(START_PATIENCE).await;
    let error = ErrorCode::Unavailable.with(
        "this broker is starting, or waits for the others of its cluster: try another broker, or this one later (/debug/events on its HTTP port says what it waits for)",
    );
    loop {
        match listener.accept().await {
            // The client may be gone already: then nobody needs the reason.
            Ok((socket, _)) => drop(say_and_close(socket, error.clone())),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Lets clients in until the broker shuts down; then waits until their answers are written.
pub async fn serve(
    listener: Arc<TcpListener>,
    services: Arc<Services>,
    connections_max: usize,
    clock: SharedClock,
) {
    let room = Arc::new(Semaphore::new(connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let connections = TaskTracker::new();
    let lasts = services.limits.spin;
    let spin = (!lasts.is_zero()).then(|| Spin::new(lasts, clock));
    let _spinning =
        spin.as_ref().map(|spin| AbortOnDropHandle::new(tokio::spawn(spin.clone().run())));
    while let Some(accepted) = services.stopping.run_until_cancelled(listener.accept()).await {
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                services.events.warn("accept", format!("a connection was not let in: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if services.faults.now() == Some(Fault::Dead) {
            continue;
        }
        let Ok(place) = room.clone().try_acquire_owned() else {
            services.stats.connections_refused.inc();
            // The client may be gone already: then nobody needs the reason.
            if let Ok(refused) = refuse(socket, connections_max)
                && let Ok(place) = refusals.clone().try_acquire_owned()
            {
                tokio::spawn(async move {
                    let _ = timeout(LINGER, read_to_end(refused)).await;
                    drop(place);
                });
            }
            continue;
        };
        let services = services.clone();
        let spin = spin.clone();
        connections.spawn(async move {
            services.stats.connections.inc();
            if let Err(error) = converse_on(socket, spin, services.clone()).await {
                note_end(&services, peer, &error);
            }
            services.stats.connections.dec();
            drop(place);
        });
    }
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        let left = connections.len();
        services.events.warn("stop", format!("{left} clients did not read their last answers"));
    }
}

async fn converse_on(
    socket: TcpStream,
    spin: Option<Arc<Spin>>,
    services: Arc<Services>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    let (reading, writing) = socket.into_split();
    let reading: Reading = match spin {
        Some(spin) => Box::new(Spinning { under: reading, spin }),
        None => Box::new(reading),
    };
    converse(reading, Box::new(writing), services).await
}

/// Speaks with one client, over whatever carries bytes both ways, until either side ends it.
///
/// # Errors
/// When the client is gone, or was cut off ([`io::ErrorKind::TimedOut`]).
pub async fn converse(
    reading: Reading,
    writing: Writing,
    services: Arc<Services>,
) -> io::Result<()> {
    let (queue, work) = mpsc::channel(WORK_MAX);
    let out = Outbox::new(writing, services.limits.stalled_max);
    let ended = services.stopping.child_token();
    let intake = tokio::spawn(Intake::new(services.clone(), reading, queue, ended.clone()).read());
    let mut fault = services.faults.follow();
    let answered = tokio::select! {
        answered = Answers::new(services.clone(), out, ended.clone()).run(work) => answered,
        Ok(_) = fault.wait_for(|fault| *fault == Some(Fault::Dead)) => {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    };
    // Nobody is left to answer. The intake is not aborted but ends by itself: records that it let
    // in must reach their partition.
    ended.cancel();
    if let Ok(reading) = intake.await
        && answered.is_ok()
    {
        // A socket that is closed with input unread takes back what was answered last.
        let _ = timeout(LINGER, read_to_end(reading)).await;
    }
    answered
}

fn note_end(services: &Services, peer: SocketAddr, error: &io::Error) {
    if error.kind() == io::ErrorKind::TimedOut {
        services.stats.clients_cut_off.inc();
        let seconds = services.limits.stalled_max.as_secs();
        services
            .events
            .warn("slow_client", format!("{peer} was cut off: it read nothing for {seconds} s"));
    } else {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

/// Tells a client that there is no room.
fn refuse(socket: TcpStream, max: usize) -> io::Result<TcpStream> {
    let error = ErrorCode::Busy.with(&format!(
        "this broker has {max} connections, its limit (--max-connections): try again later, or another broker"
    ));
    say_and_close(socket, error)
}

/// Says one thing and nothing more. The line fits into the empty buffer of a new socket, so this
/// never waits.
fn say_and_close(socket: TcpStream, error: WireError) -> io::Result<TcpStream> {
    let mut line = Vec::new();
    Reply::Err(error).encode(&mut line);
    let socket = socket.into_std()?;
    io::Write::write_all(&mut &socket, &line)?;
    socket.shutdown(std::net::Shutdown::Write)?;
    TcpStream::from_std(socket)
}

/// Reads what a client has still to say, for nobody.
async fn read_to_end(mut socket: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}
