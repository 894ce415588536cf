//! What is written in the end: `report.md`, `results.json`, and a chart for each row.

mod chart;
pub mod costs;
mod line;
mod machine;
mod number;
mod results;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::counts::Cost;
use crate::disk::Sync;
use crate::peers::Way;
use crate::plan::{Outcome, Sizes};
use crate::rows::ROWS;
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
    is_stored: bool,
    // Empty where its server is not on this machine.
    version: Option<String>,
}

/// Writes the report of a run into a folder, which is made.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write(
    dir: &Path,
    ways: &[&dyn Way],
    sizes: &Sizes,
    sync: Sync,
    outcomes: &[Outcome],
    costs: &[Cost],
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let machine = Machine::here(sync);
    let systems = ways.iter().map(|way| System {
        name: way.name(),
        is_stored: way.is_stored(),
        version: way.program().and_then(|program| crate::programs::version(&program)),
    });
    let systems: Vec<_> = systems.collect();
    let results = Results::new(outcomes);
    let mut charts = Vec::new();
    for row in ROWS.iter().filter(|row| results.has(row.key)) {
        let is_line = row.key.starts_with("scale-");
        let drawn = if is_line { line::draw(row, &results) } else { chart::draw(row, &results) };
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

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
