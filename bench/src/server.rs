//! The servers that are measured: child processes on loopback, each in a folder of its own.
//!
//! A server listens where the system says there is room, counts as started when it answers a
//! greeting (a condition, not a sleep), and is ended by its own number. Should the bench die, the
//! kernel ends its servers.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::clock::{now_ns, seconds_since};
use crate::peers::{Member, Safety, Setup, Way};
use crate::usage::{Cpu, Memory, disk_bytes};
use crate::wire::Wire;

/// How often a starting server is asked: fine enough to tell 5 ms from 6.
const ASK_EVERY: Duration = Duration::from_micros(200);

/// Longest start: a server that reads its whole log before it answers takes a while.
const START_SECONDS_MAX: f64 = 60.0;

/// Longest end: ours gives its clients five seconds, and under valgrind all takes longer.
const END_SECONDS_MAX: f64 = 60.0;

/// One server, or the servers of one cluster.
pub struct Fleet<'a> {
    way: &'a dyn Way,
    program: PathBuf,
    safety: Safety,
    is_prompt: bool,
    /// How long the first start took.
    pub started_seconds: f64,
    dir: TempDir,
    members: Vec<Member>,
    children: Vec<Option<Child>>,
}

impl<'a> Fleet<'a> {
    /// Starts `count` servers with empty folders and makes what the load needs.
    ///
    /// # Errors
    /// When the program is missing or does not start.
    pub fn start(
        way: &'a dyn Way,
        safety: Safety,
        is_prompt: bool,
        count: usize,
    ) -> anyhow::Result<Self> {
        let program = way
            .program()
            .with_context(|| format!("{}: its server is not on this machine", way.name()))?;
        let dir = TempDir::with_prefix("aklight-bench-").context("making a folder")?;
        let members = free_members(count)?;
        let children = (0..count).map(|_| None).collect();
        let started_seconds = 0.0;
        let mut fleet =
            Self { way, program, safety, is_prompt, started_seconds, dir, members, children };
        let begin_ns = now_ns();
        for number in 0..count {
            fleet.spawn(number)?;
        }
        for number in 0..count {
            fleet.await_greeting(number)?;
        }
        fleet.started_seconds = seconds_since(begin_ns);
        way.prepare(fleet.address(0), count)
            .with_context(|| format!("preparing {}", way.name()))?;
        Ok(fleet)
    }

    /// Starts a server that was killed, where and as it was, and waits until it serves. Gives
    /// back how many seconds that took.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, number: usize) -> anyhow::Result<f64> {
        let begin_ns = now_ns();
        self.spawn(number)?;
        self.await_greeting(number)?;
        Ok(seconds_since(begin_ns))
    }

    /// Kills a server as `kill -9` does.
    ///
    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.children[number].take().context("it is dead already")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Tells a server to end, and waits until it has.
    ///
    /// # Errors
    /// When it was not running, or does not end.
    pub fn end(&mut self, number: usize) -> anyhow::Result<ExitStatus> {
        let child = self.children[number].as_mut().context("it is dead already")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let begin_ns = now_ns();
        loop {
            if let Some(status) = child.try_wait()? {
                self.children[number] = None;
                return Ok(status);
            }
            ensure!(seconds_since(begin_ns) < END_SECONDS_MAX, "{} does not end", self.way.name());
            sleep(ASK_EVERY);
        }
    }

    /// Where a server listens for clients.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.members[number].clients
    }

    /// Processor time of all of them so far.
    pub fn cpu(&self) -> Cpu {
        Cpu::of(&self.pids())
    }

    /// Memory of all of them together.
    pub fn memory(&self) -> Memory {
        Memory::of(&self.pids())
    }

    /// Bytes that they hold on the disk together.
    pub fn disk_bytes(&self) -> u64 {
        (0..self.members.len()).map(|number| disk_bytes(&self.data_dir(number))).sum()
    }

    /// The process of a server that runs.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.children[number].as_ref().map(Child::id)
    }

    fn pids(&self) -> Vec<u32> {
        self.children.iter().flatten().map(Child::id).collect()
    }

    /// Where a server keeps its records.
    pub fn data_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("server-{number}"))
    }

    fn log_path(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("server-{number}.log"))
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let dir = self.data_dir(number);
        fs::create_dir_all(&dir)?;
        let members = if self.members.len() > 1 { self.members.as_slice() } else { &[] };
        let listen = self.address(number);
        let setup = Setup {
            dir: &dir,
            listen,
            safety: self.safety,
            is_prompt: self.is_prompt,
            members,
            number,
        };
        let mut command = self.way.command(&self.program, &setup)?;
        let log = File::create(self.log_path(number))?;
        command.current_dir(&dir);
        let child =
            spawn(command, log).with_context(|| format!("starting {}", self.program.display()))?;
        self.children[number] = Some(child);
        Ok(())
    }

    fn await_greeting(&mut self, number: usize) -> anyhow::Result<()> {
        let begin_ns = now_ns();
        loop {
            let said =
                Wire::connect(self.address(number)).and_then(|mut wire| self.way.greet(&mut wire));
            let Err(error) = said else { return Ok(()) };
            let child = self.children[number].as_mut().context("it was never started")?;
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(self.log_path(number)).unwrap_or_default();
                bail!("{} ended with {status}; it said:\n{log}", self.way.name());
            }
            if seconds_since(begin_ns) > START_SECONDS_MAX {
                return Err(error).with_context(|| format!("{} does not serve", self.way.name()));
            }
            sleep(ASK_EVERY);
        }
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        // What it stored is thrown away with its folder: nothing is lost by the quick way.
        for mut child in self.children.drain(..).flatten() {
            if let Ok(pid) = i32::try_from(child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
    }
}

/// Starts a process that says what it has to say to `log`, and that the kernel ends with the bench.
///
/// # Errors
/// When it does not start.
pub fn spawn(mut command: Command, log: File) -> std::io::Result<Child> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: prctl is a system call and touches no memory that the parent could hold locked.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    command.spawn()
}

/// Ports that the system has to spare. They are free again when this returns; whoever else takes
/// one meanwhile makes a server's start fail, with a message that says so.
fn free_members(count: usize) -> anyhow::Result<Vec<Member>> {
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = (0..count)
        .map(|_| Ok((listener()?, listener()?)))
        .collect::<std::io::Result<Vec<_>>>()
        .context("looking for free ports")?;
    let members = held.iter().map(|(clients, peers)| {
        Ok(Member { clients: clients.local_addr()?, peers: peers.local_addr()? })
    });
    members.collect()
}
