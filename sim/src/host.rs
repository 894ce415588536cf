//! A machine with a broker on it: its disk, its clock, its runtime. It can lose power, be killed,
//! be stopped, and be switched on again.
//!
//! A broker's runtime is a tokio runtime of its own with paused time, on the one thread of the
//! simulation. Dropping it is `kill -9`: every task ends where it waits. What the disk then holds is
//! decided before ([`MemoryDisk::crash`] or [`MemoryDisk::kill`]), and nothing that is still done
//! while tasks are dropped reaches it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use aklight_broker::cluster::{Door, Faults, Opened};
use aklight_broker::config::{Compression, HttpConfig, Limits};
use aklight_broker::replication::{Peer, PeerHandler};
use aklight_broker::services::{Ending, Services};
use aklight_broker::{Addresses, BrokerConfig, Environment, Node, Telemetry};
use aklight_common::BrokerId;
use aklight_common::clock::SharedClock;
use aklight_log::disk::MemoryDisk;
use aklight_log::{Fsync, LogOptions, Retention};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::time::{Duration, Instant};

use crate::clock::SimClock;
use crate::dice::Dice;
use crate::disk::{Pace, SimDisk};
use crate::gates::Gates;
use crate::network::Net;
use crate::plants::Plants;
use crate::trace::Trace;

/// Partitions of a simulated cluster: what a cluster has by default.
const PARTITIONS: u32 = 2;

