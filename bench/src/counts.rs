//! What a record costs in instructions and in allocations, on both sides of the socket.
//!
//! Each piece of work is done twice, the second time with more records: the difference is what these
//! cost, and what starts and ends cost drops out. The client is this program's own `load` command;
//! one of the two sides runs under valgrind, the other as it is.
//!
//! Left out: what the kernel does, which is most of what is left (`read`, `write`, waking up).

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Serialize;

use crate::peers::Safety;
use crate::peers::aklight::Aklight;
use crate::programs;
use crate::server::Fleet;
use crate::valgrind::{Counted, Tool, ended_well};
use crate::work::float;

/// What a record may cost both sides together, in instructions.
pub const INSTRUCTIONS_MAX: f64 = 1_500.0;

/// What a record may cost both sides together, in allocations.
pub const ALLOCATIONS_MAX: f64 = 0.01;

/// What is done.
struct Work {
    /// Its name in files.
    key: &'static str,
    title: &'static str,
    /// What `load` is told beside how many records.
    flags: &'static [&'static str],
    /// Whether the records are sent once and read again and again, and not sent.
    is_reading: bool,
}

const WORKS: [Work; 4] = [
    Work { key: "own", title: "send, an ACK each", flags: &["--own"], is_reading: false },
    Work {
        key: "cumulative",
        title: "send, one ACKS for many",
        flags: &["--cumulative"],
        is_reading: false,
    },
    Work {
        key: "push",
        title: "the same, and push to a subscriber",
        flags: &["--cumulative", "--follow"],
        is_reading: false,
    },
    Work { key: "read", title: "read back", flags: &["--cumulative"], is_reading: true },
];

/// What a side spends on a record.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spent {
    /// Instructions.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
}

/// What a piece of work costs, a record.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The work.
    pub title: &'static str,
    /// The broker's side.
    pub server: Spent,
    /// The bench's side.
    pub client: Spent,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, server, client } = self;
        write!(
            f,
            "  {title}: {:.0} + {:.0} instructions, {:.4} + {:.4} allocations",
            server.instructions, client.instructions, server.allocations, client.allocations
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Does all of it, with so many records; `tell` hears each cost as it is known. What valgrind found
/// stays in `dir`.
///
/// # Errors
/// When a side fails, or valgrind is not on this machine.
pub fn measure(
    aklight: &Path,
    records: u64,
    dir: &Path,
    tell: &mut dyn FnMut(&Cost),
) -> anyhow::Result<Vec<Cost>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // The broker has a folder of its own to work in.
    let stage = Stage { aklight, records, dir: &dir.canonicalize()? };
    let mut costs = Vec::new();
    for work in &WORKS {
        let (server, client) = (stage.spent(work, Side::Server)?, stage.spent(work, Side::Client)?);
        let cost = Cost { title: work.title, server, client };
        tell(&cost);
        costs.push(cost);
    }
    Ok(costs)
}

struct Stage<'a> {
    aklight: &'a Path,
    records: u64,
    dir: &'a Path,
}

impl Stage<'_> {
    fn spent(&self, work: &Work, side: Side) -> anyhow::Result<Spent> {
        let spent = |tool| -> anyhow::Result<f64> {
            let once = self.total(work, side, tool, 1)?;
            let twice = self.total(work, side, tool, 2)?;
            // Where a record costs nothing, chance may make the shorter run the dearer one.
            Ok(float(twice.saturating_sub(once)) / float(self.records))
        };
        let (instructions, allocations) = (spent(Tool::Instructions)?, spent(Tool::Allocations)?);
        Ok(Spent { instructions, allocations })
    }

    /// What one side counts in all, when the work is done `times` over.
    fn total(&self, work: &Work, side: Side, tool: Tool, times: u64) -> anyhow::Result<u64> {
        let name = format!("{}-{side:?}-{tool:?}-{times}.log", work.key).to_lowercase();
        let log = self.dir.join(name);
        let server = Counted {
            inner: Aklight::new(self.aklight),
            tool: (side == Side::Server).then(|| (tool, log.clone())),
        };
        let mut fleet = Fleet::start(&server, Safety::Cached, false, 1)?;
        let mut client = Command::new(programs::own()?);
        client.args(["load", "--broker", &fleet.address(0).to_string()]).args(work.flags);
        let (sends, reads) = if work.is_reading { (1, times) } else { (times, 0) };
        client.args(["--records", &(sends * self.records).to_string()]);
        client.args(["--read", &reads.to_string()]);
        if side == Side::Client {
            client = tool.around(&client, &log)?;
        }
        let done = client.stdout(Stdio::null()).status().context("starting the client")?;
        ended_well("the client", done, &log)?;
        ended_well("the broker", fleet.end(0)?, &log)?;
        tool.total(&log)
    }
}
