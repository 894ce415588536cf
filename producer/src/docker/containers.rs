//! The containers that are there, and what is told of each.
//!
//! News of them come in ([`News`]: what the engine said), records go out: what a container is
//! (`info`), what happened to it (`events`), and at each tick its samples. Nothing here waits or
//! asks: the kernel's files are read, the engine is somebody else's ([`super::watcher`]).
//!
//! An event is told before the first sample that shows what it did, because both come from the
//! same piece of news. What was missed (the engine was away) is told from the difference that it
//! made, once: the engine's own event of the same, when it comes late, is older than that.
//!
//! While the engine is away, containers whose files can be read are measured as before: they run.
//! Of the others nothing is told, because nothing is known.
//!
//! Invariants: at most [`CONTAINERS_MAX`] containers; no samples of a container that was removed,
//! or is filtered out; open files only of those that run.

use std::collections::{BTreeMap, HashSet};

use tracing::{debug, warn};

use super::details::Details;
use super::events::{Action, Happening, LastMinute, Told};
use super::filter::Filter;
use super::group::{ContainerFiles, Hierarchies};
use super::pipe::Lines;
use super::reading::{Gauges, Reading};
use super::shapes::Stats;
use super::topics::Topics;
use crate::readings::cpu::Machine;
use crate::readings::{Moment, Root, value_of};
use crate::sample::{Metric, Sample};

/// Most containers that are watched: twenty times what one machine usually has.
pub const CONTAINERS_MAX: usize = 1024;

/// How often a container says what it is though nothing changed.
const INFO_EVERY_US: u64 = 60_000_000;

/// After so many ticks without a reading a container's files are looked for again: it says of
/// itself that it runs.
const FAILED_READS_MAX: u32 = 5;

/// How long after a difference was told the engine's own event of the same may come. Measured by the
/// clock that is never set: one that was set back would else make all events old for as long.
const EVENT_LATE_US: u64 = 30_000_000;

/// Percent of its limit from which a container is about to have all that it may: what one takes from
/// one second to the next.
const NEARLY_FULL: f64 = 75.0;

/// What the engine said.
#[derive(Debug)]
pub enum News {
    /// A container as it is now, and what happened to it, where that is why we asked.
    Seen(Box<Details>, Option<Happening>),
    /// What happened to a container that is not there any more to be asked about.
    Happened(String, Happening),
    /// The ids of all containers there are.
    Listed(HashSet<String>),
    /// A container's numbers.
    Measured(String, Box<Stats>, Moment),
    /// The engine cannot be reached.
    Lost,
}

