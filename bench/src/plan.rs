//! Who does what, how much of it, and how often.
//!
//! Rounds alternate: every system does a row's work once before any does it again, so that what
//! the machine does to one it does to all.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::{now_ns, seconds_since};
use crate::load::Load;
use crate::peers::Way;
use crate::rows::Row;
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
        is_full: false,
        rounds: 4,
    };

    /// Overnight.
    pub const FULL: Self = Self {
        ingest_records: 2_000_000,
        seconds_max: 60.0,
        single_seconds: 10.0,
        stored_records: 2_000_000,
        live_seconds: 60,
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

/// Does a row's work, round by round; `tell` hears each outcome as it comes. A system that fails
/// is asked no more, and the report says why.
///
/// # Errors
/// When the load cannot be made.
pub fn run_row<'a>(
    row: &'static Row,
    ways: &[&'a dyn Way],
    sizes: &'a Sizes,
    rounds: u32,
    tell: &mut dyn FnMut(Outcome),
) -> anyhow::Result<()> {
    let load = Arc::new(Load::new(sizes.topics, sizes.payload_bytes)?);
    let stage = |way: &&'a dyn Way| Stage {
        way: *way,
        safety: row.safety,
        is_prompt: row.is_prompt,
        sizes,
        load: Arc::clone(&load),
        fleet: None,
        stored: 0,
    };
    let mut stages: Vec<_> = ways
        .iter()
        .filter(|way| row.systems.contains(&way.name()) && way.program().is_some())
        .map(stage)
        .collect();
    for round in 0..rounds {
        stages.retain_mut(|stage| {
            let begin_ns = now_ns();
            let done = (row.work)(stage);
            let seconds = seconds_since(begin_ns);
            let is_good = done.is_ok();
            let error = done.as_ref().err().map(|error| format!("{error:#}"));
            let measures = done.unwrap_or_default();
            tell(Outcome {
                row: row.key,
                system: stage.way.name(),
                round,
                seconds,
                measures,
                error,
            });
            is_good
        });
    }
    Ok(())
}
