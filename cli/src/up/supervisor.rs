//! The loop that keeps all processes: one thread, one poll.
//!
//! ```text
//! Starting ──a majority answers──► Running ──a signal, or no reader──► Stopping(0 → 1 → 2) ──► end
//!     └──no majority can──► end with failure           (each stage: SIGTERM, grace, SIGKILL)
//! ```
//!
//! Brokers answer when their cluster stands. One of several that dies meanwhile is started again
//! as it is later; when so many have died that the rest is no majority, something is wrong that
//! time does not mend.
//!
//! Signals come through a descriptor, so nothing runs inside a handler. It has to stay one
//! thread: the kernel takes the death of the *thread* that started a child for ours.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use aklight_common::clock::{Clock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE};
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::STAGE_BROKERS;
use super::console::Console;
use super::layout::Layout;
use super::service::{Death, Service};

/// The name under which `up` itself speaks.
const OWN_NAME: &str = "up";

/// How long a process may take to end after SIGTERM, as docker stop gives it.
const GRACE_MS: u64 = 10_000;

/// One press of Ctrl-C can arrive twice, from the terminal and from whoever runs us: a second
/// signal within this time is the same wish.
const SAME_PRESS_MS: u64 = 1_000;

/// How often a broker that starts is asked whether it is there.
const PROBE_EVERY_MS: u64 = 100;

/// How long such a question may take: on loopback an answer comes at once or not at all.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// After this long without an answer it is said that we are still waiting: reading a long log
/// takes its time.
const STILL_WAITING_MS: u64 = 10_000;

/// The longest sleep: nothing is due later than this without being looked at.
const SLEEP_MS_MAX: u64 = 1_000;

enum Phase {
    Starting { next_probe_ms: u64, next_word_ms: u64 },
    Running,
    Stopping { stage: u8, deadline_ms: u64 },
}

pub struct Supervisor {
    services: Vec<Service>,
    layout: Layout,
    /// Those that died before the cluster stood.
    fallen: BTreeSet<usize>,
    clock: SystemClock,
    signals: SignalFd,
    console: Console,
    phase: Phase,
    /// From when on another signal means that somebody lost patience.
    impatience_from_ms: u64,
    exit: u8,
}

impl Supervisor {
    /// Keeps these services, of which the brokers are as the layout says.
    pub fn new(services: Vec<Service>, layout: Layout, clock: SystemClock) -> anyhow::Result<Self> {
        let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
        let mask: SigSet = wanted.into_iter().collect();
        mask.thread_block().context("signals cannot be blocked")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("signals cannot be waited for")?;
        let width = services.iter().map(|service| service.name.len()).max().unwrap_or(0);
        Ok(Self {
            services,
            layout,
            fallen: BTreeSet::new(),
            clock,
            signals,
            console: Console::new(width),
            phase: Phase::Starting { next_probe_ms: 0, next_word_ms: STILL_WAITING_MS },
            impatience_from_ms: 0,
            exit: EXIT_DONE,
        })
    }

    /// Runs until everything has ended.
    pub fn run(mut self) -> anyhow::Result<ExitCode> {
        if let Some(remark) = self.layout.remark.take() {
            self.say(&remark);
        }
        let now_ms = self.clock.monotonic_ms();
        self.of_stage(STAGE_BROKERS).for_each(|broker| broker.make_due(now_ms));
        loop {
            let now_ms = self.clock.monotonic_ms();
            self.take_signals(now_ms);
            self.hear();
            self.reap(now_ms);
            self.start_due(now_ms);
            if self.console.is_closed() && !self.is_stopping() {
                self.stop(EXIT_DONE, now_ms);
            }
            if self.advance(now_ms) {
                return Ok(ExitCode::from(self.exit));
            }
            self.sleep(now_ms);
        }
    }

    fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    fn say(&mut self, text: &str) {
        self.console.line(self.services.len(), OWN_NAME, text.as_bytes());
    }

