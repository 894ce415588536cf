//! Collectors: the children that read CPU, memory and an engine's containers, and the parent's end
//! of each.
//!
//! A collector is forked, not started anew: it shares the parent's program and what the parent
//! found out about control groups. It measures at every tick and writes one sample, closed by a
//! newline, into its pipe; that of containers ([`crate::docker`]) writes records of several kinds
//! and packs several into a write. A write of at most `PIPE_BUF` bytes is whole or does not happen
//! (pipe(7)); both ends are `O_NONBLOCK`, so a full pipe costs the sample, counted, and never
//! stops the collector.
//!
//! Nobody is left behind: when the parent dies, in whatever way, the kernel kills its children
//! (`PR_SET_PDEATHSIG`); one forked in that very moment sees another parent than it was told;
//! and the pipe without a reader reports an error. When a child dies, the parent sees the pipe's
//! end and gets SIGCHLD.
//!
//! Forking copies one thread. With others, a lock one of them held would stay locked in the
//! child for ever; [`fork`] therefore refuses when the process has more threads than one.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use aklight_common::clock::SharedClock;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid, getpid, getppid, pipe2};
use tracing::{error, info, warn};

use crate::docker::{self, Watch};
use crate::readings::cgroup::Groups;
use crate::readings::cpu::CpuReader;
use crate::readings::memory::MemoryReader;
use crate::readings::{ReadError, Root};
use crate::sample::{Metric, Sample};
use crate::ticker::Ticker;
use crate::title;

/// How a child leaves that lost its parent: nothing went wrong in it.
pub const EXIT_ORPHANED: i32 = 0;
/// How a child leaves that failed: Rust's own code for a panic.
pub const EXIT_FAILED: i32 = 101;

/// Longest time that a child sleeps before it looks again whether its parent lives. Only a
/// guard: the kernel's signal comes at once.
const SLEEP_MS_MAX: u64 = 60_000;

/// Bytes that the parent takes from a pipe at a time: all that a pipe holds by default (pipe(7)).
const PIPE_READ_BYTES: usize = 64 * 1024;

/// What the pipe of containers is to hold: ten ticks of fifty that run, for a parent that a busy
/// machine lets wait. The most that anybody gets without privileges (pipe(7)).
const CONTAINERS_PIPE_BYTES: libc::c_int = 1 << 20;

/// Which child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collector {
    /// Reads CPU use.
    Cpu,
    /// Reads memory use.
    Memory,
    /// Watches the containers of an engine.
    Docker,
}

impl Collector {
    /// The child's name in `ps aux`; `ps` alone shows the first 15 bytes of it.
    #[must_use]
    pub fn title(self) -> &'static CStr {
        match self {
            Self::Cpu => c"cpu_collector",
            Self::Memory => c"mem_collector",
            Self::Docker => c"docker_collector",
        }
    }

    /// The same, for the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.title().to_str().unwrap_or_default()
    }

    /// What its lines hold, where that is always the same.
    #[must_use]
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::Cpu => Some(Metric::Cpu),
            Self::Memory => Some(Metric::Memory),
            Self::Docker => None,
        }
    }
}

/// What a child needs to know, found out before the fork.
#[derive(Clone)]
pub struct Plan {
    /// Where the kernel's files are.
    pub root: Root,
    /// Whose files to read.
    pub groups: Groups,
    /// How often.
    pub interval_us: u64,
    /// The time.
    pub clock: SharedClock,
    /// Which containers to watch; none where that is switched off.
    pub docker: Option<Watch>,
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Forking now could leave a lock locked in the child.
    #[error(
        "this process has {0} threads, and may fork with one only: start the producer in a process of its own"
    )]
    Threads(usize),
    /// The process's own state cannot be read.
    #[error("/proc/self/status cannot be read: is /proc mounted?")]
    Status(#[source] io::Error),
    /// The kernel refused: most likely a limit on processes or open files.
    #[error(
        "no collector could be started: raise the limit on processes (ulimit -u, pids.max) or on open files (ulimit -n)"
    )]
    Kernel(#[from] Errno),
}

/// The parent's end of a collector.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub pid: Pid,
    pipe: Option<OwnedFd>,
    /// What came last and is no whole line yet.
    rest: Vec<u8>,
}

