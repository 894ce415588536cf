//! What is known of a host or a container: its newest numbers, those of the last minutes, what it
//! is, and what happened to it. Pure.
//!
//! Invariant: what is newest is decided by the samples' own time, so that a late sample fills a
//! chart and never changes what is shown as present. Whether somebody still measures is decided by
//! when samples come in, because the clocks of two machines may differ.

use super::record::Payload;
use super::series::Series;

/// Most events that are kept of a container.
const EVENTS_MAX: usize = 50;

/// Most samples of the last minute before an event. Source: MONITORING.md.
const LAST_SAMPLES_MAX: usize = 60;

/// So long after its newest sample a row is grey: producers measure every second, and one that was
/// started again, or a connection that is mended, takes a few.
const STALE_AFTER_MS: u64 = 10_000;

/// So long after its newest sample a container of whose removal nothing was heard is shown no more.
const GONE_AFTER_MS: u64 = 3_600_000;

/// The newest of what was said, by the time at which it was so.
#[derive(Debug, Clone)]
pub struct Newest<T> {
    ts_ms: u64,
    value: Option<T>,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { ts_ms: 0, value: None }
    }
}

impl<T> Newest<T> {
    /// Takes a value in, but for one that is older.
    fn set(&mut self, ts_ms: u64, value: T) {
        if self.value.is_none() || ts_ms >= self.ts_ms {
            *self = Self { ts_ms, value: Some(value) };
        }
    }

    /// The value.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }
}

/// CPU at a time.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Percent of one CPU.
    pub percent: f64,
    /// How many CPUs there are.
    pub cpus: f64,
    /// How many it may use; 0: all.
    pub limit_cpus: f64,
}

impl Cpu {
    /// How much of what it may use it uses, from 0 to 1 and more.
    pub fn share(&self) -> f64 {
        let most = if self.limit_cpus > 0.0 { self.limit_cpus } else { self.cpus.max(1.0) };
        self.percent / 100.0 / most
    }
}

/// Memory at a time.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Percent of the limit, or of the machine's.
    pub percent: f64,
    /// In use.
    pub bytes: f64,
    /// The limit, or what the machine has.
    pub limit_bytes: f64,
}

/// What comes in and goes out in a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Received, or read.
    pub into: f64,
    /// Sent, or written.
    pub out: f64,
}

impl Flow {
    /// Both ways.
    pub fn both(&self) -> f64 {
        self.into + self.out
    }
}

/// What hosts and containers have in common.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// When the newest sample came in, by our clock.
    pub seen_ms: u64,
    /// CPU now.
    pub cpu: Newest<Cpu>,
    /// Memory now.
    pub memory: Newest<Memory>,
    /// Network now.
    pub network: Newest<Flow>,
    /// Disk now.
    pub disk: Newest<Flow>,
    /// Percent of one CPU.
    pub cpu_series: Series,
    /// Percent of the limit.
    pub memory_series: Series,
    /// Received and sent, bytes a second.
    pub network_series: (Series, Series),
    /// Read and written, bytes a second.
    pub disk_series: (Series, Series),
}

impl Usage {
    /// Takes a sample in; false when it is none of these.
    fn take(&mut self, metric: &str, payload: &Payload) -> bool {
        let ts = payload.ts();
        match metric {
            "cpu" => {
                let percent = payload.amount("value");
                let (cpus, limit_cpus) = (payload.amount("cpus"), payload.amount("limit_cpus"));
                self.cpu.set(ts, Cpu { percent, cpus, limit_cpus });
                self.cpu_series.insert(ts, percent);
            }
            "memory" => {
                let percent = payload.amount("value");
                let (bytes, limit_bytes) = (payload.amount("bytes"), payload.amount("limit_bytes"));
                self.memory.set(ts, Memory { percent, bytes, limit_bytes });
                self.memory_series.insert(ts, percent);
            }
            "network" => {
                let flow = flow(payload, "rx_bytes_s", "tx_bytes_s");
                self.network.set(ts, flow);
                self.network_series.0.insert(ts, flow.into);
                self.network_series.1.insert(ts, flow.out);
            }
            "disk" => {
                let flow = flow(payload, "read_bytes_s", "written_bytes_s");
                self.disk.set(ts, flow);
                self.disk_series.0.insert(ts, flow.into);
                self.disk_series.1.insert(ts, flow.out);
            }
            _ => return false,
        }
        true
    }

    /// For how long nothing has been heard, where that is too long.
    pub fn silent_ms(&self, now_ms: u64) -> Option<u64> {
        let silent = now_ms.saturating_sub(self.seen_ms);
        (silent > STALE_AFTER_MS).then_some(silent)
    }

    fn saw(&mut self, seen_ms: u64) {
        self.seen_ms = self.seen_ms.max(seen_ms);
    }
}

fn flow(payload: &Payload, into: &str, out: &str) -> Flow {
    Flow { into: payload.amount(into), out: payload.amount(out) }
}

/// A host: where a producer runs.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// What it takes.
    pub usage: Usage,
    /// Percent of its file system that is used.
    pub fs_percent: Newest<f64>,
    /// What the producer itself takes: percent of one CPU, and bytes.
    pub cost: Newest<(f64, f64)>,
}

impl Host {
    /// Takes a sample in that came at `seen_ms`.
    pub fn take(&mut self, metric: &str, payload: &Payload, seen_ms: u64) {
        self.usage.saw(seen_ms);
        if metric == "cost" {
            self.cost.set(payload.ts(), (payload.amount("value"), payload.amount("bytes")));
        } else if self.usage.take(metric, payload)
            && metric == "disk"
            && let Some(percent) = payload.number("fs_used_percent")
        {
            self.fs_percent.set(payload.ts(), percent);
        }
    }
}

