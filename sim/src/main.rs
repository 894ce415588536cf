//! `aklight-sim`: runs seeds, and tells what each of them breaks. Or goes a hot path, for a tool that
//! counts instructions.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use aklight_common::clock::SystemClock;
use aklight_sim::paths::{self, Path};
use aklight_sim::plants::Plant;
use aklight_sim::runner::{self, Batch};
use aklight_sim::world::{self, Variant};
use aklight_sim::{entropy, standstill, watchdog};
use clap::Parser;

/// Seeds that once failed; they are run first, always.
const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");

/// Seeds of a run that ends by time.
const MANY: u64 = 1_000_000;

/// Stack of the thread that a simulation runs in: futures of a debug build are large.
const STACK_BYTES: usize = 64 << 20;

/// A whole cluster in one thread, driven by a seed.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Which seeds: 1..5000, the last included
    #[arg(long, value_parser = seeds_in, value_name = "FROM..TO")]
    seeds: Option<RangeInclusive<u64>>,

    /// One seed, in this process
    #[arg(long)]
    seed: Option<u64>,

    /// Seeds that nobody has run yet
    #[arg(long)]
    fresh: bool,

    /// Stop after so many minutes
    #[arg(long)]
    minutes: Option<f64>,

    /// Plant a bug, and stop when it is found
    #[arg(long)]
    plant: Option<Plant>,

    /// Brokers acknowledge before they sync (their --fsync interval): processes are killed then, but the
    /// power stays
    #[arg(long)]
    syncs_later: bool,

    /// Tell the story of a seed
    #[arg(long)]
    trace: bool,

    /// With --trace: what brokers log as well
    #[arg(long)]
    logs: bool,

    /// Seeds at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,

    /// Go a hot path instead, for a tool that counts instructions (.ci/instructions)
    #[arg(long, value_name = "PATH")]
    path: Option<Path>,

    /// With --path: how many times over
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

impl Args {
    const fn variant(&self) -> Variant {
        Variant { plant: self.plant, syncs_later: self.syncs_later }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match (args.path, args.seed) {
        (Some(path), _) => go(path, args.rounds),
        (None, Some(seed)) => run_one(seed, &args),
        (None, None) => run_many(&args),
    }
}

/// Goes a path; the last line says how many records went it.
fn go(path: Path, rounds: u64) -> anyhow::Result<ExitCode> {
    entropy::seed(1);
    standstill::stop();
    // A new thread has drawn nothing yet, whatever the command line's parser did.
    let walk = std::thread::spawn(move || paths::run(path, rounds));
    let Ok(records) = walk.join() else { return Ok(ExitCode::from(2)) };
    println!("records {}", records?);
    Ok(ExitCode::SUCCESS)
}

fn run_one(seed: u64, args: &Args) -> anyhow::Result<ExitCode> {
    if args.logs {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .init();
    }
    watchdog::start();
    entropy::seed(seed);
    standstill::stop();
    let (variant, told) = (args.variant(), args.trace);
    // A new thread has drawn nothing yet, whatever the command line's parser did.
    let simulation = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || world::run(seed, variant, told))?;
    let Ok(report) = simulation.join() else { return Ok(ExitCode::from(2)) };
    let report = report?;
    runner::print(&report);
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_many(args: &Args) -> anyhow::Result<ExitCode> {
    let clock = SystemClock::shared();
    let mut seeds = Vec::new();
    // They failed where brokers sync first.
    if args.plant.is_none() && !args.syncs_later {
        seeds.extend(regressions());
    }
    match &args.seeds {
        Some(range) => seeds.extend(range.clone()),
        None if args.fresh => {
            let first = clock.wall_us();
            seeds.extend(first..first + MANY);
        }
        None => seeds.extend(1..=MANY),
    }
    let batch = Batch {
        program: std::env::current_exe()?,
        seeds,
        time_max: args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        variant: args.variant(),
        jobs: args.jobs,
        clock,
    };
    let summary = runner::run(&batch);
    println!("{summary}");
    let found = !summary.bad.is_empty();
    Ok(if found == args.plant.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seeds of the file: a number at the beginning of a line; the rest of it says why.
fn regressions() -> impl Iterator<Item = u64> {
    REGRESSIONS.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

fn seeds_in(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("write FROM..TO, as in 1..5000, not {text}");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    Ok(number(from)?..=number(to)?)
}
