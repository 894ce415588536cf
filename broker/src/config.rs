//! The broker's settings: as typed, then resolved with all mistakes at once.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use aklight_common::BrokerId;
use aklight_common::limits::LINE_BYTES_MAX;
use aklight_log::{Fsync, LogOptions, Retention};
use clap::{Args, ValueEnum};

use crate::replication::Peer;

/// Partitions of a new cluster, unless it is told another number.
pub const PARTITIONS_DEFAULT: u32 = 2;

/// Most partitions: each costs a writer thread and a Raft group.
const PARTITIONS_MAX: u32 = 256;

/// Shortest `--max-line`: a topic, a key and a payload must fit.
const LINE_BYTES_MIN: usize = 1024;

/// Longest `--max-line`, so that one line stays a small part of the memory for requests.
const LINE_BYTES_HIGHEST: usize = 64 << 20;

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FsyncArg {
    /// Before its ACK.
    Always,
    /// Within --fsync-interval-ms; a power loss may take acknowledged records.
    Interval,
    /// When the kernel likes; a power loss may take acknowledged records.
    Never,
}

/// Whose names `/metrics` gives to containers' values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum MetricNames {
    /// OpenTelemetry's: container_cpu_usage, container_memory_usage_bytes, …
    #[default]
    Otel,
    /// cAdvisor's: container_cpu_usage_seconds_total, …, for dashboards made for it
    Cadvisor,
}

