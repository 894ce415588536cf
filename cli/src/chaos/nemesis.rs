//! Who breaks the cluster: one fault after another, chosen by the seed, each healed before the next.
//!
//! Invariant: whatever it does can be healed. Of several brokers at most one is broken at a time,
//! but for `kill -9` of all at once: their disks survive. [`Nemesis::heal`] mends everything from
//! any state, also when a fault was interrupted halfway.
//!
//! Left out: cutting single links and losing packets, which the simulation does, and the network of
//! containers, which `.ci/chaos` cuts.

use std::time::Duration;

use aklight_common::clock::SharedClock;
use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use tokio::time::{sleep, timeout};

use super::brokers::Broker;
use super::disk::SmallDisk;
use super::link::Link;
use super::story::Story;
use super::watch::Http;

/// A pause longer than an election: followers wait well under two seconds for their leader.
const PAUSE_MS: std::ops::Range<u64> = 3_000..6_000;

/// How long a broker is isolated or slow.
const HOLD_MS: std::ops::Range<u64> = 3_000..8_000;

/// How long a disk is full: mostly long enough that a segment is at its end.
const FULL_MS: std::ops::Range<u64> = 5_000..20_000;

/// How long a killed broker stays away.
const AWAY_MS: std::ops::Range<u64> = 0..3_000;

/// How long nothing is broken between two faults.
const REST_MS: std::ops::Range<u64> = 500..3_000;

/// What a slow broker adds to each message to a peer, in milliseconds.
const SLOW_MS: std::ops::Range<u64> = 20..400;

/// How long all brokers may take to answer after a fault is healed: an election, and a restart
/// that reads the end of each log, on a machine with other things to do.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long one of them may take for one look.
const LOOK_MAX: Duration = Duration::from_secs(6);

/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How often a broker is told to end its feigned failure before that is a finding.
const ALIVE_TRIES_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    KillInTurn,
    KillAll,
    Restart,
    Pause,
    Isolate,
    FeignDeath,
    Slow,
    FullDisk,
}

/// What was broken, for the last lines of the story.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broken {
    pub kills: u64,
    pub kills_of_all: u64,
    pub restarts: u64,
    pub pauses: u64,
    pub isolations: u64,
    pub slows: u64,
    pub full_disks: u64,
}

/// See the module's lesson.
pub struct Nemesis {
    pub brokers: Vec<Broker>,
    pub broken: Broken,
    /// Whose disk is small.
    small: Option<(usize, SmallDisk)>,
    /// Who feigns a failure.
    feigning: Option<usize>,
    http: Http,
    clock: SharedClock,
    story: Story,
    rng: SmallRng,
}

impl Nemesis {
    /// A nemesis that has broken nothing.
    pub fn new(
        brokers: Vec<Broker>,
        small: Option<(usize, SmallDisk)>,
        http: Http,
        clock: SharedClock,
        story: Story,
        rng: SmallRng,
    ) -> Self {
        let broken = Broken::default();
        Self { brokers, broken, small, feigning: None, http, clock, story, rng }
    }

    /// Breaks and heals until `until_ms` on the clock.
    ///
    /// # Errors
    /// A fault was healed, and the brokers do not answer all the same.
    pub async fn run(&mut self, until_ms: u64) -> Result<(), String> {
        loop {
            let rest_ms = self.rng.random_range(REST_MS);
            self.wait_ms(rest_ms).await?;
            if self.clock.monotonic_ms() >= until_ms {
                return Ok(());
            }
            let fault = self.choose();
            self.inflict(fault).await?;
            self.heal().await?;
            self.all_answer(ANSWER_MAX).await?;
        }
    }

    fn choose(&mut self) -> Fault {
        let mut faults = vec![Fault::Kill, Fault::Kill, Fault::Restart, Fault::Pause];
        if self.brokers.len() > 1 {
            faults.extend([Fault::Kill, Fault::KillAll, Fault::KillInTurn, Fault::Pause]);
            faults.extend([Fault::Isolate, Fault::Isolate, Fault::FeignDeath, Fault::Slow]);
        }
        faults.extend(self.small.iter().map(|_| Fault::FullDisk));
        *faults.choose(&mut self.rng).unwrap_or(&Fault::Kill)
    }

    async fn inflict(&mut self, fault: Fault) -> Result<(), String> {
        let victim = self.rng.random_range(0..self.brokers.len());
        let name = self.brokers[victim].id;
        match fault {
            Fault::Kill => {
                self.kill(victim);
                let away_ms = self.rng.random_range(AWAY_MS);
                self.wait_ms(away_ms).await
            }
            Fault::KillInTurn => self.kill_in_turn(victim).await,
            Fault::KillAll => {
                self.broken.kills_of_all += 1;
                self.story.tell("kill -9    all brokers at once");
                self.brokers.iter_mut().for_each(Broker::kill);
                let away_ms = self.rng.random_range(AWAY_MS);
                self.wait_ms(away_ms).await
            }
            Fault::Restart => {
                self.broken.restarts += 1;
                self.story.tell(&format!("restart    broker{name}, in good order"));
                self.brokers[victim].end().await
            }
            Fault::Pause => {
                self.broken.pauses += 1;
                let pause_ms = self.rng.random_range(PAUSE_MS);
                self.story.tell(&format!("SIGSTOP    broker{name} for {pause_ms} ms"));
                self.brokers[victim].signal(Signal::SIGSTOP);
                self.wait_ms(pause_ms).await
            }
            Fault::Isolate => {
                self.broken.isolations += 1;
                self.feign(victim, "isolate", None).await
            }
            Fault::FeignDeath => {
                self.broken.isolations += 1;
                self.feign(victim, "dead", None).await
            }
            Fault::Slow => {
                self.broken.slows += 1;
                let slow_ms = self.rng.random_range(SLOW_MS);
                self.feign(victim, "slow", Some(slow_ms)).await
            }
            Fault::FullDisk => self.fill_the_disk().await,
        }
    }

