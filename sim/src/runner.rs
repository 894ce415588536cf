//! Runs many seeds, each in a process of its own.
//!
//! A seed's process begins like every other: what is counted in statics, drawn once for a thread or
//! left behind by a seed before cannot change its run. A panic, an abort or a hang of one is a
//! finding, and not the end of the others.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aklight_common::clock::SharedClock;
use parking_lot::Mutex;

use crate::world::{Report, Variant};

/// What is to be run.
#[derive(Clone)]
pub struct Batch {
    /// This program.
    pub program: PathBuf,
    /// Which seeds.
    pub seeds: Vec<u64>,
    /// Stop after so long, if that is sooner.
    pub time_max: Option<Duration>,
    /// How each is run; where a bug is planted, the batch ends when it is found.
    pub variant: Variant,
    /// How many at once.
    pub jobs: usize,
    /// What time it really is.
    pub clock: SharedClock,
}

/// What came of a batch.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that break something.
    pub bad: Vec<u64>,
    /// Simulated time.
    pub simulated_us: u64,
    /// Real time.
    pub real_us: u64,
    /// Counted by name.
    pub counts: Vec<(String, u64)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.real_us as f64 / 60e6;
        let hours = self.simulated_us as f64 / 3600e6;
        writeln!(
            f,
            "{} seeds in {minutes:.1} minutes ({:.0} a minute), {hours:.1} simulated hours, {} with violations",
            self.seeds,
            self.seeds as f64 / minutes.max(0.001),
            self.bad.len()
        )?;
        let counts: Vec<_> =
            self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(f, "{}", counts.join(", "))
    }
}

/// Prints what came of one seed: for the process that runs the batch, and for people.
pub fn print(report: &Report) {
    for violation in &report.violations {
        println!("violation {violation}");
    }
    let (counts, troubles) = (&report.counts, &report.troubles);
    println!(
        "done digest={:016x} simulated_us={} sent={} acked={} refused={} unknown={} delivered={} read={} crashes={} partitions={} stops={} disks={} damages={} changes={} troubles={} elections={}",
        report.digest,
        report.simulated_us,
        counts.sent,
        counts.acked,
        counts.refused,
        counts.unknown,
        counts.delivered,
        counts.read,
        troubles.crashes,
        troubles.partitions,
        troubles.stops,
        troubles.disks,
        troubles.damages,
        report.changes,
        troubles.all,
        report.elections,
    );
}

/// Runs a batch, telling each violation as it is found.
#[must_use]
pub fn run(batch: &Batch) -> Summary {
    let began_us = batch.clock.monotonic_us();
    let next = AtomicUsize::new(0);
    let enough = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..batch.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let real = Duration::from_micros(batch.clock.monotonic_us() - began_us);
                    let is_late = batch.time_max.is_some_and(|max| real > max);
                    if is_late || enough.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = batch.seeds.get(at).copied() else { return };
                    let is_bad = run_seed(batch, seed, &summary);
                    if is_bad && batch.variant.plant.is_some() {
                        enough.store(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner();
    summary.real_us = batch.clock.monotonic_us() - began_us;
    summary
}

/// The command that runs one seed alone.
fn command(seed: u64, Variant { plant, syncs_later }: Variant) -> Vec<String> {
    let mut words = vec!["--seed".to_owned(), seed.to_string()];
    words.extend(plant.into_iter().flat_map(|plant| ["--plant".to_owned(), plant.to_string()]));
    words.extend(syncs_later.then(|| "--syncs-later".to_owned()));
    words
}

fn run_seed(batch: &Batch, seed: u64, summary: &Mutex<Summary>) -> bool {
    let words = command(seed, batch.variant);
    let output = Command::new(&batch.program).args(&words).stdin(Stdio::null()).output();
    let (stdout, mut errors) = match output {
        Ok(output) => (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ),
        Err(error) => (String::new(), error.to_string()),
    };
    let done = stdout.lines().find_map(|line| line.strip_prefix("done "));
    let violations: Vec<_> =
        stdout.lines().filter_map(|line| line.strip_prefix("violation ")).collect();
    if done.is_some() {
        errors.clear();
    }
    let is_bad = match batch.variant.plant {
        None => !violations.is_empty() || done.is_none(),
        Some(plant) => violations.iter().any(|violation| {
            plant.breaks().iter().any(|rule| violation.starts_with(rule.as_str()))
        }),
    };
    let mut summary = summary.lock();
    summary.seeds += 1;
    for (name, value) in done.into_iter().flat_map(|done| done.split(' ')).filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        Some((name, value.parse::<u64>().ok()?))
    }) {
        match (name, summary.counts.iter_mut().find(|(known, _)| known == name)) {
            ("simulated_us", _) => summary.simulated_us += value,
            ("digest", _) => {}
            (_, Some((_, count))) => *count += value,
            _ => summary.counts.push((name.to_owned(), value)),
        }
    }
    if is_bad {
        summary.bad.push(seed);
        println!("seed {seed}:");
        for line in violations.into_iter().map(str::to_owned).chain(tail(&errors)) {
            println!("  {line}");
        }
        println!("  to see it: cargo run --release -p aklight-sim -- {} --trace", words.join(" "));
    }
    is_bad
}

/// The end of what a process that died has to say.
fn tail(errors: &str) -> Vec<String> {
    let lines: Vec<_> = errors.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(12)).map(|line| (*line).to_owned()).collect()
}
