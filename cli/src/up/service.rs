//! One process that `up` keeps: how it is started, heard, ended and mourned.
//!
//! The child is in a process group of its own, so that the terminal's Ctrl-C reaches `up` alone
//! and the order of the end holds; and the kernel ends it when `up` dies without a word.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;

use aklight_common::client::Backoff;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::console::Lines;
use crate::child;

/// How long to wait before a dead process is started again: half a second at first, for a slip
/// should hardly be noticed; ten at most, for a lasting trouble should be noticed when mended.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(10) };

/// A process that ran this long was well: the next death is a first one.
const WELL_MS: u64 = 30_000;

/// Bytes read from a pipe at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A process and what is to be known about it.
pub struct Service {
    /// Its name, which is its id as well.
    pub name: String,
    /// When it is ended: lower first.
    pub stage: u8,
    args: Vec<String>,
    running: Option<Running>,
    due_ms: Option<u64>,
    failures: u32,
}

struct Running {
    child: Child,
    since_ms: u64,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
}

/// One of a child's two outputs; none once it has ended.
struct Pipe<R> {
    reader: Option<R>,
    lines: Lines,
}

impl Service {
    /// A process that is not started yet.
    pub fn new(name: &str, stage: u8, args: Vec<String>) -> Self {
        Self { name: name.to_owned(), stage, args, running: None, due_ms: None, failures: 0 }
    }

    /// Adds to its command line.
    pub fn add_args(&mut self, args: impl IntoIterator<Item = String>) {
        self.args.extend(args);
    }

    /// Lets it start at the next occasion.
    pub fn make_due(&mut self, now_ms: u64) {
        self.due_ms = Some(now_ms);
    }

    /// When it wants to be started, if it does.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it.
    pub fn start(&mut self, now_ms: u64) -> io::Result<()> {
        self.due_ms = None;
        let mut child = child::command(&self.args, Signal::SIGTERM)
            // A cluster that this shell knows of is not ours.
            .env_remove("AKLIGHT_PEERS")
            .env_remove("AKLIGHT_LISTEN_PEER")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = Pipe::new(child.stdout.take())?;
        let stderr = Pipe::new(child.stderr.take())?;
        self.running = Some(Running { child, since_ms: now_ms, stdout, stderr });
        Ok(())
    }

    /// Gives out what it has said since the last time.
    pub fn hear(&mut self, mut line: impl FnMut(&[u8])) {
        if let Some(running) = &mut self.running {
            running.stdout.drain(&mut line);
            running.stderr.drain(&mut line);
        }
    }

    /// What to wait on for it to say more.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (stdout, stderr) = self.running.as_ref().map_or((None, None), |running| {
            (running.stdout.reader.as_ref(), running.stderr.reader.as_ref())
        });
        stdout.map(AsFd::as_fd).into_iter().chain(stderr.map(AsFd::as_fd))
    }

    /// Takes note of its death, if it has died; its last words are given out first.
    pub fn reap(&mut self, mut line: impl FnMut(&[u8])) -> Option<Death> {
        let running = self.running.as_mut()?;
        let status = running.child.try_wait().ok()??;
        self.hear(&mut line);
        let mut running = self.running.take()?;
        running.stdout.lines.finish(&mut line);
        running.stderr.lines.finish(&mut line);
        Some(Death { status, since_ms: running.since_ms })
    }

    /// Plans its next start after a death, and tells how long that will be.
    pub fn plan_restart(&mut self, death: &Death, now_ms: u64) -> Duration {
        if now_ms.saturating_sub(death.since_ms) >= WELL_MS {
            self.failures = 0;
        }
        let wait = BACKOFF.ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.due_ms = Some(now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        wait
    }

    /// Sends it a signal and wants it started no more.
    pub fn end(&mut self, signal: Signal) {
        self.due_ms = None;
        if let Some(running) = &self.running
            && let Ok(pid) = i32::try_from(running.child.id())
        {
            // It may be dead already, which is what was wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// How a process ended.
pub struct Death {
    status: ExitStatus,
    since_ms: u64,
}

impl Death {
    /// The exit code, if it was not killed.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "ended with exit code {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            (None, None) => write!(f, "ended"),
        }
    }
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(reader: Option<R>) -> io::Result<Self> {
        if let Some(reader) = &reader {
            let flags = OFlag::from_bits_retain(fcntl(reader, FcntlArg::F_GETFL)?);
            fcntl(reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self { reader, lines: Lines::default() })
    }

    /// Reads what is there, and no longer.
    fn drain(&mut self, line: &mut impl FnMut(&[u8])) {
        let mut chunk = [0_u8; CHUNK_BYTES];
        while let Some(reader) = &mut self.reader {
            match reader.read(&mut chunk) {
                Ok(0) => self.reader = None,
                Ok(read) => self.lines.push(&chunk[..read], &mut *line),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.reader = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_a_good_life_ends_it() {
        let mut service = Service::new("x", 0, Vec::new());
        let death = Death { status: ExitStatus::from_raw(9), since_ms: 0 };
        let waits: Vec<u128> =
            (0..6).map(|_| service.plan_restart(&death, 100).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(service.plan_restart(&death, WELL_MS).as_millis(), 500);
        assert_eq!(service.due_ms(), Some(WELL_MS + 500));
    }

    #[test]
    fn a_death_is_told_in_words() {
        let told = |raw| Death { status: ExitStatus::from_raw(raw), since_ms: 0 }.to_string();
        assert_eq!(told(9), "was killed by SIGKILL");
        assert_eq!(told(1 << 8), "ended with exit code 1");
    }
}
