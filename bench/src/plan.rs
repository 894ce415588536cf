//! Who does what, how much of it, and how often.
//!
//! Rounds alternate: every system does a row's work once before any does it again, so that what
//! the machine does to one it does to all.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::agents::Agent;
use crate::clock::{now_ns, seconds_since};
use crate::load::Load;
use crate::peers::Way;
use crate::rows::{Row, Work};
use crate::work::agent::Post;
use crate::work::{Measure, Stage};

/// How much is asked of each system.
#[derive(Debug, Clone, Serialize)]
pub struct Sizes {
    /// Topics, taken in turns.
    pub topics: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Records on the way at most.
    pub window: u64,
    /// Records of a pipelined round.
    pub ingest_records: u64,
    /// When a pipelined round ends though its records are not all sent.
    pub seconds_max: f64,
    /// Length of a round with one record in flight.
    pub single_seconds: f64,
    /// Records that are stored, to be read again or to be come back with.
    pub stored_records: u64,
    /// Length of a round of records on a schedule.
    pub live_seconds: u64,
    /// How long a subscriber reads nothing.
    pub slow_seconds: f64,
    /// How long an agent is measured in a round.
    pub agent_seconds: f64,
    /// Whether rows that take the night are in.
    pub is_full: bool,
    /// Rounds, unless the command line says otherwise.
    pub rounds: u32,
}

impl Sizes {
    /// All in five minutes on two cores.
    pub const QUICK: Self = Self {
        topics: 1_000,
        payload_bytes: 100,
        window: 4_096,
        ingest_records: 500_000,
        seconds_max: 1.0,
        single_seconds: 0.6,
        stored_records: 200_000,
        live_seconds: 1,
        slow_seconds: 1.5,
        agent_seconds: 8.0,
        is_full: false,
        rounds: 3,
    };

    /// Overnight.
    pub const FULL: Self = Self {
        ingest_records: 2_000_000,
        seconds_max: 60.0,
        single_seconds: 10.0,
        stored_records: 2_000_000,
        live_seconds: 60,
        slow_seconds: 20.0,
        agent_seconds: 20.0,
        is_full: true,
        rounds: 7,
        ..Self::QUICK
    };
}

/// What a system did in one round of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The row's key.
    pub row: &'static str,
    /// The system's name.
    pub system: &'static str,
    /// From 0.
    pub round: u32,
    /// How long it took, its server's start and its filling included.
    pub seconds: f64,
    /// What was measured; empty when it failed.
    pub measures: Vec<Measure>,
    /// Why it failed.
    pub error: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} {} ({:.1} s):", self.round + 1, self.system, self.seconds)?;
        for Measure { name, value, unit } in &self.measures {
            let digits = if *value < 100.0 { 2 } else { 0 };
            write!(f, " {name} {value:.digits$} {},", unit.sign())?;
        }
        match &self.error {
            Some(error) => write!(f, " failed: {error}"),
            None => Ok(()),
        }
    }
}

/// Those who are measured.
pub struct Systems<'a> {
    /// Ways of servers.
    pub ways: Vec<&'a dyn Way>,
    /// Agents.
    pub agents: Vec<&'a Agent>,
}

/// A system with what it is to do in a round, again and again.
struct Entrant<'a> {
    name: &'static str,
    work: Box<dyn FnMut() -> anyhow::Result<Vec<Measure>> + 'a>,
    failures: u32,
}

impl<'a> Entrant<'a> {
    fn new(name: &'static str, work: impl FnMut() -> anyhow::Result<Vec<Measure>> + 'a) -> Self {
        Self { name, work: Box::new(work), failures: 0 }
    }
}

/// How often a system may fail in a row of the table before it is asked no more: a cluster may lose
/// its leader in one round, and some failures take half a minute each.
const FAILURES_MAX: u32 = 2;

/// Does a row's work, round by round; `tell` hears each outcome as it comes. A system that fails
/// again is asked no more, and the report says why.
///
/// # Errors
/// When the load cannot be made.
pub fn run_row(
    row: &'static Row,
    systems: &Systems<'_>,
    sizes: &Sizes,
    rounds: u32,
    tell: &mut dyn FnMut(Outcome),
) -> anyhow::Result<()> {
    let mut entrants = entrants(row, systems, sizes)?;
    for round in 0..rounds {
        entrants.retain_mut(|entrant| {
            let begin_ns = now_ns();
            let done = (entrant.work)();
            let seconds = seconds_since(begin_ns);
            entrant.failures += u32::from(done.is_err());
            let error = done.as_ref().err().map(|error| format!("{error:#}"));
            let measures = done.unwrap_or_default();
            let system = entrant.name;
            tell(Outcome { row: row.key, system, round, seconds, measures, error });
            entrant.failures < FAILURES_MAX
        });
    }
    Ok(())
}

fn entrants<'a>(
    row: &'static Row,
    systems: &Systems<'a>,
    sizes: &'a Sizes,
) -> anyhow::Result<Vec<Entrant<'a>>> {
    let load = Arc::new(Load::new(sizes.topics, sizes.payload_bytes)?);
    let is_in = |name: &str| row.systems.contains(&name);
    Ok(match row.work {
        Work::Servers(work) => {
            let ways = systems.ways.iter().copied();
            let ways = ways.filter(|way| is_in(way.name()) && way.program().is_some());
            let entrant = |way: &'a dyn Way| {
                let load = Arc::clone(&load);
                let (safety, is_prompt) = (row.safety, row.is_prompt);
                let mut stage =
                    Stage { way, safety, is_prompt, sizes, load, fleet: None, stored: 0 };
                Entrant::new(way.name(), move || {
                    let done = work(&mut stage);
                    if done.is_err() {
                        // Servers that failed are of no more use.
                        stage.fleet = None;
                    }
                    done
                })
            };
            ways.map(entrant).collect()
        }
        Work::Agents(work) => {
            let agents = systems.agents.iter().copied();
            let agents = agents.filter(|agent| is_in(agent.name()) && agent.program().is_some());
            let entrant = |agent: &'a Agent| {
                let mut post = Post::new(agent, sizes.agent_seconds);
                Entrant::new(agent.name(), move || work(&mut post))
            };
            agents.map(entrant).collect()
        }
    })
}
