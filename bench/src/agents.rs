//! Agents that measure the machine they run on, once a second: AKLight's producer and its peers.
//!
//! Each measures the host only: the producer is not let near a container engine and sends to a
//! broker of its own, collectd writes CSV files, node_exporter is asked for everything each second.
//! Of an agent all its processes count, and of the others none: not the broker, not who asks.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};
use memchr::memmem;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::peers::aklight::{Aklight, without_own_settings};
use crate::peers::{Safety, Way as _};
use crate::programs::on_path;
use crate::server::{Fleet, spawn};
use crate::usage::{disk_bytes, tree};
use crate::wire::Wire;

/// How often each measures.
const EVERY: Duration = Duration::from_secs(1);

/// collectd's plugins: what the producer measures as well, and disks and processes.
const PLUGINS: [&str; 8] = ["cpu", "memory", "load", "disk", "interface", "df", "processes", "csv"];

/// Something that measures the machine.
#[derive(Debug, Clone)]
pub enum Agent {
    /// `aklight producer`, which sends to a broker.
    Producer(Aklight),
    /// collectd, which writes files.
    Collectd,
    /// Prometheus's node_exporter, which is asked.
    NodeExporter,
}

/// Every agent, AKLight's first.
pub fn all(aklight: &Path) -> [Agent; 3] {
    [Agent::Producer(Aklight::new(aklight)), Agent::Collectd, Agent::NodeExporter]
}

impl Agent {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Producer(_) => "aklight producer",
            Self::Collectd => "collectd",
            Self::NodeExporter => "node exporter",
        }
    }

    /// Its program, where it is found.
    pub fn program(&self) -> Option<PathBuf> {
        match self {
            Self::Producer(aklight) => aklight.program(),
            Self::Collectd => on_path("collectd"),
            Self::NodeExporter => on_path("prometheus-node-exporter"),
        }
    }

    /// Starts it, and what it needs.
    ///
    /// # Errors
    /// When one of its programs does not start.
    pub fn start(&self) -> anyhow::Result<Running<'_>> {
        let program = self.program().context("its program is not on this machine")?;
        let dir = TempDir::with_prefix("aklight-bench-agent-").context("making a folder")?;
        let mut command = Command::new(program);
        let output = match self {
            Self::Producer(aklight) => {
                let broker = Fleet::start(aklight, Safety::Synced, false, 1)?;
                without_own_settings(&mut command);
                command.args(["producer", "--id", "bench", "--docker", "off", "--interval", "1s"]);
                command.arg("--brokers").arg(broker.address(0).to_string());
                command.arg("--spool-dir").arg(dir.path().join("spool"));
                Output::Broker(broker)
            }
            Self::Collectd => {
                let config = dir.path().join("collectd.conf");
                fs::write(&config, collectd_config(dir.path()))?;
                command.arg("-f").arg("-C").arg(config);
                Output::Folder(dir.path().join("csv"))
            }
            Self::NodeExporter => {
                // Free when this returns: whoever takes it meanwhile makes the start fail.
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let address = listener.local_addr()?;
                command.arg(format!("--web.listen-address={address}"));
                Output::Asked(Asking::start(address))
            }
        };
        let log = File::create(dir.path().join("agent.log"))?;
        let child = spawn(command, log).with_context(|| format!("starting {}", self.name()))?;
        Ok(Running { child, output, dir })
    }
}

fn collectd_config(dir: &Path) -> String {
    let dir = dir.display();
    let plugins = PLUGINS.map(|plugin| format!("LoadPlugin {plugin}\n")).concat();
    format!(
        "Hostname \"bench\"\nFQDNLookup false\nBaseDir \"{dir}\"\nPIDFile \"{dir}/pid\"\n\
         TypesDB \"/usr/share/collectd/types.db\"\nInterval {}\n{plugins}\
         <Plugin csv>\n  DataDir \"{dir}/csv\"\n</Plugin>\n",
        EVERY.as_secs()
    )
}

/// An agent that runs.
pub struct Running<'a> {
    child: Child,
    output: Output<'a>,
    dir: TempDir,
}

/// Where what it measures goes.
enum Output<'a> {
    Broker(Fleet<'a>),
    Folder(PathBuf),
    Asked(Asking),
}

impl Running<'_> {
    /// All its processes.
    pub fn pids(&self) -> Vec<u32> {
        tree(self.child.id())
    }

    /// Makes sure that it runs and that something came of it: one that fails costs nothing.
    ///
    /// # Errors
    /// When nothing came of it.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let log = || fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default();
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it ended with {ended:?}; it said:\n{}", log());
        let is_at_work = match &self.output {
            Output::Broker(broker) => {
                let mut is_empty = true;
                Wire::connect(broker.address(0))?.ask(b"TOPICS|metrics/#\n", |bytes| {
                    let Some(end) = memmem::rfind(bytes, b"END|") else { return Ok(None) };
                    is_empty = bytes[end..] == *b"END|0\n";
                    Ok(bytes.ends_with(b"\n").then_some(bytes.len()))
                })?;
                !is_empty
            }
            Output::Folder(folder) => disk_bytes(folder) > 0,
            Output::Asked(asking) => asking.bytes.load(Ordering::Relaxed) > 0,
        };
        ensure!(is_at_work, "nothing came of it; it said:\n{}", log());
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for pid in self.pids() {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Somebody who asks for all metrics each second, as Prometheus would.
struct Asking {
    bytes: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    fn start(address: SocketAddr) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = channel();
        let answered = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                // One that does not answer is found out by the bytes that did not come.
                if let Ok(length) = ask(address) {
                    answered.fetch_add(length, Ordering::Relaxed);
                }
            }
        });
        Self { bytes, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(address: SocketAddr) -> std::io::Result<u64> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(EVERY))?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer.len() as u64)
}
