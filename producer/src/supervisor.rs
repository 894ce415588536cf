//! The parent: one loop that forks collectors, reads their pipes, measures disk, network
//! and what all of them cost, and drives the connection to a broker.
//!
//! ```text
//!  cpu_collector ─────pipe──┐
//!  mem_collector ─────pipe──┤                       ┌─ link ──► broker
//!  docker_collector ──pipe──┼── poll ──► intake ──► │
//!  signals ──signalfd───────┤                       └─ spool ─► disk
//!  ticks ──timeout──────────┘
//! ```
//!
//! Nothing in the loop waits but `poll`. Signals are blocked and come as a file descriptor, which
//! also makes them reach a process that is number 1 of a container, for which the kernel has no
//! default actions. As such it also buries orphans it never knew: every child that has ended is
//! waited for.
//!
//! A collector that dies is forked again at once, but no sooner than `FORK_DISTANCE_US` after it
//! was forked last: one that dies at its start would otherwise keep a processor busy.

use std::os::fd::AsFd;

use aklight_common::client::ClientConfig;
use aklight_common::client::blocking::ProducerLink;
use aklight_common::clock::SharedClock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tracing::{error, info, warn};

use crate::args::Settings;
use crate::backlog::Backlog;
use crate::collector::{self, Child, Collector, Failing, ForkError, Plan};
use crate::intake::Intake;
use crate::outbox::Outbox;
use crate::readings::Moment;
use crate::readings::cost::CostReader;
use crate::readings::disk::DiskReader;
use crate::readings::network::NetworkReader;
use crate::sample::{Metric, Sample};
use crate::sequences::Sequences;
use crate::spool::{Spool, SpoolError};
use crate::ticker::Ticker;

/// Least time between two forks of one collector. Below the second within which a dead collector
/// must be back.
const FORK_DISTANCE_US: u64 = 800_000;

/// How long the last samples may take to reach a broker when the producer is told to end: well
/// below the ten seconds after which `docker stop` kills.
const WIND_UP_MS_MAX: u64 = 2_000;

/// How often the producer measures itself: seldom, because it counts in hundredths of a second and
/// takes less than one of them in a second.
const COST_EVERY_US: u64 = 10_000_000;

/// Longest wait in `poll`: a guard only, ticks and the link wake the loop earlier.
const POLL_MS_MAX: u64 = 60_000;

/// Why the producer did not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The signals could not be taken over.
    #[error(
        "the kernel did not hand over signals or events: is the limit on open files (ulimit -n) very low?"
    )]
    Kernel(#[from] Errno),
    /// The first collectors could not be forked.
    #[error("the collectors cannot be started")]
    Fork(#[from] ForkError),
    /// Another producer has the spool.
    #[error(transparent)]
    Spool(SpoolError),
}

/// Which signal ended the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM: how service managers and `docker stop` say it.
    Terminated,
    /// SIGINT: Ctrl-C.
    Interrupted,
}

struct Slot {
    collector: Collector,
    child: Option<Child>,
    not_before_us: u64,
}

/// The parent of the collectors.
pub struct Supervisor {
    plan: Plan,
    signals: SignalFd,
    slots: Vec<Slot>,
    disk: DiskReader,
    network: NetworkReader,
    cost: CostReader,
    failing: [Failing; 3],
    ticker: Ticker,
    cost_ticker: Ticker,
    intake: Intake,
}

impl Supervisor {
    /// Forks the collectors, before anything else is started, and then sets up the rest.
    ///
    /// # Errors
    /// When the collectors cannot be forked, or another producer has the spool.
    pub fn start(settings: &Settings, plan: Plan) -> Result<Self, ProducerError> {
        let signals = take_signals()?;
        let now_us = plan.clock.monotonic_us();
        let fork = |collector| -> Result<Slot, ForkError> {
            let child = Some(collector::fork(collector, &plan)?);
            Ok(Slot { collector, child, not_before_us: now_us + FORK_DISTANCE_US })
        };
        // When anything below fails, this process ends and the kernel ends its children.
        let mut slots = vec![fork(Collector::Cpu)?, fork(Collector::Memory)?];
        if plan.docker.is_some() {
            slots.push(fork(Collector::Docker)?);
        }
        let outbox = outbox(settings, &plan.clock).map_err(ProducerError::Spool)?;
        Ok(Self {
            disk: DiskReader::new(plan.root.clone(), &plan.groups),
            network: NetworkReader::new(plan.root.clone()),
            cost: CostReader::new(plan.root.clone()),
            failing: [Failing::new("disk"), Failing::new("network"), Failing::new("cost")],
            ticker: Ticker::new(now_us, plan.interval_us),
            cost_ticker: Ticker::new(now_us, COST_EVERY_US),
            plan,
            signals,
            slots,
            intake: Intake::new(&settings.id, outbox),
        })
    }