/// Starts a collector.
///
/// # Errors
/// When this process has several threads, or the kernel gives no process or pipe.
pub fn fork(collector: Collector, plan: &Plan) -> Result<Child, ForkError> {
    let threads = threads().map_err(ForkError::Status)?;
    if threads != 1 {
        return Err(ForkError::Threads(threads));
    }
    let (reading, writing) = pipe_of(collector)?;
    let parent = getpid();
    // SAFETY: there is one thread (counted above), so the child finds no lock that another one
    // holds and may run any code.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => {
            Ok(Child { pid: child, pipe: Some(reading), rest: Vec::new() })
        }
        ForkResult::Child => {
            let live = || run_child(collector, plan, &writing, parent);
            let code = catch_unwind(AssertUnwindSafe(live)).unwrap_or(EXIT_FAILED);
            // SAFETY: `_exit` runs nothing of ours. What stands on the copied stack belongs to
            // the parent: it must neither be returned to nor dropped here.
            unsafe { libc::_exit(code) }
        }
    }
}

fn pipe_of(collector: Collector) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    if collector == Collector::Docker {
        // Where the kernel allows no more, the usual size has to do.
        let _ = fcntl(&writing, FcntlArg::F_SETPIPE_SZ(CONTAINERS_PIPE_BYTES));
    }
    Ok((reading, writing))
}

/// How many threads this process has.
fn threads() -> io::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let threads =
        status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    threads.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no line 'Threads:'"))
}

fn run_child(collector: Collector, plan: &Plan, pipe: &OwnedFd, parent: Pid) -> i32 {
    if let Err(error) = become_child(collector, pipe) {
        error!("{} cannot set itself up: {error}", collector.name());
        return EXIT_FAILED;
    }
    // The parent may have died before the kernel was asked to tell us.
    if getppid() != parent {
        return EXIT_ORPHANED;
    }
    match collector {
        Collector::Cpu => {
            let mut reader = CpuReader::new(plan.root.clone(), &plan.groups);
            collect(collector, plan, pipe, |wall_ms| reader.read(wall_ms))
        }
        Collector::Memory => {
            let reader = MemoryReader::new(plan.root.clone(), &plan.groups);
            collect(collector, plan, pipe, |wall_ms| reader.read(wall_ms).map(Some))
        }
        Collector::Docker => docker::run(plan, pipe),
    }
}

/// Gives up what a child has inherited and must not keep: open files, signals, the name.
fn become_child(collector: Collector, pipe: &OwnedFd) -> io::Result<()> {
    // There is nothing to tidy up, so the signal that cannot be held off.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    close_all_but(pipe);
    SigSet::empty().thread_set_mask()?;
    // Ctrl-C reaches everyone in the terminal's group; the parent ends us in its own order.
    // SAFETY: no handler is installed, and none is replaced that anyone here waits for.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    if let Err(error) = title::set(collector.title()) {
        warn!("{} may show under another name in `ps aux`: {error}", collector.name());
    }
    Ok(())
}

/// Closes the broker's socket, the spool's lock and the other child's pipe: a child that held
/// them would keep them open beyond the parent's death.
fn close_all_but(pipe: &OwnedFd) {
    const FIRST_BEHIND_STDERR: libc::c_int = 3;
    let kept = pipe.as_raw_fd();
    let close = |first: libc::c_int, last: libc::c_uint| {
        // SAFETY: whoever owns these descriptors stands on the copied stack, which this process
        // never returns to, or in what it never uses: nobody will close or use them again. A
        // kernel without the call (before 5.9) leaves them open: harmless while it lives, and it
        // dies with its parent.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }
    };
    if let Ok(before) = libc::c_uint::try_from(kept - 1)
        && kept > FIRST_BEHIND_STDERR
    {
        close(FIRST_BEHIND_STDERR, before);
    }
    close(kept + 1, libc::c_uint::MAX);
}

/// A collector's whole life: wait for a tick, measure, write.
fn collect(
    collector: Collector,
    plan: &Plan,
    pipe: &OwnedFd,
    mut read: impl FnMut(u64) -> Result<Option<Sample>, ReadError>,
) -> i32 {
    let clock = &plan.clock;
    let mut failing = Failing::new(collector.name());
    // The baseline of what is a rate. Not sent, so that all metrics begin an interval from now,
    // when the parent usually has its connection.
    failing.note(read(clock.wall_ms()));
    let mut ticker = Ticker::new(clock.monotonic_us() + plan.interval_us, plan.interval_us);
    let mut dropped = 0_u64;
    loop {
        if ticker.due(clock.monotonic_us())
            && let Some(Some(sample)) = failing.note(read(clock.wall_ms()))
        {
            match write_whole(pipe, &sample) {
                Ok(()) => {
                    if dropped > 0 {
                        warn!(
                            "{} dropped {dropped} samples: the parent did not read",
                            collector.name()
                        );
                        dropped = 0;
                    }
                }
                Err(Errno::EAGAIN) => dropped += 1,
                Err(_) => return EXIT_ORPHANED,
            }
        }
        if parent_gone(pipe, ticker.wait_ms(clock.monotonic_us())) {
            return EXIT_ORPHANED;
        }
    }
}