/// The containers of an engine.
#[derive(Debug)]
pub struct Containers {
    producer: String,
    filter: Filter,
    hierarchies: Hierarchies,
    known: BTreeMap<String, Container>,
    engine_there: bool,
    overflowed: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Container {
    details: Details,
    topics: Topics,
    source: Source,
    /// How its numbers come, in words.
    source_name: &'static str,
    gauges: Gauges,
    last: LastMinute,
    /// Whether a process of it was killed for memory since it was started.
    oom_seen: bool,
    oom_kills: Option<u64>,
    /// How many processes of the whole machine were, when this container was measured last.
    machine_kills: Option<u64>,
    /// Whether its last end was.
    oom_ended: bool,
    /// Restarts by the engine of which events told.
    restarts_told: u64,
    /// When what was missed was told, from the difference that it made: events of before were told.
    caught_up: Option<Moment>,
    /// The time of the newest state that was told.
    state_ms: u64,
    info_due_us: u64,
    failed_reads: u32,
}

#[derive(Debug)]
enum Source {
    /// It does not run.
    Nothing,
    Files(Box<ContainerFiles>),
    Engine,
}

impl Containers {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(producer: &str, filter: Filter, hierarchies: Hierarchies) -> Self {
        Self {
            producer: producer.to_owned(),
            filter,
            hierarchies,
            known: BTreeMap::new(),
            engine_there: false,
            overflowed: false,
            buffer: Vec::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Those that the engine has to be asked about, because their files cannot be seen.
    pub fn without_files(&self) -> impl Iterator<Item = &String> {
        let asked = |container: &Container| matches!(container.source, Source::Engine);
        self.known.iter().filter(move |(_, container)| asked(container)).map(|(id, _)| id)
    }

    /// Takes what the engine said.
    pub fn take(&mut self, news: News, now: Moment, out: &mut Lines) {
        self.engine_there = !matches!(news, News::Lost);
        match news {
            News::Seen(details, cause) => self.seen(*details, cause, now, out),
            News::Happened(id, happening) => self.happened(&id, &happening, now, out),
            News::Listed(ids) => {
                let gone = self.known.keys().filter(|id| !ids.contains(*id));
                for id in gone.cloned().collect::<Vec<_>>() {
                    let destroyed = Happening { action: Action::Destroy, ts_ms: now.wall_ms };
                    self.happened(&id, &destroyed, now, out);
                }
            }
            News::Measured(id, stats, moment) => {
                if let Some(container) = self.known.get_mut(&id)
                    && matches!(container.source, Source::Engine)
                {
                    let limit_cpus = container.details.limit_cpus;
                    let limit_cpus = Some(limit_cpus).filter(|limit| *limit > 0.0);
                    container.measured(Reading::of_stats(*stats, moment, limit_cpus), out);
                }
            }
            News::Lost => {}
        }
    }

    /// Measures all that run, and says how each is.
    pub fn tick(&mut self, now: Moment, out: &mut Lines) {
        // Without the machine's files, the engine still tells of its containers.
        let machine = Machine::read(self.hierarchies.root()).ok();
        let kills = machine_kills(self.hierarchies.root());
        for container in self.known.values_mut() {
            let alive = machine.as_ref().is_some_and(|machine| {
                container.read(&self.hierarchies, &mut self.buffer, now, machine, out)
            });
            if alive {
                container.machine_kills = kills;
            }
            if self.engine_there || alive {
                container.tell_state(now, out);
            }
            if now.monotonic_us >= container.info_due_us && self.engine_there {
                if let Source::Files(files) = &mut container.source {
                    self.hierarchies.read_limits(files);
                }
                container.tell_info(now, true, out);
            }
        }
    }

    fn seen(&mut self, details: Details, cause: Option<Happening>, now: Moment, out: &mut Lines) {
        let id = details.id.clone();
        if !self.filter.takes(&details.name, &details.image, &details.labels) {
            // It may have been watched under another name.
            if let Some(mut container) = self.known.remove(&id) {
                container.tell_info(now, false, out);
            }
            return;
        }
        let topics = Topics::new(&self.producer, &details.name, &id);
        if let Some(container) = self.known.get_mut(&id) {
            let before = container.replace(details);
            match cause {
                Some(happening) => {
                    container.look_for_kill(&happening, self.hierarchies.root());
                    container.tell(&happening, now, out);
                }
                None => container.catch_up(&before, now, out),
            }
            let renamed = container.topics != topics;
            if renamed {
                container.tell_info(now, false, out);
                container.topics = topics;
            }
            let after = &container.details;
            if (after.pid, after.started_ms, after.is_running())
                != (before.pid, before.started_ms, before.is_running())
            {
                container.open(&self.hierarchies, now, &mut self.buffer);
            }
            if renamed || container.details.tells_more_than(&before) {
                container.tell_info(now, true, out);
                if let Source::Files(files) = &mut container.source {
                    self.hierarchies.read_limits(files);
                }
            }
            return;
        }
        if self.known.len() >= CONTAINERS_MAX {
            if !std::mem::replace(&mut self.overflowed, true) {
                warn!(
                    "there are more than {CONTAINERS_MAX} containers: those beyond are not \
                     watched; choose with --include and --exclude"
                );
            }
            return;
        }
        let mut container = Container::new(details, topics, self.hierarchies.name());
        if let Some(happening) = cause {
            container.tell(&happening, now, out);
        }
        container.open(&self.hierarchies, now, &mut self.buffer);
        container.tell_info(now, true, out);
        self.known.insert(id, container);
    }

    fn happened(&mut self, id: &str, happening: &Happening, now: Moment, out: &mut Lines) {
        let Some(container) = self.known.get_mut(id) else { return };
        container.look_for_kill(happening, self.hierarchies.root());
        container.tell(happening, now, out);
        match happening.action {
            Action::Die(code) => {
                let details = &mut container.details;
                "exited".clone_into(&mut details.state);
                details.exit_code = code.unwrap_or(details.exit_code);
                details.oom_killed = container.oom_ended;
                container.source = Source::Nothing;
            }
            Action::Destroy => {
                container.tell_info(now, false, out);
                self.known.remove(id);
            }
            _ => {}
        }
    }
}

impl Container {
    fn new(details: Details, topics: Topics, source_name: &'static str) -> Self {
        Self {
            restarts_told: details.restarts,
            details,
            topics,
            source: Source::Nothing,
            source_name,
            gauges: Gauges::default(),
            last: LastMinute::default(),
            oom_seen: false,
            oom_kills: None,
            machine_kills: None,
            oom_ended: false,
            caught_up: None,
            state_ms: 0,
            info_due_us: 0,
            failed_reads: 0,
        }
    }

