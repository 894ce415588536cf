//! A broker without its sockets: everything that it is, on whatever disk, clock and network it is
//! given. The daemon ([`crate::Broker`]) gives it the real ones, a simulation its own.
//!
//! Start: the data folder's lock, the logs (all at once), the cluster (formed, joined or come back to),
//! the metadata's group, a group and an actor for each partition; then it can serve. Other brokers find it
//! behind its [`Door`] from the first moment on. End: the actors empty their mailboxes,
//! acknowledged offsets are written, groups write their checkpoints, logs are synced.

mod error;
mod logs;
mod named;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use aklight_common::{BrokerId, PartitionId, RaftIndex};
use aklight_log::{Disk, Log, LogOptions, OpenError, OpenReport};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{self, Door, FaultyTransport, JoinError, Mender, Pulse};
use crate::config::{BrokerConfig, Compression, PARTITIONS_DEFAULT};
use crate::data_dir::{DataDir, Identity};
use crate::events::Events;
use crate::partition::{
    Partition, PartitionParts, Partitions, RecordMachine, compression, retention,
};
use crate::replication::{
    Begin, Group, GroupConfig, GroupId, Machine, PeerTransport, Peers, committed_hint,
};
use crate::services::{LONG_LINES_BYTES, PERMIT_BYTES, Services};
use crate::sessions::{BrokerInfo, MetadataMachine, Sessions};
use crate::stamp::Stamp;
use crate::telemetry::Telemetry;

pub use error::NodeError;
use logs::Logs;
use named::{expect_peers, own_address};

/// How long the actors may take to end; all parts stay within what containers are given to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Pause between two looks at a cluster that has not begun.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a broker that waits for the others' help asks whether it is of them still.
const LET_GO_EVERY: Duration = Duration::from_secs(10);

/// How often a broker that waits for its cluster says so, in pauses.
const TELL_EVERY: u32 = 50;

/// Opens the log in a folder: with a thread of its own, or as a simulation likes it.
pub type OpenLog =
    Arc<dyn Fn(&Path, LogOptions) -> Result<(Log, OpenReport), OpenError> + Send + Sync>;

/// What a node stands on.
#[derive(Clone)]
pub struct Environment {
    /// What time it is.
    pub clock: SharedClock,
    /// Where everything is kept.
    pub disk: Arc<dyn Disk>,
    /// How logs are opened there.
    pub open_log: OpenLog,
    /// What carries messages to other brokers.
    pub transport: Arc<dyn PeerTransport>,
}

/// Where others are told that this broker is.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The line protocol.
    pub client: String,
    /// HTTP.
    pub http: String,
}

/// A broker that can serve.
pub struct Node {
    services: Arc<Services>,
    groups: Vec<Group>,
    compressing: Option<JoinHandle<()>>,
    committing: JoinHandle<()>,
    actors: TaskTracker,
    stop_committing: CancellationToken,
    stop_actors: CancellationToken,
    _data_dir: Arc<DataDir>,
}

/// What groups are built from.
struct Foundation<'a> {
    config: &'a BrokerConfig,
    data_dir: &'a DataDir,
    environment: &'a Environment,
    peers: &'a Arc<Peers>,
    door: &'a Arc<Door>,
    events: &'a Arc<Events>,
}

/// What all partitions share.
struct Shared {
    commits: Arc<watch::Sender<u64>>,
    stamp: Arc<Stamp>,
    actors: TaskTracker,
    stop_actors: CancellationToken,
}