    fn take_signals(&mut self, now_ms: u64) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            let exit = match signal {
                Some(Signal::SIGINT) => EXIT_INTERRUPTED,
                Some(Signal::SIGTERM | Signal::SIGHUP) => EXIT_DONE,
                // A child has died: `reap` asks each of them.
                _ => continue,
            };
            if self.is_stopping() && now_ms < self.impatience_from_ms {
                continue;
            }
            if self.is_stopping() {
                self.say("once more: everything is killed now");
                self.services.iter_mut().for_each(|service| service.end(Signal::SIGKILL));
            } else {
                self.say("ending: the consumer, the producers, the brokers (again: kill)");
                self.stop(exit, now_ms);
            }
        }
    }

    fn hear(&mut self) {
        for (n, service) in self.services.iter_mut().enumerate() {
            let name = service.name.clone();
            service.hear(|line| self.console.line(n, &name, line));
        }
    }

    fn reap(&mut self, now_ms: u64) {
        for n in 0..self.services.len() {
            let name = self.services[n].name.clone();
            let console = &mut self.console;
            let Some(death) = self.services[n].reap(|line| console.line(n, &name, line)) else {
                continue;
            };
            self.mourn(n, &name, &death, now_ms);
        }
    }

    /// Decides what the death of a service means.
    fn mourn(&mut self, n: usize, name: &str, death: &Death, now_ms: u64) {
        if self.is_stopping() {
            self.say(&format!("{name} {death}"));
        } else if matches!(self.phase, Phase::Starting { .. }) && !self.can_start_without(n) {
            self.say(&format!("{name} {death} before it was ready: see its last lines"));
            self.stop(EXIT_FAILED, now_ms);
        } else if death.code() == Some(i32::from(EXIT_USAGE)) {
            // It would say the same for ever: its settings are wrong.
            self.say(&format!("{name} {death}: its settings are wrong, see its last lines"));
            self.stop(EXIT_FAILED, now_ms);
        } else {
            let wait = self.services[n].plan_restart(death, now_ms);
            self.say(&format!("{name} {death}; it is started again in {wait:?}"));
        }
    }

    /// Whether the brokers that did not die yet are a majority.
    fn can_start_without(&mut self, n: usize) -> bool {
        self.fallen.insert(n);
        self.layout.brokers.len() - self.fallen.len() >= self.majority()
    }

    fn majority(&self) -> usize {
        self.layout.brokers.len() / 2 + 1
    }

    fn start_due(&mut self, now_ms: u64) {
        for n in 0..self.services.len() {
            let service = &mut self.services[n];
            if service.due_ms().is_some_and(|due_ms| due_ms <= now_ms)
                && let Err(error) = service.start(now_ms)
            {
                let name = service.name.clone();
                service.make_due(now_ms + SLEEP_MS_MAX);
                self.say(&format!("{name} cannot be started ({error}); trying again"));
            }
        }
    }

    /// Begins the end: the consumer first, so that it acknowledges to a living broker.
    fn stop(&mut self, exit: u8, now_ms: u64) {
        self.exit = exit;
        self.impatience_from_ms = now_ms + SAME_PRESS_MS;
        self.services.iter_mut().for_each(|service| {
            if !service.is_running() {
                service.end(Signal::SIGTERM);
            }
        });
        self.begin_stage(0, now_ms);
    }

    fn begin_stage(&mut self, stage: u8, now_ms: u64) {
        self.phase = Phase::Stopping { stage, deadline_ms: now_ms + GRACE_MS };
        self.of_stage(stage).for_each(|service| service.end(Signal::SIGTERM));
    }

    fn of_stage(&mut self, stage: u8) -> impl Iterator<Item = &mut Service> {
        self.services.iter_mut().filter(move |service| service.stage == stage)
    }

    /// Goes on to the next phase when this one is done. True when all is over.
    fn advance(&mut self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Starting { next_probe_ms, next_word_ms } => {
                if now_ms >= next_probe_ms {
                    self.probe(now_ms, next_word_ms);
                }
                false
            }
            Phase::Running => false,
            Phase::Stopping { stage, deadline_ms } => {
                if self.services.iter().all(|service| !service.is_running()) {
                    return true;
                }
                if self.of_stage(stage).all(|service| !service.is_running()) {
                    self.begin_stage(stage + 1, now_ms);
                } else if now_ms >= deadline_ms {
                    self.say("out of patience: what still runs of this stage is killed");
                    self.phase = Phase::Stopping { stage, deadline_ms: now_ms + GRACE_MS };
                    self.of_stage(stage).for_each(|service| service.end(Signal::SIGKILL));
                }
                false
            }
        }
    }

    /// Asks the brokers whether they are ready, and lets the others start when enough are.
    fn probe(&mut self, now_ms: u64, mut next_word_ms: u64) {
        let answering =
            self.layout.brokers.iter().filter(|broker| broker_answers(broker.line)).count();
        if answering >= self.majority() {
            self.phase = Phase::Running;
            let brokers = self.layout.for_clients();
            self.say(&format!(
                "ready at {brokers}; in another terminal: \
                 aklight tail --brokers {brokers} 'metrics/docker/#'"
            ));
            if self.layout.brokers.len() > 1 {
                let http = self.layout.for_http();
                self.say(&format!("and: aklight cluster status --watch --http {http}"));
            }
            self.services
                .iter_mut()
                .filter(|service| service.stage != STAGE_BROKERS)
                .for_each(|service| service.make_due(now_ms));
            return;
        }
        if now_ms >= next_word_ms {
            self.say("still waiting for the brokers");
            next_word_ms = now_ms + STILL_WAITING_MS;
        }
        self.phase = Phase::Starting { next_probe_ms: now_ms + PROBE_EVERY_MS, next_word_ms };
    }

    /// Sleeps until something is said, somebody dies, a signal comes or something is due.
    fn sleep(&self, now_ms: u64) {
        let phase_ms = match self.phase {
            Phase::Starting { next_probe_ms, .. } => Some(next_probe_ms),
            Phase::Running => Some(now_ms + SLEEP_MS_MAX),
            Phase::Stopping { deadline_ms, .. } => Some(deadline_ms),
        };
        let due = self.services.iter().filter_map(Service::due_ms).chain(phase_ms).min();
        let sleep_ms =
            due.map_or(SLEEP_MS_MAX, |due_ms| due_ms.saturating_sub(now_ms)).min(SLEEP_MS_MAX);
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.services
                .iter()
                .flat_map(Service::fds)
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let timeout = u16::try_from(sleep_ms).map_or(PollTimeout::ZERO, PollTimeout::from);
        // Interrupted or not: the loop looks at everything anyway.
        let _ = poll(&mut fds, timeout);
    }
}

/// Whether a broker answers a PING there.
fn broker_answers(broker: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&broker, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(b"PING|up\n")?;
        let mut answer = [0_u8; b"PONG|up\n".len()];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"PONG|up\n")
    };
    ask().unwrap_or(false)
}