/// Small segments, so that a short run has many; little is taken in advance, because it is copied
/// at each crash.
fn log_options(fsync: Fsync) -> LogOptions {
    LogOptions {
        fsync,
        segment_bytes: 32 << 10,
        preallocate_bytes: 8 << 10,
        tail_cache_bytes: 16 << 10,
        reserve_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

/// A broker that does not start is started again after so long.
const RETRY_US: u64 = 2_000_000;

/// What all machines of a simulation share.
#[derive(Clone)]
pub struct Site {
    /// The seed.
    pub seed: u64,
    /// What happens.
    pub trace: Trace,
    /// Between the brokers.
    pub net: Net,
    /// Between clients and brokers.
    pub gates: Gates,
    /// Bugs on purpose.
    pub plants: Plants,
    /// When brokers sync. Where that is not before they acknowledge, the power stays and no disk is
    /// damaged: they promise to survive `kill -9` then, and no more.
    pub fsync: Fsync,
}

/// What became of a broker's start.
enum Outcome {
    Starting,
    Serving(Box<Node>),
    Failed(String),
    Ending,
    Ended,
}

/// A machine that is on.
struct Running {
    runtime: Runtime,
    began: Instant,
    began_us: u64,
    life: u32,
    node: Arc<Mutex<Outcome>>,
    lets_clients_in: bool,
}

/// A machine.
pub struct Host {
    site: Site,
    /// The broker's number.
    pub id: u64,
    peers: Vec<Peer>,
    disk: MemoryDisk,
    backup: Option<MemoryDisk>,
    clock: Arc<SimClock>,
    /// How fast its disk is.
    pub pace: Pace,
    running: Option<Running>,
    /// Stopped as by SIGSTOP.
    pub is_stopped: bool,
    /// Given up: it is not switched on again.
    pub is_scrapped: bool,
    /// Why it did not start, if it did not.
    pub refusal: Option<String>,
    /// Crashes so far: each throws other dice.
    crashes: u64,
    /// When it is switched on again by itself.
    again_at_us: Option<u64>,
}

/// Where other brokers reach a broker.
#[must_use]
pub fn peer(id: u64) -> Peer {
    Peer { id: BrokerId(id), address: format!("broker{id}:7090") }
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The power goes: what was not synced may be lost.
    Power,
    /// `kill -9`: the system still writes what it was given.
    Kill,
}

impl Host {
    /// A machine with an empty disk, switched off.
    #[must_use]
    pub fn new(site: Site, id: u64, peers: Vec<Peer>) -> Self {
        let clock = SimClock::new(site.trace.clone());
        let pace = Pace::new(site.seed, id);
        Self {
            site,
            id,
            peers,
            disk: MemoryDisk::new(),
            backup: None,
            clock,
            pace,
            running: None,
            is_stopped: false,
            is_scrapped: false,
            refusal: None,
            crashes: 0,
            again_at_us: None,
        }
    }

    /// Its disk, to be filled or damaged.
    #[must_use]
    pub const fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Whether it is on.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Switches it on.
    ///
    /// # Errors
    /// When there is no memory for a runtime.
    pub fn start(&mut self) -> std::io::Result<()> {
        self.again_at_us = None;
        if self.is_up() || self.is_scrapped {
            return Ok(());
        }
        let site = &self.site;
        site.trace.note("start", &[self.id]);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build()?;
        let began = runtime.block_on(async { Instant::now() });
        let clock: SharedClock = self.clock.clone();
        let disk = SimDisk::new(self.disk.clone(), self.id, site.trace.clone(), site.plants);
        let (logs, pace, of_logs) = (disk.clone(), self.pace.clone(), clock.clone());
        let environment = Environment {
            clock: clock.clone(),
            disk: Arc::new(disk),
            open_log: Arc::new(move |dir, options| {
                logs.open_log(dir, options, of_logs.clone(), &pace)
            }),
            transport: site.net.transport(self.id),
        };
        let door = Arc::new(Door::new(BrokerId(self.id), Arc::new(Faults::new(false))));
        let handler: Arc<dyn PeerHandler> = Arc::new(Opened(door.clone()));
        let life = site.net.join(self.id, runtime.handle().clone(), handler);
        let addresses = Addresses {
            client: format!("broker{}:7000", self.id),
            http: format!("broker{}:7070", self.id),
        };
        let config = self.config();
        let node = Arc::new(Mutex::new(Outcome::Starting));
        let slot = node.clone();
        runtime.spawn(async move {
            let telemetry = Telemetry::new(clock);
            let started = Node::start(config, addresses, environment, door, telemetry).await;
            *slot.lock() = match started {
                Ok(node) => Outcome::Serving(Box::new(node)),
                Err(error) => Outcome::Failed(error.to_string()),
            };
        });
        self.is_stopped = false;
        let began_us = site.trace.now_us();
        self.running =
            Some(Running { runtime, began, began_us, life, node, lets_clients_in: false });
        Ok(())
    }

    fn config(&self) -> BrokerConfig {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        BrokerConfig {
            broker: BrokerId(self.id),
            data_dir: PathBuf::from("/data"),
            listen: nowhere,
            listen_http: nowhere,
            http: HttpConfig::default(),
            listen_peer: Some(nowhere),
            peers: self.peers.clone(),
            allow_faults: false,
            advertise: None,
            partitions: Some(PARTITIONS),
            log: log_options(self.site.fsync),
            compression: Compression::Lz4,
            retention: Retention::default(),
            limits: Limits {
                line_bytes_max: 64 << 10,
                connections_max: 64,
                inflight_bytes_max: 4 << 20,
                stalled_max: Duration::from_secs(30),
                spin: Duration::ZERO,
            },
        }
    }

    /// Lets its broker live up to now.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn step(&mut self) -> std::io::Result<()> {
        if !self.is_up() && self.again_at_us.is_some_and(|at| at <= self.site.trace.now_us()) {
            self.start()?;
        }
        self.live();
        Ok(())
    }

    fn live(&mut self) {
        let Some(running) = &mut self.running else { return };
        if self.is_stopped {
            return;
        }
        let now_us = self.site.trace.now_us();
        let until = running.began + Duration::from_micros(now_us - running.began_us);
        running.runtime.block_on(async {
            tokio::time::sleep_until(until).await;
        });
        let outcome = running.node.lock();
        match &*outcome {
            Outcome::Serving(node) if !running.lets_clients_in => {
                running.lets_clients_in = true;
                self.site.trace.note("serves", &[self.id]);
                let (runtime, services) = (running.runtime.handle().clone(), node.services());
                self.site.gates.open(self.id, running.life, runtime, services.clone());
            }
            Outcome::Serving(node) if node.services().ending.borrow().is_some() => {
                let ending = *node.services().ending.borrow();
                self.site.trace.note("ends by itself", &[self.id]);
                drop(outcome);
                self.end();
                // As the daemon does: it starts itself anew, unless it was removed.
                self.again_at_us = (ending == Some(Ending::Renew)).then_some(now_us);
            }
            Outcome::Failed(why) => {
                self.site.trace.tell(format_args!("broker {} does not start: {why}", self.id));
                self.refusal = Some(why.clone());
                drop(outcome);
                self.crash(Down::Kill);
                // As a service manager does.
                self.again_at_us = Some(now_us + RETRY_US);
            }
            Outcome::Ended => {
                let again_at_us = self.again_at_us;
                drop(outcome);
                self.crash(Down::Kill);
                self.again_at_us = again_at_us;
            }
            _ => {}
        }
    }

    /// It goes on after a stop: all that should have happened meanwhile happens at once.
    pub fn resume(&mut self) {
        self.is_stopped = false;
        self.site.net.stop(self.id, false);
        let Some(running) = &mut self.running else { return };
        let now_us = self.site.trace.now_us();
        let until = running.began + Duration::from_micros(now_us - running.began_us);
        running.runtime.block_on(async {
            let behind = until.saturating_duration_since(Instant::now());
            tokio::time::advance(behind).await;
        });
    }

    /// Stops it, as by SIGSTOP.
    pub fn stop(&mut self) {
        self.is_stopped = true;
        self.site.net.stop(self.id, true);
    }

    /// It goes down at once.
    pub fn crash(&mut self, down: Down) {
        let Some(running) = self.running.take() else { return };
        self.again_at_us = None;
        self.crashes += 1;
        let down = if self.site.fsync == Fsync::Always { down } else { Down::Kill };
        self.site.trace.note("crash", &[self.id, u64::from(down == Down::Power)]);
        let dice = crate::dice::mixed(self.site.seed ^ (self.id << 32) ^ self.crashes);
        let after = match down {
            Down::Power => self.disk.crash(dice),
            Down::Kill => self.disk.kill(),
        };
        self.disk = match self.backup.take() {
            Some(backup) if self.site.plants.restored_backup => backup,
            _ => after,
        };
        self.site.gates.close(self.id);
        self.site.net.leave(self.id);
        let Running { runtime, node, .. } = running;
        drop(runtime);
        drop(node);
        self.is_stopped = false;
    }

    /// Makes the backup that a plant restores.
    pub fn back_up(&mut self) {
        self.backup = Some(self.disk.kill());
    }

    /// Looks into the broker, if it serves.
    pub fn look<T>(&self, into: impl FnOnce(&Node) -> T) -> Option<T> {
        let running = self.running.as_ref()?;
        // What asks for the time in there is told the broker's.
        let _inside = running.runtime.enter();
        match &*running.node.lock() {
            Outcome::Serving(node) => Some(into(node)),
            _ => None,
        }
    }

    /// Whether its broker was told to end and has not yet.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| matches!(*running.node.lock(), Outcome::Ending | Outcome::Ended))
    }

    /// Whether one of its logs takes no more writes until a restart.
    #[must_use]
    pub fn log_failed(&self) -> bool {
        let failed = |node: &Node| {
            node.services().pulse.own().groups.iter().any(|group| group.failed.is_some())
        };
        self.look(failed).unwrap_or(false)
    }

    /// Whether it leads a group.
    #[must_use]
    pub fn leads(&self) -> bool {
        let leads = |node: &Node| node.services().pulse.own().groups.iter().any(|g| g.leads);
        self.look(leads).unwrap_or(false)
    }

    /// The connections of its clients break.
    pub fn reset_clients(&self) {
        self.site.gates.reset(self.id);
    }

    /// Lets its broker do something beside, if it serves; says whether it does.
    pub fn spawn<F>(&self, work: impl FnOnce(Arc<Services>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(services) = self.look(|node| node.services().clone()) else { return false };
        let Some(running) = &self.running else { return false };
        running.runtime.spawn(work(services));
        true
    }

    /// Damages its disk: one bit of some segment, or the end of one. Only while it is off.
    pub fn damage(&self, dice: &mut Dice) {
        let files = self.disk.files();
        let segments: Vec<_> = files
            .iter()
            .filter(|(path, bytes)| path.extension().is_some_and(|e| e == "log") && *bytes > 0)
            .collect();
        let Some((path, bytes)) = dice.pick(&segments) else { return };
        let place = usize::try_from(dice.below(*bytes)).unwrap_or(0);
        self.site.trace.note("damage", &[self.id, place as u64]);
        if dice.once_in(4) {
            self.disk.cut(path, place);
        } else {
            self.disk.flip_bit(path, place * 8 + 3);
        }
    }

    /// Tells its broker to end in order; it goes down when it has.
    pub fn end(&mut self) {
        let Some(running) = &mut self.running else { return };
        self.site.gates.close(self.id);
        let node = std::mem::replace(&mut *running.node.lock(), Outcome::Ending);
        let slot = running.node.clone();
        match node {
            Outcome::Serving(node) => {
                running.runtime.spawn(async move {
                    node.shutdown().await;
                    *slot.lock() = Outcome::Ended;
                });
            }
            _ => self.crash(Down::Kill),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.crash(Down::Kill);
    }
}
