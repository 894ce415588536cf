//! The real binary as a process, and what /proc says about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait of a test for anything: far more than needed, for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is there.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running producer; killed when dropped.
pub struct Producer {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Producer {
    /// Starts one that measures five times a second, and watches no containers.
    pub fn start(brokers: &str, spool: &Path) -> Self {
        Self::start_with(brokers, spool, &["--docker=off"])
    }

    /// Starts one with further flags.
    pub fn start_with(brokers: &str, spool: &Path, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_aklight-producer"))
            .args(["--id", "p1", "--brokers", brokers, "--spool-dir"])
            .arg(spool)
            .args(flags)
            .env("AKLIGHT_INTERVAL", "200ms")
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("started");
        Self { child, log, _folder: folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// The process of a child with that name in `ps` and, as its whole command line, in `ps aux`.
    pub fn collector(&self, name: &str) -> Option<u32> {
        // The kernel keeps 15 bytes of the short name.
        let short = &name[..name.len().min(15)];
        children(self.pid()).into_iter().find(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            comm.trim() == short && cmdline.trim_end_matches('\0') == name
        })
    }

    /// The one that watches containers.
    pub fn docker_collector(&self) -> Option<u32> {
        self.collector("docker_collector")
    }

    /// Both collectors, once they bear their names.
    pub fn collectors(&self) -> [u32; 2] {
        ["cpu_collector", "mem_collector"].map(|name| wait_until(name, || self.collector(name)))
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the producer's end", || self.child.try_wait().expect("a child"))
    }

    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the producer's log:\n{}", self.log());
        }
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process");
}

/// The processes that have `parent` as theirs.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| state_and_parent(*pid).is_some_and(|(_, its)| its == parent))
        .collect()
}

/// Whether a process runs: one that is dead and not yet waited for does not.
pub fn alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
