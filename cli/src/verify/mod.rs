//! `aklight verify`: whether what is stored is whole, and the same everywhere.
//!
//! [`brokers`] compares what running brokers serve. Exit codes: 0 nothing is wrong, 1 something is
//! (or nothing could be known, which standard error tells), 2 called wrongly.

mod brokers;
mod findings;

use std::process::{self, ExitCode};

use aklight_common::client::{ClientConfig, parse_brokers};
use aklight_common::clock::{Clock, SystemClock};
use clap::Args;
use serde_json::json;

use self::findings::Findings;
use crate::connect::block_on;
use crate::output::{Format, Output, OutputArgs};

/// What to look at.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Compare what these running brokers serve: host:port, several with commas
    #[arg(long, value_name = "HOST:PORT,…", value_parser = addresses)]
    brokers: Addresses,
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
    let Addresses(brokers) = &args.brokers;
    let config = ClientConfig::new(brokers.clone(), &format!("verify-{}", process::id()));
    let compared = block_on(brokers::compare(&config, &mut findings))?;
    let seconds = clock.monotonic_ms() as f64 / 1000.0;
    let mut output = Output::new(&args.output);
    match output.format() {
        Format::Json => {
            let mut told = findings.json();
            told["brokers"] = json!(brokers);
            told["partitions"] = json!(compared.partitions);
            told["records"] = json!(compared.records);
            told["bytes"] = json!(compared.bytes);
            told["seconds"] = json!(seconds);
            output.line(&format!("{told:#}"))?;
        }
        Format::Table => {
            for line in findings.lines() {
                output.line(&line)?;
            }
            output.line(&format!(
                "{} brokers, {} partitions, {} records ({} bytes of keys and payloads) compared \
                 in {seconds:.1} s: {} findings",
                brokers.len(),
                compared.partitions,
                compared.records,
                compared.bytes,
                findings.count()
            ))?;
        }
    }
    Ok(if findings.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