    /// Runs until a signal asks to end, then ends the collectors, sends or keeps what is left,
    /// and answers which signal it was.
    ///
    /// # Errors
    /// When the kernel does not let us wait for events.
    pub fn run(mut self) -> Result<Ended, ProducerError> {
        let ended = loop {
            self.wait(self.wait_ms())?;
            if let Some(ended) = self.take_pending_signals()? {
                break ended;
            }
            self.bury();
            self.fork_missing();
            self.take_lines();
            self.measure();
            self.intake.outbox.drive();
        };
        info!("ending: the collectors first, then what is not sent yet");
        self.wind_up()?;
        Ok(ended)
    }

    fn wait_ms(&self) -> u64 {
        let now_us = self.plan.clock.monotonic_us();
        let forks = self.slots.iter().filter(|slot| slot.child.is_none());
        let forks = forks.map(|slot| slot.not_before_us.saturating_sub(now_us).div_ceil(1000));
        let link = self.intake.outbox.next_wake_ms().map(|wake| wake.saturating_sub(now_us / 1000));
        forks.chain(link).fold(self.ticker.wait_ms(now_us), u64::min)
    }

    /// Waits for anything to happen. What it was, everyone finds out for himself: nothing here
    /// waits, so asking costs little.
    fn wait(&self, wait_ms: u64) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let pipes = self.slots.iter().filter_map(|slot| slot.child.as_ref()?.pipe());
        fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
        if let Some((socket, for_writing)) = self.intake.outbox.fd() {
            let writing = if for_writing { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(socket, PollFlags::POLLIN | writing));
        }
        let wait = PollTimeout::try_from(wait_ms.min(POLL_MS_MAX)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, wait) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the signals that have come. SIGCHLD only wakes the loop.
    fn take_pending_signals(&self) -> Result<Option<Ended>, Errno> {
        while let Some(signal) = self.signals.read_signal()? {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGTERM) => return Ok(Some(Ended::Terminated)),
                Ok(Signal::SIGINT) => return Ok(Some(Ended::Interrupted)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits for every child that has ended: one SIGCHLD may stand for several.
    fn bury(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { return };
            let mut slots = self.slots.iter_mut();
            let Some(slot) = slots.find(|slot| slot.child.as_ref().is_some_and(|c| c.pid == pid))
            else {
                continue;
            };
            if let Some(mut child) = slot.child.take() {
                warn!("{} ({pid}) died ({}): forking it again", slot.collector.name(), how(status));
                // What it wrote before it died is worth as much as any other.
                take_all(&mut self.intake, slot.collector, &mut child);
                if slot.collector == Collector::Docker {
                    self.intake.forget_containers();
                }
            }
        }
    }

    fn fork_missing(&mut self) {
        let now_us = self.plan.clock.monotonic_us();
        for slot in &mut self.slots {
            if slot.child.is_some() || now_us < slot.not_before_us {
                continue;
            }
            slot.not_before_us = now_us + FORK_DISTANCE_US;
            match collector::fork(slot.collector, &self.plan) {
                Ok(child) => {
                    info!("{} runs again ({})", slot.collector.name(), child.pid);
                    slot.child = Some(child);
                }
                Err(error) => error!("{} is not back yet: {error}", slot.collector.name()),
            }
        }
    }

    fn take_lines(&mut self) {
        for slot in &mut self.slots {
            if let Some(child) = &mut slot.child {
                take_all(&mut self.intake, slot.collector, child);
            }
        }
    }

    fn measure(&mut self) {
        let clock = &self.plan.clock;
        let now = Moment { wall_ms: clock.wall_ms(), monotonic_us: clock.monotonic_us() };
        if !self.ticker.due(now.monotonic_us) {
            return;
        }
        let [disk_failing, network_failing, cost_failing] = &mut self.failing;
        let disk = disk_failing.note(self.disk.read(now)).flatten();
        let network = network_failing.note(self.network.read(now)).flatten();
        let mut measured = |metric, sample: Option<Sample>| {
            if let Some(sample) = sample {
                self.intake.measured(metric, &sample);
            }
        };
        measured(Metric::Disk, disk);
        measured(Metric::Network, network);
        if self.cost_ticker.due(now.monotonic_us) {
            let children = self.slots.iter().filter_map(|slot| slot.child.as_ref());
            let children = children.map(|child| child.pid.as_raw());
            if let Some(Some(cost)) = cost_failing.note(self.cost.read(now, children)) {
                let tally = self.intake.tally();
                let cost = cost.with("containers", tally.containers).with("dropped", tally.dropped);
                self.intake.measured(Metric::Cost, &cost);
            }
        }
        self.intake.close_rollups(now.wall_ms);
    }

    fn wind_up(&mut self) -> Result<(), ProducerError> {
        for slot in &self.slots {
            if let Some(child) = &slot.child {
                // It may have died meanwhile; then there is nobody to tell.
                let _ = kill(child.pid, Signal::SIGTERM);
            }
        }
        for slot in &mut self.slots {
            if let Some(mut child) = slot.child.take() {
                // A collector has no handler: it ends at once, unless somebody stopped it.
                let _ = kill(child.pid, Signal::SIGCONT);
                wait_for(child.pid);
                take_all(&mut self.intake, slot.collector, &mut child);
            }
        }
        self.intake.close_all_rollups();
        let clock = self.plan.clock.clone();
        let deadline_ms = clock.monotonic_ms() + WIND_UP_MS_MAX;
        loop {
            self.intake.outbox.drive();
            let left_ms = deadline_ms.saturating_sub(clock.monotonic_ms());
            if self.intake.outbox.is_settled() || left_ms == 0 {
                break;
            }
            self.wait(left_ms)?;
            // A further signal changes nothing, but would keep `wait` from waiting.
            self.take_pending_signals()?;
        }
        self.intake.outbox.close();
        Ok(())
    }
}

fn take_all(intake: &mut Intake, collector: Collector, child: &mut Child) {
    for line in child.take_lines() {
        intake.said(collector, line);
    }
}

fn take_signals() -> Result<SignalFd, Errno> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// The spool and the link. A spool that cannot be used costs the samples of an outage that is
/// longer than memory is large, and is no reason not to measure; one that another producer uses
/// is a mistake to be mended.
fn outbox(settings: &Settings, clock: &SharedClock) -> Result<Outbox, SpoolError> {
    let spool = match Spool::open(&settings.spool_dir, settings.spool_bytes) {
        Ok(spool) => Some(spool),
        Err(taken @ SpoolError::Taken(_)) => return Err(taken),
        Err(SpoolError::Unusable { folder, source }) => {
            warn!(
                "the spool folder {} cannot be used ({source}): samples that no broker takes are \
                 kept in memory and lost at a restart; name a writable folder with --spool-dir",
                folder.display()
            );
            None
        }
    };
    let folder = spool.is_some().then_some(settings.spool_dir.as_path());
    let used = spool.as_ref().and_then(Spool::last_sequence);
    let sequences = Sequences::open(folder, used, clock.wall_us());
    let config = ClientConfig::new(settings.brokers.clone(), &settings.id);
    // Sequences are given out here; the link's own counter is not used.
    let link = ProducerLink::new(config, 1, clock.clone());
    Ok(Outbox::new(link, sequences, Backlog::new(spool)))
}

fn how(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => signal.as_str().to_owned(),
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        other => format!("{other:?}"),
    }
}

fn wait_for(pid: Pid) {
    while waitpid(pid, None) == Err(Errno::EINTR) {}
}
