//! The rows of the table: what each system is asked to do, and what is measured of it.

pub mod agent;
pub mod crowd;
pub mod failover;
pub mod fanout;
pub mod footprint;
pub mod ingest;
pub mod kill;
pub mod live;
pub mod readback;
pub mod scaling;
pub mod single;
pub mod slow;

use std::sync::Arc;

use serde::Serialize;

use crate::drive::{Sender, Sent};
use crate::load::Load;
use crate::peers::{Safety, Share, Way};
use crate::plan::Sizes;
use crate::server::Fleet;
use crate::usage::Cpu;

/// What a figure counts, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things a second: more is better.
    PerSecond,
    /// Microseconds: less is better, here and below.
    Micros,
    /// Milliseconds.
    Millis,
    /// Millions of bytes.
    Megabytes,
    /// Bytes.
    Bytes,
    /// Percent of one processor.
    Percent,
    /// Records that are missed.
    Lost,
    /// Records, of which neither more nor fewer are better.
    Records,
    /// How often something bad happened.
    Times,
}

impl Unit {
    /// As it is written behind a number.
    pub fn sign(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Megabytes => "MB",
            Self::Bytes => "B",
            Self::Percent => "%",
            Self::Lost | Self::Records => "records",
            Self::Times => "times",
        }
    }

    /// Whether a figure is as good as it was to be.
    pub fn is_reached(self, figure: f64, wanted: f64) -> bool {
        if self.more_is_better() { figure >= wanted } else { figure <= wanted }
    }

    /// Whether a figure says how good a system is, when it is held against another's.
    pub fn is_comparable(self) -> bool {
        self.is_drawn() && !matches!(self, Self::Megabytes | Self::Bytes)
    }

    /// Whether a figure is a picture's business: counts are to be exact.
    pub fn is_drawn(self) -> bool {
        !matches!(self, Self::Lost | Self::Records | Self::Times)
    }

    /// Whether the larger of two figures is the better one.
    pub fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }
}

/// A figure of one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measure {
    /// What was measured.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
}

/// A figure.
pub fn measure(name: &'static str, value: f64, unit: Unit) -> Measure {
    Measure { name, value, unit }
}

/// Processor time of the server.
pub const SERVER_CPU: &str = "server CPU a record";
/// Processor time of the bench.
pub const CLIENT_CPU: &str = "client CPU a record";
/// Memory of the server at most.
pub const PEAK_MEMORY: &str = "peak memory";

/// A system at its work in one row, from round to round.
pub struct Stage<'a> {
    /// The system.
    pub way: &'a dyn Way,
    /// When its records are safe.
    pub safety: Safety,
    /// Whether they are to come soon, or many at once.
    pub is_prompt: bool,
    /// How much it is asked to do.
    pub sizes: &'a Sizes,
    /// What it is sent.
    pub load: Arc<Load>,
    /// Its servers, where a row keeps them from one round to the next.
    pub fleet: Option<Fleet<'a>>,
    /// Records that they hold.
    pub stored: u64,
}

impl<'a> Stage<'a> {
    /// New servers.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start(&self, servers: usize) -> anyhow::Result<Fleet<'a>> {
        Fleet::start(self.way, self.safety, self.is_prompt, servers)
    }

    /// A connection that sends all of the load to the first server.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn sender(&self, fleet: &Fleet<'_>) -> anyhow::Result<Sender> {
        Sender::connect(fleet.address(0), self.way.publisher(&self.load, Share::WHOLE))
    }
}

/// What it took on both sides, a record, since `before`.
pub fn costs(fleet: &Fleet<'_>, before: &Cpu, sent: &Sent) -> [Measure; 3] {
    let records = float(sent.records).max(1.0);
    let server = fleet.cpu().seconds_since(before);
    [
        measure(SERVER_CPU, server * 1e6 / records, Unit::Micros),
        measure(CLIENT_CPU, sent.client_cpu_seconds * 1e6 / records, Unit::Micros),
        measure(PEAK_MEMORY, float(fleet.memory().peak) / 1e6, Unit::Megabytes),
    ]
}

/// The 50th, 99th and 99.9th percentile of what took nanoseconds.
pub fn percentiles(took: &hdrhistogram::Histogram<u64>) -> [Measure; 3] {
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map(|(name, quantile)| {
        measure(name, float(took.value_at_quantile(quantile)) / 1e3, Unit::Micros)
    })
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}
