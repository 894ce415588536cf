//! Builds every part, wires them, and owns the order in which they end.
//!
//! Start: ports (so that a taken one costs nothing), the data folder's lock, the metadata's group,
//! a log, a group and an actor for each partition; only then are clients let in. End, on SIGTERM:
//! nobody is let in, connections are answered what they are owed, the actors empty their
//! mailboxes, acknowledged offsets are written, groups write their checkpoints, logs are synced.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::PartitionId;
use aklight_common::clock::{SharedClock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE};
use aklight_log::{Log, OpenError, OpenReport, RealDisk};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::config::{BrokerArgs, BrokerConfig, PARTITIONS_DEFAULT};
use crate::data_dir::{DataDir, DataDirError};
use crate::events::Events;
use crate::ingress;
use crate::partition::producers::Producers;
use crate::partition::topics::Topics;
use crate::partition::{
    ActorParts, MAILBOX_BATCHES_MAX, Partition, Partitions, RecordMachine, retention, run_actor,
};
use crate::replication::{Begin, Group, GroupConfig, GroupError, GroupId, Machine, NoPeers, Peers};
use crate::services::{LONG_LINES_BYTES, PERMIT_BYTES, Services};
use crate::sessions::{MetadataMachine, SessionError, Sessions};
use crate::stamp::Stamp;
use crate::stats::Stats;

/// File handles that a broker needs beside clients, HTTP and segments: logs' small files,
/// listeners, the runtime's own.
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
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A log cannot be opened.
    #[error("{name}: {cause}{}", reason(cause))]
    Log {
        /// Whose log.
        name: String,
        /// What is wrong with it.
        cause: OpenError,
    },
    /// The metadata's log is damaged, and no checkpoint holds what was there.
    #[error(
        "the metadata is damaged and not to be guessed (who consumes, and how far): {0}; bring metadata.log back from a backup, or set that folder aside: then the records stay, and consumers begin anew at the log's end"
    )]
    MetadataDamaged(String),
    /// A group does not start.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The metadata cannot be written.
    #[error("the metadata cannot be written: {0}")]
    Metadata(#[from] SessionError),
    /// The cluster has another number of partitions.
    #[error(
        "this cluster was created with {stored} partitions and --partitions says {given}: leave the flag away, or create a new cluster in another --data-dir"
    )]
    OtherPartitions {
        /// As it was created.
        stored: u32,
        /// As it was asked for.
        given: u32,
    },
}

/// A broker that lets clients in.
pub struct Broker {
    services: Arc<Services>,
    address: SocketAddr,
    http_address: SocketAddr,
    groups: Vec<Group>,
    serving: JoinHandle<()>,
    admin: JoinHandle<io::Result<()>>,
    committing: JoinHandle<()>,
    actors: TaskTracker,
    stop_committing: CancellationToken,
    stop_actors: CancellationToken,
    _data_dir: DataDir,
}

/// What partitions are built from.
struct Foundation<'a> {
    config: &'a BrokerConfig,
    data_dir: &'a DataDir,
    address: &'a str,
    clock: &'a SharedClock,
    events: &'a Events,
}