    /// Takes a newer description; what the engine forgot of the last end stays.
    fn replace(&mut self, details: Details) -> Details {
        let before = std::mem::replace(&mut self.details, details);
        if self.details.is_running() {
            self.oom_ended = false;
        }
        self.details.oom_killed |= self.oom_ended;
        before
    }

    /// Tells what happened, unless it was told before.
    fn tell(&mut self, happening: &Happening, now: Moment, out: &mut Lines) {
        let told = self.caught_up.is_some_and(|caught_up| {
            let since_us = now.monotonic_us.saturating_sub(caught_up.monotonic_us);
            happening.ts_ms <= caught_up.wall_ms && since_us < EVENT_LATE_US
        });
        if told {
            return;
        }
        let health;
        let told = match &happening.action {
            Action::Start => self.started(),
            Action::Stop => Told::Stop,
            Action::Die(code) => self.died(*code),
            Action::Oom => {
                self.oom_seen = true;
                Told::Oom
            }
            Action::Restart => {
                // Podman says so of its own as well, and then that it was started.
                self.restarts_told = self.details.restarts;
                Told::Restart
            }
            Action::Destroy => Told::Destroy,
            Action::Health(word) => {
                health = word.clone().unwrap_or_else(|| self.details.health.clone());
                Told::Health(&health)
            }
            Action::Change => return,
        };
        let record = told.record(happening.ts_ms, &self.details, &self.last);
        out.keep(&self.topics.events(), &record);
        if let Told::Die(exit_code, oom_killed) = told {
            // One that the engine starts again at once would have no sample of its end. A tick may
            // have come between the end and the engine's word; whoever takes samples in the order of
            // their times would pass over one that is older than that tick's.
            self.state_ms = happening.ts_ms.max(self.state_ms + 1);
            let end = self.details.ended(exit_code, oom_killed).state_sample(self.state_ms);
            out.keep(&self.topics.metric(Metric::State), &end);
        }
    }

    /// Tells what must have happened, where nobody said so.
    fn catch_up(&mut self, before: &Details, now: Moment, out: &mut Lines) {
        let action = match (before.is_running(), self.details.is_running()) {
            (true, false) => Action::Die(None),
            (_, true) if before.started_ms != self.details.started_ms => Action::Start,
            _ => return,
        };
        self.tell(&Happening { action, ts_ms: now.wall_ms }, now, out);
        self.caught_up = Some(now);
    }

    fn started(&mut self) -> Told<'static> {
        let by_engine = self.details.restarts > self.restarts_told;
        self.restarts_told = self.details.restarts;
        self.oom_seen = false;
        if by_engine { Told::Restart } else { Told::Start }
    }

    /// Not every engine says that the kernel killed a container for memory (Podman, of one that it starts
    /// again at once), and its files are gone with it. It did, if the container was about to have all
    /// that it may, and the kernel has killed something of this machine since.
    fn look_for_kill(&mut self, happening: &Happening, root: &Root) {
        let is_end = matches!(happening.action, Action::Die(_));
        if is_end && self.last.memory().is_some_and(|percent| percent >= NEARLY_FULL) {
            let kills = machine_kills(root).zip(self.machine_kills);
            self.oom_seen |= kills.is_some_and(|(now, before)| now > before);
        }
    }