fn write_whole(pipe: &OwnedFd, sample: &Sample) -> Result<(), Errno> {
    let mut line = sample.to_json();
    line.push('\n');
    assert!(line.len() <= libc::PIPE_BUF, "a sample is one write: {line}");
    let written = nix::unistd::write(pipe, line.as_bytes())?;
    assert_eq!(written, line.len(), "pipes take up to PIPE_BUF bytes whole");
    Ok(())
}

/// Waits, and answers whether the pipe lost its reader meanwhile.
fn parent_gone(pipe: &OwnedFd, wait_ms: u64) -> bool {
    // No event is asked for: the kernel reports the error of a pipe without a reader unasked.
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let wait = PollTimeout::try_from(wait_ms.min(SLEEP_MS_MAX)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, wait) {
        Ok(_) => fds[0].any().unwrap_or(true),
        Err(error) => error != Errno::EINTR,
    }
}

/// Says once that readings fail, and once that they work again.
#[derive(Debug)]
pub struct Failing {
    what: &'static str,
    failing: bool,
}

impl Failing {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Takes note of a reading.
    pub fn note<T>(&mut self, reading: Result<T, ReadError>) -> Option<T> {
        match reading {
            Ok(reading) => {
                if std::mem::take(&mut self.failing) {
                    info!("{} measures again", self.what);
                }
                Some(reading)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                    warn!("{} cannot measure: {error}{cause}", self.what);
                }
                None
            }
        }
    }
}

impl Child {
    /// The pipe, until the child has closed it.
    #[must_use]
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The lines that have come, without their newlines.
    pub fn take_lines(&mut self) -> Vec<Vec<u8>> {
        let mut samples = Vec::new();
        let mut buffer = vec![0; PIPE_READ_BYTES];
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => self.cut(&buffer[..n], &mut samples),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => {
                    warn!("a collector's pipe cannot be read: {error}");
                    self.pipe = None;
                }
            }
        }
        samples
    }

    /// Cuts what came at the newlines; what is behind the last one waits for the next read.
    fn cut(&mut self, bytes: &[u8], samples: &mut Vec<Vec<u8>>) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let behind_last = parts.next_back().unwrap_or_default();
        for part in parts {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(part);
            samples.push(line);
        }
        self.rest.extend_from_slice(behind_last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_refused() {
        // The test harness runs each test on a thread of its own, beside the main one.
        let plan = Plan {
            root: Root::system(),
            groups: Groups::find(&Root::system()),
            interval_us: 1,
            clock: aklight_common::clock::SystemClock::shared(),
            docker: None,
        };
        let error = fork(Collector::Cpu, &plan).expect_err("threads");
        assert!(matches!(error, ForkError::Threads(n) if n > 1), "{error}");
    }

    #[test]
    fn the_pipe_of_containers_holds_ticks_and_not_a_part_of_one() {
        let size = |collector| {
            let (_reading, writing) = pipe_of(collector).expect("a pipe");
            fcntl(&writing, FcntlArg::F_GETPIPE_SZ).expect("a size")
        };
        assert!(size(Collector::Docker) >= 1 << 20, "{}", size(Collector::Docker));
        assert!(size(Collector::Cpu) <= 64 << 10);
    }

    #[test]
    fn lines_come_out_whole_whatever_the_cut() {
        let input = b"one\ntwo\nthree\nrest";
        for step in 1..=input.len() {
            let mut child = Child { pid: Pid::from_raw(1), pipe: None, rest: Vec::new() };
            let mut samples = Vec::new();
            for part in input.chunks(step) {
                child.cut(part, &mut samples);
            }
            assert_eq!(samples, [&b"one"[..], b"two", b"three"], "{step} bytes at a time");
            assert_eq!(child.rest, b"rest");
        }
    }

    #[test]
    fn a_pipe_without_a_reader_is_noticed_and_one_with_a_reader_is_not() {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        assert!(!parent_gone(&writing, 1));
        drop(reading);
        assert!(parent_gone(&writing, 10_000));
    }

    #[test]
    fn a_full_pipe_takes_no_part_of_a_sample() {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        let sample = Sample::new(1, 2_u64, "percent");
        let mut written = 0;
        while write_whole(&writing, &sample).is_ok() {
            written += 1;
        }
        assert_eq!(write_whole(&writing, &sample), Err(Errno::EAGAIN));
        let mut child = Child { pid: Pid::from_raw(1), pipe: Some(reading), rest: Vec::new() };
        let samples = child.take_lines();
        assert_eq!(samples.len(), written);
        assert!(samples.iter().all(|line| line == sample.to_json().as_bytes()));
        assert!(child.rest.is_empty());
    }
}
