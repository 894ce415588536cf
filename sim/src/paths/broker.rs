//! A broker of its own cluster, in memory and in one thread, with the settings that a broker has by
//! default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aklight_broker::cluster::{Door, Faults};
use aklight_broker::config::{Compression, HttpConfig, Limits};
use aklight_broker::replication::{NoPeers, Peer};
use aklight_broker::services::Services;
use aklight_broker::{Addresses, BrokerConfig, Environment, Node, OpenLog, Telemetry};
use aklight_common::BrokerId;
use aklight_common::clock::{ManualClock, SharedClock};
use aklight_log::{Log, LogOptions, MemoryDisk, Retention};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::load::unsynced;
use crate::standstill::BEGIN_S;

const ID: BrokerId = BrokerId(1);

/// A broker, and the runtime that it lives on.
pub struct Broker {
    /// Its runtime.
    pub runtime: Runtime,
    /// Its parts.
    pub services: Arc<Services>,
    _node: Node,
}

impl Broker {
    /// Starts one on an empty disk, which keeps so many bytes of each log's end in memory.
    pub fn start(tail_cache_bytes: usize) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build()?;
        let clock: SharedClock = ManualClock::at(u64::from(BEGIN_S) * 1_000_000);
        let disk = MemoryDisk::new();
        let environment = Environment {
            clock: clock.clone(),
            disk: disk.shared(),
            open_log: open_log(disk, clock.clone()),
            transport: Arc::new(NoPeers),
        };
        let addresses = Addresses { client: "here:7000".into(), http: "here:7070".into() };
        let door = Arc::new(Door::new(ID, Arc::new(Faults::new(false))));
        let config = config(tail_cache_bytes);
        let node = runtime.block_on(Node::start(
            config,
            addresses,
            environment,
            door,
            Telemetry::new(clock),
        ))?;
        let services = node.services().clone();
        Ok(Self { runtime, services, _node: node })
    }
}

/// Logs that a task of the runtime writes, as soon as there is something to write.
fn open_log(disk: MemoryDisk, clock: SharedClock) -> OpenLog {
    Arc::new(move |dir, options| {
        let work = Arc::new(Notify::new());
        let waker = work.clone();
        let wake = Arc::new(move || waker.notify_one());
        let (log, report, mut driver) =
            Log::open_driven(disk.shared(), dir, options, clock.clone(), wake)?;
        tokio::spawn(async move {
            loop {
                work.notified().await;
                if !driver.turn() {
                    return;
                }
            }
        });
        Ok((log, report))
    })
}

fn config(tail_cache_bytes: usize) -> BrokerConfig {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    BrokerConfig {
        broker: ID,
        data_dir: PathBuf::from("/data"),
        listen: nowhere,
        listen_http: nowhere,
        http: HttpConfig::default(),
        listen_peer: None,
        peers: vec![Peer { id: ID, address: "here:7090".into() }],
        allow_faults: false,
        advertise: None,
        partitions: None,
        log: LogOptions { tail_cache_bytes, ..unsynced() },
        compression: Compression::None,
        retention: Retention::default(),
        limits: Limits {
            line_bytes_max: 1 << 20,
            connections_max: 64,
            inflight_bytes_max: 256 << 20,
            stalled_max: Duration::from_secs(30),
            spin: Duration::ZERO,
        },
    }
}
