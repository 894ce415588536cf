//! The rows of the table: the work, the systems that can do it, and what AKLight is to reach.
//!
//! Goals are those of the table of the issue that asked for the bench. Where it names a peer that
//! is not driven here (Iggy), its figure of `design/limits.md` is put as a multiple of a peer that
//! is, measured there in the same session. Those of reading back, of memory and of the way back are
//! meant with two million records, as `full` has them; `quick` stores a tenth.

use crate::peers::Safety;
use crate::work::agent::Post;
use crate::work::{
    Measure, Stage, agent, failover, fanout, footprint, ingest, kill, live, readback, scaling,
    single, slow,
};

/// A row.
pub struct Row {
    /// Its name on the command line.
    pub key: &'static str,
    /// Its name in the report.
    pub title: &'static str,
    /// When records are safe.
    pub safety: Safety,
    /// Whether records are to come soon, or many at once.
    pub is_prompt: bool,
    /// Whether it takes too long for the quick run.
    pub is_full_only: bool,
    /// The systems that can do it, by their names.
    pub systems: &'static [&'static str],
    /// The work.
    pub work: Work,
    /// What AKLight is to reach.
    pub goals: &'static [Goal],
}

/// One round of a row, and who does it.
#[derive(Clone, Copy)]
pub enum Work {
    /// Servers, with a load.
    Servers(fn(&mut Stage<'_>) -> anyhow::Result<Vec<Measure>>),
    /// Agents, left to themselves.
    Agents(fn(&mut Post<'_>) -> anyhow::Result<Vec<Measure>>),
}

/// What a system of ours is to reach.
pub struct Goal {
    /// Which of ours.
    pub system: &'static str,
    /// In which figure.
    pub measure: &'static str,
    /// How much.
    pub target: Target,
}

/// How much is to be reached: at least where more is better, at most where less is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// So many times the figure of the best other system in the row.
    Best(f64),
    /// So many times the figure of that system.
    Times(f64, &'static str),
    /// That figure itself.
    Figure(f64),
}

const fn goal(system: &'static str, measure: &'static str, target: Target) -> Goal {
    Goal { system, measure, target }
}

const fn row(
    key: &'static str,
    title: &'static str,
    safety: Safety,
    systems: &'static [&'static str],
    work: fn(&mut Stage<'_>) -> anyhow::Result<Vec<Measure>>,
    goals: &'static [Goal],
) -> Row {
    let work = Work::Servers(work);
    Row { key, title, safety, is_prompt: false, is_full_only: false, systems, work, goals }
}

impl Row {
    const fn prompt(self) -> Self {
        Self { is_prompt: true, ..self }
    }

    const fn full_only(self) -> Self {
        Self { is_full_only: true, ..self }
    }
}

const OWN: &str = "aklight";
const CUMULATIVE: &str = "aklight cumulative";
const ONE_PARTITION: &str = "aklight one partition";
const SPINNING: &str = "aklight spinning";
const STREAMS: &str = "redis streams";
const STREAM: &str = "redis stream";
const PUBSUB: &str = "redis pub/sub";
const JETSTREAM: &str = "nats jetstream";
const CORE: &str = "nats core";
const QOS_0: &str = "mosquitto qos 0";
const QOS_1: &str = "mosquitto qos 1";
const PRODUCER: &str = "aklight producer";
const COLLECTD: &str = "collectd";
const NODE_EXPORTER: &str = "node exporter";

/// Everyone who has something to push.
const LIVE: &[&str] = &[OWN, STREAM, PUBSUB, JETSTREAM, CORE, QOS_0, QOS_1];

/// All rows, in the order of the report.
pub const ROWS: &[Row] = &[
    row(
        "ingest-synced",
        "ingest, fsync before ACK",
        Safety::Synced,
        &[OWN, CUMULATIVE, STREAMS],
        ingest::alone,
        &[
            goal(OWN, "records", Target::Times(12.0, STREAMS)),
            // 3 x Iggy strict, which is 6 x Redis always.
            goal(CUMULATIVE, "records", Target::Times(18.0, STREAMS)),
        ],
    ),
    row(
        "ingest-cached",
        "ingest, page cache",
        Safety::Cached,
        &[OWN, CUMULATIVE, STREAMS, JETSTREAM, QOS_1],
        ingest::alone,
        &[
            // 1.5 x Iggy write-through, which is 6.2 x Redis.
            goal(OWN, "records", Target::Times(9.3, STREAMS)),
            goal(CUMULATIVE, "records", Target::Times(15.0, STREAMS)),
        ],
    ),
    row(
        "single-cached",
        "one in flight, page cache",
        Safety::Cached,
        &[OWN, SPINNING, STREAMS, JETSTREAM, QOS_1],
        single::alone,
        &[
            goal(OWN, "p50", Target::Best(0.95)),
            goal(OWN, "p99", Target::Best(1.0)),
            goal(SPINNING, "p50", Target::Best(0.45)),
        ],
    ),
    row(
        "single-synced",
        "one in flight, fsync",
        Safety::Synced,
        &[OWN, STREAMS],
        single::alone,
        &[
            goal(OWN, "p50", Target::Times(1.0, STREAMS)),
            goal(OWN, "p99", Target::Times(1.0, STREAMS)),
        ],
    ),
    row(
        "read-all",
        "read everything back",
        Safety::Cached,
        &[OWN, STREAMS, JETSTREAM],
        readback::all,
        // 1.5 x Iggy with 10,000 a poll, which is 5.1 x Redis.
        &[goal(OWN, "records", Target::Times(7.6, STREAMS))],
    ),
    row(
        "read-topic",
        "one topic of 1,000",
        Safety::Cached,
        &[OWN, STREAMS, JETSTREAM],
        readback::topic,
        &[goal(OWN, "time", Target::Figure(2.5))],
    ),
    row(
        "read-quarter",
        "a quarter by wildcard",
        Safety::Cached,
        &[OWN, JETSTREAM],
        readback::quarter,
        &[goal(OWN, "records", Target::Times(10.0, JETSTREAM))],
    ),
    row(
        "live",
        "live at 10,000/s",
        Safety::Cached,
        LIVE,
        live::one,
        &[
            goal(OWN, "p50", Target::Times(1.0, PUBSUB)),
            goal(OWN, "p99", Target::Times(1.0, PUBSUB)),
        ],
    )
    .prompt(),
    row("live-synced", "live at 10,000/s, fsync", Safety::Synced, &[OWN, STREAM], live::one, &[])
        .prompt(),
    row(
        "fanout-10",
        "1 to 10 subscribers",
        Safety::Cached,
        LIVE,
        fanout::ten,
        &[goal(OWN, "deliveries", Target::Times(1.5, PUBSUB))],
    ),
    row("fanout-100", "1 to 100 subscribers", Safety::Cached, LIVE, fanout::hundred, &[])
        .full_only(),
    row(
        "slow-reader",
        "9 of 10 subscribers, one stops reading",
        Safety::Cached,
        &[OWN, STREAM, PUBSUB, JETSTREAM, CORE],
        slow::one_stops,
        &[],
    ),
    row(
        "footprint",
        "memory, disk, start",
        Safety::Cached,
        &[OWN, STREAMS, JETSTREAM, QOS_1],
        footprint::server,
        &[
            goal(OWN, "start", Target::Figure(15.0)),
            goal(OWN, "memory idle", Target::Figure(24.0)),
            goal(OWN, "memory after", Target::Figure(32.0)),
            goal(OWN, "disk a record", Target::Figure(132.0)),
            goal(OWN, "back after kill", Target::Figure(30.0)),
        ],
    ),
    row(
        "kill-synced",
        "kill -9 in the middle of ingest, fsync before ACK",
        Safety::Synced,
        &[OWN, CUMULATIVE, STREAMS],
        kill::midway,
        &[goal(OWN, "lost", Target::Figure(0.0)), goal(CUMULATIVE, "lost", Target::Figure(0.0))],
    ),
    row(
        "kill-cached",
        "kill -9 in the middle of ingest, page cache",
        Safety::Cached,
        &[OWN, CUMULATIVE, STREAMS],
        kill::midway,
        &[goal(OWN, "lost", Target::Figure(0.0)), goal(CUMULATIVE, "lost", Target::Figure(0.0))],
    ),
    // NATS 2.9 cannot sync before it acknowledges; ours does.
    row(
        "cluster",
        "three brokers, fsync, pipelined",
        Safety::Synced,
        &[OWN, CUMULATIVE, JETSTREAM],
        ingest::cluster,
        &[goal(OWN, "records", Target::Times(10.0, JETSTREAM))],
    ),
    row(
        "cluster-single",
        "three brokers, fsync, one in flight",
        Safety::Synced,
        &[OWN, JETSTREAM],
        single::cluster,
        &[goal(OWN, "p50", Target::Times(1.5, JETSTREAM))],
    ),
    row(
        "failover",
        "silence after kill -9 of a leader",
        Safety::Synced,
        &[ONE_PARTITION, JETSTREAM],
        failover::silence,
        &[goal(ONE_PARTITION, "silence", Target::Times(0.2, JETSTREAM))],
    ),
    Row {
        key: "agent",
        title: "measuring the host each second",
        safety: Safety::Synced,
        is_prompt: false,
        is_full_only: false,
        systems: &[PRODUCER, COLLECTD, NODE_EXPORTER],
        work: Work::Agents(agent::cost),
        goals: &[
            goal(PRODUCER, "CPU", Target::Times(0.3, COLLECTD)),
            goal(PRODUCER, "memory, PSS", Target::Figure(12.0)),
        ],
    },
    row("scale-sizes", "bytes of a record", Safety::Cached, &[CUMULATIVE], scaling::sizes, &[])
        .full_only(),
    row(
        "scale-connections",
        "connections",
        Safety::Cached,
        &[CUMULATIVE],
        scaling::connections,
        &[],
    )
    .full_only(),
    row("scale-topics", "topics", Safety::Cached, &[CUMULATIVE], scaling::topics, &[]).full_only(),
];