    /// 137 is SIGKILL, which the kernel sends for memory, and others for other reasons.
    fn died(&mut self, code: Option<i64>) -> Told<'static> {
        const SIGKILLED: i64 = 137;
        let code = code.unwrap_or(self.details.exit_code);
        let by_engine = self.details.oom_killed && !self.details.is_running();
        let killed = by_engine || (self.oom_seen && code == SIGKILLED);
        self.oom_seen = false;
        if !self.details.is_running() {
            self.oom_ended = killed;
            self.details.oom_killed = killed;
        }
        Told::Die(code, killed)
    }

    /// Finds the files of one that runs, and reads what the next reading is compared with.
    fn open(&mut self, hierarchies: &Hierarchies, now: Moment, buffer: &mut Vec<u8>) {
        self.source = Source::Nothing;
        self.gauges = Gauges::default();
        self.oom_kills = None;
        self.failed_reads = 0;
        if !self.details.is_running() {
            return;
        }
        let pid = self.details.pid.unwrap_or(0);
        let files = hierarchies.open(&self.details.id, pid, self.details.own_network);
        let Some(mut files) = files else {
            self.source_name = "engine";
            self.source = Source::Engine;
            return;
        };
        hierarchies.read_limits(&mut files);
        self.source_name = files.source();
        let root = hierarchies.root();
        if let Ok(machine) = Machine::read(root)
            && let Ok(baseline) = files.read(root, buffer, now, &machine)
        {
            self.oom_kills = baseline.oom_kills;
            // Rates begin here; what is no rate comes with the next tick.
            self.gauges.samples(baseline);
        }
        self.source = Source::Files(Box::new(files));
    }

    /// Reads the files; answers whether they could be read.
    fn read(
        &mut self,
        hierarchies: &Hierarchies,
        buffer: &mut Vec<u8>,
        now: Moment,
        machine: &Machine,
        out: &mut Lines,
    ) -> bool {
        let Source::Files(files) = &self.source else { return false };
        match files.read(hierarchies.root(), buffer, now, machine) {
            Ok(reading) => {
                self.failed_reads = 0;
                // Without a number of before, the kills may be those of long ago.
                let kills = reading.oom_kills.zip(self.oom_kills);
                self.oom_seen |= kills.is_some_and(|(now, before)| now > before);
                self.oom_kills = reading.oom_kills.or(self.oom_kills);
                self.measured(reading, out);
                true
            }
            Err(error) => {
                // It has ended, and the engine is about to say so.
                debug!("{}: {error}", self.details.name);
                self.failed_reads += 1;
                if self.failed_reads >= FAILED_READS_MAX {
                    self.open(hierarchies, now, buffer);
                }
                false
            }
        }
    }

    fn measured(&mut self, reading: Reading, out: &mut Lines) {
        let ts_ms = reading.moment.wall_ms;
        let samples = self.gauges.samples(reading);
        let find = |metric| samples.iter().find(|(m, _)| *m == metric).map(|(_, sample)| sample);
        if let (Some(cpu), Some(memory)) = (find(Metric::Cpu), find(Metric::Memory)) {
            self.last.note(ts_ms, cpu, memory);
        }
        for (metric, sample) in &samples {
            out.sample(&self.topics.metric(*metric), sample);
        }
    }

    fn tell_state(&mut self, now: Moment, out: &mut Lines) {
        self.state_ms = now.wall_ms;
        out.sample(&self.topics.metric(Metric::State), &self.details.state_sample(now.wall_ms));
        let restarts = Sample::new(now.wall_ms, self.details.restarts, "count");
        out.sample(&self.topics.metric(Metric::Restarts), &restarts);
    }

    fn tell_info(&mut self, now: Moment, present: bool, out: &mut Lines) {
        self.info_due_us = now.monotonic_us + INFO_EVERY_US;
        let info = self.details.info(now.wall_ms, present, self.source_name);
        out.keep(&self.topics.info(), &info);
    }
}

/// How many processes the kernel has killed for memory on the whole machine, in any container or none.
fn machine_kills(root: &Root) -> Option<u64> {
    value_of(&root.read("/proc/vmstat").ok()?, "oom_kill")
}

#[cfg(test)]
mod tests;
