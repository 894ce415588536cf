//! The daemon: a node on the real disk and the real network, and the order in which it ends.
//!
//! Start: ports (so that a taken one costs nothing), HTTP and the door for other brokers, then the
//! node; only then are clients let in. End, on SIGTERM: nobody is let in, connections are answered
//! what they are owed, then the node ends.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aklight_common::clock::{SharedClock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE};
use aklight_log::{Log, LogOptions, RealDisk};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin;
use crate::cluster::{Door, Faults, Opened};
use crate::config::{BrokerArgs, BrokerConfig};
use crate::events::Events;
use crate::ingress;
use crate::node::{Addresses, Environment, Node, NodeError};
use crate::peer;
use crate::replication::{NoPeers, PeerTransport};
use crate::services::Ending;
use crate::telemetry::Telemetry;

/// File handles that a broker needs beside clients, HTTP and segments: logs' small files,
/// listeners, other brokers, the runtime's own.
const OTHER_FILES: u64 = 256;

/// How long each part of the broker may take to end; all of them stay within what containers are
/// given to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections that the kernel holds until they are let in: as many as may be open by default, so
/// that clients that come all at once after a restart need not try a second time.
const BACKLOG: u32 = 4096;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error("{flag} {address}: {cause}{hint}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// A broker that lets clients in.
pub struct Broker {
    node: Node,
    events: Arc<Events>,
    stopping: CancellationToken,
    serving: JoinHandle<()>,
    admin: JoinHandle<io::Result<()>>,
    peers: Option<JoinHandle<io::Result<()>>>,
}

impl Broker {
    /// Starts a broker; when this returns, clients are served.
    ///
    /// # Errors
    /// Why it does not start, and what to do.
    pub async fn start(config: BrokerConfig, clock: SharedClock) -> Result<Self, StartError> {
        let listener = listen("--listen", config.listen)?;
        let http_listener = listen("--listen-http", config.listen_http)?;
        let peer_listener =
            config.listen_peer.map(|address| listen("--listen-peer", address)).transpose()?;
        let (address, http_address) = (bound(&listener), bound(&http_listener));
        let advertised = advertise(config.advertise.as_deref(), address);
        let addresses = Addresses { http: beside(&advertised, http_address), client: advertised };
        let telemetry = Telemetry::new(clock.clone());
        let events = telemetry.events.clone();
        let stopping = CancellationToken::new();
        let services = Arc::new(OnceLock::new());
        let admin = tokio::spawn(admin::serve(
            http_listener,
            services.clone(),
            telemetry.clone(),
            config.http.clone(),
            stopping.clone(),
        ));
        let faults = Arc::new(Faults::new(config.allow_faults));
        let door = Arc::new(Door::new(config.broker, faults));
        let peers = peer_listener.map(|listener| {
            let opened = Arc::new(Opened(door.clone()));
            tokio::spawn(peer::serve(listener, opened, stopping.clone()))
        });
        let transport: Arc<dyn PeerTransport> =
            if peers.is_some() { Arc::new(peer::GrpcTransport::new()) } else { Arc::new(NoPeers) };
        let environment = Environment {
            disk: RealDisk::shared(),
            open_log: Arc::new({
                let clock = clock.clone();
                move |dir: &Path, options: LogOptions| {
                    Log::open(RealDisk::shared(), dir, options, clock.clone())
                }
            }),
            clock: clock.clone(),
            transport,
        };
        let connections_max = config.limits.connections_max;
        let (id, folder) = (config.broker, config.data_dir.display().to_string());
        let segments = segments_max(&config);
        let listener = Arc::new(listener);
        // A task of its own: reading a long log keeps this one busy.
        let turning_away =
            AbortOnDropHandle::new(tokio::spawn(ingress::turn_away(listener.clone())));
        let node = Node::start(config, addresses, environment, door, telemetry).await?;
        drop(turning_away);
        let partitions = node.services().partitions.len();
        let others = OTHER_FILES + admin::CONNECTIONS_MAX as u64 + segments * partitions as u64;
        let connections_max = allow_files(connections_max, others, &events);
        // It is filled once, here.
        let _ = services.set(node.services().clone());
        let serving =
            tokio::spawn(ingress::serve(listener, node.services().clone(), connections_max, clock));
        events.info(
            "start",
            format!(
                "broker {id} serves clients on {address} and HTTP on {http_address}, {partitions} partitions in {folder}"
            ),
        );
        Ok(Self { node, events, stopping, serving, admin, peers })
    }

    /// Ends the broker in order; nothing that was acknowledged is lost, nor what is owed left
    /// unanswered.
    pub async fn shutdown(self) {
        let events = self.events;
        events.info("stop", "shutting down: answering what is owed");
        self.node.services().stopping.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "serving clients ended badly");
        }
        self.node.shutdown().await;
        self.stopping.cancel();
        end("HTTP", self.admin).await;
        if let Some(peers) = self.peers {
            end("other brokers", peers).await;
        }
        events.info("stop", "everything is on disk");
    }
}