    fn kill(&mut self, victim: usize) {
        self.broken.kills += 1;
        self.story.tell(&format!("kill -9    broker{}", self.brokers[victim].id));
        self.brokers[victim].kill();
    }

    /// Each in turn, and each is killed as soon as the one before answers, caught up or not.
    async fn kill_in_turn(&mut self, first: usize) -> Result<(), String> {
        for n in 0..self.brokers.len() {
            let victim = (first + n) % self.brokers.len();
            self.kill(victim);
            self.start(victim)?;
            self.all_answer(ANSWER_MAX).await?;
        }
        Ok(())
    }

    async fn feign(&mut self, victim: usize, fault: &str, ms: Option<u64>) -> Result<(), String> {
        let broker = &self.brokers[victim];
        let hold_ms = self.rng.random_range(HOLD_MS);
        let by = ms.map_or_else(String::new, |ms| format!(" by {ms} ms"));
        self.story.tell(&format!("{fault:<10} broker{}{by} for {hold_ms} ms", broker.id));
        self.feigning = Some(victim);
        self.http.fault(broker.id, &broker.http.to_string(), fault, ms).await?;
        self.wait_ms(hold_ms).await
    }

    /// Who has a small disk.
    pub fn small_victim(&self) -> Option<usize> {
        self.small.as_ref().map(|(victim, _)| *victim)
    }

    async fn fill_the_disk(&mut self) -> Result<(), String> {
        let Some((victim, disk)) = &self.small else { return Ok(()) };
        self.broken.full_disks += 1;
        let hold_ms = self.rng.random_range(FULL_MS);
        let filled = disk.fill()? >> 20;
        let name = self.brokers[*victim].id;
        self.story
            .tell(&format!("full disk  broker{name} for {hold_ms} ms ({filled} MiB of ballast)"));
        self.wait_ms(hold_ms).await
    }

    /// Mends whatever is broken, from any state.
    ///
    /// # Errors
    /// A broker cannot be started, or goes on feigning.
    pub async fn heal(&mut self) -> Result<(), String> {
        if let Some((_, disk)) = &self.small {
            disk.free();
        }
        for n in 0..self.brokers.len() {
            self.brokers[n].signal(Signal::SIGCONT);
            self.start(n)?;
        }
        let Some(feigning) = self.feigning else { return Ok(()) };
        let broker = &self.brokers[feigning];
        let mut told = Ok(());
        for _ in 0..ALIVE_TRIES_MAX {
            told = self.http.fault(broker.id, &broker.http.to_string(), "alive", None).await;
            if told.is_ok() {
                self.feigning = None;
                break;
            }
            sleep(ASK_EVERY).await;
        }
        told
    }

    fn start(&mut self, number: usize) -> Result<(), String> {
        self.brokers[number].start().map_err(|error| format!("{error:#}"))
    }

    /// Sleeps, and sees to it that no broker has ended by itself.
    async fn wait_ms(&mut self, ms: u64) -> Result<(), String> {
        sleep(Duration::from_millis(ms)).await;
        self.nobody_ended()
    }

    fn nobody_ended(&mut self) -> Result<(), String> {
        for broker in &mut self.brokers {
            if let Some(status) = broker.ended_by_itself() {
                let said = broker.said.display();
                return Err(format!("broker{} ended by itself ({status}): see {said}", broker.id));
            }
        }
        Ok(())
    }

    /// Waits until every broker answers, and knows a leader of every partition.
    ///
    /// # Errors
    /// Who does not, and why.
    pub async fn all_answer(&mut self, limit: Duration) -> Result<(), String> {
        let started_ms = self.clock.monotonic_ms();
        let mut number = 0;
        let mut reason = String::new();
        while number < self.brokers.len() {
            self.nobody_ended()?;
            let waited_ms = self.clock.monotonic_ms() - started_ms;
            if Duration::from_millis(waited_ms) > limit {
                let name = self.brokers[number].id;
                return Err(format!("broker{name} does not serve after {waited_ms} ms: {reason}"));
            }
            let address = self.brokers[number].line.to_string();
            match timeout(LOOK_MAX, serves(&address, &self.clock)).await {
                Ok(Ok(())) => {
                    number += 1;
                    continue;
                }
                Ok(Err(why)) => reason = why,
                Err(_) => reason = format!("no answer within {LOOK_MAX:?}"),
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }
}

/// Whether a broker answers CLUSTER there and knows a leader of every partition.
pub async fn serves(address: &str, clock: &SharedClock) -> Result<(), String> {
    let mut link = Link::open(address, LOOK_MAX, clock).await?;
    let partitions = link.partitions().await?;
    match partitions.iter().find(|partition| partition.leader.is_none()) {
        Some(partition) => Err(format!("partition {} has no leader", partition.id)),
        None if partitions.is_empty() => Err("there are no partitions yet".to_owned()),
        None => Ok(()),
    }
}