/// Settings of the broker. A flag goes over its environment variable, that over --config FILE.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// This broker's number in its cluster, from 1
    #[arg(long, env = "AKLIGHT_NODE_ID", default_value_t = 1, value_name = "N")]
    pub node_id: u64,

    /// Where the log is kept
    #[arg(long, env = "AKLIGHT_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where clients connect (line protocol); port 0 lets the system choose one
    #[arg(long, env = "AKLIGHT_LISTEN", default_value = "0.0.0.0:7000", value_name = "ADDR")]
    pub listen: String,

    /// Where the page, /metrics, /livez, /readyz and all else of HTTP is served [default: the host of --listen, and its port + 70]
    #[arg(long, env = "AKLIGHT_LISTEN_HTTP", value_name = "ADDR")]
    pub listen_http: Option<String>,

    /// Further names that browsers may use for this broker, as in mon.example.com; addresses, names without a dot and private ones (.local, .lan, .internal) need none
    #[arg(long, env = "AKLIGHT_HTTP_HOSTS", value_name = "NAME,…")]
    pub http_hosts: Option<String>,

    /// Whose names /metrics gives to containers' values
    #[arg(long, env = "AKLIGHT_METRIC_NAMES", value_enum, default_value_t, value_name = "NAMES")]
    pub metric_names: MetricNames,

    /// The host or host:port that clients are told to reach this broker at [default: the host of --listen, or this machine's name]
    #[arg(long, env = "AKLIGHT_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,

    /// All brokers of the cluster, this one included: 1@host:7090,2@host:7090,… [default: this broker alone]
    #[arg(long, env = "AKLIGHT_PEERS", value_name = "ID@ADDR,…")]
    pub peers: Option<String>,

    /// Where other brokers connect [default: the host of --listen, and its port + 90]
    #[arg(long, env = "AKLIGHT_LISTEN_PEER", value_name = "ADDR")]
    pub listen_peer: Option<String>,

    /// Let `aklight fault` break this broker on purpose: for demonstrations and tests
    #[arg(long, env = "AKLIGHT_ALLOW_FAULTS", default_value_t = false)]
    pub allow_faults: bool,

    /// Partitions of a new cluster; an existing one keeps its number [default: 2]
    #[arg(long, env = "AKLIGHT_PARTITIONS", value_name = "N")]
    pub partitions: Option<u32>,

    /// When a record counts as durable and is acknowledged
    #[arg(long, env = "AKLIGHT_FSYNC", value_enum, default_value = "always")]
    pub fsync: FsyncArg,

    /// With --fsync interval: how long behind a sync the next one begins, in milliseconds
    #[arg(long, env = "AKLIGHT_FSYNC_INTERVAL_MS", default_value_t = 1000, value_name = "MS")]
    pub fsync_interval_ms: u64,

    /// Size at which a segment of the log is closed and the next begun, in bytes
    #[arg(long, env = "AKLIGHT_SEGMENT_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub segment_bytes: u64,

    /// How segments that are closed are kept: compressed, where that saves a fifth at least, or as they were written
    #[arg(long, env = "AKLIGHT_COMPRESSION", value_enum, default_value_t)]
    pub compression: Compression,

    /// Bytes kept in each partition, as they are on the disk; 0 keeps all
    #[arg(long, env = "AKLIGHT_RETENTION_BYTES", default_value_t = 4 << 30, value_name = "BYTES")]
    pub retention_bytes: u64,

    /// Hours that a record is kept; 0 keeps all
    #[arg(long, env = "AKLIGHT_RETENTION_HOURS", default_value_t = 168, value_name = "HOURS")]
    pub retention_hours: u64,

    /// Longest line that a client may send, in bytes
    #[arg(long, env = "AKLIGHT_MAX_LINE", default_value_t = LINE_BYTES_MAX, value_name = "BYTES")]
    pub max_line: usize,

    /// Most connections at once; one more is told to try again
    #[arg(long, env = "AKLIGHT_MAX_CONNECTIONS", default_value_t = 4096, value_name = "N")]
    pub max_connections: usize,

    /// Memory for records on their way to the disk, of all connections together, in bytes
    #[arg(long, env = "AKLIGHT_MAX_INFLIGHT", default_value_t = 256 << 20, value_name = "BYTES")]
    pub max_inflight: usize,

    /// Seconds without progress after which a client that does not read is cut off
    #[arg(long, env = "AKLIGHT_SLOW_CLIENT_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    pub slow_client_seconds: u64,

    /// Microseconds that one core looks for work after each read of a client before it sleeps:
    /// shorter waits for ACKs, on machines with a core to spare; 0 sleeps at once
    #[arg(long, env = "AKLIGHT_SPIN_US", default_value_t = 0, value_name = "MICROSECONDS")]
    pub spin_us: u64,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// This broker.
    pub broker: BrokerId,
    /// Where the log is kept.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is served; port 0 when it is to be derived and `listen` has none yet.
    pub listen_http: SocketAddr,
    /// How HTTP answers.
    pub http: HttpConfig,
    /// Where other brokers connect; none in a cluster of one.
    pub listen_peer: Option<SocketAddr>,
    /// All brokers, this one included; empty in a cluster of one.
    pub peers: Vec<Peer>,
    /// Whether this broker may be broken on purpose.
    pub allow_faults: bool,
    /// The host, or host:port, that clients are told.
    pub advertise: Option<String>,
    /// Partitions of a new cluster, if the user asked for a number.
    pub partitions: Option<u32>,
    /// How logs are written.
    pub log: LogOptions,
    /// How closed segments are kept.
    pub compression: Compression,
    /// What is kept.
    pub retention: Retention,
    /// What clients may use.
    pub limits: Limits,
}

/// How closed segments are kept. Those that were compressed can be read with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Compression {
    /// Compressed by lz4
    #[default]
    Lz4,
    /// As they were written
    None,
}

/// How HTTP answers.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// Further names of this broker.
    pub hosts: Vec<String>,
    /// Whose names containers' values have.
    pub metric_names: MetricNames,
}

/// What clients may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest line in bytes.
    pub line_bytes_max: usize,
    /// Most connections.
    pub connections_max: usize,
    /// Memory for records on their way, in bytes.
    pub inflight_bytes_max: usize,
    /// How long a client may take no byte.
    pub stalled_max: Duration,
    /// How long the broker stays awake after each read of a client.
    pub spin: Duration,
}

