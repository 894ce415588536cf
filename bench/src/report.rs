//! What is written in the end: `report.md`, `results.json`, and a chart for each row.

mod chart;
pub mod costs;
mod line;
mod machine;
mod number;
mod results;
mod svg;
mod table;
mod tail;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::counts::Cost;
use crate::disk::Sync;
use crate::plan::{Outcome, Sizes, Systems};
use crate::rows::ROWS;
use crate::tail::Tail;
use machine::Machine;
use results::Results;

/// All that a run knows, as it is kept for later comparisons.
#[derive(Serialize)]
struct Raw<'a> {
    machine: &'a Machine,
    sizes: &'a Sizes,
    systems: Vec<System>,
    outcomes: &'a [Outcome],
    costs: &'a [Cost],
}

/// A system, and what was measured of it.
#[derive(Serialize)]
struct System {
    name: &'static str,
    about: &'static str,
    // Empty where its server is not on this machine.
    version: Option<String>,
}

/// Writes the report of a run into a folder, which is made.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write(
    dir: &Path,
    measured: &Systems<'_>,
    sizes: &Sizes,
    sync: Sync,
    outcomes: &[Outcome],
    costs: &[Cost],
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let machine = Machine::here(sync);
    let version = |program: Option<PathBuf>| program.and_then(|p| crate::programs::version(&p));
    let ways = measured.ways.iter().map(|way| System {
        name: way.name(),
        about: if way.is_stored() { "stores" } else { "stores nothing" },
        version: version(way.program()),
    });
    let agents = measured.agents.iter().map(|agent| System {
        name: agent.name(),
        about: "measures the machine",
        version: version(agent.program()),
    });
    let systems: Vec<_> = ways.chain(agents).collect();
    let results = Results::new(outcomes);
    let mut charts = Vec::new();
    for row in ROWS.iter().filter(|row| results.has(row.key)) {
        let is_line = row.key.starts_with("scale-");
        let drawn =
            if is_line { Some(line::draw(row, &results)) } else { chart::draw(row, &results) };
        let Some(drawn) = drawn else { continue };
        let name = format!("{}.svg", row.key);
        save(&dir.join(&name), drawn.as_bytes())?;
        charts.push((row.title, name));
    }
    let mut text = table::write(&machine, &systems, sizes, &results, &charts);
    if !costs.is_empty() {
        text += "\n## Instructions and allocations of AKLight\n\n";
        text += &costs::table(costs);
    }
    save(&dir.join("report.md"), text.as_bytes())?;
    let raw = Raw { machine: &machine, sizes, systems, outcomes, costs };
    save(&dir.join("results.json"), &serde_json::to_vec_pretty(&raw)?)
}

/// Writes what came of the tail beside it, as `tail.md` and `tail.svg`.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_tail(dir: &Path, tail: &Tail, sync: Sync) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    save(&dir.join("tail.svg"), tail::draw(tail).as_bytes())?;
    let text = tail::write(tail, &Machine::here(sync), "tail.svg");
    save(&dir.join("tail.md"), text.as_bytes())
}

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
