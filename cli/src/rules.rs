//! `aklight check-rules` and `aklight alerts`: what a consumer's keeper does by hand.

use std::path::PathBuf;
use std::process::ExitCode;

use aklight_consumer::RetryArgs;
use clap::{Args, Subcommand};

/// Which file.
#[derive(Debug, Args)]
pub struct CheckRulesArgs {
    /// The file of rules
    file: PathBuf,
}

/// What to do with alerts.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send again what could not be delivered
    Retry(Box<RetryArgs>),
}

/// Checks a file and names every mistake.
pub fn check(args: &CheckRulesArgs) -> anyhow::Result<ExitCode> {
    aklight_consumer::check_rules(&args.file)
}

/// Does what is to be done with alerts.
pub fn alerts(args: &AlertsArgs) -> anyhow::Result<ExitCode> {
    let What::Retry(args) = &args.what;
    aklight_consumer::alerts_retry(args)
}