/// All that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl BrokerArgs {
    /// Checks the settings.
    ///
    /// # Errors
    /// Every mistake, each with what to write instead.
    pub fn resolve(&self) -> Result<BrokerConfig, ConfigErrors> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, text: &str| {
            if !holds {
                wrong.push(text.to_owned());
            }
        };
        check(self.node_id > 0, "--node-id counts from 1");
        check(
            self.partitions.is_none_or(|n| (1..=PARTITIONS_MAX).contains(&n)),
            "--partitions is a number from 1 to 256",
        );
        check(
            (LINE_BYTES_MIN..=LINE_BYTES_HIGHEST).contains(&self.max_line),
            "--max-line is a number of bytes from 1024 to 67108864",
        );
        check(self.max_connections > 0, "--max-connections is at least 1");
        check(
            self.max_inflight >= 4 * self.max_line,
            "--max-inflight is at least four times --max-line",
        );
        check(self.segment_bytes >= 1 << 20, "--segment-bytes is at least 1048576 (1 MiB)");
        check(self.spin_us <= 1_000_000, "--spin-us is at most 1000000, a second");
        check(self.slow_client_seconds > 0, "--slow-client-seconds is at least 1");
        check(self.fsync_interval_ms > 0, "--fsync-interval-ms is at least 1");
        let listen = address("--listen", &self.listen, &mut wrong);
        let listen_http = match (&self.listen_http, listen) {
            (Some(http), _) => address("--listen-http", http, &mut wrong),
            (None, listen) => {
                listen.and_then(|listen| above(listen, HTTP_ABOVE, "--listen-http", &mut wrong))
            }
        };
        let peers = self.peers.as_deref().map_or_else(Vec::new, |text| {
            peers_in(text, BrokerId(self.node_id)).unwrap_or_else(|text| {
                wrong.push(text);
                Vec::new()
            })
        });
        let listen_peer = match (&self.listen_peer, listen) {
            // Nobody is let in where no other broker is named.
            _ if peers.is_empty() => None,
            (Some(peer), _) => address("--listen-peer", peer, &mut wrong),
            (None, listen) => {
                listen.and_then(|listen| above(listen, PEER_ABOVE, "--listen-peer", &mut wrong))
            }
        };
        match (listen, listen_http) {
            (Some(listen), Some(listen_http)) if wrong.is_empty() => {
                Ok(BrokerConfig { listen_peer, peers, ..self.resolved(listen, listen_http) })
            }
            _ => Err(ConfigErrors(wrong)),
        }
    }

    fn resolved(&self, listen: SocketAddr, listen_http: SocketAddr) -> BrokerConfig {
        let fsync = match self.fsync {
            FsyncArg::Always => Fsync::Always,
            FsyncArg::Interval => Fsync::Interval(Duration::from_millis(self.fsync_interval_ms)),
            FsyncArg::Never => Fsync::Never,
        };
        BrokerConfig {
            broker: BrokerId(self.node_id),
            data_dir: self.data_dir.clone(),
            listen,
            listen_http,
            http: HttpConfig { hosts: self.hosts(), metric_names: self.metric_names },
            listen_peer: None,
            peers: Vec::new(),
            allow_faults: self.allow_faults,
            advertise: self.advertise.clone(),
            partitions: self.partitions,
            log: LogOptions { segment_bytes: self.segment_bytes, fsync, ..LogOptions::default() },
            compression: self.compression,
            retention: Retention {
                bytes: (self.retention_bytes > 0).then_some(self.retention_bytes),
                age_us: (self.retention_hours > 0)
                    .then_some(self.retention_hours.saturating_mul(3_600_000_000)),
            },
            limits: Limits {
                line_bytes_max: self.max_line,
                connections_max: self.max_connections,
                inflight_bytes_max: self.max_inflight,
                stalled_max: Duration::from_secs(self.slow_client_seconds),
                spin: Duration::from_micros(self.spin_us),
            },
        }
    }
}

