//! Which containers are listed, and in which order: the filter, the columns that sort, and the one
//! word that says how a container is. Pure.

use std::cmp::Ordering;

use aklight_common::Pattern;

use super::container::Container;
use super::figures;
use super::model::Model;
use super::record::{Key, METRICS};

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// Something is wrong.
    Bad,
    /// Something may become so.
    Warn,
    /// As it should be.
    Good,
    /// Neither.
    Quiet,
}

/// A container in the list.
#[derive(Debug)]
pub struct Row<'a> {
    /// Whose it is.
    pub key: &'a Key,
    /// All of it.
    pub container: &'a Container,
    /// Its name.
    pub name: String,
    /// How it is, in a word or two.
    pub status: String,
    /// How that is meant.
    pub tone: Tone,
    /// Whether nothing was heard of it lately.
    pub stale: bool,
    /// How many alerts fire over it.
    pub alerts: usize,
    /// For how long it has run.
    pub uptime_ms: Option<u64>,
}

impl<'a> Row<'a> {
    /// The row of a container over which so many alerts fire.
    pub fn of(key: &'a Key, container: &'a Container, alerts: usize, now_ms: u64) -> Self {
        let (status, tone) = status(container, now_ms);
        Self {
            key,
            container,
            name: key.name(),
            status,
            tone,
            stale: container.usage.silent_ms(now_ms).is_some(),
            alerts,
            uptime_ms: container.uptime_ms(now_ms),
        }
    }

    /// Whether it is measured now: a container that ended leaves its last numbers behind.
    pub fn is_running(&self) -> bool {
        self.container.is_running()
    }

    /// What stands before its status: full for one that is measured now.
    pub fn glyph(&self) -> &'static str {
        if self.is_running() && !self.stale { "● " } else { "○ " }
    }

    /// The image that it was made from.
    pub fn image(&self) -> &str {
        self.container.info().map_or("", |info| &info.image)
    }
}

/// How a container is, in a word or two, and how that is meant.
pub fn status(container: &Container, now_ms: u64) -> (String, Tone) {
    if let Some(ms) = container.usage.silent_ms(now_ms) {
        return (format!("silent {}", figures::duration(ms)), Tone::Quiet);
    }
    let Some(state) = container.state.get() else { return ("?".to_owned(), Tone::Quiet) };
    let (word, tone) = match (state.word.as_str(), state.health.as_str()) {
        ("running", "unhealthy") => ("unhealthy", Tone::Bad),
        ("running", "healthy") => ("healthy", Tone::Good),
        ("running", "starting") => ("starting", Tone::Warn),
        ("running", _) => ("running", Tone::Good),
        ("restarting", _) => ("restarting", Tone::Bad),
        ("paused", _) => ("paused", Tone::Warn),
        ("dead", _) => ("dead", Tone::Bad),
        (_, _) if state.oom_killed => ("oom-killed", Tone::Bad),
        ("exited", _) => {
            let tone = if state.failed { Tone::Bad } else { Tone::Quiet };
            return (format!("exited {}", state.exit_code), tone);
        }
        (other, _) => (other, Tone::Quiet),
    };
    (word.to_owned(), tone)
}

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Its name.
    Name,
    /// How it is, the worst first.
    State,
    /// Percent of one CPU.
    Cpu,
    /// Bytes of memory.
    Memory,
    /// Both ways.
    Network,
    /// Both ways.
    Disk,
    /// Processes and threads.
    Pids,
    /// Restarts.
    Restarts,
    /// For how long it has run.
    Uptime,
}

/// All columns, in the order in which `s` goes through them.
pub const COLUMNS: [Column; 9] = [
    Column::Name,
    Column::State,
    Column::Cpu,
    Column::Memory,
    Column::Network,
    Column::Disk,
    Column::Pids,
    Column::Restarts,
    Column::Uptime,
];

/// The order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// The other way round than the column begins with: names from A, numbers from the highest.
    pub reversed: bool,
}

impl Sort {
    /// The column behind this one, or before it.
    pub fn step(self, back: bool) -> Self {
        let at = COLUMNS.iter().position(|column| *column == self.column).unwrap_or(0);
        let step = if back { COLUMNS.len() - 1 } else { 1 };
        Self { column: COLUMNS[(at + step) % COLUMNS.len()], reversed: false }
    }