impl Broker {
    /// Starts a broker; when this returns, clients are served.
    ///
    /// # Errors
    /// Why it does not start, and what to do.
    pub async fn start(config: BrokerConfig, clock: SharedClock) -> Result<Self, StartError> {
        let listener = listen("--listen", config.listen)?;
        let http_listener = listen("--listen-http", config.listen_http)?;
        let (address, http_address) = (bound(&listener), bound(&http_listener));
        let advertised = advertise(config.advertise.as_deref(), address);
        let events = Arc::new(Events::new(clock.clone()));
        let data_dir = DataDir::open(&config.data_dir, config.broker)?;
        let foundation = Foundation {
            config: &config,
            data_dir: &data_dir,
            address: &advertised,
            clock: &clock,
            events: &events,
        };
        let (sessions, partitions_count) = foundation.metadata().await?;
        let producers = Arc::new(Producers::default());
        let (actors, stop_actors) = (TaskTracker::new(), CancellationToken::new());
        let (commits, _) = watch::channel(0);
        let commits = Arc::new(commits);
        let mut all = Vec::new();
        for id in (0..partitions_count).map(PartitionId) {
            all.push(foundation.partition(id, &producers, &commits, &actors, &stop_actors).await?);
        }
        let groups = all.iter().map(|partition| partition.group.clone());
        let groups = groups.chain([sessions.group().clone()]).collect();
        let newest_us = all.iter().map(|partition| partition.topics.newest_us()).max();
        let stopping = CancellationToken::new();
        let inflight = config.limits.inflight_bytes_max.div_ceil(PERMIT_BYTES);
        let mut limits = config.limits;
        let others =
            OTHER_FILES + admin::CONNECTIONS_MAX as u64 + segments_max(&config, partitions_count);
        limits.connections_max = allow_files(limits.connections_max, others, &events);
        let services = Arc::new(Services {
            partitions: Arc::new(Partitions::new(all, commits.subscribe())),
            sessions: sessions.clone(),
            producers,
            stamp: Stamp::after(newest_us.unwrap_or(0), clock.clone()),
            inflight: Arc::new(Semaphore::new(inflight)),
            long_lines: Arc::new(Semaphore::new(
                (LONG_LINES_BYTES / config.limits.line_bytes_max).max(2),
            )),
            limits,
            broker: config.broker,
            address: advertised,
            events: events.clone(),
            stats: Stats::default(),
            stopping: stopping.clone(),
        });
        tokio::spawn(retention::run(
            services.partitions.clone(),
            config.retention,
            clock,
            events.clone(),
            stopping,
        ));
        let stop_committing = CancellationToken::new();
        let committing = tokio::spawn(sessions.run(stop_committing.clone()));
        let serving = tokio::spawn(ingress::serve(listener, services.clone()));
        let admin = tokio::spawn(admin::serve(http_listener, services.clone()));
        events.info(
            "start",
            format!(
                "broker {} serves clients on {address} and HTTP on {http_address}, {partitions_count} partitions in {}",
                config.broker,
                config.data_dir.display()
            ),
        );
        Ok(Self {
            services,
            address,
            http_address,
            groups,
            serving,
            admin,
            committing,
            actors,
            stop_committing,
            stop_actors,
            _data_dir: data_dir,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Ends the broker in order; nothing that was acknowledged is lost, nor what is owed left
    /// unanswered.
    pub async fn shutdown(self) {
        let events = self.services.events.clone();
        events.info("stop", "shutting down: answering what is owed");
        self.services.stopping.cancel();
        let mut admin = self.admin;
        let (clients, http) = tokio::join!(self.serving, timeout(DRAIN, &mut admin));
        ended("serving clients", clients);
        match http {
            Ok(served) => ended("serving HTTP", served.map(|_| ())),
            // A request that never ends keeps nobody from anything.
            Err(_) => admin.abort(),
        }
        self.stop_committing.cancel();
        ended("committing offsets", self.committing.await);
        self.stop_actors.cancel();
        self.actors.close();
        if timeout(DRAIN, self.actors.wait()).await.is_err() {
            tracing::warn!("records on their way have no answer: the log does not take them");
        }
        for group in self.groups {
            if let Err(error) = group.shutdown().await {
                tracing::warn!(%error, "no checkpoint written: the next start reads more of the log");
            }
        }
        events.info("stop", "everything is on disk");
    }
}

impl Foundation<'_> {
    fn open(&self, name: &str, dir: &Path) -> Result<(Log, OpenReport), StartError> {
        let opened =
            Log::open(RealDisk::shared(), dir, self.config.log.clone(), self.clock.clone());
        let (log, report) =
            opened.map_err(|cause| StartError::Log { name: name.to_owned(), cause })?;
        self.tell(name, &report);
        Ok((log, report))
    }

    /// Tells what opening a log found.
    fn tell(&self, name: &str, report: &OpenReport) {
        for damage in &report.damaged {
            self.events.error(
                "damage",
                format!(
                    "{name}: {} is damaged at byte {} for {} bytes: offsets {} to {} (the last not included) are lost; what is left of them is in {}; the log goes on around them",
                    damage.segment.display(),
                    damage.position,
                    damage.bytes,
                    damage.from,
                    damage.resume,
                    damage.file.display(),
                ),
            );
        }
        if let Some(torn) = &report.torn {
            let text = format!(
                "{name}: {} ended in {} bytes of an unfinished write at byte {}, which were cut off; nothing of it was acknowledged",
                torn.segment.display(),
                torn.bytes,
                torn.position
            );
            self.events.info("torn_tail", text);
        }
        if report.hint_lost {
            let text = format!(
                "{name}: the note of how far the log was acknowledged is missing or damaged: a loss at its end could not be told from an unfinished write"
            );
            self.events.warn("damage", text);
        }
    }

    async fn start(
        &self,
        id: GroupId,
        log: Log,
        machine: Arc<dyn Machine>,
    ) -> Result<Group, StartError> {
        let peers = Arc::new(Peers::new(self.config.broker, Arc::new(NoPeers)));
        let begin = Begin::Alone(self.address.to_owned());
        Ok(Group::start(GroupConfig { id, log, machine, peers, begin }).await?)
    }

    async fn metadata(&self) -> Result<(Arc<Sessions>, u32), StartError> {
        let (log, report) = self.open("metadata", &self.data_dir.metadata())?;
        let checkpoint = log.read_checkpoint().ok().flatten().map(|(index, _)| index.next());
        if let Some(lost) = report.damaged.iter().find(|d| Some(d.resume_index) > checkpoint) {
            return Err(StartError::MetadataDamaged(lost.segment.display().to_string()));
        }
        let machine = Arc::new(MetadataMachine::new(log.clone()));
        let group = self.start(GroupId::Metadata, log, machine.clone()).await?;
        let sessions = Arc::new(Sessions::new(group, machine.clone(), self.clock.clone()));
        let wanted = self.config.partitions;
        let partitions = match (machine.partitions(), wanted) {
            (Some(stored), Some(given)) if stored != given => {
                return Err(StartError::OtherPartitions { stored, given });
            }
            (Some(stored), _) => stored,
            (None, wanted) => {
                let partitions = match (self.data_dir.partitions_found(), wanted) {
                    (0, wanted) => wanted.unwrap_or(PARTITIONS_DEFAULT),
                    (stored, Some(given)) if stored != given => {
                        return Err(StartError::OtherPartitions { stored, given });
                    }
                    // The metadata was set aside; the records are here.
                    (stored, _) => stored,
                };
                sessions.create(partitions).await?;
                partitions
            }
        };
        Ok((sessions, partitions))
    }

    async fn partition(
        &self,
        id: PartitionId,
        producers: &Arc<Producers>,
        commits: &Arc<watch::Sender<u64>>,
        actors: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Partition, StartError> {
        let name = format!("partition {id}");
        let (log, _) = self.open(&name, &self.data_dir.partition(id))?;
        let topics = Arc::new(Topics::default());
        let machine =
            Arc::new(RecordMachine::new(id, topics.clone(), producers.clone(), commits.clone()));
        let high_watermark = machine.high_watermark();
        let group = self.start(GroupId::Partition(id), log.clone(), machine).await?;
        let (mailbox, received) = mpsc::channel(MAILBOX_BATCHES_MAX);
        actors.spawn(run_actor(ActorParts {
            group: group.clone(),
            log: log.clone(),
            producers: producers.clone(),
            mailbox: received,
            stop: stop.clone(),
        }));
        Ok(Partition { id, log, topics, group, mailbox, high_watermark })
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
        let broker = Broker::start(config, SystemClock::shared()).await?;
        let code = tokio::select! {
            _ = terminate.recv() => EXIT_DONE,
            _ = interrupt.recv() => EXIT_INTERRUPTED,
        };
        // Asked once more, it ends at once: what was acknowledged is on disk anyway.
        tokio::select! {
            () = broker.shutdown() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(ExitCode::from(code))
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

/// Segments that retention leaves, each of which holds a file open. Without a limit on bytes as
/// many are reckoned with as a gigabyte a minute leaves in an hour.
fn segments_max(config: &BrokerConfig, partitions: u32) -> u64 {
    const UNLIMITED: u64 = 60 << 30;
    let bytes = config.retention.bytes.unwrap_or(UNLIMITED);
    // Two more: the one being written, and the one that retention is about to drop.
    (bytes / config.log.segment_bytes + 2) * u64::from(partitions)
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

/// What the system says, where an error's own text does not hold it.
fn reason(error: &OpenError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(" ({source})"))
}

fn ended(what: &str, result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} ended badly");
    }
}
