//! Brokers of our own: processes of this same program on loopback, to be killed and started again.
//!
//! Each has a folder for its data and a file for what it says. Their ports lie below those that
//! the system gives to outgoing connections: a client that dials a dead broker's port could else be
//! given that very port, be connected to itself, and keep the broker from coming back.
//!
//! Invariant: nobody outlives us. A [`Broker`] that is dropped kills its process, and the kernel
//! kills it when we die without a word, even if it is stopped.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use aklight_common::BrokerId;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};

use crate::child;

/// HTTP and the peers' port stand this far above the line protocol, as everywhere.
const HTTP_ABOVE: u16 = 70;
const PEER_ABOVE: u16 = 90;

/// The lowest port that is tried: below are the ports of services that people know.
const PORT_MIN: u16 = 10_000;

/// Where outgoing connections begin where the system does not say.
const OUTGOING_DEFAULT: u16 = 32_768;

/// How many ports are tried before it is said that there are none.
const PORT_TRIES_MAX: usize = 1_000;

/// The smallest segments there are, so that minutes see many of them closed and opened, and a full
/// disk is felt before it is freed.
const SEGMENT_BYTES: u64 = 1 << 20;

/// How long an orderly end may take: what docker stop grants in our compose file.
const END_MAX: Duration = Duration::from_secs(20);

/// How often a process that should end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One broker, whether it runs or not.
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// Its folder: its disk, where it has one of its own.
    pub home: PathBuf,
    /// Where its data is, inside.
    pub data: PathBuf,
    /// Where it takes lines.
    pub line: SocketAddr,
    /// Where it takes HTTP.
    pub http: SocketAddr,
    /// Where it writes what it says.
    pub said: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
    /// It was asked to end, and has not yet.
    is_ending: bool,
}

/// Prepares `count` brokers, with their data in `dir`; none is started.
///
/// # Errors
/// There are no ports, or no room in the folder.
pub fn prepare(dir: &Path, count: usize, rng: &mut SmallRng) -> anyhow::Result<Vec<Broker>> {
    let ports = ports(count, rng)?;
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let peers: Vec<String> =
        (1..).zip(&ports).map(|(id, port)| format!("{id}@{}", local(port + PEER_ABOVE))).collect();
    let mut brokers = Vec::new();
    for (id, port) in (1_u64..).zip(&ports) {
        let home = dir.join(format!("broker{id}"));
        fs::create_dir_all(&home).with_context(|| format!("no folder {}", home.display()))?;
        let data = home.join("data");
        let (line, http) = (local(*port), local(*port + HTTP_ABOVE));
        let mut args = vec![
            "broker".to_owned(),
            format!("--node-id={id}"),
            format!("--data-dir={}", data.display()),
            format!("--listen={line}"),
            format!("--listen-http={http}"),
            format!("--segment-bytes={SEGMENT_BYTES}"),
        ];
        if count > 1 {
            args.push(format!("--listen-peer={}", local(*port + PEER_ABOVE)));
            args.push(format!("--peers={}", peers.join(",")));
            args.push("--allow-faults".to_owned());
        }
        let said = dir.join(format!("broker{id}.log"));
        let id = BrokerId(id);
        let (child, is_ending) = (None, false);
        brokers.push(Broker { id, home, data, line, http, said, args, child, is_ending });
    }
    Ok(brokers)
}

/// Free ports below the outgoing ones, with free ports above each for HTTP and peers.
fn ports(count: usize, rng: &mut SmallRng) -> anyhow::Result<Vec<u16>> {
    let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(OUTGOING_DEFAULT);
    let highest = outgoing.saturating_sub(PEER_ABOVE).max(PORT_MIN + 1);
    let mut held: Vec<(u16, [TcpListener; 3])> = Vec::new();
    for _ in 0..PORT_TRIES_MAX {
        if held.len() == count {
            break;
        }
        let port = rng.random_range(PORT_MIN..highest);
        let listen = |above| TcpListener::bind((Ipv4Addr::LOCALHOST, port + above)).ok();
        if let (Some(line), Some(http), Some(peer)) =
            (listen(0), listen(HTTP_ABOVE), listen(PEER_ABOVE))
        {
            held.push((port, [line, http, peer]));
        }
    }
    if held.len() < count {
        bail!("{count} free ports from {PORT_MIN} to {highest} were not found");
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

impl Broker {
    /// Starts it. Does nothing when it runs.
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.is_ending {
            self.kill();
        }
        if self.child.is_some() {
            return Ok(());
        }
        let said = OpenOptions::new().create(true).append(true).open(&self.said);
        let said: File = said.with_context(|| format!("no file {}", self.said.display()))?;
        // SIGKILL, for a stopped process heeds no other, and nobody is left to wait for an
        // orderly end.
        let child = child::command(&self.args, Signal::SIGKILL)
            // What the user's environment says is about other brokers.
            .env_clear()
            .stdout(Stdio::from(said.try_clone()?))
            .stderr(Stdio::from(said))
            .spawn()
            .with_context(|| format!("broker{} cannot be started", self.id))?;
        self.child = Some(child);
        Ok(())
    }

    /// How it ended, if nobody asked it to.
    pub fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.is_ending = false;
        if let Some(mut child) = self.child.take() {
            // It may be dead already, which is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Ok(pid) = i32::try_from(child.id())
        {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// It would not, and was killed; or it ended badly.
    pub async fn end(&mut self) -> Result<(), String> {
        self.is_ending = true;
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let Some(child) = &mut self.child else { return Ok(()) };
        let ended = async {
            loop {
                if let Ok(Some(status)) = child.try_wait() {
                    return status;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let ended = timeout(END_MAX, ended).await;
        self.kill();
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("broker{} answered SIGTERM with {status}", self.id)),
            Err(_) => Err(format!("broker{} did not end within {END_MAX:?} of SIGTERM", self.id)),
        }
    }

    /// The lines in which it says that it panicked.
    pub fn panics(&self) -> Vec<String> {
        let said = fs::read(&self.said).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        said.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    /// Bytes that its data takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.data)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            // Blocks are counted in 512 bytes, whatever the disk's own are.
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