    /// Sorts by a column; by the one that it is sorted by already: the other way round.
    pub fn choose(self, column: Column) -> Self {
        Self { column, reversed: self.column == column && !self.reversed }
    }

    /// Whether small comes first.
    pub fn is_ascending(self) -> bool {
        matches!(self.column, Column::Name | Column::State) != self.reversed
    }

    fn compare(self, a: &Row<'_>, b: &Row<'_>) -> Ordering {
        let by = |value: fn(&Row<'_>) -> f64| value(b).total_cmp(&value(a));
        let order = match self.column {
            Column::Name => Ordering::Equal,
            Column::State => (a.tone, &a.status).cmp(&(b.tone, &b.status)),
            Column::Cpu => by(|row| live(row, |c| c.usage.cpu.get().map(|cpu| cpu.percent))),
            Column::Memory => by(|row| live(row, |c| c.usage.memory.get().map(|m| m.bytes))),
            Column::Network => by(|row| live(row, |c| c.usage.network.get().map(|f| f.both()))),
            Column::Disk => by(|row| live(row, |c| c.usage.disk.get().map(|f| f.both()))),
            Column::Pids => by(|row| live(row, |c| c.pids.get().map(|(count, _)| *count as f64))),
            Column::Restarts => by(|row| row.container.restarts.get().map_or(0.0, |n| *n as f64)),
            Column::Uptime => by(|row| row.uptime_ms.map_or(-1.0, |ms| ms as f64)),
        };
        // What is alike stays in one order, whichever way it is sorted.
        let alike = || (&a.name, a.key).cmp(&(&b.name, b.key));
        match (self.reversed, self.column) {
            (false, _) => order.then_with(alike),
            (true, Column::Name) => alike().reverse(),
            (true, _) => order.reverse().then_with(alike),
        }
    }
}

/// A number of a container that runs; one that does not has none.
fn live(row: &Row<'_>, value: fn(&Container) -> Option<f64>) -> f64 {
    if row.is_running() { value(row.container).unwrap_or(-1.0) } else { -1.0 }
}

/// Which containers are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    All,
    Text(String),
    Topics(Pattern),
    /// No pattern, or not yet: it is being typed.
    Wrong(String),
}

impl Filter {
    /// Reads one: a pattern where there is a wildcard in it, else a part of a name.
    pub fn new(text: &str) -> Self {
        let trimmed = text.trim();
        let kind = match trimmed {
            "" => Kind::All,
            _ if trimmed.contains(['+', '#']) => match Pattern::new(trimmed) {
                Ok(pattern) => Kind::Topics(pattern),
                Err(error) => Kind::Wrong(error.to_string()),
            },
            _ => Kind::Text(trimmed.to_lowercase()),
        };
        Self { text: text.to_owned(), kind }
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it.
    pub fn mistake(&self) -> Option<&str> {
        match &self.kind {
            Kind::Wrong(mistake) => Some(mistake),
            _ => None,
        }
    }

    fn lets_through(&self, row: &Row<'_>) -> bool {
        match &self.kind {
            Kind::All | Kind::Wrong(_) => true,
            Kind::Text(part) => {
                let full = format!("{}/{}", row.key.producer, row.name);
                [full.as_str(), row.image(), row.status.as_str()]
                    .iter()
                    .any(|text| text.to_lowercase().contains(part))
            }
            Kind::Topics(pattern) => {
                pattern.matches(&format!("{}/{}", row.key.producer, row.key.container))
                    || METRICS.iter().any(|metric| pattern.matches(&row.key.topic(metric)))
            }
        }
    }
}

/// The list.
pub fn rows<'a>(model: &'a Model, filter: &Filter, sort: Sort, now_ms: u64) -> Vec<Row<'a>> {
    let firing = model.firing();
    let alerts = |key| firing.get(key).copied().unwrap_or_default();
    let mut rows: Vec<Row<'a>> = model
        .shown(now_ms)
        .map(|(key, container)| Row::of(key, container, alerts(key), now_ms))
        .filter(|row| filter.lets_through(row))
        .collect();
    rows.sort_by(|a, b| sort.compare(a, b));
    rows
}