impl Node {
    /// Starts a node; when this returns, it can serve. Without the other brokers of a new cluster
    /// it waits for them, and says so.
    ///
    /// # Errors
    /// Why it does not start, and what to do.
    pub async fn start(
        config: BrokerConfig,
        addresses: Addresses,
        environment: Environment,
        door: Arc<Door>,
        telemetry: Telemetry,
    ) -> Result<Self, NodeError> {
        let Telemetry { events, stats } = telemetry;
        let Environment { clock, disk, transport, .. } = environment.clone();
        let data_dir = DataDir::open(disk, &config.data_dir, config.broker, cluster::draw())?;
        let data_dir = Arc::new(data_dir);
        let transport = Arc::new(FaultyTransport::new(transport, door.faults().clone()));
        let peers = Arc::new(Peers::new(config.broker, transport));
        let known = data_dir.identity().others;
        known.iter().for_each(|(id, address)| peers.set_address(BrokerId(*id), address));
        let has_others = config.peers.len() > 1 || !peers.others().is_empty();
        data_dir.expect_unless_new(&data_dir.metadata(), has_others)?;
        let foundation = Foundation {
            config: &config,
            data_dir: &data_dir,
            environment: &environment,
            peers: &peers,
            door: &door,
            events: &events,
        };
        let logs = foundation.open_logs(has_others).await?;
        let kept = logs.partitions_kept();
        let Logs { metadata: (metadata, report), partitions: ahead } = logs;
        let Identity { founders, others, .. } = data_dir.identity();
        let known: BTreeSet<_> =
            founders.into_iter().chain(others).map(|(id, _)| BrokerId(id)).collect();
        expect_peers(&config, known)?;
        let has_begun = metadata.bounds().last.is_some();
        let begin =
            cluster::join(&door, &data_dir, &peers, &config.peers, has_begun, &events).await?;
        let metadata = foundation.whole_metadata(metadata, report).await?;
        let sessions = foundation.metadata(metadata, begin.clone()).await?;
        expect_peers(&config, sessions.group().voters())?;
        let own = BrokerInfo {
            incarnation: data_dir.identity().incarnation,
            peer: own_address(&config.peers, config.broker),
            client: addresses.client.clone(),
            http: addresses.http,
        };
        let partitions_count = foundation.partitions_count(&sessions, &own, kept);
        let partitions_count = foundation.unless_let_go(partitions_count).await?;
        let shared = Shared {
            commits: Arc::new(watch::channel(0).0),
            stamp: Arc::new(Stamp::new(clock.clone())),
            actors: TaskTracker::new(),
            stop_actors: CancellationToken::new(),
        };
        // All at once: one that waits to be mended keeps no other from taking part.
        let mut ahead = ahead.into_iter();
        let all = (0..partitions_count).map(PartitionId).map(|id| {
            let begin = begin_partition(id, &begin, &sessions.group().voters());
            foundation.partition(id, ahead.next(), begin, &shared)
        });
        let all = futures_util::future::try_join_all(all).await?;
        logs::note_complete(&data_dir, !peers.others().is_empty())?;
        let groups = all.iter().map(|partition| partition.group.clone());
        let groups = groups.chain([sessions.group().clone()]).collect();
        let partitions = Arc::new(Partitions::new(all, shared.commits.subscribe()));
        let stopping = CancellationToken::new();
        let pulse = Arc::new(Pulse::new(
            peers.clone(),
            partitions.clone(),
            sessions.clone(),
            door.faults().clone(),
            events.clone(),
        ));
        let inflight = config.limits.inflight_bytes_max.div_ceil(PERMIT_BYTES);
        let services = Arc::new(Services {
            partitions: partitions.clone(),
            sessions: sessions.clone(),
            pulse: pulse.clone(),
            peers: peers.clone(),
            faults: door.faults().clone(),
            stamp: shared.stamp.clone(),
            inflight: Arc::new(Semaphore::new(inflight)),
            long_lines: Arc::new(Semaphore::new(
                (LONG_LINES_BYTES / config.limits.line_bytes_max).max(2),
            )),
            lines: Arc::default(),
            limits: config.limits,
            broker: config.broker,
            address: addresses.client,
            events: events.clone(),
            stats,
            ending: watch::channel(None).0,
            stopping: stopping.clone(),
        });
        door.set_partitions(partitions.clone());
        partitions.iter().for_each(|partition| partition.group().may_lead(true));
        door.set_pulse(pulse.clone());
        tokio::spawn(pulse.clone().run(stopping.clone()));
        tokio::spawn(cluster::keep(services.clone(), data_dir.clone(), own));
        let mut compressing = None;
        if config.compression == Compression::Lz4 {
            let work = compression::run(
                partitions.clone(),
                clock.clone(),
                events.clone(),
                stopping.clone(),
            );
            compressing = Some(tokio::spawn(work));
        }
        tokio::spawn(retention::run(partitions, config.retention, clock, events, stopping));
        let stop_committing = CancellationToken::new();
        let committing = tokio::spawn(sessions.run(stop_committing.clone()));
        Ok(Self {
            services,
            groups,
            committing,
            compressing,
            actors: shared.actors,
            stop_committing,
            stop_actors: shared.stop_actors,
            _data_dir: data_dir,
        })
    }

