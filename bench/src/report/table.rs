//! The report in Markdown: what was measured on what, one table, and why systems are missing.

use std::fmt::Write as _;

use super::System;
use super::machine::Machine;
use super::number::shown;
use super::results::Results;
use crate::plan::Sizes;
use crate::rows::{Goal, ROWS, Row, Target, Work};
use crate::work::{CLIENT_CPU, PEAK_MEMORY, SERVER_CPU, Unit, float};

/// A column for each peer; a system belongs to the one that its name begins with.
const PEERS: [&str; 4] = ["aklight", "redis", "nats", "mosquitto"];

/// The same where agents are measured.
const AGENTS: [&str; 3] = ["aklight", "collectd", "node exporter"];

/// The whole report.
pub fn write(
    machine: &Machine,
    systems: &[System],
    sizes: &Sizes,
    results: &Results<'_>,
    charts: &[(&str, String)],
) -> String {
    let mut out = String::from("# AKLight beside its peers\n\n");
    // Writing to a String cannot fail, here and below.
    let _ = head(&mut out, machine, systems, sizes);
    let (agents, servers): (Vec<_>, Vec<_>) = ROWS
        .iter()
        .filter(|row| results.has(row.key))
        .partition(|row| matches!(row.work, Work::Agents(_)));
    for (rows, peers) in [(servers, &PEERS[..]), (agents, &AGENTS)] {
        let _ = table(&mut out, &rows, peers, results);
    }
    for (title, file) in charts {
        let _ = write!(out, "\n![{title}]({file})\n");
    }
    let mut failures = results.errors().peekable();
    if failures.peek().is_some() {
        out.push_str("\n## What failed\n\n");
    }
    for (outcome, error) in failures {
        let error = error.replace('\n', " ");
        let _ = writeln!(out, "- {}, {}: {error}", outcome.row, outcome.system);
    }
    out
}

fn head(
    out: &mut String,
    machine: &Machine,
    systems: &[System],
    sizes: &Sizes,
) -> std::fmt::Result {
    writeln!(
        out,
        "{} cores of {}, Linux {}, load {} at the end; fdatasync of 4 KiB takes \
         {} µs (p50), {} µs (p99). Payloads of {} bytes, {} topics in turns, \
         one connection, a window of {}; what is read back, and what memory, disk and the way back \
         are measured with, is {} records (their goals: 2,000,000). Clients and servers share the machine. A cell is the \
         median of the rounds [least–most]; below it the processor time a record, server + \
         client, and the server's peak memory. Ratios are formed round by round. Compare nothing \
         across runs.\n",
        machine.cores,
        machine.processor,
        machine.kernel,
        machine.load,
        shown(machine.sync.p50_us),
        shown(machine.sync.p99_us),
        sizes.payload_bytes,
        sizes.topics,
        sizes.window,
        shown(float(sizes.stored_records))
    )?;
    for system in systems {
        match &system.version {
            Some(version) => writeln!(out, "- {}: {version}; {}", system.name, system.about)?,
            None => writeln!(out, "- {}: its program is not on this machine", system.name)?,
        }
    }
    Ok(())
}

fn table(
    out: &mut String,
    rows: &[&Row],
    peers: &[&str],
    results: &Results<'_>,
) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| work | figure | {} | ratio | goal |", peers.join(" | "))?;
    writeln!(out, "|---|---|{}---|---|", "---|".repeat(peers.len()))?;
    for row in rows {
        for (at, (measure, unit)) in results.measures(row.key).into_iter().enumerate() {
            let title = if at == 0 { row.title } else { "" };
            write!(out, "| {title} | {measure}, {} |", unit.sign())?;
            for peer in peers {
                let systems = row.systems.iter().filter(|system| system.starts_with(peer));
                let cells = systems.filter_map(|s| cell(results, row, peer, s, measure, at == 0));
                write!(out, " {} |", cells.collect::<Vec<_>>().join("<br>"))?;
            }
            let goals = row.goals.iter().filter(|goal| goal.measure == measure);
            let verdicts: Vec<_> = goals.map(|goal| verdict(results, row, goal, unit)).collect();
            let (mut ratios, goals): (Vec<_>, Vec<_>) = verdicts.into_iter().unzip();
            if ratios.is_empty() && unit.is_comparable() {
                ratios.extend(to_the_best(results, row, measure));
            }
            writeln!(out, " {} | {} |", ratios.join("<br>"), goals.join("<br>"))?;
        }
    }
    Ok(())
}

fn cell(
    results: &Results<'_>,
    row: &Row,
    peer: &str,
    system: &str,
    measure: &str,
    with_costs: bool,
) -> Option<String> {
    let spread = results.spread(row.key, system, measure)?;
    let way = system.strip_prefix(peer).unwrap_or(system).trim();
    let mut cell = if way.is_empty() { String::new() } else { format!("{way}: ") };
    let _ = write!(cell, "{} [{}–{}]", shown(spread.median), shown(spread.min), shown(spread.max));
    let cost = |name| Some(shown(results.spread(row.key, system, name)?.median));
    let costs = (cost(SERVER_CPU), cost(CLIENT_CPU), cost(PEAK_MEMORY));
    if let (true, (Some(server), Some(client), Some(memory))) = (with_costs, costs) {
        let _ = write!(cell, "<br><sub>{server} + {client} µs, {memory} MB</sub>");
    }
    Some(cell)
}

// Where nothing is to be reached: how ours stands to the best peer.
fn to_the_best(results: &Results<'_>, row: &Row, measure: &'static str) -> Option<String> {
    let system = row.systems.first()?;
    let verdict = results.verdict(row, &Goal { system, measure, target: Target::Best(1.0) })?;
    Some(format!("{} × {}", shown(verdict.reached), verdict.against?))
}

// What was reached, and what was to be.
fn verdict(results: &Results<'_>, row: &Row, goal: &Goal, unit: Unit) -> (String, String) {
    let limit = if unit.more_is_better() { "≥" } else { "≤" };
    let whose = if goal.system == "aklight" { "" } else { &goal.system["aklight ".len()..] };
    let wanted = match goal.target {
        Target::Best(times) => format!("{limit} {times} × the best"),
        Target::Times(times, other) => format!("{limit} {times} × {other}"),
        Target::Figure(figure) => format!("{limit} {figure} {}", unit.sign()),
    };
    let wanted = format!("{whose} {wanted}").trim().to_owned();
    let Some(verdict) = results.verdict(row, goal) else {
        return ("not measured".to_owned(), wanted);
    };
    let reached = shown(verdict.reached);
    let reached = match verdict.against {
        Some(other) => format!("{whose} {reached} × {other}"),
        None => format!("{whose} {reached} {}", unit.sign()),
    };
    let mark = if verdict.is_met { "met" } else { "**missed**" };
    (reached.trim().to_owned(), format!("{wanted}: {mark}"))
}