/// What the engine says of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Whether it runs.
    pub running: bool,
    /// The engine's word.
    pub word: String,
    /// What its health check says.
    pub health: String,
    /// What it ended with.
    pub exit_code: i64,
    /// Whether the kernel killed it for its memory.
    pub oom_killed: bool,
    /// Whether something is wrong with it.
    pub failed: bool,
}

impl State {
    fn of(payload: &Payload) -> Self {
        Self {
            running: payload.flag("value"),
            word: payload.text("state"),
            health: payload.text("health"),
            exit_code: payload.number("exit_code").unwrap_or(0.0) as i64,
            oom_killed: payload.flag("oom_killed"),
            failed: payload.flag("failed"),
        }
    }
}

/// What a container is.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// Twelve digits.
    pub id: String,
    /// What it was made from.
    pub image: String,
    /// Unix milliseconds.
    pub started_ms: u64,
    /// 0: none.
    pub limit_cpus: f64,
    /// 0: none.
    pub limit_bytes: f64,
    /// Where the numbers come from.
    pub source: String,
    /// The service of a compose project.
    pub service: String,
}

impl Info {
    fn of(payload: &Payload) -> Self {
        Self {
            id: payload.text("id"),
            image: payload.text("image"),
            started_ms: payload.count("started"),
            limit_cpus: payload.amount("limit_cpus"),
            limit_bytes: payload.amount("limit_bytes"),
            source: payload.text("source"),
            service: payload.text("com.docker.compose.service"),
        }
    }
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub ts_ms: u64,
    /// What: `die`, `oom`, `start` and so on.
    pub what: String,
    /// In words: exit code, health, restarts.
    pub details: String,
    /// Whether it is bad news.
    pub bad: bool,
    /// Percent of one CPU in its last minute, where that is told.
    pub last_cpu: Vec<f64>,
    /// Percent of its memory's limit in its last minute.
    pub last_memory: Vec<f64>,
}

impl Event {
    fn of(payload: &Payload) -> Self {
        let what = payload.text("event");
        let oom_killed = payload.flag("oom_killed");
        let mut details = Vec::new();
        if let Some(code) = payload.number("exit_code") {
            details.push(format!("exit code {code}"));
        }
        if oom_killed {
            details.push("killed for memory".to_owned());
        }
        match what.as_str() {
            "health" => details.push(payload.text("health")),
            "restart" => details.push(format!("restart {}", payload.count("restarts"))),
            _ => {}
        }
        let unhealthy = payload.text("health") == "unhealthy";
        Self {
            ts_ms: payload.ts(),
            bad: what == "oom" || oom_killed || unhealthy || payload.flag("failed"),
            details: details.join(", "),
            last_cpu: payload.numbers("last_cpu", LAST_SAMPLES_MAX),
            last_memory: payload.numbers("last_memory", LAST_SAMPLES_MAX),
            what,
        }
    }
}

/// A container.
#[derive(Debug, Clone, Default)]
pub struct Container {
    /// What it takes.
    pub usage: Usage,
    /// Processes and threads, and how many there may be.
    pub pids: Newest<(u64, u64)>,
    /// Percent of the periods in which it was held back.
    pub throttling: Newest<f64>,
    /// Percent of the time in which something waited.
    pub pressure: Newest<f64>,
    /// Restarts by the engine.
    pub restarts: Newest<u64>,
    /// What the engine says of it.
    pub state: Newest<State>,
    /// What it is; `None` once it is removed.
    pub info: Newest<Option<Info>>,
    /// What happened to it, the oldest first.
    pub events: Vec<Event>,
}

impl Container {
    /// Takes a sample in that came at `seen_ms`.
    pub fn take(&mut self, metric: &str, payload: &Payload, seen_ms: u64) {
        let ts = payload.ts();
        self.usage.saw(seen_ms);
        match metric {
            "pids" => self.pids.set(ts, (payload.count("value"), payload.count("limit"))),
            "throttling" => self.throttling.set(ts, payload.amount("value")),
            "pressure" => self.pressure.set(ts, payload.amount("value")),
            "restarts" => self.restarts.set(ts, payload.count("value")),
            "state" => self.state.set(ts, State::of(payload)),
            _ => {
                self.usage.take(metric, payload);
            }
        }
    }

    /// Takes in what it is, or that it is no more.
    pub fn take_info(&mut self, payload: &Payload) {
        self.info.set(payload.ts(), payload.flag("value").then(|| Info::of(payload)));
    }

    /// Takes in what happened.
    pub fn take_event(&mut self, payload: &Payload) {
        let event = Event::of(payload);
        let place = self.events.partition_point(|known| known.ts_ms <= event.ts_ms);
        if place > 0 && self.events[place - 1] == event {
            return;
        }
        self.events.insert(place, event);
        if self.events.len() > EVENTS_MAX {
            self.events.remove(0);
        }
    }

    /// Whether it is not there any more.
    pub fn is_removed(&self) -> bool {
        matches!(self.info.get(), Some(None))
    }

    /// Whether it is to be shown.
    pub fn is_shown(&self, now_ms: u64) -> bool {
        let silent = self.usage.silent_ms(now_ms).unwrap_or(0);
        !self.is_removed() && self.usage.seen_ms > 0 && silent < GONE_AFTER_MS
    }

    /// What it is, where that was told.
    pub fn info(&self) -> Option<&Info> {
        self.info.get()?.as_ref()
    }

    /// Whether it runs, as far as is known.
    pub fn is_running(&self) -> bool {
        self.state.get().is_none_or(|state| state.running)
    }

    /// For how long it has run.
    pub fn uptime_ms(&self, now_ms: u64) -> Option<u64> {
        let started = self.info()?.started_ms;
        (self.is_running() && started > 0).then(|| now_ms.saturating_sub(started))
    }
}