    /// What connections and HTTP are served with.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Ends the node in order, once nobody is served any more.
    pub async fn shutdown(self) {
        self.services.stopping.cancel();
        self.stop_committing.cancel();
        if let Err(error) = self.committing.await {
            tracing::error!(%error, "committing offsets did not end well");
        }
        self.stop_actors.cancel();
        self.actors.close();
        if timeout(DRAIN, self.actors.wait()).await.is_err() {
            tracing::warn!("records on their way have no answer: the log does not take them");
        }
        if let Some(compressing) = self.compressing
            && timeout(DRAIN, compressing).await.is_err()
        {
            tracing::warn!("a segment is still being compressed: nothing will come of it");
        }
        for group in self.groups {
            if let Err(error) = group.shutdown().await {
                tracing::warn!(%error, "no checkpoint written: the next start reads more of the log");
            }
        }
    }
}

impl Foundation<'_> {
    async fn start(
        &self,
        id: GroupId,
        log: Log,
        machine: Arc<dyn Machine>,
        begin: Begin,
    ) -> Result<Group, NodeError> {
        let peers = self.peers.clone();
        let group = Group::start(GroupConfig { id, log, machine, peers, begin }).await?;
        self.door.run(group.clone());
        Ok(group)
    }

    /// The metadata's log without damage: mended from others, or, where there are none, with the
    /// damage behind what a checkpoint holds.
    async fn whole_metadata(&self, log: Log, report: OpenReport) -> Result<Log, NodeError> {
        if !self.peers.others().is_empty() {
            return self.mended(GroupId::Metadata, &self.data_dir.metadata(), log, report).await;
        }
        let checkpoint = log.read_checkpoint().ok().flatten().map(|(index, _)| index.next());
        match report.damaged.iter().find(|d| Some(d.resume_index) > checkpoint) {
            Some(lost) => Err(NodeError::MetadataDamaged(lost.segment.display().to_string())),
            None => Ok(log),
        }
    }

    /// A log that holds all that it ever acknowledged, if other brokers can help it to that.
    async fn mended(
        &self,
        id: GroupId,
        dir: &Path,
        log: Log,
        report: OpenReport,
    ) -> Result<Log, NodeError> {
        if report.damaged.is_empty() && report.lost_end.is_none() || self.peers.others().is_empty()
        {
            return Ok(log);
        }
        log.close();
        // What can be read of it others may need to mend theirs.
        let committed = committed_hint(&log);
        self.door.rest(id, log, committed);
        let disk = &self.environment.disk;
        let committed = RaftIndex(committed);
        let mender = Mender { disk, peers: self.peers, events: self.events, committed };
        let mended = mender.mend(id, dir);
        self.unless_let_go(async { Ok(mended.await?) }).await?;
        Ok(self.open(&id.to_string(), dir).await?.0)
    }

    /// Waits for the others' help, unless they say that this broker was removed: they help it no
    /// more, and it would wait for ever.
    async fn unless_let_go<T>(
        &self,
        help: impl Future<Output = Result<T, NodeError>>,
    ) -> Result<T, NodeError> {
        let let_go = async {
            let incarnation = self.data_dir.identity().incarnation;
            loop {
                sleep(LET_GO_EVERY).await;
                if cluster::was_let_go(self.peers, &incarnation).await {
                    self.data_dir.set_removed();
                    let (broker, cluster) = (self.config.broker, self.peers.cluster());
                    return JoinError::Retired { broker, cluster };
                }
            }
        };
        tokio::select! {
            biased;
            helped = help => helped,
            error = let_go => Err(error.into()),
        }
    }

    async fn metadata(&self, log: Log, begin: Begin) -> Result<Arc<Sessions>, NodeError> {
        let machine = Arc::new(MetadataMachine::new(log.clone()));
        let group = self.start(GroupId::Metadata, log, machine.clone(), begin).await?;
        let clock = self.environment.clock.clone();
        let sessions = Arc::new(Sessions::new(group, machine, clock));
        self.door.set_sessions(sessions.clone());
        Ok(sessions)
    }

    /// How many partitions the cluster has; the metadata's leader begins a cluster that has none.
    async fn partitions_count(
        &self,
        sessions: &Sessions,
        own: &BrokerInfo,
        kept: u32,
    ) -> Result<u32, NodeError> {
        let mut waited = 0;
        let stored = loop {
            if let Some(stored) = sessions.metadata().partitions() {
                break stored;
            }
            if sessions.group().role().leader(self.config.broker) == Some(self.config.broker) {
                self.create(sessions, own, kept).await?;
                continue;
            }
            waited += 1;
            if waited % TELL_EVERY == 0 {
                self.events.warn("join", "waiting for the cluster's metadata: is a majority up?");
            }
            sleep(PAUSE).await;
        };
        match self.config.partitions {
            Some(given) if given != stored => Err(NodeError::OtherPartitions { stored, given }),
            _ => Ok(stored),
        }
    }

    async fn create(
        &self,
        sessions: &Sessions,
        own: &BrokerInfo,
        kept: u32,
    ) -> Result<(), NodeError> {
        let partitions = match (kept, self.config.partitions) {
            (0, wanted) => wanted.unwrap_or(PARTITIONS_DEFAULT),
            (stored, Some(given)) if stored != given => {
                return Err(NodeError::OtherPartitions { stored, given });
            }
            // The metadata was set aside; the records are here.
            (stored, _) => stored,
        };
        let members = sessions.group().voters();
        match cluster::founders(self.peers, own.clone(), &members).await {
            // Should another broker lead by now, this one will see what that one creates.
            Some(brokers) => match sessions.create(partitions, brokers).await {
                Err(error) if members.len() > 1 => tracing::warn!(%error, "not begun yet"),
                created => created?,
            },
            None => sleep(PAUSE).await,
        }
        Ok(())
    }

    async fn partition(
        &self,
        id: PartitionId,
        mut opened: Option<(Log, OpenReport)>,
        begin: Begin,
        shared: &Shared,
    ) -> Result<Partition, NodeError> {
        let group_id = GroupId::Partition(id);
        let dir = self.data_dir.partition(id);
        self.data_dir.expect_unless_new(&dir, !self.peers.others().is_empty())?;
        let (log, machine, group) = loop {
            let (log, report) = match opened.take() {
                Some(opened) => opened,
                None => self.open(&group_id.to_string(), &dir).await?,
            };
            let log = self.mended(group_id, &dir, log, report).await?;
            self.door.rest(group_id, log.clone(), committed_hint(&log));
            let machine = RecordMachine::new(shared.stamp.clone(), shared.commits.clone());
            let machine = Arc::new(machine);
            match self.start(group_id, log.clone(), machine.clone(), begin.clone()).await {
                Ok(group) => {
                    // It votes, but would lead in vain: records come in once all partitions are up.
                    group.may_lead(false);
                    break (log, machine, group);
                }
                // Opening believes what a segment's index says of it, and applying read on: the
                // next opening knows better, and what is lost is mended.
                Err(error) if log.has_found_damage() && !self.peers.others().is_empty() => {
                    tracing::warn!(%error, "damaged after all: opened once more");
                    log.close();
                }
                Err(error) => return Err(error),
            }
        };
        let peers = self.peers.clone();
        let stop = shared.stop_actors.clone();
        let (partition, actor) =
            Partition::new(PartitionParts { id, log, group, machine, peers, stop });
        shared.actors.spawn(actor.run());
        Ok(partition)
    }
}

/// How a partition begins that has no history here: as the metadata did, but its members take turns
/// to be the first, so that leaders are spread from the start. One that takes itself to be alone, and is
/// not to the metadata, is given what the others have.
fn begin_partition(id: PartitionId, metadata: &Begin, voters: &[BrokerId]) -> Begin {
    match metadata {
        Begin::With(members)
            if members.len() > 1
                || members.iter().map(|peer| peer.id).eq(voters.iter().copied()) =>
        {
            let mut members = members.clone();
            let turn = id.0 as usize % members.len().max(1);
            members.rotate_left(turn);
            Begin::With(members)
        }
        _ => Begin::Join,
    }
}
