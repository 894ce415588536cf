//! What tests of running processes share: free ports, lines that are waited for, children.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Generous, because a busy machine shares its cores; reached by failures only.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The command, free of what the environment of these tests may hold.
pub fn aklight(args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("aklight"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AKLIGHT_")) {
        command.env_remove(name);
    }
    command.args(args).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// A port that is free, with all that brokers from there on need: for clients, for HTTP 70 above,
/// and for each other 90 above. It lies below the ports that the system gives to outgoing
/// connections, or a client that dials a dead broker could be given that very port.
pub fn free_ports(brokers: u16) -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let from = std::process::id().wrapping_mul(211);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all_free = |port: &u16| {
        (0..brokers).all(|n| [0, 70, 90].into_iter().all(|step| free(port + n + step)))
    };
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    (0..COUNT)
        .map(|_| FIRST + from.wrapping_add(TAKEN.fetch_add(7, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(all_free)
        .expect("free ports")
}

/// The same for one broker.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// A running process whose standard output is read line by line. Killed when dropped.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    pub seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that holds all of these, and gives it back.
    pub fn wait_for(&mut self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(error @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("no line with {parts:?} ({error}); seen:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// The next line, if one is there already.
    pub fn poll(&mut self) -> Option<&String> {
        self.seen.extend(self.lines.try_recv());
        self.seen.last()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for the end; what was said until then is seen.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for_end(&mut self.child);
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a process ends.
pub fn wait_for_end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("the process ends", || {
        status = child.try_wait().expect("waited");
        status.is_some()
    });
    status.expect("ended")
}

/// Runs to the end.
pub fn run(args: &[&str]) -> Output {
    aklight(args).output().expect("ran")
}

/// Runs to a good end and gives back what it printed.
pub fn stdout_of(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

pub fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("sent");
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The children of a process: pid, and command line with blanks between the words.
pub fn children(pid: u32) -> Vec<(u32, String)> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .map(|child| {
            let words = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            (child.parse().expect("a pid"), words)
        })
        .collect()
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}
