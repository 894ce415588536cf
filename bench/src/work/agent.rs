//! What an agent costs that measures the machine once a second.
//!
//! Agents run beside each other from their first round to the last one, as they would at home, and
//! a round is the time since an agent was last looked at: all of them are measured over the same
//! minutes, and none is waited for twice.

use std::thread::sleep;
use std::time::Duration;

use super::{Measure, Unit, float, measure};
use crate::agents::{Agent, Running};
use crate::clock::{now_ns, seconds_since};
use crate::usage::{Cpu, Memory, proportional_bytes};

/// How long an agent has to find its pace before it is measured.
const WARM_UP: Duration = Duration::from_secs(5);

/// An agent at its work, from round to round.
pub struct Post<'a> {
    agent: &'a Agent,
    seconds: f64,
    running: Option<Running<'a>>,
    last: Look,
}

/// What an agent had used when it was last looked at.
struct Look {
    at_ns: u64,
    cpu: Cpu,
}

impl<'a> Post<'a> {
    /// An agent that is to be measured for so long in each round.
    pub fn new(agent: &'a Agent, seconds: f64) -> Self {
        Self { agent, seconds, running: None, last: Look { at_ns: 0, cpu: Cpu::default() } }
    }
}

/// Processor time and memory of all processes of an agent.
///
/// # Errors
/// When it does not run, or does nothing.
pub fn cost(post: &mut Post<'_>) -> anyhow::Result<Vec<Measure>> {
    if post.running.is_none() {
        let started = post.agent.start()?;
        sleep(WARM_UP);
        post.last = Look { at_ns: now_ns(), cpu: Cpu::of(&started.pids()) };
        post.running = Some(started);
    }
    let Some(running) = post.running.as_mut() else { return Ok(Vec::new()) };
    let left = post.seconds - seconds_since(post.last.at_ns);
    sleep(Duration::from_secs_f64(left.max(0.0)));
    let pids = running.pids();
    let (cpu, seconds) = (Cpu::of(&pids), seconds_since(post.last.at_ns));
    let percent = cpu.seconds_since(&post.last.cpu) / seconds * 100.0;
    post.last = Look { at_ns: now_ns(), cpu };
    running.check()?;
    Ok(vec![
        measure("CPU", percent, Unit::Percent),
        measure("memory, PSS", float(proportional_bytes(&pids)) / 1e6, Unit::Megabytes),
        measure("memory, RSS", float(Memory::of(&pids).now) / 1e6, Unit::Megabytes),
    ])
}
