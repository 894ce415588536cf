//! The `stress` command: load for the machine or container it runs in.

use std::process::ExitCode;

use aklight_common::settings::EXIT_FAILED;
use clap::Parser;

/// Load this machine for some seconds, to see AKLight's alerts ring.
#[derive(Debug, Parser)]
#[command(name = "stress", version)]
struct Cli {
    #[command(flatten)]
    args: aklight_stress::StressArgs,
}

fn main() -> ExitCode {
    // Without `--config`: there is no setting but what is typed.
    aklight_stress::run(Cli::parse().args).unwrap_or_else(|error| {
        eprintln!("stress: {error:#}");
        ExitCode::from(EXIT_FAILED)
    })
}