async fn end(whom: &str, mut task: JoinHandle<io::Result<()>>) {
    match timeout(DRAIN, &mut task).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, "serving {whom} ended badly"),
        Ok(Err(error)) => tracing::error!(%error, "serving {whom} ended badly"),
        // What never ends by itself keeps nobody from anything.
        Err(_) => task.abort(),
    }
}

/// Runs a broker until SIGTERM or SIGINT: the whole of `aklight broker`.
///
/// # Errors
/// Why it does not start.
pub fn run(args: BrokerArgs) -> anyhow::Result<ExitCode> {
    let config = match args.resolve() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("error: {mistakes}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            // It may wait long for the brokers of a new cluster, and may be ended while it does.
            let broker = tokio::select! {
                started = Broker::start(config.clone(), SystemClock::shared()) => started?,
                _ = terminate.recv() => return Ok(ExitCode::from(EXIT_DONE)),
                _ = interrupt.recv() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
            };
            let mut ending = broker.node.services().ending.subscribe();
            let mut why = None;
            let code = tokio::select! {
                _ = terminate.recv() => Some(EXIT_DONE),
                _ = interrupt.recv() => Some(EXIT_INTERRUPTED),
                Ok(ending) = ending.wait_for(Option::is_some) => { why = *ending; None }
            };
            // Asked once more, it ends at once: what was acknowledged is on disk anyway.
            tokio::select! {
                () = broker.shutdown() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match (code, why) {
                (Some(code), _) => return Ok(ExitCode::from(code)),
                (None, Some(Ending::Removed)) => anyhow::bail!(
                    "broker {} was removed from its cluster and has ended: its --data-dir is needed no more; to take part again it needs a new number (aklight cluster add)",
                    config.broker
                ),
                (None, _) => {}
            }
        }
    })
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|cause| {
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                ": another program has this port; is a broker running already? choose another port with the flag"
            }
            io::ErrorKind::PermissionDenied => ": choose a port from 1024 on",
            _ => "",
        };
        StartError::Listen { flag, address, cause, hint }
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A broker that is started again need not wait until old connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bound(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// What clients are told: the host that the user named, else the one listened on, else this
/// machine's name.
fn advertise(named: Option<&str>, bound: SocketAddr) -> String {
    match named {
        Some(named) if named.contains(':') => named.to_owned(),
        Some(named) => format!("{named}:{}", bound.port()),
        None if bound.ip().is_unspecified() => {
            let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            format!("{}:{}", host.as_deref().unwrap_or("localhost"), bound.port())
        }
        None => bound.to_string(),
    }
}

/// The HTTP address as others are told it: the host of the one for clients.
fn beside(advertised: &str, http: SocketAddr) -> String {
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
    format!("{host}:{}", http.port())
}

/// Segments of a partition that retention leaves, each of which holds a file open. Without a limit
/// on bytes as many are reckoned with as a gigabyte a minute leaves in an hour.
fn segments_max(config: &BrokerConfig) -> u64 {
    const UNLIMITED: u64 = 60 << 30;
    let bytes = config.retention.bytes.unwrap_or(UNLIMITED);
    // Two more: the one being written, and the one that retention is about to drop.
    bytes / config.log.segment_bytes + 2
}

/// Sees that the system allows a file handle a connection; gives the number of connections that
/// it does allow.
fn allow_files(connections: usize, others: u64, events: &Events) -> usize {
    let wanted = connections as u64 + others;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return connections };
    if soft >= wanted {
        return connections;
    }
    let raised = wanted.min(hard);
    let soft = setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map_or(soft, |()| raised);
    if soft >= wanted {
        return connections;
    }
    // Segments are a guess at what may come: they take no more than half.
    let allowed = usize::try_from(soft - others.min(soft / 2)).unwrap_or(1).max(1);
    events.warn(
        "limits",
        format!("the system allows {soft} open files: at most {allowed} connections instead of {connections}; raise `ulimit -n`"),
    );
    allowed
}