impl BrokerArgs {
    fn hosts(&self) -> Vec<String> {
        let names = self.http_hosts.iter().flat_map(|names| names.split(','));
        names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

/// 7000 for clients means 7070 for HTTP, 7001 means 7071: brokers on one machine keep apart.
const HTTP_ABOVE: u16 = 70;

/// 7000 for clients means 7090 for other brokers.
const PEER_ABOVE: u16 = 90;

/// The address of another listener beside `--listen`; of a port that the system chooses, another one
/// that it chooses.
fn above(listen: SocketAddr, step: u16, flag: &str, wrong: &mut Vec<String>) -> Option<SocketAddr> {
    let port = match listen.port() {
        0 => Some(0),
        port => port.checked_add(step),
    };
    if port.is_none() {
        wrong.push(format!(
            "--listen {listen}: {step} above its port there is none for {flag}: name one with {flag} HOST:PORT"
        ));
    }
    port.map(|port| SocketAddr::new(listen.ip(), port))
}

/// Reads `1@host:7090,2@host:7090`, in which `me` must be.
fn peers_in(text: &str, me: BrokerId) -> Result<Vec<Peer>, String> {
    let mut peers: Vec<Peer> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let peer = part.split_once('@').and_then(|(id, address)| {
            let id = id.parse().ok().filter(|id| *id > 0)?;
            let (host, port) = address.rsplit_once(':')?;
            let valid = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
            valid.then(|| Peer { id: BrokerId(id), address: address.to_owned() })
        });
        let peer = peer.ok_or_else(|| {
            format!("--peers: {part} is no broker: write ID@HOST:PORT, as in 1@broker1:7090")
        })?;
        if peers.iter().any(|known| known.id == peer.id) {
            return Err(format!("--peers names broker {} twice", peer.id));
        }
        if let Some(known) = peers.iter().find(|known| known.address == peer.address) {
            return Err(format!(
                "--peers has brokers {} and {} both at {}: each has an address of its own",
                known.id, peer.id, peer.address
            ));
        }
        peers.push(peer);
    }
    if peers.is_empty() {
        // A variable that nobody filled must not make a cluster of its own out of each broker.
        return Err("--peers names nobody: write ID@HOST:PORT of all brokers, or leave it out for a broker alone".to_owned());
    }
    if !peers.iter().any(|peer| peer.id == me) {
        return Err(format!(
            "--peers does not name broker {me}, which this one is (--node-id): name all brokers, this one too"
        ));
    }
    peers.sort_by_key(|peer| peer.id);
    Ok(peers)
}

fn address(flag: &str, text: &str, wrong: &mut Vec<String>) -> Option<SocketAddr> {
    match text.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => Some(address),
        Ok(None) => {
            wrong.push(format!("{flag} {text}: the name leads to no address"));
            None
        }
        Err(error) => {
            wrong.push(format!("{flag} {text}: {error}; write HOST:PORT, as in 0.0.0.0:7000"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BrokerArgs,
    }

    fn resolve(flags: &[&str]) -> Result<BrokerConfig, ConfigErrors> {
        let argv = std::iter::once("broker").chain(flags.iter().copied());
        Cli::try_parse_from(argv).expect("parses").args.resolve()
    }

    #[test]
    fn http_stands_seventy_above_unless_told() {
        let port = |flags: &[&str]| resolve(flags).expect("resolves").listen_http.port();
        assert_eq!(port(&[]), 7070);
        assert_eq!(port(&["--listen", "127.0.0.1:7001"]), 7071);
        assert_eq!(port(&["--listen", "127.0.0.1:0"]), 0);
        assert_eq!(port(&["--listen-http", "127.0.0.1:8123"]), 8123);
        let high = ["--listen", "127.0.0.1:65500"];
        let error = resolve(&high).expect_err("no port so high");
        assert!(error.to_string().contains("name one with --listen-http"), "{error}");
        assert_eq!(port(&[&high[..], &["--listen-http", "127.0.0.1:1"]].concat()), 1);
    }

    #[test]
    fn peers_are_named_with_their_numbers() {
        let peers = |text: &str| {
            resolve(&["--node-id", "2", "--peers", text])
                .map(|config| (config.peers.len(), config.listen_peer))
        };
        assert_eq!(
            peers("2@b:7090, 1@a:7090,3@[::1]:7090"),
            Ok((3, Some("0.0.0.0:7090".parse().expect("an address"))))
        );
        for (wrong, said) in [
            ("1@a:7090", "does not name broker 2"),
            ("2@b:7090,2@c:7090", "twice"),
            ("b:7090", "write ID@HOST:PORT"),
            ("2@b", "write ID@HOST:PORT"),
            ("0@b:1,2@c:1", "write ID@HOST:PORT"),
            ("1@a:7090,2@a:7090", "both at a:7090"),
            ("", "names nobody"),
        ] {
            let error = peers(wrong).expect_err(wrong);
            assert!(error.to_string().contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = resolve(&["--node-id", "0", "--partitions", "0", "--listen", "nowhere"])
            .expect_err("three mistakes");
        assert_eq!(error.0.len(), 3, "{error}");
    }
}
