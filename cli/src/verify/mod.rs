//! `aklight verify`: whether what is stored is whole, and the same everywhere.
//!
//! [`folders`] reads data directories through and compares the replicas in them, [`brokers`]
//! compares what running brokers serve. Exit codes: 0 nothing is wrong, 1 something is (or nothing
//! could be known, which standard error tells), 2 called wrongly.

mod brokers;
mod findings;
pub mod folders;

use std::path::PathBuf;
use std::process::{self, ExitCode};

use aklight_common::client::{ClientConfig, parse_brokers};
use aklight_common::clock::{Clock, SystemClock};
use clap::Args;
use serde_json::{Value, json};

pub use self::findings::Findings;
use crate::connect::block_on;
use crate::output::{Format, Output, OutputArgs};

/// What to look at.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directories of brokers, whether they run or not: each is checked, and several
    /// are compared
    #[arg(value_name = "DIR", required_unless_present = "brokers")]
    dirs: Vec<PathBuf>,
    /// Compare what these running brokers serve: host:port, several with commas
    #[arg(long, value_name = "HOST:PORT,…", value_parser = addresses, conflicts_with = "dirs")]
    brokers: Option<Addresses>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A checked list of brokers.
#[derive(Debug, Clone)]
struct Addresses(Vec<String>);

fn addresses(list: &str) -> Result<Addresses, String> {
    parse_brokers(list).map(Addresses).map_err(|error| error.to_string())
}

/// Verifies, and tells.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let clock = SystemClock::new();
    let mut findings = Findings::default();
    let (counts, said) = match &args.brokers {
        Some(Addresses(brokers)) => of_brokers(brokers, &mut findings)?,
        None => of_folders(&args.dirs, &mut findings)?,
    };
    let seconds = clock.monotonic_ms() as f64 / 1000.0;
    let mut output = Output::new(&args.output);
    match output.format() {
        Format::Json => {
            let mut told = findings.json();
            told["checked"] = counts;
            told["seconds"] = json!(seconds);
            output.line(&format!("{told:#}"))?;
        }
        Format::Table => {
            for line in findings.lines() {
                output.line(&line)?;
            }
            output.line(&format!("{said} in {seconds:.1} s: {} findings", findings.count()))?;
        }
    }
    Ok(if findings.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was counted, for programs and for people.
type Told = (Value, String);

fn of_brokers(brokers: &[String], findings: &mut Findings) -> anyhow::Result<Told> {
    let config = ClientConfig::new(brokers.to_vec(), &format!("verify-{}", process::id()));
    let brokers::Compared { partitions, records, bytes } =
        block_on(brokers::compare(&config, findings))?;
    let count = brokers.len();
    let said = format!(
        "{count} brokers, {partitions} partitions, {records} records \
         ({bytes} bytes of keys and payloads) compared"
    );
    let counts = json!({
        "brokers": brokers, "partitions": partitions, "records": records, "bytes": bytes,
    });
    Ok((counts, said))
}

fn of_folders(dirs: &[PathBuf], findings: &mut Findings) -> anyhow::Result<Told> {
    let folders::Checked { logs, batches, records, bytes, compared } =
        folders::check(dirs, findings)?;
    let count = dirs.len();
    let said = format!(
        "{count} directories, {logs} logs, {batches} batches, {records} records ({bytes} bytes) \
         checked, {compared} entries compared"
    );
    let counts = json!({
        "directories": count, "logs": logs, "batches": batches, "records": records,
        "bytes": bytes, "compared": compared,
    });
    Ok((counts, said))
}
